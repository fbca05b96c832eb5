//! The sections of [`Settings`](super::Settings): every key with its type, meaning and default.
//!
//! A field here *is* the key: its path in TOML is its path in the structs. Bounds are in
//! [`rules`](super::rules). A key is added here, in `config/warren.toml` and, if it has a range, in
//! the rules; tests fail until all agree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::{Addresses, ConnectionLimit, LogFilter, Memory, Secret, Size, TimeSpan};

/// When a persistent message counts as kept, and so what a confirm says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Durability {
    /// When it has reached the disk (fdatasync): it survives a power cut.
    Fsync,
    /// When the operating system has it: it survives the end of the broker, not of the machine.
    Os,
}

impl Durability {
    /// The word in settings, in `status` and in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

impl TryFrom<String> for Durability {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => Err(format!("{word:?} is not a durability: write \"fsync\" or \"os\"")),
        }
    }
}

/// `store`: the log of messages and definitions in the data directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Refuse to start where a start finds damage, instead of setting it aside. A start does not read every message.
    pub strict: bool,
    /// Begin anew where a store has lost its log and every checkpoint.
    pub accept_data_loss: bool,
    /// One file of the log. No message can be larger.
    pub log_file_size: Size,
    /// Memory for persistent messages of durable queues, those that consumers have included; the others stay on disk.
    pub message_memory: Size,
    /// Memory for blocks of old backlogs that were read.
    pub read_cache: Size,
    /// Octets a second at which segments are read again in the background, to find rot; 0 turns that off.
    pub scrub_rate: Size,
    /// The least time from the beginning of one reading of all segments to the next.
    pub scrub_interval: TimeSpan,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            strict: false,
            accept_data_loss: false,
            log_file_size: Size::mib(64),
            message_memory: Size::mib(64),
            read_cache: Size::mib(16),
            scrub_rate: Size::mib(8),
            scrub_interval: TimeSpan::seconds(24 * 60 * 60),
        }
    }
}

/// `amqp`: AMQP 0-9-1, 0-9 and 0-8.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    /// Addresses without TLS.
    pub listen: Addresses,
    /// The largest frame offered in `connection.tune`, its 8 octets of frame included.
    pub frame_max: Size,
    /// The number of channels offered in `connection.tune`.
    pub channel_max: u16,
    /// The interval offered in `connection.tune`, in whole seconds; 0 offers none.
    pub heartbeat: TimeSpan,
    /// The largest message body, from any protocol.
    pub max_message_size: Size,
    /// From accepting a connection to `connection.open`.
    pub handshake_timeout: TimeSpan,
    /// Consumers on one channel.
    pub max_consumers_per_channel: u32,
    /// Deliveries on one channel that wait for an ack; deliveries pause there.
    pub max_unacked_per_channel: u32,
    /// The listener with TLS.
    pub tls: ListenerTls,
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            listen: Addresses::loopback(5672),
            frame_max: Size::kib(128),
            channel_max: 2047,
            heartbeat: TimeSpan::seconds(60),
            max_message_size: Size::mib(16),
            handshake_timeout: TimeSpan::seconds(10),
            max_consumers_per_channel: 4096,
            max_unacked_per_channel: 1_000_000,
            tls: ListenerTls::default(),
        }
    }
}

/// `stomp`: STOMP 1.0, 1.1 and 1.2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stomp {
    /// Addresses without TLS.
    pub listen: Addresses,
    /// Who logs in when a CONNECT has no `login`; empty: nobody, such a CONNECT is refused.
    pub default_user: String,
    /// The passcode that goes with `default_user`.
    pub default_passcode: Secret,
    /// The virtual host when a CONNECT has no `host`.
    pub default_vhost: String,
    /// The exchange behind `/topic/…`.
    pub default_topic_exchange: String,
    /// Whether a NACK without a `requeue` header puts the message back.
    pub default_nack_requeue: bool,
    /// Whether the first frame may be another than CONNECT, logging in `default_user`.
    pub implicit_connect: bool,
    /// Whether a line feed follows the NUL of each frame sent; old clients wait for it.
    pub trailing_lf: bool,
    /// Whether CONNECTED goes without its `server` header.
    pub hide_server_info: bool,
    /// From accepting a connection to CONNECTED.
    pub login_timeout: TimeSpan,
    /// Open transactions of one connection.
    pub max_transactions: u32,
    /// Frames in one transaction.
    pub max_transaction_actions: u32,
    /// Octets of bodies in all open transactions of one connection.
    pub max_transaction_size: Size,
    /// Subscriptions of one connection.
    pub max_subscriptions: u32,
    /// When a frame inside a transaction gets the receipt that it asked for.
    pub tx_receipt: TxReceipt,
    /// The listener with TLS.
    pub tls: ListenerTls,
}

impl Default for Stomp {
    fn default() -> Self {
        Self {
            listen: Addresses::loopback(61613),
            default_user: "guest".into(),
            default_passcode: "guest".into(),
            default_vhost: "/".into(),
            default_topic_exchange: "amq.topic".into(),
            default_nack_requeue: true,
            implicit_connect: false,
            trailing_lf: true,
            hide_server_info: false,
            login_timeout: TimeSpan::seconds(10),
            max_transactions: 16,
            max_transaction_actions: 1024,
            max_transaction_size: Size::mib(16),
            max_subscriptions: 4096,
            tx_receipt: TxReceipt::Auto,
            tls: ListenerTls::default(),
        }
    }
}

