//! Looks at a store that nobody uses, and says what in it does not hold together: log, queues, index, timers and checkpoint,
//! each against the others.
//!
//! Reads files and nothing else: no mapping, no write, no lock that would leave a trace. Whatever is in the files, a length
//! is looked at before memory is taken, and memory depends on the number of queues and minutes, not on what is in them. Only
//! [`repair`](mod@repair) writes, and has a start do it.

mod dump;
mod index;
mod log;
mod queues;
mod repair;
mod report;
mod timers;
mod window;

#[cfg(test)]
mod check_test;
#[cfg(test)]
mod repair_test;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use dump::{Chain, ChainLink, Dump, PlacedEntry};
pub(crate) use log::damage_of;
pub use queues::QueueTotals;
pub use repair::{Damage, RepairConfig, RepairError, Repaired, remedies, repair};
pub use report::{Finding, Part};

use crate::checkpoint::{CheckpointFile, LogBegin, Places};
use crate::delay_levels::DelayLevels;
use crate::disk::LocalDisk;
use crate::error::OpenError;
use crate::index_file::IndexShape;
use crate::lock::ReadLock;
use crate::restart::{self, RestartOrder};
use index::Index;
use log::{DurableLog, Log, LogWalk};
use queues::{QueueEntries, Queues};
use report::Report;
use window::Window;

/// Where a store is, and what its files do not say.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    pub root: PathBuf,
    /// Where the log is, if not in `<root>/commitlog`.
    pub log_dirs: Vec<PathBuf>,
    /// `maxHashSlotNum` and `maxIndexNum`; `None` where they are as one to four.
    pub index_shape: Option<(u32, u32)>,
    /// `messageDelayLevel`.
    pub delay_levels: DelayLevels,
    /// The topics of `topics.json`, where that could be read: messages of others may have lost their queues to a Java broker's
    /// deletion, which the log does not tell.
    pub topics: Option<BTreeSet<String>>,
}

impl CheckConfig {
    pub fn at(root: impl Into<PathBuf>) -> CheckConfig {
        CheckConfig {
            root: root.into(),
            log_dirs: Vec::new(),
            index_shape: None,
            delay_levels: DelayLevels::default(),
            topics: None,
        }
    }

    fn log_dirs(&self) -> Vec<PathBuf> {
        if self.log_dirs.is_empty() { vec![self.root.join("commitlog")] } else { self.log_dirs.clone() }
    }

    fn queues_dir(&self) -> PathBuf {
        self.root.join("consumequeue")
    }

    fn index_dir(&self) -> PathBuf {
        self.root.join("index")
    }

    fn index_shape(&self) -> Option<IndexShape> {
        self.index_shape.map(|(slots, entries)| IndexShape { slots, entries })
    }

    /// Makes sure that there is a store, and keeps brokers away from it.
    fn enter(&self) -> Result<ReadLock, CheckError> {
        let mut dirs = self.log_dirs();
        if !dirs.iter().any(|dir| dir.is_dir()) {
            return Err(CheckError::NoStore { path: self.root.clone() });
        }
        dirs.push(self.queues_dir());
        ReadLock::take(&self.root, &dirs).map_err(CheckError::from)
    }
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("{path} is in use: a broker runs on it. Stop it first")]
    InUse { path: PathBuf },
    #[error("{path} is no store: it has no commit log (--log-dir says where that is if it is elsewhere)")]
    NoStore { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Setting(String),
}

