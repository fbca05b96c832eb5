//! The three versions and how one of them is chosen.

use std::fmt;

/// A version of the protocol. Ordered: later is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// STOMP 1.0, and every client that does not say what it speaks.
    V1_0,
    /// STOMP 1.1.
    V1_1,
    /// STOMP 1.2.
    V1_2,
}

impl Version {
    /// What stands in the `version` header of an `ERROR` that refuses a client's versions.
    pub const SUPPORTED: &'static str = "1.0,1.1,1.2";

    /// The version as it is written in headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The version that `token` names exactly; blanks are not trimmed.
    #[must_use]
    pub const fn parse(token: &[u8]) -> Option<Self> {
        match token {
            b"1.0" => Some(Self::V1_0),
            b"1.1" => Some(Self::V1_1),
            b"1.2" => Some(Self::V1_2),
            _ => None,
        }
    }

    /// The highest version in common with a client's `accept-version` header; 1.0 without the header,
    /// `None` if there is none in common.
    ///
    /// Tokens are exact: `1.1, 1.2` offers 1.1 only, because ` 1.2` is no version. RabbitMQ reads it so.
    // spec: stomp-1.2 CONNECT "accept-version"
    #[must_use]
    pub fn negotiate(accept_version: Option<&[u8]>) -> Option<Self> {
        match accept_version {
            None => Some(Self::V1_0),
            Some(offered) => offered.split(|&octet| octet == b',').filter_map(Self::parse).max(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_offers_nothing_speaks_1_0() {
        assert_eq!(Version::negotiate(None), Some(Version::V1_0));
    }

    #[test]
    fn the_highest_common_version_wins_in_any_order() {
        let rows: [(&str, Option<Version>); 9] = [
            ("1.0,1.1,1.2", Some(Version::V1_2)),
            ("1.2,1.0", Some(Version::V1_2)),
            ("1.1,1.0", Some(Version::V1_1)),
            ("1.3,1.1,2.0", Some(Version::V1_1)),
            ("1.2, 1.1", Some(Version::V1_2)),
            ("1.1, 1.2", Some(Version::V1_1)),
            ("", None),
            ("1.3", None),
            (" 1.2", None),
        ];
        for (offered, expected) in rows {
            assert_eq!(Version::negotiate(Some(offered.as_bytes())), expected, "{offered:?}");
        }
    }

    #[test]
    fn the_supported_list_names_every_version() {
        let named: Vec<_> =
            Version::SUPPORTED.split(',').map(|token| Version::parse(token.as_bytes())).collect();
        assert_eq!(named, [Some(Version::V1_0), Some(Version::V1_1), Some(Version::V1_2)]);
    }
}
