//! A disk that can be broken at will: page cache and platter apart, every call counted.
//!
//! The one idea: a power cut is a function of a seed. Each sector written since the last
//! successful [`File::sync_data`] survives or not, each name changed since the last
//! [`FileSystem::sync_dir`] likewise, in the combinations a real disk may leave behind (all, none,
//! a prefix, any subset). A hook sees every call before it happens and may make it fail, shorten
//! it, ignore it, or stop the machine at it. Nothing here is random but through the seed, and
//! nothing takes time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::fs::{File, FileSystem, Lock};

/// The unit that a disk writes whole or not at all.
const SECTOR_LEN: u64 = 512;

/// The unit that the page cache gives or not. Octets.
const PAGE_LEN: u64 = 4096;

/// What a call is, for the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is named after the method of the traits")]
pub enum Operation {
    CreateDir,
    Create,
    Open,
    Rename,
    Remove,
    List,
    SyncDir,
    Lock,
    Available,
    Size,
    Read,
    Write,
    Allocate,
    SyncData,
}

/// One call about to happen.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Calls before this one on this disk.
    pub index: u64,
    /// What it is.
    pub operation: Operation,
    /// The file or directory (of a rename: the new name).
    pub path: &'a Path,
}

/// What shall happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops here; this and every later call fails.
    Crash,
    /// The call fails and does nothing.
    Error(io::ErrorKind),
    /// The call fails and does nothing, because too many files are open.
    OutOfFiles,
    /// A write stops half-way without an error.
    ShortWrite,
    /// A flush fails, and the pages count as clean from then on, as Linux does it.
    LostSync,
    /// A flush answers success and does nothing.
    IgnoredSync,
    /// A read finds one bit changed.
    FlippedBit,
}

type Hook = Box<dyn FnMut(&Call<'_>) -> Option<Fault> + Send>;

/// The simulated disk. Clones share it.
#[derive(Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFs").field("calls", &self.disk.lock().calls).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: Names,
    durable_names: Names,
    /// Changes of names not made durable yet, oldest first.
    changes: Vec<Change>,
    locked: BTreeMap<PathBuf, Held>,
    capacity: Option<u64>,
    calls: u64,
    crashed: bool,
    hook: Option<Hook>,
}

/// Who has a lock.
#[derive(Clone, Copy)]
enum Held {
    ByOne,
    /// By so many who share it.
    Shared(usize),
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
struct Inode {
    /// The name at the last look, for hooks only.
    path: PathBuf,
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// Blocks that the file has on the disk; the others are holes.
    blocks: BTreeSet<u64>,
    /// Sectors of `cache` that the platter does not have.
    dirty: BTreeSet<u64>,
    /// Pages that cannot be read, by number, each with the reads that fail before it can be again.
    spoilt: BTreeMap<u64, u32>,
}

#[derive(Clone)]
enum Change {
    Dir(PathBuf),
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Dir(path) | Self::Create(path, _) | Self::Remove(path) => {
                path.parent() == Some(dir)
            }
            Self::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn inode(&self) -> Option<u64> {
        match self {
            Self::Create(_, inode) | Self::Rename(_, _, inode) => Some(*inode),
            Self::Dir(_) | Self::Remove(_) => None,
        }
    }

    fn apply(&self, names: &mut Names) {
        let has_parent =
            |names: &Names, path: &Path| path.parent().is_some_and(|dir| names.dirs.contains(dir));
        match self {
            Self::Dir(path) => {
                names.dirs.insert(path.clone());
            }
            Self::Create(path, inode) => {
                if has_parent(names, path) {
                    names.files.insert(path.clone(), *inode);
                }
            }
            Self::Rename(_, to, inode) => {
                if has_parent(names, to) {
                    // A file has one name at any time, whichever of several renames survive.
                    names.files.retain(|_, other| other != inode);
                    names.files.insert(to.clone(), *inode);
                }
            }
            Self::Remove(path) => {
                names.files.remove(path);
            }
        }
    }
}

/// How much of what was not durable a power cut leaves.
#[derive(Clone, Copy)]
enum Survival {
    All,
    None,
    Prefix(u32),
    Some(u32),
}

impl Survival {
    fn choose(random: &mut SmallRng) -> Self {
        match random.random_range(0..6_u8) {
            0 => Self::All,
            1 => Self::None,
            2 | 3 => Self::Prefix(random.random_range(0..100)),
            _ => Self::Some(random.random_range(1..100)),
        }
    }

