//! `haStatus`: how the copies of a broker's log stand. Java: `HAStatusSubCommand`.

use std::time::Duration;

use ferromq_protocol::body::HaRuntimeInfo;
use serde::Serialize;

use super::{Command, Context};
use crate::failure::{Failure, number};
use crate::text::time_with_millis;
use ferromq_config::command_line::{OptionSpec, switch, value};

const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "which cluster");
const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "which broker to fetch");
const INTERVAL: OptionSpec = value("i", "interval", "the interval(second) of get info");
const JSON: OptionSpec = switch("", "json", "FerroMQ's own: print one JSON object per broker and line");

pub const COMMAND: Command = Command {
    name: "haStatus",
    description: "Fetch ha runtime status data.",
    options: &[CLUSTER_NAME, BROKER_ADDR, INTERVAL, JSON],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: HAStatusSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

/// Java waits so long between two looks when it is not said.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(3);

async fn run(context: &mut Context) -> Result<(), Failure> {
    let interval = match context.given.value(&INTERVAL).map(str::trim) {
        Some("") => Some(INTERVAL_DEFAULT),
        Some(text) => Some(Duration::from_secs(number(text)?)),
        None => None,
    };
    loop {
        look(context).await?;
        let Some(pause) = interval else { return Ok(()) };
        context.flush();
        tokio::time::sleep(pause).await;
    }
}

async fn look(context: &mut Context) -> Result<(), Failure> {
    let addrs = if let Some(addr) = context.given.value(&BROKER_ADDR) {
        vec![addr.trim().to_owned()]
    } else if let Some(cluster) = context.given.value(&CLUSTER_NAME) {
        let cluster = cluster.trim().to_owned();
        context.masters(&cluster).await?
    } else {
        context.usage();
        return Ok(());
    };
    for addr in addrs {
        let info = context.admin.ha_status(&addr).await?;
        if context.given.has(&JSON) {
            context.line(as_json(&addr, &info));
        } else {
            context.text(table(&addr, &info));
        }
    }
    Ok(())
}

fn as_json(addr: &str, info: &HaRuntimeInfo) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct OfBroker<'a> {
        broker_addr: &'a str,
        #[serde(flatten)]
        info: &'a HaRuntimeInfo,
    }
    String::from_utf8_lossy(&ferromq_protocol::json::to_vec(&OfBroker { broker_addr: addr, info })).into_owned()
}

fn table(addr: &str, info: &HaRuntimeInfo) -> String {
    if !info.master {
        let client = &info.ha_client_runtime_info;
        return format!(
            "\n#MasterAddr\t{}\n#CommitLogMaxOffset\t{}\n#TransferSpeed(KB/s)\t{:.2}\n#LastReadTime\t{}\n#LastWriteTime\t{}\n\
             #MasterFlushOffset\t{}\n",
            client.master_addr.as_deref().unwrap_or("null"),
            client.max_offset,
            client.transferred_byte_in_second as f64 / 1024.0,
            time_with_millis(client.last_read_timestamp),
            time_with_millis(client.last_write_timestamp),
            client.master_flush_offset,
        );
    }
    let mut text = format!(
        "\n#MasterAddr\t{addr}\n#MasterCommitLogMaxOffset\t{}\n#SlaveNum\t{}\n#InSyncSlaveNum\t{}\n",
        info.master_commit_log_max_offset,
        info.ha_connection_info.len(),
        info.in_sync_slave_nums
    );
    text.push_str(&row([
        "#SlaveAddr",
        "#SlaveAckOffset",
        "#Diff",
        "#TransferSpeed(KB/s)",
        "#Status",
        "#TransferFromWhere",
    ]));
    for slave in &info.ha_connection_info {
        text.push_str(&row([
            &slave.addr,
            &slave.slave_ack_offset.to_string(),
            &slave.diff.to_string(),
            &format!("{:.2}", slave.transferred_byte_in_second as f64 / 1024.0),
            if slave.in_sync { "OK" } else { "Fall Behind" },
            &slave.transfer_from_where.to_string(),
        ]));
    }
    text
}

fn row(columns: [&str; 6]) -> String {
    let [addr, ack, diff, speed, status, from] = columns;
    format!("{addr:<32}  {ack:<16} {diff:>16} {speed:>16} {status:>16} {from:>16}\n")
}

#[cfg(test)]
mod tests {
    use ferromq_protocol::body::HaConnectionRuntimeInfo;

    use super::*;

    /// As captured from the tool of 5.3.3, a master with a slave.
    #[test]
    fn a_master_is_shown_as_java_shows_it() {
        let slave = HaConnectionRuntimeInfo {
            addr: "10.0.0.99:33148".into(),
            diff: 0,
            in_sync: true,
            slave_ack_offset: 6_182_695,
            transfer_from_where: 6_182_695,
            transferred_byte_in_second: 0,
        };
        let info = HaRuntimeInfo {
            master: true,
            master_commit_log_max_offset: 6_182_695,
            in_sync_slave_nums: 1,
            ha_connection_info: vec![slave],
            ..HaRuntimeInfo::default()
        };
        let lines = [
            "",
            "#MasterAddr\t127.0.0.1:33911",
            "#MasterCommitLogMaxOffset\t6182695",
            "#SlaveNum\t1",
            "#InSyncSlaveNum\t1",
            "#SlaveAddr                        #SlaveAckOffset             #Diff #TransferSpeed(KB/s)          #Status #TransferFromWhere",
            "10.0.0.99:33148                   6182695                         0             0.00               OK          6182695",
            "",
        ];
        assert_eq!(table("127.0.0.1:33911", &info), lines.join("\n"));
        let json = as_json("127.0.0.1:33911", &info);
        assert!(json.starts_with(r#"{"brokerAddr":"127.0.0.1:33911","haClientRuntimeInfo":{"#), "{json}");
        assert!(json.contains(r#""inSyncSlaveNums":1,"master":true,"#) && !json.contains('\n'), "{json}");
    }
}
