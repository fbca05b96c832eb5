//! Random operations, steps, faults and crashes on a simulated disk; the same seed gives the same
//! run.
//!
//! 300 seeds in the normal run; `STORE_SEEDS=10000` for more, `STORE_SEED=7` for one alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::io::ErrorKind;

use broker_core::storage::Health;
use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use common::World;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    let recovered = world.open();
    assert!(recovered.is_new);
    for round in 0..4 {
        for _ in 0..world.random.random_range(20..250) {
            world.step().map_err(|error| format!("round {round}: {error}"))?;
        }
        world.crash();
        let recovered = world.open();
        world.check_recovered(&recovered).map_err(|error| format!("round {round}: {error}"))?;
    }
    world.settle();
    world.crash();
    let recovered = world.open();
    world.check_recovered(&recovered).map_err(|error| format!("after settling: {error}"))
}

/// Makes about one call in a hundred fail, in the ways in which a disk fails.
fn faulty(fs: &SimFs, seed: u64, one_in: u32) {
    let mut random = SmallRng::seed_from_u64(seed);
    fs.set_hook(move |call| {
        if random.random_range(0..one_in) != 0 {
            return None;
        }
        let error = if random.random_bool(0.5) { ErrorKind::StorageFull } else { ErrorKind::Other };
        Some(match call.operation {
            Operation::Write if random.random_bool(0.5) => Fault::ShortWrite,
            Operation::SyncData | Operation::SyncDir => Fault::LostSync,
            Operation::Create | Operation::Write | Operation::Rename | Operation::Remove => {
                Fault::Error(error)
            }
            _ => return None,
        })
    });
}

/// Makes a page of every file fail to be read once, or a few times.
fn glitch(fs: &SimFs, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for path in fs.files() {
        let len = fs.octets(&path).map_or(0, |octets| octets.len() as u64);
        fs.spoil(&path, random.random_range(0..=len), random.random_range(1..=3));
    }
}

fn run_with_faults(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    world.open();
    for round in 0..4 {
        faulty(&world.fs, seed * 10 + round, 40);
        for _ in 0..world.random.random_range(20..250) {
            // A failed step is an answer; what counts is what is there after the crash.
            let done = world.step();
            if done.is_err() && matches!(world.engine().health(), Health::Poisoned { .. }) {
                break;
            }
        }
        world.crash();
        // Start-up under faults may be refused, with an error; never with a panic or a loss.
        faulty(&world.fs, seed * 10 + round + 5, 60);
        glitch(&world.fs, seed * 10 + round);
        let mut recovered = world.try_open();
        for _ in 0..3 {
            if recovered.is_ok() {
                break;
            }
            world.crash();
            recovered = world.try_open();
        }
        world.fs.clear_hook();
        let recovered = match recovered {
            Ok(recovered) => recovered,
            Err(_) => world.open(),
        };
        world.check_recovered(&recovered).map_err(|error| format!("round {round}: {error}"))?;
    }
    Ok(())
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    match number("STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORE_SEEDS").unwrap_or(300),
    }
}

fn check(run: fn(u64) -> Result<(), String>) {
    let failures: Vec<String> = seeds()
        .filter_map(|seed| {
            let done = std::panic::catch_unwind(|| run(seed));
            done.unwrap_or_else(|_| Err("panicked, see above".to_owned()))
                .err()
                .map(|error| format!("seed {seed}: {error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} failures, first: {}", failures.len(), failures[0]);
}

#[test]
fn after_any_crash_the_store_is_at_a_batch_boundary_not_before_the_durable_mark() {
    check(run);
}

#[test]
fn the_same_holds_when_calls_fail_before_the_crash_and_during_recovery() {
    check(run_with_faults);
}
