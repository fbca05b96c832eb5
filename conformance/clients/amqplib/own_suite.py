"""The test suite that py-amqplib 1.0.2 ships, over AMQP 0-8.

spec: amqp-0-8.session
spec: suites.py-amqplib
"""

import os
import sys
import unittest

from conformance import amqp, done
from suite import judge

tests = os.path.join(os.environ["WARREN_CONFORMANCE_SUITE"], "tests", "client_0_8")
sys.path.insert(0, tests)
host, port = amqp()
# Its settings come from the command line, which they read as soon as they are imported.
sys.argv = ["run_all.py", "--host", f"{host}:{port}"]

import run_all  # noqa: E402  (the suite's module, found through the path above)

KNOWN_FAILURES = {
    "test_channel.TestChannel.test_basic_return": "publishes with immediate, which is refused with 540",
    "test_channel.TestChannel.test_exception": "expects an error for deleting a queue that does not exist; "
    "the deletion is idempotent, as in RabbitMQ",
}


class Recorder(unittest.TestResult):
    """Keeps the names of the tests that passed; the base class keeps only the others."""

    def __init__(self):
        super().__init__()
        self.passed = set()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.add(test.id())


recorder = Recorder()
unittest.TestLoader().loadTestsFromNames(run_all.TEST_NAMES).run(recorder)
judge(
    recorder.passed,
    {test.id(): said for test, said in recorder.failures + recorder.errors},
    {test.id(): reason for test, reason in recorder.skipped},
    KNOWN_FAILURES,
    at_least=46,
)
done()
