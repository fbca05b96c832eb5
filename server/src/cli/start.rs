//! From arguments to a process that is ready to run a broker: settings, log, limits.

use std::process::ExitCode;

use super::{ServerArgs, exit, report};
use crate::logging::{self, Logging};
use crate::settings::{Loaded, Settings, Sources, check_all, machine, rules};

/// What a broker is started with.
#[derive(Debug)]
pub struct Prepared {
    /// The settings, checked against this machine.
    pub settings: Settings,
    /// Where they came from, to read them again on SIGHUP.
    pub sources: Sources,
    /// The running log.
    pub logging: Logging,
    /// The open files that the process may have, already raised as far as it goes.
    pub open_files: u64,
}

/// Loads and checks the settings, starts the log, raises the limit of open files, and logs what
/// should be known.
///
/// # Errors
/// After printing to standard error: [`exit::CONFIG`] for settings, [`exit::SOFTWARE`] when the
/// process has a log already.
pub fn prepare(args: &ServerArgs) -> Result<Prepared, ExitCode> {
    let sources = args.sources();
    let loaded = check_all(&sources).map_err(|problems| report(&problems))?;
    let Loaded { settings, files, .. } = loaded;
    let logging = logging::init(&settings.log).map_err(|error| {
        eprintln!("error: cannot start the log: {error}");
        ExitCode::from(exit::SOFTWARE)
    })?;
    let open_files = machine::raise_open_files_limit();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?files, open_files, "starting");
    for warning in rules::warnings(&settings, open_files) {
        tracing::warn!("{warning}");
    }
    Ok(Prepared { settings, sources, logging, open_files })
}
