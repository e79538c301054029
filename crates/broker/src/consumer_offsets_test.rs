//! Offsets in memory, on disk, and after a power loss that takes the end of the log.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use ferromq_protocol::PhysicalOffset;
use ferromq_store::{FlushMode, StoreConfig, Want};
use proptest::prelude::*;

use super::*;
use crate::live_config::LiveConfig;
use crate::testing::{copy_at_an_instant, message};
use crate::topics::{new_config, perm};

fn open(directory: &Path, persistence: &Persistence) -> ConsumerOffsets {
    let config = BrokerConfig { consumer_offset_update_version_step: 2, ..BrokerConfig::default() };
    let live = Arc::new(LiveConfig::new(config.clone(), None));
    let topics = Topics::open(&directory.join("config"), &live, persistence).unwrap();
    let store = Store::open(StoreConfig { segment_len: 1 << 16, ..StoreConfig::at(directory) }).unwrap();
    ConsumerOffsets::open(directory, &config, &topics, &Arc::new(store), persistence).unwrap()
}

#[test]
fn committed_offsets_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let persistence = Persistence::default();
    let offsets = open(directory.path(), &persistence);
    offsets.commit("TopicA", "GroupA", QueueId(0), 10);
    offsets.commit("TopicA", "GroupA", QueueId(3), 7);
    offsets.commit("TopicA", "GroupA@broadcast", QueueId(0), 5);
    offsets.record_pull("TopicB", "GroupA", QueueId(0), QueueOffset(99));
    offsets.save_if_changed();
    persistence.stop();
    let version = offsets.data_version();
    drop(offsets);
    let again = open(directory.path(), &Persistence::default());
    assert_eq!(
        again.of_group("TopicA", "GroupA"),
        BTreeMap::from([(QueueId(0), QueueOffset(10)), (QueueId(3), QueueOffset(7))])
    );
    assert_eq!(again.committed("TopicA", "GroupA@broadcast", QueueId(0)), Some(QueueOffset(5)));
    assert_eq!(again.committed("TopicB", "GroupA", QueueId(0)), None);
    assert_eq!(again.groups_of("TopicA").len(), 1);
    assert_eq!(again.topics_of("GroupA").len(), 1);
    assert_eq!(again.data_version(), version);
}

#[test]
fn there_is_room_for_so_many_offsets_and_for_those_that_are_there() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    offsets.table.inner.lock().count_max = 5;
    for queue in 0..3 {
        assert_eq!(offsets.commit("TopicA", "GroupA", QueueId(queue), 1), Commit::Done);
    }
    assert!(!offsets.copy("TopicA", "GroupA", "GroupB"));
    offsets.record_pull("TopicB", "GroupA", QueueId(0), QueueOffset(1));
    assert!(offsets.reset("TopicB", "GroupB", QueueId(0), QueueOffset(1)));
    assert_eq!(offsets.commit("TopicB", "GroupB", QueueId(1), 1), Commit::Full);
    assert!(!offsets.reset("TopicC", "G", QueueId(0), QueueOffset(1)));
    offsets.record_pull("TopicC", "GroupA", QueueId(0), QueueOffset(1));
    assert!(!offsets.knows_topic("TopicC"), "what was refused leaves nothing");
    // Who is there goes on, and what goes makes room.
    assert_eq!(offsets.commit("TopicA", "GroupA", QueueId(0), 2), Commit::Done);
    offsets.remove_group("GroupB");
    assert_eq!(offsets.commit("TopicC", "GroupA", QueueId(0), 1), Commit::Done);
    offsets.remove_topic("TopicB");
    offsets.remove_topic("TopicC");
    offsets.table.inner.lock().count_max = 6;
    assert!(offsets.copy("TopicA", "GroupA", "GroupB"));
    assert_eq!(offsets.table.inner.lock().count, 6);
    offsets.remove_topic("TopicA");
    assert_eq!(offsets.table.inner.lock().count, 0);
}

