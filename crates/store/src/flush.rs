//! Makes the log durable: periodically, or in groups that appends wait for.
//!
//! Java: CommitLog.FlushRealTimeService, GroupCommitService, FlushDiskWatcher (store.md §3.4).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::checkpoint::Checkpoint;
use crate::config::FlushMode;
use crate::disk::Disk;
use crate::health::Health;
use crate::mapped_file::{self, CHUNK_MAX};
use crate::segments::Segments;
use crate::signal::Signal;
use crate::watermarks::Positions;

const PAGE: u64 = mapped_file::PAGE as u64;
/// Write-back is started when so much has gathered.
const WRITE_BACK_MIN: u64 = 1 << 20;
/// What a sync write-protects around its end, at most.
const CHUNK: u64 = CHUNK_MAX as u64;
/// A sync that took longer is not made again on a thread that has connections to serve.
const SYNC_ON_CALLER_MAX: Duration = Duration::from_micros(500);
/// How long a waiter waits in async mode, where nobody has said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushOutcome {
    Flushed,
    /// It may still be flushed later. Java: FLUSH_DISK_TIMEOUT.
    TimedOut,
    /// The sync failed, or the store closed before it.
    Failed,
}

/// How much of what is written a flush takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    /// Not the chunk that the next append goes into.
    WholeChunks,
}

/// The end of the log at some time, and the store time of a record before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    end: u64,
    timestamp: i64,
}

struct Waiter {
    end: u64,
    deadline: Instant,
    done: Box<dyn FnOnce(FlushOutcome) + Send>,
}

pub struct Flusher {
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    checkpoint: Arc<Checkpoint>,
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    mode: FlushMode,
    signal: Signal,
    /// Woken when more of the log is durable.
    dispatch: Arc<Signal>,
    stop: AtomicBool,
    /// Ordered by end.
    waiters: Mutex<VecDeque<Waiter>>,
    /// One sync at a time; also held while the log is truncated. What the last one saw.
    syncing: Mutex<Seen>,
    /// How long the last one took.
    last_sync_us: AtomicU64,
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("mode", &self.mode).field("waiters", &self.waiters.lock().len()).finish()
    }
}

impl Flusher {
    pub fn new(
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        checkpoint: Arc<Checkpoint>,
        disk: Arc<dyn Disk>,
        health: Arc<Health>,
        mode: FlushMode,
        dispatch: Arc<Signal>,
    ) -> Flusher {
        Flusher {
            segments,
            positions,
            checkpoint,
            disk,
            health,
            mode,
            signal: Signal::default(),
            dispatch,
            stop: AtomicBool::new(false),
            waiters: Mutex::default(),
            syncing: Mutex::default(),
            last_sync_us: AtomicU64::new(0),
        }
    }

    /// To be called after each append in async mode; in sync mode when nobody will call [`Flusher::flush_here`].
    pub fn tail_moved(&self) {
        self.signal.wake();
    }

    /// Calls `done` once everything before `end` is on the disk, or with the reason why not. On the thread that syncs, or
    /// at once on the caller's when the answer is known. Wakes nobody: see [`Flusher::wake`] and [`Flusher::flush_here`].
    pub fn when_flushed(&self, end: u64, done: Box<dyn FnOnce(FlushOutcome) + Send>) {
        if self.positions.flushed() >= end {
            return done(FlushOutcome::Flushed);
        }
        let timeout = match &self.mode {
            FlushMode::Sync { timeout } => *timeout,
            FlushMode::Async { .. } => DEFAULT_TIMEOUT,
        };
        let mut waiters = self.waiters.lock();
        if self.stop.load(Ordering::Acquire) || self.health.is_poisoned() {
            drop(waiters);
            return done(FlushOutcome::Failed);
        }
        let at = waiters.partition_point(|waiter| waiter.end <= end);
        waiters.insert(at, Waiter { end, deadline: Instant::now() + timeout, done });
    }

