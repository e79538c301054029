//! Consumer offsets: what each group has committed, pulled and been told to jump to, per topic and queue. Owner of `consumerOffset.json`.
//!
//! Only committed offsets are kept on disk, every `flushConsumerOffsetInterval` when something changed, and no further than the log is on disk:
//! after a power loss new messages would get offsets that count as consumed. Should a file be ahead of the log all the same, such as one that
//! Java has written, what it says is brought back to the end of the queue at the start, and saved before anything new comes. Java:
//! `ConsumerOffsetManager`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use ferromq_protocol::body::{ConsumerOffsetTable, DataVersion, Table};
use ferromq_protocol::{ByteString, GroupName, QueueId, QueueOffset, TopicName, json};
use ferromq_store::{Effort, Store, Want};
use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;
use tracing::{debug, warn};

use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::ha::{OwnCommit, OwnCommits};
use crate::persistence::{self, Persistence, Revision, SaveError, SavedFile, TableError};
use crate::standing::{KnownStanding, Standing};
use crate::topics::Topics;

/// Most queues that groups have offsets in, all together: neither 15 nor 222 asks whether there is such a queue.
const OFFSETS_MAX: usize = 5_000_000;
/// Of one group in one topic.
const QUEUES_MAX: usize = 65_536;
/// Longest name of a topic or group that the master has, in bytes: `@broadcast` may be part of it.
const NAME_LEN_MAX: usize = 300;

/// Owner of the offset table.
pub struct ConsumerOffsets {
    table: Arc<OffsetTable>,
    file: SavedFile,
    store: Arc<Store>,
    /// Commits per step of the data version.
    version_step: u64,
    /// See [`ConsumerOffsets::go_by`].
    standing: KnownStanding,
}

struct OffsetTable {
    inner: Mutex<Inner>,
    /// Resets that are pending; changed under the lock, read without it so that a pull asks for one only where there is any.
    resets: AtomicUsize,
}

struct Inner {
    topics: HashMap<ByteString, Groups>,
    version: DataVersion,
    commits: u64,
    /// Of a slave.
    own: OwnCommits,
    dirty: bool,
    /// Queues of all groups in all topics, and how many there may be.
    count: usize,
    count_max: usize,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
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

/// All offsets of a topic, taken out of the table.
pub struct TopicOffsets {
    topic: ByteString,
    groups: Groups,
}

impl TopicOffsets {
    pub fn is_of(&self, topic: &str) -> bool {
        *self.topic == *topic
    }
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    Done,
    /// Nothing: the group is to go to another place first.
    Reset,
    /// Nothing: there are too many offsets.
    Full,
}

/// A group that only pulls has entries too.
fn has_committed(queues: &BTreeMap<QueueId, Progress>) -> bool {
    queues.values().any(|progress| progress.committed.is_some())
}

impl ConsumerOffsets {
    /// Reads `consumerOffset.json` in `config_dir`. `topics` and `store` are open, and take nothing yet.
    pub fn open(
        config_dir: &Path,
        config: &BrokerConfig,
        topics: &Topics,
        store: &Arc<Store>,
        persistence: &Persistence,
    ) -> Result<ConsumerOffsets, TableError> {
        let path = config_dir.join("consumerOffset.json");
        let mut inner = Inner {
            topics: HashMap::new(),
            version: DataVersion { counter: 0, state_version: 0, timestamp: now_ms() },
            commits: 0,
            own: OwnCommits::default(),
            dirty: false,
            count: 0,
            count_max: OFFSETS_MAX,
            refusing: false,
        };
        let mut is_ahead = false;
        if let Some(table) = persistence::load::<ConsumerOffsetTable>(&path)? {
            inner.version = table.data_version;
            for (key, queues) in table.offset_table {
                // Topic names cannot contain '@'; what follows the first one is the group, with Java's `@broadcast` if it has it.
                let Some((topic, group)) = key.split_once('@') else { continue };
                let known = topics.contains(topic);
                let mut progress = BTreeMap::new();
                for (queue, saved) in queues {
                    let Ok(queue) = u32::try_from(queue).map(QueueId) else { continue };
                    let end = match store.queue_bounds(topic, queue) {
                        Some(bounds) => Some(bounds.max.as_i64()),
                        // Not even the queue's first message is left.
                        None if known => Some(0),
                        // What this broker does not have, it cannot judge.
                        None => None,
                    };
                    let offset = end.map_or(saved, |end| saved.min(end));
                    if offset < saved {
                        warn!(topic, group, %queue, saved, offset, "a group has consumed more messages than the queue has, because the log lost its end; going on at its end");
                        is_ahead = true;
                    }
                    progress.insert(queue, Progress { committed: Some(offset), ..Progress::default() });
                }
                inner.count += progress.len();
                inner.topics.entry(topic.into()).or_default().insert(group.into(), progress);
            }
        }
        let table = Arc::new(OffsetTable { inner: Mutex::new(inner), resets: AtomicUsize::new(0) });
        let (rendered, log) = (Arc::clone(&table), Arc::clone(store));
        let file = persistence.file(path, move || json::to_vec_pretty(&rendered.durable(&log)))?;
        if is_ahead {
            file.save_brought_back()?;
        }
        let version_step = u64::try_from(config.consumer_offset_update_version_step).unwrap_or(0).max(1);
        Ok(ConsumerOffsets { table, file, store: Arc::clone(store), version_step, standing: KnownStanding::default() })
    }

