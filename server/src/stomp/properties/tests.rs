//! STOMP headers and AMQP properties, both ways, with random values.

use super::*;
use proto_amqp::properties;
use proto_stomp::{Decoded, Decoder, FrameEnd, HeaderBlock, Limits, OwnedFrame, Version};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The property list that a SEND with these headers gets.
fn list_of(headers: &[(&[u8], &[u8])]) -> Result<Vec<u8>, StompError> {
    let mut frame = OwnedFrame::new(Command::Send);
    for (name, value) in headers {
        frame = frame.header(name, value);
    }
    let octets = frame.encode();
    let mut decoder = Decoder::new(Limits::after_login(1000));
    decoder.set_version(Version::V1_2);
    let mut block = HeaderBlock::new();
    let Ok(Decoded::Frame { frame, .. }) = decoder.decode(&octets, &mut block) else {
        panic!("a frame is decoded whole");
    };
    let (mut table, mut list) = (Vec::new(), Vec::new());
    let send = SendHeaders::read(&frame.headers, &mut table)?;
    let headers = (!table.is_empty()).then_some(&*table);
    properties::encode(&Properties { headers, ..send.properties }, &mut list).unwrap();
    let summary = properties::summarise(&list).unwrap();
    assert_eq!(summary.is_persistent(), send.attributes.persistent);
    assert_eq!(summary.priority.unwrap_or(0), send.attributes.priority);
    Ok(list)
}

/// The headers that a MESSAGE with this property list gets.
fn headers_of(list: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut octets = Vec::new();
    let mut frame = FrameWriter::begin(&mut octets, Command::Message);
    write_headers(&mut frame, &properties::summarise(list).unwrap());
    frame.finish(b"", FrameEnd::NulLf);
    let mut decoder = Decoder::new(Limits::from_server(1000));
    decoder.set_version(Version::V1_2);
    let mut block = HeaderBlock::new();
    let Ok(Decoded::Frame { frame, .. }) = decoder.decode(&octets, &mut block) else {
        panic!("a frame is decoded whole");
    };
    frame.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn error_of(name: &str, value: &str) -> StompError {
    list_of(&[(name.as_bytes(), value.as_bytes())]).unwrap_err()
}

#[test]
fn each_header_becomes_its_property_and_comes_back() {
    let sent: [(&[u8], &[u8]); 15] = [
        (b"receipt", b"7"),
        (b"cluster-id", b"x"),
        (b"foo", b"a:b\n\\"),
        (b"app-id", b"ap"),
        (b"user-id", b"guest"),
        (b"type", b"t"),
        (b"amqp-message-id", b"am"),
        (b"expiration", b"10000"),
        (b"correlation-id", b"c"),
        (b"content-encoding", b"gzip"),
        (b"content-type", b"text/plain"),
        (b"reply-to", b"/queue/r"),
        (b"timestamp", b"123"),
        (b"priority", b"4"),
        (b"persistent", b"true"),
    ];
    let list = list_of(&sent).unwrap();
    let summary = properties::summarise(&list).unwrap();
    assert_eq!(summary.message_id, Some(b"am".as_slice()));
    assert_eq!(summary.kind, Some(b"t".as_slice()));
    assert_eq!(summary.timestamp, Some(123));
    assert_eq!(summary.cluster_id, None, "an ordinary header in STOMP");
    let expected: Vec<_> = sent.iter().map(|(a, b)| (a.to_vec(), b.to_vec())).collect();
    assert_eq!(headers_of(&list), expected);
}

#[test]
fn a_send_with_nothing_to_say_has_an_empty_list() {
    let headers: [(&[u8], &[u8]); 3] =
        [(b"destination", b"/queue/a"), (b"content-length", b"0"), (b"persistent", b"false")];
    assert_eq!(list_of(&headers).unwrap(), properties::EMPTY);
}

#[test]
fn values_that_a_property_cannot_have_are_refused() {
    for (name, value) in [
        ("priority", "high"),
        ("priority", "256"),
        ("priority", "-1"),
        ("timestamp", "now"),
        ("timestamp", "-1"),
    ] {
        assert_eq!(error_of(name, value), StompError::processing(), "{name}:{value}");
    }
    let long = "x".repeat(256);
    for name in ["content-type", "correlation-id", "reply-to", "type", "amqp-message-id"] {
        assert_eq!(error_of(name, &long), StompError::header_too_long(name.as_bytes()));
    }
    assert_eq!(error_of(&long, "value"), StompError::header_too_long(long.as_bytes()));
    assert_eq!(error_of("message-id", "1").detail(), "'message-id' is not allowed on 'SEND'.\n");
    assert_eq!(
        error_of("CC", "key").detail(),
        "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}"
    );
}

#[test]
fn an_expiration_that_is_none_is_refused_in_the_words_of_both_protocols() {
    let said = "PRECONDITION_FAILED - invalid expiration '10s': {leftover_string,\"s\"}";
    assert_eq!(error_of("expiration", "10s").detail(), said);
}

#[test]
fn entries_of_types_that_a_header_cannot_be_are_left_out() {
    let mut table = Vec::new();
    let mut writer = TableWriter::new(&mut table);
    writer.write(b"i", Value::LongInt(5)).unwrap();
    writer.write(b"l", Value::LongLongInt(1 << 40)).unwrap();
    writer.write(b"u", Value::ShortShortUint(200)).unwrap();
    writer.write(b"b", Value::Boolean(true)).unwrap();
    writer.write(b"d", Value::Double(0.5)).unwrap();
    writer.array(b"a", |array| array.write(Value::LongInt(1))).unwrap();
    writer.table(b"t", |inner| inner.write(b"x", Value::Void)).unwrap();
    writer.write(b"s", Value::LongString(b"str")).unwrap();
    let mut list = Vec::new();
    let from_amqp = Properties {
        headers: Some(&table),
        delivery_mode: Some(1),
        reply_to: Some(b"amq.gen-x/y"),
        ..Properties::default()
    };
    properties::encode(&from_amqp, &mut list).unwrap();
    let expected = [
        ("i", "5"),
        ("l", "1099511627776"),
        ("u", "200"),
        ("b", "true"),
        ("s", "str"),
        ("reply-to", "/reply-queue/amq.gen-x/y"),
        ("persistent", "1"),
    ];
    let expected: Vec<_> =
        expected.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec())).into();
    assert_eq!(headers_of(&list), expected);
}

