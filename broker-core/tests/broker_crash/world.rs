//! A broker on a simulated disk, beside what it should hold: in memory, and after a crash.
//!
//! The one idea: what the broker holds in memory is predicted, message by message. After each call the counts of
//! the queues say how many messages have left their heads; each of them has to be one that was delivered, has
//! expired, or was too many. What follows from that for the log is noted down as changes of [`Plain`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::Message;
use broker_core::consumer::{ConnectionId, ConsumerId, Outstanding};
use broker_core::log::Log;
use broker_core::name::QueueName;
use broker_core::queue::Queue;
use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{Durability, Engine, Options, Recovered, StorageError};
use broker_core::{Broker, VirtualHost};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::find::find;
use crate::hand::Hand;
use crate::plain::{Change, Deed, Found, Name, Placed, Plain, Profile, judge};
use crate::sim_log::{Mutation, SimLog};

pub(crate) const VHOST: &str = "/";
pub(crate) const CONNECTION: ConnectionId = ConnectionId(1);
/// A time that never comes, or a position that the log never comes to.
pub(crate) const NEVER: u64 = u64::MAX;

/// What is wrong with the disk, or with the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Nothing.
    #[default]
    Honest,
    /// A flush of the log answers success and does nothing.
    Lies,
    /// The store does not flush.
    Unflushed,
}

/// A broker that runs.
pub(crate) struct Node {
    pub(crate) log: Arc<SimLog>,
    pub(crate) broker: Broker,
    pub(crate) vhost: Arc<VirtualHost>,
}

/// A queue as the broker should hold it.
pub(crate) struct Live {
    pub(crate) profile: Profile,
    pub(crate) queue: Arc<Queue>,
    pub(crate) ready: BTreeMap<u64, Placed>,
    pub(crate) unacked: BTreeMap<u64, Placed>,
    /// It was found after a restart, with messages of which the octets are known about only.
    pub(crate) restored: bool,
}

/// A delivery that waits for its acknowledgement.
pub(crate) struct Held {
    pub(crate) name: Name,
    pub(crate) order: u64,
    pub(crate) queue: Arc<Queue>,
    pub(crate) entry: Outstanding,
    /// Number of the consumer that has it; none after `basic.get`.
    pub(crate) consumer: Option<u64>,
}

/// A consumer.
pub(crate) struct Consumer {
    pub(crate) number: u64,
    pub(crate) name: Name,
    pub(crate) queue: Arc<Queue>,
    pub(crate) id: ConsumerId,
    pub(crate) hand: Arc<Hand>,
    pub(crate) no_ack: bool,
}

/// A message on its way out of the broker.
pub(crate) struct Delivered {
    pub(crate) name: Name,
    pub(crate) message: Message,
    pub(crate) entry: Outstanding,
    pub(crate) consumer: Option<u64>,
    pub(crate) no_ack: bool,
}

/// See the module.
pub(crate) struct World {
    pub(crate) fs: SimFs,
    pub(crate) random: SmallRng,
    options: Options,
    budget: u64,
    disk: Disk,
    mutation: Mutation,
    node: Option<Node>,
    /// Milliseconds since the world began, over all restarts.
    pub(crate) clock: u64,
    /// When the broker of now started.
    epoch: u64,
    pub(crate) live: BTreeMap<Name, Live>,
    pub(crate) exchanges: BTreeSet<Name>,
    pub(crate) bindings: BTreeSet<(Name, Name)>,
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) held: Vec<Held>,
    pub(crate) kept: Plain,
    pub(crate) undurable: VecDeque<Deed>,
    pub(crate) delivered_from: BTreeSet<u64>,
    next_number: u64,
    pub(crate) next_order: u64,
    pub(crate) next_consumer: u64,
    /// The call under way, and what it has changed so far.
    pub(crate) changes: Vec<Change>,
    pub(crate) refused_before: u64,
    /// In this call messages come back behind others that are handed out already.
    pub(crate) is_mixed: bool,
    /// What came back could not be read.
    pub(crate) is_unread: bool,
    /// Something has happened after which only a crash makes sense.
    pub(crate) must_crash: bool,
    /// Calls of the disk may fail.
    pub(crate) is_faulty: bool,
}

