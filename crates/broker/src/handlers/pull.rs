//! Pulling: code 11 and 361, from the typed header to mapped slices of the commit log, at once or when a message has come.
//!
//! Checks come in Java's order with Java's codes and remarks (`PullMessageProcessor`). A pull that finds nothing is held in
//! [`HeldPulls`]; whoever dispatches its message wakes it, or the broker's clock when its time is up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::body::{SubscriptionData, SubscriptionGroup};
use ferromq_protocol::header::{PullReply, PullRequest};
use ferromq_protocol::{GroupName, NoFields, QueueId, QueueOffset, Reply, RequestCode, ResponseCode};
use ferromq_remoting::{Connection, ReplySlot};
use ferromq_store::{Arrival, Effort, QueueBounds, ReadError, ReadLimits, ReadOutcome, ReadStatus, Store};

use crate::clients::Clients;
use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::handlers::offsets::refuse_own_group;
use crate::held_pulls::{HeldPullLimits, HeldPulls, HeldRequest};
use crate::live_config::LiveConfig;
use crate::peer::{Origin, Peer};
use crate::readers::Readers;
use crate::refusal::Refusal;
use crate::standing::Standing;
use crate::statistics::Statistics;
use crate::subscription::{Conditions, PullFilter, TagsError, WakeRule};
use crate::topics::{Topic, Topics, perm};

/// Bits of the header's sysFlag. Java: `PullSysFlag`.
mod flag {
    pub const COMMIT_OFFSET: i32 = 1;
    pub const SUSPEND: i32 = 2;
    pub const SUBSCRIPTION: i32 = 4;
}

/// Longest time a pull is held, whatever it asks for; it can be asked again. Java's clients ask for 15 or 20 s.
const HOLD_MAX: Duration = Duration::from_secs(120);

/// The parts a pull uses.
pub(crate) struct PullPath {
    config: Arc<LiveConfig>,
    standing: Arc<Standing>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    clients: Arc<Clients>,
    offsets: Arc<ConsumerOffsets>,
    statistics: Arc<Statistics>,
    store: Arc<Store>,
    readers: Arc<Readers>,
    held: HeldPulls<HeldPull>,
    conditions: Conditions,
    stopping: AtomicBool,
}

/// A pull that waits: what to read, and where the answer goes.
struct HeldPull {
    pull: Pull,
    slot: ReplySlot,
    peer: Peer,
    deadline: Instant,
}

/// What to read, as long as it may have to be read again, and what it takes to admit it once more before that.
struct Pull {
    code: RequestCode,
    peer: SocketAddr,
    group: GroupName,
    group_config: Arc<SubscriptionGroup>,
    topic: Arc<Topic>,
    queue: QueueId,
    /// As asked for; negative values come from clients and are answered with the queue's minimum.
    from: i64,
    count_max: usize,
    wanted: PullFilter,
    /// Where `wanted` is the group's subscription and not the pull's own.
    subscribed: Option<SubscriptionVersion>,
    /// [`PullPath::changes`] before it was admitted.
    admitted: u64,
}

/// What a pull knows of its group's subscription.
#[derive(Clone, Copy)]
struct SubscriptionVersion {
    /// The client's version of it.
    version: i64,
    /// [`Clients::subscription_changes`] before it was looked up.
    changes: u64,
}

/// Who may read what, found anew for each read that follows a wait.
struct PullAccess {
    group_config: Arc<SubscriptionGroup>,
    topic: Arc<Topic>,
    queue: QueueId,
}

