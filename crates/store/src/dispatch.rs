//! Follows the commit log: has each record projected into its consume queue and the index, then calls the arrival listeners.
//!
//! Done by the thread that has appended, right afterwards ([`Dispatcher::catch_up`]), or by a thread of its own; by one at a time.
//! It never passes what is visible (`Positions::visible`), so a consumer cannot see what a crash could take back.
//! Java: ReputMessageService and the commit log dispatchers.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::Duration;

use ferromq_protocol::message::Record;
use ferromq_protocol::{QueueId, QueueOffset};
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::behind::{Behind, Target};
use crate::consume_queue::{ConsumeQueue, Put};
use crate::disk::is_failed_sync;
use crate::entry_properties::EntryProperties;
use crate::health::{Health, Shortage};
use crate::looking::{Look, ReadError};
use crate::mapped_file::LogFile;
use crate::projection::Projection;
use crate::queue_file::QueueEntry;
use crate::segments::{Segments, look_at_item};
use crate::signal::Signal;
use crate::walk::LogItem;
use crate::watermarks::Positions;

/// Records projected before the work lock is given up for a moment.
const BATCH_RECORDS: usize = 1_000;
/// How often that may be done on a thread that has other work too, before the dispatch thread goes on.
const BATCHES_ON_CALLER: usize = 2;
/// After some work, more is waited for so long before the thread parks: under load appends then need not wake it.
const NAP: Duration = Duration::from_micros(50);
/// So much of the commit log is read at once for queues that are behind.
const LOOK_AHEAD: usize = 256 * 1024;
/// While something is behind, looked at again so often.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A message that consumers can see now.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub topic: &'a str,
    pub queue_id: QueueId,
    /// Of the message itself; the queue's max is one more.
    pub queue_offset: QueueOffset,
    pub tags_code: i64,
    pub store_timestamp: i64,
    /// The property string.
    pub properties: &'a str,
}

/// A part of a segment.
type Part = (Arc<LogFile>, Range<usize>);

/// Called for each message that consumers can see from now on.
type ArrivalListener = Box<dyn Fn(&Arrival<'_>) + Send + Sync>;

pub struct Dispatcher {
    projection: Arc<Projection>,
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    health: Arc<Health>,
    signal: Arc<Signal>,
    stop: AtomicBool,
    /// How often the log was truncated.
    cuts: AtomicU64,
    listeners: RwLock<Vec<ArrivalListener>>,
    /// Held while records are projected; and by whoever changes what is projected.
    work: Mutex<Work>,
}

/// What the work lock guards.
#[derive(Debug, Default)]
pub struct Work {
    /// Topics deleted, and where the log ended then: older records get no queue entry any more.
    deleted: HashMap<String, u64>,
    /// The queue of the last record.
    known: Option<Arc<ConsumeQueue>>,
    /// What could not take its entries.
    behind: Behind,
}

impl Work {
    /// Whether it counts already that the log says at `physical` that a topic was deleted.
    pub fn knows_deletion(&self, topic: &str, physical: u64) -> bool {
        self.deleted.get(topic).is_some_and(|at| physical <= *at)
    }

    /// Whether the queues that a record of `topic` was for are gone.
    pub fn is_deleted(&self, topic: &str, physical: u64) -> bool {
        is_deleted(&self.deleted, topic, physical)
    }
}

fn is_deleted(deleted: &HashMap<String, u64>, topic: &str, physical: u64) -> bool {
    !deleted.is_empty() && deleted.get(topic).is_some_and(|end| physical < *end)
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("listeners", &self.listeners.read().len()).finish()
    }
}

impl Dispatcher {
    pub fn new(
        projection: Arc<Projection>,
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        health: Arc<Health>,
        signal: Arc<Signal>,
    ) -> Dispatcher {
        Dispatcher {
            projection,
            segments,
            positions,
            health,
            signal,
            stop: AtomicBool::new(false),
            cuts: AtomicU64::new(0),
            listeners: RwLock::default(),
            work: Mutex::default(),
        }
    }

    pub fn listen(&self, listener: ArrivalListener) {
        self.listeners.write().push(listener);
    }

