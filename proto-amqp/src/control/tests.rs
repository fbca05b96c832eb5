//! Control methods: the versions' layouts, and that nothing malformed reaches `amq_protocol`.

use amq_protocol::{
    protocol::{basic, channel, connection, exchange, queue},
    types::{AMQPValue, FieldTable},
};

use super::*;
use crate::{
    method::{self, catalogue::METHODS},
    reply::ReplyCode,
    table::{TableReader, TableWriter, Value},
};

fn payload(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat()
}

fn queue_declare(name: &[u8], table: &[u8]) -> Vec<u8> {
    let len = u32::try_from(table.len()).unwrap().to_be_bytes();
    let name_len = u8::try_from(name.len()).unwrap();
    payload(50, 10, &[&[0, 0, name_len], name, &[0b10], &len, table].concat())
}

fn decoded(payload: &[u8]) -> AMQPClass {
    decode(payload, Version::V0_9_1).unwrap()
}

fn refused(payload: &[u8]) -> MethodError {
    decode(payload, Version::V0_9_1).unwrap_err()
}

fn encoded(method: &AMQPClass, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(ChannelId(1), method, version, &mut out).unwrap();
    let frame = frame::parse(&out, 0).unwrap().unwrap();
    assert_eq!(frame.wire_len, out.len());
    frame.payload.to_vec()
}

#[test]
fn every_method_cut_anywhere_is_truncated_and_never_incomplete() {
    // Zeros are a value of every type: empty strings, empty tables, zero numbers.
    for version in [Version::V0_9_1, Version::V0_9, Version::V0_8] {
        for entry in METHODS {
            let Some(id) = catalogue::on_the_wire(entry.id, version) else {
                continue;
            };
            let width = |argument: &Argument| match argument {
                Argument::Octet | Argument::ShortStr => 1,
                Argument::Short => 2,
                Argument::Long | Argument::LongStr | Argument::Table => 4,
                Argument::LongLong => 8,
            };
            let len: usize = entry.arguments(version).iter().map(width).sum();
            let whole = payload(id.class, id.method, &vec![0; len]);
            let class = decode(&whole, version).unwrap();
            assert_eq!(method::id_of(&class, Version::V0_9_1), entry.id);
            assert_eq!(
                decode(&[&whole[..], &[0xFF; 5]].concat(), version),
                Ok(class),
                "{} with octets behind its arguments",
                entry.name
            );
            for len in 4..whole.len() {
                let error = decode(&whole[..len], version).unwrap_err();
                assert_eq!(error.kind, MethodErrorKind::Truncated, "{}", entry.name);
                assert_eq!(error.id, Some(id));
            }
        }
    }
}

#[test]
fn arguments_are_those_that_amq_protocol_knows() {
    let mut table = Vec::new();
    TableWriter::new(&mut table).write(b"x-max-length", Value::LongInt(7)).unwrap();
    let AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) =
        decoded(&queue_declare("Käfer".as_bytes(), &table))
    else {
        panic!("not queue.declare")
    };
    assert_eq!(declare.queue.as_str(), "Käfer");
    assert!(declare.durable && !declare.passive);
    assert_eq!(declare.arguments.inner().get("x-max-length"), Some(&AMQPValue::LongInt(7)));
}

#[test]
fn malformed_utf8_in_a_short_string_is_refused_without_naming_the_method() {
    for name in [&b"\xFF"[..], b"ok\xC3", b"\xED\xA0\x80", b"\xC0\x80"] {
        let error = refused(&queue_declare(name, &[]));
        assert_eq!(error.kind, MethodErrorKind::MalformedUtf8);
        assert_eq!((error.code(), error.close_id()), (ReplyCode::FRAME_ERROR, MethodId::NONE));
        assert_eq!(error.detail(), "Malformed UTF-8 in shortstr");
    }
}

#[test]
fn a_short_string_of_255_octets_is_accepted() {
    decoded(&queue_declare(&[b'q'; 255], &[]));
}

