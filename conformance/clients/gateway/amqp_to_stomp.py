"""Published by pika, delivered as MESSAGE to stomp.py: the mapping of properties, headers and destinations.

spec: gateway.message.properties
spec: gateway.message.user-headers
spec: gateway.message.destination
spec: gateway.message.body
spec: gateway.nack.dead-letter
"""

import pika
import pika_session

from conformance import USER, done, equal, name, true
from stomp_session import Session

amqp = pika_session.connect()
channel = amqp.channel()
channel.confirm_delivery()

for version in ("1.0", "1.1", "1.2"):
    session = Session(version)
    queue = name("to-stomp")
    channel.queue_declare(queue, durable=True)
    session.subscribe(f"/queue/{queue}", "s")

    channel.basic_publish(
        "",
        queue,
        b"all properties",
        pika.BasicProperties(
            content_type="text/plain",
            content_encoding="identity",
            headers={"text": "words", "small": 5, "large": 2**40, "colon": "a:b"},
            delivery_mode=2,
            priority=4,
            correlation_id="correlation",
            reply_to="amq.gen-x/y",
            expiration="60000",
            message_id="message",
            timestamp=1234567890,
            type="kind",
            user_id=USER,
            app_id="application",
        ),
    )
    message = session.expect("MESSAGE")
    equal(message.body, b"all properties", "the body")
    for header, value in {
        "subscription": "s",
        "destination": f"/queue/{queue}",
        "redelivered": "false",
        "content-type": "text/plain",
        "content-encoding": "identity",
        "content-length": "14",
        "persistent": "true",
        "priority": "4",
        "correlation-id": "correlation",
        "reply-to": "/reply-queue/amq.gen-x/y",
        "expiration": "60000",
        "amqp-message-id": "message",
        "timestamp": "1234567890",
        "type": "kind",
        "user-id": USER,
        "app-id": "application",
        "text": "words",
        "small": "5",
        "large": str(2**40),
    }.items():
        equal(message.headers[header], value, f"header {header}")
    if version != "1.0":
        equal(message.headers["colon"], "a:b", "a header with a colon, escaped on the way")
    true(message.headers["message-id"].startswith("T_s@@"), "message-id names the subscription")

    # No properties, no headers; and no content-length for an empty body.
    channel.basic_publish("", queue, b"")
    message = session.expect("MESSAGE")
    equal(
        sorted(message.headers),
        ["destination", "message-id", "redelivered", "subscription"],
        "a message without properties",
    )
    for octets in (bytes(range(256)), b"\xff\xfe\x00\xc0", b"a\x00b\x00\n"):
        channel.basic_publish("", queue, octets)
        equal(session.expect("MESSAGE").body, octets, "the body")

    # Destinations come from the message, not from the subscription.
    topic = name("topic")
    channel.queue_bind(queue, "amq.topic", f"{topic}.*")
    channel.basic_publish("amq.topic", f"{topic}.key", b"x")
    equal(session.expect("MESSAGE").headers["destination"], f"/topic/{topic}.key", "amq.topic")
    exchange = name("exchange")
    channel.exchange_declare(exchange, "fanout", auto_delete=True)
    channel.queue_bind(queue, exchange)
    channel.basic_publish(exchange, "a/b c", b"x")
    equal(
        session.expect("MESSAGE").headers["destination"],
        f"/exchange/{exchange}/a%2Fb c",
        "another exchange; a slash in the key is escaped",
    )
    channel.basic_publish(exchange, "", b"x")
    equal(
        session.expect("MESSAGE").headers["destination"], f"/exchange/{exchange}", "without a key"
    )
    session.connection.unsubscribe(id="s", headers={"receipt": "left"})
    session.receipt("left")
    channel.queue_delete(queue)

    # A NACK that does not give back sends the message to the queue's dead-letter exchange.
    if version != "1.0":
        # Another name: a connection declares a queue of one name once.
        queue = name("mortal")
        dead = channel.queue_declare("", exclusive=True).method.queue
        session.subscribe(
            f"/queue/{queue}",
            "d",
            ack="client-individual",
            headers={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead},
        )
        channel.basic_publish("", queue, b"unwanted")
        message = session.expect("MESSAGE")
        session.nack(message, receipt="nacked", requeue="false")
        session.receipt("nacked")
        received = []
        tag = channel.basic_consume(
            dead, lambda _c, _m, properties, body: received.append((properties, body)), auto_ack=True
        )
        pika_session.collect(amqp, received, 1)
        channel.basic_cancel(tag)
        properties, body = received[0]
        equal(body, b"unwanted", "the dead letter")
        equal(properties.headers["x-death"][0]["reason"], "rejected", "the reason of its death")
    session.close()
    channel.queue_delete(queue)
amqp.close()
done()
