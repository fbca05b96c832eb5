//! The hand-written way against `amq_protocol`: equal octets out, and for any octets in, both accept
//! and agree or both refuse. The exceptions, each stated where it is made:
//!
//! 1. exchange names and routing keys are octets here and UTF-8 there;
//! 2. octets that end too early are an error here and "incomplete" there;
//! 3. a property list with octets behind it or a second word of flags is refused here;
//! 4. strings of a property list, and names of headers, are octets here and UTF-8 there.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in whichever function")]

mod common;

use amq_protocol::{
    frame::{AMQPFrame, WriteContext, gen_frame},
    protocol::{
        AMQPClass,
        basic::{self as theirs, AMQPMethod, parse_properties},
        parse_class,
    },
    types::{AMQPValue, ShortString, parsing::parse_field_table},
};
use proptest::prelude::*;
use proto_amqp::{
    ChannelId, Deliver, GetOk, ReplyCode, Version,
    basic::{self, Hot},
    control, frame, properties,
    table::{self, Limits, TableReader, Value},
};

/// The octets that `amq_protocol` writes for a frame.
fn generated(frame: &AMQPFrame) -> Vec<u8> {
    gen_frame(frame)(WriteContext::from(Vec::new())).unwrap().write
}

fn method_frame(channel: u16, method: AMQPMethod) -> Vec<u8> {
    generated(&AMQPFrame::Method(channel, AMQPClass::Basic(method)))
}

fn payload_of(frame: &[u8]) -> &[u8] {
    frame::parse(frame, 0).unwrap().unwrap().payload
}

/// A hot method as `amq_protocol` would have it; `None` where exception 1 applies.
fn as_theirs(hot: Hot<'_>) -> Option<AMQPMethod> {
    let text = |octets: &[u8]| std::str::from_utf8(octets).ok().map(ShortString::from);
    Some(match hot {
        Hot::Publish(publish) => AMQPMethod::Publish(theirs::Publish {
            exchange: text(publish.exchange)?,
            routing_key: text(publish.routing_key)?,
            mandatory: publish.mandatory,
            immediate: publish.immediate,
        }),
        Hot::Ack(ack) => {
            AMQPMethod::Ack(theirs::Ack { delivery_tag: ack.delivery_tag, multiple: ack.multiple })
        }
        Hot::Nack(nack) => AMQPMethod::Nack(theirs::Nack {
            delivery_tag: nack.delivery_tag,
            multiple: nack.multiple,
            requeue: nack.requeue,
        }),
        Hot::Reject(reject) => AMQPMethod::Reject(theirs::Reject {
            delivery_tag: reject.delivery_tag,
            requeue: reject.requeue,
        }),
    })
}

/// Payloads that have a hot method's ids and octets that are often, not always, its arguments.
fn hot_payload() -> impl Strategy<Value = Vec<u8>> {
    let arguments = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24),
        (common::name(), common::name(), prop::collection::vec(any::<u8>(), 0..3)).prop_map(
            |(exchange, key, tail)| {
                let len = |name: &str| u8::try_from(name.len()).unwrap();
                [
                    &[0, 0, len(&exchange)][..],
                    exchange.as_bytes(),
                    &[len(&key)],
                    key.as_bytes(),
                    &tail,
                ]
                .concat()
            }
        ),
    ];
    (prop::sample::select(vec![40u8, 80, 90, 120]), arguments)
        .prop_map(|(method, arguments)| [vec![0, 60, 0, method], arguments].concat())
}

