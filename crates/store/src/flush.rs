//! Makes the log durable: periodically, or in groups that appends wait for.
//!
//! Java: CommitLog.FlushRealTimeService, GroupCommitService, FlushDiskWatcher.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::checkpoint::Checkpoint;
use crate::commit::{Committer, RETRY_PAUSE};
use crate::config::{FlushMode, StoreConfig};
use crate::disk::{self, Disk};
use crate::growth::Growth;
use crate::health::Health;
use crate::mapped_file::CHUNK_MAX;
use crate::segments::Segments;
use crate::signal::Signal;
use crate::waiters::{Completion, NotSafe, Taken, Waiters};
use crate::watermarks::Positions;

const PAGE: u64 = disk::PAGE as u64;
/// Write-back is started when so much has gathered.
const WRITE_BACK_MIN: u64 = 1 << 20;
/// A sync that took longer is not made again on a thread that has connections to serve.
const SYNC_ON_CALLER_MAX: Duration = Duration::from_micros(500);
/// One that took so long has held its thread up; for a while there is none on such a thread then, twice as long each time.
const HANG_MIN: Duration = Duration::from_millis(20);
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const HANG_FORGOTTEN: Duration = Duration::from_secs(300);
/// How long a waiter waits in async mode, where nobody has said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked for waiters whose time is up, while there are any.
const LOOK_FOR_LATE: Duration = Duration::from_millis(50);
/// So often too after the last one, before the thread parks: under load, waiters then need not wake it.
const LOOKS_IN_VAIN: u32 = 20;

/// How much of what is written a flush takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    /// Not the chunk, of so many bytes, that the next append goes into.
    WholeChunks(u64),
}

/// The end of the log at some time, and the store time of a record before it.
#[derive(Clone, Copy, Debug, Default)]
struct LogEnd {
    end: u64,
    timestamp: i64,
}

/// How syncs go: whether they may be made on a thread that serves connections.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long the last one took; nothing is known of a disk before the first.
    last: Duration,
    /// When one hung, and how long not to try after that.
    hung: Option<Instant>,
    pause: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { last: Duration::MAX, hung: None, pause: PAUSE_MIN }
    }
}

impl Pace {
    fn took(&mut self, took: Duration, now: Instant) {
        self.last = took;
        if took >= HANG_MIN {
            let again = self.hung.is_some_and(|at| now.duration_since(at) < HANG_FORGOTTEN);
            self.pause = if again { (self.pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
            self.hung = Some(now);
        }
    }

    fn allows_callers(&self, now: impl FnOnce() -> Instant) -> bool {
        self.last <= SYNC_ON_CALLER_MAX && self.hung.is_none_or(|at| now().duration_since(at) >= self.pause)
    }
}

/// What the sync lock guards.
#[derive(Debug, Default)]
pub struct SyncState {
    /// What the last sync saw.
    seen: LogEnd,
    pace: Pace,
}

impl SyncState {
    /// The log ends at `end` now, behind a record of that store time: what the last sync saw may be gone.
    pub fn log_truncated(&mut self, end: u64, timestamp: i64) {
        self.seen = LogEnd { end, timestamp };
    }
}

pub struct Flusher {
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    /// With the write pool: what is to be synced has to be in the files first.
    committer: Option<Arc<Committer>>,
    checkpoint: Arc<Checkpoint>,
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    mode: FlushMode,
    /// What a sync write-protects around its end, at most.
    chunk: u64,
    signal: Signal,
    /// Woken when more of the log is durable.
    dispatch: Arc<Signal>,
    growth: Arc<Growth>,
    stop: AtomicBool,
    /// For the flushed mark.
    waiters: Waiters,
    /// Of the thread that tells waiters when their time is up.
    lateness: Signal,
    /// One sync at a time; also held while the log is truncated.
    syncing: Mutex<SyncState>,
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("mode", &self.mode).field("waiters", &self.waiters).finish()
    }
}

impl Flusher {
    #[allow(clippy::too_many_arguments, reason = "composition: each part is used as it is")]
    pub fn new(
        config: &StoreConfig,
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        committer: Option<Arc<Committer>>,
        checkpoint: Arc<Checkpoint>,
        health: Arc<Health>,
        dispatch: Arc<Signal>,
        growth: Arc<Growth>,
    ) -> Flusher {
        let segment_len = segments.last().map_or(CHUNK_MAX, |last| last.len()) as u64;
        Flusher {
            segments,
            positions,
            committer,
            checkpoint,
            disk: Arc::clone(&config.disk),
            health,
            mode: config.flush.clone(),
            chunk: segment_len.clamp(PAGE, CHUNK_MAX as u64),
            signal: Signal::default(),
            dispatch,
            growth,
            stop: AtomicBool::new(false),
            waiters: Waiters::default(),
            lateness: Signal::default(),
            syncing: Mutex::default(),
        }
    }

    /// To be called after each append in async mode; in sync mode when nobody will call [`Flusher::flush_here`].
    pub fn tail_moved(&self) {
        self.signal.wake();
    }

