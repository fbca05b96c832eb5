//! `warren store` on real directories, through the binary: what it prints and how it ends, on stores
//! that are sound, damaged, in use, of another version, or none.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that panics has failed, and says where"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use broker_core::Broker;
use broker_core::arguments::Arguments;
use broker_core::log::StoreLog;
use broker_core::log::budget::Budget;
use broker_core::name::QueueName;
use broker_core::storage::{
    Batch, CommitStep, Engine, MessageRef, Options, SeqRange, StdFs, Store,
};
use broker_core::vhost::QueueDeclaration;
use serde_json::Value;
use tempfile::TempDir;

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    out: String,
    err: String,
    code: i32,
}

impl Said {
    /// The last line of the output: the verdict.
    fn verdict(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `warren store` with these words and a directory.
fn store(words: &str, directory: &Path) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_warren"))
        .arg("store")
        .args(words.split(' '))
        .arg(directory)
        .env_remove("WARREN_CONFIG")
        .output()
        .unwrap();
    Said {
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
        code: output.status.code().unwrap(),
    }
}

/// Small files, and early spills.
fn options() -> Options {
    Options {
        wal_file_len: 64 << 10,
        frame_len_max: 16 << 10,
        full_files: 1,
        full_files_max: 2,
        spares: 1,
        extent_len: 8 << 10,
        own_segment_len: 32 << 10,
        ballast_len: 4 << 10,
        ..Options::default()
    }
}

/// The number of a queue that has messages and no definition.
const NAMELESS: u64 = 42;

fn body(seq: u64) -> Vec<u8> {
    format!("body {seq:08} ").repeat(20).into_bytes()
}

/// Has a broker declare the queues `orders` in `/` and `empty` in `v2`; gives the number of the first.
fn declare(place: &Path) -> u64 {
    let (store, _) = Store::open(Arc::new(StdFs), place, options()).unwrap();
    let budget = Arc::new(Budget::new(1 << 20));
    let log = Arc::new(StoreLog::new(store, budget, 0, Arc::new(|| 0)).unwrap());
    let broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
    let declare = |vhost: &str, name: &str| {
        let declaration = QueueDeclaration {
            name: QueueName::new(name).unwrap(),
            server_named: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments::new(),
        };
        let vhost = broker.add_vhost(vhost).unwrap();
        vhost.declare_queue(declaration, broker.next_connection_id(), 0).unwrap().queue.id
    };
    let orders = declare("/", "orders");
    declare("v2", "empty");
    log.close().unwrap();
    orders.0
}

/// A data directory whose store has queues `orders` in `/` (in log and segments), `empty` in `v2`, and
/// one without a name.
fn data_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let orders = declare(&place);
    let (engine, _) = Engine::open(Arc::new(StdFs), &place, options()).unwrap();
    let settle = || {
        while engine.commit_step().unwrap() == CommitStep::Written
            || engine.maintain_step().unwrap()
        {}
    };
    for seq in 1..=1000 {
        let queue = if seq % 10 == 0 { NAMELESS } else { orders };
        let target = MessageRef { queue, seq };
        let body = body(seq);
        let mut batch = Batch::new();
        batch.enqueue(std::slice::from_ref(&target), 0, b"head", &body);
        engine.append(&batch).unwrap();
        if seq % 20 == 0 {
            settle();
        }
    }
    let acked = SeqRange { first: 1, last: 99 };
    let mut batch = Batch::new();
    batch.ack(orders, std::slice::from_ref(&acked));
    engine.append(&batch).unwrap();
    settle();
    engine.close_step().unwrap();
    dir
}

