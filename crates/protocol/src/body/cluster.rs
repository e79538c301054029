//! Who is in which cluster, as the nameserver sees it.

use serde::{Deserialize, Serialize};

use super::{BrokerData, Table};

/// Java: ClusterInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Broker name → its replicas.
    pub broker_addr_table: Table<String, BrokerData>,
    /// Cluster → names of its brokers.
    pub cluster_addr_table: Table<String, Vec<String>>,
}

/// All replicas of one broker name. Java: BrokerMemberGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroup {
    /// Broker id → address.
    pub broker_addrs: Table<i64, String>,
    pub broker_name: String,
    pub cluster: String,
}

/// Java: GetBrokerMemberGroupResponseBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerMemberGroupReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_member_group: Option<BrokerMemberGroup>,
}