/// Settings so small that a few dozen calls touch every kind of file.
pub(crate) fn small_options(seed: u64, disk: Disk) -> Options {
    Options {
        durability: if disk == Disk::Unflushed { Durability::Os } else { Durability::Fsync },
        wal_file_len: 64 << 10,
        frame_len_max: 16 << 10,
        file_records_max: 60,
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

impl World {
    pub(crate) fn new(seed: u64, disk: Disk, mutation: Mutation) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let budget = [0, 64 << 10, u64::MAX][random.random_range(0..3_usize)];
        Self {
            fs: SimFs::new(),
            random,
            options: small_options(seed, disk),
            budget,
            disk,
            mutation,
            node: None,
            clock: 1_000_000,
            epoch: 0,
            live: BTreeMap::new(),
            exchanges: BTreeSet::new(),
            bindings: BTreeSet::new(),
            consumers: Vec::new(),
            held: Vec::new(),
            kept: Plain::default(),
            undurable: VecDeque::new(),
            delivered_from: BTreeSet::new(),
            next_number: 1,
            next_order: 1,
            next_consumer: 1,
            changes: Vec::new(),
            refused_before: 0,
            is_mixed: false,
            is_unread: false,
            must_crash: false,
            is_faulty: false,
        }
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("the broker runs")
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.node().log.engine
    }

    pub(crate) fn vhost(&self) -> Arc<VirtualHost> {
        Arc::clone(&self.node().vhost)
    }

    /// The broker's time.
    pub(crate) fn now(&self) -> u64 {
        self.clock - self.epoch
    }

    pub(crate) fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    // ---- starting and stopping ----

    fn open(&self, fs: &SimFs) -> Result<(Engine, Recovered), StorageError> {
        Engine::open(Arc::new(fs.clone()), Path::new("/data"), self.options.clone())
    }

    fn start(
        &self,
        engine: Engine,
        recovered: &Recovered,
        epoch: u64,
        now: u64,
    ) -> Result<Node, String> {
        let log = Arc::new(SimLog::new(engine, self.budget, epoch, self.mutation));
        let broker = Broker::new(Arc::clone(&log) as Arc<dyn Log>, Vec::new());
        let restored = broker.restore(recovered, VHOST, now);
        if !restored.unreadable.is_empty() || !restored.nameless.is_empty() {
            return Err(format!("restored {restored:?}"));
        }
        if !recovered.damage.is_empty() {
            return Err(format!("damage reported: {:?}", recovered.damage));
        }
        let vhost = match broker.vhost(VHOST) {
            Some(vhost) => vhost,
            None => broker.add_vhost(VHOST).map_err(|error| error.to_string())?,
        };
        Ok(Node { log, broker, vhost })
    }

    /// The first start, on an empty disk.
    pub(crate) fn begin(&mut self) -> Result<(), String> {
        self.epoch = self.clock;
        let (engine, recovered) = self.open(&self.fs).map_err(|error| error.to_string())?;
        let node = self.start(engine, &recovered, self.epoch, 0)?;
        node.log.commit_all().map_err(|error| error.to_string())?;
        self.node = Some(node);
        self.lie();
        Ok(())
    }

    fn lie(&self) {
        if self.disk == Disk::Lies {
            self.fs.set_hook(|call| {
                let is_log = call.path.extension().is_some_and(|extension| extension == "wal");
                (call.operation == Operation::SyncData && is_log).then_some(Fault::IgnoredSync)
            });
        }
    }

    /// Forgets everything that lies in memory.
    fn stop(&mut self) -> u64 {
        let durable = self.node().log.durable_up_to().0;
        self.consumers.clear();
        self.held.clear();
        self.live.clear();
        self.node = None;
        durable
    }

    fn cut(&mut self) {
        self.fs = match self.random.random_range(0..10) {
            0..3 => self.fs.kill(),
            _ => self.fs.power_cut(self.random.random()),
        };
    }

    /// Power cut or end of the process, recovery (perhaps cut itself), and a look at what is there.
    pub(crate) fn crash(&mut self) -> Result<(), String> {
        self.note_durable();
        let durable = self.stop();
        self.cut();
        self.recover(durable)
    }

    /// A stop as it should be: nothing may be lost at all.
    pub(crate) fn stop_cleanly(&mut self) -> Result<(), String> {
        self.node().broker.note_stop();
        let closed = self.engine().close_step();
        self.note_durable();
        if closed.is_ok() && !self.is_faulty && !self.undurable.is_empty() {
            return Err("a stopped store has not committed everything".to_owned());
        }
        let durable = self.stop();
        self.cut();
        self.recover(durable)
    }

    fn recover(&mut self, durable: u64) -> Result<(), String> {
        for _ in 0..self.random.random_range(0..3) {
            if self.random.random_bool(0.6) {
                break;
            }
            let at = self.fs.calls() + self.random.random_range(1..80);
            self.fs.set_hook(move |call| (call.index == at).then_some(Fault::Crash));
            drop(self.open(&self.fs));
            self.cut();
        }
        // A disk that is still full opens, or says so.
        if self.random.random_bool(0.5) {
            self.fs.set_capacity(None);
        }
        let opened = match self.open(&self.fs) {
            Err(error) if error.is_disk_full() => {
                self.fs.set_capacity(None);
                self.open(&self.fs)
            }
            opened => opened,
        };
        self.fs.set_capacity(None);
        self.is_faulty = false;
        self.must_crash = false;
        let (engine, recovered) = opened.map_err(|error| format!("open: {error}"))?;
        self.clock += self.random.random_range(0..300);
        self.epoch = self.clock;
        let node = self.start(engine, &recovered, self.epoch, 0)?;
        let found = self.look()?;
        let deeds = std::mem::take(&mut self.undurable);
        let deeds: Vec<Deed> = deeds.into();
        let (state, mut deeds) = judge(&self.kept, &deeds, durable, &found, &self.delivered_from)?;
        let (end, durable) = (node.log.end(), node.log.durable_up_to().0);
        self.node = Some(node);
        self.take_up(state.clone(), &found)?;
        if end == durable {
            self.kept = flagged(state, &found);
        } else {
            // On a full disk what was found could not be written again, which would have made sure of it: it may still
            // be lost.
            for deed in &mut deeds {
                deed.end = end;
                deed.changes.iter_mut().for_each(|change| change.promised_at = end);
            }
            self.undurable = deeds.into();
        }
        self.lie();
        self.check()
    }

    /// Starts another broker on a copy of the disk and takes everything out of it. Its clock stands at the beginning of
    /// the world, so that nothing expires.
    fn look(&self) -> Result<Found, String> {
        let (engine, recovered) =
            self.open(&self.fs.kill()).map_err(|error| format!("open again: {error}"))?;
        find(&self.start(engine, &recovered, 0, 0)?)
    }

    /// The broker in memory after a restart: what was kept.
    fn take_up(&mut self, state: Plain, found: &Found) -> Result<(), String> {
        let state = flagged(state, found);
        self.exchanges.clone_from(&state.exchanges);
        self.bindings.clone_from(&state.bindings);
        let vhost = self.vhost();
        for (name, kept) in state.queues {
            let queue = QueueName::new(name).map_err(|error| error.to_string())?;
            let live = Live {
                profile: kept.profile,
                queue: vhost.queue(&queue).map_err(|error| error.to_string())?,
                restored: !kept.messages.is_empty(),
                ready: kept.messages,
                unacked: BTreeMap::new(),
            };
            self.live.insert(name, live);
        }
        Ok(())
    }
}

/// The state with messages flagged as they were found: marks of what was handed out run ahead.
fn flagged(mut state: Plain, found: &Found) -> Plain {
    for (name, kept) in &mut state.queues {
        let messages = found.queues.get(name).map(|queue| queue.messages.as_slice());
        for (placed, message) in kept.messages.values_mut().zip(messages.unwrap_or_default()) {
            placed.redelivered = message.redelivered;
        }
    }
    state
}
