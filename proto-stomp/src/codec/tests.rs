//! What the decoder accepts, refuses and remembers. Shapes in pieces are in `tests/split.rs`, random
//! ones in `tests/roundtrip.rs`.

use super::*;
use crate::frame::{Command, ParsedCommand};

/// A frame with names and values as text, for comparison.
#[derive(Debug, PartialEq, Eq)]
struct Plain {
    command: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    wire_len: usize,
}

fn plain(frame: &Frame<'_>, wire_len: usize) -> Plain {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    Plain {
        command: match frame.command {
            ParsedCommand::Known(command) => command.to_string(),
            ParsedCommand::Unknown(word) => format!("?{}", text(word)),
        },
        headers: frame.headers.iter().map(|(name, value)| (text(name), text(value))).collect(),
        body: frame.body.to_vec(),
        wire_len,
    }
}

const LIMITS: Limits = Limits::after_login(1000);

/// The first frame in `input` under `version`, `None` while it is incomplete.
fn first(version: Version, input: &[u8]) -> Result<Option<Plain>, FrameError> {
    first_within(LIMITS, version, input)
}

fn first_within(
    limits: Limits,
    version: Version,
    mut input: &[u8],
) -> Result<Option<Plain>, FrameError> {
    let mut decoder = Decoder::new(limits);
    decoder.set_version(version);
    let mut scratch = HeaderBlock::new();
    loop {
        match decoder.decode(input, &mut scratch)? {
            Decoded::Incomplete => return Ok(None),
            Decoded::Noise { wire_len } => input = &input[wire_len..],
            Decoded::Frame { frame, wire_len } => return Ok(Some(plain(&frame, wire_len))),
        }
    }
}

fn headers_of(version: Version, input: &[u8]) -> Vec<(String, String)> {
    first(version, input).unwrap().unwrap().headers
}

fn error_of(version: Version, input: &[u8]) -> FrameError {
    first(version, input).unwrap_err()
}

fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

const VERSIONS: [Version; 3] = [Version::V1_0, Version::V1_1, Version::V1_2];

#[test]
fn a_send_is_command_headers_and_body() {
    let input = b"SEND\ndestination:/queue/a\nfoo:bar\n\nhello\n\0";
    for version in VERSIONS {
        let frame = first(version, input).unwrap().unwrap();
        assert_eq!(frame.command, "SEND");
        assert_eq!(frame.headers, pairs(&[("destination", "/queue/a"), ("foo", "bar")]));
        assert_eq!(frame.body, b"hello\n");
        assert_eq!(frame.wire_len, input.len());
    }
}

#[test]
fn a_frame_may_have_no_headers() {
    assert_eq!(headers_of(Version::V1_0, b"CONNECT\n\n\0"), []);
}

#[test]
fn cr_lf_ends_lines_in_every_version_and_is_kept_in_the_body() {
    for version in VERSIONS {
        let frame = first(version, b"SEND\r\na:b\r\nc:d\n\r\nx\r\ny\0").unwrap().unwrap();
        assert_eq!(frame.headers, pairs(&[("a", "b"), ("c", "d")]));
        assert_eq!(frame.body, b"x\r\ny");
    }
}

#[test]
fn a_lone_cr_is_refused_in_the_head_and_between_frames() {
    for (input, line) in [
        (b"SEND\rX\n\n\0".as_slice(), 1),
        (b"SEND\na:b\rc\n\n\0", 2),
        (b"SEND\na:b\r\r\n\n\0", 2),
        (b"SEND\na:b\n\r\0", 3),
        (b"\r\rSEND\n\n\0", 1),
        (b"\n\rSEND\n\n\0", 1),
    ] {
        for version in VERSIONS {
            let expected = FrameError::LoneCarriageReturn { line };
            assert_eq!(error_of(version, input), expected, "{}", input.escape_ascii());
        }
    }
}

#[test]
fn line_ends_and_nuls_between_frames_are_noise() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    let noise = b"\r\n\0\n\n\r\n\0";
    let input = [noise.as_slice(), b"SEND\na:b\n\n\0"].concat();
    let decoded = decoder.decode(&input, &mut scratch).unwrap();
    assert!(matches!(decoded, Decoded::Noise { wire_len } if wire_len == noise.len()));
    let decoded = decoder.decode(&input[noise.len()..], &mut scratch).unwrap();
    assert!(matches!(decoded, Decoded::Frame { wire_len: 11, .. }));
}

