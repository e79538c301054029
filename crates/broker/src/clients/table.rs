//! Who is connected: consumer and producer groups with their members, one per connection. Java: `ConsumerManager`, `ProducerManager`.
//!
//! Synchronous and deterministic: time comes in as `now`, connections are ids with an opaque handle `C`, and what members must be told
//! comes out as [`Notice`]s. Java: `ConsumerManager`, `ProducerManager`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_protocol::body::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData};
use ferromq_protocol::{GroupName, Language, TopicName};
use ferromq_remoting::ConnectionId;

/// One client in one group, as its last heartbeat described it. Java: `ClientChannelInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// One for all groups of a heartbeat.
    pub client_id: Arc<str>,
    pub language: Language,
    pub version: i32,
    pub peer: SocketAddr,
    /// Of the wall clock, for people.
    pub heard_at_ms: i64,
    /// Of a clock that only goes forward: how long it has been silent.
    pub heard_at: Instant,
}

/// What all members of a consumer group share: whatever the latest heartbeat said. Java: `ConsumerGroupInfo`.
#[derive(Clone, Debug, Default)]
pub struct ConsumerGroup {
    pub consume_type: Option<ConsumeType>,
    pub message_model: Option<MessageModel>,
    pub consume_from_where: Option<ConsumeFromWhere>,
    pub subscriptions: BTreeMap<TopicName, Arc<SubscriptionData>>,
}

impl ConsumerGroup {
    /// Every member gets every message and keeps its own offsets.
    pub fn is_broadcasting(&self) -> bool {
        self.message_model == Some(MessageModel::Broadcasting)
    }

    fn len_bytes(&self) -> usize {
        self.subscriptions.values().map(|data| len_bytes(data)).sum()
    }

    pub fn subscription(&self, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.subscriptions.get(topic).cloned()
    }
}

/// One consumer group of a heartbeat.
pub struct ConsumerHeartbeat {
    pub group: GroupName,
    pub consume_type: Option<ConsumeType>,
    pub message_model: Option<MessageModel>,
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// `None`: the heartbeat leaves them out because they have not changed (version 2, `withoutSub`).
    pub subscriptions: Option<Vec<SubscriptionData>>,
    /// Of the whole heartbeat; 0 in version 1.
    pub fingerprint: i32,
    /// Whether members are told of changes.
    pub notify: bool,
}

/// Two members of one group want different messages of a topic. The group has one subscription, so each of them gets messages that it
/// does not want and misses others.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    pub topic: TopicName,
    /// Whose heartbeat it was, and what it subscribes to; `None` for not to this topic.
    pub client_id: Arc<str>,
    pub wants: Option<String>,
    /// The member that subscribed otherwise before.
    pub other_client_id: Arc<str>,
    pub other_wants: String,
}

/// What a consumer's heartbeat brought about.
pub struct HeartbeatOutcome<C> {
    pub notice: Option<Notice<C>>,
    /// Seen for the first time since these two last agreed.
    pub conflicts: Vec<Conflict>,
    /// The client should send its subscriptions in full next time.
    pub subscriptions_wanted: bool,
    /// The group's subscriptions, to whatever topic, are not what they were.
    pub resubscribed: bool,
}

/// Members to be told that their group has changed: NOTIFY_CONSUMER_IDS_CHANGED.
#[derive(Debug, PartialEq, Eq)]
pub struct Notice<C> {
    pub group: GroupName,
    pub to: Vec<C>,
}

/// How much the table may hold.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// Groups that one connection may be in.
    pub groups_per_connection: usize,
    /// Memberships of all connections.
    pub memberships: usize,
    /// Topics that a group may subscribe to.
    pub topics_per_group: usize,
    /// Bytes of all subscriptions.
    pub subscription_bytes: usize,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits {
            groups_per_connection: 10_000,
            memberships: 1_000_000,
            topics_per_group: 10_000,
            subscription_bytes: 256 * 1024 * 1024,
        }
    }
}

/// Why a client cannot be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientsFull {
    #[error("this connection is in {0} groups, which is the limit")]
    Connection(usize),
    #[error("clients are in {0} groups together, which is the limit of this broker")]
    Memberships(usize),
    #[error("a group can subscribe to {limit} topics at most, not to {topics}")]
    Topics { topics: usize, limit: usize },
    #[error("the subscriptions of all groups have {0} bytes, which is the limit of this broker")]
    Subscriptions(usize),
}

