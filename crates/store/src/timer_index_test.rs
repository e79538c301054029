//! Timers in order and by minutes, over a disk that takes nothing or loses power, and against a plain list.

use std::fs::{self, OpenOptions};
use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use std::sync::atomic::Ordering;

use crate::disk::LocalDisk;
use crate::files::segment_name;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::{FaultyDisk, Site, put, root, settle};
use crate::timer_checkpoint::path_in;

const HOUR: i64 = 3_600_000;
const STORE: StoreId = StoreId(0x1234_5678_9abc);

fn open(dir: &tempfile::TempDir) -> io::Result<TimerIndex> {
    TimerIndex::open(Arc::new(LocalDisk), dir.path().into(), STORE, 0)
}

fn timer(due_ms: i64, offset: u64) -> Timer {
    Timer { due_ms, offset: QueueOffset(offset), cancels: false }
}

fn enter(index: &mut TimerIndex, due: &[i64]) {
    for due_ms in due {
        let offset = index.entered().0;
        index.enter(Some(timer(*due_ms, offset)));
    }
}

/// What the next start would have, while this one goes on.
fn after_a_kill(disk: &Arc<FaultyDisk>, dir: &tempfile::TempDir) -> (tempfile::TempDir, TimerIndex) {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let index = TimerIndex::open(Arc::clone(disk) as Arc<dyn Disk>, copy.path().to_owned(), STORE, 0).unwrap();
    (copy, index)
}

/// Takes everything that is due and says so.
fn take(index: &mut TimerIndex, now_ms: i64) -> Vec<(i64, u64)> {
    let mut taken = Vec::new();
    loop {
        let due = index.due(now_ms).unwrap();
        let Some(first) = due.first() else { return taken };
        index.delivered(first.due_ms);
        taken.extend(due.iter().map(|timer| (timer.due_ms, timer.offset.0)));
    }
}

#[test]
fn timers_come_in_order_near_and_far_and_never_early() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[3 * HOUR, 100, HOUR, 50, 100]);
    assert_eq!((index.count(), index.earliest_ms()), (5, Some(0)));
    assert_eq!(take(&mut index, 49), []);
    assert_eq!((index.count(), index.earliest_ms()), (5, Some(50)));
    assert_eq!(index.next_ms(), Some(50));
    assert_eq!(take(&mut index, 100), [(50, 3), (100, 1), (100, 4)]);
    assert_eq!((index.near_count(), index.next_ms()), (0, Some(HOUR - AHEAD_MS)));
    assert_eq!(take(&mut index, HOUR - 1), []);
    // One that comes for a minute in memory.
    enter(&mut index, &[HOUR + 1]);
    assert_eq!((index.count(), index.earliest_ms()), (3, Some(HOUR)));
    assert_eq!(take(&mut index, HOUR), [(HOUR, 2)]);
    assert_eq!(take(&mut index, 4 * HOUR), [(HOUR + 1, 5), (3 * HOUR, 0)]);
    assert!(index.has_passed(3 * HOUR) && !index.has_passed(3 * HOUR + 1));
    assert_eq!(index.next_ms(), None);
}

#[test]
fn after_a_long_stop_one_minute_is_in_memory_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    let all: Vec<i64> = (0..600).map(|second| HOUR + second * 1000).collect();
    enter(&mut index, &all);
    for due_ms in all {
        let due = index.due(2 * HOUR).unwrap();
        assert_eq!(due.iter().map(|timer| timer.due_ms).collect::<Vec<_>>(), [due_ms]);
        assert!(index.near_count() < 60, "{} in memory", index.near_count());
        index.delivered(due_ms);
    }
    assert_eq!(index.due(2 * HOUR).unwrap(), []);
}

#[test]
fn what_the_checkpoint_covers_is_there_and_the_rest_is_entered_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[10, 20, HOUR]);
    assert_eq!(take(&mut index, 10), [(10, 0)]);
    let checkpoint = index.checkpoint();
    index.save(checkpoint).unwrap();
    // After the checkpoint: one entered, one delivered. Then a crash with half an entry.
    enter(&mut index, &[30]);
    assert_eq!(take(&mut index, 20), [(20, 1)]);
    index.write().unwrap();
    drop(index);
    let mut torn = OpenOptions::new().append(true).open(dir.path().join(segment_name(0))).unwrap();
    torn.write_all(&[1; 7]).unwrap();

    let mut index = open(&dir).unwrap();
    assert_eq!(index.checkpoint(), checkpoint);
    enter(&mut index, &[30, 40]);
    assert_eq!(take(&mut index, 2 * HOUR), [(20, 1), (30, 3), (40, 4), (HOUR, 2)]);
    let checkpoint = index.checkpoint();
    index.save(checkpoint).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the checkpoint and the last minute are left");
}

#[test]
fn a_save_that_fails_is_made_again_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[10, HOUR]);
    let checkpoint = index.checkpoint();
    let save = index.begin_save(checkpoint).unwrap();
    // Entered while the disk is at it.
    enter(&mut index, &[20]);
    index.end_save(&save, Err(TimerSaveError::Io(io::ErrorKind::StorageFull.into()))).unwrap_err();
    assert_eq!(index.saved(), TimerCheckpoint::default());
    let again = index.begin_save(checkpoint).unwrap();
    assert_eq!((&again.minutes, again.new_files), (&save.minutes, true));
    let outcome = again.run();
    index.end_save(&again, outcome).unwrap();
    assert_eq!(index.saved(), checkpoint);
    assert_eq!(open(&dir).unwrap().entered(), QueueOffset(2));
}

/// What the queue has, for [`TimerIndex::renew`].
fn renew(index: &mut TimerIndex, queue: &[i64]) -> io::Result<()> {
    index.renew(QueueOffset(0), |offset| Ok(queue.get(offset.0 as usize).map(|due_ms| timer(*due_ms, offset.0))))
}

