"""STOMP 1.0, 1.1 and 1.2 with stomp.py: connect, send, subscribe, the ack modes, nack, unsubscribe, topics.

spec: stomp-1.0.connect
spec: stomp-1.1.connect.version
spec: stomp-1.2.connect.version
spec: stomp-1.0.subscribe.ack-client
spec: stomp-1.0.ack.cumulative
spec: stomp-1.1.ack.client-individual
spec: stomp-1.1.nack
spec: stomp-1.2.ack.id
spec: stomp-1.1.header-escaping
spec: stomp-1.2.header-escaping.cr
spec: stomp.content-length.nul
spec: stomp.disconnect.receipt
"""

from conformance import done, equal, name, say, true
from stomp_session import Session

for version in ("1.0", "1.1", "1.2"):
    say(f"--- STOMP {version}")
    queue = f"/queue/{name('versions')}"
    session = Session(version)
    equal(session.connected.headers.get("version"), version, "the version agreed on")
    true(session.connected.headers.get("session"), "CONNECTED has a session")
    sender = Session(version)

    # auto
    session.subscribe(queue, "a")
    sender.send(queue, "hello", custom="value")
    message = session.expect("MESSAGE")
    equal(message.body, b"hello", "the body")
    equal(message.headers["subscription"], "a", "the subscription")
    equal(message.headers["destination"], queue, "the destination")
    equal(message.headers["custom"], "value", "a header of the sender")
    true("ack" not in message.headers, "no ack header in mode auto")

    # Octets of every kind, and headers with characters that are escaped in 1.1 and later.
    octets = bytes(range(256))
    sender.send(queue, octets, content_type="application/octet-stream")
    message = session.expect("MESSAGE")
    equal(message.body, octets, "a body of all 256 octets")
    equal(message.headers["content-length"], "256", "content-length")
    equal(message.headers["content-type"], "application/octet-stream", "content-type")
    if version != "1.0":
        awkward = "colon : newline \n backslash \\ blank  é"
        if version == "1.2":
            awkward += " return \r"
        # stomp.py escapes values only, not names.
        sender.send(queue, "x", awkward=awkward)
        equal(session.expect("MESSAGE").headers["awkward"], awkward, "an escaped header")
    sender.send(queue, "")
    equal(session.expect("MESSAGE").body, b"", "an empty body")
    session.connection.unsubscribe(id="a", headers={"receipt": "left"})
    session.receipt("left")

    # client: an ACK settles all before it.
    session.subscribe(queue, "c", ack="client")
    for number in range(4):
        sender.send(queue, str(number), receipt=f"sent-{number}")
        sender.receipt(f"sent-{number}")
    messages = [session.expect("MESSAGE") for _ in range(4)]
    equal([message.body for message in messages], [b"0", b"1", b"2", b"3"], "in order")
    session.ack(messages[2], receipt="acked")
    session.receipt("acked")
    session.close()

    session = Session(version)
    session.subscribe(queue, "i", ack="client-individual", receipt=False)
    message = session.expect("MESSAGE")
    equal((message.body, message.headers["redelivered"]), (b"3", "true"), "what was not acknowledged")
    if version != "1.0":
        session.nack(message, receipt="nacked")
        again, _ = session.expect_each("MESSAGE", "RECEIPT")
        equal((again.body, again.headers["redelivered"]), (b"3", "true"), "after a NACK")
        message = again

    # client-individual: an ACK settles one.
    sender.send(queue, "4")
    later = session.expect("MESSAGE")
    session.ack(later, receipt="one")
    session.receipt("one")
    session.close()
    session = Session(version)
    session.subscribe(queue, "rest", receipt=False)
    equal(session.expect("MESSAGE").body, b"3", "only the other message was acknowledged")
    session.quiet("the queue is empty")

    # Topics: every subscriber has a copy, and there is nobody's copy left afterwards.
    topic = name("topic")
    session.subscribe(f"/topic/{topic}.*", "star")
    session.subscribe(f"/topic/{topic}.#", "hash")
    sender.send(f"/topic/{topic}.x", "both")
    copies = sorted(session.expect("MESSAGE").headers["subscription"] for _ in range(2))
    equal(copies, ["hash", "star"], "one copy for each subscription")
    sender.send(f"/topic/{topic}.x.y", "one")
    equal(session.expect("MESSAGE").headers["subscription"], "hash", "# takes more than one word")
    session.quiet("* does not")
    session.close()
    sender.close()
done()
