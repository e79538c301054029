//! How much a power cut takes of what was acknowledged with asynchronous flush: the figures of docs/durability.md, with the defaults.
//!
//! The power goes just before a sync of the log, when there is most to lose, and with it all that was not synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::machine::{Mode, Place};
use crate::mapped_file::CHUNK_MAX;
use crate::scripted_disk::{Fate, Image, Part, write_tree};
use crate::testing::{START_MS, T, message, pool_of};
use crate::{FlushMode, Store, StoreConfig};

const MODE: Mode = Mode { sync: false, pool: false, bug: None };
/// A window is not to be ten times as wide as is said. On a machine that is busy it may be somewhat wider.
const PATIENCE: u32 = 4;

/// What there is when the power goes, and when that is.
struct Cut {
    image: Image,
    at: Instant,
}

/// An acknowledged message: where it ends in the log, and when that was.
type Acked = (u64, Instant);

/// A message of that length goes every `pause` until there were so many syncs of the log, or `give_up` has passed.
fn cuts(mode: Mode, (body_len, pause): (usize, Duration), count: usize, give_up: Duration) -> (Vec<Acked>, Vec<Cut>) {
    let place = Place::new(mode, START_MS, 0);
    let store = Store::open(config(&place)).unwrap();
    let (cuts, enough) = (Arc::new(Mutex::new(Vec::<Cut>::new())), Arc::new(AtomicBool::new(false)));
    let (disk, root) = (Arc::downgrade(&place.disk), place.disk_root());
    let (all, is_enough) = (Arc::clone(&cuts), Arc::clone(&enough));
    place.disk.watch(move |call| {
        let mut all = all.lock();
        let Some(disk) = disk.upgrade().filter(|_| call.is_sync_of(Part::Log) && all.len() < count) else { return };
        let at = Instant::now();
        let image = disk.image(&root, all.last().map(|last| &last.image));
        all.push(Cut { image, at });
        is_enough.store(all.len() == count, Ordering::SeqCst);
    });
    let (begun, body, mut acked) = (Instant::now(), vec![7; body_len], Vec::new());
    while !enough.load(Ordering::SeqCst) {
        assert!(begun.elapsed() < give_up, "{} syncs of the log in {give_up:?}", cuts.lock().len());
        let end = store.append(&message(T, 0, &body, "")).unwrap().end;
        acked.push((end.0, Instant::now()));
        std::thread::sleep(pause);
    }
    place.disk.watch_no_more();
    drop(store);
    let cuts = std::mem::take(&mut *cuts.lock());
    (acked, cuts)
}

fn config(place: &Place) -> StoreConfig {
    let config = StoreConfig { flush: FlushMode::default(), segment_len: 4 << 20, ..place.config() };
    let write_pool = config.write_pool.clone().map(|_| pool_of(16, CHUNK_MAX));
    StoreConfig { write_pool, ..config }
}

/// Where the log ends after a cut.
fn left_by(cut: &Cut, mode: Mode) -> u64 {
    let place = Place::new(mode, START_MS, 1);
    write_tree(&place.disk_root(), &cut.image.after_power_cut(&mut Fate { lost: &mut || true, tears: None }));
    place.disk.all_is_synced(&place.disk_root());
    Store::open(config(&place)).unwrap().watermarks().written.0
}

/// The age of the oldest message that a cut takes, but for the first `spared` bytes of what it takes.
fn oldest_lost(acked: &[Acked], cut: &Cut, mode: Mode, spared: u64) -> Duration {
    let left = left_by(cut, mode);
    let lost = acked.iter().find(|(end, at)| *end > left + spared && *at <= cut.at);
    lost.map_or(Duration::ZERO, |(_, at)| cut.at - *at)
}

#[test]
fn a_power_cut_takes_half_a_second_and_64_kib_while_messages_come() {
    let FlushMode::Async { interval, least_pages, .. } = FlushMode::default() else { panic!("the default is async") };
    assert_eq!((interval, least_pages), (Duration::from_millis(500), 4));
    let chunk = CHUNK_MAX as u64;
    assert_eq!(chunk, 64 << 10);
    // So that the last chunk is left out of a sync, and so that it is not.
    let loads = [(MODE, (2000, chunk)), (Mode { pool: true, ..MODE }, (2000, chunk)), (MODE, (300, 0))];
    std::thread::scope(|scope| {
        for (mode, (body_len, spared)) in loads {
            scope.spawn(move || {
                let (acked, cuts) = cuts(mode, (body_len, Duration::from_millis(3)), 6, interval * 10 * 6);
                let mut ages: Vec<_> = cuts.iter().map(|cut| oldest_lost(&acked, cut, mode, spared)).collect();
                ages.sort();
                eprintln!("{body_len} bytes a message, with the write pool: {}: {ages:?}", mode.pool);
                let middle = ages[ages.len() / 2];
                assert!(middle > interval / 4, "the load is none, or the cuts are not where there is most to lose");
                assert!(middle <= interval * PATIENCE, "messages of {ages:?} were lost");
            });
        }
    });
}

#[test]
fn a_power_cut_takes_ten_seconds_while_few_messages_come() {
    let FlushMode::Async { thorough_interval, .. } = FlushMode::default() else { panic!("the default is async") };
    assert_eq!(thorough_interval, Duration::from_secs(10));
    // Fewer than the pages that a flush waits for, however long it takes.
    let few = (100, Duration::from_secs(1));
    let (acked, cuts) = cuts(MODE, few, 1, thorough_interval * PATIENCE);
    let age = oldest_lost(&acked, &cuts[0], MODE, 0);
    eprintln!("{} messages: {age:?}", acked.len());
    assert!(age > thorough_interval / 4 && age <= thorough_interval * PATIENCE, "messages of {age:?} were lost");
}
