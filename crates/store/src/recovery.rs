//! Makes log, queues and index agree when a store is opened.
//!
//! The log is read from a point up to which everything is known to be on the disk. After a crash the queues forget what came
//! behind that point, since pages of log, queues and index are lost independently of each other, and every record from
//! there on is put into its queue and the index again. Where the log stops making sense it ends, if nobody can vouch for what
//! follows (a torn tail); what was known to be on the disk is stepped over instead (damage) and nothing behind it is lost.
//! Java: CommitLog.recoverNormally and recoverAbnormally, with three differences: places rather than times say where to begin,
//! index files are repaired rather than dropped, so that no key is lost after a crash, and a queue with a gap makes the
//! whole log be read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::record::{MAGIC_V1, MAGIC_V2, RECORD_LEN_MIN};
use ferromq_protocol::message::{Parsed, Record};
use memchr::memmem;

use crate::checkpoint::Checkpoint;
use crate::consume_queue::{ConsumeQueue, Put, QueueEntry};
use crate::disk::{Disk, PAGE};
use crate::dispatch::Projection;
use crate::files;
use crate::index::Durable;
use crate::looking::{Effort, Look};
use crate::mapped_file::{LogFile, LogSlice};
use crate::noted::Noted;
use crate::segments::{RECORD_LEN_MAX, Segments};
use crate::table_change::deleted_topic;

/// What recovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// End of the last whole record.
    pub end: u64,
    /// Its store time; 0 for an empty log.
    pub last_timestamp: i64,
}

/// Where to begin, per projection.
#[derive(Clone, Copy, Debug)]
struct Start {
    queues: u64,
    index: u64,
}

/// The result of going through the log once.
struct Scan {
    end: u64,
    last: Option<(u64, i64)>,
    gap: bool,
    records: u64,
}

/// Which part of the log was on the disk before the crash: what cannot be read there is damage, elsewhere it is the end.
#[derive(Clone, Copy, Debug)]
enum OnDisk {
    /// All bytes before this place.
    Before(u64),
    /// All records stored up to this time; that is all a Java broker says.
    StoredBy(i64),
}

impl OnDisk {
    fn told_by(checkpoint: &Checkpoint) -> OnDisk {
        match checkpoint.found() {
            Some(found) => OnDisk::Before(found.log),
            None => OnDisk::StoredBy(checkpoint.log_time()),
        }
    }

    /// Whether the record begins in that part.
    fn covers(self, record: &Record<'_>) -> bool {
        match self {
            OnDisk::Before(end) => record.physical_offset().0 < end,
            OnDisk::StoredBy(time) => record.store_timestamp() <= time,
        }
    }

    /// Whether all of the record is in it: a sync may end in the middle of one.
    fn covers_whole(self, record: &Record<'_>) -> bool {
        match self {
            OnDisk::Before(_) => self.reaches(record.physical_offset().0 + record.record_len() as u64),
            // Strictly before: others of that very millisecond may have come after the sync.
            OnDisk::StoredBy(time) => record.store_timestamp() < time,
        }
    }

    /// Whether all bytes before `end` were.
    fn reaches(self, end: u64) -> bool {
        matches!(self, OnDisk::Before(known) if end <= known)
    }
}

