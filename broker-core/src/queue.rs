//! A queue: messages in order, consumers with room, and one short lock around both.
//!
//! The one idea: work arrives in batches and is done under a single hold of the lock. A batch that meets an
//! empty queue and a consumer with room is handed straight to the consumer's sink and never stored. A
//! message that was delivered and not yet acknowledged belongs to the channel that received it; the queue
//! only counts it. What a batch leaves to do elsewhere (dead letters, deletion) comes back as [`Effects`],
//! for the caller to carry out when the lock is free again.

pub mod arguments;
mod dispatch;
mod ready;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::arguments::Arguments;
use crate::consumer::{ConnectionId, ConsumerId, Entry, Place, Subscription};
use crate::log::{Log, LogPosition, Record};
use crate::message::Publication;
use crate::name::QueueName;
use arguments::{Overflow, QueueArguments};
use ready::Ready;

/// The most messages that one hold of a queue's lock moves.
pub const BATCH_MAX: usize = 256;

/// Octets of bodies after which one run from the backlog ends.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// Octets of ready bodies at which a queue with consumers counts as backlogged.
const BACKLOG_BYTES: u64 = 8 * 1024 * 1024;

/// Ready messages at which the same holds.
const BACKLOG_LEN: usize = 32 * 1024;

/// A time that never comes.
pub const NEVER: u64 = u64::MAX;

/// Identifies a queue in the log; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

/// Why a message is dead-lettered (AMQP header `x-death`, field `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeathReason {
    /// Rejected by a consumer with requeue off.
    Rejected,
    /// Its time to live ran out.
    Expired,
    /// The queue was full.
    MaxLength,
    /// It came back more often than the queue allows.
    DeliveryLimit,
}

impl DeathReason {
    /// The word in `x-death`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// What a batch leaves to be done when the queue's lock is free again.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that died, with the reason.
    pub dead: Vec<(Entry, DeathReason)>,
    /// Indices of publications that the queue refused (`x-overflow`).
    pub rejected: Vec<u32>,
    /// The last consumer of an auto-delete queue is gone.
    pub delete_queue: bool,
    /// The first message that expires is here: the sweep has to know the queue.
    pub watch_expiry: bool,
}

impl Effects {
    /// Whether there is nothing to do.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.rejected.is_empty() && !self.delete_queue && !self.watch_expiry
    }
}

/// What became of a batch of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Where the log has to come before all of the batch is durable; for transient messages and in
    /// transient queues it has come there already.
    pub position: LogPosition,
    /// The queue has consumers and they do not keep up: its publishers do well to slow down.
    pub backlogged: bool,
}

/// Why a consumer or a get is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// Somebody consumes exclusively, or wants to while others consume.
    #[error("in exclusive use")]
    ExclusiveUse,
    /// The queue has just been deleted.
    #[error("deleted")]
    Deleted,
}

/// Why a queue is not deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReason {
    /// It has consumers.
    InUse,
    /// It has messages that are ready.
    NotEmpty,
}

/// Message counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Messages waiting for a consumer.
    pub ready: u64,
    /// Octets of their bodies.
    pub ready_bytes: u64,
    /// Messages delivered and not yet acknowledged.
    pub unacked: u64,
    /// Octets of their bodies.
    pub unacked_bytes: u64,
    /// Consumers.
    pub consumers: u64,
}

/// A consumer in a list.
#[derive(Debug, Clone)]
pub struct ConsumerListing {
    /// Its tag.
    pub tag: Arc<str>,
    /// Its channel's name.
    pub channel: Arc<str>,
    /// Whether it acknowledges.
    pub ack_required: bool,
    /// Whether it is alone by its own wish.
    pub exclusive: bool,
    /// Its prefetch count.
    pub prefetch_count: u16,
    /// Whether the queue serves it: with a single active consumer only one is.
    pub active: bool,
    /// Arguments as given.
    pub arguments: Arguments,
}

/// What a queue is declared with.
#[derive(Debug, Clone)]
pub struct QueueSpec {
    /// Its name.
    pub name: QueueName,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to this connection and goes with it.
    pub exclusive_owner: Option<ConnectionId>,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments as given.
    pub arguments: Arguments,
    /// The same, parsed.
    pub settings: QueueArguments,
}

