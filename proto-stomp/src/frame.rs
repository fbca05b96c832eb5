//! A frame as it was read: the command, the headers, the body, all borrowed.
//!
//! [`HeaderBlock`] is the scratch space of decoding. It holds where each name and value lies, in the
//! input or, for the few that had escapes, in a side buffer of its own; it borrows from nothing, so that
//! one block serves every frame of every connection of a thread and its room is allocated once.

use std::fmt;

/// The commands of STOMP 1.0, 1.1 and 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Client: opens the session.
    Connect,
    /// Client: opens the session, since 1.1; the same as `CONNECT`.
    Stomp,
    /// Client: a message for a destination.
    Send,
    /// Client: asks for the messages of a destination.
    Subscribe,
    /// Client: ends a subscription.
    Unsubscribe,
    /// Client: a message, or all up to it, has been processed.
    Ack,
    /// Client: a message, or all up to it, has not been processed. Since 1.1.
    Nack,
    /// Client: opens a transaction.
    Begin,
    /// Client: carries a transaction out.
    Commit,
    /// Client: drops a transaction.
    Abort,
    /// Client: ends the session.
    Disconnect,
    /// Server: the session is open.
    Connected,
    /// Server: a message of a subscription.
    Message,
    /// Server: a frame that asked for a receipt has been processed.
    Receipt,
    /// Server: something is wrong.
    Error,
}

impl Command {
    /// The command as it is on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Stomp => "STOMP",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Nack => "NACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Connected => "CONNECTED",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// The command that `word` names exactly. Commands are case-sensitive and upper case.
    #[must_use]
    pub const fn parse(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"CONNECT" => Self::Connect,
            b"STOMP" => Self::Stomp,
            b"SEND" => Self::Send,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UNSUBSCRIBE" => Self::Unsubscribe,
            b"ACK" => Self::Ack,
            b"NACK" => Self::Nack,
            b"BEGIN" => Self::Begin,
            b"COMMIT" => Self::Commit,
            b"ABORT" => Self::Abort,
            b"DISCONNECT" => Self::Disconnect,
            b"CONNECTED" => Self::Connected,
            b"MESSAGE" => Self::Message,
            b"RECEIPT" => Self::Receipt,
            b"ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// Whether the frame belongs to the opening of a session, before a version is agreed: its headers
    /// are exempt from escaping.
    // spec: stomp-1.2 "Value Encoding"
    #[must_use]
    pub const fn opens_session(self) -> bool {
        matches!(self, Self::Connect | Self::Stomp | Self::Connected)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first line of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParsedCommand<'a> {
    /// A command of the protocol, a client's or a server's.
    Known(Command),
    /// Any other line; at most as long as the limit on commands.
    Unknown(&'a [u8]),
}

/// A frame, borrowed from the input of the decoder and its scratch space.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The first line.
    pub command: ParsedCommand<'a>,
    /// The headers, unescaped.
    pub headers: Headers<'a>,
    /// The body, without the NUL that ends the frame.
    pub body: &'a [u8],
}

/// The headers of a frame: of a name that is repeated, the first.
#[derive(Clone, Copy)]
pub struct Headers<'a> {
    head: &'a [u8],
    block: &'a HeaderBlock,
}

impl<'a> Headers<'a> {
    pub(crate) fn new(head: &'a [u8], block: &'a HeaderBlock) -> Self {
        Self { head, block }
    }

    /// The value of the header `name`, or `None` without such a header.
    ///
    /// Looks at each header in turn: there are few, and most differ in length.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.block.get(self.head, name.as_bytes())
    }

    /// Names and values in the order in which they came, each name once.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let Self { head, block } = *self;
        block
            .entries
            .iter()
            .map(move |entry| (block.octets(head, entry.name), block.octets(head, entry.value)))
    }

    /// How many different names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.entries.len()
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.entries.is_empty()
    }
}

impl fmt::Debug for Headers<'_> {
    /// Shows the names only: a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