#[test]
fn half_a_line_end_between_frames_waits_for_the_other_half() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    let decoded = decoder.decode(b"\n\r", &mut scratch).unwrap();
    assert!(matches!(decoded, Decoded::Noise { wire_len: 1 }));
    assert!(matches!(decoder.decode(b"\r", &mut scratch), Ok(Decoded::Incomplete)));
    let decoded = decoder.decode(b"\r\n", &mut scratch).unwrap();
    assert!(matches!(decoded, Decoded::Noise { wire_len: 2 }));
    assert!(matches!(decoder.decode(b"", &mut scratch), Ok(Decoded::Incomplete)));
}

#[test]
fn the_first_colon_separates_name_and_value() {
    for version in VERSIONS {
        let headers = headers_of(version, b"SEND\nurl:http://a:1/\nempty:\n\n\0");
        assert_eq!(headers, pairs(&[("url", "http://a:1/"), ("empty", "")]));
    }
}

#[test]
fn a_line_without_colon_or_without_name_is_refused() {
    for version in VERSIONS {
        for input in [b"SEND\na:b\nno colon\n\n\0".as_slice(), b"SEND\na:b\n:value\n\n\0"] {
            assert_eq!(error_of(version, input), FrameError::NotAHeader { line: 3 });
        }
    }
}

#[test]
fn blanks_before_a_value_are_dropped_in_1_0_only_and_others_never() {
    let input = b"SEND\n a : b c  \n\n\0";
    assert_eq!(headers_of(Version::V1_0, input), pairs(&[(" a ", "b c  ")]));
    assert_eq!(headers_of(Version::V1_1, input), pairs(&[(" a ", " b c  ")]));
    assert_eq!(headers_of(Version::V1_2, input), pairs(&[(" a ", " b c  ")]));
    assert_eq!(headers_of(Version::V1_0, b"SEND\na:   \n\n\0"), pairs(&[("a", "")]));
}

#[test]
fn the_opening_frame_follows_the_version_it_asks_for() {
    let rows: [(&[u8], &str); 5] = [
        (b"CONNECT\nlogin: guest\n\n\0", "guest"),
        (b"CONNECT\naccept-version:1.0\nlogin: guest\n\n\0", "guest"),
        (b"CONNECT\naccept-version:1.0,1.2\nlogin: guest\n\n\0", " guest"),
        (b"STOMP\naccept-version:1.1\nlogin: guest\n\n\0", " guest"),
        (b"CONNECTED\nversion:1.2\nlogin: guest\n\n\0", " guest"),
    ];
    for (input, login) in rows {
        for version in VERSIONS {
            let headers = headers_of(version, input);
            assert_eq!(headers.last().unwrap().1, login, "{}", input.escape_ascii());
        }
    }
}

#[test]
fn accept_version_is_the_same_to_the_session_as_to_the_decoder() {
    // 1.0 by exact tokens; without the blank it would be 1.2.
    let headers = headers_of(Version::V1_0, b"CONNECT\naccept-version: 1.2,1.0\n\n\0");
    assert_eq!(headers, pairs(&[("accept-version", " 1.2,1.0")]));
}

#[test]
fn of_a_repeated_header_the_first_wins_and_names_are_case_sensitive() {
    let input = b"SEND\nfoo:1\nfoo:2\nFOO:3\nf\\\\oo:4\nfoo:5\n\n\0";
    let expected = pairs(&[("foo", "1"), ("FOO", "3"), ("f\\oo", "4")]);
    assert_eq!(headers_of(Version::V1_2, input), expected);

    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    let decoded = decoder.decode(input, &mut scratch).unwrap();
    let Decoded::Frame { frame, .. } = decoded else { panic!("{decoded:?}") };
    assert_eq!(frame.headers.get("foo"), Some(b"1".as_slice()));
    assert_eq!(frame.headers.get("Foo"), None);
    assert_eq!(frame.headers.len(), 3);
    assert!(!frame.headers.is_empty());
}

#[test]
fn a_name_repeated_in_another_spelling_is_repeated() {
    let headers = headers_of(Version::V1_1, b"SEND\na\\cb:1\na\\cb:2\n\n\0");
    assert_eq!(headers, pairs(&[("a:b", "1")]));
}

#[test]
fn the_four_escapes_are_decoded_in_names_and_values_of_every_version() {
    for version in VERSIONS {
        let headers = headers_of(version, b"SEND\nh\\c:a\\cb\\n\\\\\\r\nplain:x\n\n\0");
        assert_eq!(headers, pairs(&[("h:", "a:b\n\\\r"), ("plain", "x")]));
    }
}

