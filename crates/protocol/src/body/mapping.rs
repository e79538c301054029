//! Static topics: which physical queues stand behind the logical queues of a topic.

use serde::{Deserialize, Serialize};

use super::{DataVersion, Table};
use crate::TopicName;

/// Java: TopicQueueMappingInfo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bname: Option<String>,
    /// Logical queue → physical queue now in use.
    pub curr_id_map: Table<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    pub total_queues: i32,
}

impl Default for TopicQueueMappingInfo {
    fn default() -> Self {
        TopicQueueMappingInfo {
            bname: None,
            curr_id_map: Table::new(),
            dirty: false,
            epoch: 0,
            scope: "__global__".to_owned(),
            topic: None,
            total_queues: 0,
        }
    }
}

/// [`TopicQueueMappingInfo`] with the history of every queue. Java: TopicQueueMappingDetail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bname: Option<String>,
    pub curr_id_map: Table<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    /// Logical queue → the physical queues it has been on, oldest first.
    pub hosted_queues: Table<i32, Vec<LogicQueueMappingItem>>,
    pub scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    pub total_queues: i32,
}

impl Default for TopicQueueMappingDetail {
    fn default() -> Self {
        let info = TopicQueueMappingInfo::default();
        TopicQueueMappingDetail {
            bname: info.bname,
            curr_id_map: info.curr_id_map,
            dirty: info.dirty,
            epoch: info.epoch,
            hosted_queues: Table::new(),
            scope: info.scope,
            topic: info.topic,
            total_queues: info.total_queues,
        }
    }
}

/// A stretch of a logical queue on one physical queue; −1 means open. Java: LogicQueueMappingItem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogicQueueMappingItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bname: Option<String>,
    pub end_offset: i64,
    #[serde(rename = "gen")]
    pub generation: i32,
    pub logic_offset: i64,
    pub queue_id: i32,
    pub start_offset: i64,
    pub time_of_end: i64,
    pub time_of_start: i64,
}

impl Default for LogicQueueMappingItem {
    fn default() -> Self {
        LogicQueueMappingItem {
            bname: None,
            end_offset: -1,
            generation: 0,
            logic_offset: 0,
            queue_id: 0,
            start_offset: 0,
            time_of_end: -1,
            time_of_start: -1,
        }
    }
}

/// `topicQueueMapping.json`. Java: TopicQueueMappingSerializeWrapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingTable {
    pub data_version: DataVersion,
    pub topic_queue_mapping_info_map: Table<TopicName, TopicQueueMappingDetail>,
}
