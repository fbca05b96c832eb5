//! A broker over the store, stopped and started again: what is there afterwards, and what queues do with a backlog that
//! only the log has.
//!
//! The store runs with its threads on the simulated disk; a stop is orderly, a crash keeps what was synced. Time is the
//! test's own. Where something happens on a thread of the store the test waits for it to be seen, never for a time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, and says where"
)]

#[path = "restart/outstanding.rs"]
mod outstanding;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_core::access::PermissionSpec;
use broker_core::arguments::{Arguments, Value};
use broker_core::broker::Restored;
use broker_core::consumer::{ConnectionId, ConsumerId, Fate, Outstanding, Run, Sink, Subscription};
use broker_core::exchange::{Binding, Destination, ExchangeSpec, ExchangeType};
use broker_core::log::budget::Budget;
use broker_core::log::{Log, StoreLog};
use broker_core::name::{ExchangeName, QueueName, UserName, VhostName};
use broker_core::queue::{Effects, Queue, Settle, Unreadable};
use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{Batch, LostMessages, MessageRef, Options, SeqRange, Store};
use broker_core::vhost::QueueDeclaration;
use broker_core::{Attributes, Broker, Message, Publication, VirtualHost};
use parking_lot::Mutex;

const US: ConnectionId = ConnectionId(1);
const BATCH: usize = 256;

/// A broker and the disk under it.
struct Node {
    fs: SimFs,
    now: Arc<AtomicU64>,
    log: Arc<StoreLog>,
    broker: Broker,
    restored: Restored,
}

fn options() -> Options {
    Options {
        wal_file_len: 1 << 20,
        frame_len_max: 256 << 10,
        extent_len: 64 << 10,
        own_segment_len: 128 << 10,
        small_segment_len: 64 << 10,
        ballast_len: 64 << 10,
        scrub_interval: Duration::ZERO,
        seed: Some(1),
        ..Options::default()
    }
}

impl Node {
    fn start(fs: SimFs, budget: u64) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let (store, recovered) =
            Store::open(Arc::new(fs.clone()), Path::new("/data"), options()).unwrap();
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let log = StoreLog::new(store, Arc::new(Budget::new(budget)), 1_000_000, clock).unwrap();
        let log = Arc::new(log);
        let broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
        let restored = broker.restore(&recovered, "/", 0);
        if !restored.initialised {
            broker.bootstrap("/", "guest", b"guest").unwrap();
        }
        Self { fs, now, log, broker, restored }
    }

    fn new() -> Self {
        Self::start(SimFs::new(), 64 << 20)
    }

    /// Stops in order and starts again.
    fn restart(self) -> Self {
        self.restart_with(64 << 20)
    }

    fn restart_with(self, budget: u64) -> Self {
        self.broker.note_stop();
        self.log.close().unwrap();
        // A copy: a test may still hold queues, and with them the lock.
        Self::start(self.fs.kill(), budget)
    }

    /// Stops where it is when everything is durable, and starts again.
    fn kill(self) -> Self {
        self.keep();
        Self::start(self.fs.kill(), 64 << 20)
    }

    fn vhost(&self) -> Arc<VirtualHost> {
        self.broker.vhost("/").unwrap()
    }

    fn queue(&self, name: &str) -> Arc<Queue> {
        self.vhost().queue(&queue_name(name)).unwrap()
    }

    fn declare(&self, name: &str, arguments: &[(&str, Value)]) -> Arc<Queue> {
        let declaration = QueueDeclaration {
            name: queue_name(name),
            server_named: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: arguments_of(arguments),
        };
        self.vhost().declare_queue(declaration, US, 0).unwrap().queue
    }

    fn publish(&self, to: &Arc<Queue>, bodies: impl Iterator<Item = Vec<u8>>, with: Attributes) {
        let now = self.now.load(Ordering::Relaxed);
        let publications: Vec<_> = bodies.map(|body| publication(body, with)).collect();
        for batch in publications.chunks(BATCH) {
            let mut effects = Effects::default();
            to.publish(batch, now, &mut effects);
            assert!(effects.rejected.is_empty(), "{:?}", effects.log_refused);
            self.vhost().carry_out(to, &mut effects, now);
        }
    }

    /// Takes one message and settles it.
    fn get(&self, from: &Arc<Queue>) -> Result<Option<Vec<u8>>, Unreadable> {
        let now = self.now.load(Ordering::Relaxed);
        let mut effects = Effects::default();
        let got = from.get(true, now, &mut effects);
        self.vhost().carry_out(from, &mut effects, now);
        Ok(got?.map(|got| got.message.parts().body.to_vec()))
    }

    fn drain(&self, queue: &Arc<Queue>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.get(queue).unwrap()).collect()
    }

    /// Waits until everything appended so far is durable.
    fn keep(&self) {
        let position = self.log.appended_up_to();
        wait_for(|| self.log.durable_up_to() >= position);
    }

    fn sweep(&self) {
        self.vhost().sweep(self.now.load(Ordering::Relaxed));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a pause between looks; what is waited for is a condition"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if is_so() {
            return;
        }
        pause();
    }
    panic!("it has not come to that within 20 s");
}

