//! What only a master does: it delivers delayed messages and those for a given time, and asks after open transactions.
//!
//! Each has a thread of its own that can be started and stopped; requests reach their state whether it runs or not. What they know of the store
//! they read when they are opened: who becomes a master after others have written the log opens them anew.

use std::io;
use std::sync::Arc;

use ferromq_store::{Arrival, Keeper};

use crate::delay::Delays;
use crate::timers::Timers;
use crate::transactions::Transactions;

pub(crate) struct MasterDuties {
    pub delays: Arc<Delays>,
    pub timers: Arc<Timers>,
    pub transactions: Arc<Transactions>,
}

impl MasterDuties {
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
