//! The real binary on a directory that outlives it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tokio::time::{Duration, timeout};
use warren_tests::DEADLINE;
use warren_tests::process::binary;

/// Where a broker listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) amqp: SocketAddr,
    pub(crate) stomp: SocketAddr,
}

/// A process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
}

impl Broker {
    /// Starts it on a data directory, adding to a log; it is not ready yet.
    pub(crate) fn spawn(data_dir: &Path, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WARREN_") {
                command.env_remove(name);
            }
        }
        command.arg("server").arg("--data-dir").arg(data_dir);
        for setting in ["amqp.listen=127.0.0.1:0", "stomp.listen=127.0.0.1:0", "metrics.listen=[]"]
        {
            command.arg("--set").arg(setting);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).spawn();
        Self { child: child.unwrap(), data_dir: data_dir.to_owned(), log: log.to_owned() }
    }

    /// Waits until it listens.
    pub(crate) async fn ready(&mut self) -> Addresses {
        let ready = timeout(DEADLINE, async {
            loop {
                if let Some(addresses) = self.addresses() {
                    break addresses;
                }
                if let Some(status) = self.child.try_wait().unwrap() {
                    panic!("the broker has ended with {status}, see {}", self.log.display());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        match ready.await {
            Ok(addresses) => addresses,
            Err(_) => panic!("the broker does not get ready, see {}", self.log.display()),
        }
    }

    /// What it has written down itself, and not one that was killed before it.
    fn addresses(&self) -> Option<Addresses> {
        let written = fs::read(self.data_dir.join("addresses.json")).ok()?;
        let written: Value = serde_json::from_slice(&written).ok()?;
        if written.get("pid")?.as_u64()? != u64::from(self.child.id()) {
            return None;
        }
        let first = |protocol| {
            written.pointer(&format!("/{protocol}/0")).and_then(Value::as_str)?.parse().ok()
        };
        Some(Addresses { amqp: first("amqp")?, stomp: first("stomp")? })
    }

    /// Kills it without a warning.
    pub(crate) async fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "see {}", self.log.display());
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "kill -s TERM \"$0\"", &self.child.id().to_string()]);
        assert!(shell.status().unwrap().success());
        let status = self.ended().await;
        assert!(status.success(), "it ended with {status}, see {}", self.log.display());
    }

    async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(DEADLINE, async {
            loop {
                match self.child.try_wait().unwrap() {
                    Some(status) => break status,
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        });
        ended.await.expect("the broker does not end")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
