//! Malformed input, row by row: what arrives, and the reply code and text it is answered with.
//!
//! Each row goes the way a server takes it: cut a frame, decode what it carries, check a header's
//! property list. A row that is accepted, or for which more octets are waited for, fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in whichever function")]

use proto_amqp::{
    ChannelId, ContentHeader, FrameKind, ReplyCode, Version, frame, method, properties,
    table::{DEPTH_MAX, ENTRIES_MAX},
};

const FRAME_MAX: u32 = 4096;
const FRAME: ReplyCode = ReplyCode::FRAME_ERROR;
const SYNTAX: ReplyCode = ReplyCode::SYNTAX_ERROR;
const COMMAND: ReplyCode = ReplyCode::COMMAND_INVALID;
const UNEXPECTED: ReplyCode = ReplyCode::UNEXPECTED_FRAME;

fn wire(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes(), payload, &[0xCE]].concat()
}

/// What the octets are answered with; `None` when they are taken.
fn answer(input: &[u8], version: Version) -> Option<(ReplyCode, String)> {
    let frame = match frame::parse(input, FRAME_MAX) {
        // A whole frame, or refused before it is whole.
        Ok(frame) => frame.unwrap(),
        Err(error) => return Some((error.code(), error.detail())),
    };
    match frame.kind {
        FrameKind::Method => {
            method::decode(frame.payload, version).err().map(|error| (error.code(), error.detail()))
        }
        FrameKind::Header => match ContentHeader::parse(frame.payload) {
            Err(error) => Some((error.code(), error.detail())),
            Ok(header) => properties::summarise(header.properties)
                .err()
                .map(|error| (error.code(), error.detail())),
        },
        FrameKind::Body | FrameKind::Heartbeat => None,
    }
}

#[track_caller]
fn check(input: &[u8], code: ReplyCode, text: &str) {
    check_in(Version::V0_9_1, input, code, text);
}

#[track_caller]
fn check_in(version: Version, input: &[u8], code: ReplyCode, text: &str) {
    let shown = input.get(..40).unwrap_or(input);
    let (found_code, found_text) = answer(input, version).unwrap_or_else(|| panic!("{shown:?}"));
    assert_eq!((found_code, found_text.as_str()), (code, text), "{shown:?}");
}

fn method_frame(channel: u16, ids: [u8; 4], arguments: &[u8]) -> Vec<u8> {
    wire(1, channel, &[&ids[..], arguments].concat())
}

const QUEUE_DECLARE: [u8; 4] = [0, 50, 0, 10];
const START_OK: [u8; 4] = [0, 10, 0, 11];

/// The frame of a queue.declare with this table, whose length field is `len`.
fn declare_with(len: u32, table: &[u8]) -> Vec<u8> {
    let arguments = [&[0, 0, 1, b'q', 0][..], &len.to_be_bytes(), table].concat();
    method_frame(1, QUEUE_DECLARE, &arguments)
}

fn declare(table: &[u8]) -> Vec<u8> {
    declare_with(u32::try_from(table.len()).unwrap(), table)
}

/// `cannot decode`, with the octets of the arguments as the text shows them.
fn undecodable(frame: &[u8]) -> String {
    let arguments = frame.get(11..frame.len() - 1).unwrap();
    let shown: Vec<String> = arguments.iter().take(16).map(u8::to_string).collect();
    let more = if arguments.len() > 16 { ",..." } else { "" };
    format!("cannot decode <<{}{more}>>", shown.join(","))
}

fn header_frame(properties: &[u8]) -> Vec<u8> {
    wire(2, 1, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], properties].concat())
}

#[test]
fn sizes_at_and_beyond_the_maximum() {
    for (size, kind) in [
        (FRAME_MAX + 1, 1),
        (FRAME_MAX + 1, 2),
        (FRAME_MAX + 1, 3),
        (FRAME_MAX + 1, 8),
        (FRAME_MAX + 1, 77),
        (FRAME_MAX + 8, 1),
        (0x0002_0000, 1),
        (0x7FFF_FFFF, 1),
        (0x8000_0000, 3),
        (0xFFFF_FFF7, 3),
        (0xFFFF_FFF8, 3),
        (u32::MAX, 1),
        (u32::MAX, 3),
    ] {
        let [s0, s1, s2, s3] = size.to_be_bytes();
        let text = format!("type {kind}, all octets = <<>>: {{frame_too_large,{size},4088}}");
        check(&[kind, 0, 1, s0, s1, s2, s3], FRAME, &text);
        // Not for lack of a payload: it is the announcement that is refused.
        check(&[kind, 0, 1, s0, s1, s2, s3, 0, 0, 0xCE], FRAME, &text);
    }
}

