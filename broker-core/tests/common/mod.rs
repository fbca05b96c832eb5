//! A store on a simulated disk beside a model of it in plain maps.
//!
//! The one idea: the model keeps the state after every batch that is not durable yet. After a
//! crash the store must show exactly one of those states: that of a batch boundary, not before the
//! durable mark. Nothing is compared by counting; every message is read back and compared.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod specimen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::storage::sim_fs::SimFs;
use broker_core::storage::{
    Batch, CommitStep, Engine, MessageRef, Options, Recovered, SeqRange, StorageError,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub(crate) const ROOT: &str = "/data";

/// Options so small that a few hundred operations touch every file kind.
pub(crate) fn small_options(seed: u64) -> Options {
    Options {
        wal_file_len: 64 << 10,
        frame_len_max: 16 << 10,
        file_records_max: 200,
        full_files: 2,
        full_files_max: 4,
        spares: 1,
        extent_len: 2 << 10,
        own_segment_len: 8 << 10,
        compaction_len: 64 << 10,
        small_segment_len: 4 << 10,
        cache_len: 8 << 10,
        ballast_len: 4 << 10,
        scrub_interval: Duration::ZERO,
        seed: Some(seed),
        ..Options::default()
    }
}

/// All that a store remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plain {
    pub(crate) queues: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    pub(crate) definitions: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) returns: BTreeMap<(u64, u64), u32>,
    pub(crate) delivered: BTreeMap<u64, u64>,
}

/// One operation of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Enqueue { targets: Vec<MessageRef>, flags: u8, head: Vec<u8>, body: Vec<u8> },
    Ack { queue: u64, ranges: Vec<SeqRange> },
    Requeued { queue: u64, ranges: Vec<SeqRange> },
    Delivered { queue: u64, last: u64 },
    Purge { queue: u64, last: u64 },
    DeleteQueue { queue: u64 },
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

impl Plain {
    pub(crate) fn apply(&mut self, action: &Action) {
        match action {
            Action::Enqueue { targets, flags, head, body } => {
                for target in targets {
                    let octets = message_octets(*flags, head, body);
                    self.queues.entry(target.queue).or_default().insert(target.seq, octets);
                }
            }
            Action::Ack { queue, ranges } => {
                for range in ranges {
                    self.remove(*queue, *range);
                }
            }
            Action::Purge { queue, last } => {
                self.remove(*queue, SeqRange { first: 0, last: *last });
            }
            Action::Requeued { queue, ranges } => {
                let Some(messages) = self.queues.get(queue) else {
                    return;
                };
                for range in ranges {
                    for (seq, _) in messages.range(range.first..=range.last) {
                        *self.returns.entry((*queue, *seq)).or_default() += 1;
                    }
                }
            }
            Action::Delivered { queue, last } => {
                self.queues.entry(*queue).or_default();
                self.delivered.insert(*queue, last + 1);
            }
            Action::DeleteQueue { queue } => {
                self.queues.remove(queue);
                self.delivered.remove(queue);
                self.returns.retain(|(of, _), _| of != queue);
            }
            Action::Put { key, value } => {
                self.definitions.insert(key.clone(), value.clone());
            }
            Action::Delete { key } => {
                self.definitions.remove(key);
            }
        }
    }

    fn remove(&mut self, queue: u64, range: SeqRange) {
        if let Some(messages) = self.queues.get_mut(&queue) {
            messages.retain(|seq, _| !(range.first..=range.last).contains(seq));
        }
        self.returns
            .retain(|(of, seq), _| *of != queue || !(range.first..=range.last).contains(seq));
    }

    /// The state without queues that hold nothing: the store may forget or remember those.
    pub(crate) fn normal(&self) -> Self {
        let mut normal = self.clone();
        normal.queues.retain(|_, messages| !messages.is_empty());
        normal.delivered.retain(|_, below| *below > 0);
        normal
    }

    pub(crate) fn messages(&self) -> usize {
        self.queues.values().map(BTreeMap::len).sum()
    }
}

pub(crate) fn message_octets(flags: u8, head: &[u8], body: &[u8]) -> Vec<u8> {
    let mut octets = vec![flags];
    octets.extend((head.len() as u32).to_le_bytes());
    octets.extend(head);
    octets.extend(body);
    octets
}

