//! Looking at mapped bytes without trusting that they are in memory.
//!
//! A page fault that fails (a bad sector, a file that somebody made shorter) gives zeros and a loss (`mapping`); one that waits
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

use crate::disk::{Disk, MappedRange};
use crate::mapping::Mapping;

/// What was seen in memory counts as being there for so long: what leaves it in between could be read a moment ago.
pub const SEEN_FOR: Duration = Duration::from_millis(10);
const SEEN_FOR_MS: u64 = SEEN_FOR.as_millis() as u64;
/// A read here and there looks at its own bytes. One that goes from front to back looks at a whole block, which takes 3 us, and for a
/// moment not at the same again.
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
    reads_on: bool,
    /// When the read began. One that takes long believes all the time what it has seen itself.
    now_ms: u64,
}

/// A mapped file, for who looks at it.
pub struct MappedFile<'a, const N: usize> {
    pub path: &'a Path,
    pub map: &'a Mapping,
    /// So many of its bytes have anything in them.
    pub used: usize,
    pub seen: &'a SeenBlocks<N>,
}

impl<'a> Look<'a> {
    pub fn new(disk: &'a dyn Disk, effort: Effort) -> Look<'a> {
        Look::at(disk, effort, Instant::now())
    }

    /// For a caller that knows the time.
    pub fn at(disk: &'a dyn Disk, effort: Effort, now: Instant) -> Look<'a> {
        static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        // From a while on, so that what was never seen is long ago.
        let since = now.saturating_duration_since(*BEGIN) + Duration::from_secs(60);
        Look { disk, effort, reads_on: false, now_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// For who reads from front to back, and may wait: looks at each block once, and reads all of it if need be.
    pub fn reading_on(disk: &'a dyn Disk) -> Look<'a> {
        Look { reads_on: true, ..Look::new(disk, Effort::Full) }
    }

    /// Makes sure that `range` of a file is in memory, if need be by reading it. Gives the end of what this read need not ask for
    /// again, which may lie behind that of the range.
    pub fn bring<const N: usize>(
        &self,
        file: &MappedFile<'_, N>,
        open: impl Fn() -> io::Result<File>,
        range: Range<usize>,
    ) -> Result<usize, ReadError> {
        let end = range.end;
        if !self.reads_on {
            self.bring_part(file, open, range)?;
        } else {
            self.bring_blocks(file, open, range)?;
        }
        let last = end.saturating_sub(1) / BLOCK;
        Ok(if file.seen.is_fresh(last, self.now_ms) { file.block(last).end.max(end) } else { end })
    }

    fn bring_blocks<const N: usize>(
        &self,
        file: &MappedFile<'_, N>,
        open: impl Fn() -> io::Result<File>,
        range: Range<usize>,
    ) -> Result<(), ReadError> {
        for (block, part) in blocks(range) {
            if file.seen.is_fresh(block, self.now_ms) {
                continue;
            }
            let whole = file.block(block);
            let in_vain = file.seen.is_touched(block, self.now_ms);
            if !in_vain
                && part.end <= whole.end
                && (self.is_resident(file, whole.clone()) || self.fetch(file.path, &open, whole).is_ok())
            {
                file.seen.note(block, WHOLE, self.now_ms);
            } else {
                // What the disk does not give may be something in the block that nobody wants. That is not tried again.
                file.seen.note(block, 0, self.now_ms);
                self.bring_part(file, &open, part)?;
            }
        }
        Ok(())
    }

    fn bring_part<const N: usize>(
        &self,
        file: &MappedFile<'_, N>,
        open: impl Fn() -> io::Result<File>,
        range: Range<usize>,
    ) -> Result<(), ReadError> {
        if self.sees(file, &range) { Ok(()) } else { self.fetch(file.path, open, range) }
    }

    /// Whether `range` is in memory.
    fn sees<const N: usize>(&self, file: &MappedFile<'_, N>, range: &Range<usize>) -> bool {
        for (block, part) in blocks(range.clone()) {
            if file.seen.is_fresh(block, self.now_ms) {
                continue;
            }
            let whole = file.block(block);
            if part.end <= whole.end && file.seen.is_touched(block, self.now_ms) && self.is_resident(file, whole) {
                file.seen.note(block, WHOLE, self.now_ms);
            } else if self.is_resident(file, part) {
                file.seen.note(block, 0, self.now_ms);
            } else {
                return false;
            }
        }
        true
    }

    fn is_resident<const N: usize>(&self, file: &MappedFile<'_, N>, range: Range<usize>) -> bool {
        self.disk.is_resident(&MappedRange::new(file.path, file.map, range))
    }

    /// Reads a range that is not in memory, which brings it there.
    fn fetch(&self, path: &Path, open: impl Fn() -> io::Result<File>, range: Range<usize>) -> Result<(), ReadError> {
        if self.effort == Effort::Brief {
            return Err(ReadError::NeedsTime);
        }
        let failed = |at, len, source| ReadError::Io { path: path.to_owned(), at, len, source };
        let file = open().map_err(|source| failed(range.start, range.len(), source))?;
        let mut bytes = vec![0; range.len().min(STEP)];
        for at in range.clone().step_by(STEP) {
            let len = (range.end - at).min(STEP);
            self.disk.read(path, &file, &mut bytes[..len], at as u64).map_err(|source| failed(at, len, source))?;
        }
        Ok(())
    }

    /// Whether what begins at `at` was put there a moment ago, at the end of a file that now goes to `used`: then it is in
    /// memory, and no system call has to be asked.
    pub fn is_new(&self, growth: &Growth, at: usize, used: usize) -> bool {
        growth.is_new(at, used, self.now_ms)
    }
}

impl<const N: usize> MappedFile<'_, N> {
    /// What of a block has anything in it.
    fn block(&self, block: usize) -> Range<usize> {
        block * BLOCK..((block + 1) * BLOCK).min(self.used)
    }
}

/// The blocks that `range` lies in, with what of it lies in each.
fn blocks(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    (range.start / BLOCK..range.end.div_ceil(BLOCK))
        .map(move |block| (block, range.start.max(block * BLOCK)..range.end.min((block + 1) * BLOCK)))
}

/// Where a file ended at two moments: what is behind that came later. So that who reads what was just put there need not look
/// for it: memory is not gone through from one end to the other in a second, and what was changed in it goes last.
#[derive(Debug, Default)]
pub struct Growth {
    /// Time in the upper half, end in the lower. The time is in ticks, so that it has room for years.
    before: AtomicU64,
    last: AtomicU64,
}

const TICK_MS: u64 = 64;
/// So many ticks count as a moment; the end is noted anew in half of it.
const NEW_FOR: u64 = 16;

impl Growth {
    fn is_new(&self, at: usize, used: usize, now_ms: u64) -> bool {
        let now = now_ms / TICK_MS;
        let age = |noted: u64| now.saturating_sub(noted >> 32);
        let last = self.last.load(Ordering::Relaxed);
        let is_behind = |noted: u64| at as u64 >= (noted & u64::from(u32::MAX)) && age(noted) < NEW_FOR;
        let is_new = is_behind(last) || is_behind(self.before.load(Ordering::Relaxed));
        // Each word by itself says what is so, whoever else notes something meanwhile.
        if age(last) >= NEW_FOR / 2
            && let Ok(end) = u32::try_from(used)
        {
            self.before.store(last, Ordering::Relaxed);
            self.last.store(now << 32 | u64::from(end), Ordering::Relaxed);
        }
        is_new
    }
}

/// The blocks of a file that were looked at last: number, whether all of it was there, and when, in one word.
#[derive(Debug)]
pub struct SeenBlocks<const N: usize>([AtomicU64; N]);

const TIME_BITS: u32 = 40;
const WHOLE: u64 = 1 << TIME_BITS;

impl<const N: usize> Default for SeenBlocks<N> {
    fn default() -> SeenBlocks<N> {
        SeenBlocks([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> SeenBlocks<N> {
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
        word - seen_ms == SeenBlocks::<N>::tag(block, extent) && now_ms.saturating_sub(seen_ms) <= SEEN_FOR_MS
    }

    fn note(&self, block: usize, extent: u64, now_ms: u64) {
        self.0[block % N].store(SeenBlocks::<N>::tag(block, extent) | now_ms, Ordering::Relaxed);
    }

    fn tag(block: usize, extent: u64) -> u64 {
        (block as u64) << (TIME_BITS + 1) | extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;
    use crate::mapped_file::LogFile;
    use crate::testing::FaultyDisk;

    #[test]
    fn what_was_seen_is_believed_for_a_moment() {
        let seen = SeenBlocks::<2>::default();
        assert!(!seen.is_fresh(0, 1000) && !seen.is_touched(0, 1000));
        seen.note(0, WHOLE, 1000);
        seen.note(3, 0, 1001);
        assert!(seen.is_fresh(0, 1000 + SEEN_FOR_MS) && !seen.is_touched(0, 1000));
        assert!(seen.is_touched(3, 1001) && !seen.is_fresh(3, 1001));
        assert!(!seen.is_fresh(0, 1001 + SEEN_FOR_MS) && !seen.is_touched(1, 1001) && !seen.is_fresh(2, 1000));
        seen.note(2, WHOLE, 1000);
        assert!(seen.is_fresh(2, 1000) && !seen.is_fresh(0, 1000));
    }

    #[test]
    fn what_came_behind_an_end_is_new_for_a_moment() {
        let growth = Growth::default();
        assert!(!growth.is_new(0, 100, 61_000), "nothing was noted yet");
        assert!(growth.is_new(100, 200, 61_000) && growth.is_new(100, 200, 61_400) && !growth.is_new(99, 200, 61_400));
        // The end is noted anew now and then, and what came before it is new for a while yet.
        assert!(growth.is_new(150, 200, 61_700) && growth.is_new(200, 300, 61_700));
        assert!(!growth.is_new(150, 300, 62_100) && growth.is_new(200, 300, 62_100));
        assert!(
            !growth.is_new(200, 300, 69_000) && !growth.is_new(299, 300, 69_000) && growth.is_new(300, 301, 69_000)
        );
    }

    #[test]
    fn what_was_just_put_is_not_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::create(&LocalDisk, dir.path().join("log"), 0, 1 << 20).unwrap();
        log.prepare(1 << 16);
        let append = || {
            let at = log.written();
            log.append(&[7; 500]).unwrap();
            at..log.written()
        };
        let disk = FaultyDisk::default();
        let began = Instant::now();
        let is_seen = |range: Range<usize>, ms| {
            log.look(&Look::at(&disk, Effort::Brief, began + Duration::from_millis(ms)), range).is_ok()
        };
        let old = append();
        assert!(is_seen(old.clone(), 0));
        disk.cold.store(true, Ordering::Relaxed);
        let new = append();
        assert!(is_seen(new.clone(), 900) && !is_seen(old, 900));
        assert!(!is_seen(new, 3000));
        assert!(is_seen(append(), 3100));
    }
}
