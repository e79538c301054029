//! A log in several directories: where its segments go, and what a start does when some are missing, twice or only to be read.

use std::path::{Path, PathBuf};

use ferromq_protocol::{PhysicalOffset, QueueOffset};

use super::*;
use crate::disk::LocalDisk;
use crate::files::segment_name;
use crate::retention_rules::RetentionRules;
use crate::testing::*;
use crate::{AppendError, Effort, TruncateError};

const LEN: u64 = 4096;

/// A store whose log is in the directories `a`, `b` and so on beside its root.
struct Disks {
    site: Site,
}

impl Disks {
    fn new() -> Disks {
        Disks { site: Site::new() }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.site.dir.path().join(name).join("commitlog")
    }

    fn config(&self, names: &[&str]) -> StoreConfig {
        StoreConfig { commit_log_dirs: names.iter().map(|name| self.dir(name)).collect(), ..self.site.config() }
    }

    fn open(&self, names: &[&str]) -> Store {
        Store::open(self.config(names)).unwrap()
    }

    fn refused(&self, config: StoreConfig) -> OpenError {
        match Store::open(config) {
            Err(error) => error,
            Ok(_) => panic!("it opened"),
        }
    }

    /// The segments in a directory, by number.
    fn segments(&self, name: &str) -> Vec<u64> {
        let Ok(entries) = std::fs::read_dir(self.dir(name)) else { return Vec::new() };
        let start = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
        let mut numbers: Vec<_> = entries.map(|entry| start(entry.unwrap().path()) / LEN).collect();
        numbers.sort_unstable();
        numbers
    }

    fn rename(&self, from: &str, to: &str) {
        let at = |name: &str| self.site.dir.path().join(name);
        std::fs::rename(at(from), at(to)).unwrap();
    }
}

/// Puts messages until the log has so many segments; their bodies count up from `first`.
fn fill(store: &Store, first: &mut u64, segments: u64) {
    while store.watermarks().written.0 <= LEN * (segments - 1) {
        let mut body = first.to_be_bytes().to_vec();
        body.resize(500, 7);
        put(store, &body);
        *first += 1;
    }
    settle(store);
}

/// All messages up to number `count` are there, and nothing else.
fn check(store: &Store, count: u64) {
    let numbers: Vec<_> = read_bodies(store, T, 0, 0)
        .iter()
        .map(|(offset, body)| (*offset, u64::from_be_bytes(body[..8].try_into().unwrap())))
        .collect();
    assert_eq!(numbers, (0..count).map(|number| (number, number)).collect::<Vec<_>>());
}

fn even(numbers: &[u64]) -> Vec<u64> {
    numbers.iter().copied().filter(|number| number % 2 == 0).collect()
}

#[test]
fn segments_take_turns_and_are_one_log() {
    let disks = Disks::new();
    let mut count = 0;
    for (clean, segments) in [(true, 5), (false, 9), (true, 12)] {
        // Whatever the order in the list.
        let store = disks.open(&["b", "a"]);
        check(&store, count);
        fill(&store, &mut count, segments);
        if clean {
            store.close().unwrap();
            let (a, b) = (disks.segments("a"), disks.segments("b"));
            assert_eq!(a, even(&(0..segments).collect::<Vec<_>>()));
            assert_eq!(a.len() + b.len(), usize::try_from(segments).unwrap(), "the one made ahead is gone");
        }
    }
    assert!(!disks.site.dir.path().join("store/commitlog").exists());
    let store = disks.open(&["a", "b"]);
    check(&store, count);
    // From the middle of a's to the middle of b's.
    assert_eq!(store.log_disks().into_iter().map(|(dir, _)| dir).collect::<Vec<_>>(), [disks.dir("a"), disks.dir("b")]);
}

#[test]
fn a_log_may_get_more_directories() {
    let disks = Disks::new();
    let mut count = 0;
    for names in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
        let store = disks.open(names);
        check(&store, count);
        let segments = disks.segments("a").len() + disks.segments("b").len() + disks.segments("c").len();
        fill(&store, &mut count, segments as u64 + 6);
        store.close().unwrap();
    }
    assert!(disks.segments("c").iter().all(|number| number % 3 == 2) && disks.segments("c").len() >= 2);
    let store = disks.open(&["c", "b", "a"]);
    check(&store, count);
}

