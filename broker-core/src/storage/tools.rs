//! Looking at a store that no broker runs on: [`inspect`], [`verify`], [`repair`].
//!
//! The one idea: the tools see with the eyes of recovery. `inspect` opens the directory for looking
//! only and lists what recovery found; `verify` reads every octet besides and changes nothing;
//! `repair` opens it for good, which sets damage aside, then reads everything, gives up what
//! cannot be read, and leaves a checkpoint. All of them take the lock.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::Damage;
use super::engine::{Engine, Parts};
use super::error::{IoContext, StorageError};
use super::fs::FileSystem;
use super::index::{Extent, Index, LogEntry};
use super::options::Options;
use super::read::plan_runs;
use super::recovery::{Access, Recovered, open};
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

/// What is in a data directory.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Which store it is.
    pub node: NodeId,
    /// Position behind the last record.
    pub end: u64,
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

/// Lists what is in a data directory, without changing anything.
///
/// # Errors
/// As [`Engine::open`].
pub fn inspect(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
) -> Result<Inspection, StorageError> {
    let opened = open(Arc::clone(&fs), root, options, Access::LookOnly)?;
    let Parts { paths, node, state, .. } = &opened.parts;
    let mut files = Vec::new();
    for dir in [&paths.root, &paths.wal, &paths.segments, &paths.checkpoints, &paths.quarantine] {
        let names = match fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            names => names.during("list", dir)?,
        };
        for name in names {
            let path = dir.join(name);
            // Directories cannot be opened for writing; they are listed on their own.
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
    let (node, end) = (*node, state.position);
    Ok(Inspection { node, end, recovered: opened.recovered, files })
}

/// Reads every live message and reports all damage, without changing anything.
///
/// # Errors
/// As [`Engine::open`]. What cannot be read is damage, not an error.
pub fn verify(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Damage>, StorageError> {
    let opened = open(fs, root, options, Access::LookOnly)?;
    let mut damage = opened.recovered.damage;
    let engine = Engine::from_parts(opened.parts);
    damage.extend(engine.check_messages(progress));
    Ok(damage)
}

/// Opens a store, sets all damage aside, gives up what cannot be read, and closes it. Answers what
/// was damaged.
///
/// # Errors
/// As [`Engine::open`], or when the result cannot be written.
pub fn repair(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Damage>, StorageError> {
    let (engine, recovered) = Engine::open(fs, root, options)?;
    let mut damage = recovered.damage;
    let found = engine.check_messages(progress);
    for damage in &found {
        engine.name_lost(&damage.detail, damage.lost.clone());
    }
    damage.extend(found);
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

impl Engine {
    /// Reads every live message; answers those that are not sound. Changes nothing.
    fn check_messages(&self, progress: &mut dyn FnMut(Progress)) -> Vec<Damage> {
        let work = work_of(&self.state.lock().index);
        let octets = |work: &QueueWork| {
            let extents = work.extents.iter().map(|extent| u64::from(extent.len)).sum::<u64>();
            extents + work.entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>()
        };
        let total = work.iter().map(octets).sum();
        let mut done = 0;
        let mut damage = Vec::new();
        for queue in &work {
            for extent in &queue.extents {
                damage.extend(self.check_extent(queue.queue, extent));
                done += u64::from(extent.len);
                progress(Progress { done, total });
            }
            for entries in queue.entries.chunks(1024) {
                damage.extend(self.check_entries(queue.queue, entries));
                done += entries.iter().map(|entry| u64::from(entry.len)).sum::<u64>();
                progress(Progress { done, total });
            }
        }
        damage
    }

    fn check_extent(&self, queue: u64, extent: &Extent) -> Option<Damage> {
        let path = self.segment_path(extent.segment);
        let live = self.live_in(queue, extent);
        let read = self
            .segment_file(extent.segment)
            .and_then(|file| ExtentOctets::read(&*file, queue, extent).during("read", &path));
        let (detail, lost) = match read {
            Ok(read) => (format!("extent at offset {} is damaged", extent.offset), read.lost),
            Err(error) => {
                (error.to_string(), vec![SeqRange { first: extent.first, last: extent.last }])
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
        (!damage.lost.is_empty()).then_some(damage)
    }

    fn check_entries(&self, queue: u64, entries: &[LogEntry]) -> Vec<Damage> {
        let plan = plan_runs(&self.state.lock(), entries, self.options.extent_len);
        let mut found = Vec::new();
        let mut octets = Vec::new();
        for run in plan.runs {
            let mut damage = Damage::new(self.paths.relative(&run.path), "records are damaged");
            if let Err(error) = run.read(&mut octets) {
                damage.detail = error.to_string();
                octets.clear();
            }
            let unsound = run.records(&octets).filter(|(_, record)| record.is_none());
            damage.lost.extend(unsound.map(|(seq, _)| certain(queue, SeqRange::one(seq), 1)));
            if !damage.lost.is_empty() {
                found.push(damage);
            }
        }
        found
    }
}
