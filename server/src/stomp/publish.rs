//! SEND: from a frame to the queues, in batches.
//!
//! All SENDs that arrive in one read gather in a [`Batch`], queue by queue. Each queue gets its messages in one call,
//! under one hold of its lock and in the order in which they came. Until then a message is a slice of the
//! batch's own buffer, where the parts of the canonical message stand side by side; only a queue that has to
//! keep it makes an allocation for it. The buffer belongs to the worker thread.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::access::Access;
use broker_core::log::LogPosition;
use broker_core::message::LARGE_BODY_LEN;
use broker_core::name::{ExchangeName, QueueName};
use broker_core::queue::{BATCH_MAX, Queue, Share};
use broker_core::vhost::DeclaredQueue;
use broker_core::{Attributes, Message, Publication, Refusal, Resource, Spans};
use proto_amqp::properties::{self, Properties};
use proto_stomp::{Command, Frame, Headers};
use smallvec::SmallVec;

use super::client::{Client, write_receipt};
use super::destination::{self, Destination};
use super::error::StompError;
use super::properties::SendHeaders;
use super::receipts::Of;
use super::routes::{Asking, Route};
use super::subscription::{DurableBy, QueueKind, QueueOptions};
use crate::counters::Sizes;
use crate::publishing;

/// Octets that gather before they are handed over.
const BATCH_OCTETS_MAX: usize = 256 * 1024;

/// Queues that messages gather for before they are handed over.
const GROUPS_MAX: usize = 32;

/// A buffer that has grown beyond this is not kept.
const SPARE_LEN_MAX: usize = 1024 * 1024;

/// Queues that a connection remembers to have declared; beyond it they are declared again.
const DECLARED_MAX: usize = 65_536;

/// The pseudo queue of AMQP's direct reply-to: a STOMP session has no consumer on it.
const DIRECT_REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";

/// Messages that have not been handed over to their queues.
#[derive(Default)]
pub(super) struct Batch {
    /// The headers table of the frame at hand.
    table: Vec<u8>,
    /// Messages, one after the other: exchange, routing key, property list, body.
    octets: Vec<u8>,
    /// Receipts, one after the other.
    receipts: Vec<u8>,
    messages: Vec<Pending>,
    groups: Vec<Group>,
    /// Lists that groups have given back.
    spares: Vec<Vec<u32>>,
}

/// A message of a batch.
struct Pending {
    content: Content,
    /// In [`Batch::receipts`].
    receipt: Option<Range<usize>>,
    body_len: usize,
    routed: bool,
    position: LogPosition,
    refused: bool,
}

enum Content {
    /// In [`Batch::octets`].
    Gathered { range: Range<usize>, spans: Spans, attributes: Attributes },
    /// In its own allocation: a large body, or one that several queues share.
    Owned(Message),
}

/// The messages of one queue.
struct Group {
    queue: Arc<Queue>,
    indices: Vec<u32>,
}

/// A message on its way into a batch.
struct Outgoing<'m> {
    route: &'m Route,
    properties: Properties<'m>,
    attributes: Attributes,
    body: &'m [u8],
}

impl Batch {
    /// Whether a message goes to several queues of which the log keeps some.
    fn needs_one_step(&self) -> bool {
        let copies: usize = self.groups.iter().map(|group| group.indices.len()).sum();
        let routed = self.messages.iter().filter(|pending| pending.routed).count();
        copies > routed
            && self.groups.iter().any(|group| group.queue.spec.durable)
            && self.messages.iter().any(|pending| pending.content.is_persistent())
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MAX
            || self.octets.len() >= BATCH_OCTETS_MAX
            || self.groups.len() >= GROUPS_MAX
    }

    /// Appends a message, encoded, and makes it its own where that saves copies.
    fn gather(&mut self, outgoing: &Outgoing<'_>) -> Result<Content, StompError> {
        let Outgoing { route, properties, attributes, body } = *outgoing;
        let start = self.octets.len();
        let at = |octets: &Vec<u8>| u32::try_from(octets.len() - start).unwrap_or(u32::MAX);
        let exchange = route.exchange.as_str().as_bytes();
        self.octets.extend_from_slice(exchange);
        self.octets.extend_from_slice(&route.routing_key);
        let properties_at = at(&self.octets);
        // Strings were measured when the headers were read.
        properties::encode(&properties, &mut self.octets).map_err(|_| StompError::processing())?;
        let body_at = at(&self.octets);
        if body.len() >= LARGE_BODY_LEN {
            let list = self.octets.get(start + properties_at as usize..).unwrap_or_default();
            let key = &route.routing_key;
            let message = Message::new(exchange, key, list, body.to_vec(), attributes);
            self.octets.truncate(start);
            return Ok(Content::Owned(message));
        }
        self.octets.extend_from_slice(body);
        // Names have at most 255 octets each.
        let exchange_len = u8::try_from(exchange.len()).unwrap_or(u8::MAX);
        let spans = Spans {
            exchange_len,
            routing_key_len: u8::try_from(route.routing_key.len()).unwrap_or(u8::MAX),
            routing_key_at: exchange_len.into(),
            properties_at,
            properties_len: body_at - properties_at,
            body_at,
        };
        let content = Content::Gathered { range: start..self.octets.len(), spans, attributes };
        if route.queues.len() > 1 {
            let message = content.publication(&self.octets).to_message();
            self.octets.truncate(start);
            return Ok(Content::Owned(message));
        }
        Ok(content)
    }