#[test]
fn an_undefined_escape_is_literal_in_1_0_and_refused_later() {
    for value in ["\\t", "a\\", "\\C"] {
        let input = format!("SEND\na:b\nh:{value}\n\n\0");
        assert_eq!(headers_of(Version::V1_0, input.as_bytes())[1].1, value);
        for version in [Version::V1_1, Version::V1_2] {
            let expected = FrameError::UndefinedEscape { line: 3 };
            assert_eq!(error_of(version, input.as_bytes()), expected);
        }
    }
}

#[test]
fn opening_frames_take_undefined_escapes_literally_in_every_version() {
    for command in ["CONNECT", "STOMP", "CONNECTED"] {
        let input = format!("{command}\naccept-version:1.2\npasscode:a\\b\\cd\n\n\0");
        for version in VERSIONS {
            assert_eq!(headers_of(version, input.as_bytes())[1].1, "a\\b:d");
        }
    }
}

#[test]
fn content_length_is_honoured_on_every_frame() {
    for command in [Command::Send, Command::Subscribe, Command::Disconnect, Command::Message] {
        let input = format!("{command}\ncontent-length:3\n\na\0b\0next");
        let frame = first(Version::V1_0, input.as_bytes()).unwrap().unwrap();
        assert_eq!(frame.body, b"a\0b", "{command}");
        assert_eq!(frame.wire_len, input.len() - 4);
    }
}

#[test]
fn content_length_may_have_blanks_around_it() {
    let frame = first(Version::V1_2, b"SEND\ncontent-length:  3 \n\na\0b\0").unwrap().unwrap();
    assert_eq!(frame.body, b"a\0b");
}

#[test]
fn of_two_content_lengths_the_first_counts_even_if_the_second_is_none() {
    let input = b"SEND\ncontent-length:1\ncontent-length:-1\n\na\0";
    assert_eq!(first(Version::V1_2, input).unwrap().unwrap().body, b"a");
    let input = b"SEND\ncontent-length:x\ncontent-length:1\n\na\0";
    assert_eq!(error_of(Version::V1_2, input), FrameError::InvalidContentLength);
}

