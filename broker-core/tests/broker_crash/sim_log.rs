//! The log of a broker without threads: an engine whose every step the test takes itself.
//!
//! What the broker appends goes through the same records, and what it reads through the same blocks, as in
//! [`StoreLog`](broker_core::log::StoreLog); only when something is written, read ahead or given back is decided by the
//! test. A log can be told to be wrong in one of a few ways, to show that the test would notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use broker_core::log::budget::Budget;
use broker_core::log::{DurableWatcher, Log, LogPosition};
use broker_core::queue::{Loaded, Queue, QueueId};
use broker_core::storage::{Batch, CommitStep, Engine, Health, MessageBlock, StorageError};
use parking_lot::Mutex;

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// Calls durable what was only appended.
    ConfirmsEarly,
    /// Forgets every tenth batch's settlements.
    DropsSettlements,
    /// Makes a batch durable in two steps.
    SplitsBatches,
    /// Forgets what was handed out.
    ForgetsDelivered,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SimLog {
    pub(crate) engine: Engine,
    budget: Arc<Budget>,
    epoch: u64,
    mutation: Mutation,
    requests: Mutex<Vec<Weak<Queue>>>,
    batches: AtomicU64,
    appended: AtomicU64,
    refused: AtomicU64,
}

impl SimLog {
    /// `epoch` is the moment from which the broker counts its time; `budget` in octets.
    pub(crate) fn new(engine: Engine, budget: u64, epoch: u64, mutation: Mutation) -> Self {
        let end = engine.append(&Batch::new()).map_or(0, |end| end.0);
        Self {
            engine,
            budget: Arc::new(Budget::new(budget)),
            epoch,
            mutation,
            requests: Mutex::default(),
            batches: AtomicU64::new(0),
            appended: AtomicU64::new(end),
            refused: AtomicU64::new(0),
        }
    }

    /// The end of everything that the broker has appended.
    pub(crate) fn appended(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// The end of the log, whatever is in it.
    pub(crate) fn end(&self) -> u64 {
        // An empty batch is nothing and says where it ends.
        self.engine.append(&Batch::new()).map_or(u64::MAX, |end| end.0)
    }

    /// How many batches were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Serves the oldest request for a load; whether there was one.
    pub(crate) fn load_one(&self, now: u64) -> bool {
        let waiting = {
            let mut requests = self.requests.lock();
            if requests.is_empty() {
                return false;
            }
            requests.remove(0)
        };
        if let Some(queue) = waiting.upgrade()
            && queue.read_ahead(now) == Loaded::Failed
        {
            // Tried again later, as the thread that reads ahead does.
            self.requests.lock().push(waiting);
        }
        true
    }

    /// Whether somebody waits for a load.
    pub(crate) fn is_asked(&self) -> bool {
        !self.requests.lock().is_empty()
    }

    /// Commits until nothing is pending.
    pub(crate) fn commit_all(&self) -> Result<(), StorageError> {
        while self.engine.commit_step()? == CommitStep::Written {}
        Ok(())
    }

    fn append_wrongly(&self, batch: &Batch<'_>, number: u64) -> Result<LogPosition, StorageError> {
        match self.mutation {
            Mutation::DropsSettlements if number.is_multiple_of(10) => {
                self.engine.append(&batch.without_acks())
            }
            Mutation::SplitsBatches => {
                let [first, second] = batch.halves();
                self.engine.append(&first)?;
                // So that the halves are not written together by chance.
                self.engine.commit_step()?;
                self.engine.append(&second)
            }
            Mutation::ForgetsDelivered => self.engine.append(&batch.without_delivered()),
            _ => self.engine.append(batch),
        }
    }
}

impl Log for SimLog {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, batch: &Batch<'_>) -> Result<LogPosition, StorageError> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        let appended = self.append_wrongly(batch, number);
        match &appended {
            Ok(position) => self.appended.fetch_max(position.0, Ordering::Relaxed),
            Err(_) => self.refused.fetch_add(1, Ordering::Relaxed),
        };
        appended
    }

    fn durable_up_to(&self) -> LogPosition {
        match self.mutation {
            Mutation::ConfirmsEarly => LogPosition(self.appended()),
            _ => self.engine.durable(),
        }
    }

    fn appended_up_to(&self) -> LogPosition {
        self.engine.appended()
    }

    fn health(&self) -> Health {
        self.engine.health()
    }

    fn watch(&self, watcher: Arc<dyn DurableWatcher>) {
        self.engine.register(Box::new(move || watcher.durable_moved()));
    }

    fn read(
        &self,
        queue: QueueId,
        from: u64,
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError> {
        self.engine.read(queue.0, from, octets_max)
    }

    fn give_up(&self, queue: QueueId, seq: u64, octets: &[u8], why: &str) {
        self.engine.give_up_message(queue.0, seq, octets, why);
    }

    fn load_soon(&self, queue: Weak<Queue>) {
        self.requests.lock().push(queue);
    }

    fn is_pressed(&self) -> bool {
        self.engine.is_pressed()
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn started_at_unix_ms(&self) -> u64 {
        self.epoch
    }
}
