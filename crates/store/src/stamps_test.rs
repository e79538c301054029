//! Starts that take queues from the list, and what must not be taken from it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use ferromq_protocol::QueueId;

use super::*;
use crate::disk::{Disk as _, FileState, LocalDisk};
use crate::queue_file::{ENTRY_LEN, QueueEntry};
use crate::testing::*;

/// Bodies by topic and queue.
type Sent = BTreeMap<(&'static str, u32), Vec<(u64, Vec<u8>)>>;

const QUEUES: [(&str, u32); 5] = [("A", 0), ("A", 1), ("A", 7), ("B", 0), ("%RETRY%g", 0)];
/// Three files in each queue.
const EACH: u8 = 40;

/// A store of which nothing gets to the disk by itself, with what was sent.
struct Known {
    site: Site,
    sent: Sent,
}

impl Known {
    /// Closed in order.
    fn stopped() -> Known {
        let mut known = Known { site: Site::new(), sent: Sent::new() };
        let store = known.open();
        for number in 0..EACH {
            QUEUES.into_iter().for_each(|(topic, queue)| known.put(&store, topic, queue, number));
        }
        settle(&store);
        store.close().unwrap();
        known
    }

    fn config(&self) -> StoreConfig {
        let never = Duration::from_secs(3600);
        StoreConfig {
            segment_len: 8192,
            queue_flush_interval: never,
            queue_flush_thorough_interval: never,
            ..self.site.config()
        }
    }

    fn open(&self) -> Store {
        Store::open(self.config()).unwrap()
    }

    fn put(&mut self, store: &Store, topic: &'static str, queue: u32, number: u8) {
        let body = [number, u8::try_from(queue).unwrap(), topic.len() as u8];
        let placed = store.append(&message(topic, queue, &body, "")).unwrap();
        self.sent.entry((topic, queue)).or_default().push((placed.queue_offset.0, body.to_vec()));
    }

    /// Everything is there, whatever has to be opened or made again for that.
    fn check(&self, store: &Store) {
        for ((topic, queue), sent) in &self.sent {
            assert_eq!(&read_bodies(store, topic, *queue, 0), sent, "{topic}/{queue}");
        }
    }

    fn dir_of(&self, topic: &str, queue: u32) -> PathBuf {
        root(&self.site).join("consumequeue").join(topic).join(queue.to_string())
    }

    /// The file of a queue's entries of 16 to 32.
    fn second_file(&self, topic: &str, queue: u32) -> PathBuf {
        self.dir_of(topic, queue).join(files::segment_name(16 * ENTRY_LEN as u64))
    }

    fn last_file(&self, topic: &str, queue: u32) -> PathBuf {
        self.dir_of(topic, queue).join(files::segment_name(32 * ENTRY_LEN as u64))
    }
}

/// Those that were taken from the list.
fn listed(store: &Store) -> Vec<(String, u32)> {
    let all = store.queues.all();
    let mut listed: Vec<_> =
        all.iter().filter(|queue| queue.is_listed()).map(|queue| (queue.topic().to_owned(), queue.id().0)).collect();
    listed.sort();
    listed
}

/// All but some.
fn all_but(others: &[(&str, u32)]) -> Vec<(String, u32)> {
    let mut all: Vec<_> =
        QUEUES.iter().filter(|queue| !others.contains(queue)).map(|(topic, id)| ((*topic).to_owned(), *id)).collect();
    all.sort();
    all
}

/// Files of queues that are mapped.
fn mapped(known: &Known) -> usize {
    let dir = root(&known.site).join("consumequeue");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(&*dir.to_string_lossy())).count()
}

