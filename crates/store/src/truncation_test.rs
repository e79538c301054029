//! Making the log shorter beside readers, appends and a disk that has no room. What a crash leaves of it: crash_test.

use std::sync::atomic::Ordering;

use super::*;
use crate::testing::*;
use crate::{Effort, TruncateError, WritePoolConfig};
use ferromq_protocol::{PhysicalOffset, QueueOffset};

fn bodies(store: &Store) -> Vec<Vec<u8>> {
    wait_until(|| store.watermarks().committed == store.watermarks().written);
    settle(store);
    read_bodies(store, T, 0, 0).into_iter().map(|(_, body)| body).collect()
}

fn copies_in(site: &Site) -> usize {
    let files = std::fs::read_dir(root(site).join("commitlog")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| files::is_copy_of_segment(path)).count()
}

/// Whatever is behind the end by now, who had what was there before has it still, and was not waited for.
#[test]
fn who_reads_what_goes_reads_on() {
    for write_pool in [None, Some(pool_of(8, 4096))] {
        let site = Site::new();
        let store = Store::open(StoreConfig { write_pool, ..site.config() }).unwrap();
        let placed: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 300])).collect();
        settle(&store);
        wait_until(|| store.watermarks().committed == store.watermarks().written);
        let held: Vec<_> =
            placed.iter().map(|one| store.raw_from(one.physical_offset, one.record_len).unwrap().unwrap()).collect();
        let before: Vec<_> = held.iter().map(|bytes| bytes.to_vec()).collect();
        for kept in [33, 21, 20, 3, 0] {
            let to = if kept == 0 { PhysicalOffset(0) } else { placed[kept - 1].end };
            store.truncate(to).unwrap();
            assert_eq!(store.watermarks().written, to);
            assert_eq!(bodies(&store).len(), kept);
            let others: Vec<_> = (0..9).map(|_| put(&store, &[0xEE; 333])).collect();
            let next = others[0];
            assert_eq!((next.physical_offset >= to, next.queue_offset), (true, QueueOffset(kept as u64)));
            settle(&store);
            assert!(held.iter().zip(&before).all(|(bytes, before)| bytes[..] == before[..]), "{kept}");
            let there = store.message_at(next.physical_offset, Effort::Full).unwrap().unwrap();
            assert_ne!(there.get(100..200), before[kept].get(100..200));
        }
        assert_eq!(bodies(&store), vec![vec![0xEE; 333]; 9]);
        assert_eq!(copies_in(&site), 0);
        store.close().unwrap();
        drop(store);
        assert_eq!(bodies(&site.open()), vec![vec![0xEE; 333]; 9]);
    }
}

/// Readers, an appender and the dispatch go on while the log gets shorter again and again: each sees whole messages.
#[test]
fn nobody_is_in_the_way_of_a_truncation() {
    let site = Site::new();
    let store = Store::open(StoreConfig { segment_len: 16 << 10, ..site.config() }).unwrap();
    let (rounds, is_over) = (120, AtomicBool::new(false));
    let last = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    while !is_over.load(Ordering::SeqCst) {
                        let end = store.watermarks().written;
                        if let Ok(Some(bytes)) = store.raw_from(PhysicalOffset(end.0.saturating_sub(5000)), 4000) {
                            let copy = bytes.to_vec();
                            held.push((bytes, copy));
                        }
                        if held.len() > 30 {
                            assert!(held.drain(..20).all(|(bytes, copy)| bytes == copy));
                        }
                    }
                    assert!(held.iter().all(|(bytes, copy)| bytes == copy));
                })
            })
            .collect();
        let appender = scope.spawn(|| {
            let mut body = 0_u8;
            while !is_over.load(Ordering::SeqCst) {
                body = body.wrapping_add(1);
                put(&store, &[body; 200]);
            }
        });
        let mut marks = Vec::new();
        for round in 0..rounds {
            let mark = put(&store, b"mark").end;
            marks.push(mark);
            wait_until(|| store.watermarks().written.0 > mark.0 + 3000);
            // Some of these take earlier marks with them.
            let to = marks[marks.len() - 1 - round % 3 % marks.len()];
            store.truncate(to).unwrap();
            marks.retain(|mark| *mark <= to);
        }
        is_over.store(true, Ordering::SeqCst);
        appender.join().unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        marks[marks.len() - 1]
    });
    settle(&store);
    let found = read_bodies(&store, T, 0, 0);
    assert!(found.iter().enumerate().all(|(at, (offset, _))| *offset == at as u64), "an offset is missing or twice");
    assert!(store.watermarks().written >= last);
    drop(store);
    let store = Store::open(StoreConfig { segment_len: 16 << 10, ..site.config() }).unwrap();
    assert_eq!(read_bodies(&store, T, 0, 0), found);
}

