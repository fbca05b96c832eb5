//! One call of the broker, from what it should do to what it has done.
//!
//! The one idea: before a call its changes are empty; while it runs they gather, as predicted; after it the counts of
//! the queues and the deliveries say what has left the queues' heads, and each message that has must have had a
//! reason.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_core::log::Log;
use broker_core::queue::{Depth, Effects, Queue};
use broker_core::storage::Health;

use crate::plain::{ALL_QUEUES, Change, Deed, Grave, Identity, Name, Placed, body_len};
use crate::world::{Delivered, Held, NEVER, World};

impl World {
    /// Before a call.
    pub(crate) fn begin_deed(&mut self) {
        self.changes.clear();
        self.is_mixed = false;
        self.is_unread = false;
        self.refused_before = self.node().log.refused();
    }

    /// The log has refused so many batches of publications, which is no surprise; whatever else it refuses is a dead
    /// letter.
    pub(crate) fn expect_refusals(&mut self, count: u64) {
        self.refused_before += count;
    }

    /// How many batches the log has refused in this call.
    pub(crate) fn refusals(&self) -> u64 {
        self.node().log.refused() - self.refused_before
    }

    /// A change that is promised when the log has come to `position`.
    pub(crate) fn change_at(&mut self, position: u64, change: Change) {
        self.changes.push(Change { promised_at: position, ..change });
    }

    /// A change that is promised when everything that the call has appended is durable.
    pub(crate) fn change(&mut self, change: Change) {
        self.change_at(NEVER, change);
    }

    pub(crate) fn is_durable(&self, name: Name) -> bool {
        self.live.get(name).is_some_and(|live| live.profile.durable)
    }

    /// Whether the log holds a message in this queue.
    pub(crate) fn is_logged(&self, name: Name, placed: &Placed) -> bool {
        placed.persistent && self.is_durable(name)
    }

    /// A message enters a queue; gives its place if the log has it.
    pub(crate) fn enter(
        &mut self,
        name: Name,
        identity: &Identity,
        persistent: bool,
    ) -> Option<(Name, Placed)> {
        let order = self.next_order;
        self.next_order += 1;
        let live = self.live.get_mut(name)?;
        let expires_at = live.profile.ttl.map_or(NEVER, |ttl| self.clock + ttl);
        let placed = Placed {
            order,
            identity: identity.clone(),
            persistent,
            expires_at,
            redelivered: false,
            returns: 0,
        };
        live.ready.insert(order, placed.clone());
        self.is_logged(name, &placed).then_some((name, placed))
    }

    /// A message has died in a queue and goes on, or not.
    pub(crate) fn bury(&mut self, name: Name, placed: &Placed) {
        let grave = self.live.get(name).and_then(|live| live.profile.grave);
        let targets: Vec<Name> = match grave {
            None => Vec::new(),
            Some(Grave::Queue(queue)) => vec![queue],
            Some(Grave::Exchange(exchange)) => self.bound_to(exchange),
        };
        let mut deaths = vec![name];
        deaths.extend(&placed.identity.deaths);
        let identity = Identity { number: placed.identity.number, deaths };
        let logged = self.is_logged(name, placed);
        let mut enters = Vec::new();
        for target in targets {
            enters.extend(self.enter(target, &identity, placed.persistent));
        }
        let leaves = logged.then_some((name, placed.order)).into_iter().collect();
        self.change(Change { enters, leaves, ..Change::default() });
    }

    /// Queues bound to an exchange, in the order of their ids.
    pub(crate) fn bound_to(&self, exchange: Name) -> Vec<Name> {
        let bound = self.bindings.iter().filter(|(from, _)| *from == exchange);
        let mut bound: Vec<Name> = bound.map(|(_, queue)| *queue).collect();
        bound.sort_by_key(|name| self.live.get(name).map(|live| live.queue.id));
        bound
    }

