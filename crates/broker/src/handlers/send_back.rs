//! A consumer gives a message back: 36. It waits in the group's retry topic, behind a delay that grows with each try, or ends in the
//! dead-letter topic.
//!
//! Java: `AbstractSendMessageProcessor.consumerSendMsgBack`.

use std::net::SocketAddr;
use std::sync::Arc;

use ferromq_protocol::body::SubscriptionGroup;
use ferromq_protocol::header::SendBackRequest;
use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::{GroupName, PhysicalOffset, QueueId, Reply, ResponseCode, topics as topic_names};
use ferromq_store::{AppendError, DelayLevels, Effort, NotSafe, Round, Store};

use crate::acknowledge::{Acknowledgement, BrokenPromise, Promise};
use crate::clock::now_ms;
use crate::destination::{self, DelayQueue, Destination};
use crate::groups::Groups;
use crate::ha::{MasterCopies, NotHeld};
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::places;
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topics::{self, Topic, Topics, perm};

/// First level of a retry, when the consumer leaves it to the broker: 10 s by default.
const FIRST_LEVEL: i32 = 3;

/// The parts that giving a message back uses.
pub(crate) struct SendBackPath {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub statistics: Arc<Statistics>,
    pub store: Arc<Store>,
    pub copies: Arc<MasterCopies>,
    pub levels: DelayLevels,
    /// Stored with every message.
    pub store_host: SocketAddr,
}

/// Where the message goes.
struct Target {
    topic: Arc<Topic>,
    queue: QueueId,
    destination: Destination,
}

impl SendBackPath {
    /// CONSUMER_SEND_MSG_BACK.
    pub(crate) fn send_back(
        &self,
        round: &Round<'_>,
        origin: &Origin,
        request: &SendBackRequest,
        effort: Effort,
    ) -> Result<Promise<SendBackAnswer>, Refusal> {
        let group = self.admit(request)?;
        let retry_queues = match u32::try_from(group.retry_queue_nums) {
            Ok(count) if count > 0 => count,
            // A group without retry queues does not want its failures back.
            _ => return Ok(Promise { answer: SendBackAnswer, end: None, topic: None }),
        };
        let sys_flag = topics::unit_flag(request.unit_mode, true);
        let retry_topic = topic_names::retry_topic(&request.group);
        let retry =
            self.topics.find_or_create(&retry_topic, group.retry_queue_nums, perm::READ_WRITE, false, sys_flag)?;
        if retry.perm & perm::WRITE == 0 {
            return Err(Refusal::no_permission(format!("the topic[{retry_topic}] sending message is forbidden")));
        }
        let found = match PhysicalOffset::try_from(request.offset) {
            Ok(at) => self.store.message_at(at, effort)?,
            Err(_) => None,
        };
        let nothing = || Refusal::system_error(format!("look message by offset failed, {}", request.offset));
        let bytes = found.ok_or_else(nothing)?;
        let record = Record::parse(&bytes).map_err(|_| nothing())?;
        // A consumer gives back what it has pulled, so its queue has it; whatever else lies there is not a message.
        if !places::is_in_its_queue(&self.store, &record, effort)? {
            return Err(nothing());
        }

        let tries = record.reconsume_times();
        let tries_max = destination::tries_max(request.max_reconsume_times, origin.version, &group);
        let target = if tries >= tries_max || request.delay_level < 0 {
            let dead_letters = topic_names::dead_letter_topic(&request.group);
            let topic = self.topics.find_or_create(&dead_letters, 1, perm::READ_WRITE, false, 0)?;
            Target { topic, queue: QueueId(0), destination: Destination::GroupTopic { level: 0 } }
        } else {
            let level = if request.delay_level == 0 { FIRST_LEVEL.saturating_add(tries) } else { request.delay_level };
            // The topic may be older than the group's number of retry queues.
            let queue = QueueId(now_ms().unsigned_abs() as u32 % retry_queues);
            let queue = places::readable_queue(&self.topics, &retry.topic_name, queue);
            let delay = DelayQueue::of(level, &self.levels);
            let destination = delay.map_or(Destination::GroupTopic { level }, Destination::Delay);
            Target { topic: retry, queue, destination }
        };
        if let Some(error) = self.topics.save_failure(&target.topic) {
            return Err(error.into());
        }
        if self.copies.admits().is_err() {
            return Err(Refusal::system_error("IN_SYNC_REPLICAS_NOT_ENOUGH"));
        }
        let end = self.append(round, &record, &target)?;
        self.statistics
            .sent_back(&record.property(names::RETRY_TOPIC).unwrap_or_else(|| record.topic().into()), &request.group);
        Ok(Promise { answer: SendBackAnswer, end: Some(end), topic: Some(target.topic) })
    }

