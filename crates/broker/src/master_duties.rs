//! What only a master does: it delivers delayed messages and those for a given time, and asks after open transactions.
//!
//! [`MasterDuties`] begins and ends all three together while the broker runs; whoever comes with a request, or tells of a message, finds them
//! there or learns that they are not at work. At each start they are opened anew, out of what is saved and what the queues have, so that
//! it does not matter who has written the log meanwhile.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use ferromq_config::replace_file;
use ferromq_protocol::body::{DelayOffsetTable, TimerCheckPoint};
use ferromq_protocol::json;
use ferromq_protocol::topics::{SCHEDULE_TOPIC, TIMER_TOPIC};
use ferromq_store::{Arrival, Clock, DelayLevels, Keeper, NotSafe, Store, Want};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use tracing::{info, warn};

use crate::clients::Clients;
use crate::consumer_offsets::ConsumerOffsets;
use crate::delay::{DelayParts, Delays};
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::start_error::StartError;
use crate::statistics::Statistics;
use crate::timers::Timers;
use crate::topics::Topics;
use crate::transactions::{TransactionParts, Transactions};

/// Most delay levels of a master that are believed.
const LEVELS_MAX: i32 = 1024;

/// The duties, while they are at work.
pub(crate) struct MasterDuties {
    root: PathBuf,
    parts: MasterParts,
    persistence: Arc<Persistence>,
    /// One change at a time: what opens reads what the one before has saved.
    changing: Mutex<()>,
    at_work: RwLock<Option<AtWork>>,
}

/// The three of them.
pub(crate) struct AtWork {
    pub delays: Delays,
    pub timers: Timers,
    pub transactions: Transactions,
}

/// The duties, for as long as whoever asked for them needs them: a stop waits for that.
pub(crate) type Held<'a> = MappedRwLockReadGuard<'a, AtWork>;

/// This broker does not do what only a master does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this broker delivers no delayed messages and keeps no transactions now: it is no master, or is about to be one"
)]
pub(crate) struct NotAtWork;

/// The parts that they use.
pub(crate) struct MasterParts {
    pub live: Arc<LiveConfig>,
    pub store: Arc<Store>,
    pub topics: Arc<Topics>,
    pub offsets: Arc<ConsumerOffsets>,
    pub clients: Arc<Clients>,
    pub statistics: Arc<Statistics>,
    pub levels: DelayLevels,
    /// The wall clock.
    pub clock: Clock,
    /// One that only goes forward.
    pub forward: Clock,
    /// As it is stored with messages.
    pub store_host: SocketAddr,
}

impl MasterDuties {
    /// None runs yet, and nothing is read.
    pub(crate) fn new(root: &Path, parts: MasterParts, persistence: Arc<Persistence>) -> MasterDuties {
        let (changing, at_work) = (Mutex::new(()), RwLock::new(None));
        MasterDuties { root: root.to_owned(), parts, persistence, changing, at_work }
    }

    /// Opens them and has them begin: all or none. Does nothing while they are at work. Reads out of the log what is open, and waits until
    /// the queues have all of the log; after an error nothing has changed, and it can be tried again.
    pub(crate) fn start(&self) -> Result<(), StartError> {
        let _changing = self.changing.lock();
        if self.at_work.read().is_some() {
            return Ok(());
        }
        // What is open is read out of the queues.
        if !(self.is_all_on_disk() && self.parts.store.wait_dispatched()) {
            return Err(StartError::NotDispatched);
        }
        let opened = AtWork::open(&self.root, &self.parts, &self.persistence)?;
        for keeper in opened.keepers() {
            self.parts.store.add_keeper(keeper);
        }
        *self.at_work.write() = Some(opened);
        // Only now: what comes from here on wakes them, and what came before they look at first.
        let started = self.held().map_or(Ok(()), |duties| duties.start());
        if let Err(error) = started {
            self.end();
            return Err(StartError::Thread(error));
        }
        Ok(())
    }

