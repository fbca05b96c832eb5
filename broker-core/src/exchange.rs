//! Exchanges: what they are declared with, and the table that each type routes by.
//!
//! A table knows where a key leads; it does not follow exchange-to-exchange bindings and alternate exchanges.
//! [`VirtualHost::route`](crate::vhost::VirtualHost::route) walks that graph. All of it lies under the
//! virtual host's lock.

mod headers;
mod topic;

use std::sync::Arc;

use hashbrown::HashMap;

use crate::arguments::{Arguments, Value};
use crate::error::Refusal;
use crate::log::LogPosition;
use crate::name::{ExchangeName, QueueName};
use crate::queue::Queue;
pub use headers::HeaderTable;
use headers::HeadersTable;
use topic::TopicTable;

/// How an exchange routes (AMQP 0-9-1 §3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// The routing key equals the binding key.
    Direct,
    /// Every binding.
    Fanout,
    /// The binding key is a pattern of words.
    Topic,
    /// The binding's arguments match the message's headers.
    Headers,
}

impl ExchangeType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Fanout, Self::Topic, Self::Headers];

    /// The word in `exchange.declare`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }

    /// The type of that name.
    ///
    /// # Errors
    /// [`Refusal::UnknownExchangeType`].
    pub fn parse(word: &str) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == word);
        found.ok_or_else(|| Refusal::UnknownExchangeType { kind: word.to_owned() })
    }
}

/// What an exchange is declared with.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: ExchangeName,
    /// How it routes.
    pub kind: ExchangeType,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Only other exchanges publish to it.
    pub internal: bool,
    /// Arguments as given.
    pub arguments: Arguments,
}

impl ExchangeSpec {
    /// The argument `alternate-exchange`.
    #[must_use]
    pub fn alternate(&self) -> Option<&str> {
        self.arguments.get("alternate-exchange").and_then(Value::as_text)
    }
}

/// Where a binding leads, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// To a queue.
    Queue(QueueName),
    /// To another exchange.
    Exchange(ExchangeName),
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queue(name) => write!(f, "queue '{name}'"),
            Self::Exchange(name) => write!(f, "exchange '{name}'"),
        }
    }
}

/// A binding (AMQP 0-9-1 §3.1.3.2): its identity is all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: ExchangeName,
    /// Where they go.
    pub destination: Destination,
    /// The binding key.
    pub routing_key: Box<[u8]>,
    /// Arguments, sorted by name.
    pub arguments: Arguments,
}

/// Where a binding leads, resolved.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Queue(Arc<Queue>),
    Exchange(ExchangeName),
}

impl Target {
    pub(crate) fn destination(&self) -> Destination {
        match self {
            Self::Queue(queue) => Destination::Queue(queue.spec.name.clone()),
            Self::Exchange(name) => Destination::Exchange(name.clone()),
        }
    }

    fn leads_to(&self, destination: &Destination) -> bool {
        match (self, destination) {
            (Self::Queue(queue), Destination::Queue(name)) => queue.spec.name == *name,
            (Self::Exchange(exchange), Destination::Exchange(name)) => exchange == name,
            _ => false,
        }
    }
}

/// The targets of one key; each counts how many bindings lead to it, since those may differ in arguments.
#[derive(Debug, Default)]
struct Targets(Vec<(Target, u32)>);

impl Targets {
    fn add(&mut self, target: Target) {
        let destination = target.destination();
        match self.0.iter_mut().find(|(there, _)| there.leads_to(&destination)) {
            Some((_, count)) => *count += 1,
            None => self.0.push((target, 1)),
        }
    }

    fn remove(&mut self, destination: &Destination) {
        let found = self.0.iter().position(|(target, _)| target.leads_to(destination));
        if let Some(index) = found
            && let Some((_, count)) = self.0.get_mut(index)
        {
            *count -= 1;
            if *count == 0 {
                self.0.swap_remove(index);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn collect<'t>(&'t self, out: &mut Vec<&'t Target>) {
        out.extend(self.0.iter().map(|(target, _)| target));
    }
}

#[derive(Debug)]
enum Table {
    Direct(HashMap<Box<[u8]>, Targets, foldhash::fast::RandomState>),
    Fanout(HashMap<Destination, (Target, u32), foldhash::fast::RandomState>),
    Topic(TopicTable),
    Headers(HeadersTable),
}

/// A binding without its ends.
#[derive(Debug)]
struct BindingKey {
    routing_key: Box<[u8]>,
    arguments: Arguments,
    /// Where the log has to come before a restart finds it; a transient one waits for nothing.
    defined_at: LogPosition,
}

impl BindingKey {
    fn is(&self, routing_key: &[u8], arguments: &Arguments) -> bool {
        *self.routing_key == *routing_key && self.arguments == *arguments
    }
}

/// An exchange with its bindings.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) spec: ExchangeSpec,
    /// Where the log has to come before a restart finds it; a transient one waits for nothing.
    pub(crate) defined_at: LogPosition,
    /// Its bindings by destination: the truth for lists, for identity and for removal.
    bindings: HashMap<Destination, Vec<BindingKey>, foldhash::fast::RandomState>,
    /// The same bindings as a table to route by.
    table: Table,
}

impl Exchange {
    /// An exchange without bindings, whose definition ends at `defined_at` in the log.
    pub(crate) fn new(spec: ExchangeSpec, defined_at: LogPosition) -> Self {
        let table = match spec.kind {
            ExchangeType::Direct => Table::Direct(HashMap::default()),
            ExchangeType::Fanout => Table::Fanout(HashMap::default()),
            ExchangeType::Topic => Table::Topic(TopicTable::default()),
            ExchangeType::Headers => Table::Headers(HeadersTable::default()),
        };
        Self { spec, defined_at, bindings: HashMap::default(), table }
    }

