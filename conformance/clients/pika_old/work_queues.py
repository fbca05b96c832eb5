"""Tutorial two in the API of pika 0.x: durable tasks, acknowledgements, a worker that dies, fair dispatch.

spec: amqp.queue.declare.durable
spec: amqp.basic.qos.prefetch-count
spec: amqp.basic.ack.single
spec: amqp.connection.loss.requeue
spec: amqp.basic.deliver.redelivered
"""

import sys

from tutorial import closed_with, connect
import pika

from conformance import done, equal, name, role, spawn, wait_until


def worker(queue, pace):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, durable=True)

    def callback(ch, method, properties, body):
        print(f"took {body.decode()} redelivered={method.redelivered}", flush=True)
        if pace == "idle":
            ch.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(callback, queue=queue)
    print("waiting", flush=True)
    channel.start_consuming()


def main():
    queue = name("task_queue")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, durable=True)
    stuck = spawn("worker", queue, "stuck")
    stuck.wait_for("waiting")
    idle = spawn("worker", queue, "idle")
    idle.wait_for("waiting")
    for number in range(6):
        channel.basic_publish(
            exchange="",
            routing_key=queue,
            body=f"task-{number}",
            properties=pika.BasicProperties(delivery_mode=2),
        )
    wait_until(lambda: len(stuck.lines("took")) == 1, "the stuck worker took one task")
    wait_until(lambda: len(idle.lines("took")) == 5, "the idle worker took the other five")
    held = stuck.lines("took")[0].split()[1]
    stuck.kill()
    idle.wait_for(f"took {held} redelivered=True")
    idle.kill()
    wait_until(
        lambda: channel.queue_declare(queue=queue, durable=True).method.consumer_count == 0,
        "the broker has noticed that both workers are gone",
    )
    equal(
        channel.queue_declare(queue=queue, durable=True).method.message_count, 0, "tasks left over"
    )
    code = closed_with(
        lambda: connection.channel().queue_declare(queue=queue), "redeclared as transient"
    )
    equal(code, 406, "the reply code")
    channel.queue_delete(queue=queue)
    connection.close()
    done()


if role() == "worker":
    worker(*sys.argv[2:])
else:
    main()
