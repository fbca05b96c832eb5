"""A topic exchange over AMQP 0-8.

spec: amqp-0-8.session
spec: amqp.exchange.topic
spec: amqp.queue.unbind
"""

from amqplib import client_0_8

from conformance import done, equal, name
from session import collect, connect

exchange = name("topics_0_8")
connection = connect()
channel = connection.channel()
channel.exchange_declare(exchange, "topic", durable=False, auto_delete=False)


def subscriber(*patterns):
    queue, _, _ = channel.queue_declare(exclusive=True)
    for pattern in patterns:
        channel.queue_bind(queue, exchange, routing_key=pattern)
    received = []
    channel.basic_consume(
        queue=queue,
        no_ack=True,
        callback=lambda message: received.append(message.delivery_info["routing_key"]),
    )
    return queue, received


_, everything = subscriber("#")
_, critical = subscriber("*.critical", "kern.#")
both_queue, both = subscriber("kern.*", "cron.*")
keys = ["kern.critical", "kern.info", "cron.critical", "kern", "user.info"]
for key in keys:
    channel.basic_publish(client_0_8.Message(key), exchange=exchange, routing_key=key)
collect(channel, everything, len(keys))
collect(channel, critical, 4)
collect(channel, both, 3)
equal(everything, keys, "#")
equal(critical, ["kern.critical", "kern.info", "cron.critical", "kern"], "*.critical and kern.#")
equal(both, ["kern.critical", "kern.info", "cron.critical"], "kern.* and cron.*")

channel.queue_unbind(both_queue, exchange, routing_key="kern.*")
for key in ("kern.last", "cron.last"):
    channel.basic_publish(client_0_8.Message(key), exchange=exchange, routing_key=key)
collect(channel, everything, len(keys) + 2)
collect(channel, both, 4)
equal(both[3:], ["cron.last"], "after kern.* was unbound")
channel.exchange_delete(exchange)
channel.close()
connection.close()
done()
