//! The null broker's AMQP side: enough of a server for the load generator.
//!
//! The hot way copies content frames as they came. A message is forwarded when all of it has arrived, into a
//! buffer for each consumer; the buffers are written once behind everything that one read brought.

use std::collections::HashMap;
use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proto_amqp::basic::Hot;
use proto_amqp::control::protocol::{
    AMQPClass, basic, channel, confirm, connection, exchange, queue,
};
use proto_amqp::control::types::{AMQPValue, FieldTable, LongString};
use proto_amqp::frame::{self, FrameKind};
use proto_amqp::handshake::{Header, parse_protocol_header};
use proto_amqp::{ChannelId, ContentHeader, Deliver, Version, basic as hot, control};

use super::super::acks::CHANNEL;
use super::super::amqp::encode;
use super::super::error::BenchError;
use super::router::{Consumer, Keys, Peer, Queue, Router};
use super::{Arrivals, is_end};

/// The frame size and channel number offered: a real broker's defaults.
const FRAME_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2_047;

/// Reads one client's frames to their end.
pub(super) fn serve(
    mut arrivals: Arrivals<'_>,
    peer: &Arc<Peer>,
    router: &Router,
) -> Result<(), BenchError> {
    loop {
        match parse_protocol_header(arrivals.inbox.octets()) {
            Header::Accepted(Version::V0_9_1) => break,
            Header::Incomplete => {
                if !arrivals.more()? {
                    return Ok(());
                }
            }
            _ => return Err(BenchError::Protocol("a client that is not AMQP 0-9-1".to_owned())),
        }
    }
    arrivals.inbox.consume(proto_amqp::handshake::PROTOCOL_HEADER_0_9_1.len());
    let mut session = Session {
        peer,
        router,
        tags: Arc::default(),
        routes: HashMap::new(),
        name: Vec::new(),
        last: None,
        targets: Vec::new(),
        confirming: false,
        published: 0,
        confirmed: 0,
        replies: Vec::new(),
        closed: false,
    };
    session.reply(ChannelId(0), &start())?;
    session.flush()?;
    while !session.closed && arrivals.more()? {
        let consumed = session.on_octets(arrivals.inbox.octets())?;
        arrivals.inbox.consume(consumed);
        match session.flush() {
            Err(BenchError::Io { source, .. }) if is_end(&source) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// One connection.
struct Session<'a> {
    peer: &'a Arc<Peer>,
    router: &'a Router,
    tags: Arc<AtomicU64>,
    /// Routes looked up so far, as places in `targets`, by exchange and key with a NUL between them.
    routes: HashMap<Vec<u8>, Arc<[usize]>>,
    /// Where a route's name is put together.
    name: Vec<u8>,
    /// The route of the last message, which is likely the next one's.
    last: Option<LastRoute>,
    targets: Vec<Target>,
    confirming: bool,
    published: u64,
    confirmed: u64,
    replies: Vec<u8>,
    closed: bool,
}

#[derive(Default)]
struct LastRoute {
    exchange: Vec<u8>,
    key: Vec<u8>,
    targets: Arc<[usize]>,
}

/// A queue that this connection publishes to.
struct Target {
    queue: Arc<Queue>,
    /// Who gets this batch, and its delivery tags.
    consumer: Option<(Arc<Consumer>, RangeFrom<u64>)>,
    /// Deliveries to be written.
    pending: Vec<u8>,
}

impl Session<'_> {
    /// Handles all whole frames and contents; returns their length.
    fn on_octets(&mut self, input: &[u8]) -> Result<usize, BenchError> {
        let mut rest = input;
        while let Some(frame) = frame::parse(rest, FRAME_MAX)? {
            let after = rest.get(frame.wire_len..).unwrap_or_default();
            if frame.kind != FrameKind::Method {
                rest = after;
                continue;
            }
            let method = hot::decode_hot(frame.payload)
                .map_err(|error| BenchError::Protocol(error.detail()))?;
            match method {
                Some(Hot::Publish(publish)) => {
                    let Some(content_len) = content_len(after)? else { break };
                    let content = after.get(..content_len).unwrap_or_default();
                    self.forward(publish.exchange, publish.routing_key, content);
                    rest = after.get(content_len..).unwrap_or_default();
                    continue;
                }
                Some(Hot::Ack(_) | Hot::Nack(_) | Hot::Reject(_)) => {}
                None => {
                    let class = control::decode(frame.payload, Version::V0_9_1)
                        .map_err(|error| BenchError::Protocol(error.detail()))?;
                    self.on_control(frame.channel, &class)?;
                }
            }
            rest = after;
        }
        Ok(input.len() - rest.len())
    }

    /// Appends one message to the buffers of its queues.
    fn forward(&mut self, exchange: &[u8], routing_key: &[u8], content: &[u8]) {
        self.published += 1;
        let is_last = self
            .last
            .as_ref()
            .is_some_and(|last| same(&last.exchange, exchange) && same(&last.key, routing_key));
        if !is_last {
            let targets = self.route(exchange, routing_key);
            let last = self.last.get_or_insert_default();
            last.exchange.clear();
            last.exchange.extend_from_slice(exchange);
            last.key.clear();
            last.key.extend_from_slice(routing_key);
            last.targets = targets;
        }
        let Some(last) = &self.last else { return };
        for &place in last.targets.iter() {
            let Some(target) = self.targets.get_mut(place) else { continue };
            if target.consumer.is_none() {
                target.consumer = target.queue.next().map(|consumer| {
                    let tags = consumer.reserve_tags();
                    (consumer, tags)
                });
            }
            let Some((consumer, tags)) = &mut target.consumer else { continue };
            let deliver = Deliver {
                consumer_tag: &consumer.name,
                delivery_tag: tags.next().unwrap_or(0),
                redelivered: false,
                exchange,
                routing_key,
            };
            hot::write_deliver(&mut target.pending, CHANNEL, &deliver);
            target.pending.extend_from_slice(content);
        }
    }

    /// The places in `targets` of a message's queues. Allocates for the first message of a route only.
    fn route(&mut self, exchange: &[u8], key: &[u8]) -> Arc<[usize]> {
        self.name.clear();
        for part in [exchange, b"\0", key] {
            self.name.extend_from_slice(part);
        }
        if let Some(places) = self.routes.get(&self.name) {
            return Arc::clone(places);
        }
        let mut places = Vec::new();
        for queue in self.router.route(exchange, key) {
            let known = self.targets.iter().position(|target| Arc::ptr_eq(&target.queue, &queue));
            places.push(known.unwrap_or_else(|| {
                self.targets.push(Target { queue, consumer: None, pending: Vec::new() });
                self.targets.len() - 1
            }));
        }
        let places: Arc<[usize]> = places.into();
        self.routes.insert(self.name.clone(), Arc::clone(&places));
        places
    }

    /// Writes deliveries, confirms and replies.
    fn flush(&mut self) -> Result<(), BenchError> {
        for target in &mut self.targets {
            if let Some((consumer, _)) = target.consumer.take()
                && let Err(error) = consumer.peer.write(&target.pending)
            {
                match error {
                    // The consumer is gone, as at the end of every run; its messages go with it.
                    BenchError::Io { .. } => {}
                    other => return Err(other),
                }
            }
            target.pending.clear();
        }
        if self.confirming && self.published > self.confirmed {
            self.confirmed = self.published;
            hot::write_ack(&mut self.replies, CHANNEL, self.confirmed, true);
        }
        if !self.replies.is_empty() {
            self.peer.write(&self.replies)?;
            self.replies.clear();
        }
        Ok(())
    }

    fn reply(&mut self, channel: ChannelId, method: &AMQPClass) -> Result<(), BenchError> {
        encode(channel, method, &mut self.replies)
    }

    /// Answers what is not hot.
    fn on_control(&mut self, on: ChannelId, class: &AMQPClass) -> Result<(), BenchError> {
        let answer = match class {
            AMQPClass::Connection(method) => match self.on_connection(method) {
                Some(answer) => AMQPClass::Connection(answer),
                None => return Ok(()),
            },
            AMQPClass::Channel(channel::AMQPMethod::Open(_)) => {
                AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}))
            }
            AMQPClass::Channel(channel::AMQPMethod::Close(_)) => {
                AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {}))
            }
            AMQPClass::Exchange(method) => AMQPClass::Exchange(self.on_exchange(method)?),
            AMQPClass::Queue(method) => AMQPClass::Queue(self.on_queue(method)?),
            AMQPClass::Basic(method) => AMQPClass::Basic(self.on_basic(method)?),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(_)) => {
                self.confirming = true;
                AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(confirm::SelectOk {}))
            }
            other => return Err(not_here(other)),
        };
        self.reply(on, &answer)
    }

    fn on_connection(&mut self, method: &connection::AMQPMethod) -> Option<connection::AMQPMethod> {
        match method {
            connection::AMQPMethod::StartOk(_) => {
                Some(connection::AMQPMethod::Tune(connection::Tune {
                    channel_max: CHANNEL_MAX,
                    frame_max: FRAME_MAX,
                    heartbeat: 0,
                }))
            }
            connection::AMQPMethod::Open(_) => {
                Some(connection::AMQPMethod::OpenOk(connection::OpenOk {}))
            }
            connection::AMQPMethod::Close(_) => {
                self.closed = true;
                Some(connection::AMQPMethod::CloseOk(connection::CloseOk {}))
            }
            _ => None,
        }
    }

    fn on_exchange(
        &self,
        method: &exchange::AMQPMethod,
    ) -> Result<exchange::AMQPMethod, BenchError> {
        match method {
            exchange::AMQPMethod::Declare(declare) => {
                let keys = match declare.kind.as_str() {
                    "direct" => Keys::Compared,
                    "fanout" => Keys::Ignored,
                    other => return Err(not_here(&other)),
                };
                self.router.declare_exchange(declare.exchange.as_str().as_bytes(), keys);
                Ok(exchange::AMQPMethod::DeclareOk(exchange::DeclareOk {}))
            }
            exchange::AMQPMethod::Delete(delete) => {
                self.router.delete_exchange(delete.exchange.as_str().as_bytes());
                Ok(exchange::AMQPMethod::DeleteOk(exchange::DeleteOk {}))
            }
            other => Err(not_here(other)),
        }
    }

    fn on_queue(&self, method: &queue::AMQPMethod) -> Result<queue::AMQPMethod, BenchError> {
        match method {
            queue::AMQPMethod::Declare(declare) => {
                self.router.queue(declare.queue.as_str().as_bytes());
                Ok(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                    queue: declare.queue.clone(),
                    message_count: 0,
                    consumer_count: 0,
                }))
            }
            queue::AMQPMethod::Bind(bind) => {
                let queue = self.router.queue(bind.queue.as_str().as_bytes());
                let key = bind.routing_key.as_str().as_bytes();
                self.router.bind(bind.exchange.as_str().as_bytes(), key, queue);
                Ok(queue::AMQPMethod::BindOk(queue::BindOk {}))
            }
            queue::AMQPMethod::Delete(delete) => {
                self.router.delete_queue(delete.queue.as_str().as_bytes());
                Ok(queue::AMQPMethod::DeleteOk(queue::DeleteOk { message_count: 0 }))
            }
            other => Err(not_here(other)),
        }
    }

    fn on_basic(&self, method: &basic::AMQPMethod) -> Result<basic::AMQPMethod, BenchError> {
        match method {
            basic::AMQPMethod::Qos(_) => Ok(basic::AMQPMethod::QosOk(basic::QosOk {})),
            basic::AMQPMethod::Consume(consume) => {
                let queue = self.router.queue(consume.queue.as_str().as_bytes());
                queue.add(Arc::new(Consumer {
                    peer: Arc::clone(self.peer),
                    name: consume.consumer_tag.as_str().as_bytes().to_vec(),
                    acks: !consume.no_ack,
                    tags: Arc::clone(&self.tags),
                }));
                let consumer_tag = consume.consumer_tag.clone();
                Ok(basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag }))
            }
            basic::AMQPMethod::Cancel(cancel) => {
                let tag = cancel.consumer_tag.as_str().as_bytes();
                self.router.forget_consumer(self.peer, tag);
                let consumer_tag = cancel.consumer_tag.clone();
                Ok(basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag }))
            }
            other => Err(not_here(other)),
        }
    }
}

