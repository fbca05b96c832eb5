//! What is told of a store while it opens, of a directory that holds none, and to who only looks.

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
use std::sync::{Arc, Mutex};

use broker_core::storage::sim_fs::{Operation, SimFs};
use broker_core::storage::{
    Batch, Engine, FileSystem, MessageRef, OnProgress, OpenPhase, OpenProgress, Options,
    StorageError, inspect, repair, verify,
};
use common::ROOT;

type Told = Arc<Mutex<Vec<OpenProgress>>>;

fn listener() -> (OnProgress, Told) {
    let told = Told::default();
    let ear = Arc::clone(&told);
    (OnProgress::new(move |progress| ear.lock().unwrap().push(progress)), told)
}

/// The calls of one phase, checked for order.
fn phase(told: &Told, phase: OpenPhase) -> Vec<OpenProgress> {
    let told = told.lock().unwrap();
    assert!(told.is_sorted_by_key(|progress| progress.phase), "{told:?}");
    let found: Vec<OpenProgress> =
        told.iter().filter(|progress| progress.phase == phase).copied().collect();
    assert!(found.is_sorted_by_key(|progress| progress.done), "{found:?}");
    assert!(found.iter().all(|progress| progress.total == found[0].total), "{found:?}");
    let last = found.last().unwrap();
    assert_eq!(last.done, last.total, "{phase} comes to its end");
    found
}

#[test]
fn every_phase_says_how_much_it_has_to_do_and_how_far_it_is() {
    let fs = SimFs::new();
    let options = Options { spares: 0, seed: Some(1), ..Options::default() };
    let open = |fs: &SimFs, progress: Option<OnProgress>| {
        let options = Options { progress, ..options.clone() };
        Engine::open(Arc::new(fs.clone()), Path::new(ROOT), options).unwrap()
    };
    let (engine, _) = open(&fs, None);
    let body = vec![7; 1 << 20];
    for seq in 1..=30 {
        let mut batch = Batch::new();
        let target = MessageRef { queue: 1, seq };
        batch.enqueue(std::slice::from_ref(&target), 0, b"", &body);
        engine.append(&batch).unwrap();
        engine.commit_step().unwrap();
    }
    let written = engine.durable().0;
    let crashed = fs.kill();

    let (progress, told) = listener();
    let (_, recovered) = open(&crashed, Some(progress));
    assert_eq!(recovered.replayed_octets, written);
    let scan = phase(&told, OpenPhase::Scan);
    // The one that was written, and two that were ready because there is no spare.
    assert_eq!(scan[0], OpenProgress { phase: OpenPhase::Scan, done: 0, total: 192 << 20 });
    assert!(scan.len() > 5, "{scan:?}");
    let replay = phase(&told, OpenPhase::Replay);
    assert_eq!(replay[0].total, written);
    assert!(replay.len() > 5, "{replay:?}");
    assert_eq!(phase(&told, OpenPhase::Segments)[0].total, 0, "there is none");

    // After a clean stop there is nothing to replay, and that is said too.
    engine.close_step().unwrap();
    drop(engine);
    let (progress, told) = listener();
    open(&fs, Some(progress));
    assert_eq!(phase(&told, OpenPhase::Replay)[0].total, 0);
}

#[test]
fn where_no_store_is_the_tools_say_so_and_make_nothing() {
    let fs = SimFs::new();
    fs.create_dir(Path::new(ROOT)).unwrap();
    fs.put(&Path::new(ROOT).join("notes.txt"), b"not a store".to_vec());
    let before = fs.files();
    for path in [Path::new(ROOT), Path::new("/elsewhere")] {
        let disk = || Arc::new(fs.clone());
        let options = Options::default;
        for error in [
            inspect(disk(), path, options()).err(),
            verify(disk(), path, options(), &mut |_| {}).err(),
            repair(disk(), path, options(), &mut |_| {}).err(),
        ] {
            match error {
                Some(StorageError::NoStore { path: named }) => assert_eq!(named, path),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(fs.files(), before);
}

#[test]
fn an_inspection_tells_where_the_log_begins_and_which_checkpoints_there_are() {
    let mut world = common::World::new(4);
    world.open();
    for _ in 0..400 {
        let action = world.random_enqueue();
        world.append(vec![action]);
        world.drain();
    }
    world.settle();
    let end = world.engine().durable().0;
    let fs = world.fs.kill();
    let seen = inspect(Arc::new(fs.clone()), Path::new(ROOT), world.options.clone()).unwrap();
    assert_eq!(seen.format_version, Some(1));
    assert_eq!(seen.end, end);
    assert!(seen.begin > 0 && seen.begin < end, "{} to {end}", seen.begin);
    let [older, newer] = &seen.checkpoints[..] else { panic!("{:?}", seen.checkpoints) };
    assert!(older.id < newer.id && older.position <= newer.position && newer.position <= end);
    assert!(seen.begin <= older.position, "the log reaches back to the older checkpoint");
    assert!(seen.files.is_sorted_by(|a, b| a.path < b.path));

    fs.put(&Path::new(ROOT).join("FORMAT"), b"warren store?".to_vec());
    let seen = inspect(Arc::new(fs), Path::new(ROOT), world.options).unwrap();
    assert_eq!(seen.format_version, None);
}

/// A store with messages in the log and in segments, and with damage that a start would mend.
fn damaged() -> (SimFs, Options) {
    let mut world = common::World::new(5);
    world.open();
    for _ in 0..400 {
        let action = world.random_enqueue();
        world.append(vec![action]);
        world.drain();
    }
    world.settle();
    let fs = world.fs.kill();
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "seg");
    let segment = fs.files().into_iter().find(is_segment).unwrap();
    fs.put(&segment, b"not a segment any more".to_vec());
    fs.put(&Path::new(ROOT).join("FORMAT"), b"warren store?".to_vec());
    (fs, world.options)
}

#[test]
fn who_only_looks_changes_nothing_and_lets_others_look() {
    let (fs, options) = damaged();
    let before: Vec<_> = fs.files().into_iter().map(|path| (fs.octets(&path), path)).collect();
    let changes = [
        Operation::CreateDir,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDir,
        Operation::Write,
        Operation::SyncData,
    ];
    fs.set_hook(move |call| {
        assert!(!changes.contains(&call.operation), "{call:?}");
        None
    });
    let disk = || Arc::new(fs.clone());
    let lock = Path::new(ROOT).join("LOCK");
    let another = fs.lock_shared(&lock).unwrap().unwrap();
    let seen = inspect(disk(), Path::new(ROOT), options.clone()).unwrap();
    assert!(seen.recovered.damage.len() > 1, "{:?}", seen.recovered.damage);
    let found = verify(disk(), Path::new(ROOT), options.clone(), &mut |_| {}).unwrap();
    assert!(found.len() >= seen.recovered.damage.len(), "{found:?}");
    assert!(fs.lock(&lock).unwrap().is_none(), "a broker has to wait for who looks");
    drop(another);

    let broker = fs.lock(&lock).unwrap().unwrap();
    let refused = inspect(disk(), Path::new(ROOT), options).unwrap_err();
    assert!(matches!(refused, StorageError::Locked { .. }), "{refused}");
    drop(broker);
    fs.clear_hook();
    let after: Vec<_> = fs.files().into_iter().map(|path| (fs.octets(&path), path)).collect();
    assert_eq!(after, before);
}
