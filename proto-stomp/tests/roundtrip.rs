//! Properties: what is written is read back, whatever the octets; what is read does not depend on the
//! cuts; and nothing a peer sends makes the decoder panic or hold more than it may.

mod feed;

use feed::{Seen, feed};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proto_stomp::{Command, Decoded, Decoder, FrameEnd, FrameWriter, HeaderBlock, Limits, Version};

const VERSIONS: [Version; 3] = [Version::V1_0, Version::V1_1, Version::V1_2];
const AFTER_OPENING: [Command; 12] = [
    Command::Send,
    Command::Subscribe,
    Command::Unsubscribe,
    Command::Ack,
    Command::Nack,
    Command::Begin,
    Command::Commit,
    Command::Abort,
    Command::Disconnect,
    Command::Message,
    Command::Receipt,
    Command::Error,
];

/// Octets of a header, rich in those that mean something.
fn header_octets(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        4 => select(b"\n\r:\\ncr\\tx \t".to_vec()),
        3 => b'a'..=b'z',
        1 => 1..=u8::MAX,
    ];
    vec(octet, len)
}

/// Headers with different names, none of them `content-length`.
fn headers() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<u8>)>> {
    vec((header_octets(1..12), header_octets(0..40)), 0..12).prop_map(|mut headers| {
        let mut names = std::collections::HashSet::new();
        headers.retain(|(name, _)| name != b"content-length" && names.insert(name.clone()));
        headers
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'\n'), any::<u8>()], 0..60)
}

fn encode(command: Command, headers: &[(Vec<u8>, Vec<u8>)], body: &[u8], end: FrameEnd) -> Vec<u8> {
    let mut out = Vec::new();
    let mut frame = FrameWriter::begin(&mut out, command);
    for (name, value) in headers {
        assert!(frame.header(name, value));
    }
    frame.finish(body, end);
    out
}

/// What a reader of `version` is to make of a written frame.
fn expected(
    version: Version,
    command: Command,
    headers: &[(Vec<u8>, Vec<u8>)],
    body: &[u8],
) -> Seen {
    let mut headers = headers.to_vec();
    if version == Version::V1_0 {
        for (_, value) in &mut headers {
            let blanks = value.iter().take_while(|&&octet| octet == b' ').count();
            value.drain(..blanks);
        }
    }
    if !body.is_empty() {
        headers.push((b"content-length".to_vec(), body.len().to_string().into_bytes()));
    }
    Seen { command: command.as_str().as_bytes().to_vec(), headers, body: body.to_vec() }
}

/// Cuts `stream` at the given places.
fn cut<'a>(stream: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut chunks = vec![stream];
    for place in places {
        let rest = chunks.pop().unwrap_or_default();
        let (front, back) = rest.split_at(place.index(rest.len() + 1));
        chunks.extend([front, back]);
    }
    chunks
}

