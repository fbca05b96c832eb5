//! The events of a history, sorted by what they are about.

use std::collections::{BTreeMap, HashMap};

use super::{
    ACK_DELAY, ACK_MARGIN, Entry, Event, Finding, History, MessageId, TransactionId, Verdict,
};

/// A place in [`History::entries`].
pub(super) type Index = usize;

/// A message in one of its queues.
pub(super) type CopyId<'h> = (MessageId, &'h str);

/// What is known of a message.
#[derive(Debug, Default)]
pub(super) struct Message<'h> {
    pub(super) published: Option<Index>,
    pub(super) queues: &'h [String],
    pub(super) persistent: bool,
    pub(super) crc: u32,
    pub(super) tx: Option<TransactionId>,
    /// `Confirmed` and `Refused`.
    pub(super) answers: Vec<Index>,
}

/// What is known of a copy.
#[derive(Debug, Default)]
pub(super) struct Copy {
    pub(super) deliveries: Vec<Index>,
    pub(super) acks: Vec<Ack>,
    pub(super) requeues: Vec<Index>,
}

/// An ack of a copy.
#[derive(Debug)]
pub(super) struct Ack {
    pub(super) sent: Index,
    pub(super) tx: Option<TransactionId>,
    /// The broker's receipt.
    pub(super) acked: Option<Index>,
    /// The first answer to something that the client has sent after it in the same life.
    pub(super) answered: Option<Index>,
}

/// What is known of a transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction<'h> {
    pub(super) commits: Vec<Index>,
    pub(super) committed: Vec<Index>,
    pub(super) rolled_back: bool,
    pub(super) publishes: Vec<MessageId>,
    pub(super) acks: Vec<CopyId<'h>>,
}

/// What is known of a life of the broker.
#[derive(Debug, Default)]
pub(super) struct Life<'h> {
    pub(super) killed: bool,
    pub(super) stopped: bool,
    /// When the last of those persistent publishes and commits was sent that were confirmed.
    last_kept_us: Option<u64>,
    /// The first delivery of each queue.
    first_deliveries: HashMap<&'h str, Index>,
    /// When the last of the same was sent, as an index.
    last_kept: Option<Index>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Facts<'h> {
    pub(super) history: &'h History,
    pub(super) messages: BTreeMap<MessageId, Message<'h>>,
    pub(super) copies: BTreeMap<CopyId<'h>, Copy>,
    pub(super) transactions: BTreeMap<TransactionId, Transaction<'h>>,
    pub(super) lives: BTreeMap<u32, Life<'h>>,
    /// The last time that each queue was found empty.
    pub(super) drained: HashMap<&'h str, Index>,
}

impl<'h> Facts<'h> {
    /// Sorts the events.
    pub(super) fn new(history: &'h History) -> Self {
        let mut facts = Self {
            history,
            messages: BTreeMap::new(),
            copies: BTreeMap::new(),
            transactions: BTreeMap::new(),
            lives: BTreeMap::new(),
            drained: HashMap::new(),
        };
        let mut answers = answers(history.entries()).into_iter();
        for (index, entry) in history.entries().iter().enumerate() {
            let answered = answers.next().flatten();
            facts.take(index, entry, answered);
        }
        facts.find_kept();
        facts
    }

    fn take(&mut self, index: Index, entry: &'h Entry, answered: Option<Index>) {
        let life = self.lives.entry(entry.life).or_default();
        match &entry.event {
            Event::Started | Event::Begun { .. } | Event::Answered | Event::Garbled { .. } => {}
            Event::Killed => life.killed = true,
            Event::Stopped => life.stopped = true,
            Event::Published { id, queues, persistent, crc, tx } => {
                let message = self.messages.entry(*id).or_default();
                assert!(message.published.is_none(), "{id} is published twice: ids are for once");
                message.published = Some(index);
                (message.queues, message.persistent) = (queues, *persistent);
                (message.crc, message.tx) = (*crc, *tx);
                if let Some(tx) = tx {
                    self.transactions.entry(*tx).or_default().publishes.push(*id);
                }
            }
            Event::Confirmed { id } | Event::Refused { id } => {
                self.messages.entry(*id).or_default().answers.push(index);
            }
            Event::Delivered { id, queue, .. } => {
                life.first_deliveries.entry(queue).or_insert(index);
                self.copies.entry((*id, queue)).or_default().deliveries.push(index);
            }
            Event::AckSent { id, queue, tx } => {
                let ack = Ack { sent: index, tx: *tx, acked: None, answered };
                self.copies.entry((*id, queue)).or_default().acks.push(ack);
                if let Some(tx) = tx {
                    self.transactions.entry(*tx).or_default().acks.push((*id, queue));
                }
            }
            Event::Acked { id, queue } => {
                let same = |ack: &&mut Ack| {
                    ack.acked.is_none()
                        && self.history.entries().get(ack.sent).is_some_and(|sent| {
                            (sent.client, sent.life) == (entry.client, entry.life)
                        })
                };
                let copy = self.copies.entry((*id, queue)).or_default();
                if let Some(ack) = copy.acks.iter_mut().find(same) {
                    ack.acked = Some(index);
                }
            }
            Event::Requeued { id, queue } => {
                self.copies.entry((*id, queue)).or_default().requeues.push(index);
            }
            Event::CommitSent { tx } => {
                self.transactions.entry(*tx).or_default().commits.push(index);
            }
            Event::Committed { tx } => {
                self.transactions.entry(*tx).or_default().committed.push(index);
            }
            Event::RolledBack { tx } => {
                self.transactions.entry(*tx).or_default().rolled_back = true;
            }
            Event::Drained { queue } => {
                self.drained.insert(queue, index);
            }
        }
    }

