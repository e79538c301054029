//! `consumeMessage`: reads messages without committing. Java: `ConsumeMessageCommand`.

use ferromq_client::{FoundMessage, PullStatus, Queue};

use super::{Command, Context};
use crate::failure::{Failure, number};
use crate::text::{java_bytes, java_map, parse_time};
use ferromq_config::command_line::{OptionSpec, value};

/// The group that the tool reads with; it needs no subscription.
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

const TOPIC: OptionSpec = value("t", "topic", "Topic name").required();
const BROKER_NAME: OptionSpec = value("b", "brokerName", "Broker name");
const QUEUE_ID: OptionSpec = value("i", "queueId", "Queue Id");
const OFFSET: OptionSpec = value("o", "offset", "Queue offset");
const CONSUMER_GROUP: OptionSpec = value("g", "consumerGroup", "Consumer group name");
const BEGIN_TIMESTAMP: OptionSpec =
    value("s", "beginTimestamp ", "Begin timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]");
const END_TIMESTAMP: OptionSpec =
    value("e", "endTimestamp ", "End timestamp[currentTimeMillis|yyyy-MM-dd#HH:mm:ss:SSS]");
const MESSAGE_NUMBER: OptionSpec = value("c", "MessageNumber", "Number of message to be consumed");

pub const COMMAND: Command = Command {
    name: "consumeMessage",
    description: "Consume message.",
    options: &[TOPIC, BROKER_NAME, QUEUE_ID, OFFSET, CONSUMER_GROUP, BEGIN_TIMESTAMP, END_TIMESTAMP, MESSAGE_NUMBER],
    failure: None,
    run: |context| Box::pin(run(context)),
};

/// What is still to be read, over all queues.
struct Reader {
    group: String,
    remaining: u64,
}

async fn run(context: &mut Context) -> Result<(), Failure> {
    let topic = context.required(&TOPIC);
    let given = &context.given;
    let count: i64 = given.value(&MESSAGE_NUMBER).map_or(Ok(128), number)?;
    let (begin, end) =
        (given.value(&BEGIN_TIMESTAMP).map(time).transpose()?, given.value(&END_TIMESTAMP).map(time).transpose()?);
    let broker = given.value(&BROKER_NAME).map(str::to_owned);
    let queue_id: Option<u32> = given.value(&QUEUE_ID).map(number).transpose()?;
    let offset: Option<u64> = given.value(&OFFSET).map(number).transpose()?;
    let now = jiff::Timestamp::now().as_millisecond();
    let refusal = match () {
        () if count <= 0 => Some("Please input a positive messageNumber!"),
        () if queue_id.is_some() && broker.is_none() => Some("Please set the brokerName before queueId!"),
        () if offset.is_some() && queue_id.is_none() => Some("Please set queueId before offset!"),
        () if begin.is_some_and(|begin| begin > now) => Some("Please set the beginTimestamp before now!"),
        () if end.is_some_and(|end| end > now) => Some("Please set the endTimestamp before now!"),
        () if end.is_some_and(|end| begin.is_some_and(|begin| begin > end)) => {
            Some("Please make sure that the beginTimestamp is less than or equal to the endTimestamp")
        }
        () => None,
    };
    if let Some(text) = refusal {
        context.text(text);
        return Ok(());
    }
    let mut reader = Reader {
        group: given.value(&CONSUMER_GROUP).unwrap_or(TOOLS_GROUP).to_owned(),
        remaining: count.unsigned_abs(),
    };
    let queues = context
        .admin
        .subscribe_queues(&topic)
        .await
        .map_err(|_| Failure::Plain(format!("Can not find Message Queue for this topic, {topic}")))?;

    if let (Some(broker), Some(queue_id)) = (&broker, queue_id) {
        let Some(queue) = queues.into_iter().find(|queue| queue.broker_name == *broker && queue.queue_id == queue_id)
        else {
            return Err(Failure::Plain(format!("The broker[{broker}] not exist")));
        };
        let bounds = (context.admin.min_offset(&queue).await?, context.admin.max_offset(&queue).await?);
        let (mut from, end) = range(context, &queue, bounds, (begin, end)).await?;
        match offset {
            Some(offset) if offset > bounds.1 => {
                context.line(format!("{} no matched msg, offset={offset}", describe(&queue)));
                return Ok(());
            }
            Some(offset) => from = offset,
            None => {}
        }
        let last = match reader.last_within(from, end) {
            Some(last) => {
                context.line(format!("The oldler {} message will be provided", reader.remaining));
                last
            }
            None => end,
        };
        return reader.read(context, &queue, from, last).await;
    }
    for queue in queues.into_iter().filter(|queue| broker.as_ref().is_none_or(|broker| queue.broker_name == *broker)) {
        if reader.remaining == 0 {
            break;
        }
        let bounds = (context.admin.min_offset(&queue).await?, context.admin.max_offset(&queue).await?);
        let (from, end) = range(context, &queue, bounds, (begin, end)).await?;
        let last = match reader.last_within(from, end) {
            Some(last) => {
                context.line(format!(
                    "The older {} message of the {} queue will be provided",
                    reader.remaining, queue.queue_id
                ));
                last
            }
            None => end,
        };
        reader.read(context, &queue, from, last).await?;
    }
    Ok(())
}