    /// Calls `done` once everything before `end` is on the disk, or with the reason why not. On the thread that syncs, or
    /// at once on the caller's when the answer is known. Wakes nobody: see [`Flusher::wake`] and [`Flusher::flush_here`].
    pub fn when_flushed(&self, end: u64, done: Completion) {
        if self.positions.flushed() >= end {
            return done(Ok(()));
        }
        let timeout = match &self.mode {
            FlushMode::Sync { timeout } => *timeout,
            FlushMode::Async { .. } => DEFAULT_TIMEOUT,
        };
        // The thread sleeps only while there is nobody: who comes after the first need not wake it.
        if self.waiters.add(end, Instant::now() + timeout, done, || self.stopped()) {
            self.lateness.wake();
        }
    }

    /// Has the flush thread look at the waiters.
    pub fn wake(&self) {
        match self.mode {
            FlushMode::Sync { .. } => self.signal.wake(),
            // The thread may be in a nap.
            FlushMode::Async { .. } => self.signal.wake_now(),
        }
    }

    /// Syncs for those who wait, on the calling thread: with a fast disk that takes less than two threads need to wake each
    /// other. The caller sees to the dispatch. Left to the flush thread while another sync is under way, when the last one was
    /// slow, and for a while after one that hung: a sync cannot be broken off, and the caller's connections wait for it.
    pub fn flush_here(&self) {
        if !self.waiters.are_there() {
            // What nobody waits for has to get to the disk too, before consumers may see it.
            if matches!(self.mode, FlushMode::Sync { .. }) && self.is_behind() {
                self.wake();
            }
            return;
        }
        if let Some(syncing) = self.syncing.try_lock()
            && syncing.pace.allows_callers(Instant::now)
        {
            // An error has poisoned the store and told the waiters, or there is no room and the thread tries again.
            let _ = self.flush_held(syncing, Extent::All);
            if !self.waiters.are_there() {
                return;
            }
        }
        self.wake();
    }

