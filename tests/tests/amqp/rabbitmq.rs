//! What RabbitMQ added to the protocol and clients count on: confirms, TTL, length limits, priorities.

use std::time::Duration;

use proto_amqp::Properties;
use proto_amqp::control::protocol::{AMQPClass, basic, channel, confirm, connection, queue, tx};
use proto_amqp::control::types::FieldTable;
use proto_amqp::properties::summarise;
use proto_amqp::table::Value;
use tokio::time::{Instant, sleep};
use warren_tests::amqp::tables::{flag, headers, int, long, table, text};
use warren_tests::amqp::{Incoming, Method as _, Peer, publish};
use warren_tests::{TestBroker, eventually};

const DECLARE: (u16, u16) = (50, 10);

/// The numbers of `acked` and `nacked` publishes up to number `last`, in the order of the answers.
async fn confirmed(peer: &mut Peer, last: u64) -> (Vec<u64>, Vec<u64>) {
    let (mut acked, mut nacked) = (Vec::new(), Vec::new());
    let mut waiting: Vec<u64> = (1..=last).collect();
    while !waiting.is_empty() {
        let (tag, multiple, to) = match peer.next(1).await {
            Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                (ack.delivery_tag, ack.multiple, &mut acked)
            }
            Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::Nack(nack))) => {
                assert!(nack.requeue, "brokers set it");
                (nack.delivery_tag, nack.multiple, &mut nacked)
            }
            other => panic!("{other:?}"),
        };
        assert!(waiting.contains(&tag), "{tag} is answered twice");
        let answered = |number: &u64| *number == tag || (multiple && *number < tag);
        to.extend(waiting.iter().copied().filter(answered));
        waiting.retain(|number| !answered(number));
    }
    (acked, nacked)
}

// ---- confirms ----

#[tokio::test]
async fn confirms_count_from_the_selection() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, queue::Declare { queue: "q".into(), durable: true, ..Default::default() }).await;
    peer.publish(1, "", "q", "before").await;
    peer.call(1, confirm::Select::default()).await;
    let persistent = Properties { delivery_mode: Some(2), ..Properties::default() };
    for _ in 0..50 {
        peer.publish_with(1, publish("", "q"), &persistent, b"x").await;
        peer.publish(1, "", "nobody", "x").await;
    }
    let (acked, nacked) = confirmed(&mut peer, 100).await;
    assert_eq!((acked.len(), nacked.len()), (100, 0));
    // Selecting again neither fails nor begins anew.
    peer.call(1, confirm::Select::default()).await;
    peer.publish(1, "", "q", "x").await;
    let ack: basic::Ack = peer.expect(1).await;
    assert_eq!(ack.delivery_tag, 101);
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn what_is_confirmable_is_confirmed_before_the_channel_closes() {
    let broker = TestBroker::start().await;
    for channel_alone in [true, false] {
        let mut peer = broker.amqp().await;
        peer.call(1, confirm::Select::default()).await;
        let properties = Properties::default();
        let mut octets = peer.encoded_publish(1, publish("", "nobody"), &properties, b"x");
        // In one write, so that the broker reads all of it at once.
        octets.extend(match channel_alone {
            true => peer.encoded(1, &channel::Close::default().into_class()),
            false => peer.encoded(0, &connection::Close::default().into_class()),
        });
        peer.send_octets(&octets).await;
        let ack: basic::Ack = peer.expect(1).await;
        assert_eq!(ack.delivery_tag, 1);
    }
}

#[tokio::test]
async fn return_stands_before_its_confirm() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.send(1, confirm::Select { nowait: true }).await;
    let mandatory = |key: &str| basic::Publish { mandatory: true, ..publish("", key) };
    let nothing = Properties::default();
    let mut octets = peer.encoded_publish(1, mandatory("q"), &nothing, b"routed");
    octets.extend(peer.encoded_publish(1, mandatory("nobody"), &nothing, b"back"));
    octets.extend(peer.encoded_publish(1, mandatory("q"), &nothing, b"routed"));
    peer.send_octets(&octets).await;
    let mut acked_before = 0;
    loop {
        match peer.next(1).await {
            Incoming::Content(returned) => {
                assert_eq!(returned.text(), "back");
                break;
            }
            Incoming::Method(AMQPClass::Basic(basic::AMQPMethod::Ack(ack))) => {
                acked_before = ack.delivery_tag;
            }
            other @ Incoming::Method(_) => panic!("{other:?}"),
        }
    }
    assert!(acked_before < 2, "2 was confirmed before it was returned");
    loop {
        let ack: basic::Ack = peer.expect(1).await;
        if ack.delivery_tag == 3 {
            break;
        }
    }
}

