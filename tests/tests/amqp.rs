//! AMQP over real sockets: a broker in this process, and a peer that says exactly what a test tells it to.
//!
//! One module for each class of the protocol or subject of its own; a rule's test is found by the matrix
//! (`conformance/matrix.toml`). Texts of refusals are compared whole, because clients search in them.

mod amqp {
    mod ack;
    mod channel;
    mod connection;
    mod consume;
    mod dispatch;
    mod exchange;
    mod frames;
    mod heartbeats;
    mod publish;
    mod queue;
    mod routing;
    mod tx;
}
