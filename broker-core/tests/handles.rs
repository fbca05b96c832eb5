//! Too many open files: whatever fails for that is tried again, and nothing is lost, given up or
//! left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use broker_core::storage::sim_fs::{Call, Fault, Operation, SimFs};
use broker_core::storage::{
    Batch, CommitStep, Engine, Health, MessageRef, Options, SeqRange, StorageError, Store, inspect,
    verify,
};
use common::{Action, ROOT, World};
use rand::RngExt;

/// Whether a call needs a file handle.
fn opens(call: &Call<'_>) -> bool {
    matches!(
        call.operation,
        Operation::Create | Operation::Open | Operation::SyncDir | Operation::List
    )
}

fn out_of_files(call: &Call<'_>) -> Option<Fault> {
    opens(call).then_some(Fault::OutOfFiles)
}

/// Counts the calls that need a handle from now on.
fn count_opens(fs: &SimFs) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&count);
    fs.set_hook(move |call| {
        seen.fetch_add(u64::from(opens(call)), Ordering::Relaxed);
        None
    });
    count
}

/// Lets those of the calls that need a handle fail whose turn is in `range`.
fn fail_opens(fs: &SimFs, range: std::ops::Range<u64>) {
    let mut at = 0;
    fs.set_hook(move |call| {
        let fails = opens(call) && range.contains(&at);
        at += u64::from(opens(call));
        fails.then_some(Fault::OutOfFiles)
    });
}

fn publish(engine: &Engine, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let target = [MessageRef { queue: 1, seq }];
        let mut batch = Batch::new();
        batch.enqueue(&target, 0, b"head", &[7; 900]);
        engine.append(&batch).unwrap();
    }
}

fn options(seed: u64) -> Options {
    Options {
        wal_file_len: 32 << 10,
        full_files: 1,
        full_files_max: 2,
        ..common::small_options(seed)
    }
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    fs.files().into_iter().filter(|path| path.starts_with("/data/seg")).collect()
}

#[test]
fn a_log_file_that_cannot_be_made_is_made_later_while_another_is_ready() {
    for fault in [Fault::OutOfFiles, Fault::Error(io::ErrorKind::Other)] {
        let mut world = World::with_options(1, options(1));
        world.open();
        world.settle();
        let mut spares = world.fs.files();
        spares.retain(|path| path.extension().is_some_and(|kind| kind == "spare"));
        assert_eq!(spares.len(), 1);
        world.fs.set_hook(move |call| opens(call).then_some(fault));
        // One frame a file: three are ready, the last of which is written without a successor.
        publish(world.engine(), 1..40);
        while world.engine().commit_step().unwrap() == CommitStep::Written {}
        assert_eq!(world.engine().health(), Health::Healthy, "{fault:?}");
        assert_eq!(common::read_all(world.engine(), 1).len(), 39);
        assert!(world.engine().maintain_step().is_err(), "it is said why: {fault:?}");
        world.fs.clear_hook();
        world.settle();
        if fault == Fault::OutOfFiles {
            let left = spares.iter().filter(|path| world.fs.octets(path).is_some());
            assert_eq!(left.count(), 0, "a spare that could not be opened is used later");
        }
        publish(world.engine(), 40..200);
        world.settle();
        assert_eq!(common::read_all(world.engine(), 1).len(), 199);
    }
}

#[test]
fn without_a_log_file_and_a_handle_to_make_one_the_frame_waits() {
    let mut world = World::with_options(2, options(2));
    world.open();
    world.settle();
    world.fs.set_hook(out_of_files);
    publish(world.engine(), 1..200);
    while world.engine().commit_step().unwrap() == CommitStep::Written {}
    assert_eq!(world.engine().commit_step().unwrap(), CommitStep::Blocked);
    assert_eq!(world.engine().health(), Health::DiskFull);
    let durable = world.engine().durable();
    assert_eq!(common::read_all(world.engine(), 1).len(), 199);
    let error = world.engine().maintain_step().unwrap_err();
    assert!(error.to_string().contains("Too many open files"), "{error}");
    assert_eq!(world.engine().health(), Health::DiskFull);
    world.fs.clear_hook();
    world.settle();
    assert_eq!(world.engine().health(), Health::Healthy);
    assert!(world.engine().durable() > durable);
    let fs = world.fs.power_cut(1);
    world.crash_to(fs);
    assert_eq!(world.open().queues[0].live.len(), 199);
}

