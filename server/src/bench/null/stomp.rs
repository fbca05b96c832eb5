//! The null broker's STOMP side: CONNECT, SUBSCRIBE, SEND and receipts.
//!
//! A destination that starts with `/topic/` goes to all of its subscriptions, any other to one of them per
//! batch.

use std::collections::HashMap;
use std::ops::RangeFrom;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proto_stomp::{
    Command, Decoded, Decoder, Frame, FrameEnd, FrameWriter, HeaderBlock, Limits, ParsedCommand,
    Version,
};

use super::super::error::BenchError;
use super::router::{Consumer, Peer, Queue, Router};
use super::{Arrivals, is_end};

/// Largest body, in octets.
const BODY_LEN_MAX: usize = 128 * 1024 * 1024;

/// Reads one client's frames to their end.
pub(super) fn serve(
    mut arrivals: Arrivals<'_>,
    peer: &Arc<Peer>,
    router: &Router,
) -> Result<(), BenchError> {
    let mut session = Session {
        peer,
        router,
        tags: Arc::default(),
        targets: HashMap::new(),
        replies: Vec::new(),
        closed: false,
    };
    let mut decoder = Decoder::new(Limits::after_login(BODY_LEN_MAX));
    let mut scratch = HeaderBlock::new();
    while !session.closed && arrivals.more()? {
        let mut rest = arrivals.inbox.octets();
        let arrived = rest.len();
        loop {
            let decoded = decoder
                .decode(rest, &mut scratch)
                .map_err(|error| BenchError::Protocol(error.to_string()))?;
            let len = match decoded {
                Decoded::Incomplete => break,
                Decoded::Noise { wire_len } => wire_len,
                Decoded::Frame { frame, wire_len } => {
                    session.on_frame(&frame)?;
                    wire_len
                }
            };
            rest = rest.get(len..).unwrap_or_default();
        }
        let consumed = arrived - rest.len();
        arrivals.inbox.consume(consumed);
        // Takes effect behind CONNECT, the first frame, which nothing follows before its answer.
        decoder.set_version(Version::V1_2);
        match session.flush() {
            Err(BenchError::Io { source, .. }) if is_end(&source) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

/// One connection.
struct Session<'a> {
    peer: &'a Arc<Peer>,
    router: &'a Router,
    tags: Arc<AtomicU64>,
    /// Destinations that this connection sends to.
    targets: HashMap<Vec<u8>, Target>,
    replies: Vec<u8>,
    closed: bool,
}

struct Target {
    queue: Arc<Queue>,
    /// Who gets the messages of this read.
    pending: Vec<Batch>,
}

/// What a consumer gets of one read.
struct Batch {
    consumer: Arc<Consumer>,
    tags: RangeFrom<u64>,
    frames: Vec<u8>,
}

impl Session<'_> {
    fn on_frame(&mut self, frame: &Frame<'_>) -> Result<(), BenchError> {
        let header = |name| frame.headers.get(name).unwrap_or_default();
        match frame.command {
            ParsedCommand::Known(Command::Connect | Command::Stomp) => {
                let mut connected = FrameWriter::begin(&mut self.replies, Command::Connected);
                connected.header_raw(b"version", b"1.2");
                connected
                    .header_raw(b"server", concat!("null/", env!("CARGO_PKG_VERSION")).as_bytes());
                connected.finish(b"", FrameEnd::NulLf);
            }
            ParsedCommand::Known(Command::Send) => {
                self.forward(header("destination"), frame.body);
            }
            ParsedCommand::Known(Command::Subscribe) => {
                self.router.queue(header("destination")).add(Arc::new(Consumer {
                    peer: Arc::clone(self.peer),
                    name: header("id").to_vec(),
                    acks: header("ack") != b"auto",
                    tags: Arc::clone(&self.tags),
                }));
            }
            ParsedCommand::Known(Command::Unsubscribe) => {
                self.router.forget_consumer(self.peer, header("id"));
            }
            ParsedCommand::Known(Command::Ack | Command::Nack) => {}
            ParsedCommand::Known(Command::Disconnect) => self.closed = true,
            other => {
                return Err(BenchError::Protocol(format!("the null broker does not do {other:?}")));
            }
        }
        if let Some(receipt) = frame.headers.get("receipt") {
            let mut answer = FrameWriter::begin(&mut self.replies, Command::Receipt);
            answer.header(b"receipt-id", receipt);
            answer.finish(b"", FrameEnd::NulLf);
        }
        Ok(())
    }

    /// Appends one message to the buffers of its consumers.
    fn forward(&mut self, destination: &[u8], body: &[u8]) {
        if !self.targets.contains_key(destination) {
            let target = Target { queue: self.router.queue(destination), pending: Vec::new() };
            self.targets.insert(destination.to_vec(), target);
        }
        let Some(target) = self.targets.get_mut(destination) else { return };
        if target.pending.is_empty() {
            let consumers = if destination.starts_with(b"/topic/") {
                target.queue.all()
            } else {
                target.queue.next().into_iter().collect()
            };
            let batch = |consumer: Arc<Consumer>| {
                let tags = consumer.reserve_tags();
                Batch { consumer, tags, frames: Vec::new() }
            };
            target.pending = consumers.into_iter().map(batch).collect();
        }
        for Batch { consumer, tags, frames } in &mut target.pending {
            let tag = tags.next().unwrap_or(0);
            let mut message = FrameWriter::begin(frames, Command::Message);
            message.header(b"subscription", &consumer.name);
            message.header(b"destination", destination);
            message.header_number(b"message-id", tag);
            if consumer.acks {
                message.header_number(b"ack", tag);
            }
            message.finish(body, FrameEnd::NulLf);
        }
    }

    /// Writes messages and receipts.
    fn flush(&mut self) -> Result<(), BenchError> {
        for target in self.targets.values_mut() {
            for Batch { consumer, frames, .. } in target.pending.drain(..) {
                match consumer.peer.write(&frames) {
                    // The consumer is gone, as at the end of every run; its messages go with it.
                    Ok(()) | Err(BenchError::Io { .. }) => {}
                    Err(other) => return Err(other),
                }
            }
        }
        if !self.replies.is_empty() {
            self.peer.write(&self.replies)?;
            self.replies.clear();
        }
        Ok(())
    }
}
