//! A stream of octets means the same however it is cut: every frame of a corpus, good and bad, cut at
//! every octet, at every pair of octets, and into single octets.

mod feed;

use feed::{Outcome, Seen, feed};
use proto_stomp::{FrameError, Limits, Version};

const LIMITS: Limits = Limits::after_login(1000);

/// Decodes `stream` in one piece and in every other way, and returns the one outcome.
fn however_cut(limits: Limits, version: Version, stream: &[u8]) -> Outcome {
    let whole = feed(limits, version, [stream]);
    let shown = stream.escape_ascii();
    assert_eq!(feed(limits, version, stream.chunks(1)), whole, "octet by octet: {shown}");
    for first in 0..=stream.len() {
        let (front, back) = stream.split_at(first);
        assert_eq!(feed(limits, version, [front, back]), whole, "cut at {first}: {shown}");
        // Pairs of cuts for what is short; the corpus has both.
        if stream.len() <= 120 {
            for second in 0..=back.len() {
                let (middle, end) = back.split_at(second);
                assert_eq!(
                    feed(limits, version, [front, middle, end]),
                    whole,
                    "cut at {first} and {}: {shown}",
                    first + second
                );
            }
        }
    }
    whole
}

fn seen(command: &str, headers: &[(&str, &str)], body: &[u8]) -> Seen {
    Seen {
        command: command.as_bytes().to_vec(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect(),
        body: body.to_vec(),
    }
}

#[test]
fn good_streams_give_the_same_frames_however_they_are_cut() {
    let rows: Vec<(Version, &[u8], Vec<Seen>, usize)> = vec![
        (Version::V1_0, b"", vec![], 0),
        (Version::V1_0, b"\n\r\n\0\n\n", vec![], 6),
        (Version::V1_0, b"CONNECT\n\n\0", vec![seen("CONNECT", &[], b"")], 0),
        (
            Version::V1_0,
            b"CONNECT\nlogin: guest\npasscode:a\\b\n\n\0\nSEND\ndestination: x\n\nhi\0",
            vec![
                seen("CONNECT", &[("login", "guest"), ("passcode", "a\\b")], b""),
                seen("SEND", &[("destination", "x")], b"hi"),
            ],
            1,
        ),
        (
            Version::V1_0,
            b"SUBSCRIBE\ndestination:bare1\nreceipt:r\n\n\0\
              SEND\ndestination:bare1\nfoo:bar\npriority:4\npersistent:true\nreceipt:q\n\nhello\0",
            vec![
                seen("SUBSCRIBE", &[("destination", "bare1"), ("receipt", "r")], b""),
                seen(
                    "SEND",
                    &[
                        ("destination", "bare1"),
                        ("foo", "bar"),
                        ("priority", "4"),
                        ("persistent", "true"),
                        ("receipt", "q"),
                    ],
                    b"hello",
                ),
            ],
            0,
        ),
        (
            Version::V1_2,
            b"SUBSCRIBE\nid:0\nack:client\ndestination:/queue/q12\n\n\0\
              SEND\ndestination:/queue/q12\nreply-to:foo\nexpiration:10000\ntimestamp:123\n\n\0",
            vec![
                seen(
                    "SUBSCRIBE",
                    &[("id", "0"), ("ack", "client"), ("destination", "/queue/q12")],
                    b"",
                ),
                seen(
                    "SEND",
                    &[
                        ("destination", "/queue/q12"),
                        ("reply-to", "foo"),
                        ("expiration", "10000"),
                        ("timestamp", "123"),
                    ],
                    b"",
                ),
            ],
            0,
        ),
        (
            Version::V1_2,
            b"SEND\ncontent-length:3\n\na\0b\0",
            vec![seen("SEND", &[("content-length", "3")], b"a\0b")],
            0,
        ),
        (
            Version::V1_2,
            b"SEND\nh:a\\cb\\n\\\\\n\n\0",
            vec![seen("SEND", &[("h", "a:b\n\\")], b"")],
            0,
        ),
        (
            Version::V1_1,
            b"BEGIN\ntransaction:t\n\n\0SEND\ntransaction:t\n\n\0COMMIT\ntransaction:t\n\n\0",
            vec![
                seen("BEGIN", &[("transaction", "t")], b""),
                seen("SEND", &[("transaction", "t")], b""),
                seen("COMMIT", &[("transaction", "t")], b""),
            ],
            0,
        ),
        (
            Version::V1_2,
            b"DISCONNECT\r\nreceipt:77\r\n\r\n\0\r\n\0\n\nSEND\r\na:b\r\n\r\n\r\n\0",
            vec![
                seen("DISCONNECT", &[("receipt", "77")], b""),
                seen("SEND", &[("a", "b")], b"\r\n"),
            ],
            5,
        ),
        (
            Version::V1_2,
            b"SEND\nfoo:1\nfoo:2\nFOO:3\n\n\0",
            vec![seen("SEND", &[("foo", "1"), ("FOO", "3")], b"")],
            0,
        ),
        (
            Version::V1_2,
            b"HELLO world\na: b\n\n\0",
            vec![seen("HELLO world", &[("a", " b")], b"")],
            0,
        ),
    ];
    for (version, stream, frames, noise_len) in rows {
        let expected = Outcome { frames, noise_len, left_len: 0, error: None };
        assert_eq!(however_cut(LIMITS, version, stream), expected, "{}", stream.escape_ascii());
    }
}

#[test]
fn an_unfinished_stream_keeps_exactly_the_unfinished_frame() {
    for left in ["S", "SEND", "SEND\n", "SEND\na:b\r", "SEND\na:b\n\nbody", "\r"] {
        let stream = format!("SEND\n\nx\0\n{left}");
        let outcome = however_cut(LIMITS, Version::V1_2, stream.as_bytes());
        assert_eq!(outcome.frames.len(), 1);
        assert_eq!(outcome.left_len, left.len(), "{left:?}");
        assert_eq!(outcome.error, None);
    }
}

#[test]
fn bad_streams_give_the_same_error_however_they_are_cut() {
    let small = Limits {
        command_len_max: 10,
        header_count_max: 3,
        header_len_max: 12,
        head_len_max: 34,
        body_len_max: 20,
        frame_len_max: 48,
    };
    let rows: [(&str, FrameError); 24] = [
        ("\rx", FrameError::LoneCarriageReturn { line: 1 }),
        ("\n\n\r\r\n", FrameError::LoneCarriageReturn { line: 1 }),
        ("SEND\rx", FrameError::LoneCarriageReturn { line: 1 }),
        ("SEND\na:\rb\n\n\0", FrameError::LoneCarriageReturn { line: 2 }),
        ("SEND\na:b\n\r\0", FrameError::LoneCarriageReturn { line: 3 }),
        ("SEND\0", FrameError::NulInHead { line: 1 }),
        ("SEND\na:\0", FrameError::NulInHead { line: 2 }),
        ("SEND\n\0", FrameError::NulInHead { line: 2 }),
        ("SEND\nab\n\n\0", FrameError::NotAHeader { line: 2 }),
        ("SEND\na:b\n:b\n\n\0", FrameError::NotAHeader { line: 3 }),
        ("SEND\na:\\t\n\n\0", FrameError::UndefinedEscape { line: 2 }),
        ("SEND\na\\:b\n\n\0", FrameError::UndefinedEscape { line: 2 }),
        ("SENDSENDSEND\n\n\0", FrameError::CommandTooLong { max: 10 }),
        ("SEND\na:bbbbbbbbbbb\n\n\0", FrameError::HeaderTooLong { line: 2, max: 12 }),
        ("SEND\na:b\nc:d\ne:f\ng:h\n\n\0", FrameError::TooManyHeaders { max: 3 }),
        ("SEND\na:bbbbbbbbbb\nc:bbbbbbbbbb\ne:ff\n\n\0", FrameError::HeadTooLong { max: 34 }),
        // The line's limit and the head's are passed by the same octets: the first to be passed counts.
        ("SEND\na:bbbbbbbbbb\nc:bbbbbbbbbb\ne:ffffffffffff", FrameError::HeadTooLong { max: 34 }),
        ("SEND\n\nbbbbbbbbbbbbbbbbbbbbb\0", FrameError::BodyTooLong { max: 20 }),
        (
            "SEND\na:bbbbbbbbbb\nc:bbbbbb\n\nbbbbbbbbbbbbbbbbbbbb",
            FrameError::FrameTooLong { max: 48 },
        ),
        (
            "SEND\nabcd:efgh\n\nhello\0SEND\ncontent-length:21\n\n",
            FrameError::HeaderTooLong { line: 2, max: 12 },
        ),
        ("SEND\na:\\n\na:\\\n\n\0", FrameError::UndefinedEscape { line: 3 }),
        ("A\n\n\0B\n\n\0C\n\n\0\r\rD\n\n\0", FrameError::LoneCarriageReturn { line: 1 }),
        ("A\nb\nc:\rd", FrameError::LoneCarriageReturn { line: 3 }),
        ("A\na:1\na:2\na:3\na:4\n", FrameError::TooManyHeaders { max: 3 }),
    ];
    for (stream, expected) in rows {
        let outcome = however_cut(small, Version::V1_2, stream.as_bytes());
        assert_eq!(outcome.error, Some(expected), "{stream:?}");
    }
    let counted: [(&str, FrameError); 6] = [
        ("content-length:-1", FrameError::InvalidContentLength),
        ("content-length:18446744073709551616", FrameError::InvalidContentLength),
        ("content-length:1e3", FrameError::InvalidContentLength),
        ("content-length:1001", FrameError::BodyTooLong { max: 1000 }),
        ("content-length:2", FrameError::MissingTerminator { content_length: 2 }),
        ("content-length:2\ncontent-length:3", FrameError::MissingTerminator { content_length: 2 }),
    ];
    for (header, expected) in counted {
        let stream = format!("SEND\n{header}\n\nabc\0");
        let outcome = however_cut(LIMITS, Version::V1_2, stream.as_bytes());
        assert_eq!(outcome.error, Some(expected), "{stream:?}");
    }
}
