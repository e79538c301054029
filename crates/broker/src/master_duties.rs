//! What only a master does: it delivers delayed messages and those for a given time, and asks after open transactions.
//!
//! Each has a thread of its own that can be started and stopped; requests reach their state whether it runs or not. What they know of the store
//! they read when they are opened: who becomes a master after others have written the log opens them anew.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use ferromq_store::{Arrival, Clock, DelayLevels, Keeper, Store};

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

pub(crate) struct MasterDuties {
    pub delays: Arc<Delays>,
    pub timers: Arc<Timers>,
    pub transactions: Arc<Transactions>,
}

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
    /// Reads how far they are from the directory of the store and from the log. None runs yet.
    pub(crate) fn open(root: &Path, parts: MasterParts, persistence: &Persistence) -> Result<MasterDuties, StartError> {
        let MasterParts { live, store, topics, offsets, clients, statistics, levels, clock, forward, store_host } =
            parts;
        let config_dir = root.join("config");
        let delays = DelayParts {
            store: Arc::clone(&store),
            topics: Arc::clone(&topics),
            statistics: Arc::clone(&statistics),
            levels: levels.clone(),
            clock: clock.clone(),
            forward: forward.clone(),
        };
        let delays = Arc::new(Delays::open(&config_dir, delays, persistence)?);
        let timers_dir = root.join("timers");
        let timers = Timers::open(
            timers_dir.clone(),
            &config_dir.join("timercheck"),
            clock,
            Arc::clone(&store),
            Arc::clone(&topics),
            Arc::clone(&statistics),
        );
        let timers = Arc::new(timers.map_err(|source| StartError::Timers { path: timers_dir, source })?);
        let transactions = Transactions::open(TransactionParts {
            config: live,
            offsets,
            clients,
            topics,
            statistics,
            store,
            levels,
            forward,
            store_host,
        });
        let transactions = Arc::new(transactions.map_err(StartError::Transactions)?);
        Ok(MasterDuties { delays, timers, transactions })
    }

    /// All or none.
    pub(crate) fn start(&self) -> io::Result<()> {
        let started = self.delays.start().and_then(|()| self.timers.start()).and_then(|()| self.transactions.start());
        started.inspect_err(|_| self.stop())
    }

    /// Whoever of them needs messages for longer than their segment is kept.
    pub(crate) fn keepers(&self) -> [Arc<dyn Keeper>; 3] {
        [self.timers.keeper(), self.transactions.keeper(), self.delays.keeper()]
    }

    /// Notes down how far they are, as far as the log is on disk. To be called again and again.
    pub(crate) fn save_progress(&self) {
        self.delays.save_if_changed();
    }

    /// What is not delivered or asked after stays for the next start.
    pub(crate) fn stop(&self) {
        self.transactions.stop();
        self.timers.stop();
        self.delays.stop();
    }

    /// A message is visible in some queue.
    pub(crate) fn arrived(&self, arrival: &Arrival<'_>) {
        self.delays.arrived(arrival);
        self.timers.arrived(arrival);
    }

    /// For tests with a clock of their own: look at the clock again.
    #[cfg(test)]
    pub(crate) fn clock_moved(&self) {
        self.bells().iter().for_each(|bell| bell.wake());
    }

    /// For tests: returns once all have looked at everything.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        crate::testing::wait_until("a duty does not come to rest", || self.bells().iter().all(|bell| bell.sleeps()));
    }

    #[cfg(test)]
    fn bells(&self) -> [&crate::worker::Bell; 3] {
        [self.delays.bell(), self.timers.bell(), self.transactions.bell()]
    }

    /// Saves how far they are. Only right once the store is closed: then all that they have delivered is on disk.
    pub(crate) fn save_after_close(&self) {
        self.delays.save_after_close();
        self.timers.save_after_close();
    }
}