/// Changes a byte of a file in place.
fn touch_byte(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Puts a copy, another file, in the place of one.
fn replace_by_copy(path: &Path) {
    let aside = path.with_extension("aside");
    fs::copy(path, &aside).unwrap();
    fs::rename(aside, path).unwrap();
}

#[test]
fn after_a_stop_no_file_of_a_queue_is_opened() {
    let mut known = Known::stopped();
    for round in 0..4_u8 {
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[]), "round {round}");
        // The last message is looked at by its queue.
        assert!(mapped(&known) <= 1, "round {round}: {} are mapped", mapped(&known));
        assert!(!root(&known.site).join("stamps").exists(), "they hold for one start");
        if round > 1 {
            known.check(&store);
        }
        for (topic, queue) in &QUEUES[..usize::from(round)] {
            known.put(&store, topic, *queue, 100 + round);
        }
        settle(&store);
        known.check(&store);
        store.close().unwrap();
    }
}

#[test]
fn where_queues_begin_is_listed_too() {
    let known = Known::stopped();
    let store = known.open();
    let rules = crate::RetentionRules { reserved_bytes: Some(16_384), ..known.config().retention };
    store.change_retention(rules);
    store.retention.go_round(&mut crate::retention::Progress::default());
    assert!(store.watermarks().min.0 > 0);
    let bounds = |store: &Store| QUEUES.map(|(topic, id)| store.queue_bounds(topic, QueueId(id)).unwrap());
    let before = bounds(&store);
    let read = |store: &Store| QUEUES.map(|(topic, id)| read_bodies(store, topic, id, 0));
    let bodies = read(&store);
    store.close().unwrap();
    let store = known.open();
    assert_eq!((listed(&store), bounds(&store), read(&store)), (all_but(&[]), before, bodies));
    store.close().unwrap();
}

#[test]
fn what_was_done_to_files_since_the_stop_is_found() {
    /// What is done, and the queues that it is done to.
    type Damage = (&'static str, fn(&Known), &'static [(&'static str, u32)]);
    let damages: [Damage; 9] = [
        ("a queue's directory removed", |known| fs::remove_dir_all(known.dir_of("A", 1)).unwrap(), &[("A", 1)]),
        ("a file removed", |known| fs::remove_file(known.second_file("A", 1)).unwrap(), &[("A", 1)]),
        (
            "the last file cut off",
            |known| {
                let file = fs::OpenOptions::new().write(true).open(known.last_file("A", 1)).unwrap();
                file.set_len(100).unwrap();
            },
            &[("A", 1)],
        ),
        (
            "a file emptied and of its length again",
            |known| {
                let file = fs::OpenOptions::new().write(true).open(known.last_file("A", 1)).unwrap();
                file.set_len(0).unwrap();
                file.set_len(16 * ENTRY_LEN as u64).unwrap();
            },
            &[("A", 1)],
        ),
        (
            "a byte of the last entry changed",
            |known| touch_byte(&known.last_file("A", 1), 7 * ENTRY_LEN as u64 + 5),
            &[("A", 1)],
        ),
        (
            "a file swapped with another queue's",
            |known| {
                let (one, other, aside) =
                    (known.last_file("A", 1), known.last_file("B", 0), known.dir_of("A", 1).join("x"));
                fs::rename(&one, &aside).unwrap();
                fs::rename(&other, &one).unwrap();
                fs::rename(&aside, &other).unwrap();
            },
            &[("A", 1), ("B", 0)],
        ),
        (
            "two directories swapped",
            |known| {
                let (one, other) = (known.dir_of("A", 0), known.dir_of("A", 7));
                fs::rename(&one, known.dir_of("A", 9)).unwrap();
                fs::rename(&other, &one).unwrap();
                fs::rename(known.dir_of("A", 9), &other).unwrap();
            },
            &[("A", 0), ("A", 7)],
        ),
        ("a copy in the place of a file", |known| replace_by_copy(&known.second_file("A", 1)), &[("A", 1)]),
        (
            "a directory in the place of a file",
            |known| {
                fs::remove_file(known.last_file("A", 1)).unwrap();
                fs::create_dir(known.last_file("A", 1)).unwrap();
            },
            &[("A", 1)],
        ),
    ];
    for (what, damage, of) in damages {
        let mut known = Known::stopped();
        damage(&known);
        let store = known.open();
        assert_eq!(listed(&store), all_but(of), "{what}");
        known.check(&store);
        for (topic, queue) in QUEUES {
            known.put(&store, topic, queue, 200);
        }
        settle(&store);
        known.check(&store);
        store.close().unwrap();
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[]), "{what}: at the second start");
        known.check(&store);
    }
}

/// A byte changed right behind the stop, within a step of the clock that dates files.
#[test]
fn a_change_right_behind_the_stop_is_found() {
    let mut known = Known::stopped();
    for number in 0..30 {
        let store = known.open();
        known.put(&store, "A", 1, number);
        settle(&store);
        store.close().unwrap();
        touch_byte(&known.last_file("A", 0), 3);
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[("A", 0)]), "round {number}");
        drop(store);
        touch_byte(&known.last_file("A", 0), 3);
        let store = known.open();
        known.check(&store);
        store.close().unwrap();
    }
}

