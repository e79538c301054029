//! Routes and topic lists. Java: `ClientRequestProcessor`, `DefaultRequestProcessor`.

use std::time::{Duration, Instant};

use ferromq_protocol::body::{RouteForm, TopicList, TopicRoute};
use ferromq_protocol::header::{DeleteTopicInNamesrvRequest, RegisterTopicRequest, TopicsByClusterRequest};
use ferromq_protocol::{Command, Reply, ResponseCode, json};
use ferromq_remoting::Outcome;
use parking_lot::Mutex;

use super::reply;
use crate::config::Config;
use crate::kv::{KvConfig, ORDER_TOPIC_CONFIG};
use crate::refusal::Refusal;
use crate::routes::{Queues, RouteLookup, Routes, Zone};

/// First release that is given strict JSON: 4.9.4. Java: `ClientRequestProcessor.getRouteInfoByTopic`.
const STRICT_JSON_VERSION: i32 = 401;

/// GET_ROUTEINFO_BY_TOPIC (105).
pub fn route(
    routes: &Mutex<Routes>,
    kv: &KvConfig,
    config: &Config,
    started: Instant,
    request: &Command,
) -> Result<Outcome, Refusal> {
    if config.need_wait_for_service && started.elapsed() < Duration::from_secs(config.wait_seconds_for_service) {
        return Err(Refusal::system_error("name server not ready"));
    }
    // The free fields are read one by one: a missing topic has an answer of its own, and most requests have only the one.
    let named = request.field("topic");
    let topic = named.as_deref().unwrap_or("null");
    let is_true = |name: &str| request.field(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let form = if request.version >= STRICT_JSON_VERSION || is_true("acceptStandardJsonOnly") {
        RouteForm::Strict
    } else {
        RouteForm::Legacy
    };
    let zone =
        if is_true("__ZONE_MODE") { request.field("__ZONE_NAME").filter(|zone| !zone.trim().is_empty()) } else { None };
    let order = if config.order_message_enable { kv.value(ORDER_TOPIC_CONFIG, topic) } else { None };
    let lookup = RouteLookup { topic, form, order: order.as_deref(), zone: zone.as_deref().map(Zone) };
    // Bound first, so that the lock is released before the answer is made.
    let encoded = routes.lock().route(lookup);
    match encoded {
        Some(route) => reply(Reply::ok().body(route)),
        None => Err(Refusal::new(
            ResponseCode::TOPIC_NOT_EXIST,
            format!(
                "No topic route info in name server for the topic: {topic}\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
            ),
        )),
    }
}

/// GET_BROKER_CLUSTER_INFO (106), with bare broker ids for every client, as Java.
pub fn cluster_info(routes: &Mutex<Routes>) -> Result<Outcome, Refusal> {
    let info = routes.lock().cluster_info();
    reply(Reply::ok().body(json::to_vec_bare_keys(&info)))
}

/// GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206).
pub fn all(routes: &Mutex<Routes>, config: &Config) -> Result<Outcome, Refusal> {
    enabled(config.enable_all_topic_list)?;
    list(routes.lock().topics())
}

/// GET_TOPICS_BY_CLUSTER (224).
pub fn of_cluster(routes: &Mutex<Routes>, config: &Config, request: &Command) -> Result<Outcome, Refusal> {
    enabled(config.enable_topic_list)?;
    let TopicsByClusterRequest { cluster } = request.header()?;
    list(routes.lock().topics_of_cluster(&cluster))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_NS (304).
pub fn system(routes: &Mutex<Routes>, config: &Config) -> Result<Outcome, Refusal> {
    enabled(config.enable_topic_list)?;
    let (topics, address) = routes.lock().system_topics();
    let topic_list = topics.into_iter().map(Into::into).collect();
    reply(Reply::ok().json_body(&TopicList { broker_addr: address, topic_list }))
}

/// GET_UNIT_TOPIC_LIST (311).
pub fn unit(routes: &Mutex<Routes>, config: &Config) -> Result<Outcome, Refusal> {
    enabled(config.enable_topic_list)?;
    list(routes.lock().unit_topics())
}

/// GET_HAS_UNIT_SUB_TOPIC_LIST (312).
pub fn with_unit_subscription(routes: &Mutex<Routes>, config: &Config) -> Result<Outcome, Refusal> {
    enabled(config.enable_topic_list)?;
    list(routes.lock().topics_with_unit_subscription())
}

/// GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST (313).
pub fn plain_with_unit_subscription(routes: &Mutex<Routes>, config: &Config) -> Result<Outcome, Refusal> {
    enabled(config.enable_topic_list)?;
    list(routes.lock().plain_topics_with_unit_subscription())
}

/// DELETE_TOPIC_IN_NAMESRV (216).
pub fn delete(routes: &Mutex<Routes>, request: &Command) -> Result<Outcome, Refusal> {
    let delete: DeleteTopicInNamesrvRequest = request.header()?;
    let cluster = delete.cluster_name.as_deref().filter(|cluster| !cluster.trim().is_empty());
    routes.lock().delete_topic(&delete.topic, cluster);
    reply(Reply::ok())
}

/// REGISTER_TOPIC_IN_NAMESRV (217).
pub fn register(routes: &Mutex<Routes>, request: &Command) -> Result<Outcome, Refusal> {
    let RegisterTopicRequest { topic } = request.header()?;
    if !request.body.is_empty() {
        let route: TopicRoute =
            json::from_slice(&request.body).map_err(|error| Refusal::system_error(error.to_string()))?;
        let queues = route.queue_datas.into_iter().map(|data| {
            let queues = Queues {
                read: data.read_queue_nums,
                write: data.write_queue_nums,
                perm: data.perm,
                sys_flag: data.topic_sys_flag,
            };
            (data.broker_name, queues)
        });
        routes.lock().register_topic(&topic, queues);
    }
    reply(Reply::ok())
}

fn list(topics: Vec<String>) -> Result<Outcome, Refusal> {
    let topic_list = topics.into_iter().map(Into::into).collect();
    reply(Reply::ok().json_body(&TopicList { broker_addr: None, topic_list }))
}

fn enabled(switch: bool) -> Result<(), Refusal> {
    if switch { Ok(()) } else { Err(Refusal::system_error("disable")) }
}
