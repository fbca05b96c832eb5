//! What a segment's file holds, however its messages got there, and that none is left half-made.

use super::super::fs::FileSystem;
use super::super::sim_fs::{Fault, Operation, SimFs};
use super::*;

const DIR: &str = "/seg";

fn disk() -> SimFs {
    let fs = SimFs::new();
    fs.create_dir(Path::new(DIR)).unwrap();
    fs
}

fn writer(fs: &SimFs, extent_len_max: usize) -> SegmentWriter<'_> {
    SegmentWriter::create(fs, Path::new(DIR), NodeId([3; 16]), 7, extent_len_max).unwrap()
}

fn message(seq: u64, body: &[u8]) -> StoredMessage<'_> {
    let head = b"head";
    StoredMessage { seq, flags: 2, head, body, content_crc: content_crc(head, body) }
}

#[test]
fn a_message_written_from_where_it_lies_gives_the_same_octets_as_one_that_was_gathered() {
    for body_len in [1, 999, 70_001] {
        let body = vec![9; body_len];
        let len = message(1, &body).encoded_len();
        let octets = |extent_len_max: usize| {
            let fs = disk();
            let mut writer = writer(&fs, extent_len_max);
            for seq in 1..4 {
                writer.push(1, &message(seq, &body)).unwrap();
            }
            let segment = writer.finish().unwrap();
            let octets = fs.octets(&segment_path(Path::new(DIR), 7)).unwrap();
            assert_eq!(segment.len, octets.len() as u64);
            (segment.extents, octets)
        };
        // One message fills an extent to the last octet, or goes beyond it.
        assert!(octets(len) == octets(len - 1), "bodies of {body_len}");
    }
}

#[test]
fn a_writer_that_fails_or_is_dropped_leaves_no_file() {
    let steps = [Operation::Write, Operation::SyncData, Operation::Rename, Operation::SyncDir];
    for failing in steps {
        let fs = disk();
        fs.set_hook(move |call| {
            (call.operation == failing).then_some(Fault::Error(io::ErrorKind::Other))
        });
        let mut writer = writer(&fs, 100);
        drop(writer.push(1, &message(1, b"small")));
        assert!(writer.finish().is_err(), "{failing:?}");
        assert_eq!(fs.files(), Vec::<PathBuf>::new(), "{failing:?}");
    }
    let fs = disk();
    writer(&fs, 100).push(1, &message(1, b"small")).unwrap();
    assert_eq!(fs.files(), Vec::<PathBuf>::new());
}
