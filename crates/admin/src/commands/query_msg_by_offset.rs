//! `queryMsgByOffset`: one message by its place in a queue. Java: `QueryMsgByOffsetSubCommand`.

use ferromq_client::Pulled;

use super::{Command, Context, message_block};
use crate::failure::{Failure, number};
use ferromq_config::command_line::value;

pub const COMMAND: Command = Command {
    name: "queryMsgByOffset",
    description: "Query Message by offset.",
    options: &[
        value("t", "topic", "topic name").required(),
        value("b", "brokerName", "Broker Name").required(),
        value("i", "queueId", "Queue Id").required(),
        value("o", "offset", "Queue Offset").required(),
        value("f", "bodyFormat", "print message body by the specified format"),
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: QueryMsgByOffsetSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (topic, broker) = (context.required("t"), context.required("b"));
    let queue_id: u32 = number(&context.required("i"))?;
    let offset: u64 = number(&context.required("o"))?;
    let route = context.admin.route(&topic).await?;
    let Some(addr) = route
        .broker_datas
        .iter()
        .find(|data| data.broker_name == *broker)
        .and_then(|data| data.replica())
        .map(str::to_owned)
    else {
        return Err(Failure::Plain(format!("The broker[{broker}] not exist")));
    };
    let Pulled { messages, .. } =
        context.admin.pull(&addr, super::consume_message::TOOLS_GROUP, &topic, queue_id, offset, 1).await?;
    if let Some(message) = messages.first() {
        let format = context.given.value("f").map(str::to_owned);
        message_block::print(context, message, message_block::Style { body_format: format.as_deref() }).await?;
    }
    Ok(())
}
