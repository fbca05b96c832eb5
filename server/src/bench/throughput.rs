//! `warren bench throughput`: as fast as possible.

use super::address::Address;
use super::args::ThroughputArgs;
use super::error::BenchError;
use super::load::{Load, Pace, measure};
use super::report::{FlowReport, print};

/// Runs and reports.
///
/// # Errors
/// As [`measure`]; [`BenchError::Usage`] for arguments that do not go together.
pub(super) fn run(args: &ThroughputArgs) -> Result<(), BenchError> {
    let address = Address::of(&args.target)?;
    args.path.check(address.protocol)?;
    args.pace.check(&args.path)?;
    let load = Load {
        address: &address,
        path: &args.path,
        pace: Pace::from(&args.pace),
        broker_pid: args.target.broker_pid,
    };
    let measured = measure(load)?;
    let report = FlowReport::new("throughput", address.protocol, &args.path, &args.pace, &measured);
    print(&report, args.target.json)
}
