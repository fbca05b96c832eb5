//! `warren store`: looking at, checking and repairing the store of a broker that does not run.
//!
//! The one idea: the tools of the store ([`broker_core::storage`]) do the work, with the eyes of a start;
//! this module finds the directory, turns numbers of queues into names, shows how far things are, and
//! turns refusals into sentences. Results go to standard output, everything else to standard error.
//! Nothing here reads a file of the store by itself, but for the notes in its quarantine.

mod names;
mod report;
#[cfg(test)]
mod tests;
mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use broker_core::storage::{
    self, Damage, Inspection, OnProgress, Options, Progress, StdFs, StorageError,
};
use clap::{Args, Subcommand, ValueEnum};

use super::{SettingsArgs, exit, print};
use crate::store::{STORE_DIR, note_names};
use names::QueueNames;
use watch::Watch;

pub(super) const EXAMPLES: &str = "\
EXAMPLES:
  warren store inspect
  warren store inspect --formatter json /srv/warren | jq .queues
  warren store verify --data-dir /srv/warren
  warren store repair /srv/warren

The broker must not run: stop it first. Exit code 0: all is well. 1: damage was found, and with repair \
set aside. 65: there is no store, or a newer Warren wrote it. 74: the disk cannot be read or written. \
75: a broker runs on it.";

/// Arguments of `warren store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What `warren store` can do.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List what is in the store: files, log, checkpoints, queues, quarantine
    Inspect(StoreTarget),
    /// Read everything that a start or a consumer would read, and name what is damaged
    Verify(StoreTarget),
    /// Set damage aside, and give up the messages that cannot be read any more
    Repair(RepairArgs),
}

/// Which store, and how results look.
#[derive(Debug, Args)]
pub struct StoreTarget {
    /// The broker's data directory, in place of what its settings say; or a copy of its `store`
    #[arg(value_name = "DATA_DIR", conflicts_with_all = ["config", "set", "data_dir"])]
    pub directory: Option<PathBuf>,
    /// How results look
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub formatter: StoreFormat,
    /// Where the settings come from; they say where the data directory is.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// How results look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StoreFormat {
    /// Lines for people
    Text,
    /// One JSON document
    Json,
}

/// Arguments of `warren store repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Which store.
    #[command(flatten)]
    pub target: StoreTarget,
    /// Where log or checkpoints are gone, begin anew with the messages that segments still hold;
    /// acked messages may come back
    #[arg(long)]
    pub accept_data_loss: bool,
}

/// Runs the command in `args` and gives its exit code: see `warren store --help`.
///
/// Blocks until everything has been read.
#[must_use]
pub fn run(args: &StoreArgs) -> ExitCode {
    let (StoreCommand::Inspect(target)
    | StoreCommand::Verify(target)
    | StoreCommand::Repair(RepairArgs { target, .. })) = &args.command;
    let store = match target.find() {
        Ok(store) => store,
        Err(code) => return code,
    };
    let done = match &args.command {
        StoreCommand::Inspect(_) => store.inspect(),
        StoreCommand::Verify(_) => store.verify(),
        StoreCommand::Repair(args) => store.repair(args.accept_data_loss),
    };
    done.unwrap_or_else(|refusal| refusal.say())
}

impl StoreTarget {
    /// Where the store is, and how the broker opens it.
    fn find(&self) -> Result<Store, ExitCode> {
        let (data_dir, options) = match &self.directory {
            Some(directory) => (directory.clone(), Options::default()),
            None => {
                let settings = self.settings.load()?.settings;
                let options = crate::store::options(&settings);
                // Damage is to be found, or repaired; a loss is accepted here or not at all.
                (settings.data_dir, Options { strict: false, accept_data_loss: false, ..options })
            }
        };
        let inside = data_dir.join(STORE_DIR);
        // A store that was copied away for a closer look.
        let is_store = !inside.exists() && data_dir.join("FORMAT").exists();
        let directory = if is_store { data_dir } else { inside };
        Ok(Store { directory, options, format: self.formatter })
    }
}

/// The store that a command is about.
struct Store {
    directory: PathBuf,
    options: Options,
    format: StoreFormat,
}

impl Store {
    fn inspect(&self) -> Result<ExitCode, Refusal> {
        let watch = Watch::new();
        let inspection = self.look(&watch)?;
        watch.end();
        let names = QueueNames::of(&inspection);
        let quarantine = report::quarantine(&self.directory, &inspection);
        Ok(self.print(
            || report::inspection_text(&self.directory, &inspection, &names, &quarantine),
            || report::inspection_json(&self.directory, &inspection, &names, &quarantine),
        ))
    }

