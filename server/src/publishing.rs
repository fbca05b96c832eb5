//! What both protocols ask of the properties of a message before it goes anywhere.
//!
//! The one idea: what is wrong comes back as a sentence in the words of RabbitMQ, and the protocol has a frame for it.
//! What a protocol asks for by itself (delivery modes, destinations, copies) is not here.

use broker_core::queue::arguments::TTL_MAX;

use crate::node::Identity;

/// The milliseconds that a message lives: a decimal number of at most [`TTL_MAX`].
///
/// # Errors
/// What is wrong with it.
// spec: amqp basic "expiration"
pub(crate) fn expiration(value: &[u8]) -> Result<u64, String> {
    let text = String::from_utf8_lossy(value);
    read_expiration(&text).map_err(|reason| format!("invalid expiration '{text}': {reason}"))
}

fn read_expiration(text: &str) -> Result<u64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (number, rest) = digits.split_at(digits.bytes().take_while(u8::is_ascii_digit).count());
    if number.is_empty() {
        return Err("no_integer".to_owned());
    }
    if !rest.is_empty() {
        return Err(format!("{{leftover_string,\"{rest}\"}}"));
    }
    if !sign.is_empty() {
        return Err(format!("{{value_negative,-{number}}}"));
    }
    match number.parse::<i64>() {
        Ok(ttl) if ttl <= TTL_MAX => Ok(ttl.unsigned_abs()),
        _ => Err(format!("{{value_too_large,{number}}}")),
    }
}

/// Checks the `user-id`: it is the publisher's own name, unless he may use those of others.
///
/// # Errors
/// Whom he has taken himself for.
// spec: amqp basic "user-id"
pub(crate) fn check_user_id(user: &[u8], identity: &Identity) -> Result<(), String> {
    let own = &identity.user;
    if user == own.as_str().as_bytes() || identity.impersonator {
        return Ok(());
    }
    let user = String::from_utf8_lossy(user);
    Err(format!("user_id property set to '{user}' but authenticated user was '{own}'"))
}

#[cfg(test)]
mod tests {
    use broker_core::name::{UserName, VhostName};

    use super::*;

    #[test]
    fn an_expiration_is_a_number_of_milliseconds_within_bounds() {
        for (value, reason) in [
            ("", "no_integer"),
            ("soon", "no_integer"),
            ("10s", "{leftover_string,\"s\"}"),
            ("-1", "{value_negative,-1}"),
            ("315360000001", "{value_too_large,315360000001}"),
            ("99999999999999999999", "{value_too_large,99999999999999999999}"),
        ] {
            let said = format!("invalid expiration '{value}': {reason}");
            assert_eq!(expiration(value.as_bytes()), Err(said));
        }
        assert_eq!(expiration(b"0"), Ok(0));
        assert_eq!(expiration(b"315360000000"), Ok(315_360_000_000));
    }

    #[test]
    fn only_an_impersonator_publishes_under_the_name_of_another() {
        let mut app = Identity {
            user: UserName::new("app").unwrap(),
            vhost: VhostName::new("/").unwrap(),
            impersonator: false,
        };
        assert_eq!(check_user_id(b"app", &app), Ok(()));
        let said = "user_id property set to 'guest' but authenticated user was 'app'";
        assert_eq!(check_user_id(b"guest", &app), Err(said.to_owned()));
        app.impersonator = true;
        assert_eq!(check_user_id(b"guest", &app), Ok(()));
    }
}
