//! Percentiles and rates.
//!
//! Times are kept in nanoseconds in a high-dynamic-range histogram (three significant digits, up to an hour)
//! and reported in microseconds. Nothing is sampled or thrown away: what lies above the range is counted at
//! its top.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time told apart: one hour, in nanoseconds.
const TIME_MAX: u64 = 3_600_000_000_000;

/// A distribution of times.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    /// No times yet. Allocates some 200 KiB.
    #[expect(
        clippy::expect_used,
        reason = "the bounds are constants, and new_with_bounds fails on their values only"
    )]
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, TIME_MAX, 3).expect("1 < TIME_MAX / 2 and 3 digits ≤ 5"))
    }

    /// Counts one time in nanoseconds. Does not allocate.
    pub(super) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Adds the times of another distribution.
    #[expect(
        clippy::expect_used,
        reason = "add fails on values out of range only, and the range is one"
    )]
    pub(super) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all distributions have one range");
    }

    /// The summary, or `None` if nothing was recorded.
    pub(super) fn summary(&self) -> Option<TimesUs> {
        (!self.0.is_empty()).then(|| TimesUs {
            count: self.0.len(),
            min: us(self.0.min()),
            mean: (self.0.mean() / 100.0).round() / 10.0,
            p50: us(self.0.value_at_quantile(0.50)),
            p90: us(self.0.value_at_quantile(0.90)),
            p99: us(self.0.value_at_quantile(0.99)),
            p999: us(self.0.value_at_quantile(0.999)),
            max: us(self.0.max()),
        })
    }
}

/// Percentiles of a distribution, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct TimesUs {
    pub(super) count: u64,
    pub(super) min: f64,
    pub(super) mean: f64,
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// Nanoseconds as microseconds with one decimal.
fn us(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

/// Events a second, rounded to a tenth; zero for an empty window.
pub(super) fn per_second(count: u64, window: Duration) -> f64 {
    if window.is_zero() {
        return 0.0;
    }
    (count as f64 / window.as_secs_f64() * 10.0).round() / 10.0
}

/// Seconds rounded to milliseconds, for reports.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_distribution_has_no_summary() {
        assert_eq!(Times::new().summary(), None);
    }

    #[test]
    fn percentiles_of_a_thousand_even_times_are_their_ranks() {
        let mut times = Times::new();
        for n in 1..=1000_u64 {
            times.record(n * 1000);
        }
        let summary = times.summary().unwrap();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 500.0).abs() <= 0.5, "{summary:?}");
        assert!((summary.p90 - 900.0).abs() <= 1.0, "{summary:?}");
        assert!((summary.p99 - 990.0).abs() <= 1.0, "{summary:?}");
        assert!((summary.p999 - 999.0).abs() <= 1.0, "{summary:?}");
        assert!((summary.max - 1000.0).abs() <= 1.0, "{summary:?}");
        assert!((summary.mean - 500.5).abs() <= 0.5, "{summary:?}");
    }

    #[test]
    fn one_stall_shows_in_the_maximum_and_not_in_the_median() {
        let mut times = Times::new();
        for _ in 0..9_999 {
            times.record(10_000);
        }
        times.record(5_000_000_000);
        let summary = times.summary().unwrap();
        assert!(summary.p50 < 11.0 && summary.p999 < 11.0, "{summary:?}");
        assert!(summary.max > 4_990_000.0, "{summary:?}");
    }

    #[test]
    fn adding_distributions_counts_both() {
        let (mut one, mut other) = (Times::new(), Times::new());
        one.record(1_000);
        other.record(3_000);
        one.add(&other);
        let summary = one.summary().unwrap();
        assert_eq!(summary.count, 2);
        assert!(summary.max > summary.min);
    }

    #[test]
    fn a_time_beyond_the_range_is_counted_at_its_top() {
        let mut times = Times::new();
        times.record(u64::MAX);
        assert_eq!(times.summary().unwrap().count, 1);
    }

    #[test]
    fn rates_divide_by_the_window() {
        assert!((per_second(500, Duration::from_millis(250)) - 2000.0).abs() < f64::EPSILON);
        assert!(per_second(500, Duration::ZERO).abs() < f64::EPSILON);
    }
}
