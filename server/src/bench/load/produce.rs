//! A producer under load, in one of three ways: without bound, with a window of confirms, or at a rate.
//!
//! Writes are large slices of the ring. A write that blocks is cut short after a while and gone on with, so
//! that the end of the run is noticed even when the broker has stopped reading, and so that confirms are read
//! even when it waits for that.

use std::io::{IoSlice, Write as _};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::clock::{now, nth_at, pause, sharpen_timer};
use super::super::confirms::ConfirmWindow;
use super::super::error::BenchError;
use super::super::link::{Link, PATIENCE, is_timeout};
use super::super::ring::Ring;
use super::super::stats::Times;
use super::super::walk::Event;
use super::{Pace, Run};

/// Octets written at once. Fits a loopback socket's buffer, so that a woken broker finds much to read; larger
/// writes moved no more through the null broker.
const WRITE_LEN: usize = 64 * 1024;

/// What producers time.
#[derive(Debug)]
pub(super) struct ProducerTimes {
    /// From the start of a write to the confirm of all in it.
    pub(super) confirm: Times,
    /// From a message's intended sending to its real one.
    pub(super) lateness: Times,
}

impl ProducerTimes {
    pub(super) fn new() -> Self {
        Self { confirm: Times::new(), lateness: Times::new() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.confirm.add(&other.confirm);
        self.lateness.add(&other.lateness);
    }
}

/// A publishing connection and its publishes.
#[derive(Debug)]
pub(super) struct Producer {
    index: u32,
    link: Link,
    ring: Ring,
    times: ProducerTimes,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    All,
    /// The run was abandoned in its middle.
    Part,
}

impl Producer {
    /// The producer with this index, from 0.
    pub(super) fn new(index: u32, link: Link, ring: Ring) -> Self {
        Self { index, link, ring, times: ProducerTimes::new() }
    }

    /// Publishes until the run is over, as one of `producers`.
    pub(super) fn produce(mut self, run: &Run, pace: Pace, producers: u32) -> ProducerTimes {
        let outcome = match pace {
            Pace::Flood { messages, confirm_window } => {
                let share = messages.map(|messages| share(messages, self.index, producers));
                match confirm_window {
                    None => self.flood(run, share),
                    Some(window) => self.flood_confirmed(run, share, window),
                }
            }
            Pace::Rate(rate) => self.at_rate(run, rate, producers),
        };
        let Self { link, times, .. } = self;
        let outcome = match outcome {
            // The goodbye comes when the broker has read all that was written.
            Ok(()) => link.close(|| run.abandoned(), |_| ()),
            Err(error) => Err(error),
        };
        run.producer_left();
        run.finished(outcome);
        times
    }

    /// Writes the ring round and round.
    fn flood(&mut self, run: &Run, share: Option<u64>) -> Result<(), BenchError> {
        let Self { link, ring, .. } = self;
        let stride = ring.stride();
        let (mut at, mut begun) = (0, 0);
        let mut left = share;
        // `at` is where the next octet stands in the ring, `begun` how many of the message at hand are written.
        while left != Some(0) && !(run.stopped() && begun == 0) && !run.abandoned() {
            let len = match (run.stopped(), left) {
                (true, _) => stride - begun,
                (false, Some(left)) => WRITE_LEN.min(octets_of(left, stride) - begun),
                (false, None) => WRITE_LEN,
            };
            // The ring's end and its start in one write: a short one in between would wake the broker for little.
            let (start, end) = ring.octets().split_at(at);
            let end = end.get(..len).unwrap_or(end);
            let start = start.get(..len - end.len()).unwrap_or(start);
            match (&link.stream).write_vectored(&[IoSlice::new(end), IoSlice::new(start)]) {
                Ok(len) => {
                    at = (at + len) % ring.octets().len();
                    let published = ((begun + len) / stride) as u64;
                    begun = (begun + len) % stride;
                    left = left.map(|left| left - published);
                    run.published.fetch_add(published, Ordering::Relaxed);
                    run.progressed();
                }
                Err(error) if is_timeout(&error) => {}
                Err(source) => return Err(link.why(source)),
            }
        }
        Ok(())
    }

