//! The methods that come with every message, by hand.
//!
//! Reading borrows from the payload; writing appends whole frames to the caller's buffer, whose
//! capacity is reserved once a frame. Nothing allocates once the buffer is warm. Exchange names,
//! routing keys and consumer tags are octets here: RabbitMQ's clients put what they like into routing
//! keys, and a topic matches octets.
//!
//! ```text
//!  method frame   01 | channel u16 | size u32 | class u16 = 60 | method u16 | arguments | CE
//!  header frame   02 | channel u16 | size u32 | class u16 = 60 | weight u16 = 0 | body size u64
//!                    | flags and properties, as they came | CE
//!  body frame     03 | channel u16 | size u32 | at most frame-max - 8 octets | CE
//! ```
//!
//! The differential tests hold this file to `amq_protocol`: equal octets out, equal values in.

use crate::{
    error::{MethodError, MethodErrorKind, Octets},
    frame::{self, FRAME_END, FRAME_HEADER_LEN, FRAME_OVERHEAD, FrameKind, payload_len_max},
    method::MethodId,
    read::Reader,
    reply::ReplyCode,
    types::{ChannelId, SHORTSTR_LEN_MAX},
};

/// The class of all these methods.
pub const CLASS_BASIC: u16 = 60;

const PUBLISH: u16 = 40;
const RETURN: u16 = 50;
const DELIVER: u16 = 60;
const GET_OK: u16 = 71;
const ACK: u16 = 80;
const REJECT: u16 = 90;
const NACK: u16 = 120;

/// Octets of a method frame before its arguments, and of its end.
const METHOD_OVERHEAD: usize = FRAME_HEADER_LEN + 4 + 1;
/// Octets of a content header's payload before the property list.
const CONTENT_HEADER_FIXED: usize = 12;

/// A hot method that a peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hot<'a> {
    /// `basic.publish`.
    Publish(Publish<'a>),
    /// `basic.ack`, of a delivery or, from a server, of a publish.
    Ack(Ack),
    /// `basic.nack`, likewise.
    Nack(Nack),
    /// `basic.reject`.
    Reject(Reject),
}

/// `basic.publish`. Its content follows in frames of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The exchange's name; empty for the default exchange.
    pub exchange: &'a [u8],
    /// The routing key, any octets.
    pub routing_key: &'a [u8],
    /// Return the message if no queue takes it.
    pub mandatory: bool,
    /// Return the message if no consumer can take it at once.
    pub immediate: bool,
}

/// `basic.ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery; with `multiple`, 0 for all so far.
    pub delivery_tag: u64,
    /// All deliveries up to and including `delivery_tag`.
    pub multiple: bool,
}

/// `basic.nack`, RabbitMQ's extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The delivery; with `multiple`, 0 for all so far.
    pub delivery_tag: u64,
    /// All deliveries up to and including `delivery_tag`.
    pub multiple: bool,
    /// Put back instead of dropped or dead-lettered.
    pub requeue: bool,
}

/// `basic.reject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The delivery.
    pub delivery_tag: u64,
    /// Put back instead of dropped or dead-lettered.
    pub requeue: bool,
}

/// `basic.deliver`. Its content follows in frames of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The consumer it is for.
    pub consumer_tag: &'a [u8],
    /// Its number on the channel.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: &'a [u8],
    /// The routing key it was published with.
    pub routing_key: &'a [u8],
}

/// `basic.get-ok`. Its content follows in frames of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetOk<'a> {
    /// Its number on the channel.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: &'a [u8],
    /// The routing key it was published with.
    pub routing_key: &'a [u8],
    /// Messages left in the queue.
    pub message_count: u32,
}

