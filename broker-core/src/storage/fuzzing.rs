//! A door for fuzzers: octets to every decoder of the format, past its checksums.
//!
//! The one idea: a fuzzer does not guess a checksum, so it is written for it ([`seal`]); what a
//! decoder then does with lengths and counts that make no sense is what is to be found out
//! ([`decode`]). Each format is decoded, encoded and decoded again, which must give the same. A part
//! of the tests, not of the store.

use std::path::Path;
use std::sync::Arc;

use super::checkpoint;
use super::format_file;
use super::frame::{BLOCK_LEN, FRAME_HEADER_LEN, FileHeader, FrameHeader};
use super::fs::{File, FileSystem, read_full};
use super::octets::{crc, to_usize};
use super::payload::Payload;
use super::record::{Items, NewRecord, RECORD_HEADER_LEN, Record};
use super::replay::read_segment;
use super::segment::{
    EXTENT_HEADER_LEN, ExtentOctets, FILE_HEADER_LEN, MESSAGE_HEADER_LEN, StoredMessage,
    TRAILER_LEN,
};
use super::sim_fs::SimFs;
use super::{MessageRef, NodeId, SeqRange};

/// A thing on disk that is decoded by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The header of a log file.
    LogFile,
    /// The header of a frame.
    Frame,
    /// A record of the log, behind its position (u64).
    Record,
    /// A message of an extent, behind its queue (u64).
    Message,
    /// A segment file.
    Segment,
    /// A checkpoint file.
    Checkpoint,
    /// The file `FORMAT`.
    FormatFile,
    /// A log file, frames and records in them.
    Log,
}

/// All of them.
pub const FORMATS: [Format; 8] = [
    Format::LogFile,
    Format::Frame,
    Format::Record,
    Format::Message,
    Format::Segment,
    Format::Checkpoint,
    Format::FormatFile,
    Format::Log,
];

// Checksums.

/// Writes the checksums that these octets need, as far as the fields that they cover are there.
pub fn seal(format: Format, octets: &mut Vec<u8>) {
    match format {
        Format::LogFile => seal_range(octets, 8, 12, 56, &[]),
        Format::Frame => seal_range(octets, 4, 8, FRAME_HEADER_LEN, &[]),
        Format::Record => {
            if let Some((position, rest)) = octets.split_at_mut_checked(8) {
                seal_record(rest, position);
            }
        }
        Format::Message => {
            if let Some((queue, rest)) = octets.split_at_mut_checked(8) {
                seal_message(rest, queue);
            }
        }
        // Octets that end early are sealed as far as they go.
        Format::Segment => seal_segment(octets).unwrap_or_default(),
        Format::Checkpoint => seal_checkpoint(octets),
        Format::FormatFile => seal_format_file(octets),
        Format::Log => seal_log(octets).unwrap_or_default(),
    }
}

/// Puts the checksum of `prefix` and of the octets `from..to` at `at`.
fn seal_range(octets: &mut [u8], at: usize, from: usize, to: usize, prefix: &[u8]) {
    let Some(sealed) = octets.get(from..to).map(|covered| crc(&[prefix, covered])) else {
        return;
    };
    if let Some(field) = octets.get_mut(at..at + 4) {
        field.copy_from_slice(&sealed.to_le_bytes());
    }
}

fn u32_at(octets: &[u8], at: usize) -> Option<usize> {
    let field = octets.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(to_usize(u64::from(u32::from_le_bytes(field))))
}

fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(octets.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Answers the length that the record claims.
fn seal_record(octets: &mut [u8], position: &[u8]) -> Option<usize> {
    let items_end = RECORD_HEADER_LEN.checked_add(u32_at(octets, 16)?.checked_mul(16)?)?;
    let content = u32_at(octets, 20)?.checked_add(u32_at(octets, 24)?)?;
    seal_range(octets, 12, items_end, items_end.checked_add(content)?, &[]);
    seal_range(octets, 0, 4, items_end, position);
    u32_at(octets, 4)
}

/// Answers the length that the message claims.
fn seal_message(octets: &mut [u8], queue: &[u8]) -> Option<usize> {
    let content = u32_at(octets, 12)?.checked_add(u32_at(octets, 16)?)?;
    seal_range(octets, 8, MESSAGE_HEADER_LEN, MESSAGE_HEADER_LEN.checked_add(content)?, &[]);
    seal_range(octets, 0, 4, MESSAGE_HEADER_LEN, queue);
    u32_at(octets, 4)
}

fn seal_segment(octets: &mut [u8]) -> Option<()> {
    seal_range(octets, 8, 12, 40, &[]);
    let mut at = to_usize(FILE_HEADER_LEN);
    while octets.get(at..)?.starts_with(b"WEXT") {
        let end = at.checked_add(EXTENT_HEADER_LEN)?.checked_add(u32_at(octets, at + 12)?)?;
        let queue = octets.get(at + 16..at + 24)?.to_owned();
        let mut message = at + EXTENT_HEADER_LEN;
        while message < end {
            let len = seal_message(octets.get_mut(message..end)?, &queue);
            message = message.checked_add(len.filter(|len| *len > 0).unwrap_or(8))?;
        }
        let header = octets.get_mut(at..end)?;
        seal_range(header, 8, EXTENT_HEADER_LEN, header.len(), &[]);
        seal_range(header, 4, 8, EXTENT_HEADER_LEN, &[]);
        at = end;
    }
    let trailer = octets.len().checked_sub(to_usize(TRAILER_LEN))?;
    let footer = to_usize(u64_at(octets, trailer + 24)?);
    seal_range(octets, trailer + 12, footer.min(trailer), trailer, &[]);
    seal_range(octets, trailer + 8, trailer + 12, trailer + 48, &[]);
    Some(())
}

fn seal_checkpoint(octets: &mut [u8]) {
    seal_range(octets, 8, 12, 96, &[]);
    let mut at = 96;
    while let Some(len) = u32_at(octets, at + 4) {
        let Some(end) = (at + 8).checked_add(len) else { return };
        seal_range(octets, at, at + 8, end, &[]);
        at = end;
    }
}

fn seal_format_file(octets: &mut Vec<u8>) {
    let end = octets.windows(4).rposition(|window| window == b"crc ").unwrap_or(octets.len());
    octets.truncate(end);
    let sealed = crc(&[octets]);
    octets.extend_from_slice(format!("crc {sealed:08x}\n").as_bytes());
}

fn seal_log(octets: &mut [u8]) -> Option<()> {
    seal_range(octets, 8, 12, 56, &[]);
    let block = to_usize(BLOCK_LEN);
    let mut at = block;
    while at < octets.len() {
        if !octets.get(at..)?.starts_with(b"WFRM") {
            at += block;
            continue;
        }
        let start = at.checked_add(FRAME_HEADER_LEN)?;
        let end = start.checked_add(u32_at(octets, at + 12)?)?.min(octets.len());
        let first = u64_at(octets, at + 40)?;
        let mut record = start;
        while record < end {
            let position = first.wrapping_add((record - start) as u64).to_le_bytes();
            let len = seal_record(octets.get_mut(record..end)?, &position);
            record = record.checked_add(len.filter(|len| *len > 0).unwrap_or(8))?;
        }
        seal_range(octets, at + 8, start, end, &[]);
        seal_range(octets, at + 4, at + 8, start, &[]);
        at = end.next_multiple_of(block);
    }
    Some(())
}

// Decoding.

/// Decodes octets; answers whether they were taken for what they should be.
///
/// # Panics
/// When a decoder breaks a promise.
pub fn decode(format: Format, octets: &[u8]) -> bool {
    match format {
        Format::LogFile => decode_file_header(octets),
        Format::Frame => decode_frame(octets),
        Format::Record => decode_record(octets),
        Format::Message => decode_message(octets),
        Format::Segment => decode_segment(octets),
        Format::Checkpoint => decode_checkpoint(octets),
        Format::FormatFile => decode_format_file(octets),
        Format::Log => decode_log(octets),
    }
}

fn decode_file_header(octets: &[u8]) -> bool {
    let Some(header) = FileHeader::decode(octets) else {
        return false;
    };
    assert_eq!(FileHeader::decode(&header.encode()), Some(header));
    true
}

fn decode_frame(octets: &[u8]) -> bool {
    let Some(header) = FrameHeader::decode(octets) else {
        return false;
    };
    assert_eq!(FrameHeader::decode(&header.encode()), Some(header));
    let footprint = header.footprint();
    assert!(footprint.is_multiple_of(BLOCK_LEN));
    assert!(footprint - u64::from(header.payload_len) >= FRAME_HEADER_LEN as u64);
    true
}

fn decode_record(octets: &[u8]) -> bool {
    let Some((position, octets)) = octets.split_first_chunk() else {
        return false;
    };
    let lsn = u64::from_le_bytes(*position);
    let Some(record) = Record::decode(octets, lsn) else {
        return false;
    };
    assert!(to_usize(u64::from(record.len)) <= octets.len() && record.len % 8 == 0);
    assert!(Record::decode(octets, lsn ^ 8).is_none(), "a record of another place");
    let targets: Vec<MessageRef> =
        record.items().map(|(queue, seq)| MessageRef { queue, seq }).collect();
    let again = NewRecord {
        kind: record.kind,
        flags: record.flags,
        queue: record.queue,
        items: Items::Targets(&targets),
        head: record.head,
        body: record.body,
        shared_body: None,
        content_crc: record.content_crc(),
    };
    assert_eq!(again.encoded_len(), u64::from(record.len));
    let mut written = Payload::default();
    again.encode(lsn, &mut written);
    let read =
        written.record(0, written.len()).and_then(|octets| Record::decode_pending(octets, lsn));
    assert_eq!(format!("{read:?}"), format!("{:?}", Some(record)));
    let body = Arc::new(record.body.to_vec());
    let mut shared = Payload::default();
    NewRecord { shared_body: Some(&body), ..again }.encode(lsn, &mut shared);
    assert!(
        shared.pieces().flatten().eq(written.pieces().flatten()),
        "shared and copied are the same"
    );
    let read =
        shared.record(0, shared.len()).and_then(|octets| Record::decode_pending(octets, lsn));
    assert_eq!(format!("{read:?}"), format!("{:?}", Some(record)));
    true
}

fn decode_message(octets: &[u8]) -> bool {
    let Some((queue, octets)) = octets.split_first_chunk() else {
        return false;
    };
    let queue = u64::from_le_bytes(*queue);
    let Some((message, len)) = StoredMessage::decode(octets, queue) else {
        return false;
    };
    assert!(len <= octets.len() && len == message.encoded_len());
    assert!(StoredMessage::decode(octets, queue ^ 1).is_none(), "a message of another queue");
    let mut written = Vec::new();
    message.encode(queue, &mut written);
    let read = StoredMessage::decode(&written, queue);
    assert_eq!(format!("{read:?}"), format!("{:?}", Some((message, len))));
    true
}

/// Extents of one input that are read. A footer may name the same one as often as it likes.
const EXTENTS_MAX: usize = 64;

fn decode_segment(octets: &[u8]) -> bool {
    with_file(octets, |file| {
        let Ok(segment) = read_segment(file, 0) else {
            return false;
        };
        for (queue, extent) in segment.extents.iter().take(EXTENTS_MAX) {
            // The disk always answers.
            let Ok(read) = ExtentOctets::read(file, *queue, extent) else {
                panic!("{extent:?}");
            };
            assert!(read.octets().len() <= octets.len());
            let found: Vec<u64> = read.messages_from(0).map(|(message, _)| message.seq).collect();
            assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            for seq in &found {
                let is_lost = |range: &SeqRange| (range.first..=range.last).contains(seq);
                assert!((extent.first..=extent.last).contains(seq), "{seq} in {extent:?}");
                assert!(!read.lost.iter().any(is_lost), "{seq} is there and lost: {extent:?}");
            }
        }
        !segment.extents.is_empty()
    })
}

fn decode_checkpoint(octets: &[u8]) -> bool {
    let Some(found) = checkpoint::decode(octets) else {
        return false;
    };
    let written = checkpoint::encode(&found.header, &found.index);
    let Some(again) = checkpoint::decode(&written) else {
        panic!("what was written does not read back");
    };
    assert_eq!((again.header, again.damage), (found.header, None));
    assert_eq!(again.index.definitions, found.index.definitions);
    found.damage.is_none()
}

fn decode_format_file(octets: &[u8]) -> bool {
    let Some((_, node)) = std::str::from_utf8(octets).ok().and_then(format_file::parse) else {
        return false;
    };
    let written = format_file::parse(&format_file::text(node));
    assert_eq!(written.map(|(_, node)| node), Some(node));
    assert_eq!(NodeId::parse(&node.to_string()), Some(node));
    true
}

fn decode_log(octets: &[u8]) -> bool {
    let path = Path::new("/file").to_owned();
    let fs = SimFs::new();
    fs.put(&path, octets.to_owned());
    let mut meter = super::progress::Meter::new(None, super::OpenPhase::Scan, 0);
    let scanned = fs.open(&path).and_then(|file| super::scan::scan_file(file, path, 0, &mut meter));
    let Ok(scanned) = scanned else {
        panic!("the disk always answers");
    };
    let mut end = BLOCK_LEN;
    let mut lsn = 0;
    for (header, offset) in &scanned.frames {
        assert!(*offset >= end && *offset < octets.len() as u64, "frames lie in a row");
        assert!(header.lsn >= lsn, "positions ascend");
        end = offset + header.footprint();
        lsn = header.end();
    }
    scanned.header.is_some() && !scanned.frames.is_empty()
}

fn with_file<T>(octets: &[u8], use_it: impl FnOnce(&dyn File) -> T) -> T {
    let path = Path::new("/file");
    let fs = SimFs::new();
    fs.put(path, octets.to_owned());
    let Ok(file) = fs.open(path) else {
        panic!("a file just made");
    };
    assert_eq!(read_full(&*file, 0, &mut vec![0; octets.len()]).ok(), Some(octets.len()));
    use_it(&*file)
}
