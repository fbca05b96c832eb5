//! A fuzzer's octets read as a script: choices first, material after them.
//!
//! Reading beyond the end gives zeros and empty slices, so that every input is a script.

/// What is left of the script.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    left: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) const fn new(octets: &'a [u8]) -> Self {
        Self { left: octets }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.octets(1).first().copied().unwrap_or_default()
    }

    /// The next `len` octets, or as many as there are.
    pub(crate) fn octets(&mut self, len: usize) -> &'a [u8] {
        let (front, back) = self.left.split_at(len.min(self.left.len()));
        self.left = back;
        front
    }

    /// Octets with their own length in an octet before them.
    pub(crate) fn short(&mut self) -> &'a [u8] {
        let len = self.octet();
        self.octets(len.into())
    }

    /// Eight octets, big end first.
    pub(crate) fn number(&mut self) -> u64 {
        self.octets(8).iter().fold(0, |number, octet| number << 8 | u64::from(*octet))
    }

    pub(crate) const fn rest(self) -> &'a [u8] {
        self.left
    }
}

/// Cuts `octets` into pieces of at least one octet; the lengths follow from `seed`.
pub(crate) fn cut(octets: &[u8], seed: u64) -> Vec<&[u8]> {
    // xorshift64; a state of 0 would stay 0.
    let mut state = seed | 1 << 63;
    let mut left = octets;
    let mut pieces = Vec::new();
    while !left.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Mostly a few octets, now and then many: cuts inside a header and inside a body.
        let longest = if state & 0x700 == 0 { 512 } else { 8 };
        let len = usize::try_from((state >> 32) % longest).unwrap_or_default() + 1;
        let (piece, rest) = left.split_at(len.min(left.len()));
        pieces.push(piece);
        left = rest;
    }
    pieces
}