/// Decodes the payload of a method frame if it is a hot method, and says `Ok(None)` if it is not.
///
/// # Errors
/// [`MethodErrorKind::Truncated`] when a hot method's arguments are not all there.
#[inline]
pub fn decode_hot(payload: &[u8]) -> Result<Option<Hot<'_>>, MethodError> {
    const BASIC: [u8; 2] = CLASS_BASIC.to_be_bytes();
    let Some((&[c0, c1, m0, m1], arguments)) = payload.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if [c0, c1] != BASIC {
        return Ok(None);
    }
    let method = u16::from_be_bytes([m0, m1]);
    let hot = match method {
        PUBLISH => publish(arguments).map(Hot::Publish),
        ACK => tag_and_bits(arguments)
            .map(|(delivery_tag, bits)| Hot::Ack(Ack { delivery_tag, multiple: bits & 1 != 0 })),
        REJECT => tag_and_bits(arguments).map(|(delivery_tag, bits)| {
            Hot::Reject(Reject { delivery_tag, requeue: bits & 1 != 0 })
        }),
        NACK => tag_and_bits(arguments).map(|(delivery_tag, bits)| {
            Hot::Nack(Nack { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 })
        }),
        _ => return Ok(None),
    };
    hot.map_or_else(|| Err(truncated(method, arguments)), |hot| Ok(Some(hot)))
}

#[cold]
fn truncated(method: u16, arguments: &[u8]) -> MethodError {
    MethodError {
        id: Some(MethodId { class: CLASS_BASIC, method }),
        kind: MethodErrorKind::Truncated,
        arguments: Octets::of(arguments),
    }
}

#[inline]
fn publish(arguments: &[u8]) -> Option<Publish<'_>> {
    let mut reader = Reader::new(arguments);
    // The ticket of 0-8's access control: every version carries it, and no server looks at it.
    reader.short()?;
    let exchange = reader.shortstr()?;
    let routing_key = reader.shortstr()?;
    let bits = reader.octet()?;
    Some(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

#[inline]
fn tag_and_bits(arguments: &[u8]) -> Option<(u64, u8)> {
    let mut reader = Reader::new(arguments);
    Some((reader.longlong()?, reader.octet()?))
}

/// Decodes the payload of a method frame as `basic.deliver`, as a client does; `None` when it is
/// another method or cut short.
#[inline]
#[must_use]
pub fn parse_deliver(payload: &[u8]) -> Option<Deliver<'_>> {
    let mut reader = Reader::new(payload);
    if (reader.short()?, reader.short()?) != (CLASS_BASIC, DELIVER) {
        return None;
    }
    Some(Deliver {
        consumer_tag: reader.shortstr()?,
        delivery_tag: reader.longlong()?,
        redelivered: reader.octet()? & 1 != 0,
        exchange: reader.shortstr()?,
        routing_key: reader.shortstr()?,
    })
}

/// Appends a `basic.publish` frame. Names above 255 octets are the caller's mistake: see
/// [`write_deliver`].
#[inline]
pub fn write_publish(
    out: &mut Vec<u8>,
    channel: ChannelId,
    exchange: &[u8],
    routing_key: &[u8],
    mandatory: bool,
) {
    let (exchange, exchange_len) = name(exchange);
    let (routing_key, routing_key_len) = name(routing_key);
    let arguments_len = 2 + 1 + exchange.len() + 1 + routing_key.len() + 1;
    out.reserve(METHOD_OVERHEAD + arguments_len);
    out.extend_from_slice(&method_head(channel, PUBLISH, arguments_len));
    out.extend_from_slice(&[0, 0, exchange_len]);
    out.extend_from_slice(exchange);
    out.push(routing_key_len);
    out.extend_from_slice(routing_key);
    out.extend_from_slice(&[u8::from(mandatory), FRAME_END]);
}

/// Appends a `basic.deliver` frame.
///
/// Tags and names come from checked ones of at most 255 octets. A longer one is the caller's mistake:
/// debug builds stop, others write its first 255 octets, so that the frame stays well formed.
#[inline]
pub fn write_deliver(out: &mut Vec<u8>, channel: ChannelId, deliver: &Deliver<'_>) {
    let (consumer_tag, consumer_tag_len) = name(deliver.consumer_tag);
    let (exchange, exchange_len) = name(deliver.exchange);
    let (routing_key, routing_key_len) = name(deliver.routing_key);
    let arguments_len = 1 + consumer_tag.len() + 8 + 1 + 1 + exchange.len() + 1 + routing_key.len();
    out.reserve(METHOD_OVERHEAD + arguments_len);
    out.extend_from_slice(&method_head(channel, DELIVER, arguments_len));
    out.push(consumer_tag_len);
    out.extend_from_slice(consumer_tag);
    out.extend_from_slice(&tag_bit_len(deliver.delivery_tag, deliver.redelivered, exchange_len));
    out.extend_from_slice(exchange);
    out.push(routing_key_len);
    out.extend_from_slice(routing_key);
    out.push(FRAME_END);
}

