//! The engine: all of the store but its threads.
//!
//! The one idea: everything happens in steps that somebody calls (`commit_step`, `spill_step`, …),
//! so that a simulator decides what happens when, and a thread is a loop around a step. One lock
//! guards the state and is never held over a call to the disk.
//!
//! Lock order: `maintaining` → `committing` → `preparing` → `state`, and `scrubbing` → `state`;
//! `cache`, `wakers`, `damage` and those of `bad_pages` are leaves. `state` is held for a copy or a
//! look-up, at most for the encoding of a checkpoint.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex};
use rand::rngs::SmallRng;

use super::bad_pages::BadPages;
use super::batch::{Batch, SeqRange};
use super::cache::Cache;
use super::damage::{Damage, QUARANTINE_DIR, Quarantine};
use super::error::StorageError;
use super::frame::FrameHeader;
use super::fs::{FileSystem, Lock};
use super::index::{Effect, Index};
use super::log::LogFiles;
use super::maintenance::Maintenance;
use super::octets::to_usize;
use super::options::Options;
use super::payload::{Payload, RecordOctets};
use super::record::{Items, NewRecord, RecordKind};
use super::scrub::Scrub;
use super::{LogPosition, NodeId};

/// How the store is. Whoever publishes looks at it when a waker calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Healthy,
    /// No space for more messages, or no log file could be opened for them (then
    /// [`background_error`](Engine::background_error) says so); acks and deletions are still
    /// accepted. Ends by itself.
    DiskFull,
    /// The log cannot be written any more. Reading goes on; only a restart ends it.
    Poisoned {
        /// The failure that did it.
        reason: Arc<str>,
    },
}

/// Called after the durable mark moved, the health changed, or damage was found: "look again".
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// Figures for metrics, counted since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames written.
    pub frames: u64,
    /// Octets appended by callers, with record headers.
    pub appended_octets: u64,
    /// Octets written to log files, padding included.
    pub log_octets: u64,
    /// Octets of zeros written to make log files and the ballast.
    pub prepared_octets: u64,
    /// Octets written to segments by spills.
    pub spilled_octets: u64,
    /// Octets written to segments by compactions.
    pub compacted_octets: u64,
    /// Writes or flushes of the log that failed.
    pub write_failures: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Octets of segments that were read again in the background.
    pub scrubbed_octets: u64,
    /// Times that all segments have been read so.
    pub scrubs: u64,
}

/// What lies where in the data directory.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) root: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) segments: PathBuf,
    pub(super) checkpoints: PathBuf,
    pub(super) quarantine: PathBuf,
    pub(super) ballast: PathBuf,
}

impl Paths {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            wal: root.join("wal"),
            segments: root.join("seg"),
            checkpoints: root.join("ckpt"),
            quarantine: root.join(QUARANTINE_DIR),
            ballast: root.join("BALLAST"),
        }
    }

    /// A path as reports name it.
    pub(super) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

/// One group commit that is being filled, or written.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) lsn: u64,
    pub(super) payload: Payload,
    pub(super) records: u32,
    pub(super) continues: bool,
    /// Further batches may join.
    is_open: bool,
}

impl Frame {
    fn new(lsn: u64, payload: Payload) -> Self {
        Self { lsn, payload, records: 0, continues: false, is_open: true }
    }

    /// A frame read back, to be written once more as it was.
    pub(super) fn again(header: &FrameHeader, payload: Vec<u8>) -> Self {
        let (records, continues) = (header.records, header.continues);
        Self { lsn: header.lsn, payload: payload.into(), records, continues, is_open: false }
    }

    pub(super) fn end(&self) -> u64 {
        self.lsn + self.payload.len() as u64
    }

    /// The octets of the record at `lsn`.
    pub(super) fn record(&self, lsn: u64, len: u32) -> Option<RecordOctets<'_>> {
        self.payload.record(to_usize(lsn.checked_sub(self.lsn)?), to_usize(u64::from(len)))
    }
}

/// Why messages are not accepted for want of space; a set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullReasons {
    /// No further log file could be made.
    pub(super) log: bool,
    /// A segment or checkpoint could not be written.
    pub(super) background: bool,
    /// A message was refused since log files were last prepared: whether the disk is full is to be seen.
    pub(super) refused: bool,
}

impl FullReasons {
    pub(super) fn any(self) -> bool {
        self.log || self.background || self.refused
    }
}

