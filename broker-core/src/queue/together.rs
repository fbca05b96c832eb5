//! Several queues in one step: a message to many of them, a transaction, a dead letter out of one and into another.
//!
//! All queues are locked, in the order of their ids; every message gets its places; one batch goes to the log; then the
//! messages enter their queues. So the log has all of it or nothing, and a body that several queues share once.

use std::sync::Arc;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{Dead, Effects, LogPosition, Pending, Queue, QueueId, State};
use crate::consumer::{Fate, Outstanding, Place};
use crate::log::records::Records;
use crate::message::Publication;
use crate::storage::{MessageRef, StorageError};
use crate::vhost::VirtualHost;

/// What one queue gets of a list of publications.
#[derive(Debug)]
pub struct Share {
    /// The queue; no two shares have the same.
    pub queue: Arc<Queue>,
    /// Indices of its publications, rising.
    pub indices: Vec<u32>,
}

/// Deliveries from one queue that a transaction settles.
#[derive(Debug)]
pub struct Settle {
    /// The queue.
    pub queue: Arc<Queue>,
    /// What becomes of them.
    pub fate: Fate,
    /// The deliveries.
    pub entries: Vec<Outstanding>,
}

/// Numbers of messages that the log holds.
pub(crate) type Seqs = SmallVec<[u64; 8]>;

/// What the log is told of messages that were delivered from a queue, in the same step.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// They leave for good: acknowledged, dropped, or dead-lettered.
    Gone(QueueId, Seqs),
    /// They come back.
    Requeued(QueueId, Seqs),
}

/// What became of a step.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Where the log has to come before all of it is durable.
    pub position: LogPosition,
    /// Indices of publications that a queue refused, rising.
    pub rejected: Vec<u32>,
    /// The publisher does well to slow down.
    pub backlogged: bool,
}

/// A queue's part while all of them are locked.
struct Part<'q> {
    share: &'q Share,
    state: MutexGuard<'q, State>,
    /// What it takes: indices and places.
    taken: Vec<(u32, Place)>,
    effects: Effects,
}

