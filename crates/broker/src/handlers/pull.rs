//! Pulling: code 11 and 361, from the typed header to mapped slices of the commit log, at once or when a message has come.
//!
//! Checks come in Java's order with Java's codes and remarks (spec broker §C.2, protocol §3.2). A pull that finds nothing is parked in
//! [`HeldPulls`]; the store's dispatch thread wakes it, or the broker's clock when its time is up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::body::{SubscriptionData, SubscriptionGroup};
use ferromq_protocol::header::{PullReply, PullRequest};
use ferromq_protocol::message::tags::tags_code;
use ferromq_protocol::{Command, GroupName, NoFields, QueueId, QueueOffset, Reply, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, Outcome, ReplySlot};
use ferromq_store::{Arrival, MessageFilter, QueueBounds, ReadLimits, ReadOutcome, ReadStatus, Store};

use crate::clients::Clients;
use crate::config::LiveConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::held_pulls::{Held, HeldPulls};
use crate::refusal::Refusal;
use crate::statistics::Statistics;
use crate::topics::{Topic, Topics, perm};

/// Bits of the header's sysFlag. Java: `PullSysFlag`.
mod flag {
    pub const COMMIT_OFFSET: i32 = 1;
    pub const SUSPEND: i32 = 2;
    pub const SUBSCRIPTION: i32 = 4;
}

/// Longest time a pull is held, whatever it asks for.
const HOLD_MAX: Duration = Duration::from_secs(24 * 3600);

/// The parts a pull uses.
pub(crate) struct PullPath {
    config: Arc<LiveConfig>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    clients: Arc<Clients>,
    offsets: Arc<ConsumerOffsets>,
    statistics: Arc<Statistics>,
    store: Arc<Store>,
    held: HeldPulls<HeldPull>,
    stopping: AtomicBool,
}

/// A parked pull: what to read, and where the answer goes.
struct HeldPull {
    pull: Pull,
    slot: ReplySlot,
}

/// What to read, as long as it may have to be read again.
struct Pull {
    group: GroupName,
    group_config: Arc<SubscriptionGroup>,
    topic: Arc<Topic>,
    queue: QueueId,
    /// As asked for; negative values come from clients and are answered with the queue's minimum.
    from: i64,
    count_max: usize,
    filter: TagFilter,
}

impl PullPath {
    pub(crate) fn new(
        config: Arc<LiveConfig>,
        topics: Arc<Topics>,
        groups: Arc<Groups>,
        clients: Arc<Clients>,
        offsets: Arc<ConsumerOffsets>,
        statistics: Arc<Statistics>,
        store: Arc<Store>,
    ) -> PullPath {
        let held = HeldPulls::new(config.current().pull_thread_pool_queue_capacity);
        PullPath { config, topics, groups, clients, offsets, statistics, store, held, stopping: AtomicBool::new(false) }
    }

    /// PULL_MESSAGE and LITE_PULL_MESSAGE.
    pub(crate) fn pull(&self, connection: &Connection, command: &Command) -> Result<Outcome, Refusal> {
        let request: PullRequest = command.header()?;
        let pull = self.admit(connection, command.request_code(), &request)?;
        let (mut reply, next) = self.read(&pull);
        if request.sys_flag & flag::COMMIT_OFFSET != 0 && request.commit_offset >= 0 {
            self.offsets.commit(&pull.topic.topic_name, &pull.group, pull.queue, request.commit_offset);
        }
        if reply.code == ResponseCode::PULL_NOT_FOUND && request.sys_flag & flag::SUSPEND != 0 {
            match self.hold(connection, command, pull, next, request.suspend_timeout_millis) {
                None => return Ok(Outcome::Deferred),
                Some(unheld) => reply = self.read(&unheld).0,
            }
        }
        Ok(Outcome::Reply(reply))
    }

