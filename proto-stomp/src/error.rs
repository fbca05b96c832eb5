//! What can be wrong with a frame.
//!
//! Each variant says what and where, in numbers only: no octets of the peer's are kept, so that an
//! error costs nothing to make and nothing to log. After any of them the stream has lost its frame
//! boundaries (or the peer has shown that it does not keep to them): the connection cannot go on.

/// Why the octets at the front of the input are not a frame.
///
/// `Display` is the detail for the body of an `ERROR` frame, [`FrameError::message`] its `message`
/// header. Lines are counted from 1, the command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line is longer than any command.
    #[error("The command line is longer than {max} octets")]
    CommandTooLong {
        /// The limit, in octets.
        max: usize,
    },
    /// One header line is too long.
    #[error("Line {line} is longer than {max} octets")]
    HeaderTooLong {
        /// Which line.
        line: usize,
        /// The limit, in octets.
        max: usize,
    },
    /// Too many header lines, repeated ones included.
    #[error("The frame has more than {max} headers")]
    TooManyHeaders {
        /// The limit.
        max: usize,
    },
    /// Command and header lines together are too long.
    #[error("Command and headers are longer than {max} octets")]
    HeadTooLong {
        /// The limit, in octets.
        max: usize,
    },
    /// The body is too long, or is announced to be.
    #[error("The body is longer than {max} octets")]
    BodyTooLong {
        /// The limit, in octets.
        max: usize,
    },
    /// The frame as a whole is too long, or is announced to be.
    #[error("The frame is longer than {max} octets")]
    FrameTooLong {
        /// The limit, in octets.
        max: usize,
    },
    /// A carriage return that no line feed follows, in the head or between frames.
    #[error("Line {line} has a carriage return that is not followed by a line feed")]
    LoneCarriageReturn {
        /// Which line.
        line: usize,
    },
    /// A NUL before the blank line that ends the headers.
    #[error("Line {line} has a NUL; a blank line ends the headers")]
    NulInHead {
        /// Which line.
        line: usize,
    },
    /// A header line without a colon, or with nothing before it.
    #[error("Line {line} is not of the form name:value")]
    NotAHeader {
        /// Which line.
        line: usize,
    },
    /// In 1.1 and 1.2, a backslash followed by something other than `n`, `r`, `c` or a backslash.
    #[error("Line {line} has an undefined escape sequence")]
    UndefinedEscape {
        /// Which line.
        line: usize,
    },
    /// `content-length` is not one to ten decimal digits.
    #[error("The content-length header is not a number of octets")]
    InvalidContentLength,
    /// The octet after the counted body is not NUL.
    #[error("The body of {content_length} octets is not followed by a NUL")]
    MissingTerminator {
        /// What `content-length` said, in octets.
        content_length: usize,
    },
}

impl FrameError {
    /// The short text for the `message` header of the `ERROR` frame.
    #[must_use]
    pub fn message(&self) -> &'static str {
        match self {
            Self::CommandTooLong { .. }
            | Self::HeaderTooLong { .. }
            | Self::TooManyHeaders { .. }
            | Self::HeadTooLong { .. }
            | Self::BodyTooLong { .. }
            | Self::FrameTooLong { .. } => "Frame too large",
            Self::LoneCarriageReturn { .. }
            | Self::NulInHead { .. }
            | Self::NotAHeader { .. }
            | Self::UndefinedEscape { .. }
            | Self::InvalidContentLength
            | Self::MissingTerminator { .. } => "Invalid frame",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_frame_too_large_and_anything_else_is_invalid_frame() {
        assert_eq!(FrameError::CommandTooLong { max: 32 }.message(), "Frame too large");
        assert_eq!(FrameError::BodyTooLong { max: 1 }.message(), "Frame too large");
        assert_eq!(FrameError::NotAHeader { line: 2 }.message(), "Invalid frame");
        assert_eq!(FrameError::InvalidContentLength.message(), "Invalid frame");
    }

    #[test]
    fn the_detail_names_the_line_and_the_limit() {
        assert_eq!(
            FrameError::HeaderTooLong { line: 3, max: 8192 }.to_string(),
            "Line 3 is longer than 8192 octets"
        );
    }
}
