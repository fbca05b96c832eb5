//! Strangers, noise and mutilated sessions: whatever arrives, the broker goes on serving others.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proto_amqp::Version;
use proto_amqp::control::protocol::{basic, channel, confirm, connection, queue, tx};
use proto_amqp::{MethodId, Properties};
use tokio::runtime::Runtime;
use warren_tests::amqp::tables::{headers, int, table};
use warren_tests::amqp::{Method as _, Options, Peer, frame_of, method_payload, publish};
use warren_tests::{RawPeer, TestBroker};

/// Publishes and consumes as if nothing had happened.
async fn canary(broker: &TestBroker) {
    let mut peer = broker.amqp().await;
    let own = queue::Declare { exclusive: true, ..queue::Declare::default() };
    let name = peer.call(1, own).await.queue.to_string();
    peer.consume(1, &name, "canary").await;
    peer.publish(1, "", &name, "sings").await;
    assert_eq!(peer.expect_text(1).await, "sings");
    peer.close().await;
}

/// A session from the header to the close that uses most of the protocol, as the octets of a client.
async fn session(broker: &TestBroker) -> Vec<u8> {
    let peer = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    let options = Options::default();
    let mut octets = b"AMQP\x00\x00\x09\x01".to_vec();
    let mut add = |channel: u16, class| octets.extend(peer.encoded(channel, &class));
    add(0, options.start_ok().into_class());
    let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    add(0, tune_ok.into_class());
    add(0, options.open().into_class());
    add(1, channel::Open {}.into_class());
    add(2, channel::Open {}.into_class());
    let declare = queue::Declare {
        queue: "noise".into(),
        arguments: table([("x-max-length", int(10)), ("x-message-ttl", int(1000))]),
        ..queue::Declare::default()
    };
    add(1, declare.into_class());
    let bind = queue::Bind {
        queue: "noise".into(),
        exchange: "amq.topic".into(),
        routing_key: "a.#".into(),
        ..queue::Bind::default()
    };
    add(1, bind.into_class());
    add(1, confirm::Select::default().into_class());
    add(2, tx::Select {}.into_class());
    add(1, basic::Qos { prefetch_count: 3, global: false }.into_class());
    let consume = basic::Consume {
        queue: "noise".into(),
        consumer_tag: "tag".into(),
        ..basic::Consume::default()
    };
    add(1, consume.into_class());
    let sent = headers([("h", proto_amqp::table::Value::LongInt(1))]);
    let properties = Properties {
        headers: Some(&sent),
        delivery_mode: Some(2),
        expiration: Some(b"1000"),
        ..Properties::default()
    };
    for channel in [1, 2] {
        for (exchange, key) in [("", "noise"), ("amq.topic", "a.b"), ("amq.fanout", "")] {
            let method = basic::Publish { mandatory: true, ..publish(exchange, key) };
            octets.extend(peer.encoded_publish(channel, method, &properties, &[b'n'; 300]));
        }
    }
    let mut add = |channel: u16, class| octets.extend(peer.encoded(channel, &class));
    add(2, tx::Commit {}.into_class());
    add(1, basic::Ack { delivery_tag: 1, multiple: false }.into_class());
    add(1, basic::Nack { delivery_tag: 2, multiple: true, requeue: true }.into_class());
    add(2, basic::Get { queue: "noise".into(), no_ack: false }.into_class());
    add(2, basic::Recover { requeue: true }.into_class());
    add(1, basic::Cancel { consumer_tag: "tag".into(), nowait: false }.into_class());
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    add(1, close.into_class());
    let close = connection::Close { reply_code: 200, ..connection::Close::default() };
    add(0, close.into_class());
    octets
}

/// Something done to the octets of a session.
#[derive(Debug, Clone)]
enum Harm {
    /// Another octet at this place.
    Change(prop::sample::Index, u8),
    /// So many octets left out from here.
    Omit(prop::sample::Index, usize),
    /// Noise in between.
    Insert(prop::sample::Index, Vec<u8>),
    /// A piece a second time, somewhere else.
    Repeat(prop::sample::Index, prop::sample::Index, usize),
}

impl Harm {
    fn apply(&self, octets: &mut Vec<u8>) {
        match self {
            Self::Change(at, octet) => {
                let at = at.index(octets.len());
                octets[at] = *octet;
            }
            Self::Omit(at, count) => {
                let at = at.index(octets.len());
                let end = (at + count).min(octets.len());
                octets.drain(at..end);
            }
            Self::Insert(at, noise) => {
                let at = at.index(octets.len());
                octets.splice(at..at, noise.iter().copied());
            }
            Self::Repeat(from, to, count) => {
                let from = from.index(octets.len());
                let piece = octets[from..(from + count).min(octets.len())].to_vec();
                let to = to.index(octets.len());
                octets.splice(to..to, piece);
            }
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), any::<u8>()).prop_map(|(at, octet)| Harm::Change(at, octet)),
        1 => (index(), 1..40_usize).prop_map(|(at, count)| Harm::Omit(at, count)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, noise)| Harm::Insert(at, noise)),
        1 => (index(), index(), 1..200_usize)
            .prop_map(|(from, to, count)| Harm::Repeat(from, to, count)),
    ]
}

