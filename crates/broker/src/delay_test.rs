//! Delivery of delayed messages over a real store, with a clock of the test's own.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;

use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_store::{AllMessages, Disk, Effort, LocalDisk, ReadLimits, StoreConfig, Want};

use super::*;
use crate::config::BrokerConfig;
use crate::destination::DelayQueue;
use crate::live_config::LiveConfig;
use crate::testing::{BAD_SECTOR, NO_DESCRIPTORS, TroubledDisk, break_queue, message, wait_refused, wait_until};

const START: i64 = 1_795_220_000_000;
/// How long a test waits for another thread before it gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// A store, the delays over it, and the clock of both.
struct House {
    clock_ms: Arc<AtomicI64>,
    forward_ms: Arc<AtomicI64>,
    store: Arc<Store>,
    persistence: Persistence,
    delays: Arc<Delays>,
    /// Topic and queue offset of everything that becomes visible.
    arrivals: mpsc::Receiver<(String, u64)>,
    /// Last: removed when nobody writes to it any more.
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        House::at(tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(START)), "1s 5s 10s")
    }

    fn at(directory: tempfile::TempDir, clock_ms: Arc<AtomicI64>, levels: &str) -> House {
        House::on(directory, clock_ms, levels, Arc::new(LocalDisk))
    }

    fn on(directory: tempfile::TempDir, clock_ms: Arc<AtomicI64>, levels: &str, disk: Arc<dyn Disk>) -> House {
        let levels = DelayLevels::parse(levels).unwrap();
        let time = Arc::clone(&clock_ms);
        let clock = Clock::from_fn(move || time.load(Ordering::SeqCst));
        let forward_ms = Arc::new(AtomicI64::new(START));
        let passed = Arc::clone(&forward_ms);
        let forward = Clock::from_fn(move || passed.load(Ordering::SeqCst));
        let config = StoreConfig {
            segment_len: 1 << 20,
            queue_file_entries: 1000,
            index_slots: 100,
            index_entries: 1000,
            delay_levels: levels.clone(),
            clock: clock.clone(),
            disk,
            ..StoreConfig::at(directory.path())
        };
        let store = Arc::new(Store::open(config).unwrap());
        let persistence = Persistence::default();
        let statistics = Arc::new(Statistics::new());
        let config_dir = directory.path().join("config");
        let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence).unwrap());
        let parts = DelayParts { store: Arc::clone(&store), topics, statistics, levels, clock, forward };
        let delays = Delays::open(&config_dir, parts, &persistence).unwrap();
        let delays = Arc::new(delays);
        let (arrived, arrivals) = mpsc::channel();
        let woken = Arc::downgrade(&delays);
        store.on_arrival(move |arrival| {
            if let Some(delays) = woken.upgrade() {
                delays.arrived(arrival);
            }
            // The test may have ended.
            let _ = arrived.send((arrival.topic.to_owned(), arrival.queue_offset.0));
        });
        delays.start().unwrap();
        House { clock_ms, forward_ms, store, persistence, delays, arrivals, directory }
    }

    /// Stores a message that waits, and returns once the delays could have seen it.
    fn delay(&self, level: i32, topic: &str, body: &str) {
        self.delay_for(level, &format!("REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}1\u{2}"), body);
    }

    /// As [`delay`](Self::delay), for wherever the properties say.
    fn delay_for(&self, level: i32, place: &str, body: &str) {
        let delay = DelayQueue::of(level, &self.delays.delivery.parts.levels).unwrap();
        let text = format!("TAGS\u{1}TagA\u{2}DELAY\u{1}{}\u{2}{place}", delay.level);
        self.store
            .append(&NewMessage {
                flag: 7,
                born_timestamp: START - 5,
                born_host: "10.0.0.1:4000".parse().unwrap(),
                reconsume_times: 2,
                ..message(SCHEDULE_TOPIC, delay.queue, body.as_bytes(), &text)
            })
            .unwrap();
        assert_eq!(self.next_arrival().0, SCHEDULE_TOPIC);
    }

    fn next_arrival(&self) -> (String, u64) {
        self.arrivals.recv_timeout(PATIENCE).expect("nothing arrived")
    }

    fn pass(&self, ms: i64) {
        self.clock_ms.fetch_add(ms, Ordering::SeqCst);
        self.forward_ms.fetch_add(ms, Ordering::SeqCst);
        self.delays.clock_moved();
    }

    /// Waits until the thread sleeps, having looked at everything.
    fn settle(&self) {
        wait_until("the delay thread does not come to rest", || self.delays.worker.bell().sleeps());
    }

    /// Waits until all that was stored can be seen.
    fn see(&self) {
        wait_until("not all is dispatched", || {
            let marks = self.store.watermarks();
            marks.projected == marks.written
        });
    }

    /// How many messages of a level have been put into their topics.
    fn delivered(&self, level: i32) -> i64 {
        self.delays.table().offset_table.get(&level).copied().unwrap_or(0)
    }

    fn bodies(&self, topic: &str) -> Vec<String> {
        let read = self
            .store
            .read(topic, QueueId(1), QueueOffset(0), ReadLimits::count(100), &AllMessages, Effort::Full)
            .unwrap();
        read.chunks
            .iter()
            .flat_map(|chunk| ferromq_protocol::message::Records::new(chunk))
            .map(|record| String::from_utf8(record.unwrap().body().to_vec()).unwrap())
            .collect()
    }

    fn close(self) -> (tempfile::TempDir, Arc<AtomicI64>) {
        self.delays.stop();
        self.store.close().unwrap();
        self.delays.close(true, &self.persistence);
        (self.directory, self.clock_ms)
    }
}

