//! What goes wrong on a connection, how much of it dies, and with which reply code.

use broker_core::Refusal;
use proto_amqp::{ContentError, MethodError, MethodId, PropertiesError, ReplyCode, reply_text};

/// A reply code with its text, on its way into `channel.close` or `connection.close`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exception {
    pub(super) code: ReplyCode,
    /// The text behind the code's name.
    pub(super) detail: String,
    /// The method that failed; 0,0 where none is to blame.
    pub(super) method: MethodId,
    /// Closes the connection even if the code alone would only close a channel.
    pub(super) hard: bool,
}

impl Exception {
    pub(super) fn new(code: ReplyCode, detail: impl Into<String>, method: MethodId) -> Self {
        Self { code, detail: detail.into(), method, hard: code.is_hard() }
    }

    pub(super) fn text(&self) -> String {
        reply_text(self.code, &self.detail)
    }

    /// A request that the core refuses. Exhaustive on purpose: a new refusal does not compile until it
    /// has a reply code.
    pub(super) fn refused(refusal: &Refusal, method: MethodId) -> Self {
        let code = match refusal {
            Refusal::NotFound { .. } => ReplyCode::NOT_FOUND,
            Refusal::DefaultExchange
            | Refusal::ReservedPrefix { .. }
            | Refusal::SystemExchange { .. }
            | Refusal::InternalExchange { .. }
            | Refusal::ExclusiveUse { .. }
            | Refusal::Access { .. } => ReplyCode::ACCESS_REFUSED,
            // RabbitMQ: 503, which closes the connection; the text of the specification agrees.
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
        Self::new(code, refusal.to_string(), method)
    }

    pub(super) fn malformed_method(error: &MethodError) -> Self {
        Self { hard: true, ..Self::new(error.code(), error.detail(), error.close_id()) }
    }

    pub(super) fn malformed_content(error: &ContentError) -> Self {
        Self { hard: true, ..Self::new(error.code(), error.detail(), error.close_id()) }
    }

    pub(super) fn malformed_properties(error: &PropertiesError) -> Self {
        let method = MethodId::BASIC_PUBLISH;
        Self { hard: true, ..Self::new(error.code(), error.detail(), method) }
    }

    pub(super) fn precondition(detail: impl Into<String>, method: MethodId) -> Self {
        Self::new(ReplyCode::PRECONDITION_FAILED, detail, method)
    }

    pub(super) fn not_implemented(detail: impl Into<String>, method: MethodId) -> Self {
        Self::new(ReplyCode::NOT_IMPLEMENTED, detail, method)
    }

    /// A method that has no business here: RabbitMQ's words for all of them.
    pub(super) fn unimplemented(method: MethodId) -> Self {
        Self::new(ReplyCode::COMMAND_INVALID, "unimplemented method", method)
    }
}
