//! Why a request cannot be granted: which resource, which property, which values.
//!
//! The `Display` texts are those that clients of RabbitMQ know and search for, without the reply code's
//! name in front. Each protocol maps the variants to its own codes, exhaustively.

use crate::name::{ExchangeName, QueueName, UserName, VhostName};
use crate::queue::arguments::{Fault, QueueType};
use crate::storage::StorageError;

/// A queue or an exchange, as it stands in error texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A queue.
    Queue(QueueName),
    /// An exchange.
    Exchange(ExchangeName),
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue '{name}'"),
            Self::Exchange(name) => write!(f, "exchange '{name}'"),
        }
    }
}

/// Why a declaration, binding, deletion, subscription or publication is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The queue or the exchange does not exist.
    #[error("no {resource} in vhost '{vhost}'")]
    NotFound {
        /// What was looked for.
        resource: Resource,
        /// Where.
        vhost: VhostName,
    },
    /// The default exchange cannot be declared, deleted or bound.
    #[error("operation not permitted on the default exchange")]
    DefaultExchange,
    /// Names that begin with `amq.` belong to the broker.
    #[error("{kind} name '{name}' contains reserved prefix 'amq.*'")]
    ReservedPrefix {
        /// `queue` or `exchange`.
        kind: &'static str,
        /// The refused name.
        name: String,
    },
    /// The predeclared exchanges stay.
    #[error("deletion of system exchange '{exchange}' in vhost '{vhost}' not allowed")]
    SystemExchange {
        /// The exchange.
        exchange: ExchangeName,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// Clients do not publish to internal exchanges.
    #[error("cannot publish to internal exchange '{exchange}' in vhost '{vhost}'")]
    InternalExchange {
        /// The exchange.
        exchange: ExchangeName,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// No such type of exchange.
    #[error("unknown exchange type '{kind}'")]
    UnknownExchangeType {
        /// The word that was given.
        kind: String,
    },
    /// It exists, with other properties.
    #[error(
        "inequivalent arg '{property}' for {resource} in vhost '{vhost}': received {received} but current is {current}"
    )]
    Inequivalent {
        /// The property that differs.
        property: String,
        /// What was declared again.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
        /// The new value, as it stands in the text.
        received: String,
        /// The value that it has.
        current: String,
    },
    /// An argument has a wrong type or value, or the type of the queue does not know it.
    #[error("invalid arg '{key}' for {resource} in vhost '{vhost}'{fault}")]
    InvalidArgument {
        /// The argument.
        key: String,
        /// What is declared or consumed.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
        /// What is wrong.
        fault: Fault,
    },
    /// Queues of this type are named by those who declare them.
    #[error("Cannot declare a server-named queue for type {queue_type}")]
    ServerNamed {
        /// The type.
        queue_type: QueueType,
    },
    /// Queues of this type are deleted without conditions.
    #[error(
        "cannot delete queue '{queue}' in vhost '{vhost}'. queue.delete operations with {condition} flag set are not supported by {queue_type} queues"
    )]
    ConditionalDelete {
        /// `if-unused` or `if-empty`.
        condition: &'static str,
        /// The queue.
        queue: QueueName,
        /// Its virtual host.
        vhost: VhostName,
        /// The word for its type.
        queue_type: &'static str,
    },
    /// A property that this type of queue cannot have.
    #[error("invalid property '{property}' for {resource} in vhost '{vhost}'")]
    InvalidProperty {
        /// The property.
        property: &'static str,
        /// The queue.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// An argument that names an exchange is not a string.
    #[error("invalid type '{kind}' for arg '{key}' in {resource} in vhost '{vhost}'")]
    InvalidArgumentType {
        /// The type that was given.
        kind: &'static str,
        /// The argument.
        key: &'static str,
        /// What is declared.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// A headers binding says something else than it can.
    #[error("{reason}")]
    InvalidMatch {
        /// What is wrong with `x-match`.
        reason: String,
    },
    /// The queue is exclusive to another connection.
    #[error(
        "cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'. It could be originally declared on another connection or the exclusive property value does not match that of the original declaration."
    )]
    Locked {
        /// The queue.
        queue: QueueName,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// `if-unused` was asked for.
    #[error("{resource} in vhost '{vhost}' in use")]
    InUse {
        /// What is used.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// `if-empty` was asked for.
    #[error("queue '{queue}' in vhost '{vhost}' not empty")]
    NotEmpty {
        /// The queue.
        queue: QueueName,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// An exclusive consumer is there, or wants to be.
    #[error("queue '{queue}' in vhost '{vhost}' in exclusive use")]
    ExclusiveUse {
        /// The queue.
        queue: QueueName,
        /// Its virtual host.
        vhost: VhostName,
    },
    /// The log takes nothing: the disk is full or does not work.
    #[error("cannot be kept: {reason}")]
    NotKept {
        /// What the store says.
        reason: String,
    },
    /// The user may not do this.
    #[error("access to {resource} in vhost '{vhost}' refused for user '{user}'")]
    Access {
        /// What was asked for.
        resource: Resource,
        /// Its virtual host.
        vhost: VhostName,
        /// Who asked.
        user: UserName,
    },
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        Self::NotKept { reason: error.for_peers().to_owned() }
    }
}
