//! Transactions: half messages wait out of sight in a topic of the system until their producer commits or rolls back; who does
//! not is asked.
//!
//! A half is a message in `RMQ_SYS_TRANS_HALF_TOPIC`; its end is an op message in `RMQ_SYS_TRANS_OP_HALF_TOPIC` that names its queue
//! offset. Both are Java's formats, so either broker can go on with the other's store. What is pending is known in memory and read
//! again at the start, from where the group `CID_RMQ_SYS_TRANS` has committed; its size is that of the open transactions, not of their
//! history, and no half stays far behind the others. Java: `TransactionalMessageServiceImpl`.
//!
//! A half whose segment is to go is stored again at the log's end as well, with nobody asked.
//!
//! A transaction ends once: the end takes it out of the table first, and only then stores the message and the op message. A crash
//! between these two leads to one more question, and a second delivery if the producer says commit again.

mod asking;
mod carrying;
#[cfg(test)]
mod house;
mod messages;
mod pending;
mod reading;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ferromq_protocol::message::properties::names;
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::TRANSACTION_HALF_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use ferromq_store::{AppendError, AppendedMessage, Clock, DelayLevels, Effort, Keeper, ReadError, Round, Store};
use parking_lot::Mutex;
use tracing::{debug, info};

use crate::carrying::Carrying;
use crate::clients::Clients;
use crate::clock::now_ms;
use crate::consumer_offsets::ConsumerOffsets;
use crate::destination::HALF_QUEUE;
use crate::live_config::LiveConfig;
use crate::places;
use crate::statistics::Statistics;
use crate::topics::Topics;
use crate::worker::Worker;
use messages::{age_when_stored, believed_ms, first_copy, give_up_age_ms, immunity_ms, named_copies};
use pending::{Half, Moved, PendingHalves};

/// The one queue of the half topic, the op topic, and the topic of given-up halves.
const QUEUE: QueueId = HALF_QUEUE;
/// Most open transactions, about 100 bytes of memory each; beyond it new ones are refused.
const PENDING_MAX: usize = 500_000;

/// The parts that transactions use.
pub(crate) struct TransactionParts {
    pub config: Arc<LiveConfig>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub topics: Arc<Topics>,
    pub statistics: Arc<Statistics>,
    pub store: Arc<Store>,
    pub levels: DelayLevels,
    /// By which halves are as old as they are: it only goes forward.
    pub forward: Clock,
    /// Stored with every message.
    pub store_host: SocketAddr,
}

/// Owner of the open transactions, and the thread that asks after them.
pub(crate) struct Transactions {
    table: Arc<OpenTransactions>,
    worker: Worker,
}

struct OpenTransactions {
    parts: TransactionParts,
    pending: Mutex<PendingHalves>,
    carrying: Carrying,
}

/// More transactions are open than this broker keeps track of.
#[derive(Debug, thiserror::Error)]
#[error("{PENDING_MAX} transactions have not ended yet; no more can begin until some have")]
pub(crate) struct TooMany;

/// Why a transaction did not end. It stays open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Its message can go nowhere; in the end the half is put aside.
    #[error("the message cannot be delivered: {reason}")]
    Undeliverable { reason: String },
}

impl Transactions {
    /// Reads what is pending out of the two queues. An error is of the moment: a transaction that is not known is passed over for good.
    pub(crate) fn open(parts: TransactionParts) -> Result<Transactions, ReadError> {
        let mut pending = PendingHalves::default();
        parts.read_halves(&mut pending, now_ms())?;
        parts.read_ops(&mut pending)?;
        if pending.len() > 0 {
            info!(count = pending.len(), "transactions are open");
        }
        let worker = Worker::new("transactions");
        let carrying = Carrying::new("open transactions", worker.bell());
        let table = OpenTransactions { parts, pending: Mutex::new(pending), carrying };
        Ok(Transactions { table: Arc::new(table), worker })
    }

    /// Holds the segments of open transactions until they are carried on.
    pub(crate) fn keeper(&self) -> Arc<dyn Keeper> {
        Arc::clone(&self.table) as Arc<dyn Keeper>
    }

    /// Begins to ask, or goes on after a stop.
    pub(crate) fn start(&self) -> io::Result<()> {
        let table = Arc::clone(&self.table);
        self.worker.start(move |bell| table.run(bell))
    }

    #[cfg(test)]
    pub(crate) fn bell(&self) -> &crate::worker::Bell {
        self.worker.bell()
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.worker.stop();
    }

    /// Whether one more can begin.
    pub(crate) fn check_room(&self) -> Result<(), TooMany> {
        if self.table.pending.lock().len() < PENDING_MAX { Ok(()) } else { Err(TooMany) }
    }

