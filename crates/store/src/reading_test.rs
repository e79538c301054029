//! Reading what is not in memory, from a disk that is slow or does not give it.

use std::sync::atomic::Ordering;

use ferromq_protocol::message::Record;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use proptest::prop_assert_eq;
use proptest::test_runner::TestRunner;

use super::*;
use crate::testing::*;
use crate::{AllMessages, Boundary, Effort, MessageFilter, QueueEntry, ReadError, ReadLimits, ReadOutcome, ReadStatus};

const FIRST_LOG: &str = "commitlog/00000000000000000000";
const FIRST_QUEUE: &str = "TopicT/0/00000000000000000000";

/// Wants what every record's body says, and so looks into every record.
struct Says(&'static [u8]);

impl MessageFilter for Says {
    fn matches_tags_code(&self, _: Option<i64>) -> bool {
        true
    }
    fn reads_records(&self) -> bool {
        true
    }
    fn matches_record(&self, record: &Record<'_>) -> bool {
        record.body() == self.0
    }
}

/// Ten messages in queue 0 and one in queue 1, in one segment; each record is longer than a page.
fn ten_messages(site: &Site) -> (Store, Vec<PhysicalOffset>) {
    let store = Store::open(StoreConfig { segment_len: 1 << 20, message_len_max: 1 << 16, ..site.config() }).unwrap();
    let put = |queue, body: &[u8]| store.append(&message(T, queue, body, "KEYS\u{1}k\u{2}")).unwrap().physical_offset;
    let places = (0..10_u8).map(|body| put(0, &[body; 5000])).collect();
    put(1, b"other");
    settle(&store);
    (store, places)
}

fn read(store: &Store, queue: u32, from: u64, effort: Effort) -> Result<ReadOutcome, ReadError> {
    store.read(T, QueueId(queue), QueueOffset(from), ReadLimits::count(32), &AllMessages, effort)
}

fn is_bad_sector<T: std::fmt::Debug>(result: &Result<T, ReadError>, name: &str) -> bool {
    matches!(result, Err(ReadError::Io { path, source, .. })
        if path.ends_with(name) && source.raw_os_error() == Some(libc::EIO))
}

#[test]
fn what_is_not_in_memory_is_left_to_who_may_wait() {
    let site = Site::new();
    let (store, places) = ten_messages(&site);
    assert_eq!(read(&store, 0, 0, Effort::Brief).unwrap().count, 10, "what was just written is in memory");
    assert_eq!(site.disk.reads.load(Ordering::SeqCst), 0);
    site.disk.go_cold();
    let needs_time = [
        read(&store, 0, 0, Effort::Brief).err(),
        store.message_at(places[0], Effort::Brief).err(),
        store.queue_entry(T, Q, QueueOffset(1), Effort::Brief).err(),
        store.store_time_at(T, Q, QueueOffset(1), Effort::Brief).err(),
        store.earliest_message_time(Effort::Brief).err(),
        store.offset_by_time(T, Q, START_MS, Boundary::Lower, Effort::Brief).err(),
        store.query(T, "k", 10, 0, i64::MAX, Effort::Brief).err(),
    ];
    for (at, error) in needs_time.into_iter().enumerate() {
        assert!(matches!(error, Some(ReadError::NeedsTime)), "{at}: {error:?}");
    }
    assert_eq!(site.disk.reads.load(Ordering::SeqCst), 0, "nobody has waited");
    assert_eq!(read(&store, 0, 0, Effort::Full).unwrap().count, 10);
    assert_eq!(store.message_at(places[3], Effort::Full).unwrap().unwrap().len(), (places[4].0 - places[3].0) as usize);
    assert_eq!(store.query(T, "k", 20, 0, i64::MAX, Effort::Full).unwrap().messages.len(), 11);
    assert!(site.disk.reads.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_bad_sector_in_the_log_is_an_error_of_who_reads_it() {
    let site = Site::new();
    let (store, places) = ten_messages(&site);
    site.disk.go_cold();
    let page = places[3].0 / 4096 * 4096 + 4096;
    site.disk.bad.lock().push((FIRST_LOG.to_owned(), page..page + 1));
    // What comes before is delivered; who asks for it is told where it is.
    let before = read(&store, 0, 0, Effort::Full).unwrap();
    assert_eq!((before.status, before.count, before.next_offset), (ReadStatus::Found, 3, QueueOffset(3)));
    let failed = read(&store, 0, 3, Effort::Full);
    assert!(is_bad_sector(&failed, FIRST_LOG), "{failed:?}");
    assert!(failed.unwrap_err().to_string().contains(&format!(" at {} of ", places[3].0)));
    assert!(is_bad_sector(&store.message_at(places[3], Effort::Full), FIRST_LOG));
    assert!(is_bad_sector(&store.store_time_at(T, Q, QueueOffset(3), Effort::Full), FIRST_LOG));
    // The others do not notice, nor do appends.
    assert_eq!(read(&store, 0, 4, Effort::Full).unwrap().count, 6);
    assert_eq!(read(&store, 1, 0, Effort::Full).unwrap().count, 1);
    assert!(store.message_at(places[4], Effort::Full).unwrap().is_some());
    store.append(&message(T, 0, b"new", "")).unwrap();
    settle(&store);
    assert_eq!(read(&store, 0, 10, Effort::Full).unwrap().count, 1);
    // A disk that gives it again is read again.
    site.disk.bad.lock().clear();
    assert_eq!(read(&store, 0, 3, Effort::Full).unwrap().count, 8);
}

#[test]
fn a_bad_sector_in_a_queue_or_the_index_is_an_error_of_who_reads_it() {
    let site = Site::new();
    let (store, places) = ten_messages(&site);
    site.disk.go_cold();
    site.disk.bad.lock().push((FIRST_QUEUE.to_owned(), 0..20));
    let failed = [
        read(&store, 0, 0, Effort::Full).map(|_| ()),
        store.queue_entry(T, Q, QueueOffset(0), Effort::Full).map(|_| ()),
        store.offset_by_time(T, Q, 0, Boundary::Lower, Effort::Full).map(|_| ()),
    ];
    assert!(failed.iter().all(|failed| is_bad_sector(failed, FIRST_QUEUE)), "{failed:?}");
    assert_eq!(read(&store, 1, 0, Effort::Full).unwrap().count, 1);
    assert!(store.message_at(places[0], Effort::Full).unwrap().is_some());
    let index = std::fs::read_dir(site.dir.path().join("store/index")).unwrap().next().unwrap().unwrap().file_name();
    let index = index.into_string().unwrap();
    site.disk.bad.lock().push((index.clone(), 0..4096));
    let failed = store.query(T, "k", 10, 0, i64::MAX, Effort::Full);
    assert!(is_bad_sector(&failed, &index), "{failed:?}");
    assert_eq!(read(&store, 1, 0, Effort::Full).unwrap().count, 1);
}

/// Behind our back, that is. See also `losses`.
#[test]
fn a_file_that_became_shorter_is_an_error_of_who_reads_it() {
    let site = Site::new();
    let open = || Store::open(StoreConfig { segment_len: 16_384, message_len_max: 8192, ..site.config() }).unwrap();
    let store = open();
    for body in 0..7_u8 {
        store.append(&message(T, 0, &[body; 5000], "")).unwrap();
    }
    settle(&store);
    store.close().unwrap();
    // Opened again: nobody readies bytes of the first file for appends any more, which would make it longer again.
    let store = open();
    let file = std::fs::OpenOptions::new().write(true).open(site.dir.path().join("store").join(FIRST_LOG)).unwrap();
    file.set_len(6000).unwrap();
    site.disk.forget_what_was_seen();
    assert_eq!(read(&store, 0, 0, Effort::Full).unwrap().count, 1);
    assert!(matches!(read(&store, 0, 1, Effort::Brief), Err(ReadError::NeedsTime)));
    let failed = read(&store, 0, 1, Effort::Full);
    assert!(
        matches!(&failed, Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::UnexpectedEof),
        "{failed:?}"
    );
    assert_eq!(read(&store, 0, 3, Effort::Full).unwrap().count, 4);
}

/// Offsets that groups committed and clients ask for are any numbers; they lead to nothing, or to an end of the queue.
#[test]
fn a_number_of_a_client_leads_nowhere() {
    let site = Site::new();
    let (store, _) = ten_messages(&site);
    let ends = [10, 1 << 40, i64::MAX as u64 / 20, i64::MAX as u64, u64::MAX / 20 + 1, u64::MAX - 1, u64::MAX];
    for (number, effort) in ends.into_iter().flat_map(|number| [(number, Effort::Brief), (number, Effort::Full)]) {
        let offset = QueueOffset(number);
        assert_eq!(read(&store, 0, number, effort).unwrap().next_offset, QueueOffset(10), "{number}");
        assert_eq!(store.queue_entry(T, Q, offset, effort).unwrap(), None, "{number}");
        assert_eq!(store.store_time_at(T, Q, offset, effort).unwrap(), None, "{number}");
        assert!(!store.is_in_memory(T, Q, offset, effort).unwrap(), "{number}");
        let place = PhysicalOffset(number.max(1 << 20));
        assert_eq!(store.message_at(place, effort).unwrap(), None, "{number}");
        assert!(store.raw_from(place, usize::MAX).unwrap().is_none(), "{number}");
    }
}

#[test]
fn a_filter_that_looks_into_many_records_is_left_to_who_has_time() {
    let site = Site::new();
    let config = StoreConfig { segment_len: 1 << 20, queue_file_entries: 1000, ..site.config() };
    let store = Store::open(config).unwrap();
    for _ in 0..100 {
        store.append(&message(T, 0, b"no", "")).unwrap();
    }
    settle(&store);
    let scan = |from, effort| store.read(T, Q, QueueOffset(from), ReadLimits::count(32), &Says(b"yes"), effort);
    assert!(matches!(scan(0, Effort::Brief), Err(ReadError::NeedsTime)));
    let all = scan(0, Effort::Full).unwrap();
    assert_eq!((all.status, all.next_offset), (ReadStatus::NoMatchedMessage, QueueOffset(100)));
    let few = scan(40, Effort::Brief).unwrap();
    assert_eq!((few.status, few.next_offset), (ReadStatus::NoMatchedMessage, QueueOffset(100)));
}

#[test]
fn a_filter_looks_into_so_many_bytes_at_once() {
    let site = Site::new();
    let config = StoreConfig { segment_len: 64 << 20, message_len_max: 8 << 20, ..site.config() };
    let store = Store::open(config).unwrap();
    let body = vec![1; 6 << 20];
    for _ in 0..4 {
        store.append(&message(T, 0, &body, "")).unwrap();
    }
    settle(&store);
    let scan = |from| store.read(T, Q, QueueOffset(from), ReadLimits::count(32), &Says(b"yes"), Effort::Full).unwrap();
    assert_eq!((scan(0).status, scan(0).next_offset), (ReadStatus::NoMatchedMessage, QueueOffset(2)));
    assert_eq!(scan(2).next_offset, QueueOffset(4));
}

#[test]
fn a_bad_sector_where_an_open_reads_is_told_and_not_run_into() {
    let site = Site::new();
    let (store, places) = ten_messages(&site);
    // As killed.
    drop(store);
    site.disk.go_cold();
    site.disk.bad.lock().push((FIRST_LOG.to_owned(), places[3].0 + 8192..places[3].0 + 8193));
    let told = Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap_err().to_string();
    assert!(told.contains(&format!(" of {}", site.dir.path().join("store").join(FIRST_LOG).display())), "{told}");
    site.disk.bad.lock().clear();
    let store = Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap();
    assert_eq!(read(&store, 0, 0, Effort::Full).unwrap().count, 10);
}

/// Whichever messages of a queue are lost: who goes on at a time gets all that were stored then or later, and nothing older.
#[test]
fn a_time_leads_past_no_message_that_is_there() {
    const COUNT: u64 = 100;
    let site = Site::new();
    let store = Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap();
    for n in 0..COUNT {
        site.advance(n as i64 % 3);
        store.append(&message(T, 0, b"x", "")).unwrap();
    }
    settle(&store);
    let queue = store.queues.find(T, Q).unwrap();
    let entries: Vec<_> = (0..COUNT).map(|offset| queue.entry(offset).unwrap().unwrap()).collect();
    let times: Vec<_> =
        (0..COUNT).map(|n| store.store_time_at(T, Q, QueueOffset(n), Effort::Full).unwrap().unwrap()).collect();
    let holes = proptest::collection::vec((0..COUNT, 0..20_u64), 0..8);
    let check = |(holes, time): (Vec<(u64, u64)>, i64)| {
        let is_lost = |offset: u64| holes.iter().any(|(from, len)| (*from..from + len).contains(&offset));
        for (offset, entry) in (0..).zip(&entries) {
            let entry = if is_lost(offset) { QueueEntry::lost(entry.physical) } else { *entry };
            queue.put(&*site.disk, QueueOffset(offset), &entry).unwrap();
        }
        let time = START_MS + time;
        let there: Vec<_> = (0..).zip(times.iter().copied()).filter(|(offset, _)| !is_lost(*offset)).collect();
        let found = |boundary| store.offset_by_time(T, Q, time, boundary, Effort::Full).unwrap().0;
        let from = found(Boundary::Lower);
        for (offset, stored) in &there {
            prop_assert_eq!(*offset >= from, *stored >= time, "{} stored at {}, from {}", offset, stored - time, from);
        }
        let last = there.iter().rfind(|(_, stored)| *stored <= time).map_or(0, |(offset, _)| *offset);
        prop_assert_eq!(found(Boundary::Upper), last);
        let earliest = store.earliest_store_time(T, Q, Effort::Full).unwrap();
        prop_assert_eq!(earliest, there.first().map(|(_, stored)| *stored));
        Ok(())
    };
    TestRunner::default().run(&(holes, -2..COUNT as i64 + 2), check).unwrap();
}

#[test]
fn an_open_reads_the_log_in_blocks() {
    let site = Site::new();
    let (store, places) = ten_messages(&site);
    drop(store);
    site.disk.go_cold();
    for (bad, reads_max) in [(None, 12), (Some(200_000..200_001), 50)] {
        // Of what is in none of its records, nobody has to know.
        site.disk.bad.lock().extend(bad.map(|bad| (FIRST_LOG.to_owned(), bad)));
        let before = site.disk.reads.load(Ordering::SeqCst);
        drop(Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap());
        let reads = site.disk.reads.load(Ordering::SeqCst) - before;
        assert!((1..=reads_max).contains(&reads), "{reads} reads of {} records", places.len());
    }
}
