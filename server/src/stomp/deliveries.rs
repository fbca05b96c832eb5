//! The half of a session that queues deliver into: subscriptions with their credit and what they have not
//! acknowledged.
//!
//! All of it lies behind the outlet's mutex, beside the octets to be written, because a delivery changes both: the
//! MESSAGE is written straight into the buffer, takes a tag, and is kept until its ACK. The publisher's task does
//! that, not the subscriber's.

use std::sync::Arc;

use broker_core::Parts;
use broker_core::consumer::{ConsumerId, Delivery, Outstanding, Run, Sink};
use broker_core::delivery_count::with_delivery_count;
use broker_core::queue::Queue;
use hashbrown::HashMap;
use proto_amqp::properties;
use proto_stomp::{Command, FrameEnd, FrameWriter, Version};
use smallvec::SmallVec;

use super::destination::{needs_percent, percent_encode};
use super::properties::write_headers;
use super::subscription::AckMode;
use super::unacked::Unacked;
use crate::counters::Protocol;
use crate::node::Node;
use crate::outbox::{OutBuffer, Outlet};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The delivery state of a session.
pub(super) struct Deliveries {
    node: Arc<Node>,
    protocol: Protocol,
    version: Version,
    /// `@@session-…@@`, as it stands in the middle of every message-id.
    session_part: Box<[u8]>,
    last_tag: u64,
    /// Deliveries of all subscriptions that wait for their ACK.
    unacked: usize,
    subscriptions: Map<u32, Subscription>,
    /// Slots by consumer tag: those of ended subscriptions stay until all is acknowledged.
    slots: Map<Box<[u8]>, SmallVec<[u32; 1]>>,
    next_slot: u32,
    /// Subscriptions that were left without room in the outbox.
    cramped: Vec<u32>,
    /// Subscriptions that were left without credit.
    starved: Vec<u32>,
    /// Subscriptions whose queue is gone, for the session's task to tell the client.
    cancelled: Vec<u32>,
    /// Names with octets that a `destination` cannot hold as they are.
    encoded: Vec<u8>,
}

/// A subscription as its queue sees it.
pub(super) struct Subscription {
    /// `T_` and the id, or `Q_` and the destination.
    consumer_tag: Box<[u8]>,
    /// What stands in the `subscription` header; `None` for one without an id.
    id: Option<Box<[u8]>>,
    queue: Arc<Queue>,
    /// Its number in the queue; `None` before the queue has taken it.
    consumer: Option<ConsumerId>,
    mode: AckMode,
    /// The most deliveries that wait for their ACK; 0 is no limit.
    prefetch: u32,
    unacked: Unacked,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    /// It has ended, but some of its deliveries are not acknowledged.
    Ended,
}

/// What a new subscription is.
pub(super) struct NewSubscription<'n> {
    pub(super) consumer_tag: &'n [u8],
    pub(super) id: Option<&'n [u8]>,
    pub(super) queue: Arc<Queue>,
    pub(super) mode: AckMode,
    pub(super) prefetch: u16,
}

/// A consumer that a queue may offer to again.
pub(super) struct Resumable {
    pub(super) queue: Arc<Queue>,
    pub(super) consumer: ConsumerId,
}

/// A delivery that was settled.
pub(super) struct Settled {
    pub(super) slot: u32,
    pub(super) tag: u64,
    pub(super) entry: Outstanding,
}

/// How far the ACK of a subscription in mode `client` reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    One,
    /// All earlier deliveries of the same subscription.
    Subscription,
    /// All earlier deliveries of the connection.
    Connection,
}

/// Why a delivery cannot be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOutstanding {
    Subscription,
    Delivery,
}

impl Subscription {
    fn credit(&self, left: usize) -> usize {
        match (self.mode, self.prefetch) {
            (AckMode::Auto, _) => usize::MAX,
            (_, 0) => left,
            (_, prefetch) => (prefetch as usize).saturating_sub(self.unacked.len()).min(left),
        }
    }

