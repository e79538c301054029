//! `queryMsgByKey`: ids of messages with a business key. Java: `QueryMsgByKeySubCommand`.

use super::{Command, Context};
use crate::failure::{Failure, number};
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "Topic name").required();
const MSG_KEY: OptionSpec = value("k", "msgKey", "Message Key").required();
const BEGIN_TIMESTAMP: OptionSpec = value("b", "beginTimestamp", "Begin timestamp(ms). default:0, eg:1676730526212");
const END_TIMESTAMP: OptionSpec =
    value("e", "endTimestamp", "End timestamp(ms). default:Long.MAX_VALUE, eg:1676730526212");
const MAX_NUM: OptionSpec = value("m", "maxNum", "The maximum number of messages returned by the query, default:64");
const CLUSTER: OptionSpec = value("c", "cluster", "Cluster name or lmq parent topic, lmq is used to find the route.");

pub const COMMAND: Command = Command {
    name: "queryMsgByKey",
    description: "Query Message by Key.",
    options: &[TOPIC, MSG_KEY, BEGIN_TIMESTAMP, END_TIMESTAMP, MAX_NUM, CLUSTER],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: QueryMsgByKeySubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let (topic, key) = (context.required(&TOPIC), context.required(&MSG_KEY));
    let given = &context.given;
    let begin = given.value(&BEGIN_TIMESTAMP).map_or(Ok(0), number)?;
    let end = given.value(&END_TIMESTAMP).map_or(Ok(i64::MAX), number)?;
    let count_max = given.value(&MAX_NUM).map_or(Ok(64), number)?;
    let messages = match context.admin.messages_by_key(&topic, &key, count_max, begin, end).await {
        Err(ferromq_client::AdminError::Refused { code: ferromq_protocol::ResponseCode::TOPIC_NOT_EXIST, .. }) => {
            return Err(Failure::Client { code: 17, text: format!("The topic[{topic}] not matched route info") });
        }
        other => other?,
    };
    if messages.is_empty() {
        return Err(Failure::Client { code: 208, text: "query message by key finished, but no message.".to_owned() });
    }
    context.line(format!("{:<50} {:>4} {:>40}", "#Message ID", "#QID", "#Offset"));
    for message in messages {
        context.line(format!(
            "{:<50} {:>4} {:>40}",
            message.message_id(),
            message.queue_id().to_string(),
            message.queue_offset().to_string()
        ));
    }
    Ok(())
}
