//! Exchange, queues and bindings of a run: planned first, declared before, deleted after.
//!
//! Names carry a number of the run, so that runs do not meet, and have a fixed width, so that all publishes
//! of a ring have one length. Queues are auto-delete besides being deleted: a killed run leaves nothing.

use proto_amqp::control::protocol::{AMQPClass, exchange, queue};
use proto_amqp::control::types::FieldTable;

use super::acks::CHANNEL;
use super::amqp::{AmqpPeer, short, unexpected};
use super::args::{ExchangeShape, PathArgs, Protocol};
use super::error::BenchError;

/// The plan of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// Queues, or the destinations that stand for them in STOMP.
    queues: Vec<String>,
    /// The exchange and its type; `None` for the default exchange.
    exchange: Option<(String, ExchangeShape)>,
    /// Which queue is bound with which key.
    bindings: Vec<(usize, String)>,
    /// Routing keys, or destinations, that messages are sent with.
    keys: Vec<String>,
    durable: bool,
    copies: u64,
}

impl Topology {
    /// Plans run number `run` (below 2^24) for `path`.
    pub(super) fn plan(protocol: Protocol, run: u32, path: &PathArgs) -> Self {
        let name = |n: u32| format!("wb{:06x}-{n:04}", run & 0xFF_FFFF);
        let numbers = 0..path.queues;
        let mut plan = Self {
            queues: numbers.clone().map(name).collect(),
            exchange: path.exchange_shape.map(|shape| (name(9_999), shape)),
            bindings: Vec::new(),
            keys: Vec::new(),
            durable: path.durable,
            copies: if path.consumers == 0 { 0 } else { 1 },
        };
        if protocol == Protocol::Stomp {
            if path.exchange_shape.is_some() {
                plan.queues = vec![format!("/topic/{}", name(0)); plan.queues.len()];
                plan.keys = plan.queues.iter().take(1).cloned().collect();
                plan.copies *= u64::from(path.consumers);
            } else {
                plan.queues = numbers.map(|n| format!("/queue/{}", name(n))).collect();
                plan.keys.clone_from(&plan.queues);
            }
            plan.exchange = None;
            return plan;
        }
        let Some(shape) = path.exchange_shape else {
            plan.keys.clone_from(&plan.queues);
            return plan;
        };
        let bound = 0..path.bindings.unwrap_or(path.queues);
        match shape {
            ExchangeShape::Fanout => {
                plan.bindings =
                    (0..plan.queues.len()).map(|queue| (queue, String::new())).collect();
                plan.keys = vec![String::new()];
                plan.copies *= u64::from(path.queues);
            }
            ExchangeShape::Direct => {
                plan.keys = bound.map(|n| format!("bench.{n:04}.key")).collect();
                plan.bindings = plan.spread(plan.keys.iter().cloned());
            }
            ExchangeShape::Topic => {
                plan.keys = bound.clone().map(|n| format!("bench.{n:04}.key")).collect();
                // Three kinds of patterns, of which exactly one matches each key.
                plan.bindings = plan.spread(bound.map(|n| match n % 3 {
                    0 => format!("bench.{n:04}.*"),
                    1 => format!("*.{n:04}.key"),
                    _ => format!("#.{n:04}.#"),
                }));
            }
        }
        plan
    }

    /// Deals `keys` out to the queues.
    fn spread(&self, keys: impl Iterator<Item = String>) -> Vec<(usize, String)> {
        (0..self.queues.len()).cycle().zip(keys).collect()
    }

    /// How often each message is delivered.
    pub(super) const fn copies(&self) -> u64 {
        self.copies
    }

    /// The exchange messages go to; empty is the default exchange.
    pub(super) fn exchange(&self) -> &str {
        self.exchange.as_ref().map_or("", |(name, _)| name)
    }

    /// The routing keys, or destinations, of producer `index` of `producers`.
    pub(super) fn keys_of(&self, index: u32, producers: u32) -> Vec<String> {
        dealt(&self.keys, index, producers)
    }

