//! What replication asks of a store: who may write, bytes of another one, how far they are replicated, and taking the end back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferromq_protocol::message::SysFlag;
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::testing::*;
use crate::{
    AppendError, CheckpointFile, Clock, FlushMode, ReadError, Store, StoreConfig, TruncateError, Want, Writer,
};

#[test]
fn a_store_that_is_not_the_writer_appends_nothing_of_its_own() {
    let site = Site::new();
    let store = site.open();
    assert_eq!(store.writer(), Writer::Local);
    let end = put(&store, b"own").end;
    settle(&store);
    for writer in [Writer::Stream, Writer::Nobody] {
        store.set_writer(writer).unwrap();
        assert_eq!(store.writer(), writer);
        let is_refused = |done: Result<(), AppendError>| matches!(done, Err(AppendError::NotTheWriter { writer: is }) if is == writer);
        let more = message(T, 0, b"more", "");
        let mut half = more;
        half.sys_flag = SysFlag(SysFlag::TRANSACTION_PREPARED);
        assert!(is_refused(store.append(&more).map(drop)));
        assert!(is_refused(store.append(&half).map(drop)));
        assert!(is_refused(store.append_again(&more).map(drop)));
        assert!(is_refused(store.append_carried(&more).map(drop)));
        assert!(is_refused(store.append_batch(&[more, more]).map(drop)));
        assert!(is_refused(store.round().append(&more).map(drop)));
        assert!(is_refused(store.check_writable()));
        let deletion = store.delete_topic(T).unwrap_err();
        let deletion = deletion.downcast::<AppendError>().unwrap();
        assert!(is_refused(Err(deletion)));
        assert_eq!(store.watermarks().written, end);
    }
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 1);
    store.set_writer(Writer::Local).unwrap();
    assert_eq!(put(&store, b"again").queue_offset, QueueOffset(1));
    store.close().unwrap();
}

#[test]
fn no_append_is_under_way_once_another_may_write() {
    let site = Site::new();
    let (inside, goes_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    // It is asked for the time in the middle of an append, with everything looked at before.
    let clock = Clock::from_fn({
        let (inside, goes_on) = (Arc::clone(&inside), Arc::clone(&goes_on));
        move || {
            if std::thread::current().name() == Some("appends") {
                inside.store(true, Ordering::SeqCst);
                wait_until(|| goes_on.load(Ordering::SeqCst));
            }
            START_MS
        }
    });
    let store = Store::open(StoreConfig { clock, ..site.config() }).unwrap();
    std::thread::scope(|scope| {
        let appends = std::thread::Builder::new().name("appends".to_owned());
        let append = appends.spawn_scoped(scope, || put(&store, b"under way").end).unwrap();
        wait_until(|| inside.load(Ordering::SeqCst));
        let change = scope.spawn(|| {
            store.set_writer(Writer::Nobody).unwrap();
            store.watermarks().written
        });
        wait_until(|| store.writer() == Writer::Nobody);
        // Time enough to return too soon.
        (0..1000).for_each(|_| std::thread::yield_now());
        goes_on.store(true, Ordering::SeqCst);
        assert_eq!(change.join().unwrap(), append.join().unwrap());
    });
    assert!(matches!(store.append(&message(T, 0, b"late", "")), Err(AppendError::NotTheWriter { .. })));
}

#[test]
fn consumers_see_nothing_beyond_what_is_replicated() {
    let site = Site::new();
    let store = site.open();
    store.set_replicated(PhysicalOffset(0));
    let first = put(&store, b"a");
    let second = put(&store, b"b");
    store.set_replicated(PhysicalOffset(second.end.0 - 1));
    wait_until(|| store.watermarks().projected == first.end);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(1));
    store.set_replicated(second.end);
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(2));
}

