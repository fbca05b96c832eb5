//! What is damaged, and how.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::template::template;

/// A file of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Format,
    Lock,
    Ballast,
    /// The oldest file of the log.
    OldestLog,
    /// The one before the newest.
    Log,
    /// The one that was written last.
    NewestLog,
    /// One that is named and empty.
    ReadyLog,
    Spare,
    Segment,
    OlderCheckpoint,
    NewerCheckpoint,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// One bit is another.
    Flipped,
    /// 512 octets are zeros.
    Zeroed,
    /// The second half is gone.
    Halved,
    Emptied,
    Removed,
    /// It has changed places with another.
    Swapped,
    /// Octets that mean nothing follow.
    Longer,
    /// A directory has its name.
    Directory,
    /// It may not be read. Root may read everything.
    Unreadable,
    /// A file that is none of the store's lies beside it.
    Joined,
}

impl Harm {
    pub(crate) const ALL: [Self; 10] = [
        Self::Flipped,
        Self::Zeroed,
        Self::Halved,
        Self::Emptied,
        Self::Removed,
        Self::Swapped,
        Self::Longer,
        Self::Directory,
        Self::Unreadable,
        Self::Joined,
    ];

    /// Whether it can be done in more than one place.
    pub(crate) const fn has_a_place(self) -> bool {
        matches!(self, Self::Flipped | Self::Zeroed)
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Format,
        Self::Lock,
        Self::Ballast,
        Self::OldestLog,
        Self::Log,
        Self::NewestLog,
        Self::ReadyLog,
        Self::Spare,
        Self::Segment,
        Self::OlderCheckpoint,
        Self::NewerCheckpoint,
    ];

    /// Whether this can happen to such a file, and is worth a case.
    pub(crate) fn suffers(self, harm: Harm) -> bool {
        match (self, harm) {
            (_, Harm::Unreadable) => !rustix::process::geteuid().is_root(),
            // Their octets mean nothing.
            (Self::Ballast | Self::Spare, Harm::Flipped | Harm::Zeroed | Harm::Halved) => false,
            // It is empty.
            (Self::Lock, Harm::Flipped | Harm::Zeroed | Harm::Halved | Harm::Emptied) => false,
            // There is one of each.
            (Self::Format | Self::Lock | Self::Ballast, Harm::Swapped) => false,
            // One directory needs one stranger.
            (_, Harm::Joined) => {
                matches!(self, Self::Format | Self::Log | Self::Segment | Self::NewerCheckpoint)
            }
            _ => true,
        }
    }

    /// Whether the store cannot but notice.
    pub(crate) const fn is_missed(self, harm: Harm) -> bool {
        // What lives in the oldest log file may have been moved to a segment already.
        let is_log = matches!(self, Self::Log | Self::NewestLog);
        let is_gone = matches!(
            harm,
            Harm::Emptied | Harm::Removed | Harm::Directory | Harm::Unreadable | Harm::Halved
        );
        match self {
            // One that is gone without a trace is made up for by the one before it and the log.
            Self::NewerCheckpoint => is_gone && !matches!(harm, Harm::Removed),
            _ => is_gone && (is_log || matches!(self, Self::Segment)),
        }
    }

    /// Whether it can name the file: the name of a log file that is gone stands nowhere else.
    pub(crate) const fn is_named(self, harm: Harm) -> bool {
        matches!(self, Self::Segment) || !matches!(harm, Harm::Removed)
    }

    /// Whether a broker may refuse to start over this: where it cannot tell whose directory this is, or take its lock.
    pub(crate) const fn may_refuse(self, harm: Harm) -> bool {
        matches!((self, harm), (Self::Format | Self::Lock, Harm::Directory | Harm::Unreadable))
    }

    /// The file of this kind, relative to the store.
    fn find(self, store: &Path) -> PathBuf {
        let used = &template().used_logs;
        let found = match self {
            Self::Format => Some("FORMAT".into()),
            Self::Lock => Some("LOCK".into()),
            Self::Ballast => Some("BALLAST".into()),
            Self::OldestLog => used.first().cloned(),
            Self::Log => used.get(used.len() - 2).cloned(),
            Self::NewestLog => used.last().cloned(),
            Self::ReadyLog => {
                let logs = named(store, "wal", ".wal");
                logs.into_iter().find(|path| !used.contains(path))
            }
            Self::Spare => named(store, "wal", ".spare").into_iter().next(),
            Self::Segment => template().used_segments.first().cloned(),
            Self::OlderCheckpoint => named(store, "ckpt", ".ckpt").into_iter().next(),
            Self::NewerCheckpoint => named(store, "ckpt", ".ckpt").into_iter().next_back(),
        };
        found.unwrap_or_else(|| panic!("the template has no {self:?}"))
    }

    /// Another file that it may change places with: one of its kind, but for a segment, of which there may be only one.
    fn sibling(self, store: &Path, path: &Path) -> PathBuf {
        let (directory, suffix) = match self {
            Self::OlderCheckpoint | Self::NewerCheckpoint => ("ckpt", ".ckpt"),
            _ => ("wal", ".wal"),
        };
        let others = named(store, directory, suffix);
        let other = others.into_iter().find(|other| other != path);
        other.unwrap_or_else(|| panic!("{} is alone", path.display()))
    }
}

/// The files of a directory whose names end so, sorted.
fn named(store: &Path, directory: &str, suffix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(store.join(directory))
        .unwrap()
        .map(|entry| Path::new(directory).join(entry.unwrap().file_name()))
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    found.sort_unstable();
    found
}

/// Damages a file of the store; gives its name, by which reports know it.
pub(crate) fn harm(kind: Kind, harm: Harm, seed: u64, store: &Path) -> String {
    let relative = kind.find(store);
    let path = store.join(&relative);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut octets = fs::read(&path).unwrap();
    match harm {
        Harm::Flipped => {
            let place = rng.random_range(0..octets.len());
            octets[place] ^= 1 << rng.random_range(0..8);
            fs::write(&path, octets).unwrap();
        }
        Harm::Zeroed => {
            let start = rng.random_range(0..octets.len()) / 512 * 512;
            octets.iter_mut().skip(start).take(512).for_each(|octet| *octet = 0);
            fs::write(&path, octets).unwrap();
        }
        Harm::Halved => {
            octets.truncate(octets.len() / 2);
            fs::write(&path, octets).unwrap();
        }
        Harm::Emptied => fs::write(&path, []).unwrap(),
        Harm::Removed => fs::remove_file(&path).unwrap(),
        Harm::Swapped => {
            let sibling = store.join(kind.sibling(store, &relative));
            let between = store.join("between");
            fs::rename(&path, &between).unwrap();
            fs::rename(&sibling, &path).unwrap();
            fs::rename(&between, &sibling).unwrap();
        }
        Harm::Longer => {
            octets.extend((0..5000).map(|_| rng.random::<u8>()));
            fs::write(&path, octets).unwrap();
        }
        Harm::Directory => {
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        Harm::Unreadable => {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        Harm::Joined => {
            for name in ["stranger", "00000000000000zz.wal", "ffff.seg", ".hidden"] {
                let beside = path.with_file_name(name);
                fs::write(beside, b"none of the store's").unwrap();
            }
        }
    }
    relative.file_name().unwrap().to_string_lossy().into_owned()
}
