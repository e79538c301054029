//! `consumerProgress`: lag per queue of a group, or an overview of all groups. Java: `ConsumerProgressSubCommand`.

use std::collections::BTreeMap;

use ferromq_protocol::body::{ConsumeStats, ConsumeType, ConsumerConnection, MessageQueue};
use ferromq_protocol::version_name;

use super::{Command, Context};
use crate::failure::Failure;
use crate::text::{cut, time_of_day};
use ferromq_config::command_line::{OptionSpec, value};

const GROUP_NAME: OptionSpec = value("g", "groupName", "consumer group name");
const TOPIC_NAME: OptionSpec = value("t", "topicName", "topic name");
const SHOW_CLIENT_IP: OptionSpec = value("s", "showClientIP", "Show Client IP per Queue");
const CLUSTER: OptionSpec = value("c", "cluster", "Cluster name or lmq parent topic, lmq is used to find the route.");

pub const COMMAND: Command = Command {
    name: "consumerProgress",
    description: "Query consumer's progress, speed.",
    options: &[GROUP_NAME, TOPIC_NAME, SHOW_CLIENT_IP, CLUSTER],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: ConsumerProgressSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    match context.given.value(&GROUP_NAME).map(str::to_owned) {
        Some(group) => one_group(context, &group).await,
        None => all_groups(context).await,
    }
}

async fn one_group(context: &mut Context, group: &str) -> Result<(), Failure> {
    let show_clients = context.given.flag(&SHOW_CLIENT_IP, false);
    let stats = context.admin.consume_stats(group, context.given.value(&TOPIC_NAME)).await?;
    let owners =
        if show_clients { context.admin.queue_owners(group).await.unwrap_or_default() } else { BTreeMap::new() };
    let line = |cells: [&str; 9]| {
        let client = if show_clients { format!("{:<20}  ", cells[5]) } else { String::new() };
        format!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {client}{:<20} {:<20}{}",
            cells[0], cells[1], cells[2], cells[3], cells[4], cells[6], cells[7], cells[8]
        )
    };
    context.line(line([
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        "#Client IP",
        "#Diff",
        "#Inflight",
        "#LastTime",
    ]));
    let (mut diff_total, mut inflight_total) = (0, 0);
    for (queue, offsets) in sorted(&stats) {
        let diff = offsets.broker_offset - offsets.consumer_offset;
        let inflight = offsets.pull_offset - offsets.consumer_offset;
        diff_total += diff;
        inflight_total += inflight;
        let client = owners.get(queue).map_or("N/A", |id| id.split('@').next().unwrap_or(id));
        let last = if offsets.last_timestamp == 0 { "N/A".to_owned() } else { time_of_day(offsets.last_timestamp) };
        context.line(line([
            cut(&queue.topic, 64),
            cut(&queue.broker_name, 32),
            &queue.queue_id.to_string(),
            &offsets.broker_offset.to_string(),
            &offsets.consumer_offset.to_string(),
            client,
            &diff.to_string(),
            &inflight.to_string(),
            &format!(" {last}"),
        ]));
    }
    context.text(format!(
        "\nConsume TPS: {:.2}\nConsume Diff Total: {diff_total}\nConsume Inflight Total: {inflight_total}\n",
        stats.consume_tps
    ));
    Ok(())
}

fn sorted(stats: &ConsumeStats) -> Vec<(&MessageQueue, &ferromq_protocol::body::OffsetWrapper)> {
    let mut rows: Vec<_> = stats.offset_table.iter().collect();
    rows.sort_by(|a, b| a.0.cmp(b.0));
    rows
}

async fn all_groups(context: &mut Context) -> Result<(), Failure> {
    let line = |cells: [&str; 7]| {
        format!(
            "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  {}",
            cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]
        )
    };
    context.line(line(["#Group", "#Count", "#Version", "#Type", "#Model", "#TPS", "#Diff Total"]));
    for topic in context.admin.topics().await? {
        let Some(group) = topic.strip_prefix("%RETRY%") else {
            continue;
        };
        // A group that cannot be asked still has its row, with zeros, as Java.
        let stats = context.admin.consume_stats(group, None).await.unwrap_or_default();
        let connection = context.admin.consumer_connection(group).await.unwrap_or_default();
        let diff: i64 =
            stats.offset_table.iter().map(|(_, offsets)| offsets.broker_offset - offsets.consumer_offset).sum();
        let (version, kind, model) = clients(&connection);
        context.line(line([
            cut(group, 64),
            &connection.connection_set.len().to_string(),
            &version,
            kind,
            model,
            &(stats.consume_tps as i64).to_string(),
            &diff.to_string(),
        ]));
    }
    Ok(())
}

/// Lowest client version, consume type and message model of a group's clients.
fn clients(connection: &ConsumerConnection) -> (String, &'static str, &'static str) {
    let Some(version) = connection.connection_set.iter().map(|client| client.version).min() else {
        return ("OFFLINE".to_owned(), "", "");
    };
    match connection.consume_type {
        Some(ConsumeType::Actively) => (version_name(version), "PULL", ""),
        Some(_) => (version_name(version), "PUSH", connection.message_model.map_or("", |model| model.java_name())),
        None => (version_name(version), "", ""),
    }
}
