//! `basic.ack`, `nack`, `reject` and `recover`.

use proto_amqp::control::protocol::basic;
use warren_tests::TestBroker;
use warren_tests::amqp::Peer;

const ACK: (u16, u16) = (60, 80);

/// A peer whose queue `q` has held `a`, `b`, … and that has got `count` of them, not acknowledged.
async fn holding(broker: &TestBroker, published: usize, count: usize) -> Peer {
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for letter in ('a'..='z').take(published) {
        peer.publish(1, "", "q", &letter.to_string()).await;
    }
    for _ in 0..count {
        assert!(peer.get(1, "q", false).await.is_some());
    }
    peer
}

async fn ack_multiple(peer: &mut Peer, delivery_tag: u64) {
    peer.send(1, basic::Ack { delivery_tag, multiple: true }).await;
}

async fn nack(peer: &mut Peer, delivery_tag: u64, multiple: bool, requeue: bool) {
    peer.send(1, basic::Nack { delivery_tag, multiple, requeue }).await;
}

/// Closes channel 1 and gives what comes back into the queue.
async fn given_back(peer: &mut Peer) -> Vec<String> {
    peer.close_channel(1).await;
    peer.open_channel(1).await;
    peer.drain(1, "q").await
}

#[tokio::test]
async fn single_acks_may_come_in_any_order() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 5, 5).await;
    for tag in [4, 1, 3] {
        peer.ack(1, tag).await;
    }
    assert_eq!(given_back(&mut peer).await, ["b", "e"]);
}

#[tokio::test]
async fn multiple_acks_all_up_to_the_tag() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 5, 5).await;
    peer.ack(1, 2).await;
    ack_multiple(&mut peer, 3).await;
    assert_eq!(given_back(&mut peer).await, ["d", "e"]);
}

#[tokio::test]
async fn multiple_with_tag_zero_acks_everything() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 3, 3).await;
    ack_multiple(&mut peer, 0).await;
    ack_multiple(&mut peer, 0).await;
    assert_eq!(given_back(&mut peer).await, [""; 0]);
}

#[tokio::test]
async fn unknown_delivery_tag_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 2, 2).await;
    peer.ack(1, 1).await;
    peer.ack(1, 1).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    peer.expect_channel_error(1, 406, text, ACK).await;
    // The numbers begin anew with the channel.
    assert_eq!(peer.get(1, "q", false).await.unwrap().method.delivery_tag, 1);
    for tag in [0, 7] {
        peer.ack(1, tag).await;
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
        peer.expect_channel_error(1, 406, &text, ACK).await;
    }
    let mut peer = holding(&broker, 0, 1).await;
    // The tag of a multiple acknowledgement has to be outstanding itself.
    peer.ack(1, 1).await;
    ack_multiple(&mut peer, 1).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    peer.expect_channel_error(1, 406, text, ACK).await;
    nack(&mut peer, 5, true, true).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 5";
    peer.expect_channel_error(1, 406, text, (60, 120)).await;
    peer.send(1, basic::Reject { delivery_tag: 6, requeue: false }).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 6";
    peer.expect_channel_error(1, 406, text, (60, 90)).await;
}

#[tokio::test]
async fn what_needs_no_ack_cannot_be_acked() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 1, 0).await;
    assert_eq!(peer.get(1, "q", true).await.unwrap().method.delivery_tag, 1);
    peer.ack(1, 1).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    peer.expect_channel_error(1, 406, text, ACK).await;
}

#[tokio::test]
async fn tag_of_another_channel_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 1, 1).await;
    peer.open_channel(2).await;
    peer.ack(2, 1).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    peer.expect_channel_error(2, 406, text, ACK).await;
    peer.ack(1, 1).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn acks_before_a_bad_one_count() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 3, 3).await;
    for tag in [1, 2, 9] {
        peer.ack(1, tag).await;
    }
    let text = "PRECONDITION_FAILED - unknown delivery tag 9";
    peer.expect_channel_error(1, 406, text, ACK).await;
    assert_eq!(peer.drain(1, "q").await, ["c"]);
}

