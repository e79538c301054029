//! Index file: a hash table on disk from message keys to physical offsets.
//!
//! Header, slots (entry number of the newest entry of a hash), entries chained by number. Written by dispatch,
//! read by queries at the same time. Java: IndexFile, IndexHeader. Layout: docs/format.md, Index file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::message::tags::index_key_hash;
use parking_lot::{Mutex, MutexGuard};

use crate::big_endian::{long_at, word_at};
use crate::disk::{Disk, PAGE};
use crate::files;
use crate::looking::{Effort, Look, ReadError};
use crate::mapped_file::CHUNK_MAX;
use crate::word_file::WordFile;

pub const HEADER_LEN: usize = 40;
pub const SLOT_LEN: usize = 4;
pub const ENTRY_LEN: usize = 20;
/// Entries that a pass over all of them has read from the disk in one go, while it is at those before: 5 MB.
const READ_AHEAD: u32 = 1 << 18;
/// Entries take disk space in steps of so many bytes: 26,000 messages with two keys. Small beside the slots, and seldom enough.
const ALLOCATED_STEP: usize = 1 << 20;
/// Bytes of entries mapped ahead at least: 13,000 messages.
const MAPPED_AHEAD_MIN: usize = 256 * 1024;

const BEGIN_TIMESTAMP_AT: usize = 0;
const END_TIMESTAMP_AT: usize = 8;
const BEGIN_PHYSICAL_AT: usize = 16;
const END_PHYSICAL_AT: usize = 24;
const SLOTS_USED_AT: usize = 32;
const NEXT_ENTRY_AT: usize = 36;

/// Slots and entries of a file; all files of a store have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexShape {
    pub slots: u32,
    pub entries: u32,
}

impl IndexShape {
    /// Where the slot of a hash is in a file.
    pub fn slot_at(self, hash: u32) -> usize {
        HEADER_LEN + (hash % self.slots) as usize * SLOT_LEN
    }

    /// Where an entry is.
    pub fn entry_at(self, number: u32) -> usize {
        HEADER_LEN + self.slots as usize * SLOT_LEN + number as usize * ENTRY_LEN
    }

    /// Bytes of a file.
    pub fn file_len(self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.slots) * SLOT_LEN as u64 + u64::from(self.entries) * ENTRY_LEN as u64
    }
}

#[derive(Debug)]
pub struct IndexFile {
    words: WordFile,
    shape: IndexShape,
    /// Changed since the last sync.
    dirty: AtomicBool,
    /// A query came across something that cannot be: see [`IndexFile::is_damaged`].
    damaged: AtomicBool,
    /// Byte up to which entries were mapped ahead; 0 when slots and entries are to be mapped anew.
    mapped: AtomicUsize,
    /// Byte before which slots and all entries to come have disk space; 0 when nothing is known.
    allocated: AtomicUsize,
    /// Held while space is taken, and until what needed it is put. Where the file system cannot allocate, zeros are written over what has
    /// been read as zeros: a slot or an entry that was put in between would be lost.
    allocating: Mutex<()>,
}

/// What a look at all entries found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// One after the last entry that can stay; entries begin at 1.
    pub next: u32,
    /// The record of the last entry that can stay.
    pub last_physical: u64,
    /// Nothing was missing.
    pub whole: bool,
    /// Entries that should be there are not, or follow those that are not.
    pub broken: bool,
}

/// Entries that one query looks at, on a thread that serves connections ...
const STEPS_BRIEF: u32 = 256;
/// ... and on one that may wait. Some 50 ms in memory.
const STEPS_MAX: u32 = 1 << 20;
/// Nobody waits longer for an answer. Java's clients and tools: 3 s.
const QUERY_TIME_MAX: Duration = Duration::from_secs(3);

/// What a query makes of the place that an entry with the sought hash leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryVerdict {
    Yes,
    /// Another message; or none any more.
    No,
    /// What stands there has no key with that hash.
    Impossible,
}

/// What a query looks for: messages with a key, stored between two times (milliseconds), the newest ones.
#[derive(Clone, Copy, Debug)]
pub struct KeyQuery<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    pub max: usize,
    pub begin: i64,
    pub end: i64,
}

/// How far a query may go yet, through all files.
#[derive(Debug)]
pub struct Steps {
    taken: u32,
    until: Instant,
    /// It was not far enough.
    pub used_up: bool,
}