impl PullPath {
    #[allow(clippy::too_many_arguments, reason = "composition: each part is used as it is")]
    pub(crate) fn new(
        config: Arc<LiveConfig>,
        standing: Arc<Standing>,
        topics: Arc<Topics>,
        groups: Arc<Groups>,
        clients: Arc<Clients>,
        offsets: Arc<ConsumerOffsets>,
        statistics: Arc<Statistics>,
        store: Arc<Store>,
        readers: Arc<Readers>,
    ) -> PullPath {
        let held = HeldPulls::new(HeldPullLimits::of(config.current().pull_thread_pool_queue_capacity));
        PullPath {
            config,
            standing,
            topics,
            groups,
            clients,
            offsets,
            statistics,
            store,
            readers,
            held,
            conditions: Conditions::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// PULL_MESSAGE and LITE_PULL_MESSAGE. `None`: the pull is held, and answered through the slot.
    pub(crate) fn pull(
        &self,
        origin: &Origin,
        code: RequestCode,
        request: &PullRequest,
        effort: Effort,
        slot: impl FnOnce() -> ReplySlot,
    ) -> Result<Option<Reply>, Refusal> {
        let pull = self.admit(origin, code, request)?;
        // Before the read, and not once more after a wait for the disk: what was committed meanwhile is later.
        if effort == Effort::Brief
            && request.sys_flag & flag::COMMIT_OFFSET != 0
            && request.commit_offset >= 0
            && refuse_own_group(&pull.group).is_ok()
        {
            self.offsets.commit(&pull.topic.topic_name, &pull.group, pull.queue, request.commit_offset);
        }
        let (mut reply, next) = self.read(&pull, effort)?;
        if reply.code == ResponseCode::PULL_NOT_FOUND && request.sys_flag & flag::SUSPEND != 0 {
            match self.hold(origin, slot, pull, next, request.suspend_timeout_millis) {
                None => return Ok(None),
                Some(unheld) => reply = self.read(&self.admit_again(unheld)?, effort)?.0,
            }
        }
        Ok(Some(reply))
    }

    /// The checks before anything is read.
    fn admit(&self, origin: &Origin, code: RequestCode, request: &PullRequest) -> Result<Pull, Refusal> {
        let admitted = self.changes();
        let (group, peer) = (&request.consumer_group, origin.address);
        let PullAccess { group_config, topic, queue } =
            self.admit_to_queue(code, peer, group, &request.topic, request.queue_id)?;
        let config = self.config.current();
        let (wanted, subscribed) = if request.sys_flag & flag::SUBSCRIPTION != 0 {
            let text = request.subscription.as_deref().unwrap_or_default();
            let failed = |reason: String| {
                let remark = format!("parse the consumer's subscription failed{reason}");
                Refusal::new(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark).header(NoFields)
            };
            let wanted = if SubscriptionData::is_tag_type(request.expression_type.as_deref()) {
                PullFilter::by_tags(text).map_err(|error| match error {
                    // Java says no more.
                    TagsError::NoTags => failed(String::new()),
                    error => failed(format!(", {error}")),
                })?
            } else {
                let kind = request.expression_type.as_deref().unwrap_or_default();
                refuse_condition(&config, kind).map_err(|refusal| refusal.header(NoFields))?;
                self.conditions.compile(text).map_err(|error| failed(format!(", {error}")))?
            };
            (wanted, None)
        } else {
            let subscribed =
                SubscriptionVersion { version: request.sub_version, changes: self.clients.subscription_changes() };
            (self.subscribed(group, &request.topic, request.sub_version, &group_config)?, Some(subscribed))
        };
        let count_max =
            usize::try_from(request.max_msg_nums).unwrap_or(0).clamp(1, config.pull_batch_max_message_count);
        Ok(Pull {
            code,
            peer,
            group: group.clone(),
            group_config,
            topic,
            queue,
            from: request.queue_offset,
            count_max,
            wanted,
            subscribed,
            admitted,
        })
    }

    /// The checks of a pull that has waited: topic, group, permissions and the group's subscription may be others by now. Java runs the
    /// whole request again: `PullMessageProcessor.executeRequestWhenWakeup`.
    fn admit_again(&self, mut pull: Pull) -> Result<Pull, Refusal> {
        let changes = self.changes();
        if pull.admitted == changes {
            return Ok(pull);
        }
        pull.admitted = changes;
        let queue_id = pull.queue.as_i32();
        let admitted = self.admit_to_queue(pull.code, pull.peer, &pull.group, &pull.topic.topic_name, queue_id)?;
        if let Some(subscribed) = &mut pull.subscribed {
            subscribed.changes = self.clients.subscription_changes();
            pull.wanted =
                self.subscribed(&pull.group, &pull.topic.topic_name, subscribed.version, &admitted.group_config)?;
        } else if matches!(pull.wanted, PullFilter::Condition(_)) {
            refuse_condition(&self.config.current(), SubscriptionData::SQL92)
                .map_err(|refusal| refusal.header(NoFields))?;
        }
        (pull.group_config, pull.topic) = (admitted.group_config, admitted.topic);
        Ok(pull)
    }

    /// Grows with each change of anything that a pull is admitted by.
    fn changes(&self) -> u64 {
        let of_tables = [self.topics.changes(), self.groups.changes(), self.clients.changes()];
        let of_broker = [self.config.changes(), self.standing.changes()];
        of_tables.into_iter().chain(of_broker).fold(0, u64::wrapping_add)
    }

    /// Everything that does not depend on what the pull wants.
    fn admit_to_queue(
        &self,
        code: RequestCode,
        peer: SocketAddr,
        group: &GroupName,
        topic_name: &str,
        queue_id: i32,
    ) -> Result<PullAccess, Refusal> {
        let config = self.config.current();
        if !config.slave_read_enable && self.standing.is_slave() {
            // Java: `PullMessageProcessor.rejectRequest`.
            let remark = "[REJECTREQUEST]system busy, start flow control for a while";
            return Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark));
        }
        if config.broker_permission & perm::READ == 0 {
            return Err(forbidden(1, format!("the broker[{}] pulling message is forbidden", config.advertised_host())));
        }
        if code == RequestCode::LITE_PULL_MESSAGE && !config.lite_pull_message_enable {
            return Err(forbidden(
                1,
                format!("the broker[{}] for lite pull consumer is forbidden", config.advertised_host()),
            ));
        }
        let group_config =
            self.groups.find_or_create(group).ok_or_else(|| Refusal::group_not_exist(group).header(NoFields))?;
        if !group_config.consume_enable {
            return Err(forbidden(2, format!("subscription group no permission, {group}")));
        }
        let Some(topic) = self.topics.find(topic_name) else {
            // The blank before the line end is Java's, here and not in the send path.
            let remark = format!("topic[{topic_name}] not exist, apply first please! ");
            return Err(Refusal::with_faq(ResponseCode::TOPIC_NOT_EXIST, &remark).header(NoFields));
        };
        if topic.perm & perm::READ == 0 {
            return Err(forbidden(3, format!("the topic[{topic_name}] pulling message is forbidden")));
        }
        match u32::try_from(queue_id) {
            Ok(queue) if queue_id < topic.read_queue_nums => Ok(PullAccess { group_config, topic, queue: QueueId(queue) }),
            _ => Err(Refusal::invalid_parameter(format!(
                "queueId[{queue_id}] is illegal, topic:[{topic_name}] topicConfig.readQueueNums:[{}] consumer:[/{peer}]",
                topic.read_queue_nums,
            ))
            .header(NoFields)),
        }
    }

