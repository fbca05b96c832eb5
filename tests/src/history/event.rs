//! What a client can write down, and all of it in order.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Identifies a message: `producer:seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MessageId {
    /// Who has published it, over one channel at a time.
    pub producer: u32,
    /// Ascends with every publish of the producer, through all lives.
    pub seq: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.producer, self.seq)
    }
}

impl From<MessageId> for String {
    fn from(id: MessageId) -> Self {
        id.to_string()
    }
}

impl FromStr for MessageId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(producer, seq)| {
            Some(Self { producer: producer.parse().ok()?, seq: seq.parse().ok()? })
        });
        parsed.ok_or_else(|| format!("{text:?} is not producer:seq"))
    }
}

impl TryFrom<String> for MessageId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Identifies a transaction among all of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub u64);

/// One thing that a client did or saw. What it does it writes down before, what it sees after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The broker's process was started.
    Started,
    /// It was killed.
    Killed,
    /// It was asked to stop, and has.
    Stopped,
    /// A publish is about to be sent.
    Published {
        /// The message.
        id: MessageId,
        /// The queues that it is routed to.
        queues: Vec<String>,
        /// Whether it has to survive the broker.
        persistent: bool,
        /// Checksum of the body, as [`Body`](super::Body) gives it.
        crc: u32,
        /// The transaction that it is part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tx: Option<TransactionId>,
    },
    /// The broker has answered for a publish.
    Confirmed {
        /// The message.
        id: MessageId,
    },
    /// The broker does not answer for a publish (`basic.nack`).
    Refused {
        /// The message.
        id: MessageId,
    },
    /// A message has come, whole.
    Delivered {
        /// The message that its body says it is.
        id: MessageId,
        /// Where it came from.
        queue: String,
        /// Whether the broker said that it may have come before.
        redelivered: bool,
        /// Checksum of the body.
        crc: u32,
    },
    /// A message has come whose body is not whole.
    Garbled {
        /// Where it came from.
        queue: String,
        /// The first octets, for people.
        start: String,
    },
    /// An ack is about to be sent; after a delivery that needs none, it counts as sent with it.
    AckSent {
        /// The message.
        id: MessageId,
        /// Its queue.
        queue: String,
        /// The transaction that the ack is part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tx: Option<TransactionId>,
    },
    /// The broker has said that it has done the ack (a STOMP receipt).
    Acked {
        /// The message.
        id: MessageId,
        /// Its queue.
        queue: String,
    },
    /// A delivery is about to be given back to its queue.
    Requeued {
        /// The message.
        id: MessageId,
        /// Its queue.
        queue: String,
    },
    /// The broker has answered something that this client had sent after everything that it has written down before:
    /// it has taken all of that from the socket.
    Answered,
    /// A transaction has begun.
    Begun {
        /// Which.
        tx: TransactionId,
    },
    /// Its commit is about to be sent.
    CommitSent {
        /// Which.
        tx: TransactionId,
    },
    /// The broker says that it is done.
    Committed {
        /// Which.
        tx: TransactionId,
    },
    /// It is about to be given up.
    RolledBack {
        /// Which.
        tx: TransactionId,
    },
    /// Nothing is left in a queue: all that it held has been delivered and acked, with events of their own.
    Drained {
        /// The queue.
        queue: String,
    },
}

/// An [`Event`], by whom and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Ascends through all clients in the order of writing down.
    pub order: u64,
    /// Microseconds since the history began.
    pub at_us: u64,
    /// The life of the broker that the client was connected to.
    pub life: u32,
    /// The client's number in [`History::clients`].
    #[serde(skip)]
    pub client: usize,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// All events of all clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The clients' names.
    pub clients: Vec<String>,
    /// Sorted by (life, order).
    pub(super) entries: Vec<Entry>,
}

impl History {
    /// Puts events in order.
    #[must_use]
    pub fn new(clients: Vec<String>, mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| (entry.life, entry.order));
        Self { clients, entries }
    }

    /// The events in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An event as a line of the client's file, with the client's name before it.
    pub(super) fn line(&self, index: usize) -> String {
        let Some(entry) = self.entries.get(index) else { return String::new() };
        let client = self.clients.get(entry.client).map_or("?", String::as_str);
        // An entry is numbers and text: that can always be written.
        let json = serde_json::to_string(entry).unwrap_or_default();
        format!("{client}: {json}")
    }
}
