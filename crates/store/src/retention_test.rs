//! What goes with old segments, what does not, and what is carried on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::message::Record;
use ferromq_protocol::{PhysicalOffset, QueueOffset};

use super::*;
use crate::disk::Disk;
use crate::error::AppendError;
use crate::health::Shortage;
use crate::keepers::Keeper;
use crate::retention::{Hold, Progress};
use crate::retention_rules::{Hours, RetentionRules};
use crate::scripted_disk::ScriptedDisk;
use crate::testing::*;
use crate::{AllMessages, Boundary, Effort, ReadLimits, ReadStatus};

const HOUR_MS: i64 = 3_600_000;
const SEGMENT: u64 = 4096;
const NEVER: Duration = Duration::from_secs(3600);

/// Nothing goes but what a test says.
fn rules() -> RetentionRules {
    RetentionRules { reserved_time: Duration::from_secs(3600), interval: NEVER, ..rules_by_hand() }
}

/// Nothing gets to the disk by itself.
fn config(site: &Site, disk: Arc<dyn Disk>) -> StoreConfig {
    let flush = FlushMode::Async { interval: NEVER, least_pages: 0, thorough_interval: NEVER };
    StoreConfig {
        retention: rules(),
        flush,
        queue_flush_interval: NEVER,
        queue_flush_thorough_interval: NEVER,
        disk,
        ..site.config()
    }
}

fn open(site: &Site) -> Store {
    Store::open(config(site, Arc::clone(&site.disk) as Arc<dyn Disk>)).unwrap()
}

/// A round, as the thread goes when it is told to begin.
fn go_round(store: &Store) {
    store.retention.go_round(&mut Progress::default());
}

fn keep_segments(store: &Store, count: u64) {
    let rules = RetentionRules { reserved_bytes: Some(count * SEGMENT), batch_max: 1000, ..rules() };
    store.change_retention(rules);
    go_round(store);
}

/// Messages of 1000 bytes: three and some to a segment. Gives where each is.
fn put_many(store: &Store, topic: &str, count: u16) -> Vec<PhysicalOffset> {
    let body = |n: u16| [&n.to_be_bytes()[..], &[7; 998]].concat();
    let key = |n: u16| format!("KEYS\u{1}k{n}\u{2}");
    (0..count).map(|n| store.append(&message(topic, 0, &body(n), &key(n))).unwrap().physical_offset).collect()
}

fn log_min(store: &Store) -> u64 {
    store.watermarks().min.0
}

fn bounds(store: &Store, topic: &str) -> (u64, u64) {
    let bounds = store.queue_bounds(topic, Q).unwrap();
    (bounds.min.0, bounds.max.0)
}

fn file_names(dir: PathBuf) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Where the files of the log begin, but for the one made ahead.
fn log_files(site: &Site, store: &Store) -> Vec<u64> {
    let names = file_names(root(site).join("commitlog"));
    names.iter().map(|name| name.parse().unwrap()).filter(|start| *start < store.watermarks().written.0).collect()
}

/// Offsets that consumers can read, from 0 on.
fn offsets(store: &Store, topic: &str) -> Vec<u64> {
    read_bodies(store, topic, 0, 0).into_iter().map(|(offset, _)| offset).collect()
}

#[test]
fn a_full_disk_takes_what_is_carried_on() {
    for shortage in [Shortage::Disk, Shortage::Dispatch] {
        let site = Site::new();
        let store = open(&site);
        put(&store, b"old");
        store.health.disk_full(shortage, site.dir.path(), "full".to_owned());
        assert!(matches!(store.append_again(&message(T, 0, b"x", "")), Err(AppendError::DiskFull { .. })));
        let carried = store.append_carried(&message(T, 0, b"carried", "")).unwrap();
        settle(&store);
        assert_eq!((carried.queue_offset.0, status(&store, 1).1), (1, 2));
        // It was taken once: a limit that became lower since does not count.
        store.limit_message_len(1);
        store.append_carried(&message(T, 0, b"carried", "")).unwrap();
        // But not where the bytes are not there, or nobody knows what the disk holds.
        site.disk.full.store(true, Ordering::SeqCst);
        let refused = loop {
            if let Err(refused) = store.append_carried(&message(T, 0, &[0; 1000], "")) {
                break refused;
            }
        };
        assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
        site.disk.full.store(false, Ordering::SeqCst);
        store.health.poison("a sync failed".to_owned());
        let poisoned = store.append_carried(&message(T, 0, b"x", ""));
        assert!(matches!(poisoned, Err(AppendError::Poisoned { .. })), "{poisoned:?}");
    }
}

