"""Runs a client's own tests under pytest and judges them by `suite.judge`."""

import pytest

from conformance import say
from suite import judge


class _Recorder:
    def __init__(self):
        self.passed, self.failed, self.skipped = set(), {}, {}
        self.uncollected = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed[report.nodeid] = report.longreprtext
        elif report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr)
        elif report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.uncollected.append(f"{report.nodeid}: {report.longreprtext}")


def run(directory, arguments, known_failures, at_least):
    """Runs pytest in `directory`; see `suite.judge` for the rest."""
    recorder = _Recorder()
    status = pytest.main(
        [f"--rootdir={directory}", "-p", "no:cacheprovider", "--quiet", "--no-header", *arguments],
        plugins=[recorder],
    )
    say(f"pytest ended with {status!r}")
    if recorder.uncollected:
        raise AssertionError(f"tests that could not be collected: {recorder.uncollected}")
    judge(
        recorder.passed - set(recorder.failed),
        recorder.failed,
        recorder.skipped,
        known_failures,
        at_least,
    )
