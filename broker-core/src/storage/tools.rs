//! Looking at a store that no broker runs on: [`inspect`], [`verify`], [`repair`].
//!
//! The one idea: the tools see with the eyes of recovery. `inspect` opens the directory for looking
//! only and lists what recovery found; `verify` reads every octet besides and changes nothing;
//! `repair` opens it for good, which sets damage aside, then reads everything, gives up what
//! cannot be read, and leaves a checkpoint. All of them take the lock: those that only look share it
//! with each other, and need no permission to write.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bad_pages::{BadPages, Judgement};
use super::commit::CommitStep;
use super::damage::Damage;
use super::engine::{Engine, Parts, Paths};
use super::error::{IoContext, StorageError};
use super::format_file::{self, Found};
use super::fs::FileSystem;
use super::index::{Extent, Index, LogEntry, SegmentUse};
use super::options::Options;
use super::read::plan_runs;
use super::recovery::{Access, LOCK_FILE, Recovered, must_hold_store, open};
use super::segment::ExtentOctets;
use super::spill::certain;
use super::{NodeId, SeqRange};

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Relative to the data directory.
    pub path: PathBuf,
    /// Octets.
    pub len: u64,
    /// Of a segment: octets that live messages take, about. Of a log file: octets of records.
    pub used: Option<u64>,
}

/// One checkpoint that recovery can begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Its id, as in its name.
    pub id: u64,
    /// Position of the log from which replay begins with it.
    pub position: u64,
}

/// What is in a data directory.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Which store it is.
    pub node: NodeId,
    /// The version of the format that `FORMAT` names; `None` when it is missing or damaged.
    pub format_version: Option<u32>,
    /// Position of the oldest record that is still in a log file.
    pub begin: u64,
    /// Position behind the last record.
    pub end: u64,
    /// The sound checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// Queues, definitions and damage, as a start would find them.
    pub recovered: Recovered,
    /// Every file, sorted by path.
    pub files: Vec<FileReport>,
}

/// How far a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Octets read.
    pub done: u64,
    /// Octets to be read, about.
    pub total: u64,
}

