//! What a broker must still know after a crash, in plain lists; and what is compared with it.
//!
//! The one idea: everything that happens is a list of changes, each all or nothing. After a crash a broker shows the
//! state after some of them from the beginning, not fewer than were reported durable; of the deed in which the cut lies
//! some changes may have happened and others not.

use std::collections::{BTreeMap, BTreeSet};

use broker_core::Message;
use broker_core::arguments::{Arguments, Value};
use proto_amqp::properties;
use proto_amqp::table;

pub(crate) type Name = &'static str;

/// Where dead letters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grave {
    Queue(Name),
    Exchange(Name),
}

/// A kind of queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) durable: bool,
    pub(crate) ttl: Option<u64>,
    pub(crate) max_length: Option<usize>,
    /// When full it refuses instead of dropping the head.
    pub(crate) refuses: bool,
    pub(crate) grave: Option<Grave>,
    pub(crate) delivery_limit: Option<u16>,
}

const PLAIN: Profile = Profile {
    durable: true,
    ttl: None,
    max_length: None,
    refuses: false,
    grave: None,
    delivery_limit: None,
};

/// The kinds of queues that clients publish to. The first is for those of which nothing is asked.
pub(crate) const PROFILES: [Profile; 9] = [
    PLAIN,
    Profile { grave: Some(Grave::Exchange("graves")), ..PLAIN },
    Profile { ttl: Some(1000), grave: Some(Grave::Queue("dead2")), ..PLAIN },
    Profile { ttl: Some(400), ..PLAIN },
    Profile { max_length: Some(4), grave: Some(Grave::Queue("dead1")), ..PLAIN },
    Profile { max_length: Some(5), ..PLAIN },
    Profile { max_length: Some(3), refuses: true, ..PLAIN },
    Profile { delivery_limit: Some(2), grave: Some(Grave::Queue("dead2")), ..PLAIN },
    Profile { durable: false, ..PLAIN },
];

/// The profile whose messages expire into another queue; one queue at a time has it, so that the order there is known.
pub(crate) const EXPIRING: usize = 2;

/// A dead-letter queue that is soon full itself.
pub(crate) const DEAD1: Profile =
    Profile { max_length: Some(6), grave: Some(Grave::Queue("dead2")), ..PLAIN };
/// The last one.
pub(crate) const DEAD2: Profile = PLAIN;

/// Queues that clients publish to.
pub(crate) const QUEUES: [Name; 4] = ["a", "b", "c", "d"];
/// All, dead-letter queues behind those whose messages die into them.
pub(crate) const ALL_QUEUES: [Name; 6] = ["a", "b", "c", "d", "dead1", "dead2"];
/// Exchanges that clients declare; all of them fan out.
pub(crate) const EXCHANGES: [Name; 3] = ["fan", "wide", "graves"];

impl Profile {
    pub(crate) fn arguments(&self) -> Arguments {
        let mut list: Vec<(Box<str>, Value)> = Vec::new();
        if let Some(ttl) = self.ttl {
            list.push(("x-message-ttl".into(), Value::Long(ttl as i64)));
        }
        if let Some(max) = self.max_length {
            list.push(("x-max-length".into(), Value::Long(max as i64)));
        }
        if self.refuses {
            list.push(("x-overflow".into(), Value::text("reject-publish")));
        }
        match self.grave {
            Some(Grave::Queue(name)) => {
                list.push(("x-dead-letter-exchange".into(), Value::text("")));
                list.push(("x-dead-letter-routing-key".into(), Value::text(name)));
            }
            Some(Grave::Exchange(name)) => {
                list.push(("x-dead-letter-exchange".into(), Value::text(name)));
            }
            None => {}
        }
        if let Some(limit) = self.delivery_limit {
            list.push(("x-queue-type".into(), Value::text("quorum")));
            list.push(("x-delivery-limit".into(), Value::Long(limit.into())));
        }
        list.into_iter().collect()
    }
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Its place: rises from message to message.
    pub(crate) order: u64,
    pub(crate) identity: Identity,
    pub(crate) persistent: bool,
    /// In milliseconds of the world.
    pub(crate) expires_at: u64,
    /// It has been handed out, or has come back.
    pub(crate) redelivered: bool,
    pub(crate) returns: u16,
}