    /// Ends them: requests that are with them are answered first, later ones are refused. When it returns, their threads are gone, what they
    /// have delivered is on the disk, and how far they are is saved, as long as the disk does it; none of them writes anything any more. What
    /// waits is delivered and asked after by the next start, and holds its segments for as long as somebody has what this gives: at a stop of
    /// the broker, until the store is closed, which deletes segments until then. Does nothing while they are not at work.
    pub(crate) fn stop(&self) -> Vec<Arc<dyn Keeper>> {
        let _changing = self.changing.lock();
        self.end()
    }

    fn end(&self) -> Vec<Arc<dyn Keeper>> {
        // Not under the lock: messages that the threads store wake them through it.
        let Some(ending) = self.at_work.write().take() else { return Vec::new() };
        ending.stop();
        let all_on_disk = self.is_all_on_disk();
        if !all_on_disk {
            warn!("what was delivered last is not on the disk; it may be delivered twice");
        }
        ending.close(all_on_disk, &self.persistence);
        info!("delivers no delayed messages and asks after no transactions any more");
        ending.keepers().into()
    }

    /// Brings to the disk what is in the log, and waits for it as long as something gets there: not for room on a full disk. False if not all
    /// of it did.
    fn is_all_on_disk(&self) -> bool {
        let store = &self.parts.store;
        let end = store.watermarks().written;
        loop {
            let flushed = store.watermarks().flushed;
            let (done, outcome) = mpsc::channel();
            // The receiver is there until it has been told.
            store.when_safe(end, Want::Disk, move |safe| _ = done.send(safe));
            match outcome.recv() {
                Ok(Ok(())) => return true,
                // A slow disk.
                Ok(Err(NotSafe::DiskTimedOut)) if store.watermarks().flushed > flushed => {}
                Ok(Err(NotSafe::DiskTimedOut | NotSafe::Failed)) | Err(mpsc::RecvError) => return false,
            }
        }
    }

    /// The duties, if they are at work. Nobody who has them may ask again before he has let go.
    pub(crate) fn held(&self) -> Result<Held<'_>, NotAtWork> {
        RwLockReadGuard::try_map(self.at_work.read(), Option::as_ref).map_err(|_| NotAtWork)
    }

    /// On a slave: how far its master is with delayed messages and timers, for whoever begins here with that log; durable when this returns.
    /// Only right if this log has what the master has delivered. Does nothing while they are at work: then they know better.
    pub(crate) fn take_over(
        &self,
        delays: Option<&DelayOffsetTable>,
        timers: Option<&TimerCheckPoint>,
    ) -> io::Result<()> {
        let _changing = self.changing.lock();
        if self.at_work.read().is_some() {
            return Ok(());
        }
        let config_dir = self.root.join("config");
        if let Some(delays) = delays {
            let is_possible = |level: &i32, offset: &i64| (1..=LEVELS_MAX).contains(level) && *offset >= 0;
            let offsets = delays.offset_table.iter().filter(|(level, offset)| is_possible(level, offset));
            let offset_table = offsets.map(|(level, offset)| (*level, *offset)).collect();
            let table = DelayOffsetTable { data_version: delays.data_version.clone(), offset_table };
            replace_file(&config_dir.join("delayOffset.json"), &json::to_vec_pretty(&table))?;
        }
        if let Some(timers) = timers {
            let known = TimerCheckPoint {
                // What is due later nobody has delivered, whatever the other clock says.
                last_read_time_ms: timers.last_read_time_ms.clamp(0, self.parts.clock.now_ms().max(0)),
                last_timer_log_flush_pos: 0,
                // A Java broker would take what is before it for entered in its files.
                last_timer_queue_offset: 0,
                master_timer_queue_offset: timers.master_timer_queue_offset.max(0),
                data_version: timers.data_version.clone(),
            };
            replace_file(&config_dir.join("timercheck"), &known.encode())?;
            // Of when this broker was a master itself: the other one has gone on since. Made anew out of the queue.
            let own = self.root.join("timers");
            if own.exists() {
                std::fs::remove_dir_all(own)?;
            }
        }
        Ok(())
    }

    /// Notes down how far they are, as far as the log is on disk. To be called again and again.
    pub(crate) fn save_progress(&self) {
        if let Ok(duties) = self.held() {
            duties.delays.save_if_changed();
        }
    }

    /// A message is visible in some queue. Called by whoever dispatches, who may be a thread that has them.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        if !matches!(arrival.topic, SCHEDULE_TOPIC | TIMER_TOPIC) {
            return;
        }
        if let Some(duties) = &*self.at_work.read_recursive() {
            duties.delays.arrived(arrival);
            duties.timers.arrived(arrival);
        }
    }

    /// For tests with a clock of their own: look at the clock again.
    #[cfg(test)]
    pub(crate) fn clock_moved(&self) {
        if let Ok(duties) = self.held() {
            duties.bells().iter().for_each(|bell| bell.wake());
        }
    }

    /// For tests: whether they are about to begin or to end.
    #[cfg(test)]
    pub(crate) fn is_changing(&self) -> bool {
        self.at_work.try_read().is_none()
    }

    /// For tests: returns once all have looked at everything.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let duties = self.held().expect("they are at work");
        crate::testing::wait_until("a duty does not come to rest", || duties.bells().iter().all(|bell| bell.sleeps()));
    }
}

