//! The head of a frame: command line, header lines, blank line.
//!
//! Two steps. [`HeadSearch`] finds the blank line in octets that may still be arriving; it checks every
//! limit and every octet that may not stand in a head, and never looks at an octet twice. [`read`] then
//! takes the lines of a head that is known to be whole apart.

use nom::bytes::complete::{tag, take_until, take_until1};
use nom::combinator::rest;
use nom::sequence::{separated_pair, terminated};
use nom::{IResult, Offset, Parser};

use crate::error::FrameError;
use crate::escape::{self, Undefined};
use crate::frame::{Command, HeaderBlock, ParsedCommand, Span};
use crate::limits::Limits;
use crate::version::Version;

const ACCEPT_VERSION: &[u8] = b"accept-version";
const VERSION: &[u8] = b"version";
const CONTENT_LENGTH: &[u8] = b"content-length";
/// More digits than any length that a limit lets through.
const CONTENT_LENGTH_DIGITS_MAX: usize = 10;

/// How far the search for the blank line has come. Offsets are from the command's first octet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadSearch {
    /// Lines that are complete.
    lines: usize,
    /// Where the line that is not complete starts.
    line_start: usize,
    /// Everything before this has been looked at.
    searched: usize,
}

impl HeadSearch {
    pub(crate) const START: Self = Self { lines: 0, line_start: 0, searched: 0 };

    /// Whether nothing of a command has been seen.
    pub(crate) fn is_fresh(&self) -> bool {
        self.searched == 0
    }

    /// Goes on searching; the length of the head, blank line included, once that is there.
    ///
    /// What is found wrong, and where, does not depend on how much arrives at a time: each limit is
    /// turned into the last offset at which the line's end may stand, and only octets up to there are
    /// looked at.
    pub(crate) fn advance(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, FrameError> {
        loop {
            let line = self.lines + 1;
            let (end_max, too_long) = self.line_end_max(limits);
            let window_end = input.len().min(end_max.saturating_add(1)).max(self.searched);
            let window = input.get(self.searched..window_end).unwrap_or_default();
            let Some(found) = memchr::memchr3(b'\n', b'\r', 0, window) else {
                if input.len() > end_max {
                    return Err(too_long);
                }
                self.searched = window_end;
                return Ok(None);
            };
            let line_end = self.searched + found;
            let next_line = match input.get(line_end..) {
                Some([b'\n', ..]) => line_end + 1,
                Some([b'\r', b'\n', ..]) => line_end + 2,
                Some([b'\r']) => {
                    self.searched = line_end;
                    return Ok(None);
                }
                Some([b'\r', ..]) => return Err(FrameError::LoneCarriageReturn { line }),
                _ => return Err(FrameError::NulInHead { line }),
            };
            if line_end == self.line_start {
                return Ok(Some(next_line));
            }
            // The command is a line and no header.
            if self.lines > limits.header_count_max {
                return Err(FrameError::TooManyHeaders { max: limits.header_count_max });
            }
            *self = Self { lines: line, line_start: next_line, searched: next_line };
        }
    }

    /// The last offset at which the current line's end may stand, and what is wrong if it does not.
    fn line_end_max(&self, limits: &Limits) -> (usize, FrameError) {
        let (line_len_max, line_too_long) = if self.lines == 0 {
            let max = limits.command_len_max;
            (max, FrameError::CommandTooLong { max })
        } else {
            let max = limits.header_len_max;
            (max, FrameError::HeaderTooLong { line: self.lines + 1, max })
        };
        let by_line = self.line_start.saturating_add(line_len_max);
        // The blank line starts where the head proper ends, so that is the bound of every line's end.
        let by_head = limits.head_len_max.min(limits.frame_len_max);
        if by_line <= by_head {
            (by_line, line_too_long)
        } else if limits.head_len_max <= limits.frame_len_max {
            (by_head, FrameError::HeadTooLong { max: limits.head_len_max })
        } else {
            (by_head, FrameError::FrameTooLong { max: limits.frame_len_max })
        }
    }
}

/// What the head says, apart from the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) command: ParsedCommand<'a>,
    pub(crate) content_length: Option<usize>,
}

