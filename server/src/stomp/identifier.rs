//! Identifiers that the broker makes up: of sessions, of queues that nobody has named.
//!
//! 128 bits in 22 letters that can stand in any header and any destination: the URL-safe alphabet of RFC 4648 without
//! padding, as RabbitMQ has them.

/// Letters of an identifier of 128 bits.
const LETTERS: usize = 22;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// `prefix` and a number that nobody can guess.
pub(super) fn random(prefix: &str) -> String {
    format!("{prefix}{}", letters(rand::random()))
}

/// `prefix` and a digest of `parts`: the same for the same parts, today and after an update.
///
/// FNV-1a of 128 bits. Whoever can choose parts with the digest of somebody else's can as well choose the same
/// parts: what protects a queue is its permissions, not its name.
pub(super) fn of(prefix: &str, parts: &[&[u8]]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut digest = OFFSET;
    let mut take = |octet: u8| digest = (digest ^ u128::from(octet)).wrapping_mul(PRIME);
    for part in parts {
        // The length first: where one part ends and the next begins must matter.
        (part.len() as u64).to_be_bytes().into_iter().for_each(&mut take);
        part.iter().copied().for_each(&mut take);
    }
    format!("{prefix}{}", letters(digest))
}

fn letters(number: u128) -> String {
    (0..LETTERS)
        .map(|place| {
            // Six bits a letter, the highest first; the last letter has two.
            let bits = match 122_usize.checked_sub(6 * place) {
                Some(shift) => (number >> shift) & 63,
                None => (number & 3) << 4,
            };
            let letter = usize::try_from(bits).ok().and_then(|bits| ALPHABET.get(bits));
            char::from(letter.copied().unwrap_or(b'A'))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_as_base64_of_its_sixteen_octets() {
        assert_eq!(letters(0), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(letters(u128::MAX), "_____________________w");
        // The octets 00 01 … 0f.
        assert_eq!(letters(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f), "AAECAwQFBgcICQoLDA0ODw");
    }

    #[test]
    fn digests_never_change_and_tell_parts_apart() {
        let digest = |parts: &[&[u8]]| of("s-", parts);
        assert_eq!(digest(&[b"a.b", b"0"]), digest(&[b"a.b", b"0"]));
        assert_ne!(digest(&[b"a.b", b"0"]), digest(&[b"a.b0", b""]));
        assert_ne!(digest(&[b"a.b", b"0"]), digest(&[b"a.b", b"1"]));
        // Queues of earlier versions have to be found again.
        assert_eq!(digest(&[b"key", b"id"]), "s-JEI1YcNwKrLHZAHtAycVxA");
    }

    #[test]
    fn two_random_identifiers_differ() {
        let (a, b) = (random("session-"), random("session-"));
        assert_eq!(a.len(), "session-".len() + 22);
        assert_ne!(a, b);
    }
}
