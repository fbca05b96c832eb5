//! Exchange types and the way through several exchanges.

use proto_amqp::Properties;
use proto_amqp::control::protocol::{exchange, queue};
use proto_amqp::control::types::{AMQPValue, FieldTable};
use proto_amqp::table::Value;
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{flag, headers, int, long, table, text, texts_header, written};
use warren_tests::amqp::{Peer, publish};

async fn bind_exchange(peer: &mut Peer, destination: &str, source: &str, key: &str) {
    let (destination, source, routing_key) = (destination.into(), source.into(), key.into());
    let bind = exchange::Bind { destination, source, routing_key, ..exchange::Bind::default() };
    peer.call(1, bind).await;
}

async fn declare_with_alternate(peer: &mut Peer, name: &str, kind: &str, alternate: &str) {
    let (exchange, kind) = (name.into(), kind.into());
    let arguments = table([("alternate-exchange", text(alternate))]);
    let declare = exchange::Declare { exchange, kind, arguments, ..exchange::Declare::default() };
    peer.call(1, declare).await;
}

const NOBODY: [&str; 0] = [];

#[tokio::test]
async fn default_exchange_routes_by_queue_name() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "a").await;
    peer.declare(1, "b").await;
    peer.publish(1, "", "b", "to b").await;
    assert_eq!(peer.drain(1, "a").await, NOBODY);
    assert_eq!(peer.drain(1, "b").await, ["to b"]);
}

#[tokio::test]
async fn direct_exchange_compares_keys_exactly() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "a").await;
    peer.declare(1, "b").await;
    peer.bind(1, "a", "amq.direct", "k").await;
    peer.bind(1, "b", "amq.direct", "k").await;
    peer.bind(1, "b", "amq.direct", "").await;
    for key in ["k", "K", "k.", "", "#"] {
        peer.publish(1, "amq.direct", key, key).await;
    }
    assert_eq!(peer.drain(1, "a").await, ["k"]);
    assert_eq!(peer.drain(1, "b").await, ["k", ""]);
}

#[tokio::test]
async fn fanout_exchange_ignores_keys() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["a", "b"] {
        peer.declare(1, name).await;
        peer.bind(1, name, "amq.fanout", name).await;
    }
    peer.publish(1, "amq.fanout", "whatever", "x").await;
    for name in ["a", "b"] {
        assert_eq!(peer.drain(1, name).await, ["x"]);
    }
}

#[tokio::test]
async fn topic_patterns() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for (pattern, key, matches) in [
        ("#", "", true),
        ("*", "", false),
        ("", "", true),
        ("", "a", false),
        ("a.#", "a", true),
        ("a.#", "a.b.c", true),
        ("a.#", "ab", false),
        ("#.a", "a", true),
        ("#.a", "x.y.a", true),
        ("#.#", "x", true),
        ("#.*", "a", true),
        ("#.*", "", false),
        ("a.#.b", "a.b", true),
        ("a.#.b", "a.x.y.b", true),
        ("a.#.b", "a.x", false),
        ("a.#.#.b", "a.x.b", true),
        ("a.*", "a.", true),
        ("a.*", "a", false),
        ("a.*", "a.b.c", false),
        ("*.*", ".", true),
        ("a..b", "a..b", true),
        ("a.*.b", "a..b", true),
        ("#.b.#", "a.b.c", true),
        ("#.b.#", "a.c", false),
        ("*#", "x", false),
        ("*#", "*#", true),
        ("A", "a", false),
        ("a.b", "a.b", true),
    ] {
        peer.declare(1, "q").await;
        peer.bind(1, "q", "amq.topic", pattern).await;
        peer.publish(1, "amq.topic", key, "x").await;
        let delete = queue::Delete { queue: "q".into(), ..queue::Delete::default() };
        let count = peer.call(1, delete).await.message_count;
        assert_eq!(count, u32::from(matches), "pattern {pattern:?}, key {key:?}");
    }
}