/// Octets that look like STOMP more often than chance would have it.
fn stomp_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => select(vec![
            "SEND", "CONNECT", "STOMP", "MESSAGE", "GET /", "\n", "\n\n", "\r\n", "\r", "\0", ":", "\\",
            "\\n", "\\t", "a:b\n", "a:b\r\n", "content-length:", "content-length:3\n", "3", "-1",
            "99999999999", "accept-version:1.2\n", "accept-version: 1.0\n", "hello", "SEND\na:b\n\nhi\0",
            "SEND\ncontent-length:2\n\n\0\0\0",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// Small enough for random input to pass each of them now and then.
fn small_limits() -> impl Strategy<Value = Limits> {
    (0..40_usize, 0..6_usize, 0..40_usize, 0..80_usize, 0..40_usize, 0..160_usize).prop_map(
        |(command, count, header, head, body, frame)| Limits {
            command_len_max: command,
            header_count_max: count,
            header_len_max: header,
            head_len_max: head,
            body_len_max: body,
            frame_len_max: frame,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_written_frame_is_read_back_in_every_version(
        command in select(AFTER_OPENING.to_vec()),
        headers in headers(),
        body in body(),
        end in select(vec![FrameEnd::NulLf, FrameEnd::Nul]),
        places in vec(any::<Index>(), 0..4),
    ) {
        let stream = encode(command, &headers, &body, end);
        for version in VERSIONS {
            let outcome = feed(Limits::after_login(1000), version, cut(&stream, &places));
            let expected = expected(version, command, &headers, &body);
            prop_assert_eq!(outcome.error, None);
            prop_assert_eq!(outcome.frames, vec![expected]);
            prop_assert_eq!(outcome.noise_len, end.octets().len() - 1);
            prop_assert_eq!(outcome.left_len, 0);
        }
    }

    /// A message's way through a broker: written by a client of one version, read, written again, read by
    /// a client of another.
    #[test]
    fn headers_survive_the_way_between_any_two_versions(headers in headers(), body in body()) {
        let limits = Limits::from_server(1000);
        let sent = encode(Command::Send, &headers, &body, FrameEnd::Nul);
        for from in VERSIONS {
            let received = feed(limits, from, [sent.as_slice()]).frames.remove(0);
            let mut user_headers = received.headers;
            user_headers.retain(|(name, _)| name != b"content-length");
            let passed_on = encode(Command::Message, &user_headers, &received.body, FrameEnd::NulLf);
            for to in VERSIONS {
                let delivered = feed(limits, to, [passed_on.as_slice()]).frames;
                let expected = expected(from.min(to), Command::Message, &headers, &body);
                prop_assert_eq!(&delivered, &vec![expected]);
            }
        }
    }

    #[test]
    fn frames_that_open_a_session_are_read_back_unless_they_hold_a_backslash(
        command in select(vec![Command::Connect, Command::Stomp, Command::Connected]),
        mut headers in headers(),
    ) {
        headers.retain(|(name, value)| !name.contains(&b'\\') && !value.contains(&b'\\'));
        let stream = encode(command, &headers, b"", FrameEnd::NulLf);
        for version in VERSIONS {
            let outcome = feed(Limits::before_login(), version, [stream.as_slice()]);
            // No version is named, so the frame is of 1.0.
            let expected = expected(Version::V1_0, command, &headers, b"");
            prop_assert_eq!(outcome.frames, vec![expected]);
        }
    }

    #[test]
    fn what_is_read_does_not_depend_on_the_cuts(
        stream in stomp_like(),
        limits in prop_oneof![Just(Limits::after_login(1000)), small_limits()],
        version in select(VERSIONS.to_vec()),
        places in vec(any::<Index>(), 0..6),
    ) {
        let whole = feed(limits, version, [stream.as_slice()]);
        prop_assert_eq!(&feed(limits, version, cut(&stream, &places)), &whole);
        prop_assert_eq!(&feed(limits, version, stream.chunks(1)), &whole);
    }

    #[test]
    fn arbitrary_octets_never_panic_and_never_wait_beyond_the_limits(
        stream in prop_oneof![vec(any::<u8>(), 0..300), stomp_like()],
        limits in small_limits(),
        version in select(VERSIONS.to_vec()),
    ) {
        let outcome = feed(limits, version, [stream.as_slice()]);
        if outcome.error.is_none() {
            // One more for the half of a line end that stands at the very end.
            prop_assert!(outcome.left_len <= limits.frame_len_max + 1, "{outcome:?}");
        }
        for frame in &outcome.frames {
            prop_assert!(frame.command.len() <= limits.command_len_max);
            prop_assert!(frame.headers.len() <= limits.header_count_max);
            prop_assert!(frame.body.len() <= limits.body_len_max);
            for (name, value) in &frame.headers {
                prop_assert!(!name.is_empty());
                prop_assert!(name.len() + value.len() < limits.header_len_max);
            }
        }
    }

    /// The contract says that the input's front stays; a caller that breaks it gets nonsense, no panic.
    #[test]
    fn inputs_that_have_nothing_to_do_with_each_other_never_panic(
        inputs in vec(stomp_like(), 1..6),
        limits in small_limits(),
    ) {
        let mut decoder = Decoder::new(limits);
        let mut scratch = HeaderBlock::new();
        for input in &inputs {
            if let Ok(Decoded::Frame { frame, wire_len }) = decoder.decode(input, &mut scratch) {
                prop_assert!(wire_len <= input.len());
                prop_assert!(frame.body.len() < wire_len);
            }
        }
    }
}
