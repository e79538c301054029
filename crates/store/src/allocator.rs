//! Makes the next commit log segment and keeps the bytes ahead of the tail ready, so that an append finds both.
//!
//! Two threads: making a segment waits for the disk, and appends that need ready bytes must not wait with it.
//!
//! Java: AllocateMappedFileService and its warm-up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::commit::Committer;
use crate::error::AppendError;
use crate::log_dirs::LogDirs;
use crate::mapped_file::{CHUNK_MAX, LogFile};
use crate::segments::Segments;
use crate::signal::Signal;
use crate::watermarks::Positions;

/// Least and most bytes kept in memory ahead of the tail; in between it is what a quarter of a second of writing takes.
const AHEAD_MIN: u64 = 4 << 20;
const AHEAD_MAX: u64 = 64 << 20;
/// Readied of the next segment before the log gets there.
const FIRST_BYTES: usize = 1 << 20;
/// An append waits so long for a segment or a part of one. Java: AllocateMappedFileService.waitTimeOut.
const SEGMENT_WAIT: Duration = Duration::from_secs(5);
/// While the write pool has no free buffer, looked at again so often.
const STARVED_PAUSE: Duration = Duration::from_millis(1);
/// After a failure, the next try is not sooner; and while nobody waits for a segment, each pause is twice the one before up to the most.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

const NO_BUFFER: &str = "the write pool has no free buffer: the disk does not keep up with what is written";

#[derive(Debug)]
pub struct Allocator {
    dirs: Arc<LogDirs>,
    segment_len: u64,
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    /// Of the thread that readies bytes.
    signal: Signal,
    /// Of the thread that makes segments.
    maker: Signal,
    stop: AtomicBool,
    /// Bytes readied in one go.
    chunk: usize,
    /// With the write pool: bytes are readied with its buffers.
    committer: Option<Arc<Committer>>,
    /// The pool had no free buffer when one was needed last.
    starved: AtomicBool,
    /// When the tail is past this, the thread has something to do.
    wake_at: AtomicU64,
    next: Mutex<Next>,
    /// Held while a segment is made and while the log is truncated, so that one path is never made, or removed, by two.
    making: Mutex<()>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Next {
    /// Where the next segment starts: the end of the last one that the log has begun. Moves when one is taken.
    start: u64,
    file: Option<LogFile>,
    /// An append waits for it.
    wanted: bool,
    /// An append waits until the log is ready to here.
    wanted_ready: u64,
    failure: Option<Failure>,
    /// Only the first failure in a row goes into the trace log.
    failing: bool,
    /// Why the log's next bytes could not be given a buffer of the write pool; until one has been, or none is needed.
    not_staged: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    when: Instant,
    kind: io::ErrorKind,
    reason: String,
    /// Where nobody waits, it is tried again after this.
    pause: Duration,
}

impl Failure {
    fn of(error: &io::Error, before: Option<&Failure>) -> Failure {
        let pause = before.map_or(RETRY_PAUSE, |before| RETRY_PAUSE_MAX.min(2 * before.pause));
        Failure { when: Instant::now(), kind: error.kind(), reason: error.to_string(), pause }
    }

    fn pause_left(&self) -> Duration {
        self.pause.saturating_sub(self.when.elapsed())
    }

    /// It is too soon to try again, also for who waits.
    fn is_fresh(&self) -> bool {
        self.when.elapsed() < RETRY_PAUSE
    }
}

impl Allocator {
    pub fn new(
        dirs: Arc<LogDirs>,
        segment_len: u64,
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        sync_flush: bool,
        committer: Option<Arc<Committer>>,
    ) -> Allocator {
        let start = segments.last().map_or(positions.written(), |last| last.end());
        Allocator {
            dirs,
            segment_len,
            segments,
            // A sync writes whole chunks: with one sync per group of appends they have to be small.
            chunk: if sync_flush { 4096 } else { CHUNK_MAX },
            committer,
            starved: AtomicBool::new(false),
            wake_at: AtomicU64::new(0),
            positions,
            signal: Signal::default(),
            maker: Signal::default(),
            stop: AtomicBool::new(false),
            next: Mutex::new(Next { start, ..Next::default() }),
            making: Mutex::new(()),
            ready: Condvar::new(),
        }
    }

