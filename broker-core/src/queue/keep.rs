//! What a queue tells the log: messages that enter, leave and come back, and how far they were handed out.

use super::{Queue, State};
use crate::consumer::{Outstanding, Place};
use crate::log::LogPosition;
use crate::log::records::Records;
use crate::message::Publication;
use crate::storage::{MessageRef, StorageError};

/// How far ahead of what was delivered the log's note of it runs, so that few notes are needed. After a crash at
/// most about so many messages are flagged as redelivered that were not.
const DELIVERED_STEP: u64 = 4096;

impl Queue {
    pub(super) fn log_enqueued(
        &self,
        publications: &[Publication<'_>],
        places: &[Place],
        now: u64,
    ) -> Result<LogPosition, StorageError> {
        if !places.iter().any(|place| place.logged) {
            return Ok(LogPosition::START);
        }
        let published_at = self.log.started_at_unix_ms().saturating_add(now);
        Records::with(|records| {
            for (index, (publication, place)) in publications.iter().zip(places).enumerate() {
                if place.logged {
                    let target = MessageRef { queue: self.id.0, seq: place.seq };
                    records.enqueue(index, publication, published_at, [target]);
                }
            }
            records.append(&*self.log, publications)
        })
    }

    /// Tells the log of messages that have left.
    pub(super) fn log_settled(&self, seqs: &mut dyn Iterator<Item = u64>) -> LogPosition {
        Records::with(|records| {
            records.settle(self.id, seqs);
            // One that cannot be noted down is delivered again after a restart, and never counts as kept.
            records.append(&*self.log, &[]).unwrap_or(LogPosition::NEVER)
        })
    }

    /// Tells the log of what has gathered in the scratch; gives where that will be durable.
    pub(super) fn flush_settled(&self, state: &mut State) -> LogPosition {
        if state.scratch.settled.is_empty() {
            return LogPosition::START;
        }
        let mut settled = std::mem::take(&mut state.scratch.settled);
        let position = self.log_settled(&mut settled.drain(..));
        state.scratch.settled = settled;
        position
    }

    pub(super) fn log_requeued(&self, entries: &[Outstanding]) {
        if !self.keeps || self.is_deleted() {
            return;
        }
        let mut logged =
            entries.iter().filter(|entry| entry.logged).map(|entry| entry.seq).peekable();
        if logged.peek().is_some() {
            Records::with(|records| {
                records.requeued(self.id, logged);
                // One that cannot be noted down counts one return less after a restart.
                records.append(&*self.log, &[]).ok();
            });
        }
    }

    /// Tells the log up to where messages may have been delivered, well before that is reached.
    pub(super) fn note_handed_out(&self, state: &mut State, seq: u64) {
        state.handed_out = state.handed_out.max(seq + 1);
        let near = seq + DELIVERED_STEP / 2;
        if state.delivered_noted.is_some_and(|noted| near <= noted) {
            return;
        }
        let last = seq + DELIVERED_STEP;
        state.delivered_noted = Some(last);
        Records::with(|records| {
            records.delivered(self.id, last);
            // What cannot be noted down is not flagged as redelivered after a crash.
            records.append(&*self.log, &[]).ok();
        });
    }

    /// Tells the log exactly up to where messages were delivered: to be called before a clean stop.
    pub(crate) fn note_stop(&self) {
        let state = self.state.lock();
        if self.keeps && !state.deleted && state.delivered_noted.is_some() {
            Records::with(|records| {
                records.delivered(self.id, state.handed_out.saturating_sub(1));
                records.append(&*self.log, &[]).ok();
            });
        }
    }
}
