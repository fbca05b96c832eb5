"""What the py-amqplib programs share: a connection over AMQP 0-8 and a wait with a deadline."""

import socket

from amqplib import client_0_8

from conformance import PASSWORD, USER, WAIT_SECS, amqp


def connect():
    """A connection; py-amqplib sends the protocol header `AMQP 1 1 9 1` and logs in with AMQPLAIN."""
    host, port = amqp()
    connection = client_0_8.Connection(
        host=f"{host}:{port}",
        userid=USER,
        password=PASSWORD,
        virtual_host="/",
        connect_timeout=WAIT_SECS,
        insist=False,
    )
    # The library knows no deadlines; the socket does.
    connection.transport.sock.settimeout(WAIT_SECS)
    return connection


def collect(channel, received, count):
    """Serves `channel` until `received` holds `count` messages."""
    while len(received) < count:
        try:
            channel.wait()
        except socket.timeout:
            raise AssertionError(f"{len(received)} of {count} messages came: {received}") from None
    return received
