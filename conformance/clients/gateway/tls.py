"""The same gateway with TLS on both sides, certificates checked: pika and stomp.py.

spec: amqp.tls
spec: stomp.tls
"""

import ssl

import pika
import pika_session

import conformance
from conformance import ca_file, done, equal, name, raises, true
from stomp_session import Session

host, port = conformance.amqps()
trusting = ssl.create_default_context(cafile=ca_file())


def connect(context):
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=host,
            port=port,
            credentials=pika.PlainCredentials(conformance.USER, conformance.PASSWORD),
            ssl_options=pika.SSLOptions(context, "localhost"),
        )
    )


amqp = connect(trusting)
channel = amqp.channel()
channel.confirm_delivery()
session = Session("1.2", conformance.stomps(), tls={"ca_certs": ca_file()})
true(isinstance(session.connection.transport.socket, ssl.SSLSocket), "the STOMP socket speaks TLS")
equal(session.connection.transport.socket.version(), "TLSv1.3", "the version of TLS")

queue = name("tls")
session.subscribe(f"/queue/{queue}", "s")
large = bytes(range(256)) * 2048
for octets in (b"hello", bytes(range(256)), large):
    channel.basic_publish("", queue, octets)
    true(session.expect("MESSAGE").body == octets, f"{len(octets)} octets from AMQP to STOMP")

mine = channel.queue_declare("", exclusive=True).method.queue
received = []
channel.basic_consume(mine, lambda _c, _m, _p, body: received.append(body), auto_ack=True)
session.send(f"/amq/queue/{mine}", large)
pika_session.collect(amqp, received, 1)
true(received == [large], f"{len(large)} octets from STOMP to AMQP")

# TLS 1.2 is the oldest version spoken.
old = ssl.create_default_context(cafile=ca_file())
old.maximum_version = ssl.TLSVersion.TLSv1_2
connect(old).close()
raises(
    (pika.exceptions.AMQPConnectionError, ssl.SSLCertVerificationError),
    lambda: connect(ssl.create_default_context()),
    "a client that does not know the issuer refuses",
)
session.close()
channel.queue_delete(queue)
amqp.close()
done()
