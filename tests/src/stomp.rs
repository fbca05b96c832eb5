//! A scripted STOMP peer.

use std::net::SocketAddr;

use proto_stomp::{Command, FrameReader, Limits, OwnedFrame, Version};
use tokio::time::{Duration, Instant};

use crate::raw::{RawPeer, Read, Stream};
use crate::transcript::shown;
use crate::{DEADLINE, SILENCE};

/// The largest message that the peer takes.
const MESSAGE_LEN_MAX: usize = 256 * 1024 * 1024;

/// A STOMP client that says what it is told.
#[derive(Debug)]
pub struct Peer {
    raw: RawPeer,
    reader: FrameReader,
    /// A frame that has come and that nobody has asked for yet.
    heard: Option<OwnedFrame>,
}

impl Peer {
    /// Connects over TCP; nothing is said yet.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(RawPeer::connect(address).await)
    }

    /// Talks over a stream that is there already.
    #[must_use]
    pub fn over(stream: impl Stream + 'static) -> Self {
        Self::new(RawPeer::over(stream))
    }

    fn new(raw: RawPeer) -> Self {
        let reader = FrameReader::new(Limits::from_server(MESSAGE_LEN_MAX));
        Self { raw, reader, heard: None }
    }

    /// Logs in as guest with the highest of `versions` (such as `1.1,1.2`) that the broker has; gives CONNECTED.
    pub async fn log_in(&mut self, versions: &str) -> OwnedFrame {
        let connect = OwnedFrame::new(Command::Connect)
            .header("accept-version", versions)
            .header("host", "/")
            .header("login", "guest")
            .header("passcode", "guest");
        self.send(&connect).await;
        let connected = self.expect(Command::Connected).await;
        let version = match connected.get("version") {
            Some(b"1.1") => Version::V1_1,
            Some(b"1.2") => Version::V1_2,
            _ => Version::V1_0,
        };
        self.reader.set_version(version);
        connected
    }

    /// Frames from the broker are of this version from now on.
    pub fn set_version(&mut self, version: Version) {
        self.reader.set_version(version);
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &OwnedFrame) {
        self.send_octets(&frame.encode()).await;
    }

    /// Sends octets that may be no frame at all.
    pub async fn send_octets(&mut self, octets: &[u8]) {
        self.raw.send(octets).await;
    }

    /// The next frame, heart-beats skipped; `None` when nothing comes in time or the connection ends.
    async fn next_frame(&mut self, patience: Duration) -> Result<OwnedFrame, Read> {
        if let Some(frame) = self.heard.take() {
            return Ok(frame);
        }
        let until = Instant::now() + patience;
        loop {
            match self.reader.next_frame() {
                Ok(Some(frame)) => {
                    self.raw.transcript.received(shown(&frame.encode()));
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(error) => self.raw.transcript.fail(format_args!("no STOMP frame: {error}")),
            }
            match self.raw.read(until.saturating_duration_since(Instant::now())).await {
                Read::Octets(octets) => self.reader.push(&octets),
                other => return Err(other),
            }
        }
    }

    /// The next frame, which must come.
    pub async fn next(&mut self) -> OwnedFrame {
        match self.next_frame(DEADLINE).await {
            Ok(frame) => frame,
            Err(read) => self.raw.transcript.fail(format_args!("wanted a frame, got {read:?}")),
        }
    }

    /// The next frame, which must have this command.
    pub async fn expect(&mut self, command: Command) -> OwnedFrame {
        let frame = self.next().await;
        if frame.command != command {
            self.raw.transcript.fail(format_args!("wanted {command:?}, got {frame:?}"));
        }
        frame
    }

    /// Whether a frame comes within `patience`; it is kept for who asks next.
    pub async fn hears_within(&mut self, patience: Duration) -> bool {
        if self.heard.is_none() {
            self.heard = self.next_frame(patience).await.ok();
        }
        self.heard.is_some()
    }

    /// Expects the RECEIPT with this id.
    pub async fn expect_receipt(&mut self, id: &str) {
        let receipt = self.expect(Command::Receipt).await;
        if receipt.get("receipt-id") != Some(id.as_bytes()) {
            self.raw.transcript.fail(format_args!("wanted the receipt {id:?}, got {receipt:?}"));
        }
    }

    /// Expects an ERROR with this `message` header, and the end of the connection after it.
    pub async fn expect_error(&mut self, message: &str) -> OwnedFrame {
        let error = self.expect(Command::Error).await;
        if error.get("message") != Some(message.as_bytes()) {
            self.raw.transcript.fail(format_args!("wanted the error {message:?}, got {error:?}"));
        }
        self.expect_end().await;
        error
    }

    /// Expects no frame for a moment; heart-beats may come.
    pub async fn expect_silence(&mut self) {
        match self.next_frame(SILENCE).await {
            Err(Read::Nothing) => {}
            other => self.raw.transcript.fail(format_args!("wanted silence, got {other:?}")),
        }
    }

    /// Expects the end of the connection, without another frame.
    pub async fn expect_end(&mut self) {
        match self.next_frame(DEADLINE).await {
            Err(Read::End) => {}
            other => self.raw.transcript.fail(format_args!("wanted the end, got {other:?}")),
        }
    }

    /// The octets below the frames, for heart-beats and rude things. Octets that were read already are in the
    /// frames, not here.
    pub const fn raw(&mut self) -> &mut RawPeer {
        &mut self.raw
    }

    /// Fails the test with the conversation.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        self.raw.transcript.fail(what)
    }
}