#[test]
fn a_message_comes_when_it_is_due_and_not_before() {
    let house = House::new();
    house.delay(1, "TopicA", "one second");
    house.delay(2, "TopicA", "five seconds");
    house.pass(999);
    house.settle();
    assert!(house.bodies("TopicA").is_empty());
    house.pass(1);
    assert_eq!(house.next_arrival(), ("TopicA".to_owned(), 0));
    house.settle();
    assert_eq!(house.bodies("TopicA"), ["one second"]);
    house.pass(4000);
    assert_eq!(house.next_arrival(), ("TopicA".to_owned(), 1));
    house.settle();
    assert_eq!(house.delays.progress(), [(1, QueueOffset(1), QueueOffset(1)), (2, QueueOffset(1), QueueOffset(1))]);
}

#[test]
fn what_can_never_be_delivered_holds_up_nobody() {
    let house = House::new();
    let places = [("a/b", "1"), ("..", "1"), ("T\0", "1"), ("T", "4294967295"), ("T", "-1"), ("T", "one"), ("T", "")];
    let closed = ["RMQ_SYS_TRANS_HALF_TOPIC", "SCHEDULE_TOPIC_XXXX", "rmq_sys_wheel_timer", "SELF_TEST_TOPIC"];
    let long = ["t".repeat(128), format!("%RETRY%{}", "g".repeat(249))];
    let topics = closed.into_iter().chain(long.iter().map(String::as_str)).map(|topic| (topic, "1"));
    for (topic, queue) in places.into_iter().chain(topics) {
        house.delay_for(1, &format!("REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}{queue}\u{2}"), "nowhere");
    }
    for place in ["", "REAL_TOPIC\u{1}T\u{2}", "REAL_QID\u{1}1\u{2}"] {
        house.delay_for(1, place, "nowhere");
    }
    house.delay(1, "T", "behind them");
    house.pass(1000);
    assert_eq!(house.next_arrival(), ("T".to_owned(), 0));
    assert_eq!(house.bodies("T"), ["behind them"]);
}

