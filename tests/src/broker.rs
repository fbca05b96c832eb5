//! A broker in this process.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use warren_server::Running;
use warren_server::settings::{Addresses, Override, Settings, Sources, load};

use crate::RawPeer;
use crate::amqp::{Options, Peer};
use crate::stomp;

/// A broker on ports of its own, with a data directory of its own. It ends with the test's runtime;
/// [`shutdown`](Self::shutdown) ends it earlier and in order.
#[derive(Debug)]
pub struct TestBroker {
    running: Running,
    /// Removed when the broker is dropped.
    data_dir: TempDir,
}

impl TestBroker {
    /// A broker with the built-in settings.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A broker with settings as `--set` takes them, such as `amqp.frame_max=4096`.
    pub async fn set(overrides: &[&str]) -> Self {
        let quiet = ["metrics.listen=[]"];
        let overrides = quiet.iter().chain(overrides);
        let overrides = overrides.map(|text| Override::Set((*text).to_owned())).collect();
        match load(&Sources { overrides, ..Sources::default() }) {
            Ok(loaded) => Self::with(|settings| *settings = loaded.settings).await,
            Err(problems) => panic!("settings of a test: {problems:?}"),
        }
    }

    /// A broker with settings that `change` has changed. Plain AMQP and STOMP listen on port 0 of the loopback, and the
    /// metrics do not listen, unless it says so.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let data_dir = match TempDir::with_prefix("warren-test-") {
            Ok(data_dir) => data_dir,
            Err(error) => panic!("no temporary directory: {error}"),
        };
        let mut settings = Settings::default();
        settings.metrics.listen = Addresses::default();
        change(&mut settings);
        settings.data_dir = data_dir.path().into();
        // Small files: hundreds of brokers are started in a run.
        settings.store.log_file_size = warren_server::settings::Size::mib(1);
        let usual = Settings::default();
        if settings.amqp.listen == usual.amqp.listen {
            settings.amqp.listen = loopback();
        }
        if settings.stomp.listen == usual.stomp.listen {
            settings.stomp.listen = loopback();
        }
        match warren_server::start(settings).await {
            Ok(running) => Self { running, data_dir },
            Err(error) => panic!("the broker does not start: {error}"),
        }
    }

    /// The running broker itself.
    #[must_use]
    pub const fn running(&self) -> &Running {
        &self.running
    }

    /// Where its data are.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// Where it speaks AMQP.
    #[must_use]
    pub fn amqp_address(&self) -> SocketAddr {
        first(&self.running.addresses.amqp)
    }

    /// Where it speaks AMQP over TLS.
    #[must_use]
    pub fn amqp_tls_address(&self) -> SocketAddr {
        first(&self.running.addresses.amqp_tls)
    }

    /// Where it speaks STOMP.
    #[must_use]
    pub fn stomp_address(&self) -> SocketAddr {
        first(&self.running.addresses.stomp)
    }

    /// Where it speaks STOMP over TLS.
    #[must_use]
    pub fn stomp_tls_address(&self) -> SocketAddr {
        first(&self.running.addresses.stomp_tls)
    }

    /// An AMQP 0-9-1 client, logged in, with channel 1 open.
    pub async fn amqp(&self) -> Peer {
        self.amqp_as(&Options::default()).await
    }

    /// An AMQP client as `options` say, logged in, with channel 1 open.
    pub async fn amqp_as(&self, options: &Options) -> Peer {
        let mut peer = Peer::connect(self.amqp_address(), options.version).await;
        peer.log_in(options).await;
        peer.open_channel(1).await;
        peer
    }

    /// A connection to the AMQP port on which nothing has been said.
    pub async fn raw_amqp(&self) -> RawPeer {
        RawPeer::connect(self.amqp_address()).await
    }

    /// A STOMP client that has not said anything.
    pub async fn stomp(&self) -> stomp::Peer {
        stomp::Peer::connect(self.stomp_address()).await
    }

    /// Stops the broker in order.
    pub async fn shutdown(self) {
        self.running.shutdown().await;
    }
}

/// Port 0 of the loopback: the system chooses one.
#[must_use]
pub fn loopback() -> Addresses {
    vec![SocketAddr::from(([127, 0, 0, 1], 0))].into()
}

fn first(addresses: &[SocketAddr]) -> SocketAddr {
    match addresses.first() {
        Some(address) => *address,
        None => panic!("the broker does not listen there"),
    }
}
