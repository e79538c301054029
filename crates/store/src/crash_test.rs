//! A store whose machine stops at any moment, on a disk that loses what was not synced.
//!
//! A [`Run`] does what a broker does to a store, from a seed, and writes down in a [`History`] what was promised. At a call to the disk the
//! world stops; what a power cut may leave then is opened again and held against what was promised by then: [`AfterCrash::check`]. Nor may
//! `storeCheck` call any of it a fault, before it is opened or after.
//!
//! | what | how much | more |
//! |---|---|---|
//! | a crash at every call of a workload, each with some outcomes | `CUTS` outcomes | `FERROMQ_CRASH_CUTS` |
//! | random seeds: crash after crash, kills and calls that fail among them | `SEEDS` | `FERROMQ_CRASH_SEEDS`, from `FERROMQ_CRASH_FIRST` on |
//! | the same two with the write pool, where a kill takes what was not committed | `POOL_STEPS`, `POOL_SEEDS` | the same |
//! | bugs planted in the disk | `SEEDS_PER_BUG` seeds at most for each | |
//! | one of them again | | `FERROMQ_CRASH_SEED`, `FERROMQ_CRASH_AT` |

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use ferromq_protocol::message::{Record, SysFlag};
use ferromq_protocol::topics::TIMER_TOPIC as TIMERS;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};

use super::*;
use crate::check::{CheckConfig, CheckError, Finding, check};
use crate::disk::{Disk, LocalDisk, PAGE, is_failed_sync};
use crate::retention::{Hours, Progress, RetentionRules};
use crate::scripted_disk::{Bug, Dice, Fate, Fault, Image, Part, ScriptedDisk, tree_of, write_tree};
use crate::table_change::deleted_topic;
use crate::testing::{PATIENCE, START_MS, message, pool_of, query_bodies, read_bodies};
use crate::timer_index::{Timer, TimerIndex};
use crate::walk::record_at;
use crate::{Clock, WritePoolConfig};

/// Outcomes of each crash of the workload that is crashed everywhere.
const CUTS: usize = 2;
/// Steps of that workload.
const STEPS: usize = 300;
const SEEDS: u64 = 1500;
const POOL_STEPS: usize = 150;
const POOL_SEEDS: u64 = 750;
/// Of the write pool, as long as a page.
const BUFFERS: usize = 64;
/// After so many it is enough.
const FAILURES_MAX: usize = 10;

const TOPICS: [&str; 2] = ["A", "B"];
const QUEUES: u32 = 2;
const SEGMENT_LEN: u64 = 8192;
const INDEX_SLOTS: u32 = 31;
const INDEX_ENTRIES: u32 = 64;

/// What was, or is being, put into the log.
#[derive(Clone, PartialEq)]
enum Put {
    Message {
        topic: &'static str,
        queue: u32,
        /// `None` for a half.
        offset: Option<u64>,
        physical: u64,
        body: Vec<u8>,
    },
    Deletion {
        topic: String,
    },
}

impl std::fmt::Debug for Put {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Put::Message { topic, queue, offset, physical, body } => {
                write!(f, "{topic}/{queue} {offset:?} at {physical}: {} bytes, {}", body.len(), key(body))
            }
            Put::Deletion { topic } => write!(f, "deletion of {topic}"),
        }
    }
}

/// Of a queue: its next offset, and the messages that the log still has.
type Seen<'a> = (u64, Vec<(u64, &'a [u8])>);

#[derive(Debug)]
struct Known {
    put: Put,
    /// Of its record in the log.
    end: u64,
}

/// What was promised.
#[derive(Clone, Debug, Default)]
struct History {
    /// In log order, those too that are gone from it.
    puts: Vec<Arc<Known>>,
    /// May be in the log: the store has not answered yet, or it has refused in doubt.
    pending: Vec<Put>,
    /// What ends by here in the log is there after a power cut.
    safe: u64,
    /// The log begins there; a retention that goes on may have got up to the other.
    min: u64,
    min_at_most: u64,
    /// Queue offsets of timers that were delivered, and those of which a checkpoint that was saved says so.
    delivered: BTreeSet<u64>,
    delivered_for_good: BTreeSet<u64>,
    /// Makes bodies differ, those of messages that are lost too.
    count: u32,
}

impl History {
    /// Of a moment between `before` and now, while other threads went on: what may be there by now, and only what was promised before.
    fn since(&self, before: History) -> History {
        History {
            safe: before.safe,
            min: before.min,
            min_at_most: self.min_at_most.max(self.min),
            delivered_for_good: before.delivered_for_good,
            ..self.clone()
        }
    }

    fn end(&self) -> u64 {
        self.puts.last().map_or(0, |last| last.end)
    }

    /// Of each queue that there is: its next offset, and the messages that the log still has.
    fn queues(&self) -> BTreeMap<(&'static str, u32), Seen<'_>> {
        let mut queues = BTreeMap::<_, (u64, Vec<_>)>::new();
        for known in &self.puts {
            match &known.put {
                Put::Message { topic, queue, offset: Some(offset), body, .. } => {
                    let (next, there) = queues.entry((*topic, *queue)).or_default();
                    assert_eq!(*offset, *next, "a gap, or an offset given twice, in {topic}/{queue}");
                    *next += 1;
                    if known.end > self.min {
                        there.push((*offset, body.as_slice()));
                    }
                }
                Put::Message { .. } => {}
                Put::Deletion { topic } => queues.retain(|(of, _), _| of != topic),
            }
        }
        queues
    }

    fn next(&self, topic: &'static str, queue: u32) -> u64 {
        self.queues().get(&(topic, queue)).map_or(0, |(next, _)| *next)
    }
}

/// The moment at which the world stopped.
#[derive(Clone)]
struct Moment {
    call: String,
    image: Image,
    history: History,
    now_ms: i64,
    power_losses: usize,
    /// A call had failed.
    has_failed: bool,
}

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
struct Mode {
    sync: bool,
    /// With the write pool.
    pool: bool,
    bug: Option<Bug>,
}

/// Where a store is.
struct Place {
    dir: tempfile::TempDir,
    now: Arc<AtomicI64>,
    disk: Arc<ScriptedDisk>,
    mode: Mode,
}

impl Place {
    fn new(mode: Mode, now_ms: i64, power_losses: usize) -> Place {
        let disk = Arc::new(ScriptedDisk::new(mode.bug, power_losses));
        Place { dir: tempfile::tempdir_in(dir_in_memory()).unwrap(), now: Arc::new(AtomicI64::new(now_ms)), disk, mode }
    }

