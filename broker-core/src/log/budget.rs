//! Memory for messages that the log holds too: one allowance for all queues.
//!
//! A queue keeps the first messages of its backlog in memory, and some of those that consumers have, and leaves the
//! others to the log. How many it may keep is bounded for each queue and, here, for all of them together. Transient messages have no other place and are
//! not counted: the memory alarm looks after those.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much of it there is, and how much is used. Octets.
#[derive(Debug)]
pub struct Budget {
    max: u64,
    used: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Budget {
    /// An allowance of `max` octets.
    #[must_use]
    pub const fn new(max: u64) -> Self {
        Self { max, used: AtomicU64::new(0) }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.used() >= self.max
    }

    /// Octets in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        // Relaxed: a figure; nothing is ordered by it.
        self.used.load(Ordering::Relaxed)
    }

    /// Replaces what somebody has charged before by what he uses now.
    pub(crate) fn replace(&self, before: u64, now: u64) {
        if now >= before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
        }
    }
}
