//! A repair makes again what was damaged as it was, with the numbers that it had, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC};
use ferromq_protocol::{QueueId, QueueOffset};
use proptest::prelude::*;

use super::check_test::{
    LOG, QUEUE, TIMER_DUE_MS, cut, fill, filled, flip, id_of, index_file, keep_three_segments, overwrite, record_of,
};
use super::repair::{move_away, open_and_close, store_config};
use super::*;
use crate::disk::LocalDisk;
use crate::testing::*;
use crate::{OpenError, QueueBounds, Store, Timer, TimerIndex};

type Deed<'a> = &'a dyn Fn(&Site);
type DeedToFile<'a> = &'a dyn Fn(&Site, &str);

fn made_with() -> RepairConfig {
    RepairConfig { read_only_log_dirs: Vec::new(), segment_len: 4096, queue_file_entries: 16, index_enabled: true }
}

fn config(site: &Site) -> CheckConfig {
    let topics = ["Batch", "Deleted", "Idle", T].map(str::to_owned);
    CheckConfig { topics: Some(topics.into()), ..check_test::config(site) }
}

/// A repair, as the tool does it; and the faults that are left.
fn try_repair(config: &CheckConfig, made_with: &RepairConfig) -> Result<(Repaired, Vec<Finding>), RepairError> {
    let mut damage = Damage::of(config);
    let found = check(config, &mut |finding| damage.add(finding)).unwrap();
    assert!(found.summary.faults > 0, "there is nothing to be repaired");
    let mut repaired = Repaired::default();
    repair(config, made_with, &damage, &found, &mut repaired)?;
    let mut left = Vec::new();
    check(config, &mut |finding| left.extend(finding.is_fault.then(|| finding.clone()))).unwrap();
    Ok((repaired, left))
}

fn repair_all(config: &CheckConfig) -> Repaired {
    let (repaired, left) = try_repair(config, &made_with()).unwrap();
    assert_eq!(left, [], "{repaired:#?}");
    for (from, to) in &repaired.moved {
        assert!(
            to.exists() && to.starts_with(config.root.join("damaged")),
            "{} is not {}",
            from.display(),
            to.display()
        );
    }
    repaired
}

/// The bytes of all files below a directory of the store.
fn content(root: &Path, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let tree = check_test::tree(&root.join(dir)).into_iter();
    tree.filter(|(path, _)| path.is_file()).map(|(path, (bytes, ..))| (path, bytes)).collect()
}

/// As a Java broker leaves it, which knows nothing of our list and our places.
fn as_java_leaves_it(site: &Site) {
    fs::remove_file(root(site).join("inventory")).unwrap();
    overwrite(site, "checkpoint", 40, &[0; 4056]);
}

/// All keys of [`fill`] lead to their messages.
fn assert_indexed(store: &Store) {
    for n in 0..40 {
        assert_eq!(query_bodies(store, T, &format!("key-{n}")), [format!("body {n}").into_bytes()], "{n}");
    }
    assert_eq!(query_bodies(store, T, "all").len(), 40);
}