/// A file beside those of a queue is none of it, whatever it has: the list says how far the queue goes.
#[test]
fn a_file_too_many_is_none_of_the_queue() {
    let mut known = Known::stopped();
    let next = known.dir_of("A", 1).join(files::segment_name(48 * ENTRY_LEN as u64));
    fs::copy(known.second_file("A", 0), &next).unwrap();
    let store = known.open();
    known.check(&store);
    (0..20).for_each(|number| known.put(&store, "A", 1, number));
    settle(&store);
    known.check(&store);
    store.close().unwrap();
    known.check(&known.open());
}

/// Another file in the place of one that the broker uses, which it then writes to: by its own stop it must not pass for the right one.
#[test]
fn a_file_replaced_under_a_running_broker_is_not_vouched_for() {
    type Replace = fn(&Known, &Store);
    let read_first: Replace = |known, store| known.check(store);
    let unread: Replace = |_, _| {};
    for (what, before) in [("never opened", unread), ("open before", read_first)] {
        let mut known = Known::stopped();
        // One mapping only: each file that is asked for takes that of the one before.
        let store = Store::open(StoreConfig { queue_mappings_max: 1, ..known.config() }).unwrap();
        assert_eq!(listed(&store), all_but(&[]));
        before(&known, &store);
        let (file, other) = (known.last_file("A", 1), known.last_file("B", 0));
        // Entries of another queue.
        let aside = file.with_extension("aside");
        fs::copy(other, &aside).unwrap();
        fs::rename(aside, &file).unwrap();
        known.put(&store, "A", 1, 201);
        known.put(&store, "A", 0, 202);
        settle(&store);
        store.close().unwrap();
        // As if nobody had noticed: what it would take from the list is right all the same.
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[("A", 1)]), "{what}");
    }
}

#[test]
fn what_a_process_did_not_look_at_keeps_the_stamp_that_it_had() {
    let mut known = Known::stopped();
    let store = known.open();
    known.put(&store, "A", 0, 1);
    settle(&store);
    // Nobody reads these queues in this run.
    touch_byte(&known.second_file("A", 1), 3);
    replace_by_copy(&known.last_file("B", 0));
    store.close().unwrap();
    let store = known.open();
    assert_eq!(listed(&store), all_but(&[("A", 1), ("B", 0)]));
    drop(store);
    touch_byte(&known.second_file("A", 1), 3);
    known.check(&known.open());
}

/// A file that is only read, and changed by somebody meanwhile.
#[test]
fn what_a_process_only_read_keeps_the_stamp_that_it_had() {
    for first_start_lists in [true, false] {
        let known = Known::stopped();
        if !first_start_lists {
            fs::remove_file(root(&known.site).join("stamps")).unwrap();
        }
        let store = known.open();
        known.check(&store);
        let before = if first_start_lists { all_but(&[]) } else { Vec::new() };
        assert_eq!(listed(&store), before);
        touch_byte(&known.second_file("A", 1), 3);
        store.close().unwrap();
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[("A", 1)]));
        drop(store);
        touch_byte(&known.second_file("A", 1), 3);
        known.check(&known.open());
    }
}

/// Copies everything below a directory, with the times that a copy can set.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_tree(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
            let times = fs::FileTimes::new().set_modified(path.metadata().unwrap().modified().unwrap());
            File::options().write(true).open(&to).unwrap().set_times(times).unwrap();
        }
    }
}

