//! What stands on a page: the broker's state at this moment, and the counters of the recorder.
//!
//! State is read once and written once, so that a page agrees with itself: `ready + unacked = messages`.
//! What vanishes from the broker vanishes from the next page.

use std::io;
use std::sync::Arc;

use broker_core::log::Log as _;

use broker_core::VirtualHost;
use broker_core::queue::{DeathReason, Depth, Queue};
use metrics_exporter_prometheus::PrometheusHandle;

use super::churn::QueueChurn;
use super::counted::Counted;
use super::families::{self as family, Family, Kind};
use super::page::Page;
use super::process;
use crate::counters::{Protocol, SIZE_CLASSES};
use crate::node::{self, Alarm, ChannelRow, ConnectionRow, Node};
use crate::opening::{Opening, Phase};
use crate::settings::machine;
use crate::watch;

/// Series of single objects on one page.
const SERIES_MAX: usize = 10_000;

/// What pages are made from.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) node: Arc<Node>,
    pub(super) recorder: PrometheusHandle,
    pub(super) churn: QueueChurn,
    pub(super) opening: Opening,
}

/// Families of `/metrics/detailed`, under RabbitMQ's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    QueueCoarse,
    QueueConsumerCount,
    Queue,
    ConnectionCoarse,
    Connection,
    Channel,
}

impl Group {
    pub(super) const ALL: [Self; 6] = [
        Self::QueueCoarse,
        Self::QueueConsumerCount,
        Self::Queue,
        Self::ConnectionCoarse,
        Self::Connection,
        Self::Channel,
    ];

    /// The value of the parameter `family`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::QueueCoarse => "queue_coarse_metrics",
            Self::QueueConsumerCount => "queue_consumer_count",
            Self::Queue => "queue_metrics",
            Self::ConnectionCoarse => "connection_coarse_metrics",
            Self::Connection => "connection_metrics",
            Self::Channel => "channel_metrics",
        }
    }
}

/// What a page is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// The whole broker, objects summed.
    Aggregated,
    /// The whole broker, object by object.
    PerObject,
    /// Objects of some groups, in some virtual hosts or in all (`None`).
    Detailed { groups: Vec<Group>, vhosts: Option<Vec<String>> },
}

impl Content {
    const fn endpoint(&self) -> &'static str {
        match self {
            Self::Aggregated => "aggregated",
            Self::PerObject => "per-object",
            Self::Detailed { .. } => "detailed",
        }
    }

    fn covers(&self, vhost: &str) -> bool {
        match self {
            Self::Detailed { vhosts: Some(only), .. } => only.iter().any(|name| name == vhost),
            _ => true,
        }
    }
}

