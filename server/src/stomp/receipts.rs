//! Receipts that wait for the log.
//!
//! A RECEIPT says that its frame and all frames before it are done: messages are durable, acknowledgements too (STOMP
//! 1.2, RECEIPT). It waits until the log's mark has passed them; one line serves for all, in the order of the frames.
//!
//! Where the mark has to come may not be known yet: what was rejected may have to be read, or to wait for a full disk,
//! before it is dead-lettered. Whoever is first in the line and speaks of such a burial waits until it is over, at most
//! [`KEPT_WITHIN`], not counting the time in which the disk is full: what is sent waits for that too.

use std::collections::VecDeque;

use broker_core::log::{Log, LogPosition};
use broker_core::queue::Burial;
use broker_core::storage::Health;
use tokio::time::Instant;

use crate::node::KEPT_WITHIN;

/// Receipts that may wait before nothing more is read: what they cost is bounded then.
const WAITING_MAX: usize = 65_536;

/// Which frame asked for a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Send,
    /// Every other.
    Other,
}

#[derive(Debug, Default)]
pub(super) struct Receipts {
    waiting: VecDeque<Waiting>,
    /// How long the first may wait for a burial, if it does.
    until: Option<Instant>,
    /// It has waited for longer.
    is_late: bool,
}

#[derive(Debug)]
struct Waiting {
    position: LogPosition,
    /// Rejected messages of which the receipt speaks.
    burial: Option<Burial>,
    of: Of,
    /// `None` where nobody has asked for one, and those behind wait all the same.
    receipt: Option<Box<[u8]>>,
}

impl Receipts {
    /// One more waits until the log has come to `position`, and `burial` is over and durable.
    pub(super) fn wait(
        &mut self,
        position: LogPosition,
        burial: Option<Burial>,
        receipt: Option<&[u8]>,
        of: Of,
    ) {
        self.waiting.push_back(Waiting { position, burial, of, receipt: receipt.map(Into::into) });
    }

    /// Until when the first waits for rejected messages, if it does.
    pub(super) const fn waits_until(&self) -> Option<Instant> {
        self.until
    }

    /// Time has come to `now`. A disk that is full is waited for.
    pub(super) fn on_deadline(&mut self, now: Instant, health: Health) {
        let Some(until) = self.until.as_mut().filter(|until| **until <= now) else { return };
        match health {
            Health::DiskFull => *until = now + KEPT_WITHIN,
            _ => self.is_late = true,
        }
    }

    pub(super) const fn is_late(&self) -> bool {
        self.is_late
    }

    /// Gives the receipts of which all is durable to `write`; gives the number of messages that are confirmed so.
    /// `log` has come to `durable`.
    pub(super) fn release(
        &mut self,
        log: &dyn Log,
        durable: LogPosition,
        mut write: impl FnMut(&[u8]),
    ) -> u64 {
        let mut count = 0;
        while let Some(first) = self.take_due(log, durable) {
            first.receipt.as_deref().map(&mut write);
            count += u64::from(first.of == Of::Send);
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
        count
    }

    fn take_due(&mut self, log: &dyn Log, durable: LogPosition) -> Option<Waiting> {
        let first = self.waiting.front_mut()?;
        if let Some(burial) = &first.burial {
            let Some(buried_at) = burial.position(log) else {
                self.until.get_or_insert_with(|| Instant::now() + KEPT_WITHIN);
                return None;
            };
            first.position = first.position.max(buried_at);
            first.burial = None;
            self.until = None;
        }
        if first.position > durable {
            return None;
        }
        self.waiting.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::slow_log::SlowLog;

    #[test]
    fn receipts_are_given_in_order_and_not_before_the_mark_has_passed() {
        let mut receipts = Receipts::default();
        receipts.wait(LogPosition(5), None, Some(b"a"), Of::Send);
        receipts.wait(LogPosition(9), None, Some(b"b"), Of::Other);
        receipts.wait(LogPosition(0), None, Some(b"c"), Of::Send);
        let given = |receipts: &mut Receipts, mark| {
            let mut given = Vec::new();
            receipts.release(&SlowLog::default(), LogPosition(mark), |receipt| {
                given.extend_from_slice(receipt);
            });
            String::from_utf8(given).unwrap()
        };
        assert_eq!(given(&mut receipts, 4), "");
        assert_eq!(given(&mut receipts, 5), "a");
        // A transient message behind a persistent one waits with it.
        assert_eq!(given(&mut receipts, 8), "");
        assert_eq!(given(&mut receipts, 9), "bc");
        assert!(receipts.is_empty());
    }
}
