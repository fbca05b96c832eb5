//! Writing frames.
//!
//! A frame is appended to a buffer of the caller's, front to back, and nothing is looked at twice: the
//! caller gives headers in the order in which they shall stand, `content-length` comes last and by
//! itself. What is written cannot be read as another header or another frame, whatever the names and
//! values are: line ends are escaped in every frame of every version.
//!
//! All four escapes are written in every version, as RabbitMQ does: a 1.0 client that knows no escapes
//! hands back `\c` where it was given `\c`, and the decoder understands it. Frames that open a session
//! are exempt, as the texts want: there only line ends are escaped, since they cannot be written
//! otherwise.

use crate::escape;
use crate::frame::Command;

/// What keeps a connection alive when there is nothing to say.
pub const HEART_BEAT: &[u8] = b"\n";

/// How a frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameEnd {
    /// NUL and a line feed. Some old clients wait for the line feed.
    #[default]
    NulLf,
    /// NUL only. For clients on small systems that take the line feed for something.
    Nul,
}

impl FrameEnd {
    /// The octets.
    #[must_use]
    pub const fn octets(self) -> &'static [u8] {
        match self {
            Self::NulLf => b"\0\n",
            Self::Nul => b"\0",
        }
    }
}

/// Appends one frame to a buffer.
///
/// ```
/// use proto_stomp::{Command, FrameEnd, FrameWriter};
///
/// let mut out = Vec::new();
/// let mut frame = FrameWriter::begin(&mut out, Command::Message);
/// frame.header(b"destination", b"/queue/a");
/// frame.header(b"note", b"a:b");
/// frame.finish(b"hello", FrameEnd::NulLf);
/// assert_eq!(out, b"MESSAGE\ndestination:/queue/a\nnote:a\\cb\ncontent-length:5\n\nhello\0\n");
/// ```
///
/// `content-length` is written by [`FrameWriter::finish`] and by nobody else: of a header that is there
/// twice the first counts. Write at least one other header: Net::Stomp cannot read a frame without.
#[derive(Debug)]
#[must_use = "a frame has no end before `finish`"]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    escaping: Escaping,
}

/// Which octets of a header are written as escape sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escaping {
    /// All that have one.
    All,
    /// Line ends. For the frames that open a session.
    LineEnds,
}

impl<'a> FrameWriter<'a> {
    /// Starts a frame at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>, command: Command) -> Self {
        out.extend_from_slice(command.as_str().as_bytes());
        out.push(b'\n');
        let escaping = if command.opens_session() { Escaping::LineEnds } else { Escaping::All };
        Self { out, escaping }
    }

    /// Writes a header, escaped.
    ///
    /// Returns whether it was written: a header that holds a NUL, or has no name, cannot be expressed in
    /// STOMP and is left out whole rather than changed.
    #[inline]
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.header_in_parts(name, &[value])
    }

    /// Writes a header whose value is `parts` one after the other, escaped; see [`Self::header`].
    ///
    /// For identifiers that are put together of pieces, without a buffer to put them together in.
    #[inline]
    pub fn header_in_parts(&mut self, name: &[u8], parts: &[&[u8]]) -> bool {
        if name.is_empty() || !is_clean(name) || !parts.iter().all(|part| is_clean(part)) {
            return self.unclean_header(name, parts);
        }
        self.out.extend_from_slice(name);
        self.out.push(b':');
        for part in parts {
            self.out.extend_from_slice(part);
        }
        self.out.push(b'\n');
        true
    }

    /// A header with something to escape, or none at all.
    #[cold]
    fn unclean_header(&mut self, name: &[u8], parts: &[&[u8]]) -> bool {
        let holds_nul = |octets: &[u8]| memchr::memchr(0, octets).is_some();
        if name.is_empty() || holds_nul(name) || parts.iter().any(|part| holds_nul(part)) {
            return false;
        }
        // In frames that open a session too: a colon would end the name.
        escape::escape_into(self.out, name);
        self.out.push(b':');
        for part in parts {
            match self.escaping {
                Escaping::All => escape::escape_into(self.out, part),
                Escaping::LineEnds => escape::escape_line_ends_into(self.out, part),
            }
        }
        self.out.push(b'\n');
        true
    }

    /// Writes a header as it is. For names and values that are known to need no escapes and to hold no
    /// NUL; in frames that open a session they may hold colons and backslashes.
    pub fn header_raw(&mut self, name: &[u8], value: &[u8]) {
        debug_assert!(!name.is_empty() && !name.iter().chain(value).any(|o| b"\n\r\0".contains(o)));
        self.out.reserve(name.len() + value.len() + 2);
        self.out.extend_from_slice(name);
        self.out.push(b':');
        self.out.extend_from_slice(value);
        self.out.push(b'\n');
    }

    /// Writes a header whose value is a decimal number.
    pub fn header_number(&mut self, name: &[u8], number: u64) {
        self.header_raw(name, itoa::Buffer::new().format(number).as_bytes());
    }

    /// Ends the headers and writes the body and the frame's end.
    ///
    /// An empty body gets no `content-length`: its end is the first NUL, and some clients take a zero
    /// for an absent header.
    pub fn finish(self, body: &[u8], end: FrameEnd) {
        let out = self.finish_head(body.len());
        out.reserve(body.len() + end.octets().len());
        out.extend_from_slice(body);
        out.extend_from_slice(end.octets());
    }

    /// Ends the headers for a body of `body_len` octets that the caller writes by other means, followed
    /// by [`FrameEnd::octets`]. Returns the buffer.
    pub fn finish_head(mut self, body_len: usize) -> &'a mut Vec<u8> {
        if body_len > 0 {
            self.header_raw(b"content-length", itoa::Buffer::new().format(body_len).as_bytes());
        }
        self.out.push(b'\n');
        self.out
    }
}

