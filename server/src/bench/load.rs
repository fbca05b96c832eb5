//! A run under load: set-up, warm-up, window, drain, tear-down.
//!
//! Everything is connected, declared and subscribed before the first message. Then each connection gets a
//! thread, and this module's thread only reads counters at the window's two ends:
//!
//! ```text
//!           │◀ warm-up ▶│◀──── window ────▶│◀ drain ▶│
//! producers ████████████████████████████████·         │    unlimited, windowed or paced
//! consumers ██████████████████████████████████████████·
//!                       ↑ counters         ↑ counters ↑ nothing is missing, or the drain's time is over
//! ```
//!
//! With a number of messages instead of a duration the window is from the first publish to the moment the
//! last delivery (or confirm) was counted.

mod consume;
mod produce;

use std::num::{NonZeroU32, NonZeroU64};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::acks::{Acks, CHANNEL};
use super::address::Address;
use super::amqp::AmqpPeer;
use super::args::{AckChoice, PaceArgs, PathArgs, Protocol};
use super::clock::{Epoch, nanos, now};
use super::error::BenchError;
use super::link::Link;
use super::process::{Watched, allow_open_files};
use super::ring::{Ring, Shape};
use super::stats::Times;
use super::stomp::{StompPeer, Subscription};
use super::topology::Topology;
use super::walk::Handles;

use produce::Producer;

/// How often counters are compared while waiting for the last deliveries.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// Files open besides the connections: standard streams, `/proc`, the control connection.
const FILES_BESIDES: u64 = 32;

/// What to do to which broker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load<'a> {
    pub(super) address: &'a Address,
    pub(super) path: &'a PathArgs,
    pub(super) pace: Pace,
    pub(super) broker_pid: Option<i32>,
}

/// How producers are held back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As fast as the broker reads, for the run's duration or up to a number of messages.
    Flood { messages: Option<NonZeroU64>, confirm_window: Option<NonZeroU32> },
    /// So many a second, all producers together.
    Rate(NonZeroU64),
}

impl From<&PaceArgs> for Pace {
    fn from(args: &PaceArgs) -> Self {
        Self::Flood { messages: args.messages, confirm_window: args.confirm_window }
    }
}

impl Pace {
    const fn messages(self) -> Option<NonZeroU64> {
        match self {
            Self::Flood { messages, .. } => messages,
            Self::Rate(_) => None,
        }
    }

    const fn confirm_window(self) -> Option<NonZeroU32> {
        match self {
            Self::Flood { confirm_window, .. } => confirm_window,
            Self::Rate(_) => None,
        }
    }

    const fn is_rate(self) -> bool {
        matches!(self, Self::Rate(_))
    }
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Measured {
    /// Product and version of the broker, in its own words.
    pub(super) broker: String,
    /// The length of the window.
    pub(super) window: Duration,
    /// Messages written, delivered, confirmed and refused within the window.
    pub(super) counts: Counts,
    /// Deliveries still missing when the drain's time was over.
    pub(super) undelivered: u64,
    /// From a message's intended sending to its delivery.
    pub(super) latency: Times,
    /// From the start of a write to the confirm of all in it.
    pub(super) confirm: Times,
    /// From a message's intended sending to its real one: what the generator adds to the latency.
    pub(super) lateness: Times,
    /// Processor time within the window.
    pub(super) client_cpu: Duration,
    pub(super) broker_cpu: Option<Duration>,
    /// Resident octets at the window's end.
    pub(super) broker_resident: Option<u64>,
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) confirmed: u64,
    pub(super) refused: u64,
}

impl Counts {
    const fn since(self, earlier: Self) -> Self {
        Self {
            published: self.published - earlier.published,
            delivered: self.delivered.saturating_sub(earlier.delivered),
            confirmed: self.confirmed - earlier.confirmed,
            refused: self.refused - earlier.refused,
        }
    }
}

