//! Lists with columns: one table of columns for each kind, a line a column, under rabbitmqctl's names.
//!
//! A column is a name and a function from a row to JSON. What rabbitmqctl has and this broker has no value for
//! is named in `absent`, so that a script is told so instead of being given a made-up number. Rows come in
//! the order of their names, connections in the order of their arrival.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use broker_core::VirtualHost;
use broker_core::access::PermissionSpec;
use broker_core::arguments::{Arguments, Value as Argument};
use broker_core::consumer::ConnectionId;
use broker_core::exchange::{Binding, Destination, ExchangeSpec};
use broker_core::name::VhostName;
use broker_core::queue::arguments::QueueType;
use broker_core::queue::{ConsumerListing, Depth, Queue};
use serde_json::{Value, json};

use super::protocol::{Refusal, Refused, did_you_mean};
use crate::node::{ChannelRow, ConnectionRow, Node};

/// Columns and rows of a list.
pub(super) type Listed = Result<(Vec<String>, Vec<Vec<Value>>), Refused>;

/// A column: its name, and its value for a row.
struct Column<R>(&'static str, fn(&R) -> Value);

/// What can be listed about one kind of object.
struct Columns<R: 'static> {
    all: &'static [Column<R>],
    /// Listed when none is asked for.
    usual: &'static [&'static str],
    /// Columns of rabbitmqctl that this broker has no value for.
    absent: &'static [&'static str],
}

impl<R> Columns<R> {
    /// The columns `asked` for of the rows in `source`.
    fn list(&self, asked: Vec<String>, source: impl IntoIterator<Item = R>) -> Listed {
        let names = if asked.is_empty() {
            self.usual.iter().map(|name| (*name).to_owned()).collect()
        } else {
            asked
        };
        let chosen: Vec<_> = names.iter().map(|name| self.find(name)).collect::<Result<_, _>>()?;
        let rows = source
            .into_iter()
            .map(|row| chosen.iter().map(|value| value(&row)).collect())
            .collect();
        Ok((names, rows))
    }

    fn find(&self, name: &str) -> Result<fn(&R) -> Value, Refused> {
        if let Some(Column(_, value)) = self.all.iter().find(|Column(known, _)| *known == name) {
            return Ok(*value);
        }
        let known = || self.all.iter().map(|Column(name, _)| *name);
        let all = known().collect::<Vec<_>>().join(", ");
        if self.absent.contains(&name) {
            let why = format!("this broker has no value for the column '{name}'; it has {all}");
            return Err(Refusal::Usage.because(why));
        }
        let help = match did_you_mean(name, known()) {
            none if none.is_empty() => format!("; there are {all}"),
            near => near,
        };
        Err(Refusal::Usage.because(format!("there is no column '{name}'{help}")))
    }
}

/// The word for a connection in columns called `pid`; `close_connection` takes it.
pub(super) fn connection_pid(node: &str, id: ConnectionId) -> String {
    format!("<{node}.{}.0>", id.0)
}

fn channel_pid(node: &str, id: ConnectionId, channel: u16) -> String {
    format!("<{node}.{}.{channel}>", id.0)
}

fn channel_name(connection: &ConnectionRow, channel: &ChannelRow) -> String {
    format!("{} ({})", connection.name, channel.number)
}

/// The words for channels, by the names under which queues know them; asked for when first needed.
struct ChannelPids {
    node: Arc<Node>,
    by_name: OnceCell<HashMap<String, String>>,
}

impl ChannelPids {
    fn new(node: &Arc<Node>) -> Rc<Self> {
        Rc::new(Self { node: Arc::clone(node), by_name: OnceCell::new() })
    }

    /// Empty when the channel has just been closed.
    fn of(&self, channel: &str) -> &str {
        let by_name = self.by_name.get_or_init(|| {
            channels_of(&self.node)
                .map(|row| {
                    let pid = channel_pid(&row.node.name, row.connection.id, row.channel.number);
                    (channel_name(&row.connection, &row.channel), pid)
                })
                .collect()
        });
        by_name.get(channel).map_or("", String::as_str)
    }
}

// ---- queues ----

struct QueueRow {
    node: Arc<Node>,
    queue: Arc<Queue>,
    depth: Depth,
    channels: Rc<ChannelPids>,
}

impl QueueRow {
    /// Where a queue is kept when it may be kept on several nodes; there is only this one.
    fn quorum(&self, value: Value) -> Value {
        match self.queue.spec.settings.queue_type {
            QueueType::Quorum => value,
            QueueType::Classic => json!(""),
        }
    }

    fn exclusive_consumer(&self) -> Option<ConsumerListing> {
        self.queue.consumers().into_iter().find(|consumer| consumer.exclusive)
    }
}

