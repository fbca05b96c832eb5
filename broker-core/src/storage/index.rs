//! Where each message lies: the state that records build up and that a checkpoint writes down.
//!
//! The one idea: a message in the log costs one entry of 24 octets, a message in a segment costs
//! its share of an extent and of a compressed set. Within a queue every number in a segment is
//! below every number in the log (`spilled_below` lies between), because the log is spilled oldest
//! file first and numbers ascend. Only *durable* acks and definitions get in here, so whoever reads
//! this state may give space back. No I/O, no threads: replay and running use the same code.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;

use super::seq_set::SeqSet;
use super::{MessageRef, SeqRange};

/// A message in the log. `len` 0 means that it is gone and waits to be swept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) seq: u64,
    /// Position of the record.
    pub(super) lsn: u64,
    /// Octets of the record.
    pub(super) len: u32,
}

impl LogEntry {
    pub(super) fn is_live(&self) -> bool {
        self.len != 0
    }
}

/// A run of messages of one queue in one segment, read as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// Octets with header.
    pub(super) len: u32,
    /// Messages when it was written.
    pub(super) count: u32,
    /// Messages not acked since.
    pub(super) live: u32,
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Extent {
    /// The octets that count as live: the extent's, in proportion.
    fn live_octets(&self) -> u64 {
        u64::from(self.len) * u64::from(self.live) / u64::from(self.count.max(1))
    }
}

/// What is known of a segment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentUse {
    /// Octets of the file.
    pub(super) len: u64,
    pub(super) live_octets: u64,
    pub(super) live_extents: u64,
    /// Header, footer or length were found unsound since the store was opened: what lives in it is to be rewritten, or
    /// every start would report it. No checkpoint says so.
    pub(super) is_damaged: bool,
}

/// One queue.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueIndex {
    pub(super) log: VecDeque<LogEntry>,
    /// Entries of `log` that are gone.
    pub(super) log_dead: usize,
    /// Sorted by number; no two overlap.
    pub(super) extents: VecDeque<Extent>,
    /// The live numbers in extents.
    pub(super) spilled: SeqSet,
    /// Every number below has left the log.
    pub(super) spilled_below: u64,
    /// Above every number ever appended.
    pub(super) next_seq: u64,
    /// Numbers below may have been delivered.
    pub(super) delivered_below: u64,
    /// Times returned, of live messages that were.
    pub(super) returns: BTreeMap<u64, u32>,
    /// Numbers that were live when the store was opened or later, and were given up since. Kept in
    /// memory only: whoever counts the messages of the queue learns them when reading past them.
    pub(super) known_lost: SeqSet,
}

impl QueueIndex {
    /// Octets that live messages take on disk, as near as extents tell.
    pub(super) fn octets(&self) -> u64 {
        let spilled: u64 = self.extents.iter().map(Extent::live_octets).sum();
        spilled + self.log.iter().map(|entry| u64::from(entry.len)).sum::<u64>()
    }

    /// Octets of memory, about.
    pub(super) fn memory(&self) -> u64 {
        let entries = self.log.capacity() * size_of::<LogEntry>();
        let extents = self.extents.capacity() * size_of::<Extent>();
        let rest = size_of::<Self>() + self.returns.len() * 32;
        (entries + extents + rest) as u64 + self.spilled.memory() + self.known_lost.memory()
    }

    /// All live numbers.
    pub(super) fn live(&self) -> SeqSet {
        let mut live = self.spilled.clone();
        for entry in self.log.iter().filter(|entry| entry.is_live()) {
            live.insert(entry.seq);
        }
        live
    }

    /// The live numbers of a range, ascending.
    fn live_within(&self, range: SeqRange) -> Vec<u64> {
        let spilled = self.spilled.iter_from(range.first).take_while(|seq| *seq <= range.last);
        let mut live: Vec<u64> = spilled.collect();
        let in_log = self.log.range(self.log_from(range.first)..);
        let in_log = in_log.take_while(|entry| entry.seq <= range.last);
        live.extend(in_log.filter(|entry| entry.is_live()).map(|entry| entry.seq));
        live
    }

    /// Notes which messages of a range are lost to its readers.
    pub(super) fn note_lost(&mut self, range: SeqRange) {
        for seq in self.live_within(range) {
            self.known_lost.insert(seq);
        }
    }

    /// Index of the first entry of the log numbered `seq` or above.
    pub(super) fn log_from(&self, seq: u64) -> usize {
        match self.log.front() {
            Some(front) if front.seq >= seq => 0,
            _ => self.log.partition_point(|entry| entry.seq < seq),
        }
    }

