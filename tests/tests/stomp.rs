//! STOMP over real sockets: a broker in this process and a peer that sends octets.
//!
//! The peer takes frames apart by itself, so that nothing of the broker's own reading is trusted. Replies are
//! compared whole, with the session's identifier replaced by `S`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper of tests says with a panic that the test has failed"
)]

mod stomp {
    mod acknowledge;
    mod broker;
    mod destinations;
    mod disconnect;
    mod frames;
    mod heart_beats;
    mod limits;
    mod login;
    mod peer;
    mod permissions;
    mod send;
    mod subscribe;
    mod transactions;
    mod vectors;
}
