//! Cutting frames out of octets.
//!
//! ```text
//!  0      1          3             7                 7+size
//!  +------+----------+-------------+--------- … -----+------+
//!  | type | channel  | size        | payload         | 0xCE |     AMQP 0-9-1 §4.2.3
//!  | u8   | u16      | u32         | `size` octets   | u8   |
//!  +------+----------+-------------+--------- … -----+------+
//! ```
//!
//! A frame borrows its payload from the input; nothing is copied or allocated, and nothing is looked
//! at inside the payload. The announced size is checked as soon as it is there, so that no caller
//! ever buffers towards a size that will be refused. What the payload means is for
//! [`method`](crate::method) and [`content`](crate::content).

use crate::{error::Octets, types::ChannelId};

pub use crate::error::FrameError;

/// The octet that ends every frame.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame that are not payload: the header and the end octet.
pub const FRAME_OVERHEAD: u32 = 8;
/// Octets before the payload: type, channel, size.
pub const FRAME_HEADER_LEN: usize = 7;
/// The frame-max in force until tuned, and the least that may be tuned to, in octets (§4.2.3).
///
/// `amq_protocol`'s constant of this name is RabbitMQ's 8192; a client may tune down to 4096.
pub const FRAME_MIN_SIZE: u32 = 4096;

pub(crate) const FRAME_METHOD: u8 = 1;
pub(crate) const FRAME_HEADER: u8 = 2;
pub(crate) const FRAME_BODY: u8 = 3;
const FRAME_HEARTBEAT: u8 = 8;

/// A heartbeat, whole.
pub const HEARTBEAT_FRAME: [u8; 8] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// What a frame carries. The types 4 to 7 of the 0-8 text were never traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Class, method and arguments.
    Method,
    /// A content header: body size and property list.
    Header,
    /// A piece of a content's body.
    Body,
    /// A sign of life, without payload, on channel 0.
    Heartbeat,
}

impl FrameKind {
    /// The type octet.
    #[must_use]
    pub const fn octet(self) -> u8 {
        match self {
            Self::Method => FRAME_METHOD,
            Self::Header => FRAME_HEADER,
            Self::Body => FRAME_BODY,
            Self::Heartbeat => FRAME_HEARTBEAT,
        }
    }
}

/// One frame, borrowing its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: FrameKind,
    /// The channel it belongs to.
    pub channel: ChannelId,
    /// The octets between header and end octet.
    pub payload: &'a [u8],
    /// The octets of the whole frame: consume so many before parsing the next.
    pub wire_len: usize,
}

/// Cuts the frame at the front of `input`; `Ok(None)` when it has not all arrived.
///
/// `frame_max` is the negotiated maximum in octets; 0 means that there is none. The maximum counts
/// the frame's own eight octets, which clients have been known to forget: a *payload* of up to
/// `frame_max` is accepted, as RabbitMQ does.
///
/// # Errors
/// [`FrameError::TooLarge`] as soon as seven octets are there. All others when the frame is whole,
/// because their texts show its payload. The connection cannot go on after any of them.
#[inline]
pub fn parse(input: &[u8], frame_max: u32) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((&[kind, c0, c1, s0, s1, s2, s3], rest)) =
        input.split_first_chunk::<FRAME_HEADER_LEN>()
    else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size > frame_max && frame_max != 0 {
        return Err(FrameError::TooLarge { kind, size, frame_max });
    }
    let Some((payload, after)) =
        usize::try_from(size).ok().and_then(|len| rest.split_at_checked(len))
    else {
        return Ok(None);
    };
    let Some(&end) = after.first() else {
        return Ok(None);
    };
    let channel = ChannelId(u16::from_be_bytes([c0, c1]));
    let known = match kind {
        FRAME_METHOD => Some(FrameKind::Method),
        FRAME_HEADER if channel.0 != 0 => Some(FrameKind::Header),
        FRAME_BODY if channel.0 != 0 => Some(FrameKind::Body),
        FRAME_HEARTBEAT if channel.0 == 0 && payload.is_empty() => Some(FrameKind::Heartbeat),
        _ => None,
    };
    match known {
        Some(kind) if end == FRAME_END => Ok(Some(Frame {
            kind,
            channel,
            payload,
            wire_len: FRAME_HEADER_LEN + payload.len() + 1,
        })),
        _ => Err(refusal(kind, payload, end)),
    }
}

/// Why a whole frame was not taken. The end octet comes first: without it the rest is noise.
#[cold]
fn refusal(kind: u8, payload: &[u8], end: u8) -> FrameError {
    let shown = Octets::of(payload);
    if end != FRAME_END {
        return FrameError::BadEnd { kind, payload: shown, end };
    }
    match kind {
        FRAME_HEADER | FRAME_BODY => FrameError::WrongChannel { kind, payload: shown },
        FRAME_HEARTBEAT if payload.is_empty() => FrameError::WrongChannel { kind, payload: shown },
        _ => FrameError::Unknown { kind, payload: shown },
    }
}

/// The most payload octets of a frame under `frame_max`, where 0 means no maximum.
///
/// Never 0, so that a body can always be split; a frame-max below 9 cannot be negotiated.
#[must_use]
pub const fn payload_len_max(frame_max: u32) -> u32 {
    match frame_max {
        0 => u32::MAX - FRAME_OVERHEAD,
        1..=FRAME_OVERHEAD => 1,
        _ => frame_max - FRAME_OVERHEAD,
    }
}