fn time(text: &str) -> Result<i64, Failure> {
    parse_time(text).ok_or_else(|| Failure::Number(text.to_owned()))
}

/// The first and last queue offset to read: all of the queue, or those stored in a time range (one message at least, as Java).
async fn range(
    context: &Context,
    queue: &Queue,
    bounds: (u64, u64),
    times: (Option<i64>, Option<i64>),
) -> Result<(u64, u64), Failure> {
    let from = match times.0 {
        Some(begin) => context.admin.offset_by_time(queue, begin).await?,
        None => bounds.0,
    };
    let to = match times.1 {
        Some(end) => context.admin.offset_by_time(queue, end).await?,
        None => bounds.1,
    };
    Ok((from, to))
}

impl Reader {
    /// The last queue offset to read when the queue holds more than what is left to read.
    fn last_within(&self, from: u64, end: u64) -> Option<u64> {
        (end.saturating_sub(from) > self.remaining).then(|| from + self.remaining - 1)
    }

    /// Reads up to and with `last`. When that is the queue's end, one more pull finds nothing new and says so, as in Java.
    async fn read(&mut self, context: &mut Context, queue: &Queue, from: u64, last: u64) -> Result<(), Failure> {
        let mut next = from;
        while next <= last {
            let count = (last - next + 1).min(32) as u32;
            let pulled =
                context.admin.pull(&queue.addr, &self.group, &queue.topic, queue.queue_id, next, count).await?;
            next = pulled.next_offset;
            match pulled.status {
                PullStatus::Found => {
                    context.line("Consume ok");
                    for message in &pulled.messages {
                        context.line(line(queue, message));
                    }
                    self.remaining = self.remaining.saturating_sub(pulled.messages.len() as u64);
                }
                PullStatus::NoMatchedMessage => {
                    context.line(format!(
                        "{} no matched msg. status={}, offset={next}",
                        describe(queue),
                        pulled.status.java_name()
                    ));
                }
                PullStatus::NoNewMessage | PullStatus::OffsetIllegal => {
                    context.line(format!(
                        "{} print msg finished. status={}, offset={next}",
                        describe(queue),
                        pulled.status.java_name()
                    ));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn describe(queue: &Queue) -> String {
    format!("MessageQueue [topic={}, brokerName={}, queueId={}]", queue.topic, queue.broker_name, queue.queue_id)
}

/// Java: `MessageExt.toString` between the id and the body.
fn line(queue: &Queue, message: &FoundMessage) -> String {
    format!(
        "MSGID: {} MessageExt [brokerName={}, queueId={}, storeSize={}, queueOffset={}, sysFlag={}, bornTimestamp={}, bornHost=/{}, storeTimestamp={}, \
         storeHost=/{}, msgId={}, commitLogOffset={}, bodyCRC={}, reconsumeTimes={}, preparedTransactionOffset={}, toString()=Message{{topic='{}', flag={}, \
         properties={}, body={}, transactionId='null'}}] BODY: {}",
        message.message_id(),
        queue.broker_name,
        message.queue_id(),
        message.record().record_len(),
        message.queue_offset(),
        message.sys_flag(),
        message.record().born_timestamp(),
        message.record().born_host(),
        message.store_timestamp(),
        message.store_host(),
        message.offset_message_id(),
        message.physical_offset(),
        message.record().stored_crc(),
        message.record().reconsume_times(),
        message.record().prepared_transaction_offset(),
        message.topic(),
        message.record().flag(),
        java_map(&message.properties(), 128),
        java_bytes(message.body()),
        String::from_utf8_lossy(message.body())
    )
}
