//! What waits when its segment goes: delayed messages and open transactions, with all that a master does at work.

use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicI64, Ordering};

use ferromq_protocol::header::EndTransactionRequest;
use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Record, SysFlag};
use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC, TRANSACTION_HALF_TOPIC};
use ferromq_protocol::{QueueId, QueueOffset};
use ferromq_store::{AppendedMessage, Clock, DelayLevels, Disk, Effort, Store, StoreConfig, Want};

use super::*;
use crate::clients::Clients;
use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::destination::DelayQueue;
use crate::handlers::transactions::TransactionPath;
use crate::live_config::LiveConfig;
use crate::master_duties::{MasterDuties, MasterParts};
use crate::persistence::Persistence;
use crate::statistics::Statistics;
use crate::testing::{TroubledDisk, copy_at_an_instant, message, wait_until};
use crate::topics::Topics;

const START: i64 = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;
const SEGMENT: u64 = 1 << 16;
/// Of an hour.
const LEVEL: i32 = 3;
/// What a record's properties take at most.
const PROPERTIES_MAX: usize = i16::MAX as usize;

/// Small segments, and all that a master does.
struct House {
    clock_ms: Arc<AtomicI64>,
    disk: Arc<TroubledDisk>,
    store: Arc<Store>,
    levels: DelayLevels,
    persistence: Arc<Persistence>,
    duties: Arc<MasterDuties>,
    path: TransactionPath,
    root: Arc<tempfile::TempDir>,
}

impl House {
    fn new() -> House {
        House::on(Arc::new(tempfile::tempdir().unwrap()), START, TroubledDisk::default())
    }

