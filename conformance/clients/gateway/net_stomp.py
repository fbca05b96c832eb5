"""Net::Stomp on one side, pika on the other: Perl takes what Python publishes and sends it back.

spec: gateway.send.user-headers
spec: gateway.message.user-headers
spec: gateway.send.body
spec: gateway.message.body
"""

import os
import subprocess
import threading

import pika
import pika_session

from conformance import done, equal, name, say, true

requests, replies = name("to-perl"), name("from-perl")
amqp = pika_session.connect()
channel = amqp.channel()
for queue in (requests, replies):
    channel.queue_declare(queue, durable=True)

script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "echo.pl")
perl = subprocess.Popen(
    ["perl", script, requests, replies], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
)
threading.Thread(
    target=lambda: [say(f"     [perl] {line.rstrip()}") for line in perl.stdout], daemon=True
).start()

received = []
channel.basic_consume(
    replies, lambda _c, _m, properties, body: received.append((properties, body)), auto_ack=True
)
bodies = [b"text", bytes(range(256)), b"\xff\xfe\x00\xc0", "späße".encode(), b"x" * 300_000]
for number, body in enumerate(bodies):
    channel.basic_publish(
        "",
        requests,
        body,
        pika.BasicProperties(
            headers={"number": number, "word": "bird"},
            correlation_id=f"c-{number}",
            content_type="application/octet-stream",
            delivery_mode=2,
        ),
    )
pika_session.collect(amqp, received, len(bodies))
for number, (properties, body) in enumerate(received):
    true(body == bodies[number], f"{len(body)} octets there and back")
    equal(properties.headers["number"], str(number), "a number came back as text")
    equal(properties.headers["word"], "bird", "a word")
    equal(properties.correlation_id, f"c-{number}", "correlation_id")
    equal(properties.content_type, "application/octet-stream", "content_type")
    equal(properties.delivery_mode, 2, "delivery_mode")
equal(len(received), len(bodies), "how many came back")

channel.basic_publish("", requests, b"stop", pika.BasicProperties(type="stop"))
equal(perl.wait(timeout=15), 0, "the Perl program's exit status")
for queue in (requests, replies):
    equal(channel.queue_delete(queue).method.message_count, 0, "what was left in the queue")
amqp.close()
done()