/// A family, and its value for an object.
struct Value<R>(&'static Family, fn(&R) -> u64);

struct QueueState {
    vhost: Arc<VirtualHost>,
    queue: Arc<Queue>,
    depth: Depth,
}

const QUEUE_COARSE: [Value<QueueState>; 3] = [
    Value(&family::QUEUE_READY, |row| row.depth.ready),
    Value(&family::QUEUE_UNACKED, |row| row.depth.unacked),
    Value(&family::QUEUE_MESSAGES, |row| row.depth.ready + row.depth.unacked),
];
const QUEUE_CONSUMER_COUNT: [Value<QueueState>; 1] =
    [Value(&family::QUEUE_CONSUMERS, |row| row.depth.consumers)];
const QUEUE_BYTES: [Value<QueueState>; 3] = [
    Value(&family::QUEUE_READY_BYTES, |row| row.depth.ready_bytes),
    Value(&family::QUEUE_UNACKED_BYTES, |row| row.depth.unacked_bytes),
    Value(&family::QUEUE_BYTES, |row| row.depth.ready_bytes + row.depth.unacked_bytes),
];
const CONNECTION_COARSE: [Value<ConnectionRow>; 2] = [
    Value(&family::CONNECTION_INCOMING, |row| row.recv_oct),
    Value(&family::CONNECTION_OUTGOING, |row| row.send_oct),
];
const CONNECTION: [Value<ConnectionRow>; 1] =
    [Value(&family::CONNECTION_CHANNELS, |row| row.channels.len() as u64)];

struct ChannelState {
    name: String,
    row: ChannelRow,
}

const CHANNEL: [Value<ChannelState>; 7] = [
    Value(&family::CHANNEL_CONSUMERS, |state| state.row.consumer_count),
    Value(&family::CHANNEL_UNACKED, |state| state.row.messages_unacknowledged),
    Value(&family::CHANNEL_UNCONFIRMED, |state| state.row.messages_unconfirmed),
    Value(&family::CHANNEL_UNCOMMITTED, |state| state.row.messages_uncommitted),
    Value(&family::CHANNEL_ACKS_UNCOMMITTED, |state| state.row.acks_uncommitted),
    Value(&family::CONSUMER_PREFETCH, |state| state.row.prefetch_count.into()),
    Value(&family::CHANNEL_PREFETCH, |state| state.row.global_prefetch_count.into()),
];

/// The objects of the broker at one moment.
struct State {
    queues: Vec<QueueState>,
    connections: Vec<ConnectionRow>,
    channels: Vec<ChannelState>,
    created: u64,
    deleted: u64,
}

impl State {
    fn read(exporter: &Exporter, content: &Content) -> Self {
        let node = &exporter.node;
        let vhosts = node.broker.vhosts();
        let (created, deleted) = exporter.churn.read(&vhosts);
        let queues = vhosts
            .iter()
            .filter(|vhost| content.covers(vhost.name.as_str()))
            .flat_map(|vhost| {
                vhost.queues().into_iter().map(|queue| QueueState {
                    vhost: Arc::clone(vhost),
                    depth: queue.depth(),
                    queue,
                })
            })
            .collect();
        let connections: Vec<_> = node
            .connections
            .all()
            .iter()
            .map(|connection| connection.describe())
            .filter(|row| content.covers(&row.vhost))
            .collect();
        let channels = connections
            .iter()
            .flat_map(|connection| {
                connection.channels.iter().map(|row| ChannelState {
                    name: format!("{} ({})", connection.name, row.number),
                    row: row.clone(),
                })
            })
            .collect();
        Self { queues, connections, channels, created, deleted }
    }
}

/// Writes the page that `content` asks for.
///
/// # Errors
/// The reader is gone.
pub(super) async fn write(
    exporter: &Exporter,
    content: &Content,
    page: &mut Page,
) -> io::Result<()> {
    let state = State::read(exporter, content);
    identity(&exporter.node.name, content, page);
    let mut room = Room { left: SERIES_MAX, omitted: 0 };
    match content {
        Content::Aggregated => {
            broker(exporter, &state, page);
            sums(&state, page);
        }
        Content::PerObject => {
            broker(exporter, &state, page);
            objects(&state, &Group::ALL, page, &mut room).await?;
        }
        Content::Detailed { groups, .. } => objects(&state, groups, page, &mut room).await?,
    }
    page.single(&family::SERIES_OMITTED, &[], room.omitted);
    page.flush().await
}

/// Writes what can be said while the store is being opened: the process, and how far that is.
///
/// # Errors
/// The reader is gone.
pub(super) async fn write_opening(
    opening: &Opening,
    content: &Content,
    page: &mut Page,
) -> io::Result<()> {
    identity(&node::name(), content, page);
    match content {
        Content::Aggregated | Content::PerObject => {
            process_and_limits(page);
            store_opening(opening, page);
        }
        Content::Detailed { .. } => {}
    }
    page.flush().await
}

fn identity(name: &str, content: &Content, page: &mut Page) {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let labels = [
        ("rabbitmq_node", name),
        // One node is a cluster of its own, and keeps its name.
        ("rabbitmq_cluster", name),
        ("rabbitmq_cluster_permanent_id", name),
        ("rabbitmq_endpoint", content.endpoint()),
    ];
    page.single(&family::IDENTITY, &labels, 1);
    let labels = [
        ("rabbitmq_version", VERSION),
        ("prometheus_plugin_version", VERSION),
        ("prometheus_client_version", "n/a"),
        ("erlang_version", "n/a"),
        ("product_name", "Warren"),
        ("product_version", VERSION),
    ];
    page.single(&family::BUILD, &labels, 1);
}

fn process_and_limits(page: &mut Page) {
    process::write(page);
    if let Some(resident) = watch::resident_memory() {
        page.single(&family::RESIDENT_MEMORY, &[], resident);
        page.single(&family::PROCESS_RESIDENT_MEMORY, &[], resident);
    }
    let max_fds = machine::open_files_limit();
    page.single(&family::MAX_FDS, &[], max_fds);
    page.single(&family::PROCESS_MAX_FDS, &[], max_fds);
}

fn store_opening(opening: &Opening, page: &mut Page) {
    let now = opening.now();
    page.family(&family::STORE_OPEN_PHASE);
    for phase in Phase::ALL {
        let labels = [("phase", phase.word())];
        page.series(&family::STORE_OPEN_PHASE, &labels, u8::from(phase == now.phase));
    }
    let thousandths = now.thousandths();
    let ratio = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    page.single(&family::STORE_OPEN_RATIO, &[], ratio);
}

fn store(node: &Node, page: &mut Page) {
    let Some(log) = &node.store else { return };
    let (store, budget) = (log.store(), log.budget());
    let counters = store.counters();
    page.single(&family::STORE_DAMAGE, &[], node.damage().len());
    page.single(&family::STORE_COMMITS, &[], counters.frames);
    page.single(&family::STORE_APPENDED, &[], counters.appended_octets);
    page.single(&family::STORE_WRITTEN, &[], counters.log_octets);
    page.single(&family::STORE_SPILLED, &[], counters.spilled_octets);
    page.single(&family::STORE_COMPACTED, &[], counters.compacted_octets);
    page.single(&family::STORE_PREPARED, &[], counters.prepared_octets);
    page.single(&family::STORE_CHECKPOINTS, &[], counters.checkpoints);
    page.single(&family::STORE_SCRUBBED, &[], counters.scrubbed_octets);
    page.single(&family::STORE_SCRUBS, &[], counters.scrubs);
    page.single(&family::STORE_WRITE_FAILURES, &[], counters.write_failures);
    page.single(&family::STORE_INDEX_MEMORY, &[], store.index_octets());
    page.single(&family::STORE_CACHE_MEMORY, &[], store.cached_octets());
    page.single(&family::STORE_MESSAGE_MEMORY, &[], budget.used());
}

/// Everything that is not about single objects.
fn broker(exporter: &Exporter, state: &State, page: &mut Page) {
    let node = &exporter.node;
    let counted = Counted::read(&exporter.recorder.render());
    page.single(&family::UPTIME, &[], node.clock.now() / 1000);
    let durability = node.settings.durability.word();
    page.single(&family::DURABILITY, &[("durability", durability)], 1);
    process_and_limits(page);
    page.single(&family::MEMORY_LIMIT, &[], watch::memory_limit(node));
    if let Some(free) = watch::disk_free(node) {
        page.single(&family::DISK_FREE, &[], free);
    }
    page.single(&family::DISK_LIMIT, &[], node.settings.limits.disk_free.octets());
    let flag = |alarm| u8::from(node.alarms.is_on(alarm));
    page.single(&family::MEMORY_ALARM, &[], flag(Alarm::Memory));
    page.single(&family::DISK_ALARM, &[], flag(Alarm::Disk));
    page.single(&family::STORE_ALARM, &[], flag(Alarm::Store));
    store_opening(&exporter.opening, page);
    store(node, page);

    page.single(&family::CONNECTIONS, &[], state.connections.len());
    page.single(&family::CHANNELS, &[], state.channels.len());
    page.single(&family::QUEUES, &[], state.queues.len());
    let consumers: u64 = state.queues.iter().map(|row| row.depth.consumers).sum();
    page.single(&family::CONSUMERS, &[], consumers);
    page.single(&family::QUEUES_DECLARED, &[], state.created);
    page.single(&family::QUEUES_CREATED, &[], state.created);
    page.single(&family::QUEUES_DELETED, &[], state.deleted);

    for family in family::ALL.iter().filter(|family| family.kind == Kind::Counted) {
        page.family(family);
        for (labels, value) in counted.series(family.name) {
            page.written(family, labels, value);
        }
    }
    for (family, of) in [
        (&family::CHANNEL_UNROUTABLE_DROPPED, &family::UNROUTABLE_DROPPED),
        (&family::CHANNEL_UNROUTABLE_RETURNED, &family::UNROUTABLE_RETURNED),
    ] {
        page.single(family, &[], counted.sum(of.name));
    }
    page.family(&family::AUTH_ATTEMPTS);
    for (labels, succeeded) in counted.series(family::AUTH_SUCCEEDED.name) {
        let failed = counted.value(family::AUTH_FAILED.name, labels);
        page.written(&family::AUTH_ATTEMPTS, labels, succeeded + failed);
    }
    global_consumers(state, page);
    dead_letters(node, page);
    message_sizes(node, page);
}

fn dead_letters(node: &Node, page: &mut Page) {
    let dead = |reason| node.broker.dead_letters.count(reason);
    for (family, count) in [
        (&family::DEAD_CONFIRMED, 0),
        (&family::DEAD_DELIVERY_LIMIT, dead(DeathReason::DeliveryLimit)),
        (&family::DEAD_EXPIRED, dead(DeathReason::Expired)),
        (&family::DEAD_MAXLEN, dead(DeathReason::MaxLength)),
        (&family::DEAD_REJECTED, dead(DeathReason::Rejected)),
    ] {
        let labels =
            [("queue_type", "rabbit_classic_queue"), ("dead_letter_strategy", "at_most_once")];
        page.single(family, &labels, count);
    }
}

/// Consumers and publishers of each protocol.
fn global_consumers(state: &State, page: &mut Page) {
    by_protocol(state, page, &family::GLOBAL_CONSUMERS, |channel| channel.consumer_count);
    by_protocol(state, page, &family::GLOBAL_PUBLISHERS, |channel| channel.publisher.into());
}

fn by_protocol(
    state: &State,
    page: &mut Page,
    family: &'static Family,
    count: fn(&ChannelRow) -> u64,
) {
    page.family(family);
    for protocol in Protocol::ALL {
        let speaks = |row: &&ConnectionRow| match protocol {
            Protocol::Amqp => row.protocol.starts_with("AMQP"),
            Protocol::Stomp1_0 | Protocol::Stomp1_1 | Protocol::Stomp1_2 => {
                row.protocol == protocol.label()
            }
        };
        let channels = state.connections.iter().filter(speaks).flat_map(|row| &row.channels);
        let sum: u64 = channels.map(count).sum();
        page.series(family, &[("protocol", protocol.label())], sum);
    }
}

fn message_sizes(node: &Node, page: &mut Page) {
    let family = &family::MESSAGE_SIZE;
    page.family(family);
    for protocol in Protocol::ALL {
        let (classes, sum) = node.counters.of(protocol).sizes.read();
        let label = ("protocol", protocol.label());
        // Dashboards compare the bounds as text: `100.0`.
        let bounds = SIZE_CLASSES.iter().map(|bound| format!("{bound}.0"));
        let mut count = 0;
        for (class, bound) in classes.iter().zip(bounds.chain(["+Inf".to_owned()])) {
            count += class;
            page.sample(family, "_bucket", &[label, ("le", &bound)], count);
        }
        page.sample(family, "_count", &[label], count);
        page.sample(family, "_sum", &[label], sum);
    }
}

/// Objects summed. Octets of connections are left out: a sum over those that are open falls.
fn sums(state: &State, page: &mut Page) {
    fn sum<R>(rows: &[R], values: &[Value<R>], page: &mut Page) {
        for Value(family, value) in values {
            let total: u64 = rows.iter().map(value).sum();
            page.single(family, &[], total);
        }
    }
    sum(&state.queues, &QUEUE_COARSE, page);
    sum(&state.queues, &QUEUE_CONSUMER_COUNT, page);
    sum(&state.queues, &QUEUE_BYTES, page);
    sum(&state.connections, &CONNECTION, page);
    sum(&state.channels, &CHANNEL, page);
}

/// How many series of single objects there is room for.
struct Room {
    left: usize,
    omitted: usize,
}

impl Room {
    /// How many of `objects` go on the page, whole, with `each` series.
    fn take(&mut self, objects: usize, each: usize) -> usize {
        let fitting = objects.min(self.left / each);
        self.left -= fitting * each;
        self.omitted += (objects - fitting) * each;
        fitting
    }
}

async fn objects(
    state: &State,
    groups: &[Group],
    page: &mut Page,
    room: &mut Room,
) -> io::Result<()> {
    for group in Group::ALL.into_iter().filter(|group| groups.contains(group)) {
        let queue = |row: &QueueState| {
            [("vhost", row.vhost.name.to_string()), ("queue", row.queue.spec.name.to_string())]
        };
        let connection = |row: &ConnectionRow| [("connection", row.name.clone())];
        let channel = |state: &ChannelState| [("channel", state.name.clone())];
        match group {
            Group::QueueCoarse => {
                each(&state.queues, &QUEUE_COARSE, queue, page, room).await?;
            }
            Group::QueueConsumerCount => {
                each(&state.queues, &QUEUE_CONSUMER_COUNT, queue, page, room).await?;
            }
            Group::Queue => each(&state.queues, &QUEUE_BYTES, queue, page, room).await?,
            Group::ConnectionCoarse => {
                each(&state.connections, &CONNECTION_COARSE, connection, page, room).await?;
            }
            Group::Connection => {
                each(&state.connections, &CONNECTION, connection, page, room).await?;
            }
            Group::Channel => each(&state.channels, &CHANNEL, channel, page, room).await?,
        }
    }
    Ok(())
}

/// The families in `values`, with a series for each of `rows` for which there is room.
async fn each<R, const L: usize>(
    rows: &[R],
    values: &[Value<R>],
    labels: impl Fn(&R) -> [(&'static str, String); L],
    page: &mut Page,
    room: &mut Room,
) -> io::Result<()> {
    let fitting = room.take(rows.len(), values.len());
    for Value(family, value) in values {
        page.family(family);
        for row in rows.iter().take(fitting) {
            let labels = labels(row);
            let labels = labels.each_ref().map(|(name, value)| (*name, value.as_str()));
            page.series(family, &labels, value(row));
            page.breathe().await?;
        }
    }
    Ok(())
}