const QUEUES: Columns<QueueRow> = Columns {
    all: &[
        Column("name", |row| json!(row.queue.spec.name.as_str())),
        Column("durable", |row| json!(row.queue.spec.durable)),
        Column("auto_delete", |row| json!(row.queue.spec.auto_delete)),
        Column("arguments", |row| table(&row.queue.spec.arguments)),
        // There are no policies, so that none applies.
        Column("policy", |_| json!("")),
        Column("owner_pid", |row| {
            let owner = row.queue.spec.exclusive_owner;
            json!(owner.map_or_else(String::new, |id| connection_pid(&row.node.name, id)))
        }),
        Column("exclusive", |row| json!(row.queue.spec.exclusive_owner.is_some())),
        Column("exclusive_consumer_pid", |row| match row.exclusive_consumer() {
            Some(consumer) => json!(row.channels.of(&consumer.channel)),
            None => json!(""),
        }),
        Column("exclusive_consumer_tag", |row| match row.exclusive_consumer() {
            Some(consumer) => json!(&*consumer.tag),
            None => json!(""),
        }),
        Column("messages_ready", |row| json!(row.depth.ready)),
        Column("messages_unacknowledged", |row| json!(row.depth.unacked)),
        Column("messages", |row| json!(row.depth.ready + row.depth.unacked)),
        Column("message_bytes_ready", |row| json!(row.depth.ready_bytes)),
        Column("message_bytes_unacknowledged", |row| json!(row.depth.unacked_bytes)),
        Column("message_bytes", |row| json!(row.depth.ready_bytes + row.depth.unacked_bytes)),
        Column("consumers", |row| json!(row.depth.consumers)),
        // A queue that is found is served: none is ever stopped or crashed.
        Column("state", |_| json!("running")),
        Column("type", |row| json!(row.queue.spec.settings.queue_type.as_str())),
        Column("leader", |row| row.quorum(json!(row.node.name))),
        Column("members", |row| row.quorum(json!([row.node.name]))),
        Column("online", |row| row.quorum(json!([row.node.name]))),
    ],
    usual: &["name", "messages"],
    absent: &[
        "pid",
        "operator_policy",
        "effective_policy_definition",
        "messages_ready_ram",
        "messages_unacknowledged_ram",
        "messages_ram",
        "messages_persistent",
        "message_bytes_ram",
        "message_bytes_persistent",
        "head_message_timestamp",
        "disk_reads",
        "disk_writes",
        "consumer_utilisation",
        "consumer_capacity",
        "memory",
        "slave_pids",
        "synchronised_slave_pids",
    ],
};

pub(super) fn queues(node: &Arc<Node>, vhost: &VirtualHost, columns: Vec<String>) -> Listed {
    let channels = ChannelPids::new(node);
    let rows = vhost.queues().into_iter().map(|queue| QueueRow {
        node: Arc::clone(node),
        depth: queue.depth(),
        queue,
        channels: Rc::clone(&channels),
    });
    QUEUES.list(columns, rows)
}

// ---- exchanges and bindings ----

const EXCHANGES: Columns<ExchangeSpec> = Columns {
    all: &[
        Column("name", |row| json!(row.name.as_str())),
        Column("type", |row| json!(row.kind.as_str())),
        Column("durable", |row| json!(row.durable)),
        Column("auto_delete", |row| json!(row.auto_delete)),
        Column("internal", |row| json!(row.internal)),
        Column("arguments", |row| table(&row.arguments)),
        Column("policy", |_| json!("")),
    ],
    usual: &["name", "type"],
    absent: &[],
};

pub(super) fn exchanges(vhost: &VirtualHost, columns: Vec<String>) -> Listed {
    EXCHANGES.list(columns, vhost.exchanges())
}

const BINDINGS: Columns<Binding> = Columns {
    all: &[
        Column("source_name", |row| json!(row.source.as_str())),
        Column("source_kind", |_| json!("exchange")),
        Column("destination_name", |row| match &row.destination {
            Destination::Queue(name) => json!(name.as_str()),
            Destination::Exchange(name) => json!(name.as_str()),
        }),
        Column("destination_kind", |row| match &row.destination {
            Destination::Queue(_) => json!("queue"),
            Destination::Exchange(_) => json!("exchange"),
        }),
        Column("routing_key", |row| json!(String::from_utf8_lossy(&row.routing_key))),
        Column("arguments", |row| table(&row.arguments)),
    ],
    usual: &[
        "source_name",
        "source_kind",
        "destination_name",
        "destination_kind",
        "routing_key",
        "arguments",
    ],
    absent: &["vhost"],
};

pub(super) fn bindings(vhost: &VirtualHost, columns: Vec<String>) -> Listed {
    BINDINGS.list(columns, vhost.bindings())
}