#[test]
fn after_a_failed_sync_no_file_is_believed_before_they_are_made_anew() {
    for (is_saved, is_killed) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let due = [HOUR, 2 * HOUR, HOUR + 1, 3 * HOUR, 100];
        let mut index = open(&dir).unwrap();
        enter(&mut index, &due[..1]);
        index.save(index.checkpoint()).unwrap();
        let saved = index.saved();
        enter(&mut index, &due[1..]);
        assert_eq!(take(&mut index, 100), [(100, 4)]);
        let save = index.begin_save(index.checkpoint()).unwrap();
        index.end_save(&save, Err(TimerSaveError::Sync(io::Error::other("bad block")))).unwrap_err();
        assert!(index.is_in_doubt() && index.saved() == saved);
        if is_saved {
            // How far it is, and that the files are not to be believed.
            index.save(index.checkpoint()).unwrap();
            assert!(index.is_in_doubt() && !index.is_saved() && index.saved() == index.checkpoint());
        }
        // Nothing of them is to be believed, not even what was on the disk before: here are pages that did not get there.
        for minute in &save.minutes {
            fs::write(index.path(*minute), [0; 4 * ENTRY_LEN]).unwrap();
        }
        if is_killed {
            fs::write(index.path(minute_of(2 * HOUR)).with_extension(RENEWED), [7; 5]).unwrap();
            index = open(&dir).unwrap();
            assert_eq!((index.entered(), index.is_in_doubt()), (QueueOffset(0), false), "all is entered again");
            assert_eq!(index.was_dealt_with(&timer(100, 4)), is_saved);
            enter(&mut index, &due[..4]);
            index.enter(Some(timer(100, 4)).filter(|_| !is_saved));
            assert_eq!(take(&mut index, 100).len(), usize::from(!is_saved));
        } else {
            renew(&mut index, &due).unwrap();
            assert!(!index.is_in_doubt() && !index.is_saved());
        }
        // Entries that are none count until their minute comes.
        assert!(index.count() == 4 || is_killed);
        index.save(index.checkpoint()).unwrap();
        assert!(index.is_saved());
        let mut index = open(&dir).unwrap();
        assert_eq!(index.entered(), QueueOffset(5));
        assert_eq!(take(&mut index, 4 * HOUR), [(HOUR, 0), (HOUR + 1, 2), (2 * HOUR, 1), (3 * HOUR, 3)]);
        assert!(fs::read_dir(dir.path()).unwrap().all(|entry| entry.unwrap().path().extension().is_none()));
    }
}

#[test]
fn what_was_dealt_with_is_known_however_often_a_sync_fails_between_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR, 2 * HOUR]);
    assert_eq!(take(&mut index, HOUR), [(HOUR, 0)]);
    index.save(index.checkpoint()).unwrap();
    for due_ms in [3 * HOUR, 4 * HOUR, 5 * HOUR] {
        while index.entered() < QueueOffset(2) {
            let again = timer([HOUR, 2 * HOUR][index.entered().0 as usize], index.entered().0);
            let entered = Some(again).filter(|timer| !index.was_dealt_with(timer));
            index.enter(entered);
        }
        enter(&mut index, &[due_ms]);
        let save = index.begin_save(index.checkpoint()).unwrap();
        index.end_save(&save, Err(TimerSaveError::Sync(io::Error::other("bad block")))).unwrap_err();
        index = open(&dir).unwrap();
        assert_eq!((index.entered(), index.entered_once()), (QueueOffset(0), QueueOffset(2)));
        assert!(index.was_dealt_with(&timer(HOUR, 0)) && !index.was_dealt_with(&timer(2 * HOUR, 1)));
    }
}

#[test]
fn what_files_lack_is_not_saved_over_what_is_saved_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR, 2 * HOUR]);
    assert_eq!(take(&mut index, 2 * HOUR).len(), 2);
    index.save(index.checkpoint()).unwrap();
    fs::remove_file(minute_path(dir.path(), minute_of(2 * HOUR))).unwrap();
    let mut index = open(&dir).unwrap();
    assert!(!index.is_whole());
    index.enter(None);
    index.enter(None);
    index.delivered(3 * HOUR);
    let save = index.begin_save(index.checkpoint()).unwrap();
    save.run().unwrap();
    // Another comes before it is known that all is saved.
    enter(&mut index, &[4 * HOUR]);
    index.write().unwrap();
    index.end_save(&save, Ok(())).unwrap();
    let found = open(&dir).unwrap();
    assert_eq!((found.checkpoint(), found.is_whole()), (save.checkpoint, true));
}

#[test]
fn how_far_it_is_carried_on_is_saved_while_files_lack_something() {
    let dir = tempfile::tempdir().unwrap();
    let due = [HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR];
    let known: Vec<Timer> = (0..).zip(due).map(|(at, due)| timer(due, at)).collect();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &due);
    assert_eq!(take(&mut index, HOUR), [(HOUR, 0)]);
    index.save(index.checkpoint()).unwrap();
    let saved = index.saved();
    fs::remove_file(minute_path(dir.path(), minute_of(3 * HOUR))).unwrap();
    let mut index = open(&dir).unwrap();
    assert!(index.is_saved() && index.saved() == saved);
    // No more than the first is entered; the second waits, and is stored again at the end of the queue.
    index.enter(None);
    index.carry(&known[1..2], QueueOffset(2));
    assert!(!index.is_whole() && !index.is_saved());
    index.save(index.checkpoint()).unwrap();
    assert!(!index.is_whole() && index.is_saved() && index.was_dealt_with(&timer(HOUR, 0)));
    let carried = TimerCheckpoint { carried: QueueOffset(2), ..saved };
    assert_eq!(index.saved(), carried);
    let mut index = open(&dir).unwrap();
    assert_eq!((index.entered(), index.saved(), index.is_whole()), (QueueOffset(2), carried, false));
    enter(&mut index, &[3 * HOUR, 4 * HOUR, 2 * HOUR]);
    index.save(index.checkpoint()).unwrap();
    let mut index = open(&dir).unwrap();
    assert!(index.is_whole());
    assert_eq!(take(&mut index, 4 * HOUR), [(2 * HOUR, 4), (3 * HOUR, 2), (4 * HOUR, 3)]);
}

