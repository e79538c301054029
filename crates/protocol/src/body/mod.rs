//! Bodies of requests and replies, and the files under `config/`: plain serde types, read and written by [`crate::json`].
//!
//! Members carry Java's names in Java's (alphabetical) order. Unknown members are ignored, missing ones take Java's
//! defaults, so older and newer peers read alike. Offsets are `i64` here: a body may say −1.

mod assignment;
mod client;
mod cluster;
mod consume;
mod data_version;
mod enums;
mod group;
mod kv;
mod mapping;
mod offset;
mod queue;
mod register;
mod replication;
mod route;
mod running;
mod stats;
mod timer;
mod topic;

/// A JSON object with keys that are data, in the order in which they came.
pub type Table<K, V> = indexmap::IndexMap<K, V>;

pub use assignment::{
    AckBatch, AssignmentReply, AssignmentRequest, BatchAckRequest, MessageRequestModeTable, QueueAssignment,
    RequestMode,
};
pub use client::{
    CheckClientRequest, ClientConnection, ConsumerConnection, ConsumerData, ConsumerIdList, Heartbeat, LockBatchReply,
    LockBatchRequest, ProducerConnection, ProducerData, ProducerInfo, ProducerTable, SubscriptionData,
};
pub use cluster::{BrokerMemberGroup, BrokerMemberGroupReply, ClusterInfo};
pub use consume::{
    ConsumeQueueEntry, ConsumeQueueReply, ConsumeTimeSpanReply, CorrectionOffsetReply, GroupList, QueueTimeSpan,
    SubscriptionReply,
};
pub use data_version::DataVersion;
pub use enums::{
    ConsumeFromWhere, ConsumeResult, ConsumeType, MessageModel, MessageRequestMode, RetryPolicyKind, TopicFilterType,
};
pub use group::{
    CustomizedRetryPolicy, ExponentialRetryPolicy, GroupForbidden, GroupRetryPolicy, SimpleSubscriptionData,
    SubscriptionGroup, SubscriptionGroupList, SubscriptionGroupTable,
};
pub use kv::KvTable;
pub use mapping::{LogicQueueMappingItem, TopicQueueMappingDetail, TopicQueueMappingInfo, TopicQueueMappingTable};
pub use offset::{
    ConsumerOffsetTable, ConsumerStatusBody, DelayOffsetTable, ResetOffsetBody, ResetOffsetBodyForC, ResetOffsetEntry,
};
pub use queue::MessageQueue;
pub use register::{RegisterBrokerBody, RegisterError};
pub use replication::{HaClientRuntimeInfo, HaConnectionRuntimeInfo, HaRuntimeInfo, SyncStateSet};
pub use route::{BrokerData, QueueData, RouteForm, TopicRoute};
pub use running::{ConsumeDirectlyResult, ConsumeStatus, ConsumerRunningInfo, PopProcessQueueInfo, ProcessQueueInfo};
pub use stats::{
    BrokerStatsData, BrokerStatsItem, ConsumeStats, ConsumeStatsList, OffsetWrapper, TopicOffset, TopicStats,
};
pub use timer::{TIMER_CHECK_POINT_LEN, TimerCheckPoint, TimerMetrics, TimingCount};
pub use topic::{TopicConfig, TopicConfigList, TopicConfigTable, TopicList};

#[cfg(test)]
mod config_files_test;