#[test]
fn a_copy_is_opened_as_a_whole() {
    for running in [false, true] {
        let mut known = Known::stopped();
        let (root, copy) = (root(&known.site), known.site.dir.path().join("copy"));
        if running {
            // Taken file by file, while the broker goes on: no `abort` yet, and stamps from before.
            let stamps = fs::read(root.join("stamps")).unwrap();
            let store = known.open();
            known.put(&store, "A", 0, 1);
            settle(&store);
            copy_tree(&root, &copy);
            fs::remove_file(copy.join("abort")).unwrap();
            fs::write(copy.join("stamps"), stamps).unwrap();
            store.close().unwrap();
        } else {
            copy_tree(&root, &copy);
        }
        // In its place, as one that is brought back.
        fs::remove_dir_all(&root).unwrap();
        fs::rename(&copy, &root).unwrap();
        let store = known.open();
        assert_eq!(listed(&store), [], "running: {running}");
        known.check(&store);
        store.close().unwrap();
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[]), "running: {running}");
        known.check(&store);
    }
}

#[test]
fn a_stop_with_much_to_be_written_syncs_the_file_system_once() {
    const MANY: u32 = 40;
    let site = Site::new();
    let never = Duration::from_secs(3600);
    let config = |queue_syncs_max| StoreConfig {
        queue_syncs_max,
        queue_flush_interval: never,
        queue_flush_thorough_interval: never,
        ..site.config()
    };
    let put_all = |store: &Store| {
        for queue in 0..MANY {
            store.append(&message(T, queue, b"x", "")).unwrap();
        }
        settle(store);
    };
    let syncs = || site.disk.file_system_syncs.swap(0, Ordering::SeqCst);
    for (syncs_max, expected) in [(MANY as usize, 0), (10, 1)] {
        let store = Store::open(config(syncs_max)).unwrap();
        put_all(&store);
        store.close().unwrap();
        assert_eq!(syncs(), expected);
    }
    let store = Store::open(config(10)).unwrap();
    assert_eq!(listed(&store).len(), MANY as usize);
    put_all(&store);
    store.maintenance.flush_all().unwrap();
    assert_eq!(syncs(), 0, "who is in no hurry keeps others' files from the disk");
    // Nothing is left to be synced.
    store.close().unwrap();
    assert_eq!(syncs(), 0);

    // One that fails is a failed sync: nobody knows what the disk holds.
    let store = Store::open(config(10)).unwrap();
    put_all(&store);
    site.disk.file_system_sync_fails.store(true, Ordering::SeqCst);
    let error = store.close().unwrap_err();
    assert!(matches!(error, CloseError::Sync { .. }), "{error}");
    assert!(!root(&site).join("stamps").exists());
    let abort = fs::read_to_string(root(&site).join("abort")).unwrap();
    assert_eq!(abort.lines().nth(1), Some(abort::DISTRUST));
    site.disk.file_system_sync_fails.store(false, Ordering::SeqCst);
    let store = Store::open(config(10)).unwrap();
    assert_eq!(listed(&store), []);
    for queue in 0..MANY {
        assert_eq!(read_bodies(&store, T, queue, 0).len(), 4, "queue {queue}");
    }
}

#[test]
fn no_failed_sync_leaves_stamps() {
    let mut known = Known::stopped();
    let store = known.open();
    known.put(&store, "A", 0, 1);
    settle(&store);
    known.site.disk.sync_fails.store(true, Ordering::SeqCst);
    store.maintenance.flush_all().unwrap_err();
    store.close().unwrap_err();
    known.site.disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(!root(&known.site).join("stamps").exists());
    let store = known.open();
    assert_eq!(listed(&store), []);
    known.check(&store);
}

