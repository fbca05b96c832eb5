//! What is fuzzed, and what must hold for any input.
//!
//! Each module is a target: a function from octets to nothing that panics when a promise of the crate
//! under test is broken. A target never asserts merely that nothing panics: it compares with a second
//! way to the same answer (a model, `amq_protocol`, the same octets cut elsewhere, what is written
//! read again).
//!
//! libFuzzer drives the targets through `fuzz_targets/`; `blind.rs` drives them where there is no C++
//! compiler to build libFuzzer with; `tests/seeds.rs` runs each on its seeds. What this crate does not
//! do is touch sockets or files: stores lie on a simulated disk, and the server is driven from outside by
//! `tests/`.

pub mod amqp_content;
pub mod amqp_frame;
pub mod amqp_method;
pub mod amqp_table;
pub mod sasl;
mod script;
pub mod stomp_frame;
pub mod store_open;
pub mod store_record;
pub mod topic;

/// A target: its name, as in `seeds/`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 9] = [
    ("amqp_frame", amqp_frame::run),
    ("amqp_table", amqp_table::run),
    ("amqp_content", amqp_content::run),
    ("amqp_method", amqp_method::run),
    ("stomp_frame", stomp_frame::run),
    ("store_record", store_record::run),
    ("store_open", store_open::run),
    ("topic", topic::run),
    ("sasl", sasl::run),
];
