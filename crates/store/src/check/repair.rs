//! Makes again what a check found damaged and what can be made again: queues and index out of the log, the timers' files out of their queue.
//!
//! All of it is made by a start. What is damaged is moved to `damaged/`, and the store is opened and closed as a broker does it; that the
//! queues are to be made again, and which of their topics are no more, it has to be told. The list of queues (`inventory.rs`) says how far
//! each of them goes; where there is none, as after Java's broker, the store is opened and closed as it is first, which makes one. With that
//! no offset is given twice, though nothing of a queue be left in the log; and a repair that is killed is finished by the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferromq_protocol::topics::{self, TIMER_TOPIC};
use ferromq_protocol::{QueueId, QueueOffset};

use super::report::{Finding, Part};
use super::{CheckConfig, CheckResult, timers};
use crate::checkpoint::{Checkpoint, CheckpointContent};
use crate::config::StoreConfig;
use crate::disk::{Disk, PAGE};
use crate::error::{CloseError, OpenError};
use crate::files;
use crate::inventory::{Inventory, StoreId};
use crate::lock::{DirectoryLock, SideLock};
use crate::log_dirs::LogDirs;
use crate::queue_file::ENTRY_LEN;
use crate::store::Store;
use crate::timer_checkpoint::{self, path_in};
use crate::timer_index::TimerIndex;

/// What a broker is configured with and a check need not know.
#[derive(Clone, Debug)]
pub struct RepairConfig {
    /// `readOnlyCommitLogStorePaths`.
    pub read_only_log_dirs: Vec<PathBuf>,
    /// `mappedFileSizeCommitLog`.
    pub segment_len: u64,
    /// See [`StoreConfig::queue_file_entries`].
    pub queue_file_entries: u64,
    /// `messageIndexEnable`.
    pub index_enabled: bool,
}

/// The parts of a store that have faults and can be made again.
#[derive(Debug)]
pub struct Damage {
    queues_dir: PathBuf,
    index_dir: PathBuf,
    timers_dir: PathBuf,
    of_queues: bool,
    /// Directories of queues.
    queues: BTreeSet<PathBuf>,
    of_index: bool,
    /// What lies among the index files and is none.
    strange: BTreeSet<PathBuf>,
    of_timers: bool,
    /// Files of minutes.
    minutes: BTreeSet<PathBuf>,
    of_checkpoint: bool,
}

impl Damage {
    /// None so far.
    pub fn of(config: &CheckConfig) -> Damage {
        Damage {
            queues_dir: config.queues_dir(),
            index_dir: config.index_dir(),
            timers_dir: timers::dir_of(&config.root),
            of_queues: false,
            queues: BTreeSet::new(),
            of_index: false,
            strange: BTreeSet::new(),
            of_timers: false,
            minutes: BTreeSet::new(),
            of_checkpoint: false,
        }
    }

    /// Takes in what a check found. Notes are nothing to be repaired: the next start sees to them.
    pub fn add(&mut self, finding: &Finding) {
        let path = &finding.path;
        match finding.part {
            _ if !finding.is_fault => {}
            Part::Queues => {
                self.of_queues = true;
                let below = path.strip_prefix(&self.queues_dir).unwrap_or(Path::new(""));
                // Its topic and its number; what is about all of them names none.
                let parts: Vec<_> = below.iter().take(2).collect();
                if let [topic, id] = parts[..] {
                    self.queues.insert(self.queues_dir.join(topic).join(id));
                }
            }
            Part::Index => {
                self.of_index = true;
                if *path != self.index_dir && number_of(path).is_none() {
                    self.strange.insert(path.clone());
                }
            }
            Part::Timers => {
                self.of_timers = true;
                if *path != path_in(&self.timers_dir) {
                    self.minutes.insert(path.clone());
                }
            }
            Part::Checkpoint => self.of_checkpoint = true,
            // There is nothing that it could be made of.
            Part::Log | Part::Config => {}
        }
    }

    pub fn is_none(&self) -> bool {
        !self.of_queues && !self.of_index && !self.of_timers && !self.of_checkpoint
    }
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was moved away, and where it is now.
    pub moved: Vec<(PathBuf, PathBuf)>,
    /// What the start has moved there beside, by names that say where it was.
    pub moved_by_start: Vec<PathBuf>,
    /// What was made again, for people.
    pub made_again: Vec<&'static str>,
}

