//! Consume queue: per (topic, queue id), the entries of its messages, in files ([`QueueFile`]).
//!
//! Written only by dispatch (and recovery). Entry number and queue offset are the same; the commit log stays the
//! truth and can rebuild everything here. Java: ConsumeQueue. Layout: docs/format.md, Consume queue.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use ferromq_protocol::message::record::RECORD_LEN_MIN;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::disk::{self, Disk, sync_failed};
use crate::error::OpenError;
use crate::files::{self, SegmentPath, segment_name};
use crate::inventory::ListedQueue;
use crate::looking::{Look, ReadError};
use crate::mappings::{Mappings, Segment};
use crate::queue_file::{ENTRY_LEN, QueueEntry, QueueFile};
use crate::stamps::{QueueStamps, Seen, Unstamped};

/// A page of memory, in bytes.
const PAGE: u64 = disk::PAGE as u64;

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Added,
    /// The entry was there already.
    Known,
    /// The queue holds a later message at this offset: the record is from before its topic was deleted and made anew.
    Stale,
    /// Entries before this one are missing; fillers stand in for them.
    Gap,
    /// No record can have this offset: the log before it has not room for so many, or others have it. Damage, and not entered.
    Impossible,
}

/// Whether a record that begins at `physical` can have this offset in its queue.
pub fn is_possible(offset: u64, physical: u64) -> bool {
    !are_too_many(offset, 0, physical)
}

/// Whether so many records, all in the log between two positions, are more than fit.
fn are_too_many(records: u64, from: u64, to: u64) -> bool {
    records > to.saturating_sub(from) / RECORD_LEN_MIN as u64
}

/// Of fillers that nobody has synced, a power loss may have taken a page in the middle: whoever looks for the queue's beginning would find
/// it there. Puts these again where a file has nothing else before `end`, and says whether that is so.
fn put_fillers_again(file: &QueueFile, end: u64) -> bool {
    let is_blank = |offset: &u64| !file.entry(*offset).is_there();
    let mut all = file.first()..end;
    if end == file.first() || !all.all(|offset| file.entry(offset).is_filler() || is_blank(&offset)) {
        return false;
    }
    for offset in (file.first()..end).filter(is_blank) {
        file.put(offset, &QueueEntry::FILLER);
    }
    true
}

/// The files of a queue, which stay as they are meanwhile.
type Files<'a> = RwLockReadGuard<'a, Vec<Arc<Segment>>>;

/// The one of `files`, each of so many entries, that has the entry at `offset`.
fn segment_of(files: &[Arc<Segment>], offset: u64, file_entries: u64) -> Option<&Arc<Segment>> {
    let index = offset.checked_sub(files.first()?.first())? / file_entries;
    files.get(usize::try_from(index).ok()?)
}

/// Tells whether an entry is that of a queue's message at an offset.
pub type Belongs<'a> = dyn Fn(&ConsumeQueue, u64, &QueueEntry) -> bool + 'a;
type Split = (Option<(Arc<QueueFile>, u64)>, Option<Forgotten>);

/// The first entry that a queue forgets, as it stood there.
#[derive(Clone, Copy, Debug)]
pub struct Forgotten {
    pub offset: u64,
    pub entry: QueueEntry,
    /// A part of it may not have got to the disk.
    pub may_be_torn: bool,
}

/// What a queue has: its entries from `min` on, up to one of a record that ends at `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueExtent {
    pub min: u64,
    pub max: u64,
    pub end: u64,
}

const LIVE: u8 = 0;
const BEHIND: u8 = 1;
const RETIRED: u8 = 2;

/// Whether appends may use a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueStanding {
    Live,
    /// It lacks entries that could not be written, for this reason.
    Behind(Arc<str>),
    /// Its topic was deleted: look the queue up again.
    Retired,
}

/// A run of entries within one file.
pub struct QueueRun {
    pub file: Arc<QueueFile>,
    /// One after the last entry of the run.
    pub end: u64,
}

/// Entries that one sync of all files is to make durable, with those of other queues.
#[derive(Clone, Copy, Debug)]
pub struct SharedFlush {
    from: u64,
    to: u64,
    changes: u64,
}

#[derive(Debug)]
pub struct ConsumeQueue {
    topic: Arc<str>,
    id: QueueId,
    dir: PathBuf,
    file_entries: u64,
    files: RwLock<Vec<Arc<Segment>>>,
    mappings: Arc<Mappings>,
    /// First offset whose message is still in the log.
    min: AtomicU64,
    /// The message there is not before this place in the log; 0 when nothing is known of it.
    min_physical: AtomicU64,
    /// One after the last entry. Stored after the entry, so that readers below it see whole entries.
    max: AtomicU64,
    /// End of the record of the last entry; 0 without entries.
    end_physical: AtomicU64,
    /// Offset the next append gets, under the append lock. Dispatch and recovery raise it for records whose offsets were given
    /// elsewhere, and set it back with a queue that nobody appends to.
    next: AtomicU64,
    /// The offset of the last record that was not believed; the last there is, if all were.
    doubted: AtomicU64,
    /// Entries before it are on the disk.
    flushed: AtomicU64,
    /// What [`ConsumeQueue::note`] found last.
    noted: Mutex<QueueExtent>,
    /// Files were made since the directory was synced.
    dir_dirty: AtomicBool,
    /// When it was put into the list of queues to be flushed: see [`Queues::mark_dirty`](crate::queues::Queues::mark_dirty).
    pub listed_in: AtomicU64,
    /// [`LIVE`], [`BEHIND`] or [`RETIRED`].
    standing: AtomicU8,
    /// Why it is behind.
    trouble: Mutex<Option<Arc<str>>>,
    /// Its files are on their way out: there is nothing to be flushed.
    going: AtomicBool,
    /// Held while files are written out or removed, so that the two do not meet.
    flush_lock: Mutex<()>,
    /// How often it was changed otherwise than at its end: entries were taken back or replaced, or the queue was begun. Under the flush
    /// lock.
    changes: AtomicU64,
    /// It is as it was listed, but for entries that came since, by a log that begins there.
    listed_by: Option<u64>,
}

