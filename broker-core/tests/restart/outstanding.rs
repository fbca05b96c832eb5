//! Messages that consumers have and do not acknowledge: what memory keeps of them, and how they come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::arguments::Value;
use broker_core::consumer::{ConsumerId, Outstanding};
use broker_core::log::Log as _;
use broker_core::queue::{Effects, Queue};
use broker_core::storage::sim_fs::SimFs;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt as _, SeedableRng as _};

use super::{Hand, Node, PERSISTENT, dead_lettering, numbered, numbers, subscribe, wait_for};

/// Messages of 1 KiB: far more than memory keeps of what is outstanding.
const COUNT: usize = 3_000;
/// What memory keeps of them, with the step in which it is noted.
const KEPT_MAX: u64 = (256 + 64) << 10;

/// A queue of which one consumer has everything.
fn all_outstanding(node: &Node, queue: &Arc<Queue>) -> (Arc<Hand>, ConsumerId) {
    let (hand, id) = subscribe(queue, usize::MAX / 2);
    node.publish(queue, numbered(COUNT, 1024), PERSISTENT);
    wait_for(|| hand.got.lock().len() == COUNT);
    (hand, id)
}

fn give_back(node: &Node, queue: &Arc<Queue>, mut entries: Vec<Outstanding>) {
    let (now, mut effects) = (node.now.load(Ordering::Relaxed), Effects::default());
    queue.requeue(&mut entries, now, &mut effects);
    node.vhost().carry_out(queue, &mut effects, now);
}

#[test]
fn what_a_consumer_has_takes_little_memory_and_comes_back_in_order() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let (hand, id) = all_outstanding(&node, &queue);
    assert!(node.log.budget().used() <= KEPT_MAX, "{} octets", node.log.budget().used());
    assert_eq!(queue.depth().unacked_bytes, COUNT as u64 * 1024);

    queue.cancel(id, 0, &mut Effects::default());
    let mut all = std::mem::take(&mut *hand.got.lock());
    let mut random = StdRng::seed_from_u64(1);
    all.shuffle(&mut random);
    // Some are acknowledged, in between; the others come back in many steps, in any order.
    let acked: Vec<u64> = all.iter().take(COUNT / 3).map(|entry| entry.seq).collect();
    queue.ack(&mut all.drain(..COUNT / 3).collect());
    while !all.is_empty() {
        let some = random.random_range(1..200).min(all.len());
        give_back(&node, &queue, all.drain(..some).collect());
    }
    // What is new goes behind them.
    node.publish(&queue, [b"9999".to_vec()].into_iter(), PERSISTENT);
    assert_eq!(queue.depth().unacked, 0);
    let expected: Vec<usize> =
        (0..COUNT).filter(|number| !acked.contains(&(*number as u64))).collect();
    assert_eq!(numbers(&node.drain(&queue)), [expected, vec![9999]].concat());
    assert_eq!((queue.depth().ready, queue.depth().ready_bytes), (0, 0));
    assert_eq!(node.log.budget().used(), 0);
}

#[test]
fn what_comes_back_is_delivered_again_and_says_so() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let (hand, id) = all_outstanding(&node, &queue);
    queue.cancel(id, 0, &mut Effects::default());
    let all = std::mem::take(&mut *hand.got.lock());
    assert!(all.iter().any(|entry| entry.message.is_none()), "the test is too small");
    give_back(&node, &queue, all);
    let (next, _) = subscribe(&queue, usize::MAX / 2);
    wait_for(|| next.got.lock().len() == COUNT);
    for (number, entry) in next.got.lock().iter().enumerate() {
        assert_eq!((entry.seq, entry.redelivered, entry.returns), (number as u64, true, 1));
    }
    assert!(node.log.budget().used() <= KEPT_MAX, "{} octets", node.log.budget().used());
}

