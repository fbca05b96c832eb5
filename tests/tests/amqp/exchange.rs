//! The `exchange` class.

use proto_amqp::control::protocol::{AMQPClass, exchange};
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{int, table, text};
use warren_tests::amqp::{Method as _, Peer};

const DECLARE: (u16, u16) = (40, 10);
const DELETE: (u16, u16) = (40, 20);

fn declaration(exchange: &str, kind: &str) -> exchange::Declare {
    let (exchange, kind) = (exchange.into(), kind.into());
    exchange::Declare { exchange, kind, ..exchange::Declare::default() }
}

fn passive(exchange: &str) -> exchange::Declare {
    exchange::Declare { passive: true, ..declaration(exchange, "") }
}

fn binding(destination: &str, source: &str, key: &str) -> exchange::Bind {
    let (destination, source, routing_key) = (destination.into(), source.into(), key.into());
    exchange::Bind { destination, source, routing_key, ..exchange::Bind::default() }
}

async fn exists(peer: &mut Peer, exchange: &str) -> bool {
    peer.send(1, passive(exchange)).await;
    match peer.next(1).await {
        warren_tests::amqp::Incoming::Method(AMQPClass::Exchange(_)) => true,
        _ => {
            peer.send(1, proto_amqp::control::protocol::channel::CloseOk {}).await;
            peer.open_channel(1).await;
            false
        }
    }
}

#[tokio::test]
async fn predeclared_exchanges_exist() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for (name, kind) in [
        ("amq.direct", "direct"),
        ("amq.fanout", "fanout"),
        ("amq.topic", "topic"),
        ("amq.headers", "headers"),
        ("amq.match", "headers"),
    ] {
        peer.call(1, passive(name)).await;
        // They are durable, and can be declared again as what they are.
        peer.call(1, exchange::Declare { durable: true, ..declaration(name, kind) }).await;
    }
    let trace = exchange::Declare {
        durable: true,
        internal: true,
        ..declaration("amq.rabbitmq.trace", "topic")
    };
    peer.call(1, trace).await;
}

#[tokio::test]
async fn default_exchange_cannot_be_touched() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    peer.send(1, declaration("", "direct")).await;
    peer.expect_channel_error(1, 403, text, DECLARE).await;
    peer.send(1, passive("")).await;
    peer.expect_channel_error(1, 403, text, DECLARE).await;
    peer.send(1, exchange::Delete::default()).await;
    peer.expect_channel_error(1, 403, text, DELETE).await;
    peer.send(1, binding("", "amq.direct", "k")).await;
    peer.expect_channel_error(1, 403, text, (40, 30)).await;
    peer.send(1, binding("amq.direct", "", "k")).await;
    peer.expect_channel_error(1, 403, text, (40, 30)).await;
    let unbind =
        exchange::Unbind { destination: "amq.direct".into(), ..exchange::Unbind::default() };
    peer.send(1, unbind).await;
    peer.expect_channel_error(1, 403, text, (40, 40)).await;
}

#[tokio::test]
async fn declare_creates() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for kind in ["direct", "fanout", "topic", "headers"] {
        let name = format!("a {kind}/exchange, ünd mehr");
        assert!(!exists(&mut peer, &name).await);
        peer.call(1, declaration(&name, kind)).await;
        assert!(exists(&mut peer, &name).await);
        // Declaring it again as it is changes nothing.
        peer.call(1, declaration(&name, kind)).await;
    }
}

#[tokio::test]
async fn line_ends_are_taken_out_of_names() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, declaration("a\r\nb", "direct")).await;
    assert!(exists(&mut peer, "ab").await);
}

#[tokio::test]
async fn passive_declare_of_a_missing_exchange_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // What kind it is asked for does not matter, not even one that does not exist.
    peer.send(1, exchange::Declare { kind: "x-strange".into(), ..passive("missing") }).await;
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, DECLARE).await;
    peer.call(1, exchange::Declare { kind: "x-strange".into(), ..passive("amq.direct") }).await;
}

