//! A stored message once more, for another place: what retries, delayed messages and transactions are made of.

use ferromq_protocol::QueueId;
use ferromq_protocol::message::{NewMessage, Record};

/// The message of `record` as a new one with this topic, queue and property string. Everything else is the record's; callers
/// replace what must be theirs.
pub(crate) fn copy_of<'a>(
    record: &Record<'a>,
    topic: &'a str,
    queue_id: QueueId,
    properties: &'a str,
) -> NewMessage<'a> {
    NewMessage {
        topic,
        queue_id,
        flag: record.flag(),
        sys_flag: record.sys_flag(),
        born_timestamp: record.born_timestamp(),
        born_host: record.born_host(),
        store_host: record.store_host(),
        reconsume_times: record.reconsume_times(),
        prepared_transaction_offset: 0,
        body: record.body(),
        properties,
    }
}
