//! What goes wrong in a session: the ERROR frame for it, and whether the connection goes on.
//!
//! STOMP's texts close after every ERROR. RabbitMQ closes after some, and clients go on after the others; so do
//! we, error by error. Each constructor is one error with the words that clients of RabbitMQ know.

use std::borrow::Cow;
use std::fmt::Display;

use broker_core::Refusal;
use broker_core::storage::StorageError;
use proto_amqp::ReplyCode;
use proto_stomp::{Command, FrameEnd, FrameError, FrameWriter, Version};

use crate::node::BURIED_TOO_LATE;

/// What becomes of the connection after an ERROR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    Close,
}

/// An ERROR frame, on its way to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StompError {
    message: Cow<'static, str>,
    detail: String,
    subscription: Option<Box<[u8]>>,
    then: Then,
}

fn text(octets: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(octets)
}

impl StompError {
    fn open(message: &'static str, detail: impl Into<String>) -> Self {
        let (message, detail) = (Cow::Borrowed(message), detail.into());
        Self { message, detail, subscription: None, then: Then::GoOn }
    }

    fn closing(message: &'static str, detail: impl Into<String>) -> Self {
        Self { then: Then::Close, ..Self::open(message, detail) }
    }

    /// The `message` header.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The body.
    #[cfg(test)]
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) const fn then(&self) -> Then {
        self.then
    }

    /// Appends the frame; `receipt` is the `receipt` header of the frame that failed.
    // spec: stomp-1.2 ERROR "receipt-id". RabbitMQ: leaves it out.
    pub(super) fn write(&self, receipt: Option<&[u8]>, out: &mut Vec<u8>, end: FrameEnd) {
        let mut frame = FrameWriter::begin(out, Command::Error);
        frame.header(b"message", self.message.as_bytes());
        frame.header_raw(b"content-type", b"text/plain");
        frame.header_raw(b"version", Version::SUPPORTED.as_bytes());
        if let Some(subscription) = &self.subscription {
            frame.header(b"subscription", subscription);
        }
        if let Some(receipt) = receipt {
            frame.header(b"receipt-id", receipt);
        }
        frame.finish(self.detail.as_bytes(), end);
    }

    // ---- frames and login ----

    /// Octets that are no frame: nothing after them can be understood.
    // RabbitMQ: closes without a word; the texts want one.
    pub(super) fn malformed(error: &FrameError) -> Self {
        Self::closing(error.message(), format!("{error}\n"))
    }

    pub(super) fn unknown_command(word: &[u8]) -> Self {
        let word = text(word);
        Self::open("Bad command", format!("Could not interpret command \"{word}\"\n"))
    }

    // RabbitMQ goes on: then a stranger can have an ERROR for every four octets, and need not read one.
    pub(super) fn not_logged_in() -> Self {
        Self::closing("Illegal command", "You must log in using CONNECT first")
    }

    // RabbitMQ: closes without a word.
    pub(super) fn logged_in_already() -> Self {
        Self::closing("Illegal command", "You are logged in already")
    }

    // RabbitMQ goes on after a failed CONNECT; the texts close, and no client does anything else with it.
    pub(super) fn no_common_version() -> Self {
        let supported = Version::SUPPORTED;
        Self::closing("Version mismatch", format!("Supported versions are {supported}\n"))
    }

    pub(super) fn wrong_credentials(user: &[u8]) -> Self {
        Self::closing("Bad CONNECT", format!("Access refused for user '{}'\n", text(user)))
    }

    pub(super) fn wrong_vhost(vhost: &[u8]) -> Self {
        Self::closing("Bad CONNECT", format!("Virtual host '{}' access denied", text(vhost)))
    }

    pub(super) fn not_from_loopback() -> Self {
        Self::closing("Bad CONNECT", "non-loopback access denied")
    }

    pub(super) fn no_credentials() -> Self {
        Self::closing("Bad CONNECT", "Missing login or passcode header(s)")
    }

    pub(super) fn malformed_heart_beat() -> Self {
        Self::closing("Processing error", "Processing error")
    }

    // ---- headers ----

    /// A header that is not the number it has to be, and other values that RabbitMQ stumbles over.
    pub(super) fn processing() -> Self {
        Self::open("Processing error", "Processing error")
    }

    pub(super) fn forbidden_header(name: &str, command: Command) -> Self {
        Self::open("Invalid header", format!("'{name}' is not allowed on '{command}'.\n"))
    }

    pub(super) fn header_too_long(name: &[u8]) -> Self {
        let name = text(name);
        Self::open("Invalid header", format!("'{name}' has more than 255 octets.\n"))
    }

    /// A header that changes what a SUBSCRIBE means, in a way that the broker cannot.
    pub(super) fn unsupported_header(name: &str) -> Self {
        Self::open("Invalid header", format!("'{name}' is not supported on 'SUBSCRIBE'.\n"))
    }

    // ---- destinations ----

    pub(super) fn missing_destination(command: Command) -> Self {
        let detail = format!("\"{command}\" must include a 'destination' header\n");
        Self::open("Missing destination", detail)
    }

    pub(super) fn blank_destination() -> Self {
        Self::open("Invalid destination", "Destination cannot be blank")
    }

    pub(super) fn invalid_destination(kind: &str, rest: &[u8]) -> Self {
        let rest = text(rest);
        let detail = format!("'{rest}' is not a valid {kind} destination\n");
        Self::open("Invalid destination", detail)
    }

    pub(super) fn unknown_destination(destination: &[u8]) -> Self {
        let destination = text(destination);
        let detail = format!(
            "'{destination}' is not a valid destination.\nValid destination types are: \
             /temp-queue, /exchange, /topic, /queue, /amq/queue, /reply-queue/.\n"
        );
        Self::open("Unknown destination", detail)
    }

    pub(super) fn destination_not_for(destination: &[u8], command: Command) -> Self {
        let destination = text(destination);
        let detail = format!("'{destination}' is not a valid destination for '{command}'\n");
        Self::open("Invalid destination", detail)
    }

    // ---- subscriptions ----

    pub(super) fn missing_id_for_durable() -> Self {
        Self::open("Missing Header", "Header 'id' is required for durable subscriptions")
    }

    pub(super) fn duplicate_subscription(consumer_tag: &[u8]) -> Self {
        let tag = text(consumer_tag);
        let detail = format!("A subscription identified by '{tag}' already exists.");
        Self::closing("Duplicated subscription identifier", detail)
    }

    pub(super) fn too_many_subscriptions(limit: u32) -> Self {
        let detail = format!("Too many subscriptions (limit {limit})\n");
        Self::open("Subscription limit exceeded", detail)
    }

    pub(super) fn temp_queue_id() -> Self {
        let detail = "UNSUBSCRIBE 'id' may not start with /temp-queue/\n";
        Self::open("Invalid id", detail)
    }

    pub(super) fn no_such_subscription(description: &str) -> Self {
        let detail = format!(
            "UNSUBSCRIBE must refer to an existing subscription.\n\
             Subscription to \"{description}\" not found.\n"
        );
        Self::open("No subscription found", detail)
    }

    pub(super) fn missing_destination_or_id() -> Self {
        let detail = "UNSUBSCRIBE must include a 'destination' or 'id' header";
        Self::open("Missing destination or id", detail)
    }

    /// The queue of a subscription is gone.
    pub(super) fn cancelled(description: &str, id: Option<&[u8]>) -> Self {
        let detail = format!(
            "The server has canceled a subscription.\n\
             No more messages will be delivered for \"{description}\".\n"
        );
        let subscription = id.map(Into::into);
        Self { subscription, ..Self::open("Server cancelled subscription", detail) }
    }

    // ---- acknowledgements ----

    pub(super) fn missing_message_id(command: Command, header: &str) -> Self {
        let detail = format!("\"{command}\" must include the \"{header}\" header\n");
        Self::open("Missing header", detail)
    }

    pub(super) fn invalid_message_id(command: Command, header: &str) -> Self {
        let detail = format!("\"{command}\" must include a valid \"{header}\" header\n");
        Self::open("Invalid header", detail)
    }

    pub(super) fn no_subscription_of(message_id: &[u8]) -> Self {
        let id = text(message_id);
        let detail = format!("Message with id \"{id}\" has no subscription");
        Self::open("Subscription not found", detail)
    }

    pub(super) fn unknown_delivery_tag(tag: u64) -> Self {
        Self::open("Message not found", format!("unknown delivery tag {tag}\n"))
    }

    // ---- transactions ----

    pub(super) fn missing_transaction(command: Command) -> Self {
        let detail = format!("\"{command}\" must include a 'transaction' header\n");
        Self::open("Missing transaction", detail)
    }

    pub(super) fn unknown_transaction(name: &[u8]) -> Self {
        let name = text(name);
        Self::open("Bad transaction", format!("Invalid transaction identifier: \"{name}\"\n"))
    }

    // RabbitMQ: empties the one that is open without a word.
    pub(super) fn transaction_exists(name: &[u8]) -> Self {
        let name = text(name);
        Self::open("Bad transaction", format!("Transaction \"{name}\" is open already\n"))
    }

    pub(super) fn too_many_transactions(limit: u32) -> Self {
        let detail = format!("Too many concurrent transactions (limit {limit})");
        Self::open("Transaction limit exceeded", detail)
    }

    pub(super) fn too_many_actions(limit: u32) -> Self {
        let detail = format!("Too many actions in transaction (limit {limit})");
        Self::open("Transaction too large", detail)
    }

    pub(super) fn transactions_too_large(limit: impl Display) -> Self {
        let detail = format!("Too many octets in open transactions (limit {limit})");
        Self::open("Transaction too large", detail)
    }

    // ---- what AMQP has a reply code for ----

    fn reply(code: ReplyCode, detail: impl Display) -> Self {
        let message = Cow::Owned(code.name().to_ascii_lowercase());
        let detail = format!("{} - {detail}", code.name());
        Self { message, detail, subscription: None, then: Then::Close }
    }

    pub(super) fn precondition(detail: impl Display) -> Self {
        Self::reply(ReplyCode::PRECONDITION_FAILED, detail)
    }

    /// Some of a transaction's messages were refused by a queue that is full.
    pub(super) fn partial_commit() -> Self {
        Self::precondition("partial tx completion")
    }

    /// A queue that is full refused a message for which a receipt was asked.
    // RabbitMQ: withholds the receipt and says nothing, or closes.
    pub(super) fn rejected() -> Self {
        Self::open("Message rejected", "A queue that the message was routed to is full.\n")
    }

    /// The log takes no transaction.
    pub(super) fn not_committed(reason: &str) -> Self {
        Self::precondition(format!("not committed: {reason}"))
    }

    /// Receipts wait for a log that cannot be written any more.
    pub(super) fn log_lost() -> Self {
        Self::precondition(format!("not kept: {}", StorageError::LOST))
    }

    /// The rejected messages of which a receipt speaks come to no end.
    pub(super) fn buried_too_late() -> Self {
        Self::precondition(BURIED_TOO_LATE)
    }

    /// The log takes no messages.
    pub(super) fn not_kept(reason: &str) -> Self {
        Self::open("Message not kept", format!("The message was not kept: {reason}.\n"))
    }

    pub(super) fn forced(reason: &str) -> Self {
        Self::reply(ReplyCode::CONNECTION_FORCED, reason)
    }

    /// A request that the core refuses. Exhaustive on purpose: a new refusal does not compile until it has
    /// a `message`.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::NotFound { .. } => ReplyCode::NOT_FOUND,
            Refusal::DefaultExchange
            | Refusal::ReservedPrefix { .. }
            | Refusal::SystemExchange { .. }
            | Refusal::InternalExchange { .. }
            | Refusal::ExclusiveUse { .. }
            | Refusal::Access { .. } => ReplyCode::ACCESS_REFUSED,
            Refusal::UnknownExchangeType { .. } => ReplyCode::COMMAND_INVALID,
            Refusal::Inequivalent { .. }
            | Refusal::InvalidArgument { .. }
            | Refusal::InvalidProperty { .. }
            | Refusal::ServerNamed { .. }
            | Refusal::InvalidArgumentType { .. }
            | Refusal::InvalidMatch { .. }
            | Refusal::InUse { .. }
            | Refusal::NotEmpty { .. }
            | Refusal::NotKept { .. } => ReplyCode::PRECONDITION_FAILED,
            Refusal::Locked { .. } => ReplyCode::RESOURCE_LOCKED,
            Refusal::ConditionalDelete { .. } => ReplyCode::NOT_IMPLEMENTED,
        };
        Self::reply(code, refusal)
    }
}