/// The seven octets before a payload of `size` octets.
#[inline]
#[must_use]
pub(crate) const fn header(kind: FrameKind, channel: ChannelId, size: u32) -> [u8; 7] {
    let [c0, c1] = channel.0.to_be_bytes();
    let [s0, s1, s2, s3] = size.to_be_bytes();
    [kind.octet(), c0, c1, s0, s1, s2, s3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyCode;

    fn octets(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(payload);
        frame.push(FRAME_END);
        frame
    }

    fn check_refused(input: &[u8], code: ReplyCode, detail: &str) {
        let error = parse(input, 4096).unwrap_err();
        assert_eq!((error.code(), error.detail().as_str()), (code, detail), "{input:?}");
    }

    #[test]
    fn a_whole_frame_is_cut_and_the_rest_left() {
        let mut input = octets(1, 7, b"abcd");
        input.extend(octets(8, 0, b""));
        let frame = parse(&input, 4096).unwrap().unwrap();
        assert_eq!(frame.kind, FrameKind::Method);
        assert_eq!(frame.channel, ChannelId(7));
        assert_eq!(frame.payload, b"abcd");
        assert_eq!(frame.wire_len, 12);
        let next = parse(&input[frame.wire_len..], 4096).unwrap().unwrap();
        assert_eq!(next.kind, FrameKind::Heartbeat);
    }

    #[test]
    fn every_beginning_of_a_frame_is_incomplete() {
        let input = octets(3, 1, b"body");
        for len in 0..input.len() {
            assert_eq!(parse(&input[..len], 4096), Ok(None), "{len} octets");
        }
    }

    #[test]
    fn the_heartbeat_constant_is_a_heartbeat() {
        assert_eq!(octets(8, 0, b""), HEARTBEAT_FRAME);
        assert_eq!(parse(&HEARTBEAT_FRAME, 4096).unwrap().unwrap().kind, FrameKind::Heartbeat);
    }

    #[test]
    fn a_payload_of_frame_max_is_forgiven_and_one_octet_more_is_not() {
        for (size, forgiven) in [(4088, true), (4089, true), (4096, true), (4097, false)] {
            let input = octets(3, 1, &vec![0; size]);
            assert_eq!(parse(&input, 4096).is_ok(), forgiven, "{size}");
        }
    }

    #[test]
    fn a_size_beyond_the_maximum_is_refused_with_the_seventh_octet() {
        check_refused(
            &[1, 0, 1, 0, 0, 0x10, 0x01],
            ReplyCode::FRAME_ERROR,
            "type 1, all octets = <<>>: {frame_too_large,4097,4088}",
        );
        check_refused(
            &[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF],
            ReplyCode::FRAME_ERROR,
            "type 3, all octets = <<>>: {frame_too_large,4294967295,4088}",
        );
        assert_eq!(parse(&[3, 0, 1, 0xFF, 0xFF, 0xFF], 4096), Ok(None));
    }

    #[test]
    fn a_frame_max_of_zero_means_no_maximum() {
        let input = octets(3, 1, &vec![0; 200_000]);
        assert_eq!(parse(&input, 0).unwrap().unwrap().payload.len(), 200_000);
        assert_eq!(parse(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], 0), Ok(None));
    }

    #[test]
    fn a_wrong_end_octet_is_a_frame_error() {
        let mut input = octets(1, 1, &[1, 2, 3]);
        *input.last_mut().unwrap() = 7;
        check_refused(
            &input,
            ReplyCode::FRAME_ERROR,
            "type 1, all octets = <<1,2,3>>: {invalid_frame_end_marker,7}",
        );
    }

    #[test]
    fn an_unknown_type_is_a_frame_error_that_shows_sixteen_octets() {
        for kind in (0..=255).filter(|kind| ![1, 2, 3, 8].contains(kind)) {
            check_refused(
                &octets(kind, 0, &[9, 8]),
                ReplyCode::FRAME_ERROR,
                &format!("type {kind}, all octets = <<9,8>>: unknown_frame"),
            );
        }
        check_refused(
            &octets(4, 1, &[1; 20]),
            ReplyCode::FRAME_ERROR,
            "type 4, first 16 octets = <<1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1>>: unknown_frame",
        );
    }

    #[test]
    fn a_heartbeat_with_payload_is_unknown_and_on_a_channel_unexpected() {
        check_refused(
            &octets(8, 0, &[1]),
            ReplyCode::FRAME_ERROR,
            "type 8, all octets = <<1>>: unknown_frame",
        );
        check_refused(&octets(8, 1, &[]), ReplyCode::UNEXPECTED_FRAME, "type 8, all octets = <<>>");
        check_refused(
            &octets(8, 1, &[1]),
            ReplyCode::FRAME_ERROR,
            "type 8, all octets = <<1>>: unknown_frame",
        );
    }

    #[test]
    fn content_on_channel_zero_is_unexpected() {
        check_refused(
            &octets(2, 0, &[0, 60]),
            ReplyCode::UNEXPECTED_FRAME,
            "type 2, all octets = <<0,60>>",
        );
        check_refused(&octets(3, 0, &[]), ReplyCode::UNEXPECTED_FRAME, "type 3, all octets = <<>>");
    }

    #[test]
    fn the_payload_maximum_leaves_room_for_the_frame_itself() {
        assert_eq!(payload_len_max(4096), 4088);
        assert_eq!(payload_len_max(9), 1);
        assert_eq!(payload_len_max(3), 1);
        assert_eq!(payload_len_max(0), u32::MAX - 8);
    }
}
