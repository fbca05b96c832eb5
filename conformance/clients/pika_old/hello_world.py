"""Tutorial one in the API of pika 0.x: `basic_consume(callback, queue=…, no_ack=True)`.

spec: amqp.queue.declare.create
spec: amqp.exchange.default.implicit-binding
spec: amqp.basic.consume.no-ack
"""

from tutorial import collect, connect

from conformance import done, equal, name

queue = name("hello")
connection = connect()
channel = connection.channel()
channel.queue_declare(queue=queue)
channel.basic_publish(exchange="", routing_key=queue, body="Hello World!")
connection.close()

connection = connect()
channel = connection.channel()
equal(channel.queue_declare(queue=queue).method.message_count, 1, "messages waiting")
received = []


def callback(ch, method, properties, body):
    received.append((method.routing_key, body))


channel.basic_consume(callback, queue=queue, no_ack=True)
collect(connection, received, 1)
equal(received, [(queue, b"Hello World!")], "the consumer's deliveries")
channel.queue_delete(queue=queue)
connection.close()
done()
