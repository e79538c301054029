//! Where the tests of timers live.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ferromq_protocol::message::NewMessage;
use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId};
use ferromq_store::{
    AppendError, AppendedMessage, Clock, Disk, FlushMode, Keeper, LocalDisk, Store, StoreConfig, TimerCheckpoint,
    TimerIndex,
};

use super::{QUEUE, Timers};
use crate::config::BrokerConfig;
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::statistics::Statistics;
use crate::testing::{PATIENCE, TroubledDisk, copy_at_an_instant, message, wait_until};
use crate::topics::Topics;

pub const NOW: i64 = 1_800_000_000_000;
/// Of a house whose segments go.
const SMALL: u64 = 1 << 14;

/// Timers over a real store, with a clock of the test's own.
pub struct House {
    pub clock_ms: Arc<AtomicI64>,
    pub disk: Arc<TroubledDisk>,
    pub store: Arc<Store>,
    pub topics: Arc<Topics>,
    pub timers: Arc<Timers>,
    segment_len: u64,
    pub root: tempfile::TempDir,
}

impl House {
    pub fn new() -> House {
        let house = House::asleep();
        house.timers.start().unwrap();
        house
    }

    /// Nothing is entered or delivered yet.
    pub fn asleep() -> House {
        House::on(tempfile::tempdir().unwrap(), NOW, 1 << 20, TroubledDisk::default())
    }

    /// With small segments.
    pub fn small() -> House {
        let house = House::asleep_and_small();
        house.timers.start().unwrap();
        house
    }

    pub fn asleep_and_small() -> House {
        House::on(tempfile::tempdir().unwrap(), NOW, SMALL, TroubledDisk::default())
    }

    /// With small segments, and what is not on the disk is not seen.
    pub fn small_and_sync() -> House {
        let flush = FlushMode::Sync { timeout: PATIENCE };
        let house = House::flushed(tempfile::tempdir().unwrap(), NOW, SMALL, TroubledDisk::default(), Some(flush));
        house.timers.start().unwrap();
        house
    }

    fn on(root: tempfile::TempDir, now_ms: i64, segment_len: u64, disk: TroubledDisk) -> House {
        House::flushed(root, now_ms, segment_len, disk, None)
    }

    fn flushed(
        root: tempfile::TempDir,
        now_ms: i64,
        segment_len: u64,
        disk: TroubledDisk,
        flush: Option<FlushMode>,
    ) -> House {
        let clock_ms = Arc::new(AtomicI64::new(now_ms));
        let time = Arc::clone(&clock_ms);
        let clock = Clock::from_fn(move || time.load(Ordering::SeqCst));
        let disk = Arc::new(disk);
        let default = StoreConfig::at(root.path());
        let config = StoreConfig {
            segment_len,
            queue_file_entries: 1000,
            index_enabled: false,
            clock: clock.clone(),
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            flush: flush.unwrap_or_else(|| default.flush.clone()),
            ..default
        };
        let store = Arc::new(Store::open(config).unwrap());
        let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Arc::new(Topics::open(root.path(), &live, &Persistence::default()).unwrap());
        let dir = root.path().join("timers");
        let java = root.path().join("timercheck");
        let statistics = Arc::new(Statistics::new());
        let timers = Timers::open(dir, &java, clock, Arc::clone(&store), Arc::clone(&topics), statistics).unwrap();
        // A kill finds it saved.
        let timers = if segment_len == SMALL { timers.saving_every(Duration::from_millis(1)) } else { timers };
        let timers = Arc::new(timers);
        let woken = Arc::downgrade(&timers);
        store.on_arrival(move |arrival| {
            if let Some(timers) = woken.upgrade() {
                timers.arrived(arrival);
            }
        });
        House { clock_ms, disk, store, topics, timers, segment_len, root }
    }

    pub fn now_ms(&self) -> i64 {
        self.clock_ms.load(Ordering::SeqCst)
    }

    pub fn append(
        &self,
        topic: &str,
        queue: QueueId,
        properties: &str,
        body: &[u8],
    ) -> Result<AppendedMessage, AppendError> {
        self.store.append(&NewMessage { born_timestamp: NOW, ..message(topic, queue, body, properties) })
    }

    /// Stores a message for queue 0 of a topic that is due in so many ms.
    pub fn at(&self, in_ms: i64, topic: &str, more: &str) -> AppendedMessage {
        let due_ms = self.now_ms() + in_ms;
        let properties = format!("TIMER_OUT_MS\u{1}{due_ms}\u{2}REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}0\u{2}{more}");
        self.append(TIMER_TOPIC, QUEUE, &properties, b"timer").unwrap()
    }

