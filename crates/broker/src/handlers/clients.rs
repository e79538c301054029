//! Clients introduce themselves and ask for each other: heartbeats, sign-off, group members, and the listings that tools show.
//!
//! Java: `ClientManageProcessor`, `ConsumerManageProcessor`, parts of `AdminBrokerProcessor`.

use std::time::Instant;

use ferromq_filter::Expression;
use ferromq_protocol::body::{
    CheckClientRequest, ConsumeType, ConsumerData, ConsumerIdList, Heartbeat, SubscriptionData, SubscriptionReply,
};
use ferromq_protocol::header::{
    ConsumerConnectionRequest, ConsumerListRequest, ProducerConnectionRequest, SubscriptionByConsumerRequest,
    UnregisterClientRequest,
};
use ferromq_protocol::{GroupName, NoFields, Reply, ResponseCode, topics as names};
use ferromq_remoting::Connection;
use tracing::debug;

use crate::clients::{Clients, ClientsFull, ConsumerHeartbeat, Member};
use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::groups::Groups;
use crate::handlers::pull::refuse_condition;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::subscription::{self, SubscriptionError};
use crate::topics::{Topics, perm};

/// topicSysFlag of a unit's retry topic. Java: `TopicSysFlag.buildSysFlag(false, true)`.
const UNIT_SUBSCRIPTION: i32 = 2;

/// HEART_BEAT (34). Groups that do not exist and may not be created are left out in silence, as in Java.
pub(crate) fn heartbeat(
    clients: &Clients,
    groups: &Groups,
    topics: &Topics,
    config: &BrokerConfig,
    origin: &Origin,
    connection: &Connection,
    heartbeat: Heartbeat,
) -> Result<Reply, Refusal> {
    check(&heartbeat)?;
    let member = Member {
        client_id: heartbeat.client_id.into(),
        language: origin.language,
        version: origin.version,
        peer: origin.address,
        heard_at_ms: now_ms(),
        heard_at: Instant::now(),
    };
    let is_v2 = heartbeat.heartbeat_fingerprint != 0;
    let mut subscriptions_wanted = !is_v2;
    for consumer in heartbeat.consumer_data_set {
        if config.reject_pull_consumer_enable && consumer.consume_type == Some(ConsumeType::Actively) {
            continue;
        }
        let Some(group) = groups.find_or_create(&consumer.group_name) else { continue };
        make_retry_topic(topics, &consumer, group.retry_queue_nums);
        let without_subscriptions = is_v2 && heartbeat.without_sub;
        let registered = clients.consumer_heartbeat(
            connection,
            member.clone(),
            ConsumerHeartbeat {
                group: consumer.group_name,
                consume_type: consumer.consume_type,
                message_model: consumer.message_model,
                consume_from_where: consumer.consume_from_where,
                subscriptions: (!without_subscriptions).then_some(consumer.subscription_data_set),
                fingerprint: heartbeat.heartbeat_fingerprint,
                notify: group.notify_consumer_ids_changed_enable && config.notify_consumer_ids_changed_enable,
            },
        );
        subscriptions_wanted |= registered.map_err(full)?;
    }
    if config.enable_register_producer {
        for producer in heartbeat.producer_data_set {
            clients.producer_heartbeat(connection, member.clone(), &producer.group_name).map_err(full)?;
        }
    }
    let changed = if subscriptions_wanted { "true" } else { "false" };
    Ok(Reply::ok().header([("IS_SUPPORT_HEART_BEAT_V2", "true"), ("IS_SUB_CHANGE", changed)]))
}

/// Longest client id and name in a heartbeat, in bytes.
const ID_LEN_MAX: usize = 1024;

/// Whether this broker can keep what a heartbeat says. Java keeps anything.
fn check(heartbeat: &Heartbeat) -> Result<(), Refusal> {
    let consumers = heartbeat.consumer_data_set.iter();
    let topics = consumers.clone().flat_map(|consumer| &consumer.subscription_data_set).map(|data| data.topic.len());
    let groups = consumers.clone().map(|consumer| consumer.group_name.len());
    let producers = heartbeat.producer_data_set.iter().map(|producer| producer.group_name.len());
    let longest = topics.chain(groups).chain(producers).max().unwrap_or(0).max(heartbeat.client_id.len());
    if longest > ID_LEN_MAX {
        return Err(Refusal::system_error(format!("a name of {longest} bytes, the limit is {ID_LEN_MAX}")));
    }
    for data in consumers.flat_map(|consumer| &consumer.subscription_data_set) {
        subscription::check(data).map_err(|error| unusable(data, error))?;
    }
    Ok(())
}