    /// Names of queues, in the order in which their heads are looked at: sources of dead letters by id, as the broker
    /// does it, then dead-letter queues.
    fn in_order(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.live.keys().copied().collect();
        names.sort_by_key(|name| {
            let id = self.live.get(name).map(|live| live.queue.id);
            (ALL_QUEUES.iter().position(|other| other == name).max(Some(3)), id)
        });
        names
    }

    /// Carries out what a call has left to do.
    pub(crate) fn carry_out(&self, queue: &Arc<Queue>, effects: &mut Effects) {
        self.node().vhost.carry_out(queue, effects, self.now());
    }

    /// After a call: what left the queues' heads is accounted for, and everything is noted down. `got` is what
    /// `basic.get` has given.
    pub(crate) fn end_deed(&mut self, got: Vec<Delivered>) -> Result<(), String> {
        let mut delivered: BTreeMap<Name, VecDeque<Delivered>> = BTreeMap::new();
        for one in got {
            delivered.entry(one.name).or_default().push_back(one);
        }
        for consumer in &self.consumers {
            let list = delivered.entry(consumer.name).or_default();
            list.extend(consumer.hand.take().into_iter().map(|got| Delivered {
                name: consumer.name,
                message: got.message,
                entry: got.outstanding,
                consumer: Some(consumer.number),
                no_ack: consumer.no_ack,
            }));
        }
        let is_refused = self.refusals() > 0 || self.is_unread;
        for name in self.in_order() {
            let mut list = delivered.remove(name).unwrap_or_default();
            // Several consumers have taken turns.
            list.make_contiguous().sort_by_key(|one| one.entry.seq);
            let done = self.account(name, list);
            if !is_refused {
                done?;
            }
        }
        if let Some((name, _)) = delivered.iter().find(|(_, list)| !list.is_empty()) {
            return Err(format!("a delivery from queue {name}, which is gone"));
        }
        // A dead letter that the log refused is in its queue after a restart; which of several it was is
        // not known here.
        self.must_crash |= is_refused;
        let end = if is_refused { NEVER } else { self.node().log.appended() };
        let mut changes = std::mem::take(&mut self.changes);
        for change in &mut changes {
            change.promised_at = change.promised_at.min(end);
        }
        self.undurable.push_back(Deed { changes, end });
        self.note_durable();
        if is_refused { Ok(()) } else { self.check() }
    }

    /// Accounts for the messages that have left the head of a queue.
    fn account(&mut self, name: Name, mut delivered: VecDeque<Delivered>) -> Result<(), String> {
        let Some(live) = self.live.get(name) else { return Ok(()) };
        let ready = live.queue.depth().ready as usize;
        let max = live.profile.max_length.filter(|_| !live.profile.refuses);
        let mut excess = max.map_or(0, |max| live.ready.len().saturating_sub(max));
        if ready > live.ready.len() {
            return Err(format!(
                "queue {name} has {ready} messages ready, not {}",
                live.ready.len()
            ));
        }
        for _ in ready..live.ready.len() {
            let head = self.live.get_mut(name).and_then(|live| live.ready.pop_first());
            let (_, mut head) = head.ok_or("less than nothing is ready")?;
            if self.is_mixed
                && let Some(next) = delivered.front()
            {
                let identity = Identity::of(&next.message)?;
                head = self.swap(name, head, &identity);
            }
            let is_next = match delivered.front() {
                Some(next) => Identity::of(&next.message)? == head.identity,
                None => false,
            };
            if is_next && let Some(next) = delivered.pop_front() {
                self.delivered(next, head)?;
            } else if head.expires_at <= self.clock {
                self.bury(name, &head);
            } else if excess > 0 {
                excess -= 1;
                self.bury(name, &head);
            } else {
                return Err(format!("queue {name} has lost {head:?}"));
            }
        }
        match delivered.front() {
            None => Ok(()),
            Some(next) => {
                Err(format!("queue {name} has delivered {:?}", Identity::of(&next.message)))
            }
        }
    }

