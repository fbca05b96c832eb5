#!/usr/bin/env python3
"""Writes the seed corpora, seeds/<target>/<name>, from the conversations spelt out below.

The octets are put together here and not by the crates under test, so that a mistake in a writer does
not hide the same mistake in a reader. The formats of the inputs are at the head of src/<target>.rs.
Run it after changing it; the seeds are committed. The store's are taken from its golden files, which
are held still.
"""

import pathlib
import shutil
import struct

SEEDS = pathlib.Path(__file__).resolve().parent / "seeds"


def short(text):
    octets = text.encode() if isinstance(text, str) else text
    return bytes([len(octets)]) + octets


def long(octets):
    octets = octets.encode() if isinstance(octets, str) else octets
    return struct.pack(">I", len(octets)) + octets


# ---- field tables ----


def value(item):
    """A value in the letters that clients use for Python's types; a pair is a letter with octets."""
    if isinstance(item, tuple):
        letter, octets = item
        return letter.encode() + octets
    if isinstance(item, bool):
        return b"t" + bytes([item])
    if isinstance(item, int):
        return b"I" + struct.pack(">i", item) if -(2**31) <= item < 2**31 else b"l" + struct.pack(">q", item)
    if isinstance(item, str):
        return b"S" + long(item)
    if isinstance(item, dict):
        return b"F" + long(entries(item))
    if isinstance(item, list):
        return b"A" + long(b"".join(value(element) for element in item))
    if item is None:
        return b"V"
    raise TypeError(item)


def entries(table):
    return b"".join(short(name) + value(item) for name, item in table.items())


def table(contents):
    return long(entries(contents))


def nested(depth, inner=b""):
    for _ in range(depth - 1):
        inner = short("n") + b"F" + long(inner)
    return inner


def nested_arrays(depth):
    inner = b""
    for _ in range(depth - 2):
        inner = b"A" + long(inner)
    return short("n") + b"A" + long(inner)


EVERY_TYPE = {
    "t": True,
    "b": ("b", b"\x80"),
    "B": ("B", b"\xff"),
    "s": ("s", b"\x80\x00"),
    "U": ("U", b"\x7f\xff"),
    "u": ("u", b"\xff\xff"),
    "I": -1,
    "i": ("i", b"\xff\xff\xff\xff"),
    "l": 2**40,
    "L": ("L", b"\x80" + b"\x00" * 7),
    "f": ("f", struct.pack(">f", 1.5)),
    "d": ("d", struct.pack(">d", -0.1)),
    "D": ("D", b"\x02\x00\x00\x01\x3a"),
    "S": "text",
    "A": [1, "two", [3], {"four": 4}],
    "T": ("T", struct.pack(">Q", 1_700_000_000)),
    "F": {"in": {"in": {}}},
    "V": None,
    "x": ("x", long(b"\x00\xff")),
}

PIKA = {
    "product": "Pika Python Client Library",
    "platform": "Python 3.11.7",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "publisher_confirms": True,
    },
    "information": "See http://pika.rtfd.org",
    "version": "1.3.2",
}

QUEUE_ARGUMENTS = {
    "x-message-ttl": 60000,
    "x-expires": 1800000,
    "x-max-length": 1000,
    "x-max-length-bytes": 2**33,
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "dlx",
    "x-dead-letter-routing-key": "dead",
    "x-max-priority": ("b", b"\x0a"),
    "x-single-active-consumer": True,
    "x-queue-type": "classic",
}

X_DEATH = {
    "x-death": [
        {
            "count": 2,
            "reason": "rejected",
            "queue": "work",
            "time": ("T", struct.pack(">Q", 1_700_000_000)),
            "exchange": "",
            "routing-keys": ["work", "copy"],
        }
    ],
    "x-first-death-reason": "rejected",
    "CC": ["copy"],
    "BCC": ["blind"],
}

# ---- property lists ----

