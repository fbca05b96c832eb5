//! The names of queues, which the store knows by number.
//!
//! They stand in the broker's definitions, which the store keeps with the messages. What [`queue_of`] does not
//! understand the broker does not either.

use std::collections::BTreeMap;

use broker_core::definitions::queue_of;
use broker_core::name::{QueueName, VhostName};
use broker_core::storage::Inspection;

use crate::store::called;

/// Virtual host and name of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) vhost: VhostName,
    pub(super) queue: QueueName,
}

/// The names of all queues that have a definition, by number.
#[derive(Debug, Default)]
pub(super) struct QueueNames(BTreeMap<u64, Named>);

impl QueueNames {
    /// Reads the names from the definitions of a store.
    pub(super) fn of(inspection: &Inspection) -> Self {
        let definitions = inspection.recovered.definitions.iter();
        let named = definitions.filter_map(|(key, value)| name_of(key, value));
        Self(named.collect())
    }

    pub(super) fn get(&self, id: u64) -> Option<&Named> {
        self.0.get(&id)
    }

    /// All numbers with a name, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.0.keys().copied()
    }

    /// The queue in words, if it has a name.
    pub(super) fn called(&self, id: u64) -> Option<String> {
        self.get(id).map(|Named { vhost, queue }| called(queue, vhost))
    }

    /// The queue in words: its name, or `#<number>`.
    pub(super) fn in_words(&self, id: u64) -> String {
        self.called(id).unwrap_or_else(|| format!("queue #{id}"))
    }
}

fn name_of(key: &[u8], value: &[u8]) -> Option<(u64, Named)> {
    let (id, vhost, queue) = queue_of(key, value)?;
    Some((id.0, Named { vhost, queue }))
}
