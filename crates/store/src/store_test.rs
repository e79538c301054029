//! Scenarios of a whole store: what is read back, what survives, what is refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

use ferromq_protocol::message::{Record, Records, SysFlag};
use ferromq_protocol::topics::SCHEDULE_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use proptest::prelude::*;

use super::*;
use crate::testing::*;
use crate::{
    AllMessages, AppendError, Appended, Boundary, CloseError, Effort, FlushOutcome, MessageFilter, ReadLimits,
    ReadStatus, TruncateError,
};

const T: &str = "TopicT";
const Q: QueueId = QueueId(0);

fn put_with(store: &Store, properties: &str) {
    store.append(&message(T, 0, b"x", properties)).unwrap();
}

fn put(store: &Store, body: &[u8]) -> Appended {
    store.append(&message(T, 0, body, "")).unwrap()
}

fn status(store: &Store, from: u64) -> (ReadStatus, u64) {
    let outcome = store.read(T, Q, QueueOffset(from), ReadLimits::count(32), &AllMessages, Effort::Full).unwrap();
    (outcome.status, outcome.next_offset.0)
}

/// The bytes of the log from its first file, up to its end.
fn log_file(site: &Site) -> PathBuf {
    site.dir.path().join("store/commitlog/00000000000000000000")
}

#[test]
fn a_listener_that_panics_holds_up_nobody() {
    let site = Site::new();
    let store = site.open();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    store.on_arrival(|arrival| assert!(arrival.queue_offset != QueueOffset(0), "a bug"));
    let seen = Arc::clone(&arrivals);
    store.on_arrival(move |arrival| seen.lock().push(arrival.queue_offset));
    put(&store, b"its trigger");
    put(&store, b"another");
    settle(&store);
    wait_until(|| arrivals.lock().len() == 2);
    assert_eq!(*arrivals.lock(), [QueueOffset(0), QueueOffset(1)]);
    store.close().unwrap();
}

#[test]
fn a_message_goes_in_and_comes_out() {
    let site = Site::new();
    let store = site.open();
    assert!(site.dir.path().join("store/abort").exists());
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&arrivals);
    store.on_arrival(move |arrival| {
        seen.lock().push((arrival.topic.to_owned(), arrival.queue_id, arrival.queue_offset, arrival.tags_code));
    });
    let first = store.append(&message(T, 0, b"hello", "TAGS\u{1}TagA\u{2}")).unwrap();
    assert_eq!((first.physical_offset, first.queue_offset), (PhysicalOffset(0), QueueOffset(0)));
    assert_eq!(first.store_timestamp, START_MS);
    let second = put(&store, b"world");
    assert_eq!((second.physical_offset, second.queue_offset), (first.end, QueueOffset(1)));
    settle(&store);
    let outcome = store.read(T, Q, QueueOffset(0), ReadLimits::count(32), &AllMessages, Effort::Full).unwrap();
    assert_eq!((outcome.status, outcome.count, outcome.next_offset), (ReadStatus::Found, 2, QueueOffset(2)));
    assert_eq!((outcome.min_offset, outcome.max_offset, outcome.chunks.len()), (QueueOffset(0), QueueOffset(2), 1));
    let bodies: Vec<_> = Records::new(&outcome.chunks[0]).map(|record| record.unwrap().body().to_vec()).collect();
    assert_eq!(bodies, [b"hello", b"world"]);
    wait_until(|| arrivals.lock().len() == 2);
    assert_eq!(arrivals.lock()[0], (T.to_owned(), Q, QueueOffset(0), 2_598_919));
    assert_eq!(store.message_at(second.physical_offset, Effort::Full).unwrap().unwrap().len(), second.record_len);
    assert_eq!(store.message_at(PhysicalOffset(1), Effort::Full).unwrap(), None);
    assert_eq!(store.message_at(PhysicalOffset(u64::MAX), Effort::Full).unwrap(), None);
    let stats = store.stats();
    assert_eq!((stats.put_count, stats.read_count, stats.queues, stats.dispatch_behind), (2, 2, 1, 0));
    store.close().unwrap();
    assert!(!site.dir.path().join("store/abort").exists());
    assert!(matches!(store.append(&message(T, 0, b"", "")), Err(AppendError::Closed)));
    assert!(store.close().is_ok());
}

#[test]
fn every_read_status() {
    let site = Site::new();
    let store = site.open();
    assert_eq!(status(&store, 5), (ReadStatus::NoMessageInQueue, 0));
    for body in 0..3_u8 {
        put(&store, &[body]);
    }
    // A queue whose first append is being dispatched.
    store.queues.find_or_make(T, QueueId(1));
    let empty = store.read(T, QueueId(1), QueueOffset(0), ReadLimits::count(1), &AllMessages, Effort::Full).unwrap();
    assert_eq!((empty.status, empty.next_offset), (ReadStatus::NoMessageInQueue, QueueOffset(0)));
    settle(&store);
    assert_eq!(status(&store, 0), (ReadStatus::Found, 3));
    assert_eq!(status(&store, 3), (ReadStatus::OffsetOverflowOne, 3));
    assert_eq!(status(&store, 9), (ReadStatus::OffsetOverflowBadly, 3));
    struct Nothing;
    impl MessageFilter for Nothing {
        fn matches_tags_code(&self, _: Option<i64>) -> bool {
            false
        }
    }
    let outcome = store.read(T, Q, QueueOffset(1), ReadLimits::count(1), &Nothing, Effort::Full).unwrap();
    assert_eq!((outcome.status, outcome.next_offset), (ReadStatus::NoMatchedMessage, QueueOffset(3)));
    struct BodyIs(u8);
    impl MessageFilter for BodyIs {
        fn matches_tags_code(&self, _: Option<i64>) -> bool {
            true
        }
        fn reads_records(&self) -> bool {
            true
        }
        fn matches_record(&self, record: &Record<'_>) -> bool {
            record.body() == [self.0]
        }
    }
    let outcome = store.read(T, Q, QueueOffset(0), ReadLimits::count(9), &BodyIs(1), Effort::Full).unwrap();
    assert_eq!((outcome.status, outcome.count, outcome.next_offset), (ReadStatus::Found, 1, QueueOffset(3)));
    // Across queue files: one read stays within one.
    for body in 3..40_u8 {
        put(&store, &[body]);
    }
    settle(&store);
    assert_eq!(status(&store, 10), (ReadStatus::Found, 16));
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 40);
}

