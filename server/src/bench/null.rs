//! `warren bench null`: the ceiling of loopback and framing on this machine.
//!
//! The null broker reads publishes, steps over their frames, finds the queue by its name, writes a deliver
//! method and the content as it came to a consumer of that queue, and confirms cumulatively. It stores
//! nothing, checks no login, ignores acknowledgements and prefetch, and throws away what no consumer waits
//! for. What a real broker moves below its figure, the broker costs; what lies above it is impossible here.
//!
//! It is made for the load generator and not for other clients: all of a client's connections use the same
//! channel number, so that content frames can be forwarded octet by octet, and topic exchanges are refused,
//! because matching patterns is a broker's work.

mod amqp;
mod router;
mod stomp;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::address::Address;
use super::args::{ExchangeShape, NullArgs, Protocol};
use super::clock::pause;
use super::error::BenchError;
use super::link::{Inbox, dial, is_timeout, prepare};
use super::load::{Load, Pace, measure};
use super::report::{self, FlowReport};

use router::{Peer, Router};

/// Serves, or runs and reports.
///
/// # Errors
/// As [`measure`]; [`BenchError::Io`] for an address that cannot be listened on.
pub(super) fn run(args: &NullArgs) -> Result<(), BenchError> {
    if args.serve {
        return serve(args);
    }
    let load = &args.load;
    load.path.check(load.protocol)?;
    load.pace.check(&load.path)?;
    if load.path.exchange_shape == Some(ExchangeShape::Topic) {
        return Err(BenchError::Usage("the null broker matches no patterns".to_owned()));
    }
    let broker = NullBroker::start(load.protocol, SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = Address::local(load.protocol, broker.address);
    let measured = measure(Load {
        address: &address,
        path: &load.path,
        pace: Pace::from(&load.pace),
        broker_pid: None,
    })?;
    broker.stop();
    let report = FlowReport::new("null", load.protocol, &load.path, &load.pace, &measured);
    report::print(&report, load.json)
}

/// Is a broker for other processes.
fn serve(args: &NullArgs) -> Result<(), BenchError> {
    for address in [args.listen, args.stomp_listen] {
        if !address.ip().is_loopback() {
            return Err(BenchError::Usage(format!(
                "{address}: the null broker checks no login and serves loopback addresses only"
            )));
        }
    }
    let brokers = [
        NullBroker::start(Protocol::Amqp, args.listen)?,
        NullBroker::start(Protocol::Stomp, args.stomp_listen)?,
    ];
    pause(args.serve_for);
    brokers.into_iter().for_each(NullBroker::stop);
    Ok(())
}

/// A running null broker.
#[derive(Debug)]
pub(super) struct NullBroker {
    pub(super) address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl NullBroker {
    /// Listens and serves in threads of its own.
    ///
    /// # Errors
    /// [`BenchError::Io`] for an address that cannot be listened on.
    pub(super) fn start(protocol: Protocol, address: SocketAddr) -> Result<Self, BenchError> {
        let failed = BenchError::io("listening for the null broker");
        let listener = TcpListener::bind(address).map_err(&failed)?;
        let address = listener.local_addr().map_err(&failed)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let served = Served { protocol, router: Arc::default(), stopping: Arc::clone(&stopping) };
        let accepting = thread::Builder::new()
            .name("null-accept".to_owned())
            .spawn(move || served.accept(&listener))
            .map_err(&failed)?;
        Ok(Self { address, stopping, accepting })
    }

    /// Ends all threads.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails, it is gone already.
        drop(dial(self.address));
        drop(self.accepting.join());
    }
}

/// What all connections of a null broker share.
struct Served {
    protocol: Protocol,
    router: Arc<Router>,
    stopping: Arc<AtomicBool>,
}

impl Served {
    fn accept(&self, listener: &TcpListener) {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            let (router, stopping) = (Arc::clone(&self.router), Arc::clone(&self.stopping));
            let protocol = self.protocol;
            let connection = move || {
                if let Err(error) = serve_one(protocol, stream, &router, &stopping) {
                    report::complain(&error);
                }
            };
            match thread::Builder::new().name("null-connection".to_owned()).spawn(connection) {
                Ok(thread) => connections.push(thread),
                Err(source) => {
                    report::complain(&BenchError::Io { doing: "starting a thread", source });
                }
            }
        }
        for thread in connections {
            drop(thread.join());
        }
    }
}

/// Serves one connection until either side ends it.
fn serve_one(
    protocol: Protocol,
    stream: TcpStream,
    router: &Router,
    stopping: &AtomicBool,
) -> Result<(), BenchError> {
    prepare(&stream).map_err(BenchError::io("accepting a connection"))?;
    let peer = Arc::new(Peer::new(stream));
    let mut inbox = Inbox::new();
    inbox.widen();
    let arrivals = Arrivals { peer: &peer, inbox, stopping };
    let outcome = match protocol {
        Protocol::Amqp => amqp::serve(arrivals, &peer, router),
        Protocol::Stomp => stomp::serve(arrivals, &peer, router),
    };
    router.forget(&peer);
    outcome
}

/// What a connection of the null broker reads from.
struct Arrivals<'a> {
    peer: &'a Peer,
    inbox: Inbox,
    stopping: &'a AtomicBool,
}

impl Arrivals<'_> {
    /// Reads once; `false` when the connection or the broker is at its end.
    fn more(&mut self) -> Result<bool, BenchError> {
        loop {
            match self.inbox.read(self.peer.stream()) {
                Ok(_) => return Ok(true),
                Err(error) if is_timeout(&error) => {
                    if self.stopping.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                }
                Err(error) if is_end(&error) => return Ok(false),
                Err(source) => {
                    return Err(BenchError::Io { doing: "reading from a client", source });
                }
            }
        }
    }
}

/// Whether an error only says that the client is gone.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}