fn queue_name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn arguments_of(arguments: &[(&str, Value)]) -> Arguments {
    arguments.iter().map(|(key, value)| ((*key).into(), value.clone())).collect()
}

const PERSISTENT: Attributes = Attributes { persistent: true, priority: 0, expiration: None };

fn publication(body: Vec<u8>, attributes: Attributes) -> Publication<'static> {
    Publication::Owned(Message::new(b"", b"q", &[0, 0], body, attributes))
}

fn numbered(count: usize, len: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |number| {
        let mut body = number.to_string().into_bytes();
        body.resize(len, b' ');
        body
    })
}

fn numbers(bodies: &[Vec<u8>]) -> Vec<usize> {
    let number = |body: &Vec<u8>| std::str::from_utf8(body).unwrap().trim().parse().unwrap();
    bodies.iter().map(number).collect()
}

/// A consumer that takes what it is given, up to some room.
#[derive(Default)]
struct Hand {
    room: Mutex<usize>,
    got: Mutex<Vec<Outstanding>>,
}

impl Sink for Hand {
    fn reserve(&self, _: u32, wanted: usize) -> usize {
        let mut room = self.room.lock();
        let granted = wanted.min(*room);
        *room -= granted;
        granted
    }

    fn deliver(&self, _: u32, run: &mut Run<'_>) {
        let reserved = run.is_reserved();
        let mut room = self.room.lock();
        while reserved || *room > 0 {
            let Some(delivery) = run.next() else { break };
            if !reserved {
                *room -= 1;
            }
            self.got.lock().push(delivery.keep());
        }
    }

    fn cancelled(&self, _: u32) {}
}

fn subscribe(queue: &Queue, room: usize) -> (Arc<Hand>, ConsumerId) {
    let hand = Arc::new(Hand { room: Mutex::new(room), ..Hand::default() });
    let subscription = Subscription {
        sink: Arc::clone(&hand) as Arc<_>,
        slot: 0,
        tag: "tag".into(),
        channel: "channel".into(),
        no_ack: false,
        exclusive: false,
        prefetch_count: 0,
        priority: 0,
        arguments: Arguments::new(),
    };
    let mut effects = Effects::default();
    let id = queue.subscribe(subscription, |_| {}, 0, &mut effects).unwrap();
    // That something may expire is all that there can be.
    effects.abandon();
    (hand, id)
}

