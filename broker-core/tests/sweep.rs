//! A crash at every single call of a small workload, a second crash at every call of the recovery,
//! and each flush taken away in turn.

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
use std::sync::atomic::{AtomicBool, Ordering};

use broker_core::storage::sim_fs::{Call, Fault, Operation};
use broker_core::storage::{Durability, Options, SeqRange};
use common::{Action, World};
use rand::RngExt;

/// A workload that touches every kind of file, the same for the same seed. Stops at the first
/// error, which a crash is.
fn work(world: &mut World) {
    if world.engine.is_none() && world.try_open().is_err() {
        return;
    }
    for round in 0..8 {
        for _ in 0..40 {
            let actions = match world.random.random_bool(0.8) {
                true => vec![world.random_enqueue()],
                false => world.random_actions(),
            };
            world.append(actions);
            if world.random.random_bool(0.4) && world.engine().commit_step().is_err() {
                return;
            }
            world.note_durable();
        }
        // Seven of eight messages go, in every third round: segments become half dead.
        let of = if round % 3 == 2 { 8 } else { usize::MAX };
        let acks: Vec<Action> = world
            .latest
            .queues
            .iter()
            .map(|(queue, messages)| {
                let gone = messages.keys().enumerate().filter(|(at, _)| at % of > 0 && of == 8);
                let ranges = gone.map(|(_, seq)| SeqRange::one(*seq)).collect();
                Action::Ack { queue: *queue, ranges }
            })
            .collect();
        world.append(acks);
        let engine = world.engine();
        let steps = [
            engine.commit_step().map(|_| ()),
            engine.seal_step(),
            engine.maintain_step().map(|_| ()),
            engine.commit_step().map(|_| ()),
            engine.compact_step().map(|_| ()),
            engine.commit_step().map(|_| ()),
            if round % 2 == 0 { engine.checkpoint_step().map(|_| ()) } else { Ok(()) },
        ];
        let has_failed = steps.iter().any(Result::is_err);
        world.note_durable();
        if has_failed {
            return;
        }
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

fn crash_at(index: u64) -> impl FnMut(&Call<'_>) -> Option<Fault> + Send {
    move |call| (call.index == index).then_some(Fault::Crash)
}

fn calls_of_the_work(seed: u64) -> u64 {
    let mut world = World::with_options(seed, options(seed));
    work(&mut world);
    assert!(world.engine.is_some(), "the workload runs through");
    let counters = world.engine().counters();
    assert!(counters.spilled_octets > 0 && counters.compacted_octets > 0, "{counters:?}");
    world.fs.calls()
}

#[test]
fn a_crash_at_every_call_loses_nothing() {
    let seed = 11;
    let calls = calls_of_the_work(seed);
    for index in 0..calls {
        for cut in 0..3 {
            let mut world = World::with_options(seed, options(seed));
            world.fs.set_hook(crash_at(index));
            work(&mut world);
            assert!(world.fs.is_crashed(), "call {index} of {calls}");
            let fs = if cut == 0 { world.fs.kill() } else { world.fs.power_cut(index * 7 + cut) };
            world.crash_to(fs);
            let recovered = world.open();
            let checked = world.check_recovered(&recovered);
            assert_eq!(checked, Ok(()), "crash at call {index}, cut {cut}");
        }
    }
}

#[test]
fn a_second_crash_at_every_call_of_the_recovery_loses_nothing() {
    let seed = 12;
    let calls = calls_of_the_work(seed);
    for first in (5..calls).step_by(usize::try_from(calls / 8).expect("small")) {
        let crashed = |cut: u64| {
            let mut world = World::with_options(seed, options(seed));
            world.fs.set_hook(crash_at(first));
            work(&mut world);
            let fs = world.fs.power_cut(cut);
            world.crash_to(fs);
            world
        };
        let recovery_calls = {
            let mut world = crashed(first);
            let before = world.fs.calls();
            world.open();
            world.fs.calls() - before
        };
        for second in 0..recovery_calls {
            let mut world = crashed(first);
            world.fs.set_hook(crash_at(second));
            // What is done last in opening is done as well as can be, so opening may succeed.
            drop(world.try_open());
            assert!(world.fs.is_crashed(), "the machine stopped at call {second}");
            let fs = world.fs.power_cut(second * 3 + first);
            world.crash_to(fs);
            let recovered = world.open();
            let checked = world.check_recovered(&recovered);
            assert_eq!(checked, Ok(()), "crashes at calls {first} and {second}");
        }
    }
}

/// One kind of flush: of what, and whether while opening or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Site {
    operation: Operation,
    ends_with: &'static str,
    while_opening: bool,
}

/// Runs workloads on a disk that answers success to this flush and does nothing, with power cuts;
/// whether any run shows a loss.
fn loses_without(site: Site, seeds: std::ops::Range<u64>) -> bool {
    seeds.into_iter().any(|seed| {
        let is_opening = Arc::new(AtomicBool::new(false));
        let mut world = World::with_options(seed, options(seed));
        for round in 0..4 {
            let opening = Arc::clone(&is_opening);
            world.fs.set_hook(move |call| {
                let applies = call.operation == site.operation
                    && call.path.to_string_lossy().ends_with(site.ends_with)
                    && opening.load(Ordering::Relaxed) == site.while_opening;
                applies.then_some(Fault::IgnoredSync)
            });
            is_opening.store(true, Ordering::Relaxed);
            let opened = world.try_open();
            is_opening.store(false, Ordering::Relaxed);
            let Ok(recovered) = opened else { return true };
            if round > 0 && world.check_recovered(&recovered).is_err() {
                return true;
            }
            let steps = if world.random.random_bool(0.3) { 0 } else { 200 };
            for _ in 0..world.random.random_range(0..=steps) {
                if world.step().is_err() {
                    return true;
                }
            }
            let fs = match world.random.random_range(0..3) {
                0 => world.fs.kill(),
                _ => world.fs.power_cut(seed * 10 + round),
            };
            world.crash_to(fs);
        }
        false
    })
}

#[test]
fn each_flush_taken_away_loses_something() {
    let later = |operation, ends_with| Site { operation, ends_with, while_opening: false };
    let opening = |operation, ends_with| Site { operation, ends_with, while_opening: true };
    let sites = [
        later(Operation::SyncData, ".wal"),
        later(Operation::SyncData, ".seg.tmp"),
        later(Operation::SyncData, ".ckpt.tmp"),
        later(Operation::SyncDir, "/wal"),
        later(Operation::SyncDir, "/seg"),
        later(Operation::SyncDir, "/ckpt"),
        opening(Operation::SyncDir, "/wal"),
        opening(Operation::SyncData, "FORMAT.tmp"),
        opening(Operation::SyncDir, "/data"),
    ];
    let harmless: Vec<Site> =
        sites.into_iter().filter(|site| !loses_without(*site, 0..400)).collect();
    assert!(harmless.is_empty(), "these flushes are not missed: {harmless:?}");
}

#[test]
fn durability_os_loses_data_in_a_power_cut_and_none_when_killed() {
    let run = |seed: u64, cut: bool| {
        let options = Options { durability: Durability::Os, ..options(seed) };
        let mut world = World::with_options(seed, options);
        world.open();
        for _ in 0..150 {
            world.step().expect("no faults here");
        }
        let fs = if cut { world.fs.power_cut(seed) } else { world.fs.kill() };
        world.crash_to(fs);
        let recovered = world.open();
        world.check_recovered(&recovered)
    };
    let seeds = 0..40;
    assert!(seeds.clone().any(|seed| run(seed, true).is_err()), "the simulator bites");
    for seed in seeds {
        assert_eq!(run(seed, false), Ok(()), "seed {seed}");
    }
}
