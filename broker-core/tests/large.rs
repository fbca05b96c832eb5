//! Large bodies: held once while they wait to be written, and whole from wherever they are read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::sync::Arc;

use broker_core::message::LARGE_BODY_LEN;
use broker_core::storage::sim_fs::{Fault, Operation};
use broker_core::storage::{
    Batch, CommitStep, Engine, Health, MessageRef, Options, SeqRange, StdFs,
};
use common::{Action, World};
use rand::RngExt;

const QUEUE: u64 = 1;

/// Lengths around the bounds at which a body is shared, read apart, and written past the buffers.
const LENS: [usize; 4] = [LARGE_BODY_LEN, LARGE_BODY_LEN + 7, 300_000, 2 << 20];

fn options(seed: u64) -> Options {
    Options {
        wal_file_len: 4 << 20,
        frame_len_max: 1 << 20,
        full_files: 0,
        extent_len: 64 << 10,
        own_segment_len: 1 << 20,
        compaction_len: 16 << 20,
        small_segment_len: 64 << 10,
        cache_len: 1 << 20,
        ..common::small_options(seed)
    }
}

fn body(salt: usize, len: usize) -> Arc<Vec<u8>> {
    Arc::new((0..len).map(|at| (salt + at % 251) as u8).collect())
}

fn enqueue(engine: &Engine, bodies: &[Arc<Vec<u8>>]) {
    let targets: Vec<[MessageRef; 1]> =
        (1..).take(bodies.len()).map(|seq| [MessageRef { queue: QUEUE, seq }]).collect();
    let mut batch = Batch::new();
    for (target, body) in targets.iter().zip(bodies) {
        batch.enqueue(&[], 0, b"nobody", b"");
        batch.enqueue_shared(target, 5, b"the head", body);
    }
    engine.append(&batch).unwrap();
}

fn commit(engine: &Engine) {
    while engine.commit_step().unwrap() == CommitStep::Written {}
}

/// Reads every message, and checks that each body is the one that was written and comes apart.
fn read_all(engine: &Engine, bodies: &[Arc<Vec<u8>>]) -> Vec<Arc<Vec<u8>>> {
    let mut read = Vec::new();
    let mut from = 0;
    while let Some(block) = engine.read(QUEUE, from, 1).unwrap() {
        assert_eq!(block.lost, []);
        for message in block.messages() {
            assert_eq!((message.flags, message.head), (5, b"the head".as_slice()));
            assert_eq!(message.seq, read.len() as u64 + 1);
            assert!(message.body == bodies[read.len()].as_slice(), "message {}", message.seq);
            let large = message.large_body.expect("it is the only one of its block");
            assert!(large.as_slice() == message.body && message.content == message.head);
            read.push(Arc::clone(large));
        }
        from = block.next;
    }
    assert_eq!(read.len(), bodies.len());
    read
}

#[test]
fn a_large_body_is_shared_with_readers_until_it_is_written_and_then_let_go() {
    let mut world = World::with_options(1, options(1));
    world.open();
    let bodies: Vec<_> = LENS.iter().enumerate().map(|(salt, len)| body(salt, *len)).collect();
    enqueue(world.engine(), &bodies);
    let read = read_all(world.engine(), &bodies);
    assert!(read.iter().zip(&bodies).all(|(read, body)| Arc::ptr_eq(read, body)), "not copied");
    drop(read);
    assert!(bodies.iter().all(|body| Arc::strong_count(body) == 2), "the store holds them");
    commit(world.engine());
    assert!(bodies.iter().all(|body| Arc::strong_count(body) == 1), "the store has let them go");
    let read = read_all(world.engine(), &bodies);
    let slack = |body: &Arc<Vec<u8>>| body.capacity() - body.len();
    assert!(read.iter().all(|body| slack(body) < 4096), "no more memory than the body takes");
}

#[test]
fn a_large_body_comes_back_whole_from_log_segment_and_compacted_segment() {
    let mut world = World::with_options(2, options(2));
    world.open();
    let bodies: Vec<_> = LENS.iter().enumerate().map(|(salt, len)| body(salt, *len)).collect();
    enqueue(world.engine(), &bodies);
    commit(world.engine());
    read_all(world.engine(), &bodies);
    // As much again fills the log file, and half of a segment.
    let filler = body(9, 3 << 20);
    let target = [MessageRef { queue: 2, seq: 1 }];
    let mut batch = Batch::new();
    batch.enqueue_shared(&target, 0, b"", &filler);
    world.engine().append(&batch).unwrap();
    world.settle();
    let counters = world.engine().counters();
    assert!(counters.spilled_octets > 2 << 20, "{counters:?}");
    read_all(world.engine(), &bodies);
    assert_eq!(world.engine().cached_octets(), 0, "nobody reads on in an extent of one message");
    // All but the largest go, so that its segment is rewritten.
    let mut batch = Batch::new();
    let first = [SeqRange { first: 1, last: 3 }];
    batch.ack(QUEUE, &first);
    world.engine().append(&batch).unwrap();
    world.settle();
    let block = world.engine().read_one(QUEUE, 4).unwrap().unwrap();
    let message = block.messages().next().unwrap();
    assert!(message.body == bodies[3].as_slice() && message.large_body.is_some());
    let fs = world.fs.power_cut(4);
    world.crash_to(fs);
    assert_eq!(world.open().damage, []);
    let block = world.engine().read_one(QUEUE, 4).unwrap().unwrap();
    assert!(block.messages().next().unwrap().body == bodies[3].as_slice());
}

