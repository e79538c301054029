//! Clients: who is there, sending back, transactions, relayed questions. Java: `HeartbeatRequestHeader`, `ConsumerSendMsgBackRequestHeader`, `EndTransactionRequestHeader` and others.

use crate::{ByteString, GroupName, Header, TopicName};

/// A client leaves: UNREGISTER_CLIENT (35). An empty group is no group. Java: `UnregisterClientRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct UnregisterClientRequest {
    #[header(name = "clientID")]
    pub client_id: ByteString,
    pub producer_group: Option<GroupName>,
    pub consumer_group: Option<GroupName>,
}

/// Client ids of a group: GET_CONSUMER_LIST_BY_GROUP (38). Java: `GetConsumerListByGroupRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumerListRequest {
    pub consumer_group: GroupName,
}

/// Broker to client: rebalance now, NOTIFY_CONSUMER_IDS_CHANGED (40). Java: `NotifyConsumerIdsChangedRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumerIdsChangedRequest {
    pub consumer_group: GroupName,
}

/// Deliver again later: CONSUMER_SEND_MSG_BACK (36). Java: `ConsumerSendMsgBackRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct SendBackRequest {
    /// Physical offset, as sent.
    pub offset: i64,
    pub group: GroupName,
    /// Negative: to the dead letters; 0: the broker chooses.
    pub delay_level: i32,
    pub origin_msg_id: Option<ByteString>,
    pub origin_topic: Option<TopicName>,
    #[header(default)]
    pub unit_mode: bool,
    pub max_reconsume_times: Option<i32>,
}

/// Outcome of a transaction: END_TRANSACTION (37). Java: `EndTransactionRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct EndTransactionRequest {
    pub topic: Option<TopicName>,
    pub producer_group: GroupName,
    /// Queue offset of the half message.
    pub tran_state_table_offset: i64,
    /// Physical offset of the half message.
    pub commit_log_offset: i64,
    /// 8 commit, 12 rollback, 0 unknown.
    pub commit_or_rollback: i32,
    #[header(default)]
    pub from_transaction_check: bool,
    pub msg_id: ByteString,
    pub transaction_id: Option<ByteString>,
}

/// Broker to producer: how did this transaction end, CHECK_TRANSACTION_STATE (39). Java: `CheckTransactionStateRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct CheckTransactionRequest {
    pub topic: Option<TopicName>,
    pub tran_state_table_offset: i64,
    pub commit_log_offset: i64,
    pub msg_id: Option<ByteString>,
    pub transaction_id: Option<ByteString>,
    pub offset_msg_id: Option<ByteString>,
}

/// Check a parked half message again: RESUME_CHECK_HALF_MESSAGE (323). Java: `ResumeCheckHalfMessageRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ResumeCheckHalfMessageRequest {
    pub topic: Option<TopicName>,
    /// Offset message id.
    pub msg_id: Option<ByteString>,
}

/// What a consumer is doing, relayed to it: GET_CONSUMER_RUNNING_INFO (307). Java: `GetConsumerRunningInfoRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumerRunningInfoRequest {
    pub consumer_group: GroupName,
    pub client_id: ByteString,
    #[header(default)]
    pub jstack_enable: bool,
}

/// Let one client consume one message, relayed to it: CONSUME_MESSAGE_DIRECTLY (309). Java: `ConsumeMessageDirectlyResultRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumeDirectlyRequest {
    pub consumer_group: GroupName,
    pub client_id: Option<ByteString>,
    pub msg_id: Option<ByteString>,
    pub broker_name: Option<ByteString>,
    pub topic: Option<TopicName>,
    pub topic_sys_flag: Option<i32>,
    pub group_sys_flag: Option<i32>,
}

/// Offsets as clients see them: INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), relayed as GET_CONSUMER_STATUS_FROM_CLIENT (221). Java: `GetConsumerStatusRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct ConsumerStatusRequest {
    pub topic: TopicName,
    pub group: GroupName,
    /// A client id, in spite of the name.
    pub client_addr: Option<ByteString>,
}
