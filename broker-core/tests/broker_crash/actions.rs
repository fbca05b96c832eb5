//! What happens to the broker, chosen by the seed; here: what clients do with messages. See `definitions` for the
//! topology and `fate` for time and the disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_core::consumer::{Fate, Outstanding};
use broker_core::name::{ExchangeName, QueueName};
use broker_core::queue::{Effects, Got, Queue, Removed, Settle, Share};
use broker_core::storage::{Health, StorageError};
use broker_core::{Attributes, Message, Publication};
use proto_amqp::properties;
use rand::RngExt;

use crate::hand::Hand;
use crate::plain::{ALL_QUEUES, Change, Identity, Name, Placed, QUEUES, body_of};
use crate::world::{Consumer, Delivered, Held, World};

pub(crate) type Done = Result<(), String>;

pub(crate) fn queue_name(name: Name) -> QueueName {
    QueueName::new(name).expect("short")
}

pub(crate) fn exchange_name(name: Name) -> ExchangeName {
    ExchangeName::new(name).expect("short")
}

/// A message that is about to be published.
pub(crate) struct Fresh {
    pub(crate) identity: Identity,
    pub(crate) persistent: bool,
}

impl Fresh {
    pub(crate) fn publication(&self, exchange: Name) -> Publication<'static> {
        let attributes = Attributes { persistent: self.persistent, ..Attributes::default() };
        let body = body_of(self.identity.number);
        Publication::Owned(Message::new(
            exchange.as_bytes(),
            b"key",
            &properties::EMPTY,
            body,
            attributes,
        ))
    }
}

impl World {
    /// One action.
    pub(crate) fn act(&mut self) -> Done {
        match self.random.random_range(0..1000) {
            0..220 => self.publish_one(4),
            220..235 => self.publish_one(25),
            235..320 => self.publish_fan_out(),
            320..390 => self.get(),
            390..420 => self.consume(),
            420..435 => self.cancel(),
            435..520 => self.ack(),
            520..550 => self.reject(),
            550..580 => self.requeue(),
            580..640 => self.commit(),
            640..648 => self.purge(),
            648..680 => self.declare_queue(),
            680..688 => self.delete_queue(),
            688..696 => self.declare_exchange(),
            696..700 => self.delete_exchange(),
            700..725 => self.bind(),
            725..731 => self.unbind(),
            731..760 => self.pass_time(),
            760..800 => self.load(),
            800..805 => self.rest(),
            805..812 => self.break_disk(),
            812..820 => {
                self.fs.set_capacity(None);
                Ok(())
            }
            _ => self.disk_step(),
        }
    }

