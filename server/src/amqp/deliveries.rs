//! The half of a connection that queues deliver into: consumers with their credit, channels with their tags
//! and what is unacknowledged.
//!
//! All of it lies behind the outlet's mutex, beside the octets to be written, because a delivery changes both:
//! it is encoded into the buffer, takes a tag, and is kept until it is acknowledged. The publisher's
//! task does that, not the consumer's.

use std::sync::Arc;

use broker_core::Parts;
use broker_core::consumer::{ConsumerId, Run, Sink};
use broker_core::delivery_count::with_delivery_count;
use broker_core::queue::Queue;
use hashbrown::HashMap;
use proto_amqp::{ChannelId, Deliver, FRAME_OVERHEAD, basic};

use super::unacked::{Settled, Unacked};
use crate::counters::{Protocol, ProtocolCounters};
use crate::node::Node;
use crate::outbox::{OutBuffer, Outlet, OutletState};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The delivery state of a connection.
pub(super) struct Deliveries {
    node: Arc<Node>,
    pub(super) frame_max: u32,
    pub(super) channels: Map<u16, ChannelDeliveries>,
    consumers: Map<u32, Consumer>,
    next_slot: u32,
    /// Consumers that were left without room in the outbox.
    cramped: Vec<u32>,
    /// Consumers whose queue is gone, for the connection's task to tell the client.
    cancelled: Vec<u32>,
}

/// The delivery state of a channel.
#[derive(Debug, Default)]
pub(super) struct ChannelDeliveries {
    /// Tag of the last delivery.
    last_tag: u64,
    pub(super) unacked: Unacked,
    /// `basic.qos` with `global`: the most unacknowledged deliveries of all consumers; 0 is no limit.
    pub(super) global_prefetch: u32,
    /// Unacknowledged deliveries to consumers, those from `basic.get` not counted.
    outstanding: u32,
    /// Consumers of the channel, for when the channel's credit comes back.
    slots: Vec<u32>,
    /// The one of them that was resumed first when that last happened.
    resumed: Option<u32>,
}

/// A source of deliveries: a consumer, or the `basic.get`s of a channel from one queue.
pub(super) struct Consumer {
    pub(super) channel: u16,
    pub(super) tag: Arc<str>,
    pub(super) queue: Arc<Queue>,
    /// Its number in the queue; `None` before the queue has taken it, and for gets.
    pub(super) id: Option<ConsumerId>,
    no_ack: bool,
    /// The most unacknowledged deliveries; 0 is no limit.
    prefetch: u32,
    outstanding: u32,
    /// It was left without credit: it is resumed when some comes back.
    starved: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Active,
    /// It is gone, but some of its deliveries are not acknowledged.
    Gone,
    /// Not a consumer: `basic.get`.
    Get,
}

/// A consumer that a queue may offer to again.
pub(super) struct Resumable {
    pub(super) queue: Arc<Queue>,
    pub(super) id: ConsumerId,
}

/// What a new consumer is.
pub(super) struct NewConsumer {
    pub(super) channel: u16,
    pub(super) tag: Arc<str>,
    pub(super) queue: Arc<Queue>,
    pub(super) no_ack: bool,
    pub(super) prefetch: u32,
}

impl ChannelDeliveries {
    fn credit(&self, unacked_max: u32) -> u32 {
        let unacked = u32::try_from(self.unacked.len()).unwrap_or(u32::MAX);
        let bounded = unacked_max.saturating_sub(unacked);
        match self.global_prefetch {
            0 => bounded,
            limit => limit.saturating_sub(self.outstanding).min(bounded),
        }
    }

    fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }
}

impl Consumer {
    fn credit(&self, channel: &ChannelDeliveries, unacked_max: u32) -> usize {
        if self.no_ack {
            return usize::MAX;
        }
        let own = match self.prefetch {
            0 => u32::MAX,
            limit => limit.saturating_sub(self.outstanding),
        };
        own.min(channel.credit(unacked_max)) as usize
    }
}

