//! The store with its threads, on real files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

use std::sync::Arc;
use std::time::Duration;

use broker_core::storage::{
    Batch, LogPosition, MessageRef, Options, SeqRange, StdFs, StorageError, Store,
};
use parking_lot::{Condvar, Mutex};

fn options() -> Options {
    Options {
        wal_file_len: 1 << 20,
        frame_len_max: 256 << 10,
        extent_len: 64 << 10,
        own_segment_len: 128 << 10,
        small_segment_len: 64 << 10,
        ballast_len: 64 << 10,
        ..Options::default()
    }
}

/// Waits until the mark has reached a position.
struct Mark {
    moved: Mutex<()>,
    changed: Condvar,
}

impl Mark {
    fn of(store: &Store) -> Arc<Self> {
        let mark = Arc::new(Self { moved: Mutex::new(()), changed: Condvar::new() });
        let waker = Arc::clone(&mark);
        store.register(Box::new(move || {
            drop(waker.moved.lock());
            waker.changed.notify_all();
        }));
        mark
    }

    fn wait(&self, mut is_reached: impl FnMut() -> bool) {
        let mut moved = self.moved.lock();
        for _ in 0..400 {
            if is_reached() {
                return;
            }
            self.changed.wait_for(&mut moved, Duration::from_millis(50));
        }
        panic!("not reached within 20 s");
    }

    fn wait_for(&self, store: &Store, position: LogPosition) {
        self.wait(|| store.durable() >= position);
    }
}

fn publish(store: &Store, queue: u64, seq: u64) -> LogPosition {
    let target = [MessageRef { queue, seq }];
    let body = [seq as u8; 500];
    let mut batch = Batch::new();
    batch.enqueue(&target, 0, b"head", &body);
    store.append(&batch).unwrap()
}

#[test]
fn publishers_and_consumers_at_once_then_a_start_without_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovered) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    assert!(recovered.is_new);
    let mark = Mark::of(&store);
    let (queues, count) = (4_u64, 6000_u64);
    std::thread::scope(|scope| {
        for queue in 1..=queues {
            let (store, mark) = (&store, &mark);
            scope.spawn(move || {
                let mut last = LogPosition(0);
                for seq in 1..=count {
                    last = publish(store, queue, seq);
                    if seq % 500 == 0 {
                        mark.wait_for(store, last);
                    }
                    // Of each ten, one is left.
                    if seq % 10 == 0 {
                        let ranges = [SeqRange { first: seq - 9, last: seq - 1 }];
                        let mut batch = Batch::new();
                        batch.ack(queue, &ranges);
                        last = store.append(&batch).unwrap();
                    }
                }
                mark.wait_for(store, last);
            });
        }
    });
    assert_eq!(store.background_error(), None);
    // No clean stop: what the threads had written is all there is.
    drop(store);
    let (store, recovered) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    assert_eq!(recovered.damage, []);
    for queue in &recovered.queues {
        assert_eq!(queue.live.len(), count / 10);
        assert!(queue.live.iter().all(|seq| seq % 10 == 0));
        let mut from = 0;
        while let Some(block) = store.read(queue.queue, from, 64 << 10).unwrap() {
            for message in block.messages() {
                assert_eq!(message.body, [message.seq as u8; 500]);
            }
            from = block.next;
        }
    }
    store.close().unwrap();
    let (_store, recovered) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    assert_eq!(recovered.replayed_records, 0, "a clean stop leaves nothing to replay");
}

#[test]
fn acks_alone_become_durable_without_being_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    let mark = Mark::of(&store);
    mark.wait_for(&store, publish(&store, 1, 1));
    let ranges = [SeqRange::one(1)];
    let mut batch = Batch::new();
    batch.ack(1, &ranges);
    let position = store.append(&batch).unwrap();
    mark.wait_for(&store, position);
    assert!(store.read(1, 0, 100).unwrap().is_none());
}

#[test]
fn a_drained_backlog_gives_its_segments_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    let mark = Mark::of(&store);
    let count = 20_000;
    let mut last = LogPosition(0);
    for seq in 1..=count {
        last = publish(&store, 1, seq);
    }
    mark.wait_for(&store, last);
    let segments = || std::fs::read_dir(dir.path().join("seg")).unwrap().count();
    mark.wait(|| segments() > 0);
    let mut batch = Batch::new();
    batch.purge(1, count);
    let position = store.append(&batch).unwrap();
    mark.wait_for(&store, position);
    mark.wait(|| segments() == 0);
}

#[test]
fn a_second_store_on_the_directory_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (first, _) = Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
    let second = Store::open(Arc::new(StdFs), dir.path(), options());
    assert!(matches!(second, Err(StorageError::Locked { .. })));
    drop(first);
    Store::open(Arc::new(StdFs), dir.path(), options()).unwrap();
}
