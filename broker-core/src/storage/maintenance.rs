//! Making, recycling and removing files; checkpoints; the order in which all of it is due.
//!
//! The one idea: nothing is given back before what replaces it is durable twice over. A log file
//! goes when no live message lies in it and *both* kept checkpoints reach its end; a compacted
//! segment when both know its successor. A segment without a live message goes at once: the acks
//! that emptied it are durable.

use std::path::PathBuf;

use super::checkpoint::{self, CheckpointHeader, checkpoint_path};
use super::engine::{Engine, FullReasons};
use super::error::{IoContext, StorageError, is_out_of_means};
use super::frame::{BLOCK_LEN, FileHeader};
use super::fs::{File, read_full, write_full};
use super::log::{LogFile, READY_FILES, log_path, spare_path};
use super::options::Durability;
use super::segment::segment_path;

/// A checkpoint that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptCheckpoint {
    pub(super) id: u64,
    pub(super) lsn: u64,
}

/// What the `maintaining` lock guards.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    /// Oldest first, at most two.
    pub(super) checkpoints: Vec<KeptCheckpoint>,
    pub(super) next_checkpoint_id: u64,
    pub(super) next_segment_id: u64,
    /// Compacted segments, and the position that both checkpoints must reach before they go.
    pub(super) replaced: Vec<(u64, u64)>,
    pub(super) has_ballast: bool,
}

impl Maintenance {
    /// The position from which recovery may have to replay.
    fn replay_from(&self) -> u64 {
        match self.checkpoints.as_slice() {
            [older, _] => older.lsn,
            _ => 0,
        }
    }

    fn newest_lsn(&self) -> u64 {
        self.checkpoints.last().map_or(0, |kept| kept.lsn)
    }
}