#[test]
fn rejected_messages_are_dead_lettered_in_the_order_in_which_they_were_rejected() {
    let node = Node::new();
    let (queue, dead) = dead_lettering(&node);
    let (hand, _) = all_outstanding(&node, &queue);
    let mut all = std::mem::take(&mut *hand.got.lock());
    all.reverse();
    // The last ones went out when memory kept nothing more, the first ones did stay in it.
    while !all.is_empty() {
        let mut some = all.drain(..100.min(all.len())).collect();
        let mut effects = Effects::default();
        queue.reject(&mut some, &mut effects);
        node.vhost().carry_out(&queue, &mut effects, node.now.load(Ordering::Relaxed));
    }
    wait_for(|| dead.depth().ready == COUNT as u64);
    assert_eq!((queue.depth().ready, queue.depth().unacked), (0, 0));
    assert_eq!(numbers(&node.drain(&dead)), (0..COUNT).rev().collect::<Vec<_>>());
    // And are gone from where they died.
    let node = node.kill();
    assert_eq!(node.queue("q").depth().ready, 0);
}

#[test]
fn many_queues_that_are_never_acknowledged_stay_within_the_memory_for_messages() {
    const BUDGET: u64 = 1 << 20;
    let node = Node::start(SimFs::new(), BUDGET);
    for number in 0..40 {
        let queue = node.declare(&format!("q{number}"), &[]);
        let (hand, _) = subscribe(&queue, usize::MAX / 2);
        node.publish(&queue, numbered(200, 1024), PERSISTENT);
        wait_for(|| hand.got.lock().len() == 200);
    }
    let used = node.log.budget().used();
    // The last one that found some left may have gone beyond it.
    assert!((BUDGET..=BUDGET + KEPT_MAX).contains(&used), "{used} octets of {BUDGET}");
}

#[test]
fn what_comes_back_again_after_a_restart_has_come_back_twice() {
    const ALL: usize = 6_000;
    // More than memory keeps of those that are outstanding, so that some come back bare.
    const SOME: usize = 2_000;
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let (hand, id) = subscribe(&queue, usize::MAX / 2);
    node.publish(&queue, numbered(ALL, 8), PERSISTENT);
    wait_for(|| hand.got.lock().len() == ALL);
    queue.cancel(id, 0, &mut Effects::default());
    give_back(&node, &queue, std::mem::take(&mut *hand.got.lock()));
    let node = node.restart();
    let queue = node.queue("q");
    let (hand, id) = subscribe(&queue, SOME);
    wait_for(|| hand.got.lock().len() == SOME);
    queue.cancel(id, 0, &mut Effects::default());
    give_back(&node, &queue, std::mem::take(&mut *hand.got.lock()));
    let (hand, _) = subscribe(&queue, usize::MAX / 2);
    wait_for(|| hand.got.lock().len() == ALL);
    for (number, entry) in hand.got.lock().iter().enumerate() {
        let returns = if number < SOME { 2 } else { 1 };
        assert_eq!((entry.seq, entry.returns), (number as u64, returns));
    }
}

#[test]
fn a_purge_takes_what_has_come_back_along() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let (hand, id) = all_outstanding(&node, &queue);
    queue.cancel(id, 0, &mut Effects::default());
    let all = std::mem::take(&mut *hand.got.lock());
    give_back(&node, &queue, all);
    assert_eq!(queue.purge().count, COUNT as u64);
    assert_eq!((queue.depth().ready, queue.depth().ready_bytes), (0, 0));
    let node = node.kill();
    assert_eq!(node.queue("q").depth().ready, 0);
}

#[test]
fn what_has_come_back_expires_where_it_stands() {
    let node = Node::new();
    let queue = node.declare("q", &[("x-message-ttl", Value::Long(1000))]);
    let (hand, id) = all_outstanding(&node, &queue);
    queue.cancel(id, 0, &mut Effects::default());
    let all = std::mem::take(&mut *hand.got.lock());
    give_back(&node, &queue, all);
    node.now.store(2000, Ordering::Relaxed);
    wait_for(|| {
        node.sweep();
        queue.depth().ready == 0
    });
}