    /// All that is on the disk.
    fn disk_root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn root(&self) -> PathBuf {
        self.disk_root().join("store")
    }

    fn timers(&self) -> PathBuf {
        self.root().join("timers")
    }

    fn check_config(root: PathBuf) -> CheckConfig {
        CheckConfig { index_shape: Some((INDEX_SLOTS, INDEX_ENTRIES)), ..CheckConfig::at(root) }
    }

    /// Nothing gets to the disk by itself: steps decide.
    fn config(&self) -> StoreConfig {
        let never = Duration::from_secs(3600);
        let flush = if self.mode.sync {
            FlushMode::Sync { timeout: PATIENCE }
        } else {
            FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never }
        };
        let now = Arc::clone(&self.now);
        StoreConfig {
            segment_len: SEGMENT_LEN,
            queue_file_entries: 16,
            index_slots: INDEX_SLOTS,
            index_entries: INDEX_ENTRIES,
            message_len_max: 4096,
            flush,
            write_pool: self.mode.pool.then(|| WritePoolConfig {
                commit_interval: never,
                commit_thorough_interval: never,
                ..pool_of(BUFFERS, PAGE)
            }),
            queue_flush_interval: never,
            queue_flush_thorough_interval: never,
            retention: RetentionRules {
                hours: Hours::default(),
                segment_pause: Duration::ZERO,
                ..RetentionRules::default()
            },
            clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
            disk: Arc::clone(&self.disk) as Arc<dyn Disk>,
            ..StoreConfig::at(self.root())
        }
    }

    fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }
}

/// Files that many stores are made of one after the other need no device.
fn dir_in_memory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}

/// A store that is being used.
struct Run {
    place: Place,
    dice: Dice,
    history: Arc<Mutex<History>>,
    store: Option<Store>,
    timers: Option<TimerIndex>,
    /// What the thread of the retention knows.
    retention: Progress,
}

impl Run {
    fn new(place: Place, mut history: History, seed: u64) -> Run {
        history.count += 1000;
        Run {
            place,
            dice: Dice::new(seed),
            history: Arc::new(Mutex::new(history)),
            store: None,
            timers: None,
            retention: Progress::default(),
        }
    }

