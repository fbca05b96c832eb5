//! Destinations: what a `destination` header means in exchanges, routing keys and queues, and back.
//!
//! ```text
//! /queue/N, N            the queue N, through the default exchange
//! /topic/K               key K of the topic exchange
//! /exchange/E, …/E/K     key K (or the empty one) of exchange E
//! /amq/queue/N           the queue N, which is there already
//! /reply-queue/N         the same; N is everything that follows, slashes included
//! /temp-queue/T          only as a reply-to: a queue of the connection's own
//! ```
//!
//! A slash inside a name is written `%2F`. That is the only escape sequence that is read; written are more
//! ([`percent_encode`]), as RabbitMQ does. A name is octets, but queues and exchanges have names that are UTF-8.

use std::borrow::Cow;

use broker_core::name::{ExchangeName, QueueName};

use super::error::StompError;

/// The most octets of a routing key (AMQP `shortstr`).
const ROUTING_KEY_LEN_MAX: usize = 255;

/// What a `destination` header names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    /// A queue that is declared when it is first used.
    Queue(QueueName),
    /// A key of the topic exchange.
    Topic(Box<[u8]>),
    /// A key of an exchange.
    Exchange(ExchangeName, Box<[u8]>),
    /// A queue that is never declared.
    AmqQueue(QueueName),
    /// A queue that somebody waits on for replies; never declared.
    ReplyQueue(QueueName),
    /// A queue of the connection's own, by the name that only it knows.
    TempQueue(Box<[u8]>),
}

/// Reads the value of a `destination` header.
///
/// # Errors
/// `Invalid destination` and `Unknown destination`, in RabbitMQ's words.
pub(super) fn parse(text: &[u8]) -> Result<Destination, StompError> {
    if text.is_empty() {
        return Err(StompError::blank_destination());
    }
    let Some(path) = text.strip_prefix(b"/") else {
        if text.contains(&b'/') {
            return Err(StompError::unknown_destination(text));
        }
        return queue_name(&unescape(text))
            .map(Destination::Queue)
            .ok_or_else(|| StompError::invalid_destination("queue", text));
    };
    // The rest begins with the slash that the error texts repeat, or is empty.
    let rest_of = |prefix: &[u8]| match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with(b"/") => Some(rest),
        _ => None,
    };
    if let Some(rest) = rest_of(b"queue") {
        return one(rest, "queue", |name| queue_name(name).map(Destination::Queue));
    }
    if let Some(rest) = rest_of(b"topic") {
        return one(rest, "topic", |key| routing_key(key).map(Destination::Topic));
    }
    if let Some(rest) = rest_of(b"exchange") {
        return exchange(rest).ok_or_else(|| StompError::invalid_destination("exchange", rest));
    }
    if let Some(rest) = rest_of(b"amq/queue") {
        return one(rest, "amqqueue", |name| queue_name(name).map(Destination::AmqQueue));
    }
    if let Some(rest) = rest_of(b"temp-queue") {
        return one(rest, "temp_queue", |name| Some(Destination::TempQueue(name.into())));
    }
    if let Some(rest) = rest_of(b"reply-queue")
        && let Some(name) = rest.strip_prefix(b"/")
    {
        // Verbatim: the name came from us, in a reply-to header.
        return Some(name)
            .filter(|name| !name.is_empty())
            .and_then(queue_name)
            .map(Destination::ReplyQueue)
            .ok_or_else(|| StompError::invalid_destination("reply_queue", rest));
    }
    Err(StompError::unknown_destination(text))
}

/// Reads a rest that has to be one name that is not empty.
fn one(
    rest: &[u8],
    kind: &'static str,
    read: impl FnOnce(&[u8]) -> Option<Destination>,
) -> Result<Destination, StompError> {
    let name = rest.strip_prefix(b"/").filter(|name| !name.is_empty() && !name.contains(&b'/'));
    name.and_then(|name| read(&unescape(name)))
        .ok_or_else(|| StompError::invalid_destination(kind, rest))
}

