//! A broker in a process of its own: the real binary, for what only a process has: signals, an exit code, a log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Duration, timeout};

use crate::DEADLINE;
use crate::amqp::{Options, Peer};
use crate::{eventually, stomp};

/// Octets at the end of the log that a failed test prints.
const LOG_TAIL: usize = 4096;

/// Where brokers run one after the other: a data directory that outlives them.
#[derive(Debug, Clone)]
pub struct Place {
    /// The data directory as the test sees it.
    pub data_dir: PathBuf,
    /// The data directory as the broker sees it, which may live in another mount namespace.
    pub inside: PathBuf,
    /// The file that brokers log to, one behind the other.
    pub log: PathBuf,
    /// What the broker is started by, such as strace with its options; empty for nothing.
    pub wrapper: Vec<OsString>,
}

impl Place {
    /// A directory, with the log beside it.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        let log = data_dir.with_extension("log");
        Self { data_dir: data_dir.into(), inside: data_dir.into(), log, wrapper: Vec::new() }
    }
}

/// A broker that has ended by itself before it was ready.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it logged.
    pub log: String,
}

/// The binary, running, on ports of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct WarrenProcess {
    child: Child,
    place: Place,
    /// Octets in the log that former brokers have written.
    log_start: usize,
    /// `addresses.json`.
    addresses: Value,
    /// The data directory, where it is the broker's own.
    _directory: Option<TempDir>,
}

impl WarrenProcess {
    /// Starts a broker with settings as `--set` takes them and a data directory of its own; plain AMQP and STOMP listen
    /// on port 0 of the loopback. Ready when this returns.
    pub async fn start(settings: &[&str]) -> Self {
        Self::with(settings, |_| {}).await
    }

    /// The same, started in a way that `change` has changed.
    pub async fn with(settings: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let directory = made("a directory", TempDir::with_prefix("warren-process-"));
        let mut place = Place::new(directory.path());
        place.log = directory.path().join("log");
        Self::spawn(&place, settings, Some(directory), change).ready_or_fail().await
    }

    /// Starts a broker on a data directory that outlives it. Ready when this returns.
    pub async fn start_at(place: &Place, settings: &[&str]) -> Self {
        Self::spawn(place, settings, None, |_| {}).ready_or_fail().await
    }

    /// The same for a broker that may refuse to start.
    ///
    /// # Errors
    /// When it ends by itself instead of getting ready. A broker that does neither fails the test.
    pub async fn try_start_at(place: &Place, settings: &[&str]) -> Result<Self, Refused> {
        Self::spawn(place, settings, None, |_| {}).ready().await
    }

