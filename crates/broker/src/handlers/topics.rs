//! Administration of topics: 17, 18, 21, 215, 305, 316, 351.
//!
//! Java: `AdminBrokerProcessor`. A change is answered when it is on disk.

use std::sync::Arc;

use ferromq_protocol::body::{Table, TopicConfig, TopicConfigList, TopicFilterType, TopicList};
use ferromq_protocol::header::{CreateTopicRequest, DeleteTopicRequest, TopicConfigRequest};
use ferromq_protocol::{Reply, ResponseCode, TopicName, topics as names};
use ferromq_store::Store;
use tracing::info;

use crate::answer::Answer;
use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topic_attributes::{self as attributes, MESSAGE_TYPE};
use crate::topics::{QUEUES_MAX, Topic, Topics};

/// UPDATE_AND_CREATE_TOPIC.
pub(crate) fn update(
    config: &BrokerConfig,
    topics: &Arc<Topics>,
    origin: &Origin,
    request: CreateTopicRequest,
) -> Result<Answer, Refusal> {
    let Some(topic_filter_type) = TopicFilterType::from_java_name(&request.topic_filter_type) else {
        return Err(Refusal::system_error(format!("topicFilterType = [{}] value invalid", request.topic_filter_type)));
    };
    let changes = attributes::parse(request.attributes.as_deref().unwrap_or_default())
        .map_err(|error| Refusal::system_error(error.to_string()))?;
    let wanted = TopicConfig {
        topic_name: request.topic,
        read_queue_nums: request.read_queue_nums,
        write_queue_nums: request.write_queue_nums,
        perm: request.perm,
        topic_filter_type,
        topic_sys_flag: request.topic_sys_flag.unwrap_or(0),
        order: request.order,
        attributes: changes,
    };
    let next = admit(config, topics, wanted)?;
    if let Some(topic) = topics.find(&next.topic_name).filter(|topic| topic.config == next) {
        // The remark is what Java forgets to clear. As it is now may be what an earlier request made, and could not save.
        let reply = Reply::ok().remark("not set any response code");
        return Ok(saved(topics, topic, reply));
    }
    refuse_too_many(topics, std::slice::from_ref(&next))?;
    info!(topic = %next.topic_name, read = next.read_queue_nums, write = next.write_queue_nums, perm = next.perm, peer = %origin.address, "topic updated");
    let topic = topics.update(next)?;
    Ok(saved(topics, topic, Reply::ok()))
}

/// The reply, once the topic is on disk as it is now.
fn saved(topics: &Arc<Topics>, topic: Arc<Topic>, reply: Reply) -> Answer {
    let topics = Arc::clone(topics);
    Answer::when_saved(reply, move |done| topics.when_change_saved(&topic, done))
}

/// UPDATE_AND_CREATE_TOPIC_LIST: all of them or none.
pub(crate) fn update_list(
    config: &BrokerConfig,
    topics: &Arc<Topics>,
    origin: &Origin,
    list: TopicConfigList,
) -> Result<Answer, Refusal> {
    let next = list
        .topic_config_list
        .into_iter()
        .map(|wanted| admit(config, topics, wanted))
        .collect::<Result<Vec<_>, _>>()?;
    refuse_too_many(topics, &next)?;
    info!(count = next.len(), peer = %origin.address, "topics updated");
    let last = topics.update_all(next)?.pop();
    Ok(last.map_or_else(|| Reply::ok().into(), |last| saved(topics, last, Reply::ok())))
}

/// The checks, and the topic as it will be. The attributes of `wanted` are changes, as in `+key`, `-key`.
fn admit(config: &BrokerConfig, topics: &Topics, wanted: TopicConfig) -> Result<TopicConfig, Refusal> {
    let topic = &wanted.topic_name;
    topic.validate().map_err(|error| Refusal::invalid_parameter(error.to_string()))?;
    if config.validate_system_topic_when_update_topic {
        refuse_system_topic(config, topic)?;
    }
    for count in [wanted.read_queue_nums, wanted.write_queue_nums] {
        if !(0..=QUEUES_MAX).contains(&count) {
            return Err(Refusal::invalid_parameter(format!(
                "{count} queues are not possible, a topic can have 0 to {QUEUES_MAX}"
            )));
        }
    }
    let current = topics.find(topic);
    let mixed =
        wanted.attributes.iter().any(|(key, value)| key.trim_start_matches('+') == MESSAGE_TYPE && value == "MIXED");
    if mixed && !config.enable_mixed_message_type {
        return Err(Refusal::invalid_parameter("MIXED message type is not supported."));
    }
    let attributes: Table<String, String> =
        attributes::alter(attributes::OF_TOPICS, current.as_ref().map(|topic| &topic.attributes), &wanted.attributes)
            .map_err(|error| Refusal::system_error(error.to_string()))?;
    Ok(TopicConfig { attributes, topic_name: wanted.topic_name.into_owned(), ..wanted })
}