    fn keeps(self, index: usize, of: usize, random: &mut SmallRng) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Prefix(percent) => index * 100 < of * percent as usize,
            Self::Some(percent) => random.random_range(0..100) < percent,
        }
    }
}

impl Inode {
    /// What the disk says to a read of these octets.
    fn read(&mut self, range: std::ops::Range<u64>) -> io::Result<()> {
        let pages = range.start / PAGE_LEN..range.end.div_ceil(PAGE_LEN);
        let mut answer = Ok(());
        self.spoilt.retain(|page, fails| {
            if pages.contains(page) {
                answer = Err(rustix::io::Errno::IO.into());
                *fails = fails.saturating_sub(u32::from(*fails < u32::MAX));
            }
            *fails > 0
        });
        answer
    }

    fn power_cut(&mut self, random: &mut SmallRng) {
        let survival = Survival::choose(random);
        let (old_len, new_len) = (self.platter.len(), self.cache.len());
        let len = if old_len == new_len {
            new_len
        } else {
            match survival {
                Survival::All => new_len,
                Survival::None => old_len,
                Survival::Prefix(_) | Survival::Some(_) => {
                    let (low, high) = (old_len.min(new_len), old_len.max(new_len));
                    random.random_range(low..=high)
                }
            }
        };
        self.platter.resize(len, 0);
        let dirty = std::mem::take(&mut self.dirty);
        let of = dirty.len();
        for (index, sector) in dirty.into_iter().enumerate() {
            if survival.keeps(index, of, random) {
                copy_sector(&self.cache, &mut self.platter, sector);
            }
        }
        self.cache.clone_from(&self.platter);
        self.blocks.retain(|block| block * PAGE_LEN < len as u64);
    }
}

