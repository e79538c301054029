//! Counters of the store. Java: StoreStatsService.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the put latency buckets in milliseconds, exclusive; the last bucket has none. The first counts
/// puts of 0 ms. Java: StoreStatsService.PUT_MESSAGE_ENTIRE_TIME_MAX_DESC, `putMessageDistributeTime`.
pub const PUT_LATENCY_BUCKETS: [&str; 13] = [
    "[<=0ms]",
    "[0~10ms]",
    "[10~50ms]",
    "[50~100ms]",
    "[100~200ms]",
    "[200~500ms]",
    "[500ms~1s]",
    "[1~2s]",
    "[2~3s]",
    "[3~4s]",
    "[4~5s]",
    "[5~10s]",
    "[10s~]",
];
const BUCKET_BOUNDS_MS: [u64; 12] = [1, 10, 50, 100, 200, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000];

/// What the store has done since it was opened. Rates are the reader's to make from two of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Messages appended.
    pub put_count: u64,
    /// Bytes of their records.
    pub put_bytes: u64,
    /// Appends refused.
    pub put_failed: u64,
    /// Longest append since the last call of `Store::new_stats_window`, in microseconds.
    pub put_longest_us: u64,
    /// Appends per bucket of [`PUT_LATENCY_BUCKETS`].
    pub put_latency: [u64; 13],
    /// Reads that found something, reads that did not.
    pub reads_found: u64,
    pub reads_missed: u64,
    /// Messages and bytes handed to readers.
    pub read_count: u64,
    pub read_bytes: u64,
    /// Longest read since the last call of `Store::new_stats_window`, in microseconds.
    pub read_longest_us: u64,
    /// How long the append lock has been held by its present holder, in milliseconds; 0 when it is free.
    pub lock_held_ms: u64,
    /// Bytes that consumers may see and that are not dispatched.
    pub dispatch_behind: u64,
    /// Bytes not on the disk yet.
    pub flush_behind: u64,
    pub queues: usize,
    /// Bytes of the log that the scrub has asked of the disk, times it has come to the end of what is old, and damaged places it has found: each counted
    /// once, a thousand at most.
    pub scrub_bytes: u64,
    pub scrub_rounds: u64,
    pub scrub_damages: u64,
    /// Bytes in the write pool and not in the log's files yet, and buffers of it that have none of these; `None` without one.
    pub commit_behind: Option<u64>,
    pub pool_buffers_free: Option<usize>,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub put_count: AtomicU64,
    pub put_bytes: AtomicU64,
    put_failed: AtomicU64,
    put_longest_us: AtomicU64,
    put_latency: [AtomicU64; 13],
    reads_found: AtomicU64,
    reads_missed: AtomicU64,
    read_count: AtomicU64,
    read_bytes: AtomicU64,
    read_longest_us: AtomicU64,
    pub scrub_bytes: AtomicU64,
    pub scrub_rounds: AtomicU64,
    pub scrub_damages: AtomicU64,
}

impl Counters {
    pub fn put(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // The longest is rarely beaten: look before writing, the line is shared by every appender.
        if us > self.put_longest_us.load(Ordering::Relaxed) {
            self.put_longest_us.fetch_max(us, Ordering::Relaxed);
        }
        let bucket = BUCKET_BOUNDS_MS.partition_point(|bound| *bound <= us / 1_000);
        if bucket > 0 {
            self.put_latency[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn put_failed(&self) {
        self.put_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self, count: usize, bytes: usize, took: Duration) {
        if count == 0 {
            self.reads_missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.reads_found.fetch_add(1, Ordering::Relaxed);
        self.read_count.fetch_add(count as u64, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if us > self.read_longest_us.load(Ordering::Relaxed) {
            self.read_longest_us.fetch_max(us, Ordering::Relaxed);
        }
    }

    /// Starts the "longest" figures again.
    pub fn new_window(&self) {
        self.put_longest_us.store(0, Ordering::Relaxed);
        self.read_longest_us.store(0, Ordering::Relaxed);
    }

    /// Fills in what is counted here.
    pub fn snapshot(&self) -> StoreStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let put_count = load(&self.put_count);
        let mut put_latency: [u64; 13] = std::array::from_fn(|bucket| load(&self.put_latency[bucket]));
        // Not counted one by one: nearly all puts are here.
        put_latency[0] = put_count.saturating_sub(put_latency[1..].iter().sum());
        StoreStats {
            put_count,
            put_bytes: load(&self.put_bytes),
            put_failed: load(&self.put_failed),
            put_longest_us: load(&self.put_longest_us),
            put_latency,
            reads_found: load(&self.reads_found),
            reads_missed: load(&self.reads_missed),
            read_count: load(&self.read_count),
            read_bytes: load(&self.read_bytes),
            read_longest_us: load(&self.read_longest_us),
            scrub_bytes: load(&self.scrub_bytes),
            scrub_rounds: load(&self.scrub_rounds),
            scrub_damages: load(&self.scrub_damages),
            ..StoreStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        let counters = Counters::default();
        for ms in [0, 1, 9, 10, 10_000] {
            counters.put_count.fetch_add(1, Ordering::Relaxed);
            counters.put(Duration::from_millis(ms));
        }
        let stats = counters.snapshot();
        assert_eq!(stats.put_latency, [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(stats.put_longest_us, 10_000_000);
        counters.new_window();
        assert_eq!(counters.snapshot().put_longest_us, 0);
    }
}
