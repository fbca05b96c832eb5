//! Reading segments again in the background, so that rot is found before somebody needs the message.
//!
//! The one idea: one pass goes through the segments by id and through the extents of each by
//! offset, and never faster than a rate; it holds the extents of one segment and nothing more, so
//! segments that come and go meanwhile cost nothing. What fails its checksum is treated as a read
//! treats it: named, kept in quarantine, given up. A page that cannot be read is in doubt and tried
//! again ([`bad_pages`](super::bad_pages)); a file that cannot be read at all is reported once and not given up; what
//! cannot even be opened, for want of a file handle, waits for the next pass. Time comes in as an argument; nothing
//! here goes through the cache of readers. The log is left out: it is read at every start, and turned over by spilling.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::damage::Damage;
use super::engine::Engine;
use super::error::IoContext;
use super::index::Extent;
use super::segment::{ExtentOctets, read_footer};

/// What the `scrubbing` lock guards.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    allowance: Allowance,
    /// Time since the latest pass began; `None` before the first.
    age: Option<Duration>,
    /// The pass under way.
    pass: Option<Pass>,
    /// Segments that were reported as a whole, so that the next pass does not do so again.
    reported: BTreeSet<u64>,
}

#[derive(Debug, Default)]
struct Pass {
    /// Segments below are done, or being read.
    next_segment: u64,
    /// What is left to be read of the segment before, by offset, each with its queue.
    extents: VecDeque<(u64, Extent)>,
}

/// Octets that may be read. An extent is read whole, so the last one may be owed.
#[derive(Debug, Default)]
struct Allowance {
    left: u64,
    owed: u64,
}

impl Allowance {
    /// Adds what `elapsed` is worth. No more than a second's worth is saved up.
    fn earn(&mut self, elapsed: Duration, rate: u64) {
        let earned =
            u128::from(rate).saturating_mul(elapsed.as_nanos()) / Duration::from_secs(1).as_nanos();
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        let paid = earned.min(self.owed);
        self.owed -= paid;
        self.left = self.left.saturating_add(earned - paid).min(rate);
    }

    fn spend(&mut self, octets: u64) {
        self.owed = self.owed.saturating_add(octets.saturating_sub(self.left));
        self.left = self.left.saturating_sub(octets);
    }
}

impl Engine {
    /// Reads some extents of segments again and reports what is damaged in them; answers the octets
    /// that were read. `elapsed` is the time since the last call, and is worth that much of
    /// `scrub_rate`; more than a second is worth a second.
    ///
    /// Damage is in [`damage`](Self::damage), as after a read. A pass begins with the first call,
    /// and after that when the last one has ended and `scrub_interval` is over since it began.
    pub fn scrub_step(&self, elapsed: Duration) -> u64 {
        let rate = self.options.scrub_rate;
        if rate == 0 {
            return 0;
        }
        let mut scrub = self.scrubbing.lock();
        scrub.allowance.earn(elapsed, rate);
        scrub.age = scrub.age.map(|age| age.saturating_add(elapsed));
        let is_due = scrub.age.is_none_or(|age| age >= self.options.scrub_interval);
        if scrub.pass.is_none() {
            if !is_due {
                return 0;
            }
            scrub.age = Some(Duration::ZERO);
            scrub.pass = Some(Pass::default());
            let segments = &self.state.lock().index.segments;
            scrub.reported.retain(|id| segments.contains_key(id));
        }
        let mut octets = 0;
        while scrub.allowance.left > 0 {
            let Some(read) = self.scrub_next(&mut scrub) else {
                scrub.pass = None;
                self.counters.lock().scrubs += 1;
                break;
            };
            scrub.allowance.spend(read);
            octets += read;
        }
        drop(scrub);
        self.counters.lock().scrubbed_octets += octets;
        octets
    }

    /// Reads the next extent, or the ends of the next segment; `None` behind the last one.
    fn scrub_next(&self, scrub: &mut Scrub) -> Option<u64> {
        let Scrub { pass, reported, .. } = scrub;
        let pass = pass.as_mut()?;
        if let Some((queue, extent)) = pass.extents.pop_front() {
            return Some(self.scrub_extent(queue, &extent, reported));
        }
        let (segment, extents) = self.extents_of_next(pass.next_segment)?;
        pass.next_segment = segment.saturating_add(1);
        pass.extents = extents;
        Some(self.scrub_ends(segment, reported))
    }

