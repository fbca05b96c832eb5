//! What a client says before it may use channels: protocol header, SASL response, capabilities.
//!
//! ```text
//!  protocol header   "AMQP" and four octets     0 0 9 1   AMQP 0-9-1
//!                                               1 1 0 9   AMQP 0-9
//!                                               1 1 8 0   AMQP 0-8
//!                                               1 1 9 1   AMQP 0-8, as py-amqplib announces it
//!                                               n 1 0 0   AMQP 1.0: 0 plain, 2 TLS, 3 SASL
//! ```
//!
//! The four rows of 0-x are accepted. Everything else is refused by sending
//! [`PROTOCOL_HEADER_0_9_1`] and closing; the kinds of [`Header`] are there for the log. These
//! functions look at octets only: passwords are checked, and waiting ends, elsewhere.

use std::fmt;

use amq_protocol::types::{AMQPValue, FieldTable};
use nom::{
    IResult, Parser,
    branch::alt,
    bytes::streaming::tag,
    character::streaming::one_of,
    combinator::{map, value},
    sequence::delimited,
};

use crate::{
    table::{self, Limits, TableReader},
    types::Version,
};

pub use crate::error::SaslError;

/// What a refused client is sent before the connection is closed.
pub const PROTOCOL_HEADER_0_9_1: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// What the first octets of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The beginning of one of the others: wait for more.
    Incomplete,
    /// The eight octets of a version spoken here.
    Accepted(Version),
    /// The eight octets of AMQP 1.0, which is another protocol.
    Amqp1_0 {
        /// The protocol id: 0 plain, 2 TLS, 3 SASL.
        id: u8,
    },
    /// The beginning of an HTTP request.
    Http,
    /// The beginning of a TLS handshake.
    Tls,
    /// None of these, decided with the first octet that fits none.
    Unknown,
}

/// Says what the first octets of a connection are. Of an accepted header exactly eight are taken.
#[must_use]
pub fn parse_protocol_header(input: &[u8]) -> Header {
    match header(input) {
        Ok((_, header)) => header,
        Err(nom::Err::Incomplete(_)) => Header::Incomplete,
        Err(nom::Err::Error(_) | nom::Err::Failure(_)) => Header::Unknown,
    }
}

/// Streaming parsers answer "incomplete" only while what has come fits, so that the first octet out
/// of place decides.
fn header(input: &[u8]) -> IResult<&[u8], Header> {
    alt((
        value(Header::Accepted(Version::V0_9_1), tag(&PROTOCOL_HEADER_0_9_1[..])),
        value(Header::Accepted(Version::V0_9), tag(&b"AMQP\x01\x01\x00\x09"[..])),
        value(Header::Accepted(Version::V0_8), tag(&b"AMQP\x01\x01\x08\x00"[..])),
        value(Header::Accepted(Version::V0_8), tag(&b"AMQP\x01\x01\x09\x01"[..])),
        map(
            delimited(tag(&b"AMQP"[..]), one_of(&b"\x00\x02\x03"[..]), tag(&b"\x01\x00\x00"[..])),
            // The three ids are below 128, where a `char` is its octet.
            |id| Header::Amqp1_0 { id: u8::try_from(id).unwrap_or_default() },
        ),
        value(Header::Tls, tag(&b"\x16\x03"[..])),
        value(Header::Http, http_method),
    ))
    .parse(input)
}

fn http_method(input: &[u8]) -> IResult<&[u8], &[u8]> {
    alt((
        tag(&b"GET "[..]),
        tag(&b"HEAD "[..]),
        tag(&b"POST "[..]),
        tag(&b"PUT "[..]),
        tag(&b"PATCH "[..]),
        tag(&b"PRI "[..]),
        tag(&b"DELETE "[..]),
        tag(&b"OPTIONS "[..]),
        tag(&b"CONNECT "[..]),
        tag(&b"TRACE "[..]),
    ))
    .parse(input)
}

/// A user name and password as the client sent them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The user's name.
    pub user: &'a [u8],
    /// The password. Never shown.
    pub password: &'a [u8],
}

/// Shows the user and that there is a password, not which nor how long.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &String::from_utf8_lossy(self.user))
            .field("password", &"…")
            .finish()
    }
}

/// Takes a PLAIN response apart: `NUL user NUL password`.
///
/// RFC 4616's authorisation identity before the first NUL must be empty, as with RabbitMQ.
///
/// # Errors
/// [`SaslError::Plain`] for anything else, a NUL in the password included.
pub fn plain(response: &[u8]) -> Result<Credentials<'_>, SaslError> {
    let mut parts = response.split(|octet| *octet == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some([]), Some(user), Some(password), None) => Ok(Credentials { user, password }),
        _ => Err(SaslError::Plain),
    }
}

