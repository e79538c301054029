//! A store with the write pool: what is lost with the process, what consumers see, what becomes of its buffers.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use ferromq_protocol::{PhysicalOffset, QueueOffset};

use super::*;
use crate::retention::Progress;
use crate::retention_rules::{Hours, RetentionRules};
use crate::testing::*;
use crate::{AppendError, Effort, NotSafe, TruncateError, WritePoolConfig};

const NEVER: Duration = Duration::from_secs(3600);

/// Nothing gets out of the pool by itself.
fn holding() -> WritePoolConfig {
    WritePoolConfig { commit_interval: NEVER, ..pool_of(16, 4096) }
}

/// Segments of several buffers; the disk is asked for nothing by itself.
fn config(site: &Site, pool: WritePoolConfig) -> StoreConfig {
    let flush = FlushMode::Async { interval: NEVER, least_pages: 0, thorough_interval: NEVER };
    StoreConfig { segment_len: 16 << 10, message_len_max: 8192, write_pool: Some(pool), flush, ..site.config() }
}

fn commit(store: &Store) {
    store.committer.as_ref().unwrap().commit().unwrap();
    store.dispatch_signal.wake();
    settle(store);
}

#[test]
fn what_is_not_committed_is_lost_with_the_process_and_was_never_shown() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let bodies: Vec<[u8; 700]> = (0..50).map(|body| [body; 700]).collect();
    bodies[..40].iter().for_each(|body| assert!(put(&store, body).record_len > 700));
    commit(&store);
    let committed = store.watermarks().committed;
    for body in &bodies[40..] {
        let put = put(&store, body);
        assert!(store.is_safe(put.end, Want::Acknowledged) && !store.is_safe(put.end, Want::Disk));
    }
    store.dispatcher.catch_up();
    let marks = store.watermarks();
    assert!(marks.committed == committed && marks.visible == committed && marks.written > committed, "{marks:?}");
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(40));
    drop(store);
    // Also without the pool: the files are those of any store.
    for write_pool in [None, Some(holding())] {
        let store = Store::open(StoreConfig { write_pool, ..config(&site, holding()) }).unwrap();
        assert_eq!(store.watermarks().written, committed);
        let found = read_bodies(&store, T, 0, 0);
        assert!(found.iter().map(|(_, body)| &body[..]).eq(bodies[..40].iter().map(|body| &body[..])));
    }
    let store = Store::open(config(&site, holding())).unwrap();
    assert_eq!(put(&store, b"next").queue_offset, QueueOffset(40));
    store.close().unwrap();
    let store = Store::open(config(&site, holding())).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 40), [(40, b"next".to_vec())], "a clean stop takes all along");
}

/// Whole pages are committed while more comes, and a border may be anywhere in a record, where no CRC tells.
#[test]
fn a_record_of_which_a_part_is_committed_is_none_after_a_kill() {
    for text_len in [600, 2000, 5000] {
        let site = Site::new();
        let store = Store::open(config(&site, holding())).unwrap();
        let first = put(&store, &[1; 3500]);
        commit(&store);
        let text = format!("K\u{1}{}\u{2}", "v".repeat(text_len));
        let second = store.append(&message(T, 0, b"", &text)).unwrap();
        let committed = store.committer.as_ref().unwrap().commit_as(false).unwrap();
        assert!(committed.is_multiple_of(4096) && first.end.0 < committed && committed < second.end.0, "{committed}");
        drop(store);
        let store = Store::open(config(&site, holding())).unwrap();
        assert_eq!(store.watermarks().written, first.end);
        assert_eq!(put(&store, b"next").queue_offset, second.queue_offset);
    }
}

/// The log may come to end at the same place again, with other records before it.
#[test]
fn what_comes_after_a_truncation_is_shown_although_a_part_of_a_record_stood_there() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let first = put(&store, &[1; 1000]);
    commit(&store);
    let commit_pages = || {
        let committed = store.committer.as_ref().unwrap().commit_as(false).unwrap();
        store.dispatch_signal.wake();
        assert_eq!(committed, 4096);
    };
    put(&store, &[2; 6000]);
    commit_pages();
    // Time enough to find that nothing can be done.
    (0..1000).for_each(|_| std::thread::yield_now());
    store.truncate(first.end).unwrap();
    put(&store, b"next");
    put(&store, &[3; 6000]);
    commit_pages();
    wait_until(|| read_bodies(&store, T, 0, 1) == [(1, b"next".to_vec())]);
}

