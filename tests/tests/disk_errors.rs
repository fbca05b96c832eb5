//! A disk that answers errors: the real binary under strace, which makes chosen system calls fail.
//!
//! One run is one [`Fault`]: a broker that may or may not start with it, publishes, a transaction before the fault
//! and after it, `kill -9`, and a broker without faults on the same directory. What has to hold:
//!
//! - nobody panics, and a broker that refuses to start says in a sentence which path it is about;
//! - every message that was confirmed, and not settled, is there afterwards, or is named as lost;
//! - what was settled in a committed transaction is not back, unless damage is named;
//! - a file that could not be flushed is never flushed again: strace has seen it.
//!
//! CI tries a sample of faults; `WARREN_LONG=1` every call with every number from 1 to 40.

#![expect(clippy::unwrap_used, reason = "a test says with a panic that it has failed")]

use std::collections::BTreeSet;
use std::fmt;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::Duration;
use warren_tests::disk::{
    Fault, Faults, Publisher, Settled, When, declare_durable, drained, for_each_case, is_long_run,
    settle_in_transaction, try_declare_durable, try_settle,
};
use warren_tests::history::MessageId;
use warren_tests::process::{Place, WarrenProcess};
use warren_tests::{DEADLINE, RawPeer, eventually};

/// Small files, so that a short run makes, fills, spills and recycles them.
const SETTINGS: [&str; 2] = ["store.log_file_size=1MiB", "amqp.max_message_size=512KiB"];

/// Octets of a message, about.
const LEN: usize = 32 << 10;

/// How long a broker whose disk fails may think about an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Numbers of calls that the long run makes fail.
const WHEN_MAX: u32 = 40;

/// The calls by which a store changes, and reads, its files. Written data go through `pwritev`; `write` is how a broker
/// writes down its addresses, and talks to threads and sockets, so that it is not made to fail.
const CALLS: [&str; 8] =
    ["fdatasync", "fsync", "pwritev", "openat", "rename", "unlink", "pread64", "mkdir"];

/// Once for the `when`th call of every thread.
const fn once(call: &'static str, error: &'static str, when: u32) -> Fault {
    Fault { call, error, when: When::Once(when) }
}

/// From the `when`th call on.
const fn from(call: &'static str, error: &'static str, when: u32) -> Fault {
    Fault { call, error, when: When::From(when) }
}

/// One page that the disk does not give: a read that meets it fails, and so do the three that try the page alone.
const fn bad_page(nth_read: u32) -> Fault {
    Fault { call: "pread64", error: "EIO", when: When::Between(nth_read, nth_read + 3) }
}

/// What CI tries: each call early (the store is being made), later (it is used), and for good.
const SAMPLE: [Fault; 20] = [
    once("fdatasync", "EIO", 2),
    once("fdatasync", "EIO", 6),
    once("fdatasync", "EIO", 14),
    from("fdatasync", "EIO", 9),
    once("fsync", "EIO", 3),
    once("fsync", "EIO", 8),
    once("pwritev", "EIO", 5),
    once("pwritev", "EIO", 17),
    once("pwritev", "ENOSPC", 12),
    from("pwritev", "ENOSPC", 20),
    once("openat", "EIO", 2),
    once("openat", "EIO", 9),
    once("rename", "EIO", 2),
    once("rename", "EIO", 6),
    from("rename", "EIO", 5),
    once("unlink", "EIO", 1),
    once("pread64", "EIO", 2),
    bad_page(2),
    bad_page(9),
    once("mkdir", "EIO", 2),
];

/// One run.
#[derive(Debug, Clone, Copy)]
struct Case {
    fault: Fault,
    /// The broker with the fault is the first one on its directory; otherwise another has left messages there.
    is_first: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.fault, if self.is_first { "new" } else { "used" })
    }
}

