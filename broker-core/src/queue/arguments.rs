//! The `x-…` arguments of a queue, checked and parsed once, when the queue is declared, and those of a consumer.
//!
//! Each type of queue knows its arguments; what another type knows is refused. Arguments that no queue knows are kept
//! and shown but have no effect and are never compared, as in RabbitMQ. Of the known ones, those that say on which node
//! a queue shall live, on how many, and how much of it in memory, are checked and have nothing to change on a single
//! node; all others are either honoured or refused: none is silently ignored.

use std::fmt;

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
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Quorum];

    /// The word in `x-queue-type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// The type that the arguments of a declaration ask for.
    ///
    /// # Errors
    /// [`InvalidArgument`] when there is no such type.
    pub fn of(arguments: &Arguments) -> Result<Self, InvalidArgument> {
        let Some(value) = arguments.get("x-queue-type") else { return Ok(Self::default()) };
        let found = text(value).and_then(|word| {
            let found = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
            found.ok_or_else(|| format!("\"unsupported queue type '{word}'\""))
        });
        found.map_err(|reason| InvalidArgument::value("x-queue-type", reason))
    }

    /// The arguments that a queue of this type knows, in the order in which RabbitMQ checks and compares them.
    #[must_use]
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Classic => &[
                "x-expires",
                "x-message-ttl",
                "x-dead-letter-exchange",
                "x-dead-letter-routing-key",
                "x-max-length",
                "x-max-length-bytes",
                "x-max-priority",
                "x-overflow",
                "x-queue-mode",
                "x-queue-version",
                "x-single-active-consumer",
                "x-queue-type",
                "x-queue-master-locator",
                // RabbitMQ: since 4.0.
                "x-queue-leader-locator",
            ],
            Self::Quorum => &[
                "x-dead-letter-exchange",
                "x-dead-letter-routing-key",
                "x-dead-letter-strategy",
                "x-expires",
                "x-max-length",
                "x-max-length-bytes",
                "x-max-in-memory-length",
                "x-max-in-memory-bytes",
                "x-overflow",
                "x-single-active-consumer",
                "x-queue-type",
                "x-quorum-initial-group-size",
                "x-delivery-limit",
                "x-message-ttl",
                "x-queue-leader-locator",
                "x-consumer-timeout",
            ],
        }
    }

    /// Those of a queue's arguments that its type knows, in that order.
    fn known(self, arguments: &Arguments) -> impl Iterator<Item = (&'static str, &Value)> {
        self.arguments().iter().filter_map(|key| Some((*key, arguments.get(key)?)))
    }

    /// Whether an argument is one that only queues of other types know.
    fn lacks(self, key: &str) -> bool {
        let known = Self::ALL.iter().any(|kind| kind.arguments().contains(&key));
        (known || STREAM_ARGUMENTS.contains(&key)) && !self.arguments().contains(&key)
    }
}

/// As in RabbitMQ's texts.
impl fmt::Display for QueueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rabbit_{}_queue", self.as_str())
    }
}

/// Arguments of streams, which Warren does not have.
const STREAM_ARGUMENTS: [&str; 4] = [
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-filter-size-bytes",
    "x-stream-max-segment-size-bytes",
];

/// What is wrong with an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Its type or value; in RabbitMQ's words where it has any.
    Value(String),
    /// It is there at all: queues of this type do not know it.
    QueueType(QueueType),
}

/// The text that stands behind `invalid arg '<key>' for queue '<name>' in vhost '<vhost>'`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(reason) => write!(f, ": {reason}"),
            Self::QueueType(kind) => write!(f, " of queue type {kind}"),
        }
    }
}

/// Why the arguments of a queue or of a consumer are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid arg '{key}'{fault}")]
pub struct InvalidArgument {
    /// The argument's name.
    pub key: Box<str>,
    /// What is wrong with it.
    pub fault: Fault,
}

impl InvalidArgument {
    fn value(key: &str, reason: String) -> Self {
        Self { key: key.into(), fault: Fault::Value(reason) }
    }
}

