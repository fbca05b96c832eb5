//! Takes everything out of a broker that has just started, as consumers would.

use std::collections::BTreeSet;

use broker_core::exchange::Destination;
use broker_core::queue::{Effects, Got, Queue};

use crate::hand::Hand;
use crate::plain::{
    ALL_QUEUES, DEAD1, EXCHANGES, Found, FoundMessage, FoundQueue, Identity, Name, PROFILES,
    Profile,
};
use crate::world::Node;

fn known(names: &[Name], name: &str) -> Result<Name, String> {
    let found = names.iter().find(|other| **other == name);
    found.copied().ok_or_else(|| format!("nobody has declared '{name}'"))
}

/// What is there, message by message. The broker is empty afterwards, and its counts have to agree.
pub(crate) fn find(node: &Node) -> Result<Found, String> {
    let mut found = Found::default();
    for exchange in node.vhost.exchanges() {
        let name = exchange.name.as_str();
        if !name.is_empty() && !name.starts_with("amq.") {
            found.exchanges.insert(known(&EXCHANGES, name)?);
        }
    }
    for binding in node.vhost.bindings() {
        if let Destination::Queue(queue) = &binding.destination
            && !binding.source.is_default()
        {
            let exchange = known(&EXCHANGES, binding.source.as_str())?;
            found.bindings.insert((exchange, known(&ALL_QUEUES, queue.as_str())?));
        }
    }
    for queue in node.vhost.queues() {
        let name = known(&ALL_QUEUES, queue.spec.name.as_str())?;
        let messages = drain(node, &queue).map_err(|error| format!("queue {name}: {error}"))?;
        let (id, profile) = (queue.id.0, profile_of(&queue)?);
        found.queues.insert(name, FoundQueue { id, profile, messages });
    }
    Ok(found)
}

fn profile_of(queue: &Queue) -> Result<Profile, String> {
    let mut profiles = PROFILES.into_iter().chain([DEAD1]);
    let found = profiles.find(|profile| {
        profile.arguments() == queue.spec.arguments && profile.durable == queue.spec.durable
    });
    found.ok_or_else(|| format!("queue {} has arguments that nobody gave it", queue.spec.name))
}

fn drain(node: &Node, queue: &Queue) -> Result<Vec<FoundMessage>, String> {
    let before = queue.depth();
    let mut messages: Vec<FoundMessage> = Vec::new();
    let mut octets = 0;
    let mut effects = Effects::default();
    let hand = Hand::with_room(usize::MAX / 2);
    let subscribed = queue.subscribe(hand.subscription(false), |_| {}, 0, &mut effects);
    subscribed.map_err(|error| error.to_string())?;
    while node.log.load_one(0) {}
    for Got { message, outstanding: entry, .. } in hand.take() {
        octets += message.body_len() as u64;
        let (redelivered, returns) = (entry.redelivered, entry.returns);
        let identity = Identity::of(&message)?;
        messages.push(FoundMessage { identity, redelivered, returns });
    }
    let after = queue.depth();
    if !effects.dead.is_empty() {
        return Err(format!("{} messages have died of being looked at", effects.dead.len()));
    }
    let count = messages.len() as u64;
    if (before.ready, before.unacked) != (count, 0) {
        return Err(format!("{before:?} promises other than the {count} messages that came"));
    }
    if (after.ready, after.ready_bytes, after.unacked, after.unacked_bytes) != (0, 0, count, octets)
    {
        return Err(format!("{count} messages of {octets} octets have left {after:?}"));
    }
    let identities: BTreeSet<&Identity> = messages.iter().map(|found| &found.identity).collect();
    if identities.len() < messages.len() {
        return Err(format!("some messages came twice: {messages:?}"));
    }
    Ok(messages)
}
