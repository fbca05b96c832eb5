//! CONNECT: what a peer wants to speak, who it is, and where it wants to be.

use std::net::IpAddr;
use std::sync::Arc;

use broker_core::access::{LoginError, User};
use broker_core::name::ExchangeName;
use proto_stomp::{AgreedHeartBeat, Command, FrameWriter, Headers, HeartBeat, Version};

use super::client::{Login, frame_end};
use super::error::StompError;
use super::identifier;
use crate::auth;
use crate::node::{Identity, Node};
use crate::settings;

/// What the `server` header says.
const SERVER: &str = concat!("Warren/", env!("CARGO_PKG_VERSION"));

/// What a CONNECT has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: Version,
    pub(super) heart_beat: AgreedHeartBeat,
    pub(super) user: Vec<u8>,
    vhost: Vec<u8>,
    /// CONNECTED is expected. It is not when the session was opened by another frame.
    announced: bool,
}

impl Greeting {
    /// Reads a CONNECT or STOMP frame; gives also the passcode, which is not kept.
    ///
    /// # Errors
    /// `Version mismatch`, `Processing error` for the heart-beat, `Bad CONNECT` without credentials.
    pub(super) fn read(
        headers: &Headers<'_>,
        settings: &settings::Stomp,
    ) -> Result<(Self, Vec<u8>), StompError> {
        let version = Version::negotiate(headers.get("accept-version"))
            .ok_or_else(StompError::no_common_version)?;
        let heart_beat = headers.get("heart-beat").map(HeartBeat::parse).transpose();
        let heart_beat = heart_beat.map_err(|_| StompError::malformed_heart_beat())?;
        let (user, passcode) = credentials(headers, settings)?;
        let vhost = headers.get("host").unwrap_or(settings.default_vhost.as_bytes());
        let greeting = Self {
            version,
            heart_beat: heart_beat.unwrap_or_default().agree(),
            user: user.to_vec(),
            vhost: vhost.to_vec(),
            announced: true,
        };
        Ok((greeting, passcode.to_vec()))
    }

    /// What stands for the CONNECT of a peer that begins with another frame.
    ///
    /// # Errors
    /// `Bad CONNECT` when there is no default user.
    pub(super) fn implicit(settings: &settings::Stomp) -> Result<(Self, Vec<u8>), StompError> {
        let (user, passcode) = settings.default_login().ok_or_else(StompError::no_credentials)?;
        let greeting = Self {
            version: Version::V1_0,
            heart_beat: AgreedHeartBeat::default(),
            user: user.as_bytes().to_vec(),
            vhost: settings.default_vhost.as_bytes().to_vec(),
            announced: false,
        };
        Ok((greeting, passcode.expose().as_bytes().to_vec()))
    }

    /// Starts to check the passcode.
    pub(super) fn log_in(&self, node: &Arc<Node>, passcode: &[u8], peer: IpAddr) -> auth::Login {
        auth::log_in(node, &self.user, passcode, peer)
    }

    /// The passcode has been checked: finds the virtual host.
    ///
    /// # Errors
    /// `Bad CONNECT`.
    pub(super) fn admit(
        &self,
        node: &Node,
        checked: Result<Arc<User>, LoginError>,
    ) -> Result<Login, StompError> {
        let user = checked.map_err(|error| match error {
            LoginError::Credentials => StompError::wrong_credentials(&self.user),
            LoginError::LoopbackOnly => StompError::not_from_loopback(),
        })?;
        let name = std::str::from_utf8(&self.vhost).unwrap_or_default();
        let vhost = node
            .broker
            .vhost(name)
            .filter(|vhost| node.broker.access.permission(&user.name, &vhost.name).is_some())
            .ok_or_else(|| StompError::wrong_vhost(&self.vhost))?;
        let topic_exchange = ExchangeName::new(&node.settings.stomp.default_topic_exchange)
            .map_err(|_| StompError::processing())?;
        let identity = Identity {
            user: user.name.clone(),
            vhost: vhost.name.clone(),
            impersonator: user.has_tag("impersonator"),
        };
        let session = identifier::random("session-");
        Ok(Login { identity, vhost, version: self.version, session, topic_exchange })
    }

    /// Appends CONNECTED, if that is expected.
    // spec: stomp-1.2 CONNECTED
    pub(super) fn welcome(&self, node: &Node, session: &str, out: &mut Vec<u8>) {
        if !self.announced {
            return;
        }
        let mut frame = FrameWriter::begin(out, Command::Connected);
        if !node.settings.stomp.hide_server_info {
            frame.header(b"server", SERVER.as_bytes());
        }
        frame.header(b"session", session.as_bytes());
        frame.header(b"heart-beat", self.heart_beat.to_string().as_bytes());
        frame.header(b"version", self.version.as_str().as_bytes());
        frame.finish(b"", frame_end(node));
    }
}

/// Who logs in: the default passcode goes with the default user, and with nobody else.
fn credentials<'c>(
    headers: &Headers<'c>,
    settings: &'c settings::Stomp,
) -> Result<(&'c [u8], &'c [u8]), StompError> {
    let default = settings.default_login();
    let default = default.map(|(user, passcode)| (user.as_bytes(), passcode.expose().as_bytes()));
    match (headers.get("login"), headers.get("passcode"), default) {
        (Some(user), Some(passcode), _) => Ok((user, passcode)),
        (None, None, Some(default)) => Ok(default),
        (Some(user), None, Some((default, passcode))) if user == default => Ok((user, passcode)),
        (None, Some(passcode), Some((default, _))) => Ok((default, passcode)),
        _ => Err(StompError::no_credentials()),
    }
}
