"""Tutorial four in the API of pika 0.x: a direct exchange.

spec: amqp.exchange.direct
spec: amqp.queue.bind.several
"""

from tutorial import collect, connect, declare_exchange

from conformance import done, equal, name

logs = name("direct_logs")
connection = connect()
channel = connection.channel()
declare_exchange(channel, logs, "direct")


def subscriber(*severities):
    queue_name = channel.queue_declare(exclusive=True).method.queue
    for severity in severities:
        channel.queue_bind(exchange=logs, queue=queue_name, routing_key=severity)
    received = []
    channel.basic_consume(
        lambda ch, method, properties, body: received.append((method.routing_key, body)),
        queue=queue_name,
        no_ack=True,
    )
    return received


errors_only = subscriber("error")
everything = subscriber("info", "warning", "error")
for severity in ("info", "warning", "error", "debug"):
    channel.basic_publish(exchange=logs, routing_key=severity, body=severity)
collect(connection, everything, 3)
equal(errors_only, [("error", b"error")], "the queue bound with one key")
equal([key for key, _ in everything], ["info", "warning", "error"], "the queue bound with three")
channel.exchange_delete(exchange=logs)
connection.close()
done()
