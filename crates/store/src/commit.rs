//! Brings the log from the write pool to its files: a moment after it was written, and before each sync. Only there with the pool.
//!
//! What is not committed yet is lost with the process. Consumers do not see it.
//! Java: CommitLog.CommitRealTimeService.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, PAGE};
use crate::growth::Growth;
use crate::health::{Health, Shortage};
use crate::segments::Segments;
use crate::signal::Signal;
use crate::watermarks::Positions;
use crate::write_pool::WritePool;

/// After a commit that found no room, the next one is not sooner.
pub const RETRY_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Committer {
    pub pool: Arc<WritePool>,
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    pub disk: Arc<dyn Disk>,
    health: Arc<Health>,
    signal: Signal,
    /// Woken when more of the log is committed.
    dispatch: Arc<Signal>,
    growth: Arc<Growth>,
    /// Somebody needs a buffer.
    hurried: AtomicBool,
    stop: AtomicBool,
    /// One commit at a time; also held while the log is truncated.
    committing: Mutex<()>,
}

impl Committer {
    #[allow(clippy::too_many_arguments, reason = "composition: each part is used as it is")]
    pub fn new(
        pool: WritePool,
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        disk: Arc<dyn Disk>,
        health: Arc<Health>,
        dispatch: Arc<Signal>,
        growth: Arc<Growth>,
    ) -> Committer {
        Committer {
            pool: Arc::new(pool),
            segments,
            positions,
            disk,
            health,
            signal: Signal::default(),
            dispatch,
            growth,
            hurried: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            committing: Mutex::default(),
        }
    }

    /// To be called after each append with asynchronous flush. With sync flush whoever syncs commits first.
    pub fn tail_moved(&self) {
        self.signal.wake();
    }

    /// Has the thread commit now: the pool has no free buffer.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    /// Commits everything written so far; how far that is. For want of room it can be tried again, and the store takes no messages until
    /// it has succeeded. After any other error the store is poisoned: nobody knows what the file has.
    pub fn commit(&self) -> io::Result<u64> {
        self.commit_as(true)
    }

    /// [`Committer::commit`]; without `all` of whole pages only, if there is one.
    pub fn commit_as(&self, all: bool) -> io::Result<u64> {
        let before = self.positions.committed();
        let end = self.commit_untold(all)?;
        // With sync flush the sync comes first.
        if end > before && !self.positions.is_sync_flush() {
            self.growth.tell(|| self.positions.committed());
        }
        Ok(end)
    }

    /// [`Committer::commit_as`] for who holds locks that a listener for the log's growth may want: none is told.
    pub fn commit_untold(&self, all: bool) -> io::Result<u64> {
        let _committing = self.committing.lock();
        if self.health.is_poisoned() {
            return Err(io::Error::other("an earlier write failed"));
        }
        // What an append has only put into the segment is not the log's yet.
        let (before, written) = (self.positions.committed(), self.positions.written());
        let end = loop {
            let from = self.positions.committed();
            let Some(file) = self.segments.find(from) else { break from };
            // Inside the file, whose length is a usize.
            let limit = (written.clamp(file.start(), file.end()) - file.start()) as usize;
            let done = file.commit(&*self.disk, limit, all).inspect_err(|error| self.has_failed(error))?;
            let to = file.start() + done as u64;
            self.positions.committed_to(to);
            if to < file.end() {
                break to;
            }
        };
        // Whoever commits, consumers see it now. With sync flush they see it after the sync.
        if end > before && !self.positions.is_sync_flush() {
            self.dispatch.wake();
        }
        self.health.disk_has_room(Shortage::Commit);
        Ok(end)
    }

    fn has_failed(&self, error: &io::Error) {
        let reason = format!("the write pool cannot be brought to the commit log: {error}");
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let dir = self.segments.last().and_then(|last| last.path().parent().map(ToOwned::to_owned));
            self.health.disk_full(Shortage::Commit, &dir.unwrap_or_default(), reason);
        } else {
            self.health.poison(reason);
        }
    }

    /// Bytes that are not committed.
    pub fn behind(&self) -> u64 {
        // In this order, or more would be committed than written.
        let committed = self.positions.committed();
        self.positions.written().saturating_sub(committed)
    }

    /// Buffers that have none of these in them.
    pub fn buffers_free(&self) -> usize {
        let in_use = usize::try_from(self.behind()).unwrap_or(usize::MAX).div_ceil(self.pool.buffer_len());
        self.pool.buffers().saturating_sub(in_use)
    }

    fn is_due(&self) -> bool {
        self.hurried.load(Ordering::Acquire) || !self.positions.is_sync_flush() && self.behind() > 0
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.health.is_poisoned()
    }

    /// The thread.
    pub fn run(&self) {
        self.signal.attach();
        let config = self.pool.config();
        let mut last_thorough = Instant::now();
        while !self.stopped() {
            self.signal.sleep_unless(None, || self.stopped() || self.is_due());
            // Until all is committed, appends need not wake this thread.
            while !self.stopped() && self.is_due() {
                if !self.hurried.load(Ordering::Acquire) {
                    self.signal.nap(config.commit_interval);
                }
                let hurried = self.hurried.swap(false, Ordering::AcqRel);
                let pages = self.behind() / PAGE as u64;
                let thorough = last_thorough.elapsed() >= config.commit_thorough_interval;
                if self.stopped() || !hurried && !thorough && pages < config.commit_least_pages {
                    continue;
                }
                // While much comes in, the page that appends are in waits for the next time.
                if self.commit_as(thorough).is_err() {
                    // It has said why.
                    self.signal.pause(RETRY_PAUSE, || self.stopped());
                    continue;
                }
                if thorough {
                    last_thorough = Instant::now();
                }
            }
        }
    }

    /// Tells the thread to end. What it has not committed stays so.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    /// Keeps commits out while the log is truncated.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.committing.lock()
    }
}