fn cases() -> Vec<Case> {
    if !is_long_run() {
        let alternate = |(index, fault): (usize, &Fault)| {
            // Nothing is read in a new store.
            Case { fault: *fault, is_first: index % 2 == 1 && fault.call != "pread64" }
        };
        return SAMPLE.iter().enumerate().map(alternate).collect();
    }
    let mut faults = Vec::new();
    for call in CALLS {
        for when in 1..=WHEN_MAX {
            faults.push(once(call, "EIO", when));
            if call == "pread64" {
                faults.push(bad_page(when));
            }
            if matches!(call, "fdatasync" | "pwritev" | "openat" | "rename") {
                faults.push(once(call, "ENOSPC", when));
            }
            if when % 8 == 1 {
                faults.push(from(call, "EIO", when));
            }
        }
    }
    let both = |fault| [true, false].map(|is_first| Case { fault, is_first });
    faults.into_iter().flat_map(both).collect()
}

/// What clients know.
#[derive(Debug, Default)]
struct Known {
    confirmed: BTreeSet<MessageId>,
    settled: BTreeSet<MessageId>,
    /// Acknowledged in a transaction that was never answered.
    uncertain: BTreeSet<MessageId>,
}

impl Known {
    fn note(&mut self, settled: Settled) {
        match settled {
            Settled::Committed(ids) => self.settled.extend(ids),
            Settled::Unknown(ids) => self.uncertain.extend(ids),
        }
    }

    /// Compares with what is there in the end; `damage` is what brokers have named.
    fn check(&self, found: &[MessageId], damage: &[String]) {
        let found: BTreeSet<_> = found.iter().copied().collect();
        let gone = self.confirmed.difference(&self.settled).filter(|id| !found.contains(id));
        let lost: Vec<_> = gone.filter(|id| !self.uncertain.contains(id)).collect();
        let named: usize = damage.iter().map(|line| messages_named(line)).sum();
        assert!(
            lost.len() <= named,
            "confirmed and gone: {lost:?}, of which {named} were named: {damage:?}"
        );
        let back: Vec<_> = self.settled.intersection(&found).collect();
        assert!(back.is_empty() || !damage.is_empty(), "settled and back: {back:?}");
    }
}

/// How many messages a line about damage says are lost: the numbers in parentheses.
fn messages_named(line: &str) -> usize {
    let counts = line.split('(').skip(1).filter_map(|rest| rest.split_once(')'));
    counts.filter_map(|(count, _)| count.parse::<usize>().ok()).sum()
}

fn damage_in(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains("damage")).map(str::to_owned).collect()
}

/// Publishes messages in small lots as long as the broker takes them, and settles some of the first lot.
async fn use_broker(
    broker: &WarrenProcess,
    known: &mut Known,
    (producer, lots): (u32, usize),
    settled: usize,
) {
    let mut consumer = broker.amqp().await;
    if !try_declare_durable(&mut consumer, "work", PATIENCE).await {
        return;
    }
    let mut publisher = Publisher::new(broker.amqp().await, producer, "work").await;
    for lot in 0..lots {
        publisher.publish(16, LEN).await;
        let all = publisher.settle(PATIENCE).await;
        if !all || publisher.blocked().is_some() {
            break;
        }
        if lot == 0 && settled > 0 {
            known.note(try_settle(&mut consumer, "work", settled, PATIENCE).await);
        }
    }
    known.confirmed.extend(publisher.confirmed());
}

async fn run(case: Case) {
    let directory = TempDir::with_prefix("warren-errors-").unwrap();
    let mut place = Place::new(&directory.path().join("data"));
    let mut known = Known::default();
    if !case.is_first {
        let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
        use_broker(&broker, &mut known, (0, 4), 5).await;
        broker.kill().await;
    }
    let faults = Faults::new(&directory.path().join("strace"));
    place.wrapper = faults.wrapper(case.fault, &place.data_dir);
    let mut damage = Vec::new();
    let log = match WarrenProcess::try_start_at(&place, &SETTINGS).await {
        Ok(mut broker) => {
            // A running broker waits for half a minute at a bad page, and this is about opening: nothing is read.
            let settled = if matches!(case.fault.when, When::Between(..)) { 0 } else { 5 };
            use_broker(&broker, &mut known, (1, 14), settled).await;
            assert!(broker.is_running(), "{}", broker.log());
            let log = broker.log();
            broker.kill().await;
            log
        }
        Err(refused) => {
            let path = &*place.data_dir.to_string_lossy();
            assert!(refused.log.contains(path), "no path: {}", refused.log);
            assert!(refused.status.code().is_some_and(|code| code != 0), "{}", refused.status);
            refused.log
        }
    };
    assert!(!log.contains("panicked"), "{log}");
    assert!(is_long_run() || faults.injected() > 0, "nothing has failed");
    let repeated = faults.repeated_flushes();
    assert!(repeated.is_empty(), "flushed again after a failure: {repeated:?}");
    damage.extend(damage_in(&log));
    if matches!(case.fault, Fault { call: "pread64", when: When::Once(_), .. }) {
        assert!(damage.is_empty(), "a read that fails once was tried again: {damage:?}");
    }
    place.wrapper.clear();
    let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
    let mut peer = broker.amqp().await;
    declare_durable(&mut peer, "work").await;
    let mut found = drained(&mut peer, "work").await;
    // Where the definition of the queue was lost, its messages are in one with another name.
    for queue in [log, broker.log()].iter().flat_map(|log| recovered_queues(log)) {
        found.extend(drained(&mut peer, &queue).await);
    }
    damage.extend(damage_in(&broker.log()));
    known.check(&found, &damage);
}

