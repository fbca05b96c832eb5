//! Segments: immutable files of messages sorted by queue and number.
//!
//! The one idea: a segment explains itself. Each extent has its own header, each message its own
//! checksums, and the footer repeats where the extents lie; when footer and manifest are lost, a
//! walk over the file finds the extents again. A segment is written to a temporary name, flushed,
//! and renamed, so a half-made one is never mistaken for a damaged one. The picture of the octets
//! is at the head of [`storage`](super).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{IoContext, StorageError};
use super::fs::{File, FileSystem, read_exact, read_full, read_up_to, write_full};
use super::index::{Extent, NewSegment};
use super::octets::{Put, Reader, align_up, crc, len_u32, to_usize};
use super::record::content_crc;
use super::{FORMAT_VERSION, NodeId, SeqRange};

const FILE_MAGIC: &[u8; 8] = b"WARRENSG";
pub(super) const FILE_HEADER_LEN: u64 = 64;
const EXTENT_MAGIC: &[u8; 4] = b"WEXT";
pub(super) const EXTENT_HEADER_LEN: usize = 48;
pub(super) const MESSAGE_HEADER_LEN: usize = 32;
const FOOTER_MAGIC: &[u8; 8] = b"WARRENSF";
pub(super) const TRAILER_LEN: u64 = 48;
const FOOTER_ENTRY_LEN: usize = 40;
/// Octets gathered before a write.
const WRITE_LEN: usize = 1 << 20;

/// A message to be written, or read back.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredMessage<'a> {
    pub(super) seq: u64,
    pub(super) flags: u8,
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) content_crc: u32,
}

impl<'a> StoredMessage<'a> {
    /// Octets in an extent.
    pub(super) fn encoded_len(&self) -> usize {
        let len = MESSAGE_HEADER_LEN + self.head.len() + self.body.len();
        to_usize(align_up(len as u64, 8))
    }

    pub(super) fn encode(&self, queue: u64, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode_header(queue, out);
        out.put(self.head);
        out.put(self.body);
        out.resize(start + self.encoded_len(), 0);
    }

    fn encode_header(&self, queue: u64, out: &mut Vec<u8>) {
        let mut fields = Vec::with_capacity(MESSAGE_HEADER_LEN);
        fields.put_u32(len_u32(self.encoded_len()));
        fields.put_u32(self.content_crc);
        fields.put_u32(len_u32(self.head.len()));
        fields.put_u32(len_u32(self.body.len()));
        fields.put_u32(u32::from(self.flags));
        fields.put_u64(self.seq);
        out.put_u32(crc(&[&queue.to_le_bytes(), &fields]));
        out.put(&fields);
    }

    /// Reads the message at the front of `octets`; `None` when its header is not sound.
    pub(super) fn decode(octets: &'a [u8], queue: u64) -> Option<(Self, usize)> {
        let mut reader = Reader::new(octets);
        let sealed = reader.u32()?;
        let mut fields = reader;
        let header = reader.take(MESSAGE_HEADER_LEN - 4)?;
        if sealed != crc(&[&queue.to_le_bytes(), header]) {
            return None;
        }
        let len = to_usize(u64::from(fields.u32()?));
        let content_crc = fields.u32()?;
        let head_len = fields.u32()?;
        let body_len = fields.u32()?;
        let flags = u8::try_from(fields.u32()?).ok()?;
        let seq = fields.u64()?;
        let head = reader.take(to_usize(u64::from(head_len)))?;
        let body = reader.take(to_usize(u64::from(body_len)))?;
        let message = Self { seq, flags, head, body, content_crc };
        (message.encoded_len() == len && len <= octets.len()).then_some((message, len))
    }

    pub(super) fn content_is_sound(&self) -> bool {
        content_crc(self.head, self.body) == self.content_crc
    }
}

