//! Finding messages: by key (12), by place in the commit log (33).
//!
//! Java: `QueryMessageProcessor`.

use ferromq_protocol::header::{QueryMessageReply, QueryMessageRequest, ViewMessageRequest};
use ferromq_protocol::{PhysicalOffset, Reply, ResponseCode};
use ferromq_store::{Effort, Store};
use tracing::warn;

use crate::config::BrokerConfig;
use crate::refusal::Refusal;

/// Free ext field of a query by unique key.
pub(crate) const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";
/// Remark of an answer that may lack older messages.
const CUT_SHORT: &str = "too many messages to look through for this key; ask for a shorter time";

/// QUERY_MESSAGE. The store caps the count at `maxMsgsNumBatch`.
pub(crate) fn by_key(
    config: &BrokerConfig,
    store: &Store,
    request: &QueryMessageRequest,
    unique: bool,
) -> Result<Reply, Refusal> {
    let count_max = if unique { config.default_query_max_num } else { request.max_num };
    let count_max = usize::try_from(count_max).unwrap_or(0);
    let (begin, end) = (request.begin_timestamp, request.end_timestamp);
    let mut found = store.query(&request.topic, &request.key, count_max, begin, end, Effort::Full)?;
    if found.cut_short {
        warn!(topic = %request.topic, key = %request.key, begin, end, "too many messages to look through for a key: older ones are left out");
    }
    if found.messages.is_empty() {
        let remark = if found.cut_short { CUT_SHORT } else { "can not find message, maybe time range not correct" };
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark).header(QueryMessageReply::default()));
    }
    // As many as fit the answer, the newest first; one always does.
    let mut len = 0;
    let fitting = found.messages.iter().take_while(|message| {
        len += message.len();
        len <= ferromq_protocol::BODY_LEN_MAX
    });
    let count = fitting.count().max(1);
    found.messages.truncate(count);
    let header = QueryMessageReply {
        index_last_update_timestamp: found.last_update_timestamp,
        index_last_update_phyoffset: found.last_update_offset,
    };
    let reply = if found.cut_short { Reply::ok().remark(CUT_SHORT) } else { Reply::ok() };
    Ok(reply.header(header).body_chunks(found.messages))
}

/// VIEW_MESSAGE_BY_ID.
pub(crate) fn by_offset(store: &Store, request: &ViewMessageRequest) -> Result<Reply, Refusal> {
    let found = match PhysicalOffset::try_from(request.offset) {
        Ok(at) => store.message_at(at, Effort::Full)?,
        Err(_) => None,
    };
    match found {
        Some(message) => Ok(Reply::ok().body(message)),
        None => Err(Refusal::system_error(format!("can not find message by the offset, {}", request.offset))),
    }
}