/// What the state lock guards.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) log: LogFiles,
    /// Frames not written yet, oldest first.
    pub(super) pending: VecDeque<Frame>,
    /// The frame that is being written.
    pub(super) in_flight: Option<Arc<Frame>>,
    /// Effects of what is not durable yet, by the end of their batch.
    pub(super) effects: VecDeque<(u64, Effect)>,
    /// Position behind everything appended.
    pub(super) position: u64,
    /// Everything below is durable.
    pub(super) durable: u64,
    /// The index began with all records below, also with those that have to be written once more.
    pub(super) replayed: u64,
    /// Something pending asks for a commit now.
    pub(super) is_urgent: bool,
    /// A frame was written since the last seal.
    pub(super) needs_seal: bool,
    /// A spill or compaction waits for its record to become durable.
    pub(super) segment_change_pending: bool,
    pub(super) full: FullReasons,
    pub(super) poisoned: Option<Arc<str>>,
    /// An emptied payload, to be filled again.
    pub(super) spare_payload: Option<Payload>,
}

impl State {
    pub(super) fn pending_len(&self) -> u64 {
        self.pending.iter().map(|frame| frame.payload.len() as u64).sum()
    }

    /// Whether the index knows acks and definitions that may still be lost, because what a restart found could not be
    /// written once more: on a full disk. Nothing is given back, and no checkpoint made, because of those.
    pub(super) fn is_index_ahead(&self) -> bool {
        self.durable < self.replayed
    }

    fn health(&self) -> Health {
        if let Some(reason) = &self.poisoned {
            return Health::Poisoned { reason: Arc::clone(reason) };
        }
        if self.full.any() { Health::DiskFull } else { Health::Healthy }
    }
}

/// The store without threads: everything happens in steps that somebody calls.
pub struct Engine {
    pub(super) fs: Arc<dyn FileSystem>,
    /// The same, asked about pages that cannot be read.
    pub(super) bad_pages: Arc<BadPages>,
    pub(super) paths: Paths,
    pub(super) options: Options,
    pub(super) node: NodeId,
    pub(super) state: Mutex<State>,
    /// Only one frame is on its way at any time.
    pub(super) committing: Mutex<()>,
    /// Only one spill, compaction or checkpoint at a time.
    pub(super) maintaining: Mutex<Maintenance>,
    pub(super) preparing: Mutex<()>,
    pub(super) scrubbing: Mutex<Scrub>,
    pub(super) random: Mutex<SmallRng>,
    /// The same as the state's, to be read without the lock.
    pub(super) durable: AtomicU64,
    pub(super) cache: Mutex<Cache>,
    pub(super) counters: Mutex<Counters>,
    pub(super) damage: Mutex<Vec<Damage>>,
    background_error: Mutex<Option<Arc<str>>>,
    wakers: Mutex<Vec<Waker>>,
    /// Signalled when there is something to commit.
    pub(super) commit_wanted: Condvar,
    /// Signalled when there may be something to maintain.
    pub(super) maintenance_wanted: Condvar,
    /// Held as long as the engine lives.
    _lock: Box<dyn Lock>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("root", &self.paths.root).finish_non_exhaustive()
    }
}

/// What an engine starts from, once the directory has been read.
pub(super) struct Parts {
    pub(super) bad_pages: Arc<BadPages>,
    pub(super) paths: Paths,
    pub(super) options: Options,
    pub(super) node: NodeId,
    pub(super) state: State,
    pub(super) maintenance: Maintenance,
    pub(super) random: SmallRng,
    pub(super) lock: Box<dyn Lock>,
}

impl Engine {
    pub(super) fn from_parts(parts: Parts) -> Self {
        let cache = Cache::new(parts.options.cache_len);
        let mut state = parts.state;
        let durable = state.durable;
        if !parts.maintenance.has_ballast && !parts.maintenance.checkpoints.is_empty() {
            state.log.kept_free = parts.options.ballast_len;
        }
        let engine = Self {
            fs: Arc::clone(&parts.bad_pages) as Arc<dyn FileSystem>,
            bad_pages: parts.bad_pages,
            paths: parts.paths,
            options: parts.options,
            node: parts.node,
            state: Mutex::new(state),
            committing: Mutex::new(()),
            maintaining: Mutex::new(parts.maintenance),
            preparing: Mutex::new(()),
            scrubbing: Mutex::default(),
            random: Mutex::new(parts.random),
            durable: AtomicU64::new(durable),
            cache: Mutex::new(cache),
            counters: Mutex::new(Counters::default()),
            damage: Mutex::new(Vec::new()),
            background_error: Mutex::new(None),
            wakers: Mutex::new(Vec::new()),
            commit_wanted: Condvar::new(),
            maintenance_wanted: Condvar::new(),
            _lock: parts.lock,
        };
        engine.look_for_room();
        engine
    }

