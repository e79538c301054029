//! Moving a group's offsets on its behalf: 222, 314.
//!
//! By default the broker remembers the new offsets and hands them to the group's next pulls; with `useServerSideResetOffset=false` it
//! tells the group's clients, as brokers before 5.2 do. What the broker remembers is answered when it is on disk. Java: `AdminBrokerProcessor`, `Broker2Client.resetOffset`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferromq_protocol::body::{MessageQueue, ResetOffsetBody, ResetOffsetBodyForC, ResetOffsetEntry};
use ferromq_protocol::header::{CloneGroupOffsetRequest, ResetOffsetRequest};
use ferromq_protocol::{Command, Language, QueueId, QueueOffset, Reply, RequestCode, ResponseCode, TopicName};
use ferromq_store::{Boundary, Effort, ReadError, Store};
use tracing::{info, warn};

use super::offsets::refuse_own_group;
use super::stats::queues;
use crate::answer::Answer;
use crate::clients::Clients;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::topics::{Topic, Topics};

/// Client version that understands RESET_CONSUMER_CLIENT_OFFSET. Java: `MQVersion.Version.V3_0_7_SNAPSHOT`.
const VERSION_3_0_7: i32 = 28;

fn too_many_offsets() -> Refusal {
    Refusal::new(ResponseCode::SYSTEM_BUSY, "[OVERLOAD]this broker keeps no more offsets")
}

/// The parts that moving offsets uses.
pub(crate) struct ResetPath {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub store: Arc<Store>,
}

impl ResetPath {
    /// INVOKE_BROKER_TO_RESET_OFFSET.
    pub(crate) fn reset(&self, origin: &Origin, request: &ResetOffsetRequest) -> Result<Answer, Refusal> {
        refuse_own_group(&request.group)?;
        let Some(topic) = self.topics.find(&request.topic) else {
            return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {} does not exist", request.topic)));
        };
        info!(group = %request.group, topic = %request.topic, timestamp = request.timestamp, force = request.is_force, peer = %origin.address, "offset reset asked for");
        let server_side = self.config.current().use_server_side_reset_offset;
        let offsets = if server_side {
            self.remember(request, &topic)?
        } else {
            self.tell_clients(request, &topic, origin.language)?
        };
        let reply = Reply::ok().json_body(&self.body(&request.topic, &offsets));
        if !server_side {
            return Ok(reply.into());
        }
        Ok(self.saved(reply))
    }

    /// The reply, once all offsets are on disk.
    fn saved(&self, reply: Reply) -> Answer {
        let offsets = Arc::clone(&self.offsets);
        Answer::when_saved(reply, move |done| offsets.when_all_saved(done))
    }

    /// Leaves the offsets for the group's next pulls.
    fn remember(&self, request: &ResetOffsetRequest, topic: &Topic) -> Result<BTreeMap<QueueId, QueueOffset>, Refusal> {
        if !self.groups.contains(&request.group) {
            return Err(Refusal::new(
                ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("Group {} does not exist", request.group),
            ));
        }
        let mut targets = BTreeMap::new();
        match u32::try_from(request.queue_id) {
            Ok(queue) => {
                let queue = QueueId(queue);
                targets.insert(queue, self.target(request, queue)?);
            }
            Err(_) => {
                for queue in queues(topic.read_queue_nums) {
                    targets.insert(queue, self.offset_at(&request.topic, queue, request.timestamp)?);
                }
            }
        }
        for (queue, offset) in &targets {
            if !self.offsets.reset(&request.topic, &request.group, *queue, *offset) {
                return Err(too_many_offsets());
            }
        }
        Ok(targets)
    }

    /// Where one queue is to go: to a given offset inside it, or by time.
    fn target(&self, request: &ResetOffsetRequest, queue: QueueId) -> Result<QueueOffset, Refusal> {
        let Some(asked) = request.offset.filter(|offset| *offset != -1) else {
            return Ok(self.offset_at(&request.topic, queue, request.timestamp)?);
        };
        let bounds = self.store.queue_bounds(&request.topic, queue).unwrap_or_default();
        QueueOffset::try_from(asked).ok().filter(|offset| (bounds.min..=bounds.max).contains(offset)).ok_or_else(|| {
            Refusal::system_error(format!(
                "Target offset {asked} not in consume queue range [{}-{}]",
                bounds.min, bounds.max
            ))
        })
    }

