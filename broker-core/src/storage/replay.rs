//! Replaying the log over a checkpoint.
//!
//! The one idea: a sound frame is applied by the code that runs otherwise. A frame that was
//! flushed and is not sound any more is searched record by record, and what it held is named as
//! far as its octets tell; a frame that was never flushed is cut off with everything of its batch.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use hashbrown::HashSet;

use super::bad_pages::BadPages;
use super::batch::{MessageRef, SeqRange};
use super::damage::{Damage, LostMessages};
use super::engine::{Frame, Paths};
use super::error::{IoContext, StorageError, is_out_of_means};
use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN, footprint};
use super::fs::{File, FileSystem, read_full, read_up_to};
use super::index::{Effect, Index, NewSegment};
use super::log::FramePlace;
use super::octets::{crc, len_u32, to_usize};
use super::progress::Meter;
use super::record::{RECORD_ALIGN, Record, RecordKind};
use super::scan::{Chain, ChainFrame, Gap, ScannedFile};
use super::segment::{ExtentOctets, read_footer, segment_path, walk_extents};
use super::spill::certain;

/// How much was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Replayed {
    pub(super) octets: u64,
    pub(super) records: u64,
}

/// Damage, with the octets to be kept and their offset.
pub(super) type DamageWithOctets = (Damage, Option<(u64, Vec<u8>)>);

/// What replaying gave.
pub(super) struct Found {
    pub(super) index: Index,
    /// Position where the log goes on.
    pub(super) end: u64,
    /// Where the frames lie, by index of the file.
    pub(super) frames: BTreeMap<usize, Vec<FramePlace>>,
    pub(super) damage: Vec<DamageWithOctets>,
    pub(super) replayed: Replayed,
    /// Frames at the end that no later one proves to have been flushed.
    pub(super) unproven: Vec<Frame>,
    /// Why a file could not be opened or read, where that says nothing about the file.
    pub(super) failure: Option<StorageError>,
}

