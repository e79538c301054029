//! Damage that somebody made while the store was closed, one kind at a time. Anything at random: `damaged_starts_test.rs`.

use std::fs;
use std::path::PathBuf;

use ferromq_protocol::{QueueId, QueueOffset};

use super::*;
use crate::Effort;
use crate::disk::Disk;
use crate::scripted_disk::{Fault, ScriptedDisk};
use crate::testing::*;

const NEVER: Duration = Duration::from_secs(3600);

/// Nothing gets to the disk by itself.
fn config(site: &Site) -> StoreConfig {
    StoreConfig {
        flush: FlushMode::Async { interval: NEVER, least_pages: 0, thorough_interval: NEVER },
        queue_flush_interval: NEVER,
        queue_flush_thorough_interval: NEVER,
        ..site.config()
    }
}

fn open(site: &Site) -> Store {
    Store::open(config(site)).unwrap()
}

const COUNT: u8 = 90;

fn key(n: u8) -> String {
    format!("UNIQ_KEY\u{1}u{n}\u{2}")
}

/// Three queues of one topic and one of another, in turns; the last messages are of the first queue.
fn fill(store: &Store) {
    for n in 0..COUNT {
        let (topic, queue) = if n % 4 == 3 { ("Other", 0) } else { (T, u32::from(n % 4)) };
        store.append(&message(topic, queue, &[n; 60], &key(n))).unwrap();
    }
    settle(store);
}

fn expected(topic: &str, queue: u32) -> Vec<(u64, Vec<u8>)> {
    let of_queue =
        (0..COUNT).filter(|n| if n % 4 == 3 { topic == "Other" } else { topic == T && u32::from(n % 4) == queue });
    (0..).zip(of_queue.map(|n| vec![n; 60])).collect()
}

fn check(store: &Store, what: &str) {
    for (topic, queue) in [(T, 0), (T, 1), (T, 2), ("Other", 0)] {
        assert_eq!(read_bodies(store, topic, queue, 0), expected(topic, queue), "{topic}/{queue}: {what}");
    }
}

fn check_and_append(store: &Store, what: &str) {
    check(store, what);
    for n in 0..COUNT {
        let topic = if n % 4 == 3 { "Other" } else { T };
        assert_eq!(query_bodies(store, topic, &format!("u{n}")), [vec![n; 60]], "u{n}: {what}");
    }
    for (topic, queue) in [(T, 0), (T, 1), (T, 2), ("Other", 0)] {
        let next = expected(topic, queue).len() as u64;
        assert_eq!(store.append(&message(topic, queue, b"new", "")).unwrap().queue_offset, QueueOffset(next), "{what}");
    }
}

/// A store with all of it, closed or killed with everything on the disk.
fn filled(clean: bool) -> Site {
    let site = Site::new();
    let store = open(&site);
    fill(&store);
    if clean {
        store.close().unwrap();
    } else {
        store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    }
    drop(store);
    site
}

fn files_of(site: &Site, dir: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root(site).join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_queue_that_is_missing_beside_others_is_made_again() {
    for clean in [true, false] {
        for gone in [
            "TopicT",
            "TopicT/0",
            "TopicT/1",
            "TopicT/1/00000000000000000000",
            "TopicT/1/00000000000000000320",
            "Other",
        ] {
            let site = filled(clean);
            let path = root(&site).join("consumequeue").join(gone);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap()
            } else {
                fs::remove_file(&path).unwrap()
            }
            let log = TraceLog::default();
            let store = log.capture(|| open(&site));
            check_and_append(&store, &format!("without {gone}, clean: {clean}"));
            assert!(log.text().contains("the whole log is read"), "{gone}: {}", log.text());
        }
    }
}

