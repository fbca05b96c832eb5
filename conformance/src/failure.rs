//! The one error of this crate: a sentence for a person.
//!
//! Nobody handles these failures; they end a test. What matters is that the sentence says what to
//! do.

use std::fmt;
use std::io;
use std::path::Path;

/// Why a client could not be fetched or a broker not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// An input or output error with what was being done, for example `"cannot create /tmp/x"`.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = format!("cannot {doing} {}", path.display());
        move |error| Self(format!("{doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
