//! Transactions: half messages wait out of sight in a topic of the system until their producer commits or rolls back; who does
//! not is asked.
//!
//! A half is a message in `RMQ_SYS_TRANS_HALF_TOPIC`; its end is an op message in `RMQ_SYS_TRANS_OP_HALF_TOPIC` that names its queue
//! offset. Both are Java's formats, so either broker can go on with the other's store. What is pending is known in memory and read
//! again at the start, from where the group `CID_RMQ_SYS_TRANS` has committed; its size is that of the open transactions, not of their
//! history, and no half stays far behind the others. Java: `TransactionalMessageServiceImpl`; spec broker §C.8, store §11.
//!
//! A transaction ends once: the end takes it out of the table first, and only then stores the message and the op message. A crash
//! between these two leads to one more question, and a second delivery if the producer says commit again.

mod pending;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferromq_protocol::header::CheckTransactionRequest;
use ferromq_protocol::message::properties::{self, names};
use ferromq_protocol::message::{
    NewMessage, OffsetMessageId, Properties, Record, RecordError, SysFlag, TransactionKind, stamp_record,
};
use ferromq_protocol::topics::{
    TRANSACTION_CHECK_MAX_TIME_TOPIC, TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC, groups,
};
use ferromq_protocol::{Command, PhysicalOffset, QueueId, QueueOffset, RequestCode};
use ferromq_store::{AppendError, Appended, Clock, DelayLevels, Effort, ReadError, Store};
use parking_lot::{Condvar, Mutex};
use tracing::{debug, error, info, warn};

use crate::clients::Clients;
use crate::clock::now_ms;
use crate::consumer_offsets::ConsumerOffsets;
use crate::delay::Waiting;
use crate::live_config::LiveConfig;
use crate::missing;
use crate::places;
use crate::statistics::Statistics;
use crate::timers::{self, TimerWish};
use crate::topics::{Topics, perm};
use pending::{Half, Pending};

/// The one queue of the half topic, the op topic, and the topic of given-up halves.
const QUEUE: QueueId = QueueId(0);
/// Most open transactions, about 100 bytes of memory each; beyond it new ones are refused.
const PENDING_MAX: usize = 500_000;
/// A half this far behind the end of its queue is copied there even if nobody can be asked, so that a start need not read more.
const BEHIND_MAX: u64 = 50_000;
/// How often it is noted down from where the queues must be read at the next start.
const NOTE_PERIOD: Duration = Duration::from_secs(5);
/// Tag of op messages. Java: `TransactionalMessageUtil.REMOVE_TAG`.
const OP_TAG: &str = "d";

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
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    parts: TransactionParts,
    pending: Mutex<Pending>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

