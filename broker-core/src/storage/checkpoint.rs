//! Checkpoints: the index at one position of the log, so that replay begins there.
//!
//! The one idea: every entry has its own checksum. A sound checkpoint is used whole; of two
//! damaged generations the newer is used entry by entry, and what is missing is reported. The
//! picture of the octets is at the head of [`storage`](super). Choosing between generations is
//! recovery's work; this module only writes and reads one file.

use std::path::{Path, PathBuf};

use super::batch::MessageRef;
use super::error::{IoContext, StorageError};
use super::fs::{File, FileSystem, read_full, write_full};
use super::index::{Extent, Index, QueueIndex, SegmentUse};
use super::octets::{Put, Reader, crc, len_u32, to_usize};
use super::seq_set::SeqSet;
use super::{FORMAT_VERSION, NodeId};

const MAGIC: &[u8; 8] = b"WARRENCP";
const HEADER_LEN: usize = 96;
const KIND_DEFINITION: u8 = 1;
const KIND_SEGMENT: u8 = 2;
const KIND_QUEUE: u8 = 3;

/// What a checkpoint says besides the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckpointHeader {
    pub(super) node: NodeId,
    pub(super) id: u64,
    /// The index holds everything below this position, and nothing from it on.
    pub(super) lsn: u64,
    /// No log file of this id or above had been made.
    pub(super) next_file_id: u64,
    /// No segment of this id or above had been made.
    pub(super) next_segment_id: u64,
    /// The oldest log file there was.
    pub(super) oldest_file_id: u64,
}

/// The path of checkpoint `id`.
pub(super) fn checkpoint_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.ckpt"))
}

/// The octets of a checkpoint. Takes what lies below `header.lsn` of the log.
pub(super) fn encode(header: &CheckpointHeader, index: &Index) -> Vec<u8> {
    let mut body = Vec::new();
    let mut entries = 0_u64;
    let mut entry = |kind: u8, write: &dyn Fn(&mut Vec<u8>)| {
        let start = body.len();
        body.put_u64(0);
        body.push(kind);
        write(&mut body);
        let payload = body.get(start + 8..).unwrap_or_default();
        let (sealed, len) = (crc(&[payload]), len_u32(payload.len()));
        if let Some(field) = body.get_mut(start..start + 4) {
            field.copy_from_slice(&sealed.to_le_bytes());
        }
        if let Some(field) = body.get_mut(start + 4..start + 8) {
            field.copy_from_slice(&len.to_le_bytes());
        }
        entries += 1;
    };
    for (key, value) in &index.definitions {
        entry(KIND_DEFINITION, &|out| {
            out.put_sized(key);
            out.put_sized(value);
        });
    }
    for (id, segment) in &index.segments {
        entry(KIND_SEGMENT, &|out| {
            out.put_u64(*id);
            out.put_u64(segment.len);
        });
    }
    // In order, so that the same state gives the same octets.
    let mut queues: Vec<_> = index.queues.iter().collect();
    queues.sort_unstable_by_key(|(id, _)| **id);
    for (id, queue) in queues {
        entry(KIND_QUEUE, &|out| encode_queue(*id, queue, header.lsn, out));
    }
    let mut fields = Vec::with_capacity(HEADER_LEN);
    fields.put_u32(FORMAT_VERSION);
    fields.put(&header.node.0);
    let numbers =
        [header.id, header.lsn, header.next_file_id, header.next_segment_id, header.oldest_file_id];
    for number in numbers {
        fields.put_u64(number);
    }
    fields.put_u64(entries);
    fields.put_u64((HEADER_LEN + body.len()) as u64);
    fields.resize(HEADER_LEN - 12, 0);
    let mut octets = Vec::with_capacity(HEADER_LEN + body.len());
    octets.put(MAGIC);
    octets.put_u32(crc(&[&fields]));
    octets.put(&fields);
    octets.put(&body);
    octets
}