/// Writes one segment. Messages come sorted by queue and number. A writer that is dropped before
/// the segment is finished takes its file away again.
pub(super) struct SegmentWriter<'a> {
    fs: &'a dyn FileSystem,
    dir: PathBuf,
    id: u64,
    file: Arc<dyn File>,
    /// The name that the file has now.
    path: PathBuf,
    is_finished: bool,
    extent_len_max: usize,
    /// Octets not written yet, from `written` on.
    buffer: Vec<u8>,
    written: u64,
    open: Option<OpenExtent>,
    extents: Vec<(u64, Extent)>,
}

struct OpenExtent {
    queue: u64,
    first: u64,
    last: u64,
    count: u32,
    payload: Vec<u8>,
}

/// The path of segment `id`.
pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.seg"))
}

impl<'a> SegmentWriter<'a> {
    pub(super) fn create(
        fs: &'a dyn FileSystem,
        dir: &Path,
        node: NodeId,
        id: u64,
        extent_len_max: usize,
    ) -> Result<Self, StorageError> {
        let path = dir.join(format!("{id:016x}.seg.tmp"));
        let file = fs.create(&path).during("create", &path)?;
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            id,
            file,
            path,
            is_finished: false,
            extent_len_max,
            buffer: file_header(node, id),
            written: 0,
            open: None,
            extents: Vec::new(),
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.extents.is_empty()
    }

    /// Appends a message.
    pub(super) fn push(
        &mut self,
        queue: u64,
        message: &StoredMessage<'_>,
    ) -> Result<(), StorageError> {
        let len = message.encoded_len();
        let fits = self.open.as_ref().is_some_and(|open| {
            open.queue == queue && open.payload.len() + len <= self.extent_len_max
        });
        if !fits {
            self.cut()?;
        }
        if len > self.extent_len_max {
            return self.push_alone(queue, message);
        }
        let open = self.open.get_or_insert_with(|| OpenExtent {
            queue,
            first: message.seq,
            last: message.seq,
            count: 0,
            payload: Vec::new(),
        });
        debug_assert!(open.count == 0 || open.last < message.seq, "messages come in order");
        open.last = message.seq;
        open.count += 1;
        message.encode(queue, &mut open.payload);
        Ok(())
    }

    /// Writes a message that fills an extent of its own, from where it lies: it may be large.
    fn push_alone(&mut self, queue: u64, message: &StoredMessage<'_>) -> Result<(), StorageError> {
        let mut front = Vec::with_capacity(MESSAGE_HEADER_LEN);
        message.encode_header(queue, &mut front);
        let len = MESSAGE_HEADER_LEN + message.head.len() + message.body.len();
        let padding = [0; 8];
        let padding = padding.get(..message.encoded_len() - len).unwrap_or_default();
        let parts = [&front, message.head, message.body, padding];
        let (first, last) = (message.seq, message.seq);
        let open = OpenExtent { queue, first, last, count: 1, payload: Vec::new() };
        self.begin_extent(&open, &parts);
        self.write(&parts)
    }

    /// Ends the extent, so that the next message begins another.
    pub(super) fn cut(&mut self) -> Result<(), StorageError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        self.begin_extent(&open, &[&open.payload]);
        self.buffer.put(&open.payload);
        if self.buffer.len() >= WRITE_LEN {
            self.write(&[])?;
        }
        Ok(())
    }

    /// Notes an extent whose messages are `parts` in a row, and puts its header into the buffer.
    fn begin_extent(&mut self, open: &OpenExtent, parts: &[&[u8]]) {
        let offset = self.written + self.buffer.len() as u64;
        let payload_len = parts.iter().map(|part| part.len()).sum();
        let header = ExtentHeader {
            queue: open.queue,
            first: open.first,
            last: open.last,
            count: open.count,
            payload_len: len_u32(payload_len),
            payload_crc: crc(parts),
        };
        self.extents.push((
            open.queue,
            Extent {
                segment: self.id,
                offset,
                len: len_u32(EXTENT_HEADER_LEN + payload_len),
                count: open.count,
                live: open.count,
                first: open.first,
                last: open.last,
            },
        ));
        self.buffer.put(&header.encode());
    }

    /// Writes the buffer, and `parts` behind it.
    fn write(&mut self, parts: &[&[u8]]) -> Result<(), StorageError> {
        let all = [&[self.buffer.as_slice()], parts].concat();
        write_full(&*self.file, self.written, &all).during("write", &self.path)?;
        self.written += all.iter().map(|part| part.len() as u64).sum::<u64>();
        self.buffer.clear();
        Ok(())
    }

    /// Writes the footer, flushes, and gives the file its name. The name is durable too.
    pub(super) fn finish(mut self) -> Result<NewSegment, StorageError> {
        self.cut()?;
        let footer = encode_footer(&self.extents);
        let footer_offset = self.written + self.buffer.len() as u64;
        let trailer = Trailer { id: self.id, footer_offset, footer_len: footer.len() as u64 };
        self.buffer.put(&footer);
        self.buffer.put(&trailer.encode(crc(&[&footer])));
        self.write(&[])?;
        self.file.sync_data().during("fdatasync", &self.path)?;
        let path = segment_path(&self.dir, self.id);
        self.fs.rename(&self.path, &path).during("rename", &path)?;
        self.path = path;
        // The name must survive too.
        self.fs.sync_dir(&self.dir).during("fsync", &self.dir)?;
        self.is_finished = true;
        Ok(NewSegment {
            id: self.id,
            len: self.written,
            extents: std::mem::take(&mut self.extents),
        })
    }
}