#[test]
fn what_is_durable_is_there_after_a_restart_and_nothing_else_is() {
    let node = Node::new();
    let vhost = node.broker.add_vhost("other").unwrap();
    let alice = UserName::new("alice").unwrap();
    node.broker.access.add_user(alice.clone(), b"secret", vec!["monitoring".to_owned()]).unwrap();
    let spec =
        PermissionSpec { configure: "^a".to_owned(), write: "b$".to_owned(), read: String::new() };
    node.broker.access.set_permission(&alice, &vhost.name, spec.clone()).unwrap();
    let exchange = ExchangeSpec {
        name: ExchangeName::new("topics").unwrap(),
        kind: ExchangeType::Topic,
        durable: true,
        auto_delete: false,
        internal: false,
        arguments: arguments_of(&[("alternate-exchange", Value::text("amq.fanout"))]),
    };
    let fleeting = ExchangeSpec {
        name: ExchangeName::new("fleeting").unwrap(),
        durable: false,
        ..exchange.clone()
    };
    node.vhost().declare_exchange(exchange.clone()).unwrap();
    node.vhost().declare_exchange(fleeting.clone()).unwrap();
    let kept = node.declare("kept", &[("x-max-length", Value::Long(10))]);
    let passing = QueueDeclaration {
        name: queue_name("passing"),
        server_named: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        arguments: Arguments::new(),
    };
    let passing = node.vhost().declare_queue(passing, US, 0).unwrap().queue;
    for (source, queue) in [("topics", "kept"), ("fleeting", "kept"), ("topics", "passing")] {
        let binding = Binding {
            source: ExchangeName::new(source).unwrap(),
            destination: Destination::Queue(queue_name(queue)),
            routing_key: b"a.#"[..].into(),
            arguments: arguments_of(&[("k", Value::text("v"))]),
        };
        node.vhost().bind(binding, US).unwrap();
    }
    node.publish(&kept, [b"1".to_vec()].into_iter(), PERSISTENT);
    node.publish(&kept, [b"2".to_vec()].into_iter(), Attributes::default());
    node.publish(&kept, [b"3".to_vec(), b"4".to_vec()].into_iter(), PERSISTENT);
    node.publish(&passing, [b"5".to_vec()].into_iter(), PERSISTENT);
    assert_eq!(node.get(&kept), Ok(Some(b"1".to_vec())));

    let node = node.restart();
    assert!(node.restored.unreadable.is_empty(), "{:?}", node.restored.unreadable);
    assert!(node.restored.initialised);
    let vhost = node.broker.vhost("other").unwrap();
    let user = node.broker.access.user("alice").unwrap();
    assert_eq!(user.tags, ["monitoring"]);
    let found: Vec<_> = node.broker.access.permissions();
    assert!(found.contains(&(alice, vhost.name.clone(), spec)), "{found:?}");
    assert_eq!(node.vhost().exchange(&exchange.name).unwrap(), exchange);
    assert!(node.vhost().exchange(&fleeting.name).is_err());
    assert!(node.vhost().queue(&queue_name("passing")).is_err());
    let own = |binding: &Binding| !binding.source.as_str().is_empty();
    let bindings: Vec<_> = node.vhost().bindings().into_iter().filter(own).collect();
    assert_eq!(bindings.len(), 1, "{bindings:?}");
    assert_eq!(bindings[0].arguments, arguments_of(&[("k", Value::text("v"))]));
    let kept = node.queue("kept");
    assert_eq!(kept.spec.settings.max_length, Some(10));
    assert_eq!(node.drain(&kept), [b"3", b"4"]);
}

#[test]
fn a_virtual_host_that_was_deleted_and_made_again_is_the_new_one() {
    let node = Node::new();
    let name = VhostName::new("again").unwrap();
    for _ in 0..2 {
        node.broker.add_vhost("again").unwrap();
        node.broker.delete_vhost(&name).unwrap();
    }
    node.broker.add_vhost("again").unwrap();
    assert!(node.restart().broker.vhost("again").is_some());
}

