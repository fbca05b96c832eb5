//! A store with files of every kind, to be damaged: as octets, and on a disk that holds them and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_core::storage::sim_fs::SimFs;
use broker_core::storage::{CommitStep, Engine, FileSystem, MessageBlock, Options};
use rand::RngExt;

use super::{Plain, ROOT, World, message_octets};

pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A disk that holds these files and nothing else.
pub(crate) fn disk_of(files: &Files) -> SimFs {
    let fs = SimFs::new();
    for dir in ["", "wal", "seg", "ckpt", "quarantine"] {
        let dir = Path::new(ROOT).join(dir);
        fs.create_dir(&dir).unwrap();
        fs.sync_dir(dir.parent().unwrap()).unwrap();
    }
    for (path, octets) in files {
        fs.put(path, octets.clone());
    }
    fs
}

pub(crate) fn files_of(fs: &SimFs) -> Files {
    fs.files().into_iter().map(|path| (path.clone(), fs.octets(&path).unwrap())).collect()
}

/// A store with messages in log and segments, an older snapshot of its files, and the newest.
pub(crate) struct Specimen {
    pub(crate) older: Files,
    pub(crate) files: Files,
    pub(crate) expected: Plain,
    pub(crate) world_options: Options,
}

pub(crate) fn specimen(seed: u64) -> Specimen {
    let mut world = World::new(seed);
    world.open();
    let mut older = Files::new();
    for round in 0..3 {
        for _ in 0..90 {
            let actions = match world.random.random_bool(0.7) {
                true => vec![world.random_enqueue()],
                false => world.random_actions(),
            };
            world.append(actions);
            if world.random.random_bool(0.5) {
                world.drain();
            }
        }
        world.settle();
        if round == 1 {
            older = files_of(&world.fs.kill());
        }
    }
    for _ in 0..12 {
        let actions = vec![world.random_enqueue()];
        world.append(actions);
        world.drain();
    }
    world.engine().seal_step().unwrap();
    let files = files_of(&world.fs.kill());
    let kinds = ["wal", "seg", "ckpt"];
    for kind in kinds {
        let has = |path: &&PathBuf| path.extension().is_some_and(|found| found == kind);
        assert!(files.keys().filter(has).count() >= 2, "two {kind} files");
    }
    Specimen { older, files, expected: world.durable.normal(), world_options: world.options }
}

/// The same store after a clean stop.
pub(crate) fn stopped(seed: u64) -> Specimen {
    let specimen = specimen(seed);
    let fs = disk_of(&specimen.files);
    let options = specimen.world_options.clone();
    let (engine, _) = Engine::open(Arc::new(fs.clone()), Path::new(ROOT), options).unwrap();
    run_background(&engine);
    engine.close_step().unwrap();
    drop(engine);
    Specimen { files: files_of(&fs.kill()), ..specimen }
}

/// Reads one block; a page in doubt is waited for.
fn read_block(engine: &Engine, queue: u64, from: u64) -> Option<MessageBlock> {
    for _ in 0..10 {
        if let Ok(block) = engine.read(queue, from, 4096) {
            return block;
        }
        engine.reread_step(Duration::from_secs(5));
    }
    engine.read(queue, from, 4096).expect("the file can be read")
}

/// Everything in the store, read as far as it can be.
pub(crate) fn read_what_is_there(engine: &Engine, queues: impl Iterator<Item = u64>) -> Plain {
    let mut plain = Plain::default();
    for queue in queues {
        let mut from = 0;
        let messages = plain.queues.entry(queue).or_default();
        while let Some(block) = read_block(engine, queue, from) {
            for message in block.messages() {
                let octets = message_octets(message.flags, message.head, message.body);
                assert!(messages.insert(message.seq, octets).is_none(), "once");
            }
            assert!(block.next > from, "progress: {block:?}");
            from = block.next;
        }
    }
    plain
}

/// Gives a store time for all that it does in the background.
pub(crate) fn run_background(engine: &Engine) {
    for _ in 0..1000 {
        let goes_on = engine.background_step(Duration::from_secs(5));
        while engine.commit_step().unwrap() == CommitStep::Written {}
        if !goes_on {
            return;
        }
    }
    panic!("the background does not come to rest: {:?}", engine.background_error());
}

pub(crate) fn kind_of(path: &Path) -> &str {
    path.extension().or_else(|| path.file_name()).and_then(|kind| kind.to_str()).unwrap_or_default()
}

pub(crate) fn damaged(specimen: &Specimen, change: impl FnOnce(&mut Files)) -> SimFs {
    let mut files = specimen.files.clone();
    change(&mut files);
    disk_of(&files)
}

/// Every page of every file that has octets.
pub(crate) fn pages(specimen: &Specimen) -> impl Iterator<Item = (&PathBuf, usize)> {
    let files = specimen.files.iter();
    files.flat_map(|(path, octets)| (0..octets.len().div_ceil(4096)).map(move |page| (path, page)))
}