#[test]
fn what_was_delivered_needs_no_room_and_counts_as_missing_where_a_checkpoint_does_not_know_of_it() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let open = || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().to_owned(), STORE, 0).unwrap();
    let mut index = open();
    disk.full.store(true, Ordering::SeqCst);
    enter(&mut index, &[100, HOUR]);
    let before = index.checkpoint();
    assert_eq!(take(&mut index, 100), [(100, 0)]);
    index.drop_delivered();
    assert_eq!(index.unwritten, [timer(HOUR, 1)]);
    disk.full.store(false, Ordering::SeqCst);
    // The copy that was delivered may not be on the disk yet.
    index.save(before).unwrap();
    let (_copy, found) = after_a_kill(&disk, &dir);
    assert_eq!((found.entered(), found.is_whole()), (QueueOffset(0), false));
    assert!(!found.was_dealt_with(&timer(100, 0)));
    index.save(index.checkpoint()).unwrap();
    let mut found = open();
    assert_eq!((found.entered(), found.is_whole()), (QueueOffset(2), true));
    assert_eq!(take(&mut found, HOUR), [(HOUR, 1)]);
}

#[test]
fn what_a_full_disk_does_not_take_waits_in_memory_and_is_saved_as_missing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(FaultyDisk::default()));
    let open = || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().to_owned(), STORE, 0).unwrap();
    let due = [HOUR, 100, 2 * HOUR, 2 * HOUR + 1, HOUR + 1, 5 * HOUR];
    let known: Vec<Timer> = (0..).zip(due).map(|(at, due)| timer(due, at)).collect();
    let mut index = open();
    enter(&mut index, &due[..1]);
    index.save(index.checkpoint()).unwrap();
    disk.full.store(true, Ordering::SeqCst);
    // Of a minute that has a file, and of others.
    enter(&mut index, &due[1..]);
    assert_eq!(take(&mut index, HOUR + 1), [(100, 1), (HOUR, 0), (HOUR + 1, 4)]);
    assert_eq!((index.count(), index.earliest_ms()), (3, Some(2 * HOUR - 2 * HOUR % MINUTE_MS)));
    index.save(index.checkpoint()).unwrap();
    assert_eq!(index.saved().entered, QueueOffset(6));
    // As after a kill: what has come does not come again.
    let (_copy, mut again) = after_a_kill(&disk, &dir);
    assert_eq!((again.entered(), again.is_whole()), (QueueOffset(0), false));
    for timer in &known {
        let entered = Some(*timer).filter(|timer| !again.was_dealt_with(timer));
        again.enter(entered);
    }
    assert_eq!(take(&mut again, 3 * HOUR), [(2 * HOUR, 2), (2 * HOUR + 1, 3)]);
    // A segment goes.
    assert_eq!(carry(&mut index, &known, 3), [timer(2 * HOUR, 2)]);
    assert_eq!(index.count(), 3);
    disk.full.store(false, Ordering::SeqCst);
    assert!(!index.is_saved());
    index.save(index.checkpoint()).unwrap();
    assert!(index.is_saved());
    let mut index = open();
    assert_eq!((index.entered(), index.is_whole()), (QueueOffset(7), true));
    assert_eq!(take(&mut index, 6 * HOUR), [(2 * HOUR, 6), (2 * HOUR + 1, 3), (5 * HOUR, 5)]);
}

#[test]
fn what_was_not_entered_is_carried_on_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR]);
    let copied = [timer(HOUR, 0), timer(2 * HOUR, 1), timer(10, 2)];
    index.carry(&copied, QueueOffset(3));
    assert_eq!((index.entered(), index.carried(), index.count()), (QueueOffset(3), QueueOffset(3), 0));
    enter(&mut index, &[HOUR, 2 * HOUR, 10]);
    index.save(index.checkpoint()).unwrap();
    let mut index = open(&dir).unwrap();
    assert_eq!(take(&mut index, 2 * HOUR), [(10, 5), (HOUR, 3), (2 * HOUR, 4)]);
}

#[test]
fn a_clock_that_is_set_back_during_a_save_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[3 * HOUR]);
    assert_eq!(take(&mut index, 3 * HOUR), [(3 * HOUR, 0)]);
    let save = index.begin_save(index.checkpoint()).unwrap();
    index.go_back_before(2 * HOUR);
    enter(&mut index, &[2 * HOUR]);
    index.write().unwrap();
    index.end_save(&save, save.run()).unwrap();
    index.save(index.checkpoint()).unwrap();
    let mut index = open(&dir).unwrap();
    assert_eq!(take(&mut index, 2 * HOUR), [(2 * HOUR, 1)]);
}

#[test]
fn a_damaged_checkpoint_means_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[10]);
    let checkpoint = index.checkpoint();
    index.save(checkpoint).unwrap();
    for damaged in [&b"short"[..], &[7; 40], &[7; 8192]] {
        fs::write(path_in(dir.path()), damaged).unwrap();
        assert_eq!(open(&dir).unwrap().checkpoint(), TimerCheckpoint::default());
    }
}