fn exchange(rest: &[u8]) -> Option<Destination> {
    let mut parts = rest.strip_prefix(b"/")?.split(|octet| *octet == b'/');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let key = parts.next().unwrap_or_default();
    if parts.next().is_some() {
        return None;
    }
    let name = unescape(name);
    let name = ExchangeName::new(std::str::from_utf8(&name).ok()?).ok()?;
    Some(Destination::Exchange(name, routing_key(&unescape(key))?))
}

fn queue_name(name: &[u8]) -> Option<QueueName> {
    QueueName::new(std::str::from_utf8(name).ok()?).ok()
}

fn routing_key(key: &[u8]) -> Option<Box<[u8]>> {
    (key.len() <= ROUTING_KEY_LEN_MAX).then(|| key.into())
}

/// Decodes `%2F`, and nothing else.
// RabbitMQ: reads no other sequence, so that `a%20b` is a name of five octets.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    const SLASH: &[u8] = b"%2F";
    if !name.windows(SLASH.len()).any(|window| window == SLASH) {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SLASH) {
            out.push(b'/');
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    Cow::Owned(out)
}

/// Whether [`percent_encode`] would change `name`.
#[inline]
pub(super) fn needs_percent(name: &[u8]) -> bool {
    // Without branches, so that the compiler can look at many octets at once.
    name.iter().fold(false, |needs, octet| needs | is_encoded(*octet))
}

#[inline]
const fn is_encoded(octet: u8) -> bool {
    (octet == b'/') | (octet == b'%') | (octet < 32) | (octet > 127)
}

/// Appends a name as it stands in the `destination` header of a MESSAGE.
// RabbitMQ: encodes octets that it does not decode; a name with others than `/` does not come back.
pub(super) fn percent_encode(name: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    for &octet in name {
        if is_encoded(octet) {
            out.extend_from_slice(&[b'%', digit(octet >> 4), digit(octet & 0xF)]);
        } else {
            out.push(octet);
        }
    }
}

/// Whether a `reply-to` property is a destination already; any other names a queue for replies.
pub(super) fn is_destination(reply_to: &[u8]) -> bool {
    // RabbitMQ compares prefixes, without regard to what follows them.
    [b"/exchange".as_slice(), b"/topic", b"/queue", b"/amq/queue", REPLY_QUEUE]
        .iter()
        .any(|prefix| reply_to.starts_with(prefix))
}

/// What stands before the name of a queue for replies.
pub(super) const REPLY_QUEUE: &[u8] = b"/reply-queue/";

