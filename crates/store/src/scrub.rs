//! Reads the old part of the log from the disk, to find what rots there before somebody wants it.
//!
//! It goes over the segments that are full and on the disk, from the oldest to the newest and round again, a piece at a time; whoever
//! drives it says when the next piece is due, and so how fast. Between two pieces it has neither a file nor a mapping, so it keeps no
//! room of a segment that is deleted. It reads from the file and not through the mapping: a sector that the disk does not give is an error here, and
//! what was not in the page cache before does not stay there. Of the log it changes nothing: what it finds, consumers pass over (`mending`).
//!
//! Each message that it passes it holds against its queue's entry. One that leads to its message and says other tags hides it from consumers
//! that ask for those, and nobody else would notice: it is put right. What leads elsewhere is found by who reads it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{Advice, fadvise};

use ferromq_protocol::message::Record;
use ferromq_protocol::topics::SCHEDULE_TOPIC;

use crate::check::damage_of;
use crate::disk::Disk;
use crate::entry_properties::EntryProperties;
use crate::looking::Look;
use crate::mapped_file::LogFile;
use crate::projection::{Projection, queue_entry};
use crate::queue_file::QueueEntry;
use crate::segments::{Segments, stated_len};
use crate::stats::Counters;
use crate::walk::LogItem;
use crate::watermarks::Positions;

/// Read before it is asked again whether more is due; a longer record is read as a whole.
pub const PIECE: usize = 1 << 20;
/// Asked of the disk at a time, and so what a bad sector hides.
const BLOCK: usize = 64 * 1024;
/// So many damaged places are told apart and named.
const TOLD_MAX: usize = 1000;

/// Where it is, and what it has found.
#[derive(Debug)]
pub struct Scrub {
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    projection: Arc<Projection>,
    disk: Arc<dyn Disk>,
    counters: Arc<Counters>,
    /// What comes next, as a place of the log.
    next: u64,
    /// Behind the last record, if no record stood there.
    hole: Option<Hole>,
    /// Places of damage that was told, so that each is told once.
    told: BTreeSet<u64>,
    /// Only the first failure in a row goes into the trace log.
    failing: bool,
}

/// A part of the log without a record that can be read.
#[derive(Debug)]
struct Hole {
    path: PathBuf,
    /// Of the file, and of the log.
    at: u64,
    physical: u64,
    why: String,
    /// The disk does not give it.
    is_unread: bool,
}

/// What could be read of a piece.
struct Piece {
    bytes: Vec<u8>,
    /// Why there is no more, and how long the block is that the disk does not give.
    failed: Option<(io::Error, usize)>,
}

impl Scrub {
    pub(crate) fn new(
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        projection: Arc<Projection>,
        counters: Arc<Counters>,
    ) -> Scrub {
        let disk = Arc::clone(&projection.disk);
        let told = BTreeSet::new();
        Scrub { segments, positions, projection, disk, counters, next: 0, hole: None, told, failing: false }
    }

