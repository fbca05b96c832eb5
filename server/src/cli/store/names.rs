//! The names of queues, which the store knows by number.
//!
//! The broker keeps its definitions in the store as JSON: the key `{"queue":["<vhost>","<name>"]}` has
//! a value with the queue's number as `id`. What is not of that form is somebody else's, and passed over.

use std::collections::BTreeMap;

use broker_core::storage::Inspection;
use serde::Deserialize;

/// Virtual host and name of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueName {
    pub(super) vhost: String,
    pub(super) name: String,
}

/// The names of all queues that have a definition, by number.
#[derive(Debug, Default)]
pub(super) struct QueueNames(BTreeMap<u64, QueueName>);

#[derive(Deserialize)]
struct Key {
    queue: (String, String),
}

#[derive(Deserialize)]
struct Value {
    id: u64,
}

impl QueueNames {
    /// Reads the names from the definitions of a store.
    pub(super) fn of(inspection: &Inspection) -> Self {
        let definitions = inspection.recovered.definitions.iter();
        let named = definitions.filter_map(|(key, value)| name_of(key, value));
        Self(named.collect())
    }

    pub(super) fn get(&self, id: u64) -> Option<&QueueName> {
        self.0.get(&id)
    }

    /// All numbers with a name, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    /// The queue in words: its name, or `#<number>`.
    pub(super) fn in_words(&self, id: u64) -> String {
        match self.get(id) {
            Some(QueueName { vhost, name }) => {
                format!("queue {} in {}", printable(name), printable(vhost))
            }
            None => format!("queue #{id}"),
        }
    }
}

fn name_of(key: &[u8], value: &[u8]) -> Option<(u64, QueueName)> {
    let Key { queue: (vhost, name) } = serde_json::from_slice(key).ok()?;
    let Value { id } = serde_json::from_slice(value).ok()?;
    Some((id, QueueName { vhost, name }))
}

/// Escapes what a terminal would obey, and what would end a cell.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            letter if letter.is_control() => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}
