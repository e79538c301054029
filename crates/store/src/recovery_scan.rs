//! Going through the log when a store is opened: what is whole, what is damaged, and where it ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ferromq_protocol::message::record::{MAGIC_V1, MAGIC_V2, RECORD_LEN_MIN};
use ferromq_protocol::message::{ParsedRecord, Record, RecordError};
use ferromq_protocol::{PhysicalOffset, QueueId};
use foldhash::HashMap;
use memchr::memmem;

use crate::abort::Crash;
use crate::checkpoint::{Checkpoint, CheckpointContent};
use crate::consume_queue::{Put, is_possible};
use crate::disk::Disk;
use crate::entry_properties::EntryProperties;
use crate::interrupt::Interrupt;
use crate::inventory::Inventory;
use crate::looking::{Effort, Look};
use crate::mapped_file::{LogFile, LogSlice};
use crate::projection::Projection;
use crate::queues::is_directory_name;
use crate::segments;
use crate::table_change::deleted_topic;
use crate::torn_text::{has_lost_properties, has_torn_text, has_unwritten_end};
use crate::walk;

/// A search in a damaged part looks at so much at once, and then whether it is to be given up.
const SEARCH_STEP: usize = 256 * 1024;

/// Where to begin, per projection.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub queues: u64,
    pub index: u64,
}

/// The result of going through the log once.
pub struct Scan {
    pub end: u64,
    pub last: Option<(u64, i64)>,
    pub gap: bool,
    pub records: u64,
    /// Topics that were deleted, and where the log says so last.
    pub deleted: HashMap<String, u64>,
    /// End of the last whole record that is confirmed, or of the log if all of it is; and the store time of that record.
    pub shown: u64,
    pub shown_time: Option<i64>,
    /// Of queues that have records behind that: the offset after the last of them.
    pub next_offsets: HashMap<(String, QueueId), u64>,
}

impl Scan {
    /// Where all is confirmed, what is damaged at the very end is shown as well: as what it is.
    pub fn shown_by(mut self, confirmed: u64) -> Scan {
        if confirmed >= self.end {
            (self.shown, self.shown_time) = (self.end, self.last.map(|(_, time)| time));
        }
        self
    }
}

/// Which part of the log was on the disk before the crash: what cannot be read there is damage, elsewhere it is the end.
#[derive(Clone, Copy, Debug)]
pub enum OnDisk {
    /// All bytes before this place.
    Before(u64),
    /// All records stored up to this time; that is all a Java broker says.
    StoredBy(i64),
    /// All bytes before this place, and of what is behind it nobody says anything any more: whatever is proven good is kept.
    AtLeast(u64),
}

impl OnDisk {
    pub fn told_by(checkpoint: &Checkpoint, inventory: &Inventory) -> OnDisk {
        match checkpoint.told() {
            CheckpointContent::Places(found) => OnDisk::Before(found.log.max(inventory.found().log_end)),
            CheckpointContent::Times => OnDisk::StoredBy(checkpoint.log_time()),
            // The list is older than the checkpoint was that it was saved with.
            CheckpointContent::Nothing => OnDisk::AtLeast(inventory.found().log_end),
        }
    }

    /// Whether the record begins in that part.
    fn covers(self, record: &Record<'_>) -> bool {
        match self {
            OnDisk::Before(end) => record.physical_offset().0 < end,
            OnDisk::StoredBy(time) => record.store_timestamp() <= time,
            OnDisk::AtLeast(_) => true,
        }
    }

    /// Whether all of the record is in it: a sync may end in the middle of one.
    fn covers_whole(self, record: &Record<'_>) -> bool {
        match self {
            OnDisk::Before(_) | OnDisk::AtLeast(_) => {
                self.reaches(record.physical_offset().0 + record.record_len() as u64)
            }
            // Strictly before: others of that very millisecond may have come after the sync.
            OnDisk::StoredBy(time) => record.store_timestamp() < time,
        }
    }

    /// Whether all bytes before `end` were.
    pub fn reaches(self, end: u64) -> bool {
        matches!(self, OnDisk::Before(known) | OnDisk::AtLeast(known) if end <= known)
    }
}

