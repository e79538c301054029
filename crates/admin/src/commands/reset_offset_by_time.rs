//! `resetOffsetByTime`: moves a group to a point in time. Java: `ResetOffsetByTimeCommand`.

use ferromq_client::{Queue, ResetOffset};

use super::{Command, Context};
use crate::failure::{Failure, number};
use crate::text::{cut, parse_time};
use ferromq_config::command_line::{OptionSpec, value};

const GROUP: OptionSpec = value("g", "group", "set the consumer group").required();
const TOPIC: OptionSpec = value("t", "topic", "set the topic").required();
const TIMESTAMP: OptionSpec =
    value("s", "timestamp", "set the timestamp[now|currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]").required();
const FORCE: OptionSpec = value("f", "force", "set the force rollback by timestamp switch[true|false]. Deprecated.");
const CLUSTER: OptionSpec = value("c", "cluster", "Cluster name or lmq parent topic, lmq is used to find the route.");
const BROKER: OptionSpec = value("b", "broker", "broker addr");
const QUEUE: OptionSpec = value("q", "queue", "queue id");
const OFFSET: OptionSpec = value("o", "offset", "Expect queue offset, not support old version broker");

pub const COMMAND: Command = Command {
    name: "resetOffsetByTime",
    description: "Reset consumer offset by timestamp(without client restart).",
    options: &[GROUP, TOPIC, TIMESTAMP, FORCE, CLUSTER, BROKER, QUEUE, OFFSET],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: ResetOffsetByTimeCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (group, topic, time_text) = (context.required(&GROUP), context.required(&TOPIC), context.required(&TIMESTAMP));
    let timestamp = match time_text.as_str() {
        "now" => jiff::Timestamp::now().as_millisecond(),
        text => parse_time(text).ok_or_else(|| {
            Failure::Runtime(format!("the time {text} is neither now, nor milliseconds, nor yyyy-MM-dd#HH:mm:ss:SSS"))
        })?,
    };
    let force = context.given.flag(&FORCE, true);
    if let (Some(broker), Some(queue_id)) =
        (context.given.value(&BROKER).map(str::to_owned), context.given.value(&QUEUE).map(str::to_owned))
    {
        return one_queue(context, &group, &topic, &broker, number(&queue_id)?, (&time_text, timestamp)).await;
    }
    let mut rows = Vec::new();
    for broker in &context.admin.route(&topic).await?.broker_datas {
        if let Some(addr) = broker.replica() {
            let reset = ResetOffset { group: &group, topic: &topic, timestamp, force, queue_id: None, offset: None };
            for (queue, offset) in context.admin.reset_offset(addr, &reset).await? {
                rows.push((queue, offset));
            }
        }
    }
    context.line(format!(
        "start reset consumer offset by specified, group[{group}], topic[{topic}], force[{force}], timestamp(string)[{time_text}], timestamp(long)[{timestamp}]"
    ));
    context.line(format!("{:<40}  {:<40}  {:<40}", "#brokerName", "#queueId", "#offset"));
    rows.sort();
    for (queue, offset) in rows {
        context.line(format!(
            "{:<40}  {:<40}  {:<40}",
            cut(&queue.broker_name, 32),
            queue.queue_id.to_string(),
            offset.to_string()
        ));
    }
    Ok(())
}

async fn one_queue(
    context: &mut Context,
    group: &str,
    topic: &str,
    addr: &str,
    queue_id: u32,
    time: (&str, i64),
) -> Result<(), Failure> {
    context.line(format!(
        "start reset consumer offset by specified, group[{group}], topic[{topic}], queueId[{queue_id}], broker[{addr}], timestamp(string)[{}], timestamp(long)[{}]",
        time.0, time.1
    ));
    let queue = Queue { topic: topic.to_owned(), broker_name: String::new(), addr: addr.to_owned(), queue_id };
    let offset = match context.given.value(&OFFSET) {
        Some(text) => number(text)?,
        None => context.admin.offset_by_time(&queue, time.1).await?,
    };
    if offset > 0 {
        context.admin.update_consumer_offset(addr, group, topic, queue_id, offset).await?;
        let reset = ResetOffset {
            group,
            topic,
            timestamp: time.1,
            force: true,
            queue_id: Some(queue_id),
            offset: Some(offset),
        };
        context.admin.reset_offset(addr, &reset).await?;
        context.line(format!("reset consumer offset to {offset}"));
    }
    Ok(())
}
