//! Queues handed out by the broker, the mode in which a group asks for messages, and batched acknowledgements.

use serde::{Deserialize, Serialize};

use super::{MessageModel, MessageQueue, MessageRequestMode, Table};
use crate::{GroupName, TopicName};

/// Java: QueryAssignmentRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentRequest {
    pub client_id: String,
    pub consumer_group: GroupName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy_name: Option<String>,
    pub topic: TopicName,
}

/// Java: QueryAssignmentResponseBody. No list at all means that the group is not online.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<QueueAssignment>>,
}

/// Java: MessageQueueAssignment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueAssignment {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Table<String, String>>,
    pub message_queue: MessageQueue,
    pub mode: MessageRequestMode,
}

/// How a group asks for messages of a topic. Java: SetMessageRequestModeRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMode {
    pub consumer_group: GroupName,
    pub mode: MessageRequestMode,
    /// How many clients share a queue; 0 for all queues.
    pub pop_share_queue_num: i32,
    pub topic: TopicName,
}

/// `messageRequestMode.json`: topic → group → mode. Java: MessageRequestModeSerializeWrapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageRequestModeTable {
    pub message_request_mode_map: Table<TopicName, Table<GroupName, RequestMode>>,
}

/// Java: BatchAckMessageRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckRequest {
    pub acks: Vec<AckBatch>,
    pub broker_name: String,
}

/// Acknowledged offsets of one queue and pop. The wire has one-letter names; the long ones are read too. Java: BatchAck.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AckBatch {
    /// Base64 of the little-endian bytes of a bit set; bit `i` acknowledges `start_offset + i`.
    #[serde(rename = "b", alias = "bitSet")]
    pub bit_set: String,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: GroupName,
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// `0` for the topic itself, `1` and `2` for its two kinds of retry topic.
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: TopicName,
}
