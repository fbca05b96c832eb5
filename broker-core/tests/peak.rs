//! A large body is in memory once: while it is appended, written, read from the log, moved to a
//! segment, and read from there. A binary of its own, because the memory of the process is measured.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use broker_core::storage::{
    Batch, CommitStep, Durability, Engine, MessageRef, Options, StdFs, StorageError,
};

const BODY_LEN: usize = 64 << 20;

/// A line of the process's status, in octets.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Does something, and checks that the process never held more than `bodies` large bodies in it.
fn hold_at_most<R>(bodies: usize, what: &str, before: usize, act: impl FnOnce() -> R) -> R {
    // Sets the peak back to what is held now (proc(5), clear_refs).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let result = act();
    let peak = status("VmHWM:").saturating_sub(before);
    let allowed = bodies * BODY_LEN + BODY_LEN / 4;
    assert!(peak <= allowed, "to {what} takes {peak} octets, {allowed} are allowed");
    result
}

fn commit(engine: &Engine) -> Result<(), StorageError> {
    while engine.commit_step()? == CommitStep::Written {}
    Ok(())
}

#[test]
fn a_large_body_is_in_memory_once_wherever_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        wal_file_len: BODY_LEN as u64 + (1 << 20),
        frame_len_max: 1 << 20,
        full_files: 0,
        spares: 0,
        ballast_len: 0,
        durability: Durability::Os,
        ..Options::default()
    };
    let open = |root: &Path| Engine::open(Arc::new(StdFs), root, options.clone()).unwrap().0;
    let engine = open(dir.path());
    let before = status("VmRSS:");
    let body = Arc::new(vec![7; BODY_LEN]);
    let target = [MessageRef { queue: 1, seq: 1 }];
    hold_at_most(1, "append and write it", before, || {
        let mut batch = Batch::new();
        batch.enqueue_shared(&target, 0, b"head", &body);
        engine.append(&batch).unwrap();
        commit(&engine).unwrap();
    });
    drop(body);
    let read = |engine: &Engine, from: &str| {
        let block = hold_at_most(1, from, before, || engine.read_one(1, 1).unwrap().unwrap());
        let message = block.messages().next().unwrap();
        assert!(message.body.len() == BODY_LEN && message.body.iter().all(|octet| *octet == 7));
    };
    read(&engine, "read it from the log");
    // What does not fit behind it makes its file a full one.
    let filler = vec![1; 2 << 20];
    let target = [MessageRef { queue: 2, seq: 1 }];
    let mut batch = Batch::new();
    batch.enqueue(&target, 0, b"", &filler);
    engine.append(&batch).unwrap();
    commit(&engine).unwrap();
    drop(batch);
    drop(filler);
    assert!(hold_at_most(1, "spill it", before, || engine.spill_step().unwrap()));
    commit(&engine).unwrap();
    assert!(engine.counters().spilled_octets > BODY_LEN as u64);
    read(&engine, "read it from a segment");
    drop(engine);
    read(&hold_at_most(1, "open the store", before, || open(dir.path())), "read it again");
}
