//! Where the queues of a topic are.

use serde::{Deserialize, Serialize};

use super::{Table, TopicQueueMappingInfo};
use crate::json;

/// Java: TopicRouteData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRoute {
    pub broker_datas: Vec<BrokerData>,
    /// Normally empty, but 4.x readers want the member.
    pub filter_server_table: Table<String, Vec<String>>,
    /// Never `Some("")`: clients treat any value as an order configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    pub queue_datas: Vec<QueueData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<Table<String, TopicQueueMappingInfo>>,
}

/// The two textual forms of a route; which client gets which is decided by `namesrv/src/handlers/topics.rs`. Java: `ClientRequestProcessor.getRouteInfoByTopic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteForm {
    /// Strict JSON in ASCII, maps sorted by key.
    Strict,
    /// As Java's serializer likes it: integer keys bare.
    Legacy,
}

impl TopicRoute {
    /// The body of a route answer, byte for byte as Java's nameserver writes it.
    pub fn encode(&self, form: RouteForm) -> Vec<u8> {
        match form {
            RouteForm::Legacy => json::to_vec_bare_keys(self),
            RouteForm::Strict => {
                let mut route = self.clone();
                route.broker_datas.iter_mut().for_each(|broker| broker.broker_addrs.sort_unstable_keys());
                route.filter_server_table.sort_unstable_keys();
                for mapping in route.topic_queue_mapping_by_broker.iter_mut() {
                    mapping.sort_unstable_keys();
                    mapping.values_mut().for_each(|info| info.curr_id_map.sort_unstable_keys());
                }
                json::to_vec_ascii(&route)
            }
        }
    }
}

/// The replicas of one broker name. Java: BrokerData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Broker id → address; 0 is the master.
    pub broker_addrs: Table<i64, String>,
    pub broker_name: String,
    pub cluster: String,
    pub enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

impl BrokerData {
    /// The master's address.
    pub fn master(&self) -> Option<&str> {
        self.broker_addrs.get(&0).map(String::as_str)
    }

    /// The master's address, or any replica's when there is no master. Java: selectBrokerAddr.
    pub fn replica(&self) -> Option<&str> {
        self.master().or_else(|| self.broker_addrs.values().next().map(String::as_str))
    }
}

/// The queues one broker has of a topic. Java: QueueData.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    pub broker_name: String,
    pub perm: i32,
    pub read_queue_nums: i32,
    /// Spelled `topicSynFlag` by 4.5.1 and Go.
    #[serde(alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_flag() {
        for text in ["{\"topicSynFlag\":3}", "{\"topicSysFlag\":3}", "{\"TopicSynFlag\":\"3\"}"] {
            assert_eq!(json::from_slice::<QueueData>(text.as_bytes()).unwrap().topic_sys_flag, 3, "{text}");
        }
    }

    #[test]
    fn forms() {
        let text = r#"{"brokerDatas":[{"brokerAddrs":{1:"10.0.0.2:10911",0:"10.0.0.1:10911"},"brokerName":"订","cluster":"c/d","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[]}"#;
        let route: TopicRoute = json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(route.encode(RouteForm::Legacy), text.as_bytes());
        let strict = r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"\u8BA2","cluster":"c\/d","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[]}"#;
        assert_eq!(String::from_utf8(route.encode(RouteForm::Strict)).unwrap(), strict);
        assert_eq!(route.broker_datas[0].replica(), Some("10.0.0.1:10911"));
    }
}