/// Whether `octets` stand as they are in any frame.
///
/// Headers are short and almost always clean, so this looks at every octet without branches, in pieces of
/// fixed length that the compiler turns into vector instructions. The last piece overlaps the one before.
#[inline]
fn is_clean(octets: &[u8]) -> bool {
    if let Some(last) = octets.last_chunk::<16>() {
        let (pieces, _) = octets.as_chunks::<16>();
        return pieces.iter().all(is_clean_piece) && is_clean_piece(last);
    }
    match (octets.first_chunk::<8>(), octets.last_chunk::<8>()) {
        (Some(first), Some(last)) => is_clean_piece(first) && is_clean_piece(last),
        _ => !octets.iter().any(|&octet| escape::is_special(octet)),
    }
}

#[inline]
fn is_clean_piece<const LEN: usize>(octets: &[u8; LEN]) -> bool {
    !octets.iter().fold(false, |special, &octet| special | escape::is_special(octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(command: Command, headers: &[(&[u8], &[u8])], body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, command);
        for (name, value) in headers {
            frame.header(name, value);
        }
        frame.finish(body, FrameEnd::NulLf);
        out
    }

    #[test]
    fn an_empty_body_has_no_content_length_and_a_full_one_has_it_last() {
        assert_eq!(
            written(Command::Receipt, &[(b"receipt-id", b"77")], b""),
            b"RECEIPT\nreceipt-id:77\n\n\0\n"
        );
        assert_eq!(
            written(Command::Message, &[(b"a", b"b")], b"x\0y"),
            b"MESSAGE\na:b\ncontent-length:3\n\nx\0y\0\n"
        );
    }

    #[test]
    fn names_and_values_are_escaped() {
        assert_eq!(
            written(Command::Message, &[(b"a:b", b"c\nd\re\\f:")], b""),
            b"MESSAGE\na\\cb:c\\nd\\re\\\\f\\c\n\n\0\n"
        );
    }

    #[test]
    fn frames_that_open_a_session_escape_line_ends_only() {
        for command in [Command::Connect, Command::Stomp, Command::Connected] {
            let head = format!("{command}\nh:a:b\\c\\n\\r\nx\\cy:z\n\n\0\n");
            assert_eq!(
                written(command, &[(b"h", b"a:b\\c\n\r"), (b"x:y", b"z")], b""),
                head.as_bytes()
            );
        }
    }

    #[test]
    fn a_header_that_stomp_cannot_express_is_left_out() {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, Command::Message);
        assert!(!frame.header(b"a", b"b\0c"));
        assert!(!frame.header(b"a\0", b"b"));
        assert!(!frame.header(b"", b"b"));
        assert!(!frame.header_in_parts(b"a", &[b"b", b"\0"]));
        assert!(frame.header(b"a", b""));
        frame.finish(b"", FrameEnd::Nul);
        assert_eq!(out, b"MESSAGE\na:\n\n\0");
    }

    #[test]
    fn parts_are_escaped_and_joined() {
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, Command::Message);
        frame.header_in_parts(b"message-id", &[b"T_a:b", b"@@session-1@@", b"9"]);
        frame.header_number(b"priority", 4);
        frame.finish(b"", FrameEnd::NulLf);
        assert_eq!(out, b"MESSAGE\nmessage-id:T_a\\cb@@session-1@@9\npriority:4\n\n\0\n");
    }

    #[test]
    fn a_body_written_apart_gives_the_same_octets() {
        let mut apart = Vec::new();
        let mut frame = FrameWriter::begin(&mut apart, Command::Message);
        frame.header(b"a", b"b");
        let out = frame.finish_head(5);
        out.extend_from_slice(b"hello");
        out.extend_from_slice(FrameEnd::NulLf.octets());
        assert_eq!(apart, written(Command::Message, &[(b"a", b"b")], b"hello"));
    }

    #[test]
    fn frames_are_appended_to_what_is_there() {
        let mut out = b"before".to_vec();
        FrameWriter::begin(&mut out, Command::Error).finish(b"", FrameEnd::Nul);
        assert_eq!(out, b"beforeERROR\n\n\0");
    }

    #[test]
    fn every_special_octet_is_found_at_every_place_of_a_long_value() {
        for len in 0..70 {
            assert!(is_clean(&vec![b'x'; len]));
            for at in 0..len {
                for special in [b'\n', b'\r', b':', b'\\', 0] {
                    let mut octets = vec![b'x'; len];
                    octets[at] = special;
                    assert!(!is_clean(&octets), "{special} at {at} of {len}");
                }
            }
        }
    }
}
