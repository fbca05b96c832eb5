//! `warren`: the command line of [`warren_server`], handed to the parts that do the work.

use std::process::ExitCode;

use warren_server::cli::{self, Command};

/// Messages are allocated by one thread and freed by another; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(code) => return code,
    };
    match command {
        Command::CheckConfig(args) => cli::check_config(args),
        Command::Completions(args) => cli::completions(&args),
        Command::Man(args) => cli::man(&args),
        Command::Server(args) => cli::server(&args),
        Command::Ctl(args) => cli::ctl(&args),
        Command::Health(args) => cli::health(&args),
        Command::Store(args) => cli::store(&args),
        Command::Bench(args) => warren_server::bench::run(args),
    }
}