/// Takes an AMQPLAIN response apart: the contents of a field table with the long strings `LOGIN` and
/// `PASSWORD`.
///
/// # Errors
/// [`SaslError::Amqplain`] when it is no table, [`SaslError::AmqplainField`] when one of the two is
/// missing or of another type.
pub fn amqplain(response: &[u8]) -> Result<Credentials<'_>, SaslError> {
    table::check(response, Limits::DEFAULT).map_err(SaslError::Amqplain)?;
    let field = |name: &'static str| {
        TableReader::new(response)
            .get(name.as_bytes())
            .and_then(|value| value.as_longstr())
            .ok_or(SaslError::AmqplainField(name))
    };
    Ok(Credentials { user: field("LOGIN")?, password: field("PASSWORD")? })
}

/// What a client has said that it understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `authentication_failure_close`: wants a close method when the login is refused.
    pub authentication_failure_close: bool,
    /// `consumer_cancel_notify`: wants `basic.cancel` when its consumer's queue goes.
    pub consumer_cancel_notify: bool,
    /// `connection.blocked`: wants to be told when its publishes are held.
    pub connection_blocked: bool,
    /// `basic.nack`: for the record.
    pub basic_nack: bool,
    /// `publisher_confirms`: for the record.
    pub publisher_confirms: bool,
    /// `exchange_exchange_bindings`: for the record.
    pub exchange_exchange_bindings: bool,
    /// `per_consumer_qos`: for the record.
    pub per_consumer_qos: bool,
}