impl Deliveries {
    pub(super) fn new(node: Arc<Node>, frame_max: u32) -> Self {
        Self {
            node,
            frame_max,
            channels: Map::default(),
            consumers: Map::default(),
            next_slot: 0,
            cramped: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    fn new_slot(&mut self, consumer: Consumer) -> u32 {
        let slot = self.next_slot;
        // Never used twice: a queue may still name a slot whose consumer has just gone.
        self.next_slot = self.next_slot.wrapping_add(1);
        self.consumers.insert(slot, consumer);
        slot
    }

    pub(super) fn add_consumer(&mut self, new: NewConsumer) -> u32 {
        let NewConsumer { channel, tag, queue, no_ack, prefetch } = new;
        let slot = self.new_slot(Consumer {
            channel,
            tag,
            queue,
            id: None,
            no_ack,
            prefetch,
            outstanding: 0,
            starved: false,
            kind: Kind::Active,
        });
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.slots.push(slot);
        }
        slot
    }

    /// The queue has taken the consumer: from now on it can be resumed.
    pub(super) fn consumer_started(&mut self, slot: u32, id: ConsumerId) {
        if let Some(consumer) = self.consumers.get_mut(&slot) {
            consumer.id = Some(id);
        }
    }

    /// The queue of a consumer and its number there.
    pub(super) fn subscribed(&self, slot: u32) -> Option<(Arc<Queue>, Option<ConsumerId>)> {
        self.consumers.get(&slot).map(|consumer| (Arc::clone(&consumer.queue), consumer.id))
    }

    /// Takes a consumer out of service; what it has not acknowledged stays.
    pub(super) fn remove_consumer(&mut self, slot: u32) {
        let Some(consumer) = self.consumers.get_mut(&slot) else { return };
        if let Some(channel) = self.channels.get_mut(&consumer.channel) {
            channel.slots.retain(|there| *there != slot);
        }
        if consumer.outstanding == 0 {
            self.consumers.remove(&slot);
        } else {
            consumer.kind = Kind::Gone;
        }
    }

    pub(super) fn consumer(&self, slot: u32) -> Option<&Consumer> {
        self.consumers.get(&slot)
    }

    /// Notes a message that `basic.get` has fetched from `queue`, and gives its delivery tag. `entry` is kept among the
    /// channel's unacknowledged deliveries; `None` if the client acknowledges nothing.
    pub(super) fn note_get(
        &mut self,
        channel: u16,
        queue: &Arc<Queue>,
        entry: Option<broker_core::consumer::Outstanding>,
    ) -> u64 {
        let slot = entry.is_some().then(|| self.get_slot(channel, queue));
        let Some(deliveries) = self.channels.get_mut(&channel) else { return 0 };
        let tag = deliveries.next_tag();
        if let (Some(slot), Some(entry)) = (slot, entry) {
            deliveries.unacked.push(tag, slot, entry);
            if let Some(consumer) = self.consumers.get_mut(&slot) {
                consumer.outstanding += 1;
            }
        }
        tag
    }

    fn get_slot(&mut self, channel: u16, queue: &Arc<Queue>) -> u32 {
        let known = self.consumers.iter().find(|(_, consumer)| {
            consumer.kind == Kind::Get
                && consumer.channel == channel
                && Arc::ptr_eq(&consumer.queue, queue)
        });
        if let Some((slot, _)) = known {
            return *slot;
        }
        self.new_slot(Consumer {
            channel,
            tag: "".into(),
            queue: Arc::clone(queue),
            id: None,
            no_ack: false,
            prefetch: 0,
            outstanding: 0,
            starved: false,
            kind: Kind::Get,
        })
    }

    /// Counts settled deliveries of a channel out and finds the consumers that have credit again. Gives the
    /// queues that the entries go back to.
    pub(super) fn settled(
        &mut self,
        channel: u16,
        settled: &[Settled],
        queues: &mut Vec<(u32, Arc<Queue>)>,
        resumable: &mut Vec<Resumable>,
    ) {
        let mut last: Option<u32> = None;
        for one in settled {
            let Some(consumer) = self.consumers.get_mut(&one.slot) else { continue };
            if last != Some(one.slot) {
                last = Some(one.slot);
                if !queues.iter().any(|(slot, _)| *slot == one.slot) {
                    queues.push((one.slot, Arc::clone(&consumer.queue)));
                }
            }
            consumer.outstanding = consumer.outstanding.saturating_sub(1);
            if consumer.kind != Kind::Get
                && let Some(deliveries) = self.channels.get_mut(&channel)
            {
                deliveries.outstanding = deliveries.outstanding.saturating_sub(1);
            }
            if consumer.outstanding == 0 && consumer.kind != Kind::Active {
                self.consumers.remove(&one.slot);
            }
        }
        self.resume_starved(channel, resumable);
    }

    /// Finds the consumers of a channel that were left without credit and have some now.
    pub(super) fn resume_starved(&mut self, channel: u16, resumable: &mut Vec<Resumable>) {
        let unacked_max = self.node.settings.amqp.max_unacked_per_channel;
        let Some(deliveries) = self.channels.get_mut(&channel) else { return };
        // Not always the same one first: they may share the channel's credit, and the first takes all of it.
        let begin = deliveries.slots.iter().position(|slot| Some(*slot) == deliveries.resumed);
        let (before, after) = deliveries.slots.split_at(begin.map_or(0, |begin| begin + 1));
        let mut resumed = None;
        for slot in after.iter().chain(before) {
            if let Some(consumer) = self.consumers.get_mut(slot)
                && consumer.starved
                && consumer.credit(deliveries, unacked_max) > 0
            {
                resumed = resumed.or(Some(*slot));
                consumer.starved = false;
                resumable.extend(consumer.resumable());
            }
        }
        deliveries.resumed = resumed.or(deliveries.resumed);
    }

    /// Takes the consumers that were left without room in the outbox.
    pub(super) fn take_cramped(&mut self, resumable: &mut Vec<Resumable>) {
        for slot in self.cramped.drain(..) {
            if let Some(consumer) = self.consumers.get(&slot) {
                resumable.extend(consumer.resumable());
            }
        }
    }

    pub(super) fn has_cramped(&self) -> bool {
        !self.cramped.is_empty()
    }

    pub(super) fn take_cancelled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.cancelled)
    }

    /// Takes everything that a channel has not acknowledged. It is still counted: see [`settled`](Self::settled).
    pub(super) fn take_unacked(&mut self, channel: u16) -> Vec<Settled> {
        let mut settled = Vec::new();
        if let Some(deliveries) = self.channels.get_mut(&channel) {
            deliveries.unacked.take_up_to(0, &mut settled);
        }
        settled
    }

    /// Forgets what is left of a channel, when its consumers and its deliveries have gone.
    pub(super) fn forget_channel(&mut self, channel: u16) {
        self.channels.remove(&channel);
        self.consumers.retain(|_, consumer| consumer.channel != channel);
    }
}

