//! Opening a store: after a clean stop and a kill, without some of its files, by two at once.

use std::path::Path;

use ferromq_protocol::{PhysicalOffset, QueueOffset};

use super::*;
use crate::scripted_disk::ScriptedDisk;
use crate::testing::*;
use crate::{Boundary, Disk, Effort, ReadStatus};

fn put_with(store: &Store, properties: &str) {
    store.append(&message(T, 0, b"x", properties)).unwrap();
}

#[test]
fn clean_stops_and_kills_lose_nothing() {
    for clean in [true, false] {
        let site = Site::new();
        let mut sent = Vec::new();
        for round in 0..3_u8 {
            let store = site.open();
            for number in 0..60_u8 {
                let key = format!("KEYS\u{1}r{round} n{number}\u{2}UNIQ_KEY\u{1}u{round}-{number}\u{2}");
                let body = [round, number];
                let placed = store.append(&message(T, 0, &body, &key)).unwrap();
                assert_eq!(placed.queue_offset.0, sent.len() as u64);
                sent.push((placed.queue_offset.0, body.to_vec()));
                site.advance(10);
            }
            if clean {
                store.close().unwrap();
            }
        }
        let store = site.open();
        assert_eq!(read_bodies(&store, T, 0, 0), sent, "clean: {clean}");
        for (round, number) in [(0, 0), (0, 59), (1, 30), (2, 59)] {
            assert_eq!(query_bodies(&store, T, &format!("u{round}-{number}")), [[round, number]], "clean: {clean}");
        }
        assert_eq!(query_bodies(&store, T, "n7").len(), 3);
        assert_eq!(query_bodies(&store, T, "r1").len(), 60);
        let outcome = store.query(T, "u2-59", 64, 0, i64::MAX, Effort::Full).unwrap();
        assert_eq!(outcome.last_update_timestamp, START_MS + 1790);
        assert_eq!(PhysicalOffset(outcome.last_update_offset.0), outcome.last_update_offset);
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let site = Site::new();
    let store = site.open();
    for body in 0..5_u8 {
        store.append(&message(T, 0, &[body; 20], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap();
    }
    settle(&store);
    let end = store.watermarks().written;
    drop(store);
    // Nobody vouches for any of it.
    std::fs::remove_file(site.dir.path().join("store/checkpoint")).unwrap();
    // The last record's body is damaged, and something old-looking follows.
    let mut bytes = std::fs::read(log_file(&site)).unwrap();
    let whole = bytes[..end.0 as usize].to_vec();
    let len = whole.len() / 5;
    bytes[whole.len() - len + 90] ^= 1;
    bytes[whole.len()..whole.len() + len].copy_from_slice(&whole[..len]);
    std::fs::write(log_file(&site), &bytes).unwrap();
    let store = site.open();
    assert_eq!(store.watermarks().written.0, 4 * len as u64);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, QueueOffset(4));
    assert_eq!(query_bodies(&store, T, "k4"), Vec::<Vec<u8>>::new());
    assert_eq!(query_bodies(&store, T, "k3"), [[3; 20]]);
    let next = store.append(&message(T, 0, b"new", "KEYS\u{1}k5\u{2}")).unwrap();
    assert_eq!(next.queue_offset, QueueOffset(4));
    settle(&store);
    assert_eq!(query_bodies(&store, T, "k5"), [b"new"]);
    let file = std::fs::read(log_file(&site)).unwrap();
    assert!(file[next.end.0 as usize..].iter().all(|byte| *byte == 0), "nothing old is left behind the end");
}

#[test]
fn queues_and_index_are_projections() {
    let site = Site::new();
    let store = site.open();
    for body in 0..50_u8 {
        store.append(&message(T, u32::from(body % 3), &[body; 100], &format!("KEYS\u{1}k{body}\u{2}"))).unwrap();
    }
    settle(&store);
    let before: Vec<_> = (0..3).map(|queue| read_bodies(&store, T, queue, 0)).collect();
    store.close().unwrap();
    for lost in ["consumequeue", "index"] {
        std::fs::remove_dir_all(site.dir.path().join("store").join(lost)).unwrap();
        let store = site.open();
        let after: Vec<_> = (0..3).map(|queue| read_bodies(&store, T, queue, 0)).collect();
        assert_eq!(after, before, "{lost}");
        assert_eq!(query_bodies(&store, T, "k0"), [[0; 100]], "{lost}");
        assert_eq!(query_bodies(&store, T, "k49"), [[49; 100]], "{lost}");
        store.close().unwrap();
    }
}

#[test]
fn queues_lost_in_a_crash_are_rebuilt_from_the_first_message() {
    let site = Site::new();
    let store = site.open();
    for body in 0..200_u8 {
        store.append(&message(T, 0, &[body; 100], "")).unwrap();
        site.advance(1_000);
    }
    settle(&store);
    // A clean stop writes a checkpoint that vouches for all but the last segments.
    store.close().unwrap();
    assert!(site.dir.path().join("store/commitlog").read_dir().unwrap().count() > 3);
    std::fs::write(site.dir.path().join("store/abort"), "1").unwrap();
    std::fs::remove_dir_all(site.dir.path().join("store/consumequeue")).unwrap();
    let store = site.open();
    let bodies: Vec<_> = (0..200_u8).map(|body| (u64::from(body), vec![body; 100])).collect();
    assert_eq!(read_bodies(&store, T, 0, 0), bodies);
}

#[test]
fn an_open_that_is_told_to_stop_leaves_what_a_kill_would() {
    let site = Site::new();
    let store = site.open();
    for n in 0..100_u8 {
        put(&store, &[n]);
    }
    settle(&store);
    store.close().unwrap();
    let told = |site: &Site| {
        let config = site.config();
        config.interrupt.raise();
        matches!(Store::open(config), Err(OpenError::Interrupted))
    };
    assert!(told(&site), "between queues");
    let queues = site.dir.path().join("store/consumequeue");
    std::fs::remove_dir_all(&queues).unwrap();
    assert!(told(&site), "between records");
    // Cut short anywhere: the next one does it all.
    let store = site.open();
    assert_eq!(read_bodies(&store, T, 0, 0).len(), 100);
    drop(store);
    assert!(told(&site), "after a kill too");
    assert!(site.dir.path().join("store/abort").exists());
    let guarded = site.config();
    drop(guarded.interrupt.on_drop());
    assert!(matches!(Store::open(guarded), Err(OpenError::Interrupted)));
    let spared = site.config();
    spared.interrupt.on_drop().spare();
    assert_eq!(read_bodies(&Store::open(spared).unwrap(), T, 0, 0).len(), 100);
}

#[test]
fn the_first_segments_may_be_gone() {
    let site = Site::new();
    let store = site.open();
    for body in 0..30_u8 {
        put(&store, &[body; 500]);
        site.advance(1000);
    }
    settle(&store);
    store.close().unwrap();
    std::fs::remove_file(log_file(&site)).unwrap();
    let store = site.open();
    let bounds = store.queue_bounds(T, Q).unwrap();
    assert!(bounds.min > QueueOffset(0) && bounds.max == QueueOffset(30));
    assert_eq!(store.watermarks().min, PhysicalOffset(4096));
    assert_eq!(status(&store, 0), (ReadStatus::OffsetTooSmall, bounds.min.0));
    assert_eq!(store.earliest_store_time(T, Q, Effort::Full).unwrap(), Some(START_MS + bounds.min.as_i64() * 1000));
    assert_eq!(
        store.earliest_message_time(Effort::Full).unwrap(),
        store.earliest_store_time(T, Q, Effort::Full).unwrap()
    );
    let read = read_bodies(&store, T, 0, bounds.min.0);
    assert_eq!(read.first().unwrap().1[0], u8::try_from(bounds.min.0).unwrap());
    assert_eq!(store.offset_by_time(T, Q, 0, Boundary::Lower, Effort::Full).unwrap(), bounds.min);
}

#[test]
fn the_index_file_made_ahead_is_used_or_gone() {
    let site = Site::new();
    let files = || std::fs::read_dir(site.dir.path().join("store/index")).unwrap().count();
    let put_keys = |store: &Store, keys: std::ops::Range<u32>| {
        for key in keys {
            put_with(store, &format!("KEYS\u{1}k{key}\u{2}"));
        }
        settle(store);
    };
    let store = site.open();
    put_keys(&store, 0..50);
    wait_until(|| files() == 2);
    // As killed: the empty file stays and holds nothing.
    drop(store);
    let store = site.open();
    put_keys(&store, 50..150);
    for key in [0, 49, 50, 149] {
        assert_eq!(
            store.query(T, &format!("k{key}"), 10, 0, i64::MAX, Effort::Full).unwrap().messages.len(),
            1,
            "k{key}"
        );
    }
    put_keys(&store, 150..180);
    wait_until(|| files() == 4);
    store.close().unwrap();
    assert_eq!(files(), 3, "a clean stop leaves no empty file");
}

#[test]
fn what_a_store_does_not_open() {
    let site = Site::new();
    let store = site.open();
    let error = Store::open(site.config()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }) && error.to_string().contains("storePathRootDir"), "{error}");
    put(&store, b"x");
    settle(&store);
    store.close().unwrap();
    let error = Store::open(StoreConfig { segment_len: 8192, ..site.config() }).unwrap_err();
    assert!(error.to_string().contains("mappedFileSizeCommitLog"), "{error}");
    let error = Store::open(StoreConfig { queue_file_entries: 17, ..site.config() }).unwrap_err();
    assert!(error.to_string().contains("mappedFileSizeConsumeQueue"), "{error}");
    let error = Store::open(StoreConfig { segment_len: 1, ..site.config() }).unwrap_err();
    assert!(matches!(error, OpenError::Config { .. }), "{error}");
    let error = Store::open(StoreConfig { root: "/proc/ferromq".into(), ..site.config() }).unwrap_err();
    assert!(matches!(&error, OpenError::NotWritable { path, .. } if path.ends_with("ferromq")), "{error}");
    assert!(error.to_string().contains("/proc/ferromq"), "{error}");
    // None of these harmed it.
    assert_eq!(read_bodies(&site.open(), T, 0, 0).len(), 1);
}