#[test]
fn a_start_that_is_not_after_a_stop_takes_nothing_from_the_list() {
    let mut known = Known::stopped();
    let stamps = root(&known.site).join("stamps");
    let kept = fs::read(&stamps).unwrap();
    let store = known.open();
    known.put(&store, "A", 0, 1);
    settle(&store);
    store.flusher.flush().unwrap();
    drop(store);
    // Killed; somebody has brought the stamps back, and then removed `abort`.
    for abort_too in [false, true] {
        fs::write(&stamps, &kept).unwrap();
        if abort_too {
            fs::remove_file(root(&known.site).join("abort")).unwrap();
        }
        let store = known.open();
        assert_eq!(listed(&store), [], "without abort: {abort_too}");
        known.check(&store);
        known.put(&store, "A", 0, 2);
        settle(&store);
        store.flusher.flush().unwrap();
    }
}

#[test]
fn stamps_are_of_one_inventory() {
    let known = Known::stopped();
    let inventory = root(&known.site).join("inventory");
    // An older FerroMQ that was there in between writes the same list once more, and leaves the stamps.
    let bytes = fs::read(&inventory).unwrap();
    files::replace(&LocalDisk, &inventory, &bytes).unwrap();
    let store = known.open();
    assert_eq!(listed(&store), []);
    known.check(&store);
    store.close().unwrap();
    // Java's broker moves the checkpoint's times, and knows nothing of the rest.
    let checkpoint = File::options().write(true).open(root(&known.site).join("checkpoint")).unwrap();
    checkpoint.write_all_at(&(START_MS + 1_000_000).to_be_bytes(), 0).unwrap();
    let store = known.open();
    assert_eq!(listed(&store), []);
    known.check(&store);
    store.close().unwrap();
    let store = known.open();
    assert_eq!(listed(&store), all_but(&[]));
    store.close().unwrap();
    // Whatever the stamps say, the list is asked for how far a queue goes.
    fs::remove_file(&inventory).unwrap();
    let store = known.open();
    assert_eq!(listed(&store), []);
    known.check(&store);
}

#[test]
fn damaged_stamps_are_none() {
    let known = Known::stopped();
    let stamps = root(&known.site).join("stamps");
    let bytes = fs::read(&stamps).unwrap();
    let kept = known.site.dir.path().join("kept");
    for at in (0..bytes.len()).step_by(7) {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        for bad in [&bad, &bytes[..at]] {
            fs::write(&kept, bad).unwrap();
            fs::rename(&kept, &stamps).unwrap();
            let checkpoint = Checkpoint::open(root(&known.site).join("checkpoint")).unwrap();
            let inventory = Inventory::open(&LocalDisk, &root(&known.site), &checkpoint).unwrap();
            let read = Stamped::read(&LocalDisk, &root(&known.site), &inventory, known.config().queue_file_entries);
            assert!(read.is_none(), "byte {at}");
        }
    }
    fs::remove_file(&stamps).unwrap();
    fs::create_dir(&stamps).unwrap();
    let store = known.open();
    known.check(&store);
    store.close().unwrap();
    assert!(known.open().queues.all().iter().all(|queue| queue.is_listed()));
}

/// The log has lost its end since: queues end with it, though their own files are as they were.
#[test]
fn a_queue_from_the_list_ends_with_the_log() {
    let mut known = Known::stopped();
    let store = known.open();
    known.put(&store, "A", 7, 1);
    settle(&store);
    let end = store.watermarks().written.0;
    store.close().unwrap();
    let outcome = |with_stamps: bool| {
        let copy = known.site.dir.path().join(format!("kept {with_stamps}"));
        let start = end - end % 8192;
        let segment = root(&known.site).join("commitlog").join(files::segment_name(start));
        let bytes = fs::read(&segment).unwrap();
        let mut torn = bytes.clone();
        torn[usize::try_from(end - start).unwrap() - 30..].fill(0);
        fs::write(&segment, &torn).unwrap();
        if !with_stamps {
            copy_tree(&root(&known.site), &copy);
            let config = StoreConfig { root: copy.clone(), ..known.config() };
            let store = Store::open(config).unwrap();
            assert_eq!(listed(&store), []);
            let outcome =
                (store.queue_bounds("A", QueueId(7)), store.watermarks().written, read_whole_bodies(&store, "A", 7, 0));
            drop(store);
            fs::write(&segment, bytes).unwrap();
            return outcome;
        }
        let store = known.open();
        assert_eq!(listed(&store), all_but(&[]));
        (store.queue_bounds("A", QueueId(7)), store.watermarks().written, read_whole_bodies(&store, "A", 7, 0))
    };
    assert_eq!(outcome(false), outcome(true));
}

