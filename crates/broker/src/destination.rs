//! Where a message goes instead of straight into the topic that it is for, what its properties say there, and the way back.
//!
//! What is to come later waits in a topic of the system: behind a delay level, until a given time, or, as a half, until its transaction
//! ends. What a consumer could not deal with goes into a topic of its group. Sends write their properties in one pass
//! ([`Destination::replaces`], [`Destination::push_marks`]); whatever is stored again edits them ([`Destination::divert`]).
//! Java: `HookUtils.handleScheduleMessage`, `TransactionalMessageBridge.parseHalfMessageInner`,
//! `AbstractSendMessageProcessor.consumerSendMsgBack`.

use std::fmt::Write as _;

use ferromq_protocol::QueueId;
use ferromq_protocol::body::SubscriptionGroup;
use ferromq_protocol::message::properties::{NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, names, property};
use ferromq_protocol::message::{OffsetMessageId, Properties, Record};
use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC, TRANSACTION_HALF_TOPIC, is_closed_to_producers};
use ferromq_store::DelayLevels;

use crate::places::readable_queue;
use crate::topics::Topics;

/// The one queue of the timer topic.
pub(crate) const TIMER_QUEUE: QueueId = QueueId(0);
/// The one queue of the half topic.
pub(crate) const HALF_QUEUE: QueueId = QueueId(0);

/// Client version from which a request's maxReconsumeTimes counts. Java: `MQVersion.Version.V3_4_9`.
const VERSION_3_4_9: i32 = 121;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Straight into the topic that it is for.
    Own,
    /// Straight into a topic of its group, its dead letters or a retry; the property says this level, which is no delay.
    GroupTopic { level: i32 },
    /// Into the schedule topic first.
    Delay(DelayQueue),
    /// Into the timer topic, until then, in ms since 1970.
    Timer { due_ms: i64 },
    /// Into the half topic, until its transaction ends. A delay level or a timer stays with the message and counts from the commit.
    Half,
}

/// The queue in which the messages of a delay level wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DelayQueue {
    /// As it will be stored: levels above the last one count as the last.
    pub level: i32,
    /// In [`SCHEDULE_TOPIC`].
    pub queue: QueueId,
}

impl DelayQueue {
    /// `None` for level 0 and below, which is no delay.
    pub(crate) fn of(level: i32, levels: &DelayLevels) -> Option<DelayQueue> {
        let asked = u32::try_from(level).ok().filter(|level| *level > 0)?;
        let last = u32::try_from(levels.count()).unwrap_or(u32::MAX).max(1);
        let level = asked.min(last);
        Some(DelayQueue { level: i32::try_from(level).ok()?, queue: QueueId(level - 1) })
    }
}

/// What a half says of itself.
const OF_A_HALF: &[&str] = &[
    names::TRANSACTION_ID,
    names::REAL_TOPIC,
    names::REAL_QUEUE_ID,
    names::TRANSACTION_CHECK_TIMES,
    names::TRANSACTION_PREPARED_QUEUE_OFFSET,
];

impl Destination {
    /// Of a message that is no half. A delay level wins over a given time, and then nobody looks whether that is one.
    pub(crate) fn later<E>(
        delay: Option<DelayQueue>,
        due_ms: impl FnOnce() -> Result<Option<i64>, E>,
    ) -> Result<Destination, E> {
        match delay {
            Some(delay) => Ok(Destination::Delay(delay)),
            None => Ok(due_ms()?.map_or(Destination::Own, |due_ms| Destination::Timer { due_ms })),
        }
    }

    /// Whether the message waits in a topic of the system.
    pub(crate) fn waits(self) -> bool {
        match self {
            Destination::Own | Destination::GroupTopic { .. } => false,
            Destination::Delay(_) | Destination::Timer { .. } | Destination::Half => true,
        }
    }

    /// Where a message is stored that is for this topic and queue.
    pub(crate) fn place(self, topic: &str, queue: QueueId) -> (&str, QueueId) {
        match self {
            Destination::Own | Destination::GroupTopic { .. } => (topic, queue),
            Destination::Delay(delay) => (SCHEDULE_TOPIC, delay.queue),
            Destination::Timer { .. } => (TIMER_TOPIC, TIMER_QUEUE),
            Destination::Half => (TRANSACTION_HALF_TOPIC, HALF_QUEUE),
        }
    }

