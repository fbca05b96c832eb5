//! Deliveries of a channel that wait for their acknowledgement, in the order of their tags.

use std::collections::VecDeque;

use broker_core::consumer::Outstanding;

/// Settled places that may stay between unsettled ones before they are removed.
const GAPS_MIN: usize = 1024;

/// A delivery that waits.
#[derive(Debug)]
struct Place {
    tag: u64,
    slot: u32,
    /// `None` once settled: the place goes when those before it have gone.
    entry: Option<Outstanding>,
}

/// A message with the consumer that received it.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) slot: u32,
    pub(super) entry: Outstanding,
}

/// Unacknowledged deliveries. Tags rise from front to back.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    places: VecDeque<Place>,
    len: usize,
}

impl Unacked {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, tag: u64, slot: u32, entry: Outstanding) {
        self.places.push_back(Place { tag, slot, entry: Some(entry) });
        self.len += 1;
    }

    fn find(&self, tag: u64) -> Option<usize> {
        // Tags are dense as long as every delivery wants an acknowledgement: look there first.
        let first = self.places.front()?.tag;
        let guess = usize::try_from(tag.checked_sub(first)?).ok()?;
        if self.places.get(guess).is_some_and(|place| place.tag == tag) {
            return Some(guess);
        }
        self.places.binary_search_by_key(&tag, |place| place.tag).ok()
    }

    fn holds(&self, index: usize) -> bool {
        self.places.get(index).is_some_and(|place| place.entry.is_some())
    }

    /// Takes one delivery; `false` when it is not there (any more).
    pub(super) fn take(&mut self, tag: u64, out: &mut Vec<Settled>) -> bool {
        let Some(place) = self.find(tag).and_then(|index| self.places.get_mut(index)) else {
            return false;
        };
        let Some(entry) = place.entry.take() else { return false };
        out.push(Settled { slot: place.slot, entry });
        self.len -= 1;
        self.drop_settled();
        true
    }

    /// Takes all deliveries up to and including `tag`, which has to be there itself; 0 means all.
    pub(super) fn take_up_to(&mut self, tag: u64, out: &mut Vec<Settled>) -> bool {
        let count = match tag {
            0 => self.places.len(),
            tag => match self.find(tag) {
                Some(index) if self.holds(index) => index + 1,
                _ => return false,
            },
        };
        for place in self.places.drain(..count) {
            if let Some(entry) = place.entry {
                out.push(Settled { slot: place.slot, entry });
                self.len -= 1;
            }
        }
        self.drop_settled();
        true
    }

    /// Puts back what a rollback restores.
    pub(super) fn restore(&mut self, tag: u64, settled: Settled) {
        let Settled { slot, entry } = settled;
        let place = Place { tag, slot, entry: Some(entry) };
        match self.places.binary_search_by_key(&tag, |place| place.tag) {
            Ok(index) => {
                if let Some(there) = self.places.get_mut(index) {
                    *there = place;
                }
            }
            Err(index) => self.places.insert(index, place),
        }
        self.len += 1;
    }

    /// The tags of the deliveries that [`take_up_to`](Self::take_up_to) would take.
    pub(super) fn tags_up_to(&self, tag: u64) -> impl Iterator<Item = u64> {
        self.places
            .iter()
            .take_while(move |place| tag == 0 || place.tag <= tag)
            .filter(|place| place.entry.is_some())
            .map(|place| place.tag)
    }

    /// Removes settled places from the front, and all of them when they outnumber the others: one delivery
    /// that is never acknowledged must not keep the places of a million later ones.
    fn drop_settled(&mut self) {
        while self.places.front().is_some_and(|place| place.entry.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > GAPS_MIN && self.len < self.places.len() / 2 {
            self.places.retain(|place| place.entry.is_some());
        }
        if self.places.is_empty() && self.places.capacity() > GAPS_MIN {
            self.places = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64) -> Outstanding {
        let (message, expires_at, body_len, returns) = (None, u64::MAX, 0, 0);
        let (redelivered, logged) = (false, true);
        Outstanding { message, seq, expires_at, body_len, returns, redelivered, logged }
    }

    fn with_tags(tags: &[u64]) -> Unacked {
        let mut unacked = Unacked::default();
        for &tag in tags {
            unacked.push(tag, 0, entry(tag));
        }
        unacked
    }

    fn taken(out: &[Settled]) -> Vec<u64> {
        out.iter().map(|settled| settled.entry.seq).collect()
    }

    #[test]
    fn multiple_with_tag_zero_takes_everything_and_needs_nothing_to_be_there() {
        let mut out = Vec::new();
        assert!(with_tags(&[1, 2, 5]).take_up_to(0, &mut out));
        assert_eq!(taken(&out), [1, 2, 5]);
        assert!(with_tags(&[]).take_up_to(0, &mut out));
    }

    #[test]
    fn multiple_wants_its_own_tag_to_be_unacked() {
        let mut unacked = with_tags(&[1, 2, 3]);
        let mut out = Vec::new();
        assert!(unacked.take(2, &mut out));
        assert!(!unacked.take_up_to(2, &mut out), "2 has been acknowledged already");
        assert!(!unacked.take_up_to(9, &mut out));
        assert!(unacked.take_up_to(3, &mut out));
        assert_eq!(taken(&out), [2, 1, 3]);
        assert_eq!(unacked.len(), 0);
    }

    #[test]
    fn a_forgotten_delivery_does_not_keep_the_places_of_later_ones() {
        let mut unacked = with_tags(&[1]);
        let mut out = Vec::new();
        for tag in 2..100_000 {
            unacked.push(tag, 0, entry(tag));
            assert!(unacked.take(tag, &mut out));
        }
        assert_eq!(unacked.len(), 1);
        assert!(unacked.places.len() <= GAPS_MIN + 2);
    }

    #[test]
    fn what_is_restored_stands_in_its_old_place() {
        let mut unacked = with_tags(&[1, 2, 3]);
        let mut out = Vec::new();
        assert!(unacked.take_up_to(2, &mut out));
        for settled in out.drain(..).rev() {
            let tag = settled.entry.seq;
            unacked.restore(tag, settled);
        }
        assert_eq!(unacked.tags_up_to(0).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
