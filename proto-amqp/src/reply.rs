//! Reply codes: the numbers of close and return methods, their names and their scope.
//!
//! A *soft* error ends a channel, a *hard* one the connection (AMQP 0-9-1 §1.2). On channel 0 every
//! error ends the connection, whatever its kind; that rule is the server's to apply.

use std::fmt;

/// A reply code as it stands in `connection.close`, `channel.close` and `basic.return`.
///
/// Peers may send any number, so this is a number with names and not an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(pub u16);

impl ReplyCode {
    /// 200: a normal close.
    pub const REPLY_SUCCESS: Self = Self(200);
    /// 311, soft. The XML's answer to an oversized content; RabbitMQ answers 406.
    pub const CONTENT_TOO_LARGE: Self = Self(311);
    /// 312, soft: a mandatory message reached no queue (`basic.return` only).
    pub const NO_ROUTE: Self = Self(312);
    /// 313, soft: an immediate message found no consumer. RabbitMQ never sends it.
    pub const NO_CONSUMERS: Self = Self(313);
    /// 320, hard: closed by an operator or by shutdown.
    pub const CONNECTION_FORCED: Self = Self(320);
    /// 402, hard: an unknown virtual host in the XML; RabbitMQ answers 530.
    pub const INVALID_PATH: Self = Self(402);
    /// 403, soft on a channel: no permission, a reserved name, an exclusive consumer.
    pub const ACCESS_REFUSED: Self = Self(403);
    /// 404, soft: no such exchange or queue.
    pub const NOT_FOUND: Self = Self(404);
    /// 405, soft: an exclusive queue of another connection.
    pub const RESOURCE_LOCKED: Self = Self(405);
    /// 406, soft: an inequivalent redeclare, a bad argument, an unknown delivery tag.
    pub const PRECONDITION_FAILED: Self = Self(406);
    /// 501, hard: a malformed frame.
    pub const FRAME_ERROR: Self = Self(501);
    /// 502, hard: a malformed value inside a well-formed frame.
    pub const SYNTAX_ERROR: Self = Self(502);
    /// 503, hard: a method that does not exist or is not valid here.
    pub const COMMAND_INVALID: Self = Self(503);
    /// 504, hard: the channel's state forbids it.
    pub const CHANNEL_ERROR: Self = Self(504);
    /// 505, hard: a frame out of turn.
    pub const UNEXPECTED_FRAME: Self = Self(505);
    /// 506, hard: a resource is unavailable.
    pub const RESOURCE_ERROR: Self = Self(506);
    /// 530, hard: forbidden by a limit or by negotiation.
    pub const NOT_ALLOWED: Self = Self(530);
    /// 540, hard: a feature that the server does not have.
    pub const NOT_IMPLEMENTED: Self = Self(540);
    /// 541, hard: our bug.
    pub const INTERNAL_ERROR: Self = Self(541);

    /// The constant's name as reply texts begin with it; `UNKNOWN` for a number without one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::REPLY_SUCCESS => "REPLY_SUCCESS",
            Self::CONTENT_TOO_LARGE => "CONTENT_TOO_LARGE",
            Self::NO_ROUTE => "NO_ROUTE",
            Self::NO_CONSUMERS => "NO_CONSUMERS",
            Self::CONNECTION_FORCED => "CONNECTION_FORCED",
            Self::INVALID_PATH => "INVALID_PATH",
            Self::ACCESS_REFUSED => "ACCESS_REFUSED",
            Self::NOT_FOUND => "NOT_FOUND",
            Self::RESOURCE_LOCKED => "RESOURCE_LOCKED",
            Self::PRECONDITION_FAILED => "PRECONDITION_FAILED",
            Self::FRAME_ERROR => "FRAME_ERROR",
            Self::SYNTAX_ERROR => "SYNTAX_ERROR",
            Self::COMMAND_INVALID => "COMMAND_INVALID",
            Self::CHANNEL_ERROR => "CHANNEL_ERROR",
            Self::UNEXPECTED_FRAME => "UNEXPECTED_FRAME",
            Self::RESOURCE_ERROR => "RESOURCE_ERROR",
            Self::NOT_ALLOWED => "NOT_ALLOWED",
            Self::NOT_IMPLEMENTED => "NOT_IMPLEMENTED",
            Self::INTERNAL_ERROR => "INTERNAL_ERROR",
            _ => "UNKNOWN",
        }
    }

    /// Whether the error ends the connection even when it was raised on a channel.
    ///
    /// A number without a name counts as hard from 500 on, as the XML's own numbers do.
    #[must_use]
    pub const fn is_hard(self) -> bool {
        matches!(self, Self::CONNECTION_FORCED | Self::INVALID_PATH) || self.0 >= 500
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.name())
    }
}

#[cfg(test)]
mod tests {
    use amq_protocol::protocol::AMQPErrorKind;

    use super::*;

    #[test]
    fn scope_agrees_with_the_generated_tables_of_amq_protocol() {
        for number in 0..=u16::MAX {
            let code = ReplyCode(number);
            match AMQPErrorKind::from_id(number) {
                Some(AMQPErrorKind::Soft(_)) => {
                    assert!(!code.is_hard(), "{code}");
                    assert_ne!(code.name(), "UNKNOWN", "{number}");
                }
                Some(AMQPErrorKind::Hard(_)) => {
                    assert!(code.is_hard(), "{code}");
                    assert_ne!(code.name(), "UNKNOWN", "{number}");
                }
                None => assert!(
                    code == ReplyCode::REPLY_SUCCESS || code.name() == "UNKNOWN",
                    "{code} has a name but is in no table"
                ),
            }
        }
    }

    #[test]
    fn access_refused_is_soft_and_syntax_error_is_hard() {
        assert!(!ReplyCode::ACCESS_REFUSED.is_hard());
        assert!(ReplyCode::SYNTAX_ERROR.is_hard());
        assert!(!ReplyCode::REPLY_SUCCESS.is_hard());
    }

    #[test]
    fn a_code_displays_number_and_name() {
        assert_eq!(ReplyCode::NO_ROUTE.to_string(), "312 NO_ROUTE");
        assert_eq!(ReplyCode(777).to_string(), "777 UNKNOWN");
    }
}