/// Which message it is: the number in its body, and the queues in which it died, the last one first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) number: u64,
    pub(crate) deaths: Vec<Name>,
}

/// Octets of the body of the message with this number: some are many, so that a few of them are a backlog.
pub(crate) fn body_len(number: u64) -> u64 {
    let mixed = mix(number);
    if mixed.is_multiple_of(9) { 1500 + mixed % 4000 } else { 8 + mixed % 150 }
}

/// The body of the message with this number, which it begins with.
pub(crate) fn body_of(number: u64) -> Vec<u8> {
    let first = mix(number) as u8;
    let mut body = number.to_le_bytes().to_vec();
    body.extend((8..body_len(number)).map(|at| first.wrapping_add((at % 251) as u8)));
    body
}

fn mix(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
}

impl Identity {
    /// Reads it off a message, and checks that the body is as it was published.
    pub(crate) fn of(message: &Message) -> Result<Self, String> {
        let parts = message.parts();
        let number = parts.body.first_chunk().map(|octets| u64::from_le_bytes(*octets));
        let number = number.ok_or("a body of less than eight octets")?;
        if parts.body != body_of(number) {
            return Err(format!("message {number} has another body than it had"));
        }
        let properties =
            properties::summarise(parts.properties).map_err(|error| error.to_string())?;
        let mut deaths = Vec::new();
        if let Some(table::Value::Array(list)) = properties.headers_reader().get(b"x-death") {
            for death in list {
                let table::Value::Table(death) = death else { continue };
                let queue = death.get(b"queue").and_then(|value| value.as_longstr());
                let known = ALL_QUEUES.into_iter().find(|name| Some(name.as_bytes()) == queue);
                deaths.push(known.ok_or("x-death names a queue that nobody has")?);
            }
        }
        Ok(Self { number, deaths })
    }
}

/// A durable queue.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) profile: Profile,
    pub(crate) messages: BTreeMap<u64, Placed>,
}

/// All that must survive.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plain {
    pub(crate) queues: BTreeMap<Name, Kept>,
    pub(crate) exchanges: BTreeSet<Name>,
    pub(crate) bindings: BTreeSet<(Name, Name)>,
}

/// A change of definitions.
#[derive(Clone, Debug)]
pub(crate) enum Defined {
    Queue(Name, Profile),
    /// With its bindings and messages.
    NoQueue(Name),
    Exchange(Name),
    /// With its bindings.
    NoExchange(Name),
    Binding(Name, Name),
    NoBinding(Name, Name),
}

/// What happens all at once, or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) enters: Vec<(Name, Placed)>,
    pub(crate) leaves: Vec<(Name, u64)>,
    /// Come back from a consumer.
    pub(crate) returned: Vec<(Name, u64)>,
    /// Handed to one: from then on flagged as redelivered.
    pub(crate) handed: Vec<(Name, u64)>,
    pub(crate) defined: Option<Defined>,
    /// It is promised when the log has come here.
    pub(crate) promised_at: u64,
}

impl Change {
    /// Whether it shows in what a restart finds. (Marks of what was handed out run ahead and show too early.)
    fn shows(&self) -> bool {
        let is_empty = self.enters.is_empty() && self.leaves.is_empty() && self.returned.is_empty();
        !is_empty || self.defined.is_some()
    }
}

/// One call of the broker: its changes in order, and where the log ended behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deed {
    pub(crate) changes: Vec<Change>,
    pub(crate) end: u64,
}

impl Plain {
    pub(crate) fn apply(&mut self, change: &Change) {
        if let Some(defined) = &change.defined {
            self.define(defined);
        }
        for (queue, placed) in &change.enters {
            if let Some(kept) = self.queues.get_mut(queue) {
                kept.messages.insert(placed.order, placed.clone());
            }
        }
        for (queue, order) in &change.leaves {
            if let Some(kept) = self.queues.get_mut(queue) {
                kept.messages.remove(order);
            }
        }
        for (queue, order) in &change.returned {
            if let Some(placed) = self.message(queue, *order) {
                placed.returns += 1;
                placed.redelivered = true;
            }
        }
        for (queue, order) in &change.handed {
            if let Some(placed) = self.message(queue, *order) {
                placed.redelivered = true;
            }
        }
    }

