//! What a peer can do wrong on the level of octets, and how it is told.
//!
//! Each error has `code`, the reply code, and `detail`, the reply text without its `NAME - ` prefix
//! (see [`reply_text`](crate::types::reply_text)). The texts are RabbitMQ's where it has one, because
//! clients and people look for them. Of the peer's octets at most [`Octets::SHOWN_MAX`] are shown, as
//! numbers: nothing a peer sends can make a text or a log line long or unprintable.
//!
//! All of these end the connection. Errors of requests (no such queue, no permission) are not here:
//! they belong to the broker.

use std::{fmt, io};

use crate::{
    method::MethodId,
    reply::ReplyCode,
    table::{DEPTH_MAX, ENTRIES_MAX, LEN_MAX},
};

/// The first octets of something, kept for an error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octets {
    first: [u8; Self::SHOWN_MAX],
    /// The length of the whole, of which `first` holds the beginning.
    len: usize,
}

impl Octets {
    /// How many octets of a peer's an error text shows at most.
    pub const SHOWN_MAX: usize = 16;

    /// Keeps the beginning of `octets`.
    #[must_use]
    pub fn of(octets: &[u8]) -> Self {
        let mut first = [0; Self::SHOWN_MAX];
        for (kept, octet) in first.iter_mut().zip(octets) {
            *kept = *octet;
        }
        Self { first, len: octets.len() }
    }

    /// The octets that were kept.
    #[must_use]
    pub fn shown(&self) -> &[u8] {
        self.first.get(..self.len).unwrap_or(&self.first)
    }

    /// `all octets = <<…>>`, or `first 16 octets = <<…>>` when there are more.
    fn labelled(&self) -> Labelled<'_> {
        Labelled(self)
    }
}

/// `<<1,2,3>>`, and `<<1,2,…,16,...>>` when there are more than are shown.
impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<<")?;
        write_numbers(f, self.shown())?;
        f.write_str(if self.len > Self::SHOWN_MAX { ",...>>" } else { ">>" })
    }
}

struct Labelled<'a>(&'a Octets);

impl fmt::Display for Labelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len > Octets::SHOWN_MAX {
            write!(f, "first {} octets = <<", Octets::SHOWN_MAX)?;
        } else {
            f.write_str("all octets = <<")?;
        }
        write_numbers(f, self.0.shown())?;
        f.write_str(">>")
    }
}

fn write_numbers(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    for (position, octet) in octets.iter().enumerate() {
        if position > 0 {
            f.write_str(",")?;
        }
        write!(f, "{octet}")?;
    }
    Ok(())
}

/// A frame that is not one, or stands where it may not. The octets after it cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The payload is larger than the negotiated maximum and the eight octets forgiven above it.
    #[error(
        "type {kind}, all octets = <<>>: {{frame_too_large,{size},{}}}",
        frame_max.saturating_sub(crate::frame::FRAME_OVERHEAD)
    )]
    TooLarge {
        /// The frame's type octet.
        kind: u8,
        /// The payload's announced size in octets.
        size: u32,
        /// The negotiated frame-max in octets.
        frame_max: u32,
    },
    /// The octet after the payload is not 0xCE.
    #[error("type {kind}, {}: {{invalid_frame_end_marker,{end}}}", payload.labelled())]
    BadEnd {
        /// The frame's type octet.
        kind: u8,
        /// The payload's beginning.
        payload: Octets,
        /// The octet found in the place of the frame end.
        end: u8,
    },
    /// A type octet other than 1, 2, 3 and 8, a heartbeat with a payload, or a method or content
    /// header too short for its fixed fields: RabbitMQ has one text for them all.
    #[error("type {kind}, {}: unknown_frame", payload.labelled())]
    Unknown {
        /// The frame's type octet.
        kind: u8,
        /// The payload's beginning.
        payload: Octets,
    },
    /// A heartbeat on a channel, or a content header or body on channel 0.
    #[error("type {kind}, {}", payload.labelled())]
    WrongChannel {
        /// The frame's type octet.
        kind: u8,
        /// The payload's beginning.
        payload: Octets,
    },
}

