//! What all connections of a broker share: the core, the settings, the clock, the lists of connections, counters
//! and alarms.

mod log_wait;
#[cfg(test)]
pub(crate) mod slow_log;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use broker_core::Broker;
use broker_core::consumer::ConnectionId;
use broker_core::log::{DurableWatcher, StoreLog};
use broker_core::name::{UserName, VhostName};
use hashbrown::HashMap;
use metrics::Counter;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tracing::warn;

use crate::auth::Logins;
use crate::counters::Counters;
use crate::listener::Seats;
use crate::logging::seldom::{self, Line};
use crate::settings::Settings;
use crate::store::KnownDamage;
use log_wait::LogWaiters;
pub(crate) use log_wait::{BURIED_TOO_LATE, BacklogPause, KEPT_TOO_LATE, KEPT_WITHIN, LogWait};

/// The broker's time: milliseconds since it started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Octets of messages that a connection may still publish when publishers are held. Then it is not
/// read from any more; until then its acknowledgements go through.
pub(crate) const BLOCKED_ALLOWANCE: usize = 1024 * 1024;

/// Why publishers are held. A set: they go on when it is empty.
#[derive(Debug, Default)]
pub(crate) struct Alarms(AtomicU8);

/// One reason to hold publishers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Alarm {
    /// The process uses more memory than `limits.memory`.
    Memory = 1,
    /// The disk has less free space than `limits.disk_free`, or the store found none.
    Disk = 2,
    /// The store cannot be written any more.
    Store = 4,
}

impl Alarms {
    /// Whether publishers are held.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        // Relaxed: who misses a change now sees it with the next publish or wake-up.
        self.0.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn is_on(&self, alarm: Alarm) -> bool {
        self.0.load(Ordering::Relaxed) & alarm as u8 != 0
    }

    /// Sets or clears an alarm; gives whether that changed anything.
    pub(crate) fn set(&self, alarm: Alarm, on: bool) -> bool {
        let before = if on {
            self.0.fetch_or(alarm as u8, Ordering::Relaxed)
        } else {
            self.0.fetch_and(!(alarm as u8), Ordering::Relaxed)
        };
        (before & alarm as u8 != 0) != on
    }

    /// The reasons in the words of `connection.blocked`.
    pub(crate) fn reason(&self) -> String {
        let words = [
            (Alarm::Memory, "low on memory"),
            (Alarm::Disk, "low on disk"),
            (Alarm::Store, "the store cannot be written"),
        ];
        let on = words.iter().filter(|(alarm, _)| self.is_on(*alarm)).map(|(_, words)| *words);
        let on: Vec<&str> = on.collect();
        // It may just have ended.
        if on.is_empty() { "low on resources".to_owned() } else { on.join(" & ") }
    }
}

/// A connection in a list.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionRow {
    /// Identifies it in the broker.
    pub(crate) id: ConnectionId,
    /// `peer -> host`, as RabbitMQ names connections.
    pub(crate) name: String,
    pub(crate) peer: SocketAddr,
    pub(crate) host: SocketAddr,
    /// Whether it goes over TLS.
    pub(crate) ssl: bool,
    /// Such as `AMQP 0-9-1` or `STOMP 1.2`.
    pub(crate) protocol: String,
    /// Empty before login.
    pub(crate) user: String,
    /// Empty before login.
    pub(crate) vhost: String,
    /// Such as `running` or `blocked`.
    pub(crate) state: &'static str,
    pub(crate) auth_mechanism: &'static str,
    /// The heartbeat interval in seconds.
    pub(crate) timeout_secs: u64,
    pub(crate) frame_max: u32,
    pub(crate) channel_max: u16,
    /// What the client says of itself, as text.
    pub(crate) client_properties: Vec<(String, String)>,
    pub(crate) recv_oct: u64,
    pub(crate) send_oct: u64,
    /// Octets that wait to be written.
    pub(crate) send_pend: u64,
    /// Milliseconds since 1970.
    pub(crate) connected_at: u64,
    pub(crate) channels: Vec<ChannelRow>,
}