/// The record that ends exactly at `end`, by the queue entry that says so: its start and store time. It must hold.
fn record_ending_at(files: &[Arc<LogFile>], projection: &Projection, end: u64) -> Option<(u64, i64)> {
    let queue = projection.queues.all().into_iter().find(|queue| queue.end_physical() == end)?;
    let entry = queue.max().checked_sub(1).and_then(|last| queue.entry(last).ok().flatten())?;
    let bytes = record_bytes(files, &*projection.disk, entry.physical.0).ok().flatten()?;
    let record = Record::parse(&bytes).ok().filter(|record| record.check_crc().is_ok())?;
    (record.record_len() == entry.len as usize).then(|| (entry.physical.0, record.store_timestamp()))
}

/// The record at a place, if its lengths are whole; an error when the disk does not give it.
pub fn record_bytes(files: &[Arc<LogFile>], disk: &dyn Disk, physical: u64) -> io::Result<Option<Bytes>> {
    let Some(segment) =
        files.iter().rev().find(|file| file.start() <= physical).and_then(|file| Segment::of(file, disk))
    else {
        return Ok(None);
    };
    // A file's length is a usize.
    let Some(at) = usize::try_from(physical - segment.file.start()).ok().filter(|at| *at < segment.bytes.len()) else {
        return Ok(None);
    };
    match segment.record_at(at)? {
        Ok(ParsedRecord::Record(record)) => Ok(Some(Bytes::copy_from_slice(record.bytes()))),
        Ok(ParsedRecord::Blank { .. }) | Err(_) => Ok(None),
    }
}

/// The border between records, at or before `from`, at which reading begins; with the record before it where it is known.
fn border_before(files: &[Arc<LogFile>], projection: &Projection, from: u64) -> io::Result<(u64, Option<(u64, i64)>)> {
    let ends = projection.queues.all().iter().map(|queue| queue.end_physical()).filter(|end| *end <= from).max();
    let vouched = ends.and_then(|end| record_ending_at(files, projection, end).map(|last| (end, last)));
    let mut segment = files.first().map_or(0, |first| first.start());
    for file in files.iter().rev().filter(|file| file.start() <= from) {
        if let Some(opened) = Segment::of(file, &*projection.disk)
            && opened.whole_record_at(0)?.is_some()
        {
            segment = file.start();
            break;
        }
    }
    match vouched {
        Some((end, last)) if end >= segment => Ok((end, Some(last))),
        _ => Ok((segment, None)),
    }
}

/// A segment as it is read here: nothing of it is looked at through its mapping before it was seen in memory. A disk that does not
/// give something is an error of the open, which names the place; a page fault would end the process, and the next one, without a
/// word.
pub struct Segment<'a> {
    file: &'a LogFile,
    bytes: LogSlice,
    look: Look<'a>,
}

impl<'a> Segment<'a> {
    /// For a look here and there.
    pub fn of(file: &'a Arc<LogFile>, disk: &'a dyn Disk) -> Option<Segment<'a>> {
        Segment::seen_by(Look::new(disk, Effort::Full), file)
    }

    fn seen_by(look: Look<'a>, file: &'a Arc<LogFile>) -> Option<Segment<'a>> {
        let bytes = file.slice(0..file.written())?;
        Some(Segment { file, bytes, look })
    }

    /// Bytes from `at` on, `len` of them where there are so many.
    pub fn look(&self, at: usize, len: usize) -> io::Result<&[u8]> {
        let range = at..self.bytes.len().min(at.saturating_add(len));
        self.file.look(&self.look, range.clone()).map_err(io::Error::other)?;
        Ok(self.bytes.get(range).unwrap_or_default())
    }

    fn record_at(&self, at: usize) -> io::Result<Result<ParsedRecord<'_>, RecordError>> {
        let physical = self.file.start() + at as u64;
        let head = self.look(at, RECORD_LEN_MIN)?;
        // No further than a record may be: what only looks like the head of one is none with the bytes of a head.
        let bytes = match segments::stated_len(head, physical) {
            Some(len) => self.look(at, len)?,
            None => head,
        };
        Ok(walk::record_at(bytes, physical))
    }

    /// The record at `at`, if it is whole with its body.
    pub fn whole_record_at(&self, at: usize) -> io::Result<Option<Record<'_>>> {
        match self.record_at(at)? {
            Ok(ParsedRecord::Record(record)) if record.check_crc().is_ok() => Ok(Some(record)),
            _ => Ok(None),
        }
    }
}

