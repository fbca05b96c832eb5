//! How connections wait for the log: for its mark, and for a disk that does not keep up.
//!
//! The one idea: who waits enters first and reads the mark afterwards, so that no move in between is missed.
//! [`LogWait`] gives the mark in no other order. Each of those who wait is woken once when the mark moves, and enters
//! again if it has to wait on: of ten thousand connections only those are looked at that published something.

use std::sync::Arc;
use std::time::Duration;

use broker_core::log::{Log, LogPosition};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Connection, Node};

/// How long a publisher whose queue is backlogged is not read from.
const BACKLOG_PAUSE: Duration = Duration::from_millis(1);

/// How long a connection waits to answer for a definition, or for rejected messages on their way to another queue, when
/// the disk comes to no end: then its client is told, or goes on without the answer, rather than left alone.
pub(crate) const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// What who waits for a definition is told.
pub(crate) const KEPT_TOO_LATE: &str =
    "done, but the disk does not say that it is kept: after a crash it may be undone";

/// What who waits for rejected messages is told.
pub(crate) const BURIED_TOO_LATE: &str = "rejected, but still on the way to the dead-letter exchange: after a crash messages may be back in their queue";

/// Connections that wait for the log's mark.
#[derive(Default)]
pub(crate) struct LogWaiters(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// How often all were woken.
    round: u64,
    connections: Vec<Arc<dyn Connection>>,
}

impl std::fmt::Debug for LogWaiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogWaiters({})", self.0.lock().connections.len())
    }
}

impl LogWaiters {
    /// Wakes all.
    pub(super) fn wake(&self) {
        let connections = {
            let mut waiting = self.0.lock();
            waiting.round += 1;
            let room = Vec::with_capacity(waiting.connections.len());
            std::mem::replace(&mut waiting.connections, room)
        };
        for connection in connections {
            connection.wake();
        }
    }
}

/// One connection's place among them.
#[derive(Debug, Default)]
pub(crate) struct LogWait {
    /// The round for which it has entered; zero for none.
    entered: u64,
}

impl LogWait {
    /// Has the connection woken when the mark moves next, and then gives where the mark is.
    pub(crate) fn mark(
        &mut self,
        node: &Node,
        connection: &Arc<impl Connection + 'static>,
    ) -> LogPosition {
        self.enter(&node.log_waiters, connection);
        node.broker.log.durable_up_to()
    }

    fn enter(&mut self, waiters: &LogWaiters, connection: &Arc<impl Connection + 'static>) {
        let mut waiting = waiters.0.lock();
        let round = waiting.round + 1;
        if self.entered != round {
            self.entered = round;
            waiting.connections.push(Arc::clone(connection) as _);
        }
    }
}

/// The pause of a publisher that is not read from: a queue that it publishes to is backlogged.
#[derive(Debug, Default)]
pub(crate) struct BacklogPause {
    until: Option<Instant>,
}

impl BacklogPause {
    /// It is not read from for a moment.
    pub(crate) fn begin(&mut self) {
        self.until = Some(Instant::now() + BACKLOG_PAUSE);
    }

    /// Ends the pause when its time is over, unless the disk needs more.
    pub(crate) fn look(&mut self, log: &dyn Log) {
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.until = None;
            if log.is_pressed() {
                self.begin();
            }
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// When to look again.
    pub(crate) const fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::node::ConnectionRow;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Sleeper(AtomicU64);

    impl Connection for Sleeper {
        fn describe(&self) -> ConnectionRow {
            unreachable!("nobody lists it")
        }
        fn close(&self, _: &str) {}
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken_once_a_round_and_not_when_it_has_not_entered_again() {
        let waiters = LogWaiters::default();
        let [eager, calm] = [Arc::<Sleeper>::default(), Arc::<Sleeper>::default()];
        let [mut of_eager, mut of_calm] = [LogWait::default(), LogWait::default()];
        of_calm.enter(&waiters, &calm);
        for round in 1..=3 {
            of_eager.enter(&waiters, &eager);
            of_eager.enter(&waiters, &eager);
            waiters.wake();
            assert_eq!(eager.0.load(Ordering::Relaxed), round);
            assert_eq!(calm.0.load(Ordering::Relaxed), 1);
        }
        waiters.wake();
        assert_eq!(eager.0.load(Ordering::Relaxed), 3);
    }
}
