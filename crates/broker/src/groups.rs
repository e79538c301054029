//! Subscription groups: what each consumer group may do and how its failures are retried. Owner of `subscriptionGroup.json`.
//!
//! Java: `SubscriptionGroupManager`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::body::{DataVersion, SubscriptionGroup, SubscriptionGroupTable};
use ferromq_protocol::{GroupName, TopicName, json, topics as names};
use parking_lot::RwLock;
use tracing::{info, warn};

use crate::clock::now_ms;
use crate::live_config::LiveConfig;
use crate::persistence::{self, Persistence, SaveError, SavedFile, TableError};
use crate::standing::{KnownStanding, Standing};
use crate::topics::Full;

/// Most groups, and most pairs of group and topic that are forbidden. Whoever may pull makes groups.
const GROUPS_MAX: usize = 200_000;
/// Longest name of a group that the master has, in bytes.
const NAME_LEN_MAX: usize = 255;

/// Owner of the group table.
pub struct Groups {
    groups_max: usize,
    table: Arc<Table>,
    file: SavedFile,
    config: Arc<LiveConfig>,
    /// See [`Groups::go_by`].
    standing: KnownStanding,
}

struct Table {
    inner: RwLock<Inner>,
    /// Counts changes of groups and of what is forbidden, each after it is so.
    changes: AtomicU64,
}

struct Inner {
    groups: HashMap<GroupName, Arc<SubscriptionGroup>>,
    /// group → topic → forbidden bits (353).
    forbidden: BTreeMap<GroupName, BTreeMap<TopicName, i32>>,
    version: DataVersion,
    /// The limit was hit and reported, and not left since.
    refusing: bool,
}

/// Groups that every broker knows.
const BUILT_IN: [&str; 8] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

impl Groups {
    /// Reads `subscriptionGroup.json` in `config_dir` over the groups that exist on every broker.
    pub fn open(config_dir: &Path, config: &Arc<LiveConfig>, persistence: &Persistence) -> Result<Groups, TableError> {
        let mut groups: HashMap<GroupName, Arc<SubscriptionGroup>> =
            BUILT_IN.iter().map(|&name| (GroupName::from(name), Arc::new(new_group(name)))).collect();
        let mut forbidden = BTreeMap::new();
        let mut version = DataVersion { counter: 0, state_version: 0, timestamp: now_ms() };
        let path = config_dir.join("subscriptionGroup.json");
        let loaded: Option<SubscriptionGroupTable> = persistence::load(&path)?;
        let first_start = loaded.is_none();
        if let Some(table) = loaded {
            version = table.data_version;
            for (name, group) in table.subscription_group_table {
                groups.insert(name, Arc::new(group));
            }
            for (group, topics) in table.forbidden_table {
                forbidden.insert(group, topics.into_iter().collect());
            }
        }
        let table = Arc::new(Table {
            inner: RwLock::new(Inner { groups, forbidden, version, refusing: false }),
            changes: AtomicU64::new(0),
        });
        let rendered = Arc::clone(&table);
        let file = persistence.file(path, move || json::to_vec_pretty(&rendered.snapshot()))?;
        if first_start {
            file.request();
        }
        Ok(Groups {
            groups_max: GROUPS_MAX,
            table,
            file,
            config: Arc::clone(config),
            standing: KnownStanding::default(),
        })
    }

    /// While this broker is a slave, groups are those of its master: none is made or changed here but by [`Groups::take_over`].
    pub(crate) fn go_by(&self, standing: &Arc<Standing>) {
        self.standing.is(standing);
    }

    fn is_copy(&self) -> bool {
        self.standing.is_slave()
    }

    pub fn find(&self, group: &str) -> Option<Arc<SubscriptionGroup>> {
        self.table.inner.read().groups.get(group).cloned()
    }

    pub fn contains(&self, group: &str) -> bool {
        self.table.inner.read().groups.contains_key(group)
    }

