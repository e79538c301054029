//! How many copies of a master's log there are: the one [`Copies`] of the broker, and who tells it what.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;

use ferromq_replication::{Copies, CopiesConfig, FeedId, OwnLog, Peer, Report, TooManyFeeds};
use ferromq_store::Store;
use parking_lot::Mutex;

use super::moment;
use crate::config::BrokerConfig;

/// Owner of [`Copies`]: told by the feeds what slaves hold, and with that how far the own log goes.
pub(crate) struct MasterCopies {
    store: Arc<Store>,
    copies: Mutex<Copies>,
}

impl MasterCopies {
    pub(crate) fn new(config: &BrokerConfig, store: Arc<Store>) -> MasterCopies {
        let own = own_log(&store);
        // With asynchronous replication an acknowledgement is the master's alone.
        let asked = CopiesConfig {
            copies: 1,
            all_in_sync: false,
            in_sync_min: 1,
            gap_max: config.ha_max_gap_not_in_sync,
            not_caught_up_ms_max: config.ha_max_time_slave_not_catchup,
            slave_timeout_ms: config.slave_timeout,
        };
        let copies = Copies::new(asked, own, own.safe, moment());
        MasterCopies { store, copies: Mutex::new(copies) }
    }

    /// A slave has connected.
    pub(super) fn enter(self: &Arc<Self>, slave: SocketAddr, local: SocketAddr) -> Result<FeedPlace, TooManyFeeds> {
        let id = self.copies.lock().open(peer(slave, local))?;
        Ok(FeedPlace { copies: Arc::clone(self), id })
    }
}

/// One feed's place among the copies, for as long as this lives.
pub(super) struct FeedPlace {
    copies: Arc<MasterCopies>,
    id: FeedId,
}

impl FeedPlace {
    /// The own log may go further than it did.
    pub(super) fn grown(&self) {
        let own = own_log(&self.copies.store);
        self.copies.copies.lock().grown(own, moment());
    }

    /// What the feed has found possible.
    pub(super) fn reported(&self, report: Report) {
        // First how far the own log goes, which the slave cannot be ahead of.
        let own = own_log(&self.copies.store);
        let mut copies = self.copies.copies.lock();
        let now = moment();
        copies.grown(own, now);
        copies.reported(self.id, report, now);
    }

    /// Whether another slave is in sync, to which this one yields while it catches up.
    pub(super) fn yields(&self) -> bool {
        let copies = self.copies.copies.lock();
        copies.standings(moment()).any(|standing| standing.feed != self.id && standing.is_in_sync)
    }
}

impl Drop for FeedPlace {
    fn drop(&mut self) {
        self.copies.copies.lock().closed(self.id, moment());
    }
}

fn own_log(store: &Store) -> OwnLog {
    // The lesser one first: it may grow meanwhile.
    let safe = store.feed_end();
    OwnLog { end: store.watermarks().written, safe }
}

/// A machine is told by its address; slaves on the master's own machine, which share one, are told by their connections.
fn peer(slave: SocketAddr, local: SocketAddr) -> Peer {
    let mut hasher = DefaultHasher::new();
    slave.ip().hash(&mut hasher);
    if slave.ip().is_loopback() || slave.ip() == local.ip() {
        slave.port().hash(&mut hasher);
    }
    Peer(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_one_peer_and_on_the_masters_own_each_connection_is() {
        let peer = |slave: &str, local: &str| peer(slave.parse().unwrap(), local.parse().unwrap());
        assert_eq!(peer("10.0.0.2:40000", "10.0.0.1:10912"), peer("10.0.0.2:40001", "10.0.0.1:10912"));
        assert_ne!(peer("10.0.0.2:40000", "10.0.0.1:10912"), peer("10.0.0.3:40000", "10.0.0.1:10912"));
        assert_ne!(peer("127.0.0.1:40000", "127.0.0.1:10912"), peer("127.0.0.1:40001", "127.0.0.1:10912"));
        assert_ne!(peer("10.0.0.1:40000", "10.0.0.1:10912"), peer("10.0.0.1:40001", "10.0.0.1:10912"));
    }
}
