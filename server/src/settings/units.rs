//! The values people write in settings: sizes, time spans, shares of memory, addresses, secrets.
//!
//! Each type reads what a person would write (`"16MiB"`, `"10s"`, `"60%"`), refuses what has two
//! meanings (a bare `10` for a time span, `M` for a size) with a sentence that says what to write
//! instead, and prints itself back in the form it reads. Bounds that belong to a key, not to the
//! type, are in [`rules`](super::rules).

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tracing_subscriber::filter::Targets;

/// What [`Secret`] prints in place of its text.
pub const MASK: &str = "********";

/// A value that has a written form, and perhaps a form as a bare number.
trait Human: Sized {
    /// What was expected, as it reads after "must be".
    const EXPECTED: &'static str;
    /// Reads the written form; the error is a sentence without a full stop.
    fn from_text(text: &str) -> Result<Self, String>;
    /// Reads a bare number.
    fn from_number(number: u64) -> Result<Self, String>;
}

struct HumanVisitor<T>(PhantomData<T>);

impl<T: Human> Visitor<'_> for HumanVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
        }
    }
}

/// Serde and `FromStr` through [`Human`] and `Display`.
macro_rules! human {
    ($type:ty) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                <Self as Human>::from_text(text)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(HumanVisitor::<Self>(PhantomData))
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

/// A number of octets, written `"16MiB"`, `"64kB"`, `"512"` or as a bare number of octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Unit and its octets, largest first; `Display` uses the binary ones.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Size {
    /// `octets` octets.
    #[must_use]
    pub const fn new(octets: u64) -> Self {
        Self(octets)
    }
    /// `n` × 1024 octets.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
    /// `n` × 1024² octets.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// `n` × 1024³ octets.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    /// The number of octets.
    #[must_use]
    pub const fn octets(self) -> u64 {
        self.0
    }
    /// The number of octets, at most what an address can count.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
        for (name, unit) in binary {
            if self.0 >= *unit && self.0.is_multiple_of(*unit) {
                return write!(f, "{}{name}", self.0 / unit);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Human for Size {
    const EXPECTED: &'static str = "a size such as \"16MiB\" or a number of octets";

    fn from_text(text: &str) -> Result<Self, String> {
        let refused = |why: &str| {
            Err(format!(
                "{text:?} is not a size: {why}; write a whole number and B, kB, MB, GB, TB (powers \
                 of 1000) or KiB, MiB, GiB, TiB (powers of 1024)"
            ))
        };
        let trimmed = text.trim();
        let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim_start();
        if number.is_empty() {
            return refused("it does not start with a number");
        }
        if unit.starts_with(['.', ',']) {
            return refused("fractions and separators are not read");
        }
        let scale = if unit.is_empty() {
            1
        } else {
            let known = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
            match known {
                Some((_, scale)) => *scale,
                None => return refused(&format!("{unit:?} is not a unit")),
            }
        };
        let octets = number.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
        octets.map_or_else(|| refused("it is more than 2^64 octets"), |n| Ok(Self(n)))
    }
    fn from_number(number: u64) -> Result<Self, String> {
        Ok(Self(number))
    }
}
human!(Size);

/// A length of time, written `"10s"`, `"500ms"`, `"1h 30m"`; `0` means what its key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    /// `n` seconds.
    #[must_use]
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// The standard library's form.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
    /// Whether this is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl Human for TimeSpan {
    const EXPECTED: &'static str = "a time span such as \"10s\" or \"500ms\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text.trim()) {
            Ok(duration) => Ok(Self(duration)),
            Err(error) => Err(format!(
                "{text:?} is not a time span: {error}; write for example \"10s\", \"500ms\" or \
                 \"1h 30m\""
            )),
        }
    }
    fn from_number(number: u64) -> Result<Self, String> {
        if number == 0 {
            return Ok(Self(Duration::ZERO));
        }
        Err(format!("{number} has no unit: write \"{number}s\" or \"{number}ms\""))
    }
}
human!(TimeSpan);

/// An amount of memory: a share of what the process may have (`"60%"`) or a size (`"2GiB"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Percent of the memory limit of the process, 1 to 100.
    Share(u8),
    /// This many octets.
    Octets(Size),
}

impl Memory {
    /// The amount when the process may have `available`.
    #[must_use]
    pub fn resolve(self, available: Size) -> Size {
        match self {
            Self::Share(percent) => {
                let octets = u128::from(available.octets()) * u128::from(percent) / 100;
                Size(u64::try_from(octets).unwrap_or(u64::MAX))
            }
            Self::Octets(size) => size,
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(percent) => write!(f, "{percent}%"),
            Self::Octets(size) => size.fmt(f),
        }
    }
}

impl Human for Memory {
    const EXPECTED: &'static str = "a share such as \"60%\" or a size such as \"2GiB\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return Size::from_text(text).map(Self::Octets);
        };
        match percent.trim_end().parse::<u8>() {
            Ok(percent @ 1..=100) => Ok(Self::Share(percent)),
            _ => Err(format!("{text:?} is not a share: write a whole number from 1% to 100%")),
        }
    }
    fn from_number(number: u64) -> Result<Self, String> {
        Size::from_number(number).map(Self::Octets)
    }
}
human!(Memory);

