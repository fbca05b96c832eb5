//! The broker: its virtual hosts and its users, and how they come back after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

use crate::access::{PermissionSpec, Registry, UserError};
use crate::arguments::Arguments;
use crate::consumer::ConnectionId;
use crate::dead_letter::DeadLetters;
use crate::definitions::{Changes, Definition, DurableQueue};
use crate::log::{Log, LogPosition};
use crate::name::{QueueName, UserName, VhostName};
use crate::queue::{Found, QueueId};
use crate::storage::{Health, Recovered, RecoveredQueue, StorageError};
use crate::vhost::{QueueIds, VirtualHost};

/// Everything that connections share.
#[derive(Debug)]
pub struct Broker {
    /// Users and permissions.
    pub access: Registry,
    /// What makes messages durable.
    pub log: Arc<dyn Log>,
    /// Messages sent on to dead-letter exchanges.
    pub dead_letters: Arc<DeadLetters>,
    vhosts: RwLock<HashMap<VhostName, Arc<VirtualHost>>>,
    queue_ids: Arc<QueueIds>,
    connection_ids: AtomicU64,
    /// Where the log ended when everything in it had been found.
    found_up_to: AtomicU64,
}

/// Why a virtual host is not added or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VhostError {
    /// There is one of that name.
    #[error("virtual host '{0}' already exists")]
    Exists(VhostName),
    /// There is none.
    #[error("virtual host '{0}' does not exist")]
    NoVhost(VhostName),
    /// The log takes no definitions.
    #[error("cannot be kept: {0}")]
    NotKept(String),
}

impl From<StorageError> for VhostError {
    fn from(error: StorageError) -> Self {
        Self::NotKept(error.to_string())
    }
}

/// What a restart has brought back.
#[derive(Debug, Default)]
pub struct Restored {
    /// Durable queues.
    pub queues: u64,
    /// Messages in them.
    pub messages: u64,
    /// Definitions that could not be understood, and why.
    pub unreadable: Vec<String>,
    /// Queues whose definition is lost: they are there under a made-up name, with their messages.
    pub nameless: Vec<QueueName>,
    /// The first user and virtual host were made before.
    pub initialised: bool,
}

