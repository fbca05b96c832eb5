//! `basic.get`: one message on request, waited for if it has to be read from the disk.

use parking_lot::MutexGuard;

use super::load::Patience;
use super::{BATCH_MAX, Effects, Queue, State};
use crate::consumer::{Entry, Outstanding};
use crate::message::Message;

/// Messages that one `basic.get` lets die before it answers.
const DEAD_MAX: usize = 16 * BATCH_MAX;

/// What a `basic.get` has taken.
#[derive(Debug)]
pub struct Got {
    /// The message.
    pub message: Message,
    /// What is to be kept until it is acknowledged, if it is to be.
    pub outstanding: Outstanding,
    /// Messages that are ready behind it.
    pub left: u64,
}

/// The messages of a queue cannot be read from the disk now; they are not given up for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the messages cannot be read from the disk")]
pub struct Unreadable;

impl Queue {
    /// Takes the first message for a `basic.get`. Waits for the disk
    /// when none is in memory ([`may_wait`](Self::may_wait)).
    ///
    /// With `no_ack` the message is settled at once.
    ///
    /// # Errors
    /// [`Unreadable`]: there are messages, and the disk does not give them.
    pub fn get(
        &self,
        no_ack: bool,
        now: u64,
        effects: &mut Effects,
    ) -> Result<Option<Got>, Unreadable> {
        let mut state = self.state.lock();
        state.used_at = now;
        let mut patience = Patience::default();
        let entry = loop {
            while !self.drop_expired(&mut state, now, effects) {
                MutexGuard::bump(&mut state);
            }
            if !state.ready.is_empty_here() || !state.ready.has_unread() || state.deleted {
                break Ok(state.ready.pop_front());
            }
            if effects.dead.len() >= DEAD_MAX {
                // They go on first; the sweep and the next get do the rest.
                break Ok(None);
            }
            if let Err(unreadable) = self.load_now(&mut state, &mut patience) {
                break Err(unreadable);
            }
            self.drop_overflow(&mut state, effects);
        };
        if matches!(entry, Ok(Some(_))) {
            // What has come to the head and is dead already is not counted as left; a batch of it at most.
            self.drop_expired(&mut state, now, effects);
        }
        let got = entry.map(|entry| entry.map(|entry| self.got(&mut state, entry, no_ack)));
        self.finish(&mut state, effects);
        got
    }

    fn got(&self, state: &mut State, entry: Entry, no_ack: bool) -> Got {
        if entry.logged {
            self.note_handed_out(state, entry.seq);
        }
        let body_len = entry.message.body_len();
        let mut allowance = state.ready.allowance();
        let stays = !no_ack && allowance.take(entry.logged, body_len);
        let message = entry.message.clone();
        let left = state.ready.len() as u64;
        if !no_ack {
            state.unacked += 1;
            state.unacked_bytes += body_len as u64;
            state.ready.charge_outstanding(allowance.used());
        } else if entry.logged {
            state.scratch.settled.push(entry.seq);
        }
        Got { message, outstanding: entry.outstanding(stays), left }
    }

    /// Whether a [`get`](Self::get) would have to read from the disk.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        let state = self.state.lock();
        state.ready.has_unread() && state.ready.is_empty_here()
    }
}
