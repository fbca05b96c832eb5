//! The process as the kernel sees it. What `/proc` does not say is left out.

use procfs::CurrentSI as _;
use procfs::process::Process;

use super::families as family;
use super::page::Page;

/// Writes descriptors, processor time, virtual memory, threads and the time of the start.
pub(super) fn write(page: &mut Page) {
    let Ok(process) = Process::myself() else { return };
    if let Ok(open) = process.fd_count() {
        page.single(&family::OPEN_FDS, &[], open);
        page.single(&family::PROCESS_OPEN_FDS, &[], open);
    }
    let Ok(stat) = process.stat() else { return };
    let ticks = procfs::ticks_per_second();
    page.single(&family::PROCESS_CPU, &[], seconds(stat.utime + stat.stime, ticks));
    page.single(&family::PROCESS_VIRTUAL_MEMORY, &[], stat.vsize);
    page.single(&family::PROCESS_THREADS, &[], stat.num_threads);
    if let Ok(kernel) = procfs::KernelStats::current() {
        let since_boot = stat.starttime / ticks.max(1);
        page.single(&family::PROCESS_START, &[], kernel.btime + since_boot);
    }
}

/// Clock ticks as seconds with two digits behind the point.
fn seconds(time: u64, ticks: u64) -> String {
    let hundredths = time.saturating_mul(100) / ticks.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_in_seconds() {
        assert_eq!(seconds(12_345, 100), "123.45");
        assert_eq!(seconds(1, 250), "0.00");
    }
}
