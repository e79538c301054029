//! Entries of one queue and their files: added, cut off, corrected by the log, and replaced during a flush.

use std::time::{Duration, Instant};

use ferromq_protocol::PhysicalOffset;

use super::*;
use crate::disk::LocalDisk;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::{FaultyDisk, wait_until};

const PER_FILE: u64 = 4;

fn entry(physical: u64) -> QueueEntry {
    QueueEntry { physical: PhysicalOffset(physical), len: 100, tags_code: -7 }
}

fn queue_with(dir: &std::path::Path, per_file: u64) -> ConsumeQueue {
    let (dir, mappings) = (dir.join("T/0"), Arc::new(Mappings::new(Arc::new(LocalDisk), 1)));
    let segments = files::named_files(&dir).unwrap().segments;
    ConsumeQueue::open("T".into(), QueueId(0), dir, segments, per_file, mappings).unwrap()
}

fn queue(dir: &std::path::Path) -> ConsumeQueue {
    queue_with(dir, PER_FILE)
}

fn put(queue: &ConsumeQueue, offset: u64, physical: u64) -> Put {
    queue.put(&LocalDisk, QueueOffset(offset), &entry(physical)).unwrap()
}

#[test]
fn entries_survive_and_roll() {
    let dir = tempfile::tempdir().unwrap();
    let first = queue(dir.path());
    assert_eq!((first.min(), first.max(), first.entry(0).unwrap()), (0, 0, None));
    for offset in 0..10 {
        assert_eq!(put(&first, offset, offset * 100), Put::Added);
    }
    assert_eq!(put(&first, 3, 300), Put::Known);
    assert!(!first.flush(&LocalDisk, 2).unwrap() || first.flushed.load(Ordering::Relaxed) == 10);
    assert!(first.flush(&LocalDisk, 0).unwrap());
    drop(first);
    let again = queue(dir.path());
    assert_eq!((again.min(), again.max(), again.next(), again.end_physical()), (0, 10, 10, 1000));
    assert_eq!(again.entry(9).unwrap(), Some(entry(900)));
    assert_eq!(again.run(5).unwrap().map(|run| run.end), Some(8));
    assert_eq!(again.next_file_start(5), 8);
    again.correct_min(550).unwrap();
    assert_eq!((again.min(), again.entry(5).unwrap()), (6, None));
    again.correct_min(5000).unwrap();
    assert_eq!(again.min(), 10);
}

#[test]
fn vector_of_the_spec() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    let entry = QueueEntry { physical: PhysicalOffset(1024), len: 112, tags_code: 2_598_919 };
    queue.put(&LocalDisk, QueueOffset(0), &entry).unwrap();
    let bytes = std::fs::read(dir.path().join("T/0").join(segment_name(0))).unwrap();
    assert_eq!(bytes[..20], *b"\0\0\0\0\0\0\x04\0\0\0\0\x70\0\0\0\0\0\x27\xa8\x07");
}

#[test]
fn a_queue_begins_where_it_should_though_the_first_try_fails() {
    for after in 0..5 {
        let (dir, disk) = (tempfile::tempdir().unwrap(), ScriptedDisk::default());
        let late = queue(dir.path());
        *disk.fails_after.lock() = Some(after);
        let first = late.put(&disk, QueueOffset(6), &entry(600));
        *disk.fails_after.lock() = None;
        assert_eq!(first.is_ok(), after > 2, "{first:?}");
        late.put(&disk, QueueOffset(6), &entry(600)).unwrap();
        assert_eq!((late.min(), late.max()), (6, 7), "after {after}");
        late.flush(&disk, 0).unwrap();
        drop(late);
        let again = queue(dir.path());
        again.correct_min(0).unwrap();
        assert_eq!((again.min(), again.max()), (6, 7), "after {after}");
    }
}

