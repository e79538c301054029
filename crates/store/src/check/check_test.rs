//! What a check says of good stores, and that each kind of damage is found where it is.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC};
use ferromq_protocol::{QueueId, QueueOffset};
use proptest::prelude::*;

use super::*;
use crate::disk::Disk;
use crate::testing::*;
use crate::{LocalDisk, OpenError, RetentionRules, Store, StoreId, Timer, TimerIndex};

pub const LOG: &str = "commitlog/00000000000000000000";
const SECOND_LOG: &str = "commitlog/00000000000000004096";
pub const QUEUE: &str = "consumequeue/TopicT/0/00000000000000000000";
pub const TIMER_DUE_MS: i64 = START_MS + 3_600_000;

/// A store with all that a check looks at: several files of everything, keys, tags, delays, timers, a batch, a deleted topic.
pub fn fill(site: &Site) -> Store {
    let store = site.open();
    store.append(&message("Deleted", 0, b"gone", "KEYS\u{1}d\u{2}")).unwrap();
    settle(&store);
    store.delete_topic("Deleted").unwrap();
    store.append(&message("Deleted", 0, b"anew", "")).unwrap();
    for n in 0..40 {
        let properties = format!("KEYS\u{1}key-{n} all\u{2}UNIQ_KEY\u{1}U{n}\u{2}TAGS\u{1}Tag{}\u{2}", n % 3);
        store.append(&message(T, n % 2, format!("body {n}").as_bytes(), &properties)).unwrap();
        site.advance(100);
    }
    let body = [7; 1500];
    store
        .append_batch(&[message("Batch", 0, b"one", ""), message("Batch", 0, &body, ""), message("Batch", 0, b"", "")])
        .unwrap();
    store.append(&message(SCHEDULE_TOPIC, 2, b"later", "DELAY\u{1}3\u{2}TAGS\u{1}a\u{2}")).unwrap();
    for n in 0..3 {
        let due = TIMER_DUE_MS + n * 1000;
        store.append(&message(TIMER_TOPIC, 0, b"timer", &format!("TIMER_OUT_MS\u{1}{due}\u{2}"))).unwrap();
    }
    settle(&store);
    let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
    let mut timers = TimerIndex::open(disk, root(site).join("timers"), store.id(), START_MS).unwrap();
    for n in 0..3 {
        let due_ms = TIMER_DUE_MS + n * 1000;
        timers.enter(Some(Timer { due_ms, offset: QueueOffset(n.unsigned_abs()), cancels: false }));
    }
    timers.save(timers.checkpoint()).unwrap();
    store
}

/// As its checkpoint says.
pub fn id_of(site: &Site) -> StoreId {
    let bytes = std::fs::read(root(site).join("checkpoint")).unwrap();
    StoreId(CheckpointFile::decode(&bytes).unwrap().store.unwrap())
}

pub fn filled() -> Site {
    let site = Site::new();
    fill(&site).close().unwrap();
    site
}

/// Of the log; the rest goes at once.
pub fn keep_three_segments(store: &Store) {
    store.change_retention(RetentionRules {
        reserved_bytes: Some(3 * 4096),
        batch_max: 1000,
        segment_pause: Duration::ZERO,
        ..RetentionRules::default()
    });
    store.begin_retention();
}

pub fn config(site: &Site) -> CheckConfig {
    CheckConfig { index_shape: Some((31, 64)), ..CheckConfig::at(root(site)) }
}

fn findings(config: &CheckConfig) -> (Vec<Finding>, Summary) {
    let mut found = Vec::new();
    let checked = check(config, &mut |finding| found.push(finding.clone())).unwrap();
    assert_eq!(found.iter().filter(|finding| finding.is_fault).count() as u64, checked.summary.faults);
    (found, checked.summary)
}

pub fn faults(site: &Site) -> Vec<Finding> {
    findings(&config(site)).0.into_iter().filter(|finding| finding.is_fault).collect()
}

