//! Recovery's judgement on the files of the log: whose they are, what they are called, which of
//! them are full, ready, or spare.
//!
//! The one idea: a log file is what its header says, whatever its name; ids have no gaps, and the
//! last file with frames has a successor, so a file that is missing is missed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::FORMAT_VERSION;
use super::super::checkpoint::CheckpointHeader;
use super::super::damage::{Damage, LostMessages};
use super::super::error::{IoContext, StorageError, is_out_of_means};
use super::super::frame::BLOCK_LEN;
use super::super::index::Index;
use super::super::log::{FramePlace, LogFile, LogFiles, READY_FILES, log_path, spare_path};
use super::super::progress::{Meter, OpenPhase};
use super::super::scan::{Chain, ScannedFile, scan_file};
use super::super::seq_set::SeqSet;
use super::super::spill::certain;
use super::segments::forget;
use super::{Access, Recovery, moved_path};

impl Recovery<'_> {
    /// Sets log files of another store aside.
    pub(super) fn part_from_strangers(&mut self, files: &mut Vec<ScannedFile>) {
        let node = self.node;
        let is_stranger =
            |file: &mut ScannedFile| file.header.is_some_and(|header| header.node != node);
        for file in files.extract_if(.., is_stranger) {
            self.set_aside(&file.path, "belongs to another store", Vec::new());
        }
    }

    /// The file that is prepared next has no frame yet, so it proves nothing; but the one before
    /// it must be there.
    pub(super) fn check_last_file(&mut self, files: &[ScannedFile], header: &CheckpointHeader) {
        let empty = files.iter().rev().take_while(|file| file.frames.is_empty()).last();
        let before = empty.and_then(|file| file.id.checked_sub(1));
        let Some(before) = before.filter(|id| *id >= header.oldest_file_id) else {
            return;
        };
        if !files.iter().any(|file| file.id == before) {
            let path = log_path(&self.paths.wal, before);
            let detail = "missing; it held the end of the log";
            self.damage.push(Damage::new(self.paths.relative(&path), detail));
        }
    }

    pub(super) fn scan_log(&mut self) -> Result<Vec<ScannedFile>, StorageError> {
        let dir = &self.paths.wal;
        if self.access == Access::Use {
            self.finish_moves(dir, ".wal")?;
        }
        let mut files: Vec<ScannedFile> = Vec::new();
        let mut useless: Vec<(PathBuf, String)> = Vec::new();
        let mut found = Vec::new();
        let mut total = 0;
        for name_id in self.ids(dir, ".wal")? {
            let path = log_path(dir, name_id);
            let opened = self.fs.open(&path).and_then(|file| Ok((file.size()?, file)));
            total += opened.as_ref().map_or(0, |(size, _)| *size);
            found.push((name_id, path, opened));
        }
        let mut meter = Meter::new(self.options.progress.as_ref(), OpenPhase::Scan, total);
        for (name_id, path, opened) in found {
            let scanned =
                opened.and_then(|(_, file)| scan_file(file, path.clone(), name_id, &mut meter));
            let file = match scanned {
                Ok(file) => file,
                Err(error) if is_out_of_means(&error) => return Err(error).during("open", &path),
                Err(error) => {
                    useless.push((path, format!("cannot be read: {error}")));
                    continue;
                }
            };
            if let Some(header) = file.header
                && header.version > FORMAT_VERSION
            {
                return Err(StorageError::NewerFormat {
                    path,
                    found: header.version,
                    supported: FORMAT_VERSION,
                });
            }
            if file.header.is_none() && file.frames.is_empty() {
                // A file gets its name after its header was flushed.
                let detail = self.explain_whole("neither header nor frames are sound", &path);
                useless.push((path, detail));
                continue;
            }
            if file.header.is_none() {
                let detail = "file header is not sound, frames are".to_owned();
                let detail = self.bad_pages.explain(detail, &path, 0..BLOCK_LEN);
                self.damage.push(Damage::new(self.paths.relative(&path), detail));
            }
            let size = file.file.size().during("stat", &path)?;
            if let Some(header) = file.header
                && size < header.file_len
            {
                let relative = self.paths.relative(&path);
                let len = header.file_len;
                let detail = format!("{size} octets long instead of {len}; what followed is lost");
                self.damage.push(Damage::new(relative, detail));
            }
            files.push(file);
        }
        if files.is_empty() && !useless.is_empty() && !self.options.accept_data_loss {
            // Without any log the start is refused, and then nothing may have been moved.
            return Err(StorageError::LogMissing { path: self.paths.root.clone() });
        }
        for (path, detail) in useless {
            self.set_aside(&path, detail, Vec::new());
        }
        self.fix_log_names(&mut files)?;
        Ok(files)
    }

    /// Gives each log file the name of the id in it, where files were swapped or renamed. A file
    /// without frames is a spare whose new name did not survive.
    pub(super) fn fix_log_names(
        &mut self,
        files: &mut Vec<ScannedFile>,
    ) -> Result<(), StorageError> {
        if files.iter().all(|file| file.id == file.name_id) {
            return Ok(());
        }
        let dir = &self.paths.wal;
        let is_used = self.access == Access::Use && !self.options.strict;
        let unnamed = files.extract_if(.., |file| file.id != file.name_id);
        let (swapped, empty): (Vec<_>, Vec<_>) = unnamed.partition(|file| !file.frames.is_empty());
        for file in empty.iter().filter(|_| is_used) {
            let spare = spare_path(dir, file.incarnation);
            self.fs.rename(&file.path, &spare).during("rename", &spare)?;
        }
        for mut file in swapped {
            if files.iter().any(|other| other.id == file.id) {
                self.set_aside(&file.path, format!("is a second log file {}", file.id), Vec::new());
                continue;
            }
            let relative = self.paths.relative(&file.path);
            let detail = format!("is log file {} under another's name", file.id);
            self.damage.push(Damage::new(relative, detail));
            if is_used {
                let between = moved_path(&log_path(dir, file.id));
                self.fs.rename(&file.path, &between).during("rename", &between)?;
                file.path = log_path(dir, file.id);
            }
            files.push(file);
        }
        if is_used {
            self.finish_moves(dir, ".wal")?;
        }
        Ok(())
    }

    /// Gives files their names that an earlier step, or an earlier start, has moved half-way:
    /// through a name that says where they belong, so that two can change places, and a crash in
    /// between leaves nothing unclear.
    pub(super) fn finish_moves(&self, dir: &Path, suffix: &str) -> Result<(), StorageError> {
        let mut has_moved = false;
        for id in self.ids(dir, &format!("{suffix}.moved"))? {
            let path = dir.join(format!("{id:016x}{suffix}"));
            self.fs.rename(&moved_path(&path), &path).during("rename", &path)?;
            has_moved = true;
        }
        if has_moved {
            // The names must survive too.
            self.fs.sync_dir(dir).during("fsync", dir)?;
        }
        Ok(())
    }

    /// Reports pages behind the last frame that cannot be read: they may have been a frame, and no
    /// other tells of it.
    pub(super) fn check_end(&mut self, files: &[ScannedFile], chain: &Chain) {
        let last = chain.frames.last();
        for (index, file) in files.iter().enumerate().skip(last.map_or(0, |last| last.file)) {
            let end = match last {
                Some(last) if last.file == index => last.offset + last.header.footprint(),
                _ => BLOCK_LEN,
            };
            // An empty file is judged as a whole.
            if !file.frames.is_empty()
                && let Some(why) = self.bad_pages.given_up(&file.path, end..u64::MAX)
            {
                let detail = format!("what followed the last frame may be lost: {why}");
                self.damage.push(Damage::new(self.paths.relative(&file.path), detail));
            }
        }
    }

    /// Sorts the log's files into full ones, the next one, and spares.
    pub(super) fn arrange_log(
        &mut self,
        files: Vec<ScannedFile>,
        frames: &BTreeMap<usize, Vec<FramePlace>>,
        end: u64,
        header: &CheckpointHeader,
    ) -> Result<LogFiles, StorageError> {
        let dir = &self.paths.wal;
        let spares = self.ids(dir, ".spare")?;
        let used = files.iter().filter(|file| !file.frames.is_empty());
        let last_used = used.map(|file| file.id).max();
        let mut log = LogFiles::default();
        let mut full: Vec<LogFile> = Vec::new();
        let mut reached = 0;
        for (index, file) in files.into_iter().enumerate() {
            let places = frames.get(&index).cloned().unwrap_or_default();
            let is_ours = file
                .header
                .is_some_and(|found| found.node == self.node && found.file_id == file.name_id);
            let is_empty = file.frames.is_empty();
            let bad_pages = self.bad_pages.given_up(&file.path, 0..u64::MAX);
            if let Some(why) = bad_pages.filter(|_| is_empty) {
                // It may have held the end of the log; and nothing is written into it.
                self.set_aside(&file.path, format!("no frame is sound: {why}"), Vec::new());
                continue;
            }
            reached = places.last().map_or(reached, FramePlace::end);
            let log_file = LogFile {
                id: file.id,
                incarnation: file.incarnation,
                path: file.path,
                file: file.file,
                frames: places,
                offset: BLOCK_LEN,
                end: reached,
                records: 0,
                needed_below: 0,
                failed: false,
            };
            if is_empty && is_ours && last_used.is_none_or(|last| last < file.id) {
                if log.ready.len() < READY_FILES {
                    log.ready.push_back(log_file);
                } else if self.access == Access::Use {
                    self.put_by(&log_file.path, file.name_id, &mut log)?;
                }
            } else if is_ours || !log_file.frames.is_empty() {
                // One whose frames were never promised stays in the row until its turn to go.
                full.push(log_file);
            } else if self.access == Access::Use {
                self.put_by(&log_file.path, file.name_id, &mut log)?;
            }
        }
        // Ids go on where those of the files left in the row end.
        let last = log.ready.back().into_iter().chain(full.last()).map(|file| file.id).max();
        log.next_id = last.map_or(header.next_file_id, |last| last + 1);
        debug_assert!(full.iter().all(|file| file.end <= end), "nothing lies behind the end");
        log.full = full.into();
        if self.access == Access::Use {
            for id in spares {
                let path = spare_path(dir, id);
                if log.spares.len() < self.options.spares_max() {
                    log.spares.push(path);
                } else {
                    self.fs.remove(&path).during("remove", &path)?;
                }
            }
        }
        Ok(log)
    }

    /// A log file in which nothing is: a spare, unless damage was found, which it may belong to.
    pub(super) fn put_by(
        &mut self,
        path: &Path,
        id: u64,
        log: &mut LogFiles,
    ) -> Result<(), StorageError> {
        if self.damage.is_empty() {
            let spare = spare_path(&self.paths.wal, id);
            self.fs.rename(path, &spare).during("rename", &spare)?;
            log.spares.push(spare);
        } else {
            self.set_aside(path, "holds nothing of the log", Vec::new());
        }
        Ok(())
    }

    /// Gives up messages whose record lies in no file any more.
    pub(super) fn check_entries(&mut self, index: &mut Index, log: &LogFiles) {
        // By the file that may have held them.
        let mut lost = BTreeMap::<PathBuf, Vec<LostMessages>>::new();
        for (id, queue) in &index.queues {
            let mut missing = BTreeMap::<&Path, SeqSet>::new();
            for entry in queue.log.iter().filter(|entry| entry.is_live()) {
                if log.locate(entry.lsn).is_none() {
                    missing
                        .entry(self.place_of_lost(log, entry.lsn))
                        .or_default()
                        .insert(entry.seq);
                }
            }
            let in_extents: u64 = queue.extents.iter().map(|extent| u64::from(extent.live)).sum();
            if in_extents != queue.spilled.len() {
                let mut outside = queue.spilled.clone();
                for extent in &queue.extents {
                    outside.remove_range(extent.first..=extent.last);
                }
                let nowhere = missing.entry(&self.paths.wal).or_default();
                outside.iter().for_each(|seq| {
                    nowhere.insert(seq);
                });
            }
            for (path, seqs) in missing {
                let lost = lost.entry(path.to_owned()).or_default();
                let ranges = seqs.ranges().into_iter();
                lost.extend(ranges.map(|range| certain(*id, range, range.last - range.first + 1)));
            }
        }
        for (path, mut lost) in lost {
            lost.sort_unstable();
            forget(index, &lost);
            let detail = match self.bad_pages.given_up(&path, 0..u64::MAX) {
                Some(why) => format!("messages lie in a frame that is not found: {why}"),
                None => "messages lie in files that are gone".to_owned(),
            };
            let mut damage = Damage::new(self.paths.relative(&path), detail);
            damage.lost = lost;
            self.damage.push(damage);
        }
    }

    /// Where position `lsn` was, which no frame covers: a file around it of which not all can be
    /// read, or else nobody knows.
    fn place_of_lost<'a>(&'a self, log: &'a LogFiles, lsn: u64) -> &'a Path {
        let after = log.full.partition_point(|file| file.end <= lsn);
        let around = [Some(after), after.checked_sub(1)].into_iter().flatten();
        let files = around.filter_map(|index| log.full.get(index));
        let bad = |file: &&LogFile| self.bad_pages.given_up(&file.path, 0..u64::MAX).is_some();
        files.filter(bad).map(|file| file.path.as_path()).next().unwrap_or(&self.paths.wal)
    }
}