/// Words made of `Aa` and `BB` have one hash in Java, as topics and as keys.
const ONE_HASH: [&str; 4] = ["AaAa", "AaBB", "BBAa", "BBBB"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// And what only has the hash takes no place of what is found.
    #[test]
    fn a_query_finds_the_newest_that_have_the_key_itself(
        sent in proptest::collection::vec((0..4_usize, 0..4_usize, proptest::collection::vec(0..4_usize, 0..3)), 1..40),
        max in 1..8_usize,
    ) {
        let site = Site::new();
        let store = site.open();
        for (number, (topic, unique, keys)) in sent.iter().enumerate() {
            let keys: Vec<&str> = keys.iter().map(|key| ONE_HASH[*key]).collect();
            let keys = if keys.is_empty() { String::new() } else { format!("KEYS\u{1}{}\u{2}", keys.join(" ")) };
            let properties = format!("{keys}UNIQ_KEY\u{1}{}\u{2}", ONE_HASH[*unique]);
            store.append(&message(ONE_HASH[*topic], 0, &[number as u8], &properties)).unwrap();
        }
        settle(&store);
        for (topic, key) in (0..4).flat_map(|topic| (0..4).map(move |key| (topic, key))) {
            let has = |(of, unique, keys): &(usize, usize, Vec<usize>)| {
                *of == topic && (*unique == key || keys.contains(&key))
            };
            let all: Vec<u8> = (0..sent.len()).filter(|at| has(&sent[*at])).map(|at| at as u8).collect();
            let expected = &all[all.len().saturating_sub(max)..];
            let found = store.query(ONE_HASH[topic], ONE_HASH[key], max, 0, i64::MAX, Effort::Full).unwrap();
            let found: Vec<u8> =
                found.messages.iter().map(|bytes| Record::parse(bytes).unwrap().body()[0]).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn limits_of_a_read() {
    let site = Site::new();
    let store = Store::open(StoreConfig { segment_len: 1 << 20, queue_file_entries: 100, ..site.config() }).unwrap();
    for _ in 0..50 {
        put(&store, &[7; 1000]);
    }
    settle(&store);
    let read = |count_max, bytes_max| {
        let outcome =
            store.read(T, Q, QueueOffset(0), ReadLimits { count_max, bytes_max }, &AllMessages, Effort::Full).unwrap();
        (outcome.count, outcome.next_offset.0)
    };
    assert_eq!(read(5, 1 << 20), (5, 5));
    assert_eq!(read(50, 1 << 20), (32, 32), "32 from memory");
    assert_eq!(read(50, 100), (1, 1), "the first whatever its size");
    assert_eq!(read(50, 3 * 1097), (3, 3));
    drop(store);
    let on_disk = StoreConfig { segment_len: 1 << 20, queue_file_entries: 100, in_memory_ratio: 0.0, ..site.config() };
    let store = Store::open(on_disk).unwrap();
    let outcome = store.read(T, Q, QueueOffset(0), ReadLimits::count(50), &AllMessages, Effort::Full).unwrap();
    assert_eq!((outcome.count, outcome.suggest_slave), (8, true));
    assert!(!store.is_in_memory(T, Q, QueueOffset(0), Effort::Full).unwrap());
}

#[test]
fn batches_are_contiguous_and_whole() {
    let site = Site::new();
    let store = site.open();
    // Leaves too little room in the first segment.
    put(&store, &[1; 1500]);
    put(&store, &[1; 1500]);
    let batch: Vec<_> = (0..4).map(|_| message(T, 0, &[2; 300], "")).collect();
    let placed = store.append_batch(&batch).unwrap();
    assert_eq!(placed.physical_offsets[0], PhysicalOffset(4096));
    assert_eq!((placed.queue_offset, placed.count), (QueueOffset(2), 4));
    assert!(placed.physical_offsets.windows(2).all(|pair| pair[1] - pair[0] == 397));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 6);
    assert!(matches!(store.append_batch(&[]), Err(AppendError::MixedBatch)));
    let mixed = [message(T, 0, b"", ""), message(T, 1, b"", "")];
    assert!(matches!(store.append_batch(&mixed), Err(AppendError::MixedBatch)));
    let long: Vec<_> = (0..4).map(|_| message(T, 0, &[2; 600], "")).collect();
    assert!(matches!(store.append_batch(&long), Err(AppendError::BatchTooLarge { .. })));
    assert!(matches!(store.append(&message(T, 0, &[0; 2049], "")), Err(AppendError::Record(_))));
    assert!(matches!(store.append(&message("../x", 0, b"", "")), Err(AppendError::TopicName { .. })));
    // The end of a segment is a filler that states what was left.
    let file = std::fs::read(log_file(&site)).unwrap();
    let at = 2 * (91 + T.len() + 1500);
    assert_eq!(file[at..at + 8], [&u32::try_from(4096 - at).unwrap().to_be_bytes()[..], b"\xcb\xd4\x31\x94"].concat());
}

#[test]
fn clean_stops_and_kills_lose_nothing() {
    for clean in [true, false] {
        let site = Site::new();
        let mut sent = Vec::new();
        for round in 0..3_u8 {
            let store = site.open();
            for number in 0..60_u8 {
                let key = format!("KEYS\u{1}r{round} n{number}\u{2}UNIQ_KEY\u{1}u{round}-{number}\u{2}");
                let body = [round, number];
                let placed = store.append(&message(T, 0, &body, &key)).unwrap();
                assert_eq!(placed.queue_offset.0, sent.len() as u64);
                sent.push((placed.queue_offset.0, body.to_vec()));
                site.advance(10);
            }
            if clean {
                store.close().unwrap();
            }
        }
        let store = site.open();
        assert_eq!(read_bodies(&store, T, 0, 0), sent, "clean: {clean}");
        for (round, number) in [(0, 0), (0, 59), (1, 30), (2, 59)] {
            assert_eq!(query_bodies(&store, T, &format!("u{round}-{number}")), [[round, number]], "clean: {clean}");
        }
        assert_eq!(query_bodies(&store, T, "n7").len(), 3);
        assert_eq!(query_bodies(&store, T, "r1").len(), 60);
        let outcome = store.query(T, "u2-59", 64, 0, i64::MAX, Effort::Full).unwrap();
        assert_eq!(outcome.last_update_timestamp, START_MS + 1790);
        assert_eq!(PhysicalOffset(outcome.last_update_offset.0), outcome.last_update_offset);
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let site = Site::new();
    let store = site.open();
    for body in 0..5_u8 {
        store.append(&message(T, 0, &[body; 20], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap();
    }
    settle(&store);
    let end = store.watermarks().written;
    drop(store);
    // Nobody vouches for any of it.
    std::fs::remove_file(site.dir.path().join("store/checkpoint")).unwrap();
    // The last record's body is damaged, and something old-looking follows.
    let mut bytes = std::fs::read(log_file(&site)).unwrap();
    let whole = bytes[..end.0 as usize].to_vec();
    let len = whole.len() / 5;
    bytes[whole.len() - len + 90] ^= 1;
    bytes[whole.len()..whole.len() + len].copy_from_slice(&whole[..len]);
    std::fs::write(log_file(&site), &bytes).unwrap();
    let store = site.open();
    assert_eq!(store.watermarks().written.0, 4 * len as u64);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(4));
    assert_eq!(query_bodies(&store, T, "k4"), Vec::<Vec<u8>>::new());
    assert_eq!(query_bodies(&store, T, "k3"), [[3; 20]]);
    let next = store.append(&message(T, 0, b"new", "KEYS\u{1}k5\u{2}")).unwrap();
    assert_eq!(next.queue_offset, QueueOffset(4));
    settle(&store);
    assert_eq!(query_bodies(&store, T, "k5"), [b"new"]);
    let file = std::fs::read(log_file(&site)).unwrap();
    assert!(file[next.end.0 as usize..].iter().all(|byte| *byte == 0), "nothing old is left behind the end");
}

#[test]
fn queues_and_index_are_projections() {
    let site = Site::new();
    let store = site.open();
    for body in 0..50_u8 {
        store.append(&message(T, u32::from(body % 3), &[body; 100], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap();
    }
    settle(&store);
    let before: Vec<_> = (0..3).map(|queue| read_bodies(&store, T, queue, 0)).collect();
    store.close().unwrap();
    for lost in ["consumequeue", "index"] {
        std::fs::remove_dir_all(site.dir.path().join("store").join(lost)).unwrap();
        let store = site.open();
        let after: Vec<_> = (0..3).map(|queue| read_bodies(&store, T, queue, 0)).collect();
        assert_eq!(after, before, "{lost}");
        assert_eq!(query_bodies(&store, T, "k0"), [[0; 100]], "{lost}");
        assert_eq!(query_bodies(&store, T, "k49"), [[49; 100]], "{lost}");
        store.close().unwrap();
    }
}

#[test]
fn queues_lost_in_a_crash_are_rebuilt_from_the_first_message() {
    let site = Site::new();
    let store = site.open();
    for body in 0..200_u8 {
        store.append(&message(T, 0, &[body; 100], "")).unwrap();
        site.advance(1_000);
    }
    settle(&store);
    // A clean stop writes a checkpoint that vouches for all but the last segments.
    store.close().unwrap();
    assert!(site.dir.path().join("store/commitlog").read_dir().unwrap().count() > 3);
    std::fs::write(site.dir.path().join("store/abort"), "1").unwrap();
    std::fs::remove_dir_all(site.dir.path().join("store/consumequeue")).unwrap();
    let store = site.open();
    let bodies: Vec<_> = (0..200_u8).map(|body| (u64::from(body), vec![body; 100])).collect();
    assert_eq!(read_bodies(&store, T, 0, 0), bodies);
}

#[test]
fn an_open_that_is_told_to_stop_leaves_what_a_kill_would() {
    let site = Site::new();
    let store = site.open();
    for n in 0..100_u8 {
        put(&store, &[n]);
    }
    settle(&store);
    store.close().unwrap();
    let told = |site: &Site| {
        let config = site.config();
        config.interrupt.raise();
        matches!(Store::open(config), Err(OpenError::Interrupted))
    };
    assert!(told(&site), "between queues");
    let queues = site.dir.path().join("store/consumequeue");
    std::fs::remove_dir_all(&queues).unwrap();
    assert!(told(&site), "between records");
    // Cut short anywhere: the next one does it all.
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 100);
    drop(store);
    assert!(told(&site), "after a kill too");
    assert!(site.dir.path().join("store/abort").exists());
    let guarded = site.config();
    drop(guarded.interrupt.on_drop());
    assert!(matches!(Store::open(guarded), Err(OpenError::Interrupted)));
    let spared = site.config();
    spared.interrupt.on_drop().spare();
    assert_eq!(read_bodies(&Store::open(spared).unwrap(), T, 0, 0).len(), 100);
}

#[test]
fn the_first_segments_may_be_gone() {
    let site = Site::new();
    let store = site.open();
    for body in 0..30_u8 {
        put(&store, &[body; 500]);
        site.advance(1000);
    }
    settle(&store);
    store.close().unwrap();
    std::fs::remove_file(log_file(&site)).unwrap();
    let store = site.open();
    let bounds = store.queue_bounds(T, Q).unwrap();
    assert!(bounds.min > QueueOffset(0) && bounds.max == QueueOffset(30));
    assert_eq!(store.watermarks().min, PhysicalOffset(4096));
    assert_eq!(status(&store, 0), (ReadStatus::OffsetTooSmall, bounds.min.0));
    assert_eq!(store.earliest_store_time(T, Q, Effort::Full).unwrap(), Some(START_MS + bounds.min.as_i64() * 1000));
    assert_eq!(
        store.earliest_message_time(Effort::Full).unwrap(),
        store.earliest_store_time(T, Q, Effort::Full).unwrap()
    );
    let read = read_bodies(&store, T, 0, bounds.min.0);
    assert_eq!(read.first().unwrap().1[0], u8::try_from(bounds.min.0).unwrap());
    assert_eq!(store.offset_by_time(T, Q, 0, Boundary::Lower, Effort::Full).unwrap(), bounds.min);
}

#[test]
fn offsets_by_time() {
    let site = Site::new();
    let store = site.open();
    assert_eq!(store.offset_by_time(T, Q, START_MS, Boundary::Lower, Effort::Full).unwrap(), QueueOffset(0));
    for step in [0, 100, 0, 100, 0] {
        site.advance(step);
        put(&store, b"x");
    }
    settle(&store);
    // Stored at +0, +100, +100, +200, +200.
    let at = |ms, boundary| store.offset_by_time(T, Q, START_MS + ms, boundary, Effort::Full).unwrap().0;
    let lower = [-1, 0, 50, 100, 101, 200, 201].map(|ms| at(ms, Boundary::Lower));
    assert_eq!(lower, [0, 0, 1, 1, 3, 3, 5]);
    let upper = [-1, 0, 50, 100, 101, 200, 201].map(|ms| at(ms, Boundary::Upper));
    assert_eq!(upper, [0, 0, 0, 2, 2, 4, 4]);
    assert_eq!(store.store_time_at(T, Q, QueueOffset(3), Effort::Full).unwrap(), Some(START_MS + 200));
    assert_eq!(store.store_time_at(T, Q, QueueOffset(5), Effort::Full).unwrap(), None);
}

#[test]
fn transactions_and_delays_in_the_queue() {
    let site = Site::new();
    let store = site.open();
    for (kind, offset) in [(0x4, 0), (0xC, 0), (0x8, 0), (0x0, 1)] {
        let mut half = message(T, 0, b"tx", "KEYS\u{1}tx\u{2}");
        half.sys_flag = SysFlag(kind);
        assert_eq!(store.append(&half).unwrap().queue_offset, QueueOffset(offset));
    }
    store.append(&message(SCHEDULE_TOPIC, 2, b"", "DELAY\u{1}3\u{2}TAGS\u{1}TagA\u{2}")).unwrap();
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 2);
    assert_eq!(query_bodies(&store, T, "tx").len(), 3, "all but the rollback");
    let entry = store.queue_entry(SCHEDULE_TOPIC, QueueId(2), QueueOffset(0), Effort::Full).unwrap().unwrap();
    assert_eq!(entry.tags_code, START_MS + 10_000);
}

#[test]
fn a_topic_can_be_deleted_and_made_anew() {
    let site = Site::new();
    let store = site.open();
    for body in 0..20_u8 {
        put(&store, &[body]);
    }
    store.append(&message("Other", 0, b"x", "")).unwrap();
    // Not settled: what is not dispatched yet must not bring the queue back.
    assert!(store.delete_topic(T).unwrap());
    assert!(!store.delete_topic(T).unwrap());
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q), None);
    assert!(!site.dir.path().join("store/consumequeue").join(T).exists());
    assert_eq!(put(&store, b"new").queue_offset, QueueOffset(0));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"new".to_vec())]);
    drop(store);
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"new".to_vec())], "after a kill too");
    let gone = store.clean_queues_except(|topic| topic != T).unwrap();
    assert_eq!((gone.len(), &*gone[0]), (1, T));
    assert_eq!(store.topics().len(), 1);
    assert_eq!(store.queue_ids("Other"), [Q]);
}