// ---- connections and channels ----

struct OpenConnection {
    node: Arc<Node>,
    row: ConnectionRow,
}

const CONNECTIONS: Columns<OpenConnection> = Columns {
    all: &[
        Column("pid", |open| json!(connection_pid(&open.node.name, open.row.id))),
        Column("name", |open| json!(open.row.name)),
        Column("port", |open| json!(open.row.host.port())),
        Column("host", |open| json!(open.row.host.ip())),
        Column("peer_port", |open| json!(open.row.peer.port())),
        Column("peer_host", |open| json!(open.row.peer.ip())),
        Column("ssl", |open| json!(open.row.ssl)),
        Column("state", |open| json!(open.row.state)),
        Column("channels", |open| json!(open.row.channels.len())),
        Column("protocol", |open| json!(open.row.protocol)),
        Column("auth_mechanism", |open| json!(open.row.auth_mechanism)),
        Column("user", |open| json!(open.row.user)),
        Column("vhost", |open| json!(open.row.vhost)),
        Column("timeout", |open| json!(open.row.timeout_secs)),
        Column("frame_max", |open| json!(open.row.frame_max)),
        Column("channel_max", |open| json!(open.row.channel_max)),
        Column("client_properties", |open| {
            let properties = open.row.client_properties.iter();
            properties.map(|(name, text)| json!([name, "longstr", text])).collect()
        }),
        Column("recv_oct", |open| json!(open.row.recv_oct)),
        Column("send_oct", |open| json!(open.row.send_oct)),
        Column("send_pend", |open| json!(open.row.send_pend)),
        Column("connected_at", |open| json!(open.row.connected_at)),
    ],
    usual: &["user", "peer_host", "peer_port", "state"],
    absent: &[
        "ssl_protocol",
        "ssl_key_exchange",
        "ssl_cipher",
        "ssl_hash",
        "peer_cert_subject",
        "peer_cert_issuer",
        "peer_cert_validity",
        "container_id",
        "recv_cnt",
        "send_cnt",
    ],
};

fn open_connections(node: &Arc<Node>) -> impl Iterator<Item = OpenConnection> {
    let open = node.connections.all().into_iter();
    open.map(|connection| OpenConnection { node: Arc::clone(node), row: connection.describe() })
}

pub(super) fn connections(node: &Arc<Node>, columns: Vec<String>) -> Listed {
    CONNECTIONS.list(columns, open_connections(node))
}

struct OpenChannel {
    node: Arc<Node>,
    connection: Arc<ConnectionRow>,
    channel: ChannelRow,
}

const CHANNELS: Columns<OpenChannel> = Columns {
    all: &[
        Column("pid", |open| {
            json!(channel_pid(&open.node.name, open.connection.id, open.channel.number))
        }),
        Column("connection", |open| json!(connection_pid(&open.node.name, open.connection.id))),
        Column("name", |open| json!(channel_name(&open.connection, &open.channel))),
        Column("number", |open| json!(open.channel.number)),
        Column("user", |open| json!(open.connection.user)),
        Column("vhost", |open| json!(open.connection.vhost)),
        Column("transactional", |open| json!(open.channel.transactional)),
        Column("confirm", |open| json!(open.channel.confirm)),
        Column("consumer_count", |open| json!(open.channel.consumer_count)),
        Column("messages_unacknowledged", |open| json!(open.channel.messages_unacknowledged)),
        Column("messages_uncommitted", |open| json!(open.channel.messages_uncommitted)),
        Column("acks_uncommitted", |open| json!(open.channel.acks_uncommitted)),
        Column("messages_unconfirmed", |open| json!(open.channel.messages_unconfirmed)),
        Column("prefetch_count", |open| json!(open.channel.prefetch_count)),
        Column("global_prefetch_count", |open| json!(open.channel.global_prefetch_count)),
    ],
    usual: &["pid", "user", "consumer_count", "messages_unacknowledged"],
    absent: &[],
};

fn channels_of(node: &Arc<Node>) -> impl Iterator<Item = OpenChannel> {
    open_connections(node).flat_map(|OpenConnection { node, mut row }| {
        let channels = std::mem::take(&mut row.channels);
        let connection = Arc::new(row);
        channels.into_iter().map(move |channel| OpenChannel {
            node: Arc::clone(&node),
            connection: Arc::clone(&connection),
            channel,
        })
    })
}

pub(super) fn channels(node: &Arc<Node>, columns: Vec<String>) -> Listed {
    CHANNELS.list(columns, channels_of(node))
}

// ---- consumers ----

struct ConsumerRow {
    queue: Arc<Queue>,
    consumer: ConsumerListing,
    channels: Rc<ChannelPids>,
}

