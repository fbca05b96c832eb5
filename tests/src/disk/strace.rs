//! System calls that fail, by strace.
//!
//! strace counts the calls of each thread for itself: `when=3` is the third call of every thread. That is all the
//! better here: the thread that opens the store, the one that commits and the one that looks after it each meet the
//! fault.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Calls that are written down, whatever fails: by them one sees which file a later call is about.
const TRACED: &str = "fdatasync,openat,unlink,rename";

/// Log files and the like of which [`Fault::path`] knows the names.
const NAMED_FILES: u64 = 32;

/// What is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The system call.
    pub call: &'static str,
    /// The error, such as `EIO`.
    pub error: &'static str,
    /// Which calls of a thread.
    pub when: When,
}

/// Which calls of a thread fail, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// One.
    Once(u32),
    /// It and all after it.
    From(u32),
    /// Those from one to another.
    Between(u32, u32),
}

impl std::fmt::Display for When {
    /// As strace's `when` takes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Once(nth) => write!(f, "{nth}"),
            Self::From(first) => write!(f, "{first}+"),
            Self::Between(first, last) => write!(f, "{first}..{last}"),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.call, self.error, self.when)
    }
}

/// A run of a broker with a [`Fault`].
#[derive(Debug)]
pub struct Faults {
    output: PathBuf,
}

impl Faults {
    /// Where strace is to write; the file is made anew by each run.
    #[must_use]
    pub fn new(output: &Path) -> Self {
        Self { output: output.into() }
    }

    /// What a broker with this data directory is to be started by.
    #[must_use]
    pub fn wrapper(&self, fault: Fault, data_dir: &Path) -> Vec<OsString> {
        let Fault { call, error, when } = fault;
        let mut words: Vec<OsString> = ["strace", "-f", "-y", "-qqq", "-o"].map(Into::into).into();
        words.push(self.output.clone().into());
        words.extend(["-e".into(), format!("trace={TRACED},{call}").into()]);
        words.extend(["-e".into(), "signal=none".into()]);
        let inject = format!("inject={call}:error={error}:when={when}");
        words.extend(["-e".into(), inject.into()]);
        strace();
        if matches!(call, "openat" | "pread64") {
            // The dynamic linker opens and reads files too, before there is a broker.
            for path in store_paths(data_dir) {
                words.extend(["-P".into(), path.into()]);
            }
        }
        words
    }

    /// How often the fault has happened.
    #[must_use]
    pub fn injected(&self) -> usize {
        self.log().matches("(INJECTED)").count()
    }

    /// Flushes of a file that had failed to be flushed before, and was not made anew since: the lines.
    #[must_use]
    pub fn repeated_flushes(&self) -> Vec<String> {
        let log = self.log();
        let mut failed: HashSet<&str> = HashSet::new();
        let mut repeated = Vec::new();
        // What a thread has asked for and another's line came between.
        let mut flushing: HashMap<&str, &str> = HashMap::new();
        for line in log.lines() {
            let thread = line.split_whitespace().next().unwrap_or_default();
            let has_failed = line.contains("(INJECTED)");
            if line.contains(" fdatasync(") {
                let path = between(line, "<", ">").unwrap_or_default();
                if failed.contains(path) {
                    repeated.push(line.to_owned());
                }
                flushing.insert(thread, path);
            }
            if line.contains("fdatasync") && has_failed {
                failed.extend(flushing.get(thread));
            } else if line.contains(" unlink(") || line.contains("O_CREAT|O_TRUNC") {
                failed.remove(between(line, "\"", "\"").unwrap_or_default());
            } else if line.contains(" rename(") && !has_failed {
                let mut quoted = line.split('"').skip(1).step_by(2);
                if let (Some(from), Some(to)) = (quoted.next(), quoted.next()) {
                    failed.remove(to);
                    if failed.remove(from) {
                        failed.insert(to);
                    }
                }
            }
        }
        repeated
    }

    fn log(&self) -> String {
        match fs::read(&self.output) {
            Ok(octets) => String::from_utf8_lossy(&octets).into_owned(),
            Err(error) => panic!("{}: {error}", self.output.display()),
        }
    }
}

/// What stands between the first `open` and the `close` behind it.
fn between<'l>(line: &'l str, open: &str, close: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(open)?;
    Some(rest.split_once(close)?.0)
}

/// Files of a store whose names can be known before it is there.
fn store_paths(data_dir: &Path) -> Vec<PathBuf> {
    let store = data_dir.join("store");
    let mut paths = vec![store.clone()];
    paths.extend(["FORMAT", "FORMAT.tmp", "LOCK", "BALLAST"].map(|name| store.join(name)));
    for (directory, suffixes) in
        [("wal", &[".wal"][..]), ("seg", &[".seg", ".seg.tmp"]), ("ckpt", &[".ckpt", ".ckpt.tmp"])]
    {
        paths.push(store.join(directory));
        for id in 0..NAMED_FILES {
            let named = |suffix| store.join(directory).join(format!("{id:016x}{suffix}"));
            paths.extend(suffixes.iter().map(named));
        }
    }
    paths
}

/// Makes sure that strace is there and may trace; fails the test with a sentence otherwise.
fn strace() {
    static TRIED: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(problem) = TRIED.get_or_init(try_strace) {
        panic!("{problem}");
    }
}

fn try_strace() -> Result<(), String> {
    let is_there = || Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !is_there() {
        install()?;
    }
    let traced = Command::new("strace").args(["-f", "-qqq", "-o", "/dev/null", "true"]).output();
    let traced = traced.map_err(|error| format!("cannot run strace: {error}"))?;
    if traced.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&traced.stderr);
    Err(format!(
        "strace may not trace a process here: {}. This test needs ptrace: allow it (sysctl \
         kernel.yama.ptrace_scope at most 2 for root or 1 otherwise; in a container \
         CAP_SYS_PTRACE, or a seccomp profile that lets ptrace through)",
        said.trim()
    ))
}

fn install() -> Result<(), String> {
    const WANTED: &str = "this test injects faults with strace: install the package strace";
    if !rustix::process::geteuid().is_root() {
        return Err(WANTED.to_owned());
    }
    for words in [&["update"][..], &["install", "-y", "--no-install-recommends", "strace"]] {
        let done = Command::new("apt-get")
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output();
        match done {
            Ok(done) if done.status.success() => {}
            Ok(done) => {
                let said = String::from_utf8_lossy(&done.stderr);
                return Err(format!(
                    "{WANTED}; `apt-get {}` says: {}",
                    words.join(" "),
                    said.trim()
                ));
            }
            Err(error) => return Err(format!("{WANTED}; apt-get cannot be run: {error}")),
        }
    }
    Ok(())
}
