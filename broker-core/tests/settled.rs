//! Every kind of file under every kind of damage: it is dealt with once. After a repair, and after a start with a
//! clean stop, nothing is found any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test that panics has failed, and says where"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_core::storage::sim_fs::SimFs;
use broker_core::storage::{Damage, Engine, Options, Recovered, StorageError, repair, verify};
use common::ROOT;
use common::specimen::{
    Specimen, damaged, disk_of, kind_of, pages, read_what_is_there, run_background, specimen,
    stopped,
};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// What a damaged store is put through.
struct Trial<'a> {
    specimen: &'a Specimen,
    /// What did not come to an end.
    open: Vec<String>,
}

impl<'a> Trial<'a> {
    fn of(specimen: &'a Specimen) -> Self {
        Self { specimen, open: Vec::new() }
    }

    fn options(&self, strict: bool, accept_data_loss: bool) -> Options {
        Options { strict, accept_data_loss, ..self.specimen.world_options.clone() }
    }

    fn start(&self, fs: &SimFs, strict: bool) -> Result<(Engine, Recovered), StorageError> {
        Engine::open(Arc::new(fs.clone()), Path::new(ROOT), self.options(strict, false))
    }

    fn repair(&self, fs: &SimFs) -> Result<Vec<Damage>, StorageError> {
        let mend = |accepts| {
            let options = self.options(false, accepts);
            repair(Arc::new(fs.clone()), Path::new(ROOT), options, &mut |_| ())
        };
        match mend(false) {
            Err(StorageError::LogMissing { .. }) => mend(true),
            mended => mended,
        }
    }

    /// Repairs the store and, on another copy, starts and stops it.
    fn judge(&mut self, fs: &SimFs, what: &str) {
        let mended = fs.kill();
        match self.repair(&mended) {
            Ok(_) => self.find_nothing(&mended.kill(), &format!("{what}, repaired")),
            Err(error) => self.open.push(format!("{what}: repair: {error}")),
        }
        let started = fs.kill();
        match self.start(&started, false) {
            Ok((engine, recovered)) => {
                let queues = recovered.queues.iter().map(|queue| queue.queue);
                read_what_is_there(&engine, queues);
                run_background(&engine);
                engine.close_step().unwrap();
                drop(engine);
                self.find_nothing(&started.kill(), &format!("{what}, started"));
            }
            Err(StorageError::LogMissing { .. }) => {}
            Err(error) => self.open.push(format!("{what}: start: {error}")),
        }
    }

    /// Neither a look at every octet nor a strict start has anything to say.
    fn find_nothing(&mut self, fs: &SimFs, what: &str) {
        let found =
            verify(Arc::new(fs.clone()), Path::new(ROOT), self.options(false, false), &mut |_| ());
        match found {
            Ok(damage) => {
                self.open.extend(damage.iter().map(|damage| format!("{what}: {damage}")));
            }
            Err(error) => self.open.push(format!("{what}: verify: {error}")),
        }
        match self.start(fs, true) {
            Ok((_, recovered)) => assert_eq!(recovered.damage, [], "{what}: strict, and damaged"),
            Err(error) => self.open.push(format!("{what}: strict: {error}")),
        }
    }

    fn end(self) {
        let (count, some) = (self.open.len(), self.open.iter().take(30));
        let some: Vec<&str> = some.map(String::as_str).collect();
        assert!(count == 0, "{count} are not settled:\n{}", some.join("\n"));
    }
}

/// A store that was killed and one that was stopped.
fn specimens(seed: u64) -> [(&'static str, Specimen); 2] {
    [("killed", specimen(seed)), ("stopped", stopped(seed))]
}

#[test]
fn a_missing_empty_or_cut_file_is_settled_once() {
    for (how, specimen) in specimens(31) {
        let mut trial = Trial::of(&specimen);
        for (path, octets) in &specimen.files {
            let name = format!("{how}: {}", path.display());
            let fs = damaged(&specimen, |files| {
                files.remove(path);
            });
            trial.judge(&fs, &format!("{name} missing"));
            let len = octets.len();
            for cut in [0, 1, len / 3, len / 2, len * 2 / 3, len.saturating_sub(1)] {
                let fs = damaged(&specimen, |files| files.get_mut(path).unwrap().truncate(cut));
                trial.judge(&fs, &format!("{name} cut at {cut}"));
            }
        }
        trial.end();
    }
}

#[test]
fn rot_is_settled_once() {
    let mut random = SmallRng::seed_from_u64(32);
    for (how, specimen) in specimens(32) {
        let mut trial = Trial::of(&specimen);
        for (path, octets) in specimen.files.iter().filter(|(_, octets)| !octets.is_empty()) {
            let name = format!("{how}: {}", path.display());
            let mut harm = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
                let fs = damaged(&specimen, |files| change(files.get_mut(path).unwrap()));
                trial.judge(&fs, &format!("{name} {what}"));
            };
            for _ in 0..6 {
                let bit = random.random_range(0..octets.len() * 8);
                harm(&format!("bit {bit}"), &|octets| octets[bit / 8] ^= 1 << (bit % 8));
                let start = random.random_range(0..octets.len()) / 512 * 512;
                let end = (start + 512).min(octets.len());
                harm(&format!("sector at {start}"), &|octets| octets[start..end].fill(0));
            }
            let last = octets.len() - 1;
            harm("last octet", &|octets| octets[last] ^= 1);
            harm("first octet", &|octets| octets[0] ^= 1);
            harm("zeros", &|octets| octets.fill(0));
            let garbage: Vec<u8> = octets.iter().map(|_| random.random()).collect();
            harm("garbage", &|octets| octets.clone_from(&garbage));
            harm("longer", &|octets| octets.extend([7; 5000]));
        }
        trial.end();
    }
}

#[test]
fn swapped_stale_and_foreign_files_are_settled_once() {
    let foreign = specimen(34);
    for (how, specimen) in specimens(33) {
        let mut trial = Trial::of(&specimen);
        let paths: Vec<&PathBuf> = specimen.files.keys().collect();
        for (at, first) in paths.iter().enumerate() {
            let name = format!("{how}: {}", first.display());
            for second in paths[at + 1..].iter().filter(|path| kind_of(path) == kind_of(first)) {
                let fs = damaged(&specimen, |files| {
                    let one = files[*first].clone();
                    let other = files.insert((*second).clone(), one).unwrap();
                    files.insert((*first).clone(), other);
                });
                trial.judge(&fs, &format!("{name} and {} swapped", second.display()));
            }
            for (which, store) in [("stale", &specimen.older), ("foreign", &foreign.files)] {
                // The identity of another store makes all else foreign.
                let other = store.get(*first).filter(|_| kind_of(first) != "FORMAT");
                if let Some(other) = other {
                    let fs = damaged(&specimen, |files| {
                        files.insert((*first).clone(), other.clone());
                    });
                    trial.judge(&fs, &format!("{name} {which}"));
                }
            }
        }
        trial.end();
    }
}

#[test]
fn a_page_that_cannot_be_read_is_settled_once() {
    for (how, specimen) in specimens(35) {
        let mut trial = Trial::of(&specimen);
        // Nobody reads a spare before it is a log file, so that its damage begins then.
        for (path, page) in pages(&specimen).filter(|(path, _)| kind_of(path) != "spare") {
            let fs = disk_of(&specimen.files);
            fs.spoil(path, page as u64 * 4096, u32::MAX);
            trial.judge(&fs, &format!("{how}: {} page {page}", path.display()));
        }
        trial.end();
    }
}
