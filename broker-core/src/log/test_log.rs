//! A log for unit tests: it has no threads, and is full when the test says so.
//!
//! By itself it keeps nothing: batches have the positions 1, 2 and so on, and none is ever durable. Over a store it
//! keeps what it is given as soon as the test commits it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::budget::Budget;
use super::{DurableWatcher, Log, LogPosition};
use crate::queue::{Queue, QueueId};
use crate::storage::{Batch, Engine, Health, MessageBlock, StorageError};

#[derive(Debug, Default)]
pub(crate) struct TestLog {
    /// It takes nothing: the disk is full.
    pub(crate) full: AtomicBool,
    pub(crate) store: Option<Engine>,
    end: AtomicU64,
    budget: Arc<Budget>,
}

impl TestLog {
    pub(crate) fn over(store: Engine) -> Self {
        Self { store: Some(store), ..Self::default() }
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

impl Log for TestLog {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, batch: &Batch<'_>) -> Result<LogPosition, StorageError> {
        match &self.store {
            _ if self.is_full() => Err(StorageError::DiskFull),
            Some(store) => store.append(batch),
            None => Ok(LogPosition(self.end.fetch_add(1, Ordering::Relaxed) + 1)),
        }
    }

    fn durable_up_to(&self) -> LogPosition {
        self.store.as_ref().map_or(LogPosition::START, Engine::durable)
    }

    fn appended_up_to(&self) -> LogPosition {
        let own = || LogPosition(self.end.load(Ordering::Relaxed));
        self.store.as_ref().map_or_else(own, Engine::appended)
    }

    fn health(&self) -> Health {
        if self.is_full() { Health::DiskFull } else { Health::Healthy }
    }

    fn watch(&self, _: Arc<dyn DurableWatcher>) {}

    fn read(
        &self,
        queue: QueueId,
        from: u64,
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError> {
        self.store.as_ref().map_or(Ok(None), |store| store.read(queue.0, from, octets_max))
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
