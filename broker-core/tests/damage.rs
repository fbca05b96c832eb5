//! Every kind of file under every kind of damage: the store opens, delivers nothing wrong, and
//! names what is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use broker_core::storage::sim_fs::{Fault, Operation, SimFs};
use broker_core::storage::{Damage, Engine, MessageRef, SeqRange, StorageError};
use common::specimen::{
    Specimen, damaged, disk_of, files_of, kind_of, pages, read_what_is_there, specimen,
};
use common::{Action, Plain, ROOT, World};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

fn is_named(damage: &[Damage], queue: u64, seq: u64) -> bool {
    damage
        .iter()
        .flat_map(|damage| &damage.lost)
        .any(|lost| lost.queue == queue && (lost.range.first..=lost.range.last).contains(&seq))
}

/// Where a stretch of the log is gone, a queue's newest messages leave no trace behind them by
/// which they could be named; the stretch is.
fn is_tail(damage: &[Damage], found: &Plain, queue: u64, seq: u64) -> bool {
    let newest = found.queues.get(&queue).and_then(|all| all.keys().next_back());
    newest.is_none_or(|newest| *newest < seq)
        && damage.iter().any(|damage| damage.file.starts_with("wal"))
}

/// Opens a damaged store and judges it; answers whether the damage was noticed.
fn judge(specimen: &Specimen, fs: &SimFs, what: &str) -> bool {
    !judged(specimen, fs, what).0.is_empty()
}

/// The same; answers the damage that was reported, and which messages were found by queue.
fn judged(
    specimen: &Specimen,
    fs: &SimFs,
    what: &str,
) -> (Vec<Damage>, BTreeMap<u64, BTreeSet<u64>>) {
    let open = |fs: &SimFs| {
        let fs = std::sync::Arc::new(fs.clone());
        Engine::open(fs, Path::new(ROOT), specimen.world_options.clone())
    };
    let (engine, recovered) = match open(fs) {
        Ok(opened) => opened,
        Err(error) => panic!("{what}: {error}"),
    };
    fs.clear_hook();
    let queues = recovered.queues.iter().map(|queue| queue.queue);
    let found = read_what_is_there(&engine, queues);
    let mut damage = recovered.damage.clone();
    damage.extend(engine.damage());
    let is_reported = !damage.is_empty();
    for (queue, messages) in &specimen.expected.queues {
        for (seq, octets) in messages {
            match found.queues.get(queue).and_then(|messages| messages.get(seq)) {
                Some(there) => assert_eq!(there, octets, "{what}: queue {queue}, message {seq}"),
                None => assert!(
                    is_named(&damage, *queue, *seq) || is_tail(&damage, &found, *queue, *seq),
                    "{what}: queue {queue}, message {seq} is gone and not named: {damage:?}"
                ),
            }
        }
    }
    for (queue, messages) in &found.queues {
        for seq in messages.keys() {
            let is_known =
                specimen.expected.queues.get(queue).is_some_and(|all| all.contains_key(seq));
            assert!(is_known || is_reported, "{what}: queue {queue}, message {seq} came back");
        }
    }
    let definitions: BTreeMap<Vec<u8>, Vec<u8>> =
        recovered.definitions.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert!(definitions == specimen.expected.definitions || is_reported, "{what}: definitions");
    // The loss is settled: what is left survives another start, and new messages too.
    let body = b"after the damage";
    let target = MessageRef { queue: 999, seq: 1 };
    let mut batch = broker_core::storage::Batch::new();
    batch.enqueue(std::slice::from_ref(&target), 0, b"", body);
    engine.append(&batch).unwrap();
    engine.close_step().unwrap();
    drop(engine);
    let again = fs.power_cut(1);
    let (engine, recovered) = open(&again).unwrap_or_else(|error| panic!("{what}: {error}"));
    let queues = recovered.queues.iter().map(|queue| queue.queue);
    let mut left = read_what_is_there(&engine, queues);
    assert_eq!(left.queues.remove(&999).map(|all| all.len()), Some(1), "{what}: new message");
    let mut before = found.queues;
    before.retain(|_, messages| !messages.is_empty());
    left.queues.retain(|_, messages| !messages.is_empty());
    assert_eq!(common::outline(&left), outline(&before), "{what}: after another start");
    assert!(
        recovered.damage.iter().all(|damage| damage.lost.is_empty()),
        "{what}: the same loss is reported twice: {:?}",
        recovered.damage
    );
    let found = before.into_iter().map(|(id, all)| (id, all.into_keys().collect()));
    (damage, found.collect())
}