/// What can be told of a record by its CRC, the zeros in its text, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Whole,
    /// A page of its properties is zeros; a whole record follows.
    PassedOver,
    Broken,
}

impl Condition {
    fn of(
        record: &Record<'_>,
        segment: &Segment<'_>,
        at: usize,
        on_disk: OnDisk,
        crash: Crash,
    ) -> io::Result<Condition> {
        if record.check_crc().is_err() {
            return Ok(Condition::Broken);
        }
        let is_suspect = match crash {
            // Pages are lost without the power going, too: by a write-back that failed, in a copy of the directory.
            Crash::None | Crash::Kill => has_lost_properties(record, at) || has_unwritten_end(record),
            Crash::PowerCut | Crash::FailedSync | Crash::Unknown => has_torn_text(record, at),
        };
        if !is_suspect || on_disk.covers_whole(record) {
            return Ok(Condition::Whole);
        }
        if matches!(crash, Crash::PowerCut | Crash::FailedSync) && !matches!(on_disk, OnDisk::AtLeast(_)) {
            return Ok(Condition::Broken);
        }
        // It may be old, or nothing may have been lost: it does not take with it what follows, nor is it torn by one zero that a client
        // may have sent.
        Ok(match segment.whole_record_at(at + record.record_len())? {
            None => Condition::Broken,
            Some(_) if has_lost_properties(record, at) => Condition::PassedOver,
            Some(_) => Condition::Whole,
        })
    }
}

/// Goes through the records from the last border before the start on. Those that end behind `confirmed` get into no queue and into no index.
pub fn scan(
    files: &[Arc<LogFile>],
    projection: &Projection,
    start: Start,
    confirmed: u64,
    on_disk: OnDisk,
    crash: Crash,
    interrupt: &Interrupt,
) -> io::Result<Scan> {
    let (begin, last) = border_before(files, projection, start.queues.min(start.index))?;
    let first = files.iter().rposition(|file| file.start() <= begin).unwrap_or(0);
    let mut scan = Scan {
        end: begin,
        last,
        gap: false,
        records: 0,
        deleted: HashMap::default(),
        shown: begin,
        shown_time: last.map(|(_, time)| time),
        next_offsets: HashMap::default(),
    };
    let mut known = None;
    for (index, file) in files.iter().enumerate().skip(first) {
        let Some(segment) = Segment::seen_by(Look::reading_on(&*projection.disk), file) else { break };
        // Inside the file, whose length is a usize.
        let mut at = begin.saturating_sub(file.start()) as usize;
        while at < segment.bytes.len() {
            interrupt.check()?;
            let physical = file.start() + at as u64;
            let found = segment.record_at(at)?;
            let condition = match &found {
                Ok(ParsedRecord::Record(record)) => Condition::of(record, &segment, at, on_disk, crash)?,
                _ => Condition::Broken,
            };
            match &found {
                Ok(ParsedRecord::Blank { .. }) => break,
                Ok(ParsedRecord::Record(record))
                    if condition == Condition::Whole && physical + record.record_len() as u64 > confirmed =>
                {
                    let is_believed =
                        is_directory_name(record.topic()) && is_possible(record.queue_offset().0, physical);
                    if record.sys_flag().is_visible() && is_believed {
                        let queue = (record.topic().to_owned(), record.queue_id());
                        let next = scan.next_offsets.entry(queue).or_default();
                        *next = record.queue_offset().0.saturating_add(1).max(*next);
                    }
                    scan.last = Some((physical, record.store_timestamp()));
                    scan.records += 1;
                    at += record.record_len();
                }
                Ok(ParsedRecord::Record(record)) if condition == Condition::Whole => {
                    let text = record.properties();
                    let properties = EntryProperties::of(&text);
                    if physical >= start.queues {
                        if let Some(topic) = deleted_topic(record) {
                            known = None;
                            projection.forget_topic(&topic)?;
                            scan.deleted.insert(topic, physical);
                        }
                        let put = projection.put_queue(record, &properties, physical, &mut known)?;
                        scan.gap |= put == Some(Put::Gap);
                    }
                    if physical >= start.index {
                        projection.put_index(record, &properties, physical)?;
                    }
                    scan.last = Some((physical, record.store_timestamp()));
                    scan.records += 1;
                    at += record.record_len();
                    (scan.shown, scan.shown_time) = (file.start() + at as u64, Some(record.store_timestamp()));
                }
                _ => {
                    let next_file = files.get(index + 1).and_then(|next| Segment::of(next, &*projection.disk));
                    let next = match &found {
                        Ok(ParsedRecord::Record(record)) if condition == Condition::PassedOver => {
                            Some(at + record.record_len())
                        }
                        _ => behind_damage(&segment, at, next_file.as_ref(), on_disk, interrupt)?,
                    };
                    let Some(next) = next else {
                        scan.end = physical;
                        return Ok(scan);
                    };
                    let path = file.path().display();
                    tracing::error!(%path, offset = physical, len = next - at, "a part of the commit log is damaged and stepped over; what follows it is whole");
                    if let Ok(ParsedRecord::Record(record)) = &found
                        && physical >= start.queues
                        && file.start() + next as u64 <= confirmed
                    {
                        projection.put_lost(record, physical)?;
                    }
                    at = next;
                }
            }
            scan.end = file.start() + at as u64;
        }
        scan.end = file.end();
    }
    Ok(scan)
}

