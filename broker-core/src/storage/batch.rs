//! A batch: everything that one append makes durable together, or not at all.
//!
//! The one idea: the caller lists what shall happen, borrowing octets where they lie; checksums
//! are made while listing, so that the append under the store's lock is one copy, and not even that
//! for a body that is shared. A batch checks nothing against the store: order and size are checked by the append, before anything is written.

use std::sync::Arc;

use super::record::{Items, NewRecord, RecordKind, content_crc};

/// One message of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageRef {
    /// The queue's id; never used again after the queue is deleted.
    pub queue: u64,
    /// The message's number: above all earlier ones of this queue, not necessarily by one.
    pub seq: u64,
}

/// Sequence numbers `first..=last` of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeqRange {
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
}

impl SeqRange {
    /// A range of one.
    #[must_use]
    pub fn one(seq: u64) -> Self {
        Self { first: seq, last: seq }
    }
}

/// A list of operations that [`Engine::append`](super::Engine::append) writes contiguously.
///
/// After a crash either all of them have happened or none, and none without all earlier batches.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    records: Vec<NewRecord<'a>>,
    len: u64,
    record_len_max: u64,
    enqueues: bool,
    forces: bool,
}

impl<'a> Batch<'a> {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing has been listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Stores one message in each of `targets`. `head` and `body` come back verbatim; `flags` is
    /// the caller's.
    pub fn enqueue(
        &mut self,
        targets: &'a [MessageRef],
        flags: u8,
        head: &'a [u8],
        body: &'a [u8],
    ) {
        self.enqueue_record(targets, flags, head, body, None);
    }

    /// The same for a large body: the store refers to it, instead of copying it, until it is on
    /// disk, and meanwhile gives it to readers as it is.
    pub fn enqueue_shared(
        &mut self,
        targets: &'a [MessageRef],
        flags: u8,
        head: &'a [u8],
        body: &'a Arc<Vec<u8>>,
    ) {
        self.enqueue_record(targets, flags, head, body, Some(body));
    }

    fn enqueue_record(
        &mut self,
        targets: &'a [MessageRef],
        flags: u8,
        head: &'a [u8],
        body: &'a [u8],
        shared_body: Option<&'a Arc<Vec<u8>>>,
    ) {
        if targets.is_empty() {
            return;
        }
        self.enqueues = true;
        self.forces = true;
        self.push(NewRecord {
            kind: RecordKind::Enqueue,
            flags,
            queue: 0,
            items: Items::Targets(targets),
            head,
            body,
            shared_body,
            content_crc: content_crc(head, body),
        });
    }

    /// Removes messages. Numbers that are not there are passed over. Does not hurry the next
    /// commit: a lost ack is a redelivery. See [`sync`](Self::sync).
    pub fn ack(&mut self, queue: u64, ranges: &'a [SeqRange]) {
        if !ranges.is_empty() {
            self.push(plain(RecordKind::Ack, queue, Items::Ranges(ranges)));
        }
    }

    /// Removes every message of the queue numbered up to `last`.
    pub fn purge(&mut self, queue: u64, last: u64) {
        self.forces = true;
        self.push(plain(RecordKind::Ack, queue, Items::One(0, last)));
    }

    /// Counts one more return of each of these messages to the queue (delivery count,
    /// redelivered).
    pub fn requeued(&mut self, queue: u64, ranges: &'a [SeqRange]) {
        if !ranges.is_empty() {
            self.push(plain(RecordKind::Requeued, queue, Items::Ranges(ranges)));
        }
    }

    /// Says that messages numbered up to `last` may have been delivered: after a crash they are
    /// listed as redelivered. A lower mark replaces a higher one, as after a clean stop.
    pub fn delivered(&mut self, queue: u64, last: u64) {
        self.push(plain(RecordKind::Delivered, queue, Items::One(last, 0)));
    }

    /// Sets a definition.
    pub fn put_definition(&mut self, key: &'a [u8], value: &'a [u8]) {
        self.forces = true;
        self.push(NewRecord {
            kind: RecordKind::PutDefinition,
            flags: 0,
            queue: 0,
            items: Items::None,
            head: key,
            body: value,
            shared_body: None,
            content_crc: content_crc(key, value),
        });
    }

    /// Removes a definition; one that is not there is passed over.
    pub fn delete_definition(&mut self, key: &'a [u8]) {
        self.forces = true;
        self.push(NewRecord {
            kind: RecordKind::DeleteDefinition,
            flags: 0,
            queue: 0,
            items: Items::None,
            head: key,
            body: &[],
            shared_body: None,
            content_crc: content_crc(key, &[]),
        });
    }

    /// Removes a queue with all its messages. Its id must not be used again.
    pub fn delete_queue(&mut self, queue: u64) {
        self.forces = true;
        self.push(plain(RecordKind::DeleteQueue, queue, Items::None));
    }

    /// Asks for a commit now, where acks alone would wait up to `ack_delay`: for a transaction,
    /// or acks that are answered.
    pub fn sync(&mut self) {
        self.forces = true;
    }

    /// Appends a record of the store's own.
    pub(super) fn segment(&mut self, kind: RecordKind, segment: u64, len: u64) {
        self.forces = true;
        self.push(plain(kind, 0, Items::One(segment, len)));
    }

    fn push(&mut self, record: NewRecord<'a>) {
        let len = record.encoded_len();
        self.len += len;
        self.record_len_max = self.record_len_max.max(len);
        self.records.push(record);
    }

    pub(super) fn records(&self) -> &[NewRecord<'a>] {
        &self.records
    }

    /// Octets in the log.
    pub(super) fn encoded_len(&self) -> u64 {
        self.len
    }

    pub(super) fn record_len_max(&self) -> u64 {
        self.record_len_max
    }

    pub(super) fn has_enqueues(&self) -> bool {
        self.enqueues
    }

    pub(super) fn forces_commit(&self) -> bool {
        self.forces
    }
}

/// Batches that say less than they should, so that tests can show that somebody notices.
#[cfg(feature = "simulation")]
#[doc(hidden)]
impl<'a> Batch<'a> {
    /// The first half of the records, and the others: what a log without atomic batches would do.
    #[must_use]
    pub fn halves(&self) -> [Self; 2] {
        let (first, second) = self.records.split_at(self.records.len() / 2);
        [self.with_records(first.iter()), self.with_records(second.iter())]
    }

    /// The same without acks.
    #[must_use]
    pub fn without_acks(&self) -> Self {
        self.with_records(self.records.iter().filter(|record| record.kind != RecordKind::Ack))
    }

    /// The same without marks of what was delivered.
    #[must_use]
    pub fn without_delivered(&self) -> Self {
        let others = self.records.iter().filter(|record| record.kind != RecordKind::Delivered);
        self.with_records(others)
    }

    fn with_records<'r>(&self, records: impl Iterator<Item = &'r NewRecord<'a>>) -> Self
    where
        'a: 'r,
    {
        let mut batch = Self { forces: self.forces, ..Self::default() };
        for record in records {
            batch.enqueues |= record.kind == RecordKind::Enqueue;
            batch.push(*record);
        }
        batch
    }
}

fn plain(kind: RecordKind, queue: u64, items: Items<'_>) -> NewRecord<'_> {
    NewRecord {
        kind,
        flags: 0,
        queue,
        items,
        head: &[],
        body: &[],
        shared_body: None,
        content_crc: 0,
    }
}
