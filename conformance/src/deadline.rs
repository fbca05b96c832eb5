//! Waiting for a condition of another process, which can only be looked at again and again.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(5);

/// Calls `look` until it returns a value, for at most `limit`; `None` when the time is up.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's exit and files raise no event here, and its time cannot be paused"
)]
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
