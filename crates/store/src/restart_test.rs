//! A log that is given up, and begins anew elsewhere. What a crash leaves of it: crash_test.

use std::sync::atomic::Ordering;

use super::*;
use crate::retention::Progress;
use crate::retention_rules::RetentionRules;
use crate::testing::*;
use crate::{CopyFault, Effort, FlushMode, NotSafe, ReadError, RestartError, Want, Writer};
use ferromq_protocol::PhysicalOffset;

const SEGMENT_LEN: u64 = 4096;

/// Messages of a log that begins there, of a queue in which others were before.
fn log_at(begin: u64, offsets: std::ops::Range<u64>) -> OtherLog {
    let mut other = OtherLog { segment_len: SEGMENT_LEN, begin, bytes: Vec::new() };
    offsets.for_each(|offset| _ = other.put(&message(T, 0, &[7; 300], "KEYS\u{1}anew\u{2}"), offset, START_MS));
    other
}

/// It has exactly that.
fn check(store: &Store, log: &OtherLog, offsets: std::ops::Range<u64>) {
    store.flusher.flush().unwrap();
    settle(store);
    let marks = store.watermarks();
    assert_eq!((marks.min.0, marks.written.0), (log.begin, log.end()));
    assert_eq!(
        store.raw_from(marks.min, 1 << 20).unwrap().map_or(0, |bytes| bytes[..].len()) > 0,
        log.end() > log.begin
    );
    let found: Vec<_> = read_bodies(store, T, 0, offsets.start).into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(found, offsets.clone().collect::<Vec<_>>());
    assert_eq!(query_bodies(store, T, "anew").len(), found.len().min(64));
    assert!(query_bodies(store, T, "old").is_empty());
    assert!(store.queue_ids("Other").is_empty());
}

fn in_dir(site: &Site, name: &str) -> usize {
    std::fs::read_dir(root(site).join(name)).unwrap().count()
}

#[test]
fn a_copy_begins_where_its_masters_log_does() {
    let sync = FlushMode::Sync { timeout: PATIENCE };
    for (flush, pool) in [(None, false), (None, true), (Some(&sync), false), (Some(&sync), true)] {
        let site = Site::new();
        let config = || StoreConfig {
            flush: flush.cloned().unwrap_or(site.config().flush),
            write_pool: pool.then(|| pool_of(8, 4096)),
            ..site.config()
        };
        let store = Store::open(config()).unwrap();
        // An empty one, one with messages, further on and further back.
        for (round, begin) in [5, 9, 2, 7, 0, 1].into_iter().map(|segment| segment * SEGMENT_LEN).enumerate() {
            store.set_writer(Writer::Nobody).unwrap();
            let held = store.raw_from(store.watermarks().min, 4000).unwrap().map(|bytes| (bytes.to_vec(), bytes));
            store.restart_at(PhysicalOffset(begin)).unwrap();
            check(&store, &log_at(begin, 0..0), 3..3);
            assert_eq!((in_dir(&site, "consumequeue"), in_dir(&site, "index")), (0, 0));
            assert!(held.is_none_or(|(before, bytes)| bytes[..] == before[..]));
            store.set_writer(Writer::Stream).unwrap();
            let first = 3 * u64::from(begin > 0);
            let log = log_at(begin, first..first + 20 + round as u64);
            log.offer_to(&store, 1000).unwrap();
            let offsets = first..first + 20 + round as u64;
            check(&store, &log, offsets.clone());
            // It is a log as any other.
            store.set_writer(Writer::Local).unwrap();
            assert_eq!(put(&store, b"own").queue_offset.0, offsets.end);
            store.append(&message("Other", 0, b"x", "KEYS\u{1}old\u{2}")).unwrap();
            assert!(store.delete_topic("Other").unwrap());
            (0..8_u8).for_each(|_| _ = store.append(&message("Other", 0, &[1; 900], "KEYS\u{1}old\u{2}")).unwrap());
            if round % 2 == 0 {
                store.maintenance.flush_all().unwrap();
            }
        }
    }
}