    fn on(root: Arc<tempfile::TempDir>, now_ms: i64, disk: TroubledDisk) -> House {
        let clock_ms = Arc::new(AtomicI64::new(now_ms));
        let clock = || {
            let time = Arc::clone(&clock_ms);
            Clock::from_fn(move || time.load(Ordering::SeqCst))
        };
        let disk = Arc::new(disk);
        let levels = DelayLevels::parse("1s 5s 1h").unwrap();
        let config = StoreConfig {
            segment_len: SEGMENT,
            queue_file_entries: 1000,
            index_enabled: false,
            delay_levels: levels.clone(),
            clock: clock(),
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            ..StoreConfig::at(root.path())
        };
        let store = Arc::new(Store::open(config).unwrap());
        let persistence = Arc::new(Persistence::default());
        let config_dir = root.path().join("config");
        let config = BrokerConfig::default();
        let live = Arc::new(LiveConfig::new(config.clone(), None));
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence).unwrap());
        let offsets = Arc::new(ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence).unwrap());
        let parts = MasterParts {
            live: Arc::clone(&live),
            store: Arc::clone(&store),
            topics,
            offsets,
            clients: Arc::new(Clients::new()),
            statistics: Arc::new(Statistics::new()),
            levels: levels.clone(),
            clock: clock(),
            forward: clock(),
            store_host: ([127, 0, 0, 1], 10_911).into(),
        };
        let duties = Arc::new(MasterDuties::new(root.path(), parts, Arc::clone(&persistence)));
        let path = TransactionPath { config: live, master_duties: Arc::clone(&duties), store: Arc::clone(&store) };
        let woken = Arc::downgrade(&duties);
        store.on_arrival(move |arrival| {
            if let Some(duties) = woken.upgrade() {
                duties.arrived(arrival);
            }
        });
        duties.start().unwrap();
        House { clock_ms, disk, store, levels, persistence, duties, path, root }
    }

    fn now_ms(&self) -> i64 {
        self.clock_ms.load(Ordering::SeqCst)
    }

    fn pass(&self, ms: i64) {
        self.clock_ms.fetch_add(ms, Ordering::SeqCst);
        self.duties.clock_moved();
    }

    /// Stores a message that waits in a level, for queue 0 of a topic.
    fn delay(&self, level: i32, topic: &str, more: &str) -> AppendedMessage {
        let delay = DelayQueue::of(level, &self.levels).unwrap();
        let text = format!("DELAY\u{1}{level}\u{2}REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}0\u{2}{more}");
        self.store.append(&message(SCHEDULE_TOPIC, delay.queue, b"delayed", &text)).unwrap()
    }

    fn begin(&self, more: &str) -> AppendedMessage {
        let text = format!("REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}0\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}K\u{2}{more}");
        let half =
            NewMessage { born_timestamp: self.now_ms(), ..message(TRANSACTION_HALF_TOPIC, QueueId(0), b"half", &text) };
        let appended = self.store.append(&half).unwrap();
        self.duties.held().unwrap().transactions.began(&appended, half.born_timestamp, None);
        appended
    }

    /// As the producer ends it that was given this place for it.
    fn end(&self, half: &AppendedMessage, commit: bool) -> bool {
        self.end_with(half, commit, "PG", "K")
    }

    fn end_with(&self, half: &AppendedMessage, commit: bool, group: &str, transaction: &str) -> bool {
        let request = EndTransactionRequest {
            producer_group: group.into(),
            tran_state_table_offset: half.queue_offset.as_i64(),
            commit_log_offset: half.physical_offset.as_i64(),
            commit_or_rollback: if commit { SysFlag::TRANSACTION_COMMIT } else { SysFlag::TRANSACTION_ROLLBACK },
            transaction_id: Some(transaction.into()),
            ..EndTransactionRequest::default()
        };
        self.path.end(&self.store.round(), &request, Effort::Full).is_ok()
    }

    fn count(&self, topic: &str, queue: u32) -> u64 {
        self.store.queue_bounds(topic, QueueId(queue)).map_or(0, |bounds| bounds.max.0)
    }

    /// Returns once all that was stored can be seen.
    fn see(&self) {
        wait_until("not all is dispatched", || {
            let marks = self.store.watermarks();
            marks.projected == marks.written
        });
    }

    fn wait_for(&self, topic: &str, queue: u32, count: u64) {
        wait_until(&format!("{topic} never has {count} messages"), || self.count(topic, queue) >= count);
        assert_eq!(self.count(topic, queue), count, "{topic}");
    }

    /// The newest message of a queue 0.
    fn newest(&self, topic: &str) -> bytes::Bytes {
        let last = QueueOffset(self.count(topic, 0) - 1);
        let entry = self.store.queue_entry(topic, QueueId(0), last, Effort::Full).unwrap().unwrap();
        self.store.message_at(entry.physical, Effort::Full).unwrap().unwrap()
    }

    /// Fills the segment that the log ends in, and gives its end.
    fn fill_segment(&self) -> PhysicalOffset {
        let end = PhysicalOffset((self.store.watermarks().written.0 / SEGMENT + 1) * SEGMENT);
        while self.store.watermarks().projected <= end {
            self.store.append(&message("Filler", QueueId(0), &[0; 2048], "")).unwrap();
        }
        end
    }

    /// Who holds the segment that ends there, as the retention asks once.
    fn holders(&self, end: PhysicalOffset) -> Vec<&'static str> {
        self.duties.save_progress();
        let keepers = self.duties.held().unwrap().keepers();
        let holds = |keeper: &Arc<dyn Keeper>| keeper.release_before(end).inspect(|place| assert!(*place < end));
        keepers.iter().filter(|keeper| holds(keeper).is_some()).map(|keeper| keeper.name()).collect()
    }

    /// Asks until nobody does.
    fn wait_free(&self, end: PhysicalOffset) {
        wait_until("the segment is held for ever", || self.holders(end).is_empty());
    }

    /// Asks some times, and has everybody look in between.
    fn assert_held(&self, end: PhysicalOffset, by: &str) {
        for _ in 0..3 {
            assert!(self.holders(end).contains(&by));
            self.duties.settle();
        }
    }

    fn wait_flushed(&self) {
        let written = self.store.watermarks().written;
        self.store.when_safe(written, Want::Disk, |_| ());
        wait_until("the log is not flushed", || self.store.is_safe(written, Want::Disk));
    }

    /// The next start, after a stop. The log before `min` has gone meanwhile.
    fn restarted(self, min: PhysicalOffset) -> House {
        self.restarted_on(min, TroubledDisk::default())
    }

    fn restarted_on(self, min: PhysicalOffset, disk: TroubledDisk) -> House {
        let now_ms = self.now_ms();
        self.duties.stop();
        self.persistence.stop();
        self.store.close().unwrap();
        let root = Arc::clone(&self.root);
        drop(self);
        House::started(root, now_ms, min, disk)
    }

    /// The next start, after a kill in this moment. The log before `min` has gone.
    fn killed(&self, min: PhysicalOffset) -> House {
        House::started(Arc::new(copy_at_an_instant(self.root.path())), self.now_ms(), min, TroubledDisk::default())
    }

    fn started(root: Arc<tempfile::TempDir>, now_ms: i64, min: PhysicalOffset, disk: TroubledDisk) -> House {
        remove_before(&root.path().join("commitlog"), min);
        let house = House::on(root, now_ms, disk);
        assert!(house.store.watermarks().min >= min);
        house
    }

    fn next(self, is_killed: bool, min: PhysicalOffset) -> House {
        if is_killed { self.killed(min) } else { self.restarted(min) }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.duties.stop());
    }
}

