//! The Warren broker: sockets, time and tasks around the core.
//!
//! [`start`] brings a broker up and gives a [`Running`] that knows where it listens, [`start_telling`] says besides how
//! far it is; [`cli`] is the command line around it. One task per connection runs a protocol's session; a few more
//! accept, watch memory and disk, sweep what has expired, and answer operators. This is the only crate in which a
//! protocol meets the core.

mod amqp;
mod auth;
pub mod bench;
pub mod cli;
mod control;
mod counters;
mod driver;
mod health;
mod heartbeat;
mod listener;
pub mod logging;
mod metrics;
mod node;
mod opening;
mod outbox;
mod publishing;
pub mod settings;
mod shares;
mod stomp;
mod store;
pub mod systemd;
pub mod tls;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch as channel;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

pub use opening::{Opening, Phase, Progress};

use cli::BoundAddresses;
use counters::Counters;
use listener::{Listening, Service};
use node::{Clock, Node};
use settings::{OpenFiles, Settings, machine};

/// Where a running broker writes down which addresses it listens on, inside the data directory.
const ADDRESSES_FILE: &str = "addresses.json";

/// How long clients have to answer a goodbye that has reached them.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}, which {setting} names: {source}")]
    Listen {
        /// The key that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A file or directory cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The store cannot be opened.
    #[error("cannot open the store: {0}{advice}", advice = store::advice(.0))]
    Store(#[from] broker_core::storage::StorageError),
    /// The first user or virtual host cannot be made.
    #[error("cannot set up an empty broker: {0}")]
    Bootstrap(#[from] broker_core::broker::BootstrapError),
}

/// A broker that is up.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, with the ports that port 0 became.
    pub addresses: BoundAddresses,
    node: Arc<Node>,
    listening: Vec<Arc<Listening>>,
    shutdown: channel::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Brings a broker up: ready when it returns.
///
/// # Errors
/// [`StartError`]; nothing listens then.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    start_telling(settings, Opening::default()).await
}

/// The same; `opening` says meanwhile how far it is. The metrics are served from the beginning, everything else
/// when the store is open.
///
/// Dropping the future gives the start up. The thread that opens the store is then left to itself, and the store as
/// it comes to be: a process that ends in the middle of that does no more harm than one that is killed.
///
/// # Errors
/// [`StartError`]; nothing listens then.
pub async fn start_telling(settings: Settings, opening: Opening) -> Result<Running, StartError> {
    let data_dir = settings.data_dir.clone();
    make_private_dir(&data_dir).map_err(|source| StartError::File { path: data_dir, source })?;
    let (recorder, rendered) = metrics::recorder();
    let (shutdown, stopping) = channel::channel(false);
    let mut tasks = JoinSet::new();
    let mut addresses = BoundAddresses::default();
    let endpoint = metrics::Endpoint::new(rendered, opening.clone());
    let sockets = bind_metrics(&settings)?;
    let visitors = OpenFiles::new(machine::open_files_limit()).visitors() / sockets.len().max(1);
    for socket in sockets {
        addresses.metrics.extend(socket.local_addr().ok());
        let (endpoint, stopping) = (endpoint.clone(), stopping.clone());
        tasks.spawn(metrics::serve(endpoint, socket, visitors.max(1), stopping));
    }
    let node = Arc::new(open_node(settings, Counters::new(&recorder), opening).await?);
    node.broker.log.watch(Arc::clone(&node) as Arc<_>);
    let mut listening = Vec::new();
    let settings = &node.settings;
    for (service, files, setting, wanted, bound) in [
        (Service::Amqp, None, "amqp.listen", &settings.amqp.listen, &mut addresses.amqp),
        (
            Service::Amqp,
            settings.amqp_tls(),
            "amqp.tls.listen",
            &settings.amqp.tls.listen,
            &mut addresses.amqp_tls,
        ),
        (Service::Stomp, None, "stomp.listen", &settings.stomp.listen, &mut addresses.stomp),
        (
            Service::Stomp,
            settings.stomp_tls(),
            "stomp.tls.listen",
            &settings.stomp.tls.listen,
            &mut addresses.stomp_tls,
        ),
    ] {
        if wanted.as_slice().is_empty() {
            continue;
        }
        let listening_on = Arc::new(Listening::new(service, files)?);
        for socket in bind_all(setting, wanted.as_slice())? {
            bound.extend(socket.local_addr().ok());
            let (node, on) = (Arc::clone(&node), Arc::clone(&listening_on));
            tasks.spawn(listener::accept(node, on, socket, stopping.clone()));
        }
        listening.push(listening_on);
    }
    let control = settings.control_socket();
    let socket = control::bind(&control)
        .map_err(|source| StartError::File { path: control.clone(), source })?;
    let stop = shutdown.clone();
    tasks.spawn(control::serve(
        Arc::clone(&node),
        socket,
        stopping.clone(),
        addresses.clone(),
        stop,
    ));
    tasks.spawn(watch::sweep(Arc::clone(&node), stopping.clone()));
    tasks.spawn(watch::alarms(Arc::clone(&node), stopping));
    write_addresses(&node.settings.data_dir, &addresses, &control)?;
    endpoint.open(Arc::clone(&node));
    Ok(Running { addresses, node, listening, shutdown, tasks })
}

fn make_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens the store, on a thread that may wait for the disk, and puts the broker on it. The log says how far that is
/// if it takes long.
async fn open_node(
    settings: Settings,
    counters: Counters,
    opening: Opening,
) -> Result<Node, StartError> {
    let clock = Clock::start();
    let told = opening.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let opened = store::open(&settings, clock, &opening)?;
        let mut node = Node::new(settings, counters, opened.broker, clock);
        node.store = Some(opened.log);
        node.known_damage = opened.damage;
        if opened.wants_bootstrap {
            bootstrap(&node)?;
        }
        Ok(node)
    });
    let log = || {
        let now = told.now();
        let Progress { phase, done, total } = now;
        let (phase, percent) = (phase.word(), now.percent());
        info!(phase, percent, done, total, "the store is being opened");
    };
    match opening::telling(opened, log).await {
        Ok(node) => node,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

/// The first user and the first virtual host of a new store.
fn bootstrap(node: &Node) -> Result<(), StartError> {
    let auth = &node.settings.auth;
    node.broker.bootstrap(
        &auth.default_vhost,
        &auth.default_user,
        auth.default_password.expose().as_bytes(),
    )?;
    Ok(())
}

/// Binds the addresses of the metrics. If they are taken, that is mostly by another broker with the same settings, and
/// then the store says it better.
fn bind_metrics(settings: &Settings) -> Result<Vec<TcpListener>, StartError> {
    bind_all("metrics.listen", settings.metrics.listen.as_slice())
        .map_err(|error| store::taken(settings).map_or(error, StartError::Store))
}

/// Binds all addresses of a setting. An IPv6 address on a machine without IPv6 is left out if another one is left.
fn bind_all(
    setting: &'static str,
    addresses: &[SocketAddr],
) -> Result<Vec<TcpListener>, StartError> {
    let mut bound = Vec::new();
    let mut missing = None;
    for &address in addresses {
        match listener::bind(address) {
            Ok(socket) => bound.push(socket),
            Err(source) => {
                let no_ipv6 = address.is_ipv6()
                    && address.ip().is_loopback()
                    && matches!(
                        source.kind(),
                        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
                    );
                if !no_ipv6 {
                    return Err(StartError::Listen { setting, address, source });
                }
                warn!(%address, %source, "this machine has no IPv6 loopback");
                missing = Some(StartError::Listen { setting, address, source });
            }
        }
    }
    match missing {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// Writes down where the broker listens, for tools on the same machine that gave it port 0.
fn write_addresses(
    data_dir: &Path,
    bound: &BoundAddresses,
    control: &Path,
) -> Result<(), StartError> {
    let text = |addresses: &[SocketAddr]| -> Vec<String> {
        addresses.iter().map(SocketAddr::to_string).collect()
    };
    let json = serde_json::json!({
        "amqp": text(&bound.amqp),
        "amqps": text(&bound.amqp_tls),
        "stomp": text(&bound.stomp),
        "stomps": text(&bound.stomp_tls),
        "metrics": text(&bound.metrics),
        "control": control,
        "pid": std::process::id(),
    });
    // Under another name first: a reader sees all of it or nothing.
    let (path, partial) = (data_dir.join(ADDRESSES_FILE), data_dir.join("addresses.json.new"));
    let write = || {
        std::fs::write(&partial, json.to_string())?;
        std::fs::rename(&partial, &path)
    };
    let mut written = write();
    if written.as_ref().is_err_and(is_disk_full) {
        // What another left says nothing true any more, and its block may be the room that is missing.
        for left in [&path, &partial] {
            std::fs::remove_file(left).ok();
        }
        written = write();
    }
    match written {
        Err(error) if is_disk_full(&error) => {
            std::fs::remove_file(&partial).ok();
            let path = path.display();
            warn!(%path, %error, "the disk is full: `warren ctl status` says where the broker listens");
            Ok(())
        }
        written => written.map_err(|source| StartError::File { path, source }),
    }
}

/// Whether there is no room, for this file or for its user.
fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Running {
    /// Its users, permissions and virtual hosts, for whoever runs a broker inside of another program.
    #[must_use]
    pub fn broker(&self) -> &broker_core::Broker {
        &self.node.broker
    }

    /// Comes back when somebody on the control socket has asked the broker to stop.
    pub async fn asked_to_stop(&self) {
        let mut stopping = self.shutdown.subscribe();
        // Fails only when the sender is gone, and that is ours.
        stopping.wait_for(|stop| *stop).await.ok();
    }

    /// Reads certificates and keys again. New connections use them; a bad file changes nothing.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn reload_certificates(&self) -> Result<(), tls::TlsError> {
        let fresh: Vec<_> = self.listening.iter().map(|on| on.load()).collect::<Result<_, _>>()?;
        for (on, config) in self.listening.iter().zip(fresh) {
            on.replace(config);
        }
        Ok(())
    }

    /// Writes down what was delivered, makes everything durable, and leaves the store so that the next start has
    /// nothing to replay.
    async fn close_store(&self) {
        let node = Arc::clone(&self.node);
        let closing = tokio::task::spawn_blocking(move || {
            node.broker.note_stop();
            node.store.as_ref().map_or(Ok(()), |log| log.close())
        });
        match closing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(%error, "the store was not closed cleanly; the next start replays its log");
            }
            Err(error) => warn!(%error, "the store was not closed cleanly"),
        }
    }

    /// Says goodbye to all clients, in their protocols, and stops.
    ///
    /// Clients that take their goodbye have a second to answer it; those that take nothing have
    /// `drain_timeout`.
    pub async fn shutdown(mut self) {
        info!(connections = self.node.connections.len(), "stopping");
        // Nobody may be listening any more; then there is nobody to tell.
        self.shutdown.send(true).ok();
        for connection in self.node.connections.all() {
            connection.close("broker forced connection closure with reason 'shutdown'");
        }
        let began = Instant::now();
        let drain = self.node.settings.drain_timeout.duration();
        while self.node.connections.len() > 0 && began.elapsed() < drain {
            let told =
                || self.node.connections.all().iter().all(|one| one.describe().send_pend == 0);
            if began.elapsed() > GOODBYE && told() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        while self.tasks.join_next().await.is_some() {}
        self.close_store().await;
        let path = self.node.settings.data_dir.join(ADDRESSES_FILE);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(path = %path.display(), %error, "cannot remove the list of addresses");
        }
        info!("stopped");
    }
}
