//! The durable store behind the broker: how it is opened, what it had to say, and how it is.
//!
//! It lives in `store` inside the data directory. Opening replays what was not in a checkpoint; damage is set aside,
//! named in the log, in `/metrics` and in `warren ctl status`, and the broker starts all the same.

mod damage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use broker_core::Broker;
use broker_core::broker::Restored;
use broker_core::log::StoreLog;
use broker_core::log::budget::Budget;
use broker_core::storage::{self, Health, Options, StdFs, StorageError};
use tracing::{error, info, warn};

pub(crate) use damage::{KnownDamage, called, note_names, printable};

use crate::node::Clock;
use crate::opening::{Opening, Phase};
use crate::settings::{Durability, OpenFiles, Settings, machine};

/// The directory of the store, inside the data directory.
pub(crate) const STORE_DIR: &str = "store";

/// What opening the store has found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) broker: Broker,
    pub(crate) log: Arc<StoreLog>,
    /// What was found damaged on the way.
    pub(crate) damage: KnownDamage,
    /// The first user and virtual host have to be made.
    pub(crate) wants_bootstrap: bool,
}

/// Where the store of these settings lies.
pub(crate) fn directory(settings: &Settings) -> PathBuf {
    settings.data_dir.join(STORE_DIR)
}

/// How the settings want the store.
pub(crate) fn options(settings: &Settings) -> Options {
    let defaults = Options::default();
    let file_len = settings.store.log_file_size.octets() / 4096 * 4096;
    Options {
        durability: match settings.durability {
            Durability::Fsync => storage::Durability::Fsync,
            Durability::Os => storage::Durability::Os,
        },
        strict: settings.store.strict,
        accept_data_loss: settings.store.accept_data_loss,
        wal_file_len: file_len,
        frame_len_max: defaults.frame_len_max.min(file_len / 8),
        pending_len_max: defaults.pending_len_max.min(file_len / 2),
        compaction_len: defaults.compaction_len.min(file_len.saturating_mul(4)),
        // With small files it has room for a log file and the checkpoints that give others back, where a start finds
        // nothing else; with large ones only for the checkpoints.
        ballast_len: defaults.ballast_len.min(file_len.saturating_mul(2)),
        cache_len: settings.store.read_cache.as_usize(),
        scrub_rate: settings.store.scrub_rate.octets(),
        scrub_interval: settings.store.scrub_interval.duration(),
        open_segments: OpenFiles::new(machine::open_files_limit()).segments(),
        ..defaults
    }
}

/// Whether another broker runs on the store of these settings. Changes nothing.
pub(crate) fn taken(settings: &Settings) -> Option<StorageError> {
    storage::must_be_free(&StdFs, &directory(settings)).err()
}

/// What an operator can do about a store that does not open, to be added to the error; empty where the error says it.
pub(crate) const fn advice(error: &StorageError) -> &'static str {
    match error {
        StorageError::LogMissing { .. } => {
            ". `warren server --accept-data-loss` (store.accept_data_loss) does so for one start, and keeps the \
             messages that segments still hold"
        }
        StorageError::Damaged { .. } => {
            ". `warren store verify` names all that is damaged; without --strict (store.strict) the broker sets it \
             aside and starts"
        }
        _ => "",
    }
}

/// Opens the store and brings the broker back as it was, telling `opening` how far it is. Waits for the disk.
///
/// # Errors
/// [`StorageError`]: another broker runs there, the format is newer, the log is gone, or, with `store.strict`,
/// something is damaged.
pub(crate) fn open(
    settings: &Settings,
    clock: Clock,
    opening: &Opening,
) -> Result<Opened, StorageError> {
    let root = directory(settings);
    let options = Options { progress: Some(opening.observer()), ..options(settings) };
    let (store, recovered) = storage::Store::open(Arc::new(StdFs), &root, options)?;
    opening.enter(Phase::Restore);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let started_at = u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(clock.now());
    let budget = Arc::new(Budget::new(settings.store.message_memory.octets()));
    let log = StoreLog::new(store, budget, started_at, Arc::new(move || clock.now()));
    let log = Arc::new(log.map_err(|source| StorageError::Io {
        operation: "start a thread for",
        path: root.clone(),
        source,
    })?);
    let loopback_only = settings.auth.loopback_only_users.clone();
    let broker = Broker::new(Arc::clone(&log) as Arc<_>, loopback_only);
    let restored = broker.restore(&recovered, &settings.auth.default_vhost, clock.now());
    // Only now do the queues have names.
    let damage = KnownDamage::at_start(&root, &recovered.damage, &broker);
    for damage in damage.all(&log, &broker).iter().take(damage.count_at_start()) {
        error!(%damage, "damage in the store was set aside");
    }
    report(&restored);
    info!(
        directory = %root.display(),
        queues = restored.queues,
        messages = restored.messages,
        replayed = recovered.replayed_octets,
        took = ?recovered.took,
        durability = settings.durability.word(),
        "the store is open"
    );
    opening.enter(Phase::Open);
    // Damage may have taken the note that they were made: nobody gets a well-known password for that.
    let wants_bootstrap = !restored.initialised && recovered.damage.is_empty();
    Ok(Opened { broker, log, damage, wants_bootstrap })
}

fn report(restored: &Restored) {
    for definition in &restored.unreadable {
        error!(%definition, "a definition in the store cannot be understood and is passed over");
    }
    for queue in &restored.nameless {
        warn!(%queue, "a queue has lost its definition; its messages are in a queue of this name");
    }
}

/// Why publishers have to be held on the store's account.
pub(crate) fn trouble(log: &StoreLog) -> Option<Trouble> {
    match log.store().health() {
        Health::Healthy => None,
        Health::DiskFull => Some(Trouble::DiskFull),
        Health::Poisoned { reason } => Some(Trouble::Poisoned(reason)),
    }
}

/// What is wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No space for more messages. Ends by itself.
    DiskFull,
    /// The log cannot be written any more, for this reason. Only a restart ends it.
    Poisoned(Arc<str>),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{Size, TimeSpan};

    #[test]
    fn the_store_reads_again_as_the_settings_say() {
        let usual = Options::default();
        let mut settings = Settings::default();
        let opened = options(&settings);
        assert_eq!(opened.scrub_rate, usual.scrub_rate, "the defaults are those of the store");
        assert_eq!(opened.scrub_interval, usual.scrub_interval);
        settings.store.scrub_rate = Size::new(0);
        settings.store.scrub_interval = TimeSpan::seconds(3600);
        let opened = options(&settings);
        assert_eq!((opened.scrub_rate, opened.scrub_interval), (0, Duration::from_secs(3600)));
    }
}