    fn verify(&self) -> Result<ExitCode, Refusal> {
        let watch = Watch::new();
        let mut read = 0;
        let options = self.options(&watch);
        let damage = storage::verify(
            Arc::new(StdFs),
            &self.directory,
            options,
            &mut |progress: Progress| {
                read = progress.done;
                watch.tell("messages", progress.done, progress.total);
            },
        )?;
        watch.end();
        self.show(&damage, &report::Verdict::Verified { read })
    }

    fn repair(&self, accept_data_loss: bool) -> Result<ExitCode, Refusal> {
        must_be_own(&self.directory)?;
        let watch = Watch::new();
        let options = Options { accept_data_loss, ..self.options(&watch) };
        let mut tell = |progress: Progress| watch.tell("messages", progress.done, progress.total);
        let damage = storage::repair(Arc::new(StdFs), &self.directory, options, &mut tell)?;
        watch.end();
        self.show(&damage, &report::Verdict::Repaired)
    }

    /// Prints what was damaged, with the names of the queues.
    fn show(&self, damage: &[Damage], verdict: &report::Verdict) -> Result<ExitCode, Refusal> {
        let names = match damage.iter().any(|damage| !damage.lost.is_empty()) {
            true => QueueNames::of(&self.look(&Watch::silent())?),
            false => QueueNames::default(),
        };
        for damage in damage {
            // Where nothing was set aside, there is no note.
            if let Err(error) = note_names(&self.directory, damage, |id| names.called(id)) {
                eprintln!("warning: the notes in quarantine name queues by number only: {error}");
            }
        }
        let printed = self.print(
            || report::damage_text(&self.directory, damage, &names, verdict),
            || report::damage_json(&self.directory, damage, &names, verdict),
        );
        let is_sound = damage.is_empty() || printed != ExitCode::SUCCESS;
        Ok(if is_sound { printed } else { exit::DAMAGED.into() })
    }

    fn look(&self, watch: &Watch) -> Result<Inspection, Refusal> {
        Ok(storage::inspect(Arc::new(StdFs), &self.directory, self.options(watch))?)
    }

    /// The options, with `watch` told how far opening is.
    fn options(&self, watch: &Watch) -> Options {
        let watch = watch.clone();
        let progress = OnProgress::new(move |progress| {
            watch.tell(progress.phase.word(), progress.done, progress.total);
        });
        Options { progress: Some(progress), ..self.options.clone() }
    }

    fn print(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> serde_json::Value,
    ) -> ExitCode {
        match self.format {
            StoreFormat::Text => print(text().as_bytes()),
            StoreFormat::Json => print(format!("{:#}\n", json()).as_bytes()),
        }
    }
}

/// Files that a repair makes belong to whoever runs it, and the broker must be able to open them.
fn must_be_own(directory: &Path) -> Result<(), Refusal> {
    let Ok(found) = std::fs::metadata(directory) else {
        // The store says better what is wrong with the directory.
        return Ok(());
    };
    let (owner, user) = (found.uid(), rustix::process::geteuid().as_raw());
    if owner == user {
        return Ok(());
    }
    let message = format!(
        "{} belongs to user id {owner}, and this process runs as {user}: files that a repair makes \
         could not be opened by the broker. Run it as that user, for instance with \
         `sudo -u '#{owner}' warren store repair …`",
        directory.display()
    );
    Err(Refusal { code: exit::NO_PERMISSION, message })
}

/// Why nothing was done.
#[derive(Debug)]
struct Refusal {
    code: u8,
    message: String,
}

impl Refusal {
    fn say(self) -> ExitCode {
        eprintln!("error: {}", self.message);
        self.code.into()
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        let (code, advice) = match &error {
            StorageError::Locked { .. } => (exit::TEMPORARY, ". Stop it first"),
            StorageError::NoStore { .. } => {
                (exit::DATA, ": name the broker's data directory, or its settings with --config")
            }
            StorageError::NewerFormat { .. } => {
                (exit::DATA, ": use the version of Warren that wrote it, or a later one")
            }
            StorageError::LogMissing { .. } => (
                exit::DAMAGED,
                ". `warren store repair --accept-data-loss` does that, and keeps the messages \
                 that segments still hold",
            ),
            StorageError::Damaged { .. } => (exit::DAMAGED, ""),
            StorageError::InvalidOptions(_)
            | StorageError::TooLarge { .. }
            | StorageError::OutOfOrder { .. }
            | StorageError::DamagedMessage { .. } => (exit::SOFTWARE, ""),
            StorageError::Io { .. } | StorageError::Poisoned { .. } | StorageError::DiskFull => {
                (exit::IO_ERROR, "")
            }
        };
        Self { code, message: format!("{error}{advice}") }
    }
}
