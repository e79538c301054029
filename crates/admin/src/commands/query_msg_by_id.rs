//! `queryMsgById`: shows messages by offset id or unique key. Java: `QueryMsgByIdSubCommand`.

use super::{Command, Context, message_block};
use crate::failure::Failure;
use ferromq_config::command_line::value;

pub const COMMAND: Command = Command {
    name: "queryMsgById",
    description: "Query Message by Id.",
    options: &[
        value("t", "topic", "topic name").required(),
        value("i", "msgId", "Message Id").required(),
        value("g", "consumerGroup", "consumer group name"),
        value("d", "clientId", "The consumer's client id"),
        value("s", "sendMessage", "resend message"),
        value("u", "unitName", "unit name"),
        value("f", "bodyFormat", "print message body by the specified format"),
        value("c", "cluster", "Cluster name or lmq parent topic, lmq is used to find the route."),
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: QueryMsgByIdSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let topic = context.required("t");
    if context.given.flag("s", false) || (context.given.has("g") && context.given.has("d")) {
        return Err(Failure::Runtime(
            "resending and pushing a message (-s, -g with -d) are not supported yet; leave these options out to see it"
                .to_owned(),
        ));
    }
    for id in context.required("i").split(',').map(str::trim).filter(|id| !id.is_empty()) {
        let Some(message) = context.admin.message_by_id(&topic, id).await? else {
            return Err(Failure::Client {
                code: 208,
                text: "query message by key finished, but no message.".to_owned(),
            });
        };
        let format = context.given.value("f").map(str::to_owned);
        message_block::print(context, &message, message_block::Style { body_format: format.as_deref() }).await?;
    }
    Ok(())
}
