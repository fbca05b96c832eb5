//! A broker in a few collections, with clients that use it at random and write down what they see.
//!
//! What is on its disk and what is not is told apart as in a real one: operations wait in a list, each whole or
//! not at all, until a flush writes them and answers for them. A crash writes a few more of them, forgets the rest, and
//! rebuilds the queues from the disk. A [`Fault`] breaks one of these rules now and then, and counts how often it did so
//! in a way that clients must be able to notice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use warren_tests::history::{Body, Entry, Event, History, MessageId, TransactionId, read_body};

/// Queues of the broker.
const QUEUES: usize = 3;

/// Clients 0 to 2 produce, the others consume, two for each queue; the last one is the supervisor and drains.
const PRODUCERS: usize = 3;
const CONSUMERS: usize = 2 * QUEUES;
const SUPERVISOR: usize = PRODUCERS + CONSUMERS;

/// How far ahead a note of what was delivered runs.
const NOTE_STEP: u64 = 64;

/// Microseconds that an operation may wait.
const ACK_DELAY_US: u64 = 20_000;

/// Microseconds after which an ack that was answered for by a later confirm is certainly kept.
const SETTLED_US: u64 = 100_000;

/// What a broker may do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    LosesConfirmed,
    ConfirmsBeforeKeeping,
    DeliversWhatNobodyPublished,
    DeliversFromAnotherQueue,
    DeliversRolledBack,
    FlipsAnOctet,
    SwapsBodies,
    DuplicatesSilently,
    ForgetsTheFlagOfRequeued,
    ForgetsTheFlagAfterACrash,
    ResurrectsAfterTheReceipt,
    ResurrectsOldAcks,
    ResurrectsWithinALife,
    Reorders,
    KeepsHalfOfTheStores,
    KeepsStoresWithoutAcks,
    KeepsAcksWithoutStores,
    ConfirmsTwice,
    ConfirmsWhatNobodyPublished,
    CommitsUnasked,
}

/// A message in a queue.
#[derive(Debug, Clone, Copy)]
struct Stored {
    /// Its place in the queue.
    place: u64,
    id: MessageId,
    persistent: bool,
    redelivered: bool,
    /// The fault has taken its flag away.
    stripped: bool,
}

/// A queue in memory.
#[derive(Debug, Default)]
struct Line {
    ready: VecDeque<Stored>,
    /// With the client that holds it.
    unacked: Vec<(usize, Stored)>,
    noted: u64,
}

impl Line {
    fn put_back(&mut self, stored: Stored) {
        let at = self.ready.partition_point(|other| other.place < stored.place);
        self.ready.insert(at, stored);
    }
}

/// A queue and a place in it.
type Place = (usize, u64);

/// What goes to disk whole or not at all.
#[derive(Debug, Default)]
struct Operation {
    since_us: u64,
    stores: Vec<(Place, MessageId)>,
    acks: Vec<Place>,
    noted: Option<Place>,
    answer: Option<(usize, Event)>,
    /// When the publish was sent that this is.
    published_us: Option<u64>,
    confirmed_early: bool,
}

/// What survives a crash.
#[derive(Debug, Default)]
struct Disk {
    stored: BTreeMap<Place, MessageId>,
    noted: [u64; QUEUES],
}

impl Disk {
    fn write(&mut self, operation: &Operation) {
        self.stored.extend(operation.stores.iter().copied());
        for place in &operation.acks {
            self.stored.remove(place);
        }
        if let Some((queue, noted)) = operation.noted {
            self.noted[queue] = self.noted[queue].max(noted);
        }
    }
}

/// An ack without transaction and receipt.
#[derive(Debug)]
struct PlainAck {
    client: usize,
    place: Place,
    stored: Stored,
    answered_us: Option<u64>,
}

pub(super) struct Simulation {
    rng: StdRng,
    fault: Option<Fault>,
    /// How often the fault has shown.
    pub(super) injected: usize,
    entries: Vec<Entry>,
    life: u32,
    now_us: u64,
    lines: [Line; QUEUES],
    pending: VecDeque<Operation>,
    disk: Disk,
    next_place: u64,
    next_seq: u64,
    next_tx: u64,
    /// All that was published for certain, and where to.
    published: Vec<(MessageId, Vec<usize>)>,
    /// Octets of padding in each body.
    paddings: BTreeMap<MessageId, usize>,
    /// What somebody has sent an ack for, with or without transaction.
    ack_sent: BTreeSet<Place>,
    confirmed: BTreeSet<MessageId>,
    delivered: BTreeSet<Place>,
    rolled_back: BTreeSet<MessageId>,
    plain_acks: Vec<PlainAck>,
    /// Acks on disk that a receipt or a commit has answered for.
    receipted: Vec<(Place, MessageId)>,
    waiting_receipts: Vec<(Place, MessageId)>,
    /// When the last publish was sent that this life has confirmed.
    kept_us: u64,
}