#[tokio::test]
async fn unknown_type_is_503() {
    let broker = TestBroker::start().await;
    for kind in ["x-consistent-hash", "x-delayed-message", "", "Direct"] {
        let mut peer = broker.amqp().await;
        peer.send(1, declaration("e", kind)).await;
        let text = format!("COMMAND_INVALID - unknown exchange type '{kind}'");
        peer.expect_connection_error(503, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn redeclare_with_another_type_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = table([("alternate-exchange", text("one"))]);
    peer.call(1, exchange::Declare { arguments, ..declaration("e", "topic") }).await;
    let same = || exchange::Declare {
        arguments: table([("alternate-exchange", text("one"))]),
        ..declaration("e", "topic")
    };
    let other = |name: &str| table([("alternate-exchange", text(name))]);
    for (again, field, received, current) in [
        (exchange::Declare { kind: "direct".into(), ..same() }, "type", "'direct'", "'topic'"),
        (exchange::Declare { durable: true, ..same() }, "durable", "'true'", "'false'"),
        (exchange::Declare { auto_delete: true, ..same() }, "auto_delete", "'true'", "'false'"),
        (exchange::Declare { internal: true, ..same() }, "internal", "'true'", "'false'"),
        (
            exchange::Declare { arguments: other("two"), ..same() },
            "alternate-exchange",
            "'two'",
            "'one'",
        ),
        (
            declaration("e", "topic"),
            "alternate-exchange",
            "none",
            "the value 'one' of type 'longstr'",
        ),
    ] {
        peer.send(1, again).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{field}' for exchange 'e' in vhost '/': \
             received {received} but current is {current}"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    }
    // Other arguments are kept and not compared.
    let arguments = table([("alternate-exchange", text("one")), ("x-mine", int(1))]);
    peer.call(1, exchange::Declare { arguments, ..same() }).await;
}

#[tokio::test]
async fn alternate_exchange_has_to_be_a_string() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = table([("alternate-exchange", int(5))]);
    peer.send(1, exchange::Declare { arguments, ..declaration("e", "topic") }).await;
    let text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in \
                exchange 'e' in vhost '/'";
    peer.expect_channel_error(1, 406, text, DECLARE).await;
}

#[tokio::test]
async fn reserved_prefix_is_403() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, declaration("amq.mine", "direct")).await;
    let text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    peer.expect_channel_error(1, 403, text, DECLARE).await;
}

#[tokio::test]
async fn no_wait_is_not_answered() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, exchange::Declare { nowait: true, ..declaration("e", "direct") }).await;
    peer.send(1, exchange::Bind { nowait: true, ..binding("e", "amq.direct", "k") }).await;
    let unbind = exchange::Unbind {
        destination: "e".into(),
        source: "amq.direct".into(),
        routing_key: "k".into(),
        nowait: true,
        ..exchange::Unbind::default()
    };
    peer.send(1, unbind).await;
    let delete = exchange::Delete { exchange: "e".into(), nowait: true, if_unused: false };
    peer.send(1, delete).await;
    peer.expect_nothing(1).await;
    peer.send(1, exchange::Declare { nowait: true, ..passive("e") }).await;
    let text = "NOT_FOUND - no exchange 'e' in vhost '/'";
    peer.expect_channel_error(1, 404, text, DECLARE).await;
}

#[tokio::test]
async fn delete_if_unused_with_bindings_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_exchange(1, "source", "direct").await;
    peer.declare_exchange(1, "destination", "fanout").await;
    peer.call(1, binding("destination", "source", "k")).await;
    let if_unused =
        |name: &str| exchange::Delete { exchange: name.into(), if_unused: true, nowait: false };
    peer.send(1, if_unused("source")).await;
    let text = "PRECONDITION_FAILED - exchange 'source' in vhost '/' in use";
    peer.expect_channel_error(1, 406, text, DELETE).await;
    // Only bindings that lead away from it count.
    peer.call(1, if_unused("destination")).await;
    peer.call(1, if_unused("source")).await;
}