#[test]
fn frames_of_size_zero() {
    check(&wire(1, 1, &[]), FRAME, "type 1, all octets = <<>>: unknown_frame");
    check(&wire(2, 1, &[]), FRAME, "type 2, all octets = <<>>: unknown_frame");
    assert_eq!(answer(&wire(3, 1, &[]), Version::V0_9_1), None, "an empty body is a body");
    assert_eq!(answer(&wire(8, 0, &[]), Version::V0_9_1), None);
}

#[test]
fn end_octets() {
    for end in [0, 1, 0xCD, 0xCF, 0xFF] {
        for (kind, channel, payload, shown) in [
            (1, 1, &[0, 90, 0, 10][..], "<<0,90,0,10>>"),
            (2, 1, &[7], "<<7>>"),
            (3, 1, b"AB", "<<65,66>>"),
            (8, 0, &[], "<<>>"),
            // The end octet is looked at before anything else.
            (99, 0, &[], "<<>>"),
            (8, 5, &[1], "<<1>>"),
        ] {
            let mut frame = wire(kind, channel, payload);
            *frame.last_mut().unwrap() = end;
            let text =
                format!("type {kind}, all octets = {shown}: {{invalid_frame_end_marker,{end}}}");
            check(&frame, FRAME, &text);
        }
    }
}

#[test]
fn types_and_channels() {
    for kind in [0, 4, 5, 6, 7, 9, 10, 65, 255] {
        let text = format!("type {kind}, all octets = <<1>>: unknown_frame");
        check(&wire(kind, 0, &[1]), FRAME, &text);
        check(&wire(kind, 1, &[1]), FRAME, &text);
    }
    for channel in [1, 255, 256, u16::MAX] {
        check(&wire(8, channel, &[]), UNEXPECTED, "type 8, all octets = <<>>");
    }
    check(&wire(8, 0, &[0]), FRAME, "type 8, all octets = <<0>>: unknown_frame");
    check(&wire(2, 0, &[]), UNEXPECTED, "type 2, all octets = <<>>");
    check(&wire(3, 0, b"!"), UNEXPECTED, "type 3, all octets = <<33>>");
    check(
        &wire(3, 0, &[2; 17]),
        UNEXPECTED,
        "type 3, first 16 octets = <<2,2,2,2,2,2,2,2,2,2,2,2,2,2,2,2>>",
    );
}

#[test]
fn other_protocols_in_the_place_of_a_frame() {
    // "GET / H": type 71, channel 0x4554, a size of 542 MiB.
    check(
        b"GET / HTTP/1.1\r\n",
        FRAME,
        "type 71, all octets = <<>>: {frame_too_large,539959368,4088}",
    );
    check(
        b"AMQP\x00\x00\x09\x01",
        FRAME,
        "type 65, all octets = <<>>: {frame_too_large,1342177289,4088}",
    );
}

#[test]
fn methods_without_their_ids() {
    check(&wire(1, 0, &[0]), FRAME, "type 1, all octets = <<0>>: unknown_frame");
    check(&wire(1, 1, &[0, 60]), FRAME, "type 1, all octets = <<0,60>>: unknown_frame");
    check(&wire(1, 1, &[0, 60, 0]), FRAME, "type 1, all octets = <<0,60,0>>: unknown_frame");
}