/// What the threads of a run share. All counters only grow and none orders other memory, hence `Relaxed`.
#[derive(Debug)]
struct Run {
    published: AtomicU64,
    delivered: AtomicU64,
    confirmed: AtomicU64,
    refused: AtomicU64,
    /// Producers are to finish the message at hand and leave.
    stop: AtomicBool,
    /// Consumers are to leave.
    leave: AtomicBool,
    /// Everyone is to leave at once, whatever is half done.
    abandon: AtomicBool,
    /// Deliveries of messages sent during set-up, which do not count.
    openings: u64,
    /// When a fixed number of messages is done.
    goal: Option<Counts>,
    epoch: Epoch,
    /// Stamps in nanoseconds of the epoch between which times are recorded.
    sample_from: u64,
    sample_until: u64,
    state: Mutex<RunState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RunState {
    failure: Option<BenchError>,
    goal_reached: Option<Instant>,
    producers_left: u32,
}

impl Run {
    fn counts(&self) -> Counts {
        Counts {
            published: self.published.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed).saturating_sub(self.openings),
            confirmed: self.confirmed.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn left(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    fn abandoned(&self) -> bool {
        self.abandon.load(Ordering::Relaxed)
    }

    /// Whether a stamp lies in the window.
    const fn samples(&self, stamp: u64) -> bool {
        stamp >= self.sample_from && stamp < self.sample_until
    }

    /// To be called after a counter grew: notes the moment at which the goal is reached.
    fn progressed(&self) {
        let Some(goal) = self.goal else { return };
        let counts = self.counts();
        if counts.published >= goal.published
            && counts.delivered >= goal.delivered
            && counts.confirmed + counts.refused >= goal.confirmed
        {
            let mut state = self.state.lock();
            state.goal_reached.get_or_insert_with(now);
            self.changed.notify_all();
        }
    }

    /// A thread's outcome: the first failure ends the run.
    fn finished(&self, outcome: Result<(), BenchError>) {
        if let Err(error) = outcome {
            let mut state = self.state.lock();
            state.failure.get_or_insert(error);
            self.stop.store(true, Ordering::Relaxed);
            self.leave.store(true, Ordering::Relaxed);
            self.abandon.store(true, Ordering::Relaxed);
            self.changed.notify_all();
        }
    }

    /// A producer has written everything and the broker has read it.
    fn producer_left(&self) {
        self.state.lock().producers_left -= 1;
        self.changed.notify_all();
    }

    /// Waits until `deadline`, a failure, or `done`.
    fn wait(&self, deadline: Instant, done: impl Fn(&RunState) -> bool) {
        let mut state = self.state.lock();
        while state.failure.is_none() && !done(&state) {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }
}

/// Runs the load and measures it. Blocks for warm-up, duration and drain, and the set-up around them.
///
/// # Errors
/// The first failure of any connection. What was declared is deleted in any case.
pub(super) fn measure(load: Load<'_>) -> Result<Measured, BenchError> {
    let path = load.path;
    let connections = u64::from(path.producers) + u64::from(path.consumers);
    allow_open_files(connections + FILES_BESIDES)?;
    let mine = Watched::myself()?;
    let broker = load.broker_pid.map(Watched::open).transpose()?;
    let plan = Topology::plan(load.address.protocol, rand::random(), path);
    match load.address.protocol {
        Protocol::Amqp => {
            let mut control = AmqpPeer::open(load.address)?;
            control.open_channel(CHANNEL)?;
            let product = control.product().to_owned();
            let outcome = plan
                .declare(&mut control)
                .and_then(|()| connect_amqp(load, &plan))
                .and_then(|ends| run(load, &plan, product, ends, &mine, broker.as_ref()));
            let deleted = plan.delete(&mut control).and_then(|()| control.close());
            let measured = outcome?;
            deleted?;
            Ok(measured)
        }
        Protocol::Stomp => {
            let (product, ends) = connect_stomp(load, &plan)?;
            run(load, &plan, product, ends, &mine, broker.as_ref())
        }
    }
}

/// The connections of a run, ready to start.
struct Ends {
    producers: Vec<Producer>,
    consumers: Vec<Link>,
    /// Messages sent during set-up, which will be delivered and are not counted.
    openings: u64,
}

fn shape<'a>(
    load: Load<'a>,
    exchange: &'a str,
    keys: &'a [String],
) -> Result<Shape<'a>, BenchError> {
    Ok(Shape {
        exchange,
        keys,
        body_len: usize::try_from(load.path.size)
            .map_err(|_| BenchError::Usage("--size: more than memory can hold".to_owned()))?,
        persistent: load.path.persistent,
        receipts: load.pace.confirm_window().is_some(),
    })
}

fn connect_amqp(load: Load<'_>, plan: &Topology) -> Result<Ends, BenchError> {
    let path = load.path;
    let handles = Acks::handles(path.ack);
    let mut consumers = Vec::new();
    for index in 0..path.consumers {
        let mut peer = AmqpPeer::open(load.address)?;
        peer.open_channel(CHANNEL)?;
        if let Some(prefetch) = path.prefetch() {
            peer.set_prefetch(prefetch.get())?;
        }
        let no_ack = path.ack == AckChoice::Auto;
        for (queue, tag) in plan.queues_of(index, path.consumers).iter().zip(0_u32..) {
            peer.consume(queue, &format!("c{tag}"), no_ack)?;
        }
        consumers.push(peer.into_link(handles)?);
    }
    let mut producers = Vec::new();
    for index in 0..path.producers {
        let mut peer = AmqpPeer::open(load.address)?;
        peer.open_channel(CHANNEL)?;
        if load.pace.confirm_window().is_some() {
            peer.select_confirms()?;
        }
        let keys = plan.keys_of(index, path.producers);
        let ring = Ring::amqp(shape(load, plan.exchange(), &keys)?, peer.frame_max())?;
        producers.push(Producer::new(index, peer.into_link(Handles::Skip)?, ring));
    }
    Ok(Ends { producers, consumers, openings: 0 })
}

fn connect_stomp(load: Load<'_>, plan: &Topology) -> Result<(String, Ends), BenchError> {
    let path = load.path;
    let handles = Acks::handles(path.ack);
    let (mut consumers, mut producers) = (Vec::new(), Vec::new());
    let (mut product, mut openings) = (String::new(), 0);
    for index in 0..path.consumers {
        let mut peer = StompPeer::open(load.address)?;
        peer.product().clone_into(&mut product);
        for (destination, id) in plan.queues_of(index, path.consumers).iter().zip(0_u32..) {
            // Distinct in the whole run: a durable topic subscription is found again by its id.
            let id = format!("{index}-{id}");
            peer.subscribe(destination, &id, Subscription::of(path))?;
        }
        consumers.push(peer.into_link(handles));
    }
    for index in 0..path.producers {
        let mut peer = StompPeer::open(load.address)?;
        peer.product().clone_into(&mut product);
        let keys = plan.keys_of(index, path.producers);
        for key in &keys {
            peer.open_destination(key, path.durable)?;
            openings += plan.copies();
        }
        let ring = Ring::stomp(shape(load, "", &keys)?)?;
        producers.push(Producer::new(index, peer.into_link(Handles::Skip), ring));
    }
    Ok((product, Ends { producers, consumers, openings }))
}

/// Processor times at one moment.
struct Cpu {
    mine: Duration,
    broker: Option<Duration>,
}

impl Cpu {
    fn read(mine: &Watched, broker: Option<&Watched>) -> Result<Self, BenchError> {
        Ok(Self { mine: mine.cpu()?, broker: broker.map(Watched::cpu).transpose()? })
    }
}

/// Starts the threads, lets them run and stops them.
fn run(
    load: Load<'_>,
    plan: &Topology,
    product: String,
    ends: Ends,
    mine: &Watched,
    broker: Option<&Watched>,
) -> Result<Measured, BenchError> {
    let Load { path, pace, .. } = load;
    let epoch = Epoch::start();
    let warmup = if pace.messages().is_some() { Duration::ZERO } else { path.warmup };
    let goal = pace.messages().map(|messages| Counts {
        published: if path.producers == 0 { 0 } else { messages.get() },
        delivered: if path.producers == 0 { 0 } else { messages.get() * plan.copies() },
        confirmed: pace.confirm_window().map_or(0, |_| messages.get()),
        refused: 0,
    });
    let run = Run {
        published: AtomicU64::new(0),
        delivered: AtomicU64::new(0),
        confirmed: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        leave: AtomicBool::new(false),
        abandon: AtomicBool::new(false),
        openings: ends.openings,
        goal,
        epoch,
        // Zero is the stamp of bodies without one.
        sample_from: nanos(warmup).max(1),
        sample_until: nanos(warmup + path.duration),
        state: Mutex::new(RunState { producers_left: path.producers, ..RunState::default() }),
        changed: Condvar::new(),
    };
    let started = now();
    let (window, times) = thread::scope(|scope| -> Result<_, BenchError> {
        let spawn_failed = BenchError::io("starting a thread");
        let mut consumers = Vec::new();
        for link in ends.consumers {
            let work = || {
                consume::consume(link, &run, Acks::new(path.ack, path.prefetch()), pace.is_rate())
            };
            let thread = thread::Builder::new().name("bench-consumer".to_owned());
            consumers.push(thread.spawn_scoped(scope, work).map_err(&spawn_failed)?);
        }
        let mut producers = Vec::new();
        for producer in ends.producers {
            let work = || producer.produce(&run, pace, path.producers);
            let thread = thread::Builder::new().name("bench-producer".to_owned());
            producers.push(thread.spawn_scoped(scope, work).map_err(&spawn_failed)?);
        }
        let window = observe(&run, load, started, warmup, mine, broker);
        stop(&run, load, plan);
        let mut times = produce::ProducerTimes::new();
        for thread in producers {
            times.add(&thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        let mut latency = Times::new();
        for thread in consumers {
            latency.add(&thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        Ok((window, (times, latency)))
    })?;
    let end = run.counts();
    if let Some(failure) = run.state.into_inner().failure {
        return Err(failure);
    }
    let window = window?;
    let (producers, latency) = times;
    Ok(Measured {
        broker: product,
        window: window.length,
        counts: window.counts,
        undelivered: (end.published * plan.copies()).saturating_sub(end.delivered),
        latency,
        confirm: producers.confirm,
        lateness: producers.lateness,
        client_cpu: window.cpu.mine,
        broker_cpu: window.cpu.broker,
        broker_resident: broker.map(Watched::resident).transpose()?,
    })
}

/// What happened between the window's ends.
struct Window {
    length: Duration,
    counts: Counts,
    cpu: Cpu,
}

/// Waits through warm-up and window.
fn observe(
    run: &Run,
    load: Load<'_>,
    started: Instant,
    warmup: Duration,
    mine: &Watched,
    broker: Option<&Watched>,
) -> Result<Window, BenchError> {
    let cpu_before;
    let (opened, before) = if warmup.is_zero() {
        cpu_before = Cpu::read(mine, broker)?;
        // Everything counts, also what was done while the threads were being started.
        (started, Counts::default())
    } else {
        run.wait(started + warmup, |_| false);
        cpu_before = Cpu::read(mine, broker)?;
        (now(), run.counts())
    };
    run.wait(opened + load.path.duration, |state| state.goal_reached.is_some());
    let closed = run.state.lock().goal_reached.unwrap_or_else(now);
    let (after, cpu) = (run.counts(), Cpu::read(mine, broker)?);
    Ok(Window {
        length: closed.saturating_duration_since(opened),
        counts: after.since(before),
        cpu: Cpu {
            mine: cpu.mine.saturating_sub(cpu_before.mine),
            broker: cpu
                .broker
                .zip(cpu_before.broker)
                .map(|(after, before)| after.saturating_sub(before)),
        },
    })
}

/// Stops the producers, waits for what is still to be delivered, stops the consumers; every step has a limit.
fn stop(run: &Run, load: Load<'_>, plan: &Topology) {
    run.stop.store(true, Ordering::Relaxed);
    let deadline = now() + load.path.drain;
    run.wait(deadline, |state| state.producers_left == 0);
    let missing = || {
        let counts = run.counts();
        counts.delivered < counts.published * plan.copies()
    };
    // Consumers that never acknowledge may have reached their prefetch: nothing more will come.
    let waits = load.path.ack != AckChoice::None;
    while waits && missing() && now() < deadline {
        let look = (now() + DRAIN_LOOK).min(deadline);
        run.wait(look, |_| false);
        if run.abandoned() {
            return;
        }
    }
    run.leave.store(true, Ordering::Relaxed);
    if now() >= deadline {
        run.abandon.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