    /// What the group's heartbeats say that it wants.
    fn subscribed(
        &self,
        group: &GroupName,
        topic: &str,
        version: i64,
        group_config: &SubscriptionGroup,
    ) -> Result<PullFilter, Refusal> {
        let Some(consumers) = self.clients.consumer_group(group) else {
            return Err(Refusal::with_faq(ResponseCode::SUBSCRIPTION_NOT_EXIST, "the consumer's group info not exist")
                .header(NoFields));
        };
        if !group_config.consume_broadcast_enable && consumers.is_broadcasting() {
            return Err(forbidden(4, format!("the consumer group[{group}] can not consume by broadcast way")));
        }
        if self.groups.forbidden(group, topic) & perm::READ != 0 {
            return Err(forbidden(5, format!("the consumer group[{group}] is forbidden for topic[{topic}]")));
        }
        let Some(subscription) = consumers.subscription(topic) else {
            return Err(Refusal::with_faq(
                ResponseCode::SUBSCRIPTION_NOT_EXIST,
                "the consumer's subscription not exist",
            )
            .header(NoFields));
        };
        if subscription.sub_version < version {
            return Err(Refusal::new(ResponseCode::SUBSCRIPTION_NOT_LATEST, "the consumer's subscription not latest")
                .header(NoFields));
        }
        if SubscriptionData::is_tag_type(Some(&subscription.expression_type)) {
            return Ok(PullFilter::by_subscribed_tags(subscription));
        }
        refuse_condition(&self.config.current(), &subscription.expression_type)
            .map_err(|refusal| refusal.header(NoFields))?;
        self.conditions.compile(&subscription.sub_string).map_err(|error| {
            let remark = format!("The broker's consumer filter data is not exist!, {error}");
            Refusal::new(ResponseCode::FILTER_DATA_NOT_EXIST, remark).header(NoFields)
        })
    }