#[test]
fn whatever_a_level_has_lost_what_is_behind_it_comes() {
    const COUNT: usize = 4;
    // The last entry would be made good at the start.
    for lost in 0..1_u32 << (COUNT - 1) {
        let is_lost = |at: usize| lost & 1 << at != 0;
        let house = House::new();
        for at in 0..COUNT {
            house.delay(3, "TopicA", &at.to_string());
        }
        let (directory, clock) = house.close();
        // As an open leaves the place of a record whose bytes are damaged.
        let queue = directory.path().join("consumequeue/SCHEDULE_TOPIC_XXXX/2/00000000000000000000");
        let mut entries = std::fs::read(&queue).unwrap();
        for at in (0..COUNT).filter(|at| is_lost(*at)) {
            entries[at * 20 + 8..][..12]
                .copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 255, 255, 255, 255, 255, 255, 255, 255]);
        }
        std::fs::write(&queue, entries).unwrap();
        let house = House::at(directory, clock, "1s 5s 10s");
        house.delay(3, "TopicA", "new");
        house.pass(10_000);
        house.settle();
        assert_eq!(house.delivered(3), COUNT as i64 + 1, "lost: {lost:04b}");
        let mut expected: Vec<_> = (0..COUNT).filter(|at| !is_lost(*at)).map(|at| at.to_string()).collect();
        expected.push("new".to_owned());
        for _ in &expected {
            house.next_arrival();
        }
        assert_eq!(house.bodies("TopicA"), expected, "lost: {lost:04b}");
    }
}

#[test]
fn a_record_that_is_damaged_costs_itself_with_the_queues_built_again() {
    let house = House::new();
    house.delay(3, "TopicA", "damaged");
    house.delay(3, "TopicA", "behind it");
    let (directory, clock) = house.close();
    let log = directory.path().join("commitlog/00000000000000000000");
    let mut bytes = std::fs::read(&log).unwrap();
    let body = bytes.windows(7).position(|window| window == b"damaged").unwrap();
    bytes[body] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    std::fs::remove_dir_all(directory.path().join("consumequeue")).unwrap();
    let house = House::at(directory, clock, "1s 5s 10s");
    house.pass(10_000);
    house.settle();
    assert_eq!(house.delivered(3), 2);
    house.next_arrival();
    assert_eq!(house.bodies("TopicA"), ["behind it"]);
}

#[test]
fn an_entry_on_a_bad_sector_costs_its_message_and_one_that_cannot_be_read_now_none() {
    for (error, count) in [(BAD_SECTOR, 1), (NO_DESCRIPTORS, 3)] {
        let disk = Arc::new(TroubledDisk::default());
        let (directory, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicI64::new(START)));
        let house = House::on(directory, clock, "1s", Arc::clone(&disk) as Arc<dyn Disk>);
        for body in ["one", "two", "three"] {
            house.delay(1, "TopicA", body);
        }
        disk.refuse("/SCHEDULE_TOPIC_XXXX/0/", 0..40, error);
        for at in [0, 1] {
            wait_refused(|| house.store.queue_entry(SCHEDULE_TOPIC, QueueId(0), QueueOffset(at), Effort::Full));
        }
        house.pass(1_000);
        house.settle();
        disk.recover();
        wait_until("not all are delivered", || house.delivered(1) == 3);
        house.see();
        assert_eq!(house.bodies("TopicA").len(), count, "{error}");
    }
}

#[test]
fn a_queue_that_takes_no_messages_holds_up_its_own_alone() {
    let house = House::new();
    house.delays.delivery.parts.topics.update(crate::topics::new_config("Broken", 1, 6)).unwrap();
    break_queue(&house.store, "Broken", QueueId(0), &house.directory.path().join("consumequeue/Broken"));
    for topic in ["Broken", "Other"] {
        house.delay(1, topic, topic);
    }
    house.pass(1_000);
    house.settle();
    assert_eq!(house.delivered(1), 2);
    let mut arrived = [house.next_arrival().0, house.next_arrival().0];
    arrived.sort_unstable();
    assert_eq!(arrived, ["Other", TIMER_TOPIC]);
    let entry = house.store.queue_entry(TIMER_TOPIC, QueueId(0), QueueOffset(0), Effort::Full).unwrap().unwrap();
    let bytes = house.store.message_at(entry.physical, Effort::Full).unwrap().unwrap();
    let text = Record::parse(&bytes).unwrap().properties().into_owned();
    let until = START + 1_000 + 10_000;
    let waits = format!("TIMER_OUT_MS\u{1}{until}\u{2}REAL_TOPIC\u{1}Broken\u{2}REAL_QID\u{1}0\u{2}");
    assert!(text.ends_with(&waits), "{text:?}");
}