/// What a client sends may look like the head of a filler, or of a record: nobody takes the committed part of it for all there is.
#[test]
fn a_record_of_which_a_part_is_committed_hides_nothing() {
    for at in [100, 3000, 6400] {
        let site = Site::new();
        let store = Store::open(config(&site, holding())).unwrap();
        let mut body = [7; 6500];
        body[at..at + 4].copy_from_slice(&ferromq_protocol::message::record::BLANK_MAGIC.to_be_bytes());
        let first = put(&store, &body);
        let committed = store.committer.as_ref().unwrap().commit_as(false).unwrap();
        assert!(committed.is_multiple_of(4096) && committed < first.end.0, "{committed}");
        store.dispatcher.catch_up();
        assert_eq!(store.watermarks().projected, PhysicalOffset(0));
        let last = put(&store, b"last");
        commit(&store);
        assert_eq!(store.watermarks().projected, last.end);
        assert_eq!(read_bodies(&store, T, 0, 0), [(0, body.to_vec()), (1, b"last".to_vec())]);
    }
}

/// Whoever commits. Nothing wakes the dispatch behind it.
#[test]
fn what_is_committed_is_shown() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let end = put(&store, b"shown").end;
    store.committer.as_ref().unwrap().commit().unwrap();
    wait_until(|| store.watermarks().projected == end);
}

#[test]
fn with_sync_flush_nothing_acknowledged_is_lost() {
    let site = Site::new();
    let config = || StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..config(&site, holding()) };
    let store = Store::open(config()).unwrap();
    let (sender, outcomes) = mpsc::channel();
    for body in 0..30_u8 {
        let sender = sender.clone();
        let end = put(&store, &[body; 500]).end;
        store.when_safe(end, Want::Acknowledged, move |outcome| sender.send((end, outcome)).unwrap());
    }
    for _ in 0..30 {
        let (end, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(outcome, Ok(()));
        let marks = store.watermarks();
        assert!(marks.flushed >= end && marks.committed >= marks.flushed, "{marks:?}");
    }
    drop(store);
    let store = Store::open(config()).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 30);
    // The disk fails.
    site.disk.sync_fails.store(true, Ordering::SeqCst);
    let end = put(&store, b"lost").end;
    store.when_safe(end, Want::Acknowledged, move |outcome| sender.send((end, outcome)).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1, Err(NotSafe::Failed));
    wait_until(|| store.check_writable().is_err());
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(30));
}

#[test]
fn buffers_are_used_again_and_the_files_are_as_without_them() {
    let (plain, pooled) = (Site::new(), Site::new());
    let one = Store::open(StoreConfig { write_pool: None, ..config(&plain, holding()) }).unwrap();
    let other = Store::open(config(&pooled, pool_of(3, 4096))).unwrap();
    let mut held = Vec::new();
    for count in 0..300_usize {
        let body = vec![u8::try_from(count % 251).unwrap(); 10 + count * 37 % 1500];
        let placed = put(&one, &body);
        assert_eq!(put(&other, &body), placed);
        // Readers that keep what they were given see it unchanged, wherever it is by then.
        held.push((other.message_at(placed.physical_offset, Effort::Full).unwrap().unwrap(), body));
    }
    settle(&one);
    wait_until(|| other.watermarks().committed == other.watermarks().written);
    settle(&other);
    assert_eq!(read_bodies(&one, T, 0, 0), read_bodies(&other, T, 0, 0));
    for (record, body) in &held {
        assert_eq!(ferromq_protocol::message::Record::parse(record).unwrap().body(), body);
    }
    drop(held);
    let files = |site: &Site| {
        let dir = root(site).join("commitlog");
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let end = one.watermarks().written.0;
    drop((one, other));
    for (path, other_path) in files(&plain).iter().zip(files(&pooled)) {
        let start: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        assert_eq!(path.file_name(), other_path.file_name());
        assert!(std::fs::read(path).unwrap() == std::fs::read(&other_path).unwrap(), "{start}, the log ends at {end}");
    }
}

#[test]
fn an_append_without_a_buffer_waits_or_is_refused() {
    for fails_fast in [false, true] {
        let site = Site::new();
        let store = Store::open(config(&site, WritePoolConfig { fails_fast, ..pool_of(3, 4096) })).unwrap();
        assert!(!store.is_pool_empty());
        site.disk.write_hangs.store(true, Ordering::SeqCst);
        let fill = || loop {
            if let Err(error) = store.append(&message(T, 0, &[1; 1000], "")) {
                break error;
            }
        };
        if fails_fast {
            let error = fill();
            let told = matches!(&error, AppendError::Extend { reason } if reason.starts_with("the write pool has no free buffer"));
            assert!(told, "{error}");
            assert!(store.is_pool_empty());
            site.disk.write_hangs.store(false, Ordering::SeqCst);
        } else {
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    for _ in 0..30 {
                        put(&store, &[1; 1000]);
                    }
                });
                wait_until(|| store.allocator.is_starved());
                assert!(!writer.is_finished() && !store.is_pool_empty());
                site.disk.write_hangs.store(false, Ordering::SeqCst);
            });
        }
        // There is one again when the disk goes on.
        wait_until(|| !store.allocator.is_starved());
        let last = put(&store, b"last");
        wait_until(|| store.watermarks().projected >= last.end);
        let found = read_bodies(&store, T, 0, 0);
        assert_eq!((found.len() as u64 - 1, &found.last().unwrap().1[..]), (last.queue_offset.0, &b"last"[..]));
    }
}

