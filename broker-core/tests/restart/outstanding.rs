//! Messages that consumers have and do not acknowledge: what memory keeps of them, and how they come back.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_core::arguments::Value;
use broker_core::consumer::{ConsumerId, Fate, Outstanding};
use broker_core::log::Log as _;
use broker_core::log::LogPosition;
use broker_core::queue::{Burial, Effects, Queue, Settle};
use broker_core::storage::sim_fs::{Call, Fault, Operation, SimFs};
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

/// Commits a transaction that rejects all that the consumer of a queue has. Gives what its client has to wait for.
fn commit_rejected(node: &Node, queue: &Arc<Queue>) -> (LogPosition, Option<Burial>) {
    let (hand, _) = all_outstanding(node, queue);
    // What is not written yet would be read from memory.
    node.keep();
    let entries = std::mem::take(&mut *hand.got.lock());
    let settle = Settle { queue: Arc::clone(queue), fate: Fate::Rejected, entries };
    let now = node.now.load(Ordering::Relaxed);
    let mut effects = Effects::default();
    effects.attend();
    let done = node.vhost().commit(&[], &mut [], vec![settle], &mut effects, now).unwrap();
    let burial = effects.take_burial(&*node.log);
    (done.position.max(effects.position), burial)
}

/// No file can be read any more, nor opened.
fn unreadable(call: &Call<'_>) -> Option<Fault> {
    let reads = matches!(call.operation, Operation::Read | Operation::Open);
    reads.then_some(Fault::Error(ErrorKind::Other))
}

/// Counts how often it says that it is over.
fn count_wakes(burial: &Burial) -> Arc<AtomicU64> {
    let wakes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&wakes);
    burial.wake(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    wakes
}

/// The machine stops as soon as the log has come to where it ends now.
fn kill_when_durable(node: Node) -> Node {
    let end = node.log.appended_up_to();
    wait_for(|| node.log.durable_up_to() >= end);
    Node::start(node.fs.kill(), 64 << 20)
}

/// A commit was answered when the log had it, although what it rejected and only the log had was still in its old queue.
#[test]
fn a_transaction_is_done_when_what_it_rejected_has_been_read_and_has_moved() {
    let node = Node::new();
    let (queue, dead) = dead_lettering(&node);
    node.fs.set_hook(unreadable);
    let burial = commit_rejected(&node, &queue).1.expect("there is much to be read");
    let wakes = count_wakes(&burial);
    assert!(!burial.is_over());
    // Those whose octets are still at hand may be on their way at this moment, in neither queue.
    wait_for(|| dead.depth().ready + queue.depth().ready == COUNT as u64);
    assert!(queue.depth().ready > 0, "the disk was read");
    node.fs.clear_hook();
    wait_for(|| burial.is_over());
    wait_for(|| wakes.load(Ordering::Relaxed) == 1);
    let node = kill_when_durable(node);
    assert_eq!(node.queue("q").depth().ready, 0);
    assert_eq!(numbers(&node.drain(&node.queue("dead"))), (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn a_transaction_whose_rejected_messages_go_elsewhere_meanwhile_is_done_with_them() {
    type Removal = fn(&Node, &Arc<Queue>);
    let purge: Removal = |_, queue| assert!(queue.purge().count > 0);
    let delete: Removal = |node, queue| {
        node.vhost().delete_queue(&queue.spec.name, None, false, false).unwrap();
    };
    for (what, remove) in [("purge", purge), ("delete", delete)] {
        let node = Node::new();
        let (queue, _) = dead_lettering(&node);
        node.fs.set_hook(unreadable);
        let burial = commit_rejected(&node, &queue).1.expect("there is much to be read");
        let wakes = count_wakes(&burial);
        remove(&node, &queue);
        // The reader of the log may have the queue in its hands.
        wait_for(|| wakes.load(Ordering::Relaxed) == 1);
        assert!(burial.is_over(), "{what}");
        node.fs.clear_hook();
        let node = kill_when_durable(node);
        let left = node.vhost().queue(&queue.spec.name).map_or(0, |queue| queue.depth().ready);
        assert_eq!(left, 0, "{what}");
    }
}

#[test]
fn nobody_waits_for_what_was_rejected_and_is_dropped() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let (position, burial) = commit_rejected(&node, &queue);
    assert!(burial.is_none(), "it is in the transaction's own step");
    wait_for(|| node.log.durable_up_to() >= position);
    let node = Node::start(node.fs.kill(), 64 << 20);
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

/// A block that was read for some messages took the counts of the others in it along.
#[test]
fn who_is_read_for_others_has_come_back_as_often_as_before() {
    const ALL: usize = 200;
    const SOME: usize = 10;
    let node = Node::new();
    let (queue, _) = dead_lettering(&node);
    let (hand, id) = subscribe(&queue, usize::MAX / 2);
    node.publish(&queue, numbered(ALL, 8), PERSISTENT);
    wait_for(|| hand.got.lock().len() == ALL);
    queue.cancel(id, 0, &mut Effects::default());
    give_back(&node, &queue, std::mem::take(&mut *hand.got.lock()));
    // Without memory messages are read one by one, but those that are to be dead-lettered together.
    let node = node.restart_with(0);
    let (queue, dead) = (node.queue("q"), node.queue("dead"));
    let (hand, id) = subscribe(&queue, SOME);
    wait_for(|| hand.got.lock().len() == SOME);
    queue.cancel(id, 0, &mut Effects::default());
    let mut rejected = std::mem::take(&mut *hand.got.lock());
    assert!(rejected.iter().all(|entry| entry.message.is_none()), "nothing is to be read");
    let mut effects = Effects::default();
    queue.reject(&mut rejected, &mut effects);
    node.vhost().carry_out(&queue, &mut effects, 0);
    wait_for(|| dead.depth().ready == SOME as u64);
    let (hand, _) = subscribe(&queue, usize::MAX / 2);
    wait_for(|| hand.got.lock().len() == ALL - SOME);
    for (number, entry) in (SOME..).zip(&*hand.got.lock()) {
        assert_eq!((entry.seq, entry.returns), (number as u64, 1));
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
