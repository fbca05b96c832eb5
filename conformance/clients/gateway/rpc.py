"""Requests and replies across the protocols: STOMP asks and AMQP answers, and the other way round.

spec: gateway.reply-to.temp-queue
spec: gateway.reply-to.reply-queue
"""

import uuid

import pika
import pika_session

from conformance import done, equal, name, true
from stomp_session import Session

amqp = pika_session.connect()
channel = amqp.channel()

# STOMP asks. `/temp-queue/…` in reply-to makes a private queue, known to this connection under that name.
requests = name("requests")
channel.queue_declare(requests, exclusive=True)
seen = []


def answer(channel, method, properties, body):
    seen.append(properties.reply_to)
    channel.basic_publish(
        "",
        properties.reply_to,
        body.upper(),
        pika.BasicProperties(correlation_id=properties.correlation_id),
    )


channel.basic_consume(requests, answer, auto_ack=True)
session = Session("1.2")
for number in range(3):
    identifier = str(uuid.uuid4())
    session.send(
        f"/amq/queue/{requests}",
        f"request {number}",
        reply_to="/temp-queue/answers",
        correlation_id=identifier,
        receipt=f"asked-{number}",
    )
    session.receipt(f"asked-{number}")
    pika_session.collect(amqp, seen, number + 1)
    reply = session.expect("MESSAGE")
    equal(reply.body, f"REQUEST {number}".encode(), "the answer")
    equal(reply.headers["correlation-id"], identifier, "correlation-id")
    equal(reply.headers["subscription"], "/temp-queue/answers", "the subscription that nobody made")
equal(len(set(seen)), 1, "one reply queue for all requests")
true("/" not in seen[0], f"AMQP sees the bare name of the queue: {seen[0]}")

# Another STOMP client sees the reply queue as a destination it can send to.
watcher = Session("1.1")
other = f"/queue/{name('requests')}"
watcher.subscribe(other, "w")
session.send(other, "ask STOMP", reply_to="/temp-queue/answers")
request = watcher.expect("MESSAGE")
true(
    request.headers["reply-to"].startswith("/reply-queue/"),
    f"reply-to is a destination: {request.headers['reply-to']}",
)
watcher.send(request.headers["reply-to"], "STOMP answers")
equal(session.expect("MESSAGE").body, b"STOMP answers", "a reply from STOMP")

# AMQP asks, STOMP answers.
mine = channel.queue_declare("", exclusive=True).method.queue
replies = []
channel.basic_consume(
    mine,
    lambda _c, _m, properties, body: replies.append((properties.correlation_id, body)),
    auto_ack=True,
)
channel.basic_publish(
    "", other[len("/queue/") :], b"ask", pika.BasicProperties(reply_to=mine, correlation_id="c-1")
)
request = watcher.expect("MESSAGE")
equal(request.headers["reply-to"], f"/reply-queue/{mine}", "where to answer")
watcher.send(
    request.headers["reply-to"], b"\x00answer\xff", correlation_id=request.headers["correlation-id"]
)
pika_session.collect(amqp, replies, 1)
equal(replies, [("c-1", b"\x00answer\xff")], "the answer")

# The private queue goes with its connection.
reply_queue = seen[0]
session.close()
try:
    amqp.channel().queue_declare(reply_queue, passive=True)
except pika.exceptions.ChannelClosedByBroker as error:
    equal(error.reply_code, 404, "the reply queue is gone")
else:
    raise AssertionError("the reply queue outlived its connection")
watcher.close()
amqp.channel().queue_delete(other[len("/queue/") :])
amqp.close()
done()