/// The disk that fails is not taken for one that is slow: the refusal comes at once, with its error, and again and again.
#[test]
fn a_disk_that_does_not_give_the_tails_page_is_told_as_that() {
    for fails_fast in [false, true] {
        let site = Site::new();
        let store = Store::open(config(&site, WritePoolConfig { fails_fast, ..pool_of(3, 4096) })).unwrap();
        let first = put(&store, b"first").end;
        put(&store, b"cut off");
        commit(&store);
        site.disk.bad.lock().push(("00000000000000000000".to_owned(), 0..4096));
        // What begins in the middle of a page begins with what the file has of it.
        store.truncate(first).unwrap();
        for _ in 0..3 {
            let error = store.append(&message(T, 0, b"refused", "")).unwrap_err();
            let told = matches!(&error, AppendError::Extend { reason } if reason.contains("commitlog/0000") && reason.contains("os error 5"));
            assert!(told, "{error}");
            assert!(!store.is_pool_empty());
        }
        site.disk.bad.lock().clear();
        wait_until(|| store.append(&message(T, 0, b"second", "")).is_ok());
        settle(&store);
        wait_until(|| store.watermarks().projected == store.watermarks().written);
        let found = read_bodies(&store, T, 0, 0);
        assert_eq!(found, [(0, b"first".to_vec()), (1, b"second".to_vec())]);
    }
}

#[test]
fn a_segment_that_cannot_be_opened_for_the_pool_is_told_as_that() {
    let site = Site::new();
    let store = Store::open(config(&site, pool_of(3, 4096))).unwrap();
    let (path, aside) = (root(&site).join("commitlog/00000000000000016384"), root(&site).join("aside"));
    (0..9).for_each(|body| assert!(put(&store, &[body; 1000]).record_len > 1000));
    wait_until(|| store.allocator.is_idle() && path.exists());
    std::fs::rename(&path, &aside).unwrap();
    let error = loop {
        if let Err(error) = store.append(&message(T, 0, &[2; 1000], "")) {
            break error;
        }
    };
    let told = matches!(&error, AppendError::Extend { reason } if reason.contains("00000000000000016384") && reason.contains("os error 2"));
    assert!(told, "{error}");
    std::fs::rename(&aside, &path).unwrap();
    wait_until(|| store.append(&message(T, 0, &[3; 1000], "")).is_ok());
}

