//! An AMQP 0-9-1 client that blocks: login, requests with their answers, and the way under load.
//!
//! Requests are rare here, so each is written and its answer awaited; the hot way starts with
//! [`AmqpPeer::into_link`]. Heartbeats are tuned away: the generator is never idle for long, and a held
//! connection must cost the broker what the connection costs.

use std::net::TcpStream;

use proto_amqp::control::protocol::{AMQPClass, basic, channel, confirm, connection};
use proto_amqp::control::types::{AMQPValue, FieldTable, LongString, ShortString};
use proto_amqp::frame::{self, FrameKind};
use proto_amqp::handshake::PROTOCOL_HEADER_0_9_1;
use proto_amqp::method::{self, Method};
use proto_amqp::{ChannelId, Version, control};

use super::acks::CHANNEL;
use super::address::Address;
use super::error::BenchError;
use super::link::{Inbox, Link, dial, send};
use super::walk::{AmqpWalk, Handles, Walk};

/// The largest frame offered, in octets: what brokers offer by default.
const FRAME_MAX: u32 = 131_072;

/// A connection that has logged in.
#[derive(Debug)]
pub(super) struct AmqpPeer {
    stream: TcpStream,
    inbox: Inbox,
    frame_max: u32,
    product: String,
}

/// A name for a method's argument.
///
/// # Errors
/// [`BenchError::Usage`] over 255 octets.
pub(super) fn short(name: &str) -> Result<ShortString, BenchError> {
    ShortString::try_new(name).map_err(|error| BenchError::Usage(format!("`{name}`: {error}")))
}

