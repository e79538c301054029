//! Topics are deleted while others go on, and while the disk is full, slow or gone.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};

use super::*;
use crate::disk::Disk;
use crate::health::Shortage;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::*;

const NEVER: Duration = Duration::from_secs(3600);

/// Nothing gets to the disk by itself.
fn quiet(site: &Site, disk: Arc<dyn Disk>) -> StoreConfig {
    StoreConfig {
        flush: FlushMode::Async { interval: NEVER, least_pages: 0, thorough_interval: NEVER },
        queue_flush_interval: NEVER,
        queue_flush_thorough_interval: NEVER,
        disk,
        ..site.config()
    }
}

fn open(site: &Site) -> Store {
    Store::open(quiet(site, Arc::clone(&site.disk) as Arc<dyn Disk>)).unwrap()
}

fn put_all(store: &Store, topic: &str, bodies: std::ops::Range<u8>) {
    for n in bodies {
        store.append(&message(topic, 0, &[n], "")).unwrap();
    }
}

fn bodies(store: &Store, topic: &str) -> Vec<u8> {
    read_bodies(store, topic, 0, 0).into_iter().map(|(_, body)| body[0]).collect()
}

fn topic_dir(site: &Site, topic: &str) -> std::path::PathBuf {
    site.dir.path().join("store/consumequeue").join(topic)
}

#[test]
fn nobody_waits_for_the_segment_that_a_deletion_waits_for() {
    let site = Site::new();
    let store = open(&site);
    // Its deletion needs more room than a message.
    let long = "L".repeat(127);
    put_all(&store, &long, 0..3);
    settle(&store);
    let mut sent = 0;
    let mut send = || {
        store.append(&message("Other", 0, &[0], "")).unwrap();
        sent += 1;
    };
    // The next segment is made when half of one is used, and the one after that is never there.
    while store.positions.written() < 2048 {
        send();
    }
    wait_until(|| site.dir.path().join("store/commitlog/00000000000000004096").exists());
    site.disk.segment_hangs.store(true, Ordering::SeqCst);
    while store.positions.written() < 4096 || store.log.hold().room() > 240 {
        send();
    }
    std::thread::scope(|scope| {
        let deletion = scope.spawn(|| store.delete_topic(&long));
        wait_until(|| store.maintenance.writing_out.is_locked());
        store.append(&message("Other", 0, &[0], "")).unwrap();
        settle(&store);
        // What a kill now would leave: nothing has happened yet.
        assert!(!deletion.is_finished() && topic_dir(&site, &long).exists());
        assert_eq!((bodies(&store, &long).len(), bodies(&store, "Other").len()), (3, sent + 1));
        site.disk.segment_hangs.store(false, Ordering::SeqCst);
        assert!(deletion.join().unwrap().unwrap());
    });
    assert!(!topic_dir(&site, &long).exists());
}

#[test]
fn nobody_waits_for_the_sync_of_a_deletion() {
    let site = Site::new();
    let store = open(&site);
    put_all(&store, T, 0..3);
    settle(&store);
    site.disk.sync_hangs.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let deletion = scope.spawn(|| store.delete_topic(T));
        wait_until(|| site.disk.hanging.load(Ordering::SeqCst) > 0 && store.queue_ids(T).is_empty());
        put_all(&store, "Other", 0..3);
        // The deleted one too: it begins anew.
        put_all(&store, T, 10..12);
        settle(&store);
        assert_eq!((bodies(&store, "Other"), bodies(&store, T)), (vec![0, 1, 2], vec![10, 11]));
        assert!(!deletion.is_finished());
        site.disk.sync_hangs.store(false, Ordering::SeqCst);
        assert!(deletion.join().unwrap().unwrap());
    });
    assert_eq!(bodies(&store, T), [10, 11]);
    drop(store);
    assert_eq!(bodies(&open(&site), T), [10, 11]);
}

