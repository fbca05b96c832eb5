//! Faults that seeds have found, each as a story of its own: seeds tell another story when the actions change.

use std::path::Path;
use std::sync::Arc;

use broker_core::arguments::{Arguments, Value};
use broker_core::consumer::Outstanding;
use broker_core::name::QueueName;
use broker_core::queue::{Effects, Got, Queue};
use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{Batch, Engine, MessageRef, Options, SeqRange};
use broker_core::vhost::QueueDeclaration;
use broker_core::{Attributes, Broker, Message, Publication};
use proto_amqp::properties;

use crate::hand::Hand;
use crate::sim_log::{Mutation, SimLog};
use crate::world::{CONNECTION, Disk, Node, VHOST, small_options};

fn options() -> Options {
    small_options(1, Disk::Honest)
}

fn start(fs: &SimFs) -> Node {
    let opened = Engine::open(Arc::new(fs.clone()), Path::new("/data"), options());
    let (engine, recovered) = opened.unwrap();
    let log = Arc::new(SimLog::new(engine, u64::MAX, 0, Mutation::None));
    let broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
    broker.restore(&recovered, VHOST, 0);
    let vhost = broker.vhost(VHOST).unwrap_or_else(|| broker.add_vhost(VHOST).unwrap());
    Node { log, broker, vhost }
}

/// Everything appended is durable, and the broker starts again.
fn restart(fs: &SimFs, node: Node) -> (SimFs, Node) {
    node.log.commit_all().unwrap();
    drop(node);
    let fs = fs.power_cut(1);
    let node = start(&fs);
    (fs, node)
}

fn declare(node: &Node, name: &str, arguments: &[(&str, Value)]) -> Arc<Queue> {
    let arguments: Arguments =
        arguments.iter().map(|(key, value)| ((*key).into(), value.clone())).collect();
    let declaration = QueueDeclaration {
        name: QueueName::new(name).unwrap(),
        server_named: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        arguments,
    };
    node.vhost.declare_queue(declaration, CONNECTION, 0).unwrap().queue
}

fn find(node: &Node, name: &str) -> Arc<Queue> {
    node.vhost.queue(&QueueName::new(name).unwrap()).unwrap()
}

fn publish(node: &Node, queue: &Arc<Queue>, numbers: std::ops::Range<u8>) {
    let attributes = Attributes { persistent: true, ..Attributes::default() };
    let message = |number| Message::new(b"", b"q", &properties::EMPTY, vec![number], attributes);
    let list: Vec<_> = numbers.map(|number| Publication::Owned(message(number))).collect();
    let mut effects = Effects::default();
    queue.publish(&list, 0, &mut effects);
    node.vhost.carry_out(queue, &mut effects, 0);
}

fn get(queue: &Queue, count: usize) -> Vec<Got> {
    let mut effects = Effects::default();
    let got = || queue.get(false, 0, &mut effects).unwrap();
    std::iter::from_fn(got).take(count).collect()
}

/// The same, as a consumer keeps them.
fn held(queue: &Queue, count: usize) -> Vec<Outstanding> {
    get(queue, count).into_iter().map(|got| got.outstanding).collect()
}

fn numbers(got: &[Got]) -> Vec<u8> {
    got.iter().map(|got| got.message.parts().body[0]).collect()
}