impl Capabilities {
    /// Reads the table `capabilities` of a start-ok's client properties. What is absent, or is not the
    /// boolean true, is not understood.
    #[must_use]
    pub fn of_client_properties(client_properties: &FieldTable) -> Self {
        let Some(AMQPValue::FieldTable(announced)) = client_properties.inner().get("capabilities")
        else {
            return Self::default();
        };
        let has = |name: &str| announced.inner().get(name) == Some(&AMQPValue::Boolean(true));
        Self {
            authentication_failure_close: has("authentication_failure_close"),
            consumer_cancel_notify: has("consumer_cancel_notify"),
            connection_blocked: has("connection.blocked"),
            basic_nack: has("basic.nack"),
            publisher_confirms: has("publisher_confirms"),
            exchange_exchange_bindings: has("exchange_exchange_bindings"),
            per_consumer_qos: has("per_consumer_qos"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::TableError, reply::ReplyCode, table::TableWriter, table::Value};

    #[test]
    fn the_rows_of_the_protocol_header_are_told_apart() {
        for (octets, expected) in [
            (&b"AMQP\x00\x00\x09\x01"[..], Header::Accepted(Version::V0_9_1)),
            (b"AMQP\x01\x01\x00\x09", Header::Accepted(Version::V0_9)),
            (b"AMQP\x01\x01\x08\x00", Header::Accepted(Version::V0_8)),
            (b"AMQP\x01\x01\x09\x01", Header::Accepted(Version::V0_8)),
            (b"AMQP\x00\x01\x00\x00", Header::Amqp1_0 { id: 0 }),
            (b"AMQP\x02\x01\x00\x00", Header::Amqp1_0 { id: 2 }),
            (b"AMQP\x03\x01\x00\x00", Header::Amqp1_0 { id: 3 }),
            (b"GET / HTTP/1.1", Header::Http),
            (b"POST /", Header::Http),
            (b"PUT /", Header::Http),
            (b"PRI * HTTP/2.0", Header::Http),
            (b"OPTIONS *", Header::Http),
            (b"\x16\x03\x01\x02\x00", Header::Tls),
            (b"AMQP\x00\x00\x09\x00", Header::Unknown),
            (b"AMQP\x00\x00\x09\x02", Header::Unknown),
            (b"AMQP\x01\x01\x08\x01", Header::Unknown),
            (b"AMQP\x01\x01\x00\x0A", Header::Unknown),
            (b"AMQP\x01\x01\x09\x00", Header::Unknown),
            (b"AMQP\x01\x01\x00\x00", Header::Unknown),
            (b"AMQP\x04\x01\x00\x00", Header::Unknown),
            (b"CONNECT\n\n\x00", Header::Unknown),
            (b"STOMP\n", Header::Unknown),
            (b"\x16\x02", Header::Unknown),
            (b"", Header::Incomplete),
        ] {
            assert_eq!(parse_protocol_header(octets), expected, "{octets:?}");
        }
    }

    #[test]
    fn a_header_is_accepted_with_its_eighth_octet_and_what_follows_does_not_matter() {
        for octets in [b"AMQP\x00\x00\x09\x01", b"AMQP\x01\x01\x09\x01", b"AMQP\x03\x01\x00\x00"] {
            for len in 0..octets.len() {
                assert_eq!(parse_protocol_header(&octets[..len]), Header::Incomplete, "{len}");
            }
            let whole = parse_protocol_header(octets);
            let more = [&octets[..], &[1, 2, 3]].concat();
            assert_eq!(parse_protocol_header(&more), whole);
        }
    }

    #[test]
    fn a_wrong_octet_decides_before_the_eighth() {
        for octets in [
            &b"X"[..],
            b"AX",
            b"AMQX",
            b"AMQP\x04",
            b"AMQP\x00\x02",
            b"AMQP\x00\x00\x08",
            b"AMQP\x02\x00",
            b"GEX",
            b"\x16\x16",
            b"\x00",
        ] {
            assert_eq!(parse_protocol_header(octets), Header::Unknown, "{octets:?}");
        }
    }

    #[test]
    fn a_plain_response_is_nul_user_nul_password() {
        let parsed = plain(b"\0guest\0secret").unwrap();
        assert_eq!((parsed.user, parsed.password), (&b"guest"[..], &b"secret"[..]));
        let blank = plain(b"\0\0").unwrap();
        assert_eq!((blank.user, blank.password), (&b""[..], &b""[..]));
        for malformed in [
            &b""[..],
            b"\0",
            b"\0guest",
            b"guest\0guest",
            b"authzid\0guest\0secret",
            b"\0guest\0sec\0ret",
            b"\0guest\0\0",
        ] {
            assert_eq!(plain(malformed), Err(SaslError::Plain), "{malformed:?}");
        }
        assert_eq!(SaslError::Plain.code(), ReplyCode::SYNTAX_ERROR);
    }

    fn login(fields: &[(&[u8], Value<'_>)]) -> Vec<u8> {
        let mut response = Vec::new();
        let mut table = TableWriter::new(&mut response);
        for (name, value) in fields {
            table.write(name, *value).unwrap();
        }
        response
    }

    #[test]
    fn an_amqplain_response_is_a_table_without_its_length() {
        let response = login(&[
            (b"LOGIN", Value::LongString(b"guest")),
            (b"PASSWORD", Value::LongString(b"sec\0ret")),
            (b"LOGIN", Value::LongString(b"second")),
        ]);
        let parsed = amqplain(&response).unwrap();
        assert_eq!((parsed.user, parsed.password), (&b"guest"[..], &b"sec\0ret"[..]));
    }

    #[test]
    fn an_amqplain_response_without_both_long_strings_is_refused() {
        let user = (&b"LOGIN"[..], Value::LongString(b"guest"));
        assert_eq!(amqplain(b""), Err(SaslError::AmqplainField("LOGIN")));
        assert_eq!(amqplain(&login(&[user])), Err(SaslError::AmqplainField("PASSWORD")));
        assert_eq!(
            amqplain(&login(&[user, (b"PASSWORD", Value::ByteArray(b"x"))])),
            Err(SaslError::AmqplainField("PASSWORD"))
        );
        assert_eq!(
            amqplain(&login(&[(b"login", Value::LongString(b"x"))])),
            Err(SaslError::AmqplainField("LOGIN"))
        );
        let with_length = [&[0, 0, 0, 0][..], &login(&[user])].concat();
        assert!(matches!(amqplain(&with_length), Err(SaslError::Amqplain(_))));
        assert_eq!(amqplain(&[5, b'L']), Err(SaslError::Amqplain(TableError::Truncated)));
    }

    #[test]
    fn credentials_do_not_show_their_password() {
        let shown = format!("{:?}", Credentials { user: b"guest", password: b"hunter2" });
        assert!(shown.contains("guest") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_capability_counts_only_as_the_boolean_true() {
        let mut announced = FieldTable::default();
        announced.insert("authentication_failure_close".into(), AMQPValue::Boolean(true));
        announced.insert("connection.blocked".into(), AMQPValue::Boolean(true));
        announced.insert("basic.nack".into(), AMQPValue::Boolean(false));
        announced.insert("consumer_cancel_notify".into(), AMQPValue::LongInt(1));
        let mut properties = FieldTable::default();
        properties.insert("capabilities".into(), AMQPValue::FieldTable(announced));
        assert_eq!(
            Capabilities::of_client_properties(&properties),
            Capabilities {
                authentication_failure_close: true,
                connection_blocked: true,
                ..Capabilities::default()
            }
        );
    }

    #[test]
    fn without_a_table_of_capabilities_there_are_none() {
        let mut properties = FieldTable::default();
        assert_eq!(Capabilities::of_client_properties(&properties), Capabilities::default());
        properties.insert("capabilities".into(), AMQPValue::LongString("all".into()));
        assert_eq!(Capabilities::of_client_properties(&properties), Capabilities::default());
    }
}
