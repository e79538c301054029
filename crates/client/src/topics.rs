//! Topics and routes.

use ferromq_protocol::body::{ClusterInfo, GroupList, TopicConfig, TopicList, TopicRoute, TopicStats};
use ferromq_protocol::header::{
    CreateTopicRequest, DeleteTopicInNamesrvRequest, DeleteTopicRequest, KvGetReply, KvKeyRequest, KvPutRequest,
    RouteRequest, TopicConsumersRequest, TopicStatsRequest,
};
use ferromq_protocol::{Command, NoFields, RequestCode, topics};

use crate::admin::succeeded;
use crate::{Admin, AdminError};

/// A queue and the address of the broker that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub topic: String,
    pub broker_name: String,
    pub addr: String,
    pub queue_id: u32,
}

impl Admin {
    /// GET_ROUTEINFO_BY_TOPIC (105). An unknown topic is `Refused` with code 17.
    pub async fn route(&self, topic: &str) -> Result<TopicRoute, AdminError> {
        let header = RouteRequest { topic: topic.into(), accept_standard_json_only: Some(true) };
        self.ask_nameserver(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header).await
    }

    /// GET_BROKER_CLUSTER_INFO (106).
    pub async fn cluster_info(&self) -> Result<ClusterInfo, AdminError> {
        self.ask_nameserver(RequestCode::GET_BROKER_CLUSTER_INFO, &NoFields).await
    }

    /// GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206), in the nameserver's order.
    pub async fn topics(&self) -> Result<Vec<String>, AdminError> {
        let list: TopicList = self.ask_nameserver(RequestCode::GET_ALL_TOPIC_LIST_FROM_NAMESERVER, &NoFields).await?;
        Ok(list.topic_list.iter().map(ToString::to_string).collect())
    }

    /// The readable queues of a topic.
    pub async fn subscribe_queues(&self, topic: &str) -> Result<Vec<Queue>, AdminError> {
        Ok(queues(topic, &self.route(topic).await?, 4, |data| data.read_queue_nums))
    }

    /// The writable queues of a topic; a topic that does not exist yet gives those of the auto-create topic, as Java's producer does.
    pub async fn publish_queues(&self, topic: &str) -> Result<Vec<Queue>, AdminError> {
        let route = match self.route(topic).await {
            Err(error) if error.code() == Some(ferromq_protocol::ResponseCode::TOPIC_NOT_EXIST) => {
                let mut template = self.route(topics::AUTO_CREATE_TOPIC).await.map_err(|_| error)?;
                for data in &mut template.queue_datas {
                    data.write_queue_nums = data.write_queue_nums.min(4);
                }
                template
            }
            other => other?,
        };
        Ok(queues(topic, &route, 2, |data| data.write_queue_nums)
            .into_iter()
            .filter(|queue| !queue.addr.is_empty())
            .collect())
    }

    /// UPDATE_AND_CREATE_TOPIC (17).
    pub async fn create_topic(&self, addr: &str, topic: &TopicConfig) -> Result<(), AdminError> {
        let attributes: Vec<String> = topic
            .attributes
            .iter()
            .map(|(key, value)| if key.starts_with('-') { key.clone() } else { format!("{key}={value}") })
            .collect();
        let header = CreateTopicRequest {
            topic: topic.topic_name.clone(),
            default_topic: Some(topics::AUTO_CREATE_TOPIC.into()),
            read_queue_nums: topic.read_queue_nums,
            write_queue_nums: topic.write_queue_nums,
            perm: topic.perm,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_sys_flag: Some(topic.topic_sys_flag),
            order: topic.order,
            attributes: (!attributes.is_empty()).then(|| attributes.join(",").into()),
            force: None,
        };
        self.ask(addr, Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC, &header)).await.map(drop)
    }

    /// DELETE_TOPIC_IN_BROKER (215).
    pub async fn delete_topic(&self, addr: &str, topic: &str) -> Result<(), AdminError> {
        let header = DeleteTopicRequest { topic: topic.into() };
        self.ask(addr, Command::request(RequestCode::DELETE_TOPIC_IN_BROKER, &header)).await.map(drop)
    }

    /// DELETE_TOPIC_IN_NAMESRV (216) on one nameserver.
    pub async fn delete_topic_in_nameserver(
        &self,
        nameserver: &str,
        topic: &str,
        cluster: &str,
    ) -> Result<(), AdminError> {
        let header = DeleteTopicInNamesrvRequest { topic: topic.into(), cluster_name: Some(cluster.into()) };
        let reply = self
            .name_servers
            .invoke_at(nameserver, Command::request(RequestCode::DELETE_TOPIC_IN_NAMESRV, &header))
            .await?;
        succeeded(reply).map(drop)
    }

    /// GET_TOPIC_STATS_INFO (202).
    pub async fn topic_stats(&self, addr: &str, topic: &str) -> Result<TopicStats, AdminError> {
        let header = TopicStatsRequest { topic: topic.into() };
        self.ask_json(addr, RequestCode::GET_TOPIC_STATS_INFO, &header).await
    }

    /// QUERY_TOPIC_CONSUME_BY_WHO (300).
    pub async fn groups_of_topic(&self, addr: &str, topic: &str) -> Result<Vec<String>, AdminError> {
        let header = TopicConsumersRequest { topic: topic.into() };
        let list: GroupList = self.ask_json(addr, RequestCode::QUERY_TOPIC_CONSUME_BY_WHO, &header).await?;
        Ok(list.group_list.iter().map(ToString::to_string).collect())
    }

    /// GET_KV_CONFIG (101). A missing entry is `Refused` with code 22.
    pub async fn kv_get(&self, namespace: &str, key: &str) -> Result<String, AdminError> {
        let header = KvKeyRequest { namespace: namespace.into(), key: key.into() };
        let (reply, addr) = self.name_servers.invoke(Command::request(RequestCode::GET_KV_CONFIG, &header)).await?;
        let reply: KvGetReply = succeeded(reply)?.header().map_err(AdminError::header(addr))?;
        Ok(reply.value.unwrap_or_default().to_string())
    }

    /// PUT_KV_CONFIG (100) on every nameserver.
    pub async fn kv_put(&self, namespace: &str, key: &str, value: &str) -> Result<(), AdminError> {
        let header = KvPutRequest { namespace: namespace.into(), key: key.into(), value: value.into() };
        self.on_every_nameserver(Command::request(RequestCode::PUT_KV_CONFIG, &header)).await
    }

    async fn on_every_nameserver(&self, request: Command) -> Result<(), AdminError> {
        for nameserver in self.nameservers() {
            succeeded(self.name_servers.invoke_at(nameserver, request.clone()).await?)?;
        }
        Ok(())
    }
}

/// The queues of a route that have a permission; brokers without a master have none.
fn queues(
    topic: &str,
    route: &TopicRoute,
    perm: i32,
    count: impl Fn(&ferromq_protocol::body::QueueData) -> i32,
) -> Vec<Queue> {
    let mut all = Vec::new();
    for data in route.queue_datas.iter().filter(|data| data.perm & perm != 0) {
        let Some(broker) = route.broker_datas.iter().find(|broker| broker.broker_name == data.broker_name) else {
            continue;
        };
        let Some(addr) = (if perm == 2 { broker.master() } else { broker.replica() }) else {
            continue;
        };
        for queue_id in 0..count(data).max(0) as u32 {
            all.push(Queue {
                topic: topic.to_owned(),
                broker_name: data.broker_name.to_string(),
                addr: addr.to_owned(),
                queue_id,
            });
        }
    }
    all
}