#[test]
fn a_topic_may_be_deleted_under_its_producers() {
    for _ in 0..10 {
        let site = Site::new();
        let store = Arc::new(Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap());
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    for queue in 0..8 {
                        store.append_silently(&message(T, queue, b"of a topic that comes and goes", "")).unwrap();
                    }
                    store.append_silently(&message("Other", 0, b"of one that stays", "")).unwrap();
                    store.announce();
                    sent.fetch_add(1, Ordering::AcqRel);
                }
            });
            for _ in 0..5 {
                let before = sent.load(Ordering::Acquire);
                wait_until(|| sent.load(Ordering::Acquire) > before + 1 || sender.is_finished());
                store.delete_topic(T).unwrap();
            }
            stop.store(true, Ordering::Release);
        });
        settle(&store);
        assert_eq!(read_bodies(&store, "Other", 0, 0).len(), sent.load(Ordering::Acquire));
        put(&store, b"one more");
        assert!(store.delete_topic(T).unwrap());
        for n in 0..40_u8 {
            assert_eq!(put(&store, &[n]).queue_offset, QueueOffset(n.into()));
        }
        settle(&store);
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 40);
        // The files are where they belong, and no others.
        let files = std::fs::read_dir(site.dir.path().join("store/consumequeue").join(T).join("0")).unwrap().count();
        assert_eq!(files, 40_usize.div_ceil(16));
        let graves = site.dir.path().join("store/consumequeue/.deleted");
        assert_eq!(["", "topics"].map(|dir| std::fs::read_dir(graves.join(dir)).unwrap().count()), [1, 0]);
        store.close().unwrap();
    }
}

