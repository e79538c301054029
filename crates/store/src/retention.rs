//! What leaves the store, and when: the oldest segments of the log, and after them what points into them.
//!
//! A thread of its own. Each round looks at how full the disk is, decides whether the first segment is to go, and takes one after the
//! other away as long as it is so. Never goes: the last one; one that an open after a crash would need; one that somebody still needs
//! ([`Keeper`](crate::Keeper)). Queues and index follow the log's new beginning.
//! Java: CleanCommitLogService, CleanConsumeQueueService, with three differences: the age of a segment is that of its messages and not
//! its file's, a disk that is too full is looked at again before each segment, and there is a limit in bytes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;
use parking_lot::{Mutex, RwLock};

use crate::checkpoint::{Checkpoint, DurableUpTo};
use crate::clock::Clock;
use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, is_failed_sync};
use crate::files;
use crate::health::{Health, Shortage};
use crate::keepers::{Keepers, Pin};
use crate::log_dirs::LogDirs;
use crate::looking::{Effort, Look};
use crate::maintenance::Maintenance;
use crate::mapped_file::LogFile;
use crate::projection::Projection;
use crate::queues::FirstError;
use crate::retention_rules::{Hours, RetentionRules};
use crate::segments::Segments;
use crate::signal::Signal;
use crate::watermarks::Positions;

/// While a segment is held up it is asked again so soon.
const HELD_UP_PAUSE: Duration = Duration::from_secs(1);
/// What waits and does not fit is not carried on for so long, unless something changes.
const IN_VAIN_PAUSE: Duration = Duration::from_secs(3600);
/// Rounds of a deletion by hand. Java: MAX_MANUAL_DELETE_FILE_TIMES.
const ROUNDS_BY_HAND: u32 = 20;

/// Why a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Age,
    DiskUsage,
    LogLength,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Age => "older than fileReservedTime",
            Reason::DiskUsage => "the disk is fuller than diskSpaceCleanForciblyRatio",
            Reason::LogLength => "the log is longer than fileReservedBytes",
        })
    }
}

/// What is known of how full the disks are.
#[derive(Clone, Copy, Debug)]
struct Fullness {
    /// Of the ratio that counts, as far as it could be told.
    used: f64,
    /// A disk could not be asked. What is old goes at any hour then, as in Java; what is not goes for what is known only.
    is_unknown: bool,
}

/// Why the first segment stays, when it is not for a keeper or because it would be in vain: those have lines of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Last,
    Young,
    NotFlushed,
    NotProjected,
    CheckpointBehind,
}

impl Hold {
    /// Whether it is only worth a line while room is wanted.
    fn is_usual(self) -> bool {
        matches!(self, Hold::Last | Hold::Young)
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hold::Last => "the disk is fuller than it should be, but this is the last log file",
            Hold::Young => "the disk is fuller than it should be, but this is younger than fileReservedTime",
            Hold::NotFlushed => "not all of it is on the disk",
            Hold::NotProjected => "not all of its messages are in their queues and in the index",
            Hold::CheckpointBehind => "the checkpoint does not say that it, its queues and its index are on the disk",
        })
    }
}

/// A segment that would go but is needed.
#[derive(Debug)]
struct NeededSegment {
    segment: u64,
    by: &'static str,
    since: Instant,
}

/// The log as it was when room began to be made: when all of that has gone, it shows what came of it.
#[derive(Debug)]
struct Turnover {
    begin: u64,
    end: u64,
    /// Bytes carried on before.
    carried: u64,
}

/// What waits is as long as what is to be kept: it goes round in the log, and gives no room.
#[derive(Debug)]
struct InVain {
    since: Instant,
    rules: RetentionRules,
    /// Where the log ended then.
    begun_at: u64,
    /// From here on of the log it is tried again: so much has come since then that carrying on is no more than half of what is written.
    again_at: u64,
}

/// A file on its way from the disk.
#[derive(Debug)]
struct LeavingFile {
    path: PathBuf,
    /// Of a directory that may let nothing go.
    read_only: bool,
}