/// What is gone of the files is entered again out of the queue, and nothing is delivered twice.
#[test]
fn files_that_are_missing_or_cut_off_are_noticed() {
    for damage in ["removed", "cut", "flipped", "as it was"] {
        let dir = tempfile::tempdir().unwrap();
        let due = [HOUR, 2 * HOUR, HOUR + 1, 3 * HOUR];
        let mut index = open(&dir).unwrap();
        enter(&mut index, &due);
        assert_eq!(take(&mut index, HOUR), [(HOUR, 0)]);
        let checkpoint = index.checkpoint();
        index.save(checkpoint).unwrap();
        drop(index);
        let path = minute_path(dir.path(), minute_of(2 * HOUR));
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "removed" => fs::remove_file(&path).unwrap(),
            "cut" => fs::write(&path, &bytes[..7]).unwrap(),
            "flipped" => {
                bytes[3] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            _ => {}
        }
        let mut index = open(&dir).unwrap();
        let again = damage == "removed" || damage == "cut";
        assert_eq!(index.entered(), QueueOffset(if again { 0 } else { 4 }), "{damage}");
        while index.entered() < QueueOffset(4) {
            let offset = index.entered().0;
            let due_ms = due[offset as usize];
            let timer = (!index.has_passed(due_ms)).then(|| timer(due_ms, offset));
            index.enter(timer);
        }
        assert_eq!(take(&mut index, HOUR + 1), [(HOUR + 1, 2)], "{damage}");
        if damage == "flipped" {
            assert!(index.due(4 * HOUR).unwrap_err().to_string().contains("its entry at 0 is damaged"));
            assert_eq!(index.lost(), Some(2 * HOUR..2 * HOUR + MINUTE_MS));
            index.restore(&[timer(2 * HOUR, 1)]).unwrap();
        }
        assert_eq!(take(&mut index, 4 * HOUR), [(2 * HOUR, 1), (3 * HOUR, 3)], "{damage}");
    }
}

/// Whatever it makes of an entry: another time, the place of another timer or of none, one that takes back.
#[test]
fn a_flipped_bit_makes_no_timer_late_early_or_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR, HOUR, HOUR + 1, 10 * HOUR]);
    index.save(index.checkpoint()).unwrap();
    let path = minute_path(dir.path(), minute_of(HOUR));
    let good = fs::read(&path).unwrap();
    assert_eq!(good.len(), 3 * ENTRY_LEN);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let mut index = open(&dir).unwrap();
        let error = match index.due(HOUR) {
            Ok(due) => panic!("bit {bit} is believed: {due:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(&format!("its entry at {} is damaged", bit / 128 * 16)), "{error}");
        assert_eq!(index.lost(), Some(HOUR..HOUR + MINUTE_MS));
        index.restore(&[timer(HOUR, 0), timer(HOUR, 1), timer(HOUR + 1, 2)]).unwrap();
        assert_eq!(take(&mut index, 2 * HOUR), [(HOUR, 0), (HOUR, 1), (HOUR + 1, 2)], "bit {bit}");
    }
    // And in the file of another minute.
    fs::rename(&path, minute_path(dir.path(), minute_of(2 * HOUR))).unwrap();
    assert!(open(&dir).unwrap().due(2 * HOUR).unwrap_err().to_string().contains("of another minute"));
}

const OTHER: StoreId = StoreId(STORE.0 + 1);

/// Enters again what `index` does not have, as the broker does it.
fn enter_again(index: &mut TimerIndex, due: &[i64]) {
    while let Some(due_ms) = due.get(index.entered().0 as usize) {
        let timer = timer(*due_ms, index.entered().0);
        let entered = Some(timer).filter(|timer| !index.was_dealt_with(timer) && !index.has_passed(timer.due_ms));
        index.enter(entered);
    }
}

#[test]
fn a_file_of_another_store_is_made_anew() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR, HOUR + 1, 3 * HOUR]);
    index.save(index.checkpoint()).unwrap();
    let mut theirs = TimerIndex::open(Arc::new(LocalDisk), other.path().into(), OTHER, 0).unwrap();
    // As many, to other places of the queue, and one that takes back.
    theirs.skip_to(QueueOffset(1));
    theirs.enter(Some(Timer { cancels: true, ..timer(HOUR, 1) }));
    enter(&mut theirs, &[HOUR + 7]);
    theirs.save(theirs.checkpoint()).unwrap();
    let name = segment_name(minute_of(HOUR).unsigned_abs());
    fs::copy(other.path().join(&name), dir.path().join(&name)).unwrap();
    let mut index = open(&dir).unwrap();
    let error = index.due(2 * HOUR).unwrap_err().to_string();
    assert!(
        error.contains(&name) && error.contains("its entry at 0 is damaged, or of another minute or store"),
        "{error}"
    );
    assert_eq!(index.lost(), Some(HOUR..HOUR + MINUTE_MS));
    index.restore(&[timer(HOUR, 0), timer(HOUR + 1, 1)]).unwrap();
    assert_eq!(take(&mut index, 4 * HOUR), [(HOUR, 0), (HOUR + 1, 1), (3 * HOUR, 2)]);
}

/// Its checkpoint says that all of this was dealt with.
#[test]
fn a_checkpoint_of_another_store_is_moved_away_with_what_is_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let (dir, other) = (root.path().join("timers"), tempfile::tempdir().unwrap());
    let at = |dir: &Path, store| TimerIndex::open(Arc::new(LocalDisk), dir.to_owned(), store, 0).unwrap();
    let due = [HOUR, 2 * HOUR];
    let mut index = at(&dir, STORE);
    enter(&mut index, &due);
    index.save(index.checkpoint()).unwrap();
    let mut theirs = at(other.path(), OTHER);
    theirs.skip_to(QueueOffset(9));
    theirs.delivered(5 * HOUR);
    theirs.save(theirs.checkpoint()).unwrap();
    fs::copy(path_in(other.path()), path_in(&dir)).unwrap();
    let mut index = at(&dir, STORE);
    assert_eq!(index.entered(), QueueOffset(0));
    enter_again(&mut index, &due);
    assert_eq!(take(&mut index, 3 * HOUR), [(HOUR, 0), (2 * HOUR, 1)]);
    index.save(index.checkpoint()).unwrap();
    assert_eq!(at(&dir, STORE).entered(), QueueOffset(2));
    assert_eq!(fs::read_dir(root.path().join("damaged/timers")).unwrap().count(), 3);
}

/// Whether it was written at once or made anew: what has come since a checkpoint is looked for at its end.
#[test]
fn a_file_ends_with_the_last_place_of_its_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    // Later places are due sooner.
    enter(&mut index, &[HOUR + 3, HOUR + 2, HOUR + 1]);
    index.save(index.checkpoint()).unwrap();
    let minute = minute_of(HOUR);
    let timers = read_minute(&LocalDisk, &minute_path(dir.path(), minute), STORE.0, minute).unwrap();
    assert_eq!(timers.iter().map(|timer| timer.offset.0).collect::<Vec<_>>(), [0, 1, 2]);
}

