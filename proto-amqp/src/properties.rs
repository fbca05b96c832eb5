//! The property list of class basic: one walk that checks it and says where everything is.
//!
//! ```text
//!  flags u16 | the properties whose flag is set, in the order of the flags
//!
//!  15 content-type  shortstr    10 correlation-id shortstr     5 type       shortstr
//!  14 content-enc.  shortstr     9 reply-to       shortstr     4 user-id    shortstr
//!  13 headers       table        8 expiration     shortstr     3 app-id     shortstr
//!  12 delivery-mode octet        7 message-id     shortstr     2 cluster-id shortstr
//!  11 priority      octet        6 timestamp      u64          0 another word of flags follows
//! ```
//!
//! The list is the same in 0-8, 0-9 and 0-9-1. A broker forwards it octet by octet; [`summarise`] is
//! what it needs to know of it. Strings are octets (RabbitMQ does not check them either), and the
//! headers stay encoded: read them with a [`TableReader`].

use crate::{
    read::Reader,
    table::{self, Limits, TableReader},
};

pub use crate::error::PropertiesError;

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const TYPE: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Bit 1 means nothing and is ignored; bit 0 announces a second word, for which there is no property.
const CONTINUATION: u16 = 1;

/// The `delivery-mode` of a message that outlives a restart.
pub const PERSISTENT: u8 = 2;

/// A property list with no property.
pub const EMPTY: [u8; 2] = [0, 0];

/// The fourteen properties, borrowed from their list. Fill in what is wanted to [`encode`] a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    /// MIME type of the body.
    pub content_type: Option<&'a [u8]>,
    /// MIME encoding of the body.
    pub content_encoding: Option<&'a [u8]>,
    /// The contents of the headers table, without its length; checked.
    pub headers: Option<&'a [u8]>,
    /// 1 transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    /// Priority; the text knows 0 to 9.
    pub priority: Option<u8>,
    /// For the application.
    pub correlation_id: Option<&'a [u8]>,
    /// For the application, but for RabbitMQ's direct reply-to.
    pub reply_to: Option<&'a [u8]>,
    /// Time to live in milliseconds, as decimal digits; not checked here.
    pub expiration: Option<&'a [u8]>,
    /// For the application.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970; not checked.
    pub timestamp: Option<u64>,
    /// For the application. The property's name is `type`.
    pub kind: Option<&'a [u8]>,
    /// The publishing user; brokers check it against the login.
    pub user_id: Option<&'a [u8]>,
    /// For the application.
    pub app_id: Option<&'a [u8]>,
    /// Deprecated; for the application.
    pub cluster_id: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    /// Whether `delivery-mode` says persistent.
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        matches!(self.delivery_mode, Some(PERSISTENT))
    }

    /// A reader of the headers; empty when there are none.
    #[must_use]
    pub fn headers_reader(&self) -> TableReader<'a> {
        TableReader::new(self.headers.unwrap_or_default())
    }
}

/// Checks a property list, flags first, and says what is in it. Allocates nothing.
///
/// # Errors
/// The first [`PropertiesError`] met: a property that ends beyond the list, octets after the last
/// property, a second word of flags, or headers that [`table::check`] refuses.
#[inline]
pub fn summarise(properties: &[u8]) -> Result<Properties<'_>, PropertiesError> {
    const ONLY_DELIVERY_MODE: [u8; 2] = DELIVERY_MODE.to_be_bytes();
    match *properties {
        [0, 0] => Ok(Properties::default()),
        [flags_hi, flags_lo, mode] if [flags_hi, flags_lo] == ONLY_DELIVERY_MODE => {
            Ok(Properties { delivery_mode: Some(mode), ..Properties::default() })
        }
        _ => summarise_list(properties),
    }
}

fn summarise_list(octets: &[u8]) -> Result<Properties<'_>, PropertiesError> {
    let mut reader = Reader::new(octets);
    let flags = reader.short().ok_or(PropertiesError::Truncated("the flags"))?;
    if flags & CONTINUATION != 0 {
        return Err(PropertiesError::Continuation);
    }
    // Fields are evaluated in the order they are written: that of the flags.
    let properties = Properties {
        content_type: shortstr(&mut reader, flags & CONTENT_TYPE, "content-type")?,
        content_encoding: shortstr(&mut reader, flags & CONTENT_ENCODING, "content-encoding")?,
        headers: read(flags & HEADERS, "headers", || reader.longstr())?,
        delivery_mode: read(flags & DELIVERY_MODE, "delivery-mode", || reader.octet())?,
        priority: read(flags & PRIORITY, "priority", || reader.octet())?,
        correlation_id: shortstr(&mut reader, flags & CORRELATION_ID, "correlation-id")?,
        reply_to: shortstr(&mut reader, flags & REPLY_TO, "reply-to")?,
        expiration: shortstr(&mut reader, flags & EXPIRATION, "expiration")?,
        message_id: shortstr(&mut reader, flags & MESSAGE_ID, "message-id")?,
        timestamp: read(flags & TIMESTAMP, "timestamp", || reader.longlong())?,
        kind: shortstr(&mut reader, flags & TYPE, "type")?,
        user_id: shortstr(&mut reader, flags & USER_ID, "user-id")?,
        app_id: shortstr(&mut reader, flags & APP_ID, "app-id")?,
        cluster_id: shortstr(&mut reader, flags & CLUSTER_ID, "cluster-id")?,
    };
    if !reader.rest().is_empty() {
        return Err(PropertiesError::Trailing(reader.rest().len()));
    }
    if let Some(headers) = properties.headers {
        table::check(headers, Limits::DEFAULT)?;
    }
    Ok(properties)
}

