//! What a SUBSCRIBE asks for, and what a queue is declared with: the headers, in types.
//!
//! Pure: headers in, values out. The same headers declare the queue of a SEND; there `persistent` speaks of the
//! message and not of the queue.

use broker_core::arguments::{Arguments, Value};
use broker_core::name::QueueName;
use broker_core::vhost::QueueDeclaration;
use proto_stomp::Headers;

use super::error::StompError;

/// How a subscription acknowledges (the `ack` header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckMode {
    /// Not at all.
    Auto,
    /// An ACK is for all messages up to the one that it names.
    Client,
    /// An ACK is for one message.
    ClientIndividual,
}

/// Headers that stand for arguments of a queue, with the type that the argument has.
const ARGUMENTS: [(&str, ArgumentType); 16] = [
    ("x-dead-letter-exchange", ArgumentType::Text),
    ("x-dead-letter-routing-key", ArgumentType::Text),
    ("x-delivery-limit", ArgumentType::Integer),
    ("x-expires", ArgumentType::Integer),
    ("x-max-age", ArgumentType::Text),
    ("x-max-length", ArgumentType::Integer),
    ("x-max-length-bytes", ArgumentType::Integer),
    ("x-max-priority", ArgumentType::Integer),
    ("x-message-ttl", ArgumentType::Integer),
    // RabbitMQ: ignores this one and the next but two, and takes the queue for one without.
    ("x-overflow", ArgumentType::Text),
    ("x-queue-mode", ArgumentType::Text),
    ("x-queue-type", ArgumentType::Text),
    ("x-queue-version", ArgumentType::Integer),
    ("x-single-active-consumer", ArgumentType::Boolean),
    ("x-stream-filter-size-bytes", ArgumentType::Integer),
    ("x-stream-max-segment-size-bytes", ArgumentType::Integer),
];

/// Headers of a SUBSCRIBE that would change which messages it gets. Ignored, they would give others.
const UNSUPPORTED: [&str; 3] = ["selector", "browser", "x-stream-offset"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArgumentType {
    Text,
    Integer,
    Boolean,
}

/// What the defaults of a declaration are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueueKind {
    /// `/queue/N`: durable.
    Named,
    /// The queue behind a subscription to a topic or an exchange: goes with its last subscriber.
    OfSubscription,
}

/// Which headers speak of the queue's durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DurableBy {
    /// `durable` and its alias `persistent`.
    Either,
    /// `durable` only.
    // RabbitMQ: `persistent` too, so that the first transient message makes an exclusive queue.
    DurableOnly,
}

/// What the headers of a frame say about the queue behind its destination.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct QueueOptions {
    pub(super) durable: Option<bool>,
    auto_delete: Option<bool>,
    exclusive: Option<bool>,
    arguments: Arguments,
}

impl QueueOptions {
    /// Reads them.
    ///
    /// # Errors
    /// `Processing error` for an argument that is not the integer or the boolean that it has to be.
    pub(super) fn read(headers: &Headers<'_>, durable_by: DurableBy) -> Result<Self, StompError> {
        let either = durable_by == DurableBy::Either;
        let alias = || either.then(|| flag(headers, "persistent")).flatten();
        let mut options = Self {
            durable: flag(headers, "durable").or_else(alias),
            auto_delete: flag(headers, "auto-delete"),
            exclusive: flag(headers, "exclusive"),
            arguments: Arguments::new(),
        };
        for (name, kind) in ARGUMENTS {
            let Some(value) = headers.get(name) else { continue };
            let value = match kind {
                ArgumentType::Text => Value::LongString(value.trim_ascii().into()),
                ArgumentType::Integer => Value::Long(integer(value)?),
                ArgumentType::Boolean => {
                    Value::Bool(boolean(value.trim_ascii()).ok_or_else(StompError::processing)?)
                }
            };
            options.arguments.set(name, value);
        }
        Ok(options)
    }

    /// The exchange that dead letters would go to.
    pub(super) fn dead_letter_exchange(&self) -> Option<&str> {
        self.arguments.get("x-dead-letter-exchange")?.as_text()
    }