/// All groups, and per connection the groups it is in.
pub struct Table<C> {
    limits: ClientLimits,
    memberships: usize,
    subscription_bytes: usize,
    /// Consumer groups that have gone, or whose members consume otherwise than before; subscriptions are not looked at.
    group_changes: u64,
    connections: HashMap<ConnectionId, Presence<C>>,
    consumers: HashMap<GroupName, Consumers>,
    producers: HashMap<GroupName, Producers>,
    /// Producers by client id, the latest connection of each: where replies go.
    producer_ids: HashMap<Arc<str>, ConnectionId>,
}

struct Presence<C> {
    connection: C,
    consumer_groups: BTreeSet<GroupName>,
    producer_groups: BTreeSet<GroupName>,
    /// Client id as a producer.
    producer_id: Option<Arc<str>>,
}

#[derive(Default)]
struct Consumers {
    members: BTreeMap<ConnectionId, Member>,
    group: Arc<ConsumerGroup>,
    notify: bool,
    fingerprint: i32,
    /// Which member's subscription to a topic is the group's.
    subscribers: BTreeMap<TopicName, ConnectionId>,
    /// Members whose own subscription to a topic is another one; no more than `DISAGREEING_MAX`.
    disagreeing: BTreeSet<(ConnectionId, TopicName)>,
}

/// Disagreements that a group is reported for, as long as they last. More of them, of members times topics, say nothing new.
const DISAGREEING_MAX: usize = 1000;

/// What a heartbeat did to its group's subscriptions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// What is wanted of a topic.
    Expressions,
    /// A topic came or went.
    Topics,
}

#[derive(Default)]
struct Producers {
    members: BTreeMap<ConnectionId, Member>,
    /// The member that was chosen last for a request to the group.
    chosen: Option<ConnectionId>,
}

impl<C> Default for Table<C> {
    fn default() -> Self {
        Table {
            limits: ClientLimits::default(),
            memberships: 0,
            subscription_bytes: 0,
            group_changes: 0,
            connections: HashMap::new(),
            consumers: HashMap::new(),
            producers: HashMap::new(),
            producer_ids: HashMap::new(),
        }
    }
}

impl<C: Clone> Table<C> {
    /// Java: `ConsumerManager.registerConsumer`. A newcomer, a new topic and a topic given up are changes; a new expression is not.
    pub fn register_consumer(
        &mut self,
        id: ConnectionId,
        connection: &C,
        member: Member,
        heartbeat: ConsumerHeartbeat,
    ) -> Result<HeartbeatOutcome<C>, ClientsFull> {
        let known = self.connections.get(&id).is_some_and(|known| known.consumer_groups.contains(&*heartbeat.group));
        if !known {
            self.check_room(id)?;
        }
        let mut bytes_before = 0;
        if let Some(subscriptions) = &heartbeat.subscriptions {
            bytes_before = self.consumers.get(&*heartbeat.group).map_or(0, |consumers| consumers.group.len_bytes());
            let ClientLimits { topics_per_group, subscription_bytes, .. } = self.limits;
            if subscriptions.len() > topics_per_group {
                return Err(ClientsFull::Topics { topics: subscriptions.len(), limit: topics_per_group });
            }
            let bytes: usize = subscriptions.iter().map(len_bytes).sum();
            if bytes > bytes_before && self.subscription_bytes - bytes_before + bytes > subscription_bytes {
                return Err(ClientsFull::Subscriptions(subscription_bytes));
            }
        }
        let presence = presence(&mut self.connections, id, connection);
        if !known {
            presence.consumer_groups.insert(heartbeat.group.clone());
            self.memberships += 1;
        }
        let consumers = self.consumers.entry(heartbeat.group.clone()).or_default();
        let joined = consumers.members.insert(id, member).is_none();
        let other_fingerprint = consumers.fingerprint != 0 && consumers.fingerprint != heartbeat.fingerprint;
        consumers.fingerprint = heartbeat.fingerprint;
        consumers.notify = heartbeat.notify;
        let described = (heartbeat.consume_type, heartbeat.message_model, heartbeat.consume_from_where);
        let group = &consumers.group;
        if (group.consume_type, group.message_model, group.consume_from_where) != described {
            self.group_changes += 1;
            let group = Arc::make_mut(&mut consumers.group);
            (group.consume_type, group.message_model, group.consume_from_where) = described;
        }
        // A broker that was restarted in between knows nothing of the subscriptions left out. Java does not ask for them then.
        let subscriptions_wanted =
            other_fingerprint || (heartbeat.subscriptions.is_none() && consumers.group.subscriptions.is_empty());
        let mut conflicts = Vec::new();
        let change = heartbeat.subscriptions.map_or(Change::None, |subscriptions| {
            conflicts = consumers.conflicts(id, &subscriptions);
            consumers.subscribe(&heartbeat.group, id, subscriptions)
        });
        if change != Change::None {
            self.subscription_bytes = self.subscription_bytes - bytes_before + consumers.group.len_bytes();
        }
        let notice = if joined || change == Change::Topics { self.notice(&heartbeat.group) } else { None };
        Ok(HeartbeatOutcome { notice, conflicts, subscriptions_wanted, resubscribed: change != Change::None })
    }