    /// Index of the first extent that reaches `seq` or beyond.
    pub(super) fn extents_from(&self, seq: u64) -> usize {
        match self.extents.front() {
            Some(front) if front.last >= seq => 0,
            _ => self.extents.partition_point(|extent| extent.last < seq),
        }
    }

    pub(super) fn oldest_live_lsn(&self) -> Option<u64> {
        // Swept fronts are always live.
        self.log.front().map(|entry| entry.lsn)
    }

    fn remove_log(&mut self, range: SeqRange, lsn: u64) {
        let mut index = self.log_from(range.first);
        while let Some(entry) = self.log.get_mut(index)
            && entry.seq <= range.last
            && entry.lsn < lsn
        {
            if entry.is_live() {
                entry.len = 0;
                self.log_dead += 1;
            }
            index += 1;
        }
        self.sweep();
    }

    /// Drops dead entries: at the front at once, elsewhere when they are the half.
    fn sweep(&mut self) {
        while self.log.front().is_some_and(|entry| !entry.is_live()) {
            self.log.pop_front();
            self.log_dead -= 1;
        }
        if self.log_dead > 64 && self.log_dead > self.log.len() / 2 {
            self.log.retain(LogEntry::is_live);
            self.log_dead = 0;
        }
        // A queue that was deep once does not keep the room for ever.
        if self.log.capacity() > 1024 && self.log.len() < self.log.capacity() / 8 {
            self.log.shrink_to(self.log.len() * 2);
        }
    }
}

/// A segment that was made, with the extents in it by queue.
#[derive(Clone, Debug, Default)]
pub(super) struct NewSegment {
    pub(super) id: u64,
    pub(super) len: u64,
    pub(super) extents: Vec<(u64, Extent)>,
}

/// A change that counts once its record is durable.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Concerns what was appended before position `lsn` only.
    Ack {
        queue: u64,
        ranges: Box<[SeqRange]>,
        lsn: u64,
    },
    /// The same.
    Requeued {
        queue: u64,
        ranges: Box<[SeqRange]>,
        lsn: u64,
    },
    Delivered {
        queue: u64,
        last: u64,
    },
    PutDefinition {
        key: Box<[u8]>,
        value: Box<[u8]>,
    },
    DeleteDefinition {
        key: Box<[u8]>,
    },
    DeleteQueue {
        queue: u64,
    },
    Segments {
        added: Vec<NewSegment>,
        dropped: Vec<u64>,
    },
}

/// The whole state.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pub(super) queues: HashMap<u64, QueueIndex>,
    pub(super) definitions: BTreeMap<Box<[u8]>, Box<[u8]>>,
    pub(super) segments: BTreeMap<u64, SegmentUse>,
}

impl Index {
    /// The number that a new message of this queue must reach, as the lowest allowed.
    pub(super) fn next_seq(&self, queue: u64) -> u64 {
        self.queues.get(&queue).map_or(0, |queue| queue.next_seq)
    }