/// One whose properties have no room for a time, and one that finds the timers behind as well.
#[test]
fn what_cannot_wait_as_a_timer_waits_in_its_level_once_more() {
    for timers_are_behind in [false, true] {
        let house = House::new();
        house.delays.delivery.parts.topics.update(crate::topics::new_config("Broken", 1, 6)).unwrap();
        let queues = house.directory.path().join("consumequeue");
        let made_up_for = break_queue(&house.store, "Broken", QueueId(0), &queues.join("Broken"));
        if timers_are_behind {
            break_queue(&house.store, TIMER_TOPIC, QueueId(0), &queues.join(TIMER_TOPIC));
        }
        let place = "REAL_TOPIC\u{1}Broken\u{2}REAL_QID\u{1}0\u{2}";
        let others = "TAGS\u{1}TagA\u{2}DELAY\u{1}1\u{2}".len() + place.len() + "P\u{1}\u{2}".len();
        let room = if timers_are_behind { 0 } else { usize::from(i16::MAX.unsigned_abs()) - others };
        house.delay_for(1, &format!("P\u{1}{}\u{2}{place}", "x".repeat(room)), "waits");
        house.delay(1, "Other", "other");
        house.pass(1_000);
        house.settle();
        assert_eq!(house.delivered(1), 2, "the level is stuck");
        let count = |topic, queue| house.store.queue_bounds(topic, QueueId(queue)).map_or(0, |bounds| bounds.max.0);
        wait_until("it is lost", || (count("Other", 1), count(SCHEDULE_TOPIC, 0)) == (1, 3));
        // Its delay begins anew.
        house.pass(999);
        house.settle();
        assert_eq!(house.delivered(1), 2);
        std::fs::remove_file(queues.join("Broken")).unwrap();
        wait_until("it is not delivered", || {
            house.pass(1_000);
            house.settle();
            count("Broken", 0) > made_up_for
        });
    }
}

#[test]
fn a_topic_that_has_lost_queues_gets_its_message_in_one_it_has() {
    let house = House::new();
    let topics = &house.delays.delivery.parts.topics;
    topics.update(crate::topics::new_config("Shrunk", 2, 6)).unwrap();
    house.delay_for(1, "REAL_TOPIC\u{1}Shrunk\u{2}REAL_QID\u{1}7\u{2}", "still seen");
    house.pass(1000);
    assert_eq!(house.next_arrival().0, "Shrunk");
    assert_eq!(house.bodies("Shrunk"), ["still seen"]);
}

#[test]
fn the_delivered_copy_is_as_java_writes_it() {
    let house = House::new();
    house.delay(1, "TopicA", "body");
    house.pass(1000);
    house.next_arrival();
    let entry = house.store.queue_entry("TopicA", QueueId(1), QueueOffset(0), Effort::Full).unwrap().unwrap();
    let bytes = house.store.message_at(entry.physical, Effort::Full).unwrap().unwrap();
    let record = Record::parse(&bytes).unwrap();
    // Tags count again, the reserved properties stay in the text, and everything else is the producer's.
    assert_eq!(entry.tags_code, 2_598_919);
    assert_eq!(record.properties(), "TAGS\u{1}TagA\u{2}DELAY\u{1}1\u{2}REAL_TOPIC\u{1}TopicA\u{2}REAL_QID\u{1}1\u{2}");
    assert_eq!((record.flag(), record.reconsume_times(), record.born_timestamp()), (7, 2, START - 5));
    assert_eq!(record.born_host(), "10.0.0.1:4000".parse().unwrap());
}