#[test]
fn a_disk_that_is_not_mounted_stops_the_start() {
    for (clean, empty) in [(true, true), (true, false), (false, true), (false, false)] {
        let disks = Disks::new();
        let (store, mut count) = (disks.open(&["a", "b"]), 0);
        fill(&store, &mut count, 6);
        if clean {
            store.close().unwrap();
        } else {
            drop(store);
        }
        for name in ["a", "b"] {
            disks.rename(name, "elsewhere");
            if empty {
                std::fs::create_dir_all(disks.dir(name)).unwrap();
            }
            let error = disks.refused(disks.config(&["a", "b"]));
            let OpenError::MissingSegment { segment, dirs, .. } = &error else { panic!("{error}") };
            assert_eq!(*segment, segment_name(if name == "a" { LEN * 2 } else { LEN }), "{error}");
            assert_eq!(*dirs, [disks.dir("a"), disks.dir("b")]);
            assert!(error.to_string().contains("Mount the disk"), "{error}");
            assert_eq!(disks.site.dir.path().join(name).exists(), empty, "nothing is made where the disk belongs");
            if empty {
                std::fs::remove_dir_all(disks.site.dir.path().join(name)).unwrap();
            }
            disks.rename("elsewhere", name);
        }
        check(&disks.open(&["a", "b"]), count);
    }
}

/// One that has all that is oldest or newest leaves no gap.
#[test]
fn a_missing_end_or_beginning_of_the_log_stops_the_start() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 4);
    store.close().unwrap();
    disks.site.disk.used.lock().push((disks.dir("old"), 0.86));
    let store = disks.open(&["old", "new"]);
    fill(&store, &mut count, 9);
    store.close().unwrap();
    assert_eq!((disks.segments("old").len(), disks.segments("new").len()), (4, 5));
    for (name, missing) in [("new", LEN * 4), ("old", 0)] {
        disks.rename(name, "elsewhere");
        let error = disks.refused(disks.config(&["old", "new"]));
        assert!(
            matches!(&error, OpenError::MissingSegment { segment, .. } if *segment == segment_name(missing)),
            "{error}"
        );
        // Nor without it in the list, when its messages are the newest.
        if name == "new" {
            assert!(matches!(disks.refused(disks.config(&["old"])), OpenError::MissingSegment { .. }));
        }
        disks.rename("elsewhere", name);
    }
    for name in ["old", "new"] {
        disks.rename(name, &format!("{name}-elsewhere"));
    }
    let error = disks.refused(disks.config(&["old", "new"]));
    assert!(
        matches!(&error, OpenError::MissingSegment { segment, .. } if *segment == segment_name(LEN * 8)),
        "{error}"
    );
    for name in ["old", "new"] {
        disks.rename(&format!("{name}-elsewhere"), name);
    }
    check(&disks.open(&["old", "new"]), count);
}

/// Java's checkpoint has no places.
#[test]
fn queues_tell_of_a_missing_end_when_java_was_here() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 3);
    store.close().unwrap();
    disks.site.disk.used.lock().push((disks.dir("old"), 0.86));
    let store = disks.open(&["old", "new"]);
    fill(&store, &mut count, 5);
    store.close().unwrap();
    let checkpoint = disks.site.dir.path().join("store/checkpoint");
    let mut bytes = std::fs::read(&checkpoint).unwrap();
    bytes[64..].fill(0);
    let as_java_left_it = || std::fs::write(&checkpoint, &bytes).unwrap();
    as_java_left_it();
    disks.rename("new", "elsewhere");
    let error = disks.refused(disks.config(&["old", "new"]));
    assert!(
        matches!(&error, OpenError::MissingSegment { segment, .. } if *segment == segment_name(LEN * 3)),
        "{error}"
    );
    disks.rename("elsewhere", "new");
    as_java_left_it();
    check(&disks.open(&["old", "new"]), count);
}