impl ConsumeQueue {
    /// A queue without files.
    pub fn new(topic: Arc<str>, id: QueueId, dir: PathBuf, file_entries: u64, mappings: Arc<Mappings>) -> ConsumeQueue {
        ConsumeQueue {
            topic,
            id,
            dir,
            file_entries,
            files: RwLock::default(),
            mappings,
            min: AtomicU64::new(0),
            min_physical: AtomicU64::new(0),
            max: AtomicU64::new(0),
            end_physical: AtomicU64::new(0),
            next: AtomicU64::new(0),
            doubted: AtomicU64::new(u64::MAX),
            flushed: AtomicU64::new(0),
            noted: Mutex::default(),
            dir_dirty: AtomicBool::new(false),
            listed_in: AtomicU64::new(0),
            standing: AtomicU8::new(LIVE),
            trouble: Mutex::default(),
            going: AtomicBool::new(false),
            flush_lock: Mutex::new(()),
            changes: AtomicU64::new(0),
            listed_by: None,
        }
    }

    /// A queue as it was listed by a log that begins at `log_min`, with its files as they were then. None is opened.
    pub fn listed(
        (listed, stamps): (&ListedQueue, &QueueStamps),
        log_min: u64,
        topic: Arc<str>,
        dir: PathBuf,
        file_entries: u64,
        mappings: Arc<Mappings>,
    ) -> ConsumeQueue {
        let firsts = (0..).map(|file| stamps.first + file * file_entries);
        let segment_of = |(first, stamp): (u64, _)| {
            let path = dir.join(segment_name(first * ENTRY_LEN as u64));
            Segment::seen_as(Seen::Listed(stamp), path, first, file_entries)
        };
        let files: Vec<_> = firsts.zip(stamps.files.iter().copied()).map(segment_of).collect();
        let QueueExtent { min, max, end } = listed.extent;
        let queue = ConsumeQueue::new(topic, listed.id, dir, file_entries, mappings);
        *queue.files.write() = files;
        queue.min.store(min, Ordering::Release);
        queue.min_physical.store(stamps.min_physical, Ordering::Release);
        queue.max.store(max, Ordering::Release);
        queue.next.store(max, Ordering::Release);
        queue.flushed.store(max, Ordering::Release);
        queue.end_physical.store(end, Ordering::Release);
        ConsumeQueue { listed_by: Some(log_min), ..queue }
    }

    /// Whether it was taken from the list.
    pub fn is_listed(&self) -> bool {
        self.listed_by.is_some()
    }

    /// What its files are known by at the next start. At a stop, when all queues were written out and listed.
    pub fn stamp(&self, disk: &dyn Disk) -> Result<QueueStamps, Unstamped> {
        let is_on_disk = self.is_flushed() && self.noted() == self.extent();
        if !is_on_disk || self.standing.load(Ordering::Acquire) != LIVE || self.is_going() {
            return Err(Unstamped::Unknown);
        }
        let (files, min_physical) = (self.files.read(), self.min_physical.load(Ordering::Acquire));
        let Some(first) = files.first().map(|first| first.first()) else { return Err(Unstamped::Unknown) };
        let files = files.iter().map(|file| file.stamp(disk)).collect::<Result<_, _>>()?;
        Ok(QueueStamps { first, min_physical, files })
    }

