"""Tutorial six in the API of pika 0.x: request and reply.

spec: amqp.properties.preserved
"""

import sys
import uuid

from tutorial import connect
import pika

from conformance import done, equal, name, role, spawn, wait_until


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def server(queue):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue)

    def on_request(ch, method, props, body):
        ch.basic_publish(
            exchange="",
            routing_key=props.reply_to,
            properties=pika.BasicProperties(correlation_id=props.correlation_id),
            body=str(fib(int(body))),
        )
        ch.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(on_request, queue=queue)
    print("awaiting requests", flush=True)
    channel.start_consuming()


def main():
    requests = name("rpc_queue")
    spawn("server", requests).wait_for("awaiting requests")
    connection = connect()
    channel = connection.channel()
    callback_queue = channel.queue_declare(exclusive=True).method.queue
    replies = {}

    def on_response(ch, method, props, body):
        replies[props.correlation_id] = int(body)

    channel.basic_consume(on_response, no_ack=True, queue=callback_queue)
    for n, expected in ((1, 1), (10, 55), (20, 6765)):
        corr_id = str(uuid.uuid4())
        channel.basic_publish(
            exchange="",
            routing_key=requests,
            properties=pika.BasicProperties(reply_to=callback_queue, correlation_id=corr_id),
            body=str(n),
        )
        wait_until(
            lambda: connection.process_data_events(0.05) or corr_id in replies,
            f"the reply to fib({n}) came",
        )
        equal(replies[corr_id], expected, f"fib({n})")
    channel.queue_delete(queue=requests)
    connection.close()
    done()


if role() == "server":
    server(*sys.argv[2:])
else:
    main()
