//! How many copies of a master's log there are: the one [`Copies`] of the broker, who tells it what, and who waits for it.
//!
//! With SYNC_MASTER and more than one copy asked for, answers wait here until enough brokers hold what they promise, or `slaveTimeout` has
//! passed; consumers see the log up to where nobody waits any more. Otherwise nobody waits, and the log is not held up by what is here.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ferromq_protocol::PhysicalOffset;
use ferromq_replication::{
    Copies, CopiesConfig, FeedId, Moment, NotEnoughInSync, OwnLog, Peer, Progress, Report, TooManyFeeds,
};
use ferromq_store::Store;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::moment;
use crate::config::{BrokerConfig, BrokerRole};

/// A start waits so much longer than `slaveTimeout` for what that ends.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Why an answer does not say that other brokers hold what it promises. This one has stored it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotHeld {
    /// They may hold it later. Java: FLUSH_SLAVE_TIMEOUT.
    #[error("other brokers did not hold it in time")]
    TimedOut,
    /// The broker stops, or is no master any more.
    #[error("nobody asks other brokers any more whether they hold it")]
    Over,
}

type Done = Box<dyn FnOnce(Result<(), NotHeld>) + Send>;

struct Waiter {
    end: PhysicalOffset,
    done: Done,
}

/// Owner of [`Copies`], one for each time that the broker is a master.
pub(crate) struct MasterCopies {
    store: Arc<Store>,
    config: CopiesConfig,
    state: Mutex<State>,
    /// For who keeps the time.
    first_waits: Notify,
}

/// How one slave stands.
pub(crate) struct SlaveStanding {
    pub slave: SocketAddr,
    /// How far it holds the log; `None` before its first report.
    pub held: Option<PhysicalOffset>,
    /// How far it was sent the log; `None` before its first report.
    pub sent: Option<PhysicalOffset>,
    /// Of the last whole second.
    pub bytes_per_second: u64,
    pub is_in_sync: bool,
}

/// What a feed has sent.
#[derive(Default)]
struct Sent {
    to: Option<PhysicalOffset>,
    /// The second that is running, and the bytes that were sent in it.
    second: Moment,
    bytes: u64,
    /// Those of the second before it.
    bytes_before: u64,
}

impl Sent {
    fn add(&mut self, to: PhysicalOffset, bytes: u64, now: Moment) {
        self.turn(now);
        self.to = Some(to);
        self.bytes += bytes;
    }

    fn per_second(&mut self, now: Moment) -> u64 {
        self.turn(now);
        self.bytes_before
    }

    fn turn(&mut self, now: Moment) {
        let passed = now.since(self.second);
        if passed >= 1000 {
            self.bytes_before = if passed < 2000 { self.bytes } else { 0 };
            (self.second, self.bytes) = (Moment(now.0 - passed % 1000), 0);
        }
    }
}

struct Fed {
    id: FeedId,
    slave: SocketAddr,
    sent: Sent,
}

struct State {
    /// `None` while the broker is no master.
    copies: Option<Copies>,
    /// Ordered by end.
    waiting: VecDeque<Waiter>,
    /// Those who are among the copies.
    fed: Vec<Fed>,
    /// What the store was told last.
    confirmed: Option<PhysicalOffset>,
}

/// Whom a change has answered. To be told when no lock is held.
#[must_use = "they wait to be told"]
struct Told(Vec<(Done, Result<(), NotHeld>)>);

impl Told {
    fn tell(self) {
        for (done, outcome) in self.0 {
            done(outcome);
        }
    }
}

impl MasterCopies {
    /// `confirmed` is how far consumers could see the log when it was last open; `None`: all of it.
    pub(crate) fn new(config: &BrokerConfig, store: Arc<Store>, confirmed: Option<PhysicalOffset>) -> MasterCopies {
        if config.broker_role == BrokerRole::SyncMaster && !keeps_copies(config) {
            warn!(
                "brokerRole=SYNC_MASTER with inSyncReplicas=1 waits for no slave, as in Java: an acknowledgement means this broker's copy \
                 alone; set inSyncReplicas=2 for one more"
            );
        }
        let config = copies_config(config);
        let own = own_log(&store);
        let copies = Copies::new(config.clone(), own, confirmed.unwrap_or(own.safe), moment());
        let state = State { copies: Some(copies), waiting: VecDeque::new(), fed: Vec::new(), confirmed: None };
        let copies = MasterCopies { store, config, state: Mutex::new(state), first_waits: Notify::new() };
        copies.look();
        copies
    }

    /// Whether answers, and consumers, wait for other brokers.
    pub(crate) fn are_waited_for(&self) -> bool {
        asks_for_copies(&self.config)
    }

    /// Whether messages are taken. Asked before each append for a client.
    pub(crate) fn admits(&self) -> Result<(), NotEnoughInSync> {
        if self.config.in_sync_min <= 1 {
            return Ok(());
        }
        self.state.lock().copies.as_ref().map_or(Ok(()), |copies| copies.admits(moment()))
    }

