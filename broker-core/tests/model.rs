//! A queue as plain maps against the store: proptest chooses the actions, and shrinks the list of
//! them when the two disagree.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use broker_core::storage::SeqRange;
use common::{Action, World};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Deed {
    Publish {
        queue: u64,
        also: Option<u64>,
        len: usize,
    },
    Ack {
        queue: u64,
        from: usize,
        count: usize,
    },
    Return {
        queue: u64,
        from: usize,
        count: usize,
    },
    Purge {
        queue: u64,
    },
    Define {
        key: u8,
        value: u8,
    },
    Forget {
        key: u8,
    },
    /// Publishes and acks in one batch.
    Move {
        from: u64,
        to: u64,
    },
    Commit,
    Spill,
    Compact,
    Checkpoint,
    Maintain,
    Kill,
    PowerCut {
        seed: u64,
    },
    Reopen,
}

fn deed() -> impl Strategy<Value = Deed> {
    let queue = || 1..4_u64;
    prop_oneof![
        8 => (queue(), proptest::option::of(queue()), 0..3000_usize)
            .prop_map(|(queue, also, len)| Deed::Publish { queue, also, len }),
        4 => (queue(), 0..8_usize, 1..6_usize)
            .prop_map(|(queue, from, count)| Deed::Ack { queue, from, count }),
        1 => (queue(), 0..8_usize, 1..6_usize)
            .prop_map(|(queue, from, count)| Deed::Return { queue, from, count }),
        1 => queue().prop_map(|queue| Deed::Purge { queue }),
        1 => (0..3_u8, any::<u8>()).prop_map(|(key, value)| Deed::Define { key, value }),
        1 => (0..3_u8).prop_map(|key| Deed::Forget { key }),
        2 => (queue(), queue()).prop_map(|(from, to)| Deed::Move { from, to }),
        6 => Just(Deed::Commit),
        1 => Just(Deed::Spill),
        1 => Just(Deed::Compact),
        1 => Just(Deed::Checkpoint),
        3 => Just(Deed::Maintain),
        1 => Just(Deed::Kill),
        1 => any::<u64>().prop_map(|seed| Deed::PowerCut { seed }),
        1 => Just(Deed::Reopen),
    ]
}

/// Numbers of a queue that are there, `count` of them beginning with the one at `from`.
fn pick(world: &World, queue: u64, from: usize, count: usize) -> Vec<SeqRange> {
    let messages = world.latest.queues.get(&queue);
    let seqs = messages.into_iter().flat_map(|messages| messages.keys());
    seqs.skip(from).take(count).map(|seq| SeqRange::one(*seq)).collect()
}

fn enqueue(world: &mut World, queues: &[u64], len: usize) -> Action {
    let targets = queues.iter().map(|queue| world.take_number(*queue)).collect();
    let body = (0..len).map(|at| (at % 251) as u8).collect();
    Action::Enqueue { targets, flags: 3, head: vec![9; 20], body }
}

fn actions(world: &mut World, deed: &Deed) -> Vec<Action> {
    match deed {
        Deed::Publish { queue, also, len } => {
            let mut queues = vec![*queue];
            queues.extend(also.filter(|also| also != queue));
            vec![enqueue(world, &queues, *len)]
        }
        Deed::Ack { queue, from, count } => {
            let ranges = pick(world, *queue, *from, *count);
            vec![Action::Ack { queue: *queue, ranges }]
        }
        Deed::Return { queue, from, count } => {
            let ranges = pick(world, *queue, *from, *count);
            vec![Action::Requeued { queue: *queue, ranges }]
        }
        Deed::Purge { queue } => {
            let last = world.next_seq.get(queue).copied().unwrap_or(0);
            vec![Action::Purge { queue: *queue, last }]
        }
        Deed::Define { key, value } => {
            vec![Action::Put { key: vec![*key], value: vec![*value; 9] }]
        }
        Deed::Forget { key } => vec![Action::Delete { key: vec![*key] }],
        Deed::Move { from, to } => {
            let ranges = pick(world, *from, 0, 1);
            let moved = enqueue(world, &[*to], 100);
            vec![moved, Action::Ack { queue: *from, ranges }]
        }
        _ => Vec::new(),
    }
}

fn perform(world: &mut World, deed: &Deed) -> Result<(), String> {
    let actions = actions(world, deed);
    world.append(actions);
    let engine = world.engine();
    match deed {
        Deed::Commit => {
            engine.commit_step().map_err(|error| error.to_string())?;
        }
        Deed::Spill => {
            engine.spill_step().map_err(|error| error.to_string())?;
        }
        Deed::Compact => {
            engine.compact_step().map_err(|error| error.to_string())?;
        }
        Deed::Checkpoint => {
            engine.checkpoint_step().map_err(|error| error.to_string())?;
        }
        Deed::Maintain => {
            engine.maintain_step().map_err(|error| error.to_string())?;
        }
        Deed::Reopen => engine.close_step().map_err(|error| error.to_string())?,
        _ => {}
    }
    world.note_durable();
    let fs = match deed {
        Deed::Kill => world.fs.kill(),
        Deed::PowerCut { seed } => world.fs.power_cut(*seed),
        Deed::Reopen => {
            assert!(world.undurable.is_empty(), "a closed store has committed everything");
            world.fs.power_cut(7)
        }
        _ => return Ok(()),
    };
    world.crash_to(fs);
    let recovered = world.open();
    world.check_recovered(&recovered)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("STORE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_and_plain_maps_agree_after_every_crash(
        deeds in proptest::collection::vec(deed(), 1..120)
    ) {
        let mut world = World::new(1);
        world.open();
        for deed in &deeds {
            let done = perform(&mut world, deed);
            prop_assert_eq!(done, Ok(()), "at {:?}", deed);
        }
        let done = perform(&mut world, &Deed::PowerCut { seed: 1 });
        prop_assert_eq!(done, Ok(()), "at the end");
    }
}
