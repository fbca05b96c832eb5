//! The log's files: which is written, which are full, where a position lies.
//!
//! The one idea: a position of the log is a number that never depends on files; a table of frames
//! per file turns it into a place. So a frame that had to be written a second time, into another
//! file, changes the table and nothing else. This module holds the table; writing is
//! [`commit`](super::commit)'s work, making and recycling files is
//! [`maintenance`](super::maintenance)'s.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN, footprint};
use super::fs::File;
use super::options::Options;

/// Where one frame's payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FramePlace {
    pub(super) lsn: u64,
    pub(super) payload_len: u32,
    /// Offset of the frame's header in the file.
    pub(super) offset: u64,
}

impl FramePlace {
    pub(super) fn end(&self) -> u64 {
        self.lsn + u64::from(self.payload_len)
    }
}

/// A file of the log that holds, or may hold, frames.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    pub(super) id: u64,
    pub(super) incarnation: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Ascending by position.
    pub(super) frames: Vec<FramePlace>,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// Position behind the last frame; of an empty file, where the log stood when it was opened.
    pub(super) end: u64,
    pub(super) records: u64,
    /// Both checkpoints must reach this position, and `end`, before the file may go.
    pub(super) needed_below: u64,
    /// A write or flush failed: never written or flushed again, never recycled.
    pub(super) failed: bool,
}

impl LogFile {
    /// The place of position `lsn`.
    fn locate(&self, lsn: u64) -> Option<u64> {
        let after = self.frames.partition_point(|frame| frame.lsn <= lsn);
        let frame = self.frames.get(after.checked_sub(1)?)?;
        (lsn < frame.end()).then(|| frame.offset + FRAME_HEADER_LEN as u64 + (lsn - frame.lsn))
    }
}

/// The path of log file `id`.
pub(super) fn log_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.wal"))
}

/// The path of a recycled file before it gets a name.
pub(super) fn spare_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.spare"))
}

/// Files that are kept ready.
pub(super) const READY_FILES: usize = 2;

/// All files of the log.
#[derive(Debug, Default)]
pub(super) struct LogFiles {
    /// Oldest first.
    pub(super) full: VecDeque<LogFile>,
    pub(super) active: Option<LogFile>,
    /// Named, flushed and empty, oldest first: become active without touching a directory. While
    /// a file has frames its successor is here (but when none could be made), so that a missing
    /// last file is noticed.
    pub(super) ready: VecDeque<LogFile>,
    pub(super) spares: Vec<PathBuf>,
    /// Further files for which the disk had room when it was looked at.
    pub(super) to_come: u64,
    /// Octets of the disk that no new log file takes: the room of a ballast that was given up is for checkpoints and
    /// segments, which free more.
    pub(super) kept_free: u64,
    pub(super) next_id: u64,
}

impl LogFiles {
    /// Where position `lsn` lies: the file and the offset in it.
    pub(super) fn locate(&self, lsn: u64) -> Option<(&LogFile, u64)> {
        let after = self.full.partition_point(|file| file.end <= lsn);
        let in_full = self.full.get(after).and_then(|file| Some((file, file.locate(lsn)?)));
        in_full.or_else(|| {
            let active = self.active.as_ref()?;
            Some((active, active.locate(lsn)?))
        })
    }

    /// The id of the oldest file.
    pub(super) fn oldest_id(&self) -> Option<u64> {
        self.full.iter().chain(&self.active).chain(&self.ready).map(|file| file.id).next()
    }

    /// Begins to place frames: in the active file and those that are ready; and, unless none can be had now, in spares
    /// and those to come.
    pub(super) fn fit(&self, is_full: bool, options: &Options) -> Fit {
        let file_len = options.wal_file_len;
        let active = self.active.as_ref();
        let more = if is_full { 0 } else { self.to_come.saturating_add(self.spares.len() as u64) };
        Fit {
            room: active.map_or(0, |file| file_len.saturating_sub(file.offset)),
            records: active.map_or(0, |file| file.records),
            files: more.saturating_add(self.ready.len() as u64),
            is_over: false,
            file_len,
            records_max: options.file_records_max,
        }
    }

    /// Makes the active file full, so that the next frame begins another.
    pub(super) fn close_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.full.push_back(active);
        }
    }
}

/// Frames placed in thought, in the order and in the way in which they will be written: none is divided between files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fit {
    /// What is left of the file that is being filled.
    room: u64,
    records: u64,
    /// Files behind it.
    files: u64,
    /// A frame was left without a place.
    is_over: bool,
    file_len: u64,
    records_max: u64,
}

impl Fit {
    /// Places a frame of this payload.
    pub(super) fn place(&mut self, payload_len: u64, records: u64) {
        let needed = footprint(payload_len);
        if needed > self.room || self.records >= self.records_max {
            self.is_over |= self.files == 0;
            self.files = self.files.saturating_sub(1);
            (self.room, self.records) = (self.file_len - BLOCK_LEN, 0);
        }
        self.is_over |= needed > self.room;
        self.room = self.room.saturating_sub(needed);
        self.records += records;
    }

    /// Whether every frame has a place and the last file is empty still: that is for what gives room back.
    pub(super) fn leaves_a_file(&self) -> bool {
        !self.is_over && self.files > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(room: u64, files: u64) -> Fit {
        Fit { room, records: 0, files, is_over: false, file_len: 64 << 10, records_max: 10 }
    }

    #[test]
    fn frames_fill_files_in_order_and_the_last_one_stays_empty() {
        let mut placed = fit(2 * BLOCK_LEN, 2);
        placed.place(100, 1);
        placed.place(100, 1);
        assert!(placed.leaves_a_file());
        placed.place(100, 1);
        assert!(placed.leaves_a_file(), "the first of two files is begun");
        placed.place(60_000 - FRAME_HEADER_LEN as u64, 1);
        assert!(!placed.leaves_a_file(), "the last one is begun");
    }

    #[test]
    fn what_is_left_of_a_file_is_lost_for_a_frame_that_does_not_fit() {
        let mut placed = fit(10 * BLOCK_LEN, 1);
        assert!(placed.leaves_a_file());
        placed.place(11 * BLOCK_LEN, 1);
        assert!(!placed.leaves_a_file());
    }

    #[test]
    fn a_file_with_all_its_records_takes_no_more() {
        let mut placed = fit(10 * BLOCK_LEN, 1);
        placed.place(100, 10);
        assert!(placed.leaves_a_file());
        placed.place(100, 1);
        assert!(!placed.leaves_a_file());
    }

    #[test]
    fn no_number_of_files_makes_room_for_a_frame_larger_than_one() {
        let mut placed = fit(0, u64::MAX);
        placed.place(64 << 10, 1);
        assert!(!placed.leaves_a_file());
    }
}