#[test]
fn methods_that_do_not_exist() {
    for ids in [
        [0, 0, 0, 0],
        [0, 10, 0, 0],
        [0, 10, 0, 42],
        [0, 20, 0, 30],
        [0, 20, 0, 50],
        [0, 40, 0, 41],
        [0, 50, 0, 60],
        [0, 60, 0, 0],
        [0, 60, 0, 101],
        [0, 60, 0, 102],
        [0, 60, 0, 200],
        [0, 70, 0, 10],
        [0, 80, 0, 10],
        [0, 85, 0, 20],
        [0, 100, 0, 10],
        [0, 110, 0, 10],
        [0, 120, 0, 10],
        [60, 0, 40, 0],
        [255; 4],
    ] {
        check(&method_frame(1, ids, &[0; 8]), COMMAND, "unimplemented method");
    }
    for ids in [
        [0, 10, 0, 50],
        [0, 10, 0, 51],
        [0, 10, 0, 70],
        [0, 40, 0, 30],
        [0, 40, 0, 40],
        [0, 60, 0, 120],
        [0, 85, 0, 10],
    ] {
        let frame = method_frame(1, ids, &[0; 24]);
        check_in(Version::V0_8, &frame, COMMAND, "unimplemented method");
        assert_eq!(answer(&frame, Version::V0_9_1), None, "{ids:?} in 0-9-1");
    }
}

#[test]
fn arguments_that_end_too_early() {
    for (ids, arguments) in [
        (START_OK, &b"\0\0\0"[..]),
        (START_OK, b"\0\0\0\0\x05PLAI"),
        (START_OK, b"\0\0\0\0\x05PLAIN\0\0\0\x09\0gu"),
        (START_OK, b"\0\0\0\0\x05PLAIN\xFF\xFF\xFF\xFF\0guest"),
        (START_OK, b"\0\0\0\0\x05PLAIN\0\0\0\x00"),
        (START_OK, b"\0\0\0\0\x05PLAIN\0\0\0\x00\x05en"),
        ([0, 10, 0, 31], b"\0\x01\0\0\x10\0\0"),
        ([0, 10, 0, 40], b"\x01/"),
        ([0, 10, 0, 40], b"\x01/\0"),
        ([0, 10, 0, 40], b"\xFF/"),
        ([0, 10, 0, 50], b"\0\xC8\0\0\0\0"),
        ([0, 20, 0, 10], b""),
        ([0, 20, 0, 20], b""),
        ([0, 40, 0, 10], b"\0\0\x01e\x06direct"),
        ([0, 40, 0, 10], b"\0\0\x01e\x06direct\x02"),
        ([0, 40, 0, 10], b"\0\0\x01e\xFFdirect\x02\0\0\0\0"),
        (QUEUE_DECLARE, b"\0"),
        (QUEUE_DECLARE, b"\0\0"),
        (QUEUE_DECLARE, b"\0\0\x02q"),
        (QUEUE_DECLARE, b"\0\0\x01q"),
        (QUEUE_DECLARE, b"\0\0\x01q\0\0\0\0"),
        ([0, 60, 0, 10], b"\0\0\0\0\0\x01"),
        ([0, 60, 0, 20], b"\0\0\x01q\x01t\0"),
        ([0, 60, 0, 40], b"\0\0"),
        ([0, 60, 0, 40], b"\0\0\x03ex"),
        ([0, 60, 0, 40], b"\0\0\x02ex\xFFkey\0"),
        ([0, 60, 0, 40], b"\0\0\x02ex\x03key"),
        ([0, 60, 0, 80], b"\0\0\0\0\0\0\0\x01"),
        ([0, 60, 0, 90], b"\0\0\0"),
        ([0, 60, 0, 120], b""),
        ([0, 85, 0, 10], b""),
    ] {
        let frame = method_frame(1, ids, arguments);
        check(&frame, FRAME, &undecodable(&frame));
    }
}

#[test]
fn short_strings_that_are_not_utf8() {
    const TEXT: &str = "Malformed UTF-8 in shortstr";
    for string in [
        &b"\xFF"[..],
        b"\x80",
        b"\xC3",
        b"a\xC3(",
        b"\xC0\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xF8\x88\x80\x80\x80",
    ] {
        let len = u8::try_from(string.len()).unwrap();
        let name = [&[len][..], string].concat();
        let declare = [&[0, 0][..], &name, &[0, 0, 0, 0, 0]].concat();
        check(&method_frame(1, QUEUE_DECLARE, &declare), FRAME, TEXT);
        let mechanism = [&[0; 4][..], &name, &[0, 0, 0, 0, 0]].concat();
        check(&method_frame(0, START_OK, &mechanism), FRAME, TEXT);
        let virtual_host = [&name[..], &[0, 0]].concat();
        check(&method_frame(0, [0, 10, 0, 40], &virtual_host), FRAME, TEXT);
        let cancel = [&name[..], &[0]].concat();
        check(&method_frame(1, [0, 60, 0, 30], &cancel), FRAME, TEXT);
        // A routing key is octets.
        let publish = [&[0, 0, 0][..], &name, &[0]].concat();
        let frame = method_frame(1, [0, 60, 0, 40], &publish);
        assert_eq!(answer(&frame, Version::V0_9_1), None);
    }
}

