//! The backlog that only the log has: when to read it, and what a read brings.
//!
//! One at a time reads ahead for a queue: the log's own thread, or, when a `basic.get` finds nothing in memory, the
//! thread that asks. The queue's lock is not held meanwhile, so that publishing goes on. What comes back is looked
//! at against the state as it is then: a purge in between makes it void.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Effects, Queue, State};
use crate::consumer::Entry;
use crate::log::content;
use crate::storage::MessageBlock;

/// Octets of one read, when many messages are wanted.
const LOAD_OCTETS: usize = 256 * 1024;

/// Reads for one queue before another has its turn.
const LOADS_IN_A_ROW: usize = 8;

/// How reading ahead went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// There is enough in memory, or nothing more to read.
    Enough,
    /// The disk could not be read; it is to be tried again.
    Failed,
}

impl Queue {
    /// Reads more of the backlog if somebody needs it soon and nobody does so already.
    pub(super) fn load_if_wanted(&self, state: &mut State) {
        if self.wants_load(state) && !state.loading {
            state.loading = true;
            self.log.load_soon(self.me.clone());
        }
    }

    fn wants_load(&self, state: &State) -> bool {
        let needed = || {
            let head = state.watched && state.ready.is_empty_here();
            !state.consumers.is_empty()
                || head
                || self.spec.settings.max_priority.is_some()
                || self.is_overfull(state)
        };
        state.ready.runs_low() && !state.deleted && needed()
    }

    /// Reads ahead and serves consumers with what was read, on behalf of [`Log::load_soon`](crate::log::Log::load_soon)
    /// and on a thread that may wait for the disk.
    pub fn load_at_home(self: &Arc<Self>, now: u64) -> Loaded {
        let mut result = Loaded::Enough;
        for turn in 0..LOADS_IN_A_ROW {
            let mut state = self.state.lock();
            let read = self.load(&mut state);
            let mut effects = Effects::default();
            // As when messages enter: consumers go first, and then the queue may be too long. It may have become so
            // while its head was away.
            while self.dispatch(&mut state, now, &mut effects) {
                MutexGuard::bump(&mut state);
            }
            self.drop_overflow(&mut state, &mut effects);
            let goes_on = read && self.wants_load(&state);
            let last = turn + 1 == LOADS_IN_A_ROW;
            // As long as this thread goes on nobody else is asked to.
            state.loading = (goes_on && !last) || !read;
            self.loaded.notify_all();
            self.serve(state, now, &mut effects);
            if let Some(home) = self.home.upgrade() {
                home.carry_out(self, &mut effects, now);
            }
            if !read {
                result = Loaded::Failed;
            }
            if !goes_on || last {
                break;
            }
        }
        result
    }

    /// Reads one block while the caller waits; gives whether it is worth looking again.
    pub(super) fn load_now(&self, state: &mut MutexGuard<'_, State>) -> bool {
        if !state.ready.is_away() || state.deleted {
            return false;
        }
        if state.loading {
            let waited = self.loaded.wait_for(state, WAIT_MAX);
            return !waited.timed_out();
        }
        state.loading = true;
        let read = self.load(state);
        state.loading = false;
        self.loaded.notify_all();
        read
    }

    /// Reads one block into the line; gives whether the disk could be read. The lock is free meanwhile.
    fn load(&self, state: &mut MutexGuard<'_, State>) -> bool {
        if !state.ready.is_away() {
            return true;
        }
        let from = state.ready.away_from();
        let many = !state.consumers.is_empty()
            || self.spec.settings.message_ttl.is_some()
            || self.spec.settings.max_priority.is_some()
            || self.is_overfull(state);
        // Otherwise it is only to be known when the first one expires, or one is asked for.
        let octets = if many { LOAD_OCTETS } else { 0 };
        let read = MutexGuard::unlocked(state, || self.log.read(self.id, from, octets));
        let Ok(block) = read else { return false };
        if !state.ready.is_away() || state.ready.away_from() != from || state.deleted {
            return true;
        }
        match block {
            None => state.ready.forget_away(),
            Some(block) => {
                let next = block.next;
                let mut entries = self.entries_of(state, &block);
                state.ready.returned(&mut entries, next);
            }
        }
        true
    }

    fn entries_of(&self, state: &mut State, block: &MessageBlock) -> Vec<Entry> {
        let epoch = self.log.epoch();
        let stored = block.messages().filter_map(|found| {
            let stored = content::read(found.content, found.head.len())?;
            let ttl = self.expires_at(stored.message.attributes().expiration, 0);
            let published_at = stored.published_at.saturating_sub(epoch);
            // One that was published before this start may have lived for a while.
            let age = epoch.saturating_sub(stored.published_at);
            let expires_at = match ttl {
                super::NEVER => super::NEVER,
                ttl => (ttl + published_at).saturating_sub(age),
            };
            let returns = state.returns.remove(&found.seq).unwrap_or(0);
            Some(Entry {
                message: stored.message,
                seq: found.seq,
                expires_at,
                returns,
                redelivered: returns > 0 || found.seq < state.delivered_below,
                logged: true,
            })
        });
        stored.collect()
    }
}

/// How long a `basic.get` waits for somebody else's read.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);
