//! Consumer offsets: also the files `consumerOffset.json` and `delayOffset.json`.

use serde::{Deserialize, Serialize, Serializer};

use super::{DataVersion, MessageQueue, Table};
use crate::json::inline;
use crate::{GroupName, TopicName};

/// Committed offsets of all groups. Java: ConsumerOffsetManager, ConsumerOffsetSerializeWrapper (the latter without
/// the topic map, and before 5.0 without version).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsetTable {
    pub data_version: DataVersion,
    /// Group → topics it has offsets for. Derived; written because Java writes it, never needed on reading.
    #[serde(serialize_with = "sets")]
    pub group_topic_map: Table<GroupName, Vec<TopicName>>,
    /// `topic@group` → queue id → next offset to consume.
    pub offset_table: Table<String, Table<i32, i64>>,
}

/// Writes every value as a set, which the pretty form keeps on one line.
fn sets<S: Serializer>(table: &Table<GroupName, Vec<TopicName>>, serializer: S) -> Result<S::Ok, S::Error> {
    struct Set<'a>(&'a [TopicName]);
    impl Serialize for Set<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            inline(self.0, serializer)
        }
    }
    serializer.collect_map(table.iter().map(|(group, topics)| (group, Set(topics))))
}

/// Delay level → offset up to which it is delivered; only levels in use. Java: DelayOffsetSerializeWrapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayOffsetTable {
    pub data_version: DataVersion,
    pub offset_table: Table<i32, i64>,
}

/// New offsets for a group. Go reads this text only because its keys are object literals. Java: ResetOffsetBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    pub offset_table: Table<MessageQueue, i64>,
}

/// The list form, for consumers reset by an admin tool in C++. Java: ResetOffsetBodyForC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBodyForC {
    pub offset_table: Vec<ResetOffsetEntry>,
}

/// Java: MessageQueueForC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetEntry {
    pub broker_name: String,
    pub offset: i64,
    pub queue_id: i32,
    pub topic: TopicName,
}

/// How far consumers are: the client fills the second table for the broker, the broker the first for the tool.
/// Java: GetConsumerStatusBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatusBody {
    /// Client id → its offsets.
    pub consumer_table: Table<String, Table<MessageQueue, i64>>,
    pub message_queue_table: Table<MessageQueue, i64>,
}
