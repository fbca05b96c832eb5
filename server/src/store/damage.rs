//! Damage in the store, in words, with the names of the queues that it hit.
//!
//! The one idea: the store knows queues by number and the broker by name, so that a damage is put into words once,
//! when the broker first hears of it, and keeps them: a queue may be deleted later.

use std::collections::HashMap;

use broker_core::log::StoreLog;
use broker_core::name::{QueueName, VhostName};
use broker_core::storage::Damage;
use broker_core::{Broker, VirtualHost};
use parking_lot::Mutex;

/// All damage found since the broker started, opening included, in the order in which it was found.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage {
    /// How many of `words` were found when the store was opened.
    at_start: usize,
    words: Mutex<Vec<String>>,
}

impl KnownDamage {
    /// What was found when the store was opened.
    pub(crate) fn at_start(damage: &[Damage], broker: &Broker) -> Self {
        Self { at_start: damage.len(), words: Mutex::new(in_words(damage, broker)) }
    }

    /// All of it, what `log` has found up to now included.
    pub(crate) fn all(&self, log: &StoreLog, broker: &Broker) -> Vec<String> {
        let mut words = self.words.lock();
        let damage = log.store().damage();
        let told = words.len() - self.at_start;
        words.extend(in_words(damage.get(told..).unwrap_or_default(), broker));
        words.clone()
    }

    /// How much of it was found when the store was opened.
    pub(crate) const fn count_at_start(&self) -> usize {
        self.at_start
    }
}

fn in_words(damage: &[Damage], broker: &Broker) -> Vec<String> {
    // There may be many queues, and they are asked only if it has cost one of them something.
    let names = if damage.iter().any(|damage| !damage.lost.is_empty()) {
        names(broker)
    } else {
        HashMap::new()
    };
    let name = |id| names.get(&id).cloned().unwrap_or_else(|| format!("queue #{id}"));
    damage.iter().map(|damage| printable(&damage.in_words(name))).collect()
}

/// What the queues are called, by number.
fn names(broker: &Broker) -> HashMap<u64, String> {
    let vhosts = broker.vhosts();
    let of = |vhost: &VirtualHost| {
        let queues = vhost.queues().into_iter();
        let named = queues.map(|queue| (queue.id.0, called(&queue.spec.name, &vhost.name)));
        named.collect::<Vec<_>>()
    };
    vhosts.iter().flat_map(|vhost| of(vhost)).collect()
}

/// A queue in words.
pub(crate) fn called(queue: &QueueName, vhost: &VhostName) -> String {
    format!("queue {} in {}", printable(queue.as_str()), printable(vhost.as_str()))
}

/// Escapes what a terminal would obey, and what would end a line or a cell.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            letter if letter.is_control() => shown.extend(letter.escape_default()),
            letter => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker_core::log::MemoryLog;
    use broker_core::storage::{LostMessages, Recovered, SeqRange};

    use super::*;

    #[test]
    fn queues_are_told_by_name_and_keep_it_when_they_are_gone() {
        let broker = Broker::new(Arc::new(MemoryLog::default()), Vec::new());
        let octets = |text: &str| text.as_bytes().into();
        let named = [
            (r#"{"vhost":"/"}"#, "{}"),
            (r#"{"queue":["/","a\tb"]}"#, r#"{"id":7,"auto_delete":false,"arguments":[]}"#),
        ];
        let definitions = named.map(|(key, value)| (octets(key), octets(value))).into();
        let recovered = Recovered { definitions, ..Recovered::default() };
        assert_eq!(broker.restore(&recovered, "/", 0).queues, 1);
        let lost = |queue, first, last, certain| {
            let (range, count) = (SeqRange { first, last }, 1);
            LostMessages { queue, range, count, certain }
        };
        let damage = Damage {
            file: "wal/0.wal".into(),
            detail: "rotten".into(),
            lost: vec![lost(7, 3, 3, true), lost(8, 1, 9, false)],
            quarantined: Some("quarantine/0.wal@64".into()),
        };
        let known = KnownDamage::at_start(&[damage], &broker);
        let name = VhostName::new("/").expect("a name");
        broker.delete_vhost(&name).expect("deleted");
        assert_eq!(
            *known.words.lock(),
            [
                "wal/0.wal: rotten; lost: queue a\\tb in /, message 3; possibly lost: queue #8, messages 1 to 9 \
              (1 of them); kept in quarantine/0.wal@64"
            ]
        );
    }
}