impl FrameError {
    /// 505 for a frame on the wrong channel, else 501.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        match self {
            Self::TooLarge { .. } | Self::BadEnd { .. } | Self::Unknown { .. } => {
                ReplyCode::FRAME_ERROR
            }
            Self::WrongChannel { .. } => ReplyCode::UNEXPECTED_FRAME,
        }
    }

    /// The reply text without `NAME - `. The close method carries class and method 0.
    #[must_use]
    pub fn detail(&self) -> String {
        self.to_string()
    }
}

/// What went wrong on a stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The octets do not make frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame to be written has more payload than the frame-max allows.
    #[error("a payload of {len} octets does not fit a frame-max of {frame_max}")]
    PayloadTooLarge {
        /// The payload's length in octets.
        len: usize,
        /// The codec's frame-max in octets.
        frame_max: u32,
    },
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A method frame whose payload cannot be taken as a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodError {
    /// Class and method, when the payload had that much.
    pub id: Option<MethodId>,
    /// What is wrong.
    pub kind: MethodErrorKind,
    /// The beginning of the arguments, or of the payload when there is no id.
    pub arguments: Octets,
}

/// What is wrong with a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodErrorKind {
    /// The payload ends before its last argument does.
    Truncated,
    /// An argument has no value of its type; the text says what, for the log.
    BadArguments(&'static str),
    /// The version of the connection has no such method.
    UnknownMethod,
    /// A field table nests deeper than [`DEPTH_MAX`].
    TableTooDeep,
    /// A field table has more than [`ENTRIES_MAX`] entries or [`LEN_MAX`] octets.
    TableTooLarge,
    /// A short string argument is not UTF-8.
    MalformedUtf8,
}

impl From<TableError> for MethodErrorKind {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Truncated => Self::BadArguments("a field runs past the end of its table"),
            TableError::UnknownType(_) => Self::BadArguments("unknown field type"),
            // Only a writer meets it: on the wire a name's length is one octet.
            TableError::NameTooLong(_) => Self::BadArguments("a field name is too long"),
            TableError::TooDeep { .. } => Self::TableTooDeep,
            TableError::TooManyEntries { .. } | TableError::TooLarge { .. } => Self::TableTooLarge,
        }
    }
}

impl MethodError {
    /// The reply code: 501 for octets that do not decode, as RabbitMQ has it, 502 for a table beyond
    /// the limits, 503 for a method that does not exist.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        match self.kind {
            MethodErrorKind::Truncated
            | MethodErrorKind::BadArguments(_)
            | MethodErrorKind::MalformedUtf8 => ReplyCode::FRAME_ERROR,
            MethodErrorKind::TableTooDeep | MethodErrorKind::TableTooLarge => {
                ReplyCode::SYNTAX_ERROR
            }
            // RabbitMQ: drops the connection without a word.
            MethodErrorKind::UnknownMethod => ReplyCode::COMMAND_INVALID,
        }
    }

    /// The reply text without `NAME - `.
    #[must_use]
    pub fn detail(&self) -> String {
        match (self.kind, self.id) {
            (MethodErrorKind::Truncated, None) => {
                FrameError::Unknown { kind: crate::frame::FRAME_METHOD, payload: self.arguments }
                    .detail()
            }
            (MethodErrorKind::Truncated | MethodErrorKind::BadArguments(_), _) => {
                format!("cannot decode {}", self.arguments)
            }
            (MethodErrorKind::UnknownMethod, _) => "unimplemented method".to_owned(),
            (MethodErrorKind::TableTooDeep, _) => {
                format!("field table nested deeper than {DEPTH_MAX} levels")
            }
            (MethodErrorKind::TableTooLarge, _) => {
                format!("field table with more than {ENTRIES_MAX} entries or {LEN_MAX} octets")
            }
            (MethodErrorKind::MalformedUtf8, _) => "Malformed UTF-8 in shortstr".to_owned(),
        }
    }

    /// The class and method that the close method names: 0, 0 for malformed UTF-8, as RabbitMQ has
    /// it, and where there were none.
    #[must_use]
    pub fn close_id(&self) -> MethodId {
        match self.kind {
            MethodErrorKind::MalformedUtf8 => MethodId::NONE,
            _ => self.id.unwrap_or(MethodId::NONE),
        }
    }
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = self.id {
            write!(f, "{id}: ")?;
        }
        f.write_str(&self.detail())?;
        if let MethodErrorKind::BadArguments(why) = self.kind {
            write!(f, " ({why})")?;
        }
        Ok(())
    }
}