ALL_PROPERTIES = struct.pack(">H", 0xFFFC) + b"".join(
    [
        short("application/json"),
        short("utf-8"),
        table({"a": 1, "b": "c"}),
        b"\x02",
        b"\x09",
        short("correlation"),
        short("amq.rabbitmq.reply-to"),
        short("60000"),
        short("message-1"),
        struct.pack(">Q", 1_700_000_000),
        short("type"),
        short("guest"),
        short("app"),
        short("cluster"),
    ]
)
PERSISTENT = b"\x10\x00\x02"
HEADERS_ONLY = b"\x20\x00" + table(X_DEATH)
NO_PROPERTIES = b"\x00\x00"

# ---- methods ----


def method(class_id, method_id, *arguments):
    return struct.pack(">HH", class_id, method_id) + b"".join(arguments)


def u8(number):
    return bytes([number])


def u16(number):
    return struct.pack(">H", number)


def u32(number):
    return struct.pack(">I", number)


def u64(number):
    return struct.pack(">Q", number)


PLAIN = b"\x00guest\x00guest"
AMQPLAIN = entries({"LOGIN": "guest", "PASSWORD": "guest"})

METHODS = {
    "connection_start_ok": method(10, 11, table(PIKA), short("PLAIN"), long(PLAIN), short("en_US")),
    "connection_start_ok_amqplain": method(
        10, 11, table({}), short("AMQPLAIN"), long(AMQPLAIN), short("en_US")
    ),
    "connection_start": method(
        10, 10, b"\x00\x09", table({"product": "RabbitMQ"}), long("PLAIN AMQPLAIN"), long("en_US")
    ),
    "connection_tune_ok": method(10, 31, u16(2047), u32(131072), u16(60)),
    "connection_open": method(10, 40, short("/"), short(""), u8(1)),
    "connection_close": method(10, 50, u16(200), short("Normal shutdown"), u16(0), u16(0)),
    "connection_blocked_or_close_of_0_8": method(
        10, 60, u16(200), short("Goodbye"), u16(0), u16(0)
    ),
    "connection_update_secret": method(10, 70, long("token"), short("expired")),
    "channel_open": method(20, 10, short("")),
    "channel_open_ok": method(20, 11, long("")),
    "channel_flow": method(20, 20, u8(1)),
    "channel_close": method(20, 40, u16(404), short("NOT_FOUND - no queue 'q'"), u16(50), u16(10)),
    "access_request": method(30, 10, short("/data"), u8(0x1F)),
    "exchange_declare": method(
        40, 10, u16(0), short("logs"), short("topic"), u8(2), table({"alternate-exchange": "rest"})
    ),
    "exchange_delete": method(40, 20, u16(0), short("logs"), u8(1)),
    "exchange_bind": method(
        40, 30, u16(0), short("to"), short("from"), short("#"), u8(0), table({})
    ),
    "queue_declare": method(50, 10, u16(0), short("work"), u8(2), table(QUEUE_ARGUMENTS)),
    "queue_declare_ok": method(50, 11, short("work"), u32(3), u32(1)),
    "queue_bind": method(
        50, 20, u16(0), short("work"), short("logs"), short("*.error.#"), u8(0), table({})
    ),
    "queue_bind_headers": method(
        50, 20, u16(0), short("q"), short("amq.headers"), short(""), u8(0), table({"x-match": "any", "a": None})
    ),
    "queue_purge": method(50, 30, u16(0), short("work"), u8(0)),
    "queue_delete": method(50, 40, u16(0), short("work"), u8(3)),
    "queue_unbind": method(50, 50, u16(0), short("work"), short("logs"), short("a"), table({})),
    "basic_qos": method(60, 10, u32(0), u16(100), u8(0)),
    "basic_consume": method(
        60, 20, u16(0), short("work"), short("ctag"), u8(4), table({"x-priority": 10})
    ),
    "basic_consume_not_a_number": method(
        60, 20, u16(0), short("q"), short(""), u8(0), table({"x": ("f", b"\xff\xff\xff\x01")})
    ),
    "basic_cancel": method(60, 30, short("ctag"), u8(0)),
    "basic_publish": method(60, 40, u16(0), short("logs"), short("kern.error"), u8(1)),
    "basic_publish_not_text": method(60, 40, u16(0), short(b"\xff"), short(b"\xc3\x28"), u8(3)),
    "basic_return": method(60, 50, u16(312), short("NO_ROUTE"), short(""), short("q")),
    "basic_deliver": method(60, 60, short("ctag"), u64(1), u8(1), short("logs"), short("kern.error")),
    "basic_get": method(60, 70, u16(0), short("work"), u8(0)),
    "basic_get_ok": method(60, 71, u64(1), u8(0), short(""), short("work"), u32(2)),
    "basic_ack": method(60, 80, u64(7), u8(1)),
    "basic_reject": method(60, 90, u64(8), u8(1)),
    "basic_recover_of_0_9": method(60, 102, u8(1)),
    "basic_recover": method(60, 110, u8(1)),
    "basic_nack": method(60, 120, u64(9), u8(3)),
    "confirm_select": method(85, 10, u8(0)),
    "tx_select": method(90, 10),
    "tx_commit": method(90, 20),
    "truncated": method(50, 10, u16(0), short("work"))[:-2],
    "trailing": method(60, 80, u64(7), u8(1)) + b"more",
    "nested_too_deep": method(10, 11, long(nested(200)), short("PLAIN"), long(PLAIN), short("en_US")),
    "unknown": method(60, 99),
}

