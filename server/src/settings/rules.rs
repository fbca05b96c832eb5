//! Bounds of single keys, rules between keys, and what is allowed but worth a warning.
//!
//! The bounds are data, so that a test can hold `config/warren.toml` to them. What only the machine
//! can answer is in [`machine`](super::machine).

use std::fmt::Display;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;

use super::layers::Loaded;
use super::open_files::OpenFiles;
use super::problem::Problem;
use super::units::{ConnectionLimit, Size, TimeSpan};
use super::{Durability, ListenerTls, Settings};

/// The longest name in either protocol: a short string of AMQP, in octets.
const NAME_LEN_MAX: usize = 255;
/// What a file of the log holds besides the body of its largest message: properties, and headers of its own. Octets.
const LOG_FILE_OVERHEAD: u64 = 256 * 1024;
/// What `sockaddr_un.sun_path` holds on Linux, without its NUL.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// The bounds of one key and whether its value keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The key.
    pub key: &'static str,
    /// Its value, as it prints.
    pub value: String,
    /// The smallest value allowed.
    pub low: String,
    /// The largest value allowed.
    pub high: String,
    /// Whether `value` lies between them.
    pub held: bool,
}

fn bounds<T: PartialOrd + Display>(key: &'static str, value: T, low: T, high: T) -> Bounds {
    let held = value >= low && value <= high;
    Bounds { key, value: value.to_string(), low: low.to_string(), high: high.to_string(), held }
}

/// Every key with bounds narrower than its type's.
#[must_use]
pub fn all_bounds(s: &Settings) -> Vec<Bounds> {
    let second = TimeSpan::seconds(1);
    let ten_minutes = TimeSpan::seconds(600);
    vec![
        bounds("drain_timeout", s.drain_timeout, TimeSpan::seconds(0), ten_minutes),
        // 4096 is frame-min-size, AMQP 0-9-1 §4.2.3.
        bounds("amqp.frame_max", s.amqp.frame_max, Size::kib(4), Size::mib(16)),
        bounds("amqp.channel_max", s.amqp.channel_max, 1, u16::MAX),
        bounds(
            "amqp.heartbeat",
            s.amqp.heartbeat,
            TimeSpan::seconds(0),
            TimeSpan::seconds(u64::from(u16::MAX)),
        ),
        bounds("amqp.max_message_size", s.amqp.max_message_size, Size::new(1), Size::mib(512)),
        bounds("amqp.handshake_timeout", s.amqp.handshake_timeout, second, ten_minutes),
        bounds("amqp.max_consumers_per_channel", s.amqp.max_consumers_per_channel, 1, 1_000_000),
        bounds("amqp.max_unacked_per_channel", s.amqp.max_unacked_per_channel, 1, 100_000_000),
        bounds("stomp.login_timeout", s.stomp.login_timeout, second, ten_minutes),
        bounds("stomp.max_transactions", s.stomp.max_transactions, 1, 65_535),
        bounds("stomp.max_transaction_actions", s.stomp.max_transaction_actions, 1, 1_000_000),
        bounds(
            "stomp.max_transaction_size",
            s.stomp.max_transaction_size,
            Size::kib(1),
            Size::gib(1),
        ),
        bounds("stomp.max_subscriptions", s.stomp.max_subscriptions, 1, 1_000_000),
        bounds("limits.pending_logins", s.limits.pending_logins, 1, 1_000_000),
        bounds("limits.outbox_low", s.limits.outbox_low, Size::kib(16), Size::gib(1)),
        bounds("limits.outbox_high", s.limits.outbox_high, Size::kib(64), Size::gib(4)),
        bounds("store.log_file_size", s.store.log_file_size, Size::mib(1), Size::gib(1)),
        bounds("store.message_memory", s.store.message_memory, Size::mib(1), Size::gib(64)),
        bounds("store.read_cache", s.store.read_cache, Size::mib(1), Size::gib(64)),
        bounds("store.scrub_rate", s.store.scrub_rate, Size::new(0), Size::gib(4)),
        bounds(
            "store.scrub_interval",
            s.store.scrub_interval,
            TimeSpan::seconds(60),
            TimeSpan::seconds(28 * 24 * 60 * 60),
        ),
        bounds(
            "auth.login_backoff",
            s.auth.login_backoff,
            TimeSpan::seconds(0),
            TimeSpan::seconds(60),
        ),
        bounds("auth.min_password_length", s.auth.min_password_length, 1, 128),
    ]
}