/// Turns actions into a batch and appends it. Every body of an odd length is shared with the store.
pub(crate) fn append(engine: &Engine, actions: &[Action]) -> Result<u64, StorageError> {
    let shared: Vec<Option<Arc<Vec<u8>>>> = actions
        .iter()
        .map(|action| match action {
            Action::Enqueue { body, .. } if body.len() % 2 == 1 => Some(Arc::new(body.clone())),
            _ => None,
        })
        .collect();
    let mut batch = Batch::new();
    for (action, shared) in actions.iter().zip(&shared) {
        match action {
            Action::Enqueue { targets, flags, head, body } => match shared {
                Some(body) => batch.enqueue_shared(targets, *flags, head, body),
                None => batch.enqueue(targets, *flags, head, body),
            },
            Action::Ack { queue, ranges } => batch.ack(*queue, ranges),
            Action::Requeued { queue, ranges } => batch.requeued(*queue, ranges),
            Action::Delivered { queue, last } => batch.delivered(*queue, *last),
            Action::Purge { queue, last } => batch.purge(*queue, *last),
            Action::DeleteQueue { queue } => batch.delete_queue(*queue),
            Action::Put { key, value } => batch.put_definition(key, value),
            Action::Delete { key } => batch.delete_definition(key),
        }
    }
    engine.append(&batch).map(|position| position.0)
}

/// What an opened store holds, every message read back.
pub(crate) fn state_of(engine: &Engine, recovered: &Recovered) -> Plain {
    let mut plain = Plain::default();
    for (key, value) in &recovered.definitions {
        plain.definitions.insert(key.to_vec(), value.to_vec());
    }
    for queue in &recovered.queues {
        let messages = read_all(engine, queue.queue);
        let live: BTreeSet<u64> = queue.live.iter().collect();
        let read: BTreeSet<u64> = messages.keys().copied().collect();
        assert_eq!(live, read, "queue {}: listed and read", queue.queue);
        plain.queues.insert(queue.queue, messages);
        for (seq, times) in &queue.returns {
            plain.returns.insert((queue.queue, *seq), *times);
        }
        plain.delivered.insert(queue.queue, queue.delivered_below);
    }
    plain.normal()
}

pub(crate) fn read_all(engine: &Engine, queue: u64) -> BTreeMap<u64, Vec<u8>> {
    let mut messages = BTreeMap::new();
    let mut from = 0;
    while let Some(block) = engine.read(queue, from, 4096).expect("read") {
        assert!(block.lost.is_empty(), "lost: {block:?}, {:?}", engine.damage());
        for message in block.messages() {
            assert!(message.seq >= from, "order");
            let octets = message_octets(message.flags, message.head, message.body);
            assert!(messages.insert(message.seq, octets).is_none(), "once");
        }
        assert!(block.next > from || !block.is_empty(), "progress from {from}: {block:?}");
        from = block.next;
    }
    messages
}

