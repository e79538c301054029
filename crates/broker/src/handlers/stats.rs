//! How things stand, for tools: topics, groups, progress, counters, queue entries. 43, 45, 202, 208, 300, 303, 315, 317, 321, 343.
//!
//! Everything is read at the moment of asking and changes nothing. Java: `AdminBrokerProcessor`.

use std::sync::Arc;

use ferromq_protocol::body::{
    BrokerStatsData, ConsumeQueueEntry, ConsumeQueueReply, ConsumeStats, ConsumeStatsList, ConsumeTimeSpanReply,
    GroupList, MessageQueue, OffsetWrapper, QueueTimeSpan, SubscriptionData, Table, TopicList, TopicOffset, TopicStats,
};
use ferromq_protocol::header::{
    BrokerConsumeStatsRequest, BrokerStatsRequest, ConsumeStatsRequest, ConsumeTimeSpanRequest,
    QueryConsumeQueueRequest, TopicConsumersRequest, TopicStatsRequest, TopicsByConsumerRequest,
};
use ferromq_protocol::{QueueId, QueueOffset, Reply, ResponseCode, TopicName};
use ferromq_store::{Effort, ReadError, Store};

use crate::clients::Clients;
use crate::clock::now_ms;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::local_time;
use crate::master_duties::MasterDuties;
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topics::{Topic, Topics};

/// Most queue entries of one answer to 321. Java has no limit.
const ENTRIES_MAX: i32 = 10_000;

/// What figures about topics and groups are taken from.
pub(crate) struct Figures {
    pub broker_name: String,
    /// `host:port` as clients know it.
    pub address: String,
    pub cluster: String,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub statistics: Arc<Statistics>,
    pub master_duties: Arc<MasterDuties>,
    pub store: Arc<Store>,
}

impl Figures {
    /// GET_TOPIC_STATS_INFO.
    pub(crate) fn topic(&self, request: &TopicStatsRequest) -> Result<Reply, Refusal> {
        let topic = self.topic_or_refuse(&request.topic)?;
        let mut stats =
            TopicStats { topic_put_tps: self.statistics.sent_per_second(&request.topic), ..TopicStats::default() };
        for queue in queues(topic.read_queue_nums.max(topic.write_queue_nums)) {
            let bounds = self.store.queue_bounds(&request.topic, queue).unwrap_or_default();
            let offset = TopicOffset {
                min_offset: bounds.min.as_i64(),
                max_offset: bounds.max.as_i64(),
                last_update_timestamp: self.time_before(&request.topic, queue, bounds.max)?.unwrap_or(0),
            };
            stats.offset_table.insert(self.message_queue(&request.topic, queue), offset);
        }
        json(&stats)
    }

    /// GET_CONSUME_STATS. Topics that an online group no longer subscribes to are left out.
    pub(crate) fn group(&self, request: &ConsumeStatsRequest) -> Result<Reply, Refusal> {
        let group = &request.consumer_group;
        let listed =
            request.topic_list.as_deref().unwrap_or_default().split(';').filter(|topic| !topic.trim().is_empty());
        let mut wanted: Vec<TopicName> = listed.map(TopicName::from).collect();
        if let Some(topic) = request.topic.clone().filter(|topic| !topic.trim().is_empty()) {
            wanted = vec![topic];
        } else if wanted.is_empty() {
            wanted = self.offsets.topics_of(group);
        }
        let subscribed = self.clients.consumer_group(group).filter(|group| !group.subscriptions.is_empty());
        let mut stats = ConsumeStats::default();
        for topic in wanted {
            if subscribed.as_ref().is_some_and(|group| group.subscription(&topic).is_none()) {
                continue;
            }
            let Some(config) = self.topics.find(&topic) else { continue };
            self.add_progress(&mut stats, group, &config, true)?;
        }
        json(&stats)
    }

