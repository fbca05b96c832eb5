//! A file system through which nothing can be changed: the eyes of the tools that only look.
//!
//! The one idea: whoever looks at a store is given this in place of the disk, so that no code
//! below has to remember that it may not write, and no permission to write is asked for. Files are
//! opened for reading, the lock is shared with others who look, and every call that would change
//! something fails.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fs::{File, FileSystem, Lock};

/// What is there, to be looked at.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) Arc<dyn FileSystem>);

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl FileSystem for ReadOnly {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_to_read(path)
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.0.open_to_read(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.lock_shared(path)
    }

    /// A store without a lock file is a copy on which no broker has run, and is not given one.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        match self.0.lock_shared(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Some(Box::new(Nobodys))),
            held => held,
        }
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        self.0.available(path)
    }
}

/// The lock of a store that has none.
#[derive(Debug)]
struct Nobodys;

impl Lock for Nobodys {}
