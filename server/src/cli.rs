//! The command line: what `warren` can be asked to do.
//!
//! This module reads arguments and says no; doing is elsewhere. [`parse`] gives one [`Command`], and
//! `main` hands it to the part that does it. Exit codes are those of sysexits(3), so that systemd and
//! scripts can tell a wrong setting from a broken disk: see [`exit`].

mod banner;
mod check_config;
mod ctl;
pub mod exit;
mod generate;
mod serve;
mod start;
mod store;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::settings::{Loaded, Override, Problem, Sources, TimeSpan, load};

pub use banner::{BoundAddresses, banner};
pub use check_config::run as check_config;
pub use ctl::{Said, converse as ctl_said, ctl};
pub use generate::{completions, man};
pub use serve::server;
pub use start::{Prepared, prepare};
pub use store::{RepairArgs, StoreArgs, StoreCommand, StoreFormat, StoreTarget, run as store};

pub use crate::health::health;

const EXAMPLES: &str = "\
EXAMPLES:
  Start on this machine with the defaults, control socket in ./data:
    warren

  Start with a settings file, and one setting changed:
    warren server --config /etc/warren/warren.toml --set log.level=debug

  Find out what is wrong with the settings, and what is in force:
    warren check-config /etc/warren/warren.toml
    warren check-config --print-effective

  See the queues of a running broker, then how fast it is:
    warren ctl list_queues name messages
    warren bench throughput

  After a crash of the disk, with the broker stopped, find out what is damaged:
    warren store verify

