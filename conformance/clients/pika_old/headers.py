"""The headers exchange through pika 0.x.

spec: amqp.exchange.headers.all
spec: amqp.exchange.headers.any
"""

from tutorial import collect, connect, declare_exchange
import pika

from conformance import done, equal, name

exchange = name("headers")
connection = connect()
channel = connection.channel()
declare_exchange(channel, exchange, "headers")


def subscriber(arguments):
    queue_name = channel.queue_declare(exclusive=True).method.queue
    channel.queue_bind(exchange=exchange, queue=queue_name, routing_key="", arguments=arguments)
    received = []
    channel.basic_consume(
        lambda ch, method, properties, body: received.append(body.decode()),
        queue=queue_name,
        no_ack=True,
    )
    return received


everything = subscriber({})
both = subscriber({"x-match": "all", "format": "pdf", "size": 4})
either = subscriber({"x-match": "any", "format": "pdf", "size": 4})
messages = {
    "both": {"format": "pdf", "size": 4},
    "one": {"format": "pdf", "size": 3},
    "other": {"size": 4},
    "none": {"format": "zip"},
}
for body, headers in messages.items():
    channel.basic_publish(
        exchange=exchange,
        routing_key="",
        body=body,
        properties=pika.BasicProperties(headers=headers),
    )
collect(connection, everything, len(messages))
equal(everything, list(messages), "no arguments match everything")
equal(both, ["both"], "x-match all")
equal(either, ["both", "one", "other"], "x-match any")
channel.exchange_delete(exchange=exchange)
connection.close()
done()