/// Checkpoint and list of queues say two ids then, and the timers agree with one: it stays, and none comes again.
#[test]
fn a_store_whose_checkpoint_says_another_id_is_known_by_its_timers() {
    let site = Site::new();
    let store = site.open();
    put(&store, b"any");
    settle(&store);
    let id = store.id();
    let timers = root(&site).join("timers");
    let mut index = TimerIndex::open(Arc::new(LocalDisk), timers, id, 0).unwrap();
    enter(&mut index, &[HOUR]);
    index.save(index.checkpoint()).unwrap();
    store.close().unwrap();
    let checkpoint = root(&site).join("checkpoint");
    let mut bytes = fs::read(&checkpoint).unwrap();
    // No checksum covers the id.
    let at = bytes.windows(4).position(|said| said == b"LIST").unwrap() + 4 + 7;
    bytes[at] ^= 1;
    fs::write(&checkpoint, bytes).unwrap();
    assert_eq!(site.open().id(), id);
}

/// As they were written before entries said whose they are: the time, with a sum of 15 bits before it, and the place.
#[test]
fn files_of_before_are_made_anew_and_none_comes_twice() {
    let old_entry = |due_ms: i64, place: u64| {
        let mut entry = [due_ms.to_be_bytes(), place.to_be_bytes()].concat();
        let sum = (crc32fast::hash(&entry[2..]) as u16 & 0x7fff).max(1);
        entry[..2].copy_from_slice(&sum.to_be_bytes());
        entry
    };
    let dir = tempfile::tempdir().unwrap();
    let due = [HOUR, 2 * HOUR, 2 * HOUR + 1];
    let mut index = open(&dir).unwrap();
    enter(&mut index, &due);
    assert_eq!(take(&mut index, HOUR), [(HOUR, 0)]);
    index.save(index.checkpoint()).unwrap();
    let path = minute_path(dir.path(), minute_of(2 * HOUR));
    fs::write(&path, [old_entry(2 * HOUR, 1), old_entry(2 * HOUR + 1, 2)].concat()).unwrap();
    let mut bytes = fs::read(path_in(dir.path())).unwrap();
    for place in [0, 4096] {
        bytes[place + 64..place + 84].fill(0);
    }
    fs::write(path_in(dir.path()), bytes).unwrap();
    for _ in 0..2 {
        let index = open(&dir).unwrap();
        assert_eq!((index.entered(), index.entered_once(), index.count()), (QueueOffset(0), QueueOffset(3), 0));
        assert!(!path.exists());
    }
    let mut index = open(&dir).unwrap();
    enter_again(&mut index, &due);
    index.save(index.checkpoint()).unwrap();
    let mut index = open(&dir).unwrap();
    assert_eq!(index.entered(), QueueOffset(3));
    assert_eq!(take(&mut index, 3 * HOUR), [(2 * HOUR, 1), (2 * HOUR + 1, 2)]);
}

/// And makes the file anew, as it does with any damage. A negative time would be the zeros of a crash to it, and passed over.
#[test]
fn a_broker_of_before_takes_each_entry_for_one_of_another_minute() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &(0..1000).map(|n| HOUR + n).collect::<Vec<_>>());
    index.save(index.checkpoint()).unwrap();
    let bytes = fs::read(minute_path(dir.path(), minute_of(HOUR))).unwrap();
    let (entries, []) = bytes.as_chunks::<16>() else { panic!("{}", bytes.len()) };
    assert_eq!(entries.len(), 1000);
    for entry in entries {
        let due_ms = i64::from_be_bytes(*entry.first_chunk().unwrap());
        assert!(due_ms >= 1 << 48, "{due_ms}");
        assert_ne!(minute_of(due_ms & ((1 << 48) - 1)), minute_of(HOUR));
    }
}

/// A kill leaves more than the checkpoint counts, and as much is missing of what it does count.
#[test]
fn what_came_since_the_checkpoint_does_not_make_up_for_what_is_missing() {
    for damage in ["cut", "removed", "flipped", "as an hour ago", "none"] {
        let dir = tempfile::tempdir().unwrap();
        let due = [HOUR, 2 * HOUR, 2 * HOUR + 1, 3 * HOUR, 3 * HOUR, 2 * HOUR + 2];
        let path = minute_path(dir.path(), minute_of(2 * HOUR));
        let mut index = open(&dir).unwrap();
        enter(&mut index, &due[..2]);
        index.write().unwrap();
        let before = fs::read(&path).unwrap();
        enter(&mut index, &due[2..3]);
        index.save(index.checkpoint()).unwrap();
        enter(&mut index, &due[3..]);
        index.write().unwrap();
        drop(index);
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!((before.len(), bytes.len()), (ENTRY_LEN, 3 * ENTRY_LEN));
        match damage {
            "cut" => fs::write(&path, &bytes[..ENTRY_LEN]).unwrap(),
            "removed" => fs::remove_file(&path).unwrap(),
            "flipped" => {
                bytes[ENTRY_LEN + 9] ^= 4;
                fs::write(&path, bytes).unwrap();
            }
            "as an hour ago" => fs::write(&path, before).unwrap(),
            _ => {}
        }
        let mut index = open(&dir).unwrap();
        assert_eq!(index.entered(), QueueOffset(if damage == "none" { 3 } else { 0 }), "{damage}");
        enter_again(&mut index, &due);
        index.save(index.checkpoint()).unwrap();
        // However often a kill comes.
        let mut index = open(&dir).unwrap();
        assert_eq!(index.entered(), QueueOffset(6), "{damage}");
        assert_eq!(take(&mut index, 4 * HOUR).len(), 6, "{damage}");
    }
}

