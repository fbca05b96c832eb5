"""Heart-beats with stomp.py: both sides send, silence is noticed, and a version without them works.

spec: stomp-1.1.heart-beat.negotiation
spec: stomp-1.1.heart-beat.server-sends
spec: stomp-1.1.heart-beat.server-notices
"""

import time

from conformance import done, equal, true, wait_until
from stomp_session import Session


class Beating(Session):
    """Counts the broker's heart-beats, which are single line ends."""

    beats = 0

    def on_heartbeat(self):
        self.beats += 1


session = Beating("1.2", heartbeats=(1000, 1000))
equal(session.connected.headers["heart-beat"], "1000,1000", "what the broker offers")
wait_until(lambda: session.beats >= 3, "the broker sends heart-beats")
true(session.connection.is_connected(), "with heart-beats from both sides the connection stays open")
session.close()

# The client promises a heart-beat each second and stays silent: the broker closes in 2 to 3 intervals.
# That it comes `expect_closed` says; how late is the machine's affair.
started = time.monotonic()
silent = Session("1.1", connect_headers={"heart-beat": "1000,0"})
equal(silent.connected.headers["heart-beat"], "0,1000", "what the broker offers")
silent.expect_closed("a client that is silent")
elapsed = time.monotonic() - started
true(elapsed >= 2.0, f"after {elapsed:.1f} s of silence at an interval of 1 s")

# The client wants none.
quiet = Session("1.2")
equal(quiet.connected.headers.get("heart-beat"), "0,0", "none wanted, none offered")
quiet.close()
done()
