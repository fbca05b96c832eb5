//! Publishes, encoded once.
//!
//! A ring holds some hundred whole publishes of one length: a producer writes slices of it, over and over,
//! and changes nothing in it but the stamp of a latency run or the number of a STOMP receipt, whose places it
//! knows because every publish has the same length. Encoding is thereby no part of a measurement.
//!
//! ```text
//! │◀──────── stride ────────▶│
//! ┌───────┬───────┬──────────┬───────┬───────┬──────────┬──
//! │ method│ header│ body     │ method│ header│ body     │ …          AMQP: three frames and more
//! └───────┴───────┴─▲────────┴───────┴───────┴─▲────────┴──
//!                   stamp                      stamp
//! ```

use proto_amqp::{Properties, basic, properties};
use proto_stomp::{Command, FrameEnd, FrameWriter};

use super::acks::CHANNEL;
use super::error::BenchError;
use super::walk::STAMP_LEN;

/// Octets that a ring has at least, if more than one message fits: large enough that writes are large, small
/// enough to stay in a processor's cache.
const RING_LEN: usize = 256 * 1024;

/// Octets that a ring may have: bodies times routing keys.
const RING_LEN_MAX: usize = 1024 * 1024 * 1024;

/// Digits of a receipt number. Enough for three years at 100,000 a second.
const RECEIPT_DIGITS: usize = 13;

/// The octet that bodies are filled with.
const FILLER: u8 = b'w';

/// What all messages of a ring have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    /// Exchange; empty for STOMP, whose keys are destinations.
    pub(super) exchange: &'a str,
    /// Routing keys or destinations, used in turn; all of one length.
    pub(super) keys: &'a [String],
    /// Octets in a body.
    pub(super) body_len: usize,
    /// Whether the messages are persistent.
    pub(super) persistent: bool,
    /// Whether each asks for a receipt (STOMP).
    pub(super) receipts: bool,
}

/// Encoded publishes of equal length.
#[derive(Debug)]
pub(super) struct Ring {
    octets: Vec<u8>,
    stride: usize,
    /// Where a publish's body starts, if it can hold a stamp.
    stamp_at: Option<usize>,
    /// Where a publish's receipt number starts.
    receipt_at: Option<usize>,
}

impl Ring {
    /// Publishes of AMQP contents on channel 1.
    ///
    /// # Errors
    /// [`BenchError::Usage`] for more octets than fit a ring.
    pub(super) fn amqp(shape: Shape<'_>, frame_max: u32) -> Result<Self, BenchError> {
        let body = body(shape.body_len);
        let mut properties = Vec::new();
        let mode = shape.persistent.then_some(properties::PERSISTENT);
        properties::encode(
            &Properties { delivery_mode: mode, ..Properties::default() },
            &mut properties,
        )
        .map_err(|error| BenchError::Protocol(error.detail()))?;
        let mut body_at = 0;
        let ring = Self::filled(shape, |out, key| {
            let start = out.len();
            basic::write_publish(out, CHANNEL, shape.exchange.as_bytes(), key.as_bytes(), false);
            basic::write_content_header(out, CHANNEL, body.len() as u64, &properties);
            body_at = out.len() - start + proto_amqp::FRAME_HEADER_LEN;
            basic::write_body(out, CHANNEL, &body, frame_max);
        })?;
        Ok(Self { stamp_at: (body.len() >= STAMP_LEN).then_some(body_at), ..ring })
    }

