//! The only door to the disk: [`FileSystem`] and [`File`], and [`StdFs`] behind them.
//!
//! The one idea: whatever the store does to the medium passes through these two traits, so that
//! the simulator sees, orders and breaks every call. They promise no more than POSIX does: a write
//! may be short, data survive a power cut only after [`File::sync_data`], a name only after
//! [`FileSystem::sync_dir`]. Nothing here retries, caches or interprets.

use std::fmt::Debug;
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// Directories and names.
pub trait FileSystem: Send + Sync + Debug + 'static {
    /// Makes a directory with mode 0700; succeeds when it is there already.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes an empty file for reading and writing, mode 0600; an old one is truncated.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Whatever the operating system answers, `NotFound` when it does not exist.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens a file for reading, which needs no permission to write; writing to it fails.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `IsADirectory` for a directory.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Gives a file another name, replacing what has it.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted. Names that are not UTF-8 are not ours and left out.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a directory survive a power cut.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a file (made when missing), held until the answer is dropped.
    /// `None` when another holds it.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Takes a share of the lock of a file, which needs no permission to write, held until the
    /// answer is dropped. `None` when somebody has the lock for himself.
    ///
    /// # Errors
    /// Whatever the operating system answers, `NotFound` when the file does not exist.
    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Octets an unprivileged process may still allocate in the file system of `path`.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn available(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. All methods take the offset: nobody shares a cursor.
pub trait File: Send + Sync + Debug {
    /// Octets in the file.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn size(&self) -> io::Result<u64>;

    /// Reads into `buf` from `offset`; may be short, 0 at the end.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes the parts in a row at `offset`; may be short.
    ///
    /// # Errors
    /// Whatever the operating system answers.
    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Makes the file at least `len` octets long, with blocks for all of them: no write into it finds the disk full.
    /// What is in it stays, and what is added reads as zeros. A file system that cannot promise room only makes it
    /// longer.
    ///
    /// # Errors
    /// Whatever the operating system answers; some of the blocks may have been taken then.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Makes the data, and the length, survive a power cut (fdatasync).
    ///
    /// # Errors
    /// Whatever the operating system answers. After an error nothing is known about what was
    /// written since the last success, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;
}

/// A held lock; dropping it lets go.
pub trait Lock: Send + Sync + Debug {}

/// A larger buffer is not kept for what needs less. Octets.
const KEPT_LEN_MAX: usize = 4 << 20;

/// Makes `octets` a row of `len` zeros, to be read into. What does not fit is given back first, so
/// that no two large buffers are held; a fresh one takes memory only as it is filled.
pub(super) fn make_room(octets: &mut Vec<u8>, len: usize) {
    octets.clear();
    if (len..=len.max(KEPT_LEN_MAX)).contains(&octets.capacity()) {
        octets.resize(len, 0);
    } else {
        *octets = Vec::new();
        *octets = vec![0; len];
    }
}

/// Fills `buf` from `offset`, or as much as the file has. Answers the octets read.
pub(super) fn read_full(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..)
        && !rest.is_empty()
    {
        match file.read_at(offset + done as u64, rest) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Puts the `len` octets from `offset` on in the place of what `octets` holds, or as many as the
/// file has: no more is allocated than there is, whatever a damaged header says.
pub(super) fn read_up_to(
    file: &dyn File,
    offset: u64,
    len: u64,
    octets: &mut Vec<u8>,
) -> io::Result<()> {
    octets.clear();
    let there = file.size()?.saturating_sub(offset);
    make_room(octets, super::octets::to_usize(len.min(there)));
    let read = read_full(file, offset, octets);
    octets.truncate(read.as_ref().map_or(0, |read| *read));
    read.map(|_| ())
}

/// Fills `buf` from `offset`; a file that ends before is `UnexpectedEof`.
pub(super) fn read_exact(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    if read_full(file, offset, buf)? == buf.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes all parts at `offset`, however short the single writes are.
pub(super) fn write_full(file: &dyn File, mut offset: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match file.write_at(offset, left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut left, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdFs;

impl FileSystem for StdFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        held(file.try_lock(), file)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let file = fs::File::open(path)?;
        held(file.try_lock_shared(), file)
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        let status = rustix::fs::statvfs(path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }
}

/// What became of trying to lock `file`.
fn held(tried: Result<(), fs::TryLockError>, file: fs::File) -> io::Result<Option<Box<dyn Lock>>> {
    match tried {
        Ok(()) => Ok(Some(Box::new(LockedFile { file }))),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// A lock that lasts until this is dropped.
#[derive(Debug)]
struct LockedFile {
    file: fs::File,
}

impl Lock for LockedFile {}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing alone does not let go while a process that is just being started has a copy of the descriptor.
        drop(self.file.unlock());
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, parts, offset)?)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let allocate = || rustix::fs::fallocate(self, FallocateFlags::empty(), 0, len);
        match rustix::io::retry_on_intr(allocate) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(self.metadata()?.len().max(len)),
            allocated => Ok(allocated?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::sync_data(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_let_go_while_a_copy_of_its_descriptor_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let file = fs::File::create(&path).unwrap();
        let copy = file.try_clone().unwrap();
        let lock = held(file.try_lock(), file).unwrap().unwrap();
        assert!(StdFs.lock(&path).unwrap().is_none());
        drop(lock);
        assert!(StdFs.lock(&path).unwrap().is_some());
        drop(copy);
    }
}