#[test]
fn a_queue_within_its_limit_keeps_everything_over_a_restart() {
    const LIMIT: i64 = 60_000;
    let node = Node::new();
    let limit = [("x-max-length-bytes", Value::Long(LIMIT))];
    let queue = node.declare("q", &limit);
    // On the disk a message takes far more than its fifty octets.
    node.publish(&queue, numbered(1000, 50), PERSISTENT);
    let node = node.restart();
    let queue = node.queue("q");
    node.publish(&queue, numbered(1, 50), PERSISTENT);
    assert_eq!(queue.depth().ready, 1001);
    let all = node.drain(&queue);
    assert_eq!(numbers(&all), (0..1000).chain([0]).collect::<Vec<_>>());
    assert_eq!(queue.depth().ready_bytes, 0);
}

#[test]
fn a_queue_that_refuses_has_the_room_after_a_restart_that_it_had_before() {
    let node = Node::new();
    let limit = [
        ("x-max-length-bytes", Value::Long(60_000)),
        ("x-overflow", Value::text("reject-publish")),
    ];
    let queue = node.declare("q", &limit);
    node.publish(&queue, numbered(1000, 50), PERSISTENT);
    let node = node.kill();
    let queue = node.queue("q");
    node.publish(&queue, numbered(1, 50), PERSISTENT);
    assert_eq!(queue.depth().ready, 1001);
}

#[test]
fn a_limit_in_octets_counts_what_a_restart_has_found() {
    let limit = ("x-max-length-bytes", Value::Long(60_000));
    let refusing = [limit.clone(), ("x-overflow", Value::text("reject-publish"))];
    let mut node = Node::new();
    for name in ["refuses", "drops"] {
        let arguments: &[_] = if name == "refuses" { &refusing } else { &refusing[..1] };
        let queue = node.declare(name, arguments);
        node.publish(&queue, numbered(1_000, 60), PERSISTENT);
        // All of it is given out, and as much again comes.
        let mut held = Vec::new();
        if name == "drops" {
            let now = node.now.load(Ordering::Relaxed);
            held.extend((0..1_000).map(|_| queue.get(false, now, &mut Effects::default())));
            node.publish(&queue, numbered(1_000, 60), PERSISTENT);
        }
    }
    node = node.kill();
    // Nobody publishes or consumes: the sweep has a look.
    let queue = node.queue("drops");
    assert_eq!(queue.depth().ready, 2_000);
    wait_for(|| {
        node.sweep();
        queue.depth().ready == 1_000
    });
    assert_eq!(queue.depth().ready_bytes, 60_000);
    let queue = node.queue("refuses");
    wait_for(|| {
        node.sweep();
        queue.depth().ready_bytes == 60_000
    });
    let mut effects = Effects::default();
    queue.publish(&[publication(vec![b'x'], PERSISTENT)], 0, &mut effects);
    assert_eq!((effects.rejected.len(), queue.depth().ready), (1, 1_000));
    assert_eq!(node.drain(&queue).len(), 1_000);
    assert_eq!(queue.depth().ready_bytes, 0);
}

#[test]
fn a_queue_with_priorities_gives_the_highest_first_right_after_a_restart() {
    let node = Node::new();
    let arguments = [("x-max-priority", Value::Long(9)), ("x-max-length", Value::Long(6_000))];
    let queue = node.declare("q", &arguments);
    for priority in [1, 9] {
        let with = Attributes { priority, ..PERSISTENT };
        node.publish(&queue, (0..3_000).map(|_| vec![b'0' + priority; 500]), with);
    }
    let node = node.restart();
    let queue = node.queue("q");
    node.publish(&queue, [vec![b'x'; 500]].into_iter(), PERSISTENT);
    // One is too many, and the first goes: as ever, that is the highest.
    let first = |_| node.get(&queue).unwrap().unwrap()[0];
    assert_eq!((0..2_999).map(first).collect::<Vec<_>>(), vec![b'9'; 2_999]);
    assert_eq!((0..3_001).map(first).collect::<Vec<_>>()[..3_000], vec![b'1'; 3_000]);
}

