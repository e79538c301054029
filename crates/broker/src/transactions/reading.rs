//! What is pending is read at a start: out of the half queue, less what the op queue says has ended.

use ferromq_protocol::QueueOffset;
use ferromq_protocol::message::Record;
use ferromq_protocol::message::properties::{names, property};
use ferromq_protocol::topics::{TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC, groups};
use ferromq_store::ReadError;

use super::messages::{age_when_stored, believed_ms, ended_by, first_copy, give_up_age_ms, immunity_ms};
use super::pending::{Half, PendingHalves};
use super::{QUEUE, TransactionParts};
use crate::missing;

impl TransactionParts {
    /// From where the queue of `topic` is read at a start.
    pub(super) fn noted(&self, topic: &str) -> QueueOffset {
        self.offsets.committed(topic, groups::TRANSACTION, QUEUE).unwrap_or_default()
    }

    /// What they say of their age is by the wall clock, which shows `wall_ms` now.
    pub(super) fn read_halves(&self, pending: &mut PendingHalves, wall_ms: i64) -> Result<(), ReadError> {
        let forward_ms = self.forward.now_ms();
        let give_up_ms = give_up_age_ms(&self.config.current());
        self.for_each(TRANSACTION_HALF_TOPIC, self.noted(TRANSACTION_HALF_TOPIC), |record| {
            let text = record.properties();
            let first = first_copy(record);
            // Stored later than now: the clock was set back meanwhile.
            let age_ms = wall_ms.saturating_sub(record.store_timestamp()).max(0);
            let stored_ms = forward_ms.saturating_sub(age_ms);
            let earlier = first.and_then(|first| pending.remove(first));
            let believed_ms = believed_ms(give_up_ms, first.is_some());
            let age_ms = age_when_stored(record.born_timestamp(), record.store_timestamp(), believed_ms);
            let born_ms = stored_ms.saturating_sub(age_ms);
            let (older, first_stored_ms, born_ms) = match earlier {
                Some(mut earlier) => {
                    earlier.older.push(earlier.queue_offset);
                    (earlier.older, earlier.stored_ms, earlier.born_ms)
                }
                None => (first.into_iter().collect(), stored_ms, born_ms),
            };
            pending.insert(Half {
                queue_offset: record.queue_offset(),
                physical: record.physical_offset(),
                older,
                born_ms,
                stored_ms: first_stored_ms,
                immunity_ms: property(&text, names::CHECK_IMMUNITY_TIME_IN_SECONDS).and_then(immunity_ms),
                ended: false,
                put_aside: false,
            });
        })
    }

    pub(super) fn read_ops(&self, pending: &mut PendingHalves) -> Result<(), ReadError> {
        self.for_each(TRANSACTION_OP_HALF_TOPIC, self.noted(TRANSACTION_OP_HALF_TOPIC), |record| {
            let mut highest = None;
            for half in ended_by(record.body()) {
                pending.remove(half);
                highest = highest.max(Some(half));
            }
            if let Some(highest) = highest {
                pending.marked(record.queue_offset(), highest);
            }
        })
    }

    /// Every record of a queue from there on, but for those that are damaged.
    fn for_each(&self, topic: &str, from: QueueOffset, mut act: impl FnMut(&Record<'_>)) -> Result<(), ReadError> {
        const WHAT: &str = "a message of a transaction";
        let Some(bounds) = self.store.queue_bounds(topic, QUEUE) else { return Ok(()) };
        let mut next = from.clamp(bounds.min, bounds.max);
        while next < bounds.max {
            let at = next;
            next = at.next();
            let Some(entry) = missing::look_up_entry(&self.store, WHAT, topic, QUEUE, at)? else { continue };
            let Some(bytes) = missing::look_up(&self.store, WHAT, entry.physical)? else { continue };
            // Looked up by its place, it can be read.
            let Ok(record) = Record::parse(&bytes) else { continue };
            self.count_read(topic, bytes.len());
            act(&record);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ferromq_store::Effort;

    use super::*;
    use crate::testing::{BAD_SECTOR, NO_DESCRIPTORS, wait_refused};
    use crate::transactions::house::{house, house_with};

    #[test]
    fn a_half_is_as_old_as_before_after_a_start() {
        const HOUR: i64 = 3_600_000;
        for is_first_read in [true, false] {
            let house = house_with(9);
            let half = house.begin("");
            house.see();
            house.pass(71 * HOUR);
            let table = &house.transactions.table;
            let known = table.pending.lock().get(half.queue_offset).cloned().unwrap();
            table.carry_one(&known).unwrap();
            house.see();
            if !is_first_read {
                // Its segment is gone.
                table.parts.offsets.commit(TRANSACTION_HALF_TOPIC, groups::TRANSACTION, QUEUE, 1);
            }
            house.pass(HOUR / 2);
            let mut found = PendingHalves::default();
            table.parts.read_halves(&mut found, house.wall_ms.load(Ordering::SeqCst)).unwrap();
            let born_ms = |pending: &PendingHalves| pending.get(QueueOffset(1)).map(|half| half.born_ms);
            assert_eq!(born_ms(&found), born_ms(&table.pending.lock()), "the first one is read: {is_first_read}");
        }
    }

    #[test]
    fn a_start_that_cannot_read_a_transaction_now_fails_and_one_that_never_will_goes_on() {
        let house = house();
        let first = house.begin("");
        let second = house.begin("");
        house.see();
        for files in ["/commitlog/", "/RMQ_SYS_TRANS_HALF_TOPIC/"] {
            let bytes = if files == "/commitlog/" { 0..first.end.0 } else { 0..20 };
            house.disk.refuse(files, bytes.clone(), NO_DESCRIPTORS);
            wait_refused(|| {
                house.store.queue_entry(TRANSACTION_HALF_TOPIC, QUEUE, first.queue_offset, Effort::Full)?;
                house.store.message_at(first.physical_offset, Effort::Full)
            });
            assert!(house.opened_again().is_err(), "{files}");
            house.disk.refuse(files, bytes, BAD_SECTOR);
            let opened = house.opened_again().unwrap();
            let pending = opened.table.pending.lock();
            assert!(pending.get(first.queue_offset).is_none() && pending.get(second.queue_offset).is_some(), "{files}");
        }
        house.disk.recover();
        assert_eq!(house.opened_again().unwrap().table.pending.lock().len(), 2);
    }
}