    /// The checks before anything is read.
    fn admit(&self, connection: &Connection, code: RequestCode, request: &PullRequest) -> Result<Pull, Refusal> {
        let config = self.config.current();
        if config.broker_permission & perm::READ == 0 {
            return Err(forbidden(1, format!("the broker[{}] pulling message is forbidden", config.advertised_host())));
        }
        if code == RequestCode::LITE_PULL_MESSAGE && !config.lite_pull_message_enable {
            return Err(forbidden(
                1,
                format!("the broker[{}] for lite pull consumer is forbidden", config.advertised_host()),
            ));
        }
        let group = &request.consumer_group;
        let group_config =
            self.groups.find_or_create(group).ok_or_else(|| Refusal::group_not_exist(group).header(NoFields))?;
        if !group_config.consume_enable {
            return Err(forbidden(2, format!("subscription group no permission, {group}")));
        }
        let Some(topic) = self.topics.find(&request.topic) else {
            // The blank before the line end is Java's, here and not in the send path.
            let remark = format!("topic[{}] not exist, apply first please! ", request.topic);
            return Err(Refusal::with_faq(ResponseCode::TOPIC_NOT_EXIST, &remark).header(NoFields));
        };
        if topic.perm & perm::READ == 0 {
            return Err(forbidden(3, format!("the topic[{}] pulling message is forbidden", request.topic)));
        }
        let queue = match u32::try_from(request.queue_id) {
            Ok(queue) if request.queue_id < topic.read_queue_nums => QueueId(queue),
            _ => {
                return Err(Refusal::invalid_parameter(format!(
                    "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[/{}]",
                    request.queue_id,
                    request.topic,
                    topic.read_queue_nums,
                    connection.peer_addr()
                ))
                .header(NoFields));
            }
        };
        let filter = if request.sys_flag & flag::SUBSCRIPTION != 0 {
            refuse_expression_type(request.expression_type.as_deref())?;
            TagFilter::parse(request.subscription.as_deref().unwrap_or_default()).ok_or_else(|| {
                Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, "parse the consumer's subscription failed")
                    .header(NoFields)
            })?
        } else {
            self.subscribed_filter(request, &group_config)?
        };
        let count_max =
            usize::try_from(request.max_msg_nums).unwrap_or(0).clamp(1, config.pull_batch_max_message_count);
        Ok(Pull { group: group.clone(), group_config, topic, queue, from: request.queue_offset, count_max, filter })
    }

    /// The filter that the group's heartbeats brought.
    fn subscribed_filter(&self, request: &PullRequest, group_config: &SubscriptionGroup) -> Result<TagFilter, Refusal> {
        let group = &request.consumer_group;
        let Some(consumers) = self.clients.consumer_group(group) else {
            return Err(Refusal::with_faq(ResponseCode::SUBSCRIPTION_NOT_EXIST, "the consumer's group info not exist")
                .header(NoFields));
        };
        if !group_config.consume_broadcast_enable && consumers.is_broadcasting() {
            return Err(forbidden(4, format!("the consumer group[{group}] can not consume by broadcast way")));
        }
        if self.groups.forbidden(group, &request.topic) & perm::READ != 0 {
            return Err(forbidden(5, format!("the consumer group[{group}] is forbidden for topic[{}]", request.topic)));
        }
        let Some(subscription) = consumers.subscription(&request.topic) else {
            return Err(Refusal::with_faq(
                ResponseCode::SUBSCRIPTION_NOT_EXIST,
                "the consumer's subscription not exist",
            )
            .header(NoFields));
        };
        if subscription.sub_version < request.sub_version {
            return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest")
                .header(NoFields));
        }
        refuse_expression_type(Some(&subscription.expression_type))?;
        Ok(TagFilter::of_subscription(subscription))
    }

    /// Reads once. Gives the reply and the offset that the group goes on from.
    fn read(&self, pull: &Pull) -> (Reply, QueueOffset) {
        let config = self.config.current();
        let topic = &pull.topic.topic_name;
        if config.use_server_side_reset_offset
            && let Some(reset) = self.offsets.take_reset(topic, &pull.group, pull.queue)
        {
            let bounds = self.bounds(pull);
            let header = pull.header(0, reset, bounds.min, bounds.max);
            return (Reply::error(ResponseCode::PULL_OFFSET_MOVED, "OFFSET_RESET").header(header), reset);
        }
        let Ok(from) = u64::try_from(pull.from) else { return self.below_everything(pull) };
        let outcome =
            self.store.read(topic, pull.queue, QueueOffset(from), ReadLimits::count(pull.count_max), &pull.filter);
        let (code, status) = answer(outcome.status, from == 0);
        let suggested = match (config.slave_read_enable, outcome.suggest_slave) {
            (false, _) => 0,
            (true, true) => pull.group_config.which_broker_when_consume_slowly,
            (true, false) => pull.group_config.broker_id,
        };
        let ReadOutcome { next_offset, min_offset, max_offset, chunks, .. } = outcome;
        if outcome.count > 0 {
            self.statistics.delivered(topic, &pull.group, outcome.count as u64, outcome.len_bytes as u64);
        }
        self.offsets.record_pull(topic, &pull.group, pull.queue, next_offset);
        let header = pull.header(suggested, next_offset, min_offset, max_offset);
        (Reply::error(code, status).header(header).body_chunks(chunks), next_offset)
    }

    /// A negative offset is below every queue's minimum, and nothing a store can be asked for.
    fn below_everything(&self, pull: &Pull) -> (Reply, QueueOffset) {
        let bounds = self.bounds(pull);
        let status = if bounds.max == QueueOffset(0) { "NO_MESSAGE_IN_QUEUE" } else { "OFFSET_TOO_SMALL" };
        let header = pull.header(0, bounds.min, bounds.min, bounds.max);
        (Reply::error(ResponseCode::PULL_OFFSET_MOVED, status).header(header), bounds.min)
    }

    fn bounds(&self, pull: &Pull) -> QueueBounds {
        let nothing = QueueBounds { min: QueueOffset(0), max: QueueOffset(0) };
        self.store.queue_bounds(&pull.topic.topic_name, pull.queue).unwrap_or(nothing)
    }

    /// Parks the pull; gives it back when it must be answered now after all.
    fn hold(
        &self,
        connection: &Connection,
        command: &Command,
        mut pull: Pull,
        from: QueueOffset,
        asked_ms: i64,
    ) -> Option<Pull> {
        if self.stopping.load(Ordering::SeqCst) {
            return Some(pull);
        }
        let config = self.config.current();
        let wait = if config.long_polling_enable {
            u64::try_from(asked_ms).unwrap_or(0)
        } else {
            config.short_polling_time_mills
        };
        let deadline = Instant::now() + Duration::from_millis(wait).min(HOLD_MAX);
        pull.group = pull.group.into_owned();
        let (topic, queue) = (Arc::clone(&pull.topic), pull.queue);
        let held = Held { from, deadline, pull: HeldPull { pull, slot: connection.reply_slot(command) } };
        // A message that was dispatched after the read and before the pull is in the list would wake nobody.
        let arrived = || {
            self.stopping.load(Ordering::SeqCst)
                || self.store.queue_bounds(&topic.topic_name, queue).is_some_and(|bounds| bounds.max > from)
        };
        self.held.park(&topic.topic_name, queue, held, arrived).err().map(|held| held.pull)
    }

    /// A message is visible: wakes the pulls that wait for it. Called by the store's dispatch thread.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        for held in self.held.take(arrival.topic, arrival.queue_id, |held| {
            held.from <= arrival.queue_offset && held.pull.pull.filter.matches_tags_code(Some(arrival.tags_code))
        }) {
            self.answer_held(held);
        }
    }

    /// Answers the pulls whose time is up.
    pub(crate) fn expire(&self, now: Instant) {
        for held in self.held.take_expired(now) {
            self.answer_held(held);
        }
    }

    /// Answers all parked pulls and parks no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for held in self.held.take_all() {
            self.answer_held(held);
        }
    }

    /// Reads again, and this time whatever comes of it is the answer.
    fn answer_held(&self, held: HeldPull) {
        if held.slot.is_closed() {
            return;
        }
        held.slot.send(self.read(&held.pull).0);
    }
}

