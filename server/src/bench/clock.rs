//! The clock of the load generator.
//!
//! One reading function, so that the rest of the server stays free of wall time, and one way to wait for an
//! intended moment. Stamps in message bodies count nanoseconds from a common [`Epoch`], which is meaningful
//! because both ends of a latency measurement live in this process.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::error::BenchError;

/// The monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a load generator measures wall time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The common zero of all stamps of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(Instant);

impl Epoch {
    /// An epoch that starts now.
    pub(super) fn start() -> Self {
        Self(now())
    }

    /// Nanoseconds from the epoch until now.
    pub(super) fn nanos(self) -> u64 {
        self.nanos_at(now())
    }

    /// Nanoseconds from the epoch until `moment`.
    pub(super) fn nanos_at(self, moment: Instant) -> u64 {
        nanos(moment.saturating_duration_since(self.0))
    }
}

/// A duration in nanoseconds; saturates after 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds from one start to the `index`th event of an even rate per second, without accumulating error.
pub(super) fn nth_at(rate: NonZeroU64, index: u64) -> u64 {
    let at = u128::from(index) * 1_000_000_000 / u128::from(rate.get());
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// Makes this thread's timed waits end within a microsecond or so of their deadline, instead of the 50 µs by
/// which the kernel groups timers: those would be measured as latency of the broker.
///
/// # Errors
/// [`BenchError::Io`] where the kernel does not allow it.
pub(super) fn sharpen_timer() -> Result<(), BenchError> {
    rustix::thread::set_current_timer_slack(NonZeroU64::new(1))
        .map_err(|errno| BenchError::Io { doing: "setting the timer slack", source: errno.into() })
}

/// Blocks for `length`.
#[expect(
    clippy::disallowed_methods,
    reason = "an open-loop sender waits for a moment, not for a condition"
)]
pub(super) fn pause(length: Duration) {
    std::thread::sleep(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_event_of_a_rate_does_not_drift() {
        let rate = NonZeroU64::new(3).unwrap();
        assert_eq!(nth_at(rate, 0), 0);
        assert_eq!(nth_at(rate, 1), 333_333_333);
        assert_eq!(nth_at(rate, 3), 1_000_000_000);
        assert_eq!(nth_at(rate, 3_000_000), 1_000_000_000_000_000);
    }

    #[test]
    fn stamps_grow() {
        let epoch = Epoch::start();
        let first = epoch.nanos();
        assert!(epoch.nanos() >= first);
    }
}
