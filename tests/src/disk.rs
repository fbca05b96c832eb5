//! Disks that fail: one that is small, one that answers errors, one whose files are damaged.
//!
//! The one idea: the broker is the real binary and does not know that it is tested. A [`SmallDisk`] is a file
//! system of its own that can be filled to the last block; [`Faults`] come from strace, between the broker and the
//! kernel; damage is done to copies of a directory while nobody runs on it. What clients were promised meanwhile
//! is kept by a [`Publisher`], and [`drained`] says what is there afterwards.
//!
//! What the machine has to have, and how a test says so when it has not, is written down where it is needed: nothing
//! here is skipped in silence.

mod cases;
mod promises;
mod small;
mod strace;

pub use cases::for_each_case;
pub use promises::{
    Publisher, Settled, declare_durable, drained, settle_in_transaction, try_declare_durable,
    try_settle,
};
pub use small::SmallDisk;
pub use strace::{Fault, Faults, When};

use std::fs;
use std::path::{Path, PathBuf};

/// Whether the long form of the tests is wanted: `WARREN_LONG` is set, and not to `0`.
#[must_use]
pub fn is_long_run() -> bool {
    std::env::var_os("WARREN_LONG").is_some_and(|value| value != "0")
}

/// The files below a directory, sorted, as paths relative to it.
#[must_use]
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(part) = left.pop() {
        for entry in made(fs::read_dir(directory.join(&part)), directory) {
            let entry = made(entry, directory);
            let path = part.join(entry.file_name());
            if made(entry.file_type(), directory).is_dir() {
                left.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    found
}

/// Octets that the files below a directory take on disk, zeros that were never written not counted.
#[must_use]
pub fn octets_below(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    // A file may be given back while this looks.
    let blocks = files_below(directory)
        .into_iter()
        .filter_map(|path| Some(fs::metadata(directory.join(path)).ok()?.blocks()));
    // stat(2) counts blocks of 512 octets whatever the file system has.
    blocks.sum::<u64>() * 512
}

/// Copies the files below a directory. Sockets are left out: they belong to the broker that made them.
pub fn copy_directory(from: &Path, to: &Path) {
    for path in files_below(from) {
        let (from, to) = (from.join(&path), to.join(&path));
        if !made(fs::symlink_metadata(&from), &from).is_file() {
            continue;
        }
        if let Some(parent) = to.parent() {
            made(fs::create_dir_all(parent), parent);
        }
        made(fs::copy(&from, &to), &to);
    }
}

fn made<T>(result: std::io::Result<T>, what: &Path) -> T {
    match result {
        Ok(made) => made,
        Err(error) => panic!("{}: {error}", what.display()),
    }
}