    /// STOMP `SEND` frames with a `content-length`.
    ///
    /// # Errors
    /// [`BenchError::Usage`] for more octets than fit a ring.
    pub(super) fn stomp(shape: Shape<'_>) -> Result<Self, BenchError> {
        const RECEIPT: &[u8] = b"\nreceipt:";
        let body = body(shape.body_len);
        let (mut body_at, mut receipt_at) = (0, 0);
        let ring = Self::filled(shape, |out, key| {
            let start = out.len();
            let mut frame = FrameWriter::begin(out, Command::Send);
            frame.header(b"destination", key.as_bytes());
            if shape.persistent {
                frame.header_raw(b"persistent", b"true");
            }
            if shape.receipts {
                frame.header_raw(b"receipt", &[b'0'; RECEIPT_DIGITS]);
            }
            let out = frame.finish_head(body.len());
            let head = out.get(start..).unwrap_or_default();
            receipt_at = memchr::memmem::find(head, RECEIPT).map_or(0, |at| at + RECEIPT.len());
            body_at = out.len() - start;
            out.extend_from_slice(&body);
            out.extend_from_slice(FrameEnd::NulLf.octets());
        })?;
        Ok(Self {
            stamp_at: (body.len() >= STAMP_LEN).then_some(body_at),
            receipt_at: shape.receipts.then_some(receipt_at),
            ..ring
        })
    }

    /// Encodes every key at least once, and more often until the ring is large enough.
    fn filled(
        shape: Shape<'_>,
        mut encode: impl FnMut(&mut Vec<u8>, &str),
    ) -> Result<Self, BenchError> {
        let mut octets = Vec::new();
        let mut stride = 0;
        let keys = || shape.keys.iter().map(String::as_str);
        for key in keys().take(1) {
            encode(&mut octets, key);
            stride = octets.len();
        }
        let rounds = RING_LEN.div_ceil((stride * shape.keys.len()).max(1));
        let len = stride * shape.keys.len() * rounds;
        if len > RING_LEN_MAX {
            return Err(BenchError::Usage(format!(
                "--size times the number of routing keys is {len} octets; at most {RING_LEN_MAX}"
            )));
        }
        octets.clear();
        octets.reserve_exact(len);
        for _ in 0..rounds {
            for key in keys() {
                encode(&mut octets, key);
            }
        }
        debug_assert_eq!(octets.len(), len, "all keys have one length");
        Ok(Self { octets, stride, stamp_at: None, receipt_at: None })
    }

    /// All publishes.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Octets of one publish.
    pub(super) const fn stride(&self) -> usize {
        self.stride
    }

    /// How many publishes the ring holds.
    pub(super) const fn count(&self) -> usize {
        self.octets.len() / self.stride
    }

    /// Where the publish of this turn stands, when turns go round and round.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a usize fits one")]
    pub(super) const fn index_of(&self, turn: u64) -> usize {
        (turn % self.count() as u64) as usize
    }

    /// Writes `stamp` into the body of the publish at `index`.
    pub(super) fn stamp(&mut self, index: usize, stamp: u64) {
        if let Some(at) = self.stamp_at {
            self.patch(index, at, &stamp.to_be_bytes());
        }
    }

    /// Numbers the receipts of `count` publishes from `index` on, upwards from `number`, if they have any.
    pub(super) fn number(&mut self, index: usize, count: usize, number: u64) {
        let Some(at) = self.receipt_at else { return };
        let mut digits = [b'0'; RECEIPT_DIGITS];
        for (index, number) in (index..index + count).zip(number..) {
            let mut rest = number;
            for digit in digits.iter_mut().rev() {
                // A remainder of ten fits an octet.
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            self.patch(index, at, &digits);
        }
    }

    /// `count` publishes from `index` on; fewer at the ring's end.
    pub(super) fn slice(&self, index: usize, count: usize) -> &[u8] {
        let start = index * self.stride;
        let end = (start + count * self.stride).min(self.octets.len());
        self.octets.get(start..end).unwrap_or_default()
    }

    fn patch(&mut self, index: usize, at: usize, new: &[u8]) {
        let start = index * self.stride + at;
        if let Some(old) = self.octets.get_mut(start..start + new.len()) {
            old.copy_from_slice(new);
        }
    }
}

/// A body of `len` octets whose stamp, if it has room for one, says "none".
fn body(len: usize) -> Vec<u8> {
    let mut body = vec![FILLER; len];
    if let Some(stamp) = body.first_chunk_mut::<STAMP_LEN>() {
        *stamp = [0; STAMP_LEN];
    }
    body
}

#[cfg(test)]
mod tests;
