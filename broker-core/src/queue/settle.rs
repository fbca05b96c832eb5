//! Settlement: deliveries that are acknowledged, rejected, or come back.

use super::burial::Dead;
use super::{DeathReason, Effects, Queue, State};
use crate::consumer::Outstanding;
use crate::log::LogPosition;

impl Queue {
    /// Settles messages that a consumer acknowledged; leaves `entries` empty. Gives the position at which
    /// the acknowledgements are durable.
    pub fn ack(&self, entries: &mut Vec<Outstanding>) -> LogPosition {
        let deleted = self.forget(entries);
        let mut logged = entries.iter().filter(|entry| entry.logged).map(|entry| entry.seq);
        let mut position = LogPosition::START;
        if !deleted && let Some(first) = logged.next() {
            // Not under the lock: all that counts is that it comes after the message itself.
            position = self.log_settled(&mut std::iter::once(first).chain(logged));
        }
        entries.clear();
        position
    }

    /// Messages that were delivered are settled, one way or another; gives whether the queue has been deleted.
    pub(super) fn forget(&self, entries: &[Outstanding]) -> bool {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        state.deleted
    }

    /// Puts messages that were delivered back to their places, flagged as redelivered; leaves `entries`
    /// empty. Those that came back more often than `x-delivery-limit` allows die instead.
    pub fn requeue(&self, entries: &mut Vec<Outstanding>, now: u64, effects: &mut Effects) {
        // One that dies of it has come back too.
        self.log_requeued(entries);
        self.requeued(entries, now, effects);
    }

    /// The same, when the log knows already.
    pub(super) fn requeued(&self, entries: &mut Vec<Outstanding>, now: u64, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        if state.deleted {
            entries.clear();
            return;
        }
        let limit = self.spec.settings.delivery_limit.unwrap_or(u64::MAX);
        let mut back = Vec::with_capacity(entries.len());
        for mut returned in entries.drain(..) {
            returned.redelivered = true;
            returned.returns = returned.returns.saturating_add(1);
            if u64::from(returned.returns) > limit {
                let dead = Dead::unattended(returned, DeathReason::DeliveryLimit);
                self.bury_returned(&mut state, dead, effects);
                continue;
            }
            match returned.into_entry() {
                Ok(entry) => back.push(entry),
                Err(bare) => state.ready.push_bare(&bare),
            }
        }
        state.ready.restore(&mut back);
        self.drop_overflow(&mut state, effects);
        self.serve(state, now, effects);
    }

    /// Drops messages that a consumer rejected, or dead-letters them; leaves `entries` empty. [`Effects::position`] says
    /// when that is durable, but for what cannot move at once: whoever waits for it too [attends](Effects::attend).
    pub fn reject(&self, entries: &mut Vec<Outstanding>, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        if state.deleted {
            entries.clear();
        }
        for rejected in entries.drain(..) {
            let (reason, under_way) = (DeathReason::Rejected, effects.under_way.clone());
            self.bury_returned(&mut state, Dead { entry: rejected, reason, under_way }, effects);
        }
        effects.position = effects.position.max(self.flush_settled(&mut state));
        self.finish(&mut state, effects);
    }
}

impl State {
    fn forget_unacked(&mut self, entries: &[Outstanding]) {
        let bytes: u64 = entries.iter().map(|entry| u64::from(entry.body_len)).sum();
        self.unacked = self.unacked.saturating_sub(entries.len() as u64);
        self.unacked_bytes = self.unacked_bytes.saturating_sub(bytes);
        self.ready.release_outstanding(entries.iter().map(Outstanding::charged).sum());
    }
}