#[test]
fn a_queue_may_begin_late() {
    let dir = tempfile::tempdir().unwrap();
    let late = queue(dir.path());
    put(&late, 6, 600);
    assert_eq!((late.min(), late.max()), (6, 7));
    drop(late);
    let bytes = std::fs::read(dir.path().join("T/0").join(segment_name(80))).unwrap();
    assert_eq!(bytes[..20], *b"\0\0\0\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0\0\0\0\0");
    let again = queue(dir.path());
    again.correct_min(0).unwrap();
    assert_eq!((again.min(), again.max(), again.entry(6).unwrap()), (6, 7, Some(entry(600))));
}

#[test]
fn truncation_removes_what_the_log_lost() {
    let dir = tempfile::tempdir().unwrap();
    let cut = queue(dir.path());
    for offset in 0..10 {
        put(&cut, offset, offset * 100);
    }
    cut.truncate_physical(&LocalDisk, 550).unwrap();
    assert_eq!(cut.max(), 5);
    assert_eq!(put(&cut, 5, 505), Put::Added);
    drop(cut);
    assert_eq!(queue(dir.path()).max(), 6);
}

/// Of pages of 64 bytes, the second is lost, and the third is not: the entry across their border leads to the log's beginning, which is
/// gone for long.
#[test]
fn a_torn_entry_takes_with_it_what_was_lost_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    let queue = open();
    for offset in 0..8 {
        put(&queue, offset, 5000 + offset * 100);
    }
    drop(queue);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..128].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 5500, &|_, _, _| true).unwrap();
    assert_eq!((queue.max(), queue.next(), queue.end_physical()), (5, 5, 5500));
}

/// A page got to the disk while an entry was put: its length is there, its place is not.
#[test]
fn an_entry_that_was_being_put_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    let queue = open();
    for offset in 0..6 {
        put(&queue, offset, 5000 + offset * 100);
    }
    drop(queue);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..108].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 5500, &|_, _, _| true).unwrap();
    assert_eq!((queue.max(), queue.end_physical()), (5, 5500));
}

/// As above, of the first entry of a queue that begins late: the fillers before it have the place 0 too.
/// Else what is put again behind it would be taken for something from before it.
#[test]
fn an_entry_whose_length_leads_too_far_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    for offset in 0..3 {
        put(&queue, offset, offset * 100);
    }
    let damaged = QueueEntry { len: 100 | 1 << 25, ..entry(100) };
    queue.mend(1, &entry(100), &damaged).unwrap();
    let forgotten = queue.first_behind(&ScriptedDisk::default(), 200, &|_, _, _| true).unwrap().unwrap();
    assert_eq!((forgotten.offset, forgotten.entry), (1, damaged));
    queue.keep_before(&ScriptedDisk::default(), 200, &|_, _, _| true).unwrap();
    assert_eq!((queue.max(), queue.end_physical()), (1, 100));
    assert_eq!(put(&queue, 1, 100), Put::Added);
    assert_eq!(put(&queue, 2, 200), Put::Added);
}

#[test]
fn a_torn_entry_behind_fillers_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    put(&open(), 6, 5000);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[120..128].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 5500, &|_, _, _| true).unwrap();
    assert_eq!((queue.max(), queue.end_physical()), (6, 0));
}

/// Of the fillers before its first entry, a power loss took the last ones.
#[test]
fn a_queue_that_begins_late_has_nothing_before_its_first_message() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    put(&open(), 6, 600);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 600, &|_, _, _| true).unwrap();
    // Whoever opens it looks for what else is missing.
    assert_eq!(put(&queue, 6, 600), Put::Gap);
    queue.correct_min(0).unwrap();
    assert_eq!((queue.min(), queue.max()), (6, 7));
    drop(queue);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    assert!(queue.go_on_at(&LocalDisk, 6, 100, 1000).unwrap());
    assert_eq!((queue.min(), queue.max(), queue.next()), (6, 6, 6));
}