fn outline(queues: &BTreeMap<u64, BTreeMap<u64, Vec<u8>>>) -> BTreeMap<u64, Vec<u64>> {
    queues.iter().map(|(id, all)| (*id, all.keys().copied().collect())).collect()
}

#[test]
fn an_undamaged_store_reports_nothing() {
    let specimen = specimen(1);
    assert!(!judge(&specimen, &disk_of(&specimen.files), "undamaged"));
}

#[test]
fn a_missing_empty_or_cut_file_costs_what_it_held_and_is_named() {
    for seed in 1..4 {
        let specimen = specimen(seed);
        for (path, octets) in &specimen.files {
            let name = path.display();
            let fs = damaged(&specimen, |files| {
                files.remove(path);
            });
            let missing = judge(&specimen, &fs, &format!("seed {seed}: {name} missing"));
            if ["seg", "FORMAT"].contains(&kind_of(path)) {
                assert!(missing, "{name} missing goes unnoticed");
            }
            for len in [0, 1, octets.len() / 3, octets.len() / 2, octets.len().saturating_sub(1)] {
                let fs = damaged(&specimen, |files| {
                    files.insert(path.clone(), octets.get(..len).unwrap().to_vec());
                });
                judge(&specimen, &fs, &format!("seed {seed}: {name} cut at {len}"));
            }
        }
    }
}

#[test]
fn flipped_bits_and_zeroed_sectors_are_never_delivered() {
    let mut random = SmallRng::seed_from_u64(5);
    let specimen = specimen(5);
    for (path, octets) in &specimen.files {
        if octets.is_empty() {
            continue;
        }
        for _ in 0..60 {
            let bit = random.random_range(0..octets.len() * 8);
            let fs = damaged(&specimen, |files| {
                files.get_mut(path).unwrap()[bit / 8] ^= 1 << (bit % 8);
            });
            judge(&specimen, &fs, &format!("{} bit {bit}", path.display()));
            let sector = random.random_range(0..octets.len().div_ceil(512));
            let fs = damaged(&specimen, |files| {
                let octets = files.get_mut(path).unwrap();
                let end = (sector * 512 + 512).min(octets.len());
                octets[sector * 512..end].fill(0);
            });
            judge(&specimen, &fs, &format!("{} sector {sector}", path.display()));
        }
    }
}

