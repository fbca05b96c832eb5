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

use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN};
use super::fs::File;

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

    /// Octets that frames may still take without another file being made.
    pub(super) fn room(&self, file_len: u64) -> u64 {
        let active = self.active.as_ref().map_or(0, |file| file_len.saturating_sub(file.offset));
        active + self.ready.len() as u64 * (file_len - BLOCK_LEN)
    }

    /// The id of the oldest file.
    pub(super) fn oldest_id(&self) -> Option<u64> {
        self.full.iter().chain(&self.active).chain(&self.ready).map(|file| file.id).next()
    }

    /// Makes the active file full, so that the next frame begins another.
    pub(super) fn close_active(&mut self) {
        if let Some(active) = self.active.take() {
            self.full.push_back(active);
        }
    }
}
