//! `warren bench churn`: open and close, over and over.
//!
//! A cycle is what a client waits for: both answers. Each thread has one connection of its own, or one after
//! the other when connections are the subject.

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use proto_amqp::ChannelId;
use serde::Serialize;

use super::acks::CHANNEL;
use super::address::Address;
use super::amqp::AmqpPeer;
use super::args::{ChurnArgs, ChurnSubject, Protocol};
use super::clock::{nanos, now};
use super::error::BenchError;
use super::process::Watched;
use super::report::print;
use super::stats::{Times, TimesUs, per_second, seconds};
use super::stomp::{StompPeer, Subscription};
use super::topology::{declare_queue, delete_queue};

/// The channel that comes and goes.
const CHURNED_CHANNEL: ChannelId = ChannelId(2);

#[derive(Debug, Serialize)]
struct Report {
    scenario: &'static str,
    broker: String,
    protocol: Protocol,
    parameters: Parameters,
    window_s: f64,
    cycles: u64,
    cycles_per_s: f64,
    cycle_us: Option<TimesUs>,
    client_cpu_s: f64,
    broker_cpu_s: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Parameters {
    subject: ChurnSubject,
    concurrency: u32,
}

/// Runs and reports.
///
/// # Errors
/// The first cycle that fails ends the run.
pub(super) fn run(args: &ChurnArgs) -> Result<(), BenchError> {
    let address = Address::of(&args.target)?;
    print(&measure(args, &address)?, args.target.json)
}

/// Lets all threads go through their cycles.
fn measure(args: &ChurnArgs, address: &Address) -> Result<Report, BenchError> {
    if address.protocol == Protocol::Stomp
        && matches!(args.subject, ChurnSubject::Channels | ChurnSubject::Queues)
    {
        return Err(BenchError::Usage("STOMP has no channels and cannot delete queues".to_owned()));
    }
    let mine = Watched::myself()?;
    let watched = args.target.broker_pid.map(Watched::open).transpose()?;
    let run: u32 = rand::random();
    let mine_before = mine.cpu()?;
    let before = watched.as_ref().map(Watched::cpu).transpose()?;
    let started = now();
    let deadline = started + args.duration;
    let (broker, times) = thread::scope(|scope| -> Result<_, BenchError> {
        let threads: Vec<_> = (0..args.concurrency)
            .map(|thread| {
                let name = format!("wb{run:08x}-{thread}");
                scope.spawn(move || churn(address, args.subject, &name, deadline))
            })
            .collect();
        let (mut broker, mut times) = (String::new(), Times::new());
        for thread in threads {
            let (product, took) = thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            broker = product;
            times.add(&took);
        }
        Ok((broker, times))
    })?;
    let window = now() - started;
    let after = watched.as_ref().map(Watched::cpu).transpose()?;
    let cycle_us = times.summary();
    let cycles = cycle_us.map_or(0, |summary| summary.count);
    Ok(Report {
        scenario: "churn",
        broker,
        protocol: address.protocol,
        parameters: Parameters { subject: args.subject, concurrency: args.concurrency },
        window_s: seconds(window),
        cycles,
        cycles_per_s: per_second(cycles, window),
        cycle_us,
        client_cpu_s: seconds(mine.cpu()?.saturating_sub(mine_before)),
        broker_cpu_s: before.zip(after).map(|(b, a)| seconds(a.saturating_sub(b))),
    })
}

/// One thread's cycles: the broker's name and how long each took.
fn churn(
    address: &Address,
    subject: ChurnSubject,
    name: &str,
    deadline: Instant,
) -> Result<(String, Times), BenchError> {
    match address.protocol {
        Protocol::Amqp => churn_amqp(address, subject, name, deadline),
        Protocol::Stomp => churn_stomp(address, subject, name, deadline),
    }
}

fn churn_amqp(
    address: &Address,
    subject: ChurnSubject,
    name: &str,
    deadline: Instant,
) -> Result<(String, Times), BenchError> {
    let mut peer = AmqpPeer::open(address)?;
    let product = peer.product().to_owned();
    peer.open_channel(CHANNEL)?;
    if subject == ChurnSubject::Subscriptions {
        declare_queue(&mut peer, name, false)?;
        // Keeps the auto-delete queue between the cycles.
        peer.consume(name, "keeper", true)?;
    }
    let times = cycles(deadline, || match subject {
        ChurnSubject::Connections => AmqpPeer::open(address)?.close(),
        ChurnSubject::Channels => {
            peer.open_channel(CHURNED_CHANNEL)?;
            peer.close_channel(CHURNED_CHANNEL)
        }
        ChurnSubject::Queues => {
            declare_queue(&mut peer, name, false)?;
            delete_queue(&mut peer, name)
        }
        ChurnSubject::Subscriptions => {
            peer.consume(name, "churned", true)?;
            peer.cancel("churned")
        }
    })?;
    if subject == ChurnSubject::Subscriptions {
        // The queue goes with its last consumer.
        peer.cancel("keeper")?;
    }
    peer.close()?;
    Ok((product, times))
}

fn churn_stomp(
    address: &Address,
    subject: ChurnSubject,
    name: &str,
    deadline: Instant,
) -> Result<(String, Times), BenchError> {
    let mut peer = StompPeer::open(address)?;
    let product = peer.product().to_owned();
    let destination = format!("/queue/{name}");
    if subject == ChurnSubject::Subscriptions {
        // Keeps the auto-delete queue between the cycles.
        peer.subscribe(&destination, "keeper", Subscription::TRANSIENT)?;
    }
    let times = cycles(deadline, || match subject {
        ChurnSubject::Connections => StompPeer::open(address)?.close(),
        ChurnSubject::Subscriptions => {
            peer.subscribe(&destination, "churned", Subscription::TRANSIENT)?;
            peer.unsubscribe("churned")
        }
        ChurnSubject::Channels | ChurnSubject::Queues => {
            Err(BenchError::Usage("not in STOMP".to_owned()))
        }
    })?;
    if subject == ChurnSubject::Subscriptions {
        peer.unsubscribe("keeper")?;
    }
    peer.close()?;
    Ok((product, times))
}

/// Repeats `cycle` until `deadline` and times it.
fn cycles(
    deadline: Instant,
    mut cycle: impl FnMut() -> Result<(), BenchError>,
) -> Result<Times, BenchError> {
    let mut times = Times::new();
    let mut before = now();
    while before < deadline {
        cycle()?;
        let after = now();
        times.record(nanos(after - before));
        before = after;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::super::args::TargetArgs;
    use super::super::null::NullBroker;
    use super::*;

    fn args(subject: ChurnSubject) -> ChurnArgs {
        ChurnArgs {
            target: TargetArgs {
                url: None,
                protocol: None,
                allow_remote: false,
                broker_pid: None,
                json: false,
            },
            subject,
            concurrency: 2,
            duration: Duration::from_millis(50),
        }
    }

    #[test]
    fn every_subject_goes_through_cycles() {
        use ChurnSubject::{Channels, Connections, Queues, Subscriptions};
        for (protocol, subjects) in [
            (Protocol::Amqp, &[Connections, Channels, Queues, Subscriptions][..]),
            (Protocol::Stomp, &[Connections, Subscriptions]),
        ] {
            let broker =
                NullBroker::start(protocol, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = Address::local(protocol, broker.address);
            for &subject in subjects {
                // On a busy machine a run may be over before there was time for two.
                let has_gone_on = (0..50).any(|_| {
                    let report = measure(&args(subject), &address).unwrap();
                    assert!(report.broker.starts_with("null "), "{}", report.broker);
                    report.cycles >= 2
                });
                assert!(has_gone_on, "{protocol:?} {subject:?}");
            }
            broker.stop();
        }
    }

    #[test]
    fn what_stomp_does_not_have_is_refused() {
        let address = Address::local(Protocol::Stomp, SocketAddr::from(([127, 0, 0, 1], 1)));
        for subject in [ChurnSubject::Channels, ChurnSubject::Queues] {
            let error = measure(&args(subject), &address).unwrap_err();
            assert!(matches!(error, BenchError::Usage(_)), "{error}");
        }
    }
}