/// Appends a `basic.get-ok` frame; names as in [`write_deliver`].
#[inline]
pub fn write_get_ok(out: &mut Vec<u8>, channel: ChannelId, get_ok: &GetOk<'_>) {
    let (exchange, exchange_len) = name(get_ok.exchange);
    let (routing_key, routing_key_len) = name(get_ok.routing_key);
    let arguments_len = 8 + 1 + 1 + exchange.len() + 1 + routing_key.len() + 4;
    out.reserve(METHOD_OVERHEAD + arguments_len);
    out.extend_from_slice(&method_head(channel, GET_OK, arguments_len));
    out.extend_from_slice(&tag_bit_len(get_ok.delivery_tag, get_ok.redelivered, exchange_len));
    out.extend_from_slice(exchange);
    out.push(routing_key_len);
    out.extend_from_slice(routing_key);
    let [n0, n1, n2, n3] = get_ok.message_count.to_be_bytes();
    out.extend_from_slice(&[n0, n1, n2, n3, FRAME_END]);
}

/// Appends a `basic.return` frame; names as in [`write_deliver`]. `text` is the whole reply text: for
/// an unroutable message RabbitMQ sends the code's bare name.
#[inline]
pub fn write_return(
    out: &mut Vec<u8>,
    channel: ChannelId,
    code: ReplyCode,
    text: &str,
    exchange: &[u8],
    routing_key: &[u8],
) {
    let (text, text_len) = name(text.as_bytes());
    let (exchange, exchange_len) = name(exchange);
    let (routing_key, routing_key_len) = name(routing_key);
    let arguments_len = 2 + 1 + text.len() + 1 + exchange.len() + 1 + routing_key.len();
    out.reserve(METHOD_OVERHEAD + arguments_len);
    out.extend_from_slice(&method_head(channel, RETURN, arguments_len));
    let [code_hi, code_lo] = code.0.to_be_bytes();
    out.extend_from_slice(&[code_hi, code_lo, text_len]);
    out.extend_from_slice(text);
    out.push(exchange_len);
    out.extend_from_slice(exchange);
    out.push(routing_key_len);
    out.extend_from_slice(routing_key);
    out.push(FRAME_END);
}

/// Appends a `basic.ack` frame.
#[inline]
pub fn write_ack(out: &mut Vec<u8>, channel: ChannelId, delivery_tag: u64, multiple: bool) {
    out.extend_from_slice(&tag_frame(channel, ACK, delivery_tag, u8::from(multiple)));
}

/// Appends a `basic.nack` frame as servers send it: its requeue bit is set and means nothing.
#[inline]
pub fn write_nack(out: &mut Vec<u8>, channel: ChannelId, delivery_tag: u64, multiple: bool) {
    const REQUEUE: u8 = 2;
    out.extend_from_slice(&tag_frame(channel, NACK, delivery_tag, REQUEUE | u8::from(multiple)));
}

