//! What the store notes of its tables in the log itself, in order with the messages: so far, that a topic's queues were deleted.
//!
//! A record of a topic that nobody can send to, marked as a half message so that no broker, ours or Java's, gives it a queue
//! entry. Whoever puts the log's records into queues once more learns there what must not come back.

use std::net::SocketAddr;

use ferromq_protocol::QueueId;
use ferromq_protocol::message::{NewMessage, Record, RecordError, SysFlag, TransactionKind};
use ferromq_protocol::topics::TABLE_CHANGES_TOPIC;

const DELETED_TOPIC: &str = "DELETED_TOPIC";
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// The record that says that the queues of `topic` are no more.
pub fn topic_deleted(topic: &str, now_ms: i64) -> Result<Vec<u8>, RecordError> {
    let properties = format!("{DELETED_TOPIC}\u{1}{topic}\u{2}");
    let mut record = Vec::new();
    NewMessage {
        topic: TABLE_CHANGES_TOPIC,
        queue_id: QueueId(0),
        flag: 0,
        sys_flag: SysFlag(SysFlag::TRANSACTION_PREPARED),
        born_timestamp: now_ms,
        born_host: NOWHERE,
        store_host: NOWHERE,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"",
        properties: &properties,
    }
    .encode(&mut record)?;
    Ok(record)
}

/// The topic whose queues were deleted where `record` stands, if that is what it says.
pub fn deleted_topic(record: &Record<'_>) -> Option<String> {
    let is_change =
        record.topic() == TABLE_CHANGES_TOPIC && record.sys_flag().transaction() == TransactionKind::Prepared;
    if is_change { record.property(DELETED_TOPIC).map(|topic| topic.into_owned()) } else { None }
}
