//! A message whose time has come is stored where it belongs: one out of a delay level, or one for a given time.
//!
//! A queue of its topic that takes no messages for the moment must not hold up what is behind it for other topics, so there is always
//! something to be done: another queue of the topic takes it, or it waits once more.

use ferromq_protocol::message::{NewMessage, Properties};
use ferromq_store::{AppendError, AppendedMessage, Store};
use tracing::debug;

use crate::destination::Destination;
use crate::places;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// How long a message waits once more, as one for a given time. Its copies fill the log meanwhile, so not too short.
const WAIT_MS: i64 = 10_000;

/// Stores it, and gives the place of the copy.
pub(crate) fn deliver(
    message: &NewMessage<'_>,
    now_ms: i64,
    (store, topics, statistics): (&Store, &Topics, &Statistics),
) -> Result<AppendedMessage, AppendError> {
    let mut behind = None;
    let others = places::other_queues(topics, message.topic, message.queue_id);
    for queue_id in [message.queue_id].into_iter().chain(others) {
        match store.append_again(&NewMessage { queue_id, ..*message }) {
            Err(error @ AppendError::QueueBehind { .. }) => _ = behind.get_or_insert(error),
            Err(error) => return Err(error),
            Ok(appended) => {
                statistics.sent(message.topic, 1, u64::try_from(appended.record_len).unwrap_or(u64::MAX));
                return Ok(appended);
            }
        }
    }
    let mut properties = Properties::parse(message.properties);
    let due_ms = now_ms.saturating_add(WAIT_MS);
    let (topic, queue_id) = Destination::Timer { due_ms }.divert(&mut properties, message.topic, message.queue_id);
    let waiting = NewMessage { topic, queue_id, properties: properties.as_str(), ..*message };
    match (store.append_again(&waiting), behind) {
        // Without room to say until when it waits it stays where it is.
        (Err(error), Some(behind)) if error.is_of_the_message() => Err(behind),
        (waits, _) => {
            debug!(topic = message.topic, due_ms, "no queue of the topic takes messages now: one waits once more");
            waits
        }
    }
}
