//! What the store answers when it cannot do what was asked: operation, path and cause.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::bad_pages::is_in_doubt;

/// An error of the store. None of them means that confirmed messages are gone: damage to what was
/// kept is reported as [`Damage`](super::Damage), and the store starts all the same.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "write", "fdatasync", "rename".
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Another broker, or a tool, holds the directory.
    #[error(
        "{} is locked: another broker runs on this data directory, or a tool is at work on it",
        path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The directory was written by a newer version.
    #[error("{} has format version {found}, this program reads up to {supported}", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        supported: u32,
    },
    /// There is no store to look at. Opening one for use makes it instead.
    #[error("{} holds no store", path.display())]
    NoStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belonged to a store and has lost its log and every checkpoint.
    #[error(
        "{} is a data directory without log and checkpoint: most of what was in it is lost; \
         to begin anew, the loss has to be accepted",
        path.display()
    )]
    LogMissing {
        /// The data directory.
        path: PathBuf,
    },
    /// `strict` was asked for and the named file is damaged.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A write or flush failed and could not be made good elsewhere: nothing more is accepted.
    #[error("the log cannot be written any more: {reason}")]
    Poisoned {
        /// The failure that did it.
        reason: Arc<str>,
    },
    /// There is no space for more messages. Acks and deletions are still accepted.
    #[error("no space left for more messages")]
    DiskFull,
    /// One record is larger than a log file can hold.
    #[error("a record of {len} octets is larger than the {max} that the log takes")]
    TooLarge {
        /// Octets of the record.
        len: u64,
        /// The bound, set by `wal_file_len`.
        max: u64,
    },
    /// A message's number is not above all earlier ones of its queue.
    #[error("queue {queue}: sequence number {seq} appended after {last}")]
    OutOfOrder {
        /// The queue.
        queue: u64,
        /// The number refused.
        seq: u64,
        /// The highest number so far.
        last: u64,
    },
    /// The octets of a message fail their checksum. The damage report names it.
    #[error("queue {queue}: message {seq} is damaged on disk")]
    DamagedMessage {
        /// The queue.
        queue: u64,
        /// The message.
        seq: u64,
    },
    /// The options contradict each other.
    #[error("invalid store options: {0}")]
    InvalidOptions(&'static str),
}

impl StorageError {
    /// What clients are told when the log cannot be written any more.
    pub const LOST: &str = "the log cannot be written any more";

    /// The error as clients may see it: without the names of files.
    #[must_use]
    pub const fn for_peers(&self) -> &'static str {
        match self {
            Self::DiskFull => "no space left for more messages",
            Self::Poisoned { .. } => Self::LOST,
            Self::TooLarge { .. } => "larger than the log takes",
            _ => "the log does not take it",
        }
    }

    /// Whether the cause is a full disk (or an exhausted quota), or that there is no file handle or
    /// memory just now: what was tried is to be tried again, and nothing is wrong with any file.
    pub(super) fn is_shortage(&self) -> bool {
        self.is_disk_full() || matches!(self, Self::Io { source, .. } if is_out_of_means(source))
    }

    /// Whether a page that could not be read is tried again, and given up if it does not come back:
    /// see [`bad_pages`](super::bad_pages).
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_in_doubt(source))
    }

    /// Whether the cause is a full disk (or an exhausted quota).
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_full(source),
            Self::DiskFull => true,
            _ => false,
        }
    }
}

/// Whether the operating system says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the process, or the machine, has as many files open as it may, or no memory: that says
/// nothing about any file.
pub(super) fn is_out_of_means(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory
        || matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Adds operation and path to an I/O error.
pub(super) trait IoContext<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, StorageError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn during(self, operation: &'static str, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { operation, path: path.to_owned(), source })
    }
}