#[test]
fn what_files_lack_is_entered_again_as_a_whole_though_a_kill_comes_between() {
    let dir = tempfile::tempdir().unwrap();
    let due = [HOUR, 2 * HOUR, HOUR + 1, 3 * HOUR];
    let mut index = open(&dir).unwrap();
    enter(&mut index, &due);
    assert_eq!(take(&mut index, HOUR), [(HOUR, 0)]);
    index.save(index.checkpoint()).unwrap();
    fs::remove_file(minute_path(dir.path(), minute_of(3 * HOUR))).unwrap();
    // More than is missing, and what is lost is not among it.
    for up_to in [3, 4] {
        let mut index = open(&dir).unwrap();
        assert_eq!((index.entered(), index.entered_once()), (QueueOffset(0), QueueOffset(4)));
        for (at, due_ms) in (0..up_to).zip(due) {
            let timer = timer(due_ms, at);
            assert_eq!(index.was_dealt_with(&timer), at == 0);
            index.enter(Some(timer).filter(|_| at != 0));
        }
        index.write().unwrap();
        assert_eq!(index.is_whole(), up_to == 4);
        assert!(!index.was_dealt_with(&timer(HOUR, 4)), "it came since");
        if index.is_whole() {
            index.save(index.checkpoint()).unwrap();
        }
    }
    let mut index = open(&dir).unwrap();
    assert_eq!((index.entered(), index.is_whole()), (QueueOffset(4), true));
    assert_eq!(take(&mut index, 4 * HOUR), [(HOUR + 1, 2), (2 * HOUR, 1), (3 * HOUR, 3)]);
}

#[test]
fn what_comes_to_places_that_the_queue_lost_was_not_dealt_with() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR, HOUR, 2 * HOUR]);
    assert_eq!(take(&mut index, HOUR).len(), 2);
    index.save(index.checkpoint()).unwrap();
    fs::remove_file(minute_path(dir.path(), minute_of(2 * HOUR))).unwrap();
    for _ in 0..2 {
        let mut index = open(&dir).unwrap();
        index.queue_ends(QueueOffset(1)).unwrap();
        assert!(index.was_dealt_with(&timer(HOUR, 0)) && !index.was_dealt_with(&timer(HOUR, 1)));
    }
}

#[test]
fn a_minute_that_cannot_be_read_is_named_and_comes_when_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[3 * HOUR, 4 * HOUR]);
    index.write().unwrap();
    let path = index.path(minute_of(3 * HOUR));
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    for _ in 0..2 {
        let error = index.due(4 * HOUR).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    fs::rename(&aside, &path).unwrap();
    assert_eq!(take(&mut index, 4 * HOUR), [(3 * HOUR, 0), (4 * HOUR, 1)]);
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_early() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[3 * HOUR]);
    assert_eq!(take(&mut index, 3 * HOUR), [(3 * HOUR, 0)]);
    let checkpoint = index.checkpoint();
    index.save(checkpoint).unwrap();
    index.go_back_before(2 * HOUR);
    enter(&mut index, &[2 * HOUR]);
    assert_eq!(take(&mut index, 2 * HOUR - 1), []);
    assert_eq!(take(&mut index, 2 * HOUR), [(2 * HOUR, 1)]);
}

#[test]
fn what_was_given_back_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    index.enter(Some(Timer { cancels: true, ..timer(10, 0) }));
    index.enter(None);
    enter(&mut index, &[10]);
    let due = index.due(10).unwrap();
    assert_eq!(due, [Timer { cancels: true, ..timer(10, 0) }, timer(10, 2)]);
    index.give_back(due.clone());
    assert_eq!(index.due(10).unwrap(), due);
}

#[test]
fn what_the_disk_does_not_take_is_an_error_and_comes_again() {
    // Of a save with a new file: the file, its entries, its sync, its name; the checkpoint's bytes, its sync.
    for taken in 0..6 {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(ScriptedDisk::default()));
        let open =
            || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), STORE, 0).unwrap();
        let mut index = open();
        enter(&mut index, &[10, HOUR]);
        index.save(index.checkpoint()).unwrap();
        let saved = index.checkpoint();
        enter(&mut index, &[2 * HOUR]);
        *disk.fails_after.lock() = Some(taken);
        index.save(index.checkpoint()).unwrap_err();
        assert_eq!(index.saved(), saved, "after {taken}");
        *disk.fails_after.lock() = None;
        drop(index);
        disk.power_loss(dir.path(), || true);
        let mut index = open();
        assert_eq!(index.checkpoint(), saved, "after {taken}");
        enter(&mut index, &[2 * HOUR]);
        assert_eq!(take(&mut index, 3 * HOUR), [(10, 0), (HOUR, 1), (2 * HOUR, 2)], "after {taken}");
    }
}

#[test]
fn a_checkpoint_that_is_found_after_a_kill_is_on_the_disk() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(ScriptedDisk::default()));
    let open = || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), STORE, 0).unwrap();
    let mut index = open();
    enter(&mut index, &[10]);
    // All but the last step of the save: the checkpoint is there, and not on the disk.
    *disk.fails_after.lock() = Some(5);
    index.save(index.checkpoint()).unwrap_err();
    *disk.fails_after.lock() = None;
    disk.restart();
    let mut index = open();
    assert_eq!(index.entered(), QueueOffset(1));
    index.save(index.checkpoint()).unwrap();
    disk.power_loss(dir.path(), || true);
    assert_eq!(open().entered(), QueueOffset(1));
}

/// All before `offset` is stored again, as far as it waits; gives what was.
fn carry(index: &mut TimerIndex, known: &[Timer], offset: u64) -> Vec<Timer> {
    let before: Vec<Timer> =
        known.iter().filter(|timer| (index.carried().0..offset).contains(&timer.offset.0)).copied().collect();
    let waiting = index.waiting(&before).unwrap();
    for timer in &waiting {
        index.enter(Some(Timer { offset: index.entered(), ..*timer }));
    }
    index.carry(&waiting, QueueOffset(offset));
    waiting
}