/// A channel in a list. A STOMP connection has one.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelRow {
    pub(crate) number: u16,
    /// It has published.
    pub(crate) publisher: bool,
    pub(crate) transactional: bool,
    pub(crate) confirm: bool,
    pub(crate) consumer_count: u64,
    pub(crate) messages_unacknowledged: u64,
    pub(crate) messages_unconfirmed: u64,
    pub(crate) messages_uncommitted: u64,
    pub(crate) acks_uncommitted: u64,
    pub(crate) prefetch_count: u32,
    pub(crate) global_prefetch_count: u32,
}

/// What others may do with a connection.
pub(crate) trait Connection: Send + Sync {
    /// Describes it at this moment.
    fn describe(&self) -> ConnectionRow;

    /// Asks it to say goodbye and close.
    fn close(&self, reason: &str);

    /// Lets its task look again (alarms, the durable mark).
    fn wake(&self);
}

/// All connections that are open.
#[derive(Default)]
pub(crate) struct Connections(RwLock<HashMap<ConnectionId, Arc<dyn Connection>>>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connections({})", self.len())
    }
}

impl Connections {
    pub(crate) fn insert(&self, id: ConnectionId, connection: Arc<dyn Connection>) {
        self.0.write().insert(id, connection);
    }

    pub(crate) fn remove(&self, id: ConnectionId) {
        self.0.write().remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// All of them, in the order in which they came.
    pub(crate) fn all(&self) -> Vec<Arc<dyn Connection>> {
        let mut all: Vec<_> =
            self.0.read().iter().map(|(id, connection)| (*id, Arc::clone(connection))).collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, connection)| connection).collect()
    }
}

/// Connections that have not logged in, of all protocols. At most `limits.pending_logins` of them: one more closes
/// the oldest, so that strangers who stay silent cannot keep others out.
pub(crate) struct PendingLogins {
    max: usize,
    closed: Counter,
    strangers: Mutex<Strangers>,
}

#[derive(Default)]
struct Strangers {
    /// How many there have ever been.
    arrivals: u64,
    by_arrival: BTreeMap<u64, Stranger>,
}

struct Stranger {
    peer: SocketAddr,
    /// Closes the connection, for a reason.
    close: Box<dyn FnOnce(&str) + Send>,
}

impl std::fmt::Debug for PendingLogins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingLogins({} of {})", self.len(), self.max)
    }
}

impl PendingLogins {
    fn new(max: u32, closed: Counter) -> Self {
        Self { max: max as usize, closed, strangers: Mutex::default() }
    }

    /// One more has come. `close` is called, once at most, when it is the oldest of too many.
    pub(crate) fn enter(
        self: &Arc<Self>,
        peer: SocketAddr,
        close: impl FnOnce(&str) + Send + 'static,
    ) -> PendingLogin {
        let newcomer = Stranger { peer, close: Box::new(close) };
        let (arrival, oldest) = {
            let mut strangers = self.strangers.lock();
            let full = strangers.by_arrival.len() >= self.max;
            let oldest = if full { strangers.by_arrival.pop_first() } else { None };
            let arrival = strangers.arrivals;
            strangers.arrivals += 1;
            strangers.by_arrival.insert(arrival, newcomer);
            (arrival, oldest)
        };
        // Not under the lock: closing takes that of an outlet.
        if let Some((_, Stranger { peer, close })) = oldest {
            if let Some(Line { left_out }) = seldom::STRANGER_CLOSED.line() {
                let max = self.max;
                warn!(%peer, max, left_out, "too many connections have not logged in: the oldest is closed");
            }
            close("too many connections have not logged in");
            self.closed.increment(1);
        }
        PendingLogin { among: Arc::clone(self), arrival }
    }

    pub(crate) fn len(&self) -> usize {
        self.strangers.lock().by_arrival.len()
    }

    /// How many there have ever been.
    #[cfg(test)]
    pub(crate) fn arrivals(&self) -> u64 {
        self.strangers.lock().arrivals
    }
}

/// A connection that has not logged in. Drop it when it has, or is gone.
#[derive(Debug)]
pub(crate) struct PendingLogin {
    among: Arc<PendingLogins>,
    arrival: u64,
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        // It may have been closed, and is then not there. What it held goes after the lock.
        let gone = self.among.strangers.lock().by_arrival.remove(&self.arrival);
        drop(gone);
    }
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) connections: Connections,
    pub(crate) seats: Seats,
    pub(crate) log_waiters: LogWaiters,
    /// The store, unless the broker keeps everything in memory, as in tests.
    pub(crate) store: Option<Arc<StoreLog>>,
    /// What was found damaged in the store.
    pub(crate) known_damage: KnownDamage,
    pub(crate) pending_logins: Arc<PendingLogins>,
    pub(crate) counters: Counters,
    pub(crate) alarms: Alarms,
    pub(crate) logins: Logins,
    /// `warren@host`, for lists and metrics.
    pub(crate) name: String,
}