    /// False if the disk has failed, as it was told to. Without its timers no broker starts.
    fn open(&mut self) -> bool {
        let place = &self.place;
        self.store = place.may_fail(Store::open(place.config()));
        let Some(store) = &self.store else { return false };
        self.retention = Progress::default();
        let timers = TimerIndex::open(Arc::clone(&place.disk) as Arc<dyn Disk>, place.timers(), START_MS);
        self.timers = place.may_fail(timers);
        if let Some(timers) = &mut self.timers {
            let end = store.queue_bounds(TIMERS, QueueId(0)).map_or(0, |bounds| bounds.max.0);
            if place.may_fail(timers.queue_ends(QueueOffset(end))).is_none() {
                self.timers = None;
            }
        }
        if self.timers.is_none() {
            self.store = None;
        }
        self.timers.is_some()
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// Whether anything can still be done.
    fn goes_on(&self) -> bool {
        !self.place.disk.is_dead() && self.store.as_ref().is_some_and(|store| store.health.poison_reason().is_none())
    }

    /// Until all that the store does by itself is done.
    fn settle(&self) {
        let store = self.store();
        crate::testing::wait_until(|| {
            let marks = store.watermarks();
            store.allocator.is_idle() && marks.projected.0 >= self.last_whole(marks.confirmed.0)
                || !self.goes_on()
                || store.check_writable().is_err()
        });
    }

    /// Where the last record ends that is wholly before `end`: a commit may end in the middle of one.
    fn last_whole(&self, end: u64) -> u64 {
        if !self.place.mode.pool {
            return end;
        }
        self.history.lock().puts.iter().rev().map(|known| known.end).find(|known| *known <= end).unwrap_or(0)
    }

    fn step(&mut self) {
        self.place.now.fetch_add(90, Ordering::SeqCst);
        match self.dice.below(100) {
            0..36 => self.append(1),
            36..48 => {
                let count = 1 + self.dice.below(5);
                self.append(count);
            }
            48..52 => self.half(),
            52..62 => self.timer(),
            62..68 => self.enter_timers(),
            68..71 => self.deliver_timers(),
            71..76 => self.save_timers(),
            76..80 => drop(self.place.may_fail(self.store().flusher.flush())),
            80..87 => self.upkeep(),
            87..90 => {
                let store = self.store();
                let done = store.flusher.flush_whole_chunks().and_then(|()| store.checkpoint.save(&*self.place.disk));
                self.upkeep_ends(done);
            }
            90..94 => self.retain(),
            94..96 => self.delete(),
            96..98 => self.read(),
            _ => self.close(),
        }
        if self.store.is_some() {
            self.commit();
            self.settle();
            self.note_flushed();
        }
    }

    /// With the write pool: now and then it gets to the log's files, or whole pages of it.
    fn commit(&mut self) {
        if self.place.mode.pool && !self.dice.one_in(3) {
            let all = self.dice.one_in(2);
            let store = self.store();
            let done = store.committer.as_ref().map(|committer| committer.commit_as(all)).unwrap();
            self.place.may_fail(done);
            store.dispatch_signal.wake();
        }
    }

    fn note_flushed(&self) {
        let marks = self.store().watermarks();
        assert!(marks.projected <= marks.committed && marks.flushed <= marks.committed, "{marks:?}");
        let mut history = self.history.lock();
        history.safe = history.safe.max(marks.flushed.0);
    }

    /// How far the log outlives the process.
    fn committed(&self) -> u64 {
        match &self.store {
            _ if !self.place.mode.pool => self.history.lock().end(),
            Some(store) => store.watermarks().committed.0,
            None => 0,
        }
    }

    fn body(&mut self, len: usize) -> Vec<u8> {
        let mut history = self.history.lock();
        history.count += 1;
        // An acknowledgement that does not wait for the disk is not for these: see `AfterCrash::by_kill`.
        let ends_with_zero = self.place.mode.sync && self.dice.one_in(8);
        let mut body = vec![u8::from(ends_with_zero)];
        body.resize(1 + len, u8::try_from(len % 251).unwrap());
        body.extend(history.count.to_be_bytes());
        body
    }

    fn append(&mut self, count: usize) {
        let topic = TOPICS[self.dice.below(TOPICS.len())];
        let queue = u32::try_from(self.dice.below(QUEUES as usize)).unwrap();
        let len_max = if count == 1 { 900 } else { 300 };
        let bodies: Vec<_> = (0..count)
            .map(|_| {
                let len = self.dice.below(len_max);
                self.body(len)
            })
            .collect();
        self.put(topic, queue, bodies, 0);
    }

    fn half(&mut self) {
        let body = self.body(20);
        self.put(TOPICS[0], 0, vec![body], SysFlag::TRANSACTION_PREPARED);
    }

    fn timer(&mut self) {
        // Some in the past, most soon, few far away.
        let far = [4000, 4000, 600_000, 86_400_000][self.dice.below(4)];
        let due = self.place.now_ms() - 1000 + i64::try_from(self.dice.below(far)).unwrap();
        let mut body = due.to_be_bytes().to_vec();
        body.extend(self.body(10));
        self.put(TIMERS, 0, vec![body], 0);
    }

    fn put(&mut self, topic: &'static str, queue: u32, bodies: Vec<Vec<u8>>, sys_flag: i32) {
        let visible = sys_flag == 0;
        let next = self.history.lock().next(topic, queue);
        let texts: Vec<_> = bodies.iter().map(|body| properties(topic, body)).collect();
        let messages: Vec<_> = bodies
            .iter()
            .zip(&texts)
            .map(|(body, text)| {
                let mut message = message(topic, queue, body, text);
                message.sys_flag = SysFlag(sys_flag);
                message
            })
            .collect();
        let put = |at: usize, physical| Put::Message {
            topic,
            queue,
            offset: visible.then_some(next + at as u64),
            physical,
            body: bodies[at].clone(),
        };
        self.history.lock().pending = (0..bodies.len()).map(|at| put(at, 0)).collect();
        let store = self.store.as_ref().unwrap();
        let round = store.round();
        let appended = match &messages[..] {
            [one] => round.append(one).map(|placed| (vec![placed.physical_offset], placed.queue_offset, placed.end)),
            _ => round.append_batch(&messages).map(|placed| (placed.physical_offsets, placed.queue_offset, placed.end)),
        };
        let Some((places, offset, end)) = self.place.may_fail(appended) else {
            // Refused is refused, and not only in doubt.
            self.history.lock().pending.clear();
            return;
        };
        assert!(!visible || offset.0 == next, "{topic}/{queue} gave {offset:?}, and {next} is the next");
        {
            let mut history = self.history.lock();
            history.pending.clear();
            for (at, message) in messages.iter().enumerate() {
                let physical = places[at].0;
                history
                    .puts
                    .push(Arc::new(Known { put: put(at, physical), end: physical + message.record_len() as u64 }));
            }
            assert_eq!(history.end(), end.0);
        }
        // The one thread after the other, so that calls come in the same order each time.
        crate::testing::wait_until(|| store.allocator.is_idle() || !self.goes_on());
        let answered = Arc::new(AtomicBool::new(false));
        let (told, history, is_sync) = (Arc::clone(&answered), Arc::clone(&self.history), self.place.mode.sync);
        round.when_safe(end, Want::Acknowledged, move |done| {
            if done.is_ok() && is_sync {
                let mut history = history.lock();
                history.safe = history.safe.max(end.0);
            }
            told.store(true, Ordering::SeqCst);
        });
        drop(round);
        crate::testing::wait_until(|| answered.load(Ordering::SeqCst) || !self.goes_on());
    }

    fn upkeep(&self) {
        self.settle();
        let store = self.store();
        let done = store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*self.place.disk));
        self.upkeep_ends(done);
        if let Some(index) = &store.index {
            index.prepare(&*self.place.disk);
        }
    }

    /// As the thread of the upkeep takes it.
    fn upkeep_ends(&self, done: io::Result<()>) {
        if let Err(error) = &done
            && is_failed_sync(error)
        {
            self.store().health.poison(format!("could not be synced: {error}"));
        }
        self.place.may_fail(done);
    }

    fn retain(&mut self) {
        let keep = 2 + self.dice.below(4) as u64;
        self.history.lock().min_at_most = u64::MAX;
        let store = self.store.as_ref().unwrap();
        let reserved_bytes = Some(keep * SEGMENT_LEN);
        store.change_retention(RetentionRules { reserved_bytes, ..self.place.config().retention });
        store.retention.go_round(&mut self.retention);
        let marks = store.watermarks();
        let mut history = self.history.lock();
        assert!(marks.min.0 >= history.min && marks.min <= marks.written, "{marks:?}");
        if self.goes_on() && !self.place.disk.has_failed() {
            history.min = marks.min.0;
            history.min_at_most = history.min;
        }
    }

    fn delete(&mut self) {
        let topic = TOPICS[self.dice.below(TOPICS.len())];
        let there = !self.store().queue_ids(topic).is_empty();
        let deletion = Put::Deletion { topic: topic.to_owned() };
        if there {
            self.history.lock().pending = vec![deletion.clone()];
        }
        let deleted = self.place.may_fail(self.store().delete_topic(topic));
        let marks = self.store().watermarks();
        let mut history = self.history.lock();
        match deleted {
            Some(deleted) => assert_eq!(deleted, there),
            // In doubt, until the log is looked at.
            None if !self.goes_on() => return,
            None => {}
        }
        history.pending.clear();
        if there && self.store().queue_ids(topic).is_empty() {
            history.puts.push(Arc::new(Known { put: deletion, end: marks.written.0 }));
            if deleted.is_some() {
                history.safe = history.safe.max(marks.written.0);
            }
        }
    }

    fn read(&self) {
        self.settle();
        if self.goes_on()
            && !self.place.disk.has_failed()
            && self.store().watermarks().projected.0 == self.history.lock().end()
        {
            check_queues(self.store(), &self.history.lock());
        }
    }

    /// A clean stop, with the timers saved, and a start.
    fn close(&mut self) {
        self.save_timers();
        let closed = self.place.may_fail(self.store().close());
        if closed.is_some() {
            let mut history = self.history.lock();
            history.safe = history.safe.max(history.end());
        }
        self.timers = None;
        self.store = None;
        if !self.place.disk.has_failed() {
            // The others come again. After a save that failed nobody knows.
            let mut history = self.history.lock();
            history.delivered = history.delivered_for_good.clone();
        }
        if closed.is_some() && !self.place.disk.is_dead() {
            self.open();
            self.forget_what_comes_again();
        }
    }

    /// Where a save has failed only the checkpoint knows what counts as delivered. Another may vouch for that soon, and for no more.
    fn forget_what_comes_again(&self) {
        let (Some(store), Some(timers)) = (&self.store, &self.timers) else { return };
        let has_passed = |timer: &Timer| timer.due_ms <= timers.saved().delivered_ms;
        let passed: BTreeSet<_> = timers_of(store).iter().filter(|t| has_passed(t)).map(|t| t.offset.0).collect();
        let History { delivered, delivered_for_good, .. } = &mut *self.history.lock();
        delivered.retain(|offset| delivered_for_good.contains(offset) || passed.contains(offset));
    }

    fn enter_timers(&mut self) {
        let (Some(store), Some(timers)) = (&self.store, &mut self.timers) else { return };
        self.history.lock().delivered.extend(enter(store, timers));
        self.place.may_fail(timers.write());
    }

    fn deliver_timers(&mut self) {
        let now = self.place.now_ms();
        let (Some(store), Some(timers)) = (&self.store, &mut self.timers) else { return };
        let waiting = timers_of(store);
        loop {
            let Some(due) = self.place.may_fail(due(store, timers, now)) else { return };
            let Some(first) = due.first() else { break };
            self.history
                .lock()
                .delivered
                .extend(due.iter().filter(|timer| comes(&waiting, timer)).map(|timer| timer.offset.0));
            timers.delivered(first.due_ms);
        }
        let history = self.history.lock();
        let came = |timer: &Timer| history.delivered.contains(&timer.offset.0);
        let is_due = |timer: &Timer| timer.due_ms <= now && timer.offset < timers.entered();
        let late: Vec<_> = waiting.iter().filter(|timer| is_due(timer) && !came(timer)).collect();
        assert!(late.is_empty(), "due by {now}, and did not come: {late:?}");
    }

    /// Once the log is on the disk up to what was entered, as the broker does it.
    fn save_timers(&mut self) {
        let Some(timers) = &mut self.timers else { return };
        if timers.is_in_doubt() {
            let store = self.store.as_ref().unwrap();
            let (begin, queue) = (store.queue_bounds(TIMERS, QueueId(0)).unwrap_or_default().min, timers_of(store));
            let at = |offset| queue.binary_search_by_key(&offset, |timer: &Timer| timer.offset).ok();
            let renewed = timers.renew(begin, |offset| io::Result::Ok(at(offset).map(|at| queue[at])));
            self.place.may_fail(renewed);
        }
        let (checkpoint, delivered) = (timers.checkpoint(), self.history.lock().delivered.clone());
        if !timers.is_whole() || self.place.may_fail(self.store.as_ref().unwrap().flusher.flush()).is_none() {
            return;
        }
        if self.place.may_fail(timers.save(checkpoint)).is_some() {
            self.history.lock().delivered_for_good = delivered;
        }
    }

    /// Has the world stop before the call that comes after so many; `None` if it never comes.
    fn stop_after(&self, calls: usize) -> Arc<Mutex<Option<Moment>>> {
        let stopped = Arc::new(Mutex::new(None));
        let (found, history, root) = (Arc::clone(&stopped), Arc::clone(&self.history), self.place.disk_root());
        let (disk, now, mut left) = (Arc::downgrade(&self.place.disk), Arc::clone(&self.place.now), calls);
        self.place.disk.watch(move |call| {
            let Some(disk) = disk.upgrade() else { return };
            if left > 0 {
                left -= 1;
            } else if !disk.is_dead() {
                let before = history.lock().clone();
                let image = disk.image(&root, None);
                let (history, now_ms) = (history.lock().since(before), now.load(Ordering::SeqCst));
                let (power_losses, has_failed) = (disk.power_losses(), disk.has_failed());
                let call = call.to_string();
                *found.lock() = Some(Moment { call, image, history, now_ms, power_losses, has_failed });
                disk.die();
            }
        });
        stopped
    }

    /// As things are.
    fn moment(&self) -> Moment {
        let image = self.place.disk.image(&self.place.disk_root(), None);
        Moment {
            call: "none".to_owned(),
            image,
            history: self.history.lock().clone(),
            now_ms: self.place.now_ms(),
            power_losses: self.place.disk.power_losses(),
            has_failed: self.place.disk.has_failed(),
        }
    }
}

