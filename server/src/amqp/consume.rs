//! The taking half of the `basic` class: consume, cancel, get, qos, ack, nack, reject, recover.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64_id::server_name;
use broker_core::access::Access;
use broker_core::arguments::Arguments;
use broker_core::consumer::{ConsumerId, Fate, Outstanding, Subscription};
use broker_core::delivery_count::with_delivery_count;
use broker_core::name::QueueName;
use broker_core::queue::arguments::{QueueType, consumer_priority};
use broker_core::queue::{Effects, Got, Queue, QueueId, Settle as QueueSettle, SubscribeError};
use broker_core::vhost::QueueDeclaration;
use broker_core::{Refusal, Resource};
use hashbrown::HashMap;
use proto_amqp::control::protocol::{AMQPClass, basic as method};
use proto_amqp::{ChannelId, GetOk, MethodId, ReplyCode, basic, control};
use smallvec::SmallVec;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::deliveries::{NewConsumer, Resumable, write_content};
use super::error::Exception;
use super::publish::REPLY_TO;
use super::session::Session;
use super::unacked::Settled;
use crate::counters::Protocol;

pub(super) mod base64_id {
    //! Names that the broker makes up.

    /// A prefix and 22 characters that nobody guesses: 16 random octets, URL-safe.
    pub(in crate::amqp) fn server_name(prefix: &str) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let random: u128 = rand::random();
        let mut name = String::with_capacity(prefix.len() + 22);
        name.push_str(prefix);
        for index in 0..22 {
            let six_bits = (random >> (index * 6)) & 63;
            let letter = usize::try_from(six_bits).ok().and_then(|index| ALPHABET.get(index));
            name.push(char::from(letter.copied().unwrap_or(b'A')));
        }
        name
    }
}

const QOS: MethodId = MethodId { class: 60, method: 10 };
const CONSUME: MethodId = MethodId { class: 60, method: 20 };
const GET: MethodId = MethodId { class: 60, method: 70 };
const ACK: MethodId = MethodId { class: 60, method: 80 };
const REJECT: MethodId = MethodId { class: 60, method: 90 };
const RECOVER_ASYNC: MethodId = MethodId { class: 60, method: 100 };
const RECOVER: MethodId = MethodId { class: 60, method: 110 };
const NACK: MethodId = MethodId { class: 60, method: 120 };

/// Which deliveries a method settles, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settle {
    pub(super) tag: u64,
    pub(super) multiple: bool,
    pub(super) fate: Fate,
    pub(super) method: MethodId,
}

impl From<proto_amqp::Ack> for Settle {
    fn from(ack: proto_amqp::Ack) -> Self {
        let (tag, multiple) = (ack.delivery_tag, ack.multiple);
        Self { tag, multiple, fate: Fate::Acked, method: ACK }
    }
}

impl From<proto_amqp::Nack> for Settle {
    fn from(nack: proto_amqp::Nack) -> Self {
        let fate = if nack.requeue { Fate::Requeued } else { Fate::Rejected };
        Self { tag: nack.delivery_tag, multiple: nack.multiple, fate, method: NACK }
    }
}

impl From<proto_amqp::Reject> for Settle {
    fn from(reject: proto_amqp::Reject) -> Self {
        let fate = if reject.requeue { Fate::Requeued } else { Fate::Rejected };
        Self { tag: reject.delivery_tag, multiple: false, fate, method: REJECT }
    }
}

/// Deliveries settled in a transaction, with their tags for a rollback.
#[derive(Debug)]
pub(super) struct Settlement {
    pub(super) fate: Fate,
    pub(super) deliveries: Vec<(u64, Settled)>,
}

/// Settlements of one channel and one fate that arrived one after the other.
#[derive(Debug, Default)]
pub(super) struct Settling {
    channel: u16,
    pending: Vec<Settle>,
}

impl Settling {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether a settlement can join those that wait.
    pub(super) fn takes(&self, channel: u16, settle: &Settle) -> bool {
        self.pending.last().is_none_or(|last| self.channel == channel && last.fate == settle.fate)
    }

    pub(super) fn push(&mut self, channel: u16, settle: Settle) {
        self.channel = channel;
        self.pending.push(settle);
    }
}

