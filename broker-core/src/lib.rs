//! Warren's core: virtual hosts, exchanges, bindings, queues, users and permissions, and the boundary to the
//! log.
//!
//! It names no wire protocol. Its canonical message is AMQP's: exchange, routing key, the encoded property
//! list as it came, body octets. Nothing here sleeps or knows the time: milliseconds come in as arguments, counted
//! from the broker's start, and consumers are [sinks](consumer::Sink) that take what they have room for. Nothing
//! waits for the disk either, but for the threads of [`storage`] and [`log`] and for one call:
//! [`Queue::get`](queue::Queue::get) reads from it when a queue has messages and none of them in memory.
//!
//! Locks, in the order in which they may be taken: the list of virtual hosts, a virtual host's topology, queues by
//! their ids, a connection's sink, the state of the store. None is held while the disk or another thread is
//! waited for.
//!
//! ```text
//! publish:  VirtualHost::route ─▶ Queue::publish ─▶ Sink::deliver      (a run, straight to a consumer)
//!                                         └───────▶ ready              (kept until a consumer has room)
//! ack:      Queue::ack ─▶ Queue::resume ─▶ Sink::deliver
//! ```

#![deny(clippy::indexing_slicing)]

pub mod access;
pub mod arguments;
pub mod broker;
pub mod consumer;
pub mod dead_letter;
pub mod definitions;
pub mod delivery_count;
pub mod error;
pub mod exchange;
pub mod log;
pub mod message;
pub mod name;
pub mod queue;
pub mod storage;
pub mod vhost;

pub use broker::Broker;
pub use error::{Refusal, Resource};
pub use message::{Attributes, Message, Parts, Publication, Spans};
pub use vhost::VirtualHost;
