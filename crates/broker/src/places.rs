//! What the broker believes of what it is told about places: one in the log that a client names, and a queue of a topic that has
//! changed meanwhile.
//!
//! Any bytes of any message can look like a record, so a record counts only where a queue, which the broker alone writes, has it.

use ferromq_protocol::QueueId;
use ferromq_protocol::message::Record;
use ferromq_store::{Effort, ReadError, Store};

use crate::topics::Topics;

/// Queues tried for a message whose own one takes none.
const OTHERS_MAX: usize = 8;

/// Whether the queue that a record says it is in has it at that place. One that is not visible yet is in none.
pub(crate) fn is_in_its_queue(store: &Store, record: &Record<'_>, effort: Effort) -> Result<bool, ReadError> {
    let entry = store.queue_entry(record.topic(), record.queue_id(), record.queue_offset(), effort)?;
    Ok(entry.is_some_and(|entry| entry.physical == record.physical_offset()))
}

/// The queue itself, or another one if the topic has had queues taken away meanwhile: in that one nobody would see the message. Java
/// stores it there.
pub(crate) fn readable_queue(topics: &Topics, topic: &str, queue: QueueId) -> QueueId {
    let Some(topic) = topics.find(topic) else { return queue };
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    let (read, write) = (count(topic.read_queue_nums), count(topic.write_queue_nums));
    if queue.0 < read.max(write) || read == 0 { queue } else { QueueId(queue.0 % read) }
}

/// Other queues of the topic that are read, beginning with the next one.
pub(crate) fn other_queues(topics: &Topics, topic: &str, queue: QueueId) -> impl Iterator<Item = QueueId> {
    let read = topics.find(topic).and_then(|topic| u32::try_from(topic.read_queue_nums).ok()).unwrap_or(0);
    (1..read)
        .take(OTHERS_MAX)
        .map(move |step| QueueId((queue.0 % read + step) % read))
        .filter(move |other| *other != queue)
}
