//! The `queue` class.

use proto_amqp::control::protocol::{basic, channel, queue};
use proto_amqp::control::types::{AMQPValue, FieldTable};
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{flag, int, long, table, text};
use warren_tests::amqp::{Incoming, Peer};

const DECLARE: (u16, u16) = (50, 10);
const BIND: (u16, u16) = (50, 20);
const PURGE: (u16, u16) = (50, 30);
const DELETE: (u16, u16) = (50, 40);
const UNBIND: (u16, u16) = (50, 50);

fn named(queue: &str) -> queue::Declare {
    queue::Declare { queue: queue.into(), ..queue::Declare::default() }
}

fn passive(queue: &str) -> queue::Declare {
    queue::Declare { passive: true, ..named(queue) }
}

fn binding(queue: &str, exchange: &str, key: &str) -> queue::Bind {
    let (queue, exchange, routing_key) = (queue.into(), exchange.into(), key.into());
    queue::Bind { queue, exchange, routing_key, ..queue::Bind::default() }
}

fn unbinding(queue: &str, exchange: &str, key: &str) -> queue::Unbind {
    let (queue, exchange, routing_key) = (queue.into(), exchange.into(), key.into());
    queue::Unbind { queue, exchange, routing_key, ..queue::Unbind::default() }
}

fn delete(queue: &str) -> queue::Delete {
    queue::Delete { queue: queue.into(), ..queue::Delete::default() }
}

/// Whether a queue is there; the channel is open afterwards.
async fn exists(peer: &mut Peer, queue: &str) -> bool {
    peer.send(1, passive(queue)).await;
    match peer.next(1).await {
        Incoming::Method(proto_amqp::control::protocol::AMQPClass::Queue(_)) => true,
        _ => {
            peer.send(1, channel::CloseOk {}).await;
            peer.open_channel(1).await;
            false
        }
    }
}

#[tokio::test]
async fn reserved_prefix_is_403() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, named("amq.mine")).await;
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    peer.expect_channel_error(1, 403, text, DECLARE).await;
    // A name that the broker made up can be declared passively only.
    let name = peer.declare(1, "").await.queue.to_string();
    peer.call(1, passive(&name)).await;
    peer.send(1, named(&name)).await;
    let text = format!("ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'");
    peer.expect_channel_error(1, 403, &text, DECLARE).await;
}

#[tokio::test]
async fn empty_name_is_made_up_by_the_broker() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let one = peer.declare(1, "").await.queue.to_string();
    let two = peer.declare(1, "").await.queue.to_string();
    for name in [&one, &two] {
        let random = name.strip_prefix("amq.gen-").unwrap();
        assert_eq!(random.len(), 22, "{name}");
        assert!(
            random.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
        );
    }
    assert_ne!(one, two);
}

#[tokio::test]
async fn line_ends_are_taken_out_of_names() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    assert_eq!(peer.declare(1, "a\nb\r").await.queue.as_str(), "ab");
}

#[tokio::test]
async fn passive_declare_of_a_missing_queue_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for name in ["missing", ""] {
        peer.send(1, passive(name)).await;
        let text = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
        peer.expect_channel_error(1, 404, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn passive_declare_looks_at_nothing_but_the_name() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let arguments = table([("x-max-length", text("nonsense"))]);
    let declare = queue::Declare { durable: true, exclusive: true, arguments, ..passive("q") };
    peer.call(1, declare).await;
}

#[tokio::test]
async fn declare_ok_counts_ready_messages_and_consumers() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let ok = peer.declare(1, "q").await;
    assert_eq!((ok.message_count, ok.consumer_count), (0, 0));
    for _ in 0..3 {
        peer.publish(1, "", "q", "x").await;
    }
    assert!(peer.get(1, "q", false).await.is_some());
    let ok = peer.declare(1, "q").await;
    assert_eq!(
        (ok.message_count, ok.consumer_count),
        (2, 0),
        "what is unacknowledged is not ready"
    );
    peer.qos(1, 1).await;
    for tag in ["a", "b"] {
        peer.consume(1, "q", tag).await;
        peer.expect_delivery(1).await;
    }
    assert_eq!(peer.counts(1, "q").await, (0, 2));
}

