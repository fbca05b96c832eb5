//! A scripted AMQP peer.
//!
//! It keeps what arrives for each channel apart, in order, so that a test asks one channel without minding
//! what comes on the others. It never answers by itself: what a client has to say (close-ok, heartbeats), the
//! test says, or a method of the peer that is named after it.

pub mod methods;
mod session;
pub mod tables;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use proto_amqp::control::protocol::{AMQPClass, basic, channel, connection};
use proto_amqp::{
    ChannelId, ContentHeader, FRAME_OVERHEAD, Frame, FrameKind, MethodId, Properties, Version,
    control, frame, properties,
};
use tokio::time::{Duration, Instant};

use crate::raw::{RawPeer, Read, Stream};
use crate::transcript::shown;
use crate::{DEADLINE, SILENCE};
pub use methods::{Method, Request};
pub use session::Options;

/// Largest frame of the broker's before `connection.tune-ok` (AMQP 0-9-1 §4.2.3: frame-min-size). The table of
/// server properties fits.
const FRAME_MAX_BEFORE_TUNE: u32 = 4096;

/// A content with the method that it came behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<M> {
    /// `basic.deliver`, `basic.get-ok` or `basic.return`.
    pub method: M,
    /// Property flags and list, as they came.
    pub properties: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl<M> Message<M> {
    /// The properties, decoded.
    #[must_use]
    pub fn decoded(&self) -> Properties<'_> {
        match properties::summarise(&self.properties) {
            Ok(decoded) => decoded,
            Err(error) => panic!("the broker sent a malformed property list: {error}"),
        }
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One thing that arrived on a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A method without content.
    Method(AMQPClass),
    /// A method with its content.
    Content(Message<AMQPClass>),
}

/// A content on its way in.
#[derive(Debug)]
struct Partial {
    method: AMQPClass,
    properties: Option<Vec<u8>>,
    body_size: usize,
    body: Vec<u8>,
}

/// An AMQP client that says what it is told.
#[derive(Debug)]
pub struct Peer {
    raw: RawPeer,
    version: Version,
    /// What the broker may send at most, once tuned.
    frame_max: u32,
    buffer: Vec<u8>,
    arrived: HashMap<u16, VecDeque<Incoming>>,
    partial: HashMap<u16, Partial>,
    heartbeats: usize,
    ended: bool,
}

/// `basic.publish` to the default exchange or another.
#[must_use]
pub fn publish(exchange: &str, routing_key: &str) -> basic::Publish {
    let (exchange, routing_key) = (exchange.into(), routing_key.into());
    basic::Publish { exchange, routing_key, ..basic::Publish::default() }
}

impl Peer {
    /// Connects over TCP and says nothing yet.
    pub async fn connect(address: SocketAddr, version: Version) -> Self {
        Self::new(RawPeer::connect(address).await, version)
    }

    /// Talks over a stream that is there already.
    #[must_use]
    pub fn over(stream: impl Stream + 'static, version: Version) -> Self {
        Self::new(RawPeer::over(stream), version)
    }

    fn new(raw: RawPeer, version: Version) -> Self {
        Self {
            raw,
            version,
            frame_max: FRAME_MAX_BEFORE_TUNE,
            buffer: Vec::new(),
            arrived: HashMap::new(),
            partial: HashMap::new(),
            heartbeats: 0,
            ended: false,
        }
    }

    // ---- sending ----

    /// Sends octets that may be no frame at all.
    pub async fn send_octets(&mut self, octets: &[u8]) {
        self.raw.send(octets).await;
    }

