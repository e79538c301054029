//! Producers and consumers as they introduce themselves, and as tools see them.

use serde::{Deserialize, Serialize};

use super::{ConsumeFromWhere, ConsumeType, MessageModel, MessageQueue, Table};
use crate::message::tags::java_string_hash;
use crate::{GroupName, Language, TopicName};

/// What a client sends every 30 seconds. Java: HeartbeatData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Heartbeat {
    #[serde(rename = "clientID")]
    pub client_id: String,
    pub consumer_data_set: Vec<ConsumerData>,
    /// The client's own hash over its subscriptions, only ever compared for equality; 0 from clients that do not know
    /// the second kind of heartbeat.
    pub heartbeat_fingerprint: i32,
    pub producer_data_set: Vec<ProducerData>,
    /// Subscriptions are left out because they have not changed.
    pub without_sub: bool,
}

/// Java: ProducerData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerData {
    pub group_name: GroupName,
}

/// Java: ConsumerData. Old and foreign clients leave the enumerations out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_type: Option<ConsumeType>,
    pub group_name: GroupName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    pub subscription_data_set: Vec<SubscriptionData>,
    pub unit_mode: bool,
}

/// One topic a consumer wants, and which messages of it. Java: SubscriptionData.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    pub class_filter_mode: bool,
    /// Hashes of the tags.
    pub code_set: Vec<i32>,
    /// `TAG` or `SQL92`.
    pub expression_type: String,
    pub sub_string: String,
    /// When the subscription was made; the greatest wins. Milliseconds from Java, nanoseconds from Go.
    pub sub_version: i64,
    pub tags_set: Vec<String>,
    pub topic: TopicName,
}

impl Default for SubscriptionData {
    fn default() -> Self {
        SubscriptionData {
            class_filter_mode: false,
            code_set: Vec::new(),
            expression_type: SubscriptionData::TAG.to_owned(),
            sub_string: String::new(),
            sub_version: 0,
            tags_set: Vec::new(),
            topic: TopicName::default(),
        }
    }
}

impl SubscriptionData {
    /// Matches every message.
    pub const ALL: &'static str = "*";
    /// Expression type of tag lists.
    pub const TAG: &'static str = "TAG";
    /// Expression type of SQL conditions.
    pub const SQL92: &'static str = "SQL92";

    /// Whether an expression type means tags: absent, empty or `TAG`. Java: ExpressionType.isTagType.
    pub fn is_tag_type(expression_type: Option<&str>) -> bool {
        matches!(expression_type, None | Some("" | SubscriptionData::TAG))
    }

    /// A tag subscription from its text: `*` or nothing for all, else tags between `||`. `None` when separators stand
    /// there without any tag. Java: FilterAPI.buildSubscriptionData.
    pub fn from_tags(topic: impl Into<TopicName>, text: &str, sub_version: i64) -> Option<SubscriptionData> {
        let topic = topic.into();
        if text.is_empty() || text == SubscriptionData::ALL {
            let sub_string = SubscriptionData::ALL.to_owned();
            return Some(SubscriptionData { sub_string, sub_version, topic, ..SubscriptionData::default() });
        }
        // Java splits like String.split: only separators leave nothing, and that is refused.
        if text.split("||").all(str::is_empty) {
            return None;
        }
        let mut tags_set: Vec<String> = Vec::new();
        for tag in text.split("||").map(str::trim).filter(|tag| !tag.is_empty()) {
            if !tags_set.iter().any(|known| known == tag) {
                tags_set.push(tag.to_owned());
            }
        }
        let mut code_set: Vec<i32> = Vec::with_capacity(tags_set.len());
        for code in tags_set.iter().map(|tag| java_string_hash(tag)) {
            if !code_set.contains(&code) {
                code_set.push(code);
            }
        }
        Some(SubscriptionData {
            code_set,
            sub_string: text.to_owned(),
            sub_version,
            tags_set,
            topic,
            ..SubscriptionData::default()
        })
    }