/// Where reading goes on in a segment behind something at `at` that is no whole record; its end stands for the next segment.
/// `None` when nobody vouches for what follows: then the log ends at `at`.
fn behind_damage(
    segment: &Segment<'_>,
    at: usize,
    next: Option<&Segment<'_>>,
    on_disk: OnDisk,
    interrupt: &Interrupt,
) -> io::Result<Option<usize>> {
    let start = segment.file.start();
    if let OnDisk::Before(end) = on_disk
        && start + at as u64 >= end
    {
        return Ok(None);
    }
    let is_proven = |segment: &Segment<'_>, at: usize| -> io::Result<bool> {
        Ok(segment.whole_record_at(at)?.is_some_and(|record| on_disk.covers(&record)))
    };
    if let Ok(ParsedRecord::Record(record)) = segment.record_at(at)? {
        let next = at + record.record_len();
        if on_disk.reaches(start + next as u64) || is_proven(segment, next)? {
            return Ok(Some(next));
        }
    }
    // The length cannot be relied on: the next place at which a record is whole and knows where it stands.
    let magics = [MAGIC_V1, MAGIC_V2].map(u32::to_be_bytes);
    for from in (at + 5..segment.bytes.len()).step_by(SEARCH_STEP) {
        interrupt.check()?;
        // A magic may lie across the border of two steps.
        let part = segment.look(from, SEARCH_STEP + 3)?;
        let mut found: Vec<usize> = magics.iter().flat_map(|magic| memmem::find_iter(part, magic)).collect();
        found.sort_unstable();
        for at in found {
            if is_proven(segment, from + at - 4)? {
                return Ok(Some(from + at - 4));
            }
        }
    }
    let next_is_proven = || next.map_or(Ok(false), |next| is_proven(next, 0));
    if on_disk.reaches(segment.file.end()) || next_is_proven()? {
        return Ok(Some(segment.bytes.len()));
    }
    // Nothing whole follows. Up to where the log was on the disk, something was there all the same: what comes from now on does not
    // take its place. A record that reaches beyond may have been torn, and so may one of which only the head was there.
    let head = segment.look(at, RECORD_LEN_MIN)?;
    let stated = Record::head_at(head, PhysicalOffset(start + at as u64)).unwrap_or(RECORD_LEN_MIN);
    match on_disk {
        OnDisk::Before(end) | OnDisk::AtLeast(end) if end >= start + (at + stated) as u64 => {
            // Inside the file, whose length is a usize.
            Ok(Some((end - start) as usize))
        }
        _ => Ok(None),
    }
}
