//! The committer: writes one frame, flushes, moves the durable mark.
//!
//! The one idea: while one frame is on its way to the disk the next one fills, so batches form by
//! themselves and nobody waits on purpose. Only one frame is ever on its way, so a frame behind
//! another proves that the first was flushed. A failed write or flush is never tried again on that
//! file: the frame goes to a fresh file once, and if that fails too the store is poisoned.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::engine::{Engine, Frame, State};
use super::error::{IoContext, StorageError};
use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN, FrameHeader, footprint};
use super::fs::{File, write_full};
use super::index::Effect;
use super::log::{FramePlace, LogFile, READY_FILES};
use super::octets::{crc, len_u32, to_usize};
use super::options::Durability;

/// What a call of [`Engine::commit_step`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStep {
    /// There was nothing to write.
    Idle,
    /// One frame is written, and durable.
    Written,
    /// There is no room, or no file can be opened; the frame waits for the next call.
    Blocked,
}

/// Where a frame shall go.
struct Target {
    file: Arc<dyn File>,
    path: PathBuf,
    id: u64,
    incarnation: u64,
    offset: u64,
}

static PADDING: [u8; 4096] = [0; 4096];

impl Engine {
    /// Writes the oldest pending frame and makes it durable.
    ///
    /// # Errors
    /// When the log cannot be written. The store is poisoned then, and so is every later call.
    pub fn commit_step(&self) -> Result<CommitStep, StorageError> {
        let _only = self.committing.lock();
        let Some((frame, durable)) = self.take_frame()? else {
            return Ok(CommitStep::Idle);
        };
        match self.store_frame(&frame, durable) {
            Ok(()) => {
                self.complete(frame);
                Ok(CommitStep::Written)
            }
            Err(error) if error.is_shortage() => {
                let newly = !std::mem::replace(&mut self.state.lock().full.log, true);
                if newly {
                    self.wake();
                }
                Ok(CommitStep::Blocked)
            }
            Err(error) => {
                self.state.lock().poisoned = Some(error.to_string().into());
                self.wake();
                Err(error)
            }
        }
    }