impl Simulation {
    /// Runs a broker for a while, through a few crashes and to the final drain.
    pub(super) fn run(seed: u64, fault: Option<Fault>) -> (History, usize) {
        let mut simulation = Self {
            rng: StdRng::seed_from_u64(seed),
            fault,
            injected: 0,
            entries: Vec::new(),
            life: 1,
            now_us: 0,
            lines: Default::default(),
            pending: VecDeque::new(),
            disk: Disk::default(),
            next_place: 0,
            next_seq: 0,
            next_tx: 0,
            published: Vec::new(),
            paddings: BTreeMap::new(),
            ack_sent: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            delivered: BTreeSet::new(),
            rolled_back: BTreeSet::new(),
            plain_acks: Vec::new(),
            receipted: Vec::new(),
            waiting_receipts: Vec::new(),
            kept_us: 0,
        };
        simulation.note(SUPERVISOR, Event::Started);
        for _ in 0..600 {
            simulation.step();
        }
        simulation.crash();
        simulation.drain();
        let clients = (0..=SUPERVISOR).map(|client| format!("client-{client}")).collect();
        (History::new(clients, simulation.entries), simulation.injected)
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    /// Whether the broker has this fault and now is a moment for it.
    fn fails(&mut self, fault: Fault, one_in: u32) -> bool {
        self.fault == Some(fault) && self.chance(one_in)
    }

    fn note(&mut self, client: usize, event: Event) {
        self.now_us += 50;
        let order = self.entries.len() as u64;
        self.entries.push(Entry { order, at_us: self.now_us, life: self.life, client, event });
    }

    fn step(&mut self) {
        match self.rng.random_range(0..140) {
            0..30 => self.publish(),
            30..40 => self.transaction(),
            40..75 => self.deliver_any(),
            75..103 => self.ack(),
            103..107 => self.requeue(),
            107..113 => self.answer(),
            113..118 => {
                self.flush();
                self.now_us += self.rng.random_range(1..300_000);
            }
            118..138 => self.flush(),
            _ => self.crash(),
        }
        let oldest = self.pending.front().map(|operation| operation.since_us);
        if oldest.is_some_and(|since| since + ACK_DELAY_US < self.now_us) {
            self.flush();
        }
    }

    fn append(&mut self, mut operation: Operation) {
        operation.since_us = self.now_us;
        self.pending.push_back(operation);
    }

    fn flush(&mut self) {
        while let Some(operation) = self.pending.pop_front() {
            self.disk.write(&operation);
            let Some((client, event)) = operation.answer else { continue };
            self.kept_us = self.kept_us.max(operation.published_us.unwrap_or_default());
            match &event {
                Event::Confirmed { id } => {
                    self.confirmed.insert(*id);
                }
                Event::Committed { .. } => {
                    self.confirmed.extend(operation.stores.iter().map(|(_, id)| *id));
                }
                _ => {}
            }
            let kept = |place: &Place| operation.acks.contains(place);
            self.receipted.extend(self.waiting_receipts.extract_if(.., |(place, _)| kept(place)));
            self.note(client, event.clone());
            if self.fails(Fault::ConfirmsTwice, 10) {
                self.note(client, event);
                self.injected += 1;
            }
        }
    }

    /// The next message of a producer, its body and up to three queues for it.
    fn message(&mut self, producer: usize) -> (MessageId, Body, Vec<usize>) {
        self.next_seq += 1;
        let id = MessageId { producer: producer.try_into().unwrap(), seq: self.next_seq };
        let padding = self.rng.random_range(0..20);
        self.paddings.insert(id, padding);
        let mut queues: Vec<usize> = (0..QUEUES).filter(|_| self.chance(2)).collect();
        if queues.is_empty() {
            queues.push(self.rng.random_range(0..QUEUES));
        }
        (id, Body::new(id, padding), queues)
    }

    fn enqueue(
        &mut self,
        id: MessageId,
        queues: &[usize],
        persistent: bool,
    ) -> Vec<(Place, MessageId)> {
        let mut stores = Vec::new();
        for &queue in queues {
            self.next_place += 1;
            let place = self.next_place;
            let stored = Stored { place, id, persistent, redelivered: false, stripped: false };
            self.lines[queue].ready.push_back(stored);
            stores.push(((queue, place), id));
        }
        stores
    }

    fn publish(&mut self) {
        let client = self.rng.random_range(0..PRODUCERS);
        let (id, body, queues) = self.message(client);
        let persistent = !self.chance(5);
        let names = queues.iter().map(|queue| name(*queue)).collect();
        self.note(
            client,
            Event::Published { id, queues: names, persistent, crc: body.crc, tx: None },
        );
        let published_us = Some(self.now_us);
        let stores = self.enqueue(id, &queues, persistent);
        self.published.push((id, queues));
        if !persistent {
            self.note(client, Event::Confirmed { id });
        } else if self.fails(Fault::ConfirmsBeforeKeeping, 2) {
            self.note(client, Event::Confirmed { id });
            self.append(Operation { stores, confirmed_early: true, ..Operation::default() });
        } else {
            let answer = Some((client, Event::Confirmed { id }));
            self.append(Operation { stores, answer, published_us, ..Operation::default() });
        }
        if self.fails(Fault::ConfirmsWhatNobodyPublished, 20) {
            let id = MessageId { producer: 99, seq: self.next_seq };
            self.note(client, Event::Confirmed { id });
            self.injected += 1;
        }
    }

    /// A consumer moves up to two of its deliveries on, or gives the transaction up.
    fn transaction(&mut self) {
        let client = PRODUCERS + self.rng.random_range(0..CONSUMERS);
        self.next_tx += 1;
        let tx = TransactionId(self.next_tx);
        if self.fails(Fault::CommitsUnasked, 3) {
            self.note(client, Event::Committed { tx });
            self.injected += 1;
            return;
        }
        self.note(client, Event::Begun { tx });
        let queue = (client - PRODUCERS) / 2;
        let mine = |held: &&(usize, Stored)| held.0 == client;
        let count = self.rng.random_range(0..3);
        let acked: Vec<Stored> =
            self.lines[queue].unacked.iter().filter(mine).take(count).map(|held| held.1).collect();
        for stored in &acked {
            self.note(client, Event::AckSent { id: stored.id, queue: name(queue), tx: Some(tx) });
        }
        let mut messages = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let (id, body, queues) = self.message(client);
            let names = queues.iter().map(|queue| name(*queue)).collect();
            let (persistent, crc) = (true, body.crc);
            self.note(
                client,
                Event::Published { id, queues: names, persistent, crc, tx: Some(tx) },
            );
            messages.push((id, queues));
        }
        let gives_up = self.chance(4);
        self.note(
            client,
            if gives_up { Event::RolledBack { tx } } else { Event::CommitSent { tx } },
        );
        let published_us = Some(self.now_us);
        if gives_up && self.fault != Some(Fault::DeliversRolledBack) {
            return;
        }
        let mut operation = Operation { published_us, ..Operation::default() };
        for (id, queues) in messages {
            operation.stores.extend(self.enqueue(id, &queues, true));
            if gives_up {
                self.rolled_back.insert(id);
            } else {
                self.published.push((id, queues));
            }
        }
        if !gives_up {
            for stored in acked {
                self.lines[queue].unacked.retain(|held| held.1.place != stored.place);
                let place = (queue, stored.place);
                self.ack_sent.insert(place);
                operation.acks.push(place);
                if stored.persistent {
                    self.waiting_receipts.push((place, stored.id));
                }
            }
            operation.answer = Some((client, Event::Committed { tx }));
        }
        self.append(operation);
    }

