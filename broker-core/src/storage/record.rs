//! One record of the log: what a batch says, as octets and back.
//!
//! The one idea: the head of a record is checked together with its position in the log, so that a
//! record of a file's earlier life, or one that moved, can never pass; the content (a message's
//! head and body) has a checksum of its own that travels unchanged into segments. The picture of
//! the octets is at the head of [`storage`](super). Nothing here knows what a record does.

use std::sync::Arc;

use super::octets::{Put, Reader, align_up, crc, len_u32, to_usize};
use super::payload::{Payload, RecordOctets};
use super::{MessageRef, SeqRange};

/// Octets before the items.
pub(super) const RECORD_HEADER_LEN: usize = 40;
/// Records start at multiples of this in the log's positions.
pub(super) const RECORD_ALIGN: usize = 8;
const ITEM_LEN: usize = 16;

/// What a record does. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    Enqueue = 1,
    Ack = 2,
    Requeued = 3,
    Delivered = 4,
    PutDefinition = 5,
    DeleteDefinition = 6,
    DeleteQueue = 7,
    AddSegment = 8,
    DropSegment = 9,
}

impl RecordKind {
    fn from_u8(kind: u8) -> Option<Self> {
        Some(match kind {
            1 => Self::Enqueue,
            2 => Self::Ack,
            3 => Self::Requeued,
            4 => Self::Delivered,
            5 => Self::PutDefinition,
            6 => Self::DeleteDefinition,
            7 => Self::DeleteQueue,
            8 => Self::AddSegment,
            9 => Self::DropSegment,
            _ => return None,
        })
    }
}

/// The items of a record to be written: pairs of u64.
#[derive(Clone, Copy, Debug)]
pub(super) enum Items<'a> {
    None,
    One(u64, u64),
    Targets(&'a [MessageRef]),
    Ranges(&'a [SeqRange]),
}

impl Items<'_> {
    fn count(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Targets(targets) => targets.len(),
            Self::Ranges(ranges) => ranges.len(),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::One(first, second) => {
                out.put_u64(*first);
                out.put_u64(*second);
            }
            Self::Targets(targets) => {
                for target in *targets {
                    out.put_u64(target.queue);
                    out.put_u64(target.seq);
                }
            }
            Self::Ranges(ranges) => {
                for range in *ranges {
                    out.put_u64(range.first);
                    out.put_u64(range.last);
                }
            }
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) kind: RecordKind,
    pub(super) flags: u8,
    pub(super) queue: u64,
    pub(super) items: Items<'a>,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
    /// The body once more, where it has an allocation that the log may hold instead of a copy.
    pub(super) shared_body: Option<&'a Arc<Vec<u8>>>,
    /// [`content_crc`] of head and body, made before the lock is taken.
    pub(super) content_crc: u32,
}

/// The checksum of a message's content.
pub(super) fn content_crc(head: &[u8], body: &[u8]) -> u32 {
    crc(&[head, body])
}

impl NewRecord<'_> {
    /// Octets that [`encode`](Self::encode) appends, padding included.
    pub(super) fn encoded_len(&self) -> u64 {
        let len =
            RECORD_HEADER_LEN + self.items.count() * ITEM_LEN + self.head.len() + self.body.len();
        align_up(len as u64, RECORD_ALIGN as u64)
    }

    /// Appends the record, which shall lie at position `lsn` of the log.
    pub(super) fn encode(&self, lsn: u64, payload: &mut Payload) {
        let len = to_usize(self.encoded_len());
        let end = payload.len() + len;
        let out = payload.copied();
        let start = out.len();
        let mut header = [0_u8; RECORD_HEADER_LEN];
        {
            let mut fields = header.as_mut_slice();
            let mut write = |octets: &[u8]| {
                if let Some((field, rest)) =
                    std::mem::take(&mut fields).split_at_mut_checked(octets.len())
                {
                    field.copy_from_slice(octets);
                    fields = rest;
                }
            };
            write(&0_u32.to_le_bytes());
            write(&len_u32(len).to_le_bytes());
            write(&[self.kind as u8, self.flags, 0, 0]);
            write(&self.content_crc.to_le_bytes());
            write(&len_u32(self.items.count()).to_le_bytes());
            write(&len_u32(self.head.len()).to_le_bytes());
            write(&len_u32(self.body.len()).to_le_bytes());
            write(&0_u32.to_le_bytes());
            write(&self.queue.to_le_bytes());
        }
        out.extend_from_slice(&header);
        self.items.encode(out);
        let sealed = header_crc(lsn, out.get(start + 4..).unwrap_or_default());
        if let Some(field) = out.get_mut(start..start + 4) {
            field.copy_from_slice(&sealed.to_le_bytes());
        }
        out.extend_from_slice(self.head);
        match self.shared_body {
            None => out.extend_from_slice(self.body),
            Some(body) => payload.share(body),
        }
        let padding = end - payload.len();
        let out = payload.copied();
        out.resize(out.len() + padding, 0);
    }
}

