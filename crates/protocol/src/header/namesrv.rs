//! What the nameserver is asked. Java: the classes of `remoting.protocol.header.namesrv`.

use crate::{ByteString, Header, TopicName};

/// Route of a topic: GET_ROUTEINFO_BY_TOPIC (105). Java: `GetRouteInfoRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RouteRequest {
    pub topic: TopicName,
    pub accept_standard_json_only: Option<bool>,
}

/// A broker announces itself: REGISTER_BROKER (103). Java: `RegisterBrokerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RegisterBrokerRequest {
    pub broker_name: ByteString,
    pub broker_addr: ByteString,
    pub cluster_name: ByteString,
    pub ha_server_addr: ByteString,
    /// 0: master.
    pub broker_id: i64,
    pub heartbeat_timeout_millis: Option<i64>,
    /// Absence marks a broker before 5.0.
    pub enable_acting_master: Option<bool>,
    #[header(default)]
    pub compressed: bool,
    /// 0: do not check.
    #[header(default)]
    pub body_crc32: i32,
    /// Ours: the body does not list all topics of the broker. Java, which has no word for it, takes it from there being one topic only.
    pub partial_table: Option<bool>,
}

/// Answer to 103; filled for slaves whose master is known. Java: `RegisterBrokerResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RegisterBrokerReply {
    pub ha_server_addr: Option<ByteString>,
    pub master_addr: Option<ByteString>,
}

/// A broker leaves: UNREGISTER_BROKER (104). Java: `UnRegisterBrokerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct UnregisterBrokerRequest {
    pub broker_name: ByteString,
    pub broker_addr: ByteString,
    pub cluster_name: ByteString,
    pub broker_id: i64,
}

/// A registered broker is still there: BROKER_HEARTBEAT (904). Java: `BrokerHeartbeatRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct BrokerHeartbeatRequest {
    pub cluster_name: ByteString,
    pub broker_addr: ByteString,
    pub broker_name: ByteString,
    pub broker_id: Option<i64>,
    pub epoch: Option<i32>,
    pub max_offset: Option<i64>,
    pub confirm_offset: Option<i64>,
    #[header(name = "heartbeatTimeoutMills", also = "heartbeatTimeoutMillis")]
    pub heartbeat_timeout_millis: Option<i64>,
    pub election_priority: Option<i32>,
}

/// Has the topic table changed: QUERY_DATA_VERSION (322). Java: `QueryDataVersionRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct DataVersionRequest {
    pub broker_name: ByteString,
    pub broker_addr: ByteString,
    pub cluster_name: ByteString,
    pub broker_id: i64,
}

/// Answer to 322. Java: `QueryDataVersionResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct DataVersionReply {
    pub changed: bool,
}

/// Replicas of a broker name: GET_BROKER_MEMBER_GROUP (901). Java: `GetBrokerMemberGroupRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct BrokerMemberGroupRequest {
    pub cluster_name: ByteString,
    pub broker_name: ByteString,
}

/// Nameserver to broker: the group's smallest id changed, NOTIFY_MIN_BROKER_ID_CHANGE (905). Java: `NotifyMinBrokerIdChangeRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct MinBrokerIdChange {
    pub min_broker_id: Option<i64>,
    pub broker_name: Option<ByteString>,
    pub min_broker_addr: Option<ByteString>,
    pub offline_broker_addr: Option<ByteString>,
    pub ha_broker_addr: Option<ByteString>,
}

/// PUT_KV_CONFIG (100). Java: `PutKVConfigRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct KvPutRequest {
    pub namespace: ByteString,
    pub key: ByteString,
    pub value: ByteString,
}

/// GET_KV_CONFIG (101), DELETE_KV_CONFIG (102). Java: `GetKVConfigRequestHeader` and `DeleteKVConfigRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct KvKeyRequest {
    pub namespace: ByteString,
    pub key: ByteString,
}

/// Answer to 101. Java: `GetKVConfigResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct KvGetReply {
    pub value: Option<ByteString>,
}

/// GET_KVLIST_BY_NAMESPACE (219). Java: `GetKVListByNamespaceRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct KvNamespaceRequest {
    pub namespace: ByteString,
}

/// WIPE_WRITE_PERM_OF_BROKER (205). Java: `WipeWritePermOfBrokerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct WipeWritePermRequest {
    pub broker_name: ByteString,
}

/// Answer to 205. Java: `WipeWritePermOfBrokerResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct WipeWritePermReply {
    pub wipe_topic_count: i32,
}

/// ADD_WRITE_PERM_OF_BROKER (327). Java: `AddWritePermOfBrokerRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct AddWritePermRequest {
    pub broker_name: ByteString,
}

/// Answer to 327. Java: `AddWritePermOfBrokerResponseHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct AddWritePermReply {
    pub add_topic_count: i32,
}

/// GET_TOPICS_BY_CLUSTER (224). Java: `GetTopicsByClusterRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct TopicsByClusterRequest {
    pub cluster: ByteString,
}

/// DELETE_TOPIC_IN_NAMESRV (216). Java: `DeleteTopicFromNamesrvRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct DeleteTopicInNamesrvRequest {
    pub topic: TopicName,
    pub cluster_name: Option<ByteString>,
}

/// REGISTER_TOPIC_IN_NAMESRV (217). Java: `RegisterTopicRequestHeader`.
#[derive(Clone, Debug, Default, PartialEq, Header)]
pub struct RegisterTopicRequest {
    pub topic: TopicName,
}