/// Where the next start would begin to read the queues, once the log is on disk up to its end.
struct Start {
    half: QueueOffset,
    op: QueueOffset,
    log_end: PhysicalOffset,
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
        let mut pending = Pending::default();
        parts.read_halves(&mut pending, now_ms())?;
        parts.read_ops(&mut pending)?;
        if pending.len() > 0 {
            info!(count = pending.len(), "transactions are open");
        }
        let shared = Shared { parts, pending: Mutex::new(pending), stopping: Mutex::new(false), wake: Condvar::new() };
        Ok(Transactions { shared: Arc::new(shared), thread: Mutex::new(None) })
    }

    /// Begins to ask.
    pub(crate) fn start(&self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("transactions".into()).spawn(move || shared.run())?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        *self.shared.stopping.lock() = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            error!("the transaction thread panicked; the next start reads more of the half queue");
        }
    }

    /// Whether one more can begin.
    pub(crate) fn check_room(&self) -> Result<(), TooMany> {
        if self.shared.pending.lock().len() < PENDING_MAX { Ok(()) } else { Err(TooMany) }
    }

    /// A half message is stored. To be called before the reply, so that an end cannot overtake it.
    pub(crate) fn began(&self, appended: &Appended, born_ms: i64, immunity: Option<&str>) {
        let stored_ms = self.shared.parts.forward.now_ms();
        self.shared.pending.lock().insert(Half {
            queue_offset: appended.queue_offset,
            physical: appended.physical_offset,
            older: Vec::new(),
            born_ms: stored_ms.saturating_sub(age_when_stored(born_ms, appended.store_timestamp)),
            stored_ms,
            immunity_ms: immunity.and_then(immunity_ms),
            ended: false,
            put_aside: false,
        });
    }

    /// Whether a record in the half topic, or among the halves that were given up, is one that the broker has put there. Whoever names a
    /// place in the log may name one inside of a message that looks like a half.
    pub(crate) fn knows(&self, record: &Record<'_>, effort: Effort) -> Result<bool, ReadError> {
        let shared = &self.shared;
        let is_newest =
            |half: &Half| (half.queue_offset, half.physical) == (record.queue_offset(), record.physical_offset());
        // One that has just begun may not be visible in its queue yet.
        if record.topic() == TRANSACTION_HALF_TOPIC
            && shared.pending.lock().get(record.queue_offset()).is_some_and(is_newest)
        {
            return Ok(true);
        }
        places::is_in_its_queue(&shared.parts.store, record, effort)
    }

    /// How long ago the producer made the half, in ms, if its transaction is open.
    pub(crate) fn age_ms(&self, record: &Record<'_>) -> Option<i64> {
        let shared = &self.shared;
        let born_ms = shared.pending.lock().get(record.queue_offset())?.born_ms;
        Some(shared.parts.forward.now_ms().saturating_sub(born_ms))
    }

    /// Ends the transaction that has a half there: stores its message if it is a commit. `record` is that half, and
    /// [known](Self::knows). Announcing what was stored is left to the caller's round.
    pub(crate) fn end(&self, record: &Record<'_>, commit: bool) -> Result<(), EndError> {
        let shared = &self.shared;
        let claimed = {
            let mut pending = shared.pending.lock();
            // After a restart the copies between the first and the newest one are unknown; each names the first.
            named_copies(record).find_map(|copy| pending.claim(copy))
        };
        let Some(mut half) = claimed else { return shared.end_late(record, commit) };
        if commit && !half.ended {
            if let Err(error) = shared.parts.store_committed(record) {
                shared.pending.lock().insert(half);
                return Err(error);
            }
            // Once, however long its op message fails.
            half.ended = true;
        }
        let marked = shared.mark_ended(&half, Store::append_again_silently);
        marked.map_err(|error| {
            shared.pending.lock().insert(half);
            error.into()
        })
    }

    /// Makes a half pending again, or one that was given up, with no questions asked yet: RESUME_CHECK_HALF_MESSAGE. False for a
    /// transaction that has ended.
    pub(crate) fn resume(&self, record: &Record<'_>) -> Result<bool, AppendError> {
        let shared = &self.shared;
        let open = if record.topic() == TRANSACTION_HALF_TOPIC {
            let pending = shared.pending.lock();
            let half = named_copies(record).find_map(|copy| pending.get(copy).cloned()).filter(|half| !half.ended);
            let Some(half) = half else { return Ok(false) };
            Some(half)
        } else {
            None
        };
        let mut properties = Properties::parse(&record.properties());
        properties.set(names::TRANSACTION_CHECK_TIMES, 0);
        match &open {
            Some(half) => properties.set(names::TRANSACTION_PREPARED_QUEUE_OFFSET, half.first()),
            // The copies before have ended; this is a new transaction.
            None => _ = properties.remove(names::TRANSACTION_PREPARED_QUEUE_OFFSET),
        }
        let copy = NewMessage::copy_of(record, TRANSACTION_HALF_TOPIC, QUEUE, properties.as_str());
        let appended = shared.parts.store.append_again_silently(&copy)?;
        match open {
            Some(half) => shared.moved(&half, &appended, Store::append_again_silently)?,
            None => {
                // It ends as the new one from now on.
                if let Some(first) = first_copy(record) {
                    shared.pending.lock().resumed(first);
                }
                let immunity = properties.value(names::CHECK_IMMUNITY_TIME_IN_SECONDS);
                self.began(&appended, record.born_timestamp(), immunity);
            }
        }
        Ok(true)
    }
}

impl Drop for Transactions {
    fn drop(&mut self) {
        self.stop();
    }
}

