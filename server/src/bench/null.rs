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
use std::time::Duration;

use super::address::Address;
use super::args::{ExchangeShape, NullArgs, Protocol};
use super::clock::pause;
use super::error::BenchError;
use super::link::{Inbox, dial, is_timeout, prepare};
use super::load::{Load, Pace, measure};
use super::report::{self, FlowReport};

use router::{Peer, Router};

/// How long to wait when a connection could not be taken.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

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
        let mut connections = Connections::default();
        loop {
            let accepted = listener.accept();
            if self.stopping.load(Ordering::SeqCst) {
                break;
            }
            let started = accepted.and_then(|(stream, _)| {
                let (router, stopping) = (Arc::clone(&self.router), Arc::clone(&self.stopping));
                let protocol = self.protocol;
                connections.start(move || {
                    if let Err(error) = serve_one(protocol, stream, &router, &stopping) {
                        report::complain(&error);
                    }
                })
            });
            if let Err(source) = started {
                // A client that was gone before it was let in, or descriptors or threads that have run out
                // and come back when connections end: nothing that the others should hear of.
                report::complain(&BenchError::Io { doing: "taking a connection", source });
                pause(REFUSED_PAUSE);
            }
        }
        connections.join();
    }
}

/// The threads of the connections that are open.
#[derive(Default)]
struct Connections(Vec<JoinHandle<()>>);

impl Connections {
    /// Serves one more. Lets go of those that are over first: a thread that nobody joins or lets go of keeps
    /// its stack, and after some ten thousand of them the process can map no more memory.
    fn start(&mut self, serve: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.0.retain(|thread| !thread.is_finished());
        self.0.push(thread::Builder::new().name("null-connection".to_owned()).spawn(serve)?);
        Ok(())
    }

    /// Waits for all of them.
    fn join(self) {
        for thread in self.0 {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn connections_that_are_over_keep_no_thread() {
        let mut connections = Connections::default();
        for _ in 0..100 {
            connections.start(|| {}).unwrap();
            while !connections.0.iter().all(JoinHandle::is_finished) {
                thread::yield_now();
            }
        }
        let (ended, end) = mpsc::channel::<()>();
        let open = move || assert!(end.recv().is_err(), "nothing is sent");
        connections.start(open).unwrap();
        assert_eq!(connections.0.len(), 1, "only the one that is open");
        drop(ended);
        connections.join();
    }

    #[test]
    fn a_client_that_resets_its_connection_ends_nothing_else() {
        for (protocol, greeting) in
            [(Protocol::Amqp, &b"AMQP\0\0\x09\x01"[..]), (Protocol::Stomp, b"CONNECT\n\n\0")]
        {
            let broker =
                NullBroker::start(protocol, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            for _ in 0..20 {
                let stream = dial(broker.address).unwrap();
                io::Write::write_all(&mut &stream, greeting).unwrap();
                // Its answer is not read: the socket is reset when it closes.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            dial(broker.address).unwrap();
            broker.stop();
        }
    }
}