/// The path of a finding below the root, and its place.
fn place(site: &Site, finding: &Finding) -> (String, Option<u64>) {
    (finding.path.strip_prefix(root(site)).unwrap().display().to_string(), finding.at)
}

/// A fault in this part, with this file and place.
fn assert_found(site: &Site, part: Part, file: &str, at: impl Into<Option<u64>>, what: &str) {
    let (faults, at) = (faults(site), at.into());
    let is_it = |fault: &Finding| {
        fault.part == part && place(site, fault) == (file.to_owned(), at) && fault.what.contains(what)
    };
    assert!(faults.iter().any(is_it), "{file}:{at:?} {what} is not among {faults:#?}");
}

pub fn overwrite(site: &Site, file: &str, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(root(site).join(file)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

pub fn flip(site: &Site, file: &str, at: u64) {
    let path = root(site).join(file);
    let mut byte = [0];
    std::fs::File::open(path).unwrap().read_exact_at(&mut byte, at).unwrap();
    overwrite(site, file, at, &[byte[0] ^ 1]);
}

pub fn cut(site: &Site, file: &str, len: u64) {
    OpenOptions::new().write(true).open(root(site).join(file)).unwrap().set_len(len).unwrap();
}

pub fn index_file(site: &Site) -> String {
    let mut names: Vec<_> =
        std::fs::read_dir(root(site).join("index")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    format!("index/{}", names[0].to_str().unwrap())
}

/// Where the first record after `from` of a topic stands.
pub fn record_of(site: &Site, topic: &str, from: u64) -> (u64, u64) {
    let mut dump = Dump::open(config(site)).unwrap();
    let found = (from..4096).find_map(|at| {
        let bytes = dump.record(at).unwrap()?;
        (ferromq_protocol::message::Record::parse(&bytes).unwrap().topic() == topic).then_some((at, bytes.len() as u64))
    });
    found.unwrap()
}

/// Every file's bytes and the time of its last change.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, i64, i64)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.metadata().unwrap();
        if metadata.is_dir() {
            all.extend(tree(&path));
        }
        let bytes = if metadata.is_dir() { Vec::new() } else { std::fs::read(&path).unwrap() };
        all.insert(path, (bytes, metadata.mtime(), metadata.mtime_nsec()));
    }
    all
}

#[test]
fn a_store_of_ours_is_right_and_is_left_as_it_was() {
    let site = filled();
    let before = tree(&root(&site));
    let (found, summary) = findings(&config(&site));
    assert_eq!(found, []);
    assert!(summary.clean && summary.log_files > 1 && summary.index_files > 1, "{summary:?}");
    // Two of the deleted topic and the note of it.
    assert_eq!(
        (summary.messages, summary.of_queues.entries, summary.of_queues.deleted, summary.of_queues.missing),
        (50, 48, 1, 0)
    );
    assert_eq!((summary.timers, summary.of_queues.lost, summary.of_queues.to_come), (3, 0, 0));
    let mut dump = Dump::open(config(&site)).unwrap();
    dump.record(0).unwrap().unwrap();
    dump.chains(T, "key-3").unwrap();
    drop(dump);
    assert_eq!(tree(&root(&site)), before);
    site.open().close().unwrap();
}

#[test]
fn a_store_that_java_wrote_is_right() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/store-5.3.3");
    let (found, summary) = findings(&CheckConfig::at(golden));
    assert!(found.is_empty(), "{found:#?}");
    assert!(summary.messages > 10 && summary.of_queues.entries > 10 && summary.index_entries > 10, "{summary:?}");
}

