//! Who gets which message: consumers with room, by priority, one after the other.
//!
//! All of it happens under the queue's lock. With one candidate a run goes to its sink as it is; with several the
//! messages are dealt out one by one, after the sinks have said how many they will take.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{BATCH_BYTES_MAX, BATCH_MAX, Consumer, Effects, Queue, QueueSpec, Scratch, State};
use crate::consumer::{Place, Run, Source};
use crate::message::Publication;

impl Queue {
    /// Hands publications straight to consumers; gives how many were taken.
    pub(super) fn hand_over(
        &self,
        state: &mut State,
        publications: &[Publication<'_>],
        places: &[Place],
    ) -> usize {
        let mut taken = 0;
        while taken < publications.len() {
            let Some(candidates) = state.candidates(&self.spec) else {
                break;
            };
            let rest = publications.get(taken..).unwrap_or_default();
            let rest_places = places.get(taken..).unwrap_or_default();
            if candidates.count == 1 {
                let source = Source::Fresh { publications: rest, places: rest_places, next: 0 };
                let (count, all) = self.offer(state, candidates.first, source, false);
                taken += count;
                if !all && let Some(consumer) = state.consumers.get_mut(candidates.first) {
                    consumer.blocked = true;
                }
                continue;
            }
            let assigned = state.assign(candidates, rest.len());
            if assigned == 0 {
                continue;
            }
            let offers = std::mem::take(&mut state.scratch.offers);
            let picks = std::mem::take(&mut state.scratch.picks);
            let mut left: Vec<u32> = Vec::new();
            for (index, picks) in state.turns(&offers, &picks) {
                let source = Source::FreshPicks { publications: rest, places: rest_places, picks };
                let (count, _) = self.offer(state, index, source, true);
                left.extend(picks.iter().skip(count));
            }
            state.scratch.offers = offers;
            state.scratch.picks = picks;
            taken += assigned;
            if !left.is_empty() {
                // What a sink had promised to take and did not. It stays in memory: messages behind it are
                // delivered already, and what is away has to be whole.
                left.sort_unstable();
                for index in left {
                    let place = rest_places.get(index as usize);
                    if let (Some(publication), Some(place)) = (rest.get(index as usize), place) {
                        state.ready.push_back(place.entry(publication.to_message()));
                    }
                }
                break;
            }
        }
        taken
    }

    /// Serves consumers that have room from the backlog, at most about [`BATCH_MAX`] messages; gives
    /// whether there is more to do.
    pub(super) fn dispatch(&self, state: &mut State, now: u64, effects: &mut Effects) -> bool {
        let mut budget = BATCH_MAX;
        loop {
            if !self.drop_expired(state, now, effects) {
                return true;
            }
            if state.ready.is_empty_here() {
                return false;
            }
            let Some(candidates) = state.candidates(&self.spec) else {
                return false;
            };
            if budget == 0 {
                return true;
            }
            let wanted = state.ready.count_within(budget, BATCH_BYTES_MAX, now);
            let assigned = state.assign(candidates, wanted);
            if assigned == 0 {
                continue;
            }
            budget -= assigned;
            let mut entries = std::mem::take(&mut state.scratch.entries);
            entries.clear();
            for _ in 0..assigned {
                entries.push(state.ready.pop_front());
            }
            let offers = std::mem::take(&mut state.scratch.offers);
            let picks = std::mem::take(&mut state.scratch.picks);
            for (index, picks) in state.turns(&offers, &picks) {
                let source = if offers.len() == 1 {
                    Source::Stored { entries: &mut entries, next: 0 }
                } else {
                    Source::StoredPicks { entries: &mut entries, picks }
                };
                self.offer(state, index, source, true);
            }
            // What a sink had promised to take and did not.
            for entry in entries.drain(..).flatten().rev() {
                state.ready.push_front(entry);
            }
            state.scratch.entries = entries;
            state.scratch.offers = offers;
            state.scratch.picks = picks;
        }
    }

    /// Offers a run to one consumer and counts what it took; gives the count and whether that was all.
    pub(super) fn offer(
        &self,
        state: &mut State,
        index: usize,
        source: Source<'_>,
        reserved: bool,
    ) -> (usize, bool) {
        let Some(consumer) = state.consumers.get(index) else {
            return (0, false);
        };
        let no_ack = consumer.subscription.no_ack;
        let mut run = Run::new(source, reserved, no_ack, state.ready.allowance());
        consumer.subscription.sink.deliver(consumer.subscription.slot, &mut run);
        let (taken, all) = (run.taken(), run.is_empty());
        // A sink whose connection has just ended takes nothing, whatever it promised; it is not asked again.
        let broke_promise = reserved && !all;
        let (taken_bytes, highest) = (run.taken_bytes() as u64, run.highest_logged());
        let staying = run.staying();
        if no_ack {
            state.scratch.settled.extend(run.into_settled());
            self.flush_settled(state);
        } else {
            state.unacked += taken as u64;
            state.unacked_bytes += taken_bytes;
            state.ready.charge_outstanding(staying);
        }
        if let Some(highest) = highest {
            self.note_handed_out(state, highest);
        }
        if broke_promise && let Some(consumer) = state.consumers.get_mut(index) {
            consumer.blocked = true;
        }
        (taken, all)
    }

    /// Serves on after [`Effects::unserved`].
    pub(crate) fn serve_on(&self, now: u64, effects: &mut Effects) {
        self.serve(self.state.lock(), now, effects);
    }

    /// Dispatches until there is nothing more to do, letting others have the lock in between.
    pub(super) fn serve(&self, mut state: MutexGuard<'_, State>, now: u64, effects: &mut Effects) {
        while self.dispatch(&mut state, now, effects) {
            MutexGuard::bump(&mut state);
        }
        self.finish(&mut state, effects);
    }
}

/// Who is given what, in order: indices of consumers and of messages.
type Turns<'p> = SmallVec<[(usize, &'p [u32]); 8]>;

