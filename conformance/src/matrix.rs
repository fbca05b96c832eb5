//! The conformance matrix: one row for each rule of the protocols, and the test that holds Warren
//! to it.
//!
//! `matrix.toml` is written by hand, `MATRIX.md` is generated from it. A row claims something only
//! through a test that exists: its path and function are looked up in the source. What this module
//! does not do is run the tests; `cargo test` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::Failure;

/// How binding a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// The specification says must, or the protocol makes no sense without it.
    #[serde(rename = "MUST")]
    Must,
    /// The specification says should.
    #[serde(rename = "SHOULD")]
    Should,
    /// The specification permits it, and Warren does it.
    #[serde(rename = "MAY")]
    May,
    /// No specification says so; clients rely on what RabbitMQ does.
    #[serde(rename = "RabbitMQ")]
    RabbitMq,
    /// Warren's own promise.
    #[serde(rename = "Warren")]
    Warren,
}

/// What Warren makes of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It follows the rule, and the test shows it.
    Conforms,
    /// It does something else; the note says what and why, and the test shows that.
    Deviates,
    /// The test is not written yet.
    Planned,
}

/// A rule of a protocol.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Dotted, protocol first: `amqp.queue.declare.passive`.
    pub id: String,
    /// How binding it is.
    pub level: Level,
    /// The rule in one sentence of our own.
    pub sentence: String,
    /// Where it is written.
    pub source: String,
    /// `path/of/file.rs::function`, the path from the root of the workspace.
    pub test: String,
    /// What Warren makes of it.
    pub status: Status,
    /// A remark; a deviation must have one.
    #[serde(default)]
    pub note: String,
}

/// The rows of `matrix.toml`, in the order of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// The rows.
    #[serde(rename = "rule")]
    pub rules: Vec<Rule>,
}

/// Where `matrix.toml` lies.
#[must_use]
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("matrix.toml")
}

/// The root of the workspace, to which the rows' paths are relative.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads a file of the repository.
///
/// # Errors
/// When there is no such file or it is not text.
pub fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::io("read", path))
}

/// Parses the text of `matrix.toml`.
///
/// # Errors
/// With the line and the reason, when it is no TOML or a row lacks something.
pub fn parse(text: &str) -> Result<Matrix, Failure> {
    toml::from_str(text).map_err(|error| Failure(format!("matrix.toml: {error}")))
}

impl Matrix {
    /// Everything that is wrong with the rows, one sentence each. `has_test` says whether a `test`
    /// exists.
    pub fn problems(&self, mut has_test: impl FnMut(&str) -> bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ids = BTreeSet::new();
        for rule in &self.rules {
            let id = &rule.id;
            if !ids.insert(id) {
                problems.push(format!("{id} has two rows"));
            }
            match (rule.status, has_test(&rule.test)) {
                (Status::Planned, true) => problems.push(format!(
                    "{id} is planned, but its test {} is there: say whether it conforms",
                    rule.test
                )),
                (Status::Conforms | Status::Deviates, false) => {
                    problems.push(format!("{id} names a test that does not exist: {}", rule.test));
                }
                (Status::Planned, false) | (Status::Conforms | Status::Deviates, true) => {}
            }
            if rule.status == Status::Deviates && rule.note.is_empty() {
                problems.push(format!("{id} deviates without saying what and why"));
            }
        }
        problems
    }

    /// The marks (`spec: <id>`) in `text` that name no row.
    #[must_use]
    pub fn unknown_marks(&self, text: &str) -> Vec<String> {
        let known: BTreeSet<&str> = self.rules.iter().map(|rule| rule.id.as_str()).collect();
        text.lines()
            .filter_map(|line| line.trim_start_matches(['#', '/', ' ']).strip_prefix("spec: "))
            .map(str::trim)
            .filter(|mark| !known.contains(mark))
            .map(str::to_owned)
            .collect()
    }

    /// The text of `MATRIX.md`.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# Conformance\n\n\
             Generated from `matrix.toml` by `WARREN_UPDATE=1 cargo test -p warren-conformance --test matrix`.\n\n",
        );
        let mut counts: BTreeMap<&str, BTreeMap<Status, usize>> = BTreeMap::new();
        for rule in &self.rules {
            let count = counts.entry(rule.group()).or_default().entry(rule.status).or_default();
            *count += 1;
        }
        text.push_str("| part | conforms | deviates | planned |\n|---|---:|---:|---:|\n");
        for (group, of_status) in &counts {
            let count = |status| of_status.get(&status).copied().unwrap_or_default();
            line(
                &mut text,
                &[
                    format!("[{group}](#{group})"),
                    count(Status::Conforms).to_string(),
                    count(Status::Deviates).to_string(),
                    count(Status::Planned).to_string(),
                ],
            );
        }
        for group in counts.keys() {
            // A heading's anchor is its text in lower case.
            let _written = write!(text, "\n## {group}\n\n");
            text.push_str("| rule | level | what it says | source | status | test |\n");
            text.push_str("|---|---|---|---|---|---|\n");
            for rule in self.rules.iter().filter(|rule| rule.group() == *group) {
                line(&mut text, &rule.cells());
            }
        }
        text
    }
}