#[test]
fn files_of_queues_that_do_not_fit_are_kept_aside_and_made_again() {
    for clean in [true, false] {
        let site = filled(clean);
        let at = |path: &str| root(&site).join("consumequeue").join(path);
        fs::write(at("TopicT/0/00000000000000000000"), b"cut off").unwrap();
        fs::remove_dir_all(at("TopicT/2")).unwrap();
        fs::write(at("TopicT/2"), b"no directory").unwrap();
        fs::remove_dir_all(at("Other")).unwrap();
        fs::write(at("Other"), b"no directory").unwrap();
        let store = open(&site);
        check_and_append(&store, &format!("clean: {clean}"));
        let kept = |name: &str| fs::read(root(&site).join("damaged").join(name)).unwrap();
        assert_eq!(kept("consumequeue+TopicT+0+00000000000000000000"), b"cut off");
        assert_eq!(
            (kept("consumequeue+TopicT+2"), kept("consumequeue+Other")),
            (b"no directory".to_vec(), b"no directory".to_vec())
        );
    }
}

#[test]
fn an_index_file_that_is_missing_is_made_again() {
    for clean in [true, false] {
        let count = files_of(&filled(clean), "index").len();
        for at in 0..count {
            for cut in [None, Some(100), Some(2000)] {
                let site = filled(clean);
                let path = &files_of(&site, "index")[at];
                match cut {
                    None => fs::remove_file(path).unwrap(),
                    Some(len) => fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap(),
                }
                check_and_append(&open(&site), &format!("file {at} of {count}, cut to {cut:?}, clean: {clean}"));
            }
        }
    }
}

/// A process that is killed between the list and the checkpoint leaves a list that is ahead: of the file that lies across the checkpoint
/// what comes behind it is indexed again whatever there is, and what was before it is missed.
#[test]
fn an_index_file_across_the_checkpoint_that_is_missing_is_made_again() {
    // The second file begins with the 63rd message.
    for saved in 60..70 {
        for older in
            [None, Some(64), Some(saved - 1)].into_iter().filter(|older| older.is_none_or(|n| (64..saved).contains(&n)))
        {
            let site = Site::new();
            let store = open(&site);
            let put = |n: u8| {
                store.append(&message(T, 0, &[n; 60], &key(n))).unwrap();
                settle(&store);
            };
            let save = || store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
            (0..older.unwrap_or(0)).for_each(put);
            let before = files_of(&site, "index").last().map(|path| fs::read(path).unwrap());
            (older.unwrap_or(0)..saved).for_each(put);
            save();
            let checkpoint = fs::read(store.checkpoint.path()).unwrap();
            (saved..COUNT).for_each(put);
            save();
            fs::write(store.checkpoint.path(), checkpoint).unwrap();
            drop(store);
            let path = files_of(&site, "index").remove(1);
            match older {
                None => fs::remove_file(&path).unwrap(),
                Some(_) => fs::write(&path, before.unwrap()).unwrap(),
            }
            let store = open(&site);
            for n in 0..COUNT {
                let what = format!("u{n}, saved at {saved}, the second file as at {older:?}");
                assert_eq!(query_bodies(&store, T, &format!("u{n}")), [vec![n; 60]], "{what}");
            }
        }
    }
}

/// The last entry of a queue, so that it leads beyond the log, or to another place in it.
#[test]
fn a_damaged_last_entry_hides_no_message_and_gives_no_offset_twice() {
    for clean in [true, false] {
        for (byte, with) in [(4, 0x7F), (5, 0x01), (7, 0x55), (11, 0x01)] {
            let site = filled(clean);
            let path = root(&site).join("consumequeue/TopicT/0/00000000000000000320");
            let mut entries = fs::read(&path).unwrap();
            let last = (expected(T, 0).len() - 1) % 16;
            entries[last * 20 + byte] ^= with;
            fs::write(&path, entries).unwrap();
            check_and_append(&open(&site), &format!("byte {byte}, clean: {clean}"));
        }
    }
}

#[test]
fn a_damaged_entry_is_put_right_by_who_reads_it() {
    // Of its place, its length, and all of it.
    for bytes in [0..8, 2..3, 7..8, 8..12, 0..20] {
        for with in [0, 0x11] {
            let site = filled(true);
            let path = root(&site).join("consumequeue/TopicT/1/00000000000000000000");
            let mut entries = fs::read(&path).unwrap();
            entries[100 + bytes.start..100 + bytes.end].fill(with);
            fs::write(&path, entries).unwrap();
            let log = TraceLog::default();
            log.capture(|| {
                let store = open(&site);
                check(&store, &format!("{bytes:?} are {with}"));
                check(&store, "again");
            });
            assert_eq!(
                log.text().matches("an entry of a queue is damaged").count(),
                usize::from(with > 0 || bytes != (2..3)),
                "{}",
                log.text()
            );
        }
    }
}