    /// Grows when a consumer group goes, or its members consume otherwise than before.
    pub fn group_changes(&self) -> u64 {
        self.group_changes
    }

    /// Whether a connection may be in one more group.
    fn check_room(&self, id: ConnectionId) -> Result<(), ClientsFull> {
        let own =
            self.connections.get(&id).map_or(0, |known| known.consumer_groups.len() + known.producer_groups.len());
        if own >= self.limits.groups_per_connection {
            return Err(ClientsFull::Connection(own));
        }
        if self.memberships >= self.limits.memberships {
            return Err(ClientsFull::Memberships(self.memberships));
        }
        Ok(())
    }

    /// Java: `ProducerManager.registerProducer`.
    pub fn register_producer(
        &mut self,
        id: ConnectionId,
        connection: &C,
        member: Member,
        group: &GroupName,
    ) -> Result<(), ClientsFull> {
        if !self.connections.get(&id).is_some_and(|known| known.producer_groups.contains(&**group)) {
            self.check_room(id)?;
            self.memberships += 1;
        }
        let presence = presence(&mut self.connections, id, connection);
        presence.producer_groups.insert(group.clone());
        let is_new = presence.producer_id.as_deref() != Some(&member.client_id);
        if is_new || !self.producer_ids.contains_key(&member.client_id) {
            let earlier = presence.producer_id.replace(member.client_id.clone());
            self.forget_producer_id(id, earlier.filter(|_| is_new));
            self.producer_ids.insert(member.client_id.clone(), id);
        }
        self.producers.entry(group.clone()).or_default().members.insert(id, member);
        Ok(())
    }

    /// Takes a connection out of one consumer group.
    pub fn unregister_consumer(&mut self, id: ConnectionId, group: &str) -> Option<Notice<C>> {
        self.connections.get_mut(&id)?.consumer_groups.take(group)?;
        self.memberships -= 1;
        self.forget_if_absent(id);
        self.leave_consumers(id, group)
    }

    /// Takes a connection out of one producer group.
    pub fn unregister_producer(&mut self, id: ConnectionId, group: &str) {
        let Some(presence) = self.connections.get_mut(&id) else { return };
        if presence.producer_groups.remove(group) {
            self.memberships -= 1;
            let left = presence.producer_id.take_if(|_| presence.producer_groups.is_empty());
            self.forget_producer_id(id, left);
            self.forget_if_absent(id);
            self.leave_producers(id, group);
        }
    }

    /// Takes a connection out of everything.
    pub fn closed(&mut self, id: ConnectionId) -> Vec<Notice<C>> {
        let Some(presence) = self.connections.remove(&id) else { return Vec::new() };
        self.memberships -= presence.producer_groups.len() + presence.consumer_groups.len();
        self.forget_producer_id(id, presence.producer_id);
        for group in presence.producer_groups {
            self.leave_producers(id, &group);
        }
        presence.consumer_groups.iter().filter_map(|group| self.leave_consumers(id, group)).collect()
    }