impl AmqpPeer {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`BenchError::Connect`], [`BenchError::Closed`] with the broker's reason, [`BenchError::Late`].
    pub(super) fn open(address: &Address) -> Result<Self, BenchError> {
        let stream = dial(address.socket)?;
        let mut peer =
            Self { stream, inbox: Inbox::new(), frame_max: FRAME_MAX, product: String::new() };
        send(&peer.stream, &PROTOCOL_HEADER_0_9_1)?;
        let start = match peer.answer(ChannelId(0))? {
            AMQPClass::Connection(connection::AMQPMethod::Start(start)) => start,
            other => return Err(unexpected(&other)),
        };
        peer.product = product(&start.server_properties);
        let response = format!("\0{}\0{}", address.user, address.password);
        let tune = match peer.call(
            ChannelId(0),
            AMQPClass::Connection(connection::AMQPMethod::StartOk(connection::StartOk {
                client_properties: client_properties(),
                mechanism: short("PLAIN")?,
                response: LongString::from(response),
                locale: short("en_US")?,
            })),
        )? {
            AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) => tune,
            other => return Err(unexpected(&other)),
        };
        // spec: amqp connection.tune: zero means no limit.
        peer.frame_max =
            if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.min(FRAME_MAX) };
        peer.tell(
            ChannelId(0),
            AMQPClass::Connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
                channel_max: tune.channel_max,
                frame_max: peer.frame_max,
                heartbeat: 0,
            })),
        )?;
        match peer.call(
            ChannelId(0),
            AMQPClass::Connection(connection::AMQPMethod::Open(connection::Open {
                virtual_host: short(&address.vhost)?,
            })),
        )? {
            AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) => Ok(peer),
            other => Err(unexpected(&other)),
        }
    }

    /// What the broker says it is: product and version.
    pub(super) fn product(&self) -> &str {
        &self.product
    }

    /// The negotiated size of a frame, in octets.
    pub(super) const fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// Sends a method and returns the one that answers it.
    ///
    /// # Errors
    /// [`BenchError::Closed`] if the answer is a close, [`BenchError::Late`], [`BenchError::Io`].
    pub(super) fn call(
        &mut self,
        channel: ChannelId,
        request: AMQPClass,
    ) -> Result<AMQPClass, BenchError> {
        self.tell(channel, request)?;
        self.answer(channel)
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn open_channel(&mut self, channel: ChannelId) -> Result<(), BenchError> {
        let open = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
        match self.call(channel, open)? {
            AMQPClass::Channel(channel::AMQPMethod::OpenOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Closes a channel.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn close_channel(&mut self, channel: ChannelId) -> Result<(), BenchError> {
        let close = AMQPClass::Channel(channel::AMQPMethod::Close(channel::Close {
            reply_code: 200,
            reply_text: short("done")?,
            class_id: 0,
            method_id: 0,
        }));
        match self.call(channel, close)? {
            AMQPClass::Channel(channel::AMQPMethod::CloseOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Accepts that the broker has closed a channel, so that its number can be used again.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn confirm_channel_closed(&mut self, channel: ChannelId) -> Result<(), BenchError> {
        self.tell(channel, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})))
    }

    /// Asks for publisher confirms on the channel of the load.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn select_confirms(&mut self) -> Result<(), BenchError> {
        let select =
            AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false }));
        match self.call(CHANNEL, select)? {
            AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Bounds the unacknowledged deliveries of each consumer on the channel of the load.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn set_prefetch(&mut self, prefetch_count: u16) -> Result<(), BenchError> {
        let qos = basic::Qos { prefetch_count, global: false };
        match self.call(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Qos(qos)))? {
            AMQPClass::Basic(basic::AMQPMethod::QosOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Starts a consumer on the channel of the load.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn consume(
        &mut self,
        queue: &str,
        tag: &str,
        no_ack: bool,
    ) -> Result<(), BenchError> {
        let consume = basic::Consume {
            queue: short(queue)?,
            consumer_tag: short(tag)?,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        match self.call(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))? {
            AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a consumer.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn cancel(&mut self, tag: &str) -> Result<(), BenchError> {
        let cancel = basic::Cancel { consumer_tag: short(tag)?, nowait: false };
        match self.call(CHANNEL, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))? {
            AMQPClass::Basic(basic::AMQPMethod::CancelOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Puts the connection under load.
    ///
    /// # Errors
    /// [`BenchError::Protocol`] if the farewell cannot be encoded.
    pub(super) fn into_link(self, handles: Handles) -> Result<Link, BenchError> {
        let mut farewell = Vec::new();
        encode(ChannelId(0), &close_request()?, &mut farewell)?;
        let walk = Walk::Amqp(AmqpWalk::new(self.frame_max, handles));
        Ok(Link::new(self.stream, self.inbox, walk, farewell))
    }

    /// Keeps only the socket of a connection that is going to be idle.
    ///
    /// # Errors
    /// [`BenchError::Protocol`] if the broker has said something meanwhile.
    pub(super) fn into_idle(self) -> Result<TcpStream, BenchError> {
        if self.inbox.is_empty() {
            Ok(self.stream)
        } else {
            Err(BenchError::Protocol("octets that nobody asked for".to_owned()))
        }
    }

    /// Logs out.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) fn close(mut self) -> Result<(), BenchError> {
        match self.call(ChannelId(0), close_request()?)? {
            AMQPClass::Connection(connection::AMQPMethod::CloseOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn tell(&mut self, channel: ChannelId, method: AMQPClass) -> Result<(), BenchError> {
        let mut out = Vec::new();
        encode(channel, &method, &mut out)?;
        send(&self.stream, &out)
    }

    /// The next method on `channel`.
    fn answer(&mut self, channel: ChannelId) -> Result<AMQPClass, BenchError> {
        loop {
            if let Some(frame) = frame::parse(self.inbox.octets(), self.frame_max)? {
                let (kind, on) = (frame.kind, frame.channel);
                let method = match kind {
                    FrameKind::Method => Some(
                        method::decode(frame.payload, Version::V0_9_1)
                            .map_err(|error| BenchError::Protocol(error.detail()))?,
                    ),
                    FrameKind::Header | FrameKind::Body | FrameKind::Heartbeat => None,
                };
                let method = match method {
                    Some(Method::Control(method)) => Some(*method),
                    Some(other) => {
                        return Err(BenchError::Protocol(format!("unexpected {other:?}")));
                    }
                    None if kind == FrameKind::Heartbeat => None,
                    None => return Err(BenchError::Protocol(format!("{kind:?} frame too early"))),
                };
                let len = frame.wire_len;
                self.inbox.consume(len);
                match method {
                    Some(method) => return accept(on, channel, method),
                    None => continue,
                }
            }
            self.inbox.await_more(&self.stream)?;
        }
    }
}

/// Takes a method as an answer on `channel`, unless it is a close or stands elsewhere.
fn accept(on: ChannelId, channel: ChannelId, method: AMQPClass) -> Result<AMQPClass, BenchError> {
    match method {
        AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
            Err(BenchError::Closed { text: format!("{} {}", close.reply_code, close.reply_text) })
        }
        AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
            Err(BenchError::Closed { text: format!("{} {}", close.reply_code, close.reply_text) })
        }
        method if on == channel => Ok(method),
        other => Err(unexpected(&other)),
    }
}

/// The method that logs out.
fn close_request() -> Result<AMQPClass, BenchError> {
    Ok(AMQPClass::Connection(connection::AMQPMethod::Close(connection::Close {
        reply_code: 200,
        reply_text: short("done")?,
        class_id: 0,
        method_id: 0,
    })))
}

/// Appends a method's frame.
pub(super) fn encode(
    channel: ChannelId,
    method: &AMQPClass,
    out: &mut Vec<u8>,
) -> Result<(), BenchError> {
    control::encode(channel, method, Version::V0_9_1, out)
        .map_err(|error| BenchError::Protocol(error.to_string()))
}

/// An answer that does not fit the question.
pub(super) fn unexpected(method: &AMQPClass) -> BenchError {
    BenchError::Protocol(format!("unexpected answer {method:?}"))
}

/// `product version` of a broker.
fn product(properties: &FieldTable) -> String {
    let text = |key: &str| match properties.inner().get(key) {
        Some(AMQPValue::LongString(text)) => text.to_string(),
        _ => String::new(),
    };
    format!("{} {}", text("product"), text("version")).trim().to_owned()
}

/// Who we are, and that a refused login may be told with its reason.
fn client_properties() -> FieldTable {
    let mut capabilities = FieldTable::default();
    for capability in ["authentication_failure_close", "basic.nack", "publisher_confirms"] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("warren bench".into()));
    properties.insert("version".into(), AMQPValue::LongString(env!("CARGO_PKG_VERSION").into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}
