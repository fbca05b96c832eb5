//! pika 1.4: the tutorials in today's API, its callback connections, and the acceptance tests of
//! pika 1.3.

use warren_conformance::{Client, run};

#[test]
fn hello_world() {
    run(Client::Python, "pika/hello_world.py", &[]);
}

#[test]
fn work_queues() {
    run(Client::Python, "pika/work_queues.py", &[]);
}

#[test]
fn publish_subscribe() {
    run(Client::Python, "pika/publish_subscribe.py", &[]);
}

#[test]
fn routing() {
    run(Client::Python, "pika/routing.py", &[]);
}

#[test]
fn topics() {
    run(Client::Python, "pika/topics.py", &[]);
}

#[test]
fn rpc() {
    run(Client::Python, "pika/rpc.py", &[]);
}

#[test]
fn headers() {
    run(Client::Python, "pika/headers.py", &[]);
}

#[test]
fn select_connection() {
    run(Client::Python, "pika/select_connection.py", &[]);
}

#[test]
fn asyncio_connection() {
    run(Client::Python, "pika/asyncio_connection.py", &[]);
}

#[test]
fn own_suite() {
    run(Client::PikaSuite, "pika_suite/own_suite.py", &[]);
}
