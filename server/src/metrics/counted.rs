//! The counters that the recorder keeps, read back.
//!
//! The recorder's only way out is its text. It is taken apart here and written again under the catalogue's order
//! and texts, so that one page has one renderer, and sums over labels can be made of it.

use std::collections::BTreeMap;

/// Names of counters, their labels as they stand between the braces, their values.
#[derive(Debug, Default)]
pub(super) struct Counted(BTreeMap<String, BTreeMap<String, u64>>);

impl Counted {
    /// Reads what a recorder has rendered. Lines that are not those of counters are passed over.
    pub(super) fn read(rendered: &str) -> Self {
        let mut counted = Self::default();
        for line in rendered.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap_or(labels);
            counted.0.entry(name.to_owned()).or_default().insert(labels.to_owned(), value);
        }
        counted
    }

    /// Labels and values of a counter.
    pub(super) fn series(&self, name: &str) -> impl Iterator<Item = (&str, u64)> {
        let series = self.0.get(name).into_iter().flatten();
        series.map(|(labels, value)| (labels.as_str(), *value))
    }

    /// The sum over all labels.
    pub(super) fn sum(&self, name: &str) -> u64 {
        self.series(name).map(|(_, value)| value).sum()
    }

    /// The value with these labels; 0 if it was never counted.
    pub(super) fn value(&self, name: &str, labels: &str) -> u64 {
        self.0.get(name).and_then(|series| series.get(labels)).copied().unwrap_or_default()
    }

    /// All names.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
