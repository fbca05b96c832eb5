//! Records on their way to the log, gathered in one place.
//!
//! A batch of the store borrows what it lists. Heads, targets and ranges are made here, one after the other in a
//! few buffers that a thread uses again and again, and become a batch when all of them are there.

use std::cell::Cell;
use std::ops::Range;

use super::{Log, LogPosition, content};
use crate::message::Publication;
use crate::queue::QueueId;
use crate::storage::{Batch, MessageRef, SeqRange, StorageError};

/// Buffers that have grown beyond this are not kept. Octets.
const SPARE_LEN_MAX: usize = 1024 * 1024;

/// What a batch will say.
#[derive(Debug, Default)]
pub(crate) struct Records {
    items: Vec<Item>,
    /// Heads of messages, keys and values of definitions.
    octets: Vec<u8>,
    targets: Vec<MessageRef>,
    ranges: Vec<SeqRange>,
    syncs: bool,
}

#[derive(Debug)]
enum Item {
    Enqueue { publication: usize, head: Range<usize>, targets: Range<usize> },
    Settle { queue: QueueId, ranges: Range<usize> },
    Requeued { queue: QueueId, ranges: Range<usize> },
    Delivered { queue: QueueId, last: u64 },
    DeleteQueue(QueueId),
    Put { key: Range<usize>, value: Range<usize> },
    Delete { key: Range<usize> },
}

thread_local! {
    static SPARE: Cell<Option<Box<Records>>> = const { Cell::new(None) };
}

/// Joins numbers into ranges.
fn push_ranges(seqs: impl Iterator<Item = u64>, ranges: &mut Vec<SeqRange>) -> Range<usize> {
    let start = ranges.len();
    for seq in seqs {
        // Ranges before the start belong to another list.
        let own = ranges.get_mut(start..).and_then(<[SeqRange]>::last_mut);
        match own {
            Some(range) if range.last.checked_add(1) == Some(seq) => range.last = seq,
            _ => ranges.push(SeqRange::one(seq)),
        }
    }
    start..ranges.len()
}

impl Records {
    /// Runs `work` with empty records.
    pub(crate) fn with<R>(work: impl FnOnce(&mut Self) -> R) -> R {
        let mut records = SPARE.take().unwrap_or_default();
        let result = work(&mut records);
        records.clear();
        if records.octets.capacity() <= SPARE_LEN_MAX {
            SPARE.set(Some(records));
        }
        result
    }