#[inline]
fn shortstr<'a>(
    reader: &mut Reader<'a>,
    flag: u16,
    name: &'static str,
) -> Result<Option<&'a [u8]>, PropertiesError> {
    read(flag, name, || reader.shortstr())
}

/// The property if its flag is set, and an error if it is set and the property is not there.
#[inline]
fn read<T>(
    flag: u16,
    name: &'static str,
    read: impl FnOnce() -> Option<T>,
) -> Result<Option<T>, PropertiesError> {
    if flag == 0 {
        return Ok(None);
    }
    read().map(Some).ok_or(PropertiesError::Truncated(name))
}

/// Appends the property list of `properties`: the flags and every property that is there.
///
/// The inverse of [`summarise`], octet by octet for every list that it accepts, but for the
/// meaningless flag 1.
///
/// # Errors
/// [`PropertiesError::TooLong`] for a string above 255 octets; `out` is then as it was. The headers
/// are copied as they are.
pub fn encode(properties: &Properties<'_>, out: &mut Vec<u8>) -> Result<(), PropertiesError> {
    let before = out.len();
    append(properties, out).inspect_err(|_| out.truncate(before))
}

fn append(properties: &Properties<'_>, out: &mut Vec<u8>) -> Result<(), PropertiesError> {
    out.extend_from_slice(&flags(properties).to_be_bytes());
    append_shortstr(out, properties.content_type, "content-type")?;
    append_shortstr(out, properties.content_encoding, "content-encoding")?;
    if let Some(headers) = properties.headers {
        let len = u32::try_from(headers.len()).map_err(|_| PropertiesError::TooLong("headers"))?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(headers);
    }
    out.extend(properties.delivery_mode);
    out.extend(properties.priority);
    append_shortstr(out, properties.correlation_id, "correlation-id")?;
    append_shortstr(out, properties.reply_to, "reply-to")?;
    append_shortstr(out, properties.expiration, "expiration")?;
    append_shortstr(out, properties.message_id, "message-id")?;
    if let Some(timestamp) = properties.timestamp {
        out.extend_from_slice(&timestamp.to_be_bytes());
    }
    append_shortstr(out, properties.kind, "type")?;
    append_shortstr(out, properties.user_id, "user-id")?;
    append_shortstr(out, properties.app_id, "app-id")?;
    append_shortstr(out, properties.cluster_id, "cluster-id")
}

fn flags(properties: &Properties<'_>) -> u16 {
    let flag = |present: bool, flag: u16| if present { flag } else { 0 };
    flag(properties.content_type.is_some(), CONTENT_TYPE)
        | flag(properties.content_encoding.is_some(), CONTENT_ENCODING)
        | flag(properties.headers.is_some(), HEADERS)
        | flag(properties.delivery_mode.is_some(), DELIVERY_MODE)
        | flag(properties.priority.is_some(), PRIORITY)
        | flag(properties.correlation_id.is_some(), CORRELATION_ID)
        | flag(properties.reply_to.is_some(), REPLY_TO)
        | flag(properties.expiration.is_some(), EXPIRATION)
        | flag(properties.message_id.is_some(), MESSAGE_ID)
        | flag(properties.timestamp.is_some(), TIMESTAMP)
        | flag(properties.kind.is_some(), TYPE)
        | flag(properties.user_id.is_some(), USER_ID)
        | flag(properties.app_id.is_some(), APP_ID)
        | flag(properties.cluster_id.is_some(), CLUSTER_ID)
}

