//! Consumer groups: settings, connected clients, progress.

use std::collections::BTreeMap;

use ferromq_protocol::body::{ConsumeStats, ConsumerConnection, ConsumerRunningInfo, MessageQueue, SubscriptionGroup};
use ferromq_protocol::header::{ConsumeStatsRequest, ConsumerConnectionRequest, ConsumerRunningInfoRequest};
use ferromq_protocol::{Command, NoFields, RequestCode, ResponseCode, topics};

use crate::{Admin, AdminError};

impl Admin {
    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200).
    pub async fn update_group(&self, addr: &str, group: &SubscriptionGroup) -> Result<(), AdminError> {
        let request =
            Command::request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &NoFields).with_json_body(group);
        self.ask(addr, request).await.map(drop)
    }

    /// The clients of a group, asked at one broker of its retry topic.
    pub async fn consumer_connection(&self, group: &str) -> Result<ConsumerConnection, AdminError> {
        let route = self.route(&topics::retry_topic(group)).await?;
        match route.broker_datas.iter().find_map(|broker| broker.replica()) {
            Some(addr) => {
                let connection = self.consumer_connection_at(addr, group).await?;
                if connection.connection_set.is_empty() {
                    return Err(not_online(group));
                }
                Ok(connection)
            }
            None => Err(not_online(group)),
        }
    }

    /// GET_CONSUMER_CONNECTION_LIST (203).
    pub async fn consumer_connection_at(&self, addr: &str, group: &str) -> Result<ConsumerConnection, AdminError> {
        let header = ConsumerConnectionRequest { consumer_group: group.into() };
        self.ask_json(addr, RequestCode::GET_CONSUMER_CONNECTION_LIST, &header).await
    }

    /// GET_CONSUME_STATS (208) over every broker that serves the group (or the topic), added up. Java: `DefaultMQAdminExtImpl.examineConsumeStats`.
    pub async fn consume_stats(&self, group: &str, topic: Option<&str>) -> Result<ConsumeStats, AdminError> {
        let route = match self.route(&topics::retry_topic(group)).await {
            Ok(route) => route,
            Err(error) => match topic {
                Some(topic) => self.route(topic).await?,
                None => return Err(error),
            },
        };
        let mut total = ConsumeStats::default();
        for addr in route.broker_datas.iter().filter_map(|broker| broker.replica()) {
            let header =
                ConsumeStatsRequest { consumer_group: group.into(), topic: topic.map(Into::into), topic_list: None };
            let stats: ConsumeStats = self.ask_json(addr, RequestCode::GET_CONSUME_STATS, &header).await?;
            total.offset_table.extend(stats.offset_table);
            total.consume_tps += stats.consume_tps;
        }
        if !total.offset_table.is_empty() {
            return Ok(total);
        }
        // Nothing committed: say whether that is because nobody is there or because members keep their offsets themselves.
        let connection = self.consumer_connection(group).await?;
        if connection.message_model == Some(ferromq_protocol::body::MessageModel::Broadcasting) {
            return Err(AdminError::Refused {
                code: ResponseCode(213),
                remark: "Not found the consumer group consume stats, because return offset table is empty, the consumer is under the broadcast mode".to_owned(),
                broker: None,
            });
        }
        Err(AdminError::Refused {
            code: ResponseCode(206),
            remark: "Not found the consumer group consume stats, because return offset table is empty, maybe the consumer not consume any message".to_owned(),
            broker: None,
        })
    }

    /// Which client holds which queue, from every client's running info (307). Clients that do not answer are left out.
    pub async fn queue_owners(&self, group: &str) -> Result<BTreeMap<MessageQueue, String>, AdminError> {
        let route = self.route(&topics::retry_topic(group)).await?;
        let mut owners = BTreeMap::new();
        for addr in route.broker_datas.iter().filter_map(|broker| broker.replica()) {
            for client in self.consumer_connection_at(addr, group).await?.connection_set {
                let header = ConsumerRunningInfoRequest {
                    consumer_group: group.into(),
                    client_id: client.client_id.as_str().into(),
                    jstack_enable: false,
                };
                let info: Result<ConsumerRunningInfo, _> =
                    self.ask_json(addr, RequestCode::GET_CONSUMER_RUNNING_INFO, &header).await;
                for queue in info.into_iter().flat_map(|info| info.mq_table.into_iter().map(|(queue, _)| queue)) {
                    owners.insert(queue, client.client_id.clone());
                }
            }
        }
        Ok(owners)
    }
}

fn not_online(group: &str) -> AdminError {
    AdminError::Refused {
        code: ResponseCode(206),
        remark: format!("Not found the consumer group connection: {group}"),
        broker: None,
    }
}