    /// While this broker is a slave, offsets are those of its master ([`ConsumerOffsets::take_over`]), but for what clients commit here
    /// themselves; the version is the master's.
    pub(crate) fn go_by(&self, standing: &Arc<Standing>) {
        self.standing.is(standing);
    }

    fn is_copy(&self) -> bool {
        self.standing.is_slave()
    }

    /// Stores a committed offset. Neither the queue's existence nor the sign is checked, and going back is allowed, as in Java. A reset that
    /// the group has not taken yet stays what it is.
    pub fn commit(&self, topic: &str, group: &str, queue: QueueId, offset: i64) -> Commit {
        let mut inner = self.table.inner.lock();
        let committed = inner.change(topic, group, queue, |progress| {
            let is_free = progress.reset.is_none();
            let before = progress.committed;
            if is_free {
                progress.committed = Some(offset);
            }
            is_free.then_some(before)
        });
        let before = match committed {
            Some(Some(before)) => before,
            Some(None) => return Commit::Reset,
            None => return Commit::Full,
        };
        inner.dirty = true;
        if self.is_copy() {
            inner.own.note(topic, group, queue, before);
            return Commit::Done;
        }
        if !inner.own.is_empty() {
            // Of when it was a slave.
            inner.own.clear();
        }
        inner.commits += 1;
        if inner.commits.is_multiple_of(self.version_step) {
            inner.version.next(now_ms());
        }
        Commit::Done
    }

    /// On a slave: what clients have committed here, and the master may not know.
    pub(crate) fn own_commits(&self) -> Vec<OwnCommit> {
        let inner = self.table.inner.lock();
        if !self.is_copy() || inner.own.is_empty() {
            return Vec::new();
        }
        inner.own.list(|topic, group, queue| inner.topics.get(topic)?.get(group)?.get(&queue)?.committed)
    }

    /// The master has been told of a commit, and has it.
    pub(crate) fn returned(&self, commit: &OwnCommit) {
        let inner = &mut *self.table.inner.lock();
        let OwnCommit { topic, group, queue, offset, .. } = commit;
        let now = inner.known(topic, group, *queue).and_then(|progress| progress.committed);
        if now == Some(*offset) {
            inner.own.forget(topic, group, *queue);
        } else {
            // A later one is to be told.
            inner.own.rebase(topic, group, *queue, *offset);
        }
    }

    /// What the master has of this queue counts.
    pub(crate) fn give_up(&self, commit: &OwnCommit) {
        self.table.inner.lock().own.forget(&commit.topic, &commit.group, commit.queue);
    }

    /// On a slave: puts the master's offsets over those here, but for what clients have committed here and the master was not told of yet.
    /// What is here alone stays. Java: `SlaveSynchronize.syncConsumerOffset`.
    pub(crate) fn take_over(&self, table: ConsumerOffsetTable) {
        let could_be = |name: &str| !name.is_empty() && name.len() <= NAME_LEN_MAX && !name.contains(char::is_control);
        let mut left_out = 0;
        for (key, queues) in &table.offset_table {
            let Some((topic, group)) = key.split_once('@').filter(|(topic, group)| could_be(topic) && could_be(group))
            else {
                left_out += 1;
                continue;
            };
            // Let go of after each, since pulls and commits wait for it.
            let mut inner = self.table.inner.lock();
            if !self.is_copy() {
                return;
            }
            for (queue, offset) in queues {
                let Ok(queue) = u32::try_from(*queue).map(QueueId) else {
                    left_out += 1;
                    continue;
                };
                if inner.own.has(topic, group, queue) {
                    continue;
                }
                let change = |progress: &mut Progress| progress.committed.replace(*offset) != Some(*offset);
                match inner.change(topic, group, queue, change) {
                    Some(is_news) => inner.dirty |= is_news,
                    None => left_out += 1,
                }
            }
        }
        let mut inner = self.table.inner.lock();
        if self.is_copy() && inner.version != table.data_version {
            inner.version = table.data_version;
            inner.dirty = true;
        }
        if left_out > 0 {
            debug!(left_out, "offsets of the master are left out: they are no queue's, or there are too many");
        }
    }