#[test]
fn an_exchange_that_was_bound_to_itself_is_gone_with_its_binding() {
    let node = Node::new();
    let name = ExchangeName::new("x").unwrap();
    let binding = Binding {
        source: name.clone(),
        destination: Destination::Exchange(name.clone()),
        routing_key: b"k".as_slice().into(),
        arguments: Arguments::new(),
    };
    let declare = |node: &Node| {
        let exchange = ExchangeSpec {
            name: name.clone(),
            kind: ExchangeType::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::new(),
        };
        node.vhost().declare_exchange(exchange).unwrap();
    };
    declare(&node);
    node.vhost().bind(binding, US).unwrap();
    node.vhost().delete_exchange(&name, false).unwrap();
    declare(&node);
    let node = node.restart();
    let bound = node.vhost().bindings().into_iter().filter(|binding| binding.source == name);
    assert_eq!(bound.count(), 0);
}

#[test]
fn a_long_backlog_is_held_to_its_length() {
    const MAX: usize = 6_000;
    let node = Node::new();
    let queue = node.declare("q", &[("x-max-length", Value::Long(6_000))]);
    // Far more than stays in memory; nobody publishes afterwards.
    node.publish(&queue, numbered(12_000, 1024), PERSISTENT);
    wait_for(|| queue.depth().ready == MAX as u64);
    assert_eq!(numbers(&node.drain(&queue)), (6_000..12_000).collect::<Vec<_>>());
}

#[test]
fn a_message_that_expires_behind_one_that_does_not_is_found_when_that_has_gone() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    let soon = Attributes { expiration: Some(1000), ..PERSISTENT };
    for with in [PERSISTENT, soon, PERSISTENT] {
        node.publish(&queue, [vec![b'x']].into_iter(), with);
    }
    node.sweep();
    assert!(node.get(&queue).unwrap().is_some());
    node.now.store(2000, Ordering::Relaxed);
    node.sweep();
    assert_eq!(queue.depth().ready, 1);

    // The same when only the log has them.
    node.now.store(0, Ordering::Relaxed);
    node.publish(&queue, [vec![b'x']].into_iter(), soon);
    let node = node.restart();
    let queue = node.queue("q");
    node.sweep();
    assert!(node.get(&queue).unwrap().is_some());
    node.now.store(2000, Ordering::Relaxed);
    wait_for(|| {
        node.sweep();
        queue.depth().ready == 0
    });
}

fn dead_lettering(node: &Node) -> (Arc<Queue>, Arc<Queue>) {
    let dead = node.declare("dead", &[]);
    let arguments = [
        ("x-dead-letter-exchange", Value::text("")),
        ("x-dead-letter-routing-key", Value::text("dead")),
    ];
    (node.declare("q", &arguments), dead)
}

