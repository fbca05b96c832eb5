//! STOMP 1.0, 1.1 and 1.2 frames: octets to values and back.
//!
//! The one idea: a frame is *found* before it is *read*. [`Decoder`] remembers how far it has looked
//! for the end of the frame at the front of the caller's buffer, so that an octet that arrives late is
//! looked at once; when the frame is whole, its parts are borrowed from that buffer. [`FrameWriter`]
//! appends to a buffer of the caller's. Both sides of a connection use the same two types: a client
//! writes `SEND` and decodes `MESSAGE` with what the server uses the other way round.
//!
//! ```text
//! SEND LF                        the command          ┐
//! destination:/queue/a LF        header lines         │ the head
//! content-length:5 LF            name ':' value       │
//! LF                             a blank line         ┘
//! hello                          the body             content-length octets, or up to the first NUL
//! NUL                            the end
//! LF …                           noise: line ends and NULs between frames, heart-beats among them
//! ```
//!
//! # What differs between the versions, and where
//!
//! | | 1.0 | 1.1 | 1.2 | here |
//! |---|---|---|---|---|
//! | line end | LF or CR LF, whatever the text of the version says | same | same | [`Decoder`] |
//! | escapes read | `\n \r \c \\`; anything else is literal | the same four; anything else is an error | as 1.1 | [`Decoder`] |
//! | escapes written | all four | all four | all four | [`FrameWriter`] |
//! | blanks before a header's value | dropped | kept | kept | [`Decoder`] |
//! | `content-length` | honoured on every frame | same | same | [`Decoder`] |
//! | repeated header | the first wins | same | same | [`Headers`] |
//! | which version is spoken | no `accept-version` | the highest in common | same | [`Version::negotiate`] |
//! | heart-beats | honoured when asked for | same | same | [`HeartBeat`] |
//!
//! `CONNECT`, `STOMP` and `CONNECTED` come before a version is agreed. They are written without
//! escapes, as the texts say, and read as 1.0 reads: a valid escape is decoded, because clients exist
//! that write them, and any other backslash is literal, because passwords hold them.
//!
//! # What it does not do
//!
//! No sockets, no clock, no session: whether a frame is allowed now, which headers it must carry and
//! what they mean is the server's business. Header octets are not checked to be UTF-8. Nothing here can
//! panic, whatever a peer sends, and decoding allocates nothing once the caller's [`HeaderBlock`] is warm.

#![deny(clippy::indexing_slicing)]

mod codec;
mod encoder;
mod error;
mod escape;
mod frame;
mod head;
mod heart_beat;
mod limits;
mod owned;
mod version;

pub use codec::{Decoded, Decoder};
pub use encoder::{FrameEnd, FrameWriter, HEART_BEAT};
pub use error::FrameError;
pub use frame::{Command, Frame, HeaderBlock, Headers, ParsedCommand};
pub use heart_beat::{AgreedHeartBeat, HeartBeat, HeartBeatError};
pub use limits::Limits;
pub use owned::{FrameReader, OwnedFrame, ReadError};
pub use version::Version;