    /// The committed offset; `None` when there is none or a negative one was committed.
    pub fn committed(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        let committed = inner.topics.get(topic)?.get(group)?.get(&queue)?.committed?;
        u64::try_from(committed).ok().map(QueueOffset)
    }

    /// Where the group's last pull of this queue ended; only for show. Java: `commitPullOffset`.
    pub fn record_pull(&self, topic: &str, group: &str, queue: QueueId, next: QueueOffset) {
        self.table.inner.lock().change(topic, group, queue, |progress| progress.pulled = Some(next));
    }

    /// Whether there is anything of a topic.
    pub fn knows_topic(&self, topic: &str) -> bool {
        self.table.inner.lock().topics.contains_key(topic)
    }

    /// See [`record_pull`](Self::record_pull); the committed offset when the group has not pulled since the start. Java: `queryPullOffset`.
    pub fn pulled(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        let progress = inner.topics.get(topic)?.get(group)?.get(&queue)?;
        progress.pulled.or_else(|| progress.committed.and_then(|offset| u64::try_from(offset).ok()).map(QueueOffset))
    }

    /// Leaves a reset for the group's next pull and makes it the committed offset. Java: `assignResetOffset`.
    /// False: there are too many offsets.
    pub fn reset(&self, topic: &str, group: &str, queue: QueueId, offset: QueueOffset) -> bool {
        let mut inner = self.table.inner.lock();
        let earlier = inner.change(topic, group, queue, |progress| {
            progress.committed = Some(i64::try_from(offset.0).unwrap_or(i64::MAX));
            progress.reset.replace(offset)
        });
        let Some(earlier) = earlier else { return false };
        if earlier.is_none() {
            self.table.resets.fetch_add(1, Ordering::SeqCst);
        }
        inner.dirty = true;
        inner.version.next(now_ms());
        true
    }

    /// The pending reset, which stays pending. Java: `queryThenEraseResetOffset` is [`take_reset`](Self::take_reset).
    pub fn pending_reset(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        let inner = self.table.inner.lock();
        inner.topics.get(topic)?.get(group)?.get(&queue)?.reset
    }

