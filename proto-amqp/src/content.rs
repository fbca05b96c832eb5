//! Contents: a method, a header and bodies, frame after frame on one channel.
//!
//! ```text
//!  Idle ──basic.publish──▶ ExpectHeader ──header──▶ ExpectBody ──bodies of body-size octets──▶ Idle
//!                                            └── body-size 0 ──▶ Idle
//! ```
//!
//! [`ContentHeader::parse`] borrows, for contents whose frames lie in one read. Those that do not are
//! put together by a [`ContentAssembler`], which owns its octets: a slice of a read buffer would keep
//! all of that buffer alive. Its memory follows what has arrived; a declared size alone buys none. Whether
//! the declared size is allowed is for the caller, who asks [`ContentAssembler::declared_len`] or
//! looks at the header. Property lists are kept as they are; [`properties`](crate::properties) checks
//! them.

use crate::{
    basic::{CLASS_BASIC, Publish},
    error::{FrameError, Octets},
    frame::FRAME_HEADER,
    read::Reader,
};

pub use crate::error::ContentError;

/// The payload of a content header frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method before it: 60.
    pub class_id: u16,
    /// Octets of body to come.
    pub body_size: u64,
    /// Flags and property list as on the wire, not checked here.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Takes a header's payload apart.
    ///
    /// # Errors
    /// [`ContentError::HeaderTruncated`], [`ContentError::WrongClass`], and
    /// [`ContentError::ExpectedHeader`] for a weight other than 0.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(payload);
        let fixed = reader.short().zip(reader.short()).zip(reader.longlong());
        let Some(((class_id, weight), body_size)) = fixed else {
            return Err(ContentError::HeaderTruncated(FrameError::Unknown {
                kind: FRAME_HEADER,
                payload: Octets::of(payload),
            }));
        };
        if class_id != CLASS_BASIC {
            return Err(ContentError::WrongClass(class_id));
        }
        if weight != 0 {
            return Err(ContentError::ExpectedHeader);
        }
        Ok(Self { class_id, body_size, properties: reader.rest() })
    }
}

/// A `basic.publish` that outlives the frame it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishOwned {
    /// Exchange and routing key, one after the other.
    names: Box<[u8]>,
    exchange_len: usize,
    mandatory: bool,
    immediate: bool,
}

impl PublishOwned {
    /// The method, borrowed.
    #[must_use]
    pub fn as_publish(&self) -> Publish<'_> {
        let (exchange, routing_key) =
            self.names.split_at_checked(self.exchange_len).unwrap_or_default();
        Publish { exchange, routing_key, mandatory: self.mandatory, immediate: self.immediate }
    }
}

impl From<&Publish<'_>> for PublishOwned {
    fn from(publish: &Publish<'_>) -> Self {
        Self {
            names: [publish.exchange, publish.routing_key].concat().into_boxed_slice(),
            exchange_len: publish.exchange.len(),
            mandatory: publish.mandatory,
            immediate: publish.immediate,
        }
    }
}

/// A whole content with its method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The method it belongs to.
    pub method: PublishOwned,
    /// Flags and property list as on the wire.
    pub properties: Vec<u8>,
    /// The body, joined.
    pub body: Vec<u8>,
}

/// The content a channel is in the middle of, if any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContentAssembler {
    /// No content is under way: a method is due.
    #[default]
    Idle,
    /// The method has come: its header is due.
    ExpectHeader {
        /// The method.
        method: PublishOwned,
    },
    /// Bodies are due until there are `declared` octets of them.
    ExpectBody {
        /// The method.
        method: PublishOwned,
        /// Flags and property list as on the wire.
        properties: Vec<u8>,
        /// The octets of body that the header declared, more than have arrived.
        declared: u64,
        /// What has arrived.
        body: Vec<u8>,
    },
}

