//! Types of queues: the arguments that each one knows, and what quorum queues cannot do.

use proto_amqp::control::protocol::{basic, queue};
use proto_amqp::control::types::{AMQPValue, FieldTable};
use warren_tests::TestBroker;
use warren_tests::amqp::Peer;
use warren_tests::amqp::tables::{flag, int, long, table, text};

const DECLARE: (u16, u16) = (50, 10);
const DELETE: (u16, u16) = (50, 40);
const CONSUME: (u16, u16) = (60, 20);
const GET: (u16, u16) = (60, 70);

fn durable(name: &str, arguments: FieldTable) -> queue::Declare {
    queue::Declare { queue: name.into(), durable: true, arguments, ..queue::Declare::default() }
}

/// The arguments of a quorum queue.
fn quorum<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut arguments = table(entries);
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

fn consume(arguments: FieldTable) -> basic::Consume {
    let (queue, consumer_tag) = ("q".into(), "tag".into());
    basic::Consume { queue, consumer_tag, arguments, ..basic::Consume::default() }
}

/// The text of a refusal because of an argument.
fn invalid(key: &str, rest: &str) -> String {
    format!("PRECONDITION_FAILED - invalid arg '{key}' for queue 'q' in vhost '/'{rest}")
}

async fn refused(peer: &mut Peer, arguments: FieldTable, key: &str, rest: &str) {
    peer.send(1, durable("q", arguments)).await;
    peer.expect_channel_error(1, 406, &invalid(key, rest), DECLARE).await;
}

#[tokio::test]
async fn arguments_of_another_queue_type_are_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let rest = " of queue type rabbit_classic_queue";
    for (key, value) in [
        ("x-delivery-limit", int(1)),
        ("x-quorum-initial-group-size", int(1)),
        ("x-dead-letter-strategy", text("at-most-once")),
        ("x-max-in-memory-length", int(1)),
        ("x-max-age", text("1D")),
    ] {
        refused(&mut peer, table([(key, value)]), key, rest).await;
    }
    let rest = " of queue type rabbit_quorum_queue";
    for (key, value) in [
        ("x-max-priority", int(5)),
        ("x-queue-mode", text("lazy")),
        ("x-queue-version", int(1)),
        ("x-queue-master-locator", text("min-masters")),
        ("x-initial-cluster-size", int(1)),
    ] {
        refused(&mut peer, quorum([(key, value)]), key, rest).await;
    }
}

#[tokio::test]
async fn bad_arguments_of_one_queue_type_are_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    for (key, value, rest) in [
        ("x-queue-master-locator", text("here"), ": invalid_queue_locator_arg"),
        ("x-queue-version", int(-1), ": {value_negative,-1}"),
    ] {
        refused(&mut peer, table([(key, value)]), key, rest).await;
    }
    for (key, value, rest) in [
        ("x-quorum-initial-group-size", int(0), ": {value_zero,0}"),
        ("x-queue-leader-locator", text("here"), ": invalid_queue_locator_arg"),
        ("x-dead-letter-strategy", text("never"), ": invalid_dlx_strategy"),
        ("x-dead-letter-strategy", text("at-least-once"), ": \"at-least-once is not supported\""),
        ("x-max-in-memory-bytes", int(-1), ": {value_negative,-1}"),
    ] {
        refused(&mut peer, quorum([(key, value)]), key, rest).await;
    }
}

#[tokio::test]
async fn a_quorum_queue_takes_the_arguments_that_it_knows() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let arguments = || {
        quorum([
            ("x-max-in-memory-length", int(10)),
            ("x-max-in-memory-bytes", long(1000)),
            ("x-dead-letter-strategy", text("at-most-once")),
            ("x-quorum-initial-group-size", int(3)),
            ("x-queue-leader-locator", text("client-local")),
        ])
    };
    peer.call(1, durable("q", arguments())).await;
    peer.call(1, durable("q", arguments())).await;
    // What its type knows is compared, and nothing else.
    let mut more = arguments();
    more.insert("x-max-priority".into(), int(5));
    peer.call(1, durable("q", more.clone())).await;
    more.insert("x-max-in-memory-length".into(), int(11));
    peer.send(1, durable("q", more)).await;
    let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-in-memory-length' for queue 'q' in \
                vhost '/': received '11' but current is '10'";
    peer.expect_channel_error(1, 406, text, DECLARE).await;
}