/// Copies one sector as far as both have it.
fn copy_sector(from: &[u8], to: &mut [u8], sector: u64) {
    let start = super::octets::to_usize(sector * SECTOR_LEN);
    let end = super::octets::to_usize((sector + 1) * SECTOR_LEN).min(from.len()).min(to.len());
    if let (Some(source), Some(target)) = (from.get(start..end), to.get_mut(start..end)) {
        target.copy_from_slice(source);
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimFs {
    /// An empty disk with the directory `/`.
    #[must_use]
    pub fn new() -> Self {
        let mut disk = Disk::default();
        disk.names.dirs.insert(PathBuf::from("/"));
        disk.durable_names.dirs.insert(PathBuf::from("/"));
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.disk.lock().calls
    }

    /// Asks `hook` before each call from now on.
    pub fn set_hook(&self, hook: impl FnMut(&Call<'_>) -> Option<Fault> + Send + 'static) {
        self.disk.lock().hook = Some(Box::new(hook));
    }

    /// No faults from now on.
    pub fn clear_hook(&self) {
        self.disk.lock().hook = None;
    }

    /// Bounds the octets of all files together (whole blocks of 4 KiB); `None` for no bound.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.disk.lock().capacity = capacity;
    }

    /// Octets allocated by all named files, in whole blocks of 4 KiB.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.disk.lock().allocated()
    }

    /// Whether a hook has stopped the machine.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.disk.lock().crashed
    }

    /// The disk as the next start finds it after a power cut. This one keeps existing, so that
    /// several cuts of one moment can be looked at.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let disk = self.disk.lock();
        let mut names = disk.durable_names.clone();
        let survival = Survival::choose(&mut random);
        let of = disk.changes.len();
        for (index, change) in disk.changes.iter().enumerate() {
            if survival.keeps(index, of, &mut random) {
                change.apply(&mut names);
            }
        }
        let mut inodes = BTreeMap::new();
        for (path, id) in &names.files {
            if let Some(inode) = disk.inodes.get(id)
                && !inodes.contains_key(id)
            {
                let mut inode = inode.clone();
                inode.path.clone_from(path);
                inode.power_cut(&mut random);
                inodes.insert(*id, inode);
            }
        }
        disk.restarted(inodes, names)
    }

    /// The disk as the next start finds it after `kill -9`: the page cache is still there.
    #[must_use]
    pub fn kill(&self) -> Self {
        let disk = self.disk.lock();
        // A file that has lost its name is there again when the power goes before that is durable.
        let changed = disk.changes.iter().filter_map(Change::inode);
        let named = disk.names.files.values().chain(disk.durable_names.files.values()).copied();
        let named: BTreeSet<u64> = named.chain(changed).collect();
        let is_named = |id: &u64| named.contains(id);
        let inodes = disk.inodes.iter().filter(|(id, _)| is_named(id));
        let inodes = inodes.map(|(id, inode)| (*id, inode.clone())).collect();
        let mut killed = disk.restarted(inodes, disk.names.clone());
        if let Some(inner) = Arc::get_mut(&mut killed.disk) {
            let inner = inner.get_mut();
            inner.durable_names = disk.durable_names.clone();
            inner.changes.clone_from(&disk.changes);
        }
        killed
    }

    /// The octets of a file, or `None`.
    #[must_use]
    pub fn octets(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        Some(disk.inodes.get(disk.names.files.get(path)?)?.cache.clone())
    }

    /// Replaces (or makes) a file on cache and platter alike: damage done from outside.
    pub fn put(&self, path: &Path, octets: Vec<u8>) {
        let mut disk = self.disk.lock();
        let id = disk.inode_next;
        disk.inode_next += 1;
        let inode = Inode {
            path: path.to_owned(),
            blocks: (0..(octets.len() as u64).div_ceil(PAGE_LEN)).collect(),
            cache: octets.clone(),
            platter: octets,
            ..Inode::default()
        };
        disk.inodes.insert(id, inode);
        disk.names.files.insert(path.to_owned(), id);
        disk.durable_names.files.insert(path.to_owned(), id);
    }

    /// Spoils the page of a file in which `offset` lies: so many reads of it fail with `EIO`, all
    /// of them with `u32::MAX`, unless it is written again. What lies on it stays there.
    pub fn spoil(&self, path: &Path, offset: u64, fails: u32) {
        let mut disk = self.disk.lock();
        if let Some(id) = disk.names.files.get(path).copied()
            && let Some(inode) = disk.inodes.get_mut(&id)
        {
            inode.spoilt.insert(offset / PAGE_LEN, fails);
        }
    }

    /// Takes a file away on cache and platter alike.
    pub fn lose(&self, path: &Path) {
        let mut disk = self.disk.lock();
        disk.names.files.remove(path);
        disk.durable_names.files.remove(path);
    }

    /// All files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk.lock().names.files.keys().cloned().collect()
    }

    fn lock_call(
        &self,
        operation: Operation,
        path: &Path,
    ) -> io::Result<(parking_lot::MutexGuard<'_, Disk>, Option<Fault>)> {
        let mut disk = self.disk.lock();
        let fault = disk.enter(operation, path)?;
        Ok((disk, fault))
    }
}

impl Disk {
    fn restarted(&self, inodes: BTreeMap<u64, Inode>, names: Names) -> SimFs {
        let disk = Self {
            inodes,
            inode_next: self.inode_next,
            durable_names: names.clone(),
            names,
            capacity: self.capacity,
            ..Self::default()
        };
        SimFs { disk: Arc::new(Mutex::new(disk)) }
    }

    fn crashed() -> io::Error {
        io::Error::other("the simulated machine has stopped")
    }

