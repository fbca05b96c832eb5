//! Bindings: which exchange leads to which queue or exchange, and for which keys.
//!
//! A binding lies with its source. The topology notes the other way round from which sources one leads to a destination,
//! so that what is deleted takes its bindings along. Routing along them is not done here.

use std::sync::Arc;

use super::VirtualHost;
use super::topology::Topology;
use crate::arguments::Arguments;
use crate::consumer::ConnectionId;
use crate::definitions::Changes;
use crate::error::Refusal;
use crate::exchange::{Binding, Destination, Exchange, Target};
use crate::log::LogPosition;
use crate::name::ExchangeName;

impl VirtualHost {
    /// Binds a queue or an exchange to a source exchange; binding again changes nothing. Gives where the log has to come
    /// before a restart finds the binding.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], [`Refusal::NotFound`] (of the source first), [`Refusal::InvalidMatch`],
    /// [`Refusal::Locked`], [`Refusal::NotKept`].
    pub fn bind(&self, binding: Binding, connection: ConnectionId) -> Result<LogPosition, Refusal> {
        self.refuse_default(&binding)?;
        let mut topology = self.topology.write();
        if !topology.exchanges.contains_key(&binding.source) {
            return Err(self.no_exchange(&binding.source));
        }
        let target = match &binding.destination {
            Destination::Queue(name) => {
                let queue = topology.queues.get(name).ok_or_else(|| self.no_queue(name))?;
                self.not_locked(queue, connection)?;
                Target::Queue(Arc::clone(queue))
            }
            Destination::Exchange(name) => {
                if !topology.exchanges.contains_key(name) {
                    return Err(self.no_exchange(name));
                }
                Target::Exchange(name.clone())
            }
        };
        let to_durable = topology.is_durable(&binding.destination);
        let mut position = LogPosition::START;
        if let Some(source) = topology.exchanges.get_mut(&binding.source) {
            if let Some(bound_at) = source.bound_at(&binding) {
                return Ok(bound_at);
            }
            source.check_binding(&binding.arguments)?;
            if source.spec.durable && to_durable {
                let mut changes = Changes::default();
                changes.put_binding(&self.name, &binding);
                position = changes.append(&*self.log)?;
            }
            source.bind(target, &binding.routing_key, binding.arguments, position)?;
        }
        topology.note_source(binding.destination, binding.source);
        drop(topology);
        self.changed();
        Ok(position)
    }

    /// Removes a binding; one that is not there counts as removed. Gives where the log has to come before it is gone for
    /// good.
    ///
    /// # Errors
    /// [`Refusal::DefaultExchange`], [`Refusal::Locked`].
    pub fn unbind(
        &self,
        binding: &Binding,
        connection: ConnectionId,
    ) -> Result<LogPosition, Refusal> {
        self.refuse_default(binding)?;
        let mut topology = self.topology.write();
        let (removed_at, to_durable) =
            (topology.removed_at, topology.is_durable(&binding.destination));
        let Topology { exchanges, queues, .. } = &mut *topology;
        let Some(source) = exchanges.get_mut(&binding.source) else {
            return Ok(removed_at);
        };
        if !source.has_binding(binding) {
            return Ok(removed_at);
        }
        if let Destination::Queue(name) = &binding.destination
            && let Some(queue) = queues.get(name)
        {
            self.not_locked(queue, connection)?;
        }
        source.unbind(&binding.destination, &binding.routing_key, &binding.arguments);
        let mut gone = Changes::default();
        if source.spec.durable && to_durable {
            gone.delete_binding(&self.name, binding);
        }
        if !source.leads_to(&binding.destination)
            && let Some(sources) = topology.sources.get_mut(&binding.destination)
        {
            sources.retain(|name| *name != binding.source);
            if sources.is_empty() {
                topology.sources.remove(&binding.destination);
            }
        }
        if topology.goes_by_itself(&binding.source) {
            topology.remove_exchange(&binding.source, &self.name, &mut gone);
        }
        let position = self.keep_gone(&mut topology, &gone);
        drop(topology);
        self.changed();
        Ok(position)
    }

    fn refuse_default(&self, binding: &Binding) -> Result<(), Refusal> {
        let to_default =
            matches!(&binding.destination, Destination::Exchange(name) if name.is_default());
        if binding.source.is_default() || to_default {
            return Err(Refusal::DefaultExchange);
        }
        Ok(())
    }

    /// All bindings, those of queues to the default exchange included and first.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let topology = self.topology.read();
        let implicit = topology.queues.keys().filter_map(|name| {
            Some(Binding {
                source: ExchangeName::new("").ok()?,
                destination: Destination::Queue(name.clone()),
                routing_key: name.as_str().as_bytes().into(),
                arguments: Arguments::new(),
            })
        });
        let explicit = topology.exchanges.values().flat_map(Exchange::bindings);
        let mut bindings: Vec<_> = implicit.chain(explicit).collect();
        bindings.sort_by(|a, b| {
            (&a.source, &a.destination, &a.routing_key).cmp(&(
                &b.source,
                &b.destination,
                &b.routing_key,
            ))
        });
        bindings
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{US, bind, bind_with, declare, exchange, queue, routed, spec, vhost};
    use super::*;
    use crate::arguments::Value;
    use crate::exchange::{ExchangeSpec, ExchangeType};
    use crate::queue::Removed;

    #[test]
    fn a_deleted_queue_takes_its_bindings_and_auto_delete_sources_with_it() {
        let vhost = vhost();
        declare(&vhost, "a");
        let auto = ExchangeSpec { auto_delete: true, ..spec("auto", ExchangeType::Direct) };
        let upstream = ExchangeSpec { auto_delete: true, ..spec("upstream", ExchangeType::Direct) };
        vhost.declare_exchange(auto).unwrap();
        vhost.declare_exchange(upstream).unwrap();
        bind(&vhost, "auto", "a", "k");
        bind_with(
            &vhost,
            "upstream",
            Destination::Exchange(exchange("auto")),
            "k",
            Arguments::new(),
        );
        assert_eq!(vhost.delete_queue(&queue("a"), Some(US), false, false), Ok(Removed::default()));
        assert!(vhost.exchange(&exchange("auto")).is_err());
        assert!(vhost.exchange(&exchange("upstream")).is_err(), "its last binding led to auto");
        assert!(vhost.topology.read().sources.is_empty());
    }

    #[test]
    fn unbinding_one_of_two_bindings_that_differ_in_arguments_leaves_the_other() {
        let vhost = vhost();
        declare(&vhost, "a");
        let with: Arguments = [("n".into(), Value::Byte(1))].into_iter().collect();
        bind(&vhost, "amq.direct", "a", "k");
        bind_with(&vhost, "amq.direct", Destination::Queue(queue("a")), "k", with.clone());
        let binding = |arguments| Binding {
            source: exchange("amq.direct"),
            destination: Destination::Queue(queue("a")),
            routing_key: b"k"[..].into(),
            arguments,
        };
        vhost.unbind(&binding(Arguments::new()), US).unwrap();
        assert_eq!(routed(&vhost, "amq.direct", &["k"]), ["a"]);
        vhost.unbind(&binding(with), US).unwrap();
        assert!(routed(&vhost, "amq.direct", &["k"]).is_empty());
    }
}