impl TransactionParts {
    /// From where the queue of `topic` is read at a start.
    fn noted(&self, topic: &str) -> QueueOffset {
        self.offsets.committed(topic, groups::TRANSACTION, QUEUE).unwrap_or_default()
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

    /// What they say of their age is by the wall clock, which shows `wall_ms` now.
    fn read_halves(&self, pending: &mut Pending, wall_ms: i64) -> Result<(), ReadError> {
        let forward_ms = self.forward.now_ms();
        self.for_each(TRANSACTION_HALF_TOPIC, self.noted(TRANSACTION_HALF_TOPIC), |record| {
            let text = record.properties();
            let first = first_copy(record);
            let earlier = first.and_then(|first| pending.remove(first));
            let older = match earlier {
                Some(earlier) => {
                    let mut older = earlier.older;
                    older.push(earlier.queue_offset);
                    older
                }
                None => first.into_iter().collect(),
            };
            // Stored later than now: the clock was set back meanwhile.
            let age_ms = wall_ms.saturating_sub(record.store_timestamp()).max(0);
            let stored_ms = forward_ms.saturating_sub(age_ms);
            pending.insert(Half {
                queue_offset: record.queue_offset(),
                physical: record.physical_offset(),
                older,
                born_ms: stored_ms.saturating_sub(age_when_stored(record.born_timestamp(), record.store_timestamp())),
                stored_ms,
                immunity_ms: properties::property(&text, names::CHECK_IMMUNITY_TIME_IN_SECONDS).and_then(immunity_ms),
                ended: false,
                put_aside: false,
            });
        })
    }

    fn read_ops(&self, pending: &mut Pending) -> Result<(), ReadError> {
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

    /// Stores the message of a half where its producer wanted it, or among the delayed ones. `TRAN_MSG` stays: by it a consumer's client
    /// knows that there is a transaction id.
    fn store_committed(&self, record: &Record<'_>) -> Result<(), EndError> {
        let undeliverable = |reason: String| {
            error!(physical_offset = %record.physical_offset(), reason, "a half message cannot be committed");
            EndError::Undeliverable { reason }
        };
        let mut properties = Properties::parse(&record.properties());
        let (topic, queue) = places::destination(&self.topics, properties.as_str())
            .map(|(topic, queue)| (topic.to_owned(), queue))
            .map_err(|error| undeliverable(error.to_string()))?;
        for name in [
            names::REAL_TOPIC,
            names::REAL_QUEUE_ID,
            names::TRANSACTION_CHECK_TIMES,
            names::TRANSACTION_PREPARED_QUEUE_OFFSET,
        ] {
            properties.remove(name);
        }
        let level = match properties.value(names::DELAY_TIME_LEVEL) {
            Some(level) => level.parse().map_err(|_| undeliverable(format!("the delay level {level} is no number")))?,
            None => 0,
        };
        // How far ahead it may be was looked at when the half was sent.
        let timer = TimerWish::in_properties(properties.as_str())
            .due_ms(now_ms(), u32::MAX)
            .map_err(|error| undeliverable(error.to_string()))?;
        let (stored_topic, stored_queue) = match (Waiting::at(level, &self.levels), timer) {
            (Some(waiting), _) => waiting.divert(&mut properties, &topic, queue),
            (None, Some(due_ms)) => timers::divert(&mut properties, due_ms, &topic, queue),
            (None, None) => (topic.as_str(), queue),
        };
        let message = NewMessage {
            sys_flag: record.sys_flag().with_transaction(TransactionKind::Commit),
            store_host: self.store_host,
            prepared_transaction_offset: record.physical_offset().as_i64(),
            ..NewMessage::copy_of(record, stored_topic, stored_queue, properties.as_str())
        };
        let appended = self.store.append_again_silently(&message)?;
        self.count_put(stored_topic, &appended);
        Ok(())
    }

    fn count_put(&self, topic: &str, appended: &Appended) {
        self.statistics.sent(topic, 1, u64::try_from(appended.record_len).unwrap_or(u64::MAX));
    }

    /// A half or an op message was read, as Java's broker reads them: as a group of its own, which tools watch. Java:
    /// `TransactionalMessageBridge.getMessage`.
    fn count_read(&self, topic: &str, record_len: usize) {
        self.statistics.delivered(topic, groups::TRANSACTION, 1, u64::try_from(record_len).unwrap_or(u64::MAX));
    }
}

type Append = fn(&Store, &NewMessage<'_>) -> Result<Appended, AppendError>;

impl Shared {
    /// An end of a transaction that is not open: it has ended, and then nothing is done; or it was given up, and its producer has made up
    /// its mind after all.
    fn end_late(&self, record: &Record<'_>, commit: bool) -> Result<(), EndError> {
        let given_up = {
            let mut pending = self.pending.lock();
            named_copies(record).find_map(|copy| pending.take_given_up(copy))
        };
        match given_up {
            Some(copies) if commit => {
                self.parts.store_committed(record).inspect_err(|_| self.pending.lock().put_back_given_up(&copies))
            }
            _ => {
                debug!(queue_offset = %record.queue_offset(), commit, "an end of a transaction that is not open: nothing was done");
                Ok(())
            }
        }
    }

    /// A half has been stored once more, behind the others.
    fn moved(&self, half: &Half, copy: &Appended, append: Append) -> Result<(), AppendError> {
        let (at, physical, stored_ms) = (copy.queue_offset, copy.physical_offset, self.parts.forward.now_ms());
        if self.pending.lock().moved(half.queue_offset, at, physical, stored_ms) {
            return Ok(());
        }
        // It has ended meanwhile, and that end does not name this copy.
        let copy = Half { queue_offset: at, physical, ended: true, ..half.clone() };
        self.mark_ended(&copy, append).inspect_err(|_| self.pending.lock().insert(copy))
    }

    /// Ends the transaction that has a half there without storing its message; it may have been put aside before.
    fn end_without(&self, copy: QueueOffset, put_aside: bool) -> Result<(), AppendError> {
        let claimed = self.pending.lock().claim_put_aside(copy, put_aside);
        let Some(half) = claimed else { return Ok(()) };
        self.mark_ended(&half, Store::append_again).inspect_err(|_| self.pending.lock().unsettled(half))
    }

    /// Stores the op message of a transaction that was taken out of the table.
    fn mark_ended(&self, half: &Half, append: Append) -> Result<(), AppendError> {
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
            born_host: self.parts.store_host,
            store_host: self.parts.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties: properties.as_str(),
        };
        let appended = append(&self.parts.store, &op)?;
        self.parts.count_put(TRANSACTION_OP_HALF_TOPIC, &appended);
        self.pending.lock().settle(half, appended.queue_offset);
        Ok(())
    }

    /// Notes down, as the offsets of a consumer group, from where the queues must be read: what was true at the last call, once the log is
    /// on disk up to where it was then.
    fn note_start(&self, noted: &mut Option<Start>) {
        if let Some(start) = noted.take_if(|start| start.log_end <= self.parts.store.watermarks().flushed) {
            // What was stored and not yet in the table then is in it now.
            let (half, op) = self.pending.lock().start(start.half, start.op);
            for (topic, offset) in [(TRANSACTION_HALF_TOPIC, half), (TRANSACTION_OP_HALF_TOPIC, op)] {
                if self.parts.noted(topic) != offset {
                    self.parts.offsets.commit(topic, groups::TRANSACTION, QUEUE, offset.as_i64());
                }
            }
        }
        if noted.is_none() {
            let end = |topic| self.parts.store.queue_bounds(topic, QUEUE).map_or(QueueOffset(0), |bounds| bounds.max);
            // The queues' ends first and the log's last: what comes meanwhile is read once more, and is on disk before it counts.
            let ends = (end(TRANSACTION_HALF_TOPIC), end(TRANSACTION_OP_HALF_TOPIC));
            let (half, op) = self.pending.lock().start(ends.0, ends.1);
            *noted = Some(Start { half, op, log_end: self.parts.store.watermarks().written });
        }
    }

    fn run(&self) {
        let mut last_round = Instant::now();
        let mut noted = None;
        loop {
            let interval = Duration::from_millis(self.parts.config.current().transaction_check_interval);
            {
                let mut stopping = self.stopping.lock();
                if !*stopping {
                    let left = interval.saturating_sub(last_round.elapsed());
                    self.wake.wait_for(&mut stopping, left.min(NOTE_PERIOD));
                }
                if *stopping {
                    return;
                }
            }
            if last_round.elapsed() >= interval {
                last_round = Instant::now();
                self.round();
            }
            self.note_start(&mut noted);
        }
    }

    /// Asks after every transaction that is old enough. What holds up one of them holds up no other.
    fn round(&self) {
        let config = self.parts.config.current().clone();
        let Some(bounds) = self.parts.store.queue_bounds(TRANSACTION_HALF_TOPIC, QUEUE) else { return };
        let timeout_ms = i64::try_from(config.transaction_time_out).unwrap_or(i64::MAX);
        let mut from = QueueOffset(0);
        let mut failed = None;
        while !*self.stopping.lock() {
            let now = self.parts.forward.now_ms();
            // Copies made in this round are behind its end.
            let Some(half) = self.pending.lock().next_due(from, bounds.max, now, timeout_ms).cloned() else { break };
            from = half.queue_offset.next();
            let checked = match self.check(&half, bounds.max, config.transaction_check_max, now) {
                Err(error) if error.is_of_the_message() => self.leave_out(&half, &error),
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

    /// Asks after one, or gives it up. `end` is that of the half queue.
    fn check(&self, half: &Half, end: QueueOffset, checks_max: u32, now: i64) -> Result<(), AppendError> {
        if half.lacks_op_only() {
            return self.end_without(half.queue_offset, half.put_aside);
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
        if checks >= checks_max || half.is_too_old(now) {
            return self.give_up(half, &record);
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
        let place = match self.parts.store.append_again(&copy) {
            Ok(appended) => {
                self.parts.count_put(TRANSACTION_HALF_TOPIC, &appended);
                self.moved(half, &appended, Store::append_again)?;
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
            && let Err(error) = producer.oneway(self.question(&record, &properties, &place)?)
        {
            debug!(peer = %producer.peer_addr(), %error, "a producer was not asked after its transaction");
        }
        Ok(())
    }

    /// Puts a half where an operator finds it, and ends its transaction without storing its message.
    fn give_up(&self, half: &Half, record: &Record<'_>) -> Result<(), AppendError> {
        if self.pending.lock().get(half.queue_offset).is_none() {
            return Ok(());
        }
        self.parts.topics.find_or_create(TRANSACTION_CHECK_MAX_TIME_TOPIC, 1, perm::READ_WRITE, false, 0);
        let text = record.properties();
        self.parts.store.append_again(&NewMessage::copy_of(record, TRANSACTION_CHECK_MAX_TIME_TOPIC, QUEUE, &text))?;
        warn!(
            queue_offset = %half.queue_offset, topic = TRANSACTION_CHECK_MAX_TIME_TOPIC,
            "a transaction had no end after all checks; its half message is put aside"
        );
        self.end_without(half.queue_offset, true)
    }

    /// Ends a transaction that can neither be asked after nor put aside. Its half stays where it is, so who reads the log can look after
    /// it.
    fn leave_out(&self, half: &Half, why: &AppendError) -> Result<(), AppendError> {
        error!(physical_offset = %half.physical, queue_offset = %half.queue_offset, %why, "a half message cannot be stored again and is left out");
        self.end_without(half.queue_offset, false)
    }

    /// CHECK_TRANSACTION_STATE with the half as the message that it is to become.
    fn question(&self, record: &Record<'_>, properties: &Properties, at: &Place) -> Result<Command, RecordError> {
        let (topic, queue) = places::destination(&self.parts.topics, properties.as_str()).unwrap_or_default();
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
            .with_field("bname", self.parts.config.broker_name())
            .with_body(body))
    }
}

/// Whether a failure says nothing of other transactions: then a round goes on.
fn is_of_one(error: &AppendError) -> bool {
    match error {
        // Nobody is asked without a copy there.
        AppendError::QueueBehind { topic, .. } => topic != TRANSACTION_HALF_TOPIC,
        AppendError::CannotRead { .. } => true,
        error => error.is_of_the_message(),
    }
}

/// Where and when a copy of a half was stored.
struct Place {
    queue: QueueOffset,
    log: PhysicalOffset,
    time: i64,
}

/// How old a message was when it was stored, in ms, as far as its producer's clock can be right: not yet to be made, or made days before,
/// it cannot have been.
fn age_when_stored(born_ms: i64, stored_ms: i64) -> i64 {
    let age_ms = stored_ms.saturating_sub(born_ms);
    if (0..24 * 3_600_000).contains(&age_ms) { age_ms } else { 0 }
}

/// Where the first copy of a half is or was, if this is not it.
fn first_copy(record: &Record<'_>) -> Option<QueueOffset> {
    record.property(names::TRANSACTION_PREPARED_QUEUE_OFFSET)?.parse().ok().map(QueueOffset)
}

/// The copies that a half stands for as far as it says so itself.
fn named_copies(record: &Record<'_>) -> impl Iterator<Item = QueueOffset> {
    [record.queue_offset()].into_iter().chain(first_copy(record))
}

/// `CHECK_IMMUNITY_TIME_IN_SECONDS`; text that is no number, and -1, count as not set, as in Java.
fn immunity_ms(seconds: &str) -> Option<i64> {
    seconds.parse::<i64>().ok().filter(|seconds| *seconds != -1).map(|seconds| seconds.saturating_mul(1000))
}

/// The halves that an op message ends: numbers with commas (5.x), or one alone (4.x).
fn ended_by(body: &[u8]) -> impl Iterator<Item = QueueOffset> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split(',').filter_map(|number| number.trim().parse().ok()).map(QueueOffset)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use ferromq_store::{Disk, StoreConfig};

    use super::*;
    use crate::config::BrokerConfig;
    use crate::persistence::Persistence;
    use crate::testing::{BAD_SECTOR, NO_DESCRIPTORS, TroubledDisk, break_queue, wait_refused, wait_until};

    #[test]
    fn op_messages_of_both_lines_are_understood() {
        let halves = |body: &str| ended_by(body.as_bytes()).map(|half| half.0).collect::<Vec<_>>();
        assert_eq!(halves("12,13,"), [12, 13]);
        assert_eq!(halves("7"), [7]);
        assert_eq!(halves("x,-3,"), [] as [u64; 0]);
    }

    #[test]
    fn a_producers_clock_is_believed_within_reason() {
        const STORED: i64 = 1_800_000_000_000;
        assert_eq!(age_when_stored(STORED - 5, STORED), 5);
        assert_eq!([0, STORED + 1, i64::MIN, i64::MAX].map(|born| age_when_stored(born, STORED)), [0; 4]);
    }

    #[test]
    fn immunity_is_a_number_of_seconds_or_nothing() {
        assert_eq!([immunity_ms("5"), immunity_ms("-1"), immunity_ms("soon")], [Some(5000), None, None]);
    }

    /// A store whose wall clock is the test's, and transactions whose age is.
    struct House {
        wall_ms: Arc<AtomicI64>,
        forward_ms: Arc<AtomicI64>,
        disk: Arc<TroubledDisk>,
        transactions: Transactions,
        store: Arc<Store>,
        directory: tempfile::TempDir,
    }

    const START: i64 = 1_800_000_000_000;

    /// Whoever is old enough to be asked after is given up at once.
    fn house() -> House {
        house_with(0)
    }

    fn house_with(transaction_check_max: u32) -> House {
        let directory = tempfile::tempdir().unwrap();
        let (wall_ms, forward_ms) = (Arc::new(AtomicI64::new(START)), Arc::new(AtomicI64::new(START)));
        let clock = |of: &Arc<AtomicI64>| {
            let of = Arc::clone(of);
            Clock::from_fn(move || of.load(Ordering::SeqCst))
        };
        let disk = Arc::new(TroubledDisk::default());
        let config = StoreConfig {
            segment_len: 1 << 20,
            queue_file_entries: 1000,
            index_slots: 100,
            index_entries: 1000,
            clock: clock(&wall_ms),
            disk: Arc::clone(&disk) as Arc<dyn Disk>,
            ..StoreConfig::at(directory.path())
        };
        let store = Arc::new(Store::open(config).unwrap());
        let persistence = Persistence::default();
        let config = BrokerConfig { transaction_check_max, transaction_time_out: 6_000, ..BrokerConfig::default() };
        let live = Arc::new(LiveConfig::new(config.clone(), None));
        let config_dir = directory.path().join("config");
        let topics = Arc::new(Topics::open(&config_dir, &live, &persistence).unwrap());
        let offsets = ConsumerOffsets::open(&config_dir, &config, &topics, &store, &persistence).unwrap();
        let transactions = Transactions::open(TransactionParts {
            config: Arc::clone(&live),
            offsets: Arc::new(offsets),
            clients: Arc::new(Clients::new()),
            topics,
            statistics: Arc::new(Statistics::new()),
            store: Arc::clone(&store),
            levels: DelayLevels::default(),
            forward: clock(&forward_ms),
            store_host: "127.0.0.1:10911".parse().unwrap(),
        });
        House { wall_ms, forward_ms, disk, transactions: transactions.unwrap(), store, directory }
    }

    impl House {
        fn begin(&self, more: &str) -> Appended {
            let half = NewMessage {
                topic: TRANSACTION_HALF_TOPIC,
                queue_id: QUEUE,
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: self.wall_ms.load(Ordering::SeqCst),
                born_host: "127.0.0.1:1".parse().unwrap(),
                store_host: "127.0.0.1:10911".parse().unwrap(),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: b"half",
                properties: &format!("REAL_TOPIC\u{1}T\u{2}REAL_QID\u{1}0\u{2}{more}"),
            };
            let appended = self.store.append_silently(&half).unwrap();
            let immunity = properties::property(more, names::CHECK_IMMUNITY_TIME_IN_SECONDS);
            self.transactions.began(&appended, half.born_timestamp, immunity);
            self.store.announce();
            appended
        }

        /// As a handler ends it.
        fn end(&self, half: &Appended, commit: bool) -> Result<(), EndError> {
            let bytes = self.store.message_at(half.physical_offset, Effort::Full).unwrap().unwrap();
            let ended = self.transactions.end(&Record::parse(&bytes).unwrap(), commit);
            self.store.announce();
            ended
        }

        fn count(&self, topic: &str) -> u64 {
            self.store.queue_bounds(topic, QUEUE).map_or(0, |bounds| bounds.max.0)
        }

        /// Returns once all that was stored can be seen.
        fn see(&self) {
            let all_is_seen = || {
                let marks = self.store.watermarks();
                marks.dispatched == marks.written
            };
            wait_until("not all is dispatched", all_is_seen);
        }

        /// As one that starts on the store as it is.
        fn opened_again(&self) -> Result<Transactions, ReadError> {
            let parts = &self.transactions.shared.parts;
            Transactions::open(TransactionParts {
                config: Arc::clone(&parts.config),
                offsets: Arc::clone(&parts.offsets),
                clients: Arc::clone(&parts.clients),
                topics: Arc::clone(&parts.topics),
                statistics: Arc::clone(&parts.statistics),
                store: Arc::clone(&parts.store),
                levels: parts.levels.clone(),
                forward: parts.forward.clone(),
                store_host: parts.store_host,
            })
        }

        fn pass(&self, ms: i64) {
            self.wall_ms.fetch_add(ms, Ordering::SeqCst);
            self.forward_ms.fetch_add(ms, Ordering::SeqCst);
        }

        /// How many are open after a round.
        fn open(&self) -> usize {
            self.transactions.shared.round();
            self.transactions.shared.pending.lock().len()
        }
    }

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
            assert_eq!(house.opened_again().unwrap().shared.pending.lock().len(), 0);
            if put_aside {
                // The other one as well, as ever.
                house.end(&halves[1], true).unwrap();
                house.end(&halves[1], true).unwrap();
                house.see();
                assert_eq!(house.count("T"), 2);
            }
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
            let pending = opened.shared.pending.lock();
            assert!(pending.get(first.queue_offset).is_none() && pending.get(second.queue_offset).is_some(), "{files}");
        }
        house.disk.recover();
        assert_eq!(house.opened_again().unwrap().shared.pending.lock().len(), 2);
    }
}