    /// Notes a message in the log. A number not above what is there is passed over (replay meets
    /// records twice).
    pub(super) fn enqueue(&mut self, target: MessageRef, lsn: u64, len: u32) {
        let queue = self.queues.entry(target.queue).or_default();
        let is_new = target.seq >= queue.spilled_below
            && queue.log.back().is_none_or(|back| back.seq < target.seq);
        if is_new {
            queue.log.push_back(LogEntry { seq: target.seq, lsn, len });
        }
        queue.next_seq = queue.next_seq.max(target.seq.saturating_add(1));
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Ack { queue, ranges, lsn } => {
                for range in ranges {
                    self.ack(queue, range, lsn);
                }
            }
            Effect::Requeued { queue, ranges, lsn } => {
                for range in ranges {
                    self.requeued(queue, range, lsn);
                }
            }
            Effect::Delivered { queue, last } => {
                self.queues.entry(queue).or_default().delivered_below = last.saturating_add(1);
            }
            Effect::PutDefinition { key, value } => {
                self.definitions.insert(key, value);
            }
            Effect::DeleteDefinition { key } => {
                self.definitions.remove(&key);
            }
            Effect::DeleteQueue { queue } => {
                if let Some(queue) = self.queues.remove(&queue) {
                    for extent in &queue.extents {
                        self.forget_extent(extent);
                    }
                }
            }
            Effect::Segments { added, dropped } => self.change_segments(added, &dropped),
        }
    }

    fn ack(&mut self, id: u64, range: SeqRange, lsn: u64) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        queue.remove_log(range, lsn);
        if range.first < queue.spilled_below && !queue.spilled.is_empty() {
            let mut index = queue.extents_from(range.first);
            while let Some(extent) = queue.extents.get_mut(index)
                && extent.first <= range.last
            {
                let removed = queue
                    .spilled
                    .remove_range(extent.first.max(range.first)..=extent.last.min(range.last));
                let before = extent.live_octets();
                extent.live =
                    extent.live.saturating_sub(u32::try_from(removed).unwrap_or(u32::MAX));
                let after = extent.live_octets();
                let is_dead = extent.live == 0;
                if let Some(segment) = self.segments.get_mut(&extent.segment) {
                    segment.live_octets = segment.live_octets.saturating_sub(before - after);
                    segment.live_extents -= u64::from(is_dead);
                }
                if is_dead {
                    queue.extents.remove(index);
                } else {
                    index += 1;
                }
            }
        }
        if range.first < queue.spilled_below {
            // Replay may meet the ack of a message whose segment is gone already.
            queue.spilled.remove_range(range.first..=range.last);
        }
        // Numbers of later messages have no returns yet: those come after them in the log.
        if !queue.returns.is_empty() {
            queue.returns.retain(|seq, _| !(range.first..=range.last).contains(seq));
        }
    }

    fn requeued(&mut self, id: u64, range: SeqRange, lsn: u64) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let from = queue.log_from(range.first);
        let in_log = queue.log.range(from..);
        let in_log = in_log.take_while(|entry| entry.seq <= range.last && entry.lsn < lsn);
        let mut live: Vec<u64> =
            in_log.filter(|entry| entry.is_live()).map(|entry| entry.seq).collect();
        live.extend(queue.spilled.iter_from(range.first).take_while(|seq| *seq <= range.last));
        for seq in live {
            let returns = queue.returns.entry(seq).or_default();
            *returns = returns.saturating_add(1);
        }
    }

    fn forget_extent(&mut self, extent: &Extent) {
        if let Some(segment) = self.segments.get_mut(&extent.segment) {
            segment.live_octets = segment.live_octets.saturating_sub(extent.live_octets());
            segment.live_extents = segment.live_extents.saturating_sub(1);
        }
    }

    /// Puts extents in place of what they were made of: entries of the log, or other extents.
    fn change_segments(&mut self, added: Vec<NewSegment>, dropped: &[u64]) {
        if !dropped.is_empty() {
            for queue in self.queues.values_mut() {
                queue.extents.retain(|extent| !dropped.contains(&extent.segment));
            }
            for segment in dropped {
                self.segments.remove(segment);
            }
        }
        for segment in added {
            // A segment that is known already comes from a record met twice.
            if self.segments.contains_key(&segment.id) {
                continue;
            }
            self.segments
                .insert(segment.id, SegmentUse { len: segment.len, ..SegmentUse::default() });
            for (queue, extent) in segment.extents {
                self.add_extent(queue, extent);
            }
        }
    }

    /// Adds one extent of a known segment, its messages leaving the log. An extent without live
    /// messages is left out.
    fn add_extent(&mut self, id: u64, mut extent: Extent) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        while let Some(entry) = queue.log.front()
            && entry.seq <= extent.last
        {
            if entry.is_live() {
                queue.spilled.insert(entry.seq);
            } else {
                queue.log_dead -= 1;
            }
            queue.log.pop_front();
        }
        queue.sweep();
        queue.spilled_below = queue.spilled_below.max(extent.last.saturating_add(1));
        self.place_extent(id, &mut extent);
    }

    /// Puts an extent into its queue, counting what is live in it.
    pub(super) fn place_extent(&mut self, id: u64, extent: &mut Extent) {
        let Some(queue) = self.queues.get_mut(&id) else {
            return;
        };
        let live = queue.spilled.count(extent.first..=extent.last);
        extent.live = u32::try_from(live).unwrap_or(u32::MAX).min(extent.count);
        if extent.live == 0 {
            return;
        }
        if let Some(segment) = self.segments.get_mut(&extent.segment) {
            segment.live_octets += extent.live_octets();
            segment.live_extents += 1;
        }
        let at = queue.extents.partition_point(|other| other.first < extent.first);
        queue.extents.insert(at, *extent);
    }

    /// The oldest position of the log that is still needed for a message.
    pub(super) fn oldest_live_lsn(&self) -> Option<u64> {
        self.queues.values().filter_map(QueueIndex::oldest_live_lsn).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: &mut Index, queue: u64, seq: u64) {
        index.enqueue(MessageRef { queue, seq }, seq * 100, 100);
    }

    fn ack(index: &mut Index, queue: u64, first: u64, last: u64) {
        let ranges = Box::new([SeqRange { first, last }]);
        index.apply(Effect::Ack { queue, ranges, lsn: u64::MAX });
    }

    fn segment(id: u64, queue: u64, first: u64, last: u64) -> NewSegment {
        let count = u32::try_from(last - first + 1).unwrap();
        let extent =
            Extent { segment: id, offset: 64, len: count * 100, count, live: count, first, last };
        NewSegment { id, len: 4096, extents: vec![(queue, extent)] }
    }

    #[test]
    fn acked_entries_leave_the_log_and_a_replayed_message_does_not_come_back() {
        let mut index = Index::default();
        (1..=10).for_each(|seq| entry(&mut index, 7, seq));
        ack(&mut index, 7, 2, 9);
        entry(&mut index, 7, 5);
        assert_eq!(index.queues[&7].live(), [1, 10].into_iter().collect());
        assert_eq!(index.oldest_live_lsn(), Some(100));
        ack(&mut index, 7, 1, 1);
        assert_eq!(index.oldest_live_lsn(), Some(1000));
    }

    #[test]
    fn a_spill_moves_what_is_live_and_keeps_what_was_acked_meanwhile_out() {
        let mut index = Index::default();
        (1..=10).for_each(|seq| entry(&mut index, 7, seq));
        ack(&mut index, 7, 3, 3);
        index.apply(Effect::Segments { added: vec![segment(1, 7, 1, 6)], dropped: vec![] });
        let queue = &index.queues[&7];
        assert_eq!(queue.log.len(), 4);
        assert_eq!(queue.extents[0].live, 5);
        assert_eq!(queue.live().len(), 9);
        assert_eq!(index.segments[&1].live_octets, 500);
        ack(&mut index, 7, 1, 6);
        assert_eq!(index.segments[&1], SegmentUse { len: 4096, ..SegmentUse::default() });
        assert_eq!(index.queues[&7].live().len(), 4);
    }

    #[test]
    fn a_compaction_replaces_extents_in_order() {
        let mut index = Index::default();
        (1..=9).for_each(|seq| entry(&mut index, 7, seq));
        for (id, first) in [(1, 1), (2, 4), (3, 7)] {
            let added = vec![segment(id, 7, first, first + 2)];
            index.apply(Effect::Segments { added, dropped: vec![] });
        }
        ack(&mut index, 7, 2, 3);
        ack(&mut index, 7, 8, 9);
        let mut merged = segment(4, 7, 1, 1);
        merged.extents.push((7, Extent { segment: 4, ..segment(4, 7, 7, 7).extents[0].1 }));
        index.apply(Effect::Segments { added: vec![merged], dropped: vec![1, 3] });
        let queue = &index.queues[&7];
        let order: Vec<_> = queue.extents.iter().map(|extent| extent.segment).collect();
        assert_eq!(order, [4, 2, 4]);
        assert_eq!(queue.live(), [1, 4, 5, 6, 7].into_iter().collect());
    }

    #[test]
    fn a_deleted_queue_frees_its_share_of_every_segment() {
        let mut index = Index::default();
        (1..=3).for_each(|seq| entry(&mut index, 7, seq));
        index.apply(Effect::Segments { added: vec![segment(1, 7, 1, 3)], dropped: vec![] });
        index.apply(Effect::DeleteQueue { queue: 7 });
        assert_eq!(index.segments[&1].live_extents, 0);
        assert!(index.queues.is_empty());
    }

    #[test]
    fn returns_are_counted_for_live_messages_only() {
        let mut index = Index::default();
        (1..=4).for_each(|seq| entry(&mut index, 7, seq));
        index.apply(Effect::Segments { added: vec![segment(1, 7, 1, 2)], dropped: vec![] });
        ack(&mut index, 7, 3, 3);
        let ranges: Box<[_]> = Box::new([SeqRange { first: 2, last: 4 }]);
        index.apply(Effect::Requeued { queue: 7, ranges: ranges.clone(), lsn: u64::MAX });
        index.apply(Effect::Requeued { queue: 7, ranges, lsn: u64::MAX });
        ack(&mut index, 7, 2, 2);
        assert_eq!(index.queues[&7].returns, [(4, 2)].into_iter().collect());
    }
}
