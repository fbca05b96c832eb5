//! Definitions in the log: virtual hosts, users, permissions, exchanges, queues and bindings.
//!
//! Each is a key and a value, both JSON, so that whoever looks into a store with other tools can read them. The key
//! is `{"kind": name}`, with a list where it takes several names to say which; the value has the rest. They are
//! records of the same log as the messages, in the order in which things happened: whoever finds a message finds its
//! queue too.
//!
//! | kind | key | value |
//! |---|---|---|
//! | `initialised` | | nothing: the first user and virtual host have been made |
//! | `queue_ids` | | numbers below this may have been given to queues |
//! | `vhost` | name | |
//! | `user` | name | tags, password hash |
//! | `permission` | user, virtual host | the three patterns |
//! | `exchange` | virtual host, name | type, flags, arguments |
//! | `queue` | virtual host, name | id, flags, arguments |
//! | `binding` | virtual host, source, kind and name of the destination, routing key, arguments | |
//!
//! Public is only [`queue_of`], for tools that look at a store and have numbers of queues to name.

use serde::{Deserialize, Serialize};

use crate::access::{PasswordHash, PermissionSpec, User};
use crate::arguments::{Arguments, Value};
use crate::exchange::{Binding, Destination, ExchangeSpec, ExchangeType};
use crate::log::records::Records;
use crate::log::{Log, LogPosition};
use crate::name::{ExchangeName, NameTooLong, QueueName, UserName, VhostName};
use crate::queue::{QueueId, QueueSpec};
use crate::storage::StorageError;

/// Octets as JSON: text where they are UTF-8, numbers otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Octets {
    Text(String),
    Numbers(Vec<u8>),
}

impl From<&[u8]> for Octets {
    fn from(octets: &[u8]) -> Self {
        match std::str::from_utf8(octets) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Numbers(octets.to_vec()),
        }
    }
}

impl From<Octets> for Box<[u8]> {
    fn from(octets: Octets) -> Self {
        match octets {
            Octets::Text(text) => text.into_bytes().into(),
            Octets::Numbers(numbers) => numbers.into(),
        }
    }
}

/// A value of a field table as JSON; floats by their bits, since JSON has no NaN.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Argument {
    Bool(bool),
    Byte(i8),
    UnsignedByte(u8),
    Short(i16),
    UnsignedShort(u16),
    Int(i32),
    UnsignedInt(u32),
    Long(i64),
    FloatBits(u32),
    DoubleBits(u64),
    Decimal(u8, u32),
    String(Octets),
    Array(Vec<Self>),
    Timestamp(u64),
    Table(Table),
    Void,
    Binary(Octets),
}

type Table = Vec<(String, Argument)>;

impl From<&Value> for Argument {
    fn from(value: &Value) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(*value),
            Value::Byte(value) => Self::Byte(*value),
            Value::UnsignedByte(value) => Self::UnsignedByte(*value),
            Value::Short(value) => Self::Short(*value),
            Value::UnsignedShort(value) => Self::UnsignedShort(*value),
            Value::SignedInt(value) => Self::Int(*value),
            Value::UnsignedInt(value) => Self::UnsignedInt(*value),
            Value::Long(value) => Self::Long(*value),
            Value::Float(value) => Self::FloatBits(value.to_bits()),
            Value::Double(value) => Self::DoubleBits(value.to_bits()),
            Value::Decimal(scale, value) => Self::Decimal(*scale, *value),
            Value::LongString(octets) => Self::String(Octets::from(&**octets)),
            Value::Array(values) => Self::Array(values.iter().map(Self::from).collect()),
            Value::Timestamp(seconds) => Self::Timestamp(*seconds),
            Value::Table(table) => Self::Table(table_of(table)),
            Value::Void => Self::Void,
            Value::Binary(octets) => Self::Binary(Octets::from(&**octets)),
        }
    }
}