#[tokio::test]
async fn redeclaring_with_other_flags_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.call(1, queue::Declare { durable: true, ..named("d") }).await;
    peer.call(1, queue::Declare { durable: true, ..named("d") }).await;
    for (again, field, received, current) in [
        (queue::Declare { durable: true, ..named("q") }, "durable", "true", "false"),
        (named("d"), "durable", "false", "true"),
        (queue::Declare { auto_delete: true, ..named("q") }, "auto_delete", "true", "false"),
        // The first difference is named.
        (
            queue::Declare { durable: true, auto_delete: true, ..named("q") },
            "durable",
            "true",
            "false",
        ),
    ] {
        let name = again.queue.to_string();
        peer.send(1, again).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{field}' for queue '{name}' in vhost '/': \
             received '{received}' but current is '{current}'"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn redeclaring_with_other_arguments_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "plain").await;
    peer.declare_with(1, "bounded", table([("x-max-length", int(5))])).await;
    let check = async |peer: &mut Peer, name: &str, arguments: FieldTable, rest: &str| {
        peer.send(1, queue::Declare { arguments, ..named(name) }).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{name}' in vhost \
             '/': {rest}"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    };
    let five = "the value '5' of type 'signedint'";
    let rest = format!("received {five} but current is none");
    check(&mut peer, "plain", table([("x-max-length", int(5))]), &rest).await;
    let rest = format!("received none but current is {five}");
    check(&mut peer, "bounded", FieldTable::default(), &rest).await;
    // Types are told only where one of the two is not there.
    for (value, shown) in [(long(6), "6"), (text("five"), "five"), (AMQPValue::Double(5.0), "5.0")]
    {
        let rest = format!("received '{shown}' but current is '5'");
        check(&mut peer, "bounded", table([("x-max-length", value)]), &rest).await;
    }
}

#[tokio::test]
async fn of_several_other_arguments_the_first_in_rabbitmqs_order_is_named() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let rows = [
        ("x-expires", int(50_000), "'50000' of type 'signedint'"),
        ("x-message-ttl", int(50_000), "'50000' of type 'signedint'"),
        ("x-dead-letter-exchange", text("x"), "'x' of type 'longstr'"),
        ("x-dead-letter-routing-key", text("k"), "'k' of type 'longstr'"),
        ("x-max-length", int(5), "'5' of type 'signedint'"),
        ("x-max-length-bytes", int(5), "'5' of type 'signedint'"),
        ("x-max-priority", int(5), "'5' of type 'signedint'"),
        ("x-overflow", text("drop-head"), "'drop-head' of type 'longstr'"),
        ("x-queue-mode", text("lazy"), "'lazy' of type 'longstr'"),
        ("x-queue-version", int(2), "'2' of type 'signedint'"),
        ("x-single-active-consumer", flag(true), "'true' of type 'bool'"),
        ("x-queue-master-locator", text("random"), "'random' of type 'longstr'"),
    ];
    let first = |count: usize| {
        let mut arguments = FieldTable::default();
        for (key, value, _) in rows.iter().take(count) {
            arguments.insert((*key).into(), value.clone());
        }
        arguments
    };
    peer.declare_with(1, "q", first(rows.len())).await;
    for (index, (key, _, shown)) in rows.iter().enumerate() {
        // This one is missing, and all behind it.
        peer.send(1, queue::Declare { arguments: first(index), ..named("q") }).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{key}' for queue 'q' in vhost '/': received \
             none but current is the value {shown}"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn arguments_that_mean_the_same_are_equivalent() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", table([("x-max-length", int(5))])).await;
    // Integers of any width; arguments that nobody knows; the type that it has anyway.
    for value in [long(5), AMQPValue::ShortShortInt(5), AMQPValue::LongUInt(5)] {
        let arguments = table([
            ("x-max-length", value),
            ("x-mine", text("anything")),
            ("x-queue-type", text("classic")),
        ]);
        peer.declare_with(1, "q", arguments).await;
    }
    // Of an exclusive queue durable says nothing.
    peer.call(1, queue::Declare { exclusive: true, durable: true, ..named("own") }).await;
    peer.call(1, queue::Declare { exclusive: true, ..named("own") }).await;
}

fn locked(queue: &str) -> String {
    format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. \
         It could be originally declared on another connection or the exclusive property value \
         does not match that of the original declaration."
    )
}

