//! Dead letters: messages that die in one queue and go on to an exchange.
//!
//! The message gets an entry in its `x-death` header for the queue and the reason, newest first; its expiration is taken
//! off and kept in that entry. A message that comes round to a queue for the second time without anybody
//! having rejected it in between is dropped there: nobody would ever stop it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use proto_amqp::properties::{self, Properties};
use proto_amqp::table::{self, ArrayReader, Limits, TableReader, TableWriter, Value, write_table};

use crate::consumer::Entry;
use crate::log::LogPosition;
use crate::message::{Attributes, Message, Publication};
use crate::name::ExchangeName;
use crate::queue::arguments::DeadLetterTarget;
use crate::queue::{Dead, DeathReason, Queue, Settlement, Share};
use crate::storage::StorageError;
use crate::vhost::VirtualHost;

/// How many messages were sent on to a dead-letter exchange, by reason. Belongs to the broker, so that the
/// counts outlive queues and virtual hosts.
#[derive(Debug, Default)]
pub struct DeadLetters {
    rejected: AtomicU64,
    expired: AtomicU64,
    max_length: AtomicU64,
    delivery_limit: AtomicU64,
}

impl DeadLetters {
    const fn of(&self, reason: DeathReason) -> &AtomicU64 {
        match reason {
            DeathReason::Rejected => &self.rejected,
            DeathReason::Expired => &self.expired,
            DeathReason::MaxLength => &self.max_length,
            DeathReason::DeliveryLimit => &self.delivery_limit,
        }
    }

    /// Messages that died for this reason.
    #[must_use]
    pub fn count(&self, reason: DeathReason) -> u64 {
        // Relaxed: a statistic.
        self.of(reason).load(Ordering::Relaxed)
    }
}

/// Messages that died in a queue.
struct Died {
    queue: Arc<Queue>,
    dead: Vec<Dead>,
}

impl VirtualHost {
    /// Sends messages that died in `queue` to its dead-letter exchange, and what dies of that on in turn; gives where
    /// the log has to come before that is durable. What the log does not take waits with its queue.
    pub(crate) fn dead_letter(&self, queue: &Arc<Queue>, dead: Vec<Dead>, now: u64) -> LogPosition {
        let mut position = LogPosition::START;
        // First in, first out: what dies of several letters enters the next queue in the order in which it died.
        let mut work = VecDeque::from([Died { queue: Arc::clone(queue), dead }]);
        while let Some(Died { queue, dead }) = work.pop_front() {
            let Some(target) = &queue.spec.settings.dead_letter else {
                continue;
            };
            let mut stranded = Vec::new();
            for letter in dead {
                let Dead { entry, reason, .. } = &letter;
                // The log that has just refused one would refuse the next.
                let moved = match stranded.is_empty() {
                    true => self.move_on(&queue, target, entry, *reason, now, &mut work),
                    false => None,
                };
                let Some(moved_at) = moved else {
                    stranded.push(letter);
                    continue;
                };
                position = position.max(moved_at);
                // Relaxed: a statistic.
                self.dead_letters.of(*reason).fetch_add(1, Ordering::Relaxed);
            }
            if !stranded.is_empty() && queue.strand(stranded) {
                self.watch(&queue);
            }
        }
        position
    }

