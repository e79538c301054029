//! Sending: codes 10, 310 and 320, from the typed header to the appended record and its reply.
//!
//! Checks come in Java's order with Java's codes and remarks (`SendMessageProcessor`). What the reply waits for is told with it
//! ([`Promise`]).

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::header::{SendReply, SendRequest};
use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{BatchItems, NewMessage, OffsetMessageId, SysFlag, TransactionKind};
use ferromq_protocol::{ByteString, GroupName, QueueId, QueueOffset, Reply, ResponseCode, topics as topic_names};
use ferromq_store::{AppendError, AppendedMessage, DelayLevels, NotSafe, Round};

use crate::acknowledge::{Acknowledgement, BrokenPromise, Promise};
use crate::admission::{Admission, Busy, BusyLimits};
use crate::clock::{elapsed_ms, now_ms};
use crate::config::BrokerConfig;
use crate::destination::{self, DelayQueue, Destination};
use crate::groups::Groups;
use crate::ha::{MasterCopies, NotHeld};
use crate::handlers::send_properties::{AddedProperties, NotANumber, SendProperties};
use crate::live_config::LiveConfig;
use crate::master_duties::{Held, MasterDuties};
use crate::peer::Origin;
use crate::persistence::SaveError;
use crate::queue_locks::QueueLocks;
use crate::recall_handle::RecallHandle;
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topics::{self, CreateOnSend, NotMade, Topic, Topics, perm};

/// The parts a send uses.
pub(crate) struct SendParts {
    pub config: Arc<LiveConfig>,
    pub topics: Arc<Topics>,
    pub groups: Arc<Groups>,
    pub locks: Arc<QueueLocks>,
    pub statistics: Arc<Statistics>,
    pub master_duties: Arc<MasterDuties>,
    pub admission: Arc<Admission>,
    pub copies: Arc<MasterCopies>,
    pub levels: DelayLevels,
    /// Stored with every message and part of its id.
    pub store_host: SocketAddr,
}

/// Everything a send goes through.
pub(crate) struct SendPath {
    parts: SendParts,
    /// Ext fields of every reply.
    reply_tags: ReplyTags,
    added: AddedProperties,
    random: AtomicU64,
}

impl SendPath {
    pub(crate) fn new(parts: SendParts) -> SendPath {
        let settings = parts.config.current();
        let region = ByteString::from(settings.region_id.as_str());
        let reply_tags = [(names::MSG_REGION, region), (names::TRACE_SWITCH, settings.trace_on.to_string().into())];
        let mine = reply_tags.iter().map(|(name, value)| (*name, &**value));
        let cluster = (names::CLUSTER, settings.broker_cluster_name.as_str());
        let added = AddedProperties::new(mine.chain([cluster]), parts.store_host);
        SendPath { reply_tags, added, random: AtomicU64::new(now_ms().unsigned_abs()), parts }
    }

    /// SEND_MESSAGE, SEND_MESSAGE_V2 and SEND_BATCH_MESSAGE.
    pub(crate) fn send(
        &self,
        round: &Round<'_>,
        origin: &Origin,
        request: &SendRequest,
        body: &[u8],
    ) -> Result<Promise<SendAnswer>, Refusal> {
        let config = self.parts.config.current();
        let topic = self.find_or_create_topic(&config, origin, request)?;
        self.refuse_overload(&config, round)?;
        self.parts.copies.admits().map_err(|few| self.refuse(ResponseCode::SYSTEM_ERROR, few.to_string()))?;
        if body.is_empty() {
            return Err(Refusal::system_error("the message body is empty"));
        }
        let submission = Submission { config: &config, round, origin, request, body };
        if request.batch { self.send_batch(&submission, topic) } else { self.send_single(&submission, topic) }
    }

