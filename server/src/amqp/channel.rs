//! What a channel owns, and the `channel` and `confirm` classes. None of it needs a lock: it belongs to the
//! connection's task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use broker_core::name::QueueName;
use hashbrown::HashMap;
use proto_amqp::control::protocol::{AMQPClass, channel as channel_class, confirm};
use proto_amqp::{ChannelId, ContentAssembler, Frame, MethodId, ReplyCode, control, method};

use super::confirm::Confirms;
use super::deliveries::ChannelDeliveries;
use super::error::Exception;
use super::routes::Routes;
use super::session::Session;
use super::tx::Transaction;
use crate::node::ChannelRow;

/// What others may see of a channel, for lists.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) publisher: AtomicBool,
    pub(super) transactional: AtomicBool,
    pub(super) confirm: AtomicBool,
    pub(super) consumers: AtomicU32,
    pub(super) prefetch: AtomicU32,
    pub(super) global_prefetch: AtomicU32,
    pub(super) unconfirmed: AtomicU64,
    pub(super) uncommitted: AtomicU64,
    pub(super) acks_uncommitted: AtomicU64,
}

impl Facts {
    pub(super) fn row(&self, number: u16, unacked: u64) -> ChannelRow {
        // Relaxed: a list shows each number as it was a moment ago.
        let order = Ordering::Relaxed;
        ChannelRow {
            number,
            publisher: self.publisher.load(order),
            transactional: self.transactional.load(order),
            confirm: self.confirm.load(order),
            consumer_count: self.consumers.load(order).into(),
            messages_unacknowledged: unacked,
            messages_unconfirmed: self.unconfirmed.load(order),
            messages_uncommitted: self.uncommitted.load(order),
            acks_uncommitted: self.acks_uncommitted.load(order),
            prefetch_count: self.prefetch.load(order),
            global_prefetch_count: self.global_prefetch.load(order),
        }
    }
}

/// A channel (AMQP 0-9-1 §2.2.4).
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) facts: Arc<Facts>,
    /// A channel exception was sent: everything is dropped until the peer says close-ok.
    pub(super) closing: bool,
    /// The content that is arriving in pieces.
    pub(super) content: ContentAssembler,
    /// It has published: noted once, for lists.
    pub(super) has_published: bool,
    /// What an empty queue name means.
    pub(super) last_queue: Option<QueueName>,
    /// `basic.qos` for consumers to come; 0 is no limit.
    pub(super) prefetch: u16,
    /// Slots of consumers by tag.
    pub(super) consumers: HashMap<Arc<str>, u32>,
    pub(super) confirms: Option<Confirms>,
    pub(super) transaction: Option<Transaction>,
    pub(super) routes: Routes,
    /// The queue behind `amq.rabbitmq.reply-to`, while it is consumed.
    pub(super) reply_queue: Option<QueueName>,
}

impl Channel {
    /// The queue that `name` means: the last one declared when it is empty.
    pub(super) fn queue_name(&self, name: &str) -> Option<QueueName> {
        if name.is_empty() { self.last_queue.clone() } else { QueueName::new(name).ok() }
    }
}

impl Session {
    pub(super) fn on_method_of_closed_channel(
        &mut self,
        frame: &Frame<'_>,
    ) -> Result<(), Exception> {
        let class = control::decode(frame.payload, self.version)
            .map_err(|error| Exception::malformed_method(&error))?;
        match class {
            AMQPClass::Channel(channel_class::AMQPMethod::Open(_)) => {
                self.on_channel_open(frame.channel)
            }
            // A close that crossed ours.
            AMQPClass::Channel(channel_class::AMQPMethod::CloseOk(_)) => Ok(()),
            _ => {
                let method = MethodId::of_payload(frame.payload).unwrap_or(MethodId::NONE);
                let text = "expected 'channel.open'";
                Err(Exception::new(ReplyCode::CHANNEL_ERROR, text, method))
            }
        }
    }