/// Here from their middle.
#[test]
fn a_queue_that_begins_late_begins_behind_all_of_its_fillers() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    put(&open(), 20, 2000);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..200].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 2000, &|_, _, _| true).unwrap();
    put(&queue, 20, 2000);
    let all: Vec<_> = (0..20).map(|offset| queue.any_entry(offset).unwrap()).collect();
    assert_eq!(all, vec![Some(QueueEntry::FILLER); 20]);
    assert_eq!(queue.flushed.load(Ordering::Acquire), 0, "nobody knows whether the others are on the disk");
}

/// What a damaged page had is found in the log by who reads it.
#[test]
fn what_is_blank_among_entries_is_left_to_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || queue_with(dir.path(), 64);
    let queue = open();
    (0..20).for_each(|offset| _ = put(&queue, offset, offset * 100));
    assert!(queue.go_on_at(&LocalDisk, 21, 0, 2100).unwrap());
    drop(queue);
    let path = dir.path().join("T/0").join(segment_name(0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100..200].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let queue = open();
    queue.keep_before(&ScriptedDisk::default(), 2100, &|_, _, _| true).unwrap();
    assert_eq!((queue.max(), queue.any_entry(5).unwrap()), (21, Some(QueueEntry::NOTHING)));
}

/// Whatever comes next has its place, though all files of the queue are behind it.
#[test]
fn a_truncation_below_the_first_file_leaves_a_queue_that_goes_on() {
    for (end, max) in [(500, 5), (0, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let queue = queue(dir.path());
        assert!(queue.go_on_at(&LocalDisk, 9, 0, 1000).unwrap());
        queue.truncate_physical(&LocalDisk, end).unwrap();
        assert_eq!((queue.min(), queue.max()), (max, max));
        assert_eq!(put(&queue, max, end), Put::Added);
        assert_eq!((queue.min(), queue.max(), queue.entry(max).unwrap()), (max, max + 1, Some(entry(end))));
    }
}

/// What comes behind a truncation lies before where its messages did.
#[test]
fn a_queue_follows_the_log_behind_a_truncation_too() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    put(&queue, 0, 100);
    put(&queue, 1, 900);
    let disk = LocalDisk;
    let look = Look::reading_on(&disk);
    queue.follow_log(&look, 500).unwrap();
    assert_eq!(queue.min(), 1);
    queue.truncate_physical(&LocalDisk, 600).unwrap();
    put(&queue, 1, 600);
    put(&queue, 2, 900);
    queue.follow_log(&look, 800).unwrap();
    assert_eq!((queue.min(), queue.max()), (2, 3));
}

#[test]
fn a_queue_goes_on_where_it_did_though_all_that_it_had_was_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let late = queue(dir.path());
    put(&late, 6, 600);
    late.truncate_physical(&LocalDisk, 600).unwrap();
    assert_eq!((late.min(), late.max()), (6, 6));
    drop(late);
    let again = queue(dir.path());
    again.keep_before(&ScriptedDisk::default(), 600, &|_, _, _| true).unwrap();
    again.correct_min(0).unwrap();
    assert_eq!((again.min(), again.max(), again.next()), (6, 6, 6));
}

/// Of a topic that began anew, with appends that are not dispatched yet.
#[test]
fn what_begins_anew_below_its_first_file_goes_on_where_it_did() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue_with(dir.path(), 4);
    put(&queue, 9, 900);
    queue.advance_next(3);
    assert_eq!(put(&queue, 0, 2000), Put::Added);
    assert_eq!((queue.min(), queue.max(), queue.next()), (0, 1, 3));
}

