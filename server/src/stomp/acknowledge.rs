//! ACK and NACK: from a message-id to the queues, in batches.
//!
//! A message-id is `<consumer tag>@@<session>@@<delivery tag>`. What the frames of one read settle gathers in a
//! [`Settling`], subscription by subscription, and goes back to each queue in one call.

use std::sync::Arc;

use broker_core::consumer::{Fate, Outstanding};
use broker_core::queue::{Queue, Settle};
use proto_stomp::{Command, Frame, Version};

use super::client::Client;
use super::deliveries::{NotOutstanding, Resumable, Settled};
use super::error::StompError;
use super::subscription::flag;

/// A delivery that an ACK or NACK names, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) consumer_tag: Box<[u8]>,
    pub(super) delivery_tag: u64,
    pub(super) fate: Fate,
}

/// Deliveries that were settled and have not gone back to their queues.
#[derive(Default)]
pub(super) struct Settling {
    groups: Vec<Group>,
    scratch: Vec<Settled>,
}

impl Settling {
    /// Whether some of them were rejected.
    pub(super) fn rejects(&self) -> bool {
        self.groups.iter().any(|group| group.fate == Fate::Rejected)
    }
}

struct Group {
    slot: u32,
    fate: Fate,
    queue: Arc<Queue>,
    entries: Vec<Outstanding>,
}

/// Takes a message-id apart: consumer tag and delivery tag. The session between them is not looked at.
///
/// The consumer tag holds what the client chose and may hold the separator too; the other parts do not.
fn parse_message_id(id: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEPARATOR: &[u8] = b"@@";
    let last = |octets: &[u8]| memchr::memmem::rfind(octets, SEPARATOR);
    let at = last(id)?;
    let (rest, tag) = (id.get(..at)?, id.get(at + SEPARATOR.len()..)?);
    Some((rest.get(..last(rest)?)?, tag))
}

impl Client {
    pub(super) fn on_acknowledge(
        &mut self,
        command: Command,
        frame: &Frame<'_>,
    ) -> Result<(), StompError> {
        // spec: stomp-1.2 ACK "id"
        let header = if self.version == Version::V1_2 { "id" } else { "message-id" };
        let id = frame
            .headers
            .get(header)
            .ok_or_else(|| StompError::missing_message_id(command, header))?;
        let (consumer_tag, delivery_tag) =
            parse_message_id(id).ok_or_else(|| StompError::invalid_message_id(command, header))?;
        let delivery_tag = std::str::from_utf8(delivery_tag).ok().and_then(|tag| tag.parse().ok());
        let delivery_tag = delivery_tag.ok_or_else(StompError::processing)?;
        let fate = match command {
            Command::Nack => {
                let default = self.node.settings.stomp.default_nack_requeue;
                match flag(&frame.headers, "requeue").unwrap_or(default) {
                    true => Fate::Requeued,
                    false => Fate::Rejected,
                }
            }
            _ => Fate::Acked,
        };
        if let Some(transaction) = frame.headers.get("transaction") {
            let consumer_tag = consumer_tag.into();
            let settlement = Settlement { consumer_tag, delivery_tag, fate };
            return self.settle_in_transaction(transaction, settlement);
        }
        let mut settled = std::mem::take(&mut self.settling.scratch);
        let taken = self.outlet().lock().deliveries.take(consumer_tag, delivery_tag, &mut settled);
        let taken = taken.map_err(|error| match error {
            NotOutstanding::Subscription => StompError::no_subscription_of(id),
            NotOutstanding::Delivery => StompError::unknown_delivery_tag(delivery_tag),
        });
        self.settle(fate, &mut settled);
        self.settling.scratch = settled;
        taken
    }