/// Recovers after a clean stop or a crash. Nobody else uses the parts meanwhile.
pub fn recover(
    segments: &Segments,
    projection: &Projection,
    checkpoint: &Checkpoint,
    clean: bool,
) -> io::Result<Recovered> {
    let began = Instant::now();
    let disk = &*projection.disk;
    let files = segments.all();
    let Some(first) = files.first() else {
        return drop_projections(projection, checkpoint);
    };
    let log_min = first.start();
    let on_disk = OnDisk::told_by(checkpoint);
    let known = known_projected(&files, checkpoint);
    let start = if clean {
        start_after_stop(projection, log_min)
    } else {
        start_after_crash(&files, projection, checkpoint, known)?
    };
    begin_again(checkpoint, disk, start, known)?;
    if !clean {
        keep_before(&files, projection, start.queues)?;
    }
    let mut scan = scan(&files, projection, start, on_disk)?;
    if scan.gap && start.queues > log_min {
        tracing::warn!("a queue has lost entries; the whole log is read to rebuild it");
        begin_again(checkpoint, disk, Start { queues: log_min, ..start }, known)?;
        keep_before(&files, projection, log_min)?;
        scan = self::scan(&files, projection, Start { queues: log_min, index: u64::MAX }, on_disk)?;
    }
    let end = scan.end;
    cut_log(segments, projection, end, clean)?;
    for queue in projection.queues.all() {
        queue.truncate_physical(disk, end)?;
        queue.correct_min(log_min)?;
        queue.advance_next(queue.max());
    }
    if let Some(index) = &projection.index {
        index.truncate(disk, end)?;
    }
    let last_timestamp = scan.last.map_or_else(|| checkpoint.log_time(), |(_, time)| time);
    make_durable(segments, projection, checkpoint, start, end, last_timestamp)?;
    if let Some((at, _)) = scan.last {
        checkpoint.confirm(at);
    }
    let took_ms = began.elapsed().as_millis();
    tracing::info!(clean, from = start.queues.min(start.index), end, records = scan.records, took_ms, "log recovered");
    Ok(Recovered { end, last_timestamp })
}

/// The queues keep the entries of records before `physical`; those of all others are put again.
fn keep_before(files: &[Arc<LogFile>], projection: &Projection, physical: u64) -> io::Result<()> {
    let belongs = |queue: &ConsumeQueue, offset: u64, entry: &QueueEntry| {
        let gone = files.first().is_none_or(|first| entry.physical.0 < first.start());
        let is_this = |bytes: &[u8]| {
            Record::parse(bytes).is_ok_and(|record| {
                record.record_len() == entry.len as usize
                    && record.queue_offset().0 == offset
                    && record.queue_id() == queue.id()
                    && record.topic() == queue.topic()
            })
        };
        // What the disk does not give says nothing against the entry.
        let record = || record_bytes(files, projection, entry.physical.0);
        gone || entry.is_filler() || record().map_or(true, |bytes| bytes.is_some_and(|bytes| is_this(&bytes)))
    };
    projection.queues.all().iter().try_for_each(|queue| queue.keep_before(&*projection.disk, physical, &belongs))
}

/// Without a log there is nothing to point into.
fn drop_projections(projection: &Projection, checkpoint: &Checkpoint) -> io::Result<Recovered> {
    checkpoint.lower(0);
    checkpoint.save(&*projection.disk)?;
    for queue in projection.queues.all() {
        if queue.max() > 0 {
            tracing::warn!(topic = queue.topic(), queue = %queue.id(), "queue removed: there is no commit log");
        }
        projection.queues.take_topic(queue.topic());
        queue.remove()?;
    }
    if let Some(index) = &projection.index {
        index.truncate(&*projection.disk, 0)?;
    }
    Ok(Recovered { end: 0, last_timestamp: 0 })
}

/// After a clean stop everything up to the last queue entry is in the queues and in the index.
fn start_after_stop(projection: &Projection, log_min: u64) -> Start {
    let dispatched = projection.queues.all().iter().map(|queue| queue.end_physical()).max().unwrap_or(0).max(log_min);
    let index = match &projection.index {
        // Somebody removed the index files, or there never was a key.
        Some(index) if index.is_empty() => log_min,
        Some(index) => index.resume_at().max(dispatched),
        None => u64::MAX,
    };
    Start { queues: dispatched, index }
}

/// Up to where records are in the queues and in the index, on the disk, as the checkpoint says.
fn known_projected(files: &[Arc<LogFile>], checkpoint: &Checkpoint) -> Start {
    let (log_min, log_end) =
        (files.first().map_or(0, |first| first.start()), files.last().map_or(0, |last| last.end()));
    match checkpoint.found() {
        // A place that the log does not have is of another log.
        Some(found) => Start {
            queues: if (log_min..=log_end).contains(&found.queues) { found.queues } else { log_min },
            index: if found.index <= log_end { found.index } else { log_min },
        },
        None => Start {
            queues: segment_at(files, checkpoint.recovery_start()),
            index: segment_at(files, checkpoint.index_recovery_start()),
        },
    }
}

