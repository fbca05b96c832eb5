//! The second phase: consume everything, acknowledge cumulatively, and look at every number.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::acks::{Acks, CHANNEL};
use super::super::amqp::AmqpPeer;
use super::super::args::AckChoice;
use super::super::clock::now;
use super::super::error::BenchError;
use super::super::link::{Link, send};
use super::super::process::Watched;
use super::super::report::DrainReport;
use super::super::walk::{Event, Handles};
use super::{Meter, Phase, Plan, Share, resident};

/// Consumes the whole plan; the window is from the first basic.consume to the last delivery.
pub(super) fn drain(plan: &Plan<'_>, broker: Option<&Watched>) -> Result<DrainReport, BenchError> {
    let ready = |share| Ok((connect(plan)?, share));
    let peers = plan.queues.iter().map(ready).collect::<Result<Vec<_>, BenchError>>()?;
    let meter = Meter::start(broker)?;
    let phase = Phase::start(plan.duration);
    let started = now();
    let work = || {
        phase.of_each("bench-drainer", peers, |(peer, share)| consume(plan, peer, share, &phase))
    };
    let (drained, resident_max) = resident::largest_during(broker, work)?;
    let ended = drained.iter().map(|drained| drained.last).max().unwrap_or(started);
    let first = drained.iter().filter_map(|drained| drained.first).min();
    let delivered = phase.done.load(Ordering::Relaxed);
    let cost = meter.stop(delivered, resident_max)?;
    for drained in drained {
        // The goodbye comes when the broker has read the last acknowledgement.
        drained.link.close(|| phase.patience().is_err(), |_| ())?;
    }
    let until_first = first.map(|first| first - started);
    Ok(DrainReport::new(delivered, plan.size, ended - started, until_first, cost))
}

/// A connection that has consumed its share.
#[derive(Debug)]
struct Drained {
    link: Link,
    first: Option<Instant>,
    last: Instant,
}

fn connect(plan: &Plan<'_>) -> Result<AmqpPeer, BenchError> {
    let mut peer = AmqpPeer::open(plan.address)?;
    peer.open_channel(CHANNEL)?;
    peer.set_prefetch(plan.prefetch.get())?;
    Ok(peer)
}

/// Consumes one queue until its last message has come, and acknowledges all.
fn consume(
    plan: &Plan<'_>,
    mut peer: AmqpPeer,
    share: &Share,
    phase: &Phase,
) -> Result<Drained, BenchError> {
    peer.consume(&share.queue, "drain", false)?;
    let mut link = peer.into_link(Handles::Read)?;
    let mut acks = Acks::new(AckChoice::Manual, Some(plan.prefetch));
    let mut sequence = Sequence::default();
    let (mut first, mut last) = (None, now());
    while sequence.last < share.messages {
        let before = sequence.last;
        let mut wrong = None;
        link.receive(|event| {
            if let Event::Delivered { handle, stamp } = event {
                acks.delivered(handle);
                wrong = wrong.or_else(|| sequence.next(stamp).err());
            }
        })?;
        if let Some(Misplaced { number, expected }) = wrong {
            return Err(BenchError::Books(format!(
                "queue `{}` delivered message {number} where {expected} had to come",
                share.queue
            )));
        }
        if sequence.last > before {
            last = now();
            first.get_or_insert(last);
            phase.done.fetch_add(sequence.last - before, Ordering::Relaxed);
        }
        if sequence.last == share.messages {
            acks.settle();
        }
        send(&link.stream, acks.out())?;
        acks.out().clear();
        phase.patience()?;
    }
    Ok(Drained { link, first, last })
}

/// The numbers of a queue's messages, which must come as they were published.
#[derive(Debug, Default)]
struct Sequence {
    last: u64,
}

/// A message that is not the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Misplaced {
    number: u64,
    expected: u64,
}

impl Sequence {
    fn next(&mut self, number: u64) -> Result<(), Misplaced> {
        let expected = self.last + 1;
        if number != expected {
            return Err(Misplaced { number, expected });
        }
        self.last = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_missing_doubled_or_early_is_named() {
        for (numbers, misplaced) in [
            (&[1, 2, 4][..], Misplaced { number: 4, expected: 3 }),
            (&[1, 2, 2], Misplaced { number: 2, expected: 3 }),
            (&[2], Misplaced { number: 2, expected: 1 }),
            (&[0], Misplaced { number: 0, expected: 1 }),
        ] {
            let mut sequence = Sequence::default();
            let found = numbers.iter().find_map(|number| sequence.next(*number).err());
            assert_eq!(found, Some(misplaced), "{numbers:?}");
        }
    }
}
