//! Messages for a given time: they wait in `rmq_sys_wheel_timer`, and are put into their own topic when due, or taken back before.
//!
//! One thread enters the queue of that topic into a [`TimerIndex`] and delivers what is due. A message is never delivered early, and at
//! least once: the index is saved only up to where the delivered copies are on disk. Times are exact to the millisecond; Java's are
//! whole seconds, rounded down. Java: `TimerMessageStore`; spec broker §C.1.6, store §10.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferromq_protocol::message::properties::{self, names, property};
use ferromq_protocol::message::{NewMessage, Properties, Record};
use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};
use ferromq_store::{
    AppendError, Arrival, Clock, Store, Timer, TimerCheckpoint, TimerIndex, TimerSave, TimerSaveError,
};
use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use crate::delivery;
use crate::missing;
use crate::places;
use crate::statistics::Statistics;
use crate::topics::Topics;

/// The one queue of the timer topic.
const QUEUE: QueueId = QueueId(0);
/// As the log calls them.
const WHAT: &str = "a timer message";
/// Messages entered before what is due gets its turn.
const TURN: usize = 1000;
/// How long messages that are due wait for others that cannot be entered yet, in ms.
const HELD_UP_MAX_MS: i64 = 5_000;
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the index is saved while messages are delivered: those since then are delivered again if the broker is killed.
const SAVE_DELIVERED_PERIOD: Duration = Duration::from_secs(1);
/// How often it is saved otherwise: those since then are only entered again.
const SAVE_ENTERED_PERIOD: Duration = Duration::from_secs(5);
/// Messages delivered before new ones are looked at, and the index may be saved.
const DELIVERED_MAX: usize = 10_000;

/// When a producer wants a message to be delivered, out of its properties.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TimerWish<'a> {
    pub delay_sec: Option<&'a str>,
    pub delay_ms: Option<&'a str>,
    pub deliver_ms: Option<&'a str>,
    /// The message takes another one back.
    pub cancels: bool,
    /// It says when it was due, so it was delivered before: what else it says does not count.
    pub served: bool,
}

/// Why a wish cannot be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimerError {
    #[error("the timer `{value}` is not a whole number")]
    NotANumber { value: String },
    #[error("the message is to be delivered in {ahead_ms} ms; timerMaxDelaySec allows {max_ms} ms")]
    TooFar { ahead_ms: i64, max_ms: i64 },
    #[error("a message that takes a timer message back must come before that one is due")]
    TooLate,
}

impl<'a> TimerWish<'a> {
    pub(crate) fn in_properties(text: &'a str) -> TimerWish<'a> {
        let mut wish = TimerWish::default();
        for (name, value) in properties::pairs(text) {
            wish.notice(name, value);
        }
        wish
    }

    /// True if the property is one of a timer's.
    pub(crate) fn notice(&mut self, name: &str, value: &'a str) -> bool {
        match name {
            names::TIMER_DELAY_SEC => self.delay_sec = Some(value),
            names::TIMER_DELAY_MS => self.delay_ms = Some(value),
            names::TIMER_DELIVER_MS => self.deliver_ms = Some(value),
            names::TIMER_DEL_UNIQKEY => self.cancels = true,
            names::TIMER_OUT_MS => self.served = true,
            _ => return false,
        }
        true
    }

    /// The time in ms since 1970, `None` for at once. The delay in seconds wins over that in milliseconds, and that over the time.
    pub(crate) fn due_ms(&self, now_ms: i64, max_delay_sec: u32) -> Result<Option<i64>, TimerError> {
        let number = |value: &str| value.parse::<i64>().map_err(|_| TimerError::NotANumber { value: value.to_owned() });
        let due_ms = match (self.delay_sec, self.delay_ms, self.deliver_ms) {
            _ if self.served => return Ok(None),
            (Some(seconds), _, _) => now_ms.saturating_add(number(seconds)?.saturating_mul(1000)),
            (None, Some(millis), _) => now_ms.saturating_add(number(millis)?),
            (None, None, Some(time)) => number(time)?,
            (None, None, None) => return Ok(None),
        };
        let (ahead_ms, max_ms) = (due_ms.saturating_sub(now_ms), i64::from(max_delay_sec) * 1000);
        match ahead_ms {
            ..=0 if self.cancels => Err(TimerError::TooLate),
            ..=0 => Ok(None),
            ahead_ms if ahead_ms > max_ms => Err(TimerError::TooFar { ahead_ms, max_ms }),
            _ => Ok(Some(due_ms)),
        }
    }
}

/// Where a timer message is stored meanwhile; when and where it belongs goes into its properties. Sends do the same while they write
/// their properties: `Detour::Timer` in `handlers/send.rs`.
pub(crate) fn divert(properties: &mut Properties, due_ms: i64, topic: &str, queue: QueueId) -> (&'static str, QueueId) {
    properties.set(names::TIMER_OUT_MS, due_ms);
    properties.set(names::REAL_TOPIC, topic);
    properties.set(names::REAL_QUEUE_ID, queue);
    (TIMER_TOPIC, QUEUE)
}

/// What a message that takes another one back must name. Java: `TimerMessageStore.buildDeleteKey`.
pub(crate) fn cancel_key(topic: &str, unique_key: &str) -> String {
    format!("{topic}+{unique_key}")
}

/// The thread that delivers.
pub(crate) struct Timers {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<TimerIndex>>>,
    /// Until the thread has it.
    index: Mutex<Option<TimerIndex>>,
}

/// How far a Java broker was with this store. Java: `TimerCheckpoint`; spec store §10.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct JavaProgress {
    /// What was due before has been delivered, of what is before `queue_offset`.
    read_ms: i64,
    queue_offset: QueueOffset,
}

