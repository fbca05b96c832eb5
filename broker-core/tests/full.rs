//! A disk that is filled to the last block by messages that come faster than they are written.
//!
//! The one idea: whatever was accepted becomes durable, however full the disk is, and so do the acks behind it; by
//! those alone room comes back. Own traffic fills the disk, or another's file takes all that is left in the middle of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::collections::VecDeque;

use broker_core::storage::{
    Batch, CommitStep, Engine, Health, MessageRef, Options, SeqRange, StorageError,
};
use common::World;
use rand::RngExt;

/// Rounds within which what can move has moved.
const ROUNDS_MAX: usize = 60;

/// Settings with log files of this length, the rest in proportion, as the server does it.
fn options(seed: u64, file_len: u64) -> Options {
    Options {
        wal_file_len: file_len,
        frame_len_max: file_len / 8,
        pending_len_max: file_len / 2,
        ballast_len: file_len * 2,
        compaction_len: file_len * 4,
        spares: 2,
        file_records_max: 500_000,
        full_files: 4,
        full_files_max: 8,
        own_segment_len: file_len / 4,
        small_segment_len: file_len / 8,
        ..common::small_options(seed)
    }
}

fn publish(engine: &Engine, seqs: std::ops::Range<u64>, body: &[u8]) -> Result<(), StorageError> {
    let targets: Vec<[MessageRef; 1]> = seqs.map(|seq| [MessageRef { queue: 1, seq }]).collect();
    let mut batch = Batch::new();
    for target in &targets {
        batch.enqueue(target, 0, b"head", body);
    }
    engine.append(&batch).map(drop)
}

/// Both threads go on until all that was appended is durable.
fn write_out(engine: &Engine, what: &str) {
    for _ in 0..ROUNDS_MAX {
        while engine.commit_step().unwrap() == CommitStep::Written {}
        if engine.durable() == engine.appended() {
            return;
        }
        engine.maintain_step().unwrap();
    }
    panic!("{what}: durable {:?} of {:?}", engine.durable(), engine.appended());
}

/// Fills the disk; answers the next number.
fn fill(world: &mut World, mut foreign_at: Option<u64>, name: &str) -> u64 {
    let file_len = world.options.wal_file_len;
    let is_polite = foreign_at.is_some();
    let (mut next, mut refusals) = (1, 0);
    while refusals < 20 {
        let count = world.random.random_range(1..8);
        let body = vec![7; world.random.random_range(1..file_len as usize / 32)];
        let waits = is_polite && world.engine().is_pressed();
        let accepted =
            if waits { Ok(()) } else { publish(world.engine(), next..next + count, &body) };
        match accepted {
            Ok(()) => next += if waits { 0 } else { count },
            Err(StorageError::DiskFull) => {
                assert_eq!(world.engine().health(), Health::DiskFull, "{name}");
                refusals += 1;
            }
            Err(error) => panic!("{name}: {error}"),
        }
        if foreign_at.take_if(|at| next >= *at).is_some() {
            let allocated = world.fs.allocated();
            world.fs.set_capacity(Some(allocated));
        }
        // The disk comes after a while only, and the rest of the store later still.
        if waits || world.random.random_bool(0.03) {
            world.engine().commit_step().unwrap();
        }
        if world.random.random_bool(0.03) || refusals > 0 {
            world.engine().maintain_step().unwrap();
        }
        assert!(next < 200_000, "{name}: the disk never fills");
    }
    next
}

fn acks_empty_a_full_disk(seed: u64, file_len: u64, is_foreign: bool) {
    let name = format!("seed {seed}, files of {file_len}, foreign {is_foreign}");
    let mut world = World::with_options(seed, options(seed, file_len));
    world.open();
    world.settle();
    let files = world.random.random_range(2..24);
    let capacity = world.fs.allocated() + files * file_len + world.random.random_range(0..file_len);
    world.fs.set_capacity(Some(capacity));
    let foreign_at = is_foreign.then(|| world.random.random_range(1..500));
    let next = fill(&mut world, foreign_at, &name);
    if seed % 3 == 2 {
        // What is durable then is not known; and it starts with not a block free.
        world.crash_to(world.fs.kill());
        world.open();
    }
    write_out(world.engine(), &name);
    let mut left: VecDeque<u64> = (1..next).collect();
    while !left.is_empty() {
        let count = world.random.random_range(1..=left.len().min(200));
        let acked: Vec<SeqRange> = left.drain(..count).map(SeqRange::one).collect();
        let mut batch = Batch::new();
        batch.ack(1, &acked);
        world.engine().append(&batch).unwrap();
        write_out(world.engine(), &format!("{name}: acks, {} left", left.len()));
    }
    assert_eq!(common::read_all(world.engine(), 1).len(), 0, "{name}");
    world.settle();
    publish(world.engine(), next..next + 10, b"again")
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    write_out(world.engine(), &name);
    world.crash_to(world.fs.kill());
    let recovered = world.open();
    let kept: Vec<u64> = recovered.queues[0].live.iter().collect();
    assert_eq!(kept, (next..next + 10).collect::<Vec<_>>(), "{name}: after the kill");
}

#[test]
fn acks_empty_a_disk_that_own_messages_have_filled() {
    for file_len in [64 << 10, 256 << 10, 1 << 20] {
        for seed in 0..12 {
            acks_empty_a_full_disk(seed, file_len, false);
        }
    }
}

#[test]
fn acks_empty_a_queue_on_a_disk_that_somebody_else_has_filled() {
    for file_len in [256 << 10, 512 << 10, 1 << 20] {
        for seed in 0..12 {
            acks_empty_a_full_disk(seed, file_len, true);
        }
    }
}