#[test]
fn tables_beyond_the_limits_are_refused() {
    let deep = b"\x01aF\0\0\0\0".repeat(3);
    decoded(&queue_declare(b"q", &deep));
    let mut nested = Vec::new();
    for level in (0..10_000u32).rev() {
        nested.extend([1, b'a', b'F']);
        nested.extend((level * 7).to_be_bytes());
    }
    let error = refused(&queue_declare(b"q", &nested));
    assert_eq!(error.kind, MethodErrorKind::TableTooDeep);
    assert_eq!(error.code(), ReplyCode::SYNTAX_ERROR);
    assert_eq!(error.detail(), "field table nested deeper than 32 levels");
    let wide = b"\x01aV".repeat(1025);
    assert_eq!(refused(&queue_declare(b"q", &wide)).kind, MethodErrorKind::TableTooLarge);
    let long = [&b"\x01aS"[..], &200_000u32.to_be_bytes(), &vec![0; 200_000]].concat();
    let error = refused(&queue_declare(b"q", &long));
    assert_eq!(error.detail(), "field table with more than 1024 entries or 131072 octets");
}

#[test]
fn a_malformed_table_cannot_be_decoded() {
    let error = refused(&queue_declare(b"q", b"\x01a?"));
    assert_eq!(error.kind, MethodErrorKind::BadArguments("unknown field type"));
    assert_eq!(error.code(), ReplyCode::FRAME_ERROR);
    assert_eq!(error.detail(), "cannot decode <<0,0,1,113,2,0,0,0,3,1,97,63>>");
    assert_eq!(error.close_id(), MethodId { class: 50, method: 10 });
    let error = refused(&queue_declare(b"q", b"\x01aS\0\0\0\x09x"));
    assert!(matches!(error.kind, MethodErrorKind::BadArguments(_)));
}

#[test]
fn a_field_name_that_is_not_utf8_is_refused() {
    // amq_protocol has no other place for it. RabbitMQ: accepts it.
    let error = refused(&queue_declare(b"q", b"\x01\xFFV"));
    assert_eq!(error.kind, MethodErrorKind::BadArguments("a field name is not UTF-8"));
}

#[test]
fn the_argument_table_keeps_order_and_duplicates() {
    let table = b"\x01zV\x01aB\x01\x01aB\x02";
    let payload = queue_declare(b"q", table);
    let contents = argument_table(&payload, Version::V0_9_1).unwrap();
    assert_eq!(contents, table);
    assert_eq!(TableReader::new(contents).get(b"a"), Some(Value::ShortShortUint(1)));
    assert_eq!(argument_table(&[0, 90, 0, 10], Version::V0_9_1), None);
    assert_eq!(argument_table(&[0, 99, 0, 10], Version::V0_9_1), None);
    assert_eq!(argument_table(&payload[..payload.len() - 1], Version::V0_9_1), None);
}

#[test]
fn the_prefetch_size_is_read_beside_amq_protocol() {
    let qos = payload(60, 10, &[0, 0, 1, 0, 0, 7, 1]);
    assert_eq!(qos_prefetch_size(&qos), Some(256));
    assert_eq!(qos_prefetch_size(&qos[..7]), None);
    assert_eq!(qos_prefetch_size(&payload(60, 20, &[0; 7])), None);
}

fn close() -> AMQPClass {
    AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: 320,
        reply_text: "bye".into(),
        class_id: 0,
        method_id: 0,
    }))
}

#[test]
fn connection_close_has_other_numbers_in_0_8() {
    let close_ok = AMQPClass::Connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
    for (method, numbers, numbers_0_8) in
        [(close(), [0, 10, 0, 50], [0, 10, 0, 60]), (close_ok, [0, 10, 0, 51], [0, 10, 0, 61])]
    {
        let octets = encoded(&method, Version::V0_9_1);
        let octets_0_8 = encoded(&method, Version::V0_8);
        assert_eq!(octets[..4], numbers);
        assert_eq!(octets_0_8[..4], numbers_0_8);
        assert_eq!(octets[4..], octets_0_8[4..]);
        assert_eq!(decode(&octets_0_8, Version::V0_8), Ok(method));
        // What 0-9-1 calls close is 0-8's redirect, which nobody sends.
        let error = decode(&octets, Version::V0_8).unwrap_err();
        assert_eq!(error.kind, MethodErrorKind::UnknownMethod);
    }
    assert_eq!(method::id_of(&close(), Version::V0_8), MethodId { class: 10, method: 60 });
}

#[test]
fn a_malformed_close_in_0_8_is_named_by_its_numbers_there() {
    let error = decode(&payload(10, 60, &[1]), Version::V0_8).unwrap_err();
    assert_eq!(error.close_id(), MethodId { class: 10, method: 60 });
}

