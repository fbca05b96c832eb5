//! A STOMP 1.2 client that blocks: login, subscriptions, and the way under load.
//!
//! Everything that must have happened before the next step is asked for with a receipt. Heart-beats are
//! not wanted from either side.

use std::net::TcpStream;
use std::num::NonZeroU16;

use proto_stomp::{
    Command, Decoded, Decoder, FrameEnd, FrameWriter, HeaderBlock, Limits, ParsedCommand, Version,
};

use super::address::Address;
use super::args::{AckChoice, PathArgs};
use super::error::BenchError;
use super::link::{Inbox, Link, dial, send};
use super::walk::{FAREWELL_RECEIPT, Handles, StompWalk, Walk};

/// Largest frame taken while logging in, in octets.
const BODY_LEN_MAX: usize = 1024 * 1024;

/// A connection that has logged in.
#[derive(Debug)]
pub(super) struct StompPeer {
    stream: TcpStream,
    inbox: Inbox,
    decoder: Decoder,
    scratch: HeaderBlock,
    product: String,
    receipts: u64,
}

/// How messages are asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) ack: AckChoice,
    pub(super) prefetch: Option<NonZeroU16>,
    pub(super) durable: bool,
}

impl Subscription {
    /// Without acknowledgements, from a transient queue.
    pub(super) const TRANSIENT: Self =
        Self { ack: AckChoice::Auto, prefetch: None, durable: false };

    /// As `path` asks.
    pub(super) fn of(path: &PathArgs) -> Self {
        Self { ack: path.ack, prefetch: path.prefetch(), durable: path.durable }
    }
}

