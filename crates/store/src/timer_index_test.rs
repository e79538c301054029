//! Timers in order and by minutes, over a disk that takes nothing or loses power, and against a plain list.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::disk::LocalDisk;
use crate::testing::PowerDisk;

const HOUR: i64 = 3_600_000;

fn open(dir: &tempfile::TempDir) -> io::Result<TimerIndex> {
    TimerIndex::open(Arc::new(LocalDisk), dir.path().into(), 0)
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
    assert_eq!((index.count(), index.earliest_ms()), (5, None));
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

#[test]
fn after_a_failed_sync_nothing_is_saved_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut index = open(&dir).unwrap();
    enter(&mut index, &[10]);
    let save = index.begin_save(index.checkpoint()).unwrap();
    index.end_save(&save, Err(TimerSaveError::Sync(io::Error::other("bad block")))).unwrap_err();
    assert!(index.save(index.checkpoint()).unwrap_err().to_string().contains("bad block"));
    assert_eq!(open(&dir).unwrap().checkpoint(), TimerCheckpoint::default());
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
    for damaged in [&b"short"[..], &[7; CHECKPOINT_LEN]] {
        fs::write(checkpoint_path(dir.path()), damaged).unwrap();
        assert_eq!(open(&dir).unwrap().checkpoint(), TimerCheckpoint::default());
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
    // Of a save with a new file: the file, its entries, its sync, its name; the checkpoint, its bytes, its sync, its name, and
    // that again.
    for taken in 0..9 {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(PowerDisk::default()));
        let open = || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), 0).unwrap();
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
    let (dir, disk) = (tempfile::tempdir().unwrap(), Arc::new(PowerDisk::default()));
    let open = || TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), 0).unwrap();
    let mut index = open();
    enter(&mut index, &[10]);
    // All but the last step of the save: the name of the checkpoint is there, and not on the disk.
    *disk.fails_after.lock() = Some(8);
    index.save(index.checkpoint()).unwrap_err();
    *disk.fails_after.lock() = None;
    let mut index = open();
    assert_eq!(index.entered(), QueueOffset(1));
    index.save(index.checkpoint()).unwrap();
    disk.power_loss(dir.path(), || true);
    assert_eq!(open().entered(), QueueOffset(1));
}

#[derive(Clone, Debug)]
enum Step {
    /// In so many ms.
    Enter(i64),
    Pass(i64),
    Write,
    Save,
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
        3 => ahead().prop_map(Step::Pass),
        2 => Just(Step::Write),
        3 => Just(Step::Save),
        2 => ahead().prop_map(Step::SaveSlowly),
        1 => (0..12_usize).prop_map(Step::Fail),
        1 => Just(Step::Recover),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerLoss),
    ]
}

/// An index as the broker uses it, over a queue that loses nothing.
struct Model {
    disk: Arc<PowerDisk>,
    dir: tempfile::TempDir,
    index: TimerIndex,
    now_ms: i64,
    /// When the timers of the queue are due, and which were delivered.
    queue: Vec<i64>,
    delivered: BTreeSet<u64>,
}

impl Model {
    fn new() -> Model {
        let (disk, dir) = (Arc::new(PowerDisk::default()), tempfile::tempdir().unwrap());
        let index = TimerIndex::open(Arc::clone(&disk) as Arc<dyn Disk>, dir.path().join("timers"), 0).unwrap();
        Model { disk, dir, index, now_ms: HOUR, queue: Vec::new(), delivered: BTreeSet::new() }
    }

    fn put(&mut self, ahead_ms: i64) {
        self.queue.push(self.now_ms + ahead_ms);
        self.enter();
    }

    fn enter(&mut self) {
        while let Some(due_ms) = self.queue.get(usize::try_from(self.index.entered().0).unwrap()) {
            let offset = self.index.entered().0;
            if self.index.has_passed(*due_ms) {
                self.delivered.insert(offset);
                self.index.enter(None);
            } else {
                self.index.enter(Some(timer(*due_ms, offset)));
            }
        }
    }

    /// False when the disk does not let it go on.
    fn deliver(&mut self) -> bool {
        loop {
            match self.index.due(self.now_ms) {
                Ok(due) if due.is_empty() => return true,
                Ok(due) => {
                    assert!(due[0].due_ms <= self.now_ms, "early");
                    self.delivered.extend(due.iter().map(|timer| timer.offset.0));
                    self.index.delivered(due[0].due_ms);
                }
                Err(_) => return false,
            }
        }
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
        *self.disk.fails_after.lock() = None;
        if let Some(mut seed) = power_loss {
            self.disk.power_loss(self.dir.path(), || {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed >> 63 == 0
            });
        }
        let disk = Arc::clone(&self.disk) as Arc<dyn Disk>;
        self.index = TimerIndex::open(disk, self.dir.path().join("timers"), 0).unwrap();
        let found = self.index.checkpoint();
        assert!(found.entered >= saved.entered && found.delivered_ms >= saved.delivered_ms, "{found:?} {saved:?}");
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
                Step::Pass(ms) => {
                    model.now_ms += ms;
                    model.deliver();
                }
                // Errors are what this is about.
                Step::Write => drop(model.index.write()),
                Step::Save => drop(model.index.save(model.index.checkpoint())),
                Step::SaveSlowly(ahead_ms) => drop(model.save_slowly(ahead_ms)),
                Step::Fail(after) => *model.disk.fails_after.lock() = Some(after),
                Step::Recover => *model.disk.fails_after.lock() = None,
                Step::Kill => model.open_again(None),
                Step::PowerLoss(seed) => model.open_again(Some(seed)),
            }
        }
        *model.disk.fails_after.lock() = None;
        model.now_ms += 4 * HOUR;
        prop_assert!(model.deliver());
        prop_assert_eq!((model.index.count(), model.index.earliest_ms()), (0, None));
        prop_assert_eq!(model.delivered.len(), model.queue.len());
    }
}