#[test]
fn a_dead_letter_waits_for_a_full_disk_and_is_in_one_queue_at_any_time() {
    let node = Node::new();
    let (queue, dead) = dead_lettering(&node);
    let soon = Attributes { expiration: Some(1000), ..PERSISTENT };
    node.publish(&queue, numbered(10, 100), soon);
    node.keep();
    node.fs.set_capacity(Some(node.fs.allocated()));
    // Until the log has noticed and has no room left for the smallest message either.
    let filler = node.declare("filler", &[]);
    let (mut fillers, mut refused) = (0, 0);
    while refused < 20 {
        let len = if refused == 0 { 60_000 } else { 10 };
        let mut effects = Effects::default();
        filler.publish(&[publication(vec![0; len], PERSISTENT)], 0, &mut effects);
        refused = if effects.log_refused.is_some() { refused + 1 } else { 0 };
        fillers += 1;
        assert!(fillers < 20_000, "the disk is never full");
        if refused > 0 || fillers % 4 == 0 {
            pause();
        }
    }
    // One that a transaction rejects waits too, and its client with it.
    let mut got = vec![queue.get(false, 0, &mut Effects::default()).unwrap().unwrap().outstanding];
    let mut effects = Effects::default();
    effects.attend();
    queue.reject(&mut got, &mut effects);
    node.vhost().carry_out(&queue, &mut effects, 0);
    let burial = effects.take_burial(&*node.log).expect("the disk is full");
    node.now.store(2000, Ordering::Relaxed);
    for _ in 0..3 {
        node.sweep();
        assert_eq!(node.get(&queue), Ok(None), "what has expired is not delivered");
        assert_eq!(queue.depth().ready + dead.depth().ready, 10);
    }
    assert!(queue.depth().ready > 0, "the disk was not full");
    assert!(!burial.is_over());
    node.fs.set_capacity(None);
    wait_for(|| {
        node.sweep();
        queue.depth().ready == 0
    });
    assert!(burial.is_over());
    assert_eq!(dead.depth().ready, 10);
    let node = node.kill();
    assert_eq!(node.queue("q").depth().ready, 0);
    let mut all = numbers(&node.drain(&node.queue("dead")));
    all.sort_unstable();
    assert_eq!(all, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_transaction_that_only_rejects_is_done_when_the_dead_letter_is_durable() {
    let node = Node::new();
    let (queue, dead) = dead_lettering(&node);
    node.publish(&queue, numbered(1, 10), PERSISTENT);
    node.keep();
    let got = queue.get(false, 0, &mut Effects::default()).unwrap().unwrap();
    let settle = Settle { queue, fate: Fate::Rejected, entries: vec![got.outstanding] };
    let before = node.log.appended_up_to();
    let mut effects = Effects::default();
    let done = node.vhost().commit(&[], &mut [], vec![settle], &mut effects, 0).unwrap();
    assert!(done.position > before, "{:?} after {before:?}", done.position);
    wait_for(|| node.log.durable_up_to() >= done.position);
    assert_eq!(dead.depth().ready, 1);
    let node = node.kill();
    assert_eq!((node.queue("q").depth().ready, node.queue("dead").depth().ready), (0, 1));
}

#[test]
fn a_get_from_a_disk_that_cannot_be_read_says_so_and_works_again_later() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    node.publish(&queue, numbered(8_000, 1024), PERSISTENT);
    let node = node.restart();
    let queue = node.queue("q");
    let fails = |call: &broker_core::storage::sim_fs::Call<'_>| {
        let reads = matches!(call.operation, Operation::Read | Operation::Open);
        reads.then_some(Fault::Error(std::io::ErrorKind::Other))
    };
    node.fs.set_hook(fails);
    assert!(queue.may_wait());
    // The first asks the disk itself; the next finds somebody at work who has failed.
    assert_eq!(node.get(&queue), Err(Unreadable));
    let (hand, consumer) = subscribe(&queue, 1);
    assert_eq!(node.get(&queue), Err(Unreadable));
    assert_eq!(queue.depth().ready, 8_000);
    node.fs.clear_hook();
    // Reading ahead is tried again by itself.
    wait_for(|| hand.got.lock().len() == 1);
    queue.cancel(consumer, 0, &mut Effects::default());
    let mut entries = std::mem::take(&mut *hand.got.lock());
    queue.requeue(&mut entries, 0, &mut Effects::default());
    assert_eq!(numbers(&node.drain(&queue)), (0..8_000).collect::<Vec<_>>());
}

#[test]
fn reading_ahead_for_many_queues_stays_within_the_memory_for_messages() {
    const BUDGET: u64 = 4 << 20;
    const QUEUES: u64 = 60;
    let node = Node::new();
    for number in 0..QUEUES {
        let queue = node.declare(&format!("q{number}"), &[]);
        node.publish(&queue, numbered(600, 1024), PERSISTENT);
    }
    let node = node.restart_with(BUDGET);
    // Consumers that take one message and then have no room: their queues read ahead.
    let hands: Vec<_> =
        (0..QUEUES).map(|number| subscribe(&node.queue(&format!("q{number}")), 1).0).collect();
    wait_for(|| hands.iter().all(|hand| hand.got.lock().len() == 1));
    let used = node.log.budget().used();
    // One block beyond it, which was read when it was not yet spent, and a message for each.
    let bound = BUDGET + (512 << 10) + QUEUES * 2048;
    assert!(used <= bound, "{used} octets of {BUDGET}");
}

