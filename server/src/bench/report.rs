//! What a benchmark says: one JSON object, or a few aligned lines.
//!
//! The JSON object is the interface for scripts: `scenario`, `broker`, `parameters` and figures whose names
//! end in their unit. Fields that do not apply are `null`, never absent.

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::args::{PathArgs, Protocol};
use super::backlog;
use super::error::BenchError;
use super::load::Measured;
use super::stats::{Times, TimesUs, per_second, seconds};

/// Prints an error to standard error.
pub(super) fn complain(error: &BenchError) {
    // Standard error may be closed; there is nobody left to tell.
    drop(writeln!(io::stderr(), "warren bench: {error}"));
}

/// Prints `report`, as JSON or as lines of `name value`.
///
/// # Errors
/// [`BenchError::Io`] if standard output cannot be written.
pub(super) fn print(report: &impl Serialize, json: bool) -> Result<(), BenchError> {
    let value = serde_json::to_value(report)
        .map_err(|error| BenchError::Io { doing: "writing the report", source: error.into() })?;
    let text = if json { format!("{value}\n") } else { table(&value) };
    io::stdout().lock().write_all(text.as_bytes()).map_err(BenchError::io("writing the report"))
}

/// The report of a run in which messages flow.
#[derive(Debug, Serialize)]
pub(super) struct FlowReport<'a, P> {
    scenario: &'static str,
    broker: &'a str,
    protocol: Protocol,
    parameters: Parameters<'a, P>,
    window_s: f64,
    published: u64,
    delivered: u64,
    confirmed: u64,
    refused: u64,
    undelivered: u64,
    published_per_s: f64,
    delivered_per_s: f64,
    confirmed_per_s: f64,
    delivered_mib_per_s: f64,
    latency_us: Option<TimesUs>,
    confirm_us: Option<TimesUs>,
    send_late_us: Option<TimesUs>,
    client_cpu_s: f64,
    broker_cpu_s: Option<f64>,
    /// Broker time divided by deliveries, or by publishes when nobody consumes.
    broker_cpu_us_per_message: Option<f64>,
    broker_resident_mib: Option<f64>,
}

/// The arguments that shaped a run.
#[derive(Debug, Serialize)]
struct Parameters<'a, P> {
    #[serde(flatten)]
    path: &'a PathArgs,
    #[serde(flatten)]
    pace: P,
}

impl<'a, P: Serialize> FlowReport<'a, P> {
    /// The report of `measured`.
    pub(super) fn new(
        scenario: &'static str,
        protocol: Protocol,
        path: &'a PathArgs,
        pace: P,
        measured: &'a Measured,
    ) -> Self {
        let Measured { window, counts, .. } = measured;
        let messages = if path.consumers == 0 { counts.published } else { counts.delivered };
        Self {
            scenario,
            broker: &measured.broker,
            protocol,
            parameters: Parameters { path, pace },
            window_s: seconds(*window),
            published: counts.published,
            delivered: counts.delivered,
            confirmed: counts.confirmed,
            refused: counts.refused,
            undelivered: measured.undelivered,
            published_per_s: per_second(counts.published, *window),
            delivered_per_s: per_second(counts.delivered, *window),
            confirmed_per_s: per_second(counts.confirmed, *window),
            delivered_mib_per_s: mib(per_second(counts.delivered, *window) * path.size as f64),
            latency_us: measured.latency.summary(),
            confirm_us: measured.confirm.summary(),
            send_late_us: measured.lateness.summary(),
            client_cpu_s: seconds(measured.client_cpu),
            broker_cpu_s: measured.broker_cpu.map(seconds),
            broker_cpu_us_per_message: measured
                .broker_cpu
                .and_then(|cpu| us_per_message(cpu, messages)),
            broker_resident_mib: measured.broker_resident.map(|octets| mib(octets as f64)),
        }
    }
}

/// The report of a backlog that is filled and emptied.
#[derive(Debug, Serialize)]
pub(super) struct BacklogReport {
    pub(super) scenario: &'static str,
    pub(super) broker: String,
    pub(super) protocol: Protocol,
    pub(super) parameters: backlog::Parameters,
    /// `None` in a run that only drains.
    pub(super) publish: Option<PublishReport>,
    /// `None` in a run that only publishes.
    pub(super) drain: Option<DrainReport>,
    pub(super) client_cpu_s: f64,
}