#[test]
fn what_is_lost_for_good_can_be_given_up() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["a"]);
    fill(&store, &mut count, 3);
    store.close().unwrap();
    std::fs::remove_file(disks.dir("a").join(segment_name(LEN * 2))).unwrap();
    let error = disks.refused(disks.config(&["a"]));
    assert!(error.to_string().contains("remove the files checkpoint and inventory"), "{error}");
    for file in ["checkpoint", "inventory"] {
        std::fs::remove_file(disks.site.dir.path().join("store").join(file)).unwrap();
    }
    let store = disks.open(&["a"]);
    let left = store.queue_bounds(T, Q).unwrap().max.0;
    assert!(left > 0 && left < count);
    check(&store, left);
}

/// Of a lost disk only the messages that were on it are lost.
#[test]
fn a_disk_that_is_lost_for_good_is_stepped_over() {
    for clean in [true, false] {
        let disks = Disks::new();
        let (store, mut count) = (disks.open(&["a", "b"]), 0);
        fill(&store, &mut count, 7);
        let on_a: Vec<_> = (0..count)
            .filter(|offset| {
                let entry = store.queue_entry(T, Q, QueueOffset(*offset), Effort::Full).unwrap().unwrap();
                (entry.physical.0 / LEN).is_multiple_of(2)
            })
            .collect();
        if clean {
            store.close().unwrap();
        } else {
            // What nobody says to have been on the disk ends with the first message that is lost.
            store.maintenance.flush_all().and_then(|()| store.checkpoint.save(&*disks.site.disk)).unwrap();
        }
        drop(store);
        std::fs::remove_dir_all(disks.dir("b")).unwrap();
        for lost in ["consumequeue", "index"] {
            std::fs::remove_dir_all(disks.site.dir.path().join("store").join(lost)).unwrap();
        }
        loop {
            match Store::open(disks.config(&["a", "b"])) {
                Ok(_) => break,
                Err(OpenError::MissingSegment { segment, if_lost, .. }) => {
                    assert!(if_lost.contains("file of zeros"), "{if_lost}");
                    std::fs::create_dir_all(disks.dir("b")).unwrap();
                    let path = disks.dir("b").join(segment);
                    std::fs::File::create_new(path).unwrap().set_len(LEN).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..2 {
            let store = disks.open(&["a", "b"]);
            let left: Vec<_> = read_bodies(&store, T, 0, 0).into_iter().map(|(offset, _)| offset).collect();
            assert_eq!(left, on_a, "clean: {clean}");
            assert_eq!(store.queue_bounds(T, Q).unwrap().max.0, count);
        }
        let store = disks.open(&["a", "b"]);
        assert_eq!(store.append(&message(T, 0, b"next", "")).unwrap().queue_offset.0, count);
    }
}

#[test]
fn a_segment_that_is_there_twice_stops_the_start() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["a", "b"]);
    fill(&store, &mut count, 4);
    store.close().unwrap();
    let (one, other) = (disks.dir("a").join(segment_name(0)), disks.dir("b").join(segment_name(0)));
    std::fs::copy(&one, &other).unwrap();
    let error = disks.refused(disks.config(&["a", "b"]));
    let text = error.to_string();
    assert!(matches!(error, OpenError::DoubleSegment { .. }), "{text}");
    assert!(text.contains(one.to_str().unwrap()) && text.contains(other.to_str().unwrap()), "{text}");
    // One of them was never used, and it does not matter how much of it there is.
    for blank in [vec![0; LEN as usize], vec![0; 100], Vec::new()] {
        std::fs::write(&other, blank).unwrap();
        let store = disks.open(&["a", "b"]);
        check(&store, count);
        store.close().unwrap();
        assert!(!other.exists() && one.exists());
    }
    // Both of the next one, made ahead.
    for name in ["a", "b"] {
        std::fs::write(disks.dir(name).join(segment_name(LEN * 4)), vec![0; LEN as usize]).unwrap();
    }
    let store = disks.open(&["a", "b"]);
    fill(&store, &mut count, 6);
    check(&store, count);
    store.close().unwrap();
    assert_eq!((disks.segments("a"), disks.segments("b")), (vec![0, 2, 4], vec![1, 3, 5]));
}

#[test]
fn a_read_only_directory_is_read_and_not_written() {
    let disks = Disks::new();
    let mut count = 0;
    // The fourth segment is used up, so that the log can go on elsewhere.
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 5);
    store.close().unwrap();
    std::fs::create_dir_all(disks.dir("new")).unwrap();
    let last = segment_name(LEN * 4);
    std::fs::rename(disks.dir("old").join(&last), disks.dir("new").join(&last)).unwrap();
    // Made ahead and never used.
    std::fs::write(disks.dir("old").join(segment_name(LEN * 5)), vec![0; LEN as usize]).unwrap();
    let state = || {
        let mut files: Vec<_> =
            std::fs::read_dir(disks.dir("old")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let state = |path: PathBuf| (path.metadata().unwrap().modified().unwrap(), std::fs::read(&path).unwrap(), path);
        files.into_iter().map(state).collect::<Vec<_>>()
    };
    let before = state();
    let with = |names: &[&str]| StoreConfig { read_only_log_dirs: vec![disks.dir("old")], ..disks.config(names) };
    // Beside the others and among them; its disk fails whoever makes something there.
    disks.site.disk.refusing.lock().push((disks.dir("old"), libc::EROFS));
    for (names, clean, segments) in
        [(&["new"][..], true, 7), (&["new", "old"], false, 10), (&["new"], false, 12), (&["new"], true, 13)]
    {
        let store = Store::open(with(names)).unwrap();
        check(&store, count);
        fill(&store, &mut count, segments);
        assert!(store.message_at(PhysicalOffset(0), Effort::Full).unwrap().is_some());
        let inside = PhysicalOffset(500);
        assert!(matches!(store.truncate(inside), Err(TruncateError::ReadOnly { .. })));
        if clean {
            store.close().unwrap();
        }
    }
    assert_eq!(before, state());
    // And it has to be there: not even its absence makes it be made.
    disks.rename("old", "elsewhere");
    let error = disks.refused(with(&["new"]));
    assert!(matches!(&error, OpenError::MissingDir { path } if *path == disks.dir("old")), "{error}");
    std::fs::create_dir_all(disks.dir("old")).unwrap();
    let error = disks.refused(with(&["new"]));
    assert!(matches!(&error, OpenError::MissingSegment { segment, .. } if *segment == segment_name(0)), "{error}");
    // Nor can this be told from the checkpoint of a Java broker.
    std::fs::remove_file(disks.site.dir.path().join("store/checkpoint")).unwrap();
    let error = disks.refused(with(&["new"]));
    assert!(error.to_string().contains("take that directory off the list"), "{error}");
}

#[test]
fn a_log_does_not_end_in_a_read_only_directory() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 3);
    store.close().unwrap();
    let config = || StoreConfig { read_only_log_dirs: vec![disks.dir("old")], ..disks.config(&["new"]) };
    for _ in 0..2 {
        let error = disks.refused(config()).to_string();
        assert!(error.contains(&segment_name(LEN * 2)) && error.contains("take it out of"), "{error}");
    }
    let store = disks.open(&["old"]);
    check(&store, count);
    store.close().unwrap();
    // What was deleted from the log and could not be removed from there is passed over.
    std::fs::create_dir_all(disks.dir("new")).unwrap();
    let last = segment_name(LEN * 2);
    std::fs::rename(disks.dir("old").join(&last), disks.dir("new").join(&last)).unwrap();
    let store = Store::open(config()).unwrap();
    store.checkpoint.log_begins_at(LEN * 2);
    store.close().unwrap();
    std::fs::remove_file(disks.dir("old").join(segment_name(LEN))).unwrap();
    let store = Store::open(config()).unwrap();
    assert_eq!(store.watermarks().min, PhysicalOffset(LEN * 2));
    assert!(disks.dir("old").join(segment_name(0)).exists());
}

