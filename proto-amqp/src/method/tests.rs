//! Which methods exist in which version, and that the numbers travel both ways.

use super::{catalogue::METHODS, *};
use crate::reply::ReplyCode;

const VERSIONS: [Version; 3] = [Version::V0_9_1, Version::V0_9, Version::V0_8];

const fn id(class: u16, method: u16) -> MethodId {
    MethodId { class, method }
}

fn refused(payload: &[u8], version: Version) -> MethodError {
    decode(payload, version).unwrap_err()
}

#[test]
fn the_catalogue_is_sorted_and_has_every_method_once() {
    assert!(METHODS.is_sorted_by(|a, b| a.id < b.id));
    assert_eq!(METHODS.len(), 66);
}

#[test]
fn known_ids_are_those_of_the_version() {
    for (numbers, known) in [
        // 0-9-1, 0-9, 0-8
        (id(10, 50), [true, true, false]),
        (id(10, 51), [true, true, false]),
        (id(10, 60), [true, true, true]),
        (id(10, 61), [true, true, true]),
        (id(10, 70), [true, true, false]),
        (id(10, 71), [true, true, false]),
        (id(40, 30), [true, true, false]),
        (id(40, 51), [true, true, false]),
        (id(50, 50), [true, true, true]),
        (id(60, 100), [true, true, true]),
        (id(60, 101), [false, true, false]),
        (id(60, 102), [false, true, false]),
        (id(60, 110), [true, true, true]),
        (id(60, 120), [true, true, false]),
        (id(85, 10), [true, true, false]),
        (id(90, 10), [true, true, true]),
        (id(20, 30), [false; 3]),
        (id(60, 200), [false; 3]),
        (id(70, 10), [false; 3]),
        (id(0, 0), [false; 3]),
        (id(u16::MAX, u16::MAX), [false; 3]),
    ] {
        assert_eq!(VERSIONS.map(|version| is_known(numbers, version)), known, "{numbers:?}");
    }
}

#[test]
fn server_methods_are_known_but_not_the_clients() {
    for (numbers, client) in [
        (id(60, 60), false),
        (id(60, 72), false),
        (id(10, 10), false),
        (id(50, 11), false),
        (id(60, 40), true),
        (id(60, 80), true),
        (id(10, 50), true),
        (id(20, 41), true),
        (id(60, 30), true),
        (id(10, 60), false),
    ] {
        assert!(is_known(numbers, Version::V0_9_1));
        assert_eq!(is_client_method(numbers, Version::V0_9_1), client, "{numbers}");
    }
    assert!(is_client_method(id(10, 60), Version::V0_8));
    assert!(!is_client_method(id(9, 9), Version::V0_9_1));
}

#[test]
fn numbers_on_the_wire_lead_back_to_their_method() {
    for version in VERSIONS {
        for entry in METHODS {
            if let Some(wire) = catalogue::on_the_wire(entry.id, version) {
                let found = catalogue::of_wire(wire, version).map(|found| found.id);
                assert_eq!(found, Some(entry.id), "{} in {version}", entry.name);
            }
        }
    }
}

#[test]
fn an_unknown_method_is_named_by_its_numbers() {
    let error = refused(&[0, 99, 0, 7, 1, 2], Version::V0_9_1);
    assert_eq!(error.id, Some(id(99, 7)));
    assert_eq!((error.code(), error.close_id()), (ReplyCode::COMMAND_INVALID, id(99, 7)));
    assert_eq!(error.to_string(), "99,7: unimplemented method");
}

#[test]
fn a_payload_without_ids_is_a_frame_error() {
    for payload in [&[][..], &[0], &[0, 60], &[0, 60, 0]] {
        let error = refused(payload, Version::V0_9_1);
        assert_eq!((error.code(), error.close_id()), (ReplyCode::FRAME_ERROR, MethodId::NONE));
        assert!(error.detail().ends_with(">>: unknown_frame"), "{}", error.detail());
    }
}

#[test]
fn nack_is_hot_but_unknown_in_0_8() {
    let payload = [0, 60, 0, 120, 0, 0, 0, 0, 0, 0, 0, 1, 3];
    assert_eq!(
        decode(&payload, Version::V0_9),
        Ok(Method::Nack(Nack { delivery_tag: 1, multiple: true, requeue: true }))
    );
    assert_eq!(refused(&payload, Version::V0_8).kind, MethodErrorKind::UnknownMethod);
}

#[test]
fn names_are_those_of_0_9_1() {
    assert_eq!(MethodId::BASIC_PUBLISH.name(), Some("basic.publish"));
    assert_eq!(id(40, 51).to_string(), "exchange.unbind-ok");
    assert_eq!(MethodId::NONE.name(), None);
}