impl Place {
    /// The value; nothing if the disk has failed as it was told to, which must be the reason then.
    fn may_fail<T, E: std::fmt::Debug>(&self, done: Result<T, E>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(self.disk.has_failed(), "without any failure of the disk: {error:?}");
                None
            }
        }
    }
}

fn properties(topic: &str, body: &[u8]) -> String {
    let key = key(body);
    let more = if topic == TIMERS {
        format!("TIMER_OUT_MS\u{1}{}\u{2}", due_of(body))
    } else if ends_with_zero(body) {
        "ZERO\u{1}\0".to_owned()
    } else {
        String::new()
    };
    format!("UNIQ_KEY\u{1}{key}\u{2}KEYS\u{1}k{key}\u{2}{more}")
}

/// Of a message for a given time.
fn due_of(body: &[u8]) -> i64 {
    i64::from_be_bytes(body[..8].try_into().unwrap())
}

/// Whether the last byte of the message's properties is one, so that it looks torn: only the checkpoint vouches for it.
fn ends_with_zero(body: &[u8]) -> bool {
    body[0] == 1
}

fn key(body: &[u8]) -> String {
    body[body.len() - 4..].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether anything comes of an entry: of a place that is another's now nothing does. In the order of the queue.
fn comes(waiting: &[Timer], timer: &Timer) -> bool {
    waiting.binary_search_by_key(&timer.offset, |waiting| waiting.offset).is_ok_and(|at| waiting[at] == *timer)
}

/// The timers that the queue has.
fn timers_of(store: &Store) -> Vec<Timer> {
    let bodies = read_bodies(store, TIMERS, 0, 0);
    bodies
        .iter()
        .map(|(offset, body)| Timer { due_ms: due_of(body), offset: QueueOffset(*offset), cancels: false })
        .collect()
}

/// Enters what is new in the queue of timers, as the broker does it. Gives the places of those that are delivered at once, because they
/// come late.
fn enter(store: &Store, timers: &mut TimerIndex) -> Vec<u64> {
    let bounds = store.queue_bounds(TIMERS, QueueId(0));
    let (min, max) = bounds.map_or_else(Default::default, |bounds| (bounds.min, bounds.max));
    let from = timers.entered().clamp(min, max);
    if from != timers.entered() {
        timers.skip_to(from);
    }
    let mut late = Vec::new();
    for timer in timers_of(store).into_iter().filter(|timer| timer.offset >= from) {
        assert_eq!(timer.offset, timers.entered());
        if timers.was_dealt_with(&timer) {
            timers.enter(None);
        } else if timers.has_passed(timer.due_ms) {
            late.push(timer.offset.0);
            timers.enter(None);
        } else {
            timers.enter(Some(timer));
        }
    }
    late
}

/// What is due, each time's timers by themselves; files that are lost are made again out of the queue.
fn due(store: &Store, timers: &mut TimerIndex, now_ms: i64) -> io::Result<Vec<Timer>> {
    loop {
        let error = match timers.due(now_ms) {
            Ok(due) => return Ok(due),
            Err(error) => error,
        };
        let Some(times) = timers.lost() else { return Err(error) };
        let (from, to) = (timers.saved().carried, timers.entered());
        let is_lost = |timer: &Timer| (from..to).contains(&timer.offset) && times.contains(&timer.due_ms);
        let lost: Vec<_> = timers_of(store).into_iter().filter(is_lost).collect();
        timers.restore(&lost)?;
    }
}

/// What a crash has left.
struct AfterCrash {
    place: Place,
    history: History,
    /// The log is there up to here: the machine went on.
    there: u64,
    /// A call had failed before it.
    has_failed: bool,
}

impl AfterCrash {
    /// After a power cut at that moment.
    fn by_power_cut(moment: &Moment, mode: Mode, dice: &mut Dice) -> AfterCrash {
        // From hardly anything to nearly everything.
        let lost_of_16 = 1 + dice.below(15);
        let mut losses = Dice::new(dice.roll());
        let tears = (!dice.one_in(3)).then(|| Dice::new(dice.roll()));
        let tree = moment.image.after_power_cut(&mut Fate { lost: &mut || losses.below(16) < lost_of_16, tears });
        let place = Place::new(mode, moment.now_ms, moment.power_losses + 1);
        write_tree(&place.disk_root(), &tree);
        place.disk.all_is_synced(&place.disk_root());
        AfterCrash { place, history: moment.history.clone(), there: 0, has_failed: moment.has_failed }
    }

    /// After a kill: what was written to the files is there, on the disk or not. A message whose last byte is a zero may have been torn, if
    /// nothing was promised of it: the log may end there.
    fn by_kill(run: Run) -> AfterCrash {
        let committed = run.committed();
        let Run { place, history, store, timers, .. } = run;
        drop((store, timers));
        let has_failed = place.disk.has_failed();
        place.disk.restart();
        let history = history.lock().clone();
        let may_go = |known: &Known| match &known.put {
            Put::Message { topic, body, .. } => *topic != TIMERS && ends_with_zero(body),
            Put::Deletion { .. } => false,
        };
        let is_there = |known: &&Arc<Known>| known.end <= committed && (known.end <= history.safe || !may_go(known));
        let there = history.puts.iter().take_while(is_there).last().map_or(0, |known| known.end);
        AfterCrash { place, history, there, has_failed }
    }

    /// The same, and what a sync could not write goes from memory at any time from then on. Only what was promised is sure to be there.
    fn by_kill_and_forgetting(run: Run, dice: &mut Dice) -> AfterCrash {
        let left = AfterCrash::by_kill(run);
        left.place.disk.forget_pages(Dice::new(dice.roll()));
        AfterCrash { there: 0, ..left }
    }

    /// What is said of the files before they are opened. A crash leaves no fault in them.
    fn check_files(&self) {
        check_files(self.place.root());
        let path = self.place.root().join("checkpoint");
        let is_whole = path.metadata().is_ok_and(|found| found.len() == 4096);
        let checkpoint = is_whole.then(|| Checkpoint::open(path).unwrap());
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.inventory().is_some()) {
            let inventory = Inventory::open(&LocalDisk, &self.place.root(), &checkpoint).unwrap();
            assert!(!inventory.is_lost(), "the list of queues is lost, and all of the log is read");
        }
    }

    /// Opens it and holds it against the history, which then knows what is left. Crashes on the way a few times, if the dice say so.
    fn check(mut self, dice: &mut Dice) -> Run {
        if !self.has_failed {
            self.check_files();
        }
        while dice.one_in(4) {
            // Once more before the open has come to its end.
            let mut run = Run::new(self.place, self.history, 0);
            let stopped = run.stop_after(dice.below(40));
            run.open();
            let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
            let (mode, has_failed) = (run.place.mode, self.has_failed);
            drop(run);
            self = AfterCrash::by_power_cut(&moment, mode, dice);
            self.has_failed |= has_failed;
            if !self.has_failed {
                self.check_files();
            }
        }
        self.history.safe = self.history.safe.max(self.there);
        let mut run = Run::new(self.place, self.history, dice.roll());
        assert!(run.open(), "it does not open");
        run.settle();
        run.check_log();
        let history = run.history.lock().clone();
        check_queues(run.store(), &history);
        check_index(run.store(), &history);
        run.check_timers();
        let copy = tempfile::tempdir_in(dir_in_memory()).unwrap();
        write_tree(copy.path(), &tree_of(&run.place.root()));
        check_files(copy.path().to_owned());
        run
    }
}

