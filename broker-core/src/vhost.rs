//! A virtual host: the registry of its exchanges and queues, and the way of a message through them.
//!
//! One reader-writer lock guards the topology. Publishing does not take it as long as nothing changes: a
//! [`Route`] may be remembered until [`VirtualHost::revision`] moves. Permissions are checked by the caller, before.
//!
//! What is durable is appended to the log under that lock, so that the order there is the order here. Whoever declares,
//! binds or deletes is given the position where the log has to come before that survives a crash; what appends nothing
//! has the position of what it found, so that nobody is told of a definition that may still be lost.

mod bindings;
mod queue_ids;
mod restart;
mod topology;
mod upkeep;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::arguments::{Arguments, Value};
use crate::consumer::ConnectionId;
use crate::dead_letter::DeadLetters;
use crate::definitions::Changes;
use crate::error::{Refusal, Resource};
use crate::exchange::{Destination, Exchange, ExchangeSpec, ExchangeType, HeaderTable, Target};
use crate::log::{Log, LogPosition};
use crate::name::{ExchangeName, QueueName, VhostName};
use crate::queue::arguments::{InvalidArgument, QueueArguments, QueueType};
use crate::queue::{KeepReason, Queue, QueueSpec, Removed};
pub(crate) use queue_ids::QueueIds;
use topology::Topology;

/// Names that begin so belong to the broker.
const RESERVED_PREFIX: &str = "amq.";

/// The exchanges that every virtual host has (AMQP 0-9-1 §3.1.3).
const PREDECLARED: [(&str, ExchangeType); 7] = [
    ("", ExchangeType::Direct),
    ("amq.direct", ExchangeType::Direct),
    ("amq.fanout", ExchangeType::Fanout),
    ("amq.headers", ExchangeType::Headers),
    ("amq.match", ExchangeType::Headers),
    ("amq.rabbitmq.trace", ExchangeType::Topic),
    ("amq.topic", ExchangeType::Topic),
];

/// Where a message goes.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// The queues, each once.
    pub queues: SmallVec<[Arc<Queue>; 2]>,
    /// The message's headers had a say in it: it holds for this message only.
    pub by_headers: bool,
}

/// What [`VirtualHost::declare_queue`] gives.
#[derive(Debug, Clone)]
pub struct DeclaredQueue {
    /// The queue.
    pub queue: Arc<Queue>,
    /// This declaration has made it: it was not there before.
    pub new: bool,
}

/// What is asked of `queue.declare`.
#[derive(Debug, Clone)]
pub struct QueueDeclaration {
    /// The name; the caller has made one up where the client sent none.
    pub name: QueueName,
    /// The name was made up by the broker, which may use the reserved prefix.
    pub server_named: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Belongs to the declaring connection.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments as given.
    pub arguments: Arguments,
}

/// A virtual host.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: VhostName,
    me: Weak<Self>,
    log: Arc<dyn Log>,
    queue_ids: Arc<QueueIds>,
    /// Exchanges, queues, bindings. Written by declarations, read by routing.
    topology: RwLock<Topology>,
    /// Rises with every change of the topology.
    revision: AtomicU64,
    /// Queues in which something may expire.
    watched: Mutex<Vec<Arc<Queue>>>,
    queues_declared: AtomicU64,
    queues_deleted: AtomicU64,
    pub(crate) dead_letters: Arc<DeadLetters>,
}

impl VirtualHost {
    pub(crate) fn new(
        name: VhostName,
        log: Arc<dyn Log>,
        queue_ids: Arc<QueueIds>,
        dead_letters: Arc<DeadLetters>,
    ) -> Arc<Self> {
        // A restart does not find what was removed, and that may still have to be written once more.
        let mut topology = Topology { removed_at: log.appended_up_to(), ..Topology::default() };
        for (exchange, kind) in PREDECLARED {
            let Ok(exchange) = ExchangeName::new(exchange) else {
                continue;
            };
            let spec = ExchangeSpec {
                name: exchange.clone(),
                kind,
                durable: true,
                auto_delete: false,
                internal: exchange.as_str() == "amq.rabbitmq.trace",
                arguments: Arguments::new(),
            };
            topology.exchanges.insert(exchange, Exchange::new(spec, LogPosition::START));
        }
        Arc::new_cyclic(|me| Self {
            name,
            me: Weak::clone(me),
            log,
            queue_ids,
            topology: RwLock::new(topology),
            revision: AtomicU64::new(1),
            watched: Mutex::default(),
            queues_declared: AtomicU64::new(0),
            queues_deleted: AtomicU64::new(0),
            dead_letters,
        })
    }

