//! Bringing back what the log has kept of a virtual host, and the last word before a clean stop.
//!
//! What a restart finds is not always proved durable: the end of the log may have to be written once more. So all of it
//! has the position of that end, and whoever asks for it again waits until the log has come there.

use std::sync::{Arc, Weak};

use super::VirtualHost;
use crate::definitions::DurableQueue;
use crate::exchange::{Binding, Destination, Exchange, ExchangeSpec, Target};
use crate::queue::arguments::QueueArguments;
use crate::queue::{Found, Queue, QueueSpec};

impl VirtualHost {
    /// A durable exchange that the log knows.
    pub(crate) fn restore_exchange(&self, spec: ExchangeSpec) {
        let exchange = Exchange::new(spec, self.log.appended_up_to());
        self.topology.write().exchanges.insert(exchange.spec.name.clone(), exchange);
    }

    /// A durable queue that the log knows. Gives what of its arguments could not be understood; the queue does without.
    pub(crate) fn restore_queue(
        &self,
        declared: DurableQueue,
        found: Found,
        now: u64,
    ) -> Result<(), String> {
        let DurableQueue { id, name, auto_delete, arguments } = declared;
        // They were checked when the queue was declared, but perhaps by another version.
        let (settings, complaints) = QueueArguments::kept(&arguments);
        let complaint = (!complaints.is_empty()).then(|| {
            let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
            let vhost = &self.name;
            let complaints = complaints.join(", ");
            format!("queue '{name}' in vhost '{vhost}': {complaints}; it does without that")
        });
        let spec = QueueSpec {
            name: name.clone(),
            durable: true,
            exclusive_owner: None,
            auto_delete,
            arguments,
            settings,
        };
        let watched = found.len > 0 || spec.settings.expires.is_some();
        let (home, log) = (Weak::clone(&self.me), Arc::clone(&self.log));
        let queue = Queue::restored(id, spec, home, log, now, found);
        self.topology.write().queues.insert(name, Arc::clone(&queue));
        if watched {
            self.watched.lock().push(queue);
        }
        complaint.map_or(Ok(()), Err)
    }

    /// A binding that the log knows. Gives what is wrong with one whose ends are gone, or whose arguments are none.
    pub(crate) fn restore_binding(&self, binding: Binding) -> Result<(), String> {
        let described = format!(
            "binding of {} to exchange '{}' in vhost '{}'",
            binding.destination, binding.source, self.name
        );
        let found_at = self.log.appended_up_to();
        let mut topology = self.topology.write();
        let target = match &binding.destination {
            Destination::Queue(name) => topology.queues.get(name).cloned().map(Target::Queue),
            Destination::Exchange(name) => {
                topology.exchanges.contains_key(name).then(|| Target::Exchange(name.clone()))
            }
        };
        let Some(target) = target else {
            return Err(format!("{described}: its destination is gone"));
        };
        let Some(source) = topology.exchanges.get_mut(&binding.source) else {
            return Err(format!("{described}: its source is gone"));
        };
        source
            .bind(target, &binding.routing_key, binding.arguments, found_at)
            .map_err(|error| format!("{described}: {error}"))?;
        topology.note_source(binding.destination, binding.source);
        Ok(())
    }

    /// Before a clean stop: the log is told what exactly was delivered.
    pub(crate) fn note_stop(&self) {
        for queue in self.topology.read().queues.values() {
            queue.note_stop();
        }
    }
}