/// The log ends before, or in, a segment that nothing is written to, and others come behind that.
#[test]
fn an_end_of_the_log_that_cannot_be_made_removes_nothing() {
    for damaged in [1, 2] {
        let disks = Disks::new();
        let mut count = 0;
        // Nothing is vouched for.
        let never = Duration::from_secs(3600);
        let flush = FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never };
        let config = || StoreConfig {
            flush: flush.clone(),
            queue_flush_interval: never,
            queue_flush_thorough_interval: never,
            read_only_log_dirs: vec![disks.dir("old")],
            ..disks.config(&["a"])
        };
        std::fs::create_dir_all(disks.dir("old")).unwrap();
        let store = Store::open(config()).unwrap();
        fill(&store, &mut count, 4);
        drop(store);
        let name = |dir: &str, number: u64| disks.dir(dir).join(segment_name(LEN * number));
        std::fs::rename(name("a", 2), name("old", 2)).unwrap();
        let before = disks.segments("a");
        assert!(before.contains(&3), "{before:?}");
        let path = name(if damaged == 2 { "old" } else { "a" }, damaged);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[90] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = disks.refused(config()).to_string();
        assert!(error.contains(&segment_name(LEN * 2)), "{error}");
        assert_eq!(disks.segments("a"), before);
    }
}

