//! The clients that are connected now, shared by all handlers behind one short lock. Java: `ProducerManager`, `ConsumerManager`.

mod table;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ferromq_protocol::body::{
    ClientConnection, ConsumerConnection, ProducerConnection, ProducerInfo, ProducerTable, SubscriptionData,
};
use ferromq_protocol::header::ConsumerIdsChangedRequest;
use ferromq_protocol::{Command, GroupName, RequestCode, TopicName};
use ferromq_remoting::Connection;
use parking_lot::Mutex;

pub use table::{ClientsFull, ConsumerGroup, ConsumerHeartbeat, Member};
use table::{Conflict, Notice, Table};

/// Time between two looks for silent clients. Java: `ClientHousekeepingService`.
pub(crate) const EXPIRE_PERIOD: Duration = Duration::from_secs(10);

/// Is given the name of a group.
type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// Owner of consumer and producer registrations. Nothing here outlives the process.
#[derive(Default)]
pub struct Clients {
    table: Mutex<Table<Connection>>,
    subscription_changes: AtomicU64,
    /// The table's own, to be read without the lock.
    group_changes: AtomicU64,
    /// Told when a group's subscription has become another one.
    listener: OnceLock<Listener>,
}

/// A connected client, for requests from the broker to it.
#[derive(Clone)]
pub struct ConnectedClient {
    pub client_id: Arc<str>,
    pub version: i32,
    pub connection: Connection,
}

impl Clients {
    pub fn new() -> Clients {
        Clients::default()
    }

    /// A consumer's heartbeat. Tells all members, this one included, if somebody joined or topics came or went. True: the client should send
    /// its subscriptions in full next time.
    pub fn consumer_heartbeat(
        &self,
        connection: &Connection,
        member: Member,
        heartbeat: ConsumerHeartbeat,
    ) -> Result<bool, ClientsFull> {
        let group = heartbeat.group.clone();
        let registered =
            self.change(|table| table.register_consumer(connection.id(), connection, member, heartbeat))?;
        if registered.resubscribed {
            // After the change: who reads the number and then the old subscription sees another number later.
            self.subscription_changes.fetch_add(1, Ordering::SeqCst);
            if let Some(listener) = self.listener.get() {
                listener(&group);
            }
        }
        send(registered.notice);
        for Conflict { topic, client_id, wants, other_client_id, other_wants } in registered.conflicts {
            tracing::warn!(
                %group, %topic, client_id = &*client_id, wants = wants.as_deref().unwrap_or("nothing of it"),
                other_client_id = &*other_client_id, other_wants,
                "two members of a group subscribe differently: both get what the later one wants, and messages are missed; \
                 give them one subscription, or a group each"
            );
        }
        Ok(registered.subscriptions_wanted)
    }

    /// Has the one listener told of groups whose subscription has become another one, after the change and under no lock. To be called once.
    pub fn on_resubscribed(&self, listener: impl Fn(&str) + Send + Sync + 'static) {
        assert!(self.listener.set(Box::new(listener)).is_ok(), "there is one listener");
    }

    /// How often any group's subscription has become another one. A decision taken by a subscription holds while this stays the same.
    pub fn subscription_changes(&self) -> u64 {
        self.subscription_changes.load(Ordering::SeqCst)
    }

    /// Grows with each change of a consumer group: what was found of it before holds as long as it stays.
    pub fn changes(&self) -> u64 {
        self.group_changes.load(Ordering::SeqCst).wrapping_add(self.subscription_changes())
    }

    fn change<R>(&self, change: impl FnOnce(&mut Table<Connection>) -> R) -> R {
        let mut table = self.table.lock();
        let outcome = change(&mut table);
        self.group_changes.store(table.group_changes(), Ordering::SeqCst);
        outcome
    }

    pub fn producer_heartbeat(
        &self,
        connection: &Connection,
        member: Member,
        group: &GroupName,
    ) -> Result<(), ClientsFull> {
        self.table.lock().register_producer(connection.id(), connection, member, group)
    }

    /// A connection that did not register in the group is no error.
    pub fn unregister_consumer(&self, connection: &Connection, group: &str) {
        let notice = self.change(|table| table.unregister_consumer(connection.id(), group));
        send(notice);
    }

    /// See [`unregister_consumer`](Self::unregister_consumer).
    pub fn unregister_producer(&self, connection: &Connection, group: &str) {
        self.table.lock().unregister_producer(connection.id(), group);
    }

    /// The connection is gone: its client leaves all groups, and the members that stay are told.
    pub fn closed(&self, connection: &Connection) {
        let notices = self.change(|table| table.closed(connection.id()));
        send(notices);
    }