type ConsumerIds = SmallVec<[ConsumerId; 4]>;

impl Session {
    /// Settles what has gathered, under one hold of each lock. A tag that is not there closes the channel,
    /// after those before it have been settled.
    pub(super) fn flush_settling(
        &mut self,
        settling: &mut Settling,
    ) -> Result<(), (ChannelId, Exception)> {
        let Some(first) = settling.pending.first() else { return Ok(()) };
        let (number, fate) = (settling.channel, first.fate);
        let id = ChannelId(number);
        let Some(channel) = self.channels.get_mut(&number) else {
            settling.pending.clear();
            return Ok(());
        };
        let mut settled = std::mem::take(&mut self.scratch.settled);
        let mut failed = None;
        let mut in_transaction = Vec::new();
        {
            let mut state = self.outlet.lock();
            if let Some(deliveries) = state.deliveries.channels.get_mut(&number) {
                for settle in settling.pending.drain(..) {
                    let before = settled.len();
                    let tags: Vec<u64> = match (&channel.transaction, settle.multiple) {
                        (None, _) => Vec::new(),
                        (Some(_), true) => deliveries.unacked.tags_up_to(settle.tag).collect(),
                        (Some(_), false) => vec![settle.tag],
                    };
                    let found = if settle.multiple {
                        deliveries.unacked.take_up_to(settle.tag, &mut settled)
                    } else {
                        deliveries.unacked.take(settle.tag, &mut settled)
                    };
                    if !found {
                        let text = format!("unknown delivery tag {}", settle.tag);
                        failed = Some((id, Exception::precondition(text, settle.method)));
                        break;
                    }
                    if channel.transaction.is_some() {
                        in_transaction.extend(tags.into_iter().zip(settled.drain(before..)));
                    }
                }
            }
        }
        settling.pending.clear();
        if let Some(transaction) = &mut channel.transaction
            && !in_transaction.is_empty()
        {
            let settlement = Settlement { fate, deliveries: in_transaction };
            transaction.settle(settlement, &channel.facts);
        }
        self.settle(id, fate, &mut settled);
        self.scratch.settled = settled;
        failed.map_or(Ok(()), Err)
    }

    /// Carries out what a transaction had settled.
    pub(super) fn carry_out_settlement(&mut self, id: ChannelId, settlement: Settlement) {
        let mut settled = settlement.deliveries.into_iter().map(|(_, settled)| settled).collect();
        self.settle(id, settlement.fate, &mut settled);
    }

    /// What a transaction has settled, queue by queue. Their consumers have credit again from now on: those that can go
    /// on are added to `resumable`.
    pub(super) fn settles_of(
        &mut self,
        id: ChannelId,
        settlements: Vec<Settlement>,
        resumable: &mut Vec<Resumable>,
    ) -> Vec<QueueSettle> {
        let mut settles = Vec::new();
        let mut queues = Vec::new();
        for Settlement { fate, deliveries } in settlements {
            let mut settled: Vec<Settled> =
                deliveries.into_iter().map(|(_, settled)| settled).collect();
            if fate == Fate::Acked {
                let counters = self.node.counters.of(Protocol::Amqp);
                counters.acknowledged.increment(settled.len() as u64);
            }
            let state = &mut self.outlet.lock().deliveries;
            state.settled(id.0, &settled, &mut queues, resumable);
            for (slot, queue) in queues.drain(..) {
                let own = settled.extract_if(.., |settled| settled.slot == slot);
                let entries: Vec<Outstanding> = own.map(|settled| settled.entry).collect();
                settles.push(QueueSettle { queue, fate, entries });
            }
        }
        settles
    }