fn refuse_too_many(topics: &Topics, next: &[TopicConfig]) -> Result<(), Refusal> {
    match next.iter().filter(|topic| !topics.contains(&topic.topic_name)).count() {
        0 => Ok(()),
        new => topics.check_room(new).map_err(Refusal::full),
    }
}

/// What a topic's deletion reaches.
pub(crate) struct Deletion {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub offsets: Arc<ConsumerOffsets>,
    pub statistics: Arc<Statistics>,
    pub store: Arc<Store>,
}

/// DELETE_TOPIC_IN_BROKER. An unknown topic is no error. Answered when a restart would not find it and its queue files are gone.
pub(crate) fn delete(parts: Deletion, origin: &Origin, request: DeleteTopicRequest) -> Result<Answer, Refusal> {
    let topic = request.topic.into_owned();
    if topic.trim().is_empty() {
        return Err(Refusal::invalid_parameter("The specified topic is blank."));
    }
    refuse_system_topic(&parts.config.current(), &topic)?;
    info!(%topic, peer = %origin.address, "topic deleted");
    Ok(Answer::off_task(move || parts.delete(&topic).map(|()| Reply::ok())))
}

impl Deletion {
    /// The queue files go last: a topic that a restart brings back has its messages. What cannot be deleted is there as before. A name that
    /// nothing here has leaves no trace.
    fn delete(&self, topic: &str) -> Result<(), Refusal> {
        let known = self.topics.contains(topic)
            || self.offsets.knows_topic(topic)
            || self.statistics.knows_topic(topic)
            || !self.store.queue_ids(topic).is_empty();
        if !known {
            return Ok(());
        }
        let mut doomed = vec![TopicName::from(topic)];
        if self.config.current().clear_retry_topic_when_delete_topic {
            for group in self.offsets.groups_of(topic) {
                // Both spellings that pop consumers have used.
                let retries = ['_', '+'].map(|separator| format!("{}{group}{separator}{topic}", names::RETRY_PREFIX));
                let known = retries.into_iter().filter(|retry| self.topics.contains(retry));
                doomed.extend(known.map(TopicName::from));
            }
        }
        // A producer would begin the topic anew behind the old messages, and lose his own with them.
        let _barred = self.topics.bar(&doomed);
        let removed: Vec<_> = doomed.iter().filter_map(|topic| self.topics.remove(topic)).collect();
        let offsets: Vec<_> = doomed.iter().filter_map(|topic| self.offsets.remove_topic(topic)).collect();
        let (gone, failure) = match self.delete_removed(&doomed) {
            Ok(()) => (doomed.len(), None),
            Err((gone, failure)) => (gone, Some(failure)),
        };
        let (gone, kept) = doomed.split_at(gone);
        self.topics.put_back(removed.iter().filter(|topic| kept.contains(&topic.topic_name)));
        self.offsets.put_back(offsets.into_iter().filter(|offsets| kept.iter().any(|topic| offsets.is_of(topic))));
        // A pull that had looked for the topic before may have committed after it.
        let late = gone.iter().filter(|topic| self.offsets.remove_topic(topic).is_some()).count();
        gone.iter().for_each(|topic| self.statistics.remove_topic(topic));
        if let Some(failure) = failure {
            let what = if gone.is_empty() { "is not deleted" } else { "is deleted, but not all that belongs to it" };
            return Err(Refusal::system_error(format!("topic[{topic}] {what}: {failure}")));
        }
        if late == 0 { Ok(()) } else { Ok(self.offsets.wait_saved()?) }
    }

