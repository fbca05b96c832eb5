"""Tutorial six, "RPC": requests carry reply-to and correlation-id; the same over direct reply-to.

spec: amqp.properties.preserved
spec: amqp.basic.ack.single
spec: rabbitmq.direct-reply-to
"""

import sys
import uuid

import pika

from conformance import done, equal, name, role, say, spawn, true, wait_until
from pika_session import connect


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def server(queue):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue)
    channel.basic_qos(prefetch_count=1)

    def on_request(channel, method, properties, body):
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=str(fibonacci(int(body))),
        )
        channel.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_consume(queue=queue, on_message_callback=on_request)
    print("awaiting requests", flush=True)
    channel.start_consuming()


class FibonacciClient:
    def __init__(self, requests, reply_to=None):
        self.requests = requests
        self.connection = connect()
        self.channel = self.connection.channel()
        direct = reply_to is not None
        self.reply_to = (
            reply_to if direct else self.channel.queue_declare(queue="", exclusive=True).method.queue
        )
        self.replies = {}
        self.channel.basic_consume(
            queue=self.reply_to,
            on_message_callback=lambda _c, _m, properties, body: self.replies.__setitem__(
                properties.correlation_id, body
            ),
            auto_ack=True,
        )

    def call(self, n):
        correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key=self.requests,
            properties=pika.BasicProperties(
                reply_to=self.reply_to, correlation_id=correlation_id
            ),
            body=str(n),
        )
        say(f"requested fib({n}), reply to {self.reply_to}")
        wait_until(
            lambda: self.connection.process_data_events(0.05) or correlation_id in self.replies,
            f"the reply to {correlation_id} came",
        )
        return int(self.replies.pop(correlation_id))


def main():
    requests = name("rpc_queue")
    process = spawn("server", requests)
    process.wait_for("awaiting requests")

    client = FibonacciClient(requests)
    for n, expected in ((0, 0), (1, 1), (10, 55), (20, 6765)):
        equal(client.call(n), expected, f"fib({n})")
    client.connection.close()

    # No reply queue at all: the broker hands the reply to the requester's channel.
    client = FibonacciClient(requests, "amq.rabbitmq.reply-to")
    equal(client.call(15), 610, "fib(15) by direct reply-to")
    true(not client.replies, "no reply came twice")
    client.channel.queue_delete(queue=requests)
    client.connection.close()
    done()


if role() == "server":
    server(*sys.argv[2:])
else:
    main()
