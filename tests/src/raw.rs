//! A peer that sends octets, whatever they mean.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use crate::DEADLINE;
use crate::transcript::{Transcript, shown};

/// A stream that a peer talks over: TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection without any protocol.
pub struct RawPeer {
    stream: Box<dyn Stream>,
    pub(crate) transcript: Transcript,
}

/// What reading has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Octets.
    Octets(Vec<u8>),
    /// The other side has closed, in order or by a reset.
    End,
    /// Nothing in the time given.
    Nothing,
}

impl RawPeer {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> Self {
        match timeout(DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Latency of a test only; without it the test works as well.
                stream.set_nodelay(true).ok();
                Self::over(stream)
            }
            other => panic!("cannot connect to {address}: {other:?}"),
        }
    }

    /// Talks over a stream that is there already.
    #[must_use]
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), transcript: Transcript::default() }
    }

    /// Sends octets.
    pub async fn send(&mut self, octets: &[u8]) {
        self.transcript.sent(shown(octets));
        if let Err(error) = self.try_send(octets).await {
            self.transcript.fail(format_args!("cannot send: {error}"));
        }
    }

    /// Sends octets to somebody who may have closed already.
    ///
    /// # Errors
    /// What the socket says; a deadline that has passed is [`io::ErrorKind::TimedOut`].
    pub async fn try_send(&mut self, octets: &[u8]) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        timeout(DEADLINE, sent).await.map_err(io::Error::from)?
    }

    /// Reads what there is, waiting at most `patience` for it.
    pub async fn read(&mut self, patience: Duration) -> Read {
        let mut buffer = vec![0; 64 * 1024];
        match timeout(patience, self.stream.read(&mut buffer)).await {
            Err(_) => Read::Nothing,
            Ok(Ok(0) | Err(_)) => {
                self.transcript.received("(end of the connection)");
                Read::End
            }
            Ok(Ok(count)) => {
                buffer.truncate(count);
                Read::Octets(buffer)
            }
        }
    }

    /// Expects exactly these octets next.
    pub async fn expect(&mut self, wanted: &[u8]) {
        let mut received = Vec::new();
        while received.len() < wanted.len() {
            match self.read(DEADLINE).await {
                Read::Octets(octets) => received.extend_from_slice(&octets),
                end => {
                    let got = shown(&received);
                    let wanted = shown(wanted);
                    self.transcript.fail(format_args!("wanted {wanted}, got {got}, then {end:?}"));
                }
            }
        }
        self.transcript.received(shown(&received));
        if received != wanted {
            let (received, wanted) = (shown(&received), shown(wanted));
            self.transcript.fail(format_args!("wanted {wanted}, got {received}"));
        }
    }

    /// Expects the other side to close within `patience`; gives what it said before.
    pub async fn expect_end_within(&mut self, patience: Duration) -> Vec<u8> {
        let mut received = Vec::new();
        let until_end = async {
            loop {
                match self.read(patience).await {
                    Read::Octets(octets) => received.extend_from_slice(&octets),
                    end => break end,
                }
            }
        };
        let ended = timeout(patience, until_end).await;
        if ended != Ok(Read::End) {
            let got = shown(&received);
            self.transcript.fail(format_args!("wanted the end within {patience:?}, got {got}"));
        }
        received
    }

    /// Expects the other side to close; gives what it said before.
    pub async fn expect_end(&mut self) -> Vec<u8> {
        self.expect_end_within(DEADLINE).await
    }

    /// Expects to hear nothing for `time`, the end of the connection neither.
    pub async fn expect_silence(&mut self, time: Duration) {
        match self.read(time).await {
            Read::Nothing => {}
            other => {
                self.transcript.fail(format_args!("wanted {time:?} of silence, got {other:?}"))
            }
        }
    }

    /// Says that nothing more will be sent; the other direction stays open.
    pub async fn finish_sending(&mut self) {
        // The other side may be gone, which is the same to the test.
        timeout(DEADLINE, self.stream.shutdown()).await.ok();
    }
}

impl std::fmt::Debug for RawPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawPeer").field("transcript", &self.transcript).finish_non_exhaustive()
    }
}
