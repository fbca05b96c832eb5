//! What was damaged, what it cost, and where the damaged octets are now.
//!
//! The one idea: nothing damaged is deleted or delivered. It is moved (a file) or copied (a range)
//! into `quarantine/`, with a text beside it that a person can read, and the messages lost are
//! named by queue and number. Failing to set something aside never stops the store.

use std::fmt;
use std::path::{Path, PathBuf};

use super::batch::{Batch, SeqRange};
use super::engine::Engine;
use super::fs::{FileSystem, write_full};

/// Messages of one queue that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostMessages {
    /// The queue.
    pub queue: u64,
    /// Where the lost numbers lie.
    pub range: SeqRange,
    /// How many of them were messages not acked; with `certain` false, at most so many.
    pub count: u64,
    /// Whether the store knows that they existed. Otherwise a stretch of the log is gone, and
    /// these are the numbers missing in the queue around it.
    pub certain: bool,
}

/// One thing that was found damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the data directory.
    pub file: PathBuf,
    /// What is wrong with it, for a person.
    pub detail: String,
    /// The messages that it cost.
    pub lost: Vec<LostMessages>,
    /// Where the damaged octets are now, relative to the data directory; `None` when there were
    /// none to keep, or no room.
    pub quarantined: Option<PathBuf>,
}

impl Damage {
    /// Damage that cost no message, or none yet known.
    pub(super) fn new(file: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self { file: file.into(), detail: detail.into(), lost: Vec::new(), quarantined: None }
    }

    /// One line: file, what is wrong, the messages lost, and where the octets are now. Queues are called what `queue`
    /// makes of their numbers, such as `queue orders`: the store knows no names.
    #[must_use]
    pub fn in_words(&self, queue: impl Fn(u64) -> String) -> String {
        let mut words = String::new();
        // Damage of the store as a whole has no file.
        if !self.file.as_os_str().is_empty() {
            words = format!("{}: ", self.file.display());
        }
        words.push_str(&self.detail);
        for LostMessages { queue: id, range, count, certain } in &self.lost {
            let word = if *certain { "lost" } else { "possibly lost" };
            words.push_str(&format!("; {word}: {}, ", queue(*id)));
            words.push_str(&match range.first == range.last {
                true => format!("message {}", range.first),
                false => format!("messages {} to {} ({count} of them)", range.first, range.last),
            });
        }
        if let Some(path) = &self.quarantined {
            words.push_str(&format!("; kept in {}", path.display()));
        }
        words
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words(|id| format!("queue #{id}")))
    }
}

/// Puts things into `quarantine/`.
#[derive(Clone, Debug)]
pub(super) struct Quarantine<'a> {
    pub(super) fs: &'a dyn FileSystem,
    pub(super) root: &'a Path,
    /// Only reports: nothing on disk may change.
    pub(super) is_read_only: bool,
}

pub(super) const QUARANTINE_DIR: &str = "quarantine";

impl Quarantine<'_> {
    /// Moves a whole file away.
    pub(super) fn move_file(&self, damage: &mut Damage) {
        if self.is_read_only {
            return;
        }
        let Some(name) = damage.file.file_name().and_then(|name| name.to_str()) else {
            return;
        };
        let Some(target) = self.free_name(name) else {
            return;
        };
        let from = self.root.join(&damage.file);
        if self.fs.rename(&from, &self.root.join(&target)).is_ok() {
            damage.quarantined = Some(target);
        }
        self.explain(damage);
    }

    /// Keeps a copy of a range of octets, named after file and offset.
    pub(super) fn copy_range(&self, damage: &mut Damage, offset: u64, octets: &[u8]) {
        if self.is_read_only {
            return;
        }
        let Some(name) = damage.file.file_name().and_then(|name| name.to_str()) else {
            return;
        };
        let Some(target) = self.free_name(&format!("{name}@{offset}")) else {
            return;
        };
        if self.write(&target, octets) {
            damage.quarantined = Some(target);
        }
        self.explain(damage);
    }

    fn explain(&self, damage: &Damage) {
        let Some(path) = &damage.quarantined else {
            return;
        };
        let text = format!("{damage}\n");
        let mut name = path.clone().into_os_string();
        name.push(".txt");
        self.write(Path::new(&name), text.as_bytes());
    }

    fn write(&self, path: &Path, octets: &[u8]) -> bool {
        let path = self.root.join(path);
        let written = self.fs.create(&path).and_then(|file| write_full(&*file, 0, &[octets]));
        if written.is_err() {
            // A half copy is worth nothing; the original is still where it was.
            drop(self.fs.remove(&path));
        }
        written.is_ok()
    }

    /// A name that nothing in quarantine has; `None` when that cannot be found out, because
    /// nothing there may be overwritten.
    fn free_name(&self, name: &str) -> Option<PathBuf> {
        let dir = Path::new(QUARANTINE_DIR);
        let taken = match self.fs.list(&self.root.join(dir)) {
            Err(error) if !super::recovery::is_absent(&error) => return None,
            names => names.unwrap_or_default(),
        };
        let mut candidate = name.to_owned();
        let mut number = 1_u32;
        while taken.contains(&candidate) {
            candidate = format!("{name}.{number}");
            number += 1;
        }
        Some(dir.join(candidate))
    }
}

