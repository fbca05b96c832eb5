//! Messages that are ready, in order: those in memory, in one line or one for each priority level, and behind them
//! those that only the log has.
//!
//! A long backlog of messages that the log holds stays there, but for its beginning. Such messages are *away*: the
//! queue knows from which number on they are, and how many; which of the numbers are taken the log
//! knows. Transient messages among them have no other place than memory and wait *between* them. What is read back
//! joins the line in order.
//!
//! What a consumer had and gives back may be *bare*: only the log has the message. It stands in its old place all the
//! same, so that nothing behind it goes out before it has been read again.
//!
//! A queue with priority levels keeps everything in memory, since its order is not that of
//! the log; only after a restart is its backlog away until it has been read.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::NEVER;
use crate::consumer::{Allowance, Entry, Outstanding, Place};
use crate::log::budget::Budget;
use crate::message::Publication;
use crate::storage::SeqRange;

/// Octets of logged messages that a queue keeps in memory before the others stay away.
const RESIDENT_MAX: u64 = 4 * 1024 * 1024;

/// When fewer octets than this are left in memory, more are read back.
const RESIDENT_LOW: u64 = 256 * 1024;

/// Octets of logged messages that consumers have and a queue keeps in memory; beyond, only the log does.
const OUTSTANDING_MAX: u64 = 256 * 1024;

/// The budget is told of changes of at least this many octets.
const CHARGE_STEP: u64 = 64 * 1024;

/// A line that was once long gives its memory back when it has become this short.
const SHRINK_BELOW: usize = 1024;

/// The ready messages of a queue. Higher levels go first; within a level the order is that of `seq`.
pub(super) struct Ready {
    /// Level 0 first. A queue without priorities has one level.
    levels: Vec<VecDeque<Entry>>,
    /// In memory, without those between.
    here: usize,
    /// Octets of the bodies of all, away ones included, but for those that a restart has found.
    bytes: u64,
    found: FoundBacklog,
    away: Away,
    /// By number, all of them below those that are away.
    bare: BTreeMap<u64, Bare>,
    /// Octets that logged messages in memory take.
    resident: u64,
    /// The same of those that consumers have.
    outstanding: u64,
    /// Of both, what the budget knows of.
    charged: u64,
    budget: Arc<Budget>,
}

/// Messages numbered `from..until` that the log holds and memory does not.
#[derive(Default)]
struct Away {
    from: u64,
    until: u64,
    len: u64,
    bytes: u64,
    /// Transient messages with numbers in the same range.
    between: VecDeque<Entry>,
}

/// What a restart has found and nobody has read yet. The log knows octets on disk; how many of them are bodies is known
/// when they have been read, or only [`counted`](Ready::counted). Limits do not count them until then: a limit that is
/// met a little late loses nothing.
#[derive(Default)]
struct FoundBacklog {
    /// The messages have numbers from here …
    from: u64,
    /// … to here, exclusively.
    until: u64,
    /// Their octets, about.
    bytes: u64,
}

/// A message that came back from a consumer and that only the log has.
struct Bare {
    body_len: u32,
    returns: u16,
}

/// Everything that was ready.
pub(super) struct Everything {
    /// What was in memory.
    pub(super) entries: Vec<Entry>,
    /// Numbers of messages that only the log has.
    pub(super) bare: Vec<u64>,
    /// In this range the log has more.
    pub(super) away: Option<SeqRange>,
}

impl Ready {
    pub(super) fn new(max_priority: Option<u8>, budget: Arc<Budget>) -> Self {
        let levels = usize::from(max_priority.unwrap_or(0)) + 1;
        Self {
            levels: std::iter::repeat_with(VecDeque::new).take(levels).collect(),
            here: 0,
            bytes: 0,
            found: FoundBacklog::default(),
            away: Away::default(),
            bare: BTreeMap::new(),
            resident: 0,
            outstanding: 0,
            charged: 0,
            budget,
        }
    }

    /// The backlog that a restart has found: `len` messages with numbers below `until`, `bytes` octets on disk.
    pub(super) fn found(&mut self, from: u64, until: u64, len: u64, bytes: u64) {
        if len > 0 {
            self.away = Away { from, until, len, bytes: 0, between: VecDeque::new() };
            self.found = FoundBacklog { from, until, bytes };
        }
    }