/// statvfs fails: sends are refused or taken as before, what is old goes at any hour, and nothing goes that is not old.
#[test]
fn a_disk_that_cannot_be_asked_changes_nothing_but_the_hour() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 20);
    settle(&store);
    let (queues, log) = (root(&site), root(&site).join("commitlog"));
    let ask = |mute: &[&PathBuf], used: f64| {
        *site.disk.mute.lock() = mute.iter().map(|dir| (*dir).clone()).collect();
        // No segment goes for it: the disk counts as full, and forced deletion is off.
        *site.disk.used.lock() = vec![(queues.clone(), used)];
        go_round(&store);
        store.check_writable().is_ok()
    };
    store.change_retention(RetentionRules { forced: false, ..rules() });
    assert!(ask(&[], 0.5));
    assert!(ask(&[&queues, &log], 0.95), "nothing is known of it");
    let said = |mute: &[&PathBuf]| logged(|| assert!(ask(mute, 0.5))).len();
    assert_eq!([said(&[&queues, &log]), said(&[&log]), said(&[]), said(&[]), said(&[&log])], [0, 0, 1, 0, 1], "once");
    assert!(!ask(&[], 0.95));
    for mute in [&[&queues, &log][..], &[&queues], &[&log]] {
        assert!(!ask(mute, 0.5), "{mute:?} cannot be asked");
    }
    // What can be asked is full; the other may be.
    assert!(ask(&[], 0.5));
    assert!(!ask(&[&log], 0.95));
    assert!(!ask(&[&log], 0.5));
    assert!(ask(&[], 0.5));
    // Young ones stay, whatever may be deleted by force; old ones go.
    store.change_retention(RetentionRules { reserved_time: Duration::from_secs(1), ..rules() });
    assert!(ask(&[&queues, &log], 0.5));
    assert_eq!(log_min(&store), 0);
    site.advance(2000);
    put_many(&store, T, 4);
    settle(&store);
    assert!(ask(&[], 0.5) && log_min(&store) == 0, "it is not their hour");
    assert!(ask(&[&queues, &log], 0.5));
    assert!(log_min(&store) > 0);
}

/// Of several disks of the log the least full counts, and one that cannot be asked may be that.
#[test]
fn nothing_goes_by_force_because_the_least_full_disk_cannot_be_asked() {
    let site = Site::new();
    let (one, other) = (site.dir.path().join("one"), site.dir.path().join("other"));
    let disk = Arc::clone(&site.disk) as Arc<dyn Disk>;
    let store =
        Store::open(StoreConfig { commit_log_dirs: vec![one.clone(), other.clone()], ..config(&site, disk) }).unwrap();
    put_many(&store, T, 20);
    settle(&store);
    *site.disk.used.lock() = vec![(one.clone(), 0.5), (other.clone(), 0.95)];
    go_round(&store);
    site.disk.mute.lock().push(one);
    go_round(&store);
    assert!(store.check_writable().is_ok() && log_min(&store) == 0);
    // Where the other has room, the log has.
    *site.disk.used.lock() = vec![(other, 0.6)];
    go_round(&store);
    assert!(store.check_writable().is_ok() && log_min(&store) == 0);
}

#[test]
fn old_segments_go_in_their_hour_by_hand_or_from_a_full_disk() {
    for way in ["hour", "by hand", "disk"] {
        let site = Site::new();
        let store = open(&site);
        let mut begins = Vec::new();
        while begins.len() < 5 {
            let physical = put_many(&store, T, 1)[0].0;
            if physical.is_multiple_of(SEGMENT) {
                begins.push(physical);
                // Each segment's last message is stored 20 minutes after the last one of the segment before.
                site.advance(HOUR_MS / 3);
            }
        }
        settle(&store);
        site.advance(HOUR_MS / 6);
        go_round(&store);
        assert_eq!(log_min(&store), 0, "{way}: not their hour");
        let now = site.now.load(Ordering::SeqCst);
        match way {
            "hour" => store.change_retention(RetentionRules { hours: Hours::at(now), ..rules() }),
            "by hand" => store.delete_expired(),
            _ => *site.disk.usage.lock() = Some(|_| 0.76),
        }
        go_round(&store);
        // The first messages of segments 1 to 4 are 90, 70, 50 and 30 minutes old.
        assert_eq!(log_min(&store), 2 * SEGMENT, "{way}");
        assert_eq!(log_files(&site, &store), [2 * SEGMENT, 3 * SEGMENT, 4 * SEGMENT]);
        if way == "hour" {
            store.change_retention(RetentionRules { hours: Hours::at(now + HOUR_MS), ..rules() });
        }
        site.advance(2 * HOUR_MS);
        go_round(&store);
        let last = if way == "hour" { 2 * SEGMENT } else { 4 * SEGMENT };
        assert_eq!(log_min(&store), last, "{way}: the last one stays");
        assert!(store.earliest_message_time(Effort::Full).unwrap().is_some());
    }
}

#[test]
fn a_deletion_by_hand_ends() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 10);
    settle(&store);
    store.delete_expired();
    for _ in 0..20 {
        go_round(&store);
    }
    site.advance(2 * HOUR_MS);
    go_round(&store);
    assert_eq!(log_min(&store), 0);
    store.delete_expired();
    go_round(&store);
    assert_eq!(log_min(&store), 3 * SEGMENT);
}

#[test]
fn a_deletion_by_hand_outlasts_what_is_needed() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 10);
    settle(&store);
    site.advance(2 * HOUR_MS);
    let timers = Needs::from("timers", 0);
    store.add_keeper(Arc::clone(&timers) as Arc<dyn Keeper>);
    store.delete_expired();
    let mut progress = Progress::default();
    for _ in 0..50 {
        store.retention.go_round(&mut progress);
    }
    assert_eq!(log_min(&store), 0);
    timers.from.store(u64::MAX, Ordering::SeqCst);
    store.retention.go_round(&mut progress);
    assert_eq!(log_min(&store), 3 * SEGMENT);
}

