//! The octets of a frame: copied ones, with large bodies in between that are only referred to.
//!
//! The one idea: records are copied one behind the other into one vector, as small messages want
//! it; a body that has an allocation of its own is not copied but held, with a note of where in the
//! row it belongs. So a large message is in memory once, however it got here, and the store's lock
//! is never held for the copy of one. This module knows where pieces lie, not what they say.

use std::sync::Arc;

/// What a frame holds, in order.
#[derive(Debug, Default)]
pub(super) struct Payload {
    copied: Vec<u8>,
    /// Ascending by place.
    shared: Vec<Shared>,
    /// Octets of all shared bodies.
    shared_len: usize,
}

/// A body in a payload that others hold too.
#[derive(Debug)]
pub(super) struct Shared {
    /// Its offset in the payload.
    offset: usize,
    /// Copied octets before it.
    copied_before: usize,
    body: Arc<Vec<u8>>,
}

impl Shared {
    /// Its end in the payload.
    fn end(&self) -> usize {
        self.offset + self.body.len()
    }
}

/// Octets of one record, where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordOctets<'a> {
    /// All of them in a row.
    Copied(&'a [u8]),
    /// All up to the body, and the body; the padding behind it is left out.
    Shared(&'a [u8], &'a Arc<Vec<u8>>),
}

impl From<Vec<u8>> for Payload {
    fn from(copied: Vec<u8>) -> Self {
        Self { copied, ..Self::default() }
    }
}

impl Payload {
    pub(super) fn len(&self) -> usize {
        self.copied.len() + self.shared_len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The copied octets, to append more. What is there already stays where it is.
    pub(super) fn copied(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }

    /// Appends a body without copying it.
    pub(super) fn share(&mut self, body: &Arc<Vec<u8>>) {
        let (offset, copied_before) = (self.len(), self.copied.len());
        self.shared_len += body.len();
        self.shared.push(Shared { offset, copied_before, body: Arc::clone(body) });
    }

    /// All octets, in as many pieces as they lie in.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        let up_to_each = self.shared.iter().flat_map(move |shared| {
            let before = self.copied.get(from..shared.copied_before).unwrap_or_default();
            from = shared.copied_before;
            [before, shared.body.as_slice()]
        });
        let last = self.shared.last().map_or(0, |shared| shared.copied_before);
        up_to_each.chain([self.copied.get(last..).unwrap_or_default()])
    }

    /// The record of `len` octets at `offset`; `None` when it does not lie here. A record holds one
    /// shared body at most, and nothing but padding behind it.
    pub(super) fn record(&self, offset: usize, len: usize) -> Option<RecordOctets<'_>> {
        let end = offset.checked_add(len)?;
        if end > self.len() {
            return None;
        }
        let before = self.shared.partition_point(|shared| shared.end() <= offset);
        let skipped = before.checked_sub(1).and_then(|last| self.shared.get(last));
        // Behind a shared body the copied octets go on where they were.
        let start = skipped.map_or(offset, |last| last.copied_before + (offset - last.end()));
        match self.shared.get(before).filter(|shared| shared.offset < end) {
            Some(shared) => {
                let front = self.copied.get(start..shared.copied_before)?;
                Some(RecordOctets::Shared(front, &shared.body))
            }
            None => self.copied.get(start..start + len).map(RecordOctets::Copied),
        }
    }

    /// Empties the payload but keeps its memory; answers the bodies, which may be the last to be
    /// dropped: that takes a while.
    pub(super) fn recycle(&mut self) -> Vec<Shared> {
        self.copied.clear();
        self.shared_len = 0;
        std::mem::take(&mut self.shared)
    }

    /// Octets that are kept when the payload is filled again.
    pub(super) fn capacity(&self) -> usize {
        self.copied.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(octet: u8, len: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![octet; len])
    }

    fn joined(payload: &Payload) -> Vec<u8> {
        payload.pieces().collect::<Vec<_>>().concat()
    }

    /// Three records: `aaaa`, `bb` with a shared body of 3 octets and padding, `cc` with one of 5.
    fn sample() -> Payload {
        let mut payload = Payload::default();
        payload.copied().extend_from_slice(b"aaaabb");
        payload.share(&body(b'B', 3));
        payload.copied().extend_from_slice(b"---cc");
        payload.share(&body(b'C', 5));
        payload.copied().extend_from_slice(b"-");
        payload
    }

    #[test]
    fn an_empty_payload_has_no_octets_and_no_records() {
        let payload = Payload::default();
        assert!(payload.is_empty());
        assert_eq!(joined(&payload), b"");
        assert_eq!(payload.record(0, 1), None);
        assert_eq!(payload.record(usize::MAX, 1), None);
    }

    #[test]
    fn pieces_come_in_order_and_make_up_the_length() {
        let payload = sample();
        assert_eq!(joined(&payload), b"aaaabbBBB---ccCCCCC-");
        assert_eq!(payload.len(), 20);
        let copied = Payload::from(b"copied".to_vec());
        assert_eq!((joined(&copied).as_slice(), copied.len()), (b"copied".as_slice(), 6));
    }

    #[test]
    fn bodies_next_to_each_other_and_at_both_ends_stay_in_order() {
        let mut payload = Payload::default();
        payload.share(&body(b'1', 2));
        payload.share(&body(b'2', 3));
        payload.copied().push(b'.');
        payload.share(&body(b'3', 0));
        payload.share(&body(b'4', 1));
        assert_eq!(joined(&payload), b"11222.4");
        assert_eq!(payload.len(), 7);
    }

    #[test]
    fn a_record_is_found_before_between_and_behind_shared_bodies() {
        let mut payload = sample();
        payload.copied().extend_from_slice(b"dddd");
        let found = |offset, len| payload.record(offset, len).unwrap();
        assert_eq!(found(0, 4), RecordOctets::Copied(b"aaaa"));
        assert_eq!(found(4, 8), RecordOctets::Shared(b"bb", &body(b'B', 3)));
        assert_eq!(found(12, 8), RecordOctets::Shared(b"cc", &body(b'C', 5)));
        assert_eq!(found(20, 4), RecordOctets::Copied(b"dddd"));
        assert_eq!(payload.record(20, 5), None);
        assert_eq!(payload.record(24, 1), None);
    }

    #[test]
    fn the_body_of_a_record_is_the_one_that_was_shared() {
        let shared = body(b'B', 100);
        let mut payload = Payload::from(b"head".to_vec());
        payload.share(&shared);
        let Some(RecordOctets::Shared(_, found)) = payload.record(0, 104) else { panic!() };
        assert!(Arc::ptr_eq(found, &shared));
    }

    #[test]
    fn a_recycled_payload_is_empty_and_lets_its_bodies_go() {
        let shared = body(b'B', 100);
        let mut payload = Payload::from(b"head".to_vec());
        payload.share(&shared);
        let bodies = payload.recycle();
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(bodies);
        assert_eq!(Arc::strong_count(&shared), 1);
        assert!(payload.is_empty() && payload.capacity() >= 4);
        payload.copied().extend_from_slice(b"again");
        assert_eq!(payload.record(0, 5), Some(RecordOctets::Copied(b"again")));
    }
}
