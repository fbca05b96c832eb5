//! The consumer as a queue sees it: something that takes messages while it has room.
//!
//! A queue pushes. It calls its consumers' [`Sink`]s under its own lock, whole runs at a time, and a sink
//! takes as many messages as its credit (prefetch) and its outbox allow. One that took fewer than there
//! were is left alone until it calls [`Queue::resume`](crate::queue::Queue::resume). A sink may lock what
//! belongs to its connection, and nothing else: the order is queue before sink, never the reverse.

use std::sync::Arc;

use crate::arguments::Arguments;
use crate::message::{Message, Parts, Publication};

/// What a message in memory takes besides its body, about.
pub(crate) const ENTRY_OCTETS: u64 = 192;

/// Identifies a consumer within its queue; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub u64);

/// Identifies a connection; never used twice in the life of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Takes what a queue has for a consumer.
pub trait Sink: Send + Sync {
    /// Reserves up to `wanted` deliveries for the consumer in `slot` and says how many it will take.
    ///
    /// Fewer than wanted means: the consumer has to be resumed before the queue asks again.
    fn reserve(&self, slot: u32, wanted: usize) -> usize;

    /// Takes deliveries from `run` until it ends or the consumer in `slot` has no more room. All of
    /// a [reserved](Run::is_reserved) run has to be taken.
    ///
    /// Leaving some behind means: the consumer has to be resumed before the queue offers again.
    fn deliver(&self, slot: u32, run: &mut Run<'_>);

    /// The consumer in `slot` is gone, because its queue is.
    fn cancelled(&self, slot: u32);
}

/// What a consumer asks for when it subscribes.
#[derive(Clone)]
pub struct Subscription {
    /// Takes the deliveries.
    pub sink: Arc<dyn Sink>,
    /// Which of the sink's consumers this is.
    pub slot: u32,
    /// Its tag, for lists.
    pub tag: Arc<str>,
    /// Its channel's name: for lists, and to tell which consumers are on one channel.
    pub channel: Arc<str>,
    /// Deliveries need no acknowledgement.
    pub no_ack: bool,
    /// No other consumer beside this one.
    pub exclusive: bool,
    /// The most unacknowledged deliveries it takes; 0 is no limit. For lists: the sink enforces it.
    pub prefetch_count: u16,
    /// The consumer with the higher priority is served first (`x-priority`).
    pub priority: i64,
    /// Arguments as given, for lists.
    pub arguments: Arguments,
}

/// What becomes of deliveries that are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged.
    Acked,
    /// Back to the queue.
    Requeued,
    /// Dropped or dead-lettered.
    Rejected,
}

/// A message in its place in a queue.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The message.
    pub message: Message,
    /// Place in the queue: rises from message to message.
    pub seq: u64,
    /// When it expires, in the broker's milliseconds; `u64::MAX` is never.
    pub expires_at: u64,
    /// How often it came back from a consumer.
    pub returns: u16,
    /// It was handed to a consumer before.
    pub redelivered: bool,
    /// The log holds it.
    pub logged: bool,
}

impl Entry {
    /// What a consumer is to keep of it: all, or, if it does not [stay](Allowance) in memory, all but the message.
    pub(crate) fn outstanding(self, stays: bool) -> Outstanding {
        let Self { message, seq, expires_at, returns, redelivered, logged } = self;
        let body_len = u32::try_from(message.body_len()).unwrap_or(u32::MAX);
        let message = stays.then_some(message);
        Outstanding { message, seq, expires_at, body_len, returns, redelivered, logged }
    }
}

/// A message that was delivered and waits for its acknowledgement, as the consumer's side keeps it.
///
/// Of what the log holds a queue keeps only so much in memory; beyond that the message itself is left to the log, and
/// is read again if it has to come back.
#[derive(Debug, Clone)]
pub struct Outstanding {
    /// The message; `None` where only the log has it.
    pub message: Option<Message>,
    /// Place in the queue: rises from message to message.
    pub seq: u64,
    /// When it expires, in the broker's milliseconds; `u64::MAX` is never.
    pub expires_at: u64,
    /// Octets of the body.
    pub body_len: u32,
    /// How often it came back from a consumer before.
    pub returns: u16,
    /// It was handed to a consumer before.
    pub redelivered: bool,
    /// The log holds it.
    pub logged: bool,
}

