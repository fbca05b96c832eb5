//! Frames: the same however the octets are cut, and the same when written again.
//!
//! ```text
//!  input   frame-max: one octet, an index | cuts: eight octets | a stream of frames
//! ```

use bytes::BytesMut;
use proto_amqp::{
    CodecError, FRAME_END, FRAME_OVERHEAD, Frame, FrameCodec, FrameError, FrameKind, OwnedFrame,
    frame::{self, FRAME_HEADER_LEN},
};
use tokio_util::codec::{Decoder, Encoder};

use crate::script::{Script, cut};

/// The maxima tried: none, the least, RabbitMQ's, and one that short inputs pass.
const FRAME_MAXIMA: [u32; 4] = [0, 4096, 131_072, 16];

/// Fuzzes [`frame::parse`] and [`FrameCodec`].
///
/// # Panics
/// When one of them breaks its promises.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let frame_max = FRAME_MAXIMA[usize::from(script.octet()) % FRAME_MAXIMA.len()];
    let seed = script.number();
    let stream = script.rest();

    let (frames, error) = in_one_piece(stream, frame_max);
    let pieces = cut(stream, seed);
    assert_eq!(in_pieces(&pieces, frame_max), (frames.clone(), error));

    let mut codec = FrameCodec { frame_max: 0 };
    let mut written = BytesMut::new();
    for frame in frames {
        codec.encode(frame, &mut written).expect("without a frame-max every frame can be written");
    }
    assert_eq!(written, stream[..written.len()]);
}

fn in_one_piece(stream: &[u8], frame_max: u32) -> (Vec<OwnedFrame>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut left = stream;
    loop {
        match frame::parse(left, frame_max) {
            Ok(Some(frame)) => {
                check_frame(left, &frame, frame_max);
                left = &left[frame.wire_len..];
                frames.push(OwnedFrame {
                    kind: frame.kind,
                    channel: frame.channel,
                    payload: frame.payload.to_vec().into(),
                });
            }
            Ok(None) => {
                check_incomplete(left, frame_max);
                return (frames, None);
            }
            Err(error) => {
                check_error(left, error, frame_max);
                return (frames, Some(error));
            }
        }
    }
}

fn in_pieces(pieces: &[&[u8]], frame_max: u32) -> (Vec<OwnedFrame>, Option<FrameError>) {
    let mut codec = FrameCodec { frame_max };
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match codec.decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(CodecError::Frame(error)) => return (frames, Some(error)),
                Err(error) => panic!("a decoder neither writes nor reads a stream: {error}"),
            }
        }
    }
    (frames, None)
}

fn check_frame(input: &[u8], frame: &Frame<'_>, frame_max: u32) {
    let overhead = usize::try_from(FRAME_OVERHEAD).expect("eight");
    assert_eq!(frame.wire_len, frame.payload.len() + overhead);
    assert!(frame_max == 0 || frame.payload.len() <= frame_max as usize);
    assert_eq!(
        frame.payload,
        &input[FRAME_HEADER_LEN..frame.wire_len - 1],
        "a frame borrows its payload from where it lies"
    );
    assert_eq!(frame.kind.octet(), input[0]);
    let has_place = match frame.kind {
        FrameKind::Method => true,
        FrameKind::Header | FrameKind::Body => frame.channel.0 != 0,
        FrameKind::Heartbeat => frame.channel.0 == 0 && frame.payload.is_empty(),
    };
    assert!(has_place, "{:?} on channel {}", frame.kind, frame.channel.0);
    // Nothing shorter is a frame, nor an error: the end octet decides.
    for len in [0, FRAME_HEADER_LEN, frame.wire_len - 1] {
        assert_eq!(frame::parse(&input[..len], frame_max), Ok(None));
    }
}

fn check_error(input: &[u8], error: FrameError, frame_max: u32) {
    // The text goes into a close method: it may not grow with what the peer sent.
    assert!(error.detail().len() < 256, "{error}");
    let size = announced(input).expect("no error before the header is whole");
    let end = usize::try_from(size).ok().and_then(|size| input.get(FRAME_HEADER_LEN + size));
    match error {
        FrameError::TooLarge { .. } => assert!(frame_max != 0 && size > u64::from(frame_max)),
        FrameError::BadEnd { .. } => assert!(end.is_some_and(|end| *end != FRAME_END)),
        FrameError::Unknown { .. } | FrameError::WrongChannel { .. } => {
            assert_eq!(end, Some(&FRAME_END));
        }
    }
}

/// The size in a frame's header.
fn announced(input: &[u8]) -> Option<u64> {
    let size = input.get(3..FRAME_HEADER_LEN)?;
    Some(size.iter().fold(0, |size, octet| size << 8 | u64::from(*octet)))
}

/// Incomplete is only what a frame-max still permits to be completed.
fn check_incomplete(left: &[u8], frame_max: u32) {
    if let Some(size) = announced(left) {
        assert!(frame_max == 0 || size <= u64::from(frame_max));
        assert!((left.len() as u64) < size + u64::from(FRAME_OVERHEAD));
    }
}
