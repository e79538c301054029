//! Looking messages up by key, id or queue position. Java: `QueryMessageRequestHeader`, `ViewMessageRequestHeader`, `QueryConsumeQueueRequestHeader`.

use crate::{ByteString, GroupName, Header, PhysicalOffset, TopicName};

/// Messages by key: QUERY_MESSAGE (12). The free ext field `_UNIQUE_KEY_QUERY` = `true` asks by unique key. Java: `QueryMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct QueryMessageRequest {
    pub topic: TopicName,
    pub key: ByteString,
    pub max_num: i32,
    /// Store time, ms, inclusive.
    pub begin_timestamp: i64,
    /// Store time, ms, inclusive.
    pub end_timestamp: i64,
}

/// How far the index reaches. Zero with code 22. Java: `QueryMessageResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct QueryMessageReply {
    pub index_last_update_timestamp: i64,
    pub index_last_update_phyoffset: PhysicalOffset,
}

/// One message by its place in the commit log: VIEW_MESSAGE_BY_ID (33). Java: `ViewMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ViewMessageRequest {
    pub topic: Option<TopicName>,
    /// Physical offset, as sent.
    pub offset: i64,
}

/// Entries of one consume queue: QUERY_CONSUME_QUEUE (321). Java: `QueryConsumeQueueRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct QueryConsumeQueueRequest {
    pub topic: TopicName,
    #[header(default)]
    pub queue_id: i32,
    /// Queue offset of the first entry.
    #[header(default)]
    pub index: i64,
    #[header(default)]
    pub count: i32,
    pub consumer_group: Option<GroupName>,
}
