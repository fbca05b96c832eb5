//! How a broker starts, seen from outside, on real directories and through the binary: a start that takes long and
//! can be watched and stopped, and a store that is refused, with the words that help.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use broker_core::storage::{Batch, CommitStep, Engine, MessageRef, Options, StdFs};
use serde_json::Value;
use tempfile::TempDir;

/// Messages that a long start has to read. Small ones: it is their number that takes time.
const MESSAGES: u64 = 600_000;

/// Tries to catch a broker while it opens its store. One would do on any machine that is not very busy or very fast.
const TRIES: u32 = 20;

/// Looks for something that must come, with a [`pause`] between them: half a minute and more.
const LOOKS: u32 = 15_000;

/// A broker in a process. It is killed when this is dropped.
struct Broker {
    child: Child,
    metrics: SocketAddr,
    log: PathBuf,
}

impl Broker {
    /// Starts one on a data directory, with these words behind `warren server`.
    fn spawn(data_dir: &Path, words: &[&str]) -> Self {
        Self::spawn_at(own_address(), data_dir, words)
    }

    fn spawn_at(metrics: SocketAddr, data_dir: &Path, words: &[&str]) -> Self {
        let log = data_dir.join(format!("log-{}", own_address().port()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
        command.arg("server").args(words).arg("--data-dir").arg(data_dir);
        for setting in [
            "amqp.listen=127.0.0.1:0",
            "stomp.listen=127.0.0.1:0",
            "store.log_file_size=32MiB",
            &format!("metrics.listen={metrics}"),
        ] {
            command.arg("--set").arg(setting);
        }
        command.env_remove("WARREN_CONFIG").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&log).unwrap()).spawn().unwrap();
        Self { child, metrics, log }
    }

    /// Status and body; `None` when nobody answers.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.metrics).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes()).ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The first answer of `/readyz`, or how the process has ended.
    fn first_answer(&mut self) -> Result<(u16, String), ExitStatus> {
        for _ in 0..LOOKS {
            if let Some(answer) = self.get("/readyz") {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(status);
            }
            pause();
        }
        panic!("no answer; it logged:\n{}", self.log())
    }

    fn until_ready(&self) {
        for _ in 0..LOOKS {
            if self.get("/readyz").is_some_and(|(status, _)| status == 200) {
                return;
            }
            pause();
        }
        panic!("it does not get ready; it logged:\n{}", self.log())
    }

    fn terminate(&self) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -s TERM \"$0\"", &self.child.id().to_string()]);
        assert!(shell.status().unwrap().success());
    }

    fn exit(&mut self) -> ExitStatus {
        for _ in 0..LOOKS {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            pause();
        }
        panic!("it does not end; it logged:\n{}", self.log())
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Between two looks at a process, which cannot wake anybody.
#[expect(clippy::disallowed_methods, reason = "the condition is looked at again")]
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// An address that nobody else has: the number of this process stands in it, and each call has a port of its own. It has
/// to be known before the broker listens on it, and a port that was free a moment ago may be taken.
fn own_address() -> SocketAddr {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    // Numbers of processes have 22 bits.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 | high, middle, low);
    SocketAddr::from((ip, PORT.fetch_add(1, Ordering::Relaxed)))
}

/// A data directory on which a broker has run, and stopped.
fn data_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::spawn(dir.path(), &[]);
    broker.until_ready();
    broker.terminate();
    assert!(broker.exit().success(), "{}", broker.log());
    dir
}

/// The head of a message as the broker writes it: published in 1970, no expiration, no names, no properties.
const HEAD: &[u8; 22] = b"\0\0\0\0\0\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0\0\0";

/// Appends [`MESSAGES`] to the log, of a queue that nothing defines, and leaves it as a killed broker does: without a
/// checkpoint behind them.
fn fill(data_dir: &Path) {
    let options = Options { wal_file_len: 32 << 20, ..Options::default() };
    let (engine, _) = Engine::open(Arc::new(StdFs), &data_dir.join("store"), options).unwrap();
    let seqs: Vec<u64> = (1..=MESSAGES).collect();
    for some in seqs.chunks(5000) {
        let targets: Vec<_> =
            some.iter().map(|seq| [MessageRef { queue: 4000, seq: *seq }]).collect();
        let mut batch = Batch::new();
        for target in &targets {
            batch.enqueue(target, 0, HEAD, b"x");
        }
        engine.append(&batch).unwrap();
        loop {
            match engine.commit_step().unwrap() {
                CommitStep::Idle => break,
                CommitStep::Written => {}
                // A further file of the log is wanted, and no more than that: few are full yet.
                CommitStep::Blocked => assert!(engine.maintain_step().unwrap()),
            }
        }
    }
}

/// What `warren store` says and how it ends.
fn store(words: &[&str], data_dir: &Path) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    let output = command.arg("store").args(words).arg(data_dir).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Messages in the store.
fn messages(data_dir: &Path) -> u64 {
    let (code, seen) = store(&["inspect", "--formatter", "json"], data_dir);
    assert_eq!(code, 0, "{seen}");
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let queues = seen.pointer("/queues").and_then(Value::as_array).unwrap();
    queues.iter().filter_map(|queue| queue.pointer("/messages")?.as_u64()).sum()
}