impl JavaProgress {
    /// Nothing if no Java broker has served timers here.
    fn read(path: &Path) -> io::Result<JavaProgress> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(JavaProgress::default()),
            Err(error) => return Err(error),
        };
        let long = |at: usize| {
            let long = bytes.get(at..at + 8).and_then(|long| long.try_into().ok()).map_or(0, i64::from_be_bytes);
            long.max(0)
        };
        Ok(JavaProgress { read_ms: long(0), queue_offset: QueueOffset(long(16).unsigned_abs()) })
    }
}

struct Shared {
    store: Arc<Store>,
    topics: Arc<Topics>,
    statistics: Arc<Statistics>,
    clock: Clock,
    java: JavaProgress,
    signal: Mutex<Signal>,
    wake: Condvar,
}

#[derive(Default)]
struct Signal {
    arrived: bool,
    stopping: bool,
}

/// Saved once the log is on disk up to its end.
struct ToSave {
    checkpoint: TimerCheckpoint,
    log_end: PhysicalOffset,
}

/// What is saved of the index, and when. A thread of its own waits for the disk, so that no delivery does.
struct Saving {
    last: Instant,
    next: Option<ToSave>,
    running: Option<RunningSave>,
    /// The log tells of the first failure in a row.
    failing: bool,
}

struct RunningSave {
    save: Arc<TimerSave>,
    thread: JoinHandle<Result<(), TimerSaveError>>,
}

impl Saving {
    fn begin(&mut self, index: &mut TimerIndex, checkpoint: TimerCheckpoint) -> io::Result<()> {
        // One that fails right here is not tried again sooner either.
        self.last = Instant::now();
        let save = Arc::new(index.begin_save(checkpoint)?);
        let shared = Arc::clone(&save);
        match std::thread::Builder::new().name("timers-save".into()).spawn(move || shared.run()) {
            Ok(thread) => self.running = Some(RunningSave { save, thread }),
            Err(error) => index.end_save(&save, Err(error.into()))?,
        }
        Ok(())
    }

    /// Takes over what has come of a save.
    fn end(&mut self, index: &mut TimerIndex, wait: bool) -> io::Result<()> {
        let Some(RunningSave { save, thread }) = self.running.take_if(|run| wait || run.thread.is_finished()) else {
            return Ok(());
        };
        let outcome =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that saves has panicked").into()));
        index.end_save(&save, outcome)?;
        self.failing = false;
        Ok(())
    }
}