impl Drop for SegmentWriter<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            // A failure is left to the next start, which removes what no record names.
            drop(self.fs.remove(&self.path));
        }
    }
}

fn file_header(node: NodeId, id: u64) -> Vec<u8> {
    let mut fields = Vec::new();
    fields.put_u32(FORMAT_VERSION);
    fields.put(&node.0);
    fields.put_u64(id);
    let mut header = FILE_MAGIC.to_vec();
    header.put_u32(crc(&[&fields]));
    header.put(&fields);
    header.resize(to_usize(FILE_HEADER_LEN), 0);
    header
}

/// The id in a segment's first octets, when they are sound.
fn decode_file_header(octets: &[u8]) -> Option<(u32, NodeId, u64)> {
    let mut reader = Reader::new(octets);
    if reader.take(8)? != FILE_MAGIC {
        return None;
    }
    let sealed = reader.u32()?;
    let mut fields = reader;
    if crc(&[reader.take(28)?]) != sealed {
        return None;
    }
    Some((fields.u32()?, NodeId(fields.node()?), fields.u64()?))
}

#[derive(Clone, Copy, Debug)]
struct ExtentHeader {
    queue: u64,
    first: u64,
    last: u64,
    count: u32,
    payload_len: u32,
    payload_crc: u32,
}

impl ExtentHeader {
    fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(EXTENT_HEADER_LEN);
        fields.put_u32(self.payload_crc);
        fields.put_u32(self.payload_len);
        fields.put_u64(self.queue);
        fields.put_u64(self.first);
        fields.put_u64(self.last);
        fields.put_u32(self.count);
        fields.put_u32(0);
        let mut header = EXTENT_MAGIC.to_vec();
        header.put_u32(crc(&[&fields]));
        header.put(&fields);
        header
    }

    fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        if reader.take(4)? != EXTENT_MAGIC {
            return None;
        }
        let sealed = reader.u32()?;
        let mut fields = reader;
        if crc(&[reader.take(EXTENT_HEADER_LEN - 8)?]) != sealed {
            return None;
        }
        let payload_crc = fields.u32()?;
        let payload_len = fields.u32()?;
        Some(Self {
            payload_crc,
            payload_len,
            queue: fields.u64()?,
            first: fields.u64()?,
            last: fields.u64()?,
            count: fields.u32()?,
        })
    }
}

fn encode_footer(extents: &[(u64, Extent)]) -> Vec<u8> {
    let mut footer = Vec::with_capacity(extents.len() * FOOTER_ENTRY_LEN);
    for (queue, extent) in extents {
        footer.put_u64(*queue);
        footer.put_u64(extent.first);
        footer.put_u64(extent.last);
        footer.put_u64(extent.offset);
        footer.put_u32(extent.len);
        footer.put_u32(extent.count);
    }
    footer
}

