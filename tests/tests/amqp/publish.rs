//! `basic.publish`: what is checked, in which order, and what comes back.

use proto_amqp::Properties;
use proto_amqp::control::protocol::{basic, channel, confirm, exchange};
use proto_amqp::table::Value;
use warren_tests::TestBroker;
use warren_tests::amqp::tables::{headers, texts_header, written};
use warren_tests::amqp::{Options, publish};

const PUBLISH: (u16, u16) = (60, 40);

const NOTHING: Properties<'static> = Properties {
    content_type: None,
    content_encoding: None,
    headers: None,
    delivery_mode: None,
    priority: None,
    correlation_id: None,
    reply_to: None,
    expiration: None,
    message_id: None,
    timestamp: None,
    kind: None,
    user_id: None,
    app_id: None,
    cluster_id: None,
};

#[tokio::test]
async fn publish_to_a_missing_exchange_is_404() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.publish(1, "missing", "k", "x").await;
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, PUBLISH).await;
}

#[tokio::test]
async fn immediate_is_540() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    let method = basic::Publish { immediate: true, ..publish("missing", "k") };
    peer.publish_with(1, method, &NOTHING, b"x").await;
    let text = "NOT_IMPLEMENTED - immediate=true";
    peer.expect_connection_error(540, text, PUBLISH).await;
}

#[tokio::test]
async fn message_larger_than_the_limit_is_406() {
    let broker = TestBroker::set(&["amqp.max_message_size=\"1KiB\""]).await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.publish_with(1, publish("", "q"), &NOTHING, &[b'x'; 1024]).await;
    peer.publish_with(1, publish("", "q"), &NOTHING, &[b'x'; 1025]).await;
    let text = "PRECONDITION_FAILED - message size 1025 is larger than configured max size 1024";
    peer.expect_channel_error(1, 406, text, PUBLISH).await;
    // What is announced counts, and is told before anything of it is sent.
    let body = vec![b'x'; 1024 * 1024];
    let octets = peer.encoded_publish(1, publish("", "q"), &NOTHING, &body);
    // The frames of the method and of the content header.
    let (front, rest) = octets.split_at(18 + 22);
    peer.send_octets(front).await;
    let text = "PRECONDITION_FAILED - message size 1048576 is larger than configured max size 1024";
    let close: channel::Close = peer.expect(1).await;
    assert_eq!(close.reply_text.as_str(), text);
    peer.send_octets(rest).await;
    peer.send(1, channel::CloseOk {}).await;
    peer.open_channel(1).await;
    assert_eq!(peer.counts(1, "q").await, (1, 0));
}

#[tokio::test]
async fn bad_properties_are_406() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let array_needed = headers([("CC", Value::LongString(b"k"))]);
    let number = headers([("BCC", Value::LongInt(5))]);
    for (properties, text) in [
        (
            Properties { delivery_mode: Some(3), ..NOTHING },
            "invalid message: {delivery_mode_unknown,3}",
        ),
        (
            Properties { delivery_mode: Some(0), ..NOTHING },
            "invalid message: {delivery_mode_unknown,0}",
        ),
        (Properties { expiration: Some(b""), ..NOTHING }, "invalid expiration '': no_integer"),
        (
            Properties { expiration: Some(b"soon"), ..NOTHING },
            "invalid expiration 'soon': no_integer",
        ),
        (
            Properties { expiration: Some(b"10s"), ..NOTHING },
            "invalid expiration '10s': {leftover_string,\"s\"}",
        ),
        (
            Properties { expiration: Some(b"-1"), ..NOTHING },
            "invalid expiration '-1': {value_negative,-1}",
        ),
        (
            Properties { expiration: Some(b"315360000001"), ..NOTHING },
            "invalid expiration '315360000001': {value_too_large,315360000001}",
        ),
        (
            Properties { headers: Some(&array_needed), ..NOTHING },
            "invalid message: {unacceptable_type_in_header,\"CC\",longstr}",
        ),
        (
            Properties { headers: Some(&number), ..NOTHING },
            "invalid message: {unacceptable_type_in_header,\"BCC\",signedint}",
        ),
        (
            Properties { user_id: Some(b"somebody"), ..NOTHING },
            "user_id property set to 'somebody' but authenticated user was 'guest'",
        ),
        (
            Properties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..NOTHING },
            "fast reply consumer does not exist",
        ),
    ] {
        peer.publish_with(1, publish("", "q"), &properties, b"x").await;
        let text = format!("PRECONDITION_FAILED - {text}");
        peer.expect_channel_error(1, 406, &text, PUBLISH).await;
    }
    assert_eq!(peer.counts(1, "q").await, (0, 0));
}

