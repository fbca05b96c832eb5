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
//! A segment whose file is gone while the store runs is in doubt as a whole, and given up after the same time
//! (`gone.rs`).
//!
//! A file with more bad pages than [`BAD_PAGES_MAX`] has not lost a sector: the disk is dying or
//! gone, and no further page of that file is given up. Other errors pass through untouched, and so does everything
//! that is no read.

mod gone;

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
use super::error::StorageError;
use super::fs::{File, FileSystem, Lock};
use super::octets::to_usize;
use super::recovery::is_absent;

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

/// How long no read may fail before it is said that all can be read again.
const FAILURES_REST: Duration = Duration::from_secs(15);

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
    /// Files that were to be read and are not there.
    gone: Mutex<BTreeMap<PathBuf, Verdict>>,
    failure: Mutex<Option<Failure>>,
    is_in_time: Arc<AtomicBool>,
}

/// The bad pages of one file, by offset; shared by all who have it open.
#[derive(Debug, Default)]
struct FilePages {
    pages: Mutex<BTreeMap<u64, Verdict>>,
    /// Whether there are any, to be read without the lock.
    has_any: AtomicBool,
}

/// On a page, or on a file that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is tried again when it has `rested` long enough.
    InDoubt {
        failed: u32,
        rested: Duration,
    },
    GivenUp,
}

impl Verdict {
    /// How often it has failed, if the next try is due `elapsed` after the last call.
    fn due(&mut self, elapsed: Duration) -> Option<u32> {
        let Self::InDoubt { failed, rested } = self else {
            return None;
        };
        *rested = rested.saturating_add(elapsed);
        if *rested < TRY_EVERY {
            return None;
        }
        *rested = Duration::ZERO;
        Some(*failed)
    }

    /// After one more try has failed.
    const fn after(failed: u32) -> Self {
        match failed + 1 >= TRIES {
            true => Self::GivenUp,
            false => Self::InDoubt { failed: failed + 1, rested: Duration::ZERO },
        }
    }
}

/// A read that has failed.
#[derive(Debug)]
struct Failure {
    why: Arc<str>,
    /// Since the latest one.
    rested: Duration,
}

/// What a doubt ended with.
#[derive(Debug, PartialEq, Eq)]
enum GivenUp {
    Page(PathBuf, u64),
    File(PathBuf),
}

/// The answer to a read that touches what is in doubt.
#[derive(Debug)]
enum InDoubt {
    Page(u64),
    File,
}

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Page(offset) => {
                write!(f, "the page at offset {offset} cannot be read; it is tried again")
            }
            Self::File => f.write_str("the file is gone; it is looked for again"),
        }
    }
}

impl std::error::Error for InDoubt {}

/// Whether a read failed because of a page, or a file, that is tried again.
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
    fn page(&self, offset: u64) -> Option<Verdict> {
        self.pages.lock().get(&offset).copied()
    }

    /// Whether a page of the range is bad.
    fn touch(&self, range: Range<u64>) -> bool {
        // Relaxed: a page that another thread has just found is found here too, by reading.
        self.has_any.load(Ordering::Relaxed)
            && self.pages.lock().range(page_of(range.start)..range.end).next().is_some()
    }

    /// Notes a page that could not be read; `false` when there are too many.
    fn note(&self, offset: u64, verdict: Verdict) -> bool {
        let mut pages = self.pages.lock();
        let has_room = pages.len() < BAD_PAGES_MAX || pages.contains_key(&offset);
        if has_room {
            pages.insert(offset, verdict);
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
        let mut pages = self.pages.lock();
        let due = pages.iter_mut().filter_map(|(offset, page)| Some((*offset, page.due(elapsed)?)));
        due.collect()
    }
}

impl BadPages {
    /// Everything that `disk` has. Pages are given up at once until somebody says otherwise.
    pub(super) fn new(disk: Arc<dyn FileSystem>) -> Self {
        Self {
            disk,
            files: Mutex::default(),
            gone: Mutex::default(),
            failure: Mutex::default(),
            is_in_time: Arc::default(),
        }
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
            .filter(|(_, page)| **page == Verdict::GivenUp)
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
        let gone = self.is_gone(path).then(|| "the file is gone".to_owned());
        match gone.or_else(|| self.given_up(path, range)) {
            Some(why) => format!("{detail}: {why}"),
            None => detail,
        }
    }