    /// Whether the headers of a message decide where it goes, so that no route may be remembered.
    pub(crate) const fn routes_by_headers(&self) -> bool {
        matches!(self.table, Table::Headers(_))
    }

    pub(crate) fn has_bindings(&self) -> bool {
        !self.bindings.is_empty()
    }

    pub(crate) fn bindings(&self) -> impl Iterator<Item = Binding> {
        self.bindings.keys().flat_map(|destination| self.bindings_to(destination))
    }

    pub(crate) fn bindings_to(&self, destination: &Destination) -> impl Iterator<Item = Binding> {
        let list = self.bindings.get(destination).into_iter().flatten();
        list.map(|BindingKey { routing_key, arguments, .. }| Binding {
            source: self.spec.name.clone(),
            destination: destination.clone(),
            routing_key: routing_key.clone(),
            arguments: arguments.clone(),
        })
    }

    /// Whether the arguments of a binding to be made are such as this exchange takes.
    pub(crate) fn check_binding(&self, arguments: &Arguments) -> Result<(), Refusal> {
        if self.routes_by_headers() { headers::check(arguments) } else { Ok(()) }
    }

    /// Where the log has to come before a restart finds this binding; `None` when it is not there.
    pub(crate) fn bound_at(&self, binding: &Binding) -> Option<LogPosition> {
        let list = self.bindings.get(&binding.destination)?;
        let mut found = list.iter();
        found
            .find(|there| there.is(&binding.routing_key, &binding.arguments))
            .map(|there| there.defined_at)
    }

    /// Adds a binding; one that is there already stays as it is.
    pub(crate) fn bind(
        &mut self,
        target: Target,
        routing_key: &[u8],
        arguments: Arguments,
        defined_at: LogPosition,
    ) -> Result<(), Refusal> {
        self.check_binding(&arguments)?;
        let destination = target.destination();
        let list = self.bindings.entry(destination.clone()).or_default();
        if list.iter().any(|there| there.is(routing_key, &arguments)) {
            return Ok(());
        }
        match &mut self.table {
            Table::Direct(table) => table.entry(routing_key.into()).or_default().add(target),
            Table::Fanout(table) => table.entry(destination).or_insert((target, 0)).1 += 1,
            Table::Topic(table) => table.add(routing_key, target),
            Table::Headers(table) => table.add(target, &arguments),
        }
        list.push(BindingKey { routing_key: routing_key.into(), arguments, defined_at });
        Ok(())
    }

    /// Whether a binding is there.
    pub(crate) fn has_binding(&self, binding: &Binding) -> bool {
        let mut list = self.bindings.get(&binding.destination).into_iter().flatten();
        list.any(|there| there.is(&binding.routing_key, &binding.arguments))
    }

    /// Removes a binding, if it is there.
    pub(crate) fn unbind(
        &mut self,
        destination: &Destination,
        routing_key: &[u8],
        arguments: &Arguments,
    ) {
        let Some(list) = self.bindings.get_mut(destination) else { return };
        let found = list.iter().position(|there| there.is(routing_key, arguments));
        let Some(index) = found else { return };
        list.swap_remove(index);
        if list.is_empty() {
            self.bindings.remove(destination);
        }
        self.remove_route(destination, routing_key, arguments);
    }

    /// Removes all bindings to `destination`.
    pub(crate) fn unbind_all(&mut self, destination: &Destination) {
        let list = self.bindings.remove(destination).unwrap_or_default();
        for BindingKey { routing_key, arguments, .. } in &list {
            self.remove_route(destination, routing_key, arguments);
        }
    }

    pub(crate) fn leads_to(&self, destination: &Destination) -> bool {
        self.bindings.contains_key(destination)
    }

    pub(crate) fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.bindings.keys()
    }

    fn remove_route(&mut self, destination: &Destination, key: &[u8], arguments: &Arguments) {
        match &mut self.table {
            Table::Direct(table) => {
                if let Some(targets) = table.get_mut(key) {
                    targets.remove(destination);
                    if targets.is_empty() {
                        table.remove(key);
                    }
                }
            }
            Table::Fanout(table) => {
                if let Some((_, count)) = table.get_mut(destination) {
                    *count -= 1;
                    if *count == 0 {
                        table.remove(destination);
                    }
                }
            }
            Table::Topic(table) => table.remove(key, destination),
            Table::Headers(table) => table.remove(destination, arguments),
        }
    }

    /// Appends the targets of a message with this key and these headers.
    pub(crate) fn route<'t>(
        &'t self,
        routing_key: &[u8],
        headers: HeaderTable<'_>,
        out: &mut Vec<&'t Target>,
    ) {
        match &self.table {
            Table::Direct(table) => {
                if let Some(targets) = table.get(routing_key) {
                    targets.collect(out);
                }
            }
            Table::Fanout(table) => out.extend(table.values().map(|(target, _)| target)),
            Table::Topic(table) => table.route(routing_key, out),
            Table::Headers(table) => table.route(headers, out),
        }
    }
}
