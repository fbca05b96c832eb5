//! The broker about itself: process, resources, alarms, addresses.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::Broker;
use crate::node::{Alarm, Node};
use crate::settings::machine;
use crate::watch;

/// What `status` says. Sizes in octets, times in seconds; null where the system does not tell.
pub(super) fn status(broker: &Broker) -> Value {
    let node = &broker.node;
    let vhosts = node.broker.vhosts();
    let queues: usize = vhosts.iter().map(|vhost| vhost.queues().len()).sum();
    let data = std::path::absolute(&node.settings.data_dir);
    let data = data.unwrap_or_else(|_| node.settings.data_dir.clone());
    json!({
        "pid": std::process::id(),
        "os": rustix::system::uname().sysname().to_string_lossy(),
        "uptime": node.clock.now() / 1000,
        "product_name": "Warren",
        "product_version": env!("CARGO_PKG_VERSION"),
        "data_directory": data,
        "durability": node.settings.durability,
        "alarms": alarms(node),
        "damage": node.damage(),
        "memory": { "rss": watch::resident_memory(), "limit": watch::memory_limit(node) },
        "file_descriptors": {
            "total_used": open_files(),
            "total_limit": machine::open_files_limit(),
        },
        "disk_free": watch::disk_free(node),
        "disk_free_limit": node.settings.limits.disk_free.octets(),
        "totals": {
            "connection_count": node.connections.len(),
            "queue_count": queues,
            "virtual_host_count": vhosts.len(),
        },
        "listeners": listeners(broker),
    })
}

/// The alarms that are on.
pub(super) fn alarms(node: &Node) -> Vec<&'static str> {
    let all = [(Alarm::Memory, "memory"), (Alarm::Disk, "disk"), (Alarm::Store, "store")];
    all.into_iter().filter(|(alarm, _)| node.alarms.is_on(*alarm)).map(|(_, name)| name).collect()
}

/// Descriptors that the process has open; `None` when `/proc` does not say.
fn open_files() -> Option<usize> {
    procfs::process::Process::myself().and_then(|process| process.fd_count()).ok()
}

/// Addresses that listen, as the diagnostics tools of RabbitMQ describe them.
pub(super) fn listeners(broker: &Broker) -> Vec<Value> {
    let bound = &broker.addresses;
    let rows = [
        (&bound.amqp, "amqp", "AMQP 0-9-1, 0-9 and 0-8"),
        (&bound.amqp_tls, "amqp/ssl", "AMQP 0-9-1, 0-9 and 0-8 over TLS"),
        (&bound.stomp, "stomp", "STOMP 1.0, 1.1 and 1.2"),
        (&bound.stomp_tls, "stomp/ssl", "STOMP 1.0, 1.1 and 1.2 over TLS"),
        (&bound.metrics, "http/prometheus", "Prometheus exporter API over HTTP"),
    ];
    let row = |address: &SocketAddr, protocol, purpose| {
        json!({
            "interface": interface(address.ip()),
            "node": broker.node.name,
            "port": address.port(),
            "protocol": protocol,
            "purpose": purpose,
        })
    };
    rows.into_iter()
        .flat_map(|(addresses, protocol, purpose)| {
            addresses.iter().map(move |address| row(address, protocol, purpose))
        })
        .collect()
}

fn interface(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}