#[test]
fn what_cannot_be_written_holds_up_nobody_else() {
    let site = Site::new();
    let store = site.open();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&arrivals);
    store.on_arrival(move |arrival| seen.lock().push((arrival.topic.to_owned(), arrival.queue_offset.0)));
    let dir = site.dir.path().join("store");
    put(&store, b"first");
    settle(&store);
    // No directory can be made where a file is.
    let (of_queue, of_index) = (dir.join("consumequeue/Bad"), dir.join("index"));
    std::fs::write(&of_queue, b"").unwrap();
    std::fs::remove_dir(&of_index).unwrap();
    std::fs::write(&of_index, b"").unwrap();
    let bad = |body: &[u8]| store.append_silently(&message("Bad", 0, body, "KEYS\u{1}k\u{2}"));
    // Together: after the first that could not be entered no more are taken.
    let together = |store: &Store, bodies: [&[u8]; 3]| {
        let batch = bodies.map(|body| message("Bad", 0, body, "KEYS\u{1}k\u{2}"));
        store.append_batch_silently(&batch).unwrap();
    };
    together(&store, [&[0], &[1], &[2]]);
    for n in 0..60_u8 {
        site.advance(1000);
        store.append_silently(&message(T, 0, &[n], "KEYS\u{1}k\u{2}")).unwrap();
    }
    store.announce();
    wait_until(|| store.queue_bounds(T, Q).is_some_and(|bounds| bounds.max.0 == 61));
    assert!(read_bodies(&store, "Bad", 0, 0).is_empty());
    assert!(store.watermarks().dispatched < store.watermarks().written);
    let refused = bad(b"one too many");
    assert!(matches!(&refused, Err(AppendError::QueueBehind { topic, .. }) if topic == "Bad"), "{refused:?}");
    store.append(&message("Bad", 1, b"another queue, as bad", "")).unwrap();
    store.check_writable().unwrap();
    // The clean end must not claim what is not there.
    let closed = store.close();
    assert!(matches!(closed, Err(CloseError::DispatchBehind { .. })), "{closed:?}");
    drop(store);
    std::fs::remove_file(&of_queue).unwrap();
    std::fs::remove_file(&of_index).unwrap();
    let bodies = |store: &Store| read_bodies(store, "Bad", 0, 0).into_iter().map(|(_, body)| body).collect::<Vec<_>>();
    let store = site.open();
    assert_eq!((bodies(&store), query_bodies(&store, "Bad", "k").len()), (vec![vec![0], vec![1], vec![2]], 3));
    drop(store);

    // Once it can be written again, all of it is made up for, in order, and told.
    std::fs::remove_dir_all(&of_queue).unwrap();
    std::fs::remove_dir_all(&of_index).unwrap();
    let store = site.open();
    store.delete_topic("Bad").unwrap();
    std::fs::write(&of_queue, b"").unwrap();
    let seen = Arc::clone(&arrivals);
    arrivals.lock().clear();
    store.on_arrival(move |arrival| seen.lock().push((arrival.topic.to_owned(), arrival.queue_offset.0)));
    together(&store, [&[10], &[11], &[12]]);
    for n in 0..3 {
        put(&store, &[n]);
    }
    wait_until(|| store.queue_bounds(T, Q).is_some_and(|bounds| bounds.max.0 == 64));
    std::fs::remove_file(&of_queue).unwrap();
    settle(&store);
    assert_eq!(bodies(&store), [[10], [11], [12]]);
    let told: Vec<_> = arrivals.lock().iter().filter(|(topic, _)| topic == "Bad").map(|(_, offset)| *offset).collect();
    assert_eq!(told, [0, 1, 2]);
    assert_eq!(store.append(&message("Bad", 0, b"as before", "")).unwrap().queue_offset, QueueOffset(3));
    store.close().unwrap();
}

