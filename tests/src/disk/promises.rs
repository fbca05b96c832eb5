//! What clients were promised, and what is there.

use std::collections::{BTreeMap, BTreeSet};

use proto_amqp::Properties;
use proto_amqp::control::protocol::{AMQPClass, basic, confirm, connection, queue, tx};
use tokio::time::{Duration, Instant};

use crate::DEADLINE;
use crate::amqp::{Incoming, Message, Peer, publish};
use crate::history::{Body, MessageId, read_body};

/// Declares a durable queue.
pub async fn declare_durable(peer: &mut Peer, queue: &str) {
    let declare =
        queue::Declare { queue: queue.into(), durable: true, ..queue::Declare::default() };
    peer.call(1, declare).await;
}

/// Publishes persistent messages to one queue with confirms, and keeps what the broker said to them.
#[derive(Debug)]
pub struct Publisher {
    peer: Peer,
    producer: u32,
    queue: String,
    /// Published so far: the number of the next message, and the delivery tag of the last one.
    published: u64,
    unanswered: BTreeMap<u64, MessageId>,
    confirmed: BTreeSet<MessageId>,
    refused: usize,
    /// When the broker said that publishers are held; `None` while they are not.
    blocked: Option<String>,
    has_ended: bool,
}

impl Publisher {
    /// A publisher to a queue that is there. Its messages carry the number `producer`.
    pub async fn new(mut peer: Peer, producer: u32, queue: &str) -> Self {
        peer.call(1, confirm::Select::default()).await;
        Self {
            peer,
            producer,
            queue: queue.to_owned(),
            published: 0,
            unanswered: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            refused: 0,
            blocked: None,
            has_ended: false,
        }
    }

    /// Publishes `count` messages of about `len` octets and waits for nothing.
    pub async fn publish(&mut self, count: u64, len: usize) {
        for _ in 0..count {
            let id = MessageId { producer: self.producer, seq: self.published };
            self.published += 1;
            let properties = Properties { delivery_mode: Some(2), ..Properties::default() };
            let body = Body::new(id, len).octets;
            self.peer.publish_with(1, publish("", &self.queue), &properties, &body).await;
            self.unanswered.insert(self.published, id);
        }
    }

    /// Takes what the broker says for `time`.
    pub async fn listen(&mut self, time: Duration) {
        self.has_ended |= self.peer.read_for(time).await;
        while self.peer.has_arrived(0) {
            match self.peer.next(0).await {
                Incoming::Method(AMQPClass::Connection(connection::AMQPMethod::Blocked(
                    blocked,
                ))) => {
                    self.blocked = Some(blocked.reason.to_string());
                }
                Incoming::Method(AMQPClass::Connection(connection::AMQPMethod::Unblocked(_))) => {
                    self.blocked = None;
                }
                other => self.peer.fail(&format!("wanted nothing but blocked: {other:?}")),
            }
        }
        while self.peer.has_arrived(1) {
            match self.peer.next(1).await {
                Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                    let ids = self.answered(ack.delivery_tag, ack.multiple);
                    self.confirmed.extend(ids);
                }
                Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::Nack(nack))) => {
                    self.refused += self.answered(nack.delivery_tag, nack.multiple).len();
                }
                other => self.peer.fail(&format!("wanted a confirm, got {other:?}")),
            }
        }
    }

    fn answered(&mut self, tag: u64, multiple: bool) -> Vec<MessageId> {
        let later = self.unanswered.split_off(&(tag + 1));
        let mut these = std::mem::replace(&mut self.unanswered, later);
        if multiple {
            return these.into_values().collect();
        }
        let Some(id) = these.remove(&tag) else {
            self.peer.fail(&format!("delivery tag {tag} was answered twice"));
        };
        self.unanswered.append(&mut these);
        vec![id]
    }

    /// Listens until all is answered, the broker holds publishers, or `patience` is over; says whether all is answered.
    pub async fn settle(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while !self.unanswered.is_empty() && self.blocked.is_none() && !self.has_ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.listen(left.min(Duration::from_millis(5))).await;
        }
        self.unanswered.is_empty()
    }

    /// Takes all that the broker has to say to what was sent and is answered by now.
    pub async fn round_trip(&mut self) {
        self.peer.open_channel(2).await;
        self.peer.close_channel(2).await;
        self.listen(Duration::ZERO).await;
    }

    /// Listens until `wanted` holds; gives how long it took.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) -> Duration {
        let since = Instant::now();
        while !wanted(self) {
            if since.elapsed() > DEADLINE || self.has_ended {
                self.peer.fail(&format!("this never came true: {what}"));
            }
            self.listen(Duration::from_millis(5)).await;
        }
        since.elapsed()
    }

    /// Messages that the broker has confirmed.
    #[must_use]
    pub const fn confirmed(&self) -> &BTreeSet<MessageId> {
        &self.confirmed
    }

    /// How many it has refused.
    #[must_use]
    pub const fn refused(&self) -> usize {
        self.refused
    }

    /// How many it has said nothing to.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many were published.
    #[must_use]
    pub const fn published(&self) -> u64 {
        self.published
    }

    /// Why publishers are held, in the words of `connection.blocked`.
    #[must_use]
    pub fn blocked(&self) -> Option<&str> {
        self.blocked.as_deref()
    }

    /// Whether the broker has ended the connection.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.has_ended
    }
}