/// The copy is as long as a segment, and slow: nobody waits for it.
#[test]
fn appends_go_on_while_the_copy_is_made() {
    let site = Site::new();
    let store = site.open();
    let ends: Vec<_> = (0..5_u8).map(|body| put(&store, &[body; 300]).end).collect();
    settle(&store);
    site.disk.write_hangs.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let truncation = scope.spawn(|| store.truncate(ends[2]));
        wait_until(|| copies_in(&site) == 1);
        put(&store, b"meanwhile");
        settle(&store);
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 6);
        store.flusher.flush().unwrap();
        site.disk.write_hangs.store(false, Ordering::SeqCst);
        truncation.join().unwrap().unwrap();
    });
    assert_eq!(bodies(&store).len(), 3);
}

#[test]
fn a_truncation_without_room_for_the_copy_changes_nothing() {
    let site = Site::new();
    let store = site.open();
    let ends: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 300]).end).collect();
    *site.disk.free.lock() = Some(4095);
    let error = store.truncate(ends[3]).unwrap_err();
    let no_room = |error: &TruncateError| matches!(error, TruncateError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull);
    assert!(no_room(&error), "{error}");
    *site.disk.free.lock() = None;
    site.disk.write_error.store(libc::ENOSPC, Ordering::SeqCst);
    let error = store.truncate(ends[3]).unwrap_err();
    assert!(no_room(&error) && copies_in(&site) == 0, "{error}");
    site.disk.write_error.store(0, Ordering::SeqCst);
    put(&store, b"taken");
    assert_eq!(bodies(&store).len(), 41);
    store.truncate(ends[3]).unwrap();
    assert_eq!(bodies(&store).len(), 4);
}

/// With files gone and not all, nobody knows how the log goes on before it is opened again.
#[test]
fn a_truncation_that_is_stuck_takes_no_more_writes() {
    let site = Site::new();
    let store = site.open();
    let ends: Vec<_> = (0..40_u8).map(|body| put(&store, &[body; 300]).end).collect();
    settle(&store);
    store.maintenance.flush_all().unwrap();
    // Not written again while it is the same.
    let inventory = &store.maintenance.inventory;
    inventory.clear(&*store.config.disk, &store.checkpoint).unwrap();
    site.disk.dir_sync_fails.store(true, Ordering::SeqCst);
    let error = store.truncate(ends[3]).unwrap_err();
    assert!(matches!(error, TruncateError::Io { .. }), "{error}");
    let Err(crate::AppendError::Poisoned { reason }) = store.append(&message(T, 0, b"x", "")) else { panic!() };
    assert!(reason.contains("could not be truncated"), "{reason}");
    assert!(matches!(store.truncate(ends[3]), Err(TruncateError::Poisoned { .. })));
    site.disk.dir_sync_fails.store(false, Ordering::SeqCst);
    drop(store);
    let store = site.open();
    assert!(bodies(&store).len() >= 4);
    store.truncate(ends[3]).unwrap();
    assert_eq!(bodies(&store).len(), 4);
}

#[test]
fn a_copy_that_is_left_over_goes_with_the_next_start() {
    let site = Site::new();
    put(&site.open(), b"one");
    let left_over = root(&site).join("commitlog/00000000000000000000.cut");
    std::fs::write(&left_over, [7; 4096]).unwrap();
    let config =
        crate::check::CheckConfig { index_shape: Some((31, 64)), ..crate::check::CheckConfig::at(root(&site)) };
    let mut told = Vec::new();
    crate::check::check(&config, &mut |finding| told.push(finding.clone())).unwrap();
    assert!(told.iter().all(|finding| !finding.is_fault), "{told:#?}");
    assert!(told.iter().any(|finding| finding.what.contains("a copy that a truncation has left")), "{told:#?}");
    assert_eq!(bodies(&site.open()).len(), 1);
    assert!(!left_over.exists());
}

/// Consumers see nothing that was not replicated, in the place of what was.
#[test]
fn what_comes_in_the_place_of_what_went_is_not_replicated() {
    let site = Site::new();
    let store = site.open();
    let ends: Vec<_> = (0..4_u8).map(|body| put(&store, &[body; 300]).end).collect();
    store.set_replicated(ends[3]);
    settle(&store);
    store.truncate(ends[1]).unwrap();
    let again = put(&store, &[9; 300]).end;
    assert_eq!((store.watermarks().visible, bodies(&store).len()), (ends[1], 2));
    store.set_replicated(again);
    assert_eq!(bodies(&store).len(), 3);
}

/// The bytes that appends were about to use are another file's then.
#[test]
fn who_waits_for_room_gets_it_where_the_log_goes_on() {
    let site = Site::new();
    let config = WritePoolConfig { fails_fast: false, ..pool_of(3, 4096) };
    let store = Store::open(StoreConfig { segment_len: 16 << 10, write_pool: Some(config), ..site.config() }).unwrap();
    std::thread::scope(|scope| {
        let appender = scope.spawn(|| (0..200_u8).for_each(|body| _ = put(&store, &[body; 1500])));
        while !appender.is_finished() {
            store
                .truncate(
                    store
                        .queue_entry(T, Q, QueueOffset(0), Effort::Full)
                        .unwrap()
                        .map_or(PhysicalOffset(0), |entry| entry.physical),
                )
                .unwrap();
        }
        appender.join().unwrap();
    });
}
