//! Consumer offsets: what each group has committed, pulled and been told to jump to, per topic and queue. Owner of `consumerOffset.json`.
//!
//! Only committed offsets are kept on disk, every `flushConsumerOffsetInterval` when something changed. Java: `ConsumerOffsetManager`; spec store §12.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use ferromq_protocol::body::{ConsumerOffsetTable, DataVersion, Table};
use ferromq_protocol::{ByteString, GroupName, QueueId, QueueOffset, TopicName, json};
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::persistence::{self, Persistence, SaveError, SavedFile, TableError};

/// Owner of the offset table.
pub struct ConsumerOffsets {
    table: Arc<OffsetTable>,
    file: SavedFile,
    /// Commits per step of the data version.
    version_step: u64,
}

struct OffsetTable {
    inner: Mutex<Inner>,
}

struct Inner {
    topics: HashMap<ByteString, Groups>,
    version: DataVersion,
    commits: u64,
    dirty: bool,
}

type Groups = HashMap<ByteString, BTreeMap<QueueId, Progress>>;

/// How far one group is in one queue.
#[derive(Clone, Copy, Default)]
struct Progress {
    /// As committed, even if negative: Java stores it and then treats it as never committed.
    committed: Option<i64>,
    /// Where the group's last pull ended; only in memory.
    pulled: Option<QueueOffset>,
    /// Pending server-side reset; only in memory.
    reset: Option<QueueOffset>,
}

/// A group that only pulls has entries too.
fn has_committed(queues: &BTreeMap<QueueId, Progress>) -> bool {
    queues.values().any(|progress| progress.committed.is_some())
}

impl ConsumerOffsets {
    /// Reads `consumerOffset.json` in `config_dir`.
    pub fn open(
        config_dir: &Path,
        config: &BrokerConfig,
        persistence: &Persistence,
    ) -> Result<ConsumerOffsets, TableError> {
        let path = config_dir.join("consumerOffset.json");
        let mut inner = Inner {
            topics: HashMap::new(),
            version: DataVersion { counter: 0, state_version: 0, timestamp: now_ms() },
            commits: 0,
            dirty: false,
        };
        if let Some(table) = persistence::load::<ConsumerOffsetTable>(&path)? {
            inner.version = table.data_version;
            for (key, queues) in table.offset_table {
                // Topic names cannot contain '@'; what follows the first one is the group, with Java's `@broadcast` if it has it.
                let Some((topic, group)) = key.split_once('@') else { continue };
                let queues = queues
                    .into_iter()
                    .filter_map(|(queue, offset)| {
                        Some((
                            QueueId(u32::try_from(queue).ok()?),
                            Progress { committed: Some(offset), ..Progress::default() },
                        ))
                    })
                    .collect();
                inner.topics.entry(topic.into()).or_default().insert(group.into(), queues);
            }
        }
        let table = Arc::new(OffsetTable { inner: Mutex::new(inner) });
        let rendered = Arc::clone(&table);
        let file = persistence.file(path, move || json::to_vec_pretty(&rendered.snapshot()))?;
        let version_step = u64::try_from(config.consumer_offset_update_version_step).unwrap_or(0).max(1);
        Ok(ConsumerOffsets { table, file, version_step })
    }

    /// Stores a committed offset. Neither the queue's existence nor the sign is checked, and going back is allowed, as in Java.
    pub fn commit(&self, topic: &str, group: &str, queue: QueueId, offset: i64) {
        let mut inner = self.table.inner.lock();
        inner.progress(topic, group, queue).committed = Some(offset);
        inner.dirty = true;
        inner.commits += 1;
        if inner.commits.is_multiple_of(self.version_step) {
            inner.version.next(now_ms());
        }
    }

    /// The committed offset; `None` when there is none or a negative one was committed.
    pub fn committed(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        let committed = inner.topics.get(topic)?.get(group)?.get(&queue)?.committed?;
        u64::try_from(committed).ok().map(QueueOffset)
    }

