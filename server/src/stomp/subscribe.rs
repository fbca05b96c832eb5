//! SUBSCRIBE and UNSUBSCRIBE: from a destination to a consumer of a queue, and back.

use std::borrow::Cow;
use std::sync::Arc;

use broker_core::access::Access;
use broker_core::arguments::{Arguments, Value};
use broker_core::consumer::Subscription;
use broker_core::exchange::{Binding, Destination as BoundTo};
use broker_core::log::LogPosition;
use broker_core::name::{ExchangeName, QueueName};
use broker_core::queue::{Queue, SubscribeError};
use broker_core::vhost::{DeclaredQueue, QueueDeclaration};
use broker_core::{Refusal, Resource};
use proto_stomp::{Command, Frame, Headers};
use tokio::time::Instant;

use super::client::{Client, Next, WaitingSubscribe, write_receipt};
use super::deliveries::NewSubscription;
use super::destination::{self, Destination, TEMP_QUEUE};
use super::error::StompError;
use super::identifier;
use super::receipts::Of;
use super::subscription::{AckMode, DurableBy, QueueKind, QueueOptions, Request, is_durable};
use crate::node::KEPT_WITHIN;

/// What the names of queues behind subscriptions to topics and exchanges begin with.
const SUBSCRIPTION_QUEUE: &str = "stomp-subscription-";

/// What the names of queues behind `/temp-queue/…` begin with.
const TEMP_QUEUE_NAME: &str = "amq.gen-";

/// A subscription, as its session knows it.
#[derive(Debug)]
pub(super) struct Subscribed {
    slot: u32,
    /// `id='…'` or `destination='…'`, for error texts.
    description: String,
    id: Option<Box<[u8]>>,
    /// The queue that was made for it.
    own_queue: Option<QueueName>,
}

/// How a client names a subscription.
struct Named<'f> {
    consumer_tag: Vec<u8>,
    description: String,
    id: Option<&'f [u8]>,
}

impl<'f> Named<'f> {
    fn by_id(id: &'f [u8]) -> Self {
        let consumer_tag = [b"T_", id].concat();
        let description = format!("id='{}'", String::from_utf8_lossy(id));
        Self { consumer_tag, description, id: Some(id) }
    }

    fn by_destination(destination: &[u8]) -> Self {
        let consumer_tag = [b"Q_", destination].concat();
        let description = format!("destination='{}'", String::from_utf8_lossy(destination));
        Self { consumer_tag, description, id: None }
    }
}

/// A queue that is about to be consumed.
struct Source {
    queue: Arc<Queue>,
    /// It was made for this subscription; `new` if just now.
    own: bool,
    new: bool,
    /// Where the log has to come before a restart finds it, and its binding.
    defined_at: LogPosition,
}

impl Source {
    fn found(queue: Arc<Queue>) -> Self {
        let defined_at = queue.defined_at;
        Self { queue, own: false, new: false, defined_at }
    }
}

impl Client {
    /// The receipt is written before the first MESSAGE: a frame that asks for one waits until the log keeps its queue, and
    /// what the frames before it have done.
    pub(super) fn on_subscribe(
        &mut self,
        frame: &Frame<'_>,
        receipt: Option<&[u8]>,
    ) -> Result<Next, StompError> {
        let waited = self.subscribe_waiting.take();
        let made = waited.as_ref().filter(|waited| waited.new);
        let made = made.map(|waited| waited.queue.spec.name.clone());
        let done = self.subscribe(frame, receipt, waited);
        if let Some(queue) = made
            && done.is_err()
        {
            // What was made for it the first time goes with it.
            self.undo_declare(&queue);
        }
        done
    }