    /// The pending reset, which is no longer pending after this.
    pub fn take_reset(&self, topic: &str, group: &str, queue: QueueId) -> Option<QueueOffset> {
        if self.table.resets.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut inner = self.table.inner.lock();
        let reset = inner.known(topic, group, queue)?.reset.take()?;
        self.table.resets.fetch_sub(1, Ordering::SeqCst);
        Some(reset)
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
    /// False: there are too many offsets.
    pub fn copy(&self, topic: &str, from: &str, to: &str) -> bool {
        let mut inner = self.table.inner.lock();
        let inner = &mut *inner;
        let Some(groups) = inner.topics.get_mut(topic) else { return true };
        let Some(queues) = groups.get(from).filter(|queues| has_committed(queues)).cloned() else { return true };
        if inner.count + queues.len() > inner.count_max {
            return false;
        }
        let target = groups.entry(to.into()).or_default();
        inner.count -= target.len();
        target.values_mut().for_each(|progress| progress.committed = None);
        for (queue, progress) in queues {
            target.entry(queue).or_default().committed = progress.committed;
        }
        inner.count += target.len();
        inner.dirty = true;
        true
    }

    /// Forgets all offsets of a topic, if it has any, and gives them.
    pub fn remove_topic(&self, topic: &str) -> Option<TopicOffsets> {
        let mut inner = self.table.inner.lock();
        inner.own.forget_topic(topic);
        let (topic, groups) = inner.topics.remove_entry(topic)?;
        for queues in groups.values() {
            self.table.removed(&mut inner, queues);
        }
        Some(TopicOffsets { topic, groups })
    }

    /// Makes what has been removed what it was. There is room for it, since it was there.
    pub fn put_back(&self, removed: impl IntoIterator<Item = TopicOffsets>) {
        let mut inner = self.table.inner.lock();
        for TopicOffsets { topic, groups } in removed {
            let resets = groups.values().flat_map(BTreeMap::values).filter(|progress| progress.reset.is_some()).count();
            self.table.resets.fetch_add(resets, Ordering::SeqCst);
            inner.count += groups.values().map(BTreeMap::len).sum::<usize>();
            inner.dirty = true;
            for queues in inner.topics.insert(topic, groups).into_iter().flat_map(Groups::into_values) {
                self.table.removed(&mut inner, &queues);
            }
        }
    }

    /// Forgets all offsets of a group.
    pub fn remove_group(&self, group: &str) {
        let mut inner = self.table.inner.lock();
        let mut removed = Vec::new();
        inner.topics.retain(|_, groups| {
            removed.extend(groups.remove(group));
            !groups.is_empty()
        });
        for queues in removed {
            self.table.removed(&mut inner, &queues);
        }
    }

    pub fn data_version(&self) -> DataVersion {
        self.table.inner.lock().version.clone()
    }

    /// The table as GET_ALL_CONSUMER_OFFSET sends it.
    pub fn snapshot(&self) -> ConsumerOffsetTable {
        self.table.snapshot()
    }

    /// Asks for a save if anything was committed since the last one. Should it fail, it is tried again without being asked for.
    pub fn save_if_changed(&self) {
        self.table.request_if_changed(&self.file);
    }

    /// Saves what has changed so far, and runs `done` when it is on disk, or with why it is not. Offsets of messages that are not on disk
    /// themselves stay behind; removals do not.
    pub fn when_saved(&self, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        self.file.when_saved(self.table.request_if_changed(&self.file), done);
    }

    /// As [`when_saved`](Self::when_saved), for threads that may wait.
    pub fn wait_saved(&self) -> Result<(), SaveError> {
        self.file.wait_saved(self.table.request_if_changed(&self.file))
    }

    /// Puts the log on disk first, so that nothing stays behind.
    pub fn when_all_saved(&self, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        let (table, file) = (Arc::clone(&self.table), self.file.clone());
        self.store.when_safe(self.store.watermarks().written, Want::Disk, move |flushed| {
            // Anew, whatever is under way: that may have looked how far the log was before the flush.
            let revision = table.request(&file);
            match flushed {
                Ok(()) => file.when_saved(revision, done),
                Err(_) => done(Err(file.failed("the messages that it stands for are not on disk"))),
            }
        });
    }

    /// As [`when_all_saved`](Self::when_all_saved), for threads that may wait.
    pub fn wait_all_saved(&self) -> Result<(), SaveError> {
        let (done, outcome) = mpsc::channel();
        // The receiver is there until it has been told.
        self.when_all_saved(move |saved| _ = done.send(saved));
        outcome.recv().unwrap_or_else(|_| Err(self.file.failed("the store is closed")))
    }
}

impl Inner {
    /// Allocates only for the first contact of a group with a topic. `None`: there are too many.
    fn change<R>(
        &mut self,
        topic: &str,
        group: &str,
        queue: QueueId,
        change: impl FnOnce(&mut Progress) -> R,
    ) -> Option<R> {
        match self.known(topic, group, queue) {
            Some(progress) => Some(change(progress)),
            None => self.enter(topic, group, queue).map(change),
        }
    }

    fn known(&mut self, topic: &str, group: &str, queue: QueueId) -> Option<&mut Progress> {
        self.topics.get_mut(topic)?.get_mut(group)?.get_mut(&queue)
    }

    /// Makes the entry of a queue that has none.
    fn enter(&mut self, topic: &str, group: &str, queue: QueueId) -> Option<&mut Progress> {
        let queues = self.topics.get(topic).and_then(|groups| groups.get(group)).map_or(0, BTreeMap::len);
        if self.count >= self.count_max || queues >= QUEUES_MAX {
            if !std::mem::replace(&mut self.refusing, true) {
                warn!(topic, group, %queue, count = self.count, "too many consumer offsets, taking no new ones");
            }
            return None;
        }
        self.refusing = false;
        self.count += 1;
        let groups = self.topics.entry(topic.into()).or_default();
        Some(groups.entry(group.into()).or_default().entry(queue).or_default())
    }
}

impl OffsetTable {
    /// Counts what has been taken out.
    fn removed(&self, inner: &mut Inner, queues: &BTreeMap<QueueId, Progress>) {
        inner.count -= queues.len();
        inner.dirty = true;
        let resets = queues.values().filter(|progress| progress.reset.is_some()).count();
        self.resets.fetch_sub(resets, Ordering::SeqCst);
    }

    /// The request that covers every change so far.
    fn request_if_changed(&self, file: &SavedFile) -> Revision {
        // Under the lock: nobody sees the mark gone and the request not made yet.
        let mut inner = self.inner.lock();
        if std::mem::take(&mut inner.dirty) { file.request() } else { file.requested() }
    }