    fn deliver_any(&mut self) {
        let queue = self.rng.random_range(0..QUEUES);
        let client = PRODUCERS + 2 * queue + self.rng.random_range(0..2);
        if self.fails(Fault::DeliversWhatNobodyPublished, 20) {
            let id = MessageId { producer: 99, seq: self.next_seq };
            self.arrive(client, queue, id, false);
            self.injected += 1;
        }
        if self.fails(Fault::DeliversFromAnotherQueue, 20) {
            let elsewhere =
                self.published.iter().rev().find(|(_, queues)| !queues.contains(&queue));
            if let Some((id, _)) = elsewhere {
                self.arrive(client, queue, *id, false);
                self.injected += 1;
            }
        }
        let (first, second) = (self.lines[queue].ready.front(), self.lines[queue].ready.get(1));
        if let (Some(first), Some(second)) = (first, second) {
            let same = first.id.producer == second.id.producer;
            if same && !first.redelivered && !second.redelivered && self.fails(Fault::Reorders, 2) {
                self.lines[queue].ready.swap(0, 1);
                self.deliver(client, queue);
                self.injected += 1;
            }
        }
        self.deliver(client, queue);
    }

    fn deliver(&mut self, client: usize, queue: usize) -> bool {
        let Some(stored) = self.lines[queue].ready.pop_front() else { return false };
        if stored.place + NOTE_STEP / 2 > self.lines[queue].noted {
            self.lines[queue].noted = stored.place + NOTE_STEP;
            let noted = Some((queue, self.lines[queue].noted));
            self.append(Operation { noted, ..Operation::default() });
        }
        let again = !self.delivered.insert((queue, stored.place));
        self.injected += usize::from(stored.stripped && again);
        self.injected += usize::from(self.rolled_back.contains(&stored.id));
        self.arrive(client, queue, stored.id, stored.redelivered);
        if self.fails(Fault::DuplicatesSilently, 10) {
            self.arrive(client ^ 1, queue, stored.id, false);
            self.injected += 1;
        }
        self.lines[queue].unacked.push((client, stored));
        true
    }

