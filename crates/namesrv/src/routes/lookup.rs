//! What clients and tools ask of the table. Java: `RouteInfoManager`.

use std::collections::BTreeMap;

use bytes::Bytes;
use ferromq_protocol::body::{
    BrokerData, BrokerMemberGroup, BrokerMemberGroupReply, ClusterInfo, QueueData, RouteForm, TopicRoute,
};

use super::{Group, MASTER_ID, PERM_WRITE, QueueRights, Queues, Routes};

/// Topics of this prefix show their brokers as they are, without an acting master.
const SYNC_BROKER_MEMBER_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
const UNIT: i32 = 1;
const UNIT_SUBSCRIPTION: i32 = 2;

/// A client that wants only brokers of its zone (and those without a master). Java: `ZoneRouteRPCHook`.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a>(pub &'a str);

/// GET_ROUTEINFO_BY_TOPIC.
#[derive(Clone, Copy, Debug)]
pub struct RouteLookup<'a> {
    pub topic: &'a str,
    pub form: RouteForm,
    /// Order configuration of the topic, if it is to be shown.
    pub order: Option<&'a str>,
    pub zone: Option<Zone<'a>>,
}

impl Routes {
    /// The encoded `TopicRouteData`; `None` for a topic that no live broker holds. Without order and zone the answer is encoded once per change.
    pub fn route(&mut self, lookup: RouteLookup<'_>) -> Option<Bytes> {
        let RouteLookup { topic, form, .. } = lookup;
        let cacheable = lookup.order.is_none() && lookup.zone.is_none();
        let slot = usize::from(form == RouteForm::Strict);
        if cacheable && let Some(encoded) = self.encoded.get(topic).and_then(|forms| forms[slot].as_ref()) {
            return Some(encoded.clone());
        }
        let encoded = Bytes::from(self.topic_route(lookup)?.encode(form));
        if cacheable {
            self.encoded.entry(topic.into()).or_default()[slot] = Some(encoded.clone());
        }
        Some(encoded)
    }

    fn topic_route(&self, lookup: RouteLookup<'_>) -> Option<TopicRoute> {
        let queues = self.topics.get(lookup.topic)?;
        let mut groups: BTreeMap<&String, Group> = queues
            .keys()
            .filter_map(|broker_name| Some((broker_name, self.groups.get(broker_name)?.clone())))
            .collect();
        if groups.is_empty() {
            return None;
        }
        if self.policy.acting_master && !lookup.topic.starts_with(SYNC_BROKER_MEMBER_PREFIX) {
            groups.iter_mut().for_each(|(broker_name, group)| show_acting_master(group, &queues[*broker_name].shown));
        }
        if let Some(Zone(zone)) = lookup.zone {
            let same_zone =
                |group: &Group| group.zone.as_ref().is_some_and(|of_group| of_group.eq_ignore_ascii_case(zone));
            groups.retain(|_, group| same_zone(group) || !group.addresses.contains_key(&MASTER_ID));
        }
        // Queues of a broker that has just gone may still be listed; queues that the zone hides are not.
        let listed = |broker_name: &String| lookup.zone.is_none() || groups.contains_key(broker_name);
        let queue_datas = queues.iter().filter(|(broker_name, _)| listed(broker_name)).map(queue_data).collect();
        let processes = groups
            .values()
            .flat_map(|group| group.addresses.values().map(|address| (group.cluster.clone(), address.clone())));
        let servers = |process: (String, String)| Some((process.1.clone(), self.filter_servers.get(&process)?.clone()));
        let mappings = self.mappings.get(lookup.topic);
        Some(TopicRoute {
            filter_server_table: processes.filter_map(servers).collect(),
            order_topic_conf: lookup.order.map(str::to_owned),
            queue_datas,
            topic_queue_mapping_by_broker: mappings
                .map(|mappings| mappings.iter().map(|(name, mapping)| (name.clone(), mapping.clone())).collect()),
            broker_datas: groups.into_iter().map(|(broker_name, group)| broker_data(broker_name, &group)).collect(),
        })
    }