/// The end of the log may have to be written once more by the restart that finds it there.
#[test]
fn what_a_restart_finds_waits_for_the_end_of_the_log() {
    let node = Node::new();
    let declared_at = node.declare("kept", &[]).defined_at;
    let node = node.kill();
    let found_at = node.queue("kept").defined_at;
    assert!(found_at >= declared_at, "{found_at:?} is before {declared_at:?}");
    wait_for(|| node.log.durable_up_to() >= found_at);
}

#[test]
fn a_message_of_another_program_is_named_settled_and_not_counted_any_more() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    node.publish(&queue, numbered(3, 100), PERSISTENT);
    // Its head is too short to be one of ours; its checksums are right.
    let target = [MessageRef { queue: queue.id.0, seq: 1_000_000 }];
    let mut batch = Batch::new();
    batch.enqueue(&target, 0, b"another's head", b"another's body");
    node.log.append(&batch).unwrap();
    let node = node.restart();
    let queue = node.queue("q");
    node.publish(&queue, numbered(5_000, 1000), PERSISTENT);
    assert_eq!(queue.depth().ready, 5_004);
    for number in (0..3).chain(0..1) {
        assert_eq!(numbers(&[node.get(&queue).unwrap().unwrap()]), [number]);
    }
    assert_eq!(queue.depth().ready, 4_999);
    let damage = node.log.store().damage();
    assert_eq!(damage.len(), 1, "{damage:?}");
    let range = SeqRange::one(1_000_000);
    let lost = LostMessages { queue: queue.id.0, range, count: 1, certain: true };
    assert_eq!(damage[0].lost, [lost]);
    assert!(damage[0].file.starts_with("wal"), "{damage:?}");
    assert!(damage[0].detail.contains("head of another program"), "{damage:?}");
    let kept = Path::new("/data").join(damage[0].quarantined.as_ref().unwrap());
    assert_eq!(node.fs.octets(&kept).unwrap(), b"another's headanother's body");
    // It does not come back, and neither does the report.
    let node = node.kill();
    let queue = node.queue("q");
    assert_eq!(numbers(&node.drain(&queue)), (1..5_000).collect::<Vec<_>>());
    assert_eq!(node.log.store().damage(), []);
}

#[test]
fn a_rotten_message_is_not_counted_any_more_when_it_was_met() {
    let node = Node::new();
    let queue = node.declare("q", &[]);
    node.publish(&queue, numbered(5_000, 1000), PERSISTENT);
    node.broker.note_stop();
    node.log.close().unwrap();
    let fs = node.fs.kill();
    let rotten = numbered(6, 1000).last().unwrap();
    let holds = |path: &PathBuf| {
        let octets = fs.octets(path).unwrap();
        octets.windows(1000).position(|found| found == rotten)
    };
    let (path, at) =
        fs.files().into_iter().find_map(|path| Some((path.clone(), holds(&path)?))).unwrap();
    let mut octets = fs.octets(&path).unwrap();
    octets[at] ^= 1;
    fs.put(&path, octets);
    // Whoever finds it: the queue that reads, or maintenance that moves the log before it does.
    for read_first in [true, false] {
        let node = Node::start(fs.kill(), 64 << 20);
        let queue = node.queue("q");
        assert_eq!(queue.depth().ready, 5_000);
        let is_found = || node.log.store().damage().iter().any(|damage| !damage.lost.is_empty());
        if !read_first {
            wait_for(is_found);
        }
        for number in (0..5).chain(6..10) {
            assert_eq!(numbers(&[node.get(&queue).unwrap().unwrap()]), [number]);
        }
        assert!(is_found());
        assert_eq!(queue.depth().ready, 4_990, "nine were taken and one is lost");
        assert_eq!(numbers(&node.drain(&queue)), (10..5_000).collect::<Vec<_>>());
        assert_eq!(queue.depth().ready, 0);
    }
}