#[tokio::test]
async fn headers_patterns() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let any = || ("x-match", text("any"));
    let all = || ("x-match", text("all"));
    let one = Value::LongInt(1);
    let numbers = |number| AMQPValue::FieldArray(vec![number].into());
    let ones = written(|table| table.array(b"a", |array| array.write(one)));
    let rows: [(FieldTable, Vec<u8>, bool); 28] = [
        (FieldTable::default(), headers([]), true),
        (FieldTable::default(), headers([("z", one)]), true),
        (table([any()]), headers([]), false),
        (table([all(), ("a", int(1))]), headers([("a", one), ("b", Value::LongInt(2))]), true),
        (table([("a", int(1))]), headers([("b", one)]), false),
        (table([all(), ("a", int(1))]), headers([("a", Value::LongString(b"1"))]), false),
        (table([all(), ("a", int(1)), ("b", int(2))]), headers([("a", one)]), false),
        (table([any(), ("a", int(1)), ("b", int(2))]), headers([("b", Value::LongInt(2))]), true),
        (table([any(), ("a", int(1)), ("b", int(2))]), headers([("b", one)]), false),
        // Names that begin with x- count only where the binding says so.
        (table([all(), ("x-a", int(1))]), headers([]), true),
        (table([any(), ("x-a", int(1))]), headers([("x-a", one)]), false),
        (table([("x-match", text("all-with-x")), ("x-a", int(1))]), headers([]), false),
        (table([("x-match", text("all-with-x")), ("x-a", int(1))]), headers([("x-a", one)]), true),
        (table([("x-match", text("any-with-x")), ("x-a", int(1))]), headers([("x-a", one)]), true),
        // Types: numbers by value, nothing else by likeness.
        (table([("a", int(1))]), headers([("a", Value::LongLongInt(1))]), true),
        (table([("a", long(5))]), headers([("a", Value::Double(5.0))]), true),
        (table([("a", flag(true))]), headers([("a", one)]), false),
        (table([("a", flag(true))]), headers([("a", Value::Boolean(true))]), true),
        (table([("a", text("v"))]), headers([("a", Value::LongString(b"v"))]), true),
        (table([("a", text("v"))]), headers([("a", Value::LongString(b"V"))]), false),
        // Without a value: it is enough that the header is there.
        (table([("a", AMQPValue::Void)]), headers([("a", Value::LongString(b"anything"))]), true),
        (table([("a", AMQPValue::Void)]), headers([("b", one)]), false),
        (table([("a", AMQPValue::Timestamp(7))]), headers([("a", Value::Timestamp(7))]), true),
        // A timestamp is a number too.
        (table([("a", AMQPValue::Timestamp(1))]), headers([("a", one)]), true),
        (table([("a", int(7))]), headers([("a", Value::Timestamp(7))]), true),
        (table([("a", AMQPValue::Timestamp(1))]), headers([("a", Value::Boolean(true))]), false),
        // Inside of an array types count.
        (table([("a", numbers(int(1)))]), ones.clone(), true),
        (table([("a", numbers(long(1)))]), ones, false),
    ];
    for (arguments, sent, matches) in rows {
        peer.declare(1, "q").await;
        let bind = queue::Bind {
            queue: "q".into(),
            exchange: "amq.headers".into(),
            arguments: arguments.clone(),
            ..queue::Bind::default()
        };
        peer.call(1, bind).await;
        let properties = Properties { headers: Some(&sent), ..Properties::default() };
        peer.publish_with(1, publish("amq.headers", "ignored"), &properties, b"x").await;
        let delete = queue::Delete { queue: "q".into(), ..queue::Delete::default() };
        let count = peer.call(1, delete).await.message_count;
        let shown = sent.escape_ascii();
        assert_eq!(count, u32::from(matches), "binding {arguments:?}, headers {shown}");
    }
}

