//! What survives a stop and a kill of the real binary, rule by rule: definitions, persistent messages that were confirmed,
//! transactions; and what does not have to.
//!
//! [`crash`](../crash.rs) does the same under load and at random moments; here one thing is shown at a time.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use proto_amqp::Properties;
use proto_amqp::control::protocol::{basic, confirm, exchange, queue, tx};
use proto_stomp::{Command, OwnedFrame};
use tempfile::TempDir;
use warren_tests::amqp::tables::{table, text};
use warren_tests::amqp::{Peer, publish};
use warren_tests::disk::declare_durable;
use warren_tests::process::{Place, WarrenProcess};

/// More than a consumer may hold in memory: 256 KiB.
const MANY: usize = 600;

/// A broker on a directory that outlives it.
struct Node {
    directory: TempDir,
    broker: WarrenProcess,
}

impl Node {
    async fn start() -> Self {
        let directory = TempDir::with_prefix("warren-durability-").unwrap();
        let broker = Self::broker(&directory).await;
        Self { directory, broker }
    }

    async fn broker(directory: &TempDir) -> WarrenProcess {
        WarrenProcess::start_at(&Place::new(&directory.path().join("data")), &[]).await
    }

    /// Stops it in order and starts it again.
    async fn restart(mut self) -> Self {
        self.broker.signal("TERM");
        assert!(self.broker.exit().await.success());
        let broker = Self::broker(&self.directory).await;
        Self { broker, ..self }
    }

    /// Kills it and starts it again.
    async fn kill(self) -> Self {
        self.broker.kill().await;
        let broker = Self::broker(&self.directory).await;
        Self { broker, directory: self.directory }
    }
}

async fn declare_exchange(peer: &mut Peer, name: &str, durable: bool) {
    let (exchange, kind) = (name.into(), "direct".into());
    let declare = exchange::Declare { exchange, kind, durable, ..exchange::Declare::default() };
    peer.call(1, declare).await;
}

/// Publishes `count` persistent messages of a KiB, numbered, to a queue.
async fn publish_many(peer: &mut Peer, queue: &str, count: usize) {
    let persistent = Properties { delivery_mode: Some(2), ..Properties::default() };
    for number in 0..count {
        let body = format!("{number:04} {}", "x".repeat(1019));
        peer.publish_with(1, publish("", queue), &persistent, body.as_bytes()).await;
    }
}

/// The numbers of all messages of a dead-letter queue, sorted: what memory had and what had to be read go two ways there.
async fn dead_numbers(peer: &mut Peer) -> Vec<usize> {
    let mut numbers = numbers(peer, "dead").await;
    numbers.sort_unstable();
    numbers
}

/// The numbers of all messages of a queue.
async fn numbers(peer: &mut Peer, queue: &str) -> Vec<usize> {
    let bodies = peer.drain(1, queue).await;
    bodies.iter().map(|body| body.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// Two durable queues; what dies in `work` goes to `dead`.
async fn declare_dead_lettering(peer: &mut Peer) {
    declare_durable(peer, "dead").await;
    let arguments =
        table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]);
    let queue = "work".into();
    let declare = queue::Declare { queue, durable: true, arguments, ..queue::Declare::default() };
    peer.call(1, declare).await;
}

#[tokio::test]
async fn durable_exchanges_survive_a_restart() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_exchange(&mut peer, "kept", true).await;
    declare_exchange(&mut peer, "fleeting", false).await;
    let node = node.restart().await;
    let mut peer = node.broker.amqp().await;
    let look = |name: &str| {
        let (exchange, passive) = (name.into(), true);
        exchange::Declare { exchange, passive, ..exchange::Declare::default() }
    };
    peer.call(1, look("kept")).await;
    peer.send(1, look("fleeting")).await;
    let gone = "NOT_FOUND - no exchange 'fleeting' in vhost '/'";
    peer.expect_channel_error(1, 404, gone, (40, 10)).await;
}

#[tokio::test]
async fn durable_queues_survive_a_restart() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_durable(&mut peer, "kept").await;
    peer.declare(1, "fleeting").await;
    let node = node.restart().await;
    let mut peer = node.broker.amqp().await;
    assert_eq!(peer.counts(1, "kept").await, (0, 0));
    let (queue, passive) = ("fleeting".into(), true);
    peer.send(1, queue::Declare { queue, passive, ..queue::Declare::default() }).await;
    let gone = "NOT_FOUND - no queue 'fleeting' in vhost '/'";
    peer.expect_channel_error(1, 404, gone, (50, 10)).await;
}

#[tokio::test]
async fn durable_bindings_survive_a_restart() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_exchange(&mut peer, "kept", true).await;
    declare_exchange(&mut peer, "fleeting", false).await;
    declare_durable(&mut peer, "q").await;
    for exchange in ["kept", "fleeting"] {
        peer.bind(1, "q", exchange, "key").await;
    }
    let node = node.restart().await;
    let mut peer = node.broker.amqp().await;
    // The other binding went with its exchange, and does not come back with it.
    declare_exchange(&mut peer, "fleeting", false).await;
    peer.publish(1, "fleeting", "key", "lost").await;
    peer.publish(1, "kept", "key", "routed").await;
    assert_eq!(peer.drain(1, "q").await, ["routed"]);
}

#[tokio::test]
async fn confirmed_persistent_messages_survive_a_kill() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_durable(&mut peer, "q").await;
    peer.call(1, confirm::Select::default()).await;
    publish_many(&mut peer, "q", MANY).await;
    while peer.expect::<basic::Ack>(1).await.delivery_tag < MANY as u64 {}
    let node = node.kill().await;
    let found = numbers(&mut node.broker.amqp().await, "q").await;
    assert_eq!(found, (0..MANY).collect::<Vec<_>>());
}