fn header_crc(lsn: u64, header: &[u8]) -> u32 {
    crc(&[&lsn.to_le_bytes(), header])
}

/// A record read back. Its header has passed its checksum; see [`Record::content_is_sound`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) kind: RecordKind,
    pub(super) flags: u8,
    pub(super) queue: u64,
    items: &'a [u8],
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
    /// Octets from the start of the record to its head.
    pub(super) head_offset: usize,
    content_crc: u32,
    /// Octets of the whole record, padding included.
    pub(super) len: u32,
}

impl<'a> Record<'a> {
    /// Reads the record at the front of `octets`, which lie at position `lsn`. `None` when it is
    /// not whole, not a record, or not one of this position.
    pub(super) fn decode(octets: &'a [u8], lsn: u64) -> Option<Self> {
        Self::decode_parts(octets, None, lsn)
    }

    /// Reads a record that is still in the payload it was written to.
    pub(super) fn decode_pending(octets: RecordOctets<'a>, lsn: u64) -> Option<Self> {
        match octets {
            RecordOctets::Copied(octets) => Self::decode(octets, lsn),
            RecordOctets::Shared(front, body) => Self::decode_parts(front, Some(body), lsn),
        }
    }

    /// Reads a record whose body follows in `octets`, with the padding, or is given apart, without.
    fn decode_parts(octets: &'a [u8], body: Option<&'a [u8]>, lsn: u64) -> Option<Self> {
        let mut reader = Reader::new(octets);
        let sealed = reader.u32()?;
        let len = reader.u32()?;
        let kind = reader.u8()?;
        let flags = reader.u8()?;
        reader.take(2)?;
        let content_crc = reader.u32()?;
        let item_count = reader.u32()?;
        let head_len = reader.u32()?;
        let body_len = reader.u32()?;
        reader.u32()?;
        let queue = reader.u64()?;
        let items_len = to_usize(u64::from(item_count)).checked_mul(ITEM_LEN)?;
        let items = reader.take(items_len)?;
        let head_offset = RECORD_HEADER_LEN + items_len;
        if sealed != header_crc(lsn, octets.get(4..head_offset)?) {
            return None;
        }
        let head = reader.take(to_usize(u64::from(head_len)))?;
        let is_apart = body.is_some();
        let body = match body {
            Some(body) => (body.len() == to_usize(u64::from(body_len))).then_some(body)?,
            None => reader.take(to_usize(u64::from(body_len)))?,
        };
        let whole = align_up((head_offset + head.len() + body.len()) as u64, 8);
        if whole != u64::from(len) || (!is_apart && octets.len() < to_usize(whole)) {
            return None;
        }
        let kind = RecordKind::from_u8(kind)?;
        Some(Self { kind, flags, queue, items, head, body, head_offset, content_crc, len })
    }

    /// Whether head and body pass their checksum.
    pub(super) fn content_is_sound(&self) -> bool {
        content_crc(self.head, self.body) == self.content_crc
    }

    pub(super) fn content_crc(&self) -> u32 {
        self.content_crc
    }

    /// The pairs of the record, in order.
    pub(super) fn items(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.items.as_chunks::<ITEM_LEN>().0.iter().filter_map(|item| {
            let mut reader = Reader::new(item);
            Some((reader.u64()?, reader.u64()?))
        })
    }

    /// The pairs as ranges of sequence numbers.
    pub(super) fn ranges(&self) -> impl Iterator<Item = SeqRange> + use<'a> {
        self.items().map(|(first, last)| SeqRange { first, last })
    }
}