#[tokio::test]
async fn headers_of_a_message_without_any() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "all").await;
    peer.bind(1, "all", "amq.match", "").await;
    peer.publish(1, "amq.match", "", "no headers").await;
    assert_eq!(peer.drain(1, "all").await, ["no headers"]);
}

#[tokio::test]
async fn bad_match_argument_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for (value, text) in [
        (
            text("some"),
            "PRECONDITION_FAILED - Invalid x-match field value <<\"some\">>; expected all, any, \
             all-with-x, or any-with-x",
        ),
        (
            int(5),
            "PRECONDITION_FAILED - Invalid x-match field type signedint (value 5); expected longstr",
        ),
    ] {
        let bind = queue::Bind {
            queue: "q".into(),
            exchange: "amq.headers".into(),
            arguments: table([("x-match", value)]),
            ..queue::Bind::default()
        };
        peer.send(1, bind).await;
        peer.expect_channel_error(1, 406, text, (50, 20)).await;
    }
}

#[tokio::test]
async fn exchanges_route_on_to_exchanges() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_exchange(1, "first", "topic").await;
    peer.declare_exchange(1, "second", "direct").await;
    peer.declare(1, "q").await;
    bind_exchange(&mut peer, "second", "first", "#.urgent").await;
    peer.bind(1, "q", "second", "disk.urgent").await;
    // Each exchange looks at the same key in its own way.
    for key in ["disk.urgent", "cpu.urgent", "disk.slow"] {
        peer.publish(1, "first", key, key).await;
    }
    assert_eq!(peer.drain(1, "q").await, ["disk.urgent"]);
}

#[tokio::test]
async fn cycles_of_exchanges_end_and_deliver_once() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["a", "b", "c"] {
        peer.declare_exchange(1, name, "fanout").await;
    }
    for (destination, source) in [("b", "a"), ("c", "b"), ("a", "c"), ("a", "a")] {
        bind_exchange(&mut peer, destination, source, "").await;
    }
    peer.declare(1, "q").await;
    for name in ["a", "b", "c"] {
        peer.bind(1, "q", name, "").await;
    }
    peer.publish(1, "b", "", "once").await;
    assert_eq!(peer.drain(1, "q").await, ["once"]);
}

#[tokio::test]
async fn alternate_exchange_takes_what_its_own_bindings_do_not() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "own").await;
    peer.declare(1, "spare").await;
    peer.declare_exchange(1, "last", "fanout").await;
    peer.bind(1, "spare", "last", "").await;
    // A chain of them; the one that is missing is no harm.
    declare_with_alternate(&mut peer, "middle", "direct", "last").await;
    declare_with_alternate(&mut peer, "front", "direct", "middle").await;
    declare_with_alternate(&mut peer, "loose", "direct", "missing").await;
    peer.bind(1, "own", "front", "k").await;
    for key in ["k", "other"] {
        let method = proto_amqp::control::protocol::basic::Publish {
            mandatory: true,
            ..publish("front", key)
        };
        peer.publish_with(1, method, &Properties::default(), key.as_bytes()).await;
    }
    peer.publish(1, "loose", "k", "x").await;
    // Nothing came back: it was routed after all.
    peer.expect_nothing(1).await;
    assert_eq!(peer.drain(1, "own").await, ["k"]);
    assert_eq!(peer.drain(1, "spare").await, ["other"]);
}

#[tokio::test]
async fn the_default_exchange_as_an_alternate_takes_nothing() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    declare_with_alternate(&mut peer, "front", "direct", "").await;
    let method =
        proto_amqp::control::protocol::basic::Publish { mandatory: true, ..publish("front", "q") };
    peer.publish_with(1, method, &Properties::default(), b"x").await;
    assert_eq!(peer.expect_return(1).await.method.reply_code, 312);
    assert_eq!(peer.drain(1, "q").await, NOBODY);
}

