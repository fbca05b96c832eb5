//! `warren ctl`: rabbitmqctl's daily commands, for the broker on this machine.
//!
//! Commands, options, columns, texts and exit codes are those of rabbitmqctl 3.10, so that scripts need no
//! change. A command becomes a [`Plan`]: what to ask, what to say first, and how to show the answer. The broker is
//! found through its settings; nothing here knows how it works inside.
//!
//! Results go to standard output, errors to standard error, one sentence each.

mod commands;
mod format;
mod password;
mod plan;
mod status;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CtlArgs, SettingsArgs, exit};
use crate::control::client::{AskError, Client, Content, Received, Rows};
use crate::control::protocol::{Refused, Request};
use crate::settings::{Problem, load};
use commands::{Cli, Common, Format};
use plan::{Plan, Show};

/// How long `await_startup` sleeps between two looks.
const STARTUP_POLL: Duration = Duration::from_millis(100);

/// The whole command line of `warren ctl`.
#[cfg(test)]
pub(super) fn definition() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// What a command says and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// The exit code, see [`exit`].
    pub code: u8,
}

/// Runs the command in `args`, prints what it says, and gives its exit code.
#[must_use]
pub fn ctl(args: &CtlArgs) -> ExitCode {
    let said = converse(&args.arguments);
    let printed = super::print(said.out.as_bytes());
    eprint!("{}", said.err);
    if said.code == 0 { printed } else { said.code.into() }
}

/// Runs the command in `arguments`, which do not begin with the name of a program.
///
/// Blocks until the broker has answered or the time is up.
#[must_use]
pub fn converse(arguments: &[OsString]) -> Said {
    let name = OsString::from("warren ctl");
    let cli = match Cli::try_parse_from(std::iter::once(&name).chain(arguments)) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let err = error.render().to_string();
            return Said { err, code: exit::USAGE, ..Said::default() };
        }
        Err(help) => return Said { out: help.render().to_string(), ..Said::default() },
    };
    let mut out = String::new();
    let ended = client(&cli).and_then(|client| run(&cli, &client, &mut out));
    match ended {
        Ok(()) => Said { out, ..Said::default() },
        Err(Failure { code, message }) => Said { out, err: format!("Error: {message}\n"), code },
    }
}

/// The way to the broker that the options or the settings name.
fn client(cli: &Cli) -> Result<Client, Failure> {
    let common = &cli.common;
    let socket = match &common.socket {
        Some(socket) => socket.clone(),
        None => {
            let config = common.config.clone();
            let settings =
                SettingsArgs { config, set: Vec::new(), data_dir: common.data_dir.clone() };
            load(&settings.sources()).map_err(wrong_settings)?.settings.control_socket()
        }
    };
    let timeout = match common.timeout {
        // As with rabbitmqctl, no limit.
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => Some(cli.command.timeout()),
    };
    Ok(Client::new(socket, timeout))
}

fn wrong_settings(problems: Vec<Problem>) -> Failure {
    let problems: Vec<_> = problems.iter().map(Problem::to_string).collect();
    let message =
        format!("the settings do not say where the broker is\n\n{}", problems.join("\n\n"));
    Failure { code: exit::CONFIG, message }
}

/// Why a command failed.
#[derive(Debug)]
struct Failure {
    code: u8,
    /// One sentence.
    message: String,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { code: refused.kind.exit_code(), message: refused.message }
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        let code = match error {
            AskError::Late { .. } => exit::TEMPORARY,
            AskError::Nobody { .. } | AskError::NotAllowed { .. } | AskError::Cut { .. } => {
                exit::UNAVAILABLE
            }
        };
        Self { code, message: error.to_string() }
    }
}