    /// One step in the log: out of the queue and into the next. `None` when the log takes nothing.
    fn move_on(
        &self,
        queue: &Arc<Queue>,
        target: &DeadLetterTarget,
        entry: &Entry,
        reason: DeathReason,
        now: u64,
        work: &mut VecDeque<Died>,
    ) -> Option<LogPosition> {
        let message = &entry.message;
        let parts = message.parts();
        // Properties were checked when the message came in.
        let properties = properties::summarise(parts.properties).unwrap_or_default();
        let deaths = deaths_of(&properties);
        let carbon_copies =
            if target.routing_key.is_some() { Vec::new() } else { copies(&properties) };
        let routing_key = target.routing_key.as_deref().unwrap_or(parts.routing_key);
        let mut keys = vec![routing_key];
        keys.extend(carbon_copies);
        let letter = Letter { queue, target, message, reason, properties: &properties };
        let (message, headers) = letter.rewrite(routing_key);
        let exchange: &ExchangeName = &target.exchange;
        // A dead-letter exchange that does not exist drops what it is sent.
        let route = self.route(exchange, &keys, Some(&headers)).unwrap_or_default();
        let cycles = |next: &Arc<Queue>| {
            reason != DeathReason::Rejected
                && in_automatic_cycle(deaths, next.spec.name.as_str().as_bytes(), queue, next)
        };
        let takers = route.queues.into_iter().filter(|next| !cycles(next));
        let mut shares: Vec<Share> =
            takers.map(|queue| Share { queue, indices: vec![0] }).collect();
        let publication = [Publication::Owned(message)];
        let logged = entry.logged.then_some(entry.seq);
        let gone = [Settlement::Gone(queue.id, logged.into_iter().collect())];
        // What dies of it in turn waits until this step is done: chains are as long as clients make them.
        let dying =
            |queue: &Arc<Queue>, dead| work.push_back(Died { queue: Arc::clone(queue), dead });
        match self.publish_together_with(&publication, &mut shares, &gone, now, dying) {
            Ok(done) => Some(done.position),
            Err(StorageError::DiskFull | StorageError::Poisoned { .. }) => None,
            // Grown beyond what one record takes: it would never go. It is in its queue again after a restart.
            Err(_) => Some(LogPosition::START),
        }
    }
}

/// Entries of `x-death`, newest first.
fn deaths_of<'p>(properties: &Properties<'p>) -> ArrayReader<'p> {
    match properties.headers_reader().get(b"x-death") {
        Some(Value::Array(deaths)) => deaths,
        _ => ArrayReader::default(),
    }
}

/// The routing keys in `CC`; those in `BCC` are gone since the message was published.
fn copies<'p>(properties: &Properties<'p>) -> Vec<&'p [u8]> {
    match properties.headers_reader().get(b"CC") {
        Some(Value::Array(keys)) => keys.filter_map(|key| key.as_longstr()).collect(),
        _ => Vec::new(),
    }
}

/// Whether the message has been in `name` before and nobody rejected it since.
fn in_automatic_cycle(
    deaths: ArrayReader<'_>,
    name: &[u8],
    dying_in: &Arc<Queue>,
    next: &Arc<Queue>,
) -> bool {
    if Arc::ptr_eq(dying_in, next) {
        return true;
    }
    for death in deaths {
        let Value::Table(death) = death else { continue };
        if death.get(b"reason").and_then(|value| value.as_longstr()) == Some(b"rejected") {
            return false;
        }
        if death.get(b"queue").and_then(|value| value.as_longstr()) == Some(name) {
            return true;
        }
    }
    false
}

struct Letter<'l> {
    queue: &'l Queue,
    target: &'l DeadLetterTarget,
    message: &'l Message,
    reason: DeathReason,
    properties: &'l Properties<'l>,
}

/// One entry of `x-death`.
struct Death<'d> {
    count: i64,
    reason: &'d [u8],
    queue: &'d [u8],
    time: u64,
    exchange: &'d [u8],
    routing_keys: Vec<&'d [u8]>,
    original_expiration: Option<&'d [u8]>,
}

impl<'d> Death<'d> {
    fn read(table: TableReader<'d>) -> Option<Self> {
        let text = |name: &[u8]| table.get(name).and_then(|value| value.as_longstr());
        let routing_keys = match table.get(b"routing-keys") {
            Some(Value::Array(keys)) => keys.filter_map(|key| key.as_longstr()).collect(),
            _ => Vec::new(),
        };
        Some(Self {
            count: table.get(b"count").and_then(|value| value.as_integer()).unwrap_or(1),
            reason: text(b"reason")?,
            queue: text(b"queue")?,
            time: match table.get(b"time") {
                Some(Value::Timestamp(seconds)) => seconds,
                _ => 0,
            },
            exchange: text(b"exchange").unwrap_or_default(),
            routing_keys,
            original_expiration: text(b"original-expiration"),
        })
    }

