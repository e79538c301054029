//! Cases by the thousand: on all cores, and any of them again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// After so many it is enough.
const FAILURES_MAX: usize = 10;

/// A number from the environment.
pub fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Does `case`; if it fails, says how to have it again, and what happened.
pub fn repeatable(how: impl Fn(&[String]) -> String, case: impl FnOnce(&mut Vec<String>)) {
    let mut told = Vec::new();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut told))) {
        eprintln!("again: {}", how(&told));
        resume_unwind(panic);
    }
}

/// Does `case` for each number below `count`, on all cores. Those that fail hinder no others, unless they are many.
pub fn on_all_cores(count: usize, case: impl Fn(usize) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::SeqCst) < FAILURES_MAX {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| case(number))).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of {} failed, see above", next.into_inner().min(count));
}