/// Equal in value, over the letters that `amq_protocol` does not tell apart.
fn same_value(ours: Value<'_>, theirs: &AMQPValue) -> bool {
    match (ours, theirs) {
        (Value::Boolean(a), AMQPValue::Boolean(b)) => a == *b,
        (Value::ShortShortInt(a), AMQPValue::ShortShortInt(b)) => a == *b,
        (Value::ShortShortUint(a), AMQPValue::ShortShortUInt(b)) => a == *b,
        (Value::ShortInt(a) | Value::ShortIntOfText(a), AMQPValue::ShortInt(b)) => a == *b,
        (Value::ShortUint(a), AMQPValue::ShortUInt(b)) => a == *b,
        (Value::LongInt(a), AMQPValue::LongInt(b)) => a == *b,
        (Value::LongUint(a), AMQPValue::LongUInt(b)) => a == *b,
        (Value::LongLongInt(a) | Value::LongLongIntOfText(a), AMQPValue::LongLongInt(b)) => a == *b,
        (Value::Float(a), AMQPValue::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::Double(a), AMQPValue::Double(b)) => a.to_bits() == b.to_bits(),
        (Value::Decimal { scale, value }, AMQPValue::DecimalValue(b)) => {
            (scale, value) == (b.scale, b.value)
        }
        (Value::LongString(a), AMQPValue::LongString(b)) => a == b.as_bytes(),
        (Value::ByteArray(a), AMQPValue::ByteArray(b)) => a == b.as_slice(),
        (Value::Timestamp(a), AMQPValue::Timestamp(b)) => a == *b,
        (Value::Void, AMQPValue::Void) => true,
        (Value::Array(a), AMQPValue::FieldArray(b)) => {
            a.count() == b.as_slice().len()
                && a.zip(b.as_slice()).all(|(ours, theirs)| same_value(ours, theirs))
        }
        (Value::Table(a), AMQPValue::FieldTable(b)) => same_table(a, b),
        _ => false,
    }
}

/// Their table is a map: of duplicate names it keeps the last.
fn same_table(ours: TableReader<'_>, theirs: &amq_protocol::types::FieldTable) -> bool {
    theirs.inner().iter().all(|(name, value)| {
        ours.filter(|(found, _)| *found == name.as_str().as_bytes())
            .last()
            .is_some_and(|(_, ours)| same_value(ours, value))
    }) && ours
        .into_iter()
        .all(|(name, _)| std::str::from_utf8(name).is_ok_and(|name| theirs.contains_key(name)))
}

/// Whether every name at every level is UTF-8.
fn names_are_text(table: TableReader<'_>) -> bool {
    fn in_value(value: Value<'_>) -> bool {
        match value {
            Value::Table(table) => names_are_text(table),
            Value::Array(mut array) => array.all(in_value),
            _ => true,
        }
    }
    table.into_iter().all(|(name, value)| std::str::from_utf8(name).is_ok() && in_value(value))
}