    /// The declaration of a queue of this kind.
    ///
    /// Without durability a queue belongs to its connection and goes with its last subscriber, unless the
    /// headers say something else.
    pub(super) fn declaration(self, name: QueueName, kind: QueueKind) -> QueueDeclaration {
        let (durable, exclusive, auto_delete) = match kind {
            QueueKind::Named => (true, None, None),
            QueueKind::OfSubscription => (false, Some(false), Some(true)),
        };
        let durable = self.durable.unwrap_or(durable);
        QueueDeclaration {
            name,
            server_named: false,
            durable,
            exclusive: self.exclusive.or(exclusive).unwrap_or(!durable),
            auto_delete: self.auto_delete.or(auto_delete).unwrap_or(!durable),
            arguments: self.arguments,
        }
    }
}

/// What a SUBSCRIBE asks for besides its destination and its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request<'f> {
    pub(super) id: Option<&'f [u8]>,
    pub(super) mode: AckMode,
    /// 0 is no limit.
    pub(super) prefetch: u16,
    pub(super) priority: Option<i64>,
    /// `durable` or `persistent` says true.
    pub(super) durable: bool,
    pub(super) queue_name: Option<&'f [u8]>,
}

impl<'f> Request<'f> {
    /// Reads it.
    ///
    /// # Errors
    /// `Processing error` for values that are none of those that a header can have, `Missing Header` for a
    /// durable subscription without an id, `Invalid header` for what the broker cannot do.
    pub(super) fn read(headers: &Headers<'f>) -> Result<Self, StompError> {
        if let Some(name) = UNSUPPORTED.into_iter().find(|name| headers.get(name).is_some()) {
            return Err(StompError::unsupported_header(name));
        }
        let id = headers.get("id");
        let durable = is_durable(headers);
        if durable && id.is_none() {
            return Err(StompError::missing_id_for_durable());
        }
        let mode = match headers.get("ack") {
            None | Some(b"auto") => AckMode::Auto,
            Some(b"client") => AckMode::Client,
            Some(b"client-individual") => AckMode::ClientIndividual,
            Some(_) => return Err(StompError::processing()),
        };
        let prefetch = match headers.get("prefetch-count") {
            None => 0,
            // Many is as good as none at all.
            Some(value) => match integer(value)? {
                ..0 => return Err(StompError::processing()),
                count => u16::try_from(count).unwrap_or(u16::MAX),
            },
        };
        let priority = headers.get("x-priority").map(integer).transpose()?;
        let queue_name = headers.get("x-queue-name");
        Ok(Self { id, mode, prefetch, priority, durable, queue_name })
    }
}

impl<'f> Request<'f> {
    /// What stands for the SUBSCRIBE of a `/temp-queue/…`, which nobody sends.
    pub(super) const fn of_temp_queue(id: &'f [u8]) -> Self {
        let id = Some(id);
        Self {
            id,
            mode: AckMode::Auto,
            prefetch: 0,
            priority: None,
            durable: false,
            queue_name: None,
        }
    }
}

/// Whether `durable` or `persistent` says true.
pub(super) fn is_durable(headers: &Headers<'_>) -> bool {
    let says_true = |name| flag(headers, name) == Some(true);
    says_true("durable") || says_true("persistent")
}

/// A header that is true or false; any other word counts as no header, as in RabbitMQ.
pub(super) fn flag(headers: &Headers<'_>, name: &str) -> Option<bool> {
    headers.get(name).and_then(boolean)
}

pub(super) const fn boolean(value: &[u8]) -> Option<bool> {
    match value {
        b"true" | b"True" => Some(true),
        b"false" | b"False" => Some(false),
        _ => None,
    }
}