    /// Calls `done` once as many brokers as are asked for hold the log up to `end`, or with the reason why not; at once when the answer is
    /// known, else on the thread that serves slaves. Of two, the one with the lesser end first. For who waits for other brokers at all.
    pub(crate) fn when_held(&self, end: PhysicalOffset, done: impl FnOnce(Result<(), NotHeld>) + Send + 'static) {
        let own = own_log(&self.store);
        let mut state = self.state.lock();
        let known = match &mut state.copies {
            None => Some(Err(NotHeld::Over)),
            // The time of this record runs from now on, also where nobody tells that the log grows: a commit of the write pool may be stuck.
            Some(copies) => outcome(copies.grown(own, moment()), end),
        };
        if let Some(outcome) = known {
            drop(state);
            return done(outcome);
        }
        let at = state.waiting.partition_point(|waiter| waiter.end <= end);
        state.waiting.insert(at, Waiter { end, done: Box::new(done) });
        if state.waiting.len() == 1 {
            self.first_waits.notify_one();
        }
    }

    /// Waits until consumers may see all that is in the log now, which is no longer than `slaveTimeout` while somebody keeps the time.
    /// False if it takes longer than `patience`.
    pub(crate) fn wait_confirmed(&self, patience: Duration) -> bool {
        if !self.are_waited_for() {
            return true;
        }
        let (done, outcome) = mpsc::channel();
        // The receiver is there until it has been told, or does not want it any more.
        self.when_held(self.store.watermarks().written, move |held| _ = done.send(held));
        !matches!(outcome.recv_timeout(patience), Err(RecvTimeoutError::Timeout))
    }

    /// At a start, before anybody reads queues: waits until consumers may see all of the log, and the queues have it. False if they do not.
    pub(crate) fn wait_confirmed_at_start(&self) -> bool {
        if !self.are_waited_for() {
            return true;
        }
        let Progress { confirmed, .. } = self.progress();
        let log_end = self.store.watermarks().written;
        if confirmed < log_end {
            info!(%confirmed, %log_end, "waits for other brokers to hold the end of the log, or for slaveTimeout to pass");
        }
        self.wait_confirmed(Duration::from_millis(self.config.slave_timeout_ms).saturating_mul(2) + START_PATIENCE)
            && self.store.wait_dispatched()
    }

    fn progress(&self) -> Progress {
        self.state.lock().copies.as_ref().map(Copies::progress).unwrap_or_default()
    }

    /// Sees to it that those whose time is up are told. Never ends.
    pub(super) async fn keep_time(&self) {
        if !self.are_waited_for() {
            return std::future::pending().await;
        }
        let grows = Arc::new(Notify::new());
        let _listening = self.store.on_growth({
            let grows = Arc::clone(&grows);
            move |_| grows.notify_one()
        });
        loop {
            let due = self.look();
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep(Duration::from_millis(due.since(moment()))).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = grows.notified() => {}
                () = self.first_waits.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// What has become of the own log, and of the time. When it is to be looked again, although nothing grows.
    fn look(&self) -> Option<Moment> {
        let due = self.change(|copies, now| {
            let progress = copies.tick(now);
            (progress, copies.due())
        });
        due.flatten()
    }

    /// The broker becomes a master. What is in its log is confirmed as if it had been appended now.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        if state.copies.is_none() {
            let own = own_log(&self.store);
            let confirmed = state.confirmed.unwrap_or(own.safe);
            state.copies = Some(Copies::new(self.config.clone(), own, confirmed, moment()));
        }
    }

    /// The broker is no master any more, or stops: whoever waits is told so. Appends end before, connections of slaves after this.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.copies = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        Told(waiting.into_iter().map(|waiter| (waiter.done, Err(NotHeld::Over))).collect()).tell();
    }

    /// A slave has connected.
    pub(super) fn enter(self: &Arc<Self>, slave: SocketAddr, local: SocketAddr) -> Result<FeedPlace, TooManyFeeds> {
        let mut state = self.state.lock();
        // Without a mastership nobody is let in.
        let copies = state.copies.as_mut().ok_or(TooManyFeeds)?;
        let id = copies.open(peer(slave, local))?;
        state.fed.push(Fed { id, slave, sent: Sent::default() });
        Ok(FeedPlace { copies: Arc::clone(self), id })
    }

    /// Every slave that is connected, in the order in which they came. Nothing while the broker is no master.
    pub(crate) fn standings(&self) -> Vec<SlaveStanding> {
        let mut state = self.state.lock();
        let (State { copies, fed, .. }, now) = (&mut *state, moment());
        let standings = copies.iter().flat_map(|copies| copies.standings(now));
        let with_feed = standings.filter_map(|standing| {
            let fed = fed.iter_mut().find(|fed| fed.id == standing.feed)?;
            Some(SlaveStanding {
                slave: fed.slave,
                held: standing.held,
                sent: fed.sent.to,
                bytes_per_second: fed.sent.per_second(now),
                is_in_sync: standing.is_in_sync,
            })
        });
        with_feed.collect()
    }

    /// The one way in which anything changes: what follows for those who wait, and for consumers, is done with it. `None` without mastership.
    fn change<T>(&self, change: impl FnOnce(&mut Copies, Moment) -> (Progress, T)) -> Option<T> {
        let own = own_log(&self.store);
        let mut state = self.state.lock();
        let now = moment();
        let copies = state.copies.as_mut()?;
        // First how far the own log goes, which no slave is ahead of.
        copies.grown(own, now);
        let (progress, result) = change(copies, now);
        self.follow(state, progress).tell();
        Some(result)
    }

    fn follow(&self, mut state: MutexGuard<'_, State>, progress: Progress) -> Told {
        if !self.are_waited_for() {
            return Told(Vec::new());
        }
        if state.confirmed != Some(progress.confirmed) {
            state.confirmed = Some(progress.confirmed);
            // Under the lock, so that no older word comes after a newer one.
            self.store.set_replicated(progress.confirmed);
        }
        let count = state.waiting.partition_point(|waiter| outcome(progress, waiter.end).is_some());
        let told = state.waiting.drain(..count);
        Told(told.filter_map(|waiter| Some((waiter.done, outcome(progress, waiter.end)?))).collect())
    }
}

