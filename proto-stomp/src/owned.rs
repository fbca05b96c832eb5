//! Frames that own their octets, for clients, tools and tests.
//!
//! Convenience over the same decoder and writer that the hot path uses, with the allocations that the
//! hot path does not make. It has no session either: a client that agrees on a version tells the
//! reader so.

use crate::codec::{Decoded, Decoder};
use crate::encoder::{FrameEnd, FrameWriter};
use crate::error::FrameError;
use crate::frame::{Command, Frame, HeaderBlock, ParsedCommand};
use crate::limits::Limits;
use crate::version::Version;

/// A frame with its own copy of everything.
///
/// ```
/// use proto_stomp::{Command, OwnedFrame};
///
/// let send = OwnedFrame::new(Command::Send).header("destination", "/queue/a").body("hello");
/// assert_eq!(send.encode(), b"SEND\ndestination:/queue/a\ncontent-length:5\n\nhello\0\n");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    /// The command.
    pub command: Command,
    /// Names and values in order, unescaped.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, without the NUL that ends the frame.
    pub body: Vec<u8>,
}

impl OwnedFrame {
    /// A frame without headers and body.
    #[must_use]
    pub fn new(command: Command) -> Self {
        Self { command, headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header behind the others.
    #[must_use]
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The value of the first header called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name.as_bytes())?;
        Some(value)
    }

    /// The frame's octets. `content-length` says how long the body is, if there is one, whatever a
    /// header of that name says here; a header that STOMP cannot express is left out
    /// ([`FrameWriter::header`]).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, self.command);
        for (name, value) in &self.headers {
            if name != b"content-length" {
                frame.header(name, value);
            }
        }
        frame.finish(&self.body, FrameEnd::NulLf);
        out
    }

    fn from_frame(command: Command, frame: &Frame<'_>) -> Self {
        Self {
            command,
            headers: frame
                .headers
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect(),
            body: frame.body.to_vec(),
        }
    }
}

/// Why a [`FrameReader`] has no next frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The octets are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame has no command of the protocol.
    #[error("Unknown command {0:?}")]
    UnknownCommand(String),
}

/// A buffer with a decoder: octets in, frames out.
#[derive(Debug)]
pub struct FrameReader {
    decoder: Decoder,
    scratch: HeaderBlock,
    buffer: Vec<u8>,
    /// Octets at the front of the buffer that are done with.
    consumed: usize,
}

impl FrameReader {
    /// A reader for a connection that has not agreed on a version yet; [`Limits::from_server`] suits a
    /// client.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            decoder: Decoder::new(limits),
            scratch: HeaderBlock::new(),
            buffer: Vec::new(),
            consumed: 0,
        }
    }

    /// Frames from here on are of `version`.
    pub fn set_version(&mut self, version: Version) {
        self.decoder.set_version(version);
    }

    /// Takes octets that have arrived.
    pub fn push(&mut self, octets: &[u8]) {
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(octets);
    }

    /// The next frame, or `None` until more has arrived. Skips heart-beats.
    ///
    /// # Errors
    /// [`ReadError`]; the reader is of no use afterwards, except after an unknown command, which is
    /// skipped.
    pub fn next_frame(&mut self) -> Result<Option<OwnedFrame>, ReadError> {
        loop {
            let input = self.buffer.get(self.consumed..).unwrap_or_default();
            match self.decoder.decode(input, &mut self.scratch)? {
                Decoded::Incomplete => return Ok(None),
                Decoded::Noise { wire_len } => self.consumed += wire_len,
                Decoded::Frame { frame, wire_len } => {
                    self.consumed += wire_len;
                    return match frame.command {
                        ParsedCommand::Known(command) => {
                            Ok(Some(OwnedFrame::from_frame(command, &frame)))
                        }
                        ParsedCommand::Unknown(word) => Err(ReadError::UnknownCommand(
                            String::from_utf8_lossy(word).into_owned(),
                        )),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_were_put_together_however_they_arrive() {
        let connected = OwnedFrame::new(Command::Connected)
            .header("version", "1.2")
            .header("session", "session-1");
        let message = OwnedFrame::new(Command::Message)
            .header("destination", "/queue/a")
            .header("odd", "a:b\\c\n")
            .header("content-length", "3")
            .body("x\0y");
        let octets = [connected.encode(), b"\n\n".to_vec(), message.encode()].concat();
        let mut reader = FrameReader::new(Limits::from_server(1000));
        let mut frames = Vec::new();
        for octet in octets {
            reader.push(&[octet]);
            while let Some(frame) = reader.next_frame().unwrap() {
                reader.set_version(Version::V1_2);
                frames.push(frame);
            }
        }
        assert_eq!(frames, [connected, message]);
    }

    #[test]
    fn a_frame_that_was_read_is_written_with_one_content_length() {
        let frame = OwnedFrame::new(Command::Send).header("content-length", "9").body("hello");
        assert_eq!(frame.encode(), b"SEND\ncontent-length:5\n\nhello\0\n");
    }

    #[test]
    fn an_unknown_command_is_an_error_that_names_it() {
        let mut reader = FrameReader::new(Limits::from_server(1000));
        reader.push(b"HELLO\na:b\n\n\0RECEIPT\nreceipt-id:1\n\n\0");
        assert_eq!(reader.next_frame(), Err(ReadError::UnknownCommand("HELLO".to_owned())));
        let receipt = reader.next_frame().unwrap().unwrap();
        assert_eq!(receipt.get("receipt-id"), Some(b"1".as_slice()));
        assert_eq!(receipt.get("nothing"), None);
    }
}