    /// The queues, or destinations, of consumer `index` of `consumers`.
    pub(super) fn queues_of(&self, index: u32, consumers: u32) -> Vec<String> {
        dealt(&self.queues, index, consumers)
    }

    /// Declares everything, on the channel of the load.
    ///
    /// # Errors
    /// As [`AmqpPeer::call`].
    pub(super) fn declare(&self, peer: &mut AmqpPeer) -> Result<(), BenchError> {
        if let Some((name, shape)) = &self.exchange {
            let declare = exchange::Declare {
                exchange: short(name)?,
                kind: short(shape.name())?,
                passive: false,
                durable: self.durable,
                auto_delete: true,
                internal: false,
                nowait: false,
                arguments: FieldTable::default(),
            };
            match peer.call(CHANNEL, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)))? {
                AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(_)) => {}
                other => return Err(unexpected(&other)),
            }
        }
        for name in &self.queues {
            declare_queue(peer, name, self.durable)?;
        }
        for (index, key) in &self.bindings {
            let bind = queue::Bind {
                queue: short(self.queues.get(*index).map_or("", String::as_str))?,
                exchange: short(self.exchange())?,
                routing_key: short(key)?,
                nowait: false,
                arguments: FieldTable::default(),
            };
            match peer.call(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)))? {
                AMQPClass::Queue(queue::AMQPMethod::BindOk(_)) => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// Deletes everything that is still there.
    ///
    /// # Errors
    /// As [`AmqpPeer::call`]; what is gone already is none.
    pub(super) fn delete(&self, peer: &mut AmqpPeer) -> Result<(), BenchError> {
        for name in &self.queues {
            forgive_absence(peer, |peer| delete_queue(peer, name))?;
        }
        if let Some((name, _)) = &self.exchange {
            forgive_absence(peer, |peer| {
                let delete =
                    exchange::Delete { exchange: short(name)?, if_unused: false, nowait: false };
                match peer
                    .call(CHANNEL, AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete)))?
                {
                    AMQPClass::Exchange(exchange::AMQPMethod::DeleteOk(_)) => Ok(()),
                    other => Err(unexpected(&other)),
                }
            })?;
        }
        Ok(())
    }
}

/// Runs a deletion on the channel of the load; what does not exist any more is deleted.
///
/// spec: amqp queue.delete: RabbitMQ answers delete-ok; the XML says 404, which closes the channel.
pub(super) fn forgive_absence(
    peer: &mut AmqpPeer,
    delete: impl FnOnce(&mut AmqpPeer) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    match delete(peer) {
        Err(BenchError::Closed { text }) if text.starts_with("404 ") => {
            peer.confirm_channel_closed(CHANNEL)?;
            peer.open_channel(CHANNEL)
        }
        other => other,
    }
}

