//! The log: lines on standard error, for people or as JSON.
//!
//! Standard error and nothing else: systemd, containers and shells know what to do with it, and a
//! broker that rotates files gets it wrong on a full disk. Passwords cannot get here: they are
//! [`Secret`](crate::settings::Secret), which prints a mask.

pub(crate) mod seldom;

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::settings::{Log, LogFilter, LogFormat};

/// The running log; changes its level.
#[derive(Clone, Debug)]
pub struct Logging {
    level: reload::Handle<Targets, Registry>,
}

/// The log of this process, once it has one: there is never a second.
static OF_PROCESS: OnceLock<Logging> = OnceLock::new();

/// The log of this process; `None` when [`init`] did not start it, as in a program that has a broker inside and a
/// log of its own.
#[must_use]
pub fn of_process() -> Option<&'static Logging> {
    OF_PROCESS.get()
}

/// Starts the log of this process.
///
/// # Errors
/// The process has a log already.
pub fn init(settings: &Log) -> io::Result<Logging> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (level, handle) = reload::Layer::new(settings.level.targets());
    let lines = lines(settings.format, colours, io::stderr);
    tracing_subscriber::registry().with(level).with(lines).try_init().map_err(io::Error::other)?;
    Ok(OF_PROCESS.get_or_init(|| Logging { level: handle }).clone())
}

impl Logging {
    /// Logs by `level` from now on.
    pub fn set_level(&self, level: &LogFilter) {
        // Fails only when the log is gone, and then there is nothing to change.
        drop(self.level.reload(level.targets()));
    }
}

/// The layer that writes lines in `format` to `writer`.
fn lines<S, W>(format: LogFormat, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a> + Send + Sync,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => fmt::layer().with_ansi(colours).with_writer(writer).boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(writer)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panics here").extend_from_slice(octets);
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: &str, then: Option<&str>) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let filter: LogFilter = level.parse().expect("a level");
        let (layer, handle) = reload::Layer::new(filter.targets());
        let logging = Logging { level: handle };
        let lines = lines(format, false, move || writer.clone());
        tracing::subscriber::with_default(Registry::default().with(layer).with(lines), || {
            tracing::debug!(queue = "a", "first");
            if let Some(level) = then {
                logging.set_level(&level.parse().expect("a level"));
            }
            tracing::warn!(queue = "b\u{1b}[31m", "second");
        });
        let octets = sink.0.lock().expect("no panics here").clone();
        String::from_utf8(octets).expect("text")
    }

    #[test]
    fn the_level_decides_and_can_change() {
        let quiet = logged(LogFormat::Text, "info", None);
        assert!(!quiet.contains("first") && quiet.contains("second"), "{quiet}");
        let loud = logged(LogFormat::Text, "debug", Some("off"));
        assert!(loud.contains("first") && !loud.contains("second"), "{loud}");
    }

    #[test]
    fn a_peer_cannot_colour_the_terminal_of_the_operator() {
        let text = logged(LogFormat::Text, "info", None);
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn json_is_one_object_a_line_with_fields_on_top() {
        let text = logged(LogFormat::Json, "debug", None);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "first");
        assert_eq!(lines[0]["queue"], "a");
        assert_eq!(lines[1]["level"], "WARN");
    }
}
