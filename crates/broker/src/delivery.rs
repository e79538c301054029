//! A message whose time has come is stored where it belongs: one out of a delay level, or one for a given time.
//!
//! A queue of its topic that takes no messages for the moment must not hold up what is behind it for other topics, so there is always
//! something to be done: another queue of the topic takes it, or it waits once more. It also waits once more, in another segment, when its
//! own goes before its time comes.

use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC};
use ferromq_store::{AppendError, AppendedMessage, Store};
use tracing::debug;

use crate::destination::Destination;
use crate::places;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// How long a message waits once more, as one for a given time. Its copies fill the log meanwhile, so not too short.
pub(crate) const WAIT_MS: i64 = 10_000;

/// Stores `message`, whose time has come, and gives the place of the copy; `waited` is the record out of which it was made.
pub(crate) fn deliver(
    waited: &Record<'_>,
    message: &NewMessage<'_>,
    now_ms: i64,
    (store, topics, statistics): (&Store, &Topics, &Statistics),
) -> Result<AppendedMessage, AppendError> {
    let others = places::other_queues(topics, message.topic, message.queue_id);
    for queue_id in [message.queue_id].into_iter().chain(others) {
        match store.append_again(&NewMessage { queue_id, ..*message }) {
            Err(AppendError::QueueBehind { .. }) => {}
            Err(error) => return Err(error),
            Ok(appended) => {
                statistics.stored(message.topic, &appended);
                return Ok(appended);
            }
        }
    }
    let due_ms = now_ms.saturating_add(WAIT_MS);
    debug!(topic = message.topic, due_ms, "no queue of the topic takes messages now: one waits once more");
    match wait_until(due_ms, waited, message, |waiting| store.append_again(waiting)) {
        // Without room to say until when, or with the timers behind too, one of a delay level waits that delay again: it fits there,
        // because it has been there.
        Err(error) if waited.topic() == SCHEDULE_TOPIC && can_wait_elsewhere(&error) => {
            wait_once_more(waited, |waiting| store.append_again(waiting))
        }
        waits => waits,
    }
}

/// Stores `message`, made out of the record `waited` of a delay level, so that it waits behind in the log until `due_ms`.
pub(crate) fn carry(
    waited: &Record<'_>,
    message: &NewMessage<'_>,
    due_ms: i64,
    store: &Store,
) -> Result<AppendedMessage, AppendError> {
    match wait_until(due_ms, waited, message, |waiting| store.append_carried(waiting)) {
        // As above. Late is better than lost.
        Err(error) if error.is_of_the_message() => wait_once_more(waited, |waiting| store.append_carried(waiting)),
        waits => waits,
    }
}

/// Puts it among the timers.
fn wait_until(
    due_ms: i64,
    waited: &Record<'_>,
    message: &NewMessage<'_>,
    append: impl FnOnce(&NewMessage<'_>) -> Result<AppendedMessage, AppendError>,
) -> Result<AppendedMessage, AppendError> {
    // What it said while it waited: a timer has room for its time already.
    let mut properties = Properties::parse(&waited.properties());
    if waited.topic() != TIMER_TOPIC {
        // Only among the timers does it mean something: that this is no message but takes one back.
        properties.remove(names::TIMER_DEL_UNIQKEY);
    }
    let (topic, queue_id) = Destination::Timer { due_ms }.divert(&mut properties, message.topic, message.queue_id);
    append(&NewMessage { topic, queue_id, properties: properties.as_str(), ..*message })
}

/// Puts it where it has waited.
fn wait_once_more(
    waited: &Record<'_>,
    append: impl FnOnce(&NewMessage<'_>) -> Result<AppendedMessage, AppendError>,
) -> Result<AppendedMessage, AppendError> {
    let text = waited.properties();
    append(&NewMessage::copy_of(waited, waited.topic(), waited.queue_id(), &text))
}

/// The timers do not take this message, others they may.
fn can_wait_elsewhere(error: &AppendError) -> bool {
    error.is_of_the_message() || matches!(error, AppendError::QueueBehind { .. })
}