#[test]
fn a_disk_that_is_too_full_takes_what_is_young() {
    // A tenth for each segment, also for one that has no name any more as long as somebody has it.
    let by_segments: UsedRatio = |dir| {
        if !dir.ends_with("commitlog") {
            return 0.1;
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let nameless = maps.lines().filter_map(|line| {
            let path = line.split_once('/')?.1.strip_suffix(" (deleted)")?;
            format!("/{path}").starts_with(dir.to_str().unwrap()).then_some(path)
        });
        let nameless: BTreeSet<&str> = nameless.collect();
        (std::fs::read_dir(dir).unwrap().count() + nameless.len()) as f64 / 10.0
    };
    for forced in [true, false] {
        let site = Site::new();
        let store = open(&site);
        put_many(&store, T, 26);
        settle(&store);
        let count = || std::fs::read_dir(root(&site).join("commitlog")).unwrap().count();
        // With the one that is made ahead.
        wait_until(|| count() == 10);
        *site.disk.usage.lock() = Some(by_segments);
        store.change_retention(RetentionRules { forced, ..rules() });
        wait_until(|| store.check_writable().is_err());
        go_round(&store);
        if forced {
            assert_eq!(count(), 8, "no more than it takes");
            store.check_writable().unwrap();
            assert_eq!(offsets(&store, T).first(), Some(&bounds(&store, T).0));
        } else {
            assert_eq!(count(), 10, "all is young");
            let mut progress = Progress::default();
            let mut warnings = || {
                let lines = logged(|| {
                    store.retention.go_round(&mut progress);
                });
                let why = Hold::Young.to_string();
                lines.iter().filter(|line| line.contains("oldest log file stays") && line.contains(&why)).count()
            };
            assert_eq!((warnings(), warnings()), (1, 0), "said once");
            assert!(matches!(store.check_writable(), Err(AppendError::DiskFull { .. })));
            *site.disk.usage.lock() = Some(|_| 0.89);
            go_round(&store);
            store.check_writable().unwrap();
        }
    }
}

#[test]
fn an_open_does_not_miss_what_went_from_a_queue_that_rests() {
    for orderly in [true, false] {
        let site = Site::new();
        let store = open(&site);
        put_many(&store, T, 40);
        settle(&store);
        let upkeep = || {
            store.maintenance.flush_all().unwrap();
            store.checkpoint.save(&*store.config.disk).unwrap();
        };
        upkeep();
        let files = || file_names(root(&site).join("consumequeue").join(T).join("0"));
        assert_eq!(files().len(), 3);
        keep_segments(&store, 4);
        assert_eq!((files().len(), bounds(&store, T).1), (2, 40));
        let min = bounds(&store, T).0;
        // Something else comes, and all is on the disk.
        put_many(&store, "Other", 1);
        settle(&store);
        upkeep();
        if orderly {
            store.close().unwrap();
        }
        drop(store);
        let mut bounds_then = (0, 0);
        let lines = logged(|| bounds_then = bounds(&open(&site), T));
        assert!(
            lines
                .iter()
                .all(|line| !line.starts_with("ERROR") && (line.starts_with("INFO") || !line.contains("queue"))),
            "{lines:?}"
        );
        assert_eq!(bounds_then, (min, 40));
    }
}

/// What is deleted or went with the log is listed no longer than it takes to write a list; an open after that misses nothing.
#[test]
fn an_open_does_not_miss_a_topic_that_was_deleted() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 4);
    put_many(&store, "Other", 4);
    settle(&store);
    store.maintenance.flush_all().unwrap();
    store.checkpoint.save(&*store.config.disk).unwrap();
    let list = || std::fs::read(root(&site).join("inventory")).unwrap();
    let before = list();
    assert!(store.delete_topic(T).unwrap());
    wait_until(|| list() != before);
    drop(store);
    // No segment can begin there.
    std::fs::write(root(&site).join("commitlog/18446744073709550592"), [1; 10]).unwrap();
    let lines = logged(|| drop(open(&site)));
    assert!(lines.iter().all(|line| !line.starts_with("ERROR") && !line.contains("whole log")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("passed over")), "{lines:?}");
}

#[test]
fn the_log_keeps_to_its_length() {
    let site = Site::new();
    let store = open(&site);
    let places = put_many(&store, T, 20);
    settle(&store);
    let count = log_files(&site, &store).len() as u64;
    let few = RetentionRules { reserved_bytes: Some(2 * SEGMENT), batch_max: 1, ..rules() };
    store.change_retention(few.clone());
    go_round(&store);
    assert_eq!(log_min(&store), SEGMENT, "so many in one round");
    store.change_retention(RetentionRules { batch_max: 10, ..few });
    go_round(&store);
    assert_eq!(log_min(&store), (count - 2) * SEGMENT);
    let (gone, there): (Vec<_>, Vec<_>) = places.iter().enumerate().partition(|(_, at)| at.0 < log_min(&store));
    assert_eq!(offsets(&store, T), there.iter().map(|(n, _)| *n as u64).collect::<Vec<_>>());
    assert_eq!(bounds(&store, T), (gone.len() as u64, 20));
    // What asks for the beginning sees where it is now.
    let min = QueueOffset(gone.len() as u64);
    assert_eq!(status(&store, 0), (ReadStatus::OffsetTooSmall, min.0));
    assert_eq!(store.offset_by_time(T, Q, 0, Boundary::Lower, Effort::Full).unwrap(), min);
    assert_eq!(store.offset_by_time(T, Q, 0, Boundary::Upper, Effort::Full).unwrap(), min);
    assert_eq!(store.queue_entry(T, Q, QueueOffset(0), Effort::Full).unwrap(), None);
    assert!(store.earliest_store_time(T, Q, Effort::Full).unwrap().is_some());
    for (n, at) in gone {
        assert!(store.is_gone(*at) && store.message_at(*at, Effort::Full).unwrap().is_none());
        assert!(query_bodies(&store, T, &format!("k{n}")).is_empty());
    }
    for (n, at) in there {
        assert!(!store.is_gone(*at) && store.message_at(*at, Effort::Full).unwrap().is_some());
        assert_eq!(query_bodies(&store, T, &format!("k{n}")).len(), 1);
    }
    // A queue file has 16 entries, an index file 63: nothing of them is left over.
    keep_segments(&store, 1);
    assert_eq!(file_names(root(&site).join("consumequeue").join(T).join("0")), [files::segment_name(16 * 20)]);
}