/// Whether a store could be opened for use as far as its lock goes. Changes nothing.
///
/// # Errors
/// [`StorageError::Locked`] when a broker or a tool is at work on it. Nothing else is an error here: opening
/// says it better.
pub fn must_be_free(fs: &dyn FileSystem, root: &Path) -> Result<(), StorageError> {
    let path = root.join(LOCK_FILE);
    match fs.lock_shared(&path) {
        Ok(None) => Err(StorageError::Locked { path }),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// Lists what is in a data directory, without changing anything.
///
/// # Errors
/// As [`Engine::open`].
pub fn inspect(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
) -> Result<Inspection, StorageError> {
    let opened = open(fs, root, options, Access::LookOnly)?;
    let Parts { bad_pages: fs, paths, node, state, maintenance, .. } = &opened.parts;
    let format_version = match format_file::read(&**fs, root)? {
        Found::Sound { version, .. } => Some(version),
        Found::Missing | Found::Damaged => None,
    };
    let mut files = Vec::new();
    for dir in [&paths.root, &paths.wal, &paths.segments, &paths.checkpoints, &paths.quarantine] {
        let names = match fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            names => names.during("list", dir)?,
        };
        for name in names {
            let path = dir.join(name);
            // Directories are not opened; they are listed on their own.
            let Ok(len) = fs.open(&path).and_then(|file| file.size()) else {
                continue;
            };
            let logs = state.log.full.iter().find(|file| file.path == path);
            let log_used = logs.map(|file| {
                file.frames.iter().map(|frame| u64::from(frame.payload_len)).sum::<u64>()
            });
            let id = path.file_name().and_then(|name| name.to_str());
            let id = id.and_then(|name| super::recovery::id_of(name, ".seg"));
            let segment = id.and_then(|id| state.index.segments.get(&id));
            let segment_used = segment.map(|segment| segment.live_octets);
            let used = log_used.or(segment_used);
            files.push(FileReport { path: paths.relative(&path).to_owned(), len, used });
        }
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let (node, end) = (*node, state.position);
    let frames = state.log.full.iter().flat_map(|file| &file.frames);
    let begin = frames.map(|frame| frame.lsn).min().unwrap_or(end);
    let checkpoints = maintenance.checkpoints.iter();
    let checkpoints =
        checkpoints.map(|kept| CheckpointReport { id: kept.id, position: kept.lsn }).collect();
    let recovered = opened.recovered;
    Ok(Inspection { node, format_version, begin, end, checkpoints, recovered, files })
}

/// Reads every live message and reports all damage, without changing anything.
///
/// # Errors
/// As [`Engine::open`]. What cannot be read is damage, not an error, but where no more files can be
/// opened.
pub fn verify(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Damage>, StorageError> {
    let opened = open(fs, root, options, Access::LookOnly)?;
    let mut damage = opened.recovered.damage;
    let engine = Engine::from_parts(opened.parts);
    engine.check_messages(progress, &mut |found| damage.push(found.damage))?;
    Ok(damage)
}

/// Opens a store, sets all damage aside, gives up what cannot be read, and closes it. Answers what
/// was damaged.
///
/// # Errors
/// As [`Engine::open`], or when the result cannot be written, or when no more files can be opened.
pub fn repair(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Damage>, StorageError> {
    // Through this a page of `FORMAT` that cannot be read is no failure, as it is none below.
    must_hold_store(&BadPages::new(Arc::clone(&fs)), &Paths::new(root))?;
    let (engine, recovered) = Engine::open(fs, root, options)?;
    let mut damage = recovered.damage;
    engine.bad_pages.judge(Judgement::AtOnce);
    engine.check_messages(progress, &mut |found| damage.push(engine.give_up(found)))?;
    // What was lost is settled, and is told whatever becomes of the rest.
    if let Err(error) = engine.replace_damaged_files() {
        damage.push(Damage::new("", format!("not all that is damaged could be replaced: {error}")));
    }
    engine.close_step()?;
    Ok(damage)
}

/// What is to be read of one queue.
struct QueueWork {
    queue: u64,
    extents: Vec<Extent>,
    entries: Vec<LogEntry>,
}

fn work_of(index: &Index) -> Vec<QueueWork> {
    let mut work: Vec<QueueWork> = index
        .queues
        .iter()
        .map(|(id, queue)| QueueWork {
            queue: *id,
            extents: queue.extents.iter().copied().collect(),
            entries: queue.log.iter().filter(|entry| entry.is_live()).copied().collect(),
        })
        .collect();
    work.sort_unstable_by_key(|work| work.queue);
    work
}

/// Messages that are not sound, and the octets they were read from.
struct Finding {
    damage: Damage,
    /// Where the octets lie in the file.
    offset: u64,
    /// Empty when they could not be read.
    octets: Vec<u8>,
}

impl Engine {
    /// Reads every live message and tells of those that are not sound. Changes nothing.
    fn check_messages(
        &self,
        progress: &mut dyn FnMut(Progress),
        found: &mut dyn FnMut(Finding),
    ) -> Result<(), StorageError> {
        let work = work_of(&self.state.lock().index);
        let octets = |work: &QueueWork| {
            let extents = work.extents.iter().map(|extent| u64::from(extent.len)).sum::<u64>();
            extents + work.entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>()
        };
        let total = work.iter().map(octets).sum();
        let mut done = 0;
        progress(Progress { done, total });
        for queue in &work {
            for extent in &queue.extents {
                if let Some(finding) = self.check_extent(queue.queue, extent)? {
                    found(finding);
                }
                done += u64::from(extent.len);
                progress(Progress { done, total });
            }
            for entries in queue.entries.chunks(1024) {
                self.check_entries(queue.queue, entries, found);
                done += entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
                progress(Progress { done, total });
            }
        }
        Ok(())
    }

    /// Puts sound files in the place of damaged ones, where there is room, and removes what nothing needs any more.
    fn replace_damaged_files(&self) -> Result<(), StorageError> {
        self.rewrite_damaged_segments()?;
        // Twice, so that no checkpoint is left that knows what was damaged; then it can go.
        self.checkpoint_step()?;
        self.checkpoint_step()?;
        self.reclaim_step()?;
        Ok(())
    }

    /// Copies what lives in segments whose ends are not sound into new ones, and commits all.
    fn rewrite_damaged_segments(&self) -> Result<(), StorageError> {
        loop {
            while self.commit_step()? == CommitStep::Written {}
            let is_damaged = |segment: &SegmentUse| segment.is_damaged && segment.live_extents > 0;
            let is_done = !self.state.lock().index.segments.values().any(is_damaged);
            if is_done || !self.compact_step()? {
                return Ok(());
            }
        }
    }

    /// Keeps the octets, and takes the messages out of the store.
    fn give_up(&self, found: Finding) -> Damage {
        let Finding { mut damage, offset, octets } = found;
        if !octets.is_empty() {
            self.quarantine().copy_range(&mut damage, offset, &octets);
        }
        self.settle(damage.clone());
        damage
    }

    fn check_extent(&self, queue: u64, extent: &Extent) -> Result<Option<Finding>, StorageError> {
        let path = self.segment_path(extent.segment);
        let live = self.live_in(queue, extent);
        let read = self
            .segment_file(extent.segment)
            .and_then(|file| ExtentOctets::read(&*file, queue, extent).during("read", &path));
        let (detail, lost, octets) = match read {
            Ok(read) => {
                let detail = format!("extent at offset {} is damaged", extent.offset);
                let place = extent.offset..extent.offset + u64::from(extent.len);
                let detail = self.bad_pages.explain(detail, &path, place);
                (detail, read.lost.clone(), read.into_octets())
            }
            Err(error) if error.is_shortage() => return Err(error),
            Err(error) => {
                let all = SeqRange { first: extent.first, last: extent.last };
                (error.to_string(), vec![all], Vec::new())
            }
        };
        let mut damage = Damage::new(self.paths.relative(&path), detail);
        for range in lost {
            let within = |seq: &&u64| (range.first..=range.last).contains(*seq);
            let count = live.iter().filter(within).count() as u64;
            if count > 0 {
                damage.lost.push(certain(queue, range, count));
            }
        }
        let finding = Finding { damage, offset: extent.offset, octets };
        Ok((!finding.damage.lost.is_empty()).then_some(finding))
    }

    fn check_entries(&self, queue: u64, entries: &[LogEntry], found: &mut dyn FnMut(Finding)) {
        let plan = plan_runs(&self.state.lock(), entries, self.options.extent_len);
        for run in plan.runs {
            let mut octets = Vec::new();
            let failure = run.read(&mut octets).err();
            if failure.is_some() {
                octets.clear();
            }
            let mut damage = Damage::new(self.paths.relative(&run.path), "");
            let mut first = None;
            for ((seq, record), at) in run.records(&octets).zip(run.offsets()) {
                if record.is_none() {
                    first = first.or(Some(run.offset + at as u64));
                    damage.lost.push(certain(queue, SeqRange::one(seq), 1));
                }
            }
            let Some(first) = first else {
                continue;
            };
            damage.detail = match failure {
                Some(error) => error.to_string(),
                None => {
                    let detail = format!("bad checksum of records, the first at offset {first}");
                    let place = run.offset..run.offset + octets.len() as u64;
                    self.bad_pages.explain(detail, &run.path, place)
                }
            };
            found(Finding { damage, offset: run.offset, octets });
        }
    }
}
