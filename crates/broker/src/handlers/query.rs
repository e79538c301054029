//! Finding messages: by key (12), by place in the commit log (33).
//!
//! Java: `QueryMessageProcessor`; spec broker §C.9, protocol §3.2.

use ferromq_protocol::header::{QueryMessageReply, QueryMessageRequest, ViewMessageRequest};
use ferromq_protocol::{Command, PhysicalOffset, Reply, ResponseCode};
use ferromq_remoting::Outcome;
use ferromq_store::Store;

use crate::config::BrokerConfig;
use crate::refusal::Refusal;

/// Free ext field of a query by unique key.
const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";

/// QUERY_MESSAGE. The store caps the count at `maxMsgsNumBatch`.
pub(crate) fn by_key(config: &BrokerConfig, store: &Store, command: &Command) -> Result<Outcome, Refusal> {
    let request: QueryMessageRequest = command.header()?;
    let unique = command.field(UNIQUE_KEY_QUERY).is_some_and(|flag| flag.eq_ignore_ascii_case("true"));
    let count_max = if unique { config.default_query_max_num } else { request.max_num };
    let count_max = usize::try_from(count_max).unwrap_or(0);
    let found = store.query(&request.topic, &request.key, count_max, request.begin_timestamp, request.end_timestamp);
    if found.messages.is_empty() {
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, "can not find message, maybe time range not correct")
            .header(QueryMessageReply::default()));
    }
    let header = QueryMessageReply {
        index_last_update_timestamp: found.last_update_timestamp,
        index_last_update_phyoffset: found.last_update_offset,
    };
    Ok(Outcome::Reply(Reply::ok().header(header).body_chunks(found.messages)))
}

/// VIEW_MESSAGE_BY_ID.
pub(crate) fn by_offset(store: &Store, command: &Command) -> Result<Outcome, Refusal> {
    let request: ViewMessageRequest = command.header()?;
    match PhysicalOffset::try_from(request.offset).ok().and_then(|offset| store.message_at(offset)) {
        Some(message) => Ok(Outcome::Reply(Reply::ok().body(message))),
        None => Err(Refusal::system_error(format!("can not find message by the offset, {}", request.offset))),
    }
}
