//! Stepping over what a broker sends: which deliveries, confirms and farewells are in it.
//!
//! The one idea: a consumer under load needs to know *that* a message arrived, not what it is. The walk goes
//! from frame to frame by their lengths, keeps three numbers between them, and allocates nothing; a delivery
//! counts when the last octet of its body is there. Anything that is neither a delivery nor a confirm is
//! read properly, because it is rare and usually bad news.

use proto_amqp::control::protocol::{AMQPClass, basic as amqp_basic, channel, connection};
use proto_amqp::frame::{self, FrameKind};
use proto_amqp::method::{self, Method};
use proto_amqp::{ContentHeader, Version as AmqpVersion, basic};
use proto_stomp::{Command, Decoded, Decoder, HeaderBlock, Limits, ParsedCommand, Version};

use super::error::BenchError;

/// Octets at the start of a body that hold its stamp.
pub(super) const STAMP_LEN: usize = 8;

/// The receipt that a STOMP connection asks for when it leaves.
pub(super) const FAREWELL_RECEIPT: &str = "farewell";

/// Largest STOMP body taken from a broker.
const BODY_LEN_MAX: usize = 128 * 1024 * 1024;

/// Something in what the broker sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// A message, whole.
    Delivered {
        /// What an acknowledgement of it has to name.
        handle: Handle<'a>,
        /// The first eight octets of the body as a number; 0 for a shorter one.
        stamp: u64,
    },
    /// A confirm or refusal of publish `number`, or of all up to it.
    Settled { number: u64, multiple: bool, refused: bool },
    /// The broker has read everything up to our farewell.
    Goodbye,
}

/// What identifies a delivery to its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handle<'a> {
    /// Nothing was asked for.
    Unneeded,
    /// An AMQP delivery tag.
    Tag(u64),
    /// The `ack` header of a STOMP message.
    Id(&'a [u8]),
}

/// Whether deliveries will be acknowledged, so that their handles have to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handles {
    /// Yes.
    Read,
    /// No: counting is enough.
    Skip,
}

/// The walk of one connection.
#[derive(Debug)]
pub(super) enum Walk {
    Amqp(AmqpWalk),
    Stomp(Box<StompWalk>),
}

impl Walk {
    /// Hands every event in the whole frames at the front of `input` to `on`; returns their length. The next
    /// call's `input` starts behind them.
    ///
    /// # Errors
    /// [`BenchError::Closed`] with the broker's reason, [`BenchError::Protocol`] for what cannot be read.
    pub(super) fn walk(
        &mut self,
        input: &[u8],
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<usize, BenchError> {
        match self {
            Self::Amqp(walk) => walk.walk(input, on),
            Self::Stomp(walk) => walk.walk(input, on),
        }
    }
}

/// The state between two AMQP frames of the one channel that the generator uses.
#[derive(Debug)]
pub(super) struct AmqpWalk {
    frame_max: u32,
    handles: Handles,
    expect: Expect,
    tag: u64,
    stamp: u64,
}

/// Which part of a content comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Method,
    Header,
    /// The body's first frame, which holds the stamp.
    FirstBody {
        left: u64,
    },
    MoreBody {
        left: u64,
    },
}

impl AmqpWalk {
    /// A walk that starts between two messages.
    pub(super) const fn new(frame_max: u32, handles: Handles) -> Self {
        Self { frame_max, handles, expect: Expect::Method, tag: 0, stamp: 0 }
    }