impl ContentAssembler {
    /// Begins a content with its method.
    ///
    /// # Errors
    /// As [`ContentAssembler::expect_method`].
    pub fn method(&mut self, publish: &Publish<'_>) -> Result<(), ContentError> {
        self.expect_method()?;
        *self = Self::ExpectHeader { method: publish.into() };
        Ok(())
    }

    /// Takes the header; gives the content if it has no body.
    ///
    /// # Errors
    /// [`ContentError::ExpectedMethod`] or [`ContentError::ExpectedBody`] when no header is due. The
    /// state is then unchanged; the connection cannot go on.
    pub fn header(&mut self, header: &ContentHeader<'_>) -> Result<Option<Content>, ContentError> {
        match std::mem::take(self) {
            Self::ExpectHeader { method } => {
                let properties = header.properties.to_vec();
                if header.body_size == 0 {
                    return Ok(Some(Content { method, properties, body: Vec::new() }));
                }
                *self = Self::ExpectBody {
                    method,
                    properties,
                    declared: header.body_size,
                    body: Vec::new(),
                };
                Ok(None)
            }
            other => {
                *self = other;
                Err(self.not_due())
            }
        }
    }

    /// Takes a piece of body; gives the content when that was the last. An empty piece is accepted.
    ///
    /// # Errors
    /// [`ContentError::ExpectedMethod`] or [`ContentError::ExpectedHeader`] when no body is due,
    /// [`ContentError::BodyTooLong`] when the piece goes beyond the declared size; nothing of it is
    /// kept. The connection cannot go on.
    pub fn body(&mut self, piece: &[u8]) -> Result<Option<Content>, ContentError> {
        let Self::ExpectBody { declared, body, .. } = self else {
            return Err(self.not_due());
        };
        let received = len_u64(body.len()).saturating_add(len_u64(piece.len()));
        if received > *declared {
            return Err(ContentError::BodyTooLong { received, declared: *declared });
        }
        grow(body, piece.len(), *declared);
        body.extend_from_slice(piece);
        if received < *declared {
            return Ok(None);
        }
        match std::mem::take(self) {
            Self::ExpectBody { method, properties, body, .. } => {
                Ok(Some(Content { method, properties, body }))
            }
            Self::Idle | Self::ExpectHeader { .. } => Ok(None),
        }
    }

    /// Refuses a method frame in the middle of a content.
    ///
    /// # Errors
    /// [`ContentError::ExpectedHeader`] or [`ContentError::ExpectedBody`], whichever was due.
    pub const fn expect_method(&self) -> Result<(), ContentError> {
        match self {
            Self::Idle => Ok(()),
            Self::ExpectHeader { .. } | Self::ExpectBody { .. } => Err(self.not_due()),
        }
    }

    /// The octets of body that the header has declared; `None` before the header.
    #[must_use]
    pub const fn declared_len(&self) -> Option<u64> {
        match self {
            Self::ExpectBody { declared, .. } => Some(*declared),
            Self::Idle | Self::ExpectHeader { .. } => None,
        }
    }

    /// The octets of body held.
    #[must_use]
    pub const fn received_len(&self) -> usize {
        match self {
            Self::ExpectBody { body, .. } => body.len(),
            Self::Idle | Self::ExpectHeader { .. } => 0,
        }
    }

    /// Whether no content is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// The error for a frame that is not the one this state waits for.
    const fn not_due(&self) -> ContentError {
        match self {
            Self::Idle => ContentError::ExpectedMethod,
            Self::ExpectHeader { .. } => ContentError::ExpectedHeader,
            Self::ExpectBody { .. } => ContentError::ExpectedBody,
        }
    }
}

/// Octets that must have arrived, and [`FAIR_SHARE`] of the declared size with them, before a header is believed.
const BELIEVED_FROM: usize = 1024 * 1024;

/// One part in so many of the declared size.
const FAIR_SHARE: usize = 8;