    /// For good, first out of the tables' files and then the queues. Fails with the number of topics that are gone.
    fn delete_removed(&self, doomed: &[TopicName]) -> Result<(), (usize, String)> {
        let saved = self.topics.wait_saved().and_then(|()| self.offsets.wait_saved());
        saved.map_err(|error| (0, error.to_string()))?;
        for (number, topic) in doomed.iter().enumerate() {
            self.store.delete_topic(topic).map_err(|error| {
                // What failed may be the removal of the files alone.
                let is_gone = self.store.queue_ids(topic).is_empty();
                (number + usize::from(is_gone), error.to_string())
            })?;
        }
        Ok(())
    }

    /// The queues of topics that are not in the table and for which `goes` is true, and what groups have committed there. Nobody sends to
    /// such a topic, so a new one of its name begins anew for everybody.
    fn clean(&self, goes: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let system: Vec<String> = system_topics(&self.config.current()).collect();
        let is_kept = |topic: &str| {
            self.topics.contains(topic)
                || names::is_lmq(topic)
                || names::is_system(topic)
                || system.iter().any(|system| system == topic)
                || !goes(topic)
        };
        let unused = self.store.topics().into_iter().filter(|topic| !is_kept(topic));
        let unused: Vec<TopicName> = unused.map(|topic| TopicName::from(&*topic)).collect();
        let _barred = self.topics.bar(&unused);
        // As it is now, when nobody makes a topic of these names any more.
        let unused: Vec<TopicName> = unused.into_iter().filter(|topic| !is_kept(topic)).collect();
        unused.iter().for_each(|topic| drop(self.offsets.remove_topic(topic)));
        let cleaned = self
            .offsets
            .wait_saved()
            .map_err(|error| error.to_string())
            .and_then(|()| {
                let is_kept = |topic: &str| !unused.iter().any(|unused| **unused == *topic) || !goes(topic);
                self.store.clean_queues_except(is_kept).map_err(|error| error.to_string())
            })
            .map_err(|error| Refusal::system_error(format!("queue files could not be removed: {error}")))?;
        if !cleaned.is_empty() {
            info!(topics = ?cleaned, "queues of unknown topics removed");
        }
        Ok(())
    }
}

/// GET_ALL_TOPIC_CONFIG, unpaged as in 5.3.3: the answer carries no total, so that callers stop after it.
pub(crate) fn all(topics: &Topics) -> Reply {
    Reply::ok().empty_header().json_body(&topics.snapshot().with_mappings())
}