#[tokio::test]
async fn the_exchange_is_looked_at_before_the_properties() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare_exchange(1, "e", "fanout").await;
    let copies = headers([("CC", Value::LongString(b"k"))]);
    // Each row lacks the first fault of the row before.
    let all = Properties {
        reply_to: Some(b"amq.rabbitmq.reply-to"),
        user_id: Some(b"somebody"),
        expiration: Some(b"soon"),
        delivery_mode: Some(9),
        headers: Some(&copies),
        ..NOTHING
    };
    let known = Properties { reply_to: None, ..all };
    let own = Properties { user_id: None, ..known };
    let lasting = Properties { expiration: None, ..own };
    let plain = Properties { delivery_mode: None, ..lasting };
    for (exchange, properties, code, text) in [
        ("missing", all, 404, "NOT_FOUND - no exchange 'missing' in vhost '/'"),
        (
            "amq.rabbitmq.trace",
            all,
            403,
            "ACCESS_REFUSED - cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'",
        ),
        ("e", all, 406, "PRECONDITION_FAILED - fast reply consumer does not exist"),
        (
            "e",
            known,
            406,
            "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was \
             'guest'",
        ),
        ("e", own, 406, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer"),
        ("e", lasting, 406, "PRECONDITION_FAILED - invalid message: {delivery_mode_unknown,9}"),
        (
            "e",
            plain,
            406,
            "PRECONDITION_FAILED - invalid message: \
             {unacceptable_type_in_header,\"CC\",longstr}",
        ),
    ] {
        peer.publish_with(1, publish(exchange, "k"), &properties, b"x").await;
        peer.expect_channel_error(1, code, text, PUBLISH).await;
    }
}

#[tokio::test]
async fn a_refused_publish_ends_confirming_without_an_answer() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.call(1, confirm::Select::default()).await;
    let bad = peer.encoded_publish(1, publish("missing", ""), &NOTHING, b"x");
    let good = peer.encoded_publish(1, publish("", "q"), &NOTHING, b"x");
    peer.send_octets(&[bad, good].concat()).await;
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    peer.expect_channel_error(1, 404, text, PUBLISH).await;
    assert_eq!(peer.counts(1, "q").await, (0, 0), "what came behind it is dropped");
}

#[tokio::test]
async fn own_user_id_is_accepted_and_kept() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let properties = Properties { user_id: Some(b"guest"), ..NOTHING };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    let got = peer.get(1, "q", true).await.unwrap();
    assert_eq!(got.decoded().user_id, Some(&b"guest"[..]));
}

#[tokio::test]
async fn every_property_comes_back_unchanged() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let table = headers([("h", Value::LongInt(1))]);
    let properties = Properties {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b"UTF-8"),
        headers: Some(&table),
        delivery_mode: Some(2),
        priority: Some(200),
        correlation_id: Some(b"c"),
        reply_to: Some(b"r"),
        expiration: Some(b"60000"),
        message_id: Some(b"m"),
        timestamp: Some(u64::MAX),
        kind: Some(b"t"),
        user_id: Some(b"guest"),
        app_id: Some(b"\xff not text"),
        cluster_id: Some(b"i"),
    };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    assert_eq!(peer.get(1, "q", true).await.unwrap().decoded(), properties);
}

#[tokio::test]
async fn headers_of_every_type_come_back_unchanged() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    let table = written(|table| {
        table.write(b"z", Value::Boolean(true))?;
        table.write(b"y", Value::ShortShortInt(-1))?;
        table.write(b"x", Value::ShortShortUint(255))?;
        table.write(b"w", Value::ShortInt(-2))?;
        table.write(b"v", Value::ShortUint(65535))?;
        table.write(b"u", Value::LongInt(-3))?;
        table.write(b"t", Value::LongUint(u32::MAX))?;
        table.write(b"s", Value::LongLongInt(i64::MIN))?;
        table.write(b"r", Value::Float(1.5))?;
        table.write(b"q", Value::Double(-0.0))?;
        table.write(b"p", Value::Decimal { scale: 2, value: 314 })?;
        table.write(b"o", Value::LongString(b"\x00\xff"))?;
        table.write(b"n", Value::Timestamp(1))?;
        table.write(b"m", Value::Void)?;
        table.write(b"l", Value::ByteArray(b"\x01\x02"))?;
        table.write(b"z", Value::LongString(b"the same name again"))?;
        table.array(b"k", |array| {
            array.write(Value::LongInt(1))?;
            array.table(|inner| inner.write(b"deep", Value::Void))
        })?;
        table.table(b"j", |inner| inner.write(b"deep", Value::Boolean(false)))?;
        // The letters of the written specification, which nobody sends and everybody accepts.
        table.write(b"i", Value::ShortIntOfText(-4))?;
        table.write(b"h", Value::LongLongIntOfText(-5))
    });
    let properties = Properties { headers: Some(&table), ..NOTHING };
    peer.publish_with(1, publish("", "q"), &properties, b"x").await;
    let got = peer.get(1, "q", true).await.unwrap();
    assert_eq!(got.decoded().headers, Some(&table[..]), "octet by octet");
}