    /// Has the flush thread look at who waits.
    pub fn wake(&self) {
        match self.mode {
            FlushMode::Sync { .. } => self.signal.wake(),
            // The thread may be in a nap.
            FlushMode::Async { .. } => self.signal.wake_now(),
        }
    }

    /// Syncs for those who wait, on the calling thread: with a fast disk that takes less than two threads need to wake each
    /// other. The caller sees to the dispatch. Left to the flush thread while another sync is under way, and when the last one was slow.
    pub fn flush_here(&self) {
        if !self.has_waiters() {
            // What nobody waits for has to get to the disk too, before consumers may see it.
            if matches!(self.mode, FlushMode::Sync { .. }) && self.is_behind() {
                self.wake();
            }
            return;
        }
        let slow = self.last_sync_us.load(Ordering::Relaxed) > SYNC_ON_CALLER_MAX.as_micros() as u64;
        if !slow && let Some(seen) = self.syncing.try_lock() {
            // An error has poisoned the store and told the waiters.
            let _ = self.flush_held(seen, Extent::All);
            if !self.has_waiters() {
                return;
            }
        }
        self.wake();
    }

    /// Tells waiters whose time is up. Called by another thread than the one that may hang in a sync.
    pub fn expire(&self) {
        let now = Instant::now();
        let mut late = Vec::new();
        {
            let mut waiters = self.waiters.lock();
            let mut at = 0;
            while at < waiters.len() {
                if waiters[at].deadline <= now {
                    late.extend(waiters.remove(at));
                } else {
                    at += 1;
                }
            }
        }
        for waiter in late {
            (waiter.done)(FlushOutcome::TimedOut);
        }
    }

    /// Flushes everything written so far. After an error the store is poisoned.
    pub fn flush(&self) -> io::Result<()> {
        self.flush_as(Extent::All)
    }

    fn flush_as(&self, extent: Extent) -> io::Result<()> {
        let result = self.flush_held(self.syncing.lock(), extent);
        self.dispatch.wake();
        result
    }

    fn flush_held(&self, seen: MutexGuard<'_, Seen>, extent: Extent) -> io::Result<()> {
        let result = self.sync_written(seen, extent);
        match &result {
            Ok(()) => self.complete(),
            Err(error) => {
                self.health.poison(format!("the commit log could not be synced: {error}"));
                self.fail_all();
            }
        }
        result
    }