    /// The topic that is sent to, when it takes messages; an unknown one is created, if it may be. Before the message itself is looked at: one
    /// that is refused then leaves a new topic behind. Java: AbstractSendMessageProcessor.msgCheck, likewise.
    pub(super) fn find_or_create_topic(
        &self,
        config: &BrokerConfig,
        origin: &Origin,
        request: &SendRequest,
    ) -> Result<Arc<Topic>, Refusal> {
        let accept_from = config.start_accept_send_request_time_stamp;
        if accept_from > 0 && now_ms() < accept_from {
            return Err(
                self.refuse(ResponseCode::SYSTEM_ERROR, format!("broker unable to service, until {accept_from}"))
            );
        }
        let known = self.parts.topics.find(&request.topic);
        if config.broker_permission & perm::WRITE == 0 && known.as_ref().is_some_and(|topic| topic.order) {
            return Err(self.refuse(
                ResponseCode::NO_PERMISSION,
                format!("the broker[{}] sending message is forbidden", config.advertised_host()),
            ));
        }
        let topic = match known {
            Some(topic) => {
                self.refuse_closed_topic(&request.topic)?;
                topic
            }
            None => self.create_topic(request)?,
        };
        let queue_count = topic.write_queue_nums.max(topic.read_queue_nums);
        if request.queue_id >= queue_count {
            return Err(self.refuse(
                ResponseCode::INVALID_PARAMETER,
                format!(
                    "request queueId[{}] is illegal, {} Producer: {}",
                    request.queue_id,
                    topics::describe(&topic),
                    origin.address
                ),
            ));
        }
        if let Some(error) = self.parts.topics.save_failure(&topic) {
            return Err(self.refuse(ResponseCode::SERVICE_NOT_AVAILABLE, unsaved(&error)));
        }
        Ok(topic)
    }

    /// Says "later" while the disk does not keep up.
    fn refuse_overload(&self, config: &BrokerConfig, round: &Round<'_>) -> Result<(), Refusal> {
        if round.is_pool_empty() {
            return Err(self.refuse(ResponseCode::SYSTEM_BUSY, Busy::Pool.to_string()));
        }
        let limits = BusyLimits {
            append_ms: config.os_page_cache_busy_time_out_mills,
            waiting: config.send_thread_pool_queue_capacity,
        };
        self.parts
            .admission
            .check(&limits, elapsed_ms)
            .map_err(|busy| self.refuse(ResponseCode::SYSTEM_BUSY, busy.to_string()))
    }

    fn refuse_closed_topic(&self, topic: &str) -> Result<(), Refusal> {
        if topic_names::is_closed_to_producers(topic) {
            return Err(
                self.refuse(ResponseCode::NO_PERMISSION, format!("Sending message to topic[{topic}] is forbidden."))
            );
        }
        Ok(())
    }

    /// Names in the table have been checked when they got there; only unknown ones are checked here.
    fn create_topic(&self, request: &SendRequest) -> Result<Arc<Topic>, Refusal> {
        if let Err(error) = request.topic.validate() {
            return Err(self.refuse(ResponseCode::INVALID_PARAMETER, error.to_string()));
        }
        self.refuse_closed_topic(&request.topic)?;
        let retry = topic_names::is_retry(&request.topic);
        let topic_sys_flag = topics::unit_flag(request.unit_mode, retry);
        let wish = CreateOnSend {
            topic: &request.topic,
            default_topic: &request.default_topic,
            queue_count: request.default_topic_queue_nums,
            topic_sys_flag,
        };
        match self.parts.topics.create_on_send(&wish) {
            Ok(Some(topic)) => Ok(topic),
            Ok(None) if retry => self.make(&request.topic, topic_sys_flag),
            Err(why @ (NotMade::Full(_) | NotMade::OnSlave(_))) => Err(self.not_made(why)),
            // What is being deleted does not exist; who tries again makes it anew.
            Ok(None) | Err(NotMade::BeingDeleted(_)) => {
                Err(Refusal::topic_not_exist(&request.topic).header(self.reply_tags.clone()))
            }
        }
    }

    /// A retry or dead-letter topic.
    fn make(&self, topic: &str, topic_sys_flag: i32) -> Result<Arc<Topic>, Refusal> {
        let made = self.parts.topics.find_or_create(topic, 1, perm::READ_WRITE, false, topic_sys_flag);
        made.map_err(|why| self.not_made(why))
    }

    fn not_made(&self, why: NotMade) -> Refusal {
        Refusal::from(why).header(self.reply_tags.clone())
    }