    /// The offset for a time; before 1970 means the end.
    fn offset_at(&self, topic: &str, queue: QueueId, timestamp: i64) -> Result<QueueOffset, ReadError> {
        if timestamp < 0 {
            return Ok(self.store.queue_bounds(topic, queue).unwrap_or_default().max);
        }
        self.store.offset_by_time(topic, queue, timestamp, Boundary::Lower, Effort::Full)
    }

    /// Sends the offsets to every member of the group, one-way. Without force a queue only moves backwards.
    fn tell_clients(
        &self,
        request: &ResetOffsetRequest,
        topic: &Topic,
        asked_by: Language,
    ) -> Result<BTreeMap<QueueId, QueueOffset>, Refusal> {
        let mut targets = BTreeMap::new();
        for queue in queues(topic.write_queue_nums) {
            let Some(committed) = self.offsets.committed(&request.topic, &request.group, queue) else {
                return Err(Refusal::system_error(format!("THe consumer group <{}> not exist", request.group)));
            };
            let wanted = self.offset_at(&request.topic, queue, request.timestamp)?;
            targets.insert(queue, if request.is_force { wanted } else { wanted.min(committed) });
        }
        let members = self.clients.consumers(&request.group);
        if let Some(old) = members.iter().find(|member| member.version < VERSION_3_0_7) {
            return Err(Refusal::system_error(format!(
                "the client does not support this feature. version={}",
                old.version
            )));
        }
        if members.is_empty() {
            return Err(Refusal::new(
                ResponseCode::CONSUMER_NOT_ONLINE,
                format!(
                    "Consumer not online, so can not reset offset, Group: {} Topic: {} Timestamp: {}",
                    request.group, request.topic, request.timestamp
                ),
            ));
        }
        let header = ResetOffsetRequest {
            group: request.group.clone(),
            topic: request.topic.clone(),
            timestamp: request.timestamp,
            queue_id: -1,
            offset: None,
            is_force: false,
        };
        let notice = Command::request(RequestCode::RESET_CONSUMER_CLIENT_OFFSET, &header);
        // The form follows the tool that asks, not the client that is told; Java does so too.
        let notice = match asked_by {
            Language::CPP => notice.with_json_body(&self.body_for_c(&request.topic, &targets)),
            _ => notice.with_json_body(&self.body(&request.topic, &targets)),
        };
        for member in members {
            if let Err(error) = member.connection.oneway(notice.clone()) {
                warn!(group = %request.group, client = %member.client_id, %error, "a member cannot be told of its new offsets");
            }
        }
        Ok(targets)
    }

    fn body(&self, topic: &TopicName, offsets: &BTreeMap<QueueId, QueueOffset>) -> ResetOffsetBody {
        let broker = self.config.broker_name().to_owned();
        let entry = |(queue, offset): (&QueueId, &QueueOffset)| {
            (MessageQueue::new(topic.clone(), broker.as_str(), queue.as_i32()), offset.as_i64())
        };
        ResetOffsetBody { offset_table: offsets.iter().map(entry).collect() }
    }

    fn body_for_c(&self, topic: &TopicName, offsets: &BTreeMap<QueueId, QueueOffset>) -> ResetOffsetBodyForC {
        let broker_name = self.config.broker_name().to_owned();
        let entry = |(queue, offset): (&QueueId, &QueueOffset)| ResetOffsetEntry {
            broker_name: broker_name.clone(),
            topic: topic.clone(),
            queue_id: queue.as_i32(),
            offset: offset.as_i64(),
        };
        ResetOffsetBodyForC { offset_table: offsets.iter().map(entry).collect() }
    }

    /// CLONE_GROUP_OFFSET: the offsets of one group in one topic, or in all its topics, become another group's too.
    pub(crate) fn clone(&self, request: CloneGroupOffsetRequest) -> Result<Answer, Refusal> {
        // Java takes any name, and then cannot find the entry again in its own file.
        request.dest_group.validate().map_err(|error| Refusal::invalid_parameter(error.to_string()))?;
        refuse_own_group(&request.dest_group)?;
        let topics = match request.topic.filter(|topic| !topic.trim().is_empty()) {
            Some(topic) => vec![topic],
            None => self.offsets.topics_of(&request.src_group),
        };
        for topic in topics.iter().filter(|topic| self.topics.contains(topic)) {
            if !self.offsets.copy(topic, &request.src_group, &request.dest_group) {
                return Err(too_many_offsets());
            }
        }
        Ok(self.saved(Reply::ok()))
    }
}