/// Everything the settings themselves can get wrong once each value fits its key.
pub(super) fn check(loaded: &Loaded) -> Vec<Problem> {
    let s = &loaded.settings;
    let mut rules = Rules { loaded, problems: Vec::new() };
    for bounds in all_bounds(s) {
        let Bounds { key, value, low, high, held } = bounds;
        if !held {
            rules.refuse(key, format!("`{key}` is {value}; it must be from {low} to {high}"), None);
        }
    }
    rules.limits(s);
    rules.store(s);
    rules.names(s);
    rules.logins(s);
    rules.listener_tls("amqp.tls", &s.amqp.tls, s);
    rules.listener_tls("stomp.tls", &s.stomp.tls, s);
    rules.pair("tls", s.tls.certificate.is_some(), s.tls.key.is_some());
    rules.listeners(s);
    rules.problems
}

struct Rules<'a> {
    loaded: &'a Loaded,
    problems: Vec<Problem>,
}

impl Rules<'_> {
    fn refuse(&mut self, key: &str, message: String, help: Option<&str>) {
        self.problems.push(self.loaded.problem(key, message, help.map(str::to_owned)));
    }

    fn limits(&mut self, s: &Settings) {
        if s.amqp.heartbeat.duration().subsec_nanos() != 0 {
            let message =
                format!("`amqp.heartbeat` is {}; AMQP counts whole seconds", s.amqp.heartbeat);
            self.refuse("amqp.heartbeat", message, None);
        }
        let (message, file) = (s.amqp.max_message_size, s.store.log_file_size);
        if message.octets() + LOG_FILE_OVERHEAD > file.octets() {
            let message = format!(
                "`amqp.max_message_size` ({message}) must be at least 256KiB below \
                 `store.log_file_size` ({file}): a message lies in one file of the log"
            );
            let key = self.written_of("amqp.max_message_size", "store.log_file_size");
            self.refuse(key, message, None);
        }
        let (low, high) = (s.limits.outbox_low, s.limits.outbox_high);
        if low >= high {
            let message =
                format!("`limits.outbox_low` ({low}) must be below `limits.outbox_high` ({high})");
            self.refuse(self.written_of("limits.outbox_low", "limits.outbox_high"), message, None);
        }
    }

    fn store(&mut self, s: &Settings) {
        if s.store.strict && s.store.accept_data_loss {
            let message = "`store.accept_data_loss` is of no use with `store.strict`: an accepted loss is damage, \
                           and refused as such"
                .into();
            let key = self.written_of("store.accept_data_loss", "store.strict");
            self.refuse(key, message, Some("turn off one of them"));
        }
    }

    /// Of two keys at odds, the one that somebody wrote; the first if both were.
    fn written_of(&self, first: &'static str, second: &'static str) -> &'static str {
        if self.loaded.origins.contains_key(first) { first } else { second }
    }

    fn names(&mut self, s: &Settings) {
        for (key, name) in [
            ("stomp.default_vhost", &s.stomp.default_vhost),
            ("stomp.default_topic_exchange", &s.stomp.default_topic_exchange),
            ("auth.default_user", &s.auth.default_user),
            ("auth.default_vhost", &s.auth.default_vhost),
        ] {
            if name.is_empty() {
                self.refuse(key, format!("`{key}` is empty"), None);
            }
            self.name_len(key, name);
        }
        self.name_len("stomp.default_user", &s.stomp.default_user);
        for user in &s.auth.loopback_only_users {
            self.name_len("auth.loopback_only_users", user);
        }
        if s.data_dir.as_os_str().is_empty() {
            self.refuse(
                "data_dir",
                "`data_dir` is empty".into(),
                Some("write \".\" for the working directory"),
            );
        }
        let socket = s.control_socket();
        let len = socket.as_os_str().as_bytes().len();
        if len > SOCKET_PATH_LEN_MAX {
            let message = format!(
                "the control socket {} has a path of {len} octets; the system takes at most \
                 {SOCKET_PATH_LEN_MAX}",
                socket.display()
            );
            let key = self.written_of("control.socket", "data_dir");
            self.refuse(key, message, Some("set `control.socket` to a shorter path"));
        }
    }

    fn name_len(&mut self, key: &str, name: &str) {
        if name.len() > NAME_LEN_MAX {
            let message =
                format!("`{key}` has a name of {} octets; at most {NAME_LEN_MAX} fit", name.len());
            self.refuse(key, message, None);
        }
    }

    fn logins(&mut self, s: &Settings) {
        let mechanisms = &s.auth.mechanisms;
        if mechanisms.is_empty() {
            let message = "`auth.mechanisms` is empty: no AMQP client could log in".into();
            self.refuse("auth.mechanisms", message, None);
        }
        for (at, mechanism) in mechanisms.iter().enumerate() {
            if mechanisms.iter().take(at).any(|earlier| earlier == mechanism) {
                let message = format!("`auth.mechanisms` names {} twice", mechanism.name());
                self.refuse("auth.mechanisms", message, None);
            }
        }
        if s.auth.default_password.expose().is_empty() {
            self.refuse("auth.default_password", "`auth.default_password` is empty".into(), None);
        }
        if s.stomp.implicit_connect && s.stomp.default_user.is_empty() {
            let message = "`stomp.implicit_connect` needs `stomp.default_user`: it says who is \
                           logged in"
                .into();
            self.refuse("stomp.implicit_connect", message, None);
        }
    }

    fn pair(&mut self, section: &str, certificate: bool, key: bool) {
        let (present, missing) = match (certificate, key) {
            (true, false) => ("certificate", "key"),
            (false, true) => ("key", "certificate"),
            _ => return,
        };
        let message = format!("`{section}.{present}` is set without `{section}.{missing}`");
        self.refuse(
            &format!("{section}.{present}"),
            message,
            Some("certificate and key go together, from the same section"),
        );
    }

    fn listener_tls(&mut self, section: &str, listener: &ListenerTls, s: &Settings) {
        self.pair(section, listener.certificate.is_some(), listener.key.is_some());
        let has_half = listener.certificate.is_some() != listener.key.is_some()
            || s.tls.certificate.is_some() != s.tls.key.is_some();
        if !listener.listen.is_empty() && s.tls.files_for(listener).is_none() && !has_half {
            let key = format!("{section}.listen");
            let message = format!("`{key}` has addresses but there is no certificate");
            let help = format!(
                "set `tls.certificate` and `tls.key`, or `{section}.certificate` and `{section}.key`"
            );
            self.refuse(&key, message, Some(&help));
        }
    }

    fn listeners(&mut self, s: &Settings) {
        let doors = [
            ("amqp.listen", &s.amqp.listen),
            ("amqp.tls.listen", &s.amqp.tls.listen),
            ("stomp.listen", &s.stomp.listen),
            ("stomp.tls.listen", &s.stomp.tls.listen),
            ("metrics.listen", &s.metrics.listen),
        ];
        let mut taken: Vec<(SocketAddr, &'static str)> = Vec::new();
        for (key, addresses) in doors {
            for address in addresses.as_slice() {
                let clash = taken.iter().find(|(earlier, _)| overlap(*earlier, *address));
                if let Some((earlier, earlier_key)) = clash {
                    let message = if earlier != address {
                        format!(
                            "`{earlier_key}` has {earlier} and `{key}` {address}: one covers the other"
                        )
                    } else if *earlier_key == key {
                        format!("`{key}` names {address} twice")
                    } else {
                        format!("`{earlier_key}` and `{key}` both want {address}")
                    };
                    self.refuse(self.written_of(key, earlier_key), message, None);
                }
                taken.push((*address, key));
            }
        }
        let clients = doors.iter().filter(|(key, _)| *key != "metrics.listen");
        if clients.map(|(_, addresses)| addresses).all(|addresses| addresses.is_empty()) {
            let message = "nothing listens: every AMQP and STOMP listener is empty".into();
            self.refuse("amqp.listen", message, Some("give at least one of them an address"));
        }
    }
}

