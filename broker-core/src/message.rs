//! The canonical message: exchange, routing key, the encoded property list as it came, body octets.
//!
//! A published message is first a [`Publication`] that borrows from the connection's read buffer. Only
//! when a queue has to keep it does it become a [`Message`]: one allocation that every queue and every
//! delivery shares. Properties are never re-encoded on the way through; the few facts that queues need
//! from them are read once, by the publisher's connection, into [`Attributes`].

use std::sync::Arc;

use triomphe::ThinArc;

/// Bodies of at least this many octets stay in an allocation of their own, so that they are never copied
/// again: neither into the message's block nor into an outbox.
pub const LARGE_BODY_LEN: usize = 64 * 1024;

/// What queues need to know of a message's properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Delivery mode 2.
    pub persistent: bool,
    /// The `priority` property; 0 when absent.
    pub priority: u8,
    /// The `expiration` property in milliseconds.
    pub expiration: Option<u64>,
}

/// Where the parts lie in a message's octets. The exchange's name comes first, the body reaches to the
/// end; other octets (frame headers, when the octets are a slice of the wire) may lie between the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spans {
    /// Octets of the exchange's name, at offset 0.
    pub exchange_len: u8,
    /// Octets of the routing key.
    pub routing_key_len: u8,
    /// Offset of the routing key.
    pub routing_key_at: u16,
    /// Offset of the property list: flag words and values.
    pub properties_at: u32,
    /// Octets of the property list.
    pub properties_len: u32,
    /// Offset of the body.
    pub body_at: u32,
}

/// A message in parts, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Name of the exchange that the message was published to.
    pub exchange: &'a [u8],
    /// The routing key that it was published with.
    pub routing_key: &'a [u8],
    /// Property flags and values, as on the wire (AMQP 0-9-1 §4.2.6.1).
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// The body's own allocation when it has one (see [`LARGE_BODY_LEN`]).
    pub large_body: Option<&'a Arc<Vec<u8>>>,
}

impl Spans {
    fn parts<'a>(&self, octets: &'a [u8], large_body: Option<&'a Arc<Vec<u8>>>) -> Parts<'a> {
        let part = |at: usize, len: usize| octets.get(at..at + len).unwrap_or_default();
        Parts {
            exchange: part(0, self.exchange_len.into()),
            routing_key: part(self.routing_key_at.into(), self.routing_key_len.into()),
            properties: part(self.properties_at as usize, self.properties_len as usize),
            body: match large_body {
                Some(body) => body,
                None => octets.get(self.body_at as usize..).unwrap_or_default(),
            },
            large_body,
        }
    }
}

/// A message that was published and that nobody keeps yet.
#[derive(Debug, Clone)]
pub enum Publication<'a> {
    /// In the publisher's read buffer.
    Borrowed {
        /// The octets from the exchange's name to the end of the body.
        octets: &'a [u8],
        /// Where the parts lie in them.
        spans: Spans,
        /// What queues need to know.
        attributes: Attributes,
    },
    /// In its own allocation: a content that came in pieces, or one that several queues will share.
    Owned(Message),
}

impl Publication<'_> {
    /// The message's parts.
    #[must_use]
    #[inline]
    pub fn parts(&self) -> Parts<'_> {
        match self {
            Self::Borrowed { octets, spans, .. } => spans.parts(octets, None),
            Self::Owned(message) => message.parts(),
        }
    }

    /// What queues need to know of the properties.
    #[must_use]
    #[inline]
    pub fn attributes(&self) -> Attributes {
        match self {
            Self::Borrowed { attributes, .. } => *attributes,
            Self::Owned(message) => message.attributes(),
        }
    }

    /// A message that can be kept: the one allocation, or another reference to it.
    #[must_use]
    #[inline]
    pub fn to_message(&self) -> Message {
        match self {
            Self::Borrowed { octets, spans, attributes } => {
                if octets.len().saturating_sub(spans.body_at as usize) >= LARGE_BODY_LEN {
                    let Parts { exchange, routing_key, properties, body, .. } = self.parts();
                    let body = body.to_vec();
                    return Message::new(exchange, routing_key, properties, body, *attributes);
                }
                Message::from_octets(octets, *spans, *attributes)
            }
            Self::Owned(message) => message.clone(),
        }
    }

    /// Octets of the body.
    #[must_use]
    #[inline]
    pub fn body_len(&self) -> usize {
        self.parts().body.len()
    }
}

/// A message that is kept. Eight octets; cloning counts a reference.
#[derive(Clone)]
pub struct Message(ThinArc<Head, u8>);

struct Head {
    spans: Spans,
    attributes: Attributes,
    large_body: Option<Arc<Vec<u8>>>,
}

impl Message {
    /// Joins the parts into one allocation; a body of [`LARGE_BODY_LEN`] or more keeps its own.
    ///
    /// `exchange` and `routing_key` are cut at 255 octets, the length of a shortstr, which whoever
    /// decoded them has checked.
    #[must_use]
    pub fn new(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body: Vec<u8>,
        attributes: Attributes,
    ) -> Self {
        if body.len() >= LARGE_BODY_LEN {
            let body = Arc::new(body);
            return Self::with_large_body(exchange, routing_key, properties, body, attributes);
        }
        Self::join(exchange, routing_key, properties, &body, None, attributes)
    }