impl Node {
    /// Whether what waits for the log waits in vain: it cannot be written any more.
    pub(crate) fn is_log_lost(&self) -> bool {
        self.alarms.is_on(Alarm::Store)
    }

    /// A node with a broker that was opened; `clock` is the one that the broker was given.
    pub(crate) fn new(
        settings: Settings,
        counters: Counters,
        broker: Broker,
        clock: Clock,
    ) -> Self {
        let closed = counters.pending_logins_closed.clone();
        Self {
            broker,
            clock,
            connections: Connections::default(),
            seats: Seats::new(&settings),
            log_waiters: LogWaiters::default(),
            store: None,
            known_damage: KnownDamage::default(),
            pending_logins: Arc::new(PendingLogins::new(settings.limits.pending_logins, closed)),
            counters,
            alarms: Alarms::default(),
            logins: Logins::new(&settings),
            name: name(),
            settings,
        }
    }
}

/// Confirms wait for the log: connections look again when it has moved.
impl DurableWatcher for Node {
    fn durable_moved(&self) {
        self.log_waiters.wake();
    }
}

impl Node {
    /// A node whose broker keeps everything in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(settings: Settings, counters: Counters) -> Self {
        let loopback_only = settings.auth.loopback_only_users.clone();
        let log = Arc::new(broker_core::log::MemoryLog::default());
        Self::new(settings, counters, Broker::new(log, loopback_only), Clock::start())
    }

    /// Damage known, a line each: what was found at the start and what was found since.
    pub(crate) fn damage(&self) -> Vec<String> {
        let store = self.store.as_ref();
        store.map(|log| self.known_damage.all(log, &self.broker)).unwrap_or_default()
    }
}

/// The name of the node of this process: `warren@host`.
pub(crate) fn name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("warren@{}", host.split('.').next().unwrap_or("localhost"))
}

/// Who is behind a connection, once logged in.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) user: UserName,
    pub(crate) vhost: VhostName,
    /// May set the `user-id` property to another name.
    pub(crate) impersonator: bool,
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::AtomicU64;

    use super::*;

    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 49152);

    /// Room for two strangers, and what became of those that came.
    struct Door {
        logins: Arc<PendingLogins>,
        counted: Arc<AtomicU64>,
        closed: Arc<Mutex<Vec<u32>>>,
    }

    impl Door {
        fn new() -> Self {
            let counted = Arc::new(AtomicU64::new(0));
            let counter = Counter::from_arc(Arc::clone(&counted));
            let logins = Arc::new(PendingLogins::new(2, counter));
            Self { logins, counted, closed: Arc::default() }
        }
        fn enter(&self, number: u32) -> PendingLogin {
            let closed = Arc::clone(&self.closed);
            self.logins.enter(PEER, move |_| closed.lock().push(number))
        }
        /// Strangers that were closed, in that order.
        #[track_caller]
        fn closed(&self) -> Vec<u32> {
            let closed = self.closed.lock().clone();
            assert_eq!(self.counted.load(Ordering::Relaxed), closed.len() as u64, "counted");
            closed
        }
    }

    #[test]
    fn one_stranger_too_many_closes_the_oldest() {
        let door = Door::new();
        let strangers: Vec<_> = (0..5).map(|number| door.enter(number)).collect();
        assert_eq!(door.closed(), [0, 1, 2]);
        assert_eq!(door.logins.len(), 2);
        drop(strangers);
        assert_eq!(door.logins.len(), 0);
        assert_eq!(door.closed(), [0, 1, 2], "who goes by himself is not closed");
    }

    #[test]
    fn who_has_logged_in_makes_room_and_is_never_closed() {
        let door = Door::new();
        let oldest = door.enter(0);
        let second = door.enter(1);
        drop(oldest);
        let third = door.enter(2);
        assert!(door.closed().is_empty());
        let fourth = door.enter(3);
        assert_eq!(door.closed(), [1]);
        drop((second, third, fourth));
        assert_eq!(door.logins.len(), 0);
    }
}