#[tokio::test]
async fn transient_messages_may_be_lost_without_harm() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_durable(&mut peer, "q").await;
    peer.call(1, confirm::Select::default()).await;
    peer.publish(1, "", "q", "transient").await;
    peer.expect::<basic::Ack>(1).await;
    publish_many(&mut peer, "q", 2).await;
    while peer.expect::<basic::Ack>(1).await.delivery_tag < 3 {}
    let node = node.kill().await;
    let mut peer = node.broker.amqp().await;
    assert_eq!(peer.counts(1, "q").await, (2, 0));
    publish_many(&mut peer, "q", 1).await;
    assert_eq!(numbers(&mut peer, "q").await, [0, 1, 0]);
}

#[tokio::test]
async fn committed_transactions_are_whole_after_a_kill() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    for queue in ["from", "to", "other"] {
        declare_durable(&mut peer, queue).await;
    }
    publish_many(&mut peer, "from", 3).await;
    peer.call(1, tx::Select {}).await;
    let taken = peer.get(1, "from", false).await.unwrap();
    peer.ack(1, taken.method.delivery_tag).await;
    publish_many(&mut peer, "to", 2).await;
    publish_many(&mut peer, "other", 1).await;
    peer.call(1, tx::Commit {}).await;
    // The next one is open when the broker is killed.
    let taken = peer.get(1, "from", false).await.unwrap();
    peer.ack(1, taken.method.delivery_tag).await;
    publish_many(&mut peer, "to", 1).await;
    peer.counts(1, "to").await;
    let node = node.kill().await;
    let mut peer = node.broker.amqp().await;
    assert_eq!(numbers(&mut peer, "from").await, [1, 2]);
    assert_eq!(numbers(&mut peer, "to").await, [0, 1]);
    assert_eq!(numbers(&mut peer, "other").await, [0]);
}

/// Most of them have to be read from the log before they can be dead-lettered.
#[tokio::test]
async fn what_a_commit_rejects_is_dead_lettered_after_a_kill() {
    let node = Node::start().await;
    let mut peer = node.broker.amqp().await;
    declare_dead_lettering(&mut peer).await;
    publish_many(&mut peer, "work", MANY).await;
    peer.call(1, tx::Select {}).await;
    peer.consume(1, "work", "c").await;
    for _ in 0..MANY {
        peer.expect_delivery(1).await;
    }
    let delivery_tag = MANY as u64;
    peer.send(1, basic::Nack { delivery_tag, multiple: true, requeue: false }).await;
    peer.call(1, tx::Commit {}).await;
    let node = node.kill().await;
    let mut peer = node.broker.amqp().await;
    assert_eq!(peer.counts(1, "work").await, (0, 0));
    assert_eq!(dead_numbers(&mut peer).await, (0..MANY).collect::<Vec<_>>());
}

#[tokio::test]
async fn receipted_persistent_messages_survive_a_kill() {
    let node = Node::start().await;
    let mut peer = node.broker.stomp().await;
    for number in 0..20 {
        let send = OwnedFrame::new(Command::Send)
            .header("destination", "/queue/q")
            .header("persistent", "true")
            .header("receipt", number.to_string());
        peer.send(&send.body(number.to_string().as_bytes())).await;
    }
    for number in 0..20 {
        peer.expect_receipt(&number.to_string()).await;
    }
    let node = node.kill().await;
    let found = node.broker.amqp().await.drain(1, "q").await;
    assert_eq!(found, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// Publishes, an acknowledgement and a rejection in one STOMP transaction.
#[tokio::test]
async fn committed_stomp_transactions_are_whole_after_a_kill() {
    let node = Node::start().await;
    let mut amqp = node.broker.amqp().await;
    declare_dead_lettering(&mut amqp).await;
    declare_durable(&mut amqp, "to").await;
    amqp.call(1, confirm::Select::default()).await;
    publish_many(&mut amqp, "work", MANY).await;
    while amqp.expect::<basic::Ack>(1).await.delivery_tag < MANY as u64 {}
    let mut peer = node.broker.stomp().await;
    let subscribe = OwnedFrame::new(Command::Subscribe)
        .header("destination", "/amq/queue/work")
        .header("id", "0")
        .header("ack", "client-individual");
    peer.send(&subscribe).await;
    peer.send(&OwnedFrame::new(Command::Begin).header("transaction", "t")).await;
    for number in 0..MANY {
        let message = peer.expect(Command::Message).await;
        let id = String::from_utf8(message.get("ack").unwrap().to_vec()).unwrap();
        let settle = if number == 0 { Command::Ack } else { Command::Nack };
        let settle = OwnedFrame::new(settle).header("id", &id).header("transaction", "t");
        peer.send(&settle.header("requeue", "false")).await;
    }
    let send = OwnedFrame::new(Command::Send)
        .header("destination", "/amq/queue/to")
        .header("persistent", "true")
        .header("transaction", "t");
    peer.send(&send.body(b"sent")).await;
    let commit = OwnedFrame::new(Command::Commit).header("transaction", "t");
    peer.send(&commit.header("receipt", "done")).await;
    peer.expect_receipt("done").await;
    let node = node.kill().await;
    let mut peer = node.broker.amqp().await;
    assert_eq!(peer.counts(1, "work").await, (0, 0));
    assert_eq!(dead_numbers(&mut peer).await, (1..MANY).collect::<Vec<_>>());
    assert_eq!(peer.drain(1, "to").await, ["sent"]);
}