    /// The thread that tells waiters when their time is up. It never waits for the disk.
    pub fn run_lateness(&self) {
        self.lateness.attach();
        let mut in_vain = 0;
        while !self.stop.load(Ordering::Acquire) {
            match self.waiters.expire(Instant::now(), NotSafe::DiskTimedOut) {
                Some(next) => {
                    in_vain = 0;
                    self.lateness.nap(next.saturating_duration_since(Instant::now()).min(LOOK_FOR_LATE));
                }
                None if in_vain < LOOKS_IN_VAIN => {
                    in_vain += 1;
                    self.lateness.nap(LOOK_FOR_LATE);
                }
                None => {
                    self.lateness.sleep_unless(None, || self.stop.load(Ordering::Acquire) || self.waiters.are_there())
                }
            }
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

    fn flush_held(&self, mut syncing: MutexGuard<'_, SyncState>, extent: Extent) -> io::Result<()> {
        let began = Instant::now();
        let seen = match self.end_in_files() {
            Ok(seen) => seen,
            Err(error) => {
                // If there is only no room, it is tried again, and who waits goes on waiting.
                if self.health.is_poisoned() {
                    self.waiters.fail_all();
                }
                return Err(error);
            }
        };
        let before = self.positions.flushed();
        let result = self.sync_written(&mut syncing, extent, seen, began);
        match &result {
            Ok(()) => {
                // Before anybody is told that his message is safe: the other copies are under way by then. Held until then, or whoever finds
                // that it is flushed already would tell those who wait.
                if self.positions.is_sync_flush() && self.positions.flushed() > before {
                    self.growth.tell(|| self.positions.flushed());
                }
                drop(syncing);
                self.waiters.complete(self.positions.flushed());
            }
            Err(error) => {
                drop(syncing);
                self.health.poison(format!("the commit log could not be synced: {error}"));
                self.waiters.fail_all();
            }
        }
        result
    }

    /// Where the log ends in its files. With the write pool everything written gets there first.
    fn end_in_files(&self) -> io::Result<LogEnd> {
        // The time first: the record it belongs to is below the end read after it.
        let timestamp = self.positions.written_timestamp.load(Ordering::Acquire);
        let end = match &self.committer {
            Some(committer) => committer.commit()?,
            None => self.positions.written(),
        };
        Ok(LogEnd { end, timestamp })
    }

    fn sync_written(&self, syncing: &mut SyncState, extent: Extent, now: LogEnd, began: Instant) -> io::Result<()> {
        if self.health.is_poisoned() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        let (from, written) = (self.positions.flushed(), now.end);
        let to = match extent {
            Extent::All => written,
            Extent::WholeChunks(chunk) => written - written % chunk,
        };
        if from >= to {
            return Ok(());
        }
        self.segments.sync(&*self.disk, from..to)?;
        let ended = Instant::now();
        syncing.pace.took(ended - began, ended);
        let before = std::mem::replace(&mut syncing.seen, now);
        let durable = [now, before].into_iter().find(|seen| seen.end <= to);
        self.checkpoint.log_is_durable(to, durable.map(|seen| seen.timestamp));
        if from < self.positions.looks_torn.load(Ordering::Acquire) {
            // Before the sync counts: only the checkpoint can vouch for such a record.
            self.checkpoint.save(&*self.disk)?;
        }
        self.positions.flushed.store(to, Ordering::Release);
        if to == written
            && let Some(file) = self.segments.find(to)
        {
            // The chunk of the tail is write-protected now. Inside the file, whose length is a usize.
            let at = (to - file.start()) as usize;
            file.map_writable(at..file.prepared().min(at.next_multiple_of(CHUNK_MAX)));
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.positions.written() > self.positions.flushed()
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
            self.waiters.fail_all();
        }
    }

    fn run_sync(&self) {
        while !self.stopped() {
            if self.is_behind() {
                if self.flush().is_err() {
                    // It has poisoned the store, which ends the loop, or there is no room.
                    self.signal.pause(RETRY_PAUSE, || self.stopped());
                    continue;
                }
            } else {
                // A waiter that came while its bytes were being flushed. Whoever did that tells the feeds first.
                drop(self.syncing.lock());
                self.waiters.complete(self.positions.flushed());
            }
            self.signal.sleep_unless(None, || self.stopped() || self.is_behind() || self.due());
        }
    }

    /// Whether a waiter's bytes are flushed already.
    fn due(&self) -> bool {
        self.waiters.first_end().is_some_and(|end| end <= self.positions.flushed())
    }

    fn run_async(&self, interval: Duration, least_pages: u64, thorough_interval: Duration) {
        let mut last_thorough = Instant::now();
        while !self.stopped() {
            self.signal.sleep_unless(None, || self.stopped() || self.is_behind() || self.waiters.are_there());
            // Something is to be flushed: until it is, nobody needs to wake this thread.
            let mut last_flush = Instant::now();
            let mut started = self.positions.flushed();
            while !self.stopped() && (self.is_behind() || self.waiters.are_there()) {
                if !self.waiters.are_there() {
                    self.signal.nap(interval / 5);
                }
                let (written, flushed) = (self.positions.written(), self.positions.flushed());
                started = started.max(flushed);
                let whole_chunks = written - written % self.chunk;
                if whole_chunks >= started + WRITE_BACK_MIN {
                    self.segments.start_write_back(started..whole_chunks);
                    started = whole_chunks;
                }
                let thorough = last_thorough.elapsed() >= thorough_interval;
                let enough = (written / PAGE).saturating_sub(flushed / PAGE) >= least_pages;
                let due = last_flush.elapsed() >= interval && (enough || thorough);
                if due || self.waiters.are_there() {
                    // While the log grows, the chunk that appends are in stays as it is: a sync write-protects what it
                    // writes, and the next append would wait for the page, sometimes as long as the sync takes.
                    let grows = written.saturating_sub(flushed) >= 2 * self.chunk;
                    let extent =
                        if grows && !self.waiters.are_there() { Extent::WholeChunks(self.chunk) } else { Extent::All };
                    if self.flush_as(extent).is_err() {
                        self.signal.pause(RETRY_PAUSE, || self.stopped());
                        continue;
                    }
                    last_flush = Instant::now();
                    if thorough {
                        last_thorough = Instant::now();
                    }
                }
            }
        }
    }

    /// Tells the threads to end. Waiters are answered by the last flush, or by [`Flusher::abandon`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
        self.lateness.wake_now();
    }

    /// Flushes as is done in async mode while the log grows, with chunks of a page: up to somewhere in a record, mostly.
    #[cfg(test)]
    pub fn flush_whole_chunks(&self) -> io::Result<()> {
        self.flush_as(Extent::WholeChunks(PAGE))
    }

    /// Whether a sync is under way.
    #[cfg(test)]
    pub fn is_syncing(&self) -> bool {
        self.syncing.is_locked()
    }

    /// Answers the waiters that are left. After the thread has ended.
    pub fn abandon(&self) {
        self.waiters.fail_all();
    }

    /// See [`Waiters::take_behind`]. With syncs kept out: a later one would tell them that they are safe.
    pub fn take_waiters_behind(&self, mark: u64) -> Taken {
        self.waiters.take_behind(mark)
    }

    /// Keeps syncs out while the log is truncated.
    pub fn hold(&self) -> MutexGuard<'_, SyncState> {
        self.syncing.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_is_left_alone_longer_each_time() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let fast = Duration::from_micros(90);
        assert!(!pace.allows_callers(|| now), "nothing is known yet");
        pace.took(fast, now);
        assert!(pace.allows_callers(|| now));
        pace.took(Duration::from_millis(3), now);
        assert!(!pace.allows_callers(|| now), "slow");
        pace.took(fast, now);
        assert!(pace.allows_callers(|| now));
        for pause in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
            pace.took(HANG_MIN, now);
            pace.took(fast, now);
            assert!(!pace.allows_callers(|| now + pause - Duration::from_millis(1)), "{pause:?}");
            assert!(pace.allows_callers(|| now + pause), "{pause:?}");
            now += pause;
        }
        now += HANG_FORGOTTEN;
        pace.took(HANG_MIN, now);
        pace.took(fast, now);
        assert!(pace.allows_callers(|| now + PAUSE_MIN));
    }
}
