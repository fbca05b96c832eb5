//! [`Store`]: the engine with its two threads.
//!
//! The one idea: a thread is a loop around steps. `broker-commit` writes frames as soon as one is
//! wanted, gives acks that come alone `ack_delay` of time for company, and seals a log that has
//! gone quiet. `broker-store` makes files, spills, compacts, checkpoints, scrubs, and tries pages again that
//! could not be read. Neither holds a
//! lock while it waits for the disk, and a caller of [`append`](Engine::append) waits for neither.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::commit::CommitStep;
use super::engine::{Engine, Health};
use super::error::{IoContext, StorageError};
use super::fs::FileSystem;
use super::options::Options;
use super::recovery::Recovered;

/// How often maintenance looks for itself, and how soon a full disk is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A store that runs. All that can be asked of it is asked of the [`Engine`] inside.
#[derive(Debug)]
pub struct Store {
    engine: Arc<Engine>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Deref for Store {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}

impl Store {
    /// Opens the store in `root`, making it when there is none, and starts its threads.
    ///
    /// # Errors
    /// As [`Engine::open`], or when a thread cannot be started.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        root: &Path,
        options: Options,
    ) -> Result<(Self, Recovered), StorageError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a duration for the log, nothing depends on it"
        )]
        let started = Instant::now();
        let (engine, mut recovered) = Engine::open(fs, root, options)?;
        recovered.took = started.elapsed();
        let store = Self {
            engine: Arc::new(engine),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Mutex::default(),
        };
        store.spawn("broker-commit", commit_loop).during("start a thread for", root)?;
        store.spawn("broker-store", maintenance_loop).during("start a thread for", root)?;
        Ok((store, recovered))
    }

    fn spawn(&self, name: &str, run: fn(&Engine, &AtomicBool)) -> std::io::Result<()> {
        let (engine, stop) = (Arc::clone(&self.engine), Arc::clone(&self.stop));
        let builder = thread::Builder::new().name(name.to_owned());
        self.threads.lock().push(builder.spawn(move || run(&engine, &stop))?);
        Ok(())
    }

    /// Makes everything appended durable, writes a checkpoint, and stops: the next start has
    /// nothing to replay.
    ///
    /// # Errors
    /// When something could not be written. The store has stopped all the same.
    pub fn close(self) -> Result<(), StorageError> {
        self.finish()
    }

    /// The same for a store that others still look at. What is appended afterwards is not written
    /// any more; the directory stays locked until the store is dropped.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn finish(&self) -> Result<(), StorageError> {
        self.stop_threads();
        self.engine.close_step()
    }

    fn stop_threads(&self) {
        // Release: whatever was appended before is seen by the threads' last round.
        self.stop.store(true, Ordering::Release);
        for wanted in [&self.engine.commit_wanted, &self.engine.maintenance_wanted] {
            // Under the lock, so that no thread is between its look and its sleep.
            let _state = self.engine.state.lock();
            wanted.notify_all();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread that panicked has poisoned nothing: the disk is as a crash leaves it.
            drop(thread.join());
        }
    }
}

impl Drop for Store {
    /// Stops the threads; what was appended is written out as well as can be.
    fn drop(&mut self) {
        self.stop_threads();
    }
}

impl Engine {
    /// Commits all that is pending, seals the log and writes a checkpoint.
    ///
    /// # Errors
    /// When something could not be written.
    pub fn close_step(&self) -> Result<(), StorageError> {
        while self.commit_step()? == CommitStep::Written {}
        self.checkpoint_step()?;
        self.seal_step()
    }

    /// All that happens in the background besides commits, `elapsed` after it happened last; answers whether there is
    /// more to do at once. A poisoned store writes nothing any more, not even what it gives back; reading goes on, and
    /// with it the doubts about bad pages. What fails is noted and due again.
    pub fn background_step(&self, elapsed: Duration) -> bool {
        let is_poisoned = matches!(self.health(), Health::Poisoned { .. });
        let mut goes_on = false;
        if !is_poisoned {
            let did = self.maintain_step();
            self.note_background(did.as_ref().err());
            goes_on = matches!(did, Ok(true));
        }
        self.reread_step(elapsed);
        if !is_poisoned {
            self.scrub_step(elapsed);
        }
        goes_on
    }
}

/// What the committer is to do next.
enum Wanted {
    Commit,
    Seal,
    Stop,
}

fn commit_loop(engine: &Engine, stop: &AtomicBool) {
    loop {
        let done = match await_commit(engine, stop) {
            Wanted::Commit => engine.commit_step(),
            Wanted::Seal => engine.seal_step().map(|()| CommitStep::Idle),
            Wanted::Stop => {
                while matches!(engine.commit_step(), Ok(CommitStep::Written)) {}
                // The next start does without the seal.
                drop(engine.seal_step());
                return;
            }
        };
        match done {
            Ok(CommitStep::Written | CommitStep::Idle) => {}
            Ok(CommitStep::Blocked) => {
                engine.maintenance_wanted.notify_one();
                let mut state = engine.state.lock();
                if !stop.load(Ordering::Acquire) {
                    engine.commit_wanted.wait_for(&mut state, LOOK_AGAIN / 5);
                }
            }
            Err(_) if matches!(engine.health(), Health::Poisoned { .. }) => return,
            // A seal that could not be written: its file is given up, the log goes on.
            Err(_) => {}
        }
    }
}

fn await_commit(engine: &Engine, stop: &AtomicBool) -> Wanted {
    let mut state = engine.state.lock();
    loop {
        if stop.load(Ordering::Acquire) {
            return Wanted::Stop;
        }
        // On a full disk acks gather, because each frame takes a block of what room is left.
        let is_full = state.full.any();
        if (state.is_urgent && !is_full) || state.in_flight.is_some() || state.pending.len() > 1 {
            return Wanted::Commit;
        }
        if !state.pending.is_empty() || state.needs_seal {
            let delay = if is_full { LOOK_AGAIN } else { engine.options.ack_delay };
            let waited = engine.commit_wanted.wait_for(&mut state, delay);
            if waited.timed_out() {
                return if state.pending.is_empty() { Wanted::Seal } else { Wanted::Commit };
            }
        } else {
            engine.commit_wanted.wait(&mut state);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "real time sets the pace of the scrub here")]
fn maintenance_loop(engine: &Engine, stop: &AtomicBool) {
    let mut last = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let now = Instant::now();
        let goes_on = engine.background_step(now - last);
        last = now;
        if goes_on {
            continue;
        }
        let mut state = engine.state.lock();
        if !stop.load(Ordering::Acquire) {
            engine.maintenance_wanted.wait_for(&mut state, LOOK_AGAIN);
        }
    }
}