fn decode_footer(id: u64, footer: &[u8]) -> Option<Vec<(u64, Extent)>> {
    let mut reader = Reader::new(footer);
    let mut extents = Vec::with_capacity(footer.len() / FOOTER_ENTRY_LEN);
    while reader.remaining() > 0 {
        let queue = reader.u64()?;
        let (first, last, offset) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (len, count) = (reader.u32()?, reader.u32()?);
        extents.push((queue, Extent { segment: id, offset, len, count, live: count, first, last }));
    }
    Some(extents)
}

#[derive(Clone, Copy, Debug)]
struct Trailer {
    id: u64,
    footer_offset: u64,
    footer_len: u64,
}

impl Trailer {
    fn encode(&self, footer_crc: u32) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.put_u32(footer_crc);
        fields.put_u64(self.id);
        fields.put_u64(self.footer_offset);
        fields.put_u64(self.footer_len);
        fields.put_u64(0);
        let mut trailer = FOOTER_MAGIC.to_vec();
        trailer.put_u32(crc(&[&fields]));
        trailer.put(&fields);
        trailer
    }

    fn decode(octets: &[u8]) -> Option<(Self, u32)> {
        let mut reader = Reader::new(octets);
        if reader.take(8)? != FOOTER_MAGIC {
            return None;
        }
        let sealed = reader.u32()?;
        let mut fields = reader;
        if crc(&[reader.take(36)?]) != sealed {
            return None;
        }
        let footer_crc = fields.u32()?;
        let trailer =
            Self { id: fields.u64()?, footer_offset: fields.u64()?, footer_len: fields.u64()? };
        Some((trailer, footer_crc))
    }
}

/// What the ends of a segment file say.
#[derive(Debug)]
pub(super) struct SegmentFooter {
    /// The id in the file, which a swapped file's name contradicts.
    pub(super) id: u64,
    pub(super) node: NodeId,
    pub(super) extents: Vec<(u64, Extent)>,
}

/// Reads header and footer. `Ok(None)` when either is not sound.
pub(super) fn read_footer(file: &dyn File) -> io::Result<Option<SegmentFooter>> {
    let len = file.size()?;
    let Some(trailer_offset) = len.checked_sub(TRAILER_LEN) else {
        return Ok(None);
    };
    let mut header = vec![0; to_usize(FILE_HEADER_LEN)];
    if read_full(file, 0, &mut header)? < header.len() {
        return Ok(None);
    }
    let mut trailer = vec![0; to_usize(TRAILER_LEN)];
    read_exact(file, trailer_offset, &mut trailer)?;
    let (Some((_, node, id)), Some((trailer, footer_crc))) =
        (decode_file_header(&header), Trailer::decode(&trailer))
    else {
        return Ok(None);
    };
    if trailer.id != id
        || trailer.footer_offset.checked_add(trailer.footer_len) != Some(trailer_offset)
    {
        return Ok(None);
    }
    let mut footer = vec![0; to_usize(trailer.footer_len)];
    read_exact(file, trailer.footer_offset, &mut footer)?;
    if crc(&[&footer]) != footer_crc {
        return Ok(None);
    }
    Ok(decode_footer(id, &footer).map(|extents| SegmentFooter { id, node, extents }))
}

/// Finds the extents without the footer: header after header, and after damage by looking at each
/// possible place. Only headers are checked; reading an extent checks the rest.
pub(super) fn walk_extents(file: &dyn File, id: u64) -> io::Result<Vec<(u64, Extent)>> {
    let len = file.size()?;
    let mut extents = Vec::new();
    let mut offset = FILE_HEADER_LEN;
    let mut header = [0; EXTENT_HEADER_LEN];
    while offset + EXTENT_HEADER_LEN as u64 <= len {
        read_exact(file, offset, &mut header)?;
        let found = ExtentHeader::decode(&header).filter(|found| {
            offset + EXTENT_HEADER_LEN as u64 + u64::from(found.payload_len) <= len
        });
        let Some(found) = found else {
            offset += 8;
            continue;
        };
        let extent_len = len_u32(EXTENT_HEADER_LEN).saturating_add(found.payload_len);
        extents.push((
            found.queue,
            Extent {
                segment: id,
                offset,
                len: extent_len,
                count: found.count,
                live: found.count,
                first: found.first,
                last: found.last,
            },
        ));
        offset += u64::from(extent_len);
    }
    Ok(extents)
}

