//! `warren bench backlog`: fill durable queues while nobody consumes, then empty them.
//!
//! What a store costs shows here and not in a flow: how fast a broker takes in what it must keep, how much
//! memory that holds, and how fast it gives it back. Every queue has a publishing and a consuming connection
//! of its own. Bodies start with their number in the queue, so the drain knows of every message whether it
//! is the one that must come next; one that is missing, doubled or out of order fails the run.
//!
//! The two phases can be runs of their own, with a restart of the broker in between: then the queues are
//! named by the caller, the first run leaves them and the second deletes them. Only there does this tool
//! leave anything behind.

mod drain;
mod fill;
mod resident;

use std::num::{NonZeroU16, NonZeroU32};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proto_amqp::control::protocol::{AMQPClass, queue};
use proto_amqp::control::types::FieldTable;
use serde::Serialize;

use super::acks::CHANNEL;
use super::address::Address;
use super::amqp::{AmqpPeer, short, unexpected};
use super::args::{BacklogArgs, BacklogPhase, Protocol};
use super::clock::{now, pause};
use super::error::BenchError;
use super::process::{Watched, allow_open_files};
use super::report::{BacklogReport, BrokerCost, DrainReport, PublishReport, Resident, print};
use super::stats::seconds;
use super::topology::{delete_queue, forgive_absence};

/// Files open besides the connections: standard streams, `/proc`, the control connection.
const FILES_BESIDES: u64 = 32;

/// Runs and reports.
///
/// # Errors
/// [`BenchError::Usage`] for arguments that do not go together, [`BenchError::Books`] for a message that is
/// missing, doubled or out of order, otherwise the first failure of a connection. The queues are deleted in
/// any case, except those with a prefix from the caller that have not been drained.
pub(super) fn run(args: &BacklogArgs) -> Result<(), BenchError> {
    let address = Address::of(&args.target)?;
    args.check(address.protocol)?;
    print(&measure(args, &address)?, args.target.json)
}

/// What is to be moved through which queues.
#[derive(Debug)]
struct Plan<'a> {
    address: &'a Address,
    queues: Vec<Share>,
    size: usize,
    confirm_window: NonZeroU32,
    prefetch: NonZeroU16,
    /// Longest time for each phase.
    duration: Duration,
}

/// A queue and how many messages go through it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    queue: String,
    messages: u64,
}

impl<'a> Plan<'a> {
    fn new(args: &BacklogArgs, address: &'a Address) -> Result<Self, BenchError> {
        let prefix = match &args.queue_prefix {
            Some(prefix) => prefix.clone(),
            None => format!("wb{:08x}", rand::random::<u32>()),
        };
        Ok(Self {
            address,
            queues: shares(&prefix, args.messages.get(), args.queues),
            size: usize::try_from(args.size)
                .map_err(|_| BenchError::Usage("--size: more than memory can hold".to_owned()))?,
            confirm_window: args.confirm_window(),
            prefetch: args.prefetch(),
            duration: args.duration,
        })
    }

    fn messages(&self) -> u64 {
        self.queues.iter().map(|share| share.messages).sum()
    }
}

/// `messages` dealt out to `count` queues: all shares differ by one at most.
fn shares(prefix: &str, messages: u64, count: u32) -> Vec<Share> {
    let queues = u64::from(count);
    (0..queues)
        .map(|index| Share {
            queue: format!("{prefix}-{index:04}"),
            messages: messages / queues + u64::from(index < messages % queues),
        })
        .collect()
}

/// What the connections of a phase share. The counter and the flag order no other memory, hence `Relaxed`.
#[derive(Debug)]
struct Phase {
    deadline: Instant,
    limit: Duration,
    done: AtomicU64,
    /// One of them has failed: the others need not go on.
    over: AtomicBool,
}

impl Phase {
    fn start(limit: Duration) -> Self {
        Self {
            deadline: now() + limit,
            limit,
            done: AtomicU64::new(0),
            over: AtomicBool::new(false),
        }
    }

    /// Whether a connection that has nothing to do right now should wait any longer.
    ///
    /// # Errors
    /// [`BenchError::Late`] when the phase's time is over or another connection has failed: the first
    /// failure, which is the one that is reported, was that other's.
    fn patience(&self) -> Result<(), BenchError> {
        if self.over.load(Ordering::Relaxed) || now() >= self.deadline {
            return Err(BenchError::Late(self.limit));
        }
        Ok(())
    }

