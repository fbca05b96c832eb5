//! AMQP over real sockets: a broker in this process, and a peer that says exactly what a test tells it to.
//!
//! One module for each class of the protocol or subject of its own; a rule's test is found by the matrix
//! (`conformance/matrix.toml`). Texts of refusals are compared whole, because clients search in them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says with a panic that it has failed"
)]

mod amqp {
    mod ack;
    mod channel;
    mod connection;
    mod consume;
    mod dead_letter;
    mod dispatch;
    mod exchange;
    mod frames;
    mod heartbeats;
    mod lapin;
    mod permissions;
    mod publish;
    mod queue;
    mod queue_types;
    mod rabbitmq;
    mod reply_to;
    mod robustness;
    mod routing;
    mod shutdown;
    mod tx;
    mod versions;
}
