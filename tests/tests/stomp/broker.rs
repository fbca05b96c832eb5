//! A broker for one test.

use std::net::{Ipv4Addr, SocketAddr};

use tempfile::TempDir;
use warren_server::Running;
use warren_server::settings::{Addresses, Settings};

use super::peer::Peer;

pub(super) struct Broker {
    running: Running,
    _data: TempDir,
}

impl Broker {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any_port = || Addresses::from(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]);
        let mut settings = Settings { data_dir: data.path().to_owned(), ..Settings::default() };
        settings.amqp.listen = any_port();
        settings.stomp.listen = any_port();
        settings.metrics.listen = Addresses::from(vec![]);
        // A machine that is nearly full must not hold the publishers of a test.
        settings.limits.disk_free = warren_server::settings::Size::new(0);
        change(&mut settings);
        let running = warren_server::start(settings).await.unwrap();
        Self { running, _data: data }
    }

    /// A connection that has said nothing.
    pub(super) async fn connect(&self) -> Peer {
        Peer::connect(self.running.addresses.stomp[0]).await
    }

    /// A connection that has logged in as the default user.
    pub(super) async fn log_in(&self, version: &str) -> Peer {
        self.log_in_with(&format!("accept-version:{version}\n")).await
    }

    /// A connection that has logged in with these header lines.
    pub(super) async fn log_in_with(&self, headers: &str) -> Peer {
        let mut peer = self.connect().await;
        peer.send(&format!("CONNECT\n{headers}\n\0")).await;
        let connected = peer.next().await;
        assert!(connected.starts_with("CONNECTED\n"), "{connected}");
        peer
    }

    pub(super) async fn stop(self) {
        self.running.shutdown().await;
    }
}
