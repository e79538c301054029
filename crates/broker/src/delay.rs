//! Delayed messages: they wait in `SCHEDULE_TOPIC_XXXX`, one queue per delay level, and are put into their own topic when due.
//!
//! One thread walks the queues in order; a queue entry carries the delivery time in place of the tags code. It sleeps until the earliest
//! one is due or an earlier one arrives. A message is never delivered early, and at least once: how far a level is delivered is
//! saved (`delayOffset.json`) only after the delivered copies are on disk, so a crash delivers some again and loses none. What still waits
//! when its segment is to go is put among the timers, and counts here as delivered.
//! Java: `ScheduleMessageService`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::body::{DataVersion, DelayOffsetTable};
use ferromq_protocol::message::{NewMessage, Record};
use ferromq_protocol::topics::SCHEDULE_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset, json};
use ferromq_store::{AppendError, AppendedMessage, Arrival, Clock, DelayLevels, Effort, QueueEntry, Store, Want};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::carrying::Carrying;
use crate::delivery;
use crate::destination;
use crate::missing;
use crate::persistence::{self, Persistence, SavedFile, TableError};
use crate::save_after_flush::SaveAfterFlush;
use crate::stamps::{Stamps, Step, Watch};
use crate::statistics::Statistics;
use crate::topics::Topics;
use crate::worker::{Bell, Worker};

/// Pause after a delivery that failed. Java: `DELAY_FOR_A_WHILE`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Longest sleep while something waits: a wall clock that was set is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(5);
/// Messages of one level delivered before the other levels get their turn.
const TURN: usize = 256;
/// As the log calls them.
const WHAT: &str = "a delayed message";
/// Deliveries per step of the table's version. Java: `delayOffsetUpdateVersionStep`.
const VERSION_STEP: u64 = 200;

/// The parts that delays use.
pub struct DelayParts {
    pub store: Arc<Store>,
    pub topics: Arc<Topics>,
    pub statistics: Arc<Statistics>,
    pub levels: DelayLevels,
    /// The wall clock, by which entries are stamped.
    pub clock: Clock,
    /// One that only goes forward, by which delays take their time.
    pub forward: Clock,
}

/// The thread that delivers, and how far it is.
pub struct Delays {
    delivery: Arc<LevelDelivery>,
    file: SavedFile,
    worker: Worker,
}

/// Delivers what is due of the levels.
struct LevelDelivery {
    parts: DelayParts,
    progress: Mutex<Progress>,
    carrying: Arc<Carrying>,
}

/// How far the levels are delivered.
#[derive(Default)]
struct Progress {
    now: DeliveryPosition,
    after_flush: SaveAfterFlush<DeliveryPosition>,
    /// What the file says, or is about to.
    saved: DeliveryPosition,
    /// The file does not know of `saved` yet.
    newly_saved: bool,
    changed: bool,
    updates: u64,
}

/// Next queue offset per level, and the end of the last delivered copy in the log.
#[derive(Clone, Default)]
struct DeliveryPosition {
    offsets: BTreeMap<i32, QueueOffset>,
    /// The next message of a level is not before this place in the log, as far as that is known.
    places: BTreeMap<i32, PhysicalOffset>,
    version: DataVersion,
    end: PhysicalOffset,
}

impl Delays {
    /// Reads `delayOffset.json` in `config_dir`. Nothing is delivered before [`start`](Self::start).
    pub fn open(config_dir: &Path, parts: DelayParts, persistence: &Persistence) -> Result<Delays, TableError> {
        let path = config_dir.join("delayOffset.json");
        let mut delivered = DeliveryPosition::default();
        delivered.version.timestamp = parts.clock.now_ms();
        let mut is_ahead = false;
        if let Some(table) = persistence::load::<DelayOffsetTable>(&path)? {
            delivered.version = table.data_version;
            for (level, saved) in table.offset_table {
                let offset = clamp(&parts.store, level, saved);
                if offset.as_i64() < saved {
                    warn!(level, saved, %offset, "the delay level has fewer messages than were delivered, because the log lost its end; going on at its end");
                    is_ahead = true;
                }
                delivered.offsets.insert(level, offset);
            }
        }
        let progress = Progress { now: delivered.clone(), saved: delivered, ..Progress::default() };
        let worker = Worker::new("delay");
        let carrying = Arc::new(Carrying::new("delay levels", worker.bell()));
        let delivery = Arc::new(LevelDelivery { parts, progress: Mutex::new(progress), carrying });
        let rendered = Arc::clone(&delivery);
        let file = persistence.file(path, move || json::to_vec_pretty(&rendered.progress.lock().saved.table()))?;
        if is_ahead {
            file.save_brought_back()?;
        }
        Ok(Delays { delivery, file, worker })
    }

