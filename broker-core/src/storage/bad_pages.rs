//! Pages of a file that the disk does not give: reading around them.
//!
//! The one idea: the commonest fault of a disk is one sector that cannot be read, and it must not
//! cost more than what lies on it. Every file of the store is read through here. A read that the
//! operating system answers with `EIO` is narrowed down page by page, and each page is tried a few
//! times more. A page that is given up reads as zeros, so what lay on it fails its checksum and is
//! treated as all damage is: named, kept, passed over.
//!
//! When a page is given up depends on who reads. While a store is opened, verified or repaired,
//! at once: somebody waits for the answer. While it runs nothing is given up for an error that may
//! pass: the page is in doubt, reads of it fail, and [`Engine::reread_step`] tries it again for
//! half a minute. What else lies in the same stretch is read around it meanwhile
//! ([`BadPages::open_around`]). It must end some day: one such page would hold up the queue that it belongs to,
//! and with it the spilling of the log, and in the end everybody.
//!
//! A file with more bad pages than [`BAD_PAGES_MAX`] has not lost a sector: the disk is dying or
//! gone, and no further page of that file is given up. Other errors pass through untouched, and so does everything
//! that is no read.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::damage::Damage;
use super::engine::Engine;
use super::fs::{File, FileSystem, Lock};
use super::octets::to_usize;

/// The unit that is read or not, in octets: a page of the operating system's cache, and a block of
/// the log.
const PAGE_LEN: u64 = 4096;

/// Pages of one file that are read around, at most: a mebioctet.
const BAD_PAGES_MAX: usize = 256;

/// How often a page is tried in a row.
const TRIES_AT_ONCE: usize = 3;

/// How long a page in doubt rests between two tries.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// How many of those tries have to fail before it is given up.
const TRIES: u32 = 6;

/// When a page that cannot be read is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    AtOnce,
    /// When half a minute has brought no other answer.
    InTime,
}

/// A file system whose files are read around their bad pages.
#[derive(Debug)]
pub(super) struct BadPages {
    disk: Arc<dyn FileSystem>,
    /// By the name that the file has now.
    files: Mutex<HashMap<PathBuf, Arc<FilePages>>>,
    is_in_time: Arc<AtomicBool>,
}

/// The bad pages of one file, by offset; shared by all who have it open.
#[derive(Debug, Default)]
struct FilePages {
    pages: Mutex<BTreeMap<u64, Page>>,
    /// Whether there are any, to be read without the lock.
    has_any: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// It is tried again when it has `rested` long enough.
    InDoubt {
        failed: u32,
        rested: Duration,
    },
    GivenUp,
}

/// The answer to a read that touches a page in doubt.
#[derive(Debug)]
struct InDoubt {
    offset: u64,
}

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the page at offset {} cannot be read; it is tried again", self.offset)
    }
}

impl std::error::Error for InDoubt {}

/// Whether a read failed because of a page that is tried again.
pub(super) fn is_in_doubt(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<InDoubt>())
}

/// Whether the disk says that it cannot give what was asked for.
fn is_unreadable(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::IO)
}

fn page_of(offset: u64) -> u64 {
    offset - offset % PAGE_LEN
}

impl FilePages {
    fn page(&self, offset: u64) -> Option<Page> {
        self.pages.lock().get(&offset).copied()
    }

    /// Whether a page of the range is bad.
    fn touch(&self, range: Range<u64>) -> bool {
        // Relaxed: a page that another thread has just found is found here too, by reading.
        self.has_any.load(Ordering::Relaxed)
            && self.pages.lock().range(page_of(range.start)..range.end).next().is_some()
    }

    /// Notes a page that could not be read; `false` when there are too many.
    fn note(&self, offset: u64, page: Page) -> bool {
        let mut pages = self.pages.lock();
        let has_room = pages.len() < BAD_PAGES_MAX || pages.contains_key(&offset);
        if has_room {
            pages.insert(offset, page);
            self.has_any.store(true, Ordering::Relaxed);
        }
        has_room
    }

