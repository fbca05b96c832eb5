//! Escape sequences in header names and values.
//!
//! ```text
//! LF \n    CR \r    ':' \c    '\' \\
//! ```
//!
//! The texts know none in 1.0, three in 1.1 and four in 1.2. RabbitMQ reads and writes all four in
//! every version, and so do we: a line end that is not escaped on the way out would let a message
//! from AMQP forge headers, and an identifier that was escaped on the way to a 1.0 client which does
//! not know escapes comes back as it was sent and has to be understood.

/// What becomes of a backslash that starts none of the four sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undefined {
    /// It is a backslash. For 1.0, and for the frames that come before a version is agreed.
    Literal,
    /// It is an error. For 1.1 and 1.2.
    Refused,
}

/// A backslash that starts no escape sequence, where that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UndefinedEscape;

/// Appends what `raw` stands for to `out`.
///
/// Never longer than `raw`.
// spec: stomp-1.2 "Value Encoding"
pub(crate) fn unescape_into(
    out: &mut Vec<u8>,
    mut raw: &[u8],
    undefined: Undefined,
) -> Result<(), UndefinedEscape> {
    while let Some(at) = memchr::memchr(b'\\', raw) {
        let (literal, sequence) = raw.split_at_checked(at).unwrap_or((raw, &[]));
        out.extend_from_slice(literal);
        let octet = match sequence {
            [_, b'n', ..] => b'\n',
            [_, b'r', ..] => b'\r',
            [_, b'c', ..] => b':',
            [_, b'\\', ..] => b'\\',
            _ if undefined == Undefined::Refused => return Err(UndefinedEscape),
            _ => {
                out.push(b'\\');
                raw = sequence.get(1..).unwrap_or_default();
                continue;
            }
        };
        out.push(octet);
        raw = sequence.get(2..).unwrap_or_default();
    }
    out.extend_from_slice(raw);
    Ok(())
}

/// Appends `octets`, with each of the four that have one replaced by its sequence.
///
/// NUL has no sequence; the caller keeps it out.
pub(crate) fn escape_into(out: &mut Vec<u8>, octets: &[u8]) {
    for &octet in octets {
        match octet {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b':' => out.extend_from_slice(b"\\c"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            _ => out.push(octet),
        }
    }
}

/// As [`escape_into`], for line ends only: in frames that are exempt from escaping they have no other
/// way to be written, and written as they are they would end the header.
pub(crate) fn escape_line_ends_into(out: &mut Vec<u8>, octets: &[u8]) {
    for &octet in octets {
        match octet {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => out.push(octet),
        }
    }
}

/// Whether an octet may not stand as it is in a header that is escaped, or (NUL) in any.
pub(crate) const fn is_special(octet: u8) -> bool {
    // Without branches, so that the compiler can look at many octets at once.
    (octet == b'\n') | (octet == b'\r') | (octet == b':') | (octet == b'\\') | (octet == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(raw: &str, undefined: Undefined) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        unescape_into(&mut out, raw.as_bytes(), undefined).ok().map(|()| out)
    }

    #[test]
    fn the_four_sequences_are_decoded_under_both_rules() {
        for undefined in [Undefined::Literal, Undefined::Refused] {
            assert_eq!(unescaped(r"a\nb\rc\cd\\e", undefined).unwrap(), b"a\nb\rc:d\\e");
            assert_eq!(unescaped("plain", undefined).unwrap(), b"plain");
            assert_eq!(unescaped("", undefined).unwrap(), b"");
        }
    }

    #[test]
    fn other_sequences_are_literal_or_refused_and_never_half_decoded() {
        // \t and a lone backslash at the end; \\t is a backslash and a t under both rules.
        for raw in [r"\t", r"a\", r"\", r"\C", r"\N", r"\0", r"\ n"] {
            assert_eq!(unescaped(raw, Undefined::Literal).unwrap(), raw.as_bytes(), "{raw}");
            assert_eq!(unescaped(raw, Undefined::Refused), None, "{raw}");
        }
        assert_eq!(unescaped(r"\\t", Undefined::Refused).unwrap(), br"\t");
    }

    #[test]
    fn an_undefined_sequence_does_not_swallow_the_start_of_a_defined_one() {
        assert_eq!(unescaped(r"\x\n", Undefined::Literal).unwrap(), b"\\x\n");
    }

    #[test]
    fn escaping_touches_the_four_octets_and_no_other() {
        for octet in 1..=u8::MAX {
            let mut out = Vec::new();
            escape_into(&mut out, &[octet]);
            if is_special(octet) {
                assert_eq!(out.first(), Some(&b'\\'), "{octet}");
                assert_eq!(out.len(), 2, "{octet}");
            } else {
                assert_eq!(out, [octet]);
            }
        }
    }
}