    fn push(&mut self, route: &Route, content: Content, body_len: usize, receipt: Option<&[u8]>) {
        let index = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        for queue in &route.queues {
            let known = self.groups.iter_mut().find(|group| Arc::ptr_eq(&group.queue, queue));
            if let Some(group) = known {
                group.indices.push(index);
            } else {
                let mut indices = self.spares.pop().unwrap_or_default();
                indices.push(index);
                self.groups.push(Group { queue: Arc::clone(queue), indices });
            }
        }
        let receipt = receipt.map(|receipt| {
            let start = self.receipts.len();
            self.receipts.extend_from_slice(receipt);
            start..self.receipts.len()
        });
        let routed = !route.queues.is_empty();
        let position = LogPosition::START;
        let pending = Pending { content, receipt, body_len, routed, position, refused: false };
        self.messages.push(pending);
    }

    /// Forgets what nobody will hand over. The rest is set anew before it is used.
    pub(super) fn abandon(&mut self) {
        self.groups.clear();
        self.clear();
    }

    /// Forgets what was handed over, but keeps the room.
    fn clear(&mut self) {
        self.messages.clear();
        self.receipts.clear();
        self.octets.clear();
        if self.octets.capacity() > SPARE_LEN_MAX {
            self.octets = Vec::new();
        }
    }
}

impl Content {
    fn is_persistent(&self) -> bool {
        match self {
            Self::Gathered { attributes, .. } => attributes.persistent,
            Self::Owned(message) => message.attributes().persistent,
        }
    }

    fn publication<'o>(&self, octets: &'o [u8]) -> Publication<'o> {
        match self {
            Self::Gathered { range, spans, attributes } => Publication::Borrowed {
                octets: octets.get(range.clone()).unwrap_or_default(),
                spans: *spans,
                attributes: *attributes,
            },
            Self::Owned(message) => Publication::Owned(message.clone()),
        }
    }
}

impl Client {
    pub(super) fn on_send(
        &mut self,
        frame: &Frame<'_>,
        batch: &mut Batch,
    ) -> Result<(), StompError> {
        self.note_publish(frame);
        batch.table.clear();
        let send = SendHeaders::read(&frame.headers, &mut batch.table)?;
        let destination =
            send.destination.ok_or_else(|| StompError::missing_destination(Command::Send))?;
        if let Some(transaction) = send.transaction
            && !self.transactions.is_open(transaction)
        {
            return Err(StompError::unknown_transaction(transaction));
        }
        if let Some(user) = send.properties.user_id {
            publishing::check_user_id(user, &self.identity).map_err(StompError::precondition)?;
        }
        let reply_queue = match send.properties.reply_to {
            Some(reply_to) => self.reply_queue(reply_to)?,
            None => None,
        };
        let table = std::mem::take(&mut batch.table);
        let headers = (!table.is_empty()).then_some(&*table);
        let mut properties = Properties { headers, ..send.properties };
        if let Some(queue) = &reply_queue {
            properties.reply_to = Some(queue.as_str().as_bytes());
        }
        let route = match self.known_route(destination) {
            Some(route) => route,
            None => self.find_route(destination, &frame.headers, headers)?,
        };
        let outgoing =
            Outgoing { route: &route, properties, attributes: send.attributes, body: frame.body };
        let gathered = batch.gather(&outgoing);
        batch.table = table;
        let content = gathered?;
        match send.transaction {
            Some(transaction) => {
                let message = content.publication(&batch.octets).to_message();
                if let Content::Gathered { range, .. } = content {
                    batch.octets.truncate(range.start);
                }
                self.send_in_transaction(transaction, &route.exchange, message, send.receipt)
            }
            None => {
                batch.push(&route, content, frame.body.len(), send.receipt);
                if batch.is_full() {
                    self.flush_sends(batch);
                }
                Ok(())
            }
        }
    }