#[test]
fn sync_flush_completes_a_prefix_and_gates_consumers() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..site.config() };
    let store = Store::open(config).unwrap();
    assert!(store.is_sync_flush());
    let (sender, outcomes) = mpsc::channel();
    let mut ends = Vec::new();
    for body in 0..100_u8 {
        let end = put(&store, &[body; 200]).end;
        let sender = sender.clone();
        store.when_flushed(end, move |outcome| sender.send((end, outcome)).unwrap());
        ends.push(end);
    }
    for _ in 0..100 {
        let (end, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(outcome, FlushOutcome::Flushed);
        assert!(store.watermarks().flushed >= end);
    }
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 100);
    // From here on the disk fails: the message is refused, and so is every later one.
    site.disk.sync_fails.store(true, Ordering::SeqCst);
    let max = store.queue_bounds(T, Q).unwrap().max;
    let end = put(&store, b"lost").end;
    store.when_flushed(end, move |outcome| sender.send((end, outcome)).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1, FlushOutcome::Failed);
    wait_until(|| store.check_writable().is_err());
    let error = store.append(&message(T, 0, b"", "")).unwrap_err();
    assert!(matches!(&error, AppendError::Poisoned { reason } if reason.contains("the device is gone")), "{error}");
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, max, "what is not on the disk is not shown");
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    store.when_flushed(end, move |outcome| {
        assert_eq!(outcome, FlushOutcome::Failed);
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(failed.load(Ordering::SeqCst), 1);
    assert!(matches!(store.close(), Err(CloseError::Poisoned(_))));
    assert!(site.dir.path().join("store/abort").exists());
}

#[test]
fn whoever_appends_may_flush_and_announce_for_all() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..site.config() };
    let store = Store::open(config).unwrap();
    // The flush thread may be just starting, and would then flush what it finds.
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let flushed_by = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for body in 0..10_u8 {
        let end = store.append_silently(&message(T, 0, &[body; 200], "")).unwrap().end;
        let flushed_by = Arc::clone(&flushed_by);
        store.when_flushed_silently(end, move |outcome| {
            assert_eq!(outcome, FlushOutcome::Flushed);
            flushed_by.lock().push(std::thread::current().id());
        });
    }
    store.announce();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 0, "not shown before it is on the disk");
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    store.flush_for_waiters();
    // One of the two: this thread, or the flush thread if this machine's disk is slow.
    wait_until(|| flushed_by.lock().len() == 10);
    store.announce();
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 10);
    // What nobody waits for is flushed and shown all the same.
    store.append_silently(&message(T, 0, b"not waited for", "")).unwrap();
    store.flush_for_waiters();
    store.announce();
    wait_until(|| read_bodies(&store, T, 0, 0).len() == 11);
}

