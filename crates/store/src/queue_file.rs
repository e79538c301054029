//! One file of a consume queue, and the entries in it: 20 bytes each, which point into the commit log.
//!
//! Knows nothing of the queue it is a part of. Layout: docs/format.md.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ferromq_protocol::PhysicalOffset;

use crate::big_endian::{long_at, word_at};
use crate::disk::Disk;
use crate::looking::{Growth, Look, ReadError};
use crate::word_file::WordFile;

/// Bytes of an entry: physical offset 8, record length 4, tags code 8.
pub const ENTRY_LEN: usize = 20;
const _: () = assert!(ENTRY_LEN.is_multiple_of(4), "entries are read as words");

/// Disk space of a queue's file is taken in steps of so many bytes: most queues of most brokers hold few messages.
const ALLOCATED_STEP: usize = 64 * 1024;

/// Record length of entries that stand for no message: those before the first real one of a queue that does not start at 0,
/// and those of messages that were lost.
const FILLER_LEN: u32 = i32::MAX as u32;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueEntry {
    pub physical: PhysicalOffset,
    /// Bytes of the record.
    pub len: u32,
    /// Hash of the tags; delivery time in the schedule topic.
    pub tags_code: i64,
}

impl QueueEntry {
    /// Of its bytes in a file.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> QueueEntry {
        QueueEntry {
            physical: PhysicalOffset(long_at(bytes, 0)),
            len: word_at(bytes, 8),
            tags_code: long_at(bytes, 12).cast_signed(),
        }
    }

    /// Nothing was put there, or the page was lost.
    pub const NOTHING: QueueEntry = QueueEntry { physical: PhysicalOffset(0), len: 0, tags_code: 0 };

    /// Before the first message of a queue that does not begin at 0.
    pub const FILLER: QueueEntry = QueueEntry { physical: PhysicalOffset(0), len: FILLER_LEN, tags_code: 0 };

    /// For a message that cannot be read: damaged, or known only by the offset of the next one, whose record begins at
    /// `physical`. With a place in the log, so that places grow along a queue; never the same as the fillers at a beginning.
    pub fn lost(physical: PhysicalOffset) -> QueueEntry {
        QueueEntry { physical, len: FILLER_LEN, tags_code: -1 }
    }

    /// Stands in for an offset that has no message here.
    pub fn is_filler(&self) -> bool {
        self.len == FILLER_LEN
    }

    pub fn is_there(&self) -> bool {
        self.len > 0 && self.len <= FILLER_LEN && i64::try_from(self.physical.0).is_ok()
    }

    /// Whether it is of a record before `physical`. Along a queue first true, then false: what was lost in a gap knows its
    /// place, and fillers at a queue's beginning have 0.
    pub fn is_before(&self, physical: u64) -> bool {
        self.is_there() && self.physical.0 < physical
    }

    /// Physical offset after the record.
    pub fn end(&self) -> u64 {
        let len = if self.is_filler() { 0 } else { u64::from(self.len) };
        self.physical.0.saturating_add(len)
    }
}

/// One file of a queue.
#[derive(Debug)]
pub struct QueueFile {
    words: WordFile,
    /// Offset of the first entry.
    first: u64,
    /// Bytes that have disk space. Changed by dispatch and recovery only.
    allocated: AtomicUsize,
    /// Since it was mapped.
    changed: AtomicBool,
    growth: Growth,
}

impl QueueFile {
    /// Of a file opened nothing is known to be allocated.
    pub fn new(words: WordFile, first: u64) -> QueueFile {
        let (allocated, changed) = (AtomicUsize::new(0), AtomicBool::new(false));
        QueueFile { words, first, allocated, changed, growth: Growth::default() }
    }