    fn message(&mut self, queue: Name, order: u64) -> Option<&mut Placed> {
        self.queues.get_mut(queue)?.messages.get_mut(&order)
    }

    fn define(&mut self, defined: &Defined) {
        match *defined {
            Defined::Queue(name, profile) => {
                self.queues.insert(name, Kept { profile, messages: BTreeMap::new() });
            }
            Defined::NoQueue(name) => {
                self.queues.remove(name);
                self.bindings.retain(|(_, queue)| *queue != name);
            }
            Defined::Exchange(name) => {
                self.exchanges.insert(name);
            }
            Defined::NoExchange(name) => {
                self.exchanges.remove(name);
                self.bindings.retain(|(exchange, _)| *exchange != name);
            }
            Defined::Binding(exchange, queue) => {
                self.bindings.insert((exchange, queue));
            }
            Defined::NoBinding(exchange, queue) => {
                self.bindings.remove(&(exchange, queue));
            }
        }
    }
}

/// A message that a restart brought back.
#[derive(Clone, Debug)]
pub(crate) struct FoundMessage {
    pub(crate) identity: Identity,
    pub(crate) redelivered: bool,
    pub(crate) returns: u16,
}

/// A queue that a restart brought back.
#[derive(Clone, Debug)]
pub(crate) struct FoundQueue {
    pub(crate) id: u64,
    pub(crate) profile: Profile,
    /// As consumers get them.
    pub(crate) messages: Vec<FoundMessage>,
}

/// All that a restart brought back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) queues: BTreeMap<Name, FoundQueue>,
    pub(crate) exchanges: BTreeSet<Name>,
    pub(crate) bindings: BTreeSet<(Name, Name)>,
}

/// In how many things a state and what was found differ; the order of messages and flags aside.
fn distance(plain: &Plain, found: &Found) -> usize {
    let mut distance = plain.exchanges.symmetric_difference(&found.exchanges).count();
    distance += plain.bindings.symmetric_difference(&found.bindings).count();
    for name in ALL_QUEUES {
        match (plain.queues.get(name), found.queues.get(name)) {
            (None, None) => {}
            (Some(kept), Some(queue)) if kept.profile == queue.profile => {
                distance += distance_of_queues(kept, queue);
            }
            (kept, queue) => {
                let messages = kept.map_or(0, |kept| kept.messages.len());
                distance += 1 + messages + queue.map_or(0, |queue| queue.messages.len());
            }
        }
    }
    distance
}

fn distance_of_queues(kept: &Kept, queue: &FoundQueue) -> usize {
    let mut there: BTreeMap<&Identity, u16> = BTreeMap::new();
    let mut distance = 0;
    for message in &queue.messages {
        if there.insert(&message.identity, message.returns).is_some() {
            distance += 1;
        }
    }
    for placed in kept.messages.values() {
        distance += match there.remove(&placed.identity) {
            None => 1,
            Some(returns) => returns.abs_diff(placed.returns).into(),
        };
    }
    distance + there.len()
}

/// Whether what was found is this state. `delivered_from` says of which queues anything was ever handed out.
fn check(plain: &Plain, found: &Found, delivered_from: &BTreeSet<u64>) -> Result<(), String> {
    if distance(plain, found) > 0 {
        return Err("other messages or definitions".to_owned());
    }
    for (name, kept) in &plain.queues {
        let Some(queue) = found.queues.get(name) else { continue };
        for (placed, message) in kept.messages.values().zip(&queue.messages) {
            let number = message.identity.number;
            if placed.identity != message.identity {
                return Err(format!("queue {name}: message {number} out of order"));
            }
            if placed.redelivered && !message.redelivered {
                return Err(format!(
                    "queue {name}: message {number} was delivered, and not flagged"
                ));
            }
            if message.redelivered && !delivered_from.contains(&queue.id) {
                return Err(format!(
                    "queue {name}: message {number} is flagged, none was delivered"
                ));
            }
        }
    }
    Ok(())
}

