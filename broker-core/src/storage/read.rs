//! Reading messages back: ahead in runs, or one alone.
//!
//! The one idea: a reader names a queue and a number and gets the block in which that message
//! lies, up to an extent's length, checked and with only live messages in it. Blocks of segments
//! are [cached](super::cache) under one budget for all queues; the log is read through the page
//! cache, which has just written it. A large body is read into the allocation that it stays in, or
//! is the one that still waits to be written. A message that fails its checksum is reported, never delivered.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::batch::SeqRange;
use super::engine::{Engine, State};
use super::error::{IoContext, StorageError};
use super::fs::{File, make_room, read_full};
use super::index::{Extent, LogEntry};
use super::octets::to_usize;
use super::payload::RecordOctets;
use super::record::Record;
use super::segment::ExtentOctets;
use super::spill::certain;
use crate::message::LARGE_BODY_LEN;

/// A stored message, borrowed from its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its number in the queue.
    pub seq: u64,
    /// The caller's flags.
    pub flags: u8,
    /// The head, verbatim.
    pub head: &'a [u8],
    /// The body, verbatim.
    pub body: &'a [u8],
    /// Head and body, side by side; the head alone where the body is apart.
    pub content: &'a [u8],
    /// The body where it has an allocation of its own, which the reader may keep.
    pub large_body: Option<&'a Arc<Vec<u8>>>,
}

/// Messages of one queue, in order.
pub struct MessageBlock {
    octets: BlockOctets,
    messages: Vec<Place>,
    /// Messages between the number that was asked for and `next` that were found damaged, now or
    /// earlier since the store was opened; they have been reported and are gone.
    pub lost: Vec<SeqRange>,
    /// Read on from here.
    pub next: u64,
}

enum BlockOctets {
    Log(Vec<u8>),
    Extent(Arc<ExtentOctets>),
    /// The only message of the block: its head, and its body apart.
    Large(Vec<u8>, Arc<Vec<u8>>),
}

impl BlockOctets {
    /// Octets read for `messages` alone. The body of a large one that is the only one keeps the
    /// allocation, so that it is in memory once.
    fn own(mut octets: Vec<u8>, messages: &[Place]) -> Self {
        match messages {
            [Place { head, body, .. }]
                if body.len() >= LARGE_BODY_LEN && octets.len() < body.len() * 2 =>
            {
                let head = octets.get(head.clone()).unwrap_or_default().to_vec();
                octets.truncate(body.end);
                octets.drain(..body.start.min(octets.len()));
                Self::Large(head, Arc::new(octets))
            }
            _ => Self::Log(octets),
        }
    }
}

struct Place {
    seq: u64,
    flags: u8,
    head: Range<usize>,
    body: Range<usize>,
}

impl fmt::Debug for MessageBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageBlock")
            .field("messages", &self.messages.len())
            .field("lost", &self.lost)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl MessageBlock {
    /// Messages in the block; 0 when all that were read are lost.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let (octets, large) = match &self.octets {
            BlockOctets::Log(octets) => (octets.as_slice(), None),
            BlockOctets::Extent(extent) => (extent.octets(), None),
            BlockOctets::Large(head, body) => (head.as_slice(), Some(body)),
        };
        self.messages.iter().map(move |place| match large {
            None => Message {
                seq: place.seq,
                flags: place.flags,
                head: octets.get(place.head.clone()).unwrap_or_default(),
                body: octets.get(place.body.clone()).unwrap_or_default(),
                content: octets.get(place.head.start..place.body.end).unwrap_or_default(),
                large_body: None,
            },
            Some(body) => Message {
                seq: place.seq,
                flags: place.flags,
                head: octets,
                body,
                content: octets,
                large_body: Some(body),
            },
        })
    }
}

/// Where the messages from a number on are.
enum Source {
    Nothing,
    Extent(Extent, Vec<u64>),
    Log(ReadPlan),
    /// Records that are not in a file yet.
    Memory(MemoryRecords),
}