#[test]
fn the_next_start_goes_on_where_the_log_began_anew() {
    for clean in [false, true] {
        let site = Site::new();
        let store = site.open();
        (0..40_u8).for_each(|body| _ = put(&store, &[body; 300]));
        settle(&store);
        store.set_writer(Writer::Stream).unwrap();
        let begin = 3 * SEGMENT_LEN;
        store.restart_at(PhysicalOffset(begin)).unwrap();
        let end = |store: Store| if clean { store.close().unwrap() } else { drop(store) };
        end(store);
        // Nothing is in the file yet.
        let store = site.open();
        check(&store, &log_at(begin, 0..0), 5..5);
        store.set_writer(Writer::Stream).unwrap();
        let log = log_at(begin, 5..60);
        log.offer_to(&store, 1000).unwrap();
        end(store);
        let store = site.open();
        check(&store, &log, 5..60);
        end(store);
        // As after any loss, all can be made again from the log.
        std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
        check(&site.open(), &log, 5..60);
    }
}

#[test]
fn what_cannot_begin_anew_is_left_as_it_is() {
    let site = Site::new();
    let store = site.open();
    let end = put(&store, b"stays").end;
    settle(&store);
    let restart = |at: u64| store.restart_at(PhysicalOffset(at)).unwrap_err();
    assert!(matches!(restart(4097), RestartError::NotASegmentBorder { segment_len: 4096, .. }));
    assert!(matches!(restart(1 << 63), RestartError::NotASegmentBorder { .. }));
    assert!(matches!(restart(4096), RestartError::IsTheWriter));
    store.set_writer(Writer::Nobody).unwrap();
    assert_eq!((store.watermarks().written, read_bodies(&store, T, 0, 0).len()), (end, 1));
    store.health.poison("for the test".to_owned());
    assert!(matches!(restart(4096), RestartError::Poisoned { .. }));
    drop(store);
    let store = site.open();
    store.set_writer(Writer::Nobody).unwrap();
    store.close().unwrap();
    assert!(matches!(store.restart_at(PhysicalOffset(4096)), Err(RestartError::Closed)));
    drop(store);
    // What is in a directory that nothing is written to would be found again.
    let old = site.dir.path().join("old");
    std::fs::rename(root(&site).join("commitlog"), &old).unwrap();
    let other = StoreConfig { read_only_log_dirs: vec![old.clone()], ..site.config() };
    std::fs::write(old.join("00000000000000000000"), {
        let mut bytes = std::fs::read(old.join("00000000000000000000")).unwrap();
        let at = end.0 as usize;
        bytes[at..at + 8].copy_from_slice(&ferromq_protocol::message::record::blank(4096 - end.0 as u32));
        bytes
    })
    .unwrap();
    let store = Store::open(other).unwrap();
    store.set_writer(Writer::Nobody).unwrap();
    let refused = store.restart_at(PhysicalOffset(8192)).unwrap_err();
    assert!(matches!(&refused, RestartError::ReadOnly { path } if path.starts_with(&old)), "{refused}");
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 1);
}

