//! Messages that are ready, in order: one line, or one for each priority level.

use std::collections::VecDeque;

use super::NEVER;
use crate::consumer::Entry;

/// The ready messages of a queue. Higher levels go first; within a level the order is that of `seq`.
pub(super) struct Ready {
    /// Level 0 first. A queue without priorities has one level.
    levels: Vec<VecDeque<Entry>>,
    len: usize,
    bytes: u64,
}

/// A line that was once long gives its memory back when it has become this short.
const SHRINK_BELOW: usize = 1024;

impl Ready {
    pub(super) fn new(max_priority: Option<u8>) -> Self {
        let levels = usize::from(max_priority.unwrap_or(0)) + 1;
        Self {
            levels: std::iter::repeat_with(VecDeque::new).take(levels).collect(),
            len: 0,
            bytes: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets of the bodies.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    fn level_of(&mut self, entry: &Entry) -> Option<&mut VecDeque<Entry>> {
        let top = self.levels.len() - 1;
        self.levels.get_mut(usize::from(entry.message.attributes().priority).min(top))
    }

    fn count_in(&mut self, entry: &Entry) {
        self.len += 1;
        self.bytes += entry.message.body_len() as u64;
    }

    fn count_out(&mut self, entry: &Entry) {
        self.len -= 1;
        self.bytes -= entry.message.body_len() as u64;
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
        let lines = self.levels.iter().rev().flatten().take(max);
        let fitting = lines.take_while(|entry| {
            let len = entry.message.body_len();
            let fits = len <= left && entry.expires_at > now;
            left = left.saturating_sub(len);
            fits
        });
        fitting.count().max(1)
    }

    /// Takes a message at the head of a level whose time has come.
    pub(super) fn pop_expired(&mut self, now: u64) -> Option<Entry> {
        let expired =
            |line: &&mut VecDeque<Entry>| line.front().is_some_and(|entry| entry.expires_at <= now);
        let entry = self.levels.iter_mut().find(expired)?.pop_front()?;
        self.count_out(&entry);
        Some(entry)
    }

    /// When the first message at the head of a level expires.
    pub(super) fn next_expiry(&self) -> u64 {
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

    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        let mut all = Vec::with_capacity(self.len);
        for line in self.levels.iter_mut().rev() {
            all.extend(std::mem::take(line));
        }
        self.len = 0;
        self.bytes = 0;
        all
    }
}
