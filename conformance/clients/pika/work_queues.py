"""Tutorial two, "Work Queues": tasks shared by workers, acknowledged when done, durable, dispatched fairly.

A worker that dies with a task in hand is killed for real (SIGKILL of its process), as the tutorial's
reader does with CTRL+C.

spec: amqp.queue.declare.durable
spec: amqp.queue.declare.equivalence
spec: amqp.basic.deliver.round-robin
spec: amqp.basic.qos.prefetch-count
spec: amqp.basic.ack.single
spec: amqp.connection.loss.requeue
spec: amqp.basic.deliver.redelivered
"""

import sys

import pika

from conformance import done, equal, name, raises, role, say, spawn, true, wait_until
from pika_session import connect


def worker(queue, pace):
    """Takes tasks. "idle" acknowledges at once; "stuck" takes its first task and never finishes it."""
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, durable=True)
    channel.basic_qos(prefetch_count=1)

    def on_task(channel, method, _properties, body):
        print(f"took {body.decode()} redelivered={method.redelivered}", flush=True)
        if pace == "idle":
            channel.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_consume(queue=queue, on_message_callback=on_task)
    print("waiting", flush=True)
    channel.start_consuming()


def main():
    queue = name("task_queue")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(queue=queue, durable=True)

    def new_task(text):
        channel.basic_publish(
            exchange="",
            routing_key=queue,
            body=text,
            properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
        )
        say(f"sent {text}")

    # Fair dispatch: with a prefetch of one, the stuck worker holds one task and the idle one does the rest.
    stuck = spawn("worker", queue, "stuck")
    stuck.wait_for("waiting")
    idle = spawn("worker", queue, "idle")
    idle.wait_for("waiting")
    for number in range(6):
        new_task(f"task-{number}")
    wait_until(lambda: len(stuck.lines("took")) == 1, "the stuck worker took one task")
    wait_until(lambda: len(idle.lines("took")) == 5, "the idle worker took the other five")
    held = stuck.lines("took")[0].split()[1]
    equal(
        channel.queue_declare(queue=queue, durable=True, passive=True).method.message_count,
        0,
        "no task is ready: five are done, one is in the stuck worker's hands",
    )

    # The worker dies; its task goes to the other, marked as redelivered.
    stuck.kill()
    idle.wait_for(f"took {held} redelivered=True")
    fresh = [line for line in idle.lines("took") if line.endswith("redelivered=False")]
    equal(len(fresh), 5, "tasks handed out for the first time are not marked redelivered")
    idle.kill()
    wait_until(
        lambda: channel.queue_declare(queue=queue, passive=True).method.consumer_count == 0,
        "the broker has noticed that both workers are gone",
    )
    equal(
        channel.queue_declare(queue=queue, passive=True).method.message_count, 0, "every task is done"
    )

    # Round robin: two workers without a limit get every second task each.
    shared = name("round_robin")
    channel.queue_declare(queue=shared, exclusive=True)
    taken = {"first": [], "second": []}
    for tag, tasks in taken.items():
        channel.basic_consume(
            queue=shared,
            consumer_tag=tag,
            auto_ack=True,
            on_message_callback=lambda _c, _m, _p, body, tasks=tasks: tasks.append(body),
        )
    for number in range(8):
        channel.basic_publish(exchange="", routing_key=shared, body=f"{number}")
    wait_until(
        lambda: connection.process_data_events(0.05) or sum(map(len, taken.values())) == 8,
        "all eight tasks arrived",
    )
    equal([len(tasks) for tasks in taken.values()], [4, 4], "each of two workers got half")
    true(all(tasks == sorted(tasks) for tasks in taken.values()), "each worker got its tasks in order")

    # A queue cannot be redeclared with other properties.
    error = raises(
        pika.exceptions.ChannelClosedByBroker,
        lambda: connection.channel().queue_declare(queue=queue, durable=False),
        "a durable queue redeclared as transient is refused",
    )
    equal(error.reply_code, 406, "with the reply code PRECONDITION_FAILED")
    channel.queue_delete(queue=queue)
    connection.close()
    done()


if role() == "worker":
    worker(*sys.argv[2:])
else:
    main()
