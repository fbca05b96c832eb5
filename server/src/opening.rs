//! How far a start is: said in the log, to systemd, in `/metrics` and by `/readyz`.
//!
//! The one idea: there is one [`Progress`]. The thread that opens the store replaces it, and whoever wants to know
//! reads the latest when he likes; nobody is woken. A start that takes less than [`EVERY`] says nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use broker_core::storage::{OnProgress, OpenPhase, OpenProgress};
use indicatif::HumanBytes;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is said how far a start is, and how long it is waited for before that.
const EVERY: Duration = Duration::from_secs(1);

/// What a broker that starts is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taking the lock and reading checkpoints.
    Begin,
    /// Reading the store.
    Store(OpenPhase),
    /// Making virtual hosts, exchanges and queues of what was read.
    Restore,
    /// The store is open.
    Open,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 6] = [
        Self::Begin,
        Self::Store(OpenPhase::Scan),
        Self::Store(OpenPhase::Replay),
        Self::Store(OpenPhase::Segments),
        Self::Restore,
        Self::Open,
    ];

    /// The phase in a word, for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Begin => "start",
            Self::Store(phase) => phase.word(),
            Self::Restore => "restore",
            Self::Open => "open",
        }
    }
}

/// How far a start is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is busy with.
    pub phase: Phase,
    /// Octets of this phase behind it; 0 where it does not count in octets.
    pub done: u64,
    /// Octets of this phase; 0 where it does not count in octets, and where there is nothing to do.
    pub total: u64,
}

impl Progress {
    const fn of(phase: Phase) -> Self {
        Self { phase, done: 0, total: 0 }
    }

    /// How far the phase is, in thousandths.
    #[must_use]
    pub fn thousandths(&self) -> u64 {
        match self.phase {
            Phase::Open => 1000,
            Phase::Begin | Phase::Restore => 0,
            Phase::Store(_) if self.total == 0 => 1000,
            Phase::Store(_) => {
                let share = u128::from(self.done) * 1000 / u128::from(self.total);
                u64::try_from(share).unwrap_or(1000).min(1000)
            }
        }
    }

    /// How far the phase is, in whole per cent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        self.thousandths() / 10
    }
}

/// A sentence for `systemctl status` and `/readyz`.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Begin => f.write_str("starting"),
            Phase::Store(phase) => {
                let (percent, done) = (self.percent(), HumanBytes(self.done));
                let total = HumanBytes(self.total);
                write!(f, "opening the store: {phase}, {percent} %, {done} of {total}")
            }
            Phase::Restore => f.write_str("opening the store: restoring queues"),
            Phase::Open => f.write_str("the store is open"),
        }
    }
}

/// How far one start is. Clones are about the same one.
#[derive(Clone, Debug)]
pub struct Opening(Arc<Mutex<Progress>>);

impl Default for Opening {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Progress::of(Phase::Begin))))
    }
}

impl Opening {
    /// How far it is at this moment.
    #[must_use]
    pub fn now(&self) -> Progress {
        *self.0.lock()
    }

    /// A phase begins that does not count in octets.
    pub(crate) fn enter(&self, phase: Phase) {
        *self.0.lock() = Progress::of(phase);
    }

    /// Reading the store has come so far.
    pub(crate) fn reach(&self, progress: OpenProgress) {
        let OpenProgress { phase, done, total } = progress;
        *self.0.lock() = Progress { phase: Phase::Store(phase), done, total };
    }

    /// Listens to the store.
    pub(crate) fn observer(&self) -> OnProgress {
        let opening = self.clone();
        OnProgress::new(move |progress| opening.reach(progress))
    }
}

/// Waits for `work`, calling `tell` about once a second while it takes longer than that.
pub(crate) async fn telling<T>(work: impl Future<Output = T>, tell: impl FnMut()) -> T {
    telling_every(EVERY, work, tell).await
}

async fn telling_every<T>(
    period: Duration,
    work: impl Future<Output = T>,
    mut tell: impl FnMut(),
) -> T {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => tell(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_takes_long_is_told_of_again_and_again_and_what_is_quick_not_at_all() {
        let mut told = 0;
        assert_eq!(telling(async { 7 }, || told += 1).await, 7);
        assert_eq!(told, 0);
        let enough = Notify::new();
        let tell = || {
            told += 1;
            if told == 3 {
                enough.notify_one();
            }
        };
        telling_every(Duration::from_millis(1), enough.notified(), tell).await;
        assert_eq!(told, 3);
    }

    #[test]
    fn progress_reads_as_a_sentence_and_as_a_share() {
        let opening = Opening::default();
        let says = |thousandths: u64, sentence: &str| {
            let now = opening.now();
            assert_eq!(now.to_string(), sentence);
            assert_eq!((now.thousandths(), now.percent()), (thousandths, thousandths / 10));
        };
        says(0, "starting");
        let reach = |phase, done, total| opening.reach(OpenProgress { phase, done, total });
        reach(OpenPhase::Scan, 0, 2 << 30);
        says(0, "opening the store: scan, 0 %, 0 B of 2.00 GiB");
        reach(OpenPhase::Replay, 455 << 20, 1000 << 20);
        says(455, "opening the store: replay, 45 %, 455.00 MiB of 1000.00 MiB");
        reach(OpenPhase::Replay, u64::MAX, 1);
        assert_eq!(opening.now().thousandths(), 1000, "never more than all of it");
        reach(OpenPhase::Segments, 0, 0);
        says(1000, "opening the store: segments, 100 %, 0 B of 0 B");
        opening.enter(Phase::Restore);
        says(0, "opening the store: restoring queues");
        opening.enter(Phase::Open);
        says(1000, "the store is open");
    }
}
