//! The detail block of one message and the tracks of its consumers, shared by the queryMsg commands. Java: `QueryMsgByIdSubCommand.printMsg`.

use ferromq_client::{AdminError, FoundMessage};
use ferromq_protocol::ResponseCode;
use ferromq_protocol::body::{ConsumeType, MessageModel};
use ferromq_protocol::message::properties::names;

use super::Context;
use crate::failure::Failure;
use crate::text::{java_map, time_with_millis};

/// Where Java's tool leaves bodies.
const BODY_DIRECTORY: &str = "/tmp/rocketmq/msgbodys";

/// How the block differs between the commands.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// `-f CHARSET` shows the body as text as well.
    pub body_format: Option<&'a str>,
}

/// Prints the block, writes the body to its file, and lists the tracks.
pub async fn print(context: &mut Context, message: &FoundMessage, style: Style<'_>) -> Result<(), Failure> {
    let shown = |name: &str| message.property(name).unwrap_or("null").to_owned();
    let body_path = format!("{BODY_DIRECTORY}/{}", message.message_id());
    std::fs::create_dir_all(BODY_DIRECTORY)?;
    std::fs::write(&body_path, message.body())?;
    let rows = [
        ("OffsetID:", message.offset_message_id()),
        ("Topic:", message.topic().to_owned()),
        ("Tags:", format!("[{}]", shown(names::TAGS))),
        ("Keys:", format!("[{}]", shown(names::KEYS))),
        ("Queue ID:", message.queue_id().to_string()),
        ("Queue Offset:", message.queue_offset().to_string()),
        ("CommitLog Offset:", message.physical_offset().to_string()),
        ("Reconsume Times:", message.record().reconsume_times().to_string()),
        ("Born Timestamp:", time_with_millis(message.record().born_timestamp())),
        ("Store Timestamp:", time_with_millis(message.store_timestamp())),
        ("Born Host:", message.record().born_host().to_string()),
        ("Store Host:", message.store_host().to_string()),
        ("System Flag:", message.sys_flag().to_string()),
        ("Properties:", java_map(&message.properties(), 128)),
        ("Message Body Path:", body_path),
    ];
    for (name, text) in rows {
        context.line(format!("{name:<20} {text}"));
    }
    if let Some(charset) = style.body_format {
        if !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("utf8") {
            return Err(Failure::Runtime(format!("the body format {charset} is not supported, only UTF-8 is")));
        }
        context.line(format!("{:<20} {}", "Message Body:", String::from_utf8_lossy(message.body())));
    }
    context.text("\n\n");
    let tracks = tracks(context, message).await?;
    if tracks.is_empty() {
        context.text("WARN: No Consumer");
    }
    for track in tracks {
        context.line(track);
    }
    Ok(())
}

/// One line per group of the message's topic. Java: `DefaultMQAdminExtImpl.messageTrackDetail`.
async fn tracks(context: &Context, message: &FoundMessage) -> Result<Vec<String>, Failure> {
    let mut groups = Vec::new();
    for broker in &context.admin.route(message.topic()).await?.broker_datas {
        if let Some(addr) = broker.replica() {
            groups.extend(context.admin.groups_of_topic(addr, message.topic()).await?);
        }
    }
    let mut lines = Vec::new();
    for group in groups {
        let (kind, remark) = match track(context, message, &group).await {
            Ok(kind) => (kind, "null".to_owned()),
            Err(AdminError::Refused { code: code @ ResponseCode::CONSUMER_NOT_ONLINE, remark, .. }) => {
                ("NOT_ONLINE", format!("CODE:{} DESC:{remark}", code.0))
            }
            Err(error) => ("UNKNOWN", Failure::from(error).to_string()),
        };
        lines.push(format!("MessageTrack [consumerGroup={group}, trackType={kind}, exceptionDesc={remark}]"));
    }
    Ok(lines)
}

async fn track(context: &Context, message: &FoundMessage, group: &str) -> Result<&'static str, AdminError> {
    let connection = context.admin.consumer_connection(group).await?;
    if connection.consume_type == Some(ConsumeType::Actively) {
        return Ok("PULL");
    }
    if connection.message_model == Some(MessageModel::Broadcasting) {
        return Ok("CONSUME_BROADCASTING");
    }
    if !context.admin.is_consumed(message, group).await? {
        return Ok("NOT_CONSUME_YET");
    }
    let Some(subscription) = connection.subscription_table.get(message.topic()) else {
        return Ok("CONSUMED");
    };
    let tag = message.property(names::TAGS).unwrap_or_default();
    let wanted = subscription.tags_set.is_empty()
        || subscription.tags_set.iter().any(|wanted| *wanted == *tag || *wanted == "*");
    Ok(if wanted { "CONSUMED" } else { "CONSUMED_BUT_FILTERED" })
}
