//! Runs one client program against a broker and judges it by its exit status.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::broker::Broker;
use crate::clients::Client;
use crate::deadline::wait_for;
use crate::failure::Failure;

/// How long a program may run: the longest takes half a minute on two idle cores. It shows by itself where it stands a
/// little earlier.
const LIMIT: Duration = Duration::from_secs(300);
const OWN_LIMIT_SECS: u64 = 290;
/// The exit status of a program that checks a promise only Warren makes, against a foreign broker.
const NOT_APPLICABLE: i32 = 77;

/// Fetches `client`, starts a broker, and runs `program` (a path under `clients/`) against it.
///
/// # Panics
/// When the client cannot be fetched, the broker not be started, or the program ends with anything
/// but 0 in five minutes. The message holds everything that the program printed, and the broker's log.
pub fn run(client: Client, program: &str, arguments: &[&str]) {
    if let Err(failure) = attempt(client, program, arguments) {
        panic!("{failure}");
    }
}

fn attempt(client: Client, program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let provisioned = client.provision()?;
    let broker = Broker::start()?;
    // A foreign broker is one for all, and suites use fixed names: their programs take turns.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = broker.is_foreign().then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(program);
    let directory =
        tempfile::tempdir().map_err(|error| Failure(format!("no temporary directory: {error}")))?;
    let printed = directory.path().join("output");
    let output = File::create(&printed).map_err(Failure::io("create", &printed))?;
    let errors = output.try_clone().map_err(Failure::io("write", &printed))?;

    let mut command = Command::new(&provisioned.interpreter);
    command
        .arg(&path)
        .args(arguments)
        .envs(broker.variables())
        .envs(provisioned.variables)
        .env("WARREN_CONFORMANCE_DEADLINE_SECS", OWN_LIMIT_SECS.to_string())
        // Programs write where they are, if they write.
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        // A group of its own, so that the workers which a program starts end with it.
        .process_group(0);
    let mut child = command.spawn().map_err(Failure::io("run", &path))?;
    let status = wait_for(LIMIT, || child.try_wait().transpose());
    let verdict = match status {
        Some(Ok(status)) if status.success() => return Ok(()),
        Some(Ok(status)) if status.code() == Some(NOT_APPLICABLE) && broker.is_foreign() => {
            return Ok(());
        }
        Some(Ok(status)) => describe(status),
        Some(Err(error)) => format!("cannot be waited for: {error}"),
        None => format!("was stopped after {LIMIT:?}"),
    };
    end_group(&mut child);
    let output = fs::read(&printed).map_err(Failure::io("read", &printed))?;
    Err(Failure(format!(
        "clients/{program} {}{verdict}. It printed:\n{}\nThe broker logged:\n{}",
        arguments.iter().map(|argument| format!("{argument} ")).collect::<String>(),
        String::from_utf8_lossy(&output),
        broker.log(),
    )))
}

/// Ends a program that failed and the workers that it left behind. One that succeeded has ended its
/// own.
fn end_group(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(group) = group {
        // Fails when nobody is left in the group, which is what is wanted.
        let _nobody_left = kill_process_group(group, Signal::KILL);
    }
    drop(child.wait());
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended with {status}"),
    }
}
