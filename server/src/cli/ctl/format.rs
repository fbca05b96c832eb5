//! Formats: how rows and values are written for people and for programs.
//!
//! The forms are rabbitmqctl's, with two differences. In tables a control character in a name is escaped
//! (`\t`, `\u{1b}`), so that a name can neither add a column nor write to the terminal; and `json_stream` has no
//! empty lines.

use serde_json::{Map, Value};

use super::commands::Format;
use crate::control::client::Rows;

/// Appends a list to `out`.
pub(super) fn rows(list: &Rows, format: Format, header: bool, out: &mut String) {
    match format {
        Format::Table => table(list, header, out),
        Format::PrettyTable => pretty_table(list, header, out),
        Format::Csv => csv(list, header, out),
        Format::Json => {
            let objects: Vec<_> = objects(list).collect();
            out.push_str(&format!("[\n{}]\n", objects.join(",")));
        }
        Format::JsonStream => out.extend(objects(list)),
    }
}

/// Each row as a JSON object and a line feed.
fn objects(list: &Rows) -> impl Iterator<Item = String> {
    list.rows.iter().map(|row| {
        let entries = list.columns.iter().cloned().zip(row.iter().cloned());
        format!("{}\n", Value::Object(Map::from_iter(entries)))
    })
}

fn table(list: &Rows, header: bool, out: &mut String) {
    let mut line = |cells: Vec<String>| {
        out.push_str(&cells.join("\t"));
        out.push('\n');
    };
    if header {
        line(list.columns.clone());
    }
    for row in &list.rows {
        line(row.iter().map(|value| printable(&cell(value))).collect());
    }
}

fn csv(list: &Rows, header: bool, out: &mut String) {
    let mut line = |cells: Vec<String>| {
        let quoted: Vec<_> =
            cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\""))).collect();
        out.push_str(&quoted.join(","));
        out.push('\n');
    };
    if header {
        line(list.columns.clone());
    }
    for row in &list.rows {
        line(row.iter().map(cell).collect());
    }
}

fn pretty_table(list: &Rows, header: bool, out: &mut String) {
    let mut lines: Vec<Vec<String>> = Vec::with_capacity(list.rows.len() + 1);
    if header {
        lines.push(list.columns.clone());
    }
    lines.extend(
        list.rows.iter().map(|row| row.iter().map(|value| printable(&cell(value))).collect()),
    );
    let mut widths = vec![0; list.columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let rule = |left: &str, middle: &str, right: &str| {
        let bars: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}\n", bars.join(middle))
    };
    out.push_str(&rule("┌", "┬", "┐"));
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push_str(&rule("├", "┼", "┤"));
        }
        let cells: Vec<_> =
            line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        out.push_str(&format!("│{}│\n", cells.join("│")));
    }
    out.push_str(&rule("└", "┴", "┘"));
}

/// A value as it stands in a table: text bare, a field table as `[{"name",value}]`, other lists as `[a, b]`.
fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(entries) => field_table(entries).unwrap_or_else(|| {
            let words: Vec<_> = entries.iter().map(cell).collect();
            format!("[{}]", words.join(", "))
        }),
        other => other.to_string(),
    }
}

/// `entries` if they are those of a field table: name, type and value each.
fn field_table(entries: &[Value]) -> Option<String> {
    let entry = |entry: &Value| match entry.as_array().map(Vec::as_slice) {
        Some([Value::String(name), Value::String(kind), value]) => {
            Some(format!("{{\"{name}\",{}}}", typed(kind, value)))
        }
        _ => None,
    };
    let entries: Vec<_> = entries.iter().map(entry).collect::<Option<_>>()?;
    Some(format!("[{}]", entries.join(",")))
}

/// A value inside a field table: only strings are quoted.
fn typed(kind: &str, value: &Value) -> String {
    match (kind, value) {
        ("longstr" | "binary", Value::String(text)) => format!("\"{text}\""),
        ("array", Value::Array(values)) => {
            let one = |value: &Value| match value.as_array().map(Vec::as_slice) {
                Some([Value::String(kind), value]) => typed(kind, value),
                _ => cell(value),
            };
            format!("[{}]", values.iter().map(one).collect::<Vec<_>>().join(","))
        }
        _ => cell(value),
    }
}

/// Escapes what a terminal would obey.
fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// The settings as lines of TOML with whole keys; what is not set is a comment.
pub(super) fn settings(tree: &Value) -> String {
    fn lines(path: &str, value: &Value, out: &mut String) {
        match value {
            Value::Object(section) => {
                for (name, value) in section {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    lines(&path, value, out);
                }
            }
            Value::Null => out.push_str(&format!("# {path} is not set\n")),
            value => match toml::Value::try_from(value) {
                Ok(value) => out.push_str(&format!("{path} = {value}\n")),
                // A number beyond what TOML can say.
                Err(_) => out.push_str(&format!("# {path} is {value}\n")),
            },
        }
    }
    let mut out = String::new();
    lines("", tree, &mut out);
    out
}
