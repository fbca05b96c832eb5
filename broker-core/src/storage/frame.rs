//! Headers of log files and of frames. A frame is one group commit.
//!
//! The one idea: a header names the file's id and its incarnation, a random number of this use of
//! the file, so that what an earlier use left behind in a recycled file is never taken for new.
//! The picture of the octets is at the head of [`storage`](super). No I/O here.

use super::octets::{Put, Reader, crc};
use super::{FORMAT_VERSION, NodeId};

/// Frames begin at multiples of this; so does the first one, after the file's header.
pub(super) const BLOCK_LEN: u64 = 4096;
/// Octets of a frame before its payload.
pub(super) const FRAME_HEADER_LEN: usize = 64;

const FILE_MAGIC: &[u8; 8] = b"WARRENWL";
const FRAME_MAGIC: &[u8; 4] = b"WFRM";
const FLAG_CONTINUES: u32 = 1;

/// The first block of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) version: u32,
    pub(super) node: NodeId,
    pub(super) file_id: u64,
    pub(super) incarnation: u64,
    /// Octets of the file, which never changes: a shorter one has been cut.
    pub(super) file_len: u64,
}

impl FileHeader {
    pub(super) fn new(node: NodeId, file_id: u64, incarnation: u64, file_len: u64) -> Self {
        Self { version: FORMAT_VERSION, node, file_id, incarnation, file_len }
    }

    /// The whole block.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(64);
        fields.put_u32(self.version);
        fields.put(&self.node.0);
        fields.put_u64(self.file_id);
        fields.put_u64(self.incarnation);
        fields.put_u64(self.file_len);
        let mut block = FILE_MAGIC.to_vec();
        block.put_u32(crc(&[&fields]));
        block.put(&fields);
        block.resize(super::octets::to_usize(BLOCK_LEN), 0);
        block
    }

    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(block);
        if reader.take(8)? != FILE_MAGIC {
            return None;
        }
        let sealed = reader.u32()?;
        let mut fields = reader;
        if crc(&[reader.take(44)?]) != sealed {
            return None;
        }
        Some(Self {
            version: fields.u32()?,
            node: NodeId(fields.node()?),
            file_id: fields.u64()?,
            incarnation: fields.u64()?,
            file_len: fields.u64()?,
        })
    }
}

/// The head of one group commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) file_id: u64,
    pub(super) incarnation: u64,
    /// Position of the first octet of the payload.
    pub(super) lsn: u64,
    /// Everything below was durable when this frame was made.
    pub(super) durable_lsn: u64,
    pub(super) payload_len: u32,
    pub(super) payload_crc: u32,
    pub(super) records: u32,
    /// The batch goes on in the next frame: this one counts only together with it.
    pub(super) continues: bool,
}

impl FrameHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Vec::with_capacity(FRAME_HEADER_LEN);
        fields.put_u32(self.payload_crc);
        fields.put_u32(self.payload_len);
        fields.put_u32(self.records);
        fields.put_u32(if self.continues { FLAG_CONTINUES } else { 0 });
        fields.put_u64(self.file_id);
        fields.put_u64(self.incarnation);
        fields.put_u64(self.lsn);
        fields.put_u64(self.durable_lsn);
        fields.put_u64(0);
        let mut header = FRAME_MAGIC.to_vec();
        header.put_u32(crc(&[&fields]));
        header.put(&fields);
        header
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(octets);
        if reader.take(4)? != FRAME_MAGIC {
            return None;
        }
        let sealed = reader.u32()?;
        let mut fields = reader;
        if crc(&[reader.take(FRAME_HEADER_LEN - 8)?]) != sealed {
            return None;
        }
        let payload_crc = fields.u32()?;
        let payload_len = fields.u32()?;
        let records = fields.u32()?;
        let continues = fields.u32()? & FLAG_CONTINUES != 0;
        Some(Self {
            payload_crc,
            payload_len,
            records,
            continues,
            file_id: fields.u64()?,
            incarnation: fields.u64()?,
            lsn: fields.u64()?,
            durable_lsn: fields.u64()?,
        })
    }

    /// Position behind the payload.
    pub(super) fn end(&self) -> u64 {
        self.lsn.saturating_add(u64::from(self.payload_len))
    }

    /// Octets of the frame in the file, padding included.
    pub(super) fn footprint(&self) -> u64 {
        footprint(u64::from(self.payload_len))
    }
}

/// Octets that a frame of this payload takes in its file.
pub(super) fn footprint(payload_len: u64) -> u64 {
    super::octets::align_up(FRAME_HEADER_LEN as u64 + payload_len, BLOCK_LEN)
}