const CONSUMERS: Columns<ConsumerRow> = Columns {
    all: &[
        Column("queue_name", |row| json!(row.queue.spec.name.as_str())),
        Column("channel_pid", |row| json!(row.channels.of(&row.consumer.channel))),
        Column("consumer_tag", |row| json!(&*row.consumer.tag)),
        Column("ack_required", |row| json!(row.consumer.ack_required)),
        Column("prefetch_count", |row| json!(row.consumer.prefetch_count)),
        Column("active", |row| json!(row.consumer.active)),
        Column("activity_status", |row| {
            let single = row.queue.spec.settings.single_active_consumer;
            json!(match (row.consumer.active, single) {
                (true, false) => "up",
                (true, true) => "single_active",
                (false, _) => "waiting",
            })
        }),
        Column("arguments", |row| table(&row.consumer.arguments)),
    ],
    usual: &[
        "queue_name",
        "channel_pid",
        "consumer_tag",
        "ack_required",
        "prefetch_count",
        "active",
        "arguments",
    ],
    absent: &[],
};

pub(super) fn consumers(node: &Arc<Node>, vhost: &VirtualHost, columns: Vec<String>) -> Listed {
    let channels = ChannelPids::new(node);
    let rows = vhost.queues().into_iter().flat_map(|queue| {
        let channels = Rc::clone(&channels);
        queue.consumers().into_iter().map(move |consumer| ConsumerRow {
            queue: Arc::clone(&queue),
            consumer,
            channels: Rc::clone(&channels),
        })
    });
    CONSUMERS.list(columns, rows)
}

// ---- virtual hosts, users, permissions ----

const VHOSTS: Columns<VhostName> = Columns {
    all: &[
        Column("name", |name| json!(name.as_str())),
        // Nothing is traced: the exchange amq.rabbitmq.trace is there and silent.
        Column("tracing", |_| json!(false)),
    ],
    usual: &["name"],
    absent: &["cluster_state", "default_queue_type", "description", "tags", "metadata"],
};

pub(super) fn vhosts(node: &Node, columns: Vec<String>) -> Listed {
    let names = node.broker.vhosts().into_iter().map(|vhost| vhost.name.clone());
    VHOSTS.list(columns, names)
}

/// All users with their tags; this list has no choice of columns.
pub(super) fn users(node: &Node) -> (Vec<String>, Vec<Vec<Value>>) {
    let users = node.broker.access.users();
    let rows = users.iter().map(|user| vec![json!(user.name.as_str()), json!(user.tags)]);
    (["user", "tags"].map(str::to_owned).into(), rows.collect())
}

/// The permissions for which `first` gives the value of the first column, called `heading`.
pub(super) fn permissions(
    node: &Node,
    heading: &str,
    first: impl Fn(&str, &str) -> Option<Value>,
) -> (Vec<String>, Vec<Vec<Value>>) {
    let rows = node.broker.access.permissions().into_iter().filter_map(|(user, vhost, spec)| {
        let PermissionSpec { configure, write, read } = spec;
        Some(vec![
            first(user.as_str(), vhost.as_str())?,
            configure.into(),
            write.into(),
            read.into(),
        ])
    });
    ([heading, "configure", "write", "read"].map(str::to_owned).into(), rows.collect())
}

// ---- arguments ----

/// A field table as rabbitmqctl writes it to JSON: name, type and value of each entry.
fn table(arguments: &Arguments) -> Value {
    let entry = |(name, value): (&str, &Argument)| {
        let (kind, value) = typed(value);
        json!([name, kind, value])
    };
    arguments.iter().map(entry).collect()
}

/// The type's name and the value in JSON.
fn typed(argument: &Argument) -> (&'static str, Value) {
    let value = match argument {
        Argument::Bool(value) => json!(value),
        Argument::Float(value) => json!(value),
        Argument::Double(value) => json!(value),
        Argument::Decimal(scale, value) => json!([scale, value]),
        Argument::LongString(octets) | Argument::Binary(octets) => {
            json!(String::from_utf8_lossy(octets))
        }
        Argument::Timestamp(seconds) => json!(seconds),
        Argument::Void => json!("undefined"),
        Argument::Array(values) => values
            .iter()
            .map(|value| {
                let (kind, value) = typed(value);
                json!([kind, value])
            })
            .collect(),
        Argument::Table(arguments) => table(arguments),
        Argument::Byte(_)
        | Argument::UnsignedByte(_)
        | Argument::Short(_)
        | Argument::UnsignedShort(_)
        | Argument::SignedInt(_)
        | Argument::UnsignedInt(_)
        | Argument::Long(_) => json!(argument.as_integer()),
    };
    (argument.type_name(), value)
}
