//! What the workers of a run share with the thread that watches them: counters, latencies, and the wish to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;

/// Longest latency that is told apart: one minute, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// One run, seen by all of its workers.
pub struct Run {
    start: Instant,
    /// The time at `start`, in nanoseconds since 1970.
    start_epoch_ns: u64,
    stop: AtomicBool,
    /// The first answer that was not success, as text.
    first_failure: Mutex<Option<String>>,
    /// At a fixed rate: how long after they were due messages left, because this program was late.
    lateness: Mutex<Histogram<u64>>,
}

impl Run {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            start_epoch_ns: epoch_ns(),
            stop: AtomicBool::new(false),
            first_failure: Mutex::default(),
            lateness: Mutex::new(latencies()),
        })
    }

    /// Nanoseconds since the run began.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A time of [`Run::now_ns`] in nanoseconds since 1970.
    pub fn epoch_ns(&self, run_ns: u64) -> u64 {
        self.start_epoch_ns + run_ns
    }

    pub fn note_lateness(&self, late_ns: &[u64]) {
        let mut lateness = lock(&self.lateness);
        late_ns.iter().for_each(|late| lateness.saturating_record(*late));
    }

    /// The lateness noted since the last call.
    pub fn take_lateness(&self) -> Histogram<u64> {
        std::mem::replace(&mut *lock(&self.lateness), latencies())
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Keeps the first failure for the report.
    pub fn note_failure(&self, text: impl FnOnce() -> String) {
        lock(&self.first_failure).get_or_insert_with(text);
    }

    pub fn first_failure(&self) -> Option<String> {
        lock(&self.first_failure).clone()
    }
}

/// What one worker has done, or a few of very many. Written once per batch of answers; read and emptied by the watching thread.
pub struct Tally {
    messages: AtomicU64,
    failures: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

impl Tally {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { messages: AtomicU64::new(0), failures: AtomicU64::new(0), latencies: Mutex::new(latencies()) })
    }

    /// Takes over one batch: counts, and the latency in nanoseconds of every answer that succeeded.
    pub fn add(&self, messages: u64, failures: u64, latencies_ns: &[u64]) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.failures.fetch_add(failures, Ordering::Relaxed);
        let mut histogram = lock(&self.latencies);
        for latency in latencies_ns {
            histogram.saturating_record(*latency);
        }
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Moves the latencies recorded since the last call into `into`.
    pub fn take_latencies(&self, into: &mut Histogram<u64>) {
        let mut histogram = lock(&self.latencies);
        // Both have the same bounds, so adding cannot fail.
        let added = into.add(&*histogram);
        debug_assert!(added.is_ok());
        histogram.reset();
    }
}

/// Nanoseconds since 1970.
pub fn epoch_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// An empty latency histogram: 1 ns to 1 min, three significant digits.
pub fn latencies() -> Histogram<u64> {
    // Constant bounds: low >= 1, high >= 2 * low, at most five digits, so this cannot fail.
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3).expect("constant bounds are valid")
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub warmup: Duration,
    /// `None`: until the workers have done their share.
    pub duration: Option<Duration>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in the guarded sections leaves a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