    /// Whether anything was changed in it since it was mapped, or tried to.
    pub fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    fn set_changed(&self) {
        // Looked at first: one that is written to all the time need be told so once.
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Release);
        }
    }

    /// Takes disk space for the entry at `offset`, if it has none.
    pub fn allocate(&self, disk: &dyn Disk, offset: u64) -> io::Result<()> {
        let (from, end) = (self.at(offset), self.at(offset) + ENTRY_LEN);
        if end <= self.allocated.load(Ordering::Relaxed) {
            return Ok(());
        }
        let to = end.next_multiple_of(ALLOCATED_STEP).min(self.words.len());
        self.set_changed();
        self.words.allocate(disk, from - from % ALLOCATED_STEP..to)?;
        self.allocated.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Offset of the first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Offset after the last entry that there is room for.
    pub fn end(&self) -> u64 {
        self.first + (self.words.len() / ENTRY_LEN) as u64
    }

    /// Offset behind which nothing was ever put. A search that goes there would have the kernel make pages of zeros.
    pub fn used_end(&self) -> io::Result<u64> {
        let used = self.words.data_end()?.div_ceil(ENTRY_LEN) as u64;
        Ok(self.end().min(self.first + used))
    }

    fn at(&self, offset: u64) -> usize {
        // Offsets asked for lie in this file, whose length is a usize.
        (offset - self.first) as usize * ENTRY_LEN
    }

    /// The entry at `offset`, which must be in this file; whatever is there.
    #[inline]
    pub fn entry(&self, offset: u64) -> QueueEntry {
        let [physical_high, physical_low, len, tags_high, tags_low] = self.words.words(self.at(offset));
        let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        QueueEntry {
            physical: PhysicalOffset(long(physical_high, physical_low)),
            len,
            tags_code: long(tags_high, tags_low).cast_signed(),
        }
    }

    /// Makes sure that the entries of `range`, which are in this file and before `max`, are in memory.
    pub fn look(&self, look: &Look<'_>, range: Range<u64>, max: u64) -> Result<(), ReadError> {
        let (at, used) = (self.at(range.start), self.at(max.min(self.end())));
        if look.is_new(&self.growth, at, used) {
            return Ok(());
        }
        self.words.look(look, used, at..self.at(range.end))
    }

    /// Makes the entries of `range`, which are in this file, durable.
    pub fn sync(&self, disk: &dyn Disk, range: Range<u64>) -> io::Result<()> {
        self.words.sync(disk, self.at(range.start)..self.at(range.end))
    }

    /// Whether what was read until now is what the file has.
    pub fn check(&self) -> Result<(), ReadError> {
        self.words.check()
    }

    pub fn put(&self, offset: u64, entry: &QueueEntry) {
        self.set_changed();
        let at = self.at(offset);
        self.words.put_long(at, entry.physical.0);
        self.words.put_word(at + 8, entry.len);
        self.words.put_long(at + 12, entry.tags_code.cast_unsigned());
    }

    pub fn clear(&self, offset: u64) {
        self.put(offset, &QueueEntry::NOTHING);
    }

    /// Removes, durably, whatever is in the file from `offset` on.
    pub fn zero_from(&self, disk: &dyn Disk, offset: u64) -> io::Result<()> {
        self.set_changed();
        self.words.zero_behind(disk, self.at(offset))
    }

    /// Whether the entry at `offset` may follow the one before it in this file: places in the log grow along a queue, and what was lost
    /// has that of what comes next. Only the first record of the log is at its place 0, and none before it in its queue.
    pub fn follows(&self, offset: u64) -> bool {
        if offset == self.first {
            return true;
        }
        let (before, entry) = (self.entry(offset - 1), self.entry(offset));
        let is_place_of_lost = before.is_filler() && before.physical == entry.physical;
        let grows =
            before.physical < entry.physical || (is_place_of_lost && (entry.is_filler() || entry.physical.0 > 0));
        before.is_there() && grows
    }

    /// Whether the entry at `offset` lies across a border of pages of `page` bytes, so that a part of it may be lost.
    pub fn is_across(&self, page: usize, offset: u64) -> bool {
        let at = self.at(offset);
        at / page != (at + ENTRY_LEN - 1) / page
    }
}
