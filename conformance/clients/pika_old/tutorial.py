"""What the programs of the old pika API share. pika 0.10 and 0.12 run the same programs."""

import os
import time

import modern_python  # noqa: F401  (before pika)
import pika

from conformance import PASSWORD, QUIET_SECS, USER, WAIT_SECS, amqp, equal

equal(pika.__version__, os.environ["WARREN_CONFORMANCE_PIKA"], "the version of pika")

# The tutorials of those days wrote `type=`; pika 0.11 took that spelling away.
_TYPE = "type" if pika.__version__.startswith("0.10.") else "exchange_type"


def connect():
    """A blocking connection."""
    host, port = amqp()
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            host=host, port=port, credentials=pika.PlainCredentials(USER, PASSWORD)
        )
    )


def declare_exchange(channel, exchange, kind):
    """Declares an exchange in the spelling of the version at hand."""
    channel.exchange_declare(exchange=exchange, **{_TYPE: kind})


def collect(connection, received, count):
    """Serves `connection` until `received` holds `count` messages, and a moment longer for surplus ones."""
    deadline = time.monotonic() + WAIT_SECS
    while len(received) < count and time.monotonic() < deadline:
        connection.process_data_events(time_limit=0.05)
    connection.process_data_events(time_limit=QUIET_SECS)
    return received


def closed_with(action, what):
    """Runs `action`, which the broker must answer by closing the channel; returns the reply code."""
    try:
        action()
    except pika.exceptions.ChannelClosed as error:
        return error.args[0]
    raise AssertionError(f"{what}: the channel stayed open")
