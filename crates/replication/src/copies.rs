//! How many copies of the log there are, up to where: what sends wait for, and what consumers may see. Java: GroupTransferService.
//!
//! Three marks come of it, and none ever goes back ([`Progress`]). A send is answered when the first of two passes its end: SEND_OK when as
//! many copies as are asked for hold it, FLUSH_SLAVE_TIMEOUT when its time is up. Either way consumers see it from then on, and not before:
//! what they have seen, no producer is told that it is not safe.

use ferromq_protocol::PhysicalOffset;

use crate::feed::Report;
use crate::history::History;
use crate::moment::Moment;
use crate::planted::{Bug, planted};

/// Feeds at a time. Who comes then is refused: no group has so many slaves.
pub const FEEDS_MAX: usize = 64;

/// What an acknowledgement stands for.
#[derive(Clone, Debug)]
pub struct CopiesConfig {
    /// Brokers that hold a message before it is acknowledged, the master being one; 1 waits for nobody. Key: `inSyncReplicas`.
    pub copies: usize,
    /// All slaves that are in sync hold it too. Key: `allAckInSyncStateSet`.
    pub all_in_sync: bool,
    /// Brokers in sync without which no message is taken, the master being one. Key: `minInSyncReplicas`.
    pub in_sync_min: usize,
    /// Who lacks more bytes is not in sync. Key: `haMaxGapNotInSync`.
    pub gap_max: u64,
    /// Nor is who had not all of the log at any time in so many milliseconds. Key: `haMaxTimeSlaveNotCatchup`.
    pub not_caught_up_ms_max: u64,
    /// After so many milliseconds a send is answered although copies are missing. Key: `slaveTimeout`.
    pub slave_timeout_ms: u64,
}

impl Default for CopiesConfig {
    fn default() -> CopiesConfig {
        CopiesConfig {
            copies: 1,
            all_in_sync: false,
            in_sync_min: 1,
            gap_max: 256 * 1024 * 1024,
            not_caught_up_ms_max: 15_000,
            slave_timeout_ms: 3_000,
        }
    }
}

/// One feed among the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeedId(u64);

/// Which machine a feed leads to, as far as that can be told: two feeds of one peer are one copy. The wire has no name of a slave, so it is
/// its address without the port; where several slaves share one (all on one machine, in a test), each connection is a peer of its own, as in Java.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub u64);

/// The master's own log.
#[derive(Clone, Copy, Debug)]
pub struct OwnLog {
    /// How far it is written.
    pub end: PhysicalOffset,
    /// How far it holds what this mode promises of one copy: written, or with synchronous flush flushed.
    pub safe: PhysicalOffset,
}

/// How far it is; each mark only rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// As many copies as are asked for hold the log up to here: sends that end here or before are answered SEND_OK.
    pub held: PhysicalOffset,
    /// Their time is up: those that end here or before, and are not held, are answered FLUSH_SLAVE_TIMEOUT.
    pub late: PhysicalOffset,
    /// Consumers see the log up to here.
    pub confirmed: PhysicalOffset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{FEEDS_MAX} slaves are connected already")]
pub struct TooManyFeeds;

/// No message is taken. Java: IN_SYNC_REPLICAS_NOT_ENOUGH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("in-sync replicas not enough: {in_sync} of {needed}")]
pub struct NotEnoughInSync {
    pub in_sync: usize,
    pub needed: usize,
}

/// How one slave stands. What 907 shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub feed: FeedId,
    /// `None` before its first report.
    pub held: Option<PhysicalOffset>,
    pub is_in_sync: bool,
}

#[derive(Debug)]
struct Copy {
    id: FeedId,
    peer: Peer,
    held: Option<PhysicalOffset>,
    /// When it last had all of the log, as far as that is known.
    caught_up_at: Option<Moment>,
}

/// Owned by whoever has the master's log; one for each time that a broker is master.
#[derive(Debug)]
pub struct Copies {
    config: CopiesConfig,
    /// The order in which they came.
    feeds: Vec<Copy>,
    next_id: u64,
    own: OwnLog,
    history: History,
    progress: Progress,
}

impl Copies {
    /// `confirmed` is what consumers could see when this log was last open, or all of it where one copy is enough: whatever is behind it
    /// is confirmed as if it had been appended now.
    pub fn new(config: CopiesConfig, own: OwnLog, confirmed: PhysicalOffset, now: Moment) -> Copies {
        let keep_ms = config.slave_timeout_ms.max(config.not_caught_up_ms_max);
        let confirmed = confirmed.min(own.safe);
        let progress = Progress { held: confirmed, late: confirmed, confirmed };
        let history = History::new(keep_ms);
        let mut copies = Copies { config, feeds: Vec::new(), next_id: 0, own, history, progress };
        copies.history.note(own.end, now);
        copies.advance(now);
        copies
    }

    /// A slave has connected. It counts from its first report on.
    pub fn open(&mut self, peer: Peer) -> Result<FeedId, TooManyFeeds> {
        if self.feeds.len() >= FEEDS_MAX {
            return Err(TooManyFeeds);
        }
        let id = FeedId(self.next_id);
        self.next_id += 1;
        self.feeds.push(Copy { id, peer, held: None, caught_up_at: None });
        Ok(id)
    }