    /// GET_BROKER_CLUSTER_INFO.
    pub fn cluster_info(&self) -> ClusterInfo {
        ClusterInfo {
            broker_addr_table: self
                .groups
                .iter()
                .map(|(name, group)| (name.clone(), broker_data(name, group)))
                .collect(),
            cluster_addr_table: self
                .clusters
                .iter()
                .map(|(cluster, names)| (cluster.clone(), names.iter().cloned().collect()))
                .collect(),
        }
    }

    /// GET_BROKER_MEMBER_GROUP; an unknown broker has no addresses.
    pub fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroupReply {
        let group = self.groups.get(broker_name);
        let broker_addrs = group.map(|group| group.addresses.clone().into_iter().collect()).unwrap_or_default();
        let group = BrokerMemberGroup { broker_addrs, broker_name: broker_name.into(), cluster: cluster.into() };
        BrokerMemberGroupReply { broker_member_group: Some(group) }
    }

    pub fn topics(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// Topics with queues on a broker of the cluster.
    pub fn topics_of_cluster(&self, cluster: &str) -> Vec<String> {
        let Some(members) = self.clusters.get(cluster) else { return Vec::new() };
        self.topics
            .iter()
            .filter(|(_, brokers)| brokers.keys().any(|name| members.contains(name)))
            .map(|(topic, _)| topic.clone())
            .collect()
    }

    /// Clusters and brokers, whose names are topics too, and the address of some broker, which knows the other system topics.
    pub fn system_topics(&self) -> (Vec<String>, Option<String>) {
        let names = self
            .clusters
            .iter()
            .flat_map(|(cluster, brokers)| std::iter::once(cluster).chain(brokers))
            .cloned()
            .collect();
        let address = self.groups.values().find_map(|group| group.addresses.values().next().cloned());
        (names, address)
    }

    pub fn unit_topics(&self) -> Vec<String> {
        self.topics_with(|flag| flag & UNIT != 0)
    }

    pub fn topics_with_unit_subscription(&self) -> Vec<String> {
        self.topics_with(|flag| flag & UNIT_SUBSCRIPTION != 0)
    }

    pub fn plain_topics_with_unit_subscription(&self) -> Vec<String> {
        self.topics_with(|flag| flag & UNIT == 0 && flag & UNIT_SUBSCRIPTION != 0)
    }

    /// By the flag of a topic's first broker, as Java.
    fn topics_with(&self, which: impl Fn(i32) -> bool) -> Vec<String> {
        let shows = |brokers: &BTreeMap<String, QueueRights>| {
            brokers.values().next().is_some_and(|held| which(held.shown.sys_flag))
        };
        self.topics.iter().filter(|(_, brokers)| shows(brokers)).map(|(topic, _)| topic.clone()).collect()
    }
}

/// The smallest id stands in for a master that is gone, if the broker allows it and its queues were made read-only.
fn show_acting_master(group: &mut Group, queues: &Queues) {
    if group.acting_master
        && !group.addresses.contains_key(&MASTER_ID)
        && queues.perm & PERM_WRITE == 0
        && let Some((_, address)) = group.addresses.pop_first()
    {
        group.addresses.insert(MASTER_ID, address);
    }
}

fn broker_data(broker_name: &str, group: &Group) -> BrokerData {
    BrokerData {
        broker_addrs: group.addresses.clone().into_iter().collect(),
        broker_name: broker_name.into(),
        cluster: group.cluster.clone(),
        enable_acting_master: group.acting_master,
        zone_name: group.zone.clone(),
    }
}

fn queue_data((broker_name, QueueRights { shown: queues, .. }): (&String, &QueueRights)) -> QueueData {
    QueueData {
        broker_name: broker_name.clone(),
        perm: queues.perm,
        read_queue_nums: queues.read,
        topic_sys_flag: queues.sys_flag,
        write_queue_nums: queues.write,
    }
}
