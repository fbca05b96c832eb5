//! What a call into a queue leaves to be done elsewhere.
//!
//! The one idea: under the lock of a queue no other queue is touched. Deaths, deletions and wake-ups are noted down, and the
//! caller carries them out when the lock is free again.

use std::sync::Arc;

use super::burial::{Burial, Dead, UnderWay};
use crate::log::{Log, LogPosition};

/// What a batch leaves to be done when the queue's lock is free again. Somebody has to:
/// [`VirtualHost::carry_out`](crate::vhost::VirtualHost::carry_out) does, and a debug build panics where it was forgotten.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that died.
    pub dead: Vec<Dead>,
    /// Indices of publications that the queue refused (`x-overflow`), or that the log did.
    pub rejected: Vec<u32>,
    /// The log took nothing: why.
    pub log_refused: Option<Arc<str>>,
    /// The last consumer of an auto-delete queue is gone.
    pub delete_queue: bool,
    /// Something here may expire: the sweep has to know the queue.
    pub watch_expiry: bool,
    /// Consumers have room and messages wait: the queue has to serve on.
    pub unserved: bool,
    /// Where the log has to come before what was rejected, or deleted, is gone for good.
    pub position: LogPosition,
    /// What each rejected message is given on its way, if somebody waits for it.
    pub(super) under_way: Option<UnderWay>,
}

impl Effects {
    /// Somebody will ask for what is rejected from now on, with [`take_burial`](Self::take_burial).
    pub fn attend(&mut self) {
        self.under_way.get_or_insert_default();
    }

    /// To be asked when everything has been carried out: what was rejected since [`attend`](Self::attend) and is still on
    /// its way to its next queue. `None` if nothing is: then `position` speaks for all of it.
    pub fn take_burial(&mut self, log: &dyn Log) -> Option<Burial> {
        let burial = self.under_way.take()?.burial();
        // Some may have arrived by another thread.
        let Some(arrived_at) = burial.position(log) else { return Some(burial) };
        self.position = self.position.max(arrived_at);
        None
    }

    /// Whether there is nothing to do.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rejected.is_empty() && self.log_refused.is_none() && self.is_carried_out()
    }

    /// Whether nothing is left that `VirtualHost::carry_out` does; what was rejected is the caller's business.
    const fn is_carried_out(&self) -> bool {
        self.dead.is_empty() && !self.delete_queue && !self.watch_expiry && !self.unserved
    }

    /// Forgets what is left to be done: nothing has happened after all, or the virtual host is gone.
    pub fn abandon(&mut self) {
        self.dead.clear();
        (self.delete_queue, self.watch_expiry, self.unserved) = (false, false, false);
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        // A message that died would be lost, or one never expire. (A panic on the way here is reason enough.)
        debug_assert!(
            self.is_carried_out() || std::thread::panicking(),
            "nobody has carried this out: {self:?}"
        );
    }
}
