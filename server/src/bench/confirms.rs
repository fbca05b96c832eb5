//! Which publishes are still waiting for their confirm.
//!
//! Brokers confirm cumulatively, singly, or both mixed and out of order, so a plain difference of counters
//! would be wrong: a single ack of 7 says nothing of 1 to 6, and a later cumulative ack of 9 must not count
//! 7 again. The window keeps everything up to a low mark and one flag for each number above it.

use std::collections::VecDeque;
use std::time::Instant;

/// The publishes of one connection that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct ConfirmWindow {
    /// All numbers up to here are confirmed.
    low: u64,
    /// The last number published.
    published: u64,
    /// Whether `low + 1 + index` is confirmed; shorter than the window when its end is untouched.
    above: VecDeque<bool>,
    /// How many flags in `above` are set.
    above_confirmed: u64,
    /// When each write ended, with the last number in it: enough for the age of a confirm, and one entry a
    /// write instead of one a message.
    writes: VecDeque<(u64, Instant)>,
}

impl ConfirmWindow {
    /// Publishes waiting for a confirm.
    pub(super) const fn outstanding(&self) -> u64 {
        self.published - self.low - self.above_confirmed
    }

    /// The number of the last publish; the first is 1.
    pub(super) const fn published(&self) -> u64 {
        self.published
    }

    /// Notes that `count` more messages were written at `at`.
    pub(super) fn publish(&mut self, count: u64, at: Instant) {
        self.published += count;
        self.writes.push_back((self.published, at));
    }

    /// Notes a confirm or a refusal and returns how many publishes it settled (0 for a repeated one).
    ///
    /// # Errors
    /// The number itself if it was never published.
    pub(super) fn settle(&mut self, number: u64, multiple: bool) -> Result<u64, u64> {
        // spec: amqp basic.ack: zero with `multiple` means all outstanding messages.
        let number = if multiple && number == 0 { self.published } else { number };
        if number == 0 || number > self.published {
            return Err(number);
        }
        let before = self.outstanding();
        if number > self.low {
            let index = usize::try_from(number - self.low - 1).map_err(|_| number)?;
            if multiple {
                for confirmed in self.above.drain(..(index + 1).min(self.above.len())) {
                    self.above_confirmed -= u64::from(confirmed);
                }
                self.low = number;
            } else {
                if self.above.len() <= index {
                    self.above.resize(index + 1, false);
                }
                if let Some(flag) = self.above.get_mut(index)
                    && !*flag
                {
                    *flag = true;
                    self.above_confirmed += 1;
                }
            }
            while self.above.front() == Some(&true) {
                self.above.pop_front();
                self.above_confirmed -= 1;
                self.low += 1;
            }
        }
        Ok(before - self.outstanding())
    }

    /// The times at which the writes were made that are confirmed whole by now, each given once.
    pub(super) fn settled_writes(&mut self) -> impl Iterator<Item = Instant> {
        let low = self.low;
        std::iter::from_fn(move || {
            let (last, at) = *self.writes.front()?;
            (last <= low).then(|| self.writes.pop_front())?;
            Some(at)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::clock::now;

    fn window(published: u64) -> ConfirmWindow {
        let mut window = ConfirmWindow::default();
        window.publish(published, now());
        window
    }

    #[test]
    fn a_cumulative_confirm_settles_all_up_to_it() {
        let mut window = window(10);
        assert_eq!(window.settle(4, true), Ok(4));
        assert_eq!(window.outstanding(), 6);
        assert_eq!(window.settle(0, true), Ok(6));
        assert_eq!(window.outstanding(), 0);
    }

    #[test]
    fn single_confirms_out_of_order_are_counted_once() {
        let mut window = window(10);
        assert_eq!(window.settle(7, false), Ok(1));
        assert_eq!(window.settle(7, false), Ok(0));
        assert_eq!(window.settle(1, false), Ok(1));
        assert_eq!(window.settle(9, true), Ok(7));
        assert_eq!(window.outstanding(), 1);
        assert_eq!(window.settle(3, true), Ok(0));
        assert_eq!(window.settle(10, false), Ok(1));
        assert_eq!(window.outstanding(), 0);
    }

    #[test]
    fn a_confirm_of_what_was_never_published_is_an_error() {
        let mut window = window(3);
        assert_eq!(window.settle(4, false), Err(4));
        assert_eq!(window.settle(0, false), Err(0));
    }

    #[test]
    fn a_write_is_settled_when_its_last_message_is() {
        let mut window = window(5);
        window.publish(5, now());
        assert_eq!(window.settle(5, false), Ok(1));
        assert_eq!(window.settled_writes().count(), 0);
        assert_eq!(window.settle(6, true), Ok(5));
        assert_eq!(window.settled_writes().count(), 1);
        assert_eq!(window.settle(10, true), Ok(4));
        assert_eq!(window.settled_writes().count(), 1);
        assert_eq!(window.settled_writes().count(), 0);
    }

    #[test]
    fn any_order_of_confirms_settles_each_publish_once() {
        // A small deterministic generator: the same 2,000 steps on every run.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut window = ConfirmWindow::default();
        let mut waiting = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            if next(3) == 0 {
                let first = window.published() + 1;
                window.publish(5, now());
                waiting.extend(first..first + 5);
            } else if window.published() > 0 {
                let number = 1 + next(window.published());
                let multiple = next(4) == 0;
                let settled = if multiple {
                    let rest = waiting.split_off(&(number + 1));
                    std::mem::replace(&mut waiting, rest).len()
                } else {
                    usize::from(waiting.remove(&number))
                };
                assert_eq!(window.settle(number, multiple), Ok(settled as u64));
            }
            assert_eq!(window.outstanding(), waiting.len() as u64);
        }
    }
}
