//! `topicList`: all topic names known to the nameserver. Java: `TopicListSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use crate::text::cut;
use ferromq_config::command_line::{OptionSpec, switch};

const CLUSTER_MODEL: OptionSpec = switch("c", "clusterModel", "clusterModel");

pub const COMMAND: Command = Command {
    name: "topicList",
    description: "Fetch all topic list from name server.",
    options: &[CLUSTER_MODEL],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: TopicListSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    if !context.given.has(&CLUSTER_MODEL) {
        for topic in context.admin.topics().await? {
            context.line(topic);
        }
        return Ok(());
    }
    let info = context.admin.cluster_info().await?;
    context.line(format!("{:<20}  {:<48}  {:<48}", "#Cluster Name", "#Topic", "#Consumer Group"));
    for topic in context.admin.topics().await? {
        if topic.starts_with("%RETRY%") || topic.starts_with("%DLQ%") {
            continue;
        }
        // A topic whose lookup fails still has its row, with empty cells.
        let route = context.admin.route(&topic).await.ok();
        let cluster = route
            .as_ref()
            .and_then(|route| route.broker_datas.first())
            .and_then(|first| info.cluster_addr_table.iter().find(|(_, brokers)| brokers.contains(&first.broker_name)))
            .map(|(cluster, _)| cluster.to_string())
            .unwrap_or_default();
        let mut groups = Vec::new();
        for addr in route.iter().flat_map(|route| &route.broker_datas).filter_map(|broker| broker.replica()) {
            groups.extend(context.admin.groups_of_topic(addr, &topic).await.unwrap_or_default());
        }
        groups.sort();
        groups.dedup();
        if groups.is_empty() {
            groups.push(String::new());
        }
        for group in groups {
            context.line(format!("{:<20}  {:<64}  {:<64}", cut(&cluster, 20), cut(&topic, 64), cut(&group, 64)));
        }
    }
    Ok(())
}