/// A store, its disk, and what it should hold.
pub(crate) struct World {
    pub(crate) fs: SimFs,
    pub(crate) options: Options,
    pub(crate) engine: Option<Engine>,
    pub(crate) random: SmallRng,
    /// State at the durable mark.
    pub(crate) durable: Plain,
    /// Batches after it: where each ends, and what it does.
    pub(crate) undurable: VecDeque<(u64, Vec<Action>)>,
    /// State with all of them.
    pub(crate) latest: Plain,
    pub(crate) next_seq: BTreeMap<u64, u64>,
    pub(crate) queues: Vec<u64>,
    pub(crate) next_queue: u64,
    pub(crate) trace: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_options(seed, small_options(seed))
    }

    pub(crate) fn with_options(seed: u64, options: Options) -> Self {
        Self {
            fs: SimFs::new(),
            options,
            engine: None,
            random: SmallRng::seed_from_u64(seed),
            durable: Plain::default(),
            undurable: VecDeque::new(),
            latest: Plain::default(),
            next_seq: BTreeMap::new(),
            queues: (1..=4).collect(),
            next_queue: 5,
            trace: Vec::new(),
        }
    }

    pub(crate) fn try_open(&mut self) -> Result<Recovered, StorageError> {
        assert!(self.engine.is_none());
        let fs = Arc::new(self.fs.clone());
        let (engine, recovered) = Engine::open(fs, Path::new(ROOT), self.options.clone())?;
        self.engine = Some(engine);
        Ok(recovered)
    }

    pub(crate) fn open(&mut self) -> Recovered {
        let recovered = self.try_open();
        recovered.unwrap_or_else(|error| panic!("open: {error}; {}", self.trace.join(" ")))
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the store is open")
    }

    /// Moves batches that have become durable into the durable state.
    pub(crate) fn note_durable(&mut self) {
        let durable = self.engine().durable().0;
        while self.undurable.front().is_some_and(|(end, _)| *end <= durable) {
            let (_, actions) = self.undurable.pop_front().expect("checked");
            actions.iter().for_each(|action| self.durable.apply(action));
        }
    }

    pub(crate) fn append(&mut self, actions: Vec<Action>) -> bool {
        if actions.is_empty() {
            return true;
        }
        match append(self.engine(), &actions) {
            Ok(end) => {
                actions.iter().for_each(|action| self.latest.apply(action));
                self.undurable.push_back((end, actions));
                true
            }
            Err(StorageError::DiskFull | StorageError::Poisoned { .. }) => false,
            Err(error) => panic!("append: {error}"),
        }
    }

    pub(crate) fn random_actions(&mut self) -> Vec<Action> {
        let count = if self.random.random_bool(0.2) { self.random.random_range(2..6) } else { 1 };
        let mut view = self.latest.clone();
        let mut actions = Vec::new();
        for _ in 0..count {
            let action = self.random_action(&view);
            view.apply(&action);
            actions.push(action);
        }
        actions
    }

    fn random_queue(&mut self) -> u64 {
        self.queues[self.random.random_range(0..self.queues.len())]
    }

    fn random_ranges(&mut self, view: &Plain, queue: u64) -> Vec<SeqRange> {
        let seqs: Vec<u64> =
            view.queues.get(&queue).map(|all| all.keys().copied().collect()).unwrap_or_default();
        if seqs.is_empty() {
            return vec![SeqRange::one(self.random.random_range(0..50))];
        }
        match self.random.random_range(0..4) {
            0 => vec![SeqRange::one(seqs[0])],
            1 => {
                let upto = self.random.random_range(0..seqs.len());
                vec![SeqRange { first: seqs[0], last: seqs[upto] }]
            }
            2 => {
                let share = self.random.random_range(0.0..1.0);
                let picked: Vec<u64> =
                    seqs.iter().copied().filter(|_| self.random.random_bool(share)).collect();
                let fallback = vec![SeqRange::one(seqs[0])];
                let ranges: Vec<SeqRange> = picked.into_iter().map(SeqRange::one).collect();
                if ranges.is_empty() { fallback } else { ranges }
            }
            _ => vec![SeqRange::one(seqs[self.random.random_range(0..seqs.len())])],
        }
    }

    fn random_action(&mut self, view: &Plain) -> Action {
        let queue = self.random_queue();
        match self.random.random_range(0..100) {
            0..60 => self.random_enqueue(),
            60..86 => {
                let ranges = self.random_ranges(view, queue);
                Action::Ack { queue, ranges }
            }
            86..90 => {
                let ranges = self.random_ranges(view, queue);
                Action::Requeued { queue, ranges }
            }
            90..92 => Action::Delivered { queue, last: self.random.random_range(0..100) },
            92..93 => {
                let last = self.next_seq.get(&queue).copied().unwrap_or(0);
                Action::Purge { queue, last }
            }
            93..94 => {
                self.queues.retain(|other| *other != queue);
                self.queues.push(self.next_queue);
                self.next_queue += 1;
                Action::DeleteQueue { queue }
            }
            94..98 => {
                let key = vec![b'k', self.random.random_range(0..8)];
                let value = vec![self.random.random(); self.random.random_range(0..60)];
                Action::Put { key, value }
            }
            _ => Action::Delete { key: vec![b'k', self.random.random_range(0..8)] },
        }
    }

    pub(crate) fn random_enqueue(&mut self) -> Action {
        let first = self.random_queue();
        let mut queues = vec![first];
        while self.random.random_bool(0.15) {
            let other = self.random_queue();
            if !queues.contains(&other) {
                queues.push(other);
            }
        }
        let targets = queues.into_iter().map(|queue| self.take_number(queue)).collect();
        let len = match self.random.random_range(0..40) {
            0 => self.random.random_range(4000..20_000),
            1..8 => self.random.random_range(500..3000),
            _ => self.random.random_range(0..200),
        };
        let salt: u8 = self.random.random();
        let body = (0..len).map(|at| salt.wrapping_add((at % 251) as u8)).collect();
        let head = vec![salt; self.random.random_range(0..40)];
        Action::Enqueue { targets, flags: salt, head, body }
    }

    /// The next number of a queue, now and then leaving some out.
    pub(crate) fn take_number(&mut self, queue: u64) -> MessageRef {
        let next = self.next_seq.entry(queue).or_insert(1);
        if self.random.random_bool(0.05) {
            *next += self.random.random_range(1..5);
        }
        let seq = *next;
        *next += 1;
        MessageRef { queue, seq }
    }

    /// Does something at random; errors of the disk are answers, not failures.
    pub(crate) fn step(&mut self) -> Result<(), StorageError> {
        let choice = self.random.random_range(0..100);
        let engine = self.engine.as_ref().expect("the store is open");
        let done = match choice {
            0..50 => {
                let actions = self.random_actions();
                self.append(actions);
                Ok(())
            }
            50..75 => engine.commit_step().map(|_| ()),
            75..77 => engine.seal_step(),
            77..80 => engine.prepare_step().map(|_| ()),
            80..85 => engine.spill_step().map(|_| ()),
            85..88 => engine.checkpoint_step().map(|_| ()),
            88..91 => engine.compact_step().map(|_| ()),
            91..94 => engine.reclaim_step().map(|_| ()),
            94..97 => engine.retire_step().map(|_| ()),
            97..98 => {
                engine.scrub_step(Duration::from_millis(1));
                engine.maintain_step().map(|_| ())
            }
            _ => {
                let queue = self.random_queue();
                let read = read_all(self.engine(), queue);
                let expected = self.seen(queue);
                for (seq, octets) in &read {
                    assert_eq!(expected.get(seq), Some(octets), "queue {queue}, message {seq}");
                }
                Ok(())
            }
        };
        self.note_durable();
        done
    }

    /// Messages that the store may show for a queue: acked ones until the ack is durable.
    fn seen(&self, queue: u64) -> BTreeMap<u64, Vec<u8>> {
        let mut seen = self.durable.queues.get(&queue).cloned().unwrap_or_default();
        for (_, actions) in &self.undurable {
            for action in actions {
                if let Action::Enqueue { targets, flags, head, body } = action {
                    for target in targets.iter().filter(|target| target.queue == queue) {
                        seen.insert(target.seq, message_octets(*flags, head, body));
                    }
                }
            }
        }
        seen
    }

    /// Commits until nothing is pending.
    pub(crate) fn drain(&mut self) {
        for _ in 0..1000 {
            if self.engine().commit_step().expect("commit") != CommitStep::Written {
                break;
            }
        }
        self.note_durable();
    }

    /// Commits and maintains until nothing is due.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            self.drain();
            let did = self.engine().maintain_step().expect("maintain");
            self.drain();
            if !did {
                return;
            }
        }
        panic!("maintenance does not come to rest");
    }

    /// Replaces the disk by what a crash left; the store is gone.
    pub(crate) fn crash_to(&mut self, fs: SimFs) {
        self.engine = None;
        self.fs = fs;
    }

    pub(crate) fn crash(&mut self) {
        let fs = if self.random.random_bool(0.3) {
            self.fs.kill()
        } else {
            self.fs.power_cut(self.random.random())
        };
        self.crash_to(fs);
    }

    /// The states that a store may be in after a crash, oldest first.
    pub(crate) fn candidates(&self) -> Vec<Plain> {
        let mut state = self.durable.clone();
        let mut candidates = vec![state.normal()];
        for (_, actions) in &self.undurable {
            actions.iter().for_each(|action| state.apply(action));
            candidates.push(state.normal());
        }
        candidates
    }

    /// Checks the opened store against the candidates and takes the one it is in.
    pub(crate) fn check_recovered(&mut self, recovered: &Recovered) -> Result<(), String> {
        if let Some(damage) = recovered.damage.first() {
            return Err(format!("damage reported: {damage}"));
        }
        let found = state_of(self.engine(), recovered);
        let candidates = self.candidates();
        let Some(kept) = candidates.iter().rposition(|candidate| *candidate == found) else {
            let nearest = &candidates[0];
            return Err(format!(
                "no batch boundary among {} fits: durable {:?}, found {:?}",
                candidates.len(),
                outline(nearest),
                outline(&found)
            ));
        };
        for queue in &recovered.queues {
            let above = self.next_seq.get(&queue.queue).copied().unwrap_or(1);
            assert!(queue.next_seq <= above, "numbers of queue {} run ahead", queue.queue);
        }
        for (_, actions) in self.undurable.drain(..).take(kept) {
            actions.iter().for_each(|action| self.durable.apply(action));
        }
        self.latest = self.durable.clone();
        // Queues whose deletion was lost are back; nobody publishes to them again.
        Ok(())
    }
}

/// A state in few words.
pub(crate) fn outline(plain: &Plain) -> BTreeMap<u64, Vec<u64>> {
    plain.queues.iter().map(|(id, all)| (*id, all.keys().copied().collect())).collect()
}
