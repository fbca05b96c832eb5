"""Tutorial three in the API of pika 0.x: `queue_declare(exclusive=True)` without a name.

spec: amqp.exchange.fanout
spec: amqp.queue.declare.server-named
spec: amqp.queue.declare.exclusive
spec: amqp.queue.exclusive.deleted-with-connection
"""

from tutorial import closed_with, collect, connect, declare_exchange

from conformance import done, equal, name, true

logs = name("logs")
publisher = connect()
publishing = publisher.channel()
declare_exchange(publishing, logs, "fanout")
publishing.basic_publish(exchange=logs, routing_key="", body="lost")

subscribers = []
for _ in range(2):
    connection = connect()
    channel = connection.channel()
    declare_exchange(channel, logs, "fanout")
    result = channel.queue_declare(exclusive=True)
    queue_name = result.method.queue
    true(queue_name.startswith("amq.gen-"), f"the broker chose a name: {queue_name}")
    channel.queue_bind(exchange=logs, queue=queue_name)
    received = []

    def callback(ch, method, properties, body, received=received):
        received.append(body)

    channel.basic_consume(callback, queue=queue_name, no_ack=True)
    subscribers.append((connection, queue_name, received))

publishing.basic_publish(exchange=logs, routing_key="", body="info: Hello World!")
for connection, _, received in subscribers:
    equal(collect(connection, received, 1), [b"info: Hello World!"], "a subscriber's copy")

queue_name = subscribers[0][1]
declare = lambda: publisher.channel().queue_declare(queue=queue_name, passive=True)  # noqa: E731
equal(closed_with(declare, "an exclusive queue of another connection"), 405, "the reply code")
subscribers[0][0].close()
equal(closed_with(declare, "the exclusive queue of a closed connection"), 404, "the reply code")
subscribers[1][0].close()
publishing.exchange_delete(exchange=logs)
publisher.close()
done()
