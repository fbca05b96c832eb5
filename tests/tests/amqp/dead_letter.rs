//! Dead letters: when, where to, and what the message says of it.

use broker_core::queue::DeathReason;
use proto_amqp::Properties;
use proto_amqp::control::protocol::{basic, confirm};
use proto_amqp::control::types::FieldTable;
use proto_amqp::table::{TableReader, Value};
use warren_tests::amqp::tables::{headers, int, table, text, texts_header};
use warren_tests::amqp::{Message, Peer, publish};
use warren_tests::{TestBroker, eventually};

/// Arguments for dead letters to the exchange `dlx`.
fn to_dlx() -> FieldTable {
    table([("x-dead-letter-exchange", text("dlx"))])
}

/// A peer with a fanout exchange `dlx` in front of a queue `dead`.
async fn with_dlx(broker: &TestBroker) -> Peer {
    let mut peer = broker.amqp().await;
    peer.declare_exchange(1, "dlx", "fanout").await;
    peer.declare(1, "dead").await;
    peer.bind(1, "dead", "dlx", "").await;
    peer
}

async fn reject(peer: &mut Peer, queue: &str) {
    let got = peer.get(1, queue, false).await.unwrap();
    let delivery_tag = got.method.delivery_tag;
    peer.send(1, basic::Reject { delivery_tag, requeue: false }).await;
}

/// One entry of `x-death`: names with values as text.
type Death = Vec<(String, String)>;

fn shown(value: Value<'_>) -> String {
    match value {
        Value::LongString(octets) => String::from_utf8_lossy(octets).into_owned(),
        Value::LongLongInt(number) => format!("l{number}"),
        Value::Timestamp(seconds) => {
            assert!(seconds > 1_600_000_000, "{seconds} is not now");
            "T".to_owned()
        }
        Value::Array(values) => values.map(shown).collect::<Vec<_>>().join(","),
        other => panic!("{other:?}"),
    }
}

fn deaths(headers: TableReader<'_>) -> Vec<Death> {
    let Some(Value::Array(entries)) = headers.get(b"x-death") else { return Vec::new() };
    let entry = |value| match value {
        Value::Table(entry) => entry
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), shown(value)))
            .collect(),
        other => panic!("{other:?}"),
    };
    entries.map(entry).collect()
}

