//! Fetches client libraries into `target/clients/`, each once.
//!
//! A library's directory is named after its recipe and a hash of everything that decides what comes
//! into it, so a changed pin or another Python makes another directory. It is filled under another
//! name and moved into place when it is complete: what is there is whole. A lock file keeps
//! concurrent tests from filling it twice.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::fetch;

/// How a library's directory is filled.
#[derive(Debug)]
pub struct Recipe {
    /// The first part of the directory's name.
    pub name: &'static str,
    /// What is done, in order.
    pub steps: &'static [Step],
}

/// One step of a [`Recipe`].
#[derive(Debug)]
pub enum Step {
    /// Packages of PyPI with pinned versions, as the text of a requirements file, into `site/`.
    Pip(&'static str),
    /// The source archive of a PyPI package, unpacked beside `site/`.
    Sdist(&'static str),
    /// Translates Python 2 in these parts of `directory` to Python 3, by the `fissix` that a pip
    /// step brought.
    Python3 {
        /// The unpacked source archive.
        directory: &'static str,
        /// The directories in it.
        parts: &'static [&'static str],
    },
    /// Debian packages of this machine's release, unpacked.
    DebianBinary(&'static [&'static str]),
    /// The upstream archive of a Debian source package, unpacked.
    DebianUpstream {
        /// Debian's name of the release that carries it.
        release: &'static str,
        /// The source package.
        source: &'static str,
        /// The archive's file name, which holds the version.
        tarball: &'static str,
    },
}

/// What a program needs in order to find its library.
#[derive(Debug)]
pub(crate) struct Provisioned {
    /// What runs the program.
    pub(crate) interpreter: PathBuf,
    /// Its environment, besides the broker's addresses.
    pub(crate) variables: Vec<(&'static str, OsString)>,
}

impl Provisioned {
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }
}

/// The Python that runs the programs: `WARREN_CONFORMANCE_PYTHON`, or `python3`.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("WARREN_CONFORMANCE_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

/// Returns the directory of `recipe`, filling it first if it is not there. What this process has
/// failed to fetch once it does not try again.
///
/// # Errors
/// With a sentence that says what is missing on this machine, or what a package index answered.
pub fn provision(recipe: &Recipe) -> Result<PathBuf, Failure> {
    static OUTCOMES: Mutex<BTreeMap<&str, Result<PathBuf, Failure>>> = Mutex::new(BTreeMap::new());
    let mut outcomes = OUTCOMES.lock().unwrap_or_else(PoisonError::into_inner);
    outcomes.entry(recipe.name).or_insert_with(|| fill(recipe)).clone()
}

fn fill(recipe: &Recipe) -> Result<PathBuf, Failure> {
    let clients = clients_directory()?;
    fs::create_dir_all(&clients).map_err(Failure::io("create", &clients))?;
    let directory = clients.join(format!("{}-{}", recipe.name, fingerprint(recipe)?));
    let lock_path = clients.join(format!("{}.lock", recipe.name));
    let lock = File::create(&lock_path).map_err(Failure::io("create", &lock_path))?;
    // Held until the file is closed at the end of this function, or by the end of the process.
    lock.lock().map_err(Failure::io("lock", &lock_path))?;
    if directory.exists() {
        return Ok(directory);
    }
    remove_others(&clients, recipe.name)?;
    let partial = clients.join(format!("{}-partial", recipe.name));
    fs::create_dir_all(&partial).map_err(Failure::io("create", &partial))?;
    for step in recipe.steps {
        fetch::perform(step, &partial)
            .map_err(|failure| Failure(format!("cannot fetch {}: {failure}", recipe.name)))?;
    }
    fs::rename(&partial, &directory).map_err(Failure::io("move", &partial))?;
    Ok(directory)
}

/// `clients` in the target directory, in which the running test lies as `<profile>/deps/<test>`.
fn clients_directory() -> Result<PathBuf, Failure> {
    let test = std::env::current_exe()
        .map_err(|error| Failure(format!("this test does not know where it lies: {error}")))?;
    let target = test.ancestors().nth(3);
    target
        .map(|target| target.join("clients"))
        .ok_or_else(|| Failure(format!("{} does not lie in a target directory", test.display())))
}

/// Earlier versions of the recipe's directory, and what an interrupted run left.
fn remove_others(clients: &Path, name: &str) -> Result<(), Failure> {
    let entries = fs::read_dir(clients).map_err(Failure::io("read", clients))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let stem =
            path.file_name().and_then(|file| file.to_str()).and_then(|file| file.rsplit_once('-'));
        if stem.is_some_and(|(stem, _)| stem == name) {
            fs::remove_dir_all(&path).map_err(Failure::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Sixteen hexadecimal digits that change with the recipe and with the interpreter.
fn fingerprint(recipe: &Recipe) -> Result<String, Failure> {
    let version = Command::new(python()).arg("--version").output().map_err(|error| {
        Failure(format!("{} does not run ({error}): apt install python3", python().display()))
    })?;
    let mut hash = Sha256::new();
    hash.update(format!("{recipe:?}"));
    hash.update(&version.stdout);
    let mut digits = String::new();
    for octet in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        let _written = write!(digits, "{octet:02x}");
    }
    Ok(digits)
}