impl Timers {
    /// Opens the index in `dir`. Nothing is delivered before [`start`](Self::start). What a Java broker has delivered by
    /// `java_checkpoint`, its `config/timercheck`, a new index takes as delivered.
    pub(crate) fn open(
        dir: PathBuf,
        java_checkpoint: &Path,
        clock: Clock,
        store: Arc<Store>,
        topics: Arc<Topics>,
        statistics: Arc<Statistics>,
    ) -> io::Result<Timers> {
        let mut java = JavaProgress::read(java_checkpoint)?;
        let mut index = TimerIndex::open(dir, java.read_ms.saturating_sub(1))?;
        let end = store.queue_bounds(TIMER_TOPIC, QUEUE).map_or(QueueOffset(0), |bounds| bounds.max);
        java.queue_offset = java.queue_offset.min(end);
        if index.entered() > end {
            warn!(entered = %index.entered(), %end, "more timers were entered than the queue has, because the log lost its end; going on at its end");
            index.skip_to(end);
            // Before anything new is stored there: it would count as entered after a crash.
            let checkpoint = index.checkpoint();
            index.save(checkpoint)?;
        }
        let shared = Shared { store, topics, statistics, clock, java, signal: Mutex::default(), wake: Condvar::new() };
        Ok(Timers { shared: Arc::new(shared), thread: Mutex::new(None), index: Mutex::new(Some(index)) })
    }