#[test]
fn a_store_whose_old_messages_went_is_right() {
    let site = Site::new();
    let store = site.open();
    for n in 0..40_u8 {
        store.append(&message("Idle", 0, &[n], "KEYS\u{1}idle\u{2}")).unwrap();
    }
    for n in 0..100 {
        store.append(&message(T, n % 2, &[7; 900], &format!("KEYS\u{1}k{n}\u{2}"))).unwrap();
    }
    settle(&store);
    let end = store.watermarks().written.0;
    keep_three_segments(&store);
    wait_until(|| end - store.watermarks().min.0 <= 4 * 4096);
    drop(store);
    for stop in ["kill", "close"] {
        let store = site.open();
        if stop == "close" {
            store.close().unwrap();
        }
        drop(store);
        let (found, summary) = findings(&config(&site));
        assert_eq!((summary.faults, summary.log_begin > 0), (0, true), "{stop}: {found:#?}");
    }
    // A power loss may have taken some of what a queue has before its beginning.
    let files = crate::files::named_files(&root(&site).join("consumequeue/Idle/0")).unwrap().segments;
    let last = std::fs::OpenOptions::new().write(true).open(&files.last().unwrap().path).unwrap();
    last.write_all_at(&[0; 40], 20).unwrap();
    let (found, summary) = findings(&config(&site));
    assert_eq!(summary.faults, 0, "{found:#?}");
    // A segment that did not go by itself is missed.
    let (_, summary) = findings(&config(&site));
    std::fs::remove_file(root(&site).join(format!("commitlog/{:020}", summary.log_begin))).unwrap();
    assert_found(&site, Part::Checkpoint, "checkpoint", 120, "says that the log begins at");
}

#[test]
fn what_a_kill_leaves_is_no_fault() {
    let site = Site::new();
    let store = fill(&site);
    drop(store);
    assert!(root(&site).join("abort").exists());
    let (found, summary) = findings(&config(&site));
    assert_eq!((summary.faults, summary.clean), (0, false), "{found:#?}");
    // The last entries of a queue were not written.
    let checkpoint = root(&site).join("checkpoint");
    let untouched = std::fs::read(&checkpoint).unwrap();
    let last = "consumequeue/Batch/0/00000000000000000000";
    overwrite(&site, last, 20, &[0; 40]);
    std::fs::write(&checkpoint, [0; 4096]).unwrap();
    let (found, summary) = findings(&config(&site));
    assert_eq!((summary.faults, summary.of_queues.to_come), (0, 2), "{found:#?}");
    // Files that were being made.
    let len = std::fs::metadata(root(&site).join(last)).unwrap().len();
    let new = [format!("consumequeue/Batch/0/{len:020}"), "index/29991231000000000".to_owned()];
    for file in &new {
        std::fs::write(root(&site).join(file), [0; 100]).unwrap();
    }
    assert_eq!(faults(&site), []);
    overwrite(&site, &new[0], 50, b"x");
    assert_found(&site, Part::Queues, &new[0], None, "has 100 bytes, others have");
    for file in &new {
        std::fs::remove_file(root(&site).join(file)).unwrap();
    }
    // A start that was killed while it entered the queue of timers again.
    overwrite(&site, &format!("consumequeue/{TIMER_TOPIC}/0/00000000000000000000"), 20, &[0; 40]);
    let (found, summary) = findings(&config(&site));
    assert_eq!((summary.faults, summary.of_queues.to_come), (0, 4), "{found:#?}");
    std::fs::write(&checkpoint, untouched).unwrap();
}

#[test]
fn a_store_in_use_is_not_looked_at_and_one_that_is_looked_at_cannot_be_used() {
    let site = Site::new();
    let store = fill(&site);
    assert!(matches!(check(&config(&site), &mut |_| {}), Err(CheckError::InUse { .. })));
    store.close().unwrap();
    let dump = Dump::open(config(&site)).unwrap();
    assert!(matches!(Store::open(site.config()), Err(OpenError::Locked { .. })));
    check(&config(&site), &mut |_| {}).unwrap();
    drop(dump);
    site.open().close().unwrap();
    let nowhere = CheckConfig::at(root(&site).join("nowhere"));
    assert!(matches!(check(&nowhere, &mut |_| {}), Err(CheckError::NoStore { .. })));
}

