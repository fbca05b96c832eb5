//! What calls into queues leave to be done where no queue is locked, and what time brings.

use std::sync::Arc;

use super::VirtualHost;
use crate::queue::{Effects, Queue};

impl VirtualHost {
    /// Carries out what a batch left to do: dead letters on their way, queues that go with their last
    /// consumer, queues that the sweep has to know. Leaves `effects` as new, but for `rejected`, `log_refused` and
    /// `position`.
    pub fn carry_out(&self, queue: &Arc<Queue>, effects: &mut Effects, now: u64) {
        if std::mem::take(&mut effects.unserved) {
            queue.serve_on(now, effects);
        }
        if std::mem::take(&mut effects.watch_expiry) {
            self.watch(queue);
        }
        if !effects.dead.is_empty() {
            let dead = std::mem::take(&mut effects.dead);
            effects.position = effects.position.max(self.dead_letter(queue, dead, now));
        }
        if effects.delete_queue {
            effects.delete_queue = false;
            // Somebody may have subscribed in between: then it stays.
            if let Ok(removed) = self.remove_queue(queue, true, false) {
                effects.position = effects.position.max(removed.position);
            }
        }
    }

    /// The sweep has to know the queue.
    pub(crate) fn watch(&self, queue: &Arc<Queue>) {
        self.watched.lock().push(Arc::clone(queue));
    }

    /// Drops what has expired since the last sweep, and queues that nobody used for too long. To be called
    /// every few milliseconds.
    pub fn sweep(&self, now: u64) {
        // Taken out meanwhile: one queue that is busy does not hold up those who add another.
        let mut watched = std::mem::take(&mut *self.watched.lock());
        watched.retain(|queue| queue.stays_watched());
        // Most have nothing to do now, and there may be many.
        let due: Vec<_> = watched.iter().filter(|queue| queue.is_due(now)).cloned().collect();
        self.watched.lock().append(&mut watched);
        for queue in due {
            let mut effects = Effects::default();
            while !queue.sweep(now, &mut effects) {
                self.carry_out(&queue, &mut effects, now);
            }
            self.carry_out(&queue, &mut effects, now);
            if queue.is_abandoned(now) {
                self.remove_queue(&queue, true, false).ok();
            }
        }
    }
}