/// What comes at the new place is not taken for what the old log had there.
#[test]
fn nothing_of_the_old_log_is_believed_of_the_new_one() {
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let flush = FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never };
    let store = Store::open(StoreConfig { flush, ..site.config() }).unwrap();
    store.set_writer(Writer::Stream).unwrap();
    // It ends behind a filler, the rest of which may come yet.
    let old = log_at(0, 0..11);
    old.offer_to(&store, 1000).unwrap();
    let room = usize::try_from(SEGMENT_LEN - old.end() % SEGMENT_LEN).unwrap();
    let filler = ferromq_protocol::message::record::blank(room as u32);
    store.append_copy(PhysicalOffset(old.end()), &filler).unwrap();
    let end = store.watermarks().written;
    assert_eq!(end.0 % SEGMENT_LEN, 0);
    store.set_replicated(end);
    settle(&store);
    let begin = end.0 + 3 * SEGMENT_LEN;
    let asked = Arc::new(parking_lot::Mutex::new(None));
    store.flusher.when_flushed(begin, {
        let asked = Arc::clone(&asked);
        Box::new(move |outcome| *asked.lock() = Some(outcome))
    });
    store.restart_at(PhysicalOffset(begin)).unwrap();
    assert_eq!(*asked.lock(), Some(Err(NotSafe::Failed)), "what it waited for has gone");
    let refused = store.append_copy(PhysicalOffset(end.0 - 1), b"x").unwrap_err();
    assert!(matches!(refused.fault, CopyFault::NotAtEnd { end } if end.0 == begin), "{refused}");
    // Further back: nothing of that was confirmed.
    store.restart_at(PhysicalOffset(0)).unwrap();
    let log = log_at(0, 0..5);
    log.offer_to(&store, 1000).unwrap();
    let marks = store.watermarks();
    assert_eq!((marks.visible.0, marks.projected.0), (0, 0));
    assert!(!store.is_safe(PhysicalOffset(log.end()), Want::Disk));
    store.set_replicated(PhysicalOffset(log.end()));
    check(&store, &log, 0..5);
}

/// A start does what was ordered, and nothing by a word that nobody gave.
#[test]
fn a_damaged_order_stops_the_start() {
    let site = Site::new();
    let store = site.open();
    put(&store, b"stays");
    store.close().unwrap();
    drop(store);
    let path = restart::path_in(&root(&site));
    std::fs::write(&path, b"FMQANEW1 or something like it").unwrap();
    let refused = Store::open(site.config()).unwrap_err();
    assert!(matches!(&refused, OpenError::Io { path: named, .. } if *named == path), "{refused}");
    assert!(format!("{refused:?}").contains("it is damaged"), "{refused:?}");
    std::fs::write(&path, b"#!/bin/sh").unwrap();
    let refused = Store::open(site.config()).unwrap_err();
    // Nobody is told to remove a log for it.
    assert!(format!("{refused:?}").contains("move it elsewhere"), "{refused:?}");
    std::fs::remove_file(&path).unwrap();
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 1);
    drop(store);
    RestartOrder { begin: SEGMENT_LEN }.give(&*site.disk, &root(&site)).unwrap();
    let config = crate::check::CheckConfig::at(root(&site));
    let mut told = Vec::new();
    crate::check::check(&config, &mut |finding| told.push(finding.to_string())).unwrap();
    assert!(told.iter().any(|told| told.contains("was given up") && told.contains("begins at 4096")), "{told:?}");
    check(&site.open(), &log_at(SEGMENT_LEN, 0..0), 0..0);
    assert!(!path.exists());
}

/// Old files go from the new log as from any other, and none goes from it that was to go from the old one.
#[test]
fn retention_goes_on_with_the_new_log() {
    let site = Site::new();
    let store = site.open();
    let mut progress = Progress::default();
    let keep = |store: &Store, segments: u64, progress: &mut Progress| {
        let reserved_bytes = Some(segments * SEGMENT_LEN);
        store.change_retention(RetentionRules { reserved_bytes, ..site.config().retention });
        store.retention.go_round(progress);
    };
    (0..60_u8).for_each(|body| _ = put(&store, &[body; 300]));
    settle(&store);
    let third = store.segments.all()[1].start();
    // The name of the first one stays, the first time.
    let first = store.segments.first().unwrap().path().to_owned();
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    keep(&store, 4, &mut progress);
    assert!(store.watermarks().min.0 > third);
    progress.leaves(&first);
    store.set_writer(Writer::Stream).unwrap();
    store.restart_at(PhysicalOffset(0)).unwrap();
    let log = log_at(0, 0..30);
    log.offer_to(&store, 1000).unwrap();
    settle(&store);
    keep(&store, 100, &mut progress);
    assert!(first.exists(), "it is the new log's");
    check(&store, &log, 0..30);
    keep(&store, 1, &mut progress);
    let bounds = store.queue_bounds(T, Q).unwrap();
    assert!(store.watermarks().min.0 > 0 && bounds.min.0 > 0 && bounds.max.0 == 30, "{bounds:?}");
    drop(store);
    assert_eq!(site.open().queue_bounds(T, Q).unwrap(), bounds);
}

