//! A disk without room: the real binary on a file system of a few MiB, filled by its own traffic and by others.
//!
//! What has to hold: the broker goes on running, holds publishers and says why, confirms nothing that a kill would
//! take, lets consumers take and acknowledge, starts with not a block free, and goes on by itself when there is room
//! again. Times are measured and printed (`--nocapture`), not judged: a busy machine is no failure.
//!
//! `WARREN_LONG=1` fills and empties the disk more often.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says with a panic that it has failed, and prints what it has measured"
)]

use std::collections::BTreeSet;

use proto_amqp::control::protocol::queue;
use proto_stomp::{Command, OwnedFrame};
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};
use warren_tests::amqp::Peer;
use warren_tests::disk::{
    Publisher, SmallDisk, declare_durable, drained, files_below, is_long_run, octets_below,
    settle_in_transaction,
};
use warren_tests::history::MessageId;
use warren_tests::process::{Place, WarrenProcess};
use warren_tests::{DEADLINE, eventually};

const MIB: u64 = 1 << 20;

/// The file system.
const DISK_MIB: u64 = 48;

/// Octets of a message, about.
const LEN: usize = 32 << 10;

/// Files of 1 MiB, so that a small disk holds many. A message has to fit into one.
const SMALL_FILES: [&str; 2] = ["store.log_file_size=1MiB", "amqp.max_message_size=512KiB"];

/// Publishers are held before the disk is full.
const WITH_ALARM: [&str; 3] = [SMALL_FILES[0], SMALL_FILES[1], "limits.disk_free=4MiB"];

/// They are held by the store alone, when it has no more room.
const WITHOUT_ALARM: [&str; 3] = [SMALL_FILES[0], SMALL_FILES[1], "limits.disk_free=1"];

/// What the log of the store may keep when nothing lives in it: four full files, the one that is written, three that
/// are ready, four spares, and the ballast of two.
const LOG_MAX: u64 = 14 * MIB;

/// A segment below this size is left alone until there are more of them.
const SEGMENT_MAX: u64 = 8 * MIB;

/// How long a store may take to give space back.
const GIVES_BACK_WITHIN: Duration = Duration::from_secs(60);

/// How often the disk is filled and emptied, and how often of that the broker starts on a full one.
fn cycles() -> (usize, usize) {
    if is_long_run() { (50, 20) } else { (5, 2) }
}

/// Publishes until the broker says that it holds publishers.
async fn publish_until_blocked(publisher: &mut Publisher) -> Duration {
    let since = Instant::now();
    while publisher.blocked().is_none() {
        publisher.publish(4, LEN).await;
        publisher.settle(Duration::from_millis(200)).await;
        assert!(since.elapsed() < Duration::from_secs(60), "nobody is held on a full disk");
    }
    since.elapsed()
}

/// Fails when a confirmed message that nobody has settled is not there, or one that was settled is.
fn check_kept(
    confirmed: &BTreeSet<MessageId>,
    settled: &BTreeSet<MessageId>,
    found: &[MessageId],
    broker: &WarrenProcess,
) {
    let found: BTreeSet<_> = found.iter().copied().collect();
    let lost: Vec<_> = confirmed.difference(settled).filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "confirmed and gone: {lost:?}; {}", broker.log());
    let back: Vec<_> = settled.intersection(&found).collect();
    assert!(back.is_empty(), "settled and back: {back:?}; {}", broker.log());
}

/// A broker that was killed, on the same directory again.
async fn start_again(broker: WarrenProcess, place: &Place, settings: &[&str]) -> WarrenProcess {
    broker.kill().await;
    WarrenProcess::start_at(place, settings).await
}

/// Takes all that is in the queue but the last `rest` messages, in transactions of a hundred.
async fn settle_all_but(peer: &mut Peer, queue: &str, rest: usize) -> BTreeSet<MessageId> {
    let mut settled = BTreeSet::new();
    loop {
        let count = peer.call(1, passive(queue)).await.message_count as usize;
        let take = count.saturating_sub(rest).min(100);
        if take == 0 {
            return settled;
        }
        settled.extend(settle_in_transaction(peer, queue, take).await);
    }
}

fn passive(queue: &str) -> queue::Declare {
    queue::Declare { queue: queue.into(), passive: true, ..queue::Declare::default() }
}

#[tokio::test]
async fn own_traffic_fills_the_disk_and_consumers_empty_it() {
    fill_by_own_traffic("with alarm", &WITH_ALARM).await;
}

#[tokio::test]
async fn own_traffic_fills_the_disk_to_the_last_block_when_no_alarm_is_set() {
    fill_by_own_traffic("without alarm", &WITHOUT_ALARM).await;
}

