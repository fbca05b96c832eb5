//! Starts brokers and kills them, and judges what their clients have noted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep, timeout};
use warren_tests::DEADLINE;
use warren_tests::history::{Event, History, Journals, Report, check};

use super::amqp::{Link, drain};
use super::broker::{Addresses, Broker};
use super::notes::{Life, Notes, Shared};
use super::roles::{Role, Stage};

/// Milliseconds that a broker lives at least once it is ready.
const LIFE_MS: std::ops::Range<u64> = 200..1500;

/// Milliseconds after its start at which one in three is killed before it is of use to anybody.
const STILLBORN_MS: std::ops::Range<u64> = 5..120;

/// How often there has to be each thing that a history is worth nothing without, for every kill.
const SUBSTANCE_MIN: usize = 10;

/// How long a life may go on until there is enough of it. Far longer than it takes: a busy machine is no failure.
const SUBSTANCE_WITHIN: Duration = Duration::from_secs(60);

/// Messages that have to be left in the queues at a kill whose disk forgets.
const LEFT_MIN: i64 = 50;

/// Kills after which all queues are drained and the history so far is judged and forgotten: it has to fit into memory.
const CYCLES_PER_ROUND: usize = 25;

/// Producers of a round have numbers of their own, so that what comes again from a former one is recognised.
const PRODUCERS_PER_ROUND: u32 = 1000;

/// What is to be done.
pub(crate) struct Plan<'p> {
    /// For the directory of what is left behind.
    pub(crate) name: &'p str,
    /// How often the broker is killed.
    pub(crate) cycles: usize,
    /// All queues. Those that begin with `fan` are bound to the exchange `fan`.
    pub(crate) queues: &'p [&'p str],
    /// The clients.
    pub(crate) roles: &'p [Role],
}

impl<'p> Plan<'p> {
    /// A supervisor with an empty directory.
    fn begin(self) -> Supervisor<'p> {
        let seed = std::env::var("WARREN_CRASH_SEED").map(|seed| seed.parse().unwrap());
        let seed: u64 = seed.unwrap_or_else(|_| rand::random());
        let directory =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{seed}", self.name));
        println!(
            "WARREN_CRASH_SEED={seed}; a failure leaves its traces in {}",
            directory.display()
        );
        // There only after a failure with the same seed.
        fs::remove_dir_all(&directory).ok();
        fs::create_dir_all(&directory).unwrap();
        let rng = StdRng::seed_from_u64(seed);
        Supervisor { plan: self, rng, directory, seed, life: 0, declared: false, rewinds: false }
    }
}

/// Does it, and fails with the first history that cannot be.
pub(crate) async fn run(plan: Plan<'_>) {
    let mut supervisor = plan.begin();
    let (mut left, mut round) = (supervisor.plan.cycles, 0);
    while left > 0 {
        let cycles = left.min(CYCLES_PER_ROUND);
        round += 1;
        let report = supervisor.round(round, cycles).await;
        println!("round {round}\n{report}");
        assert!(report.is_clean(), "{}\n{report}", supervisor.directory.display());
        has_substance(&report, cycles);
        left -= cycles;
    }
    fs::remove_dir_all(&supervisor.directory).unwrap();
}

/// Does it with a disk that forgets all that the lives after the first have written, and gives what is found.
pub(crate) async fn run_on_a_disk_that_forgets(plan: Plan<'_>) -> Report {
    let mut supervisor = plan.begin();
    supervisor.rewinds = true;
    let report = supervisor.round(1, supervisor.plan.cycles).await;
    fs::remove_dir_all(&supervisor.directory).unwrap();
    report
}

/// A broker that did nothing did nothing wrong.
fn has_substance(report: &Report, cycles: usize) {
    let all = report.statistics;
    assert!(all.kills >= cycles, "{report}");
    for count in [all.confirmed, all.redelivered, all.acks_kept, all.committed, all.rolled_back] {
        assert!(count >= SUBSTANCE_MIN * cycles, "{report}");
    }
}

struct Supervisor<'p> {
    plan: Plan<'p>,
    rng: StdRng,
    /// What is left behind: journals, log, data.
    directory: PathBuf,
    seed: u64,
    life: u32,
    /// The queues are there.
    declared: bool,
    /// After the last kill the data are put back to what they were after the first.
    rewinds: bool,
}

