//! Moving messages out of the log, and out of half-dead or damaged segments.
//!
//! The one idea: both are the same act. What still lives is copied, sorted by queue and number,
//! into new segments; one batch in the log says so; when that batch is durable the index points to
//! the copies. Until then nothing has changed, so a crash in between leaves a file that nobody
//! knows and the next start removes.

use std::collections::BTreeMap;

use super::batch::{Batch, SeqRange};
use super::damage::LostMessages;
use super::engine::Engine;
use super::error::StorageError;
use super::index::{Effect, Extent, LogEntry, NewSegment};
use super::maintenance::Maintenance;
use super::read::plan_runs;
use super::record::{Record, RecordKind};
use super::segment::{SegmentWriter, StoredMessage};

/// More small segments than this are merged.
const SMALL_SEGMENTS_MAX: usize = 8;
/// More octets than header and trailer of a segment, which rewriting cannot save. An extent's
/// entry in the footer is smaller than the extent, so it never makes a live segment half dead.
const FIXED_LEN: u64 = 512;

/// What a compaction is to do.
struct Compaction {
    /// The segments to be replaced.
    victims: Vec<u64>,
    /// Their extents, by queue, in order.
    work: BTreeMap<u64, Vec<VictimExtent>>,
}

struct VictimExtent {
    extent: Extent,
    /// The extent before it in the queue stays where it is.
    previous_stays: bool,
}

impl Engine {
    /// Copies what lives in the oldest full log file into segments, when more files are full than
    /// shall be kept. Answers whether there was anything to copy.
    ///
    /// # Errors
    /// When reading or writing fails; nothing has changed then.
    pub fn spill_step(&self) -> Result<bool, StorageError> {
        let mut maintenance = self.maintaining.lock();
        let Some(work) = self.spill_work() else {
            return Ok(false);
        };
        let mut mixed = None;
        let mut done = Vec::new();
        let spilled = self.spill_queues(&mut maintenance, &work, &mut mixed, &mut done);
        let finished = spilled.and_then(|()| finish(mixed, &mut done));
        if finished.is_err() {
            self.remove_unannounced(&done);
            return finished.map(|()| false);
        }
        self.counters.lock().spilled_octets += done.iter().map(|new| new.len).sum::<u64>();
        self.announce(&mut maintenance, done, Vec::new())?;
        Ok(true)
    }

    /// The live entries of the oldest full file that has any, by queue.
    fn spill_work(&self) -> Option<BTreeMap<u64, Vec<LogEntry>>> {
        let state = self.state.lock();
        let excess = state.log.full.len().saturating_sub(self.options.full_files);
        if excess == 0 || state.segment_change_pending {
            return None;
        }
        let oldest = state.index.oldest_live_lsn()?;
        let file = state.log.full.iter().take(excess).find(|file| file.end > oldest)?;
        let cut = file.end.min(state.durable);
        let mut work = BTreeMap::new();
        for (id, queue) in &state.index.queues {
            let below = queue.log.iter().take_while(|entry| entry.lsn < cut);
            let live: Vec<LogEntry> = below.filter(|entry| entry.is_live()).copied().collect();
            if !live.is_empty() {
                work.insert(*id, live);
            }
        }
        (!work.is_empty()).then_some(work)
    }