fn encode_queue(id: u64, queue: &QueueIndex, lsn: u64, out: &mut Vec<u8>) {
    // Numbers appended but not durable yet are replayed, or were never promised.
    let durable = queue.log.partition_point(|entry| entry.lsn < lsn);
    let next_seq = queue.log.get(durable).map_or(queue.next_seq, |entry| entry.seq);
    for value in [id, next_seq, queue.spilled_below, queue.delivered_below] {
        out.put_u64(value);
    }
    out.put_u32(len_u32(queue.returns.len()));
    for (seq, returns) in &queue.returns {
        out.put_u64(*seq);
        out.put_u32(*returns);
    }
    out.put_u32(len_u32(queue.extents.len()));
    for extent in &queue.extents {
        for value in [extent.segment, extent.offset, extent.first, extent.last] {
            out.put_u64(value);
        }
        out.put_u32(extent.len);
        out.put_u32(extent.count);
    }
    out.put_sized(&queue.spilled.encode());
    let entries: Vec<_> =
        queue.log.iter().filter(|entry| entry.is_live() && entry.lsn < lsn).collect();
    out.put_u32(len_u32(entries.len()));
    let (mut seq, mut lsn) = (0, 0);
    for entry in entries {
        put_varint(out, entry.seq - seq);
        put_varint(out, entry.lsn - lsn);
        put_varint(out, u64::from(entry.len));
        (seq, lsn) = (entry.seq, entry.lsn);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes().first().copied().unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes().first().copied().unwrap_or(0));
}

fn varint(reader: &mut Reader<'_>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let octet = reader.u8()?;
        value |= u64::from(octet & 0x7F) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes a checkpoint under a temporary name, flushes it, names it. All of it is durable then.
pub(super) fn write(
    fs: &dyn FileSystem,
    dir: &Path,
    id: u64,
    octets: &[u8],
) -> Result<(), StorageError> {
    let path = checkpoint_path(dir, id);
    let temporary = dir.join(format!("{id:016x}.ckpt.tmp"));
    let named = write_temporary(fs, &temporary, octets)
        .and_then(|()| fs.rename(&temporary, &path).during("rename", &path));
    // The name must survive too.
    let written = named.and_then(|()| fs.sync_dir(dir).during("fsync", dir));
    if written.is_err() {
        // Gives the space back, whichever name it has; what cannot be removed now is removed at
        // the next start.
        drop((fs.remove(&temporary), fs.remove(&path)));
    }
    written
}

fn write_temporary(fs: &dyn FileSystem, path: &Path, octets: &[u8]) -> Result<(), StorageError> {
    let file = fs.create(path).during("create", path)?;
    write_full(&*file, 0, &[octets]).during("write", path)?;
    file.sync_data().during("fdatasync", path)
}

/// A checkpoint read back.
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) header: CheckpointHeader,
    pub(super) index: Index,
    /// What is wrong with it; `None` when it is sound.
    pub(super) damage: Option<String>,
}

/// Reads a checkpoint; `None` when not even its header is sound.
pub(super) fn read(file: &dyn File) -> std::io::Result<Option<Checkpoint>> {
    let mut octets = vec![0; to_usize(file.size()?)];
    let read = read_full(file, 0, &mut octets)?;
    octets.truncate(read);
    Ok(decode(&octets))
}

pub(super) fn decode(octets: &[u8]) -> Option<Checkpoint> {
    let mut reader = Reader::new(octets);
    if reader.take(8)? != MAGIC {
        return None;
    }
    let sealed = reader.u32()?;
    let mut fields = reader;
    if crc(&[reader.take(HEADER_LEN - 12)?]) != sealed {
        return None;
    }
    fields.u32()?;
    let node = NodeId(fields.node()?);
    let header = CheckpointHeader {
        node,
        id: fields.u64()?,
        lsn: fields.u64()?,
        next_file_id: fields.u64()?,
        next_segment_id: fields.u64()?,
        oldest_file_id: fields.u64()?,
    };
    let entry_count = fields.u64()?;
    let mut index = Index::default();
    let mut extents = Vec::new();
    let (mut sound, mut bad) = (0_u64, 0_u64);
    while let (Some(sealed), Some(payload)) = (reader.u32(), reader.sized()) {
        let read = (crc(&[payload]) == sealed).then(|| decode_entry(payload, &mut index));
        match read.flatten() {
            Some(found) => {
                sound += 1;
                extents.extend(found);
            }
            None => bad += 1,
        }
    }
    for (queue, mut extent) in extents {
        // Where the segment's own entry is damaged its length is not known; the file knows it.
        index.segments.entry(extent.segment).or_default();
        index.place_extent(queue, &mut extent);
    }
    let damage = (sound != entry_count)
        .then(|| format!("{sound} of {entry_count} entries are sound, {bad} fail their checksum"));
    Some(Checkpoint { header, index, damage })
}