#[test]
fn tables_that_are_not_tables() {
    for table in [
        &b"\x01"[..],
        b"\x01a",
        b"\x02a",
        b"\xFFabc",
        b"\x01a?",
        b"\x01a\0",
        b"\x01a\xFF\0\0\0\0",
        b"\x01ac\0\0\0\x01x",
        b"\x01at",
        b"\x01ab",
        b"\x01aB",
        b"\x01as\0",
        b"\x01au\0",
        b"\x01aU\0",
        b"\x01aI\0\0\0",
        b"\x01ai\0\0\0",
        b"\x01al\0\0\0\0\0\0\0",
        b"\x01aL\0\0\0\0\0\0\0",
        b"\x01af\0\0\0",
        b"\x01ad\0\0\0\0\0\0\0",
        b"\x01aD\x02\0\0\0",
        b"\x01aT\0\0\0\0\0\0\0",
        b"\x01aS\0\0\0",
        b"\x01aS\0\0\0\x01",
        b"\x01aS\xFF\xFF\xFF\xFF",
        b"\x01ax\x80\0\0\0x",
        b"\x01aA\0\0\0\x01",
        b"\x01aA\0\0\0\x01t",
        b"\x01aA\0\0\0\x01?\x01bV",
        b"\x01aA\xFF\xFF\xFF\xFFt\x01",
        b"\x01aF\0\0\0\x01\x01",
        b"\x01aF\0\0\0\x02\x01b",
        b"\x01aF\0\0\0\x03\x01bt\x01cV",
        b"\x01aF\xFF\xFF\xFF\xFF",
        b"\x01aV\x01",
        b"\x01a\xC3V",
        b"\x02\xC3(V",
    ] {
        let frame = declare(table);
        check(&frame, FRAME, &undecodable(&frame));
        let start_ok = method_frame(
            0,
            START_OK,
            &[&u32::try_from(table.len()).unwrap().to_be_bytes()[..], table, &[0; 6]].concat(),
        );
        check(&start_ok, FRAME, &undecodable(&start_ok));
    }
}

#[test]
fn table_lengths_that_are_not_true() {
    for (len, table) in [
        (1, &b""[..]),
        (4, b"\x01aV"),
        (u32::MAX, b"\x01aV"),
        (0x8000_0000, b""),
        (0x7FFF_FFFF, b"\x01aV"),
        // One octet short cuts the entry in two.
        (2, b"\x01aV"),
    ] {
        let frame = declare_with(len, table);
        check(&frame, FRAME, &undecodable(&frame));
    }
}

#[test]
fn tables_beyond_the_limits() {
    const DEEP: &str = "field table nested deeper than 32 levels";
    for levels in [DEPTH_MAX, DEPTH_MAX + 1, 500] {
        let tables: Vec<u8> = (0..levels)
            .rev()
            .flat_map(|left| {
                [&b"\x01aF"[..], &u32::try_from(left * 7).unwrap().to_be_bytes()].concat()
            })
            .collect();
        check(&declare(&tables), SYNTAX, DEEP);
        let arrays: Vec<u8> = (0..levels)
            .rev()
            .flat_map(|left| [&b"A"[..], &u32::try_from(left * 5).unwrap().to_be_bytes()].concat())
            .collect();
        check(&declare(&[b"\x01a", &arrays[..]].concat()), SYNTAX, DEEP);
    }
    let wide = b"\x01aV".repeat(ENTRIES_MAX + 1);
    const WIDE: &str = "field table with more than 1024 entries or 131072 octets";
    check(&declare(&wide), SYNTAX, WIDE);
}

