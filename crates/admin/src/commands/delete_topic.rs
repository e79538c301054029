//! `deleteTopic`: removes a topic from a cluster's masters and from the nameservers. Java: `DeleteTopicSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "delete topic from which cluster").required();

pub const COMMAND: Command = Command {
    name: "deleteTopic",
    description: "Delete topic from broker and NameServer.",
    options: &[TOPIC, CLUSTER_NAME],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: DeleteTopicSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (topic, cluster) = (context.required(&TOPIC), context.required(&CLUSTER_NAME));
    for addr in context.masters(&cluster).await? {
        context.admin.delete_topic(&addr, &topic).await?;
    }
    context.line(format!("delete topic [{topic}] from cluster [{cluster}] success."));
    for nameserver in context.admin.nameservers().to_vec() {
        context.admin.delete_topic_in_nameserver(&nameserver, &topic, &cluster).await?;
    }
    context.line(format!("delete topic [{topic}] from NameServer success."));
    Ok(())
}
