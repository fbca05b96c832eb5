//! `basic.consume`, `cancel`, `get` and `qos`.

use proto_amqp::control::protocol::{AMQPClass, basic, channel, queue};
use proto_amqp::{MethodId, Properties};
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{int, table, text};
use warren_tests::amqp::{Incoming, Options, Peer, method_payload, publish};

const CONSUME: (u16, u16) = (60, 20);

fn consume(queue: &str, tag: &str) -> basic::Consume {
    let (queue, consumer_tag) = (queue.into(), tag.into());
    basic::Consume { queue, consumer_tag, ..basic::Consume::default() }
}

fn cancel(tag: &str) -> basic::Cancel {
    basic::Cancel { consumer_tag: tag.into(), nowait: false }
}

#[tokio::test]
async fn consume_from_a_missing_queue_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, consume("missing", "tag")).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, CONSUME).await;
}

#[tokio::test]
async fn exclusive_consumer_is_alone() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let mut other = broker.amqp().await;
    peer.declare(1, "q").await;
    let alone = || basic::Consume { exclusive: true, ..consume("q", "alone") };
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    peer.call(1, alone()).await;
    other.send(1, consume("q", "tag")).await;
    other.expect_channel_error(1, 403, text, CONSUME).await;
    other.send(1, alone()).await;
    other.expect_channel_error(1, 403, text, CONSUME).await;
    peer.call(1, cancel("alone")).await;
    other.call(1, consume("q", "tag")).await;
    peer.send(1, alone()).await;
    peer.expect_channel_error(1, 403, text, CONSUME).await;
}

#[tokio::test]
async fn reusing_a_consumer_tag_is_530() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    // On another channel it is another tag; once cancelled it is free.
    peer.consume(2, "q", "tag").await;
    peer.call(1, cancel("tag")).await;
    peer.consume(1, "q", "tag").await;
    peer.send(1, consume("q", "tag")).await;
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 'tag'";
    peer.expect_connection_error(530, text, CONSUME).await;
}

#[tokio::test]
async fn too_many_consumers_are_530() {
    let broker = TestBroker::set(&["amqp.max_consumers_per_channel=2"]).await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "a").await;
    peer.consume(1, "q", "b").await;
    peer.send(1, consume("q", "c")).await;
    let text = "NOT_ALLOWED - reached maximum (2) of consumers per channel";
    peer.expect_connection_error(530, text, CONSUME).await;
}

#[tokio::test]
async fn empty_tag_is_made_up_by_the_broker() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let one = peer.call(1, consume("q", "")).await.consumer_tag.to_string();
    let two = peer.call(1, consume("q", "")).await.consumer_tag.to_string();
    assert!(one.starts_with("amq.ctag-") && one.len() == "amq.ctag-".len() + 22, "{one}");
    assert_ne!(one, two);
}

#[tokio::test]
async fn consume_ok_stands_before_the_first_delivery() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for body in ["a", "b", "c"] {
        peer.publish(1, "", "q", body).await;
    }
    peer.call(1, consume("q", "tag")).await;
    for body in ["a", "b", "c"] {
        let delivery = peer.expect_delivery(1).await;
        assert_eq!(delivery.text(), body);
        assert_eq!(delivery.method.consumer_tag.as_str(), "tag");
        assert!(!delivery.method.redelivered);
    }
}

#[tokio::test]
async fn no_wait_is_not_answered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "x").await;
    peer.send(1, basic::Consume { nowait: true, ..consume("q", "tag") }).await;
    assert_eq!(peer.expect_text(1).await, "x");
    peer.send(1, basic::Cancel { nowait: true, ..cancel("tag") }).await;
    peer.expect_nothing(1).await;
    assert_eq!(peer.counts(1, "q").await, (0, 0));
}

#[tokio::test]
async fn bad_priority_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let arguments = table([("x-priority", text("high"))]);
    peer.send(1, basic::Consume { arguments, ..consume("q", "tag") }).await;
    let text = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \
                \"expected integer, got longstr\"";
    peer.expect_channel_error(1, 406, text, CONSUME).await;
    let arguments = table([("x-mine", int(1))]);
    peer.call(1, basic::Consume { arguments, ..consume("q", "tag") }).await;
}

#[tokio::test]
async fn arguments_are_looked_at_after_the_queue() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let bad = |queue: &str| basic::Consume {
        arguments: table([("x-priority", text("high"))]),
        ..consume(queue, "tag")
    };
    peer.send(1, bad("missing")).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, CONSUME).await;
    let mut owner = broker.amqp().await;
    let (queue, exclusive) = ("own".into(), true);
    owner.call(1, queue::Declare { queue, exclusive, ..queue::Declare::default() }).await;
    peer.send(1, bad("own")).await;
    let text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'own' in vhost '/'. \
                It could be originally declared on another connection or the exclusive property \
                value does not match that of the original declaration.";
    peer.expect_channel_error(1, 405, text, CONSUME).await;
}