    /// Reads once. Gives the reply and the offset that the group goes on from.
    fn read(&self, pull: &Pull, effort: Effort) -> Result<(Reply, QueueOffset), ReadError> {
        let config = self.config.current();
        let topic = &pull.topic.topic_name;
        // Whatever useServerSideResetOffset says by now: as long as a reset is pending, nothing is committed.
        if let Some(reset) = self.offsets.take_reset(topic, &pull.group, pull.queue) {
            let bounds = self.bounds(pull);
            let header = pull.header(0, reset, bounds.min, bounds.max);
            return Ok((Reply::error(ResponseCode::PULL_OFFSET_MOVED, "OFFSET_RESET").header(header), reset));
        }
        let Ok(from) = u64::try_from(pull.from) else { return Ok(self.below_everything(pull)) };
        // More would not fit the answer, whatever maxTransferBytesOnMessageInMemory and ...InDisk say.
        let limits = ReadLimits { count_max: pull.count_max, bytes_max: ferromq_protocol::BODY_LEN_MAX };
        let outcome = self.store.read(topic, pull.queue, QueueOffset(from), limits, &pull.wanted, effort)?;
        let (mut code, status) = answer(outcome.status, from == 0);
        let mut suggested = match (config.slave_read_enable, outcome.suggest_slave) {
            (false, _) => 0,
            (true, true) => pull.group_config.which_broker_when_consume_slowly,
            (true, false) => pull.group_config.broker_id,
        };
        if self.sends_to_master(outcome.suggest_slave) {
            suggested = 0;
            if code != ResponseCode::SUCCESS {
                code = ResponseCode::PULL_RETRY_IMMEDIATELY;
            }
        }
        let ReadOutcome { next_offset, min_offset, max_offset, chunks, .. } = outcome;
        if outcome.count > 0 {
            self.statistics.delivered(topic, &pull.group, outcome.count as u64, outcome.len_bytes as u64);
        }
        self.offsets.record_pull(topic, &pull.group, pull.queue, next_offset);
        let header = pull.header(suggested, next_offset, min_offset, max_offset);
        Ok((Reply::new(code).remark(status).header(header).body_chunks(chunks), next_offset))
    }

    /// Whoever is not behind is sent from a slave to the master, where the next messages are first; what a slave does not have is no answer
    /// for him, and none to wait for. Java: `PullMessageProcessor.composeResponseHeader`.
    fn sends_to_master(&self, is_behind: bool) -> bool {
        !is_behind && self.standing.is_slave()
    }

    #[cfg(test)]
    pub(crate) fn held_count(&self) -> usize {
        self.held.len()
    }

    /// A negative offset is below every queue's minimum, and nothing a store can be asked for.
    fn below_everything(&self, pull: &Pull) -> (Reply, QueueOffset) {
        let bounds = self.bounds(pull);
        let status = if bounds.max == QueueOffset(0) { "NO_MESSAGE_IN_QUEUE" } else { "OFFSET_TOO_SMALL" };
        let header = pull.header(0, bounds.min, bounds.min, bounds.max);
        let code = if self.sends_to_master(false) {
            ResponseCode::PULL_RETRY_IMMEDIATELY
        } else {
            ResponseCode::PULL_OFFSET_MOVED
        };
        (Reply::error(code, status).header(header), bounds.min)
    }

    fn bounds(&self, pull: &Pull) -> QueueBounds {
        self.store.queue_bounds(&pull.topic.topic_name, pull.queue).unwrap_or_default()
    }

    /// Holds the pull; gives it back when it must be answered now after all.
    fn hold(
        &self,
        origin: &Origin,
        slot: impl FnOnce() -> ReplySlot,
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
        let held = HeldPull { pull, slot: slot(), peer: origin.peer, deadline };
        self.hold_from(held, from).map(|held| held.pull)
    }

    /// Gives the pull back when there is no place for it, or nothing to wait for.
    fn hold_from(&self, held: HeldPull, from: QueueOffset) -> Option<HeldPull> {
        let (topic, queue, subscribed) = (Arc::clone(&held.pull.topic), held.pull.queue, held.pull.subscribed);
        // Short polling: no message wakes it, it looks when its time is up.
        let wakes = if self.config.current().long_polling_enable { held.pull.wanted.wakes() } else { WakeRule::Never };
        let held = HeldRequest {
            from,
            deadline: held.deadline,
            peer: held.peer,
            subscriber: subscribed.is_some().then(|| held.pull.group.clone()),
            wakes,
            len_bytes: held.pull.wanted.len_bytes(),
            pull: held,
        };
        // A message that was dispatched after the read and before the pull is in the list would wake nobody, nor would a subscription that
        // changed meanwhile; and a connection that has closed would not take it out.
        let is_over = |held: &HeldPull| {
            held.slot.is_closed()
                || self.stopping.load(Ordering::SeqCst)
                || self.store.queue_bounds(&topic.topic_name, queue).is_some_and(|bounds| bounds.max > from)
                || subscribed.is_some_and(|known| known.changes != self.clients.subscription_changes())
        };
        self.held.hold(&topic.topic_name, queue, held, is_over).err()
    }