    /// Keeps at most `window` publishes unconfirmed.
    fn flood_confirmed(
        &mut self,
        run: &Run,
        share: Option<u64>,
        window: NonZeroU32,
    ) -> Result<(), BenchError> {
        let window = u64::from(window.get());
        let mut confirms = ConfirmWindow::default();
        let mut left = share.unwrap_or(u64::MAX);
        while left > 0 && !run.stopped() {
            let space = window - confirms.outstanding();
            // Not every freed place at once: writes of one message each would measure system calls.
            if space >= window.div_ceil(4) || space >= left {
                let count = usize::try_from(space.min(left)).unwrap_or(usize::MAX);
                let index = self.ring.index_of(confirms.published());
                self.ring.number(index, count, confirms.published() + 1);
                let (sent, written) = self.write(run, index, count, Some(&mut confirms))?;
                left -= sent;
                if written == Written::Part {
                    return Ok(());
                }
            } else {
                read_confirms(&mut self.link, run, &mut confirms, &mut self.times.confirm)?;
            }
        }
        while confirms.outstanding() > 0 && !run.abandoned() {
            read_confirms(&mut self.link, run, &mut confirms, &mut self.times.confirm)?;
        }
        Ok(())
    }

    /// Writes the publishes that are due, each with the time at which it was. Ends with the window, not when
    /// the run stops: what was due in the window is sent and timed, however late.
    fn at_rate(&mut self, run: &Run, rate: NonZeroU64, producers: u32) -> Result<(), BenchError> {
        sharpen_timer()?;
        let mine = u64::from(self.index);
        let due_at = |turn: u64| nth_at(rate, turn * u64::from(producers) + mine);
        let mut turn = 0;
        loop {
            let clock = run.epoch.nanos();
            let due = due_at(turn);
            if due >= run.sample_until || run.abandoned() {
                return Ok(());
            }
            if let Some(wait) = due.checked_sub(clock)
                && wait > 0
            {
                // Capped, so that a failed run is noticed at low rates.
                pause(Duration::from_nanos(wait).min(PATIENCE));
                continue;
            }
            let index = self.ring.index_of(turn);
            let mut count = 0;
            while index + count < self.ring.count() {
                let due = due_at(turn + count as u64);
                if due > clock {
                    break;
                }
                self.ring.stamp(index + count, due);
                if run.samples(due) {
                    self.times.lateness.record(clock - due);
                }
                count += 1;
            }
            if let (_, Written::Part) = self.write(run, index, count, None)? {
                return Ok(());
            }
            turn += count as u64;
        }
    }

    /// Writes the publishes at `index`, up to `count` of them; fewer at the ring's end. Returns how many.
    fn write(
        &mut self,
        run: &Run,
        index: usize,
        count: usize,
        mut confirms: Option<&mut ConfirmWindow>,
    ) -> Result<(u64, Written), BenchError> {
        let Self { link, ring, times, .. } = self;
        let mut rest = ring.slice(index, count);
        let sent = (rest.len() / ring.stride()) as u64;
        if let Some(confirms) = confirms.as_deref_mut() {
            // Before the write: confirms may come in its middle.
            confirms.publish(sent, now());
        }
        while !rest.is_empty() {
            let piece = rest.get(..WRITE_LEN).unwrap_or(rest);
            match (&link.stream).write(piece) {
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if is_timeout(&error) => {
                    if run.abandoned() {
                        return Ok((sent, Written::Part));
                    }
                    if let Some(confirms) = confirms.as_deref_mut() {
                        read_confirms(link, run, confirms, &mut times.confirm)?;
                    }
                }
                Err(source) => return Err(link.why(source)),
            }
        }
        run.published.fetch_add(sent, Ordering::Relaxed);
        run.progressed();
        Ok((sent, Written::All))
    }
}

/// Reads once and settles what the broker confirms or refuses.
fn read_confirms(
    link: &mut Link,
    run: &Run,
    confirms: &mut ConfirmWindow,
    times: &mut Times,
) -> Result<(), BenchError> {
    let (mut confirmed, mut refused) = (0, 0);
    let mut unknown = None;
    link.receive(|event| {
        if let Event::Settled { number, multiple, refused: is_refusal } = event {
            match confirms.settle(number, multiple) {
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
    let clock = run.epoch.nanos();
    for written_at in confirms.settled_writes() {
        let written_at = run.epoch.nanos_at(written_at);
        if run.samples(written_at) {
            times.record(clock - written_at);
        }
    }
    run.confirmed.fetch_add(confirmed, Ordering::Relaxed);
    run.refused.fetch_add(refused, Ordering::Relaxed);
    run.progressed();
    Ok(())
}

/// The messages of producer `index` out of `messages`: all shares differ by one at most.
fn share(messages: NonZeroU64, index: u32, producers: u32) -> u64 {
    let producers = u64::from(producers);
    messages.get() / producers + u64::from(u64::from(index) < messages.get() % producers)
}

/// Octets of `count` messages, as far as one write goes.
fn octets_of(count: u64, stride: usize) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        let messages = NonZeroU64::new(11).unwrap();
        let shares: Vec<u64> = (0..4).map(|index| share(messages, index, 4)).collect();
        assert_eq!(shares, [3, 3, 3, 2]);
    }
}
