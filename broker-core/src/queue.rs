//! A queue: messages in order, consumers with room, and one short lock around both.
//!
//! The one idea: work arrives in batches and is done under a single hold of the lock. A batch that meets an
//! empty queue and a consumer with room is handed straight to the consumer's sink and never stored. A
//! message that was delivered and not yet acknowledged belongs to the channel that received it; the queue
//! only counts it. What a batch leaves to do elsewhere (dead letters, deletion) comes back as [`Effects`],
//! for the caller to carry out when the lock is free again.
//!
//! Persistent messages of a durable queue go to the log before anybody sees them, and under the same hold of
//! the lock, so that the order there is the order here. Of a long backlog memory holds only the beginning:
//! see `queue/load.rs`.

pub mod arguments;
mod burial;
mod dispatch;
mod dying;
mod effects;
mod get;
mod keep;
mod load;
mod ready;
mod settle;
mod together;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use parking_lot::{Condvar, Mutex};

use crate::arguments::Arguments;
use crate::consumer::{ConnectionId, ConsumerId, Entry, Outstanding, Place, Subscription};
use crate::log::records::Records;
use crate::log::{Log, LogPosition};
use crate::message::Publication;
use crate::name::QueueName;
use crate::vhost::VirtualHost;
use arguments::{Overflow, QueueArguments};
pub use burial::{Burial, Dead};
use dying::{Doomed, Stranded};
pub use effects::Effects;
pub use get::{Got, Unreadable};
pub use load::Loaded;
use ready::{Everything, Ready};
pub(crate) use together::Settlement;
pub use together::{Outcome, Settle, Share};

/// The most messages that one hold of a queue's lock moves.
pub const BATCH_MAX: usize = 256;

/// Batches from the backlog that a publisher hands out before it lets others have the lock.
const SERVED_AT_ONCE: usize = 32;

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

/// What a deleted queue had in memory. To be dropped where no lock is held, since there may be much of it, and when the
/// log knows of the deletion: who waits for rejected messages learns then that they are gone.
#[must_use]
#[derive(Debug)]
pub(crate) struct Remains {
    _entries: Vec<Entry>,
    _stranded: Vec<Dead>,
    _doomed: VecDeque<Dead<Outstanding>>,
}

/// What became of a batch of publications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Where the log has to come before all of the batch is durable; for transient messages and in
    /// transient queues it has come there already.
    pub position: LogPosition,
    /// The queue has consumers and they do not keep up, or the disk does not: its publishers do well to slow
    /// down.
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

/// Messages that were taken away at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// How many were ready.
    pub count: u64,
    /// Where the log has to come before they, and their queue if it went with them, are gone for good.
    pub position: LogPosition,
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
    /// Where the log has to come before a restart finds the queue; a transient one waits for nothing.
    pub defined_at: LogPosition,
    me: Weak<Self>,
    home: Weak<VirtualHost>,
    log: Arc<dyn Log>,
    /// Persistent messages go to the log.
    keeps: bool,
    /// Everything that changes. Held for one batch at a time.
    state: Mutex<State>,
    /// A block of the backlog has been read, or could not be.
    loaded: Condvar,
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
    /// Somebody reads the backlog ahead.
    loading: bool,
    stranded: Stranded,
    doomed: Doomed,
    /// Messages numbered below may have been delivered before the last restart.
    delivered_below: u64,
    /// One more than the highest number that was ever handed out.
    handed_out: u64,
    /// Messages numbered up to here count as delivered after a crash: what the log was told.
    delivered_noted: Option<u64>,
    /// How often messages came back before the last restart.
    returns: HashMap<u64, u16, foldhash::fast::RandomState>,
    scratch: Scratch,
}