/// A queue of a virtual host.
#[derive(Debug)]
pub struct Queue {
    /// Identifies it in the log.
    pub id: QueueId,
    /// What it was declared with.
    pub spec: QueueSpec,
    log: Arc<dyn Log>,
    /// Everything that changes. Held for one batch at a time.
    state: Mutex<State>,
    /// When the first message at the head may expire; a hint for the sweep, read without the lock.
    next_expiry: AtomicU64,
}

struct State {
    ready: Ready,
    next_seq: u64,
    unacked: u64,
    unacked_bytes: u64,
    consumers: Vec<Consumer>,
    next_consumer_id: u64,
    /// Where the round robin goes on.
    turn: usize,
    /// The consumer that a queue with a single active consumer serves.
    active: Option<ConsumerId>,
    deleted: bool,
    watched: bool,
    used_at: u64,
    scratch: Scratch,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("ready", &self.ready.len())
            .field("unacked", &self.unacked)
            .field("consumers", &self.consumers.len())
            .finish_non_exhaustive()
    }
}

/// Buffers that a batch borrows, so that the steady state allocates nothing.
#[derive(Default)]
struct Scratch {
    places: Vec<Place>,
    entries: Vec<Option<Entry>>,
    offers: Vec<(usize, usize)>,
    picks: Vec<Vec<u32>>,
}

struct Consumer {
    id: ConsumerId,
    subscription: Subscription,
    /// It had no room when it was last asked; it will resume by itself.
    blocked: bool,
}

impl Queue {
    /// A new, empty queue.
    #[must_use]
    pub fn new(id: QueueId, spec: QueueSpec, log: Arc<dyn Log>, now: u64) -> Self {
        let state = State {
            ready: Ready::new(spec.settings.max_priority),
            next_seq: 0,
            unacked: 0,
            unacked_bytes: 0,
            consumers: Vec::new(),
            next_consumer_id: 0,
            turn: 0,
            active: None,
            deleted: false,
            // The registry watches a queue that expires from the start.
            watched: spec.settings.expires.is_some(),
            used_at: now,
            scratch: Scratch::default(),
        };
        Self { id, spec, log, state: Mutex::new(state), next_expiry: AtomicU64::new(NEVER) }
    }

