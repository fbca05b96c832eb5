//! The `tx` class.

use proto_amqp::Properties;
use proto_amqp::control::protocol::{basic, queue, tx};
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{int, table, text};
use warren_tests::amqp::{Peer, publish};

async fn transactional(broker: &TestBroker) -> Peer {
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.call(1, tx::Select {}).await;
    peer
}

/// How many messages are ready, seen from another channel.
async fn ready(peer: &mut Peer) -> u32 {
    peer.open_channel(9).await;
    let (ready, _) = peer.counts(9, "q").await;
    peer.close_channel(9).await;
    ready
}

#[tokio::test]
async fn commit_without_select_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let text = "PRECONDITION_FAILED - channel is not transactional";
    peer.send(1, tx::Commit {}).await;
    peer.expect_channel_error(1, 406, text, (90, 20)).await;
    peer.send(1, tx::Rollback {}).await;
    peer.expect_channel_error(1, 406, text, (90, 30)).await;
}

#[tokio::test]
async fn published_messages_appear_with_the_commit() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    // Selecting again changes nothing.
    peer.publish(1, "", "q", "a").await;
    peer.call(1, tx::Select {}).await;
    peer.publish(1, "", "q", "b").await;
    assert_eq!(ready(&mut peer).await, 0);
    peer.call(1, tx::Commit {}).await;
    assert_eq!(ready(&mut peer).await, 2);
    // The next transaction begins by itself.
    peer.publish(1, "", "q", "c").await;
    assert_eq!(ready(&mut peer).await, 2);
    peer.call(1, tx::Commit {}).await;
    assert_eq!(peer.drain(1, "q").await, ["a", "b", "c"]);
}

#[tokio::test]
async fn rollback_forgets_what_was_published() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    peer.publish(1, "", "q", "never").await;
    peer.call(1, tx::Rollback {}).await;
    peer.publish(1, "", "q", "once").await;
    peer.call(1, tx::Commit {}).await;
    assert_eq!(peer.drain(1, "q").await, ["once"]);
}

#[tokio::test]
async fn acknowledgements_take_effect_with_the_commit() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    for body in ["acked", "requeued", "rejected"] {
        peer.publish(1, "", "q", body).await;
    }
    peer.call(1, tx::Commit {}).await;
    for _ in 0..3 {
        assert!(peer.get(1, "q", false).await.is_some());
    }
    peer.ack(1, 1).await;
    peer.send(1, basic::Nack { delivery_tag: 2, multiple: false, requeue: true }).await;
    peer.send(1, basic::Reject { delivery_tag: 3, requeue: false }).await;
    assert_eq!(ready(&mut peer).await, 0);
    peer.call(1, tx::Commit {}).await;
    assert_eq!(ready(&mut peer).await, 1);
    assert_eq!(peer.drain(1, "q").await, ["requeued"]);
    peer.close_channel(1).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn rollback_makes_deliveries_outstanding_again() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    for body in ["a", "b", "c"] {
        peer.publish(1, "", "q", body).await;
    }
    peer.call(1, tx::Commit {}).await;
    for _ in 0..3 {
        assert!(peer.get(1, "q", false).await.is_some());
    }
    peer.send(1, basic::Ack { delivery_tag: 2, multiple: true }).await;
    peer.call(1, tx::Rollback {}).await;
    // Neither delivered again nor back in the queue: the same tags can be acknowledged.
    assert_eq!(ready(&mut peer).await, 0);
    peer.ack(1, 1).await;
    peer.call(1, tx::Commit {}).await;
    peer.close_channel(1).await;
    peer.open_channel(1).await;
    assert_eq!(peer.drain(1, "q").await, ["b", "c"]);
}

#[tokio::test]
async fn tags_are_checked_at_once() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    peer.publish(1, "", "q", "a").await;
    peer.call(1, tx::Commit {}).await;
    assert!(peer.get(1, "q", false).await.is_some());
    peer.ack(1, 1).await;
    peer.ack(1, 1).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    peer.expect_channel_error(1, 406, text, (60, 80)).await;
}

#[tokio::test]
async fn publishes_are_checked_at_once() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    peer.publish(1, "", "q", "lost with its channel").await;
    peer.publish(1, "missing", "", "x").await;
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, (60, 40)).await;
    assert_eq!(ready(&mut peer).await, 0);
}

#[tokio::test]
async fn open_transaction_is_rolled_back_with_its_channel() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    peer.publish(1, "", "q", "committed").await;
    peer.call(1, tx::Commit {}).await;
    assert!(peer.get(1, "q", false).await.is_some());
    peer.ack(1, 1).await;
    peer.publish(1, "", "q", "never").await;
    peer.close_channel(1).await;
    assert_eq!(ready(&mut peer).await, 1);
    peer.open_channel(1).await;
    let back = peer.get(1, "q", true).await.unwrap();
    assert_eq!((back.text().as_str(), back.method.redelivered), ("committed", true));
}

#[tokio::test]
async fn returns_come_before_commit_ok() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    let method = basic::Publish { mandatory: true, ..publish("", "nobody") };
    peer.publish_with(1, method, &Properties::default(), b"back").await;
    peer.expect_nothing(1).await;
    peer.send(1, tx::Commit {}).await;
    assert_eq!(peer.expect_return(1).await.text(), "back");
    let _: tx::CommitOk = peer.expect(1).await;
}

#[tokio::test]
async fn what_was_routed_to_a_queue_that_has_gone_is_returned() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    let mandatory = |key: &str| basic::Publish { mandatory: true, ..publish("", key) };
    peer.declare(1, "going").await;
    peer.publish_with(1, mandatory("going"), &Properties::default(), b"back").await;
    peer.publish_with(1, mandatory("q"), &Properties::default(), b"stays").await;
    peer.call(1, queue::Delete { queue: "going".into(), ..queue::Delete::default() }).await;
    peer.send(1, tx::Commit {}).await;
    let returned = peer.expect_return(1).await;
    assert_eq!((returned.method.reply_code, returned.text().as_str()), (312, "back"));
    let _: tx::CommitOk = peer.expect(1).await;
    assert_eq!(peer.drain(1, "q").await, ["stays"]);
}

#[tokio::test]
async fn commit_that_a_queue_refuses_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = transactional(&broker).await;
    let arguments = table([("x-max-length", int(1)), ("x-overflow", text("reject-publish"))]);
    peer.declare_with(1, "full", arguments).await;
    peer.publish(1, "", "q", "taken").await;
    peer.publish(1, "", "full", "taken").await;
    peer.publish(1, "", "full", "refused").await;
    peer.send(1, tx::Commit {}).await;
    let text = "PRECONDITION_FAILED - partial tx completion";
    peer.expect_channel_error(1, 406, text, (90, 20)).await;
}
