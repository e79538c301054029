//! `brokerStatus`: the whole runtime table of a broker. Java: `BrokerStatusSubCommand`.

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "Broker address").one_of(0);
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "which cluster").one_of(0);

pub const COMMAND: Command = Command {
    name: "brokerStatus",
    description: "Fetch broker runtime status data.",
    options: &[BROKER_ADDR, CLUSTER_NAME],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: BrokerStatusSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    if let Some(addr) = context.given.value(&BROKER_ADDR).map(str::to_owned) {
        for (key, value) in context.admin.runtime_info(&addr).await? {
            context.line(format!("{key:<32}: {value}"));
        }
        return Ok(());
    }
    let cluster = context.required(&CLUSTER_NAME);
    for addr in context.replicas(&cluster).await? {
        match context.admin.runtime_info(&addr).await {
            Ok(table) => {
                for (key, value) in table {
                    context.line(format!("{addr:<24} {key:<32}: {value}"));
                }
            }
            Err(error) => eprintln!("{}", Failure::from(error)),
        }
    }
    Ok(())
}
