//! How much of a frame is accepted.
//!
//! Every bound is checked while the octets arrive, and a declared length when it is declared, so that
//! what a peer can make the caller hold is bounded by what stands here. STOMP 1.2 "Size Limits" allows
//! each of them.

/// Bounds of one frame. All lengths are in octets.
///
/// A frame that reaches a bound exactly is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The command, without its line end.
    pub command_len_max: usize,
    /// Header lines, repeated headers included.
    pub header_count_max: usize,
    /// One header line as it is on the wire (escaped), without its line end.
    pub header_len_max: usize,
    /// Command and header lines together, with their line ends, without the blank line after them.
    pub head_len_max: usize,
    /// The body.
    pub body_len_max: usize,
    /// Everything from the command's first octet to the NUL, both included.
    pub frame_len_max: usize,
}

/// Longer than any command, and short enough to recognise a stranger's protocol at once.
const COMMAND_LEN_MAX: usize = 32;
const HEADER_COUNT_MAX: usize = 100;
const HEADER_LEN_MAX: usize = 8 * 1024;
const HEAD_LEN_MAX: usize = 64 * 1024;
/// A whole frame of a peer that has not logged in.
const FRAME_LEN_MAX_BEFORE_LOGIN: usize = 64 * 1024;

impl Limits {
    /// For a peer that has not logged in: the whole frame has to fit 64 KiB.
    #[must_use]
    pub const fn before_login() -> Self {
        Self {
            command_len_max: COMMAND_LEN_MAX,
            header_count_max: HEADER_COUNT_MAX,
            header_len_max: HEADER_LEN_MAX,
            head_len_max: HEAD_LEN_MAX,
            body_len_max: FRAME_LEN_MAX_BEFORE_LOGIN,
            frame_len_max: FRAME_LEN_MAX_BEFORE_LOGIN,
        }
    }

    /// For a peer that has logged in: a body of `message_len_max` octets, and 64 KiB for the rest.
    #[must_use]
    pub const fn after_login(message_len_max: usize) -> Self {
        Self {
            body_len_max: message_len_max,
            frame_len_max: message_len_max.saturating_add(HEAD_LEN_MAX),
            ..Self::before_login()
        }
    }

    /// For a client reading a server it trusts: a message that came in through AMQP may have more
    /// and longer headers than a STOMP client may send, and escapes double their length.
    #[must_use]
    pub const fn from_server(message_len_max: usize) -> Self {
        const HEAD_LEN_MAX_FROM_SERVER: usize = 1024 * 1024;
        Self {
            command_len_max: COMMAND_LEN_MAX,
            header_count_max: 2048,
            header_len_max: HEAD_LEN_MAX_FROM_SERVER,
            head_len_max: HEAD_LEN_MAX_FROM_SERVER,
            body_len_max: message_len_max,
            frame_len_max: message_len_max.saturating_add(HEAD_LEN_MAX_FROM_SERVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_64_kib_in_all() {
        assert_eq!(Limits::before_login().frame_len_max, 65_536);
        assert_eq!(Limits::before_login().head_len_max, 65_536);
    }

    #[test]
    fn logging_in_changes_the_body_and_the_frame_only() {
        let after = Limits::after_login(1000);
        let expected =
            Limits { body_len_max: 1000, frame_len_max: 66_536, ..Limits::before_login() };
        assert_eq!(after, expected);
    }

    #[test]
    fn the_largest_message_length_does_not_overflow() {
        assert_eq!(Limits::after_login(usize::MAX).frame_len_max, usize::MAX);
    }
}