/// Carries out a command. What it says is appended to `out`, also when it fails after that.
fn run(cli: &Cli, client: &Client, out: &mut String) -> Result<(), Failure> {
    let common = &cli.common;
    if common.dry_run {
        // Nothing is done with a password, so that nobody is asked for one.
        let plan = Plan::of(&cli.command, client, || Ok(String::new()))?;
        if common.chatters() {
            out.push_str(&(plan.banner)(&crate::node::name()));
        }
        return Ok(());
    }
    let plan = Plan::of(&cli.command, client, password::read)?;
    if plan.show == Show::Startup {
        return await_startup(client, &plan.request);
    }
    let received = client.ask(&plan.request)?;
    let senseless =
        matches!(&received.content, Err(refused) if refused.kind.exit_code() == exit::USAGE);
    // What makes no sense is not announced, as with rabbitmqctl.
    if common.chatters() && !senseless {
        out.push_str(&(plan.banner)(&received.node));
    }
    show(plan.show, received, common, out)
}

/// Asks until somebody answers.
#[expect(clippy::disallowed_methods, reason = "another process gives no sign when it is up")]
fn await_startup(client: &Client, request: &Request) -> Result<(), Failure> {
    let deadline = client.timeout().map(|timeout| Instant::now() + timeout);
    let has_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
    loop {
        match client.ask(request) {
            Ok(received) => return received.content.map(|_| ()).map_err(Failure::from),
            Err(AskError::Nobody { .. } | AskError::Cut { .. }) if has_time() => {
                std::thread::sleep(STARTUP_POLL);
            }
            Err(error @ AskError::Nobody { .. }) => {
                return Err(Failure { code: exit::TEMPORARY, message: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows an answer in the form that was asked for.
fn show(show: Show, received: Received, common: &Common, out: &mut String) -> Result<(), Failure> {
    let Received { node, content } = received;
    let value = match (content?, show) {
        (Content::Rows(rows), show) => {
            let rows = match show {
                Show::Header => Rows { rows: Vec::new(), ..rows },
                _ => rows,
            };
            format::rows(&rows, common.formatter, common.shows_header(), out);
            return Ok(());
        }
        (Content::Value(value), _) => value,
    };
    let text = match show {
        Show::Rows | Show::Header | Show::Startup | Show::Nothing => return Ok(()),
        Show::Done(text) => {
            if common.chatters() {
                out.push_str(&format!("{text}\n"));
            }
            return Ok(());
        }
        Show::Pong => "Ping succeeded".to_owned(),
        Show::Success => "Success".to_owned(),
        Show::Running => format!("Warren on node {node} is fully booted and running"),
        Show::Deleted => {
            let count = value.get("messages").and_then(Value::as_u64).unwrap_or_default();
            format!("Queue was successfully deleted with {count} ready messages")
        }
        Show::Closed => {
            let count = value.get("closed").and_then(Value::as_u64).unwrap_or_default();
            format!("Closed {count} connections")
        }
        Show::Alarms => match status::alarms(&value) {
            none if none.is_empty() => format!("Node {node} reported no local alarms"),
            alarms => {
                let message = format!(
                    "node {node} reported local alarms: {}; publishers are held until they are over",
                    alarms.join(", ")
                );
                return Err(Failure { code: exit::UNAVAILABLE, message });
            }
        },
        Show::Status => return structured(&value, status::text(&node, &value), common, out),
        Show::Listeners => {
            let text = status::listeners(&value);
            let value = json!({ "listeners": value, "node": node, "result": "ok" });
            return structured(&value, text, common, out);
        }
        Show::Environment => {
            return structured(&value, format::settings(&value), common, out);
        }
    };
    structured(&json!({ "message": text }), format!("{text}\n"), common, out)
}

/// JSON for machines, text for people.
fn structured(
    value: &Value,
    text: String,
    common: &Common,
    out: &mut String,
) -> Result<(), Failure> {
    match common.formatter {
        Format::Json | Format::JsonStream => out.push_str(&format!("{value}\n")),
        Format::Table | Format::PrettyTable => out.push_str(&text),
        Format::Csv => {
            return Err(Failure {
                code: exit::USAGE,
                message: "this command has no table to write as csv; use --formatter json".into(),
            });
        }
    }
    Ok(())
}