#[test]
fn ten_thousand_levels_in_one_frame_are_refused_without_a_stack() {
    // Beyond this frame-max, as a server without one would see it.
    for (lead, letter, per_level) in [(&b""[..], &b"\x01aF"[..], 7), (b"\x01a", b"A", 5)] {
        let nested: Vec<u8> = (0..10_000u32)
            .rev()
            .flat_map(|left| [letter, &(left * per_level).to_be_bytes()].concat())
            .collect();
        let table = [lead, &nested].concat();
        let frame = declare(&table);
        let frame = frame::parse(&frame, 0).unwrap().unwrap();
        let error = method::decode(frame.payload, Version::V0_9_1).unwrap_err();
        assert_eq!(error.code(), SYNTAX);
        let len = u32::try_from(table.len()).unwrap().to_be_bytes();
        let list = [&[0x20, 0][..], &len, &table].concat();
        let error = properties::summarise(&list).unwrap_err();
        assert_eq!(error.detail(), "headers: field table nested deeper than 32 levels");
    }
}

#[test]
fn content_headers() {
    let short = |len: usize| wire(2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0][..len]);
    check(&short(1), FRAME, "type 2, all octets = <<0>>: unknown_frame");
    check(&short(11), FRAME, "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0>>: unknown_frame");
    for class in [0, 10, 50, 61, 85] {
        let text =
            format!("expected content header for class 60, got one for class {class} instead");
        check(&wire(2, 1, &[0, class, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), UNEXPECTED, &text);
    }
    for weight in [[0, 1], [1, 0], [255, 255]] {
        let payload = [&[0, 60][..], &weight, &[0; 10]].concat();
        check(
            &wire(2, 1, &payload),
            UNEXPECTED,
            "expected content header for class 60, got non content header frame instead",
        );
    }
}

#[test]
fn property_lists() {
    for (list, text) in [
        (&b""[..], "property list ends within the flags"),
        (b"\x80", "property list ends within the flags"),
        (b"\x80\0", "property list ends within content-type"),
        (b"\x80\0\x05text", "property list ends within content-type"),
        (b"\xC0\0\x01a", "property list ends within content-encoding"),
        (b"\x20\0\0\0\0", "property list ends within headers"),
        (b"\x20\0\0\0\0\x01", "property list ends within headers"),
        (b"\x20\0\xFF\xFF\xFF\xFF\x01aV", "property list ends within headers"),
        (b"\x10\0", "property list ends within delivery-mode"),
        (b"\x18\0\x02", "property list ends within priority"),
        (b"\x04\0\xFFc", "property list ends within correlation-id"),
        (b"\x02\0", "property list ends within reply-to"),
        (b"\x01\0\x03ab", "property list ends within expiration"),
        (b"\0\x80\x01", "property list ends within message-id"),
        (b"\0\x40\0\0\0\0\0\0\0", "property list ends within timestamp"),
        (b"\0\x20", "property list ends within type"),
        (b"\0\x10\x02u", "property list ends within user-id"),
        (b"\0\x08", "property list ends within app-id"),
        (b"\0\x04\x01", "property list ends within cluster-id"),
        (b"\0\x01", "property flags continue in a second word"),
        (b"\0\x01\0\0", "property flags continue in a second word"),
        (b"\xFF\xFF", "property flags continue in a second word"),
        (b"\0\0\0", "octets after the last property: 1"),
        (b"\x10\0\x02\x02\x02", "octets after the last property: 2"),
        (b"\x20\0\0\0\0\x01\x01", "headers: field table entry runs past the end of its table"),
        (b"\x20\0\0\0\0\x03\x01a?", "headers: unknown field type 63"),
        (
            b"\x20\0\0\0\0\x04\x01aV\x01",
            "headers: field table entry runs past the end of its table",
        ),
    ] {
        check(&header_frame(list), SYNTAX, text);
    }
}

#[test]
fn a_well_formed_row_would_fail_these_checks() {
    assert_eq!(answer(&declare(b"\x01aV"), Version::V0_9_1), None);
    assert_eq!(answer(&header_frame(b"\x10\0\x02"), Version::V0_9_1), None);
    let close = method_frame(0, [0, 10, 0, 60], b"\0\xC8\0\0\0\0\0");
    assert_eq!(answer(&close, Version::V0_8), None);
    let frame = frame::parse(&close, FRAME_MAX).unwrap().unwrap();
    assert_eq!(frame.channel, ChannelId::CONNECTION);
}
