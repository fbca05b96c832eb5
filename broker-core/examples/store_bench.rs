//! Measures the store on a real disk: `bench DIR [publishers] [window] [size] [count] [mode]`.
//!
//! Modes: `ack` (each message acked when durable, as by a consumer that keeps up), `backlog`
//! (nothing acked, then killed and opened again, read back, acked), `raw` (one fdatasync a
//! message). Prints rates; the disk and the neighbours decide them as much as the code.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::needless_collect,
    reason = "a measuring program for a terminal"
)]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::storage::{Batch, MessageRef, Options, SeqRange, StdFs, Store};
use parking_lot::{Condvar, Mutex};

fn argument<T: std::str::FromStr>(at: usize, default: T) -> T {
    std::env::args().nth(at).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn disk_mib(dir: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_mib(&entry.path()),
            Ok(data) => data.len() >> 20,
            Err(_) => 0,
        })
        .sum()
}

struct Signal {
    moved: Mutex<u64>,
    changed: Condvar,
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this program does")]
fn now() -> Instant {
    Instant::now()
}

fn publish(
    store: &Store,
    signal: &Signal,
    queue: u64,
    (window, size, count): (usize, usize, u64),
    acks: bool,
    latencies: &mut Vec<Duration>,
) {
    let body = vec![7_u8; size];
    let head = [1_u8; 32];
    let read_batch = (65_536 / (size + 60)).clamp(1, window);
    let mut waiting: VecDeque<(u64, u64, Instant)> = VecDeque::new();
    let mut next = 1_u64;
    let mut acked = 1_u64;
    let mut in_window = 0_u64;
    while next <= count || !waiting.is_empty() {
        let durable = store.durable().0;
        let mut confirmed = 0;
        while let Some((position, messages, started)) = waiting.front()
            && *position <= durable
        {
            confirmed += messages;
            latencies.push(started.elapsed());
            waiting.pop_front();
        }
        in_window -= confirmed;
        if acks && confirmed > 0 {
            let ranges = [SeqRange { first: acked, last: acked + confirmed - 1 }];
            acked += confirmed;
            let mut batch = Batch::new();
            batch.ack(queue, &ranges);
            store.append(&batch).expect("append");
        }
        let room = (window as u64 - in_window).min(count + 1 - next).min(read_batch as u64);
        if room > 0 && !store.is_pressed() {
            let targets: Vec<[MessageRef; 1]> =
                (next..next + room).map(|seq| [MessageRef { queue, seq }]).collect();
            let mut batch = Batch::new();
            for target in &targets {
                batch.enqueue(target, 0, &head, &body);
            }
            let position = store.append(&batch).expect("append");
            waiting.push_back((position.0, room, now()));
            in_window += room;
            next += room;
            continue;
        }
        let mut moved = signal.moved.lock();
        if store.durable().0 == durable {
            signal.changed.wait_for(&mut moved, Duration::from_millis(100));
        }
    }
}

fn main() {
    let dir: PathBuf = argument(1, std::env::temp_dir().join("store-bench"));
    let publishers: u64 = argument(2, 1);
    let window: usize = argument(3, 1000);
    let size: usize = argument(4, 1024);
    let count: u64 = argument(5, 2_000_000);
    let mode: String = argument(6, "ack".to_owned());
    drop(std::fs::remove_dir_all(&dir));
    let (store, _) = Store::open(Arc::new(StdFs), &dir, Options::default()).expect("open");
    let signal = Arc::new(Signal { moved: Mutex::new(0), changed: Condvar::new() });
    let waking = Arc::clone(&signal);
    store.register(Box::new(move || {
        *waking.moved.lock() += 1;
        waking.changed.notify_all();
    }));
    std::thread::park_timeout(Duration::from_millis(500));
    let started = now();
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=publishers)
            .map(|queue| {
                let (store, signal, acks) = (&store, &signal, mode == "ack");
                scope.spawn(move || {
                    let mut latencies = Vec::new();
                    let load = (window, size, count / publishers);
                    publish(store, signal, queue, load, acks, &mut latencies);
                    latencies
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("publisher")).collect()
    });
    let took = started.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len().saturating_sub(1)) as f64 * share;
        latencies.get(index as usize).copied().unwrap_or_default()
    };
    let counters = store.counters();
    println!(
        "{publishers} x {window}, {size} B: {:.0} k/s; p50 {:?} p99 {:?} max {:?}; {} frames; \
         write amplification {:.2}; RSS {} MiB; disk {} MiB; {counters:?}",
        count as f64 / took.as_secs_f64() / 1000.0,
        at(0.5),
        at(0.99),
        at(1.0),
        counters.frames,
        (counters.log_octets + counters.spilled_octets + counters.compacted_octets) as f64
            / counters.appended_octets as f64,
        memory_mib(),
        disk_mib(&dir),
    );
    if mode != "backlog" {
        store.close().expect("close");
        return;
    }
    // As kill -9 leaves it: no checkpoint, no seal.
    drop(store);
    let (store, recovered) = Store::open(Arc::new(StdFs), &dir, Options::default()).expect("open");
    println!(
        "opened in {:?}: {} messages, {} MiB replayed, RSS {} MiB, damage {:?}",
        recovered.took,
        recovered.queues.iter().map(|queue| queue.live.len()).sum::<u64>(),
        recovered.replayed_octets >> 20,
        memory_mib(),
        recovered.damage,
    );
    let started = now();
    let mut read = 0_u64;
    for queue in 1..=publishers {
        let mut from = 0;
        while let Some(block) = store.read(queue, from, 256 << 10).expect("read") {
            read += block.len() as u64;
            let ranges = [SeqRange { first: from, last: block.next - 1 }];
            from = block.next;
            let mut batch = Batch::new();
            batch.ack(queue, &ranges);
            store.append(&batch).expect("ack");
        }
    }
    let took = started.elapsed();
    println!(
        "drained {read} in {took:?}: {:.0} k/s, RSS {} MiB",
        read as f64 / took.as_secs_f64() / 1000.0,
        memory_mib()
    );
    std::thread::park_timeout(Duration::from_secs(2));
    println!("disk {} MiB after the drain; {:?}", disk_mib(&dir), store.background_error());
    store.close().expect("close");
    drop(std::fs::remove_dir_all(&dir));
}