#[test]
fn a_failed_write_finds_its_second_file_once_there_are_handles_again() {
    let mut world = World::with_options(3, options(3));
    world.open();
    publish(world.engine(), 1..5);
    while world.engine().commit_step().unwrap() == CommitStep::Written {}
    // The file and the one that is ready behind it fail their flush.
    world.fs.set_hook(|call| match call.operation {
        Operation::SyncData => Some(Fault::LostSync),
        _ => out_of_files(call),
    });
    publish(world.engine(), 5..6);
    assert!(world.engine().commit_step().is_err());
    assert!(matches!(world.engine().health(), Health::Poisoned { .. }), "two flushes have failed");

    // Where only one file is left and its flush fails, the frame needs one that is not there.
    let mut world = exhausted_but_for_one_file();
    let durable = world.engine().durable();
    let mut is_first = true;
    world.fs.set_hook(move |call| match call.operation {
        Operation::SyncData if std::mem::take(&mut is_first) => Some(Fault::LostSync),
        _ => out_of_files(call),
    });
    let ranges = [SeqRange::one(1)];
    let mut batch = Batch::new();
    batch.ack(1, &ranges);
    world.engine().append(&batch).unwrap();
    assert_eq!(world.engine().commit_step().unwrap(), CommitStep::Blocked);
    assert_eq!(world.engine().durable(), durable);
    world.fs.clear_hook();
    world.settle();
    assert_eq!(world.engine().health(), Health::Healthy);
    assert!(world.engine().durable() > durable);
}

/// A store that writes its last log file and cannot make another.
fn exhausted_but_for_one_file() -> World {
    let mut world = World::with_options(3, options(3));
    world.open();
    world.settle();
    world.fs.set_hook(out_of_files);
    let mut seq = 1;
    while world.engine().health() == Health::Healthy {
        publish(world.engine(), seq..seq + 1);
        assert_eq!(world.engine().commit_step().unwrap(), CommitStep::Written);
        world.engine().maintain_step().unwrap_or_default();
        seq += 1;
    }
    world
}

#[test]
fn messages_are_refused_early_enough_that_acks_find_room() {
    let world = exhausted_but_for_one_file();
    let target = [MessageRef { queue: 1, seq: 5000 }];
    let mut batch = Batch::new();
    batch.enqueue(&target, 0, b"", &[7; 20_000]);
    assert!(world.engine().append(&batch).is_err());
    for seq in 1..4 {
        let ranges = [SeqRange::one(seq)];
        let mut batch = Batch::new();
        batch.ack(1, &ranges);
        world.engine().append(&batch).unwrap();
        assert_eq!(world.engine().commit_step().unwrap(), CommitStep::Written);
    }
}

#[test]
fn what_gives_room_goes_on_where_a_log_file_cannot_be_made() {
    let world = exhausted_but_for_one_file();
    world.fs.set_hook(|call| {
        let is_log = call.path.starts_with("/data/wal") && opens(call);
        is_log.then_some(Fault::OutOfFiles)
    });
    let ranges = [SeqRange { first: 1, last: 4000 }];
    let mut batch = Batch::new();
    batch.ack(1, &ranges);
    world.engine().append(&batch).unwrap();
    assert_eq!(world.engine().commit_step().unwrap(), CommitStep::Written);
    let logs = |world: &World| {
        let files = world.fs.files().into_iter();
        files.filter(|path| path.extension().is_some_and(|kind| kind == "wal")).count()
    };
    let before = logs(&world);
    for _ in 0..4 {
        assert!(world.engine().maintain_step().is_err());
    }
    assert!(logs(&world) < before, "{} of {before} log files are left", logs(&world));
}

