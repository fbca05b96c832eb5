"""The headers exchange: x-match all and any, values compared by kind, keys that begin with `x-` ignored.

spec: amqp.exchange.headers.all
spec: amqp.exchange.headers.any
spec: amqp.exchange.headers.void
spec: rabbitmq.exchange.headers.with-x
"""

import pika

from conformance import done, equal, name, raises
from pika_session import collect, connect

exchange = name("headers")
connection = connect()
channel = connection.channel()
channel.exchange_declare(exchange=exchange, exchange_type="headers")

# (binding arguments, the messages that they take)
bindings = [
    ({}, {"empty", "a1", "a1-b2", "a-text", "b2", "x-a1", "a-true"}),
    ({"x-match": "all", "a": 1}, {"a1", "a1-b2"}),
    ({"x-match": "all", "a": 1, "b": 2}, {"a1-b2"}),
    ({"x-match": "any", "a": 1, "b": 2}, {"a1", "a1-b2", "b2"}),
    ({"x-match": "any"}, set()),
    ({"x-match": "all", "a": None}, {"a1", "a1-b2", "a-text", "a-true"}),
    ({"x-match": "all", "x-a": 1}, {"empty", "a1", "a1-b2", "a-text", "b2", "x-a1", "a-true"}),
    ({"x-match": "any", "x-a": 1}, set()),
    ({"x-match": "all-with-x", "x-a": 1}, {"x-a1"}),
    ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"x-a1", "a1-b2", "b2"}),
    ({"a": "1"}, {"a-text"}),
    ({"a": True}, {"a-true"}),
]
messages = {
    "empty": {},
    "a1": {"a": 1},
    "a1-b2": {"a": 1, "b": 2},
    "a-text": {"a": "1"},
    "b2": {"b": 2, "c": "else"},
    "x-a1": {"x-a": 1},
    "a-true": {"a": True},
}

taken = []
for arguments, _ in bindings:
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange=exchange, queue=queue, routing_key="ignored", arguments=arguments)
    received = []
    channel.basic_consume(
        queue=queue,
        on_message_callback=lambda _c, _m, _p, body, received=received: received.append(body.decode()),
        auto_ack=True,
    )
    taken.append(received)
for body, headers in messages.items():
    channel.basic_publish(
        exchange=exchange,
        routing_key="whatever",
        body=body,
        properties=pika.BasicProperties(headers=headers),
    )
collect(connection, taken[0], len(messages))
for (arguments, expected), received in zip(bindings, taken):
    equal(sorted(received), sorted(expected), f"a queue bound with {arguments}")

error = raises(
    pika.exceptions.ChannelClosedByBroker,
    lambda: channel.queue_bind(
        exchange=exchange, queue=queue, routing_key="", arguments={"x-match": "some"}
    ),
    "an unknown x-match is refused",
)
equal(error.reply_code, 406, "the reply code is PRECONDITION_FAILED")
connection.channel().exchange_delete(exchange=exchange)
connection.close()
done()