#[test]
fn a_frame_with_large_bodies_is_written_again_whole_after_a_failed_flush() {
    let mut world = World::with_options(4, options(4));
    world.open();
    let bodies: Vec<_> = LENS.iter().enumerate().map(|(salt, len)| body(salt, *len)).collect();
    enqueue(world.engine(), &bodies);
    let mut is_first = true;
    world.fs.set_hook(move |call| {
        let is_log = call.path.extension().is_some_and(|kind| kind == "wal");
        let fails = call.operation == Operation::SyncData && is_log;
        (fails && std::mem::take(&mut is_first)).then_some(Fault::LostSync)
    });
    commit(world.engine());
    world.fs.clear_hook();
    assert_eq!(world.engine().counters().write_failures, 1);
    assert_eq!(world.engine().health(), Health::Healthy);
    read_all(world.engine(), &bodies);
    let fs = world.fs.power_cut(4);
    world.crash_to(fs);
    assert_eq!(world.open().damage, []);
    read_all(world.engine(), &bodies);
}

#[test]
fn large_and_small_bodies_agree_with_the_model_after_every_crash() {
    for seed in 0..12 {
        let options = Options { wal_file_len: 1 << 20, frame_len_max: 256 << 10, ..options(seed) };
        let mut world = World::with_options(seed, options);
        world.open();
        for _ in 0..4 {
            for _ in 0..world.random.random_range(1..12) {
                round(&mut world);
            }
            world.crash();
            let recovered = world.open();
            let checked = world.check_recovered(&recovered);
            assert_eq!(checked, Ok(()), "seed {seed}");
        }
    }
}

/// Publishes a batch, which may be larger than a file, acks something, and lets the store work.
fn round(world: &mut World) {
    let count = if world.random.random_bool(0.1) { 8 } else { world.random.random_range(1..4) };
    let mut actions = Vec::new();
    for _ in 0..count {
        let lens = [7, 3000, LARGE_BODY_LEN - 1, LARGE_BODY_LEN, 70_001, 200_001];
        let len = lens[world.random.random_range(0..lens.len())];
        let queue = world.random.random_range(1..3);
        let targets = vec![world.take_number(queue)];
        let body = body(world.random.random_range(0..250), len).to_vec();
        actions.push(Action::Enqueue { targets, flags: 1, head: vec![4; 30], body });
    }
    world.append(actions);
    let queue = world.random.random_range(1..3);
    let seqs = world.latest.queues.get(&queue).into_iter().flat_map(|all| all.keys().copied());
    let acked: Vec<SeqRange> = seqs.step_by(2).map(SeqRange::one).collect();
    if world.random.random_bool(0.5) && !acked.is_empty() {
        world.append(vec![Action::Ack { queue, ranges: acked }]);
    }
    for _ in 0..world.random.random_range(0..4) {
        world.engine().commit_step().unwrap();
    }
    if world.random.random_bool(0.4) {
        world.engine().maintain_step().unwrap();
    }
    world.note_durable();
    let expected = world.latest.queues.get(&queue).cloned().unwrap_or_default();
    let read = common::read_all(world.engine(), queue);
    // An acked message is shown until its ack is durable.
    assert!(expected.iter().all(|(seq, octets)| read.get(seq) == Some(octets)), "queue {queue}");
}

#[test]
fn a_frame_of_more_pieces_than_one_call_takes_is_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { ballast_len: 0, ..options(5) };
    // The system takes 1024 pieces at a time.
    let bodies: Vec<_> = (0..1500).map(|salt| body(salt, 3)).collect();
    {
        let (engine, _) = Engine::open(Arc::new(StdFs), dir.path(), options.clone()).unwrap();
        enqueue(&engine, &bodies);
        commit(&engine);
        assert_eq!(engine.counters().frames, 1);
    }
    let (engine, recovered) = Engine::open(Arc::new(StdFs), dir.path(), options).unwrap();
    assert_eq!(recovered.damage, []);
    let read = common::read_all(&engine, QUEUE);
    assert_eq!(read.len(), bodies.len());
    for (octets, body) in read.values().zip(&bodies) {
        assert_eq!(octets, &common::message_octets(5, b"the head", body));
    }
}