impl From<Refusal> for StompError {
    fn from(refusal: Refusal) -> Self {
        Self::refused(&refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broker_core::Resource;
    use broker_core::name::{ExchangeName, UserName, VhostName};

    fn written(error: &StompError, receipt: Option<&[u8]>) -> String {
        let mut out = Vec::new();
        error.write(receipt, &mut out, FrameEnd::NulLf);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_stand_in_the_known_order_and_the_detail_is_the_body() {
        assert_eq!(
            written(&StompError::not_logged_in(), None),
            "ERROR\nmessage:Illegal command\ncontent-type:text/plain\nversion:1.0,1.1,1.2\n\
             content-length:35\n\nYou must log in using CONNECT first\0\n"
        );
        assert_eq!(
            written(&StompError::cancelled("id='7'", Some(b"7")), Some(b"r:1")),
            "ERROR\nmessage:Server cancelled subscription\ncontent-type:text/plain\n\
             version:1.0,1.1,1.2\nsubscription:7\nreceipt-id:r\\c1\ncontent-length:89\n\n\
             The server has canceled a subscription.\n\
             No more messages will be delivered for \"id='7'\".\n\0\n"
        );
    }

    #[test]
    fn a_refusal_of_the_core_is_named_as_its_reply_code_and_closes() {
        let exchange = Resource::Exchange(ExchangeName::new("x").unwrap());
        let (vhost, user) = (VhostName::new("/").unwrap(), UserName::new("u").unwrap());
        let missing = Refusal::NotFound { resource: exchange.clone(), vhost: vhost.clone() };
        let error = StompError::from(missing);
        assert_eq!(error.message(), "not_found");
        assert_eq!(error.detail(), "NOT_FOUND - no exchange 'x' in vhost '/'");
        assert_eq!(error.then(), Then::Close);
        let error = StompError::from(Refusal::Access { resource: exchange, vhost, user });
        assert_eq!(error.message(), "access_refused");
        assert_eq!(
            error.detail(),
            "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'"
        );
    }
}
