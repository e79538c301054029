//! Administration of topics on a broker. Java: `CreateTopicRequestHeader` and others.

use crate::{ByteString, GroupName, Header, TopicName};

/// Create or change a topic: UPDATE_AND_CREATE_TOPIC (17), UPDATE_AND_CREATE_STATIC_TOPIC (513). Java: `CreateTopicRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct CreateTopicRequest {
    pub topic: TopicName,
    /// Demanded by Java and never looked at.
    pub default_topic: Option<TopicName>,
    pub read_queue_nums: i32,
    pub write_queue_nums: i32,
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: ByteString,
    pub topic_sys_flag: Option<i32>,
    #[header(default)]
    pub order: bool,
    /// `+key=value,-key`.
    pub attributes: Option<ByteString>,
    pub force: Option<bool>,
}

/// Delete a topic on a broker: DELETE_TOPIC_IN_BROKER (215). Java: `DeleteTopicRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct DeleteTopicRequest {
    pub topic: TopicName,
}

/// Settings of one topic: GET_TOPIC_CONFIG (351). Java: `GetTopicConfigRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct TopicConfigRequest {
    pub topic: TopicName,
}

/// Offsets and times of a topic's queues: GET_TOPIC_STATS_INFO (202). Java: `GetTopicStatsInfoRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct TopicStatsRequest {
    pub topic: TopicName,
}

/// Groups that consume a topic: QUERY_TOPIC_CONSUME_BY_WHO (300). Java: `QueryTopicConsumeByWhoRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct TopicConsumersRequest {
    pub topic: TopicName,
}

/// Oldest, newest and consumed times per queue: QUERY_CONSUME_TIME_SPAN (303). Java: `QueryConsumeTimeSpanRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumeTimeSpanRequest {
    pub topic: TopicName,
    pub group: GroupName,
}

/// Compare file and RocksDB consume queues: CHECK_ROCKSDB_CQ_WRITE_PROGRESS (354). Java: `CheckRocksdbCqWriteProgressRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumeQueueProgressRequest {
    pub topic: TopicName,
    #[header(default)]
    pub check_store_time: i64,
}
