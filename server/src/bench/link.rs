//! A logged-in connection under load: its socket, what has arrived and not been read yet, and the walk over it.
//!
//! Sockets block, with a short timeout in both directions, so that a thread notices within [`PATIENCE`] that
//! the run is over even if its broker has stopped reading or has nothing to say.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::clock::now;
use super::error::BenchError;
use super::walk::{Event, Walk};

/// How long a read or write blocks before the thread looks around.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// How long an answer to a request may take during set-up and tear-down.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Octets asked of the kernel at once on a connection under load. Of 64, 128 and 256 KiB this moved the most
/// small messages through the null broker: what was just copied is still in the processor's cache.
pub(super) const READ_LEN: usize = 64 * 1024;

/// Octets of room on a connection that only logs in.
const ROOM_AT_FIRST: usize = 4 * 1024;

/// Opens a socket for small and large writes alike: without Nagle's delay, with timeouts.
///
/// # Errors
/// [`BenchError::Connect`].
pub(super) fn dial(address: SocketAddr) -> Result<TcpStream, BenchError> {
    let open = || -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX)?;
        prepare(&stream)?;
        Ok(stream)
    };
    open().map_err(|source| BenchError::Connect { address: address.to_string(), source })
}

/// Sets the options that both ends of the generator use.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Whether an error only means that [`PATIENCE`] is over.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Octets that have arrived and not been consumed, in one piece.
#[derive(Debug)]
pub(super) struct Inbox {
    room: Vec<u8>,
    filled: usize,
}

impl Inbox {
    /// An empty one, small.
    pub(super) fn new() -> Self {
        Self { room: vec![0; ROOM_AT_FIRST], filled: 0 }
    }

    /// Makes room for [`READ_LEN`] octets at once.
    pub(super) fn widen(&mut self) {
        if self.room.len() < READ_LEN {
            self.room.resize(READ_LEN, 0);
        }
    }

    /// What has arrived, oldest first.
    pub(super) fn octets(&self) -> &[u8] {
        self.room.get(..self.filled).unwrap_or_default()
    }

    /// Whether nothing is left to be read from here.
    pub(super) const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Drops the first `len` octets.
    pub(super) fn consume(&mut self, len: usize) {
        self.room.copy_within(len.min(self.filled)..self.filled, 0);
        self.filled = self.filled.saturating_sub(len);
    }

    /// Reads once; doubles the room first if it is full, for a frame larger than it.
    ///
    /// # Errors
    /// As the socket's; a closed connection is [`ErrorKind::UnexpectedEof`].
    pub(super) fn read(&mut self, mut stream: &TcpStream) -> io::Result<usize> {
        if self.filled == self.room.len() {
            self.room.resize(self.room.len() * 2, 0);
        }
        let room = self.room.get_mut(self.filled..).unwrap_or_default();
        match stream.read(room)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            len => {
                self.filled += len;
                Ok(len)
            }
        }
    }

    /// Reads until something has arrived.
    ///
    /// # Errors
    /// [`BenchError::Late`] after [`ANSWER_TIME_MAX`], [`BenchError::Io`] for a socket that fails or ends.
    pub(super) fn await_more(&mut self, stream: &TcpStream) -> Result<(), BenchError> {
        let deadline = now() + ANSWER_TIME_MAX;
        loop {
            match self.read(stream) {
                Ok(_) => return Ok(()),
                Err(error) if is_timeout(&error) => {
                    if now() >= deadline {
                        return Err(BenchError::Late(ANSWER_TIME_MAX));
                    }
                }
                Err(source) => return Err(BenchError::Io { doing: "awaiting an answer", source }),
            }
        }
    }
}