#[test]
fn the_version_steps_once_per_so_many_commits() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    let before = offsets.data_version().counter;
    for offset in 0..5 {
        offsets.commit("TopicA", "GroupA", QueueId(0), offset);
    }
    assert_eq!(offsets.data_version().counter, before + 2);
}

#[test]
fn backwards_is_accepted_and_negative_counts_as_never_committed() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    offsets.commit("TopicA", "GroupA", QueueId(0), 10);
    offsets.commit("TopicA", "GroupA", QueueId(0), 3);
    assert_eq!(offsets.committed("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(3)));
    offsets.commit("TopicA", "GroupA", QueueId(0), -5);
    assert_eq!(offsets.committed("TopicA", "GroupA", QueueId(0)), None);
}

#[test]
fn a_reset_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    offsets.reset("TopicA", "GroupA", QueueId(0), QueueOffset(4));
    assert_eq!(offsets.pending_reset("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(4)));
    // What the group has consumed where it was before is not where it is to go.
    assert_eq!(offsets.commit("TopicA", "GroupA", QueueId(0), 9), Commit::Reset);
    assert_eq!(offsets.take_reset("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(4)));
    assert_eq!(offsets.take_reset("TopicA", "GroupA", QueueId(0)), None);
    assert_eq!(offsets.committed("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(4)));
    assert_eq!(offsets.commit("TopicA", "GroupA", QueueId(0), 5), Commit::Done);
}

#[test]
fn resets_are_counted_until_they_are_taken_or_gone() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    let pending = || offsets.table.resets.load(Ordering::SeqCst);
    for (topic, group) in [("TopicA", "GroupA"), ("TopicA", "GroupB"), ("TopicB", "GroupA"), ("TopicB", "GroupB")] {
        for offset in [4, 5] {
            assert!(offsets.reset(topic, group, QueueId(0), QueueOffset(offset)));
        }
    }
    assert_eq!(pending(), 4);
    assert_eq!(offsets.take_reset("TopicB", "GroupB", QueueId(0)), Some(QueueOffset(5)));
    assert_eq!(pending(), 3);
    offsets.remove_topic("TopicA");
    assert_eq!(pending(), 1);
    offsets.remove_group("GroupA");
    assert_eq!(pending(), 0);
}

#[test]
fn a_group_that_only_pulls_has_committed_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    offsets.record_pull("TopicA", "Pulling", QueueId(0), QueueOffset(5));
    assert!(offsets.groups_of("TopicA").is_empty() && offsets.topics_of("Pulling").is_empty());
    for queue in [QueueId(0), QueueId(1)] {
        offsets.commit("TopicA", "GroupA", queue, 9);
    }
    offsets.copy("TopicA", "Pulling", "GroupA");
    assert_eq!(offsets.of_group("TopicA", "GroupA").len(), 2, "there was nothing to replace them by");
    offsets.commit("TopicA", "GroupB", QueueId(0), 3);
    offsets.copy("TopicA", "GroupB", "GroupA");
    assert_eq!(offsets.of_group("TopicA", "GroupA"), BTreeMap::from([(QueueId(0), QueueOffset(3))]));
}

#[test]
fn topics_and_groups_can_be_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let offsets = open(directory.path(), &Persistence::default());
    for (topic, group) in [("TopicA", "GroupA"), ("TopicB", "GroupA"), ("TopicA", "GroupB")] {
        offsets.commit(topic, group, QueueId(0), 1);
    }
    offsets.copy("TopicA", "GroupA", "GroupC");
    assert_eq!(offsets.committed("TopicA", "GroupC", QueueId(0)), Some(QueueOffset(1)));
    offsets.remove_group("GroupA");
    assert_eq!(offsets.topics_of("GroupA"), Vec::<TopicName>::new());
    offsets.remove_topic("TopicA");
    assert_eq!(offsets.committed("TopicA", "GroupB", QueueId(0)), None);
}

const GROUPS: [&str; 2] = ["GroupA", "GroupB"];
const QUEUES: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: u32,
    },
    Flush,
    /// To a part of what the queue has.
    Commit {
        group: usize,
        queue: u32,
        part: f64,
    },
    Save,
    /// Of everything so far, as an administrator's change.
    SaveForSure,
    PowerLoss(Loss),
}

#[derive(Clone, Debug)]
struct Loss {
    /// How much of what is not flushed is lost.
    part: f64,
    /// The offsets in the file are further by this, as a broker may leave them that does not look at the log.
    ahead: i64,
}

fn step() -> impl Strategy<Value = Step> {
    let part = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    prop_oneof![
        6 => (0..QUEUES).prop_map(|queue| Step::Append { queue }),
        2 => Just(Step::Flush),
        4 => (0..GROUPS.len(), 0..QUEUES, part()).prop_map(|(group, queue, part)| Step::Commit { group, queue, part }),
        3 => Just(Step::Save),
        1 => Just(Step::SaveForSure),
        2 => (part(), prop_oneof![Just(0_i64), 0_i64..9]).prop_map(|(part, ahead)| Step::PowerLoss(Loss { part, ahead })),
    ]
}

/// A broker's store, topics and offsets in one directory.
struct House {
    offsets: ConsumerOffsets,
    store: Arc<Store>,
    _topics: Topics,
    _persistence: Persistence,
}

impl House {
    fn open(root: &Path) -> House {
        const NEVER: Duration = Duration::from_secs(24 * 3600);
        let persistence = Persistence::default();
        let (config, config_dir) = (BrokerConfig::default(), root.join("config"));
        let live = Arc::new(LiveConfig::new(config.clone(), None));
        let topics = Topics::open(&config_dir, &live, &persistence).unwrap();
        topics.update(new_config("TopicA", QUEUES.cast_signed(), perm::READ_WRITE)).unwrap();
        topics.wait_saved().unwrap();
        let store = StoreConfig {
            segment_len: 1 << 16,
            // Only when the test says so.
            flush: FlushMode::Async { interval: NEVER, least_pages: 1 << 20, thorough_interval: NEVER },
            index_enabled: false,
            ..StoreConfig::at(root)
        };
        let store = Arc::new(Store::open(store).unwrap());
        let offsets = ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence).unwrap();
        House { offsets, store, _topics: topics, _persistence: persistence }
    }

    /// Where the message ends in the log.
    fn append(&self, queue: QueueId) -> PhysicalOffset {
        self.store.round().append(&message("TopicA", queue, b"message", "")).unwrap().end
    }

    fn flush(&self) {
        let (done, flushed) = mpsc::channel();
        self.store.when_safe(self.store.watermarks().written, Want::Disk, move |outcome| done.send(outcome).unwrap());
        assert_eq!(flushed.recv().unwrap(), Ok(()));
    }

    fn end(&self, queue: u32) -> i64 {
        self.store.queue_bounds("TopicA", QueueId(queue)).map_or(0, |bounds| bounds.max.as_i64())
    }

    fn committed(&self, key: (usize, u32)) -> Option<i64> {
        self.offsets.committed("TopicA", GROUPS[key.0], QueueId(key.1)).map(QueueOffset::as_i64)
    }
}