#[tokio::test]
async fn delete_of_a_missing_exchange_succeeds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, exchange::Delete { exchange: "missing".into(), ..Default::default() }).await;
}

#[tokio::test]
async fn delete_of_amq_direct_is_403() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["amq.direct", "amq.whatever"] {
        peer.send(1, exchange::Delete { exchange: name.into(), ..Default::default() }).await;
        let text = format!(
            "ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
        );
        peer.expect_channel_error(1, 403, &text, DELETE).await;
    }
}

#[tokio::test]
async fn deleting_an_exchange_takes_its_bindings_along() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.declare_exchange(1, "e", "fanout").await;
    peer.bind(1, "q", "e", "").await;
    peer.call(1, exchange::Delete { exchange: "e".into(), ..Default::default() }).await;
    peer.declare_exchange(1, "e", "fanout").await;
    peer.publish(1, "e", "", "to nobody").await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn publish_to_an_internal_exchange_is_403() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, exchange::Declare { internal: true, ..declaration("inner", "fanout") }).await;
    peer.publish(1, "inner", "", "x").await;
    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'";
    peer.expect_channel_error(1, 403, text, (60, 40)).await;
    // Through another exchange it can be reached.
    peer.declare(1, "q").await;
    peer.bind(1, "q", "inner", "").await;
    peer.declare_exchange(1, "outer", "fanout").await;
    peer.call(1, binding("inner", "outer", "")).await;
    peer.publish(1, "outer", "", "round the corner").await;
    assert_eq!(peer.drain(1, "q").await, ["round the corner"]);
}

#[tokio::test]
async fn auto_delete_goes_with_the_last_binding() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let auto = |name: &str| exchange::Declare { auto_delete: true, ..declaration(name, "direct") };
    peer.call(1, auto("first")).await;
    peer.call(1, auto("second")).await;
    peer.declare(1, "a").await;
    peer.declare(1, "b").await;
    assert!(exists(&mut peer, "first").await, "it never had a binding");
    peer.bind(1, "a", "second", "k").await;
    peer.bind(1, "b", "second", "k").await;
    peer.call(1, binding("second", "first", "k")).await;
    delete_queue(&mut peer, "a").await;
    assert!(exists(&mut peer, "second").await, "one binding is left");
    // The last binding goes, with it its exchange, with that the last binding of the other.
    delete_queue(&mut peer, "b").await;
    assert!(!exists(&mut peer, "second").await);
    assert!(!exists(&mut peer, "first").await);
}

async fn delete_queue(peer: &mut Peer, name: &str) {
    use proto_amqp::control::protocol::queue;
    peer.call(1, queue::Delete { queue: name.into(), ..queue::Delete::default() }).await;
}

#[tokio::test]
async fn binding_exchanges_reports_what_is_missing() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for (destination, source, missing) in [
        ("missing", "amq.direct", "missing"),
        ("amq.direct", "missing", "missing"),
        ("missing", "missing too", "missing too"),
    ] {
        peer.send(1, binding(destination, source, "k")).await;
        let text = format!("NOT_FOUND - no exchange '{missing}' in vhost '/'");
        peer.expect_channel_error(1, 404, &text, (40, 30)).await;
    }
    let unbind = exchange::Unbind {
        destination: "missing".into(),
        source: "missing too".into(),
        ..exchange::Unbind::default()
    };
    peer.call(1, unbind).await;
}

#[tokio::test]
async fn names_longer_than_a_short_string_cannot_be_sent() {
    // The longest name is legal and comes back whole in declare-ok of a queue and in errors, cut there.
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let name = "e".repeat(255);
    peer.call(1, declaration(&name, "fanout")).await;
    assert!(exists(&mut peer, &name).await);
    let octets = peer.encoded(1, &declaration(&name, "fanout").into_class());
    assert!(octets.len() > 255);
}