    /// Counts a call and asks the hook.
    fn enter(&mut self, operation: Operation, path: &Path) -> io::Result<Option<Fault>> {
        if self.crashed {
            return Err(Self::crashed());
        }
        let call = Call { index: self.calls, operation, path };
        self.calls += 1;
        let fault = self.hook.as_mut().and_then(|hook| hook(&call));
        match fault {
            // A write or a change of names on its way when the power goes may still arrive, so it
            // happens in the cache and the cut decides; anything else simply never returns.
            Some(Fault::Crash) => {
                self.crashed = true;
                match operation {
                    Operation::Write
                    | Operation::Allocate
                    | Operation::Create
                    | Operation::CreateDir
                    | Operation::Rename
                    | Operation::Remove => Ok(fault),
                    _ => Err(Self::crashed()),
                }
            }
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::OutOfFiles) => Err(rustix::io::Errno::MFILE.into()),
            other => Ok(other),
        }
    }

    /// The answer of a call that took place: an error when the machine stopped in it.
    fn leave<T>(&self, value: T) -> io::Result<T> {
        if self.crashed { Err(Self::crashed()) } else { Ok(value) }
    }

    fn allocated(&self) -> u64 {
        self.names
            .files
            .values()
            .filter_map(|id| self.inodes.get(id))
            .map(|inode| inode.blocks.len() as u64 * PAGE_LEN)
            .sum()
    }

    /// Gives the file blocks for these octets, or nothing when there is no room for all of them.
    fn take_blocks(&mut self, id: u64, octets: std::ops::Range<u64>) -> io::Result<()> {
        let inode = self.inodes.get(&id).ok_or(io::ErrorKind::NotFound)?;
        let blocks = octets.start / PAGE_LEN..octets.end.div_ceil(PAGE_LEN);
        let taken: Vec<u64> = blocks.filter(|block| !inode.blocks.contains(block)).collect();
        if let Some(capacity) = self.capacity
            && !taken.is_empty()
            && self.allocated() + taken.len() as u64 * PAGE_LEN > capacity
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.blocks.extend(taken);
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn write(&mut self, id: u64, offset: u64, octets: &[u8]) -> io::Result<()> {
        let end = offset + octets.len() as u64;
        self.take_blocks(id, offset..end)?;
        let inode = self.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let (start, stop) = (super::octets::to_usize(offset), super::octets::to_usize(end));
        if inode.cache.len() < stop {
            inode.cache.resize(stop, 0);
        }
        if let Some(target) = inode.cache.get_mut(start..stop) {
            target.copy_from_slice(octets);
        }
        inode.dirty.extend(offset / SECTOR_LEN..end.div_ceil(SECTOR_LEN));
        // A disk puts a sector that is written whole where it can be read.
        for page in offset.div_ceil(PAGE_LEN)..end / PAGE_LEN {
            inode.spoilt.remove(&page);
        }
        Ok(())
    }
}

impl FileSystem for SimFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut disk, _) = self.lock_call(Operation::CreateDir, path)?;
        if !disk.names.dirs.contains(path) {
            disk.change(Change::Dir(path.to_owned()));
        }
        disk.leave(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (mut disk, _) = self.lock_call(Operation::Create, path)?;
        if !path.parent().is_some_and(|dir| disk.names.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // Truncation is modelled as a new file that takes the name.
        let id = disk.inode_next;
        disk.inode_next += 1;
        disk.inodes.insert(id, Inode { path: path.to_owned(), ..Inode::default() });
        disk.change(Change::Create(path.to_owned(), id));
        disk.leave(Arc::new(SimFile { fs: self.clone(), inode: id }) as Arc<dyn File>)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (disk, _) = self.lock_call(Operation::Open, path)?;
        let inode = *disk.names.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { fs: self.clone(), inode }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut disk, _) = self.lock_call(Operation::Rename, to)?;
        let id = *disk.names.files.get(from).ok_or(io::ErrorKind::NotFound)?;
        if let Some(inode) = disk.inodes.get_mut(&id) {
            to.clone_into(&mut inode.path);
        }
        disk.change(Change::Rename(from.to_owned(), to.to_owned(), id));
        disk.leave(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut disk, _) = self.lock_call(Operation::Remove, path)?;
        if !disk.names.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change(Change::Remove(path.to_owned()));
        disk.leave(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let (disk, _) = self.lock_call(Operation::List, dir)?;
        if !disk.names.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let children = disk.names.files.keys().chain(&disk.names.dirs);
        let mut names: Vec<String> = children
            .filter(|path| path.parent() == Some(dir))
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let (mut disk, fault) = self.lock_call(Operation::SyncDir, dir)?;
        match fault {
            Some(Fault::IgnoredSync) => return Ok(()),
            Some(Fault::LostSync) => return Err(io::Error::other("simulated flush failure")),
            _ => {}
        }
        let changes = std::mem::take(&mut disk.changes);
        let (done, left): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.touches(dir));
        for change in &done {
            change.apply(&mut disk.durable_names);
        }
        disk.changes = left;
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let (mut disk, _) = self.lock_call(Operation::Lock, path)?;
        if disk.locked.contains_key(path) {
            return Ok(None);
        }
        disk.locked.insert(path.to_owned(), Held::ByOne);
        Ok(Some(Box::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned() })))
    }

    fn lock_shared(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let (mut disk, _) = self.lock_call(Operation::Lock, path)?;
        match disk.locked.entry(path.to_owned()).or_insert(Held::Shared(0)) {
            Held::ByOne => return Ok(None),
            Held::Shared(count) => *count += 1,
        }
        Ok(Some(Box::new(SimLock { disk: Arc::clone(&self.disk), path: path.to_owned() })))
    }

    fn available(&self, path: &Path) -> io::Result<u64> {
        let (disk, _) = self.lock_call(Operation::Available, path)?;
        Ok(disk.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.allocated())))
    }
}

struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimLock").field(&self.path).finish()
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.disk.lock();
        match disk.locked.get_mut(&self.path) {
            Some(Held::Shared(count)) if *count > 1 => *count -= 1,
            _ => drop(disk.locked.remove(&self.path)),
        }
    }
}

impl Lock for SimLock {}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    inode: u64,
}

impl SimFile {
    fn lock_call(
        &self,
        operation: Operation,
    ) -> io::Result<(parking_lot::MutexGuard<'_, Disk>, Option<Fault>)> {
        let mut disk = self.fs.disk.lock();
        let path = disk.inodes.get(&self.inode).map(|inode| inode.path.clone()).unwrap_or_default();
        let fault = disk.enter(operation, &path)?;
        Ok((disk, fault))
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        let (disk, _) = self.lock_call(Operation::Size)?;
        let inode = disk.inodes.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(inode.cache.len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (mut disk, fault) = self.lock_call(Operation::Read)?;
        let inode = disk.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let start = super::octets::to_usize(offset).min(inode.cache.len());
        let end = start.saturating_add(buf.len()).min(inode.cache.len());
        inode.read(start as u64..end as u64)?;
        let source = inode.cache.get(start..end).unwrap_or_default();
        if let Some(target) = buf.get_mut(..source.len()) {
            target.copy_from_slice(source);
            let middle = target.len() / 2;
            if fault == Some(Fault::FlippedBit)
                && let Some(octet) = target.get_mut(middle)
            {
                *octet ^= 0x10;
            }
        }
        Ok(source.len())
    }

    fn write_at(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let (mut disk, fault) = self.lock_call(Operation::Write)?;
        let mut octets: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if fault == Some(Fault::ShortWrite) && octets.len() > 1 {
            octets.truncate(octets.len() / 2);
        }
        disk.write(self.inode, offset, &octets)?;
        disk.leave(octets.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let (mut disk, _) = self.lock_call(Operation::Allocate)?;
        disk.take_blocks(self.inode, 0..len)?;
        let inode = disk.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let len = super::octets::to_usize(len).max(inode.cache.len());
        inode.cache.resize(len, 0);
        disk.leave(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let (mut disk, fault) = self.lock_call(Operation::SyncData)?;
        let inode = disk.inodes.get_mut(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        match fault {
            Some(Fault::IgnoredSync) => return Ok(()),
            Some(Fault::LostSync) => {
                inode.dirty.clear();
                return Err(io::Error::other("simulated flush failure"));
            }
            _ => {}
        }
        inode.platter.resize(inode.cache.len(), 0);
        for sector in std::mem::take(&mut inode.dirty) {
            copy_sector(&inode.cache, &mut inode.platter, sector);
        }
        Ok(())
    }
}
