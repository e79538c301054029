//! The topic table: which topics this broker serves, with how many queues and which permissions. Owner of `topics.json`.
//!
//! Reads are one short shared lock and a map look-up; every change bumps the data version, asks for a save and tells the registrar.
//! Java: `TopicConfigManager`.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::body::{DataVersion, TopicConfig, TopicConfigTable};
use ferromq_protocol::message::record::TOPIC_LEN_MAX as NAME_LEN_MAX;
use ferromq_protocol::{TopicName, json, topics as names};
use foldhash::HashMap;
use parking_lot::RwLock;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::live_config::LiveConfig;
use crate::persistence::{self, Persistence, Revision, SaveError, SavedFile, TableError};
use crate::standing::{KnownStanding, Standing};

/// Permission bits of a topic. Java: `PermName`.
pub mod perm {
    pub const READ: i32 = 4;
    pub const WRITE: i32 = 2;
    /// Topics may be created after this one's pattern.
    pub const INHERIT: i32 = 1;
    pub const READ_WRITE: i32 = READ | WRITE;

    /// As Java prints it in remarks and lists: `RW-`.
    pub fn text(perm: i32) -> String {
        [(READ, 'R'), (WRITE, 'W'), (INHERIT, 'X')]
            .iter()
            .map(|&(bit, letter)| if perm & bit != 0 { letter } else { '-' })
            .collect()
    }
}

/// One topic: its configuration, and the saves that make it survive a restart. Derefs to [`TopicConfig`].
pub struct Topic {
    pub config: TopicConfig,
    /// The save after which a restart finds all its messages: that of its creation, or of the change that gave it more queues. Zero for
    /// what the file or the start-up rules gave.
    found_with: Revision,
    /// The save after which a restart finds it as it is; zero as above.
    revision: Revision,
    /// The step of the table that made it what it is; zero as above.
    step: Step,
}

impl Deref for Topic {
    type Target = TopicConfig;

    fn deref(&self) -> &TopicConfig {
        &self.config
    }
}

impl Topic {
    fn saved(config: TopicConfig) -> Topic {
        Topic { config, found_with: 0, revision: 0, step: 0 }
    }
}

/// Numbers the changes of the table since the start.
pub type Step = u64;

/// What a nameserver is to be told.
pub struct TopicReport {
    /// Topics, and the version that the table has with them.
    pub table: TopicConfigTable,
    /// Up to which step of the table this goes.
    pub step: Step,
    /// Whether these are all topics.
    pub whole: bool,
}

/// A table of names takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[OVERLOAD]this broker has {limit} {what}, which is the limit")]
pub struct Full {
    pub what: &'static str,
    pub limit: usize,
}

/// A topic cannot be made while what an earlier one of that name has left is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[OVERLOAD]the topic is being deleted, try again in a moment")]
pub struct DeletionUnderway;

/// A slave has the topics that its master has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this broker is a slave: only its master makes and changes topics")]
pub struct OnSlave;

/// Why a topic that is not there is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMade {
    #[error(transparent)]
    OnSlave(#[from] OnSlave),
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    BeingDeleted(#[from] DeletionUnderway),
}

/// What a send asks for when its topic is unknown.
pub struct CreateOnSend<'a> {
    pub topic: &'a str,
    /// The pattern, normally `TBW102`.
    pub default_topic: &'a str,
    /// What the client wishes; the pattern's write queues are the cap.
    pub queue_count: i32,
    pub topic_sys_flag: i32,
}

/// Most topics. Whoever may send makes them, and every one is in each registration and in `topics.json`.
const TOPICS_MAX: usize = 500_000;

/// Most queues of a topic. Java has no limit; every list and every status walks all queues.
pub(crate) const QUEUES_MAX: i32 = 65_536;

/// Owner of the topic table.
pub struct Topics {
    /// Beyond it, only the topics of the broker itself are made.
    topics_max: usize,
    table: Arc<Table>,
    file: SavedFile,
    config: Arc<LiveConfig>,
    changed: watch::Sender<u64>,
    /// See [`Topics::go_by`].
    standing: KnownStanding,
}