impl Engine {
    /// Does whatever is due, in the order in which it gives room; answers whether anything was.
    ///
    /// # Errors
    /// The first failure; what else is due has been tried all the same, because it may end the
    /// cause. Calling again later is right; a full disk is noted in [`health`](Self::health) and is
    /// no error.
    pub fn maintain_step(&self) -> Result<bool, StorageError> {
        let answers = [
            self.prepare_step(),
            self.retire_step(),
            self.reclaim_step(),
            self.in_background(Self::spill_step),
            if self.checkpoint_is_due() { self.checkpoint_step() } else { Ok(false) },
            self.retire_step(),
            self.in_background(Self::compact_step),
        ];
        let mut did = false;
        let mut failed = None;
        for answer in answers {
            match answer {
                Ok(done) => did |= done,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(did), Err)
    }

    /// Runs a step that needs room, noting when there is none.
    fn in_background(
        &self,
        step: impl FnOnce(&Self) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let done = step(self);
        if !matches!(done, Ok(false)) {
            self.look_for_room();
        }
        match done {
            Err(error) if error.is_disk_full() => {
                self.set_full(|full| full.background = true);
                self.give_up_ballast(&mut self.maintaining.lock());
                Ok(false)
            }
            done => done,
        }
    }

    fn set_full(&self, change: impl FnOnce(&mut FullReasons)) {
        let mut state = self.state.lock();
        let before = state.full;
        change(&mut state.full);
        let has_changed =
            (before.log, before.background) != (state.full.log, state.full.background);
        drop(state);
        if has_changed {
            self.wake();
        }
    }

    // Log files.

    /// Makes the next log file ready, then spares, then the ballast. Ends a full disk when there
    /// is room again.
    ///
    /// # Errors
    /// Whatever the file system answers, but for a full disk. Where no file can be opened, messages
    /// are refused from the last log file on, so that acks have the rest of it.
    pub fn prepare_step(&self) -> Result<bool, StorageError> {
        let prepared = self.prepare_files();
        match prepared {
            Ok(did) => {
                let wanted = self.options.wal_file_len.max(self.options.ballast_len);
                let is_roomy = self.look_for_room() > wanted;
                self.set_full(|full| {
                    full.log = false;
                    full.refused = false;
                    full.background &= !is_roomy;
                });
                Ok(did)
            }
            Err(error) if error.is_disk_full() => {
                let ready = self.no_more_files();
                self.set_full(|full| {
                    let was_refused = std::mem::take(&mut full.refused);
                    full.log |= ready < READY_FILES || was_refused;
                });
                Ok(false)
            }
            Err(error) if error.is_shortage() => {
                let is_last = self.no_more_files() == 0;
                self.set_full(|full| {
                    let was_refused = std::mem::take(&mut full.refused);
                    full.log = is_last || was_refused;
                });
                Err(error)
            }
            Err(error) => {
                self.look_for_room();
                let lacks_files = self.state.lock().log.ready.len() < READY_FILES;
                self.set_full(|full| {
                    full.log |= std::mem::take(&mut full.refused) && lacks_files;
                });
                Err(error)
            }
        }
    }

    /// Looks how much room the disk has, and with it how many log files are to come; answers the octets.
    pub(super) fn look_for_room(&self) -> u64 {
        let free = self.fs.available(&self.paths.root).unwrap_or(0);
        self.state.lock().log.to_come = self.options.files_to_come(free);
        free
    }

    /// Counts on the files that there are, until more can be made; answers how many are ready.
    pub(super) fn no_more_files(&self) -> usize {
        let mut state = self.state.lock();
        state.log.to_come = 0;
        state.log.ready.len()
    }

    fn prepare_files(&self) -> Result<bool, StorageError> {
        let mut did = false;
        while self.state.lock().log.ready.len() < READY_FILES {
            self.prepare_next(READY_FILES)?;
            did = true;
        }
        if self.state.lock().log.spares.len() < self.options.spares {
            self.make_spare()?;
            did = true;
        }
        did |= self.make_ballast()?;
        Ok(did)
    }

    /// Gives one more log file its blocks, name and header, unless `wanted` are ready. A spare's blocks
    /// are written already, which makes flushing it several times faster.
    pub(super) fn prepare_next(&self, wanted: usize) -> Result<(), StorageError> {
        let _only = self.preparing.lock();
        let (id, spare) = {
            let mut state = self.state.lock();
            if state.log.ready.len() >= wanted {
                return Ok(());
            }
            (state.log.next_id, state.log.spares.pop())
        };
        // A spare that cannot be opened is no loss, and a file is made instead; but it is kept for when there are
        // handles again.
        let opened = match spare {
            Some(path) => match self.fs.open(&path) {
                Ok(file) => Some((path, file)),
                Err(error) if is_out_of_means(&error) => {
                    self.state.lock().log.spares.push(path.clone());
                    return Err(error).during("open", &path);
                }
                Err(_) => None,
            },
            None => None,
        };
        let is_new = opened.is_none();
        let (from, file) = match opened {
            Some(opened) => opened,
            None => {
                self.keep_ballast_room()?;
                let path = spare_path(&self.paths.wal, self.random_number());
                let file = self.fs.create(&path).during("create", &path)?;
                (path, file)
            }
        };
        let incarnation = self.random_number();
        let path = log_path(&self.paths.wal, id);
        let named = self
            .write_header(&*file, id, incarnation)
            .during("write", &from)
            .and_then(|()| file.sync_data().during("fdatasync", &from))
            .and_then(|()| self.fs.rename(&from, &path).during("rename", &path))
            // The name must survive too: frames in this file count under its new id only.
            .and_then(|()| self.fs.sync_dir(&self.paths.wal).during("fsync", &self.paths.wal));
        if let Err(error) = named {
            // Whatever has become of it, it is not used; the next start clears it away.
            drop(self.fs.remove(&from));
            return Err(error);
        }
        let mut state = self.state.lock();
        state.log.to_come = state.log.to_come.saturating_sub(u64::from(is_new));
        // Ids of files in the log have no gaps, so that a missing file is noticed.
        state.log.next_id = id + 1;
        state.log.ready.push_back(LogFile {
            id,
            incarnation,
            path,
            file,
            frames: Vec::new(),
            offset: BLOCK_LEN,
            end: 0,
            records: 0,
            needed_below: 0,
            failed: false,
        });
        Ok(())
    }

    /// Fails when a new log file would take the room that the ballast was given up for.
    fn keep_ballast_room(&self) -> Result<(), StorageError> {
        let kept_free = self.state.lock().log.kept_free;
        let needed = self.options.wal_file_len + kept_free;
        if kept_free > 0 && self.fs.available(&self.paths.root).is_ok_and(|free| free < needed) {
            return Err(StorageError::DiskFull);
        }
        Ok(())
    }

    /// Writes the header, and gives a file that is short all its blocks: its length is final then.
    fn write_header(&self, file: &dyn File, id: u64, incarnation: u64) -> std::io::Result<()> {
        let (size, wanted) = (file.size()?, self.options.wal_file_len);
        // One that is long enough may have holes: it was copied, or lengthened.
        file.allocate(wanted)?;
        let header = FileHeader::new(self.node, id, incarnation, size.max(wanted));
        write_full(file, 0, &[&header.encode()])
    }

    /// Gives log files that were cut off their length back, and those whose header is not sound
    /// another, once a checkpoint knows what that cost: otherwise every start would report it. Best
    /// effort: it is reported again then.
    pub(super) fn mend_log_files(&self) {
        let files: Vec<_> = {
            let log = &self.state.lock().log;
            let files = log.full.iter().chain(&log.active).chain(&log.ready);
            let parts =
                |file: &LogFile| (std::sync::Arc::clone(&file.file), file.id, file.incarnation);
            files.map(parts).collect()
        };
        for (file, id, incarnation) in files {
            let mut block = vec![0; super::octets::to_usize(BLOCK_LEN)];
            let Ok(size) = read_full(&*file, 0, &mut block).and_then(|_| file.size()) else {
                continue;
            };
            match FileHeader::decode(&block) {
                Some(header) if size < header.file_len => {
                    drop(write_zeros(&*file, header.file_len - BLOCK_LEN, BLOCK_LEN));
                }
                Some(_) => {}
                None => {
                    let header = FileHeader::new(self.node, id, incarnation, size);
                    drop(write_full(&*file, 0, &[&header.encode()]));
                }
            }
        }
    }

    fn random_number(&self) -> u64 {
        use rand::RngExt;
        self.random.lock().random_range(1..u64::MAX)
    }

    /// Fills a file with zeros, so that its blocks exist when it is wanted.
    fn make_spare(&self) -> Result<(), StorageError> {
        self.keep_ballast_room()?;
        let path = spare_path(&self.paths.wal, self.random_number());
        self.fill(&path, self.options.wal_file_len)?;
        self.state.lock().log.spares.push(path);
        Ok(())
    }

    /// Writes `len` zeros; takes the file away again when there is no room for all of it.
    fn fill(&self, path: &std::path::Path, len: u64) -> Result<(), StorageError> {
        let file = self.fs.create(path).during("create", path)?;
        let filled = write_zeros(&*file, 0, len)
            .during("write", path)
            .and_then(|()| file.sync_data().during("fdatasync", path));
        if filled.is_err() {
            drop(self.fs.remove(path));
        } else {
            self.counters.lock().prepared_octets += len;
        }
        filled
    }

    fn make_ballast(&self) -> Result<bool, StorageError> {
        let mut maintenance = self.maintaining.lock();
        let is_full = self.state.lock().full.background;
        if maintenance.has_ballast || self.options.ballast_len == 0 || is_full {
            return Ok(false);
        }
        self.fill(&self.paths.ballast, self.options.ballast_len)?;
        maintenance.has_ballast = true;
        self.state.lock().log.kept_free = 0;
        Ok(true)
    }

    /// Gives room for one log file out of the ballast, where the log cannot go on otherwise; half of the rest is kept.
    pub(super) fn drop_ballast(&self) {
        self.give_up_ballast(&mut self.maintaining.lock());
        let left = self.options.ballast_len.saturating_sub(self.options.wal_file_len);
        self.state.lock().log.kept_free = left / 2;
    }

    /// Gives the ballast's room to what frees more; answers whether there was one. A failure to remove it is as good as
    /// having none.
    fn give_up_ballast(&self, maintenance: &mut Maintenance) -> bool {
        let had_one = std::mem::take(&mut maintenance.has_ballast);
        if had_one {
            self.state.lock().log.kept_free = self.options.ballast_len;
            drop(self.fs.remove(&self.paths.ballast));
        }
        had_one
    }

    /// Recycles, or removes, the oldest log file when nothing needs it.
    ///
    /// # Errors
    /// When the file can be neither renamed nor removed.
    pub fn retire_step(&self) -> Result<bool, StorageError> {
        let replay_from = self.maintaining.lock().replay_from();
        let mut did = false;
        loop {
            let mut state = self.state.lock();
            if state.is_index_ahead() {
                return Ok(did);
            }
            let oldest_live = state.index.oldest_live_lsn().unwrap_or(u64::MAX);
            // The last file with a frame in it stays: it proves where the log ended.
            let mut later = state.log.full.iter().skip(1).chain(&state.log.active);
            let is_last = later.all(|file| file.frames.is_empty());
            let is_free = !is_last
                && state.log.full.front().is_some_and(|file| {
                    file.end.max(file.needed_below) <= replay_from && file.end <= oldest_live
                });
            if !is_free {
                return Ok(did);
            }
            let Some(file) = state.log.full.pop_front() else {
                return Ok(did);
            };
            // What has lost a sector loses more.
            let is_whole = self.bad_pages.given_up(&file.path, 0..u64::MAX).is_none();
            let keep =
                is_whole && !file.failed && state.log.spares.len() < self.options.spares_max();
            drop(state);
            did = true;
            if keep {
                // Not made durable: an old file that comes back under its old name does no harm.
                let spare = spare_path(&self.paths.wal, file.id);
                self.fs.rename(&file.path, &spare).during("rename", &spare)?;
                self.state.lock().log.spares.push(spare);
            } else {
                self.fs.remove(&file.path).during("remove", &file.path)?;
            }
        }
    }

    // Checkpoints.

    /// Whether enough has happened since the last checkpoint, or a file waits for one.
    fn checkpoint_is_due(&self) -> bool {
        let maintenance = self.maintaining.lock();
        let (newest, replay_from) = (maintenance.newest_lsn(), maintenance.replay_from());
        let state = self.state.lock();
        let since = state.durable.saturating_sub(newest);
        let oldest_live = state.index.oldest_live_lsn().unwrap_or(u64::MAX);
        // On a full disk none waits for company.
        let full_files = if state.full.any() { 1 } else { self.options.full_files };
        let file_waits = state.log.full.len() >= full_files
            && state.log.full.front().is_some_and(|file| {
                let needed = file.end.max(file.needed_below);
                file.end <= oldest_live && needed > replay_from && needed <= state.durable
            });
        let segment_waits = maintenance
            .replaced
            .first()
            .is_some_and(|(_, needed)| *needed > replay_from && *needed <= state.durable);
        file_waits || segment_waits || since >= self.options.wal_file_len * 2
    }

    /// Writes a checkpoint and forgets all but the newest two; answers whether it did.
    ///
    /// # Errors
    /// Whatever the file system answers; a full disk only after the ballast was given up. The
    /// checkpoints before stay as they are.
    pub fn checkpoint_step(&self) -> Result<bool, StorageError> {
        let mut maintenance = self.maintaining.lock();
        if self.state.lock().is_index_ahead() {
            return Ok(false);
        }
        let id = maintenance.next_checkpoint_id;
        let (header, octets) = self.encode_checkpoint(id, maintenance.next_segment_id);
        self.harden_log()?;
        maintenance.next_checkpoint_id += 1;
        let dir = &self.paths.checkpoints;
        let mut written = checkpoint::write(&*self.fs, dir, id, &octets);
        let is_full = written.as_ref().is_err_and(StorageError::is_disk_full);
        if is_full && self.give_up_ballast(&mut maintenance) {
            written = checkpoint::write(&*self.fs, dir, id, &octets);
        }
        match written {
            Ok(()) => {}
            Err(error) if error.is_disk_full() => {
                drop(maintenance);
                self.set_full(|full| full.background = true);
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        maintenance.checkpoints.push(KeptCheckpoint { id, lsn: header.lsn });
        while maintenance.checkpoints.len() > 2 {
            let old = checkpoint_path(dir, maintenance.checkpoints.remove(0).id);
            self.fs.remove(&old).during("remove", &old)?;
        }
        drop(maintenance);
        self.counters.lock().checkpoints += 1;
        Ok(true)
    }

    fn encode_checkpoint(&self, id: u64, next_segment_id: u64) -> (CheckpointHeader, Vec<u8>) {
        let mut state = self.state.lock();
        for queue in state.index.queues.values_mut() {
            queue.spilled.compress();
        }
        let header = CheckpointHeader {
            node: self.node,
            id,
            lsn: state.durable,
            next_file_id: state.log.next_id,
            next_segment_id,
            oldest_file_id: state.log.oldest_id().unwrap_or(state.log.next_id),
        };
        let octets = checkpoint::encode(&header, &state.index);
        (header, octets)
    }

    /// With `durability = os` the log is flushed here, and only here: before something is given
    /// back because of what the log says.
    fn harden_log(&self) -> Result<(), StorageError> {
        if self.options.durability == Durability::Fsync {
            return Ok(());
        }
        let files: Vec<(PathBuf, _)> = {
            let state = self.state.lock();
            let sound = state.log.full.iter().filter(|file| !file.failed);
            sound
                .chain(&state.log.active)
                .map(|file| (file.path.clone(), std::sync::Arc::clone(&file.file)))
                .collect()
        };
        for (path, file) in files {
            file.sync_data().during("fdatasync", &path)?;
        }
        Ok(())
    }

    // Segments.

    /// Removes segments in which nothing lives, and those that a compaction has replaced.
    ///
    /// # Errors
    /// Whatever the file system answers to the removal.
    pub fn reclaim_step(&self) -> Result<bool, StorageError> {
        let mut maintenance = self.maintaining.lock();
        if self.state.lock().is_index_ahead() {
            return Ok(false);
        }
        let replay_from = maintenance.replay_from();
        let mut dead: Vec<u64> = {
            let mut state = self.state.lock();
            let segments = &mut state.index.segments;
            let dead = segments.iter().filter(|(_, segment)| segment.live_extents == 0);
            let dead: Vec<u64> = dead.map(|(id, _)| *id).collect();
            if !dead.is_empty() {
                segments.retain(|_, segment| segment.live_extents > 0);
            }
            dead
        };
        if !dead.is_empty() {
            self.harden_log()?;
        }
        maintenance.replaced.retain(|(id, needed)| {
            let is_free = *needed <= replay_from;
            if is_free {
                dead.push(*id);
            }
            !is_free
        });
        for id in &dead {
            self.cache.lock().forget_segment(*id);
            let path = segment_path(&self.paths.segments, *id);
            match self.fs.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).during("remove", &path);
                }
                _ => {}
            }
        }
        Ok(!dead.is_empty())
    }
}

fn write_zeros(file: &dyn File, mut offset: u64, len: u64) -> std::io::Result<()> {
    let zeros = vec![0; super::octets::to_usize(len.min(1 << 20))];
    let end = offset + len;
    while offset < end {
        let part = super::octets::to_usize((end - offset).min(zeros.len() as u64));
        write_full(file, offset, &[zeros.get(..part).unwrap_or_default()])?;
        offset += part as u64;
    }
    Ok(())
}