    /// Keeps the dispatch still for as long as the guard lives.
    pub fn hold(&self) -> MutexGuard<'_, Work> {
        self.work.lock()
    }

    /// Does something short with the dispatch held.
    pub fn held<T>(&self, act: impl FnOnce() -> T) -> T {
        let work = self.work.lock();
        let outcome = act();
        drop(work);
        // A thread that found the lock taken left its messages to the holder.
        self.signal.wake();
        outcome
    }

    /// Records before `end` are of a topic that is no more: its queues are retired, or begin anew.
    pub fn topic_deleted(&self, work: &mut Work, topic: &str, end: u64) {
        work.deleted.insert(topic.to_owned(), end);
        work.known = None;
        work.behind.forget_retired();
        self.publish(&work.behind);
    }

    /// From where on the log is dispatched again when it comes to end at `end`: there, or where something is missing.
    pub fn goes_back_to(&self, work: &Work, end: u64) -> u64 {
        let missing = work.behind.first().map_or(end, |(from, _)| from);
        self.positions.dispatched().min(missing).min(end)
    }

    /// The log ends at `end` now, behind a record of that store time.
    pub fn log_truncated(&self, work: &mut Work, end: u64, timestamp: i64) {
        let timestamp = work.behind.first().map_or(timestamp, |(_, missing)| missing.min(timestamp));
        self.positions.dispatched_timestamp.fetch_min(timestamp, Ordering::AcqRel);
        self.positions.dispatched.store(self.goes_back_to(work, end), Ordering::Release);
        work.behind.forget_all();
        // What is left of a deleted topic is not dispatched yet, and gets no queue; what comes in the place of what went does.
        work.deleted.values_mut().for_each(|deleted_at| *deleted_at = end.min(*deleted_at));
        work.known = None;
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.publish(&work.behind);
    }

    /// The log is empty now and begins elsewhere; its queues have gone.
    pub fn log_restarted(&self, work: &mut Work) {
        *work = Work { behind: std::mem::take(&mut work.behind), ..Work::default() };
        work.behind.forget_all();
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.publish(&work.behind);
    }

    /// Bytes that consumers may see but do not yet, all of them.
    pub fn behind(&self) -> u64 {
        self.positions.visible().saturating_sub(self.positions.projected())
    }

    fn is_due(&self) -> bool {
        self.positions.visible() > self.positions.dispatched()
    }

    /// Projects what consumers may see by now, on the calling thread. Does nothing while another thread is at it: that
    /// one looks again after it has given the lock up, so nothing stays behind. What is much is left to the dispatch
    /// thread.
    pub fn catch_up(&self) {
        for _ in 0..BATCHES_ON_CALLER {
            // Whoever holds the lock sees what was published before this, or this sees the lock free.
            fence(Ordering::SeqCst);
            if !self.is_due() {
                return;
            }
            let Some(work) = self.work.try_lock() else { return };
            if !self.step(work) {
                break;
            }
        }
        self.signal.wake();
    }

    /// The thread.
    pub fn run(&self) {
        self.signal.attach();
        // The visible end at which nothing more could be done, and how often the log was truncated then: it may come there again.
        let mut seen = (0, 0);
        let mut worked = false;
        while !self.stop.load(Ordering::Acquire) {
            fence(Ordering::SeqCst);
            let missing = self.positions.is_missing();
            let makes_up = missing && self.make_up();
            let (cuts, visible) = (self.cuts.load(Ordering::Acquire), self.positions.visible());
            if (visible, cuts) != seen && visible > self.positions.dispatched() {
                if self.step(self.work.lock()) {
                    worked = true;
                } else {
                    seen = (visible, cuts);
                }
            } else if makes_up {
                worked = true;
            } else if worked {
                worked = false;
                self.signal.nap(NAP);
            } else {
                self.signal.sleep_unless(missing.then_some(RETRY_PAUSE), || {
                    let (cuts, visible) = (self.cuts.load(Ordering::Acquire), self.positions.visible());
                    self.stop.load(Ordering::Acquire)
                        || ((visible, cuts) != seen && visible > self.positions.dispatched())
                        || (!missing && self.positions.is_missing())
                });
            }
        }
    }

    /// Projects a bounded number of records. False when there is something and none of it could be projected.
    fn step(&self, mut work: MutexGuard<'_, Work>) -> bool {
        // Under the lock: what was read before it, another thread may have passed.
        let (mut at, limit) = (self.positions.dispatched(), self.positions.visible());
        if at >= limit {
            return true;
        }
        let Some(file) = self.segments.find(at) else {
            // Segments were removed by hand, or the next one has not been begun.
            let first = self.segments.first().map_or(at, |first| first.start());
            if first > at {
                self.positions.dispatched.store(first, Ordering::Release);
            }
            return first > at;
        };
        // Inside the file, whose length is a usize.
        let from = (at - file.start()) as usize;
        // Up to where appends have come, which is where a record ends. What is visible may end inside one, of which what is there
        // would look damaged if its sender made it look like the head of another.
        let Some(bytes) = file.slice(from..file.written()) else { return false };
        let listeners = self.listeners.read();
        let start = at;
        for _ in 0..BATCH_RECORDS {
            if at >= limit {
                break;
            }
            // Both inside the file, whose length is a usize.
            let room = (file.end() - at) as usize;
            let item = LogItem::at(&bytes[(at - start) as usize..], at, room);
            let len = match &item {
                LogItem::Record(record) => record.record_len(),
                LogItem::End => room,
                // Appends, those of a copy too, are of whole records: this is damage at the very end, of which more may come.
                LogItem::Part => break,
                LogItem::Damage { len, .. } => *len,
            };
            let end = at + len as u64;
            if end > limit {
                break;
            }
            match item {
                LogItem::Record(record) => self.project(&mut work, &record, at, &listeners),
                LogItem::Damage { len, error } => {
                    if let Err(error) = file.check() {
                        self.health.poison(format!("the commit log has lost what was written: {error}"));
                        return false;
                    }
                    tracing::error!(%error, at, len, "no record that can be read here; it is passed over");
                }
                LogItem::End | LogItem::Part => {}
            }
            at = end;
            self.positions.dispatched.store(at, Ordering::Release);
            if at >= file.end() {
                break;
            }
        }
        if !work.deleted.is_empty() {
            // A truncation of the log may have it dispatched again from what is missing on.
            let from = self.positions.projected();
            work.deleted.retain(|_, deleted_at| *deleted_at > from);
        }
        at > start
    }

    fn project(&self, work: &mut Work, record: &Record<'_>, physical: u64, listeners: &[ArrivalListener]) {
        let text = record.properties();
        let properties = EntryProperties::of(&text);
        let Work { deleted, known, behind } = work;
        let queue =
            if is_deleted(deleted, record.topic(), physical) { None } else { self.projection.queue_of(record, known) };
        let mut put = None;
        // What is behind gets this record later, after those that it lacks already.
        if let Some(queue) = queue.filter(|queue| !queue.is_behind()) {
            match self.projection.put(queue, record, &properties, physical) {
                Ok(done) => put = Some(done),
                Err(error) => self.set_aside(behind, Target::Queue(Arc::clone(queue)), record, physical, &error),
            }
        }
        if !behind.has_index()
            && let Err(error) = self.projection.put_index(record, &properties, physical)
        {
            self.set_aside(behind, Target::Index, record, physical, &error);
        }
        self.positions.dispatched_timestamp.store(record.store_timestamp(), Ordering::Release);
        if let Some((put, entry)) = put {
            notify(record, &text, put, &entry, listeners);
        }
    }

    fn set_aside(&self, behind: &mut Behind, target: Target, record: &Record<'_>, physical: u64, error: &io::Error) {
        if is_failed_sync(error) {
            self.health.poison(format!("queues or index could not be synced: {error}"));
        }
        behind.set_aside(target, physical, record.store_timestamp(), error);
        self.publish(behind);
        self.signal.wake();
    }

    /// Publishes what is missing: to the positions, and to the store's health.
    fn publish(&self, behind: &Behind) {
        self.positions.set_missing(behind.first());
        match behind.no_room() {
            Some(cause) => {
                let reason = format!("queues or index cannot be written: {cause}");
                self.health.disk_full(Shortage::Dispatch, self.projection.queues.dir(), reason);
            }
            None => self.health.disk_has_room(Shortage::Dispatch),
        }
    }

    /// Gives those that are behind what they lack, from a bounded part of the log. True when there is more to do at once.
    fn make_up(&self) -> bool {
        let Some(at) = self.work.lock().behind.pass_at() else { return false };
        // What is old has to be read from the disk, maybe, for which nobody else should wait.
        let looked_at = self.look_ahead(at);
        let mut work = self.work.lock();
        if work.behind.pass_at() != Some(at) {
            // The log was made shorter meanwhile.
            return true;
        }
        let goes_on = match looked_at {
            Ok(part) => self.make_up_from(&mut work, at, part),
            Err(error) => {
                tracing::error!(%error, "what queues or index lack cannot be read from the log; trying again");
                work.behind.break_off();
                false
            }
        };
        self.publish(&work.behind);
        goes_on
    }

    /// A part of the log from `at` on, all of it dispatched and brought into memory: a whole record at least, if one begins there.
    fn look_ahead(&self, at: u64) -> Result<Option<Part>, ReadError> {
        let Some(file) = self.segments.find(at) else { return Ok(None) };
        // Inside the file, whose length is a usize.
        let from = (at - file.start()) as usize;
        let to = (self.positions.dispatched().min(file.end()).max(at) - file.start()) as usize;
        let Some(rest) = file.slice(from..to) else { return Ok(None) };
        let look = Look::reading_on(&*self.projection.disk);
        let len = look_at_item(&file, &look, from, &rest, LOOK_AHEAD)?;
        drop(rest);
        Ok((len > 0).then_some((file, from..from + len)))
    }

    fn make_up_from(&self, work: &mut Work, from: u64, part: Option<Part>) -> bool {
        let end = self.positions.dispatched();
        let Some((file, part)) = part else {
            // Segments were removed by hand: what was in them is missing for good.
            let first = self.segments.first().map_or(end, |first| first.start());
            return work.behind.pass_came_to(if first > from { first } else { end }, end);
        };
        // It was found without the lock, and the log may end sooner in its place by now, with something else behind that.
        let is_there = self.segments.find(from).is_some_and(|there| Arc::ptr_eq(&there, &file));
        let Some(bytes) = file.slice(part).filter(|_| is_there) else { return true };
        let listeners = self.listeners.read();
        let mut at = from;
        for _ in 0..BATCH_RECORDS {
            // Inside the file, whose length is a usize.
            let (rest, room) = (&bytes[(at - from) as usize..], (file.end() - at) as usize);
            if rest.is_empty() {
                break;
            }
            match LogItem::at(rest, at, room) {
                LogItem::Record(record) => {
                    let end = at + record.record_len() as u64;
                    self.make_up_for(work, &record, at, end, &listeners);
                    at = end;
                }
                LogItem::End => at = file.end(),
                // There is more of it, and it is looked at then.
                LogItem::Part if at > from => break,
                LogItem::Part => at += rest.len() as u64,
                LogItem::Damage { len, .. } => at += len as u64,
            }
            if at >= file.end() || !work.behind.pass_came_to(at, end) {
                break;
            }
        }
        work.behind.pass_came_to(at, end)
    }

    fn make_up_for(
        &self,
        work: &mut Work,
        record: &Record<'_>,
        physical: u64,
        end: u64,
        listeners: &[ArrivalListener],
    ) {
        let text = record.properties();
        let properties = EntryProperties::of(&text);
        let visible = record.sys_flag().is_visible();
        let queue = visible.then(|| self.projection.queues.find(record.topic(), record.queue_id())).flatten();
        if let Some(queue) = queue.filter(|queue| queue.is_behind()) {
            let target = Target::Queue(Arc::clone(&queue));
            if work.behind.wants(&target, physical) {
                let put = self.projection.put(&queue, record, &properties, physical);
                work.behind.tried(&target, physical, end, put.as_ref().map(|_| ()));
                if let Ok((put, entry)) = put {
                    notify(record, &text, put, &entry, listeners);
                }
            }
        }
        if work.behind.wants(&Target::Index, physical) {
            let put = self.projection.put_index(record, &properties, physical);
            work.behind.tried(&Target::Index, physical, end, put.as_ref().map(|_| ()));
        }
    }

    /// Tells the thread to end after the records it is at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
    }
}

/// Calls the arrival listeners for a record that is in its queue now.
fn notify(record: &Record<'_>, text: &str, put: Put, entry: &QueueEntry, listeners: &[ArrivalListener]) {
    match put {
        Put::Gap => {
            tracing::warn!(topic = record.topic(), queue = %record.queue_id(), offset = %record.queue_offset(), "queue entries before this one are missing");
        }
        Put::Stale | Put::Impossible => return,
        Put::Added | Put::Known => {}
    }
    if listeners.is_empty() {
        return;
    }
    let arrival = Arrival {
        topic: record.topic(),
        queue_id: record.queue_id(),
        queue_offset: record.queue_offset(),
        tags_code: entry.tags_code,
        store_timestamp: record.store_timestamp(),
        properties: text,
    };
    for listener in listeners {
        // It would panic again at every next try, and nothing more would ever be dispatched.
        if catch_unwind(AssertUnwindSafe(|| listener(&arrival))).is_err() {
            tracing::error!(topic = arrival.topic, queue = %arrival.queue_id, offset = %arrival.queue_offset, "an arrival listener has panicked");
        }
    }
}
