//! Methods: the hot way and the thorough way agree, `amq_protocol` agrees with both, and what was
//! decoded is written and decoded again.
//!
//! ```text
//!  input   version: one octet, an index | the payload of a method frame
//! ```

use proto_amqp::{
    ChannelId, Method, MethodError, MethodErrorKind, MethodId, Version,
    control::{self, protocol::AMQPClass, protocol::basic::AMQPMethod, protocol::parse_class},
    frame, method, reply_text,
    table::{self, Limits},
};

use crate::script::Script;

const VERSIONS: [Version; 3] = [Version::V0_9_1, Version::V0_9, Version::V0_8];

/// Fuzzes [`method::decode`], [`control::decode`] and [`control::encode`].
///
/// # Panics
/// When one of them breaks its promises.
pub fn run(octets: &[u8]) {
    let mut script = Script::new(octets);
    let version = VERSIONS[usize::from(script.octet()) % VERSIONS.len()];
    let payload = script.rest();

    let decoded = method::decode(payload, version);
    check_beside(payload, version);
    match &decoded {
        Ok(found) => {
            let id = MethodId::of_payload(payload).expect("a method has ids");
            assert!(method::is_known(id, version), "{id}");
            assert!(agree(found, payload, version), "{found:?}");
        }
        Err(error) => check_error(error, payload, version),
    }
    let Ok(class) = control::decode(payload, version) else {
        // Names that are octets on the hot way are UTF-8 on the thorough one.
        assert!(!matches!(&decoded, Ok(found) if !matches!(found, Method::Publish(_))));
        return;
    };
    assert!(decoded.is_ok(), "{class:?}");
    if version == Version::V0_9_1 {
        let theirs = parse_class(payload).map(|(_, class)| class);
        assert!(theirs.is_ok_and(|theirs| same(&theirs, &class)), "{class:?}");
    }
    check_written_again(&class, version);
}

/// Whether both ways say the same of a payload that the first accepts.
fn agree(found: &Method<'_>, payload: &[u8], version: Version) -> bool {
    let thorough = control::decode(payload, version);
    match (found, thorough) {
        (Method::Control(class), Ok(thorough)) => same(class, &thorough),
        (Method::Publish(hot), Ok(AMQPClass::Basic(AMQPMethod::Publish(thorough)))) => {
            hot.exchange == thorough.exchange.as_str().as_bytes()
                && hot.routing_key == thorough.routing_key.as_str().as_bytes()
                && (hot.mandatory, hot.immediate) == (thorough.mandatory, thorough.immediate)
        }
        (Method::Publish(hot), Err(_)) => {
            [hot.exchange, hot.routing_key].iter().any(|name| std::str::from_utf8(name).is_err())
        }
        (Method::Ack(hot), Ok(AMQPClass::Basic(AMQPMethod::Ack(thorough)))) => {
            (hot.delivery_tag, hot.multiple) == (thorough.delivery_tag, thorough.multiple)
        }
        (Method::Nack(hot), Ok(AMQPClass::Basic(AMQPMethod::Nack(thorough)))) => {
            (hot.delivery_tag, hot.multiple, hot.requeue)
                == (thorough.delivery_tag, thorough.multiple, thorough.requeue)
        }
        (Method::Reject(hot), Ok(AMQPClass::Basic(AMQPMethod::Reject(thorough)))) => {
            (hot.delivery_tag, hot.requeue) == (thorough.delivery_tag, thorough.requeue)
        }
        _ => false,
    }
}

/// Equal, or equal in text: an argument may hold a NaN, which equals nothing.
fn same(one: &AMQPClass, other: &AMQPClass) -> bool {
    one == other || format!("{one:?}") == format!("{other:?}")
}

/// What is read beside the decoded method, on any octets.
fn check_beside(payload: &[u8], version: Version) {
    let contents = control::argument_table(payload, version);
    if control::decode(payload, version).is_ok()
        && let Some(contents) = contents
    {
        assert_eq!(table::check(contents, Limits::DEFAULT), Ok(()));
    }
    let is_qos = payload.starts_with(&[0, 60, 0, 10]) && payload.len() >= 8;
    assert_eq!(control::qos_prefetch_size(payload).is_some(), is_qos);
}

fn check_error(error: &MethodError, payload: &[u8], version: Version) {
    assert_eq!(error.id, MethodId::of_payload(payload));
    assert!(error.detail().len() < 512, "{}", error.detail());
    assert!(reply_text(error.code(), &error.detail()).len() <= 255);
    if error.kind == MethodErrorKind::UnknownMethod {
        assert!(!error.id.is_some_and(|id| method::is_known(id, version)));
    }
    let kept = error.close_id();
    assert!(kept == MethodId::NONE || Some(kept) == error.id);
}

fn check_written_again(class: &AMQPClass, version: Version) {
    let mut written = vec![0xAA];
    match control::encode(ChannelId(1), class, version, &mut written) {
        Ok(()) => {
            assert_eq!(written[0], 0xAA, "a frame is appended");
            let cut = frame::parse(&written[1..], 0);
            let payload = cut.expect("a frame").expect("a whole frame").payload;
            let again = control::decode(payload, version).expect("written by us");
            assert!(same(&again, class), "{class:?} became {again:?}");
            assert_eq!(MethodId::of_payload(payload), Some(method::id_of(class, version)));
        }
        Err(_) => assert_eq!(written, [0xAA], "a refusal leaves nothing behind"),
    }
}
