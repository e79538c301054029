//! Waking a worker thread cheaply: no system call while it is already running.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// One sleeper, many wakers. The sleeper announces that it is about to park and then looks for work once more; a
/// waker publishes work and then looks whether the sleeper is parked. One of the two sees the other.
#[derive(Debug, Default)]
pub struct Signal {
    parked: AtomicBool,
    sleeper: OnceLock<Thread>,
}

impl Signal {
    /// To be called first by the thread that will sleep.
    pub fn attach(&self) {
        // A second attach changes nothing; each signal has one worker for its life.
        let _ = self.sleeper.set(thread::current());
    }

    /// Wakes the sleeper if it is parked. Publish the work before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed)
            && self.parked.swap(false, Ordering::AcqRel)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Wakes the sleeper out of a [`Signal::nap`] too.
    pub fn wake_now(&self) {
        self.parked.store(false, Ordering::SeqCst);
        if let Some(sleeper) = self.sleeper.get() {
            sleeper.unpark();
        }
    }

    /// Sleeps without listening to [`Signal::wake`]: while work is known to come in, wakers need not pay for it.
    pub fn nap(&self, limit: Duration) {
        thread::park_timeout(limit);
    }

    /// Sleeps for all of `limit`, however often it is woken meanwhile; not at all, or no longer, once `is_over`.
    pub fn pause(&self, limit: Duration, is_over: impl Fn() -> bool) {
        let end = Instant::now() + limit;
        while !is_over() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.nap(left);
        }
    }

    /// Sleeps until woken or `limit` has passed, unless `has_work` says that there is something to do. May also
    /// return for no reason.
    pub fn sleep_unless(&self, limit: Option<Duration>, has_work: impl FnOnce() -> bool) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !has_work() {
            match limit {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        self.parked.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn no_wake_up_is_lost() {
        let shared = Arc::new((Signal::default(), AtomicU32::new(0), AtomicU32::new(0)));
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (signal, given, taken) = &*shared;
                signal.attach();
                while taken.load(Ordering::Relaxed) < 2_000 {
                    signal.sleep_unless(None, || given.load(Ordering::Acquire) > taken.load(Ordering::Relaxed));
                    taken.store(given.load(Ordering::Acquire), Ordering::Release);
                }
            })
        };
        let (signal, given, taken) = &*shared;
        for round in 1..=2_000 {
            given.store(round, Ordering::Release);
            signal.wake();
            if round % 3 == 0 {
                while taken.load(Ordering::Acquire) < round {
                    thread::yield_now();
                }
            }
        }
        worker.join().unwrap();
    }
}
