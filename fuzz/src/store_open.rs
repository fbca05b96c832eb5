//! Opening a store whose files hold anything: it opens or says why not, and opens again the same.
//!
//! ```text
//!  input   what is there at first: an octet, even for the golden store, odd for nothing
//!          | seed of the power cut: an octet | changes, one after another
//!  change  kind: an octet | file: an octet | what the kind takes
//!   0  octets overwritten     place: eight octets, short octets
//!   1  file cut               place: eight octets
//!   2  file removed
//!   3  two files swapped      the other: an octet
//!   4  file made              directory and ending: an octet, id: an octet, octets: short
//!   5  checksums written      of a log file, a segment, or FORMAT
//!   6  a sector zeroed        place: eight octets
//! ```
//!
//! After opening everything is read, so that damage in messages is found and settled. Then the power is
//! cut, and the store must open with the same messages and definitions. Where checksums were written over
//! nonsense that does not hold, because such a store was never written by anybody; it must open or be
//! refused all the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::storage::fuzzing::{Format, seal};
use broker_core::storage::sim_fs::SimFs;
use broker_core::storage::{
    CommitStep, Definition, Engine, FileSystem, Options, Recovered, StorageError,
};

use crate::script::Script;

const ROOT: &str = "/data";
const DIRECTORIES: [&str; 4] = ["wal", "seg", "ckpt", "quarantine"];
/// Changes of one input.
const CHANGES_MAX: usize = 16;
/// What a new file can be.
const KINDS: [(&str, &str); 8] = [
    ("wal", "wal"),
    ("seg", "seg"),
    ("ckpt", "ckpt"),
    ("wal", "spare"),
    ("wal", "wal.moved"),
    ("seg", "seg.moved"),
    ("ckpt", "ckpt.tmp"),
    ("quarantine", "wal@0"),
];

macro_rules! golden {
    ($name:literal) => {
        include_bytes!(concat!("../../broker-core/tests/golden/v1/", $name))
    };
}

/// The files of the golden store: name, octets with zeros behind them, octets.
const GOLDEN: [(&str, usize, &[u8]); 9] = [
    ("FORMAT", 74, golden!("FORMAT@74")),
    ("ckpt/0000000000000003.ckpt", 805, golden!("ckpt+0000000000000003.ckpt@805")),
    ("ckpt/0000000000000004.ckpt", 805, golden!("ckpt+0000000000000004.ckpt@805")),
    ("seg/0000000000000000.seg", 7424, golden!("seg+0000000000000000.seg@7424")),
    ("seg/0000000000000001.seg", 368, golden!("seg+0000000000000001.seg@368")),
    ("wal/0000000000000003.wal", 16384, golden!("wal+0000000000000003.wal@16384")),
    ("wal/0000000000000004.wal", 16384, golden!("wal+0000000000000004.wal@16384")),
    ("wal/0000000000000005.wal", 16384, golden!("wal+0000000000000005.wal@16384")),
    ("wal/0000000000000006.wal", 16384, golden!("wal+0000000000000006.wal@16384")),
];

fn options() -> Options {
    Options {
        wal_file_len: 16 << 10,
        frame_len_max: 8 << 10,
        ballast_len: 0,
        spares: 0,
        full_files: 1,
        full_files_max: 2,
        extent_len: 2 << 10,
        own_segment_len: 8 << 10,
        cache_len: 8 << 10,
        seed: Some(42),
        ..Options::default()
    }
}

/// Fuzzes [`Engine::open`].
///
/// # Panics
/// When opening panics, fails for no good reason, or gives something else the next time.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let is_golden = script.octet().is_multiple_of(2);
    let seed = script.octet().into();
    let mut disk = Disk::new(is_golden);
    for _ in 0..CHANGES_MAX {
        if script.is_over() {
            break;
        }
        disk.change(&mut script);
    }
    let Some(opened) = open(&disk.fs) else {
        return;
    };
    let before = opened.settled();
    let after = open(&disk.fs.power_cut(seed));
    if disk.is_forged {
        return;
    }
    let Some(after) = after else {
        panic!("a store that opened does not open again");
    };
    for damage in &after.recovered.damage {
        assert!(damage.lost.is_empty(), "the same loss is reported twice: {damage}");
    }
    assert_eq!(after.settled(), before);
}

struct Disk {
    fs: SimFs,
    /// Checksums were written over what nobody wrote.
    is_forged: bool,
}