/// Why a store was not repaired. What was moved away before is in `damaged/`, and the next start makes it again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error(
        "config/topics.json is not there or cannot be read, and without it nobody knows which topics of the log were deleted: they would come back. Put it right first; nothing was changed"
    )]
    NoTopics,
    #[error("the store does not open: {0}")]
    Open(#[from] OpenError),
    #[error("the store does not close: {0}. What is not finished is left to the next start")]
    Close(#[from] CloseError),
    #[error("cannot repair {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Makes again what is damaged of a store, as `found` by a check. No broker may run there. What it has done is in `repaired` also where it
/// fails.
pub fn repair(
    config: &CheckConfig,
    made_with: &RepairConfig,
    damage: &Damage,
    found: &CheckResult,
    repaired: &mut Repaired,
) -> Result<(), RepairError> {
    let Some(known) = &config.topics else { return Err(RepairError::NoTopics) };
    let damaged_dir = files::damaged_dir(&config.root);
    let moved_before: BTreeSet<_> = files::entries(&damaged_dir)?.into_iter().collect();
    let done = repair_with(config, made_with, damage, found, known, repaired);
    let is_new = |path: &PathBuf| !moved_before.contains(path) && repaired.moved.iter().all(|(_, to)| to != path);
    repaired.moved_by_start = files::entries(&damaged_dir)?.into_iter().filter(is_new).collect();
    done
}

fn repair_with(
    config: &CheckConfig,
    made_with: &RepairConfig,
    damage: &Damage,
    found: &CheckResult,
    known: &BTreeSet<String>,
    repaired: &mut Repaired,
) -> Result<(), RepairError> {
    let had: BTreeSet<&str> = found.topics().collect();
    // Java's broker does not say in the log that a topic was deleted.
    let stays = |topic: &str| known.contains(topic) || had.contains(topic) || topics::is_system(topic);
    let as_broker = store_config(config, made_with);
    let disk: Arc<dyn Disk> = Arc::clone(&as_broker.disk);

    check_lengths(config, &as_broker, found)?;

    let is_listed = is_listed(config, &as_broker)?;
    let mut opened = if is_listed { None } else { Some(open_and_close(as_broker.clone(), &stays)?) };
    let moved = move_away(&*disk, config, made_with, damage, repaired)?;
    if is_listed || moved.queues || moved.index {
        let rebuilding = StoreConfig { rebuild_queues: moved.queues, ..as_broker };
        opened = Some(open_and_close(rebuilding, &stays)?);
    }
    for (is_made, what) in [
        (moved.queues, "the queues, out of the log"),
        (moved.index, "the index, out of the log"),
        (damage.of_checkpoint, "the checkpoint"),
    ] {
        if is_made {
            repaired.made_again.push(what);
        }
    }
    if let Some(opened) = opened.filter(|_| moved.timers) {
        let io = |source| RepairError::Io { path: damage.timers_dir.clone(), source };
        let mut index = TimerIndex::open(disk, damage.timers_dir.clone(), opened.store, 0).map_err(io)?;
        if index.entered_once() > opened.timers_end {
            index.queue_ends(opened.timers_end).map_err(io)?;
        }
        repaired.made_again.push("the timers' files: the next start enters their queue again, and delivers none twice");
    }
    Ok(())
}

pub(super) fn store_config(config: &CheckConfig, made_with: &RepairConfig) -> StoreConfig {
    let usual = StoreConfig::at(&config.root);
    let (index_slots, index_entries) = config.index_shape.unwrap_or((usual.index_slots, usual.index_entries));
    StoreConfig {
        commit_log_dirs: config.log_dirs.clone(),
        read_only_log_dirs: made_with.read_only_log_dirs.clone(),
        segment_len: made_with.segment_len,
        queue_file_entries: made_with.queue_file_entries,
        index_enabled: made_with.index_enabled,
        index_slots,
        index_entries,
        delay_levels: config.delay_levels.clone(),
        ..usual
    }
}

/// That the files have the lengths that are configured, so that none of another length is made and no start refuses what is there after
/// something was moved away.
fn check_lengths(config: &CheckConfig, as_broker: &StoreConfig, found: &CheckResult) -> Result<(), RepairError> {
    let log_dir = config.log_dirs().swap_remove(0);
    // What is no multiple is no setting.
    for (found, unit, expected, path, key) in [
        (found.segment_len, PAGE, as_broker.segment_len, log_dir, "mappedFileSizeCommitLog"),
        (
            found.queues.file_len(),
            ENTRY_LEN,
            as_broker.queue_file_len(),
            config.queues_dir(),
            "mappedFileSizeConsumeQueue",
        ),
    ] {
        if let Some(found) = found.filter(|found| *found != expected && found.is_multiple_of(unit as u64)) {
            return Err(OpenError::FileLength { path, found, expected, key }.into());
        }
    }
    Ok(())
}

/// Whether there is a list of how far each queue goes that a start believes. With one, an error where no start is possible because a part of
/// the log is missing, as when a disk is not mounted: nothing is to be moved away then.
fn is_listed(config: &CheckConfig, as_broker: &StoreConfig) -> Result<bool, RepairError> {
    let _lock = DirectoryLock::take(&config.root)?;
    let path = config.root.join("checkpoint");
    if !path.is_file() {
        return Ok(false);
    }
    let checkpoint = Checkpoint::open(path)?;
    let inventory = Inventory::open(&*as_broker.disk, &config.root, &checkpoint)?;
    let is_listed = matches!(checkpoint.told(), CheckpointContent::Places(_)) && !inventory.is_lost();
    if is_listed {
        LogDirs::of(as_broker)?.find_segments(&checkpoint, &inventory)?;
    }
    Ok(is_listed)
}

/// What a start has found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    store: StoreId,
    /// Where the queue of timers ends.
    timers_end: QueueOffset,
}

/// A start and an orderly stop.
pub(super) fn open_and_close(config: StoreConfig, stays: &dyn Fn(&str) -> bool) -> Result<Opened, RepairError> {
    let path = config.queues_path();
    let store = Store::open(config)?;
    store.forget_topics_except(stays).map_err(|source| RepairError::Io { path, source })?;
    let timers_end = store.queue_bounds(TIMER_TOPIC, QueueId(0)).unwrap_or_default().max;
    let store_id = store.id();
    store.close()?;
    Ok(Opened { store: store_id, timers_end })
}

/// What is to be made again now.
#[derive(Debug)]
pub(super) struct MovedParts {
    queues: bool,
    index: bool,
    timers: bool,
}

/// Moves what is damaged away, with brokers kept out meanwhile.
pub(super) fn move_away(
    disk: &dyn Disk,
    config: &CheckConfig,
    made_with: &RepairConfig,
    damage: &Damage,
    repaired: &mut Repaired,
) -> Result<MovedParts, RepairError> {
    let _lock = DirectoryLock::take(&config.root)?;
    let _side_lock = SideLock::take(&damage.queues_dir)?;
    let mut going: BTreeSet<PathBuf> = damage.queues.clone();
    // One that nobody reads stays.
    let of_index = made_with.index_enabled && damage.of_index;
    if of_index {
        // All of it: what the files lack that stay, nobody could tell where there is no list of them.
        let files = files::list_files(&damage.index_dir)?;
        going.extend(files.into_iter().filter(|path| number_of(path).is_some()));
        going.extend(damage.strange.iter().cloned());
    }
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RepairError::Io { path, source }
    };
    // Before a file goes: one that is missing is not missed where others are longer than the checkpoint says.
    let of_timers =
        damage.of_timers && timer_checkpoint::say_lacking(disk, &damage.timers_dir).map_err(io(&damage.timers_dir))?;
    if of_timers {
        going.extend(damage.minutes.iter().cloned());
    }
    for path in going.into_iter().filter(|path| path.exists()) {
        let kept_as = files::move_aside(disk, &config.root, &path).map_err(io(&path))?;
        repaired.moved.push((path, kept_as));
    }
    Ok(MovedParts { queues: damage.of_queues, index: of_index, timers: of_timers })
}

/// Of an index file, by its name.
fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

/// What can be done about faults of a part that are left after a repair.
pub fn remedies(left: impl IntoIterator<Item = Part>) -> BTreeMap<&'static str, &'static str> {
    let remedy = |part| match part {
        Part::Log => {
            "put the file back from a copy. Without one nothing is to be done: a start steps over what is damaged, and consumers pass over its messages"
        }
        Part::Queues => {
            "if they come of faults of the log, mend those first. What was there before is in damaged/; move it back to have it as it was"
        }
        Part::Index => "with messageIndexEnable=false nobody reads it: move index/ away; else repair once more",
        Part::Timers => {
            "put timers/checkpoint back from a copy. Without it nobody knows what was delivered: the next start delivers again what is past and still in the queue of timers"
        }
        Part::Checkpoint => {
            "if it comes of a missing file of the log, put that back; else start the broker, which does not believe it"
        }
        Part::Config => {
            "put the file back from a copy, or mend it at the place that is named; what is ahead of its queue is brought back by resetOffsetByTime"
        }
    };
    left.into_iter().map(|part| (part.name(), remedy(part))).collect()
}
