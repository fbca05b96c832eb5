//! Many cases of one test.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Cases that run at the same time. They mostly wait, and the machine may be small.
const AT_ONCE: usize = 2;

/// Runs all cases, each on a runtime of its own, and fails with every one that failed and its reason. A case says with
/// a panic that it has failed. Blocks until all are done.
pub fn for_each_case<C, F>(cases: Vec<C>, run: impl Fn(C) -> F + Sync)
where
    C: Display + Send,
    F: Future<Output = ()>,
{
    let count = cases.len();
    let left = Mutex::new(cases.into_iter());
    // A case that panics does so without the lock.
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut failed = Vec::new();
        while let Some(case) = next() {
            let name = case.to_string();
            let result = catch_unwind(AssertUnwindSafe(|| alone(run(case))));
            if let Err(panic) = result {
                let reason = panic.downcast_ref::<String>().map_or("", String::as_str);
                failed.push(format!("{name}: {reason}"));
            }
        }
        failed
    };
    let failed: Vec<String> = thread::scope(|scope| {
        // All of them before the first is waited for.
        let workers = [(); AT_ONCE].map(|()| scope.spawn(work));
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    let failures = failed.len();
    assert!(failed.is_empty(), "{failures} of {count} cases failed:\n{}", failed.join("\n\n"));
}

fn alone(case: impl Future<Output = ()>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(case),
        Err(error) => panic!("a runtime: {error}"),
    }
}