#[tokio::test]
async fn confirms_and_deliveries_count_apart() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "x").await;
    peer.call(1, confirm::Select::default()).await;
    peer.consume(1, "q", "tag").await;
    assert_eq!(peer.expect_delivery(1).await.method.delivery_tag, 1);
    peer.publish(1, "", "nobody", "x").await;
    let ack: basic::Ack = peer.expect(1).await;
    assert_eq!(ack.delivery_tag, 1);
    peer.ack(1, 1).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn confirm_and_tx_exclude_each_other() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, tx::Select {}).await;
    peer.send(1, confirm::Select::default()).await;
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    peer.expect_channel_error(1, 406, text, (85, 10)).await;
    peer.call(1, confirm::Select::default()).await;
    peer.send(1, tx::Select {}).await;
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    peer.expect_channel_error(1, 406, text, (90, 10)).await;
}

#[tokio::test]
async fn reject_publish_nacks() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = table([("x-max-length", int(2)), ("x-overflow", text("reject-publish"))]);
    peer.declare_with(1, "full", arguments).await;
    peer.declare(1, "roomy").await;
    for name in ["full", "roomy"] {
        peer.bind(1, name, "amq.fanout", "").await;
    }
    peer.call(1, confirm::Select::default()).await;
    let nothing = Properties::default();
    let mut octets = Vec::new();
    for body in ["a", "b", "c"] {
        octets.extend(peer.encoded_publish(1, publish("", "full"), &nothing, body.as_bytes()));
    }
    octets.extend(peer.encoded_publish(1, publish("", "roomy"), &nothing, b"d"));
    // One of its queues takes it, the other does not: that is a refusal.
    octets.extend(peer.encoded_publish(1, publish("amq.fanout", ""), &nothing, b"e"));
    peer.send_octets(&octets).await;
    let (acked, nacked) = confirmed(&mut peer, 5).await;
    assert_eq!((acked, nacked), (vec![1, 2, 4], vec![3, 5]));
    assert_eq!(peer.drain(1, "full").await, ["a", "b"]);
    assert_eq!(peer.drain(1, "roomy").await, ["d", "e"]);
}

// ---- user-id, alternate exchange, copies ----

#[tokio::test]
async fn foreign_user_id_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let properties = Properties { user_id: Some(b"boss"), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    let text = "PRECONDITION_FAILED - user_id property set to 'boss' but authenticated user was \
                'guest'";
    peer.expect_channel_error(1, 406, text, (60, 40)).await;
}

#[tokio::test]
async fn alternate_exchange_takes_what_is_unroutable() {
    use proto_amqp::control::protocol::exchange;
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.bind(1, "q", "amq.fanout", "").await;
    let declare = exchange::Declare {
        exchange: "e".into(),
        kind: "direct".into(),
        arguments: table([("alternate-exchange", text("amq.fanout"))]),
        ..exchange::Declare::default()
    };
    peer.call(1, declare).await;
    peer.publish(1, "e", "nobody", "caught").await;
    assert_eq!(peer.drain(1, "q").await, ["caught"]);
}

#[tokio::test]
async fn cc_and_bcc_add_routing_keys() {
    use warren_tests::amqp::tables::texts_header;
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["a", "b", "c"] {
        peer.declare(1, name).await;
    }
    let both = [texts_header("CC", &["b"]), texts_header("BCC", &["c"])].concat();
    let properties = Properties { headers: Some(&both), ..Properties::default() };
    peer.publish_with(1, publish("", "a"), &properties, b"x").await;
    for name in ["a", "b", "c"] {
        let got = peer.get(1, name, true).await.unwrap();
        assert_eq!(got.decoded().headers, Some(&texts_header("CC", &["b"])[..]));
    }
}

// ---- time ----

fn expiring(milliseconds: &str) -> Properties<'_> {
    Properties { expiration: Some(milliseconds.as_bytes()), ..Properties::default() }
}