#[tokio::test]
async fn no_local_is_accepted_and_ignored() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.call(1, basic::Consume { no_local: true, ..consume("q", "tag") }).await;
    peer.publish(1, "", "q", "my own").await;
    assert_eq!(peer.expect_text(1).await, "my own");
}

#[tokio::test]
async fn cancel_stops_deliveries_and_keeps_unacked() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    peer.publish(1, "", "q", "before").await;
    let before = peer.expect_delivery(1).await;
    let ok = peer.call(1, cancel("tag")).await;
    assert_eq!(ok.consumer_tag.as_str(), "tag");
    peer.publish(1, "", "q", "after").await;
    peer.expect_nothing(1).await;
    let (delivery_tag, requeue) = (before.method.delivery_tag, true);
    peer.send(1, basic::Reject { delivery_tag, requeue }).await;
    assert_eq!(peer.drain(1, "q").await, ["before", "after"]);
}

#[tokio::test]
async fn cancel_of_an_unknown_tag_succeeds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    assert_eq!(peer.call(1, cancel("never")).await.consumer_tag.as_str(), "never");
}

#[tokio::test]
async fn consumer_of_a_deleted_queue_is_told_if_it_can_take_it() {
    let broker = TestBroker::start().await;
    let mut able = broker.amqp().await;
    let deaf = Options { capabilities: Vec::new(), ..Options::default() };
    let mut deaf = broker.amqp_as(&deaf).await;
    able.declare(1, "q").await;
    able.consume(1, "q", "mine").await;
    deaf.consume(1, "q", "yours").await;
    // Also who deletes it, after the answer.
    able.call(1, queue::Delete { queue: "q".into(), ..queue::Delete::default() }).await;
    let told: basic::Cancel = able.expect(1).await;
    assert_eq!((told.consumer_tag.as_str(), told.nowait), ("mine", true));
    deaf.expect_nothing(1).await;
    // Both tags are free again.
    able.declare(1, "q").await;
    able.consume(1, "q", "mine").await;
    deaf.expect_nothing(1).await;
    deaf.consume(1, "q", "yours").await;
}

#[tokio::test]
async fn delivery_tags_count_from_one_per_channel() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(1, "q").await;
    for _ in 0..5 {
        peer.publish(1, "", "q", "x").await;
    }
    // Gets and deliveries, acknowledged or not, have one count.
    let mut tags = vec![peer.get(1, "q", false).await.unwrap().method.delivery_tag];
    tags.push(peer.get(1, "q", true).await.unwrap().method.delivery_tag);
    peer.qos(1, 1).await;
    peer.consume(1, "q", "tag").await;
    tags.push(peer.expect_delivery(1).await.method.delivery_tag);
    assert_eq!(tags, [1, 2, 3]);
    assert_eq!(peer.get(2, "q", false).await.unwrap().method.delivery_tag, 1);
}

#[tokio::test]
async fn get_tells_how_many_are_left() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for _ in 0..3 {
        peer.publish(1, "", "q", "x").await;
    }
    let mut left = Vec::new();
    while let Some(got) = peer.get(1, "q", false).await {
        left.push(got.method.message_count);
        assert!(!got.method.redelivered);
    }
    assert_eq!(left, [2, 1, 0]);
}

#[tokio::test]
async fn get_does_not_count_what_has_expired_at_the_head() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "live").await;
    let expired = Properties { expiration: Some(b"0"), ..Properties::default() };
    for _ in 0..2 {
        peer.publish_with(1, publish("", "q"), &expired, b"dead").await;
    }
    peer.publish(1, "", "q", "last").await;
    assert_eq!(peer.get(1, "q", true).await.unwrap().method.message_count, 1);
}

#[tokio::test]
async fn get_from_a_missing_queue_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, basic::Get { queue: "missing".into(), no_ack: false }).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, (60, 70)).await;
}

// ---- qos ----

async fn qos(peer: &mut Peer, prefetch_count: u16, global: bool) {
    peer.send(1, basic::Qos { prefetch_count, global }).await;
}

async fn start(peer: &mut Peer, tags: &[&str]) {
    for tag in tags {
        peer.send(1, consume("q", tag)).await;
    }
}

