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
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;

use crate::abort::Crash;
use crate::checkpoint::{Checkpoint, CheckpointContent};
use crate::consume_queue::{ConsumeQueue, Forgotten, QueueExtent};
use crate::disk::Disk;
use crate::files;
use crate::index::{DurableExtent, Repair};
use crate::interrupt::Interrupt;
use crate::inventory::{Inventory, ListedQueue};
use crate::mapped_file::LogFile;
use crate::projection::Projection;
use crate::queue_file::QueueEntry;
use crate::recovery_scan::{OnDisk, Scan, Segment, Start, record_bytes, scan};
use crate::segments::Segments;
use crate::several::for_all;

/// Bytes written again at once, and then whether it is to be given up.
const REWRITE_STEP: usize = 16 << 20;
/// Of so many queues with entries that lead to no message it is tried whether one bit makes the difference, some twenty looks at the log
/// each: more are the work of a power cut.
const FLIPS_LOOKED_FOR_MAX: u32 = 64;

/// What recovery found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryOutcome {
    /// End of the last whole record.
    pub end: u64,
    /// Its store time; 0 for an empty log.
    pub last_timestamp: i64,
    /// Up to here the records are in queues and index: `end`, or the last border before what is not confirmed.
    pub shown: u64,
    pub shown_timestamp: i64,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub crash: Crash,
    /// What ends behind it stays in the log and is in no queue; queues count on behind it.
    pub confirmed: Option<u64>,
    /// The queues are made again, whatever they are like.
    pub rebuild: bool,
    pub interrupt: &'a Interrupt,
}

