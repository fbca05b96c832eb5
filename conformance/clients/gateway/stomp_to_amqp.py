"""SEND by stomp.py, delivery to pika: where a message goes, and which header becomes which property.

spec: gateway.send.properties
spec: gateway.send.user-headers
spec: gateway.send.body
spec: gateway.destination.queue
spec: gateway.destination.topic
spec: gateway.destination.exchange
spec: gateway.destination.amq-queue
"""

import pika_session
from conformance import USER, done, equal, name, true, wait_until
from stomp_session import Session

amqp = pika_session.connect()
channel = amqp.channel()


def get(queue):
    """The next message of `queue`; a SEND without a receipt may still be on its way."""
    found = []

    def arrived():
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            found.append((method, properties, body))
        return bool(found)

    wait_until(arrived, f"a message came to {queue}")
    return found[0]


for version in ("1.0", "1.1", "1.2"):
    session = Session(version)
    queue = name("to-amqp")

    # The first SEND declares the queue: durable, shared, to stay.
    session.send(
        f"/queue/{queue}",
        "all properties",
        content_type="text/plain",
        content_encoding="identity",
        persistent="true",
        priority="4",
        correlation_id="correlation",
        reply_to="/queue/elsewhere",
        expiration="60000",
        amqp_message_id="message",
        timestamp="1234567890",
        type="kind",
        user_id=USER,
        app_id="application",
        cluster_id="just a header",
        foo="bar",
        number="5",
        receipt="sent",
    )
    session.receipt("sent")
    declared = channel.queue_declare(queue, durable=True)
    equal(declared.method.message_count, 1, "the queue is durable and neither exclusive nor auto-delete")
    method, properties, body = get(queue)
    equal((method.exchange, method.routing_key), ("", queue), "through the default exchange")
    equal(body, b"all properties", "the body")
    for attribute, value in {
        "content_type": "text/plain",
        "content_encoding": "identity",
        "delivery_mode": 2,
        "priority": 4,
        "correlation_id": "correlation",
        "reply_to": "/queue/elsewhere",
        "expiration": "60000",
        "message_id": "message",
        "timestamp": 1234567890,
        "type": "kind",
        "user_id": USER,
        "app_id": "application",
        "cluster_id": None,
    }.items():
        equal(getattr(properties, attribute), value, f"property {attribute}")
    for header, value in {"foo": "bar", "number": "5", "cluster-id": "just a header"}.items():
        equal(properties.headers[header], value, f"user header {header}")
    true("destination" not in properties.headers, "the destination is no user header")

    # Bodies are octets: NULs, invalid UTF-8, and nothing at all.
    for octets in (bytes(range(256)), b"\xff\xfe\x00\xc0", b"", b"a\x00b\x00\n"):
        session.send(f"/queue/{queue}", octets)
        equal(get(queue)[2], octets, "the body")
    method, properties, body = (session.send(f"/queue/{queue}", "plain"), get(queue))[1]
    equal(properties.delivery_mode, None, "without the header persistent there is no delivery mode")
    equal(properties.content_type, None, "without content-type there is no content type")

    # Other destinations
    mine = channel.queue_declare("", exclusive=True).method.queue
    topic = name("topic")
    channel.queue_bind(mine, "amq.topic", f"{topic}.#")
    session.send(f"/topic/{topic}.key", "topic")
    method, _, _ = get(mine)
    equal((method.exchange, method.routing_key), ("amq.topic", f"{topic}.key"), "/topic")
    exchange = name("exchange")
    channel.exchange_declare(exchange, "direct", auto_delete=True)
    channel.queue_bind(mine, exchange, "key")
    channel.queue_bind(mine, exchange, "")
    session.send(f"/exchange/{exchange}/key", "exchange")
    method, _, _ = get(mine)
    equal((method.exchange, method.routing_key), (exchange, "key"), "/exchange with a key")
    session.send(f"/exchange/{exchange}", "exchange")
    method, _, _ = get(mine)
    equal((method.exchange, method.routing_key), (exchange, ""), "/exchange without a key")
    session.send(f"/amq/queue/{mine}", "amq/queue")
    equal(get(mine)[2], b"amq/queue", "/amq/queue: an existing queue of any kind")
    session.send(f"/queue/{queue}%2Fslash", "percent", receipt="slash")
    session.receipt("slash")
    equal(get(f"{queue}/slash")[2], b"percent", "%2F stands for a slash in a queue's name")
    channel.queue_delete(f"{queue}/slash")
    if version == "1.0":
        session.send(queue, "bare")
        equal(get(queue)[2], b"bare", "a destination without a slash is a queue")
    channel.queue_delete(queue)
    session.close()
amqp.close()
done()
