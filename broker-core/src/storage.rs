//! The durable store: opaque messages of queues, and definitions, in one log.
//!
//! The one idea: everything is one log, flushed in groups; a message that stays is moved out of the
//! log into sorted segments; a checkpoint says what lies where. The store knows no protocol and no
//! queue's behaviour: it keeps octets under (queue, number), acks, and key/value definitions,
//! atomically and in order, and gives the space back. What it deliberately does not do: decide who
//! gets a message, expire anything, replicate.
//!
//! Start reading at [`Store`], then [`Engine::append`], [`Engine::commit_step`],
//! [`Engine::maintain_step`], [`Engine::open`], [`Engine::read`].
//!
//! # The contract
//!
//! | | the process is killed | the machine loses power |
//! |---|---|---|
//! | batch below [`Engine::durable`] | there | there (`durability = os`: the last seconds may be lost) |
//! | batch appended, not yet durable | all of it or nothing, and nothing without all batches before | the same |
//! | ack, return, purge not yet durable | may be undone: the message comes back | the same |
//! | number of a message (`next_seq`) | above every number that survived | the same |
//! | damaged octets, pages that cannot be read | named, set aside in `quarantine/`, never delivered | the same |
//!
//! # What is assumed of the medium
//!
//! A sector of 512 octets is written whole or not at all. An unflushed write may arrive in part and
//! out of order. What was there when `fdatasync` returned success survives; after a failure nothing
//! is known about what was written since the last success. A name survives once its directory was
//! flushed. Anything may rot later, whatever was flushed, and a page of 4096 octets may become unreadable.
//!
//! # The files
//!
//! ```text
//! LOCK                       held (flock) while a broker runs; shared by tools that only look
//! FORMAT                     text: version, node id, CRC-32
//! BALLAST                    zeros, given up when a checkpoint finds the disk full
//! wal/<id>.wal               the log, wal_file_len octets each; ids have no gaps
//! wal/<number>.spare         files to be used again; the content means nothing
//! seg/<id>.seg               segments; .tmp while written, .moved while renamed
//! ckpt/<id>.ckpt             the two newest checkpoints; .tmp while written
//! quarantine/…               damaged files and ranges, each with a .txt
//! ```
//!
//! Ids in names are 16 hexadecimal digits. All numbers are little-endian. `crc` is CRC-32 (IEEE).
//! Unnamed octets are zero.
//!
//! ## Log file: header (one block of 4096), then frames, each beginning at a multiple of 4096
//!
//! | offset | len | file header |
//! |---:|---:|---|
//! | 0 | 8 | `WARRENWL` |
//! | 8 | 4 | crc of octets 12 to 56 |
//! | 12 | 4 | format version |
//! | 16 | 16 | node id |
//! | 32 | 8 | file id, as in the name |
//! | 40 | 8 | incarnation: a random number of this use of the file |
//! | 48 | 8 | octets of the file |
//!
//! | offset | len | frame: one group commit |
//! |---:|---:|---|
//! | 0 | 4 | `WFRM` |
//! | 4 | 4 | crc of octets 8 to 64 |
//! | 8 | 4 | crc of the payload |
//! | 12 | 4 | octets of the payload, at most the file's less 4160 |
//! | 16 | 4 | records in the payload |
//! | 20 | 4 | flags: 1 = the batch goes on in the next frame |
//! | 24 | 8 | file id |
//! | 32 | 8 | incarnation |
//! | 40 | 8 | position of the payload: octets of all payloads before, since the store was made |
//! | 48 | 8 | everything below this position was durable when the frame was made |
//! | 64 | | payload: records without gaps, then zeros to the next block |
//!
//! A frame without payload is a seal: it proves that the one before it was flushed.
//!
//! | offset | len | record |
//! |---:|---:|---|
//! | 0 | 4 | crc of the record's position (u64) and of octets 4 to the end of the items |
//! | 4 | 4 | octets of the record, a multiple of 8 |
//! | 8 | 1 | kind |
//! | 9 | 1 | flags of the message, the caller's |
//! | 12 | 4 | crc of head and body |
//! | 16 | 4 | items |
//! | 20 | 4 | octets of the head |
//! | 24 | 4 | octets of the body |
//! | 32 | 8 | queue, or 0 |
//! | 40 | 16 each | items: two u64 each |
//! | | | head, body, zeros to a multiple of 8 |
//!
//! | kind | record | items | head, body |
//! |---:|---|---|---|
//! | 1 | enqueue | (queue, number) of each target | the message's |
//! | 2 | ack | (first, last) of each range | |
//! | 3 | requeued | (first, last) of each range | |
//! | 4 | delivered | (last, 0) | |
//! | 5 | put definition | | key, value |
//! | 6 | delete definition | | key |
//! | 7 | delete queue | | |
//! | 8 | add segment | (id, octets of the file) | |
//! | 9 | drop segment | (id, 0) | |
//!
//! ## Segment: header, extents, footer, trailer
//!
//! | offset | len | file header, 64 octets |
//! |---:|---:|---|
//! | 0 | 8 | `WARRENSG` |
//! | 8 | 4 | crc of octets 12 to 40 |
//! | 12 | 4 | format version |
//! | 16 | 16 | node id |
//! | 32 | 8 | segment id |
//!
//! | offset | len | extent: messages of one queue |
//! |---:|---:|---|
//! | 0 | 4 | `WEXT` |
//! | 4 | 4 | crc of octets 8 to 48 |
//! | 8 | 4 | crc of the messages |
//! | 12 | 4 | octets of the messages |
//! | 16 | 8 | queue |
//! | 24 | 8 | lowest number |
//! | 32 | 8 | highest number |
//! | 40 | 4 | messages |
//! | 48 | | messages, ascending by number |
//!
//! | offset | len | message |
//! |---:|---:|---|
//! | 0 | 4 | crc of the queue (u64) and of octets 4 to 32 |
//! | 4 | 4 | octets of the message, a multiple of 8 |
//! | 8 | 4 | crc of head and body, as in the log |
//! | 12 | 4 | octets of the head |
//! | 16 | 4 | octets of the body |
//! | 20 | 4 | flags |
//! | 24 | 8 | number |
//! | 32 | | head, body, zeros to a multiple of 8 |
//!
//! The footer has 40 octets an extent: queue, lowest, highest, offset (u64 each), octets with
//! header, messages (u32 each). The trailer, the last 48 octets of the file:
//!
//! | offset | len | trailer |
//! |---:|---:|---|
//! | 0 | 8 | `WARRENSF` |
//! | 8 | 4 | crc of octets 12 to 48 |
//! | 12 | 4 | crc of the footer |
//! | 16 | 8 | segment id |
//! | 24 | 8 | offset of the footer |
//! | 32 | 8 | octets of the footer |
//!
//! ## Checkpoint: header, entries
//!
//! | offset | len | header, 96 octets |
//! |---:|---:|---|
//! | 0 | 8 | `WARRENCP` |
//! | 8 | 4 | crc of octets 12 to 96 |
//! | 12 | 4 | format version |
//! | 16 | 16 | node id |
//! | 32 | 8 | checkpoint id |
//! | 40 | 8 | position: replay begins here |
//! | 48 | 8 | next id of a log file |
//! | 56 | 8 | next id of a segment |
//! | 64 | 8 | id of the oldest log file |
//! | 72 | 8 | entries |
//! | 80 | 8 | octets of the file |
//!
//! An entry: crc of the rest after the length (u32), length (u32), kind (u8), fields. `sized` is a
//! u32 length and as many octets; `varint` is seven bits an octet, lowest first.
//!
//! | kind | entry | fields |
//! |---:|---|---|
//! | 1 | definition | sized key, sized value |
//! | 2 | segment | id u64, octets of the file u64 |
//! | 3 | queue | id, next number, numbers below this have left the log, numbers below this may have been delivered (u64 each); returns: u32, then (number u64, times u32) each; extents: u32, then (segment, offset, lowest, highest u64, octets, messages u32) each; sized set of live numbers in extents (a roaring treemap in its portable form); live messages in the log: u32, then varints each: number and position, both less those of the one before, octets of the record |
//!
//! # History of the format
//!
//! | version | change |
//! |---:|---|
//! | 1 | the first |

