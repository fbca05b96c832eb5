//! What is accepted, what is refused, and with which words.

use super::*;

fn table(entries: &[(&str, Value)]) -> Arguments {
    entries.iter().map(|(key, value)| ((*key).into(), value.clone())).collect()
}

fn parse(entries: &[(&str, Value)]) -> Result<QueueArguments, String> {
    QueueArguments::parse(&table(entries)).map_err(|error| error.to_string())
}

fn quorum() -> (&'static str, Value) {
    ("x-queue-type", Value::text("quorum"))
}

#[test]
fn refused_arguments_say_why_in_the_known_words() {
    let check = |key: &str, value: Value, reason: &str| {
        let text = format!("invalid arg '{key}': {reason}");
        assert_eq!(parse(&[(key, value)]).err(), Some(text));
    };
    check("x-message-ttl", Value::SignedInt(-1), "{value_negative,-1}");
    check("x-message-ttl", Value::text("5"), "\"expected integer, got longstr\"");
    check("x-message-ttl", Value::Long(TTL_MAX + 1), "{value_too_large,315360000001}");
    check("x-expires", Value::Byte(0), "{value_zero,0}");
    check("x-max-length", Value::Long(-1), "{value_negative,-1}");
    check("x-max-priority", Value::Short(256), "{max_value_exceeded,256}");
    check("x-overflow", Value::text("drop"), "invalid_overflow");
    check("x-single-active-consumer", Value::text("true"), "{unacceptable_type,longstr}");
    check("x-dead-letter-routing-key", Value::text("k"), "routing_key_but_no_dlx_defined");
    check("x-queue-type", Value::text("foo"), "\"unsupported queue type 'foo'\"");
    check("x-queue-type", Value::Byte(1), "{unacceptable_type,byte}");
    check("x-queue-version", Value::Long(3), "\"unsupported queue version '3'\"");
    check("x-queue-version", Value::Long(-1), "{value_negative,-1}");
    check("x-queue-master-locator", Value::text("here"), "invalid_queue_locator_arg");
    check("x-queue-master-locator", Value::Byte(1), "{unacceptable_type,byte}");
}

#[test]
fn refused_arguments_of_quorum_queues_say_why_in_the_known_words() {
    let check = |key: &str, value: Value, reason: &str| {
        let text = format!("invalid arg '{key}': {reason}");
        assert_eq!(parse(&[quorum(), (key, value)]).err(), Some(text));
    };
    check("x-quorum-initial-group-size", Value::Byte(0), "{value_zero,0}");
    check("x-quorum-initial-group-size", Value::Byte(-1), "{value_negative,-1}");
    check("x-max-in-memory-length", Value::Byte(-1), "{value_negative,-1}");
    check("x-max-in-memory-bytes", Value::text("1"), "\"expected integer, got longstr\"");
    check("x-dead-letter-strategy", Value::text("never"), "invalid_dlx_strategy");
    check("x-dead-letter-strategy", Value::Byte(1), "{unacceptable_type,byte}");
    let refused = "\"at-least-once is not supported\"";
    check("x-dead-letter-strategy", Value::text("at-least-once"), refused);
    check("x-queue-leader-locator", Value::text("here"), "invalid_queue_locator_arg");
    check("x-consumer-timeout", Value::Byte(1), "not supported");
}

#[test]
fn quorum_queues_take_what_they_know() {
    for (key, value) in [
        ("x-max-in-memory-length", Value::Byte(0)),
        ("x-max-in-memory-bytes", Value::Long(1 << 40)),
        ("x-dead-letter-strategy", Value::text("at-most-once")),
        ("x-quorum-initial-group-size", Value::Byte(3)),
        ("x-queue-leader-locator", Value::text("balanced")),
    ] {
        assert!(parse(&[quorum(), (key, value)]).is_ok(), "{key}");
    }
}

#[test]
fn where_a_queue_is_to_lead_is_taken_in_the_words_of_any_version() {
    for key in ["x-queue-master-locator", "x-queue-leader-locator"] {
        for word in ["min-masters", "least-leaders", "balanced", "client-local", "random"] {
            assert!(parse(&[(key, Value::text(word))]).is_ok(), "{key} {word}");
        }
    }
}