    /// Appends a batch, contiguous and atomic, and answers the position at which all of it is
    /// durable once [`durable`](Self::durable) has reached it. Does no I/O.
    ///
    /// Whoever appends messages to a queue from several threads orders these calls (usually by
    /// the queue's own lock): numbers must ascend in the log too.
    ///
    /// # Errors
    /// [`StorageError::OutOfOrder`] and [`StorageError::TooLarge`] on a caller's mistake,
    /// [`StorageError::DiskFull`] when the batch holds messages and there is no room for them besides
    /// the log file that is kept for acks, [`StorageError::Poisoned`] after a failure. Nothing of the batch is
    /// written then.
    pub fn append(&self, batch: &Batch<'_>) -> Result<LogPosition, StorageError> {
        self.append_with(batch, None)
    }

    /// Appends a batch with an effect that its records alone do not give.
    pub(super) fn append_with(
        &self,
        batch: &Batch<'_>,
        effect: Option<Effect>,
    ) -> Result<LogPosition, StorageError> {
        let (len, max) = (batch.record_len_max(), self.options.record_len_max());
        if len > max {
            return Err(StorageError::TooLarge { len, max });
        }
        let mut state = self.state.lock();
        if let Some(reason) = &state.poisoned {
            return Err(StorageError::Poisoned { reason: Arc::clone(reason) });
        }
        if batch.has_enqueues() {
            if !self.has_room(&state, batch) {
                // Once: where the disk is known to be full maintenance looks again by itself.
                let is_news = !state.full.any();
                state.full.refused = true;
                drop(state);
                if is_news {
                    self.maintenance_wanted.notify_one();
                }
                return Err(StorageError::DiskFull);
            }
            reserve_numbers(&mut state.index, batch)?;
        }
        if batch.is_empty() {
            return Ok(LogPosition(state.position));
        }
        let was_idle = state.pending.is_empty();
        self.encode(&mut state, batch);
        let end = state.position;
        if let Some(effect) = effect {
            state.effects.push_back((end, effect));
        }
        let is_newly_urgent = batch.forces_commit() && !state.is_urgent;
        state.is_urgent |= is_newly_urgent;
        drop(state);
        if was_idle || is_newly_urgent {
            self.commit_wanted.notify_one();
        }
        Ok(LogPosition(end))
    }

    /// Whether there is room for a batch with messages behind all that waits to be written. What is appended is never
    /// taken back, and what frees room is written behind it: so there has to be room for it now, in files that exist,
    /// or on a disk that has plenty, and one file is left for acks.
    fn has_room(&self, state: &State, batch: &Batch<'_>) -> bool {
        let mut fit = state.log.fit(state.full.any(), &self.options);
        if let Some(frame) = &state.in_flight {
            fit.place(frame.payload.len() as u64, u64::from(frame.records));
        }
        let (mut len, mut records) = (0, 0);
        for frame in &state.pending {
            if len > 0 {
                fit.place(len, records);
            }
            (len, records) = (frame.payload.len() as u64, u64::from(frame.records));
        }
        // The last frame takes the batch, or part of a chain, when it may and can: as `encode` does it.
        let joins = self.joins_open(state, batch.encoded_len());
        let is_chain = batch.encoded_len() > self.options.record_len_max();
        if !joins && len > 0 {
            fit.place(std::mem::take(&mut len), std::mem::take(&mut records));
        }
        for record in batch.records() {
            let record_len = record.encoded_len();
            if is_chain && len > 0 && len + record_len > self.options.frame_len_max {
                fit.place(std::mem::take(&mut len), std::mem::take(&mut records));
            }
            len += record_len;
            records += 1;
        }
        fit.place(len, records);
        fit.leaves_a_file()
    }

    /// Whether a batch of this length goes into the frame that is being filled.
    fn joins_open(&self, state: &State, len: u64) -> bool {
        state.pending.back().is_some_and(|frame| {
            frame.is_open && frame.payload.len() as u64 + len <= self.options.frame_len_max
        })
    }

    /// Puts the records into frames: into the open one when they fit, into one of their own when
    /// they fit a file, into a chain of frames otherwise.
    fn encode(&self, state: &mut State, batch: &Batch<'_>) {
        let len = batch.encoded_len();
        let end = state.position + len;
        if !self.joins_open(state, len) {
            self.open_frame(state);
        }
        let is_chain = len > self.options.record_len_max();
        for record in batch.records() {
            let record_len = record.encoded_len();
            let is_full = state.pending.back().is_some_and(|frame| {
                !frame.payload.is_empty()
                    && frame.payload.len() as u64 + record_len > self.options.frame_len_max
            });
            if is_chain && is_full {
                if let Some(frame) = state.pending.back_mut() {
                    frame.continues = true;
                }
                self.open_frame(state);
            }
            let lsn = state.position;
            if let Some(frame) = state.pending.back_mut() {
                record.encode(lsn, &mut frame.payload);
                frame.records = frame.records.saturating_add(1);
            }
            state.position += record_len;
            if let Some(effect) = effect_of(record, lsn) {
                state.effects.push_back((end, effect));
            }
            if let Items::Targets(targets) = record.items {
                let len = super::octets::len_u32(to_usize(record_len));
                for target in targets {
                    state.index.enqueue(*target, lsn, len);
                }
            }
        }
    }