fn append_shortstr(
    out: &mut Vec<u8>,
    octets: Option<&[u8]>,
    name: &'static str,
) -> Result<(), PropertiesError> {
    let Some(octets) = octets else {
        return Ok(());
    };
    out.push(u8::try_from(octets.len()).map_err(|_| PropertiesError::TooLong(name))?);
    out.extend_from_slice(octets);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::TableError,
        reply::ReplyCode,
        table::{DEPTH_MAX, Value},
    };

    const ALL: Properties<'static> = Properties {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b"gzip"),
        headers: Some(&[1, b'a', b't', 1]),
        delivery_mode: Some(PERSISTENT),
        priority: Some(9),
        correlation_id: Some(b"c"),
        reply_to: Some(b"r"),
        expiration: Some(b"60000"),
        message_id: Some(b"\xFF\xFE"),
        timestamp: Some(u64::MAX),
        kind: Some(b"t"),
        user_id: Some(b"guest"),
        app_id: Some(b""),
        cluster_id: Some(b"x"),
    };

    fn encoded(properties: &Properties<'_>) -> Vec<u8> {
        let mut octets = Vec::new();
        encode(properties, &mut octets).unwrap();
        octets
    }

    #[test]
    fn all_fourteen_properties_are_found() {
        let octets = encoded(&ALL);
        assert_eq!(octets[..2], [0xFF, 0xFC]);
        assert_eq!(summarise(&octets), Ok(ALL));
        assert!(ALL.is_persistent());
        assert_eq!(ALL.headers_reader().get(b"a"), Some(Value::Boolean(true)));
    }

    #[test]
    fn a_list_cut_anywhere_is_refused() {
        let octets = encoded(&ALL);
        for len in 0..octets.len() {
            assert!(
                matches!(summarise(&octets[..len]), Err(PropertiesError::Truncated(_))),
                "{len}"
            );
        }
    }

    #[test]
    fn each_property_alone_is_found_and_named_when_it_is_cut() {
        let d = Properties::default();
        for (alone, name) in [
            (Properties { content_type: ALL.content_type, ..d }, "content-type"),
            (Properties { content_encoding: ALL.content_encoding, ..d }, "content-encoding"),
            (Properties { headers: ALL.headers, ..d }, "headers"),
            (Properties { delivery_mode: ALL.delivery_mode, ..d }, "delivery-mode"),
            (Properties { priority: ALL.priority, ..d }, "priority"),
            (Properties { correlation_id: ALL.correlation_id, ..d }, "correlation-id"),
            (Properties { reply_to: ALL.reply_to, ..d }, "reply-to"),
            (Properties { expiration: ALL.expiration, ..d }, "expiration"),
            (Properties { message_id: ALL.message_id, ..d }, "message-id"),
            (Properties { timestamp: ALL.timestamp, ..d }, "timestamp"),
            (Properties { kind: ALL.kind, ..d }, "type"),
            (Properties { user_id: ALL.user_id, ..d }, "user-id"),
            (Properties { app_id: ALL.app_id, ..d }, "app-id"),
            (Properties { cluster_id: ALL.cluster_id, ..d }, "cluster-id"),
        ] {
            let octets = encoded(&alone);
            assert_eq!(summarise(&octets), Ok(alone));
            assert_eq!(
                summarise(&octets[..octets.len() - 1]),
                Err(PropertiesError::Truncated(name))
            );
        }
    }

    #[test]
    fn the_quick_exits_say_what_the_walk_says() {
        for octets in [&[0, 0][..], &[0x10, 0, 2], &[0x10, 0, 1]] {
            assert_eq!(summarise(octets), summarise_list(octets));
            assert!(summarise(octets).is_ok());
        }
        assert_eq!(summarise(&[]), Err(PropertiesError::Truncated("the flags")));
        assert_eq!(summarise(&[0]), Err(PropertiesError::Truncated("the flags")));
        assert_eq!(summarise(&[0x10, 0]), Err(PropertiesError::Truncated("delivery-mode")));
    }

    #[test]
    fn a_second_word_of_flags_is_refused_and_flag_one_is_ignored() {
        assert_eq!(summarise(&[0, 1, 0, 0]), Err(PropertiesError::Continuation));
        assert_eq!(summarise(&[0, 1]), Err(PropertiesError::Continuation));
        assert_eq!(summarise(&[0, 2]), Ok(Properties::default()));
    }

    #[test]
    fn octets_after_the_last_property_are_refused() {
        assert_eq!(summarise(&[0, 0, 0]), Err(PropertiesError::Trailing(1)));
        assert_eq!(summarise(&[0x10, 0, 2, 9, 9]), Err(PropertiesError::Trailing(2)));
    }

    #[test]
    fn malformed_and_too_deep_headers_are_refused() {
        let with =
            |headers| encoded(&Properties { headers: Some(headers), ..Properties::default() });
        let malformed = with(&[1, b'a', b'?']);
        let error = summarise(&malformed).unwrap_err();
        assert_eq!(error.detail(), "headers: unknown field type 63");
        // Deepest first: an empty array in an array in … in a table.
        let mut deep = Vec::new();
        for level in (0..DEPTH_MAX).rev() {
            let named: &[u8] = if level == 0 { &[1, b'a', b'A'] } else { b"A" };
            let len = u32::try_from(deep.len()).unwrap().to_be_bytes();
            deep = [named, &len, &deep].concat();
        }
        assert_eq!(
            summarise(&with(&deep)),
            Err(PropertiesError::Headers(TableError::TooDeep { max: DEPTH_MAX }))
        );
        assert_eq!(PropertiesError::Continuation.code(), ReplyCode::SYNTAX_ERROR);
    }

    #[test]
    fn a_string_too_long_for_its_length_octet_is_not_written() {
        let long = [b'x'; 256];
        let mut out = vec![7];
        let properties =
            Properties { delivery_mode: Some(1), app_id: Some(&long), ..Properties::default() };
        assert_eq!(encode(&properties, &mut out), Err(PropertiesError::TooLong("app-id")));
        assert_eq!(out, [7]);
        let fits = Properties { app_id: Some(&long[..255]), ..properties };
        assert_eq!(encode(&fits, &mut out), Ok(()));
    }
}
