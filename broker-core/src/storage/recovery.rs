//! Opening a store: checkpoint, replay, and a judgement on every file.
//!
//! The one idea: what the newest sound checkpoint says is the beginning, and the log behind it is
//! replayed by the same code that runs otherwise. Bodies of segments are not read. A damaged file
//! is set aside and reported; only three things refuse the start: a lock, a newer format, and a
//! directory that was a store and has lost both log and checkpoints. Pages that cannot be read are
//! damage like any other ([`bad_pages`](super::bad_pages)). What cannot be opened for want
//! of file handles is not judged: the start fails, and may be tried again. Recovery changes nothing
//! that a second recovery after a crash in the middle would need.
//!
//! In order: lock, `FORMAT`, checkpoints ([`checkpoint`](super::checkpoint)), frames of the log
//! ([`scan`](super::scan)), replay ([`replay`](super::replay)), segments and log entries against
//! what is there, cleaning up.

mod log_files;
mod segments;

pub(super) use segments::lost_behind;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::NodeId;
use super::bad_pages::{BadPages, Judgement};
use super::checkpoint::{self, Checkpoint, CheckpointHeader, checkpoint_path};
use super::commit::CommitStep;
use super::damage::{Damage, LostMessages, Quarantine};
use super::engine::{Engine, Frame, Parts, Paths, State};
use super::error::{IoContext, StorageError, is_out_of_means};
use super::format_file::{self, Found};
use super::fs::{FileSystem, Lock};
use super::index::Index;
use super::log::{LogFiles, READY_FILES};
use super::maintenance::{KeptCheckpoint, Maintenance};
use super::options::Options;
use super::progress::{Meter, OpenPhase};
use super::read_only::ReadOnly;
use super::replay::{Replay, Replayed};
use super::scan::{ScannedFile, chain};
use super::seq_set::SeqSet;

/// The file whose lock says that somebody is at work on a store.
pub(super) const LOCK_FILE: &str = "LOCK";

/// One queue as it was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveredQueue {
    /// Its id.
    pub queue: u64,
    /// The messages in it.
    pub live: SeqSet,
    /// The lowest number that a new message may have.
    pub next_seq: u64,
    /// Messages numbered below may have been delivered before.
    pub delivered_below: u64,
    /// Messages that have been returned to the queue, and how often.
    pub returns: Vec<(u64, u32)>,
    /// Octets on disk, as near as the store knows.
    pub octets: u64,
}

/// A definition: its key and its value.
pub type Definition = (Box<[u8]>, Box<[u8]>);

/// What a directory held when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Whether this is a new store.
    pub is_new: bool,
    /// The latest value of each definition, sorted by key.
    pub definitions: Vec<Definition>,
    /// The queues, sorted by id.
    pub queues: Vec<RecoveredQueue>,
    /// What was found damaged.
    pub damage: Vec<Damage>,
    /// Octets of the log that were replayed.
    pub replayed_octets: u64,
    /// Records that were replayed.
    pub replayed_records: u64,
    /// How long it took; zero from [`Engine::open`], which has no clock.
    pub took: std::time::Duration,
}

/// Whether a directory is opened to be used, or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Use,
    LookOnly,
}

/// A directory that has been read.
pub(super) struct Opened {
    pub(super) parts: Parts,
    pub(super) recovered: Recovered,
    lacks_format: bool,
}

