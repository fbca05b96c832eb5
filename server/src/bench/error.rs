//! What can go wrong with a benchmark, said so that the user knows whose fault it is.
//!
//! One type for the whole tool: a benchmark has one outcome. It does not try to recover; the first error
//! ends the run, after the queues are deleted.

use std::io;

use proto_amqp::frame::FrameError;

/// Why a benchmark did not produce figures.
#[derive(Debug, thiserror::Error)]
pub(super) enum BenchError {
    /// The arguments contradict each other or ask for what cannot be done.
    #[error("{0}")]
    Usage(String),
    /// No connection, or no login.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// The broker closed the connection or the channel, or answered a STOMP frame with ERROR.
    #[error("the broker refused: {text}")]
    Closed {
        /// The broker's words, with its reply code if it has one.
        text: String,
    },
    /// A socket failed while it was in use.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// The broker sent what the protocol does not allow here.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// What was delivered is not what was published.
    #[error("the books do not balance: {0}")]
    Books(String),
    /// An answer did not come in time.
    #[error("no answer within {0:?}")]
    Late(std::time::Duration),
}

impl BenchError {
    /// Names the operation that failed; for `map_err`.
    pub(super) const fn io(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl From<FrameError> for BenchError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.detail())
    }
}