proptest! {
    #[test]
    fn the_writers_of_hot_methods_write_what_amq_protocol_writes(
        channel in any::<u16>(),
        names in (common::name(), common::name(), common::name()),
        tag in any::<u64>(),
        long in any::<u32>(),
        code in any::<u16>(),
        bit in any::<bool>(),
    ) {
        let (a, b, c) = &names;
        let id = ChannelId(channel);
        let mut out = Vec::new();
        let mut expected = Vec::new();
        let short = |name: &String| ShortString::from(name.as_str());

        let deliver = Deliver {
            consumer_tag: a.as_bytes(),
            delivery_tag: tag,
            redelivered: bit,
            exchange: b.as_bytes(),
            routing_key: c.as_bytes(),
        };
        basic::write_deliver(&mut out, id, &deliver);
        prop_assert_eq!(basic::parse_deliver(payload_of(&out)), Some(deliver));
        expected.extend(method_frame(channel, AMQPMethod::Deliver(theirs::Deliver {
            consumer_tag: short(a),
            delivery_tag: tag,
            redelivered: bit,
            exchange: short(b),
            routing_key: short(c),
        })));

        basic::write_return(&mut out, id, ReplyCode(code), a, b.as_bytes(), c.as_bytes());
        expected.extend(method_frame(channel, AMQPMethod::Return(theirs::Return {
            reply_code: code,
            reply_text: short(a),
            exchange: short(b),
            routing_key: short(c),
        })));

        basic::write_get_ok(&mut out, id, &GetOk {
            delivery_tag: tag,
            redelivered: bit,
            exchange: a.as_bytes(),
            routing_key: b.as_bytes(),
            message_count: long,
        });
        expected.extend(method_frame(channel, AMQPMethod::GetOk(theirs::GetOk {
            delivery_tag: tag,
            redelivered: bit,
            exchange: short(a),
            routing_key: short(b),
            message_count: long,
        })));

        basic::write_publish(&mut out, id, a.as_bytes(), b.as_bytes(), bit);
        expected.extend(method_frame(channel, AMQPMethod::Publish(theirs::Publish {
            exchange: short(a),
            routing_key: short(b),
            mandatory: bit,
            immediate: false,
        })));

        basic::write_ack(&mut out, id, tag, bit);
        expected.extend(method_frame(channel, AMQPMethod::Ack(theirs::Ack {
            delivery_tag: tag,
            multiple: bit,
        })));

        basic::write_nack(&mut out, id, tag, bit);
        expected.extend(method_frame(channel, AMQPMethod::Nack(theirs::Nack {
            delivery_tag: tag,
            multiple: bit,
            requeue: true,
        })));

        prop_assert_eq!(out, expected);
    }

    #[test]
    fn the_writers_of_contents_write_what_amq_protocol_writes(
        channel in 1u16..,
        body in prop::collection::vec(any::<u8>(), 1..500),
        headers in common::field_table(),
        name in common::short_string(),
    ) {
        let properties = theirs::AMQPProperties::default()
            .with_content_type(name.clone())
            .with_headers(headers)
            .with_delivery_mode(2)
            .with_timestamp(7)
            .with_cluster_id(name);
        let header = generated(&AMQPFrame::Header(
            channel,
            amq_protocol::frame::AMQPContentHeader {
                class_id: 60,
                body_size: body.len() as u64,
                properties,
            },
        ));
        let parsed = proto_amqp::ContentHeader::parse(payload_of(&header)).unwrap();
        prop_assert!(properties::summarise(parsed.properties).is_ok());
        let mut out = Vec::new();
        let id = ChannelId(channel);
        basic::write_content_header(&mut out, id, parsed.body_size, parsed.properties);
        basic::write_body(&mut out, id, &body, 0);
        let theirs = generated(&AMQPFrame::Body(channel, body.clone()));
        prop_assert_eq!(out, [header, theirs].concat());
    }

    #[test]
    fn hot_methods_are_read_alike_or_refused_alike(payload in hot_payload()) {
        let ours = basic::decode_hot(&payload).map(|hot| hot.unwrap());
        let theirs = parse_class(&payload[..]).map(|(_, class)| class);
        match (ours, theirs) {
            (Ok(hot), theirs) => match (as_theirs(hot), theirs) {
                (Some(ours), Ok(theirs)) => prop_assert_eq!(AMQPClass::Basic(ours), theirs),
                // Exception 1.
                (None, Err(_)) => {}
                (ours, theirs) => panic!("{ours:?} against {theirs:?}"),
            },
            // Exception 2, and exception 1 where the octets end after a name that is not UTF-8.
            (Err(_), Err(_)) => {}
            (Err(error), Ok(theirs)) => panic!("{error} against {theirs:?}"),
        }
    }

    #[test]
    fn control_decodes_hot_methods_as_the_hot_way_does(payload in hot_payload()) {
        let hot = basic::decode_hot(&payload).ok().flatten().and_then(as_theirs);
        let control = control::decode(&payload, Version::V0_9_1).ok();
        prop_assert_eq!(hot.map(AMQPClass::Basic), control);
    }

    #[test]
    fn any_octets_are_a_control_method_for_both_or_for_neither(
        numbers in prop::sample::select(vec![
            [10u8, 11u8], [10, 31], [10, 40], [10, 50], [20, 20], [40, 10], [40, 40], [50, 10],
            [50, 20], [50, 40], [60, 10], [60, 20], [60, 30], [60, 70], [85, 10], [90, 10],
        ]),
        arguments in prop::collection::vec(
            prop_oneof![4 => Just(0u8), 2 => 1u8..8, 1 => prop::sample::select(b"tSFAVIlx".to_vec()),
                        1 => any::<u8>()],
            0..40,
        ),
    ) {
        let payload = [&[0, numbers[0], 0, numbers[1]][..], &arguments].concat();
        let ours = control::decode(&payload, Version::V0_9_1).ok();
        let theirs = parse_class(&payload[..]).ok().map(|(_, class)| class);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn any_octets_are_a_table_for_both_or_for_neither(
        table in prop::collection::vec(
            prop_oneof![3 => Just(0u8), 3 => 1u8..6, 3 => prop::sample::select(
                b"tbBsuUIilLfdDSATFVx".to_vec()), 1 => any::<u8>()],
            0..48,
        ),
    ) {
        let len = u32::try_from(table.len()).unwrap().to_be_bytes();
        let counted = [&len[..], &table].concat();
        let ours = table::check(&table, Limits::default());
        match (ours, parse_field_table(&counted[..])) {
            (Ok(()), Ok((rest, theirs))) => {
                prop_assert!(rest.is_empty());
                prop_assert!(same_table(TableReader::new(&table), &theirs));
            }
            // Exception 4.
            (Ok(()), Err(_)) => prop_assert!(!names_are_text(TableReader::new(&table))),
            (Err(_), Err(_)) => {}
            (Err(error), Ok(theirs)) => panic!("{error} against {theirs:?}"),
        }
    }

    #[test]
    fn any_octets_are_a_property_list_for_both_or_for_neither(
        flags in (0u16..).prop_map(|flags| flags & !3),
        list in prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 1u8..4, 1 => any::<u8>()], 0..60),
    ) {
        let octets = [&flags.to_be_bytes()[..], &list].concat();
        match (properties::summarise(&octets), parse_properties(&octets[..])) {
            (Ok(ours), Ok((rest, theirs))) => {
                prop_assert!(rest.is_empty());
                let text = |theirs: &Option<ShortString>| {
                    theirs.as_ref().map(|text| text.as_str().as_bytes().to_vec())
                };
                let octets = |ours: Option<&[u8]>| ours.map(<[u8]>::to_vec);
                prop_assert_eq!(octets(ours.content_type), text(theirs.content_type()));
                prop_assert_eq!(octets(ours.content_encoding), text(theirs.content_encoding()));
                prop_assert_eq!(octets(ours.correlation_id), text(theirs.correlation_id()));
                prop_assert_eq!(octets(ours.reply_to), text(theirs.reply_to()));
                prop_assert_eq!(octets(ours.expiration), text(theirs.expiration()));
                prop_assert_eq!(octets(ours.message_id), text(theirs.message_id()));
                prop_assert_eq!(octets(ours.kind), text(theirs.kind()));
                prop_assert_eq!(octets(ours.user_id), text(theirs.user_id()));
                prop_assert_eq!(octets(ours.app_id), text(theirs.app_id()));
                prop_assert_eq!(octets(ours.cluster_id), text(theirs.cluster_id()));
                prop_assert_eq!(ours.delivery_mode, *theirs.delivery_mode());
                prop_assert_eq!(ours.priority, *theirs.priority());
                prop_assert_eq!(ours.timestamp, *theirs.timestamp());
                match (ours.headers, theirs.headers()) {
                    (Some(ours), Some(theirs)) => {
                        prop_assert!(same_table(TableReader::new(ours), theirs));
                    }
                    (None, None) => {}
                    (ours, theirs) => panic!("{ours:?} against {theirs:?}"),
                }
            }
            // Exception 4: a string or a name is not UTF-8.
            (Ok(ours), Err(_)) => {
                let strings = [
                    ours.content_type, ours.content_encoding, ours.correlation_id, ours.reply_to,
                    ours.expiration, ours.message_id, ours.kind, ours.user_id, ours.app_id,
                    ours.cluster_id,
                ];
                let all_text = strings
                    .into_iter()
                    .flatten()
                    .all(|string| std::str::from_utf8(string).is_ok());
                prop_assert!(!all_text || !names_are_text(ours.headers_reader()));
            }
            // Exception 3.
            (Err(proto_amqp::PropertiesError::Trailing(len)), Ok((rest, _))) => {
                prop_assert_eq!(len, rest.len());
            }
            (Err(_), Err(_)) => {}
            (Err(error), Ok((_, theirs))) => panic!("{error} against {theirs:?}"),
        }
    }
}