/// What is about to be put again counts as missing from now on, so that an open that does not come to its end is gone on with
/// by the next one, which could not tell that anything is missing: what was put by then looks like all there is.
fn begin_again(checkpoint: &Checkpoint, disk: &dyn Disk, start: Start, known: Start) -> io::Result<()> {
    if start.queues < known.queues {
        checkpoint.queues_begin_again(start.queues);
    }
    if start.index < known.index {
        checkpoint.index_begins_again(start.index);
    }
    checkpoint.save(disk)
}

/// After a crash only what the checkpoint says is on the disk for sure.
fn start_after_crash(
    files: &[Arc<LogFile>],
    projection: &Projection,
    checkpoint: &Checkpoint,
    known: Start,
) -> io::Result<Start> {
    let (log_min, log_end) =
        (files.first().map_or(0, |first| first.start()), files.last().map_or(0, |last| last.end()));
    // Queues that are all empty were lost, or never written: the checkpoint's word about them is void.
    let lost = projection.queues.all().iter().all(|queue| queue.max() == 0);
    let queues = if lost { log_min } else { known.queues };
    let record_at = |at: u64| record_bytes(files, projection, at).ok().flatten();
    let index = match &projection.index {
        Some(index) if checkpoint.found().is_some() => {
            index.repair(&*projection.disk, Durable::Position(known.index), known.index, &record_at)?;
            if index.is_empty() { log_min } else { known.index }
        }
        Some(index) => {
            let time = checkpoint.index_time();
            let resume = index.repair(&*projection.disk, Durable::Time(time), log_end, &record_at)?;
            // Messages without keys have no entries: the checkpoint may know better than the last entry.
            if index.is_empty() { resume } else { resume.max(known.index) }
        }
        None => u64::MAX,
    };
    Ok(Start { queues, index })
}

/// The newest segment that begins with a record stored no later than `time`; the first when there is none.
fn segment_at(files: &[Arc<LogFile>], time: i64) -> u64 {
    let first_time = |file: &Arc<LogFile>| {
        let bytes = file.slice(0..file.written())?;
        let record = Record::parse(&bytes).ok()?;
        record.check_crc().ok().map(|()| record.store_timestamp())
    };
    let found = files.iter().rev().find(|file| first_time(file).is_some_and(|stored| stored > 0 && stored <= time));
    found.or(files.first()).map_or(0, |file| file.start())
}

/// The record that ends exactly at `end`, by the queue entry that says so: its start and store time. It must hold.
fn record_ending_at(files: &[Arc<LogFile>], projection: &Projection, end: u64) -> Option<(u64, i64)> {
    let queue = projection.queues.all().into_iter().find(|queue| queue.end_physical() == end)?;
    let entry = queue.max().checked_sub(1).and_then(|last| queue.entry(last).ok().flatten())?;
    let bytes = record_bytes(files, projection, entry.physical.0).ok().flatten()?;
    let record = Record::parse(&bytes).ok().filter(|record| record.check_crc().is_ok())?;
    (record.record_len() == entry.len as usize).then(|| (entry.physical.0, record.store_timestamp()))
}

/// The record at a place, if its lengths are whole; an error when the disk does not give it.
fn record_bytes(files: &[Arc<LogFile>], projection: &Projection, physical: u64) -> io::Result<Option<Bytes>> {
    let Some(file) = files.iter().rev().find(|file| file.start() <= physical) else { return Ok(None) };
    // A file's length is a usize; an offset beyond it gives no slice.
    let at = usize::try_from(physical - file.start()).ok().filter(|at| *at < file.written());
    let (Some(at), Some(bytes)) = (at, file.slice(0..file.written())) else { return Ok(None) };
    look_at_record(&Look::new(&*projection.disk, Effort::Full), file, &bytes, at)?;
    match whole_record(&bytes, at, file.start()) {
        Found::Record(record) | Found::Broken(record) => Ok(Some(Bytes::copy_from_slice(record.bytes()))),
        Found::Blank | Found::Nothing => Ok(None),
    }
}

