//! A whole broker on a simulated disk: publishing, consuming, dead letters, expiry, transactions, definitions, with a
//! power cut, a full disk or a failing flush at any moment; the same seed gives the same run.
//!
//! 300 seeds in the normal run; `STORE_SEEDS=10000` for more, `STORE_SEED=7` for one alone. No thread runs: what is
//! written, read ahead, moved or given back when is decided by the seed. See `plain` for what must survive.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

#[path = "broker_crash/account.rs"]
mod account;
#[path = "broker_crash/actions.rs"]
mod actions;
#[path = "broker_crash/definitions.rs"]
mod definitions;
#[path = "broker_crash/fate.rs"]
mod fate;
#[path = "broker_crash/find.rs"]
mod find;
#[path = "broker_crash/hand.rs"]
mod hand;
#[path = "broker_crash/plain.rs"]
mod plain;
#[path = "broker_crash/sim_log.rs"]
mod sim_log;
#[path = "broker_crash/stories.rs"]
mod stories;
#[path = "broker_crash/world.rs"]
mod world;

use rand::RngExt;
use sim_log::Mutation;
use world::{Disk, World};

/// One world: a few lives of a broker, each of them ended.
fn run(seed: u64, disk: Disk, mutation: Mutation) -> Result<(), String> {
    let mut world = World::new(seed, disk, mutation);
    world.begin()?;
    for _ in 0..5 {
        world.declare_queue()?;
        world.declare_exchange()?;
        world.bind()?;
    }
    for round in 0..3 {
        live(&mut world).map_err(|error| format!("round {round}: {error}"))?;
    }
    world.rest().map_err(|error| format!("at the end: {error}"))?;
    world.crash().map_err(|error| format!("after the end: {error}"))
}

fn live(world: &mut World) -> Result<(), String> {
    let steps = world.random.random_range(20..200);
    for step in 0..steps {
        world.act().map_err(|error| format!("step {step}: {error}"))?;
        if world.must_crash {
            return world.crash().map_err(|error| format!("crash at step {step}: {error}"));
        }
    }
    if world.random.random_bool(0.2) {
        world.disconnect()?;
        return world.stop_cleanly().map_err(|error| format!("clean stop: {error}"));
    }
    world.crash().map_err(|error| format!("crash after {steps} steps: {error}"))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn outcome(seed: u64, disk: Disk, mutation: Mutation) -> Result<(), String> {
    let done = std::panic::catch_unwind(|| run(seed, disk, mutation));
    done.unwrap_or_else(|_| Err("panicked, see above".to_owned()))
}

#[test]
fn after_any_crash_every_queue_holds_what_was_confirmed_and_not_settled() {
    let seeds = match number("STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STORE_SEEDS").unwrap_or(300),
    };
    let failed: Vec<(u64, String)> = seeds
        .filter_map(|seed| Some((seed, outcome(seed, Disk::Honest, Mutation::None).err()?)))
        .collect();
    let Some((seed, error)) = failed.first() else { return };
    let again =
        format!("STORE_SEED={seed} cargo test -p broker-core --test broker_crash after_any");
    let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).take(20).collect();
    panic!("{} seeds fail, among them {seeds:?}; the first: {error}\nagain: {again}", failed.len());
}

/// Seeds of which one has to find a fault that was put in.
const SEEDS_TO_FIND: u64 = 100;

/// One of the first seeds has to find something wrong, and for the right reason.
fn is_found_out(disk: Disk, mutation: Mutation, reason: &str) {
    let mut errors = (0..SEEDS_TO_FIND).filter_map(|seed| outcome(seed, disk, mutation).err());
    let is_found = errors.any(|error| error.contains(reason));
    assert!(is_found, "no seed has found {mutation:?} on a disk that is {disk:?}");
}

#[test]
fn a_disk_that_only_says_it_has_flushed_is_found_out() {
    is_found_out(Disk::Lies, Mutation::None, "missing");
}

#[test]
fn a_store_that_does_not_flush_is_found_out() {
    is_found_out(Disk::Unflushed, Mutation::None, "missing");
}

#[test]
fn a_log_that_confirms_before_it_is_durable_is_found_out() {
    is_found_out(Disk::Honest, Mutation::ConfirmsEarly, "missing");
}

#[test]
fn a_log_that_drops_a_settlement_is_found_out() {
    is_found_out(Disk::Honest, Mutation::DropsSettlements, "too many");
}

#[test]
fn a_log_that_writes_half_a_transaction_is_found_out() {
    is_found_out(Disk::Honest, Mutation::SplitsBatches, "none of");
}

#[test]
fn a_log_that_forgets_what_was_delivered_is_found_out() {
    is_found_out(Disk::Honest, Mutation::ForgetsDelivered, "was delivered, and not flagged");
}