    pub fn pass(&self, ms: i64) {
        self.clock_ms.fetch_add(ms, Ordering::SeqCst);
        self.timers.worker.bell().wake();
    }

    pub fn count(&self, topic: &str, queue: u32) -> u64 {
        self.store.queue_bounds(topic, QueueId(queue)).map_or(0, |bounds| bounds.max.0)
    }

    /// Returns once all that was stored can be seen.
    pub fn see(&self) {
        wait_until("not all is dispatched", || {
            let marks = self.store.watermarks();
            marks.projected == marks.written
        });
    }

    /// Returns once a queue has that many messages, and the thread has looked at everything.
    pub fn wait_for(&self, topic: &str, queue: u32, count: u64) {
        wait_until(&format!("{topic} never has {count} messages in queue {queue}"), || {
            self.count(topic, queue) >= count
        });
        assert_eq!(self.count(topic, queue), count, "{topic}");
    }

    pub fn wait_entered(&self) {
        wait_until("not all timers are entered", || self.timers.progress().not_entered == 0);
    }

    /// Returns once so many wait, and all that came is entered. Not right after a kill: the index may have some twice then.
    pub fn wait_waiting(&self, waiting: u64) {
        wait_until(&format!("never do {waiting} timers wait"), || {
            let progress = self.timers.progress();
            (progress.not_entered, progress.waiting) == (0, waiting)
        });
    }

    /// Fills the segment that the log ends in, and gives its end.
    pub fn fill_segment(&self) -> PhysicalOffset {
        let end = PhysicalOffset((self.store.watermarks().written.0 / self.segment_len + 1) * self.segment_len);
        while self.store.watermarks().projected <= end {
            self.append("Filler", QueueId(0), "", &[0; 1024]).unwrap();
        }
        end
    }

    /// As the retention asks, once.
    pub fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        self.timers.keeper().release_before(end)
    }

    /// As the retention asks, again and again.
    pub fn wait_free(&self, end: PhysicalOffset) {
        wait_until("the segment is held for ever", || self.release_before(end).is_none());
    }

    /// What a kill would leave of the index. Looked at in a copy: whoever opens it writes again what it has found.
    pub fn saved(&self) -> TimerCheckpoint {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(self.root.path().join("timers/checkpoint"), copy.path().join("checkpoint")).unwrap();
        TimerIndex::open(Arc::new(LocalDisk), copy.path().into(), self.store.id(), 0).unwrap().saved()
    }

    /// The next start, after a stop. The log before `min` has gone meanwhile.
    pub fn restarted(self, min: PhysicalOffset) -> House {
        self.restarted_on(min, TroubledDisk::default())
    }

    /// The next start, on a disk that says it is full.
    pub fn restarted_on_a_full_disk(self) -> House {
        let disk = TroubledDisk::default();
        disk.pretend_used(0.99);
        self.restarted_on(PhysicalOffset(0), disk)
    }

    fn restarted_on(self, min: PhysicalOffset, disk: TroubledDisk) -> House {
        let now_ms = self.now_ms();
        self.timers.stop();
        self.store.close().unwrap();
        self.timers.save();
        let House { root, segment_len, .. } = self;
        House::started(root, now_ms, segment_len, min, disk)
    }

    /// The next start, after a kill in this moment. The log before `min` has gone.
    pub fn killed(&self, min: PhysicalOffset) -> House {
        let left = copy_at_an_instant(self.root.path());
        House::started(left, self.now_ms(), self.segment_len, min, TroubledDisk::default())
    }

    fn started(
        root: tempfile::TempDir,
        now_ms: i64,
        segment_len: u64,
        min: PhysicalOffset,
        disk: TroubledDisk,
    ) -> House {
        remove_before(&root.path().join("commitlog"), min, segment_len);
        let house = House::on(root, now_ms, segment_len, disk);
        assert!(house.store.watermarks().min >= min);
        house.timers.start().unwrap();
        house
    }
}

/// Removes the segments of a log that end before `min` or there.
pub fn remove_before(log: &Path, min: PhysicalOffset, segment_len: u64) {
    for entry in fs::read_dir(log).unwrap() {
        let path = entry.unwrap().path();
        let start: Option<u64> = path.file_name().unwrap().to_str().and_then(|name| name.parse().ok());
        if start.is_some_and(|start| start + segment_len <= min.0) {
            fs::remove_file(path).unwrap();
        }
    }
}