impl Pull {
    fn header(&self, suggested: i64, next: QueueOffset, min: QueueOffset, max: QueueOffset) -> PullReply {
        PullReply {
            suggest_which_broker_id: suggested,
            next_begin_offset: next,
            min_offset: min,
            max_offset: max,
            topic_sys_flag: Some(self.topic.topic_sys_flag),
            group_sys_flag: Some(self.group_config.group_sys_flag),
            ..PullReply::default()
        }
    }
}

/// Store status to reply code and remark (spec store §6.2). A queue of a known topic that was never used is one without messages.
fn answer(status: ReadStatus, from_zero: bool) -> (ResponseCode, &'static str) {
    let code = match status {
        ReadStatus::Found => ResponseCode::SUCCESS,
        ReadStatus::NoMatchedMessage | ReadStatus::MessageWasRemoving => ResponseCode::PULL_RETRY_IMMEDIATELY,
        ReadStatus::NoMessageInQueue if !from_zero => ResponseCode::PULL_OFFSET_MOVED,
        ReadStatus::NoMessageInQueue => ResponseCode::PULL_NOT_FOUND,
        ReadStatus::OffsetFoundNull | ReadStatus::OffsetOverflowOne => ResponseCode::PULL_NOT_FOUND,
        ReadStatus::OffsetOverflowBadly | ReadStatus::OffsetTooSmall => ResponseCode::PULL_OFFSET_MOVED,
    };
    (code, status.java_name())
}

