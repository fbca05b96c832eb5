//! Messages that die: expired, too many, rejected; and the queue that dies of disuse.
//!
//! A message that is to be dead-lettered leaves its queue at once and the log in the step in which it enters the next
//! queue. If the log takes no messages just then, because the disk is full, it is *stranded*: it waits with its queue
//! and is tried again by the sweep. A queue with many of those reads no more of its backlog, so that they stay few.
//!
//! What died and has to be read before it can be passed on, because a consumer had it and only the log has more of it than
//! its place, is *doomed*. What dies behind it, of whatever, waits in the same line, without its body if the log has it:
//! dead letters arrive in the order in which they died. (Not so what two threads carry on at the same moment: the sweep
//! and whoever reads the backlog ahead, or, of one rejection, who rejects what memory has and who reads the rest.)

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::arguments::Overflow;
use super::burial::Dead;
use super::{BATCH_MAX, DeathReason, Effects, NEVER, Queue, State};
use crate::consumer::{ENTRY_OCTETS, Entry, Outstanding};
use crate::storage::Health;

/// Octets of a message on disk besides its body, about.
const HEAD_OCTETS: usize = 256;

/// Octets of memory for stranded messages with which a queue stops reading ahead.
const STRANDED_MAX: u64 = 4 * 1024 * 1024;

/// Messages that have died and that the log has not let into the next queue yet.
#[derive(Default)]
pub(super) struct Stranded {
    dead: Vec<Dead>,
    bytes: u64,
    /// Octets of memory, about.
    resident: u64,
}

impl Stranded {
    pub(super) fn len(&self) -> usize {
        self.dead.len()
    }

    /// Octets of the bodies.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn is_full(&self) -> bool {
        self.resident > STRANDED_MAX
    }

    pub(super) fn take(&mut self) -> Vec<Dead> {
        (self.bytes, self.resident) = (0, 0);
        std::mem::take(&mut self.dead)
    }

    fn extend(&mut self, dead: Vec<Dead>) {
        let octets = |dead: &Dead| dead.entry.message.body_len() as u64;
        let bytes = dead.iter().map(octets).sum::<u64>();
        self.bytes += bytes;
        self.resident += bytes + dead.len() as u64 * ENTRY_OCTETS;
        self.dead.extend(dead);
    }
}

/// Messages that have died and of which the first, at least, has to be read before it can be passed on.
#[derive(Default)]
pub(super) struct Doomed {
    line: VecDeque<Dead<Outstanding>>,
    /// Octets of the bodies.
    bytes: u64,
    /// Some have just been read and are on their way out; what dies meanwhile waits behind them.
    passing: bool,
}

impl Doomed {
    /// Whether what dies now may be passed on at once.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty() && !self.passing
    }

    /// Whether the line can go on, by reading if need be.
    pub(super) fn can_go_on(&self) -> bool {
        !self.line.is_empty() && !self.passing
    }

    /// What was on its way has arrived.
    pub(super) const fn passed(&mut self) {
        self.passing = false;
    }

    pub(super) fn len(&self) -> usize {
        self.line.len()
    }

    /// Octets of the bodies.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn push(&mut self, dead: Dead<Outstanding>) {
        self.bytes += u64::from(dead.entry.body_len);
        self.line.push_back(dead);
    }

    pub(super) fn take(&mut self) -> VecDeque<Dead<Outstanding>> {
        self.bytes = 0;
        std::mem::take(&mut self.line)
    }

    /// The number of the first, if that has to be read.
    pub(super) fn first(&self) -> Option<u64> {
        let first = &self.line.front()?.entry;
        first.message.is_none().then_some(first.seq)
    }

    /// Octets to read from the first on: as far as the numbers rise, what follows is read with it.
    pub(super) fn octets_ahead(&self, octets_max: usize) -> usize {
        let mut last = 0;
        let mut octets = 0;
        for Dead { entry: dead, .. } in &self.line {
            if dead.seq < last || octets >= octets_max {
                break;
            }
            last = dead.seq;
            octets += dead.body_len as usize + HEAD_OCTETS;
        }
        octets.min(octets_max)
    }

    /// Messages with numbers in `range` have been read: `entries` are all that were there, by number. Gives those that can
    /// be passed on now. What was not there is in the log's damage report.
    pub(super) fn read_back(&mut self, entries: &[Entry], range: &Range<u64>) -> Vec<Dead> {
        let mut ready = Vec::new();
        while let Some(Dead { entry: mut dead, reason, under_way }) = self.line.pop_front() {
            let index = entries.binary_search_by_key(&dead.seq, |entry| entry.seq).ok();
            if dead.message.is_none() {
                let read = index.and_then(|index| entries.get(index));
                dead.message = read.map(|entry| entry.message.clone());
            }
            let body_len = u64::from(dead.body_len);
            match dead.into_entry() {
                Ok(entry) => ready.push(Dead { entry, reason, under_way }),
                Err(lost) if range.contains(&lost.seq) => {}
                Err(entry) => {
                    self.line.push_front(Dead { entry, reason, under_way });
                    break;
                }
            }
            self.bytes -= body_len;
        }
        self.passing |= !ready.is_empty();
        ready
    }
}

impl Queue {
    /// Drops messages from the head while the queue is longer than it may be (`drop-head`). What is away is dropped when
    /// it has been read: see [`read_ahead`](Self::read_ahead).
    pub(super) fn drop_overflow(&self, state: &mut State, effects: &mut Effects) {
        while self.is_overfull(state) {
            let Some(entry) = state.ready.pop_front() else { break };
            self.bury(state, Dead::unattended(entry, DeathReason::MaxLength), effects);
        }
    }

