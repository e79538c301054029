//! Waiting for the disk: one that is fast, one that hangs, and one that fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ferromq_protocol::QueueOffset;

use super::*;
use crate::disk::Disk as _;
use crate::testing::*;
use crate::{AppendError, CloseError, NotSafe};

#[test]
fn sync_flush_completes_a_prefix_and_gates_consumers() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..site.config() };
    let store = Store::open(config).unwrap();
    let end = store.watermarks().written;
    assert!(store.is_safe(end, Want::Acknowledged));
    let (sender, outcomes) = mpsc::channel();
    let mut ends = Vec::new();
    for body in 0..100_u8 {
        let end = put(&store, &[body; 200]).end;
        let sender = sender.clone();
        store.when_safe(end, Want::Disk, move |outcome| sender.send((end, outcome)).unwrap());
        ends.push(end);
    }
    for _ in 0..100 {
        let (end, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!(outcome, Ok(()));
        assert!(store.watermarks().flushed >= end);
    }
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 100);
    // From here on the disk fails: the message is refused, and so is every later one.
    site.disk.sync_fails.store(true, Ordering::SeqCst);
    let max = store.queue_bounds(T, Q).unwrap().max;
    let end = put(&store, b"lost").end;
    store.when_safe(end, Want::Disk, move |outcome| sender.send((end, outcome)).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1, Err(NotSafe::Failed));
    wait_until(|| store.check_writable().is_err());
    let error = store.append(&message(T, 0, b"", "")).unwrap_err();
    assert!(matches!(&error, AppendError::Poisoned { reason } if reason.contains("the device is gone")), "{error}");
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, max, "what is not on the disk is not shown");
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    store.when_safe(end, Want::Disk, move |outcome| {
        assert_eq!(outcome, Err(NotSafe::Failed));
        count.fetch_add(1, Ordering::SeqCst);
    });
    assert_eq!(failed.load(Ordering::SeqCst), 1);
    assert!(matches!(store.close(), Err(CloseError::Poisoned(_))));
    // What the disk did not take may be gone from memory, too.
    let abort = std::fs::read_to_string(site.dir.path().join("store/abort")).unwrap();
    assert_eq!(crate::abort::crash(abort.lines().nth(1), site.disk.boot_id().as_deref()), Crash::FailedSync);
}

#[test]
fn a_round_is_flushed_and_shown_as_one() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: PATIENCE }, ..site.config() };
    let store = Store::open(config).unwrap();
    // The flush thread may be just starting, and would then flush what it finds.
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let flushed_by = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let round = store.round();
    for body in 0..10_u8 {
        let end = round.append(&message(T, 0, &[body; 200], "")).unwrap().end;
        assert!(!round.is_safe(end, Want::Acknowledged));
        let flushed_by = Arc::clone(&flushed_by);
        round.when_safe(end, Want::Acknowledged, move |outcome| {
            assert_eq!(outcome, Ok(()));
            flushed_by.lock().push(std::thread::current().id());
        });
    }
    store.dispatcher.catch_up();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 0, "not shown before it is on the disk");
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    round.flush();
    // One of the two: this thread, or the flush thread if this machine's disk is slow.
    wait_until(|| flushed_by.lock().len() == 10);
    drop(round);
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 10);
    // What nobody waits for is flushed and shown all the same.
    store.round().append(&message(T, 0, b"not waited for", "")).unwrap();
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
    store.when_safe(first, Want::Disk, move |outcome| done.send(outcome).unwrap());
    wait_until(|| store.flusher.is_syncing());
    let round = store.round();
    let second = round.append(&message(T, 0, b"second", "")).unwrap().end;
    round.when_safe(second, Want::Acknowledged, move |outcome| sender.send(outcome).unwrap());
    // Would hang with the disk if it waited.
    drop(round);
    assert!(outcomes.try_recv().is_err());
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(()));
    }
}

#[test]
fn a_hanging_disk_times_out_and_may_come_back() {
    let site = Site::new();
    let config = StoreConfig { flush: FlushMode::Sync { timeout: Duration::from_millis(20) }, ..site.config() };
    let store = Store::open(config).unwrap();
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    let end = put(&store, b"x").end;
    let (sender, outcomes) = mpsc::channel();
    store.when_safe(end, Want::Disk, move |outcome| sender.send(outcome).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Err(NotSafe::DiskTimedOut));
    assert_eq!(store.queue_bounds(T, Q).map(|bounds| bounds.max), Some(QueueOffset(0)), "not shown yet");
    site.disk.sync_hangs.store(false, Ordering::SeqCst);
    wait_until(|| store.watermarks().projected == end);
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
        store.when_safe(end, Want::Disk, move |outcome| sender.send(outcome).unwrap());
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Err(NotSafe::DiskTimedOut));
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

#[test]
fn waiting_for_the_disk_in_async_mode_flushes_now() {
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let flush = FlushMode::Async { interval: never, least_pages: 4, thorough_interval: never };
    let store = Store::open(StoreConfig { flush, ..site.config() }).unwrap();
    let end = put(&store, b"x").end;
    let (sender, outcomes) = mpsc::channel();
    store.when_safe(end, Want::Disk, move |outcome| sender.send(outcome).unwrap());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), Ok(()));
}
