"""The broker tests that txAMQP 0.8.2 ships (they descend from Qpid's), over one version of AMQP.

The only argument is the version: 0-8, 0-9 or 0-9-1. Each is spoken from that version's own specification
file, so that methods and fields are those of the document.

spec: suites.txamqp-0-8
spec: suites.txamqp-0-9
spec: suites.txamqp-0-9-1
"""

import importlib
import os
import sys
import warnings

warnings.simplefilter("ignore")

from twisted.trial import reporter, runner  # noqa: E402
from txamqp import testlib  # noqa: E402

from conformance import amqp, done, is_foreign, say  # noqa: E402
from suite import judge  # noqa: E402

VERSIONS = {
    "0-8": "0-8/amqp0-8.stripped.xml",
    "0-9": "0-9/amqp0-9.stripped.xml",
    "0-9-1": "0-9-1/amqp0-9-1.stripped.xml",
}
version = sys.argv[1]
specification = os.path.join(os.environ["WARREN_CONFORMANCE_AMQP_SPECS"], VERSIONS[version])
host, port = amqp()
os.environ["TXAMQP_BROKER"] = testlib.RABBITMQ

_init = testlib.TestBase.__init__


def init(self, *args, **kwargs):
    _init(self, *args, **kwargs)
    self.host, self.port, self.spec = host, port, specification


testlib.TestBase.__init__ = init

NO_RECOVER_OK = "the library has no handler for recover-ok, which is new in the 0-9-1 document"
KNOWN_FAILURES = {
    "0-8": {},
    "0-9": {},
    "0-9-1": {
        "txamqp.test.test_basic.BasicTests.test_get": NO_RECOVER_OK,
        "txamqp.test.test_basic.BasicTests.test_recover_requeue": NO_RECOVER_OK,
    },
}
if not is_foreign():
    # The suite leaves these two out for a broker that says it is RabbitMQ 3.
    for known in KNOWN_FAILURES.values():
        known["txamqp.test.test_broker.BrokerTests.test_basic_delivery_immediate"] = (
            "publishes with immediate, which is refused with 540"
        )
        known["txamqp.test.test_queue.QueueTests.test_delete_non_existing"] = (
            "expects an error for deleting a queue that does not exist"
        )
AT_LEAST = {"0-8": 44, "0-9": 44, "0-9-1": 42}


class Recorder(reporter.Reporter):
    """Keeps what became of each test; a test skipped by trial is skipped with its reason."""

    def __init__(self):
        super().__init__(stream=sys.stdout)
        self.passed, self.failed, self.skipped = set(), {}, {}

    def addSuccess(self, test):
        self.passed.add(test.id())

    def addFailure(self, test, fail):
        self.failed[test.id()] = str(fail)

    addError = addFailure

    def addSkip(self, test, reason):
        self.skipped[test.id()] = reason


# The other modules test the library against a broker of paper.
WITH_A_BROKER = ("basic", "broker", "event", "example", "exchange", "heartbeat", "queue", "tx")

suite = runner.TestSuite()
loader = runner.TestLoader()
for stem in WITH_A_BROKER:
    suite.addTest(loader.loadModule(importlib.import_module(f"txamqp.test.test_{stem}")))
say(f"AMQP {version}, {suite.countTestCases()} tests")
recorder = Recorder()
suite.run(recorder)
judge(
    recorder.passed - set(recorder.failed),
    recorder.failed,
    recorder.skipped,
    KNOWN_FAILURES[version],
    AT_LEAST[version],
)
done()