#[test]
fn a_flush_under_way_is_not_waited_for() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..site.config() };
    let store = Store::open(config).unwrap();
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let (sender, outcomes) = mpsc::channel();
    let first = put(&store, b"first").end;
    let done = sender.clone();
    store.when_flushed(first, move |outcome| done.send(outcome).unwrap());
    wait_until(|| store.flusher.is_syncing());
    let second = store.append_silently(&message(T, 0, b"second", "")).unwrap().end;
    store.when_flushed_silently(second, move |outcome| sender.send(outcome).unwrap());
    // Would hang with the disk if it waited.
    store.flush_for_waiters();
    assert!(outcomes.try_recv().is_err());
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), FlushOutcome::Flushed);
    }
}

#[test]
fn announced_messages_are_visible_at_once_and_to_all_threads() {
    let site = Site::new();
    let store = site.open();
    std::thread::scope(|scope| {
        for queue in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for count in 1..=1000 {
                    store.append_silently(&message(T, queue, &[7; 50], "")).unwrap();
                    store.announce();
                    if count % 50 == 0 {
                        // Another thread may have been at it; it does not leave this behind.
                        wait_until(|| store.queue_bounds(T, QueueId(queue)).unwrap().max == QueueOffset(count));
                    }
                }
            });
        }
    });
    settle(&store);
    assert!((0..4).all(|queue| read_bodies(&store, T, queue, 0).len() == 1000));
}

#[test]
fn the_index_file_made_ahead_is_used_or_gone() {
    let site = Site::new();
    let files = || std::fs::read_dir(site.dir.path().join("store/index")).unwrap().count();
    let put_keys = |store: &Store, keys: std::ops::Range<u32>| {
        for key in keys {
            put_with(store, &format!("KEYS\u{1}k{key}\u{2}"));
        }
        settle(store);
    };
    let store = site.open();
    put_keys(&store, 0..50);
    wait_until(|| files() == 2);
    // As killed: the empty file stays and holds nothing.
    drop(store);
    let store = site.open();
    put_keys(&store, 50..150);
    for key in [0, 49, 50, 149] {
        assert_eq!(
            store.query(T, &format!("k{key}"), 10, 0, i64::MAX, Effort::Full).unwrap().messages.len(),
            1,
            "k{key}"
        );
    }
    put_keys(&store, 150..180);
    wait_until(|| files() == 4);
    store.close().unwrap();
    assert_eq!(files(), 3, "a clean stop leaves no empty file");
}

#[test]
fn a_hanging_disk_times_out_and_may_come_back() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: Duration::from_millis(20) }, ..site.config() };
    let store = Store::open(config).unwrap();
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let end = put(&store, b"x").end;
    let (sender, outcomes) = mpsc::channel();
    store.when_flushed(end, move |outcome| sender.send(outcome).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), FlushOutcome::TimedOut);
    assert_eq!(store.queue_bounds(T, Q).map(|bounds| bounds.max), Some(QueueOffset(0)), "not shown yet");
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    wait_until(|| store.watermarks().dispatched == end);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 1);
}

#[test]
fn whose_time_is_up_is_told_so_whatever_else_hangs() {
    let site = Site::new();
    let config = StoreConfig {
        flush: FlushMode::Sync { timeout: Duration::from_millis(20) },
        queue_flush_thorough_interval: Duration::ZERO,
        ..site.config()
    };
    let store = Store::open(config).unwrap();
    // The thread that syncs queues hangs first, then the one that syncs the log.
    site.disk.queue_sync_hangs.store(true, Ordering::SeqCst);
    put(&store, b"shown");
    wait_until(|| site.disk.hanging.load(Ordering::SeqCst) == 1);
    settle(&store);
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let end = put(&store, b"x").end;
    wait_until(|| site.disk.hanging.load(Ordering::SeqCst) == 2);
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..3 {
        let sender = sender.clone();
        store.when_flushed(end, move |outcome| sender.send(outcome).unwrap());
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), FlushOutcome::TimedOut);
    }
    site.disk.queue_sync_hangs.store(false, Ordering::SeqCst);
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
}

#[test]
fn an_asynchronous_sync_failure_poisons_too() {
    let site = Site::new();
    let store = site.open();
    site.disk.sync_fails.store(true, Ordering::SeqCst);
    put(&store, b"x");
    wait_until(|| matches!(store.check_writable(), Err(AppendError::Poisoned { .. })));
}

