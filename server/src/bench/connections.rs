//! `warren bench connections`: many connections, opened and held.
//!
//! Some threads log in at the same time and pass only the sockets on, so that the generator's own memory
//! stays small. When all are open they are held, the broker's memory is read and each socket is looked at
//! once: a broker that has dropped some of them does not hold them.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::num::NonZeroU64;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto_amqp::ChannelId;
use serde::Serialize;

use super::address::Address;
use super::amqp::AmqpPeer;
use super::args::{ConnectionsArgs, Protocol};
use super::clock::{Epoch, now, nth_at, pause};
use super::error::BenchError;
use super::process::{Watched, allow_open_files};
use super::report::{mib, print};
use super::stats::{Times, TimesUs, per_second, seconds};
use super::stomp::StompPeer;

/// Files open besides the held connections.
const FILES_BESIDES: u64 = 32;

#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    broker: String,
    protocol: Protocol,
    parameters: Parameters,
    opened: u64,
    held: u64,
    opened_per_s: f64,
    open_us: Option<TimesUs>,
    client_cpu_s: f64,
    broker_cpu_s: Option<f64>,
    broker_resident_before_mib: Option<f64>,
    broker_resident_mib: Option<f64>,
    broker_resident_kib_per_connection: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Parameters {
    count: u32,
    open_rate: Option<NonZeroU64>,
    channels: u16,
    concurrency: u32,
    hold_s: f64,
}

/// What the opening threads share.
struct Opening<'a> {
    args: &'a ConnectionsArgs,
    address: &'a Address,
    epoch: Epoch,
    deadline: Instant,
    /// The number of the next connection.
    next: AtomicU64,
}

/// Runs and reports.
///
/// # Errors
/// The first connection that fails, or the time for opening being over, ends the run.
pub(super) fn run(args: &ConnectionsArgs) -> Result<(), BenchError> {
    let address = Address::of(&args.target)?;
    print(&measure(args, &address)?, args.target.json)
}

/// Opens, holds and closes the connections.
fn measure(args: &ConnectionsArgs, address: &Address) -> Result<Report, BenchError> {
    if address.protocol == Protocol::Stomp && args.channels > 0 {
        return Err(BenchError::Usage("--channels: STOMP has none".to_owned()));
    }
    allow_open_files(u64::from(args.count) + FILES_BESIDES)?;
    let mine = Watched::myself()?;
    let watched = args.target.broker_pid.map(Watched::open).transpose()?;
    let broker = product(address)?;
    let mine_before = mine.cpu()?;
    let before = watched.as_ref().map(cost).transpose()?;
    let started = now();
    let opening = Opening {
        args,
        address,
        epoch: Epoch::start(),
        deadline: started + args.duration,
        next: AtomicU64::new(0),
    };
    let (sockets, times) = open_all(&opening)?;
    let took = now() - started;
    pause(args.hold);
    let after = watched.as_ref().map(cost).transpose()?;
    let held = sockets.iter().filter(|socket| is_open(socket)).count() as u64;
    let opened = sockets.len() as u64;
    Ok(Report {
        scenario: "connections",
        broker,
        protocol: address.protocol,
        parameters: Parameters {
            count: args.count,
            open_rate: args.open_rate,
            channels: args.channels,
            concurrency: args.concurrency,
            hold_s: seconds(args.hold),
        },
        opened,
        held,
        opened_per_s: per_second(opened, took),
        open_us: times.summary(),
        client_cpu_s: seconds(mine.cpu()?.saturating_sub(mine_before)),
        broker_cpu_s: before.zip(after).map(|(b, a)| seconds(a.0.saturating_sub(b.0))),
        broker_resident_before_mib: before.map(|(_, octets)| mib(octets as f64)),
        broker_resident_mib: after.map(|(_, octets)| mib(octets as f64)),
        broker_resident_kib_per_connection: before.zip(after).map(|(b, a)| {
            let grown = a.1.saturating_sub(b.1) as f64;
            (grown / opened as f64 / 102.4).round() / 10.0
        }),
    })
}

/// Processor time and resident octets.
fn cost(process: &Watched) -> Result<(Duration, u64), BenchError> {
    Ok((process.cpu()?, process.resident()?))
}

