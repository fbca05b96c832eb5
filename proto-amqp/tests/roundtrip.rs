//! What is written is read again: frames however they are split, methods in every version, property
//! lists and tables octet by octet. And no octets whatever make the crate panic.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in whichever function")]

mod common;
#[path = "common/methods.rs"]
mod methods;

use amq_protocol::protocol::AMQPClass;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use proto_amqp::{
    ChannelId, ContentAssembler, ContentHeader, EncodeError, Frame, FrameCodec, FrameKind, Method,
    OwnedFrame, Properties, Publish, Version, basic, content, control, frame, handshake, method,
    properties,
    table::{self, ArrayReader, ArrayWriter, Limits, TableReader, TableWriter, Value},
};
use tokio_util::codec::{Decoder, Encoder};

const VERSIONS: [Version; 3] = [Version::V0_9_1, Version::V0_9, Version::V0_8];

fn owned_frame() -> impl Strategy<Value = OwnedFrame> {
    let payload = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let of = |kind| {
        (1u16.., payload()).prop_map(move |(channel, payload)| OwnedFrame {
            kind,
            channel: ChannelId(channel),
            payload,
        })
    };
    prop_oneof![
        of(FrameKind::Method),
        of(FrameKind::Header),
        of(FrameKind::Body),
        Just(OwnedFrame {
            kind: FrameKind::Heartbeat,
            channel: ChannelId(0),
            payload: Bytes::new()
        }),
    ]
}

fn octets(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..len_max)
}

fn maybe<S: Strategy>(strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    prop::option::of(strategy)
}

/// Octets of a table with every letter of the wire, nested, with duplicates and odd names.
fn table_octets() -> impl Strategy<Value = Vec<u8>> {
    let fixed = |letter: u8, len: usize| {
        prop::collection::vec(any::<u8>(), len)
            .prop_map(move |value| [vec![letter], value].concat())
    };
    let counted = |letter: u8| {
        octets(30).prop_map(move |value| {
            let len = u32::try_from(value.len()).unwrap().to_be_bytes();
            [&[letter][..], &len, &value].concat()
        })
    };
    let leaf = prop_oneof![
        any::<bool>().prop_map(|value| vec![b't', u8::from(value)]),
        prop::sample::select(vec![b'b', b'B']).prop_flat_map(move |letter| fixed(letter, 1)),
        prop::sample::select(vec![b's', b'u', b'U']).prop_flat_map(move |letter| fixed(letter, 2)),
        prop::sample::select(vec![b'I', b'i', b'f']).prop_flat_map(move |letter| fixed(letter, 4)),
        prop::sample::select(vec![b'l', b'L', b'd', b'T'])
            .prop_flat_map(move |letter| fixed(letter, 8)),
        fixed(b'D', 5),
        counted(b'S'),
        counted(b'x'),
        Just(vec![b'V']),
    ];
    let value = leaf.prop_recursive(4, 20, 4, |inner| {
        let wrap = |letter: u8, contents: Vec<u8>| {
            let len = u32::try_from(contents.len()).unwrap().to_be_bytes();
            [&[letter][..], &len, &contents].concat()
        };
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(move |values| wrap(b'A', values.concat())),
            entries(inner, 0..4).prop_map(move |contents| wrap(b'F', contents)),
        ]
    });
    entries(value, 0..6)
}

fn entries(
    value: impl Strategy<Value = Vec<u8>>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((octets(20), value), count).prop_map(|entries| {
        entries
            .into_iter()
            .flat_map(|(name, value)| {
                [vec![u8::try_from(name.len()).unwrap()], name, value].concat()
            })
            .collect()
    })
}

fn cut_all(codec: &mut FrameCodec, input: &mut BytesMut) -> Vec<OwnedFrame> {
    std::iter::from_fn(|| codec.decode(input).unwrap()).collect()
}

/// Writes again what a reader reads, level by level.
fn copy_table(reader: TableReader<'_>, writer: &mut TableWriter<'_>) {
    for (name, value) in reader {
        match value {
            Value::Table(inner) => writer.table(name, |writer| {
                copy_table(inner, writer);
                Ok(())
            }),
            Value::Array(inner) => writer.array(name, |writer| {
                copy_array(inner, writer);
                Ok(())
            }),
            scalar => writer.write(name, scalar),
        }
        .unwrap();
    }
}

