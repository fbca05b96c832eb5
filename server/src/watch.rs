//! What the broker looks after by itself: messages and queues that expire, memory and disk that run low.

use std::sync::Arc;
use std::time::Duration;

use broker_core::log::StoreLog;
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::logging::seldom;
use crate::node::{Alarm, Node};
use crate::settings::machine;
use crate::store::{self, Trouble};

/// How often expired messages are looked for. A message is never delivered once it has expired; this
/// decides how late it is dead-lettered.
const SWEEP_EVERY: Duration = Duration::from_millis(10);

/// How often memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_millis(250);

/// Share of its limit, in per cent, below which memory has to fall before publishers go on. Between this and the
/// limit an alarm stays as it is: memory that hovers about the limit does not stop and start everybody.
const MEMORY_CLEAR_PERCENT: u64 = 95;

/// Octets of an allocation that has pages of its own.
const PAGES_OF_ITS_OWN: usize = 32 << 20;

/// Looks at memory between two looks at the disk.
const DISK_EVERY: u32 = 4;

/// Memory that is assumed when the system does not say how much there is: 4 GiB.
const MEMORY_FALLBACK: u64 = 4 << 30;

/// Drops what has expired until the broker stops.
pub(crate) async fn sweep(node: Arc<Node>, mut stopping: Receiver<bool>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let now = node.clock.now();
        for vhost in node.broker.vhosts() {
            vhost.sweep(now);
        }
    }
}

/// Raises and clears the alarms until the broker stops.
pub(crate) async fn alarms(node: Arc<Node>, mut stopping: Receiver<bool>) {
    let limit = memory_limit(&node);
    let disk_limit = node.settings.limits.disk_free.octets();
    let mut ticks = interval(MEMORY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut turn, mut low_on_disk, mut disk) = (0, false, 0);
    let mut told =
        Told { damage: node.known_damage.count_at_start(), background: None, read: None };
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        if let Some(used) = resident_memory() {
            let on = memory_is_low(node.alarms.is_on(Alarm::Memory), used, limit);
            let how = || format!("{used} octets of memory are in use, limits.memory is {limit}");
            judge(&node, Alarm::Memory, on, how);
        }
        if turn % DISK_EVERY == 0 {
            give_memory_back();
            seldom::tell_rests();
        }
        if turn % DISK_EVERY == 0
            && let Some(free) = disk_free(&node)
        {
            low_on_disk = free < disk_limit;
            disk = free;
        }
        if let Some(log) = node.store.as_deref() {
            told.tell(&node, log);
        }
        let trouble = node.store.as_deref().and_then(store::trouble);
        let full = trouble == Some(Trouble::DiskFull);
        let how = || disk_in_words(full, low_on_disk, disk, disk_limit);
        judge(&node, Alarm::Disk, low_on_disk || full, how);
        if let Some(Trouble::Poisoned(reason)) = trouble
            && !node.alarms.is_on(Alarm::Store)
        {
            judge(&node, Alarm::Store, true, || {
                format!("the store cannot be written any more, until a restart: {reason}")
            });
        }
        turn = turn.wrapping_add(1);
    }
}

/// Has the allocator return to the system what was freed a while ago. It does so by itself only when it frees pages on
/// a thread that had them: a broker that rests after a burst, or after one huge message, would keep the memory, and
/// with it perhaps the alarm that makes it rest. The allocation is never touched and costs microseconds.
fn give_memory_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PAGES_OF_ITS_OWN)));
}

/// What the log says already of the running store.
#[derive(Debug)]
struct Told {
    /// Damages.
    damage: usize,
    /// Why space is not given back, where it is not.
    background: Option<Arc<str>>,
    /// Why messages cannot be read, where they cannot.
    read: Option<Arc<str>>,
}

impl Told {
    /// Says what is new.
    fn tell(&mut self, node: &Node, log: &StoreLog) {
        let damage = node.damage();
        for damage in damage.iter().skip(self.damage) {
            error!(%damage, "damage in the store was set aside");
        }
        self.damage = damage.len();
        let background = log.store().background_error();
        if background != self.background {
            match &background {
                Some(error) => warn!(%error, "the store cannot give space back; it is tried again"),
                None => info!("the store gives space back again"),
            }
            self.background = background;
        }
        let read = log.store().read_error();
        if read != self.read {
            match &read {
                Some(error) => warn!(%error, "the store cannot read messages; it is tried again"),
                None => info!("no read of the store has failed for a while"),
            }
            self.read = read;
        }
    }
}