    /// Notes down what was taken from the deliveries; leaves `settled` empty.
    pub(super) fn settle(&mut self, fate: Fate, settled: &mut Vec<Settled>) {
        let groups = &mut self.settling.groups;
        for Settled { slot, entry, .. } in settled.drain(..) {
            let known = groups.iter_mut().find(|group| group.slot == slot && group.fate == fate);
            if let Some(group) = known {
                group.entries.push(entry);
                continue;
            }
            let state = self.shared.outlet.lock();
            // A subscription stays as long as something of it is being settled: see `flush_settling`.
            let Some(subscription) = state.deliveries.get(slot) else { continue };
            let queue = Arc::clone(subscription.queue());
            drop(state);
            groups.push(Group { slot, fate, queue, entries: vec![entry] });
        }
    }

    /// Deliveries that a transaction settles, queue by queue; leaves the settlements that came before to
    /// [`flush_settling`](Self::flush_settling), which is to be called first.
    pub(super) fn settles_of(
        &mut self,
        settled: Vec<(Fate, Vec<Settled>)>,
    ) -> (Vec<Settle>, Vec<u32>) {
        for (fate, mut settled) in settled {
            self.settle(fate, &mut settled);
        }
        let groups = std::mem::take(&mut self.settling.groups);
        let slots = groups.iter().map(|group| group.slot).collect();
        let settles = groups.into_iter().map(|Group { fate, queue, entries, .. }| {
            if fate == Fate::Acked {
                self.counters().acknowledged.increment(entries.len() as u64);
            }
            Settle { queue, fate, entries }
        });
        (settles.collect(), slots)
    }

    /// Subscriptions of which deliveries were settled may go, or have credit again.
    pub(super) fn done_settling(&mut self, slots: Vec<u32>) {
        let mut resumable = Vec::new();
        {
            let mut state = self.shared.outlet.lock();
            state.deliveries.forget_done(slots.into_iter());
            state.deliveries.take_fed(&mut resumable);
        }
        self.resume(resumable);
    }

    /// Gives settled deliveries back to their queues, and lets those have credit that it gives.
    pub(super) fn flush_settling(&mut self) {
        if self.settling.groups.is_empty() {
            return;
        }
        let now = self.node.clock.now();
        let groups = std::mem::take(&mut self.settling.groups);
        let mut slots = Vec::with_capacity(groups.len());
        for Group { slot, fate, queue, mut entries } in groups {
            slots.push(slot);
            match fate {
                Fate::Acked => {
                    self.counters().acknowledged.increment(entries.len() as u64);
                    let position = queue.ack(&mut entries);
                    self.done_at = self.done_at.max(position);
                }
                Fate::Requeued => queue.requeue(&mut entries, now, &mut self.effects),
                Fate::Rejected => {
                    // The next receipt speaks of it.
                    self.effects.attend();
                    queue.reject(&mut entries, &mut self.effects);
                }
            }
            self.carry_out(&queue, now);
        }
        self.done_settling(slots);
    }

    /// Offers consumers to their queues again.
    pub(super) fn resume(&mut self, resumable: Vec<Resumable>) {
        if resumable.is_empty() {
            return;
        }
        let now = self.node.clock.now();
        for Resumable { queue, consumer } in resumable {
            queue.resume(&[consumer], now, &mut self.effects);
            self.carry_out(&queue, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_has_three_parts_and_the_first_may_hold_anything() {
        let parse = |id: &'static str| parse_message_id(id.as_bytes());
        let parts =
            |tag: &'static str, number: &'static str| Some((tag.as_bytes(), number.as_bytes()));
        assert_eq!(parse("T_0@@session-x@@1"), parts("T_0", "1"));
        assert_eq!(parse("Q_/queue/foo@@@@17"), parts("Q_/queue/foo", "17"));
        assert_eq!(parse("T_a@@b@@session-x@@1"), parts("T_a@@b", "1"));
        assert_eq!(parse("@@@@"), parts("", ""));
        for id in ["", "1", "T_0", "T_0@@1", "@@", "@@@"] {
            assert_eq!(parse(id), None, "{id:?}");
        }
    }
}
