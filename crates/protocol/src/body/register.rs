//! What a broker registers with a nameserver, as JSON or as a compressed list. Java: `RegisterBrokerBody`.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::{DataVersion, Table, TopicConfig, TopicConfigTable, TopicQueueMappingInfo};
use crate::TopicName;
use crate::json::{self, JsonError};

/// First version whose body is more than the bare topic table.
const BODY_VERSION: i32 = 37;
/// First version (5.0.0) whose compressed body ends with the topic mappings.
const MAPPING_VERSION: i32 = 413;
/// Most bytes a compressed body may unfold to.
const INFLATED_LEN_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("registration is no zlib stream, or unfolds to more than {INFLATED_LEN_MAX} bytes")]
    Inflate(#[source] std::io::Error),
    #[error("compressed registration ends inside its {0}")]
    Truncated(&'static str),
    #[error("compressed registration has an unreadable topic: {0:?}")]
    Topic(String),
}

/// Java: RegisterBrokerBody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    pub filter_server_list: Vec<String>,
    pub topic_config_serialize_wrapper: TopicConfigTable,
}

impl RegisterBrokerBody {
    /// Reads the body of a broker of that version. Whether it is compressed is seen from its first byte: the header's
    /// own word on it is wrong for 5.0 to 5.3 brokers. An absent body registers nothing.
    pub fn decode(body: &[u8], version: i32) -> Result<RegisterBrokerBody, RegisterError> {
        match body.first() {
            None => Ok(RegisterBrokerBody::default()),
            Some(0x78) => RegisterBrokerBody::decode_compressed(body, version),
            Some(_) if version < BODY_VERSION => Ok(RegisterBrokerBody {
                topic_config_serialize_wrapper: json::from_slice(body)?,
                ..RegisterBrokerBody::default()
            }),
            Some(_) => Ok(json::from_slice(body)?),
        }
    }

    /// The plain form.
    pub fn encode(&self) -> Vec<u8> {
        json::to_vec_bare_keys(self)
    }

    /// The compressed form, with the topic mappings. It does not carry the topics' order and system flags.
    pub fn encode_compressed(&self) -> Result<Vec<u8>, std::io::Error> {
        let table = &self.topic_config_serialize_wrapper;
        let mut list = Vec::new();
        append(&mut list, &json::to_vec(&table.data_version));
        append_count(&mut list, table.topic_config_table.len());
        for topic in table.topic_config_table.values() {
            append(&mut list, topic.to_line().as_bytes());
        }
        append(&mut list, &json::to_vec(&self.filter_server_list));
        let mappings = table.topic_queue_mapping_info_map.iter().flat_map(Table::values);
        append_count(&mut list, mappings.clone().count());
        for mapping in mappings {
            append(&mut list, &json::to_vec_bare_keys(mapping));
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&list)?;
        encoder.finish()
    }

    fn decode_compressed(body: &[u8], version: i32) -> Result<RegisterBrokerBody, RegisterError> {
        let mut list = Vec::new();
        let read =
            ZlibDecoder::new(body).take(INFLATED_LEN_MAX + 1).read_to_end(&mut list).map_err(RegisterError::Inflate)?;
        if read as u64 > INFLATED_LEN_MAX {
            return Err(RegisterError::Inflate(std::io::Error::other("too long")));
        }
        let mut rest = &list[..];
        let data_version: DataVersion = json::from_slice(take(&mut rest, "data version")?)?;
        let mut topic_config_table = Table::new();
        for _ in 0..count(&mut rest, "topic count")? {
            let line = String::from_utf8_lossy(take(&mut rest, "topics")?);
            let topic =
                TopicConfig::from_line(&line).ok_or_else(|| RegisterError::Topic(line.chars().take(200).collect()))?;
            topic_config_table.insert(topic.topic_name.clone(), topic);
        }
        let filter_server_list = json::from_slice(take(&mut rest, "filter servers")?)?;
        let mut table = TopicConfigTable { data_version, topic_config_table, ..TopicConfigTable::default() };
        if version >= MAPPING_VERSION && !rest.is_empty() {
            let mappings = table.topic_queue_mapping_info_map.get_or_insert_default();
            for _ in 0..count(&mut rest, "mapping count")? {
                let mapping: TopicQueueMappingInfo = json::from_slice(take(&mut rest, "mappings")?)?;
                let topic: TopicName = mapping.topic.clone().unwrap_or_default();
                mappings.insert(topic, mapping);
            }
        }
        Ok(RegisterBrokerBody { filter_server_list, topic_config_serialize_wrapper: table })
    }
}

fn append_count(list: &mut Vec<u8>, count: usize) {
    // A broker with two billion topics has other problems; readers would refuse the negative count.
    list.extend_from_slice(&(count as u32).to_be_bytes());
}

fn append(list: &mut Vec<u8>, part: &[u8]) {
    append_count(list, part.len());
    list.extend_from_slice(part);
}

fn count(rest: &mut &[u8], part: &'static str) -> Result<u32, RegisterError> {
    let (number, after) = rest.split_first_chunk::<4>().ok_or(RegisterError::Truncated(part))?;
    *rest = after;
    let number = i32::from_be_bytes(*number);
    // Java would run no loop for a negative count; here it is damage.
    u32::try_from(number).map_err(|_| RegisterError::Truncated(part))
}

fn take<'a>(rest: &mut &'a [u8], part: &'static str) -> Result<&'a [u8], RegisterError> {
    let len = count(rest, part)? as usize;
    let (taken, after) = rest.split_at_checked(len).ok_or(RegisterError::Truncated(part))?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RegisterBrokerBody {
        let mut table = TopicConfigTable::default().with_mappings();
        table.data_version = DataVersion { counter: 3, state_version: 1, timestamp: 5 };
        table.mapping_data_version = None;
        table.topic_queue_mapping_detail_map = None;
        for name in ["A", "B"] {
            table
                .topic_config_table
                .insert(name.into(), TopicConfig { topic_name: name.into(), ..TopicConfig::default() });
        }
        let mapping = TopicQueueMappingInfo { topic: Some("A".into()), ..TopicQueueMappingInfo::default() };
        table.topic_queue_mapping_info_map.get_or_insert_default().insert("A".into(), mapping);
        RegisterBrokerBody { filter_server_list: vec!["f".into()], topic_config_serialize_wrapper: table }
    }

    #[test]
    fn both_forms_round_trip() {
        let body = sample();
        assert_eq!(RegisterBrokerBody::decode(&body.encode(), 479).unwrap(), body);
        let compressed = body.encode_compressed().unwrap();
        assert_eq!(compressed[..2], [0x78, 0xDA]);
        assert_eq!(RegisterBrokerBody::decode(&compressed, 479).unwrap(), body);
        let old = RegisterBrokerBody::decode(&compressed, 407).unwrap();
        assert_eq!(old.topic_config_serialize_wrapper.topic_queue_mapping_info_map, None);
        for cut in 1..compressed.len() {
            assert!(RegisterBrokerBody::decode(&compressed[..cut], 479).is_err(), "{cut}");
        }
    }

    #[test]
    fn ancient_brokers_send_the_table_alone() {
        let body = json::to_vec(&sample().topic_config_serialize_wrapper);
        let read = RegisterBrokerBody::decode(&body, 36).unwrap();
        assert_eq!(read.topic_config_serialize_wrapper, sample().topic_config_serialize_wrapper);
    }
}
