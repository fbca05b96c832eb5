//! The broker under test: Warren, built and started for one test, or a foreign one that runs
//! already.
//!
//! Warren gets an empty data directory and port 0 everywhere. Once it is ready it writes
//! `addresses.json` into its data directory, which is how its ports become known. It ends when
//! [`Broker`] is dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::deadline::wait_for;
use crate::failure::Failure;
use crate::tls;

/// The variables by which programs learn of the broker, and by which a foreign one is named.
const VARIABLE_PREFIX: &str = "WARREN_CONFORMANCE_";
/// How long Warren may take from its start to `addresses.json`.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A broker that is ready to be connected to.
pub struct Broker {
    variables: BTreeMap<String, String>,
    process: Option<Process>,
}

/// Warren's process and its files; both go when the test ends.
struct Process {
    child: Child,
    log: PathBuf,
    _directory: TempDir,
}

/// `addresses.json`. What it also says about the control socket is of no use here.
#[derive(Deserialize)]
struct Addresses {
    amqp: Vec<String>,
    amqps: Vec<String>,
    stomp: Vec<String>,
    stomps: Vec<String>,
    metrics: Vec<String>,
}

impl Broker {
    /// Starts Warren, or takes the foreign broker that `WARREN_CONFORMANCE_AMQP` and its sisters
    /// name.
    ///
    /// # Errors
    /// When the binary cannot be built, ends at once, or is not ready in 30 s; the sentence holds
    /// what it printed. When a foreign broker is named without a STOMP address.
    pub fn start() -> Result<Self, Failure> {
        match std::env::var(format!("{VARIABLE_PREFIX}AMQP")) {
            Ok(_) => Self::foreign(),
            Err(_) => Self::warren(),
        }
    }

    fn foreign() -> Result<Self, Failure> {
        let mut variables: BTreeMap<_, _> =
            std::env::vars().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
        if !variables.contains_key("WARREN_CONFORMANCE_STOMP") {
            return Err(Failure(
                "WARREN_CONFORMANCE_AMQP names a foreign broker, but WARREN_CONFORMANCE_STOMP does not say \
                 where it speaks STOMP"
                    .to_owned(),
            ));
        }
        variables.insert(format!("{VARIABLE_PREFIX}FOREIGN"), "1".to_owned());
        Ok(Self { variables, process: None })
    }

    fn warren() -> Result<Self, Failure> {
        let binary = binary()?;
        let directory =
            TempDir::new().map_err(|error| Failure(format!("no temporary directory: {error}")))?;
        let data_dir = directory.path().join("data");
        let certificates = tls::make(directory.path())?;
        let config = directory.path().join("warren.toml");
        let text = settings(&data_dir, &certificates);
        fs::write(&config, text).map_err(Failure::io("write", &config))?;

        let log = directory.path().join("warren.log");
        let output = File::create(&log).map_err(Failure::io("create", &log))?;
        let errors = output.try_clone().map_err(Failure::io("write", &log))?;
        let mut command = Command::new(&binary);
        command.arg("server").arg("--config").arg(&config).current_dir(directory.path());
        // Variables of this name would be settings of the broker, or mistakes to it.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WARREN_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(Failure::io("start", &binary))?;
        let mut process = Process { child, log, _directory: directory };
        let addresses = process.addresses(&data_dir.join("addresses.json"))?;
        let mut variables = addresses.variables()?;
        let ca = certificates.ca.display().to_string();
        variables.insert(format!("{VARIABLE_PREFIX}CA"), ca);
        Ok(Self { variables, process: Some(process) })
    }

    /// The environment of a program that is to meet this broker.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// Whether the broker is not Warren.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.process.is_none()
    }

    /// What Warren has logged so far; empty for a foreign broker.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::printed)
    }
}

impl Process {
    fn addresses(&mut self, path: &Path) -> Result<Addresses, Failure> {
        // The file may be seen half written, so a text that does not parse yet is not a failure.
        let ready = wait_for(START_LIMIT, || match self.child.try_wait() {
            Ok(None) => serde_json::from_slice(&fs::read(path).ok()?).ok().map(Ok),
            Ok(Some(status)) => Some(Err(format!("warren ended with {status}"))),
            Err(error) => Some(Err(format!("warren cannot be waited for: {error}"))),
        });
        let failed = match ready {
            Some(Ok(addresses)) => return Ok(addresses),
            Some(Err(failed)) => failed,
            None => format!("warren did not write {} within {START_LIMIT:?}", path.display()),
        };
        Err(Failure(format!("{failed}. It printed:\n{}", self.printed())))
    }

    fn printed(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(its log cannot be read: {error})"),
            |octets| String::from_utf8_lossy(&octets).into_owned(),
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Addresses {
    fn variables(self) -> Result<BTreeMap<String, String>, Failure> {
        let listeners = [
            ("AMQP", self.amqp),
            ("AMQPS", self.amqps),
            ("STOMP", self.stomp),
            ("STOMPS", self.stomps),
            ("METRICS", self.metrics),
        ];
        let mut variables = BTreeMap::new();
        for (kind, addresses) in listeners {
            let Some(address) = addresses.into_iter().next() else {
                return Err(Failure(format!("warren was told to listen for {kind} and does not")));
            };
            variables.insert(format!("{VARIABLE_PREFIX}{kind}"), address);
        }
        Ok(variables)
    }
}

/// The broker's `warren.toml`: every listener on a free port of the loopback address.
fn settings(data_dir: &Path, certificates: &tls::Certificates) -> String {
    // Debug's quotes and escapes are TOML's for any path that is text.
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "data_dir = {data}\n\
         amqp.listen = [\"127.0.0.1:0\"]\n\
         amqp.tls.listen = [\"127.0.0.1:0\"]\n\
         stomp.listen = [\"127.0.0.1:0\"]\n\
         stomp.tls.listen = [\"127.0.0.1:0\"]\n\
         metrics.listen = [\"127.0.0.1:0\"]\n\
         tls.certificate = {certificate}\n\
         tls.key = {key}\n",
        data = quoted(data_dir),
        certificate = quoted(&certificates.certificate),
        key = quoted(&certificates.key),
    )
}

/// The binary that `WARREN_CONFORMANCE_BINARY` names (a release build, for instance); without it,
/// builds `warren` once for this test binary and returns where it lies.
fn binary() -> Result<PathBuf, Failure> {
    if let Some(named) = std::env::var_os(format!("{VARIABLE_PREFIX}BINARY")) {
        return Ok(named.into());
    }
    static BINARY: OnceLock<Result<PathBuf, Failure>> = OnceLock::new();
    BINARY.get_or_init(build).clone()
}

/// One line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct BuildMessage {
    reason: String,
    executable: Option<PathBuf>,
}

fn build() -> Result<PathBuf, Failure> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package", "warren-server", "--bin", "warren"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::io("run", Path::new(env!("CARGO"))))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Failure(format!("warren does not build:\n{errors}")));
    }
    output
        .stdout
        .split(|octet| *octet == b'\n')
        .filter_map(|line| serde_json::from_slice::<BuildMessage>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .find_map(|message| message.executable)
        .ok_or_else(|| Failure("cargo built warren but does not say where it lies".to_owned()))
}