    fn spill_queues<'a>(
        &'a self,
        maintenance: &mut Maintenance,
        work: &BTreeMap<u64, Vec<LogEntry>>,
        mixed: &mut Option<SegmentWriter<'a>>,
        done: &mut Vec<NewSegment>,
    ) -> Result<(), StorageError> {
        for (queue, entries) in work {
            let octets: u64 = entries.iter().map(|entry| u64::from(entry.len)).sum();
            if octets >= self.options.own_segment_len {
                let mut own = self.new_segment(maintenance)?;
                self.copy_entries(*queue, entries, &mut own)?;
                done.push(own.finish()?);
            } else {
                let writer = match mixed {
                    Some(writer) => writer,
                    None => mixed.insert(self.new_segment(maintenance)?),
                };
                self.copy_entries(*queue, entries, writer)?;
            }
        }
        Ok(())
    }

    fn new_segment(
        &self,
        maintenance: &mut Maintenance,
    ) -> Result<SegmentWriter<'_>, StorageError> {
        let id = maintenance.next_segment_id;
        maintenance.next_segment_id += 1;
        let (dir, len) = (&self.paths.segments, self.options.extent_len);
        SegmentWriter::create(&*self.fs, dir, self.node, id, len)
    }

    /// Copies one queue's entries from the log; those that are not sound are named.
    fn copy_entries(
        &self,
        queue: u64,
        entries: &[LogEntry],
        writer: &mut SegmentWriter<'_>,
    ) -> Result<(), StorageError> {
        let plan = plan_runs(&self.state.lock(), entries, self.options.extent_len);
        let one = |seq: u64| certain(queue, SeqRange::one(seq), 1);
        self.name_missing(plan.missing.iter().map(|seq| one(*seq)).collect());
        let mut octets = Vec::new();
        for run in plan.runs {
            let doubt = self.read_run(&run, &mut octets)?;
            let mut lost = Vec::new();
            for (seq, record) in run.records(&octets) {
                match record {
                    Some(record) => writer.push(queue, &stored(seq, &record))?,
                    None => match doubt {
                        Some(doubt) => return Err(doubt),
                        None => lost.push(one(seq)),
                    },
                }
            }
            self.lose(self.paths.relative(&run.path), run.offset, &octets, lost);
        }
        Ok(())
    }

    /// Takes away segments that no record names. What cannot be removed now is removed at the
    /// next start.
    fn remove_unannounced(&self, segments: &[NewSegment]) {
        for segment in segments {
            drop(self.fs.remove(&self.segment_path(segment.id)));
        }
    }

    /// Copies what lives in half-dead segments, in damaged ones, or in many small ones, into new
    /// ones. Answers whether there were any.
    ///
    /// # Errors
    /// When reading or writing fails; nothing has changed then.
    pub fn compact_step(&self) -> Result<bool, StorageError> {
        let mut maintenance = self.maintaining.lock();
        let Some(Compaction { victims, work }) = self.compaction_work() else {
            return Ok(false);
        };
        let mut writer = self.new_segment(&mut maintenance)?;
        self.copy_extents(&work, &mut writer)?;
        let mut done = Vec::new();
        finish(Some(writer).filter(|writer| !writer.is_empty()), &mut done)?;
        self.counters.lock().compacted_octets += done.iter().map(|new| new.len).sum::<u64>();
        self.announce(&mut maintenance, done, victims)?;
        Ok(true)
    }

    fn compaction_work(&self) -> Option<Compaction> {
        let mut state = self.state.lock();
        let has_damaged = state.index.segments.values().any(|segment| segment.is_damaged);
        let mut free = 0;
        if has_damaged {
            drop(state);
            free = self.fs.available(&self.paths.root).unwrap_or(0);
            state = self.state.lock();
        }
        if state.segment_change_pending {
            return None;
        }
        let alive = state.index.segments.iter().filter(|(_, segment)| segment.live_extents > 0);
        let small: Vec<u64> = alive
            .clone()
            .filter(|(_, segment)| segment.len < self.options.small_segment_len)
            .map(|(id, _)| *id)
            .collect();
        let mut victims: Vec<u64> = Vec::new();
        let mut damaged = None;
        let mut total = 0;
        for (id, segment) in alive {
            let is_half_dead = segment.live_octets * 2 + FIXED_LEN < segment.len;
            let is_small = small.len() > SMALL_SEGMENTS_MAX && small.contains(id);
            if is_half_dead || is_small {
                if total < self.options.compaction_len {
                    victims.push(*id);
                    total += segment.live_octets;
                }
            } else if segment.is_damaged && damaged.is_none() {
                damaged = Some((*id, segment.live_octets));
            }
        }
        // Last, and alone: it gives no room back, and may fail again and again.
        if victims.is_empty()
            && let Some((id, live_octets)) = damaged
            && live_octets.saturating_add(self.options.wal_file_len) < free
        {
            victims.push(id);
        }
        if victims.is_empty() {
            return None;
        }
        let mut work = BTreeMap::new();
        for (id, queue) in &state.index.queues {
            let mut extents = Vec::new();
            let mut previous_stays = false;
            for extent in &queue.extents {
                let stays = !victims.contains(&extent.segment);
                if !stays {
                    extents.push(VictimExtent { extent: *extent, previous_stays });
                }
                previous_stays = stays;
            }
            if !extents.is_empty() {
                work.insert(*id, extents);
            }
        }
        Some(Compaction { victims, work })
    }

    fn copy_extents(
        &self,
        work: &BTreeMap<u64, Vec<VictimExtent>>,
        writer: &mut SegmentWriter<'_>,
    ) -> Result<(), StorageError> {
        for (queue, extents) in work {
            for VictimExtent { extent, previous_stays } in extents {
                if *previous_stays {
                    // An extent must not reach over one that stays.
                    writer.cut()?;
                }
                let live = self.live_in(*queue, extent);
                if live.is_empty() {
                    continue;
                }
                let file = self.segment_file(extent.segment)?;
                let (octets, doubt) = self.extent_octets(&*file, *queue, extent)?;
                if let Some(doubt) = doubt
                    && live.iter().any(|seq| octets.has_lost(*seq))
                {
                    return Err(doubt);
                }
                let mut wanted = live.iter().copied().peekable();
                for (message, _) in octets.messages_from(extent.first) {
                    while wanted.next_if(|seq| *seq < message.seq).is_some() {}
                    if wanted.next_if_eq(&message.seq).is_some() {
                        writer.push(*queue, &message)?;
                    }
                }
                self.name_lost_extent(*queue, extent, &octets);
            }
        }
        Ok(())
    }

    /// The live numbers of an extent, ascending.
    pub(super) fn live_in(&self, queue: u64, extent: &Extent) -> Vec<u64> {
        let state = self.state.lock();
        let Some(queue) = state.index.queues.get(&queue) else {
            return Vec::new();
        };
        queue.spilled.iter_from(extent.first).take_while(|seq| *seq <= extent.last).collect()
    }

    /// Logs that segments have come and gone, to take effect once durable.
    fn announce(
        &self,
        maintenance: &mut Maintenance,
        added: Vec<NewSegment>,
        dropped: Vec<u64>,
    ) -> Result<(), StorageError> {
        let mut batch = Batch::new();
        for segment in &added {
            batch.segment(RecordKind::AddSegment, segment.id, segment.len);
        }
        for id in &dropped {
            batch.segment(RecordKind::DropSegment, *id, 0);
        }
        self.state.lock().segment_change_pending = true;
        let victims = dropped.clone();
        let appended = self.append_with(&batch, Some(Effect::Segments { added, dropped }));
        match appended {
            Ok(position) => {
                maintenance.replaced.extend(victims.into_iter().map(|id| (id, position.0)));
                Ok(())
            }
            Err(error) => {
                self.state.lock().segment_change_pending = false;
                Err(error)
            }
        }
    }
}

pub(super) fn certain(queue: u64, range: SeqRange, count: u64) -> LostMessages {
    LostMessages { queue, range, count, certain: true }
}

fn finish(
    writer: Option<SegmentWriter<'_>>,
    done: &mut Vec<NewSegment>,
) -> Result<(), StorageError> {
    if let Some(writer) = writer {
        done.push(writer.finish()?);
    }
    Ok(())
}

/// A record of the log as a segment stores it.
fn stored<'a>(seq: u64, record: &Record<'a>) -> StoredMessage<'a> {
    StoredMessage {
        seq,
        flags: record.flags,
        head: record.head,
        body: record.body,
        content_crc: record.content_crc(),
    }
}
