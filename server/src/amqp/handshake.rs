//! From the protocol header to `connection.open` (AMQP 0-9-1 §2.2.4): start, tune, open.

use std::sync::Arc;

use broker_core::access::{LoginError, User};
use broker_core::name::VhostName;
use proto_amqp::control::protocol::{AMQPClass, connection};
use proto_amqp::control::types::{AMQPValue, FieldTable, LongString};
use proto_amqp::handshake::{Capabilities, Credentials, amqplain, plain};
use proto_amqp::{ChannelId, FRAME_MIN_SIZE, MethodId, ReplyCode, Version};
use tracing::{info, warn};

use super::error::Exception;
use super::session::{Phase, Session};
use crate::auth::{self, Login};
use crate::counters::Protocol;
use crate::node::Identity;
use crate::settings::Mechanism;

const OPEN: MethodId = MethodId { class: 10, method: 40 };

/// What the broker can do (RabbitMQ's capabilities).
const CAPABILITIES: [&str; 9] = [
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "consumer_priorities",
    "direct_reply_to",
    "exchange_exchange_bindings",
    "per_consumer_qos",
    "publisher_confirms",
];

/// Entries of the client's properties that are kept for lists, and octets of one.
const CLIENT_PROPERTIES_MAX: usize = 32;
const CLIENT_PROPERTY_LEN_MAX: usize = 256;

fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

impl Session {
    /// Sends `connection.start`.
    pub(super) fn start(&mut self) {
        let mut capabilities = FieldTable::default();
        // A 0-8 client knows no booleans: its table stays empty.
        if self.version != Version::V0_8 {
            for capability in CAPABILITIES {
                capabilities.insert(capability.into(), AMQPValue::Boolean(true));
            }
        }
        let mut properties = FieldTable::default();
        properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        for (name, value) in [
            ("cluster_name", &*self.node.name),
            ("copyright", "Copyright (c) the Warren authors"),
            ("information", "Licensed under Apache-2.0 OR MIT"),
            ("platform", concat!("Rust ", env!("CARGO_PKG_RUST_VERSION"))),
            ("product", "Warren"),
            ("version", env!("CARGO_PKG_VERSION")),
        ] {
            properties.insert(name.into(), long_string(value));
        }
        let mechanisms: Vec<&str> =
            self.node.settings.auth.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
        let (version_major, version_minor) = self.version.start_version();
        let start = connection::Start {
            version_major,
            version_minor,
            server_properties: properties,
            mechanisms: mechanisms.join(" ").as_str().into(),
            locales: "en_US".into(),
        };
        let start = connection::AMQPMethod::Start(start);
        self.send(ChannelId::CONNECTION, AMQPClass::Connection(start));
        self.set_phase(Phase::Starting);
    }