    /// Gives settled deliveries back to their queues; leaves `settled` empty.
    fn settle(&mut self, id: ChannelId, fate: Fate, settled: &mut Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        if fate == Fate::Acked {
            let counters = self.node.counters.of(Protocol::Amqp);
            counters.acknowledged.increment(settled.len() as u64);
        }
        let mut queues = std::mem::take(&mut self.scratch.queues);
        let mut resumable = std::mem::take(&mut self.scratch.resumable);
        self.outlet.lock().deliveries.settled(id.0, settled, &mut queues, &mut resumable);
        let now = self.node.clock.now();
        let mut entries = std::mem::take(&mut self.scratch.entries);
        let only_one = queues.len() == 1;
        for (slot, queue) in queues.drain(..) {
            if only_one {
                entries.extend(settled.drain(..).map(|settled| settled.entry));
            } else {
                let own = settled.extract_if(.., |settled| settled.slot == slot);
                entries.extend(own.map(|settled| settled.entry));
            }
            self.settle_in(&queue, fate, &mut entries, now);
        }
        settled.clear();
        self.resume(&mut resumable, now);
        self.scratch.entries = entries;
        self.scratch.queues = queues;
        self.scratch.resumable = resumable;
    }

    fn settle_in(
        &mut self,
        queue: &Arc<Queue>,
        fate: Fate,
        entries: &mut Vec<Outstanding>,
        now: u64,
    ) {
        let effects = &mut self.effects;
        match fate {
            Fate::Acked => {
                queue.ack(entries);
            }
            Fate::Requeued => queue.requeue(entries, now, effects),
            Fate::Rejected => queue.reject(entries, effects),
        }
        self.carry_out(queue, now);
    }

    /// Does what the last call into a queue left to do.
    fn carry_out(&mut self, queue: &Arc<Queue>, now: u64) {
        if !self.effects.is_empty()
            && let Some(vhost) = &self.vhost
        {
            vhost.carry_out(queue, &mut self.effects, now);
            self.effects.rejected.clear();
        }
    }

    /// Offers consumers to their queues again.
    pub(super) fn resume(&mut self, resumable: &mut Vec<Resumable>, now: u64) {
        // All of a queue at once, so that they take turns.
        let mut groups: SmallVec<[(Arc<Queue>, ConsumerIds); 1]> = SmallVec::new();
        let mut places: HashMap<QueueId, usize> = HashMap::new();
        let is_one = resumable.len() == 1;
        for Resumable { queue, id } in resumable.drain(..) {
            let new = groups.len();
            let place = if is_one { new } else { *places.entry(queue.id).or_insert(new) };
            match groups.get_mut(place) {
                Some((_, ids)) => ids.push(id),
                None => groups.push((queue, ConsumerIds::from_slice(&[id]))),
            }
        }
        for (queue, ids) in groups {
            queue.resume(&ids, now, &mut self.effects);
            self.carry_out(&queue, now);
        }
    }

    pub(super) fn on_basic(
        &mut self,
        id: ChannelId,
        basic: method::AMQPMethod,
        payload: &[u8],
    ) -> Result<(), Exception> {
        use method::AMQPMethod as Basic;
        match basic {
            Basic::Qos(qos) => self.on_qos(id, &qos, payload),
            Basic::Consume(consume) => self.on_consume(id, &consume, payload),
            Basic::Cancel(cancel) => {
                self.on_cancel(id, &cancel);
                Ok(())
            }
            Basic::Get(get) => self.on_get(id, &get),
            Basic::RecoverAsync(recover) => {
                self.on_recover(id, recover.requeue, RECOVER_ASYNC, payload)
            }
            Basic::Recover(recover) => self.on_recover(id, recover.requeue, RECOVER, payload),
            other => {
                let class = AMQPClass::Basic(other);
                Err(Exception::unimplemented(proto_amqp::method::id_of(&class, self.version)))
            }
        }
    }

    fn on_qos(
        &mut self,
        id: ChannelId,
        qos: &method::Qos,
        payload: &[u8],
    ) -> Result<(), Exception> {
        if let Some(size @ 1..) = control::qos_prefetch_size(payload) {
            return Err(Exception::not_implemented(format!("prefetch_size!=0 ({size})"), QOS));
        }
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        let mut resumable = Vec::new();
        let global = if qos.global {
            qos.prefetch_count
        } else {
            channel.prefetch = qos.prefetch_count;
            // RabbitMQ: a limit for consumers to come takes the channel's own away.
            0
        };
        // Relaxed: for lists.
        channel.facts.prefetch.store(channel.prefetch.into(), Ordering::Relaxed);
        channel.facts.global_prefetch.store(global.into(), Ordering::Relaxed);
        {
            let mut state = self.outlet.lock();
            if let Some(deliveries) = state.deliveries.channels.get_mut(&id.0) {
                deliveries.global_prefetch = global.into();
            }
            state.deliveries.resume_starved(id.0, &mut resumable);
        }
        self.send(id, AMQPClass::Basic(method::AMQPMethod::QosOk(method::QosOk {})));
        let now = self.node.clock.now();
        self.resume(&mut resumable, now);
        Ok(())
    }

