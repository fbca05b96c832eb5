//! What readers of segments share: extents in memory, and open files.
//!
//! The one idea: both are bounded for all queues together, and the oldest goes first. What is here
//! can be read from the disk again at any time, so dropping it is always right. Nothing that was
//! found damaged is treated differently: its extent says so.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::HashMap;

use super::engine::Engine;
use super::error::{IoContext, StorageError, is_out_of_means};
use super::fs::File;
use super::recovery::is_absent;
use super::segment::{ExtentOctets, segment_path};

impl Engine {
    /// Octets of segments in memory, for metrics; at most `cache_len`.
    #[must_use]
    pub fn cached_octets(&self) -> usize {
        self.cache.lock().used
    }

    pub(super) fn segment_path(&self, id: u64) -> PathBuf {
        segment_path(&self.paths.segments, id)
    }

    /// An open segment file; once one that is gone has been given up, nothing in its place.
    pub(super) fn segment_file(&self, id: u64) -> Result<Arc<dyn File>, StorageError> {
        if let Some(file) = self.cache.lock().files.get(&id) {
            return Ok(Arc::clone(file));
        }
        let path = self.segment_path(id);
        let file = match self.fs.open(&path) {
            Err(error) if is_out_of_means(&error) => {
                // Those that are held only to spare opening them again make room for this one.
                self.cache.lock().files.clear();
                self.fs.open(&path)
            }
            // What is removed has left the index before.
            Err(error) if is_absent(&error) && self.has_segment(id) => {
                self.bad_pages.open_gone(&path)
            }
            opened => opened,
        };
        let file = file.during("open", &path)?;
        let mut cache = self.cache.lock();
        if cache.files.len() >= self.options.open_segments {
            // Rare, and opening again costs a few microseconds.
            cache.files.clear();
        }
        cache.files.insert(id, Arc::clone(&file));
        Ok(file)
    }

    fn has_segment(&self, id: u64) -> bool {
        self.state.lock().index.segments.contains_key(&id)
    }
}

/// Extents in memory, and open files; both bounded.
pub(super) struct Cache {
    budget: usize,
    used: usize,
    extents: HashMap<(u64, u64), Arc<ExtentOctets>>,
    /// Oldest first.
    order: VecDeque<(u64, u64)>,
    files: HashMap<u64, Arc<dyn File>>,
}

impl Cache {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            used: 0,
            extents: HashMap::new(),
            order: VecDeque::new(),
            files: HashMap::new(),
        }
    }

    pub(super) fn get(&self, key: (u64, u64)) -> Option<Arc<ExtentOctets>> {
        self.extents.get(&key).cloned()
    }

    pub(super) fn insert(&mut self, key: (u64, u64), octets: Arc<ExtentOctets>) {
        if octets.len() > self.budget {
            return;
        }
        self.used += octets.len();
        if let Some(old) = self.extents.insert(key, octets) {
            self.used -= old.len();
        } else {
            self.order.push_back(key);
        }
        while self.used > self.budget
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(old) = self.extents.remove(&oldest) {
                self.used -= old.len();
            }
        }
    }

    /// Drops what belongs to a segment that is being removed.
    pub(super) fn forget_segment(&mut self, segment: u64) {
        self.files.remove(&segment);
        let mut freed = 0;
        self.extents.retain(|key, octets| {
            let stays = key.0 != segment;
            if !stays {
                freed += octets.len();
            }
            stays
        });
        self.order.retain(|key| key.0 != segment);
        self.used -= freed;
    }
}