/// The replay in progress.
pub(super) struct Replay<'a> {
    fs: &'a BadPages,
    paths: &'a Paths,
    files: &'a [ScannedFile],
    chain: &'a Chain,
    /// The checkpoint holds everything below.
    from: u64,
    found: Found,
    /// Segments named by records in a row, to be put in place together.
    added: Vec<NewSegment>,
    dropped: Vec<u64>,
    /// The damage that took the last stretch of the log, and the queues met since.
    gap: Option<(usize, HashSet<u64>)>,
    meter: Meter<'a>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(
        fs: &'a BadPages,
        paths: &'a Paths,
        files: &'a [ScannedFile],
        chain: &'a Chain,
        index: Index,
        from: u64,
        meter: Meter<'a>,
    ) -> Self {
        let found = Found {
            index,
            end: 0,
            frames: BTreeMap::new(),
            damage: Vec::new(),
            replayed: Replayed::default(),
            unproven: Vec::new(),
            failure: None,
        };
        Self {
            fs,
            paths,
            files,
            chain,
            from,
            found,
            added: Vec::new(),
            dropped: Vec::new(),
            gap: None,
            meter,
        }
    }

    /// Replays everything behind the checkpoint.
    pub(super) fn run(mut self) -> Found {
        let frames = self.chain.frames.as_slice();
        if let Some(first) = frames.first()
            && first.header.lsn > self.from
        {
            self.lose_gap(Gap { from: self.from, to: first.header.lsn, after: 0 });
        }
        let mut gaps = self.chain.gaps.iter().peekable();
        let mut end = self.chain.end();
        let mut at = 0;
        let mut octets = Vec::new();
        while let Some(first) = frames.get(at) {
            if let Some(gap) = gaps.next_if(|gap| gap.after <= at) {
                self.lose_gap(*gap);
            }
            if first.header.end() <= self.from {
                self.place(first);
                at += 1;
                continue;
            }
            let last = batch_end(frames, at);
            let is_tail = last.is_none_or(|last| last + 1 == frames.len());
            let batch = frames.get(at..=last.unwrap_or(frames.len() - 1)).unwrap_or_default();
            let is_proven = !is_tail || self.chain.proven.max(self.from) > first.header.lsn;
            let unsound = batch.iter().find_map(|frame| self.read(frame, &mut octets).err());
            let unsound = match unsound {
                Some(Unsound::Unreadable(error)) if is_out_of_means(&error) => {
                    let path = self.file(first).map_or(&self.paths.wal, |file| &file.path);
                    self.found.failure = Err::<(), _>(error).during("read", path).err();
                    break;
                }
                unsound => unsound,
            };
            let is_whole = last.is_some() && unsound.is_none();
            // A disk that cannot be read proves nothing either way: that is said, not passed over.
            let is_torn = !unsound.is_some_and(|unsound| unsound.is_unreadable());
            if !is_whole && !is_proven && is_torn {
                end = first.header.lsn;
                break;
            }
            for frame in batch {
                self.replay_frame(frame, &mut octets, batch.len() == 1 && is_whole);
                if frame.header.end() > self.chain.proven && is_whole {
                    self.found
                        .unproven
                        .push(Frame::again(&frame.header, std::mem::take(&mut octets)));
                }
            }
            at += batch.len();
            self.meter
                .reach(batch.last().map_or(0, |last| last.header.end().saturating_sub(self.from)));
        }
        self.apply_segments();
        let proven = self.chain.proven.max(self.from);
        if proven > end {
            let detail = format!("the log ends at position {end}, {proven} had been reached");
            self.lose(Damage::new(self.paths.relative(&self.paths.wal), detail), None);
            end = proven;
        }
        self.found.end = end;
        self.found
    }

    fn file(&self, frame: &ChainFrame) -> Option<&'a ScannedFile> {
        self.files.get(frame.file)
    }

    /// Notes where a frame's payload lies.
    fn place(&mut self, frame: &ChainFrame) {
        if frame.header.payload_len > 0 {
            let place = FramePlace {
                lsn: frame.header.lsn,
                payload_len: frame.header.payload_len,
                offset: frame.offset,
            };
            self.found.frames.entry(frame.file).or_default().push(place);
        }
    }

    /// Reads a payload and checks it.
    fn read(&self, frame: &ChainFrame, octets: &mut Vec<u8>) -> Result<(), Unsound> {
        octets.clear();
        let Some(file) = self.file(frame) else {
            return Err(Unsound::CutOff);
        };
        let start = frame.offset + FRAME_HEADER_LEN as u64;
        let len = u64::from(frame.header.payload_len);
        read_up_to(&*file.file, start, len, octets).map_err(Unsound::Unreadable)?;
        if (octets.len() as u64) < len {
            return Err(Unsound::CutOff);
        }
        if crc(&[octets]) == frame.header.payload_crc {
            return Ok(());
        }
        let place = frame.offset..start + len;
        Err(self.fs.given_up(&file.path, place).map_or(Unsound::BadChecksum, Unsound::BadPages))
    }

    fn replay_frame(&mut self, frame: &ChainFrame, octets: &mut Vec<u8>, is_read: bool) {
        self.place(frame);
        let read = if is_read { Ok(()) } else { self.read(frame, octets) };
        self.found.replayed.octets += octets.len() as u64;
        match read {
            Ok(()) => {
                let applied = self.apply_all(octets, frame.header.lsn);
                let rest = octets.get(applied..).unwrap_or_default();
                if let Some(file) = self.file(frame)
                    && !rest.is_empty()
                {
                    // No rot looks like this; whatever did it, the rest of the log goes on.
                    let detail =
                        format!("frame at offset {} holds what is no record", frame.offset);
                    let damage = Damage::new(self.paths.relative(&file.path), detail);
                    let offset = frame.offset + (FRAME_HEADER_LEN + applied) as u64;
                    self.lose(damage, Some((offset, rest.to_vec())));
                    let lsn = frame.header.lsn + applied as u64;
                    self.salvage(rest, lsn, frame.header.end());
                }
            }
            Err(why) => {
                let Some(file) = self.file(frame) else { return };
                let detail = format!("frame at offset {} {why}", frame.offset);
                let damage = Damage::new(self.paths.relative(&file.path), detail);
                let kept = Some((frame.offset + FRAME_HEADER_LEN as u64, octets.clone()));
                self.lose(damage, kept);
                self.salvage(octets, frame.header.lsn, frame.header.end());
            }
        }
        self.apply_segments();
    }

    /// Applies the records of a sound payload; answers the octets that they take.
    fn apply_all(&mut self, octets: &[u8], lsn: u64) -> usize {
        let mut at = 0;
        while let Some(rest) = octets.get(at..)
            && let Some(record) = Record::decode(rest, lsn + at as u64)
        {
            self.apply(&record, lsn + at as u64);
            at += to_usize(u64::from(record.len));
        }
        at
    }

    /// Applies what is sound in a payload that is not, and names what is not.
    fn salvage(&mut self, octets: &[u8], lsn: u64, end: u64) {
        let mut at = 0;
        while lsn + (at as u64) < end
            && let Some(rest) = octets.get(at..)
            && !rest.is_empty()
        {
            let record_lsn = lsn + at as u64;
            let Some(record) = Record::decode(rest, record_lsn) else {
                // Records before this place tell nothing about numbers that are missing behind it.
                if let Some((_, met)) = &mut self.gap {
                    met.clear();
                }
                at += RECORD_ALIGN;
                continue;
            };
            if record.content_is_sound() {
                self.apply(&record, record_lsn);
            } else if record.kind == RecordKind::Enqueue {
                for (queue, seq) in record.items() {
                    self.name(certain(queue, SeqRange::one(seq), 1));
                    // The number has been seen, so it is not missing.
                    let queue = self.found.index.queues.entry(queue).or_default();
                    queue.next_seq = queue.next_seq.max(seq.saturating_add(1));
                }
            }
            at += to_usize(u64::from(record.len));
        }
    }

    fn apply(&mut self, record: &Record<'_>, lsn: u64) {
        self.found.replayed.records += 1;
        let queue = record.queue;
        let mut pairs = record.items();
        match record.kind {
            RecordKind::AddSegment => {
                if let Some((id, _)) = pairs.next() {
                    self.add_segment(id);
                }
                return;
            }
            RecordKind::DropSegment => {
                self.dropped.extend(pairs.next().map(|(id, _)| id));
                return;
            }
            _ => self.apply_segments(),
        }
        let effect = match record.kind {
            RecordKind::Enqueue => {
                for (queue, seq) in pairs {
                    self.note_missing(queue, seq);
                    self.found.index.enqueue(MessageRef { queue, seq }, lsn, record.len);
                }
                return;
            }
            RecordKind::Ack => Effect::Ack { queue, ranges: record.ranges().collect(), lsn },
            RecordKind::Requeued => {
                Effect::Requeued { queue, ranges: record.ranges().collect(), lsn }
            }
            RecordKind::Delivered => {
                Effect::Delivered { queue, last: pairs.next().map_or(0, |(last, _)| last) }
            }
            RecordKind::PutDefinition => {
                Effect::PutDefinition { key: record.head.into(), value: record.body.into() }
            }
            RecordKind::DeleteDefinition => Effect::DeleteDefinition { key: record.head.into() },
            RecordKind::DeleteQueue => Effect::DeleteQueue { queue },
            RecordKind::AddSegment | RecordKind::DropSegment => return,
        };
        self.found.index.apply(effect);
    }

    // Segments.

    fn add_segment(&mut self, id: u64) {
        let path = segment_path(&self.paths.segments, id);
        let read = self.fs.open(&path).and_then(|file| {
            let segment = read_segment(&*file, id)?;
            if self.gap.is_some() {
                rescue(&*file, &segment, &mut self.found.index)?;
            }
            Ok(segment)
        });
        // One that is gone was emptied or replaced later in the log; if not, its messages are
        // still sought in the log, and named when they are not there.
        match read {
            Ok(segment) => self.added.push(segment),
            Err(error) if is_out_of_means(&error) => {
                self.found.failure = Err::<(), _>(error).during("open", &path).err();
            }
            Err(_) => {}
        }
    }

    fn apply_segments(&mut self) {
        if !self.added.is_empty() || !self.dropped.is_empty() {
            let added = std::mem::take(&mut self.added);
            let dropped = std::mem::take(&mut self.dropped);
            self.found.index.apply(Effect::Segments { added, dropped });
        }
    }

    // Damage.

    /// Reports damage that took a stretch of the log.
    fn lose(&mut self, damage: Damage, octets: Option<(u64, Vec<u8>)>) {
        self.gap = Some((self.found.damage.len(), HashSet::new()));
        self.found.damage.push((damage, octets));
    }

    fn name(&mut self, lost: LostMessages) {
        if let Some((at, _)) = &self.gap
            && let Some((damage, _)) = self.found.damage.get_mut(*at)
        {
            damage.lost.push(lost);
        }
    }

    /// After a lost stretch, the first message of a queue tells which numbers are missing.
    fn note_missing(&mut self, queue: u64, seq: u64) {
        let Some((_, met)) = &mut self.gap else {
            return;
        };
        if !met.insert(queue) {
            return;
        }
        let expected = self.found.index.next_seq(queue);
        if seq > expected {
            let range = SeqRange { first: expected, last: seq - 1 };
            self.name(LostMessages { queue, range, count: seq - expected, certain: false });
        }
    }

    /// A stretch of positions has no frame header. If one frame was there, its records can still
    /// be found: their place and position are known.
    fn lose_gap(&mut self, gap: Gap) {
        let needed = gap.to - gap.from;
        let found = self.gap_places(gap).into_iter().find_map(|(file, offset, room)| {
            if room < footprint(needed) {
                return None;
            }
            let mut octets = vec![0; to_usize(needed.min(room))];
            let start = offset + FRAME_HEADER_LEN as u64;
            let read = read_full(&*self.files.get(file)?.file, start, &mut octets).ok()?;
            octets.truncate(read);
            let is_here = (0..octets.len()).step_by(RECORD_ALIGN).any(|at| {
                octets
                    .get(at..)
                    .is_some_and(|rest| Record::decode(rest, gap.from + at as u64).is_some())
            });
            is_here.then_some((file, offset, octets))
        });
        if let Some((file, offset, _)) = &found {
            let place = FramePlace {
                lsn: gap.from,
                payload_len: len_u32(to_usize(needed)),
                offset: *offset,
            };
            self.found.frames.entry(*file).or_default().push(place);
        }
        if gap.to <= self.from {
            // The checkpoint knows what was there; what of it still lives is looked for later.
            return;
        }
        let (path, bad_pages) = self.place_of(gap, found.as_ref().map(|(file, ..)| *file));
        let mut detail = format!("no sound frame for positions {} to {}", gap.from, gap.to);
        if let Some(bad_pages) = bad_pages {
            detail = format!("{detail}: {bad_pages}");
        }
        let damage = Damage::new(self.paths.relative(path), detail);
        match found {
            Some((_, offset, octets)) => {
                self.lose(damage, Some((offset, octets.clone())));
                self.salvage(&octets, gap.from, gap.to);
                self.apply_segments();
            }
            None => self.lose(damage, None),
        }
    }

    /// The file of a gap, as a report names it, and which pages of it cannot be read. Where
    /// nothing was `found`, a file with such pages is where the frames were.
    fn place_of(&self, gap: Gap, found: Option<usize>) -> (&'a Path, Option<String>) {
        let mut place: (&Path, _) = (&self.paths.wal, None);
        for (index, offset, room) in self.gap_places(gap) {
            let Some(file) = self.files.get(index) else { continue };
            let bad_pages = self.fs.given_up(&file.path, offset..offset + room);
            if found == Some(index) || (found.is_none() && place.1.is_none() && bad_pages.is_some())
            {
                place = (&file.path, bad_pages);
            }
        }
        place
    }

    /// Where the frame of a gap may have been: file, offset, and the room up to the next frame.
    fn gap_places(&self, gap: Gap) -> Vec<(usize, u64, u64)> {
        let before = gap.after.checked_sub(1).and_then(|at| self.chain.frames.get(at));
        let next = self.chain.frames.get(gap.after);
        let first_file = before.map_or(0, |frame| frame.file);
        let last_file = next.map_or(self.files.len(), |frame| frame.file);
        let mut places = Vec::new();
        for file in first_file..=last_file {
            let start = match before {
                Some(frame) if frame.file == file => frame.offset + frame.header.footprint(),
                _ => BLOCK_LEN,
            };
            let end = match next {
                Some(frame) if frame.file == file => frame.offset,
                _ => self.files.get(file).and_then(|file| file.file.size().ok()).unwrap_or(0),
            };
            if end > start {
                places.push((file, start, end - start));
            }
        }
        places
    }
}