    /// Notes why a message could not be read.
    pub(super) fn note_failure(&self, error: &StorageError) {
        let mut failure = self.failure.lock();
        match &mut *failure {
            // The first one is told as long as they go on: what fails is tried again and again.
            Some(known) => known.rested = Duration::ZERO,
            None => {
                *failure = Some(Failure { why: error.to_string().into(), rested: Duration::ZERO });
            }
        }
    }

    /// Forgets a failure when there has been no other for a while.
    fn rest(&self, elapsed: Duration) {
        let mut failure = self.failure.lock();
        failure.take_if(|known| {
            known.rested = known.rested.saturating_add(elapsed);
            known.rested >= FAILURES_REST
        });
    }

    /// Tries what is in doubt again; answers which pages are given up now, and which files are to be.
    fn try_again(&self, elapsed: Duration) -> Vec<GivenUp> {
        let mut due = Vec::new();
        for (path, pages) in &*self.files.lock() {
            let found = pages.due(elapsed);
            due.extend(found.into_iter().map(|page| (path.clone(), Arc::clone(pages), page)));
        }
        let mut given_up = self.look_again(elapsed);
        let mut octets = vec![0; to_usize(PAGE_LEN)];
        for (path, pages, (offset, failed)) in due {
            let read = self.disk.open_to_read(&path);
            match read.and_then(|file| file.read_at(offset, &mut octets)) {
                Ok(_) => pages.forget(offset),
                // A file that has lost its name is still open elsewhere, with the page in it.
                Err(error) if is_unreadable(&error) || is_absent(&error) => {
                    let verdict = Verdict::after(failed);
                    pages.note(offset, verdict);
                    if verdict == Verdict::GivenUp {
                        given_up.push(GivenUp::Page(path, offset));
                    }
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
        let removed = self.disk.remove(path);
        if removed.as_ref().err().is_none_or(is_absent) {
            self.files.lock().remove(path);
            self.gone.lock().remove(path);
        }
        removed
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
            if let Some(failure) = failure
                && !self.pages.note(page, first_verdict(&self.is_in_time))
            {
                return Err(failure);
            }
        }
        match self.pages.page(page) {
            Some(Verdict::InDoubt { .. }) if !self.goes_around => {
                Err(io::Error::other(InDoubt::Page(page)))
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
    /// Tries pages again that could not be read, and looks again for segments that are gone;
    /// `elapsed` is the time since the last call. What has failed for half a minute is given up,
    /// which is in [`damage`](Self::damage): from then on reads go around a page, and name the
    /// messages that lay on it as lost; those of a segment are named at once.
    pub fn reread_step(&self, elapsed: Duration) {
        self.bad_pages.rest(elapsed);
        for given_up in self.bad_pages.try_again(elapsed) {
            match given_up {
                GivenUp::Page(path, offset) => {
                    let detail =
                        format!("the page at offset {offset} cannot be read; it is given up");
                    self.report(Damage::new(self.paths.relative(&path), detail));
                }
                GivenUp::File(path) => self.give_up_segment(&path),
            }
        }
    }

    /// Why messages could not be read within the last quarter of a minute, if that is so: the first
    /// such failure. What fails is tried again, so this may pass.
    #[must_use]
    pub fn read_error(&self) -> Option<Arc<str>> {
        self.bad_pages.failure.lock().as_ref().map(|failure| Arc::clone(&failure.why))
    }
}

/// On what has just failed.
fn first_verdict(is_in_time: &AtomicBool) -> Verdict {
    // Relaxed: it changes before the store's threads start.
    match is_in_time.load(Ordering::Relaxed) {
        true => Verdict::InDoubt { failed: 0, rested: Duration::ZERO },
        false => Verdict::GivenUp,
    }
}

#[cfg(test)]
mod tests;