    fn send_single(&self, submission: &Submission<'_>, topic: Arc<Topic>) -> Result<Promise<SendAnswer>, Refusal> {
        let request = submission.request;
        let properties = SendProperties::of(request.properties.as_deref().unwrap_or_default());
        let route = self.route(submission, &properties, topic)?;
        with_text(|text| {
            let own_place = (route.topic.topic_name.as_str(), route.queue);
            let made_key = properties.unique_key.is_none().then(|| self.added.unique_key());
            self.added.write(text, &properties, route.destination, own_place, made_key.as_deref());
            let (topic, queue) = route.destination.place(own_place.0, own_place.1);
            let mut message = NewMessage { properties: text, ..self.message(submission, topic, queue) };
            if properties.half {
                // A half is visible in its own topic, where the broker reads it; a retry in its own.
                message.sys_flag = message.sys_flag.with_transaction(TransactionKind::None);
            }
            let appended = self.append(submission, &message)?;
            if let Some(duties) = &route.half_for {
                duties.transactions.began(&appended, request.born_timestamp, properties.immunity);
            }
            let unique_key = made_key.as_deref().or(properties.unique_key).unwrap_or_default();
            let answer = self.answer_single(&route, &appended, unique_key);
            Ok(Promise { answer, end: properties.waits.then_some(appended.end), topic: Some(route.topic) })
        })
    }

    /// What a send stores there, without properties yet.
    fn message<'m>(&self, submission: &Submission<'m>, topic: &'m str, queue_id: QueueId) -> NewMessage<'m> {
        let Submission { origin, request, body, .. } = *submission;
        NewMessage {
            topic,
            queue_id,
            flag: request.flag,
            sys_flag: SysFlag(request.sys_flag),
            born_timestamp: request.born_timestamp,
            born_host: origin.address,
            store_host: self.parts.store_host,
            reconsume_times: request.reconsume_times,
            prepared_transaction_offset: 0,
            body,
            properties: "",
        }
    }

    fn append(&self, submission: &Submission<'_>, message: &NewMessage<'_>) -> Result<AppendedMessage, Refusal> {
        let appended = self.parts.admission.append(|| submission.round.append(message), |appended| appended.end.0);
        let appended = appended.map_err(|error| self.append_refusal(submission.config, &error))?;
        self.parts.statistics.stored(message.topic, &appended);
        Ok(appended)
    }

    /// With a handle for taking the message back, if it is for a given time.
    fn answer_single(&self, route: &Route, appended: &AppendedMessage, unique_key: &str) -> SendAnswer {
        let message_id = OffsetMessageId { host: self.parts.store_host, physical_offset: appended.physical_offset };
        let transaction_id = ByteString::from(unique_key);
        let mut answer = self.answer(message_id.to_string(), route.queue, appended.queue_offset, Some(transaction_id));
        if let Destination::Timer { due_ms } = route.destination {
            let handle = RecallHandle {
                topic: route.topic.topic_name.to_string(),
                broker: self.parts.config.broker_name().to_owned(),
                due_ms,
                unique_key: unique_key.to_owned(),
            };
            answer.0.0.recall_handle = Some(handle.to_string().into());
        }
        answer
    }