    /// Properties that the broker alone sets there, or that mean nothing there.
    fn replaced(self) -> &'static [&'static str] {
        match self {
            Destination::Own => &[],
            Destination::GroupTopic { .. } => &[names::DELAY_TIME_LEVEL],
            // A timer beside a level does not count.
            Destination::Delay(_) => &[
                names::DELAY_TIME_LEVEL,
                names::REAL_TOPIC,
                names::REAL_QUEUE_ID,
                names::TIMER_DELAY_SEC,
                names::TIMER_DELAY_MS,
                names::TIMER_DELIVER_MS,
            ],
            Destination::Timer { .. } => &[names::TIMER_OUT_MS, names::REAL_TOPIC, names::REAL_QUEUE_ID],
            Destination::Half => OF_A_HALF,
        }
    }

    /// Whether a property is not taken over from the message as it came.
    pub(crate) fn replaces(self, name: &str) -> bool {
        self.replaced().contains(&name)
    }

    /// The level or the time that it says of itself there.
    fn mark(self) -> Option<(&'static str, i64)> {
        match self {
            Destination::Own | Destination::Half => None,
            Destination::GroupTopic { level } | Destination::Delay(DelayQueue { level, .. }) => {
                Some((names::DELAY_TIME_LEVEL, level.into()))
            }
            Destination::Timer { due_ms } => Some((names::TIMER_OUT_MS, due_ms)),
        }
    }

    /// Writes what the broker sets on a message for this topic and queue behind a text without what it [replaces](Self::replaces).
    pub(crate) fn push_marks(self, text: &mut String, topic: &str, queue: QueueId, unique_key: &str) {
        // Writing to a String cannot fail.
        if self.waits() {
            push_property(text, names::REAL_TOPIC, topic);
            let _ = write!(text, "{}{NAME_VALUE_SEPARATOR}{queue}{PROPERTY_SEPARATOR}", names::REAL_QUEUE_ID);
        }
        if let Some((name, number)) = self.mark() {
            let _ = write!(text, "{name}{NAME_VALUE_SEPARATOR}{number}{PROPERTY_SEPARATOR}");
        }
        if self == Destination::Half {
            push_property(text, names::TRANSACTION_ID, unique_key);
        }
    }

    /// Does to the properties of a message that is stored again what a send does while it writes them, and gives the place where it is
    /// stored. The level or time comes first here: the bytes are as they have always been.
    pub(crate) fn divert<'a>(self, properties: &mut Properties, topic: &'a str, queue: QueueId) -> (&'a str, QueueId) {
        for name in self.replaced() {
            properties.remove(name);
        }
        if let Some((name, number)) = self.mark() {
            properties.set(name, number);
        }
        if self.waits() {
            properties.set(names::REAL_TOPIC, topic);
            properties.set(names::REAL_QUEUE_ID, queue);
        }
        if self == Destination::Half {
            let key = properties.value(names::UNIQUE_KEY).unwrap_or_default().to_owned();
            properties.set(names::TRANSACTION_ID, key);
        }
        self.place(topic, queue)
    }
}

/// Appends one to the text of properties.
pub(crate) fn push_property(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push(NAME_VALUE_SEPARATOR);
    text.push_str(value);
    text.push(PROPERTY_SEPARATOR);
}

/// How often a group may be given a message: what its client says, if that is new enough, or the group's own setting.
pub(crate) fn tries_max(asked: Option<i32>, client_version: i32, group: &SubscriptionGroup) -> i32 {
    asked.filter(|_| client_version >= VERSION_3_4_9).unwrap_or(group.retry_max_times)
}

/// What a message that a consumer gives back says of where it comes from: the first time counts.
pub(crate) fn set_origin(properties: &mut Properties, record: &Record<'_>) {
    if !properties.contains(names::RETRY_TOPIC) {
        properties.set(names::RETRY_TOPIC, record.topic());
    }
    if !properties.contains(names::ORIGIN_MESSAGE_ID) {
        let origin = OffsetMessageId { host: record.store_host(), physical_offset: record.physical_offset() };
        properties.set(names::ORIGIN_MESSAGE_ID, origin);
    }
    properties.set(names::WAIT_STORE_MSG_OK, false);
}

/// Why a message that waited has no place to go to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OwnPlaceError {
    #[error("it does not say where it belongs")]
    NotSaid,
    #[error("it is for queue {queue:?}, which is no number of a queue")]
    Queue { queue: String },
    #[error("it is for {topic}, a topic of the system")]
    System { topic: String },
}

/// The way back: the topic and queue that a message that waited is for. Only what the broker decides by itself goes to a topic of the
/// system, never what properties say. One with a delay keeps its properties as they are when it gets there.
pub(crate) fn own_place<'a>(topics: &Topics, properties: &'a str) -> Result<(&'a str, QueueId), OwnPlaceError> {
    let (Some(topic), Some(queue)) =
        (property(properties, names::REAL_TOPIC), property(properties, names::REAL_QUEUE_ID))
    else {
        return Err(OwnPlaceError::NotSaid);
    };
    if is_closed_to_producers(topic) {
        return Err(OwnPlaceError::System { topic: topic.to_owned() });
    }
    let number = queue.parse::<i32>().ok().and_then(|queue| u32::try_from(queue).ok());
    let queue = number.ok_or_else(|| OwnPlaceError::Queue { queue: queue.to_owned() })?;
    Ok((topic, readable_queue(topics, topic, QueueId(queue))))
}

