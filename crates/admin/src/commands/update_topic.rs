//! `updateTopic`: creates or overwrites a topic. Java: `UpdateTopicSubCommand`.

use std::collections::BTreeMap;

use ferromq_client::AdminError;
use ferromq_protocol::ResponseCode;
use ferromq_protocol::body::{ClusterInfo, Table, TopicConfig};

use super::{Command, Context, broker_names};
use crate::failure::{Failure, number};
use crate::text::{java_map, permission};
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "create topic to which broker").one_of(0);
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "create topic to which cluster").one_of(0);
const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const READ_QUEUE_NUMS: OptionSpec = value("r", "readQueueNums", "set read queue nums");
const WRITE_QUEUE_NUMS: OptionSpec = value("w", "writeQueueNums", "set write queue nums");
const ATTRIBUTES: OptionSpec = value("a", "attributes", "attribute(+a=b,+c=d,-e)");
const PERM: OptionSpec = value("p", "perm", "set topic's permission(2|4|6), intro[2:W 4:R; 6:RW]");
const ORDER: OptionSpec = value("o", "order", "set topic's order(true|false)");
const UNIT: OptionSpec = value("u", "unit", "is unit topic (true|false)");
const HAS_UNIT_SUB: OptionSpec = value("s", "hasUnitSub", "has unit sub (true|false)");

pub const COMMAND: Command = Command {
    name: "updateTopic",
    description: "Update or create topic.",
    options: &[
        BROKER_ADDR,
        CLUSTER_NAME,
        TOPIC,
        READ_QUEUE_NUMS,
        WRITE_QUEUE_NUMS,
        ATTRIBUTES,
        PERM,
        ORDER,
        UNIT,
        HAS_UNIT_SUB,
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: UpdateTopicSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";

async fn run(context: &mut Context) -> Result<(), Failure> {
    let topic = config_from(context)?;
    if let Some(addr) = context.given.value(&BROKER_ADDR).map(str::to_owned) {
        context.admin.create_topic(&addr, &topic).await?;
        if topic.order {
            let order = order_of_broker(context, &addr, &topic).await?;
            context.line(format!("set broker orderConf. isOrder=true, orderConf=[{order}]"));
        }
        context.line(format!("create topic to {addr} success."));
    } else {
        let cluster = context.required(&CLUSTER_NAME);
        for addr in context.masters(&cluster).await? {
            context.admin.create_topic(&addr, &topic).await?;
            context.line(format!("create topic to {addr} success."));
        }
        if topic.order {
            let names = broker_names(&context.admin.cluster_info().await?, &cluster).unwrap_or_default();
            let order =
                names.iter().map(|name| format!("{name}:{}", topic.write_queue_nums)).collect::<Vec<_>>().join(";");
            context.admin.kv_put(ORDER_NAMESPACE, &topic.topic_name, &order).await?;
            context.line(format!("set cluster orderConf. isOrder=true, orderConf=[{order}]"));
        }
    }
    context.line(describe(&topic));
    Ok(())
}

fn config_from(context: &Context) -> Result<TopicConfig, Failure> {
    let given = &context.given;
    let mut topic = TopicConfig {
        topic_name: context.required(&TOPIC).into(),
        read_queue_nums: 8,
        write_queue_nums: 8,
        perm: 6,
        ..TopicConfig::default()
    };
    if let Some(text) = given.value(&ATTRIBUTES) {
        topic.attributes = attributes(text)?;
    }
    if let Some(text) = given.value(&READ_QUEUE_NUMS) {
        topic.read_queue_nums = number(text)?;
    }
    if let Some(text) = given.value(&WRITE_QUEUE_NUMS) {
        topic.write_queue_nums = number(text)?;
    }
    if let Some(text) = given.value(&PERM) {
        topic.perm = number(text)?;
    }
    if !(0..8).contains(&topic.perm) {
        return Err(Failure::Client { code: 16, text: format!("topicPermission value: {} is invalid.", topic.perm) });
    }
    topic.order = given.flag(&ORDER, false);
    topic.topic_sys_flag = i32::from(given.flag(&UNIT, false)) | i32::from(given.flag(&HAS_UNIT_SUB, false)) << 1;
    Ok(topic)
}

/// `+a=b,-c` as a map whose keys keep their sign. Java: `AttributeParser.parseToMap`.
pub fn attributes(text: &str) -> Result<Table<String, String>, Failure> {
    let mut parsed = Table::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) if key.starts_with('+') => (key, value),
            Some((key, _)) => {
                return Err(Failure::Runtime(format!("add/alter attribute format is wrong: {key}")));
            }
            None if item.starts_with('-') => (item, ""),
            None => {
                return Err(Failure::Runtime(format!("delete attribute format is wrong: {item}")));
            }
        };
        if parsed.insert(key.trim().to_owned(), value.trim().to_owned()).is_some() {
            return Err(Failure::Runtime(format!("key duplication: {}", key.trim())));
        }
    }
    Ok(parsed)
}

/// Adds one broker's queues to the topic's order entry and returns that entry.
async fn order_of_broker(context: &Context, addr: &str, topic: &TopicConfig) -> Result<String, Failure> {
    let info: ClusterInfo = context.admin.cluster_info().await?;
    let name = info
        .broker_addr_table
        .iter()
        .find(|(_, broker)| broker.broker_addrs.values().any(|known| known == addr))
        .map(|(name, _)| name.to_string())
        .unwrap_or_default();
    let own = format!("{name}:{}", topic.write_queue_nums);
    let old = match context.admin.kv_get(ORDER_NAMESPACE, &topic.topic_name).await {
        Ok(old) => old,
        Err(error @ AdminError::Refused { code: ResponseCode::QUERY_NOT_FOUND, .. }) => {
            // Java prints the failed look-up and goes on.
            eprintln!("{}", Failure::from(error));
            String::new()
        }
        Err(error) => return Err(error.into()),
    };
    let mut entries: BTreeMap<&str, &str> = old
        .split(';')
        .filter(|entry| !entry.is_empty())
        .filter_map(|entry| Some((entry.split(':').next()?, entry)))
        .collect();
    entries.insert(&name, &own);
    let all = entries.into_values().collect::<Vec<_>>().join(";");
    context.admin.kv_put(ORDER_NAMESPACE, &topic.topic_name, &all).await?;
    Ok(own)
}

/// Java: `TopicConfig.toString`.
fn describe(topic: &TopicConfig) -> String {
    let attributes: Vec<(&str, &str)> =
        topic.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType=SINGLE_TAG, topicSysFlag={}, order={}, attributes={}]",
        topic.topic_name,
        topic.read_queue_nums,
        topic.write_queue_nums,
        permission(topic.perm),
        topic.topic_sys_flag,
        topic.order,
        java_map(&attributes, 16)
    )
}

#[cfg(test)]
mod tests {
    use super::attributes;

    #[test]
    fn attributes_keep_their_sign() {
        let parsed = attributes("+message.type=FIFO,-cleanup.policy").unwrap();
        assert_eq!(
            parsed.into_iter().collect::<Vec<_>>(),
            [("+message.type".into(), "FIFO".into()), ("-cleanup.policy".into(), String::new())]
        );
        for (text, message) in [
            ("message.type=FIFO", "add/alter attribute format is wrong: message.type"),
            ("x", "delete attribute format is wrong: x"),
            ("-a,-a", "key duplication: -a"),
        ] {
            assert!(attributes(text).unwrap_err().to_string().ends_with(message));
        }
    }
}