    /// A client receives octets.
    fn arrive(&mut self, client: usize, queue: usize, id: MessageId, redelivered: bool) {
        let padding = self.paddings.get(&id).copied().unwrap_or_default();
        let mut body = Body::new(id, padding);
        if self.fails(Fault::FlipsAnOctet, 20) {
            let at = self.rng.random_range(0..body.octets.len());
            body.octets[at] ^= 1 << self.rng.random_range(0..8);
            self.injected += 1;
        }
        if self.fails(Fault::SwapsBodies, 20) {
            body = Body::new(id, padding + 1);
            self.injected += 1;
        }
        let queue = name(queue);
        self.note(
            client,
            match read_body(&body.octets) {
                Some((id, crc)) => Event::Delivered { id, queue, redelivered, crc },
                None => Event::Garbled { queue, start: body.octets.escape_ascii().to_string() },
            },
        );
    }

    fn take_unacked(&mut self) -> Option<(usize, usize, Stored)> {
        let queue = self.rng.random_range(0..QUEUES);
        let held = self.lines[queue].unacked.len();
        if held == 0 {
            return None;
        }
        let (client, stored) = self.lines[queue].unacked.remove(self.rng.random_range(0..held));
        Some((queue, client, stored))
    }

    fn ack(&mut self) {
        let Some((queue, client, stored)) = self.take_unacked() else { return };
        let id = stored.id;
        self.note(client, Event::AckSent { id, queue: name(queue), tx: None });
        let place = (queue, stored.place);
        self.ack_sent.insert(place);
        let receipt = self.chance(4);
        if receipt && stored.persistent {
            self.waiting_receipts.push((place, id));
        } else if !receipt {
            self.plain_acks.push(PlainAck { client, place, stored, answered_us: None });
        }
        let answer = receipt.then(|| (client, Event::Acked { id, queue: name(queue) }));
        self.append(Operation { acks: vec![place], answer, ..Operation::default() });
    }

    fn requeue(&mut self) {
        let Some((queue, client, mut stored)) = self.take_unacked() else { return };
        self.note(client, Event::Requeued { id: stored.id, queue: name(queue) });
        stored.stripped = self.fault == Some(Fault::ForgetsTheFlagOfRequeued);
        stored.redelivered = !stored.stripped;
        self.lines[queue].put_back(stored);
    }