#[test]
fn a_content_length_that_is_no_number_of_octets_is_refused() {
    for value in ["-1", "1e3", "", " ", "18446744073709551616", "00000000000", "0x1", "3,3", "+3"] {
        let input = format!("SEND\ncontent-length:{value}\n\nabc\0");
        for version in VERSIONS {
            let error = error_of(version, input.as_bytes());
            assert_eq!(error, FrameError::InvalidContentLength, "{value:?}");
        }
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_before_the_body_arrives() {
    for length in ["1001", "9999999999"] {
        let input = format!("SEND\ncontent-length:{length}\n\n");
        let error = error_of(Version::V1_2, input.as_bytes());
        assert_eq!(error, FrameError::BodyTooLong { max: 1000 });
    }
    assert_eq!(first(Version::V1_2, b"SEND\ncontent-length:1000\n\n"), Ok(None));
}

#[test]
fn a_counted_body_must_be_followed_by_nul() {
    for body in ["abc", "abcd\0"] {
        let input = format!("SEND\ncontent-length:2\n\n{body}");
        let expected = FrameError::MissingTerminator { content_length: 2 };
        assert_eq!(error_of(Version::V1_2, input.as_bytes()), expected);
    }
}

#[test]
fn a_counted_body_of_nothing_is_a_frame() {
    let frame = first(Version::V1_2, b"SEND\ncontent-length:0\n\n\0").unwrap().unwrap();
    assert_eq!(frame.body, b"");
}

#[test]
fn a_nul_in_the_head_is_refused_at_once() {
    for (input, line) in [
        (b"SEND\0".as_slice(), 1),
        (b"DISCONNECT\n\0", 2),
        (b"SEND\na:b\0c\n", 2),
        (b"SEND\na:b\n\r\0", 3),
    ] {
        let expected = match input {
            [.., b'\r', 0] => FrameError::LoneCarriageReturn { line },
            _ => FrameError::NulInHead { line },
        };
        assert_eq!(error_of(Version::V1_2, input), expected);
    }
}

#[test]
fn an_unknown_command_is_a_frame_for_the_session_to_refuse() {
    let frame = first(Version::V1_2, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\0").unwrap().unwrap();
    assert_eq!(frame.command, "?GET / HTTP/1.1");
}

#[test]
fn a_line_that_reaches_its_limit_is_accepted_and_one_octet_more_is_not() {
    let command = |len: usize| [&vec![b'X'; len][..], b"\n\n\0"].concat();
    assert!(first(Version::V1_2, &command(32)).unwrap().is_some());
    let expected = FrameError::CommandTooLong { max: 32 };
    assert_eq!(error_of(Version::V1_2, &command(33)), expected);
    // Without the line's end as well.
    assert_eq!(error_of(Version::V1_2, &[b'X'; 33]), expected);
    assert_eq!(first(Version::V1_2, &[b'X'; 32]), Ok(None));

    let header = |len: usize| [b"SEND\na:", &vec![b'x'; len - 2][..], b"\r\n\n\0"].concat();
    assert!(first(Version::V1_2, &header(8192)).unwrap().is_some());
    let expected = FrameError::HeaderTooLong { line: 2, max: 8192 };
    assert_eq!(error_of(Version::V1_2, &header(8193)), expected);
}

#[test]
fn one_hundred_headers_are_accepted_and_one_more_is_not() {
    let frame = |count: usize| [b"SEND\n".as_slice(), &b"a:b\n".repeat(count), b"\n\0"].concat();
    assert!(first(Version::V1_2, &frame(100)).unwrap().is_some());
    let expected = FrameError::TooManyHeaders { max: 100 };
    assert_eq!(error_of(Version::V1_2, &frame(101)), expected);
    assert_eq!(error_of(Version::V1_2, &frame(1_000_000)), expected);
}

#[test]
fn the_head_as_a_whole_is_bounded() {
    // The command's line takes 5 octets, each of seven headers 8,192 with its end.
    let seven = [b"a:".as_slice(), &[b'x'; 8189], b"\n"].concat().repeat(7);
    let frame = |last: usize| {
        [b"SEND\n".as_slice(), &seven, b"b:", &vec![b'y'; last - 3], b"\n\n\0"].concat()
    };
    let left = 65_536 - 5 - seven.len();
    assert!(first(Version::V1_2, &frame(left)).unwrap().is_some());
    let expected = FrameError::HeadTooLong { max: 65_536 };
    assert_eq!(error_of(Version::V1_2, &frame(left + 1)), expected);
}

#[test]
fn an_endless_header_is_refused_as_soon_as_it_is_too_long() {
    let mut input = b"SEND\na:".to_vec();
    let mut decoder = Decoder::new(Limits::before_login());
    let mut scratch = HeaderBlock::new();
    let error = loop {
        input.push(b'x');
        match decoder.decode(&input, &mut scratch) {
            Ok(Decoded::Incomplete) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, FrameError::HeaderTooLong { line: 2, max: 8192 });
    assert_eq!(input.len(), b"SEND\n".len() + 8193);
}

#[test]
fn a_body_without_nul_is_refused_one_octet_above_the_limit() {
    let body = |len: usize| [b"SEND\n\n".as_slice(), &vec![b'x'; len]].concat();
    let ended = |len: usize| [body(len).as_slice(), b"\0"].concat();
    assert_eq!(first(Version::V1_2, &body(1000)), Ok(None));
    assert!(first(Version::V1_2, &ended(1000)).unwrap().is_some());
    let expected = FrameError::BodyTooLong { max: 1000 };
    assert_eq!(error_of(Version::V1_2, &body(1001)), expected);
    assert_eq!(error_of(Version::V1_2, &ended(1001)), expected);
}

#[test]
fn before_login_the_whole_frame_is_bounded() {
    let limits = Limits::before_login();
    let expected = Err(FrameError::FrameTooLong { max: 65_536 });
    let counted = |body: usize| {
        let head = format!("CONNECT\ncontent-length:{body}\n\n");
        [head.as_bytes(), &vec![b'x'; body], b"\0"].concat()
    };
    let room = 65_536 - counted(10_000).len() + 10_000;
    let frame = first_within(limits, Version::V1_0, &counted(room)).unwrap().unwrap();
    assert_eq!(frame.wire_len, 65_536);
    assert_eq!(first_within(limits, Version::V1_0, &counted(room + 1)), expected);

    let uncounted = |len: usize| [b"CONNECT\n\n".as_slice(), &vec![b'x'; len - 10], b"\0"].concat();
    let frame = first_within(limits, Version::V1_0, &uncounted(65_536)).unwrap().unwrap();
    assert_eq!(frame.wire_len, 65_536);
    assert_eq!(first_within(limits, Version::V1_0, &uncounted(65_537)), expected);
}

#[test]
fn limits_that_leave_no_room_refuse_and_do_not_overflow() {
    let nothing = Limits {
        command_len_max: 0,
        header_count_max: 0,
        header_len_max: 0,
        head_len_max: 0,
        body_len_max: 0,
        frame_len_max: 0,
    };
    assert!(first_within(nothing, Version::V1_2, b"SEND\n\n\0").is_err());
    let short = Limits { frame_len_max: 6, ..LIMITS };
    let expected = Err(FrameError::FrameTooLong { max: 6 });
    assert_eq!(first_within(short, Version::V1_2, b"SEND\n\n\0"), expected);
    assert_eq!(first_within(short, Version::V1_2, b"SEND\na:b\n\n\0"), expected);
    let everything = Limits {
        command_len_max: usize::MAX,
        header_count_max: usize::MAX,
        header_len_max: usize::MAX,
        head_len_max: usize::MAX,
        body_len_max: usize::MAX,
        frame_len_max: usize::MAX,
    };
    let input = b"SEND\na:b\n\nbody\0";
    assert!(first_within(everything, Version::V1_2, input).unwrap().is_some());
    let input = b"SEND\ncontent-length:9999999999\n\nbody\0";
    assert_eq!(first_within(everything, Version::V1_2, input), Ok(None));
}

#[test]
fn an_error_stays_the_same_error() {
    for input in [b"SEND\nx\n\n\0".as_slice(), b"SEND\ncontent-length:1\n\nab", b"SEND\0", b"\rx"] {
        let mut decoder = Decoder::new(LIMITS);
        let mut scratch = HeaderBlock::new();
        let once = decoder.decode(input, &mut scratch).unwrap_err();
        assert_eq!(decoder.decode(input, &mut scratch).unwrap_err(), once);
    }
}

#[test]
fn an_input_that_shrinks_against_the_contract_is_incomplete() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    for (long, short) in
        [(b"SEND\na:b\nc".as_slice(), b"SE".as_slice()), (b"SEND\na:b\n\nbody", b"SEND")]
    {
        assert!(matches!(decoder.decode(long, &mut scratch), Ok(Decoded::Incomplete)));
        assert!(matches!(decoder.decode(short, &mut scratch), Ok(Decoded::Incomplete)));
    }
}

#[test]
fn a_slow_body_is_searched_once() {
    let mut input = b"SEND\na:b\n\n".to_vec();
    let head_len = input.len();
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    for _ in 0..500 {
        input.push(b'x');
        assert!(matches!(decoder.decode(&input, &mut scratch), Ok(Decoded::Incomplete)));
        let Progress::Body { search: BodySearch::UpToNul { searched }, .. } = decoder.progress
        else {
            panic!("{:?}", decoder.progress)
        };
        assert_eq!(searched, input.len());
    }
    input.push(0);
    let decoded = decoder.decode(&input, &mut scratch).unwrap();
    let Decoded::Frame { frame, .. } = decoded else { panic!("{decoded:?}") };
    assert_eq!(frame.body.len(), input.len() - head_len - 1);
    assert_eq!(frame.headers.get("a"), Some(b"b".as_slice()));
}

#[test]
fn a_version_set_between_frames_holds_for_the_next() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    let input = b"SEND\na:\\t\n\n\0";
    assert!(matches!(decoder.decode(input, &mut scratch), Ok(Decoded::Frame { .. })));
    decoder.set_version(Version::V1_2);
    assert!(decoder.decode(input, &mut scratch).is_err());
}

#[test]
fn limits_set_between_frames_hold_for_the_next() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    let input = b"SEND\n\nhello\0";
    assert!(matches!(decoder.decode(input, &mut scratch), Ok(Decoded::Frame { .. })));
    decoder.set_limits(Limits::after_login(4));
    assert!(decoder.decode(input, &mut scratch).is_err());
}

#[test]
fn scratch_keeps_nothing_of_an_earlier_frame() {
    let mut decoder = Decoder::new(LIMITS);
    let mut scratch = HeaderBlock::new();
    for (input, expected) in
        [(b"SEND\na:\\\\\nb:1\n\n\0".as_slice(), 2), (b"SEND\nc:\\c\n\n\0", 1), (b"SEND\n\n\0", 0)]
    {
        let decoded = decoder.decode(input, &mut scratch).unwrap();
        let Decoded::Frame { frame, .. } = decoded else { panic!("{decoded:?}") };
        assert_eq!(frame.headers.iter().len(), expected);
    }
}
