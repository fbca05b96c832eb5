//! Heartbeats in time, for both protocols: when to send one, and when the peer has been silent for too long.
//!
//! How often is agreed elsewhere (AMQP 0-9-1 §4.2.7 when the connection is tuned, STOMP 1.1 "Heart-beating" in
//! CONNECT); here is only the clockwork. It looks at the clock when an interval is over and not with every octet, and
//! knows no clock of its own.

use std::time::Duration;

use tokio::time::Instant;

use crate::outbox::OutBuffer;

/// Intervals without an octet after which a peer counts as gone.
const SILENT_INTERVALS_MAX: u8 = 2;

/// How often either side has to write something; `None`: it need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// We do.
    pub(crate) outgoing: Option<Duration>,
    /// The peer does.
    pub(crate) incoming: Option<Duration>,
}

/// What a look at the clock asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Due {
    /// Nothing was written for half an interval: [`Heartbeats::send`] one.
    pub(crate) send: bool,
    /// The peer has been silent for two intervals and more, which are this long.
    pub(crate) lost: Option<Duration>,
}

/// The heartbeats of a connection, in both directions. By default there are none.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    /// The octets of one.
    beat: &'static [u8],
    /// In halves of what was agreed: one that is late on its way is then no loss.
    outgoing: Option<Interval>,
    /// One is on its way; it counts as nothing written.
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
        // From now on: that we look late is not the peer's silence.
        self.ends = now + self.length;
        Some(self.silent)
    }
}

impl Heartbeats {
    /// Begins to count; `beat` is what a heartbeat looks like in the protocol.
    pub(crate) fn start(beat: &'static [u8], agreed: Agreed, now: Instant) -> Self {
        Self {
            beat,
            outgoing: agreed.outgoing.map(|interval| Interval::new(interval / 2, now)),
            own: false,
            incoming: agreed.incoming.map(|interval| Interval::new(interval, now)),
        }
    }

    /// How often the peer has to write something, if it has to.
    pub(crate) fn incoming(&self) -> Option<Duration> {
        self.incoming.as_ref().map(|interval| interval.length)
    }

    /// Hands a heartbeat over to be written, unless something is waiting to be written anyway.
    pub(crate) fn send(&mut self, out: &mut OutBuffer) {
        if out.is_empty() {
            out.octets().extend_from_slice(self.beat);
            self.own = true;
        }
    }

    /// Octets were written.
    pub(crate) fn written(&mut self, count: usize) {
        let own = std::mem::take(&mut self.own) && count == self.beat.len();
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.alive |= !own;
        }
    }

    /// Octets were received, or the peer is not to blame that none were.
    pub(crate) const fn received(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.alive = true;
        }
    }

    /// When to [`look`](Self::look) at the clock, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [&self.outgoing, &self.incoming].into_iter().flatten().map(|interval| interval.ends).min()
    }

    /// Looks at the clock.
    pub(crate) fn look(&mut self, now: Instant) -> Due {
        let silent = |interval: &mut Option<Interval>| interval.as_mut()?.turn(now);
        let send = silent(&mut self.outgoing).is_some_and(|silent| silent > 0);
        let lost = silent(&mut self.incoming).filter(|silent| *silent >= SILENT_INTERVALS_MAX);
        let silence = |silent: u8| Some(self.incoming()? * u32::from(silent));
        Due { send, lost: lost.and_then(silence) }
    }
}

#[cfg(test)]
mod tests {
    use proto_amqp::frame::HEARTBEAT_FRAME;

    use super::*;

    const fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    const NONE: Agreed = Agreed { outgoing: None, incoming: None };

    fn started(agreed: Agreed, now: Instant) -> Heartbeats {
        Heartbeats::start(&HEARTBEAT_FRAME, agreed, now)
    }

    /// Sends a heartbeat, and has `count` octets written with it and behind it.
    fn send(beats: &mut Heartbeats, count: usize) {
        let mut out = OutBuffer::default();
        beats.send(&mut out);
        assert_eq!(out.octets(), &HEARTBEAT_FRAME);
        beats.written(count);
    }

    /// A client that hears one heartbeat an interval, and late, gives up.
    #[test]
    fn one_is_sent_when_nothing_was_written_for_half_the_interval() {
        let start = Instant::now();
        let mut beats = started(Agreed { outgoing: Some(millis(1000)), ..NONE }, start);
        assert_eq!(beats.deadline(), Some(start + millis(500)));
        assert!(!beats.look(start + millis(499)).send);
        assert!(beats.look(start + millis(500)).send);
        // A heartbeat is none for the next half.
        send(&mut beats, HEARTBEAT_FRAME.len());
        assert!(beats.look(start + millis(1000)).send);
        // With something behind it, it is more than that.
        send(&mut beats, 100);
        assert!(!beats.look(start + millis(1500)).send);
        // And so is something else of the same length.
        beats.written(HEARTBEAT_FRAME.len());
        assert!(!beats.look(start + millis(2000)).send);
        assert!(beats.look(start + millis(2500)).send);
    }

    #[test]
    fn none_is_sent_where_something_waits_to_be_written() {
        let mut beats = started(Agreed { outgoing: Some(millis(1000)), ..NONE }, Instant::now());
        let mut out = OutBuffer::default();
        out.octets().push(b'x');
        beats.send(&mut out);
        assert_eq!(out.octets(), b"x");
    }

    #[test]
    fn a_peer_is_lost_after_two_silent_intervals() {
        let start = Instant::now();
        let mut beats = started(Agreed { incoming: Some(millis(1000)), ..NONE }, start);
        assert_eq!(beats.look(start + millis(1000)).lost, None);
        beats.received();
        assert_eq!(beats.look(start + millis(2000)).lost, None);
        assert_eq!(beats.look(start + millis(3000)).lost, None);
        assert_eq!(beats.look(start + millis(4000)).lost, Some(millis(2000)));
    }

    #[test]
    fn a_look_that_comes_late_is_not_the_peers_silence() {
        let start = Instant::now();
        let mut beats = started(Agreed { incoming: Some(millis(1000)), ..NONE }, start);
        // A machine that has slept.
        assert_eq!(beats.look(start + millis(60_900)).lost, None);
        assert_eq!(beats.deadline(), Some(start + millis(61_900)));
        beats.received();
        assert_eq!(beats.look(start + millis(61_900)).lost, None);
        assert_eq!(beats.look(start + millis(62_900)).lost, None);
        assert!(beats.look(start + millis(63_900)).lost.is_some());
    }

    #[test]
    fn without_an_agreement_there_is_no_deadline() {
        let mut beats = started(NONE, Instant::now());
        assert_eq!((beats.deadline(), beats.incoming()), (None, None));
        assert_eq!(beats.look(Instant::now() + millis(1_000_000)), Due::default());
    }
}