    /// The group, created with defaults when the rules allow it; `None` when they do not, or the name is illegal or too long.
    /// A blank name is created, as in Java. On a slave it is as it would be, and is not put into the table: the group may read, and comes
    /// with the master's table once that knows it. Java: `findSubscriptionGroupConfig`, which makes it there too.
    pub fn find_or_create(&self, group: &str) -> Option<Arc<SubscriptionGroup>> {
        if let Some(found) = self.find(group) {
            return Some(found);
        }
        let config = self.config.current();
        let system = names::is_system_group(group)
            && (config.enable_create_sys_group || !group.starts_with(names::SYSTEM_GROUP_PREFIX));
        if !(config.auto_create_subscription_group || system) || !is_creatable(group) {
            return None;
        }
        if self.is_copy() {
            return Some(Arc::new(new_group(group)));
        }
        let created = {
            let mut inner = self.table.inner.write();
            if let Some(found) = inner.groups.get(group) {
                return Some(Arc::clone(found));
            }
            if inner.groups.len() >= self.groups_max && !system {
                if !std::mem::replace(&mut inner.refusing, true) {
                    warn!(group, limit = self.groups_max, "too many subscription groups, creating no new ones");
                }
                return None;
            }
            inner.refusing = false;
            self.put(&mut inner, new_group(group))
        };
        info!(group, "subscription group created");
        Some(created)
    }

    /// Whether the group is there, or is what a slave would let read all the same.
    pub(crate) fn may_commit(&self, group: &str) -> bool {
        self.contains(group) || (self.is_copy() && self.find_or_create(group).is_some())
    }

    /// On a slave: the table becomes the master's, version, forbidden topics and all. Nothing happens when the versions are equal, or this
    /// broker is no slave any more. What cannot be a group is left out, each with a line in the log. Java:
    /// `SlaveSynchronize.syncSubscriptionGroupConfig`, which leaves out what is forbidden.
    pub(crate) fn take_over(&self, table: SubscriptionGroupTable) -> Result<(), Full> {
        if !self.is_copy() || self.data_version() == table.data_version {
            return Ok(());
        }
        let pairs = table.forbidden_table.values().map(|topics| topics.len()).sum::<usize>();
        for (what, count) in [
            ("subscription groups", table.subscription_group_table.len()),
            ("forbidden pairs of group and topic", pairs),
        ] {
            if count > self.groups_max {
                return Err(Full { what, limit: self.groups_max });
            }
        }
        let could_be = |name: &str| {
            let fits = name.len() <= NAME_LEN_MAX && !name.contains(char::is_control);
            if !fits {
                warn!(group = %name.escape_debug(), "a group of the master is left out: no group can have that name");
            }
            fits
        };
        let groups =
            table.subscription_group_table.into_iter().filter(|(name, _)| could_be(name)).map(|(name, group)| {
                let name = name.into_owned();
                (name.clone(), SubscriptionGroup { group_name: name, ..group })
            });
        let mut wanted: HashMap<GroupName, SubscriptionGroup> = groups.collect();
        let forbidden = table.forbidden_table.into_iter().filter(|(name, _)| could_be(name)).map(|(name, topics)| {
            let topics = topics.into_iter().map(|(topic, bits)| (topic.into_owned(), bits)).collect();
            (name.into_owned(), topics)
        });
        let forbidden = forbidden.collect();
        let mut inner = self.table.inner.write();
        let before = inner.groups.len();
        inner.groups.retain(|name, _| wanted.contains_key(&**name));
        let gone = before - inner.groups.len();
        wanted.retain(|name, group| inner.groups.get(&**name).is_none_or(|known| **known != *group));
        let changed = wanted.len();
        inner.groups.extend(wanted.into_iter().map(|(name, group)| (name, Arc::new(group))));
        inner.forbidden = forbidden;
        inner.version = table.data_version;
        self.table.changes.fetch_add(1, Ordering::SeqCst);
        self.file.request();
        drop(inner);
        info!(changed, gone, "the subscription groups are those of the master");
        Ok(())
    }

