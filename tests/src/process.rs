//! A broker in a process of its own: the real binary, for what only a process has: signals, an exit code, a log.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Duration, timeout};

use crate::DEADLINE;
use crate::amqp::{Options, Peer};
use crate::stomp;

/// The binary, running, with a data directory of its own on ports of its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct WarrenProcess {
    child: Child,
    directory: TempDir,
    /// `addresses.json`.
    addresses: Value,
}

impl WarrenProcess {
    /// Starts a broker with settings as `--set` takes them; plain AMQP and STOMP listen on port 0 of the loopback. Ready
    /// when this returns.
    pub async fn start(settings: &[&str]) -> Self {
        Self::with(settings, |_| {}).await
    }

    /// The same, started in a way that `change` has changed.
    pub async fn with(settings: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let directory = made("a directory", TempDir::with_prefix("warren-process-"));
        let log = made("a log", File::create(log_of(directory.path())));
        let mut command = Command::new(binary());
        without_settings(&mut command).arg("server").arg("--data-dir").arg(directory.path());
        let quiet = ["amqp.listen=127.0.0.1:0", "stomp.listen=127.0.0.1:0", "metrics.listen=[]"];
        for setting in quiet.iter().chain(settings) {
            command.arg("--set").arg(setting);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        change(&mut command);
        let child = made("a process", command.spawn());
        let mut started = Self { child, directory, addresses: Value::Null };
        let ready = timeout(DEADLINE, async {
            loop {
                let addresses = fs::read(started.directory.path().join("addresses.json")).ok();
                let read = addresses.and_then(|octets| serde_json::from_slice(&octets).ok());
                match (read, started.try_exit()) {
                    (Some(addresses), None) => break addresses,
                    (_, Some(status)) => started.fail(&format!("it ended at once: {status}")),
                    (None, None) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        match ready.await {
            Ok(addresses) => started.addresses = addresses,
            Err(_) => started.fail("it did not get ready"),
        }
        started
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
        self.directory.path()
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("warren.sock")
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
        let octets = made("its log", fs::read(log_of(self.directory.path())));
        String::from_utf8_lossy(&octets).into_owned()
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
        // Both fail only when it has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn log_of(directory: &Path) -> PathBuf {
    directory.join("log")
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
