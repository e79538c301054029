//! Producers are asked after transactions that have waited long enough; what nobody ends is put aside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::{
    TRANSACTION_CHECK_MAX_TIME_TOPIC, TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC, groups,
};
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use ferromq_store::{AppendError, Round, Want};
use tracing::{debug, error, warn};

use super::messages::{Place, give_up_age_ms};
use super::pending::{Ages, Half};
use super::{OpenTransactions, QUEUE};
use crate::missing;
use crate::save_after_flush::SaveAfterFlush;
use crate::topics::perm;
use crate::worker::Bell;

/// A half this far behind the end of its queue is copied there even if nobody can be asked, so that a start need not read more.
const BEHIND_MAX: u64 = 50_000;
/// How often it is noted down from where the queues must be read at the next start.
const NOTE_PERIOD: Duration = Duration::from_secs(5);

/// Where the next start would begin to read the queues.
struct Start {
    half: QueueOffset,
    op: QueueOffset,
    /// No half is open before it in the log.
    free: PhysicalOffset,
}

impl OpenTransactions {
    pub(super) fn run(&self, bell: &Arc<Bell>) {
        let mut last_round = Instant::now();
        let mut start = SaveAfterFlush::default();
        while bell.begins() {
            let interval = Duration::from_millis(self.parts.config.current().transaction_check_interval);
            let left = interval.saturating_sub(last_round.elapsed());
            bell.sleep(i64::MAX, Some(left.min(NOTE_PERIOD)));
            if bell.is_stopping() {
                return;
            }
            if last_round.elapsed() >= interval {
                last_round = Instant::now();
                self.round(bell);
            }
            self.carry(bell);
            self.note_start(&mut start, bell);
        }
    }

    /// Asks after every transaction that is old enough. What holds up one of them holds up no other.
    pub(super) fn round(&self, bell: &Bell) {
        let config = self.parts.config.current().clone();
        let Some(bounds) = self.parts.store.queue_bounds(TRANSACTION_HALF_TOPIC, QUEUE) else { return };
        let ages = Ages {
            asked: i64::try_from(config.transaction_time_out).unwrap_or(i64::MAX),
            given_up: give_up_age_ms(&config),
        };
        let mut from = QueueOffset(0);
        let mut failed = None;
        while !bell.is_stopping() {
            let now = self.parts.forward.now_ms();
            // Copies made in this round are behind its end.
            let Some(half) = self.pending.lock().next_due(from, bounds.max, now, ages).cloned() else { break };
            from = half.queue_offset.next();
            let is_over = half.is_too_old(now, ages);
            let checked = match self.check(&half, bounds.max, config.transaction_check_max, is_over) {
                Err(error) if error.is_of_the_message() => self.leave_out(&self.parts.store.round(), &half, &error),
                checked => checked,
            };
            if let Err(error) = checked {
                let goes_on = is_of_one(&error);
                failed.get_or_insert((half.queue_offset, error));
                if !goes_on {
                    break;
                }
            }
        }
        if let Some((first, error)) = failed {
            warn!(%first, %error, "transactions cannot be checked now; trying again at the next interval");
        }
    }