/// How many connections there may be: a number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// Four fifths of the open files that the process may have; fewer if the broker needs more for itself.
    Auto,
    /// This many, at least 1.
    Count(u32),
}

impl fmt::Display for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Count(count) => count.fmt(f),
        }
    }
}

impl Human for ConnectionLimit {
    const EXPECTED: &'static str = "a number of connections or \"auto\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            number => match number.parse::<u64>() {
                Ok(number) => Self::from_number(number),
                Err(_) => Err(format!("{text:?} is neither a number nor \"auto\"")),
            },
        }
    }
    fn from_number(number: u64) -> Result<Self, String> {
        match u32::try_from(number) {
            Ok(count @ 1..) => Ok(Self::Count(count)),
            _ => Err(format!("{number} is out of range: write 1 to {} or \"auto\"", u32::MAX)),
        }
    }
}
human!(ConnectionLimit);

/// What is logged: a level (`"info"`), or a list of levels by module (`"info,warren_server=debug"`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl LogFilter {
    /// The filter for `tracing-subscriber`.
    #[must_use]
    pub fn targets(&self) -> Targets {
        // What `from_text` lets through always parses; info is the safe answer all the same.
        self.0.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".into())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Human for LogFilter {
    const EXPECTED: &'static str = "a log level such as \"info\"";

    fn from_text(text: &str) -> Result<Self, String> {
        // `Targets` would take a misspelt level for the name of a module at full noise.
        for part in text.split(',') {
            let (target, level) = match part.trim().split_once('=') {
                Some((target, level)) => (Some(target.trim()), level.trim()),
                None => (None, part.trim()),
            };
            if target == Some("") || !LOG_LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
                return Err(format!(
                    "{part:?} is not a log level: write one of {}, or module=level, parted by \
                     commas",
                    LOG_LEVELS.join(", ")
                ));
            }
        }
        match text.parse::<Targets>() {
            Ok(_) => Ok(Self(text.into())),
            Err(error) => Err(format!("{text:?} is not a list of log levels: {error}")),
        }
    }
    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_text(&number.to_string())
    }
}
human!(LogFilter);

/// Addresses to listen on; none means that the door stays shut. A single string is a list of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<SocketAddr>);

impl Addresses {
    /// `port` on both loopback addresses.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        use std::net::{Ipv4Addr, Ipv6Addr};
        Self(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
    }
    /// The addresses, in the order written.
    #[must_use]
    pub fn as_slice(&self) -> &[SocketAddr] {
        &self.0
    }
    /// Whether nothing listens.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn parse_one(text: &str) -> Result<SocketAddr, String> {
        let trimmed = text.trim();
        if let Ok(address) = trimmed.parse::<SocketAddr>() {
            return Ok(address);
        }
        let bare = trimmed.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(trimmed);
        let port = trimmed.strip_prefix("*:").or_else(|| trimmed.strip_prefix(':'));
        let why = if let Ok(port) = port.unwrap_or(trimmed).parse::<u16>() {
            format!(
                "the address is missing; write \"127.0.0.1:{port}\" for this machine only or \
                 \"[::]:{port}\" for every address, IPv4 and IPv6"
            )
        } else if let Ok(address) = bare.parse::<IpAddr>() {
            format!("the port is missing; write \"{}\"", SocketAddr::new(address, 5672))
        } else if trimmed.matches(':').count() > 1 && !trimmed.starts_with('[') {
            "an IPv6 address goes into brackets, as in \"[::1]:5672\"".to_owned()
        } else if trimmed.bytes().any(|b| b.is_ascii_alphabetic()) && !trimmed.contains("::") {
            "host names are not looked up; write the IP address, as in \"127.0.0.1:5672\""
                .to_owned()
        } else {
            "write an IP address and a port, as in \"127.0.0.1:5672\" or \"[::1]:5672\"".to_owned()
        };
        Err(format!("{text:?} is not an address to listen on: {why}"))
    }
}

impl From<Vec<SocketAddr>> for Addresses {
    fn from(addresses: Vec<SocketAddr>) -> Self {
        Self(addresses)
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(SocketAddr::to_string))
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AddressesVisitor;
        impl<'de> Visitor<'de> for AddressesVisitor {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of addresses such as [\"127.0.0.1:5672\", \"[::1]:5672\"]")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                let address = Addresses::parse_one(text).map_err(E::custom)?;
                Ok(Addresses(vec![address]))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    addresses.push(Addresses::parse_one(&text).map_err(de::Error::custom)?);
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(AddressesVisitor)
    }
}

/// A password. It prints and serialises as [`MASK`] wherever it goes.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The password itself: for checking a login or making a hash, not for a message.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

#[cfg(test)]
mod tests;
