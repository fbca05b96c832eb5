"""What the durable section of compare.py needs besides `warren bench`: the limits of the disk, and when a broker is back.

Both are measured without any broker's code, so that they can be compared with all of them.
"""

import contextlib
import os
import socket
import struct
import time

BLOCK_LEN = 4096
PREALLOCATED_LEN = 64 * 1024 * 1024
WRITE_LEN = 1024 * 1024

# Octets that sequential writing may fill a file with before it starts over.
FILE_LEN_MAX = 2 * 1024 * 1024 * 1024

# How often a broker that is starting is asked, in seconds.
LOOK_EVERY = 0.002


def disk_limits(directory, seconds):
    """What the disk under `directory` does without a broker: flushes of small overwrites, and long writes."""
    path = os.path.join(directory, "limits")
    try:
        return {
            "fdatasync_per_s": overwrites_per_second(path, seconds),
            "sequential_mb_per_s": sequential_mb_per_second(path, seconds),
        }
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def overwrites_per_second(path, seconds):
    """fdatasync calls a second, each behind 4 KiB over octets that were written before: no length and no block changes."""
    blocks = PREALLOCATED_LEN // BLOCK_LEN
    with open_unbuffered(path) as file:
        for _ in range(PREALLOCATED_LEN // WRITE_LEN):
            write_whole(file, os.urandom(WRITE_LEN))
        os.fsync(file)
        block = os.urandom(BLOCK_LEN)
        count, started = 0, time.monotonic()
        while (took := time.monotonic() - started) < seconds:
            os.pwrite(file, block, (count % blocks) * BLOCK_LEN)
            os.fdatasync(file)
            count += 1
    return count / took


def sequential_mb_per_second(path, seconds):
    """Megabytes a second of 1 MiB writes at the file's end, each with its fdatasync."""
    piece = os.urandom(WRITE_LEN)
    with open_unbuffered(path) as file:
        os.ftruncate(file, 0)
        written, started = 0, time.monotonic()
        while (took := time.monotonic() - started) < seconds and written < FILE_LEN_MAX:
            write_whole(file, piece)
            os.fdatasync(file)
            written += WRITE_LEN
    return written / took / 1e6


@contextlib.contextmanager
def open_unbuffered(path):
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def write_whole(file, octets):
    """A regular file takes fewer octets than it was given only when the disk is full."""
    if os.write(file, octets) != len(octets):
        raise OSError(f"the disk took a part of {len(octets)} octets")


def await_login(port, deadline):
    """Blocks until the broker at `port` lets guest into `/`: AMQP up to connection.open-ok. False past `deadline`."""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if logs_in(port, max(0.1, deadline - time.monotonic())):
                return True
        time.sleep(LOOK_EVERY)
    return False


def logs_in(port, timeout):
    with socket.create_connection(("127.0.0.1", port), timeout) as stream:
        reader = stream.makefile("rb")
        stream.sendall(b"AMQP\x00\x00\x09\x01")
        start = method(reader)
        # client-properties, mechanism, response, locale
        stream.sendall(frame(10, 11, long_string(b"") + short_string(b"PLAIN") + long_string(b"\0guest\0guest")
                             + short_string(b"en_US")))
        tune = method(reader)
        # channel-max, frame-max and heartbeat as they were offered; virtual host and two reserved fields.
        stream.sendall(frame(10, 31, tune[4:12]) + frame(10, 40, short_string(b"/") + b"\0\0"))
        opened = method(reader)
        stream.sendall(frame(10, 50, struct.pack(">H", 200) + short_string(b"done") + b"\0\0\0\0"))
        return [start[:4], tune[:4], opened[:4]] == [b"\0\x0a\0\x0a", b"\0\x0a\0\x1e", b"\0\x0a\0\x29"]


def method(reader):
    """The payload of the next frame, which is a method's."""
    head = reader.read(7)
    if len(head) < 7:
        raise ConnectionError("the broker closed the connection")
    payload = reader.read(struct.unpack(">L", head[3:])[0])
    reader.read(1)
    return payload


def frame(class_id, method_id, arguments):
    payload = struct.pack(">HH", class_id, method_id) + arguments
    return struct.pack(">BHL", 1, 0, len(payload)) + payload + b"\xce"


def short_string(text):
    return bytes([len(text)]) + text


def long_string(text):
    return struct.pack(">L", len(text)) + text