    /// Asks after one, or gives it up, as in any case if its time `is_over`. `end` is that of the half queue.
    fn check(&self, half: &Half, end: QueueOffset, checks_max: u32, is_over: bool) -> Result<(), AppendError> {
        let round = &self.parts.store.round();
        if half.lacks_op_only() {
            return self.end_without(round, half.queue_offset, half.put_aside);
        }
        let found = missing::look_up(&self.parts.store, "a half message", half.physical).map_err(missing::not_now)?;
        let Some(bytes) = found else {
            self.pending.lock().remove(half.queue_offset);
            return Ok(());
        };
        let record = Record::parse(&bytes)?;
        self.parts.count_read(TRANSACTION_HALF_TOPIC, bytes.len());
        let mut properties = Properties::parse(&record.properties());
        let checks: u32 =
            properties.value(names::TRANSACTION_CHECK_TIMES).and_then(|times| times.parse().ok()).unwrap_or(0);
        if checks >= checks_max || is_over {
            return self.give_up(round, half, &record);
        }
        let group = properties.value(names::PRODUCER_GROUP).unwrap_or_default();
        let producer = self.parts.clients.next_producer(group);
        // Nobody there to be asked does not count as a question: Java counts it, and gives up what a group left behind that was away for
        // some minutes.
        if producer.is_none() && end.0.saturating_sub(half.queue_offset.0) < BEHIND_MAX {
            debug!(group, "no producer is connected that could be asked after its transaction");
            return Ok(());
        }
        properties.set(names::TRANSACTION_CHECK_TIMES, checks.saturating_add(u32::from(producer.is_some())));
        if !properties.contains(names::TRANSACTION_PREPARED_QUEUE_OFFSET) {
            properties.set(names::TRANSACTION_PREPARED_QUEUE_OFFSET, half.first());
        }
        let copy = NewMessage::copy_of(&record, TRANSACTION_HALF_TOPIC, QUEUE, properties.as_str());
        let place = match round.append_again(&copy) {
            Ok(appended) => {
                self.parts.statistics.stored(TRANSACTION_HALF_TOPIC, &appended);
                self.moved(half, &appended, round)?;
                Place { queue: appended.queue_offset, log: appended.physical_offset, time: appended.store_timestamp }
            }
            // Its properties were at the limit. It is asked after where it is.
            Err(error) if error.is_of_the_message() => {
                properties = Properties::parse(&record.properties());
                Place { queue: half.queue_offset, log: half.physical, time: record.store_timestamp() }
            }
            Err(error) => return Err(error),
        };
        let still_open = self.pending.lock().get(place.queue).is_some_and(|half| !half.ended);
        if let Some(producer) = producer.filter(|_| still_open)
            && let Err(error) = producer.oneway(self.parts.question(&record, &properties, &place)?)
        {
            debug!(peer = %producer.peer_addr(), %error, "a producer was not asked after its transaction");
        }
        Ok(())
    }

    /// Puts a half where an operator finds it, and ends its transaction without storing its message.
    fn give_up(&self, round: &Round<'_>, half: &Half, record: &Record<'_>) -> Result<(), AppendError> {
        if self.pending.lock().get(half.queue_offset).is_none() {
            return Ok(());
        }
        let made = self.parts.topics.find_or_create(TRANSACTION_CHECK_MAX_TIME_TOPIC, 1, perm::READ_WRITE, false, 0);
        if let Err(error) = made {
            // The half is stored there all the same.
            warn!(topic = TRANSACTION_CHECK_MAX_TIME_TOPIC, %error, "the topic for halves that are put aside is not made");
        }
        let text = record.properties();
        round.append_again(&NewMessage::copy_of(record, TRANSACTION_CHECK_MAX_TIME_TOPIC, QUEUE, &text))?;
        warn!(
            queue_offset = %half.queue_offset, topic = TRANSACTION_CHECK_MAX_TIME_TOPIC,
            "a transaction had no end after all checks; its half message is put aside"
        );
        self.end_without(round, half.queue_offset, true)
    }

    /// Ends a transaction that can neither be asked after nor put aside. Its half stays where it is, so who reads the log can look after
    /// it.
    fn leave_out(&self, round: &Round<'_>, half: &Half, why: &AppendError) -> Result<(), AppendError> {
        error!(physical_offset = %half.physical, queue_offset = %half.queue_offset, %why, "a half message cannot be stored again and is left out");
        self.end_without(round, half.queue_offset, false)
    }

    /// Notes down, as the offsets of a consumer group, from where the queues must be read: what was true at the last call, once the log is
    /// on disk up to where it was then.
    fn note_start(&self, noted: &mut SaveAfterFlush<Start>, bell: &Arc<Bell>) {
        if let Some(start) = noted.take_flushed(self.parts.store.watermarks().flushed) {
            // What was stored and not yet in the table then is in it now.
            let (half, op, lowest) = {
                let mut pending = self.pending.lock();
                let (half, op) = pending.start(start.half, start.op);
                (half, op, pending.lowest_place())
            };
            self.carrying.free_up_to(lowest.map_or(start.free, |lowest| lowest.min(start.free)));
            for (topic, offset) in [(TRANSACTION_HALF_TOPIC, half), (TRANSACTION_OP_HALF_TOPIC, op)] {
                if self.parts.noted(topic) != offset {
                    self.parts.offsets.commit(topic, groups::TRANSACTION, QUEUE, offset.as_i64());
                }
            }
        }
        if !noted.is_waiting() {
            let end = |topic| self.parts.store.queue_bounds(topic, QUEUE).unwrap_or_default().max;
            // The queues' ends first and the log's last: what comes meanwhile is read once more, and is on disk before it counts.
            let ends = (end(TRANSACTION_HALF_TOPIC), end(TRANSACTION_OP_HALF_TOPIC));
            let (start, lowest) = {
                let mut pending = self.pending.lock();
                (pending.start(ends.0, ends.1), pending.lowest_place())
            };
            let log = self.parts.store.watermarks().written;
            let free = lowest.map_or(log, |lowest| lowest.min(log));
            noted.wait_for(log, Start { half: start.0, op: start.1, free });
            if self.carrying.wanted().is_some() {
                let bell = Arc::clone(bell);
                self.parts.store.when_safe(log, Want::Disk, move |_| bell.wake());
            }
        }
    }
}

