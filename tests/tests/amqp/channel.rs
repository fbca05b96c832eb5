//! The `channel` class: open, flow, close, and what a closed channel hears.

use proto_amqp::control::protocol::{basic, channel, queue};
use warren_tests::TestBroker;
use warren_tests::amqp::Method as _;

#[tokio::test]
async fn second_open_is_504() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, channel::Open {}).await;
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    peer.expect_connection_error(504, text, (20, 10)).await;
}

#[tokio::test]
async fn method_on_a_closed_channel_is_504() {
    let broker = TestBroker::start().await;
    let text = "CHANNEL_ERROR - expected 'channel.open'";
    let mut peer = broker.amqp().await;
    peer.send(2, queue::Declare::default()).await;
    peer.expect_connection_error(504, text, (50, 10)).await;

    let mut peer = broker.amqp().await;
    peer.close_channel(1).await;
    peer.send(1, basic::Ack::default()).await;
    peer.expect_connection_error(504, text, (60, 80)).await;

    let mut peer = broker.amqp().await;
    peer.publish(9, "", "q", "x").await;
    peer.expect_connection_error(504, text, (60, 40)).await;
}

#[tokio::test]
async fn closed_number_can_be_opened_again() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(1, "q").await;
    for _ in 0..3 {
        peer.publish(1, "", "q", "x").await;
        assert_eq!(peer.get(1, "q", false).await.unwrap().method.delivery_tag, 1);
        peer.close_channel(1).await;
        assert_eq!(peer.drain(2, "q").await, ["x"], "given back by the closed channel");
        peer.open_channel(1).await;
    }
}

#[tokio::test]
async fn closing_and_opening_may_be_pipelined() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    let mut octets = peer.encoded(1, &close.into_class());
    octets.extend(peer.encoded(1, &channel::Open {}.into_class()));
    peer.send_octets(&octets).await;
    let _: channel::CloseOk = peer.expect(1).await;
    let _: channel::OpenOk = peer.expect(1).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn frames_after_an_exception_are_discarded() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "missing", "", "refused").await;
    // All of this arrives on a channel that is closing: contents, requests, a close.
    peer.publish(1, "", "q", "late").await;
    let octets = peer.encoded(1, &basic::Get { queue: "q".into(), no_ack: true }.into_class());
    peer.send_octets(&octets).await;
    let close = channel::Close { reply_code: 200, ..channel::Close::default() };
    peer.send(1, close).await;
    let close: channel::Close = peer.expect(1).await;
    assert_eq!(close.reply_code, 404);
    let _: channel::CloseOk = peer.expect(1).await;
    peer.send(1, channel::CloseOk {}).await;
    peer.open_channel(1).await;
    assert_eq!(peer.counts(1, "q").await, (0, 0));
}

#[tokio::test]
async fn an_exception_leaves_other_channels_alone() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(2, "q").await;
    peer.consume(2, "q", "tag").await;
    peer.send(1, basic::Get { queue: "missing".into(), no_ack: true }).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, (60, 70)).await;
    peer.publish(1, "", "q", "still here").await;
    assert_eq!(peer.expect_text(2).await, "still here");
}

#[tokio::test]
async fn an_exception_gives_back_what_the_channel_holds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "a").await;
    peer.publish(1, "", "q", "b").await;
    peer.consume(1, "q", "tag").await;
    peer.expect_text(1).await;
    peer.expect_text(1).await;
    peer.ack(1, 99).await;
    let text = "PRECONDITION_FAILED - unknown delivery tag 99";
    peer.expect_channel_close(1, 406, text, (60, 80)).await;
    let (first, second) =
        (peer.get(2, "q", true).await.unwrap(), peer.get(2, "q", true).await.unwrap());
    assert_eq!((first.text(), second.text()), ("a".to_owned(), "b".to_owned()));
    assert!(first.method.redelivered && second.method.redelivered);
    assert_eq!(peer.counts(2, "q").await, (0, 0), "the consumer is gone with its channel");
}

#[tokio::test]
async fn requests_may_be_pipelined() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let mut octets = Vec::new();
    for name in ["a", "b", "c"] {
        let declare = queue::Declare { queue: name.into(), ..queue::Declare::default() };
        octets.extend(peer.encoded(1, &declare.into_class()));
    }
    peer.send_octets(&octets).await;
    for name in ["a", "b", "c"] {
        let ok: queue::DeclareOk = peer.expect(1).await;
        assert_eq!(ok.queue.as_str(), name);
    }
}

#[tokio::test]
async fn flow_active_is_answered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let ok = peer.call(1, channel::Flow { active: true }).await;
    assert!(ok.active);
}

#[tokio::test]
async fn flow_inactive_is_540() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, channel::Flow { active: false }).await;
    let text = "NOT_IMPLEMENTED - active=false";
    peer.expect_connection_error(540, text, (20, 20)).await;
}

#[tokio::test]
async fn long_texts_are_cut_to_what_a_short_string_holds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let name = "n".repeat(255);
    peer.send(1, basic::Get { queue: name.as_str().into(), no_ack: true }).await;
    let close: channel::Close = peer.expect(1).await;
    let start = format!("NOT_FOUND - no queue '{name}");
    assert_eq!(close.reply_text.as_str(), format!("{}...", &start[..252]));
}