impl Engine {
    /// Opens the store in `root`, making it when there is none.
    ///
    /// # Errors
    /// [`StorageError::Locked`], [`StorageError::NewerFormat`], [`StorageError::LogMissing`],
    /// [`StorageError::Damaged`] with `strict`, [`StorageError::InvalidOptions`], or what the file
    /// system answers.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        options: Options,
    ) -> Result<(Self, Recovered), StorageError> {
        let opened = open(fs, root, options, Access::Use)?;
        let engine = Self::from_parts(opened.parts);
        engine.ready_log(opened.recovered.is_new)?;
        // What no later frame proves to have been flushed may only lie in the page cache, even
        // where a flush now answers success: it failed before. So it is written again, elsewhere.
        while engine.commit_step()? == CommitStep::Written {}
        if opened.recovered.is_new {
            // Two, so that one lost file is never the only one.
            engine.checkpoint_step()?;
            engine.checkpoint_step()?;
        } else if !opened.recovered.damage.is_empty() {
            // So that the next start does not report the same again. What stands in the way now
            // (no room, say) stands in nobody's way: the damage is reported twice then.
            if matches!(engine.checkpoint_step(), Ok(true)) {
                engine.mend_log_files();
            }
        }
        if opened.lacks_format {
            // Last: with it, log and checkpoints must be there too.
            format_file::write(&*engine.fs, &engine.paths.root, engine.node)?;
        }
        if !opened.recovered.damage.is_empty() {
            // The log ends in a sound file from now on: its end may be what was damaged. Without
            // this the next start reports the same again, and no more.
            drop(engine.seal_in_new_file());
        }
        engine.settle_log();
        engine.bad_pages.judge(Judgement::InTime);
        Ok((engine, opened.recovered))
    }

    /// Makes sure that there is a log file. On a full disk an old store opens without.
    fn ready_log(&self, is_new: bool) -> Result<(), StorageError> {
        for wanted in 1..=READY_FILES {
            match self.prepare_next(wanted) {
                Err(error) if error.is_disk_full() && !is_new => self.make_room(wanted)?,
                done => done?,
            }
        }
        Ok(())
    }

    /// What was found is written once more first, and acks after it; only then is anything given back. So part of the
    /// ballast's room goes for that where there is no log file at all.
    fn make_room(&self, wanted: usize) -> Result<(), StorageError> {
        if wanted == 1 {
            self.drop_ballast();
        }
        match self.prepare_next(wanted) {
            Err(error) if error.is_disk_full() => {
                self.state.lock().full.log = true;
                Ok(())
            }
            done => done,
        }
    }

    /// Gives log files back when restarts have made too many of them. Best effort: the same is
    /// tried again while the store runs.
    fn settle_log(&self) {
        for _ in 0..self.options.full_files_max * 2 {
            if self.state.lock().log.full.len() <= self.options.full_files_max {
                return;
            }
            let stepped = self.maintain_step().and_then(|_| self.commit_step());
            let checked = stepped.and_then(|_| self.checkpoint_step());
            if checked.is_err() {
                return;
            }
        }
    }
}

/// Reads a directory.
pub(super) fn open(
    fs: Arc<dyn FileSystem>,
    root: &Path,
    options: Options,
    access: Access,
) -> Result<Opened, StorageError> {
    options.check()?;
    let paths = Paths::new(root);
    let fs = match access {
        Access::Use => {
            fs.create_dir(root).during("mkdir", root)?;
            Arc::new(BadPages::new(fs))
        }
        Access::LookOnly => {
            let fs = Arc::new(BadPages::new(Arc::new(ReadOnly(fs))));
            must_hold_store(&*fs, &paths)?;
            fs
        }
    };
    let lock_path = root.join(LOCK_FILE);
    let Some(lock) = fs.lock(&lock_path).during("lock", &lock_path)? else {
        return Err(StorageError::Locked { path: lock_path });
    };
    let random = match options.seed {
        Some(seed) => SmallRng::seed_from_u64(seed),
        None => rand::make_rng(),
    };
    let recovery = Recovery {
        fs: &*fs,
        bad_pages: &fs,
        paths: &paths,
        options: &options,
        quarantine: Quarantine {
            fs: &*fs,
            root: &paths.root,
            is_read_only: access == Access::LookOnly || options.strict,
        },
        access,
        random,
        damage: Vec::new(),
        node: NodeId::default(),
    };
    let found = recovery.run()?;
    Ok(found.into_opened(Arc::clone(&fs), paths.clone(), options.clone(), lock))
}

/// Fails where neither `FORMAT` nor any file of a store is.
pub(super) fn must_hold_store(fs: &dyn FileSystem, paths: &Paths) -> Result<(), StorageError> {
    if format_file::read(fs, &paths.root)? != Found::Missing {
        return Ok(());
    }
    for dir in [&paths.wal, &paths.segments, &paths.checkpoints] {
        match fs.list(dir) {
            Ok(names) if !names.is_empty() => return Ok(()),
            Err(error) if !is_absent(&error) => return Err(error).during("list", dir),
            Ok(_) | Err(_) => {}
        }
    }
    Err(StorageError::NoStore { path: paths.root.clone() })
}