#[test]
fn copied_bytes_make_a_second_store() {
    let (site, copy) = (Site::new(), Site::new());
    let master = site.open();
    let slave = copy.open();
    slave.set_writer(Writer::Stream).unwrap();
    let mut last = PhysicalOffset(0);
    for body in 0..40_u8 {
        last = master.append(&message(T, 0, &[body; 300], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap().end;
    }
    copy_log(&master, &slave, &[1000]);
    assert_eq!(slave.watermarks().written, last);
    settle(&master);
    settle(&slave);
    assert_eq!(read_bodies(&slave, T, 0, 0), read_bodies(&master, T, 0, 0));
    assert_eq!(query_bodies(&slave, T, "k17"), [[17; 300]]);
    slave.set_writer(Writer::Local).unwrap();
    let refused = slave.append_copy(last, b"x").unwrap_err();
    let refusal = AppendError::NotTheWriter { writer: Writer::Local };
    assert_eq!(refused.to_string(), format!("the copy of the log stops at {last}: {refusal}"));
    assert_eq!(slave.append(&message(T, 0, b"now master", "")).unwrap().queue_offset, QueueOffset(40));
}

/// What this broker appended itself, with the topic deleted in between, and what it copied behind that.
#[test]
fn a_promotion_does_not_wait_for_dispatch() {
    let site = Site::new();
    let store = site.open();
    store.set_replicated(PhysicalOffset(0));
    (0..5_u8).for_each(|body| _ = put(&store, &[body]));
    assert!(store.delete_topic(T).unwrap());
    (0..2_u8).for_each(|body| _ = put(&store, &[body]));
    let mut other = OtherLog { segment_len: 4096, begin: store.watermarks().written.0, bytes: Vec::new() };
    (2..30).for_each(|offset| _ = other.put(&message(T, 0, &[7; 300], ""), offset, START_MS));
    (0..3).for_each(|offset| _ = other.put(&message("Other", 5, b"x", ""), offset, START_MS));
    let mut half = message(T, 0, b"half", "");
    half.sys_flag = SysFlag(SysFlag::TRANSACTION_PREPARED);
    other.put(&half, 0, START_MS);
    store.set_writer(Writer::Stream).unwrap();
    other.offer_to(&store, 1000).unwrap();
    store.set_writer(Writer::Local).unwrap();
    assert_eq!(store.watermarks().projected, PhysicalOffset(0), "nothing was dispatched");
    let next = |topic, queue| store.append(&message(topic, queue, b"own", "")).unwrap().queue_offset.0;
    assert_eq!((next(T, 0), next(T, 0), next("Other", 5), next("Other", 6)), (30, 31, 3, 0));
    store.set_replicated(PhysicalOffset(u64::MAX));
    settle(&store);
    let offsets: Vec<_> = read_bodies(&store, T, 0, 0).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..32).collect::<Vec<_>>());
    assert_eq!(next(T, 0), 32);
}

#[test]
fn nobody_writes_where_it_cannot_be_read_which_offsets_come_next() {
    let site = Site::new();
    let store = site.open();
    store.set_replicated(PhysicalOffset(0));
    let placed: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 300])).collect();
    store.set_writer(Writer::Stream).unwrap();
    let bad = placed[20];
    let begin = bad.physical_offset.file_start(4096);
    site.disk
        .bad
        .lock()
        .push((format!("commitlog/{:020}", begin.0), bad.physical_offset.0 - begin.0..bad.end.0 - begin.0));
    site.disk.go_cold();
    assert!(matches!(store.set_writer(Writer::Local), Err(ReadError::Io { .. })));
    assert_eq!(store.writer(), Writer::Nobody);
    assert!(store.append(&message(T, 0, b"x", "")).is_err());
    site.disk.bad.lock().clear();
    store.set_writer(Writer::Local).unwrap();
    assert_eq!(put(&store, b"x").queue_offset, QueueOffset(40));
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
fn a_truncation_that_cannot_read_what_stays_changes_nothing() {
    // In what says where the log may end, and in what has no queue entries yet.
    for (bad_record, dispatches, passes) in [(20, true, false), (3, false, false), (20, false, false), (22, true, true)]
    {
        let site = Site::new();
        let store = site.open();
        if !dispatches {
            store.set_replicated(PhysicalOffset(0));
        }
        let placed: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 300])).collect();
        settle(&store);
        let to = placed[20].end;
        let bad = placed[bad_record];
        let begin = bad.physical_offset.file_start(4096);
        let range = bad.physical_offset.0 - begin.0..bad.end.0 - begin.0;
        site.disk.bad.lock().push((format!("commitlog/{:020}", begin.0), range));
        site.disk.go_cold();
        let outcome = store.truncate(to);
        assert_eq!(outcome.is_ok(), passes, "{bad_record}: {outcome:?}");
        if !passes {
            assert!(matches!(outcome, Err(TruncateError::Read(_))));
            assert_eq!(store.watermarks().written, placed[39].end);
            site.disk.bad.lock().clear();
            store.truncate(to).unwrap();
        }
        assert_eq!(put(&store, b"again").queue_offset, QueueOffset(21));
        store.set_replicated(store.watermarks().written);
        settle(&store);
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 22);
    }
}