    /// A queue that refuses is never too full: what comes back to it was there before.
    pub(super) fn is_overfull(&self, state: &State) -> bool {
        let settings = &self.spec.settings;
        if settings.overflow != Overflow::DropHead {
            return false;
        }
        settings.max_length.is_some_and(|max| state.ready.len() as u64 > max)
            || settings.max_length_bytes.is_some_and(|max| state.ready.bytes() > max)
    }

    /// Drops at most [`BATCH_MAX`] messages that have expired at the head; gives whether that was all.
    pub(super) fn drop_expired(&self, state: &mut State, now: u64, effects: &mut Effects) -> bool {
        for _ in 0..BATCH_MAX {
            let Some(entry) = state.ready.pop_expired(now) else { return true };
            self.bury(state, Dead::unattended(entry, DeathReason::Expired), effects);
        }
        false
    }

    /// A message has died: where the queue has a dead-letter exchange it is passed on, and leaves the log in the
    /// same step in which it enters the next queue; elsewhere it leaves the log with the next
    /// [`finish`](Self::finish).
    pub(super) fn bury(&self, state: &mut State, dead: Dead, effects: &mut Effects) {
        let Dead { entry, reason, under_way } = dead;
        if self.spec.settings.dead_letter.is_none() {
            if entry.logged {
                state.scratch.settled.push(entry.seq);
            }
        } else if state.doomed.is_empty() {
            effects.dead.push(Dead { entry, reason, under_way });
        } else {
            // As long as it waits, memory need not hold what the log has.
            let in_memory = !entry.logged;
            state.doomed.push(Dead { entry: entry.outstanding(in_memory), reason, under_way });
        }
    }

    /// The same with a message that a consumer had.
    pub(super) fn bury_returned(
        &self,
        state: &mut State,
        returned: Dead<Outstanding>,
        effects: &mut Effects,
    ) {
        let Dead { entry, reason, under_way } = returned;
        match entry.into_entry() {
            Ok(entry) => self.bury(state, Dead { entry, reason, under_way }, effects),
            Err(bare) if self.spec.settings.dead_letter.is_some() => {
                state.doomed.push(Dead { entry: bare, reason, under_way });
            }
            Err(bare) => state.scratch.settled.push(bare.seq),
        }
    }

    /// The log has not let these into the next queue: they wait here. Gives whether the sweep has to be told of the
    /// queue.
    pub(crate) fn strand(&self, dead: Vec<Dead>) -> bool {
        let mut state = self.state.lock();
        if state.deleted {
            return false;
        }
        state.stranded.extend(dead);
        // Relaxed: a hint, as everywhere.
        self.next_expiry.store(0, Ordering::Relaxed);
        !std::mem::replace(&mut state.watched, true)
    }

    /// Asks for the sweep when something here may expire, and tells it when.
    pub(super) fn watch_if_wanted(&self, state: &mut State, effects: &mut Effects) {
        let next = state.next_expiry();
        if !state.watched && (next != NEVER || state.is_unread()) {
            state.watched = true;
            effects.watch_expiry = true;
        }
        if state.watched {
            // Relaxed: a hint that the sweep reads again in a moment.
            self.next_expiry.store(next, Ordering::Relaxed);
        }
    }

    /// Drops what has expired at the head, if the hint says that something may have, and tries again with what is
    /// stranded. At most about [`BATCH_MAX`] messages; gives whether that was all.
    pub fn sweep(&self, now: u64, effects: &mut Effects) -> bool {
        // Relaxed: a hint; a message that is missed now is found at the next sweep.
        if self.next_expiry.load(Ordering::Relaxed) > now {
            return true;
        }
        // Those that died before are not to be joined by more as long as they cannot go on.
        let dead_end =
            self.spec.settings.dead_letter.is_some() && self.log.health() != Health::Healthy;
        let mut state = self.state.lock();
        let all = dead_end || {
            effects.dead.append(&mut state.stranded.take());
            self.drop_expired(&mut state, now, effects)
        };
        self.finish(&mut state, effects);
        all
    }

    /// Whether the sweep has something to do here. Read without the lock.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        // Relaxed: a hint; what is missed now is found at the next sweep.
        self.spec.settings.expires.is_some() || self.next_expiry.load(Ordering::Relaxed) <= now
    }

    /// Whether the sweep has to know the queue on. One that was watched because of a message that has gone, or in which
    /// nothing expires after all, is not; it asks to be watched again.
    pub(crate) fn stays_watched(&self) -> bool {
        if self.next_expiry.load(Ordering::Relaxed) != NEVER {
            return !self.is_deleted();
        }
        let mut state = self.state.lock();
        state.watched = self.spec.settings.expires.is_some()
            || state.is_unread()
            || state.next_expiry() != NEVER;
        state.watched && !state.deleted
    }

    /// Whether nobody has used the queue for as long as `x-expires` allows.
    #[must_use]
    pub fn is_abandoned(&self, now: u64) -> bool {
        let Some(expires) = self.spec.settings.expires else {
            return false;
        };
        let state = self.state.lock();
        !state.deleted && state.consumers.is_empty() && now >= state.used_at.saturating_add(expires)
    }
}

impl State {
    /// When the sweep has something to do; what is stranded is always due.
    fn next_expiry(&self) -> u64 {
        if self.stranded.len() > 0 { 0 } else { self.ready.next_expiry() }
    }

    /// Whether it takes a look at the disk to know when the first message expires.
    fn is_unread(&self) -> bool {
        self.ready.has_unread() && self.ready.is_empty_here()
    }
}