impl Stomp {
    /// The login of a CONNECT that brings none: user and passcode.
    #[must_use]
    pub fn default_login(&self) -> Option<(&str, &Secret)> {
        if self.default_user.is_empty() {
            return None;
        }
        Some((&self.default_user, &self.default_passcode))
    }
}

/// When a STOMP frame inside a transaction gets its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxReceipt {
    /// What the version asks for, and what clients of that version wait for.
    Auto,
    /// With the commit.
    Commit,
    /// When the frame has been read.
    Immediate,
}

/// `amqp.tls`, `stomp.tls`: a listener with TLS. What is unset here comes from `tls`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerTls {
    /// Addresses with TLS.
    pub listen: Addresses,
    /// PEM file: the certificate, then the chain up to the CA.
    pub certificate: Option<PathBuf>,
    /// PEM file: the private key of the certificate.
    pub key: Option<PathBuf>,
    /// PEM file: the CAs that sign the clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// `tls`: for every TLS listener that has nothing of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file: the certificate, then the chain up to the CA.
    pub certificate: Option<PathBuf>,
    /// PEM file: the private key of the certificate.
    pub key: Option<PathBuf>,
    /// PEM file: the CAs that sign the clients' certificates; unset: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
    /// The oldest version of TLS spoken.
    pub min_version: TlsVersion,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            client_ca: None,
            require_client_certificate: true,
            min_version: TlsVersion::V1_2,
        }
    }
}

impl Tls {
    /// The files in force for `listener`: certificate and key from one level, never mixed.
    pub(super) fn files_for(&self, listener: &ListenerTls) -> Option<TlsFiles> {
        let (certificate, key) = match (&listener.certificate, &listener.key) {
            (None, None) => (self.certificate.as_ref()?, self.key.as_ref()?),
            (certificate, key) => (certificate.as_ref()?, key.as_ref()?),
        };
        Some(TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: listener.client_ca.clone().or_else(|| self.client_ca.clone()),
            require_client_certificate: self.require_client_certificate,
            min_version: self.min_version,
        })
    }
}

/// What one TLS listener needs, after overrides: see [`tls::server_config`](crate::tls::server_config).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file: certificate and chain.
    pub certificate: PathBuf,
    /// PEM file: private key.
    pub key: PathBuf,
    /// PEM file: CAs of the clients; `None` asks clients for no certificate.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a client without a certificate is turned away.
    pub require_client_certificate: bool,
    /// The oldest version of TLS spoken.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// `limits`: bounds of the whole broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all protocols.
    pub connections: ConnectionLimit,
    /// Connections that have not logged in, of all protocols; with one more the oldest is closed.
    pub pending_logins: u32,
    /// Resident memory at which publishers are stopped (the memory alarm).
    pub memory: Memory,
    /// Free space in the data directory below which publishers are stopped (the disk alarm).
    pub disk_free: Size,
    /// Output waiting for one client above which no more is delivered to it.
    pub outbox_low: Size,
    /// Output waiting for one client above which nothing more is read from it.
    pub outbox_high: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: ConnectionLimit::Auto,
            pending_logins: 1024,
            memory: Memory::Share(60),
            disk_free: Size::gib(1),
            outbox_low: Size::kib(256),
            outbox_high: Size::mib(4),
        }
    }
}

/// `auth`: who may log in, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Users that may log in from this machine only.
    pub loopback_only_users: Vec<String>,
    /// SASL mechanisms offered in `connection.start`, in this order.
    pub mechanisms: Vec<Mechanism>,
    /// How long a login waits at most when many from its address have failed; zero: not at all.
    pub login_backoff: TimeSpan,
    /// Characters that a password must have when somebody sets it.
    pub min_password_length: u32,
    /// The administrator made at the first start.
    pub default_user: String,
    /// The password of `default_user`.
    pub default_password: Secret,
    /// The virtual host made at the first start.
    pub default_vhost: String,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            loopback_only_users: vec!["guest".into()],
            mechanisms: vec![Mechanism::Plain, Mechanism::AmqPlain],
            login_backoff: TimeSpan::seconds(8),
            min_password_length: 1,
            default_user: "guest".into(),
            default_password: "guest".into(),
            default_vhost: "/".into(),
        }
    }
}

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mechanism {
    /// RFC 4616: user and password, parted by NUL.
    Plain,
    /// User and password in a field table; what AMQP 0-8 clients send.
    AmqPlain,
}

impl Mechanism {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
        }
    }
}

/// `metrics`: the Prometheus endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Addresses of the endpoint, without TLS and without login; none: no endpoint.
    pub listen: Addresses,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: vec![([127, 0, 0, 1], 15692).into()].into() }
    }
}

/// `control`: the socket of `warren ctl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Path of the Unix socket; unset: `warren.sock` in the data directory.
    pub socket: Option<PathBuf>,
}

/// `log`: what is logged, to standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// Which lines there are.
    pub level: LogFilter,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: LogFilter::default() }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