/// Whether two names are equal; both are often empty.
///
/// An empty vector's pointer is no address. Vector instructions that load from it under an empty mask are
/// correct, but on some processors a hundred times slower than a comparison, so empty names stay away from
/// the library's `memcmp` (measured: half of the null broker's time).
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// Octets of the content frames at the front of `input`; `None` while they have not all arrived.
fn content_len(input: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some(header) = frame::parse(input, FRAME_MAX)? else { return Ok(None) };
    let mut left = ContentHeader::parse(header.payload)
        .map_err(|error| BenchError::Protocol(error.detail()))?
        .body_size;
    let mut len = header.wire_len;
    while left > 0 {
        let Some(body) = frame::parse(input.get(len..).unwrap_or_default(), FRAME_MAX)? else {
            return Ok(None);
        };
        len += body.wire_len;
        left = left
            .checked_sub(body.payload.len() as u64)
            .ok_or_else(|| BenchError::Protocol("a body longer than its header says".to_owned()))?;
    }
    Ok(Some(len))
}

/// The first method.
fn start() -> AMQPClass {
    let mut server_properties = FieldTable::default();
    server_properties.insert("product".into(), AMQPValue::LongString("null".into()));
    server_properties
        .insert("version".into(), AMQPValue::LongString(env!("CARGO_PKG_VERSION").into()));
    AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: LongString::from("PLAIN"),
        locales: LongString::from("en_US"),
    }))
}

/// What the null broker does not do.
fn not_here(what: &impl std::fmt::Debug) -> BenchError {
    BenchError::Protocol(format!("the null broker does not do {what:?}"))
}