fn unusable(data: &SubscriptionData, error: SubscriptionError) -> Refusal {
    let remark = format!("the subscription to {} cannot be used: {error}", data.topic);
    Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark)
}

fn full(full: ClientsFull) -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_BUSY, full.to_string())
}

/// The topic that takes what the group could not consume, ordered if anything it subscribes to is.
fn make_retry_topic(topics: &Topics, consumer: &ConsumerData, queue_count: i32) {
    let retry_topic = names::retry_topic(&consumer.group_name);
    // The group may come from a file of Java's, which takes any name.
    if topics.contains(&retry_topic) || !GroupName::can_be_retried(&consumer.group_name) {
        return;
    }
    let order =
        consumer.subscription_data_set.iter().any(|data| topics.find(&data.topic).is_some_and(|topic| topic.order));
    let topic_sys_flag = if consumer.unit_mode { UNIT_SUBSCRIPTION } else { 0 };
    if let Err(error) = topics.find_or_create(&retry_topic, queue_count, perm::READ_WRITE, order, topic_sys_flag) {
        // Who gives a message back tries again, and is told why not. On a slave it comes with its master's.
        debug!(topic = &*retry_topic, %error, "a retry topic is not made with the heartbeat of its group");
    }
}

/// UNREGISTER_CLIENT (35). By connection: the client id is not looked at, as in Java. An empty group name means none.
pub(crate) fn unregister(
    clients: &Clients,
    connection: &Connection,
    request: &UnregisterClientRequest,
) -> Result<Reply, Refusal> {
    if let Some(group) = &request.producer_group {
        clients.unregister_producer(connection, group);
    }
    if let Some(group) = &request.consumer_group {
        clients.unregister_consumer(connection, group);
    }
    Ok(Reply::ok().header(NoFields))
}

/// CHECK_CLIENT_CONFIG (46): tells a consumer at its start whether its expression can work here, and if not where it is wrong.
pub(crate) fn check_config(config: &BrokerConfig, request: CheckClientRequest) -> Result<Reply, Refusal> {
    if let Some(data) = request.subscription_data {
        if SubscriptionData::is_tag_type(Some(&data.expression_type)) {
            subscription::check(&data).map_err(|error| unusable(&data, error))?;
        } else {
            refuse_condition(config, &data.expression_type)?;
            Expression::compile(&data.sub_string)
                .map_err(|error| Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, error.to_string()))?;
        }
    }
    Ok(Reply::ok())
}

/// GET_CONSUMER_LIST_BY_GROUP (38), which every rebalance begins with.
pub(crate) fn consumer_ids(clients: &Clients, request: &ConsumerListRequest) -> Result<Reply, Refusal> {
    let consumer_group = &request.consumer_group;
    let consumer_id_list = clients.consumer_ids(consumer_group);
    if consumer_id_list.is_empty() {
        return Err(Refusal::system_error(format!("no consumer for this group, {consumer_group}")).header(NoFields));
    }
    Ok(Reply::ok().header(NoFields).json_body(&ConsumerIdList { consumer_id_list }))
}

/// GET_CONSUMER_CONNECTION_LIST (203).
pub(crate) fn consumer_connections(clients: &Clients, request: &ConsumerConnectionRequest) -> Result<Reply, Refusal> {
    let group = &request.consumer_group;
    match clients.consumer_connection(group) {
        Some(connections) => Ok(Reply::ok().json_body(&connections)),
        None => Err(Refusal::new(ResponseCode::CONSUMER_NOT_ONLINE, format!("the consumer group[{group}] not online"))),
    }
}

/// GET_PRODUCER_CONNECTION_LIST (204).
pub(crate) fn producer_connections(clients: &Clients, request: &ProducerConnectionRequest) -> Result<Reply, Refusal> {
    let group = &request.producer_group;
    match clients.producer_connection(group) {
        Some(connections) => Ok(Reply::ok().json_body(&connections)),
        None => Err(Refusal::system_error(format!("the producer group[{group}] not exist"))),
    }
}

/// GET_ALL_PRODUCER_INFO (328).
pub(crate) fn producers(clients: &Clients) -> Reply {
    Reply::ok().json_body(&clients.producer_table())
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER (345); a group that is not online has none.
pub(crate) fn subscription(clients: &Clients, request: SubscriptionByConsumerRequest) -> Reply {
    let SubscriptionByConsumerRequest { group, topic } = request;
    let topic = topic.unwrap_or_default();
    let data = clients.consumer_group(&group).and_then(|consumers| consumers.subscription(&topic));
    let subscription_data = data.map(|data| SubscriptionData::clone(&data));
    Reply::ok().json_body(&SubscriptionReply { group, subscription_data, topic })
}

#[cfg(test)]
#[path = "clients_test.rs"]
mod tests;