impl VirtualHost {
    /// Publishes to several queues in one step: the log has all of it or nothing. Queues that are not durable take their
    /// share in the same step.
    ///
    /// # Errors
    /// [`StorageError`] when the log takes nothing: then nothing has happened.
    pub fn publish_together(
        &self,
        publications: &[Publication<'_>],
        shares: &mut [Share],
        now: u64,
    ) -> Result<Outcome, StorageError> {
        self.publish_together_with(publications, shares, &[], now, |queue, dead| {
            // Nobody is told when what was pushed out has arrived elsewhere.
            self.dead_letter(queue, dead, now);
        })
    }

    /// Carries out a transaction: what it publishes and what it settles, in one step. What it rejects and a queue
    /// dead-letters follows in steps of its own, and what has to be read first, or finds the disk full, may be still on
    /// its way when this returns: [`Effects::take_burial`] says so. Nothing else is left in `effects`.
    ///
    /// # Errors
    /// [`StorageError`] when the log takes nothing: then nothing is published, and the deliveries are back in their
    /// queues.
    pub fn commit(
        &self,
        publications: &[Publication<'_>],
        shares: &mut [Share],
        settles: Vec<Settle>,
        effects: &mut Effects,
        now: u64,
    ) -> Result<Outcome, StorageError> {
        if settles.iter().any(|settle| settle.fate == Fate::Rejected) {
            effects.attend();
        }
        let noted: Vec<Settlement> = settles.iter().filter_map(Settle::noted).collect();
        let mut done =
            self.publish_together_with(publications, shares, &noted, now, |queue, dead| {
                self.dead_letter(queue, dead, now);
            });
        drop(noted);
        for Settle { queue, fate, mut entries } in settles {
            match fate {
                _ if done.is_err() => queue.requeue(&mut entries, now, effects),
                Fate::Acked => queue.acked(&mut entries),
                Fate::Rejected if !queue.dead_letters() => queue.acked(&mut entries),
                Fate::Rejected => queue.reject(&mut entries, effects),
                Fate::Requeued => queue.requeued(&mut entries, now, effects),
            }
            self.carry_out(&queue, effects, now);
        }
        let position = std::mem::take(&mut effects.position);
        if let Ok(done) = &mut done {
            done.position = done.position.max(position);
        }
        done
    }

    /// Publishes to several queues and notes settlements in one step; the queues are told of those by the caller,
    /// afterwards. `dying` is for what dies of it.
    pub(crate) fn publish_together_with(
        &self,
        publications: &[Publication<'_>],
        shares: &mut [Share],
        settled: &[Settlement],
        now: u64,
        mut dying: impl FnMut(&Arc<Queue>, Vec<Dead>),
    ) -> Result<Outcome, StorageError> {
        shares.sort_unstable_by_key(|share| share.queue.id);
        debug_assert!(
            shares.is_sorted_by(|one, next| one.queue.id < next.queue.id),
            "a queue is locked once"
        );
        let mut outcome = Outcome::default();
        let mut parts: Vec<Part<'_>> = Vec::with_capacity(shares.len());
        for share in &*shares {
            let state = share.queue.state.lock();
            let (taken, effects) = (Vec::new(), Effects::default());
            parts.push(Part { share, state, taken, effects });
        }
        for part in &mut parts {
            part.find_places(publications, now);
        }
        outcome.position = match self.log_together(publications, &parts, settled, now) {
            Ok(position) => position,
            Err(error) => {
                parts.iter_mut().for_each(|part| part.effects.abandon());
                return Err(error);
            }
        };
        let mut left = Vec::new();
        for mut part in parts {
            part.enter(publications, now);
            outcome.rejected.append(&mut part.effects.rejected);
            outcome.backlogged |= part.share.queue.is_backlogged(&part.state);
            if !part.effects.is_empty() {
                left.push((&part.share.queue, part.effects));
            }
        }
        for (queue, mut effects) in left {
            if std::mem::take(&mut effects.unserved) {
                // Here, so that what dies of it goes on behind what has died before, and one after the other.
                queue.serve_on(now, &mut effects);
            }
            let dead = std::mem::take(&mut effects.dead);
            self.carry_out(queue, &mut effects, now);
            if !dead.is_empty() {
                dying(queue, dead);
            }
        }
        outcome.rejected.sort_unstable();
        outcome.rejected.dedup();
        Ok(outcome)
    }

    fn log_together(
        &self,
        publications: &[Publication<'_>],
        parts: &[Part<'_>],
        settled: &[Settlement],
        now: u64,
    ) -> Result<LogPosition, StorageError> {
        let log = self.log();
        if !log.keeps() {
            return Ok(LogPosition::START);
        }
        let mut targets: Vec<SmallVec<[MessageRef; 2]>> = vec![SmallVec::new(); publications.len()];
        for part in parts {
            for (index, place) in part.taken.iter().filter(|(_, place)| place.logged) {
                if let Some(targets) = targets.get_mut(*index as usize) {
                    targets.push(MessageRef { queue: part.share.queue.id.0, seq: place.seq });
                }
            }
        }
        let published_at = log.started_at_unix_ms().saturating_add(now);
        Records::with(|records| {
            for (index, (publication, targets)) in publications.iter().zip(targets).enumerate() {
                if !targets.is_empty() {
                    records.enqueue(index, publication, published_at, targets);
                }
            }
            for settlement in settled {
                match settlement {
                    Settlement::Gone(queue, seqs) => {
                        records.settle(*queue, seqs.iter().copied());
                    }
                    Settlement::Requeued(queue, seqs) => {
                        records.requeued(*queue, seqs.iter().copied());
                    }
                }
            }
            if records.is_empty() {
                return Ok(LogPosition::START);
            }
            // Somebody waits for it: a publisher, or the client of a transaction.
            records.sync();
            records.append(log, publications)
        })
    }
}

impl Settle {
    /// What the log is told; a rejected message leaves it when it enters the next queue.
    fn noted(&self) -> Option<Settlement> {
        let logged = || self.entries.iter().filter(|entry| entry.logged).map(|entry| entry.seq);
        match self.fate {
            Fate::Rejected if self.queue.dead_letters() => None,
            Fate::Acked | Fate::Rejected => {
                Some(Settlement::Gone(self.queue.id, logged().collect()))
            }
            Fate::Requeued => Some(Settlement::Requeued(self.queue.id, logged().collect())),
        }
    }
}

impl Queue {
    fn dead_letters(&self) -> bool {
        self.spec.settings.dead_letter.is_some()
    }

    /// Deliveries have gone, and the log knows; leaves `entries` empty.
    fn acked(&self, entries: &mut Vec<Outstanding>) {
        self.forget(entries);
        entries.clear();
    }
}

impl Part<'_> {
    /// Gives every publication that the queue takes its place.
    fn find_places(&mut self, publications: &[Publication<'_>], now: u64) {
        let queue = &*self.share.queue;
        if self.state.deleted {
            return;
        }
        let settings = &queue.spec.settings;
        let mut pending = Pending::default();
        for &index in &self.share.indices {
            let Some(publication) = publications.get(index as usize) else { continue };
            if settings.refuses() && !self.state.has_room_for(publication, pending, settings) {
                queue.refuse(index as usize, publication, &mut self.effects);
                continue;
            }
            pending.len += 1;
            pending.bytes += publication.body_len() as u64;
            self.taken.push((index, queue.place(&mut self.state, publication, now)));
        }
    }

    fn enter(&mut self, publications: &[Publication<'_>], now: u64) {
        let places: SmallVec<[Place; 16]> = self.taken.iter().map(|(_, place)| *place).collect();
        let queue = &*self.share.queue;
        let (state, effects) = (&mut *self.state, &mut self.effects);
        if self.taken.len() == publications.len() {
            queue.enter(state, publications, &places, now, effects);
            return;
        }
        let indices = self.taken.iter().map(|(index, _)| *index as usize);
        let own: SmallVec<[Publication<'_>; 16]> =
            indices.filter_map(|index| publications.get(index)).cloned().collect();
        queue.enter(state, &own, &places, now, effects);
    }
}