/// What stands before the name of a queue of the connection's own.
pub(super) const TEMP_QUEUE: &[u8] = b"/temp-queue/";

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    fn exchange(name: &str, key: &str) -> Destination {
        Destination::Exchange(ExchangeName::new(name).unwrap(), key.as_bytes().into())
    }

    #[test]
    fn each_form_means_what_it_says() {
        let rows = [
            ("/queue/a", Destination::Queue(queue("a"))),
            ("a", Destination::Queue(queue("a"))),
            ("a,b", Destination::Queue(queue("a,b"))),
            ("queue", Destination::Queue(queue("queue"))),
            (" a ", Destination::Queue(queue(" a "))),
            ("/queue/a%2Fb", Destination::Queue(queue("a/b"))),
            ("/queue/%2F", Destination::Queue(queue("/"))),
            ("a%2Fb", Destination::Queue(queue("a/b"))),
            ("/queue/zz%20sp", Destination::Queue(queue("zz%20sp"))),
            ("/queue/a%2fb", Destination::Queue(queue("a%2fb"))),
            ("/queue/a%25b", Destination::Queue(queue("a%25b"))),
            ("/queue/a\nb", Destination::Queue(queue("ab"))),
            ("/topic/a.b", Destination::Topic((*b"a.b").into())),
            ("/topic/a%2F*", Destination::Topic((*b"a/*").into())),
            ("/exchange/e", exchange("e", "")),
            ("/exchange/e/", exchange("e", "")),
            ("/exchange/e/k", exchange("e", "k")),
            ("/exchange/e%2Ff/k%2Fl", exchange("e/f", "k/l")),
            ("/amq/queue/a", Destination::AmqQueue(queue("a"))),
            ("/reply-queue/a/b%2Fc", Destination::ReplyQueue(queue("a/b%2Fc"))),
            ("/temp-queue/t", Destination::TempQueue((*b"t").into())),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text.as_bytes()), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn a_destination_that_is_none_is_refused_in_the_known_words() {
        let unknown = "is not a valid destination.\nValid destination types are: /temp-queue, /exchange, /topic, \
                       /queue, /amq/queue, /reply-queue/.\n";
        let rows = [
            ("", "Destination cannot be blank".to_owned()),
            ("/queue", "'' is not a valid queue destination\n".to_owned()),
            ("/topic", "'' is not a valid topic destination\n".to_owned()),
            ("/exchange", "'' is not a valid exchange destination\n".to_owned()),
            ("/queue/", "'/' is not a valid queue destination\n".to_owned()),
            ("/queue/a/b", "'/a/b' is not a valid queue destination\n".to_owned()),
            ("/queue//", "'//' is not a valid queue destination\n".to_owned()),
            ("/topic/a/b", "'/a/b' is not a valid topic destination\n".to_owned()),
            ("/exchange//k", "'//k' is not a valid exchange destination\n".to_owned()),
            ("/exchange/a/b/c", "'/a/b/c' is not a valid exchange destination\n".to_owned()),
            ("/amq/queue/", "'/' is not a valid amqqueue destination\n".to_owned()),
            ("/temp-queue/", "'/' is not a valid temp_queue destination\n".to_owned()),
            ("/reply-queue/", "'/' is not a valid reply_queue destination\n".to_owned()),
            ("/reply-queue", format!("'/reply-queue' {unknown}")),
            ("/foo/bar", format!("'/foo/bar' {unknown}")),
            ("foo/bar", format!("'foo/bar' {unknown}")),
            ("/", format!("'/' {unknown}")),
            ("/queues/a", format!("'/queues/a' {unknown}")),
            ("/amq", format!("'/amq' {unknown}")),
        ];
        for (text, detail) in rows {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.detail(), detail, "{text:?}");
            let known = !error.detail().contains("Valid destination types");
            let message = if known { "Invalid destination" } else { "Unknown destination" };
            assert_eq!(error.message(), message, "{text:?}");
        }
    }

    #[test]
    fn names_beyond_255_octets_or_utf_8_are_refused() {
        let long = "x".repeat(256);
        for prefix in ["", "/queue/", "/topic/", "/exchange/", "/exchange/e/", "/amq/queue/"] {
            assert!(parse(format!("{prefix}{long}").as_bytes()).is_err(), "{prefix}");
            assert!(parse(format!("{prefix}{}", &long[1..]).as_bytes()).is_ok(), "{prefix}");
        }
        assert!(parse(b"/queue/\xFF").is_err());
        assert_eq!(parse(b"/topic/\xFF"), Ok(Destination::Topic([0xFF].into())));
    }

    #[test]
    fn what_is_written_is_read_back_unless_it_holds_more_than_slashes() {
        let encoded = |name: &[u8]| {
            let mut out = Vec::new();
            percent_encode(name, &mut out);
            assert_eq!(needs_percent(name), out != name);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(encoded(b"plain.name-1"), "plain.name-1");
        assert_eq!(encoded(b"a/b"), "a%2Fb");
        assert_eq!(encoded(b"a%25b"), "a%2525b");
        assert_eq!(encoded("\u{fc}\t\u{7f}".as_bytes()), "%C3%BC%09\u{7f}");
        assert_eq!(
            parse(format!("/queue/{}", encoded(b"a/b/")).as_bytes()),
            Ok(Destination::Queue(queue("a/b/")))
        );
    }
}