/// Whether a path leads nowhere, or through a file.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The work in progress.
struct Recovery<'a> {
    fs: &'a dyn FileSystem,
    bad_pages: &'a BadPages,
    paths: &'a Paths,
    options: &'a Options,
    quarantine: Quarantine<'a>,
    access: Access,
    random: SmallRng,
    damage: Vec<Damage>,
    node: NodeId,
}

/// Everything that was found out.
struct Outcome {
    node: NodeId,
    random: SmallRng,
    index: Index,
    log: LogFiles,
    end: u64,
    maintenance: Maintenance,
    damage: Vec<Damage>,
    is_new: bool,
    lacks_format: bool,
    replayed: Replayed,
    unproven: Vec<Frame>,
}

impl Outcome {
    fn into_opened(
        self,
        bad_pages: Arc<BadPages>,
        paths: Paths,
        options: Options,
        lock: Box<dyn Lock>,
    ) -> Opened {
        let mut queues: Vec<RecoveredQueue> = self
            .index
            .queues
            .iter()
            .map(|(id, queue)| RecoveredQueue {
                queue: *id,
                live: queue.live(),
                next_seq: queue.next_seq,
                delivered_below: queue.delivered_below,
                returns: queue.returns.iter().map(|(seq, times)| (*seq, *times)).collect(),
                octets: queue.octets(),
            })
            .collect();
        queues.sort_unstable_by_key(|queue| queue.queue);
        let definitions = self.index.definitions.iter();
        let recovered = Recovered {
            is_new: self.is_new,
            definitions: definitions.map(|(key, value)| (key.clone(), value.clone())).collect(),
            queues,
            damage: self.damage,
            replayed_octets: self.replayed.octets,
            replayed_records: self.replayed.records,
            took: std::time::Duration::ZERO,
        };
        let state = State {
            index: self.index,
            log: self.log,
            position: self.end,
            replayed: self.end,
            durable: self.unproven.first().map_or(self.end, |frame| frame.lsn),
            pending: self.unproven.into(),
            is_urgent: true,
            ..State::default()
        };
        let parts = Parts {
            bad_pages,
            paths,
            options,
            node: self.node,
            state,
            maintenance: self.maintenance,
            random: self.random,
            lock,
        };
        Opened { parts, recovered, lacks_format: self.lacks_format }
    }
}

