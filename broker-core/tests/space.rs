//! Space comes back, memory stays bounded, a full disk blocks publishers only, and tools tell the
//! truth.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use broker_core::storage::sim_fs::{Fault, Operation};
use broker_core::storage::{
    Batch, CommitStep, Engine, Health, MessageRef, Options, SeqRange, StorageError, inspect,
    repair, verify,
};
use common::{Action, ROOT, World};

fn publish(engine: &Engine, queue: u64, seqs: std::ops::Range<u64>, body: &[u8]) {
    let targets: Vec<[MessageRef; 1]> = seqs.map(|seq| [MessageRef { queue, seq }]).collect();
    for chunk in targets.chunks(50) {
        let mut batch = Batch::new();
        for target in chunk {
            batch.enqueue(target, 0, b"head", body);
        }
        engine.append(&batch).unwrap();
        while engine.commit_step().unwrap() == CommitStep::Written {}
    }
}

fn ack(engine: &Engine, queue: u64, ranges: &[SeqRange]) {
    let mut batch = Batch::new();
    batch.ack(queue, ranges);
    engine.append(&batch).unwrap();
    while engine.commit_step().unwrap() == CommitStep::Written {}
}

fn log_allowance(options: &Options) -> u64 {
    let files = options.full_files_max + 2 + 1 + options.spares + 2;
    files as u64 * options.wal_file_len + options.ballast_len + 64 * 1024
}

#[test]
fn one_message_in_a_thousand_pins_itself_only() {
    let mut world = World::new(1);
    world.open();
    let body = vec![5; 300];
    for round in 0..20_u64 {
        let first = round * 500 + 1;
        publish(world.engine(), 1, first..first + 500, &body);
        world.settle();
    }
    assert!(world.fs.allocated() > 3_000_000, "a backlog takes room");
    for round in 0..10_u64 {
        let first = round * 1000 + 1;
        ack(world.engine(), 1, &[SeqRange { first: first + 1, last: first + 999 }]);
    }
    world.settle();
    let live = 10 * 400;
    let allocated = world.fs.allocated();
    let allowed = 2 * live + log_allowance(&world.options);
    assert!(allocated <= allowed, "{allocated} octets for 10 messages, {allowed} allowed");
    let left = common::read_all(world.engine(), 1);
    assert_eq!(
        left.keys().copied().collect::<Vec<_>>(),
        (0..10).map(|n| n * 1000 + 1).collect::<Vec<_>>()
    );
}

#[test]
fn consumers_that_keep_up_cause_no_second_write() {
    let mut world = World::new(2);
    world.open();
    let body = vec![5; 300];
    for round in 0..60_u64 {
        let first = round * 100 + 1;
        publish(world.engine(), 1, first..first + 100, &body);
        ack(world.engine(), 1, &[SeqRange { first, last: first + 99 }]);
        world.settle();
    }
    let counters = world.engine().counters();
    assert_eq!(counters.spilled_octets, 0, "{counters:?}");
    assert!(world.fs.allocated() <= log_allowance(&world.options));
}

#[test]
fn a_drained_backlog_leaves_the_log_only_and_a_deleted_queue_nothing_of_itself() {
    let mut world = World::new(3);
    world.open();
    publish(world.engine(), 1, 1..4000, &[5; 300]);
    publish(world.engine(), 2, 1..1000, &[5; 300]);
    world.settle();
    ack(world.engine(), 1, &[SeqRange { first: 0, last: 4000 }]);
    world.append(vec![Action::DeleteQueue { queue: 2 }]);
    world.drain();
    world.settle();
    let segments = world.fs.files().into_iter().filter(|path| path.starts_with("/data/seg"));
    assert_eq!(segments.count(), 0);
    assert!(world.fs.allocated() <= log_allowance(&world.options));
}