#[test]
fn swapped_stale_and_foreign_files_are_recognised() {
    let specimen = specimen(7);
    let foreign = self::specimen(8);
    let paths: Vec<&PathBuf> = specimen.files.keys().collect();
    for (at, first) in paths.iter().enumerate() {
        for second in &paths[at + 1..] {
            if kind_of(first) != kind_of(second) {
                continue;
            }
            let fs = damaged(&specimen, |files| {
                let one = files[*first].clone();
                let other = files.insert((*second).clone(), one).unwrap();
                files.insert((*first).clone(), other);
            });
            judge(&specimen, &fs, &format!("{} and {} swapped", first.display(), second.display()));
        }
        if let Some(old) = specimen.older.get(*first) {
            let fs = damaged(&specimen, |files| {
                files.insert((*first).clone(), old.clone());
            });
            judge(&specimen, &fs, &format!("{} stale", first.display()));
        }
        if let Some(other) = foreign.files.get(*first)
            && kind_of(first) != "FORMAT"
        {
            let fs = damaged(&specimen, |files| {
                files.insert((*first).clone(), other.clone());
            });
            judge(&specimen, &fs, &format!("{} of another store", first.display()));
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_while_opening_costs_no_more_than_a_missing_one() {
    let specimen = specimen(9);
    for path in specimen.files.keys() {
        if kind_of(path) == "FORMAT" || kind_of(path) == "spare" || kind_of(path) == "BALLAST" {
            continue;
        }
        let fs = disk_of(&specimen.files);
        let bad = path.clone();
        fs.set_hook(move |call| {
            (call.path == bad && [Operation::Open, Operation::Read].contains(&call.operation))
                .then_some(Fault::Error(ErrorKind::Other))
        });
        judge(&specimen, &fs, &format!("{} unreadable", path.display()));
    }
}

#[test]
fn a_page_that_cannot_be_read_costs_what_lies_on_it_and_the_report_says_why() {
    let mut cost = BTreeMap::<String, usize>::new();
    for seed in [21, 22] {
        let specimen = specimen(seed);
        for (path, page) in pages(&specimen) {
            let what = format!("seed {seed}: {} page {page}", path.display());
            let fs = disk_of(&specimen.files);
            fs.spoil(path, page as u64 * 4096, u32::MAX);
            let (damage, found) = judged(&specimen, &fs, &what);
            let is_told = |damage: &Damage| {
                Path::new(ROOT).join(&damage.file) == *path
                    && damage.detail.contains("cannot be read")
                    && damage.detail.contains(&(page * 4096).to_string())
            };
            assert!(damage.is_empty() || damage.iter().any(is_told), "{what}: {damage:?}");
            if kind_of(path) == "ckpt" {
                assert!(
                    damage.iter().all(|damage| damage.quarantined.is_some()),
                    "{what}: {damage:?}"
                );
            }
            // Everything else of the file is there: no less than if the page were zeros.
            let zeroed = damaged(&specimen, |files| {
                let octets = files.get_mut(path).unwrap();
                let end = (page * 4096 + 4096).min(octets.len());
                octets[page * 4096..end].fill(0);
            });
            let (_, expected) = judged(&specimen, &zeroed, &what);
            for (queue, seqs) in &expected {
                let found = found.get(queue).cloned().unwrap_or_default();
                let missing: Vec<_> = seqs.difference(&found).collect();
                assert!(missing.is_empty(), "{what}: queue {queue} lacks {missing:?}");
            }
            let found: usize = found.values().map(BTreeSet::len).sum();
            let lost = specimen.expected.messages() - found.min(specimen.expected.messages());
            let worst = cost.entry(kind_of(path).to_owned()).or_default();
            *worst = lost.max(*worst);
        }
    }
    // Of the few hundred.
    assert!((1..40).contains(&cost["wal"]) && (1..40).contains(&cost["seg"]), "{cost:?}");
    assert_eq!(cost["ckpt"], 0, "the log and the other checkpoint make up for one");
}

#[test]
fn a_read_that_fails_a_few_times_costs_nothing_and_is_not_reported() {
    let specimen = specimen(23);
    for (path, page) in pages(&specimen) {
        let fs = disk_of(&specimen.files);
        fs.spoil(path, page as u64 * 4096, 2);
        assert!(!judge(&specimen, &fs, &format!("{} page {page}", path.display())));
    }
}

#[test]
fn a_want_of_memory_is_no_damage() {
    let specimen = specimen(25);
    let open = |fs: &SimFs| {
        let options = specimen.world_options.clone();
        Engine::open(std::sync::Arc::new(fs.clone()), Path::new(ROOT), options)
    };
    let mut refused = 0;
    for nth in 0.. {
        let fs = disk_of(&specimen.files);
        let mut reads = 0;
        fs.set_hook(move |call| {
            reads += u64::from(call.operation == Operation::Read);
            (reads == nth + 1 && call.operation == Operation::Read)
                .then_some(Fault::Error(ErrorKind::OutOfMemory))
        });
        match open(&fs) {
            Err(StorageError::Io { .. }) => refused += 1,
            Err(error) => panic!("read {nth}: {error}"),
            Ok((_, recovered)) => {
                assert_eq!(recovered.damage, [], "read {nth}");
                break;
            }
        }
        fs.clear_hook();
        assert!(!judge(&specimen, &fs, &format!("after read {nth}")));
    }
    assert!(refused > 20, "every read while opening: {refused}");
}

#[test]
fn strict_refuses_a_page_that_is_needed_and_cannot_be_read() {
    let specimen = specimen(24);
    let mut refused = BTreeSet::new();
    for (path, page) in pages(&specimen) {
        let what = format!("{} page {page}", path.display());
        let open = |strict| {
            let fs = disk_of(&specimen.files);
            fs.spoil(path, page as u64 * 4096, u32::MAX);
            let mut options = specimen.world_options.clone();
            options.strict = strict;
            let opened = Engine::open(std::sync::Arc::new(fs.clone()), Path::new(ROOT), options);
            (opened, files_of(&fs))
        };
        let (opened, files) = open(true);
        match opened {
            Err(StorageError::Damaged { path: named, detail }) => {
                assert_eq!(named, *path, "{what}");
                assert!(detail.contains("cannot be read"), "{what}: {detail}");
                assert_eq!(files, specimen.files, "{what}: nothing is changed");
                refused.insert(kind_of(path).to_owned());
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => {
                let (_, recovered) = open(false).0.unwrap();
                assert_eq!(recovered.damage, [], "{what}");
            }
        }
    }
    let kinds = ["FORMAT", "ckpt", "seg", "wal"];
    assert_eq!(refused, kinds.map(str::to_owned).into());
}

#[test]
fn strict_refuses_with_the_name_and_changes_nothing() {
    let specimen = specimen(10);
    for path in specimen.files.keys() {
        if !["seg", "FORMAT"].contains(&kind_of(path)) {
            continue;
        }
        let fs = damaged(&specimen, |files| {
            files.remove(path);
        });
        let before = files_of(&fs);
        let options =
            broker_core::storage::Options { strict: true, ..specimen.world_options.clone() };
        let opened = Engine::open(std::sync::Arc::new(fs.clone()), Path::new(ROOT), options);
        match opened {
            Err(StorageError::Damaged { path: named, .. }) => assert_eq!(&named, path),
            other => panic!("{}: {other:?}", path.display()),
        }
        assert_eq!(before, files_of(&fs), "strict changes nothing");
    }
}

#[test]
fn a_store_without_log_or_without_checkpoints_is_refused_until_the_loss_is_accepted() {
    let specimen = specimen(11);
    let without = |kinds: &[&str]| {
        damaged(&specimen, |files| {
            files.retain(|path, _| !kinds.contains(&kind_of(path)));
        })
    };
    for kinds in [&["wal"][..], &["ckpt"], &["wal", "ckpt"], &["wal", "ckpt", "seg"]] {
        let fs = without(kinds);
        let open = |accept_data_loss| {
            let options = broker_core::storage::Options {
                accept_data_loss,
                ..specimen.world_options.clone()
            };
            Engine::open(std::sync::Arc::new(fs.clone()), Path::new(ROOT), options)
        };
        let refused = open(false);
        assert!(matches!(refused, Err(StorageError::LogMissing { .. })), "{kinds:?}: {refused:?}");
        let (engine, recovered) = open(true).unwrap();
        assert!(!recovered.damage.is_empty(), "{kinds:?}");
        let queues = recovered.queues.iter().map(|queue| queue.queue);
        let found = read_what_is_there(&engine, queues);
        for (queue, messages) in &found.queues {
            for (seq, octets) in messages {
                if let Some(there) =
                    specimen.expected.queues.get(queue).and_then(|all| all.get(seq))
                {
                    assert_eq!(there, octets, "{kinds:?}");
                }
            }
        }
    }
}

/// The log that is left names the newest segments, and messages above theirs: neither may keep what
/// lies in segments out.
#[test]
fn without_checkpoints_everything_in_segments_is_kept_but_for_what_the_log_still_acks() {
    let mut world = World::new(21);
    world.open();
    for seq in 1..=600 {
        let targets = vec![MessageRef { queue: 1, seq }];
        let body = vec![seq as u8; 300];
        world.append(vec![Action::Enqueue { targets, flags: 0, head: Vec::new(), body }]);
        if seq % 10 == 0 {
            world.settle();
        }
    }
    let acked = SeqRange { first: 3, last: 5 };
    world.append(vec![Action::Ack { queue: 1, ranges: vec![acked] }]);
    world.settle();
    let all: Vec<u64> = (1..=600).filter(|seq| !(3..=5).contains(seq)).collect();
    let mut files = files_of(&world.fs.kill());
    files.retain(|path, _| kind_of(path) != "ckpt");
    let oldest = Path::new("wal").join("0000000000000000.wal");
    assert!(!files.keys().any(|path| path.ends_with(&oldest)), "the beginning of the log is gone");
    let options = broker_core::storage::Options { accept_data_loss: true, ..world.options.clone() };
    let fs = std::sync::Arc::new(disk_of(&files));
    let (engine, recovered) = Engine::open(fs, Path::new(ROOT), options).unwrap();
    let queues = recovered.queues.iter().map(|queue| queue.queue);
    let found = read_what_is_there(&engine, queues);
    assert_eq!(found.queues[&1].keys().copied().collect::<Vec<_>>(), all);
}

/// Found by fuzzing: the segment was taken for one that nobody knows, moved away, and every read of
/// its messages failed from then on.
#[test]
fn a_segment_whose_entry_is_damaged_in_both_checkpoints_keeps_its_messages() {
    const HEADER_LEN: usize = 96;
    const KIND_SEGMENT: u8 = 2;
    let specimen = specimen(13);
    let mut entries = 0;
    let fs = damaged(&specimen, |files| {
        for (_, octets) in files.iter_mut().filter(|(path, _)| kind_of(path) == "ckpt") {
            let mut at = HEADER_LEN;
            while at < octets.len() {
                let len = u32::from_le_bytes(octets[at + 4..at + 8].try_into().unwrap()) as usize;
                if octets[at + 8] == KIND_SEGMENT {
                    octets[at + 10] ^= 1;
                    entries += 1;
                }
                at += 8 + len;
            }
        }
    });
    assert!(entries >= 2, "both know a segment");
    assert!(judge(&specimen, &fs.kill(), "entries of segments"));
    let fs = std::sync::Arc::new(fs);
    let (engine, recovered) =
        Engine::open(fs, Path::new(ROOT), specimen.world_options.clone()).unwrap();
    assert!(recovered.damage.iter().all(|damage| damage.lost.is_empty()));
    let queues = recovered.queues.iter().map(|queue| queue.queue);
    let mut found = read_what_is_there(&engine, queues);
    found.queues.retain(|_, messages| !messages.is_empty());
    assert_eq!(common::outline(&found), common::outline(&specimen.expected));
}

#[test]
fn two_stores_on_one_directory_are_refused() {
    let mut world = World::new(3);
    world.open();
    let second =
        Engine::open(std::sync::Arc::new(world.fs.clone()), Path::new(ROOT), world.options.clone());
    assert!(matches!(second, Err(StorageError::Locked { .. })));
}

#[test]
fn a_newer_format_is_refused() {
    let specimen = specimen(12);
    let fs = damaged(&specimen, |files| {
        let path = Path::new(ROOT).join("FORMAT");
        let text = String::from_utf8(files[&path].clone()).unwrap();
        let body = text.replace("version 1\n", "version 2\n");
        let body = body.split_once("crc ").unwrap().0.to_owned();
        let sealed = crc32fast::hash(body.as_bytes());
        files.insert(path, format!("{body}crc {sealed:08x}\n").into_bytes());
    });
    let options = specimen.world_options;
    let opened = Engine::open(std::sync::Arc::new(fs), Path::new(ROOT), options);
    assert!(matches!(opened, Err(StorageError::NewerFormat { found: 2, supported: 1, .. })));
}