# ---- frames ----


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def on(channel, name):
    return frame(1, channel, METHODS[name])


def header_payload(body_len, properties):
    return struct.pack(">HHQ", 60, 0, body_len) + properties


def content(channel, properties, *pieces):
    body_len = sum(map(len, pieces))
    return frame(2, channel, header_payload(body_len, properties)) + b"".join(
        frame(3, channel, piece) for piece in pieces
    )


HEARTBEAT = frame(8, 0, b"")

PIKA_LOGIN = b"".join(
    on(0, name) for name in ["connection_start_ok", "connection_tune_ok", "connection_open"]
)
PIKA_PUBLISHES = PIKA_LOGIN + b"".join(
    [
        on(1, "channel_open"),
        on(1, "queue_declare"),
        on(1, "confirm_select"),
        on(1, "basic_publish"),
        content(1, PERSISTENT, b"hello"),
        on(1, "basic_publish"),
        content(1, ALL_PROPERTIES, b"in two ", b"frames"),
        on(1, "basic_publish"),
        content(1, NO_PROPERTIES),
        HEARTBEAT,
        on(1, "channel_close"),
        on(0, "connection_close"),
    ]
)
CONSUMES = b"".join(
    [
        on(1, "basic_qos"),
        on(1, "basic_consume"),
        on(1, "basic_deliver"),
        content(1, HEADERS_ONLY, b"x" * 40),
        on(1, "basic_ack"),
        on(1, "basic_nack"),
        on(1, "basic_reject"),
        on(1, "basic_cancel"),
    ]
)

FRAME_STREAMS = {
    "pika_login": (1, PIKA_LOGIN),
    "pika_publishes": (2, PIKA_PUBLISHES),
    "consumes": (0, CONSUMES),
    "two_channels": (
        2,
        on(1, "basic_publish") + on(2, "basic_publish") + content(2, PERSISTENT, b"b") + content(1, PERSISTENT, b"a"),
    ),
    "heartbeats": (3, HEARTBEAT * 5),
    "payload_of_frame_max": (3, frame(3, 1, b"x" * 16)),
    "above_frame_max": (3, frame(3, 1, b"x" * 17)),
    "announces_four_gibibytes": (0, b"\x03\x00\x01\xff\xff\xff\xff"),
    "wrong_end": (1, frame(1, 0, b"abcd")[:-1] + b"\x00"),
    "heartbeat_on_channel_3": (1, frame(8, 3, b"")),
    "body_on_channel_0": (1, frame(3, 0, b"x")),
    "unknown_type": (1, frame(4, 1, b"x")),
    "unfinished": (1, PIKA_LOGIN[:-3]),
}

# ---- scripts of contents ----


def publish(side, exchange, key, mandatory=False):
    return u8(side << 7 | mandatory) + short(exchange) + short(key)


