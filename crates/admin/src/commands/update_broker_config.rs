//! `updateBrokerConfig`: changes one setting at run time. Java: `UpdateBrokerConfigSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "update which broker");
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "update which cluster");
const UPDATE_ALL_BROKER: OptionSpec = value("a", "updateAllBroker", "update all brokers include slave");
const KEY: OptionSpec = value("k", "key", "config key").required();
const VALUE: OptionSpec = value("v", "value", "config value").required();

pub const COMMAND: Command = Command {
    name: "updateBrokerConfig",
    description: "Update broker's config.",
    options: &[BROKER_ADDR, CLUSTER_NAME, UPDATE_ALL_BROKER, KEY, VALUE],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: UpdateBrokerConfigSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (key, value) = (context.required(&KEY), context.required(&VALUE));
    if key == "brokerPermission" && !matches!(value.parse(), Ok(0..8)) {
        return Err(Failure::Client { code: 16, text: format!("brokerPermission value: {value} is invalid.") });
    }
    let addrs = match (
        context.given.value(&BROKER_ADDR).map(str::to_owned),
        context.given.value(&CLUSTER_NAME).map(str::to_owned),
    ) {
        (Some(addr), _) => {
            context.admin.update_broker_config(&addr, &key, &value).await?;
            context.line(format!("update broker config success, {addr}"));
            return Ok(());
        }
        (None, Some(cluster)) if context.given.has(&UPDATE_ALL_BROKER) => context.replicas(&cluster).await?,
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
