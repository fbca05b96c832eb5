"""Judges a client's own test suite: which of its tests fail, against which are known to.

A suite written for an older broker has tests that no broker of today passes. These are named with their
reason; any other failure fails the program, and so does a known one that passes all of a sudden, because
then the list is out of date.
"""

from conformance import say


def judge(passed, failed, skipped, known_failures, at_least):
    """Prints the score; fails unless exactly `known_failures` failed and `at_least` tests passed.

    `failed` maps a test's name to what it said, `known_failures` maps a name to the reason. A floor for the
    number of passed tests notices a suite that was not found or skips itself.
    """
    for test in sorted(passed):
        say(f"pass {test}")
    for test, reason in sorted(skipped.items()):
        say(f"skip {test}: {reason}")
    for test, said in sorted(failed.items()):
        known = known_failures.get(test)
        say(f"{'known failure' if known else 'FAIL'} {test}: {known or said}")
    say(f"passed {len(passed)}, failed {len(failed)}, skipped {len(skipped)}")
    unexpected = sorted(set(failed) - set(known_failures))
    cured = sorted(set(known_failures) & set(passed))
    if unexpected or cured or len(passed) < at_least:
        raise AssertionError(
            f"failures that are not known: {unexpected}; known failures that passed: {cured}; "
            f"passed {len(passed)} of at least {at_least}"
        )