    /// Runs `work` for every element, each in a thread, and returns what they came to in order.
    ///
    /// # Errors
    /// The failure that happened first; it ends the others.
    fn of_each<T: Send, R: Send>(
        &self,
        name: &str,
        elements: Vec<T>,
        work: impl Fn(T) -> Result<R, BenchError> + Sync,
    ) -> Result<Vec<R>, BenchError> {
        let work = &work;
        let first = parking_lot::Mutex::new(None);
        let outcomes = thread::scope(|scope| {
            let mut threads = Vec::new();
            for element in elements {
                let first = &first;
                let work = move || match work(element) {
                    Ok(outcome) => Some(outcome),
                    Err(error) => {
                        first.lock().get_or_insert(error);
                        self.over.store(true, Ordering::Relaxed);
                        None
                    }
                };
                match thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(source) => {
                        first.lock().get_or_insert(BenchError::io("starting a thread")(source));
                        self.over.store(true, Ordering::Relaxed);
                    }
                }
            }
            threads
                .into_iter()
                .filter_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        });
        first.into_inner().map_or(Ok(outcomes), Err)
    }
}

/// The arguments as reports show them, after defaults.
#[derive(Debug, Serialize)]
pub(super) struct Parameters {
    phase: BacklogPhase,
    messages: u64,
    size: u64,
    queues: u32,
    confirm_window: Option<NonZeroU32>,
    prefetch: Option<NonZeroU16>,
    pause_s: Option<f64>,
}

/// Goes through the phases that `args` ask for.
fn measure(args: &BacklogArgs, address: &Address) -> Result<BacklogReport, BenchError> {
    allow_open_files(u64::from(args.queues) + FILES_BESIDES)?;
    let plan = Plan::new(args, address)?;
    let mine = Watched::myself()?;
    let broker = args.target.broker_pid.map(Watched::open).transpose()?;
    let mine_before = mine.cpu()?;
    let mut control = AmqpPeer::open(address)?;
    control.open_channel(CHANNEL)?;
    let product = control.product().to_owned();
    let outcome = phases(args, &plan, &mut control, broker.as_ref());
    // Queues that the caller named may be the caller's: they go only when they have been emptied here.
    let emptied = outcome.is_ok() && args.phase.drains();
    let deletes = emptied || args.queue_prefix.is_none();
    let ended = if deletes { delete(&plan, address) } else { Ok(()) };
    let (publish, drain) = outcome?;
    ended?;
    control.close()?;
    Ok(BacklogReport {
        scenario: "backlog",
        broker: product,
        protocol: Protocol::Amqp,
        parameters: Parameters {
            phase: args.phase,
            messages: plan.messages(),
            size: args.size,
            queues: args.queues,
            confirm_window: args.phase.publishes().then_some(plan.confirm_window),
            prefetch: args.phase.drains().then_some(plan.prefetch),
            pause_s: args.pause.map(seconds),
        },
        publish,
        drain,
        client_cpu_s: seconds(mine.cpu()?.saturating_sub(mine_before)),
    })
}

fn phases(
    args: &BacklogArgs,
    plan: &Plan<'_>,
    control: &mut AmqpPeer,
    broker: Option<&Watched>,
) -> Result<(Option<PublishReport>, Option<DrainReport>), BenchError> {
    let mut publish = None;
    if args.phase.publishes() {
        for share in &plan.queues {
            let found = declare(control, &share.queue, Known::No)?;
            if found > 0 {
                return Err(BenchError::Usage(format!(
                    "queue `{}` is in use: it has {found} messages",
                    share.queue
                )));
            }
        }
        publish = Some(fill::fill(plan, broker)?);
        expect_ready(control, plan, |share| share.messages)?;
    }
    if let Some(length) = args.pause {
        pause(length);
    }
    let mut drain = None;
    if args.phase.drains() {
        expect_ready(control, plan, |share| share.messages)?;
        drain = Some(drain::drain(plan, broker)?);
        expect_ready(control, plan, |_| 0)?;
    }
    Ok((publish, drain))
}

/// Checks how many messages each queue has ready.
///
/// # Errors
/// [`BenchError::Books`] for the first queue with another number; as [`AmqpPeer::call`].
fn expect_ready(
    control: &mut AmqpPeer,
    plan: &Plan<'_>,
    expected: impl Fn(&Share) -> u64,
) -> Result<(), BenchError> {
    for share in &plan.queues {
        let found = u64::from(declare(control, &share.queue, Known::Yes)?);
        let expected = expected(share);
        if found != expected {
            return Err(BenchError::Books(format!(
                "queue `{}` has {found} messages ready, not {expected}",
                share.queue
            )));
        }
    }
    Ok(())
}

/// Whether a queue is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

/// Declares a durable queue that outlives its consumers; one that is known, passively. Returns how many
/// messages it has ready.
///
/// # Errors
/// As [`AmqpPeer::call`].
fn declare(peer: &mut AmqpPeer, name: &str, known: Known) -> Result<u32, BenchError> {
    let declare = queue::Declare {
        queue: short(name)?,
        passive: known == Known::Yes,
        durable: true,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: FieldTable::default(),
    };
    match peer.call(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))? {
        AMQPClass::Queue(queue::AMQPMethod::DeclareOk(found)) => Ok(found.message_count),
        other => Err(unexpected(&other)),
    }
}