    fn resumable(&self) -> Option<Resumable> {
        let consumer = self.consumer?;
        let queue = Arc::clone(&self.queue);
        (self.state == State::Active).then_some(Resumable { queue, consumer })
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(super) fn consumer_tag(&self) -> &[u8] {
        &self.consumer_tag
    }
}

impl Deliveries {
    /// The state before login: nothing is delivered.
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            protocol: Protocol::Stomp1_0,
            version: Version::V1_0,
            session_part: Box::default(),
            last_tag: 0,
            unacked: 0,
            subscriptions: Map::default(),
            slots: Map::default(),
            next_slot: 0,
            cramped: Vec::new(),
            starved: Vec::new(),
            cancelled: Vec::new(),
            encoded: Vec::new(),
        }
    }

    /// Somebody has logged in.
    pub(super) fn start(&mut self, protocol: Protocol, version: Version, session: &str) {
        self.protocol = protocol;
        self.version = version;
        self.session_part = format!("@@{session}@@").into_bytes().into();
    }

    pub(super) fn unacked(&self) -> usize {
        self.unacked
    }

    fn unacked_max(&self) -> usize {
        // A session is what AMQP calls a channel, and has its bound.
        self.node.settings.amqp.max_unacked_per_channel as usize
    }

    pub(super) fn add(&mut self, new: NewSubscription<'_>) -> u32 {
        let slot = self.next_slot;
        // Never used twice: a queue may still name a slot whose subscription has just ended.
        self.next_slot = self.next_slot.wrapping_add(1);
        self.slots.entry(new.consumer_tag.into()).or_default().push(slot);
        let subscription = Subscription {
            consumer_tag: new.consumer_tag.into(),
            id: new.id.map(Into::into),
            queue: new.queue,
            consumer: None,
            mode: new.mode,
            prefetch: new.prefetch.into(),
            unacked: Unacked::default(),
            state: State::Active,
        };
        self.subscriptions.insert(slot, subscription);
        slot
    }

    /// The queue has taken the consumer: from now on it can be resumed.
    pub(super) fn started(&mut self, slot: u32, consumer: ConsumerId) {
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription.consumer = Some(consumer);
        }
    }

    pub(super) fn get(&self, slot: u32) -> Option<&Subscription> {
        self.subscriptions.get(&slot)
    }

    /// Where to cancel a subscription: to be done before [`end`](Self::end), so that nothing is on its way.
    pub(super) fn consumer(&self, slot: u32) -> Option<Resumable> {
        self.subscriptions.get(&slot).and_then(Subscription::resumable)
    }

    /// Ends a subscription; what it has not acknowledged stays.
    pub(super) fn end(&mut self, slot: u32) {
        self.starved.retain(|starved| *starved != slot);
        self.cramped.retain(|cramped| *cramped != slot);
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription.state = State::Ended;
            self.forget_if_done(slot);
        }
    }

    fn forget_if_done(&mut self, slot: u32) {
        let Some(subscription) = self.subscriptions.get(&slot) else { return };
        if subscription.state == State::Active || subscription.unacked.len() > 0 {
            return;
        }
        if let Some(slots) = self.slots.get_mut(&subscription.consumer_tag) {
            slots.retain(|there| *there != slot);
            if slots.is_empty() {
                self.slots.remove(&subscription.consumer_tag);
            }
        }
        self.subscriptions.remove(&slot);
    }

    /// The slot of a delivery, and how far its ACK reaches.
    fn find(&self, consumer_tag: &[u8], tag: u64) -> Result<(u32, Reach), NotOutstanding> {
        let slots = self.slots.get(consumer_tag).ok_or(NotOutstanding::Subscription)?;
        let holder = slots.iter().find_map(|slot| {
            let subscription = self.subscriptions.get(slot)?;
            subscription.unacked.holds(tag).then_some((*slot, subscription.mode))
        });
        let (slot, mode) = holder.ok_or(NotOutstanding::Delivery)?;
        let reach = match (mode, self.version) {
            (AckMode::Auto | AckMode::ClientIndividual, _) => Reach::One,
            // RabbitMQ: in every version. The texts since 1.1 name the subscription; that of 1.0 does not.
            (AckMode::Client, Version::V1_0) => Reach::Connection,
            (AckMode::Client, _) => Reach::Subscription,
        };
        Ok((slot, reach))
    }

    /// Takes what an ACK or NACK settles.
    ///
    /// # Errors
    /// [`NotOutstanding`]; nothing is settled then.
    // spec: stomp-1.2 SUBSCRIBE "ack"
    pub(super) fn take(
        &mut self,
        consumer_tag: &[u8],
        tag: u64,
        settled: &mut Vec<Settled>,
    ) -> Result<(), NotOutstanding> {
        let (slot, reach) = self.find(consumer_tag, tag)?;
        match reach {
            Reach::One => {
                if let Some(subscription) = self.subscriptions.get_mut(&slot)
                    && let Some(entry) = subscription.unacked.take(tag)
                {
                    self.unacked -= 1;
                    settled.push(Settled { slot, tag, entry });
                }
            }
            Reach::Subscription => self.take_up_to(slot, tag, settled),
            Reach::Connection => {
                let slots: SmallVec<[u32; 8]> = self.subscriptions.keys().copied().collect();
                for slot in slots {
                    self.take_up_to(slot, tag, settled);
                }
            }
        }
        Ok(())
    }

    fn take_up_to(&mut self, slot: u32, tag: u64, settled: &mut Vec<Settled>) {
        let before = settled.len();
        if let Some(subscription) = self.subscriptions.get_mut(&slot) {
            subscription
                .unacked
                .take_up_to(tag, |tag, entry| settled.push(Settled { slot, tag, entry }));
        }
        self.unacked -= settled.len() - before;
    }

    /// Puts deliveries back that were taken a moment ago, because what they were taken for failed.
    pub(super) fn restore(&mut self, settled: impl Iterator<Item = Settled>) {
        for Settled { slot, tag, entry } in settled {
            if let Some(subscription) = self.subscriptions.get_mut(&slot) {
                subscription.unacked.restore(tag, entry);
                self.unacked += 1;
            }
        }
    }

    /// Forgets ended subscriptions that have nothing left to acknowledge.
    pub(super) fn forget_done(&mut self, slots: impl Iterator<Item = u32>) {
        for slot in slots {
            self.forget_if_done(slot);
        }
    }

    /// Takes the subscriptions that were left without credit and have some now.
    pub(super) fn take_fed(&mut self, resumable: &mut Vec<Resumable>) {
        let left = self.unacked_max().saturating_sub(self.unacked);
        let subscriptions = &self.subscriptions;
        self.starved.retain(|slot| {
            let Some(subscription) = subscriptions.get(slot) else { return false };
            let fed = subscription.credit(left) > 0;
            if fed {
                resumable.extend(subscription.resumable());
            }
            !fed
        });
    }

    /// Takes the subscriptions that were left without room in the outbox.
    pub(super) fn take_cramped(&mut self, resumable: &mut Vec<Resumable>) {
        for slot in self.cramped.drain(..) {
            let subscription = self.subscriptions.get(&slot);
            resumable.extend(subscription.and_then(Subscription::resumable));
        }
    }

    pub(super) fn has_cramped(&self) -> bool {
        !self.cramped.is_empty()
    }

    pub(super) fn take_cancelled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.cancelled)
    }

    /// Slots of all subscriptions that have not ended.
    pub(super) fn active(&self) -> Vec<u32> {
        let active = |(slot, subscription): (&u32, &Subscription)| {
            (subscription.state == State::Active).then_some(*slot)
        };
        self.subscriptions.iter().filter_map(active).collect()
    }

    /// Forgets everything; gives what was not acknowledged, queue by queue.
    pub(super) fn take_all(&mut self) -> Vec<(Arc<Queue>, Vec<Outstanding>)> {
        self.slots.clear();
        self.starved.clear();
        self.cramped.clear();
        self.unacked = 0;
        let all = self.subscriptions.drain().map(|(_, mut subscription)| {
            let mut entries = Vec::with_capacity(subscription.unacked.len());
            subscription.unacked.take_up_to(u64::MAX, |_, entry| entries.push(entry));
            (subscription.queue, entries)
        });
        all.filter(|(_, entries)| !entries.is_empty()).collect()
    }

    /// Writes one MESSAGE and gives its tag.
    #[inline]
    fn write(&mut self, slot: u32, delivery: &Delivery<'_>, out: &mut OutBuffer) -> u64 {
        let Some(subscription) = self.subscriptions.get(&slot) else { return self.last_tag };
        self.last_tag += 1;
        let mut parts = delivery.parts();
        let counted =
            with_delivery_count(&subscription.queue, delivery.returns(), parts.properties);
        if let Some(counted) = &counted {
            parts.properties = counted;
        }
        let settings = &self.node.settings.stomp;
        let end = if settings.trailing_lf { FrameEnd::NulLf } else { FrameEnd::Nul };
        let mut frame = FrameWriter::begin(out.octets(), Command::Message);
        if let Some(id) = &subscription.id {
            frame.header(b"subscription", id);
        }
        let topics = settings.default_topic_exchange.as_bytes();
        write_destination(&mut frame, &parts, topics, &mut self.encoded);
        let mut digits = itoa::Buffer::new();
        let message_id = [
            &*subscription.consumer_tag,
            &*self.session_part,
            digits.format(self.last_tag).as_bytes(),
        ];
        frame.header_in_parts(b"message-id", &message_id);
        // spec: stomp-1.2 MESSAGE "ack"
        if self.version == Version::V1_2 && subscription.mode != AckMode::Auto {
            frame.header_in_parts(b"ack", &message_id);
        }
        let redelivered: &[u8] = if delivery.redelivered() { b"true" } else { b"false" };
        frame.header_raw(b"redelivered", redelivered);
        if parts.properties != properties::EMPTY {
            // They were checked when the message came in.
            let properties = properties::summarise(parts.properties).unwrap_or_default();
            write_headers(&mut frame, &properties);
        }
        match parts.large_body {
            None => frame.finish(parts.body, end),
            Some(body) => {
                frame.finish_head(body.len());
                out.splice(body, 0..body.len());
                out.octets().extend_from_slice(end.octets());
            }
        }
        self.last_tag
    }
}