    /// Where the group's last pull of this queue ended. Java: `commitPullOffset`.
    pub fn record_pull(&self, topic: &str, group: &str, queue: QueueId, next: QueueOffset) {
        self.table.inner.lock().progress(topic, group, queue).pulled = Some(next);
    }

    /// See [`record_pull`](Self::record_pull); the committed offset when the group has not pulled since the start. Java: `queryPullOffset`.
    pub fn pulled(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        let progress = inner.topics.get(topic)?.get(group)?.get(&queue)?;
        progress.pulled.or_else(|| progress.committed.and_then(|offset| u64::try_from(offset).ok()).map(QueueOffset))
    }

    /// Leaves a reset for the group's next pull and makes it the committed offset. Java: `assignResetOffset`.
    pub fn reset(&self, topic: &str, group: &str, queue: QueueId, offset: QueueOffset) {
        let mut inner = self.table.inner.lock();
        let progress = inner.progress(topic, group, queue);
        progress.reset = Some(offset);
        progress.committed = Some(i64::try_from(offset.0).unwrap_or(i64::MAX));
        inner.dirty = true;
        inner.version.next(now_ms());
    }

    /// The pending reset, which stays pending. Java: `queryThenEraseResetOffset` is [`take_reset`](Self::take_reset).
    pub fn pending_reset(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        inner.topics.get(topic)?.get(group)?.get(&queue)?.reset
    }

    /// The pending reset, which is no longer pending after this.
    pub fn take_reset(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let mut inner = self.table.inner.lock();
        inner.topics.get_mut(topic)?.get_mut(group)?.get_mut(&queue)?.reset.take()
    }

    /// Committed offsets of a group in a topic by queue, negative ones left out.
    pub fn of_group(&self, topic: &str, group: &str) -> BTreeMap<QueueId, QueueOffset> {
        let inner = self.table.inner.lock();
        let Some(queues) = inner.topics.get(topic).and_then(|groups| groups.get(group)) else { return BTreeMap::new() };
        queues
            .iter()
            .filter_map(|(queue, progress)| Some((*queue, QueueOffset(u64::try_from(progress.committed?).ok()?))))
            .collect()
    }

    /// Groups that have committed in the topic, negative offsets included. Java: `whichGroupByTopic`.
    pub fn groups_of(&self, topic: &str) -> Vec<GroupName> {
        let inner = self.table.inner.lock();
        let mut groups: Vec<GroupName> = inner
            .topics
            .get(topic)
            .into_iter()
            .flatten()
            .filter(|(group, queues)| !group.contains('@') && has_committed(queues))
            .map(|(group, _)| GroupName::from(&**group))
            .collect();
        groups.sort_unstable_by(|a, b| (**a).cmp(b));
        groups
    }

    /// Topics that the group has committed in. Java: `whichTopicByConsumer`.
    pub fn topics_of(&self, group: &str) -> Vec<TopicName> {
        let inner = self.table.inner.lock();
        let mut topics: Vec<TopicName> = inner
            .topics
            .iter()
            .filter(|(_, groups)| groups.get(group).is_some_and(has_committed))
            .map(|(topic, _)| TopicName::from(&**topic))
            .collect();
        topics.sort_unstable_by(|a, b| (**a).cmp(b));
        topics
    }

    /// Replaces the committed offsets of one group in a topic by another's, if that has any. Java: `cloneOffset`.
    pub fn copy(&self, topic: &str, from: &str, to: &str) {
        let mut inner = self.table.inner.lock();
        let Some(groups) = inner.topics.get_mut(topic) else { return };
        let Some(queues) = groups.get(from).filter(|queues| has_committed(queues)).cloned() else { return };
        let target = groups.entry(to.into()).or_default();
        target.values_mut().for_each(|progress| progress.committed = None);
        for (queue, progress) in queues {
            target.entry(queue).or_default().committed = progress.committed;
        }
        inner.dirty = true;
    }

    /// Forgets all offsets of a topic.
    pub fn remove_topic(&self, topic: &str) {
        let mut inner = self.table.inner.lock();
        inner.dirty |= inner.topics.remove(topic).is_some();
    }