#[test]
fn stopped_and_started_again_it_goes_on_where_it_was() {
    let house = House::new();
    for round in 1..4 {
        house.delays.stop();
        house.delay(1, "TopicA", &round.to_string());
        house.pass(1000);
        house.delays.start().unwrap();
        house.next_arrival();
        house.settle();
        assert_eq!(house.delivered(1), round);
    }
    assert_eq!(house.bodies("TopicA"), ["1", "2", "3"]);
}

#[test]
fn a_clean_restart_delivers_nothing_twice() {
    let house = House::new();
    house.delay(1, "TopicA", "first");
    house.pass(1000);
    house.next_arrival();
    house.settle();
    house.delay(1, "TopicA", "second");
    let (directory, clock) = house.close();
    let saved = std::fs::read_to_string(directory.path().join("config/delayOffset.json")).unwrap();
    assert!(saved.contains("\"offsetTable\":{1:1\n\t}"), "{saved}");
    clock.fetch_add(60_000, Ordering::SeqCst);
    let house = House::at(directory, clock, "1s 5s 10s");
    assert_eq!(house.next_arrival(), ("TopicA".to_owned(), 1));
    assert_eq!(house.bodies("TopicA"), ["first", "second"]);
}

#[test]
fn a_crash_delivers_again_what_was_not_saved() {
    let house = House::new();
    house.delay(1, "TopicA", "first");
    house.pass(1000);
    house.next_arrival();
    house.settle();
    // As a crash leaves it: the store has the copy, the file does not say so.
    house.delays.stop();
    house.persistence.stop();
    house.store.close().unwrap();
    let House { directory, clock_ms, .. } = house;
    assert!(!directory.path().join("config/delayOffset.json").exists());
    let house = House::at(directory, clock_ms, "1s 5s 10s");
    assert_eq!(house.next_arrival(), ("TopicA".to_owned(), 1));
    assert_eq!(house.bodies("TopicA"), ["first", "first"]);
}

#[test]
fn offsets_are_saved_only_when_the_copies_are_on_disk() {
    let house = House::new();
    house.delay(1, "TopicA", "first");
    house.pass(1000);
    house.next_arrival();
    house.settle();
    house.delays.save_if_changed();
    let end = house.store.watermarks().written;
    let (done, flushed) = mpsc::channel();
    house.store.when_safe(end, Want::Disk, move |outcome| done.send(outcome).unwrap());
    flushed.recv_timeout(PATIENCE).unwrap().unwrap();
    house.delays.save_if_changed();
    assert_eq!(house.delays.delivery.progress.lock().saved.offsets[&1], QueueOffset(1));
}

#[test]
fn a_clock_that_is_set_changes_no_delay() {
    for by_ms in [-3_600_000, 3_600_000] {
        let house = House::new();
        house.delay(1, "TopicA", "before");
        house.pass(400);
        house.delay(1, "TopicA", "later");
        house.settle();
        house.clock_ms.fetch_add(by_ms, Ordering::SeqCst);
        house.delays.clock_moved();
        house.settle();
        house.pass(200);
        house.delay(1, "TopicA", "after");
        for (passes, count) in [(399, 0), (1, 1), (399, 1), (1, 2), (199, 2), (1, 3)] {
            house.pass(passes);
            house.settle();
            assert_eq!(house.delivered(1), count, "the clock set by {by_ms} ms");
        }
    }
}

#[test]
fn a_clock_set_back_while_the_broker_was_down_holds_each_message_for_its_delay_at_most() {
    let house = House::new();
    for _ in 0..50 {
        house.delay(1, "TopicA", "late");
        house.pass(1);
    }
    let (directory, clock_ms) = house.close();
    clock_ms.fetch_sub(3_600_000, Ordering::SeqCst);
    let house = House::at(directory, clock_ms, "1s 5s 10s");
    house.settle();
    house.pass(999);
    house.settle();
    assert_eq!(house.delivered(1), 0);
    // As far apart as they were stored, and not each a second after the one before.
    house.pass(1 + 50);
    house.settle();
    assert_eq!(house.delivered(1), 50);
}

