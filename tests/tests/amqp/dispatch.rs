//! Who gets what: turns, priorities, prefetch, a single active consumer.

use proto_amqp::control::protocol::basic;
use warren_tests::TestBroker;
use warren_tests::amqp::Peer;
use warren_tests::amqp::tables::{flag, int, table};

/// Consumes on channel 1 of the peer with a priority and no prefetch limit.
async fn consume_at(peer: &mut Peer, queue: &str, tag: &str, priority: i32) {
    let consume = basic::Consume {
        queue: queue.into(),
        consumer_tag: tag.into(),
        arguments: table([("x-priority", int(priority))]),
        ..basic::Consume::default()
    };
    peer.call(1, consume).await;
}

async fn publish_letters(peer: &mut Peer, queue: &str, letters: &str) {
    for letter in letters.chars() {
        peer.publish(1, "", queue, &letter.to_string()).await;
    }
    peer.expect_nothing(1).await;
}

/// The next `count` deliveries: consumer and body.
async fn deliveries(peer: &mut Peer, count: usize) -> Vec<(String, String)> {
    let mut got = Vec::new();
    for _ in 0..count {
        let delivery = peer.expect_delivery(1).await;
        got.push((delivery.method.consumer_tag.to_string(), delivery.text()));
    }
    got
}

fn pairs<const N: usize>(wanted: [(&str, &str); N]) -> Vec<(String, String)> {
    wanted.map(|(tag, body)| (tag.to_owned(), body.to_owned())).to_vec()
}

#[tokio::test]
async fn consumers_take_turns() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut peer) = (broker.amqp().await, broker.amqp().await);
    peer.declare(1, "q").await;
    for tag in ["x", "y", "z"] {
        peer.consume(1, "q", tag).await;
    }
    // One at a time.
    publish_letters(&mut publisher, "q", "abcdef").await;
    let mut got = deliveries(&mut peer, 6).await;
    got.sort_by(|a, b| a.1.cmp(&b.1));
    let wanted = pairs([("x", "a"), ("y", "b"), ("z", "c"), ("x", "d"), ("y", "e"), ("z", "f")]);
    assert_eq!(got, wanted);
}

#[tokio::test]
async fn consumers_take_turns_within_one_read() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut peer) = (broker.amqp().await, broker.amqp().await);
    peer.declare(1, "q").await;
    peer.consume(1, "q", "x").await;
    peer.consume(1, "q", "y").await;
    let mut octets = Vec::new();
    for letter in ["a", "b", "c", "d"] {
        let method = warren_tests::amqp::publish("", "q");
        let nothing = proto_amqp::Properties::default();
        octets.extend(publisher.encoded_publish(1, method, &nothing, letter.as_bytes()));
    }
    publisher.send_octets(&octets).await;
    let mut got = deliveries(&mut peer, 4).await;
    got.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(got, pairs([("x", "a"), ("y", "b"), ("x", "c"), ("y", "d")]));
}

#[tokio::test]
async fn prefetch_of_one_gives_work_to_whoever_is_free() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.amqp().await;
    let (mut slow, mut quick) = (broker.amqp().await, broker.amqp().await);
    publisher.declare(1, "q").await;
    for worker in [&mut slow, &mut quick] {
        worker.qos(1, 1).await;
        worker.consume(1, "q", "w").await;
    }
    publish_letters(&mut publisher, "q", "abcdef").await;
    assert_eq!(slow.expect_text(1).await, "a");
    // The slow one is at its first all the time.
    for body in ["b", "c", "d", "e", "f"] {
        let delivery = quick.expect_delivery(1).await;
        assert_eq!(delivery.text(), body);
        quick.ack(1, delivery.method.delivery_tag).await;
    }
    slow.expect_nothing(1).await;
    publisher.publish(1, "", "q", "g").await;
    assert_eq!(quick.expect_text(1).await, "g");
    slow.ack(1, 1).await;
    publisher.publish(1, "", "q", "h").await;
    assert_eq!(slow.expect_text(1).await, "h");
}

#[tokio::test]
async fn higher_priority_is_served_first() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.amqp().await;
    let (mut low, mut high) = (broker.amqp().await, broker.amqp().await);
    publisher.declare(1, "q").await;
    consume_at(&mut low, "q", "low", -5).await;
    high.qos(1, 2).await;
    consume_at(&mut high, "q", "high", 10).await;
    publish_letters(&mut publisher, "q", "abc").await;
    assert_eq!(deliveries(&mut high, 2).await, pairs([("high", "a"), ("high", "b")]));
    // Only what the other has no room for.
    assert_eq!(low.expect_text(1).await, "c");
    high.ack(1, 1).await;
    high.expect_nothing(1).await;
    publish_letters(&mut publisher, "q", "de").await;
    assert_eq!(high.expect_text(1).await, "d");
    assert_eq!(low.expect_text(1).await, "e");
}

