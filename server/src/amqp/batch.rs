//! What a read has done, gathered so that it is counted once, and the buffers that a read borrows.

use std::sync::Arc;

use broker_core::consumer::Outstanding;
use broker_core::queue::Queue;
use proto_amqp::ChannelId;
use smallvec::SmallVec;

use super::deliveries::Resumable;
use super::unacked::Settled;

/// What a read has done, counted once at its end.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) received: u64,
    pub(super) routed: u64,
    /// Of those received, the ones to be confirmed.
    pub(super) received_confirm: u64,
    pub(super) backlogged: bool,
    pub(super) sizes: SizeRun,
    /// Channels that have something to confirm.
    pub(super) confirms: SmallVec<[u16; 4]>,
    /// A channel without confirms whose messages the log did not take, and why.
    pub(super) unkept: Option<(ChannelId, Arc<str>)>,
}

/// Messages of one size in a row.
#[derive(Debug, Default)]
pub(super) struct SizeRun {
    pub(super) size: u64,
    pub(super) count: u64,
    pub(super) earlier: Vec<(u64, u64)>,
}

impl SizeRun {
    #[inline]
    pub(super) fn add(&mut self, size: u64) {
        if size != self.size {
            if self.count > 0 {
                self.earlier.push((self.size, self.count));
            }
            self.size = size;
            self.count = 0;
        }
        self.count += 1;
    }

    pub(super) fn record(&mut self, sizes: &crate::counters::Sizes) {
        for (size, count) in self.earlier.drain(..) {
            sizes.record(size, count);
        }
        sizes.record(self.size, std::mem::take(&mut self.count));
    }
}

impl Batch {
    #[inline]
    pub(super) fn confirm(&mut self, channel: u16) {
        if !self.confirms.contains(&channel) {
            self.confirms.push(channel);
        }
    }
}

/// Buffers that settling borrows, so that the steady state allocates nothing.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) settled: Vec<Settled>,
    pub(super) queues: Vec<(u32, Arc<Queue>)>,
    pub(super) resumable: Vec<Resumable>,
    pub(super) entries: Vec<Outstanding>,
}
