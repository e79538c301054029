//! Scenarios of a whole store: what is read back, what survives, what is refused.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;

use ferromq_protocol::message::{Record, Records, SysFlag};
use ferromq_protocol::topics::SCHEDULE_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use proptest::prelude::*;

use super::*;
use crate::testing::*;
use crate::{AllMessages, AppendError, Boundary, Effort, MessageFilter, ReadLimits, ReadStatus};

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
fn the_messages_of_a_round_are_visible_at_once_and_to_all_threads() {
    let site = Site::new();
    let store = site.open();
    std::thread::scope(|scope| {
        for queue in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for count in 1..=1000 {
                    store.round().append(&message(T, queue, &[7; 50], "")).unwrap();
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
fn a_record_that_cannot_be_read_hides_no_other() {
    let site = Site::new();
    let store = site.open();
    store.set_replicated(PhysicalOffset(0));
    let ends: Vec<_> = (0..5_u8).map(|n| put(&store, &[n]).end.0).collect();
    // A topic of 255 bytes in a record of 98: Java's parser takes it for a record no more than ours.
    let file = std::fs::OpenOptions::new().read(true).write(true).open(log_file(&site)).unwrap();
    let topic_len_at = ends[2] - 2 - T.len() as u64 - 1;
    let mut topic_len = [0];
    file.read_exact_at(&mut topic_len, topic_len_at).unwrap();
    assert_eq!(topic_len[0] as usize, T.len());
    file.write_all_at(&[0xFF], topic_len_at).unwrap();
    // Its length goes on until the end of the segment.
    file.write_all_at(&(4096 - ends[0] as u32).to_be_bytes(), ends[0]).unwrap();
    store.set_replicated(PhysicalOffset(ends[4]));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, vec![0]), (3, vec![3]), (4, vec![4])]);
    store.close().unwrap();
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
        let round = store.round();
        for queue in 0..QUEUES {
            round.append(&message(T, queue, &[n, queue as u8], "")).unwrap();
        }
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

/// A file system may give all it has to a segment that does not fit, before it says so.
#[test]
fn a_segment_that_does_not_fit_is_not_begun() {
    let site = Site::new();
    let store = Store::open(site.config()).unwrap();
    let segment_len = site.config().segment_len;
    put(&store, b"first");
    let begun = || site.disk.segments_begun.load(Ordering::SeqCst);
    let before = begun();
    *site.disk.free.lock() = Some(segment_len - 1);
    let error = loop {
        if let Err(error) = store.append(&message(T, 0, &[1; 1000], "")) {
            break error;
        }
    };
    let told = matches!(&error, AppendError::DiskFull { reason, .. } if reason.contains(&format!("{} are free", segment_len - 1)));
    assert!(told && begun() == before, "{error}");
    // Whoever sends has it tried again soon.
    *site.disk.free.lock() = Some(segment_len);
    wait_until(|| store.append(&message(T, 0, &[1; 1000], "")).is_ok());
    assert!(begun() > before);
}
