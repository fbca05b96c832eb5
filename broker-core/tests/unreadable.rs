//! Pages that the disk does not give: what they cost while a store runs, and at the end of the log.
//! What they cost while it is opened is a row of `damage.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{
    Batch, CommitStep, Damage, Engine, Health, MessageRef, Options, Recovered, StorageError,
    repair, verify,
};
use common::ROOT;

const PAGE: usize = 4096;
const QUEUE: u64 = 1;
/// Three lie on a page, about.
const BODY_LEN: usize = 1300;
/// So many times five seconds are longer than a page is in doubt.
const LONG: usize = 8;
const FIVE_SECONDS: Duration = Duration::from_secs(5);

fn options(seed: u64) -> Options {
    Options { full_files: 1, extent_len: 32 << 10, ..common::small_options(seed) }
}

fn open(fs: &SimFs, seed: u64) -> (Engine, Recovered) {
    Engine::open(Arc::new(fs.clone()), Path::new(ROOT), options(seed)).expect("the store opens")
}

/// Messages whose bodies tell their number, committed together.
fn publish(engine: &Engine, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        let target = [MessageRef { queue: QUEUE, seq }];
        let body = body(seq);
        let mut batch = Batch::new();
        batch.enqueue(&target, 0, b"head", &body);
        engine.append(&batch).unwrap();
    }
    commit(engine);
}

fn body(seq: u64) -> Vec<u8> {
    let mut body = format!("message {seq};").into_bytes();
    body.resize(BODY_LEN, b'.');
    body
}

fn commit(engine: &Engine) {
    while engine.commit_step().unwrap() == CommitStep::Written {}
}

/// The offset at which a file holds some octets, and its path.
fn find(fs: &SimFs, octets: &[u8]) -> (PathBuf, usize) {
    let holds = |path: PathBuf| {
        let held = fs.octets(&path).unwrap();
        let at = held.windows(octets.len()).position(|found| found == octets)?;
        Some((path, at))
    };
    // Segments sort before the log: what has been moved is found where it is now.
    let files =
        fs.files().into_iter().filter(|path| !path.starts_with(ROOT.to_owned() + "/quarantine"));
    files.into_iter().find_map(holds).expect("some file holds it")
}

/// Spoils the page on which the middle of a message lies, for good; answers its file and offset.
fn spoil(fs: &SimFs, seq: u64) -> (PathBuf, usize) {
    let (path, at) = find(fs, &body(seq));
    let at = (at + BODY_LEN / 2) / PAGE * PAGE;
    fs.spoil(&path, at as u64, u32::MAX);
    (path, at)
}

/// The numbers of the messages that can be read, as long as reading goes on.
fn read(engine: &Engine) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut from = 0;
    while let Ok(Some(block)) = engine.read(QUEUE, from, 0) {
        for message in block.messages() {
            assert_eq!(message.body, body(message.seq));
            assert!(found.insert(message.seq));
        }
        from = block.next;
    }
    found
}

fn named(damage: &[Damage]) -> BTreeSet<u64> {
    let all = damage.iter().flat_map(|damage| &damage.lost);
    all.flat_map(|lost| {
        assert_eq!(lost.queue, QUEUE, "{lost:?}");
        lost.range.first..=lost.range.last
    })
    .collect()
}

/// Whether a report names file and page.
fn tells(damage: &Damage, (path, at): &(PathBuf, usize)) -> bool {
    let page = format!("the page at offset {at} cannot be read");
    Path::new(ROOT).join(&damage.file) == *path && damage.detail.contains(&page)
}

