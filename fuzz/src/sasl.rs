//! What strangers send first: protocol headers and SASL responses.
//!
//! ```text
//!  input   the same octets as each of the three
//! ```

use proto_amqp::{
    SaslError,
    handshake::{self, Credentials, Header},
    table::{self, Limits, TableReader, Value},
};

/// Fuzzes [`handshake`].
///
/// # Panics
/// When it breaks its promises.
pub fn run(octets: &[u8]) {
    check_header(octets);
    check_plain(octets);
    check_amqplain(octets);
}

/// Whatever arrives later never changes a decision, and eight octets always bring one.
fn check_header(octets: &[u8]) {
    let mut decided = None;
    for len in 0..=octets.len().min(16) {
        let header = handshake::parse_protocol_header(&octets[..len]);
        match decided {
            Some(before) => assert_eq!(header, before, "after {len} octets"),
            None if header == Header::Incomplete => assert!(len < 8, "{octets:?}"),
            None => decided = Some(header),
        }
    }
}

fn check_plain(response: &[u8]) {
    match handshake::plain(response) {
        Ok(found) => {
            let again = [&[0], found.user, &[0], found.password].concat();
            assert_eq!(again, response);
            check_shown(found);
        }
        Err(error) => {
            assert_eq!(error, SaslError::Plain);
            let nuls = response.iter().filter(|octet| **octet == 0).count();
            assert!(nuls != 2 || response.first() != Some(&0));
        }
    }
}

fn check_amqplain(response: &[u8]) {
    let field = |name: &[u8]| {
        // The first of a name counts.
        let (_, value) = TableReader::new(response).find(|(found, _)| *found == name)?;
        match value {
            Value::LongString(octets) => Some(octets),
            _ => None,
        }
    };
    match handshake::amqplain(response) {
        Ok(found) => {
            assert_eq!(table::check(response, Limits::DEFAULT), Ok(()));
            assert_eq!(Some(found.user), field(b"LOGIN"));
            assert_eq!(Some(found.password), field(b"PASSWORD"));
            check_shown(found);
        }
        Err(SaslError::Amqplain(error)) => {
            assert_eq!(table::check(response, Limits::DEFAULT), Err(error));
        }
        Err(SaslError::AmqplainField(name)) => assert_eq!(field(name.as_bytes()), None),
        Err(SaslError::Plain) => panic!("PLAIN's error for AMQPLAIN's octets"),
    }
}

/// What is shown does not depend on the password.
fn check_shown(found: Credentials<'_>) {
    let another = Credentials { password: b"another", ..found };
    assert_eq!(format!("{found:?}"), format!("{another:?}"));
}