#[test]
fn index_files_follow() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 200);
    settle(&store);
    let index_files = || file_names(root(&site).join("index")).len();
    let before = index_files();
    keep_segments(&store, 3);
    // Three of 63 entries are full, and all before the log now.
    assert_eq!(before - index_files(), 3);
    assert_eq!(query_bodies(&store, T, "k199").len(), 1);
    keep_segments(&store, 1);
    drop(store);
    let store = open(&site);
    assert_eq!(query_bodies(&store, T, "k199").len(), 1);
}

/// Of pages of 64 bytes, the last one of the queue is on the disk and the one before it is not, as far as it was not synced: what is left
/// of the entry across their border looks like that of a message at the log's beginning, which is gone for long.
#[test]
fn a_torn_entry_of_a_queue_is_no_message_that_it_had() {
    for (synced, is_in_the_log) in [(6, false), (6, true), (3, false), (3, true)] {
        let site = Site::new();
        // An open that looks for the end first looks at entry 6.
        let config =
            || StoreConfig { queue_file_entries: 13, ..config(&site, Arc::<ScriptedDisk>::default() as Arc<dyn Disk>) };
        let open = || Store::open(config()).unwrap();
        let store = open();
        put_many(&store, T, synced);
        put_many(&store, "Other", 7 - synced);
        settle(&store);
        keep_segments(&store, 1);
        assert!(log_min(&store) > 0);
        let unsynced = put_many(&store, T, 7 - synced);
        settle(&store);
        drop(store);
        let zero = |path: PathBuf, range: std::ops::Range<usize>| {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[range].fill(0);
            std::fs::write(&path, bytes).unwrap();
        };
        let lost = usize::from(synced) * 20..128;
        zero(root(&site).join("consumequeue").join(T).join("0").join(files::segment_name(0)), lost);
        for PhysicalOffset(physical) in unsynced.into_iter().filter(|_| !is_in_the_log) {
            let in_log = root(&site).join("commitlog").join(files::segment_name(physical - physical % SEGMENT));
            zero(in_log, (physical % SEGMENT) as usize..SEGMENT as usize);
        }
        let trace = TraceLog::default();
        let store = trace.capture(open);
        let next = store.append(&message(T, 0, b"next", "")).unwrap().queue_offset.0;
        let expected = if is_in_the_log { 7 } else { synced.into() };
        assert_eq!(next, expected, "{synced} synced, in the log: {is_in_the_log}: {}", trace.text());
        assert!(!trace.text().contains("ERROR"), "{}", trace.text());
    }
}

#[test]
fn a_queue_that_lost_all_its_messages_knows_its_next_offset() {
    for stop in ["close", "kill", "power"] {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let open = || Store::open(config(&site, Arc::clone(&disk) as Arc<dyn Disk>)).unwrap();
        let store = open();
        for n in 0..37_u8 {
            store.append(&message("Idle", 0, &[n], "")).unwrap();
        }
        put_many(&store, T, 10);
        settle(&store);
        keep_segments(&store, 1);
        assert_eq!(bounds(&store, "Idle"), (37, 37));
        assert_eq!(file_names(root(&site).join("consumequeue/Idle/0")), [files::segment_name(32 * 20)]);
        let mut store = Some(store);
        for _ in 0..2 {
            if stop == "close" {
                store.as_ref().unwrap().close().unwrap();
            }
            drop(store.take());
            if stop == "power" {
                disk.power_loss(&root(&site), || true);
            }
            store = Some(open());
            assert_eq!(bounds(store.as_ref().unwrap(), "Idle"), (37, 37), "{stop}");
        }
        let store = store.unwrap();
        assert_eq!(store.append(&message("Idle", 0, b"x", "")).unwrap().queue_offset.0, 37);
        settle(&store);
        assert_eq!(offsets(&store, "Idle"), [37]);
    }
}

/// Somebody who needs messages, until told otherwise.
#[derive(Debug)]
struct Needs {
    name: &'static str,
    /// [`u64::MAX`] when it needs nothing.
    from: AtomicU64,
    asked: parking_lot::Mutex<BTreeSet<u64>>,
}

impl Needs {
    fn from(name: &'static str, from: u64) -> Arc<Needs> {
        Arc::new(Needs { name, from: AtomicU64::new(from), asked: parking_lot::Mutex::default() })
    }
}

impl Keeper for Needs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        self.asked.lock().insert(end.0);
        let from = self.from.load(Ordering::SeqCst);
        (from < end.0).then_some(PhysicalOffset(from))
    }
}