/// Reads one entry into the index; the extents of a queue wait until all segments are known.
fn decode_entry(payload: &[u8], index: &mut Index) -> Option<Vec<(u64, Extent)>> {
    let mut reader = Reader::new(payload);
    match reader.u8()? {
        KIND_DEFINITION => {
            let key = reader.sized()?;
            let value = reader.sized()?;
            index.definitions.insert(key.into(), value.into());
            Some(Vec::new())
        }
        KIND_SEGMENT => {
            let (id, len) = (reader.u64()?, reader.u64()?);
            index.segments.insert(id, SegmentUse { len, ..SegmentUse::default() });
            Some(Vec::new())
        }
        KIND_QUEUE => decode_queue(&mut reader, index),
        _ => None,
    }
}

fn decode_queue(reader: &mut Reader<'_>, index: &mut Index) -> Option<Vec<(u64, Extent)>> {
    let id = reader.u64()?;
    let mut queue = QueueIndex {
        next_seq: reader.u64()?,
        spilled_below: reader.u64()?,
        delivered_below: reader.u64()?,
        ..QueueIndex::default()
    };
    for _ in 0..reader.u32()? {
        let seq = reader.u64()?;
        queue.returns.insert(seq, reader.u32()?);
    }
    let mut extents = Vec::new();
    for _ in 0..reader.u32()? {
        let (segment, offset) = (reader.u64()?, reader.u64()?);
        let (first, last) = (reader.u64()?, reader.u64()?);
        let (len, count) = (reader.u32()?, reader.u32()?);
        extents.push((id, Extent { segment, offset, len, count, live: count, first, last }));
    }
    queue.spilled = SeqSet::decode(reader.sized()?).ok()?;
    let entries = reader.u32()?;
    index.queues.insert(id, queue);
    let (mut seq, mut lsn) = (0_u64, 0_u64);
    for _ in 0..entries {
        seq = seq.checked_add(varint(reader)?)?;
        lsn = lsn.checked_add(varint(reader)?)?;
        // A record of no octets would be one that has gone.
        let len = u32::try_from(varint(reader)?).ok().filter(|len| *len > 0)?;
        index.enqueue(MessageRef { queue: id, seq }, lsn, len);
    }
    Some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (CheckpointHeader, Index) {
        let mut index = Index::default();
        index.definitions.insert((*b"vhost/").into(), (*b"{}").into());
        index.definitions.insert((*b"queue/a").into(), (*b"durable").into());
        for seq in [3, 4, 9] {
            index.enqueue(MessageRef { queue: 1, seq }, 1000 + seq * 8, 64);
        }
        index.enqueue(MessageRef { queue: 2, seq: 1 }, 5000, 64);
        let header = CheckpointHeader {
            node: NodeId([7; 16]),
            id: 3,
            lsn: 4096,
            next_file_id: 2,
            next_segment_id: 1,
            oldest_file_id: 0,
        };
        (header, index)
    }

    #[test]
    fn a_checkpoint_reads_back_what_lies_below_its_position() {
        let (header, index) = sample();
        let read = decode(&encode(&header, &index)).unwrap();
        assert_eq!(read.header, header);
        assert_eq!(read.damage, None);
        assert_eq!(read.index.definitions, index.definitions);
        assert_eq!(read.index.queues[&1].log, index.queues[&1].log);
        assert!(read.index.queues[&2].log.is_empty(), "5000 is above 4096");
        assert_eq!(read.index.next_seq(2), 1);
        assert_eq!(read.index.next_seq(1), 10);
    }

    #[test]
    fn any_flipped_bit_is_noticed_and_never_decoded_as_something_else() {
        let (header, index) = sample();
        let octets = encode(&header, &index);
        for bit in 0..octets.len() * 8 {
            let mut damaged = octets.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Some(read) = decode(&damaged) {
                assert!(read.damage.is_some(), "bit {bit}");
                for (key, value) in &read.index.definitions {
                    assert_eq!(index.definitions.get(key), Some(value), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn any_truncation_is_noticed() {
        let (header, index) = sample();
        let octets = encode(&header, &index);
        for len in 0..octets.len() {
            let read = decode(&octets[..len]);
            assert!(read.is_none_or(|read| read.damage.is_some()), "cut at {len}");
        }
    }
}