/// How many deliveries each consumer has got since the last time.
async fn counted(peer: &mut Peer, tags: &[&str]) -> Vec<usize> {
    let mut counts = vec![0; tags.len()];
    peer.send(1, channel::Flow { active: true }).await;
    loop {
        match peer.next(1).await {
            Incoming::Content(message) => {
                let AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)) = message.method else {
                    panic!("{message:?}")
                };
                let of = tags.iter().position(|tag| *tag == deliver.consumer_tag.as_str());
                let Some(count) = of.and_then(|of| counts.get_mut(of)) else {
                    panic!("a delivery for nobody: {deliver:?}")
                };
                *count += 1;
            }
            Incoming::Method(AMQPClass::Channel(_)) => return counts,
            // Answers to qos and consume.
            Incoming::Method(AMQPClass::Basic(_)) => {}
            other @ Incoming::Method(_) => panic!("{other:?}"),
        }
    }
}

/// A peer with a queue `q` that nobody empties.
async fn plenty(broker: &TestBroker) -> Peer {
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for number in 0..30 {
        peer.publish(1, "", "q", &number.to_string()).await;
    }
    peer
}

#[tokio::test]
async fn prefetch_holds_for_each_later_consumer() {
    let broker = TestBroker::start().await;
    let mut peer = plenty(&broker).await;
    qos(&mut peer, 2, false).await;
    start(&mut peer, &["A"]).await;
    qos(&mut peer, 3, false).await;
    start(&mut peer, &["B"]).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await, [2, 3]);
    // An acknowledgement makes room for one more at the consumer that it was delivered to.
    peer.ack(1, 1).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await, [1, 0]);
    // Nothing is no limit, for later ones.
    qos(&mut peer, 0, false).await;
    start(&mut peer, &["C"]).await;
    assert_eq!(counted(&mut peer, &["A", "B", "C"]).await, [0, 0, 24]);
}

#[tokio::test]
async fn global_prefetch_is_shared_by_the_channel() {
    let broker = TestBroker::start().await;
    let mut peer = plenty(&broker).await;
    qos(&mut peer, 3, false).await;
    qos(&mut peer, 4, true).await;
    start(&mut peer, &["A", "B"]).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await, [3, 1]);
    peer.send(1, basic::Ack { delivery_tag: 0, multiple: true }).await;
    let counts = counted(&mut peer, &["A", "B"]).await;
    assert_eq!(counts.iter().sum::<usize>(), 4, "{counts:?}");
    // More, at once, for consumers that are there.
    qos(&mut peer, 6, true).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await.iter().sum::<usize>(), 2);
    // None: only their own limits are left.
    qos(&mut peer, 0, true).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await.iter().sum::<usize>(), 0);
}

#[tokio::test]
async fn prefetch_without_global_takes_the_shared_limit_away() {
    let broker = TestBroker::start().await;
    let mut peer = plenty(&broker).await;
    qos(&mut peer, 4, true).await;
    qos(&mut peer, 3, false).await;
    start(&mut peer, &["A", "B"]).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await, [3, 3]);
}

#[tokio::test]
async fn shared_limit_holds_for_consumers_that_are_there_already() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    start(&mut peer, &["A", "B"]).await;
    qos(&mut peer, 3, true).await;
    counted(&mut peer, &["A", "B"]).await;
    let mut publisher = plenty(&broker).await;
    publisher.expect_nothing(1).await;
    assert_eq!(counted(&mut peer, &["A", "B"]).await.iter().sum::<usize>(), 3);
}

#[tokio::test]
async fn prefetch_limits_neither_gets_nor_consumers_without_acks() {
    let broker = TestBroker::start().await;
    let mut peer = plenty(&broker).await;
    qos(&mut peer, 1, false).await;
    qos(&mut peer, 1, true).await;
    counted(&mut peer, &[]).await;
    for _ in 0..5 {
        assert!(peer.get(1, "q", false).await.is_some());
    }
    peer.send(1, basic::Consume { no_ack: true, ..consume("q", "free") }).await;
    assert_eq!(counted(&mut peer, &["free"]).await, [25]);
}

#[tokio::test]
async fn gets_do_not_use_up_the_prefetch_of_consumers() {
    let broker = TestBroker::start().await;
    let mut peer = plenty(&broker).await;
    for _ in 0..5 {
        assert!(peer.get(1, "q", false).await.is_some());
    }
    qos(&mut peer, 2, true).await;
    start(&mut peer, &["A"]).await;
    assert_eq!(counted(&mut peer, &["A"]).await, [2]);
}

#[tokio::test]
async fn prefetch_size_is_540() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let qos = method_payload(MethodId { class: 60, method: 10 }, &[0, 0, 4, 0, 0, 1, 0]);
    peer.send_frame(1, 1, &qos).await;
    let text = "NOT_IMPLEMENTED - prefetch_size!=0 (1024)";
    peer.expect_connection_error(540, text, (60, 10)).await;
}