/// What a restart has found of a queue.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its messages have numbers from here …
    pub from: u64,
    /// … to here, exclusively.
    pub until: u64,
    /// New ones go on from here.
    pub next_seq: u64,
    /// How many there are.
    pub len: u64,
    /// Octets of their bodies, about.
    pub bytes: u64,
    /// Those numbered below may have been delivered before.
    pub delivered_below: u64,
    /// Messages that had come back from consumers, and how often.
    pub returns: Vec<(u64, u32)>,
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
    /// Messages that have left and of which the log has to be told.
    settled: Vec<u64>,
}

struct Consumer {
    id: ConsumerId,
    subscription: Subscription,
    /// It had no room when it was last asked; it will resume by itself.
    blocked: bool,
    /// Another consumer of this queue is, or was, on the same channel: what the two get has one order.
    shares_channel: bool,
}

impl Consumer {
    fn is_beside(&self, other: &Subscription) -> bool {
        Arc::ptr_eq(&self.subscription.sink, &other.sink)
            && self.subscription.channel == other.channel
    }
}

impl Queue {
    /// A new, empty queue in the virtual host `home`, whose definition ends at `defined_at` in the log.
    #[must_use]
    pub fn new(
        id: QueueId,
        spec: QueueSpec,
        home: Weak<VirtualHost>,
        log: Arc<dyn Log>,
        now: u64,
        defined_at: LogPosition,
    ) -> Arc<Self> {
        Self::with(id, spec, home, log, now, defined_at, Found::default())
    }

    /// A queue as a restart has found it.
    #[must_use]
    pub fn restored(
        id: QueueId,
        spec: QueueSpec,
        home: Weak<VirtualHost>,
        log: Arc<dyn Log>,
        now: u64,
        found: Found,
    ) -> Arc<Self> {
        // What a restart has found may still have to be written once more.
        let defined_at = log.appended_up_to();
        Self::with(id, spec, home, log, now, defined_at, found)
    }

    fn with(
        id: QueueId,
        spec: QueueSpec,
        home: Weak<VirtualHost>,
        log: Arc<dyn Log>,
        now: u64,
        defined_at: LogPosition,
        found: Found,
    ) -> Arc<Self> {
        let mut ready = Ready::new(spec.settings.max_priority, Arc::clone(log.budget()));
        ready.found(found.from, found.until, found.len, found.bytes);
        let returns = found.returns.into_iter();
        // The log's note runs ahead of what was delivered; new messages have not been.
        let delivered_below = found.delivered_below.min(found.next_seq);
        let state = State {
            ready,
            next_seq: found.next_seq,
            unacked: 0,
            unacked_bytes: 0,
            consumers: Vec::new(),
            next_consumer_id: 0,
            turn: 0,
            active: None,
            deleted: false,
            // The registry watches a queue that expires from the start, and one that was found with messages: whether
            // they expire is known when the first has been read.
            watched: spec.settings.expires.is_some() || found.len > 0,
            used_at: now,
            loading: false,
            stranded: Stranded::default(),
            doomed: Doomed::default(),
            delivered_below,
            handed_out: delivered_below,
            delivered_noted: found.delivered_below.checked_sub(1),
            returns: returns
                .map(|(seq, times)| (seq, u16::try_from(times).unwrap_or(u16::MAX)))
                .collect(),
            scratch: Scratch::default(),
        };
        let keeps = spec.durable && log.keeps();
        Arc::new_cyclic(|me| Self {
            id,
            spec,
            defined_at,
            me: Weak::clone(me),
            home,
            log,
            keeps,
            state: Mutex::new(state),
            loaded: Condvar::new(),
            // The first sweep has a look at what was found.
            next_expiry: AtomicU64::new(if found.len > 0 { 0 } else { NEVER }),
        })
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
        Accepted { position, backlogged: self.is_backlogged(&state) }
    }

    fn is_backlogged(&self, state: &State) -> bool {
        let behind = !state.consumers.is_empty()
            && (state.ready.len() > BACKLOG_LEN || state.ready.bytes() > BACKLOG_BYTES);
        // Messages that are to be dropped have to be read first.
        let dropping = state.ready.has_unread() && self.is_overfull(state);
        behind || dropping || (self.keeps && self.log.is_pressed())
    }