#[test]
fn damage_in_the_log_is_found() {
    let site = filled();
    let (at, len) = record_of(&site, T, 0);
    let good = std::fs::read(root(&site).join(LOG)).unwrap();
    let again = || std::fs::write(root(&site).join(LOG), &good).unwrap();
    // The body follows its length at 84.
    flip(&site, LOG, at + 88);
    assert_found(&site, Part::Log, LOG, at, "message of TopicT queue 0 offset 0: body CRC is ");
    again();
    for byte in [0, 4, 28] {
        flip(&site, LOG, at + byte);
        assert_found(&site, Part::Log, LOG, at, &format!("{len} bytes hold no record"));
        assert_found(&site, Part::Queues, QUEUE, 0, &format!("entry 0 leads to {at}, where there is no message"));
        again();
    }
    // Queue id, queue offset: the record is of another place.
    for byte in [15, 27] {
        flip(&site, LOG, at + byte);
        assert_found(&site, Part::Queues, QUEUE, 0, &format!("entry 0 leads to {at}, where a message of TopicT queue"));
        again();
    }
    overwrite(&site, LOG, at, &[0; 200]);
    assert_found(&site, Part::Log, LOG, at, "zeros");
    again();
    cut(&site, LOG, 4000);
    assert_found(&site, Part::Log, LOG, None, "has 4000 bytes, others have 4096");
    assert_found(&site, Part::Log, SECOND_LOG, None, "96 bytes of the log are missing before it");
    again();
    std::fs::remove_file(root(&site).join(SECOND_LOG)).unwrap();
    assert_found(
        &site,
        Part::Log,
        "commitlog/00000000000000008192",
        None,
        "4096 bytes of the log are missing before it",
    );
}

#[test]
fn what_stands_behind_the_end_of_the_log_is_found() {
    let site = filled();
    let (_, summary) = findings(&config(&site));
    let start = summary.log_end - summary.log_end % 4096;
    let (file, at) = (format!("commitlog/{start:020}"), summary.log_end - start);
    overwrite(&site, &file, at, b"torn");
    assert_found(&site, Part::Log, &file, at, "what stands here is no record, and none follows");
    // After a kill it is what the next start cuts off.
    std::fs::write(root(&site).join("abort"), b"1").unwrap();
    let (found, summary) = findings(&config(&site));
    assert_eq!(summary.faults, 0, "{found:#?}");
    assert!(
        found.iter().any(|note| note.what.contains("torn") && place(&site, note) == (file.clone(), Some(at))),
        "{found:#?}"
    );
}

#[test]
fn damage_in_a_queue_is_found() {
    let site = filled();
    let good = std::fs::read(root(&site).join(QUEUE)).unwrap();
    for byte in 0..20 {
        flip(&site, QUEUE, 3 * 20 + byte);
        assert_found(&site, Part::Queues, QUEUE, 60, "entry 3 ");
        std::fs::write(root(&site).join(QUEUE), &good).unwrap();
    }
    overwrite(&site, QUEUE, 60, &[0; 20]);
    assert_found(&site, Part::Queues, QUEUE, 60, "is not at offset 3: there is nothing at its place");
    assert_found(&site, Part::Queues, QUEUE, 80, "entry 4 follows entries that are blank");
    let entry = good[100..120].to_vec();
    overwrite(&site, QUEUE, 60, &entry);
    assert_found(&site, Part::Queues, QUEUE, 60, "where a message of TopicT queue 0 offset 5 is");
    let lost = [&good[60..68], &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]].concat();
    overwrite(&site, QUEUE, 60, &lost);
    assert_found(&site, Part::Queues, QUEUE, 60, "its entry says that it is lost");
    // Of that the last part only, which a crash may leave where it lies across two pages: no fault of its own if the message is damaged.
    let in_body = u64::from_be_bytes(good[60..68].try_into().unwrap()) + 88;
    for at in [72, 76] {
        std::fs::write(root(&site).join(QUEUE), &good).unwrap();
        overwrite(&site, QUEUE, at, &[0xff; 8][..80 - at as usize]);
        assert_found(&site, Part::Queues, QUEUE, 60, "entry 3 has the tags code ");
        flip(&site, LOG, in_body);
        let found = faults(&site);
        assert!(matches!(&found[..], [fault] if fault.what.contains("body CRC")), "{found:#?}");
        flip(&site, LOG, in_body);
    }
    std::fs::write(root(&site).join(QUEUE), &good).unwrap();
    cut(&site, QUEUE, 100);
    assert_found(
        &site,
        Part::Queues,
        "consumequeue/TopicT/0/00000000000000000320",
        None,
        "the files with the 11 entries before it are missing",
    );
    std::fs::write(root(&site).join(QUEUE), &good).unwrap();
    assert_eq!(faults(&site), []);

    std::fs::remove_file(root(&site).join(QUEUE)).unwrap();
    assert_found(
        &site,
        Part::Queues,
        "consumequeue/TopicT/0",
        None,
        "is not at offset 0: there is nothing at its place",
    );
    std::fs::remove_dir_all(root(&site).join("consumequeue/TopicT/0")).unwrap();
    assert_found(&site, Part::Queues, "consumequeue/TopicT/0", None, "is not at offset 0: its queue is not there");
    std::fs::remove_dir_all(root(&site).join("consumequeue/TopicT")).unwrap();
    let (_, summary) = findings(&config(&site));
    assert_eq!(summary.of_queues.missing, 40);
    // A topic that nobody knows was deleted by a broker that does not say so in the log.
    let without = CheckConfig { topics: Some(["Batch".to_owned(), "Deleted".to_owned()].into()), ..config(&site) };
    let (found, summary) = findings(&without);
    assert_eq!((summary.faults, summary.of_queues.missing, summary.of_queues.deleted), (0, 0, 41), "{found:#?}");
}