/// Delays and timers go by entries.
#[test]
fn a_damaged_entry_is_put_right_by_who_waits_for_its_message() {
    let site = filled(true);
    let store = open(&site);
    let right = store.queue_entry(T, QueueId(1), QueueOffset(5), Effort::Full).unwrap().unwrap();
    store.close().unwrap();
    let path = root(&site).join("consumequeue/TopicT/1/00000000000000000000");
    let whole = fs::read(&path).unwrap();
    for byte in [0, 7, 11] {
        let mut entries = whole.clone();
        entries[100 + byte] ^= 0x40;
        fs::write(&path, entries).unwrap();
        let store = open(&site);
        let found = store.sound_entry(T, QueueId(1), QueueOffset(5)).unwrap();
        assert_eq!(found, Some(right), "byte {byte}");
        store.close().unwrap();
    }
}

/// Who pulls gets everything else, in the same pulls; and the damage is named once.
#[test]
fn a_damaged_message_hides_none_behind_it() {
    let len = message(T, 0, &[0; 60], &key(10)).record_len() as u64;
    // Of the record: its length, its magic, its place, the length of its body, its body.
    for byte in [0, 3, 6, 34, 87, 100] {
        let site = filled(true);
        let store = open(&site);
        let entry = store.queue_entry(T, QueueId(1), QueueOffset(7), Effort::Full).unwrap().unwrap();
        store.close().unwrap();
        let (start, at) = (entry.physical.0 - entry.physical.0 % 4096, entry.physical.0 % 4096 + byte);
        assert!(byte < len);
        let path = root(&site).join("commitlog").join(files::segment_name(start));
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let log = TraceLog::default();
        log.capture(|| {
            let store = open(&site);
            for _ in 0..2 {
                let mut all = expected(T, 1);
                all.remove(7);
                assert_eq!(read_bodies(&store, T, 1, 0), all, "byte {byte}");
                for (topic, queue) in [(T, 0), (T, 2), ("Other", 0)] {
                    assert_eq!(read_bodies(&store, topic, queue, 0), expected(topic, queue), "byte {byte}");
                }
            }
        });
        assert_eq!(log.text().matches("consumers pass over it").count(), 1, "byte {byte}: {}", log.text());
        assert!(log.text().contains(&format!("physical={}", entry.physical)), "{}", log.text());
    }
}

/// After a kill, a record of the middle is damaged and so is what says how much was on the disk.
#[test]
fn without_a_checkpoint_nothing_whole_is_cut_off() {
    for damage in ["removed", "flipped", "cut", "foreign text"] {
        for without_list in [true, false] {
            let site = filled(false);
            let entries = fs::read(root(&site).join("consumequeue/TopicT/1/00000000000000000000")).unwrap();
            let damaged = u64::from_be_bytes(*entries[9 * 20..].first_chunk().unwrap());
            let checkpoint = root(&site).join("checkpoint");
            let mut bytes = fs::read(&checkpoint).unwrap();
            match damage {
                "removed" => fs::remove_file(&checkpoint).unwrap(),
                "cut" => fs::write(&checkpoint, &bytes[..90]).unwrap(),
                "foreign text" => fs::write(&checkpoint, b"lock").unwrap(),
                _ => {
                    bytes[70] ^= 4;
                    fs::write(&checkpoint, bytes).unwrap();
                }
            }
            if without_list {
                fs::remove_file(root(&site).join("inventory")).unwrap();
            }
            let path = root(&site).join("commitlog").join(files::segment_name(damaged - damaged % 4096));
            let mut bytes = fs::read(&path).unwrap();
            // In its body.
            bytes[usize::try_from(damaged % 4096).unwrap() + 100] ^= 4;
            fs::write(&path, bytes).unwrap();
            let store = open(&site);
            let found: usize = [(T, 0), (T, 1), (T, 2), ("Other", 0)]
                .map(|(topic, queue)| read_whole_bodies(&store, topic, queue, 0).len())
                .iter()
                .sum();
            assert_eq!(found, usize::from(COUNT) - 1, "{damage}, without the list too: {without_list}");
        }
    }
}