    /// Dead letters before half messages, those before a delay level, and that before a timer.
    fn route(
        &self,
        submission: &Submission<'_>,
        properties: &SendProperties<'_>,
        topic: Arc<Topic>,
    ) -> Result<Route<'_>, Refusal> {
        let Submission { config, request, .. } = *submission;
        let queue = self.queue(request.queue_id, &topic)?;
        let level = properties.delay_level();
        let delay = level.ok().and_then(|level| DelayQueue::of(level, &self.parts.levels));
        let later = Destination::later(delay, || self.timer(config, properties))?;
        self.refuse_transaction_flag(properties, request)?;
        if let Some(group) = topic_names::group_of_retry_topic(&request.topic)
            && self.is_past_retries(submission, group)?
        {
            let topic = self.make(&topic_names::dead_letter_topic(group), 0)?;
            let queue = self.queue(-1, &topic)?;
            return Ok(Route { destination: Destination::GroupTopic { level: -1 }, topic, queue, half_for: None });
        }
        // Only now, because a dead letter's level does not count.
        level.map_err(|error| self.refuse_number(&error))?;
        // A retried message keeps TRAN_MSG; it must not become a half again.
        let is_retry = delay.is_some() && request.reconsume_times > 0;
        if properties.half && !is_retry {
            let half_for = Some(self.admit_half(config)?);
            return Ok(Route { destination: Destination::Half, topic, queue, half_for });
        }
        Ok(Route { destination: later, topic, queue, half_for: None })
    }

    fn send_batch(&self, submission: &Submission<'_>, topic: Arc<Topic>) -> Result<Promise<SendAnswer>, Refusal> {
        let Submission { config, round, request, body, .. } = *submission;
        let queue = self.queue(request.queue_id, &topic)?;
        if request.topic.len() > 127 {
            return Err(self.refuse(
                ResponseCode::MESSAGE_ILLEGAL,
                format!("message topic length too long {}", request.topic.len()),
            ));
        }
        if topic_names::is_retry(&request.topic) {
            return Err(self.refuse(
                ResponseCode::MESSAGE_ILLEGAL,
                format!("batch request does not support retry group {}", request.topic),
            ));
        }
        let items = BatchItems::parse(body).map_err(|error| Refusal::system_error(error.to_string()))?;
        let properties = SendProperties::of(request.properties.as_deref().unwrap_or_default());
        self.refuse_in_batch(submission, &properties)?;
        with_text(|text| {
            // Every item's properties, one behind the other; the ranges find them again.
            let mut ranges = Vec::with_capacity(items.len());
            for item in items.clone() {
                let own = SendProperties::of(&item.properties);
                self.refuse_in_batch(submission, &own)?;
                let start = text.len();
                // One without a unique key stays without: its client goes by the offset ids of the answer.
                self.added.write(text, &own, Destination::Own, (&topic.topic_name, queue), None);
                ranges.push(start..text.len());
            }
            let messages: Vec<NewMessage<'_>> = items
                .zip(&ranges)
                .map(|(item, range)| NewMessage {
                    flag: item.flag,
                    body: item.body,
                    properties: &text[range.clone()],
                    ..self.message(submission, &topic.topic_name, queue)
                })
                .collect();
            let appended = self.parts.admission.append(|| round.append_batch(&messages), |appended| appended.end.0);
            let appended = appended.map_err(|error| self.append_refusal(config, &error))?;
            let bytes = appended.physical_offsets.first().map_or(0, |first| appended.end - *first);
            self.parts.statistics.sent(&topic.topic_name, messages.len() as u64, bytes);
            let mut message_id = String::with_capacity(33 * messages.len());
            for physical_offset in &appended.physical_offsets {
                if !message_id.is_empty() {
                    message_id.push(',');
                }
                // Writing to a String cannot fail.
                let _ = write!(
                    message_id,
                    "{}",
                    OffsetMessageId { host: self.parts.store_host, physical_offset: *physical_offset }
                );
            }
            let answer =
                self.answer(message_id, queue, appended.queue_offset, properties.unique_key.map(ByteString::from));
            Ok(Promise { answer, end: properties.waits.then_some(appended.end), topic: Some(topic) })
        })
    }

    /// Clients do not batch what is to come later, or perhaps never; from one that does, consumers must not get it at once.
    fn refuse_in_batch(&self, submission: &Submission<'_>, properties: &SendProperties<'_>) -> Result<(), Refusal> {
        let level = properties.delay_level().map_err(|error| self.refuse_number(&error))?;
        let what = if level > 0 {
            "a delayed message"
        } else if properties.half {
            "a transaction message"
        } else if self.timer(submission.config, properties)?.is_some() {
            "a message for a given time"
        } else {
            return self.refuse_transaction_flag(properties, submission.request);
        };
        let remark = format!("{what} cannot be part of a batch; nothing was stored");
        Err(self.refuse(ResponseCode::MESSAGE_ILLEGAL, remark))
    }

    /// A delay level that is no number: the message would be delivered at once. Java: the exception of `Message.getDelayTimeLevel`.
    fn refuse_number(&self, error: &NotANumber<'_>) -> Refusal {
        self.refuse(ResponseCode::SYSTEM_ERROR, error.to_string())
    }

    /// The queue asked for, or any writable one for a negative id.
    pub(super) fn queue(&self, asked: i32, topic: &Topic) -> Result<QueueId, Refusal> {
        if let Ok(asked) = u32::try_from(asked) {
            return Ok(QueueId(asked));
        }
        match u32::try_from(topic.write_queue_nums) {
            Ok(count) if count > 0 => Ok(QueueId(self.next_random() % count)),
            _ => Err(Refusal::system_error(format!("topic[{}] has no writable queue", topic.topic_name))),
        }
    }

    /// Spreads sends without a queue; splitmix64 over a counter.
    fn next_random(&self) -> u32 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z >> 32) as u32
    }

    /// Whether a message that a client sends to its group's retry topic has had all its tries, or the group consumes orderly.
    /// Java: `handleRetryAndDLQ`.
    fn is_past_retries(&self, submission: &Submission<'_>, group: &str) -> Result<bool, Refusal> {
        let request = submission.request;
        let known = self.parts.groups.find_or_create(group).filter(|_| GroupName::can_be_retried(group));
        let Some(settings) = known else {
            let refusal = Refusal::with_faq(
                ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
                &format!("subscription group not exist, {group}"),
            );
            return Err(refusal.header(self.reply_tags.clone()));
        };
        let tries_max = destination::tries_max(request.max_reconsume_times, submission.origin.version, &settings);
        Ok(request.reconsume_times > tries_max || self.parts.locks.group_holds_locks(group))
    }

    /// Who keeps the transactions, if one more may begin.
    fn admit_half(&self, config: &BrokerConfig) -> Result<Held<'_>, Refusal> {
        if config.reject_transaction_message {
            return Err(self.refuse(
                ResponseCode::NO_PERMISSION,
                format!("the broker[{}] sending transaction message is forbidden", config.advertised_host()),
            ));
        }
        let duties = self
            .parts
            .master_duties
            .held()
            .map_err(|not_at_work| Refusal::from(not_at_work).header(self.reply_tags.clone()))?;
        duties
            .transactions
            .check_room()
            .map_err(|full| self.refuse(ResponseCode::SYSTEM_BUSY, format!("[OVERLOAD]{full}")))?;
        Ok(duties)
    }

    /// When the message is to be delivered, if its producer has set a time that is still to come.
    fn timer(&self, config: &BrokerConfig, properties: &SendProperties<'_>) -> Result<Option<i64>, Refusal> {
        let due_ms = properties
            .timer
            .due_ms(now_ms(), config.timer_max_delay_sec)
            .map_err(|error| self.refuse(ResponseCode::MESSAGE_ILLEGAL, error.to_string()))?;
        if due_ms.is_some() && !config.timer_wheel_enable {
            let remark = "messages for a given time are switched off here (timerWheelEnable=false); nothing was stored";
            return Err(self.refuse(ResponseCode::SYSTEM_ERROR, remark));
        }
        Ok(due_ms)
    }

    /// The flag of a half message or a rollback without the property that Java goes by: stored like that, nobody would ever see it.
    fn refuse_transaction_flag(&self, properties: &SendProperties<'_>, request: &SendRequest) -> Result<(), Refusal> {
        let kind = SysFlag(request.sys_flag).transaction();
        if !properties.half && matches!(kind, TransactionKind::Prepared | TransactionKind::Rollback) {
            let remark = "the system flag says transaction, the property TRAN_MSG does not; nothing was stored";
            return Err(self.refuse(ResponseCode::MESSAGE_ILLEGAL, remark));
        }
        Ok(())
    }

    pub(super) fn answer(
        &self,
        message_id: String,
        queue_id: QueueId,
        queue_offset: QueueOffset,
        transaction_id: Option<ByteString>,
    ) -> SendAnswer {
        let reply =
            SendReply { msg_id: message_id.into(), queue_id, queue_offset, transaction_id, ..SendReply::default() };
        SendAnswer((reply, self.reply_tags.clone()))
    }

    pub(super) fn refuse(&self, code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(code, remark).header(self.reply_tags.clone())
    }

    fn append_refusal(&self, config: &BrokerConfig, error: &AppendError) -> Refusal {
        let (code, remark) = append_failure(error, config.message_len_max());
        self.refuse(code, remark)
    }
}

