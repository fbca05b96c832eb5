"""The tests of stomp.py 8.1.0 that meet a broker: STOMP 1.0, 1.1 and 1.2, and those for RabbitMQ.

spec: suites.stomp-py
"""

import os
import sys
import threading

import stomp as stomp_py

from conformance import PASSWORD, USER, done, stomp
from pytest_suite import run

RECEIVER_ENDS_WITHIN = 10.0  # seconds

directory = os.environ["WARREN_CONFORMANCE_SUITE"]
host, port = stomp()
for kind in ("STD", "RABBITMQ"):
    os.environ.update(
        {
            f"{kind}_HOST": host,
            f"{kind}_PORT": str(port),
            f"{kind}_USER": USER,
            f"{kind}_PASSWORD": PASSWORD,
            f"{kind}_VHOST": "/",
        }
    )

# The tests connect without naming a virtual host, and stomp.py then names the address in its place.
for protocol in (stomp_py.protocol.Protocol11, stomp_py.protocol.Protocol12):
    _connect = protocol.connect

    def connect(self, *arguments, _connect=_connect, **options):
        self.transport.vhost = "/"
        return _connect(self, *arguments, **options)

    protocol.connect = connect

# Two tests rely on the default address, and would meet whatever broker listens there.
_init = stomp_py.transport.Transport.__init__


def init(self, host_and_ports=None, *arguments, **options):
    _init(self, host_and_ports or [(host, port)], *arguments, **options)


stomp_py.transport.Transport.__init__ = init

# stomp.py calls itself disconnected before its receiver thread has closed the socket. A test that connects
# again at once finds that socket open, and loses it to the thread a moment later. So `start` waits here for
# the thread of the connection before.
_receiver_loop = stomp_py.transport.BaseTransport._BaseTransport__receiver_loop
_start = stomp_py.transport.BaseTransport.start


def receiver_loop(self):
    try:
        _receiver_loop(self)
    finally:
        self.receiver_ended.set()


def start(self):
    ended = getattr(self, "receiver_ended", None)
    if ended and not self.is_connected():
        assert ended.wait(RECEIVER_ENDS_WITHIN), "the receiver thread of a closed connection goes on"
    self.receiver_ended = threading.Event()
    try:
        _start(self)
    except Exception:
        self.receiver_ended.set()
        raise


stomp_py.transport.BaseTransport._BaseTransport__receiver_loop = receiver_loop
stomp_py.transport.BaseTransport.start = start

# The other modules want a second server, test the library without one, or (the command line) spend a
# minute in sleeps.
WITH_A_BROKER = (
    "basic",
    "context",
    "nonascii",
    "override_threading",
    "rabbitmq",
    "s10",
    "s11",
    "s12",
    "threading",
)
# Each waits for a time-out in a connection to nobody, and asserts how long that took.
WITHOUT_A_BROKER = ("test_timeout", "test_socket_timeout")

sys.path.insert(0, directory)
os.chdir(directory)
run(
    directory,
    [
        *(f"tests/test_{stem}.py" for stem in WITH_A_BROKER),
        "-k",
        " and ".join(f"not {test}" for test in WITHOUT_A_BROKER),
    ],
    known_failures={},
    at_least=33,
)
done()