/// One extent in memory: octets and where the messages lie in them.
#[derive(Debug)]
pub(super) struct ExtentOctets {
    octets: Vec<u8>,
    queue: u64,
    /// Offset of each sound message, with its number.
    messages: Vec<(u64, usize)>,
    /// Messages that fail their checksum, ascending.
    pub(super) lost: Vec<SeqRange>,
}

impl ExtentOctets {
    /// Reads an extent and checks it. When its checksum fails, each message is judged by its own.
    pub(super) fn read(file: &dyn File, queue: u64, extent: &Extent) -> io::Result<Self> {
        let mut octets = Vec::new();
        read_up_to(file, extent.offset, u64::from(extent.len), &mut octets)?;
        let is_sound = ExtentHeader::decode(&octets).is_some_and(|header| {
            let payload = octets.get(EXTENT_HEADER_LEN..).unwrap_or_default();
            header.queue == queue
                && header.first == extent.first
                && header.payload_len as usize == payload.len()
                && header.payload_crc == crc(&[payload])
        });
        let mut found = Self { octets, queue, messages: Vec::new(), lost: Vec::new() };
        found.walk(extent, is_sound);
        Ok(found)
    }

    fn walk(&mut self, extent: &Extent, is_sound: bool) {
        let mut offset = EXTENT_HEADER_LEN;
        // The lowest number that has not been seen or named lost.
        let mut expected = extent.first;
        while offset < self.octets.len() {
            let rest = self.octets.get(offset..).unwrap_or_default();
            let within = |seq: u64| (expected..=extent.last).contains(&seq);
            match StoredMessage::decode(rest, self.queue) {
                Some((message, len)) if within(message.seq) => {
                    if is_sound || message.content_is_sound() {
                        self.messages.push((message.seq, offset));
                    } else {
                        self.lost.push(SeqRange::one(message.seq));
                    }
                    expected = message.seq.saturating_add(1);
                    offset += len;
                }
                _ => offset += 8,
            }
        }
        if is_sound {
            return;
        }
        // What lies between two sound messages, or after the last, was lost with its header.
        let mut seen: Vec<u64> = self.messages.iter().map(|(seq, _)| *seq).collect();
        seen.extend(self.lost.iter().map(|range| range.first));
        seen.sort_unstable();
        let mut next = extent.first;
        for seq in seen {
            if seq > next {
                self.lost.push(SeqRange { first: next, last: seq - 1 });
            }
            next = seq.saturating_add(1);
        }
        if next <= extent.last {
            self.lost.push(SeqRange { first: next, last: extent.last });
        }
        self.lost.sort_unstable();
    }

    /// Whether a message is not sound.
    pub(super) fn has_lost(&self, seq: u64) -> bool {
        let after = self.lost.partition_point(|range| range.last < seq);
        self.lost.get(after).is_some_and(|range| range.first <= seq)
    }

    /// Octets held.
    pub(super) fn len(&self) -> usize {
        self.octets.len() + self.messages.len() * 16
    }

    /// All octets, for quarantine.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    pub(super) fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    /// The sound messages from number `first` on, in order, each with the offset of its head.
    pub(super) fn messages_from(
        &self,
        first: u64,
    ) -> impl Iterator<Item = (StoredMessage<'_>, usize)> {
        let from = self.messages.partition_point(|(seq, _)| *seq < first);
        let places = self.messages.get(from..).unwrap_or_default();
        places.iter().filter_map(|(_, offset)| {
            let (message, _) = StoredMessage::decode(self.octets.get(*offset..)?, self.queue)?;
            Some((message, offset + MESSAGE_HEADER_LEN))
        })
    }
}

#[cfg(test)]
mod tests;
