//! The background reading of segments: what rots is found without anybody reading it, at the pace
//! that was asked for, and as a read would have reported it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{Batch, Damage, Engine, MessageRef, Options, SeqRange, StdFs, Store};
use common::specimen::run_background;
use common::{ROOT, World};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A store with segments of several queues, closed.
fn specimen(seed: u64) -> World {
    let mut world = World::new(seed);
    world.open();
    for _ in 0..500 {
        let actions = match world.random.random_bool(0.9) {
            true => vec![world.random_enqueue()],
            false => world.random_actions(),
        };
        world.append(actions);
        if world.random.random_bool(0.2) {
            world.drain();
        }
    }
    world.settle();
    world.fs = world.fs.kill();
    world.engine = None;
    world
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "seg");
    fs.files().into_iter().filter(is_segment).collect()
}

fn options(world: &World, rate: u64) -> Options {
    Options { scrub_rate: rate, scrub_interval: DAY, ..world.options.clone() }
}

fn open(fs: &SimFs, options: Options) -> (Engine, Vec<u64>) {
    let (engine, recovered) =
        Engine::open(Arc::new(fs.clone()), Path::new(ROOT), options).expect("the store opens");
    assert_eq!(recovered.damage, [], "only the ends of segments are read while opening");
    (engine, recovered.queues.iter().map(|queue| queue.queue).collect())
}

/// Every message named lost, by queue and number.
fn lost(damage: &[Damage]) -> BTreeSet<(u64, u64)> {
    let all = damage.iter().flat_map(|damage| &damage.lost);
    all.flat_map(|lost| {
        assert!(lost.certain, "{lost:?}");
        (lost.range.first..=lost.range.last).map(|seq| (lost.queue, seq))
    })
    .collect()
}

/// Messages that a reader of all queues finds lost.
fn lost_to_readers(engine: &Engine, queues: &[u64]) -> BTreeSet<(u64, u64)> {
    for queue in queues {
        let mut from = 0;
        while let Some(block) = engine.read(*queue, from, 1 << 20).expect("the disk can be read") {
            from = block.next;
        }
    }
    lost(&engine.damage())
}

#[test]
fn rot_is_found_without_a_reader_and_named_as_a_reader_would() {
    let world = specimen(1);
    let mut random = SmallRng::seed_from_u64(2);
    let mut named = 0;
    for _ in 0..80 {
        let fs = world.fs.kill();
        let paths = segments(&fs);
        let path = &paths[random.random_range(0..paths.len())];
        let mut octets = fs.octets(path).unwrap();
        // Neither header nor footer: those are read while opening.
        let at = random.random_range(64..octets.len() * 9 / 10);
        octets[at] ^= 1 << random.random_range(0..8);
        fs.put(path, octets);
        let (engine, queues) = open(&fs.kill(), options(&world, 0));
        let expected = lost_to_readers(&engine, &queues);

        let (engine, queues) = open(&fs, options(&world, 1 << 30));
        engine.scrub_step(SECOND);
        let damage = engine.damage();
        assert_eq!(lost(&damage), expected, "octet {at} of {}", path.display());
        named += expected.len();
        for damage in &damage {
            assert_eq!(Path::new(ROOT).join(&damage.file), *path);
            let kept = damage.quarantined.as_ref().expect("there were octets to keep");
            assert!(fs.octets(&Path::new(ROOT).join(kept)).is_some());
        }
        // Given up: nobody meets it again, neither a reader nor the next pass nor the next start.
        engine.scrub_step(DAY);
        lost_to_readers(&engine, &queues);
        assert_eq!(engine.damage(), damage);
        assert_eq!(engine.counters().scrubs, 2);
        engine.close_step().unwrap();
        drop(engine);
        let (engine, queues) = open(&fs.kill(), options(&world, 1 << 30));
        assert!(lost_to_readers(&engine, &queues).is_empty());
    }
    assert!(named >= 40, "most of a segment is messages: {named}");
}

#[test]
fn the_rate_is_kept_and_a_pass_reads_every_segment_once_a_day() {
    let world = specimen(3);
    let total: usize =
        segments(&world.fs).iter().map(|path| world.fs.octets(path).unwrap().len()).sum();
    let rate = 5000;
    let (engine, _) = open(&world.fs, options(&world, rate));
    let mut read = 0;
    let mut seconds = 0;
    while engine.counters().scrubs == 0 {
        read += engine.scrub_step(SECOND);
        seconds += 1;
        // The largest message is an extent of its own, and read whole.
        assert!(read <= rate * seconds + (32 << 10), "{read} octets in {seconds} s");
        assert!(seconds < 1000);
    }
    assert_eq!(engine.counters().scrubbed_octets, read);
    assert!(read * 10 > total as u64 * 8 && read <= total as u64, "{read} of {total}");
    assert!(seconds * rate <= read + 2 * rate, "no slower either");
    // Nothing more until a day after the pass began.
    let left = DAY - SECOND * seconds as u32;
    assert_eq!(engine.scrub_step(left - SECOND * 2), 0);
    assert_eq!(engine.counters().scrubs, 1);
    assert!(engine.scrub_step(SECOND * 3) > 0, "the next pass has begun");
    assert_eq!(engine.damage(), []);
}