#[tokio::test]
async fn exclusive_queue_is_locked_for_other_connections() {
    let broker = TestBroker::start().await;
    let mut owner = broker.amqp().await;
    let mut other = broker.amqp().await;
    owner.call(1, queue::Declare { exclusive: true, ..named("own") }).await;
    let text = locked("own");
    macro_rules! refused {
        ($request:expr, $method:expr) => {
            other.send(1, $request).await;
            other.expect_channel_error(1, 405, &text, $method).await;
        };
    }
    refused!(named("own"), DECLARE);
    refused!(queue::Declare { exclusive: true, ..named("own") }, DECLARE);
    refused!(passive("own"), DECLARE);
    refused!(binding("own", "amq.direct", "k"), BIND);
    owner.bind(1, "own", "amq.direct", "k").await;
    refused!(unbinding("own", "amq.direct", "k"), UNBIND);
    // Where there is nothing to unbind, nothing is refused.
    other.call(1, unbinding("own", "amq.direct", "other")).await;
    other.call(1, unbinding("own", "missing", "k")).await;
    refused!(queue::Purge { queue: "own".into(), nowait: false }, PURGE);
    refused!(delete("own"), DELETE);
    refused!(basic::Consume { queue: "own".into(), ..basic::Consume::default() }, (60, 20));
    refused!(basic::Get { queue: "own".into(), no_ack: true }, (60, 70));
    // Whoever may publish may publish to it.
    other.publish(1, "", "own", "hello").await;
    other.expect_nothing(1).await;
    // It belongs to the connection, not to the channel.
    owner.open_channel(2).await;
    assert_eq!(owner.drain(2, "own").await, ["hello"]);
}

#[tokio::test]
async fn exclusivity_has_to_match_even_for_the_owner() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, queue::Declare { exclusive: true, ..named("own") }).await;
    peer.send(1, named("own")).await;
    peer.expect_channel_error(1, 405, &locked("own"), DECLARE).await;
    peer.declare(1, "shared").await;
    peer.send(1, queue::Declare { exclusive: true, durable: true, ..named("shared") }).await;
    peer.expect_channel_error(1, 405, &locked("shared"), DECLARE).await;
}

#[tokio::test]
async fn exclusive_queues_go_before_the_connection_is_closed() {
    let broker = TestBroker::start().await;
    let mut owner = broker.amqp().await;
    let mut other = broker.amqp().await;
    owner.call(1, queue::Declare { exclusive: true, ..named("own") }).await;
    owner.close_channel(1).await;
    other.send(1, passive("own")).await;
    other.expect_channel_error(1, 405, &locked("own"), DECLARE).await;
    owner.close().await;
    assert!(!exists(&mut other, "own").await);

    let mut owner = broker.amqp().await;
    owner.call(1, queue::Declare { exclusive: true, ..named("own") }).await;
    drop(owner);
    warren_tests::eventually("the queue of a lost connection goes", async || {
        !exists(&mut other, "own").await
    })
    .await;
}

#[tokio::test]
async fn auto_delete_goes_with_the_last_consumer() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.open_channel(2).await;
    let auto = |name: &str| queue::Declare { auto_delete: true, ..named(name) };
    peer.call(1, auto("q")).await;
    peer.publish(1, "", "q", "x").await;
    assert!(peer.get(1, "q", true).await.is_some());
    assert!(exists(&mut peer, "q").await, "it never had a consumer");
    peer.consume(1, "q", "a").await;
    peer.consume(2, "q", "b").await;
    let cancel = |tag: &str| basic::Cancel { consumer_tag: tag.into(), ..basic::Cancel::default() };
    peer.call(1, cancel("a")).await;
    assert!(exists(&mut peer, "q").await, "one consumer is left");
    peer.call(2, cancel("b")).await;
    assert!(!exists(&mut peer, "q").await);

    peer.call(1, auto("q")).await;
    peer.consume(2, "q", "c").await;
    peer.close_channel(2).await;
    assert!(!exists(&mut peer, "q").await, "a channel takes its consumers along");
}