    /// The first segment from id `from` on in which something lives, and its extents by offset.
    fn extents_of_next(&self, from: u64) -> Option<(u64, VecDeque<(u64, Extent)>)> {
        let state = self.state.lock();
        let mut alive = state.index.segments.range(from..);
        let (segment, _) = alive.find(|(_, segment)| segment.live_extents > 0)?;
        let mut extents: Vec<(u64, Extent)> = Vec::new();
        for (id, queue) in &state.index.queues {
            let here = queue.extents.iter().filter(|extent| extent.segment == *segment);
            extents.extend(here.map(|extent| (*id, *extent)));
        }
        let segment = *segment;
        drop(state);
        extents.sort_unstable_by_key(|(_, extent)| extent.offset);
        Some((segment, extents.into()))
    }

    /// Reads one extent and reports what is lost in it; answers its length.
    fn scrub_extent(&self, queue: u64, extent: &Extent, reported: &mut BTreeSet<u64>) -> u64 {
        // Acked, deleted or moved since the pass came to its segment.
        if !self.has_extent(queue, extent) {
            return 0;
        }
        let path = self.segment_path(extent.segment);
        let read = self
            .segment_file(extent.segment)
            .and_then(|file| ExtentOctets::read(&*file, queue, extent).during("read", &path));
        // The same may have happened while it was read.
        let is_needed = || self.has_extent(queue, extent);
        match read {
            Ok(read) if !read.lost.is_empty() && is_needed() => {
                self.name_lost_extent(queue, extent, &read);
            }
            Err(error)
                if !(error.is_shortage() || error.is_in_doubt())
                    && is_needed()
                    && reported.insert(extent.segment) =>
            {
                self.report(Damage::new(self.paths.relative(&path), error.to_string()));
            }
            Ok(_) | Err(_) => {}
        }
        u64::from(extent.len)
    }

    /// Reads what the segment says about itself. Nothing is lost when that is damaged: the
    /// checkpoint says the same, and what lives in it is to be written anew. Answers an octet for the work, so that a store of many tiny
    /// segments is not read in one step.
    fn scrub_ends(&self, segment: u64, reported: &mut BTreeSet<u64>) -> u64 {
        let path = self.segment_path(segment);
        let read =
            self.segment_file(segment).and_then(|file| read_footer(&*file).during("read", &path));
        let (detail, is_unsound) = match read {
            Ok(Some(_)) => return 1,
            // It has been told as a whole.
            Ok(None) if self.bad_pages.is_gone(&path) => return 1,
            Ok(None) => {
                let detail = "footer is not sound, extents may be".to_owned();
                (self.bad_pages.explain(detail, &path, 0..u64::MAX), true)
            }
            Err(error) if error.is_shortage() || error.is_in_doubt() => return 1,
            Err(error) => (error.to_string(), false),
        };
        let mut state = self.state.lock();
        let Some(alive) = state.index.segments.get_mut(&segment) else {
            return 1;
        };
        alive.is_damaged |= is_unsound;
        drop(state);
        if reported.insert(segment) {
            self.report(Damage::new(self.paths.relative(&path), detail));
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_saves_up_one_second_and_pays_its_debts_first() {
        let mut allowance = Allowance::default();
        allowance.earn(Duration::from_secs(3600), 1000);
        assert_eq!(allowance.left, 1000);
        allowance.spend(2500);
        assert_eq!((allowance.left, allowance.owed), (0, 1500));
        allowance.earn(Duration::from_secs(1), 1000);
        assert_eq!((allowance.left, allowance.owed), (0, 500));
        allowance.earn(Duration::from_millis(600), 1000);
        assert_eq!((allowance.left, allowance.owed), (100, 0));
        allowance.earn(Duration::MAX, u64::MAX);
        assert_eq!(allowance.left, u64::MAX);
    }
}