#[test]
fn a_full_disk_lets_topics_be_deleted() {
    for shortage in [Shortage::Disk, Shortage::Dispatch] {
        let site = Site::new();
        let store = open(&site);
        put_all(&store, T, 0..3);
        settle(&store);
        store.health.disk_full(shortage, site.dir.path(), "full".to_owned());
        store.append(&message(T, 0, b"x", "")).unwrap_err();
        assert!(store.delete_topic(T).unwrap());
        assert!(store.queue_ids(T).is_empty());
        store.health.close();
        store.health.check_own().unwrap_err();
    }
}

#[test]
fn a_topic_that_is_begun_anew_while_unused_ones_are_removed_stays() {
    for (at_last, appends, stays) in
        [(true, true, true), (false, true, true), (true, false, true), (false, false, false)]
    {
        let site = Site::new();
        let store = open(&site);
        put_all(&store, T, 0..3);
        settle(&store);
        let asked = Cell::new(0);
        let keep = |topic: &str| {
            assert_eq!(topic, T);
            asked.set(asked.get() + 1);
            if asked.get() == 2 && appends {
                put_all(&store, T, 3..4);
            }
            asked.get() == 2 && at_last
        };
        let gone = store.clean_queues_except(keep).unwrap();
        assert_eq!((gone.is_empty(), asked.get()), (stays, 2));
        settle(&store);
        let expected = if stays { 0..3 + u8::from(appends) } else { 0..0 };
        assert_eq!(bodies(&store, T), expected.collect::<Vec<_>>());
    }
}

/// The log is as it was before, or as it was after.
#[test]
fn a_power_loss_in_a_deletion_leaves_all_or_nothing() {
    for (record_is_lost, begins_anew) in [(true, false), (true, true), (false, false), (false, true)] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || quiet(&site, Arc::clone(&disk) as Arc<dyn Disk>);
        let store = Store::open(config()).unwrap();
        put_all(&store, T, 0..20);
        put_all(&store, "Other", 0..1);
        settle(&store);
        store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
        // Some that are not known to be in the queue, too.
        put_all(&store, T, 20..25);
        settle(&store);
        store.flusher.flush().unwrap();
        let end = store.watermarks().written.0;
        // The move has got to the disk, and what was asked for did not.
        *disk.fails_after.lock() = Some(2);
        store.delete_topic(T).unwrap_err();
        *disk.fails_after.lock() = None;
        assert!(!topic_dir(&site, T).exists() && store.queue_ids(T).is_empty());
        drop(store);
        if begins_anew {
            std::fs::create_dir_all(topic_dir(&site, T).join("0")).unwrap();
            std::fs::write(topic_dir(&site, T).join("0/00000000000000000000"), [7; 320]).unwrap();
        }
        if record_is_lost {
            let segment = end - end % 4096;
            let file = site.dir.path().join("store/commitlog").join(files::segment_name(segment));
            let mut log = std::fs::read(&file).unwrap();
            log[usize::try_from(end - segment).unwrap()..].fill(0);
            std::fs::write(&file, log).unwrap();
        }
        let store = Store::open(config()).unwrap();
        let expected = if record_is_lost { (0..25).collect() } else { Vec::new() };
        assert_eq!(bodies(&store, T), expected, "record lost: {record_is_lost}, anew: {begins_anew}");
        let next = store.append(&message(T, 0, &[99], "")).unwrap().queue_offset.0;
        assert_eq!(next, expected.len() as u64);
    }
}

#[test]
fn a_deletion_that_could_not_be_finished_holds_the_checkpoint_back() {
    for killed in [false, true] {
        let site = Site::new();
        let mut store = open(&site);
        put_all(&store, T, 0..3);
        put_all(&store, "Other", 0..3);
        settle(&store);
        let save = |store: &Store| store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk));
        save(&store).unwrap();
        site.disk.no_descriptors.store(true, Ordering::SeqCst);
        store.delete_topic(T).unwrap_err();
        assert!(store.queue_ids(T).is_empty());
        put_all(&store, "Other", 3..6);
        settle(&store);
        save(&store).unwrap_err();
        site.disk.no_descriptors.store(false, Ordering::SeqCst);
        if !killed {
            save(&store).unwrap();
            let graves = site.dir.path().join("store/consumequeue/.deleted");
            assert_eq!(["", "topics"].map(|dir| std::fs::read_dir(graves.join(dir)).unwrap().count()), [1, 0]);
        }
        drop(store);
        store = open(&site);
        assert_eq!((bodies(&store, T), bodies(&store, "Other")), (vec![], vec![0, 1, 2, 3, 4, 5]));
        assert_eq!(store.append(&message(T, 0, b"x", "")).unwrap().queue_offset.0, 0);
        assert_eq!(store.queue_ids("Other"), [QueueId(0)]);
    }
}