/// A stream, readers, upkeep and retention go on while the log begins anew again and again: in the end it has what came last, all of it.
#[test]
fn nobody_is_in_the_way_of_a_log_that_begins_anew() {
    for write_pool in [None, Some(pool_of(8, 4096))] {
        let site = Site::new();
        let config = || StoreConfig { write_pool: write_pool.clone(), ..site.config() };
        let store = Store::open(config()).unwrap();
        store.set_writer(Writer::Stream).unwrap();
        let is_over = AtomicBool::new(false);
        let goes_on = || !is_over.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let stream = scope.spawn(|| {
                let (mut at, mut offset) = (store.watermarks().written.0, 0);
                while goes_on() {
                    let log = log_at(at, offset..offset + 3);
                    match store.append_copy(PhysicalOffset(at), &log.bytes) {
                        Ok(taken) => {
                            assert_eq!(taken, log.bytes.len());
                            (at, offset) = (log.end(), offset + 3);
                        }
                        Err(error) => {
                            let CopyFault::NotAtEnd { end } = error.fault else { panic!("{error}") };
                            (at, offset) = (end.0, 0);
                        }
                    }
                }
            });
            let reader = scope.spawn(|| {
                let mut held = Vec::new();
                while goes_on() {
                    let marks = store.watermarks();
                    if let Some(bytes) = store.raw_from(marks.min, 4000).unwrap() {
                        let copy = bytes.to_vec();
                        held.push((bytes, copy));
                    }
                    query_bodies(&store, T, "anew");
                    let bounds = store.queue_bounds(T, Q).unwrap_or_default();
                    // As when a topic is deleted, its file may go before it is looked at.
                    let has_gone = |error: &ReadError| matches!(error, ReadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                    let entry = store.queue_entry(T, Q, bounds.min, Effort::Full);
                    assert!(entry.as_ref().err().is_none_or(has_gone), "{entry:?}");
                    store.message_at(marks.min, Effort::Full).unwrap();
                    if held.len() > 30 {
                        assert!(held.drain(..20).all(|(bytes, copy)| bytes[..] == copy[..]));
                    }
                }
            });
            let upkeep = scope.spawn(|| {
                let mut progress = Progress::default();
                while goes_on() {
                    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
                    let reserved_bytes = Some(3 * SEGMENT_LEN);
                    store.change_retention(RetentionRules { reserved_bytes, ..site.config().retention });
                    store.retention.go_round(&mut progress);
                }
            });
            for round in 0..30_u64 {
                let before = store.watermarks().written.0;
                wait_until(|| store.watermarks().written.0 > before + 1000 * (round % 7));
                store.restart_at(PhysicalOffset(round * 7 % 11 * SEGMENT_LEN)).unwrap();
            }
            is_over.store(true, Ordering::SeqCst);
            [stream, reader, upkeep].into_iter().for_each(|thread| thread.join().unwrap());
        });
        store.flusher.flush().unwrap();
        settle(&store);
        let found = read_bodies(&store, T, 0, store.queue_bounds(T, Q).unwrap_or_default().min.0);
        let first = found.first().map_or(0, |(offset, _)| *offset);
        assert!(found.iter().zip(first..).all(|((offset, _), expected)| *offset == expected));
        let marks = store.watermarks();
        drop(store);
        let store = Store::open(config()).unwrap();
        assert_eq!((store.watermarks().min, store.watermarks().written), (marks.min, marks.written));
        assert_eq!(read_bodies(&store, T, 0, first), found);
    }
}
