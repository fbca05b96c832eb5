//! Who gets how many of the open files that the process may have.
//!
//! The one idea: what the broker needs to stay itself (its log, segments that are read, `warren ctl`, the metrics) is
//! set aside before clients are counted. However many of them come, the store never finds that no file can be opened.
//!
//! Not here: the limit itself, and raising it; see [`machine`](super::machine).

use super::units::ConnectionLimit;

/// The fewest open files that a broker runs with: its own, and some thirty connections.
pub(crate) const OPEN_FILES_MIN: u64 = 96;

/// What the broker has for itself at least. As counted under load: 3 standard streams, 10 of the runtime and of
/// listeners, 32 of a store that is pressed for room in its log, 8 clients of the control socket, 8 of the metrics; the
/// rest is for what is open for a moment.
const OWN_MIN: u64 = 64;
const OWN_MAX: u64 = 1024;

/// The limit of open files, to be shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles(u64);

impl OpenFiles {
    /// Shares out `limit` open files.
    pub(crate) const fn new(limit: u64) -> Self {
        Self(limit)
    }

    /// An eighth, and no less than [`OWN_MIN`], is not for clients.
    fn own(self) -> u64 {
        (self.0 / 8).clamp(OWN_MIN, OWN_MAX)
    }

    /// Segment files that the store holds open to read from them, out of the broker's own.
    pub(crate) fn segments(self) -> usize {
        small(self.0 / 64, 8, 256)
    }

    /// Connections to the metrics, on all their addresses, out of the broker's own.
    pub(crate) fn visitors(self) -> usize {
        small(self.0 / 64, 8, 64)
    }

    /// Connections that are being told, at the same time, that there are too many.
    pub(crate) fn told(self) -> usize {
        small(self.0.saturating_sub(OWN_MIN) / 16, 1, 64)
    }

    /// Connections that there is room for, at least 1.
    pub(crate) fn room(self) -> u32 {
        let taken = self.own() + self.told() as u64;
        u32::try_from(self.0.saturating_sub(taken)).unwrap_or(u32::MAX).max(1)
    }

    /// Connections that there may be: as many as `wanted` says, and no more than there is room for.
    pub(crate) fn connections(self, wanted: ConnectionLimit) -> u32 {
        let wanted = match wanted {
            ConnectionLimit::Auto => u32::try_from(self.0 / 5 * 4).unwrap_or(u32::MAX),
            ConnectionLimit::Count(count) => count,
        };
        wanted.min(self.room())
    }
}

fn small(count: u64, low: usize, high: usize) -> usize {
    usize::try_from(count).unwrap_or(high).clamp(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auto(limit: u64) -> u32 {
        OpenFiles::new(limit).connections(ConnectionLimit::Auto)
    }

    #[test]
    fn the_broker_keeps_its_own_whatever_the_limit() {
        for limit in (OPEN_FILES_MIN..5000).chain([1 << 16, 1 << 20, u64::MAX]) {
            let files = OpenFiles::new(limit);
            let (own, told) = (files.own(), files.told() as u64);
            assert!(own >= OWN_MIN, "{limit}");
            assert!(u64::from(auto(limit)) + own + told <= limit, "{limit}");
            assert!(files.segments() as u64 + files.visitors() as u64 <= own / 3, "{limit}");
            assert!(auto(limit) >= 30, "{limit}: worth starting for");
        }
    }

    #[test]
    fn auto_is_four_fifths_where_there_are_many() {
        assert_eq!([auto(96), auto(256), auto(1024)], [30, 180, 816]);
        assert_eq!([auto(1 << 16), auto(u64::MAX)], [52428, u32::MAX]);
        assert_eq!(auto(10), 1, "whatever the limit is");
    }

    #[test]
    fn a_number_is_taken_as_far_as_there_is_room() {
        let files = OpenFiles::new(256);
        assert_eq!(files.connections(ConnectionLimit::Count(7)), 7);
        assert_eq!(files.connections(ConnectionLimit::Count(1000)), files.room());
    }
}