Without a command, warren starts the broker. Settings come from the file, then conf.d/*.toml beside \
it, then variables such as WARREN_AMQP__LISTEN, then --set; later ones win.";

const SERVER_EXAMPLES: &str = "\
EXAMPLES:
  warren server
  warren server --config /etc/warren/warren.toml
  warren server --data-dir /srv/warren --set 'amqp.listen=[\"0.0.0.0:5672\"]'
  WARREN_LOG__FORMAT=json warren server
  warren server --strict

Durable queues with their persistent messages, exchanges, bindings, virtual hosts and users are kept in \
the data directory. Send SIGTERM or press Ctrl-C to stop: clients are told. Send SIGHUP to read \
certificates and the log level again.";

const CHECK_EXAMPLES: &str = "\
EXAMPLES:
  warren check-config
  warren check-config /etc/warren/warren.toml
  warren check-config --set amqp.frame_max=4KiB --print-effective

Everything is checked: keys, values, rules between them, certificates and directories. Nothing is \
made or changed, and a running broker does not mind. Exit code 78 means that there are problems.";

const HEALTH_EXAMPLES: &str = "\
EXAMPLES:
  warren health
  warren health --timeout 2s --data-dir /srv/warren

For container probes and load balancers. Exit code 0: the broker answers and takes messages. \
69: it does not. 78: the settings that say where it is are wrong.";

const COMPLETIONS_EXAMPLES: &str = "\
EXAMPLES:
  warren completions bash > /etc/bash_completion.d/warren
  warren completions zsh > ~/.zfunc/_warren
  warren completions fish > ~/.config/fish/completions/warren.fish";

const MAN_EXAMPLES: &str = "\
EXAMPLES:
  warren man | man -l -
  warren man --directory /usr/local/share/man/man1";

/// A message broker for AMQP 0-9-1, 0-9, 0-8 and STOMP 1.0, 1.1, 1.2.
#[derive(Debug, Parser)]
#[command(
    name = "warren",
    version,
    after_help = EXAMPLES,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command, the options are those of `server`.
    #[command(flatten)]
    server: ServerArgs,
}

/// What `warren` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the broker (what happens without a command).
    #[command(after_help = SERVER_EXAMPLES)]
    Server(ServerArgs),
    /// Check the settings and report every problem with file, line and column.
    #[command(after_help = CHECK_EXAMPLES)]
    CheckConfig(CheckConfigArgs),
    /// Ask or tell a running broker something, in the manner of rabbitmqctl.
    #[command(disable_help_flag = true)]
    Ctl(CtlArgs),
    /// Generate load for a broker and measure it.
    Bench(BenchArgs),
    /// Find out whether the broker of this machine works.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Look at, check or repair the store of a broker that does not run.
    #[command(after_help = store::EXAMPLES)]
    Store(StoreArgs),
    /// Print the completions of a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands.
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

/// Where the settings come from, besides the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SettingsArgs {
    /// Settings file; by default $WARREN_CONFIG, /etc/warren/warren.toml or ./warren.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The broker's own directory: short for --set data_dir=DIR
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
}

impl SettingsArgs {
    /// The sources that these arguments name.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let mut overrides: Vec<Override> = self.set.iter().cloned().map(Override::Set).collect();
        if let Some(directory) = &self.data_dir {
            overrides.push(Override::Named("--data-dir", "data_dir", directory.clone()));
        }
        Sources::of_process(self.config.clone(), overrides)
    }

    /// The settings, checked as far as that needs nothing of the machine but the files.
    ///
    /// # Errors
    /// After printing all problems to standard error: [`exit::CONFIG`].
    pub fn load(&self) -> Result<Loaded, ExitCode> {
        load(&self.sources()).map_err(|problems| report(&problems))
    }
}

/// Arguments of `warren server`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ServerArgs {
    /// Where the settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Refuse to start where a start finds damage, in place of setting it aside: short for --set store.strict=true.
    /// A start does not read every message; `warren store verify` does
    #[arg(long)]
    pub strict: bool,
    /// Where the store has lost its log and every checkpoint, begin anew with the messages that are still there;
    /// acked messages may come back: short for --set store.accept_data_loss=true
    #[arg(long)]
    pub accept_data_loss: bool,
}

impl ServerArgs {
    /// The sources that these arguments name.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let mut sources = self.settings.sources();
        for (is_given, flag, key) in [
            (self.strict, "--strict", "store.strict"),
            (self.accept_data_loss, "--accept-data-loss", "store.accept_data_loss"),
        ] {
            if is_given {
                sources.overrides.push(Override::On(flag, key));
            }
        }
        sources
    }
}

/// Arguments of `warren check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Settings file, as with --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
    /// Print every setting in force and where it comes from, as TOML; passwords are masked
    #[arg(long)]
    pub print_effective: bool,
    /// Where the settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Arguments of `warren ctl`, which reads them itself.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// A command and its arguments; try `warren ctl --help`
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Arguments of `warren health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time_span)]
    pub timeout: Duration,
    /// Where the settings come from; they say where the control socket is.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Arguments of `warren completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Arguments of `warren man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write warren.1 and a page for each command here
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

fn time_span(text: &str) -> Result<Duration, String> {
    let span: TimeSpan = text.parse()?;
    if span.is_zero() {
        return Err("no time at all is too short".into());
    }
    Ok(span.duration())
}

/// The whole command line, for completions and manual pages.
fn definition() -> clap::Command {
    Cli::command()
}

/// Reads the arguments, the name of the program first.
///
/// Called by the name `rabbitmqctl`, everything goes to `ctl`: scripts then need no change.
///
/// # Errors
/// After printing: success for `--help` and `--version`, [`exit::USAGE`] for arguments that make no
/// sense.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    try_parse(arguments).map_err(|error| {
        // Nobody is left to tell when even this cannot be printed.
        let printed = error.print();
        if error.use_stderr() || printed.is_err() { exit::USAGE.into() } else { ExitCode::SUCCESS }
    })
}

fn try_parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut arguments = arguments.into_iter().peekable();
    let named_ctl = |program: &OsString| {
        Path::new(program).file_stem().is_some_and(|name| name == "rabbitmqctl")
    };
    if arguments.next_if(named_ctl).is_some() {
        return Ok(Command::Ctl(CtlArgs { arguments: arguments.collect() }));
    }
    let mut definition = definition();
    let mut matches = definition.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut definition))?;
    Ok(cli.command.unwrap_or(Command::Server(cli.server)))
}

/// Prints `problems` and how many there are to standard error.
fn report(problems: &[Problem]) -> ExitCode {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("{problem}\n\n"));
    }
    let (count, s) = (problems.len(), if problems.len() == 1 { "" } else { "s" });
    eprintln!("{text}{count} problem{s} with the settings");
    exit::CONFIG.into()
}

/// Writes `text` to standard output, for a pipe that may have been closed at the other end.
fn print(text: &[u8]) -> ExitCode {
    use std::io::{ErrorKind, Write as _};
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // `warren man | head` has all that it wants.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            exit::IO_ERROR.into()
        }
    }
}

#[cfg(test)]
mod tests;