/// Queues of which a log says that their definitions were lost.
fn recovered_queues(log: &str) -> BTreeSet<String> {
    let names = log.split("queue=warren.recovered-").skip(1);
    let number = |rest: &str| rest.split_whitespace().next().map(str::to_owned);
    names.filter_map(number).map(|number| format!("warren.recovered-{number}")).collect()
}

#[test]
fn errors_of_the_disk_cost_nothing_that_was_promised() {
    for_each_case(cases(), run);
}

#[tokio::test]
async fn a_log_that_cannot_be_flushed_holds_publishers_until_a_restart() {
    let directory = TempDir::with_prefix("warren-errors-").unwrap();
    let mut place = Place::new(&directory.path().join("data"));
    let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
    let mut peer = broker.amqp().await;
    declare_durable(&mut peer, "work").await;
    let mut publisher = Publisher::new(broker.amqp().await, 0, "work").await;
    publisher.publish(10, LEN).await;
    assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
    let settled = settle_in_transaction(&mut peer, "work", 3).await;
    let mut known = Known { confirmed: publisher.confirmed().clone(), ..Known::default() };
    known.note(Settled::Committed(settled));
    broker.kill().await;
    // Some flushes succeed, of each thread; none afterwards.
    let faults = Faults::new(&directory.path().join("strace"));
    place.wrapper = faults.wrapper(from("fdatasync", "EIO", 8), &place.data_dir);
    let settings = [SETTINGS[0], SETTINGS[1], "metrics.listen=127.0.0.1:0"];
    let mut broker = WarrenProcess::start_at(&place, &settings).await;
    let mut publisher = Publisher::new(broker.amqp().await, 1, "work").await;
    eventually("the alarm is on", async || {
        if publisher.blocked().is_none() {
            publisher.publish(1, LEN).await;
            publisher.settle(Duration::from_millis(500)).await;
        }
        broker.status()["alarms"] == json!(["store"])
    })
    .await;
    // What was flushed before is confirmed before this is answered.
    publisher.round_trip().await;
    let confirmed = publisher.confirmed().len();
    publisher.publish(3, LEN).await;
    publisher.until("publishers are held", |one| one.blocked().is_some()).await;
    publisher.listen(Duration::from_millis(300)).await;
    assert_eq!(publisher.confirmed().len(), confirmed, "confirmed after the log was given up");
    assert_eq!(publisher.blocked(), Some("the store cannot be written"));
    known.confirmed.extend(publisher.confirmed());
    let mut scrape = RawPeer::connect(broker.address("metrics")).await;
    scrape.send(b"GET /metrics HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n").await;
    let page = String::from_utf8_lossy(&scrape.expect_end().await).into_owned();
    assert!(page.contains("\nwarren_alarms_store 1"), "{page}");
    // Reading goes on.
    let mut peer = broker.amqp().await;
    let taken = peer.get(1, "work", true).await;
    assert!(taken.is_some(), "{}", broker.log());
    assert!(broker.is_running());
    broker.kill().await;
    assert_eq!(faults.repeated_flushes(), Vec::<String>::new());
    place.wrapper.clear();
    let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
    let found = drained(&mut broker.amqp().await, "work").await;
    known.check(&found, &[]);
}
