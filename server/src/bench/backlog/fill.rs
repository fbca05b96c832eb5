//! The first phase: publish everything, persistent and confirmed, to queues that nobody reads.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use super::super::acks::CHANNEL;
use super::super::amqp::AmqpPeer;
use super::super::clock::{nanos, now};
use super::super::confirms::ConfirmWindow;
use super::super::error::BenchError;
use super::super::link::{Link, is_timeout};
use super::super::process::Watched;
use super::super::report::PublishReport;
use super::super::ring::{Ring, Shape};
use super::super::stats::Times;
use super::super::walk::{Event, Handles};
use super::{Meter, Phase, Plan, Share, resident};

/// Octets written at once; as for producers in a flow.
const WRITE_LEN: usize = 64 * 1024;

/// Publishes the whole plan; the window is from the first publish to the last confirm.
pub(super) fn fill(plan: &Plan<'_>, broker: Option<&Watched>) -> Result<PublishReport, BenchError> {
    let filler = |share| Filler::connect(plan, share);
    let fillers = plan.queues.iter().map(filler).collect::<Result<Vec<_>, _>>()?;
    let meter = Meter::start(broker)?;
    let phase = Phase::start(plan.duration);
    let started = now();
    let work = || phase.of_each("bench-filler", fillers, |filler| filler.publish(&phase));
    let (filled, resident_max) = resident::largest_during(broker, work)?;
    // Before the farewells: a window ends when the work is done.
    let ended = filled.iter().map(|filled| filled.ended).max().unwrap_or(started);
    let confirmed = phase.done.load(Ordering::Relaxed);
    let cost = meter.stop(confirmed, resident_max)?;
    let mut confirm = Times::new();
    for filled in filled {
        confirm.add(&filled.confirm);
        filled.link.close(|| phase.patience().is_err(), |_| ())?;
    }
    Ok(PublishReport::new(confirmed, ended - started, &confirm, cost))
}

/// A connection that has published its share.
#[derive(Debug)]
struct Filled {
    link: Link,
    confirm: Times,
    ended: std::time::Instant,
}

/// A connection that publishes to one queue.
#[derive(Debug)]
struct Filler {
    link: Link,
    ring: Ring,
    messages: u64,
    window: NonZeroU32,
    unconfirmed: ConfirmWindow,
    confirm: Times,
}

impl Filler {
    fn connect(plan: &Plan<'_>, share: &Share) -> Result<Self, BenchError> {
        let mut peer = AmqpPeer::open(plan.address)?;
        peer.open_channel(CHANNEL)?;
        peer.select_confirms()?;
        let shape = Shape {
            exchange: "",
            keys: std::slice::from_ref(&share.queue),
            body_len: plan.size,
            persistent: true,
            receipts: false,
        };
        let ring = Ring::amqp(shape, peer.frame_max())?;
        Ok(Self {
            link: peer.into_link(Handles::Skip)?,
            ring,
            messages: share.messages,
            window: plan.confirm_window,
            unconfirmed: ConfirmWindow::default(),
            confirm: Times::new(),
        })
    }

    /// Publishes the share, numbered from 1, and waits for all confirms.
    fn publish(mut self, phase: &Phase) -> Result<Filled, BenchError> {
        let window = u64::from(self.window.get());
        while self.unconfirmed.published() < self.messages {
            let left = self.messages - self.unconfirmed.published();
            let space = window - self.unconfirmed.outstanding();
            // Not every freed place at once: writes of one message each would measure system calls.
            if space >= window.div_ceil(4) || space >= left {
                self.write(space.min(left), phase)?;
            } else {
                self.read_confirms(phase)?;
            }
        }
        while self.unconfirmed.outstanding() > 0 {
            self.read_confirms(phase)?;
        }
        Ok(Filled { link: self.link, confirm: self.confirm, ended: now() })
    }

    /// Writes the next `count` publishes; fewer at the ring's end.
    fn write(&mut self, count: u64, phase: &Phase) -> Result<(), BenchError> {
        let first = self.unconfirmed.published();
        let index = self.ring.index_of(first);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.ring.count() - index);
        for (index, number) in (index..index + count).zip(first + 1..) {
            self.ring.stamp(index, number);
        }
        // Before the write: confirms may come in its middle.
        self.unconfirmed.publish(count as u64, now());
        let mut written = 0;
        loop {
            let rest = self.ring.slice(index, count).get(written..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            match (&self.link.stream).write(rest.get(..WRITE_LEN).unwrap_or(rest)) {
                Ok(len) => written += len,
                // A broker that does not read may be waiting for us to read its confirms.
                Err(error) if is_timeout(&error) => self.read_confirms(phase)?,
                Err(source) => return Err(self.link.why(source)),
            }
        }
    }

    /// Reads once and settles what the broker confirms.
    fn read_confirms(&mut self, phase: &Phase) -> Result<(), BenchError> {
        let Self { link, unconfirmed, confirm, .. } = self;
        let (mut confirmed, mut refused, mut unknown) = (0, 0, None);
        let arrived = link.receive(|event| {
            if let Event::Settled { number, multiple, refused: is_refusal } = event {
                match unconfirmed.settle(number, multiple) {
                    Ok(settled) if is_refusal => refused += settled,
                    Ok(settled) => confirmed += settled,
                    Err(number) => unknown = Some(number),
                }
            }
        })?;
        if let Some(number) = unknown {
            return Err(BenchError::Protocol(format!(
                "a confirm of {number}, which was not published"
            )));
        }
        if refused > 0 {
            return Err(BenchError::Closed { text: format!("basic.nack of {refused} publishes") });
        }
        if arrived {
            let clock = now();
            for written_at in unconfirmed.settled_writes() {
                confirm.record(nanos(clock.saturating_duration_since(written_at)));
            }
        }
        phase.done.fetch_add(confirmed, Ordering::Relaxed);
        phase.patience()
    }
}