mod bad_pages;
mod batch;
mod cache;
mod checkpoint;
mod commit;
mod damage;
mod engine;
mod error;
mod format_file;
mod frame;
mod fs;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod log;
mod maintenance;
mod octets;
mod options;
mod payload;
mod progress;
mod read;
mod read_only;
mod record;
mod recovery;
mod replay;
mod scan;
mod scrub;
mod segment;
mod seq_set;
#[cfg(any(test, feature = "simulation"))]
pub mod sim_fs;
mod spill;
mod store;
mod tools;

use std::fmt;

pub use batch::{Batch, MessageRef, SeqRange};
pub use commit::CommitStep;
pub use damage::{Damage, LostMessages};
pub use engine::{Counters, Engine, Health, Waker};
pub use error::StorageError;
pub use fs::{File, FileSystem, Lock, StdFs};
pub use options::{Durability, Options};
pub use progress::{OnProgress, OpenPhase, OpenProgress};
pub use read::{Message, MessageBlock};
pub use recovery::{Definition, Recovered, RecoveredQueue};
pub use seq_set::SeqSet;
pub use store::Store;
pub use tools::{
    CheckpointReport, FileReport, Inspection, Progress, inspect, must_be_free, repair, verify,
};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// A position in the log, counted in octets of records since the store was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// The beginning: what has this position is durable already, or has nothing to be durable for.
    pub const START: Self = Self(0);
    /// Beyond every position: what has this one was not appended and is never durable.
    pub const NEVER: Self = Self(u64::MAX);
}

/// Which store this is: a random number, made once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0 {
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

impl NodeId {
    /// Reads 32 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then_some(())?;
        let number = u128::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}
