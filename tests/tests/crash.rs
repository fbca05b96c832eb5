//! What is confirmed is kept: the real binary is killed again and again under load, started again on the same
//! directory, and what its clients saw through all of it is held against the rules of
//! [`warren_tests::history`].
//!
//! AMQP and STOMP clients work at the same time, each in its role ([`roles`]), and come back whenever their broker does.
//! The kills come at random moments; `WARREN_CRASH_SEED` repeats the clients' choices and the moments, not what the machine
//! makes of them. `WARREN_CRASH_CYCLES` says how many kills there are. A run that finds something leaves
//! its histories, the log and the data directory below `target/tmp`, and says where.
//!
//! What is not shown here: what a power cut takes. A killed process leaves all that it has written with the operating
//! system; what was flushed and what only written is told apart by the store's own simulation.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test says with a panic that it has failed, and its seed in any case"
)]

mod crash {
    pub(super) mod amqp;
    pub(super) mod broker;
    pub(super) mod notes;
    pub(super) mod roles;
    pub(super) mod stomp;
    pub(super) mod supervisor;
}

use crash::roles::Role;
use crash::supervisor::{Plan, run, run_on_a_disk_that_forgets};
use proto_amqp::control::protocol::queue;
use tempfile::TempDir;
use warren_tests::history::Verdict;
use warren_tests::process::{Place, WarrenProcess};

/// Kills of a run, unless `WARREN_CRASH_CYCLES` says otherwise.
const CYCLES: usize = 15;

/// Kills of a broker that is asked for queues.
const KILLS_WHILE_DECLARING: usize = 5;

/// Queues that it is asked for at once, of which some are answered.
const QUEUES_AT_ONCE: usize = 100;

/// Producers, consumers, and transactions that move messages on, in both protocols and over shared queues.
const ALL_AT_ONCE: [Role; 16] = [
    Role::AmqpProducer { exchange: "", key: "work", queues: &["work"] },
    Role::AmqpProducer { exchange: "", key: "moves", queues: &["moves"] },
    Role::AmqpProducer { exchange: "fan", key: "", queues: &["fan-1", "fan-2", "fan-3"] },
    Role::StompProducer { destination: "/amq/queue/work", queues: &["work"] },
    Role::StompProducer { destination: "/amq/queue/stomp-moves", queues: &["stomp-moves"] },
    Role::StompCommitter {
        destinations: [
            ("/amq/queue/work", &["work"]),
            ("/exchange/fan", &["fan-1", "fan-2", "fan-3"]),
        ],
    },
    Role::AmqpConsumer { queue: "work" },
    Role::AmqpConsumer { queue: "work" },
    Role::StompConsumer { queue: "work" },
    Role::AmqpConsumer { queue: "fan-1" },
    Role::AmqpConsumer { queue: "fan-2" },
    Role::StompConsumer { queue: "fan-3" },
    Role::AmqpMover { from: "moves", to: ["moved", "work"] },
    Role::AmqpConsumer { queue: "moved" },
    Role::StompMover { from: "stomp-moves", to: ["stomp-moved", "work"] },
    Role::StompConsumer { queue: "stomp-moved" },
];

/// A message goes from STOMP to AMQP, from there to STOMP and back to AMQP; others go from AMQP to STOMP.
const THROUGH_THE_GATEWAY: [Role; 6] = [
    Role::StompProducer { destination: "/amq/queue/there", queues: &["there"] },
    Role::AmqpMover { from: "there", to: ["back", "back"] },
    Role::StompMover { from: "back", to: ["there-again", "there-again"] },
    Role::AmqpConsumer { queue: "there-again" },
    Role::AmqpProducer { exchange: "", key: "across", queues: &["across"] },
    Role::StompConsumer { queue: "across" },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once() {
    let queues =
        ["work", "moves", "moved", "stomp-moves", "stomp-moved", "fan-1", "fan-2", "fan-3"];
    let cycles = std::env::var("WARREN_CRASH_CYCLES").map(|cycles| cycles.parse().unwrap());
    let cycles = cycles.unwrap_or(CYCLES);
    run(Plan { name: "all-at-once", cycles, queues: &queues, roles: &ALL_AT_ONCE }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_gateway_and_back() {
    let queues = ["there", "back", "there-again", "across"];
    run(Plan { name: "gateway", cycles: 5, queues: &queues, roles: &THROUGH_THE_GATEWAY }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_forgets_is_found_out() {
    let queues = ["there", "back", "there-again", "across"];
    let plan = Plan { name: "forgets", cycles: 3, queues: &queues, roles: &THROUGH_THE_GATEWAY };
    let report = run_on_a_disk_that_forgets(plan).await;
    let counts = report.counts();
    // What was confirmed since and not acked is lost; what was there then and acked since is back.
    for certain in [Verdict::Lost, Verdict::Resurrected] {
        assert!(counts.contains_key(&certain), "{report}");
    }
    for impossible in [Verdict::Phantom, Verdict::Corrupt, Verdict::ConfirmHonesty] {
        assert!(!counts.contains_key(&impossible), "{report}");
    }
}

#[tokio::test]
async fn what_was_declared_is_there() {
    let directory = TempDir::with_prefix("warren-declared-").unwrap();
    let place = Place::new(&directory.path().join("data"));
    let mut declared: Vec<String> = Vec::new();
    for kill in 0..KILLS_WHILE_DECLARING {
        let broker = WarrenProcess::start_at(&place, &[]).await;
        let mut peer = broker.amqp().await;
        for name in &declared {
            peer.counts(1, name).await;
        }
        let names: Vec<String> =
            (0..QUEUES_AT_ONCE).map(|number| format!("q-{kill}-{number}")).collect();
        let declare = |name: &String| {
            let queue = name.as_str().into();
            queue::Declare { queue, durable: true, ..queue::Declare::default() }
        };
        for name in &names {
            peer.send(1, declare(name)).await;
        }
        let answered = rand::random_range(1..=QUEUES_AT_ONCE);
        for _ in 0..answered {
            peer.expect::<queue::DeclareOk>(1).await;
        }
        broker.kill().await;
        declared.extend(names.into_iter().take(answered));
    }
    let broker = WarrenProcess::start_at(&place, &[]).await;
    let mut peer = broker.amqp().await;
    for name in &declared {
        peer.counts(1, name).await;
    }
}