impl Outstanding {
    /// The message in its place, or all but the message where only the log has it.
    pub(crate) fn into_entry(mut self) -> Result<Entry, Self> {
        let Some(message) = self.message.take() else { return Err(self) };
        let Self { seq, expires_at, returns, redelivered, logged, .. } = self;
        Ok(Entry { message, seq, expires_at, returns, redelivered, logged })
    }

    /// Octets of memory that count against the queue's [`Allowance`].
    pub(crate) fn charged(&self) -> u64 {
        if self.logged && self.message.is_some() {
            Allowance::cost(self.body_len as usize)
        } else {
            0
        }
    }
}

/// Octets of memory that a queue has left for logged messages that consumers have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    left: u64,
    used: u64,
}

impl Allowance {
    pub(crate) const fn new(left: u64) -> Self {
        Self { left, used: 0 }
    }

    /// What a message takes besides its body, about, and its body.
    pub(crate) const fn cost(body_len: usize) -> u64 {
        body_len as u64 + ENTRY_OCTETS
    }

    /// Whether a message may stay in memory; if it may, it is charged. One that only memory has always stays.
    pub(crate) fn take(&mut self, logged: bool, body_len: usize) -> bool {
        if !logged {
            return true;
        }
        let cost = Self::cost(body_len);
        let stays = cost <= self.left;
        if stays {
            self.left -= cost;
            self.used += cost;
        }
        stays
    }

    pub(crate) const fn used(&self) -> u64 {
        self.used
    }
}

/// One message of a run, on its way to a consumer.
pub struct Delivery<'d> {
    body_len: usize,
    stays: bool,
    content: Content<'d>,
}

enum Content<'d> {
    Fresh { publication: &'d Publication<'d>, place: Place },
    Stored(Entry),
}

#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) expires_at: u64,
    pub(crate) logged: bool,
}

impl Place {
    pub(crate) fn entry(self, message: Message) -> Entry {
        Entry {
            message,
            seq: self.seq,
            expires_at: self.expires_at,
            returns: 0,
            redelivered: false,
            logged: self.logged,
        }
    }
}

impl Delivery<'_> {
    /// The message's parts.
    #[must_use]
    #[inline]
    pub fn parts(&self) -> Parts<'_> {
        match &self.content {
            Content::Fresh { publication, .. } => publication.parts(),
            Content::Stored(entry) => entry.message.parts(),
        }
    }

    /// Octets of the body.
    #[must_use]
    #[inline]
    pub const fn body_len(&self) -> usize {
        self.body_len
    }

    /// Whether it was handed to a consumer before.
    #[must_use]
    #[inline]
    pub const fn redelivered(&self) -> bool {
        match &self.content {
            Content::Fresh { .. } => false,
            Content::Stored(entry) => entry.redelivered,
        }
    }

    /// How often it has come back.
    #[must_use]
    #[inline]
    pub const fn returns(&self) -> u16 {
        match &self.content {
            Content::Fresh { .. } => 0,
            Content::Stored(entry) => entry.returns,
        }
    }

    /// What is to be kept until it is acknowledged.
    #[must_use]
    #[inline]
    pub fn keep(self) -> Outstanding {
        match self.content {
            Content::Fresh { publication, place } => Outstanding {
                message: self.stays.then(|| publication.to_message()),
                seq: place.seq,
                expires_at: place.expires_at,
                body_len: u32::try_from(self.body_len).unwrap_or(u32::MAX),
                returns: 0,
                redelivered: false,
                logged: place.logged,
            },
            Content::Stored(entry) => entry.outstanding(self.stays),
        }
    }
}