/// Why a payload is not sound.
enum Unsound {
    CutOff,
    BadChecksum,
    /// Its checksum fails, and the disk does not give these of its pages.
    BadPages(String),
    Unreadable(io::Error),
}

impl Unsound {
    /// Whether the disk did not give all of it.
    const fn is_unreadable(&self) -> bool {
        matches!(self, Self::BadPages(_) | Self::Unreadable(_))
    }
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("is cut off"),
            Self::BadChecksum => f.write_str("fails its checksum"),
            Self::BadPages(why) => write!(f, "fails its checksum: {why}"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// The last frame of the batch that begins at `at`; `None` when the log ends before.
fn batch_end(frames: &[ChainFrame], at: usize) -> Option<usize> {
    let rest = frames.get(at..)?;
    let mut expected = rest.first()?.header.lsn;
    for (index, frame) in rest.iter().enumerate() {
        if frame.header.lsn != expected {
            // The rest of the batch is in a gap.
            return Some(at + index - 1);
        }
        if !frame.header.continues {
            return Some(at + index);
        }
        expected = frame.header.end();
    }
    None
}

/// What a segment's footer says, or else a walk over it.
pub(super) fn read_segment(file: &dyn File, id: u64) -> io::Result<NewSegment> {
    let len = file.size()?;
    let extents = match read_footer(file)? {
        Some(footer) if footer.id == id => footer.extents,
        _ => walk_extents(file, id)?,
    };
    Ok(NewSegment { id, len, extents })
}

/// Notes messages that a segment holds and that the log has lost: those above every number that
/// the index has seen.
fn rescue(file: &dyn File, segment: &NewSegment, index: &mut Index) -> io::Result<()> {
    for (id, extent) in &segment.extents {
        let expected = index.next_seq(*id);
        if extent.last < expected {
            continue;
        }
        let octets = ExtentOctets::read(file, *id, extent)?;
        let queue = index.queues.entry(*id).or_default();
        for (message, _) in octets.messages_from(expected) {
            queue.spilled.insert(message.seq);
            queue.next_seq = message.seq.saturating_add(1);
        }
    }
    Ok(())
}