/// The border between records, at or before `from`, at which reading begins; with the record before it where it is known.
fn border_before(files: &[Arc<LogFile>], projection: &Projection, from: u64) -> (u64, Option<(u64, i64)>) {
    let ends = projection.queues.all().iter().map(|queue| queue.end_physical()).filter(|end| *end <= from).max();
    let vouched = ends.and_then(|end| record_ending_at(files, projection, end).map(|last| (end, last)));
    let begins_well = |file: &&Arc<LogFile>| {
        file.slice(0..file.written())
            .is_some_and(|bytes| matches!(whole_record(&bytes, 0, file.start()), Found::Record(_)))
    };
    let segment = files.iter().rev().filter(|file| file.start() <= from).find(begins_well).or(files.first());
    let segment = segment.map_or(0, |file| file.start());
    match vouched {
        Some((end, last)) if end >= segment => (end, Some(last)),
        _ => (segment, None),
    }
}

/// What stands at a place of the log.
enum Found<'a> {
    Record(Record<'a>),
    /// Nothing more in this segment.
    Blank,
    /// A record with its head and lengths whole, but not its body.
    Broken(Record<'a>),
    Nothing,
}

/// Reads what is at `at` of the segment that begins at `start`.
fn whole_record(bytes: &[u8], at: usize, start: u64) -> Found<'_> {
    match bytes.get(at..).map(Record::parse_in_segment) {
        Some(Ok(Parsed::Blank { .. })) => Found::Blank,
        Some(Ok(Parsed::Record(record))) if record.physical_offset().0 == start + at as u64 => {
            if record.check_crc().is_ok() { Found::Record(record) } else { Found::Broken(record) }
        }
        _ => Found::Nothing,
    }
}

/// Whether a page that holds a part of the record's properties was lost. The CRC covers the body only; but what was not
/// written reads as zeros (segments are allocated zeroed, and the rest of one is zeroed when it is cut).
fn has_torn_properties(record: &Record<'_>, at: usize) -> bool {
    let text = record.properties_bytes();
    let begin = at + record.record_len() - text.len();
    let in_first_page = (begin.next_multiple_of(PAGE) - begin).min(text.len());
    text[in_first_page..].chunks(PAGE).any(|piece| piece.iter().all(|byte| *byte == 0))
}

/// Brings what may be a record into memory. A disk that does not give it is an error of the open, which names the place; a page
/// fault would end the process, and the next one, without a word.
fn look_at_record(look: &Look<'_>, file: &LogFile, bytes: &[u8], at: usize) -> io::Result<()> {
    let upto = |len: usize| at..bytes.len().min(at.saturating_add(len));
    file.look(look, upto(RECORD_LEN_MIN)).map_err(io::Error::other)?;
    match Record::head_at(&bytes[at..], PhysicalOffset(file.start() + at as u64)) {
        Some(len) if len <= RECORD_LEN_MAX => file.look(look, upto(len)).map_err(io::Error::other),
        _ => Ok(()),
    }
}