#[test]
fn a_directory_that_takes_nothing_is_passed_over() {
    for error in [libc::ENOSPC, libc::EIO, libc::EROFS, libc::ENOENT] {
        let disks = Disks::new();
        let (store, mut count) = (disks.open(&["a", "b"]), 0);
        fill(&store, &mut count, 3);
        disks.site.disk.refusing.lock().push((disks.dir("b"), error));
        fill(&store, &mut count, 7);
        check(&store, count);
        disks.site.disk.refusing.lock().clear();
        fill(&store, &mut count, 12);
        let (a, b) = (disks.segments("a"), disks.segments("b"));
        assert!(a.contains(&5) && b.contains(&9), "{a:?} {b:?}");
        drop(store);
        let store = disks.open(&["a", "b"]);
        check(&store, count);
        // Neither: the refusal names both, and that there is no room counts before all else.
        disks.site.disk.refusing.lock().extend([(disks.dir("b"), error), (disks.dir("a"), libc::ENOSPC)]);
        let refusal = loop {
            match store.append(&message(T, 0, &[0; 500], "")) {
                Ok(_) => count += 1,
                Err(refusal) => break refusal,
            }
        };
        let text = refusal.to_string();
        assert!(matches!(refusal, AppendError::DiskFull { .. }), "{text}");
        assert!(["a", "b"].iter().all(|name| text.contains(disks.dir(name).to_str().unwrap())), "{text}");
        disks.site.disk.refusing.lock().clear();
        wait_until(|| store.append(&message(T, 0, &[0; 500], "")).is_ok());
        drop(store);
        assert!(disks.open(&["a", "b"]).queue_bounds(T, Q).unwrap().max.0 > count);
    }
}

#[test]
fn nearly_full_disks_get_no_segments_unless_all_are() {
    let disks = Disks::new();
    let (store, mut count) = (disks.open(&["a", "b", "c"]), 0);
    let used = |used: &[(&str, f64)]| {
        *disks.site.disk.used.lock() = used.iter().map(|(name, used)| (disks.dir(name), *used)).collect();
    };
    let place = |number: u64| store.log_dirs.make_segment(number * LEN).unwrap().path().parent().unwrap().to_owned();
    used(&[("b", 0.86)]);
    // Two are left: number modulo two.
    assert_eq!([100, 101, 102].map(place), ["a", "c", "a"].map(|name| disks.dir(name)));
    used(&[("a", 0.9), ("b", 0.86), ("c", 0.99)]);
    assert_eq!([103, 104, 105].map(place), ["b", "c", "a"].map(|name| disks.dir(name)));
    used(&[("a", 0.85), ("b", 0.85), ("c", 0.86)]);
    assert_eq!([106, 107, 108].map(place), ["a", "b", "a"].map(|name| disks.dir(name)));
    store.change_retention(RetentionRules { forced_ratio: 0.8, ..store.config.retention.clone() });
    used(&[("a", 0.81), ("c", 0.81)]);
    assert_eq!(place(110), disks.dir("b"));
    store.change_retention(store.config.retention.clone());
    used(&[("a", 0.85), ("b", 0.85), ("c", 0.86)]);
    // The full one is there for when the others fail.
    disks.site.disk.refusing.lock().extend([(disks.dir("a"), libc::EIO), (disks.dir("b"), libc::EIO)]);
    assert_eq!(place(109), disks.dir("c"));
    disks.site.disk.refusing.lock().clear();
    for number in 100..111 {
        for name in ["a", "b", "c"] {
            files::remove_file(&LocalDisk, &disks.dir(name).join(segment_name(number * LEN))).unwrap();
        }
    }
    fill(&store, &mut count, 4);
    check(&store, count);
    // Writes go on while one disk has room.
    used(&[("a", 0.97), ("b", 0.97)]);
    assert_eq!(store.log_dirs.least_used(0.75).unwrap().0, disks.dir("c"));
}