    /// A half message is stored. To be called before the reply, so that an end cannot overtake it.
    pub(crate) fn began(&self, appended: &AppendedMessage, born_ms: i64, immunity: Option<&str>) {
        let parts = &self.table.parts;
        let stored_ms = parts.forward.now_ms();
        let believed_ms = believed_ms(give_up_age_ms(&parts.config.current()), false);
        self.table.pending.lock().insert(Half {
            queue_offset: appended.queue_offset,
            physical: appended.physical_offset,
            older: Vec::new(),
            born_ms: stored_ms.saturating_sub(age_when_stored(born_ms, appended.store_timestamp, believed_ms)),
            stored_ms,
            immunity_ms: immunity.and_then(immunity_ms),
            ended: false,
            put_aside: false,
        });
    }

    /// Whether a record in the half topic, or among the halves that were given up, is one that the broker has put there. Whoever names a
    /// place in the log may name one inside of a message that looks like a half.
    pub(crate) fn knows(&self, record: &Record<'_>, effort: Effort) -> Result<bool, ReadError> {
        let table = &self.table;
        let is_newest =
            |half: &Half| (half.queue_offset, half.physical) == (record.queue_offset(), record.physical_offset());
        // One that has just begun may not be visible in its queue yet.
        if record.topic() == TRANSACTION_HALF_TOPIC
            && table.pending.lock().get(record.queue_offset()).is_some_and(is_newest)
        {
            return Ok(true);
        }
        places::is_in_its_queue(&table.parts.store, record, effort)
    }

    /// Where the half is that was carried on from a place in its queue, if its transaction is open.
    pub(crate) fn carried(&self, from: QueueOffset) -> Option<PhysicalOffset> {
        self.table.pending.lock().carried(from)
    }

    /// How long ago the producer made the half, in ms, if its transaction is open.
    pub(crate) fn age_ms(&self, record: &Record<'_>) -> Option<i64> {
        let table = &self.table;
        let born_ms = table.pending.lock().get(record.queue_offset())?.born_ms;
        Some(table.parts.forward.now_ms().saturating_sub(born_ms))
    }

    /// Ends the transaction that has a half there: stores its message if it is a commit. `record` is that half, and
    /// [known](Self::knows). The end of what was stored for it, if anything was.
    pub(crate) fn end(
        &self,
        round: &Round<'_>,
        record: &Record<'_>,
        commit: bool,
    ) -> Result<Option<PhysicalOffset>, EndError> {
        let table = &self.table;
        let claimed = {
            let mut pending = table.pending.lock();
            // After a restart the copies between the first and the newest one are unknown; each names the first.
            named_copies(record).find_map(|copy| pending.claim(copy))
        };
        let Some(mut half) = claimed else { return table.end_late(round, record, commit) };
        if commit && !half.ended {
            if let Err(error) = table.parts.store_committed(round, record) {
                table.pending.lock().insert(half);
                return Err(error);
            }
            // Once, however long its op message fails.
            half.ended = true;
        }
        let marked = table.mark_ended(&half, round).map(Some);
        marked.map_err(|error| {
            table.pending.lock().insert(half);
            error.into()
        })
    }

    /// Makes a half pending again, or one that was given up, with no questions asked yet: RESUME_CHECK_HALF_MESSAGE. False for a
    /// transaction that has ended.
    pub(crate) fn resume(&self, round: &Round<'_>, record: &Record<'_>) -> Result<bool, AppendError> {
        let table = &self.table;
        let resumed = if record.topic() == TRANSACTION_HALF_TOPIC {
            let pending = table.pending.lock();
            let half = named_copies(record).find_map(|copy| pending.get(copy).cloned()).filter(|half| !half.ended);
            let Some(half) = half else { return Ok(false) };
            Some(half)
        } else {
            None
        };
        let mut properties = Properties::parse(&record.properties());
        properties.set(names::TRANSACTION_CHECK_TIMES, 0);
        match &resumed {
            Some(half) => properties.set(names::TRANSACTION_PREPARED_QUEUE_OFFSET, half.first()),
            // The copies before have ended; this is a new transaction.
            None => _ = properties.remove(names::TRANSACTION_PREPARED_QUEUE_OFFSET),
        }
        let copy = NewMessage::copy_of(record, TRANSACTION_HALF_TOPIC, QUEUE, properties.as_str());
        let appended = round.append_again(&copy)?;
        match resumed {
            Some(half) => table.moved(&half, &appended, round)?,
            None => {
                // It ends as the new one from now on.
                if let Some(first) = first_copy(record) {
                    table.pending.lock().resumed(first);
                }
                let immunity = properties.value(names::CHECK_IMMUNITY_TIME_IN_SECONDS);
                self.began(&appended, record.born_timestamp(), immunity);
            }
        }
        Ok(true)
    }
}