struct Table {
    inner: RwLock<Inner>,
    /// Counts topics put and removed, each after it is so.
    changes: AtomicU64,
}

struct Inner {
    topics: HashMap<TopicName, Arc<Topic>>,
    /// Names that nobody may make a topic of, and how often they are barred.
    barred: HashMap<TopicName, usize>,
    version: DataVersion,
    step: Step,
    /// The step that changed what is registered of every topic.
    step_of_all: Step,
}

impl Inner {
    fn next(&mut self) -> Step {
        self.version.next(now_ms());
        self.step += 1;
        self.step
    }

    fn refuse_barred(&self, topic: &str) -> Result<(), DeletionUnderway> {
        if self.barred.contains_key(topic) { Err(DeletionUnderway) } else { Ok(()) }
    }
}

/// Names that no topic can be made of as long as this is there.
pub struct NameBar<'a> {
    topics: &'a Topics,
    names: Vec<TopicName>,
}

impl Drop for NameBar<'_> {
    fn drop(&mut self) {
        let mut inner = self.topics.table.inner.write();
        for name in &self.names {
            if let Some(count) = inner.barred.get_mut(&**name) {
                *count -= 1;
                if *count == 0 {
                    inner.barred.remove(&**name);
                }
            }
        }
    }
}

impl Topics {
    /// Reads `topics.json` in `config_dir` over the topics that exist on every broker.
    pub fn open(config_dir: &Path, config: &Arc<LiveConfig>, persistence: &Persistence) -> Result<Topics, TableError> {
        let mut topics: HashMap<TopicName, Arc<Topic>> = HashMap::default();
        for topic in built_in(&config.current()) {
            topics.insert(topic.topic_name.clone(), Arc::new(Topic::saved(topic)));
        }
        let path = config_dir.join("topics.json");
        let mut version = DataVersion { counter: 0, state_version: 0, timestamp: now_ms() };
        let loaded: Option<TopicConfigTable> = persistence::load(&path)?;
        let first_start = loaded.is_none();
        if let Some(table) = loaded {
            version = table.data_version;
            for (name, config) in table.topic_config_table {
                topics.insert(name, Arc::new(Topic::saved(config)));
            }
        }
        let table = Arc::new(Table {
            inner: RwLock::new(Inner { topics, barred: HashMap::default(), version, step: 0, step_of_all: 0 }),
            changes: AtomicU64::new(0),
        });
        let rendered = Arc::clone(&table);
        let file = persistence.file(path, move || json::to_vec_pretty(&rendered.snapshot()))?;
        if first_start {
            file.request();
        }
        Ok(Topics {
            topics_max: TOPICS_MAX,
            table,
            file,
            config: Arc::clone(config),
            changed: watch::channel(0).0,
            standing: KnownStanding::default(),
        })
    }

    /// While this broker is a slave, topics are those of its master: none is made or changed here but by [`Topics::take_over`].
    pub(crate) fn go_by(&self, standing: &Arc<Standing>) {
        self.standing.is(standing);
    }

    fn refuse_on_slave(&self) -> Result<(), OnSlave> {
        if self.standing.is_slave() { Err(OnSlave) } else { Ok(()) }
    }

    pub fn find(&self, topic: &str) -> Option<Arc<Topic>> {
        self.table.inner.read().topics.get(topic).cloned()
    }

    /// Grows with each change of a topic: what was found before holds as long as it stays.
    pub fn changes(&self) -> u64 {
        self.table.changes.load(Ordering::SeqCst)
    }

    pub fn contains(&self, topic: &str) -> bool {
        self.table.inner.read().topics.contains_key(topic)
    }

    /// All names, in no particular order.
    pub fn names(&self) -> Vec<TopicName> {
        self.table.inner.read().topics.keys().cloned().collect()
    }

