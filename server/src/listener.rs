//! Accepting connections: limits, TLS, and one task for each.

mod turned_away;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::amqp;
use crate::driver::Driver;
use crate::logging::seldom::{self, Line};
use crate::node::Node;
use crate::settings::{OpenFiles, Settings, TlsFiles, machine};
use crate::stomp;
use crate::tls::{self, Opening, TlsError};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long to wait when the process has no descriptors left.
const NO_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// How long a TLS handshake may take.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer that is not heard of for so long is probed; after three probes it counts as gone.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;

/// Octets that nobody acknowledges for so long end a connection.
const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// What is spoken behind a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Amqp,
    Stomp,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "AMQP",
            Self::Stomp => "STOMP",
        }
    }
}

/// What the listeners of a service share.
#[derive(Debug)]
pub(crate) struct Listening {
    service: Service,
    files: Option<TlsFiles>,
    /// `None` without TLS.
    config: ArcSwapOption<ServerConfig>,
}

/// Room for the connections of all services (`limits.connections`). A connection has its seat from the moment when it
/// is accepted, before any handshake, until its socket is closed.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    free: Arc<Semaphore>,
    /// Those who may take their time to be told that there are too many.
    told: Arc<Semaphore>,
}

impl Seats {
    /// As many as the settings say, for the open files that the process may have.
    pub(crate) fn new(settings: &Settings) -> Self {
        let files = OpenFiles::new(machine::open_files_limit());
        let most = files.connections(settings.limits.connections) as usize;
        Self {
            most,
            free: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            told: Arc::new(Semaphore::new(files.told())),
        }
    }

    /// How many connections there may be.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }
}

impl Listening {
    pub(crate) fn new(service: Service, files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let listening = Self { service, files, config: ArcSwapOption::empty() };
        listening.replace(listening.load()?);
        Ok(listening)
    }

    /// Reads certificate and key.
    pub(crate) fn load(&self) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        self.files.as_ref().map(tls::server_config).transpose()
    }

    /// New connections use this configuration.
    pub(crate) fn replace(&self, config: Option<Arc<ServerConfig>>) {
        self.config.store(config);
    }

    /// There is no seat for this connection.
    fn turn_away(&self, node: &Node, stream: TcpStream, peer: SocketAddr) {
        let (service, most) = (self.service, node.seats.most);
        node.counters.connections_refused.increment(1);
        if let Some(Line { left_out }) = seldom::TURNED_AWAY.line() {
            warn!(%peer, most, left_out, "too many connections: this one is turned away");
        }
        if self.files.is_some() {
            return;
        }
        let Ok(telling) = Arc::clone(&node.seats.told).try_acquire_owned() else {
            return turned_away::tell_at_once(service, &stream, most);
        };
        tokio::spawn(async move {
            turned_away::tell(service, stream, most).await;
            drop(telling);
        });
    }
}

/// Binds a listening socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the broker stops.
pub(crate) async fn accept(
    node: Arc<Node>,
    on: Arc<Listening>,
    listener: TcpListener,
    mut stopping: Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(seat) = Arc::clone(&node.seats.free).try_acquire_owned() else {
                    on.turn_away(&node, stream, peer);
                    continue;
                };
                let (node, on) = (Arc::clone(&node), Arc::clone(&on));
                tokio::spawn(async move {
                    serve(node, on, stream, peer).await;
                    drop(seat);
                });
            }
            Err(error) => {
                // Mostly descriptors that have run out: they come back when connections end.
                if let Some(Line { left_out }) = seldom::NOT_ACCEPTED.line() {
                    warn!(%error, left_out, "cannot accept a connection");
                }
                sleep(NO_DESCRIPTORS_PAUSE).await;
            }
        }
    }
}

async fn serve(node: Arc<Node>, on: Arc<Listening>, stream: TcpStream, peer: SocketAddr) {
    let host = match prepare(&stream) {
        Ok(host) => host,
        Err(error) => {
            debug!(%peer, %error, "the connection was gone before it began");
            return;
        }
    };
    // As the peer would write it: an IPv4 client of a dual-stack socket has an IPv4 address.
    let (peer, host) = (canonical(peer), canonical(host));
    match on.config.load_full() {
        None => run(node, on.service, stream, peer, host, false).await,
        Some(config) => {
            let failed = node.counters.tls_failed.clone();
            // There is no session yet that could be closed.
            let (close, closed) = oneshot::channel();
            let pending = node.pending_logins.enter(peer, move |_| {
                // Fails only when the handshake is over.
                close.send(()).ok();
            });
            let shaken = tokio::select! {
                shaken = accept_tls(config, stream, on.service, peer) => shaken,
                _ = closed => return,
            };
            drop(pending);
            match shaken {
                Some(stream) => run(node, on.service, stream, peer, host, true).await,
                None => failed.increment(1),
            }
        }
    }
}

async fn run<T>(
    node: Arc<Node>,
    service: Service,
    stream: T,
    peer: SocketAddr,
    host: SocketAddr,
    ssl: bool,
) where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    match service {
        Service::Amqp => {
            let session = amqp::Session::new(node, peer, host, ssl);
            Driver::new(session, stream).run().await;
        }
        Service::Stomp => {
            let session = stomp::Session::new(node, peer, host, ssl);
            Driver::new(session, stream).run().await;
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn prepare(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / KEEPALIVE_PROBES)
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    stream.local_addr()
}

/// Shakes hands; says in one line what came instead when it was no TLS.
async fn accept_tls(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    service: Service,
    peer: SocketAddr,
) -> Option<Box<tokio_rustls::server::TlsStream<TcpStream>>> {
    let shaken = timeout(TLS_TIMEOUT, async {
        let mut first = [0; 16];
        let count = stream.peek(&mut first).await?;
        let opening = Opening::of(first.get(..count).unwrap_or_default());
        // The first octet of a handshake record; the others may come later.
        if count > 0 && first.first() != Some(&0x16) && opening != Opening::Tls {
            let text = format!("the client sent {opening} to a port that speaks TLS");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        TlsAcceptor::from(config).accept(stream).await
    });
    match shaken.await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            debug!(%peer, "a connection without a TLS handshake");
            None
        }
        Ok(Err(error)) => {
            if let Some(Line { left_out }) = seldom::NO_TLS.line() {
                warn!(%peer, %error, left_out, "TLS handshake for {} failed", service.name());
            }
            None
        }
        Err(_) => {
            if let Some(Line { left_out }) = seldom::NO_TLS.line() {
                warn!(%peer, left_out, "TLS handshake for {} took too long", service.name());
            }
            None
        }
    }
}

#[cfg(test)]
mod tests;
