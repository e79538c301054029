//! `clusterList`: every broker with load, rates and storage indicators. Java: `ClusterListSubCommand`.

use std::collections::BTreeMap;
use std::time::Duration;

use ferromq_protocol::body::ClusterInfo;

use super::{Command, Context, broker_names};
use crate::failure::{Failure, number};
use ferromq_config::command_line::{OptionSpec, switch, value};

const MORE_STATS: OptionSpec = switch("m", "moreStats", "Print more stats");
const INTERVAL: OptionSpec = value("i", "interval", "specify intervals numbers, it is in seconds");
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "which cluster");

pub const COMMAND: Command = Command {
    name: "clusterList",
    description: "List cluster infos.",
    options: &[MORE_STATS, INTERVAL, CLUSTER_NAME],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: ClusterListSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let interval = match context.given.value(&INTERVAL) {
        Some(text) => Some(Duration::from_secs(number(text)?)),
        None => None,
    };
    loop {
        let info = context.admin.cluster_info().await?;
        let clusters: Vec<String> = match context.given.value(&CLUSTER_NAME) {
            Some(cluster) => vec![cluster.to_owned()],
            None => info.cluster_addr_table.keys().map(ToString::to_string).collect(),
        };
        if context.given.has(&MORE_STATS) {
            print_totals(context, &info, &clusters).await
        } else {
            print_load(context, &info, &clusters).await
        }
        match interval {
            Some(pause) => {
                context.flush();
                tokio::time::sleep(pause).await;
            }
            None => return Ok(()),
        }
    }
}

/// Every replica of the clusters with its runtime table; an unreachable broker has an empty one and is reported on stderr.
async fn replicas(
    context: &Context,
    info: &ClusterInfo,
    clusters: &[String],
) -> Vec<(String, String, i64, String, BTreeMap<String, String>)> {
    let mut rows = Vec::new();
    for cluster in clusters {
        for name in broker_names(info, cluster).unwrap_or_default() {
            let Some(broker) = info.broker_addr_table.get(name.as_str()) else {
                continue;
            };
            for (id, addr) in &broker.broker_addrs {
                let table = match context.admin.runtime_info(addr).await {
                    Ok(table) => table,
                    Err(error) => {
                        eprintln!("{}", Failure::from(error));
                        BTreeMap::new()
                    }
                };
                rows.push((cluster.clone(), name.clone(), *id, addr.clone(), table));
            }
        }
    }
    rows
}

async fn print_load(context: &mut Context, info: &ClusterInfo, clusters: &[String]) {
    context.line(format!(
        "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:<11}  {:<12}  {:<8}  {:<10}",
        "#Cluster Name",
        "#Broker Name",
        "#BID",
        "#Addr",
        "#Version",
        "#InTPS(LOAD)",
        "#OutTPS(LOAD)",
        "#Timer(Progress)",
        "#PCWait(ms)",
        "#Hour",
        "#SPACE",
        "#ACTIVATED"
    ));
    for (cluster, name, id, addr, table) in replicas(context, info, clusters).await {
        let text = |key: &str| table.get(key).cloned().unwrap_or_default();
        let first = |key: &str| text(key).split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0_f64);
        let float = |key: &str| text(key).parse().unwrap_or(0.0_f64);
        let whole = |key: &str| text(key).parse().unwrap_or(0_i64);
        let or_n = |key: &str| table.get(key).cloned().unwrap_or_else(|| "N".to_owned());
        let input = format!(
            "{:9.2}({},{}ms)",
            first("putTps"),
            text("sendThreadPoolQueueSize"),
            text("sendThreadPoolQueueHeadWaitTimeMills")
        );
        let output = format!(
            "{:9.2}({},{}ms|{},{}ms)",
            first("getTransferredTps"),
            text("pullThreadPoolQueueSize"),
            text("pullThreadPoolQueueHeadWaitTimeMills"),
            or_n("ackThreadPoolQueueSize"),
            or_n("ackThreadPoolQueueHeadWaitTimeMills")
        );
        let timer = format!(
            "{}-{}({:.1}w, {:.1}, {:.1})",
            whole("timerReadBehind"),
            whole("timerOffsetBehind"),
            whole("timerCongestNum") as f64 / 10_000.0,
            float("timerEnqueueTps"),
            float("timerDequeueTps")
        );
        let hour = match table.get("earliestMessageTimeStamp").and_then(|text| text.parse::<i64>().ok()) {
            Some(earliest) => format!("{:.2}", (now_ms() - earliest) as f64 / 3_600_000.0),
            None => "0.00".to_owned(),
        };
        context.line(format!(
            "{cluster:<22}  {name:<22}  {id:<4}  {addr:<22} {:<16}  {input:>16}  {output:>30}  {timer:<22}  {:>11}  {hour:<12}  {:<8}  {:>10}",
            text("brokerVersionDesc"),
            text("pageCacheLockTimeMills"),
            format!("{:.4}", float("commitLogDiskRatio")),
            text("brokerActive"),
        ));
    }
}

async fn print_totals(context: &mut Context, info: &ClusterInfo, clusters: &[String]) {
    context.line(format!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        "#Cluster Name", "#Broker Name", "#InTotalYest", "#OutTotalYest", "#InTotalToday", "#OutTotalToday"
    ));
    for (cluster, name, _, _, table) in replicas(context, info, clusters).await {
        let number = |key: &str| table.get(key).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let since = |kind: &str| {
            let morning = number(&format!("msg{kind}TotalTodayMorning"));
            (
                morning - number(&format!("msg{kind}TotalYesterdayMorning")),
                number(&format!("msg{kind}TotalTodayNow")) - morning,
            )
        };
        let ((in_yesterday, in_today), (out_yesterday, out_today)) = (since("Put"), since("Get"));
        context.line(format!(
            "{cluster:<16}  {name:<32} {in_yesterday:>14} {out_yesterday:>14} {in_today:>14} {out_today:>14}"
        ));
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
