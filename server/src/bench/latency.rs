//! `warren bench latency`: a fixed rate, and how long deliveries take.
//!
//! Every message has a moment at which it should be sent, decided before the run; its stamp is that moment,
//! not the one at which it was written. A broker that stops reading for a second therefore shows a second of
//! latency in every message that was due meanwhile, as real senders would see it. `send_late_us` says how
//! much of the latency is the generator's own.

use std::num::NonZeroU64;

use serde::Serialize;

use super::address::Address;
use super::args::LatencyArgs;
use super::error::BenchError;
use super::load::{Load, Pace, measure};
use super::report::{FlowReport, print};
use super::walk::STAMP_LEN;

#[derive(Serialize)]
struct Rate {
    rate: NonZeroU64,
}

/// Runs and reports.
///
/// # Errors
/// As [`measure`]; [`BenchError::Usage`] for arguments that do not go together.
pub(super) fn run(args: &LatencyArgs) -> Result<(), BenchError> {
    let address = Address::of(&args.target)?;
    let path = &args.path;
    path.check(address.protocol)?;
    if path.producers == 0 || path.consumers == 0 {
        return Err(BenchError::Usage(
            "latency needs --producers and --consumers of at least 1".to_owned(),
        ));
    }
    if path.size < STAMP_LEN as u64 {
        return Err(BenchError::Usage(format!(
            "--size {}: a stamp needs {STAMP_LEN} octets of body",
            path.size
        )));
    }
    let measured = measure(Load {
        address: &address,
        path,
        pace: Pace::Rate(args.rate),
        broker_pid: args.target.broker_pid,
    })?;
    let rate = Rate { rate: args.rate };
    print(&FlowReport::new("latency", address.protocol, path, rate, &measured), args.target.json)
}
