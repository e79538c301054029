//! `cleanExpiredCQ`, `deleteExpiredCommitLog`, `cleanUnusedTopic`: have brokers remove what is old or unknown. Java:
//! `CleanExpiredCQSubCommand`, `DeleteExpiredCommitLogSubCommand`, `CleanUnusedTopicCommand`, which differ in the request alone.

use ferromq_client::{Admin, AdminError};

use super::{Command, Context, replicas_of};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "Broker address");
const CLUSTER: OptionSpec = value("c", "cluster", "clustername");
const CLUSTER_SPACED: OptionSpec = value("c", "cluster", "cluster name");
/// This command says less of it than all others.
const NAMESRV_ADDR_BRIEF: OptionSpec = value("n", "namesrvAddr", "Name server address");

pub const CLEAN_EXPIRED_CQ: Command = Command {
    name: "cleanExpiredCQ",
    description: "Clean expired ConsumeQueue on broker.",
    options: &[BROKER_ADDR, CLUSTER],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: CleanExpiredCQSubCommand command failed"),
    run: |context| Box::pin(run(context, Cleaning::ExpiredQueues)),
};

pub const DELETE_EXPIRED_COMMIT_LOG: Command = Command {
    name: "deleteExpiredCommitLog",
    description: "Delete expired CommitLog files.",
    options: &[NAMESRV_ADDR_BRIEF, BROKER_ADDR, CLUSTER],
    failure: Some(
        "org.apache.rocketmq.tools.command.SubCommandException: DeleteExpiredCommitLogSubCommand command execute failed.",
    ),
    run: |context| Box::pin(run(context, Cleaning::ExpiredLog)),
};

pub const CLEAN_UNUSED_TOPIC: Command = Command {
    name: "cleanUnusedTopic",
    description: "Clean unused topic on broker.",
    options: &[BROKER_ADDR, CLUSTER_SPACED],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: CleanUnusedTopicCommand command failed"),
    run: |context| Box::pin(run(context, Cleaning::UnusedTopics)),
};

#[derive(Clone, Copy)]
enum Cleaning {
    ExpiredQueues,
    ExpiredLog,
    UnusedTopics,
}

impl Cleaning {
    async fn at(self, admin: &Admin, addr: &str) -> Result<(), AdminError> {
        match self {
            Cleaning::ExpiredQueues => admin.clean_expired_queues(addr).await,
            Cleaning::ExpiredLog => admin.delete_expired_log(addr).await,
            Cleaning::UnusedTopics => admin.clean_unused_topics(addr).await,
        }
    }
}

async fn run(context: &mut Context, cleaning: Cleaning) -> Result<(), Failure> {
    let addrs = match context.given.value(&BROKER_ADDR) {
        Some(addr) => vec![addr.to_owned()],
        None => {
            let info = context.admin.cluster_info().await?;
            match context.given.value(&CLUSTER).filter(|cluster| !cluster.is_empty()) {
                Some(cluster) => replicas_of(&info, cluster).unwrap_or_default(),
                None => info.cluster_addr_table.keys().filter_map(|name| replicas_of(&info, name)).flatten().collect(),
            }
        }
    };
    for addr in &addrs {
        cleaning.at(&context.admin, addr).await?;
    }
    // Without a line end; Java says `false` when there was nobody to ask.
    context.text(if addrs.is_empty() { "false" } else { "success" });
    Ok(())
}
