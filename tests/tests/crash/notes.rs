//! What all clients have in common: names, choices, and a journal in which they note everything at the right moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Duration, sleep};
use warren_tests::history::{Body, Event, Journal, MessageId, TransactionId, read_body};

use super::broker::Addresses;

/// Messages in all queues at which producers pause, so that what is left at the end is drained soon.
const BACKLOG_MAX: i64 = 1500;

/// Why a client's connection is of no use any more.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A life of the broker, for clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) number: u32,
    pub(crate) at: Addresses,
}

/// What the clients of a run share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Messages in all queues, about.
    pub(crate) backlog: AtomicI64,
    /// The last life that has been killed, or is about to be.
    pub(crate) doomed: AtomicU32,
    pub(crate) tally: Tally,
}

/// How often there was what a history is worth nothing without.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    confirmed: AtomicUsize,
    redelivered: AtomicUsize,
    /// Acks with a receipt, and so kept.
    acked: AtomicUsize,
    committed: AtomicUsize,
    rolled_back: AtomicUsize,
}

impl Tally {
    /// All of it, always in the same order.
    pub(crate) fn counts(&self) -> [usize; 5] {
        [&self.confirmed, &self.redelivered, &self.acked, &self.committed, &self.rolled_back]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Shared {
    /// Whether a connection to this life may fail.
    pub(crate) fn is_doomed(&self, life: u32) -> bool {
        self.doomed.load(Ordering::SeqCst) >= life
    }
}

/// A client's name, choices and journal.
#[derive(Debug)]
pub(crate) struct Notes {
    pub(crate) name: String,
    pub(crate) rng: StdRng,
    pub(crate) shared: Arc<Shared>,
    journal: Journal,
    life: u32,
    producer: u32,
    seq: u64,
    transactions: u64,
}

impl Notes {
    pub(crate) fn new(
        name: String,
        producer: u32,
        rng: StdRng,
        journal: Journal,
        shared: Arc<Shared>,
    ) -> Self {
        Self { name, rng, shared, journal, life: 0, producer, seq: 0, transactions: 0 }
    }

    /// What follows belongs to this life.
    pub(crate) const fn begin(&mut self, life: u32) {
        self.life = life;
    }

    pub(crate) fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn note(&mut self, event: Event) {
        self.journal.note(self.life, event);
    }

    /// Waits while the consumers are behind; not for ever when they have no broker.
    pub(crate) async fn pause(&self) {
        while self.shared.backlog.load(Ordering::Relaxed) > BACKLOG_MAX
            && !self.shared.is_doomed(self.life)
        {
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// The next message, to be sent now.
    pub(crate) fn publish(
        &mut self,
        queues: &[&str],
        persistent: bool,
        tx: Option<TransactionId>,
    ) -> (MessageId, Body) {
        self.seq += 1;
        let id = MessageId { producer: self.producer, seq: self.seq };
        let padding = match self.rng.random_range(0..50) {
            // More than a frame of either protocol.
            0 => self.rng.random_range(0..200_000),
            _ => self.rng.random_range(0..2_000),
        };
        let body = Body::new(id, padding);
        let names = queues.iter().map(|queue| (*queue).to_owned()).collect();
        self.note(Event::Published { id, queues: names, persistent, crc: body.crc, tx });
        let copies = i64::try_from(queues.len()).unwrap();
        self.shared.backlog.fetch_add(copies, Ordering::Relaxed);
        (id, body)
    }

    pub(crate) fn confirmed(&mut self, id: MessageId) {
        self.note(Event::Confirmed { id });
        count(&self.shared.tally.confirmed);
    }

    pub(crate) fn refused(&mut self, id: MessageId) {
        self.note(Event::Refused { id });
    }

    /// A body has come; `None` when it is not whole.
    pub(crate) fn delivered(
        &mut self,
        queue: &str,
        body: &[u8],
        redelivered: bool,
    ) -> Option<MessageId> {
        let queue = queue.to_owned();
        let read = read_body(body);
        if redelivered && read.is_some() {
            count(&self.shared.tally.redelivered);
        }
        self.note(match read {
            Some((id, crc)) => Event::Delivered { id, queue, redelivered, crc },
            None => {
                let start = body.get(..64).unwrap_or(body).escape_ascii().to_string();
                Event::Garbled { queue, start }
            }
        });
        read.map(|(id, _)| id)
    }

    /// An ack is to be sent now.
    pub(crate) fn ack(&mut self, queue: &str, id: MessageId, tx: Option<TransactionId>) {
        self.note(Event::AckSent { id, queue: queue.to_owned(), tx });
        self.shared.backlog.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn acked(&mut self, queue: &str, id: MessageId) {
        self.note(Event::Acked { id, queue: queue.to_owned() });
        count(&self.shared.tally.acked);
    }

    /// A delivery is to be given back now.
    pub(crate) fn requeue(&mut self, queue: &str, id: MessageId) {
        self.note(Event::Requeued { id, queue: queue.to_owned() });
    }

    pub(crate) fn answered(&mut self) {
        self.note(Event::Answered);
    }

    pub(crate) fn drained(&mut self, queue: &str) {
        self.note(Event::Drained { queue: queue.to_owned() });
    }

    pub(crate) fn began(&mut self) -> TransactionId {
        self.transactions += 1;
        let tx = TransactionId((u64::from(self.producer) << 32) | self.transactions);
        self.note(Event::Begun { tx });
        tx
    }

    /// A commit is to be sent now.
    pub(crate) fn commit(&mut self, tx: TransactionId) {
        self.note(Event::CommitSent { tx });
    }

    pub(crate) fn committed(&mut self, tx: TransactionId) {
        self.note(Event::Committed { tx });
        count(&self.shared.tally.committed);
    }

    /// A rollback is to be sent now.
    pub(crate) fn roll_back(&mut self, tx: TransactionId) {
        self.note(Event::RolledBack { tx });
        count(&self.shared.tally.rolled_back);
    }

    pub(crate) fn broker(&mut self, life: u32, event: Event) {
        self.begin(life);
        self.note(event);
    }
}