/// What the thread knows from one round to the next.
#[derive(Debug, Default)]
pub struct Progress {
    held_up: Option<NeededSegment>,
    /// A file that the log has no longer and the disk may have yet. No other goes before it: no crash may leave a gap.
    leaving: Option<LeavingFile>,
    /// Files that are gone and still read. The last one who lets go of a file waits until its room is given back, which is not for a
    /// thread that serves connections.
    read_yet: Vec<Arc<LogFile>>,
    /// Where the log began when queues and index were made to follow.
    followed: u64,
    /// So often the log had begun anew then.
    restarts: u64,
    /// Only the first failure in a row goes into the trace log.
    failing: bool,
    /// Why the first segment stays: said when it becomes another reason.
    hold: Option<Hold>,
    /// While room is wanted without a break.
    turnover: Option<Turnover>,
    in_vain: Option<InVain>,
    /// It was said, since room began to be wanted.
    told_in_vain: bool,
}

impl Progress {
    /// A file has gone from the log, and could not be removed yet.
    #[cfg(test)]
    pub fn leaves(&mut self, path: &Path) {
        self.leaving = Some(LeavingFile { path: path.to_owned(), read_only: false });
    }

    /// Lets go of the files that nobody reads any more.
    fn let_go(&mut self) {
        self.read_yet.retain(|file| Arc::strong_count(file) > 1);
    }
}

#[derive(Debug)]
pub struct Retention {
    pub rules: RwLock<RetentionRules>,
    pub segments: Arc<Segments>,
    pub projection: Arc<Projection>,
    pub positions: Arc<Positions>,
    pub checkpoint: Arc<Checkpoint>,
    pub maintenance: Arc<Maintenance>,
    pub keepers: Keepers,
    /// How often the log began anew. Held through a round, and while it does: what a round has found holds to its end.
    pub restarts: Mutex<u64>,
    pub health: Arc<Health>,
    pub disk: Arc<dyn Disk>,
    pub clock: Clock,
    pub log_dirs: Arc<LogDirs>,
    /// Where the queues are.
    pub root: PathBuf,
    /// All who need old messages are known: until then none goes.
    pub begun: AtomicBool,
    /// Bytes of messages that were stored again because their segment was to go.
    pub carried: AtomicU64,
    /// A disk could not be asked how full it is when it was looked at last. Only the first failure in a row goes into the trace log.
    pub usage_unknown: AtomicBool,
    /// Rounds of a deletion by hand that are left.
    pub by_hand: AtomicU32,
    pub signal: Signal,
    pub stop: AtomicBool,
}