/// How a backlog was filled.
#[derive(Debug, Serialize)]
pub(super) struct PublishReport {
    window_s: f64,
    pub(super) confirmed: u64,
    confirmed_per_s: f64,
    /// From the start of a write to the confirm of all in it.
    confirm_us: Option<TimesUs>,
    pub(super) broker: Option<BrokerCost>,
}

impl PublishReport {
    /// Of `confirmed` messages in `window`.
    pub(super) fn new(
        confirmed: u64,
        window: Duration,
        confirm: &Times,
        broker: Option<BrokerCost>,
    ) -> Self {
        Self {
            window_s: seconds(window),
            confirmed,
            confirmed_per_s: per_second(confirmed, window),
            confirm_us: confirm.summary(),
            broker,
        }
    }
}

/// How a backlog was emptied.
#[derive(Debug, Serialize)]
pub(super) struct DrainReport {
    window_s: f64,
    delivered: u64,
    delivered_per_s: f64,
    delivered_mib_per_s: f64,
    /// From the first basic.consume to the first delivery of any queue.
    first_delivery_ms: Option<f64>,
    broker: Option<BrokerCost>,
}

impl DrainReport {
    /// Of `delivered` messages of `size` octets in `window`.
    pub(super) fn new(
        delivered: u64,
        size: usize,
        window: Duration,
        until_first: Option<Duration>,
        broker: Option<BrokerCost>,
    ) -> Self {
        let delivered_per_s = per_second(delivered, window);
        Self {
            window_s: seconds(window),
            delivered,
            delivered_per_s,
            delivered_mib_per_s: mib(delivered_per_s * size as f64),
            first_delivery_ms: until_first.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3),
            broker,
        }
    }
}

/// What one phase cost the broker.
#[derive(Debug, Serialize)]
pub(super) struct BrokerCost {
    cpu_s: f64,
    cpu_us_per_message: Option<f64>,
    resident_before_mib: f64,
    /// At the end of the phase.
    pub(super) resident_mib: f64,
    /// The most that was seen, every 50 ms.
    pub(super) resident_max_mib: f64,
}

/// Resident memory of the broker around a phase, in octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) max: u64,
}

impl BrokerCost {
    /// Of moving `messages`.
    pub(super) fn new(cpu: Duration, messages: u64, resident: Resident) -> Self {
        Self {
            cpu_s: seconds(cpu),
            cpu_us_per_message: us_per_message(cpu, messages),
            resident_before_mib: mib(resident.before as f64),
            resident_mib: mib(resident.after as f64),
            resident_max_mib: mib(resident.max as f64),
        }
    }
}

/// Processor time of each message in microseconds, rounded to nanoseconds; none without messages.
fn us_per_message(cpu: Duration, messages: u64) -> Option<f64> {
    (messages > 0).then(|| (cpu.as_secs_f64() * 1e9 / messages as f64).round() / 1000.0)
}

/// Octets as mebibytes with one decimal.
pub(super) fn mib(octets: f64) -> f64 {
    (octets / 1_048_576.0 * 10.0).round() / 10.0
}

/// Lines of `name value`, nested names joined by dots, `null`s left out.
fn table(value: &Value) -> String {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn flatten(prefix: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => fields_of(prefix, fields, rows),
        Value::Null => {}
        Value::String(text) => rows.push((prefix.to_owned(), text.clone())),
        other => rows.push((prefix.to_owned(), other.to_string())),
    }
}

fn fields_of(prefix: &str, fields: &Map<String, Value>, rows: &mut Vec<(String, String)>) {
    for (name, value) in fields {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        flatten(&name, value, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_figure_that_applies() {
        let value = serde_json::json!({
            "scenario": "latency", "latency_us": {"p50": 1.5}, "confirm_us": null, "window_s": 2.0
        });
        assert_eq!(
            table(&value),
            "scenario        latency\nlatency_us.p50  1.5\nwindow_s        2.0\n"
        );
    }

    #[test]
    fn mebibytes_have_one_decimal() {
        assert!((mib(1_572_864.0) - 1.5).abs() < f64::EPSILON);
    }
}
