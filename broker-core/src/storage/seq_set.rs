//! A compressed set of sequence numbers, and of nothing else.

use std::io;
use std::ops::RangeInclusive;

use roaring::RoaringTreemap;

use super::SeqRange;

/// A set of sequence numbers: a few octets for a long run, at most about two a number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeqSet {
    set: RoaringTreemap,
}

impl SeqSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Numbers in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.set.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Whether `seq` is in the set.
    #[must_use]
    pub fn contains(&self, seq: u64) -> bool {
        self.set.contains(seq)
    }

    /// Numbers within a range.
    #[must_use]
    pub fn count(&self, range: RangeInclusive<u64>) -> u64 {
        if range.start() == range.end() {
            return u64::from(self.contains(*range.start()));
        }
        self.set.range_cardinality(range)
    }

    /// The lowest.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.set.min()
    }

    /// The highest.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.set.max()
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.set.iter()
    }

    /// Those from `first` on, ascending.
    pub fn iter_from(&self, first: u64) -> impl Iterator<Item = u64> + '_ {
        let mut iter = self.set.iter();
        iter.advance_to(first);
        iter
    }

    /// The set as ranges, ascending, no two of them adjacent.
    #[must_use]
    pub fn ranges(&self) -> Vec<SeqRange> {
        let mut ranges: Vec<SeqRange> = Vec::new();
        for seq in self.iter() {
            match ranges.last_mut() {
                Some(range) if range.last.checked_add(1) == Some(seq) => range.last = seq,
                _ => ranges.push(SeqRange::one(seq)),
            }
        }
        ranges
    }

    /// Adds a number; whether it was new.
    pub fn insert(&mut self, seq: u64) -> bool {
        self.set.insert(seq)
    }

    pub(super) fn remove_range(&mut self, range: RangeInclusive<u64>) -> u64 {
        if range.start() == range.end() {
            return u64::from(self.set.remove(*range.start()));
        }
        self.set.remove_range(range)
    }

    /// Takes less memory for the same numbers.
    pub(super) fn compress(&mut self) {
        self.set.optimize();
    }

    /// Octets of memory, about.
    pub(super) fn memory(&self) -> u64 {
        self.set.serialized_size() as u64
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.set.serialized_size());
        // A vector takes all that is written to it.
        if self.set.serialize_into(&mut octets).is_err() {
            octets.clear();
        }
        octets
    }

    /// Reads a set back; the octets have passed their checksum.
    pub(super) fn decode(octets: &[u8]) -> io::Result<Self> {
        Ok(Self { set: RoaringTreemap::deserialize_from(octets)? })
    }
}

impl FromIterator<u64> for SeqSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self { set: numbers.into_iter().collect() }
    }
}