impl Disk {
    fn new(is_golden: bool) -> Self {
        let fs = SimFs::new();
        let root = Path::new(ROOT);
        for dir in [""].iter().chain(&DIRECTORIES) {
            let made = fs.create_dir(&root.join(dir)).and_then(|()| fs.sync_dir(root));
            made.expect("the disk works");
        }
        fs.sync_dir(Path::new("/")).expect("the disk works");
        for (name, len, octets) in GOLDEN.iter().filter(|_| is_golden) {
            let mut octets = octets.to_vec();
            octets.resize(*len, 0);
            fs.put(&root.join(name), octets);
        }
        Self { fs, is_forged: false }
    }

    fn change(&mut self, script: &mut Script<'_>) {
        let kind = script.octet() % 7;
        let choice = script.octet();
        if kind == 4 {
            let (dir, ending) = KINDS[usize::from(choice) % KINDS.len()];
            let id = script.octet();
            let path = match choice {
                0xFF => Path::new(ROOT).join("FORMAT"),
                _ => Path::new(ROOT).join(dir).join(format!("{id:016x}.{ending}")),
            };
            return self.fs.put(&path, script.short().to_vec());
        }
        let Some(path) = self.file(choice) else {
            return;
        };
        let mut octets = self.fs.octets(&path).expect("a file that is listed");
        let place = |script: &mut Script<'_>, len: usize| {
            let len = u64::try_from(len).unwrap_or(u64::MAX).max(1);
            usize::try_from(script.number() % len).unwrap_or_default()
        };
        match kind {
            0 => {
                let at = place(script, octets.len());
                for (octet, new) in octets[at..].iter_mut().zip(script.short()) {
                    *octet = *new;
                }
            }
            1 => octets.truncate(place(script, octets.len())),
            2 => return self.fs.lose(&path),
            3 => {
                let Some(other) = self.file(script.octet()) else {
                    return;
                };
                let others = self.fs.octets(&other).expect("a file that is listed");
                self.fs.put(&other, octets);
                octets = others;
            }
            5 => {
                let Some(format) = forgeable(&path) else {
                    return;
                };
                self.is_forged = true;
                seal(format, &mut octets);
            }
            _ => {
                let from = place(script, octets.len()) / 512 * 512;
                let to = (from + 512).min(octets.len());
                octets[from..to].fill(0);
            }
        }
        self.fs.put(&path, octets);
    }

    fn file(&self, choice: u8) -> Option<PathBuf> {
        let files = self.fs.files();
        let at = usize::from(choice).checked_rem(files.len())?;
        files.into_iter().nth(at)
    }
}

/// The format of files whose checksums are written over nonsense. A checkpoint is the state itself, and
/// what its checksums say is believed: `store_record` has its decoder.
fn forgeable(path: &Path) -> Option<Format> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("wal") => Some(Format::Log),
        Some("seg") => Some(Format::Segment),
        Some("ckpt") => None,
        _ => Some(Format::FormatFile),
    }
}

struct Opened {
    engine: Engine,
    recovered: Recovered,
}

fn open(fs: &SimFs) -> Option<Opened> {
    match Engine::open(Arc::new(fs.clone()), Path::new(ROOT), options()) {
        Ok((engine, recovered)) => Some(Opened { engine, recovered }),
        // A directory that was a store, or of a later one: both are said, and nothing has changed.
        Err(StorageError::LogMissing { .. } | StorageError::NewerFormat { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What a store holds: messages with head and body by queue and number, definitions.
#[derive(Debug, PartialEq)]
struct Content {
    messages: BTreeMap<(u64, u64), (Vec<u8>, Vec<u8>)>,
    definitions: Vec<Definition>,
}

impl Opened {
    /// Reads everything and makes durable what that has found out.
    fn settled(&self) -> Content {
        let mut messages = BTreeMap::new();
        for queue in &self.recovered.queues {
            let mut from = 0;
            while let Some(block) =
                self.engine.read(queue.queue, from, 4096).expect("a disk that works")
            {
                for message in block.messages() {
                    let content = (message.head.to_vec(), message.body.to_vec());
                    let known = messages.insert((queue.queue, message.seq), content);
                    assert!(known.is_none(), "message {} twice", message.seq);
                }
                if block.next <= from {
                    break;
                }
                from = block.next;
            }
        }
        while self.engine.commit_step().expect("a disk that works") == CommitStep::Written {}
        Content { messages, definitions: self.recovered.definitions.clone() }
    }
}