    /// Begins to deliver.
    pub(crate) fn start(&self) -> io::Result<()> {
        let Some(index) = self.index.lock().take() else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("timers".into()).spawn(move || shared.run(index))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// A message is visible in some queue. Called by whoever dispatches.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        if arrival.topic == TIMER_TOPIC {
            self.shared.wake_up();
        }
    }

    /// Ends the thread; what is not due yet stays for the next start.
    pub(crate) fn stop(&self) {
        self.shared.signal.lock().stopping = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            match thread.join() {
                Ok(index) => *self.index.lock() = Some(index),
                Err(_) => error!("the timer thread panicked; the next start goes on from what was saved"),
            }
        }
    }

    /// Saves the index with everything that was delivered. Only right once the store is closed: then all of it is on disk.
    pub(crate) fn save_after_close(&self) {
        if let Some(index) = &mut *self.index.lock()
            && index.entered() >= self.shared.java.queue_offset
        {
            let checkpoint = index.checkpoint();
            if let Err(error) = index.save(checkpoint) {
                error!(%error, "cannot save the timers; some messages will be delivered twice");
            }
        }
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The store took no more; those before have been delivered.
struct Stopped {
    at: usize,
    error: AppendError,
}

/// Why a turn of the thread ended early.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the timer index: {0}")]
    Index(#[from] io::Error),
}

impl Shared {
    /// There is something to be looked at.
    fn wake_up(&self) {
        self.signal.lock().arrived = true;
        self.wake.notify_one();
    }

    fn run(self: &Arc<Self>, mut index: TimerIndex) -> TimerIndex {
        let mut saving = Saving { last: Instant::now(), next: None, running: None, failing: false };
        self.serve(&mut index, &mut saving);
        if let Err(error) = saving.end(&mut index, true) {
            error!(%error, "cannot save the timers");
        }
        index
    }

    /// Until it is told to stop, or the store is closed.
    fn serve(self: &Arc<Self>, index: &mut TimerIndex, saving: &mut Saving) {
        let mut failing = false;
        loop {
            {
                let mut signal = self.signal.lock();
                if signal.stopping {
                    return;
                }
                signal.arrived = false;
            }
            let more = match self.turn(index, saving) {
                Ok(more) => {
                    if failing {
                        info!("timer messages are delivered again");
                    }
                    failing = false;
                    more
                }
                Err(TurnError::Append(AppendError::Closed)) => return,
                Err(error) => {
                    if !failing {
                        warn!(%error, "timer messages cannot be delivered now; trying again");
                    }
                    failing = true;
                    false
                }
            };
            if !more {
                let until = if failing {
                    RETRY_PAUSE
                } else {
                    let next = index.next_ms().unwrap_or(i64::MAX).saturating_sub(self.clock.now_ms());
                    Duration::from_millis(next.max(0).unsigned_abs()).min(SAVE_DELIVERED_PERIOD)
                };
                let mut signal = self.signal.lock();
                if failing || !signal.arrived && !signal.stopping {
                    self.wake.wait_for(&mut signal, until);
                }
            }
        }
    }

    /// Enters what has come, delivers what is due, saves what can be saved. True when there is more to do right now.
    fn turn(self: &Arc<Self>, index: &mut TimerIndex, saving: &mut Saving) -> Result<bool, TurnError> {
        // Everything that has come first: among it may be what takes something back that is due. What cannot be entered now holds up
        // what was entered before, for a while only.
        let entered = self.enter_all(index);
        let held_up_ms = if entered.is_ok() { 0 } else { HELD_UP_MAX_MS };
        let mut delivered = 0;
        while delivered < DELIVERED_MAX && !self.signal.lock().stopping {
            let due = index.due(self.clock.now_ms().saturating_sub(held_up_ms))?;
            let Some(first) = due.first().copied() else { break };
            if let Err(stopped) = self.deliver_all(&due) {
                let left = due.into_iter().enumerate().filter(|(at, timer)| *at >= stopped.at || timer.cancels);
                index.give_back(left.map(|(_, timer)| timer).collect());
                return Err(stopped.error.into());
            }
            index.delivered(first.due_ms);
            delivered += due.len();
        }
        if let Err(error) = self.save(index, saving)
            && !std::mem::replace(&mut saving.failing, true)
        {
            // Deliveries go on; after a crash some come again.
            error!(%error, "cannot save the timers; trying again");
        }
        entered?;
        Ok(delivered >= DELIVERED_MAX)
    }

    /// Takes over all that is new in the timer queue.
    fn enter_all(&self, index: &mut TimerIndex) -> Result<(), TurnError> {
        loop {
            // First: what cannot be written must not become more and more.
            index.write()?;
            if self.signal.lock().stopping {
                return Ok(());
            }
            if !self.enter(index)? {
                return Ok(index.write()?);
            }
        }
    }

    /// Takes over what is new in the timer queue, up to a turn; true when there may be more.
    fn enter(&self, index: &mut TimerIndex) -> Result<bool, TurnError> {
        let Some(bounds) = self.store.queue_bounds(TIMER_TOPIC, QUEUE) else { return Ok(false) };
        // Its beginning was cleaned, or it lost its end in a crash.
        let from = index.entered().clamp(bounds.min, bounds.max);
        if from != index.entered() {
            index.skip_to(from);
        }
        for _ in 0..TURN {
            let offset = index.entered();
            if offset >= bounds.max {
                return Ok(false);
            }
            let timer = self.timer_at(offset)?;
            match timer {
                Some(timer) if offset < self.java.queue_offset && timer.due_ms < self.java.read_ms => index.enter(None),
                // This broker was slower than the timer.
                Some(timer) if index.has_passed(timer.due_ms) && timer.due_ms <= self.clock.now_ms() => {
                    self.deliver_all(&[timer]).map_err(|stopped| stopped.error)?;
                    index.enter(None);
                }
                timer => {
                    if let Some(timer) = timer
                        && index.has_passed(timer.due_ms)
                    {
                        // The clock was set back.
                        index.go_back_before(timer.due_ms);
                    }
                    index.enter(timer);
                }
            }
        }
        Ok(true)
    }

    fn timer_at(&self, offset: QueueOffset) -> Result<Option<Timer>, AppendError> {
        let timer = self.with_record(offset, |record| {
            let text = record.properties();
            let due = property(&text, names::TIMER_OUT_MS).and_then(|due| due.parse().ok());
            let cancels = property(&text, names::TIMER_DEL_UNIQKEY).is_some();
            due.map(|due_ms| Timer { due_ms, offset, cancels })
        })?;
        Ok(timer.flatten())
    }

    /// What `act` makes of the message at a place of the timer queue; `None`, and a word in the log, if there is none.
    fn with_record<T>(
        &self,
        offset: QueueOffset,
        act: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<Option<T>, AppendError> {
        let entry = missing::look_up_entry(&self.store, WHAT, TIMER_TOPIC, QUEUE, offset);
        let Some(entry) = entry.map_err(missing::not_now)? else { return Ok(None) };
        let bytes = missing::look_up(&self.store, WHAT, entry.physical).map_err(missing::not_now)?;
        let Some(bytes) = bytes else { return Ok(None) };
        // Looked up by its place, it can be read.
        Ok(Record::parse(&bytes).ok().map(|record| act(&record)))
    }

    /// Delivers messages that are due at one time, but for those that others among them take back.
    fn deliver_all(&self, due: &[Timer]) -> Result<(), Stopped> {
        let mut cancelled = HashSet::new();
        for timer in due.iter().filter(|timer| timer.cancels) {
            let key = |record: &Record<'_>| record.property(names::TIMER_DEL_UNIQKEY).map(Cow::into_owned);
            let key = self.with_record(timer.offset, key).map_err(|error| Stopped { at: 0, error })?;
            cancelled.extend(key.flatten());
        }
        for (at, timer) in due.iter().enumerate().filter(|(_, timer)| !timer.cancels) {
            self.deliver_one(timer, due, &cancelled).map_err(|error| Stopped { at, error })?;
        }
        Ok(())
    }

    fn deliver_one(&self, timer: &Timer, due: &[Timer], cancelled: &HashSet<String>) -> Result<(), AppendError> {
        if self.is_rolled_copy(timer, due)? {
            return Ok(());
        }
        self.with_record(timer.offset, |record| self.deliver(record, timer, cancelled))?.unwrap_or(Ok(()))
    }

    /// Java stores a message again while it waits for more than two days (`TIMER_ROLL_TIMES`); the first copy is delivered then.
    fn is_rolled_copy(&self, timer: &Timer, due: &[Timer]) -> Result<bool, AppendError> {
        if timer.offset >= self.java.queue_offset {
            return Ok(false);
        }
        let identity = |timer: &Timer| {
            self.with_record(timer.offset, |record| {
                let text = record.properties();
                let value = |name| property(&text, name).map(str::to_owned);
                (value(names::TIMER_ROLL_TIMES).is_some(), value(names::REAL_TOPIC), value(names::UNIQUE_KEY))
            })
        };
        let Some((true, topic, key)) = identity(timer)? else { return Ok(false) };
        for earlier in due.iter().take_while(|earlier| earlier.offset < timer.offset) {
            if identity(earlier)?
                .is_some_and(|(_, other_topic, other_key)| (other_topic, other_key) == (topic.clone(), key.clone()))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn deliver(&self, record: &Record<'_>, timer: &Timer, cancelled: &HashSet<String>) -> Result<(), AppendError> {
        let mut properties = Properties::parse(&record.properties());
        let parsed = |name| properties.value(name).and_then(|value| value.parse::<i64>().ok());
        if parsed(names::TIMER_OUT_MS) != Some(timer.due_ms) {
            // The log lost its end in a crash of the machine, and the place was taken by another message, which has an entry of its own.
            return Ok(());
        }
        let place =
            places::destination(&self.topics, properties.as_str()).map(|(topic, queue)| (topic.to_owned(), queue));
        let (topic, queue) = match place {
            Ok(place) => place,
            Err(error) => {
                error!(physical_offset = %record.physical_offset(), %error, "a timer message cannot be delivered and is left out");
                return Ok(());
            }
        };
        if !cancelled.is_empty() {
            let key = properties.value(names::UNIQUE_KEY).unwrap_or_default();
            // Older clients name the key alone.
            if cancelled.contains(&cancel_key(&topic, key)) || cancelled.contains(key) {
                return Ok(());
            }
        }
        let stored = properties.clone();
        properties.set(names::TIMER_ENQUEUE_MS, record.store_timestamp());
        let now_ms = self.clock.now_ms();
        properties.set(names::TIMER_DEQUEUE_MS, now_ms);
        let deliver = |properties: &Properties| {
            let copy = NewMessage::copy_of(record, &topic, queue, properties.as_str());
            delivery::deliver(&copy, now_ms, (&self.store, &self.topics, &self.statistics))
        };
        let delivered = match deliver(&properties) {
            // Its properties were at the limit: they go as they came.
            Err(error) if error.is_of_the_message() => deliver(&stored),
            result => result,
        };
        match delivered {
            Err(error) if error.is_of_the_message() => {
                error!(physical_offset = %record.physical_offset(), topic, %error, "a timer message cannot be delivered and is left out");
                Ok(())
            }
            result => result.map(|_| ()),
        }
    }

    /// Makes the index durable as far as the delivered copies are on disk.
    fn save(self: &Arc<Self>, index: &mut TimerIndex, saving: &mut Saving) -> io::Result<()> {
        if index.entered() < self.java.queue_offset {
            // Interrupted now, taking over from Java begins anew.
            return Ok(());
        }
        let marks = self.store.watermarks();
        saving.end(index, false)?;
        if saving.running.is_none()
            && let Some(ready) = saving.next.take_if(|save| save.log_end <= marks.flushed)
        {
            saving.begin(index, ready.checkpoint)?;
        }
        let (now, saved) = (index.checkpoint(), index.saved());
        let period = if now.delivered_ms == saved.delivered_ms { SAVE_ENTERED_PERIOD } else { SAVE_DELIVERED_PERIOD };
        if saving.next.is_none() && saving.running.is_none() && now != saved && saving.last.elapsed() >= period {
            saving.next = Some(ToSave { checkpoint: now, log_end: marks.written });
            let shared = Arc::clone(self);
            self.store.when_flushed(marks.written, move |_| shared.wake_up());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::live_config::LiveConfig;
    use crate::persistence::Persistence;
    use crate::testing::{BAD_SECTOR, NO_DESCRIPTORS, TroubledDisk, break_queue, wait_refused, wait_until};
    use ferromq_protocol::message::SysFlag;
    use ferromq_store::{Appended, Disk, Effort, StoreConfig};
    use std::sync::atomic::{AtomicI64, Ordering};

    const NOW: i64 = 1_800_000_000_000;

    fn due(text: &str) -> Result<Option<i64>, TimerError> {
        TimerWish::in_properties(text).due_ms(NOW, 100)
    }

    #[test]
    fn seconds_win_over_milliseconds_and_those_over_the_time() {
        assert_eq!(due("TAGS\u{1}a\u{2}"), Ok(None));
        let time = format!("TIMER_DELIVER_MS\u{1}{}\u{2}", NOW + 7);
        assert_eq!(due(&time), Ok(Some(NOW + 7)));
        assert_eq!(due(&format!("{time}TIMER_DELAY_MS\u{1}8\u{2}")), Ok(Some(NOW + 8)));
        assert_eq!(due(&format!("TIMER_DELAY_SEC\u{1}9\u{2}{time}TIMER_DELAY_MS\u{1}8\u{2}")), Ok(Some(NOW + 9000)));
    }

    #[test]
    fn a_save_that_cannot_begin_is_not_tried_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = TimerIndex::open(dir.path().into(), 0).unwrap();
        let checkpoint = index.checkpoint();
        let save = index.begin_save(checkpoint).unwrap();
        index.end_save(&save, Err(TimerSaveError::Sync(io::Error::other("bad block")))).unwrap_err();
        let before = Instant::now();
        let mut saving = Saving { last: before, next: None, running: None, failing: false };
        saving.begin(&mut index, checkpoint).unwrap_err();
        assert!(saving.last > before && saving.running.is_none());
    }

    #[test]
    fn an_index_ahead_of_its_queue_is_brought_back_before_anything_new_comes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("timers");
        let mut index = TimerIndex::open(dir.clone(), 0).unwrap();
        index.skip_to(QueueOffset(20));
        let checkpoint = index.checkpoint();
        index.save(checkpoint).unwrap();
        drop(index);
        // The log has lost all twenty.
        let config = StoreConfig { segment_len: 1 << 16, ..StoreConfig::at(root.path()) };
        let store = Arc::new(Store::open(config).unwrap());
        let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Topics::open(root.path(), &live, &Persistence::default()).unwrap();
        let java = root.path().join("timercheck");
        let statistics = Arc::new(Statistics::new());
        let timers = Timers::open(dir.clone(), &java, Clock::system(), store, Arc::new(topics), statistics).unwrap();
        // As a second crash finds it, with new timers in these places.
        assert_eq!(TimerIndex::open(dir, 0).unwrap().entered(), QueueOffset(0));
        drop(timers);
    }

    /// Timers over a real store, with a clock of the test's own.
    struct House {
        clock_ms: Arc<AtomicI64>,
        disk: Arc<TroubledDisk>,
        store: Arc<Store>,
        topics: Arc<Topics>,
        timers: Arc<Timers>,
        root: tempfile::TempDir,
    }

    impl House {
        fn new() -> House {
            let house = House::asleep();
            house.timers.start().unwrap();
            house
        }

        /// Nothing is entered or delivered yet.
        fn asleep() -> House {
            let root = tempfile::tempdir().unwrap();
            let clock_ms = Arc::new(AtomicI64::new(NOW));
            let time = Arc::clone(&clock_ms);
            let clock = Clock::from_fn(move || time.load(Ordering::SeqCst));
            let disk = Arc::new(TroubledDisk::default());
            let config = StoreConfig {
                segment_len: 1 << 20,
                queue_file_entries: 1000,
                index_enabled: false,
                clock: clock.clone(),
                disk: Arc::clone(&disk) as Arc<dyn Disk>,
                ..StoreConfig::at(root.path())
            };
            let store = Arc::new(Store::open(config).unwrap());
            let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
            let topics = Arc::new(Topics::open(root.path(), &live, &Persistence::default()).unwrap());
            let dir = root.path().join("timers");
            let java = root.path().join("timercheck");
            let statistics = Arc::new(Statistics::new());
            let timers = Timers::open(dir, &java, clock, Arc::clone(&store), Arc::clone(&topics), statistics).unwrap();
            let timers = Arc::new(timers);
            let woken = Arc::downgrade(&timers);
            store.on_arrival(move |arrival| {
                if let Some(timers) = woken.upgrade() {
                    timers.arrived(arrival);
                }
            });
            House { clock_ms, disk, store, topics, timers, root }
        }

        fn append(&self, topic: &str, queue: QueueId, properties: &str, body: &[u8]) -> Result<Appended, AppendError> {
            let host = "127.0.0.1:1".parse().unwrap();
            self.store.append(&NewMessage {
                topic,
                queue_id: queue,
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: NOW,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body,
                properties,
            })
        }

        /// Stores a message for queue 0 of a topic that is due in so many ms.
        fn at(&self, in_ms: i64, topic: &str, more: &str) -> Appended {
            let due_ms = self.clock_ms.load(Ordering::SeqCst) + in_ms;
            let properties =
                format!("TIMER_OUT_MS\u{1}{due_ms}\u{2}REAL_TOPIC\u{1}{topic}\u{2}REAL_QID\u{1}0\u{2}{more}");
            self.append(TIMER_TOPIC, QUEUE, &properties, b"timer").unwrap()
        }

        fn pass(&self, ms: i64) {
            self.clock_ms.fetch_add(ms, Ordering::SeqCst);
            self.timers.shared.wake_up();
        }

        fn count(&self, topic: &str, queue: u32) -> u64 {
            self.store.queue_bounds(topic, QueueId(queue)).map_or(0, |bounds| bounds.max.0)
        }

        /// Returns once a queue has that many messages, and the thread has looked at everything.
        fn wait_for(&self, topic: &str, queue: u32, count: u64) {
            wait_until(&format!("{topic} never has {count} messages in queue {queue}"), || {
                self.count(topic, queue) >= count
            });
            assert_eq!(self.count(topic, queue), count, "{topic}");
        }
    }

    #[test]
    fn a_queue_that_takes_no_messages_holds_up_its_own_alone() {
        let house = House::new();
        let queues = house.root.path().join("consumequeue");
        for (topic, count) in [("Broken", 1), ("Wide", 2), ("Other", 1)] {
            house.topics.update(crate::topics::new_config(topic, count, 6)).unwrap();
        }
        let broken = break_queue(&house.store, "Broken", QueueId(0), &queues.join("Broken"));
        break_queue(&house.store, "Wide", QueueId(0), &queues.join("Wide/0"));
        for topic in ["Broken", "Wide", "Other"] {
            house.at(1_000, topic, "");
        }
        house.at(2_000, "Other", "");
        house.pass(1_000);
        house.wait_for("Other", 0, 1);
        house.wait_for("Wide", 1, 1);
        house.pass(1_000);
        house.wait_for("Other", 0, 2);
        // Again and again, and never stored where it is not seen.
        let waiting = house.count(TIMER_TOPIC, 0);
        house.pass(10_000);
        house.wait_for(TIMER_TOPIC, 0, waiting + 1);
        fs::remove_file(queues.join("Broken")).unwrap();
        house.wait_for("Broken", 0, broken);
        house.pass(10_000);
        house.wait_for("Broken", 0, broken + 1);
        house.timers.stop();
        assert_eq!([house.count("Wide", 1), house.count("Other", 0)], [1, 2]);
    }

    #[test]
    fn what_cannot_be_entered_now_holds_up_others_for_a_while() {
        for passes in [false, true] {
            let house = House::asleep();
            let first = house.at(1_000, "Back", "UNIQ_KEY\u{1}k\u{2}");
            house.at(1_000, "Early", "");
            // Far from these in the log.
            house.append("Between", QueueId(0), "", &[0; 8192]).unwrap();
            let back = house.at(1_000, "Back", "TIMER_DEL_UNIQKEY\u{1}Back+k\u{2}");
            house.at(900, "Late", "");
            house.wait_for(TIMER_TOPIC, 0, 4);
            house.disk.refuse("/commitlog/", first.end.0 + 4096..1 << 20, NO_DESCRIPTORS);
            wait_refused(|| house.store.message_at(back.physical_offset, Effort::Full));
            house.timers.start().unwrap();
            house.pass(1_000);
            let refused = house.disk.refused();
            wait_until("it is not tried again", || house.disk.refused() > refused + 2);
            assert_eq!(house.count("Early", 0), 0);
            if passes {
                house.disk.recover();
            } else {
                house.pass(HELD_UP_MAX_MS);
                house.wait_for("Early", 0, 1);
                house.disk.recover();
            }
            house.wait_for("Early", 0, 1);
            house.wait_for("Late", 0, 1);
            house.timers.stop();
            // What takes back came in time, if it could be read in time.
            assert_eq!(house.count("Back", 0), u64::from(!passes));
        }
    }

    #[test]
    fn an_entry_on_a_bad_sector_costs_its_timer_alone() {
        let house = House::asleep();
        for topic in ["Before", "Lost", "Behind"] {
            house.at(1_000, topic, "");
        }
        house.wait_for(TIMER_TOPIC, 0, 3);
        house.disk.refuse("/rmq_sys_wheel_timer/0/", 20..40, BAD_SECTOR);
        wait_refused(|| house.store.queue_entry(TIMER_TOPIC, QUEUE, QueueOffset(1), Effort::Full));
        house.timers.start().unwrap();
        house.pass(1_000);
        house.wait_for("Before", 0, 1);
        house.wait_for("Behind", 0, 1);
        house.timers.stop();
        assert_eq!(house.count("Lost", 0), 0);
    }

    #[test]
    fn past_is_now_and_far_is_refused() {
        assert_eq!(due("TIMER_DELIVER_MS\u{1}5\u{2}"), Ok(None));
        assert_eq!(due("TIMER_DELIVER_MS\u{1}5\u{2}TIMER_DEL_UNIQKEY\u{1}T+k\u{2}"), Err(TimerError::TooLate));
        assert_eq!(due("TIMER_DELAY_SEC\u{1}100\u{2}"), Ok(Some(NOW + 100_000)));
        let far = TimerError::TooFar { ahead_ms: 101_000, max_ms: 100_000 };
        assert_eq!(due("TIMER_DELAY_SEC\u{1}101\u{2}"), Err(far));
        assert_eq!(due("TIMER_DELAY_MS\u{1}soon\u{2}"), Err(TimerError::NotANumber { value: "soon".into() }));
        // Delivered once and sent again by its consumer: at once.
        assert_eq!(due("TIMER_DELAY_SEC\u{1}9\u{2}TIMER_OUT_MS\u{1}1\u{2}"), Ok(None));
    }
}
