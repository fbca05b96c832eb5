//! Segments whose file is gone while the store runs: somebody has removed it, or it was never brought back.
//!
//! The one idea: such a file is one large bad page. It is in doubt for as long, and then reads as empty; but what lived
//! in it is known from the index, so it is named at once and in one line. It is gone only where its directory is still
//! there: a file system that was taken away altogether takes nothing with it. A log file is not looked for: it is open
//! as long as it is needed, and can be read without its name.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::damage::Damage;
use super::super::engine::Engine;
use super::super::fs::File;
use super::super::recovery::{id_of, is_absent, lost_behind};
use super::{BadPages, GivenUp, InDoubt, Verdict, first_verdict};

impl BadPages {
    /// Whether a file is gone and given up.
    pub(in crate::storage) fn is_gone(&self, path: &Path) -> bool {
        self.gone.lock().get(path) == Some(&Verdict::GivenUp)
    }

    /// In place of a file that is needed and was not there: nothing, once it is given up.
    ///
    /// # Errors
    /// That it is in doubt.
    pub(in crate::storage) fn open_gone(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let first = first_verdict(&self.is_in_time);
        match *self.gone.lock().entry(path.to_owned()).or_insert(first) {
            Verdict::InDoubt { .. } => Err(io::Error::other(InDoubt::File)),
            Verdict::GivenUp => Ok(Arc::new(Nothing)),
        }
    }

    /// From now on nothing is in the place of a file.
    pub(super) fn give_up_file(&self, path: &Path) {
        self.gone.lock().insert(path.to_owned(), Verdict::GivenUp);
    }

    /// Looks again for files that are gone; answers those that are to be given up now.
    pub(super) fn look_again(&self, elapsed: Duration) -> Vec<GivenUp> {
        let mut gone = self.gone.lock();
        let due =
            gone.iter_mut().filter_map(|(path, gone)| Some((path.clone(), gone.due(elapsed)?)));
        let due: Vec<(PathBuf, u32)> = due.collect();
        drop(gone);
        let mut given_up = Vec::new();
        let mut dirs = BTreeMap::<PathBuf, bool>::new();
        for (path, failed) in due {
            match self.disk.open_to_read(&path) {
                Ok(_) => drop(self.gone.lock().remove(&path)),
                Err(error) if is_absent(&error) => {
                    let dir = path.parent().unwrap_or(&path);
                    let has_dir = dirs.entry(dir.to_owned());
                    if !*has_dir.or_insert_with_key(|dir| self.disk.list(dir).is_ok()) {
                        continue;
                    }
                    match Verdict::after(failed) {
                        Verdict::GivenUp => given_up.push(GivenUp::File(path)),
                        verdict => drop(self.gone.lock().insert(path, verdict)),
                    }
                }
                // Any other failure does not say that it is gone.
                Err(_) => {}
            }
        }
        given_up
    }
}

/// What is left of a file that is gone.
#[derive(Debug)]
struct Nothing;

impl File for Nothing {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _offset: u64, _parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Engine {
    /// Names all that lives in a segment whose file is gone, and then lets readers go on without it: who went on
    /// before would name it in parts.
    pub(super) fn give_up_segment(&self, path: &Path) {
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(|name| id_of(name, ".seg"));
        let mut damage = Damage::new(self.paths.relative(path), "the file is gone; it is given up");
        damage.lost = id.map(|id| lost_behind(&self.state.lock().index, id, 0)).unwrap_or_default();
        // It may have been emptied meanwhile.
        if !damage.lost.is_empty() {
            self.settle(damage);
        }
        self.bad_pages.give_up_file(path);
    }
}