/// Only what a sync itself says is for good.
#[test]
fn a_moment_without_descriptors_passes() {
    let site = Site::new();
    let store = site.open();
    put(&store, b"before");
    settle(&store);
    site.disk.no_descriptors.store(true, Ordering::SeqCst);
    // Queues, and an index file, that have to be made; a directory to be synced; a new segment, after a while.
    let new = |queue, n: u8| store.append(&message("New", queue, &[n; 500], "KEYS\u{1}k\u{2}"));
    // The first is taken, because nobody knows yet.
    let taken = (0..5).filter(|n| new(0, *n).is_ok()).count();
    let mut refused = 0;
    for n in 0..20_u8 {
        refused += u8::from(store.append(&message(T, 0, &[n; 500], "")).is_err());
    }
    assert!(refused > 0, "no segment can be made");
    // Long enough for a thorough flush.
    let give_up = Instant::now() + Duration::from_millis(200);
    wait_until(|| Instant::now() > give_up);
    assert_eq!(store.health.poison_reason(), None);
    site.disk.no_descriptors.store(false, Ordering::SeqCst);
    wait_until(|| new(0, 9).is_ok());
    put(&store, b"after");
    settle(&store);
    assert_eq!(read_bodies(&store, "New", 0, 0).len(), taken + 1);
    assert_eq!(query_bodies(&store, "New", "k").len(), taken + 1);
    store.close().unwrap();
}

#[test]
fn waiting_for_the_disk_in_async_mode_flushes_now() {
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let flush = FlushMode::Async { interval: never, least_pages: 4, thorough_interval: never };
    let store = Store::open(StoreConfig { flush, ..site.config() }).unwrap();
    let end = put(&store, b"x").end;
    let (sender, outcomes) = mpsc::channel();
    store.when_flushed(end, move |outcome| sender.send(outcome).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), FlushOutcome::Flushed);
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    let site = Site::new();
    let store = site.open();
    put(&store, &[0; 100]);
    settle(&store);
    site.disk.full.store(true, Ordering::SeqCst);
    let mut refused = None;
    for _ in 0..20 {
        if let Err(error) = store.append(&message(T, 0, &[1; 1000], "")) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(AppendError::DiskFull { .. })), "{refused:?}");
    settle(&store);
    let stored = store.queue_bounds(T, Q).unwrap().max;
    site.disk.full.store(false, Ordering::SeqCst);
    wait_until(|| store.append(&message(T, 0, &[1; 1000], "")).is_ok());
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, stored.next());
    store.close().unwrap();
    assert_eq!(read_bodies(&site.open(), T, 0, 0).len() as u64, stored.0 + 1);
}

#[test]
fn the_confirmed_offset_gates_consumers() {
    let site = Site::new();
    let store = site.open();
    store.set_confirmed(PhysicalOffset(0));
    let first = put(&store, b"a");
    let second = put(&store, b"b");
    store.set_confirmed(PhysicalOffset(second.end.0 - 1));
    wait_until(|| store.watermarks().dispatched == first.end);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(1));
    store.set_confirmed(second.end);
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(2));
}

#[test]
fn raw_bytes_make_a_second_store() {
    let (site, copy) = (Site::new(), Site::new());
    let master = site.open();
    let slave = copy.open();
    let mut last = PhysicalOffset(0);
    for body in 0..40_u8 {
        last = master.append(&message(T, 0, &[body; 300], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap().end;
    }
    let mut at = PhysicalOffset(0);
    while let Some(bytes) = master.raw_from(at, 1000).unwrap() {
        slave.append_raw(at, &bytes).unwrap();
        at = at + bytes.len() as u64;
    }
    assert_eq!(at, last);
    assert!(matches!(slave.append_raw(PhysicalOffset(7), b"x"), Err(AppendError::NotAtEnd { .. })));
    settle(&master);
    settle(&slave);
    assert_eq!(read_bodies(&slave, T, 0, 0), read_bodies(&master, T, 0, 0));
    assert_eq!(query_bodies(&slave, T, "k17"), [[17; 300]]);
    assert_eq!(slave.append(&message(T, 0, b"now master", "")).unwrap().queue_offset, QueueOffset(40));
}

#[test]
fn a_record_that_cannot_be_read_hides_no_other() {
    let (site, other) = (Site::new(), Site::new());
    let (store, copy) = (site.open(), other.open());
    let ends: Vec<_> = (0..5_u8).map(|n| put(&store, &[n]).end.0 as usize).collect();
    let mut bytes = store.raw_from(PhysicalOffset(0), usize::MAX).unwrap().unwrap().to_vec();
    // A topic of 255 bytes in a record of 98: Java's parser takes it for a record no more than ours.
    let topic_len_at = ends[2] - 2 - T.len() - 1;
    assert_eq!(bytes[topic_len_at] as usize, T.len());
    bytes[topic_len_at] = 0xFF;
    // Its length goes on until the end of the segment.
    bytes[ends[0]..ends[0] + 4].copy_from_slice(&(4096_u32 - ends[0] as u32).to_be_bytes());
    copy.append_raw(PhysicalOffset(0), &bytes).unwrap();
    settle(&copy);
    assert_eq!(read_bodies(&copy, T, 0, 0), [(0, vec![0]), (3, vec![3]), (4, vec![4])]);
    // What is told of a record that is not there to the end yet: nothing.
    let last = put(&store, b"in two pieces");
    let bytes = store.raw_from(last.physical_offset, usize::MAX).unwrap().unwrap();
    copy.append_raw(last.physical_offset, &bytes[..60]).unwrap();
    copy.announce();
    copy.append_raw(last.physical_offset + 60, &bytes[60..]).unwrap();
    settle(&copy);
    assert_eq!(read_bodies(&copy, T, 0, 5), [(5, b"in two pieces".to_vec())]);
    copy.close().unwrap();
}

#[test]
fn truncation_takes_the_end_back() {
    let site = Site::new();
    let store = site.open();
    let mut ends = Vec::new();
    for body in 0..40_u8 {
        let text = format!("KEYS\u{1}k{body} all\u{2}");
        ends.push(store.append(&message(T, 0, &[body; 300], &text)).unwrap().end);
    }
    settle(&store);
    assert!(matches!(store.truncate(PhysicalOffset(ends[20].0 + 1)), Err(TruncateError::NotARecordEnd { .. })));
    assert!(matches!(store.truncate(PhysicalOffset(1 << 40)), Err(TruncateError::OutOfRange { .. })));
    store.truncate(ends[20]).unwrap();
    assert_eq!(store.watermarks().written, ends[20]);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 21);
    assert_eq!(query_bodies(&store, T, "all").len(), 21);
    assert_eq!(query_bodies(&store, T, "k20"), [[20; 300]]);
    let next = store.append(&message(T, 0, b"again", "KEYS\u{1}all\u{2}")).unwrap();
    assert_eq!((next.queue_offset, next.physical_offset), (QueueOffset(21), ends[20]));
    settle(&store);
    assert_eq!(query_bodies(&store, T, "all").len(), 22);
    drop(store);
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 22);
    assert_eq!(query_bodies(&store, T, "all").len(), 22);
}

