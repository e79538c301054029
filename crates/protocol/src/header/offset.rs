//! Consumer offsets and the bounds of queues. Java: `QueryConsumerOffsetRequestHeader`, `GetMaxOffsetRequestHeader` and others.

use crate::{ByteString, GroupName, Header, QueueId, QueueOffset, TopicName};

/// A group's committed offset: QUERY_CONSUMER_OFFSET (14). Java: `QueryConsumerOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct QueryOffsetRequest {
    pub consumer_group: GroupName,
    pub topic: TopicName,
    pub queue_id: QueueId,
    /// `false`: never answer 0 for "never committed".
    pub set_zero_if_not_found: Option<bool>,
}

/// Commit an offset: UPDATE_CONSUMER_OFFSET (15). Absent numbers have their own answer (29), hence the options. Java: `UpdateConsumerOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct UpdateOffsetRequest {
    pub consumer_group: GroupName,
    pub topic: TopicName,
    pub queue_id: Option<QueueId>,
    /// As sent; Java checks neither range nor sign.
    pub commit_offset: Option<i64>,
}

/// One queue offset: the answer to 14, 29, 30 and 31. Java: `GetMaxOffsetResponseHeader` and its three likes `QueryConsumerOffsetResponseHeader`, `GetMinOffsetResponseHeader`, `SearchOffsetResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct OffsetReply {
    pub offset: QueueOffset,
}

/// Offset by store time: SEARCH_OFFSET_BY_TIMESTAMP (29). Java: `SearchOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct SearchOffsetRequest {
    pub topic: TopicName,
    pub queue_id: QueueId,
    /// Store time, ms.
    pub timestamp: i64,
    /// `UPPER` in any case: the last at or before; anything else: the first at or after.
    pub boundary_type: Option<ByteString>,
}

/// End of a queue: GET_MAX_OFFSET (30). Java: `GetMaxOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct MaxOffsetRequest {
    pub topic: TopicName,
    pub queue_id: QueueId,
    #[header(default = true)]
    pub committed: bool,
}

/// Begin of a queue: GET_MIN_OFFSET (31). Java: `GetMinOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct MinOffsetRequest {
    pub topic: TopicName,
    pub queue_id: QueueId,
}

/// Store time of the oldest message of a queue: GET_EARLIEST_MSG_STORETIME (32). Java: `GetEarliestMsgStoretimeRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct EarliestStoreTimeRequest {
    pub topic: TopicName,
    pub queue_id: QueueId,
}

/// Answer to 32. Java: `GetEarliestMsgStoretimeResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct EarliestStoreTimeReply {
    /// ms; -1 when there is no message.
    pub timestamp: i64,
}

/// Move a group's offsets: INVOKE_BROKER_TO_RESET_OFFSET (222), and the push to clients, RESET_CONSUMER_CLIENT_OFFSET (220). Java: `ResetOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ResetOffsetRequest {
    pub group: GroupName,
    pub topic: TopicName,
    /// -1: every queue.
    #[header(default = -1)]
    pub queue_id: i32,
    /// -1 or absent: by time.
    pub offset: Option<i64>,
    /// ms; -1: to the end.
    pub timestamp: i64,
    #[header(default)]
    pub is_force: bool,
}

/// Copy one group's offsets to another: CLONE_GROUP_OFFSET (314). Java: `CloneGroupOffsetRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct CloneGroupOffsetRequest {
    pub src_group: GroupName,
    pub dest_group: GroupName,
    pub topic: Option<TopicName>,
    #[header(default)]
    pub offline: bool,
}

/// Smallest offsets among groups: QUERY_CORRECTION_OFFSET (308). Java: `QueryCorrectionOffsetHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct QueryCorrectionOffsetRequest {
    /// Comma-separated.
    pub filter_groups: Option<ByteString>,
    pub compare_group: GroupName,
    pub topic: TopicName,
}

pub type QueryOffsetReply = OffsetReply;
pub type SearchOffsetReply = OffsetReply;
pub type MaxOffsetReply = OffsetReply;
pub type MinOffsetReply = OffsetReply;