    /// Opens the files of a queue, which follow one another. Its end is the first entry that is not there; files after it hold nothing
    /// and go.
    pub fn open(
        topic: Arc<str>,
        id: QueueId,
        dir: PathBuf,
        segments: Vec<SegmentPath>,
        file_entries: u64,
        mappings: Arc<Mappings>,
    ) -> Result<ConsumeQueue, OpenError> {
        let mut files: Vec<Arc<Segment>> = Vec::new();
        for segment in segments {
            files.push(Segment::of(segment.path, segment.start / ENTRY_LEN as u64, file_entries));
        }
        let mut max = 0;
        while let Some(last) = files.last() {
            let file = last.file(&mappings).map_err(OpenError::io("map", last.path()))?;
            let used = file.used_end().map_err(OpenError::io("read", last.path()))?;
            max = partition_point(last.first(), used, |offset| file.entry(offset).is_there());
            file.check().map_err(|error| OpenError::io("read", last.path())(io::Error::other(error)))?;
            if max > last.first() || files.len() == 1 {
                break;
            }
            std::fs::remove_file(last.path()).map_err(OpenError::io("remove", last.path()))?;
            files.pop();
        }
        let min = files.first().map_or(0, |file| file.first());
        let queue = ConsumeQueue::new(topic, id, dir, file_entries, mappings);
        *queue.files.write() = files;
        queue.min.store(min, Ordering::Release);
        queue.max.store(max, Ordering::Release);
        queue.next.store(max, Ordering::Release);
        queue.flushed.store(max, Ordering::Release);
        // Its entry in the directory may be in memory only, from before a crash.
        queue.dir_dirty.store(true, Ordering::Release);
        queue.find_end_physical().map_err(OpenError::io("read", &queue.dir))?;
        Ok(queue)
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn id(&self) -> QueueId {
        self.id
    }

    pub fn min(&self) -> u64 {
        self.min.load(Ordering::Acquire)
    }

    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Acquire)
    }

    /// The offset the next append gets. Under the append lock, or while nobody appends.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Under the append lock, or while nobody appends.
    pub fn advance_next(&self, to: u64) {
        self.next.store(to, Ordering::Release);
    }

    /// For records whose offset was given elsewhere: the next one is not lower than `to`.
    pub fn raise_next(&self, to: u64) {
        // Looked at first: for our own records it is there already.
        if self.next() < to {
            self.next.fetch_max(to, Ordering::AcqRel);
        }
    }

    /// Whether appends may use the queue: one load when they may.
    pub fn standing(&self) -> QueueStanding {
        match self.standing.load(Ordering::Acquire) {
            LIVE => QueueStanding::Live,
            RETIRED => QueueStanding::Retired,
            _ => QueueStanding::Behind(self.trouble.lock().clone().unwrap_or_default()),
        }
    }

    pub fn is_retired(&self) -> bool {
        self.standing.load(Ordering::Acquire) == RETIRED
    }

    /// The topic was deleted. Under the append lock where somebody may append to the queue.
    pub fn retire(&self) {
        self.standing.store(RETIRED, Ordering::Release);
    }

    pub fn is_behind(&self) -> bool {
        self.standing.load(Ordering::Acquire) == BEHIND
    }

    /// Entries could not be written. Under the dispatch lock, as the next.
    pub fn set_behind(&self, reason: Arc<str>) {
        *self.trouble.lock() = Some(reason);
        // Retired is for good.
        let _ = self.standing.compare_exchange(LIVE, BEHIND, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub fn set_caught_up(&self) {
        let _ = self.standing.compare_exchange(BEHIND, LIVE, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Its files are being taken away: a flush does nothing from now on, and fails at nothing.
    pub fn set_going(&self) {
        self.going.store(true, Ordering::SeqCst);
    }

    /// The entry at `offset`, if it is between min and max.
    pub fn entry(&self, offset: u64) -> io::Result<Option<QueueEntry>> {
        Ok(self.run(offset)?.map(|run| run.file.entry(offset)))
    }

    /// [`ConsumeQueue::entry`] for who does not know that it is in memory.
    pub fn look_up(&self, look: &Look<'_>, offset: u64) -> Result<Option<QueueEntry>, ReadError> {
        let Some(run) = self.look_at_run(offset)? else { return Ok(None) };
        run.file.look(look, offset..offset + 1, run.end)?;
        Ok(Some(run.file.entry(offset)))
    }

    /// [`ConsumeQueue::run`] for a reader.
    pub fn look_at_run(&self, from: u64) -> Result<Option<QueueRun>, ReadError> {
        self.run(from).map_err(|source| {
            // It has a file, which cannot be mapped: so its place there is one, and the file's name a number.
            let at = (from % self.file_entries) as usize * ENTRY_LEN;
            let path = self.dir.join(segment_name((from - from % self.file_entries) * ENTRY_LEN as u64));
            ReadError::Io { path, at, len: ENTRY_LEN, source }
        })
    }

    /// The entries from `from` to the end of their file.
    pub fn run(&self, from: u64) -> io::Result<Option<QueueRun>> {
        let max = self.max();
        if from < self.min() || from >= max {
            return Ok(None);
        }
        Ok(self.file_of(from)?.map(|file| QueueRun { end: max.min(file.end()), file }))
    }

    /// Where the file after the one of `offset` begins. Java: ConsumeQueue.rollNextFile.
    pub fn next_file_start(&self, offset: u64) -> u64 {
        (offset / self.file_entries + 1) * self.file_entries
    }

    /// Notes its extent, for the list that is written when all of it is on the disk. With the dispatch held, or before there is one.
    pub fn note(&self) {
        *self.noted.lock() = self.extent();
    }

    /// What it has. With the dispatch held, or before there is one.
    pub fn extent(&self) -> QueueExtent {
        QueueExtent { min: self.min(), max: self.max(), end: self.end_physical() }
    }

    /// As last noted.
    pub fn noted(&self) -> QueueExtent {
        *self.noted.lock()
    }

    /// Whether it has, at least, what it had then. `log_went_on`: the beginning of the log has gone since, and that of the queue may have.
    pub fn still_has(&self, then: QueueExtent, log_went_on: bool) -> io::Result<bool> {
        let max = self.max();
        if max < then.max || !log_went_on && self.min() > then.min {
            return Ok(false);
        }
        // One that a reader found to be damaged.
        let is_given_up = || -> io::Result<bool> {
            let last = then.max.checked_sub(1).map_or(Ok(None), |last| self.any_entry(last))?;
            Ok(last.is_some_and(|last| last == QueueEntry::lost(last.physical) && last.physical.0 <= then.end))
        };
        if max == then.max {
            return Ok(self.end_physical() == then.end || is_given_up()?);
        }
        // What is not there any more went with the log's beginning.
        let is_there =
            then.max <= self.first() || self.any_entry(then.max - 1)?.is_none_or(|entry| entry.end() == then.end);
        Ok(is_there || is_given_up()?)
    }

    /// First entries of the files before the last one.
    pub fn full_files(&self) -> Vec<u64> {
        let files = self.files.read();
        files.iter().rev().skip(1).map(|file| file.first()).collect()
    }

    /// Gives a queue its end back: messages before `offset` were there once, in a log from `log_min` to `log_end`. False when so many
    /// cannot have been.
    pub fn go_on_at(&self, disk: &dyn Disk, offset: u64, log_min: u64, log_end: u64) -> io::Result<bool> {
        let (max, Some(last)) = (self.max(), offset.checked_sub(1)) else { return Ok(true) };
        if max == 0 {
            // Of a message that is gone with the log's beginning, if that is.
            self.begin(disk, last, &QueueEntry::lost(PhysicalOffset(log_min.saturating_sub(1))))?;
        } else if max < offset && are_too_many(offset - max, self.end_physical(), log_end) {
            return Ok(false);
        }
        // In the log, so that it stays when the log is opened again.
        let lost = self.lost_behind_last(PhysicalOffset(log_end.saturating_sub(1)))?;
        for missing in self.max()..offset {
            self.add(self.files.read(), disk, missing, &lost)?;
        }
        self.raise_next(offset);
        // It may be another than it was when that was looked at.
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.correct_min(log_min)?;
        Ok(true)
    }

    /// What stands for messages that are missing behind the last entry, with a place in the log where they may have been. Behind fillers alone,
    /// these are more of them, which a power loss took.
    fn lost_behind_last(&self, physical: PhysicalOffset) -> io::Result<QueueEntry> {
        let last = self.max().checked_sub(1).map_or(Ok(None), |last| self.any_entry(last))?;
        Ok(last.filter(|last| *last == QueueEntry::FILLER).unwrap_or(QueueEntry::lost(physical)))
    }

    /// End of the record of the last entry; 0 without entries.
    pub fn end_physical(&self) -> u64 {
        self.end_physical.load(Ordering::Acquire)
    }

    fn find_end_physical(&self) -> io::Result<()> {
        let last = self.max().checked_sub(1).map_or(Ok(None), |last| self.any_entry(last))?;
        self.end_physical.store(last.map_or(0, |entry| entry.end()), Ordering::Release);
        Ok(())
    }

    fn file_of(&self, offset: u64) -> io::Result<Option<Arc<QueueFile>>> {
        let segment = {
            let files = self.files.read();
            let Some(segment) = segment_of(&files, offset, self.file_entries) else { return Ok(None) };
            if let Some(file) = segment.mapped() {
                return Ok(Some(Arc::clone(&file)));
            }
            Arc::clone(segment)
        };
        // Without the lock: the file may have to be looked for on the disk, and the next put may have to make one.
        segment.file(&self.mappings).map(Some)
    }

    fn any_entry(&self, offset: u64) -> io::Result<Option<QueueEntry>> {
        Ok(self.file_of(offset)?.map(|file| file.entry(offset)))
    }

    /// First offset with a file.
    fn first(&self) -> u64 {
        self.files.read().first().map_or(0, |file| file.first())
    }

    /// Writes the entry of `offset`. Only the dispatch thread, or recovery, calls this.
    ///
    /// An offset that is there is compared: the log is the truth, so a later record replaces an entry and everything
    /// after it. A queue that begins at an offset other than 0 gets fillers before it, as Java's.
    pub fn put(&self, disk: &dyn Disk, offset: QueueOffset, entry: &QueueEntry) -> io::Result<Put> {
        let offset = offset.0;
        let max = self.max();
        // Before a record are those of all lower offsets; those that the queue lacks, behind its last one. So the fillers are
        // bounded, by the length of the log.
        let lacks = offset.saturating_sub(max);
        if !is_possible(offset, entry.physical.0)
            || (max > 0 && lacks > 0 && are_too_many(lacks, self.end_physical(), entry.physical.0))
        {
            tracing::error!(topic = %self.topic, queue = %self.id, offset, max, physical = %entry.physical, "no record can have this queue offset here: it is damaged, and gets no entry");
            return Ok(Put::Impossible);
        }
        let files = self.files.read();
        if files.is_empty() {
            drop(files);
            return self.begin(disk, offset, entry);
        }
        if offset >= max && entry.physical.0 < self.end_physical() {
            return Ok(Put::Stale);
        }
        if offset == max {
            self.add(files, disk, offset, entry)?;
            return Ok(Put::Added);
        }
        drop(files);
        if offset > max {
            let lost = self.lost_behind_last(entry.physical)?;
            for missing in max..offset {
                self.add(self.files.read(), disk, missing, &lost)?;
            }
            self.add(self.files.read(), disk, offset, entry)?;
            return Ok(Put::Gap);
        }
        let Some(known) = self.any_entry(offset)? else {
            // Before the first file: gone long ago, or the topic began anew at a lower offset.
            if entry.physical.0 < self.end_physical() {
                return Ok(Put::Stale);
            }
            if self.is_doubtful(offset) {
                return Ok(Put::Impossible);
            }
            self.clear(disk)?;
            return self.put(disk, QueueOffset(offset), entry);
        };
        if known == *entry {
            return Ok(Put::Known);
        }
        let hole = !known.is_there() || known.is_filler();
        if hole || known.physical == entry.physical {
            // Not while a flush goes on, which may have passed the place and will note how far it came.
            let _flush = self.flush_lock.lock();
            if let Some(file) = self.file_of(offset)? {
                file.put(offset, entry);
            }
            self.changes.fetch_add(1, Ordering::AcqRel);
            // Behind a truncation, the place of one that was lost with those before it.
            self.min.fetch_min(offset, Ordering::AcqRel);
            self.min_physical.fetch_min(entry.physical.0, Ordering::AcqRel);
            self.flushed.fetch_min(offset, Ordering::AcqRel);
            return Ok(Put::Added);
        }
        if known.physical > entry.physical {
            return Ok(Put::Stale);
        }
        if offset + 1 < max && self.is_doubtful(offset) {
            return Ok(Put::Impossible);
        }
        tracing::warn!(topic = %self.topic, queue = %self.id, offset, "the log has a later message at this offset");
        self.cut(disk, offset)?;
        self.add(self.files.read(), disk, offset, entry)?;
        Ok(Put::Added)
    }

    /// Puts another entry in the place of one that is damaged, if it is still the one that was looked at: the queue may have been cut off
    /// since, and have another message there.
    pub fn mend(&self, offset: u64, damaged: &QueueEntry, entry: &QueueEntry) -> io::Result<()> {
        // Not while a flush goes on, which may have passed the place and will note how far it came; nor while the queue is cut off.
        let _flush = self.flush_lock.lock();
        if (self.min()..self.max()).contains(&offset)
            && let Some(file) = self.file_of(offset)?
            && file.entry(offset) == *damaged
        {
            file.put(offset, entry);
            self.changes.fetch_add(1, Ordering::AcqRel);
            self.flushed.fetch_min(offset, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Whether a record, by which many entries would go, is not believed: nothing covers the offset that it states. A topic that
    /// began anew began at 0; if that record was damaged, two in a row are believed.
    fn is_doubtful(&self, offset: u64) -> bool {
        if offset == 0 || self.doubted.swap(offset, Ordering::Relaxed).wrapping_add(1) == offset {
            return false;
        }
        tracing::error!(topic = %self.topic, queue = %self.id, offset, max = self.max(), "a record with an offset that others have, and have not begun anew: it is damaged, and gets no entry");
        true
    }

    /// Makes the first file, for an entry at `offset`.
    fn begin(&self, disk: &dyn Disk, offset: u64, entry: &QueueEntry) -> io::Result<Put> {
        // Not while a flush goes on, which would note how far it came over where the queue begins.
        let _flush = self.flush_lock.lock();
        self.changes.fetch_add(1, Ordering::AcqRel);
        // First, so that nobody asks for the fillers.
        self.min.store(offset, Ordering::Release);
        self.min_physical.store(entry.physical.0, Ordering::Release);
        let file = self.add_file(disk, offset).inspect_err(|_| self.min.store(0, Ordering::Release))?;
        for before in file.first()..offset {
            file.put(before, &QueueEntry::FILLER);
        }
        self.write(disk, &file, offset, entry)?;
        Ok(Put::Added)
    }

    /// Adds at the end; the file is made when it is not there.
    fn add(&self, files: Files<'_>, disk: &dyn Disk, offset: u64, entry: &QueueEntry) -> io::Result<()> {
        let last = files.last().filter(|last| offset < last.end());
        if let Some(file) = last.and_then(|last| last.mapped()) {
            return self.write(disk, &file, offset, entry);
        }
        let last = last.cloned();
        drop(files);
        let file = match last {
            Some(last) => last.file(&self.mappings)?,
            None => self.add_file(disk, offset)?,
        };
        self.write(disk, &file, offset, entry)
    }

    fn write(&self, disk: &dyn Disk, file: &QueueFile, offset: u64, entry: &QueueEntry) -> io::Result<()> {
        file.allocate(disk, offset)?;
        file.put(offset, entry);
        self.end_physical.store(entry.end(), Ordering::Release);
        self.max.store(offset + 1, Ordering::Release);
        Ok(())
    }

    /// Makes the file for the entry at `offset`, with room up to that.
    fn add_file(&self, disk: &dyn Disk, offset: u64) -> io::Result<Arc<QueueFile>> {
        let first = offset - offset % self.file_entries;
        disk.make_dir(&self.dir)?;
        let path = self.dir.join(segment_name(first * ENTRY_LEN as u64));
        // Nobody else has files here: what is at its path came of an attempt that failed.
        files::remove_file(disk, &path)?;
        let segment = Segment::create(&self.mappings, disk, path, first, self.file_entries)?;
        let file = segment.file(&self.mappings)?;
        // Before it counts: a queue that begins in its middle gets fillers for all that is before, or is not begun.
        (first..=offset).try_for_each(|offset| file.allocate(disk, offset))?;
        self.dir_dirty.store(true, Ordering::Release);
        let mut files = self.files.write();
        if files.is_empty() {
            // Nothing before this file will ever be written.
            self.flushed.store(first, Ordering::Release);
            self.max.store(first, Ordering::Release);
        }
        files.push(segment);
        Ok(file)
    }

    /// Removes the entries from `offset` on, on the disk too: stale ones must not come back after a power loss.
    fn cut(&self, disk: &dyn Disk, offset: u64) -> io::Result<()> {
        let _flush = self.flush_lock.lock();
        let max = self.max();
        if offset >= max {
            return Ok(());
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.max.store(offset, Ordering::Release);
        self.find_end_physical()?;
        self.flushed.fetch_min(offset, Ordering::AcqRel);
        // First: the first entry of a file has none before it that shows whether it is torn. The last file stays, for it knows the next
        // offset, unless that is 0.
        self.drop_files_from(disk, offset, usize::from(offset > 0))?;
        for cut in offset..max {
            if let Some(file) = self.file_of(cut)? {
                file.clear(cut);
            }
        }
        if let Some(file) = self.file_of(offset)? {
            file.sync(disk, offset..file.end())?;
        }
        Ok(())
    }

    /// Removes every file.
    fn clear(&self, disk: &dyn Disk) -> io::Result<()> {
        let _flush = self.flush_lock.lock();
        for file in self.files.write().drain(..) {
            files::remove_file(disk, file.path())?;
        }
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.min.store(0, Ordering::Release);
        self.min_physical.store(0, Ordering::Release);
        self.max.store(0, Ordering::Release);
        self.end_physical.store(0, Ordering::Release);
        self.flushed.store(0, Ordering::Release);
        // What the next append gets stays: of some the records may not be dispatched yet.
        disk.sync_dir(&self.dir)
    }

    /// Removes the entries whose records end beyond `end` of the log, from the back, and offsets that none before it can have. Java:
    /// truncateDirtyLogicFiles.
    pub fn truncate_physical(&self, disk: &dyn Disk, end: u64) -> io::Result<()> {
        let (min, max) = (self.min(), self.max());
        // Those of messages that were lost are not in the way of what comes in the place of these.
        let possible = end / RECORD_LEN_MIN as u64;
        // That of the last entry, which need not be looked at then.
        if self.end_physical() < end && max <= possible {
            return Ok(());
        }
        let mut keep = max.min(possible);
        while keep > min {
            match self.any_entry(keep - 1)? {
                // A filler stands for what is before the entry after it, which is gone by now.
                Some(entry) if entry.end() > end || (entry.is_filler() && entry.physical.0 >= end) => keep -= 1,
                _ => break,
            }
        }
        if keep == max {
            return Ok(());
        }
        if keep < self.first() {
            // Nothing that it has is of a message that is there. It begins anew, in the file of its next message.
            self.clear(disk)?;
            if let Some(last) = keep.checked_sub(1) {
                self.begin(disk, last, &QueueEntry::FILLER)?;
                self.min.store(keep, Ordering::Release);
            }
            return Ok(());
        }
        self.min.fetch_min(keep, Ordering::AcqRel);
        self.min_physical.fetch_min(end, Ordering::AcqRel);
        self.cut(disk, keep)
    }

    /// The first entry that [`ConsumeQueue::keep_before`] would forget, if anything stands there.
    pub fn first_behind(&self, disk: &dyn Disk, physical: u64, belongs: &Belongs<'_>) -> io::Result<Option<Forgotten>> {
        self.split_at(disk, physical, belongs).map(|(_, forgotten)| forgotten)
    }

    /// Forgets the entries of records at or behind `physical` of the log, and whatever stands behind them in the files: after
    /// a power loss some of these pages may be missing and others be from before something else. They are put again from the log.
    /// `belongs` is asked about the last one kept, if that lies across a page that may have been lost.
    pub fn keep_before(&self, disk: &dyn Disk, physical: u64, belongs: &Belongs<'_>) -> io::Result<()> {
        let (kept, _) = self.split_at(disk, physical, belongs)?;
        let Some((file, end)) = kept else {
            if self.files.read().is_empty() {
                return Ok(());
            }
            self.next.store(0, Ordering::Release);
            return self.clear(disk);
        };
        let _flush = self.flush_lock.lock();
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.max.store(end, Ordering::Release);
        self.next.store(end, Ordering::Release);
        // Fillers are before every place in the log: that this is on the disk says nothing of them.
        let flushed = if put_fillers_again(&file, end) { file.first() } else { end };
        self.flushed.store(flushed, Ordering::Release);
        self.find_end_physical()?;
        if end < file.end() {
            file.zero_from(disk, end)?;
        }
        self.drop_files_from(disk, file.first() + 1, 1)
    }

    /// Where the entries of records before `physical` end, with their last file, if there are any; and the first of the others.
    fn split_at(&self, disk: &dyn Disk, physical: u64, belongs: &Belongs<'_>) -> io::Result<Split> {
        let files = self.files.read().clone();
        let (mut kept, mut forgotten) = (None, None);
        let told = |file: &QueueFile, offset: u64| {
            Some(Forgotten { offset, entry: file.entry(offset), may_be_torn: file.is_across(disk.page_len(), offset) })
        };
        for segment in files.iter().rev() {
            let file = segment.file(&self.mappings)?;
            if !file.entry(file.first()).is_before(physical) {
                forgotten = told(&file, file.first());
                continue;
            }
            let used = file.used_end()?;
            let mut end = partition_point(file.first(), used, |offset| file.entry(offset).is_before(physical));
            // What is torn may look like an entry of any record. Between it and the last one that is whole there may be others, lost or not.
            let is_sound = |offset: u64| {
                let entry = file.entry(offset);
                let is_whole = || {
                    file.follows(offset) && (!file.is_across(disk.page_len(), offset) || belongs(self, offset, &entry))
                };
                // `physical` is the border of a record.
                entry.is_before(physical) && entry.end() <= physical && is_whole()
            };
            while end > file.first() && !is_sound(end - 1) {
                end -= 1;
            }
            if end < file.end() {
                forgotten = told(&file, end);
            }
            kept = Some((file, end));
            break;
        }
        Ok((kept, forgotten.filter(|first| first.entry != QueueEntry::NOTHING)))
    }

    /// The last entry that is neither lost nor torn, as far as its place tells, and its offset: see [`ConsumeQueue::keep_before`].
    pub fn last_whole(&self) -> io::Result<Option<(u64, QueueEntry)>> {
        let Some(last) = self.max().checked_sub(1) else { return Ok(None) };
        let Some(file) = self.file_of(last)? else { return Ok(None) };
        let mut entries = (file.first()..=last).rev().map(|offset| (offset, file.entry(offset)));
        Ok(entries.find(|(offset, entry)| entry.is_there() && file.follows(*offset)))
    }

    /// Removes the files that begin at `offset` or behind it, durably, until so many are left. Under the flush lock.
    fn drop_files_from(&self, disk: &dyn Disk, offset: u64, least: usize) -> io::Result<()> {
        let mut dropped = false;
        let mut files = self.files.write();
        while files.len() > least && files.last().is_some_and(|file| file.first() >= offset) {
            if let Some(file) = files.pop() {
                files::remove_file(disk, file.path())?;
                dropped = true;
            }
        }
        if dropped { disk.sync_dir(&self.dir) } else { Ok(()) }
    }

    /// Sets min to the first entry whose record is not before `log_min`, when a store opens. Java: correctMinOffset.
    pub fn correct_min(&self, log_min: u64) -> io::Result<()> {
        if self.listed_by == Some(log_min) && self.changes.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let (first, max) = (self.first(), self.max());
        let gone = |offset: u64| -> io::Result<bool> {
            let entry = self.any_entry(offset)?;
            Ok(entry.is_none_or(|entry| entry == QueueEntry::FILLER || entry.is_before(log_min)))
        };
        // The usual cases need one entry, or none.
        let min = if first >= max || self.end_physical() <= log_min {
            max
        } else if !gone(first)? {
            first
        } else {
            try_partition_point(first, max, gone)?
        };
        let found = if min < max { self.any_entry(min)? } else { None };
        self.min.store(min, Ordering::Release);
        // Else the first round of retention would look at every queue once more.
        self.min_physical.store(found.map_or(log_min, |entry| entry.physical.0), Ordering::Release);
        Ok(())
    }

    /// Brings min up to the first entry whose record is not before `log_min`, where the log begins now.
    /// Of a queue of which the log has all messages, or none, nothing is read. Java: deleteExpiredFile, correctMinOffset.
    pub fn follow_log(&self, look: &Look<'_>, log_min: u64) -> io::Result<()> {
        while self.min_physical.load(Ordering::Acquire) < log_min {
            // In this order: what is put or taken back after these looks is not meant.
            let (changes, min, max) = (self.changes.load(Ordering::Acquire), self.min(), self.max());
            if min >= max {
                break;
            }
            let to = if self.end_physical() <= log_min { max } else { self.first_not_before(look, min, max, log_min)? };
            let found = if to < max { self.look_up(look, to).map_err(io::Error::other)? } else { None };
            let _flush = self.flush_lock.lock();
            if self.is_going() {
                return Ok(());
            }
            if self.changes.load(Ordering::Acquire) == changes {
                self.min.store(to, Ordering::Release);
                // No open misses what goes now.
                let mut noted = self.noted.lock();
                noted.min = noted.min.max(to);
                drop(noted);
                // Behind the last entry comes what is appended from now on.
                self.min_physical.store(found.map_or(log_min, |entry| entry.physical.0), Ordering::Release);
                break;
            }
        }
        Ok(())
    }

    fn first_not_before(&self, look: &Look<'_>, min: u64, max: u64, log_min: u64) -> io::Result<u64> {
        try_partition_point(min, max, |offset| {
            let entry = self.look_up(look, offset).map_err(io::Error::other)?;
            Ok(entry.is_none_or(|entry| entry == QueueEntry::FILLER || entry.is_before(log_min)))
        })
    }

    /// Removes the files that end before min, but for the last, which knows the next offset: one after the other and durably, so that no
    /// crash leaves a gap.
    pub fn drop_files_before_min(&self, disk: &dyn Disk) -> io::Result<()> {
        loop {
            let _flush = self.flush_lock.lock();
            let Some(first) = self.file_before_min().filter(|_| !self.is_going()) else { return Ok(()) };
            files::remove_file(disk, first.path())?;
            disk.sync_dir(&self.dir)?;
            self.flushed.fetch_max(first.end(), Ordering::AcqRel);
            self.files.write().retain(|file| !Arc::ptr_eq(file, &first));
        }
    }

    /// Most queues have none.
    pub fn has_files_before_min(&self) -> bool {
        self.file_before_min().is_some()
    }

    fn file_before_min(&self) -> Option<Arc<Segment>> {
        match &self.files.read()[..] {
            [first, _, ..] if first.end() <= self.min() => Some(Arc::clone(first)),
            _ => None,
        }
    }

    /// Whether files were made since the last call, whose names are not durable yet.
    pub fn take_new_files(&self) -> bool {
        self.dir_dirty.swap(false, Ordering::AcqRel)
    }

    /// Takes [`ConsumeQueue::take_new_files`] back.
    pub fn note_new_files(&self) {
        self.dir_dirty.store(true, Ordering::Release);
    }

    /// Where its files are; the directory of its topic and that of all topics are above it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn is_going(&self) -> bool {
        self.going.load(Ordering::SeqCst)
    }

    /// Whether all its entries are known to be on the disk.
    pub fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Acquire) == self.max()
    }

    /// Writes entries out: when `least_pages` pages are waiting or a file is full, or with 0 whatever is waiting.
    /// True when nothing is left to be written. For the files' names see [`ConsumeQueue::take_new_files`].
    pub fn flush(&self, disk: &dyn Disk, least_pages: u64) -> io::Result<bool> {
        let _flush = self.flush_lock.lock();
        if self.is_going() {
            return Ok(true);
        }
        match self.flush_held(disk, least_pages) {
            // They were taken away under it.
            Err(_) if self.is_going() => Ok(true),
            flushed => flushed,
        }
    }

    /// What is waiting, if all of it is on the file system `device`, with the newest file's name.
    pub fn begin_shared_flush(&self, device: u64) -> Option<SharedFlush> {
        let _flush = self.flush_lock.lock();
        let (from, to) = (self.flushed.load(Ordering::Acquire), self.max());
        let last = self.files.read().last().cloned();
        let is_there = self.waiting(from, to).chain(last).all(|file| file.device() == Some(device));
        is_there.then(|| SharedFlush { from, to, changes: self.changes.load(Ordering::Acquire) })
    }

    /// All that was waiting then is on the disk. True when nothing is left.
    pub fn end_shared_flush(&self, flush: SharedFlush) -> io::Result<bool> {
        let _flush = self.flush_lock.lock();
        let SharedFlush { from, to, changes } = flush;
        if self.is_going() {
            return Ok(true);
        }
        if (self.flushed.load(Ordering::Acquire), self.changes.load(Ordering::Acquire)) != (from, changes) {
            return Ok(false);
        }
        for file in self.waiting(from, to) {
            // One that has lost something stays mapped.
            let check = file.mapped().map_or(Ok(()), |file| file.check());
            check.map_err(|error| sync_failed(io::Error::other(error)))?;
        }
        self.flushed.store(to, Ordering::Release);
        Ok(to == self.max())
    }

    /// The files with entries between two offsets.
    fn waiting(&self, from: u64, to: u64) -> impl Iterator<Item = Arc<Segment>> + use<> {
        let files = self.files.read().clone();
        files.into_iter().filter(move |file| from < file.end() && file.first() < to)
    }

    fn flush_held(&self, disk: &dyn Disk, least_pages: u64) -> io::Result<bool> {
        let (flushed, max) = (self.flushed.load(Ordering::Acquire), self.max());
        if flushed >= max {
            return Ok(true);
        }
        let page = |offset: u64| offset * ENTRY_LEN as u64 / PAGE;
        let file_filled = flushed / self.file_entries != max / self.file_entries;
        if least_pages > 0 && !file_filled && page(max) - page(flushed) < least_pages {
            return Ok(false);
        }
        // The page that is being filled stays as it is: a sync write-protects it, and the next entry would have to wait.
        let to = match least_pages {
            0 => max,
            _ => {
                let file_start = max - max % self.file_entries;
                let whole_pages = (max - file_start) * ENTRY_LEN as u64 / PAGE * PAGE;
                flushed.max(file_start + whole_pages / ENTRY_LEN as u64)
            }
        };
        let mut at = flushed;
        while at < to {
            let Some(file) = self.file_of(at)? else { break };
            let end = to.min(file.end());
            file.sync(disk, at..end)?;
            at = end;
        }
        self.flushed.store(to, Ordering::Release);
        Ok(to == max)
    }

    /// Lets go of the files, wherever they are by now. Readers that hold one keep it until they are done.
    pub fn let_go(&self) {
        self.set_going();
        let _flush = self.flush_lock.lock();
        self.retire();
        self.files.write().clear();
        self.max.store(0, Ordering::Release);
        self.min.store(0, Ordering::Release);
        self.flushed.store(0, Ordering::Release);
    }

    /// Takes the files away.
    pub fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        self.let_go();
        files::remove_dir(disk, &self.dir)
    }
}

/// First offset in `from..to` for which `before` is false; `to` when there is none.
pub fn partition_point(from: u64, to: u64, before: impl Fn(u64) -> bool) -> u64 {
    let Ok(point) = try_partition_point(from, to, |offset| Ok::<bool, Infallible>(before(offset)));
    point
}

/// [`partition_point`] where looking may fail.
pub fn try_partition_point<E>(from: u64, to: u64, before: impl Fn(u64) -> Result<bool, E>) -> Result<u64, E> {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

#[cfg(test)]
#[path = "consume_queue_test.rs"]
mod tests;