impl std::error::Error for MethodError {}

/// A method that cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The peer's version of the protocol has no such method.
    #[error("{id} does not exist in AMQP {version}")]
    NotInVersion {
        /// The method's 0-9-1 id.
        id: MethodId,
        /// The connection's version.
        version: crate::types::Version,
    },
    /// The arguments could not be written as octets.
    #[error("the arguments of {0} cannot be written")]
    Arguments(MethodId),
}

/// A content (method, header, bodies) that does not come in its order or has a bad header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// A header or body came when a method was due.
    #[error("expected method frame, got non method frame instead")]
    ExpectedMethod,
    /// A method or body came when a header was due, or the header's weight was not 0 (RabbitMQ has
    /// one text for both).
    #[error("expected content header for class 60, got non content header frame instead")]
    ExpectedHeader,
    /// The header is for another class than basic.
    #[error("expected content header for class 60, got one for class {0} instead")]
    WrongClass(u16),
    /// A method or header came when a body was due.
    #[error("expected content body, got non content body frame instead")]
    ExpectedBody,
    /// The header frame is too short for its fixed fields.
    #[error(transparent)]
    HeaderTruncated(FrameError),
    /// More body came than the header declared. RabbitMQ: waits for the next frame that is no body.
    #[error("content body of {received} octets is longer than the {declared} declared")]
    BodyTooLong {
        /// The octets of body received with this frame.
        received: u64,
        /// The octets of body that the header declared.
        declared: u64,
    },
}

impl ContentError {
    /// 501 for a malformed header or a body beyond its size, 505 for a frame out of turn.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        match self {
            Self::HeaderTruncated(_) | Self::BodyTooLong { .. } => ReplyCode::FRAME_ERROR,
            Self::ExpectedMethod
            | Self::ExpectedHeader
            | Self::WrongClass(_)
            | Self::ExpectedBody => ReplyCode::UNEXPECTED_FRAME,
        }
    }

    /// The reply text without `NAME - `.
    #[must_use]
    pub fn detail(&self) -> String {
        self.to_string()
    }

    /// The class and method that the close method names: the publish whose content it was, if any.
    #[must_use]
    pub const fn close_id(&self) -> MethodId {
        match self {
            Self::ExpectedMethod | Self::HeaderTruncated(_) => MethodId::NONE,
            Self::ExpectedHeader
            | Self::WrongClass(_)
            | Self::ExpectedBody
            | Self::BodyTooLong { .. } => MethodId::BASIC_PUBLISH,
        }
    }
}