impl Steps {
    pub fn new() -> Steps {
        Steps { taken: 0, until: Instant::now() + QUERY_TIME_MAX, used_up: false }
    }

    fn one_more(&mut self, effort: Effort) -> Result<bool, ReadError> {
        self.taken += 1;
        match effort {
            Effort::Brief if self.taken > STEPS_BRIEF => return Err(ReadError::NeedsTime),
            Effort::Brief => {}
            Effort::Full => self.used_up = self.taken > STEPS_MAX || Instant::now() > self.until,
        }
        Ok(!self.used_up)
    }
}

/// The head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHead {
    pub begin_timestamp: i64,
    pub end_timestamp: i64,
    pub begin_physical: u64,
    pub end_physical: u64,
    pub slots_used: u32,
    /// Number the next entry gets; the first is 1.
    pub next_entry: u32,
}

impl IndexHead {
    /// Of its bytes in a file.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> IndexHead {
        IndexHead {
            begin_timestamp: long_at(bytes, BEGIN_TIMESTAMP_AT).cast_signed(),
            end_timestamp: long_at(bytes, END_TIMESTAMP_AT).cast_signed(),
            begin_physical: long_at(bytes, BEGIN_PHYSICAL_AT),
            end_physical: long_at(bytes, END_PHYSICAL_AT),
            slots_used: word_at(bytes, SLOTS_USED_AT),
            next_entry: word_at(bytes, NEXT_ENTRY_AT),
        }
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    pub hash: u32,
    pub physical: u64,
    /// Seconds since the file's begin.
    pub seconds: u32,
    pub previous: u32,
}

impl IndexEntry {
    /// Of its bytes in a file.
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> IndexEntry {
        IndexEntry {
            hash: word_at(bytes, 0),
            physical: long_at(bytes, 4),
            seconds: word_at(bytes, 12),
            previous: word_at(bytes, 16),
        }
    }

    /// Nothing but zeros is a page that was lost (or a key with hash 0 of the log's first message).
    pub fn is_blank(&self) -> bool {
        (self.hash, self.physical, self.previous) == (0, 0, 0)
    }
}

impl IndexFile {
    /// Makes an empty file with disk space for its slots and first entries. A hash may go to any slot, so that all of their pages
    /// are soon in use; entries come one after the other, and their space is taken when they come.
    pub fn create(disk: &dyn Disk, path: PathBuf, shape: IndexShape) -> io::Result<IndexFile> {
        let file = IndexFile::of(WordFile::create_empty(disk, path, shape.file_len())?, shape);
        file.allocate(disk, 1).inspect_err(|_| {
            if let Err(error) = files::remove_file(disk, file.path()) {
                tracing::warn!(%error, path = %file.path().display(), "an index file that has no room stays behind");
            }
        })?;
        file.words.put_word(NEXT_ENTRY_AT, 1);
        file.dirty.store(true, Ordering::Release);
        Ok(file)
    }

    fn of(words: WordFile, shape: IndexShape) -> IndexFile {
        let (mapped, allocated) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let damaged = AtomicBool::new(false);
        IndexFile {
            words,
            shape,
            dirty: AtomicBool::new(false),
            damaged,
            mapped,
            allocated,
            allocating: Mutex::default(),
        }
    }