    fn on_consume(
        &mut self,
        id: ChannelId,
        consume: &method::Consume,
        payload: &[u8],
    ) -> Result<(), Exception> {
        let refused = |refusal: Refusal| Exception::refused(&refusal, CONSUME);
        let (Some(vhost), Some(identity)) = (self.vhost.clone(), self.identity.clone()) else {
            return Ok(());
        };
        let arguments = control::argument_table(payload, self.version)
            .map(Arguments::from_table)
            .unwrap_or_default();
        let max = self.node.settings.amqp.max_consumers_per_channel as usize;
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        let direct_reply = consume.queue.as_str() == REPLY_TO;
        let name = if direct_reply {
            None
        } else {
            Some(channel.queue_name(consume.queue.as_str()).ok_or_else(|| {
                Exception::new(ReplyCode::NOT_FOUND, "no previously declared queue", CONSUME)
            })?)
        };
        let tag: Arc<str> = match consume.consumer_tag.as_str() {
            "" => server_name("amq.ctag-").into(),
            tag => tag.into(),
        };
        if channel.consumers.contains_key(&tag) {
            let text = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text, CONSUME));
        }
        if channel.consumers.len() >= max {
            let text = format!("reached maximum ({max}) of consumers per channel");
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text, CONSUME));
        }
        let now = self.node.clock.now();
        let (queue, priority) = match name {
            Some(name) => {
                let resource = Resource::Queue(name.clone());
                let access = &self.node.broker.access;
                access
                    .check(&identity.user, &identity.vhost, &resource, Access::Read)
                    .map_err(refused)?;
                let queue = vhost.queue_for(&name, self.id).map_err(refused)?;
                let queue_type = queue.spec.settings.queue_type;
                let priority = consumer_priority(&arguments, queue_type).map_err(|error| {
                    refused(Refusal::InvalidArgument {
                        key: error.key.into(),
                        resource,
                        vhost: vhost.name.clone(),
                        fault: error.fault,
                    })
                })?;
                // Relaxed: this task writes it.
                let limited = channel.facts.global_prefetch.load(Ordering::Relaxed) > 0;
                if limited && queue_type == QueueType::Quorum {
                    let vhost = &vhost.name;
                    let text =
                        format!("queue '{name}' in vhost '{vhost}' does not support global qos");
                    return Err(Exception::not_implemented(text, CONSUME));
                }
                (queue, priority)
            }
            None => {
                if !consume.no_ack {
                    let text = "reply consumer cannot acknowledge";
                    return Err(Exception::precondition(text, CONSUME));
                }
                if channel.reply_queue.is_some() {
                    return Err(Exception::precondition("reply consumer already set", CONSUME));
                }
                let name = server_name("amq.rabbitmq.reply-to.g1.");
                let name = QueueName::new(&name).map_err(|_| Exception::unimplemented(CONSUME))?;
                let declaration = QueueDeclaration {
                    name: name.clone(),
                    server_named: true,
                    durable: false,
                    exclusive: true,
                    auto_delete: true,
                    arguments: Arguments::new(),
                };
                let declared = vhost.declare_queue(declaration, self.id, now).map_err(refused)?;
                channel.reply_queue = Some(name);
                // RabbitMQ: its arguments are not looked at; there is nobody to have priority over.
                (declared.queue, 0)
            }
        };
        let slot = self.outlet.lock().deliveries.add_consumer(NewConsumer {
            channel: id.0,
            tag: Arc::clone(&tag),
            queue: Arc::clone(&queue),
            no_ack: consume.no_ack,
            prefetch: channel.prefetch.into(),
        });
        let subscription = Subscription {
            sink: Arc::clone(&self.outlet) as Arc<_>,
            slot,
            tag: Arc::clone(&tag),
            channel: format!("{} ({})", self.name, id.0).into(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch_count: channel.prefetch,
            priority,
            arguments,
        };
        let consume_ok = (!consume.nowait).then(|| {
            let consume_ok = method::ConsumeOk { consumer_tag: (&*tag).into() };
            AMQPClass::Basic(method::AMQPMethod::ConsumeOk(consume_ok))
        });
        let (outlet, version) = (Arc::clone(&self.outlet), self.version);
        let started = |consumer| {
            let mut state = outlet.lock();
            state.deliveries.consumer_started(slot, consumer);
            if let Some(consume_ok) = &consume_ok {
                super::session::encode(id, consume_ok, version, state.out.octets());
            }
        };
        match queue.subscribe(subscription, started, now, &mut self.effects) {
            Ok(_) => {
                channel.consumers.insert(tag, slot);
                let count = u32::try_from(channel.consumers.len()).unwrap_or(u32::MAX);
                channel.facts.consumers.store(count, Ordering::Relaxed);
                self.carry_out(&queue, now);
                Ok(())
            }
            Err(error) => {
                self.outlet.lock().deliveries.remove_consumer(slot);
                let (queue, vhost) = (queue.spec.name.clone(), vhost.name.clone());
                Err(refused(match error {
                    SubscribeError::ExclusiveUse => Refusal::ExclusiveUse { queue, vhost },
                    SubscribeError::Deleted => {
                        Refusal::NotFound { resource: Resource::Queue(queue), vhost }
                    }
                }))
            }
        }
    }

    fn on_cancel(&mut self, id: ChannelId, cancel: &method::Cancel) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        if let Some(slot) = channel.consumers.remove(cancel.consumer_tag.as_str()) {
            let count = u32::try_from(channel.consumers.len()).unwrap_or(u32::MAX);
            channel.facts.consumers.store(count, Ordering::Relaxed);
            self.cancel_consumer(id, slot);
        }
        if !cancel.nowait {
            let cancel_ok = method::CancelOk { consumer_tag: cancel.consumer_tag.clone() };
            self.send(id, AMQPClass::Basic(method::AMQPMethod::CancelOk(cancel_ok)));
        }
    }

    /// Takes a consumer out of its queue.
    pub(super) fn cancel_consumer(&mut self, id: ChannelId, slot: u32) {
        let found = self.outlet.lock().deliveries.subscribed(slot);
        let Some((queue, consumer)) = found else { return };
        let now = self.node.clock.now();
        // The queue first: as long as it knows the consumer, it may deliver to it.
        if let Some(consumer) = consumer {
            queue.cancel(consumer, now, &mut self.effects);
        }
        self.outlet.lock().deliveries.remove_consumer(slot);
        self.carry_out(&queue, now);
        if let Some(channel) = self.channels.get_mut(&id.0)
            && channel.reply_queue.as_ref() == Some(&queue.spec.name)
        {
            channel.reply_queue = None;
        }
    }

    /// Queues of consumers were deleted: clients that want to know are told.
    pub(super) fn notify_cancelled(&mut self, slots: Vec<u32>) {
        for slot in slots {
            let found = {
                let state = self.outlet.lock();
                state
                    .deliveries
                    .consumer(slot)
                    .map(|consumer| (consumer.channel, Arc::clone(&consumer.tag)))
            };
            let Some((number, tag)) = found else { continue };
            let id = ChannelId(number);
            self.cancel_consumer(id, slot);
            let Some(channel) = self.channels.get_mut(&number) else { continue };
            if channel.consumers.remove(&tag).is_none() {
                continue;
            }
            let count = u32::try_from(channel.consumers.len()).unwrap_or(u32::MAX);
            channel.facts.consumers.store(count, Ordering::Relaxed);
            if self.capabilities.consumer_cancel_notify && !channel.closing {
                let cancel = method::Cancel { consumer_tag: (&*tag).into(), nowait: true };
                self.send(id, AMQPClass::Basic(method::AMQPMethod::Cancel(cancel)));
            }
        }
    }

    fn on_get(&mut self, id: ChannelId, get: &method::Get) -> Result<(), Exception> {
        let refused = |refusal: Refusal| Exception::refused(&refusal, GET);
        let (Some(vhost), Some(identity)) = (self.vhost.clone(), self.identity.clone()) else {
            return Ok(());
        };
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        let name = channel.queue_name(get.queue.as_str()).ok_or_else(|| {
            Exception::new(ReplyCode::NOT_FOUND, "no previously declared queue", GET)
        })?;
        let resource = Resource::Queue(name.clone());
        let access = &self.node.broker.access;
        access.check(&identity.user, &identity.vhost, &resource, Access::Read).map_err(refused)?;
        let queue = vhost.queue_for(&name, self.id).map_err(refused)?;
        let settings = &queue.spec.settings;
        if settings.queue_type == QueueType::Quorum && settings.single_active_consumer {
            let text = format!(
                "cannot obtain access to locked queue '{name}' in vhost '{}'. basic.get operations are \
                 not supported by quorum queues with single active consumer",
                vhost.name
            );
            return Err(Exception::new(ReplyCode::RESOURCE_LOCKED, text, GET));
        }
        let now = self.node.clock.now();
        let mut effects = Effects::default();
        let found = match queue.may_wait() {
            true => off_worker(|| queue.get(get.no_ack, now, &mut effects)),
            false => queue.get(get.no_ack, now, &mut effects),
        };
        vhost.carry_out(&queue, &mut effects, now);
        let counters = self.node.counters.of(Protocol::Amqp);
        let found = found.map_err(|error| {
            let text = format!("queue '{name}' in vhost '{}': {error}", vhost.name);
            Exception::precondition(text, GET)
        })?;
        let Some(Got { message, outstanding, left }) = found else {
            counters.get_empty.increment(1);
            let empty = method::AMQPMethod::GetEmpty(method::GetEmpty {});
            self.send(id, AMQPClass::Basic(empty));
            return Ok(());
        };
        counters.delivered.increment(1);
        if get.no_ack {
            counters.get_auto_ack.increment(1);
        } else {
            counters.get_manual_ack.increment(1);
        }
        let (redelivered, returns) = (outstanding.redelivered, outstanding.returns);
        counters.redelivered.increment(u64::from(redelivered));
        let mut state = self.outlet.lock();
        let kept = (!get.no_ack).then_some(outstanding);
        let delivery_tag = state.deliveries.note_get(id.0, &queue, kept);
        let mut parts = message.parts();
        let counted = with_delivery_count(&queue, returns, parts.properties);
        if let Some(counted) = &counted {
            parts.properties = counted;
        }
        let get_ok = GetOk {
            delivery_tag,
            redelivered,
            exchange: parts.exchange,
            routing_key: parts.routing_key,
            message_count: u32::try_from(left).unwrap_or(u32::MAX),
        };
        let frame_max = state.deliveries.frame_max;
        basic::write_get_ok(state.out.octets(), id, &get_ok);
        write_content(&mut state.out, id, &parts, frame_max);
        Ok(())
    }

    fn on_recover(
        &mut self,
        id: ChannelId,
        requeue: bool,
        method: MethodId,
        payload: &[u8],
    ) -> Result<(), Exception> {
        if !requeue {
            return Err(Exception::not_implemented("requeue=false", method));
        }
        let mut settled = Vec::new();
        if let Some(deliveries) = self.outlet.lock().deliveries.channels.get_mut(&id.0) {
            deliveries.unacked.take_up_to(0, &mut settled);
        }
        if method != RECOVER_ASYNC {
            let request = MethodId::of_payload(payload).unwrap_or(method);
            control::encode_recover_ok(id, request, self.outlet.lock().out.octets());
        }
        self.settle(id, Fate::Requeued, &mut settled);
        Ok(())
    }

    /// Gives everything that a channel has not acknowledged back.
    pub(super) fn requeue_all(&mut self, id: ChannelId) {
        let mut settled = self.outlet.lock().deliveries.take_unacked(id.0);
        self.settle(id, Fate::Requeued, &mut settled);
    }
}

/// Runs what may wait for the disk where it holds up no other connection.
fn off_worker<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
