//! Damage in the store, in words, with the names of the queues that it hit.
//!
//! The one idea: the store knows queues by number and the broker by name, so that a damage is put into words once,
//! when the broker first hears of it, and keeps them: a queue may be deleted later. The note that the store has left
//! beside the damaged octets gets the names too, for whoever reads it when the log is long gone.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use broker_core::log::StoreLog;
use broker_core::name::{QueueName, VhostName};
use broker_core::storage::Damage;
use broker_core::{Broker, VirtualHost};
use parking_lot::Mutex;
use tracing::warn;

/// All damage found since the broker started, opening included, in the order in which it was found.
#[derive(Debug, Default)]
pub(crate) struct KnownDamage {
    /// The directory of the store.
    store: PathBuf,
    /// How many of `words` were found when the store was opened.
    at_start: usize,
    words: Mutex<Vec<String>>,
}

impl KnownDamage {
    /// What was found when the store in this directory was opened.
    pub(crate) fn at_start(store: &Path, damage: &[Damage], broker: &Broker) -> Self {
        let names = Names::of(broker, damage);
        let words = Mutex::new(names.in_words(damage));
        names.note(store, damage);
        Self { store: store.into(), at_start: damage.len(), words }
    }

    /// All of it, what `log` has found up to now included.
    pub(crate) fn all(&self, log: &StoreLog, broker: &Broker) -> Vec<String> {
        let mut words = self.words.lock();
        let damage = log.store().damage();
        let told = words.len() - self.at_start;
        let fresh = damage.get(told..).unwrap_or_default();
        if fresh.is_empty() {
            return words.clone();
        }
        let names = Names::of(broker, fresh);
        words.extend(names.in_words(fresh));
        let all = words.clone();
        // Who has told it notes it, and holds up nobody with it.
        drop(words);
        names.note(&self.store, fresh);
        all
    }

    /// How much of it was found when the store was opened.
    pub(crate) const fn count_at_start(&self) -> usize {
        self.at_start
    }
}

/// What the queues are called, by number.
struct Names(HashMap<u64, String>);

impl Names {
    /// There may be many queues, and they are asked only if `damage` has cost one of them something.
    fn of(broker: &Broker, damage: &[Damage]) -> Self {
        if damage.iter().all(|damage| damage.lost.is_empty()) {
            return Self(HashMap::new());
        }
        let vhosts = broker.vhosts();
        let of = |vhost: &VirtualHost| {
            let queues = vhost.queues().into_iter();
            let named = queues.map(|queue| (queue.id.0, called(&queue.spec.name, &vhost.name)));
            named.collect::<Vec<_>>()
        };
        Self(vhosts.iter().flat_map(|vhost| of(vhost)).collect())
    }

    fn in_words(&self, damage: &[Damage]) -> Vec<String> {
        let name = |id| self.0.get(&id).cloned().unwrap_or_else(|| format!("queue #{id}"));
        damage.iter().map(|damage| printable(&damage.in_words(name))).collect()
    }

    fn note(&self, store: &Path, damage: &[Damage]) {
        for damage in damage {
            if let Err(error) = note_names(store, damage, |id| self.0.get(&id).cloned()) {
                let file = damage.file.display();
                warn!(%file, %error, "the note in quarantine names its queues by number only");
            }
        }
    }
}

/// Adds to the note beside what was kept of a damage what its queues are `called`, a line for each that has a name.
///
/// # Errors
/// Those of the file system. The note then says what it said before, or begins to say more.
pub(crate) fn note_names(
    store: &Path,
    damage: &Damage,
    called: impl Fn(u64) -> Option<String>,
) -> io::Result<()> {
    let Some(kept) = &damage.quarantined else { return Ok(()) };
    let names: BTreeMap<u64, String> =
        damage.lost.iter().filter_map(|lost| Some((lost.queue, called(lost.queue)?))).collect();
    if names.is_empty() {
        return Ok(());
    }
    let lines: String = names.iter().map(|(id, name)| format!("queue #{id} is {name}\n")).collect();
    let mut note = store.join(kept).into_os_string();
    note.push(".txt");
    // The store has written it. If it could not, there is nothing to be explained.
    match std::fs::OpenOptions::new().append(true).open(note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        note => note?.write_all(lines.as_bytes()),
    }
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
        let damage = |lost, kept: &str| Damage {
            file: "wal/0.wal".into(),
            detail: "rotten".into(),
            lost,
            quarantined: Some(kept.into()),
        };
        let damage = [
            damage(
                vec![lost(7, 3, 3, true), lost(8, 1, 9, false), lost(7, 5, 5, true)],
                "quarantine/0.wal@64",
            ),
            damage(Vec::new(), "quarantine/0.wal@96"),
            damage(vec![lost(7, 6, 6, true)], "quarantine/without-a-note"),
        ];
        let store = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(store.path().join("quarantine")).expect("a directory");
        let note = |number| store.path().join(format!("quarantine/0.wal@{number}.txt"));
        for number in [64, 96] {
            std::fs::write(note(number), "what the store has written\n").expect("a note");
        }
        let known = KnownDamage::at_start(store.path(), &damage, &broker);
        let name = VhostName::new("/").expect("a name");
        broker.delete_vhost(&name).expect("deleted");
        assert_eq!(
            *known.words.lock(),
            [
                "wal/0.wal: rotten; lost: queue a\\tb in /, message 3; possibly lost: queue #8, messages 1 to 9 \
                 (1 of them); lost: queue a\\tb in /, message 5; kept in quarantine/0.wal@64",
                "wal/0.wal: rotten; kept in quarantine/0.wal@96",
                "wal/0.wal: rotten; lost: queue a\\tb in /, message 6; kept in quarantine/without-a-note",
            ]
        );
        // Once each, and only those that have a name.
        let said = |number| std::fs::read_to_string(note(number)).expect("a note");
        assert_eq!(said(64), "what the store has written\nqueue #7 is queue a\\tb in /\n");
        assert_eq!(said(96), "what the store has written\n");
        let notes = std::fs::read_dir(store.path().join("quarantine")).expect("a directory");
        assert_eq!(notes.count(), 2, "none was made");
    }
}
