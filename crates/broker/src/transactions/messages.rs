//! What the messages of a transaction say: halves and their copies, op messages, what is committed, and questions.

use ferromq_protocol::header::CheckTransactionRequest;
use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{
    NewMessage, OffsetMessageId, Properties, Record, RecordError, SysFlag, TransactionKind, stamp_record,
};
use ferromq_protocol::topics::{TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC, groups};
use ferromq_protocol::{Command, PhysicalOffset, QueueOffset, RequestCode};
use ferromq_store::{AppendError, AppendedMessage, Round};
use tracing::error;

use super::pending::Half;
use super::{EndError, QUEUE, TransactionParts};
use crate::clock::now_ms;
use crate::config::BrokerConfig;
use crate::destination::{self, DelayQueue, Destination};
use crate::timers::TimerWish;

/// Tag of op messages. Java: `TransactionalMessageUtil.REMOVE_TAG`.
const OP_TAG: &str = "d";

impl TransactionParts {
    /// Stores the message of a half where its producer wanted it, or where it waits for its time.
    pub(super) fn store_committed(&self, round: &Round<'_>, record: &Record<'_>) -> Result<PhysicalOffset, EndError> {
        let undeliverable = |reason: String| {
            error!(physical_offset = %record.physical_offset(), reason, "a half message cannot be committed");
            EndError::Undeliverable { reason }
        };
        let mut properties = Properties::parse(&record.properties());
        let (topic, queue) = destination::own_place(&self.topics, properties.as_str())
            .map(|(topic, queue)| (topic.to_owned(), queue))
            .map_err(|error| undeliverable(error.to_string()))?;
        destination::restore_half(&mut properties);
        let level = match properties.value(names::DELAY_TIME_LEVEL) {
            Some(level) => level.parse().map_err(|_| undeliverable(format!("the delay level {level} is no number")))?,
            None => 0,
        };
        // How far ahead it may be was looked at when the half was sent.
        let due_ms = || TimerWish::in_properties(properties.as_str()).due_ms(now_ms(), u32::MAX);
        let destination = Destination::later(DelayQueue::of(level, &self.levels), due_ms)
            .map_err(|error| undeliverable(error.to_string()))?;
        let (stored_topic, stored_queue) = destination.divert(&mut properties, &topic, queue);
        let message = NewMessage {
            sys_flag: record.sys_flag().with_transaction(TransactionKind::Commit),
            store_host: self.store_host,
            prepared_transaction_offset: record.physical_offset().as_i64(),
            ..NewMessage::copy_of(record, stored_topic, stored_queue, properties.as_str())
        };
        let appended = round.append_again(&message)?;
        self.statistics.stored(stored_topic, &appended);
        Ok(appended.end)
    }

    /// Stores the op message that ends a half.
    pub(super) fn store_op(&self, half: &Half, round: &Round<'_>) -> Result<AppendedMessage, AppendError> {
        use std::fmt::Write as _;
        let mut body = String::new();
        for copy in half.copies() {
            // Writing to a String cannot fail.
            let _ = write!(body, "{copy},");
        }
        let mut properties = Properties::new();
        properties.set(names::TAGS, OP_TAG);
        let op = NewMessage {
            topic: TRANSACTION_OP_HALF_TOPIC,
            queue_id: QUEUE,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: now_ms(),
            born_host: self.store_host,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: properties.as_str(),
        };
        let appended = round.append_again(&op)?;
        self.statistics.stored(TRANSACTION_OP_HALF_TOPIC, &appended);
        Ok(appended)
    }

    /// CHECK_TRANSACTION_STATE with the half as the message that it is to become.
    pub(super) fn question(
        &self,
        record: &Record<'_>,
        properties: &Properties,
        at: &Place,
    ) -> Result<Command, RecordError> {
        let (topic, queue) = destination::own_place(&self.topics, properties.as_str()).unwrap_or_default();
        let mut body = Vec::new();
        NewMessage::copy_of(record, topic, queue, properties.as_str()).encode(&mut body)?;
        stamp_record(&mut body, at.queue, at.log, at.time);
        let key = properties.value(names::UNIQUE_KEY);
        let offset_id = OffsetMessageId { host: record.store_host(), physical_offset: at.log };
        let header = CheckTransactionRequest {
            topic: Some(TRANSACTION_HALF_TOPIC.into()),
            tran_state_table_offset: at.queue.as_i64(),
            commit_log_offset: at.log.as_i64(),
            msg_id: key.map(Into::into),
            transaction_id: key.map(Into::into),
            offset_msg_id: Some(offset_id.to_string().into()),
        };
        Ok(Command::request(RequestCode::CHECK_TRANSACTION_STATE, &header)
            .with_field("bname", self.config.broker_name())
            .with_body(body))
    }