    fn admit(&self, request: &SendBackRequest) -> Result<Arc<SubscriptionGroup>, Refusal> {
        let known = self.groups.find_or_create(&request.group);
        let Some(group) = known.filter(|_| GroupName::can_be_retried(&request.group)) else {
            // The blank before the line end is Java's.
            let remark = format!("subscription group not exist, {} ", request.group);
            return Err(Refusal::with_faq(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, &remark));
        };
        let config = self.config.current();
        if config.broker_permission & perm::WRITE == 0 {
            return Err(Refusal::no_permission(format!(
                "the broker[{}] sending message is forbidden",
                config.advertised_host()
            )));
        }
        Ok(group)
    }

    /// Writes the new copy, into the schedule topic if it is to wait.
    fn append(&self, round: &Round<'_>, record: &Record<'_>, target: &Target) -> Result<PhysicalOffset, Refusal> {
        let mut properties = Properties::parse(&record.properties());
        destination::set_origin(&mut properties, record);
        let (topic, queue_id) = target.destination.divert(&mut properties, &target.topic.topic_name, target.queue);
        let message = NewMessage {
            store_host: self.store_host,
            reconsume_times: record.reconsume_times().saturating_add(1),
            ..NewMessage::copy_of(record, topic, queue_id, properties.as_str())
        };
        match round.append_again(&message) {
            Ok(appended) => {
                self.statistics.stored(topic, &appended);
                Ok(appended.end)
            }
            Err(error) => Err(Refusal::system_error(put_status(&error))),
        }
    }
}

/// The answer to a consumer that has given a message back.
pub(crate) struct SendBackAnswer;

impl Acknowledgement for SendBackAnswer {
    fn reply(self, kept: Result<(), BrokenPromise>) -> Reply {
        match kept {
            Ok(()) => Reply::ok(),
            Err(BrokenPromise::Log(NotSafe::DiskTimedOut | NotSafe::Failed)) => {
                Reply::error(ResponseCode::SYSTEM_ERROR, "FLUSH_DISK_TIMEOUT")
            }
            Err(BrokenPromise::Copies(NotHeld::TimedOut | NotHeld::Over)) => {
                Reply::error(ResponseCode::SYSTEM_ERROR, "FLUSH_SLAVE_TIMEOUT")
            }
            // The copy is stored, but a restart may not know its topic.
            Err(BrokenPromise::Topic(error)) => Refusal::from(error).into_reply(),
        }
    }
}

/// The name of Java's `PutMessageStatus`, which is the whole remark there.
fn put_status(error: &AppendError) -> &'static str {
    match error {
        AppendError::Record(_)
        | AppendError::TopicName { .. }
        | AppendError::LargerThanSegment { .. }
        | AppendError::BatchTooLarge { .. }
        | AppendError::MixedBatch => "MESSAGE_ILLEGAL",
        AppendError::DiskFull { .. }
        | AppendError::QueueBehind { .. }
        | AppendError::Poisoned { .. }
        | AppendError::NotTheWriter { .. }
        | AppendError::Closed => "SERVICE_NOT_AVAILABLE",
        AppendError::Extend { .. } => "CREATE_MAPPED_FILE_FAILED",
        AppendError::CannotRead { .. } => "UNKNOWN_ERROR",
    }
}
