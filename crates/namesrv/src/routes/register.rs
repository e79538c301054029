//! Brokers come and go: registration, unregistration, closed connections, silence. Java: `RouteInfoManager.registerBroker`, `unRegisterBroker`, `scanNotActiveBroker`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ferromq_protocol::body::{DataVersion, TopicQueueMappingInfo};
use ferromq_remoting::ConnectionId;

use super::{
    BROKER_TIMEOUT, Group, MASTER_ID, MinBrokerChange, PERM_WRITE, Process, ProcessKey, QueueRights, Queues, Routes,
    weight, weight_of_mapping,
};

/// What a broker says about itself. Java: the parameters of `RouteInfoManager.registerBroker`.
pub struct Registration {
    pub cluster: String,
    pub broker_name: String,
    pub address: String,
    pub broker_id: i64,
    pub ha_address: String,
    pub timeout: Option<Duration>,
    /// `None` marks a broker older than 5.0.
    pub acting_master: Option<bool>,
    pub zone: Option<String>,
    /// `None`: the request had no body. Then DataVersion zero is stored, so that the next full registration counts as a change.
    pub topics: Option<TopicTable>,
    /// `None` leaves what is known.
    pub filter_servers: Option<Vec<String>>,
    pub connection: ConnectionId,
}

/// The topics of a registration.
#[derive(Default)]
pub struct TopicTable {
    pub version: DataVersion,
    pub topics: BTreeMap<String, Queues>,
    /// Static topics: topic → (broker name, mapping).
    pub mappings: BTreeMap<String, TopicQueueMappingInfo>,
    /// These are not all topics of the broker.
    pub partial: bool,
}

/// What became of a registration.
#[derive(Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    Accepted {
        /// Address and replication address of the group's master, for a slave whose master is alive.
        master: Option<(String, String)>,
        change: Option<MinBrokerChange>,
    },
    /// Another process holds the id with a newer state version; the broker is told success and nothing else.
    Outdated,
    /// One topic cannot be the first registration: incremental ones follow a full one.
    Incremental,
    /// There is no room for more brokers, or for so many topics more. Nothing has changed.
    Full,
}