    /// A method before `connection.open-ok`; gives whether it was due.
    pub(super) fn on_handshake(
        &mut self,
        phase: Phase,
        class: AMQPClass,
        _: MethodId,
    ) -> Result<bool, Exception> {
        use connection::AMQPMethod as OfConnection;
        match (phase, class) {
            (Phase::Starting, AMQPClass::Connection(OfConnection::StartOk(start_ok))) => {
                self.on_start_ok(&start_ok);
            }
            (Phase::Tuning, AMQPClass::Connection(OfConnection::TuneOk(tune_ok))) => {
                self.on_tune_ok(&tune_ok);
            }
            (Phase::Opening, AMQPClass::Connection(OfConnection::Open(open))) => {
                self.on_open(&open)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn on_start_ok(&mut self, start_ok: &connection::StartOk) {
        self.capabilities = Capabilities::of_client_properties(&start_ok.client_properties);
        let response = start_ok.response.as_bytes();
        let offered = self.node.settings.auth.mechanisms.iter().copied();
        let wanted = start_ok.mechanism.as_str();
        let Some(mechanism) = offered.into_iter().find(|mechanism| mechanism.name() == wanted)
        else {
            self.fall_silent("the client asked for a mechanism that was not offered");
            return;
        };
        let credentials = match mechanism {
            Mechanism::Plain => plain(response),
            Mechanism::AmqPlain => amqplain(response),
        };
        let Credentials { user, password } = match credentials {
            Ok(credentials) => credentials,
            Err(error) => {
                self.fall_silent(&error.to_string());
                return;
            }
        };
        let name = String::from_utf8_lossy(user).into_owned();
        let properties = client_properties(&start_ok.client_properties);
        self.note_login(&name, mechanism.name(), properties);
        let peer = self.peer().ip();
        match auth::log_in(&self.node, user, password, peer) {
            Login::Now(result) => self.on_login(result),
            Login::Later(receiver) => {
                self.login = Some(receiver);
                self.set_phase(Phase::Authenticating);
            }
        }
    }

    /// The password has been checked.
    pub(super) fn on_login(&mut self, result: Result<Arc<User>, LoginError>) {
        let counters = self.node.counters.of(Protocol::Amqp);
        match result {
            Ok(user) => {
                counters.auth_succeeded.increment(1);
                // The virtual host is filled in by `open`.
                let Ok(vhost) = VhostName::new("") else { return };
                let impersonator = user.has_tag("impersonator");
                self.identity = Some(Identity { user: user.name.clone(), vhost, impersonator });
                let settings = &self.node.settings.amqp;
                let tune = connection::Tune {
                    channel_max: settings.channel_max,
                    frame_max: u32::try_from(settings.frame_max.octets()).unwrap_or(u32::MAX),
                    heartbeat: u16::try_from(settings.heartbeat.duration().as_secs())
                        .unwrap_or(u16::MAX),
                };
                let tune = connection::AMQPMethod::Tune(tune);
                self.send(ChannelId::CONNECTION, AMQPClass::Connection(tune));
                self.set_phase(Phase::Tuning);
            }
            Err(error) => {
                counters.auth_failed.increment(1);
                self.refuse_login(error);
            }
        }
    }

    fn refuse_login(&mut self, error: LoginError) {
        warn!(connection = %self.name, peer = %self.peer(), %error, "login refused");
        let mechanism = self.mechanism();
        self.fall_silent("login refused");
        if self.capabilities.authentication_failure_close {
            let text = proto_amqp::reply_text(
                ReplyCode::ACCESS_REFUSED,
                &format!(
                    "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
                ),
            );
            let close = connection::Close {
                reply_code: ReplyCode::ACCESS_REFUSED.0,
                reply_text: text.as_str().into(),
                class_id: 0,
                method_id: 0,
            };
            let close = connection::AMQPMethod::Close(close);
            self.send(ChannelId::CONNECTION, AMQPClass::Connection(close));
        }
    }

    fn on_tune_ok(&mut self, tune_ok: &connection::TuneOk) {
        let settings = &self.node.settings.amqp;
        let frame_max = u32::try_from(settings.frame_max.octets()).unwrap_or(u32::MAX);
        let channel_max = settings.channel_max;
        // A zero would mean no limit, and there is one.
        if tune_ok.frame_max < FRAME_MIN_SIZE || tune_ok.frame_max > frame_max {
            let text = format!("negotiated frame_max = {} is out of bounds", tune_ok.frame_max);
            self.fall_silent(&text);
            return;
        }
        let fits = match channel_max {
            0 => true,
            max => (1..=max).contains(&tune_ok.channel_max),
        };
        if !fits {
            let text = format!("negotiated channel_max = {} is out of bounds", tune_ok.channel_max);
            self.fall_silent(&text);
            return;
        }
        self.tuned(tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat);
        self.set_phase(Phase::Opening);
    }

    fn on_open(&mut self, open: &connection::Open) -> Result<(), Exception> {
        let name = open.virtual_host.as_str();
        let refuse = |text: String| Exception::new(ReplyCode::NOT_ALLOWED, text, OPEN);
        let Some(vhost) = self.node.broker.vhost(name) else {
            return Err(refuse(format!("vhost {name} not found")));
        };
        let Some(identity) = &mut self.identity else {
            return Err(Exception::unimplemented(OPEN));
        };
        if self.node.broker.access.permission(&identity.user, &vhost.name).is_none() {
            let user = &identity.user;
            return Err(refuse(format!("access to vhost '{name}' refused for user '{user}'")));
        }
        identity.vhost = vhost.name.clone();
        info!(connection = %self.name, user = %identity.user, vhost = name, "AMQP connection open");
        self.note_vhost(name);
        self.vhost = Some(vhost);
        self.opened();
        let open_ok = connection::AMQPMethod::OpenOk(connection::OpenOk {});
        self.send(ChannelId::CONNECTION, AMQPClass::Connection(open_ok));
        Ok(())
    }
}

/// What the client says of itself, as text, bounded.
fn client_properties(table: &FieldTable) -> Vec<(String, String)> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => {
            let octets = text.as_bytes();
            let octets = octets.get(..CLIENT_PROPERTY_LEN_MAX).unwrap_or(octets);
            Some(String::from_utf8_lossy(octets).into_owned())
        }
        AMQPValue::Boolean(value) => Some(value.to_string()),
        _ => None,
    };
    table
        .inner()
        .iter()
        .take(CLIENT_PROPERTIES_MAX)
        .filter_map(|(name, value)| Some((name.to_string(), text(value)?)))
        .collect()
}