#[test]
fn what_is_carried_on_comes_once_near_and_far_and_after_a_restart() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir).unwrap();
        enter(&mut index, &[10, 20, HOUR, 2 * HOUR]);
        let known: Vec<Timer> = (0..).zip([10, 20, HOUR, 2 * HOUR]).map(|(at, due)| timer(due, at)).collect();
        assert_eq!(take(&mut index, 10), [(10, 0)]);
        assert_eq!(carry(&mut index, &known, 3), [timer(20, 1), timer(HOUR, 2)]);
        assert_eq!((index.count(), index.carried()), (3, QueueOffset(3)));
        if restarts {
            index.save(index.checkpoint()).unwrap();
            index = open(&dir).unwrap();
        }
        assert_eq!(take(&mut index, 20), [(20, 4)]);
        assert_eq!(carry(&mut index, &known, 4), [timer(2 * HOUR, 3)]);
        assert_eq!(take(&mut index, 3 * HOUR), [(HOUR, 5), (2 * HOUR, 6)]);
        assert_eq!(index.count(), 0);
    }
}

#[test]
fn what_was_delivered_before_the_clock_was_set_back_is_not_carried_on() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir).unwrap();
        enter(&mut index, &[3 * HOUR, 5 * HOUR, 7 * HOUR]);
        assert_eq!(take(&mut index, 6 * HOUR), [(3 * HOUR, 0), (5 * HOUR, 1)]);
        index.delivered(6 * HOUR);
        index.save(index.checkpoint()).unwrap();
        index.go_back_before(2 * HOUR);
        // In the minutes of those that are gone.
        enter(&mut index, &[2 * HOUR, 3 * HOUR, 5 * HOUR]);
        if restarts {
            index.save(index.checkpoint()).unwrap();
            index = open(&dir).unwrap();
        }
        let due = [3 * HOUR, 5 * HOUR, 7 * HOUR, 2 * HOUR, 3 * HOUR, 5 * HOUR];
        let known: Vec<Timer> = (0..).zip(due).map(|(at, due)| timer(due, at)).collect();
        assert_eq!(carry(&mut index, &known, 6), known[2..]);
        let came = take(&mut index, 8 * HOUR);
        assert_eq!(came, [(2 * HOUR, 7), (3 * HOUR, 8), (5 * HOUR, 9), (7 * HOUR, 6)]);
    }
}

#[test]
fn a_file_does_not_grow_with_each_time_its_timers_are_carried_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    let mut known: Vec<Timer> = (0..10).map(|at| timer(100 * HOUR, at)).collect();
    enter(&mut index, &[100 * HOUR; 10]);
    let path = index.path(minute_of(100 * HOUR));
    for times in 0..300 {
        let end = index.entered().0;
        assert_eq!(carry(&mut index, &known, end).len(), 10);
        known = (end..end + 10).map(|at| timer(100 * HOUR, at)).collect();
        index.save(index.checkpoint()).unwrap();
        assert_eq!(index.count(), 10);
        let len = fs::metadata(&path).unwrap().len();
        assert!(len <= (WASTE_MIN + 20) * ENTRY_LEN as u64, "{len} bytes after {times} times");
    }
    drop(index);
    let mut index = open(&dir).unwrap();
    assert_eq!(take(&mut index, 101 * HOUR).len(), 10);
}

#[test]
fn a_file_made_anew_is_not_taken_for_one_that_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let known: Vec<Timer> = (0..600).map(|at| timer(100 * HOUR, at)).collect();
    let mut index = open(&dir).unwrap();
    index.delivered(1);
    index.save(index.checkpoint()).unwrap();
    enter(&mut index, &[100 * HOUR; 100]);
    index.write().unwrap();
    // A kill, and these are entered again: they are there twice.
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[100 * HOUR; 300]);
    for offset in [300, 600] {
        assert_eq!(carry(&mut index, &known, offset).len(), 300);
    }
    let path = index.path(minute_of(100 * HOUR));
    let len = || fs::metadata(&path).unwrap().len() / ENTRY_LEN as u64;
    let save = index.begin_save(index.checkpoint()).unwrap();
    assert_eq!(len(), 1000);
    // Another comes while the disk is at it.
    enter(&mut index, &[100 * HOUR]);
    index.write().unwrap();
    index.end_save(&save, save.run()).unwrap();
    assert_eq!(len(), 301);
    let found = open(&dir).unwrap();
    assert_eq!((found.entered(), found.is_whole()), (save.checkpoint.entered, true));
    index.save(index.checkpoint()).unwrap();
    let entered = index.entered();
    drop(index);
    assert_eq!(open(&dir).unwrap().entered(), entered);
    let one_less = (len() - 1) * ENTRY_LEN as u64;
    OpenOptions::new().write(true).open(&path).unwrap().set_len(one_less).unwrap();
    assert_eq!(open(&dir).unwrap().entered(), QueueOffset(600), "it is noticed all the same");
}

#[test]
fn a_file_that_was_restored_is_not_taken_for_one_that_was_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR; 2]);
    index.write().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[HOUR; 2]);
    let checkpoint = index.checkpoint();
    index.save(checkpoint).unwrap();
    fs::remove_file(index.path(minute_of(HOUR))).unwrap();
    index.due(HOUR).unwrap_err();
    index.restore(&[timer(HOUR, 0), timer(HOUR, 1)]).unwrap();
    assert!(index.checkpoint() == checkpoint && !index.is_saved());
    index.save(checkpoint).unwrap();
    assert!(index.is_saved());
    let mut index = open(&dir).unwrap();
    assert_eq!(index.entered(), QueueOffset(2));
    assert_eq!(take(&mut index, HOUR), [(HOUR, 0), (HOUR, 1)]);
}

#[derive(Clone, Debug)]
enum Step {
    /// In so many ms.
    Enter(i64),
    /// So much of the queue is to go, in percent.
    Carry(u64),
    Pass(i64),
    Write,
    Save,
    Renew,
    /// Another timer is entered while the disk is at it.
    SaveSlowly(i64),
    /// After so many changes and syncs the disk takes no more.
    Fail(usize),
    Recover,
    Kill,
    PowerLoss(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let ahead = || prop_oneof![0..20_000_i64, 0..5 * MINUTE_MS, 0..3 * HOUR];
    prop_oneof![
        6 => ahead().prop_map(Step::Enter),
        2 => (0..101_u64).prop_map(Step::Carry),
        3 => ahead().prop_map(Step::Pass),
        2 => Just(Step::Write),
        3 => Just(Step::Save),
        1 => Just(Step::Renew),
        2 => ahead().prop_map(Step::SaveSlowly),
        1 => (0..12_usize).prop_map(Step::Fail),
        1 => Just(Step::Recover),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerLoss),
    ]
}

