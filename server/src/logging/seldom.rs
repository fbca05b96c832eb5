//! Lines of the log that strangers can cause, and as often as they like: one a second of each kind.
//!
//! The one idea: the first line of a kind is written at once, those of the next second are counted, and the next line
//! says how many were left out. When no other comes, [`tell_rests`] says it: the log never hides that there was more.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::info;

/// The time between two lines of a kind.
const EVERY: Duration = Duration::from_secs(1);

/// A kind of line.
#[derive(Debug)]
pub(crate) struct Seldom {
    /// What such a line says, for whoever reads that some were left out.
    what: &'static str,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

/// Leave to write a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Lines of this kind that were not written since the last one; `None` when there were none.
    pub(crate) left_out: Option<u64>,
}

/// A connection more than there may be.
pub(crate) static TURNED_AWAY: Seldom = Seldom::new("too many connections");
/// The system gives no connection.
pub(crate) static NOT_ACCEPTED: Seldom = Seldom::new("cannot accept a connection");
/// The system gives no client of the control socket.
pub(crate) static NO_OPERATOR: Seldom = Seldom::new("cannot accept on the control socket");
/// Somebody who may not use the control socket.
pub(crate) static WRONG_OPERATOR: Seldom = Seldom::new("refused a client of the control socket");
/// A connection more that has not logged in.
pub(crate) static STRANGER_CLOSED: Seldom = Seldom::new("too many connections have not logged in");
/// No TLS came about.
pub(crate) static NO_TLS: Seldom = Seldom::new("a TLS handshake failed");
/// The system does not tell how much memory is in use.
pub(crate) static NO_MEMORY_READ: Seldom = Seldom::new("cannot read the memory in use");
/// The system does not tell how much disk is free.
pub(crate) static NO_DISK_READ: Seldom = Seldom::new("cannot read the free disk space");

static ALL: [&Seldom; 8] = [
    &TURNED_AWAY,
    &NOT_ACCEPTED,
    &NO_OPERATOR,
    &WRONG_OPERATOR,
    &STRANGER_CLOSED,
    &NO_TLS,
    &NO_MEMORY_READ,
    &NO_DISK_READ,
];

impl Seldom {
    const fn new(what: &'static str) -> Self {
        Self { what, state: Mutex::new(State { last: None, left_out: 0 }) }
    }

    /// Whether a line may be written now; counts it as left out if not.
    pub(crate) fn line(&self) -> Option<Line> {
        self.line_at(Instant::now())
    }

    fn line_at(&self, now: Instant) -> Option<Line> {
        let mut state = self.state.lock();
        if state.is_too_early(now) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(Line { left_out: state.take_left_out() })
    }

    /// What was left out, when the time for a line has come and there is none.
    fn rest_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.left_out == 0 || state.is_too_early(now) {
            return None;
        }
        state.last = Some(now);
        state.take_left_out()
    }
}

impl State {
    fn is_too_early(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) < EVERY)
    }

    fn take_left_out(&mut self) -> Option<u64> {
        match std::mem::take(&mut self.left_out) {
            0 => None,
            count => Some(count),
        }
    }
}

/// Says what was left out and is followed by no line of its kind. To be called every second or so.
pub(crate) fn tell_rests() {
    let now = Instant::now();
    for seldom in ALL {
        if let Some(left_out) = seldom.rest_at(now) {
            info!(left_out, "lines like \"{}\" were left out", seldom.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_the_others_are_counted() {
        let (seldom, start) = (Seldom::new("x"), Instant::now());
        let line = |left_out| Some(Line { left_out });
        assert_eq!(seldom.line_at(start), line(None));
        assert_eq!((seldom.line_at(start), seldom.line_at(start)), (None, None));
        assert_eq!(seldom.rest_at(start), None, "too early");
        assert_eq!(seldom.line_at(start + EVERY), line(Some(2)));
        assert_eq!(seldom.line_at(start + EVERY * 2), line(None), "told already");
    }

    #[test]
    fn what_is_left_out_at_the_end_is_told_once() {
        let (seldom, start) = (Seldom::new("x"), Instant::now());
        assert_eq!(seldom.rest_at(start), None);
        assert!(seldom.line_at(start).is_some() && seldom.line_at(start).is_none());
        assert_eq!(seldom.rest_at(start + EVERY), Some(1));
        assert_eq!(seldom.rest_at(start + EVERY * 2), None);
        assert!(seldom.line_at(start + EVERY).is_none(), "the rest was a line too");
    }
}
