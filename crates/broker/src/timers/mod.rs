//! Messages for a given time: they wait in `rmq_sys_wheel_timer`, and are put into their own topic when due, or taken back before.
//!
//! One thread enters the queue of that topic into a [`TimerIndex`] and delivers what is due. A message is never delivered early, and at
//! least once: the index is saved only up to where the delivered copies are on disk. Times are exact to the millisecond; Java's are
//! whole seconds, rounded down. What still waits when its segment is to go is stored again behind. Java: `TimerMessageStore`.

mod carry_progress;
mod carrying;
mod delivery;
#[cfg(test)]
mod house;
mod java;
mod saving;
mod turn_error;
mod wish;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::QueueOffset;
use ferromq_protocol::topics::TIMER_TOPIC;
use ferromq_store::{AppendError, Arrival, Clock, Store, TimerCheckpoint, TimerIndex};
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::carrying::Carrying;
use crate::destination::TIMER_QUEUE as QUEUE;
use crate::statistics::Statistics;
use crate::topics::Topics;
use crate::worker::{Bell, Worker};
use carry_progress::CarryProgress;
use java::JavaProgress;
use saving::{IndexSaver, SavePeriods};
use turn_error::TurnError;
pub(crate) use wish::TimerWish;

/// As the log calls them.
const WHAT: &str = "a timer message";
/// Pause after a failure.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a message that takes another one back must name. Java: `TimerMessageStore.buildDeleteKey`.
pub(crate) fn cancel_key(topic: &str, unique_key: &str) -> String {
    format!("{topic}+{unique_key}")
}

/// The thread that delivers.
pub(crate) struct Timers {
    delivery: Arc<TimerDelivery>,
    worker: Worker,
}

/// How far the timers are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimerProgress {
    /// How late the next delivery is. Java: `TimerMessageStore.getDequeueBehind`.
    pub behind_s: u64,
    /// Messages that came and are not entered yet. Java: `getEnqueueBehindMessages`.
    pub not_entered: u64,
    /// Messages that wait for their time. Java: `getAllCongestNum`.
    pub waiting: u64,
}

/// What the thread has told of its index.
#[derive(Clone, Copy, Default)]
struct TimerFigures {
    entered: QueueOffset,
    waiting: u64,
    earliest_ms: Option<i64>,
    checkpoint: TimerCheckpoint,
}

struct TimerDelivery {
    dir: PathBuf,
    /// While the thread does not have it; a panic of that loses it.
    index: Mutex<Option<TimerIndex>>,
    store: Arc<Store>,
    topics: Arc<Topics>,
    statistics: Arc<Statistics>,
    clock: Clock,
    java: JavaProgress,
    told: Mutex<TimerFigures>,
    save_periods: SavePeriods,
    carrying: Arc<Carrying>,
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
        let end = store.queue_bounds(TIMER_TOPIC, QUEUE).unwrap_or_default().max;
        java.queue_offset = java.queue_offset.min(end);
        let worker = Worker::new("timers");
        let delivery = TimerDelivery {
            dir,
            index: Mutex::new(None),
            store,
            topics,
            statistics,
            clock,
            java,
            save_periods: SavePeriods::default(),
            told: Mutex::default(),
            carrying: Arc::new(Carrying::new("timers", worker.bell())),
        };
        *delivery.index.lock() = Some(delivery.open_index()?);
        Ok(Timers { delivery: Arc::new(delivery), worker })
    }

    /// Holds the segments of what waits until it is carried on.
    pub(crate) fn keeper(&self) -> Arc<Carrying> {
        Arc::clone(&self.delivery.carrying)
    }

    /// For tests that do not want to wait for saves.
    #[cfg(test)]
    pub(crate) fn saving_every(mut self, period: Duration) -> Timers {
        let delivery = Arc::get_mut(&mut self.delivery).expect("not before it is started");
        delivery.save_periods = SavePeriods { delivered: period, entered: period };
        self
    }

    #[cfg(test)]
    pub(crate) fn bell(&self) -> &Bell {
        self.worker.bell()
    }

    /// Begins to deliver, or goes on after a stop.
    pub(crate) fn start(&self) -> io::Result<()> {
        let delivery = Arc::clone(&self.delivery);
        self.worker.start(move |bell| delivery.run(bell))
    }

    /// A message is visible in some queue. Called by whoever dispatches.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        if arrival.topic == TIMER_TOPIC {
            self.worker.bell().wake();
        }
    }

    pub(crate) fn progress(&self) -> TimerProgress {
        let delivery = &self.delivery;
        let told = *delivery.told.lock();
        let end = delivery.store.queue_bounds(TIMER_TOPIC, QUEUE).unwrap_or_default().max;
        let late_ms = told.earliest_ms.map_or(0, |earliest| delivery.clock.now_ms().saturating_sub(earliest));
        TimerProgress {
            behind_s: late_ms.max(0).unsigned_abs() / 1000,
            not_entered: end.0.saturating_sub(told.entered.0),
            waiting: told.waiting,
        }
    }

    /// What is delivered by now: of what the queue has before `entered`, what was due by `delivered_ms`.
    pub(crate) fn checkpoint(&self) -> TimerCheckpoint {
        self.delivery.told.lock().checkpoint
    }

    /// Ends the thread; what is not due yet stays for the next start.
    pub(crate) fn stop(&self) {
        self.worker.stop();
    }

    /// After a stop, saves the index with everything that was delivered. Only right if all of it is on the disk.
    pub(crate) fn save(&self) {
        if let Some(index) = &mut *self.delivery.index.lock()
            && self.delivery.may_be_saved(index)
        {
            let checkpoint = index.checkpoint();
            if let Err(error) = index.save(checkpoint) {
                error!(%error, "cannot save the timers; some messages will be delivered twice");
            }
        }
    }
}