impl From<Argument> for Value {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Bool(value) => Self::Bool(value),
            Argument::Byte(value) => Self::Byte(value),
            Argument::UnsignedByte(value) => Self::UnsignedByte(value),
            Argument::Short(value) => Self::Short(value),
            Argument::UnsignedShort(value) => Self::UnsignedShort(value),
            Argument::Int(value) => Self::SignedInt(value),
            Argument::UnsignedInt(value) => Self::UnsignedInt(value),
            Argument::Long(value) => Self::Long(value),
            Argument::FloatBits(bits) => Self::Float(f32::from_bits(bits)),
            Argument::DoubleBits(bits) => Self::Double(f64::from_bits(bits)),
            Argument::Decimal(scale, value) => Self::Decimal(scale, value),
            Argument::String(octets) => Self::LongString(octets.into()),
            Argument::Array(values) => Self::Array(values.into_iter().map(Self::from).collect()),
            Argument::Timestamp(seconds) => Self::Timestamp(seconds),
            Argument::Table(table) => Self::Table(arguments_of(table)),
            Argument::Void => Self::Void,
            Argument::Binary(octets) => Self::Binary(octets.into()),
        }
    }
}

fn table_of(arguments: &Arguments) -> Table {
    arguments.iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn arguments_of(table: Table) -> Arguments {
    table.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum To {
    Queue,
    Exchange,
}

/// What a definition is about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Initialised,
    QueueIds,
    Vhost(String),
    User(String),
    Permission(String, String),
    Exchange(String, String),
    Queue(String, String),
    Binding(String, String, To, String, Octets, Table),
}

#[derive(Debug, Serialize, Deserialize)]
struct UserValue {
    tags: Vec<String>,
    algorithm: String,
    hash: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct PermissionValue {
    configure: String,
    write: String,
    read: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExchangeValue {
    #[serde(rename = "type")]
    kind: String,
    auto_delete: bool,
    internal: bool,
    arguments: Table,
}

#[derive(Debug, Serialize, Deserialize)]
struct QueueValue {
    id: u64,
    auto_delete: bool,
    arguments: Table,
}

/// A definition that was read back.
#[derive(Debug)]
pub(crate) enum Definition {
    Initialised,
    QueueIds(u64),
    Vhost(VhostName),
    User(User),
    Permission(UserName, VhostName, PermissionSpec),
    Exchange(VhostName, ExchangeSpec),
    /// The arguments are as given, and not parsed.
    Queue(VhostName, DurableQueue),
    Binding(VhostName, Binding),
}

/// A durable queue as it was declared.
#[derive(Debug)]
pub(crate) struct DurableQueue {
    pub(crate) id: QueueId,
    pub(crate) name: QueueName,
    pub(crate) auto_delete: bool,
    pub(crate) arguments: Arguments,
}

/// The durable queue that a definition is about: its number in the store, its virtual host and its name. `None` where
/// the definition is about something else, or cannot be understood.
#[must_use]
pub fn queue_of(key: &[u8], value: &[u8]) -> Option<(QueueId, VhostName, QueueName)> {
    match Definition::read(key, value) {
        Ok(Definition::Queue(vhost, queue)) => Some((queue.id, vhost, queue.name)),
        _ => None,
    }
}

/// A definition that cannot be read: another program has written it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Name(#[from] NameTooLong),
    #[error("{0}")]
    Exchange(#[from] crate::error::Refusal),
    #[error("{0}")]
    Password(#[from] crate::access::PasswordHashError),
}

impl Definition {
    /// What a thing stands in has a lower one.
    pub(crate) const fn rank(&self) -> u8 {
        match self {
            Self::Initialised | Self::QueueIds(_) | Self::Vhost(_) | Self::User(_) => 0,
            Self::Permission(..) | Self::Exchange(..) | Self::Queue(..) => 1,
            Self::Binding(..) => 2,
        }
    }

    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Self, Unreadable> {
        Ok(match serde_json::from_slice(key)? {
            Key::Initialised => Self::Initialised,
            Key::QueueIds => Self::QueueIds(serde_json::from_slice(value)?),
            Key::Vhost(name) => Self::Vhost(VhostName::new(&name)?),
            Key::User(name) => {
                let UserValue { tags, algorithm, hash } = serde_json::from_slice(value)?;
                let password = PasswordHash::from_text(&hash, &algorithm)?;
                Self::User(User { name: UserName::new(&name)?, tags, password })
            }
            Key::Permission(user, vhost) => {
                let PermissionValue { configure, write, read } = serde_json::from_slice(value)?;
                let spec = PermissionSpec { configure, write, read };
                Self::Permission(UserName::new(&user)?, VhostName::new(&vhost)?, spec)
            }
            Key::Exchange(vhost, name) => {
                let value: ExchangeValue = serde_json::from_slice(value)?;
                let spec = ExchangeSpec {
                    name: ExchangeName::new(&name)?,
                    kind: ExchangeType::parse(&value.kind)?,
                    durable: true,
                    auto_delete: value.auto_delete,
                    internal: value.internal,
                    arguments: arguments_of(value.arguments),
                };
                Self::Exchange(VhostName::new(&vhost)?, spec)
            }
            Key::Queue(vhost, name) => {
                let value: QueueValue = serde_json::from_slice(value)?;
                let queue = DurableQueue {
                    id: QueueId(value.id),
                    name: QueueName::new(&name)?,
                    auto_delete: value.auto_delete,
                    arguments: arguments_of(value.arguments),
                };
                Self::Queue(VhostName::new(&vhost)?, queue)
            }
            Key::Binding(vhost, source, to, name, routing_key, arguments) => {
                let destination = match to {
                    To::Queue => Destination::Queue(QueueName::new(&name)?),
                    To::Exchange => Destination::Exchange(ExchangeName::new(&name)?),
                };
                let binding = Binding {
                    source: ExchangeName::new(&source)?,
                    destination,
                    routing_key: routing_key.into(),
                    arguments: arguments_of(arguments),
                };
                Self::Binding(VhostName::new(&vhost)?, binding)
            }
        })
    }
}

/// Changes of definitions that the log takes in one step.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    puts: Vec<(Vec<u8>, Vec<u8>)>,
    deletes: Vec<Vec<u8>>,
    deleted_queues: Vec<QueueId>,
}

/// JSON of a key or value: strings, numbers and lists of them cannot fail to be written.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.deletes.is_empty() && self.deleted_queues.is_empty()
    }

    /// Appends all of it as one batch.
    pub(crate) fn append(&self, log: &dyn Log) -> Result<LogPosition, StorageError> {
        if self.is_empty() || !log.keeps() {
            return Ok(LogPosition::START);
        }
        Records::with(|records| {
            for (key, value) in &self.puts {
                records.put(key, value);
            }
            for key in &self.deletes {
                records.delete(key);
            }
            for queue in &self.deleted_queues {
                records.delete_queue(*queue);
            }
            records.append(log, &[])
        })
    }

    fn put(&mut self, key: &Key, value: &impl Serialize) {
        self.puts.push((json(key), json(value)));
    }

    fn delete(&mut self, key: &Key) {
        self.deletes.push(json(key));
    }

    pub(crate) fn initialised(&mut self) {
        self.put(&Key::Initialised, &());
    }

    pub(crate) fn queue_ids(&mut self, below: u64) {
        self.put(&Key::QueueIds, &below);
    }

    pub(crate) fn put_vhost(&mut self, name: &VhostName) {
        self.put(&Key::Vhost(name.to_string()), &());
    }

    pub(crate) fn delete_vhost(&mut self, name: &VhostName) {
        self.delete(&Key::Vhost(name.to_string()));
    }

    pub(crate) fn put_user(&mut self, user: &User) {
        let (algorithm, hash) = user.password.to_text();
        let (tags, algorithm) = (user.tags.clone(), algorithm.to_owned());
        self.put(&Key::User(user.name.to_string()), &UserValue { tags, algorithm, hash });
    }

    pub(crate) fn delete_user(&mut self, name: &UserName) {
        self.delete(&Key::User(name.to_string()));
    }

    pub(crate) fn put_permission(
        &mut self,
        user: &UserName,
        vhost: &VhostName,
        spec: &PermissionSpec,
    ) {
        let PermissionSpec { configure, write, read } = spec.clone();
        let key = Key::Permission(user.to_string(), vhost.to_string());
        self.put(&key, &PermissionValue { configure, write, read });
    }

    pub(crate) fn delete_permission(&mut self, user: &UserName, vhost: &VhostName) {
        self.delete(&Key::Permission(user.to_string(), vhost.to_string()));
    }

    pub(crate) fn put_exchange(&mut self, vhost: &VhostName, spec: &ExchangeSpec) {
        let value = ExchangeValue {
            kind: spec.kind.as_str().to_owned(),
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: table_of(&spec.arguments),
        };
        self.put(&Key::Exchange(vhost.to_string(), spec.name.to_string()), &value);
    }

    pub(crate) fn delete_exchange(&mut self, vhost: &VhostName, name: &ExchangeName) {
        self.delete(&Key::Exchange(vhost.to_string(), name.to_string()));
    }

    pub(crate) fn put_queue(&mut self, vhost: &VhostName, id: QueueId, spec: &QueueSpec) {
        let arguments = table_of(&spec.arguments);
        let value = QueueValue { id: id.0, auto_delete: spec.auto_delete, arguments };
        self.put(&Key::Queue(vhost.to_string(), spec.name.to_string()), &value);
    }

    /// A queue goes with its messages.
    pub(crate) fn delete_queue(&mut self, vhost: &VhostName, id: QueueId, name: &QueueName) {
        self.delete(&Key::Queue(vhost.to_string(), name.to_string()));
        self.deleted_queues.push(id);
    }

    pub(crate) fn put_binding(&mut self, vhost: &VhostName, binding: &Binding) {
        self.put(&binding_key(vhost, binding), &());
    }

    pub(crate) fn delete_binding(&mut self, vhost: &VhostName, binding: &Binding) {
        self.delete(&binding_key(vhost, binding));
    }
}

fn binding_key(vhost: &VhostName, binding: &Binding) -> Key {
    let (to, name) = match &binding.destination {
        Destination::Queue(name) => (To::Queue, name.to_string()),
        Destination::Exchange(name) => (To::Exchange, name.to_string()),
    };
    let routing_key = Octets::from(&*binding.routing_key);
    let arguments = table_of(&binding.arguments);
    Key::Binding(vhost.to_string(), binding.source.to_string(), to, name, routing_key, arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(changes: &Changes) -> Definition {
        let (key, value) = changes.puts.first().unwrap();
        Definition::read(key, value).unwrap()
    }

    #[test]
    fn bindings_come_back_with_every_kind_of_argument() {
        let inner: Arguments = [("x".into(), Value::Void)].into_iter().collect();
        let values = [
            Value::Bool(true),
            Value::Byte(-1),
            Value::UnsignedByte(255),
            Value::Short(-2),
            Value::UnsignedShort(65535),
            Value::SignedInt(-3),
            Value::UnsignedInt(u32::MAX),
            Value::Long(i64::MIN),
            Value::Float(f32::NAN),
            Value::Double(0.1),
            Value::Decimal(2, 314),
            Value::text("text"),
            Value::LongString([0xff, 0].into()),
            Value::Array(vec![Value::Byte(1), Value::text("two")]),
            Value::Timestamp(u64::MAX),
            Value::Table(inner),
            Value::Void,
            Value::Binary([1, 2].into()),
        ];
        let named = values.into_iter().enumerate();
        let arguments: Arguments =
            named.map(|(index, value)| (format!("a{index:02}").into(), value)).collect();
        let vhost = VhostName::new("/").unwrap();
        let binding = Binding {
            source: ExchangeName::new("x\0y\"").unwrap(),
            destination: Destination::Queue(QueueName::new("q").unwrap()),
            routing_key: [0xfe, b'k'].into(),
            arguments,
        };
        let mut changes = Changes::default();
        changes.put_binding(&vhost, &binding);
        let Definition::Binding(found_vhost, found) = read_back(&changes) else { panic!() };
        assert_eq!((found_vhost, found), (vhost, binding));
    }

    #[test]
    fn users_come_back_with_their_passwords() {
        let hash = PasswordHash::from_rabbitmq(
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR",
            "rabbit_password_hashing_sha256",
        )
        .unwrap();
        for password in [hash, PasswordHash::argon2id(b"secret")] {
            let user = User {
                name: UserName::new("u").unwrap(),
                tags: vec!["administrator".to_owned()],
                password,
            };
            let mut changes = Changes::default();
            changes.put_user(&user);
            let Definition::User(found) = read_back(&changes) else { panic!() };
            assert_eq!((found.name, found.tags), (user.name, user.tags));
            assert!(found.password == user.password);
        }
    }
}