    fn sync_written(&self, mut seen: MutexGuard<'_, Seen>, extent: Extent) -> io::Result<()> {
        if self.health.is_poisoned() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        // The time first: the record it belongs to is below the end read after it.
        let timestamp = self.positions.written_timestamp.load(Ordering::Acquire);
        let (from, written) = (self.positions.flushed(), self.positions.written());
        let to = match extent {
            Extent::All => written,
            Extent::WholeChunks => written - written % CHUNK,
        };
        if from >= to {
            return Ok(());
        }
        let began = Instant::now();
        self.segments.sync(&*self.disk, from..to)?;
        self.last_sync_us.store(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.positions.flushed.store(to, Ordering::Release);
        self.checkpoint.log_position.store(to, Ordering::Release);
        let now = Seen { end: written, timestamp };
        let before = std::mem::replace(&mut *seen, now);
        if let Some(durable) = [now, before].into_iter().find(|seen| seen.end <= to) {
            self.checkpoint.log_timestamp.store(durable.timestamp, Ordering::Release);
        }
        if to == written
            && let Some(file) = self.segments.find(to)
        {
            // The chunk of the tail is write-protected now. Inside the file, whose length is a usize.
            let at = (to - file.start()) as usize;
            file.map_writable(at..file.prepared().min(at.next_multiple_of(CHUNK_MAX)));
        }
        Ok(())
    }

    fn complete(&self) {
        let flushed = self.positions.flushed();
        let done: Vec<Waiter> = {
            let mut waiters = self.waiters.lock();
            let count = waiters.partition_point(|waiter| waiter.end <= flushed);
            waiters.drain(..count).collect()
        };
        for waiter in done {
            (waiter.done)(FlushOutcome::Flushed);
        }
    }

    fn fail_all(&self) {
        let failed = std::mem::take(&mut *self.waiters.lock());
        for waiter in failed {
            (waiter.done)(FlushOutcome::Failed);
        }
    }

    fn is_behind(&self) -> bool {
        self.positions.written() > self.positions.flushed()
    }

    fn has_waiters(&self) -> bool {
        !self.waiters.lock().is_empty()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.health.is_poisoned()
    }

    /// The thread.
    pub fn run(&self) {
        self.signal.attach();
        match self.mode.clone() {
            FlushMode::Sync { .. } => self.run_sync(),
            FlushMode::Async { interval, least_pages, thorough_interval } => {
                self.run_async(interval, least_pages, thorough_interval);
            }
        }
        if self.health.is_poisoned() {
            self.fail_all();
        }
    }

    fn run_sync(&self) {
        while !self.stopped() {
            if self.is_behind() {
                // An error has poisoned the store, which ends the loop.
                if self.flush().is_err() {
                    return;
                }
            } else {
                // A waiter that came while its bytes were being flushed.
                self.complete();
            }
            self.signal.sleep_unless(None, || self.stopped() || self.is_behind() || self.due());
        }
    }

    /// Whether a waiter's bytes are flushed already.
    fn due(&self) -> bool {
        self.waiters.lock().front().is_some_and(|waiter| waiter.end <= self.positions.flushed())
    }

    fn run_async(&self, interval: Duration, least_pages: u64, thorough_interval: Duration) {
        let mut last_thorough = Instant::now();
        while !self.stopped() {
            self.signal.sleep_unless(None, || self.stopped() || self.is_behind() || self.has_waiters());
            // Something is to be flushed: until it is, nobody needs to wake this thread.
            let mut last_flush = Instant::now();
            let mut started = self.positions.flushed();
            while !self.stopped() && (self.is_behind() || self.has_waiters()) {
                if !self.has_waiters() {
                    self.signal.nap(interval / 5);
                }
                let (written, flushed) = (self.positions.written(), self.positions.flushed());
                started = started.max(flushed);
                let whole_chunks = written - written % CHUNK;
                if whole_chunks >= started + WRITE_BACK_MIN {
                    self.segments.start_write_back(started..whole_chunks);
                    started = whole_chunks;
                }
                let thorough = last_thorough.elapsed() >= thorough_interval;
                let enough = (written / PAGE).saturating_sub(flushed / PAGE) >= least_pages;
                let due = last_flush.elapsed() >= interval && (enough || thorough);
                if due || self.has_waiters() {
                    // While the log grows, the chunk that appends are in stays as it is: a sync write-protects what it
                    // writes, and the next append would wait for the page, sometimes as long as the sync takes.
                    let grows = written - flushed >= 2 * CHUNK;
                    let extent = if grows && !self.has_waiters() { Extent::WholeChunks } else { Extent::All };
                    if self.flush_as(extent).is_err() {
                        return;
                    }
                    last_flush = Instant::now();
                    if thorough {
                        last_thorough = Instant::now();
                    }
                }
            }
        }
    }

    /// Tells the thread to end. Waiters are answered by the last flush, or by [`Flusher::abandon`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    /// Whether a sync is under way.
    #[cfg(test)]
    pub fn is_syncing(&self) -> bool {
        self.syncing.is_locked()
    }

    /// Answers whoever still waits. After the thread has ended.
    pub fn abandon(&self) {
        self.fail_all();
    }

    /// Keeps syncs out while the log is truncated.
    pub fn hold(&self) -> MutexGuard<'_, Seen> {
        self.syncing.lock()
    }
}