    /// Takes out connections with a membership that was not renewed for longer than `timeout`; they are to be closed.
    pub fn expire(&mut self, now: Instant, timeout: Duration) -> (Vec<C>, Vec<Notice<C>>) {
        let silent = |(id, member): (&ConnectionId, &Member)| {
            (now.saturating_duration_since(member.heard_at) > timeout).then_some(*id)
        };
        let consumers = self.consumers.values().flat_map(|consumers| consumers.members.iter().filter_map(silent));
        let producers = self.producers.values().flat_map(|producers| producers.members.iter().filter_map(silent));
        let ids: BTreeSet<ConnectionId> = consumers.chain(producers).collect();
        let connections = ids.iter().filter_map(|id| Some(self.connections.get(id)?.connection.clone())).collect();
        (connections, ids.into_iter().flat_map(|id| self.closed(id)).collect())
    }

    /// The group as it is now, if anybody is in it.
    pub fn consumer_group(&self, group: &str) -> Option<Arc<ConsumerGroup>> {
        self.consumers.get(group).map(|consumers| Arc::clone(&consumers.group))
    }

    pub fn consumers(&self, group: &str) -> impl Iterator<Item = (&Member, &C)> {
        self.consumers.get(group).into_iter().flat_map(|consumers| self.with_connections(&consumers.members))
    }

    pub fn producers(&self, group: &str) -> impl Iterator<Item = (&Member, &C)> {
        self.producers.get(group).into_iter().flat_map(|producers| self.with_connections(&producers.members))
    }

    pub fn consumer_groups(&self) -> impl Iterator<Item = (&GroupName, &Arc<ConsumerGroup>)> {
        self.consumers.iter().map(|(name, consumers)| (name, &consumers.group))
    }

    pub fn producer_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.producers.keys()
    }

    /// The members of a producer group in turn. Java: `ProducerManager.getAvailableChannel`.
    pub fn next_producer(&mut self, group: &str) -> Option<C> {
        let producers = self.producers.get_mut(group)?;
        let after =
            producers.chosen.and_then(|chosen| producers.members.range(chosen..).find(|(id, _)| **id != chosen));
        let (&id, _) = after.or_else(|| producers.members.first_key_value())?;
        producers.chosen = Some(id);
        self.connections.get(&id).map(|presence| presence.connection.clone())
    }

    /// The connection of the producer with this client id. Java: `ProducerManager.findChannel`.
    pub fn producer_by_id(&self, client_id: &str) -> Option<&C> {
        let id = self.producer_ids.get(client_id)?;
        self.connections.get(id).map(|presence| &presence.connection)
    }

    /// A client that has come back on another connection keeps its id.
    fn forget_producer_id(&mut self, id: ConnectionId, client_id: Option<Arc<str>>) {
        if let Some(client_id) = client_id
            && self.producer_ids.get(&client_id) == Some(&id)
        {
            self.producer_ids.remove(&client_id);
        }
    }

    fn with_connections<'a>(
        &'a self,
        members: &'a BTreeMap<ConnectionId, Member>,
    ) -> impl Iterator<Item = (&'a Member, &'a C)> {
        members.iter().filter_map(|(id, member)| Some((member, &self.connections.get(id)?.connection)))
    }

    fn notice(&self, group: &GroupName) -> Option<Notice<C>> {
        let consumers =
            self.consumers.get(&**group).filter(|consumers| consumers.notify && !consumers.group.is_broadcasting())?;
        let to = self.with_connections(&consumers.members).map(|(_, connection)| connection.clone()).collect();
        Some(Notice { group: group.clone(), to })
    }

    fn leave_consumers(&mut self, id: ConnectionId, group: &str) -> Option<Notice<C>> {
        let consumers = self.consumers.get_mut(group)?;
        consumers.members.remove(&id);
        consumers.disagreeing.retain(|(member, _)| *member != id);
        if consumers.members.is_empty() {
            self.subscription_bytes -= consumers.group.len_bytes();
            self.consumers.remove(group);
            self.group_changes += 1;
            return None;
        }
        self.notice(&GroupName::from(group))
    }

    fn leave_producers(&mut self, id: ConnectionId, group: &str) {
        if let Some(producers) = self.producers.get_mut(group) {
            producers.members.remove(&id);
            if producers.members.is_empty() {
                self.producers.remove(group);
            }
        }
    }

    fn forget_if_absent(&mut self, id: ConnectionId) {
        let absent =
            |presence: &Presence<C>| presence.consumer_groups.is_empty() && presence.producer_groups.is_empty();
        if self.connections.get(&id).is_some_and(absent) {
            self.connections.remove(&id);
        }
    }
}