async fn fill_by_own_traffic(name: &str, settings: &[&str]) {
    let disk = SmallDisk::new(DISK_MIB);
    let place = disk.place();
    let mut broker = WarrenProcess::start_at(&place, settings).await;
    let mut consumer = broker.amqp().await;
    declare_durable(&mut consumer, "work").await;
    let mut publisher = Publisher::new(broker.amqp().await, 0, "work").await;
    publish_until_blocked(&mut publisher).await;
    println!("{name}: held with {} KiB free: {:?}", disk.free() / 1024, publisher.blocked());
    assert!(publisher.blocked().is_some_and(|reason| reason.contains("disk")), "{publisher:?}");
    assert!(broker.is_running());
    // Consumers take and acknowledge while it is full, and what they have acknowledged stays so.
    let mut settled: BTreeSet<_> =
        settle_in_transaction(&mut consumer, "work", 20).await.into_iter().collect();
    assert_eq!(settled.len(), 20);
    publisher.listen(Duration::from_millis(100)).await;
    let mut confirmed = publisher.confirmed().clone();
    broker = start_again(broker, &place, settings).await;
    let mut consumer = broker.amqp().await;
    settled.extend(settle_all_but(&mut consumer, "work", 20).await);
    let since = Instant::now();
    eventually("no alarm is on", async || broker.status()["alarms"] == json!([])).await;
    println!("{name}: no alarm {:?} after the queue was emptied", since.elapsed());
    let mut publisher = Publisher::new(broker.amqp().await, 1, "work").await;
    publisher.publish(1, LEN).await;
    assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
    confirmed.extend(publisher.confirmed());
    let (live, since) = (21 * LEN as u64, Instant::now());
    let bound = 2 * live + LOG_MAX + SEGMENT_MAX;
    let store = place.data_dir.join("store");
    while octets_below(&store) > bound {
        let (octets, files) = (octets_below(&store), files_below(&store));
        let is_late = since.elapsed() > GIVES_BACK_WITHIN;
        assert!(!is_late, "{octets} octets stay in {files:?}, {}", broker.log());
        sleep(Duration::from_millis(50)).await;
    }
    println!("{name}: {} KiB stay after {:?}", octets_below(&store) / 1024, since.elapsed());
    broker = start_again(broker, &place, settings).await;
    let found = drained(&mut broker.amqp().await, "work").await;
    check_kept(&confirmed, &settled, &found, &broker);
}

#[tokio::test]
async fn a_foreign_file_fills_the_disk_again_and_again() {
    let (cycles, starts) = cycles();
    let disk = SmallDisk::new(DISK_MIB);
    let place = disk.place();
    let mut broker = WarrenProcess::start_at(&place, &WITH_ALARM).await;
    declare_durable(&mut broker.amqp().await, "work").await;
    let (mut confirmed, mut settled) = (BTreeSet::new(), BTreeSet::new());
    for cycle in 0..cycles {
        let producer = u32::try_from(cycle).unwrap();
        let mut publisher = Publisher::new(broker.amqp().await, producer, "work").await;
        publisher.publish(20, LEN).await;
        assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
        disk.fill(0);
        let since = Instant::now();
        publish_until_blocked(&mut publisher).await;
        let held = since.elapsed();
        let mut consumer = broker.amqp().await;
        // A durable queue is a small record, for which there is room; that it is kept is what the answer says.
        declare_durable(&mut consumer, &format!("declared-{cycle}")).await;
        settled.extend(settle_in_transaction(&mut consumer, "work", 10).await);
        let starts_full = cycle < starts;
        if starts_full {
            publisher.listen(Duration::from_millis(50)).await;
            confirmed.extend(publisher.confirmed());
            // Not a block is free when it starts.
            disk.fill(0);
            broker = start_again(broker, &place, &WITH_ALARM).await;
            publisher = Publisher::new(broker.amqp().await, 1000 + producer, "work").await;
            consumer = broker.amqp().await;
            settled.extend(settle_in_transaction(&mut consumer, "work", 5).await);
            consumer.call(1, passive(&format!("declared-{cycle}"))).await;
            publish_until_blocked(&mut publisher).await;
        }
        assert!(broker.is_running());
        disk.make_room();
        let took = publisher.until("publishers go on", |one| one.blocked().is_none()).await;
        publisher.publish(1, LEN).await;
        assert!(publisher.settle(DEADLINE).await, "{publisher:?}");
        println!("cycle {cycle}: held after {held:?}, going on after {took:?}");
        confirmed.extend(publisher.confirmed());
        settled.extend(settle_all_but(&mut consumer, "work", 20).await);
    }
    broker = start_again(broker, &place, &WITH_ALARM).await;
    let found = drained(&mut broker.amqp().await, "work").await;
    check_kept(&confirmed, &settled, &found, &broker);
}

#[tokio::test]
async fn stomp_is_not_read_from_while_the_disk_is_full() {
    const FRAMES: usize = 7;
    let disk = SmallDisk::new(DISK_MIB);
    let place = disk.place();
    let mut broker = WarrenProcess::start_at(&place, &WITH_ALARM).await;
    let mut peer = broker.stomp().await;
    disk.fill(MIB);
    eventually("the alarm is on", async || broker.status()["alarms"] == json!(["disk"])).await;
    // More than a held connection may still send.
    for number in 0..FRAMES {
        let mut send = OwnedFrame::new(Command::Send)
            .header("destination", "/queue/held")
            .header("receipt", number.to_string());
        send.body = vec![b'x'; 256 << 10];
        peer.send(&send).await;
    }
    let mut receipts = 0;
    while peer.hears_within(Duration::from_millis(300)).await {
        peer.expect_receipt(&receipts.to_string()).await;
        receipts += 1;
    }
    assert!(receipts < FRAMES, "all was read");
    assert!(broker.is_running());
    disk.make_room();
    for number in receipts..FRAMES {
        peer.expect_receipt(&number.to_string()).await;
    }
}

#[tokio::test]
async fn a_new_broker_on_a_full_disk_says_what_is_missing() {
    let disk = SmallDisk::new(4);
    let place = disk.place();
    disk.fill(0);
    let refused = WarrenProcess::try_start_at(&place, &WITH_ALARM).await.unwrap_err();
    assert!(refused.log.contains("No space left on device"), "{}", refused.log);
    assert!(refused.log.contains(&*place.inside.to_string_lossy()), "{}", refused.log);
    assert!(!refused.log.contains("panicked"), "{}", refused.log);
    disk.make_room();
}
