//! `warren bench`: a load generator for any AMQP 0-9-1 or STOMP broker.
//!
//! The one idea: the generator must never be what is measured. Publishes are encoded once, before the clock
//! starts, into a ring that is only written afterwards (`ring`); deliveries are counted by stepping from
//! frame to frame without looking at bodies or allocating (`walk`); every connection has a blocking thread
//! of its own, because on a machine of few cores that is the cheapest way to move octets. What the machine
//! can do at best is measured too: `null` is a broker that parses frames and forwards them and does nothing
//! else, so its figure is the ceiling of loopback and framing.
//!
//! Figures are rates over a window in which producers and consumers both run, after a warm-up; what was
//! published but not delivered when the producers stop is drained, and what is still missing then is named.
//! Latency is measured from the moment a message *should* have been sent, so that a broker which stalls
//! cannot hide it by delaying the sender (coordinated omission).
//!
//! It does not speak TLS, does not keep queues (all that it declares is deleted at the end, and is
//! auto-delete in case it is killed; `backlog`, whose queues have to outlive their consumers and if asked a
//! restart, is the exception), and does not load remote machines unless told to.

mod acks;
mod address;
mod amqp;
mod args;
mod backlog;
mod churn;
mod clock;
mod confirms;
mod connections;
mod error;
mod latency;
mod link;
mod load;
mod null;
mod process;
mod report;
mod ring;
mod stats;
mod stomp;
mod throughput;
mod topology;
mod walk;

use std::process::ExitCode;

pub use args::{
    AckChoice, BacklogArgs, BacklogPhase, BenchArgs, BenchCommand, ChurnArgs, ChurnSubject,
    ConnectionsArgs, ExchangeShape, LatencyArgs, NullArgs, PathArgs, Protocol, TargetArgs,
    ThroughputArgs,
};

use error::BenchError;

/// Runs one benchmark and prints its report to standard output: a table, or one JSON object with `--json`.
///
/// Blocks until the benchmark is over; the length is bounded by the durations in `args`. Problems go to
/// standard error; the exit code is 0, 64 for a request that makes no sense, 69 when the broker cannot be
/// reached or refuses, and 1 when a run started but failed.
#[must_use]
pub fn run(args: BenchArgs) -> ExitCode {
    let outcome = match args.command {
        BenchCommand::Throughput(args) => throughput::run(&args),
        BenchCommand::Latency(args) => latency::run(&args),
        BenchCommand::Connections(args) => connections::run(&args),
        BenchCommand::Churn(args) => churn::run(&args),
        BenchCommand::Backlog(args) => backlog::run(&args),
        BenchCommand::Null(args) => null::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The code of sysexits that fits `error`.
const fn exit_code(error: &BenchError) -> u8 {
    match error {
        BenchError::Usage(_) => 64,
        BenchError::Connect { .. } | BenchError::Closed { .. } => 69,
        BenchError::Io { .. }
        | BenchError::Protocol(_)
        | BenchError::Books(_)
        | BenchError::Late(_) => 1,
    }
}
