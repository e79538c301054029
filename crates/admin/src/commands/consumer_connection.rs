//! `consumerConnection`: connected clients and subscriptions of a group. Java: `ConsumerConnectionSubCommand`.

use ferromq_protocol::version_name;

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const CONSUMER_GROUP: OptionSpec = value("g", "consumerGroup", "consumer group name").required();
const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "broker address");

pub const COMMAND: Command = Command {
    name: "consumerConnection",
    description: "Query consumer's socket connection, client version and subscription.",
    options: &[CONSUMER_GROUP, BROKER_ADDR],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: ConsumerConnectionSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let group = context.required(&CONSUMER_GROUP);
    let connection = match context.given.value(&BROKER_ADDR) {
        Some(addr) => context.admin.consumer_connection_at(addr, &group).await?,
        None => context.admin.consumer_connection(&group).await?,
    };
    context.line(format!("{:<36} {:<22} {:<10} {}", "#ClientId", "#ClientAddr", "#Language", "#Version"));
    for client in &connection.connection_set {
        context.line(format!(
            "{:<36} {:<22} {:<10} {}",
            client.client_id,
            client.client_addr,
            client.language,
            version_name(client.version)
        ));
    }
    context.text("\nBelow is subscription:\n");
    context.line(format!("{:<20} {}", "#Topic", "#SubExpression"));
    for (topic, subscription) in &connection.subscription_table {
        context.line(format!("{topic:<20} {}", subscription.sub_string));
    }
    let shown = |name: Option<&'static str>| name.unwrap_or("null");
    context.text(format!(
        "\nConsumeType: {}\nMessageModel: {}\nConsumeFromWhere: {}\n",
        shown(connection.consume_type.map(|kind| kind.java_name())),
        shown(connection.message_model.map(|model| model.java_name())),
        shown(connection.consume_from_where.map(|from| from.java_name()))
    ));
    Ok(())
}