#[test]
fn damage_in_the_index_is_found() {
    let site = filled();
    let file = index_file(&site);
    let good = std::fs::read(root(&site).join(&file)).unwrap();
    let again = || std::fs::write(root(&site).join(&file), &good).unwrap();
    let entry_at = |number: u64| 40 + 31 * 4 + number * 20;
    for (byte, what) in [(3, "without this key"), (11, "leads to "), (19, "the entry before it in its chain")] {
        flip(&site, &file, entry_at(5) + byte);
        assert_found(&site, Part::Index, &file, entry_at(5), what);
        again();
    }
    for (at, field) in [(23, 16), (31, 24), (35, 32), (36, 36)] {
        flip(&site, &file, at);
        assert_found(&site, Part::Index, &file, field, "its head says");
        again();
    }
    let slot = good[40..40 + 31 * 4].chunks(4).position(|slot| slot != [0; 4]).unwrap() as u64;
    flip(&site, &file, 40 + slot * 4 + 3);
    assert_found(&site, Part::Index, &file, 40 + slot * 4, "leads to entry");
    again();
    cut(&site, &file, 100);
    assert_found(&site, Part::Index, &file, None, "100 bytes do not fit maxHashSlotNum and maxIndexNum");
    std::fs::remove_file(root(&site).join(&file)).unwrap();
    let second = index_file(&site);
    std::fs::remove_file(root(&site).join(second)).unwrap();
    assert_eq!(faults(&site), [], "the first files may be gone");
    let keyless = CheckConfig { index_shape: Some((0, 64)), ..config(&site) };
    assert!(matches!(check(&keyless, &mut |_| {}), Err(CheckError::Setting(_))));
}

