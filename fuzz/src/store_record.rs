//! The decoders of the store: octets as they are, and with the checksums written that would let them pass.
//!
//! ```text
//!  input   which format: an octet | the octets
//! ```
//!
//! What is decoded is encoded and decoded again, which must give the same; the checks are beside the
//! decoders, in `storage/fuzzing.rs`. Log files of the corpus are cut short, as any input is.

use broker_core::storage::fuzzing::{FORMATS, decode, seal};

/// Fuzzes one decoder.
///
/// # Panics
/// When it breaks a promise.
pub fn run(octets: &[u8]) {
    let Some((choice, octets)) = octets.split_first() else {
        return;
    };
    let format = FORMATS[usize::from(*choice) % FORMATS.len()];
    decode(format, octets);
    let mut sealed = octets.to_vec();
    seal(format, &mut sealed);
    decode(format, &sealed);
}
