//! A log for tests that is as slow as the test says. It keeps nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use broker_core::log::budget::Budget;
use broker_core::log::{DurableWatcher, Log, LogPosition};
use broker_core::queue::{Queue, QueueId};
use broker_core::storage::{Batch, Health, MessageBlock, StorageError};

/// A log whose mark moves when it is told.
#[derive(Debug, Default)]
pub(crate) struct SlowLog {
    end: AtomicU64,
    mark: AtomicU64,
    is_full: AtomicBool,
    budget: Arc<Budget>,
}

impl SlowLog {
    /// One that leaves no memory for messages that it has too: a consumer keeps no more of them than their places. Who
    /// wants to read them waits for ever.
    pub(crate) fn without_memory() -> Self {
        Self { budget: Arc::new(Budget::new(0)), ..Self::default() }
    }

    /// Has it say that its disk is full, or has room again.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }

    /// Everything that was appended becomes durable.
    pub(crate) fn catch_up(&self) {
        self.mark.store(self.end.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Log for SlowLog {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, _: &Batch<'_>) -> Result<LogPosition, StorageError> {
        Ok(LogPosition(self.end.fetch_add(1, Ordering::SeqCst) + 1))
    }

    fn durable_up_to(&self) -> LogPosition {
        LogPosition(self.mark.load(Ordering::SeqCst))
    }

    fn appended_up_to(&self) -> LogPosition {
        LogPosition(self.end.load(Ordering::SeqCst))
    }

    fn health(&self) -> Health {
        match self.is_full.load(Ordering::SeqCst) {
            true => Health::DiskFull,
            false => Health::Healthy,
        }
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