#[tokio::test]
async fn expired_messages_are_not_delivered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish_with(1, publish("", "q"), &expiring("50"), b"short").await;
    peer.publish_with(1, publish("", "q"), &expiring("60000"), b"long").await;
    peer.publish(1, "", "q", "forever").await;
    eventually("one has expired", async || peer.counts(1, "q").await.0 == 2).await;
    assert_eq!(peer.drain(1, "q").await, ["long", "forever"]);
}

#[tokio::test]
async fn expired_message_waits_behind_a_live_one_but_is_never_delivered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "head").await;
    peer.publish_with(1, publish("", "q"), &expiring("1"), b"behind").await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(peer.counts(1, "q").await.0, 2, "only the head is looked at");
    assert_eq!(peer.drain(1, "q").await, ["head"]);
}

#[tokio::test]
async fn queue_ttl_expires_messages() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-message-ttl", int(100))])).await;
    let published = Instant::now();
    // The shorter of the two holds.
    peer.publish_with(1, publish("", "q"), &expiring("60000"), b"x").await;
    peer.publish(1, "", "q", "x").await;
    eventually("both expire", async || peer.counts(1, "q").await.0 == 0).await;
    // The broker counts whole milliseconds.
    assert!(published.elapsed() >= Duration::from_millis(99), "{:?}", published.elapsed());
    // On a busy machine one may expire before it can be had.
    eventually("one is had in time", async || {
        peer.publish(1, "", "q", "given back").await;
        peer.get(1, "q", false).await.is_some()
    })
    .await;
    sleep(Duration::from_millis(200)).await;
    // Its time runs on while it is unacknowledged.
    let requeue = true;
    peer.send(1, basic::Nack { delivery_tag: 1, multiple: false, requeue }).await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn ttl_of_zero_reaches_only_who_is_waiting() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-message-ttl", int(0))])).await;
    peer.publish(1, "", "q", "to nobody").await;
    assert_eq!(peer.counts(1, "q").await.0, 0);
    peer.consume(1, "q", "tag").await;
    peer.publish(1, "", "q", "handed over").await;
    assert_eq!(peer.expect_text(1).await, "handed over");
}

#[tokio::test]
async fn unused_queue_expires() {
    let broker = TestBroker::start().await;
    let (mut peer, mut watcher) = (broker.amqp().await, broker.amqp().await);
    let declare = |name: &str| {
        let arguments = table([("x-expires", int(400))]);
        queue::Declare { queue: name.into(), arguments, ..queue::Declare::default() }
    };
    // In one breath, so that a busy machine leaves no time between the two.
    let consume = basic::Consume { queue: "consumed".into(), ..basic::Consume::default() };
    let mut octets = peer.encoded(1, &declare("consumed").into_class());
    octets.extend(peer.encoded(1, &consume.into_class()));
    peer.send_octets(&octets).await;
    let _: queue::DeclareOk = peer.expect(1).await;
    let _: basic::ConsumeOk = peer.expect(1).await;
    let since = Instant::now();
    peer.call(1, declare("unused")).await;
    peer.publish(1, "", "unused", "lost with it").await;
    // Looking at it would be a use of it: ask for something that is none.
    eventually("it is gone", async || {
        let vhost = broker.running().broker().vhost("/").unwrap();
        !vhost.queues().iter().any(|queue| queue.spec.name.as_str() == "unused")
    })
    .await;
    // The broker counts whole milliseconds.
    assert!(since.elapsed() >= Duration::from_millis(399), "{:?}", since.elapsed());
    sleep(Duration::from_millis(500)).await;
    assert_eq!(watcher.counts(1, "consumed").await, (0, 1), "it has a consumer");
}

#[tokio::test]
async fn looking_at_a_queue_is_a_use_of_it() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // Far longer than there is between two looks, however busy the machine is.
    let expires = || table([("x-expires", int(4000))]);
    for name in ["declared", "passive", "got"] {
        peer.declare_with(1, name, expires()).await;
    }
    // One that had gone would be declared anew, and empty.
    peer.publish(1, "", "declared", "still there").await;
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(5500) {
        peer.declare_with(1, "declared", expires()).await;
        peer.counts(1, "passive").await;
        assert!(peer.get(1, "got", true).await.is_none());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(peer.drain(1, "declared").await, ["still there"]);
}

// ---- space ----

