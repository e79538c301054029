//! `updateSubGroup`: creates or overwrites a consumer group. Java: `UpdateSubGroupSubCommand`.

use ferromq_protocol::body::{GroupRetryPolicy, SubscriptionGroup};
use ferromq_protocol::json;

use super::update_topic::attributes;
use super::{Command, Context};
use crate::failure::{Failure, number};
use crate::text::java_map;
use ferromq_config::command_line::{OptionSpec, value};

const BROKER_ADDR: OptionSpec = value("b", "brokerAddr", "create subscription group to which broker");
const CLUSTER_NAME: OptionSpec = value("c", "clusterName", "create subscription group to which cluster");
const GROUP_NAME: OptionSpec = value("g", "groupName", "consumer group name").required();
const CONSUME_ENABLE: OptionSpec = value("s", "consumeEnable", "consume enable");
const CONSUME_FROM_MIN_ENABLE: OptionSpec = value("m", "consumeFromMinEnable", "from min offset");
const CONSUME_BROADCAST_ENABLE: OptionSpec = value("d", "consumeBroadcastEnable", "broadcast");
const CONSUME_MESSAGE_ORDERLY: OptionSpec = value("o", "consumeMessageOrderly", "consume message orderly");
const RETRY_QUEUE_NUMS: OptionSpec = value("q", "retryQueueNums", "retry queue nums");
const RETRY_MAX_TIMES: OptionSpec = value("r", "retryMaxTimes", "retry max times");
const GROUP_RETRY_POLICY: OptionSpec = value(
    "p",
    "groupRetryPolicy",
    r#"the json string of retry policy ( exp: {"type":"EXPONENTIAL","exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2}} {"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000,10000]}} )"#,
);
const BROKER_ID: OptionSpec = value("i", "brokerId", "consumer from which broker id");
const WHICH_BROKER_WHEN_CONSUME_SLOWLY: OptionSpec =
    value("w", "whichBrokerWhenConsumeSlowly", "which broker id when consume slowly");
const NOTIFY_CONSUMER_IDS_CHANGED: OptionSpec = value("a", "notifyConsumerIdsChanged", "notify consumerId changed");
const ATTRIBUTES: OptionSpec = value("", "attributes", "attribute(+a=b,+c=d,-e)");

pub const COMMAND: Command = Command {
    name: "updateSubGroup",
    description: "Update or create subscription group.",
    options: &[
        BROKER_ADDR,
        CLUSTER_NAME,
        GROUP_NAME,
        CONSUME_ENABLE,
        CONSUME_FROM_MIN_ENABLE,
        CONSUME_BROADCAST_ENABLE,
        CONSUME_MESSAGE_ORDERLY,
        RETRY_QUEUE_NUMS,
        RETRY_MAX_TIMES,
        GROUP_RETRY_POLICY,
        BROKER_ID,
        WHICH_BROKER_WHEN_CONSUME_SLOWLY,
        NOTIFY_CONSUMER_IDS_CHANGED,
        ATTRIBUTES,
    ],
    failure: Some("org.apache.rocketmq.tools.command.SubCommandException: UpdateSubGroupSubCommand command failed"),
    run: |context| Box::pin(run(context)),
};

async fn run(context: &mut Context) -> Result<(), Failure> {
    let group = config_from(context)?;
    let addrs = match (
        context.given.value(&BROKER_ADDR).map(str::to_owned),
        context.given.value(&CLUSTER_NAME).map(str::to_owned),
    ) {
        (Some(addr), _) => {
            context.admin.update_group(&addr, &group).await?;
            context.line(format!("create subscription group to {addr} success."));
            Vec::new()
        }
        (None, Some(cluster)) => context.masters(&cluster).await?,
        (None, None) => {
            context.usage();
            return Ok(());
        }
    };
    for addr in addrs {
        match context.admin.update_group(&addr, &group).await {
            Ok(()) => context.line(format!("create subscription group to {addr} success.")),
            Err(error) => eprintln!("{}", Failure::from(error)),
        }
    }
    context.text(describe(&group));
    Ok(())
}

fn config_from(context: &Context) -> Result<SubscriptionGroup, Failure> {
    let given = &context.given;
    let mut group = SubscriptionGroup {
        group_name: context.required(&GROUP_NAME).into(),
        consume_enable: given.flag(&CONSUME_ENABLE, true),
        consume_from_min_enable: given.flag(&CONSUME_FROM_MIN_ENABLE, false),
        consume_broadcast_enable: given.flag(&CONSUME_BROADCAST_ENABLE, false),
        consume_message_orderly: given.flag(&CONSUME_MESSAGE_ORDERLY, false),
        notify_consumer_ids_changed_enable: given.flag(&NOTIFY_CONSUMER_IDS_CHANGED, true),
        ..SubscriptionGroup::default()
    };
    if let Some(text) = given.value(&RETRY_QUEUE_NUMS) {
        group.retry_queue_nums = number(text)?;
    }
    if let Some(text) = given.value(&RETRY_MAX_TIMES) {
        group.retry_max_times = number(text)?;
    }
    if let Some(text) = given.value(&GROUP_RETRY_POLICY) {
        group.group_retry_policy = json::from_slice(text.as_bytes())
            .map_err(|error| Failure::Runtime(format!("the retry policy is not what it should be: {error}")))?;
    }
    if let Some(text) = given.value(&BROKER_ID) {
        group.broker_id = number(text)?;
    }
    if let Some(text) = given.value(&WHICH_BROKER_WHEN_CONSUME_SLOWLY) {
        group.which_broker_when_consume_slowly = number(text)?;
    }
    if let Some(text) = given.value(&ATTRIBUTES) {
        group.attributes = attributes(text)?;
    }
    Ok(group)
}

/// Java: `SubscriptionGroupConfig.toString`.
fn describe(group: &SubscriptionGroup) -> String {
    let attributes: Vec<(&str, &str)> =
        group.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    format!(
        "SubscriptionGroupConfig{{groupName={}, consumeEnable={}, consumeFromMinEnable={}, consumeBroadcastEnable={}, consumeMessageOrderly={}, \
         retryQueueNums={}, retryMaxTimes={}, groupRetryPolicy={}, brokerId={}, whichBrokerWhenConsumeSlowly={}, notifyConsumerIdsChangedEnable={}, \
         groupSysFlag={}, consumeTimeoutMinute={}, subscriptionDataSet=null, attributes={}}}",
        group.group_name,
        group.consume_enable,
        group.consume_from_min_enable,
        group.consume_broadcast_enable,
        group.consume_message_orderly,
        group.retry_queue_nums,
        group.retry_max_times,
        describe_policy(&group.group_retry_policy),
        group.broker_id,
        group.which_broker_when_consume_slowly,
        group.notify_consumer_ids_changed_enable,
        group.group_sys_flag,
        group.consume_timeout_minute,
        java_map(&attributes, 16)
    )
}

fn describe_policy(policy: &GroupRetryPolicy) -> String {
    let exponential = policy.exponential_retry_policy.as_ref().map_or("null".to_owned(), |policy| {
        format!(
            "ExponentialRetryPolicy{{initial={}, max={}, multiplier={}}}",
            policy.initial, policy.max, policy.multiplier
        )
    });
    let customized = policy
        .customized_retry_policy
        .as_ref()
        .map_or("null".to_owned(), |policy| format!("CustomizedRetryPolicy{{next={:?}}}", policy.next));
    format!(
        "GroupRetryPolicy{{type={}, exponentialRetryPolicy={exponential}, customizedRetryPolicy={customized}}}",
        policy.kind
    )
}
