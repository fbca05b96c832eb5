//! What time and the disk do: expiry, reading ahead, the steps of the store, and faults.

use std::sync::Arc;
use std::time::Duration;

use broker_core::queue::Effects;
use broker_core::storage::Health;
use broker_core::storage::sim_fs::{Fault, Operation};
use rand::RngExt;

use crate::actions::{Done, Fresh};
use crate::plain::Identity;
use crate::world::World;

/// More loads than any backlog here takes.
const LOADS_MAX: usize = 100;

impl World {
    pub(crate) fn pass_time(&mut self) -> Done {
        self.clock += self.random.random_range(20..500);
        self.sweep()
    }

    pub(crate) fn sweep(&mut self) -> Done {
        self.begin_deed();
        self.vhost().sweep(self.now());
        self.end_deed(Vec::new())
    }

    pub(crate) fn load(&mut self) -> Done {
        self.begin_deed();
        let log = Arc::clone(&self.node().log);
        log.load_one(self.now());
        self.end_deed(Vec::new())
    }

    /// Reads ahead until nobody asks for it, or the disk does not let it.
    pub(crate) fn load_all(&mut self) -> Done {
        for _ in 0..LOADS_MAX {
            if self.must_crash || !self.node().log.is_asked() {
                return Ok(());
            }
            self.load()?;
        }
        match self.is_faulty {
            true => {
                self.must_crash = true;
                Ok(())
            }
            false => Err("reading ahead never ends".to_owned()),
        }
    }

    /// Of messages that come back only the log may have some, and those that are to die of it are read first. Here that
    /// is done at once: the plain queues know no time between. Nobody else may wait for a load then.
    pub(crate) fn read_returned(&mut self) {
        let log = Arc::clone(&self.node().log);
        for _ in 0..LOADS_MAX {
            if !log.is_asked() {
                break;
            }
            log.load_one(self.now());
        }
        self.is_unread = self.is_faulty && log.is_asked();
    }

    /// Reads, sweeps and commits until nothing is due.
    pub(crate) fn rest(&mut self) -> Done {
        for _ in 0..3 {
            self.load_all()?;
            if self.must_crash {
                return Ok(());
            }
            self.sweep()?;
        }
        if self.is_faulty || self.must_crash { Ok(()) } else { self.check_at_rest() }
    }

    pub(crate) fn break_disk(&mut self) -> Done {
        self.is_faulty = true;
        let calls = self.fs.calls();
        match self.random.random_range(0..3) {
            0 => {
                let room = self.random.random_range(0..100_000);
                self.fs.set_capacity(Some(self.fs.allocated() + room));
            }
            1 => {
                let mut left = self.random.random_range(1..4);
                self.fs.set_hook(move |call| {
                    let is_hit = call.operation == Operation::SyncData && left > 0;
                    left -= i32::from(is_hit);
                    is_hit.then_some(Fault::LostSync)
                });
            }
            _ => {
                let at = calls + self.random.random_range(0..60);
                self.fs.set_hook(move |call| (call.index == at).then_some(Fault::Crash));
            }
        }
        Ok(())
    }

    pub(crate) fn disk_step(&mut self) -> Done {
        let choice = self.random.random_range(0..100);
        let engine = self.engine();
        let done = match choice {
            0..60 => engine.commit_step().map(|_| ()),
            60..70 => self.node().log.commit_all(),
            70..73 => engine.seal_step(),
            73..76 => engine.spill_step().map(|_| ()),
            76..79 => engine.checkpoint_step().map(|_| ()),
            79..81 => engine.compact_step().map(|_| ()),
            81..85 => {
                engine.scrub_step(Duration::from_millis(5));
                Ok(())
            }
            _ => engine.maintain_step().map(|_| ()),
        };
        if let Some(damage) = self.engine().damage().first()
            && !self.is_faulty
        {
            return Err(format!("damage while running: {damage}"));
        }
        self.note_durable();
        if self.fs.is_crashed() {
            self.must_crash = true;
        } else if let Health::Poisoned { .. } = self.engine().health() {
            self.must_crash = true;
            return self.nothing_more_is_taken();
        }
        match done {
            Err(error) if !self.is_faulty => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// After a failed flush no message is taken any more, so none can be confirmed.
    pub(crate) fn nothing_more_is_taken(&mut self) -> Done {
        let name = self.live.iter().find(|(_, live)| live.profile.durable && !live.profile.refuses);
        let Some(name) = name.map(|(name, _)| *name) else { return Ok(()) };
        let identity = Identity { number: self.take_number(), deaths: Vec::new() };
        let fresh = Fresh { identity, persistent: true };
        let mut effects = Effects::default();
        self.queue(name).publish(&[fresh.publication("")], self.now(), &mut effects);
        match effects.rejected[..] {
            [0] if effects.log_refused.is_some() => Ok(()),
            _ => Err(format!("a poisoned log takes a message of queue {name}")),
        }
    }

    /// What clients do when the broker is stopped: their connections end.
    pub(crate) fn disconnect(&mut self) -> Done {
        while !self.consumers.is_empty() {
            self.cancel()?;
        }
        while !self.held.is_empty() && !self.must_crash {
            self.requeue()?;
        }
        Ok(())
    }
}
