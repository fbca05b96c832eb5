//! AMQP 0-8 and 0-9: what is different from 0-9-1.

use proto_amqp::control::protocol::{access, basic, channel, connection, queue};
use proto_amqp::control::types::AMQPValue;
use proto_amqp::table::Value;
use proto_amqp::{MethodId, Properties, Version};
use warren_tests::TestBroker;
use warren_tests::amqp::tables::headers;
use warren_tests::amqp::{Options, Peer, frame_of, method_payload, publish};

const METHOD: u8 = 1;

fn of(version: Version) -> Options {
    // Old clients announce no capabilities.
    Options { version, capabilities: Vec::new(), ..Options::default() }
}

#[tokio::test]
async fn capabilities_are_an_empty_table_for_0_8() {
    let broker = TestBroker::start().await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_8).await;
    let start = peer.start().await;
    // Python's amqplib knows no other types.
    for (name, value) in start.server_properties.inner() {
        match value {
            AMQPValue::LongString(_) => {}
            AMQPValue::FieldTable(table) => {
                assert_eq!(name.as_str(), "capabilities");
                assert!(table.inner().is_empty());
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn session_of_python_amqplib() {
    let broker = TestBroker::start().await;
    let mut peer = Peer::connect(broker.amqp_address(), Version::V0_8).await;
    let options = of(Version::V0_8);
    peer.start().await;
    let response = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x05guest";
    let start_ok = connection::StartOk {
        mechanism: "AMQPLAIN".into(),
        response: response[..].into(),
        ..options.start_ok()
    };
    peer.send(0, start_ok).await;
    peer.tune(&options).await;
    peer.call(0, options.open()).await;

    // channel.open-ok has no arguments; the ticket of access.request-ok is 1.
    peer.raw().send(&frame_of(METHOD, 1, b"\x00\x14\x00\x0a\x00")).await;
    peer.raw().expect(&frame_of(METHOD, 1, b"\x00\x14\x00\x0b")).await;
    let request = b"\x00\x1e\x00\x0a\x05/data\x1d";
    peer.raw().send(&frame_of(METHOD, 1, request)).await;
    peer.raw().expect(&frame_of(METHOD, 1, b"\x00\x1e\x00\x0b\x00\x01")).await;

    peer.declare(1, "q").await;
    peer.bind(1, "q", "amq.direct", "k").await;
    let table = headers([("n", Value::LongInt(7)), ("s", Value::LongString(b"text"))]);
    let properties = Properties {
        content_encoding: Some(b"UTF-8"),
        headers: Some(&table),
        ..Properties::default()
    };
    peer.publish_with(1, publish("amq.direct", "k"), &properties, b"hello").await;
    // basic.consume ends with its bits: there is no table of arguments.
    let consume = b"\x00\x3c\x00\x14\x00\x01\x01q\x03tag\x00";
    peer.send_frame(METHOD, 1, consume).await;
    let _: basic::ConsumeOk = peer.expect(1).await;
    let delivery = peer.expect_delivery(1).await;
    assert_eq!((delivery.text().as_str(), delivery.decoded()), ("hello", properties));
    peer.ack(1, 1).await;
    peer.close_channel(1).await;
    // 10, 60 is close here, and 10, 61 its answer.
    let close = b"\x00\x0a\x00\x3c\x00\x00\x00\x00\x00\x00\x00";
    peer.raw().send(&frame_of(METHOD, 0, close)).await;
    peer.raw().expect(&frame_of(METHOD, 0, b"\x00\x0a\x00\x3d")).await;
    assert_eq!(peer.raw().expect_end().await, b"");
}

#[tokio::test]
async fn errors_close_a_0_8_connection_with_its_own_numbers() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&of(Version::V0_8)).await;
    peer.send(1, channel::Open {}).await;
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    // The peer reads 10, 60 as close because it speaks 0-8.
    peer.expect_connection_error(504, text, (20, 10)).await;
}

#[tokio::test]
async fn what_0_8_does_not_have_is_503() {
    let broker = TestBroker::start().await;
    // exchange.bind, confirm.select, basic.nack, basic.get-empty's neighbours, classes that only 0-8 had.
    for (class, method) in [(40, 30), (85, 10), (60, 120), (70, 10), (80, 10), (100, 10), (110, 10)]
    {
        let mut peer = broker.amqp_as(&of(Version::V0_8)).await;
        let payload = method_payload(MethodId { class, method }, &[0; 16]);
        peer.send_frame(METHOD, 1, &payload).await;
        let text = "COMMAND_INVALID - unimplemented method";
        peer.expect_connection_error(503, text, (class, method)).await;
    }
}

#[tokio::test]
async fn consumer_cancel_is_not_sent_to_0_8() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&of(Version::V0_8)).await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    peer.call(1, queue::Delete { queue: "q".into(), ..queue::Delete::default() }).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn blocked_is_never_sent_to_0_8() {
    // Even if it announces that it could take it: with no free disk there is always an alarm.
    let broker = TestBroker::set(&["limits.disk_free=\"4194304GiB\""]).await;
    let options = Options { version: Version::V0_8, ..Options::default() };
    let (mut old, mut new) = (broker.amqp_as(&options).await, broker.amqp().await);
    new.declare(1, "q").await;
    warren_tests::eventually("the alarm is on", async || {
        new.publish(1, "", "q", "x").await;
        new.read_for(std::time::Duration::from_millis(10)).await;
        new.has_arrived(0)
    })
    .await;
    let blocked: connection::Blocked = new.expect(0).await;
    assert_eq!(blocked.reason.as_str(), "low on disk");
    old.publish(1, "", "q", "x").await;
    old.expect_silence(0).await;
}

#[tokio::test]
async fn header_0_9_is_served() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&of(Version::V0_9)).await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "hello").await;
    assert!(peer.get(1, "q", false).await.is_some());
    // recover by the number that the text of 0-9 gives it, answered in kind.
    peer.raw().send(&frame_of(METHOD, 1, b"\x00\x3c\x00\x66\x01")).await;
    peer.raw().expect(&frame_of(METHOD, 1, b"\x00\x3c\x00\x65")).await;
    assert!(peer.get(1, "q", true).await.unwrap().method.redelivered);
    peer.call(1, basic::Recover { requeue: true }).await;
    peer.close().await;
}

#[tokio::test]
async fn access_is_granted_in_every_version() {
    let broker = TestBroker::start().await;
    for version in [Version::V0_8, Version::V0_9, Version::V0_9_1] {
        let mut peer = broker.amqp_as(&of(version)).await;
        peer.call(1, access::Request { realm: "/data".into(), ..access::Request::default() }).await;
    }
}