/// Deletes the queues, on a connection of its own: the one that failed may be closed.
fn delete(plan: &Plan<'_>, address: &Address) -> Result<(), BenchError> {
    let mut peer = AmqpPeer::open(address)?;
    peer.open_channel(CHANNEL)?;
    for share in &plan.queues {
        forgive_absence(&mut peer, |peer| delete_queue(peer, &share.queue))?;
    }
    peer.close()
}

/// What a phase cost the broker.
#[derive(Debug)]
struct Meter<'a> {
    broker: Option<&'a Watched>,
    cpu_before: Option<Duration>,
    resident_before: Option<u64>,
}

impl<'a> Meter<'a> {
    fn start(broker: Option<&'a Watched>) -> Result<Self, BenchError> {
        Ok(Self {
            broker,
            cpu_before: broker.map(Watched::cpu).transpose()?,
            resident_before: broker.map(Watched::resident).transpose()?,
        })
    }

    /// The cost until now, of `messages`; `resident_max` is what was seen meanwhile.
    fn stop(self, messages: u64, resident_max: u64) -> Result<Option<BrokerCost>, BenchError> {
        let Some((broker, (cpu_before, resident_before))) =
            self.broker.zip(self.cpu_before.zip(self.resident_before))
        else {
            return Ok(None);
        };
        let cpu = broker.cpu()?.saturating_sub(cpu_before);
        let after = broker.resident()?;
        let max = resident_max.max(after).max(resident_before);
        let resident = Resident { before: resident_before, after, max };
        Ok(Some(BrokerCost::new(cpu, messages, resident)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU64;

    use super::super::args::TargetArgs;
    use super::super::null::NullBroker;
    use super::*;

    fn args(messages: u64, queues: u32) -> BacklogArgs {
        BacklogArgs {
            target: TargetArgs {
                url: None,
                protocol: None,
                allow_remote: false,
                broker_pid: i32::try_from(std::process::id()).ok(),
                json: false,
            },
            messages: NonZeroU64::new(messages).unwrap(),
            size: 64,
            queues,
            confirm_window: None,
            prefetch: None,
            phase: BacklogPhase::Both,
            queue_prefix: None,
            pause: None,
            // Far longer than it takes: a busy machine is no failure.
            duration: Duration::from_secs(600),
        }
    }

    #[test]
    fn messages_are_dealt_out_whole() {
        let dealt = shares("p", 11, 4);
        assert_eq!(dealt.iter().map(|share| share.messages).collect::<Vec<_>>(), [3, 3, 3, 2]);
        assert_eq!(dealt[3].queue, "p-0003");
    }

    #[test]
    fn every_message_is_published_and_confirmed_once() {
        // The null broker confirms and throws away what nobody consumes.
        let broker =
            NullBroker::start(Protocol::Amqp, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = Address::local(Protocol::Amqp, broker.address);
        for window in [1, 7, 1000] {
            let args = BacklogArgs { confirm_window: NonZeroU32::new(window), ..args(2_001, 2) };
            let plan = Plan::new(&args, &address).unwrap();
            let me = Watched::myself().unwrap();
            let report = fill::fill(&plan, Some(&me)).unwrap();
            assert_eq!(report.confirmed, 2_001, "window {window}");
            let cost = report.broker.unwrap();
            assert!(cost.resident_max_mib >= cost.resident_mib && cost.resident_mib > 0.0);
        }
        broker.stop();
    }

    #[test]
    fn a_broker_that_keeps_nothing_is_found_out() {
        let broker =
            NullBroker::start(Protocol::Amqp, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = Address::local(Protocol::Amqp, broker.address);
        let error = measure(&args(100, 1), &address).unwrap_err();
        broker.stop();
        assert!(matches!(error, BenchError::Books(_)), "{error}");
        assert!(error.to_string().contains("0 messages ready, not 100"), "{error}");
    }

    #[test]
    fn the_first_failure_is_reported_and_ends_the_others() {
        let phase = Phase::start(Duration::from_secs(600));
        let outcome = phase.of_each("test", vec![0, 1], |index| -> Result<(), BenchError> {
            if index == 1 {
                return Err(BenchError::Books("lost".to_owned()));
            }
            loop {
                phase.patience()?;
                pause(Duration::from_millis(1));
            }
        });
        assert!(matches!(outcome, Err(BenchError::Books(_))), "{outcome:?}");
    }

    #[test]
    fn a_phase_that_takes_too_long_fails() {
        let phase = Phase::start(Duration::ZERO);
        assert!(matches!(phase.patience(), Err(BenchError::Late(Duration::ZERO))));
    }
}