    /// Puts a group into the table, new or changed.
    pub fn update(&self, group: SubscriptionGroup) -> Arc<SubscriptionGroup> {
        self.put(&mut self.table.inner.write(), group)
    }

    /// Grows with each change: what was found before holds as long as it stays.
    pub fn changes(&self) -> u64 {
        self.table.changes.load(Ordering::SeqCst)
    }

    fn changed(&self, inner: &mut Inner) {
        inner.version.next(now_ms());
        self.table.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether there can be `more` new groups, or why not.
    pub fn check_room(&self, more: usize) -> Result<(), Full> {
        let full = self.table.inner.read().groups.len().saturating_add(more) > self.groups_max;
        if full { Err(Full { what: "subscription groups", limit: self.groups_max }) } else { Ok(()) }
    }

    /// Takes a group and its forbidden topics out.
    pub fn remove(&self, group: &str) -> Option<Arc<SubscriptionGroup>> {
        let mut inner = self.table.inner.write();
        let removed = inner.groups.remove(group)?;
        inner.forbidden.remove(group);
        self.changed(&mut inner);
        self.file.request();
        Some(removed)
    }

    /// All groups, in no particular order.
    pub fn all(&self) -> Vec<Arc<SubscriptionGroup>> {
        self.table.inner.read().groups.values().cloned().collect()
    }

    pub fn data_version(&self) -> DataVersion {
        self.table.inner.read().version.clone()
    }

    /// The table as GET_ALL_SUBSCRIPTIONGROUP_CONFIG sends it and the file keeps it.
    pub fn snapshot(&self) -> SubscriptionGroupTable {
        self.table.snapshot()
    }

    /// Forbidden bits of a group for a topic; 0 when nothing is forbidden. Bit 2 forbids reading.
    pub fn forbidden(&self, group: &str, topic: &str) -> i32 {
        self.table.inner.read().forbidden.get(group).and_then(|topics| topics.get(topic)).copied().unwrap_or(0)
    }

    /// Sets the forbidden bits of a group for a topic. Java: `updateForbidden`.
    pub fn forbid(&self, group: &str, topic: &str, bits: i32) -> Result<(), Full> {
        let mut inner = self.table.inner.write();
        if bits == 0 {
            if let Some(topics) = inner.forbidden.get_mut(group) {
                topics.remove(topic);
                if topics.is_empty() {
                    inner.forbidden.remove(group);
                }
            }
        } else {
            // Rare enough to be counted each time.
            if inner.forbidden.values().map(BTreeMap::len).sum::<usize>() >= self.groups_max {
                return Err(Full { what: "forbidden pairs of group and topic", limit: self.groups_max });
            }
            inner.forbidden.entry(group.into()).or_default().insert(topic.into(), bits);
        }
        self.changed(&mut inner);
        self.file.request();
        Ok(())
    }

    /// Runs `done` when every change so far is on disk, or with why it is not.
    pub fn when_saved(&self, done: impl FnOnce(Result<(), SaveError>) + Send + 'static) {
        self.file.when_saved(self.file.requested(), done);
    }

    /// Asks for a save, whether or not anything changed.
    pub fn save(&self) {
        self.file.request();
    }

    fn put(&self, inner: &mut Inner, mut group: SubscriptionGroup) -> Arc<SubscriptionGroup> {
        // Detached from the request that may have brought it.
        group.group_name = group.group_name.into_owned();
        let group = Arc::new(group);
        inner.groups.insert(group.group_name.clone(), Arc::clone(&group));
        self.changed(inner);
        self.file.request();
        group
    }
}

impl Table {
    fn snapshot(&self) -> SubscriptionGroupTable {
        // Copied once the lock is open again: whoever creates a group waits for it, and all pulls behind that one.
        let (data_version, groups, forbidden): (_, Vec<_>, _) = {
            let inner = self.inner.read();
            (inner.version.clone(), inner.groups.values().cloned().collect(), inner.forbidden.clone())
        };
        SubscriptionGroupTable {
            data_version,
            subscription_group_table: groups
                .iter()
                .map(|group| (group.group_name.clone(), SubscriptionGroup::clone(group)))
                .collect(),
            forbidden_table: forbidden
                .into_iter()
                .map(|(group, topics)| (group, topics.into_iter().collect()))
                .collect(),
        }
    }
}

/// Longest name of a group that comes into being by being used, in bytes. Java: `TopicValidator.validateGroup`.
const CREATED_NAME_LEN_MAX: usize = 120;

/// Blank passes, as in Java.
fn is_creatable(group: &str) -> bool {
    group.len() <= CREATED_NAME_LEN_MAX && (group.trim().is_empty() || GroupName::from(group).validate().is_ok())
}

/// A group with everything at its default.
pub fn new_group(name: &str) -> SubscriptionGroup {
    SubscriptionGroup { group_name: name.into(), ..SubscriptionGroup::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;

    fn open(directory: &Path, persistence: &Persistence, auto_create: bool) -> Groups {
        let config = BrokerConfig { auto_create_subscription_group: auto_create, ..BrokerConfig::default() };
        Groups::open(directory, &Arc::new(LiveConfig::new(config, None)), persistence).unwrap()
    }

    #[test]
    fn unknown_groups_are_created_with_defaults_when_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let groups = open(directory.path(), &Persistence::default(), true);
        let group = groups.find_or_create("GroupA").unwrap();
        assert_eq!((group.retry_max_times, group.retry_queue_nums, group.which_broker_when_consume_slowly), (16, 1, 1));
        assert!(groups.find_or_create("").is_some());
        assert!(groups.find_or_create("bad group?").is_none());
        assert!(groups.find_or_create(&"g".repeat(121)).is_none());
        assert_eq!(groups.data_version().counter, 2);
    }

    #[test]
    fn there_is_room_for_so_many_groups_and_for_those_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut groups = open(directory.path(), &Persistence::default(), true);
        groups.groups_max = groups.all().len() + 1;
        assert!(groups.find_or_create("GroupA").is_some());
        assert!(groups.find_or_create("GroupB").is_none() && groups.check_room(1).is_err());
        assert!(groups.find_or_create("GroupA").is_some() && groups.find_or_create("CID_RMQ_SYS_NEW").is_some());
        for gone in ["GroupA", "CID_RMQ_SYS_NEW"] {
            groups.remove(gone);
        }
        assert!(groups.find_or_create("GroupB").is_some());
        for topic in 0..groups.groups_max {
            groups.forbid("GroupB", &topic.to_string(), 4).unwrap();
        }
        assert!(groups.forbid("GroupB", "one more", 4).is_err());
        groups.forbid("GroupB", "0", 0).unwrap();
        assert!(groups.forbid("GroupB", "one more", 4).is_ok());
    }

    #[test]
    fn without_auto_creation_only_system_groups_are() {
        let directory = tempfile::tempdir().unwrap();
        let groups = open(directory.path(), &Persistence::default(), false);
        assert!(groups.find_or_create("GroupA").is_none());
        assert!(groups.find_or_create("CID_RMQ_SYS_NEW").is_some());
        assert!(groups.find_or_create("TOOLS_CONSUMER").is_some());
    }

    #[test]
    fn groups_and_forbidden_topics_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let persistence = Persistence::default();
        let groups = open(directory.path(), &persistence, true);
        groups.update(SubscriptionGroup { retry_max_times: 3, ..new_group("GroupA") });
        groups.forbid("GroupA", "TopicA", 4).unwrap();
        groups.find_or_create("GroupB");
        groups.remove("GroupB");
        persistence.stop();
        let again = open(directory.path(), &Persistence::default(), false);
        assert_eq!(again.find("GroupA").unwrap().retry_max_times, 3);
        assert_eq!(again.forbidden("GroupA", "TopicA"), 4);
        assert!(!again.contains("GroupB"));
        assert_eq!(again.data_version(), groups.data_version());
    }
}
