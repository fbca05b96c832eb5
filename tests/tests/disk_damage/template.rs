//! The directory that is damaged, as a killed broker leaves it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use proto_amqp::control::protocol::{exchange, queue};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Duration, Instant};
use warren_tests::DEADLINE;
use warren_tests::disk::{
    Publisher, copy_directory, declare_durable, files_below, settle_in_transaction,
};
use warren_tests::history::MessageId;
use warren_tests::process::{Place, WarrenProcess, binary};

use super::super::SETTINGS;

/// The queues. The exchange `fan` is bound to the first one.
pub(crate) const QUEUES: [&str; 3] = ["orders", "mails", "events"];

/// Octets of a message, about.
const LEN: usize = 16 << 10;

/// Messages that are published to each queue, in lots, one queue after the other.
const LOTS: u64 = 24;
const LOT: u64 = 16;

/// Messages that are acknowledged after each lot, and after the last one not.
const SETTLED: usize = 6;

/// What is known of a queue. The store numbers messages as their producer does: from 0 on.
#[derive(Debug)]
pub(crate) struct KnownQueue {
    pub(crate) name: &'static str,
    pub(crate) producer: u32,
}

/// The directory, and what was promised of it.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) data_dir: PathBuf,
    pub(crate) queues: Vec<KnownQueue>,
    /// What is in the queues, in the same order: confirmed, and not acknowledged.
    pub(crate) live: Vec<BTreeSet<MessageId>>,
    /// The log files that hold something, oldest first, relative to the store.
    pub(crate) used_logs: Vec<PathBuf>,
    /// The segments in which a message lives.
    pub(crate) used_segments: Vec<PathBuf>,
    _directory: TempDir,
}

/// The template, made when it is first asked for.
pub(crate) fn template() -> &'static Template {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        // A test asks on a runtime of its own, which must not be blocked on by another.
        std::thread::scope(|scope| scope.spawn(make_alone).join().unwrap())
    })
}

fn make_alone() -> Template {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(make())
}

async fn make() -> Template {
    let directory = TempDir::with_prefix("warren-template-").unwrap();
    let place = Place::new(&directory.path().join("data"));
    let broker = WarrenProcess::start_at(&place, &SETTINGS).await;
    let mut peer = broker.amqp().await;
    let mut publishers = Vec::new();
    for (producer, queue) in (0..).zip(QUEUES) {
        declare_durable(&mut peer, queue).await;
        publishers.push(Publisher::new(broker.amqp().await, producer, queue).await);
    }
    let (exchange, kind) = ("fan".into(), "fanout".into());
    peer.call(
        1,
        exchange::Declare { exchange, kind, durable: true, ..exchange::Declare::default() },
    )
    .await;
    let (queue, exchange) = (QUEUES[0].into(), "fan".into());
    peer.call(1, queue::Bind { queue, exchange, ..queue::Bind::default() }).await;
    let mut settled = BTreeSet::new();
    for lot in 0..LOTS {
        for (publisher, queue) in publishers.iter_mut().zip(QUEUES) {
            publisher.publish(LOT, LEN).await;
            assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
            if lot + 1 < LOTS {
                settled.extend(settle_in_transaction(&mut peer, queue, SETTLED).await);
            }
        }
    }
    quiet(&place).await;
    // Something that no checkpoint knows.
    for publisher in &mut publishers {
        publisher.publish(2, LEN).await;
        assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
    }
    let live = publishers.iter().map(|one| one.confirmed() - &settled).collect();
    broker.kill().await;
    let store = inspect(&place);
    let queues = (0..).zip(QUEUES).map(|(producer, name)| KnownQueue { name, producer }).collect();
    let (used_logs, used_segments) = (used(&store, "log"), used(&store, "segment"));
    let data_dir = place.data_dir;
    Template { data_dir, queues, live, used_logs, used_segments, _directory: directory }
}

/// Waits until the broker has moved, merged and removed what is to be, so that the files are the same on any machine.
async fn quiet(place: &Place) {
    // The store looks for something to do four times a second.
    const QUIET: Duration = Duration::from_millis(800);
    const QUIET_WITHIN: Duration = Duration::from_secs(60);
    let store = place.data_dir.join("store");
    let (mut files, mut since) = (files_below(&store), Instant::now());
    let began = since;
    while since.elapsed() < QUIET {
        assert!(began.elapsed() < QUIET_WITHIN, "the store never rests: {files:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = files_below(&store);
        if now != files {
            (files, since) = (now, Instant::now());
        }
    }
}

/// What `warren store inspect` says, of a copy.
fn inspect(place: &Place) -> Value {
    let copy = TempDir::with_prefix("warren-inspect-").unwrap();
    copy_directory(&place.data_dir, copy.path());
    let mut command = Command::new(binary());
    command.args(["store", "inspect", "--formatter", "json"]).arg(copy.path());
    let said = command.output().unwrap();
    serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// The files of a kind that hold something.
fn used(store: &Value, kind: &str) -> Vec<PathBuf> {
    let files = store["files"].as_array().unwrap().iter();
    let used = files.filter(|file| file["kind"] == kind && file["used"].as_u64() > Some(0));
    used.map(|file| PathBuf::from(file["path"].as_str().unwrap())).collect()
}