/// Writes the `destination` header: that of the message, not of the subscription.
fn write_destination(
    frame: &mut FrameWriter<'_>,
    parts: &Parts<'_>,
    topic_exchange: &[u8],
    encoded: &mut Vec<u8>,
) {
    let (exchange, key) = (parts.exchange, parts.routing_key);
    let prefix: &[u8] = if exchange.is_empty() {
        b"/queue/"
    } else if exchange == topic_exchange {
        b"/topic/"
    } else {
        b"/exchange/"
    };
    let named = !exchange.is_empty() && exchange != topic_exchange;
    encoded.clear();
    if named {
        percent_encode(exchange, encoded);
        if !key.is_empty() {
            encoded.push(b'/');
        }
    }
    if needs_percent(key) {
        percent_encode(key, encoded);
        frame.header_in_parts(b"destination", &[prefix, encoded]);
    } else {
        frame.header_in_parts(b"destination", &[prefix, encoded, key]);
    }
}

impl Sink for Outlet<Deliveries> {
    fn reserve(&self, slot: u32, wanted: usize) -> usize {
        let mut state = self.lock();
        if state.closed {
            return 0;
        }
        let full = state.out.len() >= state.deliveries.node.settings.limits.outbox_low.as_usize();
        let deliveries = &mut state.deliveries;
        let left = deliveries.unacked_max().saturating_sub(deliveries.unacked);
        let Some(subscription) = deliveries.subscriptions.get(&slot) else { return 0 };
        if full {
            note(&mut deliveries.cramped, slot);
            return 0;
        }
        // Not charged: the queue delivers before it lets go of its lock, and asks nobody twice.
        let granted = subscription.credit(left).min(wanted);
        if granted < wanted {
            note(&mut deliveries.starved, slot);
        }
        granted
    }

