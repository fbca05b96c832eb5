"""What every Python program here shares: the broker's addresses, unique names, a deadline, and checks
that print what they saw.

A program is a script whose exit status is its verdict: 0 when every rule held, 1 when one did not (the
traceback says which), 77 when the broker under test is a foreign one to which the program cannot apply.
The harness passes the addresses in WARREN_CONFORMANCE_*; set them by hand to run one program alone.

This module speaks no protocol: that is the clients' business.
"""

import atexit
import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

# A program that hangs is killed by the harness; a little earlier it shows where each thread stands.
DEADLINE_SECS = float(os.environ.get("WARREN_CONFORMANCE_DEADLINE_SECS", "60"))
faulthandler.dump_traceback_later(DEADLINE_SECS, exit=True)

# How long a check waits for something that must happen, and how long it watches that something does
# not. The second is short: it can only miss a fault, never invent one.
WAIT_SECS = 15.0
QUIET_SECS = 0.3

USER = "guest"
PASSWORD = "guest"


def _address(kind, required=True):
    value = os.environ.get(f"WARREN_CONFORMANCE_{kind}")
    if value is None:
        if required:
            sys.exit(f"WARREN_CONFORMANCE_{kind} is not set: it names the address as host:port")
        return None
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def amqp():
    """The (host, port) of the AMQP listener."""
    return _address("AMQP")


def amqps():
    """The (host, port) of the AMQP listener with TLS."""
    return _address("AMQPS")


def stomp():
    """The (host, port) of the STOMP listener."""
    return _address("STOMP")


def stomps():
    """The (host, port) of the STOMP listener with TLS."""
    return _address("STOMPS")


def metrics():
    """The (host, port) of the metrics listener; leaves the program when a foreign broker has none."""
    address = _address("METRICS", required=not is_foreign())
    if address is None:
        not_applicable("the foreign broker under test was given without a metrics address")
    return address


def ca_file():
    """The file with the certificate that the broker's TLS certificate chains to."""
    return os.environ["WARREN_CONFORMANCE_CA"]


def is_foreign():
    """Whether the broker under test is not Warren, but one that serves as the oracle."""
    return os.environ.get("WARREN_CONFORMANCE_FOREIGN") == "1"


def not_applicable(reason):
    """Ends the program: what it checks is a promise that only Warren makes."""
    assert is_foreign(), reason
    print(f"not applicable to a foreign broker: {reason}", flush=True)
    os._exit(77)


def name(stem):
    """A name that no other run uses, so that programs may share a broker."""
    return f"conformance.{stem}.{uuid.uuid4().hex[:12]}"


def say(*words):
    """Prints one line at once; the harness shows it when the program fails."""
    print(*words, flush=True)


def equal(actual, expected, what):
    """Fails the program unless `actual` is `expected`; says what was seen either way."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")
    say(f"ok   {what}: {actual!r}")


def true(condition, what):
    """Fails the program unless `condition` holds."""
    if not condition:
        raise AssertionError(what)
    say(f"ok   {what}")


def raises(kind, action, what):
    """Runs `action`, fails unless it raises `kind`, and returns the exception."""
    try:
        outcome = action()
    except kind as error:
        say(f"ok   {what}: {error!r}")
        return error
    raise AssertionError(f"{what}: expected {kind!r}, but it answered {outcome!r}")


def wait_until(condition, what, seconds=WAIT_SECS):
    """Waits until `condition()` is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            say(f"ok   {what}")
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.01)


def role(default="main"):
    """Which part this process plays; `spawn` starts the same file in another part."""
    return sys.argv[1] if len(sys.argv) > 1 else default


class Process:
    """A second process of the same program, as a tutorial's reader would start it in a second terminal."""

    def __init__(self, part, *arguments):
        self._lines = []
        self._child = subprocess.Popen(
            [sys.executable, sys.argv[0], part, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._part = part
        atexit.register(self.kill)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._child.stdout:
            say(f"     [{self._part} {self._child.pid}] {line.rstrip()}")
            self._lines.append(line.rstrip())

    def lines(self, prefix=""):
        """The lines printed so far that begin with `prefix`."""
        return [line for line in list(self._lines) if line.startswith(prefix)]

    def wait_for(self, line):
        """Waits until the process has printed `line`."""

        def printed():
            true_so_far = line in self._lines
            if not true_so_far and self._child.poll() is not None:
                raise AssertionError(f"{self._part} ended with {self._child.returncode} before {line!r}")
            return true_so_far

        wait_until(printed, f"{self._part} says {line!r}")

    def kill(self):
        """Ends the process as a power cut would: no goodbye on the protocol."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()


def spawn(part, *arguments):
    """Starts this program again in the part `part`."""
    return Process(part, *arguments)


def done():
    """Ends the program with success, whatever threads a client has left running."""
    say("done")
    atexit._run_exitfuncs()
    os._exit(0)