def ack(side):
    return u8(side << 7 | 2) + u64(1)


def header(side, declared, properties=PERSISTENT):
    if declared < 256:
        return u8(side << 7 | 3) + u8(declared) + short(properties)
    return u8(side << 7 | 4) + u64(declared) + short(properties)


def empty_body(side):
    return u8(side << 7 | 5)


def body(side, octets, frame_max_index=0):
    return u8(side << 7 | frame_max_index << 3 | 6) + short(octets)


CONTENT_SCRIPTS = {
    "one": publish(0, "logs", "a.b", True) + header(0, 5) + body(0, b"hello"),
    "empty": publish(0, "", "q") + header(0, 0, NO_PROPERTIES),
    "in_pieces": publish(0, "", "q") + header(0, 10) + body(0, b"hello") + body(0, b"world"),
    "in_small_frames": publish(0, "", "q") + header(0, 40) + body(0, b"x" * 40, 1),
    "empty_body_frames": publish(0, "", "q")
    + header(0, 2)
    + empty_body(0)
    + body(0, b"a")
    + empty_body(0)
    + body(0, b"b"),
    "two_channels": publish(0, "a", "1")
    + publish(1, "b", "2")
    + header(1, 1)
    + header(0, 1)
    + body(0, b"A")
    + body(1, b"B")
    + ack(0)
    + ack(1),
    "too_long": publish(0, "", "q") + header(0, 3) + body(0, b"ab") + body(0, b"cd") + body(0, b"e"),
    "declares_everything": publish(0, "", "q") + header(0, 2**64 - 1) + body(0, b"x" * 100),
    "out_of_turn": header(0, 1)
    + body(0, b"x")
    + publish(0, "", "q")
    + publish(0, "", "q")
    + ack(0)
    + body(0, b"x")
    + header(0, 1)
    + header(0, 1)
    + ack(0)
    + body(0, b"x"),
    "all_properties": publish(0, "", "q") + header(0, 1, ALL_PROPERTIES) + body(0, b"x"),
}

# ---- STOMP ----

NET_STOMP = (
    b"CONNECT\nlogin:guest\npasscode:guest\n\n\0\n"
    b"SUBSCRIBE\nack:client\nactivemq.prefetchSize:1\ndestination:/queue/foo\n\n\0\n"
    b"SEND\ncontent-length:12\ndestination:/queue/foo\npersistent:true\n\ntest message\0\n"
    b"BEGIN\ntransaction:1\n\n\0\n"
    b"SEND\ncontent-length:2\ndestination:/queue/foo\nreceipt:session-1\ntransaction:1\n\n\0\n\0\n"
    b"COMMIT\ntransaction:1\n\n\0\n"
    b"ACK\nmessage-id:T_1@@session@@1\n\n\0\n"
    b"DISCONNECT\n\n\0\n"
)
STOMP_PY_1_2 = (
    b"STOMP\naccept-version:1.2\nheart-beat:4000,4000\nhost:/\nlogin:guest\npasscode:guest\n\n\0"
    b"\nSUBSCRIBE\nack:client-individual\ndestination:/exchange/logs/%23.error\nid:1\n"
    b"selector:a > 1 AND b = 'x'\n\n\0"
    b"\n\nSEND\ndestination:/topic/a.b\ncontent-type:text/plain;charset=utf-8\ncontent-length:5\n\nhello\0"
    b"NACK\nid:T_1@@session@@1\nreceipt:r-1\n\n\0"
    b"UNSUBSCRIBE\nid:1\n\n\0DISCONNECT\nreceipt:77\n\n\0"
)
SERVER_SIDE = (
    b"CONNECTED\nversion:1.2\nheart-beat:4000,4000\nserver:Warren/0.1.0\nsession:s-1\n\n\0\n"
    b"MESSAGE\nsubscription:1\nmessage-id:T_1@@s-1@@1\nack:T_1@@s-1@@1\ndestination:/queue/a\n"
    b"note:a\\cb\\\\c\\nd\\r\nredelivered:false\ncontent-length:3\n\na\0b\0\n"
    b"RECEIPT\nreceipt-id:77\n\n\0\n"
    b"ERROR\nmessage:not_found\ncontent-type:text/plain\nversion:1.0,1.1,1.2\ncontent-length:2\n\nno\0\n"
)

