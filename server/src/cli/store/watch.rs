//! How far a command is: a bar on a terminal, otherwise a line now and then.
//!
//! The one idea: what is over within seconds needs no words, so without a terminal the first line comes
//! after [`PAUSE`], and each next one not before another. Goes to standard error.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(3);

/// Where progress is shown. Clones show the same.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shown>);

enum Shown {
    Bar(ProgressBar),
    Lines { begun: Instant, due: Mutex<Duration> },
    Nowhere,
}

impl Watch {
    /// A bar when standard error is a terminal, otherwise lines.
    #[expect(clippy::disallowed_methods, reason = "a person waits in real time")]
    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            let due = Mutex::new(PAUSE);
            return Self(Arc::new(Shown::Lines { begun: Instant::now(), due }));
        }
        let bar = ProgressBar::no_length();
        let template = "{msg:>8} [{bar:40}] {bytes} of {total_bytes}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(Arc::new(Shown::Bar(bar)))
    }

    /// Shows nothing.
    pub(super) fn silent() -> Self {
        Self(Arc::new(Shown::Nowhere))
    }

    /// So many octets of a phase are done.
    pub(super) fn tell(&self, phase: &'static str, done: u64, total: u64) {
        match &*self.0 {
            Shown::Bar(bar) => {
                if bar.message() != phase {
                    bar.set_message(phase);
                    bar.reset_eta();
                }
                bar.set_length(total);
                bar.set_position(done);
            }
            Shown::Lines { begun, due } => {
                if let Some(line) = line(phase, done, total, begun.elapsed(), &mut due.lock()) {
                    eprintln!("{line}");
                }
            }
            Shown::Nowhere => {}
        }
    }

    /// Takes the bar away, so that results stand alone.
    pub(super) fn end(&self) {
        if let Shown::Bar(bar) = &*self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The line that is due, if one is.
fn line(
    phase: &str,
    done: u64,
    total: u64,
    elapsed: Duration,
    due: &mut Duration,
) -> Option<String> {
    if elapsed < *due {
        return None;
    }
    *due = elapsed + PAUSE;
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    Some(format!("{phase}: {} of {}, {percent} %", HumanBytes(done), HumanBytes(total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_after_a_pause_and_never_sooner() {
        let mut due = PAUSE;
        let mut at = |millis, done| {
            line("messages", done, 4096 << 20, Duration::from_millis(millis), &mut due)
        };
        assert_eq!(at(2999, 1), None);
        assert_eq!(at(3500, 1 << 30).as_deref(), Some("messages: 1.00 GiB of 4.00 GiB, 25 %"));
        assert_eq!(at(6400, 2 << 30), None);
        assert_eq!(at(6500, 3 << 30).as_deref(), Some("messages: 3.00 GiB of 4.00 GiB, 75 %"));
        assert_eq!(at(20_000, 0).as_deref(), Some("messages: 0 B of 4.00 GiB, 0 %"));
    }
}