    pub(super) fn on_channel_open(&mut self, id: ChannelId) -> Result<(), Exception> {
        let max = self.channel_max;
        if max > 0 && self.channels.len() >= usize::from(max) {
            let open = self.channels.len();
            let text = format!(
                "number of channels opened ({open}) has reached the negotiated channel_max ({max})"
            );
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text, MethodId::NONE));
        }
        let channel = Channel::default();
        let facts = Arc::clone(&channel.facts);
        self.channels.insert(id.0, channel);
        self.outlet.lock().deliveries.channels.insert(id.0, ChannelDeliveries::default());
        self.shared.facts.lock().channels.insert(id.0, facts);
        self.node.counters.channels_opened.increment(1);
        let open_ok = channel_class::AMQPMethod::OpenOk(channel_class::OpenOk {});
        self.send(id, AMQPClass::Channel(open_ok));
        Ok(())
    }

    /// We have sent `channel.close`: everything but the answer is dropped.
    pub(super) fn on_method_of_closing_channel(&mut self, frame: &Frame<'_>) {
        use channel_class::AMQPMethod as OfChannel;
        let Ok(AMQPClass::Channel(method)) = control::decode(frame.payload, self.version) else {
            return;
        };
        match method {
            OfChannel::CloseOk(_) => {
                self.channels.remove(&frame.channel.0);
            }
            OfChannel::Close(_) => {
                let close_ok = OfChannel::CloseOk(channel_class::CloseOk {});
                self.send(frame.channel, AMQPClass::Channel(close_ok));
            }
            _ => {}
        }
    }

    pub(super) fn on_channel_method(
        &mut self,
        id: ChannelId,
        class: AMQPClass,
        payload: &[u8],
    ) -> Result<(), Exception> {
        let method = MethodId::of_payload(payload).unwrap_or(MethodId::NONE);
        if !method::is_client_method(method, self.version) {
            return Err(Exception::unimplemented(method));
        }
        match class {
            AMQPClass::Channel(method) => self.on_channel_class(id, method, payload),
            AMQPClass::Exchange(method) => self.on_exchange(id, method, payload),
            AMQPClass::Queue(method) => self.on_queue(id, method, payload),
            AMQPClass::Basic(method) => self.on_basic(id, method, payload),
            AMQPClass::Tx(method) => self.on_tx(id, &method),
            AMQPClass::Confirm(method) => self.on_confirm(id, &method),
            AMQPClass::Access(method) => {
                self.on_access(id, &method);
                Ok(())
            }
            AMQPClass::Connection(_) => Err(Exception::unimplemented(method)),
        }
    }

    pub(super) fn on_channel_class(
        &mut self,
        id: ChannelId,
        class: channel_class::AMQPMethod,
        payload: &[u8],
    ) -> Result<(), Exception> {
        use channel_class::AMQPMethod as OfChannel;
        let method = MethodId::of_payload(payload).unwrap_or(MethodId::NONE);
        match class {
            OfChannel::Open(_) => {
                let text = "second 'channel.open' seen";
                Err(Exception::new(ReplyCode::CHANNEL_ERROR, text, method))
            }
            OfChannel::Flow(flow) if flow.active => {
                let flow_ok = channel_class::FlowOk { active: true };
                self.send(id, AMQPClass::Channel(OfChannel::FlowOk(flow_ok)));
                Ok(())
            }
            OfChannel::Flow(_) => Err(Exception::not_implemented("active=false", method)),
            OfChannel::Close(_) => {
                // What nothing holds up any more is confirmed before the channel goes.
                self.send_confirms(&[id.0]);
                self.release_channel(id);
                self.channels.remove(&id.0);
                let close_ok = OfChannel::CloseOk(channel_class::CloseOk {});
                self.send(id, AMQPClass::Channel(close_ok));
                Ok(())
            }
            _ => Err(Exception::unimplemented(method)),
        }
    }

    /// Frees what a channel holds in queues: its consumers first, then what it has not acknowledged.
    pub(super) fn release_channel(&mut self, id: ChannelId) {
        self.release_consumers(id);
        self.release_deliveries(id);
    }

    /// Takes all consumers of a channel out of their queues.
    pub(super) fn release_consumers(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        let slots: Vec<u32> = channel.consumers.drain().map(|(_, slot)| slot).collect();
        for slot in slots {
            self.cancel_consumer(id, slot);
        }
    }

    /// Gives back what a channel without consumers has not acknowledged, and forgets it.
    pub(super) fn release_deliveries(&mut self, id: ChannelId) {
        self.abandon_transaction(id);
        self.requeue_all(id);
        self.outlet.lock().deliveries.forget_channel(id.0);
        self.shared.facts.lock().channels.remove(&id.0);
        self.commits_waiting.retain(|(_, channel)| *channel != id);
        self.forget_reply(id);
        self.node.counters.channels_closed.increment(1);
    }

    pub(super) fn on_confirm(
        &mut self,
        id: ChannelId,
        class: &confirm::AMQPMethod,
    ) -> Result<(), Exception> {
        let select_id = MethodId { class: 85, method: 10 };
        let confirm::AMQPMethod::Select(select) = class else {
            return Err(Exception::unimplemented(MethodId { class: 85, method: 11 }));
        };
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        if channel.transaction.is_some() {
            return Err(Exception::precondition(
                "cannot switch from tx to confirm mode",
                select_id,
            ));
        }
        channel.confirms.get_or_insert_with(Confirms::default);
        channel.facts.confirm.store(true, Ordering::Relaxed);
        if !select.nowait {
            let select_ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            self.send(id, AMQPClass::Confirm(select_ok));
        }
        Ok(())
    }
}
