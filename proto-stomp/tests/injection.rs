//! Nothing that is written as a header can be read as another header or another frame, by a reader that
//! was written with no knowledge of ours: it looks for the first NUL and the first blank line, splits by
//! lines and un-escapes nothing, as old clients do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proto_stomp::{Command, FrameEnd, FrameWriter};

/// What a client might wish to be taken for something else.
const PIECES: [&[u8]; 30] = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\0",
    b":",
    b"\\",
    b"\\n",
    b"\\r",
    b"\\c",
    b"\\\\",
    b"\\0",
    b"\xff\xfe",
    b"\xc3",
    b"\xe2\x82",
    b"message-id",
    b"subscription",
    b"ack",
    b"redelivered",
    b"user-id",
    b"x-death",
    b"CC",
    b"BCC",
    b"x-delivery-count",
    b"\nredelivered:true",
    b"\n\nbody",
    b"\0MESSAGE\na:b\n\n\0",
    b" ",
    b"\t",
    b"destination",
];

fn hostile() -> impl Strategy<Value = Vec<u8>> {
    vec(select(PIECES.to_vec()), 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn no_header_can_pass_for_another_header_or_frame(
        name in hostile(),
        value in hostile(),
        command in select(vec![Command::Message, Command::Error, Command::Connected]),
    ) {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, command);
        frame.header(b"destination", b"/queue/a");
        let written = frame.header(&name, &value);
        frame.header(b"redelivered", b"false");
        frame.finish(b"", FrameEnd::NulLf);

        let expressible = !name.is_empty() && !name.contains(&0) && !value.contains(&0);
        prop_assert_eq!(written, expressible);

        // One NUL and one blank line, both at the end; no CR anywhere.
        prop_assert_eq!(out.iter().position(|&octet| octet == 0), Some(out.len() - 2));
        prop_assert!(!out.contains(&b'\r'));
        let head = out.strip_suffix(b"\n\n\0\n").unwrap();
        let lines: Vec<_> = head.split(|&octet| octet == b'\n').collect();
        prop_assert_eq!(lines.len(), 3 + usize::from(written));
        prop_assert_eq!(lines[0], command.as_str().as_bytes());
        prop_assert_eq!(lines[1], b"destination:/queue/a");
        prop_assert_eq!(lines[lines.len() - 1], b"redelivered:false");

        // A name that such a reader sees is the header's own, or one that has an escape in it.
        if written {
            let colon = lines[2].iter().position(|&octet| octet == b':').unwrap();
            let seen = &lines[2][..colon];
            prop_assert!(seen == name || seen.contains(&b'\\'));
        }
    }
}
