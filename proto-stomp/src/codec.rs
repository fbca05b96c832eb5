//! The decoder: frames out of octets that arrive in any pieces.
//!
//! The caller keeps one buffer a connection, offers its front to [`Decoder::decode`] and drops as many
//! octets as it is told to. The decoder keeps only how far it has searched: for a frame that arrives
//! at once the head is read once, for one that comes in pieces twice (when the head is whole, for the
//! body's length, and when the frame is), and a body that trickles in is never searched again.
//!
//! ```text
//! Head ──blank line──▶ Counted { body_len } ──all there, then NUL──▶ a frame, Head again
//!   ▲                  UpToNul { searched } ──NUL found────────────▶ a frame, Head again
//!   └ noise
//! ```

use crate::error::FrameError;
use crate::frame::{Frame, HeaderBlock, Headers};
use crate::head::{self, HeadSearch};
use crate::limits::Limits;
use crate::version::Version;

/// Decodes the frames of one direction of one connection.
///
/// Starts in version 1.0, whose rules fit `CONNECT`; the session sets the version it agrees on.
#[derive(Debug)]
pub struct Decoder {
    version: Version,
    limits: Limits,
    progress: Progress,
}

/// What the front of the input is.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A frame. The caller drops `wire_len` octets before it calls again.
    Frame {
        /// The frame, borrowed from the input.
        frame: Frame<'a>,
        /// Its length in octets, the NUL included.
        wire_len: usize,
    },
    /// Line ends and NULs between frames; a line end is a heart-beat. The caller drops `wire_len`
    /// octets before it calls again.
    Noise {
        /// How many octets, at least one.
        wire_len: usize,
    },
    /// The start of a frame, or nothing. The caller keeps it all and calls again with more behind it.
    Incomplete,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Head(HeadSearch),
    Body { head_len: usize, search: BodySearch },
}

/// How the end of the body is found. Offsets are from the command's first octet.
#[derive(Debug, Clone, Copy)]
enum BodySearch {
    Counted { body_len: usize },
    UpToNul { searched: usize },
}

impl Decoder {
    /// A decoder for a peer that has not agreed on a version yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { version: Version::V1_0, limits, progress: Progress::START }
    }

    /// Frames from here on are of `version`. To be called between frames.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Frames from here on are bounded by `limits`. To be called between frames.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Decodes what stands at the front of `input`.
    ///
    /// After [`Decoded::Incomplete`], the next call's `input` starts with the same octets. The result is
    /// the same however the octets were cut, except that noise may come in more pieces. Allocates only
    /// when `scratch` has to grow.
    ///
    /// # Errors
    /// Any [`FrameError`], as soon as the octets that prove it are there: a declared length is checked
    /// before its octets arrive. The connection cannot go on; the same input gives the same error.
    pub fn decode<'a>(
        &mut self,
        input: &'a [u8],
        scratch: &'a mut HeaderBlock,
    ) -> Result<Decoded<'a>, FrameError> {
        let (head_len, mut search, read_head) = match self.progress {
            Progress::Body { head_len, search } => (head_len, search, None),
            Progress::Head(mut search) => {
                if search.is_fresh() {
                    let wire_len = noise_len(input)?;
                    if wire_len > 0 {
                        return Ok(Decoded::Noise { wire_len });
                    }
                }
                let Some(head_len) = search.advance(input, &self.limits)? else {
                    self.progress = Progress::Head(search);
                    return Ok(Decoded::Incomplete);
                };
                let head = head::read(prefix(input, head_len), self.version, scratch)?;
                let search = BodySearch::new(head_len, head.content_length, &self.limits)?;
                (head_len, search, Some(head))
            }
        };
        let Some(body_len) = search.advance(input, head_len, &self.limits)? else {
            self.progress = Progress::Body { head_len, search };
            return Ok(Decoded::Incomplete);
        };
        let head_octets = prefix(input, head_len);
        let head = match read_head {
            Some(head) => head,
            None => head::read(head_octets, self.version, scratch)?,
        };
        self.progress = Progress::START;
        let frame = Frame {
            command: head.command,
            headers: Headers::new(head_octets, scratch),
            body: input.get(head_len..head_len + body_len).unwrap_or_default(),
        };
        Ok(Decoded::Frame { frame, wire_len: head_len + body_len + 1 })
    }
}

impl Progress {
    const START: Self = Self::Head(HeadSearch::START);
}

impl BodySearch {
    /// Refuses a declared length before any of it has arrived.
    // spec: stomp-1.2 "Header content-length"
    fn new(
        head_len: usize,
        content_length: Option<usize>,
        limits: &Limits,
    ) -> Result<Self, FrameError> {
        let Some(body_len) = content_length else {
            return Ok(Self::UpToNul { searched: head_len });
        };
        if body_len > limits.body_len_max {
            return Err(FrameError::BodyTooLong { max: limits.body_len_max });
        }
        // With the NUL, one octet more. Nothing below can overflow once this holds.
        if head_len.saturating_add(body_len) >= limits.frame_len_max {
            return Err(FrameError::FrameTooLong { max: limits.frame_len_max });
        }
        Ok(Self::Counted { body_len })
    }

    /// Goes on searching; the length of the body once the NUL behind it is there.
    fn advance(
        &mut self,
        input: &[u8],
        head_len: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, FrameError> {
        match self {
            Self::Counted { body_len } => match input.get(head_len + *body_len) {
                None => Ok(None),
                Some(0) => Ok(Some(*body_len)),
                Some(_) => Err(FrameError::MissingTerminator { content_length: *body_len }),
            },
            Self::UpToNul { searched } => {
                let (end_max, too_long) = nul_max(head_len, limits);
                let window_end = input.len().min(end_max.saturating_add(1)).max(*searched);
                let window = input.get(*searched..window_end).unwrap_or_default();
                if let Some(found) = memchr::memchr(0, window) {
                    return Ok(Some(*searched + found - head_len));
                }
                if input.len() > end_max {
                    return Err(too_long);
                }
                *searched = window_end;
                Ok(None)
            }
        }
    }
}

/// The last offset at which the NUL of an uncounted body may stand, and what is wrong if it does not.
fn nul_max(head_len: usize, limits: &Limits) -> (usize, FrameError) {
    let by_body = head_len.saturating_add(limits.body_len_max);
    let by_frame = limits.frame_len_max.saturating_sub(1);
    if by_body <= by_frame {
        (by_body, FrameError::BodyTooLong { max: limits.body_len_max })
    } else {
        (by_frame, FrameError::FrameTooLong { max: limits.frame_len_max })
    }
}

/// How many octets of line ends and NULs `input` starts with.
///
/// A carriage return at the very end may be half of a line end and is left for the next call.
// RabbitMQ: skips NULs as well as line ends; the texts know line ends only.
fn noise_len(input: &[u8]) -> Result<usize, FrameError> {
    let mut noise = input;
    loop {
        noise = match noise {
            [b'\n' | 0, after @ ..] | [b'\r', b'\n', after @ ..] => after,
            [b'\r', _, ..] if noise.len() == input.len() => {
                return Err(FrameError::LoneCarriageReturn { line: 1 });
            }
            _ => return Ok(input.len() - noise.len()),
        };
    }
}

/// The first `len` octets, which are known to be there.
fn prefix(input: &[u8], len: usize) -> &[u8] {
    input.get(..len).unwrap_or_default()
}

#[cfg(test)]
mod tests;
