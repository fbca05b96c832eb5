//! Receipts that wait for the log.
//!
//! A RECEIPT says that its frame and all frames before it are done: messages are durable, acknowledgements too (STOMP
//! 1.2, RECEIPT). It waits until the log's mark has passed them; one line serves for all, in the order of the frames.

use std::collections::VecDeque;

use broker_core::log::LogPosition;

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
}

#[derive(Debug)]
struct Waiting {
    position: LogPosition,
    of: Of,
    receipt: Box<[u8]>,
}

impl Receipts {
    pub(super) fn wait(&mut self, position: LogPosition, receipt: &[u8], of: Of) {
        self.waiting.push_back(Waiting { position, of, receipt: receipt.into() });
    }

    /// Gives the receipts whose messages are durable to `write`; gives the number of messages that are
    /// confirmed so.
    pub(super) fn release(&mut self, durable: LogPosition, mut write: impl FnMut(&[u8])) -> u64 {
        let mut count = 0;
        while let Some(first) = self.waiting.front()
            && first.position <= durable
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
        receipts.wait(LogPosition(5), b"a", Of::Send);
        receipts.wait(LogPosition(9), b"b", Of::Other);
        receipts.wait(LogPosition(0), b"c", Of::Send);
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