    /// Holds the segments of what waits until it is carried on.
    pub(crate) fn keeper(&self) -> Arc<Carrying> {
        Arc::clone(&self.delivery.carrying)
    }

    /// Begins to deliver, or goes on after a stop.
    pub fn start(&self) -> io::Result<()> {
        let delivery = Arc::clone(&self.delivery);
        self.worker.start(move |bell| delivery.run(bell))
    }

    /// A message is visible in some queue. Called by whoever dispatches.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        if arrival.topic == SCHEDULE_TOPIC {
            self.worker.bell().wake_before(arrival.tags_code);
        }
    }

    /// Asks for the file to be written as far as the delivered copies are on disk, and for the rest of them to get there, so that it
    /// follows at the next call.
    pub fn save_if_changed(&self) {
        self.delivery.look_at_flush(|| ());
        if std::mem::take(&mut self.delivery.progress.lock().newly_saved) {
            self.file.request();
        }
    }

    /// Ends the thread; what is not delivered yet stays for the next start.
    pub fn stop(&self) {
        self.worker.stop();
    }

    /// After a stop for good: writes the file for the last time, as far as the copies are known to be on the disk; with `all_on_disk`
    /// that is everything that was delivered. The next one may be [opened](Self::open) then.
    pub fn close(&self, all_on_disk: bool, persistence: &Persistence) {
        if all_on_disk {
            let mut progress = self.delivery.progress.lock();
            progress.saved = progress.now.clone();
            if !progress.saved.offsets.is_empty() || self.file.path().exists() {
                drop(progress);
                self.file.request();
            }
        }
        persistence.stop_file(&self.file);
    }

    /// Levels in use with what is delivered: GET_ALL_DELAY_OFFSET.
    pub fn table(&self) -> DelayOffsetTable {
        self.delivery.progress.lock().now.table()
    }

    /// Per level in use: next offset to deliver and the end of its queue.
    pub fn progress(&self) -> Vec<(i32, QueueOffset, QueueOffset)> {
        let offsets = self.delivery.progress.lock().now.offsets.clone();
        let end = |level| {
            queue_of(level)
                .and_then(|queue| self.delivery.parts.store.queue_bounds(SCHEDULE_TOPIC, queue))
                .map(|bounds| bounds.max)
        };
        offsets.into_iter().map(|(level, offset)| (level, offset, end(level).unwrap_or_default())).collect()
    }

    /// For tests: saves what is delivered now. True if that succeeded.
    #[cfg(test)]
    pub(crate) fn save_now(&self) -> bool {
        crate::testing::wait_until("the log is not flushed", || {
            self.save_if_changed();
            let progress = self.delivery.progress.lock();
            progress.saved.offsets == progress.now.offsets
        });
        self.file.wait_saved(self.file.requested()).is_ok()
    }

    /// For tests with a clock of their own: look at the clock again.
    #[cfg(test)]
    pub(crate) fn clock_moved(&self) {
        self.worker.bell().wake();
    }

    #[cfg(test)]
    pub(crate) fn bell(&self) -> &Bell {
        self.worker.bell()
    }
}

impl DeliveryPosition {
    fn table(&self) -> DelayOffsetTable {
        DelayOffsetTable {
            data_version: self.version.clone(),
            offset_table: self.offsets.iter().map(|(level, offset)| (*level, offset.as_i64())).collect(),
        }
    }
}