#[tokio::test]
async fn single_active_consumer_keeps_the_queue_until_it_goes() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.amqp().await;
    let mut peers = [broker.amqp().await, broker.amqp().await, broker.amqp().await];
    let single = table([("x-single-active-consumer", flag(true))]);
    publisher.declare_with(1, "q", single).await;
    let [first, second, third] = &mut peers;
    first.consume(1, "q", "first").await;
    second.consume(1, "q", "second").await;
    // One that comes later does not take over, whatever its priority; it is the next in line.
    consume_at(third, "q", "third", 10).await;
    publish_letters(&mut publisher, "q", "ab").await;
    assert_eq!(deliveries(first, 2).await, pairs([("first", "a"), ("first", "b")]));
    third.expect_nothing(1).await;
    first.call(1, basic::Cancel { consumer_tag: "first".into(), nowait: false }).await;
    publish_letters(&mut publisher, "q", "c").await;
    assert_eq!(third.expect_text(1).await, "c");
    second.expect_nothing(1).await;
    third.close_channel(1).await;
    // What it had not acknowledged goes to its successor.
    assert_eq!(second.expect_text(1).await, "c");
    // An exclusive consumer would be alone twice.
    first
        .send(1, basic::Consume { queue: "q".into(), exclusive: true, ..Default::default() })
        .await;
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    first.expect_channel_error(1, 403, text, (60, 20)).await;
}

#[tokio::test]
async fn a_consumer_that_does_not_read_holds_up_nobody_else() {
    let broker = TestBroker::start().await;
    let mut publisher = broker.amqp().await;
    let (mut deaf, mut awake) = (broker.amqp().await, broker.amqp().await);
    publisher.declare(1, "q").await;
    deaf.consume(1, "q", "deaf").await;
    awake.consume(1, "q", "awake").await;
    // More than fits into the sockets and the outbox of one that never reads.
    let body = "x".repeat(100_000);
    for _ in 0..400 {
        publisher.publish(1, "", "q", &body).await;
    }
    publisher.publish(1, "", "q", "last").await;
    let mut seen = 0;
    while awake.expect_text(1).await != "last" {
        seen += 1;
    }
    assert!(seen >= 200, "{seen}");
    publisher.expect_nothing(1).await;
}

/// AMQP 0-9-1 §4.7: what goes out on one channel keeps its order.
#[tokio::test]
async fn consumers_on_one_channel_get_messages_in_their_order() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut peer) = (broker.amqp().await, broker.amqp().await);
    peer.declare(1, "q").await;
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let octets = |publisher: &Peer| -> Vec<u8> {
        let method = || warren_tests::amqp::publish("", "q");
        let nothing = proto_amqp::Properties::default();
        let publish =
            |letter: &&str| publisher.encoded_publish(1, method(), &nothing, letter.as_bytes());
        letters.iter().flat_map(publish).collect()
    };
    for tag in ["x", "y", "z"] {
        peer.consume(1, "q", tag).await;
    }
    // Straight to the consumers.
    let all = octets(&publisher);
    publisher.send_octets(&all).await;
    let got = deliveries(&mut peer, letters.len()).await;
    assert_eq!(got.iter().map(|(_, body)| body.as_str()).collect::<Vec<_>>(), letters);
    let tags: std::collections::BTreeSet<&str> = got.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!(tags.len(), 3, "they take turns: {got:?}");
}

/// What the channel may have outstanding all its consumers share, and their queues too.
#[tokio::test]
async fn consumers_that_share_the_credit_of_a_channel_all_get_some() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut peer) = (broker.amqp().await, broker.amqp().await);
    peer.call(1, basic::Qos { prefetch_count: 10, global: true }).await;
    for queue in ["one", "two"] {
        peer.declare(1, queue).await;
        peer.consume(1, queue, queue).await;
    }
    for queue in ["one", "two"] {
        publish_letters(&mut publisher, queue, &queue.repeat(30)).await;
    }
    let mut got = Vec::new();
    for _ in 0..6 {
        got.extend(deliveries(&mut peer, 10).await.into_iter().map(|(tag, _)| tag));
        peer.send(1, basic::Ack { delivery_tag: 0, multiple: true }).await;
    }
    for queue in ["one", "two"] {
        let count = got.iter().filter(|tag| *tag == queue).count();
        assert!(count >= 20, "{count} of {}: {got:?}", got.len());
    }
}
