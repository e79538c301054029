//! `deleteTopic`: removes a topic from a cluster's masters and from the nameservers. Java: `DeleteTopicSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::value;

pub const COMMAND: Command = Command {
    name: "deleteTopic",
    description: "Delete topic from broker and NameServer.",
    options: &[
        value("t", "topic", "topic name").required(),
        value("c", "clusterName", "delete topic from which cluster").required(),
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: DeleteTopicSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (topic, cluster) = (context.required("t"), context.required("c"));
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