    /// Reads the next piece of the log and looks at what is in it. Gives how many bytes were asked of the disk; 0 when there is nothing to look at
    /// for now.
    pub fn read_piece(&mut self) -> u64 {
        let Some(file) = self.next_file() else { return 0 };
        // Inside the file, whose length is a usize.
        let from = (self.next - file.start()) as usize;
        let source = match self.open(&file) {
            Ok(Some(source)) => source,
            Ok(None) => return 0,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(path = %file.path().display(), %error, "the scrub cannot open a file of the log; trying again");
                }
                return 0;
            }
        };
        self.failing = false;
        let mut piece = Piece { bytes: Vec::new(), failed: None };
        let mut wanted = PIECE.min(file.len() - from);
        let passed = loop {
            self.read(&file, &source, from, wanted, &mut piece);
            let passed = self.look_at(&file, from, &piece.bytes);
            if passed > 0 || piece.failed.is_some() {
                break passed;
            }
            // Nothing but the beginning of something longer.
            match stated_len(&piece.bytes, self.next).filter(|len| (wanted + 1..=file.len() - from).contains(len)) {
                Some(len) => wanted = len,
                None => {
                    self.fall_into_hole(&file, from, "the head of a record that is too long".to_owned());
                    break piece.bytes.len();
                }
            }
        };
        if from + passed == file.len() {
            // Behind the last record; nobody wants what is there.
            piece.failed = None;
        }
        self.next += passed as u64;
        let mut asked = piece.bytes.len();
        if let Some((error, block)) = piece.failed {
            self.not_given(&file, from + passed, &error);
            asked += block;
            self.next = file.start() + (from + asked) as u64;
        }
        if self.next >= file.end() {
            self.leave_hole(file.end());
        }
        self.counters.scrub_bytes.fetch_add(asked as u64, Ordering::Relaxed);
        asked as u64
    }

    /// The segment with the next place, if it is full and on the disk; at the end of those, the first one again.
    fn next_file(&mut self) -> Option<Arc<LogFile>> {
        let first = self.segments.first()?;
        let flushed = self.positions.flushed();
        let is_old = |file: &Arc<LogFile>| file.end() <= flushed && file.written() == file.len();
        if self.next < first.start() {
            // It has gone, with all that was before.
            self.hole = None;
            self.next = first.start();
        } else if let Some(file) = self.segments.find(self.next).filter(is_old) {
            return Some(file);
        } else if self.next > first.start() {
            self.hole = None;
            self.next = first.start();
            self.counters.scrub_rounds.fetch_add(1, Ordering::Relaxed);
        }
        self.told = self.told.split_off(&first.start());
        Some(first).filter(is_old)
    }

    /// A descriptor of its own, so that others read ahead as before. `None` when the segment has gone meanwhile.
    fn open(&mut self, file: &Arc<LogFile>) -> io::Result<Option<File>> {
        match File::open(file.path()) {
            // The log was truncated, and another has its place.
            Ok(source) if !file.is_same(&source)? => {
                self.hole = None;
                self.next = file.end();
                Ok(None)
            }
            Ok(source) => {
                // Blocks are asked for one by one, and nothing behind them. No harm where the kernel does not take the advice.
                let _ = fadvise(&source, 0, None, Advice::Random);
                Ok(Some(source))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.segments.find(file.start()).is_some_and(|still| Arc::ptr_eq(&still, file)) {
                    let what =
                        "the file is gone; it is read yet by those who have it, and will be missing at the next start";
                    self.tell(file.path().to_owned(), 0, file.start(), what);
                }
                self.hole = None;
                self.next = file.end();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads on until the piece has `wanted` bytes from `from` on.
    fn read(&self, file: &LogFile, source: &File, from: usize, wanted: usize, piece: &mut Piece) {
        while piece.bytes.len() < wanted {
            let (had, at) = (piece.bytes.len(), from + piece.bytes.len());
            let len = (BLOCK - at % BLOCK).min(file.len() - at);
            let stays = file.is_resident(&*self.disk, at..at + len);
            piece.bytes.resize(had + len, 0);
            let read = self.disk.read(file.path(), source, &mut piece.bytes[had..], at as u64);
            if !stays {
                // Only a hint: what is mapped by readers stays.
                let _ = fadvise(source, at as u64, NonZeroU64::new(len as u64), Advice::DontNeed);
            }
            if let Err(error) = read {
                piece.bytes.truncate(had);
                piece.failed = Some((error, len));
                return;
            }
        }
    }

    /// Goes from record to record through what stands at `from` of a segment; gives how far. What is not there as a whole is left for
    /// the next piece.
    fn look_at(&mut self, file: &LogFile, from: usize, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let physical = file.start() + (from + at) as u64;
            match LogItem::at(&bytes[at..], physical, file.len() - from - at) {
                LogItem::Record(record) => {
                    self.leave_hole(physical);
                    match damage_of(&record, from + at) {
                        Some(what) => self.tell(file.path().to_owned(), (from + at) as u64, physical, &what),
                        None => self.look_at_entry(&record, physical),
                    }
                    at += record.record_len();
                }
                LogItem::End => {
                    self.leave_hole(physical);
                    return file.len() - from;
                }
                LogItem::Part => break,
                LogItem::Damage { len, error } => {
                    self.fall_into_hole(file, from + at, error.to_string());
                    at += len;
                }
            }
        }
        at
    }

    /// Holds a message against the entry that leads to it.
    fn look_at_entry(&mut self, record: &Record<'_>, physical: u64) {
        let queue = self.projection.queues.find(record.topic(), record.queue_id());
        let Some(queue) = queue.filter(|_| record.sys_flag().is_visible()) else { return };
        let offset = record.queue_offset().0;
        // One that cannot be read is told by who wants it.
        let Ok(Some(entry)) = queue.look_up(&Look::reading_on(&*self.disk), offset) else { return };
        // Another's: of a topic that was deleted, say.
        if entry.is_filler() || entry.physical.0 != physical {
            return;
        }
        let text = record.properties();
        let mut right = queue_entry(record, &EntryProperties::of(&text), physical, &self.projection.delay_levels);
        if record.topic() == SCHEDULE_TOPIC {
            // When it is delivered, by the levels that were configured then.
            right.tags_code = entry.tags_code;
        }
        if right == entry {
            return;
        }
        let QueueEntry { len, tags_code, .. } = entry;
        let what =
            format!("said {len} bytes with the tags code {tags_code}, it is {} with {}", right.len, right.tags_code);
        // No checksum covers the message's tags: where more than a bit differs it may be these that are damaged, and the entry the last to
        // know the right ones.
        let mended = if (right.tags_code ^ tags_code).count_ones() > 1 {
            Err(io::Error::other("one of the two is damaged, and nobody can tell which"))
        } else {
            let mended = queue.mend(offset, &entry, &right);
            self.projection.queues.mark_dirty(&queue);
            mended
        };
        if self.is_told(physical) {
            return;
        }
        let (topic, id, dir) = (queue.topic(), queue.id(), queue.dir().display());
        match mended {
            Ok(()) => {
                tracing::error!(path = %dir, topic, queue = %id, offset, physical, what, "the scrub found an entry of a queue that does not fit its message, and has put it right: look at the disk");
            }
            Err(error) => {
                tracing::error!(path = %dir, topic, queue = %id, offset, physical, what, %error, "the scrub found an entry of a queue that does not fit its message, and cannot put it right: with the broker stopped, mqadmin storeCheck --repair makes it again");
            }
        }
        self.say_if_last();
    }

    /// There is no record at `at` of a segment.
    fn fall_into_hole(&mut self, file: &LogFile, at: usize, why: String) {
        let path = || file.path().to_owned();
        let (at, physical) = (at as u64, file.start() + at as u64);
        self.hole.get_or_insert_with(|| Hole { path: path(), at, physical, why, is_unread: false });
    }

    /// The disk gives nothing at `at` of a segment.
    fn not_given(&mut self, file: &LogFile, at: usize, error: &io::Error) {
        let physical = file.start() + at as u64;
        if self.hole.as_ref().is_some_and(|hole| !hole.is_unread) {
            self.leave_hole(physical);
        }
        self.fall_into_hole(file, at, format!("cannot be read: {error}"));
        if let Some(hole) = &mut self.hole {
            hole.is_unread = true;
        }
    }

    /// At `end` a record follows, or another segment.
    fn leave_hole(&mut self, end: u64) {
        if let Some(hole) = self.hole.take() {
            let what = format!("{} bytes hold no record: {}", end.saturating_sub(hole.physical), hole.why);
            self.tell(hole.path, hole.at, hole.physical, &what);
        }
    }

    fn tell(&mut self, path: PathBuf, at: u64, physical: u64, what: &str) {
        if self.is_told(physical) {
            return;
        }
        tracing::error!(
            path = %path.display(),
            at,
            physical,
            what,
            "the scrub found damage in the log, which consumers pass over: look at the disk; with the broker stopped, put back the file from a copy, or ask mqadmin storeCheck what else there is"
        );
        self.say_if_last();
    }

    /// Whether damage at this place was told before, or is more than is told; it counts as told from now on.
    fn is_told(&mut self, physical: u64) -> bool {
        if self.told.len() >= TOLD_MAX || !self.told.insert(physical) {
            return true;
        }
        self.counters.scrub_damages.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Of the last one that is told, behind it.
    fn say_if_last(&self) {
        if self.told.len() == TOLD_MAX {
            tracing::error!("there is more damage than the scrub counts; it is not named any more");
        }
    }
}

#[cfg(test)]
#[path = "scrub_test.rs"]
mod tests;