    pub(crate) fn log(&self) -> &dyn Log {
        &*self.log
    }

    /// Rises with every change of the topology: a remembered [`Route`] holds while it stays.
    #[must_use]
    #[inline]
    pub fn revision(&self) -> u64 {
        // Acquire: pairs with the release in `changed`.
        self.revision.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    fn not_found(&self, resource: Resource) -> Refusal {
        Refusal::NotFound { resource, vhost: self.name.clone() }
    }

    fn no_exchange(&self, name: &ExchangeName) -> Refusal {
        self.not_found(Resource::Exchange(name.clone()))
    }

    fn no_queue(&self, name: &QueueName) -> Refusal {
        self.not_found(Resource::Queue(name.clone()))
    }

    // ---- exchanges ----

    /// The exchange of that name.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn exchange(&self, name: &ExchangeName) -> Result<ExchangeSpec, Refusal> {
        let topology = self.topology.read();
        let found = topology.exchanges.get(name).map(|exchange| exchange.spec.clone());
        found.ok_or_else(|| self.no_exchange(name))
    }

    /// Where the log has to come before a restart finds the exchange of that name.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn exchange_defined_at(&self, name: &ExchangeName) -> Result<LogPosition, Refusal> {
        let topology = self.topology.read();
        let found = topology.exchanges.get(name).map(|exchange| exchange.defined_at);
        found.ok_or_else(|| self.no_exchange(name))
    }

    /// Declares an exchange, or checks that it is there with the same properties. Gives where the log has to come before
    /// a restart finds it.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], [`Refusal::ReservedPrefix`], [`Refusal::InvalidArgumentType`],
    /// [`Refusal::Inequivalent`], [`Refusal::NotKept`].
    pub fn declare_exchange(&self, spec: ExchangeSpec) -> Result<LogPosition, Refusal> {
        if spec.name.is_default() {
            return Err(Refusal::DefaultExchange);
        }
        let mut topology = self.topology.write();
        if let Some(existing) = topology.exchanges.get(&spec.name) {
            self.equivalent_exchange(&existing.spec, &spec)?;
            return Ok(existing.defined_at);
        }
        if spec.name.as_str().starts_with(RESERVED_PREFIX) {
            let name = spec.name.to_string();
            return Err(Refusal::ReservedPrefix { kind: "exchange", name });
        }
        if let Some(value) = spec.arguments.get("alternate-exchange")
            && value.as_text().is_none()
        {
            return Err(Refusal::InvalidArgumentType {
                kind: value.type_name(),
                key: "alternate-exchange",
                resource: Resource::Exchange(spec.name),
                vhost: self.name.clone(),
            });
        }
        let mut changes = Changes::default();
        if spec.durable {
            changes.put_exchange(&self.name, &spec);
        }
        let defined_at = changes.append(&*self.log)?;
        topology.exchanges.insert(spec.name.clone(), Exchange::new(spec, defined_at));
        drop(topology);
        self.changed();
        Ok(defined_at)
    }

    /// Tells the log what has gone, and gives where that is durable. A log that takes nothing any more never comes
    /// there: after a restart it is all back.
    fn keep_gone(&self, topology: &mut Topology, gone: &Changes) -> LogPosition {
        let position = gone.append(&*self.log).unwrap_or(LogPosition::NEVER);
        topology.removed_at = topology.removed_at.max(position);
        position
    }

    fn inequivalent(
        &self,
        property: &str,
        resource: Resource,
        received: String,
        current: String,
    ) -> Refusal {
        let vhost = self.name.clone();
        Refusal::Inequivalent { property: property.to_owned(), resource, vhost, received, current }
    }

    fn equivalent_exchange(&self, old: &ExchangeSpec, new: &ExchangeSpec) -> Result<(), Refusal> {
        let resource = Resource::Exchange(new.name.clone());
        let quoted = |value: &dyn std::fmt::Display| format!("'{value}'");
        let differs = [
            ("type", quoted(&new.kind.as_str()), quoted(&old.kind.as_str())),
            ("durable", quoted(&new.durable), quoted(&old.durable)),
            ("auto_delete", quoted(&new.auto_delete), quoted(&old.auto_delete)),
            ("internal", quoted(&new.internal), quoted(&old.internal)),
        ]
        .into_iter()
        .find(|(_, received, current)| received != current);
        if let Some((property, received, current)) = differs {
            return Err(self.inequivalent(property, resource, received, current));
        }
        let key = "alternate-exchange";
        let (received, current) = (new.arguments.get(key), old.arguments.get(key));
        if received == current {
            return Ok(());
        }
        let (received, current) = describe_arguments(received, current);
        Err(self.inequivalent(key, resource, received, current))
    }

    /// Whether an exchange of that name may be deleted at all, whoever asks.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], [`Refusal::SystemExchange`].
    pub fn check_deletable(&self, name: &ExchangeName) -> Result<(), Refusal> {
        if name.is_default() {
            return Err(Refusal::DefaultExchange);
        }
        if name.as_str().starts_with(RESERVED_PREFIX) {
            let (exchange, vhost) = (name.clone(), self.name.clone());
            return Err(Refusal::SystemExchange { exchange, vhost });
        }
        Ok(())
    }

    /// Deletes an exchange; one that is not there counts as deleted. Gives where the log has to come before it is gone
    /// for good.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], [`Refusal::SystemExchange`], [`Refusal::InUse`].
    pub fn delete_exchange(
        &self,
        name: &ExchangeName,
        if_unused: bool,
    ) -> Result<LogPosition, Refusal> {
        self.check_deletable(name)?;
        let mut topology = self.topology.write();
        let Some(exchange) = topology.exchanges.get(name) else {
            return Ok(topology.removed_at);
        };
        if if_unused && exchange.has_bindings() {
            let resource = Resource::Exchange(name.clone());
            return Err(Refusal::InUse { resource, vhost: self.name.clone() });
        }
        let mut gone = Changes::default();
        topology.remove_exchange(name, &self.name, &mut gone);
        let position = self.keep_gone(&mut topology, &gone);
        drop(topology);
        self.changed();
        Ok(position)
    }

    /// All exchanges, by name.
    #[must_use]
    pub fn exchanges(&self) -> Vec<ExchangeSpec> {
        let topology = self.topology.read();
        let mut specs: Vec<_> =
            topology.exchanges.values().map(|exchange| exchange.spec.clone()).collect();
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs
    }

    // ---- queues ----

    /// The queue of that name.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn queue(&self, name: &QueueName) -> Result<Arc<Queue>, Refusal> {
        let found = self.topology.read().queues.get(name).cloned();
        found.ok_or_else(|| self.no_queue(name))
    }

    /// The queue of that name, unless it belongs to another connection.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Locked`].
    pub fn queue_for(
        &self,
        name: &QueueName,
        connection: ConnectionId,
    ) -> Result<Arc<Queue>, Refusal> {
        let queue = self.queue(name)?;
        self.not_locked(&queue, connection)?;
        Ok(queue)
    }

    fn not_locked(&self, queue: &Queue, connection: ConnectionId) -> Result<(), Refusal> {
        match queue.spec.exclusive_owner {
            Some(owner) if owner != connection => Err(self.locked(&queue.spec.name)),
            _ => Ok(()),
        }
    }

    fn locked(&self, queue: &QueueName) -> Refusal {
        Refusal::Locked { queue: queue.clone(), vhost: self.name.clone() }
    }

    /// Whether a client may declare a queue of that name at all.
    ///
    /// # Errors
    /// [`Refusal::ReservedPrefix`].
    pub fn check_declarable(name: &QueueName) -> Result<(), Refusal> {
        if name.as_str().starts_with(RESERVED_PREFIX) {
            return Err(Refusal::ReservedPrefix { kind: "queue", name: name.to_string() });
        }
        Ok(())
    }

    /// Declares a queue for a connection, or checks that it is there with the same properties.
    /// [`Queue::defined_at`] says where the log has to come before a restart finds it.
    ///
    /// # Errors
    /// [`Refusal::ReservedPrefix`], [`Refusal::Locked`], [`Refusal::Inequivalent`],
    /// [`Refusal::InvalidArgument`], [`Refusal::InvalidProperty`], [`Refusal::ServerNamed`], [`Refusal::NotKept`].
    pub fn declare_queue(
        &self,
        declaration: QueueDeclaration,
        connection: ConnectionId,
        now: u64,
    ) -> Result<DeclaredQueue, Refusal> {
        let name = &declaration.name;
        if !declaration.server_named {
            Self::check_declarable(name)?;
        }
        if let Some(queue) = self.topology.read().queues.get(name) {
            let queue = self.redeclare(queue, &declaration, connection, now)?;
            return Ok(DeclaredQueue { queue, new: false });
        }
        let settings = self.queue_settings(&declaration)?;
        let mut topology = self.topology.write();
        // Somebody may have been faster between the two locks.
        if let Some(queue) = topology.queues.get(name) {
            let queue = self.redeclare(queue, &declaration, connection, now)?;
            return Ok(DeclaredQueue { queue, new: false });
        }
        let spec = QueueSpec {
            name: name.clone(),
            // RabbitMQ: an exclusive queue is never durable, whatever was asked for.
            durable: declaration.durable && !declaration.exclusive,
            exclusive_owner: declaration.exclusive.then_some(connection),
            auto_delete: declaration.auto_delete,
            arguments: declaration.arguments.clone(),
            settings,
        };
        let id = self.queue_ids.take();
        let mut defined_at = LogPosition::START;
        if spec.durable {
            let mut changes = Changes::default();
            changes.put_queue(&self.name, id, &spec);
            defined_at = self.queue_ids.set_aside_and_append(id, &mut changes, &*self.log)?;
        }
        let (home, log) = (Weak::clone(&self.me), Arc::clone(&self.log));
        let queue = Queue::new(id, spec, home, log, now, defined_at);
        topology.queues.insert(name.clone(), Arc::clone(&queue));
        if declaration.exclusive {
            topology.exclusive.entry(connection).or_default().push(name.clone());
        }
        drop(topology);
        if queue.spec.settings.expires.is_some() {
            self.watched.lock().push(Arc::clone(&queue));
        }
        // Relaxed: a statistic.
        self.queues_declared.fetch_add(1, Ordering::Relaxed);
        self.changed();
        Ok(DeclaredQueue { queue, new: true })
    }

    fn queue_settings(&self, declaration: &QueueDeclaration) -> Result<QueueArguments, Refusal> {
        let resource = || Resource::Queue(declaration.name.clone());
        let vhost = || self.name.clone();
        let invalid = |error: InvalidArgument| Refusal::InvalidArgument {
            key: error.key.into(),
            resource: resource(),
            vhost: vhost(),
            fault: error.fault,
        };
        let queue_type = QueueType::of(&declaration.arguments).map_err(invalid)?;
        if declaration.server_named && queue_type == QueueType::Quorum {
            return Err(Refusal::ServerNamed { queue_type });
        }
        if let Some(value) = declaration.arguments.get("x-dead-letter-exchange")
            && value.as_text().is_none()
        {
            return Err(Refusal::InvalidArgumentType {
                kind: value.type_name(),
                key: "x-dead-letter-exchange",
                resource: resource(),
                vhost: vhost(),
            });
        }
        let settings = QueueArguments::parse(&declaration.arguments).map_err(invalid)?;
        if queue_type == QueueType::Quorum {
            let wrong = if declaration.auto_delete {
                Some("auto-delete")
            } else if declaration.exclusive {
                Some("exclusive-owner")
            } else if !declaration.durable {
                Some("non-durable")
            } else {
                None
            };
            if let Some(property) = wrong {
                return Err(Refusal::InvalidProperty {
                    property,
                    resource: resource(),
                    vhost: vhost(),
                });
            }
        }
        Ok(settings)
    }

    fn redeclare(
        &self,
        queue: &Arc<Queue>,
        declaration: &QueueDeclaration,
        connection: ConnectionId,
        now: u64,
    ) -> Result<Arc<Queue>, Refusal> {
        let spec = &queue.spec;
        let owned = declaration.exclusive.then_some(connection);
        if spec.exclusive_owner != owned {
            return Err(self.locked(&spec.name));
        }
        let resource = Resource::Queue(spec.name.clone());
        let quoted = |value: bool| format!("'{value}'");
        let durable = declaration.durable && !declaration.exclusive;
        for (property, received, current) in [
            ("durable", durable, spec.durable),
            ("auto_delete", declaration.auto_delete, spec.auto_delete),
        ] {
            if received != current {
                let (received, current) = (quoted(received), quoted(current));
                return Err(self.inequivalent(property, resource, received, current));
            }
        }
        let classic = |key: &str, value: Option<&Value>| {
            key == "x-queue-type" && value.is_none_or(|value| value.as_text() == Some("classic"))
        };
        // What the queue's type does not know is not compared, like what nobody knows.
        for key in spec.settings.queue_type.arguments() {
            let (new, old) = (declaration.arguments.get(key), spec.arguments.get(key));
            let same = match (new, old) {
                (None, None) => true,
                (Some(new), Some(old)) => new.equivalent(old),
                _ => classic(key, new) && classic(key, old),
            };
            if !same {
                let (new, old) = describe_arguments(new, old);
                return Err(self.inequivalent(key, resource, new, old));
            }
        }
        queue.touch(now);
        Ok(Arc::clone(queue))
    }

    /// Deletes a queue with its messages; one that is not there had none.
    ///
    /// # Errors
    /// [`Refusal::Locked`], [`Refusal::ConditionalDelete`], [`Refusal::InUse`], [`Refusal::NotEmpty`].
    pub fn delete_queue(
        &self,
        name: &QueueName,
        connection: Option<ConnectionId>,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Removed, Refusal> {
        let Ok(queue) = self.queue(name) else {
            return Ok(self.removed_before());
        };
        if let Some(connection) = connection {
            self.not_locked(&queue, connection)?;
        }
        let queue_type = queue.spec.settings.queue_type;
        if queue_type == QueueType::Quorum && (if_unused || if_empty) {
            let condition = if if_unused { "if-unused" } else { "if-empty" };
            let (queue, vhost) = (name.clone(), self.name.clone());
            let queue_type = queue_type.as_str();
            return Err(Refusal::ConditionalDelete { condition, queue, vhost, queue_type });
        }
        self.remove_queue(&queue, if_unused, if_empty).map_err(|reason| match reason {
            KeepReason::InUse => {
                let resource = Resource::Queue(name.clone());
                Refusal::InUse { resource, vhost: self.name.clone() }
            }
            KeepReason::NotEmpty => {
                Refusal::NotEmpty { queue: name.clone(), vhost: self.name.clone() }
            }
        })
    }

    /// Deletes a queue that nobody uses after all, for whom it was made; gives whether it did.
    pub fn undo_queue(&self, name: &QueueName, connection: ConnectionId) -> Option<Removed> {
        let queue = self.queue(name).ok()?;
        self.not_locked(&queue, connection).ok()?;
        self.remove_queue(&queue, true, false).ok()
    }

    /// What is not there may be back after a crash until the log knows of its removal.
    fn removed_before(&self) -> Removed {
        Removed { count: 0, position: self.topology.read().removed_at }
    }

    fn remove_queue(
        &self,
        queue: &Arc<Queue>,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Removed, KeepReason> {
        let mut topology = self.topology.write();
        let name = &queue.spec.name;
        // Another queue of the same name may have taken the place in the meantime.
        if !topology.queues.get(name).is_some_and(|there| Arc::ptr_eq(there, queue)) {
            return Ok(Removed { count: 0, position: topology.removed_at });
        }
        // Topology before queue is the order of the locks; nobody declares it again in between.
        let (count, dropped) = queue.delete(if_unused, if_empty)?;
        topology.queues.remove(name);
        let mut gone = Changes::default();
        if queue.spec.durable {
            gone.delete_queue(&self.name, queue.id, name);
        }
        let destination = Destination::Queue(name.clone());
        topology.forget_destination(destination, queue.spec.durable, &self.name, &mut gone);
        let position = self.keep_gone(&mut topology, &gone);
        if let Some(owner) = queue.spec.exclusive_owner
            && let Some(owned) = topology.exclusive.get_mut(&owner)
        {
            owned.retain(|there| there != name);
            if owned.is_empty() {
                topology.exclusive.remove(&owner);
            }
        }
        drop(topology);
        // Relaxed: a statistic.
        self.queues_deleted.fetch_add(1, Ordering::Relaxed);
        self.changed();
        // Here, where no lock is held: there may be many. And the log knows: who waits for dead ones may know too.
        drop(dropped);
        Ok(Removed { count, position })
    }

    /// Deletes the exclusive queues of a connection that ends.
    pub fn connection_closed(&self, connection: ConnectionId) {
        let names = self.topology.read().exclusive.get(&connection).cloned();
        for name in names.into_iter().flatten() {
            if let Ok(queue) = self.queue(&name) {
                self.remove_queue(&queue, false, false).ok();
            }
        }
    }

    pub(crate) fn delete_everything(&self) {
        // Taken out under one lock, so that no declaration comes in between.
        let topology = {
            let mut topology = self.topology.write();
            let mut gone = topology.durable_definitions(&self.name);
            gone.delete_vhost(&self.name);
            self.keep_gone(&mut topology, &gone);
            std::mem::take(&mut *topology)
        };
        self.changed();
        // Relaxed: a statistic.
        self.queues_deleted.fetch_add(topology.queues.len() as u64, Ordering::Relaxed);
        self.watched.lock().clear();
        for queue in topology.queues.values() {
            queue.delete(false, false).ok();
        }
    }

    /// All queues, by name.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        let mut queues: Vec<_> = self.topology.read().queues.values().cloned().collect();
        queues.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        queues
    }

    /// How many queues were declared anew and how many deleted, ever.
    #[must_use]
    pub fn queue_churn(&self) -> (u64, u64) {
        // Relaxed: statistics.
        let declared = self.queues_declared.load(Ordering::Relaxed);
        (declared, self.queues_deleted.load(Ordering::Relaxed))
    }

    // ---- messages ----

    /// Where a message goes that is published to `exchange` with these keys (the routing key first, then those
    /// of CC and BCC) and headers: through bindings between exchanges and through alternate exchanges,
    /// to each queue once.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the exchange does not exist.
    pub fn route(
        &self,
        exchange: &ExchangeName,
        keys: &[&[u8]],
        headers: HeaderTable<'_>,
    ) -> Result<Route, Refusal> {
        let topology = self.topology.read();
        if !topology.exchanges.contains_key(exchange) {
            return Err(self.no_exchange(exchange));
        }
        let mut route = Route::default();
        let mut targets = Vec::new();
        let mut visited: SmallVec<[&str; 4]> = SmallVec::new();
        let mut pending: SmallVec<[&str; 4]> = SmallVec::new();
        pending.push(exchange.as_str());
        while let Some(name) = pending.pop() {
            if visited.contains(&name) {
                continue;
            }
            visited.push(name);
            if name.is_empty() {
                for key in keys {
                    let queue = std::str::from_utf8(key).ok();
                    let queue = queue.and_then(|key| topology.queues.get(key));
                    route.queues.extend(queue.cloned());
                }
                continue;
            }
            let Some(exchange) = topology.exchanges.get(name) else {
                continue;
            };
            route.by_headers |= exchange.routes_by_headers();
            targets.clear();
            for key in keys {
                exchange.route(key, headers, &mut targets);
                if exchange.routes_by_headers() || exchange.spec.kind == ExchangeType::Fanout {
                    break;
                }
            }
            for target in &targets {
                match target {
                    Target::Queue(queue) => route.queues.push(Arc::clone(queue)),
                    Target::Exchange(name) => pending.push(name.as_str()),
                }
            }
            if targets.is_empty() {
                // RabbitMQ: the default exchange gives nothing to queues but what was published to it.
                pending.extend(exchange.spec.alternate().filter(|name| !name.is_empty()));
            }
        }
        if route.queues.len() > 1 {
            route.queues.sort_unstable_by_key(|queue| queue.id);
            route.queues.dedup_by_key(|queue| queue.id);
        }
        Ok(route)
    }
}

/// A new and an old argument as they stand in the text of a refused redeclaration: types are told when one of them is
/// not there.
fn describe_arguments(new: Option<&Value>, old: Option<&Value>) -> (String, String) {
    let typed = |value: &Value| format!("the value '{value}' of type '{}'", value.type_name());
    let none = || "none".to_owned();
    match (new, old) {
        (Some(new), Some(old)) => (format!("'{new}'"), format!("'{old}'")),
        (new, old) => (new.map_or_else(none, typed), old.map_or_else(none, typed)),
    }
}

#[cfg(test)]
mod tests;
