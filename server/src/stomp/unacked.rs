//! Deliveries of one subscription that wait for their ACK, in the order of their tags.

use std::collections::VecDeque;

use broker_core::consumer::Outstanding;

/// Settled places that may stay between unsettled ones before they are removed.
const GAPS_MIN: usize = 1024;

/// Deliveries of a subscription. Tags rise from front to back; those of other subscriptions lie between them.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    /// `None` once settled: the place goes when those before it have gone.
    places: VecDeque<(u64, Option<Outstanding>)>,
    len: usize,
}

impl Unacked {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, tag: u64, entry: Outstanding) {
        self.places.push_back((tag, Some(entry)));
        self.len += 1;
    }

    fn find(&self, tag: u64) -> Option<usize> {
        // Tags are dense as long as there is one subscription: look there first.
        let (first, _) = self.places.front()?;
        let guess = usize::try_from(tag.checked_sub(*first)?).ok()?;
        if self.places.get(guess).is_some_and(|(there, _)| *there == tag) {
            return Some(guess);
        }
        self.places.binary_search_by_key(&tag, |(tag, _)| *tag).ok()
    }

    pub(super) fn holds(&self, tag: u64) -> bool {
        let place = self.find(tag).and_then(|index| self.places.get(index));
        place.is_some_and(|(_, entry)| entry.is_some())
    }

    /// Takes one delivery, if it is there (still).
    pub(super) fn take(&mut self, tag: u64) -> Option<Outstanding> {
        let index = self.find(tag)?;
        let entry = self.places.get_mut(index)?.1.take()?;
        self.len -= 1;
        self.drop_settled();
        Some(entry)
    }

    /// Takes all deliveries up to and including `tag`.
    pub(super) fn take_up_to(&mut self, tag: u64, mut taken: impl FnMut(u64, Outstanding)) {
        while let Some((there, _)) = self.places.front()
            && *there <= tag
        {
            if let Some((tag, Some(entry))) = self.places.pop_front() {
                self.len -= 1;
                taken(tag, entry);
            }
        }
        self.drop_settled();
    }

    /// Puts a delivery back that was taken.
    pub(super) fn restore(&mut self, tag: u64, entry: Outstanding) {
        match self.places.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(index) => {
                if let Some(there) = self.places.get_mut(index) {
                    there.1 = Some(entry);
                }
            }
            Err(index) => self.places.insert(index, (tag, Some(entry))),
        }
        self.len += 1;
    }

    /// Removes settled places from the front, and all of them when they outnumber the others: one delivery
    /// that is never acknowledged must not keep the places of a million later ones.
    fn drop_settled(&mut self) {
        while self.places.front().is_some_and(|(_, entry)| entry.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > GAPS_MIN && self.len < self.places.len() / 2 {
            self.places.retain(|(_, entry)| entry.is_some());
        }
        if self.places.is_empty() && self.places.capacity() > GAPS_MIN {
            self.places = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn entry(seq: u64) -> Outstanding {
        let (message, expires_at, body_len, returns) = (None, u64::MAX, 0, 0);
        let (redelivered, logged) = (false, true);
        Outstanding { message, seq, expires_at, body_len, returns, redelivered, logged }
    }

    #[test]
    fn a_delivery_is_taken_once() {
        let mut unacked = Unacked::default();
        for tag in [1, 2, 5] {
            unacked.push(tag, entry(tag));
        }
        assert!(unacked.holds(2));
        assert_eq!(unacked.take(2).map(|entry| entry.seq), Some(2));
        assert!(!unacked.holds(2));
        assert!(unacked.take(2).is_none());
        assert!(unacked.take(3).is_none());
        assert!(unacked.take(0).is_none());
        assert_eq!(unacked.len(), 2);
    }

    #[test]
    fn a_forgotten_delivery_does_not_keep_the_places_of_later_ones() {
        let mut unacked = Unacked::default();
        unacked.push(1, entry(1));
        for tag in 2..100_000 {
            unacked.push(tag, entry(tag));
            assert!(unacked.take(tag).is_some());
        }
        assert_eq!(unacked.len(), 1);
        assert!(unacked.places.len() <= GAPS_MIN + 2);
    }

    /// Random deliveries, acknowledgements and restorations, against a sorted map.
    #[test]
    fn it_is_a_sorted_map() {
        use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut unacked, mut model) = (Unacked::default(), BTreeMap::new());
            let mut last = 0;
            for _ in 0..500 {
                match random.random_range(0..6) {
                    0..3 => {
                        last += random.random_range(1..4);
                        unacked.push(last, entry(last));
                        model.insert(last, last);
                    }
                    3 => {
                        let tag = random.random_range(0..=last);
                        let taken = unacked.take(tag);
                        assert_eq!(taken.as_ref().map(|entry| entry.seq), model.remove(&tag));
                        if let Some(entry) = taken
                            && random.random_bool(0.3)
                        {
                            unacked.restore(tag, entry);
                            model.insert(tag, tag);
                        }
                    }
                    4 => {
                        let tag = random.random_range(0..=last);
                        assert_eq!(unacked.holds(tag), model.contains_key(&tag), "seed {seed}");
                    }
                    _ => {
                        let tag = last.saturating_sub(random.random_range(0..20));
                        let mut taken = Vec::new();
                        unacked.take_up_to(tag, |tag, _| taken.push(tag));
                        let later = model.split_off(&(tag + 1));
                        let earlier = std::mem::replace(&mut model, later);
                        assert_eq!(taken, earlier.into_keys().collect::<Vec<_>>(), "seed {seed}");
                    }
                }
                assert_eq!(unacked.len(), model.len(), "seed {seed}");
            }
        }
    }
}