/// What came, from whom, and the configuration by which it is judged from beginning to end.
#[derive(Clone, Copy)]
struct Submission<'a> {
    config: &'a BrokerConfig,
    round: &'a Round<'a>,
    origin: &'a Origin,
    request: &'a SendRequest,
    body: &'a [u8],
}

/// Where a message goes, and the topic and queue that it is for.
struct Route<'a> {
    destination: Destination,
    topic: Arc<Topic>,
    queue: QueueId,
    /// Of a half: who has to know it before they may stop.
    half_for: Option<Held<'a>>,
}

/// The answer to a send.
#[derive(Clone)]
pub(crate) struct SendAnswer(pub (SendReply, ReplyTags));

impl Acknowledgement for SendAnswer {
    fn reply(self, kept: Result<(), BrokenPromise>) -> Reply {
        let mut reply = Reply::ok().header(self.0);
        match kept {
            Ok(()) => {}
            // To a producer both mean: stored, and perhaps not for good.
            Err(BrokenPromise::Log(NotSafe::DiskTimedOut | NotSafe::Failed)) => {
                reply.code = ResponseCode::FLUSH_DISK_TIMEOUT;
            }
            // Stored here, and perhaps nowhere else.
            Err(BrokenPromise::Copies(NotHeld::TimedOut | NotHeld::Over)) => {
                reply.code = ResponseCode::FLUSH_SLAVE_TIMEOUT;
            }
            // The message is stored, but a restart may not know its topic.
            Err(BrokenPromise::Topic(error)) => {
                reply.code = ResponseCode::SERVICE_NOT_AVAILABLE;
                reply.remark = Some(unsaved(&error).into());
            }
        }
        reply
    }
}