/// What the broker says it is; also the first check that it answers.
fn product(address: &Address) -> Result<String, BenchError> {
    match address.protocol {
        Protocol::Amqp => {
            let peer = AmqpPeer::open(address)?;
            let product = peer.product().to_owned();
            peer.close()?;
            Ok(product)
        }
        Protocol::Stomp => {
            let peer = StompPeer::open(address)?;
            let product = peer.product().to_owned();
            peer.close()?;
            Ok(product)
        }
    }
}

/// Opens all connections; returns their sockets and how long each login took.
fn open_all(opening: &Opening<'_>) -> Result<(Vec<TcpStream>, Times), BenchError> {
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..opening.args.concurrency).map(|_| scope.spawn(|| open_some(opening))).collect();
        let (mut sockets, mut times) = (Vec::new(), Times::new());
        for thread in threads {
            let (opened, took) = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            sockets.extend(opened);
            times.add(&took);
        }
        Ok((sockets, times))
    })
}

/// One thread's share: whichever connections are next.
fn open_some(opening: &Opening<'_>) -> Result<(Vec<TcpStream>, Times), BenchError> {
    let (mut sockets, mut times) = (Vec::new(), Times::new());
    loop {
        let number = opening.next.fetch_add(1, Ordering::Relaxed);
        if number >= u64::from(opening.args.count) {
            return Ok((sockets, times));
        }
        if let Some(rate) = opening.args.open_rate {
            let due = nth_at(rate, number);
            pause(Duration::from_nanos(due.saturating_sub(opening.epoch.nanos())));
        }
        if now() >= opening.deadline {
            return Err(BenchError::Late(opening.args.duration));
        }
        let before = opening.epoch.nanos();
        sockets.push(open_one(opening)?);
        times.record(opening.epoch.nanos() - before);
    }
}

fn open_one(opening: &Opening<'_>) -> Result<TcpStream, BenchError> {
    match opening.address.protocol {
        Protocol::Amqp => {
            let mut peer = AmqpPeer::open(opening.address)?;
            for channel in 1..=opening.args.channels {
                peer.open_channel(ChannelId(channel))?;
            }
            peer.into_idle()
        }
        Protocol::Stomp => Ok(StompPeer::open(opening.address)?.into_idle()),
    }
}

/// Whether the broker has kept a connection: nothing to read, not even its end.
fn is_open(socket: &TcpStream) -> bool {
    let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
    matches!(looked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::args::TargetArgs;
    use super::super::null::NullBroker;
    use super::*;

    fn args(protocol: Protocol) -> ConnectionsArgs {
        ConnectionsArgs {
            target: TargetArgs {
                url: None,
                protocol: Some(protocol),
                allow_remote: false,
                broker_pid: None,
                json: false,
            },
            count: 20,
            open_rate: NonZeroU64::new(1_000),
            channels: if protocol == Protocol::Amqp { 2 } else { 0 },
            concurrency: 3,
            hold: Duration::from_millis(10),
            // Far longer than it takes: a busy machine is no failure.
            duration: Duration::from_secs(600),
        }
    }

    #[test]
    fn all_connections_are_opened_and_held() {
        for protocol in [Protocol::Amqp, Protocol::Stomp] {
            let broker =
                NullBroker::start(protocol, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = Address::local(protocol, broker.address);
            let report = measure(&args(protocol), &address).unwrap();
            broker.stop();
            assert_eq!((report.opened, report.held), (20, 20), "{protocol:?}");
            assert_eq!(report.open_us.unwrap().count, 20);
            // Twenty at a thousand a second take nineteen milliseconds at least.
            assert!(report.opened_per_s < 1_053.0, "{}", report.opened_per_s);
        }
    }

    #[test]
    fn channels_are_refused_in_stomp() {
        let args = ConnectionsArgs { channels: 1, ..args(Protocol::Stomp) };
        let address = Address::local(Protocol::Stomp, SocketAddr::from(([127, 0, 0, 1], 1)));
        assert!(measure(&args, &address).unwrap_err().to_string().contains("--channels"));
    }
}