#[test]
fn what_is_damaged_is_made_again_as_it_was() {
    let second = "consumequeue/TopicT/1/00000000000000000320";
    let damages: &[(&str, Deed<'_>)] = &[
        ("an entry leads elsewhere", &|site| flip(site, QUEUE, 66)),
        ("a length", &|site| flip(site, QUEUE, 71)),
        ("a tags code", &|site| flip(site, QUEUE, 79)),
        ("entries are blank", &|site| overwrite(site, QUEUE, 60, &[0; 40])),
        ("an entry counts as lost", &|site| {
            overwrite(site, QUEUE, 68, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        }),
        ("some are something else", &|site| overwrite(site, second, 0, &[0x11; 40])),
        ("a file is short", &|site| cut(site, QUEUE, 100)),
        ("a file is missing", &|site| fs::remove_file(root(site).join(QUEUE)).unwrap()),
        ("a queue is missing", &|site| fs::remove_dir_all(root(site).join("consumequeue/TopicT/1")).unwrap()),
        ("a topic is missing", &|site| fs::remove_dir_all(root(site).join("consumequeue/Batch")).unwrap()),
        ("a strange file", &|site| fs::write(root(site).join("consumequeue/Batch/0/core"), b"x").unwrap()),
        ("the levels' queue", &|site| {
            flip(site, &format!("consumequeue/{SCHEDULE_TOPIC}/2/00000000000000000000"), 15);
        }),
    ];
    for by_java in [false, true] {
        for (what, damage) in damages {
            let site = filled();
            let (log, queues) = (content(&root(&site), "commitlog"), content(&root(&site), "consumequeue"));
            if by_java {
                as_java_leaves_it(&site);
            }
            damage(&site);
            let repaired = repair_all(&config(&site));
            assert_eq!(repaired.made_again, ["the queues, out of the log"], "{what}, by Java: {by_java}");
            assert_eq!(content(&root(&site), "consumequeue"), queues, "{what}, by Java: {by_java}");
            assert_eq!(content(&root(&site), "commitlog"), log, "{what}, by Java: {by_java}");
            assert_indexed(&site.open());
        }
    }
}

#[test]
fn a_damaged_index_is_made_again() {
    let damages: &[(&str, DeedToFile<'_>, usize)] = &[
        ("an entry", &|site, file| flip(site, file, 40 + 31 * 4 + 5 * 20 + 11), 2),
        ("its head", &|site, file| flip(site, file, 36), 2),
        ("its length", &|site, file| cut(site, file, 100), 1),
        ("it is no index file", &|site, _| fs::write(root(site).join("index/core"), b"x").unwrap(), 1),
    ];
    for (what, damage, moved_at_least) in damages {
        let site = filled();
        let queues = content(&root(&site), "consumequeue");
        damage(&site, &index_file(&site));
        let repaired = repair_all(&config(&site));
        assert_eq!(repaired.made_again, ["the index, out of the log"], "{what}");
        assert!(repaired.moved.len() >= *moved_at_least, "{what}: {repaired:?}");
        assert_eq!(content(&root(&site), "consumequeue"), queues, "{what}");
        assert_indexed(&site.open());
    }
    // A broker without an index reads none.
    let site = filled();
    flip(&site, &index_file(&site), 36);
    let without = RepairConfig { index_enabled: false, ..made_with() };
    let (repaired, left) = try_repair(&config(&site), &without).unwrap();
    assert_eq!((repaired, left.is_empty()), (Repaired::default(), false));
}

#[test]
fn a_damaged_checkpoint_is_written_anew() {
    for at in [70, 121] {
        let site = filled();
        let queues = content(&root(&site), "consumequeue");
        flip(&site, "checkpoint", at);
        assert_eq!(repair_all(&config(&site)).made_again, ["the checkpoint"]);
        assert_eq!(content(&root(&site), "consumequeue"), queues);
        assert_indexed(&site.open());
    }
}

/// The first messages of a queue are gone with the log's beginning, or all of them.
#[test]
fn queues_keep_their_numbers() {
    let bounds = |store: &Store| {
        [("Idle", 0), (T, 0), (T, 1)].map(|(topic, queue)| store.queue_bounds(topic, QueueId(queue)).unwrap())
    };
    for by_java in [false, true] {
        let site = Site::new();
        let store = site.open();
        for n in 0..40_u8 {
            store.append(&message("Idle", 0, &[n], "")).unwrap();
        }
        for n in 0..100_u8 {
            store.append(&message(T, u32::from(n % 2), &[n; 900], "")).unwrap();
        }
        settle(&store);
        keep_three_segments(&store);
        let end = store.watermarks().written.0;
        wait_until(|| end - store.watermarks().min.0 <= 4 * 4096 && bounds(&store)[0].min == bounds(&store)[0].max);
        store.close().unwrap();
        let store = site.open();
        let before = bounds(&store);
        assert_eq!(before[0], QueueBounds { min: QueueOffset(40), max: QueueOffset(40) });
        assert!(before[1].min > QueueOffset(0) && before[1].max == QueueOffset(50), "{before:?}");
        let bodies_before = [0, 1].map(|queue| read_bodies(&store, T, queue, 0));
        assert!(bodies_before.iter().all(|bodies| !bodies.is_empty()));
        store.close().unwrap();
        if by_java {
            as_java_leaves_it(&site);
        }
        // Out of order; and of another tag.
        overwrite(&site, "consumequeue/Idle/0/00000000000000000640", 4 * 20, &[0; 8]);
        let (file, at) = (before[1].min.0 / 16 * 320, before[1].min.0 % 16 * 20);
        flip(&site, &format!("consumequeue/TopicT/0/{file:020}"), at + 19);
        let repaired = repair_all(&config(&site));
        assert_eq!((repaired.moved.len(), repaired.moved_by_start.len()), (2, 0), "{repaired:?}");
        let store = site.open();
        assert_eq!(bounds(&store), before, "by Java: {by_java}");
        assert_eq!([0, 1].map(|queue| read_bodies(&store, T, queue, 0)), bodies_before);
        for (topic, next) in [("Idle", 40), (T, 50)] {
            assert_eq!(store.append(&message(topic, 0, b"next", "")).unwrap().queue_offset, QueueOffset(next));
        }
    }
}

#[test]
fn a_topic_that_was_deleted_does_not_come_back() {
    for by_java in [false, true] {
        let site = filled();
        // The log says nothing of it.
        fs::remove_dir_all(root(&site).join("consumequeue/Batch")).unwrap();
        if by_java {
            as_java_leaves_it(&site);
        }
        flip(&site, QUEUE, 66);
        let topics = ["Deleted", T].map(str::to_owned);
        repair_all(&CheckConfig { topics: Some(topics.into()), ..config(&site) });
        for _ in 0..2 {
            assert!(!root(&site).join("consumequeue/Batch").exists(), "by Java: {by_java}");
            let store = site.open();
            assert_eq!(store.queue_bounds("Batch", QueueId(0)), None, "by Java: {by_java}");
            assert_eq!(read_bodies(&store, "Deleted", 0, 0), [(0, b"anew".to_vec())]);
            store.close().unwrap();
        }
    }
}

#[test]
fn a_store_of_java_is_made_again_as_java_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/store-5.3.3");
    for (path, (bytes, ..)) in check_test::tree(&golden) {
        let to = dir.path().join(path.strip_prefix(&golden).unwrap());
        if path.is_dir() {
            fs::create_dir_all(to).unwrap();
        } else {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, bytes).unwrap();
        }
    }
    let (log, queues) = (content(dir.path(), "commitlog"), content(dir.path(), "consumequeue"));
    fs::remove_dir_all(dir.path().join("consumequeue/OtherTopic")).unwrap();
    let path = dir.path().join("consumequeue/TopicTest/0/00000000000000000000");
    let mut entries = fs::read(&path).unwrap();
    entries[..20].fill(7);
    fs::write(&path, entries).unwrap();
    let topics = queues.keys().map(|path| path.parent().unwrap().parent().unwrap());
    let topics = topics.map(|topic| topic.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    let config = CheckConfig { index_shape: Some((1_000, 4_000)), topics: Some(topics), ..CheckConfig::at(dir.path()) };
    let made_with = RepairConfig { segment_len: 16_384, queue_file_entries: 100, ..made_with() };
    let (repaired, left) = try_repair(&config, &made_with).unwrap();
    assert_eq!(left, [], "{repaired:?}");
    assert_eq!(content(dir.path(), "consumequeue"), queues);
    assert_eq!(content(dir.path(), "commitlog"), log);
}

/// One of them was delivered; and other files have more than the checkpoint counts, so that nobody would miss this one.
#[test]
fn timers_are_entered_again_and_those_delivered_are_not() {
    let later_ms = TIMER_DUE_MS + 3_600_000;
    for damage in ["flipped", "missing"] {
        let site = Site::new();
        let store = fill(&site);
        for _ in 0..5 {
            store.append(&message(TIMER_TOPIC, 0, b"timer", &format!("TIMER_OUT_MS\u{1}{later_ms}\u{2}"))).unwrap();
        }
        settle(&store);
        store.close().unwrap();
        let timers = root(&site).join("timers");
        let open = || TimerIndex::open(Arc::new(LocalDisk), timers.clone(), id_of(&site), START_MS).unwrap();
        let timer = |n: u64| {
            let due_ms = if n < 3 { TIMER_DUE_MS + n.cast_signed() * 1000 } else { later_ms };
            Timer { due_ms, offset: QueueOffset(n), cancels: false }
        };
        let mut index = open();
        assert_eq!(index.due(TIMER_DUE_MS).unwrap(), [timer(0)]);
        index.delivered(TIMER_DUE_MS);
        index.save(index.checkpoint()).unwrap();
        (3..8).for_each(|n| index.enter(Some(timer(n))));
        index.write().unwrap();
        drop(index);
        let minute = format!("timers/{:020}", TIMER_DUE_MS / 60_000);
        match damage {
            "flipped" => flip(&site, &minute, 16 + 15),
            _ => fs::remove_file(root(&site).join(&minute)).unwrap(),
        }
        let repaired = repair_all(&config(&site));
        assert_eq!(repaired.moved.len(), usize::from(damage == "flipped"), "{repaired:?}");
        assert_eq!(repaired.made_again.len(), 1);
        // As the broker goes on.
        let mut index = open();
        assert_eq!(index.entered(), QueueOffset(0), "{damage}");
        for n in 0..8 {
            let timer = timer(n);
            assert_eq!(index.was_dealt_with(&timer), n == 0, "{damage}: {n}");
            index.enter(Some(timer).filter(|timer| !index.was_dealt_with(timer)));
        }
        index.write().unwrap();
        let mut came = Vec::new();
        while let Some(first) = index.due(later_ms).unwrap().first().copied() {
            came.push(first.offset.0);
            index.delivered(first.due_ms);
        }
        assert_eq!(came, [1, 2, 3], "{damage}: the last five are due at one time");
    }
}

#[test]
fn what_cannot_be_made_of_anything_is_left_and_told() {
    let site = filled();
    let (at, _) = record_of(&site, T, 0);
    flip(&site, LOG, at + 88);
    flip(&site, QUEUE, 66);
    for place in [3, 4096 + 3] {
        flip(&site, "timers/checkpoint", place);
    }
    let (log, timers) = (content(&root(&site), "commitlog"), content(&root(&site), "timers"));
    let (repaired, left) = try_repair(&config(&site), &made_with()).unwrap();
    assert_eq!(repaired.made_again, ["the queues, out of the log"]);
    let parts: Vec<_> = left.iter().map(|fault| fault.part).collect();
    assert_eq!(parts, [Part::Log, Part::Timers], "{left:#?}");
    assert_eq!((content(&root(&site), "commitlog"), content(&root(&site), "timers")), (log, timers));
    assert!(remedies(parts).values().all(|remedy| !remedy.is_empty()));
}

#[test]
fn what_stands_against_a_repair_is_found_before_anything_is_moved() {
    let site = filled();
    flip(&site, QUEUE, 66);
    let before = content(&root(&site), "consumequeue");
    let config = config(&site);
    let mut damage = Damage::of(&config);
    let found = check(&config, &mut |finding| damage.add(finding)).unwrap();
    let attempt = |config: &CheckConfig, made_with: &RepairConfig| {
        let mut repaired = Repaired::default();
        let error = repair(config, made_with, &damage, &found, &mut repaired).unwrap_err();
        assert_eq!(repaired, Repaired::default());
        error
    };
    let without_topics = CheckConfig { topics: None, ..config.clone() };
    assert!(matches!(attempt(&without_topics, &made_with()), RepairError::NoTopics));
    let other = RepairConfig { segment_len: 8192, ..made_with() };
    assert!(matches!(attempt(&config, &other), RepairError::Open(OpenError::FileLength { .. })));
    let other = RepairConfig { queue_file_entries: 32, ..made_with() };
    assert!(matches!(attempt(&config, &other), RepairError::Open(OpenError::FileLength { .. })));
    let store = site.open();
    assert!(matches!(attempt(&config, &made_with()), RepairError::Open(OpenError::Locked { .. })));
    store.close().unwrap();
    // As when the disk that it is on is not mounted.
    let last = content(&root(&site), "commitlog").into_keys().next_back().unwrap();
    let elsewhere = site.dir.path().join("elsewhere");
    fs::rename(&last, &elsewhere).unwrap();
    assert!(matches!(attempt(&config, &made_with()), RepairError::Open(OpenError::MissingSegment { .. })));
    fs::rename(&elsewhere, &last).unwrap();
    assert_eq!(content(&root(&site), "consumequeue"), before);
    assert!(!root(&site).join("damaged").exists());
}

/// Killed when everything is away and nothing made again.
#[test]
fn a_repair_that_is_killed_is_finished_by_the_next_start() {
    for by_java in [false, true] {
        let site = filled();
        let queues = content(&root(&site), "consumequeue");
        if by_java {
            as_java_leaves_it(&site);
        }
        flip(&site, QUEUE, 66);
        flip(&site, &index_file(&site), 36);
        let config = config(&site);
        let mut damage = Damage::of(&config);
        check(&config, &mut |finding| damage.add(finding)).unwrap();
        open_and_close(store_config(&config, &made_with()), &|_| true).unwrap();
        move_away(&LocalDisk, &config, &made_with(), &damage, &mut Repaired::default()).unwrap();
        let store = site.open();
        assert_indexed(&store);
        store.close().unwrap();
        assert_eq!(content(&root(&site), "consumequeue"), queues, "by Java: {by_java}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_damaged_but_the_log_everything_is_there_again(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 1..200), cuts in any::<bool>(), by_java in any::<bool>(),
    ) {
        let site = filled();
        let queues = content(&root(&site), "consumequeue");
        let dirs = ["consumequeue", "index"].map(|dir| content(&root(&site), dir));
        let files: Vec<_> = dirs.into_iter().flatten().collect();
        if by_java {
            as_java_leaves_it(&site);
        }
        let (path, before) = &files[which.index(files.len())];
        let at = at.index(before.len());
        let mut damaged = before.clone();
        damaged.truncate(if cuts { at } else { before.len() });
        damaged.splice(at.min(damaged.len())..damaged.len().min(at + bytes.len()), bytes);
        fs::write(path, &damaged).unwrap();
        let mut has_faults = false;
        check(&config(&site), &mut |finding| has_faults |= finding.is_fault).unwrap();
        if has_faults {
            match try_repair(&config(&site), &made_with()) {
                Ok((repaired, left)) => prop_assert_eq!(left, [], "{:?}", repaired),
                // A queue that says that the log was longer, and nobody who says that it was not.
                Err(RepairError::Open(OpenError::MissingSegment { .. })) if by_java => return Ok(()),
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        let store = site.open();
        assert_indexed(&store);
        store.close().unwrap();
        for (path, bytes) in content(&root(&site), "consumequeue") {
            let right = &queues[&path];
            let used = right.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            prop_assert_eq!(&bytes[..used], &right[..used], "{}", path.display());
            // What stands behind a queue's end may look like a longer one, where there is no list.
            prop_assert!(by_java || bytes == *right, "{}", path.display());
        }
        prop_assert_eq!(content(&root(&site), "consumequeue").len(), queues.len());
    }
}