    fn deliver(&self, slot: u32, run: &mut Run<'_>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return;
        }
        let was_empty = state.out.is_empty();
        let deliveries = &mut state.deliveries;
        let left = deliveries.unacked_max().saturating_sub(deliveries.unacked);
        let Some(subscription) = deliveries.subscriptions.get(&slot) else { return };
        let out_max = deliveries.node.settings.limits.outbox_low.as_usize();
        let reserved = run.is_reserved();
        let mut credit = if reserved { usize::MAX } else { subscription.credit(left) };
        let acknowledges = subscription.mode != AckMode::Auto;
        let (mut count, mut redelivered) = (0_u64, 0);
        while credit > 0 && (reserved || state.out.len() < out_max) {
            let Some(delivery) = run.next() else { break };
            redelivered += u64::from(delivery.redelivered());
            let tag = deliveries.write(slot, &delivery, &mut state.out);
            if acknowledges && let Some(subscription) = deliveries.subscriptions.get_mut(&slot) {
                subscription.unacked.push(tag, delivery.keep());
                deliveries.unacked += 1;
            }
            credit -= 1;
            count += 1;
        }
        if !run.is_empty() && !reserved {
            let waiting =
                if credit == 0 { &mut deliveries.starved } else { &mut deliveries.cramped };
            note(waiting, slot);
        }
        let counters = deliveries.node.counters.of(deliveries.protocol);
        counters.delivered.increment(count);
        if acknowledges {
            counters.delivered_manual_ack.increment(count);
        } else {
            counters.delivered_auto_ack.increment(count);
        }
        if redelivered > 0 {
            counters.redelivered.increment(redelivered);
        }
        drop(guard);
        if was_empty && count > 0 {
            self.wake();
        }
    }

    fn cancelled(&self, slot: u32) {
        self.lock().deliveries.cancelled.push(slot);
        self.wake();
    }
}

fn note(slots: &mut Vec<u32>, slot: u32) {
    if !slots.contains(&slot) {
        slots.push(slot);
    }
}