impl Recovery<'_> {
    fn run(mut self) -> Result<Outcome, StorageError> {
        let format = format_file::read(self.fs, &self.paths.root)?;
        if self.access == Access::Use {
            self.make_dirs()?;
        }
        let mut checkpoints = self.read_checkpoints(format)?;
        // Nothing is moved before it is sure that this start is not refused: at the next one the
        // disk may give what it does not give now.
        let damaged_checkpoints = self.damage.len();
        let mut files = self.scan_log()?;
        let first_lsn = files.iter().filter_map(|file| Some(file.frames.first()?.0.lsn)).min();
        let has_segments = !self.ids(&self.paths.segments, ".seg")?.is_empty();
        let is_new = format == Found::Missing
            && first_lsn.is_none()
            && !has_segments
            && self.damage.is_empty()
            && !self.has_quarantined()?
            && checkpoints.usable.as_ref().is_none_or(|found| found.header.lsn == 0);
        // Without a checkpoint the log must reach back to the beginning, and a store always has a
        // log file.
        let has_history =
            (checkpoints.usable.is_some() || first_lsn == Some(0)) && !files.is_empty();
        if !is_new && !has_history && !self.options.accept_data_loss {
            return Err(StorageError::LogMissing { path: self.paths.root.clone() });
        }
        for damage in self.damage.iter_mut().take(damaged_checkpoints) {
            self.quarantine.move_file(damage);
        }
        self.identify(format, is_new, &checkpoints, &files);
        if !is_new && !has_history {
            let detail = "log or checkpoints are gone; the loss was accepted";
            self.damage.push(Damage::new("", detail));
        }
        self.part_from_strangers(&mut files);
        self.check_strict()?;
        let (header, mut index) = match checkpoints.usable.take() {
            Some(checkpoint) => (checkpoint.header, checkpoint.index),
            None => (CheckpointHeader::default(), Index::default()),
        };
        if self.access == Access::Use {
            // A killed process may have named a file and not come to this; frames in it count
            // only if the name survives.
            self.fs.sync_dir(&self.paths.wal).during("fsync", &self.paths.wal)?;
        }
        files.sort_by_key(|file| file.id);
        self.check_last_file(&files, &header);
        self.fix_segment_names()?;
        if !is_new && !has_history {
            // Before the log, so that what is left of it can still ack what segments hold.
            self.adopt_segments(&mut index)?;
        }
        let chain = chain(&files);
        let total = chain.end().saturating_sub(header.lsn);
        let meter = Meter::new(self.options.progress.as_ref(), OpenPhase::Replay, total);
        let from = header.lsn;
        let found =
            Replay::new(self.bad_pages, self.paths, &files, &chain, index, from, meter).run();
        if let Some(failure) = found.failure {
            return Err(failure);
        }
        for (mut damage, octets) in found.damage {
            if let Some((offset, octets)) = octets {
                self.quarantine.copy_range(&mut damage, offset, &octets);
            }
            self.damage.push(damage);
        }
        self.check_end(&files, &chain);
        let mut index = found.index;
        self.check_segments(&mut index)?;
        self.check_strict()?;
        let log = self.arrange_log(files, &found.frames, found.end, &header)?;
        self.check_entries(&mut index, &log);
        self.check_strict()?;
        let next_segment_id = self.clear_segments(&index, &header)?;
        Ok(Outcome {
            node: self.node,
            random: self.random,
            index,
            log,
            end: found.end,
            maintenance: Maintenance {
                checkpoints: checkpoints.kept,
                next_checkpoint_id: checkpoints.next_id,
                next_segment_id,
                replaced: Vec::new(),
                has_ballast: self.fs.open(&self.paths.ballast).is_ok(),
            },
            damage: self.damage,
            is_new,
            lacks_format: !matches!(format, Found::Sound { .. }),
            replayed: found.replayed,
            unproven: found.unproven,
        })
    }

    /// Whether an earlier start has set anything aside: then this was a store.
    fn has_quarantined(&self) -> Result<bool, StorageError> {
        let dir = &self.paths.quarantine;
        match self.fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            names => Ok(!names.during("list", dir)?.is_empty()),
        }
    }

    fn make_dirs(&self) -> Result<(), StorageError> {
        let paths = self.paths;
        for dir in [&paths.wal, &paths.segments, &paths.checkpoints, &paths.quarantine] {
            self.fs.create_dir(dir).during("mkdir", dir)?;
        }
        let parent = paths.root.parent().filter(|parent| !parent.as_os_str().is_empty());
        // The directories' names must survive too.
        for dir in [Some(paths.root.as_path()), parent].into_iter().flatten() {
            self.fs.sync_dir(dir).during("fsync", dir)?;
        }
        Ok(())
    }

    /// Reports damage of a whole file and moves it away.
    fn set_aside(&mut self, path: &Path, detail: impl Into<String>, lost: Vec<LostMessages>) {
        let mut damage = Damage::new(self.paths.relative(path), detail);
        damage.lost = lost;
        self.quarantine.move_file(&mut damage);
        self.damage.push(damage);
    }

    /// Adds to what is said of a file that not all of it could be read.
    fn explain_whole(&self, detail: impl Into<String>, path: &Path) -> String {
        self.bad_pages.explain(detail.into(), path, 0..u64::MAX)
    }

    /// With `strict`, damage refuses the start.
    fn check_strict(&self) -> Result<(), StorageError> {
        match self.damage.first() {
            Some(damage) if self.options.strict => Err(StorageError::Damaged {
                path: self.paths.root.join(&damage.file),
                detail: damage.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// Ids of the files in `dir` whose names end so, ascending.
    fn ids(&self, dir: &Path, suffix: &str) -> Result<Vec<u64>, StorageError> {
        let names = match self.fs.list(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            names => names.during("list", dir)?,
        };
        let ids = names.iter().filter_map(|name| id_of(name, suffix));
        Ok(ids.collect())
    }

    // Who this is.

    fn identify(
        &mut self,
        format: Found,
        is_new: bool,
        checkpoints: &Checkpoints,
        files: &[ScannedFile],
    ) {
        let elsewhere = || {
            let from_checkpoint = checkpoints.usable.as_ref().map(|found| found.header.node);
            let headers = files.iter().filter_map(|file| file.header);
            from_checkpoint.or_else(|| headers.map(|header| header.node).next())
        };
        let path = Path::new("FORMAT");
        self.node = match format {
            Found::Sound { node, .. } => node,
            Found::Missing | Found::Damaged => {
                if let Some(node) = elsewhere()
                    && !is_new
                {
                    let word = if format == Found::Missing { "missing" } else { "damaged" };
                    let detail = format!("{word}; written again");
                    let detail = self.explain_whole(detail, &self.paths.root.join(path));
                    let mut damage = Damage::new(path, detail);
                    if format == Found::Damaged {
                        self.quarantine.move_file(&mut damage);
                    }
                    self.damage.push(damage);
                    node
                } else {
                    NodeId(self.random.random())
                }
            }
        };
    }

    // Checkpoints.

    fn read_checkpoints(&mut self, format: Found) -> Result<Checkpoints, StorageError> {
        let dir = &self.paths.checkpoints;
        let ids = self.ids(dir, ".ckpt")?;
        let mut sound: Vec<(u64, Checkpoint)> = Vec::new();
        let mut damaged: Vec<(u64, String, Option<Checkpoint>)> = Vec::new();
        for id in &ids {
            let path = checkpoint_path(dir, *id);
            let read = self.fs.open(&path).and_then(|file| checkpoint::read(&*file));
            let is_ours = |found: &Checkpoint| match format {
                Found::Sound { node, .. } => node == found.header.node,
                Found::Missing | Found::Damaged => true,
            };
            match read {
                Ok(Some(found)) if !is_ours(&found) => {
                    damaged.push((*id, "belongs to another store".to_owned(), None));
                }
                Ok(Some(found)) => match &found.damage {
                    None => sound.push((*id, found)),
                    Some(detail) => damaged.push((*id, detail.clone(), Some(found))),
                },
                Ok(None) => damaged.push((*id, "header is not sound".to_owned(), None)),
                Err(error) if is_out_of_means(&error) => return Err(error).during("open", &path),
                Err(error) => damaged.push((*id, format!("cannot be read: {error}"), None)),
            }
        }
        sound.sort_by_key(|(_, found)| (found.header.lsn, found.header.id));
        let kept: Vec<KeptCheckpoint> = sound
            .iter()
            .map(|(id, found)| KeptCheckpoint { id: *id, lsn: found.header.lsn })
            .collect();
        let usable = sound.pop().map(|(_, found)| found);
        let newest_damaged = damaged
            .iter_mut()
            .filter_map(|(_, _, found)| found.take())
            .max_by_key(|found| found.header.lsn);
        for (id, detail, _) in damaged {
            let path = checkpoint_path(dir, id);
            let detail = self.explain_whole(detail, &path);
            self.damage.push(Damage::new(self.paths.relative(&path), detail));
        }
        let mut kept = kept;
        if kept.len() > 2 {
            // A crash came between a new one and the removal of the oldest.
            for old in kept.drain(..kept.len() - 2) {
                if self.access == Access::Use {
                    let path = checkpoint_path(dir, old.id);
                    self.fs.remove(&path).during("remove", &path)?;
                }
            }
        }
        Ok(Checkpoints {
            kept,
            usable: usable.or(newest_damaged),
            next_id: ids.last().map_or(0, |last| last + 1),
        })
    }
}

/// What reading the checkpoints gave.
struct Checkpoints {
    /// The sound ones, oldest first.
    kept: Vec<KeptCheckpoint>,
    usable: Option<Checkpoint>,
    next_id: u64,
}

/// The name of a file on its way to `path`.
fn moved_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".moved");
    PathBuf::from(name)
}

/// The id in a name like `00000000000000ff.wal`.
pub(super) fn id_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}
