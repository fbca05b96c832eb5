//! What processes cost: processor time and resident memory, read from `/proc`.
//!
//! Used for this process, so that a report shows when the generator itself is the limit, and for the broker
//! when its process id is given.

use std::time::Duration;

use procfs::process::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::error::BenchError;

/// A process whose cost is watched.
#[derive(Debug)]
pub(super) struct Watched {
    process: Process,
    pid: i32,
}

impl Watched {
    /// This process.
    ///
    /// # Errors
    /// [`BenchError::Usage`] where there is no `/proc`.
    pub(super) fn myself() -> Result<Self, BenchError> {
        let process = Process::myself()
            .map_err(|error| BenchError::Usage(format!("cannot read /proc/self: {error}")))?;
        let pid = process.pid();
        Ok(Self { process, pid })
    }

    /// The process with this id.
    ///
    /// # Errors
    /// [`BenchError::Usage`] if there is none.
    pub(super) fn open(pid: i32) -> Result<Self, BenchError> {
        let process = Process::new(pid)
            .map_err(|error| BenchError::Usage(format!("--broker-pid {pid}: {error}")))?;
        Ok(Self { process, pid })
    }

    /// Processor time used so far, in user and kernel mode, by all threads. Grows in steps of 10 ms.
    ///
    /// # Errors
    /// [`BenchError::Usage`] if the process has ended.
    pub(super) fn cpu(&self) -> Result<Duration, BenchError> {
        let stat = self.process.stat().map_err(|error| self.gone(&error))?;
        let ticks = stat.utime + stat.stime;
        Ok(Duration::from_secs(ticks) / u32::try_from(procfs::ticks_per_second()).unwrap_or(100))
    }

    /// Resident memory in octets.
    ///
    /// # Errors
    /// [`BenchError::Usage`] if the process has ended.
    pub(super) fn resident(&self) -> Result<u64, BenchError> {
        let statm = self.process.statm().map_err(|error| self.gone(&error))?;
        Ok(statm.resident * procfs::page_size())
    }

    fn gone(&self, error: &procfs::ProcError) -> BenchError {
        BenchError::Usage(format!("cannot read /proc/{}: {error}", self.pid))
    }
}

/// Raises the limit of open files to what is allowed and returns it.
///
/// # Errors
/// [`BenchError::Usage`] if that is not above `needed`: the run would fail in its middle.
pub(super) fn allow_open_files(needed: u64) -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    match allowed {
        Some(allowed) if allowed <= needed => Err(BenchError::Usage(format!(
            "{needed} open files are needed and {allowed} are allowed (ulimit -n)"
        ))),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_uses_time() {
        let me = Watched::myself().unwrap();
        assert!(me.resident().unwrap() > 100_000);
        me.cpu().unwrap();
    }

    #[test]
    fn a_process_that_does_not_exist_is_refused_by_name() {
        // Above the largest id the kernel hands out (2^22).
        let error = Watched::open(0x7FFF_FFFF).unwrap_err().to_string();
        assert!(error.contains("--broker-pid 2147483647"), "{error}");
    }

    #[test]
    fn more_files_than_allowed_are_refused_before_the_run() {
        assert!(allow_open_files(1).is_ok());
        assert!(
            allow_open_files(u64::MAX - 1).is_err()
                || getrlimit(Resource::Nofile).maximum.is_none()
        );
    }
}