#[test]
fn a_large_backlog_costs_no_memory_per_message() {
    let options = Options {
        wal_file_len: 4 << 20,
        frame_len_max: 1 << 20,
        file_records_max: 500_000,
        extent_len: 256 << 10,
        own_segment_len: 1 << 20,
        cache_len: 1 << 20,
        small_segment_len: 64 << 10,
        ..common::small_options(4)
    };
    let mut world = World::with_options(4, options);
    world.open();
    let count = 300_000;
    for round in 0..30_u64 {
        let first = round * count / 30 + 1;
        let targets: Vec<[MessageRef; 1]> =
            (first..first + count / 30).map(|seq| [MessageRef { queue: 1, seq }]).collect();
        let mut batch = Batch::new();
        for target in &targets {
            batch.enqueue(target, 0, b"", b"0123456789");
        }
        world.engine().append(&batch).unwrap();
        world.settle();
    }
    let held = world.engine().index_octets();
    // What the log may hold at 24 octets a message, and a little for the rest.
    let in_log = 3 * (4 << 20) / 72 * 24 * 2;
    assert!(held < in_log + 200_000, "{held} octets of index for {count} messages");
    let mut read = 0;
    let mut from = 0;
    while let Some(block) = world.engine().read(1, from, 256 << 10).unwrap() {
        read += block.len() as u64;
        from = block.next;
        assert!(world.engine().cached_octets() <= 1 << 20);
    }
    assert_eq!(read, count);
}

#[test]
fn a_full_disk_blocks_messages_keeps_acks_and_ends_by_itself() {
    let mut world = World::new(5);
    world.open();
    world.settle();
    let capacity = world.fs.allocated() + 300_000;
    world.fs.set_capacity(Some(capacity));
    let mut next = 1;
    let refused = loop {
        let target = [MessageRef { queue: 1, seq: next }];
        let mut batch = Batch::new();
        batch.enqueue(&target, 0, b"", &[6; 800]);
        match world.engine().append(&batch) {
            Ok(_) => next += 1,
            Err(error) => break error,
        }
        world.engine().commit_step().unwrap();
        world.engine().maintain_step().unwrap();
        assert!(next < 5000, "the disk never fills");
    };
    assert!(matches!(refused, StorageError::DiskFull));
    assert_eq!(world.engine().health(), Health::DiskFull);
    // Acks go on until all is gone; the committer lets them gather while there is no room.
    let engine = world.engine();
    for first in (1..next).step_by(16) {
        let ranges = [SeqRange { first, last: first + 15 }];
        let mut batch = Batch::new();
        batch.ack(1, &ranges);
        let position = engine.append(&batch).unwrap();
        for round in 0.. {
            engine.commit_step().unwrap();
            if engine.durable() >= position {
                break;
            }
            engine.maintain_step().unwrap();
            assert!(round < 100, "the ack of message {first} of {next} finds no room");
        }
    }
    assert_eq!(common::read_all(world.engine(), 1).len(), 0);
    world.settle();
    assert_eq!(world.engine().health(), Health::Healthy, "it ends by itself");
    publish(world.engine(), 1, next..next + 10, b"again");
}

#[test]
fn a_store_opens_on_a_disk_without_any_room() {
    let mut world = World::new(6);
    world.open();
    publish(world.engine(), 1, 1..500, &[5; 300]);
    let fs = world.fs.power_cut(3);
    fs.set_capacity(Some(fs.allocated()));
    world.crash_to(fs);
    let recovered = world.open();
    assert_eq!(recovered.queues[0].live.len(), 499);
    ack(world.engine(), 1, &[SeqRange { first: 1, last: 300 }]);
    assert_eq!(common::read_all(world.engine(), 1).len(), 199);
}

/// A segment that was written and could not be flushed or named stayed on the full disk that it had filled, until the
/// next start; and there was another one after each attempt.
#[test]
fn a_segment_that_cannot_be_finished_leaves_nothing_behind() {
    let of_segments = |path: &Path| path.to_string_lossy().contains("/seg");
    for operation in [Operation::SyncData, Operation::Rename, Operation::SyncDir] {
        let mut world = World::new(9);
        world.open();
        let failures = Arc::new(parking_lot::Mutex::new(0));
        let counted = Arc::clone(&failures);
        world.fs.set_hook(move |call| {
            let hits = call.operation == operation && of_segments(call.path);
            *counted.lock() += u32::from(hits);
            hits.then_some(Fault::Error(std::io::ErrorKind::StorageFull))
        });
        publish(world.engine(), 1, 1..1000, &[5; 300]);
        for _ in 0..5 {
            world.engine().maintain_step().unwrap();
        }
        assert!(*failures.lock() > 0, "{operation:?}");
        let left: Vec<_> = world.fs.files().into_iter().filter(|path| of_segments(path)).collect();
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "{operation:?}");
    }
}

