"""Tutorial one, "Hello World!": one producer, one queue, one consumer.

spec: amqp.queue.declare.create
spec: amqp.exchange.default.implicit-binding
spec: amqp.basic.consume.no-ack
"""

from conformance import done, equal, name, say
from pika_session import collect, connect

queue = name("hello")

sender = connect()
channel = sender.channel()
declared = channel.queue_declare(queue=queue)
equal(declared.method.queue, queue, "declare-ok names the queue")
equal(declared.method.message_count, 0, "a new queue is empty")
channel.basic_publish(exchange="", routing_key=queue, body="Hello World!")
say("sent 'Hello World!'")
sender.close()

receiver = connect()
channel = receiver.channel()
# Both sides declare: whoever comes first creates the queue, the other finds it.
declared = channel.queue_declare(queue=queue)
equal(declared.method.message_count, 1, "the queue keeps the message after its publisher has gone")

received = []


def on_message(_channel, method, properties, body):
    received.append((method.exchange, method.routing_key, method.redelivered, body))


channel.basic_consume(queue=queue, on_message_callback=on_message, auto_ack=True)
collect(receiver, received, 1)
equal(received, [("", queue, False, b"Hello World!")], "the consumer's deliveries")
equal(
    channel.queue_declare(queue=queue, passive=True).method.message_count,
    0,
    "an auto-acked message is gone",
)
equal(channel.queue_delete(queue=queue).method.message_count, 0, "delete-ok counts no messages")
receiver.close()
done()