    pub(super) fn len(&self) -> usize {
        let away = usize::try_from(self.away.len).unwrap_or(usize::MAX);
        (self.here + self.bare.len() + self.away.between.len()).saturating_add(away)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing can be taken without reading first.
    pub(super) fn is_empty_here(&self) -> bool {
        self.here == 0 || self.is_blocked()
    }

    /// Whether what is in memory is not the first: a bare message stands before it, or, in a queue with priority levels,
    /// one that nobody has read yet may have a higher one.
    fn is_blocked(&self) -> bool {
        if self.levels.len() > 1 && self.is_away() {
            return true;
        }
        let Some((first, _)) = self.bare.first_key_value() else { return false };
        let front = self.levels.iter().find_map(VecDeque::front);
        front.is_none_or(|front| first < &front.seq)
    }

    /// Octets of the bodies, as far as they are known: never too many.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same with what a restart has found and nobody has read yet, estimated.
    pub(super) const fn bytes_about(&self) -> u64 {
        self.bytes + self.found.bytes
    }

    /// Whether more should be read back before what is here has gone.
    pub(super) fn runs_low(&self) -> bool {
        let low = self.resident < RESIDENT_LOW || self.levels.len() > 1 || self.is_blocked();
        low && self.has_unread()
    }

    /// Whether there are messages that would have to be read first, or stand behind such.
    pub(super) fn has_unread(&self) -> bool {
        self.is_away() || !self.bare.is_empty()
    }

    /// Whether messages at the end are away.
    pub(super) fn is_away(&self) -> bool {
        // Not by their count: if that were ever wrong, messages must be found all the same.
        let is_away = self.away.from < self.away.until;
        debug_assert!(is_away || self.away.between.is_empty());
        is_away
    }

    /// Moves on as what is unread is read: the number of the first bare message, and from where on messages are away.
    pub(super) fn unread_from(&self) -> (Option<u64>, u64) {
        (self.first_bare(), self.away.from)
    }

    /// The number of the first bare message.
    pub(super) fn first_bare(&self) -> Option<u64> {
        self.bare.first_key_value().map(|(seq, _)| *seq)
    }

    /// The numbers that are away: from, and until, exclusively.
    pub(super) const fn away_range(&self) -> (u64, u64) {
        (self.away.from, self.away.until)
    }

    fn level_of(&mut self, entry: &Entry) -> Option<&mut VecDeque<Entry>> {
        let top = self.levels.len() - 1;
        self.levels.get_mut(usize::from(entry.message.attributes().priority).min(top))
    }

    fn count_in(&mut self, entry: &Entry) {
        let body_len = entry.message.body_len();
        self.here += 1;
        self.bytes += body_len as u64;
        if entry.logged {
            self.resident += Allowance::cost(body_len);
        }
    }

    fn count_out(&mut self, entry: &Entry) {
        let body_len = entry.message.body_len();
        self.here -= 1;
        self.bytes -= body_len as u64;
        if entry.logged {
            self.resident -= Allowance::cost(body_len);
        }
    }

    /// Tells the budget what memory is in use, when that has changed enough.
    pub(super) fn charge(&mut self) {
        let used = self.resident + self.outstanding;
        let idle = used == 0 && self.charged > 0;
        if idle || used.abs_diff(self.charged) >= CHARGE_STEP {
            self.budget.replace(self.charged, used);
            self.charged = used;
        }
    }

    /// How much of what is handed out next may stay in memory. The order of a queue with priority levels is not that of
    /// the log, so that there all of it does.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance::new(match self.levels.len() {
            1 if self.budget.is_spent() => 0,
            1 => OUTSTANDING_MAX.saturating_sub(self.outstanding),
            _ => u64::MAX,
        })
    }

    /// Consumers have so many more octets of logged messages in memory.
    pub(super) fn charge_outstanding(&mut self, octets: u64) {
        self.outstanding += octets;
        self.charge();
    }

    /// They have settled so many.
    pub(super) fn release_outstanding(&mut self, octets: u64) {
        self.outstanding = self.outstanding.saturating_sub(octets);
        self.charge();
    }

    /// A message is back of which only the log has more than its place.
    pub(super) fn push_bare(&mut self, returned: &Outstanding) {
        self.bytes += u64::from(returned.body_len);
        let (body_len, returns) = (returned.body_len, returned.returns);
        self.bare.insert(returned.seq, Bare { body_len, returns });
    }

    /// Messages with numbers in `range` have been read, among them bare ones: `entries` are all that were there. Leaves
    /// `entries` empty. What was not there is in the log's damage report.
    pub(super) fn read_back(&mut self, entries: &mut Vec<Entry>, range: Range<u64>) {
        entries.retain_mut(|entry| {
            let Some(bare) = self.bare.remove(&entry.seq) else { return false };
            self.bytes -= u64::from(bare.body_len);
            entry.redelivered = true;
            entry.returns = bare.returns;
            true
        });
        self.restore(entries);
        while let Some((&lost, _)) = self.bare.range(range.clone()).next()
            && let Some(bare) = self.bare.remove(&lost)
        {
            self.bytes -= u64::from(bare.body_len);
        }
    }

    /// Appends a message that was published: to the line, or, if the log holds it and memory is scarce, away.
    pub(super) fn publish(&mut self, publication: &Publication<'_>, place: Place) {
        if self.levels.len() > 1 {
            self.push_back(place.entry(publication.to_message()));
            return;
        }
        let is_away = self.is_away();
        let body_len = publication.body_len();
        if !place.logged {
            let entry = place.entry(publication.to_message());
            if is_away {
                self.bytes += body_len as u64;
                self.away.between.push_back(entry);
            } else {
                self.push_back(entry);
            }
            return;
        }
        let full = || {
            self.resident + Allowance::cost(body_len) > RESIDENT_MAX
                || (self.here > 0 && self.budget.is_spent())
        };
        if !is_away && !full() {
            self.push_back(place.entry(publication.to_message()));
            return;
        }
        if !is_away {
            self.away.from = place.seq;
        }
        self.away.until = place.seq + 1;
        self.away.len += 1;
        self.away.bytes += body_len as u64;
        self.bytes += body_len as u64;
    }

    /// Messages up to number `next`, exclusively, have been read back: `entries` are those that were there. Leaves
    /// `entries` empty.
    pub(super) fn returned(&mut self, entries: &mut Vec<Entry>, next: u64) {
        let next = next.min(self.away.until);
        // The others are not away: published since into a queue with levels, and in memory.
        entries.retain(|entry| entry.seq < next);
        if self.levels.len() > 1 {
            for entry in &*entries {
                self.count_back(entry.seq, entry.message.body_len());
            }
            self.restore(entries);
        }
        for entry in entries.drain(..) {
            while self.away.between.front().is_some_and(|between| between.seq < entry.seq) {
                self.return_between();
            }
            self.count_back(entry.seq, entry.message.body_len());
            self.push_back(entry);
        }
        self.away.from = next.max(self.away.from);
        self.count_found_to(self.away.from);
        if self.away.from >= self.away.until {
            self.forget_away();
        }
    }

    /// A message that is away is not there any more. Its octets are counted, where they are not known, until nothing
    /// is away.
    pub(super) fn lost(&mut self, seq: u64, body_len: usize) {
        if (self.away.from..self.away.until).contains(&seq) {
            self.count_back(seq, body_len);
        }
    }

    /// From which number on the octets of what is away are only known about, if there are such messages.
    pub(super) fn uncounted(&self) -> Option<u64> {
        let from = self.found.from.max(self.away.from);
        (from < self.found.until.min(self.away.until)).then_some(from)
    }

    /// The log has been read from number `from` to `next`, exclusively, to know how long bodies are: those of `messages`,
    /// by number. They stay away. Of no effect if others have counted meanwhile.
    pub(super) fn counted(
        &mut self,
        from: u64,
        next: u64,
        messages: impl Iterator<Item = (u64, usize)>,
    ) {
        if self.uncounted() != Some(from) {
            return;
        }
        let until = self.found.until.min(next);
        for (_, body_len) in messages.take_while(|(seq, _)| *seq < until) {
            self.found.bytes = self.found.bytes.saturating_sub(body_len as u64);
            self.away.bytes += body_len as u64;
            self.bytes += body_len as u64;
        }
        self.count_found_to(until);
    }

    /// What a restart has found is known up to number `next`, exclusively.
    fn count_found_to(&mut self, next: u64) {
        self.found.from = self.found.from.max(next);
        if self.found.from >= self.found.until {
            self.found.bytes = 0;
        }
    }

    /// A message is not away any more, and not counted here yet.
    fn count_back(&mut self, seq: u64, body_len: usize) {
        let body_len = body_len as u64;
        self.away.len = self.away.len.saturating_sub(1);
        if (self.found.from..self.found.until).contains(&seq) {
            self.found.bytes = self.found.bytes.saturating_sub(body_len);
            return;
        }
        let body_len = body_len.min(self.away.bytes);
        self.away.bytes -= body_len;
        self.bytes -= body_len;
    }

    /// The log has no more of them, whatever was counted: lost messages are in its damage report.
    pub(super) fn forget_away(&mut self) {
        self.bytes -= std::mem::take(&mut self.away.bytes);
        self.found.bytes = 0;
        self.away.len = 0;
        self.away.from = self.away.until;
        while !self.away.between.is_empty() {
            self.return_between();
        }
    }

    /// Moves the first message between to the line.
    fn return_between(&mut self) {
        if let Some(between) = self.away.between.pop_front() {
            self.bytes -= between.message.body_len() as u64;
            self.push_back(between);
        }
    }

    pub(super) fn push_back(&mut self, entry: Entry) {
        self.count_in(&entry);
        if let Some(line) = self.level_of(&entry) {
            line.push_back(entry);
        }
    }

    pub(super) fn push_front(&mut self, entry: Entry) {
        self.count_in(&entry);
        if let Some(line) = self.level_of(&entry) {
            line.push_front(entry);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Entry> {
        if self.is_blocked() {
            return None;
        }
        let line = self.levels.iter_mut().rev().find(|line| !line.is_empty())?;
        let entry = line.pop_front()?;
        if line.len() < SHRINK_BELOW && line.capacity() > 8 * SHRINK_BELOW {
            line.shrink_to(SHRINK_BELOW);
        }
        self.count_out(&entry);
        Some(entry)
    }

    /// How many messages from the front, none of them expired, have at most `bytes` octets of bodies together: one
    /// at least, `max` at most.
    pub(super) fn count_within(&self, max: usize, bytes: usize, now: u64) -> usize {
        let mut left = bytes;
        let bare = self.first_bare().unwrap_or(u64::MAX);
        let lines = self.levels.iter().rev().flatten().take(max);
        let fitting = lines.take_while(|entry| {
            let len = entry.message.body_len();
            let fits = len <= left && entry.expires_at > now && entry.seq < bare;
            left = left.saturating_sub(len);
            fits
        });
        fitting.count().max(1)
    }

    /// Takes a message at the head of a level whose time has come.
    pub(super) fn pop_expired(&mut self, now: u64) -> Option<Entry> {
        if self.is_blocked() {
            return None;
        }
        let expired =
            |line: &&mut VecDeque<Entry>| line.front().is_some_and(|entry| entry.expires_at <= now);
        let entry = self.levels.iter_mut().find(expired)?.pop_front()?;
        self.count_out(&entry);
        Some(entry)
    }

    /// When the first message at the head of a level expires.
    pub(super) fn next_expiry(&self) -> u64 {
        if self.is_blocked() {
            return NEVER;
        }
        let heads = self.levels.iter().filter_map(VecDeque::front);
        heads.map(|entry| entry.expires_at).min().unwrap_or(NEVER)
    }

    /// Puts entries back to their places by `seq`; leaves `entries` empty. The cost grows with the entries
    /// that come back and with those of the line that stand before the last of them.
    pub(super) fn restore(&mut self, entries: &mut Vec<Entry>) {
        entries.sort_unstable_by_key(|entry| entry.seq);
        for entry in &*entries {
            self.count_in(entry);
        }
        let top = self.levels.len() - 1;
        for (level, line) in self.levels.iter_mut().enumerate() {
            let here = |entry: &Entry| usize::from(entry.message.attributes().priority).min(top);
            let mut returned: Vec<Entry> = if top == 0 {
                std::mem::take(entries)
            } else {
                entries.extract_if(.., |entry| here(entry) == level).collect()
            };
            let Some(last) = returned.last().map(|entry| entry.seq) else {
                continue;
            };
            let mut passed = Vec::new();
            while line.front().is_some_and(|front| front.seq < last) {
                passed.extend(line.pop_front());
            }
            while let Some(entry) = returned.pop() {
                while passed.last().is_some_and(|earlier: &Entry| earlier.seq > entry.seq) {
                    if let Some(earlier) = passed.pop() {
                        line.push_front(earlier);
                    }
                }
                line.push_front(entry);
            }
            while let Some(earlier) = passed.pop() {
                line.push_front(earlier);
            }
        }
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> Everything {
        let mut entries = Vec::with_capacity(self.here + self.away.between.len());
        for line in self.levels.iter_mut().rev() {
            entries.extend(std::mem::take(line));
        }
        let away = std::mem::take(&mut self.away);
        entries.extend(away.between);
        let bare = std::mem::take(&mut self.bare).into_keys().collect();
        self.here = 0;
        self.bytes = 0;
        self.found.bytes = 0;
        self.resident = 0;
        self.charge();
        let range = SeqRange { first: away.from, last: away.until.saturating_sub(1) };
        Everything { entries, bare, away: (away.from < away.until).then_some(range) }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.resident = 0;
        self.outstanding = 0;
        self.charge();
    }
}
