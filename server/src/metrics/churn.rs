//! Queues created and deleted since the start, in virtual hosts that are there and in those that are not any more.
//!
//! A virtual host counts for itself. Its counts would leave the sums when it is deleted, and counters must not
//! fall; so each virtual host is kept until a scrape has found it gone and added what it had.

use std::sync::Arc;

use broker_core::VirtualHost;
use parking_lot::Mutex;

/// Remembers virtual hosts between scrapes.
#[derive(Debug, Default)]
pub(super) struct QueueChurn(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    present: Vec<Arc<VirtualHost>>,
    /// Of those that are gone.
    gone: (u64, u64),
}

impl QueueChurn {
    /// Created and deleted, ever, now that there are the virtual hosts `present`.
    pub(super) fn read(&self, present: &[Arc<VirtualHost>]) -> (u64, u64) {
        let add = |sum: (u64, u64), vhost: &Arc<VirtualHost>| {
            let (created, deleted) = vhost.queue_churn();
            (sum.0 + created, sum.1 + deleted)
        };
        let mut known = self.0.lock();
        let is_gone =
            |vhost: &&Arc<VirtualHost>| !present.iter().any(|there| Arc::ptr_eq(there, vhost));
        known.gone = known.present.iter().filter(is_gone).fold(known.gone, add);
        known.present = present.to_vec();
        present.iter().fold(known.gone, add)
    }
}