/// Judges a store in which some messages around `seq` were given up: few, named, and for good.
fn judge(fs: &SimFs, engine: Engine, seq: u64, all: u64, place: &(PathBuf, usize)) {
    let found = read(&engine);
    let damage = engine.damage();
    let lost = named(&damage);
    assert!(lost.contains(&seq) && lost.len() <= 5, "{damage:?}");
    assert_eq!(&found | &lost, (1..=all).collect(), "each is there or named: {damage:?}");
    assert!(found.is_disjoint(&lost));
    assert!(damage.iter().any(|damage| tells(damage, place)), "{damage:?}");
    let kept = damage.iter().filter(|damage| !damage.lost.is_empty());
    for damage in kept {
        let kept = damage.quarantined.as_ref().expect("the octets are kept");
        assert!(fs.octets(&Path::new(ROOT).join(kept)).is_some());
    }
    // The loss is settled.
    engine.close_step().unwrap();
    drop(engine);
    let (engine, recovered) = open(&fs.kill(), 1);
    assert!(recovered.damage.iter().all(|damage| damage.lost.is_empty()), "{recovered:?}");
    assert_eq!(read(&engine), found);
    assert_eq!(engine.damage(), []);
}

#[test]
fn a_queue_goes_on_behind_a_bad_page_of_the_log_after_half_a_minute_and_not_before() {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, 1);
    publish(&engine, 1..21);
    let place = spoil(&fs, 9);
    // In one read: what lies before the page is handed out, whatever lies behind it.
    let block = engine.read(QUEUE, 1, 1 << 20).unwrap().unwrap();
    assert!((4..9).contains(&block.next) && block.len() as u64 == block.next - 1, "{block:?}");
    let before = read(&engine);
    assert_eq!(before, (1..block.next).collect());
    for _ in 0..5 {
        engine.reread_step(FIVE_SECONDS);
        assert_eq!(read(&engine), before);
        assert_eq!(engine.damage(), [], "nothing is given up for an error that may pass");
    }
    engine.reread_step(FIVE_SECONDS);
    let damage = engine.damage();
    assert!(damage.len() == 1 && damage[0].lost.is_empty() && tells(&damage[0], &place));
    judge(&fs, engine, 9, 20, &place);
}

/// Maintenance ended when the log was lost, and who read a page in doubt read it for ever; or it went on trying.
#[test]
fn when_the_log_is_lost_bad_pages_are_given_up_all_the_same_and_nothing_is_written() {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, 6);
    // Files of the log that wait to be moved to segments.
    for start in (1..141).step_by(20) {
        publish(&engine, start..start + 20);
    }
    let (_, at) = spoil(&fs, 9);
    let changes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&changes);
    fs.set_hook(move |call| {
        let reads = [Operation::Open, Operation::Size, Operation::Read, Operation::Available];
        if !reads.contains(&call.operation) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        (call.operation == Operation::SyncData).then_some(Fault::LostSync)
    });
    let mut batch = Batch::new();
    batch.enqueue(&[MessageRef { queue: QUEUE + 1, seq: 1 }], 0, b"head", b"lost");
    engine.append(&batch).unwrap();
    assert!(engine.commit_step().is_err());
    assert!(matches!(engine.health(), Health::Poisoned { .. }));
    let before = read(&engine);
    assert!(before.last() < Some(&9), "{before:?}");
    let changed = changes.load(Ordering::Relaxed);
    for _ in 0..LONG {
        assert!(!engine.background_step(FIVE_SECONDS), "there is nothing to do at once");
    }
    assert_eq!(changes.load(Ordering::Relaxed), changed);
    let found = read(&engine);
    let damage = engine.damage();
    let lost = named(&damage);
    assert!(lost.contains(&9) && lost.len() <= 5, "{damage:?}");
    assert_eq!(&found | &lost, (1..141).collect(), "each is there or named: {damage:?}");
    let page = format!("the page at offset {at} cannot be read");
    assert!(damage.iter().any(|damage| damage.detail.contains(&page)), "{damage:?}");
}

#[test]
fn a_page_that_is_there_again_in_time_costs_nothing() {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, 2);
    publish(&engine, 1..21);
    let (path, at) = find(&fs, &body(9));
    // The first read and its repetitions, and two further tries.
    fs.spoil(&path, at as u64, 6);
    assert!(read(&engine).len() < 9);
    for _ in 0..3 {
        engine.reread_step(FIVE_SECONDS);
    }
    assert_eq!(read(&engine), (1..21).collect());
    for _ in 0..LONG {
        engine.reread_step(FIVE_SECONDS);
    }
    assert_eq!(engine.damage(), []);
}