#[test]
fn what_waits_in_a_level_that_was_removed_comes_when_it_was_to_come() {
    let house = House::new();
    house.delay(3, "TopicA", "ten seconds");
    house.delay(3, "TopicA", "ten seconds too");
    house.delay(1, "TopicA", "one second");
    let (directory, clock) = house.close();
    let house = House::at(directory, clock, "1s");
    house.pass(1000);
    assert_eq!(house.next_arrival(), ("TopicA".to_owned(), 0));
    house.pass(8999);
    house.settle();
    assert_eq!(house.bodies("TopicA"), ["one second"]);
    house.pass(1);
    house.next_arrival();
    house.next_arrival();
    house.settle();
    assert_eq!(house.bodies("TopicA"), ["one second", "ten seconds", "ten seconds too"]);
    // How far that level is stays known: it delivers nothing twice, and goes on should it come back.
    let (directory, clock) = house.close();
    let house = House::at(directory, clock, "1s");
    house.settle();
    assert_eq!(house.bodies("TopicA").len(), 3);
}

#[test]
fn a_clock_that_was_set_back_holds_a_message_of_a_removed_level_for_its_delay_at_most() {
    let house = House::new();
    house.delay(3, "TopicA", "ten seconds");
    let (directory, clock) = house.close();
    clock.fetch_sub(3_600_000, Ordering::SeqCst);
    let house = House::at(directory, clock, "1s 5s");
    house.settle();
    house.pass(9999);
    house.settle();
    assert!(house.bodies("TopicA").is_empty());
    house.pass(1);
    assert_eq!(house.next_arrival().0, "TopicA");
}

#[test]
fn an_offset_beyond_the_queue_that_cannot_be_brought_back_stops_the_start() {
    let house = House::new();
    let (directory, _) = house.close();
    let config_dir = directory.path().join("config");
    let path = config_dir.join("delayOffset.json");
    std::fs::write(&path, r#"{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":5},"offsetTable":{"1":12}}"#)
        .unwrap();
    // As a full disk: the new version cannot be written.
    std::fs::create_dir_all(path.with_extension("json.tmp")).unwrap();
    let open = || {
        let store =
            Arc::new(Store::open(StoreConfig { segment_len: 1 << 20, ..StoreConfig::at(directory.path()) }).unwrap());
        let persistence = Persistence::default();
        let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence).unwrap());
        let clock = Clock::system();
        let levels = DelayLevels::parse("1s").unwrap();
        let statistics = Arc::new(Statistics::new());
        let parts = DelayParts { store, topics, statistics, levels, clock: clock.clone(), forward: clock };
        Delays::open(&config_dir, parts, &persistence).map(|delays| delays.table().offset_table)
    };
    let error = open().expect_err("it counts as delivered what is still to come").to_string();
    assert!(error.contains("delayOffset.json cannot be saved: ") && error.contains("start again"), "{error}");
    std::fs::remove_dir(path.with_extension("json.tmp")).unwrap();
    assert_eq!(open().unwrap()[&1], 0);
}

#[test]
fn an_offset_beyond_the_queue_is_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("config")).unwrap();
    std::fs::write(
        directory.path().join("config/delayOffset.json"),
        "{\"dataVersion\":{\"counter\":2,\"stateVersion\":0,\"timestamp\":5},\"offsetTable\":{1:12,3:4\n}}",
    )
    .unwrap();
    let house = House::at(directory, Arc::new(AtomicI64::new(START)), "1s 5s 10s");
    assert_eq!(house.delays.table().offset_table.into_iter().collect::<Vec<_>>(), [(1, 0), (3, 0)]);
    // On disk as well, before anything can be stored that a second crash would count as delivered.
    let saved = std::fs::read_to_string(house.directory.path().join("config/delayOffset.json")).unwrap();
    assert!(saved.contains("\"offsetTable\":{1:0,3:0\n\t}"), "{saved}");
    house.delay(1, "TopicA", "first");
    house.pass(1000);
    assert_eq!(house.next_arrival().0, "TopicA");
}