/// Messages on offer to one consumer, in the order of the queue.
pub struct Run<'r> {
    source: Source<'r>,
    reserved: bool,
    taken: usize,
    taken_bytes: usize,
    taken_logged: Vec<u64>,
    highest_logged: Option<u64>,
    /// Nobody will acknowledge what is taken.
    no_ack: bool,
    allowance: Allowance,
}

pub(crate) enum Source<'r> {
    /// Publications that nobody keeps yet, with their places.
    Fresh { publications: &'r [Publication<'r>], places: &'r [Place], next: usize },
    /// The same, but only those with the indices in `picks`.
    FreshPicks { publications: &'r [Publication<'r>], places: &'r [Place], picks: &'r [u32] },
    /// Entries taken out of the queue, those with the indices in `picks`.
    StoredPicks { entries: &'r mut [Option<Entry>], picks: &'r [u32] },
    /// Entries, all in order.
    Stored { entries: &'r mut [Option<Entry>], next: usize },
}

impl<'r> Run<'r> {
    pub(crate) const fn new(
        source: Source<'r>,
        reserved: bool,
        no_ack: bool,
        allowance: Allowance,
    ) -> Self {
        Self {
            source,
            reserved,
            taken: 0,
            taken_bytes: 0,
            taken_logged: Vec::new(),
            highest_logged: None,
            no_ack,
            allowance,
        }
    }

    /// Whether [`Sink::reserve`] has promised to take all of it.
    #[must_use]
    pub const fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// Deliveries that are left.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Fresh { publications, next, .. } => publications.len() - next,
            Source::Stored { entries, next } => entries.len() - next,
            Source::FreshPicks { picks, .. } | Source::StoredPicks { picks, .. } => picks.len(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next delivery; taking it is final.
    #[allow(
        clippy::should_implement_trait,
        reason = "a lending iterator: deliveries borrow the run"
    )]
    #[inline]
    pub fn next(&mut self) -> Option<Delivery<'_>> {
        let content = match &mut self.source {
            Source::Fresh { publications, places, next } => {
                let publication = publications.get(*next)?;
                let place = *places.get(*next)?;
                *next += 1;
                Content::Fresh { publication, place }
            }
            Source::FreshPicks { publications, places, picks } => {
                let (&pick, rest) = picks.split_first()?;
                *picks = rest;
                let publication = publications.get(pick as usize)?;
                Content::Fresh { publication, place: *places.get(pick as usize)? }
            }
            Source::StoredPicks { entries, picks } => {
                let (&pick, rest) = picks.split_first()?;
                *picks = rest;
                Content::Stored(entries.get_mut(pick as usize)?.take()?)
            }
            Source::Stored { entries, next } => {
                let entry = entries.get_mut(*next)?.take()?;
                *next += 1;
                Content::Stored(entry)
            }
        };
        let (body_len, seq, logged) = match &content {
            Content::Fresh { publication, place } => {
                (publication.body_len(), place.seq, place.logged)
            }
            Content::Stored(entry) => (entry.message.body_len(), entry.seq, entry.logged),
        };
        self.taken += 1;
        self.taken_bytes += body_len;
        if logged {
            self.highest_logged = self.highest_logged.max(Some(seq));
            if self.no_ack {
                self.taken_logged.push(seq);
            }
        }
        let stays = self.no_ack || self.allowance.take(logged, body_len);
        Some(Delivery { body_len, stays, content })
    }

    pub(crate) const fn taken(&self) -> usize {
        self.taken
    }

    pub(crate) const fn taken_bytes(&self) -> usize {
        self.taken_bytes
    }

    /// Octets of logged messages that were taken and stay in memory.
    pub(crate) const fn staying(&self) -> u64 {
        self.allowance.used()
    }

    /// The highest number of a logged message that was taken.
    pub(crate) const fn highest_logged(&self) -> Option<u64> {
        self.highest_logged
    }

    /// Sequence numbers of logged messages that were taken without need of an acknowledgement.
    pub(crate) fn into_settled(self) -> Vec<u64> {
        self.taken_logged
    }
}
