//! Where ids of queues come from.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::definitions::Changes;
use crate::log::{Log, LogPosition};
use crate::queue::QueueId;
use crate::storage::StorageError;

/// Ids that are set aside in the log in one step.
const QUEUE_IDS_STEP: u64 = 1024;

/// Where ids of queues come from. None is ever used twice, also not that of a queue deleted before a restart: the log
/// knows a number above all that durable queues have been given.
#[derive(Debug, Default)]
pub(crate) struct QueueIds {
    next: AtomicU64,
    /// Durable queues may have ids below.
    set_aside: Mutex<u64>,
}

impl QueueIds {
    /// After a restart: ids below have been used.
    pub(crate) fn begin_at(&self, first: u64) {
        // Relaxed: only uniqueness matters.
        self.next.fetch_max(first, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> QueueId {
        QueueId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Appends changes that give a durable queue this id, and sets ids aside first when it is beyond those that are.
    /// Gives where that is durable.
    pub(super) fn set_aside_and_append(
        &self,
        id: QueueId,
        changes: &mut Changes,
        log: &dyn Log,
    ) -> Result<LogPosition, StorageError> {
        let mut set_aside = self.set_aside.lock();
        let below = if id.0 < *set_aside { *set_aside } else { id.0 + QUEUE_IDS_STEP };
        if below > *set_aside {
            changes.queue_ids(below);
        }
        let position = changes.append(log)?;
        *set_aside = below;
        Ok(position)
    }
}