impl Run {
    /// The log has what was promised, in order, and nothing else.
    fn check_log(&self) {
        let found = log_of(self.store());
        let marks = self.store().watermarks();
        let mut history = self.history.lock();
        let at_most = history.min_at_most.max(history.min);
        assert!(
            marks.min.0 >= history.min && marks.min.0 <= at_most,
            "the log begins at {:?}, not at {}..{at_most}",
            marks.min,
            history.min
        );
        history.min = marks.min.0;
        history.min_at_most = marks.min.0;
        let from = history.puts.partition_point(|known| known.end <= history.min);
        let mut kept = from;
        let mut pending = std::mem::take(&mut history.pending).into_iter();
        for (put, end) in found {
            if let Some(known) = history.puts.get(kept) {
                assert_eq!(known.put, put, "something else than what was put there");
                kept += 1;
                continue;
            }
            let known = pending.next();
            let same = match (&known, &put) {
                (
                    Some(Put::Message { topic, queue, offset, body, .. }),
                    Put::Message { topic: t, queue: q, offset: o, body: b, .. },
                ) => (topic, queue, offset, body) == (t, q, o, b),
                (known, put) => known.as_ref() == Some(put),
            };
            assert!(same, "invented: {put:?}, which may be {known:?}");
            history.puts.push(Arc::new(Known { put, end }));
            kept += 1;
        }
        if let Some(lost) = history.puts.get(kept) {
            assert!(lost.end > history.safe, "lost: {lost:?}, and all up to {} was safe", history.safe);
        }
        history.puts.truncate(kept);
        history.safe = marks.written.0;
    }

