//! `queryMsgById`: shows messages by offset id or unique key. Java: `QueryMsgByIdSubCommand`.

use super::{Command, Context, message_block};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const MSG_ID: OptionSpec = value("i", "msgId", "Message Id").required();
const CONSUMER_GROUP: OptionSpec = value("g", "consumerGroup", "consumer group name");
const CLIENT_ID: OptionSpec = value("d", "clientId", "The consumer's client id");
const SEND_MESSAGE: OptionSpec = value("s", "sendMessage", "resend message");
const UNIT_NAME: OptionSpec = value("u", "unitName", "unit name");
const BODY_FORMAT: OptionSpec = value("f", "bodyFormat", "print message body by the specified format");
const CLUSTER: OptionSpec = value("c", "cluster", "Cluster name or lmq parent topic, lmq is used to find the route.");

pub const COMMAND: Command = Command {
    name: "queryMsgById",
    description: "Query Message by Id.",
    options: &[TOPIC, MSG_ID, CONSUMER_GROUP, CLIENT_ID, SEND_MESSAGE, UNIT_NAME, BODY_FORMAT, CLUSTER],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: QueryMsgByIdSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let topic = context.required(&TOPIC);
    if context.given.flag(&SEND_MESSAGE, false) || (context.given.has(&CONSUMER_GROUP) && context.given.has(&CLIENT_ID))
    {
        return Err(Failure::Runtime(
            "resending and pushing a message (-s, -g with -d) are not supported yet; leave these options out to see it"
                .to_owned(),
        ));
    }
    for id in context.required(&MSG_ID).split(',').map(str::trim).filter(|id| !id.is_empty()) {
        let Some(message) = context.admin.message_by_id(&topic, id).await? else {
            return Err(Failure::Client {
                code: 208,
                text: "query message by key finished, but no message.".to_owned(),
            });
        };
        let format = context.given.value(&BODY_FORMAT).map(str::to_owned);
        message_block::print(context, &message, message_block::Style { body_format: format.as_deref() }).await?;
    }
    Ok(())
}