    /// A request that looks at everything anew.
    fn request(&self, file: &SavedFile) -> Revision {
        let mut inner = self.inner.lock();
        inner.dirty = false;
        file.request()
    }

    /// Every offset, as GET_ALL_CONSUMER_OFFSET sends it.
    fn snapshot(&self) -> ConsumerOffsetTable {
        self.copy().into_table()
    }

    /// As it may be on disk: no group is further in a queue than the messages of that are.
    fn durable(&self, store: &Store) -> ConsumerOffsetTable {
        let mut copy = self.copy();
        let mut held_back = false;
        for (topic, groups) in &mut copy.topics {
            let mut ends = HashMap::new();
            for (queue, committed) in groups.iter_mut().flat_map(|(_, queues)| queues) {
                let end = *ends.entry(*queue).or_insert_with(|| durable_end(store, topic, *queue));
                if let Some(DurableEnd { offset, is_whole }) = end
                    && *committed > offset.as_i64()
                {
                    *committed = offset.as_i64();
                    held_back |= !is_whole;
                }
            }
        }
        if held_back {
            // It follows with the next save.
            store.when_safe(store.watermarks().written, Want::Disk, |_| ());
            self.inner.lock().dirty = true;
        }
        copy.into_table()
    }

    /// Commits and pulls wait for the lock, so that nothing is done under it that can be done later.
    fn copy(&self) -> OffsetSnapshot {
        let inner = self.inner.lock();
        let topics = inner.topics.iter().map(|(topic, groups)| {
            let groups = groups.iter().map(|(group, queues)| {
                let committed = queues.iter().filter_map(|(queue, progress)| Some((*queue, progress.committed?)));
                (group.clone(), committed.collect())
            });
            (topic.clone(), groups.collect())
        });
        OffsetSnapshot { topics: topics.collect(), version: inner.version.clone() }
    }
}

type CommittedOffsets = Vec<(QueueId, i64)>;

/// Committed offsets by topic, group and queue.
struct OffsetSnapshot {
    topics: Vec<(ByteString, Vec<(ByteString, CommittedOffsets)>)>,
    version: DataVersion,
}

impl OffsetSnapshot {
    fn into_table(self) -> ConsumerOffsetTable {
        let mut table = ConsumerOffsetTable { data_version: self.version, ..ConsumerOffsetTable::default() };
        for (topic, groups) in self.topics {
            for (group, queues) in groups.into_iter().filter(|(_, queues)| !queues.is_empty()) {
                let committed: Table<i32, i64> =
                    queues.into_iter().map(|(queue, offset)| (queue.as_i32(), offset)).collect();
                table.offset_table.insert(format!("{topic}@{group}"), committed);
                if !group.contains('@') {
                    let topics = table.group_topic_map.entry(GroupName::from(group)).or_default();
                    topics.push(TopicName::from(topic.clone()));
                }
            }
        }
        table
    }
}

/// How much of a queue a power loss leaves.
#[derive(Clone, Copy)]
struct DurableEnd {
    offset: QueueOffset,
    /// All of it.
    is_whole: bool,
}

/// `None` for a queue that this broker does not have.
fn durable_end(store: &Store, topic: &str, queue: QueueId) -> Option<DurableEnd> {
    let flushed = store.watermarks().flushed;
    let bounds = store.queue_bounds(topic, queue)?;
    // After the bounds, so that it is not before the end of their last entry. Entries are in the order of the log.
    if store.queue_end(topic, queue)? <= flushed {
        return Some(DurableEnd { offset: bounds.max, is_whole: true });
    }
    // One that is not there can lose nothing.
    let is_flushed = |offset| match store.queue_entry(topic, queue, QueueOffset(offset), Effort::Full) {
        Ok(entry) => entry.is_none_or(|entry| entry.physical + u64::from(entry.len) <= flushed),
        Err(error) => {
            warn!(topic, %queue, offset, %error, "offsets behind that message are not saved");
            false
        }
    };
    let (mut low, mut high) = (bounds.min.0, bounds.max.0.max(bounds.min.0));
    if low == high || is_flushed(high - 1) {
        return Some(DurableEnd { offset: bounds.max, is_whole: true });
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if is_flushed(middle) { low = middle + 1 } else { high = middle }
    }
    Some(DurableEnd { offset: QueueOffset(low), is_whole: false })
}

#[cfg(test)]
#[path = "consumer_offsets_test.rs"]
mod tests;