#[tokio::test]
async fn no_wait_declare_is_not_answered_but_errors_are() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, queue::Declare { nowait: true, ..named("q") }).await;
    peer.send(1, queue::Bind { nowait: true, ..binding("", "amq.direct", "k") }).await;
    peer.publish(1, "amq.direct", "k", "x").await;
    peer.send(1, queue::Purge { queue: "q".into(), nowait: true }).await;
    peer.expect_nothing(1).await;
    assert_eq!(peer.counts(1, "q").await, (0, 0));
    peer.send(1, queue::Delete { nowait: true, ..delete("q") }).await;
    peer.expect_nothing(1).await;
    peer.send(1, queue::Declare { nowait: true, ..named("amq.mine") }).await;
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    peer.expect_channel_error(1, 403, text, DECLARE).await;
}

#[tokio::test]
async fn empty_name_is_the_last_declared_queue() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let name = peer.declare(1, "").await.queue.to_string();
    // With both empty, the key is the queue's name.
    peer.call(1, binding("", "amq.direct", "")).await;
    peer.publish(1, "amq.direct", &name, "by its name").await;
    peer.call(1, binding("", "amq.direct", "key")).await;
    peer.publish(1, "amq.direct", "key", "by a key").await;
    assert_eq!(peer.drain(1, "").await, ["by its name", "by a key"]);
    peer.call(1, unbinding("", "amq.direct", "")).await;
    peer.publish(1, "amq.direct", &name, "to nobody").await;
    peer.publish(1, "amq.direct", "key", "purged").await;
    assert_eq!(peer.call(1, queue::Purge::default()).await.message_count, 1);
    // A passive declaration counts too.
    peer.declare(1, "other").await;
    peer.call(1, passive(&name)).await;
    peer.publish(1, "amq.direct", "key", "consumed").await;
    peer.consume(1, "", "tag").await;
    assert_eq!(peer.expect_text(1).await, "consumed");
    assert_eq!(peer.call(1, queue::Delete::default()).await.message_count, 0);
    let _: basic::Cancel = peer.expect(1).await;
    assert!(!exists(&mut peer, &name).await);
}

#[tokio::test]
async fn empty_name_without_a_declaration_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let text = "NOT_FOUND - no previously declared queue";
    macro_rules! refused {
        ($request:expr, $method:expr) => {
            peer.send(1, $request).await;
            peer.expect_channel_error(1, 404, text, $method).await;
        };
    }
    refused!(binding("", "amq.direct", "k"), BIND);
    refused!(unbinding("", "amq.direct", "k"), UNBIND);
    refused!(queue::Purge::default(), PURGE);
    refused!(delete(""), DELETE);
    refused!(basic::Consume::default(), (60, 20));
    refused!(basic::Get::default(), (60, 70));
}

#[tokio::test]
async fn binding_twice_is_one_binding() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for _ in 0..2 {
        peer.bind(1, "q", "amq.direct", "k").await;
    }
    peer.publish(1, "amq.direct", "k", "once").await;
    assert_eq!(peer.drain(1, "q").await, ["once"]);
    peer.call(1, unbinding("q", "amq.direct", "k")).await;
    peer.publish(1, "amq.direct", "k", "never").await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn bindings_differ_by_their_arguments() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let with = |arguments| queue::Bind { arguments, ..binding("q", "amq.direct", "k") };
    let without = |arguments| queue::Unbind { arguments, ..unbinding("q", "amq.direct", "k") };
    peer.call(1, with(table([("a", int(1)), ("b", int(2))]))).await;
    peer.call(1, with(table([("a", int(1))]))).await;
    // Two bindings, one message.
    peer.publish(1, "amq.direct", "k", "once").await;
    assert_eq!(peer.drain(1, "q").await, ["once"]);
    peer.call(1, without(table([("a", int(1))]))).await;
    peer.publish(1, "amq.direct", "k", "still").await;
    assert_eq!(peer.drain(1, "q").await, ["still"]);
    peer.call(1, without(FieldTable::default())).await;
    peer.publish(1, "amq.direct", "k", "and still").await;
    assert_eq!(peer.drain(1, "q").await, ["and still"]);
    peer.call(1, without(table([("b", int(2)), ("a", int(1))]))).await;
    peer.publish(1, "amq.direct", "k", "no more").await;
    assert_eq!(peer.drain(1, "q").await, [""; 0]);
}

#[tokio::test]
async fn binding_to_a_missing_exchange_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for queue in ["q", "missing too"] {
        peer.send(1, binding(queue, "missing", "k")).await;
        let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
        peer.expect_channel_error(1, 404, text, BIND).await;
    }
}