    /// A message is visible: wakes the pulls that wait for it. Called by whoever dispatches.
    pub(crate) fn arrived(self: &Arc<Self>, arrival: &Arrival<'_>) {
        for held in self.held.take_woken(arrival) {
            self.answer_held(held);
        }
    }

    /// The subscription of a group has become another one: its pulls look by the new one, and wait on if there is still nothing.
    pub(crate) fn resubscribed(self: &Arc<Self>, group: &str) {
        for HeldPull { pull, slot, peer, deadline } in self.held.take_subscriber(group) {
            let pull = match self.admit_again(pull) {
                Ok(pull) => pull,
                Err(refusal) => {
                    slot.send(refusal.into_reply());
                    continue;
                }
            };
            match self.read(&pull, Effort::Brief) {
                Ok((reply, next)) if reply.code == ResponseCode::PULL_NOT_FOUND => {
                    if let Some(held) = self.hold_from(HeldPull { pull, slot, peer, deadline }, next) {
                        self.answer_held(held);
                    }
                }
                Ok((reply, _)) => slot.send(reply),
                Err(ReadError::NeedsTime) => self.answer_later(pull, slot, peer),
                Err(error) => slot.send(Refusal::from(error).into_reply()),
            }
        }
    }

    /// The connection is gone, and what it was waiting for with it.
    pub(crate) fn closed(&self, connection: &Connection) {
        drop(self.held.take_connection(connection.id()));
    }

    /// Answers the pulls whose time is up.
    pub(crate) fn expire(self: &Arc<Self>, now: Instant) {
        for held in self.held.take_expired(now) {
            self.answer_held(held);
        }
    }

    /// Answers all held pulls and holds no more.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::SeqCst);
        for held in self.held.take_all() {
            self.answer_held(held);
        }
    }

    /// Looks and reads again, and this time whatever comes of it is the answer.
    fn answer_held(self: &Arc<Self>, HeldPull { pull, slot, peer, .. }: HeldPull) {
        if slot.is_closed() {
            return;
        }
        let pull = match self.admit_again(pull) {
            Ok(pull) => pull,
            Err(refusal) => return slot.send(refusal.into_reply()),
        };
        match self.read(&pull, Effort::Brief) {
            Ok((reply, _)) => slot.send(reply),
            Err(ReadError::NeedsTime) => self.answer_later(pull, slot, peer),
            Err(error) => slot.send(Refusal::from(error).into_reply()),
        }
    }

    /// Whoever dispatches, or looks at the time, does not wait for the disk.
    fn answer_later(self: &Arc<Self>, pull: Pull, slot: ReplySlot, peer: Peer) {
        let path = Arc::clone(self);
        self.readers.submit(peer, 0, move |room| {
            if slot.is_closed() {
                return;
            }
            let read = room.map_err(Refusal::from).and_then(|()| Ok(path.read(&pull, Effort::Full)?.0));
            slot.send(read.unwrap_or_else(Refusal::into_reply));
        });
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

/// Store status to reply code and remark (Java: `PullMessageProcessor.composeResponseHeader`). A queue of a known topic that was never used is one without messages.
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

/// A condition can be SQL92, and has to be switched on.
pub(super) fn refuse_condition(config: &BrokerConfig, expression_type: &str) -> Result<(), Refusal> {
    if config.enable_property_filter && expression_type == SubscriptionData::SQL92 {
        return Ok(());
    }
    Err(Refusal::system_error(format!("The broker does not support consumer to filter message by {expression_type}")))
}

/// `kind` says who forbids: 1 broker, 2 group, 3 topic, 4 broadcasting, 5 the group's subscription. Java: `ForbiddenType`.
fn forbidden(kind: i32, remark: String) -> Refusal {
    Refusal::no_permission(remark).header([("forbiddenType", kind.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_never_used_queue_is_held_at_zero_and_moved_elsewhere() {
        assert_eq!(answer(ReadStatus::NoMessageInQueue, true).0, ResponseCode::PULL_NOT_FOUND);
        assert_eq!(
            answer(ReadStatus::NoMessageInQueue, false),
            (ResponseCode::PULL_OFFSET_MOVED, "NO_MESSAGE_IN_QUEUE")
        );
    }
}