    fn write(&self, table: &mut TableWriter<'_>) -> Result<(), proto_amqp::TableError> {
        table.write(b"count", Value::LongLongInt(self.count))?;
        table.write(b"reason", Value::LongString(self.reason))?;
        table.write(b"queue", Value::LongString(self.queue))?;
        table.write(b"time", Value::Timestamp(self.time))?;
        table.write(b"exchange", Value::LongString(self.exchange))?;
        table.array(b"routing-keys", |keys| {
            self.routing_keys.iter().try_for_each(|key| keys.write(Value::LongString(key)))
        })?;
        if let Some(expiration) = self.original_expiration {
            table.write(b"original-expiration", Value::LongString(expiration))?;
        }
        Ok(())
    }
}

impl Letter<'_> {
    /// The message as it goes to the dead-letter exchange, and its headers.
    fn rewrite(&self, routing_key: &[u8]) -> (Message, Vec<u8>) {
        let parts = self.message.parts();
        let mut deaths: Vec<Death<'_>> = deaths_of(self.properties)
            .filter_map(|death| match death {
                Value::Table(table) => Death::read(table),
                _ => None,
            })
            .collect();
        let (reason, queue) =
            (self.reason.as_str().as_bytes(), self.queue.spec.name.as_str().as_bytes());
        let known = deaths.iter().position(|death| death.reason == reason && death.queue == queue);
        let newest = match known {
            Some(index) => {
                let mut death = deaths.remove(index);
                death.count = death.count.saturating_add(1);
                death
            }
            None => {
                let mut routing_keys = vec![parts.routing_key];
                routing_keys.extend(copies(self.properties));
                Death {
                    count: 1,
                    reason,
                    queue,
                    time: seconds_since_1970(),
                    exchange: parts.exchange,
                    routing_keys,
                    original_expiration: self.properties.expiration,
                }
            }
        };
        deaths.insert(0, newest);
        let mut table = Vec::new();
        let written = self.write_headers(&deaths, &mut table);
        let headers = match table.get(4..) {
            Some(headers) if written.is_ok() && table::check(headers, Limits::DEFAULT).is_ok() => {
                headers.to_vec()
            }
            // Headers at the limit of what a table may hold: the message goes on as it is rather than not
            // at all.
            _ => self.properties.headers.unwrap_or_default().to_vec(),
        };
        let mut properties = *self.properties;
        properties.headers = (!headers.is_empty()).then_some(&headers);
        properties.expiration = None;
        let mut encoded = Vec::new();
        if properties::encode(&properties, &mut encoded).is_err() {
            // Cannot be: all strings come from a property list.
            encoded = properties::EMPTY.to_vec();
        }
        let attributes = Attributes { expiration: None, ..self.message.attributes() };
        let exchange = self.target.exchange.as_str().as_bytes();
        let message = Message::rewritten(&parts, exchange, routing_key, &encoded, attributes);
        (message, headers)
    }

    fn write_headers(
        &self,
        deaths: &[Death<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), proto_amqp::TableError> {
        let drops_copies = self.target.routing_key.is_some();
        let parts = self.message.parts();
        write_table(out, |headers| {
            headers.array(b"x-death", |array| {
                deaths.iter().try_for_each(|death| array.table(|table| death.write(table)))
            })?;
            let mut first_known = false;
            for (name, value) in self.properties.headers_reader() {
                first_known |= name == b"x-first-death-reason";
                let replaced = name == b"x-death"
                    || name.starts_with(b"x-last-death-")
                    || (drops_copies && name == b"CC");
                if !replaced {
                    headers.write(name, value)?;
                }
            }
            let facts: [(&str, &[u8]); 3] = [
                ("reason", self.reason.as_str().as_bytes()),
                ("queue", self.queue.spec.name.as_str().as_bytes()),
                ("exchange", parts.exchange),
            ];
            for (fact, value) in facts {
                if !first_known {
                    let name = format!("x-first-death-{fact}");
                    headers.write(name.as_bytes(), Value::LongString(value))?;
                }
                let name = format!("x-last-death-{fact}");
                headers.write(name.as_bytes(), Value::LongString(value))?;
            }
            Ok(())
        })
    }
}

/// The wall clock, for the eyes of whoever reads `x-death`; nothing is decided by it.
fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