    /// Closes connections whose clients have not sent a heartbeat for `timeout`.
    pub fn expire(&self, now: Instant, timeout: Duration) {
        let (silent, notices) = self.change(|table| table.expire(now, timeout));
        for connection in silent {
            tracing::warn!(peer = %connection.peer_addr(), "closed: no heartbeat for {} ms", timeout.as_millis());
            connection.close();
        }
        send(notices);
    }

    /// What the members of a group share; `None` when nobody of the group is connected.
    pub fn consumer_group(&self, group: &str) -> Option<Arc<ConsumerGroup>> {
        self.table.lock().consumer_group(group)
    }

    /// Client ids of a group, sorted, each once: clients share out the queues by position in this list.
    pub fn consumer_ids(&self, group: &str) -> Vec<String> {
        let ids: BTreeSet<Arc<str>> =
            self.table.lock().consumers(group).map(|(member, _)| Arc::clone(&member.client_id)).collect();
        ids.iter().map(|id| id.to_string()).collect()
    }

    /// The members of a consumer group.
    pub fn consumers(&self, group: &str) -> Vec<ConnectedClient> {
        let table = self.table.lock();
        table.consumers(group).map(connected).collect()
    }

    /// Groups of which somebody is connected.
    pub fn consumer_groups(&self) -> Vec<GroupName> {
        self.table.lock().consumer_groups().map(|(name, _)| name.clone()).collect()
    }

    /// Groups whose members subscribe to the topic now.
    pub fn groups_subscribed_to(&self, topic: &str) -> Vec<GroupName> {
        let table = self.table.lock();
        table
            .consumer_groups()
            .filter(|(_, group)| group.subscriptions.contains_key(topic))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Topics that the group's members subscribe to now.
    pub fn topics_of(&self, group: &str) -> Vec<TopicName> {
        self.consumer_group(group).map(|group| group.subscriptions.keys().cloned().collect()).unwrap_or_default()
    }

    /// One live producer of the group, another one each time.
    pub fn next_producer(&self, group: &str) -> Option<Connection> {
        self.table.lock().next_producer(group)
    }

    /// The producer with this client id: where a reply goes.
    pub fn producer_by_id(&self, client_id: &str) -> Option<Connection> {
        self.table.lock().producer_by_id(client_id).cloned()
    }

    /// GET_CONSUMER_CONNECTION_LIST; `None` when nobody of the group is connected.
    pub fn consumer_connection(&self, name: &str) -> Option<ConsumerConnection> {
        let table = self.table.lock();
        let group = table.consumer_group(name)?;
        Some(ConsumerConnection {
            connection_set: table.consumers(name).map(|(member, _)| connection_info(member)).collect(),
            subscription_table: group
                .subscriptions
                .iter()
                .map(|(topic, data)| (topic.clone(), SubscriptionData::clone(data)))
                .collect(),
            consume_type: group.consume_type,
            message_model: group.message_model,
            consume_from_where: group.consume_from_where,
        })
    }

    /// GET_PRODUCER_CONNECTION_LIST; `None` when nobody of the group is connected.
    pub fn producer_connection(&self, group: &str) -> Option<ProducerConnection> {
        let connection_set: Vec<_> =
            self.table.lock().producers(group).map(|(member, _)| connection_info(member)).collect();
        (!connection_set.is_empty()).then_some(ProducerConnection { connection_set })
    }

    /// GET_ALL_PRODUCER_INFO.
    pub fn producer_table(&self) -> ProducerTable {
        let table = self.table.lock();
        let info = |member: &Member| ProducerInfo {
            client_id: member.client_id.to_string(),
            // Java prints the socket address as it is: with a slash in front.
            remote_ip: format!("/{}", member.peer),
            language: member.language,
            version: member.version,
            last_update_timestamp: member.heard_at_ms,
        };
        let producers =
            |group: &GroupName| (group.clone(), table.producers(group).map(|(member, _)| info(member)).collect());
        ProducerTable { data: table.producer_groups().map(producers).collect() }
    }
}

/// NOTIFY_CONSUMER_IDS_CHANGED, one-way. A client that cannot be told asks by itself every 20 seconds.
fn send(notices: impl IntoIterator<Item = Notice<Connection>>) {
    for Notice { group, to } in notices {
        let request = Command::request(
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED,
            &ConsumerIdsChangedRequest { consumer_group: group.clone() },
        )
        .oneway();
        for connection in to {
            if let Err(error) = connection.oneway(request.clone()) {
                tracing::debug!(%group, peer = %connection.peer_addr(), %error, "not told that its group changed");
            }
        }
    }
}

fn connected((member, connection): (&Member, &Connection)) -> ConnectedClient {
    ConnectedClient {
        client_id: Arc::clone(&member.client_id),
        version: member.version,
        connection: connection.clone(),
    }
}

fn connection_info(member: &Member) -> ClientConnection {
    ClientConnection {
        client_id: member.client_id.to_string(),
        client_addr: member.peer.to_string(),
        language: member.language,
        version: member.version,
    }
}