    fn forget(&self, offset: u64) {
        let mut pages = self.pages.lock();
        pages.remove(&offset);
        self.has_any.store(!pages.is_empty(), Ordering::Relaxed);
    }

    /// The pages whose next try is due.
    fn due(&self, elapsed: Duration) -> Vec<(u64, u32)> {
        if !self.has_any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut due = Vec::new();
        for (offset, page) in &mut *self.pages.lock() {
            let Page::InDoubt { failed, rested } = page else {
                continue;
            };
            *rested = rested.saturating_add(elapsed);
            if *rested >= TRY_EVERY {
                *rested = Duration::ZERO;
                due.push((*offset, *failed));
            }
        }
        due
    }
}

impl BadPages {
    /// Everything that `disk` has. Pages are given up at once until somebody says otherwise.
    pub(super) fn new(disk: Arc<dyn FileSystem>) -> Self {
        Self { disk, files: Mutex::default(), is_in_time: Arc::default() }
    }

    /// From now on pages are given up so.
    pub(super) fn judge(&self, judgement: Judgement) {
        self.is_in_time.store(judgement == Judgement::InTime, Ordering::Relaxed);
    }

    /// Says which pages of a range of a file have been given up; `None` when none has.
    pub(super) fn given_up(&self, path: &Path, range: Range<u64>) -> Option<String> {
        let pages = Arc::clone(self.files.lock().get(path)?);
        let pages = pages.pages.lock();
        let mut found = pages
            .range(page_of(range.start)..range.end)
            .filter(|(_, page)| **page == Page::GivenUp)
            .map(|(offset, _)| *offset);
        let first = found.next()?;
        Some(match (found.clone().count(), found.next_back()) {
            (more, Some(last)) => {
                let (count, end) = (more + 1, last + PAGE_LEN);
                format!("{count} pages between offsets {first} and {end} cannot be read")
            }
            (_, None) => format!("the page at offset {first} cannot be read"),
        })
    }

    /// Adds to what is said of a range of a file that it could not be read, where that is why.
    pub(super) fn explain(&self, detail: String, path: &Path, range: Range<u64>) -> String {
        match self.given_up(path, range) {
            Some(why) => format!("{detail}: {why}"),
            None => detail,
        }
    }

    /// Tries pages in doubt again; answers those that are given up now.
    fn try_again(&self, elapsed: Duration) -> Vec<(PathBuf, u64)> {
        let mut due = Vec::new();
        for (path, pages) in &*self.files.lock() {
            let found = pages.due(elapsed);
            due.extend(found.into_iter().map(|page| (path.clone(), Arc::clone(pages), page)));
        }
        let mut given_up = Vec::new();
        let mut octets = vec![0; to_usize(PAGE_LEN)];
        for (path, pages, (offset, failed)) in due {
            let read = self.disk.open_to_read(&path);
            match read.and_then(|file| file.read_at(offset, &mut octets)) {
                Ok(_) => pages.forget(offset),
                Err(error) if is_unreadable(&error) && failed + 1 >= TRIES => {
                    pages.note(offset, Page::GivenUp);
                    given_up.push((path, offset));
                }
                Err(error) if is_unreadable(&error) => {
                    let failed = failed + 1;
                    pages.note(offset, Page::InDoubt { failed, rested: Duration::ZERO });
                }
                // Any other failure says nothing about the page.
                Err(_) => {}
            }
        }
        given_up
    }

    /// Opens a file in which pages in doubt read as zeros too. What is not sound in it is not lost.
    pub(super) fn open_around(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.watch(path, self.disk.open(path)?);
        Ok(Arc::new(FileWithBadPages { goes_around: true, ..file }))
    }

    fn watch(&self, path: &Path, file: Arc<dyn File>) -> FileWithBadPages {
        let pages = Arc::clone(self.files.lock().entry(path.to_owned()).or_default());
        let is_in_time = Arc::clone(&self.is_in_time);
        FileWithBadPages { file, pages, is_in_time, goes_around: false }
    }
}

