//! Headers and properties: SEND to the encoded property list of AMQP, the list to MESSAGE.
//!
//! ```text
//! header             property           header             property
//! content-type       content-type       reply-to           reply-to (rewritten, both ways)
//! content-encoding   content-encoding   expiration         expiration
//! persistent:true    delivery-mode 2    amqp-message-id    message-id
//! priority           priority           timestamp          timestamp
//! correlation-id     correlation-id     type, user-id, app-id
//! any other          an entry of the headers table, as a long string
//! ```
//!
//! Pure: octets in, octets out. Both directions go through the headers once and allocate nothing.

use broker_core::Attributes;
use proto_amqp::properties::{PERSISTENT, Properties};
use proto_amqp::table::{TableWriter, Value};
use proto_stomp::{Command, FrameWriter, Headers};

use super::destination::{REPLY_QUEUE, is_destination};
use super::error::StompError;
use super::subscription::{boolean, integer};
use crate::publishing;

/// The most octets of a string property and of a name in the headers table (AMQP `shortstr`).
const SHORT_LEN_MAX: usize = 255;

/// What the headers of a SEND say.
#[derive(Debug, Default)]
pub(super) struct SendHeaders<'f> {
    pub(super) destination: Option<&'f [u8]>,
    pub(super) transaction: Option<&'f [u8]>,
    pub(super) receipt: Option<&'f [u8]>,
    /// Without the headers table, which is written apart.
    pub(super) properties: Properties<'f>,
    pub(super) attributes: Attributes,
}

impl<'f> SendHeaders<'f> {
    /// Reads the headers of a SEND; those that are no property are appended to `table`.
    ///
    /// # Errors
    /// `Invalid header`, `Processing error` and `precondition_failed`, header by header.
    pub(super) fn read(headers: &Headers<'f>, table: &mut Vec<u8>) -> Result<Self, StompError> {
        let mut send = Self::default();
        for (name, value) in headers.iter() {
            send.take(name, value, table)?;
        }
        Ok(send)
    }

    #[inline]
    fn take(
        &mut self,
        name: &'f [u8],
        value: &'f [u8],
        table: &mut Vec<u8>,
    ) -> Result<(), StompError> {
        let short = || match value.len() {
            ..=SHORT_LEN_MAX => Ok(Some(value)),
            _ => Err(StompError::header_too_long(name)),
        };
        let properties = &mut self.properties;
        match name {
            b"destination" => self.destination = Some(value),
            // The frame's, not the message's: whoever delivers counts again.
            b"content-length" => {}
            b"content-type" => properties.content_type = short()?,
            b"content-encoding" => properties.content_encoding = short()?,
            b"persistent" => {
                if boolean(value) == Some(true) {
                    properties.delivery_mode = Some(PERSISTENT);
                    self.attributes.persistent = true;
                }
            }
            b"priority" => {
                let number = integer(value)?;
                let priority = u8::try_from(number).map_err(|_| StompError::processing())?;
                properties.priority = Some(priority);
                self.attributes.priority = priority;
            }
            b"correlation-id" => properties.correlation_id = short()?,
            b"reply-to" => properties.reply_to = short()?,
            b"expiration" => {
                let lives = publishing::expiration(value).map_err(StompError::precondition)?;
                properties.expiration = short()?;
                self.attributes.expiration = Some(lives);
            }
            b"amqp-message-id" => properties.message_id = short()?,
            b"message-id" => {
                return Err(StompError::forbidden_header("message-id", Command::Send));
            }
            b"timestamp" => {
                let seconds = integer(value)?;
                let seconds = u64::try_from(seconds).map_err(|_| StompError::processing())?;
                properties.timestamp = Some(seconds);
            }
            b"type" => properties.kind = short()?,
            b"user-id" => properties.user_id = short()?,
            b"app-id" => properties.app_id = short()?,
            b"CC" | b"BCC" => {
                // Lists of routing keys in AMQP, which a header cannot be.
                let name = String::from_utf8_lossy(name);
                return Err(StompError::precondition(format!(
                    "invalid message: {{unacceptable_type_in_header,\"{name}\",longstr}}"
                )));
            }
            _ => {
                match name {
                    b"receipt" => self.receipt = Some(value),
                    b"transaction" => self.transaction = Some(value),
                    _ => {}
                }
                // A header's length is bounded far below what a table's entry can be; its name is not.
                TableWriter::new(table)
                    .write(name, Value::LongString(value))
                    .map_err(|_| StompError::header_too_long(name))?;
            }
        }
        Ok(())
    }
}

/// Writes what a property list says into a MESSAGE: the headers table first, then the properties.
pub(super) fn write_headers(frame: &mut FrameWriter<'_>, properties: &Properties<'_>) {
    for (name, value) in properties.headers_reader() {
        if !is_taken(name, properties) {
            write_value(frame, name, &value);
        }
    }
    let mut text = |name: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            frame.header(name.as_bytes(), value);
        }
    };
    text("app-id", properties.app_id);
    text("user-id", properties.user_id);
    text("type", properties.kind);
    text("amqp-message-id", properties.message_id);
    text("expiration", properties.expiration);
    text("correlation-id", properties.correlation_id);
    text("content-encoding", properties.content_encoding);
    text("content-type", properties.content_type);
    if let Some(reply_to) = properties.reply_to {
        let prefix = if is_destination(reply_to) { &[] } else { REPLY_QUEUE };
        frame.header_in_parts(b"reply-to", &[prefix, reply_to]);
    }
    if let Some(seconds) = properties.timestamp {
        frame.header_number(b"timestamp", seconds);
    }
    if let Some(priority) = properties.priority {
        frame.header_number(b"priority", priority.into());
    }
    match properties.delivery_mode {
        Some(PERSISTENT) => frame.header_raw(b"persistent", b"true"),
        // RabbitMQ: writes the number of any other mode, and clients have seen it.
        Some(mode) => frame.header_number(b"persistent", mode.into()),
        None => {}
    }
}

/// Writes an entry of the headers table, if it is of a type that a header can be.
// RabbitMQ: text and two of the integer types only.
fn write_value(frame: &mut FrameWriter<'_>, name: &[u8], value: &Value<'_>) {
    if let Some(text) = value.as_longstr() {
        frame.header(name, text);
    } else if let Some(number) = value.as_integer() {
        frame.header(name, itoa::Buffer::new().format(number).as_bytes());
    } else if let Value::Boolean(value) = value {
        frame.header(name, if *value { b"true" } else { b"false" });
    }
}

/// Whether the MESSAGE has this header from another source: of the frame itself, or of a property. The client takes
/// the first of two, and must not be lied to about them.
fn is_taken(name: &[u8], properties: &Properties<'_>) -> bool {
    match name {
        b"subscription" | b"destination" | b"message-id" | b"ack" | b"redelivered"
        | b"content-length" => true,
        b"app-id" => properties.app_id.is_some(),
        b"user-id" => properties.user_id.is_some(),
        b"type" => properties.kind.is_some(),
        b"amqp-message-id" => properties.message_id.is_some(),
        b"expiration" => properties.expiration.is_some(),
        b"correlation-id" => properties.correlation_id.is_some(),
        b"content-encoding" => properties.content_encoding.is_some(),
        b"content-type" => properties.content_type.is_some(),
        b"reply-to" => properties.reply_to.is_some(),
        b"timestamp" => properties.timestamp.is_some(),
        b"priority" => properties.priority.is_some(),
        b"persistent" => properties.delivery_mode.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
