//! Replies that wait for the log: those to the `exchange` and `queue` classes, and some to `tx.commit`.
//!
//! The one idea: a reply is a promise. What it says to be declared, bound, deleted or purged is so after a crash too, and
//! so it is sent when the log has come to what was appended for it. Until then the connection takes no further frame,
//! so that everything is answered in its order; what others deliver to its consumers goes on. Heartbeats pass, and so
//! does the end of the channel or of the connection, after which nobody wants the reply any more. What is transient
//! appends nothing and waits for nothing.
//!
//! A commit that waits for the log alone waits elsewhere and holds up nothing. One that has rejected messages which have
//! to be read, or have to wait for a full disk, before they can be dead-lettered waits here until that is done.

use std::sync::Arc;

use broker_core::Refusal;
use broker_core::log::LogPosition;
use broker_core::queue::Burial;
use broker_core::storage::StorageError;
use proto_amqp::control::protocol::AMQPClass;
use proto_amqp::{ChannelId, Frame, FrameKind, MethodId};
use tokio::time::Instant;

use super::error::Exception;
use super::session::Session;
use super::tx::{COMMIT, not_committed};
use crate::node::{BURIED_TOO_LATE, Connection as _, KEPT_TOO_LATE, KEPT_WITHIN};

const CONNECTION_CLOSE: MethodId = MethodId { class: 10, method: 50 };
const CHANNEL_CLOSE: MethodId = MethodId { class: 20, method: 40 };

/// A reply that waits.
#[derive(Debug)]
pub(super) struct WaitingReply {
    channel: ChannelId,
    /// What is answered.
    method: MethodId,
    reply: AMQPClass,
    awaited: Awaited,
    until: Instant,
}

/// What a reply waits for.
#[derive(Debug)]
enum Awaited {
    /// The log has come so far.
    Durable(LogPosition),
    /// Rejected messages have come to their next queue; then the log has to come to its end.
    Buried(Burial),
}

impl Session {
    /// Answers `method`: at once, or when the log has come to `position`.
    pub(super) fn reply_at(
        &mut self,
        position: LogPosition,
        channel: ChannelId,
        method: MethodId,
        reply: AMQPClass,
    ) {
        let position = self.node.broker.reply_position(position);
        if position <= self.node.broker.log.durable_up_to() {
            self.send(channel, reply);
            return;
        }
        self.wait_for(Awaited::Durable(position), channel, method, reply);
    }

    /// Answers `method` when all of `burial` has come to its next queue, and the log knows.
    pub(super) fn reply_after(
        &mut self,
        burial: Burial,
        channel: ChannelId,
        method: MethodId,
        reply: AMQPClass,
    ) {
        // What is on its way may take longer than the connection lasts.
        let shared = Arc::downgrade(&self.shared);
        burial.wake(move || {
            if let Some(shared) = shared.upgrade() {
                shared.wake();
            }
        });
        self.wait_for(Awaited::Buried(burial), channel, method, reply);
    }

    fn wait_for(
        &mut self,
        awaited: Awaited,
        channel: ChannelId,
        method: MethodId,
        reply: AMQPClass,
    ) {
        let until = Instant::now() + KEPT_WITHIN;
        self.reply_waiting = Some(WaitingReply { channel, method, reply, awaited, until });
    }

    /// Whether a frame has to wait behind a reply.
    pub(super) fn waits_behind_reply(&self, frame: &Frame<'_>) -> bool {
        let Some(waiting) = &self.reply_waiting else { return false };
        match frame.kind {
            FrameKind::Heartbeat => false,
            FrameKind::Header | FrameKind::Body => true,
            FrameKind::Method => match MethodId::of_payload(frame.payload) {
                Some(CONNECTION_CLOSE) => frame.channel != ChannelId::CONNECTION,
                Some(CHANNEL_CLOSE) => frame.channel != waiting.channel,
                _ => true,
            },
        }
    }

    /// Whether the log has come to the reply that waits. Has the connection woken when it may have.
    pub(super) fn is_reply_due(&mut self) -> bool {
        let Some(waiting) = &mut self.reply_waiting else { return false };
        let position = match &waiting.awaited {
            Awaited::Durable(position) => *position,
            Awaited::Buried(burial) => match burial.position(&*self.node.broker.log) {
                Some(buried_at) => buried_at,
                None => return false,
            },
        };
        waiting.awaited = Awaited::Durable(position);
        position <= self.log_wait.mark(&self.node, &self.shared)
    }

    /// Sends the reply that waits if it is `due`, or an exception if the log is lost.
    pub(super) fn answer_waiting(&mut self, due: bool) {
        if due {
            if let Some(WaitingReply { channel, reply, .. }) = self.reply_waiting.take() {
                self.send(channel, reply);
            }
        } else if self.node.is_log_lost() {
            self.refuse_waiting(|method| match method {
                COMMIT => not_committed(StorageError::LOST),
                _ => {
                    let reason = StorageError::LOST.to_owned();
                    Exception::precondition(Refusal::NotKept { reason }.to_string(), method)
                }
            });
        }
    }

    /// When the reply that waits has waited long enough, if one does.
    pub(super) fn reply_until(&self) -> Option<Instant> {
        self.reply_waiting.as_ref().map(|waiting| waiting.until)
    }

    /// It has waited for too long.
    pub(super) fn on_reply_late(&mut self) {
        self.refuse_waiting(|method| {
            let text = if method == COMMIT { BURIED_TOO_LATE } else { KEPT_TOO_LATE };
            Exception::precondition(text, method)
        });
    }

    fn refuse_waiting(&mut self, refusal: impl FnOnce(MethodId) -> Exception) {
        if let Some(WaitingReply { channel, method, .. }) = self.reply_waiting.take() {
            self.on_exception(channel, &refusal(method));
        }
    }

    /// A channel has ended: it wants no reply any more.
    pub(super) fn forget_reply(&mut self, channel: ChannelId) {
        self.reply_waiting.take_if(|waiting| waiting.channel == channel);
    }
}

#[cfg(test)]
mod tests;
