"""Tutorial three, "Publish/Subscribe": a fanout exchange, and a temporary queue for each subscriber.

spec: amqp.exchange.fanout
spec: amqp.queue.declare.server-named
spec: amqp.queue.declare.exclusive
spec: amqp.queue.exclusive.deleted-with-connection
"""

import pika

from conformance import done, equal, name, raises, true
from pika_session import collect, connect

logs = name("logs")
publisher = connect()
publishing = publisher.channel()
publishing.exchange_declare(exchange=logs, exchange_type="fanout")
# Nobody is subscribed yet: the message is discarded, not kept.
publishing.basic_publish(exchange=logs, routing_key="", body="lost")

subscribers = []
for _ in range(2):
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare(exchange=logs, exchange_type="fanout")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    true(queue.startswith("amq.gen-"), f"the broker chose a name: {queue}")
    channel.queue_bind(exchange=logs, queue=queue)
    received = []
    channel.basic_consume(
        queue=queue,
        on_message_callback=lambda _c, method, _p, body, received=received: received.append(
            (method.exchange, method.routing_key, body)
        ),
        auto_ack=True,
    )
    subscribers.append((connection, queue, received))

equal(len({queue for _, queue, _ in subscribers}), 2, "two subscribers have two queues")
publishing.basic_publish(exchange=logs, routing_key="ignored", body="info: Hello World!")
for connection, _, received in subscribers:
    collect(connection, received, 1)
    equal(received, [(logs, "ignored", b"info: Hello World!")], "each subscriber has its own copy")

# An exclusive queue belongs to its connection: others are refused, and it goes when the connection goes.
connection, queue, _ = subscribers[0]
error = raises(
    pika.exceptions.ChannelClosedByBroker,
    lambda: publisher.channel().queue_declare(queue=queue, passive=True),
    "another connection cannot use an exclusive queue",
)
equal(error.reply_code, 405, "the reply code is RESOURCE_LOCKED")
connection.close()
error = raises(
    pika.exceptions.ChannelClosedByBroker,
    lambda: publisher.channel().queue_declare(queue=queue, passive=True),
    "the exclusive queue went with its connection",
)
equal(error.reply_code, 404, "the reply code is NOT_FOUND")
subscribers[1][0].close()
publishing.exchange_delete(exchange=logs)
publisher.close()
done()