/// Scratch space for the headers of one frame at a time. The decoder empties it first.
///
/// Grows to the largest frame it has seen (by at most the head's length, and 64 octets a header) and
/// keeps that room, so give one to a thread rather than to each connection.
#[derive(Debug, Default)]
pub struct HeaderBlock {
    entries: Vec<Entry>,
    /// Names and values that had escapes, unescaped, one after the other.
    unescaped: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: Span,
    value: Span,
}

/// Where the octets of a name or a value lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    source: Source,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The head of the frame, as it is on the wire.
    Head,
    /// [`HeaderBlock::unescaped`].
    Unescaped,
}

impl Span {
    /// `len` octets of the head, from `start`.
    pub(crate) fn of_head(start: usize, len: usize) -> Self {
        Self { source: Source::Head, start, end: start.saturating_add(len) }
    }
}

impl HeaderBlock {
    /// An empty block; allocates nothing until the first frame.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.unescaped.clear();
    }

    /// Adds what `write` appends to the side buffer, and says where that is.
    pub(crate) fn unescape<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Span, E> {
        let start = self.unescaped.len();
        write(&mut self.unescaped)?;
        Ok(Span { source: Source::Unescaped, start, end: self.unescaped.len() })
    }

    /// Adds a header unless its name is there already.
    // spec: stomp-1.2 "Repeated Header Entries"
    pub(crate) fn push(&mut self, head: &[u8], name: Span, value: Span) {
        if !self.contains(head, self.octets(head, name)) {
            self.entries.push(Entry { name, value });
        }
    }

    pub(crate) fn get<'a>(&'a self, head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        let entry = self.entries.iter().find(|entry| self.is_named(head, entry, name))?;
        Some(self.octets(head, entry.value))
    }

    /// Takes leading blanks off every value except that of the header `exempt`.
    pub(crate) fn trim_values_except(&mut self, head: &[u8], exempt: &[u8]) {
        for index in 0..self.entries.len() {
            let Some(&entry) = self.entries.get(index) else {
                break;
            };
            if self.is_named(head, &entry, exempt) {
                continue;
            }
            let value = self.octets(head, entry.value);
            let blanks = value.iter().take_while(|&&octet| octet == b' ').count();
            if let Some(entry) = self.entries.get_mut(index) {
                entry.value.start += blanks;
            }
        }
    }

    fn contains(&self, head: &[u8], name: &[u8]) -> bool {
        self.entries.iter().any(|entry| self.is_named(head, entry, name))
    }

    /// Compares lengths before it looks anything up.
    fn is_named(&self, head: &[u8], entry: &Entry, name: &[u8]) -> bool {
        entry.name.end - entry.name.start == name.len() && self.octets(head, entry.name) == name
    }

    fn octets<'a>(&'a self, head: &'a [u8], span: Span) -> &'a [u8] {
        let source = match span.source {
            Source::Head => head,
            Source::Unescaped => &self.unescaped,
        };
        // Every span was made of this head and this buffer: the default is never taken.
        source.get(span.start..span.end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Command; 15] = [
        Command::Connect,
        Command::Stomp,
        Command::Send,
        Command::Subscribe,
        Command::Unsubscribe,
        Command::Ack,
        Command::Nack,
        Command::Begin,
        Command::Commit,
        Command::Abort,
        Command::Disconnect,
        Command::Connected,
        Command::Message,
        Command::Receipt,
        Command::Error,
    ];

    #[test]
    fn every_command_parses_from_its_own_name() {
        for command in ALL {
            assert_eq!(Command::parse(command.as_str().as_bytes()), Some(command));
        }
    }

    #[test]
    fn commands_are_upper_case_and_exact() {
        for word in ["send", "Send", "SEND ", " SEND", "SENDX", ""] {
            assert_eq!(Command::parse(word.as_bytes()), None, "{word:?}");
        }
    }

    #[test]
    fn debug_output_of_headers_does_not_show_values() {
        let mut block = HeaderBlock::new();
        let head = b"passcode:secret";
        block.push(head, Span::of_head(0, 8), Span::of_head(9, 6));
        let shown = format!("{:?}", Headers::new(head, &block));
        assert_eq!(shown, r#"["passcode"]"#);
    }
}
