//! The file `FORMAT`: which version wrote the directory, and which store it is.
//!
//! A few lines of text, so that a person looking into the directory learns what it is.

use std::path::Path;

use super::error::{IoContext, StorageError};
use super::fs::{FileSystem, read_full, write_full};
use super::octets::{crc, to_usize};
use super::{FORMAT_VERSION, NodeId};

const NAME: &str = "FORMAT";
const TEMPORARY: &str = "FORMAT.tmp";
/// More than it ever is; what is longer is not ours.
const LEN_MAX: u64 = 4096;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Missing,
    Damaged,
    Sound { version: u32, node: NodeId },
}

pub(super) fn text(node: NodeId) -> String {
    let body = format!("warren store\nversion {FORMAT_VERSION}\nnode {node}\n");
    let sealed = crc(&[body.as_bytes()]);
    format!("{body}crc {sealed:08x}\n")
}

pub(super) fn parse(text: &str) -> Option<(u32, NodeId)> {
    let (body, seal) = text.strip_suffix('\n')?.rsplit_once('\n')?;
    let sealed = u32::from_str_radix(seal.strip_prefix("crc ")?, 16).ok()?;
    if crc(&[body.as_bytes(), b"\n"]) != sealed {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != "warren store" {
        return None;
    }
    let version = lines.next()?.strip_prefix("version ")?.parse().ok()?;
    let node = NodeId::parse(lines.next()?.strip_prefix("node ")?)?;
    Some((version, node))
}

pub(super) fn read(fs: &dyn FileSystem, root: &Path) -> Result<Found, StorageError> {
    let path = root.join(NAME);
    let file = match fs.open(&path) {
        Ok(file) => file,
        Err(error) if super::recovery::is_absent(&error) => return Ok(Found::Missing),
        Err(error) => return Err(error).during("open", &path),
    };
    let len = file.size().during("stat", &path)?.min(LEN_MAX);
    let mut octets = vec![0; to_usize(len)];
    let read = read_full(&*file, 0, &mut octets).during("read", &path)?;
    octets.truncate(read);
    let found = std::str::from_utf8(&octets).ok().and_then(parse);
    match found {
        Some((found, _)) if found > FORMAT_VERSION => {
            Err(StorageError::NewerFormat { path, found, supported: FORMAT_VERSION })
        }
        Some((version, node)) => Ok(Found::Sound { version, node }),
        None => Ok(Found::Damaged),
    }
}

/// Writes the file; it is durable then.
pub(super) fn write(fs: &dyn FileSystem, root: &Path, node: NodeId) -> Result<(), StorageError> {
    let (path, temporary) = (root.join(NAME), root.join(TEMPORARY));
    let file = fs.create(&temporary).during("create", &temporary)?;
    write_full(&*file, 0, &[text(node).as_bytes()]).during("write", &temporary)?;
    file.sync_data().during("fdatasync", &temporary)?;
    fs.rename(&temporary, &path).during("rename", &path)?;
    // The name must survive too.
    fs.sync_dir(root).during("fsync", root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_reads_back_and_no_changed_octet_does() {
        let node = NodeId([0xAB; 16]);
        let text = text(node);
        assert_eq!(parse(&text), Some((FORMAT_VERSION, node)));
        for at in 0..text.len() {
            let mut octets = text.clone().into_bytes();
            octets[at] ^= 1;
            let changed = String::from_utf8(octets).unwrap();
            assert_eq!(parse(&changed), None, "octet {at}");
        }
    }
}
