//! What is due between reads: confirms, counters, alarms, heartbeats.

use std::sync::atomic::Ordering;

use broker_core::log::LogPosition;
use proto_amqp::control::protocol::{AMQPClass, connection};
use proto_amqp::{ChannelId, MethodId};
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::Exception;
use super::session::{Phase, Session};
use crate::counters::Protocol;
use crate::node::BLOCKED_ALLOWANCE;

/// Octets of messages in the transactions of a connection.
const TRANSACTION_OCTETS_MAX: usize = 256 * 1024 * 1024;

impl Session {
    /// Counts what the batch has done and confirms what can be confirmed.
    pub(super) fn end_of_batch(&mut self) {
        let counters = self.node.counters.of(Protocol::Amqp);
        if self.batch.received > 0 {
            counters.received.increment(std::mem::take(&mut self.batch.received));
            counters.routed.increment(std::mem::take(&mut self.batch.routed));
            self.batch.sizes.record(&counters.sizes);
            counters.received_confirm.increment(std::mem::take(&mut self.batch.received_confirm));
        }
        if !self.batch.confirms.is_empty() {
            let channels = std::mem::take(&mut self.batch.confirms);
            self.send_confirms(&channels);
        }
        if let Some((id, reason)) = self.batch.unkept.take() {
            let text = format!("message not kept: {reason}");
            let exception = Exception::precondition(text, MethodId::BASIC_PUBLISH);
            self.on_exception(id, &exception);
        }
        if std::mem::take(&mut self.batch.backlogged) {
            self.pause.begin();
        }
    }

    pub(super) fn send_confirms(&mut self, channels: &[u16]) {
        let durable = self.node.broker.log.durable_up_to();
        self.confirm_up_to(durable, channels);
        if self.confirms_waiting.is_empty() {
            return;
        }
        let now = self.log_wait.mark(&self.node, &self.shared);
        if now > durable {
            let waiting = std::mem::take(&mut self.confirms_waiting);
            self.confirm_up_to(now, &waiting);
        }
        if !self.confirms_waiting.is_empty() && self.node.is_log_lost() {
            let waiting = std::mem::take(&mut self.confirms_waiting);
            for number in &waiting {
                let channel = self.channels.get_mut(number);
                if let Some(confirms) = channel.and_then(|channel| channel.confirms.as_mut()) {
                    confirms.give_up();
                }
            }
            self.confirm_up_to(now, &waiting);
        }
    }

    fn confirm_up_to(&mut self, durable: LogPosition, channels: &[u16]) {
        for number in channels {
            let Some(channel) = self.channels.get_mut(number) else { continue };
            let Some(confirms) = &mut channel.confirms else { continue };
            let outlet = &self.outlet;
            let count = confirms.answer(durable, ChannelId(*number), |write| {
                write(outlet.lock().out.octets());
            });
            // Relaxed: for lists.
            channel.facts.unconfirmed.store(confirms.unconfirmed(), Ordering::Relaxed);
            if confirms.unconfirmed() > 0 && !self.confirms_waiting.contains(number) {
                self.confirms_waiting.push(*number);
            }
            if count > 0 {
                let counters = self.node.counters.of(Protocol::Amqp);
                counters.confirmed.increment(count);
            }
        }
    }

    /// Confirms what the log has made durable since the last look.
    pub(super) fn confirm_what_is_durable(&mut self) {
        if !self.confirms_waiting.is_empty() {
            let waiting = std::mem::take(&mut self.confirms_waiting);
            self.send_confirms(&waiting);
        }
    }

    /// A message was published: if publishers are held, the client is told.
    #[inline]
    pub(super) fn note_publish(&mut self, body_len: usize) {
        if !self.node.alarms.any() {
            return;
        }
        if let Some(octets) = &mut self.blocked {
            *octets += body_len.max(1);
            return;
        }
        self.blocked = Some(body_len.max(1));
        self.node.counters.publishers_blocked.increment(1);
        self.shared.facts.lock().state = "blocked";
        let reason = self.node.alarms.reason();
        info!(connection = %self.name, reason, "holding a publisher");
        if self.capabilities.connection_blocked {
            let blocked = connection::Blocked { reason: reason.as_str().into() };
            let blocked = connection::AMQPMethod::Blocked(blocked);
            self.send(ChannelId::CONNECTION, AMQPClass::Connection(blocked));
        }
    }

    pub(super) fn unblock_if_over(&mut self) {
        if self.blocked.is_none() || self.node.alarms.any() {
            return;
        }
        self.blocked = None;
        self.shared.facts.lock().state = self.phase.word();
        if self.capabilities.connection_blocked && self.phase == Phase::Running {
            let unblocked = connection::AMQPMethod::Unblocked(connection::Unblocked {});
            self.send(ChannelId::CONNECTION, AMQPClass::Connection(unblocked));
        }
    }

    /// Sends a heartbeat and misses those of the client, where it is time for that.
    pub(super) fn on_heartbeat_tick(&mut self, now: Instant) {
        if self.is_held() {
            // It is not read from: its silence means nothing.
            self.heartbeats.received();
        }
        let due = self.heartbeats.look(now);
        if due.send {
            self.heartbeats.send(&mut self.outlet.lock().out);
        }
        if let Some(silent) = due.lost {
            warn!(connection = %self.name, ?silent, "missed heartbeats from the client, closing");
            self.set_phase(Phase::Aborted);
        }
    }

    /// Whether more answers may be written.
    pub(super) fn has_room(&self) -> bool {
        self.outlet.lock().out.len() <= self.node.settings.limits.outbox_high.as_usize()
    }

    /// Whether the connection is not read from at present: then its silence is our doing.
    pub(super) fn is_held(&self) -> bool {
        self.blocked.is_some_and(|octets| octets > BLOCKED_ALLOWANCE)
            || self.pause.is_on()
            || (self.stalled && self.reply_waiting.is_some())
            || !self.has_room()
    }

    pub(super) fn transactions_full(&self) -> bool {
        let octets = self
            .channels
            .values()
            .filter_map(|channel| channel.transaction.as_ref())
            .map(super::tx::Transaction::octets);
        octets.sum::<usize>() > TRANSACTION_OCTETS_MAX
    }
}
