//! `warren completions` and `warren man`: both written from the definition of the command line.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::{CompletionsArgs, ManArgs, definition, exit, print};

/// Prints the completions of a shell to standard output.
#[must_use]
pub fn completions(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "warren", &mut script);
    print(&script)
}

/// Prints the manual page to standard output, or writes all pages into a directory that exists.
#[must_use]
pub fn man(args: &ManArgs) -> ExitCode {
    match &args.directory {
        None => match page(definition()) {
            Ok(page) => print(&page),
            Err(error) => failed(Path::new("the manual page"), &error),
        },
        Some(directory) => match clap_mangen::generate_to(definition(), directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(directory, &error),
        },
    }
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn failed(what: &Path, error: &io::Error) -> ExitCode {
    eprintln!("error: cannot write {}: {error}", what.display());
    exit::CANNOT_CREATE.into()
}