#[test]
fn a_feed_reads_nothing_that_a_crash_takes_back() {
    let site = Site::new();
    let flush = FlushMode::Sync { timeout: PATIENCE };
    let store = Store::open(StoreConfig { flush, ..site.config() }).unwrap();
    let first = put(&store, b"on the disk").end;
    wait_until(|| store.feed_end() == first);
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let second = put(&store, b"in memory").end;
    wait_until(|| site.disk.hanging.load(Ordering::SeqCst) > 0);
    let len_from = |from| store.raw_from(from, usize::MAX).unwrap().map(|bytes| bytes.len() as u64);
    let seen = (store.feed_end(), len_from(PhysicalOffset(0)), len_from(first));
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    assert_eq!(seen, (first, Some(first.0), None));
    wait_until(|| store.feed_end() == second);
    assert_eq!((len_from(first), len_from(second)), (Some(second.0 - first.0), None));
}

#[test]
fn feeds_are_told_of_growth_before_anybody_is_told_that_it_is_safe() {
    let never = Duration::from_secs(3600);
    let modes = [
        FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never },
        FlushMode::Sync { timeout: PATIENCE },
    ];
    for (flush, pool) in modes.iter().flat_map(|flush| [(flush, false), (flush, true)]) {
        let site = Site::new();
        let is_sync = matches!(flush, FlushMode::Sync { .. });
        let write_pool = pool.then(|| pool_of(5, 4096));
        let store = Store::open(StoreConfig { flush: flush.clone(), write_pool, ..site.config() }).unwrap();
        let told = Arc::<Mutex<Vec<(&str, PhysicalOffset)>>>::default();
        let note = |who| {
            let told = Arc::clone(&told);
            move |end| told.lock().push((who, end))
        };
        let mut end = PhysicalOffset(0);
        let mut round = |count: usize| {
            // Who asks when it is safe already is told at once.
            site.disk.sync_hangs.store(is_sync, Ordering::SeqCst);
            let round = store.round();
            for _ in 0..count {
                end = round.append(&message(T, 0, b"body", "")).unwrap().end;
            }
            if is_sync {
                let note = note("waiter");
                round.when_safe(end, Want::Acknowledged, move |safe| note(safe.map(|()| end).unwrap()));
            }
            site.disk.sync_hangs.store(false, Ordering::SeqCst);
            round.flush();
            if !is_sync {
                // As a reply that goes out now.
                note("waiter")(end);
            }
            drop(round);
            wait_until(|| store.feed_end() == end && told.lock().contains(&("waiter", end)));
            end
        };
        round(1);
        told.lock().clear();
        let _panics = store.on_growth(|_| panic!("as a listener may"));
        let listener = store.on_growth(note("feed"));
        let _other = store.on_growth(note("other feed"));
        let end = round(3);
        wait_until(|| told.lock().contains(&("other feed", end)));
        let seen = std::mem::take(&mut *told.lock());
        let at = |what| seen.iter().position(|one| *one == what).unwrap();
        if is_sync || !pool {
            assert!(at(("feed", end)) < at(("waiter", end)), "{flush:?}, {pool}: {seen:?}");
        }
        if !is_sync && !pool {
            assert_eq!(seen.len(), 3, "once for all of a round: {seen:?}");
        }
        drop(listener);
        let end = round(1);
        wait_until(|| told.lock().contains(&("other feed", end)));
        assert!(told.lock().iter().all(|(who, _)| *who != "feed"), "it was removed");
        // What is no round, and what the store appends by itself.
        let alone = |store: &Store| {
            put(store, b"alone");
        };
        let deletion = |store: &Store| assert!(store.delete_topic(T).unwrap());
        for growth in [alone, deletion] {
            growth(&store);
            let end = store.watermarks().written;
            wait_until(|| told.lock().contains(&("other feed", end)));
        }
        store.close().unwrap();
    }
}

/// Bodies of that many messages, one after the other over two queues, with where each ends.
fn put_over_two_queues(store: &Store, numbers: std::ops::Range<u64>) -> Vec<PhysicalOffset> {
    numbers.map(|number| put_one(store, number)).collect()
}

fn put_one(store: &Store, number: u64) -> PhysicalOffset {
    let body = [&number.to_be_bytes()[..], &vec![7; number as usize * 37 % 900]].concat();
    let text = format!("KEYS\u{1}k{number} all\u{2}");
    let placed = store.append(&message(T, (number % 2) as u32, &body, &text)).unwrap();
    assert_eq!(placed.queue_offset.0, number / 2, "{number}");
    placed.end
}