/// Finds the state that a restart has come back to, among those that it may have: that of `kept` with some of
/// `deeds` from the beginning, the last of them perhaps in part. Everything promised below `durable` must be in it.
/// Gives the state, and what has happened since `kept`.
pub(crate) fn judge(
    kept: &Plain,
    deeds: &[Deed],
    durable: u64,
    found: &Found,
    delivered_from: &BTreeSet<u64>,
) -> Result<(Plain, Vec<Deed>), String> {
    let mut before = kept.clone();
    let mut nearest = (usize::MAX, String::new());
    for deed in 0..=deeds.len() {
        let (changes, later) = match deeds.get(deed..) {
            Some([of, later @ ..]) => (of.changes.as_slice(), later),
            _ => (Default::default(), Default::default()),
        };
        let mut later = later.iter().flat_map(|deed| &deed.changes);
        let lost = later.find(|change| change.shows() && change.promised_at <= durable);
        let lost = lost.map(|lost| format!("after {deed} deeds: lost, though promised: {lost:?}"));
        for at_least in 0..=changes.len().min(1) {
            let (state, part, broken) = in_part(&before, changes, at_least, durable, found);
            match (check(&state, found, delivered_from), lost.clone().or(broken)) {
                (Ok(()), None) => {
                    let mut there = deeds.get(..deed).unwrap_or_default().to_vec();
                    there.push(Deed { changes: part, end: 0 });
                    return Ok((state, there));
                }
                (Ok(()), Some(broken)) => nearest = nearest.min((0, broken)),
                (Err(error), _) => {
                    let distance = 1 + distance(&state, found);
                    if distance < nearest.0 {
                        let where_to = differences(&state, found);
                        nearest = (distance, format!("after {deed} deeds: {error}{where_to}"));
                    }
                }
            }
        }
        changes.iter().for_each(|change| before.apply(change));
    }
    Err(format!("none of {} states fits; the nearest: {}", deeds.len() + 1, nearest.1))
}

/// The state with those changes of a deed of which something is to be seen, `at_least` so many from the beginning; and
/// the changes, and one that was promised and is not among them.
fn in_part(
    before: &Plain,
    changes: &[Change],
    at_least: usize,
    durable: u64,
    found: &Found,
) -> (Plain, Vec<Change>, Option<String>) {
    let mut state = before.clone();
    let (mut part, mut broken) = (Vec::new(), None);
    for (index, change) in changes.iter().enumerate().filter(|(_, change)| change.shows()) {
        let mut with = state.clone();
        with.apply(change);
        if index < at_least || distance(&with, found) <= distance(&state, found) {
            state = with;
            part.push(change.clone());
        } else if change.promised_at <= durable {
            broken = Some(format!("in part, though promised: {change:?}"));
        }
    }
    (state, part, broken)
}

/// Where a state and what was found differ, in few words.
fn differences(plain: &Plain, found: &Found) -> String {
    let mut text = String::new();
    for name in ALL_QUEUES {
        let (kept, queue) = (plain.queues.get(name), found.queues.get(name));
        let expected: Option<Vec<(Identity, u16)>> = kept.map(|kept| {
            kept.messages.values().map(|placed| (placed.identity.clone(), placed.returns)).collect()
        });
        let there: Option<Vec<(Identity, u16)>> = queue.map(|queue| {
            queue.messages.iter().map(|found| (found.identity.clone(), found.returns)).collect()
        });
        if expected == there {
            continue;
        }
        let (expected, there) = (expected.unwrap_or_default(), there.unwrap_or_default());
        let missing: Vec<_> = expected.iter().filter(|one| !there.contains(one)).collect();
        let new: Vec<_> = there.iter().filter(|one| !expected.contains(one)).collect();
        let is_there = (kept.is_some(), queue.is_some());
        text += &format!("\n  {name} {is_there:?}: {missing:?} missing, {new:?} too many");
    }
    let (exchanges, bindings) = (&plain.exchanges, &plain.bindings);
    if (exchanges, bindings) != (&found.exchanges, &found.bindings) {
        text += &format!(
            "\n  {exchanges:?} {bindings:?} and {:?} {:?}",
            found.exchanges, found.bindings
        );
    }
    text
}
