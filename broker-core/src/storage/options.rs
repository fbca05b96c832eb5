//! The store's settings, their bounds and defaults.

use std::time::Duration;

use super::error::StorageError;
use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN};
use super::progress::OnProgress;

/// When something counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After fdatasync: survives a power cut.
    #[default]
    Fsync,
    /// After write: survives the end of the process, not of the machine.
    Os,
}

/// Settings of a store. Lengths are octets.
#[derive(Clone, Debug)]
pub struct Options {
    /// When something counts as durable.
    pub durability: Durability,
    /// Refuse to open a damaged store, naming the first damaged file, instead of setting the
    /// damage aside. Messages are not read while opening, but for those behind the newest checkpoint.
    pub strict: bool,
    /// Begin anew where a store has lost its log and every checkpoint.
    pub accept_data_loss: bool,
    /// One log file.
    pub wal_file_len: u64,
    /// A frame takes further batches up to this payload; one larger batch is a frame of its own.
    pub frame_len_max: u64,
    /// Records after which a log file counts as full, which bounds the index of tiny messages.
    pub file_records_max: u64,
    /// Full log files that are kept before the oldest is spilled.
    pub full_files: usize,
    /// Full log files from which on publishers should be slowed ([`is_pressed`](super::Engine::is_pressed)).
    pub full_files_max: usize,
    /// Empty log files kept ready, besides the next one.
    pub spares: usize,
    /// Octets appended and not yet written from which on publishers should be slowed.
    pub pending_len_max: u64,
    /// One extent of a segment, which is the unit of reading ahead.
    pub extent_len: usize,
    /// A queue with this much in one log file gets a segment of its own when it is spilled.
    pub own_segment_len: u64,
    /// Input of one compaction.
    pub compaction_len: u64,
    /// Segments smaller than this are merged when there are more than eight of them.
    pub small_segment_len: u64,
    /// Extents kept in memory for reading.
    pub cache_len: usize,
    /// Segment files held open to be read from, at least 1.
    pub open_segments: usize,
    /// A file that is given up when a checkpoint, spill or compaction finds the disk full, or a start finds no room for
    /// a log file; the latter helps only if there is `wal_file_len` of it.
    pub ballast_len: u64,
    /// The longest time that acks wait for company.
    pub ack_delay: Duration,
    /// Where random numbers come from: the operating system, or a seed that makes runs repeatable.
    pub seed: Option<u64>,
    /// Octets a second at which segments are read again in the background, so that rot is found
    /// while somebody may still have a copy; 0 turns it off.
    pub scrub_rate: u64,
    /// The least time from the beginning of one reading of all segments to the next.
    pub scrub_interval: Duration,
    /// Who is told how far opening is.
    pub progress: Option<OnProgress>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            strict: false,
            accept_data_loss: false,
            wal_file_len: 64 << 20,
            frame_len_max: 4 << 20,
            file_records_max: 500_000,
            full_files: 4,
            full_files_max: 8,
            spares: 2,
            pending_len_max: 32 << 20,
            extent_len: 256 << 10,
            own_segment_len: 4 << 20,
            compaction_len: 256 << 20,
            small_segment_len: 8 << 20,
            cache_len: 64 << 20,
            open_segments: 256,
            ballast_len: 16 << 20,
            ack_delay: Duration::from_millis(20),
            seed: None,
            scrub_rate: 8 << 20,
            scrub_interval: Duration::from_secs(24 * 60 * 60),
            progress: None,
        }
    }
}

impl Options {
    /// The largest record that the log takes: one file's worth.
    #[must_use]
    pub fn record_len_max(&self) -> u64 {
        self.wal_file_len - BLOCK_LEN - FRAME_HEADER_LEN as u64
    }

    /// Spares that are kept; two more than are made, because files are given back in bursts, and
    /// using a file again costs nothing, where a new one is written twice.
    pub(super) fn spares_max(&self) -> usize {
        self.spares + 2
    }

    /// Log files that can be counted on with so much room on the disk: half of what segments, being made at the same
    /// time, leave.
    pub(super) fn files_to_come(&self, free: u64) -> u64 {
        let for_segments = self.compaction_len.saturating_add(self.wal_file_len);
        free.saturating_sub(for_segments) / 2 / self.wal_file_len
    }

    pub(super) fn check(&self) -> Result<(), StorageError> {
        let rules = [
            (self.wal_file_len >= 4 * BLOCK_LEN, "wal_file_len must be at least 16 KiB"),
            (self.wal_file_len <= 1 << 30, "wal_file_len must be at most 1 GiB"),
            (
                self.wal_file_len.is_multiple_of(BLOCK_LEN),
                "wal_file_len must be a multiple of 4 KiB",
            ),
            (self.frame_len_max > 0, "frame_len_max must not be 0"),
            (
                self.frame_len_max <= self.wal_file_len / 2,
                "frame_len_max must be at most half of wal_file_len",
            ),
            (self.file_records_max > 0, "file_records_max must not be 0"),
            (self.open_segments > 0, "open_segments must not be 0"),
            (self.full_files < self.full_files_max, "full_files must be below full_files_max"),
            (
                (1..=64 << 20).contains(&self.extent_len),
                "extent_len must be from 1 octet to 64 MiB",
            ),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(StorageError::InvalidOptions(rule)),
            None => Ok(()),
        }
    }
}