/// The properties of a message whose transaction is committed. The id of that stays, and `TRAN_MSG`: by them a consumer's client knows
/// the transaction.
pub(crate) fn restore_half(properties: &mut Properties) {
    for name in OF_A_HALF.iter().filter(|name| **name != names::TRANSACTION_ID) {
        properties.remove(name);
    }
    // It had to make room when the half was carried on.
    if !properties.contains(names::TRANSACTION_ID)
        && let Some(key) = properties.value(names::UNIQUE_KEY).map(str::to_owned)
    {
        properties.set(names::TRANSACTION_ID, key);
    }
}

/// The properties of a message whose time has come.
pub(crate) fn restore_timer(properties: &mut Properties, stored_ms: i64, now_ms: i64) {
    properties.set(names::TIMER_ENQUEUE_MS, stored_ms);
    properties.set(names::TIMER_DEQUEUE_MS, now_ms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferromq_protocol::message::properties;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn levels_above_the_last_are_the_last() {
        let levels: DelayLevels = DelayLevels::parse("1s 5s").unwrap();
        assert_eq!(DelayQueue::of(0, &levels), None);
        assert_eq!(DelayQueue::of(-1, &levels), None);
        assert_eq!(DelayQueue::of(2, &levels), Some(DelayQueue { level: 2, queue: QueueId(1) }));
        assert_eq!(DelayQueue::of(99, &levels), Some(DelayQueue { level: 2, queue: QueueId(1) }));
    }

    const NAMES: [&str; 14] = [
        names::UNIQUE_KEY,
        names::TAGS,
        names::DELAY_TIME_LEVEL,
        names::REAL_TOPIC,
        names::REAL_QUEUE_ID,
        names::TIMER_DELAY_SEC,
        names::TIMER_DELAY_MS,
        names::TIMER_DELIVER_MS,
        names::TIMER_OUT_MS,
        names::TRANSACTION_PREPARED,
        names::TRANSACTION_ID,
        names::TRANSACTION_CHECK_TIMES,
        names::TRANSACTION_PREPARED_QUEUE_OFFSET,
        names::RETRY_TOPIC,
    ];

    const DESTINATIONS: [Destination; 5] = [
        Destination::Own,
        Destination::GroupTopic { level: -1 },
        Destination::Delay(DelayQueue { level: 3, queue: QueueId(2) }),
        Destination::Timer { due_ms: 1_800_000_000_000 },
        Destination::Half,
    ];

    proptest! {
        /// And what waits says where it belongs; a half that has ended says nothing of it any more.
        #[test]
        fn a_send_and_whatever_is_stored_again_say_the_same(
            came in prop::collection::vec((select(&NAMES[1..]), "[a-z]{1,3}"), 0..12),
            destination in select(&DESTINATIONS[..]),
        ) {
            let mut came_text = String::from("UNIQ_KEY\u{1}K\u{2}");
            came.iter().for_each(|(name, value)| push_property(&mut came_text, name, value));
            let mut sent = String::new();
            for (name, value) in properties::pairs(&came_text).filter(|(name, _)| !destination.replaces(name)) {
                push_property(&mut sent, name, value);
            }
            destination.push_marks(&mut sent, "T", QueueId(7), "K");
            let mut again = Properties::parse(&came_text);
            let place = destination.divert(&mut again, "T", QueueId(7));
            for name in NAMES {
                prop_assert_eq!(property(&sent, name), again.value(name), "{}", name);
            }
            prop_assert_eq!(place, destination.place("T", QueueId(7)));
            prop_assert_eq!(place == ("T", QueueId(7)), !destination.waits());
            if destination.waits() {
                prop_assert_eq!(own_place_names(&again), [Some("T"), Some("7")]);
            }
            if destination == Destination::Half {
                restore_half(&mut again);
                prop_assert_eq!(again.value(names::TRANSACTION_ID), Some("K"));
                prop_assert_eq!(own_place_names(&again), [None; 2]);
                prop_assert_eq!(again.value(names::DELAY_TIME_LEVEL), property(&came_text, names::DELAY_TIME_LEVEL));
            }
        }
    }

    fn own_place_names(properties: &Properties) -> [Option<&str>; 2] {
        [names::REAL_TOPIC, names::REAL_QUEUE_ID].map(|name| properties.value(name))
    }
}