#[test]
fn a_bad_page_does_not_stop_the_log_from_being_moved_to_segments() {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, 3);
    publish(&engine, 1..21);
    let place = spoil(&fs, 9);
    // Three files of the log.
    for start in (21..141).step_by(20) {
        publish(&engine, start..start + 20);
    }
    assert!(engine.spill_step().is_err(), "it waits for the page");
    for _ in 0..LONG {
        engine.reread_step(FIVE_SECONDS);
    }
    assert!(engine.spill_step().unwrap());
    commit(&engine);
    let (path, _) = find(&fs, &body(1));
    assert!(path.starts_with(Path::new(ROOT).join("seg")), "{}", path.display());
    // What has lost a sector is not used again.
    engine.checkpoint_step().unwrap();
    engine.checkpoint_step().unwrap();
    assert!(engine.retire_step().unwrap());
    let names: Vec<_> = fs.files();
    assert!(!names.contains(&place.0) && !names.contains(&place.0.with_extension("spare")));
    judge(&fs, engine, 9, 140, &place);
}

/// A store whose first messages lie in a segment.
fn spilled(seed: u64) -> (SimFs, Engine) {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, seed);
    for start in (1..141).step_by(20) {
        publish(&engine, start..start + 20);
    }
    while engine.maintain_step().unwrap() {
        commit(&engine);
    }
    (fs, engine)
}

#[test]
fn a_queue_goes_on_behind_a_bad_page_of_a_segment() {
    let (fs, engine) = spilled(4);
    let place = spoil(&fs, 9);
    let block = engine.read(QUEUE, 1, 1 << 20).unwrap().unwrap();
    assert!((4..9).contains(&block.next) && block.len() as u64 == block.next - 1, "{block:?}");
    let before = read(&engine);
    assert_eq!(before, (1..block.next).collect());
    // Nor does the page matter where nothing that lives lies on it.
    let behind = engine.read(QUEUE, 12, 1 << 20).unwrap().unwrap();
    assert_eq!(behind.messages().next().map(|message| message.seq), Some(12));
    // The background reading meets it too, and leaves it to those tries.
    engine.scrub_step(FIVE_SECONDS);
    assert_eq!(engine.damage(), []);
    for _ in 0..LONG {
        engine.reread_step(FIVE_SECONDS);
    }
    judge(&fs, engine, 9, 140, &place);
}

#[test]
fn a_bad_page_does_not_stop_segments_from_being_rewritten() {
    let (fs, engine) = spilled(5);
    let place = spoil(&fs, 9);
    let (path, _) = find(&fs, &body(9));
    // Most of what is in segments dies.
    let mut batch = Batch::new();
    let dead = [broker_core::storage::SeqRange { first: 12, last: 90 }];
    batch.ack(QUEUE, &dead);
    engine.append(&batch).unwrap();
    commit(&engine);
    assert!(engine.compact_step().is_err(), "it waits for the page");
    for _ in 0..LONG {
        engine.reread_step(FIVE_SECONDS);
    }
    while engine.compact_step().unwrap() {
        commit(&engine);
        engine.checkpoint_step().unwrap();
        engine.checkpoint_step().unwrap();
        engine.reclaim_step().unwrap();
    }
    assert_eq!(fs.octets(&path), None, "its room is given back");
    let damage = engine.damage();
    assert!(damage.iter().any(|damage| tells(damage, &place)), "{damage:?}");
    let (found, lost) = (read(&engine), named(&damage));
    assert!(lost.contains(&9) && lost.len() <= 5, "{damage:?}");
    assert_eq!(&found | &lost, (1..12).chain(91..141).collect());
}