fn remove_before(log: &Path, min: PhysicalOffset) {
    for entry in std::fs::read_dir(log).unwrap() {
        let path = entry.unwrap().path();
        let start: Option<u64> = path.file_name().unwrap().to_str().and_then(|name| name.parse().ok());
        if start.is_some_and(|start| start + SEGMENT <= min.0) {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_delayed_message_outlives_its_segment_and_comes_once_at_its_time() {
    for is_killed in [false, true] {
        let house = House::new();
        house.delay(1, "Came", "");
        house.pass(1_000);
        house.wait_for("Came", 0, 1);
        house.delay(LEVEL, "Hour", "");
        house.delay(LEVEL, "Hour", "");
        let end = house.fill_segment();
        house.delay(LEVEL, "Behind", "");
        house.see();
        house.wait_free(end);
        // Its copies are on the disk, and may not be in their queue yet.
        house.see();
        assert_eq!(house.count(TIMER_TOPIC, 0), 2, "what waits there, and no more");
        let house = house.next(is_killed, end);
        house.pass(HOUR - 1);
        house.duties.settle();
        assert_eq!((house.count("Hour", 0), house.count("Behind", 0)), (0, 0));
        house.pass(1);
        house.wait_for("Hour", 0, 2);
        house.wait_for("Behind", 0, 1);
        house.duties.stop();
        house.see();
        assert_eq!(["Hour", "Behind", "Came"].map(|topic| house.count(topic, 0)), [2, 1, 1]);
    }
}

/// The retention goes on while a broker stops, and nobody carries anything on any more.
#[test]
fn what_waits_holds_its_segments_until_the_store_is_closed() {
    let house = House::new();
    house.delay(LEVEL, "Hour", "");
    house.begin("");
    let end = house.fill_segment();
    house.see();
    let holding = house.duties.stop();
    assert!(house.duties.held().is_err());
    // As the store has them.
    let known: Vec<_> = holding.iter().map(Arc::downgrade).collect();
    let holders = || -> Vec<_> {
        let there = known.iter().filter_map(Weak::upgrade);
        there.filter(|keeper| keeper.release_before(end).is_some()).map(|keeper| keeper.name()).collect()
    };
    assert_eq!(holders(), ["timers", "open transactions", "delay levels"]);
    house.store.close().unwrap();
    drop(holding);
    assert!(holders().is_empty());
}

#[test]
fn a_delayed_message_whose_copy_is_not_on_the_disk_holds_its_segment() {
    let house = House::new();
    house.delay(LEVEL, "Hour", "");
    let end = house.fill_segment();
    let held = house.disk.hold_log();
    wait_until("it is not stored again", || {
        assert!(house.holders(end).contains(&"delay levels"));
        house.count(TIMER_TOPIC, 0) == 1
    });
    house.assert_held(end, "delay levels");
    let both = house.killed(PhysicalOffset(0));
    both.pass(HOUR);
    wait_until("it does not come", || both.count("Hour", 0) > 0);
    both.duties.settle();
    both.see();
    assert!(both.count("Hour", 0) <= 2);
    drop(held);
    house.wait_free(end);
    let copy = house.killed(end);
    copy.pass(HOUR);
    copy.wait_for("Hour", 0, 1);
}

#[test]
fn a_delayed_message_without_room_to_say_until_when_waits_its_delay_again() {
    let house = House::new();
    let own = "DELAY\u{1}3\u{2}REAL_TOPIC\u{1}Hour\u{2}REAL_QID\u{1}0\u{2}P\u{1}\u{2}".len();
    house.delay(LEVEL, "Hour", &format!("P\u{1}{}\u{2}", "x".repeat(PROPERTIES_MAX - own)));
    house.pass(HOUR / 2);
    let end = house.fill_segment();
    house.wait_free(end);
    let house = house.restarted(end);
    house.pass(HOUR - 1);
    house.duties.settle();
    assert_eq!(house.count("Hour", 0), 0);
    house.pass(1);
    house.wait_for("Hour", 0, 1);
}

#[test]
fn a_delayed_message_that_is_carried_on_takes_nothing_back() {
    let house = House::new();
    house.delay(LEVEL, "Hour", "UNIQ_KEY\u{1}k\u{2}");
    house.delay(LEVEL, "Hour", "TIMER_DEL_UNIQKEY\u{1}Hour+k\u{2}");
    let end = house.fill_segment();
    house.wait_free(end);
    let house = house.restarted(end);
    house.pass(HOUR);
    house.wait_for("Hour", 0, 2);
}

#[test]
fn delayed_messages_make_room_on_a_disk_that_counts_as_full() {
    let house = House::new();
    house.delay(1, "Second", "");
    house.delay(LEVEL, "Hour", "");
    let end = house.fill_segment();
    let disk = TroubledDisk::default();
    disk.pretend_used(0.99);
    let house = house.restarted_on(PhysicalOffset(0), disk);
    wait_until("the disk does not count as full", || house.store.check_writable().is_err());
    house.pass(1_000);
    house.wait_free(end);
    assert_eq!(house.count("Second", 0), 0);
    house.wait_for(TIMER_TOPIC, 0, 2);
    // The levels come in either order.
    let until = [0, 1].map(|offset| {
        let entry = house.store.queue_entry(TIMER_TOPIC, QueueId(0), QueueOffset(offset), Effort::Full);
        let bytes = house.store.message_at(entry.unwrap().unwrap().physical, Effort::Full).unwrap().unwrap();
        Record::parse(&bytes).unwrap().property(names::TIMER_OUT_MS).map(|until| until.into_owned())
    });
    assert!(until.contains(&Some((house.now_ms() + 10_000).to_string())), "it is due as it comes: {until:?}");
    let house = house.killed(end);
    house.pass(10_000);
    house.wait_for("Second", 0, 1);
    house.pass(HOUR);
    house.wait_for("Hour", 0, 1);
}

#[test]
fn an_open_transaction_outlives_its_segment_however_often_and_ends_once() {
    for is_killed in [false, true] {
        for commit in [false, true] {
            let mut house = House::new();
            let half = house.begin("");
            for times in 1..=3 {
                let end = house.fill_segment();
                house.wait_free(end);
                house = house.next(is_killed, end);
                assert_eq!(house.count(TRANSACTION_HALF_TOPIC, 0), 1 + times, "stored again once");
            }
            let bytes = house.newest(TRANSACTION_HALF_TOPIC);
            let record = Record::parse(&bytes).unwrap();
            let said = [names::TRANSACTION_PREPARED_QUEUE_OFFSET, names::TRANSACTION_CHECK_TIMES];
            assert_eq!(
                said.map(|name| record.property(name).map(|value| value.into_owned())),
                [Some("0".into()), None]
            );
            assert!(!house.end_with(&half, commit, "Other", "K"));
            assert!(!house.end_with(&half, commit, "PG", "other"));
            assert!(house.end(&half, commit));
            house.see();
            assert_eq!(house.count("T", 0), u64::from(commit));
            // It has ended, and is not known any more.
            assert!(!house.end(&half, true));
            let house = house.restarted(PhysicalOffset(0));
            assert!(!house.end(&half, true));
            house.see();
            assert_eq!(house.count("T", 0), u64::from(commit));
        }
    }
}

#[test]
fn a_transaction_killed_while_it_is_carried_on_is_one() {
    let house = House::new();
    let half = house.begin("");
    let end = house.fill_segment();
    let held = house.disk.hold_log();
    wait_until("it is not stored again", || {
        assert!(house.holders(end).contains(&"open transactions"));
        house.count(TRANSACTION_HALF_TOPIC, 0) == 2
    });
    house.assert_held(end, "open transactions");
    let both = house.killed(PhysicalOffset(0));
    assert!(both.end(&half, true) && both.end(&half, true));
    both.see();
    both.wait_free(end);
    let both = both.killed(end);
    assert!(!both.end(&half, true));
    assert_eq!(both.count("T", 0), 1);
    drop(held);
    house.wait_free(end);
}

#[test]
fn an_end_that_is_not_on_the_disk_holds_the_segment_of_its_half() {
    let house = House::new();
    let half = house.begin("");
    let end = house.fill_segment();
    house.wait_flushed();
    let held = house.disk.hold_log();
    assert!(house.end(&half, true));
    house.assert_held(end, "open transactions");
    drop(held);
    house.wait_free(end);
    assert_eq!(house.count(TRANSACTION_HALF_TOPIC, 0), 1, "it is not stored again");
}

#[test]
fn a_half_at_the_limit_of_its_properties_outlives_its_segment() {
    let house = House::new();
    let id = "__transactionId__\u{1}K\u{2}";
    let own =
        format!("REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}0\u{2}PGROUP\u{1}PG\u{2}UNIQ_KEY\u{1}K\u{2}P\u{1}\u{2}{id}").len();
    // Room for nothing more, but for what the id takes.
    let half = house.begin(&format!("P\u{1}{}\u{2}{id}", "x".repeat(PROPERTIES_MAX - own - 20)));
    let end = house.fill_segment();
    house.wait_free(end);
    let house = house.killed(end);
    assert!(house.end(&half, true));
    house.see();
    let bytes = house.newest("T");
    assert_eq!(Record::parse(&bytes).unwrap().property(names::TRANSACTION_ID).as_deref(), Some("K"));
}
