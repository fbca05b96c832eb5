//! Small types that keep two numbers of one width apart, the protocol versions, and the reply text.
//!
//! Nothing here reads or writes frames. `amq_protocol`'s types of values (field tables, short
//! strings) are another thing: [`control`](crate::control) re-exports them.

use std::fmt;

use crate::reply::ReplyCode;

/// A channel's number within its connection; 0 is the connection itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

impl ChannelId {
    /// The channel of connection-class methods and heartbeats.
    pub const CONNECTION: Self = Self(0);
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a delivery within its channel, from 1; in an acknowledgement 0 means "all so far".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(pub u64);

impl fmt::Display for DeliveryTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The protocol version a connection speaks, settled by its protocol header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// AMQP 0-9-1 with RabbitMQ's extensions.
    V0_9_1,
    /// AMQP 0-9: the same octets, and `basic.recover` also by its older number.
    V0_9,
    /// AMQP 0-8: other numbers for `connection.close`, fewer arguments, fewer methods.
    V0_8,
}

impl Version {
    /// The `version-major` and `version-minor` of `connection.start`.
    #[must_use]
    pub const fn start_version(self) -> (u8, u8) {
        match self {
            Self::V0_9_1 | Self::V0_9 => (0, 9),
            Self::V0_8 => (8, 0),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_9_1 => "0-9-1",
            Self::V0_9 => "0-9",
            Self::V0_8 => "0-8",
        })
    }
}

/// The most octets a short string holds: its length is one octet.
pub const SHORTSTR_LEN_MAX: usize = 255;

/// What a reply text that was cut ends with.
const CUT_MARK: &str = "...";

/// The `reply-text` of a close or return method: `NAME - detail`.
///
/// A text above 255 octets would not fit the short string it travels in: it is cut to at most 252
/// octets, never inside a character, and `...` is appended. The result always fits.
#[must_use]
pub fn reply_text(code: ReplyCode, detail: &str) -> String {
    let mut text = format!("{} - {detail}", code.name());
    if text.len() > SHORTSTR_LEN_MAX {
        text.truncate(text.floor_char_boundary(SHORTSTR_LEN_MAX - CUT_MARK.len()));
        text.push_str(CUT_MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_text_names_its_code() {
        assert_eq!(
            reply_text(ReplyCode::NOT_FOUND, "no queue 'q' in vhost '/'"),
            "NOT_FOUND - no queue 'q' in vhost '/'"
        );
    }

    #[test]
    fn a_reply_text_of_255_octets_is_not_cut() {
        let detail = "d".repeat(255 - "NOT_FOUND - ".len());
        let text = reply_text(ReplyCode::NOT_FOUND, &detail);
        assert_eq!(text.len(), 255);
        assert!(text.ends_with('d'));
    }

    #[test]
    fn a_longer_reply_text_is_cut_to_252_octets_and_marked() {
        let detail = "d".repeat(256 - "NOT_FOUND - ".len());
        let text = reply_text(ReplyCode::NOT_FOUND, &detail);
        assert_eq!(text.len(), 255);
        assert!(text.ends_with("d..."));
    }

    #[test]
    fn a_reply_text_is_never_cut_inside_a_character() {
        // "NOT_FOUND - " is 12 octets: 80 three-octet characters end at 252, so one octet more
        // moves the cut into a character.
        for lead in ["", "x", "xx"] {
            let text = reply_text(ReplyCode::NOT_FOUND, &format!("{lead}{}", "€".repeat(200)));
            assert!(text.len() <= 255 && text.len() > 250, "{}", text.len());
            assert!(text.ends_with("€..."), "{text}");
        }
    }
}