#[test]
fn what_somebody_needs_stays_and_the_log_says_so() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 20);
    settle(&store);
    let timers = Needs::from("timers", SEGMENT + 100);
    let levels = Needs::from("delay levels", 0);
    store.add_keeper(Arc::clone(&timers) as Arc<dyn Keeper>);
    store.add_keeper(Arc::clone(&levels) as Arc<dyn Keeper>);
    // However full the disk is.
    *site.disk.usage.lock() = Some(|_| 0.95);
    let mut progress = Progress::default();
    let mut round = || {
        let mut pause = NEVER;
        let lines = logged(|| pause = store.retention.go_round(&mut progress));
        let waits = lines.is_empty() || lines.iter().any(|line| line.contains("stays"));
        assert!(!waits || pause <= Duration::from_secs(1), "asked again soon");
        lines.into_iter().filter(|line| line.contains("oldest log file")).collect::<Vec<_>>()
    };
    let lines = round();
    assert_eq!((lines.len(), log_min(&store)), (1, 0));
    assert!(lines[0].contains("00000000000000000000") && lines[0].contains("needed_by=\"delay levels\""), "{lines:?}");
    assert!(lines[0].contains("from=0"), "{lines:?}");
    assert!(round().is_empty(), "said once");
    levels.from.store(u64::MAX, Ordering::SeqCst);
    let lines = round();
    assert_eq!((lines.len(), log_min(&store)), (2, SEGMENT), "{lines:?}");
    assert!(lines[0].contains("deleted") && lines[0].contains("needed_by=\"delay levels\" held_up_ms="), "{lines:?}");
    assert!(
        lines[1].contains("needed_by=\"timers\"") && lines[1].contains(&format!("from={}", SEGMENT + 100)),
        "{lines:?}"
    );
    assert_eq!(
        *timers.asked.lock(),
        BTreeSet::from([SEGMENT, 2 * SEGMENT]),
        "the ends of the segments, before each goes"
    );
    // Who is gone needs nothing.
    drop(timers);
    let lines = round();
    assert!(lines[0].contains("deleted") && lines[0].contains("needed_by=\"timers\""), "{lines:?}");
    assert!(lines[1..].iter().all(|line| !line.contains("needed_by")), "{lines:?}");
    assert_eq!(log_files(&site, &store).len(), 1);
}

#[test]
fn nothing_goes_before_all_who_need_it_are_known() {
    let site = Site::new();
    let config = StoreConfig {
        retention: RetentionRules { reserved_bytes: Some(1), interval: Duration::from_millis(1), ..rules() },
        ..config(&site, Arc::clone(&site.disk) as Arc<dyn Disk>)
    };
    let store = Store::open(config).unwrap();
    put_many(&store, T, 10);
    settle(&store);
    // A round of the thread has been.
    *site.disk.usage.lock() = Some(|_| 0.91);
    wait_until(|| store.check_writable().is_err());
    assert_eq!(log_min(&store), 0);
    store.begin_retention();
    wait_until(|| log_min(&store) == 3 * SEGMENT);
    wait_until(|| bounds(&store, T).0 == 9);
}

#[test]
fn the_log_says_why_its_first_segment_stays() {
    let site = Site::new();
    let store = open(&site);
    let mut progress = Progress::default();
    let mut reasons = || {
        let lines = logged(|| {
            store.retention.go_round(&mut progress);
        });
        lines.into_iter().filter(|line| line.contains("oldest log file stays")).collect::<Vec<_>>()
    };
    let is_told = |lines: &[String], hold: Hold| lines.len() == 1 && lines[0].contains(&format!("why={hold}"));
    put_many(&store, T, 1);
    *site.disk.usage.lock() = Some(|_| 0.8);
    let lines = [reasons(), reasons()].concat();
    assert!(is_told(&lines, Hold::Last), "{lines:?}");
    put_many(&store, T, 9);
    settle(&store);
    let lines = [reasons(), reasons()].concat();
    assert!(is_told(&lines, Hold::Young), "{lines:?}");
    // No directory can be made where a file is: this queue is behind, though room is to be made whatever the age.
    std::fs::write(root(&site).join("consumequeue/Bad"), b"").unwrap();
    put_many(&store, "Bad", 1);
    put_many(&store, T, 4);
    wait_until(|| store.positions.is_missing());
    store.change_retention(RetentionRules { reserved_bytes: Some(SEGMENT), batch_max: 1000, ..rules() });
    assert_eq!(reasons(), [""; 0], "some went");
    let lines = [reasons(), reasons()].concat();
    assert!(is_told(&lines, Hold::NotProjected), "{lines:?}");
    // Another reason, and the same again.
    std::fs::remove_file(root(&site).join("consumequeue/Bad")).unwrap();
    store.change_retention(rules());
    store.dispatch_signal.wake();
    settle(&store);
    let lines = [reasons(), reasons()].concat();
    assert!(is_told(&lines, Hold::Young), "{lines:?}");
}