#[tokio::test]
async fn max_length_drops_the_head() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-max-length", int(3))])).await;
    for body in ["a", "b", "c", "d", "e"] {
        peer.publish(1, "", "q", body).await;
    }
    // What is delivered does not count, until it comes back.
    assert_eq!(peer.get(1, "q", false).await.unwrap().text(), "c");
    peer.publish(1, "", "q", "f").await;
    assert_eq!(peer.counts(1, "q").await.0, 3);
    peer.send(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    assert_eq!(peer.drain(1, "q").await, ["d", "e", "f"]);
}

#[tokio::test]
async fn max_length_bytes_counts_bodies() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-max-length-bytes", int(10))])).await;
    for body in ["aaaa", "bbbb", "cccc", ""] {
        peer.publish(1, "", "q", body).await;
    }
    assert_eq!(peer.drain(1, "q").await, ["bbbb", "cccc", ""]);
    peer.publish(1, "", "q", "longer than the queue may be").await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn max_length_of_zero_hands_over_only() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-max-length", int(0))])).await;
    peer.publish(1, "", "q", "to nobody").await;
    peer.consume(1, "q", "tag").await;
    peer.publish(1, "", "q", "handed over").await;
    assert_eq!(peer.expect_text(1).await, "handed over");
}

#[tokio::test]
async fn reject_publish_counts_octets_too() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments =
        table([("x-max-length-bytes", int(10)), ("x-overflow", text("reject-publish"))]);
    peer.declare_with(1, "q", arguments).await;
    peer.call(1, confirm::Select::default()).await;
    for body in ["aaaa", "bbbbbbb", "cccccc", "d"] {
        peer.publish(1, "", "q", body).await;
    }
    let (acked, nacked) = confirmed(&mut peer, 4).await;
    assert_eq!((acked, nacked), (vec![1, 3], vec![2, 4]));
}

// ---- order ----

#[tokio::test]
async fn priority_queue_serves_the_highest_level_first() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-max-priority", int(5))])).await;
    for (priority, body) in [
        (Some(0), "0"),
        (None, "none"),
        (Some(9), "9"),
        (Some(3), "3"),
        (Some(5), "5"),
        (Some(1), "1"),
    ] {
        let properties = Properties { priority, ..Properties::default() };
        peer.publish_with(1, publish("", "q"), &properties, body.as_bytes()).await;
    }
    assert_eq!(peer.drain(1, "q").await, ["9", "5", "3", "1", "0", "none"]);
}

#[tokio::test]
async fn full_priority_queue_drops_the_head_of_the_highest_level() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = table([("x-max-priority", int(5)), ("x-max-length", int(2))]);
    peer.declare_with(1, "q", arguments).await;
    for (priority, body) in [(1, "low"), (5, "high 1"), (5, "high 2")] {
        let properties = Properties { priority: Some(priority), ..Properties::default() };
        peer.publish_with(1, publish("", "q"), &properties, body.as_bytes()).await;
    }
    assert_eq!(peer.drain(1, "q").await, ["high 2", "low"]);
}

#[tokio::test]
async fn priority_on_a_plain_queue_is_only_carried() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for (priority, body) in [(1, "a"), (9, "b")] {
        let properties = Properties { priority: Some(priority), ..Properties::default() };
        peer.publish_with(1, publish("", "q"), &properties, body.as_bytes()).await;
    }
    let first = peer.get(1, "q", true).await.unwrap();
    assert_eq!((first.text().as_str(), first.decoded().priority), ("a", Some(1)));
}

#[tokio::test]
async fn consumer_priority_is_respected() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "low").await;
    let high = basic::Consume {
        queue: "q".into(),
        consumer_tag: "high".into(),
        arguments: table([("x-priority", long(1))]),
        ..basic::Consume::default()
    };
    peer.call(1, high).await;
    for _ in 0..3 {
        peer.publish(1, "", "q", "x").await;
        assert_eq!(peer.expect_delivery(1).await.method.consumer_tag.as_str(), "high");
    }
}

#[tokio::test]
async fn single_active_consumer_hands_over() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-single-active-consumer", flag(true))])).await;
    peer.consume(1, "q", "first").await;
    peer.consume(1, "q", "second").await;
    for wanted in ["first", "second"] {
        for _ in 0..2 {
            peer.publish(1, "", "q", "x").await;
            assert_eq!(peer.expect_delivery(1).await.method.consumer_tag.as_str(), wanted);
        }
        peer.call(1, basic::Cancel { consumer_tag: wanted.into(), nowait: false }).await;
    }
}