impl Routes {
    /// Java: `RouteInfoManager.registerBroker`, in its order.
    pub fn register(&mut self, registration: Registration, now: Instant) -> RegisterOutcome {
        let Registration { cluster, broker_name, address, broker_id, .. } = &registration;
        let (broker_id, key) = (*broker_id, (cluster.clone(), address.clone()));
        let table = registration.topics.as_ref();
        let version = table.map(|table| table.version.clone()).unwrap_or_default();

        let known = self.groups.get(broker_name);
        let holder = known.and_then(|group| group.addresses.get(&broker_id)).filter(|&holder| holder != address);
        let holder_state = holder
            .and_then(|holder| self.processes.get(&(cluster.clone(), holder.clone())))
            .map(|process| process.version.state_version);
        if holder_state.is_some_and(|state| state > version.state_version) {
            tracing::warn!(broker_name, broker_id, %address, "not registered: another process holds the id with a newer state");
            self.processes.remove(&key);
            return RegisterOutcome::Outdated;
        }
        // Java has entered the group by now and leaves it there without an address; here nothing of a refused registration stays.
        if !known.is_some_and(|group| group.addresses.contains_key(&broker_id))
            && table.is_some_and(|table| table.topics.len() == 1)
        {
            tracing::warn!(broker_name, broker_id, %address, "not registered: one topic only, and no full registration before it");
            return RegisterOutcome::Incremental;
        }

        if !self.has_room(&registration, &key) {
            tracing::warn!(broker_name, broker_id, %address, "not registered: there is no room for more brokers or topics");
            return RegisterOutcome::Full;
        }

        let members = self.clusters.entry(cluster.clone()).or_default();
        let joined_cluster = members.insert(broker_name.clone());
        let group = self
            .groups
            .entry(broker_name.clone())
            .or_insert_with(|| Group { cluster: cluster.clone(), ..Group::default() });
        let old = (group.addresses.clone(), group.zone.take(), group.acting_master);
        let previous_min = group.addresses.keys().next().copied().unwrap_or(MASTER_ID);
        group.acting_master = registration.acting_master.unwrap_or(false);
        group.zone = registration.zone.clone();
        // A process has one id: a promoted slave leaves its old one.
        group.addresses.retain(|&id, held| held != address || id == broker_id);
        let first = group.addresses.insert(broker_id, address.clone()).is_none();
        let is_master = broker_id == MASTER_ID;
        let is_prime_slave =
            !is_master && registration.acting_master.is_some() && group.addresses.keys().next() == Some(&broker_id);
        let acting_master = group.acting_master;
        let mut changed =
            joined_cluster || (&group.addresses, &group.zone, group.acting_master) != (&old.0, &old.1, old.2);

        let version_is_new = self.processes.get(&key).is_none_or(|process| process.version != version);
        if let Some(table) = table.filter(|_| is_master || is_prime_slave) {
            if self.policy.delete_unlisted_topics && table.mappings.is_empty() && !table.partial {
                changed |= self.forget_queues(broker_name, |topic| !table.topics.contains_key(topic));
            }
            for (topic, &(mut queues)) in &table.topics {
                let brokers = self.topics.entry(topic.clone()).or_default();
                if is_prime_slave && acting_master {
                    queues.perm &= !PERM_WRITE;
                }
                // What an operator took from a topic stays taken when the broker only says again what it said before. Java goes by
                // the version of the whole table alone.
                let said_before = |held: &QueueRights| !version_is_new || held.registered == queues;
                if first || !brokers.get(broker_name).is_some_and(said_before) {
                    let before = brokers.insert(broker_name.clone(), queues.into());
                    self.taken += if before.is_none() { weight(topic) } else { 0 };
                    changed |= before.map(|held| held.shown) != Some(queues);
                }
            }
            if first || version_is_new {
                for (topic, mapping) in &table.mappings {
                    let held_by = mapping.bname.clone().unwrap_or_else(|| broker_name.clone());
                    let before = self.mappings.entry(topic.clone()).or_default().insert(held_by, mapping.clone());
                    self.taken += weight_of_mapping(topic, mapping);
                    self.taken -= before.map_or(0, |before| weight_of_mapping(topic, &before));
                    changed = true;
                }
            }
        }

        let process = Process {
            broker_name: broker_name.clone(),
            heard_at: now,
            timeout: registration.timeout.unwrap_or(BROKER_TIMEOUT),
            version,
            connection: registration.connection,
            ha_address: registration.ha_address.clone(),
        };
        if self.processes.insert(key.clone(), process).is_none() {
            tracing::info!(broker_name, broker_id, %address, cluster, "broker registered");
        }
        match registration.filter_servers {
            Some(servers) if servers.is_empty() => changed |= self.filter_servers.remove(&key).is_some(),
            Some(servers) => changed |= self.filter_servers.insert(key.clone(), servers.clone()) != Some(servers),
            None => {}
        }
        if changed {
            self.changed();
        }

        let group = &self.groups[&registration.broker_name];
        let master = group.addresses.get(&MASTER_ID).filter(|_| !is_master).and_then(|master| {
            let process = self.processes.get(&(registration.cluster.clone(), master.clone()))?;
            Some((master.clone(), process.ha_address.clone()))
        });
        let change = (broker_id < previous_min)
            .then(|| self.min_change(&registration.broker_name, None, Some(registration.ha_address.clone())));
        RegisterOutcome::Accepted { master, change: change.flatten() }
    }

    /// UNREGISTER_BROKER.
    pub fn unregister(&mut self, cluster: &str, broker_name: &str, address: &str) -> Option<MinBrokerChange> {
        tracing::info!(broker_name, address, cluster, "broker unregistered");
        self.remove((cluster.to_owned(), address.to_owned()), broker_name)
    }