#[tokio::test]
async fn binding_a_missing_queue_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, binding("missing", "amq.direct", "k")).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, BIND).await;
}

#[tokio::test]
async fn default_exchange_binds_queues_by_itself_only() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    peer.send(1, binding("q", "", "k")).await;
    peer.expect_channel_error(1, 403, text, BIND).await;
    peer.send(1, unbinding("q", "", "q")).await;
    peer.expect_channel_error(1, 403, text, UNBIND).await;
}

#[tokio::test]
async fn unbinding_what_is_not_bound_succeeds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.call(1, unbinding("q", "amq.direct", "k")).await;
    peer.call(1, unbinding("missing", "amq.direct", "k")).await;
    peer.call(1, unbinding("q", "missing", "k")).await;
}

#[tokio::test]
async fn purge_removes_ready_messages_only() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for body in ["kept", "gone", "gone"] {
        peer.publish(1, "", "q", body).await;
    }
    let kept = peer.get(1, "q", false).await.unwrap();
    let ok = peer.call(1, queue::Purge { queue: "q".into(), nowait: false }).await;
    assert_eq!(ok.message_count, 2);
    let requeue = true;
    let delivery_tag = kept.method.delivery_tag;
    peer.send(1, basic::Reject { delivery_tag, requeue }).await;
    assert_eq!(peer.drain(1, "q").await, ["kept"]);
}

#[tokio::test]
async fn purge_of_a_missing_queue_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.send(1, queue::Purge { queue: "missing".into(), nowait: false }).await;
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, PURGE).await;
}

#[tokio::test]
async fn delete_counts_what_was_ready() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for _ in 0..3 {
        peer.publish(1, "", "q", "x").await;
    }
    let unacked = peer.get(1, "q", false).await.unwrap();
    assert_eq!(peer.call(1, delete("q")).await.message_count, 2);
    // What was delivered from it may still be acknowledged, to no effect.
    peer.ack(1, unacked.method.delivery_tag).await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn delete_if_empty_with_messages_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish(1, "", "q", "x").await;
    // Both conditions fail: the messages are named first.
    peer.consume(1, "q", "tag").await;
    peer.expect_delivery(1).await;
    peer.publish(1, "", "other", "x").await;
    peer.qos(1, 1).await;
    peer.send(1, basic::Nack { delivery_tag: 1, multiple: false, requeue: true }).await;
    peer.expect_delivery(1).await;
    peer.call(1, basic::Cancel { consumer_tag: "tag".into(), nowait: false }).await;
    peer.send(1, basic::Nack { delivery_tag: 2, multiple: false, requeue: true }).await;
    peer.send(1, queue::Delete { if_empty: true, ..delete("q") }).await;
    let text = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty";
    peer.expect_channel_error(1, 406, text, DELETE).await;
    assert_eq!(peer.drain(1, "q").await, ["x"]);
    peer.call(1, queue::Delete { if_empty: true, ..delete("q") }).await;
}

#[tokio::test]
async fn delete_if_unused_with_consumers_is_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.consume(1, "q", "tag").await;
    peer.send(1, queue::Delete { if_unused: true, ..delete("q") }).await;
    let text = "PRECONDITION_FAILED - queue 'q' in vhost '/' in use";
    // The channel goes and its consumer with it.
    peer.expect_channel_error(1, 406, text, DELETE).await;
    peer.call(1, queue::Delete { if_unused: true, ..delete("q") }).await;
}

#[tokio::test]
async fn delete_of_a_missing_queue_succeeds() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    assert_eq!(peer.call(1, delete("missing")).await.message_count, 0);
}

#[tokio::test]
async fn single_active_consumer_flag_has_to_be_a_boolean() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = table([("x-single-active-consumer", int(1))]);
    peer.send(1, queue::Declare { arguments, ..named("q") }).await;
    let text = "PRECONDITION_FAILED - invalid arg 'x-single-active-consumer' for queue 'q' in \
                vhost '/': {unacceptable_type,signedint}";
    peer.expect_channel_error(1, 406, text, DECLARE).await;
    peer.declare_with(1, "q", table([("x-single-active-consumer", flag(true))])).await;
}