fn keys() -> impl Iterator<Item = (usize, u32)> {
    (0..GROUPS.len()).flat_map(|group| (0..QUEUES).map(move |queue| (group, queue)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_new_message_counts_as_consumed_after_a_power_loss(steps in prop::collection::vec(step(), 1..30)) {
        take(steps)?;
    }
}

/// The one case that has to be among them.
#[test]
fn an_offset_is_not_saved_ahead_of_its_message() {
    let all = Step::Commit { group: 0, queue: 0, part: 1.0 };
    let loss = Step::PowerLoss(Loss { part: 1.0, ahead: 0 });
    take(vec![Step::Append { queue: 0 }, Step::Append { queue: 0 }, all, Step::Save, loss]).unwrap();
}

fn take(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let root = tempfile::tempdir().unwrap();
    let house = House::open(root.path());
    // Ends of the messages in the log, by queue.
    let mut ends = [const { Vec::new() }; QUEUES as usize];
    // What was saved for sure, until it changes.
    let mut sure: BTreeMap<(usize, u32), i64> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Append { queue } => ends[queue as usize].push(house.append(QueueId(queue))),
            Step::Flush => house.flush(),
            Step::Commit { group, queue, part } => {
                #[expect(clippy::cast_possible_truncation, reason = "a part of a few messages")]
                let offset = (house.end(queue) as f64 * part) as i64;
                house.offsets.commit("TopicA", GROUPS[group], QueueId(queue), offset);
                sure.remove(&(group, queue));
            }
            Step::Save => {
                house.offsets.save_if_changed();
                house.offsets.file.wait_saved(house.offsets.file.requested()).unwrap();
            }
            Step::SaveForSure => {
                house.offsets.wait_all_saved().unwrap();
                sure = keys().filter_map(|key| Some((key, house.committed(key)?))).collect();
            }
            Step::PowerLoss(loss) => lose_power(root.path(), &house, &loss, &ends, &sure)?,
        }
    }
    Ok(())
}