    fn clear(&mut self) {
        self.items.clear();
        self.octets.clear();
        self.targets.clear();
        self.ranges.clear();
        self.syncs = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn write(&mut self, octets: &[u8]) -> Range<usize> {
        let start = self.octets.len();
        self.octets.extend_from_slice(octets);
        start..self.octets.len()
    }

    /// A message enters queues. `index` is its place in the list that [`append`](Self::append) is given.
    pub(crate) fn enqueue(
        &mut self,
        index: usize,
        publication: &Publication<'_>,
        published_at: u64,
        targets: impl IntoIterator<Item = MessageRef>,
    ) {
        let (head, target) = (self.octets.len(), self.targets.len());
        content::write_head(publication, published_at, &mut self.octets);
        self.targets.extend(targets);
        let (head, targets) = (head..self.octets.len(), target..self.targets.len());
        self.items.push(Item::Enqueue { publication: index, head, targets });
    }

    /// Messages have left a queue for good.
    pub(crate) fn settle(&mut self, queue: QueueId, seqs: impl Iterator<Item = u64>) {
        let ranges = push_ranges(seqs, &mut self.ranges);
        if !ranges.is_empty() {
            self.items.push(Item::Settle { queue, ranges });
        }
    }

    /// The same, for all messages within a range.
    pub(crate) fn settle_range(&mut self, queue: QueueId, range: SeqRange) {
        let start = self.ranges.len();
        self.ranges.push(range);
        self.items.push(Item::Settle { queue, ranges: start..start + 1 });
    }

    /// Messages have come back to their queue.
    pub(crate) fn requeued(&mut self, queue: QueueId, seqs: impl Iterator<Item = u64>) {
        let ranges = push_ranges(seqs, &mut self.ranges);
        if !ranges.is_empty() {
            self.items.push(Item::Requeued { queue, ranges });
        }
    }

    /// Messages numbered up to `last` may have been delivered.
    pub(crate) fn delivered(&mut self, queue: QueueId, last: u64) {
        self.items.push(Item::Delivered { queue, last });
    }

    pub(crate) fn delete_queue(&mut self, queue: QueueId) {
        self.items.push(Item::DeleteQueue(queue));
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let (key, value) = (self.write(key), self.write(value));
        self.items.push(Item::Put { key, value });
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        let key = self.write(key);
        self.items.push(Item::Delete { key });
    }

    /// Somebody waits for all of it: the next commit comes at once.
    pub(crate) const fn sync(&mut self) {
        self.syncs = true;
    }

    /// Appends all of it as one batch. `publications` are those that [`enqueue`](Self::enqueue) named.
    ///
    /// # Errors
    /// [`StorageError`]: nothing was appended.
    pub(crate) fn append(
        &self,
        log: &dyn Log,
        publications: &[Publication<'_>],
    ) -> Result<LogPosition, StorageError> {
        let octets = |range: &Range<usize>| self.octets.get(range.clone()).unwrap_or_default();
        let ranges = |range: &Range<usize>| self.ranges.get(range.clone()).unwrap_or_default();
        let mut batch = Batch::new();
        for item in &self.items {
            match item {
                Item::Enqueue { publication, head, targets } => {
                    let parts = publications.get(*publication).map(Publication::parts);
                    let targets = self.targets.get(targets.clone()).unwrap_or_default();
                    match parts.and_then(|parts| parts.large_body) {
                        Some(body) => batch.enqueue_shared(targets, 0, octets(head), body),
                        None => {
                            let body = parts.map_or(&[][..], |parts| parts.body);
                            batch.enqueue(targets, 0, octets(head), body);
                        }
                    }
                }
                Item::Settle { queue, ranges: list } => batch.ack(queue.0, ranges(list)),
                Item::Requeued { queue, ranges: list } => batch.requeued(queue.0, ranges(list)),
                Item::Delivered { queue, last } => batch.delivered(queue.0, *last),
                Item::DeleteQueue(queue) => batch.delete_queue(queue.0),
                Item::Put { key, value } => batch.put_definition(octets(key), octets(value)),
                Item::Delete { key } => batch.delete_definition(octets(key)),
            }
        }
        if self.syncs {
            batch.sync();
        }
        log.append(&batch)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::log::test_log::TestLog;
    use crate::message::{Attributes, LARGE_BODY_LEN, Message, Parts};
    use crate::storage::sim_fs::SimFs;
    use crate::storage::{Engine, Options};

    #[test]
    fn numbers_in_a_row_are_one_range_and_lists_stay_apart() {
        let mut ranges = Vec::new();
        assert_eq!(push_ranges([1, 2, 3, 7, 9, 10].into_iter(), &mut ranges), 0..3);
        assert_eq!(push_ranges([11, 12].into_iter(), &mut ranges), 3..4);
        let found: Vec<_> = ranges.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(found, [(1, 3), (7, 7), (9, 10), (11, 12)]);
    }

    #[test]
    fn a_large_body_goes_to_the_log_and_comes_back_without_being_copied() {
        let (fs, root) = (Arc::new(SimFs::new()), Path::new("/data"));
        let (engine, _) = Engine::open(fs, root, Options::default()).unwrap();
        // Nothing is written unless somebody asks for it.
        let log = TestLog::over(engine);
        let bodies = [vec![7; LARGE_BODY_LEN], vec![8; 10]];
        let publications = bodies.map(|body| {
            Publication::Owned(Message::new(b"x", b"key", b"", body, Attributes::default()))
        });
        Records::with(|records| {
            for (index, publication) in publications.iter().enumerate() {
                let target = MessageRef { queue: 1, seq: index as u64 + 1 };
                records.enqueue(index, publication, 5, [target]);
            }
            records.append(&log, &publications)
        })
        .unwrap();
        let mut from = 0;
        for publication in &publications {
            let block = log.read(QueueId(1), from, 0).unwrap().unwrap();
            let found = block.messages().next().unwrap();
            let stored = content::read(&found).unwrap().message;
            let (read, written) = (stored.parts(), publication.parts());
            assert_eq!((read.routing_key, read.body), (written.routing_key, written.body));
            let large = |parts: Parts<'_>| parts.large_body.map(Arc::as_ptr);
            assert_eq!(large(read), large(written));
            from = block.next;
        }
    }
}