    fn subscribe(
        &mut self,
        frame: &Frame<'_>,
        receipt: Option<&[u8]>,
        waited: Option<WaitingSubscribe>,
    ) -> Result<Next, StompError> {
        let headers = &frame.headers;
        let text = headers
            .get("destination")
            .ok_or_else(|| StompError::missing_destination(Command::Subscribe))?;
        let destination = destination::parse(text)?;
        let request = Request::read(headers)?;
        let named = request.id.map_or_else(|| Named::by_destination(text), Named::by_id);
        self.check_new(&named)?;
        let mut source = match destination {
            Destination::Queue(name) => {
                // RabbitMQ: a queue that this connection has declared before and that is gone stays gone.
                let queue = match self.vhost.queue_for(&name, self.id) {
                    Ok(queue) if self.declared.contains(&name) => queue,
                    _ => {
                        let options = QueueOptions::read(headers, DurableBy::Either)?;
                        self.declare(name, options, QueueKind::Named)?.queue
                    }
                };
                Source::found(queue)
            }
            Destination::AmqQueue(name) | Destination::ReplyQueue(name) => {
                self.asking().check(&Resource::Queue(name.clone()), Access::Read)?;
                let queue = self.vhost.queue_for(&name, self.id)?;
                Source::found(queue)
            }
            Destination::Topic(key) => {
                let exchange = self.topic_exchange.clone();
                self.subscription_queue(&request, headers, exchange, key)?
            }
            Destination::Exchange(exchange, key) => {
                self.subscription_queue(&request, headers, exchange, key)?
            }
            Destination::TempQueue(_) => {
                return Err(StompError::destination_not_for(text, Command::Subscribe));
            }
        };
        source.new |= waited.as_ref().is_some_and(|waited| waited.new);
        let position = self.subscribed_at(&source);
        let is_kept = position <= self.node.broker.log.durable_up_to()
            && (receipt.is_none() || !self.waits_for_receipts());
        if receipt.is_some() && !is_kept && !waited.as_ref().is_some_and(|waited| waited.is_late) {
            let until = waited.map_or_else(|| Instant::now() + KEPT_WITHIN, |waited| waited.until);
            let Source { queue, new, .. } = source;
            let waiting = WaitingSubscribe { position, queue, new, until, is_late: false };
            self.subscribe_waiting = Some(waiting);
            return Ok(Next::Later);
        }
        let consumed = self.consume(named, &request, &source, receipt);
        if consumed.is_err() && source.new {
            self.undo_declare(&source.queue.spec.name);
        }
        consumed.map(|()| Next::GoOn)
    }

    /// Where the log has to come before a receipt may say that `source` is kept, and all frames before are done.
    fn subscribed_at(&self, source: &Source) -> LogPosition {
        self.node.broker.reply_position(source.defined_at).max(self.done_at)
    }

    fn check_new(&self, named: &Named<'_>) -> Result<(), StompError> {
        if self.subscriptions.contains_key(&*named.consumer_tag) {
            return Err(StompError::duplicate_subscription(&named.consumer_tag));
        }
        let max = self.node.settings.stomp.max_subscriptions;
        if self.subscriptions.len() >= max as usize {
            return Err(StompError::too_many_subscriptions(max));
        }
        Ok(())
    }

    /// The queue behind a subscription to a key of an exchange, bound.
    fn subscription_queue(
        &mut self,
        request: &Request<'_>,
        headers: &Headers<'_>,
        exchange: ExchangeName,
        key: Box<[u8]>,
    ) -> Result<Source, StompError> {
        let name = match (request.queue_name, request.durable) {
            (Some(name), _) => Cow::Owned(String::from_utf8_lossy(name).into_owned()),
            // The same for the same key and id: that is what finds the messages of the time in between.
            (None, true) => {
                let exchange = exchange.as_str().as_bytes();
                let parts = [exchange, &*key, request.id.unwrap_or_default()];
                Cow::Owned(identifier::of(SUBSCRIPTION_QUEUE, &parts))
            }
            (None, false) => Cow::Owned(identifier::random(SUBSCRIPTION_QUEUE)),
        };
        let name =
            QueueName::new(&name).map_err(|_| StompError::header_too_long(b"x-queue-name"))?;
        self.asking().check(&Resource::Exchange(exchange.clone()), Access::Read)?;
        let options = QueueOptions::read(headers, DurableBy::Either)?;
        let DeclaredQueue { queue, new } =
            self.declare(name.clone(), options, QueueKind::OfSubscription)?;
        match self.bind(&name, exchange, key) {
            Ok(bound_at) => {
                let defined_at = queue.defined_at.max(bound_at);
                Ok(Source { queue, own: true, new, defined_at })
            }
            Err(refusal) => {
                if new {
                    self.undo_declare(&name);
                }
                Err(refusal.into())
            }
        }
    }