impl Consumers {
    /// Where a member's subscriptions differ from those that other members, still there, have made.
    fn conflicts(&mut self, id: ConnectionId, subscriptions: &[SubscriptionData]) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let by_topic: BTreeMap<&str, &SubscriptionData> =
            subscriptions.iter().map(|data| (&*data.topic, data)).collect();
        for (topic, known) in &self.group.subscriptions {
            let own = by_topic.get(&**topic).copied();
            let agree = own
                .is_some_and(|own| own.sub_string == known.sub_string && own.expression_type == known.expression_type);
            let by = self.subscribers.get(topic).filter(|by| **by != id).and_then(|by| self.members.get(by));
            let place = (id, topic.clone());
            match by {
                Some(other) if !agree => {
                    if self.disagreeing.len() < DISAGREEING_MAX && self.disagreeing.insert(place) {
                        conflicts.push(Conflict {
                            topic: topic.clone(),
                            client_id: self
                                .members
                                .get(&id)
                                .map_or_else(|| Arc::from(""), |member| Arc::clone(&member.client_id)),
                            wants: own.map(|own| own.sub_string.clone()),
                            other_client_id: Arc::clone(&other.client_id),
                            other_wants: known.sub_string.clone(),
                        });
                    }
                }
                _ => {
                    self.disagreeing.remove(&place);
                }
            }
        }
        conflicts
    }

    /// Java: `ConsumerGroupInfo.updateSubscription`. Two clients that subscribe differently under one group name keep overwriting each
    /// other, as in Java.
    fn subscribe(&mut self, name: &GroupName, id: ConnectionId, subscriptions: Vec<SubscriptionData>) -> Change {
        let known = &self.group.subscriptions;
        let is_newer =
            |data: &SubscriptionData| known.get(&*data.topic).is_none_or(|old| old.sub_version < data.sub_version);
        let listed: BTreeSet<&str> = subscriptions.iter().map(|data| &*data.topic).collect();
        let gone: Vec<TopicName> = known.keys().filter(|topic| !listed.contains(&***topic)).cloned().collect();
        let newer: Vec<bool> = subscriptions.iter().map(is_newer).collect();
        if gone.is_empty() && !newer.contains(&true) {
            return Change::None;
        }
        let group = Arc::make_mut(&mut self.group);
        for topic in &gone {
            tracing::info!(group = %name, %topic, "subscription given up");
            group.subscriptions.remove(&**topic);
            self.subscribers.remove(topic);
        }
        if !gone.is_empty() {
            // Both in the order of names.
            self.disagreeing.retain(|(_, topic)| gone.binary_search(topic).is_err());
        }
        let mut change = if gone.is_empty() { Change::Expressions } else { Change::Topics };
        for (data, _) in subscriptions.into_iter().zip(newer).filter(|(_, newer)| *newer) {
            let topic = data.topic.clone();
            self.subscribers.insert(topic.clone(), id);
            let old = group.subscriptions.insert(topic.clone(), Arc::new(data));
            let new = &group.subscriptions[&topic];
            match old {
                None => {
                    tracing::info!(group = %name, %topic, expression = &*new.sub_string, "subscribed");
                    change = Change::Topics;
                }
                Some(old) if old.sub_string != new.sub_string => {
                    tracing::info!(group = %name, %topic, was = &*old.sub_string, is = &*new.sub_string, "subscription of the group changed");
                }
                Some(_) => {}
            }
        }
        change
    }
}

/// About what a subscription takes.
fn len_bytes(data: &SubscriptionData) -> usize {
    let tags: usize = data.tags_set.iter().map(String::len).sum();
    data.topic.len() + data.sub_string.len() + tags + data.code_set.len() * size_of::<i32>()
}

fn presence<'a, C: Clone>(
    connections: &'a mut HashMap<ConnectionId, Presence<C>>,
    id: ConnectionId,
    connection: &C,
) -> &'a mut Presence<C> {
    connections.entry(id).or_insert_with(|| Presence {
        connection: connection.clone(),
        consumer_groups: BTreeSet::new(),
        producer_groups: BTreeSet::new(),
        producer_id: None,
    })
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
