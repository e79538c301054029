//! The files of minutes against the queue of timer messages, both ways. Layout: docs/format.md, "Timers".

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ferromq_protocol::message::properties::{names, property};
use ferromq_protocol::topics::TIMER_TOPIC;

use super::CheckError;
use super::log::Log;
use super::queues::Queues;
use super::report::{FindingCount, Part, Report};
use super::window::Window;
use crate::files::{self, segment_name};
use crate::timer_checkpoint::{FilesOfMinutes, TimerCheckpoint, TimerCheckpointContent, path_in};
use crate::timer_minutes::{ENTRY_LEN, Timer, TimerEntry, minute_of};

/// Timer messages wait in this queue.
const QUEUE: u32 = 0;
const STEP: usize = 4096 * ENTRY_LEN;
/// Timers of a minute that are told apart, so that those that are there twice count once.
const SORTED_MAX: u64 = 4_000_000;

#[derive(Clone, Copy, Debug, Default)]
pub struct TimerTotals {
    pub waiting: u64,
}

/// What one looks for a timer with.
struct Timers<'a> {
    dir: &'a Path,
    checkpoint: TimerCheckpoint,
    /// Whose entries are believed.
    store: u64,
    queues: &'a mut Queues,
    log: &'a mut Log,
    /// The queue has messages from here.
    begin: u64,
}

/// An entry that does not fit its message.
struct WrongTimer {
    /// It may be of a message that had this place before.
    is_old: bool,
    what: String,
}

/// What the queue says of a place.
enum QueueVerdict {
    Timer {
        due_ms: i64,
        cancels: bool,
    },
    /// A message that is none, or none that could be read.
    Other,
    /// Its segment has gone.
    Gone,
    /// Nothing yet: a start that was killed had not come so far.
    ToCome,
}