/// A property list that cannot be taken or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    /// The list ends before its last property does.
    #[error("property list ends within {0}")]
    Truncated(&'static str),
    /// The flags announce a second word of flags, which class basic does not have.
    #[error("property flags continue in a second word")]
    Continuation,
    /// Octets follow the last property.
    #[error("octets after the last property: {0}")]
    Trailing(usize),
    /// The headers table is malformed or beyond the limits.
    #[error("headers: {0}")]
    Headers(#[from] TableError),
    /// A property to be written is longer than its length field can say.
    #[error("{0} is too long")]
    TooLong(&'static str),
}

impl PropertiesError {
    /// 502. RabbitMQ: answers 541 without a text.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        ReplyCode::SYNTAX_ERROR
    }

    /// The reply text without `NAME - `.
    #[must_use]
    pub fn detail(&self) -> String {
        self.to_string()
    }
}

/// A field table that cannot be taken or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A name or value ends beyond the end of its table or array.
    #[error("field table entry runs past the end of its table")]
    Truncated,
    /// A value's type letter has no meaning.
    #[error("unknown field type {0}")]
    UnknownType(u8),
    /// Tables or arrays within one another beyond the limit.
    #[error("field table nested deeper than {max} levels")]
    TooDeep {
        /// The limit that was passed.
        max: usize,
    },
    /// More entries, those of nested tables and arrays included, than the limit.
    #[error("field table with more than {max} entries")]
    TooManyEntries {
        /// The limit that was passed.
        max: usize,
    },
    /// More octets than the limit, or, when writing, than a length field can say.
    #[error("field table longer than {max} octets")]
    TooLarge {
        /// The limit that was passed, in octets.
        max: usize,
    },
    /// A name to be written is longer than 255 octets.
    #[error("field name of {0} octets")]
    NameTooLong(usize),
}

/// A SASL response that does not follow its mechanism's grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// PLAIN: not `NUL user NUL password`.
    #[error("malformed PLAIN response")]
    Plain,
    /// AMQPLAIN: not the contents of a field table.
    #[error("malformed AMQPLAIN response: {0}")]
    Amqplain(TableError),
    /// AMQPLAIN: no field of this name, or one that is not a long string.
    #[error("AMQPLAIN response without a long string {0}")]
    AmqplainField(&'static str),
}

impl SaslError {
    /// 502.
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        ReplyCode::SYNTAX_ERROR
    }

    /// The reply text without `NAME - `.
    #[must_use]
    pub fn detail(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_shown_as_numbers_and_cut_at_sixteen() {
        assert_eq!(Octets::of(&[]).to_string(), "<<>>");
        assert_eq!(Octets::of(&[0, 65, 255]).to_string(), "<<0,65,255>>");
        let sixteen: Vec<u8> = (1..=16).collect();
        assert_eq!(Octets::of(&sixteen).to_string(), "<<1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16>>");
        let seventeen: Vec<u8> = (1..=17).collect();
        assert_eq!(
            Octets::of(&seventeen).to_string(),
            "<<1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,...>>"
        );
    }

    #[test]
    fn the_label_says_whether_all_octets_are_shown() {
        assert_eq!(Octets::of(&[7]).labelled().to_string(), "all octets = <<7>>");
        assert_eq!(
            Octets::of(&[1; 17]).labelled().to_string(),
            "first 16 octets = <<1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1>>"
        );
    }

    #[test]
    fn a_method_error_names_its_method_except_for_malformed_utf8() {
        let id = MethodId { class: 50, method: 10 };
        let error = |kind| MethodError { id: Some(id), kind, arguments: Octets::of(&[1, 2]) };
        let truncated = error(MethodErrorKind::Truncated);
        assert_eq!(truncated.close_id(), id);
        assert_eq!(truncated.detail(), "cannot decode <<1,2>>");
        assert_eq!(truncated.to_string(), "queue.declare: cannot decode <<1,2>>");
        let utf8 = error(MethodErrorKind::MalformedUtf8);
        assert_eq!(utf8.close_id(), MethodId::NONE);
        assert_eq!(utf8.detail(), "Malformed UTF-8 in shortstr");
        let bad = error(MethodErrorKind::BadArguments("unknown field type"));
        assert_eq!(bad.to_string(), "queue.declare: cannot decode <<1,2>> (unknown field type)");
    }

    #[test]
    fn a_method_without_an_id_has_the_text_of_an_unknown_frame() {
        let error = MethodError {
            id: None,
            kind: MethodErrorKind::Truncated,
            arguments: Octets::of(&[0, 60]),
        };
        assert_eq!(error.code(), ReplyCode::FRAME_ERROR);
        assert_eq!(error.detail(), "type 1, all octets = <<0,60>>: unknown_frame");
    }
}