#[test]
fn two_stores_share_no_directory() {
    let site = Site::new();
    let log = site.dir.path().join("log");
    let at = |root: &str, log: &Path| StoreConfig {
        root: site.dir.path().join(root),
        commit_log_dirs: vec![log.to_owned()],
        ..site.config()
    };
    let refused_at = |config: StoreConfig| match Store::open(config) {
        Err(OpenError::Locked { path }) => path,
        other => panic!("{:?}", other.map(|_| "it opened")),
    };
    let store = Store::open(at("one", &log)).unwrap();
    assert_eq!(refused_at(at("two", &log)), log);
    // By another name, and where the other has its queues.
    let link = site.dir.path().join("link");
    std::os::unix::fs::symlink(&log, &link).unwrap();
    assert_eq!(refused_at(at("two", &link)), link);
    let queues = site.dir.path().join("three/consumequeue");
    std::fs::create_dir(site.dir.path().join("three")).unwrap();
    std::os::unix::fs::symlink(site.dir.path().join("one/consumequeue"), &queues).unwrap();
    assert_eq!(refused_at(at("three", &site.dir.path().join("another"))), queues);
    store.append(&message(T, 0, b"x", "")).unwrap();
    store.close().unwrap();
    Store::open(at("two", &log)).unwrap();
}