#[test]
fn the_tools_give_up_what_lies_on_the_page_and_nothing_more() {
    let (fs, engine) = spilled(6);
    engine.close_step().unwrap();
    drop(engine);
    let place = spoil(&fs, 9);
    let files = |fs: &SimFs| -> Vec<_> {
        fs.files().into_iter().map(|path| (path.clone(), fs.octets(&path))).collect()
    };
    let before = files(&fs);
    let shared = Arc::new(fs.clone());
    let verified = verify(shared, Path::new(ROOT), options(6), &mut |_| {}).unwrap();
    assert_eq!(files(&fs), before, "looking changes nothing");
    let lost = named(&verified);
    assert!(lost.contains(&9) && lost.len() <= 5, "{verified:?}");
    assert!(verified.iter().all(|damage| tells(damage, &place)), "{verified:?}");
    let shared = Arc::new(fs.clone());
    let repaired = repair(shared, Path::new(ROOT), options(6), &mut |_| {}).unwrap();
    assert_eq!(named(&repaired), lost, "{verified:#?} {repaired:#?}");
    let shared = Arc::new(fs.clone());
    assert_eq!(verify(shared, Path::new(ROOT), options(6), &mut |_| {}).unwrap(), []);
    let (engine, _) = open(&fs, 6);
    assert_eq!(&read(&engine) | &lost, (1..141).collect());
}

#[test]
fn without_log_and_checkpoints_what_lies_on_the_page_is_named_as_well() {
    let (fs, engine) = spilled(10);
    engine.close_step().unwrap();
    drop(engine);
    let place = spoil(&fs, 9);
    let is_gone =
        |path: &PathBuf| path.extension().is_some_and(|kind| kind == "ckpt" || kind == "wal");
    fs.files().iter().filter(|path| is_gone(path)).for_each(|path| fs.lose(path));
    let options = Options { accept_data_loss: true, ..options(10) };
    let shared = Arc::new(fs);
    let (engine, recovered) = Engine::open(shared, Path::new(ROOT), options).unwrap();
    let lost = named(&recovered.damage);
    assert!(lost.contains(&9) && lost.len() <= 5, "{:?}", recovered.damage);
    assert!(recovered.damage.iter().any(|damage| tells(damage, &place)));
    let found = read(&engine);
    assert!(found.is_disjoint(&lost));
    let last = *found.last().unwrap();
    assert_eq!(&found | &lost, (1..=last).collect(), "what segments hold");
}

/// A disk that is not there for a while takes nothing away: what is refused is refused as it is.
#[test]
fn a_start_without_any_log_or_checkpoint_that_can_be_read_moves_nothing() {
    let (fs, engine) = spilled(9);
    engine.close_step().unwrap();
    drop(engine);
    let files = |fs: &SimFs| -> Vec<_> {
        fs.files().into_iter().map(|path| (path.clone(), fs.octets(&path))).collect()
    };
    let before = files(&fs);
    for kinds in [&["ckpt"][..], &["wal"], &["wal", "ckpt"]] {
        let broken = fs.kill();
        for (path, octets) in &before {
            let is_broken = path.extension().is_some_and(|kind| kinds.iter().any(|of| kind == *of));
            for at in (0..octets.as_ref().unwrap().len()).step_by(PAGE).filter(|_| is_broken) {
                broken.spoil(path, at as u64, u32::MAX);
            }
        }
        let opened = Engine::open(Arc::new(broken.clone()), Path::new(ROOT), options(9));
        assert!(matches!(opened, Err(StorageError::LogMissing { .. })), "{kinds:?}: {opened:?}");
        assert_eq!(files(&broken), before, "{kinds:?}");
    }
    let (engine, recovered) = open(&fs, 9);
    assert_eq!(recovered.damage, []);
    assert_eq!(read(&engine), (1..141).collect());
}

