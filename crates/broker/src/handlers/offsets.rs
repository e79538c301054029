//! Offsets: what a group has committed (14, 15), and where a queue begins, ends and was at a time (29 to 32).
//!
//! Java: `ConsumerManageProcessor`, `AdminBrokerProcessor`.

use ferromq_protocol::header::{
    EarliestStoreTimeReply, EarliestStoreTimeRequest, MaxOffsetReply, MaxOffsetRequest, MinOffsetReply,
    MinOffsetRequest, QueryOffsetReply, QueryOffsetRequest, SearchOffsetReply, SearchOffsetRequest,
    UpdateOffsetRequest,
};
use ferromq_protocol::topics;
use ferromq_protocol::{NoFields, QueueId, QueueOffset, Reply, ResponseCode};
use ferromq_store::{Boundary, Effort, ReadError, Store};

use crate::consumer_offsets::{Commit, ConsumerOffsets};
use crate::groups::Groups;
use crate::refusal::Refusal;
use crate::topics::Topics;

/// QUERY_CONSUMER_OFFSET. What a group that never committed gets decides where it begins: 0 here means from the first message, 22 lets
/// the client apply its own rule.
pub(crate) fn query(
    offsets: &ConsumerOffsets,
    topics: &Topics,
    store: &Store,
    request: &QueryOffsetRequest,
    effort: Effort,
) -> Result<Reply, Refusal> {
    let known = offsets
        .pending_reset(&request.topic, &request.consumer_group, request.queue_id)
        .or_else(|| offsets.committed(&request.topic, &request.consumer_group, request.queue_id));
    let offset = match known {
        Some(offset) => offset,
        None if request.set_zero_if_not_found == Some(false) => {
            return Err(not_found("Not found, do not set to zero, maybe this group boot first"));
        }
        None if starts_at_zero(topics, store, &request.topic, request.queue_id, effort)? => QueueOffset(0),
        None => return Err(not_found("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first")),
    };
    Ok(Reply::ok().header(QueryOffsetReply { offset }))
}

/// Whether a new group reads this queue from its first message: the queue still has it, near the tail of the log, or has nothing yet.
///
/// 5.3.3 answers 22 for a queue without messages and the client then starts at what is the maximum by the time it asks, so the first
/// messages sent meanwhile are skipped; 4.9.7 answers 0. We do as 4.9.7 for queues that exist, and as 5.3.3 for those that do not.
fn starts_at_zero(
    topics: &Topics,
    store: &Store,
    topic: &str,
    queue: QueueId,
    effort: Effort,
) -> Result<bool, ReadError> {
    match store.queue_bounds(topic, queue) {
        Some(bounds) if bounds.max.0 > 0 => {
            Ok(bounds.min.0 == 0 && store.is_in_memory(topic, queue, QueueOffset(0), effort)?)
        }
        _ => Ok(topics.find(topic).is_some_and(|topic| {
            u32::try_from(topic.read_queue_nums.max(topic.write_queue_nums)).is_ok_and(|count| queue.0 < count)
        })),
    }
}

fn not_found(remark: &'static str) -> Refusal {
    Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark).header(NoFields)
}

/// The group whose offsets say from where a start reads the transactions that are open: a client that moved them could end any of them
/// unseen. Java takes them from everybody.
pub(crate) fn refuse_own_group(group: &str) -> Result<(), Refusal> {
    if group == topics::groups::TRANSACTION {
        return Err(Refusal::no_permission(format!("the offsets of {group} are the broker's own")));
    }
    Ok(())
}

/// UPDATE_CONSUMER_OFFSET. Neither the queue's existence nor the offset's sign is looked at.
pub(crate) fn update(
    offsets: &ConsumerOffsets,
    topics: &Topics,
    groups: &Groups,
    request: &UpdateOffsetRequest,
) -> Result<Reply, Refusal> {
    let (topic, group) = (&request.topic, &request.consumer_group);
    refuse_own_group(group).map_err(|refusal| refusal.header(NoFields))?;
    if !groups.may_commit(group) {
        return Err(Refusal::new(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, format!("Group {group} not exist!"))
            .header(NoFields));
    }
    if !topics.contains(topic) {
        return Err(Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!")).header(NoFields));
    }
    let Some(queue) = request.queue_id else {
        return Err(Refusal::invalid_parameter(format!("QueueId is null, topic is {topic}")).header(NoFields));
    };
    let Some(offset) = request.commit_offset else {
        return Err(Refusal::invalid_parameter(format!("Offset is null, topic is {topic}")).header(NoFields));
    };
    let reply = Reply::ok().header(NoFields);
    match offsets.commit(topic, group, queue, offset) {
        Commit::Done => Ok(reply),
        Commit::Reset => Ok(reply.remark("Offset has been previously reset")),
        Commit::Full => {
            let remark = format!(
                "[OVERLOAD]this broker keeps no more offsets; {group} has none in queue {queue} of {topic} yet"
            );
            Err(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).header(NoFields))
        }
    }
}

/// SEARCH_OFFSET_BY_TIMESTAMP.
pub(crate) fn search(store: &Store, request: &SearchOffsetRequest) -> Result<Reply, Refusal> {
    let upper = request.boundary_type.as_deref().is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper"));
    let boundary = if upper { Boundary::Upper } else { Boundary::Lower };
    let offset = store.offset_by_time(&request.topic, request.queue_id, request.timestamp, boundary, Effort::Full)?;
    Ok(Reply::ok().header(SearchOffsetReply { offset }))
}

/// GET_MAX_OFFSET.
pub(crate) fn max(store: &Store, request: &MaxOffsetRequest) -> Result<Reply, Refusal> {
    let offset = store.queue_bounds(&request.topic, request.queue_id).unwrap_or_default().max;
    Ok(Reply::ok().header(MaxOffsetReply { offset }))
}

/// GET_MIN_OFFSET. The empty remark is Java's.
pub(crate) fn min(store: &Store, request: &MinOffsetRequest) -> Result<Reply, Refusal> {
    let offset = store.queue_bounds(&request.topic, request.queue_id).unwrap_or_default().min;
    Ok(Reply::ok().header(MinOffsetReply { offset }).remark(""))
}

/// GET_EARLIEST_MSG_STORETIME; -1 when the queue has no message.
pub(crate) fn earliest_store_time(store: &Store, request: &EarliestStoreTimeRequest) -> Result<Reply, Refusal> {
    let timestamp = store.earliest_store_time(&request.topic, request.queue_id, Effort::Full)?.unwrap_or(-1);
    Ok(Reply::ok().header(EarliestStoreTimeReply { timestamp }))
}
