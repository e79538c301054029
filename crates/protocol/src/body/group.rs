//! What a broker knows about its consumer groups: also the file `subscriptionGroup.json`.

use serde::{Deserialize, Serialize};

use super::{DataVersion, RetryPolicyKind, Table};
use crate::json::inline;
use crate::{GroupName, TopicName};

/// One consumer group. Missing members take Java's defaults. Java: SubscriptionGroupConfig.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroup {
    pub attributes: Table<String, String>,
    pub broker_id: i64,
    pub consume_broadcast_enable: bool,
    pub consume_enable: bool,
    pub consume_from_min_enable: bool,
    pub consume_message_orderly: bool,
    pub consume_timeout_minute: i32,
    pub group_name: GroupName,
    pub group_retry_policy: GroupRetryPolicy,
    pub group_sys_flag: i32,
    pub notify_consumer_ids_changed_enable: bool,
    pub retry_max_times: i32,
    pub retry_queue_nums: i32,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "inline")]
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    pub which_broker_when_consume_slowly: i64,
}

impl Default for SubscriptionGroup {
    fn default() -> Self {
        SubscriptionGroup {
            attributes: Table::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: GroupName::default(),
            group_retry_policy: GroupRetryPolicy::default(),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            subscription_data_set: None,
            which_broker_when_consume_slowly: 1,
        }
    }
}

/// Java: GroupRetryPolicy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupRetryPolicy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customized_retry_policy: Option<CustomizedRetryPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponential_retry_policy: Option<ExponentialRetryPolicy>,
    #[serde(rename = "type")]
    pub kind: RetryPolicyKind,
}

/// Delays in milliseconds, one per attempt. Java: CustomizedRetryPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CustomizedRetryPolicy {
    #[serde(serialize_with = "inline")]
    pub next: Vec<i64>,
}

impl Default for CustomizedRetryPolicy {
    /// The classic delay levels from 1 s on.
    fn default() -> Self {
        let seconds = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];
        CustomizedRetryPolicy { next: seconds.iter().map(|seconds| seconds * 1000).collect() }
    }
}

/// Delays in milliseconds that grow by a factor. Java: ExponentialRetryPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExponentialRetryPolicy {
    pub initial: i64,
    pub max: i64,
    pub multiplier: i64,
}

impl Default for ExponentialRetryPolicy {
    fn default() -> Self {
        ExponentialRetryPolicy { initial: 5_000, max: 7_200_000, multiplier: 2 }
    }
}

/// What a group subscribes to, fixed by its operator. Java: SimpleSubscriptionData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SimpleSubscriptionData {
    pub expression: String,
    pub expression_type: String,
    pub topic: TopicName,
    pub version: i64,
}

/// All groups of a broker with their version. 4.x files and bodies have no forbidden table, Java's
/// SubscriptionGroupWrapper has one only since 5.0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    pub data_version: DataVersion,
    /// Group → topic → bits that forbid something; bit 2 forbids reading.
    pub forbidden_table: Table<GroupName, Table<TopicName, i32>>,
    pub subscription_group_table: Table<GroupName, SubscriptionGroup>,
}

/// Java: SubscriptionGroupList.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupList {
    pub group_config_list: Vec<SubscriptionGroup>,
}

/// Java: GroupForbidden.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupForbidden {
    pub group: GroupName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<bool>,
    pub topic: TopicName,
}