    fn take_in(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        now: u64,
        effects: &mut Effects,
    ) -> LogPosition {
        if !self.spec.settings.refuses() {
            return self.accept(state, publications, 0, now, effects);
        }
        // One by one: whether there is room for a message depends on what became of those before.
        let mut position = LogPosition::START;
        for (index, publication) in publications.iter().enumerate() {
            if state.has_room_for(publication, Pending::default(), &self.spec.settings) {
                let one = std::slice::from_ref(publication);
                position = self.accept(state, one, index, now, effects).max(position);
            } else {
                self.refuse(index, publication, effects);
            }
        }
        position
    }

    /// The queue is full.
    fn refuse(&self, index: usize, publication: &Publication<'_>, effects: &mut Effects) {
        effects.rejected.push(u32::try_from(index).unwrap_or(u32::MAX));
        if self.spec.settings.overflow == Overflow::RejectPublishDeadLetter {
            let place = Place { seq: NEVER, expires_at: NEVER, logged: false };
            let entry = place.entry(publication.to_message());
            effects.dead.push(Dead::unattended(entry, DeathReason::MaxLength));
        }
    }

    /// The next place in the queue.
    fn place(&self, state: &mut State, publication: &Publication<'_>, now: u64) -> Place {
        let attributes = publication.attributes();
        let seq = state.next_seq;
        state.next_seq += 1;
        let expires_at = self.expires_at(attributes.expiration, now);
        Place { seq, expires_at, logged: self.keeps && attributes.persistent }
    }

    /// When a message expires that was published at `at`.
    fn expires_at(&self, expiration: Option<u64>, at: u64) -> u64 {
        match (self.spec.settings.message_ttl, expiration) {
            (None, None) => NEVER,
            (a, b) => at.saturating_add(a.unwrap_or(NEVER).min(b.unwrap_or(NEVER))),
        }
    }

    /// Takes publications in, which begin at index `first` of what the caller was given.
    fn accept(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        first: usize,
        now: u64,
        effects: &mut Effects,
    ) -> LogPosition {
        let mut places = std::mem::take(&mut state.scratch.places);
        places.clear();
        places.extend(publications.iter().map(|there| self.place(state, there, now)));
        let logged = self.log_enqueued(publications, &places, now);
        match &logged {
            Ok(_) => self.enter(state, publications, &places, now, effects),
            Err(error) => {
                effects.log_refused = Some(error.for_peers().into());
                let indices = first..first + publications.len();
                effects.rejected.extend(indices.filter_map(|index| u32::try_from(index).ok()));
            }
        }
        state.scratch.places = places;
        logged.unwrap_or_default()
    }

    /// Publications that have their places, and are in the log if they have to be, go to consumers or into the line.
    fn enter(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        places: &[Place],
        now: u64,
        effects: &mut Effects,
    ) {
        let mut rest = 0;
        if state.ready.is_empty() && !state.consumers.is_empty() {
            rest = self.hand_over(state, publications, places);
        }
        if rest < publications.len() || !state.ready.is_empty() {
            for (publication, place) in publications.iter().zip(places).skip(rest) {
                state.ready.publish(publication, *place);
            }
            // Consumers may have room although messages wait: the backlog goes first. A few batches at once, or a
            // consumer would be woken for each; what is more is done where the lock is free again.
            let more = (0..SERVED_AT_ONCE).all(|_| self.dispatch(state, now, effects));
            effects.unserved |= more;
            self.drop_overflow(state, effects);
            self.finish(state, effects);
        }
    }