    /// Whether a message with this tags code may match. Without code (an extended entry) only the record can tell.
    pub fn matches_tags_code(&self, code: Option<i64>) -> bool {
        let Some(code) = code else { return true };
        self.sub_string == SubscriptionData::ALL || i32::try_from(code).is_ok_and(|code| self.code_set.contains(&code))
    }
}

/// Java: CheckClientRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequest {
    pub client_id: String,
    pub group: GroupName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

/// Java: GetConsumerListByGroupResponseBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerIdList {
    pub consumer_id_list: Vec<String>,
}

/// Locks or unlocks queues for one client. Java: LockBatchRequestBody, UnlockBatchRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchRequest {
    pub client_id: String,
    pub consumer_group: GroupName,
    pub mq_set: Vec<MessageQueue>,
    pub only_this_broker: bool,
}

/// Java: LockBatchResponseBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchReply {
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

/// One connection of a group. Java: Connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnection {
    pub client_addr: String,
    pub client_id: String,
    pub language: Language,
    pub version: i32,
}

/// Java: ConsumerConnection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    pub connection_set: Vec<ClientConnection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_type: Option<ConsumeType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    pub subscription_table: Table<TopicName, SubscriptionData>,
}

/// Java: ProducerConnection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    pub connection_set: Vec<ClientConnection>,
}

/// Java: ProducerTableInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProducerTable {
    pub data: Table<GroupName, Vec<ProducerInfo>>,
}

/// Java: ProducerInfo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerInfo {
    pub client_id: String,
    pub language: Language,
    pub last_update_timestamp: i64,
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    pub version: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn heartbeats_of_other_languages() {
        // C++: ordinals, quoted numbers, sets missing, a newline at the end.
        let text = br#"{"clientID":"c@1","consumerDataSet":[{"consumeFromWhere":4,"consumeType":1,"groupName":"G","messageModel":1,
            "subscriptionDataSet":[{"codeSet":["2598919"],"subString":"TagA","subVersion":"1700000000000","tagsSet":["TagA"],"topic":"T"}]}]}
"#;
        let heartbeat: Heartbeat = json::from_slice(text).unwrap();
        let consumer = &heartbeat.consumer_data_set[0];
        assert_eq!(consumer.consume_from_where, Some(ConsumeFromWhere::FirstOffset));
        assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
        assert_eq!(consumer.message_model, Some(MessageModel::Clustering));
        let subscription = &consumer.subscription_data_set[0];
        assert_eq!((subscription.code_set[0], subscription.sub_version), (2_598_919, 1_700_000_000_000));
        assert_eq!(subscription.expression_type, "TAG");
        // Go: null sets.
        let heartbeat: Heartbeat =
            json::from_slice(br#"{"clientID":"c","producerDataSet":null,"consumerDataSet":[]}"#).unwrap();
        assert!(heartbeat.producer_data_set.is_empty());
    }

    #[test]
    fn tag_lists() {
        let tags = |text: &str| SubscriptionData::from_tags("T", text, 0).map(|data| data.tags_set);
        assert_eq!(tags("*"), Some(vec![]));
        assert_eq!(tags(""), Some(vec![]));
        assert_eq!(tags("TagA || TagB||TagA"), Some(vec!["TagA".into(), "TagB".into()]));
        assert_eq!(tags("A||"), Some(vec!["A".into()]));
        assert_eq!(tags("||"), None);
        let data = SubscriptionData::from_tags("T", "TagA", 0).unwrap();
        assert!(data.matches_tags_code(Some(2_598_919)) && data.matches_tags_code(None));
        assert!(!data.matches_tags_code(Some(0)) && !data.matches_tags_code(Some(2_598_919 + (1 << 32))));
        assert!(SubscriptionData::from_tags("T", "*", 0).unwrap().matches_tags_code(Some(7)));
    }
}
