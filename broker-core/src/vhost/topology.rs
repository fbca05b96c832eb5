//! What lies under the lock of a virtual host: exchanges, queues, and which leads where.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::consumer::ConnectionId;
use crate::definitions::Changes;
use crate::exchange::{Destination, Exchange};
use crate::log::LogPosition;
use crate::name::{ExchangeName, QueueName, VhostName};
use crate::queue::Queue;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) exchanges: Map<ExchangeName, Exchange>,
    pub(super) queues: Map<QueueName, Arc<Queue>>,
    /// From which exchanges bindings lead to a destination.
    pub(super) sources: Map<Destination, Vec<ExchangeName>>,
    /// The exclusive queues of a connection.
    pub(super) exclusive: Map<ConnectionId, Vec<QueueName>>,
    /// Where the log has to come before everything that was removed so far is gone for good.
    pub(super) removed_at: LogPosition,
}

impl Topology {
    pub(super) fn is_durable(&self, destination: &Destination) -> bool {
        match destination {
            Destination::Queue(name) => {
                self.queues.get(name).is_some_and(|queue| queue.spec.durable)
            }
            Destination::Exchange(name) => {
                self.exchanges.get(name).is_some_and(|exchange| exchange.spec.durable)
            }
        }
    }

    /// A binding leads from `source` to `destination`.
    pub(super) fn note_source(&mut self, destination: Destination, source: ExchangeName) {
        let sources = self.sources.entry(destination).or_default();
        if !sources.contains(&source) {
            sources.push(source);
        }
    }

    /// Removes a binding destination from all sources, and sources that go with their last binding, and what
    /// led to those in turn. A list and not a recursion: chains of exchanges are as long as clients make them.
    pub(super) fn forget_destination(
        &mut self,
        destination: Destination,
        durable: bool,
        vhost: &VhostName,
        changes: &mut Changes,
    ) {
        let mut gone = vec![(destination, durable)];
        while let Some((destination, durable)) = gone.pop() {
            for source in self.sources.remove(&destination).into_iter().flatten() {
                let Some(exchange) = self.exchanges.get_mut(&source) else { continue };
                let from_durable = exchange.spec.durable;
                if from_durable && durable {
                    for binding in exchange.bindings_to(&destination) {
                        changes.delete_binding(vhost, &binding);
                    }
                }
                exchange.unbind_all(&destination);
                if self.goes_by_itself(&source) {
                    self.take_exchange(&source, vhost, changes);
                    gone.push((Destination::Exchange(source), from_durable));
                }
            }
        }
    }

    pub(super) fn remove_exchange(
        &mut self,
        name: &ExchangeName,
        vhost: &VhostName,
        changes: &mut Changes,
    ) {
        let durable = self.exchanges.get(name).is_some_and(|exchange| exchange.spec.durable);
        self.take_exchange(name, vhost, changes);
        self.forget_destination(Destination::Exchange(name.clone()), durable, vhost, changes);
    }

    /// Removes an exchange and its bindings as a source.
    pub(super) fn take_exchange(
        &mut self,
        name: &ExchangeName,
        vhost: &VhostName,
        changes: &mut Changes,
    ) {
        let Some(exchange) = self.exchanges.get(name) else { return };
        // Before it is removed: it may be bound to itself.
        if exchange.spec.durable {
            changes.delete_exchange(vhost, name);
            for binding in exchange.bindings().filter(|there| self.is_durable(&there.destination)) {
                changes.delete_binding(vhost, &binding);
            }
        }
        let Some(exchange) = self.exchanges.remove(name) else { return };
        for destination in exchange.destinations() {
            if let Some(sources) = self.sources.get_mut(destination) {
                sources.retain(|source| source != name);
                if sources.is_empty() {
                    self.sources.remove(destination);
                }
            }
        }
    }

    /// The removal of everything durable.
    pub(super) fn durable_definitions(&self, vhost: &VhostName) -> Changes {
        let mut gone = Changes::default();
        for exchange in self.exchanges.values().filter(|exchange| exchange.spec.durable) {
            gone.delete_exchange(vhost, &exchange.spec.name);
            for binding in exchange.bindings().filter(|there| self.is_durable(&there.destination)) {
                gone.delete_binding(vhost, &binding);
            }
        }
        for queue in self.queues.values().filter(|queue| queue.spec.durable) {
            gone.delete_queue(vhost, queue.id, &queue.spec.name);
        }
        gone
    }

    /// An auto-delete exchange goes when its last binding as a source has gone.
    pub(super) fn goes_by_itself(&self, name: &ExchangeName) -> bool {
        let exchange = self.exchanges.get(name);
        exchange.is_some_and(|exchange| exchange.spec.auto_delete && !exchange.has_bindings())
    }
}