impl Broker {
    /// A broker without virtual hosts and users.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, loopback_only_users: Vec<String>) -> Self {
        Self {
            access: Registry::new(loopback_only_users, Arc::clone(&log)),
            log,
            dead_letters: Arc::default(),
            vhosts: RwLock::default(),
            queue_ids: Arc::default(),
            connection_ids: AtomicU64::new(1),
            found_up_to: AtomicU64::new(0),
        }
    }

    /// What an empty broker begins with: a virtual host and an administrator who may do everything in it. What of it
    /// is there already stays.
    ///
    /// # Errors
    /// When either cannot be.
    pub fn bootstrap(
        &self,
        vhost: &str,
        user: &str,
        password: &[u8],
    ) -> Result<(), BootstrapError> {
        let vhost = match self.vhost(vhost) {
            Some(there) => there,
            None => self.add_vhost(vhost)?,
        };
        let user = UserName::new(user).map_err(|_| BootstrapError::Name)?;
        if self.access.user(user.as_str()).is_none() {
            self.access.add_user(user.clone(), password, vec!["administrator".to_owned()])?;
        }
        self.access.set_permission(&user, &vhost.name, PermissionSpec::all())?;
        let mut changes = Changes::default();
        changes.initialised();
        changes.append(&*self.log).map_err(VhostError::from)?;
        Ok(())
    }

    /// Brings back what the log has kept, into an empty broker. `default_vhost` takes the queues that have lost their
    /// definition.
    pub fn restore(&self, recovered: &Recovered, default_vhost: &str, now: u64) -> Restored {
        let mut restored = Restored::default();
        let mut definitions = Vec::with_capacity(recovered.definitions.len());
        for (key, value) in &recovered.definitions {
            match Definition::read(key, value) {
                Ok(definition) => definitions.push(definition),
                Err(error) => {
                    restored.unreadable.push(format!("{}: {error}", String::from_utf8_lossy(key)));
                }
            }
        }
        // A thing comes after what it stands in: virtual hosts, exchanges and queues, bindings.
        definitions.sort_by_key(Definition::rank);
        let mut found: HashMap<u64, &RecoveredQueue> =
            recovered.queues.iter().map(|queue| (queue.queue, queue)).collect();
        let highest = recovered.queues.iter().map(|queue| queue.queue + 1).max();
        self.queue_ids.begin_at(highest.unwrap_or(0));
        for definition in definitions {
            self.restore_one(definition, &mut found, now, &mut restored);
        }
        let mut nameless: Vec<_> =
            found.into_values().filter(|queue| !queue.live.is_empty()).collect();
        nameless.sort_by_key(|queue| queue.queue);
        for queue in nameless {
            self.restore_nameless(queue, default_vhost, now, &mut restored);
        }
        // Relaxed: nobody is served yet.
        self.found_up_to.store(self.log.appended_up_to().0, Ordering::Relaxed);
        restored
    }

    /// Where the log has to come before a reply that speaks for `position` may be sent. On a full disk the end of the
    /// log that a restart has found may not be written again, for as long as the disk is full; whoever asks for what was
    /// found is not kept waiting for that: it is there, as it was before.
    #[must_use]
    pub fn reply_position(&self, position: LogPosition) -> LogPosition {
        // Relaxed: set before anybody asks.
        let was_found = position.0 <= self.found_up_to.load(Ordering::Relaxed);
        match self.log.health() {
            Health::DiskFull if was_found => LogPosition::START,
            _ => position,
        }
    }

    fn restore_one(
        &self,
        definition: Definition,
        found: &mut HashMap<u64, &RecoveredQueue>,
        now: u64,
        restored: &mut Restored,
    ) {
        match definition {
            Definition::Initialised => restored.initialised = true,
            Definition::QueueIds(below) => self.queue_ids.begin_at(below),
            Definition::Vhost(name) => {
                self.insert_vhost(name);
            }
            Definition::User(user) => self.access.restore_user(user),
            Definition::Permission(user, vhost, spec) => {
                if let Err(error) = self.access.restore_permission(user, vhost, spec) {
                    restored.unreadable.push(error.to_string());
                }
            }
            Definition::Exchange(vhost, spec) => {
                let vhost = self.vhost_of_definition(vhost, restored);
                vhost.restore_exchange(spec);
            }
            Definition::Queue(vhost, declared) => {
                self.queue_ids.begin_at(declared.id.0 + 1);
                let vhost = self.vhost_of_definition(vhost, restored);
                let found = found.remove(&declared.id.0).map(found_of).unwrap_or_default();
                restored.queues += 1;
                restored.messages += found.len;
                restored.unreadable.extend(vhost.restore_queue(declared, found, now).err());
            }
            Definition::Binding(vhost, binding) => {
                let vhost = self.vhost_of_definition(vhost, restored);
                restored.unreadable.extend(vhost.restore_binding(binding).err());
            }
        }
    }

    /// The virtual host that a definition stands in. Its own definition may have been lost: what stands in it has not.
    fn vhost_of_definition(&self, name: VhostName, restored: &mut Restored) -> Arc<VirtualHost> {
        self.vhost(name.as_str()).unwrap_or_else(|| {
            restored.unreadable.push(format!("vhost '{name}' has lost its definition"));
            self.insert_vhost(name)
        })
    }

    /// A queue that has messages and no definition: damage has taken its name.
    fn restore_nameless(
        &self,
        queue: &RecoveredQueue,
        vhost: &str,
        now: u64,
        restored: &mut Restored,
    ) {
        let id = QueueId(queue.queue);
        let (Ok(name), Ok(vhost)) =
            (QueueName::new(&format!("warren.recovered-{}", id.0)), VhostName::new(vhost))
        else {
            return;
        };
        let vhost = self.vhost(vhost.as_str()).unwrap_or_else(|| self.insert_vhost(vhost));
        let found = found_of(queue);
        restored.queues += 1;
        restored.messages += found.len;
        let (arguments, auto_delete) = (Arguments::new(), false);
        let declared = DurableQueue { id, name: name.clone(), auto_delete, arguments };
        restored.unreadable.extend(vhost.restore_queue(declared, found, now).err());
        if let Ok(there) = vhost.queue(&name) {
            let mut changes = Changes::default();
            changes.put_vhost(&vhost.name);
            changes.put_queue(&vhost.name, id, &there.spec);
            // If it is not kept the name is made up again at the next start.
            changes.append(&*self.log).ok();
        }
        restored.nameless.push(name);
    }

    /// Before a clean stop, when no connection is left: the log is told what exactly was delivered.
    pub fn note_stop(&self) {
        for vhost in self.vhosts() {
            vhost.note_stop();
        }
    }

    /// A number for a new connection.
    #[must_use]
    pub fn next_connection_id(&self) -> ConnectionId {
        // Relaxed: only uniqueness matters.
        ConnectionId(self.connection_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a virtual host with its predeclared exchanges.
    ///
    /// # Errors
    /// [`VhostError::Exists`].
    pub fn add_vhost(&self, name: &str) -> Result<Arc<VirtualHost>, BootstrapError> {
        let name = VhostName::new(name).map_err(|_| BootstrapError::Name)?;
        let mut vhosts = self.vhosts.write();
        if vhosts.contains_key(&name) {
            return Err(VhostError::Exists(name).into());
        }
        let mut changes = Changes::default();
        changes.put_vhost(&name);
        changes.append(&*self.log).map_err(VhostError::from)?;
        let vhost = self.new_vhost(name.clone());
        vhosts.insert(name, Arc::clone(&vhost));
        Ok(vhost)
    }

    fn new_vhost(&self, name: VhostName) -> Arc<VirtualHost> {
        let (log, ids) = (Arc::clone(&self.log), Arc::clone(&self.queue_ids));
        VirtualHost::new(name, log, ids, Arc::clone(&self.dead_letters))
    }

    fn insert_vhost(&self, name: VhostName) -> Arc<VirtualHost> {
        let vhost = self.new_vhost(name.clone());
        self.vhosts.write().insert(name, Arc::clone(&vhost));
        vhost
    }

    /// Deletes a virtual host with everything in it. Its consumers are told; its connections find out with
    /// their next method.
    ///
    /// # Errors
    /// [`VhostError::NoVhost`], [`VhostError::NotKept`].
    pub fn delete_vhost(&self, name: &VhostName) -> Result<(), VhostError> {
        if self.vhost(name.as_str()).is_none() {
            return Err(VhostError::NoVhost(name.clone()));
        }
        // First: permissions that outlived their virtual host would hold for the next of that name.
        self.access.forget_vhost(name)?;
        // Until the log knows, nobody makes a new one of the same name: it would be deleted by this.
        let mut vhosts = self.vhosts.write();
        let removed = vhosts.remove(name).ok_or_else(|| VhostError::NoVhost(name.clone()))?;
        removed.delete_everything();
        Ok(())
    }

    /// The virtual host of that name.
    #[must_use]
    pub fn vhost(&self, name: &str) -> Option<Arc<VirtualHost>> {
        self.vhosts.read().get(name).cloned()
    }

    /// All virtual hosts, by name.
    #[must_use]
    pub fn vhosts(&self) -> Vec<Arc<VirtualHost>> {
        let mut vhosts: Vec<_> = self.vhosts.read().values().cloned().collect();
        vhosts.sort_by(|a, b| a.name.cmp(&b.name));
        vhosts
    }
}

/// Why a broker cannot begin, or a virtual host not be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The name is too long.
    #[error("a name has at most 255 octets")]
    Name,
    /// About a virtual host.
    #[error(transparent)]
    Vhost(#[from] VhostError),
    /// About a user.
    #[error(transparent)]
    User(#[from] UserError),
}

fn found_of(queue: &RecoveredQueue) -> Found {
    Found {
        from: queue.live.first().unwrap_or(queue.next_seq),
        until: queue.live.last().map_or(0, |last| last.saturating_add(1)),
        next_seq: queue.next_seq,
        len: queue.live.len(),
        bytes: queue.octets,
        delivered_below: queue.delivered_below,
        returns: queue.returns.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::exchange::{Binding, Destination, ExchangeSpec, ExchangeType};
    use crate::log::test_log::TestLog;
    use crate::name::ExchangeName;
    use crate::storage::sim_fs::SimFs;
    use crate::storage::{CommitStep, Engine, Options};
    use crate::vhost::QueueDeclaration;

    /// A broker over what a disk holds, with a log that moves when it is told.
    fn start(fs: SimFs) -> (Broker, Arc<TestLog>) {
        let (store, recovered) =
            Engine::open(Arc::new(fs), Path::new("/data"), Options::default()).unwrap();
        let log = Arc::new(TestLog::over(store));
        let broker = Broker::new(Arc::clone(&log) as Arc<_>, Vec::new());
        broker.restore(&recovered, "/", 0);
        (broker, log)
    }

    /// Declares an exchange and a queue that is bound to it; gives the positions of all three.
    fn declare(vhost: &VirtualHost) -> [LogPosition; 3] {
        let (queue, exchange) = (QueueName::new("q").unwrap(), ExchangeName::new("e").unwrap());
        let declaration = QueueDeclaration {
            name: queue.clone(),
            server_named: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments::new(),
        };
        let spec = ExchangeSpec {
            name: exchange.clone(),
            kind: ExchangeType::Fanout,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: Arguments::new(),
        };
        let destination = Destination::Queue(queue);
        let arguments = Arguments::new();
        let routing_key = b""[..].into();
        let binding = Binding { source: exchange, destination, routing_key, arguments };
        let us = ConnectionId(1);
        let queue = vhost.declare_queue(declaration, us, 0).unwrap().queue;
        let exchange = vhost.declare_exchange(spec).unwrap();
        [queue.defined_at, exchange, vhost.bind(binding, us).unwrap()]
    }

    /// Who declared again what a restart had found was kept waiting for an end of the log that a full disk did not take,
    /// and then refused.
    #[test]
    fn what_a_restart_has_found_is_declared_again_at_once_on_a_full_disk() {
        let fs = SimFs::new();
        let (broker, log) = start(fs.clone());
        let vhost = broker.add_vhost("/").unwrap();
        let made = declare(&vhost);
        assert!(made.iter().all(|position| broker.reply_position(*position) == *position));
        while log.store.as_ref().unwrap().commit_step().unwrap() == CommitStep::Written {}

        let (broker, log) = start(fs.kill());
        let vhost = broker.vhost("/").unwrap();
        let found = declare(&vhost);
        let end = log.appended_up_to();
        assert_eq!(
            found, [end; 3],
            "nothing is appended, and the end may have to be written again"
        );
        assert!(found.iter().all(|position| broker.reply_position(*position) == *position));
        log.full.store(true, Ordering::Relaxed);
        assert_eq!(declare(&vhost), found);
        assert!(found.iter().all(|at| broker.reply_position(*at) == LogPosition::START));
        // What was appended since waits all the same.
        let new = LogPosition(end.0 + 1);
        assert_eq!(broker.reply_position(new), new);
    }
}