impl From<OpenError> for CheckError {
    fn from(error: OpenError) -> CheckError {
        match error {
            OpenError::Locked { path } => CheckError::InUse { path },
            OpenError::Io { path, source, .. } | OpenError::NotWritable { path, source } => {
                CheckError::Io { path, source }
            }
            other => CheckError::Setting(other.to_string()),
        }
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// The broker was stopped in order.
    pub clean: bool,
    pub log_files: u64,
    pub log_begin: u64,
    pub log_end: u64,
    pub messages: u64,
    pub of_queues: QueueTotals,
    pub index_files: u64,
    pub index_entries: u64,
    pub timers: u64,
    pub faults: u64,
    pub notes: u64,
}

/// What came of a check.
#[derive(Debug)]
pub struct CheckResult {
    pub summary: Summary,
    queues: Queues,
    /// Of the longest file of the log.
    segment_len: Option<u64>,
}

impl CheckResult {
    /// One after the last message of a queue, by its entries and by the log; `None` for a queue that is in neither.
    pub fn queue_end(&self, topic: &str, id: u32) -> Option<u64> {
        self.queues.end(topic, id)
    }

    /// The topics that have queues.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.queues.topics()
    }
}

/// Checks a store, and hands each finding on as it is found. While it is at it, no broker can start there.
pub fn check(config: &CheckConfig, sink: &mut dyn FnMut(&Finding)) -> Result<CheckResult, CheckError> {
    if config
        .index_shape
        .is_some_and(|(slots, entries)| slots == 0 || entries < 2 || i32::try_from(slots.max(entries)).is_err())
    {
        return Err(CheckError::Setting(
            "an index needs a slot and two entries, and counts them in 31 bits".to_owned(),
        ));
    }
    let _lock = config.enter()?;
    let report = &mut Report::new(sink);
    let clean = !config.root.join("abort").exists();
    if !clean {
        let what = "left by a broker that did not stop in order: the next start puts right what is not on the disk";
        report.note(Part::Checkpoint, &config.root.join("abort"), None, what);
    }
    let given_up = restart::path_in(&config.root);
    if given_up.exists() {
        let order = RestartOrder::read(&LocalDisk, &config.root);
        let order = order.map_err(|source| CheckError::Io { path: given_up.clone(), source })?;
        let begin = order.map_or(0, |order| order.begin);
        let what =
            format_args!("the log was given up: the next start removes what is left of it, and begins at {begin}");
        report.note(Part::Log, &given_up, None, what);
        let summary = Summary { clean, log_begin: begin, log_end: begin, notes: report.notes, ..Summary::default() };
        return Ok(CheckResult { summary, queues: Queues::none(config.queues_dir()), segment_len: None });
    }
    let log_dirs = config.log_dirs();
    let checkpoint_path = config.root.join("checkpoint");
    let checkpoint = read_checkpoint(&checkpoint_path, log::is_unused(&log_dirs)?, report)?;
    let places = match checkpoint.map(|checkpoint| checkpoint.places) {
        Some(Places::Hold { up_to, .. }) => Some(up_to),
        _ => None,
    };
    let before = |place: Option<u64>| if clean { u64::MAX } else { place.unwrap_or(0) };
    // A Java broker tells of times alone.
    let time = checkpoint.filter(|_| places.is_none()).map_or(0, |checkpoint| checkpoint.log_time);
    let known = DurableLog { clean, log: before(places.map(|places| places.log)), time };
    let in_queues = QueueEntries { clean, before: before(places.map(|places| places.queues)) };
    let in_index = QueueEntries { clean, before: before(places.map(|places| places.index)) };

    let log = Log::find(&log_dirs, known, report)?;
    let mut queues = Queues::find(config.queues_dir(), clean, report)?;
    let mut index = Index::find(config.index_dir(), config.index_shape(), clean, report)?;
    let walked = log.walk(known, report, &mut |record, whole, report| {
        queues.see(record, whole, in_queues, &config.delay_levels, report);
        // One that is damaged may have come into the index before that, or not.
        if whole {
            index.see(record, in_index.before);
        }
    });
    let here_and_there = &mut log.again();
    queues.finish(config, in_queues, here_and_there, &walked, report);
    index.finish(in_index, here_and_there, &walked, report);
    let store = checkpoint.and_then(|checkpoint| checkpoint.store);
    let timers = timers::check(&timers::dir_of(&config.root), store, &mut queues, here_and_there, clean, report)?;
    if let Some(checkpoint) = checkpoint {
        // After a crash the sync that it tells of may have ended in the middle of a record, which is cut off.
        let end = if clean { walked.end } else { log.file_end(walked.end) };
        hold_against(&checkpoint, &checkpoint_path, log.begin()..end, &walked, report);
    }
    let summary = Summary {
        clean,
        log_files: log.files() as u64,
        log_begin: log.begin(),
        log_end: walked.end,
        messages: walked.records,
        of_queues: queues.totals,
        index_files: index.totals.files,
        index_entries: index.totals.entries,
        timers: timers.waiting,
        faults: report.faults,
        notes: report.notes,
    };
    Ok(CheckResult { summary, queues, segment_len: log.segment_len() })
}