#[test]
fn channel_open_ok_has_no_argument_in_0_8() {
    let open_ok = AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}));
    assert_eq!(encoded(&open_ok, Version::V0_9_1), [0, 20, 0, 11, 0, 0, 0, 0]);
    assert_eq!(encoded(&open_ok, Version::V0_8), [0, 20, 0, 11]);
    assert_eq!(decode(&[0, 20, 0, 11], Version::V0_8), Ok(open_ok));
}

#[test]
fn basic_consume_has_no_arguments_table_in_0_8() {
    let octets = payload(60, 20, &[0, 0, 1, b'q', 1, b't', 0b10]);
    let consume = basic::Consume {
        queue: "q".into(),
        consumer_tag: "t".into(),
        no_ack: true,
        ..basic::Consume::default()
    };
    let expected = AMQPClass::Basic(basic::AMQPMethod::Consume(consume.clone()));
    assert_eq!(decode(&octets, Version::V0_8), Ok(expected.clone()));
    assert_eq!(encoded(&expected, Version::V0_8), octets);
    assert_eq!(refused(&octets).kind, MethodErrorKind::Truncated);
    // What follows the arguments is not taken for the table that is not there.
    let more = [&octets[..], &[0, 0, 0, 9, 1]].concat();
    assert_eq!(decode(&more, Version::V0_8), Ok(expected));
    // A table that 0-8 cannot carry is not dropped in silence.
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongInt(1));
    let with_table = basic::AMQPMethod::Consume(basic::Consume { arguments, ..consume });
    let mut out = Vec::new();
    let id = MethodId { class: 60, method: 20 };
    assert_eq!(
        encode(ChannelId(1), &AMQPClass::Basic(with_table), Version::V0_8, &mut out),
        Err(EncodeError::Arguments(id))
    );
    assert!(out.is_empty());
}

#[test]
fn methods_newer_than_0_8_are_not_written_to_0_8() {
    let blocked = AMQPClass::Connection(connection::AMQPMethod::Blocked(connection::Blocked {
        reason: "low on disk".into(),
    }));
    let bind_ok = AMQPClass::Exchange(exchange::AMQPMethod::BindOk(exchange::BindOk {}));
    for method in [blocked, bind_ok] {
        let mut out = vec![1, 2];
        let id = method::id_of(&method, Version::V0_9_1);
        assert_eq!(
            encode(ChannelId(0), &method, Version::V0_8, &mut out),
            Err(EncodeError::NotInVersion { id, version: Version::V0_8 })
        );
        assert_eq!(out, [1, 2]);
        encode(ChannelId(0), &method, Version::V0_9, &mut out).unwrap();
    }
}

#[test]
fn basic_recover_has_two_numbers_in_0_9_and_each_its_answer() {
    let recover = AMQPClass::Basic(basic::AMQPMethod::Recover(basic::Recover { requeue: true }));
    for method in [102, 110] {
        let octets = payload(60, method, &[1]);
        assert_eq!(decode(&octets, Version::V0_9), Ok(recover.clone()));
    }
    let of_the_text = payload(60, 102, &[1]);
    assert_eq!(refused(&of_the_text).kind, MethodErrorKind::UnknownMethod);
    let recover_ok = AMQPClass::Basic(basic::AMQPMethod::RecoverOk(basic::RecoverOk {}));
    assert_eq!(encoded(&recover_ok, Version::V0_9), [0, 60, 0, 101]);
    assert_eq!(encoded(&recover_ok, Version::V0_9_1), [0, 60, 0, 111]);
    for (request, answer) in [(102, 101), (110, 111)] {
        let mut out = Vec::new();
        encode_recover_ok(ChannelId(1), MethodId { class: 60, method: request }, &mut out);
        assert_eq!(out, [1, 0, 1, 0, 0, 0, 4, 0, 60, 0, answer, 0xCE]);
    }
}

#[test]
fn an_access_request_is_answered_with_ticket_one() {
    use amq_protocol::protocol::access;
    let request_ok = AMQPClass::Access(access::AMQPMethod::RequestOk(access::RequestOk {}));
    assert_eq!(encoded(&request_ok, Version::V0_8), [0, 30, 0, 11, 0, 1]);
}