fn target(queue: &str) -> [(&'static str, Value); 2] {
    [("x-dead-letter-exchange", Value::text("")), ("x-dead-letter-routing-key", Value::text(queue))]
}

/// Letters that pushed others out of a full dead-letter queue made these go on in reverse order.
#[test]
fn letters_that_die_again_keep_their_order() {
    let node = start(&SimFs::new());
    let [exchange, key] = target("last");
    let first = declare(
        &node,
        "first",
        &[("x-max-length", Value::Long(0)), exchange.clone(), {
            let [_, key] = target("middle");
            key
        }],
    );
    declare(&node, "middle", &[("x-max-length", Value::Long(1)), exchange, key]);
    let last = declare(&node, "last", &[]);
    publish(&node, &first, 1..6);
    assert_eq!(numbers(&get(&last, 9)), [1, 2, 3, 4]);
}

/// A message that came back to a full queue pushed the first one out although the queue was declared to refuse.
#[test]
fn what_comes_back_to_a_queue_that_refuses_pushes_nothing_out() {
    let node = start(&SimFs::new());
    let refuses = [("x-max-length", Value::Long(2)), ("x-overflow", Value::text("reject-publish"))];
    let queue = declare(&node, "q", &refuses);
    publish(&node, &queue, 1..3);
    let mut held = held(&queue, 2);
    publish(&node, &queue, 3..5);
    queue.requeue(&mut held, 0, &mut Effects::default());
    assert_eq!(numbers(&get(&queue, 9)), [1, 2, 3, 4]);
}

/// A queue that was too long after a restart, with what had been unacknowledged, stayed so until the next publish.
#[test]
fn a_queue_that_is_too_long_after_a_restart_drops_its_head_once_it_is_read() {
    let fs = SimFs::new();
    let node = start(&fs);
    let queue = declare(&node, "q", &[("x-max-length", Value::Long(3))]);
    publish(&node, &queue, 1..4);
    assert_eq!(get(&queue, 2).len(), 2);
    publish(&node, &queue, 4..6);
    drop(queue);
    let (_fs, node) = restart(&fs, node);
    let queue = find(&node, "q");
    assert_eq!(queue.depth().ready, 5);
    node.vhost.sweep(0);
    while node.log.load_one(0) {}
    assert_eq!(queue.depth().ready, 3);
    assert_eq!(numbers(&get(&queue, 9)), [3, 4, 5]);
}

/// After a restart octets are known about only; when the last message had gone the difference stayed.
#[test]
fn an_empty_queue_has_no_octets_after_a_restart_either() {
    let fs = SimFs::new();
    let node = start(&fs);
    let queue = declare(&node, "q", &[]);
    publish(&node, &queue, 1..3);
    let mut held = held(&queue, 2);
    queue.requeue(&mut held.drain(..1).collect(), 0, &mut Effects::default());
    queue.ack(&mut held);
    drop(queue);
    let (_fs, node) = restart(&fs, node);
    let queue = find(&node, "q");
    let hand = Hand::with_room(9);
    queue.subscribe(hand.subscription(false), |_| {}, 0, &mut Effects::default()).unwrap();
    while node.log.load_one(0) {}
    assert_eq!(numbers(&hand.take()), [1]);
    assert_eq!((queue.depth().ready, queue.depth().ready_bytes), (0, 0));
}

/// A batch moves a message from one queue to another; its flush never returns, but the page cache has it. The next
/// start finds it and has no room to write it once more. A checkpoint made then knew that the message had left the one
/// queue; a power cut took it from the other.
#[test]
fn a_restart_on_a_full_disk_gives_nothing_back_for_what_may_still_be_lost() {
    let mut outcomes = [0; 2];
    for seed in 0..40 {
        let fs = SimFs::new();
        let open = |fs: &SimFs| Engine::open(Arc::new(fs.clone()), Path::new("/data"), options());
        let (engine, _) = open(&fs).unwrap();
        let (from, to) = (MessageRef { queue: 1, seq: 1 }, MessageRef { queue: 2, seq: 1 });
        let mut batch = Batch::new();
        let targets = [from];
        batch.enqueue(&targets, 0, b"head", b"body");
        engine.append(&batch).unwrap();
        while engine.maintain_step().unwrap() {}
        engine.commit_step().unwrap();
        let (targets, ranges) = ([to], [SeqRange::one(1)]);
        let mut batch = Batch::new();
        batch.enqueue(&targets, 0, b"head", b"body");
        batch.ack(1, &ranges);
        engine.append(&batch).unwrap();
        fs.set_hook(|call| (call.operation == Operation::SyncData).then_some(Fault::Crash));
        engine.commit_step().unwrap_err();
        drop(engine);
        let fs = fs.kill();
        fs.set_hook(|call| {
            let takes_room = matches!(call.operation, Operation::Create | Operation::Write);
            let is_checkpoint = call.path.starts_with("/data/ckpt");
            let is_full = takes_room && !is_checkpoint;
            is_full.then_some(Fault::Error(std::io::ErrorKind::StorageFull))
        });
        let (engine, _) = open(&fs).unwrap();
        for _ in 0..3 {
            engine.checkpoint_step().unwrap();
            engine.retire_step().unwrap();
            engine.reclaim_step().unwrap();
        }
        drop(engine);
        let fs = fs.power_cut(seed);
        let (_, recovered) = open(&fs).unwrap();
        assert!(recovered.damage.is_empty(), "seed {seed}: {:?}", recovered.damage);
        let live = recovered.queues.iter().filter(|queue| !queue.live.is_empty());
        let live: Vec<u64> = live.map(|queue| queue.queue).collect();
        assert!(live == [1] || live == [2], "seed {seed}: the message is in {live:?}");
        outcomes[usize::from(live == [2])] += 1;
    }
    assert!(outcomes.iter().all(|times| *times > 0), "both may be: {outcomes:?}");
}