    fn walk(&mut self, input: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<usize, BenchError> {
        let mut rest = input;
        while let Some(frame) = frame::parse(rest, self.frame_max)? {
            rest = rest.get(frame.wire_len..).unwrap_or_default();
            match (frame.kind, self.expect) {
                (FrameKind::Method, Expect::Method) => self.method(frame.payload, on)?,
                (FrameKind::Header, Expect::Header) => {
                    let header = ContentHeader::parse(frame.payload)
                        .map_err(|error| BenchError::Protocol(error.detail()))?;
                    self.stamp = 0;
                    self.expect = Expect::FirstBody { left: header.body_size };
                    if header.body_size == 0 {
                        self.delivered(on);
                    }
                }
                (FrameKind::Body, Expect::FirstBody { left }) => {
                    if let Some(stamp) = frame.payload.first_chunk::<STAMP_LEN>() {
                        self.stamp = u64::from_be_bytes(*stamp);
                    }
                    self.body(left, frame.payload.len(), on)?;
                }
                (FrameKind::Body, Expect::MoreBody { left }) => {
                    self.body(left, frame.payload.len(), on)?;
                }
                (FrameKind::Heartbeat, _) => {}
                (kind, expected) => {
                    return Err(BenchError::Protocol(format!(
                        "{kind:?} frame while expecting {expected:?}"
                    )));
                }
            }
        }
        Ok(input.len() - rest.len())
    }

    fn body(
        &mut self,
        left: u64,
        len: usize,
        on: &mut impl FnMut(Event<'_>),
    ) -> Result<(), BenchError> {
        let left = left
            .checked_sub(len as u64)
            .ok_or_else(|| BenchError::Protocol("a body longer than its header says".to_owned()))?;
        self.expect = Expect::MoreBody { left };
        if left == 0 {
            self.delivered(on);
        }
        Ok(())
    }

    fn delivered(&mut self, on: &mut impl FnMut(Event<'_>)) {
        self.expect = Expect::Method;
        let handle = match self.handles {
            Handles::Read => Handle::Tag(self.tag),
            Handles::Skip => Handle::Unneeded,
        };
        on(Event::Delivered { handle, stamp: self.stamp });
    }

    fn method(&mut self, payload: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<(), BenchError> {
        // Class 60 is basic; its method 60 is deliver.
        if let [0, 60, 0, 60, ..] = payload {
            if self.handles == Handles::Read {
                self.tag = basic::parse_deliver(payload)
                    .ok_or_else(|| BenchError::Protocol("basic.deliver cut short".to_owned()))?
                    .delivery_tag;
            }
            self.expect = Expect::Header;
            return Ok(());
        }
        let method = method::decode(payload, AmqpVersion::V0_9_1)
            .map_err(|error| BenchError::Protocol(error.detail()))?;
        match method {
            Method::Ack(ack) => on(Event::Settled {
                number: ack.delivery_tag,
                multiple: ack.multiple,
                refused: false,
            }),
            Method::Nack(nack) => on(Event::Settled {
                number: nack.delivery_tag,
                multiple: nack.multiple,
                refused: true,
            }),
            Method::Control(class) => return control(&class, on),
            Method::Publish(_) | Method::Reject(_) => {
                return Err(BenchError::Protocol("a method only clients send".to_owned()));
            }
        }
        Ok(())
    }
}

/// What a method means that is neither delivery nor confirm.
fn control(class: &AMQPClass, on: &mut impl FnMut(Event<'_>)) -> Result<(), BenchError> {
    let closed = |code: u16, text: &str| BenchError::Closed { text: format!("{code} {text}") };
    match class {
        AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) => {
            on(Event::Goodbye);
            Ok(())
        }
        AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
            Err(closed(close.reply_code, close.reply_text.as_str()))
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
            Err(closed(close.reply_code, close.reply_text.as_str()))
        }
        AMQPClass::Basic(amqp_basic::AMQPMethod::Cancel(_)) => {
            Err(BenchError::Closed { text: "a consumer was cancelled".to_owned() })
        }
        other => Err(BenchError::Protocol(format!("unexpected {other:?}"))),
    }
}

/// The state between two STOMP frames.
#[derive(Debug)]
pub(super) struct StompWalk {
    decoder: Decoder,
    scratch: HeaderBlock,
    handles: Handles,
}

impl StompWalk {
    /// A walk that starts between two frames of STOMP 1.2.
    pub(super) fn new(handles: Handles) -> Self {
        let mut decoder = Decoder::new(Limits::from_server(BODY_LEN_MAX));
        decoder.set_version(Version::V1_2);
        Self { decoder, scratch: HeaderBlock::new(), handles }
    }

    fn walk(&mut self, input: &[u8], on: &mut impl FnMut(Event<'_>)) -> Result<usize, BenchError> {
        let mut rest = input;
        loop {
            let decoded = self
                .decoder
                .decode(rest, &mut self.scratch)
                .map_err(|error| BenchError::Protocol(error.to_string()))?;
            let len = match decoded {
                Decoded::Incomplete => return Ok(input.len() - rest.len()),
                Decoded::Noise { wire_len } => wire_len,
                Decoded::Frame { frame, wire_len } => {
                    event_of(&frame, self.handles, on)?;
                    wire_len
                }
            };
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

/// What a STOMP frame means to the generator.
fn event_of(
    frame: &proto_stomp::Frame<'_>,
    handles: Handles,
    on: &mut impl FnMut(Event<'_>),
) -> Result<(), BenchError> {
    match frame.command {
        ParsedCommand::Known(Command::Message) => {
            let handle = match handles {
                Handles::Skip => Handle::Unneeded,
                Handles::Read => Handle::Id(frame.headers.get("ack").ok_or_else(|| {
                    BenchError::Protocol("MESSAGE without an `ack` header".to_owned())
                })?),
            };
            let stamp = frame.body.first_chunk().map_or(0, |stamp| u64::from_be_bytes(*stamp));
            on(Event::Delivered { handle, stamp });
        }
        ParsedCommand::Known(Command::Receipt) => {
            let id = frame.headers.get("receipt-id").unwrap_or_default();
            let id = std::str::from_utf8(id).unwrap_or_default();
            if id == FAREWELL_RECEIPT {
                on(Event::Goodbye);
            } else {
                let number = id
                    .parse()
                    .map_err(|_| BenchError::Protocol(format!("unknown receipt-id `{id}`")))?;
                on(Event::Settled { number, multiple: false, refused: false });
            }
        }
        ParsedCommand::Known(Command::Error) => {
            return Err(super::stomp::closed(frame));
        }
        other => return Err(BenchError::Protocol(format!("unexpected frame {other:?}"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