/// Files of the store of one kind, by name.
fn files(data_dir: &TempDir, kind: &str) -> Vec<PathBuf> {
    let dir = data_dir.path().join("store").join(kind);
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Flips an octet in the body of a message, in the first file of a kind that holds it, and answers
/// the file's path from the store.
fn damage_message(data_dir: &TempDir, kind: &str, seq: u64) -> String {
    let needle = body(seq);
    for path in files(data_dir, kind) {
        let mut octets = fs::read(&path).unwrap();
        if let Some(at) = octets.windows(needle.len()).position(|window| window == needle) {
            octets[at + 3] ^= 0x40;
            fs::write(&path, octets).unwrap();
            return format!("{kind}/{}", path.file_name().unwrap().to_str().unwrap());
        }
    }
    panic!("message {seq} is in no {kind} file");
}

/// All octets below a directory, to see that nothing changes.
fn content(data_dir: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let kinds = ["wal", "seg", "ckpt", "quarantine"];
    let files = kinds.iter().flat_map(|kind| files(data_dir, kind));
    files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_sound_store_is_listed_and_passes() {
    let dir = data_dir();
    let before = content(&dir);
    let said = store("inspect", dir.path());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for words in [
        "format       1\n",
        "definitions  5\n",
        "\nQUEUES\nvhost  name    id  messages  octets",
        "\nQUARANTINE\nempty\n",
    ] {
        assert!(said.out.contains(words), "{words:?} in\n{}", said.out);
    }
    let rows: Vec<Vec<&str>> =
        said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let row = |start: &[&str]| {
        let found = rows.iter().find(|row| row.starts_with(start));
        found.unwrap_or_else(|| panic!("{start:?} in\n{}", said.out))
    };
    // 90 of the 99 acked were in this queue, and 900 in all.
    assert_eq!(row(&["/", "orders"])[3], "810");
    assert_eq!(row(&["v2", "empty"])[3], "0");
    assert_eq!(row(&["#42", "42"])[2], "100");
    assert_eq!(row(&["checkpoint", "2"]).len(), 3);
    assert!(!said.out.contains("DAMAGE"));

    let said = store("verify", dir.path());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    assert!(said.verdict().starts_with("sound: "), "{}", said.out);
    assert_eq!(said.out.lines().count(), 1);
    let read = store("verify --formatter json", dir.path()).json()["octets_read"].clone();
    // 910 messages live, of 280 octets and their headers.
    assert!(read.as_u64().unwrap() > 910 * 300, "{read}");
    assert_eq!(content(&dir), before, "looking changes nothing");

    let said = store("repair", dir.path());
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.verdict().ends_with("nothing was to be repaired"), "{}", said.out);
}

#[test]
fn an_inspection_as_json_has_what_the_lines_have() {
    let dir = data_dir();
    let seen = store("inspect --formatter json", dir.path()).json();
    let text = store("inspect", dir.path()).out;
    assert_eq!(seen["format_version"], 1);
    assert!(text.contains(seen["node"].as_str().unwrap()));
    assert_eq!(seen["queues"][0]["name"], "orders");
    assert_eq!(seen["queues"][0]["vhost"], "/");
    assert_eq!(seen["queues"][0]["messages"], 810);
    assert_eq!(seen["queues"][1]["messages"], 0);
    assert_eq!((&seen["queues"][2]["id"], &seen["queues"][2]["name"]), (&42.into(), &Value::Null));
    assert_eq!(seen["checkpoints"].as_array().unwrap().len(), 2);
    assert!(seen["log"]["end"].as_u64() > seen["log"]["begin"].as_u64());
    let files = seen["files"].as_array().unwrap();
    for kind in ["log", "segment", "checkpoint", "other"] {
        assert!(files.iter().any(|file| file["kind"] == kind), "{kind}");
    }
    for file in files {
        let path = dir.path().join("store").join(file["path"].as_str().unwrap());
        assert_eq!(file["octets"], fs::metadata(path).unwrap().len(), "{file}");
    }
    assert_eq!(seen["damage"], Value::Array(Vec::new()));
}

/// Finds the damage, repairs it, and finds nothing any more; answers the line that named it.
fn found_and_repaired(dir: &TempDir, lost: u64) -> String {
    let before = content(dir);
    let said = store("verify", dir.path());
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
    assert!(said.verdict().starts_with("damaged: "), "{}", said.out);
    assert_eq!(content(dir), before, "looking changes nothing");
    let line = said.out.lines().next().unwrap().to_owned();

    let said = store("repair", dir.path());
    assert_eq!(said.code, 1, "{said:?}");
    let named = said.out.lines().next().unwrap();
    let (named, kept) = named.split_once("; kept in ").unwrap();
    assert_eq!(named, line, "repair says the same and where it is now");
    let kept = dir.path().join("store").join(kept);
    assert!(kept.exists());
    assert!(said.verdict().starts_with("repaired: "), "{}", said.out);
    assert!(said.verdict().ends_with("quarantine: 1"), "{}", said.out);

    let said = store("verify", dir.path());
    assert_eq!(said.code, 0, "{said:?}");
    let seen = store("inspect --formatter json", dir.path()).json();
    let messages = seen["queues"].as_array().unwrap().iter().map(|queue| &queue["messages"]);
    assert_eq!(messages.map(|count| count.as_u64().unwrap()).sum::<u64>(), 910 - lost);
    let note = seen["quarantine"][0]["note"].as_str().unwrap();
    assert!(note.contains(line.split_once(": ").unwrap().0), "{note}");
    assert_eq!(seen["quarantine"].as_array().unwrap().len(), 1, "{seen}");
    line
}

/// What the note in quarantine says, as a person reads it.
fn note(dir: &TempDir) -> String {
    let mut kept = files(dir, "quarantine").into_iter();
    let note = kept.find(|path| path.extension().is_some_and(|kind| kind == "txt")).unwrap();
    fs::read_to_string(note).unwrap()
}

#[test]
fn a_rotten_message_in_a_segment_is_named_with_its_queue() {
    let dir = data_dir();
    let file = damage_message(&dir, "seg", 123);
    let line = found_and_repaired(&dir, 1);
    assert!(line.starts_with(&format!("{file}: extent at offset ")), "{line}");
    assert!(line.ends_with("; lost: queue orders in /, message 123"), "{line}");
    let note = note(&dir);
    assert!(note.lines().last().unwrap().ends_with(" is queue orders in /"), "{note}");
}

#[test]
fn a_rotten_message_in_the_log_is_named_by_its_number_where_the_queue_has_no_name() {
    let dir = data_dir();
    let file = damage_message(&dir, "wal", 1000);
    let line = found_and_repaired(&dir, 1);
    assert!(line.starts_with(&format!("{file}: ")), "{line}");
    assert!(line.contains(" offset "), "{line}");
    assert!(line.ends_with("; lost: queue #42, message 1000"), "{line}");
    let note = note(&dir);
    assert!(note.contains("queue #42,") && !note.contains(" is queue "), "{note}");
}

#[test]
fn a_cut_checkpoint_costs_nothing_and_is_moved_away() {
    let dir = data_dir();
    let path = files(&dir, "ckpt").pop().unwrap();
    let octets = fs::read(&path).unwrap();
    fs::write(&path, &octets[..octets.len() / 2]).unwrap();
    let line = found_and_repaired(&dir, 0);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(line.starts_with(&format!("ckpt/{name}: ")), "{line}");
    assert!(!line.contains("lost"), "{line}");
}

#[test]
fn a_store_without_checkpoints_is_begun_anew_only_if_the_loss_is_accepted() {
    let dir = data_dir();
    for path in files(&dir, "ckpt") {
        fs::remove_file(path).unwrap();
    }
    for words in ["inspect", "verify", "repair"] {
        let said = store(words, dir.path());
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{words}");
        assert!(said.err.contains("--accept-data-loss"), "{}", said.err);
    }
    let said = store("repair --accept-data-loss", dir.path());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("the loss was accepted"), "{}", said.out);
    assert_eq!(store("verify", dir.path()).code, 0);
    let seen = store("inspect --formatter json", dir.path()).json();
    let messages = seen["queues"].as_array().unwrap().iter().map(|queue| &queue["messages"]);
    let left = messages.map(|count| count.as_u64().unwrap()).sum::<u64>();
    assert!(left > 500, "what lies in segments is still there: {left}");
}