/// Reads a whole head, blank line included, in which [`HeadSearch`] found nothing wrong. The headers go
/// into `block`.
pub(crate) fn read<'a>(
    head: &'a [u8],
    session_version: Version,
    block: &mut HeaderBlock,
) -> Result<Head<'a>, FrameError> {
    block.clear();
    let mut line_number = 1;
    let (mut lines, word) = line(head).map_err(|_| FrameError::NotAHeader { line: line_number })?;
    let command = match Command::parse(word) {
        Some(command) => ParsedCommand::Known(command),
        None => ParsedCommand::Unknown(word),
    };
    let opens_session = matches!(command, ParsedCommand::Known(command) if command.opens_session());
    let undefined = if opens_session || session_version == Version::V1_0 {
        Undefined::Literal
    } else {
        Undefined::Refused
    };
    // One look for the whole head: most have no escapes at all.
    let has_escapes = memchr::memchr(b'\\', head).is_some();

    while let Ok((after, line)) = line(lines) {
        line_number += 1;
        if line.is_empty() {
            break;
        }
        lines = after;
        let (_, (name, value)) =
            header(line).map_err(|_| FrameError::NotAHeader { line: line_number })?;
        let mut span = |raw: &[u8]| {
            if has_escapes && memchr::memchr(b'\\', raw).is_some() {
                block
                    .unescape(|out| escape::unescape_into(out, raw, undefined))
                    .map_err(|_| FrameError::UndefinedEscape { line: line_number })
            } else {
                Ok(Span::of_head(head.offset(raw), raw.len()))
            }
        };
        let (name, value) = (span(name)?, span(value)?);
        block.push(head, name, value);
    }

    if frame_version(command, session_version, head, block) == Some(Version::V1_0) {
        // `accept-version` stays as it was, so that the session negotiates what was negotiated here.
        block.trim_values_except(head, ACCEPT_VERSION);
    }
    let content_length = match block.get(head, CONTENT_LENGTH) {
        None => None,
        Some(value) => Some(content_length(value).ok_or(FrameError::InvalidContentLength)?),
    };
    Ok(Head { command, content_length })
}

/// The version by whose rules about blanks the frame is read: a frame that opens a session says itself
/// which that will be.
fn frame_version(
    command: ParsedCommand<'_>,
    session_version: Version,
    head: &[u8],
    block: &HeaderBlock,
) -> Option<Version> {
    match command {
        ParsedCommand::Known(Command::Connect | Command::Stomp) => {
            Version::negotiate(block.get(head, ACCEPT_VERSION))
        }
        ParsedCommand::Known(Command::Connected) => match block.get(head, VERSION) {
            None => Some(Version::V1_0),
            Some(version) => Version::parse(version),
        },
        _ => Some(session_version),
    }
}

/// A line, without its end.
fn line(input: &[u8]) -> IResult<&[u8], &[u8]> {
    terminated(take_until("\n"), tag("\n"))
        .map(|line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line))
        .parse(input)
}

/// `name:value`; the first colon separates, and the name is not empty.
fn header(line: &[u8]) -> IResult<&[u8], (&[u8], &[u8])> {
    separated_pair(take_until1(":"), tag(":"), rest).parse(line)
}

/// The number of octets that the value of a `content-length` header says, blanks around it ignored.
fn content_length(value: &[u8]) -> Option<usize> {
    let digits = trim_blanks(value);
    if digits.is_empty()
        || digits.len() > CONTENT_LENGTH_DIGITS_MAX
        || !digits.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, &digit| number * 10 + u64::from(digit - b'0'));
    // Where addresses have 32 bits: a body that cannot be held is a body that is too long.
    Some(usize::try_from(number).unwrap_or(usize::MAX))
}

fn trim_blanks(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', inner @ ..] | [inner @ .., b' ' | b'\t'] = value {
        value = inner;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_length_is_one_to_ten_digits_in_blanks() {
        assert_eq!(content_length(b"0"), Some(0));
        assert_eq!(content_length(b" \t12 "), Some(12));
        assert_eq!(content_length(b"0000000007"), Some(7));
        assert_eq!(content_length(b"9999999999"), usize::try_from(9_999_999_999_u64).ok());
        for value in [
            "",
            " ",
            "-1",
            "+1",
            "1e3",
            "0x10",
            "1 2",
            "1.0",
            "00000000001",
            "18446744073709551616",
        ] {
            assert_eq!(content_length(value.as_bytes()), None, "{value:?}");
        }
    }
}