/// What one look at a level found.
enum Head {
    /// Nothing waits.
    Empty,
    /// The first message is due then.
    DueAt(i64),
    /// There may be more that is due.
    More,
    /// The store took no copy; try again soon.
    Failed,
    /// The store is closed.
    Closed,
}

impl LevelDelivery {
    /// What is delivered counts as saved as far as the copies are on the disk, and the rest of them is made to get there: then `done` is
    /// called.
    fn look_at_flush(&self, done: impl FnOnce() + Send + 'static) {
        let store = &self.parts.store;
        let flushed = store.watermarks().flushed;
        let mut progress = self.progress.lock();
        if let Some(safe) = progress.after_flush.take_flushed(flushed) {
            progress.saved = safe;
            progress.newly_saved = true;
        }
        self.tell_free(&progress.saved);
        if !progress.after_flush.is_waiting() && std::mem::take(&mut progress.changed) {
            let now = progress.now.clone();
            let end = now.end;
            progress.after_flush.wait_for(end, now);
            drop(progress);
            store.when_safe(end, Want::Disk, move |_| done());
        }
    }

    /// Tells how much of the log no level needs, if `delivered` is on the disk.
    fn tell_free(&self, delivered: &DeliveryPosition) {
        // First: what comes meanwhile is behind it.
        let mut free = self.parts.store.watermarks().projected;
        for queue in self.parts.store.queue_ids(SCHEDULE_TOPIC) {
            let Some(level) = level_of(queue) else { continue };
            let bounds = self.parts.store.queue_bounds(SCHEDULE_TOPIC, queue).unwrap_or_default();
            let next = delivered.offsets.get(&level).copied().unwrap_or_default().max(bounds.min);
            if next < bounds.max {
                free = free.min(delivered.places.get(&level).copied().unwrap_or_default());
            }
        }
        self.carrying.free_up_to(free);
    }

    fn run(&self, bell: &Arc<Bell>) {
        let mut watch = Watch::new(self.parts.clock.clone(), self.parts.forward.clone());
        let mut stamps: HashMap<i32, Stamps> = HashMap::new();
        let mut failing = false;
        let levels = self.levels_to_serve();
        while bell.begins() {
            let step = watch.look();
            if let Some(step) = step {
                warn!(by_ms = step.by_ms, "the clock was set; delays go on as if it had not been");
            }
            let mut earliest: Option<i64> = None;
            let (mut more, mut failed) = (false, false);
            for level in levels.iter().copied() {
                let stamps = stamps.entry(level).or_default();
                self.look_at_stamps(level, stamps, step);
                match self.deliver_level(level, stamps, &watch, failing) {
                    Head::Empty => {}
                    Head::DueAt(due) => earliest = Some(earliest.map_or(due, |earlier| earlier.min(due))),
                    Head::More => more = true,
                    Head::Failed => failed = true,
                    Head::Closed => return,
                }
            }
            if self.carrying.wanted().is_some() {
                // A segment waits for it.
                let bell = Arc::clone(bell);
                self.look_at_flush(move || bell.wake());
            }
            self.carrying.turn_ends();
            if failing && !failed {
                info!("delayed messages are delivered again");
            }
            failing = failed;
            if failed {
                bell.pause(RETRY_PAUSE);
            } else if !more {
                let left = |due: i64| u64::try_from(due.saturating_sub(watch.now_ms())).unwrap_or(0);
                let time = earliest.map(|due| Duration::from_millis(left(due)).min(SLEEP_MAX));
                bell.sleep(earliest.unwrap_or(i64::MAX), time);
            }
        }
    }

    /// Those of `messageDelayLevel`, and those that it no longer has, for what waits in them still: nothing new comes there. Java serves
    /// only the former.
    fn levels_to_serve(&self) -> Vec<i32> {
        // Without any levels there is one all the same, see `DelayQueue::of`.
        let count = i32::try_from(self.parts.levels.count()).unwrap_or(i32::MAX).max(1);
        let queues = self.parts.store.queue_ids(SCHEDULE_TOPIC);
        let former = queues.into_iter().filter_map(level_of);
        (1..=count).chain(former.filter(|level| *level > count)).collect()
    }