#[test]
fn what_is_no_store_is_refused_and_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "not a store").unwrap();
    for words in ["inspect", "verify", "repair", "repair --accept-data-loss"] {
        for path in [dir.path(), &dir.path().join("nowhere"), &dir.path().join("notes.txt")] {
            let said = store(words, path);
            assert_eq!((said.code, said.out.as_str()), (65, ""), "{said:?}");
            assert!(said.err.contains("holds no store"), "{}", said.err);
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_store_in_use_and_one_of_a_newer_version_are_refused() {
    let dir = data_dir();
    let place = dir.path().join("store");
    let (running, _) = Store::open(Arc::new(StdFs), &place, options()).unwrap();
    for words in ["inspect", "verify", "repair"] {
        let said = store(words, dir.path());
        assert_eq!((said.code, said.out.as_str()), (75, ""), "{said:?}");
        assert!(said.err.contains("another broker runs on this data directory"), "{}", said.err);
    }
    running.close().unwrap();

    let format = fs::read_to_string(place.join("FORMAT")).unwrap();
    let (newer, _) = format.split_once("crc ").unwrap();
    let newer = newer.replace("version 1", "version 9");
    let sealed = crc32fast::hash(newer.as_bytes());
    fs::write(place.join("FORMAT"), format!("{newer}crc {sealed:08x}\n")).unwrap();
    let before = content(&dir);
    for words in ["inspect", "verify", "repair"] {
        let said = store(words, dir.path());
        assert_eq!((said.code, said.out.as_str()), (65, ""), "{said:?}");
        assert!(said.err.contains("format version 9"), "{}", said.err);
    }
    assert_eq!(content(&dir), before);
}

/// Gives everything below `path` the permissions of a directory, or of a file.
fn permit(path: &Path, directory: u32, file: u32) {
    let is_dir = fs::metadata(path).unwrap().is_dir();
    if is_dir {
        // First, or it could not be listed.
        fs::set_permissions(path, Permissions::from_mode(0o700)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            permit(&entry.unwrap().path(), directory, file);
        }
    }
    let mode = if is_dir { directory } else { file };
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Names below a directory, with their contents, in their order.
fn tree(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.append(&mut tree(&path)),
            false => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

#[test]
fn who_may_only_read_can_look_and_leaves_nothing_behind() {
    const NOBODY: u32 = 65534;
    let dir = data_dir();
    let place = dir.path().join("store");
    // Where everybody can execute it.
    let elsewhere = tempfile::tempdir().unwrap();
    let binary = elsewhere.path().join("warren");
    fs::copy(env!("CARGO_BIN_EXE_warren"), &binary).unwrap();
    permit(elsewhere.path(), 0o755, 0o755);
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let look = |words: &[&str]| {
        let mut command = Command::new(&binary);
        command.arg("store").args(words).arg(dir.path()).current_dir("/");
        if is_root {
            // Permissions mean nothing to root.
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().unwrap()
    };
    for has_lock in [true, false] {
        if !has_lock {
            fs::remove_file(place.join("LOCK")).unwrap();
        }
        permit(dir.path(), 0o555, 0o444);
        let before = tree(dir.path());
        for words in ["inspect", "verify"] {
            let output = look(&[words]);
            assert!(output.status.success(), "{words}: {output:?}");
        }
        let refused = look(&["repair"]);
        assert!(!refused.status.success(), "{refused:?}");
        assert!(tree(dir.path()) == before, "something has changed, lock file: {has_lock}");
        permit(dir.path(), 0o755, 0o644);
    }
}

#[test]
fn the_directory_comes_from_the_settings_or_is_the_store_itself() {
    let dir = data_dir();
    let data_dir = dir.path().to_str().unwrap();
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("warren.toml");
    fs::write(&file, format!("data_dir = {data_dir:?}\n")).unwrap();
    let warren = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.arg("store").args(words).output().unwrap()
    };
    let file = file.to_str().unwrap();
    for words in [
        ["verify", "--config", file],
        ["verify", "--data-dir", data_dir],
        ["verify", "--set", &format!("data_dir={data_dir}")],
    ] {
        let output = warren(&words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
    assert_eq!(store("verify", &dir.path().join("store")).code, 0, "a copy of the store");
    assert_eq!(store("verify --config x.toml", dir.path()).code, 64, "two places are one too many");
    assert_eq!(warren(&["verify", "--set", "nonsense=1"]).status.code(), Some(78));
    let help = warren(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    for words in ["inspect", "verify", "repair", "Exit code 0"] {
        assert!(help.contains(words), "{words} in\n{help}");
    }
}