/// Declares an auto-delete queue on the channel of the load.
///
/// # Errors
/// As [`AmqpPeer::call`].
pub(super) fn declare_queue(
    peer: &mut AmqpPeer,
    name: &str,
    durable: bool,
) -> Result<(), BenchError> {
    let declare = queue::Declare {
        queue: short(name)?,
        passive: false,
        durable,
        exclusive: false,
        auto_delete: true,
        nowait: false,
        arguments: FieldTable::default(),
    };
    match peer.call(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))? {
        AMQPClass::Queue(queue::AMQPMethod::DeclareOk(_)) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Deletes a queue on the channel of the load.
///
/// # Errors
/// As [`AmqpPeer::call`].
pub(super) fn delete_queue(peer: &mut AmqpPeer, name: &str) -> Result<(), BenchError> {
    let delete =
        queue::Delete { queue: short(name)?, if_unused: false, if_empty: false, nowait: false };
    match peer.call(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)))? {
        AMQPClass::Queue(queue::AMQPMethod::DeleteOk(_)) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// The share of one of `holders` in `things`: each thing has a holder and each holder a thing.
fn dealt(things: &[String], index: u32, holders: u32) -> Vec<String> {
    let (index, holders) = (index as usize, (holders as usize).max(1));
    let rounds = holders.max(things.len());
    let mut share: Vec<String> = (index..rounds)
        .step_by(holders)
        .filter_map(|n| things.get(n % things.len().max(1)).cloned())
        .collect();
    share.dedup();
    share
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::args::AckChoice;

    fn path(queues: u32, shape: Option<ExchangeShape>, bindings: Option<u32>) -> PathArgs {
        PathArgs {
            producers: 1,
            consumers: queues,
            queues,
            size: 16,
            ack: AckChoice::Auto,
            prefetch: None,
            persistent: false,
            durable: false,
            exchange_shape: shape,
            bindings,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            drain: Duration::ZERO,
        }
    }

    fn plan(queues: u32, shape: Option<ExchangeShape>, bindings: Option<u32>) -> Topology {
        Topology::plan(Protocol::Amqp, 0xAB, &path(queues, shape, bindings))
    }

    #[test]
    fn things_are_dealt_so_that_each_has_a_holder_and_each_holder_a_thing() {
        let things: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        for (holders, shares) in [
            (1, vec!["abc"]),
            (2, vec!["ac", "b"]),
            (3, vec!["a", "b", "c"]),
            (5, vec!["a", "b", "c", "a", "b"]),
        ] {
            let dealt: Vec<String> =
                (0..holders).map(|index| dealt(&things, index, holders).concat()).collect();
            assert_eq!(dealt, shares, "{holders} holders");
        }
    }

    #[test]
    fn without_an_exchange_keys_are_queues() {
        let plan = plan(2, None, None);
        assert_eq!(plan.exchange(), "");
        assert_eq!(plan.keys, ["wb0000ab-0000", "wb0000ab-0001"]);
        assert_eq!(plan.keys, plan.queues);
        assert_eq!(plan.copies(), 1);
    }

    #[test]
    fn a_fanout_delivers_once_a_queue() {
        let plan = plan(10, Some(ExchangeShape::Fanout), None);
        assert_eq!(plan.bindings.len(), 10);
        assert_eq!(plan.keys.len(), 1);
        assert_eq!(plan.copies(), 10);
    }

    #[test]
    fn every_key_of_a_topic_matches_exactly_its_own_binding() {
        let plan = plan(4, Some(ExchangeShape::Topic), Some(1000));
        assert_eq!((plan.keys.len(), plan.bindings.len()), (1000, 1000));
        let queues: BTreeSet<usize> = plan.bindings.iter().map(|(queue, _)| *queue).collect();
        assert_eq!(queues.len(), 4);
        // No word repeats within a key, so comparing words one by one decides `*` and `#` here.
        let matches = |pattern: &str, key: &str| {
            let number = key.split('.').nth(1).unwrap();
            let middle = pattern.split('.').nth(1).unwrap();
            let ends = [(0, "bench"), (2, "key")].iter().all(|(at, word)| {
                let part = pattern.split('.').nth(*at).unwrap();
                part == "*" || part == "#" || part == *word
            });
            middle == number && ends
        };
        for key in &plan.keys {
            let found = plan.bindings.iter().filter(|(_, pattern)| matches(pattern, key)).count();
            assert_eq!(found, 1, "{key}");
        }
    }

    #[test]
    fn all_keys_of_a_plan_have_one_length() {
        for shape in [None, Some(ExchangeShape::Direct), Some(ExchangeShape::Topic)] {
            let plan = plan(1000, shape, shape.map(|_| 9_999));
            let lengths: BTreeSet<usize> = plan.keys.iter().map(String::len).collect();
            assert_eq!(lengths.len(), 1, "{shape:?}");
        }
    }

    #[test]
    fn stomp_uses_destinations_and_one_topic_for_all() {
        let plain = Topology::plan(Protocol::Stomp, 1, &path(2, None, None));
        assert_eq!(plain.keys, ["/queue/wb000001-0000", "/queue/wb000001-0001"]);
        let fanout =
            Topology::plan(Protocol::Stomp, 1, &path(3, Some(ExchangeShape::Fanout), None));
        assert_eq!(fanout.keys, ["/topic/wb000001-0000"]);
        assert_eq!(fanout.queues_of(2, 3), ["/topic/wb000001-0000"]);
        assert_eq!(fanout.copies(), 3);
    }
}
