//! `topicStatus`: min and max offset and last write time per queue. Java: `TopicStatusSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use crate::text::{cut, time_with_millis};
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const CLUSTER: OptionSpec = value("c", "cluster", "cluster name or lmq parent topic, lmq is used to find the route.");

pub const COMMAND: Command = Command {
    name: "topicStatus",
    description: "Examine topic Status info.",
    options: &[TOPIC, CLUSTER],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: TopicStatusSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let topic = context.required(&TOPIC);
    let mut queues = Vec::new();
    for broker in &context.admin.route(&topic).await?.broker_datas {
        if let Some(addr) = broker.replica() {
            queues.extend(context.admin.topic_stats(addr, &topic).await?.offset_table);
        }
    }
    if queues.is_empty() {
        return Err(Failure::Plain("Not found the topic stats info".to_owned()));
    }
    queues.sort_by(|a, b| a.0.cmp(&b.0));
    let line = |cells: [&str; 5]| {
        format!("{:<32}  {:<4}  {:<20}  {:<20}    {}", cells[0], cells[1], cells[2], cells[3], cells[4])
    };
    context.line(line(["#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"]));
    for (queue, offsets) in queues {
        let updated = if offsets.last_update_timestamp > 0 {
            time_with_millis(offsets.last_update_timestamp)
        } else {
            String::new()
        };
        context.line(line([
            cut(&queue.broker_name, 32),
            &queue.queue_id.to_string(),
            &offsets.min_offset.to_string(),
            &offsets.max_offset.to_string(),
            &updated,
        ]));
    }
    // Java never adds the brokers' rates up, so the line always says zero.
    context.text("\nTopic Put TPS: 0.0\n");
    Ok(())
}