fn copy_array(reader: ArrayReader<'_>, writer: &mut ArrayWriter<'_>) {
    for value in reader {
        match value {
            Value::Table(inner) => writer.table(|writer| {
                copy_table(inner, writer);
                Ok(())
            }),
            Value::Array(inner) => writer.array(|writer| {
                copy_array(inner, writer);
                Ok(())
            }),
            scalar => writer.write(scalar),
        }
        .unwrap();
    }
}

/// Hands octets of a peer to everything that takes some.
fn take_all(input: &[u8]) {
    for frame_max in [0, 4096] {
        if let Err(error) = frame::parse(input, frame_max) {
            assert!(error.detail().len() < 200);
        }
    }
    for version in VERSIONS {
        if let Err(error) = method::decode(input, version) {
            assert!(error.detail().len() < 200 && error.to_string().len() < 300);
        }
        let _decoded = control::decode(input, version);
        let _table = control::argument_table(input, version);
    }
    let _deliver = basic::parse_deliver(input);
    let _prefetch = control::qos_prefetch_size(input);
    if let Ok(properties) = properties::summarise(input) {
        let _last = properties.headers_reader().last();
    }
    let _checked = table::check(input, Limits::default());
    let _last = TableReader::new(input).last();
    let _last = ArrayReader::new(input).last();
    let _header = handshake::parse_protocol_header(input);
    let _plain = handshake::plain(input);
    let _amqplain = handshake::amqplain(input);
    let _content = ContentHeader::parse(input);
}

