//! The harness of the integration suites: a broker in this process, and peers that talk to it over real sockets.
//!
//! [`TestBroker`] is a broker on ports of its own with a data directory of its own; as many of them as a test
//! wants live side by side. A peer is scripted: [`amqp::Peer`] and [`stomp::Peer`] send what they are told, rude
//! things included, and expect exact answers. Every wait has a deadline, and a peer that is disappointed
//! panics with the whole conversation, so that a failed test says what was on the wire.
//!
//! The harness encodes and decodes with the codecs of the product. What those themselves do is held against
//! foreign code elsewhere (`proto-amqp/tests`, `conformance`).

#![expect(
    clippy::missing_panics_doc,
    reason = "a helper of tests says with a panic that the test has failed"
)]

pub mod amqp;
mod broker;
pub mod certificates;
pub mod disk;
pub mod history;
pub mod process;
pub mod raw;
pub mod stomp;
mod transcript;

pub use broker::{TestBroker, loopback};
pub use raw::RawPeer;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

/// How long a peer waits for what must come. Far longer than it takes: a busy machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// How long a peer listens when nothing may come.
pub const SILENCE: Duration = Duration::from_millis(150);

/// Tries `condition` until it holds or the [`DEADLINE`] has passed.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let tried = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(DEADLINE, tried).await;
    assert!(held.is_ok(), "this never came true: {what}");
}

/// An address of this machine that is not its loopback, if it has one with a way out.
#[must_use]
pub fn outward_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address of documentation (RFC 5737). Nothing is sent: the system only chooses the way.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}