/// A part of the log that was on the disk is gone, at its end.
#[test]
fn offsets_of_messages_that_are_gone_are_not_given_again() {
    for clean in [true, false] {
        for without_queues in [false, true] {
            let site = filled(clean);
            let logs = files_of(&site, "commitlog");
            let path = logs.iter().rev().find(|path| fs::read(path).unwrap()[..64] != [0; 64]).unwrap();
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(10).unwrap();
            if without_queues {
                fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
            }
            let log = TraceLog::default();
            let store = log.capture(|| open(&site));
            assert!(log.text().contains(&*path.to_string_lossy()), "{}", log.text());
            for (topic, queue) in [(T, 0), (T, 1), (T, 2), ("Other", 0)] {
                let next = QueueOffset(expected(topic, queue).len() as u64);
                let placed = store.append(&message(topic, queue, b"new", "")).unwrap();
                assert_eq!(
                    placed.queue_offset, next,
                    "{topic}/{queue}, clean: {clean}, without queues: {without_queues}"
                );
                settle(&store);
                assert_eq!(read_bodies(&store, topic, queue, next.0), [(next.0, b"new".to_vec())]);
            }
            store.close().unwrap();
            assert_eq!(read_bodies(&open(&site), T, 0, 0).last().unwrap().1, b"new");
        }
    }
}

#[test]
fn another_brokers_segment_stops_the_open() {
    let (site, other) = (filled(true), Site::new());
    other.advance(1);
    let store = open(&other);
    for n in 0..COUNT {
        store.append(&message("Foreign", 0, &[n; 61], "")).unwrap();
    }
    settle(&store);
    store.close().unwrap();
    let logs = files_of(&site, "commitlog");
    for (at, path) in logs.iter().enumerate().take(3) {
        let right = fs::read(path).unwrap();
        for wrong in [&files_of(&other, "commitlog")[at], &logs[(at + 1) % 3]] {
            fs::write(path, fs::read(wrong).unwrap()).unwrap();
            let before: Vec<_> = logs.iter().map(|path| fs::read(path).unwrap()).collect();
            let opened = Store::open(config(&site));
            assert!(opened.is_err(), "{} in place of {}", wrong.display(), path.display());
            let error = opened.unwrap_err();
            assert!(matches!(&error, OpenError::OtherFile { path: named, .. } if named == path), "{error}");
            assert!(before.iter().zip(&logs).all(|(bytes, path)| *bytes == fs::read(path).unwrap()));
        }
        fs::write(path, right).unwrap();
    }
    check_and_append(&open(&site), "as it was");
}

#[test]
fn what_is_in_the_place_of_a_file_or_directory_is_moved_away_or_named() {
    let site = filled(true);
    let at = |name: &str| root(&site).join(name);
    for name in ["checkpoint", "inventory", "abort"] {
        let _ = fs::remove_file(at(name));
        fs::create_dir(at(name)).unwrap();
    }
    for name in ["consumequeue", "index"] {
        fs::remove_dir_all(at(name)).unwrap();
        fs::write(at(name), b"no directory").unwrap();
    }
    let store = open(&site);
    check_and_append(&store, "all of them");
    store.close().unwrap();
    fs::remove_file(at("lock")).unwrap();
    fs::create_dir(at("lock")).unwrap();
    let error = Store::open(config(&site)).unwrap_err().to_string();
    assert!(error.contains("lock is no file. Move it away"), "{error}");
    fs::remove_dir(at("lock")).unwrap();
    fs::rename(at("commitlog"), at("elsewhere")).unwrap();
    fs::write(at("commitlog"), b"").unwrap();
    let error = Store::open(config(&site)).unwrap_err().to_string();
    assert!(error.contains("commitlog is no directory. Move it away"), "{error}");
}