/// Appends a content header frame. `properties` are flags and list, as on the wire.
///
/// The header cannot be split: a property list above frame-max - 20 octets makes a frame larger than
/// the peer's maximum, and the caller decides what becomes of such a message.
///
/// # Panics
/// In debug builds, when `properties` exceed four gibibytes.
#[inline]
pub fn write_content_header(
    out: &mut Vec<u8>,
    channel: ChannelId,
    body_size: u64,
    properties: &[u8],
) {
    const CLASS_AND_WEIGHT: [u8; 4] = {
        let [hi, lo] = CLASS_BASIC.to_be_bytes();
        [hi, lo, 0, 0]
    };
    let payload_len = CONTENT_HEADER_FIXED + properties.len();
    out.reserve(FRAME_HEADER_LEN + payload_len + 1);
    out.extend_from_slice(&frame::header(FrameKind::Header, channel, size(payload_len)));
    out.extend_from_slice(&CLASS_AND_WEIGHT);
    out.extend_from_slice(&body_size.to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

/// Appends a body in frames of at most `frame_max` octets, where 0 means no maximum.
///
/// All but the last are full. An empty body has no frame at all.
#[inline]
pub fn write_body(out: &mut Vec<u8>, channel: ChannelId, body: &[u8], frame_max: u32) {
    out.reserve(body_frames_len(body.len(), frame_max));
    for chunk in body.chunks(chunk_len(frame_max)) {
        out.extend_from_slice(&body_frame_prefix(channel, size(chunk.len())));
        out.extend_from_slice(chunk);
        out.extend_from_slice(&body_frame_suffix());
    }
}

/// The octets before a body frame's `len` octets of body, for writing the body as a part of its own.
///
/// Split a body longer than [`payload_len_max`] and write prefix and suffix around each part.
#[inline]
#[must_use]
pub const fn body_frame_prefix(channel: ChannelId, len: u32) -> [u8; FRAME_HEADER_LEN] {
    frame::header(FrameKind::Body, channel, len)
}

/// The octet after a body frame's body.
#[inline]
#[must_use]
pub const fn body_frame_suffix() -> [u8; 1] {
    [FRAME_END]
}

/// The octets that a content's header and body frames take, exactly: what to reserve for
/// [`write_content_header`] and [`write_body`].
#[inline]
#[must_use]
pub const fn content_len(properties_len: usize, body_len: usize, frame_max: u32) -> usize {
    FRAME_HEADER_LEN
        + CONTENT_HEADER_FIXED
        + properties_len
        + 1
        + body_frames_len(body_len, frame_max)
}

#[inline]
const fn body_frames_len(body_len: usize, frame_max: u32) -> usize {
    // Most bodies fit one frame, and a division costs more than all else here.
    let frames = match body_len {
        0 => 0,
        len if len <= chunk_len(frame_max) => 1,
        len => len.div_ceil(chunk_len(frame_max)),
    };
    body_len + frames * (FRAME_OVERHEAD as usize)
}

#[inline]
const fn chunk_len(frame_max: u32) -> usize {
    payload_len_max(frame_max) as usize
}

/// A payload's length as the frame's size field says it. Payloads are bounded by frame-max or, for
/// property lists, by the frame they came in.
#[inline]
fn size(payload_len: usize) -> u32 {
    debug_assert!(u32::try_from(payload_len).is_ok(), "a payload of {payload_len} octets");
    u32::try_from(payload_len).unwrap_or(u32::MAX)
}

/// A name and its length octet.
#[inline]
fn name(octets: &[u8]) -> (&[u8], u8) {
    debug_assert!(octets.len() <= SHORTSTR_LEN_MAX, "a name of {} octets", octets.len());
    match u8::try_from(octets.len()) {
        Ok(len) => (octets, len),
        Err(_) => (octets.get(..SHORTSTR_LEN_MAX).unwrap_or_default(), u8::MAX),
    }
}

/// The frame header and the ids of a basic method.
#[inline]
fn method_head(channel: ChannelId, method: u16, arguments_len: usize) -> [u8; 11] {
    let [t, c0, c1, s0, s1, s2, s3] =
        frame::header(FrameKind::Method, channel, size(4 + arguments_len));
    let [class_hi, class_lo] = CLASS_BASIC.to_be_bytes();
    let [method_hi, method_lo] = method.to_be_bytes();
    [t, c0, c1, s0, s1, s2, s3, class_hi, class_lo, method_hi, method_lo]
}

/// A delivery tag, a bit and the length of the name that follows.
#[inline]
fn tag_bit_len(delivery_tag: u64, bit: bool, len: u8) -> [u8; 10] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    [t0, t1, t2, t3, t4, t5, t6, t7, u8::from(bit), len]
}

/// The whole frame of a method whose arguments are a delivery tag and bits.
#[inline]
fn tag_frame(channel: ChannelId, method: u16, delivery_tag: u64, bits: u8) -> [u8; 21] {
    let [a, b, c, d, e, f, g, h, i, j, k] = method_head(channel, method, 9);
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, t0, t1, t2, t3, t4, t5, t6, t7, bits, FRAME_END]
}

#[cfg(test)]
mod tests;
