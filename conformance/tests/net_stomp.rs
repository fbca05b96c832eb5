//! Perl's Net::Stomp: every documented call.

use warren_conformance::{Client, run};

#[test]
fn hello_world() {
    run(Client::NetStomp, "net_stomp/hello_world.pl", &[]);
}

#[test]
fn acks() {
    run(Client::NetStomp, "net_stomp/acks.pl", &[]);
}

#[test]
fn receipts() {
    run(Client::NetStomp, "net_stomp/receipts.pl", &[]);
}

#[test]
fn send_transactional() {
    run(Client::NetStomp, "net_stomp/send_transactional.pl", &[]);
}

#[test]
fn topics() {
    run(Client::NetStomp, "net_stomp/topics.pl", &[]);
}

#[test]
fn failover() {
    run(Client::NetStomp, "net_stomp/failover.pl", &[]);
}

#[test]
fn tls() {
    run(Client::NetStomp, "net_stomp/tls.pl", &[]);
}