#[test]
fn a_long_start_is_told_of_and_can_be_stopped_and_begun_again() {
    let dir = data_dir();
    fill(dir.path());
    let mut phases = Vec::new();
    let is_caught = (0..TRIES).any(|_| {
        let mut broker = Broker::spawn(dir.path(), &[]);
        let (status, text) = broker.first_answer().unwrap();
        if status == 200 {
            // Missed it. Killed, so that the log is still to be replayed.
            return false;
        }
        assert_eq!(status, 503, "{text}");
        assert!(text.starts_with("not ready: "), "{text}");
        let page = broker.get("/metrics").unwrap_or_default().1;
        let is_phase = |line: &&str| line.starts_with("warren_store_open_phase{");
        phases.extend(page.lines().filter(is_phase).filter_map(|line| {
            let phase = line.strip_suffix(" 1")?;
            Some(phase.to_owned())
        }));
        broker.terminate();
        let ended = broker.exit();
        let log = broker.log();
        assert_eq!(ended.code(), Some(0), "{ended}: {log}");
        // It may have come to the end all the same, and then has stopped as usual.
        let is_stopped = log.contains("SIGTERM: stopping before the store is open");
        is_stopped && !log.contains("the store is open directory=")
    });
    assert!(is_caught, "never stopped one that was opening its store; phases seen: {phases:?}");
    assert!(!phases.is_empty());
    assert!(!dir.path().join("addresses.json").exists(), "nobody was to come");
    assert_eq!(messages(dir.path()), MESSAGES);
    assert_eq!(store(&["verify"], dir.path()).0, 0);

    let mut broker = Broker::spawn(dir.path(), &[]);
    broker.until_ready();
    let (_, page) = broker.get("/metrics").unwrap();
    for line in
        ["warren_store_open_phase{phase=\"open\"} 1\n", "warren_store_open_progress_ratio 1.000\n"]
    {
        assert!(page.contains(line), "{line} in {page}");
    }
    broker.terminate();
    assert_eq!(broker.exit().code(), Some(0), "{}", broker.log());
    assert_eq!(messages(dir.path()), MESSAGES);
}

#[test]
fn a_store_without_checkpoints_is_refused_and_the_words_name_the_way_out() {
    let dir = data_dir();
    let checkpoints = dir.path().join("store/ckpt");
    fs::remove_dir_all(dir.path().join("store/wal")).unwrap();
    fs::remove_dir_all(checkpoints).unwrap();
    let mut broker = Broker::spawn(dir.path(), &[]);
    assert_eq!(broker.exit().code(), Some(69));
    let log = broker.log();
    assert!(log.contains("`warren server --accept-data-loss` (store.accept_data_loss)"), "{log}");

    let mut broker = Broker::spawn(dir.path(), &["--accept-data-loss", "--strict"]);
    assert_eq!(broker.exit().code(), Some(78));
    assert!(broker.log().contains("`store.accept_data_loss` is of no use"), "{}", broker.log());

    let broker = Broker::spawn(dir.path(), &["--accept-data-loss"]);
    broker.until_ready();
    assert!(broker.log().contains("the loss was accepted"), "{}", broker.log());
}

#[test]
fn damage_is_refused_with_strict_and_set_aside_without() {
    let dir = data_dir();
    let format = dir.path().join("store/FORMAT");
    fs::write(&format, "warren store?").unwrap();
    let mut broker = Broker::spawn(dir.path(), &["--strict"]);
    assert_eq!(broker.exit().code(), Some(69));
    let log = broker.log();
    for words in ["FORMAT", "without --strict (store.strict)", "`warren store verify`"] {
        assert!(log.contains(words), "{words} in {log}");
    }
    assert_eq!(fs::read_to_string(&format).unwrap(), "warren store?", "it stays as it is");
    Broker::spawn(dir.path(), &[]).until_ready();
    assert_ne!(fs::read_to_string(&format).unwrap(), "warren store?");
}

#[test]
fn a_second_broker_is_told_of_the_first_and_not_of_its_ports() {
    let dir = data_dir();
    let first = Broker::spawn(dir.path(), &[]);
    first.until_ready();
    let mut second = Broker::spawn_at(first.metrics, dir.path(), &[]);
    assert_eq!(second.exit().code(), Some(69));
    assert!(
        second.log().contains("another broker runs on this data directory"),
        "{}",
        second.log()
    );
    let other = tempfile::tempdir().unwrap();
    let mut third = Broker::spawn_at(first.metrics, other.path(), &[]);
    assert_eq!(third.exit().code(), Some(69));
    let words = format!("cannot listen on {}, which metrics.listen names: ", first.metrics);
    assert!(third.log().contains(&words), "{}", third.log());
}
