//! Receipts that wait for the log.
//!
//! A RECEIPT says that its frame and all frames before it are done: messages are durable, acknowledgements too (STOMP
//! 1.2, RECEIPT). It waits until the log's mark has passed them; one line serves for all, in the order of the frames.
//!
//! Where the mark has to come may not be known yet: what was rejected may have to be read before it is dead-lettered. A
//! receipt that speaks of such a burial waits until it is over; not for ever, but for as long as the disk is full, as the
//! receipt of a message does.

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
    /// How many of them speak of a burial that is not known to be over.
    buried: usize,
    /// The first has waited for too long.
    is_late: bool,
}

#[derive(Debug)]
struct Waiting {
    position: LogPosition,
    burial: Option<Buried>,
    of: Of,
    receipt: Box<[u8]>,
}

/// Rejected messages of which a receipt speaks.
#[derive(Debug)]
struct Buried {
    burial: Burial,
    /// When the wait is over, whatever the disk does.
    until: Instant,
}

impl Waiting {
    /// Whether all of which it speaks is durable when the mark is at `durable`.
    fn is_due(&self, durable: LogPosition) -> bool {
        self.burial.is_none() && self.position <= durable
    }
}

impl Receipts {
    /// One more waits until the log has come to `position`, and `burial` is over and durable.
    pub(super) fn wait(
        &mut self,
        position: LogPosition,
        burial: Option<Burial>,
        receipt: &[u8],
        of: Of,
    ) {
        let until = |burial| Buried { burial, until: Instant::now() + KEPT_WITHIN };
        let burial = burial.map(until);
        self.buried += usize::from(burial.is_some());
        self.waiting.push_back(Waiting { position, burial, of, receipt: receipt.into() });
    }

    /// Until when the first waits for rejected messages, if it does.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.waiting.front()?.burial.as_ref().map(|buried| buried.until)
    }

    /// Time has come to `now`. A disk that is full is waited for.
    pub(super) fn on_deadline(&mut self, now: Instant, health: Health) {
        let first = self.waiting.front_mut().and_then(|first| first.burial.as_mut());
        match first.filter(|buried| buried.until <= now) {
            Some(buried) if health == Health::DiskFull => buried.until = now + KEPT_WITHIN,
            late => self.is_late |= late.is_some(),
        }
    }

    pub(super) const fn is_late(&self) -> bool {
        self.is_late
    }

    /// Receipts whose burials are over wait for the present end of `log` from now on. To be called with no lock held.
    pub(super) fn look_at_burials(&mut self, log: &dyn Log) {
        if self.buried == 0 {
            return;
        }
        for waiting in &mut self.waiting {
            if waiting.burial.take_if(|buried| buried.burial.is_over()).is_some() {
                waiting.position = waiting.position.max(log.appended_up_to());
                self.buried -= 1;
            }
        }
    }

    /// Gives the receipts whose messages are durable to `write`; gives the number of messages that are
    /// confirmed so.
    pub(super) fn release(&mut self, durable: LogPosition, mut write: impl FnMut(&[u8])) -> u64 {
        let mut count = 0;
        while let Some(first) = self.waiting.front()
            && first.is_due(durable)
        {
            if let Some(first) = self.waiting.pop_front() {
                write(&first.receipt);
                count += u64::from(first.of == Of::Send);
            }
        }
        if self.waiting.is_empty() && self.waiting.capacity() > 1024 {
            self.waiting = VecDeque::new();
        }
        count
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

    #[test]
    fn receipts_are_given_in_order_and_not_before_the_mark_has_passed() {
        let mut receipts = Receipts::default();
        receipts.wait(LogPosition(5), None, b"a", Of::Send);
        receipts.wait(LogPosition(9), None, b"b", Of::Other);
        receipts.wait(LogPosition(0), None, b"c", Of::Send);
        let given = |receipts: &mut Receipts, mark| {
            let mut given = Vec::new();
            receipts.release(LogPosition(mark), |receipt| given.extend_from_slice(receipt));
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