#[test]
fn a_rate_of_nothing_reads_nothing() {
    let world = specimen(4);
    let (engine, _) = open(&world.fs, options(&world, 0));
    let calls = world.fs.calls();
    assert_eq!(engine.scrub_step(DAY), 0);
    assert_eq!((world.fs.calls(), engine.counters().scrubs), (calls, 0));
}

#[test]
fn what_goes_while_a_pass_is_under_way_is_not_missed() {
    let mut world = specimen(5);
    let all = segments(&world.fs).len();
    let (engine, queues) = open(&world.fs, options(&world, 4000));
    // In the middle of a segment all queues are emptied, and the segments go.
    engine.scrub_step(SECOND);
    let everything = SeqRange { first: 0, last: u64::MAX - 1 };
    let mut batch = Batch::new();
    for queue in &queues {
        batch.ack(*queue, std::slice::from_ref(&everything));
    }
    engine.append(&batch).unwrap();
    world.engine = Some(engine);
    world.durable = common::Plain::default();
    world.settle();
    let engine = world.engine();
    assert!(segments(&world.fs).len() < all.div_ceil(2));
    for _ in 0..100 {
        engine.scrub_step(SECOND);
    }
    assert_eq!(engine.damage(), []);
    assert_eq!(engine.counters().scrubs, 1);
}

#[test]
fn a_segment_that_cannot_be_read_is_reported_once_and_not_given_up() {
    let world = specimen(6);
    let path = segments(&world.fs).pop().unwrap();
    let (engine, queues) = open(&world.fs, options(&world, 1 << 30));
    let bad = path.clone();
    world.fs.set_hook(move |call| {
        (call.path == bad && call.operation == Operation::Read)
            .then_some(Fault::Error(ErrorKind::Other))
    });
    engine.scrub_step(SECOND);
    engine.scrub_step(DAY);
    let damage = engine.damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(Path::new(ROOT).join(&damage[0].file), path);
    assert_eq!(damage[0].lost, []);
    world.fs.clear_hook();
    lost_to_readers(&engine, &queues);
    assert_eq!(engine.damage(), damage, "the disk answers again, and all is there");
}

#[test]
fn a_rotten_footer_is_reported_once_and_costs_nothing() {
    let world = specimen(7);
    let (engine, queues) = open(&world.fs, options(&world, 1 << 30));
    let path = segments(&world.fs).remove(0);
    let mut octets = world.fs.octets(&path).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    world.fs.put(&path, octets);
    engine.scrub_step(SECOND);
    engine.scrub_step(DAY);
    assert_eq!(engine.damage().len(), 1);
    assert!(lost_to_readers(&engine, &queues).is_empty());
    assert_eq!(engine.damage().len(), 1);
    // What lives in it is written anew: the next start does not find it again.
    run_background(&engine);
    engine.close_step().unwrap();
    drop(engine);
    let (_, again) = open(&world.fs.kill(), options(&world, 0));
    assert_eq!(again, queues);
}

#[test]
fn a_running_store_scrubs_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        Options { scrub_rate: 1 << 20, scrub_interval: Duration::ZERO, ..common::small_options(8) };
    let (store, _) = Store::open(Arc::new(StdFs), dir.path(), options).unwrap();
    for seq in 1..3000 {
        let mut batch = Batch::new();
        let target = MessageRef { queue: 1, seq };
        batch.enqueue(std::slice::from_ref(&target), 0, b"head", &[7; 400]);
        store.append(&batch).unwrap();
    }
    let pause = parking_lot::Mutex::new(());
    let is_done = || store.counters().scrubs >= 2 && store.counters().scrubbed_octets > 0;
    for _ in 0..400 {
        if is_done() {
            break;
        }
        parking_lot::Condvar::new().wait_for(&mut pause.lock(), Duration::from_millis(50));
    }
    assert!(is_done(), "not within 20 s: {:?}", store.counters());
    assert_eq!(store.damage(), []);
    store.close().unwrap();
}