#[tokio::test]
async fn of_a_repeated_copies_header_the_first_counts() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["first", "second"] {
        peer.declare(1, name).await;
    }
    for name in ["CC", "BCC"] {
        let twice = [texts_header(name, &["first"]), texts_header(name, &["second"])].concat();
        let properties = Properties { headers: Some(&twice), ..Properties::default() };
        peer.publish_with(1, publish("", "nobody"), &properties, name.as_bytes()).await;
    }
    assert_eq!(peer.drain(1, "first").await, ["CC", "BCC"]);
    assert_eq!(peer.drain(1, "second").await, NOBODY);
}

#[tokio::test]
async fn alternate_exchange_of_an_exchange_on_the_way() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "spare").await;
    peer.declare_exchange(1, "last", "fanout").await;
    peer.bind(1, "spare", "last", "").await;
    declare_with_alternate(&mut peer, "inner", "direct", "last").await;
    peer.declare_exchange(1, "outer", "fanout").await;
    bind_exchange(&mut peer, "inner", "outer", "").await;
    peer.publish(1, "outer", "nobody", "x").await;
    assert_eq!(peer.drain(1, "spare").await, ["x"]);
}

#[tokio::test]
async fn carbon_copies_are_routed_by_their_own_keys() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["to", "copy", "blind"] {
        peer.declare(1, name).await;
        peer.bind(1, name, "amq.topic", &format!("{name}.#")).await;
    }
    let (open, blind) = (texts_header("CC", &["copy"]), texts_header("BCC", &["blind", "to"]));
    let both = [&open[..], &blind].concat();
    let properties = Properties { headers: Some(&both), ..Properties::default() };
    for exchange in ["", "amq.topic"] {
        peer.publish_with(1, publish(exchange, "to"), &properties, b"x").await;
        for name in ["to", "copy", "blind"] {
            let got = peer.get(1, name, true).await.unwrap();
            assert_eq!(got.method.routing_key.as_str(), "to", "as it was published");
            assert_eq!(got.decoded().headers, Some(&open[..]), "who is blind is not shown");
            assert_eq!(got.method.message_count, 0, "{name} has one copy");
        }
    }
    // A direct exchange that only a copy finds.
    peer.bind(1, "copy", "amq.direct", "c").await;
    let only = texts_header("CC", &["c"]);
    let properties = Properties { headers: Some(&only), ..Properties::default() };
    peer.publish_with(1, publish("amq.direct", "nobody"), &properties, b"x").await;
    assert_eq!(peer.drain(1, "copy").await, ["x"]);
}

#[tokio::test]
async fn what_a_channel_remembers_of_a_route_follows_the_bindings() {
    let broker = TestBroker::start().await;
    let (mut publisher, mut other) = (broker.amqp().await, broker.amqp().await);
    publisher.declare(1, "a").await;
    publisher.declare(1, "b").await;
    publisher.bind(1, "a", "amq.direct", "k").await;
    publisher.publish(1, "amq.direct", "k", "1").await;
    publisher.expect_nothing(1).await;
    other.bind(1, "b", "amq.direct", "k").await;
    publisher.publish(1, "amq.direct", "k", "2").await;
    publisher.expect_nothing(1).await;
    let unbind = queue::Unbind {
        queue: "a".into(),
        exchange: "amq.direct".into(),
        routing_key: "k".into(),
        ..queue::Unbind::default()
    };
    other.call(1, unbind).await;
    publisher.publish(1, "amq.direct", "k", "3").await;
    publisher.expect_nothing(1).await;
    other.call(1, queue::Delete { queue: "b".into(), ..queue::Delete::default() }).await;
    other.declare(1, "b").await;
    publisher.publish(1, "amq.direct", "k", "4").await;
    publisher.publish(1, "", "b", "5").await;
    assert_eq!(publisher.drain(1, "a").await, ["1", "2"]);
    assert_eq!(publisher.drain(1, "b").await, ["5"]);
}
