//! `warren check-config`: every problem at once, and the settings in force.

use std::path::Path;
use std::process::ExitCode;

use super::{CheckConfigArgs, print, report};
use crate::settings::{Loaded, check_all, load, machine, rules};

/// Checks the settings that `args` name, the machine included; prints problems and warnings to
/// standard error, the settings in force to standard output if asked.
#[must_use]
pub fn run(args: CheckConfigArgs) -> ExitCode {
    let mut settings = args.settings;
    settings.config = args.file.or(settings.config);
    let sources = settings.sources();
    // What is in force is known also where a certificate or a directory is wrong.
    if args.print_effective
        && let Ok(loaded) = load(&sources)
    {
        let printed = print(loaded.effective().as_bytes());
        if printed != ExitCode::SUCCESS {
            return printed;
        }
    }
    let loaded = match check_all(&sources) {
        Ok(loaded) => loaded,
        Err(problems) => return report(&problems),
    };
    for warning in rules::warnings(&loaded.settings, machine::open_files_limit_at_most()) {
        eprintln!("warning: {warning}");
    }
    eprintln!("settings are good: {}", read_from(&loaded));
    ExitCode::SUCCESS
}

/// The files that were read, in words.
fn read_from(loaded: &Loaded) -> String {
    if loaded.files.is_empty() {
        return "no file, built-in defaults".into();
    }
    let shown: Vec<_> = loaded.files.iter().map(|f| Path::display(f).to_string()).collect();
    shown.join(", ")
}
