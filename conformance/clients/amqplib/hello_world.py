"""Send and receive over AMQP 0-8 with py-amqplib, access ticket and all.

spec: amqp-0-8.session
spec: amqp-0-8.access.request
spec: amqp-0-8.server-properties
spec: amqp-0-8.channel.open-ok
"""

from amqplib import client_0_8

from conformance import done, equal, name, true
from session import collect, connect

queue = name("hello_0_8")
sender = connect()
equal(
    (sender.version_major, sender.version_minor), (8, 0), "connection.start announces version 8-0"
)
equal(
    sender.server_properties.get("capabilities"),
    {},
    "capabilities is an empty table: 0-8 clients cannot decode booleans",
)
true("product" in sender.server_properties, f"server properties {sender.server_properties}")
channel = sender.channel()
# Every realm and every right is granted with ticket 1; permissions are the user's, not the ticket's.
equal(channel.access_request("/data", active=True, write=True, read=True), 1, "the access ticket")
equal(
    channel.queue_declare(queue=queue, durable=False, auto_delete=False),
    (queue, 0, 0),
    "declare-ok",
)
message = client_0_8.Message(
    "Hello World!",
    content_type="text/plain",
    application_headers={"text": "seven", "number": 7, "nested": {"inner": "x"}},
)
channel.basic_publish(message, exchange="", routing_key=queue)
channel.close()
sender.close()

receiver = connect()
channel = receiver.channel()
channel.access_request("/data", active=True, read=True)
received = []
tag = channel.basic_consume(queue=queue, no_ack=True, callback=received.append)
true(len(tag) > 0, f"the broker chose a consumer tag: {tag}")
(message,) = collect(channel, received, 1)
equal(message.body, "Hello World!", "the body")
equal(message.content_type, "text/plain", "the content type")
equal(message.content_encoding, "UTF-8", "the content encoding that the library sets for text")
equal(
    message.application_headers,
    {"text": "seven", "number": 7, "nested": {"inner": "x"}},
    "the application headers",
)
channel.basic_cancel(tag)
equal(channel.queue_delete(queue), 0, "delete-ok")
channel.close()
receiver.close()
done()
