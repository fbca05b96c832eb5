//! Slowing down who guesses passwords: where many logins have failed, the next ones wait.
//!
//! After [`FAILURES_FREE`] failed logins from one address, each within [`MEMORY`] of the one before, every
//! further one from there waits before its password is looked at: a second, then twice as long with each that
//! fails, up to a bound. All of them wait, those with the right password too, or guesses could be told from
//! the time that they take; and at most [`LANES`] of one address wait at the same time, the others behind
//! them, or many connections would guess as fast as one. Nothing is refused here: [`auth`](super) waits, and
//! checks.
//!
//! What is kept is bounded: [`ADDRESSES_MAX`] addresses, and for IPv6 networks of 64 bits, which a single
//! machine may own whole.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Failed logins from an address before others wait.
const FAILURES_FREE: u32 = 5;

/// How long a failed login counts when no other follows, in milliseconds.
const MEMORY: u64 = 60_000;

/// Addresses that are kept. One more takes the place of the one that has been quiet for longest.
const ADDRESSES_MAX: usize = 4096;

/// Logins from one address that wait at the same time.
const LANES: usize = 4;

/// How long the first login waits that has to.
const DELAY_FIRST: Duration = Duration::from_secs(1);

/// Failed logins by address.
#[derive(Debug)]
pub(super) struct Backoff {
    /// How long a login waits at most; zero: not at all.
    delay_max: Duration,
    addresses: Mutex<HashMap<IpAddr, Failures>>,
}

/// What has failed from one address.
#[derive(Debug)]
struct Failures {
    count: u32,
    /// When the last one did, on the broker's clock.
    last: u64,
    lanes: Arc<Semaphore>,
}

impl Failures {
    const fn is_forgotten(&self, now: u64) -> bool {
        now.saturating_sub(self.last) > MEMORY
    }
}

impl Backoff {
    pub(super) fn new(delay_max: Duration) -> Self {
        Self { delay_max, addresses: Mutex::default() }
    }

    /// Where a login from `peer` has to queue before it waits for [`delay`](Self::delay); `None` if it need not.
    pub(super) fn lanes(&self, peer: IpAddr, now: u64) -> Option<Arc<Semaphore>> {
        let addresses = self.addresses.lock();
        let failures = addresses.get(&source(peer))?;
        let waits = !failures.is_forgotten(now) && failures.count >= FAILURES_FREE;
        waits.then(|| Arc::clone(&failures.lanes))
    }

    /// How long a login from `peer` has to wait.
    pub(super) fn delay(&self, peer: IpAddr, now: u64) -> Duration {
        let addresses = self.addresses.lock();
        let failures = addresses.get(&source(peer)).filter(|failures| !failures.is_forgotten(now));
        let doublings = failures.and_then(|failures| failures.count.checked_sub(FAILURES_FREE));
        doublings.map_or(Duration::ZERO, |doublings| {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            DELAY_FIRST.saturating_mul(factor).min(self.delay_max)
        })
    }

    /// A login has failed; gives whether it was the one from which on others wait.
    pub(super) fn failed(&self, peer: IpAddr, now: u64) -> bool {
        if self.delay_max.is_zero() {
            return false;
        }
        let source = source(peer);
        let mut addresses = self.addresses.lock();
        if addresses.len() >= ADDRESSES_MAX && !addresses.contains_key(&source) {
            make_room(&mut addresses, now);
        }
        let failures = addresses.entry(source).or_insert_with(|| Failures {
            count: 0,
            last: now,
            lanes: Arc::new(Semaphore::new(LANES)),
        });
        if failures.is_forgotten(now) {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        failures.count == FAILURES_FREE
    }
}

/// Drops what is forgotten, and if that is nothing, the address that has been quiet for longest.
fn make_room(addresses: &mut HashMap<IpAddr, Failures>, now: u64) {
    addresses.retain(|_, failures| !failures.is_forgotten(now));
    if addresses.len() >= ADDRESSES_MAX {
        let quietest = addresses.iter().min_by_key(|(_, failures)| failures.last);
        if let Some(quietest) = quietest.map(|(address, _)| *address) {
            addresses.remove(&quietest);
        }
    }
}

/// Who is behind an address: all of it for IPv4, its network for IPv6.
fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(8))
    }

    /// Seconds that a login waits, and whether it queues: both or neither.
    fn waits(backoff: &Backoff, peer: IpAddr, now: u64) -> u64 {
        let delay = backoff.delay(peer, now);
        assert_eq!(backoff.lanes(peer, now).is_some(), !delay.is_zero());
        delay.as_secs()
    }

    #[test]
    fn the_first_five_are_free_and_the_delay_doubles_up_to_its_bound() {
        let backoff = backoff();
        let mut delays = Vec::new();
        for second in 0..12 {
            delays.push(waits(&backoff, PEER, second * 1000));
            assert_eq!(backoff.failed(PEER, second * 1000), second == 4, "{second}");
        }
        assert_eq!(delays, [0, 0, 0, 0, 0, 1, 2, 4, 8, 8, 8, 8]);
        assert_eq!(waits(&backoff, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 12_000), 0);
    }

    #[test]
    fn a_minute_without_a_failure_ends_it() {
        let backoff = backoff();
        for _ in 0..40 {
            backoff.failed(PEER, 0);
        }
        assert_eq!(waits(&backoff, PEER, MEMORY), 8);
        assert_eq!(waits(&backoff, PEER, MEMORY + 1), 0);
        backoff.failed(PEER, MEMORY + 1);
        assert_eq!(waits(&backoff, PEER, MEMORY + 2), 0, "it counts from the start");
    }

    #[test]
    fn a_bound_of_zero_keeps_nothing_and_delays_nobody() {
        let backoff = Backoff::new(Duration::ZERO);
        for _ in 0..10 {
            assert!(!backoff.failed(PEER, 0));
        }
        assert_eq!(waits(&backoff, PEER, 0), 0);
        assert!(backoff.addresses.lock().is_empty());
    }

    #[test]
    fn a_machine_does_not_escape_by_changing_its_address() {
        let backoff = backoff();
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        for last in 1..=5 {
            backoff.failed(at(&format!("2001:db8::{last}")), 0);
        }
        assert_eq!(waits(&backoff, at("2001:db8::ffff:1"), 0), 1);
        assert_eq!(waits(&backoff, at("2001:db8:0:1::1"), 0), 0);
        for _ in 0..5 {
            backoff.failed(at("::ffff:192.0.2.1"), 0);
        }
        assert_eq!(waits(&backoff, at("192.0.2.1"), 0), 1);
    }

    #[test]
    fn addresses_are_bounded_and_the_quietest_goes_first() {
        let backoff = backoff();
        let at = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let all = u32::try_from(ADDRESSES_MAX).expect("few");
        for number in 0..all {
            backoff.failed(at(number), u64::from(number));
        }
        // Heard of again, so that the second is now the quietest.
        backoff.failed(at(0), u64::from(all));
        backoff.failed(at(all), u64::from(all));
        let known = |number| backoff.addresses.lock().contains_key(&at(number));
        assert_eq!([known(0), known(1), known(2), known(all)], [true, false, true, true]);
        assert_eq!(backoff.addresses.lock().len(), ADDRESSES_MAX);
        // What is forgotten makes room for all the others at once.
        backoff.failed(at(all + 1), MEMORY + u64::from(all) + 1);
        assert_eq!(backoff.addresses.lock().len(), 1);
    }
}
