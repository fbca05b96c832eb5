//! The backlog that only the log has: when to read it, and what a read brings.
//!
//! One at a time reads ahead for a queue: the log's own thread, or, when a `basic.get` finds nothing in memory, the
//! thread that asks. The queue's lock is not held meanwhile, so that publishing goes on. What comes back is looked
//! at against the state as it is then: a purge in between makes it void.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{Effects, Queue, State, Unreadable};
use crate::consumer::Entry;
use crate::log::content;
use crate::storage::{self, MessageBlock};

/// Octets of one read, when many messages are wanted.
const LOAD_OCTETS: usize = 256 * 1024;

/// Reads for one queue before another has its turn; of messages to be dead-lettered there may be as many within each.
const LOADS_IN_A_ROW: usize = 8;

/// How long a `basic.get` waits for what is to be read.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How soon it tries again to read what the disk did not give.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// How much longer one `basic.get` waits, however often it has to look again.
#[derive(Default)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that waits for a disk waits in real time"
    )]
    fn ends(&mut self) -> Instant {
        *self.0.get_or_insert_with(|| Instant::now() + WAIT_MAX)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that waits for a disk waits in real time"
    )]
    fn tries_again(&mut self) -> Instant {
        self.ends().min(Instant::now() + TRY_AGAIN)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that waits for a disk waits in real time"
    )]
    fn is_over(&mut self) -> bool {
        Instant::now() >= self.ends()
    }
}

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
        if self.wants_to_read(state) && !state.loading {
            state.loading = true;
            self.log.load_soon(self.me.clone());
        }
    }

    /// Whether there is something to be read from the log, for whatever reason.
    fn wants_to_read(&self, state: &State) -> bool {
        state.wants_doomed() || self.wants_load(state) || self.wants_count(state)
    }

    /// Whether a limit needs to know how long the bodies are that a restart has found.
    fn wants_count(&self, state: &State) -> bool {
        self.spec.settings.max_length_bytes.is_some()
            && state.ready.uncounted().is_some()
            && !state.deleted
    }

    /// Whether more of the backlog is needed soon. When the memory for messages is used up, only a queue that has none
    /// in memory reads, and one at a time; but a queue with priority levels needs all of them, and those that are too
    /// many are dropped as soon as they are read.
    fn wants_load(&self, state: &State) -> bool {
        let regardless = || self.spec.settings.max_priority.is_some() || self.is_overfull(state);
        let needed = || {
            let head = state.watched && state.ready.is_empty_here();
            let affordable = state.ready.is_empty_here() || !self.log.budget().is_spent();
            (head || !state.consumers.is_empty()) && affordable
        };
        // Who consumes is served on all the same, one message at a time: that is how the disk gets room again.
        let starves = || state.ready.is_empty_here() && !state.consumers.is_empty();
        let possible =
            state.ready.runs_low() && !state.deleted && (!state.stranded.is_full() || starves());
        possible && (regardless() || needed())
    }

    /// Reads ahead and serves consumers with what was read, on behalf of [`Log::load_soon`](crate::log::Log::load_soon)
    /// and on a thread that may wait for the disk.
    pub fn read_ahead(self: &Arc<Self>, now: u64) -> Loaded {
        let mut result = Loaded::Enough;
        for turn in 0..LOADS_IN_A_ROW {
            let mut state = self.state.lock();
            let mut effects = Effects::default();
            let counts = !self.wants_load(&state) && !state.wants_doomed();
            let mut read = !self.wants_load(&state) || self.load(&mut state);
            read &= self.load_doomed(&mut state, &mut effects);
            // Last, so that nobody waits for it.
            if counts && self.wants_count(&state) {
                read &= self.count_found(&mut state);
            }
            // As when messages enter: consumers go first, and then the queue may be too long. It may have become so
            // while its head was away.
            while self.dispatch(&mut state, now, &mut effects) {
                MutexGuard::bump(&mut state);
            }
            self.drop_overflow(&mut state, &mut effects);
            let goes_on = read && self.wants_to_read(&state);
            let last = turn + 1 == LOADS_IN_A_ROW;
            // As long as this thread goes on nobody else is asked to.
            state.loading = (goes_on && !last) || !read;
            self.loaded.notify_all();
            self.serve(state, now, &mut effects);
            match self.home.upgrade() {
                Some(home) => home.carry_out(self, &mut effects, now),
                None => effects.abandon(),
            }
            self.doomed_passed();
            if !read {
                result = Loaded::Failed;
            }
            if !goes_on || last {
                break;
            }
        }
        result
    }

    /// Dead letters that were read have arrived: what has died meanwhile has its turn.
    fn doomed_passed(&self) {
        let mut state = self.state.lock();
        state.doomed.passed();
        self.load_if_wanted(&mut state);
    }

    /// Reads one block while the caller waits, or waits until somebody else has.
    ///
    /// # Errors
    /// [`Unreadable`] when the disk does not give it, or not soon.
    pub(super) fn load_now(
        &self,
        state: &mut MutexGuard<'_, State>,
        patience: &mut Patience,
    ) -> Result<(), Unreadable> {
        let progress = state.ready.unread_from();
        let until = if state.loading {
            patience.tries_again()
        } else {
            state.loading = true;
            let read = self.load(state);
            state.loading = false;
            if read {
                self.loaded.notify_all();
                return Ok(());
            }
            // The disk may think better of it.
            patience.tries_again()
        };
        self.loaded.wait_until(state, until);
        if state.ready.unread_from() != progress {
            // It takes long, but goes on.
            *patience = Patience::default();
        }
        if patience.is_over() { Err(Unreadable) } else { Ok(()) }
    }

    /// Reads one block into the line; gives whether the disk could be read. The lock is free meanwhile.
    fn load(&self, state: &mut MutexGuard<'_, State>) -> bool {
        if !state.ready.has_unread() {
            return true;
        }
        match state.ready.first_bare() {
            Some(first) => self.load_bare(state, first),
            None => self.load_away(state),
        }
    }

    /// Reads a block of what a restart has found only to know how long the bodies are; gives whether the disk could be
    /// read. The lock is free meanwhile.
    fn count_found(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let Some(from) = state.ready.uncounted() else { return true };
        let read = MutexGuard::unlocked(state, || self.log.read(self.id, from, LOAD_OCTETS));
        match read {
            Ok(Some(block)) => {
                let bodies = block.messages().map(|found| (found.seq, found.body.len()));
                state.ready.counted(from, block.next, bodies);
            }
            Ok(None) => state.ready.counted(from, u64::MAX, std::iter::empty()),
            Err(_) => return false,
        }
        true
    }

    /// Octets that one read of the backlog is to bring; 0 is one message.
    fn octets_wanted(&self, state: &State) -> usize {
        let many = !state.consumers.is_empty() || self.spec.settings.message_ttl.is_some();
        let regardless = self.spec.settings.max_priority.is_some() || self.is_overfull(state);
        // Otherwise it is only to be known when the first one expires, or one is asked for.
        let affordable = !self.log.budget().is_spent() && !state.stranded.is_full();
        match regardless || (many && affordable) {
            true => LOAD_OCTETS,
            false => 0,
        }
    }

    /// Reads what has come back from consumers and is in its place without the message: the number `from` and those
    /// behind it that the block has too.
    fn load_bare(&self, state: &mut MutexGuard<'_, State>, from: u64) -> bool {
        let (octets, next_seq) = (self.octets_wanted(state), state.next_seq);
        let read = MutexGuard::unlocked(state, || self.log.read(self.id, from, octets));
        let Ok(block) = read else { return false };
        // What was published meanwhile is not in it.
        let next = block.as_ref().map_or(next_seq, |block| block.next);
        let mut entries = self.read_again(state, block.as_ref());
        state.ready.read_back(&mut entries, from..next);
        true
    }

    /// Reads the first of what only the log has, of which no place is in memory either.
    fn load_away(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let (from, until) = state.ready.away_range();
        let octets = self.octets_wanted(state);
        let read = MutexGuard::unlocked(state, || self.log.read(self.id, from, octets));
        let Ok(block) = read else { return false };
        let (is_from, is_until) = state.ready.away_range();
        if !state.ready.is_away() || is_from != from || state.deleted {
            return true;
        }
        match block {
            // What was published meanwhile is there at the next look.
            None if is_until != until => {}
            None => state.ready.forget_away(),
            Some(block) => {
                let numbers = from..block.next.min(until);
                let lost = block.lost.iter().flat_map(|range| range.first..=range.last);
                for seq in lost.filter(|seq| numbers.contains(seq)) {
                    state.ready.lost(seq, 0);
                }
                let mut strange = Vec::new();
                let mut entries = self.entries_of(state, &block, &mut strange);
                if !state.returns.is_empty() {
                    // From now on they know by themselves.
                    for entry in &entries {
                        state.returns.remove(&entry.seq);
                    }
                }
                for found in &strange {
                    state.ready.lost(found.seq, found.body.len());
                }
                state.ready.returned(&mut entries, block.next);
                if !strange.is_empty() {
                    MutexGuard::unlocked(state, || self.give_up(&strange));
                }
            }
        }
        true
    }

    /// Reads messages that wait for it to be dead-lettered; gives whether the disk could be read. The lock is free
    /// meanwhile.
    fn load_doomed(&self, state: &mut MutexGuard<'_, State>, effects: &mut Effects) -> bool {
        // Those that died together go on together, if they are not very many.
        for _ in 0..LOADS_IN_A_ROW {
            if !state.wants_doomed() && effects.dead.is_empty() {
                break;
            }
            // What stands in front and is in memory needs no reading.
            effects.dead.append(&mut state.doomed.read_back(&[], &(0..0)));
            let Some(from) = state.doomed.first() else { break };
            let next_seq = state.next_seq;
            let octets = state.doomed.octets_ahead(LOAD_OCTETS);
            let read = MutexGuard::unlocked(state, || self.log.read(self.id, from, octets));
            let Ok(block) = read else { return false };
            // What was published meanwhile is not in it.
            let next = block.as_ref().map_or(next_seq, |block| block.next);
            let entries = self.read_again(state, block.as_ref());
            effects.dead.append(&mut state.doomed.read_back(&entries, &(from..next)));
        }
        true
    }

    /// The messages of a block that is read for some of them, which have been read before: what is strange in it is met
    /// when its turn comes.
    fn read_again(&self, state: &mut State, block: Option<&MessageBlock>) -> Vec<Entry> {
        let read = |block| self.entries_of(state, block, &mut Vec::new());
        block.map(read).unwrap_or_default()
    }

    /// Has the log name and settle messages that another program has written. Waits for the disk.
    fn give_up(&self, strange: &[storage::Message<'_>]) {
        for found in strange {
            let octets = [found.head, found.body].concat();
            self.log.give_up(
                self.id,
                found.seq,
                &octets,
                "a message with a head of another program",
            );
        }
    }

    /// The messages of a block, but for those whose head is not one: they are `strange`.
    fn entries_of<'a>(
        &self,
        state: &mut State,
        block: &'a MessageBlock,
        strange: &mut Vec<storage::Message<'a>>,
    ) -> Vec<Entry> {
        let started_at = self.log.started_at_unix_ms();
        let stored = block.messages().filter_map(|found| {
            let Some(stored) = content::read(&found) else {
                strange.push(found);
                return None;
            };
            let ttl = self.expires_at(stored.message.attributes().expiration, 0);
            let published_at = stored.published_at.saturating_sub(started_at);
            // One that was published before this start may have lived for a while.
            let age = started_at.saturating_sub(stored.published_at);
            let expires_at = match ttl {
                super::NEVER => super::NEVER,
                ttl => (ttl + published_at).saturating_sub(age),
            };
            let returns = state.returns.get(&found.seq).copied().unwrap_or(0);
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

impl State {
    /// Whether messages have to be read to be dead-lettered.
    fn wants_doomed(&self) -> bool {
        self.doomed.can_go_on() && !self.stranded.is_full() && !self.deleted
    }
}