#[test]
fn a_message_cannot_forge_what_the_broker_says_of_it() {
    let mut table = Vec::new();
    for name in ["message-id", "subscription", "ack", "content-length", "priority", "type"] {
        TableWriter::new(&mut table).write(name.as_bytes(), Value::LongString(b"no")).unwrap();
    }
    let mut list = Vec::new();
    let from_amqp =
        Properties { headers: Some(&table), priority: Some(3), ..Properties::default() };
    properties::encode(&from_amqp, &mut list).unwrap();
    let expected = [("type", "no"), ("priority", "3")];
    let expected: Vec<_> =
        expected.map(|(a, b)| (a.as_bytes().to_vec(), b.as_bytes().to_vec())).into();
    assert_eq!(headers_of(&list), expected);
}

/// Random headers of any octets: what is accepted comes back as it was.
#[test]
fn what_is_sent_is_delivered() {
    for seed in 0..2000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut octets = |len_max: usize| -> Vec<u8> {
            let len = random.random_range(1..=len_max);
            // NUL cannot stand in a header.
            (0..len).map(|_| random.random_range(1..=255)).collect()
        };
        let mut sent: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for _ in 0..5 {
            // A capital letter in front keeps clear of the names that mean something.
            let name = [b"X".to_vec(), octets(12)].concat();
            if !sent.iter().any(|(there, _)| *there == name) {
                sent.push((name, octets(40)));
            }
        }
        for name in ["app-id", "type", "correlation-id", "content-encoding"] {
            sent.push((name.into(), octets(255)));
        }
        let borrowed: Vec<(&[u8], &[u8])> = sent.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(headers_of(&list_of(&borrowed).unwrap()), sent, "seed {seed}");
    }
}