    fn answer(&mut self) {
        let client = PRODUCERS + self.rng.random_range(0..CONSUMERS);
        self.note(client, Event::Answered);
        let now_us = self.now_us;
        let mine = self.plain_acks.iter_mut().filter(|ack| ack.client == client);
        for ack in mine.filter(|ack| ack.answered_us.is_none()) {
            ack.answered_us = Some(now_us);
        }
        let answered = self.plain_acks.iter().rev().find(|ack| ack.answered_us.is_some());
        let answered = answered.map(|ack| (ack.place.0, ack.stored.id));
        if let Some((queue, id)) = answered
            && self.fails(Fault::ResurrectsWithinALife, 2)
        {
            self.arrive(PRODUCERS + 2 * queue, queue, id, true);
            self.injected += 1;
        }
    }

    fn crash(&mut self) {
        if self.fault == Some(Fault::LosesConfirmed) {
            let certain = |place: &&Place| !self.ack_sent.contains(*place);
            let certain = self.disk.stored.keys().filter(certain).nth(2).copied();
            if let Some(place) = certain {
                self.disk.stored.remove(&place);
                self.injected += 1;
            }
        }
        if self.fault == Some(Fault::ResurrectsAfterTheReceipt)
            && let Some((place, id)) = self.receipted.pop()
        {
            self.disk.stored.insert(place, id);
            self.injected += 1;
        }
        if self.fault == Some(Fault::ResurrectsOldAcks) {
            let kept_us = self.kept_us;
            let settled = |ack: &&PlainAck| {
                ack.stored.persistent
                    && ack.answered_us.is_some_and(|answered| answered + SETTLED_US <= kept_us)
            };
            if let Some(ack) = self.plain_acks.iter().find(settled) {
                self.disk.stored.insert(ack.place, ack.stored.id);
                self.injected += 1;
            }
        }
        let written = self.rng.random_range(0..=self.pending.len());
        for (index, mut operation) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if index < written {
                self.break_transaction(&mut operation);
                self.disk.write(&operation);
            } else if operation.confirmed_early {
                let lost = operation.stores.iter().filter(|(at, _)| !self.ack_sent.contains(at));
                self.injected += lost.count();
            }
        }
        self.note(SUPERVISOR, Event::Killed);
        self.life += 1;
        self.note(SUPERVISOR, Event::Started);
        self.lines = Default::default();
        for (&(queue, place), id) in &self.disk.stored {
            let flagged = place < self.disk.noted[queue];
            let stripped = flagged && self.fault == Some(Fault::ForgetsTheFlagAfterACrash);
            let redelivered = flagged && !stripped;
            let stored = Stored { place, id: *id, persistent: true, redelivered, stripped };
            self.lines[queue].ready.push_back(stored);
        }
        for (queue, line) in self.lines.iter_mut().enumerate() {
            line.noted = self.disk.noted[queue];
        }
        self.plain_acks.clear();
        self.waiting_receipts.clear();
        self.kept_us = 0;
    }

    /// Takes a part of a transaction away that nobody was told of yet.
    fn break_transaction(&mut self, operation: &mut Operation) {
        if !matches!(operation.answer, Some((_, Event::Committed { .. }))) {
            return;
        }
        let open = |(place, _): &(Place, MessageId)| !self.ack_sent.contains(place);
        let back = |place: &Place| self.disk.stored.contains_key(place);
        let shows = match self.fault {
            Some(Fault::KeepsHalfOfTheStores) if operation.stores.len() > 1 => {
                let dropped = operation.stores.split_off(operation.stores.len() / 2);
                dropped.iter().any(open)
            }
            Some(Fault::KeepsStoresWithoutAcks) => {
                std::mem::take(&mut operation.acks).iter().any(back) && !operation.stores.is_empty()
            }
            Some(Fault::KeepsAcksWithoutStores) => {
                let confirmed = |place: &Place| {
                    self.disk.stored.get(place).is_some_and(|id| self.confirmed.contains(id))
                };
                let dropped = std::mem::take(&mut operation.stores);
                operation.acks.iter().any(confirmed) && dropped.iter().any(open)
            }
            _ => false,
        };
        self.injected += usize::from(shows);
    }

    fn drain(&mut self) {
        for queue in 0..QUEUES {
            while self.deliver(SUPERVISOR, queue) {
                let Some((_, stored)) = self.lines[queue].unacked.pop() else { continue };
                let id = stored.id;
                self.note(SUPERVISOR, Event::AckSent { id, queue: name(queue), tx: None });
            }
            self.note(SUPERVISOR, Event::Drained { queue: name(queue) });
        }
    }
}

fn name(queue: usize) -> String {
    format!("queue-{queue}")
}
