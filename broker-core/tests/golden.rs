//! The format on disk, held still: a small store must come out octet by octet as the files in
//! `golden/` have it, and these files must open.
//!
//! A change here is a change of the format: it needs a new version, a line in the history at the
//! head of the module, and these files kept as the old version's. `STORE_GOLDEN=write` writes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::path::{Path, PathBuf};

use broker_core::storage::sim_fs::SimFs;
use broker_core::storage::{FORMAT_VERSION, FileSystem, MessageRef, Options, SeqRange};
use common::{Action, Plain, World};

fn options() -> Options {
    Options {
        wal_file_len: 16 << 10,
        frame_len_max: 8 << 10,
        ballast_len: 0,
        spares: 0,
        full_files: 1,
        full_files_max: 2,
        ..common::small_options(42)
    }
}

/// One of everything: each kind of record, a segment, a checkpoint.
fn specimen() -> (SimFs, Plain) {
    let mut world = World::with_options(42, options());
    world.open();
    let message = |queue, seq, len| Action::Enqueue {
        targets: vec![MessageRef { queue, seq }],
        flags: 1,
        head: b"head".to_vec(),
        body: vec![b'a' + (seq % 26) as u8; len],
    };
    let one = |seq| vec![SeqRange::one(seq)];
    let batches = vec![
        vec![
            Action::Put { key: b"queue/orders".to_vec(), value: b"{\"id\":1}".to_vec() },
            Action::Put { key: b"gone".to_vec(), value: b"x".to_vec() },
        ],
        (1..=30).map(|seq| message(1, seq, 200)).collect(),
        vec![Action::Enqueue {
            targets: vec![MessageRef { queue: 1, seq: 31 }, MessageRef { queue: 2, seq: 1 }],
            flags: 0,
            head: Vec::new(),
            body: b"to both".to_vec(),
        }],
        vec![
            Action::Ack { queue: 1, ranges: one(2) },
            Action::Requeued { queue: 1, ranges: one(3) },
        ],
        vec![Action::Delivered { queue: 1, last: 3 }, Action::Delete { key: b"gone".to_vec() }],
        vec![message(3, 1, 10), Action::DeleteQueue { queue: 3 }],
        (32..=70).map(|seq| message(1, seq, 200)).collect(),
    ];
    for batch in batches {
        world.append(batch);
        world.drain();
    }
    world.settle();
    let late = vec![message(2, 2, 50), Action::Purge { queue: 9, last: 5 }];
    world.append(late);
    world.drain();
    world.engine().seal_step().unwrap();
    (world.fs.kill(), world.durable.normal())
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{FORMAT_VERSION}"))
}

/// Files without the zeros at their ends, which a line in the name gives back.
fn stored_name(path: &Path, len: usize) -> String {
    let path = path.strip_prefix(common::ROOT).unwrap().to_string_lossy().replace('/', "+");
    format!("{path}@{len}")
}

fn trimmed(octets: &[u8]) -> &[u8] {
    let end = octets.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1);
    &octets[..end]
}

#[test]
fn the_format_has_not_changed() {
    let (fs, _) = specimen();
    let dir = golden_dir();
    let is_writing = std::env::var("STORE_GOLDEN").is_ok_and(|value| value == "write");
    if is_writing {
        std::fs::create_dir_all(&dir).unwrap();
    }
    let mut names = Vec::new();
    // What is in a spare means nothing.
    let is_spare = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "spare");
    for path in fs.files().into_iter().filter(|path| !is_spare(path)) {
        let octets = fs.octets(&path).unwrap();
        let name = stored_name(&path, octets.len());
        if is_writing {
            std::fs::write(dir.join(&name), trimmed(&octets)).unwrap();
        }
        let golden = std::fs::read(dir.join(&name));
        let golden = golden.unwrap_or_else(|error| panic!("{name}: {error}"));
        let differs = golden.iter().zip(trimmed(&octets)).position(|(old, new)| old != new);
        assert_eq!(differs, None, "{name} differs at this octet");
        assert_eq!(golden.len(), trimmed(&octets).len(), "{name}");
        names.push(name);
    }
    let kept = std::fs::read_dir(dir).unwrap().count();
    assert_eq!(kept, names.len(), "the store makes the same files: {names:?}");
}

#[test]
fn a_store_of_this_version_opens() {
    let (_, expected) = specimen();
    let fs = SimFs::new();
    for dir in ["", "wal", "seg", "ckpt", "quarantine"] {
        let dir = Path::new(common::ROOT).join(dir);
        fs.create_dir(&dir).unwrap();
        fs.sync_dir(dir.parent().unwrap()).unwrap();
    }
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let (path, len) = name.rsplit_once('@').unwrap();
        let mut octets = std::fs::read(entry.path()).unwrap();
        octets.resize(len.parse().unwrap(), 0);
        fs.put(&Path::new(common::ROOT).join(path.replace('+', "/")), octets);
    }
    let mut world = World::with_options(1, options());
    world.fs = fs;
    let recovered = world.open();
    assert_eq!(recovered.damage, []);
    assert_eq!(common::state_of(world.engine(), &recovered), expected);
}
