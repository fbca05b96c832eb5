//! The `tx` class: publishes and acknowledgements that take effect together, at `tx.commit`.
//!
//! Routing and all checks happen when a message is published; only the enqueueing waits. A settled delivery
//! leaves the unacknowledged ones at once and comes back with `tx.rollback`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker_core::consumer::Fate;
use broker_core::log::LogPosition;
use broker_core::queue::Effects;
use broker_core::storage::StorageError;
use broker_core::{Message, Publication};
use proto_amqp::control::protocol::{AMQPClass, tx};
use proto_amqp::{ChannelId, MethodId};

use super::channel::Facts;
use super::consume::Settlement;
use super::error::Exception;
use super::routes::Route;
use super::session::Session;
use crate::shares::Shares;

pub(super) const COMMIT: MethodId = MethodId { class: 90, method: 20 };

/// What a channel has done since the last commit or rollback.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    publishes: Vec<Publish>,
    settlements: Vec<Settlement>,
    octets: usize,
}

#[derive(Debug)]
struct Publish {
    message: Message,
    route: Arc<Route>,
    mandatory: bool,
}

impl Transaction {
    pub(super) fn publish(
        &mut self,
        message: Message,
        route: Arc<Route>,
        mandatory: bool,
        facts: &Facts,
    ) {
        self.octets += message.memory_len();
        self.publishes.push(Publish { message, route, mandatory });
        // Relaxed: for lists.
        facts.uncommitted.store(self.publishes.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn settle(&mut self, settlement: Settlement, facts: &Facts) {
        self.settlements.push(settlement);
        facts.acks_uncommitted.store(self.settlements.len() as u64, Ordering::Relaxed);
    }

    /// Octets of messages that wait for the commit.
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    fn forget(facts: &Facts) {
        facts.uncommitted.store(0, Ordering::Relaxed);
        facts.acks_uncommitted.store(0, Ordering::Relaxed);
    }
}

/// The log has not taken a transaction.
pub(super) fn not_committed(reason: &str) -> Exception {
    Exception::precondition(format!("not committed: {reason}"), COMMIT)
}

fn commit_ok() -> AMQPClass {
    AMQPClass::Tx(tx::AMQPMethod::CommitOk(tx::CommitOk {}))
}

impl Session {
    pub(super) fn on_tx(
        &mut self,
        id: ChannelId,
        method: &tx::AMQPMethod,
    ) -> Result<(), Exception> {
        use tx::AMQPMethod as Tx;
        match method {
            Tx::Select(_) => self.on_tx_select(id),
            Tx::Commit(_) => self.on_tx_commit(id),
            Tx::Rollback(_) => self.on_tx_rollback(id),
            other => {
                let other = AMQPClass::Tx(other.clone());
                Err(Exception::unimplemented(proto_amqp::method::id_of(&other, self.version)))
            }
        }
    }

    fn on_tx_select(&mut self, id: ChannelId) -> Result<(), Exception> {
        let select = MethodId { class: 90, method: 10 };
        let Some(channel) = self.channels.get_mut(&id.0) else { return Ok(()) };
        if channel.confirms.is_some() {
            return Err(Exception::precondition("cannot switch from confirm to tx mode", select));
        }
        channel.transaction.get_or_insert_default();
        channel.facts.transactional.store(true, Ordering::Relaxed);
        self.send(id, AMQPClass::Tx(tx::AMQPMethod::SelectOk(tx::SelectOk {})));
        Ok(())
    }

    fn take_transaction(
        &mut self,
        id: ChannelId,
        method: MethodId,
    ) -> Result<Transaction, Exception> {
        let channel = self.channels.get_mut(&id.0);
        let transaction = channel.and_then(|channel| {
            Transaction::forget(&channel.facts);
            channel.transaction.as_mut().map(std::mem::take)
        });
        transaction.ok_or_else(|| Exception::precondition("channel is not transactional", method))
    }

    /// All of it in one step: publishes, then settlements. Returns precede commit-ok, which says that all of it survives
    /// a crash: dead letters that are still on their way too.
    fn on_tx_commit(&mut self, id: ChannelId) -> Result<(), Exception> {
        let Transaction { publishes, settlements, .. } = self.take_transaction(id, COMMIT)?;
        let Some(vhost) = self.vhost.clone() else { return Ok(()) };
        let mut publications = Vec::with_capacity(publishes.len());
        let mut shares = Shares::default();
        for Publish { message, route, mandatory } in publishes {
            self.batch.received += 1;
            self.batch.sizes.add(message.body_len() as u64);
            let publication = Publication::Owned(message);
            // Whoever wants it back is told too when its queues have gone since it was routed.
            let gone = || route.queues.iter().all(|queue| queue.is_deleted());
            if route.queues.is_empty() || (mandatory && gone()) {
                self.unroutable(id, mandatory, &publication, None);
                continue;
            }
            self.batch.routed += 1;
            shares.add(&route.queues, publications.len());
            publications.push(publication);
        }
        let mut resumable = Vec::new();
        let settles = self.settles_of(id, settlements, &mut resumable);
        let now = self.node.clock.now();
        let mut effects = Effects::default();
        let list = &mut shares.list;
        let done = vhost.commit(&publications, list, settles, &mut effects, now);
        self.resume(&mut resumable, now);
        let outcome = done.map_err(|error| not_committed(error.for_peers()))?;
        self.batch.backlogged |= outcome.backlogged;
        if !outcome.rejected.is_empty() {
            return Err(Exception::precondition("partial tx completion", COMMIT));
        }
        if let Some(burial) = effects.take_burial(&*self.node.broker.log) {
            self.reply_after(burial, id, COMMIT, commit_ok());
            return Ok(());
        }
        // Commits of a channel are answered in order: the client tells them apart by nothing else.
        let earlier = self.commits_waiting.iter().filter(|(_, channel)| *channel == id);
        let earlier = earlier.map(|(position, _)| *position).max().unwrap_or_default();
        let position = outcome.position.max(effects.position).max(earlier);
        self.commits_waiting.push((position, id));
        self.answer_commits();
        Ok(())
    }

    /// Answers the commits that the log has made durable.
    pub(super) fn answer_commits(&mut self) {
        if self.commits_waiting.is_empty() {
            return;
        }
        self.answer_commits_up_to(self.node.broker.log.durable_up_to());
        if !self.commits_waiting.is_empty() {
            let durable = self.log_wait.mark(&self.node, &self.shared);
            self.answer_commits_up_to(durable);
        }
        if self.node.is_log_lost() {
            // Once a channel, however many of its commits wait.
            while let Some(&(_, id)) = self.commits_waiting.first() {
                self.commits_waiting.retain(|(_, channel)| *channel != id);
                self.on_exception(id, &not_committed(StorageError::LOST));
            }
        }
    }

    fn answer_commits_up_to(&mut self, durable: LogPosition) {
        let due: Vec<_> =
            self.commits_waiting.extract_if(.., |(position, _)| *position <= durable).collect();
        for (_, id) in due {
            if self.channels.contains_key(&id.0) {
                self.send(id, commit_ok());
            }
        }
    }

    fn on_tx_rollback(&mut self, id: ChannelId) -> Result<(), Exception> {
        let rollback = MethodId { class: 90, method: 30 };
        let transaction = self.take_transaction(id, rollback)?;
        {
            let mut state = self.outlet.lock();
            if let Some(channel) = state.deliveries.channels.get_mut(&id.0) {
                for settlement in transaction.settlements.into_iter().rev() {
                    for (tag, settled) in settlement.deliveries.into_iter().rev() {
                        channel.unacked.restore(tag, settled);
                    }
                }
            }
        }
        self.send(id, AMQPClass::Tx(tx::AMQPMethod::RollbackOk(tx::RollbackOk {})));
        Ok(())
    }

    /// What a transaction had settled when its channel ends goes back with the rest.
    pub(super) fn abandon_transaction(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id.0) else { return };
        let Some(transaction) = channel.transaction.take() else { return };
        for mut settlement in transaction.settlements {
            settlement.fate = Fate::Requeued;
            self.carry_out_settlement(id, settlement);
        }
    }
}
