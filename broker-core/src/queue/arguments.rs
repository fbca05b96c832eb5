//! The `x-…` arguments of a queue, checked and parsed once, when the queue is declared.
//!
//! Arguments that no classic queue knows are kept and shown but have no effect and are never compared,
//! as in RabbitMQ. Known ones are either honoured or refused: none is silently ignored.

use crate::arguments::{Arguments, Value};
use crate::name::ExchangeName;

/// The longest message TTL and queue expiry, in milliseconds: ten years of 365 days.
pub const TTL_MAX: i64 = 315_360_000_000;

/// What happens to a message that does not fit into a queue (`x-overflow`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Messages at the head make room.
    #[default]
    DropHead,
    /// The new message is refused: `basic.nack` for a publisher that confirms.
    RejectPublish,
    /// The same, and the refused message is dead-lettered.
    RejectPublishDeadLetter,
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterTarget {
    /// `x-dead-letter-exchange`
    pub exchange: ExchangeName,
    /// `x-dead-letter-routing-key`; the message's own keys when absent.
    pub routing_key: Option<Box<[u8]>>,
}

/// A queue's arguments in types.
#[derive(Debug, Clone, Default)]
pub struct QueueArguments {
    /// `x-message-ttl`, milliseconds.
    pub message_ttl: Option<u64>,
    /// `x-expires`, milliseconds.
    pub expires: Option<u64>,
    /// `x-max-length`, ready messages.
    pub max_length: Option<u64>,
    /// `x-max-length-bytes`, octets of ready bodies.
    pub max_length_bytes: Option<u64>,
    /// `x-overflow`
    pub overflow: Overflow,
    /// `x-dead-letter-exchange` and `x-dead-letter-routing-key`
    pub dead_letter: Option<DeadLetterTarget>,
    /// `x-max-priority`: the highest level.
    pub max_priority: Option<u8>,
    /// `x-single-active-consumer`
    pub single_active_consumer: bool,
    /// `x-queue-type`
    pub queue_type: QueueType,
    /// `x-delivery-limit`: how often a message may come back (quorum type only).
    pub delivery_limit: Option<u64>,
}

/// `x-queue-type`. On a single node a quorum queue is a durable queue with stricter declarations and a
/// delivery limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueType {
    /// The default.
    #[default]
    Classic,
    /// Durable, shared, not auto-deleted.
    Quorum,
}

impl QueueType {
    /// The word in `x-queue-type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }
}

/// Why an argument is refused; the `Display` text is what stands behind `invalid arg '<key>' for …: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidArgument {
    /// The argument's name.
    pub key: Box<str>,
    /// What is wrong with it, in RabbitMQ's words where it has any.
    pub reason: String,
}

/// Arguments that redeclaration compares.
pub const COMPARED: [&str; 13] = [
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-delivery-limit",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-message-ttl",
    "x-overflow",
    "x-queue-mode",
    "x-queue-type",
    "x-queue-version",
    "x-single-active-consumer",
];

