//! Who gets what of messages that are published in one step.

use std::sync::Arc;

use broker_core::Publication;
use broker_core::queue::{Queue, Share};

/// The queues of several messages, each queue once.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    pub(crate) list: Vec<Share>,
}

impl Shares {
    /// The message with this index goes to `queues`.
    pub(crate) fn add(&mut self, queues: &[Arc<Queue>], index: usize) {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        for queue in queues {
            // From the end: messages of a transaction mostly go where the one before went.
            let known = self.list.iter_mut().rev().find(|share| Arc::ptr_eq(&share.queue, queue));
            match known {
                Some(share) => share.indices.push(index),
                None => self.list.push(Share { queue: Arc::clone(queue), indices: vec![index] }),
            }
        }
    }

    /// All messages go to all queues.
    pub(crate) fn of_all(queues: &[Arc<Queue>], messages: usize) -> Self {
        let all = || (0..u32::try_from(messages).unwrap_or(u32::MAX)).collect();
        let share = |queue: &Arc<Queue>| Share { queue: Arc::clone(queue), indices: all() };
        Self { list: queues.iter().map(share).collect() }
    }
}

/// Whether several queues have to take these messages in one step, so that the log has all of it or nothing.
pub(crate) fn needs_one_step(queues: &[Arc<Queue>], publications: &[Publication<'_>]) -> bool {
    queues.len() > 1
        && publications.iter().any(|publication| publication.attributes().persistent)
        && queues.iter().any(|queue| queue.spec.durable)
}