#[test]
fn what_an_open_would_need_stays() {
    let site = Site::new();
    let store = open(&site);
    // No directory can be made where a file is: this queue is behind.
    std::fs::create_dir_all(root(&site).join("consumequeue")).unwrap();
    std::fs::write(root(&site).join("consumequeue/Bad"), b"").unwrap();
    put_many(&store, T, 4);
    put_many(&store, "Bad", 1);
    put_many(&store, T, 10);
    wait_until(|| store.queue_bounds(T, Q).is_some_and(|bounds| bounds.max.0 == 14));
    keep_segments(&store, 1);
    assert_eq!(log_min(&store), SEGMENT, "the message of the bad queue is in the second");
    std::fs::remove_file(root(&site).join("consumequeue/Bad")).unwrap();
    store.dispatch_signal.wake();
    wait_until(|| store.positions.projected() == store.positions.written());
    keep_segments(&store, 1);
    assert_eq!(log_files(&site, &store).len(), 1);
    // A log that cannot be synced loses nothing.
    put_many(&store, T, 10);
    settle(&store);
    let min = log_min(&store);
    site.disk.sync_fails.store(true, Ordering::SeqCst);
    keep_segments(&store, 1);
    assert_eq!(log_min(&store), min);
    assert!(store.health.is_poisoned());
}

#[test]
fn readers_of_a_segment_that_goes_are_safe() {
    let site = Site::new();
    let store = open(&site);
    let places = put_many(&store, T, 20);
    settle(&store);
    let limits = ReadLimits::count(3);
    let held = store.read(T, Q, QueueOffset(0), limits, &AllMessages, Effort::Full).unwrap();
    let record = store.message_at(places[0], Effort::Full).unwrap().unwrap();
    keep_segments(&store, 2);
    assert!(!root(&site).join("commitlog").join(files::segment_name(0)).exists());
    let bodies: Vec<_> = held
        .chunks
        .iter()
        .flat_map(|chunk| ferromq_protocol::message::Records::new(chunk))
        .map(|record| record.unwrap().queue_offset().0)
        .collect();
    assert_eq!(bodies, [0, 1, 2]);
    Record::parse(&record).unwrap().check_crc().unwrap();
    // Its mapping is given up by the retention, not by who reads.
    let mut progress = Progress::default();
    store.retention.go_round(&mut progress);
    drop((held, record));
}

#[test]
fn a_reader_steps_over_what_is_gone() {
    let site = Site::new();
    let store = open(&site);
    let places = put_many(&store, T, 10);
    settle(&store);
    let first_there = places.iter().position(|at| at.0 >= SEGMENT).unwrap() as u64;
    // The log has moved, the queue not yet.
    assert!(store.segments.take_first(0));
    let limits = ReadLimits::count(2);
    let found = store.read(T, Q, QueueOffset(0), limits, &AllMessages, Effort::Full).unwrap();
    assert_eq!((found.status, found.count, found.next_offset.0), (ReadStatus::Found, 2, first_there + 2));
    assert!(store.segments.take_first(SEGMENT) && store.segments.take_first(2 * SEGMENT));
    let last = store.read(T, Q, QueueOffset(8), ReadLimits::count(1), &AllMessages, Effort::Full).unwrap();
    assert_eq!((last.status, last.next_offset.0), (ReadStatus::Found, 10));
    assert!(!store.segments.take_first(3 * SEGMENT), "the last one stays");
}

#[test]
fn a_removal_that_cannot_be_synced() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, T, 20);
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    // For want of a descriptor: it is tried again, and no other goes before.
    site.disk.no_descriptors.store(true, Ordering::SeqCst);
    let mut progress = Progress::default();
    store.change_retention(RetentionRules { reserved_bytes: Some(SEGMENT), ..rules() });
    for _ in 0..3 {
        store.retention.go_round(&mut progress);
        assert_eq!(log_min(&store), SEGMENT);
        assert_eq!(log_files(&site, &store)[0], SEGMENT);
    }
    site.disk.no_descriptors.store(false, Ordering::SeqCst);
    store.retention.go_round(&mut progress);
    assert_eq!(log_files(&site, &store).len(), 1);
    // A sync that failed is for good.
    put_many(&store, T, 20);
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    let min = log_min(&store);
    site.disk.dir_sync_fails.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        store.retention.go_round(&mut progress);
        assert_eq!(log_min(&store), min + SEGMENT);
    }
    assert!(matches!(store.check_writable(), Err(AppendError::Poisoned { .. })));
}

/// Every place at which the power may go while segments, queue files and index files go.
#[test]
fn a_crash_between_removals_leaves_no_gap() {
    for steps in 0.. {
        let (site, disk) = (Site::new(), Arc::<ScriptedDisk>::default());
        let config = || config(&site, Arc::clone(&disk) as Arc<dyn Disk>);
        let store = Store::open(config()).unwrap();
        for n in 0..50_u8 {
            store.append(&message("Idle", 0, &[n], "")).unwrap();
        }
        let places = put_many(&store, T, 70);
        settle(&store);
        store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disk)).unwrap();
        *disk.fails_after.lock() = Some(steps);
        keep_segments(&store, 2);
        let done = disk.fails_after.lock().is_some_and(|left| left > 0);
        *disk.fails_after.lock() = None;
        let min = log_min(&store);
        drop(store);
        // Some of what was not synced comes back, some does not.
        let mut dice = steps as u32;
        disk.power_loss(&root(&site), || {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            dice >> 31 == 0
        });
        let store = Store::open(config()).unwrap();
        let back = log_min(&store);
        assert!(back <= min && back + SEGMENT >= min, "after {steps}: {back}, and was {min}");
        if min > 0 {
            let there = (0..70).filter(|n| places[*n as usize].0 >= back).collect::<Vec<u64>>();
            assert_eq!(offsets(&store, T), there, "after {steps}");
            assert_eq!(bounds(&store, T), (there[0], 70), "after {steps}");
            assert_eq!(bounds(&store, "Idle").1, 50, "after {steps}");
        }
        if done {
            return;
        }
    }
}