impl QueueArguments {
    /// Whether the queue refuses messages when it is full, instead of dropping older ones.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.overflow != Overflow::DropHead
            && (self.max_length.is_some() || self.max_length_bytes.is_some())
    }

    /// Reads the arguments of a classic queue.
    ///
    /// # Errors
    /// [`InvalidArgument`] for the first argument with a wrong type or a value out of its bounds.
    pub fn parse(arguments: &Arguments) -> Result<Self, InvalidArgument> {
        let mut parsed = Self::default();
        for (key, value) in arguments.iter() {
            parsed.set(key, value).map_err(|reason| InvalidArgument { key: key.into(), reason })?;
        }
        if parsed.queue_type == QueueType::Classic && arguments.get("x-delivery-limit").is_some() {
            return Err(InvalidArgument {
                key: "x-delivery-limit".into(),
                reason: "needs queue type quorum".to_owned(),
            });
        }
        if let Some(key) = arguments.get("x-dead-letter-routing-key") {
            match &mut parsed.dead_letter {
                Some(target) => {
                    target.routing_key = key.as_text().map(|text| text.as_bytes().into());
                }
                None => {
                    return Err(InvalidArgument {
                        key: "x-dead-letter-routing-key".into(),
                        reason: "routing_key_but_no_dlx_defined".to_owned(),
                    });
                }
            }
        }
        Ok(parsed)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "x-message-ttl" => self.message_ttl = Some(milliseconds(value, 0)?),
            "x-expires" => self.expires = Some(milliseconds(value, 1)?),
            "x-max-length" => self.max_length = Some(not_negative(value)?),
            "x-max-length-bytes" => self.max_length_bytes = Some(not_negative(value)?),
            "x-overflow" => {
                self.overflow = match text(value)? {
                    "drop-head" => Overflow::DropHead,
                    "reject-publish" => Overflow::RejectPublish,
                    "reject-publish-dlx" => Overflow::RejectPublishDeadLetter,
                    _ => return Err("invalid_overflow".to_owned()),
                }
            }
            "x-dead-letter-exchange" => {
                let exchange =
                    ExchangeName::new(text(value)?).map_err(|error| error.to_string())?;
                self.dead_letter = Some(DeadLetterTarget { exchange, routing_key: None });
            }
            "x-dead-letter-routing-key" => {
                text(value)?;
            }
            "x-max-priority" => {
                let level = not_negative(value)?;
                self.max_priority = Some(
                    u8::try_from(level).map_err(|_| format!("{{max_value_exceeded,{level}}}"))?,
                );
            }
            "x-single-active-consumer" => match value {
                Value::Bool(single) => self.single_active_consumer = *single,
                other => return Err(unacceptable(other)),
            },
            "x-queue-type" => match text(value)? {
                "classic" => {}
                "quorum" => self.queue_type = QueueType::Quorum,
                other => return Err(format!("\"unsupported queue type '{other}'\"")),
            },
            "x-queue-mode" => match text(value)? {
                "default" | "lazy" => {}
                other => return Err(format!("\"unsupported queue mode '{other}'\"")),
            },
            "x-queue-version" => match integer(value)? {
                1 | 2 => {}
                other => return Err(format!("\"unsupported queue version '{other}'\"")),
            },
            "x-delivery-limit" => {
                let limit = integer(value)?;
                // RabbitMQ: -1 is no limit.
                self.delivery_limit = u64::try_from(limit).ok();
            }
            "x-initial-cluster-size"
            | "x-dead-letter-strategy"
            | "x-max-in-memory-length"
            | "x-max-in-memory-bytes"
            | "x-max-age"
            | "x-stream-max-segment-size-bytes"
            | "x-stream-filter-size-bytes"
            | "x-consumer-timeout" => {
                return Err("not supported".to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads a consumer's `x-priority`.
///
/// # Errors
/// [`InvalidArgument`] when it is not an integer.
pub fn consumer_priority(arguments: &Arguments) -> Result<i64, InvalidArgument> {
    arguments
        .get("x-priority")
        .map_or(Ok(0), integer)
        .map_err(|reason| InvalidArgument { key: "x-priority".into(), reason })
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| format!("\"expected integer, got {}\"", value.type_name()))
}

fn not_negative(value: &Value) -> Result<u64, String> {
    let number = integer(value)?;
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn milliseconds(value: &Value, min: i64) -> Result<u64, String> {
    let number = integer(value)?;
    if number > TTL_MAX {
        return Err(format!("{{value_too_large,{number}}}"));
    }
    if number == 0 && min > 0 {
        return Err(format!("{{value_zero,{number}}}"));
    }
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_text().ok_or_else(|| unacceptable(value))
}

fn unacceptable(value: &Value) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_one(key: &str, value: Value) -> Result<QueueArguments, String> {
        let arguments: Arguments = [(key.into(), value)].into_iter().collect();
        QueueArguments::parse(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn refused_arguments_say_why_in_the_known_words() {
        let check = |key: &str, value: Value, reason: &str| {
            assert_eq!(parse_one(key, value).err().as_deref(), Some(reason), "{key}");
        };
        check("x-message-ttl", Value::SignedInt(-1), "{value_negative,-1}");
        check("x-message-ttl", Value::text("5"), "\"expected integer, got longstr\"");
        check("x-message-ttl", Value::Long(TTL_MAX + 1), "{value_too_large,315360000001}");
        check("x-expires", Value::Byte(0), "{value_zero,0}");
        check("x-max-length", Value::Long(-1), "{value_negative,-1}");
        check("x-max-priority", Value::Short(256), "{max_value_exceeded,256}");
        check("x-overflow", Value::text("drop"), "invalid_overflow");
        check("x-single-active-consumer", Value::text("true"), "{unacceptable_type,longstr}");
        check("x-dead-letter-routing-key", Value::text("k"), "routing_key_but_no_dlx_defined");
        check("x-queue-type", Value::text("foo"), "\"unsupported queue type 'foo'\"");
        check("x-queue-version", Value::Long(3), "\"unsupported queue version '3'\"");
    }

    #[test]
    fn unknown_arguments_are_accepted() {
        assert!(parse_one("x-foo", Value::Void).is_ok());
    }
}