/// A confirmed message lies in the last frame of the log, alone; its page cannot be read after a crash. No later frame
/// tells of it, so that nothing but the page itself does.
#[test]
fn the_end_of_the_log_is_never_lost_without_a_word() {
    for (messages_before, is_sealed) in [(0, false), (5, false), (5, true)] {
        let fs = SimFs::new();
        let (engine, _) = open(&fs, 7);
        for seq in 1..=messages_before {
            publish(&engine, seq..seq + 1);
        }
        if is_sealed {
            // Then nothing of what is there has to be written once more.
            engine.seal_step().unwrap();
        }
        publish(&engine, messages_before + 1..messages_before + 2);
        let fs = fs.kill();
        drop(engine);
        let place = spoil(&fs, messages_before + 1);
        let strict = Options { strict: true, ..options(7) };
        let shared = Arc::new(fs.clone());
        let refused = Engine::open(shared, Path::new(ROOT), strict.clone()).unwrap_err();
        assert!(refused.to_string().contains("cannot be read"), "{refused}");
        let (engine, recovered) = open(&fs, 7);
        assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
        assert!(tells(&recovered.damage[0], &place), "{:?}", recovered.damage);
        assert_eq!(read(&engine), (1..=messages_before).collect());
        engine.close_step().unwrap();
        drop(engine);
        // Said once: the log ends elsewhere now.
        let fs = fs.kill();
        let shared = Arc::new(fs.clone());
        assert_eq!(verify(shared, Path::new(ROOT), options(7), &mut |_| {}).unwrap(), []);
        let shared = Arc::new(fs.clone());
        let (engine, _) = Engine::open(shared, Path::new(ROOT), strict).unwrap();
        publish(&engine, messages_before + 2..messages_before + 3);
        assert_eq!(read(&engine).len() as u64, messages_before + 1);
    }
}

/// The same with a frame whose header can be read and whose content cannot: an unfinished write looks different.
#[test]
fn a_last_frame_that_cannot_be_read_is_not_taken_for_an_unfinished_write() {
    let fs = SimFs::new();
    let (engine, _) = open(&fs, 8);
    publish(&engine, 1..2);
    publish(&engine, 2..12);
    let fs = fs.kill();
    drop(engine);
    let place = spoil(&fs, 9);
    let (engine, recovered) = open(&fs, 8);
    let lost = named(&recovered.damage);
    assert!(lost.contains(&9) && lost.len() <= 5, "{:?}", recovered.damage);
    assert!(recovered.damage.iter().any(|damage| tells(damage, &place)));
    assert_eq!(&read(&engine) | &lost, (1..12).collect());
}

/// A store with most of its messages in segments.
fn with_segments(fs: &SimFs) -> Engine {
    let (engine, _) = open(fs, 1);
    for round in 0..20 {
        publish(&engine, round * 10 + 1..round * 10 + 11);
        while engine.maintain_step().unwrap() {
            commit(&engine);
        }
    }
    engine
}

fn segments(fs: &SimFs) -> Vec<PathBuf> {
    fs.files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "seg"))
        .collect()
}

