"""What programs in the present pika API share: a blocking connection and a way to wait for messages."""

import time

import pika

from conformance import PASSWORD, QUIET_SECS, USER, WAIT_SECS, amqp


def parameters(**overrides):
    """Connection parameters of the broker under test."""
    host, port = amqp()
    return pika.ConnectionParameters(
        host=host, port=port, credentials=pika.PlainCredentials(USER, PASSWORD), **overrides
    )


def connect(**overrides):
    """A blocking connection."""
    return pika.BlockingConnection(parameters(**overrides))


def collect(connection, received, count):
    """Serves `connection` until `received` holds `count` messages, and a moment longer for surplus ones."""
    deadline = time.monotonic() + WAIT_SECS
    while len(received) < count and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.05)
    connection.process_data_events(time_limit=QUIET_SECS)
    return received