/// A decimal integer; blanks around it do not matter.
///
/// # Errors
/// `Processing error`, as RabbitMQ stumbles over it.
pub(super) fn integer(value: &[u8]) -> Result<i64, StompError> {
    let text = std::str::from_utf8(value).unwrap_or_default().trim();
    text.parse().map_err(|_| StompError::processing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto_stomp::{Command, Decoded, Decoder, HeaderBlock, Limits, OwnedFrame};

    fn with_headers<T>(headers: &[(&str, &str)], look: impl FnOnce(&Headers<'_>) -> T) -> T {
        let mut frame = OwnedFrame::new(Command::Subscribe);
        for (name, value) in headers {
            frame = frame.header(name, value);
        }
        let octets = frame.encode();
        let mut decoder = Decoder::new(Limits::before_login());
        decoder.set_version(proto_stomp::Version::V1_2);
        let mut block = HeaderBlock::new();
        match decoder.decode(&octets, &mut block) {
            Ok(Decoded::Frame { frame, .. }) => look(&frame.headers),
            other => panic!("{other:?}"),
        }
    }

    /// Durable, exclusive, auto-delete.
    fn flags(kind: QueueKind, headers: &[(&str, &str)]) -> (bool, bool, bool) {
        let options =
            with_headers(headers, |headers| QueueOptions::read(headers, DurableBy::Either));
        let declaration = options.unwrap().declaration(QueueName::new("q").unwrap(), kind);
        (declaration.durable, declaration.exclusive, declaration.auto_delete)
    }

    #[test]
    fn a_queue_is_declared_as_its_kind_and_the_headers_say() {
        use QueueKind::{Named, OfSubscription};
        let check = |kind, headers: &[(&str, &str)], expected| {
            assert_eq!(flags(kind, headers), expected, "{kind:?} {headers:?}");
        };
        check(Named, &[], (true, false, false));
        check(Named, &[("durable", "false")], (false, true, true));
        check(Named, &[("persistent", "false")], (false, true, true));
        check(Named, &[("durable", "False"), ("exclusive", "false")], (false, false, true));
        check(Named, &[("durable", "false"), ("auto-delete", "false")], (false, true, false));
        check(Named, &[("exclusive", "true")], (true, true, false));
        check(Named, &[("auto-delete", "true")], (true, false, true));
        check(Named, &[("durable", "maybe")], (true, false, false));
        check(OfSubscription, &[], (false, false, true));
        check(OfSubscription, &[("durable", "true")], (true, false, true));
        let kept = [("persistent", "true"), ("auto-delete", "false")];
        check(OfSubscription, &kept, (true, false, false));
        check(OfSubscription, &[("exclusive", "true")], (false, true, true));
    }

    #[test]
    fn persistent_does_not_speak_of_the_queue_of_a_send() {
        let options = with_headers(&[("persistent", "false")], |headers| {
            QueueOptions::read(headers, DurableBy::DurableOnly)
        });
        assert_eq!(options.unwrap().durable, None);
    }

    #[test]
    fn argument_headers_become_arguments_of_their_type() {
        let read = |headers: &[(&str, &str)]| {
            with_headers(headers, |headers| QueueOptions::read(headers, DurableBy::Either))
        };
        let options = read(&[
            ("x-max-length", " 5 "),
            ("x-overflow", "reject-publish"),
            ("x-single-active-consumer", "true"),
            ("x-dead-letter-exchange", " dlx"),
            ("x-unknown", "1"),
        ])
        .unwrap();
        let arguments = &options.arguments;
        assert_eq!(arguments.get("x-max-length"), Some(&Value::Long(5)));
        assert_eq!(arguments.get("x-overflow"), Some(&Value::text("reject-publish")));
        assert_eq!(arguments.get("x-single-active-consumer"), Some(&Value::Bool(true)));
        assert_eq!(arguments.get("x-unknown"), None);
        assert_eq!(options.dead_letter_exchange(), Some("dlx"));
        for header in
            [("x-max-length", "five"), ("x-expires", ""), ("x-single-active-consumer", "1")]
        {
            assert_eq!(read(&[header]), Err(StompError::processing()), "{header:?}");
        }
    }

    #[test]
    fn a_request_has_values_that_it_can_have_or_is_refused() {
        let read = |headers: &[(&str, &str)]| {
            with_headers(headers, |headers| {
                Request::read(headers).map(|request| (request.mode, request.prefetch))
            })
        };
        assert_eq!(read(&[]), Ok((AckMode::Auto, 0)));
        assert_eq!(read(&[("ack", "client"), ("prefetch-count", "7")]), Ok((AckMode::Client, 7)));
        assert_eq!(read(&[("prefetch-count", "100000")]), Ok((AckMode::Auto, u16::MAX)));
        assert_eq!(read(&[("ack", "client-individual")]), Ok((AckMode::ClientIndividual, 0)));
        for header in [
            ("ack", "sometimes"),
            ("prefetch-count", "many"),
            ("prefetch-count", "-1"),
            ("x-priority", "high"),
        ] {
            assert_eq!(read(&[header]), Err(StompError::processing()), "{header:?}");
        }
        assert_eq!(read(&[("durable", "true")]), Err(StompError::missing_id_for_durable()));
        assert!(read(&[("persistent", "true"), ("id", "0")]).is_ok());
        for name in UNSUPPORTED {
            assert_eq!(read(&[(name, "x")]), Err(StompError::unsupported_header(name)));
        }
    }
}