/// Of the timers of `store`, where its id is known.
pub fn check(
    dir: &Path,
    store: Option<u64>,
    queues: &mut Queues,
    log: &mut Log,
    clean: bool,
    report: &mut Report<'_>,
) -> Result<TimerTotals, CheckError> {
    let mut minutes = Vec::new();
    for path in files::list_files(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(minute) = name.parse::<i64>().ok().filter(|_| name.len() == 20) {
            minutes.push((minute, path));
        }
    }
    let path = path_in(dir);
    let found = match TimerCheckpointContent::read(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound && clean && !minutes.is_empty() => {
            let what = "missing: all timer messages are entered again, those delivered too";
            report.fault(Part::Timers, &path, None, what);
            return Ok(TimerTotals::default());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => TimerCheckpointContent::Nothing,
        Err(error) => {
            report.fault(Part::Timers, &path, None, format_args!("cannot be read: {error}"));
            TimerCheckpointContent::Damaged
        }
    };
    let (checkpoint, lacks, owner) = match found {
        TimerCheckpointContent::Checkpoint(saved) if saved.store != 0 && store.is_some_and(|id| id != saved.store) => {
            let what = "is another store's: all timer messages are entered again, those delivered too";
            report.fault(Part::Timers, &path, 64, what);
            return Ok(TimerTotals::default());
        }
        TimerCheckpointContent::Checkpoint(saved) => {
            (saved.checkpoint, saved.files == FilesOfMinutes::LACKING, saved.store)
        }
        TimerCheckpointContent::Nothing if minutes.is_empty() => return Ok(TimerTotals::default()),
        // Stopped before it was written the first time.
        TimerCheckpointContent::Nothing => {
            report.note(Part::Timers, &path, None, "nothing is saved yet: all timer messages are entered again");
            return Ok(TimerTotals::default());
        }
        TimerCheckpointContent::Damaged => {
            report.fault(
                Part::Timers,
                &path,
                None,
                "damaged: all timer messages are entered again, those delivered too",
            );
            return Ok(TimerTotals::default());
        }
    };
    let end = queues.end(TIMER_TOPIC, QUEUE).unwrap_or(0);
    if checkpoint.entered.0 > end {
        let what =
            format_args!("says that the queue of timers is entered up to {}, it ends at {end}", checkpoint.entered);
        report.fault(Part::Timers, &path, 0, what);
    }
    let begin = queues.range(TIMER_TOPIC, QUEUE).map_or(0, |(first, _)| first);
    let mut timers = Timers { dir, checkpoint, store: owner, queues, log, begin };
    let wanted = timers.wanted(end)?;
    let mut totals = TimerTotals { waiting: wanted.values().sum() };
    if owner == 0 {
        let what = "is of before files of timers said whose they are: the next start enters again what waits";
        report.note(Part::Timers, &path, 64, what);
        return Ok(totals);
    }
    let mut found = BTreeMap::new();
    for (minute, path) in minutes {
        match timers.minute(minute, &path, report) {
            Ok(count) => drop(found.insert(minute, count)),
            Err(error) => report.fault(Part::Timers, &path, None, format_args!("cannot be read: {error}")),
        }
    }
    for (minute, count) in &wanted {
        let there = found.get(minute).copied().unwrap_or(0);
        if there < *count {
            let path = dir.join(segment_name(minute.unsigned_abs()));
            let what = format_args!("has {there} of {count} timers of its minute that the queue has");
            if lacks {
                report.note(Part::Timers, &path, None, format_args!("{what}: what is missing is entered again"));
            } else {
                report.fault(Part::Timers, &path, None, what);
            }
        }
    }
    totals.waiting = totals.waiting.max(found.values().sum());
    Ok(totals)
}

impl Timers<'_> {
    /// How many timers of each minute are to be in its file, by the queue.
    fn wanted(&mut self, end: u64) -> Result<BTreeMap<i64, u64>, CheckError> {
        let mut wanted = BTreeMap::new();
        let begin = self.begin.max(self.checkpoint.carried.0);
        // Of what was delivered before the clock was set back, the file is not there any more.
        let delivered_ms = self.checkpoint.delivered_ms.max(self.checkpoint.latest_ms);
        for offset in begin..self.checkpoint.entered.0.min(end) {
            let told = self.told(offset).map_err(|source| CheckError::Io { path: self.dir.to_owned(), source })?;
            if let QueueVerdict::Timer { due_ms, .. } = told
                && due_ms > delivered_ms
            {
                *wanted.entry(minute_of(due_ms)).or_default() += 1;
            }
        }
        Ok(wanted)
    }

    fn told(&mut self, offset: u64) -> io::Result<QueueVerdict> {
        // Whatever a crash has left in its place.
        if self.queues.is_to_come(TIMER_TOPIC, QUEUE, offset) {
            return Ok(QueueVerdict::ToCome);
        }
        let Some(entry) = self.queues.entry(TIMER_TOPIC, QUEUE, offset)? else {
            return Ok(if offset < self.begin { QueueVerdict::Gone } else { QueueVerdict::Other });
        };
        if entry.is_filler() {
            return Ok(QueueVerdict::Other);
        }
        if entry.physical.0 < self.log.begin() {
            return Ok(QueueVerdict::Gone);
        }
        let Some(record) = self.log.record_at(entry.physical.0)? else { return Ok(QueueVerdict::Other) };
        let text = record.properties();
        let due = property(&text, names::TIMER_OUT_MS).and_then(|due| due.parse().ok());
        let cancels = property(&text, names::TIMER_DEL_UNIQKEY).is_some();
        Ok(due.map_or(QueueVerdict::Other, |due_ms| QueueVerdict::Timer { due_ms, cancels }))
    }

    /// Looks at the timers of a file that count; gives how many.
    fn minute(&mut self, minute: i64, path: &Path, report: &mut Report<'_>) -> io::Result<u64> {
        let mut window = Window::open(path, STEP)?;
        let whole = window.len() / ENTRY_LEN as u64;
        if !window.len().is_multiple_of(ENTRY_LEN as u64) {
            report.note(Part::Timers, path, whole * ENTRY_LEN as u64, "a torn entry, which the next one replaces");
        }
        let (mut strange, mut damaged) = (FindingCount::default(), FindingCount::default());
        let (mut count, mut seen) = (0, Vec::new());
        for number in 0..whole {
            let at = number * ENTRY_LEN as u64;
            let entry = window.array(at)?;
            let timer = match entry.as_ref().map(|entry| TimerEntry::decode(entry, self.store, minute)) {
                Some(TimerEntry::Timer(timer)) => timer,
                None | Some(TimerEntry::Nothing) => continue,
                Some(TimerEntry::Damaged) => {
                    if damaged.one_more() {
                        // A crash may have torn it, and what it was is entered again; whether anything is missing shows the count.
                        let what = "a damaged entry, or one of another minute or store: the file is made again out of the queue when its minute comes";
                        report.note(Part::Timers, path, at, what);
                    }
                    continue;
                }
            };
            // What came after the checkpoint is entered again, and what was carried on is elsewhere.
            let counts = (self.checkpoint.carried..self.checkpoint.entered).contains(&timer.offset);
            if !counts || timer.due_ms <= self.checkpoint.delivered_ms {
                continue;
            }
            match self.fault_of(&timer)? {
                None => {
                    count += 1;
                    if whole <= SORTED_MAX {
                        seen.push(timer.offset);
                    }
                }
                // It was so once: the log has lost its end since, and the place is another timer's, which has its own entry.
                Some(WrongTimer { is_old: true, what }) => {
                    if strange.one_more() {
                        report.note(Part::Timers, path, at, what);
                    }
                }
                Some(WrongTimer { what, .. }) => {
                    if strange.one_more() {
                        report.fault(Part::Timers, path, at, what);
                    }
                }
            }
        }
        strange.finish(report, Part::Timers, path);
        damaged.finish(report, Part::Timers, path);
        if whole <= SORTED_MAX {
            seen.sort_unstable();
            seen.dedup();
            count = seen.len() as u64;
        }
        Ok(count)
    }

    fn fault_of(&mut self, timer: &Timer) -> io::Result<Option<WrongTimer>> {
        let wrong = |is_old, what| Some(WrongTimer { is_old, what });
        Ok(match self.told(timer.offset.0)? {
            QueueVerdict::Timer { due_ms, cancels } if (due_ms, cancels) == (timer.due_ms, timer.cancels) => None,
            QueueVerdict::ToCome => None,
            QueueVerdict::Gone => {
                wrong(false, format!("its message, at offset {}, has gone from the log", timer.offset))
            }
            QueueVerdict::Timer { due_ms, .. } => {
                let (said, offset) = (timer.due_ms, timer.offset);
                wrong(true, format!("says {said} for the timer at offset {offset}, its message {due_ms}"))
            }
            QueueVerdict::Other => wrong(false, format!("leads to offset {}, where no timer is", timer.offset)),
        })
    }
}

/// Where they are.
pub fn dir_of(root: &Path) -> PathBuf {
    root.join("timers")
}