/// Nothing of a queue is in the log any more: its directory is all that says how far it was.
#[test]
fn a_queue_of_deleted_messages_goes_on_where_it_was() {
    let site = Site::new();
    let store = open(&site);
    for n in 0..10_u8 {
        store.append(&message(T, 0, &[n], "")).unwrap();
    }
    for _ in 0..40 {
        store.append(&message("Other", 0, &[9; 500], "")).unwrap();
    }
    settle(&store);
    store.close().unwrap();
    fs::remove_file(log_file(&site)).unwrap();
    fs::remove_dir_all(root(&site).join("consumequeue/TopicT")).unwrap();
    let store = open(&site);
    assert_eq!(store.append(&message(T, 0, b"next", "")).unwrap().queue_offset, QueueOffset(10));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(10, b"next".to_vec())]);
}

#[test]
fn a_store_that_lost_only_its_abort_file_is_checked_all_the_same() {
    let site = filled(false);
    let store = open(&site);
    store.append(&message(T, 0, b"more", "")).unwrap();
    settle(&store);
    drop(store);
    fs::remove_file(root(&site).join("abort")).unwrap();
    let log = TraceLog::default();
    let store = log.capture(|| open(&site));
    assert!(log.text().contains("the store was not closed in order"), "{}", log.text());
    assert_eq!(read_bodies(&store, T, 0, 0).last().unwrap().1, b"more");
}

#[test]
fn a_damaged_message_makes_no_index_file_damaged() {
    for damaged in [4..8, 28..36, 84..85] {
        let site = filled(true);
        let at = {
            let store = open(&site);
            let entry = store.queue_entry(T, QueueId(0), QueueOffset(1), Effort::Full).unwrap().unwrap();
            store.close().unwrap();
            entry.physical.0
        };
        let path = log_file(&site);
        let mut log = fs::read(&path).unwrap();
        log[usize::try_from(at).unwrap()..][damaged.clone()].fill(0xFF);
        fs::write(&path, log).unwrap();
        let store = open(&site);
        // The second of the first queue.
        assert_eq!(query_bodies(&store, T, "u4"), Vec::<Vec<u8>>::new(), "{damaged:?}");
        let index = store.index.as_ref().unwrap();
        assert!(index.extents().iter().all(|file| file.next != u32::MAX), "{damaged:?} makes the index damaged");
    }
}

/// It takes out of the index what came behind the checkpoint, and puts it again: until it has, nothing is missing of what the next start
/// could not put itself. So where it ends, at whatever call, that one names nothing and has everything.
#[test]
fn a_start_that_is_killed_leaves_no_index_file_that_seems_to_have_lost_entries() {
    // An index file has 63 entries: the checkpoint is in the middle of the first, at its end, and in the second.
    for (is_list_ahead, saved) in [(false, 10), (true, 10), (true, 63), (true, 64)] {
        let mut after = 0;
        loop {
            let site = Site::new();
            let disk = Arc::<ScriptedDisk>::default();
            let open = || Store::open(StoreConfig { disk: Arc::clone(&disk) as Arc<dyn Disk>, ..config(&site) });
            let store = open().unwrap();
            let put = |n: u8| {
                site.advance(137);
                store.append(&message(T, 0, &[n; 60], &key(n))).unwrap();
            };
            let save = || store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
            (0..saved).for_each(put);
            settle(&store);
            save();
            let checkpoint = fs::read(store.checkpoint.path()).unwrap();
            (saved..saved + 10).for_each(put);
            settle(&store);
            if is_list_ahead {
                // Killed between the two.
                save();
                fs::write(store.checkpoint.path(), checkpoint).unwrap();
            }
            drop(store);
            disk.fail(Fault { after, count: usize::MAX, errno: libc::EIO, only_syncs: false });
            let is_opened = open().is_ok();
            disk.restart();
            let log = TraceLog::default();
            let store = log.capture(open).unwrap();
            assert!(!log.text().contains("lost entries"), "after {after}, {is_list_ahead}, {saved}: {}", log.text());
            for n in 0..saved + 10 {
                assert_eq!(query_bodies(&store, T, &format!("u{n}")), [vec![n; 60]], "u{n} after {after}");
            }
            if is_opened {
                break;
            }
            after += 1;
        }
        assert!(after > 10, "{after}");
    }
}