impl StompPeer {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`BenchError::Connect`], [`BenchError::Closed`] with the broker's reason, [`BenchError::Protocol`] if
    /// it does not speak 1.2, [`BenchError::Late`].
    pub(super) fn open(address: &Address) -> Result<Self, BenchError> {
        let mut peer = Self {
            stream: dial(address.socket)?,
            inbox: Inbox::new(),
            decoder: Decoder::new(Limits::from_server(BODY_LEN_MAX)),
            scratch: HeaderBlock::new(),
            product: String::new(),
            receipts: 0,
        };
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, Command::Connect);
        frame.header_raw(b"accept-version", b"1.2");
        frame.header_raw(b"heart-beat", b"0,0");
        for (name, value) in
            [("host", &address.vhost), ("login", &address.user), ("passcode", &address.password)]
        {
            if !frame.header(name.as_bytes(), value.as_bytes()) {
                return Err(BenchError::Usage(format!("--url: {name} cannot be sent in STOMP")));
            }
        }
        frame.finish(b"", FrameEnd::NulLf);
        send(&peer.stream, &out)?;
        let (version, server) = peer.answer(|command, headers| {
            (command == Command::Connected).then(|| {
                let text = |name| {
                    String::from_utf8_lossy(headers.get(name).unwrap_or_default()).into_owned()
                };
                (text("version"), text("server"))
            })
        })?;
        if version != Version::V1_2.as_str() {
            return Err(BenchError::Protocol(format!("version `{version}` was asked to be 1.2")));
        }
        peer.decoder.set_version(Version::V1_2);
        // spec: stomp-1.2 CONNECTED "server": name ["/" version] [" " comments]
        peer.product = server.replace('/', " ");
        Ok(peer)
    }

    /// What the broker says it is.
    pub(super) fn product(&self) -> &str {
        &self.product
    }

    /// Subscribes to `destination`, under an id that names it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn subscribe(
        &mut self,
        destination: &str,
        id: &str,
        how: Subscription,
    ) -> Result<(), BenchError> {
        self.ask(Command::Subscribe, |frame| {
            frame.header(b"id", id.as_bytes());
            frame.header(b"destination", destination.as_bytes());
            let ack = match how.ack {
                AckChoice::Auto => "auto",
                AckChoice::Individual => "client-individual",
                AckChoice::Manual | AckChoice::None => "client",
            };
            frame.header_raw(b"ack", ack.as_bytes());
            if let Some(prefetch) = how.prefetch {
                frame.header_number(b"prefetch-count", u64::from(prefetch.get()));
            }
            queue_headers(frame, how.durable);
        })
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn unsubscribe(&mut self, id: &str) -> Result<(), BenchError> {
        self.ask(Command::Unsubscribe, |frame| {
            frame.header(b"id", id.as_bytes());
        })
    }

    /// Sends one empty message that says which kind of queue `destination` is, as the subscription did:
    /// brokers that make the queue at the first SEND of a connection compare the two.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_destination(
        &mut self,
        destination: &str,
        durable: bool,
    ) -> Result<(), BenchError> {
        self.ask(Command::Send, |frame| {
            frame.header(b"destination", destination.as_bytes());
            queue_headers(frame, durable);
        })
    }

    /// Puts the connection under load.
    pub(super) fn into_link(self, handles: Handles) -> Link {
        let mut farewell = Vec::new();
        write_disconnect(&mut farewell, FAREWELL_RECEIPT);
        let walk = Walk::Stomp(Box::new(StompWalk::new(handles)));
        Link::new(self.stream, self.inbox, walk, farewell)
    }

    /// Keeps only the socket of a connection that is going to be idle.
    pub(super) fn into_idle(self) -> TcpStream {
        self.stream
    }

    /// Logs out.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn close(mut self) -> Result<(), BenchError> {
        self.ask(Command::Disconnect, |_| ())
    }

    /// Sends a frame with a receipt and waits for it.
    fn ask(
        &mut self,
        command: Command,
        headers: impl FnOnce(&mut FrameWriter<'_>),
    ) -> Result<(), BenchError> {
        self.receipts += 1;
        let receipt = format!("setup-{}", self.receipts);
        let mut out = Vec::new();
        let mut frame = FrameWriter::begin(&mut out, command);
        headers(&mut frame);
        frame.header_raw(b"receipt", receipt.as_bytes());
        frame.finish(b"", FrameEnd::NulLf);
        send(&self.stream, &out)?;
        self.answer(|command, headers| {
            let wanted = command == Command::Receipt
                && headers.get("receipt-id") == Some(receipt.as_bytes());
            wanted.then_some(())
        })
    }

    /// The next frame, as `read` takes it.
    fn answer<T>(
        &mut self,
        read: impl Fn(Command, &proto_stomp::Headers<'_>) -> Option<T>,
    ) -> Result<T, BenchError> {
        loop {
            let decoded = self
                .decoder
                .decode(self.inbox.octets(), &mut self.scratch)
                .map_err(|error| BenchError::Protocol(error.to_string()))?;
            match decoded {
                Decoded::Incomplete => self.inbox.await_more(&self.stream)?,
                Decoded::Noise { wire_len } => self.inbox.consume(wire_len),
                Decoded::Frame { frame, wire_len } => {
                    let answer = match frame.command {
                        ParsedCommand::Known(Command::Error) => Err(closed(&frame)),
                        ParsedCommand::Known(command) => {
                            read(command, &frame.headers).ok_or_else(|| {
                                BenchError::Protocol(format!("unexpected {command} frame"))
                            })
                        }
                        other @ ParsedCommand::Unknown(_) => {
                            Err(BenchError::Protocol(format!("unexpected frame {other:?}")))
                        }
                    };
                    self.inbox.consume(wire_len);
                    return answer;
                }
            }
        }
    }
}

/// The broker's reason in an ERROR frame.
pub(super) fn closed(frame: &proto_stomp::Frame<'_>) -> BenchError {
    let message = frame.headers.get("message").unwrap_or_default();
    let text = [message, frame.body].map(|octets| String::from_utf8_lossy(octets).into_owned());
    BenchError::Closed { text: text.join(": ").trim_end().to_owned() }
}

/// Which kind of queue is meant: one that goes with its last consumer, because STOMP cannot delete any, and
/// that other connections can use, which RabbitMQ does not take for granted of a transient one.
fn queue_headers(frame: &mut FrameWriter<'_>, durable: bool) {
    frame.header_raw(b"auto-delete", b"true");
    frame.header_raw(b"exclusive", b"false");
    frame.header_raw(b"durable", if durable { b"true" } else { b"false" });
}

/// Appends the frame that logs out and asks for a receipt.
fn write_disconnect(out: &mut Vec<u8>, receipt: &str) {
    let mut frame = FrameWriter::begin(out, Command::Disconnect);
    frame.header_raw(b"receipt", receipt.as_bytes());
    frame.finish(b"", FrameEnd::NulLf);
}