    /// To be called after each append, outside the lock: two loads when nothing is to be done.
    pub fn tail_moved(&self, end: u64) {
        if end >= self.wake_at.load(Ordering::Relaxed) {
            self.signal.wake();
        }
    }

    /// The segment that starts at `start`, if it is ready. Never blocks on the disk.
    pub fn take(&self, start: u64) -> Option<LogFile> {
        let mut next = self.next.lock();
        let file = next.file.take_if(|file| file.start() == start)?;
        next.start = file.end();
        Some(file)
    }

    /// Waits until the segment at `start` is ready to be taken.
    pub fn wait(&self, start: u64) -> Result<(), AppendError> {
        let give_up = Instant::now() + SEGMENT_WAIT;
        let mut next = self.next.lock();
        loop {
            // Another append may have rolled the log meanwhile.
            if next.file.is_some() || next.start > start {
                return Ok(());
            }
            if let Some(failure) = next.failure.as_ref().filter(|failure| failure.is_fresh()) {
                return Err(self.refusal(failure));
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(AppendError::Closed);
            }
            next.wanted = true;
            self.maker.wake();
            if self.ready.wait_until(&mut next, give_up).timed_out() {
                return Err(AppendError::Extend { reason: format!("no segment after {} s", SEGMENT_WAIT.as_secs()) });
            }
        }
    }

    /// Waits until `needed` bytes can be appended to `file`.
    pub fn wait_until_ready(&self, file: &LogFile, needed: usize) -> Result<(), AppendError> {
        let give_up = Instant::now() + SEGMENT_WAIT;
        let mut next = self.next.lock();
        while file.ready() < needed && file.room() >= needed {
            if !self.is_last(file) {
                // The log was truncated, and goes on elsewhere.
                return Ok(());
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(AppendError::Closed);
            }
            if let Some(failure) = next.not_staged.as_ref().filter(|failure| failure.is_fresh()) {
                return Err(self.refusal(failure));
            }
            if self.fails_fast() && self.is_starved() {
                return Err(AppendError::Extend { reason: NO_BUFFER.to_owned() });
            }
            let end = file.start() + (file.written() + needed) as u64;
            next.wanted_ready = next.wanted_ready.max(end);
            self.signal.wake();
            if self.ready.wait_until(&mut next, give_up).timed_out() {
                let cause = if self.is_starved() { NO_BUFFER } else { "the log's next bytes are not in memory" };
                let reason = format!("{cause} after {} s", SEGMENT_WAIT.as_secs());
                return Err(AppendError::Extend { reason });
            }
        }
        Ok(())
    }

