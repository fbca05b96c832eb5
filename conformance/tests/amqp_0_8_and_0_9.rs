//! The older versions of AMQP: py-amqplib speaks 0-8 only, txAMQP each version by its own document.

use warren_conformance::{Client, run};

#[test]
fn amqplib_hello_world() {
    run(Client::Amqplib, "amqplib/hello_world.py", &[]);
}

#[test]
fn amqplib_topics() {
    run(Client::Amqplib, "amqplib/topics.py", &[]);
}

#[test]
fn amqplib_acks() {
    run(Client::Amqplib, "amqplib/acks.py", &[]);
}

#[test]
fn amqplib_own_suite() {
    run(Client::Amqplib, "amqplib/own_suite.py", &[]);
}

#[test]
fn txamqp_0_8() {
    run(Client::TxAmqp, "txamqp/own_suite.py", &["0-8"]);
}

#[test]
fn txamqp_0_9() {
    run(Client::TxAmqp, "txamqp/own_suite.py", &["0-9"]);
}

#[test]
fn txamqp_0_9_1() {
    run(Client::TxAmqp, "txamqp/own_suite.py", &["0-9-1"]);
}