/// What becomes of a send whose record ends there; `None` while that is not known.
fn outcome(progress: Progress, end: PhysicalOffset) -> Option<Result<(), NotHeld>> {
    if end <= progress.held {
        Some(Ok(()))
    } else if end <= progress.late {
        Some(Err(NotHeld::TimedOut))
    } else {
        None
    }
}

/// With asynchronous replication an acknowledgement is the master's alone.
fn copies_config(config: &BrokerConfig) -> CopiesConfig {
    let is_sync = config.broker_role == BrokerRole::SyncMaster;
    CopiesConfig {
        copies: if is_sync { config.in_sync_replicas } else { 1 },
        all_in_sync: is_sync && config.all_ack_in_sync_state_set,
        in_sync_min: if is_sync { config.min_in_sync_replicas } else { 1 },
        gap_max: config.ha_max_gap_not_in_sync,
        not_caught_up_ms_max: config.ha_max_time_slave_not_catchup,
        slave_timeout_ms: config.slave_timeout,
    }
}

fn asks_for_copies(config: &CopiesConfig) -> bool {
    config.copies > 1 || config.all_in_sync
}

/// Whether an acknowledgement stands for other brokers' copies too.
pub(crate) fn keeps_copies(config: &BrokerConfig) -> bool {
    asks_for_copies(&copies_config(config))
}

/// One feed's place among the copies, for as long as this lives.
pub(super) struct FeedPlace {
    copies: Arc<MasterCopies>,
    id: FeedId,
}

impl FeedPlace {
    /// The own log may go further than it did.
    pub(super) fn grown(&self) {
        self.copies.change(|copies, now| (copies.tick(now), ()));
    }

    /// What the feed has found possible.
    pub(super) fn reported(&self, report: Report) {
        self.copies.change(|copies, now| (copies.reported(self.id, report, now), ()));
    }

    /// Bytes have gone into the slave's socket; it was sent the log up to there.
    pub(super) fn sent(&self, to: PhysicalOffset, bytes: usize) {
        let mut state = self.copies.state.lock();
        if let Some(fed) = state.fed.iter_mut().find(|fed| fed.id == self.id) {
            fed.sent.add(to, bytes as u64, moment());
        }
    }

    /// Whether another slave is in sync, to which this one yields while it catches up.
    pub(super) fn yields(&self) -> bool {
        let state = self.copies.state.lock();
        let Some(copies) = &state.copies else { return false };
        copies.standings(moment()).any(|standing| standing.feed != self.id && standing.is_in_sync)
    }
}

impl Drop for FeedPlace {
    fn drop(&mut self) {
        self.copies.state.lock().fed.retain(|fed| fed.id != self.id);
        self.copies.change(|copies, now| (copies.closed(self.id, now), ()));
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
    fn the_rate_is_that_of_the_last_whole_second() {
        let mut sent = Sent::default();
        for (ms, bytes) in [(5_000, 10), (5_900, 20), (6_100, 5)] {
            sent.add(PhysicalOffset(0), bytes, Moment(ms));
        }
        assert_eq!((sent.per_second(Moment(6_900)), sent.per_second(Moment(7_000))), (30, 5));
        assert_eq!(sent.per_second(Moment(20_000)), 0);
    }

    #[test]
    fn a_machine_is_one_peer_and_on_the_masters_own_each_connection_is() {
        let peer = |slave: &str, local: &str| peer(slave.parse().unwrap(), local.parse().unwrap());
        assert_eq!(peer("10.0.0.2:40000", "10.0.0.1:10912"), peer("10.0.0.2:40001", "10.0.0.1:10912"));
        assert_ne!(peer("10.0.0.2:40000", "10.0.0.1:10912"), peer("10.0.0.3:40000", "10.0.0.1:10912"));
        assert_ne!(peer("127.0.0.1:40000", "127.0.0.1:10912"), peer("127.0.0.1:40001", "127.0.0.1:10912"));
        assert_ne!(peer("10.0.0.1:40000", "10.0.0.1:10912"), peer("10.0.0.1:40001", "10.0.0.1:10912"));
    }
}