# First octet: version in the remainder by three, limits in the top two bits.
STOMP_STREAMS = {
    "net_stomp": (0x00, NET_STOMP),
    "stomp_py_1_2": (0x02, STOMP_PY_1_2),
    "server_side": (0x82, SERVER_SIDE),
    "carriage_returns": (
        0x41,
        b"SEND\r\ndestination:/queue/a\r\n\r\nbody\r\n\0\r\n\r\nDISCONNECT\r\nreceipt:1\r\n\r\n\0",
    ),
    "blanks_before_values": (0x00, b"CONNECT\nlogin: guest\npasscode: a\\b\n\n\0"),
    "escapes_1_0": (0x00, b"SEND\na\\cb:c\\nd\\\\\\t\n\n\0"),
    "escapes_1_1": (0x01, b"SEND\na\\cb:c\\nd\\\\\n\n\0SEND\na:\\t\n\n\0"),
    "repeated_headers": (0x02, b"SEND\nfoo:1\nfoo:2\nFOO:3\n\n\0"),
    "content_length_in_blanks": (0x02, b"SEND\ncontent-length: \t3\t\n\nabc\0"),
    "content_length_negative": (0x02, b"SEND\ncontent-length:-1\n\nabc\0"),
    "content_length_huge": (0x02, b"SEND\ncontent-length:18446744073709551616\n\nabc\0"),
    "content_length_twice": (0x02, b"SEND\ncontent-length:2\ncontent-length:3\n\nabc\0"),
    "content_length_short": (0x02, b"SEND\ncontent-length:2\n\nabc\0"),
    "tight_header": (0xC2, b"SEND\n" + b"a" * 30),
    "tight_head": (0xC2, b"SEND\na:b\nc:d\ne:f\ng:h\n\n\0"),
    "tight_body": (0xC2, b"SEND\n\n" + b"x" * 16 + b"\0"),
    "unknown_command": (0x02, b"HELLO world\na: b\n\n\0GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls": (0x00, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "heart_beats": (0x02, b"\n\n\r\n\n\0\0\n"),
    "lone_carriage_return": (0x02, b"\n\n\r\rSEND\n\n\0"),
    "nul_in_head": (0x02, b"SEND\na:b\0c\n\n\0"),
    "unfinished": (0x02, b"SEND\ndestination:/queue/a\ncontent-length:100\n\nhalf"),
}

# ---- topics ----


def topics(*patterns, key, removed=0b0101):
    return struct.pack(">Q", removed) + b"".join(p.encode() + b"\n" for p in patterns) + key.encode()


TOPICS = {
    "plain": topics("a.b", "a.c", "a", "", key="a.b"),
    "star": topics("*", "*.b", "a.*", "*.*", "*.*.*", key="a.b"),
    "hash": topics("#", "a.#", "#.b", "a.#.b", "#.a.#", key="a.x.y.b"),
    "hashes_together": topics("#.#", "a.#.#.b", "#.*.#", "*.#.*", key="a.b"),
    "many_wildcards": topics("#.a.#.a.#.a.#", "*.#.a.*.#", "#.a", "a.#.a", key="a.a.a.a.a.a.a.a"),
    "empty_key": topics("", "#", "*", "#.#", "#.*", key=""),
    "empty_words": topics("a..b", "a.*.b", ".", "*.*", "a.", ".a", key="a..b"),
    "wildcards_in_words": topics("a*", "#a", "*#", "**", "##", key="a*"),
    "wildcards_in_the_key": topics("*", "#", "a.*", "a.#", key="a.*"),
    "same_pattern": topics("a.*", "a.*", "a.*", "a.*", key="a.b"),
}

# ---- strangers ----

STRANGERS = {
    "amqp_0_9_1": b"AMQP\x00\x00\x09\x01",
    "amqp_0_9": b"AMQP\x01\x01\x00\x09",
    "amqp_0_8": b"AMQP\x01\x01\x08\x00",
    "amqp_0_8_of_py_amqplib": b"AMQP\x01\x01\x09\x01",
    "amqp_1_0_sasl": b"AMQP\x03\x01\x00\x00",
    "http": b"GET / HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01\x00\xf5",
    "plain": PLAIN,
    "plain_with_authorisation": b"admin" + PLAIN,
    "plain_without_password": b"\x00guest\x00",
    "plain_with_three_nuls": b"\x00guest\x00gu\x00est",
    "amqplain": AMQPLAIN,
    "amqplain_the_other_way": entries({"PASSWORD": "p", "LOGIN": "l", "more": 1}),
    "amqplain_twice": AMQPLAIN + AMQPLAIN,
    "amqplain_not_a_string": entries({"LOGIN": 1, "PASSWORD": ["x"]}),
    "amqplain_with_a_length": long(AMQPLAIN),
    "amqplain_deep": short("LOGIN") + b"F" + long(nested(40)),
}

# ---- the store ----

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "broker-core/tests/golden/v1"


def golden(start):
    """A file of the golden store; its name ends with its length, and zeros at its end are left out."""
    (path,) = (path for path in GOLDEN.iterdir() if path.name.startswith(start))
    return path.read_bytes()


def whole(start):
    (path,) = (path for path in GOLDEN.iterdir() if path.name.startswith(start))
    return golden(start).ljust(int(path.name.split("@")[1]), b"\0")


LOG = golden("wal+0000000000000003")
SEGMENT = whole("seg+0000000000000001")
# The first record of the first frame, at its position; the first message of the first extent, of its queue.
RECORD = LOG[4096 + 40 : 4096 + 48] + LOG[4096 + 64 :]
MESSAGE = SEGMENT[64 + 16 : 64 + 24] + SEGMENT[64 + 48 :]

STORE_RECORDS = {
    "log_file_header": u8(0) + LOG[:64],
    "frame": u8(1) + LOG[4096 : 4096 + 64],
    "record": u8(2) + RECORD[:512],
    "record_cut": u8(2) + RECORD[:60],
    "message": u8(3) + MESSAGE[:256],
    "segment": u8(4) + SEGMENT,
    "segment_without_footer": u8(4) + SEGMENT[:-88],
    "segment_of_many": u8(4) + whole("seg+0000000000000000"),
    "checkpoint": u8(5) + golden("ckpt+0000000000000003"),
    "checkpoint_newer": u8(5) + golden("ckpt+0000000000000004"),
    "format": u8(6) + golden("FORMAT"),
    "log": u8(7) + LOG,
    "log_end": u8(7) + golden("wal+0000000000000005"),
}

# The files by name: two checkpoints, FORMAT, two segments, four log files.
FILES = {name: number for number, name in enumerate(
    ["FORMAT", "ckpt3", "ckpt4", "seg0", "seg1", "wal3", "wal4", "wal5", "wal6"]
)}


def overwritten(name, at, octets):
    return u8(0) + u8(FILES[name]) + u64(at) + short(octets)


def cut(name, at):
    return u8(1) + u8(FILES[name]) + u64(at)


def removed(name):
    return u8(2) + u8(FILES[name])


def swapped(name, other):
    return u8(3) + u8(FILES[name]) + u8(FILES[other])


def made(kind, number, octets):
    return u8(4) + u8(kind) + u8(number) + short(octets)


def sealed(name):
    return u8(5) + u8(FILES[name])


def zeroed(name, at):
    return u8(6) + u8(FILES[name]) + u64(at)


STORE_CHANGES = {
    "golden": b"",
    "rotten_message": overwritten("seg0", 300, b"\xff"),
    "rotten_frame": overwritten("wal3", 4200, b"\xff"),
    "zeroed_sector": zeroed("wal4", 4096),
    "cut_checkpoint": cut("ckpt4", 400),
    "cut_log": cut("wal4", 5000),
    "no_format": removed("FORMAT"),
    "no_log": b"".join(removed(name) for name in ("wal6", "wal5", "wal4", "wal3")),
    "no_checkpoints": removed("ckpt4") + removed("ckpt3"),
    "no_segment": removed("seg0"),
    "swapped_logs": swapped("wal3", "wal4"),
    "swapped_segments": swapped("seg0", "seg1"),
    "segment_as_checkpoint": swapped("seg0", "ckpt4"),
    "stranger": made(0, 9, LOG[:64]) + made(1, 9, b"") + made(3, 1, b"x") + made(4, 4, b""),
    "format_of_nothing": made(0xFF, 0, b"warren store\nversion 2\n"),
    "forged_record": overwritten("wal3", 4096 + 64 + 8, b"\x04") + sealed("wal3"),
    "forged_no_record": overwritten("wal6", 4096 + 64 + 8, b"\xff") + sealed("wal6"),
    "forged_sequence": overwritten("wal3", 4096 + 64 + 48, b"\xff" * 8) + sealed("wal3"),
    "forged_extent": overwritten("seg0", 64 + 24, b"\xff" * 16) + sealed("seg0"),
    "forged_format": overwritten("FORMAT", 21, b"7") + sealed("FORMAT"),
}

CORPORA = {
    "amqp_frame": {
        name: u8(frame_max) + u64(index * 0x9E3779B97F4A7C15 % 2**64) + stream
        for index, (name, (frame_max, stream)) in enumerate(FRAME_STREAMS.items(), 1)
    },
    "amqp_table": {
        "every_type": entries(EVERY_TYPE),
        "pika": entries(PIKA),
        "queue_arguments": entries(QUEUE_ARGUMENTS),
        "x_death": entries(X_DEATH),
        "duplicates": short("a") + b"t\x01" + short("a") + b"t\x02",
        "name_not_text": short(b"\xff\xfe") + b"V",
        "nested_32": nested(32),
        "nested_33": nested(33),
        "arrays_32": nested_arrays(32),
        "arrays_33": nested_arrays(33),
        "many_voids": short("v") + b"A" + long(b"V" * 1023),
        "too_many_voids": short("v") + b"A" + long(b"V" * 1024),
        "longer_than_its_table": short("a") + b"F" + long(short("b") + b"S" + long("x")[:-1]),
        "unknown_letter": short("a") + b"Z\x00",
        "properties_all": ALL_PROPERTIES,
        "properties_none": NO_PROPERTIES,
        "properties_persistent": PERSISTENT,
        "properties_headers": HEADERS_ONLY,
        "properties_trailing": PERSISTENT + b"x",
        "properties_continued": b"\x00\x01\x00\x00",
        "content_header": header_payload(5, ALL_PROPERTIES),
    },
    "amqp_content": CONTENT_SCRIPTS,
    "amqp_method": {
        f"{name}{suffix}": u8(version) + payload
        for name, payload in METHODS.items()
        for version, suffix in [(0, ""), (2, "_in_0_8")]
        if version == 0 or name in ("channel_open_ok", "connection_blocked_or_close_of_0_8", "basic_nack")
    }
    | {"basic_recover_in_0_9": u8(1) + METHODS["basic_recover_of_0_9"]},
    "stomp_frame": {
        name: u8(choice) + u64(index * 0x9E3779B97F4A7C15 % 2**64) + stream
        for index, (name, (choice, stream)) in enumerate(STOMP_STREAMS.items(), 1)
    },
    "store_record": STORE_RECORDS,
    "store_open": {
        name: u8(0) + u8(index) + changes
        for index, (name, changes) in enumerate(STORE_CHANGES.items())
    }
    | {"empty_directory": u8(1) + u8(0), "files_without_store": u8(1) + u8(5) + made(0, 0, LOG[:64])},
    "topic": TOPICS,
    "sasl": STRANGERS,
}


def main():
    shutil.rmtree(SEEDS, ignore_errors=True)
    for target, seeds in CORPORA.items():
        directory = SEEDS / target
        directory.mkdir(parents=True)
        for name, octets in seeds.items():
            (directory / name).write_bytes(octets)
        print(f"{target}: {len(seeds)} seeds")


if __name__ == "__main__":
    main()