    /// Every timer that waits is there.
    fn check_timers(&self) {
        let copy = tempfile::tempdir_in(dir_in_memory()).unwrap();
        let mut tree = Vec::new();
        for entry in std::fs::read_dir(self.place.timers()).unwrap() {
            let path = entry.unwrap().path();
            tree.push((path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()));
        }
        for (name, bytes) in tree {
            std::fs::write(copy.path().join(name), bytes).unwrap();
        }
        let mut timers = TimerIndex::open(Arc::new(LocalDisk), copy.path().to_owned(), START_MS).unwrap();
        let mut found: BTreeSet<_> = enter(self.store(), &mut timers).into_iter().collect();
        let waiting = timers_of(self.store());
        let mut drained = BTreeSet::new();
        loop {
            let due = due(self.store(), &mut timers, i64::MAX / 4).unwrap();
            let Some(first) = due.first() else { break };
            drained.extend(due.iter().filter(|timer| comes(&waiting, timer)).map(|timer| timer.offset.0));
            timers.delivered(first.due_ms);
        }
        let mut history = self.history.lock();
        let next = history.next(TIMERS, 0);
        // What went with the log's tail was never delivered: its places are others' now.
        history.delivered.retain(|offset| *offset < next);
        history.delivered_for_good.retain(|offset| *offset < next);
        let again: Vec<_> = drained.intersection(&history.delivered_for_good).collect();
        assert!(again.is_empty(), "delivered before, and it was saved that they were: {again:?}");
        found.extend(drained);
        let lost: Vec<_> = waiting
            .iter()
            .map(|timer| timer.offset.0)
            .filter(|offset| !history.delivered.contains(offset) && !found.contains(offset))
            .collect();
        assert!(lost.is_empty(), "timers lost: {lost:?} of {waiting:?}, delivered {:?}", history.delivered);
        // What comes again is not delivered, and the checkpoint that says so of the others is on the disk by now.
        history.delivered.retain(|offset| !found.contains(offset));
        history.delivered_for_good = history.delivered.clone();
    }
}

/// All of the log, in order, with where each record ends.
fn log_of(store: &Store) -> Vec<(Put, u64)> {
    let marks = store.watermarks();
    let mut found = Vec::new();
    let mut at = marks.min.0;
    while at < marks.written.0 {
        let bytes = store.raw_from(PhysicalOffset(at), usize::MAX).unwrap().expect("the log has no gaps");
        let mut read = 0;
        while read < bytes.len() {
            let physical = at + read as u64;
            let parsed = record_at(&bytes[read..], physical).unwrap_or_else(|error| panic!("at {physical}: {error:?}"));
            let ferromq_protocol::message::record::ParsedRecord::Record(record) = parsed else {
                read = bytes.len();
                break;
            };
            record.check_crc().unwrap();
            read += record.record_len();
            found.push((put_of(&record), at + read as u64));
        }
        at += read as u64;
    }
    found
}

fn put_of(record: &Record<'_>) -> Put {
    if let Some(topic) = deleted_topic(record) {
        return Put::Deletion { topic };
    }
    let topic = TOPICS.into_iter().chain([TIMERS]).find(|topic| *topic == record.topic()).expect("one of the topics");
    assert_eq!(record.properties(), properties(topic, record.body()), "a message with other properties");
    Put::Message {
        topic,
        queue: record.queue_id().0,
        offset: record.sys_flag().is_visible().then_some(record.queue_offset().0),
        physical: record.physical_offset().0,
        body: record.body().to_vec(),
    }
}

/// `storeCheck` finds no fault.
fn check_files(root: PathBuf) {
    let (mut told, mut is_right) = (Vec::new(), true);
    let mut note = |finding: &Finding| {
        // Nobody here carries timers on before their segment goes; and the zero of a message may be alone in its page.
        let is_known = ["has gone from the log", "a page of its properties is lost"].iter();
        is_right &= !finding.is_fault || is_known.into_iter().any(|known| finding.what.ends_with(known));
        told.push(finding.to_string());
    };
    match check(&Place::check_config(root), &mut note) {
        // Before anything was made.
        Ok(_) | Err(CheckError::NoStore { .. }) => {}
        Err(error) => panic!("nothing can be said of the files: {error}"),
    }
    assert!(is_right, "the check says: {told:#?}");
}

