//! How a problem with the settings reads: what, where, and what to do.
//!
//! A problem in a file shows the line with a caret under the spot, unless the line may hold a
//! password: excerpts go to logs and issue trackers.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One thing that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about, where there is one.
    pub key: Option<String>,
    /// What is wrong; one sentence without a full stop.
    pub message: String,
    /// Where it was written.
    pub place: Place,
    /// What to do about it; one sentence without a full stop.
    pub help: Option<String>,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the built-in default.
    Default,
    /// A spot in a file.
    Spot(Spot),
    /// A file as a whole.
    File(PathBuf),
    /// An environment variable, by name.
    Variable(String),
    /// A flag of the command line, without its value.
    Flag(String),
    /// Not among the settings: the limits of the process.
    Process,
}

/// A spot in a settings file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    file: Arc<SourceFile>,
    /// Octets of the file's text.
    span: Range<usize>,
}

/// A settings file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl SourceFile {
    /// The spot at `span`, octets of the text; cut to the text if it reaches beyond.
    pub(super) fn spot(self: &Arc<Self>, span: Range<usize>) -> Place {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let end = span.end.clamp(start, self.text.len());
        Place::Spot(Spot { file: Arc::clone(self), span: start..end })
    }
}

impl Spot {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
    /// Line, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }
    /// Column in characters, counted from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.line_so_far().chars().count() + 1
    }

    fn before(&self) -> &str {
        self.file.text.get(..self.span.start).unwrap_or_default()
    }
    fn line_so_far(&self) -> &str {
        self.before().rsplit('\n').next().unwrap_or_default()
    }
    fn line_text(&self) -> &str {
        let start = self.span.start - self.line_so_far().len();
        let rest = self.file.text.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }

    /// The line with carets under the spot; nothing if the line may hold a password.
    fn excerpt(&self) -> Option<String> {
        let line = self.line_text();
        let lower = line.to_ascii_lowercase();
        if lower.contains("pass") || lower.contains("secret") {
            return None;
        }
        let spot = self.file.text.get(self.span.clone()).unwrap_or_default();
        let width = spot.lines().next().unwrap_or_default().chars().count().max(1);
        let number = self.line().to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands below whatever their width.
        let indent: String =
            self.line_so_far().chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        let carets = "^".repeat(width);
        Some(format!("{gutter} |\n{number} | {line}\n{gutter} | {indent}{carets}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::Spot(spot) => {
                write!(f, "{}:{}:{}", spot.path().display(), spot.line(), spot.column())
            }
            Self::File(path) => path.display().fmt(f),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Process => f.write_str("the limits of this process"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n --> {}", self.message, self.place)?;
        if let Place::Spot(spot) = &self.place
            && let Some(excerpt) = spot.excerpt()
        {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, spot: &str) -> Problem {
        let start = text.find(spot).expect("the spot is in the text");
        let file = Arc::new(SourceFile { path: "w.toml".into(), text: text.into() });
        Problem {
            key: None,
            message: "wrong".into(),
            place: file.spot(start..start + spot.len()),
            help: Some("mend it".into()),
        }
    }

    #[test]
    fn a_problem_shows_line_column_and_caret() {
        let problem = at("[amqp]\nheartbeet = 5\n", "heartbeet");
        assert_eq!(
            problem.to_string(),
            "error: wrong\n --> w.toml:2:1\n  |\n2 | heartbeet = 5\n  | ^^^^^^^^^\n  = help: mend it"
        );
    }

    #[test]
    fn columns_count_characters_not_octets() {
        let problem = at("a = [\"ü\", \"x\"]", "\"x\"");
        let Place::Spot(spot) = &problem.place else { panic!("a spot") };
        assert_eq!((spot.line(), spot.column()), (1, 11));
    }

    #[test]
    fn a_line_that_may_hold_a_password_is_not_shown() {
        let problem =
            at("default_pascode = 1\ndefault_passcode = \"hunter2\"\n", "default_passcode");
        let text = problem.to_string();
        assert!(text.contains("w.toml:2:1") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_spot_beyond_the_text_is_its_end() {
        let file = Arc::new(SourceFile { path: "w.toml".into(), text: "a = ".into() });
        let Place::Spot(spot) = file.spot(40..50) else { panic!("a spot") };
        assert_eq!((spot.line(), spot.column()), (1, 5));
    }
}