impl Supervisor<'_> {
    async fn round(&mut self, round: u32, cycles: usize) -> Report {
        let journals = Journals::new(&self.directory.join(format!("round-{round}"))).unwrap();
        let shared = Arc::<Shared>::default();
        let mut notes = self.notes(&journals, round, "supervisor", 0, &shared);
        let (stage, watched) = watch::channel(Stage::Waiting);
        let mut clients = Vec::new();
        for (number, role) in (1..).zip(self.plan.roles) {
            let name = format!("{number:02}-{}", role.name());
            let notes = self.notes(&journals, round, &name, number, &shared);
            clients.push(tokio::spawn(role.live(notes, watched.clone())));
        }
        let kept = self.directory.join("kept");
        for cycle in 0..cycles {
            self.cycle(cycle, &mut notes, &shared, &stage).await;
            if self.rewinds && cycle == 0 {
                copy(&self.data_dir(), &kept);
            }
        }
        if self.rewinds {
            fs::remove_dir_all(self.data_dir()).unwrap();
            copy(&kept, &self.data_dir());
        }
        stage.send_replace(Stage::Over);
        for client in clients {
            joined(client).await;
        }
        // What is drained here stays away: the second time there is nothing, or it is noted.
        for _ in 0..2 {
            let (mut broker, life) = (self.spawn(), self.life);
            notes.broker(life, Event::Started);
            let at = broker.ready().await;
            let link = Link::open(at.amqp).await.unwrap();
            for queue in self.plan.queues {
                drain(&mut notes, &link, queue).await.unwrap();
            }
            drop(link);
            broker.stop().await;
            notes.broker(life, Event::Stopped);
        }
        drop(notes);
        let history = History::read(journals.directory());
        let report = check(&history.unwrap_or_else(|unreadable| panic!("{unreadable}")));
        if report.is_clean() {
            fs::remove_dir_all(journals.directory()).unwrap();
        }
        report
    }

    fn notes(
        &self,
        journals: &Journals,
        round: u32,
        name: &str,
        number: u32,
        shared: &Arc<Shared>,
    ) -> Notes {
        let producer = round * PRODUCERS_PER_ROUND + number;
        let rng = StdRng::seed_from_u64(self.seed ^ u64::from(producer));
        let journal = journals.client(name).unwrap();
        Notes::new(name.to_owned(), producer, rng, journal, Arc::clone(shared))
    }

    fn spawn(&mut self) -> Broker {
        self.life += 1;
        Broker::spawn(&self.data_dir(), &self.directory.join("log"))
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// One broker from its start to its kill, and sometimes another one that does not even get ready.
    async fn cycle(
        &mut self,
        cycle: usize,
        notes: &mut Notes,
        shared: &Shared,
        stage: &watch::Sender<Stage>,
    ) {
        let (mut broker, life) = (self.spawn(), self.life);
        notes.broker(life, Event::Started);
        let at = broker.ready().await;
        let backlog = self.declare(at).await;
        shared.backlog.store(backlog, Ordering::Relaxed);
        let before = shared.tally.counts();
        stage.send_replace(Stage::Running(Life { number: life, at }));
        sleep(Duration::from_millis(self.rng.random_range(LIFE_MS))).await;
        let substance = async {
            while !self.has_substance(cycle, shared, &before) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        // What is missing when the time is over is missing in the report too.
        timeout(SUBSTANCE_WITHIN, substance).await.ok();
        shared.doomed.store(life, Ordering::SeqCst);
        broker.kill().await;
        notes.broker(life, Event::Killed);
        if self.rng.random_range(0..3) == 0 {
            let (broker, life) = (self.spawn(), self.life);
            notes.broker(life, Event::Started);
            sleep(Duration::from_millis(self.rng.random_range(STILLBORN_MS))).await;
            broker.kill().await;
            notes.broker(life, Event::Killed);
        }
    }

    /// Whether enough has happened for the next kill: in the round so far, so that a short life may follow a long one;
    /// but where the disk forgets, each life has its own part in what is to be found.
    fn has_substance(&self, cycle: usize, shared: &Shared, before: &[usize; 5]) -> bool {
        let now = shared.tally.counts();
        if self.rewinds {
            let left = shared.backlog.load(Ordering::Relaxed);
            let since = now.iter().zip(before).map(|(now, before)| now - before);
            return left >= LEFT_MIN && since.min() >= Some(SUBSTANCE_MIN);
        }
        now.iter().min() >= Some(&(SUBSTANCE_MIN * (cycle + 1)))
    }

    /// Declares the queues the first time, and from then on finds them; gives how many messages they hold.
    async fn declare(&mut self, at: Addresses) -> i64 {
        let link = Link::open(at.amqp).await.unwrap();
        let mut messages = 0;
        for queue in self.plan.queues {
            let ready = link.queue(queue, self.declared).await;
            messages +=
                i64::from(ready.unwrap_or_else(|failure| panic!("queue {queue}: {failure}")));
            if queue.starts_with("fan") && !self.declared {
                link.fan_out_to(queue).await.unwrap();
            }
        }
        self.declared = true;
        messages
    }
}

/// Copies a directory of files and directories; a socket that a dead broker has left is neither.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_file() {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits for a client to end; fails as it has failed.
async fn joined(client: JoinHandle<()>) {
    match timeout(DEADLINE, client).await {
        Ok(Ok(())) => {}
        Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        Err(_) => panic!("a client does not end"),
    }
}