    /// Its connection is gone, or its feed has ended. Nothing that it says afterwards counts.
    pub fn closed(&mut self, feed: FeedId, now: Moment) -> Progress {
        self.feeds.retain(|copy| copy.id != feed);
        self.advance(now)
    }

    /// What a feed has found possible.
    pub fn reported(&mut self, feed: FeedId, report: Report, now: Moment) -> Progress {
        let (held, own_end) = (report.end(), self.own.end);
        let reached = if held >= own_end { Some(now) } else { self.history.reached(held) };
        if let Some(copy) = self.feeds.iter_mut().find(|copy| copy.id == feed) {
            copy.held = Some(held);
            copy.caught_up_at = copy.caught_up_at.max(reached);
        }
        self.advance(now)
    }

    /// The own log goes further, or more of it is safe.
    pub fn grown(&mut self, own: OwnLog, now: Moment) -> Progress {
        // Who had all until now is not late because there was nothing to have.
        for copy in &mut self.feeds {
            if copy.held.is_some_and(|held| held >= self.own.end) {
                copy.caught_up_at = Some(now);
            }
        }
        self.own = OwnLog { end: self.own.end.max(own.end), safe: self.own.safe.max(own.safe) };
        self.history.note(own.end, now);
        self.advance(now)
    }

    /// Time has passed; see [`Copies::due`].
    pub fn tick(&mut self, now: Moment) -> Progress {
        self.advance(now)
    }

    /// When time alone moves something: the oldest send that waits for copies is late then. `None` while none waits.
    pub fn due(&self) -> Option<Moment> {
        let passed = self.history.passed(self.progress.held.max(self.progress.late));
        passed.map(|at| at + self.config.slave_timeout_ms)
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether messages are taken. Asked before an append.
    pub fn admits(&self, now: Moment) -> Result<(), NotEnoughInSync> {
        let (in_sync, needed) = (self.in_sync(now), self.config.in_sync_min);
        if in_sync < needed { Err(NotEnoughInSync { in_sync, needed }) } else { Ok(()) }
    }

    /// Brokers in sync, the master being one.
    pub fn in_sync(&self, now: Moment) -> usize {
        1 + self.counted().filter(|copy| self.is_in_sync(copy, now)).count()
    }

    /// Every feed, in the order in which they came.
    pub fn standings(&self, now: Moment) -> impl Iterator<Item = Standing> {
        self.feeds.iter().map(move |copy| {
            let is_in_sync = self.is_in_sync(copy, now);
            Standing { feed: copy.id, held: copy.held, is_in_sync }
        })
    }

    fn is_in_sync(&self, copy: &Copy, now: Moment) -> bool {
        let Some(held) = copy.held else { return false };
        let has_all = held >= self.own.end;
        let recently = copy.caught_up_at.is_some_and(|at| now.since(at) <= self.config.not_caught_up_ms_max);
        has_all || recently && self.own.end - held <= self.config.gap_max
    }

    /// One feed of each peer: the newest that has reported, because an older one may speak of what the slave had before.
    fn counted(&self) -> impl Iterator<Item = &Copy> {
        let reported = |copy: &&Copy| copy.held.is_some();
        self.feeds.iter().enumerate().filter(|(_, copy)| copy.held.is_some()).filter_map(move |(place, copy)| {
            let newer = self.feeds.get(place + 1..).unwrap_or_default().iter().filter(reported);
            let is_newest = newer.map(|newer| newer.peer).all(|peer| peer != copy.peer);
            (is_newest || planted(Bug::StaleConnectionHeard)).then_some(copy)
        })
    }

    fn advance(&mut self, now: Moment) -> Progress {
        let (own, before) = (self.own, self.progress);
        let held = before.held.max(self.held_by_enough(now));
        let late = now.back(self.config.slave_timeout_ms).map_or(before.late, |then| self.history.end_by(then));
        let late = before.late.max(late);
        let confirmed = if planted(Bug::ShownUnconfirmed) { own.safe } else { own.safe.min(held.max(late)) };
        self.progress = Progress { held, late, confirmed: before.confirmed.max(confirmed) };
        self.progress
    }

    /// How far as many copies as are asked for hold the log now, the own one being one.
    fn held_by_enough(&self, now: Moment) -> PhysicalOffset {
        let own = if planted(Bug::OwnDiskForgotten) { self.own.end } else { self.own.safe };
        let mut others: Vec<PhysicalOffset> = self.counted().filter_map(|copy| copy.held).collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        let mut copies = self.config.copies;
        if self.config.all_in_sync {
            copies = copies.max(self.config.in_sync_min);
        }
        if planted(Bug::OneCopyLess) {
            copies -= 1;
        }
        let by_number = match copies {
            0 | 1 => own,
            copies => others.get(copies - 2).copied().unwrap_or_default(),
        };
        let mut held = own.min(by_number);
        if self.config.all_in_sync {
            let in_sync = self.counted().filter(|copy| self.is_in_sync(copy, now));
            held = in_sync.filter_map(|copy| copy.held).fold(held, PhysicalOffset::min);
        }
        held
    }
}

#[cfg(test)]
#[path = "copies_test.rs"]
mod tests;
