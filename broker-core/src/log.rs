//! The boundary between queues and the log that makes them durable.
//!
//! Batches go in, one durable mark comes out. A queue appends the records of a whole batch under its own lock, so
//! that the order in the log is the order in the queue, and never learns which log it has. A publisher's
//! confirm waits until the [mark](Log::durable_up_to) has passed the position that its batch was given. What a queue
//! does not keep in memory it reads back through the same boundary. The calls are dynamic, once a batch: that
//! costs nothing that can be measured.
//!
//! [`StoreLog`] is the embedded store. [`MemoryLog`] keeps nothing, and nothing is ever waited for.

pub mod budget;
pub(crate) mod content;
pub(crate) mod records;
mod store_log;
#[cfg(test)]
pub(crate) mod test_log;

use std::fmt;
use std::sync::{Arc, Weak};

use crate::queue::{Queue, QueueId};
use crate::storage::{Batch, Health, MessageBlock, StorageError};
use budget::Budget;

pub use crate::storage::LogPosition;
pub use store_log::{Clock, StoreLog};

/// Something that wants to hear when the durable mark has moved, or the log's health has changed. Called from the
/// log's own threads, once a group commit; carries no data: look at the [`Log`].
pub trait DurableWatcher: Send + Sync {
    /// The mark has moved, or the health has changed.
    fn durable_moved(&self);
}

/// A log of messages, settlements and definitions.
pub trait Log: Send + Sync + fmt::Debug {
    /// Whether anything survives here. Where it does not, nothing needs to be appended.
    fn keeps(&self) -> bool;

    /// Appends a batch as one contiguous run, all of it or nothing, and says where it ends. Does not wait for
    /// the disk.
    ///
    /// # Errors
    /// [`StorageError`]: nothing of the batch was appended.
    fn append(&self, batch: &Batch<'_>) -> Result<LogPosition, StorageError>;

    /// Everything up to here is on stable storage.
    fn durable_up_to(&self) -> LogPosition;

    /// Everything appended so far ends here: when the mark has come to it, all of it is on stable storage.
    fn appended_up_to(&self) -> LogPosition;

    /// Whether messages are taken at this moment, and whether the mark moves on. A poisoned log never does again.
    fn health(&self) -> Health;

    /// Tells `watcher` from now on whenever the mark moves.
    fn watch(&self, watcher: Arc<dyn DurableWatcher>);

    /// Reads messages of a queue from number `from` on: one at least, and beyond it at most about `octets_max`
    /// octets; `None` when there are no more. Waits for the disk.
    ///
    /// # Errors
    /// When the operating system cannot read; nothing is given up for that before it has failed for half a minute.
    fn read(
        &self,
        queue: QueueId,
        from: u64,
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError>;

    /// Gives up a message that was read and makes no sense to who read it: reports it as damage with its `octets`,
    /// and settles it.
    fn give_up(&self, queue: QueueId, seq: u64, octets: &[u8], why: &str);

    /// Has [`Queue::read_ahead`] called soon, on a thread that may wait for the disk.
    fn load_soon(&self, queue: Weak<Queue>);

    /// Whether publishers do well to slow down until the disk has caught up.
    fn is_pressed(&self) -> bool;

    /// The memory for messages that the log holds too.
    fn budget(&self) -> &Arc<Budget>;

    /// Milliseconds from 1970 to the moment from which the broker counts its time.
    fn started_at_unix_ms(&self) -> u64;
}

/// A log that keeps nothing and so has nothing to wait for.
#[derive(Debug, Default)]
pub struct MemoryLog {
    budget: Arc<Budget>,
}

impl Log for MemoryLog {
    fn keeps(&self) -> bool {
        false
    }

    fn append(&self, _: &Batch<'_>) -> Result<LogPosition, StorageError> {
        Ok(LogPosition::START)
    }

    fn durable_up_to(&self) -> LogPosition {
        LogPosition::START
    }

    fn appended_up_to(&self) -> LogPosition {
        LogPosition::START
    }

    fn health(&self) -> Health {
        Health::Healthy
    }

    fn watch(&self, _: Arc<dyn DurableWatcher>) {}

    fn read(&self, _: QueueId, _: u64, _: usize) -> Result<Option<MessageBlock>, StorageError> {
        Ok(None)
    }

    fn give_up(&self, _: QueueId, _: u64, _: &[u8], _: &str) {}

    fn load_soon(&self, _: Weak<Queue>) {}

    fn is_pressed(&self) -> bool {
        false
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn started_at_unix_ms(&self) -> u64 {
        0
    }
}