/// What consumers see is what the history has, queue by queue.
fn check_queues(store: &Store, history: &History) {
    let expected = history.queues();
    let queues = TOPICS.into_iter().flat_map(|topic| (0..QUEUES).map(move |queue| (topic, queue))).chain([(TIMERS, 0)]);
    for (topic, queue) in queues {
        let (next, there) = expected.get(&(topic, queue)).cloned().unwrap_or_default();
        let found = read_bodies(store, topic, queue, 0);
        let found: Vec<_> = found.iter().map(|(offset, body)| (*offset, body.as_slice())).collect();
        let short =
            |bodies: &[(u64, &[u8])]| bodies.iter().map(|(offset, body)| (*offset, key(body))).collect::<Vec<_>>();
        assert!(found == there, "{topic}/{queue} has {:?}, and should have {:?}", short(&found), short(&there));
        let (min, max) =
            store.queue_bounds(topic, QueueId(queue)).map_or((0, 0), |bounds| (bounds.min.0, bounds.max.0));
        assert_eq!(max, next, "the next offset of {topic}/{queue}");
        assert_eq!(min, there.first().map_or(next, |(first, _)| *first), "where {topic}/{queue} begins");
    }
}

/// Each message that the log has is found by its keys, and no other.
fn check_index(store: &Store, history: &History) {
    for known in history.puts.iter().rev() {
        let Put::Message { topic, body, .. } = &known.put else { continue };
        let key = key(body);
        for key in [key.clone(), format!("k{key}")] {
            let found = query_bodies(store, topic, &key);
            if known.end > history.min {
                assert!(found == std::slice::from_ref(body), "{} messages by the key {key}", found.len());
            } else {
                assert!(found.is_empty(), "by the key {key} of a message that is gone");
            }
        }
    }
}

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Does `case`; if it fails, says how to have it again, and what happened.
fn repeatable(how: impl Fn(&[String]) -> String, case: impl FnOnce(&mut Vec<String>)) {
    let mut told = Vec::new();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut told))) {
        eprintln!("again: {}", how(&told));
        resume_unwind(panic);
    }
}

/// Does `case` for each number below `count`, on all cores. Those that fail hinder no others, unless they are many.
fn on_all_cores(count: usize, case: impl Fn(usize) + Sync) {
    let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.load(Ordering::SeqCst) < FAILURES_MAX {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| case(number))).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "{failed} of {} failed, see above", next.into_inner().min(count));
}

/// Every moment of a workload, before each call to the disk.
fn moments(mode: Mode, seed: u64, steps: usize) -> Vec<Moment> {
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed);
    let moments = Arc::new(Mutex::new(Vec::<Moment>::new()));
    let (all, history, root) = (Arc::clone(&moments), Arc::clone(&run.history), run.place.disk_root());
    let (disk, now) = (Arc::downgrade(&run.place.disk), Arc::clone(&run.place.now));
    run.place.disk.watch(move |call| {
        let Some(disk) = disk.upgrade() else { return };
        let mut all = all.lock();
        let before = history.lock().clone();
        let image = disk.image(&root, all.last().map(|last| &last.image));
        let (history, now_ms) = (history.lock().since(before), now.load(Ordering::SeqCst));
        all.push(Moment { call: call.to_string(), image, history, now_ms, power_losses: 0, has_failed: false });
    });
    assert!(run.open());
    for _ in 0..steps {
        run.step();
    }
    run.place.disk.watch_no_more();
    let last = run.moment();
    drop(run);
    let mut moments = std::mem::take(&mut *moments.lock());
    moments.push(last);
    moments
}

fn crash_everywhere(sync: bool, pool: bool) {
    let mode = Mode { sync, pool, bug: None };
    let steps = if pool { POOL_STEPS } else { STEPS };
    let moments = moments(mode, 12, steps);
    let cuts = asked("FERROMQ_CRASH_CUTS").map_or(CUTS, |cuts| usize::try_from(cuts).unwrap());
    let only = asked("FERROMQ_CRASH_AT").map(|only| usize::try_from(only).unwrap());
    eprintln!("{} calls of {steps} steps, {cuts} cuts at each", moments.len());
    on_all_cores(moments.len() * cuts, |number| {
        if only.is_some_and(|only| only != number) {
            return;
        }
        let moment = &moments[number / cuts];
        let how = |_: &[String]| format!("FERROMQ_CRASH_AT={number} FERROMQ_CRASH_CUTS={cuts}, at {}", moment.call);
        repeatable(how, |_| {
            let mut dice = Dice::new(number as u64);
            let mut run = AfterCrash::by_power_cut(moment, mode, &mut dice).check(&mut dice);
            // It goes on from there.
            for _ in 0..dice.below(4) {
                run.step();
            }
        });
    });
}

#[test]
fn a_power_cut_at_every_call_loses_nothing_that_was_on_the_disk() {
    crash_everywhere(false, false);
}

#[test]
fn a_power_cut_at_every_call_with_the_write_pool_loses_nothing_that_was_on_the_disk() {
    crash_everywhere(false, true);
}

#[test]
fn a_power_cut_at_every_call_with_the_write_pool_loses_nothing_that_was_acknowledged() {
    crash_everywhere(true, true);
}

#[test]
fn a_power_cut_at_every_call_loses_nothing_that_was_acknowledged() {
    crash_everywhere(true, false);
}

