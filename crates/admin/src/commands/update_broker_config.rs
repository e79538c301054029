//! `updateBrokerConfig`: changes one setting at run time. Java: `UpdateBrokerConfigSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::value;

pub const COMMAND: Command = Command {
    name: "updateBrokerConfig",
    description: "Update broker's config.",
    options: &[
        value("b", "brokerAddr", "update which broker"),
        value("c", "clusterName", "update which cluster"),
        value("a", "updateAllBroker", "update all brokers include slave"),
        value("k", "key", "config key").required(),
        value("v", "value", "config value").required(),
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: UpdateBrokerConfigSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (key, value) = (context.required("k"), context.required("v"));
    if key == "brokerPermission" && !matches!(value.parse(), Ok(0..8)) {
        return Err(Failure::Client { code: 16, text: format!("brokerPermission value: {value} is invalid.") });
    }
    let addrs = match (context.given.value("b").map(str::to_owned), context.given.value("c").map(str::to_owned)) {
        (Some(addr), _) => {
            context.admin.update_broker_config(&addr, &key, &value).await?;
            context.line(format!("update broker config success, {addr}"));
            return Ok(());
        }
        (None, Some(cluster)) if context.given.has("a") => context.replicas(&cluster).await?,
        (None, Some(cluster)) => context.masters(&cluster).await?,
        (None, None) => {
            context.usage();
            return Ok(());
        }
    };
    for addr in addrs {
        match context.admin.update_broker_config(&addr, &key, &value).await {
            Ok(()) => context.line(format!("update broker config success, {addr}")),
            Err(error) => eprintln!("{}", Failure::from(error)),
        }
    }
    Ok(())
}
