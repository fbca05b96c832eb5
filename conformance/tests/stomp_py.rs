//! stomp.py: STOMP 1.0, 1.1 and 1.2, and its own tests.

use warren_conformance::{Client, run};

#[test]
fn versions() {
    run(Client::Python, "stomp_py/versions.py", &[]);
}

#[test]
fn transactions() {
    run(Client::Python, "stomp_py/transactions.py", &[]);
}

#[test]
fn errors() {
    run(Client::Python, "stomp_py/errors.py", &[]);
}

#[test]
fn heart_beats() {
    run(Client::Python, "stomp_py/heart_beats.py", &[]);
}

#[test]
fn own_suite() {
    run(Client::StompPySuite, "stomp_py_suite/own_suite.py", &[]);
}
