//! Names the system itself uses: built-in topics and groups, and how retry and dead-letter topics are called.
//!
//! Java: TopicValidator, MixAll, NamespaceUtil, KeyBuilder. Which rules a name must follow is in [`crate::TopicName`].

/// Before the group in the name of its retry topic.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Before the group in the name of its dead-letter topic.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// Before the name of a light message queue.
pub const LMQ_PREFIX: &str = "%LMQ%";
/// Before the names of topics of newer built-in duties.
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
/// Before the names of built-in consumer groups.
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Template for topics that come into being with their first message.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
/// Delayed messages; queue id = delay level − 1.
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const TRANSACTION_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANSACTION_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const TRANSACTION_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
/// What the store notes of its tables in the log; ours. Its records have no queue.
pub const TABLE_CHANGES_TOPIC: &str = "RMQ_SYS_TABLE_CHANGES";
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";

/// Group names the broker knows without anybody creating them. Java: MixAll, SubscriptionGroupManager.
pub mod groups {
    pub const DEFAULT_CONSUMER: &str = "DEFAULT_CONSUMER";
    pub const DEFAULT_PRODUCER: &str = "DEFAULT_PRODUCER";
    pub const TOOLS_CONSUMER: &str = "TOOLS_CONSUMER";
    pub const SCHEDULE_CONSUMER: &str = "SCHEDULE_CONSUMER";
    pub const FILTER_SERVER_CONSUMER: &str = "FILTERSRV_CONSUMER";
    pub const MONITOR_CONSUMER: &str = "__MONITOR_CONSUMER";
    pub const CLIENT_INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";
    pub const SELF_TEST_PRODUCER: &str = "SELF_TEST_P_GROUP";
    pub const SELF_TEST_CONSUMER: &str = "SELF_TEST_C_GROUP";
    pub const ONS_HTTP_PROXY: &str = "CID_ONS-HTTP-PROXY";
    pub const ONS_API_PERMISSION: &str = "CID_ONSAPI_PERMISSION";
    pub const ONS_API_OWNER: &str = "CID_ONSAPI_OWNER";
    pub const ONS_API_PULL: &str = "CID_ONSAPI_PULL";
    pub const TRANSACTION: &str = "CID_RMQ_SYS_TRANS";
}

const SYSTEM_TOPICS: [&str; 10] = [
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRACE_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
    TRANSACTION_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
    CHECKPOINT_TOPIC,
];

const NOT_ALLOWED_SEND_TOPICS: [&str; 7] = [
    SCHEDULE_TOPIC,
    TIMER_TOPIC,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
    TRANSACTION_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
];

const SYSTEM_GROUPS: [&str; 14] = [
    groups::DEFAULT_CONSUMER,
    groups::DEFAULT_PRODUCER,
    groups::TOOLS_CONSUMER,
    groups::SCHEDULE_CONSUMER,
    groups::FILTER_SERVER_CONSUMER,
    groups::MONITOR_CONSUMER,
    groups::CLIENT_INNER_PRODUCER,
    groups::SELF_TEST_PRODUCER,
    groups::SELF_TEST_CONSUMER,
    groups::ONS_HTTP_PROXY,
    groups::ONS_API_PERMISSION,
    groups::ONS_API_OWNER,
    groups::ONS_API_PULL,
    groups::TRANSACTION,
];

/// Whether a topic is the system's own: clients may neither create nor delete it. The cluster's and the broker's
/// topics are further ones that only the broker knows. Java: TopicValidator.isSystemTopic.
pub fn is_system(topic: &str) -> bool {
    SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX) || topic == TABLE_CHANGES_TOPIC
}

/// The fixed system topics, for listings.
pub fn system_topics() -> &'static [&'static str] {
    &SYSTEM_TOPICS
}

/// Whether producers may not send to this topic. Java: TopicValidator.isNotAllowedSendTopic, which lets them send to the
/// timers' topic: a message that is to be delivered there would go round for ever.
pub fn is_closed_to_producers(topic: &str) -> bool {
    NOT_ALLOWED_SEND_TOPICS.contains(&topic) || topic == TABLE_CHANGES_TOPIC
}

/// Whether a group exists without being created. Java: MixAll.isPredefinedGroup, isSysConsumerGroup.
pub fn is_system_group(group: &str) -> bool {
    SYSTEM_GROUPS.contains(&group) || group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// The topic that holds a group's messages for another try.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that holds a group's messages after the last try.
pub fn dead_letter_topic(group: &str) -> String {
    format!("{DEAD_LETTER_PREFIX}{group}")
}

pub fn is_retry(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

pub fn is_dead_letter(topic: &str) -> bool {
    topic.starts_with(DEAD_LETTER_PREFIX)
}

pub fn is_lmq(topic: &str) -> bool {
    topic.starts_with(LMQ_PREFIX)
}

/// The group behind a retry topic, `None` for other topics. A pop retry topic keeps its `_topic` or `+topic` tail:
/// group names may hold those characters too, so only someone who knows the groups can cut it off.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

/// Where requests of the request/reply pattern are answered.
pub fn reply_topic(cluster: &str) -> String {
    format!("{cluster}_REPLY_TOPIC")
}

/// Acknowledgements and check points of pop consumers.
pub fn revive_topic(cluster: &str) -> String {
    format!("rmq_sys_REVIVE_LOG_{cluster}")
}

/// Where a broker tells others of its group about members.
pub fn sync_broker_member_topic(broker: &str) -> String {
    format!("rmq_sys_SYNC_BROKER_MEMBER_{broker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_system() {
        for topic in ["TBW102", "SCHEDULE_TOPIC_XXXX", "rmq_sys_wheel_timer", &revive_topic("c")] {
            assert!(is_system(topic), "{topic}");
        }
        for topic in ["TopicTest", "%RETRY%g", "RMQ_SYS_OTHER", "c_REPLY_TOPIC"] {
            assert!(!is_system(topic), "{topic}");
        }
        assert!(is_closed_to_producers(SELF_TEST_TOPIC) && !is_closed_to_producers(AUTO_CREATE_TOPIC));
        assert!(is_system_group("CID_RMQ_SYS_X") && is_system_group(groups::TOOLS_CONSUMER) && !is_system_group("G"));
    }

    #[test]
    fn retry_and_dead_letter() {
        assert_eq!((retry_topic("g"), dead_letter_topic("g")), ("%RETRY%g".into(), "%DLQ%g".into()));
        assert!(is_retry("%RETRY%g") && is_dead_letter("%DLQ%g") && !is_retry("g"));
        assert_eq!(group_of_retry_topic("%RETRY%ns%g"), Some("ns%g"));
        assert_eq!(group_of_retry_topic("g"), None);
    }
}
