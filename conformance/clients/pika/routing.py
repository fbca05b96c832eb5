"""Tutorial four, "Routing": a direct exchange selects by severity.

spec: amqp.exchange.direct
spec: amqp.queue.bind.several
spec: amqp.queue.unbind
"""

from conformance import done, equal, name
from pika_session import collect, connect

logs = name("direct_logs")
connection = connect()
channel = connection.channel()
channel.exchange_declare(exchange=logs, exchange_type="direct")


def subscriber(*severities):
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for severity in severities:
        channel.queue_bind(exchange=logs, queue=queue, routing_key=severity)
    received = []
    channel.basic_consume(
        queue=queue,
        on_message_callback=lambda _c, method, _p, body: received.append(
            (method.routing_key, body.decode())
        ),
        auto_ack=True,
    )
    return queue, received


_, errors_only = subscriber("error")
everything_queue, everything = subscriber("info", "warning", "error")
for severity in ("info", "warning", "error", "debug"):
    channel.basic_publish(exchange=logs, routing_key=severity, body=f"a {severity}")
collect(connection, everything, 3)
equal(errors_only, [("error", "a error")], "the queue bound with one key")
equal(
    everything,
    [("info", "a info"), ("warning", "a warning"), ("error", "a error")],
    "the queue bound with three keys gets these three, in order",
)

channel.queue_unbind(exchange=logs, queue=everything_queue, routing_key="info")
channel.basic_publish(exchange=logs, routing_key="info", body="nobody listens")
channel.basic_publish(exchange=logs, routing_key="warning", body="still bound")
collect(connection, everything, 4)
equal(everything[3:], [("warning", "still bound")], "after the unbinding of one key")
channel.exchange_delete(exchange=logs)
connection.close()
done()