/// What is behind has the log dispatched again from before the deletion when the log is made shorter.
#[test]
fn a_truncation_brings_no_deleted_topic_back() {
    let site = Site::new();
    let store = open(&site);
    // No directory can be made where a file is.
    std::fs::write(topic_dir(&site, "Bad"), b"").unwrap();
    put_all(&store, "Bad", 0..1);
    put_all(&store, T, 0..3);
    wait_until(|| store.queue_bounds(T, QueueId(0)).is_some_and(|bounds| bounds.max.0 == 3));
    assert!(store.delete_topic(T).unwrap());
    put_all(&store, "Other", 0..1);
    wait_until(|| store.queue_bounds("Other", QueueId(0)).is_some_and(|bounds| bounds.max.0 == 1));
    let end = store.append(&message("Other", 0, &[1], "")).unwrap().end;
    put_all(&store, "Other", 2..3);
    store.truncate(end).unwrap();
    std::fs::remove_file(topic_dir(&site, "Bad")).unwrap();
    store.dispatch_signal.wake();
    settle(&store);
    assert_eq!((bodies(&store, "Bad"), bodies(&store, "Other")), (vec![0], vec![0, 1]));
    assert_eq!(store.queue_bounds(T, QueueId(0)), None);
    assert_eq!(store.append(&message(T, 0, b"anew", "")).unwrap().queue_offset.0, 0);
}

#[test]
fn a_truncation_behind_which_a_topic_was_deleted_brings_nothing_of_it_back() {
    let site = Site::new();
    let store = site.open();
    store.set_replicated(PhysicalOffset(0));
    let ends: Vec<_> = (0..5_u8).map(|body| put(&store, &[body]).end).collect();
    assert!(store.delete_topic(T).unwrap());
    store.truncate(ends[2]).unwrap();
    assert_eq!(put(&store, b"anew").queue_offset.0, 0);
    store.set_replicated(ends[2]);
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q).unwrap_or_default().max.0, 0, "of what was deleted");
    assert_eq!(put(&store, b"next").queue_offset.0, 1);
    store.set_replicated(store.watermarks().written);
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"anew".to_vec()), (1, b"next".to_vec())]);
}

#[test]
fn a_topic_can_be_deleted_and_made_anew() {
    let site = Site::new();
    let store = site.open();
    for body in 0..20_u8 {
        put(&store, &[body]);
    }
    store.append(&message("Other", 0, b"x", "")).unwrap();
    // Not settled: what is not dispatched yet must not bring the queue back.
    assert!(store.delete_topic(T).unwrap());
    assert!(!store.delete_topic(T).unwrap());
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q), None);
    assert!(!site.dir.path().join("store/consumequeue").join(T).exists());
    assert_eq!(put(&store, b"new").queue_offset, QueueOffset(0));
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"new".to_vec())]);
    drop(store);
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0), [(0, b"new".to_vec())], "after a kill too");
    let gone = store.clean_queues_except(|topic| topic != T).unwrap();
    assert_eq!((gone.len(), &*gone[0]), (1, T));
    assert_eq!(store.topics().len(), 1);
    assert_eq!(store.queue_ids("Other"), [Q]);
}