#[test]
fn a_segment_half_made_in_one_directory_and_used_in_another() {
    let disks = Disks::new();
    let (store, mut count) = (disks.open(&["a", "b"]), 0);
    fill(&store, &mut count, 3);
    drop(store);
    for name in ["a", "b"] {
        // As a crash leaves it, of the next segment and of one that another directory has taken meanwhile.
        for number in [2, 3] {
            let path = disks.dir(name).join(segment_name(number * LEN));
            if !path.exists() {
                std::fs::write(path, vec![0; 1000]).unwrap();
            }
        }
        let store = disks.open(&["a", "b"]);
        check(&store, count);
        drop(store);
    }
    let store = disks.open(&["a", "b"]);
    fill(&store, &mut count, 5);
    check(&store, count);
}

#[test]
fn a_truncation_goes_through_all_directories() {
    let disks = Disks::new();
    let (store, mut count) = (disks.open(&["a", "b"]), 0);
    fill(&store, &mut count, 2);
    let (end, kept) = (store.watermarks().written, count);
    fill(&store, &mut count, 6);
    store.truncate(end).unwrap();
    assert_eq!(store.watermarks().written, end);
    let mut count = kept;
    check(&store, count);
    fill(&store, &mut count, 5);
    drop(store);
    let store = disks.open(&["a", "b"]);
    check(&store, count);
    store.close().unwrap();
    assert_eq!((disks.segments("a"), disks.segments("b")), (vec![0, 2, 4], vec![1, 3]));
}