/// One crash after the other, from a seed.
fn crash_at_random(seed: u64, pool: bool, bug: Option<Bug>, told: &mut Vec<String>) {
    let mut dice = Dice::new(seed);
    let mode = Mode { sync: dice.one_in(2), pool, bug };
    let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), dice.roll());
    for era in 0..1 + dice.below(3) {
        let calls = if dice.one_in(3) { 30 } else { 400 };
        let stopped = run.stop_after(dice.below(calls));
        let errno = if dice.one_in(2) { libc::EIO } else { libc::ENOSPC };
        let fault = Fault { after: dice.below(200), count: 1 + dice.below(4), errno };
        // A bug is to be found by itself.
        let fault = Some(fault).filter(|_| dice.one_in(3) && bug.is_none());
        if let Some(fault) = fault {
            run.place.disk.fail(fault);
        }
        let is_open = if era == 0 { run.open() } else { run.store.is_some() };
        if is_open {
            for _ in 0..dice.below(60) {
                run.step();
                if run.store.is_none() || !run.goes_on() {
                    break;
                }
            }
        }
        let left = if dice.one_in(4) {
            // Only the process ends.
            let forgets = run.place.disk.has_failed() && dice.one_in(2);
            told.push(format!("era {era}: {mode:?}, {fault:?}, killed, forgets: {forgets}"));
            if forgets { AfterCrash::by_kill_and_forgetting(run, &mut dice) } else { AfterCrash::by_kill(run) }
        } else {
            let moment = stopped.lock().take().unwrap_or_else(|| run.moment());
            told.push(format!("era {era}: {mode:?}, {fault:?}, power cut at {}", moment.call));
            drop(run);
            AfterCrash::by_power_cut(&moment, mode, &mut dice)
        };
        run = left.check(&mut dice);
    }
}

fn crash_at_random_often(pool: bool, seeds: u64) {
    if let Some(seed) = asked("FERROMQ_CRASH_SEED") {
        return repeatable(|told| told.join("\n"), |told| crash_at_random(seed, pool, None, told));
    }
    let first = asked("FERROMQ_CRASH_FIRST").unwrap_or(0);
    let count = usize::try_from(asked("FERROMQ_CRASH_SEEDS").unwrap_or(seeds)).unwrap();
    on_all_cores(count, |number| {
        let seed = first + number as u64;
        repeatable(
            |told| format!("FERROMQ_CRASH_SEED={seed}\n{}", told.join("\n")),
            |told| crash_at_random(seed, pool, None, told),
        );
    });
}

#[test]
fn random_crashes_lose_nothing_that_was_promised() {
    crash_at_random_often(false, SEEDS);
}

#[test]
fn random_crashes_with_the_write_pool_lose_nothing_that_was_promised() {
    crash_at_random_often(true, POOL_SEEDS);
}

#[test]
fn what_an_open_finds_after_a_failed_sync_is_on_the_disk() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mode = Mode { sync: false, pool: false, bug: None };
        let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed);
        assert!(run.open());
        for _ in 0..1 + dice.below(20) {
            run.append(1);
        }
        run.settle();
        run.place.disk.fail(Fault { after: 0, count: 1, errno: libc::EIO });
        run.store().flusher.flush().unwrap_err();
        // The process ends and another one is started; later the power goes.
        let left =
            if seed % 3 == 0 { AfterCrash::by_kill(run) } else { AfterCrash::by_kill_and_forgetting(run, &mut dice) };
        let run = left.check(&mut dice);
        AfterCrash::by_power_cut(&run.moment(), mode, &mut dice).check(&mut dice);
    }
}

/// Whatever call it is that fails, and whatever is left of it.
#[test]
fn what_an_open_finds_after_one_that_failed_is_on_the_disk() {
    on_all_cores(20, |seed| {
        let mut dice = Dice::new(seed as u64);
        for after in 0.. {
            let mode = Mode { sync: false, pool: false, bug: None };
            let mut run = Run::new(Place::new(mode, START_MS, 0), History::default(), seed as u64);
            assert!(run.open());
            for _ in 0..1 + seed % 20 {
                run.append(1);
            }
            run.settle();
            let AfterCrash { place, history, .. } = AfterCrash::by_kill(run);
            place.disk.fail(Fault { after, count: 1, errno: libc::EIO });
            let mut run = Run::new(place, history, dice.roll());
            run.open();
            let was_met = run.place.disk.has_failed();
            let left = match was_met && dice.one_in(2) {
                true => AfterCrash::by_kill_and_forgetting(run, &mut dice),
                false => AfterCrash::by_kill(run),
            };
            let run = left.check(&mut dice);
            AfterCrash::by_power_cut(&run.moment(), mode, &mut dice).check(&mut dice);
            if !was_met {
                assert!(after > 10, "only {after} calls");
                return;
            }
        }
    });
}

/// What a store could do wrong, and what it does not make good by itself.
const BUGS: [Bug; 18] = [
    Bug::NotSynced(Part::Log),
    Bug::NotSynced(Part::Queues),
    Bug::NotSynced(Part::Index),
    Bug::NotSynced(Part::Timers),
    Bug::NotSynced(Part::TimersCheckpoint),
    Bug::NotSynced(Part::Checkpoint),
    Bug::NotSynced(Part::Aside),
    Bug::NamesNotSynced(Part::Log),
    Bug::NamesNotSynced(Part::Queues),
    Bug::NamesNotSynced(Part::Index),
    Bug::NamesNotSynced(Part::Timers),
    Bug::NamesNotSynced(Part::Root),
    Bug::SyncBeginsLate(Part::Log),
    Bug::SyncEndsEarly(Part::Log),
    Bug::SavedAheadOf(Part::Log),
    Bug::CutTooFar,
    Bug::ReplacedInSteps,
    Bug::WritesShort(Part::Timers),
];
/// And with the write pool.
const POOL_BUGS: [Bug; 7] = [
    Bug::CommitBeginsLate,
    Bug::CommitEndsEarly,
    Bug::CommitIsLate,
    Bug::CommitForgetsBegin,
    Bug::NotSynced(Part::Log),
    Bug::SyncEndsEarly(Part::Log),
    Bug::SavedAheadOf(Part::Log),
];
/// Each is found by one of so many seeds.
const SEEDS_PER_BUG: u64 = 1000;

#[test]
fn bugs_that_a_store_could_have_are_found() {
    let bugs: Vec<_> = BUGS.map(|bug| (bug, false)).into_iter().chain(POOL_BUGS.map(|bug| (bug, true))).collect();
    on_all_cores(bugs.len(), |number| {
        let (bug, pool) = bugs[number];
        let finds = |seed: &u64| catch_unwind(|| crash_at_random(*seed, pool, Some(bug), &mut Vec::new())).is_err();
        let seed = (0..SEEDS_PER_BUG).find(finds);
        println!("{bug:?}, with the write pool: {pool}, is found by seed {seed:?}");
        assert!(seed.is_some(), "{bug:?} is not found by any of {SEEDS_PER_BUG} seeds");
    });
}