/// Makes room for `more` octets that have arrived. At first the room at least doubles, so that a body in many pieces is
/// copied a constant number of times. Once a fair share has come the rest has room at once: memory that nobody has
/// written to costs nothing, while doubling a large body holds it one and a half times. Never beyond the declared size,
/// so that a whole body has no slack.
fn grow(body: &mut Vec<u8>, more: usize, declared: u64) {
    let needed = body.len().saturating_add(more);
    if needed <= body.capacity() {
        return;
    }
    let whole = usize::try_from(declared).unwrap_or(usize::MAX);
    let is_believed = needed >= BELIEVED_FROM && needed >= whole / FAIR_SHARE;
    let wanted =
        if is_believed { whole } else { body.capacity().saturating_mul(2).max(needed).min(whole) };
    body.reserve_exact(wanted.saturating_sub(body.len()));
}

/// Lossless: no platform has lengths of more than 64 bits.
const fn len_u64(len: usize) -> u64 {
    len as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{method::MethodId, reply::ReplyCode};

    const PUBLISH: Publish<'static> =
        Publish { exchange: b"ex", routing_key: b"key", mandatory: true, immediate: false };

    fn header(body_size: u64) -> ContentHeader<'static> {
        ContentHeader { class_id: 60, body_size, properties: &[0x10, 0, 2] }
    }

    fn expecting_body(declared: u64) -> ContentAssembler {
        let mut assembler = ContentAssembler::default();
        assembler.method(&PUBLISH).unwrap();
        assert_eq!(assembler.header(&header(declared)), Ok(None));
        assembler
    }

    #[test]
    fn a_header_is_taken_apart() {
        let payload = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0x10, 0, 2];
        assert_eq!(ContentHeader::parse(&payload), Ok(header(258)));
    }

    #[test]
    fn a_header_cut_short_is_an_unknown_frame() {
        let payload = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(ContentHeader::parse(&payload).is_ok());
        for len in 0..payload.len() {
            let error = ContentHeader::parse(&payload[..len]).unwrap_err();
            assert_eq!(error.code(), ReplyCode::FRAME_ERROR);
            assert!(error.detail().starts_with("type 2, all octets = <<"), "{}", error.detail());
            assert!(error.detail().ends_with(">>: unknown_frame"), "{}", error.detail());
        }
    }

    #[test]
    fn a_header_of_another_class_or_weight_is_unexpected() {
        let error = ContentHeader::parse(&[0, 61, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(
            (error.code(), error.detail().as_str()),
            (
                ReplyCode::UNEXPECTED_FRAME,
                "expected content header for class 60, got one for class 61 instead"
            )
        );
        let error = ContentHeader::parse(&[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
        assert_eq!(
            (error.code(), error.detail().as_str()),
            (
                ReplyCode::UNEXPECTED_FRAME,
                "expected content header for class 60, got non content header frame instead"
            )
        );
        assert_eq!(error.close_id(), MethodId::BASIC_PUBLISH);
    }

    #[test]
    fn a_content_in_pieces_is_put_together() {
        let mut assembler = expecting_body(5);
        assert_eq!(assembler.declared_len(), Some(5));
        assert_eq!(assembler.body(b"ab"), Ok(None));
        assert_eq!(assembler.body(b""), Ok(None));
        assert_eq!(assembler.received_len(), 2);
        let content = assembler.body(b"cde").unwrap().unwrap();
        assert_eq!(content.method.as_publish(), PUBLISH);
        assert_eq!(content.properties, [0x10, 0, 2]);
        assert_eq!(content.body, b"abcde");
        assert!(assembler.is_idle());
    }

    #[test]
    fn a_content_without_body_is_whole_with_its_header() {
        let mut assembler = ContentAssembler::default();
        assembler.method(&PUBLISH).unwrap();
        let content = assembler.header(&header(0)).unwrap().unwrap();
        assert_eq!(content.body, b"");
        assert!(assembler.is_idle());
        let error = assembler.body(b"").unwrap_err();
        assert_eq!(error.detail(), "expected method frame, got non method frame instead");
        assert_eq!(error.close_id(), MethodId::NONE);
    }

    #[test]
    fn a_frame_out_of_turn_is_refused_and_changes_nothing() {
        let idle = ContentAssembler::default();
        let mut expecting_header = ContentAssembler::default();
        expecting_header.method(&PUBLISH).unwrap();
        let expecting_body = expecting_body(3);
        for (state, due) in [
            (idle, ContentError::ExpectedMethod),
            (expecting_header, ContentError::ExpectedHeader),
            (expecting_body, ContentError::ExpectedBody),
        ] {
            let mut assembler = state.clone();
            if due != ContentError::ExpectedMethod {
                assert_eq!(assembler.method(&PUBLISH), Err(due));
                assert_eq!(assembler.expect_method(), Err(due));
            }
            if due != ContentError::ExpectedHeader {
                assert_eq!(assembler.header(&header(3)), Err(due));
            }
            if due != ContentError::ExpectedBody {
                assert_eq!(assembler.body(b"x"), Err(due));
            }
            assert_eq!(assembler, state);
            assert_eq!(due.code(), ReplyCode::UNEXPECTED_FRAME);
        }
    }

    #[test]
    fn a_body_beyond_its_declared_size_is_refused_at_once() {
        let mut assembler = expecting_body(3);
        assembler.body(b"ab").unwrap();
        let error = assembler.body(b"cd").unwrap_err();
        assert_eq!(error, ContentError::BodyTooLong { received: 4, declared: 3 });
        assert_eq!(error.code(), ReplyCode::FRAME_ERROR);
        assert_eq!(error.detail(), "content body of 4 octets is longer than the 3 declared");
        assert_eq!(assembler.received_len(), 2);
    }

    #[test]
    fn a_declared_size_buys_no_memory() {
        let mut assembler = expecting_body(u64::MAX);
        assembler.body(&[0; 100]).unwrap();
        let ContentAssembler::ExpectBody { body, .. } = &assembler else { panic!() };
        assert!(body.capacity() <= 200, "{}", body.capacity());
    }

    #[test]
    fn a_whole_body_has_no_slack_and_few_moves() {
        let mut assembler = expecting_body(100_000);
        let mut capacities = Vec::new();
        let content = loop {
            if let Some(content) = assembler.body(&[7; 100]).unwrap() {
                break content;
            }
            let ContentAssembler::ExpectBody { body, .. } = &assembler else { panic!() };
            assert!(body.capacity() <= (2 * body.len()).min(100_000));
            capacities.push(body.capacity());
        };
        capacities.dedup();
        assert!(capacities.len() <= 12, "{capacities:?}");
        assert_eq!((content.body.len(), content.body.capacity()), (100_000, 100_000));
    }

    #[test]
    fn a_large_body_has_room_for_all_of_it_once_a_fair_share_has_come() {
        const MIB: usize = 1024 * 1024;
        let piece = vec![7; 64 * 1024];
        for (declared, believed) in [(4 * MIB, MIB), (16 * MIB, 2 * MIB)] {
            let mut assembler = expecting_body(declared as u64);
            let mut capacities = Vec::new();
            let content = loop {
                if let Some(content) = assembler.body(&piece).unwrap() {
                    break content;
                }
                let ContentAssembler::ExpectBody { body, .. } = &assembler else { panic!() };
                if body.len() <= believed {
                    assert!(body.capacity() <= 2 * body.len(), "{}", body.len());
                } else {
                    assert_eq!(body.capacity(), declared, "{}", body.len());
                }
                capacities.push(body.capacity());
            };
            capacities.dedup();
            assert!(capacities.len() <= 7, "{capacities:?}");
            assert_eq!((content.body.len(), content.body.capacity()), (declared, declared));
        }
    }
}