fn unsaved(error: &SaveError) -> String {
    format!("service not available now. the topic is not on disk: {error}")
}

/// Capacity that the text below keeps; a batch with long properties must not cost memory for ever.
const TEXT_KEPT: usize = 64 * 1024;

thread_local! {
    /// Where the properties of the message at hand are put together; keeps its capacity from send to send.
    static TEXT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lends it, empty.
fn with_text<T>(act: impl FnOnce(&mut String) -> T) -> T {
    TEXT.with_borrow_mut(|text| {
        text.clear();
        text.shrink_to(TEXT_KEPT);
        act(text)
    })
}

/// Ext fields of every reply to a send, refusals included: Java producers read them without looking whether they are there.
pub(crate) type ReplyTags = [(&'static str, ByteString); 2];

/// An append that failed, where a refusal is code and remark alone.
pub(super) fn append_refused(error: &AppendError, body_len_max: usize) -> Refusal {
    let (code, remark) = append_failure(error, body_len_max);
    Refusal::new(code, remark)
}

/// Reply code and remark for an append that failed. Java: `SendMessageProcessor.handlePutMessageResult`.
pub(crate) fn append_failure(error: &AppendError, body_len_max: usize) -> (ResponseCode, Cow<'static, str>) {
    match error {
        AppendError::Record(_) | AppendError::TopicName { .. } | AppendError::LargerThanSegment { .. } | AppendError::BatchTooLarge { .. } => (
            ResponseCode::MESSAGE_ILLEGAL,
            format!(
                "the message is illegal, maybe msg body or properties length not matched. msg body length limit {body_len_max}B, msg properties length limit 32KB."
            )
            .into(),
        ),
        AppendError::DiskFull { .. }
        | AppendError::QueueBehind { .. }
        | AppendError::Poisoned { .. }
        | AppendError::NotTheWriter { .. }
        | AppendError::Closed => {
            (ResponseCode::SERVICE_NOT_AVAILABLE, format!("service not available now. {error}").into())
        }
        AppendError::Extend { .. } => (ResponseCode::SYSTEM_ERROR, format!("create mapped file failed, server is busy or broken. {error}").into()),
        AppendError::MixedBatch | AppendError::CannotRead { .. } => (ResponseCode::SYSTEM_ERROR, error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use ferromq_store::Writer;

    use super::*;

    #[test]
    fn failures_of_the_store_have_javas_codes() {
        let illegal = append_failure(&AppendError::BatchTooLarge { len: 2, limit: 1 }, 4_194_304);
        assert_eq!(illegal.0, ResponseCode::MESSAGE_ILLEGAL);
        assert_eq!(
            illegal.1,
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit 4194304B, msg properties length limit 32KB."
        );
        assert_eq!(append_failure(&AppendError::Closed, 1).0, ResponseCode::SERVICE_NOT_AVAILABLE);
        let (code, remark) = append_failure(&AppendError::NotTheWriter { writer: Writer::Stream }, 1);
        assert_eq!(code, ResponseCode::SERVICE_NOT_AVAILABLE);
        assert!(remark.starts_with("service not available now. this broker's log is a copy"), "{remark}");
        assert_eq!(append_failure(&AppendError::Extend { reason: "x".into() }, 1).0, ResponseCode::SYSTEM_ERROR);
    }
}
