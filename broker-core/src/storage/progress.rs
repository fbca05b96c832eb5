//! How far opening a store is, told to whoever waits for it.
//!
//! The one idea: recovery works through octets whose number is known before it begins, so a phase,
//! a count and a total say enough. Telling is throttled by octets and not by time, since nothing
//! here reads a clock: whoever wants a line a second keeps the latest and looks when it likes.

use std::fmt;
use std::sync::Arc;

/// Octets between two calls within one phase; each phase ends with a call besides.
const STEP: u64 = 4 << 20;

/// What an opening store is busy with, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OpenPhase {
    /// Looking for the frames of the log, whose headers are read.
    Scan,
    /// Reading the log behind the newest checkpoint and applying it.
    Replay,
    /// Comparing the segments with what the index says; only their ends are read.
    Segments,
}

impl OpenPhase {
    /// The phase in a word, for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Replay => "replay",
            Self::Segments => "segments",
        }
    }
}

impl fmt::Display for OpenPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How far opening a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenProgress {
    /// What it is busy with.
    pub phase: OpenPhase,
    /// Octets of this phase behind it. Never falls within a phase.
    pub done: u64,
    /// Octets of this phase: of log files, of records, of segment files.
    pub total: u64,
}

/// Called by the thread that opens a store, now and then; must be quick.
#[derive(Clone)]
pub struct OnProgress(Arc<dyn Fn(OpenProgress) + Send + Sync>);

impl OnProgress {
    /// Has `observer` called.
    pub fn new(observer: impl Fn(OpenProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observer))
    }
}

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// One phase being measured. Says that it began, and that it ended when it is dropped.
pub(super) struct Meter<'a> {
    observer: Option<&'a OnProgress>,
    phase: OpenPhase,
    done: u64,
    total: u64,
    told: u64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(observer: Option<&'a OnProgress>, phase: OpenPhase, total: u64) -> Self {
        let meter = Self { observer, phase, done: 0, total, told: 0 };
        meter.tell();
        meter
    }

    /// So many octets of the phase are done.
    pub(super) fn reach(&mut self, done: u64) {
        self.done = done.clamp(self.done, self.total.max(self.done));
        if self.done - self.told >= STEP {
            self.told = self.done;
            self.tell();
        }
    }

    /// So many more octets are done.
    pub(super) fn add(&mut self, octets: u64) {
        self.reach(self.done.saturating_add(octets));
    }

    fn tell(&self) {
        if let Some(OnProgress(observer)) = self.observer {
            observer(OpenProgress { phase: self.phase, done: self.done, total: self.total });
        }
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.done = self.total;
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn a_phase_is_told_at_its_ends_and_every_few_octets_and_never_runs_backwards() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let observer = {
            let told = Arc::clone(&told);
            OnProgress::new(move |progress| told.lock().push(progress.done))
        };
        let mut meter = Meter::new(Some(&observer), OpenPhase::Replay, 5 * STEP);
        for _ in 0..9 {
            meter.add(STEP / 4);
        }
        meter.reach(STEP);
        meter.reach(u64::MAX);
        drop(meter);
        assert_eq!(*told.lock(), [0, STEP, 2 * STEP, 5 * STEP, 5 * STEP]);
    }

    #[test]
    fn nobody_needs_to_listen() {
        let mut meter = Meter::new(None, OpenPhase::Scan, 10);
        meter.add(STEP);
    }
}