impl Retention {
    /// The thread.
    pub fn run(&self) {
        self.signal.attach();
        let mut progress = Progress::default();
        while !self.stopped() {
            let begun = self.begun.load(Ordering::Acquire);
            let pause = if begun { self.go_round(&mut progress) } else { self.look_only() };
            // What woke it may have come while it waited between two segments.
            if !self.stopped() {
                self.signal.nap(pause);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Lets old segments go from now on.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    pub fn change_rules(&self, rules: RetentionRules) {
        *self.rules.write() = rules;
        self.signal.wake_now();
    }

    /// Has what is older than the reserved time go now, whatever the hour: in the next rounds. Java: executeDeleteFilesManually.
    pub fn delete_by_hand(&self) {
        self.by_hand.store(ROUNDS_BY_HAND, Ordering::Release);
        self.signal.wake_now();
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    /// A round in which nothing goes; gives the time until the next.
    fn look_only(&self) -> Duration {
        let rules = self.rules.read().clone();
        self.look_at_disk(&rules);
        rules.interval
    }

    /// One round; gives the time until the next. The thread's, and that of tests while the thread only looks.
    pub fn go_round(&self, progress: &mut Progress) -> Duration {
        if self.health.is_poisoned() {
            return self.look_only();
        }
        let restarts = self.restarts.lock();
        if progress.restarts != *restarts {
            // Nothing of what is known is of this log.
            *progress = Progress {
                restarts: *restarts,
                read_yet: std::mem::take(&mut progress.read_yet),
                ..Progress::default()
            };
        }
        let rules = self.rules.read().clone();
        let disk = self.look_at_disk(&rules);
        match self.delete_segments(&rules, disk, progress).and_then(|()| self.follow(progress)) {
            Ok(()) => {
                if std::mem::take(&mut progress.failing) {
                    tracing::info!("what is old goes again");
                }
            }
            Err(error) if is_failed_sync(&error) => {
                self.health.poison(format!("the removal of old files could not be synced: {error}"));
            }
            Err(error) => {
                if !std::mem::replace(&mut progress.failing, true) {
                    tracing::error!(%error, "what is old cannot go; trying again");
                }
            }
        }
        progress.let_go();
        let waits = progress.held_up.is_some() || !progress.read_yet.is_empty();
        if waits { rules.interval.min(HELD_UP_PAUSE) } else { rules.interval }
    }

    /// How full the disk of the queues is, or the least full one of the log if that is fuller; has writes refused while it is too full. A
    /// disk that cannot be asked has writes neither refused nor taken again.
    fn look_at_disk(&self, rules: &RetentionRules) -> Fullness {
        let mut most: Option<(f64, &Path)> = None;
        let mut failure = None;
        let root = self.disk.usage(&self.root).map(|usage| (&*self.root, usage));
        for looked in [self.log_dirs.least_used(rules.used_ratio_max), root] {
            match looked {
                Ok((dir, usage)) if most.is_none_or(|(most, _)| usage.used_ratio > most) => {
                    most = Some((usage.used_ratio, dir));
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let was_unknown = self.usage_unknown.swap(failure.is_some(), Ordering::AcqRel);
        match &failure {
            Some(error) if !was_unknown => {
                tracing::warn!(%error, root = %self.root.display(), "cannot tell how full a disk is; writes are taken or refused as before until it can be told");
            }
            None if was_unknown => tracing::info!("how full the disks are can be told again"),
            _ => {}
        }
        match most {
            Some((used, dir)) if used > rules.full_ratio => {
                let reason = format!("{:.0}% used, limit {:.0}%", used * 100.0, rules.full_ratio * 100.0);
                self.health.disk_full(Shortage::Disk, dir, reason);
            }
            _ if failure.is_none() => self.health.disk_has_room(Shortage::Disk),
            _ => {}
        }
        Fullness { used: most.map_or(0.0, |(used, _)| used), is_unknown: failure.is_some() }
    }

    /// Deletes the oldest segments, in order.
    fn delete_segments(&self, rules: &RetentionRules, mut disk: Fullness, progress: &mut Progress) -> io::Result<()> {
        let by_hand = self.by_hand.load(Ordering::Acquire) > 0;
        if by_hand {
            self.by_hand.fetch_sub(1, Ordering::AcqRel);
        }
        self.unlink(progress)?;
        let (mut deleted, mut hold) = (0, None);
        while deleted < rules.batch_max {
            let mut files = self.segments.all();
            let [first, next, ..] = &files[..] else {
                hold = Some(Hold::Last);
                break;
            };
            let for_room = self.reason_for_room(rules, disk.used, files.len(), first);
            if for_room.is_none() {
                (progress.turnover, progress.in_vain, progress.told_in_vain) = (None, None, false);
            }
            let for_room = for_room.filter(|reason| !self.is_in_vain(*reason, rules, disk.used, first, progress));
            let Some(reason) = for_room.or_else(|| self.is_expired(rules, disk, by_hand, first, next)) else {
                progress.held_up = None;
                hold = progress.in_vain.is_none().then_some(Hold::Young);
                break;
            };
            if deleted > 0 {
                self.signal.nap(rules.segment_pause);
            }
            if self.stopped() || self.is_held_up(first, reason, progress) {
                break;
            }
            hold = self.delete(first, progress)?;
            if hold.is_some() {
                break;
            }
            let held_up = progress.held_up.take().map(|held_up| (held_up.by, held_up.since.elapsed().as_millis()));
            let (needed_by, held_up_ms) = held_up.unzip();
            tracing::info!(path = %first.path().display(), %reason, needed_by, held_up_ms, "deleted the oldest log file");
            deleted += 1;
            // Its room comes back when nobody has it any more.
            files.clear();
            progress.let_go();
            disk = self.look_at_disk(rules);
            if reason == Reason::DiskUsage && !progress.read_yet.is_empty() {
                // Somebody reads it: no other has to go in its place, before it was seen what it gives.
                break;
            }
        }
        let hold = hold.filter(|hold| deleted == 0 && (!hold.is_usual() || rules.are_exceeded_by(disk.used)));
        if let Some(why) = hold.filter(|_| hold != progress.hold) {
            let used = format!("{:.0}%", disk.used * 100.0);
            tracing::warn!(%why, used, "the oldest log file stays");
        }
        progress.hold = hold;
        if by_hand && progress.held_up.is_some() {
            // A round in which somebody was only asked is none.
            self.by_hand.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Why the first segment is to go whatever its age, if it is. Java: isSpaceToDelete.
    fn reason_for_room(&self, rules: &RetentionRules, used: f64, count: usize, first: &LogFile) -> Option<Reason> {
        if rules.forced && used > rules.forced_ratio.min(rules.full_ratio) {
            return Some(Reason::DiskUsage);
        }
        let is_long = rules.reserved_bytes.is_some_and(|most| (count * first.len()) as u64 > most);
        is_long.then_some(Reason::LogLength)
    }

    /// Whether the first segment is to go because of its age. Java: deleteExpiredFiles.
    fn is_expired(
        &self,
        rules: &RetentionRules,
        disk: Fullness,
        by_hand: bool,
        first: &LogFile,
        next: &LogFile,
    ) -> Option<Reason> {
        let now = self.clock.now_ms();
        let is_time =
            by_hand || disk.is_unknown || rules.are_exceeded_by(disk.used) || rules.hours.contain(Hours::at(now));
        let reserved_ms = i64::try_from(rules.reserved_time.as_millis()).unwrap_or(i64::MAX);
        let is_old = || self.stored_by(first, next).is_some_and(|stored| now.saturating_sub(stored) >= reserved_ms);
        (is_time && is_old()).then_some(Reason::Age)
    }

    /// Whether no room comes of letting segments go, because what waits in them is stored again and is most of the log. Said once.
    fn is_in_vain(
        &self,
        reason: Reason,
        rules: &RetentionRules,
        used: f64,
        first: &LogFile,
        progress: &mut Progress,
    ) -> bool {
        let (written, carried) = (self.positions.written(), self.carried.load(Ordering::Acquire));
        if let Some(in_vain) = &progress.in_vain {
            // What came since can go, and nothing comes any more while the disk is full.
            let room_is_needed =
                used > rules.full_ratio && written.saturating_sub(in_vain.begun_at) >= first.len() as u64;
            let lasts = in_vain.since.elapsed() < IN_VAIN_PAUSE
                && in_vain.rules == *rules
                && written < in_vain.again_at
                && !room_is_needed;
            if lasts {
                return true;
            }
            progress.in_vain = None;
        }
        let begun = Turnover { begin: first.start(), end: written, carried };
        let turnover = progress.turnover.get_or_insert(begun);
        if first.start() < turnover.end {
            return false;
        }
        // All that was there then has gone, and room is wanted still.
        let (gone, came_back) = (first.start() - turnover.begin, carried - turnover.carried);
        progress.turnover = None;
        if came_back < gone / 2 {
            return false;
        }
        if !std::mem::replace(&mut progress.told_in_vain, true) {
            tracing::warn!(
                %reason, waiting_bytes = came_back,
                "what waits in the log (messages for a given time, delayed ones, open transactions) is more than is to be kept: storing it again gives no room and pauses; allow more (fileReservedBytes, diskSpaceCleanForciblyRatio, a larger disk), or have less wait"
            );
        }
        let again_at = written.saturating_add(came_back);
        progress.in_vain = Some(InVain { since: Instant::now(), rules: rules.clone(), begun_at: written, again_at });
        true
    }

    /// When the last message of a segment was stored, or somewhat later: the store time of the first one behind it, which is why the log
    /// went on in the next. The time of the file would say the same of one that is left alone; but it is that of the first write to a
    /// clean page, a copy of the store has the time at which it was copied, and what an open zeros makes it new.
    fn stored_by(&self, first: &LogFile, next: &LogFile) -> Option<i64> {
        if self.positions.written() <= next.start() {
            return Some(self.positions.written_timestamp.load(Ordering::Acquire)).filter(|time| *time > 0);
        }
        let look = Look::new(&*self.disk, Effort::Full);
        let record = self.segments.record_at(&look, next.start()).ok().flatten();
        record.and_then(|bytes| Some(Record::parse(&bytes).ok()?.store_timestamp())).or_else(|| {
            // Damaged, or the disk does not give it.
            let modified = std::fs::metadata(first.path()).and_then(|metadata| metadata.modified()).ok()?;
            i64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
        })
    }

    /// Whether somebody needs the segment. Said once, of each who does.
    fn is_held_up(&self, file: &LogFile, reason: Reason, progress: &mut Progress) -> bool {
        let Some(Pin { by, from }) = self.keepers.pin_before(PhysicalOffset(file.end())) else { return false };
        let known = progress.held_up.take().filter(|known| known.segment == file.start());
        if known.as_ref().is_none_or(|known| known.by != by) {
            tracing::info!(path = %file.path().display(), %reason, needed_by = by, %from, "the oldest log file stays until what is needed of it is carried on");
        }
        let since = known.map_or_else(Instant::now, |known| known.since);
        progress.held_up = Some(NeededSegment { segment: file.start(), by, since });
        true
    }

    /// Deletes the first segment, durably; or says why it stays: an open after a crash would need it.
    fn delete(&self, first: &Arc<LogFile>, progress: &mut Progress) -> io::Result<Option<Hold>> {
        if self.hold(first.end()).is_some() {
            self.maintenance.flush_all()?;
            self.checkpoint.save(&*self.disk)?;
        }
        // No truncation takes back meanwhile what was just found.
        let writing_out = self.maintenance.writing_out.lock();
        if let Some(hold) = self.hold(first.end()) {
            return Ok(Some(hold));
        }
        // From here on an open does not miss it.
        self.checkpoint.log_begins_at(first.end());
        self.checkpoint.save(&*self.disk)?;
        if !self.segments.take_first(first.start()) {
            return Ok(Some(Hold::Last));
        }
        drop(writing_out);
        if let Err(error) = first.unstage() {
            // They come back when nobody reads it any more.
            tracing::warn!(%error, path = %first.path().display(), "buffers of the write pool stay with a log file that is deleted");
        }
        progress.leaving = Some(LeavingFile { path: first.path().to_owned(), read_only: first.is_read_only() });
        progress.read_yet.push(Arc::clone(first));
        self.unlink(progress).map(|()| None)
    }

    /// Why the log before `end` may be read again to make up for what a crash takes. Nothing of it is when it is on the disk, and so are the
    /// queue and index entries of its messages, and the checkpoint says so.
    fn hold(&self, end: u64) -> Option<Hold> {
        let is_indexed = |indexed: u64| self.projection.index.is_none() || indexed >= end;
        let saved = |saved: DurableUpTo| saved.log >= end && saved.queues >= end && is_indexed(saved.index);
        if self.positions.flushed() < end {
            Some(Hold::NotFlushed)
        } else if self.positions.projected() < end {
            Some(Hold::NotProjected)
        } else if !self.checkpoint.saved().is_some_and(saved) {
            Some(Hold::CheckpointBehind)
        } else {
            None
        }
    }

    /// Has the file that is leaving go from the disk, durably.
    fn unlink(&self, progress: &mut Progress) -> io::Result<()> {
        let Some(LeavingFile { path, read_only }) = &progress.leaving else { return Ok(()) };
        match files::remove_file(&*self.disk, path)
            .and_then(|()| path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir)))
        {
            // The next open knows where the log begins, and passes over it.
            Err(error) if *read_only && !is_failed_sync(&error) => {
                tracing::warn!(path = %path.display(), %error, "a log file that is no longer needed stays in its read-only directory");
            }
            result => result?,
        }
        progress.leaving = None;
        Ok(())
    }

    /// Makes queues and index begin with the log, when that has moved.
    fn follow(&self, progress: &mut Progress) -> io::Result<()> {
        let Some(log_min) = self.segments.first().map(|first| first.start()) else { return Ok(()) };
        if log_min <= progress.followed {
            return Ok(());
        }
        let queues = &self.projection.queues;
        let look = Look::new(&*self.disk, Effort::Full);
        let mut failed = FirstError::default();
        for queue in queues.all() {
            if self.stopped() {
                return Ok(());
            }
            // One that cannot keeps no other back.
            failed.note(self.follow_in(&queue, &look, log_min));
        }
        if let Some(index) = &self.projection.index {
            let _writing_out = self.maintenance.writing_out.lock();
            failed.note(index.forget_before(&*self.disk, &look, log_min));
        }
        failed.result()?;
        queues.set_log_begins_at(log_min);
        progress.followed = log_min;
        Ok(())
    }

    fn follow_in(&self, queue: &ConsumeQueue, look: &Look<'_>, log_min: u64) -> io::Result<()> {
        queue.follow_log(look, log_min)?;
        if queue.has_files_before_min() {
            // No deletion of the topic puts another directory in place of its own meanwhile.
            let _writing_out = self.maintenance.writing_out.lock();
            queue.drop_files_before_min(&*self.disk)?;
        }
        Ok(())
    }
}
