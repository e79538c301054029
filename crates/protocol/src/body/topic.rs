//! What a broker knows about its topics: also the file `topics.json`.

use serde::{Deserialize, Serialize};

use super::{DataVersion, Table, TopicFilterType, TopicQueueMappingDetail, TopicQueueMappingInfo};
use crate::{TopicName, json};

/// One topic of a broker. Missing members take Java's defaults: 16 queues, readable and writable. Java: TopicConfig.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    pub attributes: Table<String, String>,
    pub order: bool,
    /// 4 read, 2 write, 1 inherit.
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_filter_type: TopicFilterType,
    pub topic_name: TopicName,
    /// 1 unit topic, 2 unit subscription.
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            attributes: Table::new(),
            order: false,
            perm: 6,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: TopicName::default(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// The one-line form of compressed registrations, which loses system flag and order. Java: TopicConfig.encode.
    pub fn to_line(&self) -> String {
        let attributes = json::to_vec(&self.attributes);
        format!(
            "{} {} {} {} {} {}",
            self.topic_name,
            self.read_queue_nums,
            self.write_queue_nums,
            self.perm,
            self.topic_filter_type,
            String::from_utf8_lossy(&attributes),
        )
    }

    /// Reads [`TopicConfig::to_line`]; five words are enough, as 4.x writes them. `None` when it cannot be read.
    pub fn from_line(line: &str) -> Option<TopicConfig> {
        let mut words = line.splitn(6, ' ');
        Some(TopicConfig {
            topic_name: words.next()?.into(),
            read_queue_nums: words.next()?.parse().ok()?,
            write_queue_nums: words.next()?.parse().ok()?,
            perm: words.next()?.parse().ok()?,
            topic_filter_type: TopicFilterType::from_java_name(words.next()?)?,
            // As in Java, attributes that cannot be read are no attributes.
            attributes: words.next().and_then(|text| json::from_slice(text.as_bytes()).ok()).unwrap_or_default(),
            ..TopicConfig::default()
        })
    }
}

/// All topics of a broker with their version: `topics.json`, the answer to GET_ALL_TOPIC_CONFIG and the heart of a
/// registration. The mapping members are absent in the file and in 4.x bodies. Java: TopicConfigSerializeWrapper,
/// TopicConfigAndMappingSerializeWrapper.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    pub data_version: DataVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_data_version: Option<DataVersion>,
    pub topic_config_table: Table<TopicName, TopicConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_detail_map: Option<Table<TopicName, TopicQueueMappingDetail>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_info_map: Option<Table<TopicName, TopicQueueMappingInfo>>,
}

impl TopicConfigTable {
    /// The table with all mapping members present, as 5.x sends it. `mapping_data_version` keeps what it has.
    #[must_use]
    pub fn with_mappings(mut self) -> TopicConfigTable {
        self.mapping_data_version.get_or_insert_default();
        self.topic_queue_mapping_detail_map.get_or_insert_default();
        self.topic_queue_mapping_info_map.get_or_insert_default();
        self
    }
}

/// Java: CreateTopicListRequestBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    pub topic_config_list: Vec<TopicConfig>,
}

/// Names of topics. Java: TopicList.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    pub topic_list: Vec<TopicName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let topic = TopicConfig::from_line("T 4 8 6 MULTI_TAG").unwrap();
        assert_eq!((topic.read_queue_nums, topic.write_queue_nums, topic.perm), (4, 8, 6));
        assert_eq!(topic.to_line(), "T 4 8 6 MULTI_TAG {}");
        let topic = TopicConfig::from_line("T 4 8 6 SINGLE_TAG {\"a b\":\"c\"}").unwrap();
        assert_eq!(topic.attributes["a b"], "c");
        for line in ["", "T", "T 4 8 6", "T x 8 6 SINGLE_TAG", "T 4 8 6 TAG"] {
            assert_eq!(TopicConfig::from_line(line), None, "{line}");
        }
    }
}