impl QueueArguments {
    /// Whether the queue refuses messages when it is full, instead of dropping older ones.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.overflow != Overflow::DropHead
            && (self.max_length.is_some() || self.max_length_bytes.is_some())
    }

    /// Reads the arguments of a queue.
    ///
    /// # Errors
    /// [`InvalidArgument`] for the first argument with a wrong type or a value out of its bounds, then for the first
    /// that only queues of other types know.
    pub fn parse(arguments: &Arguments) -> Result<Self, InvalidArgument> {
        let queue_type = QueueType::of(arguments)?;
        let mut parsed = Self { queue_type, ..Self::default() };
        for (key, value) in queue_type.known(arguments) {
            parsed.set(key, value).map_err(|reason| InvalidArgument::value(key, reason))?;
        }
        match arguments.iter().find(|(key, _)| queue_type.lacks(key)) {
            None => Ok(parsed),
            Some((key, _)) => {
                Err(InvalidArgument { key: key.into(), fault: Fault::QueueType(queue_type) })
            }
        }
    }

    /// Reads the arguments of a queue that was declared earlier, perhaps to a version that refused less: those that
    /// only queues of other types know mean nothing, and one that would be refused now costs none of the others. Gives
    /// what it would be refused with too.
    pub(crate) fn kept(arguments: &Arguments) -> (Self, Vec<InvalidArgument>) {
        let mut complaints = Vec::new();
        let queue_type = QueueType::of(arguments).unwrap_or_else(|invalid| {
            complaints.push(invalid);
            QueueType::default()
        });
        let mut parsed = Self { queue_type, ..Self::default() };
        for (key, value) in queue_type.known(arguments) {
            if let Err(reason) = parsed.set(key, value) {
                complaints.push(InvalidArgument::value(key, reason));
            }
        }
        (parsed, complaints)
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
                let key = text(value)?;
                let target = self.dead_letter.as_mut().ok_or("routing_key_but_no_dlx_defined")?;
                target.routing_key = Some(key.as_bytes().into());
            }
            "x-dead-letter-strategy" => match text(value)? {
                "at-most-once" => {}
                // A dead letter that no queue takes would have to be kept.
                "at-least-once" => return Err("\"at-least-once is not supported\"".to_owned()),
                _ => return Err("invalid_dlx_strategy".to_owned()),
            },
            "x-max-priority" => {
                let level = not_negative(value)?;
                self.max_priority = Some(
                    u8::try_from(level).map_err(|_| format!("{{max_value_exceeded,{level}}}"))?,
                );
            }
            "x-single-active-consumer" => self.single_active_consumer = boolean(value)?,
            "x-queue-mode" => match text(value)? {
                "default" | "lazy" => {}
                other => return Err(format!("\"unsupported queue mode '{other}'\"")),
            },
            "x-queue-version" => match not_negative(value)? {
                1 | 2 => {}
                other => return Err(format!("\"unsupported queue version '{other}'\"")),
            },
            "x-delivery-limit" => {
                let limit = integer(value)?;
                // RabbitMQ: -1 is no limit.
                self.delivery_limit = u64::try_from(limit).ok();
            }
            "x-max-in-memory-length" | "x-max-in-memory-bytes" => {
                not_negative(value)?;
            }
            "x-quorum-initial-group-size" => {
                positive(value)?;
            }
            // There is one node to choose from: what any version of either knows is taken.
            "x-queue-master-locator" | "x-queue-leader-locator" => locator(value)?,
            "x-consumer-timeout" => return Err("not supported".to_owned()),
            _ => {}
        }
        Ok(())
    }
}

/// Reads the arguments of a consumer of a queue of this type: gives its `x-priority`, 0 when it has none.
///
/// # Errors
/// [`InvalidArgument`] for one with a wrong type, or that such a queue does not know.
pub fn consumer_priority(
    arguments: &Arguments,
    queue_type: QueueType,
) -> Result<i64, InvalidArgument> {
    let priority = arguments.get("x-priority").map_or(Ok(0), integer);
    let priority = priority.map_err(|reason| InvalidArgument::value("x-priority", reason))?;
    let unknown =
        |key: &str| InvalidArgument { key: key.into(), fault: Fault::QueueType(queue_type) };
    // Of mirrored queues. Nothing fails over here, so that it has nothing to change.
    const FAILOVER: &str = "x-cancel-on-ha-failover";
    match (arguments.get(FAILOVER), queue_type) {
        (None, _) => {}
        (Some(_), QueueType::Quorum) => return Err(unknown(FAILOVER)),
        (Some(value), QueueType::Classic) => {
            boolean(value).map_err(|reason| InvalidArgument::value(FAILOVER, reason))?;
        }
    }
    match arguments.get("x-stream-offset") {
        None => Ok(priority),
        Some(_) => Err(unknown("x-stream-offset")),
    }
}

fn integer(value: &Value) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| format!("\"expected integer, got {}\"", value.type_name()))
}

fn not_negative(value: &Value) -> Result<u64, String> {
    let number = integer(value)?;
    u64::try_from(number).map_err(|_| format!("{{value_negative,{number}}}"))
}

fn positive(value: &Value) -> Result<u64, String> {
    match not_negative(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        number => Ok(number),
    }
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

fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(value) => Ok(*value),
        other => Err(unacceptable(other)),
    }
}

/// A word for a node on which the queue shall live.
fn locator(value: &Value) -> Result<(), String> {
    match text(value)? {
        "balanced" | "client-local" | "least-leaders" | "min-masters" | "random" => Ok(()),
        _ => Err("invalid_queue_locator_arg".to_owned()),
    }
}

fn unacceptable(value: &Value) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

#[cfg(test)]
mod tests;