impl Engine {
    /// Reads live messages of a queue from number `from` on: one block, of at least one message
    /// and, beyond the first, at most about `octets_max` octets. `None` when there are no more.
    ///
    /// # Errors
    /// When the operating system cannot read the first message. It is not given up for that; one on
    /// a page, or in a segment, that is not there again within half a minute is (see
    /// [`reread_step`](Self::reread_step)). [`read_error`](Self::read_error) says why for a while.
    pub fn read(
        &self,
        queue: u64,
        from: u64,
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError> {
        // A message may move from log to segment, or between segments, while it is read; looking
        // again finds it. Twice in a row is possible, for ever is not.
        for _ in 0..16 {
            let block = match self.source(queue, from, octets_max) {
                Source::Nothing => return Ok(None),
                Source::Extent(extent, live) => self.read_extent(queue, &extent, &live, octets_max),
                Source::Log(plan) => self.read_log(queue, &plan),
                Source::Memory(records) => Ok(Some(block_of(records))),
            };
            let block = block.inspect_err(|error| self.bad_pages.note_failure(error))?;
            if let Some(mut block) = block {
                self.add_known_lost(queue, from, &mut block);
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Adds to what a block has lost what others had found damaged before it was read: maintenance
    /// and other readers.
    fn add_known_lost(&self, queue: u64, from: u64, block: &mut MessageBlock) {
        let state = self.state.lock();
        let Some(queue) =
            state.index.queues.get(&queue).filter(|queue| !queue.known_lost.is_empty())
        else {
            return;
        };
        let is_known = |seq: &u64| {
            block.lost.iter().any(|range| (range.first..=range.last).contains(seq))
                || block.messages.binary_search_by_key(seq, |message| message.seq).is_ok()
        };
        let passed = queue.known_lost.iter_from(from).take_while(|seq| *seq < block.next);
        let unknown: Vec<SeqRange> =
            passed.filter(|seq| !is_known(seq)).map(SeqRange::one).collect();
        block.lost.extend_from_slice(&unknown);
    }

    /// Reads one message; `None` when it is not live.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`StorageError::DamagedMessage`].
    pub fn read_one(&self, queue: u64, seq: u64) -> Result<Option<MessageBlock>, StorageError> {
        let Some(block) = self.read(queue, seq, 0)? else {
            return Ok(None);
        };
        if block.messages().next().is_some_and(|message| message.seq == seq) {
            return Ok(Some(block));
        }
        if block.lost.iter().any(|range| (range.first..=range.last).contains(&seq)) {
            return Err(StorageError::DamagedMessage { queue, seq });
        }
        Ok(None)
    }

    fn source(&self, id: u64, from: u64, octets_max: usize) -> Source {
        let state = self.state.lock();
        let Some(queue) = state.index.queues.get(&id) else {
            return Source::Nothing;
        };
        if let Some(first) = queue.spilled.iter_from(from).next()
            && let Some(extent) = queue.extents.get(queue.extents_from(first))
        {
            let live = queue.spilled.iter_from(first);
            return Source::Extent(*extent, live.take_while(|seq| *seq <= extent.last).collect());
        }
        let budget = octets_max.min(self.options.extent_len);
        let mut entries = Vec::new();
        let mut octets = 0;
        for entry in queue.log.range(queue.log_from(from)..).filter(|entry| entry.is_live()) {
            let len = to_usize(u64::from(entry.len));
            if !entries.is_empty() && octets + len > budget {
                break;
            }
            octets += len;
            entries.push(*entry);
        }
        let Some(first) = entries.first() else {
            return Source::Nothing;
        };
        match copy_from_memory(&state, first.lsn, &entries) {
            Some(records) => Source::Memory(records),
            None => Source::Log(plan_runs(&state, &entries, self.options.extent_len)),
        }
    }

    /// `None` when the extent has been replaced meanwhile.
    fn read_extent(
        &self,
        queue: u64,
        extent: &Extent,
        live: &[u64],
        octets_max: usize,
    ) -> Result<Option<MessageBlock>, StorageError> {
        let key = (extent.segment, extent.offset);
        let cached = self.cache.lock().get(key);
        let octets = match cached {
            Some(octets) => octets,
            None => {
                let file = match self.segment_file(extent.segment) {
                    Err(_) if !self.has_extent(queue, extent) => return Ok(None),
                    file => file?,
                };
                let (read, doubt) = self.extent_octets(&*file, queue, extent)?;
                if let Some(doubt) = doubt {
                    return block_before_doubt(read, doubt, extent, live, octets_max).map(Some);
                }
                if !read.lost.is_empty() {
                    if !self.has_extent(queue, extent) {
                        return Ok(None);
                    }
                    self.name_lost_extent(queue, extent, &read);
                }
                if extent.count == 1 && read.len() >= LARGE_BODY_LEN {
                    // Nobody reads on in it, so the body may leave with its reader.
                    let (messages, lost, next) = live_places(&read, extent, live, octets_max);
                    let octets = BlockOctets::own(read.into_octets(), &messages);
                    return Ok(Some(MessageBlock { octets, messages, lost, next }));
                }
                let read = Arc::new(read);
                self.cache.lock().insert(key, Arc::clone(&read));
                read
            }
        };
        let (messages, lost, next) = live_places(&octets, extent, live, octets_max);
        Ok(Some(MessageBlock { octets: BlockOctets::Extent(octets), messages, lost, next }))
    }

    /// Reads an extent. Where a page of it is in doubt, around that, and says so: what is lost then
    /// may still be there.
    pub(super) fn extent_octets(
        &self,
        file: &dyn File,
        queue: u64,
        extent: &Extent,
    ) -> Result<(ExtentOctets, Option<StorageError>), StorageError> {
        let path = self.segment_path(extent.segment);
        match ExtentOctets::read(file, queue, extent).during("read", &path) {
            Err(doubt) if doubt.is_in_doubt() => {
                let file = self.bad_pages.open_around(&path).during("open", &path)?;
                let read = ExtentOctets::read(&*file, queue, extent).during("read", &path)?;
                Ok((read, Some(doubt)))
            }
            read => Ok((read?, None)),
        }
    }

    /// The same for a stretch of the log.
    pub(super) fn read_run(
        &self,
        run: &LogRun,
        octets: &mut Vec<u8>,
    ) -> Result<Option<StorageError>, StorageError> {
        match run.read(octets) {
            Err(doubt) if doubt.is_in_doubt() => {
                let file = self.bad_pages.open_around(&run.path).during("open", &run.path)?;
                run.read_from(&*file, octets)?;
                Ok(Some(doubt))
            }
            read => read.map(|()| None),
        }
    }

    pub(super) fn has_extent(&self, queue: u64, extent: &Extent) -> bool {
        let state = self.state.lock();
        let Some(queue) = state.index.queues.get(&queue) else {
            return false;
        };
        let found = queue.extents.get(queue.extents_from(extent.first));
        found.is_some_and(|found| (found.segment, found.offset) == (extent.segment, extent.offset))
    }

    /// Reports the live messages that an extent has lost and that have not been named yet.
    pub(super) fn name_lost_extent(&self, queue: u64, extent: &Extent, read: &ExtentOctets) {
        let mut live = self.live_in(queue, extent);
        if let Some(queue) = self.state.lock().index.queues.get(&queue) {
            live.retain(|seq| !queue.known_lost.contains(*seq));
        }
        let mut lost = Vec::new();
        for range in &read.lost {
            let within = |seq: &&u64| (range.first..=range.last).contains(*seq);
            let count = live.iter().filter(within).count() as u64;
            if count > 0 {
                lost.push(certain(queue, *range, count));
            }
        }
        let path = self.segment_path(extent.segment);
        let file = self.paths.relative(&path).to_owned();
        self.lose(&file, extent.offset, read.octets(), lost);
    }

    /// `None` when what was to be read is not there any more, so that one must look again.
    fn read_log(&self, queue: u64, plan: &ReadPlan) -> Result<Option<MessageBlock>, StorageError> {
        let Some(run) = plan.runs.first() else {
            // A stretch of the log is gone, and recovery has said so already.
            let seqs = plan.missing.iter();
            let lost: Vec<SeqRange> = seqs.map(|seq| SeqRange::one(*seq)).collect();
            let named = lost.iter().map(|range| certain(queue, *range, 1)).collect();
            self.name_missing(named);
            let next = lost.last().map_or(0, |range| range.last.saturating_add(1));
            let octets = BlockOctets::Log(Vec::new());
            return Ok(Some(MessageBlock { octets, messages: Vec::new(), lost, next }));
        };
        let mut octets = Vec::new();
        let doubt = self.read_run(run, &mut octets)?;
        let mut lost = Vec::new();
        let mut messages = Vec::new();
        let mut next = 0;
        for ((seq, record), offset) in run.records(&octets).zip(run.offsets()) {
            match record {
                Some(record) => messages.push(place(seq, &record, offset)),
                None if doubt.is_some() => break,
                None => lost.push(SeqRange::one(seq)),
            }
            next = seq.saturating_add(1);
        }
        if let Some(doubt) = doubt
            && messages.is_empty()
        {
            return Err(doubt);
        }
        if !lost.is_empty() {
            if !run.is_current(&self.state.lock(), queue) {
                return Ok(None);
            }
            let named = lost.iter().map(|range| certain(queue, *range, 1)).collect();
            let file = self.paths.relative(&run.path).to_owned();
            self.lose(&file, run.offset, &octets, named);
        }
        let octets = BlockOctets::own(octets, &messages);
        Ok(Some(MessageBlock { octets, messages, lost, next }))
    }
}

/// Records of a frame that is not written yet.
enum MemoryRecords {
    /// Copied, with number and position of each.
    Copied(Vec<u8>, Vec<(u64, u64)>),
    /// One with a shared body: its octets up to there, the body, number and position.
    Shared(Vec<u8>, Arc<Vec<u8>>, (u64, u64)),
}

/// Takes records from a frame that is not written yet, as many as lie in the same frame; one with
/// a shared body comes alone.
fn copy_from_memory(state: &State, lsn: u64, entries: &[LogEntry]) -> Option<MemoryRecords> {
    let frames = state.in_flight.as_deref().into_iter().chain(&state.pending);
    let frame = frames.into_iter().find(|frame| (frame.lsn..frame.end()).contains(&lsn))?;
    let mut octets = Vec::new();
    let mut records = Vec::new();
    for entry in entries {
        match frame.record(entry.lsn, entry.len) {
            Some(RecordOctets::Copied(record)) => {
                octets.extend_from_slice(record);
                records.push((entry.seq, entry.lsn));
            }
            Some(RecordOctets::Shared(front, body)) if records.is_empty() => {
                let place = (entry.seq, entry.lsn);
                return Some(MemoryRecords::Shared(front.to_vec(), Arc::clone(body), place));
            }
            Some(RecordOctets::Shared(..)) | None => break,
        }
    }
    Some(MemoryRecords::Copied(octets, records))
}

fn block_of(found: MemoryRecords) -> MessageBlock {
    let (octets, records) = match found {
        MemoryRecords::Copied(octets, records) => (octets, records),
        MemoryRecords::Shared(front, body, place) => return shared_block(&front, body, place),
    };
    let mut messages = Vec::new();
    let mut offset = 0;
    let mut next = 0;
    for (seq, lsn) in records {
        let rest = octets.get(offset..).unwrap_or_default();
        let Some(record) = Record::decode(rest, lsn) else {
            break;
        };
        messages.push(place(seq, &record, offset));
        offset += to_usize(u64::from(record.len));
        next = seq.saturating_add(1);
    }
    let octets = BlockOctets::own(octets, &messages);
    MessageBlock { octets, messages, lost: Vec::new(), next }
}

fn shared_block(front: &[u8], body: Arc<Vec<u8>>, (seq, lsn): (u64, u64)) -> MessageBlock {
    let record = Record::decode_pending(RecordOctets::Shared(front, &body), lsn);
    let messages = record.iter().map(|record| place(seq, record, 0)).collect();
    let head = record.map_or_else(Vec::new, |record| record.head.to_vec());
    let (lost, next) = (Vec::new(), seq.saturating_add(1));
    MessageBlock { octets: BlockOctets::Large(head, body), messages, lost, next }
}

fn place(seq: u64, record: &Record<'_>, offset: usize) -> Place {
    let head = offset + record.head_offset;
    let body = head + record.head.len();
    Place { seq, flags: record.flags, head: head..body, body: body..body + record.body.len() }
}

/// The live messages of an extent: where they lie, which are lost, and where to read on.
fn live_places(
    octets: &ExtentOctets,
    extent: &Extent,
    live: &[u64],
    octets_max: usize,
) -> (Vec<Place>, Vec<SeqRange>, u64) {
    let mut messages: Vec<Place> = Vec::new();
    let mut next = extent.last.saturating_add(1);
    let first = live.first().copied().unwrap_or(extent.first);
    let mut wanted = live.iter().copied().peekable();
    let mut taken = 0;
    for (message, head) in octets.messages_from(first) {
        while wanted.next_if(|seq| *seq < message.seq).is_some() {}
        if wanted.next_if_eq(&message.seq).is_none() {
            continue;
        }
        let len = message.head.len() + message.body.len();
        if !messages.is_empty() && taken + len > octets_max {
            next = message.seq;
            break;
        }
        taken += len;
        let body = head + message.head.len();
        messages.push(Place {
            seq: message.seq,
            flags: message.flags,
            head: head..body,
            body: body..body + message.body.len(),
        });
    }
    let lost =
        live.iter().filter(|seq| octets.has_lost(**seq)).map(|seq| SeqRange::one(*seq)).collect();
    (messages, lost, next)
}

/// The live messages of an extent before the first one that is in doubt.
fn block_before_doubt(
    read: ExtentOctets,
    doubt: StorageError,
    extent: &Extent,
    live: &[u64],
    octets_max: usize,
) -> Result<MessageBlock, StorageError> {
    let count = live.iter().take_while(|seq| !read.has_lost(**seq)).count();
    let (before, behind) = live.split_at_checked(count).unwrap_or_default();
    if before.is_empty() {
        return Err(doubt);
    }
    let (messages, lost, next) = live_places(&read, extent, before, octets_max);
    let next = behind.first().map_or(next, |first| next.min(*first));
    Ok(MessageBlock { octets: BlockOctets::Extent(Arc::new(read)), messages, lost, next })
}

/// How to read some entries of the log.
pub(super) struct ReadPlan {
    pub(super) runs: Vec<LogRun>,
    /// Numbers whose record lies in no file.
    pub(super) missing: Vec<u64>,
}

/// Records of one file that are read as one piece.
pub(super) struct LogRun {
    file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    len: usize,
    /// Each with its offset in the piece.
    entries: Vec<(LogEntry, usize)>,
}

impl LogRun {
    /// Reads the piece; shorter where the file ends.
    pub(super) fn read(&self, octets: &mut Vec<u8>) -> Result<(), StorageError> {
        self.read_from(&*self.file, octets)
    }

    fn read_from(&self, file: &dyn File, octets: &mut Vec<u8>) -> Result<(), StorageError> {
        make_room(octets, self.len);
        let read = read_full(file, self.offset, octets).during("read", &self.path)?;
        octets.truncate(read);
        Ok(())
    }

    /// The record of each number; `None` when it is not sound.
    pub(super) fn records<'a>(
        &self,
        octets: &'a [u8],
    ) -> impl Iterator<Item = (u64, Option<Record<'a>>)> {
        self.entries.iter().map(move |(entry, offset)| {
            let len = to_usize(u64::from(entry.len));
            let record = octets
                .get(*offset..offset + len)
                .and_then(|octets| Record::decode(octets, entry.lsn))
                .filter(Record::content_is_sound);
            (entry.seq, record)
        })
    }

    /// Offsets of the records in the piece.
    pub(super) fn offsets(&self) -> impl Iterator<Item = usize> {
        self.entries.iter().map(|(_, offset)| *offset)
    }

    /// Whether the first entry is still where the run looked for it.
    fn is_current(&self, state: &State, queue: u64) -> bool {
        let Some((entry, _)) = self.entries.first() else {
            return true;
        };
        let queue = state.index.queues.get(&queue);
        let found = queue.and_then(|queue| queue.log.get(queue.log_from(entry.seq)));
        let place = state.log.locate(entry.lsn);
        found == Some(entry)
            && place.is_some_and(|(file, offset)| file.path == self.path && offset == self.offset)
    }
}

/// Joins entries into runs of at most `len_max` octets, unless most of what lies between them
/// would be read in vain.
pub(super) fn plan_runs(state: &State, entries: &[LogEntry], len_max: usize) -> ReadPlan {
    let mut plan = ReadPlan { runs: Vec::new(), missing: Vec::new() };
    let mut wanted = 0;
    for entry in entries {
        let Some((file, offset)) = state.log.locate(entry.lsn) else {
            plan.missing.push(entry.seq);
            continue;
        };
        let len = to_usize(u64::from(entry.len));
        if let Some(run) = plan.runs.last_mut()
            && run.path == file.path
            && let Some(start) = offset.checked_sub(run.offset).map(to_usize)
            && start + len <= len_max
            && (start + len) / 4 <= wanted + len
        {
            run.len = start + len;
            run.entries.push((*entry, start));
            wanted += len;
            continue;
        }
        wanted = len;
        plan.runs.push(LogRun {
            file: Arc::clone(&file.file),
            path: file.path.clone(),
            offset,
            len,
            entries: vec![(*entry, 0)],
        });
    }
    plan
}