#[test]
fn arguments_of_other_queue_types_are_refused() {
    let text = |key, kind| Some(format!("invalid arg '{key}' of queue type rabbit_{kind}_queue"));
    for key in [
        "x-delivery-limit",
        "x-dead-letter-strategy",
        "x-max-in-memory-length",
        "x-quorum-initial-group-size",
        "x-max-age",
        "x-initial-cluster-size",
    ] {
        assert_eq!(parse(&[(key, Value::Byte(1))]).err(), text(key, "classic"));
    }
    for key in [
        "x-max-priority",
        "x-queue-mode",
        "x-queue-version",
        "x-queue-master-locator",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
    ] {
        assert_eq!(parse(&[quorum(), (key, Value::Byte(1))]).err(), text(key, "quorum"));
    }
}

#[test]
fn bad_values_are_told_before_foreign_arguments_and_in_rabbitmqs_order() {
    let foreign = ("x-delivery-limit", Value::Byte(1));
    let bad_ttl = ("x-message-ttl", Value::Byte(-1));
    let bad_length = ("x-max-length", Value::Byte(-1));
    let text = Some("invalid arg 'x-message-ttl': {value_negative,-1}".to_owned());
    assert_eq!(parse(&[foreign, bad_length, bad_ttl]).err(), text);
}

#[test]
fn unknown_arguments_are_accepted() {
    assert!(parse(&[("x-foo", Value::Void)]).is_ok());
    assert!(parse(&[quorum(), ("x-foo", Value::Void)]).is_ok());
}

#[test]
fn arguments_of_consumers_depend_on_the_queue_type() {
    let read = |entries: &[(&str, Value)], kind| {
        consumer_priority(&table(entries), kind).map_err(|error| error.to_string())
    };
    let failover = |value| ("x-cancel-on-ha-failover", value);
    let check = |entries: &[(&str, Value)], kind, text: &str| {
        assert_eq!(read(entries, kind), Err(text.to_owned()));
    };
    let (classic, quorum) = (QueueType::Classic, QueueType::Quorum);
    assert_eq!(
        read(&[("x-priority", Value::Byte(-3)), failover(Value::Bool(true))], classic),
        Ok(-3)
    );
    assert_eq!(read(&[("x-foo", Value::Void)], quorum), Ok(0));
    let text = "invalid arg 'x-cancel-on-ha-failover': {unacceptable_type,byte}";
    check(&[failover(Value::Byte(1))], classic, text);
    let text = "invalid arg 'x-cancel-on-ha-failover' of queue type rabbit_quorum_queue";
    check(&[failover(Value::Bool(true))], quorum, text);
    let offset = ("x-stream-offset", Value::text("first"));
    let text = "invalid arg 'x-stream-offset' of queue type rabbit_classic_queue";
    check(std::slice::from_ref(&offset), classic, text);
    let text = "invalid arg 'x-priority': \"expected integer, got longstr\"";
    check(&[offset, ("x-priority", Value::text("high"))], classic, text);
}

#[test]
fn a_queue_of_an_earlier_version_keeps_what_its_type_knows() {
    let limit = ("x-delivery-limit", Value::Byte(3));
    let arguments = table(&[quorum(), limit, ("x-max-priority", Value::Byte(5))]);
    assert!(QueueArguments::parse(&arguments).is_err());
    let (kept, complaints) = QueueArguments::kept(&arguments);
    assert_eq!((kept.delivery_limit, kept.max_priority), (Some(3), None));
    assert_eq!(complaints, []);
}

#[test]
fn an_argument_that_would_be_refused_now_costs_a_kept_queue_none_of_the_others() {
    let dead_letters = ("x-dead-letter-exchange", Value::text("graves"));
    let bad = [("x-queue-master-locator", Value::text("here")), ("x-max-length", Value::Byte(-1))];
    let [locator, length] = bad;
    let ttl = ("x-message-ttl", Value::Byte(9));
    let (kept, complaints) = QueueArguments::kept(&table(&[locator, dead_letters, length, ttl]));
    assert_eq!((kept.message_ttl, kept.dead_letter.is_some()), (Some(9), true));
    let keys: Vec<&str> = complaints.iter().map(|complaint| &*complaint.key).collect();
    assert_eq!(keys, ["x-max-length", "x-queue-master-locator"]);
    // Even where the type itself is none.
    let (kept, complaints) = QueueArguments::kept(&table(&[
        ("x-queue-type", Value::text("foo")),
        ("x-expires", Value::Byte(9)),
    ]));
    assert_eq!((kept.queue_type, kept.expires), (QueueType::Classic, Some(9)));
    assert_eq!(complaints.len(), 1);
}
