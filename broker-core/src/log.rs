//! The boundary between queues and the log that makes them durable.
//!
//! Batches go in, one durable mark comes out. A queue hands over the records of a whole batch under its
//! own lock, so that the order in the log is the order in the queue, and never learns which log it has.
//! A publisher's confirm waits until the [mark](Log::durable_up_to) has passed the position that its batch was
//! given. The call is dynamic, once a batch: that costs nothing that can be measured.
//!
//! [`MemoryLog`] keeps nothing: whatever it is given counts as durable at once.

use std::fmt;
use std::sync::Arc;

use crate::message::Publication;
use crate::queue::QueueId;

/// How far a log has come: the end of a batch. Later batches have higher positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition(pub u64);

/// One record of a batch.
#[derive(Debug)]
pub enum Record<'a> {
    /// A persistent message entered a durable queue.
    Enqueue {
        /// The queue.
        queue: QueueId,
        /// The message's place in the queue, dense and rising.
        seq: u64,
        /// The message.
        publication: &'a Publication<'a>,
    },
    /// A logged message left its queue: acknowledged, dropped, purged or dead-lettered.
    Settle {
        /// The queue.
        queue: QueueId,
        /// The message's place in it.
        seq: u64,
    },
}

/// Something that wants to hear when the durable mark has moved. Called from the log's own thread, once a
/// group commit; carries no data: look at [`Log::durable_up_to`].
pub trait DurableWatcher: Send + Sync {
    /// The mark has moved.
    fn durable_moved(&self);
}

/// A log of messages and settlements.
pub trait Log: Send + Sync + fmt::Debug {
    /// Appends a batch as one contiguous run and says where it ends. Does not wait for the disk.
    fn append(&self, records: &mut dyn Iterator<Item = Record<'_>>) -> LogPosition;

    /// Everything up to here is on stable storage.
    fn durable_up_to(&self) -> LogPosition;

    /// Tells `watcher` from now on whenever the mark moves.
    fn watch(&self, watcher: Arc<dyn DurableWatcher>);
}

/// A log that keeps nothing and so has nothing to wait for.
#[derive(Debug, Default)]
pub struct MemoryLog;

impl Log for MemoryLog {
    fn append(&self, _: &mut dyn Iterator<Item = Record<'_>>) -> LogPosition {
        LogPosition(0)
    }

    fn durable_up_to(&self) -> LogPosition {
        LogPosition(u64::MAX)
    }

    fn watch(&self, _: Arc<dyn DurableWatcher>) {}
}