    /// Notes for each life the last of what was sent and confirmed in it.
    fn find_kept(&mut self) {
        let messages =
            self.messages.values().filter(|message| message.persistent).filter_map(|message| {
                let confirmed = self.confirmed_by(message)?;
                // The commit has a pair of its own.
                message.tx.is_none().then_some((message.published?, confirmed))
            });
        let commits = self
            .transactions
            .values()
            .filter(|transaction| !transaction.publishes.is_empty())
            .filter_map(|tx| Some((*tx.commits.first()?, *tx.committed.first()?)));
        let kept: Vec<(Index, Index)> = messages.chain(commits).collect();
        for (sent, confirmed) in kept {
            let life = self.life_of(sent);
            if life != self.life_of(confirmed) {
                continue;
            }
            let at_us = self.at_us(sent);
            if let Some(life) = self.lives.get_mut(&life) {
                life.last_kept = life.last_kept.max(Some(sent));
                life.last_kept_us = life.last_kept_us.max(Some(at_us));
            }
        }
    }

    pub(super) fn entry(&self, index: Index) -> Option<&'h Entry> {
        self.history.entries().get(index)
    }

    pub(super) fn life_of(&self, index: Index) -> u32 {
        self.entry(index).map_or(0, |entry| entry.life)
    }

    fn at_us(&self, index: Index) -> u64 {
        self.entry(index).map_or(0, |entry| entry.at_us)
    }

    /// The event that confirms a message, its own or its transaction's.
    pub(super) fn confirmed_by(&self, message: &Message<'_>) -> Option<Index> {
        match message.tx {
            Some(tx) => self.transactions.get(&tx)?.committed.first().copied(),
            None => message.answers.iter().copied().find(|index| {
                matches!(
                    self.entry(*index).map(|entry| &entry.event),
                    Some(Event::Confirmed { .. })
                )
            }),
        }
    }

    /// Whether an ack counts: those of a transaction do once its commit was sent.
    pub(super) fn counts(&self, ack: &Ack) -> bool {
        match ack.tx {
            None => true,
            Some(tx) => self.transactions.get(&tx).is_some_and(|tx| !tx.commits.is_empty()),
        }
    }

    /// The event from which on an ack is known to be kept for ever.
    pub(super) fn kept_from(&self, ack: &Ack) -> Option<Index> {
        if let Some(tx) = ack.tx {
            return self.transactions.get(&tx)?.committed.first().copied();
        }
        if ack.acked.is_some() {
            return ack.acked;
        }
        let answered = ack.answered?;
        let life = self.lives.get(&self.life_of(answered))?;
        let delay = u64::try_from((ACK_DELAY + ACK_MARGIN).as_micros()).unwrap_or(u64::MAX);
        let written = life.last_kept_us >= Some(self.at_us(answered) + delay);
        // Within the life this says no more than the answer does.
        (life.stopped || written).then_some(answered)
    }

    /// Whether what a life has delivered of a queue is certainly noted in the log.
    pub(super) fn is_noted(&self, life: u32, queue: &str) -> bool {
        let Some(life) = self.lives.get(&life) else { return false };
        life.stopped
            || life.first_deliveries.get(queue).is_some_and(|first| life.last_kept > Some(*first))
    }

    /// A finding about a copy.
    pub(super) fn about_copy(
        &self,
        verdict: Verdict,
        (id, queue): CopyId<'_>,
        why: String,
        events: impl IntoIterator<Item = Index>,
    ) -> Finding {
        let queue = Some(queue.to_owned());
        Finding { verdict, id: Some(id), queue, tx: None, why, events: self.lines(events) }
    }

    /// The lines of some events, in order, each once.
    pub(super) fn lines(&self, events: impl IntoIterator<Item = Index>) -> Vec<String> {
        let mut events: Vec<Index> = events.into_iter().collect();
        events.sort_unstable();
        events.dedup();
        events.into_iter().map(|index| self.history.line(index)).collect()
    }
}

/// For each event the first `Answered` of the same client in the same life behind it.
fn answers(entries: &[Entry]) -> Vec<Option<Index>> {
    let mut latest: HashMap<(usize, u32), Index> = HashMap::new();
    let mut answers = vec![None; entries.len()];
    for (index, (entry, slot)) in entries.iter().zip(&mut answers).enumerate().rev() {
        let key = (entry.client, entry.life);
        if matches!(entry.event, Event::Answered) {
            latest.insert(key, index);
        } else if matches!(entry.event, Event::AckSent { .. }) {
            *slot = latest.get(&key).copied();
        }
    }
    answers
}
