//! `warren check-config`: every problem at once, and the settings in force.

use std::path::Path;
use std::process::ExitCode;

use super::{CheckConfigArgs, print, report};
use crate::settings::{Loaded, machine, rules};

/// Checks the settings that `args` name, the machine included; prints problems and warnings to
/// standard error, the settings in force to standard output if asked.
#[must_use]
pub fn run(args: CheckConfigArgs) -> ExitCode {
    let mut settings = args.settings;
    settings.config = args.file.or(settings.config);
    let loaded = match settings.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if args.print_effective {
        let printed = print(loaded.effective().as_bytes());
        if printed != ExitCode::SUCCESS {
            return printed;
        }
    }
    let problems = machine::check(&loaded);
    if !problems.is_empty() {
        return report(&problems);
    }
    for warning in rules::warnings(&loaded.settings, machine::open_files_limit()) {
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
