//! The tutorials in the API of pika 0.10 (2015) and 0.12 (2018): code as it stands in many a
//! cellar.

use warren_conformance::{Client, run};

#[test]
fn hello_world_0_10() {
    run(Client::Pika010, "pika_old/hello_world.py", &[]);
}

#[test]
fn work_queues_0_10() {
    run(Client::Pika010, "pika_old/work_queues.py", &[]);
}

#[test]
fn publish_subscribe_0_10() {
    run(Client::Pika010, "pika_old/publish_subscribe.py", &[]);
}

#[test]
fn routing_0_10() {
    run(Client::Pika010, "pika_old/routing.py", &[]);
}

#[test]
fn topics_0_10() {
    run(Client::Pika010, "pika_old/topics.py", &[]);
}

#[test]
fn rpc_0_10() {
    run(Client::Pika010, "pika_old/rpc.py", &[]);
}

#[test]
fn headers_0_10() {
    run(Client::Pika010, "pika_old/headers.py", &[]);
}

#[test]
fn hello_world_0_12() {
    run(Client::Pika012, "pika_old/hello_world.py", &[]);
}

#[test]
fn work_queues_0_12() {
    run(Client::Pika012, "pika_old/work_queues.py", &[]);
}

#[test]
fn publish_subscribe_0_12() {
    run(Client::Pika012, "pika_old/publish_subscribe.py", &[]);
}

#[test]
fn routing_0_12() {
    run(Client::Pika012, "pika_old/routing.py", &[]);
}

#[test]
fn topics_0_12() {
    run(Client::Pika012, "pika_old/topics.py", &[]);
}

#[test]
fn rpc_0_12() {
    run(Client::Pika012, "pika_old/rpc.py", &[]);
}

#[test]
fn headers_0_12() {
    run(Client::Pika012, "pika_old/headers.py", &[]);
}