#[tokio::test]
async fn exchange_and_key_come_back_as_they_were_published() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    peer.declare_exchange(1, "outer", "fanout").await;
    peer.declare_exchange(1, "inner", "fanout").await;
    let bind = exchange::Bind {
        destination: "inner".into(),
        source: "outer".into(),
        ..exchange::Bind::default()
    };
    peer.call(1, bind).await;
    peer.bind(1, "q", "inner", "another").await;
    peer.publish(1, "outer", "a.key", "x").await;
    let got = peer.get(1, "q", true).await.unwrap();
    assert_eq!(got.method.exchange.as_str(), "outer");
    assert_eq!(got.method.routing_key.as_str(), "a.key");
}

#[tokio::test]
async fn unroutable_and_not_mandatory_is_dropped() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.publish(1, "", "nobody", "x").await;
    peer.publish(1, "amq.topic", "nobody", "x").await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn unroutable_and_mandatory_comes_back_whole() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp_as(&Options { frame_max: Some(4096), ..Options::default() }).await;
    let table = texts_header("BCC", &["also nobody"]);
    let properties = Properties {
        headers: Some(&table),
        message_id: Some(b"m"),
        delivery_mode: Some(2),
        ..NOTHING
    };
    let body = vec![b'b'; 10_000];
    let method = basic::Publish { mandatory: true, ..publish("amq.topic", "nobody") };
    peer.publish_with(1, method, &properties, &body).await;
    let returned = peer.expect_return(1).await;
    assert_eq!(returned.method.reply_code, 312);
    assert_eq!(returned.method.reply_text.as_str(), "NO_ROUTE");
    assert_eq!(returned.method.exchange.as_str(), "amq.topic");
    assert_eq!(returned.method.routing_key.as_str(), "nobody");
    assert_eq!(returned.decoded().message_id, Some(&b"m"[..]));
    assert_eq!(returned.body, body);
    // Who is served is not told.
    peer.declare(1, "q").await;
    let method = basic::Publish { mandatory: true, ..publish("", "q") };
    peer.publish_with(1, method, &NOTHING, b"x").await;
    peer.expect_nothing(1).await;
}

#[tokio::test]
async fn one_queue_gets_one_copy_however_often_it_is_bound() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "q").await;
    for key in ["a.b", "a.*", "#", "*.b", "a.#"] {
        peer.bind(1, "q", "amq.topic", key).await;
    }
    peer.publish(1, "amq.topic", "a.b", "once").await;
    assert_eq!(peer.drain(1, "q").await, ["once"]);
}

#[tokio::test]
async fn many_messages_in_one_read_keep_their_order() {
    let broker = TestBroker::start().await;
    let mut peer = broker.amqp().await;
    peer.declare(1, "a").await;
    peer.declare(1, "b").await;
    let mut octets = Vec::new();
    let mut wanted = [Vec::new(), Vec::new()];
    for number in 0..2000 {
        // Runs of different lengths to two queues, with contents of different sizes.
        let to = usize::from(number % 7 == 0 || number % 11 == 3);
        let body = format!("{number}{}", "x".repeat(number % 300));
        octets.extend(peer.encoded_publish(
            1,
            publish("", ["a", "b"][to]),
            &NOTHING,
            body.as_bytes(),
        ));
        wanted[to].push(body);
    }
    peer.send_octets(&octets).await;
    assert_eq!(peer.drain(1, "a").await, wanted[0]);
    assert_eq!(peer.drain(1, "b").await, wanted[1]);
}