    fn refusal(&self, failure: &Failure) -> AppendError {
        let reason = failure.reason.clone();
        match failure.kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                AppendError::DiskFull { path: self.dirs.first().to_owned(), reason }
            }
            _ => AppendError::Extend { reason },
        }
    }

    /// The segment that the log begins with, or goes on in after a truncation: the one that is ready, or a new one.
    pub fn begin(&self, start: u64) -> io::Result<LogFile> {
        let _making = self.making.lock();
        if let Some(file) = self.take(start) {
            return Ok(file);
        }
        let file = self.dirs.make_segment(start)?;
        self.next.lock().start = file.end();
        Ok(file)
    }

    /// The thread that readies bytes.
    pub fn run(&self) {
        self.signal.attach();
        let mut last = (Instant::now(), self.positions.written());
        while !self.stop.load(Ordering::Acquire) {
            let tail = self.positions.written();
            let (then, tail_then) = std::mem::replace(&mut last, (Instant::now(), tail));
            let ahead = ahead_for(tail.saturating_sub(tail_then), then.elapsed());
            self.make_ready(tail, ahead);
            if self.segment_is_due() {
                self.maker.wake();
            }
            if self.is_starved() {
                self.signal.nap(STARVED_PAUSE);
                continue;
            }
            if self.next.lock().not_staged.is_some() {
                self.signal.pause(RETRY_PAUSE, || self.stop.load(Ordering::Acquire));
                continue;
            }
            self.signal.sleep_unless(None, || {
                self.stop.load(Ordering::Acquire)
                    || self.next.lock().wanted_ready > 0
                    || self.positions.written() >= self.wake_at.load(Ordering::Relaxed)
            });
        }
        self.ready.notify_all();
    }

    /// The thread that makes segments.
    pub fn run_maker(&self) {
        self.maker.attach();
        while !self.stop.load(Ordering::Acquire) {
            if self.segment_is_due() {
                self.make_next();
            }
            // While there is no room, looked at again now and then.
            let pause = self.next.lock().failure.as_ref().map(|failure| failure.pause_left().max(RETRY_PAUSE));
            self.maker.sleep_unless(pause, || self.stop.load(Ordering::Acquire) || self.segment_is_due());
        }
        self.ready.notify_all();
    }

    /// Whether the next segment is to be made: an append waits for it, or the present one is half full. After a failure
    /// only who waits has it tried again before the pause is over.
    fn segment_is_due(&self) -> bool {
        let next = self.next.lock();
        let half = next.start.saturating_sub(self.segment_len / 2);
        let failed = next.failure.as_ref().is_some_and(|failure| !failure.pause_left().is_zero());
        next.file.is_none() && (next.wanted || (self.positions.written() >= half && !failed))
    }

    fn make_next(&self) {
        let _making = self.making.lock();
        // Nobody takes a segment that is not there, so the place stays the same until this is done.
        let start = {
            let next = self.next.lock();
            if next.file.is_some() || self.stop.load(Ordering::Acquire) {
                return;
            }
            next.start
        };
        // Made, and its first bytes readied, before the log gets there.
        let made = self.dirs.make_segment(start).inspect(|file| {
            // A buffer of the pool is of more use where the log is now.
            while self.committer.is_none() && file.prepared() < FIRST_BYTES {
                if !file.prepare(self.chunk) {
                    break;
                }
                std::thread::yield_now(); // see make_ready
            }
        });
        let mut next = self.next.lock();
        next.wanted = false;
        match made {
            Ok(file) => {
                next.file = Some(file);
                next.failure = None;
                next.failing = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut next.failing, true) {
                    tracing::warn!(%error, "cannot make the next commit log segment; trying again while the log needs it");
                }
                next.failure = Some(Failure::of(&error, next.failure.as_ref()));
            }
        }
        drop(next);
        self.ready.notify_all();
    }

    fn make_ready(&self, tail: u64, ahead: u64) {
        let Some(current) = self.segments.last() else { return };
        let ahead = self.committer.as_ref().map_or(ahead, |committer| ahead.min(committer.pool.buffer_len() as u64));
        let end = |file: &LogFile| file.start() + file.prepared() as u64;
        let goal = |ready: u64| {
            let wanted = std::mem::take(&mut self.next.lock().wanted_ready);
            // Waiters look again at every chunk.
            self.ready.notify_all();
            ready < (tail + ahead).max(wanted)
        };
        loop {
            if !goal(end(&current)) || self.stop.load(Ordering::Acquire) {
                // What was wanted is there, or nobody waits for it any more: nobody is to be refused for want of a buffer.
                self.note_staging(false, None);
                break;
            }
            let goes_on = match &self.committer {
                None => current.prepare(self.chunk),
                Some(committer) => self.stage(&current, committer),
            };
            if !goes_on {
                break;
            }
            // A thread that appends may be waiting for this core, and a burst of chunks takes milliseconds: it goes first
            // while it has enough to go on with.
            if end(&current).saturating_sub(self.positions.written()) > ahead / 4 {
                std::thread::yield_now();
            }
        }
        let at = end(&current);
        // Next time: an eighth of what is ahead is used up, the middle of the segment is reached, or a new segment begins. Often
        // and little, so that most of the window is still there when this thread gets the core late.
        let half = current.start() + current.len() as u64 / 2;
        let mut wake_at = if at >= current.end() { current.end() } else { at.saturating_sub(ahead - ahead / 8) };
        if tail < half {
            wake_at = wake_at.min(half);
        }
        self.wake_at.store(wake_at.max(tail + 1), Ordering::Relaxed);
    }

    /// Whether the segment that is due is made, or cannot be at this moment.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        !self.segment_is_due()
    }

    /// Readies a buffer's length more: a free one, or the oldest that is in its file by now. False when there is none, or no need.
    fn stage(&self, file: &LogFile, committer: &Committer) -> bool {
        let pool = &committer.pool;
        if file.prepared() >= file.len() {
            self.note_staging(false, None);
            return false;
        }
        let stage = || file.stage(&*committer.disk, pool);
        let staged = match stage() {
            Ok(false) => self.segments.unstage_oldest().and_then(|freed| if freed { stage() } else { Ok(false) }),
            done => done,
        };
        match staged {
            Ok(is_staged) => {
                self.note_staging(!is_staged, None);
                if !is_staged {
                    committer.hurry();
                }
                is_staged
            }
            // The log was truncated: its files are no longer where they were.
            Err(_) if !self.is_last(file) => false,
            // No slow disk, which gives buffers back: whoever waits is told what it is.
            Err(error) => {
                self.note_staging(false, Some(&error));
                false
            }
        }
    }

    fn is_last(&self, file: &LogFile) -> bool {
        self.segments.last().is_some_and(|last| std::ptr::eq(&*last, file))
    }

    /// What came of the last look for a buffer of the write pool: none is free, or another reason why there is none.
    fn note_staging(&self, starved: bool, error: Option<&io::Error>) {
        self.starved.store(starved, Ordering::Release);
        if self.committer.is_none() {
            return;
        }
        let failure = error.map(|error| Failure::of(error, None));
        let before = std::mem::replace(&mut self.next.lock().not_staged, failure);
        if let Some(error) = error {
            // Only the first in a row.
            if before.is_none() {
                tracing::warn!(%error, "a buffer of the write pool cannot be mapped over the commit log; trying again");
            }
            self.ready.notify_all();
        }
    }

    /// Whether who needs a buffer of the write pool is refused rather than waits.
    pub fn fails_fast(&self) -> bool {
        self.committer.as_ref().is_some_and(|committer| committer.pool.config().fails_fast)
    }

    /// Whether the next append that needs a buffer of the write pool would have to wait for one.
    pub fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }

    /// Tells the threads to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
        self.maker.wake();
        // Whoever waits has seen that, or is asleep by now.
        drop(self.next.lock());
        self.ready.notify_all();
    }

    /// Removes the prepared segment that nobody needed. After the threads have ended.
    pub fn discard(&self) -> io::Result<()> {
        match self.next.lock().file.take() {
            Some(file) => self.dirs.remove_segment(file.path()),
            None => Ok(()),
        }
    }

    /// Keeps segments from being made for as long as the guard lives.
    pub fn hold(&self) -> MutexGuard<'_, ()> {
        self.making.lock()
    }

    /// Lets go of the segment that was made ahead; its file is still there. While nobody makes one.
    pub fn forget_next(&self) {
        self.next.lock().file = None;
    }

    /// The log now goes on in another segment, which ends at `end`. While nobody makes one.
    pub fn log_truncated(&self, end: u64) {
        self.wake_at.store(0, Ordering::Relaxed);
        let mut next = self.next.lock();
        next.start = end;
        // Of the file before.
        next.not_staged = None;
        drop(next);
        // Whoever waits for the one before looks again.
        self.ready.notify_all();
    }
}

/// What is to be in memory ahead of a tail that moved so far in this time.
fn ahead_for(moved: u64, elapsed: Duration) -> u64 {
    let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).max(1);
    (moved.saturating_mul(250_000) / micros).clamp(AHEAD_MIN, AHEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_a_row_is_waited_for_longer() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let failures =
            std::iter::successors(Some(Failure::of(&error, None)), |before| Some(Failure::of(&error, Some(before))));
        let pauses: Vec<_> = failures.take(7).map(|failure| failure.pause.as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn the_window_follows_the_rate() {
        assert_eq!(ahead_for(0, Duration::from_secs(1)), AHEAD_MIN);
        assert_eq!(ahead_for(100 << 20, Duration::from_secs(1)), 25 << 20);
        assert_eq!(ahead_for(u64::MAX, Duration::ZERO), AHEAD_MAX);
    }
}
