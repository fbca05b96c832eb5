//! The dead on their way to the next queue, and who waits until they have come there.
//!
//! A client may be told that what it rejected is done, and that is not so before the log has it out of one queue and in
//! the next. Most of it is there when the call returns. What has to be read first, or what a full disk holds up, comes
//! later: each of those keeps its [`UnderWay`], and when the last one has dropped it the [`Burial`] is over. So none is
//! forgotten, whatever becomes of it: it has moved, was purged, was lost with the disk, went with its queue, or is a letter
//! too large for the log, which stays where it is until a restart.
//!
//! A burial says nothing of positions: what it took lies before the end of the log at the moment when it is over. And
//! it knows no time: whoever waits gives up by himself.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::DeathReason;
use crate::consumer::Entry;
use crate::log::{Log, LogPosition};

/// A message that has died, and is on its way.
#[derive(Debug)]
pub struct Dead<M = Entry> {
    /// The message; with an [`Outstanding`](crate::consumer::Outstanding) in its place it may have to be read first.
    pub entry: M,
    /// Why.
    pub reason: DeathReason,
    /// Kept until it has arrived.
    pub(crate) under_way: Option<UnderWay>,
}

impl<M> Dead<M> {
    /// One for which nobody waits.
    pub(super) const fn unattended(entry: M, reason: DeathReason) -> Self {
        Self { entry, reason, under_way: None }
    }
}

/// Kept by each message of a burial that has not arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay(Arc<Bell>);

impl UnderWay {
    /// What the others are waited for with.
    pub(super) fn burial(self) -> Burial {
        Burial(Arc::downgrade(&self.0))
    }
}

/// Messages that a client has rejected, on their way to the next queue.
#[derive(Debug)]
pub struct Burial(Weak<Bell>);

impl Burial {
    /// Whether all have arrived.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }

    /// Where the log has to come before the arrival of all is durable; `None` as long as some are on their way.
    #[must_use]
    pub fn position(&self, log: &dyn Log) -> Option<LogPosition> {
        // First the one, then the other: each arrived before its piece was dropped, so before the end of the log of now.
        self.is_over().then(|| log.appended_up_to())
    }

    /// Has `wake` called once when it is over, at once if it is. May happen under the lock of a queue: it must lock
    /// nothing but what belongs to the connection. Replaces what was asked for before.
    pub fn wake(&self, wake: impl FnOnce() + Send + 'static) {
        match self.0.upgrade() {
            // Should the others have arrived meanwhile, then it rings when this one goes.
            Some(bell) => *bell.0.lock() = Some(Box::new(wake)),
            None => wake(),
        }
    }
}

/// Rings when the last message has arrived.
#[derive(Default)]
struct Bell(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(wake) = self.0.get_mut().take() {
            wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_burial_is_over_and_says_so_once_when_the_last_has_arrived() {
        let rung = Arc::new(AtomicU64::new(0));
        let ring = || {
            let rung = Arc::clone(&rung);
            move || {
                rung.fetch_add(1, Ordering::Relaxed);
            }
        };
        let own = UnderWay::default();
        let (first, last) = (own.clone(), own.clone());
        let burial = own.burial();
        burial.wake(ring());
        drop(first);
        assert_eq!((burial.is_over(), rung.load(Ordering::Relaxed)), (false, 0));
        drop(last);
        assert_eq!((burial.is_over(), rung.load(Ordering::Relaxed)), (true, 1));
        burial.wake(ring());
        assert_eq!(rung.load(Ordering::Relaxed), 2, "who comes late is told at once");
        assert!(UnderWay::default().burial().is_over(), "there is nothing to wait for");
    }
}