/// Those that are refused move the log's end nowhere, so it is another's to see that there are buffers again.
#[test]
fn a_record_for_which_there_was_no_buffer_is_no_reason_to_refuse_the_next() {
    let site = Site::new();
    let pool = WritePoolConfig { fails_fast: true, ..pool_of(4, 4096) };
    let store = Store::open(StoreConfig { segment_len: 64 << 10, ..config(&site, pool) }).unwrap();
    site.disk.write_hangs.store(true, Ordering::SeqCst);
    put(&store, &[1; 3500]);
    put(&store, &[2; 6500]);
    let long = message(T, 0, &[3; 6500], "");
    let error = store.append(&long).unwrap_err();
    assert!(matches!(&error, AppendError::Extend { .. }), "{error}");
    site.disk.write_hangs.store(false, Ordering::SeqCst);
    wait_until(|| !store.is_pool_empty());
    // The first may come before its buffers are ready.
    wait_until(|| store.append(&long).is_ok());
}

#[test]
fn a_round_may_be_longer_than_the_pool() {
    let site = Site::new();
    let flush = FlushMode::Sync { timeout: PATIENCE };
    let store = Store::open(StoreConfig { flush, ..config(&site, pool_of(3, 4096)) }).unwrap();
    let round = store.round();
    let (sender, outcomes) = mpsc::channel();
    for body in 0..100_u8 {
        let end = round.append(&message(T, 0, &[body; 1000], "")).unwrap().end;
        let sender = sender.clone();
        round.when_safe(end, Want::Acknowledged, move |outcome| sender.send(outcome).unwrap());
    }
    drop(round);
    (0..100).for_each(|_| assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(())));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 100);
}

#[test]
fn what_cannot_be_committed_stops_writes() {
    let site = Site::new();
    let store = Store::open(config(&site, pool_of(3, 4096))).unwrap();
    let end = put(&store, b"there").end;
    wait_until(|| store.watermarks().projected >= end);
    site.disk.write_error.store(libc::EIO, Ordering::SeqCst);
    put(&store, b"not there");
    wait_until(|| store.check_writable().is_err());
    let error = store.append(&message(T, 0, b"", "")).unwrap_err();
    let told = matches!(&error, AppendError::Poisoned { reason } if reason.contains("the write pool") && reason.contains("00000000"));
    assert!(told, "{error}");
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(1));
    assert!(store.close().is_err());
    site.disk.write_error.store(0, Ordering::SeqCst);
    let store = Store::open(config(&site, pool_of(3, 4096))).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"there".to_vec())]);
}

#[test]
fn what_finds_no_room_is_committed_when_there_is_some() {
    for syncs in [false, true] {
        let site = Site::new();
        let flush = if syncs { FlushMode::Sync { timeout: PATIENCE } } else { FlushMode::default() };
        let store = Store::open(StoreConfig { flush, ..config(&site, pool_of(3, 4096)) }).unwrap();
        let (sender, outcomes) = mpsc::channel();
        let put = |body: &[u8]| {
            let (end, sender) = (put(&store, body).end, sender.clone());
            store.when_safe(end, Want::Acknowledged, move |outcome| sender.send(outcome).unwrap());
            end
        };
        let end = put(b"there");
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(()));
        wait_until(|| store.watermarks().projected >= end);
        site.disk.write_error.store(libc::ENOSPC, Ordering::SeqCst);
        let end = put(b"in the pool");
        wait_until(|| store.check_writable().is_err());
        let error = store.append(&message(T, 0, b"refused", "")).unwrap_err();
        let told = matches!(&error, AppendError::DiskFull { reason, path } if reason.contains("write pool") && path.ends_with("commitlog"));
        assert!(told, "{error}");
        assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(1), "shown, and not in the file");
        if syncs {
            assert!(outcomes.try_recv().is_err(), "answered, and not on the disk");
        }
        site.disk.write_error.store(0, Ordering::SeqCst);
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(()));
        wait_until(|| store.check_writable().is_ok() && store.watermarks().projected >= end);
        put(b"again");
        store.close().unwrap();
        let store = Store::open(config(&site, holding())).unwrap();
        let bodies: Vec<_> = read_bodies(&store, T, 0, 0).into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, [&b"there"[..], b"in the pool", b"again"]);
    }
}