/// The numbers of the messages that consumers see, by queue and by key, once they see all up to that place.
fn seen(store: &Store, end: PhysicalOffset) -> Vec<u64> {
    wait_until(|| store.watermarks().projected >= end);
    let number = |body: &[u8]| u64::from_be_bytes(*body.first_chunk().unwrap());
    let mut seen = Vec::new();
    for queue in 0..2 {
        for (offset, body) in read_bodies(store, T, queue as u32, 0) {
            assert_eq!(number(&body), 2 * offset + queue);
            seen.push(number(&body));
        }
    }
    seen.sort_unstable();
    let mut by_key: Vec<_> = query_bodies(store, T, "all").iter().map(|body| number(body)).collect();
    by_key.sort_unstable();
    assert_eq!(by_key, seen);
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Start after start, however the store was ended: consumers see what is confirmed and nothing behind it, whatever they saw before, and
    /// no queue offset is given twice.
    #[test]
    fn an_open_shows_what_is_confirmed(
        starts in proptest::collection::vec((0..14_u64, any::<bool>(), any::<Option<prop::sample::Index>>(), -2..3_i64, any::<prop::sample::Index>()), 1..6),
    ) {
        let site = Site::new();
        let config = |confirmed_at_open| StoreConfig { confirmed_at_open, query_max: 100, ..site.config() };
        let mut ends = vec![PhysicalOffset(0)];
        let mut store = site.open();
        for (count, clean, confirmed, off, more) in starts {
            let written = ends.len() as u64 - 1;
            ends.extend(put_over_two_queues(&store, written..written + count));
            let written = ends.len() as u64 - 1;
            if clean {
                store.close().unwrap();
            } else {
                store.flusher.flush().unwrap();
            }
            drop(store);
            let end = ends[written as usize];
            let confirmed = confirmed.map(|index| PhysicalOffset(ends[index.index(ends.len())].0.saturating_add_signed(off)));
            store = Store::open(config(confirmed)).unwrap();
            prop_assert_eq!(store.watermarks().written, end);
            let shown = |confirmed: PhysicalOffset| ends.iter().filter(|end| **end <= confirmed).count() as u64 - 1;
            let expected = confirmed.map_or(written, shown);
            prop_assert_eq!(seen(&store, ends[expected as usize]), (0..expected).collect::<Vec<_>>(), "{:?} of {:?}", confirmed, ends);
            if let Some(confirmed) = confirmed {
                prop_assert_eq!(store.watermarks().visible, confirmed.min(end));
                // It moves on, or back, as replication says, and what is shown already stays.
                let next = ends[more.index(ends.len())];
                store.set_replicated(next);
                prop_assert_eq!(seen(&store, next), (0..shown(next).max(expected)).collect::<Vec<_>>());
            }
        }
        drop(store);
        let store = Store::open(config(None)).unwrap();
        prop_assert_eq!(seen(&store, *ends.last().unwrap()), (0..ends.len() as u64 - 1).collect::<Vec<_>>());
    }
}

#[test]
fn the_checkpoint_says_how_far_the_log_is_confirmed() {
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let flush = FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never };
    let config = |confirmed_at_open| StoreConfig {
        flush: flush.clone(),
        queue_flush_interval: never,
        confirmed_at_open,
        ..site.config()
    };
    let said = || CheckpointFile::decode(&std::fs::read(root(&site).join("checkpoint")).unwrap()).unwrap().confirmed;
    let store = Store::open(config(Some(PhysicalOffset(0)))).unwrap();
    let ends: Vec<_> = (0..4).map(|number| put_one(&store, number)).collect();
    store.set_replicated(ends[2]);
    // Nothing is on the disk yet: after a power cut something else may come there.
    store.checkpoint.save(&*site.disk).unwrap();
    assert_eq!(said(), 0);
    store.flusher.flush().unwrap();
    store.checkpoint.save(&*site.disk).unwrap();
    assert_eq!(said(), ends[2].0);
    store.close().unwrap();
    assert_eq!(said(), ends[2].0);
    drop(store);
    let store = Store::open(config(Some(PhysicalOffset(said())))).unwrap();
    assert_eq!((said(), seen(&store, ends[2])), (ends[2].0, vec![0, 1, 2]));
    // What comes in the place of what is taken back is not confirmed by what was said of it.
    store.truncate(ends[1]).unwrap();
    store.close().unwrap();
    drop(store);
    assert!(said() <= ends[1].0);
    let store = Store::open(config(Some(ends[3]))).unwrap();
    let end = put_one(&store, 2);
    assert_eq!(seen(&store, ends[1]), [0, 1]);
    store.set_replicated(end);
    assert_eq!(seen(&store, end), [0, 1, 2]);
}