    /// Takes disk space for entry `number`, those of its step, and the slots, unless they have it. Whoever puts the entry keeps what this
    /// gives until it is there.
    fn allocate(&self, disk: &dyn Disk, number: u32) -> io::Result<Option<MutexGuard<'_, ()>>> {
        let number = number.min(self.shape.entries - 1);
        let (at, end) = (self.entry_at(number), self.entry_at(number) + ENTRY_LEN);
        if end <= self.allocated.load(Ordering::Acquire) {
            return Ok(None);
        }
        let allocating = self.allocating.lock();
        let known = self.allocated.load(Ordering::Acquire);
        if end <= known {
            return Ok(Some(allocating));
        }
        if known == 0 {
            self.allocate_slots(disk)?;
        }
        let to = end.next_multiple_of(ALLOCATED_STEP).min(self.words.len());
        let from = if known == 0 { at } else { known };
        match self.words.allocate(disk, from..to) {
            Ok(()) => {
                self.allocated.fetch_max(to, Ordering::AcqRel);
            }
            // It may have its own: what is put again after a crash does.
            Err(_) => self.words.allocate(disk, at..end)?,
        }
        Ok(Some(allocating))
    }

    /// Of a file opened nothing is known: Java's are not allocated.
    fn allocate_slots(&self, disk: &dyn Disk) -> io::Result<()> {
        self.words.allocate(disk, 0..self.entry_at(0))
    }

    /// Gives an empty file the end of the one before as its own begin and end, as Java does: the time of its first entry is
    /// counted from there.
    pub fn follow(&self, before: &IndexFile) {
        let (timestamp, physical) = (before.end_timestamp(), before.end_physical());
        if physical > 0 {
            self.words.put_long(BEGIN_PHYSICAL_AT, physical);
            self.words.put_long(END_PHYSICAL_AT, physical);
        }
        if timestamp > 0 {
            self.words.put_long(BEGIN_TIMESTAMP_AT, timestamp.cast_unsigned());
            self.words.put_long(END_TIMESTAMP_AT, timestamp.cast_unsigned());
        }
    }

    /// Maps slots and the next entries, so that puts take no page fault; to be called now and then, and after each
    /// [`IndexFile::sync`], which write-protects what it wrote. As many entries as came since the last call, twice; as far as the
    /// disk has room for them.
    pub fn map_ahead(&self, disk: &dyn Disk) {
        let entry = |number: u32| self.entry_at(number.min(self.shape.entries));
        let next = self.entry_at(self.next_entry());
        let mapped = self.mapped.load(Ordering::Relaxed);
        let goal = if mapped == 0 {
            next + MAPPED_AHEAD_MIN
        } else {
            let came = (next + MAPPED_AHEAD_MIN).saturating_sub(mapped);
            mapped.max(next + MAPPED_AHEAD_MIN.max(2 * came))
        };
        let goal = goal.min(entry(self.shape.entries));
        let number = u32::try_from((goal - entry(0)) / ENTRY_LEN).unwrap_or(u32::MAX);
        // Whoever puts reports that there is no room.
        let room =
            self.allocate(disk, self.next_entry()).map(drop).and_then(|()| self.allocate(disk, number).map(drop));
        let allocated = self.allocated.load(Ordering::Relaxed);
        if room.is_err() && allocated == 0 {
            return;
        }
        let goal = goal.min(allocated.max(next));
        if mapped == 0 {
            self.map_in_steps(0..entry(0));
        }
        self.map_in_steps(mapped.max(next).min(goal)..goal);
        self.mapped.store(goal, Ordering::Relaxed);
    }

    /// In small steps: where memory is dear, a step takes a quarter of a millisecond of a core that sends may need.
    fn map_in_steps(&self, range: Range<usize>) {
        for at in range.clone().step_by(CHUNK_MAX) {
            self.words.map_writable(at - at % PAGE..range.end.min(at + CHUNK_MAX));
        }
    }

    /// Whether nothing was ever put into the file; of one that lost its header the slots still tell.
    pub fn is_unused(&self) -> bool {
        self.is_empty() && self.torn_end() == 1
    }

    /// Three quarters are used: time to make the next file.
    pub fn is_nearly_full(&self) -> bool {
        self.next_entry() >= self.shape.entries / 4 * 3
    }

    /// Maps a file of the right length.
    pub fn open(path: PathBuf, shape: IndexShape) -> io::Result<IndexFile> {
        Ok(IndexFile::of(WordFile::open(path)?, shape))
    }

    pub fn path(&self) -> &Path {
        self.words.path()
    }

    /// Store time of the first entry.
    pub fn begin_timestamp(&self) -> i64 {
        self.words.long(BEGIN_TIMESTAMP_AT).cast_signed()
    }

    /// Store time of the last entry.
    pub fn end_timestamp(&self) -> i64 {
        self.words.long(END_TIMESTAMP_AT).cast_signed()
    }

    /// Physical offset of the last entry.
    pub fn end_physical(&self) -> u64 {
        self.words.long(END_PHYSICAL_AT)
    }

    /// Number the next entry gets; the first is 1.
    pub fn next_entry(&self) -> u32 {
        self.words.word(NEXT_ENTRY_AT).max(1)
    }

    pub fn is_empty(&self) -> bool {
        self.next_entry() <= 1
    }

    pub fn is_full(&self) -> bool {
        self.is_full_before(self.next_entry())
    }

    /// Whether all entries are used when the next one is `next`.
    pub fn is_full_before(&self, next: u32) -> bool {
        next >= self.shape.entries
    }

    fn slot_of(&self, hash: u32) -> usize {
        self.shape.slot_at(hash)
    }

    fn entry_at(&self, number: u32) -> usize {
        self.shape.entry_at(number)
    }

    fn entry(&self, number: u32) -> IndexEntry {
        let at = self.entry_at(number);
        IndexEntry {
            hash: self.words.word(at),
            physical: self.words.long(at + 4),
            seconds: self.words.word(at + 12),
            previous: self.words.word(at + 16),
        }
    }

    /// Adds an entry; false when the file is full. The entry is complete before the slot and the header name it.
    pub fn put(
        &self,
        disk: &dyn Disk,
        topic: &str,
        key: &str,
        physical: u64,
        store_timestamp: i64,
    ) -> io::Result<bool> {
        if self.is_full() {
            return Ok(false);
        }
        let number = self.next_entry();
        let _allocating = self.allocate(disk, number)?;
        // The hash is never negative.
        let hash = index_key_hash(topic, key).cast_unsigned();
        let slot_at = self.slot_of(hash);
        let newest = self.words.word(slot_at);
        let previous = if newest < number { newest } else { 0 };
        let begin = self.begin_timestamp();
        let seconds = if begin <= 0 { 0 } else { store_timestamp.saturating_sub(begin) / 1000 };
        let at = self.entry_at(number);
        self.words.put_word(at, hash);
        self.words.put_long(at + 4, physical);
        // Clamped to what the field holds, as Java does.
        self.words.put_word(at + 12, seconds.clamp(0, i64::from(i32::MAX)) as u32);
        self.words.put_word(at + 16, previous);
        self.words.put_word(slot_at, number);
        if number == 1 {
            self.words.put_long(BEGIN_PHYSICAL_AT, physical);
            self.words.put_long(BEGIN_TIMESTAMP_AT, store_timestamp.cast_unsigned());
        }
        if previous == 0 {
            self.words.put_word(SLOTS_USED_AT, self.words.word(SLOTS_USED_AT).saturating_add(1));
        }
        self.words.put_long(END_PHYSICAL_AT, physical);
        self.words.put_long(END_TIMESTAMP_AT, store_timestamp.cast_unsigned());
        self.words.put_word(NEXT_ENTRY_AT, number + 1);
        self.dirty.store(true, Ordering::Release);
        Ok(true)
    }

    /// Whether any entry may be of `begin..=end` (milliseconds).
    pub fn overlaps(&self, begin: i64, end: i64) -> bool {
        !self.is_empty() && self.begin_timestamp() <= end && self.end_timestamp() >= begin
    }

    /// Makes sure that the header is in memory.
    pub fn look_at_header(&self, look: &Look<'_>) -> Result<(), ReadError> {
        self.look(look, 0..HEADER_LEN)
    }

    fn look(&self, look: &Look<'_>, range: Range<usize>) -> Result<(), ReadError> {
        self.words.look(look, self.words.len(), range)
    }

    /// Physical offsets of entries with the key's hash and a time in `begin..=end` that `admit` takes, newest first, until
    /// `found` holds `max` or the steps are used up. Times here are whole seconds, so that a message up to a second outside the
    /// range may be among them. The header is in memory.
    pub fn find(
        &self,
        look: &Look<'_>,
        sought: &KeyQuery<'_>,
        steps: &mut Steps,
        found: &mut Vec<u64>,
        admit: &mut dyn FnMut(u64) -> Result<QueryVerdict, ReadError>,
    ) -> Result<(), ReadError> {
        let KeyQuery { topic, key, max, begin, end } = *sought;
        let hash = index_key_hash(topic, key).cast_unsigned();
        let next_entry = self.next_entry();
        let file_begin = self.begin_timestamp();
        let slot_at = self.slot_of(hash);
        self.look(look, slot_at..slot_at + SLOT_LEN)?;
        let mut number = self.words.word(slot_at);
        // Looked at again: an entry that came meanwhile is in its slot first.
        if number > next_entry && number > self.next_entry() {
            self.note_damage(number);
        }
        // Chains only go to lower numbers, so this ends; but every message may have the same key.
        while number > 0 && number < next_entry && found.len() < max && steps.one_more(look.effort)? {
            let at = self.entry_at(number);
            self.look(look, at..at + ENTRY_LEN)?;
            let entry = self.entry(number);
            // The first entry's seconds count from the file before; the header has its real time.
            let after = if number == 1 { 0 } else { i64::from(entry.seconds) * 1000 };
            let time = file_begin.saturating_add(after);
            if time.saturating_add(999) < begin {
                break;
            }
            // A message may have a key twice, and after a power loss its entry twice: it counts once.
            if self.slot_of(entry.hash) != slot_at {
                self.note_damage(number);
                break;
            }
            if entry.hash == hash && time <= end && !found.contains(&entry.physical) {
                match admit(entry.physical)? {
                    QueryVerdict::Yes => found.push(entry.physical),
                    QueryVerdict::No => {}
                    QueryVerdict::Impossible => self.note_damage(number),
                }
            }
            if entry.previous >= number {
                self.note_damage(number);
                break;
            }
            number = entry.previous;
        }
        Ok(())
    }

    /// Whether entries may be missing: the next start makes the file again, and those after it.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    fn note_damage(&self, number: u32) {
        if !self.damaged.swap(true, Ordering::AcqRel) {
            let (path, offset) = (self.path().display(), self.entry_at(number.min(self.shape.entries)));
            tracing::error!(%path, offset, "an index file is damaged: messages of its time may not be found by their keys until the next start, which makes it again");
        }
    }

    /// Makes everything put so far durable.
    pub fn sync(&self, disk: &dyn Disk) -> io::Result<()> {
        if self.dirty.swap(false, Ordering::AcqRel)
            && let Err(error) = self.words.sync(disk, 0..self.words.len())
        {
            self.dirty.store(true, Ordering::Release);
            return Err(error);
        }
        self.mapped.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the last entry that the header knows is of the record that it names. A header that was torn while the file was made again
    /// may know as many entries as before, and where it ended in between.
    pub fn ends_as_stated(&self) -> bool {
        let last = self.next_entry().min(self.shape.entries).saturating_sub(1);
        last > 0 && self.entry(last).physical == self.end_physical()
    }

    /// After a crash or a truncation of the log: how far entries hang together and lie before `log_end`. With `cut_last` the entries
    /// of the last message do not count: some of its keys may be missing, so it is to be indexed again as a whole; so it is where
    /// the run ends before it should. `belongs` tells whether a hash is of a key of the message at a place; it is asked about
    /// the last entry, which may lie across a page that was lost.
    ///
    /// Cost: one pass over the entries.
    pub fn check(&self, log_end: u64, cut_last: bool, belongs: &dyn Fn(u64, u32) -> bool) -> CheckOutcome {
        // Every entry's chain link must be what following the entries gives; that also finds pages that were lost.
        let mut slots = vec![0_u32; self.shape.slots as usize];
        let end = self.next_entry().max(self.torn_end()).min(self.shape.entries);
        let mut last_physical = 0;
        let mut whole = 1;
        while whole < end {
            if whole % READ_AHEAD == 1 {
                self.words
                    .will_need(self.entry_at(whole)..self.entry_at(end.min(whole.saturating_add(2 * READ_AHEAD))));
            }
            let entry = self.entry(whole);
            let slot = (entry.hash % self.shape.slots) as usize;
            let holds = !entry.is_blank()
                && entry.previous == slots[slot]
                && (entry.previous == 0 || entry.previous < whole)
                && entry.physical >= last_physical
                && entry.physical < log_end
                && i32::try_from(entry.hash).is_ok();
            if !holds {
                break;
            }
            slots[slot] = whole;
            last_physical = entry.physical;
            whole += 1;
        }
        let torn = whole > 1 && !belongs(last_physical, self.entry(whole - 1).hash);
        let mut next = whole - u32::from(torn);
        let broken = torn || self.has_entry_before(log_end, whole);
        let last = |next: u32| if next > 1 { self.entry(next - 1).physical } else { 0 };
        if cut_last || broken {
            let cut = last(next);
            while next > 1 && last(next) == cut {
                next -= 1;
            }
        }
        CheckOutcome { next, last_physical: last(next), whole: next == end, broken }
    }

    /// Whether any entry from number `from` on is of a record before `log_end`, or may have been: one that was lost does not say.
    pub fn has_entry_before(&self, log_end: u64, from: u32) -> bool {
        let end = self.next_entry().max(self.torn_end()).min(self.shape.entries);
        (from..end).map(|number| self.entry(number)).any(|entry| entry.physical < log_end)
    }

    /// Takes out the entries from `keep` on, and rebuilds the slots from the others.
    pub fn keep_before(&self, disk: &dyn Disk, keep: u32) -> io::Result<()> {
        let header_next = self.next_entry();
        let mut slots = vec![0_u32; self.shape.slots as usize];
        let mut used = 0;
        for number in 1..keep {
            let slot = (self.entry(number).hash % self.shape.slots) as usize;
            used += u32::from(slots[slot] == 0);
            slots[slot] = number;
        }
        let _allocating = self.allocating.lock();
        self.allocate_slots(disk)?;
        for (slot, newest) in slots.iter().enumerate() {
            let at = HEADER_LEN + slot * SLOT_LEN;
            if self.words.word(at) != *newest {
                self.words.put_word(at, *newest);
            }
        }
        // Also what no slot names: after another power loss it could pass for entries of then.
        self.words.zero_behind(disk, self.entry_at(keep))?;
        self.words.put_word(SLOTS_USED_AT, used);
        self.words.put_word(NEXT_ENTRY_AT, keep);
        if keep > 1 && keep != header_next {
            let first = self.entry(1);
            let last = self.entry(keep - 1);
            self.words.put_long(BEGIN_PHYSICAL_AT, first.physical);
            self.words.put_long(END_PHYSICAL_AT, last.physical);
            // To the second; the next entry makes it exact.
            let seconds = if keep == 2 { 0 } else { i64::from(last.seconds) };
            let time = self.begin_timestamp().saturating_add(seconds * 1000);
            self.words.put_long(END_TIMESTAMP_AT, time.cast_unsigned());
        }
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// One after the highest entry any slot names: after a power loss the header may be older than the entries.
    fn torn_end(&self) -> u32 {
        self.words.will_need(0..self.shape.entry_at(0));
        (0..self.shape.slots as usize)
            .map(|slot| self.words.word(HEADER_LEN + slot * SLOT_LEN))
            .filter(|number| *number < self.shape.entries)
            .max()
            .map_or(1, |number| number + 1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::disk::LocalDisk;
    use crate::testing::FaultyDisk;

    const SHAPE: IndexShape = IndexShape { slots: 7, entries: 12 };

    fn find(file: &IndexFile, key: &str, begin: i64, end: i64) -> Vec<u64> {
        let mut found = Vec::new();
        let sought = KeyQuery { topic: "T", key, max: 64, begin, end };
        file.find(&Look::new(&LocalDisk, Effort::Full), &sought, &mut Steps::new(), &mut found, &mut |_| {
            Ok(QueryVerdict::Yes)
        })
        .unwrap();
        found
    }

    #[test]
    fn a_query_goes_only_so_far() {
        let dir = tempfile::tempdir().unwrap();
        let file = IndexFile::create(&LocalDisk, dir.path().join("1"), IndexShape { slots: 7, entries: 500 }).unwrap();
        for physical in 0..400 {
            file.put(&LocalDisk, "T", "the same", physical, 10_000).unwrap();
        }
        let sought = KeyQuery { topic: "T", key: "the same", max: 1000, begin: 0, end: i64::MAX };
        let find = |effort, steps: &mut Steps| {
            let mut found = Vec::new();
            file.find(&Look::new(&LocalDisk, effort), &sought, steps, &mut found, &mut |_| Ok(QueryVerdict::Yes))
                .map(|()| found.len())
        };
        assert!(matches!(find(Effort::Brief, &mut Steps::new()), Err(ReadError::NeedsTime)));
        let mut steps = Steps::new();
        assert_eq!((find(Effort::Full, &mut steps).unwrap(), steps.used_up), (400, false));
        let mut steps = Steps { taken: STEPS_MAX - 3, ..Steps::new() };
        assert_eq!((find(Effort::Full, &mut steps).unwrap(), steps.used_up), (3, true));
        let mut steps = Steps { until: Instant::now(), ..Steps::new() };
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((find(Effort::Full, &mut steps).unwrap(), steps.used_up), (0, true));
    }

    /// A file system that cannot allocate: writes zeros where it has read zeros, and lets others in between.
    struct NoFallocate<'a> {
        has_read: mpsc::SyncSender<()>,
        others: &'a Mutex<mpsc::Receiver<()>>,
    }

    impl std::fmt::Debug for NoFallocate<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("NoFallocate")
        }
    }

    impl Disk for NoFallocate<'_> {
        fn allocate(&self, file: &std::fs::File, range: Range<u64>) -> io::Result<()> {
            use std::os::unix::fs::FileExt as _;
            let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
            file.read_exact_at(&mut bytes, range.start)?;
            self.has_read.send(()).unwrap();
            // Those that have to wait for this do not come.
            let _ = self.others.lock().recv_timeout(Duration::from_millis(50));
            let pages = (range.start..range.end).step_by(PAGE).zip(bytes.chunks(PAGE));
            pages
                .filter(|(_, page)| page.iter().all(|byte| *byte == 0))
                .try_for_each(|(at, page)| file.write_all_at(page, at))
        }

        fn create(&self, path: &Path, len: u64) -> io::Result<std::fs::File> {
            LocalDisk.create(path, len)
        }

        fn sync_range(&self, range: &crate::disk::MappedRange<'_>) -> io::Result<()> {
            LocalDisk.sync_range(range)
        }

        fn sync_file(&self, path: &Path, file: &std::fs::File) -> io::Result<()> {
            LocalDisk.sync_file(path, file)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            LocalDisk.sync_dir(dir)
        }

        fn usage(&self, path: &Path) -> io::Result<crate::disk::DiskUsage> {
            LocalDisk.usage(path)
        }
    }

    #[test]
    fn what_is_put_while_space_is_taken_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let shape = IndexShape { slots: 100_000, entries: 100 };
        drop(IndexFile::create(&LocalDisk, path.clone(), shape).unwrap());
        let file = IndexFile::open(path, shape).unwrap();
        let (has_read, read) = mpsc::sync_channel(9);
        let (has_put, others) = mpsc::channel();
        let disk = NoFallocate { has_read, others: &Mutex::new(others) };
        std::thread::scope(|scope| {
            scope.spawn(|| file.map_ahead(&disk));
            read.recv().unwrap();
            assert!(file.put(&LocalDisk, "T", "key", 1000, 10_000).unwrap());
            has_put.send(()).unwrap();
        });
        assert_eq!(find(&file, "key", 0, i64::MAX), [1000]);
    }

    #[test]
    fn disk_space_is_taken_as_entries_come() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (FaultyDisk::default(), dir.path().join("1"));
        let shape = IndexShape { slots: 100_000, entries: 1_000_000 };
        let taken = || std::fs::metadata(&path).unwrap().blocks() * 512;
        let file = IndexFile::create(&disk, path.clone(), shape).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), shape.file_len(), "as long as Java's");
        assert!((400_000..2 << 20).contains(&taken()), "{}", taken());
        let full = |full| disk.full.store(full, Ordering::SeqCst);
        // Into holes nothing is put: a full disk is an error, wherever it comes.
        let (mut put, mut refused) = (0, 0);
        while put < 200_000_u64 {
            full(true);
            match file.put(&disk, "T", &format!("k{put}"), put, 10_000) {
                Ok(taken) => put += u64::from(taken),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                    refused += 1;
                    full(false);
                    assert!(file.put(&disk, "T", &format!("k{put}"), put, 10_000).unwrap());
                    put += 1;
                }
            }
            if put % 10_000 == 0 {
                file.map_ahead(&disk);
            }
        }
        assert!(refused > 0);
        assert!(taken() < (400_000 + 200_000 * 20) + (4 << 20), "{}", taken());
        for key in [0, 1, 99_999, 199_999] {
            assert_eq!(find(&file, &format!("k{key}"), 0, i64::MAX), [key]);
        }
        // One of Java's has no space at all.
        let sparse = dir.path().join("2");
        std::fs::File::create(&sparse).unwrap().set_len(shape.file_len()).unwrap();
        let file = IndexFile::open(sparse.clone(), shape).unwrap();
        full(true);
        file.map_ahead(&disk);
        assert!(file.put(&disk, "T", "k", 1, 10_000).is_err() && file.keep_before(&disk, 1).is_err());
        assert_eq!(std::fs::metadata(&sparse).unwrap().blocks(), 0);
        full(false);
        assert!(file.put(&disk, "T", "k", 1, 10_000).unwrap());
        assert!(std::fs::metadata(&sparse).unwrap().blocks() * 512 >= 400_000);
        full(true);
        assert!(IndexFile::create(&disk, dir.path().join("3"), shape).is_err() && !dir.path().join("3").exists());
    }

    fn filled(dir: &Path) -> IndexFile {
        let file = IndexFile::create(&LocalDisk, dir.join("1"), SHAPE).unwrap();
        for message in 0..5 {
            // Seven slots for few keys: chains are shared.
            assert!(file.put(&LocalDisk, "T", "all", message * 100, 1_000_000 + message.cast_signed() * 1500).unwrap());
            assert!(
                file.put(
                    &LocalDisk,
                    "T",
                    &format!("k{message}"),
                    message * 100,
                    1_000_000 + message.cast_signed() * 1500
                )
                .unwrap()
            );
        }
        file
    }

    #[test]
    fn chains_lead_to_every_message() {
        let dir = tempfile::tempdir().unwrap();
        let file = filled(dir.path());
        assert_eq!(find(&file, "all", 0, i64::MAX), [400, 300, 200, 100, 0]);
        assert_eq!(find(&file, "k3", 0, i64::MAX), [300]);
        assert_eq!(find(&file, "k9", 0, i64::MAX), Vec::<u64>::new());
        assert_eq!(find(&file, "all", 1_004_500, i64::MAX), [400, 300]);
        assert_eq!(find(&file, "all", 0, 1_000_999), [0]);
        assert!(file.put(&LocalDisk, "T", "x", 500, 1_009_000).unwrap() && file.is_full());
        assert!(!file.put(&LocalDisk, "T", "y", 600, 1_009_000).unwrap());
        let next = IndexFile::create(&LocalDisk, dir.path().join("2"), SHAPE).unwrap();
        next.follow(&file);
        assert_eq!((next.begin_timestamp(), next.end_physical()), (1_009_000, 500));
        // An hour later: the entry's seconds count from the inherited begin, but the message is found at its time.
        next.put(&LocalDisk, "T", "z", 600, 4_609_000).unwrap();
        assert_eq!(find(&next, "z", 4_609_000, 4_609_000), [600]);
        assert_eq!(find(&next, "z", 4_609_001, i64::MAX), [600], "times are whole seconds");
        assert_eq!(find(&next, "z", 4_611_000, i64::MAX), Vec::<u64>::new());
        assert_eq!(SHAPE.file_len(), 40 + 28 + 240);
        assert_eq!(IndexShape { slots: 5_000_000, entries: 20_000_000 }.file_len(), 420_000_040);
    }

    #[test]
    fn repair_keeps_what_hangs_together() {
        let dir = tempfile::tempdir().unwrap();
        let file = filled(dir.path());
        let repair = |log_end, cut_last| {
            let checked = file.check(log_end, cut_last, &|_, _| true);
            file.keep_before(&LocalDisk, checked.next).unwrap();
            checked
        };
        assert_eq!(repair(1_000, false), CheckOutcome { next: 11, last_physical: 400, whole: true, broken: false });
        assert_eq!(file.end_timestamp(), 1_006_000);
        // A put that was torn between entry and header.
        let number = file.next_entry();
        file.words.put_word(file.slot_of(3), number);
        assert_eq!(repair(1_000, true).next, 9, "without the last message");
        assert_eq!(find(&file, "all", 0, i64::MAX), [300, 200, 100, 0]);
        assert_eq!(file.end_physical(), 300);
        for key in ["all", "k4"] {
            assert!(file.put(&LocalDisk, "T", key, 400, 1_006_000).unwrap());
        }
        assert_eq!(find(&file, "k4", 0, i64::MAX), [400]);
        assert!(!file.check(400, false, &|_, _| true).broken, "it ends where the log does");
        assert!(file.check(500, false, &|physical, _| physical < 400).broken, "the last one is of another message");
        // A lost page: entry 5 is zero.
        for word in 0..5 {
            file.words.put_word(file.entry_at(5) + word * 4, 0);
        }
        let checked = repair(1_000, false);
        assert_eq!((checked.next, checked.broken), (3, true), "the message that may lack a key is indexed again");
        assert_eq!(find(&file, "all", 0, i64::MAX), [0]);
        // The log was cut before everything in the file.
        assert_eq!(repair(0, true).next, 1);
        assert!(file.is_empty());
    }
}