    /// Deletes a queue that was made for a subscription that came to nothing, unless somebody uses it already.
    pub(super) fn undo_declare(&mut self, queue: &QueueName) {
        self.declared.remove(queue);
        if let Some(removed) = self.vhost.undo_queue(queue, self.id) {
            self.done_at = self.done_at.max(removed.position);
        }
    }

    /// Gives where the log has to come before a restart finds the binding.
    fn bind(
        &self,
        queue: &QueueName,
        source: ExchangeName,
        key: Box<[u8]>,
    ) -> Result<LogPosition, Refusal> {
        self.asking().check(&Resource::Queue(queue.clone()), Access::Write)?;
        let destination = BoundTo::Queue(queue.clone());
        let arguments = Arguments::new();
        self.vhost.bind(Binding { source, destination, routing_key: key, arguments }, self.id)
    }

    fn consume(
        &mut self,
        named: Named<'_>,
        request: &Request<'_>,
        source: &Source,
        receipt: Option<&[u8]>,
    ) -> Result<(), StompError> {
        let queue = &source.queue;
        let name = &queue.spec.name;
        self.asking().check(&Resource::Queue(name.clone()), Access::Read)?;
        let Named { consumer_tag, description, id } = named;
        let slot = self.outlet().lock().deliveries.add(NewSubscription {
            consumer_tag: &consumer_tag,
            id,
            queue: Arc::clone(queue),
            mode: request.mode,
            prefetch: request.prefetch,
        });
        let mut arguments = Arguments::new();
        if let Some(priority) = request.priority {
            arguments.set("x-priority", Value::Long(priority));
        }
        let subscription = Subscription {
            sink: Arc::clone(self.outlet()) as Arc<_>,
            slot,
            tag: String::from_utf8_lossy(&consumer_tag).into(),
            channel: self.shared.channel_name().into(),
            no_ack: request.mode == AckMode::Auto,
            exclusive: false,
            prefetch_count: request.prefetch,
            priority: request.priority.unwrap_or(0),
            arguments,
        };
        let (outlet, end) = (Arc::clone(self.outlet()), self.frame_end());
        let is_next = receipt.is_some()
            && self.subscribed_at(source) <= self.node.broker.log.durable_up_to()
            && !self.waits_for_receipts();
        let started = |consumer| {
            let mut state = outlet.lock();
            state.deliveries.started(slot, consumer);
            if let Some(receipt) = receipt.filter(|_| is_next) {
                write_receipt(state.out.octets(), receipt, end);
            }
        };
        let now = self.node.clock.now();
        if let Err(error) = queue.subscribe(subscription, started, now, &mut self.effects) {
            self.outlet().lock().deliveries.end(slot);
            let (queue, vhost) = (name.clone(), self.vhost.name.clone());
            return Err(StompError::from(match error {
                SubscribeError::ExclusiveUse => Refusal::ExclusiveUse { queue, vhost },
                SubscribeError::Deleted => {
                    Refusal::NotFound { resource: Resource::Queue(queue), vhost }
                }
            }));
        }
        let own_queue = source.own.then(|| name.clone());
        let id = id.map(Into::into);
        let subscribed = Subscribed { slot, description, id, own_queue };
        self.subscriptions.insert(consumer_tag.into(), subscribed);
        self.carry_out(queue, now);
        self.done_at = self.done_at.max(source.defined_at);
        if let Some(receipt) = receipt.filter(|_| !is_next) {
            self.receipt_when_done(receipt, Of::Other);
        }
        Ok(())
    }