    /// Forgets all offsets of a group.
    pub fn remove_group(&self, group: &str) {
        let mut inner = self.table.inner.lock();
        let mut removed = false;
        inner.topics.retain(|_, groups| {
            removed |= groups.remove(group).is_some();
            !groups.is_empty()
        });
        inner.dirty |= removed;
    }

    pub fn data_version(&self) -> DataVersion {
        self.table.inner.lock().version.clone()
    }

    /// The table as GET_ALL_CONSUMER_OFFSET sends it and the file keeps it.
    pub fn snapshot(&self) -> ConsumerOffsetTable {
        self.table.snapshot()
    }

    /// Asks for a save if anything was committed since the last one. Should it fail, it is tried again without being asked for.
    pub fn save_if_changed(&self) {
        let dirty = std::mem::take(&mut self.table.inner.lock().dirty);
        if dirty {
            self.file.request();
        }
    }

    /// Saves what has changed so far, and runs `done` when it is on disk, or with why it is not.
    pub fn when_saved(&self, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        self.save_if_changed();
        self.file.when_saved(self.file.requested(), done);
    }

    /// As [`when_saved`](Self::when_saved), for threads that may wait.
    pub fn wait_saved(&self) -> Result<(), SaveError> {
        self.save_if_changed();
        self.file.wait_saved(self.file.requested())
    }
}

impl Inner {
    /// Allocates only for the first contact of a group with a topic.
    fn progress(&mut self, topic: &str, group: &str, queue: QueueId) -> &mut Progress {
        if !self.topics.get(topic).is_some_and(|groups| groups.contains_key(group)) {
            self.topics.entry(topic.into()).or_default().insert(group.into(), BTreeMap::new());
        }
        self.topics
            .get_mut(topic)
            .and_then(|groups| groups.get_mut(group))
            .map(|queues| queues.entry(queue).or_default())
            .expect("inserted above")
    }
}

impl OffsetTable {
    fn snapshot(&self) -> ConsumerOffsetTable {
        let inner = self.inner.lock();
        let mut table = ConsumerOffsetTable { data_version: inner.version.clone(), ..ConsumerOffsetTable::default() };
        for (topic, groups) in &inner.topics {
            for (group, queues) in groups {
                let committed: Table<i32, i64> = queues
                    .iter()
                    .filter_map(|(queue, progress)| progress.committed.map(|offset| (queue.as_i32(), offset)))
                    .collect();
                if committed.is_empty() {
                    continue;
                }
                table.offset_table.insert(format!("{topic}@{group}"), committed);
                if !group.contains('@') {
                    table
                        .group_topic_map
                        .entry(GroupName::from(group.clone()))
                        .or_default()
                        .push(TopicName::from(topic.clone()));
                }
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path, persistence: &Persistence) -> ConsumerOffsets {
        let config = BrokerConfig { consumer_offset_update_version_step: 2, ..BrokerConfig::default() };
        ConsumerOffsets::open(directory, &config, persistence).unwrap()
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
        let again = open(directory.path(), &Persistence::default());
        assert_eq!(
            again.of_group("TopicA", "GroupA"),
            BTreeMap::from([(QueueId(0), QueueOffset(10)), (QueueId(3), QueueOffset(7))])
        );
        assert_eq!(again.committed("TopicA", "GroupA@broadcast", QueueId(0)), Some(QueueOffset(5)));
        assert_eq!(again.committed("TopicB", "GroupA", QueueId(0)), None);
        assert_eq!(again.groups_of("TopicA").len(), 1);
        assert_eq!(again.topics_of("GroupA").len(), 1);
        assert_eq!(again.data_version(), offsets.data_version());
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
        assert_eq!(offsets.take_reset("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(4)));
        assert_eq!(offsets.take_reset("TopicA", "GroupA", QueueId(0)), None);
        assert_eq!(offsets.committed("TopicA", "GroupA", QueueId(0)), Some(QueueOffset(4)));
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
}