/// It used to hold up its queue for ever, and nothing said so.
#[test]
fn a_segment_that_vanishes_is_looked_for_for_half_a_minute_then_named_and_its_queue_goes_on() {
    let fs = SimFs::new();
    let engine = with_segments(&fs);
    let all: BTreeSet<u64> = (1..201).collect();
    let vanished = segments(&fs);
    assert!(vanished.len() > 1, "{vanished:?}");
    vanished.iter().for_each(|path| fs.lose(path));
    let (before, mut tries) = (read(&engine), 0);
    assert_eq!(before, BTreeSet::new(), "it waits");
    // Each of them is met.
    all.iter().for_each(|seq| drop(engine.read(QUEUE, *seq, 0)));
    let said = engine.read_error().expect("why");
    assert!(said.contains(".seg") && said.contains("gone"), "{said}");
    while engine.damage().is_empty() {
        assert!(engine.read(QUEUE, 0, 0).is_err());
        engine.background_step(FIVE_SECONDS);
        tries += 1;
    }
    assert_eq!((tries, engine.damage().len()), (6, vanished.len()));
    // Until the loss is durable the index leads to what is not there: nobody is held up by that.
    let at_once = read(&engine);
    commit(&engine);
    let found = read(&engine);
    assert_eq!(at_once, found);
    for _ in 0..LONG {
        engine.background_step(FIVE_SECONDS);
        commit(&engine);
    }
    let damage = engine.damage();
    let lost = named(&damage);
    assert_eq!(&found | &lost, all, "each is there or named: {damage:?}");
    assert!(found.is_disjoint(&lost) && !found.is_empty() && !lost.is_empty());
    let files: BTreeSet<PathBuf> =
        damage.iter().map(|damage| Path::new(ROOT).join(&damage.file)).collect();
    assert_eq!(files.len(), damage.len(), "one line each: {damage:?}");
    assert!(files.is_subset(&vanished.into_iter().collect()), "{damage:?}");
    assert_eq!(engine.read_error(), None, "all can be read again");
    assert_eq!(engine.background_error(), None);
    // The loss is settled.
    engine.close_step().unwrap();
    drop(engine);
    let (engine, recovered) = open(&fs.kill(), 1);
    assert_eq!(recovered.damage, []);
    assert_eq!(read(&engine), found);
}

#[test]
fn a_segment_that_is_brought_back_in_time_costs_nothing() {
    let fs = SimFs::new();
    let engine = with_segments(&fs);
    let kept: Vec<_> =
        segments(&fs).into_iter().map(|path| (path.clone(), fs.octets(&path).unwrap())).collect();
    kept.iter().for_each(|(path, _)| fs.lose(path));
    assert_eq!(read(&engine), BTreeSet::new());
    engine.reread_step(FIVE_SECONDS);
    assert!(engine.read_error().is_some());
    kept.into_iter().for_each(|(path, octets)| fs.put(&path, octets));
    for _ in 0..LONG {
        engine.reread_step(FIVE_SECONDS);
    }
    assert_eq!(read(&engine), (1..201).collect());
    assert_eq!((engine.damage(), engine.read_error()), (Vec::new(), None));
}

/// Want of permission or of handles passes, or somebody ends it: nothing is given up for that.
#[test]
fn a_segment_that_may_not_be_opened_is_waited_for() {
    for fault in [Fault::Error(ErrorKind::PermissionDenied), Fault::OutOfFiles] {
        let fs = SimFs::new();
        let engine = with_segments(&fs);
        let of_segment = |path: &Path| path.extension().is_some_and(|kind| kind == "seg");
        fs.set_hook(move |call| {
            (call.operation == Operation::Open && of_segment(call.path)).then_some(fault)
        });
        for _ in 0..LONG * 2 {
            assert!(engine.read(QUEUE, 0, 0).is_err());
            engine.reread_step(FIVE_SECONDS);
        }
        assert!(engine.read_error().is_some(), "it is said");
        fs.clear_hook();
        assert_eq!(read(&engine), (1..201).collect());
        assert_eq!(engine.damage(), []);
    }
}

/// What is open can be read without its name, and spilling moves it to where it has one.
#[test]
fn a_log_file_that_vanishes_while_the_store_runs_costs_nothing_when_it_is_spilled() {
    let fs = SimFs::new();
    let engine = with_segments(&fs);
    let of_log = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "wal");
    let oldest = fs.files().into_iter().find(of_log).expect("a log file");
    fs.lose(&oldest);
    assert_eq!(read(&engine), (1..201).collect());
    for round in 20..40 {
        publish(&engine, round * 10 + 1..round * 10 + 11);
        engine.background_step(FIVE_SECONDS);
        commit(&engine);
    }
    engine.background_step(FIVE_SECONDS);
    assert_eq!(engine.background_error(), None);
    engine.close_step().unwrap();
    drop(engine);
    let (engine, recovered) = open(&fs.kill(), 1);
    assert_eq!(recovered.damage, []);
    assert_eq!(read(&engine), (1..401).collect());
}