#[test]
fn directories_are_locked_and_lie_apart() {
    let disks = Disks::new();
    let _store = disks.open(&["a", "b"]);
    let other = |names: &[&str]| StoreConfig { root: disks.site.dir.path().join("other"), ..disks.config(names) };
    let error = disks.refused(other(&["c", "b"]));
    assert!(matches!(&error, OpenError::Locked { path } if *path == disks.dir("b")), "{error}");
    let error = disks.refused(StoreConfig { read_only_log_dirs: vec![disks.dir("a")], ..other(&["c"]) });
    assert!(matches!(&error, OpenError::Locked { path } if *path == disks.dir("a")), "{error}");
    let config = |reason: &str, config: StoreConfig| {
        let error = disks.refused(config);
        assert!(matches!(&error, OpenError::Config { key: "storePathCommitLog", .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    config("there twice", other(&["c", "c"]));
    config(
        "lies inside",
        StoreConfig { commit_log_dirs: vec![disks.dir("c"), disks.dir("c").join("d")], ..other(&[]) },
    );
    assert!(!disks.dir("c").exists());
    // By another name.
    std::fs::create_dir_all(disks.dir("c")).unwrap();
    let link = disks.site.dir.path().join("link");
    let to = |target: &Path| {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
    };
    to(&disks.dir("c"));
    config("there twice", StoreConfig { commit_log_dirs: vec![disks.dir("c"), link.clone()], ..other(&[]) });
    to(disks.dir("c").parent().unwrap());
    config("lies inside", StoreConfig { commit_log_dirs: vec![disks.dir("c"), link.clone()], ..other(&[]) });
}

/// Messages go from whichever directory is next, and one that is left empty is not taken for a disk that is missing.
#[test]
fn what_is_old_goes_from_all_directories() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 3);
    store.close().unwrap();
    std::fs::create_dir_all(disks.dir("a")).unwrap();
    let name = |number: u64| segment_name(number * LEN);
    std::fs::rename(disks.dir("old").join(name(2)), disks.dir("a").join(name(2))).unwrap();
    let first = std::fs::read(disks.dir("old").join(name(0))).unwrap();
    let open = || {
        let read_only_log_dirs = vec![disks.dir("old")];
        Store::open(StoreConfig { read_only_log_dirs, ..disks.config(&["a", "b"]) }).unwrap()
    };
    let numbers = |store: &Store| store.segments.all().iter().map(|file| file.start() / LEN).collect::<Vec<_>>();
    for (clean, kept, left) in [(true, 4, &[4, 5, 6, 7][..]), (false, 1, &[7]), (true, 1, &[7])] {
        let store = open();
        fill(&store, &mut count, 8);
        store.begin_retention();
        store.change_retention(RetentionRules {
            reserved_bytes: Some(kept * LEN),
            segment_pause: Duration::ZERO,
            ..RetentionRules::default()
        });
        wait_until(|| numbers(&store) == left);
        let max = store.queue_bounds(T, Q).unwrap().max.0;
        assert_eq!(max, count);
        if clean {
            store.close().unwrap();
        }
        drop(store);
        assert!(disks.segments("old").is_empty());
        // As a disk would that lets nothing go.
        std::fs::write(disks.dir("old").join(name(0)), &first).unwrap();
        let store = open();
        assert_eq!(numbers(&store)[0], left[0]);
        let bounds = store.queue_bounds(T, Q).unwrap();
        assert_eq!(bounds.max.0, max);
        let read = read_bodies(&store, T, 0, bounds.min.0);
        assert_eq!(read.len() as u64, max - bounds.min.0);
        store.close().unwrap();
        std::fs::remove_file(disks.dir("old").join(name(0))).unwrap();
    }
    assert_eq!((disks.segments("a"), disks.segments("b")), (vec![], vec![7]));
}

/// A read-only disk that let nothing go has all of the old segments yet, up to where the log begins: no gap tells the two apart.
#[test]
fn left_overs_right_before_the_log_are_passed_over() {
    let disks = Disks::new();
    let mut count = 0;
    let store = disks.open(&["old"]);
    fill(&store, &mut count, 5);
    store.close().unwrap();
    std::fs::create_dir_all(disks.dir("a")).unwrap();
    let name = |number: u64| segment_name(number * LEN);
    for number in [3, 4] {
        std::fs::rename(disks.dir("old").join(name(number)), disks.dir("a").join(name(number))).unwrap();
    }
    let kept: Vec<_> = (0..3).map(|number| std::fs::read(disks.dir("old").join(name(number))).unwrap()).collect();
    let config = || StoreConfig { read_only_log_dirs: vec![disks.dir("old")], ..disks.config(&["a"]) };
    let store = Store::open(config()).unwrap();
    store.begin_retention();
    store.change_retention(RetentionRules {
        reserved_bytes: Some(2 * LEN),
        segment_pause: Duration::ZERO,
        ..RetentionRules::default()
    });
    wait_until(|| store.watermarks().min.0 == 3 * LEN && store.queue_bounds(T, Q).unwrap().min.0 > 0);
    let bounds = store.queue_bounds(T, Q).unwrap();
    store.close().unwrap();
    for clean in [true, false] {
        for (number, bytes) in (0..).zip(&kept) {
            std::fs::write(disks.dir("old").join(name(number)), bytes).unwrap();
        }
        let log = TraceLog::default();
        let store = log.capture(|| Store::open(config()).unwrap());
        assert!(log.text().contains("segments that were deleted are still in a read-only directory"), "{}", log.text());
        assert_eq!(store.watermarks().min.0, 3 * LEN);
        let now = store.queue_bounds(T, Q).unwrap();
        assert_eq!((now.min, now.max), (bounds.min, bounds.max), "clean: {clean}");
        let offsets: Vec<_> = read_bodies(&store, T, 0, 0).into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, (bounds.min.0..bounds.max.0).collect::<Vec<_>>());
        if clean {
            store.close().unwrap();
        }
    }
}
