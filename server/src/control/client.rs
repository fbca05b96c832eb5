//! The other end of the control socket: asks a running broker and reads its answer, before a deadline.
//!
//! Blocking, without a runtime: the process does nothing else. A failure says which socket, what is wrong and
//! what to do.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::protocol::{Answer, Head, LINE_LEN_MAX, Refused, Request, Tail};

/// Where to ask, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    /// `None` waits for as long as it takes.
    timeout: Option<Duration>,
}

/// What the broker said.
#[derive(Debug)]
pub(crate) struct Received {
    /// Who answered.
    pub(crate) node: String,
    /// A refusal is an answer too.
    pub(crate) content: Result<Content, Refused>,
}

/// The answer to a request that was granted.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Value(Value),
    Rows(Rows),
}

/// A list.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    /// Each with a value for each column.
    pub(crate) rows: Vec<Vec<Value>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// Nobody listens there.
    #[error(
        "no broker answers on {}: {source}; is one running? Start it with 'warren server', or say where it \
         is with --data-dir, --config or --socket",
        socket.display()
    )]
    Nobody { socket: PathBuf, source: io::Error },
    /// The socket is not ours to open.
    #[error(
        "may not open {}: {source}; run this as root or as the user that the broker runs as",
        socket.display()
    )]
    NotAllowed { socket: PathBuf, source: io::Error },
    /// It took too long.
    #[error(
        "no answer on {} in {:?}; the broker may be busy, --timeout waits longer",
        socket.display(),
        timeout
    )]
    Late { socket: PathBuf, timeout: Duration },
    /// The connection ended before the answer did.
    #[error("the broker behind {} went away while answering: {source}", socket.display())]
    Cut { socket: PathBuf, source: io::Error },
}

impl Client {
    pub(crate) const fn new(socket: PathBuf, timeout: Option<Duration>) -> Self {
        Self { socket, timeout }
    }

    /// How long it waits; `None` is no limit.
    pub(crate) const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Sends `request` and reads the whole answer.
    ///
    /// # Errors
    /// [`AskError`]; what the broker refuses is not one.
    pub(crate) fn ask(&self, request: &Request) -> Result<Received, AskError> {
        let stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(error))?;
        self.exchange(stream, request).map_err(|error| match (error.kind(), self.timeout) {
            // What a read beyond its time-out gives depends on the system.
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(timeout)) => {
                AskError::Late { socket: self.socket.clone(), timeout }
            }
            _ => AskError::Cut { socket: self.socket.clone(), source: error },
        })
    }

    fn unreachable(&self, source: io::Error) -> AskError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => AskError::NotAllowed { socket, source },
            _ => AskError::Nobody { socket, source },
        }
    }

    fn exchange(&self, stream: UnixStream, request: &Request) -> io::Result<Received> {
        let deadline = self.timeout.map(|timeout| Instant::now() + timeout);
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        let mut lines = Lines { stream: BufReader::new(stream), deadline, line: Vec::new() };
        lines.stream.get_ref().set_write_timeout(time_left(deadline)?)?;
        // The broker may refuse to listen and say so: the answer counts, not the write.
        let written = lines.stream.get_mut().write_all(&line);
        let head: Head = match (lines.next(), written) {
            (Ok(head), _) => parse(head)?,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        let content = match head.answer {
            Answer::Refused(refused) => Err(refused),
            Answer::Value(value) => Ok(Content::Value(value)),
            Answer::Columns(columns) => {
                let mut rows = Vec::new();
                let tail: Tail = loop {
                    let line = lines.next()?;
                    if line.starts_with(b"{") {
                        break parse(line)?;
                    }
                    rows.push(parse::<Vec<Value>>(line)?);
                };
                let whole = rows.len() as u64 == tail.rows
                    && rows.iter().all(|row| row.len() == columns.len());
                if !whole {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the list is not whole",
                    ));
                }
                Ok(Content::Rows(Rows { columns, rows }))
            }
        };
        Ok(Received { node: head.node, content })
    }
}

fn parse<'l, T: serde::Deserialize<'l>>(line: &'l [u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(io::Error::from)
}

/// The time-out for the next read or write; `None` is no limit.
fn time_left(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // A time-out of zero would be none at all.
    if left == Some(Duration::ZERO) { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Lines of an answer, each before the deadline.
struct Lines {
    stream: BufReader<UnixStream>,
    deadline: Option<Instant>,
    line: Vec<u8>,
}

impl Lines {
    fn next(&mut self) -> io::Result<&[u8]> {
        self.stream.get_ref().set_read_timeout(time_left(self.deadline)?)?;
        self.line.clear();
        self.stream.by_ref().take(LINE_LEN_MAX).read_until(b'\n', &mut self.line)?;
        match self.line.last() {
            Some(b'\n') => Ok(&self.line),
            Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "a line has no end")),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