    /// GET_BROKER_CONSUME_STATS: every group with every topic it has offsets for, groups without any as empty lists.
    pub(crate) fn all_groups(&self, request: &BrokerConsumeStatsRequest) -> Result<Reply, Refusal> {
        let mut list = ConsumeStatsList { broker_addr: Some(self.address.clone()), ..ConsumeStatsList::default() };
        let mut groups: Vec<_> = self.groups.all().iter().map(|group| group.group_name.clone()).collect();
        groups.sort_unstable_by(|a, b| (**a).cmp(b));
        for group in groups {
            let mut of_group = Vec::new();
            for topic in self.offsets.topics_of(&group) {
                let Some(config) = self.topics.find(&topic).filter(|topic| topic.order || !request.is_order) else {
                    continue;
                };
                let mut stats = ConsumeStats::default();
                self.add_progress(&mut stats, &group, &config, false)?;
                list.total_diff += stats
                    .offset_table
                    .values()
                    .map(|offset| offset.broker_offset - offset.consumer_offset)
                    .sum::<i64>();
                of_group.push(stats);
            }
            list.consume_stats_list.push(Table::from_iter([(group.to_string(), of_group)]));
        }
        json(&list)
    }

    fn add_progress(
        &self,
        stats: &mut ConsumeStats,
        group: &str,
        topic: &Topic,
        with_pulls: bool,
    ) -> Result<(), ReadError> {
        let name = &topic.topic_name;
        for queue in queues(topic.read_queue_nums) {
            let max = self.store.queue_bounds(name, queue).unwrap_or_default().max;
            let consumed = self.offsets.committed(name, group, queue).unwrap_or_default();
            let pulled =
                if with_pulls { self.offsets.pulled(name, group, queue).unwrap_or_default() } else { QueueOffset(0) };
            let offset = OffsetWrapper {
                broker_offset: max.as_i64(),
                consumer_offset: consumed.as_i64(),
                pull_offset: pulled.as_i64(),
                last_timestamp: self.time_before(name, queue, consumed)?.unwrap_or(0),
            };
            stats.offset_table.insert(self.message_queue(name, queue), offset);
        }
        stats.consume_tps += self.statistics.delivered_per_second(name, group);
        Ok(())
    }

    /// QUERY_TOPIC_CONSUME_BY_WHO: groups with offsets for the topic. 5.3.3 adds the topic's own name while somebody subscribes to it.
    pub(crate) fn groups_of_topic(&self, request: &TopicConsumersRequest) -> Result<Reply, Refusal> {
        let mut group_list = self.offsets.groups_of(&request.topic);
        for online in self.clients.groups_subscribed_to(&request.topic) {
            if !group_list.iter().any(|known| **known == *online) {
                group_list.push(online);
            }
        }
        json(&GroupList { group_list })
    }

    /// QUERY_TOPICS_BY_CONSUMER: topics with offsets of the group.
    pub(crate) fn topics_of_group(&self, request: &TopicsByConsumerRequest) -> Result<Reply, Refusal> {
        json(&TopicList { broker_addr: Some(self.address.clone()), topic_list: self.offsets.topics_of(&request.group) })
    }

    /// QUERY_CONSUME_TIME_SPAN.
    pub(crate) fn time_span(&self, request: &ConsumeTimeSpanRequest) -> Result<Reply, Refusal> {
        let topic = self.topic_or_refuse(&request.topic)?;
        let mut reply = ConsumeTimeSpanReply::default();
        for queue in queues(topic.write_queue_nums) {
            let bounds = self.store.queue_bounds(&request.topic, queue).unwrap_or_default();
            let min = self.store.earliest_store_time(&request.topic, queue, Effort::Full)?.unwrap_or(-1);
            let max = self.time_before(&request.topic, queue, bounds.max)?.unwrap_or(-1);
            let consumed = self.offsets.committed(&request.topic, &request.group, queue).unwrap_or_default();
            let consume = if consumed > QueueOffset(0) {
                self.time_before(&request.topic, queue, consumed)?.unwrap_or(-1)
            } else {
                min
            };
            let next = if consumed < bounds.max {
                self.store.store_time_at(&request.topic, queue, consumed, Effort::Full)?
            } else {
                None
            };
            reply.consume_time_span_set.push(QueueTimeSpan {
                message_queue: self.message_queue(&request.topic, queue),
                min_time_stamp: min,
                min_time_stamp_str: local_time::text(min),
                max_time_stamp: max,
                max_time_stamp_str: local_time::text(max),
                consume_time_stamp: consume,
                consume_time_stamp_str: local_time::text(consume),
                delay_time: next.map_or(0, |next| now_ms().saturating_sub(next)),
            });
        }
        json(&reply)
    }