impl Engine {
    /// Reports messages that are gone for good, keeps their octets, and acks them so that they do
    /// not haunt the queue. Messages that have been named already are passed over.
    pub(super) fn lose(&self, file: &Path, offset: u64, octets: &[u8], lost: Vec<LostMessages>) {
        if lost.is_empty() || self.damage.lock().iter().any(|known| known.lost == lost) {
            return;
        }
        let detail = format!("bad checksum at offset {offset}");
        let place = offset..offset + octets.len() as u64;
        let detail = self.bad_pages.explain(detail, &self.paths.root.join(file), place);
        let mut damage = Damage::new(file, detail);
        damage.lost = lost;
        if !octets.is_empty() {
            self.quarantine().copy_range(&mut damage, offset, octets);
        }
        self.settle(damage);
    }

    /// Gives up one message whose octets are as they were written, and make no sense: reports it,
    /// keeps `octets`, and acks it.
    pub fn give_up_message(&self, queue: u64, seq: u64, octets: &[u8], why: &str) {
        let (path, offset) = self.place_of(queue, seq);
        let mut damage =
            Damage::new(self.paths.relative(&path), format!("{why}, at offset {offset}"));
        damage.lost =
            vec![LostMessages { queue, range: SeqRange::one(seq), count: 1, certain: true }];
        self.quarantine().copy_range(&mut damage, offset, octets);
        self.settle(damage);
    }

    /// The file of a live message, and about where in it: the extent, or the record in the log. Of one that is not
    /// written yet, the log's directory.
    fn place_of(&self, queue: u64, seq: u64) -> (PathBuf, u64) {
        let state = self.state.lock();
        let found = state.index.queues.get(&queue);
        let extent = found.filter(|found| found.spilled.contains(seq));
        if let Some(extent) = extent.and_then(|found| found.extents.get(found.extents_from(seq))) {
            return (self.segment_path(extent.segment), extent.offset);
        }
        let entry = found.and_then(|found| found.log.get(found.log_from(seq)));
        let place = entry.and_then(|entry| state.log.locate(entry.lsn));
        place.map_or_else(
            || (self.paths.wal.clone(), 0),
            |(file, offset)| (file.path.clone(), offset),
        )
    }

    /// Reports and settles messages that lay in a stretch of the log that is gone: no octets are left to keep.
    pub(super) fn name_missing(&self, lost: Vec<LostMessages>) {
        if lost.is_empty() || self.damage.lock().iter().any(|known| known.lost == lost) {
            return;
        }
        let detail = "message in a lost stretch of the log";
        let mut damage = Damage::new(self.paths.relative(&self.paths.wal), detail);
        damage.lost = lost;
        self.settle(damage);
    }

    /// Acks what is lost and reports it.
    pub(super) fn settle(&self, damage: Damage) {
        // Before they are acked: a reader finds each of them either damaged or among these.
        let mut state = self.state.lock();
        for lost in &damage.lost {
            if let Some(queue) = state.index.queues.get_mut(&lost.queue) {
                queue.note_lost(lost.range);
            }
        }
        drop(state);
        let ranges: Vec<[SeqRange; 1]> = damage.lost.iter().map(|lost| [lost.range]).collect();
        let mut batch = Batch::new();
        for (lost, ranges) in damage.lost.iter().zip(&ranges) {
            batch.ack(lost.queue, ranges);
        }
        // A poisoned store takes no acks; its next start finds and names the damage again.
        drop(self.append(&batch));
        self.report(damage);
    }
}