    /// Moves what was stamped before a step of the clock.
    fn look_at_stamps(&self, level: i32, stamps: &mut Stamps, step: Option<Step>) {
        let Some(queue) = queue_of(level) else { return };
        let Some(bounds) = self.parts.store.queue_bounds(SCHEDULE_TOPIC, queue) else { return stamps.saw(0) };
        if let Some(step) = step {
            // Nothing new comes into a level that is no longer there.
            let delay_ms = self.known(level).map(|level| self.parts.levels.due_ms(level, 0));
            stamps.stepped(step, bounds.max.0, |offset| {
                let entry = self.parts.store.queue_entry(SCHEDULE_TOPIC, queue, QueueOffset(offset), Effort::Full);
                // One that cannot be read now counts as older than the step.
                Some(entry.ok().flatten()?.tags_code.saturating_sub(delay_ms?))
            });
        }
        stamps.saw(bounds.max.0);
    }

    /// Delivers what is due of one level, up to a turn.
    fn deliver_level(&self, level: i32, stamps: &mut Stamps, watch: &Watch, failing: bool) -> Head {
        let Some(queue) = queue_of(level) else { return Head::Empty };
        let Some(bounds) = self.parts.store.queue_bounds(SCHEDULE_TOPIC, queue) else { return Head::Empty };
        let known = self.progress.lock().now.offsets.get(&level).copied().unwrap_or_default();
        // Outside the queue: its beginning was cleaned, or it lost its end in a crash.
        let mut offset = known.clamp(bounds.min, bounds.max.max(bounds.min));
        for _ in 0..TURN {
            if offset >= bounds.max {
                return Head::Empty;
            }
            let entry = match missing::look_up_entry(&self.parts.store, WHAT, SCHEDULE_TOPIC, queue, offset) {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    offset = offset.next();
                    self.advance(level, offset, None, None);
                    continue;
                }
                Err(error) => {
                    if !failing {
                        error!(level, %offset, %error, "delayed messages of this level cannot be delivered; trying again");
                    }
                    return Head::Failed;
                }
            };
            let now = watch.now_ms();
            let due = stamps.due_ms(offset.0, entry.tags_code, now, || self.latest(level, &entry, now));
            let goes = self.carrying.wanted().is_some_and(|end| entry.physical < end);
            if due > now && !goes {
                self.saw(level, &entry);
                return Head::DueAt(due);
            }
            let stored = match if due <= now { self.deliver(&entry) } else { self.carry(&entry, due) } {
                // A disk that counts as full takes no delivery, and has room again only when this segment can go.
                // Not due at once as a timer either, or it would be delivered as it comes, before others can be carried on.
                Err(AppendError::DiskFull { .. }) if due <= now && goes => {
                    self.carry(&entry, self.parts.clock.now_ms().saturating_add(delivery::WAIT_MS))
                }
                stored => stored,
            };
            match stored {
                Ok(end) => {
                    offset = offset.next();
                    self.advance(level, offset, Some(&entry), end);
                }
                Err(AppendError::Closed) => return Head::Closed,
                // It is asked for again.
                Err(_) if due > now => return Head::DueAt(due),
                Err(error) => {
                    if !failing {
                        warn!(level, %offset, %error, "a delayed message cannot be delivered now; trying again");
                    }
                    return Head::Failed;
                }
            }
        }
        Head::More
    }

    /// What an entry would say if it had been stored now. A level that is no longer there has the delay that it had when the message was
    /// stored.
    fn latest(&self, level: i32, entry: &QueueEntry, now: i64) -> i64 {
        if let Some(level) = self.known(level) {
            return self.parts.levels.due_ms(level, now);
        }
        let bytes = self.parts.store.message_at(entry.physical, Effort::Full).ok().flatten();
        let stored =
            bytes.as_deref().and_then(|bytes| Record::parse(bytes).ok()).map(|record| record.store_timestamp());
        let delay = |stored| entry.tags_code.saturating_sub(stored).max(0);
        stored.map_or(entry.tags_code, |stored| now.saturating_add(delay(stored)))
    }

    /// The number of a level of `messageDelayLevel`; without any there is one all the same.
    fn known(&self, level: i32) -> Option<usize> {
        usize::try_from(level).ok().filter(|level| *level <= self.parts.levels.count().max(1))
    }

    /// Puts the message into its own topic and gives the end of the copy; `None` when there is nothing that could be delivered, now or
    /// ever. It stays where it is, so who reads the log can look after it.
    fn deliver(&self, entry: &QueueEntry) -> Result<Option<PhysicalOffset>, AppendError> {
        self.store_again(entry, |record, copy| {
            delivery::deliver(
                record,
                copy,
                self.parts.clock.now_ms(),
                (&self.parts.store, &self.parts.topics, &self.parts.statistics),
            )
        })
    }

    /// Puts it among the timers, before its segment goes. Gives what [`deliver`](Self::deliver) does.
    fn carry(&self, entry: &QueueEntry, due_ms: i64) -> Result<Option<PhysicalOffset>, AppendError> {
        let stored = self.store_again(entry, |record, copy| delivery::carry(record, copy, due_ms, &self.parts.store));
        stored.inspect_err(|error| self.carrying.failed(error))
    }

    /// Has `store` store a message again, for its own topic.
    fn store_again(
        &self,
        entry: &QueueEntry,
        store: impl FnOnce(&Record<'_>, &NewMessage<'_>) -> Result<AppendedMessage, AppendError>,
    ) -> Result<Option<PhysicalOffset>, AppendError> {
        let bytes = missing::look_up(&self.parts.store, WHAT, entry.physical).map_err(missing::not_now)?;
        // Looked up by its place, it can be read.
        let Some(record) = bytes.as_deref().and_then(|bytes| Record::parse(bytes).ok()) else { return Ok(None) };
        let text = record.properties();
        let (topic, queue) = match destination::own_place(&self.parts.topics, &text) {
            Ok(place) => place,
            Err(error) => {
                error!(physical_offset = %entry.physical, %error, "a delayed message cannot be delivered and is left out");
                return Ok(None);
            }
        };
        match store(&record, &NewMessage::copy_of(&record, topic, queue, &text)) {
            Err(error) if error.is_of_the_message() => {
                error!(physical_offset = %entry.physical, topic, %error, "a delayed message cannot be delivered and is left out");
                Ok(None)
            }
            stored => Ok(Some(stored?.end)),
        }
    }

    /// The next message of a level, which is not due yet.
    fn saw(&self, level: i32, entry: &QueueEntry) {
        let Progress { now, saved, .. } = &mut *self.progress.lock();
        now.places.insert(level, entry.physical);
        if saved.offsets.get(&level) == now.offsets.get(&level) {
            saved.places.insert(level, entry.physical);
        }
    }

    /// `entry`, if there was one before `offset`, is dealt with; `end` is that of what was stored for it.
    fn advance(&self, level: i32, offset: QueueOffset, entry: Option<&QueueEntry>, end: Option<PhysicalOffset>) {
        let mut progress = self.progress.lock();
        progress.now.offsets.insert(level, offset);
        if let Some(entry) = entry {
            progress.now.places.insert(level, entry.physical);
        }
        if let Some(end) = end {
            progress.now.end = end;
        }
        progress.changed = true;
        progress.updates += 1;
        if progress.updates.is_multiple_of(VERSION_STEP) {
            let now = self.parts.clock.now_ms();
            progress.now.version.next(now);
        }
    }
}

fn level_of(queue: QueueId) -> Option<i32> {
    i32::try_from(queue.0).ok()?.checked_add(1)
}

fn queue_of(level: i32) -> Option<QueueId> {
    u32::try_from(level.checked_sub(1)?).ok().map(QueueId)
}

/// A saved offset, brought into what the queue holds.
fn clamp(store: &Store, level: i32, offset: i64) -> QueueOffset {
    let offset = QueueOffset::try_from(offset).unwrap_or_default();
    match queue_of(level).and_then(|queue| store.queue_bounds(SCHEDULE_TOPIC, queue)) {
        Some(bounds) => offset.clamp(bounds.min, bounds.max.max(bounds.min)),
        None => QueueOffset::default(),
    }
}

#[cfg(test)]
#[path = "delay_test.rs"]
mod tests;
