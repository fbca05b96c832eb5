//! What a peer has sent and received, for the report of a failed test.

use std::collections::VecDeque;
use std::fmt;

/// Lines that are kept; of a long conversation the end is what matters.
const LINES_MAX: usize = 60;

/// Characters of a line that are shown.
const LINE_LEN_MAX: usize = 400;

/// The last lines of a conversation.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    lines: VecDeque<String>,
    left_out: usize,
}

impl Transcript {
    pub(crate) fn sent(&mut self, what: impl fmt::Display) {
        self.line("-->", what);
    }

    pub(crate) fn received(&mut self, what: impl fmt::Display) {
        self.line("<--", what);
    }

    fn line(&mut self, arrow: &str, what: impl fmt::Display) {
        let mut line = format!("{arrow} {what}");
        if line.len() > LINE_LEN_MAX {
            line.truncate(line.floor_char_boundary(LINE_LEN_MAX));
            line.push('…');
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.left_out += 1;
        }
        self.lines.push_back(line);
    }

    /// Fails the test.
    #[track_caller]
    pub(crate) fn fail(&self, what: impl fmt::Display) -> ! {
        panic!("{what}\n\nthe conversation:\n{self}")
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left_out > 0 {
            writeln!(f, "    ({} lines before)", self.left_out)?;
        }
        for line in &self.lines {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// The beginning of some octets as a person reads them.
pub(crate) fn shown(octets: &[u8]) -> String {
    let start = octets.get(..64).unwrap_or(octets);
    let more = if octets.len() > start.len() { "…" } else { "" };
    format!("{} octets \"{}{more}\"", octets.len(), start.escape_ascii())
}