/// GET_TOPIC_CONFIG.
pub(crate) fn one(topics: &Topics, request: &TopicConfigRequest) -> Result<Reply, Refusal> {
    let Some(topic) = topics.find(&request.topic) else {
        return Err(Refusal::new(
            ResponseCode::TOPIC_NOT_EXIST,
            format!("No topic in this broker. topic: {}", request.topic),
        ));
    };
    Ok(Reply::ok().json_body(&topic.config))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER.
pub(crate) fn system(config: &BrokerConfig) -> Reply {
    let topic_list = system_topics(config).map(TopicName::from).collect();
    Reply::ok().json_body(&TopicList { broker_addr: None, topic_list })
}

/// CLEAN_UNUSED_TOPIC: removes the queues of topics that are no longer in the table.
pub(crate) fn clean_unused(parts: Deletion) -> Answer {
    Answer::off_task(move || parts.clean(|_| true).map(|()| Reply::ok()))
}

/// CLEAN_EXPIRED_CONSUMEQUEUE: of those topics, the ones that have no message left. Java removes such queues of topics that are in use, too:
/// they begin at 0 again while groups have committed more, and messages are passed over or come twice.
pub(crate) fn clean_expired(parts: Deletion) -> Answer {
    Answer::off_task(move || {
        let store = Arc::clone(&parts.store);
        parts.clean(|topic| !store.has_messages(topic)).map(|()| Reply::ok())
    })
}

fn refuse_system_topic(config: &BrokerConfig, topic: &str) -> Result<(), Refusal> {
    if is_system(config, topic) {
        return Err(Refusal::invalid_parameter(format!("The topic[{topic}] is conflict with system topic.")));
    }
    Ok(())
}

fn is_system(config: &BrokerConfig, topic: &str) -> bool {
    names::is_system(topic) || system_topics(config).any(|system| system == topic)
}

/// The fixed system topics and those named after this broker and its cluster. Java: `TopicValidator` as `TopicConfigManager` fills it.
fn system_topics(config: &BrokerConfig) -> impl Iterator<Item = String> + '_ {
    let (cluster, broker) = (&config.broker_cluster_name, &config.broker_name);
    let own = [
        cluster.clone(),
        broker.clone(),
        names::reply_topic(cluster),
        names::revive_topic(cluster),
        names::sync_broker_member_topic(broker),
        names::TIMER_TOPIC.to_owned(),
    ];
    names::system_topics().iter().map(|topic| (*topic).to_owned()).chain(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::Persistence;
    use ferromq_protocol::json;

    fn table() -> (tempfile::TempDir, BrokerConfig, Topics) {
        let directory = tempfile::tempdir().unwrap();
        let config = BrokerConfig { broker_name: "broker-a".into(), ..BrokerConfig::default() };
        let topics =
            Topics::open(directory.path(), &Arc::new(LiveConfig::new(config.clone(), None)), &Persistence::default())
                .unwrap();
        (directory, config, topics)
    }

    fn wanted(topic: &str, change: &str) -> TopicConfig {
        TopicConfig {
            topic_name: topic.into(),
            attributes: attributes::parse(change).unwrap(),
            ..TopicConfig::default()
        }
    }

    #[test]
    fn refusals_in_javas_words() {
        let (_directory, config, topics) = table();
        let refused = |topic: &str, change: &str| {
            let refusal = admit(&config, &topics, wanted(topic, change)).unwrap_err();
            (refusal.code.0, refusal.remark.to_string())
        };
        assert_eq!(refused("TBW102", ""), (29, "The topic[TBW102] is conflict with system topic.".into()));
        assert_eq!(refused("broker-a", "").0, 29);
        assert_eq!(
            refused("bad!", ""),
            (29, "The specified topic contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".into())
        );
        assert_eq!(refused("", ""), (29, "The specified topic is blank.".into()));
        assert_eq!(refused("TopicMix", "+message.type=MIXED"), (29, "MIXED message type is not supported.".into()));
        assert_eq!(refused("TopicA1", "-message.type").0, 1);
        let many = TopicConfig { read_queue_nums: i32::MAX, ..wanted("TopicA1", "") };
        assert_eq!(admit(&config, &topics, many).unwrap_err().code, ResponseCode::INVALID_PARAMETER);
    }

    #[test]
    fn attributes_stay_when_a_change_does_not_name_them() {
        let (_directory, config, topics) = table();
        topics.update(admit(&config, &topics, wanted("TopicA", "+message.type=FIFO")).ok().unwrap()).unwrap();
        let next = admit(&config, &topics, TopicConfig { read_queue_nums: 3, ..wanted("TopicA", "") }).ok().unwrap();
        assert_eq!(next.attributes["message.type"], "FIFO");
        assert_eq!(next.read_queue_nums, 3);
    }

    #[test]
    fn system_topics_are_those_of_5_3_3() {
        let (_directory, config, _topics) = table();
        let mut found: Vec<String> = system_topics(&config).collect();
        found.sort();
        let mut captured = [
            "RMQ_SYS_TRANS_HALF_TOPIC",
            "BenchmarkTest",
            "TRANS_CHECK_MAX_TIME_TOPIC",
            "OFFSET_MOVED_EVENT",
            "TBW102",
            "rmq_sys_REVIVE_LOG_DefaultCluster",
            "SELF_TEST_TOPIC",
            "DefaultCluster",
            "SCHEDULE_TOPIC_XXXX",
            "RMQ_SYS_TRACE_TOPIC",
            "DefaultCluster_REPLY_TOPIC",
            "rmq_sys_wheel_timer",
            "CHECKPOINT_TOPIC",
            "rmq_sys_SYNC_BROKER_MEMBER_broker-a",
            "RMQ_SYS_TRANS_OP_HALF_TOPIC",
            "broker-a",
        ];
        captured.sort_unstable();
        assert_eq!(found, captured);
    }

    #[test]
    fn the_json_of_one_topic_is_javas() {
        let topic = TopicConfig {
            attributes: [("message.type".to_owned(), "FIFO".to_owned())].into_iter().collect(),
            read_queue_nums: 8,
            write_queue_nums: 8,
            ..wanted("TopicAttr", "")
        };
        assert_eq!(
            String::from_utf8(json::to_vec(&topic)).unwrap(),
            r#"{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"TopicAttr","topicSysFlag":0,"writeQueueNums":8}"#
        );
    }
}