impl TimerDelivery {
    /// As it was saved. What counts as entered is in the queue.
    fn open_index(&self) -> io::Result<TimerIndex> {
        let delivered_ms = self.java.read_ms.saturating_sub(1);
        let mut index = TimerIndex::open(self.store.disk(), self.dir.clone(), self.store.id(), delivered_ms)?;
        let end = self.store.queue_bounds(TIMER_TOPIC, QUEUE).unwrap_or_default().max;
        if index.entered_once() > end {
            warn!(entered = %index.entered_once(), %end, "more timers were entered than the queue has, because the log lost its end; going on at its end");
            // Before anything new is stored there: it would count as entered after a crash.
            index.queue_ends(end)?;
        }
        self.tell(&index);
        Ok(index)
    }

    /// For [`Timers::progress`] and [`Timers::checkpoint`].
    fn tell(&self, index: &TimerIndex) {
        *self.told.lock() = TimerFigures {
            entered: index.entered(),
            waiting: index.count(),
            earliest_ms: index.earliest_ms(),
            checkpoint: index.checkpoint(),
        };
    }

    fn run(&self, bell: &Arc<Bell>) {
        let kept = self.index.lock().take();
        let mut index = match kept.map_or_else(|| self.open_index(), Ok) {
            Ok(index) => index,
            Err(error) => {
                return error!(%error, "the timers cannot be opened again; none is delivered before the next start");
            }
        };
        let mut saving = IndexSaver::new();
        self.serve(&mut index, &mut saving, bell);
        if let Err(error) = saving.end(&mut index, true) {
            error!(%error, "cannot save the timers");
        }
        *self.index.lock() = Some(index);
    }

    /// Until it is told to stop, or the store is closed.
    fn serve(&self, index: &mut TimerIndex, saving: &mut IndexSaver, bell: &Arc<Bell>) {
        let mut failing = false;
        let mut carried = CarryProgress::default();
        while bell.begins() {
            match self.turn(index, saving, &mut carried, bell) {
                Err(TurnError::Append(AppendError::Closed)) => return,
                Err(error) => {
                    if std::mem::replace(&mut failing, true) {
                        // Told of already.
                    } else if let TurnError::Index(_) = &error {
                        error!(%error, "no timer message is delivered until the disk does it; a file that is lost is made again out of the timer queue");
                    } else if let TurnError::NoRoom = &error {
                        warn!(%error, "no more timer messages are taken over before there is room");
                    } else {
                        warn!(%error, "timer messages cannot be delivered now; trying again");
                    }
                    bell.pause(RETRY_PAUSE);
                }
                Ok(more) => {
                    if std::mem::take(&mut failing) {
                        info!("timer messages are delivered again");
                    }
                    if !more {
                        let next = index.next_ms().unwrap_or(i64::MAX).saturating_sub(self.clock.now_ms());
                        // What waits for copies to arrive is due already.
                        let least = i64::from(carried.is_under_way());
                        let time =
                            Duration::from_millis(next.max(least).unsigned_abs()).min(self.save_periods.delivered);
                        bell.sleep(i64::MAX, Some(time));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerConfig;
    use crate::live_config::LiveConfig;
    use crate::persistence::Persistence;
    use ferromq_store::{LocalDisk, StoreConfig};

    #[test]
    fn an_index_ahead_of_its_queue_is_brought_back_before_anything_new_comes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("timers");
        // The log has lost all twenty.
        let config = StoreConfig { segment_len: 1 << 16, ..StoreConfig::at(root.path()) };
        let store = Arc::new(Store::open(config).unwrap());
        let id = store.id();
        let mut index = TimerIndex::open(Arc::new(LocalDisk), dir.clone(), id, 0).unwrap();
        index.skip_to(QueueOffset(20));
        let checkpoint = index.checkpoint();
        index.save(checkpoint).unwrap();
        drop(index);
        let live = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Topics::open(root.path(), &live, &Persistence::default()).unwrap();
        let java = root.path().join("timercheck");
        let statistics = Arc::new(Statistics::new());
        let timers = Timers::open(dir.clone(), &java, Clock::system(), store, Arc::new(topics), statistics).unwrap();
        // As a second crash finds it, with new timers in these places.
        assert_eq!(TimerIndex::open(Arc::new(LocalDisk), dir, id, 0).unwrap().entered(), QueueOffset(0));
        drop(timers);
    }
}