/// As a Java broker leaves it that was stopped between the log and the queues.
#[test]
fn a_store_whose_first_segments_are_gone() {
    let site = Site::new();
    let store = open(&site);
    let places = put_many(&store, T, 70);
    for n in 0..20_u8 {
        store.append(&message("Late", 0, &[n], "")).unwrap();
    }
    settle(&store);
    store.close().unwrap();
    drop(store);
    for start in [0, SEGMENT, 2 * SEGMENT, 3 * SEGMENT, 4 * SEGMENT, 5 * SEGMENT] {
        std::fs::remove_file(root(&site).join("commitlog").join(files::segment_name(start))).unwrap();
    }
    let store = open(&site);
    let first = places.iter().position(|at| at.0 >= 6 * SEGMENT).unwrap() as u64;
    assert_eq!((bounds(&store, T), bounds(&store, "Late")), ((first, 70), (0, 20)));
    let queue_files = || file_names(root(&site).join("consumequeue").join(T).join("0"));
    assert_eq!(queue_files()[0], files::segment_name(0));
    go_round(&store);
    assert_eq!(queue_files()[0], files::segment_name((first - first % 16) * 20));
    assert_eq!(offsets(&store, T), (first..70).collect::<Vec<_>>());
}

#[test]
fn a_queue_that_cannot_be_read_holds_no_other_up() {
    let site = Site::new();
    let store = open(&site);
    put_many(&store, "Bad", 2);
    put_many(&store, T, 20);
    put_many(&store, "Bad", 2);
    settle(&store);
    store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*site.disk)).unwrap();
    site.disk.go_cold();
    site.disk.bad.lock().push(("Bad/0/00000000000000000000".to_owned(), 0..100));
    let mut progress = Progress::default();
    store.change_retention(RetentionRules { reserved_bytes: Some(2 * SEGMENT), ..rules() });
    store.retention.go_round(&mut progress);
    assert_eq!(bounds(&store, "Bad").0, 0);
    let min = log_min(&store);
    assert!(min > 0 && bounds(&store, T).0 > 0);
    site.disk.bad.lock().clear();
    store.retention.go_round(&mut progress);
    assert_eq!((bounds(&store, "Bad").0, log_min(&store)), (2, min));
}

#[test]
fn an_idle_queue_costs_no_reading() {
    let site = Site::new();
    let store = open(&site);
    for topic in 0..50 {
        store.append(&message(&format!("Gone{topic}"), 0, b"x", "")).unwrap();
    }
    put_many(&store, T, 20);
    for topic in 0..50 {
        store.append(&message(&format!("Young{topic}"), 0, b"x", "")).unwrap();
    }
    settle(&store);
    // The young ones are looked at once.
    keep_segments(&store, 4);
    site.disk.go_cold();
    let reads = site.disk.reads.load(Ordering::SeqCst);
    let min = log_min(&store);
    keep_segments(&store, 3);
    assert_eq!(log_min(&store), min + SEGMENT);
    let reads = site.disk.reads.load(Ordering::SeqCst) - reads;
    // One queue is looked through, one message of the log is for its time.
    assert!(reads < 20, "{reads} reads for 101 queues");
    assert!((0..50).all(|topic| bounds(&store, &format!("Gone{topic}")) == (1, 1)));
    assert!((0..50).all(|topic| bounds(&store, &format!("Young{topic}")) == (0, 1)));
    // Nor do they after a start, which has looked at each.
    store.close().unwrap();
    drop(store);
    site.disk.cold.store(false, Ordering::SeqCst);
    let store = open(&site);
    site.disk.go_cold();
    let reads = site.disk.reads.load(Ordering::SeqCst);
    go_round(&store);
    let reads = site.disk.reads.load(Ordering::SeqCst) - reads;
    assert!(reads < 5, "{reads} reads for 101 queues");
}

/// A consumer at the very beginning, whose messages go under it, gets each one that is there, in order.
#[test]
fn a_consumer_misses_nothing_that_is_there() {
    let site = Site::new();
    let retention = RetentionRules { reserved_bytes: Some(3 * SEGMENT), interval: Duration::from_millis(1), ..rules() };
    let store = Store::open(StoreConfig { retention, ..site.config() }).unwrap();
    store.begin_retention();
    const COUNT: u64 = 3000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..COUNT {
                store.append(&message(T, 0, &[&n.to_be_bytes()[..], &[7; 300]].concat(), "")).unwrap();
            }
        });
        let mut next = 0;
        while next < COUNT {
            let outcome =
                store.read(T, Q, QueueOffset(next), ReadLimits::count(5), &AllMessages, Effort::Full).unwrap();
            let went_on = outcome.next_offset.0;
            match outcome.status {
                ReadStatus::Found => {
                    let records =
                        outcome.chunks.iter().flat_map(|chunk| ferromq_protocol::message::Records::new(chunk));
                    let offsets: Vec<_> = records.map(|record| record.unwrap().queue_offset().0).collect();
                    // Of what it stepped over before these, nothing is there.
                    assert!(
                        offsets[0] == next || bounds(&store, T).0 >= offsets[0] || is_gone(&store, next, offsets[0])
                    );
                    assert!(
                        offsets.windows(2).all(|pair| pair[1] == pair[0] + 1) && offsets.last() == Some(&(went_on - 1))
                    );
                }
                ReadStatus::OffsetTooSmall => assert!(went_on > next && went_on <= bounds(&store, T).0),
                ReadStatus::MessageWasRemoving => assert!(is_gone(&store, next, went_on)),
                ReadStatus::OffsetOverflowOne | ReadStatus::NoMessageInQueue => assert_eq!(went_on, next),
                status => panic!("{status:?} at {next}, on to {went_on}"),
            }
            next = went_on;
        }
    });
    wait_until(|| log_min(&store) + 3 * SEGMENT >= store.watermarks().written.0 / SEGMENT * SEGMENT);
}

