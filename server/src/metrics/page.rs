//! A page in Prometheus' text format 0.0.4, written piece by piece to whoever reads it.
//!
//! It makes sure of the form: each family once, with HELP and TYPE above its series, names as the catalogue has
//! them, labels escaped. A page never holds more than [`CHUNK_LEN`] octets; what has been written goes into a
//! pipe, and the writer waits when nobody takes it out.

use std::fmt::{Display, Write as _};
use std::io;

use tokio::io::{AsyncWriteExt as _, DuplexStream};

use super::families::Family;

/// Octets that are gathered before they go into the pipe.
const CHUNK_LEN: usize = 32 * 1024;

/// What the names of a page begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// As in the catalogue.
    Plain,
    /// `rabbitmq_detailed_` in place of `rabbitmq_`, so that both pages can be scraped without counting twice.
    Detailed,
}

/// A page that is being written.
pub(super) struct Page {
    names: Names,
    text: String,
    pipe: DuplexStream,
}

impl Page {
    pub(super) fn new(names: Names, pipe: DuplexStream) -> Self {
        Self { names, text: String::with_capacity(CHUNK_LEN + CHUNK_LEN / 4), pipe }
    }

    /// A line for people.
    pub(super) fn comment(&mut self, text: &str) {
        self.push(format_args!("# {text}\n"));
    }

    /// Begins a family; its series follow.
    pub(super) fn family(&mut self, family: &Family) {
        let Family { kind, help, .. } = family;
        self.text.push_str("# HELP ");
        self.name(family);
        self.push(format_args!(" {help}\n# TYPE "));
        self.name(family);
        self.push(format_args!(" {kind}\n"));
    }

    /// One series of the family that was begun last.
    pub(super) fn series(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        self.sample(family, "", labels, value);
    }

    /// One line of the family that was begun last, whose name goes on with `suffix`.
    pub(super) fn sample(
        &mut self,
        family: &Family,
        suffix: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        debug_assert!(family.takes(labels), "{}: labels {labels:?}", family.name);
        self.name(family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push_str(if index == 0 { "{" } else { "," });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, &mut self.text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.push(format_args!(" {value}\n"));
    }

    /// One series of the family that was begun last, whose labels are written out already.
    pub(super) fn written(&mut self, family: &Family, labels: &str, value: u64) {
        self.name(family);
        if labels.is_empty() {
            self.push(format_args!(" {value}\n"));
        } else {
            self.push(format_args!("{{{labels}}} {value}\n"));
        }
    }

    /// A family with one series.
    pub(super) fn single(&mut self, family: &Family, labels: &[(&str, &str)], value: impl Display) {
        self.family(family);
        self.series(family, labels, value);
    }

    fn name(&mut self, family: &Family) {
        match (self.names, family.name.strip_prefix("rabbitmq_")) {
            (Names::Detailed, Some(rest)) if !family.per_object.is_empty() => {
                self.text.push_str("rabbitmq_detailed_");
                self.text.push_str(rest);
            }
            _ => self.text.push_str(family.name),
        }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        self.text.write_fmt(text).ok();
    }

    /// Passes on what has been written, if it is worth it.
    ///
    /// # Errors
    /// The reader is gone.
    pub(super) async fn breathe(&mut self) -> io::Result<()> {
        if self.text.len() < CHUNK_LEN {
            return Ok(());
        }
        self.flush().await
    }

    /// Passes on everything.
    ///
    /// # Errors
    /// The reader is gone.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.pipe.write_all(self.text.as_bytes()).await?;
        self.text.clear();
        Ok(())
    }
}

/// Escapes a label's value: backslash, quote and line feed, and nothing else.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
