"""Acknowledgements, prefetch, recover, get and transactions over AMQP 0-8.

spec: amqp.basic.ack.single
spec: amqp.basic.ack.multiple
spec: amqp.basic.qos.prefetch-count
spec: amqp.basic.recover.requeue
spec: amqp.basic.get
spec: amqp.basic.reject
spec: amqp.tx.commit
spec: amqp.tx.rollback
spec: amqp-0-8.connection.close
"""

from amqplib import client_0_8

from conformance import done, equal, name
from session import collect, connect

queue = name("acks_0_8")
connection = connect()
channel = connection.channel()
channel.queue_declare(queue=queue, durable=False, auto_delete=False)


def publish(*bodies):
    for body in bodies:
        channel.basic_publish(client_0_8.Message(body), exchange="", routing_key=queue)


def ready():
    return channel.queue_declare(queue=queue, passive=True)[1]


# A prefetch of two: the third message waits for an acknowledgement.
publish("one", "two", "three", "four")
channel.basic_qos(0, 2, False)
received = []
tag = channel.basic_consume(queue=queue, callback=received.append)
collect(channel, received, 2)
equal(ready(), 2, "messages beyond the prefetch stay ready")
channel.basic_ack(received[0].delivery_tag)
collect(channel, received, 3)
channel.basic_ack(received[2].delivery_tag, multiple=True)
collect(channel, received, 4)
equal([message.body for message in received], ["one", "two", "three", "four"], "in order")

# recover(requeue) gives the unacknowledged message back; it comes again, marked redelivered.
channel.basic_recover(requeue=True)
collect(channel, received, 5)
equal(
    (received[4].body, received[4].delivery_info["redelivered"]), ("four", True), "after recover"
)
channel.basic_ack(received[4].delivery_tag)
channel.basic_cancel(tag)
equal(ready(), 0, "everything is acknowledged")

# get and reject
publish("five")
message = channel.basic_get(queue)
equal((message.body, message.delivery_info["message_count"]), ("five", 0), "get-ok")
channel.basic_reject(message.delivery_tag, requeue=True)
message = channel.basic_get(queue)
equal((message.body, message.delivery_info["redelivered"]), ("five", True), "after a reject")
channel.basic_reject(message.delivery_tag, requeue=False)
equal(channel.basic_get(queue), None, "get-empty after a reject that discards")

# Transactions
channel.tx_select()
publish("six")
channel.tx_rollback()
equal(ready(), 0, "a rolled back publish never happened")
publish("seven")
equal(ready(), 0, "a publish is invisible before its commit")
channel.tx_commit()
equal(ready(), 1, "and there after it")
message = channel.basic_get(queue)
channel.basic_ack(message.delivery_tag)
channel.tx_commit()

# What is unacknowledged when the channel closes goes back.
other = connection.channel()
publish("eight")
channel.tx_commit()
equal(other.basic_get(queue).body, "eight", "got on another channel, not acknowledged")
other.close()
equal(ready(), 1, "its close gave the message back")
channel.queue_delete(queue)
channel.tx_commit()
channel.close()
# connection.close is method 10,60 in 0-8 and 10,50 in the later versions.
connection.close()
done()