#[tokio::test]
async fn requeued_messages_take_their_old_places() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 6, 4).await;
    nack(&mut peer, 3, false, true).await;
    nack(&mut peer, 1, false, true).await;
    peer.send(1, basic::Reject { delivery_tag: 4, requeue: true }).await;
    let mut got = Vec::new();
    while let Some(message) = peer.get(1, "q", true).await {
        got.push((message.text(), message.method.redelivered));
    }
    let wanted = [("a", true), ("c", true), ("d", true), ("e", false), ("f", false)];
    assert_eq!(got, wanted.map(|(text, again)| (text.to_owned(), again)));
}

#[tokio::test]
async fn nack_multiple_requeues_up_to_the_tag() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 4, 4).await;
    nack(&mut peer, 3, true, true).await;
    assert_eq!(peer.drain(1, "q").await, ["a", "b", "c"]);
    nack(&mut peer, 0, true, true).await;
    assert_eq!(peer.drain(1, "q").await, ["d"]);
}

#[tokio::test]
async fn rejected_without_requeue_is_gone() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 4, 4).await;
    peer.send(1, basic::Reject { delivery_tag: 1, requeue: false }).await;
    nack(&mut peer, 3, true, false).await;
    assert_eq!(given_back(&mut peer).await, ["d"]);
}

#[tokio::test]
async fn requeued_messages_go_to_consumers_again() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 1, 0).await;
    peer.consume(1, "q", "tag").await;
    for tag in 1..=3 {
        let delivery = peer.expect_delivery(1).await;
        assert_eq!(delivery.method.delivery_tag, tag);
        assert_eq!(delivery.method.redelivered, tag > 1);
        nack(&mut peer, tag, false, true).await;
    }
}

#[tokio::test]
async fn recover_gives_everything_back() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 3, 2).await;
    peer.call(1, basic::Recover { requeue: true }).await;
    assert_eq!(peer.drain(1, "q").await, ["a", "b", "c"]);
    assert_eq!(given_back(&mut peer).await, [""; 0]);
}

#[tokio::test]
async fn recover_async_is_not_answered() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 1, 1).await;
    peer.send(1, basic::RecoverAsync { requeue: true }).await;
    peer.expect_nothing(1).await;
    assert!(peer.get(1, "q", true).await.unwrap().method.redelivered);
}

#[tokio::test]
async fn recovered_messages_come_again_with_new_tags() {
    let broker = TestBroker::start().await;
    let mut peer = holding(&broker, 1, 0).await;
    peer.consume(1, "q", "tag").await;
    assert_eq!(peer.expect_delivery(1).await.method.delivery_tag, 1);
    peer.call(1, basic::Recover { requeue: true }).await;
    let again = peer.expect_delivery(1).await.method;
    assert_eq!((again.delivery_tag, again.redelivered), (2, true));
}

#[tokio::test]
async fn recover_without_requeue_is_540() {
    let broker = TestBroker::start().await;
    let text = "NOT_IMPLEMENTED - requeue=false";
    let mut peer = broker.amqp().await;
    peer.send(1, basic::Recover { requeue: false }).await;
    peer.expect_connection_error(540, text, (60, 110)).await;
    let mut peer = broker.amqp().await;
    peer.send(1, basic::RecoverAsync { requeue: false }).await;
    peer.expect_connection_error(540, text, (60, 100)).await;
}

#[tokio::test]
async fn lost_connection_gives_everything_back() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    drop(holding(&broker, 3, 2).await);
    warren_tests::eventually("all three are ready", async || peer.counts(1, "q").await.0 == 3)
        .await;
    assert_eq!(peer.drain(1, "q").await, ["a", "b", "c"]);
}