#[tokio::test]
async fn the_type_of_a_queue_is_compared_last() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, durable("q", table([("x-single-active-consumer", flag(true))]))).await;
    let single = ("x-single-active-consumer", flag(true));
    for (arguments, key, rest) in [
        (
            quorum([]),
            "x-single-active-consumer",
            "received none but current is the value 'true' of type 'bool'",
        ),
        (
            quorum([single]),
            "x-queue-type",
            "received the value 'quorum' of type 'longstr' but current is none",
        ),
    ] {
        peer.send(1, durable("q", arguments)).await;
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{key}' for queue 'q' in vhost '/': {rest}"
        );
        peer.expect_channel_error(1, 406, &text, DECLARE).await;
    }
}

#[tokio::test]
async fn a_quorum_queue_needs_a_name() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let text = "PRECONDITION_FAILED - Cannot declare a server-named queue for type \
                rabbit_quorum_queue";
    for durable in [true, false] {
        let arguments = quorum([]);
        peer.send(1, queue::Declare { durable, arguments, ..queue::Declare::default() }).await;
        peer.expect_channel_error(1, 406, text, DECLARE).await;
    }
}

#[tokio::test]
async fn a_quorum_queue_is_deleted_without_conditions() {
    let broker = TestBroker::start().await;
    for (if_unused, if_empty, flag) in
        [(true, false, "if-unused"), (false, true, "if-empty"), (true, true, "if-unused")]
    {
        let mut peer = broker.amqp().await;
        peer.call(1, durable("q", quorum([]))).await;
        let (queue, nowait) = ("q".into(), false);
        peer.send(1, queue::Delete { queue, if_unused, if_empty, nowait }).await;
        let text = format!(
            "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with \
             {flag} flag set are not supported by quorum queues"
        );
        peer.expect_connection_error(540, &text, DELETE).await;
    }
    let mut peer = broker.amqp().await;
    peer.call(1, queue::Delete { queue: "q".into(), ..queue::Delete::default() }).await;
}

#[tokio::test]
async fn a_quorum_queue_has_no_global_prefetch() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, durable("q", quorum([]))).await;
    let limit = |prefetch_count, global| basic::Qos { prefetch_count, global };
    // The limit of each consumer is another thing, and takes the channel's away.
    peer.call(1, limit(5, true)).await;
    peer.call(1, limit(5, false)).await;
    peer.call(1, consume(FieldTable::default())).await;
    peer.call(1, limit(5, true)).await;
    peer.send(1, basic::Consume { consumer_tag: "late".into(), ..consume(FieldTable::default()) })
        .await;
    let text = "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos";
    peer.expect_connection_error(540, text, CONSUME).await;
}

#[tokio::test]
async fn a_quorum_queue_with_a_single_active_consumer_has_no_get() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.call(1, durable("q", quorum([("x-single-active-consumer", flag(true))]))).await;
    peer.send(1, basic::Get { queue: "q".into(), no_ack: true }).await;
    let text = "RESOURCE_LOCKED - cannot obtain access to locked queue 'q' in vhost '/'. basic.get \
                operations are not supported by quorum queues with single active consumer";
    peer.expect_channel_error(1, 405, text, GET).await;
    let classic = table([("x-single-active-consumer", flag(true))]);
    peer.call(1, durable("classic", classic)).await;
    assert!(peer.get(1, "classic", true).await.is_none());
}

#[tokio::test]
async fn arguments_of_consumers_depend_on_the_queue_type() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let (classic, quorum_type) =
        (" of queue type rabbit_classic_queue", " of queue type rabbit_quorum_queue");
    let unacceptable = ": {unacceptable_type,signedint}";
    for (arguments, rows) in [
        (
            FieldTable::default(),
            [
                ("x-stream-offset", text("first"), classic),
                ("x-cancel-on-ha-failover", int(1), unacceptable),
            ],
        ),
        (
            quorum([]),
            [
                ("x-stream-offset", text("first"), quorum_type),
                ("x-cancel-on-ha-failover", flag(true), quorum_type),
            ],
        ),
    ] {
        peer.call(1, durable("q", arguments)).await;
        for (key, value, rest) in rows {
            peer.send(1, consume(table([(key, value)]))).await;
            peer.expect_channel_error(1, 406, &invalid(key, rest), CONSUME).await;
        }
        peer.call(1, queue::Delete { queue: "q".into(), ..queue::Delete::default() }).await;
    }
    peer.declare(1, "q").await;
    peer.call(1, consume(table([("x-cancel-on-ha-failover", flag(true))]))).await;
}