#[test]
fn a_segment_that_is_deleted_gives_its_buffers_back() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let bodies: Vec<_> = (0..40_u8).map(|body| vec![body; 900]).collect();
    let placed: Vec<_> = bodies.iter().map(|body| put(&store, body).physical_offset).collect();
    commit(&store);
    let reader = store.message_at(placed[0], Effort::Full).unwrap().unwrap();
    let first = store.segments.first().unwrap();
    assert!(first.is_staged());
    let hours = Hours::default();
    store.change_retention(RetentionRules {
        hours,
        segment_pause: Duration::ZERO,
        reserved_bytes: Some(32 << 10),
        ..RetentionRules::default()
    });
    store.retention.go_round(&mut Progress::default());
    assert!(store.watermarks().min.0 > 0 && !first.is_staged());
    assert_eq!(ferromq_protocol::message::Record::parse(&reader).unwrap().body(), bodies[0]);
}

#[test]
fn no_commit_makes_a_file_long_again() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    put(&store, &[1; 3500]);
    commit(&store);
    let path = store.segments.first().unwrap().path().to_owned();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    put(&store, &[2; 3000]);
    let error = store.committer.as_ref().unwrap().commit().unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(matches!(store.append(&message(T, 0, b"", "")), Err(AppendError::Poisoned { .. })));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096);
}

#[test]
fn no_copy_has_what_a_crash_takes_back() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let end = put(&store, &[1; 700]).end;
    assert_eq!(store.raw_from(PhysicalOffset(0), usize::MAX).unwrap(), None);
    commit(&store);
    assert_eq!(store.raw_from(PhysicalOffset(0), usize::MAX).unwrap().unwrap().len() as u64, end.0);
    put(&store, &[2; 700]);
    assert_eq!(store.raw_from(PhysicalOffset(0), usize::MAX).unwrap().unwrap().len() as u64, end.0);
    assert_eq!(store.raw_from(end, usize::MAX).unwrap(), None);
}

#[test]
fn a_full_disk_refuses_and_takes_again() {
    let site = Site::new();
    let store = Store::open(config(&site, pool_of(3, 4096))).unwrap();
    site.disk.full.store(true, Ordering::SeqCst);
    let mut stored = 0;
    let error = loop {
        match store.append(&message(T, 0, &[1; 1000], "")) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::DiskFull { .. }), "{error}");
    site.disk.full.store(false, Ordering::SeqCst);
    wait_until(|| store.append(&message(T, 0, b"again", "")).is_ok());
    wait_until(|| store.watermarks().committed == store.watermarks().written);
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), stored + 1);
}

#[test]
fn the_log_can_be_truncated() {
    let site = Site::new();
    let store = Store::open(config(&site, holding())).unwrap();
    let ends: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 700]).end).collect();
    assert!(matches!(store.truncate(PhysicalOffset(1 << 40)), Err(TruncateError::OutOfRange { .. })));
    store.truncate(ends[20]).unwrap();
    let marks = store.watermarks();
    assert_eq!((marks.written, marks.committed), (ends[20], ends[20]));
    for body in 100..140_u8 {
        put(&store, &[body; 700]);
    }
    commit(&store);
    let expected: Vec<_> = (0..21).chain(100..140).map(|body| vec![body; 700]).collect();
    let bodies = |store: &Store| read_bodies(store, T, 0, 0).into_iter().map(|(_, body)| body).collect::<Vec<_>>();
    assert_eq!(bodies(&store), expected);
    drop(store);
    assert_eq!(bodies(&Store::open(config(&site, holding())).unwrap()), expected);
}

#[test]
fn a_pool_that_does_not_fit_is_refused() {
    let site = Site::new();
    for (segment_len, buffer_len, key) in [
        (5000, 4096, "mappedFileSizeCommitLog"),
        (8192, 0, "transientStorePoolSize"),
        (8192, 5000, "transientStorePoolSize"),
    ] {
        let config = StoreConfig { segment_len, ..config(&site, pool_of(3, buffer_len)) };
        assert!(matches!(Store::open(config), Err(OpenError::Config { key: told, .. }) if told == key));
    }
    // A record longer than the pool can take in one piece, and the next one.
    let store = Store::open(config(&site, pool_of(3, 4096))).unwrap();
    let error = store.append_again(&message(T, 0, &[1; 4096], "")).unwrap_err();
    assert!(matches!(error, AppendError::LargerThanSegment { len_max: 4096, .. }), "{error}");
    put(&store, b"fits");
}