/// Offsets that were kept because of messages that are lost are given again, when these were behind the end.
#[test]
fn what_was_lost_is_not_in_the_way_behind_a_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    assert!(queue.go_on_at(&LocalDisk, 3, 0, 1000).unwrap());
    assert_eq!((queue.min(), queue.max()), (3, 3));
    queue.truncate_physical(&LocalDisk, 500).unwrap();
    assert_eq!(put(&queue, 1, 500), Put::Added);
    assert_eq!((queue.min(), queue.entry(1).unwrap()), (1, Some(entry(500))));
    queue.truncate_physical(&LocalDisk, 100).unwrap();
    assert_eq!((queue.min(), queue.max()), (1, 1));
    queue.truncate_physical(&LocalDisk, 0).unwrap();
    assert_eq!((queue.min(), queue.max()), (0, 0));
    assert_eq!(put(&queue, 0, 0), Put::Added);
    assert_eq!(queue.entry(0).unwrap(), Some(entry(0)));
}

#[test]
fn an_offset_that_cannot_be_fills_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    assert_eq!(put(&queue, 7, 600), Put::Impossible);
    assert_eq!(put(&queue, i64::MAX as u64, 600), Put::Impossible);
    assert_eq!((queue.max(), dir.path().join("T").exists()), (0, false));
    assert_eq!(put(&queue, 0, 5000), Put::Added);
    for offset in [11, 1 << 40, i64::MAX as u64] {
        assert_eq!(put(&queue, offset, 5100 + 909), Put::Impossible);
    }
    assert_eq!(queue.max(), 1);
    assert_eq!(put(&queue, 11, 5100 + 910), Put::Gap);
    assert_eq!(queue.max(), 12);
}

#[test]
fn the_log_is_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(dir.path());
    for offset in 0..10 {
        put(&queue, offset, offset * 100);
    }
    assert_eq!((put(&queue, 1, 1500), queue.max()), (Put::Impossible, 10));
    // The topic was deleted and begun anew: an older record is passed over, a later one takes its place.
    assert_eq!(put(&queue, 2, 190), Put::Stale);
    assert_eq!(put(&queue, 0, 2000), Put::Added);
    assert_eq!((queue.max(), queue.entry(0).unwrap()), (1, Some(entry(2000))));
    // Anew without its first one, which was damaged; and that of one whose own offset is: it changes nothing.
    for offset in 1..8 {
        assert_eq!(put(&queue, offset, 2000 + offset * 100), Put::Added);
    }
    assert_eq!((put(&queue, 4, 5000), put(&queue, 8, 5100)), (Put::Impossible, Put::Added));
    assert_eq!((put(&queue, 1, 6000), queue.max()), (Put::Impossible, 9));
    assert_eq!((put(&queue, 2, 6100), queue.max()), (Put::Added, 3));
    assert_eq!((put(&queue, 0, 7000), queue.max()), (Put::Added, 1));
    // A hole is filled in place, a gap bridged.
    assert_eq!(put(&queue, 3, 7300), Put::Gap);
    assert!(queue.entry(2).unwrap().unwrap().is_filler());
    assert_eq!(put(&queue, 2, 7200), Put::Added);
    assert_eq!((queue.max(), queue.entry(2).unwrap()), (4, Some(entry(7200))));
    queue.remove(&LocalDisk).unwrap();
    assert!(!dir.path().join("T/0").exists());
}

#[test]
fn an_entry_that_is_replaced_during_a_flush_is_flushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let queue = queue(&dir.path().join("consumequeue"));
    put(&queue, 0, 0);
    assert_eq!(put(&queue, 3, 300), Put::Gap);
    let disk = FaultyDisk::default();
    disk.queue_sync_hangs.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| queue.flush(&disk, 0).unwrap());
        wait_until(|| disk.hanging.load(Ordering::SeqCst) == 1);
        let replacing = scope.spawn(|| put(&queue, 1, 100));
        // Time for it to do it now. That it has none proves nothing, and harms nothing.
        let enough = Instant::now() + Duration::from_millis(200);
        while !replacing.is_finished() && Instant::now() < enough {
            std::thread::yield_now();
        }
        disk.queue_sync_hangs.store(false, Ordering::SeqCst);
        flush.join().unwrap();
        assert_eq!(replacing.join().unwrap(), Put::Added);
    });
    assert_eq!(queue.flushed.load(Ordering::SeqCst), 1);
}
