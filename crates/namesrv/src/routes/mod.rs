//! The route table: which brokers are alive, and which queues of which topics they hold. Java: `RouteInfoManager`.
//!
//! Synchronous and deterministic: time comes in as `now`, of a clock that only goes forward, connections are only ids, and what is to be told to others goes out
//! as values. Nothing is kept on disk; brokers register again within 30 seconds.

mod lookup;
mod register;
mod room;
#[cfg(test)]
#[path = "routes_test.rs"]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ferromq_protocol::body::{DataVersion, TopicQueueMappingInfo};
use ferromq_remoting::ConnectionId;

pub use lookup::{RouteLookup, Zone};
pub use register::{RegisterOutcome, Registration, TopicTable};
pub use room::NAME_LEN_MAX;

use room::{Bounds, weight, weight_of_mapping};

use crate::config::Config;

/// The id of a master.
pub const MASTER_ID: i64 = 0;
/// How long a broker that does not say otherwise may be silent.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(120);

const PERM_READ: i32 = 4;
const PERM_WRITE: i32 = 2;

/// The part of the configuration that the table obeys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub acting_master: bool,
    pub delete_unlisted_topics: bool,
    pub notify_min_broker_id: bool,
}

impl From<&Config> for Policy {
    fn from(config: &Config) -> Policy {
        Policy {
            acting_master: config.support_acting_master,
            delete_unlisted_topics: config.delete_topic_with_broker_registration,
            notify_min_broker_id: config.notify_min_broker_id_changed,
        }
    }
}

/// Queues that one broker holds of a topic. Java: `QueueData`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    pub read: i32,
    pub write: i32,
    pub perm: i32,
    pub sys_flag: i32,
}

/// Queues as a broker registered them, and as they are shown: without its right to write, if an operator or the loss of the master took it.
#[derive(Clone, Copy, Debug)]
struct QueueRights {
    registered: Queues,
    shown: Queues,
}

impl From<Queues> for QueueRights {
    fn from(queues: Queues) -> QueueRights {
        QueueRights { registered: queues, shown: queues }
    }
}

/// All processes that share a broker name. Java: `BrokerData`.
#[derive(Clone, Debug, Default)]
struct Group {
    cluster: String,
    /// Broker id → address; 0 is the master.
    addresses: BTreeMap<i64, String>,
    zone: Option<String>,
    acting_master: bool,
}

/// Cluster and address, which name one broker process. Java: `BrokerAddrInfo`.
type ProcessKey = (String, String);

/// One broker process. Java: `BrokerLiveInfo`.
struct Process {
    broker_name: String,
    heard_at: Instant,
    timeout: Duration,
    version: DataVersion,
    connection: ConnectionId,
    ha_address: String,
}

/// The smallest broker id of a group is another one now: NOTIFY_MIN_BROKER_ID_CHANGE for each address in `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinBrokerChange {
    pub broker_name: String,
    pub min_id: i64,
    pub min_address: String,
    /// Who went away, if that was the reason.
    pub offline_address: Option<String>,
    pub ha_address: Option<String>,
    pub to: Vec<String>,
}

/// Owner of all route tables; share it behind one short lock.
#[derive(Default)]
pub struct Routes {
    policy: Policy,
    /// Cluster → broker names.
    clusters: BTreeMap<String, BTreeSet<String>>,
    groups: BTreeMap<String, Group>,
    processes: HashMap<ProcessKey, Process>,
    /// Topic → broker name → queues.
    topics: BTreeMap<String, BTreeMap<String, QueueRights>>,
    /// Static topics: topic → broker name → mapping.
    mappings: BTreeMap<String, BTreeMap<String, TopicQueueMappingInfo>>,
    /// Legacy; normally empty.
    filter_servers: BTreeMap<ProcessKey, Vec<String>>,
    bounds: Bounds,
    /// How much of the room for topics and mappings is taken.
    taken: usize,
    /// Encoded answers per topic, legacy and strict; emptied by every change of what they show.
    encoded: HashMap<String, [Option<Bytes>; 2]>,
}

impl Routes {
    pub fn new(policy: Policy) -> Routes {
        Routes { policy, ..Routes::default() }
    }

    /// After a change of the configuration.
    pub fn obey(&mut self, policy: Policy) {
        self.policy = policy;
        self.changed();
    }

    /// A sign of life of a process that has registered; false if it has not. BROKER_HEARTBEAT.
    pub fn heard(&mut self, cluster: &str, address: &str, now: Instant) -> bool {
        match self.processes.get_mut(&(cluster.to_owned(), address.to_owned())) {
            Some(process) => {
                process.heard_at = now;
                true
            }
            None => false,
        }
    }

    /// What the process registered last. QUERY_DATA_VERSION.
    pub fn data_version(&self, cluster: &str, address: &str) -> Option<&DataVersion> {
        self.processes.get(&(cluster.to_owned(), address.to_owned())).map(|process| &process.version)
    }

    /// Takes a broker's write permission away in all its topics, or gives all of them read and write. Answers with how many topics it has.
    /// What was taken stays taken until the broker registers the topic differently or leaves; what was given lasts, as both do with Java, until the
    /// broker registers anything that changed.
    pub fn set_writable(&mut self, broker_name: &str, writable: bool) -> i32 {
        let mut count = 0;
        for held in self.topics.values_mut().filter_map(|brokers| brokers.get_mut(broker_name)) {
            if writable {
                held.shown.perm = PERM_READ | PERM_WRITE;
                // Given, not taken: the next registration that is new says again what is true.
                held.registered = held.shown;
            } else {
                held.shown.perm &= !PERM_WRITE;
            }
            count += 1;
        }
        self.changed();
        count
    }

    /// Adds or replaces queues of one topic; ignored from the first unknown broker name on, as in Java.
    pub fn register_topic(&mut self, topic: &str, queues: impl IntoIterator<Item = (String, Queues)>) {
        for (broker_name, queues) in queues {
            if !self.groups.contains_key(&broker_name) {
                tracing::warn!(topic, broker_name, "queues of an unknown broker are not registered");
                return;
            }
            let is_known = self.topics.get(topic).is_some_and(|brokers| brokers.contains_key(&broker_name));
            if !is_known && self.taken + weight(topic) > self.bounds.taken {
                tracing::warn!(topic, broker_name, "queues are not registered: there is no room for more");
                return;
            }
            self.taken += if is_known { 0 } else { weight(topic) };
            let brokers = self.topics.entry(topic.into()).or_default();
            brokers.entry(broker_name).and_modify(|held| held.shown = queues).or_insert(queues.into());
            self.changed();
        }
    }

    /// Forgets a topic, with a cluster only the queues of that cluster's brokers.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(brokers) = self.topics.get_mut(topic) else { return };
        let before = brokers.len();
        match cluster {
            None => brokers.clear(),
            Some(cluster) => {
                let of_cluster = self.clusters.get(cluster);
                brokers.retain(|broker_name, _| !of_cluster.is_some_and(|names| names.contains(broker_name)));
            }
        }
        self.taken -= (before - brokers.len()) * weight(topic);
        if brokers.is_empty() {
            self.topics.remove(topic);
            let mappings = self.mappings.remove(topic).unwrap_or_default();
            self.taken -= mappings.values().map(|mapping| weight_of_mapping(topic, mapping)).sum::<usize>();
        }
        self.changed();
    }

    fn changed(&mut self) {
        self.encoded.clear();
    }
}