/// Recovers after a clean stop or a crash. Nobody else uses the parts meanwhile.
pub fn recover(
    segments: &Segments,
    projection: &Projection,
    checkpoint: &Checkpoint,
    inventory: &Inventory,
    opening: &Opening<'_>,
) -> io::Result<RecoveryOutcome> {
    let Opening { crash, confirmed, rebuild, interrupt } = *opening;
    let began = Instant::now();
    let disk = &*projection.disk;
    let root = checkpoint.path().parent().unwrap_or(Path::new("."));
    let files = segments.all();
    let Some(first) = files.first() else {
        return begin_empty(projection, checkpoint);
    };
    let log_min = first.start();
    let on_disk = OnDisk::told_by(checkpoint, inventory);
    let known = known_projected(&files, projection, checkpoint)?;
    if crash == Crash::FailedSync {
        // The log is on the disk up to where the queues are.
        write_again(segments, disk, known.queues..files.last().map_or(0, |last| last.end()), interrupt)?;
    }
    let clean = crash == Crash::None;
    if inventory.is_lost() {
        tracing::error!(path = %inventory.path().display(), "the list of queues and index files is missing or damaged: the whole log is read, in case one of them is missing");
        projection.index.iter().for_each(|index| index.drop_all());
    } else if checkpoint.told() == CheckpointContent::Nothing && !matches!(crash, Crash::None | Crash::Kill) {
        // Nothing says which of its entries were on the disk, and of one that is torn it cannot always be told.
        projection.index.iter().for_each(|index| index.drop_all());
    }
    let (mut start, repair) = if clean {
        (start_after_stop(projection, checkpoint, log_min), None)
    } else {
        start_after_crash(&files, projection, checkpoint, known)?
    };
    let limit = confirmed.unwrap_or(u64::MAX);
    // Entries behind it are of an earlier run, and go.
    start = Start { queues: start.queues.min(limit.max(log_min)), index: start.index.min(limit.max(log_min)) };
    let rebuilt = start.queues > log_min
        && (rebuild
            || must_be_rebuilt(&files, projection, inventory)?
            || (!clean && have_rotten_ends(&files, projection, start.queues)?));
    if rebuilt {
        start.queues = log_min;
    }
    // Looks at a message of each queue: only where something is taken from them.
    let mut before = if !clean || rebuilt { ends_of_queues(&files, projection)? } else { Vec::new() };
    begin_again(checkpoint, disk, start, known)?;
    projection.queues.set_unfit_aside(disk, root)?;
    if let Some(index) = &projection.index {
        index.set_unfit_aside(disk, root)?;
        if let Some(repair) = repair {
            index.repair(disk, &repair)?;
        }
    }
    if !clean || rebuilt {
        keep_before(&files, projection, start.queues)?;
    }
    let went_on = log_min > inventory.found().log_min;
    let mut scan = scan(&files, projection, start, limit, on_disk, crash, interrupt)?.shown_by(limit);
    let mut lacking = lacking(&inventory.found().queues, projection, went_on, &scan)?;
    if (scan.gap || !lacking.is_empty()) && start.queues > log_min {
        for (listed, found) in &lacking {
            let (topic, queue) = (&*listed.topic, listed.id);
            tracing::error!(topic, %queue, had = listed.extent.max, found, "a queue is missing or has lost entries");
        }
        tracing::warn!("the whole log is read to rebuild the queues");
        if clean && !rebuilt {
            before = ends_of_queues(&files, projection)?;
        }
        begin_again(checkpoint, disk, Start { queues: log_min, ..start }, known)?;
        keep_before(&files, projection, log_min)?;
        let start = Start { queues: log_min, index: u64::MAX };
        scan = self::scan(&files, projection, start, limit, on_disk, crash, interrupt)?.shown_by(limit);
        lacking = self::lacking(&inventory.found().queues, projection, went_on, &scan)?;
    }
    // Zeros in the place of something that was lost while it was read are no end.
    files.iter().try_for_each(|file| file.check())?;
    let end = scan.end;
    let shown = scan.shown;
    if let Some(furthest) = before.iter().map(|queue| queue.extent.end).max().filter(|furthest| *furthest > end) {
        tracing::warn!(
            end,
            furthest,
            "queues have entries behind the end of the log: the messages up to there are lost"
        );
    }
    if on_disk.reaches(end + 1) {
        // A record of which a part was on the disk. An open after this one would take the zeros in its place for damage.
        checkpoint.lower(end);
        if inventory.found().log_end > end {
            inventory.clear(disk, checkpoint)?;
        }
        checkpoint.save(disk)?;
    }
    drop(files);
    cut_log(segments, projection, end, clean)?;
    let corrected = for_all(projection.queues.all(), |queue| -> io::Result<()> {
        queue.truncate_physical(disk, shown)?;
        queue.correct_min(log_min)?;
        queue.advance_next(queue.max());
        Ok(())
    });
    corrected.into_iter().collect::<io::Result<()>>()?;
    for ((topic, queue), next) in &scan.next_offsets {
        projection.queues.find_or_make(topic, *queue).raise_next(*next);
    }
    projection.queues.set_log_begins_at(log_min);
    // What had an entry and has none any more was damaged.
    lacking.extend(self::lacking(&before, projection, true, &scan)?);
    for (listed, found) in lacking {
        // Nobody gets an offset that another message had.
        let (topic, queue) = (&*listed.topic, listed.id);
        let had = listed.extent.max;
        let goes_on = projection.queues.find_or_make(topic, queue);
        if goes_on.go_on_at(disk, had, log_min, end)? {
            tracing::error!(topic, %queue, had, found, "messages of a queue are not in the log any more; it goes on behind their offsets");
        }
        projection.queues.mark_dirty(&goes_on);
    }
    if let Some(index) = &projection.index {
        index.truncate(disk, shown)?;
    }
    let last_timestamp = scan.last.map_or_else(|| checkpoint.log_time(), |(_, time)| time);
    let shown_timestamp = if shown == end { last_timestamp } else { scan.shown_time.unwrap_or(0) };
    let outcome = RecoveryOutcome { end, last_timestamp, shown, shown_timestamp };
    make_durable(segments, projection, checkpoint, inventory, start, outcome)?;
    match (confirmed, scan.last) {
        (Some(confirmed), _) => checkpoint.confirm(confirmed.min(end)),
        (None, Some((at, _))) => checkpoint.confirm(at),
        (None, None) => {}
    }
    let took_ms = began.elapsed().as_millis();
    tracing::info!(clean, from = start.queues.min(start.index), end, records = scan.records, took_ms, "log recovered");
    Ok(outcome)
}

