//! Heart-beats in time: when to send one, and when the peer has been silent for too long.
//!
//! What was agreed comes from [`AgreedHeartBeat`]; here is only the clockwork. It looks at the clock once an interval
//! and not with every octet.

use std::time::Duration;

use proto_stomp::{AgreedHeartBeat, HEART_BEAT};
use tokio::time::Instant;

/// Intervals without an octet after which a peer counts as gone.
const SILENT_INTERVALS_MAX: u8 = 2;

/// What a look at the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// Nothing was written for half an interval: send a heart-beat.
    pub(super) send: bool,
    /// The peer has been silent for two intervals.
    pub(super) lost: bool,
}

#[derive(Debug, Default)]
pub(super) struct HeartBeats {
    outgoing: Option<Interval>,
    /// A heart-beat is on its way; it counts as nothing written.
    own: bool,
    incoming: Option<Interval>,
}

#[derive(Debug)]
struct Interval {
    length: Duration,
    ends: Instant,
    /// Octets have passed in this interval.
    alive: bool,
    /// Intervals before this one in which none have.
    silent: u8,
}

impl Interval {
    fn new(length: Duration, now: Instant) -> Self {
        Self { length, ends: now + length, alive: false, silent: 0 }
    }

    /// Begins the next interval if this one is over; gives for how many there was silence.
    fn turn(&mut self, now: Instant) -> Option<u8> {
        if now < self.ends {
            return None;
        }
        self.silent =
            if std::mem::take(&mut self.alive) { 0 } else { self.silent.saturating_add(1) };
        // In step, unless the clock was looked at much too late: that is not the peer's silence.
        let next = self.ends + self.length;
        self.ends = if next > now { next } else { now + self.length };
        Some(self.silent)
    }
}

impl HeartBeats {
    pub(super) fn start(agreed: AgreedHeartBeat, now: Instant) -> Self {
        Self {
            // Twice as often as promised: one that is late on its way is then no loss.
            outgoing: agreed.outgoing().map(|interval| Interval::new(interval / 2, now)),
            own: false,
            incoming: agreed.incoming().map(|interval| Interval::new(interval, now)),
        }
    }

    /// A heart-beat was handed over to be written.
    pub(super) const fn sent(&mut self) {
        self.own = true;
    }

    /// Octets were written.
    pub(super) fn written(&mut self, count: usize) {
        let own = std::mem::take(&mut self.own) && count == HEART_BEAT.len();
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.alive |= !own;
        }
    }

    pub(super) fn received(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.alive = true;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [&self.outgoing, &self.incoming].into_iter().flatten().map(|interval| interval.ends).min()
    }

    /// Looks at the clock.
    pub(super) fn look(&mut self, now: Instant) -> Due {
        let silent = |interval: &mut Option<Interval>| interval.as_mut()?.turn(now);
        Due {
            send: silent(&mut self.outgoing).is_some_and(|silent| silent > 0),
            lost: silent(&mut self.incoming).is_some_and(|silent| silent >= SILENT_INTERVALS_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_stomp::HeartBeat;

    fn agreed(header: &str) -> AgreedHeartBeat {
        HeartBeat::parse(header.as_bytes()).unwrap().agree()
    }

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_heart_beat_is_sent_when_nothing_was_written_for_half_the_interval() {
        let start = Instant::now();
        let mut beats = HeartBeats::start(agreed("0,1000"), start);
        assert_eq!(beats.deadline(), Some(start + millis(500)));
        assert!(!beats.look(start + millis(499)).send);
        assert!(beats.look(start + millis(500)).send);
        // A heart-beat is none for the next half.
        beats.sent();
        beats.written(1);
        assert!(beats.look(start + millis(1000)).send);
        beats.sent();
        beats.written(2);
        assert!(!beats.look(start + millis(1500)).send);
        beats.written(1);
        assert!(!beats.look(start + millis(2000)).send);
        assert!(beats.look(start + millis(2500)).send);
    }

    #[test]
    fn a_peer_is_lost_after_two_silent_intervals() {
        let start = Instant::now();
        let mut beats = HeartBeats::start(agreed("1000,0"), start);
        assert!(!beats.look(start + millis(1000)).lost);
        beats.received();
        assert!(!beats.look(start + millis(2000)).lost);
        assert!(!beats.look(start + millis(3000)).lost);
        assert!(beats.look(start + millis(4000)).lost);
    }

    #[test]
    fn without_an_agreement_there_is_no_deadline() {
        let mut beats = HeartBeats::start(agreed("0,0"), Instant::now());
        assert_eq!(beats.deadline(), None);
        assert_eq!(beats.look(Instant::now() + millis(1_000_000)), Due::default());
    }
}