    pub(crate) fn choose<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.random.random_range(0..list.len())])
    }

    pub(crate) fn live_queues(&self, among: &[Name]) -> Vec<Name> {
        among.iter().copied().filter(|name| self.live.contains_key(name)).collect()
    }

    pub(crate) fn queue(&self, name: Name) -> Arc<Queue> {
        Arc::clone(&self.live[name].queue)
    }

    fn fresh(&mut self, count: usize) -> Vec<Fresh> {
        let one = |world: &mut Self| Fresh {
            identity: Identity { number: world.take_number(), deaths: Vec::new() },
            persistent: world.random.random_bool(0.8),
        };
        (0..count).map(|_| one(self)).collect()
    }

    // ---- publishing ----

    fn publish_one(&mut self, max: usize) -> Done {
        let candidates = self.live_queues(&QUEUES);
        let Some(name) = self.choose(&candidates) else { return Ok(()) };
        let count = self.random.random_range(1..=max);
        let fresh = self.fresh(count);
        self.publish_to(name, "", &fresh)
    }

    fn publish_to(&mut self, name: Name, exchange: Name, fresh: &[Fresh]) -> Done {
        let list: Vec<_> = fresh.iter().map(|fresh| fresh.publication(exchange)).collect();
        self.begin_deed();
        let (queue, mut effects) = (self.queue(name), Effects::default());
        let accepted = queue.publish(&list, self.now(), &mut effects);
        let rejected: BTreeSet<u32> = effects.rejected.iter().copied().collect();
        let is_log_refused = effects.log_refused.is_some();
        if is_log_refused {
            self.expect_refusals(self.refusals());
        }
        let profile = self.live[name].profile;
        let has_consumers = queue.depth().consumers > 0;
        let mut steps = Vec::new();
        for (index, fresh) in (0_u32..).zip(fresh) {
            let is_full = profile.refuses
                && profile.max_length.is_some_and(|max| self.live[name].ready.len() >= max);
            if rejected.contains(&index) {
                if !is_log_refused && !is_full {
                    return Err(format!("queue {name} has refused {:?}", fresh.identity));
                }
            } else {
                if is_full && !has_consumers {
                    return Err(format!("queue {name} is full and takes {:?}", fresh.identity));
                }
                steps.push(self.enter(name, &fresh.identity, fresh.persistent));
            }
        }
        let position = accepted.position.0;
        let steps = steps.into_iter().flatten();
        if profile.refuses {
            // One at a time.
            for one in steps {
                self.change_at(position, Change { enters: vec![one], ..Change::default() });
            }
        } else {
            self.change_at(position, Change { enters: steps.collect(), ..Change::default() });
        }
        self.carry_out(&queue, &mut effects);
        self.end_deed(Vec::new())
    }

    fn publish_fan_out(&mut self) -> Done {
        let exchanges: Vec<Name> =
            self.exchanges.iter().copied().filter(|name| *name != "graves").collect();
        let Some(exchange) = self.choose(&exchanges) else { return Ok(()) };
        let route = self.vhost().route(&exchange_name(exchange), &[b"key"], None);
        let routed: Vec<String> = match route {
            Ok(route) => route.queues.iter().map(|queue| queue.spec.name.to_string()).collect(),
            Err(refusal) => return Err(refusal.to_string()),
        };
        let names = self.bound_to(exchange);
        if routed != names {
            return Err(format!("{exchange} leads to {routed:?}, not {names:?}"));
        }
        let count = self.random.random_range(1..4);
        let fresh = self.fresh(count);
        if let [name] = names[..] {
            return self.publish_to(name, exchange, &fresh);
        }
        let all: Vec<(usize, Name)> =
            names.iter().flat_map(|name| (0..count).map(|index| (index, *name))).collect();
        self.begin_deed();
        let list: Vec<_> = fresh.iter().map(|fresh| fresh.publication(exchange)).collect();
        let (mut shares, enters, refused) = self.shares(&fresh, &all);
        match self.vhost().publish_together(&list, &mut shares, self.now()) {
            Ok(done) => {
                if done.rejected != refused {
                    return Err(format!("{:?} are refused, not {refused:?}", done.rejected));
                }
                self.enter_all(done.position.0, &enters, Change::default());
            }
            Err(error) => self.only_full(&error)?,
        }
        self.end_deed(Vec::new())
    }

    /// Who gets what of messages that enter together, and which of them a full queue refuses.
    fn shares<'f>(
        &self,
        fresh: &'f [Fresh],
        all: &[(usize, Name)],
    ) -> (Vec<Share>, Vec<(Name, &'f Fresh)>, Vec<u32>) {
        let mut shares: Vec<Share> = Vec::new();
        let (mut enters, mut refused) = (Vec::new(), BTreeSet::new());
        for name in QUEUES {
            let indices: Vec<usize> =
                all.iter().filter(|(_, to)| *to == name).map(|(index, _)| *index).collect();
            let Some(live) = self.live.get(name).filter(|_| !indices.is_empty()) else { continue };
            let max = live.profile.max_length.filter(|_| live.profile.refuses);
            let mut room = max.map_or(usize::MAX, |max| max.saturating_sub(live.ready.len()));
            for index in &indices {
                if room == 0 {
                    refused.insert(*index as u32);
                } else {
                    room -= 1;
                    enters.push((name, &fresh[*index]));
                }
            }
            let indices = indices.into_iter().map(|index| index as u32).collect();
            shares.push(Share { queue: Arc::clone(&live.queue), indices });
        }
        (shares, enters, refused.into_iter().collect())
    }

    fn enter_all(&mut self, position: u64, enters: &[(Name, &Fresh)], with: Change) {
        let placed: Vec<_> = enters
            .iter()
            .filter_map(|(name, fresh)| self.enter(name, &fresh.identity, fresh.persistent))
            .collect();
        self.change_at(position, Change { enters: placed, ..with });
    }

    /// A refusal of messages is right when the disk is full, and only then.
    fn only_full(&mut self, error: &StorageError) -> Done {
        self.expect_refusals(1);
        match (error, self.engine().health()) {
            (StorageError::DiskFull, Health::DiskFull) => Ok(()),
            _ => Err(format!("the log refuses messages: {error}")),
        }
    }

    // ---- consuming ----

    fn get(&mut self) -> Done {
        let candidates = self.live_queues(&ALL_QUEUES);
        let Some(name) = self.choose(&candidates) else { return Ok(()) };
        // With no thread that reads ahead, nobody would come to whom a get could leave it.
        self.load_all()?;
        if self.must_crash || !self.live.contains_key(name) {
            return Ok(());
        }
        let no_ack = self.random.random_bool(0.2);
        self.begin_deed();
        let (queue, mut effects) = (self.queue(name), Effects::default());
        let got = queue.get(no_ack, self.now(), &mut effects);
        self.carry_out(&queue, &mut effects);
        let got = match got {
            Ok(got) => got,
            Err(_) if self.is_faulty => None,
            Err(error) => return Err(format!("queue {name}: {error}")),
        };
        let is_empty = got.is_none();
        let got = got.map(|Got { message, outstanding: entry, .. }| Delivered {
            name,
            message,
            entry,
            consumer: None,
            no_ack,
        });
        self.end_deed(got.into_iter().collect())?;
        if is_empty && !self.is_faulty && !self.must_crash && !self.live[name].ready.is_empty() {
            return Err(format!(
                "queue {name} gives nothing and holds {:?}",
                self.live[name].ready
            ));
        }
        Ok(())
    }

    fn consume(&mut self) -> Done {
        let candidates = self.live_queues(&ALL_QUEUES);
        let Some(name) = self.choose(&candidates) else { return Ok(()) };
        if self.consumers.len() > 4 {
            return Ok(());
        }
        let no_ack = self.random.random_bool(0.2);
        let hand = Hand::with_room(self.random.random_range(1..6));
        self.begin_deed();
        let (queue, mut effects) = (self.queue(name), Effects::default());
        let subscription = hand.subscription(no_ack);
        let id = queue.subscribe(subscription, |_| {}, self.now(), &mut effects);
        let id = id.map_err(|error| error.to_string())?;
        let number = self.next_consumer;
        self.next_consumer += 1;
        self.consumers.push(Consumer { number, name, queue: Arc::clone(&queue), id, hand, no_ack });
        self.carry_out(&queue, &mut effects);
        self.end_deed(Vec::new())
    }

    pub(crate) fn cancel(&mut self) -> Done {
        if self.consumers.is_empty() {
            return Ok(());
        }
        let index = self.random.random_range(0..self.consumers.len());
        let consumer = self.consumers.remove(index);
        self.begin_deed();
        let mut effects = Effects::default();
        consumer.queue.cancel(consumer.id, self.now(), &mut effects);
        self.carry_out(&consumer.queue, &mut effects);
        self.end_deed(Vec::new())
    }

    /// Some deliveries of one queue, in some order of its own.
    fn take_held(&mut self) -> Option<(Name, Arc<Queue>, Vec<Held>)> {
        let held = self.held.get(self.random.random_range(0..self.held.len().max(1)))?;
        let (name, queue) = (held.name, Arc::clone(&held.queue));
        let (mut taken, mut count) = (Vec::new(), self.random.random_range(1..5));
        let mut index = 0;
        while index < self.held.len() && count > 0 {
            if Arc::ptr_eq(&self.held[index].queue, &queue) {
                taken.push(self.held.remove(index));
                count -= 1;
            } else {
                index += 1;
            }
        }
        Some((name, queue, taken))
    }

    /// Takes deliveries out of the unacknowledged; empty when their queue is gone.
    fn forget(&mut self, name: Name, queue: &Arc<Queue>, held: &[Held]) -> Vec<Placed> {
        let live = self.live.get_mut(name).filter(|live| Arc::ptr_eq(&live.queue, queue));
        let Some(live) = live else { return Vec::new() };
        held.iter().filter_map(|held| live.unacked.remove(&held.order)).collect()
    }

    fn logged_of(&self, name: Name, placed: &[Placed]) -> Vec<(Name, u64)> {
        let logged = placed.iter().filter(|placed| self.is_logged(name, placed));
        logged.map(|placed| (name, placed.order)).collect()
    }

    /// Their consumers have room again.
    fn resume(&mut self, held: &[Held]) {
        for held in held {
            let consumer = self.consumers.iter().find(|other| Some(other.number) == held.consumer);
            if let Some(consumer) = consumer {
                let mut effects = Effects::default();
                consumer.hand.add_room(1);
                consumer.queue.resume(&[consumer.id], self.now(), &mut effects);
                self.carry_out(&consumer.queue, &mut effects);
            }
        }
    }

    fn ack(&mut self) -> Done {
        let Some((name, queue, held)) = self.take_held() else { return Ok(()) };
        self.begin_deed();
        let position = queue.ack(&mut entries_of(&held));
        let placed = self.forget(name, &queue, &held);
        let leaves = self.logged_of(name, &placed);
        self.change_at(position.0, Change { leaves, ..Change::default() });
        self.resume(&held);
        self.end_deed(Vec::new())
    }

    fn reject(&mut self) -> Done {
        self.load_all()?;
        if self.must_crash {
            return Ok(());
        }
        let Some((name, queue, held)) = self.take_held() else { return Ok(()) };
        self.begin_deed();
        let mut effects = Effects::default();
        queue.reject(&mut entries_of(&held), &mut effects);
        for placed in self.forget(name, &queue, &held) {
            self.bury(name, &placed);
        }
        self.carry_out(&queue, &mut effects);
        self.read_returned();
        self.resume(&held);
        self.end_deed(Vec::new())
    }

    pub(crate) fn requeue(&mut self) -> Done {
        self.load_all()?;
        if self.must_crash {
            return Ok(());
        }
        let Some((name, queue, held)) = self.take_held() else { return Ok(()) };
        self.begin_deed();
        let mut effects = Effects::default();
        queue.requeue(&mut entries_of(&held), self.now(), &mut effects);
        let placed = self.forget(name, &queue, &held);
        let returned = self.logged_of(name, &placed);
        self.change(Change { returned, ..Change::default() });
        self.put_back(name, placed);
        self.carry_out(&queue, &mut effects);
        self.read_returned();
        self.resume(&held);
        self.end_deed(Vec::new())
    }

    /// Messages come back to their places, or die of it.
    fn put_back(&mut self, name: Name, placed: Vec<Placed>) {
        for mut placed in placed {
            placed.returns += 1;
            placed.redelivered = true;
            let limit = self.live.get(name).and_then(|live| live.profile.delivery_limit);
            if limit.is_some_and(|limit| placed.returns > limit) {
                self.bury(name, &placed);
            } else if let Some(live) = self.live.get_mut(name) {
                live.ready.insert(placed.order, placed);
            }
        }
    }

    /// A transaction: publications to some queues and settlements in others.
    fn commit(&mut self) -> Done {
        self.load_all()?;
        if self.must_crash {
            return Ok(());
        }
        let count = self.random.random_range(0..4);
        let fresh = self.fresh(count);
        let mut all: Vec<(usize, Name)> = Vec::new();
        for index in 0..count {
            for name in self.live_queues(&QUEUES) {
                if self.random.random_bool(0.4) {
                    all.push((index, name));
                }
            }
        }
        // What dies of a publication and of a rejection has an order of its own, which is not foretold here.
        let is_bounded = all.iter().any(|(_, name)| self.live[name].profile.max_length.is_some());
        let mut settles: Vec<(Name, Arc<Queue>, Fate, Vec<Held>)> = Vec::new();
        let mut may_bury = !is_bounded;
        for _ in 0..self.random.random_range(0..3) {
            let Some((name, queue, held)) = self.take_held() else { break };
            let live = self.live.get(name).filter(|live| Arc::ptr_eq(&live.queue, &queue));
            let is_known = settles.iter().any(|(other, ..)| *other == name);
            if live.is_none() || is_known {
                self.held.extend(held);
                continue;
            }
            let fate = self.fate(name, &mut may_bury);
            settles.push((name, queue, fate, held));
        }
        self.begin_deed();
        // What is published goes out before what comes back.
        self.is_mixed = true;
        let list: Vec<_> = fresh.iter().map(|fresh| fresh.publication("")).collect();
        let (mut shares, enters, refused) = self.shares(&fresh, &all);
        let settle = |(_, queue, fate, held): &(Name, Arc<Queue>, Fate, Vec<Held>)| Settle {
            queue: Arc::clone(queue),
            fate: *fate,
            entries: entries_of(held),
        };
        let settling = settles.iter().map(settle).collect();
        let mut effects = Effects::default();
        effects.attend();
        match self.vhost().commit(&list, &mut shares, settling, &mut effects, self.now()) {
            Ok(done) => {
                if done.rejected != refused {
                    return Err(format!("{:?} are refused, not {refused:?}", done.rejected));
                }
                self.committed(done.position.0, &enters, &settles);
            }
            Err(error) => {
                self.only_full(&error)?;
                for (name, queue, _, held) in &settles {
                    let placed = self.forget(name, queue, held);
                    let returned = self.logged_of(name, &placed);
                    self.change(Change { returned, ..Change::default() });
                    self.put_back(name, placed);
                }
            }
        }
        if settles.iter().any(|(_, _, fate, _)| *fate != Fate::Acked) {
            self.read_returned();
        }
        let is_read = self.refusals() == 0 && !self.is_unread;
        if effects.take_burial(&*self.node().log).is_some() && is_read {
            return Err("what a transaction rejected has been read and has not moved".to_owned());
        }
        for (_, _, _, held) in &settles {
            self.resume(held);
        }
        self.end_deed(Vec::new())
    }

    fn fate(&mut self, name: Name, may_bury: &mut bool) -> Fate {
        let profile = self.live[name].profile;
        match self.random.random_range(0..4) {
            0 if *may_bury => {
                *may_bury = profile.grave.is_none();
                Fate::Rejected
            }
            1 if *may_bury && profile.max_length.is_none() => {
                *may_bury = profile.grave.is_none();
                Fate::Requeued
            }
            _ => Fate::Acked,
        }
    }

    fn committed(
        &mut self,
        position: u64,
        enters: &[(Name, &Fresh)],
        settles: &[(Name, Arc<Queue>, Fate, Vec<Held>)],
    ) {
        let mut change = Change::default();
        let mut later = Vec::new();
        for (name, queue, fate, held) in settles {
            let placed = self.forget(name, queue, held);
            let logged = self.logged_of(name, &placed);
            match fate {
                Fate::Requeued => change.returned.extend(logged),
                Fate::Rejected if self.live[name].profile.grave.is_some() => {}
                Fate::Acked | Fate::Rejected => change.leaves.extend(logged),
            }
            later.push((*name, *fate, placed));
        }
        self.enter_all(position, enters, change);
        for (name, fate, placed) in later {
            match fate {
                Fate::Requeued => self.put_back(name, placed),
                Fate::Rejected if self.live[name].profile.grave.is_some() => {
                    placed.iter().for_each(|placed| self.bury(name, placed));
                }
                Fate::Acked | Fate::Rejected => {}
            }
        }
    }

    fn purge(&mut self) -> Done {
        let candidates = self.live_queues(&ALL_QUEUES);
        let Some(name) = self.choose(&candidates) else { return Ok(()) };
        self.begin_deed();
        let Removed { count: purged, position } = self.queue(name).purge();
        let live = self.live.get_mut(name).ok_or("no queue")?;
        let ready: Vec<Placed> = std::mem::take(&mut live.ready).into_values().collect();
        if purged != ready.len() as u64 {
            return Err(format!("{purged} messages are purged of {}", ready.len()));
        }
        let leaves = self.logged_of(name, &ready);
        self.change_at(position.0, Change { leaves, ..Change::default() });
        self.end_deed(Vec::new())
    }
}

fn entries_of(held: &[Held]) -> Vec<Outstanding> {
    held.iter().map(|held| held.entry.clone()).collect()
}
