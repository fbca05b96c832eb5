//! Real clients against the real broker.
//!
//! A test of this crate names a program under `clients/` and the client library that it speaks
//! with. The library is fetched by [`provision`] into `target/clients/` (once, pinned, under a
//! lock), the broker is built and started by [`broker`] on ports of its own choice, and [`program`]
//! runs the one against the other with a deadline and shows everything that was printed when it
//! fails.
//!
//! The programs know nothing of Warren: they get addresses in `WARREN_CONFORMANCE_AMQP`, `_AMQPS`,
//! `_STOMP`, `_STOMPS`, `_METRICS` (host:port) and `_CA` (a file), and their exit status is the
//! verdict. Set these variables when starting `cargo test -p warren-conformance`, and the same
//! programs run against that broker instead, which then serves as the oracle. Set them by hand to
//! run one program alone. `WARREN_CONFORMANCE_BINARY` names a Warren that is built already,
//! `WARREN_CONFORMANCE_PYTHON` another Python than `python3`.
//!
//! [`matrix`] is the list of the rules of the protocols with the tests that hold Warren to them.
//!
//! What this crate does not do: it tests no internals, and nothing here is skipped. A library that
//! cannot be fetched is a failure that says what to install.

pub mod broker;
pub mod failure;
pub mod matrix;
pub mod program;
pub mod provision;

mod clients;
mod deadline;
mod fetch;
mod tls;

pub use clients::Client;
pub use program::run;
