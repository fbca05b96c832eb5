//! The most memory that the broker was seen with while something else was going on.

use std::panic::resume_unwind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::super::error::BenchError;
use super::super::process::Watched;

/// How often the memory is read.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs `work` and returns with its outcome the largest resident set seen meanwhile, in octets; 0 without a
/// process to look at. A broker that ends meanwhile is looked at no more: `work` will say why.
///
/// # Errors
/// As `work`; [`BenchError::Io`] if no thread can be started.
pub(super) fn largest_during<T>(
    broker: Option<&Watched>,
    work: impl FnOnce() -> Result<T, BenchError>,
) -> Result<(T, u64), BenchError> {
    let Some(broker) = broker else { return Ok((work()?, 0)) };
    let (working, done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let look = move || {
            let mut largest = 0;
            while let Ok(resident) = broker.resident() {
                largest = largest.max(resident);
                if done.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            largest
        };
        let looking = thread::Builder::new()
            .name("bench-resident".to_owned())
            .spawn_scoped(scope, look)
            .map_err(BenchError::io("starting a thread"))?;
        let outcome = work();
        drop(working);
        let largest = looking.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok((outcome?, largest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_given_back_before_the_end_was_seen() {
        let me = Watched::myself().unwrap();
        let len = 64 * 1024 * 1024;
        let before = me.resident().unwrap();
        let ((), largest) = largest_during(Some(&me), || {
            // Written, not only reserved: the kernel counts pages that were touched.
            let held = vec![1_u8; len];
            super::super::pause(LOOK_EVERY * 4);
            drop(std::hint::black_box(held));
            Ok(())
        })
        .unwrap();
        assert!(largest >= before + len as u64 / 2, "{before} {largest}");
        assert_eq!(largest_during(None, || Ok(7)).unwrap(), (7, 0));
    }
}