/// What a failed sync has left in memory, of the log, is on the disk after this, and stays what it is. Until then the kernel takes it for
/// written and may give the memory up at any time, for what the disk has there: whoever has read it before goes by bytes that are gone.
/// Queues and index are put again from the log, which is as good.
fn write_again(segments: &Segments, disk: &dyn Disk, range: Range<u64>, interrupt: &Interrupt) -> io::Result<()> {
    for from in range.clone().step_by(REWRITE_STEP) {
        interrupt.check()?;
        segments.rewrite(disk, from..range.end.min(from + REWRITE_STEP as u64))?;
    }
    segments.sync(disk, range)
}

/// Whether the log goes on behind what an orderly stop has left: somebody has removed `abort`.
pub fn goes_on_behind(segments: &Segments, disk: &dyn Disk, checkpoint: &Checkpoint) -> io::Result<bool> {
    let Some(found) = checkpoint.found() else { return Ok(false) };
    let goes_on = record_bytes(&segments.all(), disk, found.queues)?.is_some();
    if goes_on {
        tracing::warn!(
            from = found.queues,
            "there is no abort file, but the log goes on behind the last checkpoint: the store was not closed in order"
        );
    }
    Ok(goes_on)
}

/// Whether the queues are to be made again from the whole log, by what can be seen at once.
fn must_be_rebuilt(files: &[Arc<LogFile>], projection: &Projection, inventory: &Inventory) -> io::Result<bool> {
    if inventory.is_lost() {
        return Ok(true);
    }
    let log_min = files.first().map_or(0, |first| first.start());
    for listed in inventory.found().queues.iter().filter(|listed| listed.extent.end > log_min) {
        let (topic, queue) = (&*listed.topic, listed.id);
        // What comes behind the last checkpoint must not begin it in its middle.
        if projection.queues.find(topic, queue).is_none_or(|queue| queue.max() == 0) {
            tracing::error!(topic, %queue, had = listed.extent.max, "a queue is missing: the whole log is read to make it again");
            return Ok(true);
        }
    }
    if projection.queues.are_damaged() {
        tracing::warn!("files of queues cannot be used: the whole log is read to make them again");
        return Ok(true);
    }
    // The end of a queue is in the inventory; of the files before it each must at least begin with what belongs there, unless all are what
    // they were.
    for queue in projection.queues.all().iter().filter(|queue| !queue.is_listed()) {
        for offset in queue.full_files() {
            if let Some(entry) = queue.entry(offset)?
                && !belongs(files, projection, queue, offset, &entry)
            {
                tracing::error!(topic = queue.topic(), queue = %queue.id(), offset, "a file of a queue is damaged or another queue's: the whole log is read to make it again");
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What the queues have before anything is taken from them, but for those whose last entry is not of the queue. One that is torn counts
/// for nothing: it may look like that of a message which is gone with the log's beginning, while its own is put again, or was never on
/// the disk.
fn ends_of_queues(files: &[Arc<LogFile>], projection: &Projection) -> io::Result<Vec<ListedQueue>> {
    let ends = for_all(projection.queues.all(), |queue| -> io::Result<_> {
        let Some((last, entry)) = queue.last_whole()? else { return Ok(None) };
        let counts = belongs(files, projection, &queue, last, &entry)
            || record_bytes(files, &*projection.disk, entry.physical.0)?.is_none();
        let extent = QueueExtent { min: queue.min(), max: last + 1, end: entry.end() };
        Ok(counts.then(|| ListedQueue { topic: queue.topic().into(), id: queue.id(), extent }))
    });
    ends.into_iter().filter_map(Result::transpose).collect()
}

/// The queues that do not have what is listed, as far as the log still goes to there, each with its number of entries. `went_on`: the
/// log's beginning has gone since, and so may that of queues.
fn lacking<'a>(
    listed: &'a [ListedQueue],
    projection: &Projection,
    went_on: bool,
    scan: &Scan,
) -> io::Result<Vec<(&'a ListedQueue, u64)>> {
    let mut lacking = Vec::new();
    for listed in listed {
        let is_deleted = scan.deleted.get(&*listed.topic).is_some_and(|at| *at >= listed.extent.end);
        if listed.extent.max == 0 || listed.extent.end > scan.shown || is_deleted {
            continue;
        }
        let queue = projection.queues.find(&listed.topic, listed.id);
        let has = match &queue {
            Some(queue) => queue.still_has(listed.extent, went_on)?,
            None => false,
        };
        if !has {
            lacking.push((listed, queue.map_or(0, |queue| queue.max())));
        }
    }
    Ok(lacking)
}

/// Whether an entry is that of the queue's message at the offset, as far as can be told.
fn belongs(
    files: &[Arc<LogFile>],
    projection: &Projection,
    queue: &ConsumeQueue,
    offset: u64,
    entry: &QueueEntry,
) -> bool {
    let gone = files.first().is_none_or(|first| entry.physical.0 < first.start());
    // What the disk does not give says nothing against the entry.
    gone || entry.is_filler() || leads_to_message(files, projection, queue, offset, entry).unwrap_or(true)
}

/// Whether the record of the queue's message at the offset stands where an entry says.
fn leads_to_message(
    files: &[Arc<LogFile>],
    projection: &Projection,
    queue: &ConsumeQueue,
    offset: u64,
    entry: &QueueEntry,
) -> io::Result<bool> {
    let is_this = |record: Record<'_>| {
        record.record_len() == entry.len as usize
            && record.queue_offset().0 == offset
            && record.queue_id() == queue.id()
            && record.topic() == queue.topic()
    };
    let bytes = record_bytes(files, &*projection.disk, entry.physical.0)?;
    Ok(bytes.is_some_and(|bytes| Record::parse(&bytes).is_ok_and(is_this)))
}

/// The queues keep the entries of records before `physical`; those of all others are put again.
fn keep_before(files: &[Arc<LogFile>], projection: &Projection, physical: u64) -> io::Result<()> {
    let belongs =
        |queue: &ConsumeQueue, offset: u64, entry: &QueueEntry| belongs(files, projection, queue, offset, entry);
    let kept = for_all(projection.queues.all(), |queue| -> io::Result<()> {
        queue.keep_before(&*projection.disk, physical, &belongs)?;
        if !queue.is_flushed() {
            projection.queues.mark_dirty(&queue);
        }
        Ok(())
    });
    kept.into_iter().collect()
}

/// Whether an entry that a queue is about to forget is that of a record before `physical`, and damaged: nothing would put it again, and if
/// its queue has no later message nobody would miss it. What was lost with the end of the log leads behind that. Asked before anything
/// is changed, as an open that does not come to its end leaves no such entry to the next.
fn have_rotten_ends(files: &[Arc<LogFile>], projection: &Projection, physical: u64) -> io::Result<bool> {
    let belongs =
        |queue: &ConsumeQueue, offset: u64, entry: &QueueEntry| belongs(files, projection, queue, offset, entry);
    let files_end = files.last().map_or(0, |last| last.end());
    let firsts = for_all(projection.queues.all(), |queue| -> io::Result<_> {
        let first = queue.first_behind(&*projection.disk, physical, &belongs)?;
        Ok(first.map(|first| (queue, first)))
    });
    let mut looks_left = FLIPS_LOOKED_FOR_MAX;
    for first in firsts {
        let Some((queue, Forgotten { offset, entry, may_be_torn })) = first? else { continue };
        let (place, topic, id) = (entry.physical.0, queue.topic(), queue.id());
        let leads_to = |place: u64| {
            let entry = QueueEntry { physical: PhysicalOffset(place), ..entry };
            leads_to_message(files, projection, &queue, offset, &entry).unwrap_or(false)
        };
        // Of one that was being put when the power went the place may be missing, or all but the place.
        let may_be_lost = may_be_torn || place == 0 || (physical..files_end).contains(&place);
        if may_be_lost {
            if looks_left == 0 || entry.is_filler() || (place >= physical && leads_to(place)) {
                continue;
            }
            looks_left -= 1;
            if !(0..u64::BITS).map(|bit| place ^ (1 << bit)).any(|place| place < physical && leads_to(place)) {
                continue;
            }
        }
        tracing::error!(topic, queue = %id, offset, place, "the last entry of a queue is damaged: the whole log is read to make it again");
        return Ok(true);
    }
    Ok(false)
}

/// Without a log there is nothing to point into. It begins where it is known to: elsewhere than at 0 when it was given up (`restart`).
fn begin_empty(projection: &Projection, checkpoint: &Checkpoint) -> io::Result<RecoveryOutcome> {
    let begin = checkpoint.found_begin().unwrap_or(0);
    checkpoint.lower(0);
    checkpoint.save(&*projection.disk)?;
    for queue in projection.queues.all() {
        if queue.max() > 0 {
            tracing::warn!(topic = queue.topic(), queue = %queue.id(), "queue removed: there is no commit log");
        }
        projection.queues.take_topic(queue.topic());
        queue.remove(&*projection.disk)?;
    }
    if let Some(index) = &projection.index {
        index.truncate(&*projection.disk, 0)?;
    }
    projection.queues.set_log_begins_at(begin);
    Ok(RecoveryOutcome { end: begin, last_timestamp: 0, shown: begin, shown_timestamp: 0 })
}

/// After a clean stop everything up to the last queue entry is in the queues and in the index.
fn start_after_stop(projection: &Projection, checkpoint: &Checkpoint, log_min: u64) -> Start {
    let last = projection.queues.all().iter().map(|queue| queue.end_physical()).max().unwrap_or(0);
    // An entry that says more than was ever there is damaged.
    let dispatched = last.min(checkpoint.found().map_or(u64::MAX, |found| found.queues)).max(log_min);
    let index = match &projection.index {
        // Somebody removed the index files, or there never was a key.
        Some(index) if index.is_empty() => log_min,
        Some(index) if index.is_damaged() => index.whole_up_to().max(log_min),
        Some(index) => index.resume_at().max(dispatched),
        None => u64::MAX,
    };
    Start { queues: dispatched, index }
}

/// Up to where records are in the queues and in the index, on the disk, as the checkpoint says.
fn known_projected(files: &[Arc<LogFile>], projection: &Projection, checkpoint: &Checkpoint) -> io::Result<Start> {
    let (log_min, log_end) =
        (files.first().map_or(0, |first| first.start()), files.last().map_or(0, |last| last.end()));
    Ok(match checkpoint.found() {
        // A place that the log does not have is of another log.
        Some(found) => Start {
            queues: if (log_min..=log_end).contains(&found.queues) { found.queues } else { log_min },
            index: if found.index <= log_end { found.index } else { log_min },
        },
        None => Start {
            queues: segment_at(files, projection, checkpoint.recovery_start())?,
            index: segment_at(files, projection, checkpoint.index_recovery_start())?,
        },
    })
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
) -> io::Result<(Start, Option<Repair>)> {
    let (log_min, log_end) =
        (files.first().map_or(0, |first| first.start()), files.last().map_or(0, |last| last.end()));
    // Queues that are all empty were lost, or never written: the checkpoint's word about them is void.
    let lost = projection.queues.all().iter().all(|queue| queue.max() == 0);
    let queues = if lost { log_min } else { known.queues };
    let record_at = |at: u64| record_bytes(files, &*projection.disk, at).ok().flatten();
    let (index, repair) = match &projection.index {
        Some(index) if checkpoint.found().is_some() => {
            let found = index.check(DurableExtent::Position(known.index), known.index, &record_at);
            let broken = found.broken || index.is_damaged();
            let whole_before = if broken { found.resume.saturating_sub(1).min(known.index) } else { known.index };
            let from = if found.leaves_nothing() { log_min } else { whole_before };
            (from, Some(found))
        }
        Some(index) => {
            let found = index.check(DurableExtent::Time(checkpoint.index_time()), log_end, &record_at);
            // Messages without keys have no entries: the checkpoint may know better than the last entry, unless that is damaged.
            let from = if found.leaves_nothing() || found.broken || index.is_damaged() {
                found.resume.saturating_sub(1)
            } else {
                found.resume.max(known.index)
            };
            (from, Some(found))
        }
        None => (u64::MAX, None),
    };
    Ok((Start { queues, index }, repair))
}

/// The newest segment that begins with a record stored no later than `time`; the first when there is none.
fn segment_at(files: &[Arc<LogFile>], projection: &Projection, time: i64) -> io::Result<u64> {
    for file in files.iter().rev() {
        let Some(segment) = Segment::of(file, &*projection.disk) else { continue };
        if let Some(record) = segment.whole_record_at(0)?
            && (1..=time).contains(&record.store_timestamp())
        {
            return Ok(file.start());
        }
    }
    Ok(files.first().map_or(0, |first| first.start()))
}

/// Ends the log at `end`: later files go, and nothing old is left behind the end in its file.
fn cut_log(segments: &Segments, projection: &Projection, end: u64, clean: bool) -> io::Result<()> {
    // A file that begins exactly at the end is the next to be written; those after it hold nothing.
    let behind = segments.split_off(end + 1);
    let last = segments.last().filter(|last| end < last.end());
    // Before the first one goes.
    if let Some(file) = behind.iter().find(|file| file.is_read_only()) {
        let path = file.path().display();
        return Err(io::Error::other(format!(
            "the log ends at {end}; {path} is behind that, in a directory that nothing is written to: move it away"
        )));
    }
    if let Some(last) = last.as_ref().filter(|last| last.is_read_only()) {
        let path = last.path().display();
        return Err(io::Error::other(format!(
            "the log ends at {end} in {path}, and nothing is written to that directory: take it out of readOnlyCommitLogStorePaths until the file is full"
        )));
    }
    // The last one first: what a crash leaves has no gap.
    for file in behind.into_iter().rev() {
        tracing::warn!(path = %file.path().display(), end, "removed a log file behind the end of the log");
        files::remove_file(&*projection.disk, file.path())?;
        if let Some(dir) = file.path().parent() {
            // One that came back with a power loss would be read as what follows.
            projection.disk.sync_dir(dir)?;
        }
    }
    let Some(last) = last else { return Ok(()) };
    // In the file, whose length is a usize.
    let at = (end - last.start()) as usize;
    let dirty = match Segment::of(&last, &*projection.disk) {
        Some(segment) => segment.look(at, 64)?.iter().any(|byte| *byte != 0),
        None => false,
    };
    drop(last);
    let retracted = segments.with_last(|last| {
        last.retract(at);
        if dirty {
            tracing::warn!(path = %last.path().display(), end, "what follows the last whole record is cut off");
        }
        if dirty || !clean { last.zero_rest(&*projection.disk) } else { Ok(()) }
    });
    retracted.unwrap_or_else(|| Err(io::Error::other("the log is being read while it is recovered")))
}

/// What was read may be in the page cache only; from here on it counts as flushed.
fn make_durable(
    segments: &Segments,
    projection: &Projection,
    checkpoint: &Checkpoint,
    inventory: &Inventory,
    start: Start,
    found: RecoveryOutcome,
) -> io::Result<()> {
    let disk = &*projection.disk;
    let RecoveryOutcome { end, last_timestamp, shown, shown_timestamp } = found;
    segments.sync(disk, start.queues.min(start.index)..end)?;
    projection.queues.flush(disk, 0)?;
    let known = |time: i64| (time > 0).then_some(time);
    if let Some(index) = &projection.index {
        index.sync(disk)?;
        checkpoint.index_is_durable(shown, known(shown_timestamp));
    }
    checkpoint.log_is_durable(end, known(last_timestamp));
    checkpoint.queues_are_durable(shown, known(shown_timestamp));
    projection.queues.all().iter().for_each(|queue| queue.note());
    let index = projection.index.as_ref().map(|index| index.extents());
    inventory.save(projection, segments, checkpoint, shown, index)?;
    checkpoint.save(disk)
}
