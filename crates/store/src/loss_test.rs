//! Somebody makes files shorter that a store works with. Each page fault behind their ends is a SIGBUS.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use ferromq_protocol::QueueOffset;
use ferromq_protocol::message::Records;

use super::*;
use crate::testing::*;
use crate::{AllMessages, AppendError, Effort, NotSafe, ReadError, ReadLimits};

/// One large file of each kind; nothing is flushed by itself.
fn open(site: &Site, flush: FlushMode) -> Store {
    Store::open(StoreConfig { segment_len: 1 << 20, queue_file_entries: 10_000, flush, ..site.config() }).unwrap()
}

fn never() -> FlushMode {
    FlushMode::Async { interval: PATIENCE, least_pages: u64::MAX, thorough_interval: PATIENCE }
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn only_file_in(dir: PathBuf) -> PathBuf {
    std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}

fn read(store: &Store, from: u64) -> Result<usize, ReadError> {
    let limits = ReadLimits::count(32);
    store.read(T, Q, QueueOffset(from), limits, &AllMessages, Effort::Full).map(|outcome| outcome.count)
}

#[test]
fn nothing_is_taken_into_a_log_that_became_shorter() {
    let site = Site::new();
    let store = open(&site, never());
    put(&store, b"first");
    settle(&store);
    cut(&log_file(&site), 0);
    let refused = store.append(&message(T, 0, b"second", ""));
    let Err(AppendError::Poisoned { reason }) = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("00000000000000000000: byte 0 is gone"), "{reason}");
    assert_eq!(store.queue_bounds(T, Q).unwrap().max.0, 1);
    // No zeros for a message, and no other way out of here than an error.
    assert!(matches!(read(&store, 0), Err(ReadError::Io { .. })));
    assert!(matches!(store.append(&message(T, 0, b"third", "")), Err(AppendError::Poisoned { .. })));
    assert!(store.close().is_err());
}

/// What is written behind the end of a file, but in its last page, meets no page fault and goes nowhere.
#[test]
fn no_sync_vouches_for_a_file_that_became_shorter() {
    let site = Site::new();
    let store = open(&site, FlushMode::Sync { timeout: PATIENCE });
    let (sender, outcome) = mpsc::channel();
    let is_safe = |end| {
        let sender = sender.clone();
        store.when_safe(end, Want::Disk, move |outcome| sender.send(outcome).unwrap());
        outcome.recv_timeout(PATIENCE).unwrap()
    };
    let end = put(&store, b"first").end;
    assert_eq!(is_safe(end), Ok(()));
    cut(&log_file(&site), end.0);
    match store.append(&message(T, 0, b"second", "")) {
        Ok(appended) => assert_eq!(is_safe(appended.end), Err(NotSafe::Failed)),
        // Whoever readied bytes behind it has found out sooner.
        refused => assert!(matches!(refused, Err(AppendError::Poisoned { .. })), "{refused:?}"),
    }
    wait_until(|| store.check_writable().is_err());
}

#[test]
fn a_queue_that_became_shorter_is_an_error_of_who_reads_it_and_never_synced() {
    let site = Site::new();
    let store = open(&site, never());
    put(&store, b"first");
    settle(&store);
    cut(&only_file_in(site.dir.path().join("store/consumequeue").join(T).join("0")), 0);
    // Until the next entry is put into it: then it is known that nothing of it is worth anything.
    put(&store, b"second");
    settle(&store);
    assert!(matches!(read(&store, 0), Err(ReadError::Io { .. })));
    store.maintenance.flush_all().unwrap_err();
}

#[test]
fn an_index_that_became_shorter_ends_nothing() {
    let site = Site::new();
    let store = open(&site, never());
    store.append(&message(T, 0, b"first", "KEYS\u{1}k\u{2}")).unwrap();
    settle(&store);
    cut(&only_file_in(site.dir.path().join("store/index")), 0);
    store.append(&message(T, 0, b"second", "KEYS\u{1}k\u{2}")).unwrap();
    settle(&store);
    assert_eq!(read(&store, 0).unwrap(), 2);
    let queried = store.query(T, "k", 10, 0, i64::MAX, Effort::Full);
    assert!(matches!(queried, Err(ReadError::Io { .. })), "{queried:?}");
    // Sooner or later its entries are to be synced.
    store.maintenance.flush_all().unwrap_err();
}

/// Readers, an appender and the flush go on while the log becomes shorter: each gets an error, and nobody zeros.
#[test]
fn who_is_in_the_middle_of_it_gets_an_error() {
    for round in 0..8 {
        let site = Site::new();
        let store = open(&site, site.config().flush);
        // All in the first segment.
        let mut bodies = (1..=255_u8).cycle().take(700);
        bodies.by_ref().take(200).for_each(|body| _ = put(&store, &[body; 1000]));
        settle(&store);
        let (half_way, is_half_way) = mpsc::channel();
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read_until_refused(&store))).collect();
            scope.spawn(|| {
                for (count, body) in bodies.enumerate() {
                    if count == 100 {
                        half_way.send(()).unwrap();
                    }
                    if store.append(&message(T, 0, &[body; 1000], "")).is_err() {
                        return;
                    }
                }
            });
            is_half_way.recv().unwrap();
            // Whole pages: what is left of the last one is there, as zeros.
            cut(&log_file(&site), [0, 40_960][round % 2]);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        store.append(&message(T, 0, b"after", "")).unwrap_err();
    }
}

fn read_until_refused(store: &Store) {
    let mut from = 0;
    loop {
        let read = |from| store.read(T, Q, QueueOffset(from), ReadLimits::count(32), &AllMessages, Effort::Full);
        let Ok(outcome) = read(from) else { return };
        // Longer runs are slices of the log. A socket would refuse them; who copies them asks whether anything was lost.
        let chunks: Vec<Vec<u8>> = outcome.chunks.iter().map(|chunk| chunk.to_vec()).collect();
        if read(from).is_err() {
            return;
        }
        for record in chunks.iter().flat_map(|chunk| Records::new(chunk)) {
            record.unwrap().check_crc().unwrap();
        }
        from = if outcome.count == 0 { 0 } else { outcome.next_offset.0 };
    }
}