/// Sends octets in pieces of this length and goes away.
async fn say(broker: &TestBroker, octets: &[u8], piece_len: usize) {
    let mut peer = broker.raw_amqp().await;
    for piece in octets.chunks(piece_len) {
        // The broker may have had enough.
        if peer.try_send(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
    peer.read(Duration::from_millis(2)).await;
}

fn runner(cases: u32) -> TestRunner {
    // Failures are printed, not written beside the sources.
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn noise_harms_nobody() {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(TestBroker::start());
    let noise = (prop::collection::vec(any::<u8>(), 0..600), any::<bool>(), 1..700_usize);
    let tried = runner(96).run(&noise, |(noise, greeted, piece_len)| {
        let greeting: &[u8] = if greeted { b"AMQP\x00\x00\x09\x01" } else { b"" };
        let octets = [greeting, &noise].concat();
        runtime.block_on(say(&broker, &octets, piece_len));
        Ok(())
    });
    tried.unwrap();
    runtime.block_on(canary(&broker));
}

#[test]
fn mutilated_sessions_harm_nobody() {
    let runtime = Runtime::new().unwrap();
    let broker = runtime.block_on(TestBroker::start());
    let whole = runtime.block_on(session(&broker));
    // Unharmed it is a session to the end.
    let answer = runtime.block_on(async {
        let mut peer = broker.raw_amqp().await;
        peer.send(&whole).await;
        peer.expect_end().await
    });
    assert!(answer.ends_with(&frame_of(
        1,
        0,
        &method_payload(MethodId { class: 10, method: 51 }, b"")
    )));
    let harms = (prop::collection::vec(harm(), 1..5), 1..2000_usize);
    let tried = runner(192).run(&harms, |(harms, piece_len)| {
        let mut octets = whole.clone();
        for harm in &harms {
            harm.apply(&mut octets);
        }
        runtime.block_on(say(&broker, &octets, piece_len));
        Ok(())
    });
    tried.unwrap();
    runtime.block_on(async {
        canary(&broker).await;
        // Whoever went away left nothing behind that anybody still holds.
        let mut peer = broker.amqp().await;
        peer.send(1, queue::Delete { queue: "noise".into(), ..queue::Delete::default() }).await;
        let _: queue::DeleteOk = peer.expect(1).await;
    });
}

#[tokio::test]
async fn commands_before_login_are_refused() {
    let broker = TestBroker::start().await;
    let mut stranger = Peer::connect(broker.amqp_address(), Version::V0_9_1).await;
    stranger.start().await;
    let mut octets = Vec::new();
    for number in 0..200 {
        let declare = queue::Declare {
            queue: format!("stranger {number}").as_str().into(),
            ..queue::Declare::default()
        };
        octets.extend(stranger.encoded(1, &declare.into_class()));
        octets.extend(stranger.encoded_publish(1, publish("", "q"), &Properties::default(), b"x"));
    }
    // The broker stops listening at the first of them.
    stranger.raw().try_send(&octets).await.ok();
    stranger.expect_end().await;
    let vhost = broker.running().broker().vhost("/").unwrap();
    assert!(vhost.queues().is_empty());
}

/// Octets that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn strangers_cost_little_memory() {
    const STRANGERS: usize = 300;
    let broker = TestBroker::start().await;
    canary(&broker).await;
    let before = resident();
    let mut strangers: Vec<RawPeer> = Vec::new();
    for _ in 0..STRANGERS {
        let mut stranger = broker.raw_amqp().await;
        stranger.send(b"AMQP\x00\x00\x09\x01").await;
        // The largest frame that a stranger may begin, short of its last octets.
        let mut frame =
            frame_of(1, 0, &method_payload(MethodId { class: 10, method: 11 }, &[0; 8100]));
        frame.truncate(8000);
        stranger.send(&frame).await;
        strangers.push(stranger);
    }
    // Each of them has been read when the last one has.
    for stranger in &mut strangers {
        assert!(matches!(
            stranger.read(warren_tests::DEADLINE).await,
            warren_tests::raw::Read::Octets(_)
        ));
    }
    let each = resident().saturating_sub(before) / STRANGERS;
    // Both ends of the connection live in this process.
    assert!(each < 3 * 32 * 1024, "{each} octets for each stranger");
    canary(&broker).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_off_anywhere_leaves_nothing_behind() {
    let broker = TestBroker::start().await;
    let whole = session(&broker).await;
    for cut in (1..whole.len()).step_by(97) {
        say(&broker, &whole[..cut], whole.len()).await;
    }
    warren_tests::eventually("all of them are gone", async || {
        let vhost = broker.running().broker().vhost("/").unwrap();
        vhost.queues().iter().all(|queue| {
            let depth = queue.depth();
            depth.consumers == 0 && depth.unacked == 0
        })
    })
    .await;
    canary(&broker).await;
}