fn of<const N: usize>(wanted: [(&str, &str); N]) -> Death {
    wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

fn header(message: &Message<basic::GetOk>, name: &str) -> Option<String> {
    message.decoded().headers_reader().get(name.as_bytes()).map(shown)
}

#[tokio::test]
async fn rejected_message_says_where_it_comes_from() {
    let broker = TestBroker::start().await;
    let mut peer = with_dlx(&broker).await;
    peer.declare_with(1, "q", to_dlx()).await;
    peer.bind(1, "q", "amq.direct", "k").await;
    let mine = headers([("mine", Value::LongString(b"kept"))]);
    let properties =
        Properties { headers: Some(&mine), message_id: Some(b"m"), ..Properties::default() };
    peer.publish_with(1, publish("amq.direct", "k"), &properties, b"body").await;
    reject(&mut peer, "q").await;
    let dead = peer.get(1, "dead", true).await.unwrap();
    assert_eq!(dead.text(), "body");
    assert_eq!(dead.method.exchange.as_str(), "dlx");
    assert_eq!(dead.method.routing_key.as_str(), "k");
    assert!(!dead.method.redelivered);
    assert_eq!(dead.decoded().message_id, Some(&b"m"[..]));
    assert_eq!(header(&dead, "mine").as_deref(), Some("kept"));
    let wanted = of([
        ("count", "l1"),
        ("reason", "rejected"),
        ("queue", "q"),
        ("time", "T"),
        ("exchange", "amq.direct"),
        ("routing-keys", "k"),
    ]);
    assert_eq!(deaths(dead.decoded().headers_reader()), [wanted]);
    for (name, value) in [
        ("x-first-death-reason", "rejected"),
        ("x-first-death-queue", "q"),
        ("x-first-death-exchange", "amq.direct"),
    ] {
        assert_eq!(header(&dead, name).as_deref(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn expired_message_loses_its_expiration_and_remembers_it() {
    let broker = TestBroker::start().await;
    let mut peer = with_dlx(&broker).await;
    peer.declare_with(1, "q", to_dlx()).await;
    let properties = Properties { expiration: Some(b"1"), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    let dead = peer.get_soon(1, "dead").await;
    assert_eq!(dead.decoded().expiration, None);
    let [death] = &deaths(dead.decoded().headers_reader())[..] else { panic!("one entry") };
    assert!(death.contains(&("reason".to_owned(), "expired".to_owned())));
    assert!(death.contains(&("original-expiration".to_owned(), "1".to_owned())));
    assert!(death.contains(&("exchange".to_owned(), String::new())));
}

#[tokio::test]
async fn dropped_and_refused_messages_are_maxlen() {
    let broker = TestBroker::start().await;
    let mut peer = with_dlx(&broker).await;
    let arguments = table([("x-dead-letter-exchange", text("dlx")), ("x-max-length", int(1))]);
    peer.declare_with(1, "drops", arguments).await;
    let arguments = table([
        ("x-dead-letter-exchange", text("dlx")),
        ("x-max-length", int(1)),
        ("x-overflow", text("reject-publish-dlx")),
    ]);
    peer.declare_with(1, "refuses", arguments).await;
    peer.call(1, confirm::Select::default()).await;
    for (queue, body) in
        [("drops", "old"), ("drops", "new"), ("refuses", "first"), ("refuses", "second")]
    {
        peer.publish(1, "", queue, body).await;
    }
    let mut answered = 0;
    while answered < 4 {
        match peer.next(1).await {
            warren_tests::amqp::Incoming::Method(
                proto_amqp::control::protocol::AMQPClass::Basic(method),
            ) => match method {
                basic::AMQPMethod::Ack(ack) => answered = ack.delivery_tag,
                basic::AMQPMethod::Nack(nack) => {
                    assert_eq!(nack.delivery_tag, 4);
                    answered = 4;
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    for (body, queue) in [("old", "drops"), ("second", "refuses")] {
        let dead = peer.get(1, "dead", true).await.unwrap();
        assert_eq!(dead.text(), body);
        let [death] = &deaths(dead.decoded().headers_reader())[..] else { panic!("one entry") };
        assert!(death.contains(&("reason".to_owned(), "maxlen".to_owned())), "{death:?}");
        assert!(death.contains(&("queue".to_owned(), queue.to_owned())), "{death:?}");
    }
}

#[tokio::test]
async fn purged_and_deleted_messages_do_not_die() {
    use proto_amqp::control::protocol::queue;
    let broker = TestBroker::start().await;
    let mut peer = with_dlx(&broker).await;
    peer.declare_with(1, "q", to_dlx()).await;
    peer.publish(1, "", "q", "purged").await;
    peer.call(1, queue::Purge { queue: "q".into(), nowait: false }).await;
    peer.publish(1, "", "q", "deleted").await;
    peer.call(1, queue::Delete { queue: "q".into(), ..queue::Delete::default() }).await;
    assert_eq!(peer.counts(1, "dead").await.0, 0);
}

#[tokio::test]
async fn own_key_replaces_all_others() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "dead").await;
    peer.declare(1, "copy").await;
    // Straight to a queue, through the default exchange.
    let arguments =
        table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]);
    peer.declare_with(1, "q", arguments).await;
    let copies = texts_header("CC", &["copy"]);
    let properties = Properties { headers: Some(&copies), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    assert_eq!(peer.drain(1, "copy").await, ["x"]);
    reject(&mut peer, "q").await;
    let dead = peer.get(1, "dead", true).await.unwrap();
    assert_eq!(dead.method.routing_key.as_str(), "dead");
    assert_eq!(dead.decoded().headers_reader().get(b"CC"), None);
    let [death] = &deaths(dead.decoded().headers_reader())[..] else { panic!("one entry") };
    assert!(death.contains(&("routing-keys".to_owned(), "q,copy".to_owned())), "{death:?}");
    assert_eq!(peer.counts(1, "copy").await.0, 0);
}

#[tokio::test]
async fn copies_go_along_without_an_own_key() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_exchange(1, "dlx", "direct").await;
    for (queue, key) in [("by key", "q"), ("by copy", "copy")] {
        peer.declare(1, queue).await;
        peer.bind(1, queue, "dlx", key).await;
    }
    peer.declare_with(1, "q", to_dlx()).await;
    let copies = texts_header("CC", &["copy"]);
    let properties = Properties { headers: Some(&copies), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    reject(&mut peer, "q").await;
    for queue in ["by key", "by copy"] {
        let dead = peer.get(1, queue, true).await.unwrap();
        assert_eq!(dead.decoded().headers_reader().get(b"CC").map(shown).as_deref(), Some("copy"));
    }
}

#[tokio::test]
async fn missing_dead_letter_exchange_swallows() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_with(1, "q", to_dlx()).await;
    peer.publish(1, "", "q", "x").await;
    reject(&mut peer, "q").await;
    peer.expect_nothing(1).await;
    assert_eq!(peer.counts(1, "q").await.0, 0);
}

#[tokio::test]
async fn entries_count_and_the_newest_stands_first() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // Two queues that reject into each other: allowed, because somebody rejects.
    let other = |name: &str| {
        table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(name))])
    };
    peer.declare_with(1, "a", other("b")).await;
    peer.declare_with(1, "b", other("a")).await;
    peer.publish(1, "", "a", "x").await;
    for queue in ["a", "b", "a"] {
        reject(&mut peer, queue).await;
    }
    let got = peer.get(1, "b", true).await.unwrap();
    let counts: Vec<_> = deaths(got.decoded().headers_reader())
        .iter()
        .map(|death| {
            let value = |name: &str| death.iter().find(|(key, _)| key == name).unwrap().1.clone();
            (value("queue"), value("count"))
        })
        .collect();
    assert_eq!(counts, [("a".into(), "l2".into()), ("b".to_owned(), "l1".to_owned())]);
    assert_eq!(header(&got, "x-first-death-queue").as_deref(), Some("a"));
}

#[tokio::test]
async fn dead_letter_cycles_end() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // Nobody rejects anything here: the messages expire round and round.
    let round = |next: &str| {
        table([
            ("x-dead-letter-exchange", text("")),
            ("x-dead-letter-routing-key", text(next)),
            ("x-message-ttl", int(1)),
        ])
    };
    peer.declare_with(1, "a", round("b")).await;
    peer.declare_with(1, "b", round("a")).await;
    peer.declare_with(1, "self", round("self")).await;
    peer.publish(1, "", "a", "x").await;
    peer.publish(1, "", "self", "x").await;
    let died = || broker.running().broker().dead_letters.count(DeathReason::Expired);
    // One dies in `a` and in `b`, the other in `self`; where they would go round again they are dropped.
    eventually("all have died", async || died() >= 3).await;
    // Time enough for several more rounds, by the broker's own clock.
    let arguments = table([("x-dead-letter-exchange", text("")), ("x-message-ttl", int(100))]);
    peer.declare_with(1, "late", arguments).await;
    peer.publish(1, "", "late", "x").await;
    eventually("the late one has died", async || peer.counts(1, "late").await.0 == 0).await;
    eventually("it has been counted", async || died() >= 4).await;
    assert_eq!(died(), 4);
    for queue in ["a", "b", "self"] {
        assert_eq!(peer.counts(1, queue).await.0, 0, "{queue}");
    }
}

#[tokio::test]
async fn a_rejection_allows_another_round() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    // The usual way to try again later: reject into a queue in which messages wait, and come back from it.
    let arguments =
        table([("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("wait"))]);
    peer.declare_with(1, "work", arguments).await;
    let arguments = table([
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("work")),
        ("x-message-ttl", int(1)),
    ]);
    peer.declare_with(1, "wait", arguments).await;
    peer.publish(1, "", "work", "x").await;
    for _ in 0..3 {
        eventually("it is back", async || peer.counts(1, "work").await.0 == 1).await;
        reject(&mut peer, "work").await;
    }
    let got = peer.get_soon(1, "work").await;
    let counts: Vec<_> = deaths(got.decoded().headers_reader())
        .iter()
        .map(|death| death.iter().find(|(name, _)| name == "count").unwrap().1.clone())
        .collect();
    assert_eq!(counts, ["l3", "l3"]);
}

#[tokio::test]
async fn a_foreign_x_death_header_is_replaced() {
    let broker = TestBroker::start().await;
    let mut peer = with_dlx(&broker).await;
    peer.declare_with(1, "q", to_dlx()).await;
    let odd = headers([("x-death", Value::LongString(b"none of yours"))]);
    let properties = Properties { headers: Some(&odd), ..Properties::default() };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    reject(&mut peer, "q").await;
    let dead = peer.get(1, "dead", true).await.unwrap();
    assert_eq!(deaths(dead.decoded().headers_reader()).len(), 1);
}
