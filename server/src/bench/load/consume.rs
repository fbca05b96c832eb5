//! A consumer under load: read, count, acknowledge.

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::acks::Acks;
use super::super::clock::now;
use super::super::error::BenchError;
use super::super::link::{Link, is_timeout};
use super::super::stats::Times;
use super::super::walk::Event;
use super::Run;

/// How long a consumer that leaves waits for the broker's goodbye.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(1);

/// Consumes until the run is over. Returns the times of the deliveries whose stamps lie in the window; with
/// `stamped` unset, bodies hold none.
pub(super) fn consume(mut link: Link, run: &Run, mut acks: Acks, stamped: bool) -> Times {
    let mut times = Times::new();
    let mut consumer = || -> Result<(), BenchError> {
        while !run.left() {
            let mut delivered = 0;
            let arrived = link.receive(|event| {
                if let Event::Delivered { handle, stamp } = event {
                    delivered += 1;
                    acks.delivered(handle);
                    if stamped && run.samples(stamp) {
                        times.record(run.epoch.nanos().saturating_sub(stamp));
                    }
                }
            })?;
            if arrived {
                run.delivered.fetch_add(delivered, Ordering::Relaxed);
                run.progressed();
            } else {
                // Nothing came for a while: do not leave the last deliveries unacknowledged.
                acks.settle();
            }
            send_acks(&mut link, run, &mut acks)?;
        }
        acks.settle();
        send_acks(&mut link, run, &mut acks)
    };
    let mut outcome = consumer();
    if outcome.is_ok() && !run.abandoned() {
        let deadline = now() + FAREWELL_TIME_MAX;
        outcome = link.close(
            || now() >= deadline,
            |event| {
                if matches!(event, Event::Delivered { .. }) {
                    run.delivered.fetch_add(1, Ordering::Relaxed);
                }
            },
        );
    }
    run.finished(outcome);
    times
}

/// Writes the collected acknowledgements.
fn send_acks(link: &mut Link, run: &Run, acks: &mut Acks) -> Result<(), BenchError> {
    let out = acks.out();
    let mut rest: &[u8] = out;
    while !rest.is_empty() && !run.abandoned() {
        match (&link.stream).write(rest) {
            Ok(len) => rest = rest.get(len..).unwrap_or_default(),
            Err(error) if is_timeout(&error) => {}
            Err(source) => return Err(link.why(source)),
        }
    }
    out.clear();
    Ok(())
}