fn lose_power(
    root: &Path,
    house: &House,
    loss: &Loss,
    ends: &[Vec<PhysicalOffset>; QUEUES as usize],
    sure: &BTreeMap<(usize, u32), i64>,
) -> Result<(), TestCaseError> {
    let marks = house.store.watermarks();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small log")]
    let lost = ((marks.written - marks.flushed) as f64 * loss.part) as u64;
    // Between two messages: what a torn one comes to is the store's to say.
    let kept = ends.iter().flatten().map(|end| end.0).filter(|end| *end <= marks.written.0 - lost).max();
    let cut = usize::try_from(kept.unwrap_or(0).max(marks.flushed.0)).unwrap();
    let left = copy_at_an_instant(root);
    // The log from there on; queues are built again, so that only the log counts here.
    let log = left.path().join("commitlog/00000000000000000000");
    if log.exists() {
        let mut bytes = fs::read(&log).unwrap();
        bytes[cut..].fill(0);
        fs::write(&log, bytes).unwrap();
    }
    _ = fs::remove_dir_all(left.path().join("consumequeue"));
    _ = fs::remove_file(left.path().join("checkpoint"));
    let whole = |queue: u32| ends[queue as usize].iter().filter(|end| end.0 <= cut as u64).count() as i64;
    let file = left.path().join("config/consumerOffset.json");
    if let Some(mut table) = persistence::load::<ConsumerOffsetTable>(&file).unwrap() {
        for (key, queues) in &mut table.offset_table {
            for (queue, offset) in queues {
                prop_assert!(*offset <= whole(queue.cast_unsigned()), "{key} queue {queue} is saved at {offset}");
                *offset += loss.ahead;
            }
        }
        fs::write(&file, json::to_vec(&table)).unwrap();
    }

    let after = House::open(left.path());
    for key in keys() {
        let (found, end) = (after.committed(key), whole(key.1));
        prop_assert_eq!(after.end(key.1), end);
        prop_assert!(found.is_none_or(|found| found <= end), "{key:?} goes on from {found:?} of {end}");
        if let Some(sure) = sure.get(&key).filter(|_| loss.ahead == 0) {
            prop_assert_eq!(found, Some(*sure), "{:?}", key);
        }
    }
    // New messages take the offsets of those that were lost, and the broker is killed before it saves anything.
    for queue in 0..QUEUES {
        for _ in 0..10 {
            after.append(QueueId(queue));
        }
    }
    let killed = copy_at_an_instant(left.path());
    let after = House::open(killed.path());
    for key in keys() {
        let (found, end) = (after.committed(key), whole(key.1));
        prop_assert!(found.is_none_or(|found| found <= end), "{key:?} goes on from {found:?}, new messages from {end}");
    }
    Ok(())
}
