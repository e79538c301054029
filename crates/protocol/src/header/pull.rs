//! Pulling from a consume queue. Java: `PullMessageRequestHeader`, `PullMessageResponseHeader`.

use crate::{ByteString, GroupName, Header, QueueOffset, TopicName};

/// Pull a batch from one consume queue: PULL_MESSAGE (11), LITE_PULL_MESSAGE (361). Java: `PullMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
#[header(strict)]
pub struct PullRequest {
    pub consumer_group: GroupName,
    pub topic: TopicName,
    /// As sent; one outside the topic, negative ones too, has its own answer (29).
    pub queue_id: i32,
    /// As sent; a negative one is "too small", not an error.
    pub queue_offset: i64,
    pub max_msg_nums: i32,
    /// Bits: 1 commit offset, 2 suspend, 4 subscription included, 8 class filter, 16 lite pull.
    pub sys_flag: i32,
    /// Stored when bit 1 of `sys_flag` is set.
    pub commit_offset: i64,
    /// How long to hold the request when bit 2 of `sys_flag` is set, in ms.
    pub suspend_timeout_millis: i64,
    pub subscription: Option<ByteString>,
    pub sub_version: i64,
    /// Absent means TAG.
    pub expression_type: Option<ByteString>,
    pub max_msg_bytes: Option<i32>,
    /// -1 or absent: an SDK; others: kinds of proxy.
    pub request_source: Option<i32>,
    pub proxy_froward_client_id: Option<ByteString>,
}

/// Answer to a pull. The first four are demanded by clients with codes 0, 19, 20 and 21. Java: `PullMessageResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct PullReply {
    /// 0: ask the master next time; others: that slave.
    pub suggest_which_broker_id: i64,
    pub next_begin_offset: QueueOffset,
    pub min_offset: QueueOffset,
    pub max_offset: QueueOffset,
    /// Static topics: added to the queue offset of each message.
    pub offset_delta: Option<i64>,
    pub topic_sys_flag: Option<i32>,
    pub group_sys_flag: Option<i32>,
    /// With code 16: 1 broker, 2 group, 3 topic, 4 broadcasting, 5 subscription.
    pub forbidden_type: Option<i32>,
}