    /// A half or an op message was read, as Java's broker reads them: as a group of its own, which tools watch. Java:
    /// `TransactionalMessageBridge.getMessage`.
    pub(super) fn count_read(&self, topic: &str, record_len: usize) {
        self.statistics.delivered(topic, groups::TRANSACTION, 1, u64::try_from(record_len).unwrap_or(u64::MAX));
    }
}

/// Where and when a copy of a half was stored.
pub(super) struct Place {
    pub queue: QueueOffset,
    pub log: PhysicalOffset,
    pub time: i64,
}

/// Of what a producer's clock says of a message that has just come, no more than this is believed, in ms: not yet to be made, or made days
/// before, it cannot have been.
const BELIEVED_MS: i64 = 24 * 3_600_000;

/// Age at which a transaction is given up, in ms: that at which its half would go with Java, but an hour at least. Java:
/// `TransactionalMessageServiceImpl.needSkip`.
pub(super) fn give_up_age_ms(config: &BrokerConfig) -> i64 {
    i64::try_from(config.file_reserved_time).unwrap_or(i64::MAX).max(1).saturating_mul(3_600_000)
}

/// What is believed of a producer's clock, in ms: whatever that says of a transaction that has just begun, there is as much time again to ask
/// for its end before it is given up. A copy may be as old as a half can get, and one that is older is over.
pub(super) fn believed_ms(give_up_ms: i64, is_copy: bool) -> i64 {
    if is_copy { give_up_ms.saturating_mul(2).max(BELIEVED_MS) } else { BELIEVED_MS.min(give_up_ms / 2) }
}

/// How old a message was when it was stored, in ms, as far as its producer's clock can be right.
pub(super) fn age_when_stored(born_ms: i64, stored_ms: i64, believed_ms: i64) -> i64 {
    let age_ms = stored_ms.saturating_sub(born_ms);
    if (0..believed_ms).contains(&age_ms) { age_ms } else { 0 }
}

/// Where the first copy of a half is or was, if this is not it.
pub(super) fn first_copy(record: &Record<'_>) -> Option<QueueOffset> {
    record.property(names::TRANSACTION_PREPARED_QUEUE_OFFSET)?.parse().ok().map(QueueOffset)
}

/// The copies that a half stands for as far as it says so itself.
pub(super) fn named_copies(record: &Record<'_>) -> impl Iterator<Item = QueueOffset> {
    [record.queue_offset()].into_iter().chain(first_copy(record))
}

/// `CHECK_IMMUNITY_TIME_IN_SECONDS`; text that is no number, and -1, count as not set, as in Java.
pub(super) fn immunity_ms(seconds: &str) -> Option<i64> {
    seconds.parse::<i64>().ok().filter(|seconds| *seconds != -1).map(|seconds| seconds.saturating_mul(1000))
}

/// The halves that an op message ends: numbers with commas (5.x), or one alone (4.x).
pub(super) fn ended_by(body: &[u8]) -> impl Iterator<Item = QueueOffset> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split(',').filter_map(|number| number.trim().parse().ok()).map(QueueOffset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transactions::house::house;
    use ferromq_protocol::topics::SCHEDULE_TOPIC;

    #[test]
    fn op_messages_of_both_lines_are_understood() {
        let halves = |body: &str| ended_by(body.as_bytes()).map(|half| half.0).collect::<Vec<_>>();
        assert_eq!(halves("12,13,"), [12, 13]);
        assert_eq!(halves("7"), [7]);
        assert_eq!(halves("x,-3,"), [] as [u64; 0]);
    }

    #[test]
    fn a_timer_beside_a_delay_level_keeps_no_half_from_being_committed() {
        let timers = [
            "TIMER_DELAY_SEC\u{1}soon\u{2}",
            "TIMER_DELIVER_MS\u{1}99999999999999999999\u{2}",
            "TIMER_DELIVER_MS\u{1}1\u{2}TIMER_DEL_UNIQKEY\u{1}T+K\u{2}",
        ];
        let house = house();
        for (count, timer) in (1..).zip(timers) {
            let half = house.begin(&format!("DELAY\u{1}1\u{2}{timer}"));
            house.end(&half, true).unwrap();
            house.see();
            assert_eq!(house.count(SCHEDULE_TOPIC), count, "{timer}");
        }
    }

    #[test]
    fn a_producers_clock_is_believed_within_reason() {
        const STORED: i64 = 1_800_000_000_000;
        assert_eq!(age_when_stored(STORED - 5, STORED, BELIEVED_MS), 5);
        let wrong = [0, STORED + 1, i64::MIN, i64::MAX];
        assert_eq!(wrong.map(|born| age_when_stored(born, STORED, BELIEVED_MS)), [0; 4]);
    }

    #[test]
    fn immunity_is_a_number_of_seconds_or_nothing() {
        assert_eq!([immunity_ms("5"), immunity_ms("-1"), immunity_ms("soon")], [Some(5000), None, None]);
    }
}
