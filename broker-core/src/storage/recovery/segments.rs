//! Recovery's judgement on segments: whose they are, what they are called, whether they are whole.
//!
//! The one idea: only the ends of a segment are read while opening. What an extent holds is checked
//! when it is read, so a rotten octet in the middle of gigabytes does not delay a start.

use std::io;
use std::path::{Path, PathBuf};

use super::super::batch::SeqRange;
use super::super::checkpoint::CheckpointHeader;
use super::super::damage::{Damage, LostMessages};
use super::super::error::{IoContext, StorageError, is_out_of_means};
use super::super::fs::File;
use super::super::index::{Effect, Index};
use super::super::progress::{Meter, OpenPhase};
use super::super::replay::read_segment;
use super::super::segment::{ExtentOctets, read_footer, segment_path};
use super::super::spill::certain;
use super::{Access, Recovery, moved_path};

impl Recovery<'_> {
    /// Gives each segment the name of the id in it, where files were swapped or renamed.
    pub(super) fn fix_segment_names(&mut self) -> Result<(), StorageError> {
        let dir = &self.paths.segments;
        let mut moved: Vec<(PathBuf, u64)> = Vec::new();
        for name_id in self.ids(dir, ".seg")? {
            let path = segment_path(dir, name_id);
            let footer = self.fs.open(&path).and_then(|file| read_footer(&*file));
            let footer = refuse_shortage(footer, &path)?;
            if let Ok(Some(footer)) = footer
                && footer.id != name_id
            {
                let detail = format!("is segment {} under another's name", footer.id);
                self.damage.push(Damage::new(self.paths.relative(&path), detail));
                moved.push((path, footer.id));
            }
        }
        if self.access == Access::LookOnly || self.options.strict {
            return Ok(());
        }
        for (path, id) in &moved {
            let between = moved_path(&segment_path(dir, *id));
            self.fs.rename(path, &between).during("rename", &between)?;
        }
        self.finish_moves(dir, ".seg")
    }

    /// Compares what the index says with what is there; only ends of files are read.
    ///
    /// # Errors
    /// When a file cannot be opened for want of file handles.
    pub(super) fn check_segments(&mut self, index: &mut Index) -> Result<(), StorageError> {
        let mut alive: Vec<(u64, u64)> = Vec::new();
        for (id, segment) in &mut index.segments {
            if segment.len == 0 {
                let path = segment_path(&self.paths.segments, *id);
                let size = self.fs.open(&path).and_then(|file| file.size());
                // One that cannot be read is judged below.
                segment.len = refuse_shortage(size, &path)?.unwrap_or(0);
            }
            if segment.live_extents > 0 {
                alive.push((*id, segment.len));
            }
        }
        let total = alive.iter().map(|(_, len)| len).sum();
        let mut meter = Meter::new(self.options.progress.as_ref(), OpenPhase::Segments, total);
        for (id, len) in alive {
            meter.add(len);
            let path = segment_path(&self.paths.segments, id);
            let (detail, sound_len) = match self.judge_segment(&path, len)? {
                Verdict::Sound => continue,
                Verdict::Footer => {
                    (self.explain_whole("footer is not sound, extents may be", &path), len)
                }
                Verdict::Short(size) => (format!("{size} octets long instead of {len}"), size),
                Verdict::Useless(detail) => (detail, 0),
            };
            let lost = lost_behind(index, id, sound_len);
            forget(index, &lost);
            if let Some(segment) = index.segments.get_mut(&id) {
                segment.is_damaged = true;
            }
            if sound_len == 0 {
                self.set_aside(&path, detail, lost);
            } else {
                let mut damage = Damage::new(self.paths.relative(&path), detail);
                damage.lost = lost;
                self.damage.push(damage);
            }
        }
        Ok(())
    }

    fn judge_segment(&self, path: &Path, len: u64) -> Result<Verdict, StorageError> {
        let found = self.fs.open(path).and_then(|file| Ok((file.size()?, read_footer(&*file)?)));
        Ok(match refuse_shortage(found, path)? {
            Ok((_, Some(footer))) if footer.node != self.node => {
                Verdict::Useless("belongs to another store".to_owned())
            }
            Ok((size, Some(_))) if size == len => Verdict::Sound,
            Ok((0, _)) => Verdict::Useless("empty".to_owned()),
            Ok((size, _)) if size < len => Verdict::Short(size),
            Ok(_) => Verdict::Footer,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Verdict::Useless("missing".to_owned())
            }
            Err(error) => Verdict::Useless(format!("cannot be read: {error}")),
        })
    }

    /// Without a checkpoint, takes all messages of all segments for live; newest segments first,
    /// because a compacted one holds all that lived in those it replaced.
    pub(super) fn adopt_segments(&mut self, index: &mut Index) -> Result<(), StorageError> {
        for id in self.ids(&self.paths.segments, ".seg")?.into_iter().rev() {
            if index.segments.contains_key(&id) {
                continue;
            }
            let path = segment_path(&self.paths.segments, id);
            let adopted = self.fs.open(&path).and_then(|file| adopt(&*file, id, index));
            let (detail, lost) = match refuse_shortage(adopted, &path)? {
                Ok(lost) => ("no checkpoint; acked messages may return".to_owned(), lost),
                Err(error) => (format!("cannot be read: {error}"), Vec::new()),
            };
            let detail = self.explain_whole(detail, &path);
            let mut damage = Damage::new(self.paths.relative(&path), detail);
            damage.lost = lost;
            self.damage.push(damage);
        }
        Ok(())
    }

    /// Removes what nobody knows; answers the next free id.
    pub(super) fn clear_segments(
        &mut self,
        index: &Index,
        header: &CheckpointHeader,
    ) -> Result<u64, StorageError> {
        let dir = &self.paths.segments;
        let ids = self.ids(dir, ".seg")?;
        let next_id = ids.last().map_or(0, |last| last + 1).max(header.next_segment_id);
        if self.access == Access::LookOnly {
            return Ok(next_id);
        }
        for id in ids {
            if index.segments.contains_key(&id) {
                continue;
            }
            let path = segment_path(dir, id);
            if self.damage.is_empty() {
                self.fs.remove(&path).during("remove", &path)?;
            } else {
                self.set_aside(&path, "no record names this segment", Vec::new());
            }
        }
        for dir in [&self.paths.segments, &self.paths.checkpoints] {
            for name in self.fs.list(dir).during("list", dir)? {
                if name.ends_with(".tmp") {
                    let path = dir.join(name);
                    self.fs.remove(&path).during("remove", &path)?;
                }
            }
        }
        Ok(next_id)
    }
}