/// Goes through the records from the last border before the start on.
fn scan(files: &[Arc<LogFile>], projection: &Projection, start: Start, on_disk: OnDisk) -> io::Result<Scan> {
    let (begin, last) = border_before(files, projection, start.queues.min(start.index));
    let first = files.iter().rposition(|file| file.start() <= begin).unwrap_or(0);
    let mut scan = Scan { end: begin, last, gap: false, records: 0 };
    let mut known = None;
    for (index, file) in files.iter().enumerate().skip(first) {
        let Some(bytes) = file.slice(0..file.written()) else { break };
        let look = Look::reading_on(&*projection.disk);
        // Inside the file, whose length is a usize.
        let mut at = begin.saturating_sub(file.start()) as usize;
        while at < bytes.len() {
            projection.interrupt.check()?;
            let physical = file.start() + at as u64;
            look_at_record(&look, file, &bytes, at)?;
            let found = whole_record(&bytes, at, file.start());
            match found {
                Found::Blank => break,
                Found::Record(record) if on_disk.covers_whole(&record) || !has_torn_properties(&record, at) => {
                    let text = record.properties();
                    let noted = Noted::of(&text);
                    if physical >= start.queues {
                        if let Some(topic) = deleted_topic(&record) {
                            known = None;
                            projection.forget_topic(&topic)?;
                        }
                        let put = projection.put_queue(&record, &noted, physical, &mut known)?;
                        scan.gap |= matches!(put, Some((Put::Gap, _)));
                    }
                    if physical >= start.index {
                        projection.put_index(&record, &noted, physical)?;
                    }
                    scan.last = Some((physical, record.store_timestamp()));
                    scan.records += 1;
                    at += record.record_len();
                }
                _ => {
                    let Some(next) = behind_damage(file, &bytes, at, files.get(index + 1), on_disk) else {
                        scan.end = physical;
                        return Ok(scan);
                    };
                    let path = file.path().display();
                    tracing::error!(%path, offset = physical, len = next - at, "a part of the commit log is damaged and stepped over; what follows it is whole");
                    if let Found::Broken(record) | Found::Record(record) = found
                        && physical >= start.queues
                    {
                        projection.put_lost(&record, physical)?;
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
    file: &LogFile,
    bytes: &LogSlice,
    at: usize,
    next_file: Option<&Arc<LogFile>>,
    on_disk: OnDisk,
) -> Option<usize> {
    if let OnDisk::Before(end) = on_disk
        && file.start() + at as u64 >= end
    {
        return None;
    }
    let proven =
        |at: usize| matches!(whole_record(bytes, at, file.start()), Found::Record(record) if on_disk.covers(&record));
    if let Found::Broken(record) | Found::Record(record) = whole_record(bytes, at, file.start()) {
        let next = at + record.record_len();
        if proven(next) || on_disk.reaches(file.start() + next as u64) {
            return Some(next);
        }
    }
    // The length cannot be relied on: the next place at which a record is whole and knows where it stands.
    let magics = [MAGIC_V1, MAGIC_V2].map(u32::to_be_bytes);
    let search = at + 5;
    let rest = bytes.get(search..).unwrap_or_default();
    let found =
        magics.iter().flat_map(|magic| memmem::find_iter(rest, magic).find(|found| proven(search + found - 4))).min();
    if let Some(found) = found {
        return Some(search + found - 4);
    }
    let begins_proven = |next: &Arc<LogFile>| {
        next.slice(0..next.written()).is_some_and(
            |bytes| matches!(whole_record(&bytes, 0, next.start()), Found::Record(record) if on_disk.covers(&record)),
        )
    };
    (on_disk.reaches(file.end()) || next_file.is_some_and(begins_proven)).then_some(bytes.len())
}

/// Ends the log at `end`: later files go, and nothing old is left behind the end in its file.
fn cut_log(segments: &Segments, projection: &Projection, end: u64, clean: bool) -> io::Result<()> {
    // A file that begins exactly at the end is the next to be written; those after it hold nothing.
    for file in segments.split_off(end + 1) {
        tracing::info!(path = %file.path().display(), "removed a log file behind the end of the log");
        files::remove_file(file.path())?;
        if let Some(dir) = file.path().parent() {
            // One that came back with a power loss would be read as what follows.
            projection.disk.sync_dir(dir)?;
        }
    }
    let Some(last) = segments.last() else { return Ok(()) };
    if end >= last.end() {
        return Ok(());
    }
    // In the file, whose length is a usize.
    let at = (end - last.start()) as usize;
    let dirty = last.slice(at..last.written()).is_some_and(|rest| rest.iter().take(64).any(|byte| *byte != 0));
    if !last.retract(at, Duration::ZERO) {
        return Err(io::Error::other("the log is being read while it is recovered"));
    }
    if dirty {
        tracing::warn!(path = %last.path().display(), end, "what follows the last whole record is cut off");
    }
    if dirty || !clean {
        last.zero_rest(&*projection.disk)?;
    }
    Ok(())
}

/// What was read may be in the page cache only; from here on it counts as flushed.
fn make_durable(
    segments: &Segments,
    projection: &Projection,
    checkpoint: &Checkpoint,
    start: Start,
    end: u64,
    last_timestamp: i64,
) -> io::Result<()> {
    let disk = &*projection.disk;
    segments.sync(disk, start.queues.min(start.index)..end)?;
    projection.queues.flush(disk, 0)?;
    let time = (last_timestamp > 0).then_some(last_timestamp);
    if let Some(index) = &projection.index {
        index.sync(disk)?;
        checkpoint.index_is_durable(end, time);
    }
    checkpoint.log_is_durable(end, time);
    checkpoint.queues_are_durable(end, time);
    checkpoint.save(disk)
}