    pub(super) fn on_unsubscribe(&mut self, frame: &Frame<'_>) -> Result<(), StompError> {
        let headers = &frame.headers;
        let durable = is_durable(headers);
        let named = match (headers.get("id"), headers.get("destination")) {
            (Some(id), _) if id.starts_with(TEMP_QUEUE) => return Err(StompError::temp_queue_id()),
            (Some(id), _) => Named::by_id(id),
            (None, _) if durable => return Err(StompError::missing_id_for_durable()),
            (None, Some(destination)) => Named::by_destination(destination),
            (None, None) => return Err(StompError::missing_destination_or_id()),
        };
        let subscribed = self
            .subscriptions
            .get(&*named.consumer_tag)
            .ok_or_else(|| StompError::no_such_subscription(&named.description))?;
        let slot = subscribed.slot;
        let delete = subscribed.own_queue.clone().filter(|_| durable);
        if let Some(queue) = &delete {
            self.asking().check(&Resource::Queue(queue.clone()), Access::Configure)?;
        }
        self.subscriptions.remove(&*named.consumer_tag);
        self.cancel(slot, self.node.clock.now());
        if let Some(queue) = delete {
            let removed = self.vhost.delete_queue(&queue, Some(self.id), false, false)?;
            self.done_at = self.done_at.max(removed.position);
            self.declared.remove(&queue);
        }
        Ok(())
    }

    /// Ends a subscription; what it has not acknowledged stays.
    pub(super) fn cancel(&mut self, slot: u32, now: u64) {
        let consumer = self.outlet().lock().deliveries.consumer(slot);
        if let Some(consumer) = consumer {
            consumer.queue.cancel(consumer.consumer, now, &mut self.effects);
            self.carry_out(&consumer.queue, now);
        }
        self.outlet().lock().deliveries.end(slot);
    }

    /// The queue of a subscription is gone: the client is told.
    pub(super) fn on_cancelled(&mut self, slot: u32) {
        let mut state = self.shared.outlet.lock();
        let consumer_tag = state.deliveries.get(slot).map(|there| there.consumer_tag().to_vec());
        state.deliveries.end(slot);
        drop(state);
        let Some(consumer_tag) = consumer_tag else { return };
        let ours = self.subscriptions.get(&*consumer_tag).is_some_and(|there| there.slot == slot);
        if !ours {
            // The client has ended it in the meantime.
            return;
        }
        let Some(subscribed) = self.subscriptions.remove(&*consumer_tag) else { return };
        if let Some(id) = &subscribed.id {
            self.temp_queues.remove(id);
        }
        let error = StompError::cancelled(&subscribed.description, subscribed.id.as_deref());
        error.write(None, self.shared.outlet.lock().out.octets(), self.frame_end());
    }

    /// The queue behind a `/temp-queue/…`, made and subscribed to on its first use.
    pub(super) fn temp_queue(&mut self, destination: &[u8]) -> Result<QueueName, StompError> {
        if let Some(queue) = self.temp_queues.get(destination) {
            return Ok(queue.clone());
        }
        let named = Named::by_id(destination);
        self.check_new(&named)?;
        let name = identifier::random(TEMP_QUEUE_NAME);
        let name = QueueName::new(&name).map_err(|_| StompError::processing())?;
        self.asking().check(&Resource::Queue(name.clone()), Access::Configure)?;
        let declaration = QueueDeclaration {
            name: name.clone(),
            server_named: true,
            durable: false,
            exclusive: true,
            auto_delete: true,
            arguments: Arguments::new(),
        };
        let now = self.node.clock.now();
        let DeclaredQueue { queue, new } = self.vhost.declare_queue(declaration, self.id, now)?;
        let defined_at = queue.defined_at;
        let source = Source { queue, own: true, new, defined_at };
        let consumed = self.consume(named, &Request::of_temp_queue(destination), &source, None);
        if let Err(error) = consumed {
            self.undo_declare(&name);
            return Err(error);
        }
        self.temp_queues.insert(destination.into(), name.clone());
        Ok(name)
    }
}
