//! Halves that are open when their segment is to go.

use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::TRANSACTION_HALF_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use ferromq_store::{AppendError, AppendedMessage, Keeper};

use super::asking::is_of_one;
use super::pending::Half;
use super::{OpenTransactions, QUEUE};
use crate::missing;
use crate::worker::Bell;

impl Keeper for OpenTransactions {
    fn name(&self) -> &'static str {
        self.carrying.name()
    }

    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        let lowest = self.pending.lock().lowest_place().filter(|lowest| *lowest < end);
        if let Some(lowest) = lowest {
            // It may have come to the table after what told that it is free: a half is in the log first.
            self.carrying.need_from(lowest);
        }
        // Asked in any case: what ends now may not be on the disk yet.
        let unsure = self.carrying.release_before(end);
        lowest.or(unsure)
    }
}

impl OpenTransactions {
    /// Stores what is open and whose segment is to go at the end of the log. Its age and the questions asked after it stay what they are,
    /// and whichever copy a producer names, it ends the same transaction.
    pub(super) fn carry(&self, bell: &Bell) {
        let Some(end) = self.carrying.wanted() else { return };
        let mut from = QueueOffset(0);
        while !bell.is_stopping() {
            let Some(half) = self.pending.lock().next_before(from, end).cloned() else { break };
            from = half.queue_offset.next();
            if let Err(error) = self.carry_one(&half) {
                self.carrying.failed(&error);
                if !is_of_one(&error) {
                    break;
                }
            }
        }
        self.carrying.turn_ends();
    }

    pub(super) fn carry_one(&self, half: &Half) -> Result<(), AppendError> {
        let found = missing::look_up(&self.parts.store, "a half message", half.physical).map_err(missing::not_now)?;
        let Some(bytes) = found else {
            self.pending.lock().remove(half.queue_offset);
            return Ok(());
        };
        let record = Record::parse(&bytes)?;
        let mut properties = Properties::parse(&record.properties());
        if !properties.contains(names::TRANSACTION_PREPARED_QUEUE_OFFSET) {
            properties.set(names::TRANSACTION_PREPARED_QUEUE_OFFSET, half.first());
        }
        let appended = match self.append_half(&record, &properties) {
            // Its properties were at the limit. The transaction's id is the message's key, which a commit makes it again.
            Err(error) if error.is_of_the_message() => {
                properties.remove(names::TRANSACTION_ID);
                self.append_half(&record, &properties)?
            }
            appended => appended?,
        };
        self.parts.statistics.stored(TRANSACTION_HALF_TOPIC, &appended);
        self.moved(half, &appended, &self.parts.store.round())
    }

    fn append_half(&self, record: &Record<'_>, properties: &Properties) -> Result<AppendedMessage, AppendError> {
        self.parts.store.append_carried(&NewMessage::copy_of(
            record,
            TRANSACTION_HALF_TOPIC,
            QUEUE,
            properties.as_str(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transactions::house::house;

    const LATER: PhysicalOffset = PhysicalOffset(1 << 20);

    #[test]
    fn a_half_that_is_carried_on_while_its_end_fails_stays_open() {
        let house = house();
        let half = house.begin("");
        house.see();
        let table = &house.transactions.table;
        let known = table.pending.lock().get(half.queue_offset).cloned().unwrap();
        // Its producer is about to roll it back.
        let claimed = table.pending.lock().claim(half.queue_offset).unwrap();
        table.carry_one(&known).unwrap();
        // Nothing came of it.
        table.pending.lock().insert(claimed);
        house.see();
        assert_eq!(table.pending.lock().lowest_place().map(|place| place > half.physical_offset), Some(true));
        let again = house.opened_again().unwrap();
        assert_eq!(again.table.pending.lock().len(), 1, "nobody has ended it");
        // Neither stays when it is ended after all.
        house.end(&half, false).unwrap();
        house.see();
        assert_eq!((table.pending.lock().len(), house.opened_again().unwrap().table.pending.lock().len()), (0, 0));
    }

    #[test]
    fn a_half_that_is_carried_on_while_its_end_succeeds_ends() {
        let house = house();
        let half = house.begin("");
        house.see();
        let table = &house.transactions.table;
        let claimed = table.pending.lock().claim(half.queue_offset).unwrap();
        table.carry_one(&claimed).unwrap();
        table.mark_ended(&claimed, &house.store.round()).unwrap();
        house.see();
        assert_eq!((table.pending.lock().len(), house.opened_again().unwrap().table.pending.lock().len()), (0, 0));
    }

    #[test]
    fn a_half_that_comes_to_the_table_late_is_carried_on_all_the_same() {
        let house = house();
        let half = house.begin("");
        house.see();
        let table = &house.transactions.table;
        // As told when its append was in the log, and it was not in the table yet.
        table.carrying.free_up_to(LATER);
        let end = half.end;
        assert_eq!(table.release_before(end), Some(half.physical_offset));
        table.carry(house.transactions.bell());
        assert!(table.pending.lock().lowest_place().unwrap() >= end, "it holds its segment for ever");
    }
}
