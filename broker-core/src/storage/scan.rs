//! Finding the frames of the log, and deciding between torn and rotten.
//!
//! The one idea: positions form a chain. Frame after frame, across files, each begins where the
//! one before it ended. A break in the chain with a frame behind it is a loss, because only one
//! frame was ever on its way: what came after proves that what came before had been flushed. A bad
//! frame without a break is an attempt that was torn, or failed, and written again elsewhere. This
//! module reads headers only.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN, FileHeader, FrameHeader};
use super::fs::{File, read_full, read_up_to};
use super::octets::{crc, to_usize};
use super::progress::Meter;

/// Octets read at a time when looking for the next frame.
const SEARCH_LEN: usize = 1 << 20;

/// A log file as it was found.
#[derive(Debug)]
pub(super) struct ScannedFile {
    /// What the name says.
    pub(super) name_id: u64,
    /// What the header says, or else the name.
    pub(super) id: u64,
    pub(super) incarnation: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) header: Option<FileHeader>,
    /// With the offset of each, ascending by position.
    pub(super) frames: Vec<(FrameHeader, u64)>,
}

/// Reads all frame headers of one file; `meter` moves on by its length.
pub(super) fn scan_file(
    file: Arc<dyn File>,
    path: PathBuf,
    name_id: u64,
    meter: &mut Meter<'_>,
) -> io::Result<ScannedFile> {
    let len = file.size()?;
    let mut block = vec![0; to_usize(BLOCK_LEN)];
    read_full(&*file, 0, &mut block)?;
    let header = FileHeader::decode(&block);
    let id = header.map_or(name_id, |header| header.file_id);
    let mut incarnation = header.map(|header| header.incarnation);
    let mut frames: Vec<(FrameHeader, u64)> = Vec::new();
    let mut offset = BLOCK_LEN;
    let mut octets = [0; FRAME_HEADER_LEN];
    while offset < len {
        read_full(&*file, offset, &mut octets)?;
        let expected = frames.last().map_or(0, |(last, _)| last.end());
        let is_ours = |found: &FrameHeader| {
            found.file_id == id
                && incarnation.is_none_or(|known| known == found.incarnation)
                && found.lsn >= expected
        };
        let found = match FrameHeader::decode(&octets).filter(is_ours) {
            Some(found) => Some((found, offset)),
            None => search(&*file, offset + BLOCK_LEN, len, is_ours)?,
        };
        let Some((found, at)) = found else { break };
        incarnation = Some(found.incarnation);
        let next = at.saturating_add(found.footprint()).min(len);
        meter.add(next - offset);
        offset = next;
        frames.push((found, at));
    }
    meter.add(len.saturating_sub(offset));
    let incarnation = incarnation.unwrap_or(0);
    Ok(ScannedFile { name_id, id, incarnation, path, file, header, frames })
}

/// The next frame header from `offset` on that `is_ours`.
fn search(
    file: &dyn File,
    mut offset: u64,
    len: u64,
    is_ours: impl Fn(&FrameHeader) -> bool,
) -> io::Result<Option<(FrameHeader, u64)>> {
    let mut chunk = vec![0; SEARCH_LEN];
    while offset < len {
        let read = read_full(file, offset, &mut chunk)?;
        let blocks = chunk.get(..read).unwrap_or_default().chunks(to_usize(BLOCK_LEN));
        for (index, block) in blocks.enumerate() {
            if let Some(found) = FrameHeader::decode(block).filter(&is_ours) {
                return Ok(Some((found, offset + index as u64 * BLOCK_LEN)));
            }
        }
        offset += SEARCH_LEN as u64;
    }
    Ok(None)
}

/// A frame in the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChainFrame {
    /// Index of its file.
    pub(super) file: usize,
    pub(super) header: FrameHeader,
    pub(super) offset: u64,
}

/// A stretch of positions without a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Frames of the chain before the gap.
    pub(super) after: usize,
}

/// The frames of all files in the order of positions.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) frames: Vec<ChainFrame>,
    pub(super) gaps: Vec<Gap>,
    /// Everything below was durable, as some frame says.
    pub(super) proven: u64,
}

/// Chains the frames of `files`, which are sorted by id. Where a later file takes up the log at an
/// earlier position with a sound frame, that is where it goes on: what lay behind was written
/// again, or never promised. A second attempt that is not sound is passed over.
pub(super) fn chain(files: &[ScannedFile]) -> Chain {
    let mut chain = Chain::default();
    for (index, file) in files.iter().enumerate() {
        for (header, offset) in &file.frames {
            let frame = ChainFrame { file: index, header: *header, offset: *offset };
            chain.proven = chain.proven.max(header.durable_lsn);
            let overlaps = |chain: &Chain| {
                let last = chain.frames.last();
                last.is_some_and(|last| last.file != index && last.header.end() > header.lsn)
            };
            if overlaps(&chain) && !payload_is_sound(file, &frame) {
                continue;
            }
            while overlaps(&chain) {
                chain.frames.pop();
            }
            chain.frames.push(frame);
        }
    }
    let mut expected = chain.frames.first().map_or(0, |first| first.header.lsn);
    for (after, frame) in chain.frames.iter().enumerate() {
        if frame.header.lsn > expected {
            chain.gaps.push(Gap { from: expected, to: frame.header.lsn, after });
        }
        expected = frame.header.end().max(expected);
    }
    chain
}

fn payload_is_sound(file: &ScannedFile, frame: &ChainFrame) -> bool {
    let start = frame.offset + FRAME_HEADER_LEN as u64;
    let len = u64::from(frame.header.payload_len);
    let mut payload = Vec::new();
    read_up_to(&*file.file, start, len, &mut payload).is_ok()
        && payload.len() as u64 == len
        && crc(&[&payload]) == frame.header.payload_crc
}

impl Chain {
    /// Position behind the last frame.
    pub(super) fn end(&self) -> u64 {
        self.frames.last().map_or(0, |last| last.header.end())
    }
}