proptest! {
    #[test]
    fn frames_are_the_same_however_the_stream_is_split(
        frames in prop::collection::vec(owned_frame(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut codec = FrameCodec::default();
        let mut stream = BytesMut::new();
        for frame in &frames {
            codec.encode(frame.clone(), &mut stream).unwrap();
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for piece in cuts.windows(2) {
            buffer.extend_from_slice(&stream[piece[0]..piece[1]]);
            found.extend(cut_all(&mut codec, &mut buffer));
        }
        prop_assert_eq!(found, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn every_control_method_is_read_as_it_was_written(methods in methods::control_methods()) {
        for version in VERSIONS {
            for method in &methods {
                let mut out = Vec::new();
                match control::encode(ChannelId(5), method, version, &mut out) {
                    Ok(()) => {}
                    Err(EncodeError::NotInVersion { .. }) if version == Version::V0_8 => continue,
                    // The one method whose arguments 0-8 may have no room for.
                    Err(EncodeError::Arguments(id)) if version == Version::V0_8 => {
                        prop_assert_eq!(id.to_string(), "basic.consume");
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                }
                let Frame { kind, channel, payload, wire_len } =
                    frame::parse(&out, 0).unwrap().unwrap();
                prop_assert_eq!((kind, channel), (FrameKind::Method, ChannelId(5)));
                prop_assert_eq!(wire_len, out.len());
                let id = method::MethodId::of_payload(payload).unwrap();
                prop_assert_eq!(id, method::id_of(method, version));
                prop_assert!(method::is_known(id, version));
                prop_assert_eq!(&control::decode(payload, version).unwrap(), method);
                match (method::decode(payload, version).unwrap(), method) {
                    (Method::Control(class), method) => prop_assert_eq!(&*class, method),
                    (_, AMQPClass::Basic(_)) => {}
                    (hot, _) => panic!("{hot:?} is no hot method"),
                }
            }
        }
    }

    #[test]
    fn a_property_list_is_the_same_octets_after_reading_and_writing(
        strings in prop::collection::vec(maybe(octets(256)), 10),
        headers in maybe(table_octets()),
        numbers in (maybe(any::<u8>()), maybe(any::<u8>()), maybe(any::<u64>())),
    ) {
        let string = |n: usize| strings[n].as_deref();
        let written = Properties {
            content_type: string(0),
            content_encoding: string(1),
            headers: headers.as_deref(),
            delivery_mode: numbers.0,
            priority: numbers.1,
            correlation_id: string(2),
            reply_to: string(3),
            expiration: string(4),
            message_id: string(5),
            timestamp: numbers.2,
            kind: string(6),
            user_id: string(7),
            app_id: string(8),
            cluster_id: string(9),
        };
        let mut list = Vec::new();
        properties::encode(&written, &mut list).unwrap();
        let read = properties::summarise(&list).unwrap();
        prop_assert_eq!(read, written);
        let mut again = Vec::new();
        properties::encode(&read, &mut again).unwrap();
        prop_assert_eq!(again, list);
    }

    #[test]
    fn arbitrary_octets_that_are_a_property_list_are_written_again(list in octets(40)) {
        if let Ok(read) = properties::summarise(&list) {
            let mut again = Vec::new();
            properties::encode(&read, &mut again).unwrap();
            let mut without_flag_1 = list.clone();
            without_flag_1[1] &= !2;
            prop_assert_eq!(again, without_flag_1);
        }
    }

    #[test]
    fn a_table_is_the_same_octets_after_reading_and_writing(table in table_octets()) {
        prop_assert_eq!(table::check(&table, Limits::default()), Ok(()));
        let mut again = Vec::new();
        copy_table(TableReader::new(&table), &mut TableWriter::new(&mut again));
        // Floats are copied by their bits, a signalling NaN's included.
        prop_assert_eq!(again, table);
    }

    #[test]
    fn a_table_cut_or_changed_anywhere_is_read_without_a_panic(
        table in table_octets(),
        at in any::<prop::sample::Index>(),
        octet in any::<u8>(),
    ) {
        if !table.is_empty() {
            let at = at.index(table.len());
            let mut changed = table.clone();
            changed[at] = octet;
            take_all(&changed);
            take_all(&table[..at]);
            // What the check accepts, the reader reads to the end.
            if table::check(&changed, Limits::default()).is_ok() {
                let mut again = Vec::new();
                copy_table(TableReader::new(&changed), &mut TableWriter::new(&mut again));
                prop_assert_eq!(again.len(), changed.len());
            }
        }
    }

    #[test]
    fn no_octets_make_the_crate_panic(input in octets(200)) {
        take_all(&input);
    }

    #[test]
    fn no_arguments_of_a_known_method_make_the_crate_panic(
        numbers in prop::sample::select(vec![
            (10u16, 11u16), (10, 40), (10, 50), (10, 60), (20, 10), (40, 10), (40, 30), (50, 10),
            (50, 20), (50, 50), (60, 10), (60, 20), (60, 40), (60, 60), (60, 80), (60, 120),
        ]),
        arguments in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..60),
    ) {
        let (class, method) = numbers;
        take_all(&[&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments].concat());
    }

    #[test]
    fn a_content_is_the_same_however_its_body_is_split(
        body in octets(2000),
        frame_max in 9u32..600,
        list in octets(30),
    ) {
        let publish =
            Publish { exchange: b"e", routing_key: b"\xFFk", mandatory: true, immediate: true };
        let channel = ChannelId(9);
        let mut out = Vec::new();
        basic::write_content_header(&mut out, channel, body.len() as u64, &list);
        basic::write_body(&mut out, channel, &body, frame_max);
        prop_assert_eq!(out.len(), basic::content_len(list.len(), body.len(), frame_max));
        let mut assembler = ContentAssembler::default();
        assembler.method(&publish).unwrap();
        let mut whole = None;
        let mut rest = &out[..];
        while let Some(frame) = frame::parse(rest, 0).unwrap() {
            prop_assert!(whole.is_none(), "a frame after the last");
            whole = match frame.kind {
                FrameKind::Header => {
                    assembler.header(&ContentHeader::parse(frame.payload).unwrap()).unwrap()
                }
                FrameKind::Body => {
                    prop_assert!(frame.wire_len <= frame_max as usize);
                    assembler.body(frame.payload).unwrap()
                }
                other => panic!("{other:?}"),
            };
            rest = &rest[frame.wire_len..];
        }
        let content::Content { method, properties, body: joined } = whole.unwrap();
        prop_assert_eq!(method.as_publish(), publish);
        prop_assert_eq!(properties, list);
        prop_assert_eq!(joined, body);
    }
}
