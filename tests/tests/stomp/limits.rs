//! Bounds: what a peer can make the broker hold, and for how long it is listened to.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use warren_server::settings::{Memory, Size};

use super::broker::Broker;

#[tokio::test]
async fn a_stranger_has_64_kib() {
    let broker = Broker::start().await;
    let mut peer = broker.connect().await;
    let body = "x".repeat(70_000);
    peer.try_send_octets(format!("CONNECT\n\n{body}\0").as_bytes()).await;
    let error = peer.next().await;
    assert!(error.starts_with("ERROR\nmessage:Frame too large\n"), "{error}");
    peer.expect_end().await;
}

#[tokio::test]
async fn a_message_has_its_largest_size() {
    let broker = Broker::with(|settings| settings.amqp.max_message_size = Size::new(100_000)).await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask(&format!("SEND\ndestination:/queue/s\n\n{}", "x".repeat(100_000))).await;
    // Refused when it is announced.
    peer.send("SEND\ndestination:/queue/s\ncontent-length:100001\n\nx").await;
    peer.expect_last_error("Frame too large", "The body is longer than 100000 octets\n").await;
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_length() {
    let broker = Broker::start().await;
    let many: String = (0..101).map(|number| format!("h{number}:x\n")).collect();
    let long = format!("h:{}\n", "x".repeat(9000));
    for (headers, body) in [
        (many, "The frame has more than 100 headers\n"),
        (long, "Line 2 is longer than 8192 octets\n"),
    ] {
        let mut peer = broker.log_in("1.2").await;
        peer.try_send_octets(format!("SEND\n{headers}\n\0").as_bytes()).await;
        peer.expect_last_error("Frame too large", body).await;
    }
}

#[tokio::test]
async fn subscriptions_are_bounded_in_number() {
    let broker = Broker::with(|settings| settings.stomp.max_subscriptions = 1).await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/s\n\n").await;
    peer.send("SUBSCRIBE\nid:1\ndestination:/queue/s\n\n\0").await;
    let body = "Too many subscriptions (limit 1)\n";
    peer.expect_error("Subscription limit exceeded", body).await;
    peer.ask("UNSUBSCRIBE\nid:0\n\n").await;
    peer.ask("SUBSCRIBE\nid:1\ndestination:/queue/s\n\n").await;
}

#[tokio::test]
async fn deliveries_without_acknowledgement_are_bounded() {
    let broker = Broker::with(|settings| settings.amqp.max_unacked_per_channel = 3).await;
    let mut peer = broker.log_in("1.2").await;
    peer.ask("SUBSCRIBE\nid:0\ndestination:/queue/u\nack:client\n\n").await;
    for number in 1..=5 {
        peer.send(&format!("SEND\ndestination:/queue/u\n\n{number}\0")).await;
    }
    for number in ["1", "2", "3"] {
        assert!(peer.next().await.ends_with(number));
    }
    peer.expect_nothing().await;
    peer.send(&format!("ACK\nid:T_0@@{}@@3\n\n\0", peer.session)).await;
    assert!(peer.next().await.ends_with("4"));
    assert!(peer.next().await.ends_with("5"));
}

/// A subscriber that takes nothing gets so much and no more; what it does not get stays in the queue.
#[tokio::test]
async fn a_subscriber_that_does_not_read_is_not_written_to_without_end() {
    let broker = Broker::start().await;
    let mut reader = broker.log_in("1.2").await;
    reader.ask("SUBSCRIBE\nid:0\ndestination:/queue/slow\n\n").await;
    let mut peer = broker.log_in("1.2").await;
    let body = "x".repeat(60_000);
    for _ in 0..400 {
        peer.ask(&format!("SEND\ndestination:/queue/slow\n\n{body}")).await;
    }
    let ready = broker.list("queues", r#""messages_ready""#).await;
    assert_ne!(ready, ["[0]"]);
    for _ in 0..400 {
        assert!(reader.next().await.ends_with(&body));
    }
    assert_eq!(broker.list("queues", r#""messages_ready""#).await, ["[0]"]);
}

/// A peer that asks and never takes the answers is not read from any more.
#[tokio::test]
async fn a_peer_that_takes_no_answers_is_not_listened_to() {
    let broker = Broker::with(|settings| settings.limits.outbox_high = Size::kib(64)).await;
    let mut peer = broker.log_in("1.2").await;
    let frames = "UNSUBSCRIBE\nid:none\n\n\0".repeat(1000);
    let flood = async {
        loop {
            peer.send(&frames).await;
        }
    };
    assert!(timeout(Duration::from_secs(3), flood).await.is_err());
    let pending = broker.list("connections", r#""send_pend""#).await;
    let pending: u64 = pending[0].trim_matches(['[', ']']).parse().unwrap();
    // The bound, and what one read of many short frames can lead to.
    assert!(pending < 4 << 20, "{pending}");
}

#[tokio::test]
async fn publishers_are_held_while_memory_is_low_and_nobody_else_is() {
    let broker =
        Broker::with(|settings| settings.limits.memory = Memory::Octets(Size::new(1))).await;
    let mut consumer = broker.log_in("1.2").await;
    consumer.ask("SUBSCRIBE\nid:0\ndestination:/queue/held\n\n").await;
    // The alarm is raised at the first look, soon after the start.
    let mut publisher = broker.log_in("1.2").await;
    loop {
        publisher.send("SEND\ndestination:/queue/held\n\nx\0").await;
        let states = broker.list("connections", r#""state""#).await;
        if states.iter().any(|state| state.contains("blocked")) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    // Until it has used up its allowance it is heard: acknowledgements have to go through.
    publisher.ask("BEGIN\ntransaction:t\n\n").await;
    let body = "x".repeat(1 << 20);
    publisher.ask(&format!("SEND\ndestination:/queue/held\n\n{body}")).await;
    publisher.send("ABORT\ntransaction:t\nreceipt:r\n\n\0").await;
    assert!(publisher.is_silent_for(Duration::from_millis(500)).await);
    // What was read is done, and consumers go on.
    assert!(consumer.next().await.starts_with("MESSAGE\n"));
}
