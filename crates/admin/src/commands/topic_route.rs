//! `topicRoute`: which brokers and queues serve a topic. Java: `TopicRouteSubCommand`.

use ferromq_protocol::body::TopicRoute;
use ferromq_protocol::json;

use super::{Command, Context};
use crate::failure::Failure;
use ferromq_config::command_line::{OptionSpec, switch, value};

const TOPIC: OptionSpec = value("t", "topic", "topic name").required();
const LIST: OptionSpec = switch("l", "list", "Use list format to print data");

pub const COMMAND: Command = Command {
    name: "topicRoute",
    description: "Examine topic route info.",
    options: &[TOPIC, LIST],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: TopicRouteSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let route = context.admin.route(&context.required(&TOPIC)).await?;
    if context.given.has(&LIST) {
        print_list(context, &route);
    } else {
        context.line(String::from_utf8_lossy(&json::to_vec_pretty(&route)));
    }
    Ok(())
}

fn print_list(context: &mut Context, route: &TopicRoute) {
    let line = |cells: [&str; 6]| {
        format!("{:<45} {:<32} {:<50} {:<10} {:<11} {:<5}", cells[0], cells[1], cells[2], cells[3], cells[4], cells[5])
    };
    context.line(line(["#ClusterName", "#BrokerName", "#BrokerAddrs", "#ReadQueue", "#WriteQueue", "#Perm"]));
    let mut queues: Vec<_> = route.queue_datas.iter().collect();
    queues.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
    for queue in &queues {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == queue.broker_name);
        let addrs: Vec<String> =
            broker.iter().flat_map(|broker| &broker.broker_addrs).map(|(id, addr)| format!("{id}={addr}")).collect();
        context.line(line([
            broker.map_or("", |broker| broker.cluster.as_str()),
            &queue.broker_name,
            &format!("{{{}}}", addrs.join(", ")),
            &queue.read_queue_nums.to_string(),
            &queue.write_queue_nums.to_string(),
            &queue.perm.to_string(),
        ]));
    }
    context.line("-".repeat(158));
    let sum = |count: fn(&ferromq_protocol::body::QueueData) -> i64| {
        queues.iter().map(|queue| count(queue)).sum::<i64>().to_string()
    };
    context.line(line([
        "Total:",
        &queues.len().to_string(),
        "",
        &sum(|queue| i64::from(queue.read_queue_nums)),
        &sum(|queue| i64::from(queue.write_queue_nums)),
        "",
    ]));
}