    /// The last thing of every change: tells the log and the budget what has changed, notes when the sweep has to
    /// look again, and has more of the backlog read when it runs low.
    fn finish(&self, state: &mut State, effects: &mut Effects) {
        self.flush_settled(state);
        state.ready.charge();
        self.watch_if_wanted(state, effects);
        self.load_if_wanted(state);
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
        let mut shares_channel = false;
        for other in state.consumers.iter_mut().filter(|other| other.is_beside(&subscription)) {
            other.shares_channel = true;
            shares_channel = true;
        }
        state.consumers.push(Consumer { id, subscription, blocked: false, shares_channel });
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

    /// Consumers that had no room have some again.
    pub fn resume(&self, ids: &[ConsumerId], now: u64, effects: &mut Effects) {
        let mut state = self.state.lock();
        for consumer in state.consumers.iter_mut().filter(|consumer| ids.contains(&consumer.id)) {
            consumer.blocked = false;
        }
        self.serve(state, now, effects);
    }

    /// Drops every message that is ready.
    pub fn purge(&self) -> Removed {
        let mut state = self.state.lock();
        let count = state.ready_len();
        let Everything { entries, bare, away } = state.ready.take_all();
        let (stranded, doomed) = (state.stranded.take(), state.doomed.take());
        let position = Records::with(|records| {
            let here = entries.iter().chain(stranded.iter().map(|dead| &dead.entry));
            let logged = here.filter(|entry| entry.logged).map(|entry| entry.seq);
            let doomed = doomed.iter().map(|dead| &dead.entry);
            let doomed = doomed.filter(|entry| entry.logged).map(|entry| entry.seq);
            records.settle(self.id, logged.chain(bare).chain(doomed));
            if let Some(range) = away {
                records.settle_range(self.id, range);
            }
            if records.is_empty() {
                return LogPosition::START;
            }
            // Somebody waits for it.
            records.sync();
            // What cannot be noted down is back after a restart.
            records.append(&*self.log, &[]).unwrap_or(LogPosition::NEVER)
        });
        drop(state);
        // Now that the log knows, who waits for those that died may know too.
        drop((stranded, doomed));
        Removed { count, position }
    }

    /// Marks the queue as deleted, unless a condition keeps it, and gives the number of messages that were ready and
    /// what was in memory. Its consumers are told. The registry removes it, and tells the log.
    ///
    /// # Errors
    /// [`KeepReason`] when `if_empty` or `if_unused` is asked for and does not hold.
    pub(crate) fn delete(
        &self,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<(u64, Remains), KeepReason> {
        let mut state = self.state.lock();
        if if_empty && state.ready_len() > 0 {
            return Err(KeepReason::NotEmpty);
        }
        if if_unused && !state.consumers.is_empty() {
            return Err(KeepReason::InUse);
        }
        state.deleted = true;
        let count = state.ready_len();
        let Everything { entries, .. } = state.ready.take_all();
        let (stranded, doomed) = (state.stranded.take(), state.doomed.take());
        let consumers = std::mem::take(&mut state.consumers);
        drop(state);
        for consumer in consumers {
            consumer.subscription.sink.cancelled(consumer.subscription.slot);
        }
        Ok((count, Remains { _entries: entries, _stranded: stranded, _doomed: doomed }))
    }

    /// Whether the queue has been deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.state.lock().deleted
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
            ready: state.ready_len(),
            ready_bytes: state.ready.bytes_about() + state.stranded.bytes() + state.doomed.bytes(),
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

/// Messages that will enter together with the one at hand.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    len: u64,
    bytes: u64,
}

impl State {
    /// Messages that nobody holds, those included that only wait to be dead-lettered.
    fn ready_len(&self) -> u64 {
        (self.ready.len() + self.stranded.len() + self.doomed.len()) as u64
    }

    fn has_room_for(
        &self,
        publication: &Publication<'_>,
        pending: Pending,
        settings: &QueueArguments,
    ) -> bool {
        let length = self.ready.len() as u64 + pending.len;
        let bytes = self.ready.bytes() + pending.bytes + publication.body_len() as u64;
        settings.max_length.is_none_or(|max| length < max)
            && settings.max_length_bytes.is_none_or(|max| bytes <= max)
    }
}

#[cfg(test)]
mod tests;
