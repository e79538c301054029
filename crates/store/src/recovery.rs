//! Makes log, queues and index agree when a store is opened.
//!
//! The log is scanned from a point up to which everything is known to be on the disk, and every record from there is
//! put into its queue and the index again; puts of what is there already change nothing. What follows the last whole
//! record is cut off. Java: CommitLog.recoverNormally and recoverAbnormally (store.md §8), with two differences: index
//! files are repaired rather than dropped, so that no key is lost after a crash, and a queue with a gap makes the
//! whole log be read.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ferromq_protocol::message::{Parsed, Record};

use crate::checkpoint::Checkpoint;
use crate::consume_queue::Put;
use crate::dispatch::Projection;
use crate::files;
use crate::mapped_file::LogFile;
use crate::noted::Noted;
use crate::segments::Segments;

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
        return drop_projections(projection);
    };
    let log_min = first.start();
    let start =
        if clean { start_after_stop(projection, log_min) } else { start_after_crash(&files, projection, checkpoint)? };
    let mut scan = scan(&files, projection, start)?;
    if scan.gap && start.queues > log_min {
        tracing::warn!("a queue has lost entries; the whole log is read to rebuild it");
        scan = self::scan(&files, projection, Start { queues: log_min, index: u64::MAX })?;
    }
    let end = scan.end;
    cut_log(segments, end, clean)?;
    for queue in projection.queues.all() {
        queue.truncate_physical(disk, end)?;
        queue.correct_min(log_min);
        queue.advance_next(queue.max());
    }
    if let Some(index) = &projection.index {
        index.truncate(end)?;
    }
    let last_timestamp = scan.last.map_or_else(|| checkpoint.log_timestamp.load(Ordering::Acquire), |(_, time)| time);
    make_durable(segments, projection, checkpoint, start, end, last_timestamp)?;
    if let Some((at, _)) = scan.last {
        checkpoint.confirmed.store(at, Ordering::Release);
    }
    let took_ms = began.elapsed().as_millis();
    tracing::info!(clean, from = start.queues.min(start.index), end, records = scan.records, took_ms, "log recovered");
    Ok(Recovered { end, last_timestamp })
}

/// Without a log there is nothing to point into.
fn drop_projections(projection: &Projection) -> io::Result<Recovered> {
    for queue in projection.queues.all() {
        if queue.max() > 0 {
            tracing::warn!(topic = queue.topic(), queue = %queue.id(), "queue removed: there is no commit log");
        }
        projection.queues.take_topic(queue.topic());
        queue.remove()?;
    }
    if let Some(index) = &projection.index {
        index.truncate(0)?;
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

/// After a crash only what the checkpoint says is on the disk for sure.
fn start_after_crash(files: &[Arc<LogFile>], projection: &Projection, checkpoint: &Checkpoint) -> io::Result<Start> {
    // Queues that are all empty were lost, or never written: the checkpoint's word about them is void.
    let lost = projection.queues.all().iter().all(|queue| queue.max() == 0);
    let queues = if lost {
        files.first().map_or(0, |first| first.start())
    } else {
        segment_at(files, checkpoint.recovery_start())
    };
    let index = match &projection.index {
        Some(index) => {
            let durable = checkpoint.index_timestamp.load(Ordering::Acquire);
            let log_end = files.last().map_or(0, |last| last.end());
            let resume = index.repair(durable, log_end)?;
            // Messages without keys have no entries: the checkpoint may know better than the last entry.
            let by_time = if index.is_empty() { 0 } else { segment_at(files, checkpoint.index_recovery_start()) };
            resume.max(by_time)
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
    let entry = queue.max().checked_sub(1).and_then(|last| queue.entry(last))?;
    let file = files.iter().rev().find(|file| file.start() <= entry.physical.0)?;
    // A file's length is a usize; an offset beyond it gives no slice.
    let at = (entry.physical.0 - file.start()) as usize;
    let bytes = file.slice(at..at.checked_add(entry.len as usize)?)?;
    let record = Record::parse(&bytes).ok().filter(|record| record.check_crc().is_ok())?;
    let holds = record.physical_offset() == entry.physical && entry.end() == end && end < file.end();
    holds.then(|| (entry.physical.0, record.store_timestamp()))
}

/// Goes through the records, beginning with the segment that holds the start; or, when the queues vouch for the record
/// before it, right there.
fn scan(files: &[Arc<LogFile>], projection: &Projection, start: Start) -> io::Result<Scan> {
    let from = start.queues.min(start.index);
    let first = files.iter().rposition(|file| file.start() <= from).unwrap_or(0);
    let last = record_ending_at(files, projection, from);
    let segment_start = files.get(first).map_or(0, |file| file.start());
    let begin = if last.is_some() { from } else { segment_start };
    let mut scan = Scan { end: begin, last, gap: false, records: 0 };
    let mut known = None;
    for file in files.iter().skip(first) {
        let Some(bytes) = file.slice(0..file.written()) else { break };
        // Inside the file, whose length is a usize.
        let mut at = begin.saturating_sub(file.start()) as usize;
        let ended = loop {
            if at == bytes.len() {
                break true;
            }
            let physical = file.start() + at as u64;
            match Record::parse_in_segment(&bytes[at..]) {
                Ok(Parsed::Blank { .. }) => break true,
                Ok(Parsed::Record(record)) if record.physical_offset().0 == physical && record.check_crc().is_ok() => {
                    let text = record.properties();
                    let noted = Noted::of(&text);
                    if physical >= start.queues {
                        let put = projection.put_queue(&record, &noted, physical, &mut known)?;
                        scan.gap |= matches!(put, Some((Put::Gap, _)));
                    }
                    if physical >= start.index {
                        projection.put_index(&record, &noted, physical)?;
                    }
                    scan.last = Some((physical, record.store_timestamp()));
                    scan.records += 1;
                    at += record.record_len();
                    scan.end = physical + record.record_len() as u64;
                }
                _ => break false,
            }
        };
        if !ended {
            break;
        }
        scan.end = file.end();
    }
    Ok(scan)
}

/// Ends the log at `end`: later files go, and nothing old is left behind the end in its file.
fn cut_log(segments: &Segments, end: u64, clean: bool) -> io::Result<()> {
    // A file that begins exactly at the end is the next to be written; those after it hold nothing.
    for file in segments.split_off(end + 1) {
        tracing::info!(path = %file.path().display(), "removed a log file behind the end of the log");
        files::remove_file(file.path())?;
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
        last.zero_rest()?;
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
    for queue in projection.queues.take_dirty() {
        queue.flush(disk, 0)?;
    }
    if let Some(index) = &projection.index {
        index.sync(disk)?;
        if last_timestamp > 0 {
            checkpoint.index_timestamp.store(last_timestamp, Ordering::Release);
        }
    }
    if last_timestamp > 0 {
        checkpoint.log_timestamp.store(last_timestamp, Ordering::Release);
        checkpoint.queues_timestamp.store(last_timestamp, Ordering::Release);
    }
    checkpoint.save(disk)
}