#[test]
fn the_list_of_queues_is_not_ahead_of_the_checkpoint() {
    let site = Site::new();
    let store = Arc::new(open(&site));
    let put = |store: &Store, n: u8| _ = store.append(&message(T, 0, &[n; 60], &key(n))).unwrap();
    put(&store, 0);
    settle(&store);
    // While the log is synced before anything else.
    let other = Arc::clone(&store);
    *site.disk.during_sync.lock() = Some(Interlude(Box::new(move || {
        put(&other, 1);
        settle(&other);
    })));
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    assert!(site.disk.during_sync.lock().is_none());
    let saved = store.checkpoint.saved().unwrap();
    let inventory = Inventory::open(&*site.disk, &root(&site), &store.checkpoint).unwrap();
    let listed = inventory.found();
    assert_eq!(listed.log_end, saved.queues);
    assert_eq!(listed.queues.iter().map(|queue| queue.extent.end).collect::<Vec<_>>(), [saved.queues]);
    let listed_index = listed.index.as_ref().unwrap();
    assert!(listed_index.iter().all(|file| file.end_physical < saved.index), "{listed_index:?}");
}

/// An entry that a reader has given up stands for its message: no start takes the queue for one that lost something, in the middle of it or at its
/// end, as long as the list is of before.
#[test]
fn an_entry_that_was_given_up_is_not_missed() {
    for at_the_end in [true, false] {
        let site = filled(true);
        let count = expected(T, 2).len() as u64;
        let store = open(&site);
        let entry = store.queue_entry(T, QueueId(2), QueueOffset(count - 1), Effort::Full).unwrap().unwrap();
        store.close().unwrap();
        let list = fs::read(root(&site).join("inventory")).unwrap();
        let path = root(&site).join("commitlog").join(files::segment_name(entry.physical.0 - entry.physical.0 % 4096));
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(entry.physical.0 % 4096).unwrap() + 100] ^= 0x40;
        fs::write(&path, bytes).unwrap();

        let log = TraceLog::default();
        let mut all = expected(T, 2);
        all.pop();
        log.capture(|| {
            let store = open(&site);
            assert_eq!(read_bodies(&store, T, 2, 0), all);
            if !at_the_end {
                all.push((count, b"behind".to_vec()));
                store.append(&message(T, 2, b"behind", "")).unwrap();
                settle(&store);
            }
            store.close().unwrap();
        });
        assert_eq!(log.text().matches("consumers pass over it").count(), 1, "{}", log.text());
        fs::write(root(&site).join("inventory"), list).unwrap();
        let log = TraceLog::default();
        log.capture(|| {
            let store = open(&site);
            assert_eq!(read_bodies(&store, T, 2, 0), all);
            let next = count + u64::from(!at_the_end);
            assert_eq!(store.append(&message(T, 2, b"new", "")).unwrap().queue_offset, QueueOffset(next));
        });
        assert_eq!(log.text(), "", "at the end: {at_the_end}");
    }
}

/// What says that it is longer than any list is not read, so that no memory is taken for it.
#[test]
fn a_list_of_a_length_that_no_list_has_is_not_read() {
    let site = filled(true);
    let list = root(&site).join("inventory");
    fs::OpenOptions::new().write(true).open(&list).unwrap().set_len((1 << 30) + 1).unwrap();
    // A read of it would be an error of the open.
    site.disk.bad.lock().push(("/inventory".to_owned(), 0..u64::MAX));
    let log = TraceLog::default();
    let store = log.capture(|| open(&site));
    assert!(log.text().contains("the list of queues and index files is missing or damaged"), "{}", log.text());
    check_and_append(&store, "after a list that is too long");
    store.close().unwrap();
    assert!(fs::metadata(&list).unwrap().len() < 1 << 20, "it is written anew");
}
