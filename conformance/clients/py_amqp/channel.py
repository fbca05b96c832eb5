"""py-amqp, the library under kombu: consume and get, confirms, transactions, returns, exceptions, heartbeats.

spec: amqp.connection.tune.heartbeat
spec: amqp.properties.preserved
spec: amqp.basic.get
spec: amqp.tx.commit
spec: amqp.tx.rollback
spec: amqp.basic.return.mandatory
spec: rabbitmq.confirm.select
spec: amqp.queue.declare.passive
spec: amqp.exchange.declare.unknown-type
"""

import time

import amqp

from conformance import PASSWORD, USER, WAIT_SECS, done, equal, name, raises, true
import conformance

host, port = conformance.amqp()


def connect(**overrides):
    connection = amqp.Connection(
        host=f"{host}:{port}",
        userid=USER,
        password=PASSWORD,
        connect_timeout=WAIT_SECS,
        read_timeout=WAIT_SECS,
        **overrides,
    )
    connection.connect()
    return connection


connection = connect()
for capability in ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"):
    true(
        connection.server_properties["capabilities"].get(capability) is True,
        f"the broker announces {capability}",
    )
channel = connection.channel()
queue, _, _ = channel.queue_declare(name("channel"), exclusive=True)

channel.basic_publish(
    amqp.Message(
        b"\x00\xff binary \x00",
        content_type="application/octet-stream",
        content_encoding="binary",
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="m",
        type="t",
        user_id=USER,
        app_id="a",
        application_headers={"list": [1, "two", {"three": 3}], "long": 2**40, "true": True},
    ),
    routing_key=queue,
)
message = channel.basic_get(queue)
equal(bytes(message.body), b"\x00\xff binary \x00", "a binary body")
for key, value in {
    "content_type": "application/octet-stream",
    "content_encoding": "binary",
    "delivery_mode": 2,
    "priority": 3,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "60000",
    "message_id": "m",
    "type": "t",
    "user_id": USER,
    "app_id": "a",
    "application_headers": {"list": [1, "two", {"three": 3}], "long": 2**40, "true": True},
}.items():
    equal(message.properties[key], value, f"property {key}")
channel.basic_ack(message.delivery_tag)
equal(channel.basic_get(queue), None, "get-empty")

# Transactions
channel.tx_select()
channel.basic_publish(amqp.Message("rolled back"), routing_key=queue)
channel.tx_rollback()
channel.basic_publish(amqp.Message("committed"), routing_key=queue)
channel.tx_commit()
equal(channel.basic_get(queue, no_ack=True).body, "committed", "what was committed")
equal(channel.basic_get(queue, no_ack=True), None, "what was rolled back")

# Confirms and returns
confirming = connection.channel()
confirming.confirm_select()
returned = []
confirming.events["basic_return"].add(lambda *args: returned.append(args[0].reply_code))
confirming.basic_publish_confirm(amqp.Message("confirmed"), routing_key=queue)
confirming.basic_publish_confirm(
    amqp.Message("nowhere"), routing_key=name("no-such-queue"), mandatory=True
)
equal(returned, [312], "the unroutable message was returned with NO_ROUTE before its confirm")
equal(channel.basic_get(queue, no_ack=True).body, "confirmed", "the confirmed message")

# A large body is cut into frames and comes back whole.
large = bytes(range(256)) * 4096
confirming.basic_publish_confirm(amqp.Message(large), routing_key=queue)
true(bytes(channel.basic_get(queue, no_ack=True).body) == large, "a body of 1 MiB came back whole")

# Channel exceptions leave the connection usable, connection exceptions do not.
error = raises(
    amqp.exceptions.NotFound,
    lambda: connection.channel().queue_declare(name("missing"), passive=True),
    "a passive declare of a missing queue",
)
equal((error.code, error.method_sig), (404, (50, 10)), "code and method of the exception")
raises(
    amqp.exceptions.PreconditionFailed,
    lambda: connection.channel().queue_declare(queue, exclusive=True, arguments={"x-max-length": 5}),
    "other arguments for an existing queue",
)
equal(channel.queue_declare(queue, passive=True).message_count, 0, "the connection goes on")
doomed = connect()
raises(
    amqp.exceptions.InvalidCommand,
    lambda: doomed.channel().exchange_declare(name("x"), "no-such-type"),
    "an exchange type that nobody knows",
)
raises(
    amqp.exceptions.AccessRefused,
    lambda: amqp.Connection(host=f"{host}:{port}", userid=USER, password="wrong").connect(),
    "a wrong password",
)

# Heartbeats: with an interval of one second, two seconds of silence of ours would end the connection.
beating = connect(heartbeat=1)
equal(beating.heartbeat, 1, "the interval agreed on")
deadline = time.monotonic() + 3.5
while time.monotonic() < deadline:
    beating.heartbeat_tick()
    try:
        beating.drain_events(timeout=0.2)
    except TimeoutError:
        continue
true(beating.connected, "a connection that sends and receives heartbeats stays open")
true(
    beating.bytes_recv >= 2,
    f"the broker sent heartbeats while nothing else happened: {beating.bytes_recv} frames",
)
beating.close()
connection.close()
done()