impl FileSystem for BadPages {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.disk.create(path)?;
        self.files.lock().remove(path);
        Ok(Arc::new(self.watch(path, file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.watch(path, self.disk.open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(self.watch(path, self.disk.open_to_read(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let mut files = self.files.lock();
        match files.remove(from) {
            Some(pages) => files.insert(to.to_owned(), pages),
            None => files.remove(to),
        };
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)?;
        self.files.lock().remove(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.lock(path)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.disk.lock_shared(path)
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        self.disk.available(path)
    }
}

#[derive(Debug)]
struct FileWithBadPages {
    file: Arc<dyn File>,
    pages: Arc<FilePages>,
    is_in_time: Arc<AtomicBool>,
    /// Whether it goes around pages in doubt as well.
    goes_around: bool,
}

impl FileWithBadPages {
    /// Reads page by page; fails when one of them is in doubt, but not before all have been tried.
    fn read_pages(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        let mut failure = None;
        while done < buf.len() {
            let at = offset + done as u64;
            let left = to_usize(page_of(at) + PAGE_LEN - at);
            let end = done.saturating_add(left).min(buf.len());
            let part = buf.get_mut(done..end).unwrap_or_default();
            let wanted = part.len();
            match self.read_page(at, part) {
                Ok(read) => {
                    done += read;
                    if read < wanted {
                        break;
                    }
                }
                Err(error) if is_in_doubt(&error) => {
                    done += wanted;
                    failure = failure.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        failure.map_or(Ok(done), Err)
    }

    /// Reads what lies on one page.
    fn read_page(&self, offset: u64, part: &mut [u8]) -> io::Result<usize> {
        let page = page_of(offset);
        if self.pages.page(page).is_none() {
            let mut failure = None;
            for _ in 0..TRIES_AT_ONCE {
                match self.file.read_at(offset, part) {
                    Err(error) if is_unreadable(&error) => failure = Some(error),
                    answer => return answer,
                }
            }
            // Relaxed: it changes before the store's threads start.
            let verdict = match self.is_in_time.load(Ordering::Relaxed) {
                true => Page::InDoubt { failed: 0, rested: Duration::ZERO },
                false => Page::GivenUp,
            };
            if let Some(failure) = failure
                && !self.pages.note(page, verdict)
            {
                return Err(failure);
            }
        }
        match self.pages.page(page) {
            Some(Page::InDoubt { .. }) if !self.goes_around => {
                Err(io::Error::other(InDoubt { offset: page }))
            }
            Some(_) => {
                let there = to_usize(self.file.size()?.saturating_sub(offset)).min(part.len());
                part.get_mut(..there).unwrap_or_default().fill(0);
                Ok(there)
            }
            // Between the two looks it could be read again.
            None => self.file.read_at(offset, part),
        }
    }
}

impl File for FileWithBadPages {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if !self.pages.touch(offset..offset.saturating_add(buf.len() as u64)) {
            match self.file.read_at(offset, buf) {
                Err(error) if is_unreadable(&error) => {}
                answer => return answer,
            }
        }
        self.read_pages(offset, buf)
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.file.write_at(offset, parts)?;
        let range = offset..offset + written as u64;
        if self.pages.touch(range.clone()) {
            // A disk puts what is written on good sectors; and it is not what could not be read.
            for page in (page_of(range.start)..range.end).step_by(to_usize(PAGE_LEN)) {
                self.pages.forget(page);
            }
        }
        Ok(written)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Engine {
    /// Tries pages again that could not be read; `elapsed` is the time since the last call. A page
    /// that has failed for half a minute is given up, which is in [`damage`](Self::damage): from
    /// then on reads go around it, and name the messages that lay on it as lost.
    pub fn reread_step(&self, elapsed: Duration) {
        for (path, offset) in self.bad_pages.try_again(elapsed) {
            let detail = format!("the page at offset {offset} cannot be read; it is given up");
            self.report(Damage::new(self.paths.relative(&path), detail));
        }
    }
}

#[cfg(test)]
mod tests;