/// Written out by who mends an entry that was found damaged: until it is, the queue has no stamps.
#[test]
fn what_is_not_on_the_disk_is_not_stamped() {
    let known = Known::stopped();
    let store = known.open();
    let queue = store.queues.find("A", QueueId(1)).unwrap();
    let entry = queue.entry(20).unwrap().unwrap();
    queue.mend(20, &entry, &QueueEntry { tags_code: 7, ..entry }).unwrap();
    store.close().unwrap();
    let store = known.open();
    assert_eq!(listed(&store), all_but(&[("A", 1)]));
}

/// The only one that is not taken from the list: of one file, and with a length that could be a setting.
#[test]
fn a_queue_cut_off_beside_those_of_the_list_is_no_other_setting() {
    let mut known = Known::stopped();
    let store = known.open();
    known.put(&store, "Single", 0, 1);
    settle(&store);
    store.close().unwrap();
    let file = known.dir_of("Single", 0).join(files::segment_name(0));
    File::options().write(true).open(file).unwrap().set_len(4 * ENTRY_LEN as u64).unwrap();
    let store = known.open();
    assert_eq!(listed(&store), all_but(&[]));
    known.check(&store);
}

/// The first round of retention after a start from the list makes queues follow the log as any other does.
#[test]
fn queues_of_the_list_follow_the_log() {
    let known = Known::stopped();
    let store = known.open();
    assert_eq!(listed(&store), all_but(&[]));
    let rules = crate::RetentionRules { reserved_bytes: Some(16_384), ..known.config().retention };
    store.change_retention(rules);
    store.retention.go_round(&mut crate::retention::Progress::default());
    assert!(store.watermarks().min.0 > 0);
    for (topic, id) in QUEUES {
        let min = store.queue_bounds(topic, QueueId(id)).unwrap().min.0;
        let bodies = read_bodies(&store, topic, id, 0);
        assert_eq!(bodies.first().map(|(offset, _)| *offset), Some(min), "{topic}/{id}");
        let entry = store.queue_entry(topic, QueueId(id), ferromq_protocol::QueueOffset(min), crate::Effort::Full);
        assert!(entry.unwrap().unwrap().physical >= store.watermarks().min, "{topic}/{id}");
        assert!(min > 0, "{topic}/{id}");
    }
}

#[test]
fn another_length_of_queue_files_is_still_said() {
    let known = Known::stopped();
    let config = StoreConfig { queue_file_entries: 32, ..known.config() };
    assert!(matches!(Store::open(config), Err(OpenError::FileLength { .. })));
    assert_eq!(listed(&known.open()), all_but(&[]), "and nothing has changed");
}

#[test]
fn a_file_of_just_now_has_no_stamp_and_one_of_the_future_neither() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let file = File::create(&path).unwrap();
    file.set_len(10).unwrap();
    let state = LocalDisk.state_of(&path, &file).unwrap();
    let mut seen = stamps::Seen::default();
    assert_eq!(seen.stamp(&LocalDisk, &path, 10, false), Err(stamps::Unstamped::Unknown));
    seen.note(&path, &FileState { is_settled: false, ..state });
    let stamp = || seen.stamp(&LocalDisk, &path, 10, false);
    wait_until(|| stamp().is_ok());
    assert_eq!(stamp(), Ok(stamps::FileStamp::of(&LocalDisk.state(&path).unwrap())));
    assert_eq!(seen.stamp(&LocalDisk, &path, 11, false), Err(stamps::Unstamped::Unknown), "not its length");
    touch_byte_of_empty(&path);
    assert_ne!(stamp(), Ok(stamps::FileStamp::of(&state)));
}

fn touch_byte_of_empty(path: &Path) {
    File::options().write(true).open(path).unwrap().write_all_at(b"x", 0).unwrap();
}