/// More of them than one thread syncs and looks at.
#[test]
fn many_new_queues_are_on_the_disk_after_a_stop_and_after_a_start_that_follows_a_kill() {
    const COUNT: u32 = 400;
    for clean in [true, false] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || StoreConfig { disk: Arc::clone(&disk) as Arc<dyn Disk>, segment_len: 1 << 17, ..site.config() };
        let topic = |queue: u32| format!("T{}", queue / 8);
        let store = Store::open(config()).unwrap();
        for queue in 0..COUNT {
            store.append(&message(&topic(queue), queue % 8, &queue.to_be_bytes(), "")).unwrap();
        }
        settle(&store);
        if clean {
            store.close().unwrap();
        }
        drop(store);
        if !clean {
            drop(Store::open(config()).unwrap());
        }
        disk.power_loss(&root(&site), || true);
        let store = Store::open(config()).unwrap();
        for queue in 0..COUNT {
            let found = read_bodies(&store, &topic(queue), queue % 8, 0);
            assert_eq!(found, [(0, queue.to_be_bytes().to_vec())], "{queue}, clean: {clean}");
        }
    }
}

/// The list of how segments begin is written now and then; the checkpoint knows where the log does.
#[test]
fn the_first_files_are_missed_though_a_kill_came_before_they_were_listed() {
    let site = Site::new();
    let store = site.open();
    while store.watermarks().written.0 <= 2 * 4096 {
        put(&store, &[7; 1000]);
    }
    settle(&store);
    drop(store);
    let first = root(&site).join("commitlog/00000000000000000000");
    std::fs::remove_file(&first).unwrap();
    let lines = logged(|| drop(site.open()));
    let named = format!("path={} count=1", first.display());
    let is_it = |line: &String| line.contains("the first files of the commit log are gone") && line.contains(&named);
    assert!(lines.iter().any(is_it), "{lines:#?}");
}