/// Whether the system lets only one of two sockets listen. `[::]` takes IPv4 too.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: SocketAddr, b: SocketAddr| {
        a.ip() == b.ip() || (a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4()))
    };
    // Port 0 is a different port each time.
    a.port() == b.port() && a.port() != 0 && (covers(a, b) || covers(b, a))
}

/// What is allowed but should be known: for the log at the start and for `check-config`.
///
/// `open_files` is the limit of the process, from
/// [`machine::open_files_limit`](super::machine::open_files_limit).
#[must_use]
pub fn warnings(s: &Settings, open_files: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    match s.durability {
        Durability::Fsync => {}
        Durability::Os => warnings.push(
            "durability is \"os\": a confirm says that the operating system has the message, not that \
             the disk has it; a power cut may lose the last seconds"
                .into(),
        ),
    }
    let outside = |addresses: &super::Addresses| {
        addresses.as_slice().iter().any(|address| !address.ip().to_canonical().is_loopback())
    };
    let open_to_others = outside(&s.amqp.listen)
        || outside(&s.amqp.tls.listen)
        || outside(&s.stomp.listen)
        || outside(&s.stomp.tls.listen);
    let well_known = s.auth.default_user == "guest" && s.auth.default_password.expose() == "guest";
    let confined = s.auth.loopback_only_users.contains(&s.auth.default_user);
    if open_to_others && well_known && !confined {
        warnings.push(
            "user guest with its well-known password may log in from other machines: \
             auth.loopback_only_users does not name it"
                .into(),
        );
    }
    if outside(&s.amqp.listen) || outside(&s.stomp.listen) {
        warnings.push(
            "a listener without TLS is open to other machines: passwords cross the network as they \
             are"
                .into(),
        );
    }
    if let ConnectionLimit::Count(count) = s.limits.connections
        && let room = OpenFiles::new(open_files).room()
        && count > room
    {
        warnings.push(format!(
            "limits.connections is {count} but the process may have only {open_files} open files \
             (LimitNOFILE): beside its own there is room for {room} connections, and no more are let in"
        ));
    }
    warnings
}
