//! `sendMessage`: sends one message. Java: `SendMessageCommand`.

use ferromq_client::{OutgoingMessage, Producer};

use super::{Command, Context};
use crate::failure::{Failure, number};
use ferromq_config::command_line::{OptionSpec, value};

const TOPIC: OptionSpec = value("t", "topic", "Topic name").required();
const BODY: OptionSpec = value("p", "body", "UTF-8 string format of the message body").required();
const KEY: OptionSpec = value("k", "key", "Message keys");
const TAGS: OptionSpec = value("c", "tags", "Message tags");
const BROKER: OptionSpec = value("b", "broker", "Send message to target broker");
const QID: OptionSpec = value("i", "qid", "Send message to target queue");
const MSG_TRACE_ENABLE: OptionSpec = value("m", "msgTraceEnable", "Message Trace Enable, Default: false");

pub const COMMAND: Command = Command {
    name: "sendMessage",
    description: "Send a message.",
    options: &[TOPIC, BODY, KEY, TAGS, BROKER, QID, MSG_TRACE_ENABLE],
    failure: Some("java.lang.RuntimeException: SendMessageCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let given = &context.given;
    let queue = match (given.value(&BROKER), given.value(&QID)) {
        (Some(broker), Some(id)) => Some((broker.to_owned(), number(id)?)),
        (None, Some(_)) => {
            context.text("Broker name must be set if the queue is chosen!");
            return Ok(());
        }
        (_, None) => None,
    };
    if given.flag(&MSG_TRACE_ENABLE, false) {
        return Err(Failure::Runtime("writing message traces (-m true) is not supported yet".to_owned()));
    }
    let (topic, body) = (context.required(&TOPIC), context.required(&BODY));
    let message =
        OutgoingMessage { topic: &topic, body: body.as_bytes(), keys: given.value(&KEY), tags: given.value(&TAGS) };
    let sent = Producer::new(&context.admin, "PID_SMSC").send(&message, queue).await?;
    let line = |cells: [&str; 4]| format!("{:<32}  {:<4}  {:<20}    {}", cells[0], cells[1], cells[2], cells[3]);
    context.line(line(["#Broker Name", "#QID", "#Send Result", "#MsgId"]));
    context.line(line([&sent.broker_name, &sent.queue_id.to_string(), sent.status, &sent.message_id]));
    Ok(())
}
