//! What a connection's first octets are, for the one line in the log when somebody took the wrong
//! port.
//!
//! A guess about a peer that has made a mistake; nothing is decided by it but the wording.

use std::fmt;

/// What the first octets of a connection look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A TLS `ClientHello` (RFC 8446 §5.1): record type 22, major version 3, handshake type 1.
    Tls,
    /// An HTTP request line, or the preface of HTTP/2.
    Http,
    /// The protocol header of AMQP, whichever version.
    Amqp,
    /// A frame of a STOMP client.
    Stomp,
    /// None of these.
    Unknown,
}

/// The octets that [`Opening::of`] looks at, at most.
const LOOKED_AT: usize = 16;

const HTTP_METHODS: [&[u8]; 10] = [
    b"GET ",
    b"POST ",
    b"PUT ",
    b"HEAD ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI * HTTP/2",
];

impl Opening {
    /// Looks at the first octets of a connection; sixteen are enough, fewer give a poorer guess.
    #[must_use]
    pub fn of(first: &[u8]) -> Self {
        let first = first.get(..LOOKED_AT).unwrap_or(first);
        if let [0x16, 0x03, _, _, _, rest @ ..] = first
            && matches!(rest, [] | [0x01, ..])
        {
            return Self::Tls;
        }
        if first.starts_with(b"AMQP") {
            return Self::Amqp;
        }
        // HTTP's CONNECT has a target after a blank; STOMP's command ends its line.
        if HTTP_METHODS.iter().any(|method| first.starts_with(method)) {
            return Self::Http;
        }
        // STOMP clients may begin with heart-beats.
        let frame = first.trim_ascii_start();
        let command = frame.split(|octet| *octet == b'\n').next().unwrap_or_default();
        let command = command.strip_suffix(b"\r").unwrap_or(command);
        if command.len() < frame.len() && [&b"CONNECT"[..], b"STOMP", b"SEND"].contains(&command) {
            return Self::Stomp;
        }
        Self::Unknown
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "a TLS handshake",
            Self::Http => "an HTTP request",
            Self::Amqp => "an AMQP protocol header",
            Self::Stomp => "a STOMP frame",
            Self::Unknown => "octets of no protocol known here",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_told_apart() {
        for (octets, opening) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], Opening::Tls),
            (b"\x16\x03\x03\x00\x05\x02", Opening::Unknown),
            (b"GET / HTTP/1.1\r\nHost: x", Opening::Http),
            (b"CONNECT host:443 HTTP/1.1", Opening::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Opening::Http),
            (b"AMQP\x00\x00\x09\x01", Opening::Amqp),
            (b"AMQP\x01\x01\x08\x00", Opening::Amqp),
            (b"CONNECT\nlogin:guest\n", Opening::Stomp),
            (b"\n\nSTOMP\r\naccept-version:1.2", Opening::Stomp),
            (b"SEND\ndestination:/queue/a", Opening::Stomp),
            (b"STOMP", Opening::Unknown),
            (b"SSH-2.0-OpenSSH_9.2", Opening::Unknown),
            (b"\x00\x01\x02", Opening::Unknown),
            (b"", Opening::Unknown),
        ] {
            assert_eq!(Opening::of(octets), opening, "{:?}", String::from_utf8_lossy(octets));
        }
    }
}