/// Publishes and acks for a while, calling every step; whatever fails is passed over.
fn work(world: &mut World) {
    for round in 0..6 {
        for _ in 0..40 {
            let actions = vec![world.random_enqueue()];
            world.append(actions);
            if world.random.random_bool(0.3) {
                world.engine().commit_step().expect("a frame waits, it does not fail");
            }
        }
        if round % 2 == 1 {
            let acks = world.latest.queues.iter().map(|(queue, messages)| {
                let gone = messages.keys().enumerate().filter(|(at, _)| at % 8 > 0);
                let ranges = gone.map(|(_, seq)| SeqRange::one(*seq)).collect();
                Action::Ack { queue: *queue, ranges }
            });
            let acks = acks.collect();
            world.append(acks);
        }
        let engine = world.engine();
        for _ in 0..4 {
            engine.commit_step().expect("a frame waits, it does not fail");
            // What fails is tried again.
            engine.maintain_step().unwrap_or_default();
            engine.checkpoint_step().unwrap_or_default();
            engine.scrub_step(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_time_without_handles_anywhere_loses_nothing_and_leaves_nothing_behind() {
    let calls = {
        let mut world = World::with_options(4, options(4));
        world.open();
        let opened = count_opens(&world.fs);
        work(&mut world);
        let counters = world.engine().counters();
        assert!(counters.spilled_octets > 0 && counters.compacted_octets > 0, "{counters:?}");
        opened.load(Ordering::Relaxed)
    };
    for from in 0..calls {
        // One call, or a while.
        let len = if from % 3 == 0 { 1 } else { 7 };
        let mut world = World::with_options(4, options(4));
        world.open();
        fail_opens(&world.fs, from..from + len);
        work(&mut world);
        world.fs.clear_hook();
        world.settle();
        let engine = world.engine();
        assert_eq!(engine.health(), Health::Healthy, "from call {from} of {calls}");
        assert_eq!(engine.damage(), [], "from call {from} of {calls}");
        engine.close_step().unwrap();
        for _ in 0..2 {
            engine.checkpoint_step().unwrap();
        }
        engine.reclaim_step().unwrap();
        world.note_durable();
        let disk = world.fs.kill();
        let seen = inspect(Arc::new(disk), Path::new(ROOT), world.options.clone()).unwrap();
        let mut checkpoints = 0;
        for file in seen.files {
            let kind = file.path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
            let is_unknown = kind == "tmp" || (kind == "seg" && file.used.is_none());
            assert!(!is_unknown, "{file:?} is left, from call {from} of {calls}");
            checkpoints += u64::from(kind == "ckpt");
        }
        assert_eq!(checkpoints, 2, "from call {from} of {calls}");
        let fs = world.fs.power_cut(from);
        world.crash_to(fs);
        let recovered = world.open();
        assert_eq!(world.check_recovered(&recovered), Ok(()), "from call {from} of {calls}");
    }
}

#[test]
fn a_start_without_handles_fails_and_the_next_one_finds_everything() {
    let mut world = World::with_options(5, options(5));
    world.open();
    work(&mut world);
    // Segments that only the log names.
    for _ in 0..100 {
        let actions = vec![world.random_enqueue()];
        world.append(actions);
        world.drain();
        world.engine().spill_step().unwrap();
    }
    world.drain();
    let expected = world.latest.normal();
    let fs = world.fs.kill();
    world.engine = None;
    let opened =
        |fs: &SimFs| Engine::open(Arc::new(fs.clone()), Path::new(ROOT), world.options.clone());
    let calls = {
        let fs = fs.kill();
        let seen = count_opens(&fs);
        opened(&fs).unwrap();
        seen.load(Ordering::Relaxed)
    };
    let mut refused = 0;
    for (from, len) in (0..calls).flat_map(|from| [(from, 1), (from, 4), (from, calls)]) {
        let fs = fs.kill();
        fail_opens(&fs, from..from + len);
        let first = opened(&fs);
        fs.clear_hook();
        match &first {
            Ok((_, recovered)) => assert_eq!(recovered.damage, [], "calls {from}, {len}"),
            Err(_) => refused += 1,
        }
        let files = fs.files();
        let kept = files.iter().filter(|path| path.starts_with("/data/quarantine"));
        assert_eq!(kept.count(), 0, "nothing is judged, calls {from}, {len}");
        drop(first);
        let (engine, recovered) = opened(&fs).unwrap();
        assert_eq!(recovered.damage, [], "calls {from}, {len}");
        assert!(common::state_of(&engine, &recovered) == expected, "calls {from}, {len}");
    }
    assert!(refused > calls / 2, "{refused} of {calls}");
}

#[test]
fn readers_wait_for_a_handle_and_the_scrub_passes_over_what_it_cannot_open() {
    let mut world = World::with_options(6, options(6));
    world.open();
    publish(world.engine(), 1..400);
    world.settle();
    assert!(!segments(&world.fs).is_empty());
    let reopen = |world: &mut World| {
        let fs = world.fs.kill();
        world.crash_to(fs);
        world.open();
    };
    // Handles that are held for reading are given up for the one that is needed.
    reopen(&mut world);
    let mut is_first = true;
    world.fs.set_hook(move |call| {
        let fails = call.operation == Operation::Open && std::mem::take(&mut is_first);
        fails.then_some(Fault::OutOfFiles)
    });
    assert_eq!(common::read_all(world.engine(), 1).len(), 399);
    reopen(&mut world);
    world.fs.set_hook(out_of_files);
    assert!(world.engine().read(1, 0, 100).is_err());
    for _ in 0..100 {
        world.engine().scrub_step(Duration::from_secs(1));
    }
    assert_eq!(world.engine().damage(), [], "nothing is known to be wrong");
    world.fs.clear_hook();
    assert_eq!(common::read_all(world.engine(), 1).len(), 399);
}

#[test]
fn looking_at_a_store_without_handles_is_an_error_and_no_damage() {
    let mut world = World::with_options(7, options(7));
    world.open();
    publish(world.engine(), 1..400);
    world.settle();
    let fs = world.fs.kill();
    world.engine = None;
    let look = |fs: &SimFs| {
        verify(Arc::new(fs.clone()), Path::new(ROOT), world.options.clone(), &mut |_| {})
    };
    let calls = {
        let fs = fs.kill();
        let before = fs.calls();
        assert_eq!(look(&fs).unwrap(), []);
        fs.calls() - before
    };
    let mut refused = 0;
    for from in 0..calls {
        let fs = fs.kill();
        fs.set_hook(move |call| (call.index >= from).then(|| out_of_files(call)).flatten());
        match look(&fs) {
            Ok(damage) => assert_eq!(damage, [], "from call {from} of {calls}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 3, "{refused} of {calls}");
}

#[test]
fn a_running_store_says_why_it_waits_and_goes_on_by_itself() {
    let fs = SimFs::new();
    let is_short = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_short);
    let options = Options { scrub_rate: 1 << 20, ..options(8) };
    let (store, _) = Store::open(Arc::new(fs.clone()), Path::new(ROOT), options).unwrap();
    fs.set_hook(move |call| if seen.load(Ordering::SeqCst) { out_of_files(call) } else { None });
    publish(&store, 1..100);
    await_that(|| store.counters().scrubs > 0 && store.counters().scrubbed_octets > 0);
    is_short.store(true, Ordering::SeqCst);
    for seq in 100..150 {
        let target = [MessageRef { queue: 1, seq }];
        let mut batch = Batch::new();
        batch.enqueue(&target, 0, b"head", &[7; 900]);
        // It may notice before all of them are in.
        let appended = store.append(&batch);
        assert!(matches!(appended, Ok(_) | Err(StorageError::DiskFull)), "{appended:?}");
    }
    await_that(|| store.background_error().is_some_and(|error| error.contains("Too many open")));
    is_short.store(false, Ordering::SeqCst);
    await_that(|| store.background_error().is_none() && store.health() == Health::Healthy);
    publish(&store, 150..200);
    store.close().unwrap();
}

fn await_that(mut holds: impl FnMut() -> bool) {
    let (sender, waiting) = std::sync::mpsc::channel::<()>();
    for _ in 0..2000 {
        if holds() {
            return;
        }
        // Nobody sends: a wait with a bound.
        waiting.recv_timeout(Duration::from_millis(5)).unwrap_err();
    }
    drop(sender);
    panic!("it never comes to that");
}
