//! `queryMsgByOffset`: one message by its place in a queue. Java: `QueryMsgByOffsetSubCommand`.

use ferromq_client::PullResult;

use super::{Command, Context, message_block};
use crate::failure::{Failure, number};
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const BROKER_NAME: OptionSpec = value("b", "brokerName", "Broker Name").required();
const QUEUE_ID: OptionSpec = value("i", "queueId", "Queue Id").required();
const OFFSET: OptionSpec = value("o", "offset", "Queue Offset").required();
const BODY_FORMAT: OptionSpec = value("f", "bodyFormat", "print message body by the specified format");

pub const COMMAND: Command = Command {
    name: "queryMsgByOffset",
    description: "Query Message by offset.",
    options: &[TOPIC, BROKER_NAME, QUEUE_ID, OFFSET, BODY_FORMAT],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: QueryMsgByOffsetSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (topic, broker) = (context.required(&TOPIC), context.required(&BROKER_NAME));
    let queue_id: u32 = number(&context.required(&QUEUE_ID))?;
    let offset: u64 = number(&context.required(&OFFSET))?;
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
    let PullResult { messages, .. } =
        context.admin.pull(&addr, super::consume_message::TOOLS_GROUP, &topic, queue_id, offset, 1).await?;
    if let Some(message) = messages.first() {
        let format = context.given.value(&BODY_FORMAT).map(str::to_owned);
        message_block::print(context, message, message_block::Style { body_format: format.as_deref() }).await?;
    }
    Ok(())
}
