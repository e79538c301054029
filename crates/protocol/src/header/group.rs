//! Administration of consumer and producer groups. Java: `GetConsumerListByGroupRequestHeader` and others.

use crate::{ByteString, GroupName, Header, TopicName};

/// Delete a group's settings: DELETE_SUBSCRIPTIONGROUP (207). Java: `DeleteSubscriptionGroupRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct DeleteGroupRequest {
    pub group_name: GroupName,
    /// 4.9 calls it `removeOffset`.
    #[header(also = "removeOffset", default)]
    pub clean_offset: bool,
}

/// Settings of one group: GET_SUBSCRIPTIONGROUP_CONFIG (352). Java: `GetSubscriptionGroupConfigRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct GroupConfigRequest {
    pub group: GroupName,
}

/// Forbid or allow a group to read a topic: UPDATE_AND_GET_GROUP_FORBIDDEN (353). Java: `UpdateGroupForbiddenRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct GroupForbiddenRequest {
    pub group: GroupName,
    pub topic: TopicName,
    /// Absent: only ask.
    pub readable: Option<bool>,
}

/// Connected members of a consumer group: GET_CONSUMER_CONNECTION_LIST (203). Java: `GetConsumerConnectionListRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumerConnectionRequest {
    pub consumer_group: GroupName,
}

/// Connected members of a producer group: GET_PRODUCER_CONNECTION_LIST (204). Java: `GetProducerConnectionListRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ProducerConnectionRequest {
    pub producer_group: GroupName,
}

/// Progress of a group: GET_CONSUME_STATS (208). Java: `GetConsumeStatsRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumeStatsRequest {
    pub consumer_group: GroupName,
    pub topic: Option<TopicName>,
    /// `;`-separated.
    pub topic_list: Option<ByteString>,
}

/// Topics a group has offsets for: QUERY_TOPICS_BY_CONSUMER (343). Java: `QueryTopicsByConsumerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct TopicsByConsumerRequest {
    pub group: GroupName,
}

/// What a group subscribes: QUERY_SUBSCRIPTION_BY_CONSUMER (345). Java: `QuerySubscriptionByConsumerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct SubscriptionByConsumerRequest {
    pub group: GroupName,
    pub topic: Option<TopicName>,
}