    /// A connection is gone: brokers that registered over it last are, too. Java removes only one of several; the others run into their timeout.
    pub fn closed(&mut self, connection: ConnectionId) -> Vec<MinBrokerChange> {
        self.remove_all(|process| process.connection == connection, "the connection was closed")
    }

    /// Removes processes that have been silent for longer than they said they would be. Answers also with their connections, to be closed.
    pub fn expire(&mut self, now: Instant) -> (Vec<ConnectionId>, Vec<MinBrokerChange>) {
        let silent = |process: &Process| now.saturating_duration_since(process.heard_at) > process.timeout;
        let connections =
            self.processes.values().filter(|process| silent(process)).map(|process| process.connection).collect();
        (connections, self.remove_all(silent, "it fell silent"))
    }

    fn remove_all(&mut self, which: impl Fn(&Process) -> bool, reason: &str) -> Vec<MinBrokerChange> {
        let mut gone: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| which(process))
            .map(|(key, process)| (key.clone(), process.broker_name.clone()))
            .collect();
        gone.sort_unstable();
        gone.into_iter()
            .filter_map(|(key, broker_name)| {
                tracing::warn!(broker_name, address = key.1, reason, "broker removed");
                self.remove(key, &broker_name)
            })
            .collect()
    }

    /// Java: `RouteInfoManager.unRegisterBroker`, for one.
    fn remove(&mut self, key: ProcessKey, broker_name: &str) -> Option<MinBrokerChange> {
        self.processes.remove(&key);
        self.filter_servers.remove(&key);
        self.changed();
        let (cluster, address) = key;
        let group = self.groups.get_mut(broker_name)?;
        let min_before = group.addresses.keys().next().copied();
        group.addresses.retain(|_, held| *held != address);
        if group.addresses.is_empty() {
            self.groups.remove(broker_name);
            if let Some(members) = self.clusters.get_mut(&cluster) {
                members.remove(broker_name);
                if members.is_empty() {
                    self.clusters.remove(&cluster);
                }
            }
            self.forget_queues(broker_name, |_| true);
            return None;
        }
        if group.acting_master && !group.addresses.contains_key(&MASTER_ID) {
            for QueueRights { shown: queues, .. } in
                self.topics.values_mut().filter_map(|brokers| brokers.get_mut(broker_name))
            {
                queues.perm &= !PERM_WRITE;
            }
        }
        let min_went = group.addresses.keys().next().copied() != min_before;
        min_went.then(|| self.min_change(broker_name, Some(address), None)).flatten()
    }

    /// Removes a broker's queues from the topics chosen, and topics left without queues. True if there were any.
    fn forget_queues(&mut self, broker_name: &str, which: impl Fn(&str) -> bool) -> bool {
        let mut freed = 0;
        self.topics.retain(|topic, brokers| {
            freed += if which(topic) && brokers.remove(broker_name).is_some() { weight(topic) } else { 0 };
            !brokers.is_empty()
        });
        let any = freed > 0;
        self.mappings.retain(|topic, mappings| {
            let stays = self.topics.contains_key(topic);
            if !stays {
                freed += mappings.values().map(|mapping| weight_of_mapping(topic, mapping)).sum::<usize>();
            }
            stays
        });
        self.taken -= freed;
        any
    }

    /// After someone left everybody is told; after someone joined, everybody but the new smallest.
    fn min_change(
        &self,
        broker_name: &str,
        offline_address: Option<String>,
        ha_address: Option<String>,
    ) -> Option<MinBrokerChange> {
        let group = self.groups.get(broker_name).filter(|_| self.policy.notify_min_broker_id)?;
        let (&min_id, min_address) = group.addresses.first_key_value()?;
        let tell_min = offline_address.is_some();
        let to = group
            .addresses
            .iter()
            .filter(|&(&id, _)| tell_min || id != min_id)
            .map(|(_, address)| address.clone())
            .collect();
        Some(MinBrokerChange {
            broker_name: broker_name.into(),
            min_id,
            min_address: min_address.clone(),
            offline_address,
            ha_address,
            to,
        })
    }
}