    fn spawn(
        place: &Place,
        settings: &[&str],
        directory: Option<TempDir>,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let log = made("a log", File::options().create(true).append(true).open(&place.log));
        let log_start = made("a log", fs::read(&place.log)).len();
        let mut words = place.wrapper.iter().cloned();
        let mut command = match words.next() {
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        without_settings(&mut command).arg("server").arg("--data-dir").arg(&place.inside);
        let quiet = ["amqp.listen=127.0.0.1:0", "stomp.listen=127.0.0.1:0", "metrics.listen=[]"];
        for setting in quiet.iter().chain(settings) {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        change(&mut command);
        let child = made("a process", command.spawn());
        let (place, addresses) = (place.clone(), Value::Null);
        Self { child, place, log_start, addresses, _directory: directory }
    }

    async fn ready_or_fail(self) -> Self {
        match self.ready().await {
            Ok(ready) => ready,
            Err(Refused { status, log, .. }) => panic!("it ended with {status}; it logged:\n{log}"),
        }
    }

    async fn ready(mut self) -> Result<Self, Refused> {
        let waited = timeout(DEADLINE, async {
            loop {
                if let Some(status) = self.try_exit() {
                    return Some(status);
                }
                if let Some(addresses) = self.written_addresses() {
                    self.addresses = addresses;
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match waited.await {
            Ok(None) => Ok(self),
            Ok(Some(status)) => Err(Refused { status, log: self.log() }),
            Err(_) => self.fail("it did not get ready"),
        }
    }

    /// What this process has written down, and not one that ran here before it.
    fn written_addresses(&self) -> Option<Value> {
        let octets = fs::read(self.place.data_dir.join("addresses.json")).ok()?;
        let addresses: Value = serde_json::from_slice(&octets).ok()?;
        let pid = addresses.get("pid")?.as_u64()?;
        self.pids().iter().any(|own| u64::from(*own) == pid).then_some(addresses)
    }

    /// The process that was started and, where that is a wrapper, those that it has started.
    fn pids(&self) -> Vec<u32> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        children.chain([own]).collect()
    }

    /// Kills it without a warning. Nothing of it is left when this returns.
    pub async fn kill(mut self) {
        if let Some(status) = self.try_exit() {
            self.fail(&format!("it ended before it was to be killed: {status}"));
        }
        let pids = self.pids();
        self.kill_all();
        self.exit().await;
        // A wrapper may be gone before the broker that it has started, and the store is the broker's until that ends.
        eventually("all of it has ended", async || pids.iter().copied().all(has_ended)).await;
    }

    /// Nothing when it has ended: its number may be another's by now.
    fn kill_all(&mut self) {
        if self.try_exit().is_some() {
            return;
        }
        for pid in self.pids() {
            // The wrapper may have ended with what it wraps; then there is nothing to kill.
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::KILL).ok();
            }
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.try_exit().is_none()
    }

    /// Where it listens for `protocol`: `amqp`, `amqps`, `stomp`, `stomps` or `metrics`.
    #[must_use]
    pub fn address(&self, protocol: &str) -> SocketAddr {
        let text = self.addresses.pointer(&format!("/{protocol}/0")).and_then(Value::as_str);
        match text.and_then(|text| text.parse().ok()) {
            Some(address) => address,
            None => self.fail(&format!("it does not listen for {protocol}")),
        }
    }

    /// An AMQP 0-9-1 client, logged in, with channel 1 open.
    pub async fn amqp(&self) -> Peer {
        let options = Options::default();
        let mut peer = Peer::connect(self.address("amqp"), options.version).await;
        peer.log_in(&options).await;
        peer.open_channel(1).await;
        peer
    }

    /// A STOMP 1.2 client, logged in.
    pub async fn stomp(&self) -> stomp::Peer {
        let mut peer = stomp::Peer::connect(self.address("stomp")).await;
        peer.log_in("1.2").await;
        peer
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.place.data_dir
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.place.data_dir.join("warren.sock")
    }

    /// Runs `warren ctl` with these words, blocking.
    #[must_use]
    pub fn ctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(binary());
        without_settings(&mut command).arg("ctl").args(words).arg("--socket").arg(self.socket());
        made("warren ctl", command.stdin(Stdio::null()).output())
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        let octets = made("its log", fs::read(&self.place.log));
        String::from_utf8_lossy(octets.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// What `warren ctl status` says.
    #[must_use]
    pub fn status(&self) -> Value {
        let said = self.ctl(&["status", "--formatter", "json"]);
        match serde_json::from_slice(&said.stdout) {
            Ok(status) => status,
            Err(error) => self.fail(&format!("no status: {error}, {said:?}")),
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        // The standard library can only kill. The shell has the command built in.
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -s \"$0\" \"$1\"", name, &self.child.id().to_string()]);
        let status = made("a signal", shell.status());
        assert!(status.success(), "cannot send {name}: {status}");
    }

    /// Waits until it has ended by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let ended = timeout(DEADLINE, async {
            loop {
                match self.try_exit() {
                    Some(status) => break status,
                    None => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        match ended.await {
            Ok(status) => status,
            Err(_) => self.fail("it did not end"),
        }
    }

    fn try_exit(&mut self) -> Option<ExitStatus> {
        made("its end", self.child.try_wait())
    }

    /// Fails the test with the log.
    fn fail(&self, what: &str) -> ! {
        panic!("{what}; it logged:\n{}", self.log())
    }
}

impl Drop for WarrenProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read(&self.place.log).unwrap_or_default();
            let tail = log.get(log.len().saturating_sub(LOG_TAIL)..).unwrap_or(&log);
            eprintln!("the broker's log ends:\n{}", String::from_utf8_lossy(tail));
        }
        self.kill_all();
        // Fails only when somebody has waited already.
        self.child.wait().ok();
    }
}

/// Whether a process has let go of its files, whoever has still to be told that it has ended.
fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // Behind the name, which may hold anything. The first thread is dead before the others, and listed with them.
    let is_dead = stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X']));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    is_dead && threads <= 1
}

/// Without variables that would be settings of the broker.
fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WARREN_") {
            command.env_remove(name);
        }
    }
    command
}

/// The binary, built when it is first asked for.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--package", "warren-server", "--bin", "warren"]);
        cargo.arg("--message-format=json-render-diagnostics");
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        let built = made("the binary", cargo.output());
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "warren does not build:\n{errors}");
        let messages = built.stdout.split(|octet| *octet == b'\n');
        let mut messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let executable =
            messages.find_map(|message| Some(message.get("executable")?.as_str()?.into()));
        executable.unwrap_or_else(|| panic!("cargo does not say where it built warren"))
    })
}

fn made<T>(what: &str, result: std::io::Result<T>) -> T {
    match result {
        Ok(made) => made,
        Err(error) => panic!("{what}: {error}"),
    }
}
