"""kombu: the connection, producer, consumer, requeue, SimpleQueue and mailbox that Celery stands on.

spec: amqp.queue.declare.durable
spec: amqp.basic.reject
spec: amqp.properties.preserved
spec: rabbitmq.queue.x-max-priority
"""

import socket
import threading

from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.pidbox import Mailbox

from conformance import PASSWORD, USER, WAIT_SECS, amqp, done, equal, name, true

host, port = amqp()
url = f"amqp://{USER}:{PASSWORD}@{host}:{port}//"

with Connection(url, connect_timeout=WAIT_SECS) as connection:
    connection.connect()
    true(connection.connected, f"connected by {connection.transport.driver_type}")
    exchange = Exchange(name("kombu"), type="topic", durable=True)
    queue = Queue(name("kombu"), exchange, routing_key="task.#", durable=True, max_priority=5)

    with connection.channel() as channel:
        producer = Producer(channel, exchange=exchange, serializer="json")
        for number, priority in enumerate((0, 1, 5)):
            producer.publish(
                {"task": number},
                routing_key=f"task.{number}",
                declare=[queue],
                priority=priority,
                headers={"lang": "py", "retries": 0, "eta": None, "chord": True},
                correlation_id=f"id-{number}",
                retry=True,
                retry_policy={"max_retries": 3},
            )

        received = []

        def on_message(body, message):
            received.append((body["task"], message.properties["correlation_id"]))
            equal(
                message.headers,
                {"lang": "py", "retries": 0, "eta": None, "chord": True},
                "the headers: text, number, none and true",
            )
            if len(received) == 1:
                equal(message.delivery_info["redelivered"], False, "delivered for the first time")
                message.requeue()
            else:
                message.ack()

        with Consumer(channel, queues=[queue], callbacks=[on_message], prefetch_count=1):
            while len(received) < 4:
                connection.drain_events(timeout=WAIT_SECS)
        equal(
            received,
            [(2, "id-2"), (2, "id-2"), (1, "id-1"), (0, "id-0")],
            "the highest priority first; the requeued message at its old place",
        )
        queue(channel).delete()
        exchange(channel).delete()

    simple = connection.SimpleQueue(name("simple"))
    simple.put({"hello": "world"}, compression="zlib")
    message = simple.get(timeout=WAIT_SECS)
    equal(message.payload, {"hello": "world"}, "SimpleQueue")
    message.ack()
    equal(simple.qsize(), 0, "qsize")
    simple.close()
    simple.queue(connection.default_channel).delete()

    # The mailbox by which Celery controls workers: a fanout exchange and queues that expire.
    node_name = name("worker")
    mailbox = Mailbox(name("pidbox"), type="fanout")
    bound = mailbox(connection)
    node = bound.Node(node_name, state={"answer": 42})
    node.handlers["answer"] = lambda state, **_: state["answer"]
    node.channel = connection.channel()
    consumer = node.listen(callback=node.handle_message)
    with Connection(url) as other:
        boss = mailbox(other)
        reply = []
        boss_channel = other.channel()

        def ask():
            # The limit ends it: with the first answer.
            return boss._broadcast(
                "answer", {}, reply=True, timeout=WAIT_SECS, limit=1, channel=boss_channel
            )

        asked = threading.Thread(target=lambda: reply.extend(ask()))
        asked.start()
        while asked.is_alive():
            try:
                connection.drain_events(timeout=0.1)
            except socket.timeout:
                continue
        equal(reply, [{node_name: 42}], "the node's answer through the mailbox")
    consumer.cancel()
done()