    /// All topics, in no particular order.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.table.inner.read().topics.values().cloned().collect()
    }

    pub fn data_version(&self) -> DataVersion {
        self.table.inner.read().version.clone()
    }

    /// The table as registration and GET_ALL_TOPIC_CONFIG send it; version and topics belong together.
    pub fn snapshot(&self) -> TopicConfigTable {
        self.table.snapshot()
    }

    /// What a nameserver must be told that knows the table up to `known`: the topics changed since, or all of them. Removed topics are not
    /// told, as in Java: nameservers keep what a registration does not list.
    pub fn to_register(&self, known: Option<Step>) -> TopicReport {
        // Copied once the lock is open again, as in `snapshot`.
        let (since, step, data_version, told) = {
            let inner = self.table.inner.read();
            let since = known.filter(|known| *known >= inner.step_of_all);
            let told = inner.topics.values().filter(|topic| since.is_none_or(|since| topic.step > since));
            (since, inner.step, inner.version.clone(), told.cloned().collect::<Vec<_>>())
        };
        TopicReport {
            table: TopicConfigTable {
                data_version,
                topic_config_table: told.iter().map(|topic| (topic.topic_name.clone(), topic.config.clone())).collect(),
                ..TopicConfigTable::default()
            },
            step,
            whole: since.is_none(),
        }
    }

    /// Whether there can be `more` new topics, or why not.
    pub fn check_room(&self, more: usize) -> Result<(), Full> {
        self.check_room_in(&self.table.inner.read(), more)
    }

    fn check_room_in(&self, inner: &Inner, more: usize) -> Result<(), Full> {
        let full = inner.topics.len().saturating_add(more) > self.topics_max;
        if full { Err(Full { what: "topics", limit: self.topics_max }) } else { Ok(()) }
    }

    /// Creates a topic after the pattern that the client names, by Java's rules
    /// (`TopicConfigManager.createTopicInSendMessageMethod`); `None` when they forbid it. An existing topic is returned as it is.
    pub fn create_on_send(&self, wish: &CreateOnSend<'_>) -> Result<Option<Arc<Topic>>, NotMade> {
        let topic = {
            let mut inner = self.table.inner.write();
            if let Some(topic) = inner.topics.get(wish.topic) {
                return Ok(Some(Arc::clone(topic)));
            }
            let Some(pattern) = inner.topics.get(wish.default_topic) else { return Ok(None) };
            let perm =
                if wish.default_topic == names::AUTO_CREATE_TOPIC && !self.config.current().auto_create_topic_enable {
                    perm::READ_WRITE
                } else {
                    pattern.perm
                };
            if perm & perm::INHERIT == 0 {
                return Ok(None);
            }
            self.refuse_on_slave()?;
            self.check_room_in(&inner, 1)?;
            inner.refuse_barred(wish.topic)?;
            let queue_count = wish.queue_count.min(pattern.write_queue_nums).max(0);
            let mut config = new_config(wish.topic, queue_count, perm & !perm::INHERIT);
            config.topic_filter_type = pattern.topic_filter_type;
            config.topic_sys_flag = wish.topic_sys_flag;
            self.put(&mut inner, config)
        };
        info!(
            topic = wish.topic,
            queues = topic.write_queue_nums,
            pattern = wish.default_topic,
            "topic created on send"
        );
        self.announce();
        Ok(Some(topic))
    }

    /// The topic, created with these figures if it does not exist: retry and dead-letter topics.
    /// Java: `createTopicInSendMessageBackMethod`, which also updates the order flag of an existing topic.
    pub fn find_or_create(
        &self,
        topic: &str,
        queue_count: i32,
        perm: i32,
        order: bool,
        topic_sys_flag: i32,
    ) -> Result<Arc<Topic>, NotMade> {
        if let Some(found) = self.find(topic)
            && found.order == order
        {
            return Ok(found);
        }
        let created = {
            let mut inner = self.table.inner.write();
            let config = match inner.topics.get(topic) {
                Some(found) if found.order == order || self.refuse_on_slave().is_err() => return Ok(Arc::clone(found)),
                Some(found) => TopicConfig { order, ..found.config.clone() },
                None => {
                    self.refuse_on_slave()?;
                    if !names::is_system(topic) {
                        self.check_room_in(&inner, 1)?;
                    }
                    inner.refuse_barred(topic)?;
                    TopicConfig { order, topic_sys_flag, ..new_config(topic, queue_count, perm) }
                }
            };
            self.put(&mut inner, config)
        };
        info!(topic, queues = created.write_queue_nums, "topic created");
        self.announce();
        Ok(created)
    }

    /// Puts a topic into the table, new or changed.
    pub fn update(&self, config: TopicConfig) -> Result<Arc<Topic>, DeletionUnderway> {
        let topic = {
            let mut inner = self.table.inner.write();
            inner.refuse_barred(&config.topic_name)?;
            self.put(&mut inner, config)
        };
        self.announce();
        Ok(topic)
    }

    /// Puts several topics under one version step, or none of them.
    pub fn update_all(&self, configs: Vec<TopicConfig>) -> Result<Vec<Arc<Topic>>, DeletionUnderway> {
        let topics = {
            let mut inner = self.table.inner.write();
            configs.iter().try_for_each(|config| inner.refuse_barred(&config.topic_name))?;
            configs.into_iter().map(|config| self.put(&mut inner, config)).collect()
        };
        self.announce();
        Ok(topics)
    }

    /// Until the result is dropped, nobody makes topics of these names: what earlier ones have left is removed meanwhile. Those that are
    /// there stay, until they are removed.
    pub fn bar(&self, names: &[TopicName]) -> NameBar<'_> {
        let mut inner = self.table.inner.write();
        for name in names {
            *inner.barred.entry(name.clone()).or_default() += 1;
        }
        NameBar { topics: self, names: names.to_vec() }
    }

    /// Puts topics that have been removed back as they were.
    pub fn put_back<'a>(&self, topics: impl IntoIterator<Item = &'a Arc<Topic>>) {
        {
            let mut inner = self.table.inner.write();
            for topic in topics {
                self.put(&mut inner, topic.config.clone());
            }
        }
        self.announce();
    }

    /// Takes a topic out. Java does not register after it, because nameservers keep topics that are missing from a registration.
    pub fn remove(&self, topic: &str) -> Option<Arc<Topic>> {
        let mut inner = self.table.inner.write();
        let removed = inner.topics.remove(topic)?;
        self.table.changes.fetch_add(1, Ordering::SeqCst);
        inner.next();
        self.file.request();
        Some(removed)
    }

    /// On a slave: the table becomes the master's, version and all. Nothing happens when the versions are equal, or this broker is no slave
    /// any more. What cannot be a topic is left out, each with a line in the log. Gives the topics that are gone. Java:
    /// `SlaveSynchronize.syncTopicConfig`.
    pub(crate) fn take_over(&self, table: TopicConfigTable) -> Result<Vec<TopicName>, Full> {
        if self.refuse_on_slave().is_ok() || self.data_version() == table.data_version {
            return Ok(Vec::new());
        }
        if table.topic_config_table.len() > self.topics_max {
            return Err(Full { what: "topics", limit: self.topics_max });
        }
        let mut wanted: HashMap<TopicName, TopicConfig> = HashMap::default();
        for (name, config) in table.topic_config_table {
            let config = TopicConfig { topic_name: name.into_owned(), ..config };
            match check_copied(&config) {
                Ok(()) => _ = wanted.insert(config.topic_name.clone(), config),
                Err(error) => {
                    warn!(topic = %config.topic_name.escape_debug(), %error, "a topic of the master is left out");
                }
            }
        }
        let mut inner = self.table.inner.write();
        let gone: Vec<TopicName> = inner.topics.keys().filter(|name| !wanted.contains_key(&***name)).cloned().collect();
        for name in &gone {
            inner.topics.remove(&**name);
        }
        let is_other = |(name, config): &(&TopicName, &TopicConfig)| {
            inner.topics.get(&***name).is_none_or(|known| known.config != **config)
        };
        let changed: Vec<TopicConfig> = wanted.iter().filter(is_other).map(|(_, config)| config.clone()).collect();
        let count = changed.len();
        for config in changed {
            self.put(&mut inner, config);
        }
        inner.version = table.data_version;
        inner.step += 1;
        self.table.changes.fetch_add(1, Ordering::SeqCst);
        self.file.request();
        drop(inner);
        self.announce();
        info!(changed = count, gone = gone.len(), "the topics are those of the master");
        Ok(gone)
    }

    /// Sets the order flag from the nameserver's ORDER_TOPIC_CONFIG: on for the topics listed, off for the others.
    /// Java: `updateOrderTopicConfig`.
    pub fn apply_order_topics(&self, is_ordered: impl Fn(&str) -> bool) {
        if self.refuse_on_slave().is_err() {
            return;
        }
        let mut inner = self.table.inner.write();
        let changed: Vec<TopicConfig> = inner
            .topics
            .values()
            .filter(|topic| topic.order != is_ordered(&topic.topic_name))
            .map(|topic| TopicConfig { order: !topic.order, ..topic.config.clone() })
            .collect();
        for config in changed {
            info!(topic = %config.topic_name, order = config.order, "order flag taken from the nameserver");
            self.put(&mut inner, config);
        }
    }

    /// Whether a restart would find the topic and all messages sent to it, though perhaps not its latest change. One atomic load.
    pub fn is_saved(&self, topic: &Topic) -> bool {
        self.file.is_saved(topic.found_with)
    }

    /// Why the topic is not on disk, if that has been tried in vain. One atomic load for one that is.
    pub fn save_failure(&self, topic: &Topic) -> Option<SaveError> {
        if self.is_saved(topic) { None } else { self.file.failure() }
    }

    /// Runs `done` when the topic [is on disk](Self::is_saved), or with why it is not: an acknowledgement must not outlive its topic.
    pub fn when_saved(&self, topic: &Topic, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        self.file.when_saved(topic.found_with, done);
    }

    /// As [`when_saved`](Self::when_saved), but for the topic as it is, its latest change included.
    pub fn when_change_saved(&self, topic: &Topic, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        self.file.when_saved(topic.revision, done);
    }

    /// Waits until every change so far is on disk, removals too.
    pub fn wait_saved(&self) -> Result<(), SaveError> {
        self.file.wait_saved(self.file.requested())
    }

    /// Steps the version though no topic changed, because what is registered with them did: the broker's own permission.
    pub fn renew_version(&self) {
        {
            let mut inner = self.table.inner.write();
            inner.step_of_all = inner.next();
        }
        self.file.request();
        self.announce();
    }

    /// Asks for a save, whether or not anything changed.
    pub fn save(&self) {
        self.file.request();
    }

    /// Wakes when the table has changed in a way that nameservers must learn.
    pub fn announcements(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn put(&self, inner: &mut Inner, mut config: TopicConfig) -> Arc<Topic> {
        let step = inner.next();
        // Detached from the request that may have brought it.
        config.topic_name = config.topic_name.into_owned();
        let name = config.topic_name.clone();
        // Requested under the lock: the revision then covers this change, since rendering takes the lock too.
        let revision = self.file.request();
        // Without the change, a restart would not read the queues that it adds.
        let known = inner.topics.get(&*name).filter(|known| known.read_queue_nums >= config.read_queue_nums);
        let found_with = known.map_or(revision, |known| known.found_with);
        let topic = Arc::new(Topic { config, found_with, revision, step });
        inner.topics.insert(name, Arc::clone(&topic));
        self.table.changes.fetch_add(1, Ordering::SeqCst);
        topic
    }

    fn announce(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Table {
    fn snapshot(&self) -> TopicConfigTable {
        // Copied once the lock is open again: a send that creates a topic waits for it, and all others behind that one.
        let (data_version, topics): (_, Vec<_>) = {
            let inner = self.inner.read();
            (inner.version.clone(), inner.topics.values().cloned().collect())
        };
        TopicConfigTable {
            data_version,
            topic_config_table: topics.iter().map(|topic| (topic.topic_name.clone(), topic.config.clone())).collect(),
            ..TopicConfigTable::default()
        }
    }
}

/// What a master may have: its own topics and those out of files have other names than clients may give.
fn check_copied(config: &TopicConfig) -> Result<(), &'static str> {
    let name = &*config.topic_name;
    if name.trim().is_empty()
        || name.len() > NAME_LEN_MAX
        || name.contains(['/', '@'])
        || name.contains(char::is_control)
    {
        return Err("no topic can have that name");
    }
    for count in [config.read_queue_nums, config.write_queue_nums] {
        if !(0..=QUEUES_MAX).contains(&count) {
            return Err("no topic can have so many queues");
        }
    }
    Ok(())
}

/// The topic's unit bit, as a client's unit mode asks for. Java: `TopicSysFlag.buildSysFlag`.
pub fn unit_flag(unit_mode: bool, retry: bool) -> i32 {
    match (unit_mode, retry) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    }
}

