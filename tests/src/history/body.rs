//! Bodies that say who they are and whether they are whole.

use super::MessageId;

/// Octets of the checksum at the end of a body.
const CRC_LEN: usize = 4;

/// A body: `producer:seq`, a space, octets of all values, and the CRC-32 (IEEE, little-endian) of all before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// What to publish.
    pub octets: Vec<u8>,
    /// Its checksum.
    pub crc: u32,
}

impl Body {
    /// The body of a message, with `padding` octets that are other ones for each message.
    #[must_use]
    pub fn new(id: MessageId, padding: usize) -> Self {
        let mut octets = format!("{id} ").into_bytes();
        let start = id.seq.wrapping_mul(31).wrapping_add(u64::from(id.producer));
        octets.extend((start..).take(padding).map(|value| value.to_le_bytes()[0]));
        let crc = crc32fast::hash(&octets);
        octets.extend_from_slice(&crc.to_le_bytes());
        Self { octets, crc }
    }
}

/// Which message a body is, and its checksum; `None` when it is not whole.
#[must_use]
pub fn read_body(octets: &[u8]) -> Option<(MessageId, u32)> {
    let (content, crc) = octets.split_last_chunk::<CRC_LEN>()?;
    let crc = u32::from_le_bytes(*crc);
    if crc32fast::hash(content) != crc {
        return None;
    }
    let end = content.iter().position(|octet| *octet == b' ')?;
    let id = std::str::from_utf8(content.get(..end)?).ok()?;
    Some((id.parse().ok()?, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_which_message_it_is_until_one_octet_is_another() {
        let id = MessageId { producer: 3, seq: 17 };
        for padding in [0, 1, 300] {
            let body = Body::new(id, padding);
            assert_eq!(read_body(&body.octets), Some((id, body.crc)));
            for index in 0..body.octets.len() {
                let mut changed = body.octets.clone();
                changed[index] ^= 0x10;
                assert_eq!(read_body(&changed), None, "octet {index}");
            }
            assert_eq!(read_body(&body.octets[1..]), None);
        }
        assert_eq!(read_body(b""), None);
    }

    #[test]
    fn bodies_of_two_messages_differ() {
        let body = |seq| Body::new(MessageId { producer: 0, seq }, 8);
        assert_ne!(body(1).crc, body(2).crc);
    }
}
