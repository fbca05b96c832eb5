//! The other Python libraries for AMQP 0-9-1: kombu, py-amqp, aio-pika.

use warren_conformance::{Client, run};

#[test]
fn kombu() {
    run(Client::Python, "kombu/queues.py", &[]);
}

#[test]
fn py_amqp() {
    run(Client::Python, "py_amqp/channel.py", &[]);
}

#[test]
fn aio_pika() {
    run(Client::Python, "aio_pika/robust.py", &[]);
}