    /// Takes in at most [`BATCH_MAX`] publications, in order, and serves consumers that have room. A queue that has
    /// just been deleted takes nothing.
    pub fn publish(
        &self,
        publications: &[Publication<'_>],
        now: u64,
        effects: &mut Effects,
    ) -> Accepted {
        debug_assert!(publications.len() <= BATCH_MAX, "the caller cuts batches");
        let mut state = self.state.lock();
        if state.deleted {
            return Accepted::default();
        }
        let position = self.take_in(&mut state, publications, now, effects);
        let backlogged = !state.consumers.is_empty()
            && (state.ready.len() > BACKLOG_LEN || state.ready.bytes() > BACKLOG_BYTES);
        Accepted { position, backlogged }
    }

    fn take_in(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        now: u64,
        effects: &mut Effects,
    ) -> LogPosition {
        let settings = &self.spec.settings;
        let refuses = settings.overflow != Overflow::DropHead
            && (settings.max_length.is_some() || settings.max_length_bytes.is_some());
        if refuses {
            // One by one: whether there is room for a message depends on what became of those before.
            let mut position = LogPosition::default();
            for (index, publication) in publications.iter().enumerate() {
                if state.has_room_for(publication, settings) {
                    let one = std::slice::from_ref(publication);
                    position = self.accept(state, one, now, effects).max(position);
                } else {
                    effects.rejected.push(u32::try_from(index).unwrap_or(u32::MAX));
                    if settings.overflow == Overflow::RejectPublishDeadLetter {
                        let place = Place { seq: NEVER, expires_at: NEVER, logged: false };
                        let entry = place.entry(publication.to_message());
                        effects.dead.push((entry, DeathReason::MaxLength));
                    }
                }
            }
            return position;
        }
        self.accept(state, publications, now, effects)
    }

    fn accept(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        now: u64,
        effects: &mut Effects,
    ) -> LogPosition {
        let mut places = std::mem::take(&mut state.scratch.places);
        places.clear();
        let mut any_logged = false;
        for publication in publications {
            let attributes = publication.attributes();
            let logged = self.spec.durable && attributes.persistent;
            any_logged |= logged;
            let ttl = match (self.spec.settings.message_ttl, attributes.expiration) {
                (None, None) => NEVER,
                (a, b) => a.unwrap_or(NEVER).min(b.unwrap_or(NEVER)),
            };
            places.push(Place { seq: state.next_seq, expires_at: now.saturating_add(ttl), logged });
            state.next_seq += 1;
        }
        let position = if any_logged {
            let mut records =
                publications.iter().zip(&places).filter(|(_, place)| place.logged).map(
                    |(publication, place)| Record::Enqueue {
                        queue: self.id,
                        seq: place.seq,
                        publication,
                    },
                );
            self.log.append(&mut records)
        } else {
            LogPosition::default()
        };
        let mut rest = 0;
        if state.ready.is_empty() && !state.consumers.is_empty() {
            rest = self.hand_over(state, publications, &places);
        }
        if rest < publications.len() || !state.ready.is_empty() {
            let mut watch = false;
            for (publication, place) in publications.iter().zip(&places).skip(rest) {
                watch |= place.expires_at != NEVER;
                state.ready.push_back(place.entry(publication.to_message()));
            }
            // Consumers may have room although messages wait: the backlog goes first.
            while self.dispatch(state, now, effects) {}
            self.drop_overflow(state, effects);
            self.note_expiry(state, watch, effects);
        }
        state.scratch.places = places;
        position
    }

    fn log_settled(&self, seqs: &mut dyn Iterator<Item = u64>) {
        self.log.append(&mut seqs.map(|seq| Record::Settle { queue: self.id, seq }));
    }

    /// Drops messages from the head while the queue is longer than it may be (`drop-head`).
    fn drop_overflow(&self, state: &mut State, effects: &mut Effects) {
        let settings = &self.spec.settings;
        if settings.max_length.is_none() && settings.max_length_bytes.is_none() {
            return;
        }
        let over = |state: &State| {
            settings.max_length.is_some_and(|max| state.ready.len() as u64 > max)
                || settings.max_length_bytes.is_some_and(|max| state.ready.bytes() > max)
        };
        while over(state) {
            let Some(entry) = state.ready.pop_front() else {
                break;
            };
            self.bury(entry, DeathReason::MaxLength, effects);
        }
    }

    /// Drops at most [`BATCH_MAX`] messages that have expired at the head; gives whether that was all.
    fn drop_expired(&self, state: &mut State, now: u64, effects: &mut Effects) -> bool {
        for _ in 0..BATCH_MAX {
            let Some(entry) = state.ready.pop_expired(now) else { return true };
            self.bury(entry, DeathReason::Expired, effects);
        }
        false
    }

    /// Settles a message that died and, where the queue has a dead-letter exchange, passes it on.
    fn bury(&self, entry: Entry, reason: DeathReason, effects: &mut Effects) {
        if entry.logged {
            self.log_settled(&mut std::iter::once(entry.seq));
        }
        if self.spec.settings.dead_letter.is_some() {
            effects.dead.push((entry, reason));
        }
    }

    /// Notes when the sweep has to look again; `entered` when a message that expires has come in.
    fn note_expiry(&self, state: &mut State, entered: bool, effects: &mut Effects) {
        if entered && !state.watched {
            state.watched = true;
            effects.watch_expiry = true;
        }
        if state.watched {
            // Relaxed: a hint that the sweep reads again in a moment.
            self.next_expiry.store(state.ready.next_expiry(), Ordering::Relaxed);
        }
    }

    /// Adds a consumer and serves it at once.
    ///
    /// `started` runs under the queue's lock before the first delivery: whatever tells the client that it
    /// consumes goes there, so that it stands before the first message.
    ///
    /// # Errors
    /// [`SubscribeError`] when somebody's exclusive use is in the way or the queue is gone.
    pub fn subscribe(
        &self,
        subscription: Subscription,
        started: impl FnOnce(ConsumerId),
        now: u64,
        effects: &mut Effects,
    ) -> Result<ConsumerId, SubscribeError> {
        let mut state = self.state.lock();
        if state.deleted {
            return Err(SubscribeError::Deleted);
        }
        let held = state.consumers.iter().any(|consumer| consumer.subscription.exclusive);
        let wanted = subscription.exclusive;
        let refused = held
            || (wanted && !state.consumers.is_empty())
            || (wanted && self.spec.settings.single_active_consumer);
        if refused {
            return Err(SubscribeError::ExclusiveUse);
        }
        let id = ConsumerId(state.next_consumer_id);
        state.next_consumer_id += 1;
        state.used_at = now;
        state.consumers.push(Consumer { id, subscription, blocked: false });
        state.active = state.active.or(Some(id));
        started(id);
        self.serve(state, now, effects);
        Ok(id)
    }

    /// Removes a consumer; what it has not acknowledged stays with its channel.
    pub fn cancel(&self, id: ConsumerId, now: u64, effects: &mut Effects) {
        let mut state = self.state.lock();
        let Some(index) = state.consumers.iter().position(|consumer| consumer.id == id) else {
            return;
        };
        state.consumers.remove(index);
        if state.turn > index {
            state.turn -= 1;
        }
        if state.active == Some(id) {
            state.elect();
        }
        state.used_at = now;
        effects.delete_queue |=
            self.spec.auto_delete && state.consumers.is_empty() && !state.deleted;
        // With a single active consumer the next one takes over.
        self.serve(state, now, effects);
    }

    /// A consumer that had no room has some again.
    pub fn resume(&self, id: ConsumerId, now: u64, effects: &mut Effects) {
        let mut state = self.state.lock();
        if let Some(consumer) = state.consumers.iter_mut().find(|consumer| consumer.id == id) {
            consumer.blocked = false;
            self.serve(state, now, effects);
        }
    }

    /// Takes the first message for a `basic.get`, and the number of those still ready behind it.
    ///
    /// With `no_ack` the message is settled at once.
    pub fn get(&self, no_ack: bool, now: u64, effects: &mut Effects) -> Option<(Entry, u64)> {
        let mut state = self.state.lock();
        state.used_at = now;
        while !self.drop_expired(&mut state, now, effects) {}
        let entry = state.ready.pop_front();
        self.note_expiry(&mut state, false, effects);
        let entry = entry?;
        if no_ack {
            if entry.logged {
                self.log_settled(&mut std::iter::once(entry.seq));
            }
        } else {
            state.unacked += 1;
            state.unacked_bytes += entry.message.body_len() as u64;
        }
        Some((entry, state.ready.len() as u64))
    }

    /// Settles messages that a consumer acknowledged; leaves `entries` empty. Gives the position at which
    /// the acknowledgements are durable.
    pub fn ack(&self, entries: &mut Vec<Entry>) -> LogPosition {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        let mut position = LogPosition::default();
        if entries.iter().any(|entry| entry.logged) {
            let mut settled = entries
                .iter()
                .filter(|entry| entry.logged)
                .map(|entry| Record::Settle { queue: self.id, seq: entry.seq });
            position = self.log.append(&mut settled);
        }
        drop(state);
        entries.clear();
        position
    }

    /// Puts messages that were delivered back to their places, flagged as redelivered; leaves `entries`
    /// empty. Those that came back more often than `x-delivery-limit` allows die instead.
    pub fn requeue(&self, entries: &mut Vec<Entry>, now: u64, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        if state.deleted {
            entries.clear();
            return;
        }
        for entry in &mut *entries {
            entry.redelivered = true;
            entry.returns = entry.returns.saturating_add(1);
        }
        if let Some(limit) = self.spec.settings.delivery_limit {
            let too_often = |entry: &mut Entry| u64::from(entry.returns) > limit;
            for entry in entries.extract_if(.., too_often) {
                self.bury(entry, DeathReason::DeliveryLimit, effects);
            }
        }
        state.ready.restore(entries);
        let expires = state.ready.next_expiry() != NEVER;
        self.note_expiry(&mut state, expires, effects);
        self.drop_overflow(&mut state, effects);
        self.serve(state, now, effects);
    }

    /// Drops messages that a consumer rejected, or dead-letters them; leaves `entries` empty.
    pub fn reject(&self, entries: &mut Vec<Entry>, effects: &mut Effects) {
        let mut state = self.state.lock();
        state.forget_unacked(entries);
        let deleted = state.deleted;
        drop(state);
        for entry in entries.drain(..) {
            if !deleted {
                self.bury(entry, DeathReason::Rejected, effects);
            }
        }
    }

    /// Drops every message that is ready; gives their number.
    pub fn purge(&self) -> u64 {
        let mut state = self.state.lock();
        let entries = state.ready.take_all();
        let count = entries.len() as u64;
        let mut logged =
            entries.iter().filter(|entry| entry.logged).map(|entry| entry.seq).peekable();
        if logged.peek().is_some() {
            self.log_settled(&mut logged);
        }
        drop(state);
        count
    }

    /// Marks the queue as deleted, unless a condition keeps it, and gives the messages that were ready, to be
    /// dropped where no lock is held. Its consumers are told. The registry removes it.
    ///
    /// # Errors
    /// [`KeepReason`] when `if_empty` or `if_unused` is asked for and does not hold.
    pub(crate) fn delete(&self, if_unused: bool, if_empty: bool) -> Result<Vec<Entry>, KeepReason> {
        let mut state = self.state.lock();
        if if_empty && !state.ready.is_empty() {
            return Err(KeepReason::NotEmpty);
        }
        if if_unused && !state.consumers.is_empty() {
            return Err(KeepReason::InUse);
        }
        state.deleted = true;
        let entries = state.ready.take_all();
        let consumers = std::mem::take(&mut state.consumers);
        drop(state);
        for consumer in consumers {
            consumer.subscription.sink.cancelled(consumer.subscription.slot);
        }
        Ok(entries)
    }

    /// Whether the queue has been deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.state.lock().deleted
    }