/// Gets everything that is ready in a queue, without acknowledgements; a body that is not whole fails the test. The
/// messages in the order in which they came.
pub async fn drained(peer: &mut Peer, queue: &str) -> Vec<MessageId> {
    let mut found = Vec::new();
    while let Some(message) = peer.get(1, queue, true).await {
        found.push(whole(peer, &message));
    }
    found
}

/// Which message this is.
fn whole(peer: &Peer, message: &Message<basic::GetOk>) -> MessageId {
    match read_body(&message.body) {
        Some((id, _)) => id,
        None => peer.fail("a message was delivered that is not whole"),
    }
}

/// What became of acknowledgements in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The broker says that they are kept.
    Committed(Vec<MessageId>),
    /// It refuses, or says nothing: they may be kept or not.
    Unknown(Vec<MessageId>),
}

/// Gets `count` messages and acknowledges them in a transaction, which must be committed.
pub async fn settle_in_transaction(peer: &mut Peer, queue: &str, count: usize) -> Vec<MessageId> {
    match try_settle(peer, queue, count, DEADLINE).await {
        Settled::Committed(taken) => taken,
        Settled::Unknown(_) => peer.fail("the transaction is not committed"),
    }
}

/// Gets `count` messages on channel 2 and acknowledges them in a transaction, to which an answer may come in
/// `patience`.
pub async fn try_settle(peer: &mut Peer, queue: &str, count: usize, patience: Duration) -> Settled {
    peer.open_channel(2).await;
    peer.call(2, tx::Select {}).await;
    let mut taken = Vec::new();
    for _ in 0..count {
        let Some(message) = peer.get(2, queue, false).await else { break };
        taken.push(whole(peer, &message));
        peer.ack(2, message.method.delivery_tag).await;
    }
    peer.send(2, tx::Commit {}).await;
    match answer(peer, 2, patience).await {
        Some(AMQPClass::Tx(tx::AMQPMethod::CommitOk(_))) => {
            peer.close_channel(2).await;
            Settled::Committed(taken)
        }
        _ => Settled::Unknown(taken),
    }
}

/// Declares a durable queue with a broker that may refuse; says whether it is there.
pub async fn try_declare_durable(peer: &mut Peer, queue: &str, patience: Duration) -> bool {
    let declare =
        queue::Declare { queue: queue.into(), durable: true, ..queue::Declare::default() };
    peer.send(1, declare).await;
    let answer = answer(peer, 1, patience).await;
    matches!(answer, Some(AMQPClass::Queue(queue::AMQPMethod::DeclareOk(_))))
}

/// What comes on a channel, or why the connection is closed; `None` where nothing comes in `patience`.
async fn answer(peer: &mut Peer, channel: u16, patience: Duration) -> Option<AMQPClass> {
    let until = Instant::now() + patience;
    while Instant::now() < until {
        let has_ended = peer.read_for(Duration::from_millis(5)).await;
        let from = [channel, 0].into_iter().find(|channel| peer.has_arrived(*channel));
        match (from, has_ended) {
            (Some(from), _) => match peer.next(from).await {
                Incoming::Method(class) => return Some(class),
                other @ Incoming::Content(_) => {
                    peer.fail(&format!("wanted an answer, got {other:?}"))
                }
            },
            (None, true) => return None,
            (None, false) => {}
        }
    }
    None
}
