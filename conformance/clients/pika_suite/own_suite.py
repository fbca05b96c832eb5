"""The acceptance tests of pika 1.3.2 that meet a broker: over its blocking, select, asyncio, tornado and
gevent adapters. Its other acceptance tests exercise pika's sockets and Twisted glue without one.

spec: suites.pika
"""

import os
import sys

import pika.connection

from conformance import amqp, done
from pytest_suite import run

directory = os.environ["WARREN_CONFORMANCE_SUITE"]
host, port = amqp()

# The tests name the place where RabbitMQ listens by default; the broker under test listens elsewhere.
_port = pika.connection.Parameters.port
_host = pika.connection.Parameters.host
pika.connection.Parameters.port = property(
    _port.fget, lambda self, value: _port.fset(self, port if value == 5672 else value)
)
pika.connection.Parameters.host = property(
    _host.fget, lambda self, value: _host.fset(self, host if value == "localhost" else value)
)

sys.path.insert(0, directory)
os.chdir(directory)
run(
    directory,
    ["tests/acceptance/async_adapter_tests.py", "tests/acceptance/blocking_adapter_test.py"],
    known_failures={},
    at_least=362,
)
done()
