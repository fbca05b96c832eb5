//! The embedded store as a log, and the thread that reads backlogs ahead.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::budget::Budget;
use super::{DurableWatcher, Log, LogPosition};
use crate::queue::{Loaded, Queue, QueueId};
use crate::storage::{Batch, Health, MessageBlock, StorageError, Store};

/// How soon a backlog that could not be read is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// Gives the broker's time in milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The store of this node.
pub struct StoreLog {
    store: Store,
    budget: Arc<Budget>,
    started_at_unix_ms: u64,
    /// `None` once it has been closed.
    requests: Mutex<Option<Sender<Weak<Queue>>>>,
    reader: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for StoreLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreLog").field("store", &self.store).finish_non_exhaustive()
    }
}

impl StoreLog {
    /// Puts a store that has been opened behind the boundary. `started_at_unix_ms` is the moment, in milliseconds since
    /// 1970, from which `clock` counts; `budget` bounds the messages that stay in memory besides.
    ///
    /// # Errors
    /// When the thread that reads ahead cannot be started.
    pub fn new(
        store: Store,
        budget: Arc<Budget>,
        started_at_unix_ms: u64,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let builder = std::thread::Builder::new().name("broker-read".to_owned());
        let reader = builder.spawn(move || serve(&receiver, &clock))?;
        let (requests, reader) = (Mutex::new(Some(sender)), Mutex::new(Some(reader)));
        Ok(Self { store, budget, started_at_unix_ms, requests, reader })
    }

    /// The store, for figures and health.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Makes everything appended durable and stops. What is appended afterwards is not written any more.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn close(&self) -> Result<(), StorageError> {
        drop(self.requests.lock().take());
        if let Some(reader) = self.reader.lock().take() {
            // One that panicked has held nothing that anybody needs.
            drop(reader.join());
        }
        self.store.finish()
    }
}

/// Serves one queue after the other; ends when nobody can ask any more.
#[expect(clippy::disallowed_methods, reason = "the disk is tried again in real time")]
fn serve(requests: &Receiver<Weak<Queue>>, clock: &Clock) {
    let mut failed: Vec<Weak<Queue>> = Vec::new();
    let mut again_at = Instant::now();
    loop {
        let request = match failed.is_empty() {
            true => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => requests.recv_timeout(again_at.saturating_duration_since(Instant::now())),
        };
        let mut queues = match request {
            Ok(queue) => vec![queue],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // However busy the others are.
        if !failed.is_empty() && Instant::now() >= again_at {
            queues.append(&mut failed);
        }
        for waiting in queues {
            if let Some(queue) = waiting.upgrade()
                && queue.read_ahead(clock()) == Loaded::Failed
            {
                if failed.is_empty() {
                    again_at = Instant::now() + TRY_AGAIN;
                }
                failed.push(waiting);
            }
        }
    }
}

impl Log for StoreLog {
    fn keeps(&self) -> bool {
        true
    }

    fn append(&self, batch: &Batch<'_>) -> Result<LogPosition, StorageError> {
        self.store.append(batch)
    }

    fn durable_up_to(&self) -> LogPosition {
        self.store.durable()
    }

    fn appended_up_to(&self) -> LogPosition {
        self.store.appended()
    }

    fn health(&self) -> Health {
        self.store.health()
    }

    fn watch(&self, watcher: Arc<dyn DurableWatcher>) {
        self.store.register(Box::new(move || watcher.durable_moved()));
    }

    fn read(
        &self,
        queue: QueueId,
        from: u64,
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError> {
        self.store.read(queue.0, from, octets_max)
    }

    fn give_up(&self, queue: QueueId, seq: u64, octets: &[u8], why: &str) {
        self.store.give_up_message(queue.0, seq, octets, why);
    }

    fn load_soon(&self, queue: Weak<Queue>) {
        if let Some(requests) = &*self.requests.lock() {
            // Fails only when the reader has panicked; then backlogs stay where they are.
            requests.send(queue).ok();
        }
    }

    fn is_pressed(&self) -> bool {
        self.store.is_pressed()
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn started_at_unix_ms(&self) -> u64 {
        self.started_at_unix_ms
    }
}