/// Sets or clears an alarm. If that changes anything the log says so, and `how` things are.
fn judge(node: &Node, alarm: Alarm, on: bool, how: impl FnOnce() -> String) {
    if !node.alarms.set(alarm, on) {
        return;
    }
    let how = how();
    match (alarm, on) {
        (Alarm::Store, true) => error!(?alarm, "alarm, publishers are held: {how}"),
        (_, true) => warn!(?alarm, "alarm, publishers are held: {how}"),
        (_, false) => info!(?alarm, "the alarm is over: {how}"),
    }
    for connection in node.connections.all() {
        connection.wake();
    }
}

/// How it is about the disk: the store may find no room (`is_full`) long before or after `free` is below `limit`, both
/// in octets.
fn disk_in_words(is_full: bool, is_low: bool, free: u64, limit: u64) -> String {
    let room = format!("{free} octets of disk are free, limits.disk_free is {limit}");
    match (is_full, is_low) {
        (true, false) => format!("the store finds no room on the disk for more messages; {room}"),
        (true, true) => {
            format!("the store finds no room on the disk for more messages, and {room}")
        }
        (false, _) => room,
    }
}

/// Whether the memory alarm is to be on when it was `before`: raised above `limit`, over below
/// [`MEMORY_CLEAR_PERCENT`] of it. `used` and `limit` in octets.
const fn memory_is_low(before: bool, used: u64, limit: u64) -> bool {
    // Divided first: no overflow, and a hundredth of an octet is nothing.
    let clear = limit / 100 * MEMORY_CLEAR_PERCENT;
    if before { used >= clear } else { used > limit }
}

/// Resident memory at which publishers are held, in octets.
pub(crate) fn memory_limit(node: &Node) -> u64 {
    let available = machine::memory_available();
    let fallback = || crate::settings::Size::new(MEMORY_FALLBACK);
    node.settings.limits.memory.resolve(available.unwrap_or_else(fallback)).octets()
}

/// Resident memory of the process, in octets.
pub(crate) fn resident_memory() -> Option<u64> {
    let statm = procfs::process::Process::myself().and_then(|process| process.statm());
    match statm {
        Ok(statm) => Some(statm.resident.saturating_mul(procfs::page_size())),
        Err(problem) => {
            if let Some(line) = seldom::NO_MEMORY_READ.line() {
                let left_out = line.left_out;
                error!(%problem, left_out, "cannot read the memory in use: the memory alarm stays as it is");
            }
            None
        }
    }
}

/// Free space where the data are, in octets, as far as this process may use it.
pub(crate) fn disk_free(node: &Node) -> Option<u64> {
    match rustix::fs::statvfs(&node.settings.data_dir) {
        Ok(space) => Some(space.f_bavail.saturating_mul(space.f_frsize)),
        Err(problem) => {
            if let Some(line) = seldom::NO_DISK_READ.line() {
                let left_out = line.left_out;
                error!(%problem, left_out, "cannot read the free disk space: the disk alarm stays as it is");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_about_its_limit_raises_the_alarm_once() {
        const LIMIT: u64 = 1000;
        let mut on = false;
        let mut changes = Vec::new();
        for used in [900, 1000, 1001, 1000, 950, 999, 1001, 950, 949, 1000, 951, 1001] {
            let now = memory_is_low(on, used, LIMIT);
            if now != on {
                changes.push((used, now));
            }
            on = now;
        }
        assert_eq!(changes, [(1001, true), (949, false), (1001, true)]);
    }

    #[test]
    fn a_full_log_is_told_in_words_where_the_numbers_show_no_shortage() {
        let said = disk_in_words(true, false, 7 << 30, 0);
        assert!(
            said.starts_with("the store finds no room on the disk for more messages; "),
            "{said}"
        );
        assert!(said.ends_with("limits.disk_free is 0"), "{said}");
        assert!(disk_in_words(false, true, 5, 10).starts_with("5 octets of disk are free"));
    }

    #[test]
    fn a_limit_of_any_size_has_a_way_out() {
        for limit in [100, 4 << 30, u64::MAX] {
            assert!(!memory_is_low(false, limit, limit));
            assert!(memory_is_low(true, limit, limit));
            assert!(!memory_is_low(true, limit / 100 * 94, limit));
        }
    }
}