    /// Drops what has expired at the head, if the hint says that something may have.
    /// At most [`BATCH_MAX`] messages; gives whether that was all.
    pub fn sweep(&self, now: u64, effects: &mut Effects) -> bool {
        // Relaxed: a hint; a message that is missed now is found at the next sweep.
        if self.next_expiry.load(Ordering::Relaxed) > now {
            return true;
        }
        let mut state = self.state.lock();
        let all = self.drop_expired(&mut state, now, effects);
        self.note_expiry(&mut state, false, effects);
        all
    }

    /// Whether nobody has used the queue for as long as `x-expires` allows.
    #[must_use]
    pub fn is_abandoned(&self, now: u64) -> bool {
        let Some(expires) = self.spec.settings.expires else {
            return false;
        };
        let state = self.state.lock();
        !state.deleted && state.consumers.is_empty() && now >= state.used_at.saturating_add(expires)
    }

    /// Somebody declared the queue again: that is a use of it.
    pub fn touch(&self, now: u64) {
        if self.spec.settings.expires.is_some() {
            self.state.lock().used_at = now;
        }
    }

    /// Counts at this moment.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let state = self.state.lock();
        Depth {
            ready: state.ready.len() as u64,
            ready_bytes: state.ready.bytes(),
            unacked: state.unacked,
            unacked_bytes: state.unacked_bytes,
            consumers: state.consumers.len() as u64,
        }
    }

    /// Its consumers, in the order of their arrival.
    #[must_use]
    pub fn consumers(&self) -> Vec<ConsumerListing> {
        let state = self.state.lock();
        let active = if self.spec.settings.single_active_consumer {
            state.single_active().map(|consumer| consumer.id)
        } else {
            None
        };
        state
            .consumers
            .iter()
            .map(|consumer| ConsumerListing {
                tag: Arc::clone(&consumer.subscription.tag),
                channel: Arc::clone(&consumer.subscription.channel),
                ack_required: !consumer.subscription.no_ack,
                exclusive: consumer.subscription.exclusive,
                prefetch_count: consumer.subscription.prefetch_count,
                active: active.is_none_or(|active| active == consumer.id),
                arguments: consumer.subscription.arguments.clone(),
            })
            .collect()
    }
}

impl State {
    fn has_room_for(&self, publication: &Publication<'_>, settings: &QueueArguments) -> bool {
        let length = self.ready.len() as u64;
        let bytes = self.ready.bytes() + publication.body_len() as u64;
        settings.max_length.is_none_or(|max| length < max)
            && settings.max_length_bytes.is_none_or(|max| bytes <= max)
    }

    fn forget_unacked(&mut self, entries: &[Entry]) {
        let bytes: usize = entries.iter().map(|entry| entry.message.body_len()).sum();
        self.unacked = self.unacked.saturating_sub(entries.len() as u64);
        self.unacked_bytes = self.unacked_bytes.saturating_sub(bytes as u64);
    }
}

#[cfg(test)]
mod tests;