    /// QUERY_CONSUME_QUEUE. The remark of a success is what Java forgets to clear.
    pub(crate) fn queue_entries(&self, request: &QueryConsumeQueueRequest) -> Result<Reply, Refusal> {
        let topic = &request.topic;
        if !self.topics.contains(topic) {
            return Err(Refusal::system_error(format!("{}@{topic} is not exist!", request.queue_id)));
        }
        let first = u64::try_from(request.index).unwrap_or(0);
        let found = u32::try_from(request.queue_id)
            .ok()
            .map(QueueId)
            .and_then(|queue| Some((queue, self.store.queue_bounds(topic, queue)?)));
        let Some((queue, bounds)) = found.filter(|(_, bounds)| first < bounds.max.0) else {
            let remark = format!("Index {} of {}@{topic} is not exist!", request.index, request.queue_id);
            return Ok(Reply::ok().remark(remark));
        };
        let group = request.consumer_group.as_deref().and_then(|group| self.clients.consumer_group(group));
        let count = u64::try_from(request.count.clamp(0, ENTRIES_MAX)).unwrap_or(0);
        let entries = (first.max(bounds.min.0)..bounds.max.0.min(first.saturating_add(count)))
            .filter_map(|offset| self.store.queue_entry(topic, queue, QueueOffset(offset), Effort::Full).transpose())
            .map(|entry| {
                entry.map(|entry| ConsumeQueueEntry {
                    physic_offset: entry.physical.as_i64(),
                    physic_size: i32::try_from(entry.len).unwrap_or(i32::MAX),
                    tags_code: entry.tags_code,
                    ..ConsumeQueueEntry::default()
                })
            })
            .collect::<Result<_, _>>()?;
        let body = ConsumeQueueReply {
            // The text of Java's null: conditions are not kept by group here.
            filter_data: group.is_some().then(|| "null".to_owned()),
            min_queue_index: bounds.min.as_i64(),
            max_queue_index: bounds.max.as_i64(),
            queue_data: entries,
            subscription_data: group
                .and_then(|group| group.subscription(topic))
                .map(|data| SubscriptionData::clone(&data)),
        };
        Ok(Reply::ok().remark("not set any response code").json_body(&body))
    }

    /// VIEW_BROKER_STATS_DATA.
    pub(crate) fn counter(&self, request: &BrokerStatsRequest) -> Result<Reply, Refusal> {
        let data: Option<BrokerStatsData> =
            self.statistics.view(&request.stats_name, &request.stats_key, &self.cluster);
        match data {
            Some(data) => json(&data),
            None => Err(Refusal::system_error(format!(
                "The stats <{}> <{}> not exist",
                request.stats_name, request.stats_key
            ))),
        }
    }

    /// GET_ALL_CONSUMER_OFFSET.
    pub(crate) fn consumer_offsets(&self) -> Result<Reply, Refusal> {
        json(&self.offsets.snapshot())
    }

    /// GET_ALL_DELAY_OFFSET.
    pub(crate) fn delay_offsets(&self) -> Result<Reply, Refusal> {
        json(&self.master_duties.held()?.delays.table())
    }

    fn topic_or_refuse(&self, topic: &str) -> Result<Arc<Topic>, Refusal> {
        self.topics
            .find(topic)
            .ok_or_else(|| Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist")))
    }

    /// Store time of the message before an offset.
    fn time_before(&self, topic: &str, queue: QueueId, offset: QueueOffset) -> Result<Option<i64>, ReadError> {
        let Some(before) = offset.0.checked_sub(1) else { return Ok(None) };
        self.store.store_time_at(topic, queue, QueueOffset(before), Effort::Full)
    }

    fn message_queue(&self, topic: &str, queue: QueueId) -> MessageQueue {
        MessageQueue::new(topic, self.broker_name.as_str(), queue.as_i32())
    }
}

/// Queue ids of a topic with so many queues.
pub(super) fn queues(count: i32) -> impl Iterator<Item = QueueId> {
    (0..u32::try_from(count).unwrap_or(0)).map(QueueId)
}

fn json<T: serde::Serialize>(body: &T) -> Result<Reply, Refusal> {
    Ok(Reply::ok().json_body(body))
}