    /// The frame that had no room before, or else the oldest pending one.
    fn take_frame(&self) -> Result<Option<(Arc<Frame>, u64)>, StorageError> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.poisoned {
            return Err(StorageError::Poisoned { reason: Arc::clone(reason) });
        }
        if state.in_flight.is_none() {
            state.in_flight = state.pending.pop_front().map(Arc::new);
            if state.pending.is_empty() {
                state.is_urgent = false;
            }
        }
        let durable = state.durable;
        Ok(state.in_flight.clone().map(|frame| (frame, durable)))
    }

    /// Writes the frame, in a second file when the first one fails.
    fn store_frame(&self, frame: &Frame, durable: u64) -> Result<(), StorageError> {
        let target = self.target(frame)?;
        let Err(first) = self.write_frame(&target, frame, durable) else {
            return Ok(());
        };
        self.fail_active();
        if first.is_disk_full() {
            return Err(first);
        }
        let target = self.target(frame)?;
        let second = self.write_frame(&target, frame, durable);
        if second.is_err() {
            self.fail_active();
        }
        second
    }

    /// Nothing is known about the active file any more, but for what was flushed before.
    fn fail_active(&self) {
        let mut state = self.state.lock();
        if let Some(active) = &mut state.log.active {
            active.failed = true;
        }
        state.log.close_active();
        drop(state);
        self.counters.lock().write_failures += 1;
    }

    /// The active file, or the next one when the frame does not fit.
    fn target(&self, frame: &Frame) -> Result<Target, StorageError> {
        let needed = footprint(frame.payload.len() as u64);
        let mut has_tried = false;
        loop {
            let mut state = self.state.lock();
            if let Some(active) = &state.log.active
                && active.offset + needed <= self.options.wal_file_len
                && active.records < self.options.file_records_max
            {
                return Ok(Target {
                    file: Arc::clone(&active.file),
                    path: active.path.clone(),
                    id: active.id,
                    incarnation: active.incarnation,
                    offset: active.offset,
                });
            }
            state.log.close_active();
            let ready = state.log.ready.len();
            // One becomes active, one takes what waits by now should the disk be full, one is left for acks.
            let wanted = READY_FILES + usize::from(state.log.spares.is_empty());
            if ready < wanted && !has_tried {
                has_tried = true;
                drop(state);
                match self.prepare_next(wanted) {
                    // One file is enough to go on with; maintenance tries again, and says why.
                    Err(_) if ready > 0 => {
                        self.no_more_files();
                    }
                    prepared => prepared?,
                }
                continue;
            }
            let Some(mut next) = state.log.ready.pop_front() else {
                return Err(StorageError::DiskFull);
            };
            next.end = frame.lsn;
            state.log.active = Some(next);
            drop(state);
            self.maintenance_wanted.notify_one();
        }
    }

    fn write_frame(
        &self,
        target: &Target,
        frame: &Frame,
        durable: u64,
    ) -> Result<(), StorageError> {
        let pieces: Vec<&[u8]> = frame.payload.pieces().collect();
        let header = FrameHeader {
            file_id: target.id,
            incarnation: target.incarnation,
            lsn: frame.lsn,
            durable_lsn: durable,
            payload_len: len_u32(frame.payload.len()),
            payload_crc: crc(&pieces),
            records: frame.records,
            continues: frame.continues,
        };
        let padding = header.footprint() - (FRAME_HEADER_LEN + frame.payload.len()) as u64;
        let padding = PADDING.get(..to_usize(padding)).unwrap_or_default();
        debug_assert!(target.offset.is_multiple_of(BLOCK_LEN), "frames begin at blocks");
        let header = header.encode();
        let parts = [&[header.as_slice()], pieces.as_slice(), &[padding]].concat();
        write_full(&*target.file, target.offset, &parts).during("write", &target.path)?;
        match self.options.durability {
            Durability::Fsync => target.file.sync_data().during("fdatasync", &target.path),
            Durability::Os => Ok(()),
        }
    }

    /// Moves the mark and lets everything below it take effect.
    fn complete(&self, frame: Arc<Frame>) {
        let mut state = self.state.lock();
        let end = frame.end();
        let footprint = footprint(frame.payload.len() as u64);
        if let Some(active) = &mut state.log.active {
            active.frames.push(FramePlace {
                lsn: frame.lsn,
                payload_len: len_u32(frame.payload.len()),
                offset: active.offset,
            });
            active.offset += footprint;
            active.end = end;
            active.records += u64::from(frame.records);
        }
        state.in_flight = None;
        state.needs_seal = true;
        if !frame.continues {
            state.durable = end;
            if apply_effects(&mut state) {
                self.maintenance_wanted.notify_one();
            }
            // Release: the state that belongs to the mark is written.
            self.durable.store(end, Ordering::Release);
        }
        let len = frame.payload.len() as u64;
        let mut written = Arc::into_inner(frame);
        let bodies = written.as_mut().map(|frame| frame.payload.recycle());
        let kept_len_max = self.options.frame_len_max * 2;
        if let Some(frame) =
            written.take_if(|frame| frame.payload.capacity() as u64 <= kept_len_max)
        {
            state.spare_payload = Some(frame.payload);
        }
        drop(state);
        // Not under the lock: giving large allocations back takes a while.
        drop((written, bodies));
        {
            let mut counters = self.counters.lock();
            counters.frames += 1;
            counters.appended_octets += len;
            counters.log_octets += footprint;
        }
        self.wake();
    }

    /// Writes an empty frame that proves the last one durable, once the log is quiet. Not flushed:
    /// when it is lost, nothing is.
    ///
    /// # Errors
    /// When the write fails; the file is given up, the store goes on.
    pub fn seal_step(&self) -> Result<(), StorageError> {
        let _only = self.committing.lock();
        let mut state = self.state.lock();
        let is_quiet = state.pending.is_empty() && state.in_flight.is_none();
        if !state.needs_seal || !is_quiet || state.poisoned.is_some() {
            return Ok(());
        }
        state.needs_seal = false;
        let durable = state.durable;
        let Some(active) = &mut state.log.active else {
            return Ok(());
        };
        if active.offset + BLOCK_LEN > self.options.wal_file_len {
            return Ok(());
        }
        let target = Target {
            file: Arc::clone(&active.file),
            path: active.path.clone(),
            id: active.id,
            incarnation: active.incarnation,
            offset: active.offset,
        };
        active.offset += BLOCK_LEN;
        let lsn = active.end;
        drop(state);
        let written = write_seal(&target, lsn, durable);
        if written.is_err() {
            self.fail_active();
        }
        written
    }
}

impl Engine {
    /// Writes a seal, into a fresh file when none was begun since the start: the log ends there
    /// then, and not in one whose end cannot be read. Without a file that is ready nothing happens.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn seal_in_new_file(&self) -> Result<(), StorageError> {
        let mut state = self.state.lock();
        if state.log.active.is_none() {
            let end = state.position;
            state.log.active = state.log.ready.pop_front().map(|file| LogFile { end, ..file });
        }
        state.needs_seal = true;
        drop(state);
        self.seal_step()
    }
}

fn write_seal(target: &Target, lsn: u64, durable: u64) -> Result<(), StorageError> {
    let header = FrameHeader {
        file_id: target.id,
        incarnation: target.incarnation,
        lsn,
        durable_lsn: durable,
        payload_len: 0,
        payload_crc: crc(&[]),
        records: 0,
        continues: false,
    };
    let padding = PADDING.get(FRAME_HEADER_LEN..).unwrap_or_default();
    write_full(&*target.file, target.offset, &[&header.encode(), padding])
        .during("write", &target.path)
}

/// Applies what has become durable; answers whether segments have changed.
fn apply_effects(state: &mut State) -> bool {
    let mut have_segments_changed = false;
    while let Some((position, _)) = state.effects.front()
        && *position <= state.durable
        && let Some((position, effect)) = state.effects.pop_front()
    {
        if matches!(effect, Effect::Segments { .. }) {
            state.segment_change_pending = false;
            have_segments_changed = true;
            // A checkpoint must know the new segments before the files they came from may go.
            for file in &mut state.log.full {
                file.needed_below = file.needed_below.max(position);
            }
        }
        state.index.apply(effect);
    }
    have_segments_changed
}
