//! A message as the log holds it: a head, and the body as it came.
//!
//! | offset | len | head |
//! |---:|---:|---|
//! | 0 | 8 | milliseconds from 1970 to the moment it was published |
//! | 8 | 8 | its `expiration` in milliseconds; all ones where there is none |
//! | 16 | 1 | its priority |
//! | 17 | 1 | octets of the exchange's name |
//! | 18 | 1 | octets of the routing key |
//! | 19 | 1 | 0 |
//! | 20 | | exchange, routing key, property list as on the wire |
//!
//! All numbers are little-endian. Head and body lie side by side in the log, so that a message that is read
//! back is one copy. A large body that comes back in an allocation of its own stays in it.

use std::sync::Arc;

use crate::message::{Attributes, LARGE_BODY_LEN, Message, Publication, Spans};
use crate::storage;

/// Octets before the exchange's name.
const FIXED_LEN: usize = 20;

/// A message that was read back.
pub(crate) struct Stored {
    pub(crate) message: Message,
    /// Milliseconds since 1970.
    pub(crate) published_at: u64,
}

/// Appends the head of a publication.
pub(crate) fn write_head(publication: &Publication<'_>, published_at: u64, out: &mut Vec<u8>) {
    let parts = publication.parts();
    let attributes = publication.attributes();
    let exchange_len = u8::try_from(parts.exchange.len()).unwrap_or(u8::MAX);
    let routing_key_len = u8::try_from(parts.routing_key.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&published_at.to_le_bytes());
    out.extend_from_slice(&attributes.expiration.unwrap_or(u64::MAX).to_le_bytes());
    out.extend_from_slice(&[attributes.priority, exchange_len, routing_key_len, 0]);
    out.extend_from_slice(parts.exchange.get(..exchange_len.into()).unwrap_or_default());
    out.extend_from_slice(parts.routing_key.get(..routing_key_len.into()).unwrap_or_default());
    out.extend_from_slice(parts.properties);
}

/// Reads a message back. `None` when the head is not one: its checksum was right, so another program has written it.
pub(crate) fn read(found: &storage::Message<'_>) -> Option<Stored> {
    let head = found.head;
    let number = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?))
    };
    let (published_at, expiration) = (number(0)?, number(8)?);
    let &[priority, exchange_len, routing_key_len, _] = head.get(16..FIXED_LEN)? else {
        return None;
    };
    let names_len = usize::from(exchange_len) + usize::from(routing_key_len);
    let properties_len = head.len().checked_sub(FIXED_LEN + names_len)?;
    let attributes = Attributes {
        persistent: true,
        priority,
        expiration: (expiration != u64::MAX).then_some(expiration),
    };
    let message = if found.body.len() >= LARGE_BODY_LEN || found.large_body.is_some() {
        let (names, properties) = head.get(FIXED_LEN..)?.split_at_checked(names_len)?;
        let (exchange, routing_key) = names.split_at_checked(exchange_len.into())?;
        match found.large_body {
            Some(body) => {
                let body = Arc::clone(body);
                Message::with_large_body(exchange, routing_key, properties, body, attributes)
            }
            None => {
                Message::new(exchange, routing_key, properties, found.body.to_vec(), attributes)
            }
        }
    } else {
        let spans = Spans {
            exchange_len,
            routing_key_len,
            routing_key_at: exchange_len.into(),
            properties_at: u32::try_from(names_len).ok()?,
            properties_len: u32::try_from(properties_len).ok()?,
            body_at: u32::try_from(head.len() - FIXED_LEN).ok()?,
        };
        Message::from_octets(found.content.get(FIXED_LEN..)?, spans, attributes)
    };
    Some(Stored { message, published_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(octets: &[u8], head_len: usize) -> storage::Message<'_> {
        let (head, body) = octets.split_at(head_len);
        storage::Message { seq: 1, flags: 0, head, body, content: octets, large_body: None }
    }

    #[test]
    fn a_message_comes_back_as_it_went() {
        for body_len in [0, 1, 1000, LARGE_BODY_LEN] {
            for expiration in [None, Some(0), Some(60_000)] {
                let attributes = Attributes { persistent: true, priority: 9, expiration };
                let body = vec![7; body_len];
                let message = Message::new(b"x", b"key", &[0x10, 0, 2], body.clone(), attributes);
                let mut octets = Vec::new();
                write_head(&Publication::Owned(message), 1_700_000_000_000, &mut octets);
                let head_len = octets.len();
                octets.extend_from_slice(&body);
                let stored = read(&found(&octets, head_len)).unwrap();
                let parts = stored.message.parts();
                assert_eq!(parts.exchange, b"x");
                assert_eq!(parts.routing_key, b"key");
                assert_eq!(parts.properties, [0x10, 0, 2]);
                assert_eq!(parts.body, body);
                assert_eq!(stored.message.attributes(), attributes);
                assert_eq!(stored.published_at, 1_700_000_000_000);
            }
        }
    }

    #[test]
    fn a_body_that_comes_back_apart_is_not_copied() {
        let body = Arc::new(vec![7; LARGE_BODY_LEN]);
        let message = Message::new(b"x", b"key", &[0x10, 0, 2], vec![], Attributes::default());
        let mut head = Vec::new();
        write_head(&Publication::Owned(message), 1_700_000_000_000, &mut head);
        let found =
            storage::Message { body: &body, large_body: Some(&body), ..found(&head, head.len()) };
        let stored = read(&found).unwrap();
        let parts = stored.message.parts();
        assert_eq!((parts.exchange, parts.routing_key), (b"x".as_slice(), b"key".as_slice()));
        assert_eq!(parts.properties, [0x10, 0, 2]);
        assert!(Arc::ptr_eq(parts.large_body.unwrap(), &body));
    }

    #[test]
    fn what_is_no_head_is_no_message() {
        assert!(read(&found(&[], 0)).is_none());
        assert!(read(&found(&[0; 19], 19)).is_none());
        let mut lies = [0; 24];
        lies[17] = 200;
        assert!(read(&found(&lies, 24)).is_none());
    }
}
