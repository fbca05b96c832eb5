//! The settings of the broker: what can be set, where it comes from, and what is wrong with it.
//!
//! Layers, each over the one before: built-in defaults, `warren.toml`, `conf.d/*.toml` beside it in
//! the order of their names, environment (`WARREN_` and the key, `__` between levels), `--set`.
//! figment does the layering. The one idea of this module: **every value is tried alone against
//! [`Settings`] before it is layered**, so that each problem knows the file, line and column, the
//! variable or the flag it came from, and all problems are reported at once.
//!
//! | part | does |
//! |---|---|
//! | [`sections`] | the keys, their types and defaults |
//! | [`units`] | sizes, time spans, addresses: what people write |
//! | `keys` | the list of keys, derived from [`Settings`], and the nearest one to a misspelling |
//! | `sources` | files, environment and flags into single values with their places |
//! | `layers` | trying, refusing, layering |
//! | [`rules`] | bounds of a key, and rules between keys |
//! | [`machine`] | what only this machine can answer: certificates, directories, memory |
//! | `open_files` | who gets how many of the open files that the process may have |
//! | [`problem`] | how a problem reads |
//! | `effective` | the settings in force, as TOML, with the origin of each |
//!
//! Not here: applying anything. Nothing below reads a setting by name; the rest of the server sees
//! typed fields only. `config/warren.toml` is the reference for people; a test holds the two
//! together.

mod effective;
mod keys;
mod layers;
pub mod machine;
mod open_files;
pub mod problem;
pub mod rules;
pub mod sections;
mod sources;
pub mod units;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use layers::{Loaded, check_all, load};
pub(crate) use open_files::OpenFiles;
pub use problem::{Place, Problem};
pub use sections::{
    Amqp, Auth, Control, Durability, Limits, ListenerTls, Log, LogFormat, Mechanism, Metrics,
    Stomp, Store, Tls, TlsFiles, TlsVersion, TxReceipt,
};
pub use sources::{Override, Sources};
pub use units::{Addresses, ConnectionLimit, LogFilter, Memory, Secret, Size, TimeSpan};

/// Everything that can be set. `Default` is the built-in layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The broker's own directory: its store, its control socket and the list of its addresses. Relative to the
    /// working directory.
    pub data_dir: PathBuf,
    /// When a persistent message counts as kept, and so what a confirm says.
    pub durability: Durability,
    /// How long a stopping broker waits for clients to take its goodbye and close.
    pub drain_timeout: TimeSpan,
    /// AMQP 0-9-1, 0-9 and 0-8.
    pub amqp: Amqp,
    /// STOMP 1.0, 1.1 and 1.2.
    pub stomp: Stomp,
    /// Certificates for every TLS listener that has none of its own.
    pub tls: Tls,
    /// Bounds of the whole broker.
    pub limits: Limits,
    /// The log of messages and definitions.
    pub store: Store,
    /// Who may log in, and how.
    pub auth: Auth,
    /// The Prometheus endpoint.
    pub metrics: Metrics,
    /// The socket of `warren ctl`.
    pub control: Control,
    /// What is logged, and how.
    pub log: Log,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "data".into(),
            durability: Durability::Fsync,
            drain_timeout: TimeSpan::seconds(8),
            amqp: Amqp::default(),
            stomp: Stomp::default(),
            tls: Tls::default(),
            limits: Limits::default(),
            store: Store::default(),
            auth: Auth::default(),
            metrics: Metrics::default(),
            control: Control::default(),
            log: Log::default(),
        }
    }
}

impl Settings {
    /// Where `warren ctl` finds the broker: `control.socket`, or `warren.sock` in the data directory.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        let named = self.control.socket.clone();
        named.unwrap_or_else(|| self.data_dir.join("warren.sock"))
    }

    /// The TLS files of the AMQP TLS listener, its own before the common ones; `None` without a
    /// certificate.
    #[must_use]
    pub fn amqp_tls(&self) -> Option<TlsFiles> {
        self.tls.files_for(&self.amqp.tls)
    }

    /// The TLS files of the STOMP TLS listener, its own before the common ones; `None` without a
    /// certificate.
    #[must_use]
    pub fn stomp_tls(&self) -> Option<TlsFiles> {
        self.tls.files_for(&self.stomp.tls)
    }
}

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