#[test]
fn a_topic_may_be_deleted_under_its_producers() {
    for _ in 0..10 {
        let site = Site::new();
        let store = Arc::new(Store::open(StoreConfig { segment_len: 1 << 20, ..site.config() }).unwrap());
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let round = store.round();
                    for queue in 0..8 {
                        round.append(&message(T, queue, b"of a topic that comes and goes", "")).unwrap();
                    }
                    round.append(&message("Other", 0, b"of one that stays", "")).unwrap();
                    drop(round);
                    sent.fetch_add(1, Ordering::AcqRel);
                }
            });
            for _ in 0..5 {
                let before = sent.load(Ordering::Acquire);
                wait_until(|| sent.load(Ordering::Acquire) > before + 1 || sender.is_finished());
                store.delete_topic(T).unwrap();
            }
            stop.store(true, Ordering::Release);
        });
        settle(&store);
        assert_eq!(read_bodies(&store, "Other", 0, 0).len(), sent.load(Ordering::Acquire));
        put(&store, b"one more");
        assert!(store.delete_topic(T).unwrap());
        for n in 0..40_u8 {
            assert_eq!(put(&store, &[n]).queue_offset, QueueOffset(n.into()));
        }
        settle(&store);
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 40);
        // The files are where they belong, and no others.
        let files = std::fs::read_dir(site.dir.path().join("store/consumequeue").join(T).join("0")).unwrap().count();
        assert_eq!(files, 40_usize.div_ceil(16));
        let graves = site.dir.path().join("store/consumequeue/.deleted");
        assert_eq!(["", "topics"].map(|dir| std::fs::read_dir(graves.join(dir)).unwrap().count()), [1, 0]);
        store.close().unwrap();
    }
}

/// Beside live topics and alone, after a clean stop, a kill and a power loss; and what comes after.
#[test]
fn a_deleted_topic_does_not_come_back() {
    for (beside, stop) in [(false, "close"), (true, "close"), (false, "kill"), (true, "kill"), (true, "power")] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let what = format!("beside others: {beside}, {stop}");
        let mut store = Store::open(quiet(&site, Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
        for n in 0..10_u8 {
            store.append(&message(T, 0, &[n], "KEYS\u{1}k\u{2}")).unwrap();
        }
        for _ in 0..10 {
            if beside {
                store.append(&message("Other", 0, b"o", "")).unwrap();
            }
        }
        settle(&store);
        assert!(store.delete_topic(T).unwrap());
        let begin_anew = |store: &Store, n: u8| {
            assert_eq!(
                store.append(&message(T, 0, &[n], "")).unwrap().queue_offset,
                QueueOffset(u64::from(n)),
                "{what}"
            );
        };
        for n in 0..4 {
            if stop == "close" {
                store.close().unwrap();
            }
            if stop == "power" {
                settle(&store);
                store.flusher.flush().unwrap();
            }
            drop(store);
            if stop == "power" {
                disk.power_loss(&root(&site), || true);
            }
            store = Store::open(quiet(&site, Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
            let bodies: Vec<_> = read_bodies(&store, T, 0, 0).into_iter().map(|(_, body)| body[0]).collect();
            assert_eq!(bodies, (0..n).collect::<Vec<_>>(), "{what}");
            begin_anew(&store, n);
        }
        // And if everything has to be put again.
        store.close().unwrap();
        drop(store);
        std::fs::remove_dir_all(root(&site).join("consumequeue")).unwrap();
        let store = Store::open(quiet(&site, Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
        assert_eq!(read_bodies(&store, T, 0, 0).len(), 4, "{what}");
    }
}

#[test]
fn a_deleted_topic_that_nobody_made_anew_has_no_queue() {
    let site = Site::new();
    let store = site.open();
    store.append(&message(T, 3, b"x", "")).unwrap();
    settle(&store);
    assert!(store.delete_topic(T).unwrap());
    assert!(!store.delete_topic(T).unwrap(), "there is nothing to delete any more");
    drop(store);
    let store = site.open();
    assert_eq!((store.queue_bounds(T, QueueId(3)), store.topics().len()), (None, 0));
}

#[test]
fn nobody_else_writes_what_the_store_notes_of_its_tables() {
    let site = Site::new();
    let store = site.open();
    store.append(&message(T, 0, b"x", "")).unwrap();
    let mut forged = message("RMQ_SYS_TABLE_CHANGES", 0, b"", "DELETED_TOPIC\u{1}TopicT\u{2}");
    forged.sys_flag = ferromq_protocol::message::SysFlag(0x4);
    store.append(&forged).unwrap_err();
    store.append_again(&forged).unwrap_err();
    store.append_batch(&[forged]).unwrap_err();
}
