//! `getBrokerConfig`: the effective configuration of brokers. Java: `GetBrokerConfigCommand`.

use super::{Command, Context, broker_names};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "get which broker");
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "get which cluster");

pub const COMMAND: Command = Command {
    name: "getBrokerConfig",
    description: "Get broker config by cluster or special broker.",
    options: &[BROKER_ADDR, CLUSTER_NAME],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: GetBrokerConfigCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    if let Some(addr) = context.given.value(&BROKER_ADDR).map(str::to_owned) {
        return print(context, &addr, &format!("============{addr}============")).await;
    }
    let Some(cluster) = context.given.value(&CLUSTER_NAME).map(str::to_owned) else {
        return Ok(());
    };
    let info = context.admin.cluster_info().await?;
    for name in broker_names(&info, &cluster).unwrap_or_default() {
        let Some(broker) = info.broker_addr_table.get(name.as_str()) else {
            continue;
        };
        let master = broker.broker_addrs.get(&0).map_or("NO_MASTER", String::as_str);
        if let Some(addr) = broker.broker_addrs.get(&0) {
            print(context, addr, &format!("============Master: {addr}============")).await?;
        }
        for (_, slave) in broker.broker_addrs.iter().filter(|(id, _)| **id != 0) {
            print(context, slave, &format!("============My Master: {master}=====Slave: {slave}============")).await?;
        }
    }
    Ok(())
}

async fn print(context: &mut Context, addr: &str, title: &str) -> Result<(), Failure> {
    context.line(title);
    let text = context.admin.broker_config(addr).await?;
    if text.is_empty() {
        context.line(format!("Broker[{addr}] has no config property!"));
        return Ok(());
    }
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        context.line(format!("{key:<50}=  {value}"));
    }
    context.line("");
    Ok(())
}