/// An index as the broker uses it, over a queue that loses nothing but what is carried on, as soon as that is saved.
struct Model {
    disk: Arc<ScriptedDisk>,
    dir: tempfile::TempDir,
    index: TimerIndex,
    now_ms: i64,
    /// When the timers of the queue are due, and which ones they are: those that are carried on are there again.
    queue: Vec<(i64, u64)>,
    /// Where the queue begins.
    min: u64,
    /// How many there are, and how often each was delivered.
    count: u64,
    delivered: BTreeMap<u64, usize>,
    crashes: usize,
    /// The furthest that was ever saved as entered.
    entered: QueueOffset,
}

impl Model {
    fn new() -> Model {
        let (disk, dir) = (Arc::new(ScriptedDisk::default()), tempfile::tempdir().unwrap());
        let index = TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), STORE, 0).unwrap();
        let (queue, delivered) = (Vec::new(), BTreeMap::new());
        let entered = QueueOffset(0);
        Model { disk, dir, index, now_ms: HOUR, queue, min: 0, count: 0, delivered, crashes: 0, entered }
    }

    fn put(&mut self, ahead_ms: i64) {
        self.queue.push((self.now_ms + ahead_ms, self.count));
        self.count += 1;
        self.enter();
    }

    fn enter(&mut self) {
        assert!(self.index.entered().0 >= self.min);
        while let Some((due_ms, which)) = self.queue.get(usize::try_from(self.index.entered().0).unwrap()) {
            let offset = self.index.entered().0;
            if self.index.was_dealt_with(&timer(*due_ms, offset)) {
                self.index.enter(None);
            } else if self.index.has_passed(*due_ms) {
                *self.delivered.entry(*which).or_default() += 1;
                self.index.enter(None);
            } else {
                self.index.enter(Some(timer(*due_ms, offset)));
            }
        }
    }

    fn carry(&mut self, percent: u64) {
        let (from, end) = (self.index.carried().0, self.index.entered().0);
        let to = from + (end - from) * percent / 100;
        let before: Vec<Timer> = (from..to).map(|at| timer(self.queue[at as usize].0, at)).collect();
        let Ok(waiting) = self.index.waiting(&before) else { return };
        for timer in &waiting {
            self.queue.push(self.queue[timer.offset.0 as usize]);
        }
        self.index.carry(&waiting, QueueOffset(to));
        self.enter();
    }

    fn segment_goes(&mut self) {
        self.min = self.min.max(self.index.saved().carried.0);
    }

    /// False when the disk does not let it go on.
    fn deliver(&mut self) -> bool {
        loop {
            match self.index.due(self.now_ms) {
                Ok(due) if due.is_empty() => return true,
                Ok(due) => {
                    assert!(due[0].due_ms <= self.now_ms, "early");
                    for timer in &due {
                        assert!(timer.offset.0 >= self.min, "its segment is gone");
                        *self.delivered.entry(self.queue[timer.offset.0 as usize].1).or_default() += 1;
                    }
                    self.index.delivered(due[0].due_ms);
                }
                Err(_) => return false,
            }
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        let queue = &self.queue;
        self.index.renew(QueueOffset(self.min), |offset| Ok(Some(timer(queue[offset.0 as usize].0, offset.0))))
    }

    fn save_slowly(&mut self, ahead_ms: i64) -> io::Result<()> {
        let save = self.index.begin_save(self.index.checkpoint())?;
        self.put(ahead_ms);
        let outcome = save.run();
        self.index.end_save(&save, outcome)
    }

    /// What was saved is there.
    fn open_again(&mut self, power_loss: Option<u64>) {
        let saved = self.index.saved();
        self.entered = self.entered.max(saved.entered);
        self.crashes += 1;
        *self.disk.fails_after.lock() = None;
        if let Some(mut seed) = power_loss {
            self.disk.power_loss(self.dir.path(), || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 63 == 0
            });
        }
        let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
        self.index = TimerIndex::open(disk, self.dir.path().join("timers"), STORE, 0).unwrap();
        let found = self.index.checkpoint();
        assert!(
            self.index.entered_once() >= self.entered && found.delivered_ms >= saved.delivered_ms,
            "{found:?} {saved:?}"
        );
        assert!(found.carried >= saved.carried && found.latest_ms >= saved.latest_ms, "{found:?} {saved:?}");
        self.enter();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_the_disk_does_no_timer_is_lost(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Enter(ahead_ms) => model.put(ahead_ms),
                Step::Carry(percent) => model.carry(percent),
                Step::Pass(ms) => {
                    model.now_ms += ms;
                    model.deliver();
                }
                // Errors are what this is about.
                Step::Write => drop(model.index.write()),
                Step::Save => drop(model.index.save(model.index.checkpoint())),
                Step::Renew => drop(model.renew()),
                Step::SaveSlowly(ahead_ms) => drop(model.save_slowly(ahead_ms)),
                Step::Fail(after) => *model.disk.fails_after.lock() = Some(after),
                Step::Recover => *model.disk.fails_after.lock() = None,
                Step::Kill => model.open_again(None),
                Step::PowerLoss(seed) => model.open_again(Some(seed)),
            }
            model.segment_goes();
        }
        *model.disk.fails_after.lock() = None;
        model.now_ms += 4 * HOUR;
        prop_assert!(model.deliver());
        prop_assert_eq!((model.index.count(), model.index.earliest_ms()), (0, None));
        prop_assert_eq!(model.delivered.len() as u64, model.count);
        let most = model.delivered.values().max().copied().unwrap_or(1);
        prop_assert!(most == 1 || model.crashes > 0, "delivered {most} times");
    }
}