    fn open_frame(&self, state: &mut State) {
        if let Some(frame) = state.pending.back_mut() {
            frame.is_open = false;
        }
        let payload = state.spare_payload.take().unwrap_or_default();
        state.pending.push_back(Frame::new(state.position, payload));
    }

    /// Everything appended up to here survives.
    #[must_use]
    pub fn durable(&self) -> LogPosition {
        // Acquire: whoever sees the mark sees the state that belongs to it.
        LogPosition(self.durable.load(Ordering::Acquire))
    }

    /// Everything appended so far ends here.
    #[must_use]
    pub fn appended(&self) -> LogPosition {
        LogPosition(self.state.lock().position)
    }

    /// How the store is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state.lock().health()
    }

    /// Whether publishers should be slowed until the disk has caught up: too much waits to be
    /// written or spilled. A waker calls when that may have changed.
    #[must_use]
    pub fn is_pressed(&self) -> bool {
        let state = self.state.lock();
        state.pending_len() > self.options.pending_len_max
            || state.log.full.len() > self.options.full_files_max
    }

    /// Has `waker` called after each change of the durable mark, the health or the damage report.
    /// It is called on the store's threads, without any of its locks, and must be quick.
    pub fn register(&self, waker: Waker) {
        self.wakers.lock().push(waker);
    }

    pub(super) fn wake(&self) {
        for waker in self.wakers.lock().iter() {
            waker();
        }
    }

    /// Octets of memory that the index takes, about: entries of the log, extents, sets.
    #[must_use]
    pub fn index_octets(&self) -> u64 {
        let state = self.state.lock();
        let queues = state.index.queues.values();
        queues.map(super::index::QueueIndex::memory).sum()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.counters.lock()
    }

    /// Damage found since the store was opened (what was found while opening is in
    /// [`Recovered`](super::Recovered)).
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.damage.lock().clone()
    }

    /// Why the last round of maintenance failed, if it did. It is tried again, so this may pass;
    /// while it lasts, space is not given back.
    #[must_use]
    pub fn background_error(&self) -> Option<Arc<str>> {
        self.background_error.lock().clone()
    }

    pub(super) fn note_background(&self, error: Option<&StorageError>) {
        let error: Option<Arc<str>> = error.map(|error| error.to_string().into());
        let mut known = self.background_error.lock();
        let has_changed = *known != error;
        *known = error;
        drop(known);
        if has_changed {
            self.wake();
        }
    }

    pub(super) fn quarantine(&self) -> Quarantine<'_> {
        Quarantine { fs: &*self.fs, root: &self.paths.root, is_read_only: false }
    }

    pub(super) fn report(&self, damage: Damage) {
        self.damage.lock().push(damage);
        self.wake();
    }
}

/// Checks that all numbers ascend and takes them. A refused batch may leave numbers taken.
fn reserve_numbers(index: &mut Index, batch: &Batch<'_>) -> Result<(), StorageError> {
    for record in batch.records() {
        let Items::Targets(targets) = record.items else {
            continue;
        };
        for target in targets {
            let queue = index.queues.entry(target.queue).or_default();
            if target.seq < queue.next_seq {
                let last = queue.next_seq - 1;
                return Err(StorageError::OutOfOrder {
                    queue: target.queue,
                    seq: target.seq,
                    last,
                });
            }
            queue.next_seq = target.seq.saturating_add(1);
        }
    }
    Ok(())
}

/// What a record does once it is durable; messages and segments are noted elsewhere.
fn effect_of(record: &NewRecord<'_>, lsn: u64) -> Option<Effect> {
    let queue = record.queue;
    let ranges = || -> Box<[SeqRange]> {
        match record.items {
            Items::Ranges(ranges) => ranges.into(),
            Items::One(first, last) => Box::new([SeqRange { first, last }]),
            Items::None | Items::Targets(_) => Box::default(),
        }
    };
    Some(match record.kind {
        RecordKind::Ack => Effect::Ack { queue, ranges: ranges(), lsn },
        RecordKind::Requeued => Effect::Requeued { queue, ranges: ranges(), lsn },
        RecordKind::Delivered => {
            Effect::Delivered { queue, last: ranges().first().map_or(0, |range| range.first) }
        }
        RecordKind::PutDefinition => {
            Effect::PutDefinition { key: record.head.into(), value: record.body.into() }
        }
        RecordKind::DeleteDefinition => Effect::DeleteDefinition { key: record.head.into() },
        RecordKind::DeleteQueue => Effect::DeleteQueue { queue },
        RecordKind::Enqueue | RecordKind::AddSegment | RecordKind::DropSegment => return None,
    })
}