#[test]
fn what_a_store_does_not_open() {
    let site = Site::new();
    let store = site.open();
    let error = Store::open(site.config()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }) && error.to_string().contains("storePathRootDir"), "{error}");
    put(&store, b"x");
    settle(&store);
    store.close().unwrap();
    let error = Store::open(StoreConfig { segment_len: 8192, ..site.config() }).unwrap_err();
    assert!(error.to_string().contains("mappedFileSizeCommitLog"), "{error}");
    let error = Store::open(StoreConfig { queue_file_entries: 17, ..site.config() }).unwrap_err();
    assert!(error.to_string().contains("mappedFileSizeConsumeQueue"), "{error}");
    let error = Store::open(StoreConfig { segment_len: 1, ..site.config() }).unwrap_err();
    assert!(matches!(error, OpenError::Config { .. }), "{error}");
    let error = Store::open(StoreConfig { root: "/proc/ferromq".into(), ..site.config() }).unwrap_err();
    assert!(matches!(&error, OpenError::NotWritable { path, .. } if path.ends_with("ferromq")), "{error}");
    assert!(error.to_string().contains("/proc/ferromq"), "{error}");
    // None of these harmed it.
    assert_eq!(read_bodies(&site.open(), T, 0, 0).len(), 1);
}

#[test]
fn there_may_be_more_queues_than_mappings() {
    const QUEUES: u32 = 100;
    const MAX: usize = 8;
    let site = Site::new();
    let config = || StoreConfig { segment_len: 1 << 20, queue_mappings_max: MAX, ..site.config() };
    let queues_dir = site.dir.path().join("store/consumequeue");
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(&*queues_dir.to_string_lossy())).count()
    };
    let store = Store::open(config()).unwrap();
    let bodies = |queue: u32| (0..20_u8).map(|n| (u64::from(n), vec![n, queue as u8])).collect::<Vec<_>>();
    for n in 0..20_u8 {
        for queue in 0..QUEUES {
            store.append_silently(&message(T, queue, &[n, queue as u8], "")).unwrap();
        }
        store.announce();
    }
    settle(&store);
    let all_there = |store: &Store| {
        for queue in 0..QUEUES {
            assert_eq!(read_bodies(store, T, queue, 0), bodies(queue));
        }
        // Whoever reads or writes one out at this moment keeps it a little longer.
        wait_until(|| mapped() <= MAX);
    };
    all_there(&store);
    store.close().unwrap();
    drop(store);
    assert_eq!(mapped(), 0);
    let store = Store::open(config()).unwrap();
    all_there(&store);
    drop(store);
    all_there(&Store::open(config()).unwrap());
}

#[test]
fn two_stores_share_no_directory() {
    let site = Site::new();
    let log = site.dir.path().join("log");
    let at = |root: &str, log: &Path| StoreConfig {
        root: site.dir.path().join(root),
        commit_log_dir: Some(log.to_owned()),
        ..site.config()
    };
    let refused_at = |config: StoreConfig| match Store::open(config) {
        Err(OpenError::Locked { path }) => path,
        other => panic!("{:?}", other.map(|_| "it opened")),
    };
    let store = Store::open(at("one", &log)).unwrap();
    assert_eq!(refused_at(at("two", &log)), log);
    // By another name, and where the other has its queues.
    let link = site.dir.path().join("link");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    assert_eq!(refused_at(at("two", &link)), link);
    let queues = site.dir.path().join("three/consumequeue");
    std::fs::create_dir(site.dir.path().join("three")).unwrap();
    std::os::unix::fs::symlink(site.dir.path().join("one/consumequeue"), &queues).unwrap();
    assert_eq!(refused_at(at("three", &site.dir.path().join("another"))), queues);
    store.append(&message(T, 0, b"x", "")).unwrap();
    store.close().unwrap();
    Store::open(at("two", &log)).unwrap();
}

#[test]
fn many_threads_append() {
    let site = Site::new();
    let store = Arc::new(Store::open(StoreConfig { segment_len: 64 * 1024, ..site.config() }).unwrap());
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                (0..500_u32)
                    .map(|number| store.append(&message(T, number % 2, &[thread; 50], "")).unwrap().queue_offset)
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    settle(&store);
    for queue in 0..2 {
        let offsets: Vec<_> = read_bodies(&store, T, queue, 0).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, (0..1000).collect::<Vec<_>>());
    }
    store.close().unwrap();
}