/// Consumers that the next messages go to: all with the highest priority among those with room.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    first: usize,
    count: usize,
    priority: i64,
}

impl State {
    pub(super) fn single_active(&self) -> Option<&Consumer> {
        let active = self.active?;
        self.consumers.iter().find(|consumer| consumer.id == active)
    }

    /// The consumer that takes over when the single active one has gone: the first of the highest
    /// priority. As long as it stays, nobody who arrives later takes its place.
    pub(super) fn elect(&mut self) {
        let chosen = self.consumers.iter().reduce(|best, consumer| {
            let better = consumer.subscription.priority > best.subscription.priority;
            if better { consumer } else { best }
        });
        self.active = chosen.map(|consumer| consumer.id);
    }

    pub(super) fn candidates(&self, spec: &QueueSpec) -> Option<Candidates> {
        if spec.settings.single_active_consumer {
            let active = self.single_active()?;
            let first = self.consumers.iter().position(|consumer| consumer.id == active.id)?;
            let priority = active.subscription.priority;
            return (!active.blocked).then_some(Candidates { first, count: 1, priority });
        }
        let mut found: Option<Candidates> = None;
        for (index, consumer) in self.consumers.iter().enumerate() {
            if consumer.blocked {
                continue;
            }
            let priority = consumer.subscription.priority;
            match &mut found {
                Some(best) if priority == best.priority => best.count += 1,
                Some(best) if priority < best.priority => {}
                _ => found = Some(Candidates { first: index, count: 1, priority }),
            }
        }
        found
    }

    /// In which order consumers are given what was dealt out to them: one after the other, each all of it. But of
    /// consumers on one channel each gets one message at a time, so that the messages come there in their order
    /// (AMQP 0-9-1 §4.7).
    fn turns<'p>(&self, offers: &[(usize, usize)], picks: &'p [Vec<u32>]) -> Turns<'p> {
        let dealt = || offers.iter().zip(picks).map(|(&(index, _), picks)| (index, &**picks));
        let shares = |index: usize| {
            self.consumers.get(index).is_some_and(|consumer| consumer.shares_channel)
        };
        if offers.iter().filter(|(index, _)| shares(*index)).count() < 2 {
            return dealt().collect();
        }
        let rounds = dealt().map(|(_, picks)| picks.len()).max().unwrap_or(0);
        let one = |round| {
            dealt().filter_map(move |(index, picks)| Some((index, picks.get(round..=round)?)))
        };
        (0..rounds).flat_map(one).collect()
    }

    /// Reserves room at the candidates for up to `wanted` messages, one after the other in turn, and notes
    /// in the scratch who gets which. Gives how many messages that is; consumers without room are
    /// marked.
    pub(super) fn assign(&mut self, candidates: Candidates, wanted: usize) -> usize {
        let Scratch { offers, picks, .. } = &mut self.scratch;
        offers.clear();
        let len = self.consumers.len();
        let order = (0..len).map(|step| (self.turn + step) % len);
        let share = if candidates.count == 1 { wanted } else { wanted.div_ceil(candidates.count) };
        let mut reserved = 0;
        for index in order {
            if reserved == wanted {
                break;
            }
            let Some(consumer) = self.consumers.get_mut(index) else {
                continue;
            };
            let chosen = candidates.count > 1 || index == candidates.first;
            if consumer.blocked || !chosen || consumer.subscription.priority != candidates.priority
            {
                continue;
            }
            let subscription = &consumer.subscription;
            let ask = share.min(wanted - reserved);
            let room = subscription.sink.reserve(subscription.slot, ask);
            consumer.blocked = room < ask;
            if room > 0 {
                offers.push((index, room));
                reserved += room;
            }
        }
        if reserved == 0 {
            return 0;
        }
        for list in &mut *picks {
            list.clear();
        }
        picks.resize_with(offers.len().max(picks.len()), Vec::new);
        let mut next = 0_u32;
        let mut round = 0;
        while (next as usize) < reserved {
            for (&(index, room), list) in offers.iter().zip(&mut *picks) {
                if list.len() < room && list.len() == round {
                    list.push(next);
                    next += 1;
                    self.turn = (index + 1) % len;
                }
            }
            round += 1;
        }
        reserved
    }
}
