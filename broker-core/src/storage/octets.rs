//! Little-endian reading and writing of octets, each read checked against the end.
//!
//! The one idea: a decoder asks for what it needs and gets `None` when the octets end, so that no
//! length read from a damaged file can index, allocate or panic. Nothing here knows a format.

/// Reads values from the front of a slice; every method answers `None` past the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// The octets not read yet.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` octets.
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn node(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// A u32 length and as many octets.
    pub(super) fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(to_usize(u64::from(len)))
    }
}

/// Appends values to a vector.
pub(super) trait Put {
    fn put(&mut self, octets: &[u8]);

    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A u32 length and the octets.
    fn put_sized(&mut self, octets: &[u8]) {
        self.put_u32(len_u32(octets.len()));
        self.put(octets);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

/// `len` as the u32 that the format holds.
///
/// Every length is checked against a bound far below 4 GiB before it gets here (`append` refuses
/// larger records); saturating makes a mistake fail the checksum instead of wrapping.
pub(super) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A length or offset as an index. Saturates where `usize` is narrower than the format's u64: no
/// slice is that long, so a checked access answers `None`.
pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// `len` rounded up to a multiple of `unit`.
pub(super) fn align_up(len: u64, unit: u64) -> u64 {
    len.next_multiple_of(unit)
}

/// The CRC-32 (IEEE) of several pieces in a row.
pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}
