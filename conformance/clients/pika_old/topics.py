"""Tutorial five in the API of pika 0.x: a topic exchange.

spec: amqp.exchange.topic
spec: amqp.exchange.topic.star
spec: amqp.exchange.topic.hash
"""

from tutorial import collect, connect, declare_exchange

from conformance import done, equal, name

logs = name("topic_logs")
connection = connect()
channel = connection.channel()
declare_exchange(channel, logs, "topic")


def subscriber(*patterns):
    queue_name = channel.queue_declare(exclusive=True).method.queue
    for pattern in patterns:
        channel.queue_bind(exchange=logs, queue=queue_name, routing_key=pattern)
    received = []
    channel.basic_consume(
        lambda ch, method, properties, body: received.append(method.routing_key),
        queue=queue_name,
        no_ack=True,
    )
    return received


everything = subscriber("#")
kern = subscriber("kern.*")
critical = subscriber("*.critical", "kern.#")
keys = ["kern.critical", "kern.info", "cron.critical", "kern", "kern.a.b", "critical"]
for key in keys:
    channel.basic_publish(exchange=logs, routing_key=key, body=key)
collect(connection, everything, len(keys))
equal(everything, keys, "#")
equal(kern, ["kern.critical", "kern.info"], "kern.*")
equal(
    critical,
    ["kern.critical", "kern.info", "cron.critical", "kern", "kern.a.b"],
    "*.critical and kern.#",
)
channel.exchange_delete(exchange=logs)
connection.close()
done()