/// Writes all of `octets`, during set-up and tear-down.
///
/// # Errors
/// [`BenchError::Late`] if the peer takes nothing for [`ANSWER_TIME_MAX`], [`BenchError::Io`] otherwise.
pub(super) fn send(mut stream: &TcpStream, mut octets: &[u8]) -> Result<(), BenchError> {
    let mut deadline = now() + ANSWER_TIME_MAX;
    while !octets.is_empty() {
        match stream.write(octets) {
            Ok(len) => {
                octets = octets.get(len..).unwrap_or_default();
                deadline = now() + ANSWER_TIME_MAX;
            }
            Err(error) if is_timeout(&error) => {
                if now() >= deadline {
                    return Err(BenchError::Late(ANSWER_TIME_MAX));
                }
            }
            Err(source) => return Err(BenchError::Io { doing: "sending a request", source }),
        }
    }
    Ok(())
}

/// A connection that publishes or consumes.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) stream: TcpStream,
    inbox: Inbox,
    walk: Walk,
    /// The request that ends the connection politely.
    farewell: Vec<u8>,
}

impl Link {
    /// Puts a logged-in connection under load. `farewell` is what [`Self::close`] sends.
    pub(super) fn new(stream: TcpStream, mut inbox: Inbox, walk: Walk, farewell: Vec<u8>) -> Self {
        inbox.widen();
        Self { stream, inbox, walk, farewell }
    }

    /// Reads once and hands every event to `on`. Returns whether anything arrived within [`PATIENCE`].
    ///
    /// # Errors
    /// The broker closed or broke the protocol, or the socket failed.
    pub(super) fn receive(&mut self, mut on: impl FnMut(Event<'_>)) -> Result<bool, BenchError> {
        match self.inbox.read(&self.stream) {
            Ok(_) => {
                let consumed = self.walk.walk(self.inbox.octets(), &mut on)?;
                self.inbox.consume(consumed);
                Ok(true)
            }
            Err(error) if is_timeout(&error) => Ok(false),
            Err(source) => Err(BenchError::Io { doing: "reading from the broker", source }),
        }
    }

    /// The reason why writing failed: the broker's own words if it sent any before it closed.
    pub(super) fn why(&mut self, source: io::Error) -> BenchError {
        let deadline = now() + PATIENCE;
        while now() < deadline {
            match self.receive(|_| ()) {
                Ok(_) => {}
                Err(BenchError::Io { .. }) => break,
                Err(said) => return said,
            }
        }
        BenchError::Io { doing: "publishing", source }
    }

    /// Says goodbye and waits for the broker to have read all that was sent, or for `give_up`, which is asked
    /// every [`PATIENCE`]. Deliveries that still arrive go to `on`.
    ///
    /// # Errors
    /// As [`Self::receive`]; giving up is none.
    pub(super) fn close(
        mut self,
        give_up: impl Fn() -> bool,
        mut on: impl FnMut(Event<'_>),
    ) -> Result<(), BenchError> {
        let farewell = std::mem::take(&mut self.farewell);
        let mut rest: &[u8] = &farewell;
        while !rest.is_empty() && !give_up() {
            match (&self.stream).write(rest) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if is_timeout(&error) => {}
                Err(source) => return Err(self.why(source)),
            }
        }
        let mut answered = false;
        while !answered && !give_up() {
            self.receive(|event| match event {
                Event::Goodbye => answered = true,
                other => on(other),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = dial(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        prepare(&far).unwrap();
        (near, far)
    }

    #[test]
    fn an_inbox_keeps_what_is_not_consumed_and_grows_for_what_does_not_fit() {
        let (near, far) = pair();
        let sent: Vec<u8> = (0..10_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        send(&far, &sent).unwrap();
        let mut inbox = Inbox::new();
        while inbox.octets().len() < sent.len() {
            inbox.await_more(&near).unwrap();
        }
        assert_eq!(inbox.octets(), sent);
        inbox.consume(9_990);
        assert_eq!(inbox.octets(), &sent[9_990..]);
        inbox.consume(10);
        assert!(inbox.is_empty());
    }

    #[test]
    fn a_closed_connection_is_an_error_and_silence_is_not() {
        let (near, far) = pair();
        let mut inbox = Inbox::new();
        assert!(is_timeout(&inbox.read(&near).unwrap_err()));
        drop(far);
        assert_eq!(inbox.read(&near).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_port_where_nobody_listens_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = dial(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