/// Passes the answer of a file on, unless it could not be opened for want of file handles: that
/// says nothing about the file.
fn refuse_shortage<T>(answer: io::Result<T>, path: &Path) -> Result<io::Result<T>, StorageError> {
    match answer {
        Err(error) if is_out_of_means(&error) => Err(error).during("open", path),
        answer => Ok(answer),
    }
}

/// What the ends of a segment file tell.
enum Verdict {
    Sound,
    /// The footer is damaged; extents carry their own checksums.
    Footer,
    /// It ends after so many octets.
    Short(u64),
    /// Nothing in it can be used.
    Useless(String),
}

/// The live messages in extents of a segment that begin behind `len`. In one that is cut off there may still be some:
/// they are sought when it is read.
pub(in crate::storage) fn lost_behind(index: &Index, segment: u64, len: u64) -> Vec<LostMessages> {
    let mut lost = Vec::new();
    for (id, queue) in &index.queues {
        let gone = queue.extents.iter();
        let gone = gone.filter(|extent| extent.segment == segment && extent.offset >= len);
        for extent in gone {
            let live = queue.spilled.count(extent.first..=extent.last);
            let range = SeqRange { first: extent.first, last: extent.last };
            lost.push(certain(*id, range, live));
        }
    }
    lost.sort_unstable();
    // One line is to name all of it.
    lost.dedup_by(|next, lost: &mut LostMessages| {
        let joins =
            next.queue == lost.queue && Some(next.range.first) == lost.range.last.checked_add(1);
        if joins {
            lost.range.last = next.range.last;
            lost.count += next.count;
        }
        joins
    });
    lost
}

/// Takes all messages of a segment into the index, but for extents whose numbers are known.
/// Answers those that are not sound; nobody knows which of them had been acked.
fn adopt(file: &dyn File, id: u64, index: &mut Index) -> io::Result<Vec<LostMessages>> {
    let mut segment = read_segment(file, id)?;
    let mut adopted = Vec::new();
    let mut lost = Vec::new();
    for (queue, extent) in std::mem::take(&mut segment.extents) {
        let known = index.queues.entry(queue).or_default();
        let next = known.extents.get(known.extents_from(extent.first));
        if next.is_some_and(|next| next.first <= extent.last) {
            continue;
        }
        let octets = ExtentOctets::read(file, queue, &extent)?;
        for (message, _) in octets.messages_from(extent.first) {
            known.spilled.insert(message.seq);
        }
        known.next_seq = known.next_seq.max(extent.last.saturating_add(1));
        lost.extend(octets.lost.iter().map(|range| {
            let count = range.last - range.first + 1;
            LostMessages { queue, range: *range, count, certain: false }
        }));
        adopted.push((queue, extent));
    }
    segment.extents = adopted;
    index.apply(Effect::Segments { added: vec![segment], dropped: Vec::new() });
    Ok(lost)
}

/// Takes lost messages out of the index.
pub(super) fn forget(index: &mut Index, lost: &[LostMessages]) {
    for lost in lost {
        let ranges = Box::new([lost.range]);
        index.apply(Effect::Ack { queue: lost.queue, ranges, lsn: u64::MAX });
    }
}