/// Whether no message of these offsets is in the log.
fn is_gone(store: &Store, from: u64, to: u64) -> bool {
    (from..to).all(|offset| {
        let entry = store.queue_entry(T, Q, QueueOffset(offset), Effort::Full).unwrap();
        entry.is_none_or(|entry| store.is_gone(entry.physical))
    })
}

/// Stores again at once what waits before a segment's end.
struct Waits {
    store: std::sync::Weak<Store>,
    places: parking_lot::Mutex<Vec<PhysicalOffset>>,
}

impl Keeper for Waits {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        let store = self.store.upgrade()?;
        for place in self.places.lock().iter_mut().filter(|place| **place < end) {
            let bytes = store.message_at(*place, Effort::Full).unwrap().unwrap();
            let record = Record::parse(&bytes).unwrap();
            *place = store.append_carried(&message(T, 0, record.body(), "")).unwrap().physical_offset;
        }
        settle(&store);
        None
    }
}

/// A store of five segments, or six, in which all waits and is stored again as soon as it is to go.
fn with_what_waits() -> (Site, Arc<Store>, Arc<dyn Keeper>) {
    let site = Site::new();
    let store = Arc::new(open(&site));
    let places = parking_lot::Mutex::new(put_many(&store, T, 18));
    settle(&store);
    let waits: Arc<dyn Keeper> = Arc::new(Waits { store: Arc::downgrade(&store), places });
    store.add_keeper(Arc::clone(&waits));
    (site, store, waits)
}

#[test]
fn what_came_since_goes_from_a_full_disk_though_what_waits_does_not_fit() {
    let (site, store, _waits) = with_what_waits();
    let mut progress = Progress::default();
    let mut go = || {
        let before = store.watermarks().written;
        store.retention.go_round(&mut progress);
        settle(&store);
        store.watermarks().written.0 - before.0
    };
    // Fuller than diskSpaceCleanForciblyRatio, and takes messages.
    *site.disk.usage.lock() = Some(|_| 0.88);
    store.change_retention(RetentionRules { batch_max: 2, ..rules() });
    let written: Vec<_> = (0..20).map(|_| go()).collect();
    assert!(written[0] > 0 && written[10..].iter().all(|bytes| *bytes == 0), "{written:?}");
    // Less than waits, and then the disk is full.
    put_many(&store, "New", 8);
    settle(&store);
    assert_eq!(go(), 0);
    *site.disk.usage.lock() = Some(|_| 0.99);
    assert!(go() > 0, "nothing goes, and nothing can come");
    for _ in 0..20 {
        go();
    }
    assert_eq!(store.queue_bounds("New", Q).unwrap().min, QueueOffset(8), "it has gone");
    assert_eq!(go(), 0, "it is in vain once more");
    assert!(offsets(&store, T).len() >= 18, "what waits is there");
}

#[test]
fn what_waits_and_does_not_fit_is_not_carried_round_for_ever() {
    let (site, store, _waits) = with_what_waits();
    let mut progress = Progress::default();
    let mut go = |segments: u64, batch_max| {
        let rules = RetentionRules { reserved_bytes: Some(segments * SEGMENT), batch_max, ..rules() };
        store.change_retention(rules);
        let before = store.watermarks().written;
        store.retention.go_round(&mut progress);
        settle(&store);
        store.watermarks().written.0 - before.0
    };
    let told = |lines: &[String]| lines.iter().filter(|line| line.contains("waiting_bytes")).count();
    let lines = logged(|| {
        // All of it once, and then no more.
        let written: Vec<_> = (0..20).map(|_| go(3, 2)).collect();
        assert!(written[0] > 0 && written[10..].iter().all(|bytes| *bytes == 0), "{written:?}");
        // As much has come as waits.
        put_many(&store, "New", 40);
        settle(&store);
        let written: Vec<_> = (0..40).map(|_| go(3, 2)).collect();
        assert!(written[0] > 0 && written[30..].iter().all(|bytes| *bytes == 0), "{written:?}");
    });
    assert_eq!(told(&lines), 1, "{lines:?}");
    assert_eq!(store.queue_bounds("New", Q).unwrap().min, QueueOffset(40), "it goes first");
    // With less to be kept, or more.
    assert!(go(2, 1) > 0);
    assert_eq!(go(20, 1), 0);
    // What goes is of age by now.
    site.advance(2 * HOUR_MS);
    put_many(&store, "New", 4);
    settle(&store);
    store.retention.delete_by_hand();
    assert!(go(20, 1) > 0);
    assert!(offsets(&store, T).len() >= 18, "what waits is there");
}
