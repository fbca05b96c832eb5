//! One message, two protocols: what goes in by STOMP comes out by AMQP and the other way round.

use warren_conformance::{Client, run};

#[test]
fn stomp_to_amqp() {
    run(Client::Python, "gateway/stomp_to_amqp.py", &[]);
}

#[test]
fn amqp_to_stomp() {
    run(Client::Python, "gateway/amqp_to_stomp.py", &[]);
}

#[test]
fn rpc() {
    run(Client::Python, "gateway/rpc.py", &[]);
}

#[test]
fn tls() {
    run(Client::Python, "gateway/tls.py", &[]);
}

#[test]
fn net_stomp() {
    run(Client::PythonAndNetStomp, "gateway/net_stomp.py", &[]);
}