// ---- arguments ----

#[tokio::test]
async fn bad_queue_arguments_are_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let check = async |peer: &mut Peer, arguments: FieldTable, reason: &str| {
        let declare = queue::Declare { queue: "q".into(), arguments, ..queue::Declare::default() };
        peer.send(1, declare).await;
        let text = format!("PRECONDITION_FAILED - invalid {reason}");
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    };
    for (key, value, reason) in [
        ("x-message-ttl", int(-1), "{value_negative,-1}"),
        ("x-message-ttl", long(315_360_000_001), "{value_too_large,315360000001}"),
        ("x-message-ttl", text("5"), "\"expected integer, got longstr\""),
        ("x-expires", int(0), "{value_zero,0}"),
        ("x-expires", int(-5), "{value_negative,-5}"),
        ("x-max-length", int(-1), "{value_negative,-1}"),
        ("x-max-length-bytes", flag(true), "\"expected integer, got bool\""),
        ("x-max-priority", int(256), "{max_value_exceeded,256}"),
        ("x-max-priority", int(-1), "{value_negative,-1}"),
        ("x-overflow", text("burst"), "invalid_overflow"),
        ("x-overflow", int(1), "{unacceptable_type,signedint}"),
        ("x-dead-letter-routing-key", text("k"), "routing_key_but_no_dlx_defined"),
        ("x-queue-type", text("foo"), "\"unsupported queue type 'foo'\""),
        ("x-queue-mode", text("busy"), "\"unsupported queue mode 'busy'\""),
        ("x-queue-version", int(3), "\"unsupported queue version '3'\""),
    ] {
        let reason = format!("arg '{key}' for queue 'q' in vhost '/': {reason}");
        check(&mut peer, table([(key, value)]), &reason).await;
    }
    let reason = "type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'";
    check(&mut peer, table([("x-dead-letter-exchange", int(1))]), reason).await;
    for (durable, exclusive, auto_delete, property) in [
        (false, false, false, "non-durable"),
        (true, true, false, "exclusive-owner"),
        (true, false, true, "auto-delete"),
    ] {
        let declare = queue::Declare {
            queue: "q".into(),
            durable,
            exclusive,
            auto_delete,
            arguments: table([("x-queue-type", text("quorum"))]),
            ..queue::Declare::default()
        };
        peer.send(1, declare).await;
        let text = format!(
            "PRECONDITION_FAILED - invalid property '{property}' for queue 'q' in vhost '/'"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn delivery_limit_ends_endless_returns() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let declare = queue::Declare {
        queue: "q".into(),
        durable: true,
        arguments: table([("x-queue-type", text("quorum")), ("x-delivery-limit", int(1))]),
        ..queue::Declare::default()
    };
    peer.call(1, declare).await;
    peer.publish(1, "", "q", "poison").await;
    for _ in 0..2 {
        let got = peer.get(1, "q", false).await.unwrap();
        let delivery_tag = got.method.delivery_tag;
        peer.send(1, basic::Nack { delivery_tag, multiple: false, requeue: true }).await;
    }
    assert!(peer.get(1, "q", true).await.is_none(), "it came back more often than it may");
}

#[tokio::test]
async fn a_quorum_queue_says_how_often_a_message_came_back() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for (name, kind, expected) in
        [("q", "quorum", [None, Some(1), Some(2)]), ("c", "classic", [None; 3])]
    {
        let declare = queue::Declare {
            queue: name.into(),
            durable: true,
            arguments: table([("x-queue-type", text(kind))]),
            ..queue::Declare::default()
        };
        peer.call(1, declare).await;
        let own = headers([("k", Value::LongString(b"v"))]);
        let properties = Properties { headers: Some(&own), ..Properties::default() };
        peer.publish_with(1, publish("", name), &properties, b"m").await;
        for count in expected {
            let got = peer.get(1, name, false).await.unwrap();
            let properties = summarise(&got.properties).unwrap();
            let reader = properties.headers_reader();
            let found = reader.get(b"x-delivery-count");
            assert_eq!(found, count.map(Value::LongLongInt), "{kind}");
            assert_eq!(reader.get(b"k"), Some(Value::LongString(b"v")));
            let delivery_tag = got.method.delivery_tag;
            peer.send(1, basic::Nack { delivery_tag, multiple: false, requeue: true }).await;
        }
    }
}
