//! Frames from and to a stream, for tests and tools.
//!
//! [`FrameCodec`] puts `tokio_util`'s traits over [`frame::parse`]. A server's connection borrows
//! frames from its read buffer instead: a `Bytes` cut from a buffer keeps all of that buffer alive.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::{
    frame::{self, FRAME_END, FRAME_HEADER_LEN, FRAME_MIN_SIZE, FrameKind},
    types::ChannelId,
};

pub use crate::error::CodecError;

/// One frame that shares its payload with the buffer it was cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedFrame {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel it belongs to.
    pub channel: ChannelId,
    /// The octets between header and end octet.
    pub payload: Bytes,
}

/// Cuts frames out of a stream and writes frames to one.
#[derive(Clone, Copy, Debug)]
pub struct FrameCodec {
    /// The frame-max in force, in octets; 0 means that there is none. Raise it after tuning.
    pub frame_max: u32,
}

impl Default for FrameCodec {
    /// The limit that holds before tuning, 4096 octets.
    fn default() -> Self {
        Self { frame_max: FRAME_MIN_SIZE }
    }
}

impl Decoder for FrameCodec {
    type Item = OwnedFrame;
    type Error = CodecError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<OwnedFrame>, CodecError> {
        let Some(found) = frame::parse(input, self.frame_max)? else {
            // Nothing is reserved: the buffer grows with what arrives, not with what is announced.
            return Ok(None);
        };
        let (kind, channel) = (found.kind, found.channel);
        let (payload_len, wire_len) = (found.payload.len(), found.wire_len);
        let mut payload = input.split_to(wire_len).freeze();
        payload.advance(FRAME_HEADER_LEN);
        payload.truncate(payload_len);
        Ok(Some(OwnedFrame { kind, channel, payload }))
    }
}

impl Encoder<OwnedFrame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: OwnedFrame, output: &mut BytesMut) -> Result<(), CodecError> {
        let len = frame.payload.len();
        let size = u32::try_from(len)
            .ok()
            .filter(|size| *size <= frame::payload_len_max(self.frame_max))
            .ok_or(CodecError::PayloadTooLarge { len, frame_max: self.frame_max })?;
        output.reserve(FRAME_HEADER_LEN + len + 1);
        output.extend_from_slice(&frame::header(frame.kind, frame.channel, size));
        output.extend_from_slice(&frame.payload);
        output.extend_from_slice(&[FRAME_END]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_written_and_cut_again() {
        let frame = OwnedFrame {
            kind: FrameKind::Body,
            channel: ChannelId(3),
            payload: Bytes::from_static(b"abc"),
        };
        let mut octets = BytesMut::new();
        let mut codec = FrameCodec::default();
        codec.encode(frame.clone(), &mut octets).unwrap();
        assert_eq!(&octets[..], [3, 0, 3, 0, 0, 0, 3, b'a', b'b', b'c', 0xCE]);
        assert_eq!(codec.decode(&mut octets).unwrap(), Some(frame));
        assert!(octets.is_empty());
    }

    #[test]
    fn a_payload_beyond_the_frame_max_is_not_written() {
        let frame = |len| OwnedFrame {
            kind: FrameKind::Body,
            channel: ChannelId(1),
            payload: Bytes::from(vec![0; len]),
        };
        let mut octets = BytesMut::new();
        let mut codec = FrameCodec { frame_max: 4096 };
        codec.encode(frame(4088), &mut octets).unwrap();
        let written = octets.len();
        assert!(matches!(
            codec.encode(frame(4089), &mut octets),
            Err(CodecError::PayloadTooLarge { len: 4089, frame_max: 4096 })
        ));
        assert_eq!(octets.len(), written);
    }

    #[test]
    fn a_huge_announced_size_reserves_nothing() {
        let mut octets = BytesMut::from(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF][..]);
        let mut codec = FrameCodec { frame_max: 0 };
        assert_eq!(codec.decode(&mut octets).unwrap(), None);
        assert!(octets.capacity() < 4096);
    }
}
