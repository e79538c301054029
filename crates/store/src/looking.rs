//! Looking at mapped bytes without trusting that they are in memory.
//!
//! A page fault that fails (a bad sector, a file that somebody made shorter) is SIGBUS and ends the process; one that waits
//! for the disk holds up every connection of its thread. So what a reader wants is first seen in memory, and read from
//! the file if it is not there: that may wait, where the caller allows it, and may fail, which is an error of that one
//! request.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;

use crate::disk::{Disk, MappedRange};

/// What was seen in memory counts as being there for so long. A page that leaves it in between could be read a moment ago.
pub const SEEN_FOR: Duration = Duration::from_millis(10);
const SEEN_FOR_MS: u64 = SEEN_FOR.as_millis() as u64;
/// Who reads here and there looks at what he reads; who reads on looks at a whole block, which takes 3 us, and not again.
const BLOCK: usize = 256 * 1024;
/// What is not in memory is read in steps of so many bytes.
const STEP: usize = 256 * 1024;

/// What a read may cost the thread it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// The thread serves connections. What is not in memory, or is much work, is [`ReadError::NeedsTime`] here.
    Brief,
    /// The thread may wait for the disk.
    Full,
}

/// Why stored messages cannot be read now. Nothing else is affected.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// With [`Effort::Brief`] only: try again with [`Effort::Full`], on a thread that may wait.
    #[error("reading this takes longer than may be waited here")]
    NeedsTime,
    /// The disk does not give the bytes.
    #[error("cannot read {len} bytes at {at} of {}: {source}", path.display())]
    Io { path: PathBuf, at: usize, len: usize, source: io::Error },
}

/// How one read looks at files.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    disk: &'a dyn Disk,
    pub effort: Effort,
    now_ms: u64,
}

impl<'a> Look<'a> {
    pub fn new(disk: &'a dyn Disk, effort: Effort) -> Look<'a> {
        Look::at(disk, effort, Instant::now())
    }

    /// For a caller that knows the time.
    pub fn at(disk: &'a dyn Disk, effort: Effort, now: Instant) -> Look<'a> {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        // From a second on, so that what was never seen is long ago.
        let since = now.saturating_duration_since(*BEGIN) + Duration::from_secs(1);
        Look { disk, effort, now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Whether `range` of a mapping is in memory. Only the first `used` bytes of the file have anything in them.
    pub fn sees<const N: usize>(
        &self,
        path: &Path,
        map: &MmapRaw,
        used: usize,
        seen: &Seen<N>,
        range: &Range<usize>,
    ) -> bool {
        let is_resident = |part: Range<usize>| self.disk.is_resident(&MappedRange::new(path, map, part));
        let mut at = range.start;
        while at < range.end {
            let block = at / BLOCK;
            let end = (block + 1) * BLOCK;
            let part = at..range.end.min(end);
            at = part.end;
            if seen.is_fresh(block, self.now_ms) {
                continue;
            }
            let whole = block * BLOCK..end.min(used);
            if part.end <= whole.end && seen.is_touched(block, self.now_ms) && is_resident(whole) {
                seen.note(block, WHOLE, self.now_ms);
            } else if is_resident(part) {
                seen.note(block, 0, self.now_ms);
            } else {
                return false;
            }
        }
        true
    }

    /// Reads a range that is not in memory, which brings it there.
    pub fn fetch(
        &self,
        path: &Path,
        file: impl FnOnce() -> io::Result<File>,
        range: Range<usize>,
    ) -> Result<(), ReadError> {
        if self.effort == Effort::Brief {
            return Err(ReadError::NeedsTime);
        }
        let failed = |at, len, source| ReadError::Io { path: path.to_owned(), at, len, source };
        let file = file().map_err(|source| failed(range.start, range.len(), source))?;
        let mut bytes = vec![0; range.len().min(STEP)];
        for at in range.clone().step_by(STEP) {
            let len = (range.end - at).min(STEP);
            self.disk.read(path, &file, &mut bytes[..len], at as u64).map_err(|source| failed(at, len, source))?;
        }
        Ok(())
    }
}

/// The blocks of a file that were looked at last: number, whether all of it was there, and when, in one word.
#[derive(Debug)]
pub struct Seen<const N: usize>([AtomicU64; N]);

const TIME_BITS: u32 = 40;
const WHOLE: u64 = 1 << TIME_BITS;

impl<const N: usize> Default for Seen<N> {
    fn default() -> Seen<N> {
        Seen([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Seen<N> {
    /// The whole block was in memory a moment ago.
    fn is_fresh(&self, block: usize, now_ms: u64) -> bool {
        self.is_recent(block, WHOLE, now_ms)
    }

    /// A part of it was: more of it will be asked for.
    fn is_touched(&self, block: usize, now_ms: u64) -> bool {
        self.is_recent(block, 0, now_ms)
    }

    fn is_recent(&self, block: usize, extent: u64, now_ms: u64) -> bool {
        let word = self.0[block % N].load(Ordering::Relaxed);
        let seen_ms = word & (WHOLE - 1);
        word - seen_ms == Seen::<N>::tag(block, extent) && now_ms.saturating_sub(seen_ms) <= SEEN_FOR_MS
    }

    fn note(&self, block: usize, extent: u64, now_ms: u64) {
        self.0[block % N].store(Seen::<N>::tag(block, extent) | now_ms, Ordering::Relaxed);
    }

    fn tag(block: usize, extent: u64) -> u64 {
        (block as u64) << (TIME_BITS + 1) | extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_believed_for_a_moment() {
        let seen = Seen::<2>::default();
        assert!(!seen.is_fresh(0, 1000) && !seen.is_touched(0, 1000));
        seen.note(0, WHOLE, 1000);
        seen.note(3, 0, 1001);
        assert!(seen.is_fresh(0, 1000 + SEEN_FOR_MS) && !seen.is_touched(0, 1000));
        assert!(seen.is_touched(3, 1001) && !seen.is_fresh(3, 1001));
        assert!(!seen.is_fresh(0, 1001 + SEEN_FOR_MS) && !seen.is_touched(1, 1001) && !seen.is_fresh(2, 1000));
        seen.note(2, WHOLE, 1000);
        assert!(seen.is_fresh(2, 1000) && !seen.is_fresh(0, 1000));
    }
}