    /// Sends a frame with a payload of any kind.
    pub async fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.send_octets(&frame_of(kind, channel, payload)).await;
    }

    /// The octets of a method frame.
    #[must_use]
    pub fn encoded(&self, channel: u16, class: &AMQPClass) -> Vec<u8> {
        let mut octets = Vec::new();
        match control::encode(ChannelId(channel), class, self.version, &mut octets) {
            Ok(()) => octets,
            Err(error) => self.fail(&format!("a method of the test cannot be encoded: {error}")),
        }
    }

    /// Sends a method and waits for nothing.
    pub async fn send(&mut self, channel: u16, method: impl Method) {
        let class = method.into_class();
        self.raw.transcript.sent(format_args!("{channel}: {class:?}"));
        let octets = self.encoded(channel, &class);
        self.send_noted(&octets).await;
    }

    /// Sends octets of which the transcript knows already what they mean.
    async fn send_noted(&mut self, octets: &[u8]) {
        if let Err(error) = self.raw.try_send(octets).await {
            self.fail(&format!("cannot send: {error}"));
        }
    }

    /// Sends a method and expects its answer.
    pub async fn call<R: Request>(&mut self, channel: u16, request: R) -> R::Reply {
        self.send(channel, request).await;
        self.expect(channel).await
    }

    /// The octets of a publish with its content, in frames of at most `frame_max` octets.
    #[must_use]
    pub fn encoded_publish(
        &self,
        channel: u16,
        method: basic::Publish,
        properties: &Properties<'_>,
        body: &[u8],
    ) -> Vec<u8> {
        let mut octets = self.encoded(channel, &method.into_class());
        let mut list = Vec::new();
        if let Err(error) = properties::encode(properties, &mut list) {
            self.fail(&format!("properties of the test cannot be encoded: {error}"));
        }
        let id = ChannelId(channel);
        proto_amqp::basic::write_content_header(&mut octets, id, body.len() as u64, &list);
        proto_amqp::basic::write_body(&mut octets, id, body, self.frame_max);
        octets
    }

    /// Publishes with properties.
    pub async fn publish_with(
        &mut self,
        channel: u16,
        method: basic::Publish,
        properties: &Properties<'_>,
        body: &[u8],
    ) {
        self.raw.transcript.sent(format_args!("{channel}: {method:?} {}", shown(body)));
        let octets = self.encoded_publish(channel, method, properties, body);
        self.send_noted(&octets).await;
    }

    /// Publishes without properties.
    pub async fn publish(&mut self, channel: u16, exchange: &str, routing_key: &str, body: &str) {
        let method = publish(exchange, routing_key);
        self.publish_with(channel, method, &Properties::default(), body.as_bytes()).await;
    }

    // ---- receiving ----

    /// Reads until `found` gives something, the connection ends or `patience` has run out.
    async fn read_until<T>(
        &mut self,
        patience: Duration,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, Read> {
        let until = Instant::now() + patience;
        loop {
            if let Some(there) = found(self) {
                return Ok(there);
            }
            if self.ended {
                return Err(Read::End);
            }
            match self.raw.read(until.saturating_duration_since(Instant::now())).await {
                Read::Octets(octets) => {
                    self.buffer.extend_from_slice(&octets);
                    self.take_frames();
                }
                Read::End => self.ended = true,
                Read::Nothing => return Err(Read::Nothing),
            }
        }
    }

    fn take_frames(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        loop {
            match frame::parse(rest, self.frame_max) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    self.take_frame(&frame);
                    rest = rest.get(frame.wire_len..).unwrap_or_default();
                }
                Err(error) => {
                    self.raw.transcript.received(shown(rest));
                    self.fail(&format!("the broker sent no frame: {error}"));
                }
            }
        }
        self.buffer = rest.to_vec();
    }

    fn take_frame(&mut self, frame: &Frame<'_>) {
        let channel = frame.channel.0;
        if frame.wire_len > self.frame_max as usize && self.frame_max > 0 {
            self.fail(&format!("a frame of {} octets is longer than agreed", frame.wire_len));
        }
        match frame.kind {
            FrameKind::Heartbeat => {
                self.raw.transcript.received("heartbeat");
                self.heartbeats += 1;
            }
            FrameKind::Method => self.take_method(channel, frame.payload),
            FrameKind::Header => self.take_header(channel, frame.payload),
            FrameKind::Body => self.take_body(channel, frame.payload),
        }
    }

    fn take_method(&mut self, channel: u16, payload: &[u8]) {
        let class = match control::decode(payload, self.version) {
            Ok(class) => class,
            Err(error) => self.fail(&format!("the broker sent a malformed method: {error}")),
        };
        self.raw.transcript.received(format_args!("{channel}: {class:?}"));
        if self.partial.contains_key(&channel) {
            self.fail("the broker sent a method inside of a content");
        }
        if methods::has_content(&class) {
            let partial =
                Partial { method: class, properties: None, body_size: 0, body: Vec::new() };
            self.partial.insert(channel, partial);
        } else {
            self.arrived.entry(channel).or_default().push_back(Incoming::Method(class));
        }
    }

    fn take_header(&mut self, channel: u16, payload: &[u8]) {
        let Some(mut partial) = self.partial.remove(&channel) else {
            self.fail("the broker sent a content header without a method");
        };
        let header = match ContentHeader::parse(payload) {
            Ok(header) => header,
            Err(error) => self.fail(&format!("the broker sent a malformed header: {error}")),
        };
        if partial.properties.is_some() {
            self.fail("the broker sent two content headers");
        }
        partial.properties = Some(header.properties.to_vec());
        partial.body_size = usize::try_from(header.body_size).unwrap_or(usize::MAX);
        self.finish_content(channel, partial);
    }

    fn take_body(&mut self, channel: u16, payload: &[u8]) {
        let Some(mut partial) = self.partial.remove(&channel) else {
            self.fail("the broker sent a body without a header");
        };
        partial.body.extend_from_slice(payload);
        let full = payload.len() == (self.frame_max - FRAME_OVERHEAD) as usize;
        if partial.body.len() > partial.body_size {
            self.fail("the broker sent more body than it had announced");
        }
        if partial.body.len() < partial.body_size && !full {
            self.fail("the broker split a body before its frame was full");
        }
        self.finish_content(channel, partial);
    }

    fn finish_content(&mut self, channel: u16, partial: Partial) {
        if partial.body.len() < partial.body_size {
            self.partial.insert(channel, partial);
            return;
        }
        let Partial { method, properties, body, .. } = partial;
        self.raw.transcript.received(format_args!("{channel}: content {}", shown(&body)));
        let properties = properties.unwrap_or_default();
        let message = Message { method, properties, body };
        self.arrived.entry(channel).or_default().push_back(Incoming::Content(message));
    }

    /// The next thing on a channel, which must come.
    pub async fn next(&mut self, channel: u16) -> Incoming {
        let arrived = self.read_until(DEADLINE, |peer| {
            peer.arrived.get_mut(&channel).and_then(VecDeque::pop_front)
        });
        match arrived.await {
            Ok(incoming) => incoming,
            Err(read) => self.fail(&format!("wanted something on channel {channel}, got {read:?}")),
        }
    }

    /// The next thing on a channel, which must be this method.
    pub async fn expect<M: Method>(&mut self, channel: u16) -> M {
        let found = match self.next(channel).await {
            Incoming::Method(class) => M::from_class(class),
            Incoming::Content(message) => Err(message.method),
        };
        match found {
            Ok(method) => method,
            Err(other) => self.fail(&format!(
                "wanted {} on channel {channel}, got {other:?}",
                std::any::type_name::<M>()
            )),
        }
    }

    async fn expect_content<M: Method>(&mut self, channel: u16) -> Message<M> {
        let wanted = std::any::type_name::<M>();
        match self.next(channel).await {
            Incoming::Content(Message { method, properties, body }) => {
                match M::from_class(method) {
                    Ok(method) => Message { method, properties, body },
                    Err(other) => self.fail(&format!("wanted {wanted}, got {other:?}")),
                }
            }
            Incoming::Method(other) => self.fail(&format!("wanted {wanted}, got {other:?}")),
        }
    }

    /// The next thing on a channel, which must be a delivery.
    pub async fn expect_delivery(&mut self, channel: u16) -> Message<basic::Deliver> {
        self.expect_content(channel).await
    }

    /// The next thing on a channel, which must be a message that came back.
    pub async fn expect_return(&mut self, channel: u16) -> Message<basic::Return> {
        self.expect_content(channel).await
    }

    /// The next delivery, of which only the body matters.
    pub async fn expect_text(&mut self, channel: u16) -> String {
        self.expect_delivery(channel).await.text()
    }

    /// Expects that nothing else has come on a channel when an answer comes to what is asked now.
    pub async fn expect_nothing(&mut self, channel: u16) {
        self.call(channel, channel::Flow { active: true }).await;
    }

    /// Expects `channel.close` with this code, this whole text and this failed method, and answers it.
    pub async fn expect_channel_close(
        &mut self,
        channel: u16,
        code: u16,
        text: &str,
        method: (u16, u16),
    ) {
        let close: channel::Close = self.expect(channel).await;
        let got = (close.reply_code, close.reply_text.as_str(), (close.class_id, close.method_id));
        if got != (code, text, method) {
            let wanted = (code, text, method);
            self.fail(&format!("wanted the channel closed with\n  {wanted:?}, got\n  {got:?}"));
        }
        self.send(channel, channel::CloseOk {}).await;
    }

    /// The same, and opens the channel again.
    pub async fn expect_channel_error(
        &mut self,
        channel: u16,
        code: u16,
        text: &str,
        method: (u16, u16),
    ) {
        self.expect_channel_close(channel, code, text, method).await;
        self.open_channel(channel).await;
    }

    /// Expects `connection.close` with this code, this whole text and this failed method.
    pub async fn expect_close(&mut self, code: u16, text: &str, method: (u16, u16)) {
        let close: connection::Close = self.expect(0).await;
        let got = (close.reply_code, close.reply_text.as_str(), (close.class_id, close.method_id));
        if got != (code, text, method) {
            let wanted = (code, text, method);
            self.fail(&format!("wanted the connection closed with\n  {wanted:?}, got\n  {got:?}"));
        }
    }

    /// Expects `connection.close`, answers it and expects the end of the connection.
    pub async fn expect_connection_error(&mut self, code: u16, text: &str, method: (u16, u16)) {
        self.expect_close(code, text, method).await;
        let close_ok = self.encoded(0, &connection::CloseOk {}.into_class());
        // The broker does not wait for an answer where frames can no longer be told apart.
        self.raw.try_send(&close_ok).await.ok();
        self.raw.finish_sending().await;
        self.expect_end().await;
    }

    /// Expects the end of the connection and nothing on channel 0 before it.
    pub async fn expect_end(&mut self) {
        let arrived = self
            .read_until(DEADLINE, |peer| peer.arrived.get_mut(&0).and_then(VecDeque::pop_front));
        match arrived.await {
            Err(Read::End) => {}
            other => self.fail(&format!("wanted the end of the connection, got {other:?}")),
        }
    }

    /// Expects to hear nothing on a channel for a moment. Where an answer can be had,
    /// [`expect_nothing`](Self::expect_nothing) is faster and surer.
    pub async fn expect_silence(&mut self, channel: u16) {
        let arrived = self.read_until(SILENCE, |peer| {
            peer.arrived.get_mut(&channel).and_then(VecDeque::pop_front)
        });
        match arrived.await {
            Err(Read::Nothing) => {}
            other => self.fail(&format!("wanted silence on channel {channel}, got {other:?}")),
        }
    }

    /// Waits for one more heartbeat and gives how long that took.
    pub async fn expect_heartbeat(&mut self) -> Duration {
        let (before, since) = (self.heartbeats, Instant::now());
        let came = self.read_until(DEADLINE, |peer| (peer.heartbeats > before).then_some(()));
        match came.await {
            Ok(()) => since.elapsed(),
            Err(read) => self.fail(&format!("wanted a heartbeat, got {read:?}")),
        }
    }

    /// Reads for `time`, whatever comes; the end of the connection ends it early, and is told.
    pub async fn read_for(&mut self, time: Duration) -> bool {
        let ended = self.read_until(time, |_| None::<()>).await;
        ended == Err(Read::End)
    }

    /// Whether something has arrived on a channel that nobody has asked for yet. Reads nothing.
    #[must_use]
    pub fn has_arrived(&self, channel: u16) -> bool {
        self.arrived.get(&channel).is_some_and(|arrived| !arrived.is_empty())
    }

    /// Heartbeats that have arrived.
    #[must_use]
    pub const fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    /// The version that the peer speaks.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The octets below the frames. What was read already is not there any more.
    pub const fn raw(&mut self) -> &mut RawPeer {
        &mut self.raw
    }

    /// Fails the test with the conversation.
    #[track_caller]
    pub fn fail(&self, what: &str) -> ! {
        self.raw.transcript.fail(what)
    }
}

/// The octets of a frame of any type.
#[must_use]
pub fn frame_of(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = channel.to_be_bytes();
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[kind, high, low][..], &size, payload, &[proto_amqp::FRAME_END]].concat()
}

/// The payload of a method frame: class, method and encoded arguments.
#[must_use]
pub fn method_payload(id: MethodId, arguments: &[u8]) -> Vec<u8> {
    [&id.class.to_be_bytes(), &id.method.to_be_bytes(), arguments].concat()
}