#[test]
fn a_failed_flush_is_not_tried_again_on_that_file() {
    let mut world = World::new(7);
    world.open();
    publish(world.engine(), 1, 1..10, b"before");
    let failed = Arc::new(parking_lot::Mutex::new(None));
    let seen = Arc::clone(&failed);
    world.fs.set_hook(move |call| {
        let mut seen = seen.lock();
        if call.operation != Operation::SyncData || call.path.extension()? != "wal" {
            return None;
        }
        match seen.as_ref() {
            None => {
                *seen = Some(call.path.to_owned());
                Some(Fault::LostSync)
            }
            Some(path) => {
                assert_ne!(path, call.path, "flushed again after a failure");
                None
            }
        }
    });
    publish(world.engine(), 1, 10..20, b"after");
    assert!(failed.lock().is_some());
    assert_eq!(world.engine().health(), Health::Healthy);
    assert_eq!(world.engine().counters().write_failures, 1);
    world.settle();
    world.fs.clear_hook();
    let fs = world.fs.power_cut(1);
    world.crash_to(fs);
    assert_eq!(world.open().queues[0].live.len(), 19);
}

#[test]
fn two_failed_flushes_poison_the_store_and_nothing_is_durable_any_more() {
    let mut world = World::new(8);
    world.open();
    publish(world.engine(), 1, 1..10, b"before");
    let durable = world.engine().durable();
    world.fs.set_hook(|call| {
        let is_log = call.path.extension().is_some_and(|kind| kind == "wal");
        (call.operation == Operation::SyncData && is_log).then_some(Fault::LostSync)
    });
    let target = [MessageRef { queue: 1, seq: 10 }];
    let mut batch = Batch::new();
    batch.enqueue(&target, 0, b"", b"lost");
    world.engine().append(&batch).unwrap();
    assert!(world.engine().commit_step().is_err());
    assert!(matches!(world.engine().health(), Health::Poisoned { .. }));
    assert_eq!(world.engine().durable(), durable);
    assert!(matches!(world.engine().append(&batch), Err(StorageError::Poisoned { .. })));
    assert_eq!(world.engine().read_one(1, 3).unwrap().map(|block| block.len()), Some(1));
}

#[test]
fn a_batch_larger_than_a_file_is_atomic() {
    let mut world = World::new(9);
    world.open();
    let actions: Vec<Action> = (0..40)
        .map(|_| Action::Enqueue {
            targets: vec![world.take_number(1), world.take_number(2)],
            flags: 0,
            head: vec![1; 10],
            body: vec![2; 4000],
        })
        .collect();
    world.append(actions);
    // One frame of the chain after another reaches the disk, and none of it counts.
    for commits in 0..3 {
        world.engine().commit_step().unwrap();
        world.note_durable();
        assert_eq!(world.undurable.len(), 1, "after {commits} commits");
        let mut cut = World::new(9);
        cut.crash_to(world.fs.kill());
        let recovered = cut.open();
        assert!(recovered.queues.iter().all(|queue| queue.live.is_empty()));
    }
    world.drain();
    world.crash_to(world.fs.power_cut(1));
    let recovered = world.open();
    world.check_recovered(&recovered).unwrap();
    assert_eq!(recovered.queues[0].live.len(), 40);
}

#[test]
fn tools_find_damage_without_changing_anything_and_repair_settles_it() {
    let mut world = World::new(10);
    world.open();
    publish(world.engine(), 1, 1..2000, &[5; 300]);
    world.settle();
    let fs = world.fs.kill();
    world.engine = None;
    let segment =
        fs.files().into_iter().find(|path| path.extension().is_some_and(|kind| kind == "seg"));
    let segment = segment.unwrap();
    let mut octets = fs.octets(&segment).unwrap();
    octets[700] ^= 4;
    fs.put(&segment, octets);
    let before: Vec<_> = fs.files();
    let disk = || Arc::new(fs.clone());
    let seen = inspect(disk(), Path::new(ROOT), world.options.clone()).unwrap();
    assert_eq!(seen.recovered.queues[0].live.len(), 1999);
    assert!(seen.files.iter().any(|file| file.path.starts_with("seg") && file.used > Some(0)));
    let mut last = None;
    let found = verify(disk(), Path::new(ROOT), world.options.clone(), &mut |progress| {
        last = Some(progress);
    });
    let found = found.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].lost.iter().map(|lost| lost.count).sum::<u64>(), 1);
    let last = last.unwrap();
    assert_eq!(last.done, last.total);
    assert_eq!(before, fs.files(), "looking changes nothing");
    let repaired = repair(disk(), Path::new(ROOT), world.options.clone(), &mut |_| {}).unwrap();
    assert_eq!(repaired.len(), 1);
    let again = verify(disk(), Path::new(ROOT), world.options.clone(), &mut |_| {}).unwrap();
    assert_eq!(again, []);
}