impl AtWork {
    /// Reads how far they are from the directory of the store and from the log. None runs yet.
    fn open(root: &Path, parts: &MasterParts, persistence: &Persistence) -> Result<AtWork, StartError> {
        let MasterParts { live, store, topics, offsets, clients, statistics, levels, clock, forward, store_host } =
            parts;
        let config_dir = root.join("config");
        let timers_dir = root.join("timers");
        let timers = Timers::open(
            timers_dir.clone(),
            &config_dir.join("timercheck"),
            clock.clone(),
            Arc::clone(store),
            Arc::clone(topics),
            Arc::clone(statistics),
        );
        let timers = timers.map_err(|source| StartError::Timers { path: timers_dir, source })?;
        let transactions = Transactions::open(TransactionParts {
            config: Arc::clone(live),
            offsets: Arc::clone(offsets),
            clients: Arc::clone(clients),
            topics: Arc::clone(topics),
            statistics: Arc::clone(statistics),
            store: Arc::clone(store),
            levels: levels.clone(),
            forward: forward.clone(),
            store_host: *store_host,
        });
        let transactions = transactions.map_err(StartError::Transactions)?;
        // Last: its file has a thread.
        let delays = DelayParts {
            store: Arc::clone(store),
            topics: Arc::clone(topics),
            statistics: Arc::clone(statistics),
            levels: levels.clone(),
            clock: clock.clone(),
            forward: forward.clone(),
        };
        let delays = Delays::open(&config_dir, delays, persistence)?;
        Ok(AtWork { delays, timers, transactions })
    }

    fn start(&self) -> io::Result<()> {
        self.delays.start()?;
        self.timers.start()?;
        self.transactions.start()
    }

    /// Whoever of them needs messages for longer than their segment is kept.
    pub(crate) fn keepers(&self) -> [Arc<dyn Keeper>; 3] {
        [self.timers.keeper(), self.transactions.keeper(), self.delays.keeper()]
    }

    fn stop(&self) {
        self.transactions.stop();
        self.timers.stop();
        self.delays.stop();
    }

    fn close(&self, all_on_disk: bool, persistence: &Persistence) {
        if all_on_disk {
            self.timers.save();
        }
        self.delays.close(all_on_disk, persistence);
    }

    #[cfg(test)]
    fn bells(&self) -> [&crate::worker::Bell; 3] {
        [self.delays.bell(), self.timers.bell(), self.transactions.bell()]
    }
}
