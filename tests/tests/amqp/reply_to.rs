//! Direct reply-to: answers without a queue of one's own (`amq.rabbitmq.reply-to`).

use proto_amqp::Properties;
use proto_amqp::control::protocol::{basic, queue};
use warren_tests::TestBroker;
use warren_tests::amqp::{Peer, publish};

const REPLY_TO: &str = "amq.rabbitmq.reply-to";
const CONSUME: (u16, u16) = (60, 20);

fn consume(tag: &str) -> basic::Consume {
    let (queue, consumer_tag) = (REPLY_TO.into(), tag.into());
    basic::Consume { queue, consumer_tag, no_ack: true, ..basic::Consume::default() }
}

/// Publishes a request to the queue `rpc`.
async fn ask(peer: &mut Peer, body: &str) {
    let properties = Properties {
        reply_to: Some(REPLY_TO.as_bytes()),
        correlation_id: Some(b"c1"),
        ..Properties::default()
    };
    peer.publish_with(1, publish("", "rpc"), &properties, body.as_bytes()).await;
}

/// Takes a request and gives the name that the answer has to go to.
async fn asked(server: &mut Peer) -> String {
    let request = server.get_soon(1, "rpc").await;
    let reply_to = request.decoded().reply_to.unwrap().to_vec();
    String::from_utf8(reply_to).unwrap()
}

#[tokio::test]
async fn an_answer_finds_who_asked() {
    let broker = TestBroker::start().await;
    let (mut client, mut server) = (broker.amqp().await, broker.amqp().await);
    server.declare(1, "rpc").await;
    client.call(1, consume("replies")).await;
    ask(&mut client, "question").await;
    let name = asked(&mut server).await;
    assert!(name.starts_with("amq.rabbitmq.reply-to."), "{name}");
    assert!(name.len() < 255 && name.len() > REPLY_TO.len() + 16, "{name}");
    // Whoever answers may ask whether somebody is still waiting.
    let passive = |passive| queue::Declare {
        queue: name.as_str().into(),
        passive,
        ..queue::Declare::default()
    };
    for passively in [true, false] {
        let ok = server.call(1, passive(passively)).await;
        assert_eq!((ok.queue.as_str(), ok.message_count, ok.consumer_count), (&*name, 0, 1));
    }
    server.publish(1, "", &name, "answer").await;
    let answer = client.expect_delivery(1).await;
    assert_eq!(answer.text(), "answer");
    assert_eq!(answer.method.consumer_tag.as_str(), "replies");
    assert_eq!(answer.method.routing_key.as_str(), name);
    assert_eq!(answer.method.exchange.as_str(), "");
    assert!(!answer.method.redelivered);
}

#[tokio::test]
async fn a_late_answer_is_dropped_and_can_be_noticed() {
    let broker = TestBroker::start().await;
    let (mut client, mut server) = (broker.amqp().await, broker.amqp().await);
    server.declare(1, "rpc").await;
    client.call(1, consume("replies")).await;
    ask(&mut client, "question").await;
    let name = asked(&mut server).await;
    client.call(1, basic::Cancel { consumer_tag: "replies".into(), nowait: false }).await;
    server.publish(1, "", &name, "too late").await;
    let method = basic::Publish { mandatory: true, ..publish("", &name) };
    server.publish_with(1, method, &Properties::default(), b"too late").await;
    assert_eq!(server.expect_return(1).await.method.reply_code, 312);
    let declare =
        queue::Declare { queue: name.as_str().into(), passive: true, ..queue::Declare::default() };
    server.send(1, declare).await;
    let text = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
    server.expect_channel_error(1, 404, &text, (50, 10)).await;
    client.expect_nothing(1).await;
}

#[tokio::test]
async fn reply_consumer_cannot_acknowledge() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, basic::Consume { no_ack: false, ..consume("replies") }).await;
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    peer.expect_channel_error(1, 406, text, CONSUME).await;
}

#[tokio::test]
async fn a_channel_has_one_reply_consumer() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, consume("a")).await;
    peer.send(1, consume("b")).await;
    let text = "PRECONDITION_FAILED - reply consumer already set";
    peer.expect_channel_error(1, 406, text, CONSUME).await;
    // It went with the channel; cancelling it makes room too.
    peer.call(1, consume("a")).await;
    peer.call(1, basic::Cancel { consumer_tag: "a".into(), nowait: false }).await;
    peer.call(1, consume("b")).await;
    peer.send(1, consume("b")).await;
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 'b'";
    peer.expect_connection_error(530, text, CONSUME).await;
}

#[tokio::test]
async fn without_a_reply_consumer_nobody_can_ask() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "rpc").await;
    peer.open_channel(2).await;
    peer.call(2, consume("elsewhere")).await;
    ask(&mut peer, "question").await;
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    peer.expect_channel_error(1, 406, text, (60, 40)).await;
    assert_eq!(peer.counts(1, "rpc").await.0, 0);
}

#[tokio::test]
async fn the_bare_name_can_always_be_declared() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for passive in [true, false] {
        let declare =
            queue::Declare { queue: REPLY_TO.into(), passive, ..queue::Declare::default() };
        let ok = peer.call(1, declare).await;
        assert_eq!((ok.queue.as_str(), ok.message_count, ok.consumer_count), (REPLY_TO, 0, 1));
    }
}