/// A topic with the same number of read and write queues and everything else at its default.
pub fn new_config(topic: &str, queue_count: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: topic.into(),
        read_queue_nums: queue_count,
        write_queue_nums: queue_count,
        perm,
        ..TopicConfig::default()
    }
}

/// As Java's `TopicConfig.toString`, which clients see in remarks.
pub fn describe(config: &TopicConfig) -> String {
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType={}, topicSysFlag={}, order={}, attributes={{{}}}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        perm::text(config.perm),
        config.topic_filter_type,
        config.topic_sys_flag,
        config.order,
        config.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", "),
    )
}

/// Topics that every broker has from its first start (Java: `TopicConfigManager.init`).
fn built_in(config: &BrokerConfig) -> Vec<TopicConfig> {
    let cluster = &config.broker_cluster_name;
    let broker = &config.broker_name;
    let pattern = perm::READ_WRITE | perm::INHERIT;
    let mut topics = vec![
        new_config(names::SELF_TEST_TOPIC, 1, perm::READ_WRITE),
        new_config(names::BENCHMARK_TOPIC, 1024, perm::READ_WRITE),
        new_config(cluster, 16, if config.cluster_topic_enable { pattern } else { perm::INHERIT }),
        new_config(broker, 1, if config.broker_topic_enable { pattern } else { perm::INHERIT }),
        new_config(names::OFFSET_MOVED_EVENT, 1, perm::READ_WRITE),
        new_config(names::SCHEDULE_TOPIC, 18, perm::READ_WRITE),
        new_config(&names::reply_topic(cluster), 1, perm::READ_WRITE),
        new_config(&names::revive_topic(cluster), config.revive_queue_num, perm::READ_WRITE),
        new_config(&names::sync_broker_member_topic(broker), 1, perm::INHERIT),
        new_config(names::TRANSACTION_HALF_TOPIC, 1, perm::READ_WRITE),
        new_config(names::TRANSACTION_OP_HALF_TOPIC, 1, perm::READ_WRITE),
    ];
    if config.auto_create_topic_enable {
        topics.push(new_config(names::AUTO_CREATE_TOPIC, config.default_topic_queue_nums, pattern));
    }
    if config.trace_topic_enable {
        topics.push(new_config(&config.msg_trace_topic_name, 1, perm::READ_WRITE));
    }
    if config.timer_wheel_enable {
        topics.push(new_config(names::TIMER_TOPIC, 1, perm::READ_WRITE));
    }
    topics
}

#[cfg(test)]
#[path = "topics_test.rs"]
mod tests;