/// Whether a failure says nothing of other transactions: then a round goes on.
pub(super) fn is_of_one(error: &AppendError) -> bool {
    match error {
        // Nobody is asked without a copy there.
        AppendError::QueueBehind { topic, .. } => topic != TRANSACTION_HALF_TOPIC,
        AppendError::CannotRead { .. } => true,
        error => error.is_of_the_message(),
    }
}

#[cfg(test)]
mod tests {
    use ferromq_store::Effort;
    use std::sync::atomic::Ordering;

    use crate::testing::{NO_DESCRIPTORS, wait_refused};
    use crate::transactions::house::{house, house_with};

    #[test]
    fn a_clock_that_is_set_makes_no_transaction_older_or_younger() {
        const HOUR: i64 = 3_600_000;
        for by_ms in [-HOUR, HOUR, 100 * HOUR] {
            let house = house();
            house.begin("");
            house.begin("CHECK_IMMUNITY_TIME_IN_SECONDS\u{1}60\u{2}");
            house.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
            house.pass(6_000);
            assert_eq!(house.open(), 2, "set by {by_ms}");
            house.pass(1);
            assert_eq!(house.open(), 1, "set by {by_ms}");
            house.pass(53_999);
            assert_eq!(house.open(), 1, "set by {by_ms}");
            house.pass(1);
            assert_eq!(house.open(), 0, "set by {by_ms}");
            house.store.close().unwrap();
        }
    }

    #[test]
    fn a_transaction_is_given_up_after_the_time_that_files_are_kept() {
        const HOUR: i64 = 3_600_000;
        for (kept, hours) in [(1, 1), (72, 72), (0, 1)] {
            // Nobody is there to be asked.
            let house = house_with(9);
            let config = &house.transactions.table.parts.config;
            config.update(&[("fileReservedTime", kept.to_string())]).unwrap();
            house.begin("");
            house.see();
            house.pass(hours * HOUR);
            assert_eq!(house.open(), 1, "{kept} hours");
            house.pass(1);
            assert_eq!(house.open(), 0, "{kept} hours");
        }
    }

    #[test]
    fn a_producers_clock_that_is_behind_leaves_time_to_be_asked() {
        const HOUR: i64 = 3_600_000;
        for (kept, behind_ms) in [(4, 8 * HOUR), (4, 3 * HOUR), (1, HOUR / 2), (4, 2 * HOUR - 1), (72, 30 * HOUR)] {
            let house = house_with(9);
            house.transactions.table.parts.config.update(&[("fileReservedTime", kept.to_string())]).unwrap();
            house.begin_born(house.wall_ms.load(Ordering::SeqCst) - behind_ms, "");
            house.see();
            house.pass(kept * HOUR / 2);
            assert_eq!(house.open(), 1, "{behind_ms} ms behind, {kept} hours");
            let again = house.opened_again().unwrap();
            again.table.round(again.worker.bell());
            assert_eq!(again.table.pending.lock().len(), 1, "{behind_ms} ms behind, {kept} hours");
            house.pass(kept * HOUR / 2 + 1);
            assert_eq!(house.open(), 0, "it is given up in the end");
        }
    }

    #[test]
    fn a_transaction_that_cannot_be_checked_now_holds_up_no_other() {
        let house = house();
        let first = house.begin("");
        house.begin("");
        house.see();
        house.disk.refuse("/commitlog/", 0..first.end.0, NO_DESCRIPTORS);
        wait_refused(|| house.store.message_at(first.physical_offset, Effort::Full));
        house.pass(6_001);
        assert_eq!(house.open(), 1);
        house.disk.recover();
        assert_eq!(house.open(), 0);
    }
}