#[test]
fn keys_that_are_not_in_the_index_are_counted() {
    let site = filled();
    let mut files: Vec<_> =
        std::fs::read_dir(root(&site).join("index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 1);
    std::fs::remove_file(&files[1]).unwrap();
    assert_found(&site, Part::Index, "index", None, "keys of messages are not in the index");
}

#[test]
fn damage_in_the_checkpoint_is_found() {
    let site = filled();
    let path = root(&site).join("checkpoint");
    let good = std::fs::read(&path).unwrap();
    for at in 64..120 {
        flip(&site, "checkpoint", at);
        assert_found(&site, Part::Checkpoint, "checkpoint", 64, "its places do not fit their CRC");
        std::fs::write(&path, &good).unwrap();
    }
    for at in 120..132 {
        flip(&site, "checkpoint", at);
        assert_found(&site, Part::Checkpoint, "checkpoint", 120, "does not fit its CRC");
        std::fs::write(&path, &good).unwrap();
    }
    flip(&site, "checkpoint", 7);
    assert_found(&site, Part::Checkpoint, "checkpoint", 64, "a bit of its times");
    std::fs::write(&path, &good).unwrap();
    // A time that Java would write is no damage, one that is ahead is.
    overwrite(&site, "checkpoint", 7, &[good[7] ^ 3]);
    let (found, _) = findings(&config(&site));
    assert!(found.iter().any(|note| note.what.contains("as a Java broker does")), "{found:#?}");
    overwrite(&site, "checkpoint", 2, &[2]);
    assert_found(&site, Part::Checkpoint, "checkpoint", 0, "for the log, but the newest message is of");
    std::fs::write(&path, &good).unwrap();
    cut(&site, "checkpoint", 50);
    assert_found(&site, Part::Checkpoint, "checkpoint", None, "has 50 bytes");
    std::fs::remove_file(&path).unwrap();
    assert_found(&site, Part::Checkpoint, "checkpoint", None, "is missing");
    std::fs::write(&path, &good).unwrap();
    // Nothing else is wrong with a log that lost its last file.
    let (_, summary) = findings(&config(&site));
    let last = format!("commitlog/{:020}", summary.log_end - summary.log_end % 4096);
    std::fs::remove_file(root(&site).join(last)).unwrap();
    assert_found(&site, Part::Checkpoint, "checkpoint", 68, "for the log, but the log ends at");
}

#[test]
fn a_time_of_a_message_that_may_have_gone_is_no_fault_of_the_checkpoint() {
    let site = Site::new();
    let store = site.open();
    for _ in 0..20 {
        store.append(&message(T, 0, &[1; 1000], "")).unwrap();
    }
    settle(&store);
    keep_three_segments(&store);
    wait_until(|| store.watermarks().min.0 > 0);
    store.close().unwrap();
    // As if a message of then had been stored, and the clock set back after it.
    overwrite(&site, "checkpoint", 2, &[2]);
    let (found, _) = findings(&config(&site));
    let is_it = |finding: &Finding| finding.what.contains("for the log, but the newest message is of");
    assert!(found.iter().any(is_it) && !found.iter().any(|finding| finding.is_fault), "{found:#?}");
}

#[test]
fn damage_of_timers_is_found() {
    let site = filled();
    let file = format!("timers/{:020}", TIMER_DUE_MS / 60_000);
    let path = root(&site).join(&file);
    let good = std::fs::read(&path).unwrap();
    assert_eq!(good.len(), 48);
    flip(&site, &file, 16 + 7);
    assert_found(&site, Part::Timers, &file, None, "has 2 of 3 timers of its minute");
    std::fs::write(&path, &good).unwrap();
    flip(&site, &file, 15);
    assert_found(&site, Part::Timers, &file, None, "has 2 of 3 timers of its minute");
    std::fs::write(&path, &good[..40]).unwrap();
    assert_found(&site, Part::Timers, &file, None, "has 2 of 3 timers of its minute");
    std::fs::remove_file(&path).unwrap();
    assert_found(&site, Part::Timers, &file, None, "has 0 of 3 timers of its minute");
    std::fs::write(&path, &good).unwrap();
    // Both of its places.
    flip(&site, "timers/checkpoint", 3);
    flip(&site, "timers/checkpoint", 4096 + 3);
    assert_found(&site, Part::Timers, "timers/checkpoint", None, "damaged");
    let mut ahead = TimerIndex::open(Arc::new(LocalDisk), root(&site).join("timers"), id_of(&site), START_MS).unwrap();
    ahead.skip_to(QueueOffset(9));
    ahead.save(ahead.checkpoint()).unwrap();
    assert_found(&site, Part::Timers, "timers/checkpoint", 0, "entered up to 9, it ends at 3");
    std::fs::remove_file(root(&site).join("timers/checkpoint")).unwrap();
    std::fs::write(&path, &good).unwrap();
    assert_found(&site, Part::Timers, "timers/checkpoint", None, "missing");
    // Unless the broker was killed: before it was written for the first time, say.
    std::fs::write(root(&site).join("abort"), b"1").unwrap();
    assert_eq!(faults(&site), []);
}

#[test]
fn queues_that_outlived_their_deletion_are_found() {
    let site = Site::new();
    let store = site.open();
    put(&store, b"old");
    settle(&store);
    store.close().unwrap();
    let queue = std::fs::read(root(&site).join(QUEUE)).unwrap();
    let store = site.open();
    store.delete_topic(T).unwrap();
    store.close().unwrap();
    assert_eq!(faults(&site), []);
    std::fs::create_dir_all(root(&site).join("consumequeue/TopicT/0")).unwrap();
    std::fs::write(root(&site).join(QUEUE), queue).unwrap();
    assert_found(&site, Part::Queues, "consumequeue/TopicT/0", None, "entries of before its topic was deleted");
}

#[test]
fn pieces_of_a_store_are_shown() {
    let site = filled();
    let mut dump = Dump::open(config(&site)).unwrap();
    assert_eq!(dump.queue_range(T, 0), Some((0, 32)));
    assert_eq!(dump.queue_range("NoSuchTopic", 0), None);
    let entry = dump.entry(T, 0, 3).unwrap().entry.unwrap();
    let bytes = dump.record(entry.physical.0).unwrap().unwrap();
    let record = ferromq_protocol::message::Record::parse(&bytes).unwrap();
    assert_eq!((record.body(), record.queue_id(), record.queue_offset()), (&b"body 6"[..], QueueId(0), QueueOffset(3)));
    assert_eq!(dump.entry(T, 0, 31).unwrap(), PlacedEntry { offset: 31, entry: None });
    assert_eq!(dump.record(entry.physical.0 + 1).unwrap(), None);
    let chains = dump.chains(T, "key-6").unwrap();
    let links = chains.iter().flat_map(|chain| chain.links.iter().filter(|link| link.hash == chain.hash));
    assert_eq!(links.map(|link| link.physical).collect::<Vec<_>>(), [entry.physical.0]);
    assert!(matches!(dump.checkpoint().unwrap().unwrap().places, Places::Hold { .. }));
}

/// Everything that looks into a store, over whatever is there.
fn look_at_all(site: &Site) {
    for index_shape in [Some((31, 64)), None] {
        let config = CheckConfig { index_shape, ..config(site) };
        check(&config, &mut |_| {}).unwrap();
        let mut dump = Dump::open(config).unwrap();
        for at in [0, 1, 100, 4096, u64::MAX] {
            dump.record(at).unwrap();
            dump.entry(T, 0, at).unwrap();
        }
        dump.chains(T, "all").unwrap();
        dump.checkpoint().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_in_the_files_is_only_looked_at(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..200), cuts in any::<bool>(),
    ) {
        let site = filled();
        let files: Vec<_> = tree(&root(&site)).into_iter().filter(|(path, _)| path.is_file() && !path.ends_with("lock")).collect();
        let (path, (before, ..)) = &files[which.index(files.len())];
        let at = at.index(before.len().max(1));
        let mut damaged = before.clone();
        damaged.truncate(if cuts { at } else { before.len() });
        damaged.splice(at.min(damaged.len())..damaged.len().min(at + bytes.len()), bytes);
        std::fs::write(path, &damaged).unwrap();
        look_at_all(&site);
        prop_assert_eq!(std::fs::read(path).unwrap(), damaged);
    }

    #[test]
    fn random_files_are_only_looked_at(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 0..3000)) {
        let site = Site::new();
        for file in [LOG, SECOND_LOG, QUEUE, "consumequeue/rmq_sys_wheel_timer/0/00000000000000000000", "index/20261121103000123", "timers/00000000000029683391", "timers/checkpoint", "checkpoint"] {
            let path = root(&site).join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &bytes).unwrap();
        }
        look_at_all(&site);
    }
}