    /// The same with a body that is shared already, and stays where it is.
    pub(crate) fn with_large_body(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body: Arc<Vec<u8>>,
        attributes: Attributes,
    ) -> Self {
        Self::join(exchange, routing_key, properties, &[], Some(body), attributes)
    }

    /// The message of `parts` under another exchange, routing key and properties. A large body is shared.
    #[must_use]
    pub fn rewritten(
        parts: &Parts<'_>,
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        attributes: Attributes,
    ) -> Self {
        match parts.large_body {
            Some(body) => {
                let body = Arc::clone(body);
                Self::with_large_body(exchange, routing_key, properties, body, attributes)
            }
            None => Self::new(exchange, routing_key, properties, parts.body.to_vec(), attributes),
        }
    }

    /// Joins all but a body that stays apart.
    fn join(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
        large_body: Option<Arc<Vec<u8>>>,
        attributes: Attributes,
    ) -> Self {
        let exchange_len = u8::try_from(exchange.len()).unwrap_or(u8::MAX);
        let routing_key_len = u8::try_from(routing_key.len()).unwrap_or(u8::MAX);
        let names_len = usize::from(exchange_len) + usize::from(routing_key_len);
        let body_at = names_len + properties.len();
        let spans = Spans {
            exchange_len,
            routing_key_len,
            routing_key_at: exchange_len.into(),
            properties_at: u32::try_from(names_len).unwrap_or(u32::MAX),
            properties_len: u32::try_from(properties.len()).unwrap_or(u32::MAX),
            body_at: u32::try_from(body_at).unwrap_or(u32::MAX),
        };
        let mut octets = Vec::with_capacity(body_at + body.len());
        octets.extend_from_slice(exchange.get(..exchange_len.into()).unwrap_or_default());
        octets.extend_from_slice(routing_key.get(..routing_key_len.into()).unwrap_or_default());
        octets.extend_from_slice(properties);
        octets.extend_from_slice(body);
        Self(ThinArc::from_header_and_slice(Head { spans, attributes, large_body }, &octets))
    }

    /// Copies octets in which all parts lie already.
    #[inline]
    pub(crate) fn from_octets(octets: &[u8], spans: Spans, attributes: Attributes) -> Self {
        let head = Head { spans, attributes, large_body: None };
        Self(ThinArc::from_header_and_slice(head, octets))
    }

    /// The message's parts.
    #[must_use]
    #[inline]
    pub fn parts(&self) -> Parts<'_> {
        let head = &self.0.header.header;
        head.spans.parts(&self.0.slice, head.large_body.as_ref())
    }

    /// What queues need to know of the properties.
    #[must_use]
    #[inline]
    pub fn attributes(&self) -> Attributes {
        self.0.header.header.attributes
    }

    /// Octets of the body.
    #[must_use]
    #[inline]
    pub fn body_len(&self) -> usize {
        self.parts().body.len()
    }

    /// Octets that this message holds in memory, its bookkeeping included.
    #[must_use]
    pub fn memory_len(&self) -> usize {
        let head = &self.0.header.header;
        size_of::<Head>()
            + self.0.slice.len()
            + head.large_body.as_ref().map_or(0, |body| body.capacity())
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = self.parts();
        f.debug_struct("Message")
            .field("exchange", &String::from_utf8_lossy(parts.exchange))
            .field("routing_key", &String::from_utf8_lossy(parts.routing_key))
            .field("body_len", &parts.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_they_went_in() {
        for body_len in [0, 1, 1000, LARGE_BODY_LEN, LARGE_BODY_LEN + 1] {
            let message =
                Message::new(b"x", b"key", &[0x10, 0, 2], vec![7; body_len], Attributes::default());
            let parts = message.parts();
            assert_eq!(parts.exchange, b"x");
            assert_eq!(parts.routing_key, b"key");
            assert_eq!(parts.properties, [0x10, 0, 2]);
            assert_eq!(parts.body, vec![7; body_len]);
            assert_eq!(parts.large_body.is_some(), body_len >= LARGE_BODY_LEN);
        }
    }

    #[test]
    fn a_borrowed_publication_becomes_the_same_message() {
        let octets = b"ex\x03key....PROPS..body";
        let spans = Spans {
            exchange_len: 2,
            routing_key_len: 3,
            routing_key_at: 3,
            properties_at: 10,
            properties_len: 5,
            body_at: 17,
        };
        let publication =
            Publication::Borrowed { octets, spans, attributes: Attributes::default() };
        let message = publication.to_message();
        for parts in [publication.parts(), message.parts()] {
            assert_eq!(parts.exchange, b"ex");
            assert_eq!(parts.routing_key, b"key");
            assert_eq!(parts.properties, b"PROPS");
            assert_eq!(parts.body, b"body");
        }
    }
}
