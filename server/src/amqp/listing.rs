//! What others may see of a connection and ask of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use broker_core::consumer::ConnectionId;
use hashbrown::HashMap;
use parking_lot::Mutex;
use proto_amqp::Version;

use super::channel::Facts;
use super::deliveries::Deliveries;
use crate::node::{ChannelRow, Connection, ConnectionRow};
use crate::outbox::{Command, Outlet};

/// What others may see of the connection and ask of it.
pub(super) struct Shared {
    pub(super) id: ConnectionId,
    pub(super) outlet: Arc<Outlet<Deliveries>>,
    pub(super) peer: SocketAddr,
    pub(super) host: SocketAddr,
    pub(super) ssl: bool,
    pub(super) connected_at: u64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) facts: Mutex<SharedFacts>,
}

pub(super) struct SharedFacts {
    pub(super) version: Version,
    pub(super) state: &'static str,
    pub(super) user: String,
    pub(super) vhost: String,
    pub(super) mechanism: &'static str,
    pub(super) heartbeat_secs: u64,
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    pub(super) client_properties: Vec<(String, String)>,
    pub(super) channels: HashMap<u16, Arc<Facts>>,
}

impl Connection for Shared {
    fn describe(&self) -> ConnectionRow {
        let (unacked, send_pend) = {
            let state = self.outlet.lock();
            let unacked: HashMap<u16, u64> = state
                .deliveries
                .channels
                .iter()
                .map(|(number, channel)| (*number, channel.unacked.len() as u64))
                .collect();
            (unacked, state.out.len() as u64)
        };
        let facts = self.facts.lock();
        let mut channels: Vec<ChannelRow> = facts
            .channels
            .iter()
            .map(|(number, facts)| {
                facts.row(*number, unacked.get(number).copied().unwrap_or_default())
            })
            .collect();
        channels.sort_by_key(|channel| channel.number);
        ConnectionRow {
            id: self.id,
            name: connection_name(self.peer, self.host),
            peer: self.peer,
            host: self.host,
            ssl: self.ssl,
            protocol: format!("AMQP {}", facts.version),
            user: facts.user.clone(),
            vhost: facts.vhost.clone(),
            state: facts.state,
            auth_mechanism: facts.mechanism,
            timeout_secs: facts.heartbeat_secs,
            frame_max: facts.frame_max,
            channel_max: facts.channel_max,
            client_properties: facts.client_properties.clone(),
            // Relaxed: for lists.
            recv_oct: self.received.load(Ordering::Relaxed),
            send_oct: self.sent.load(Ordering::Relaxed),
            send_pend,
            connected_at: self.connected_at,
            channels,
        }
    }

    fn close(&self, reason: &str) {
        self.outlet.command(Command::Close { reason: reason.to_owned() });
    }

    fn wake(&self) {
        self.outlet.wake();
    }
}

/// `peer -> host`, as RabbitMQ names connections.
pub(crate) fn connection_name(peer: SocketAddr, host: SocketAddr) -> String {
    format!("{peer} -> {host}")
}
