//! Who consumes what: the null broker's only state.
//!
//! A connection looks a route up once and keeps it; consumers are looked at once per batch.

use std::collections::HashMap;
use std::net::TcpStream;
use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::error::BenchError;
use super::super::link::send;

/// More messages than a batch can hold: an AMQP publish without a body has 40 octets at least, a STOMP frame
/// 20, and a read brings a few mebibytes at most.
const BATCH_TAGS: u64 = 1 << 20;

/// A connection that can be written to by any thread.
#[derive(Debug)]
pub(super) struct Peer {
    stream: TcpStream,
    /// Held for the length of a batch, so that frames of two writers do not mix.
    writing: Mutex<()>,
}

impl Peer {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, writing: Mutex::new(()) }
    }

    /// The socket, for reading.
    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes whole frames. Blocks while the client takes nothing: the null broker keeps no backlog, so this
    /// is what holds producers back.
    ///
    /// # Errors
    /// As [`send`].
    pub(super) fn write(&self, frames: &[u8]) -> Result<(), BenchError> {
        let _writing = self.writing.lock();
        send(&self.stream, frames)
    }
}

/// A consumer or subscription.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) peer: Arc<Peer>,
    /// Consumer tag, or the subscription's id.
    pub(super) name: Vec<u8>,
    /// Whether deliveries carry what an acknowledgement needs (STOMP).
    pub(super) acks: bool,
    /// The delivery tags of the whole connection.
    pub(super) tags: Arc<AtomicU64>,
}

impl Consumer {
    /// Delivery tags for a batch, more than it needs: unused ones are left out, which the protocols allow,
    /// and a shared counter is touched once a batch.
    pub(super) fn reserve_tags(&self) -> RangeFrom<u64> {
        self.tags.fetch_add(BATCH_TAGS, Ordering::Relaxed) + 1..
    }
}

/// A name that consumers wait behind.
#[derive(Debug, Default)]
pub(super) struct Queue {
    consumers: Mutex<Vec<Arc<Consumer>>>,
    turn: AtomicUsize,
}

impl Queue {
    /// Adds a consumer.
    pub(super) fn add(&self, consumer: Arc<Consumer>) {
        self.consumers.lock().push(consumer);
    }

    /// Drops the consumers for which `is_gone`.
    pub(super) fn drop_if(&self, is_gone: impl Fn(&Consumer) -> bool) {
        self.consumers.lock().retain(|consumer| !is_gone(consumer));
    }

    /// The consumer whose turn it is to get a batch.
    pub(super) fn next(&self) -> Option<Arc<Consumer>> {
        let consumers = self.consumers.lock();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        consumers.get(turn % consumers.len().max(1)).cloned()
    }

    /// All consumers, for a topic.
    pub(super) fn all(&self) -> Vec<Arc<Consumer>> {
        self.consumers.lock().clone()
    }
}

/// What a message has to bring to be routed by a binding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Binding {
    exchange: Vec<u8>,
    /// Empty where keys are ignored.
    key: Vec<u8>,
}

/// Queues by name, and by exchange and key.
#[derive(Debug, Default)]
pub(super) struct Router {
    queues: Mutex<HashMap<Vec<u8>, Arc<Queue>>>,
    /// Exchanges, and whether they look at keys.
    exchanges: Mutex<HashMap<Vec<u8>, Keys>>,
    bindings: Mutex<HashMap<Binding, Vec<Arc<Queue>>>>,
}

/// Whether an exchange looks at routing keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    Compared,
    Ignored,
}

impl Router {
    /// The queue of this name, made if it is new.
    pub(super) fn queue(&self, name: &[u8]) -> Arc<Queue> {
        Arc::clone(self.queues.lock().entry(name.to_vec()).or_default())
    }

    /// Forgets a queue's name.
    pub(super) fn delete_queue(&self, name: &[u8]) {
        self.queues.lock().remove(name);
    }

    /// Makes an exchange.
    pub(super) fn declare_exchange(&self, name: &[u8], keys: Keys) {
        self.exchanges.lock().insert(name.to_vec(), keys);
    }

    /// Forgets an exchange and its bindings.
    pub(super) fn delete_exchange(&self, name: &[u8]) {
        self.exchanges.lock().remove(name);
        self.bindings.lock().retain(|binding, _| binding.exchange != name);
    }

    /// Binds a queue.
    pub(super) fn bind(&self, exchange: &[u8], key: &[u8], queue: Arc<Queue>) {
        self.bindings.lock().entry(self.binding(exchange, key)).or_default().push(queue);
    }

    /// The queues of a message; for the default exchange, the queue named by the key.
    pub(super) fn route(&self, exchange: &[u8], key: &[u8]) -> Vec<Arc<Queue>> {
        if exchange.is_empty() {
            return vec![self.queue(key)];
        }
        self.bindings.lock().get(&self.binding(exchange, key)).cloned().unwrap_or_default()
    }

    /// Drops all consumers of a connection.
    pub(super) fn forget(&self, peer: &Arc<Peer>) {
        for queue in self.queues.lock().values() {
            queue.drop_if(|consumer| Arc::ptr_eq(&consumer.peer, peer));
        }
    }

    /// Drops one consumer of a connection.
    pub(super) fn forget_consumer(&self, peer: &Arc<Peer>, name: &[u8]) {
        for queue in self.queues.lock().values() {
            queue.drop_if(|consumer| consumer.name == name && Arc::ptr_eq(&consumer.peer, peer));
        }
    }

    fn binding(&self, exchange: &[u8], key: &[u8]) -> Binding {
        let key = match self.exchanges.lock().get(exchange) {
            Some(Keys::Ignored) => &[],
            Some(Keys::Compared) | None => key,
        };
        Binding { exchange: exchange.to_vec(), key: key.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_exchange_routes_by_queue_name_and_others_by_binding() {
        let router = Router::default();
        let (one, two) = (router.queue(b"one"), router.queue(b"two"));
        router.declare_exchange(b"direct", Keys::Compared);
        router.declare_exchange(b"fanout", Keys::Ignored);
        router.bind(b"direct", b"k", Arc::clone(&one));
        for queue in [&one, &two] {
            router.bind(b"fanout", b"any", Arc::clone(queue));
        }
        assert!(Arc::ptr_eq(&router.route(b"", b"two")[0], &two));
        assert!(Arc::ptr_eq(&router.route(b"direct", b"k")[0], &one));
        assert!(router.route(b"direct", b"other").is_empty());
        assert_eq!(router.route(b"fanout", b"other").len(), 2);
        router.delete_exchange(b"fanout");
        assert!(router.route(b"fanout", b"other").is_empty());
    }
}