impl Rule {
    /// The protocol: the first part of the id, with dots in a version kept (`stomp-1.2`).
    #[must_use]
    pub fn group(&self) -> &str {
        let id = self.id.as_str();
        if id.starts_with("stomp") { "stomp" } else { id.split('.').next().unwrap_or(id) }
    }

    fn cells(&self) -> [String; 6] {
        let sentence = if self.note.is_empty() {
            self.sentence.clone()
        } else {
            format!("{} *{}*", self.sentence, self.note)
        };
        let level = match self.level {
            Level::Must => "MUST",
            Level::Should => "SHOULD",
            Level::May => "MAY",
            Level::RabbitMq => "RabbitMQ",
            Level::Warren => "Warren",
        };
        let status = match self.status {
            Status::Conforms => "conforms",
            Status::Deviates => "deviates",
            Status::Planned => "planned",
        };
        [
            format!("`{}`", self.id),
            level.to_owned(),
            sentence,
            self.source.clone(),
            status.to_owned(),
            format!("`{}`", self.test),
        ]
    }
}

fn line(text: &mut String, cells: &[String]) {
    for cell in cells {
        let _written = write!(text, "| {} ", cell.replace('|', "\\|"));
    }
    text.push_str("|\n");
}

/// Whether `source` has a test function of this name: with a test attribute above it.
#[must_use]
pub fn defines_test(source: &str, function: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let starts = [format!("fn {function}("), format!("async fn {function}(")];
    lines.iter().enumerate().any(|(index, line)| {
        starts.iter().any(|start| line.starts_with(start.as_str()))
            && lines
                .iter()
                .take(index)
                .rev()
                .take_while(|above| above.starts_with("#[") || above.starts_with("//"))
                .any(|above| above.starts_with("#[") && above.contains("test"))
    })
}

/// `matrix.toml` with `planned` made `conforms` in every row for which `has_test` holds. The rest
/// of the text, comments too, stays as it was written.
#[must_use]
pub fn promoted(text: &str, mut has_test: impl FnMut(&str) -> bool) -> String {
    const ROW: &str = "[[rule]]";
    let rows = text.split(ROW).map(|row| {
        let test = row.lines().find_map(|line| line.strip_prefix("test = \"")?.strip_suffix('"'));
        if test.is_some_and(&mut has_test) {
            row.replace("status = \"planned\"", "status = \"conforms\"")
        } else {
            row.to_owned()
        }
    });
    rows.collect::<Vec<_>>().join(ROW)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"
[[rule]]
id = "stomp-1.2.ack"
level = "MUST"
sentence = "A | B."
source = "STOMP 1.2, ACK"
test = "a.rs::f"
status = "planned"
[[rule]]
id = "amqp.x"
level = "RabbitMQ"
sentence = "C."
source = "RabbitMQ"
test = "a.rs::g"
status = "deviates"
"#;

    fn matrix() -> Matrix {
        parse(ROWS).unwrap()
    }

    #[test]
    fn a_planned_row_must_have_no_test_and_the_others_must_have_one() {
        let problems = |exists: bool| matrix().problems(|_| exists).join("\n");
        assert!(problems(true).contains("stomp-1.2.ack is planned, but its test a.rs::f is there"));
        assert!(problems(false).contains("amqp.x names a test that does not exist: a.rs::g"));
    }

    #[test]
    fn a_deviation_needs_a_note_and_an_id_one_row() {
        let mut matrix = matrix();
        matrix.rules.push(matrix.rules[1].clone());
        let problems = matrix.problems(|test| test == "a.rs::g").join("\n");
        assert!(problems.contains("amqp.x deviates without saying what and why"));
        assert!(problems.contains("amqp.x has two rows"));
    }

    #[test]
    fn marks_are_found_in_comments_of_every_language() {
        let text =
            "# spec: amqp.x\n// spec: amqp.y\nspec: stomp-1.2.ack\n  # spec: z\nno spec: w\n";
        assert_eq!(matrix().unknown_marks(text), ["amqp.y", "z"]);
    }

    #[test]
    fn a_function_counts_only_with_a_test_attribute() {
        let source = "#[test]\n/// Why.\nfn a() {}\nfn b() {}\n#[tokio::test]\nasync fn c() {}\n";
        let found = ["a", "b", "c", "d"].map(|name| defines_test(source, name));
        assert_eq!(found, [true, false, true, false]);
    }

    #[test]
    fn promotion_touches_only_planned_rows_with_a_test() {
        let promoted = promoted(ROWS, |_| true);
        assert_eq!(promoted, ROWS.replace("\"planned\"", "\"conforms\""));
        assert_eq!(super::promoted(ROWS, |test| test == "a.rs::g"), ROWS);
    }

    #[test]
    fn cells_are_escaped_and_groups_counted() {
        let text = matrix().render();
        assert!(text.contains("| A \\| B. |"), "{text}");
        assert!(text.contains("| [stomp](#stomp) | 0 | 0 | 1 |"), "{text}");
    }
}