/// `None` when there is none, or what there is is too short. While nothing is in the log it may not be there yet, or not all of it.
fn read_checkpoint(path: &Path, is_new: bool, report: &mut Report<'_>) -> Result<Option<CheckpointFile>, CheckError> {
    /// More than is used of it.
    const READ: usize = 4096;
    let bytes = match Window::open(path, READ).and_then(|mut window| window.bytes(0, READ).map(<[u8]>::to_vec)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            report.tell(!is_new, Part::Checkpoint, path, None, "is missing");
            return Ok(None);
        }
        Err(source) => return Err(CheckError::Io { path: path.to_owned(), source }),
    };
    let checkpoint = CheckpointFile::decode(&bytes);
    match checkpoint.map(|checkpoint| checkpoint.places) {
        None => report.tell(!is_new, Part::Checkpoint, path, None, format_args!("has {} bytes", bytes.len())),
        Some(Places::Damaged) => report.fault(
            Part::Checkpoint,
            path,
            64,
            "its places do not fit their CRC, or a bit of its times their copies",
        ),
        Some(Places::Outdated) => {
            report.note(
                Part::Checkpoint,
                path,
                None,
                "its times were changed since its places were written, as a Java broker does",
            );
        }
        Some(Places::Hold { begin: LogBegin::Damaged, .. }) => {
            report.fault(Part::Checkpoint, path, 120, "where the log begins does not fit its CRC");
        }
        Some(Places::None | Places::Hold { .. }) => {}
    }
    Ok(checkpoint)
}

/// A checkpoint must not be ahead of what is there.
fn hold_against(checkpoint: &CheckpointFile, path: &Path, log: Range<u64>, walked: &LogWalk, report: &mut Report<'_>) {
    if let Places::Hold { up_to: places, begin } = checkpoint.places {
        if let LogBegin::At(begin) = begin
            && begin < log.start
        {
            let what = format_args!("says that the log begins at {begin}, but its first file begins at {}", log.start);
            report.fault(Part::Checkpoint, path, 120, what);
        }
        for (what, place, at) in [("log", places.log, 68), ("queues", places.queues, 76), ("index", places.index, 84)] {
            if place > log.end {
                let what = format_args!("says {place} for the {what}, but the log ends at {}", walked.end);
                report.fault(Part::Checkpoint, path, at, what);
            }
        }
    }
    for (what, time, at) in
        [("log", checkpoint.log_time, 0), ("queues", checkpoint.queues_time, 8), ("index", checkpoint.index_time, 16)]
    {
        if walked.records > 0 && time > walked.newest_time {
            let what = format_args!("says {time} for the {what}, but the newest message is of {}", walked.newest_time);
            // The one that it tells of may have gone with the segments before, if the clock was set back since.
            report.tell(log.start == 0, Part::Checkpoint, path, at, what);
        }
    }
    if checkpoint.confirmed > log.end {
        let what = format_args!("says that {} is confirmed, but the log ends at {}", checkpoint.confirmed, walked.end);
        report.fault(Part::Checkpoint, path, 32, what);
    }
}