    /// Puts the head back and takes that message, if it is there.
    fn swap(&mut self, name: Name, head: Placed, identity: &Identity) -> Placed {
        let Some(live) = self.live.get_mut(name) else { return head };
        live.ready.insert(head.order, head.clone());
        let found = live.ready.values().find(|placed| placed.identity == *identity);
        let order = found.map_or(head.order, |placed| placed.order);
        live.ready.remove(&order).unwrap_or(head)
    }

    fn delivered(&mut self, delivered: Delivered, mut placed: Placed) -> Result<(), String> {
        let Delivered { name, entry, consumer, no_ack, .. } = delivered;
        let logged = self.is_logged(name, &placed);
        let expected = (placed.redelivered, placed.returns, logged);
        if (entry.redelivered, entry.returns, entry.logged) != expected {
            return Err(format!(
                "queue {name}: {placed:?} came with redelivered {}, returns {}, logged {}",
                entry.redelivered, entry.returns, entry.logged
            ));
        }
        if placed.expires_at <= self.clock {
            return Err(format!("queue {name}: {placed:?} was delivered after it expired"));
        }
        let Some(live) = self.live.get_mut(name) else { return Ok(()) };
        let queue = Arc::clone(&live.queue);
        self.delivered_from.insert(queue.id.0);
        let order = placed.order;
        let listed = || logged.then_some((name, order)).into_iter().collect();
        if no_ack {
            self.change(Change { leaves: listed(), ..Change::default() });
            return Ok(());
        }
        placed.redelivered = true;
        live.unacked.insert(order, placed);
        self.held.push(Held { name, order, queue, entry, consumer });
        self.change(Change { handed: listed(), ..Change::default() });
        Ok(())
    }

    /// Moves deeds that are durable whole into what is kept.
    pub(crate) fn note_durable(&mut self) {
        let durable = self.node().log.durable_up_to().0;
        while self.undurable.front().is_some_and(|deed| deed.end <= durable) {
            let Some(deed) = self.undurable.pop_front() else { return };
            deed.changes.iter().for_each(|change| self.kept.apply(change));
        }
    }

    /// The counts of every queue against what it should hold.
    pub(crate) fn check(&self) -> Result<(), String> {
        let names: Vec<String> =
            self.vhost().queues().iter().map(|queue| queue.spec.name.to_string()).collect();
        if !names.iter().map(String::as_str).eq(self.live.keys().copied()) {
            return Err(format!("queues {names:?} are there, not {:?}", self.live.keys()));
        }
        for (name, live) in &self.live {
            let Depth { ready, ready_bytes, unacked, unacked_bytes, .. } = live.queue.depth();
            let found = (ready as usize, unacked as usize, unacked_bytes);
            let expected = (live.ready.len(), live.unacked.len(), octets_of(&live.unacked));
            if found != expected {
                return Err(format!(
                    "queue {name}: ready, unacked, octets {found:?}, not {expected:?}"
                ));
            }
            let bytes = octets_of(&live.ready);
            if (!live.restored || live.ready.is_empty()) && ready_bytes != bytes {
                return Err(format!("queue {name}: {ready_bytes} octets are ready, not {bytes}"));
            }
        }
        Ok(())
    }

    /// Nothing is due any more: no backlog to be read, nothing to be swept.
    pub(crate) fn check_at_rest(&self) -> Result<(), String> {
        for (name, live) in &self.live {
            let max = live.profile.max_length.filter(|_| !live.profile.refuses);
            if max.is_some_and(|max| live.ready.len() > max) {
                return Err(format!("queue {name} has {} messages at rest", live.ready.len()));
            }
            // What has nowhere to go as long as the disk is full waits for that.
            let is_stuck = live.queue.spec.settings.dead_letter.is_some()
                && self.engine().health() != Health::Healthy;
            if let Some((_, head)) = live.ready.first_key_value()
                && head.expires_at <= self.clock
                && !is_stuck
            {
                return Err(format!("queue {name}: {head:?} has expired and is still there"));
            }
        }
        Ok(())
    }
}

fn octets_of(messages: &BTreeMap<u64, Placed>) -> u64 {
    messages.values().map(|placed| body_len(placed.identity.number)).sum()
}