/// Only tag expressions can be evaluated yet, so that an SQL consumer never gets messages it did not ask for.
fn refuse_expression_type(expression_type: Option<&str>) -> Result<(), Refusal> {
    match expression_type {
        None | Some("" | "TAG") => Ok(()),
        Some(other) => {
            Err(Refusal::system_error(format!("The broker does not support consumer to filter message by {other}"))
                .header(NoFields))
        }
    }
}

/// `kind` says who forbids: 1 broker, 2 group, 3 topic, 4 broadcasting, 5 the group's subscription. Java: `ForbiddenType`.
fn forbidden(kind: i32, remark: String) -> Refusal {
    Refusal::no_permission(remark).header([("forbiddenType", kind.to_string())])
}

/// Which tags a consumer wants, as the codes that consume queue entries hold. The client checks the exact text again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TagFilter {
    All,
    /// Out of the pull itself.
    Codes(Vec<i64>),
    /// Out of the group's heartbeat.
    Subscribed(Arc<SubscriptionData>),
}

impl TagFilter {
    /// `*` or nothing is everything; `A || B` is a list. `None` for text with separators only.
    fn parse(expression: &str) -> Option<TagFilter> {
        if matches!(expression.trim(), "" | "*") {
            return Some(TagFilter::All);
        }
        let codes: Vec<i64> =
            expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(tags_code).collect();
        (!codes.is_empty()).then_some(TagFilter::Codes(codes))
    }

    /// A subscription whose codes are missing is taken by its text. Java: `DefaultMessageFilter.isMatchedByConsumeQueue`.
    fn of_subscription(subscription: Arc<SubscriptionData>) -> TagFilter {
        if subscription.class_filter_mode || subscription.sub_string == "*" {
            TagFilter::All
        } else if subscription.code_set.is_empty() {
            TagFilter::parse(&subscription.sub_string).unwrap_or(TagFilter::All)
        } else {
            TagFilter::Subscribed(subscription)
        }
    }
}

impl MessageFilter for TagFilter {
    fn matches_tags_code(&self, code: Option<i64>) -> bool {
        match (self, code) {
            (TagFilter::All, _) | (_, None) => true,
            (TagFilter::Codes(codes), Some(code)) => codes.contains(&code),
            (TagFilter::Subscribed(subscription), Some(code)) => {
                subscription.code_set.iter().any(|wanted| i64::from(*wanted) == code)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_expressions() {
        assert_eq!(TagFilter::parse("*"), Some(TagFilter::All));
        assert_eq!(TagFilter::parse(""), Some(TagFilter::All));
        assert_eq!(TagFilter::parse("TagA || TagB"), Some(TagFilter::Codes(vec![2_598_919, 2_598_920])));
        assert_eq!(TagFilter::parse("TagA||"), Some(TagFilter::Codes(vec![2_598_919])));
        assert_eq!(TagFilter::parse("||"), None);
        let filter = TagFilter::parse("TagA").unwrap();
        assert!(filter.matches_tags_code(Some(2_598_919)));
        // A message without a tag has code 0 and never matches a list.
        assert!(!filter.matches_tags_code(Some(0)));
    }

    #[test]
    fn a_never_used_queue_is_held_at_zero_and_moved_elsewhere() {
        assert_eq!(answer(ReadStatus::NoMessageInQueue, true).0, ResponseCode::PULL_NOT_FOUND);
        assert_eq!(
            answer(ReadStatus::NoMessageInQueue, false),
            (ResponseCode::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE")
        );
    }
}
