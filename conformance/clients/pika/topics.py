"""Tutorial five, "Topics": patterns of words, `*` for exactly one and `#` for any number.

spec: amqp.exchange.topic
spec: amqp.exchange.topic.star
spec: amqp.exchange.topic.hash
spec: amqp.exchange.one-copy-per-queue
"""

from conformance import done, equal, name
from pika_session import collect, connect

animals = name("topic_logs")
connection = connect()
channel = connection.channel()
channel.exchange_declare(exchange=animals, exchange_type="topic")


def subscriber(*patterns):
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for pattern in patterns:
        channel.queue_bind(exchange=animals, queue=queue, routing_key=pattern)
    received = []
    channel.basic_consume(
        queue=queue,
        on_message_callback=lambda _c, method, _p, _body: received.append(method.routing_key),
        auto_ack=True,
    )
    return received


orange = subscriber("*.orange.*")
rabbits_and_lazy = subscriber("*.*.rabbit", "lazy.#")
everything = subscriber("#")
one_word = subscriber("*")
keys = [
    "quick.orange.rabbit",
    "lazy.orange.elephant",
    "quick.orange.fox",
    "lazy.brown.fox",
    "lazy.pink.rabbit",
    "quick.brown.fox",
    "orange",
    "quick.orange.new.rabbit",
    "lazy.orange.new.rabbit",
    "lazy",
    "",
]
for key in keys:
    channel.basic_publish(exchange=animals, routing_key=key, body=b"")
collect(connection, everything, len(keys))
equal(
    orange,
    ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox"],
    "*.orange.* takes exactly three words",
)
equal(
    rabbits_and_lazy,
    [
        "quick.orange.rabbit",
        "lazy.orange.elephant",
        "lazy.brown.fox",
        "lazy.pink.rabbit",
        "lazy.orange.new.rabbit",
        "lazy",
    ],
    "*.*.rabbit and lazy.#: a message that matches both comes once, and # matches no word too",
)
equal(everything, keys, "# takes everything, the empty key too")
equal(one_word, ["orange", "lazy"], "* takes exactly one word, and the empty key has none")
channel.exchange_delete(exchange=animals)
connection.close()
done()