    /// Publishers may be held: this one is then not read from any more, once it has used its allowance up.
    fn note_publish(&mut self, frame: &Frame<'_>) {
        // Relaxed: for lists.
        self.shared.publisher.store(true, Ordering::Relaxed);
        if !self.node.alarms.any() {
            return;
        }
        // Headers are kept too, and there may be far more of them than of the body.
        let headers = frame.headers.iter().map(|(name, value)| name.len() + value.len());
        let octets = frame.body.len() + headers.sum::<usize>();
        if let Some(before) = &mut self.blocked {
            *before += octets;
            return;
        }
        self.blocked = Some(octets);
        self.node.counters.publishers_blocked.increment(1);
        self.shared.set_state("blocked");
        let reason = self.node.alarms.reason();
        tracing::info!(connection = %self.shared.name(), reason, "holding a publisher");
    }

    /// The queue that a `reply-to:/temp-queue/…` stands for; `None` when the value goes on as it is.
    fn reply_queue(&mut self, reply_to: &[u8]) -> Result<Option<QueueName>, StompError> {
        if reply_to == DIRECT_REPLY_TO {
            return Err(StompError::precondition("fast reply consumer does not exist"));
        }
        // RabbitMQ: stumbles over a reply-to that is no destination.
        match destination::parse(reply_to).map_err(|_| StompError::processing())? {
            Destination::TempQueue(_) => self.temp_queue(reply_to).map(Some),
            _ => Ok(None),
        }
    }

    #[inline]
    fn known_route(&mut self, destination: &[u8]) -> Option<Arc<Route>> {
        let Self { node, vhost, identity, routes, .. } = self;
        routes.find(Asking { node, vhost, identity }, destination)
    }

    /// Looks a destination up, after its queue has been declared if it is one.
    #[cold]
    fn find_route(
        &mut self,
        destination: &[u8],
        headers: &Headers<'_>,
        table: Option<&[u8]>,
    ) -> Result<Arc<Route>, StompError> {
        let default = || ExchangeName::new("").map_err(|_| StompError::processing());
        let through_default = |queue: &QueueName| (default(), queue.as_str().as_bytes().into());
        let (exchange, key): (_, Box<[u8]>) = match destination::parse(destination)? {
            Destination::Queue(queue) => {
                if !self.declared.contains(&queue) {
                    let options = QueueOptions::read(headers, DurableBy::DurableOnly)?;
                    self.declare(queue.clone(), options, QueueKind::Named)?;
                }
                through_default(&queue)
            }
            Destination::AmqQueue(queue) | Destination::ReplyQueue(queue) => {
                through_default(&queue)
            }
            Destination::Topic(key) => (Ok(self.topic_exchange.clone()), key),
            Destination::Exchange(exchange, key) => (Ok(exchange), key),
            Destination::TempQueue(_) => {
                return Err(StompError::destination_not_for(destination, Command::Send));
            }
        };
        // A declaration has moved the revision: from here on nothing of ours does.
        self.known_route(destination);
        let (route, holds) = self.asking().route(&exchange?, &key, table)?;
        let route = Arc::new(route);
        if holds {
            self.routes.remember(destination, &route);
        }
        Ok(route)
    }

    /// Declares a queue, and remembers that. Tells whether it is new. Receipts wait until the log keeps it.
    pub(super) fn declare(
        &mut self,
        name: QueueName,
        options: QueueOptions,
        kind: QueueKind,
    ) -> Result<DeclaredQueue, Refusal> {
        let resource = Resource::Queue(name.clone());
        self.asking().check(&resource, Access::Configure)?;
        if let Some(exchange) = options.dead_letter_exchange()
            && let Ok(exchange) = ExchangeName::new(exchange)
        {
            self.asking().check(&resource, Access::Read)?;
            self.asking().check(&Resource::Exchange(exchange), Access::Write)?;
        }
        let now = self.node.clock.now();
        let declaration = options.declaration(name.clone(), kind);
        let declared = self.vhost.declare_queue(declaration, self.id, now)?;
        self.done_at = self.done_at.max(declared.queue.defined_at);
        if self.declared.len() >= DECLARED_MAX {
            self.declared.clear();
        }
        self.declared.insert(name);
        Ok(declared)
    }

    /// Hands the messages of a batch to their queues and answers for them.
    pub(super) fn flush_sends(&mut self, batch: &mut Batch) {
        if batch.messages.is_empty() {
            return;
        }
        let now = self.node.clock.now();
        if batch.needs_one_step() {
            self.publish_in_one_step(batch, now);
        }
        while let Some(mut group) = batch.groups.pop() {
            self.publish_group(&group, batch, now);
            group.indices.clear();
            if batch.spares.len() < GROUPS_MAX {
                batch.spares.push(group.indices);
            }
        }
        self.count(&batch.messages);
        self.answer(batch);
        batch.clear();
    }

