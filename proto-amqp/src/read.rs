//! Checked reading of the primitive encodings (AMQP 0-9-1 §4.2.5) from the front of a slice.
//!
//! Every read either takes what it promises or takes nothing and says `None`; no read can look past
//! the end, so callers need no arithmetic of their own. All integers are big-endian.

/// What is left of the octets being read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// The octets not read yet.
    #[inline]
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    #[inline]
    pub(crate) fn octet(&mut self) -> Option<u8> {
        self.array::<1>().map(|[octet]| octet)
    }

    #[inline]
    pub(crate) fn short(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn long(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn longlong(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next `len` octets.
    #[inline]
    pub(crate) fn octets(&mut self, len: usize) -> Option<&'a [u8]> {
        let (octets, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(octets)
    }

    /// A short string: one octet of length, then the octets, of any value.
    #[inline]
    pub(crate) fn shortstr(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        let len = usize::from(self.octet()?);
        self.octets(len).or_else(|| {
            self.0 = before;
            None
        })
    }

    /// A long string, or the contents of a table or array: four octets of length, then the octets.
    #[inline]
    pub(crate) fn longstr(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        let len = usize::try_from(self.long()?).ok()?;
        self.octets(len).or_else(|| {
            self.0 = before;
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_longer_than_what_is_left_takes_nothing() {
        let mut reader = Reader::new(&[3, b'a', b'b']);
        assert_eq!(reader.shortstr(), None);
        assert_eq!(reader.rest(), [3, b'a', b'b']);
        let mut reader = Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert_eq!(reader.longstr(), None);
        assert_eq!(reader.rest().len(), 5);
    }

    #[test]
    fn integers_are_big_endian() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 9]);
        assert_eq!(reader.octet(), Some(1));
        assert_eq!(reader.short(), Some(2));
        assert_eq!(reader.long(), Some(3));
        assert_eq!(reader.longlong(), Some(4));
        assert_eq!(reader.short(), None);
        assert_eq!(reader.rest(), [9]);
    }
}