impl OpenTransactions {
    /// An end of a transaction that is not open: it has ended, and then nothing is done; or it was given up, and its producer has made up
    /// its mind after all.
    fn end_late(
        &self,
        round: &Round<'_>,
        record: &Record<'_>,
        commit: bool,
    ) -> Result<Option<PhysicalOffset>, EndError> {
        let given_up = {
            let mut pending = self.pending.lock();
            named_copies(record).find_map(|copy| pending.take_given_up(copy))
        };
        match given_up {
            Some(copies) if commit => self
                .parts
                .store_committed(round, record)
                .map(Some)
                .inspect_err(|_| self.pending.lock().put_back_given_up(&copies)),
            _ => {
                debug!(queue_offset = %record.queue_offset(), commit, "an end of a transaction that is not open: nothing was done");
                Ok(None)
            }
        }
    }

    /// A half has been stored once more, behind the others.
    fn moved(&self, half: &Half, copy: &AppendedMessage, round: &Round<'_>) -> Result<(), AppendError> {
        let (at, physical) = (copy.queue_offset, copy.physical_offset);
        match self.pending.lock().moved(half.queue_offset, at, physical) {
            // An end that is under way may fail, and then the transaction is open: an op message would end it.
            Moved::Open | Moved::Ending => return Ok(()),
            Moved::Ended => {}
        }
        // That end does not name this copy.
        let copy = Half { queue_offset: at, physical, ended: true, ..half.clone() };
        self.mark_ended(&copy, round).map(drop).inspect_err(|_| self.pending.lock().insert(copy))
    }

    /// Ends the transaction that has a half there without storing its message; it may have been put aside before.
    fn end_without(&self, round: &Round<'_>, copy: QueueOffset, put_aside: bool) -> Result<(), AppendError> {
        let claimed = self.pending.lock().claim_put_aside(copy, put_aside);
        let Some(half) = claimed else { return Ok(()) };
        self.mark_ended(&half, round).map(drop).inspect_err(|_| self.pending.lock().unsettled(half))
    }

    /// Stores the op message of a transaction that was taken out of the table.
    fn mark_ended(&self, half: &Half, round: &Round<'_>) -> Result<PhysicalOffset, AppendError> {
        let op = self.parts.store_op(half, round)?;
        let left = self.pending.lock().settle(half, op.queue_offset);
        if let Some(copy) = left
            && let Err(error) = self.end_without(round, copy, false)
        {
            debug!(%copy, %error, "a copy of a half that has ended stays until the next round");
        }
        Ok(op.end)
    }
}

#[cfg(test)]
mod tests {
    use super::house::house_with;
    use super::*;
    use crate::testing::{break_queue, wait_until};
    use ferromq_protocol::topics::{TRANSACTION_CHECK_MAX_TIME_TOPIC, TRANSACTION_OP_HALF_TOPIC};

    #[test]
    fn what_is_stored_of_a_transaction_is_stored_once_however_long_its_op_message_fails() {
        for put_aside in [false, true] {
            // Asked after, or given up.
            let house = house_with(if put_aside { 0 } else { 9 });
            let halves = [house.begin(""), house.begin("")];
            let in_the_way = house.directory.path().join("consumequeue").join(TRANSACTION_OP_HALF_TOPIC);
            let made_up = break_queue(&house.store, TRANSACTION_OP_HALF_TOPIC, QUEUE, &in_the_way);
            house.pass(6_001);
            for _ in 0..3 {
                if !put_aside {
                    for half in &halves {
                        house.end(half, true).unwrap_err();
                    }
                }
                assert_eq!(house.open(), 2, "both stay until their ends are in the log");
            }
            if put_aside {
                // One producer makes up its mind after all, and says so again.
                house.end(&halves[0], true).unwrap_err();
                house.end(&halves[0], true).unwrap_err();
            }
            let stored = [TRANSACTION_CHECK_MAX_TIME_TOPIC, "T", TRANSACTION_HALF_TOPIC];
            let expected = if put_aside { [2, 1, 2] } else { [0, 2, 2] };
            let counts = || stored.map(|topic| house.count(topic));
            wait_until("not all is stored", || counts() == expected);
            std::fs::remove_file(&in_the_way).unwrap();
            house.see();
            assert_eq!(house.open(), 0);
            house.see();
            assert_eq!(counts(), expected);
            assert_eq!(house.count(TRANSACTION_OP_HALF_TOPIC), made_up + 2);
            assert_eq!(house.opened_again().unwrap().table.pending.lock().len(), 0);
            if put_aside {
                // The other one as well, as ever.
                house.end(&halves[1], true).unwrap();
                house.end(&halves[1], true).unwrap();
                house.see();
                assert_eq!(house.count("T"), 2);
            }
        }
    }
}