    /// Some messages go to several durable queues: the log has all of the batch or nothing.
    fn publish_in_one_step(&mut self, batch: &mut Batch, now: u64) {
        let Batch { messages, octets, groups, .. } = batch;
        let publications: Vec<Publication<'_>> =
            messages.iter().map(|pending| pending.content.publication(octets)).collect();
        let mut shares: Vec<Share> =
            groups.drain(..).map(|Group { queue, indices }| Share { queue, indices }).collect();
        let done = self.vhost.publish_together(&publications, &mut shares, now);
        drop(publications);
        match done {
            Ok(done) => {
                self.backlogged |= done.backlogged;
                for pending in messages.iter_mut().filter(|pending| pending.routed) {
                    pending.position = done.position;
                }
                for index in done.rejected {
                    if let Some(pending) = messages.get_mut(index as usize) {
                        pending.refused = true;
                    }
                }
            }
            Err(error) => {
                for pending in messages.iter_mut().filter(|pending| pending.routed) {
                    pending.refused = true;
                }
                self.say_unkept(error.for_peers());
            }
        }
    }

    /// The log has refused messages: their sender is told, once for all of them.
    fn say_unkept(&self, reason: &str) {
        let end = self.frame_end();
        let mut state = self.shared.outlet.lock();
        StompError::not_kept(reason).write(None, state.out.octets(), end);
    }

    fn publish_group(&mut self, group: &Group, batch: &mut Batch, now: u64) {
        let Group { queue, indices } = group;
        let Batch { messages, octets, .. } = batch;
        let pending = indices.iter().filter_map(|index| messages.get(*index as usize));
        let publications: SmallVec<[Publication<'_>; 16]> =
            pending.map(|pending| pending.content.publication(octets)).collect();
        let accepted = queue.publish(&publications, now, &mut self.effects);
        drop(publications);
        self.backlogged |= accepted.backlogged;
        for index in indices {
            if let Some(pending) = messages.get_mut(*index as usize) {
                pending.position = pending.position.max(accepted.position);
            }
        }
        for refused in &self.effects.rejected {
            let index = indices.get(*refused as usize).map(|index| *index as usize);
            if let Some(pending) = index.and_then(|index| messages.get_mut(index)) {
                pending.refused = true;
            }
        }
        if let Some(reason) = self.effects.log_refused.take() {
            self.say_unkept(&reason);
        }
        self.carry_out(queue, now);
    }

    /// Counts a message of a transaction.
    pub(super) fn count_one(&self, body_len: usize, routed: bool) {
        let counters = self.counters();
        counters.received.increment(1);
        if routed {
            counters.routed.increment(1);
        } else {
            counters.unroutable_dropped.increment(1);
        }
        counters.sizes.record(body_len as u64, 1);
    }

    fn count(&self, messages: &[Pending]) {
        let counters = self.counters();
        let total = messages.len() as u64;
        let routed = messages.iter().filter(|pending| pending.routed).count() as u64;
        counters.received.increment(total);
        if routed > 0 {
            counters.routed.increment(routed);
        }
        if routed < total {
            counters.unroutable_dropped.increment(total - routed);
        }
        count_sizes(messages, &counters.sizes);
    }

    /// Gives the receipts that were asked for, or notes them down until the log has come so far.
    fn answer(&mut self, batch: &Batch) {
        let asked = batch.messages.iter().filter(|pending| pending.receipt.is_some()).count();
        if asked == 0 {
            let positions = batch.messages.iter().map(|pending| pending.position);
            self.done_at = positions.fold(self.done_at, LogPosition::max);
            return;
        }
        // What was rejected before the first of them; what stands between them acknowledges only, or comes behind.
        let gives = |pending: &Pending| pending.receipt.is_some() && !pending.refused;
        let mut burial = match batch.messages.iter().any(gives) {
            true => self.take_burial(),
            false => None,
        };
        self.flush_settling();
        let durable = self.node.broker.log.durable_up_to();
        let end = self.frame_end();
        let mut at_once = 0;
        let mut state = self.shared.outlet.lock();
        for pending in &batch.messages {
            self.done_at = self.done_at.max(pending.position);
            let Some(range) = &pending.receipt else { continue };
            let receipt = batch.receipts.get(range.clone()).unwrap_or_default();
            if pending.refused {
                StompError::rejected().write(Some(receipt), state.out.octets(), end);
            } else if self.receipts.is_empty() && burial.is_none() && self.done_at <= durable {
                write_receipt(state.out.octets(), receipt, end);
                at_once += 1;
            } else {
                self.receipts.wait(self.done_at, burial.take(), Some(receipt), Of::Send);
            }
        }
        drop(state);
        let counters = self.counters();
        counters.received_confirm.increment(asked as u64);
        counters.confirmed.increment(at_once);
        self.release_receipts();
    }
}

/// Counts messages of one size in a row at once.
fn count_sizes(messages: &[Pending], sizes: &Sizes) {
    for run in messages.chunk_by(|a, b| a.body_len == b.body_len) {
        if let Some(first) = run.first() {
            sizes.record(first.body_len as u64, run.len() as u64);
        }
    }
}