impl Consumer {
    fn resumable(&self) -> Option<Resumable> {
        let id = self.id?;
        (self.kind == Kind::Active).then(|| Resumable { queue: Arc::clone(&self.queue), id })
    }
}

/// Appends a content's header and body frames.
pub(super) fn write_content(
    out: &mut OutBuffer,
    channel: ChannelId,
    parts: &Parts<'_>,
    frame_max: u32,
) {
    basic::write_content_header(out.octets(), channel, parts.body.len() as u64, parts.properties);
    let Some(large) = parts.large_body else {
        basic::write_body(out.octets(), channel, parts.body, frame_max);
        return;
    };
    let piece_len = match frame_max {
        0 => large.len().max(1),
        max => (max - FRAME_OVERHEAD) as usize,
    };
    let mut at = 0;
    while at < large.len() {
        let end = (at + piece_len).min(large.len());
        let len = u32::try_from(end - at).unwrap_or(u32::MAX);
        out.octets().extend_from_slice(&basic::body_frame_prefix(channel, len));
        out.splice(large, at..end);
        out.octets().extend_from_slice(&basic::body_frame_suffix());
        at = end;
    }
}

impl OutletState<Deliveries> {
    fn counters(&self) -> &ProtocolCounters {
        self.deliveries.node.counters.of(Protocol::Amqp)
    }
}

impl Sink for Outlet<Deliveries> {
    fn reserve(&self, slot: u32, wanted: usize) -> usize {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closed {
            return 0;
        }
        let deliveries = &mut state.deliveries;
        let Some(consumer) = deliveries.consumers.get_mut(&slot) else { return 0 };
        let Some(channel) = deliveries.channels.get_mut(&consumer.channel) else { return 0 };
        let limits = &deliveries.node.settings;
        if state.out.len() >= limits.limits.outbox_low.as_usize() {
            if !deliveries.cramped.contains(&slot) {
                deliveries.cramped.push(slot);
            }
            return 0;
        }
        let credit = consumer.credit(channel, limits.amqp.max_unacked_per_channel);
        let granted = credit.min(wanted);
        consumer.starved = granted < wanted;
        if !consumer.no_ack {
            let granted = u32::try_from(granted).unwrap_or(u32::MAX);
            consumer.outstanding += granted;
            channel.outstanding += granted;
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
        let Some(consumer) = deliveries.consumers.get_mut(&slot) else { return };
        let Some(channel) = deliveries.channels.get_mut(&consumer.channel) else { return };
        let settings = &deliveries.node.settings;
        let out_max = settings.limits.outbox_low.as_usize();
        let reserved = run.is_reserved();
        let mut credit = if reserved {
            usize::MAX
        } else {
            consumer.credit(channel, settings.amqp.max_unacked_per_channel)
        };
        let id = ChannelId(consumer.channel);
        let (mut count, mut redelivered) = (0_u32, 0);
        while credit > 0 && (reserved || state.out.len() < out_max) {
            let Some(delivery) = run.next() else { break };
            let mut parts = delivery.parts();
            let counted =
                with_delivery_count(&consumer.queue, delivery.returns(), parts.properties);
            if let Some(counted) = &counted {
                parts.properties = counted;
            }
            let tag = channel.next_tag();
            let method = Deliver {
                consumer_tag: consumer.tag.as_bytes(),
                delivery_tag: tag,
                redelivered: delivery.redelivered(),
                exchange: parts.exchange,
                routing_key: parts.routing_key,
            };
            redelivered += u64::from(delivery.redelivered());
            basic::write_deliver(state.out.octets(), id, &method);
            write_content(&mut state.out, id, &parts, deliveries.frame_max);
            if !consumer.no_ack {
                channel.unacked.push(tag, slot, delivery.keep());
            }
            credit -= 1;
            count += 1;
        }
        if !consumer.no_ack && !reserved {
            consumer.outstanding += count;
            channel.outstanding += count;
        }
        if !run.is_empty() && !reserved {
            if credit == 0 {
                consumer.starved = true;
            } else if !deliveries.cramped.contains(&slot) {
                deliveries.cramped.push(slot);
            }
        }
        let no_ack = consumer.no_ack;
        let counters = state.counters();
        counters.delivered.increment(count.into());
        if no_ack {
            counters.delivered_auto_ack.increment(count.into());
        } else {
            counters.delivered_manual_ack.increment(count.into());
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
