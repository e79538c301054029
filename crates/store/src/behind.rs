//! Queues, and the index, that could not take what dispatch had for them: set aside, so that all others go on, and made up
//! for later from the log, which has it all.
//!
//! Nothing in here looks at the log: the dispatcher walks it, in passes from the first record that somebody lacks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;

use crate::consume_queue::ConsumeQueue;

/// Between two passes at least; Java pauses as long in ConsumeQueue.putMessagePositionInfoWrapper.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// A pass may be long, and in vain: no more than a fifth of the time goes into them.
const PAUSE_PER_PASS: u32 = 4;

/// What entries go into.
#[derive(Clone, Debug)]
pub enum Target {
    Queue(Arc<ConsumeQueue>),
    Index,
}

#[derive(Debug)]
struct Lag {
    /// Records before this one are in it.
    from: u64,
    /// Store time of the record at which it was set aside.
    timestamp: i64,
    /// It is for want of disk space.
    no_room: bool,
    /// Failed again in this pass.
    failed: bool,
}

#[derive(Debug)]
struct Pass {
    at: u64,
    began: Instant,
}

/// What lacks entries, and how far the present pass is. Asked for every record that is dispatched, and for queues by thousands:
/// so each is found at once.
#[derive(Debug, Default)]
pub struct Behind {
    index: Option<Lag>,
    /// By address: a queue that is in here stays where it is.
    queues: HashMap<usize, (Arc<ConsumeQueue>, Lag)>,
    /// How many have not failed again in this pass.
    hopeful: usize,
    pass: Option<Pass>,
    next_pass: Option<Instant>,
    /// The last error for want of disk space, with what it was of.
    no_room: String,
}

impl Behind {
    pub fn has_index(&self) -> bool {
        self.index.is_some()
    }

    /// What was there no room for last, if somebody lacks entries for want of disk space.
    pub fn no_room(&self) -> Option<&str> {
        self.late().any(|late| late.no_room).then_some(&self.no_room)
    }

    fn note(&mut self, target: &Target, error: &io::Error) {
        if is_no_room(error) {
            self.no_room = match target {
                Target::Queue(queue) => format!("queue {} of {}: {error}", queue.id(), queue.topic()),
                Target::Index => format!("index: {error}"),
            };
        }
    }

    /// The first record that somebody lacks, and the store time at which a recovery has to begin for it.
    pub fn first(&self) -> Option<(u64, i64)> {
        let from = self.late().map(|late| late.from).min()?;
        let timestamp = self.late().map(|late| late.timestamp).min()?;
        Some((from, timestamp))
    }

    fn late(&self) -> impl Iterator<Item = &Lag> {
        self.index.iter().chain(self.queues.values().map(|(_, late)| late))
    }

    fn late_mut(&mut self) -> impl Iterator<Item = &mut Lag> {
        self.index.iter_mut().chain(self.queues.values_mut().map(|(_, late)| late))
    }

    fn of(&mut self, target: &Target) -> Option<&mut Lag> {
        match target {
            Target::Queue(queue) => self.queues.get_mut(&Arc::as_ptr(queue).addr()).map(|(_, late)| late),
            Target::Index => self.index.as_mut(),
        }
    }

    /// Sets aside what could not take the record at `physical`.
    pub fn set_aside(&mut self, target: Target, physical: u64, timestamp: i64, error: &io::Error) {
        let late = Lag { from: physical, timestamp, no_room: is_no_room(error), failed: false };
        self.note(&target, error);
        let before = match target {
            Target::Queue(queue) => {
                tracing::error!(%error, topic = queue.topic(), queue = %queue.id(), "entries of a queue cannot be written; it takes no messages until they can, and what is in the log will be made up for");
                queue.set_behind(error.to_string().into());
                self.queues.insert(Arc::as_ptr(&queue).addr(), (queue, late)).map(|(_, late)| late)
            }
            Target::Index => {
                tracing::error!(%error, "index entries cannot be written; until they can, new messages are not found by their keys");
                self.index.replace(late)
            }
        };
        self.hopeful += usize::from(before.is_none_or(|late| late.failed));
        self.next_pass.get_or_insert_with(|| Instant::now() + PAUSE_MIN);
    }

    /// Where the present pass goes on; begins one when it is time.
    pub fn pass_at(&mut self) -> Option<u64> {
        if self.pass.is_none() {
            let (at, _) = self.first()?;
            if self.next_pass.is_some_and(|due| Instant::now() < due) {
                return None;
            }
            self.late_mut().for_each(|late| late.failed = false);
            self.count_hopeful();
            self.pass = Some(Pass { at, began: Instant::now() });
        }
        self.pass.as_ref().map(|pass| pass.at)
    }

    /// Whether the record at `physical` is one that `target` lacks and that is to be tried in this pass.
    pub fn wants(&mut self, target: &Target, physical: u64) -> bool {
        self.of(target).is_some_and(|late| !late.failed && late.from <= physical)
    }

    /// What became of a try.
    pub fn tried(&mut self, target: &Target, physical: u64, end: u64, result: Result<(), &io::Error>) {
        let Some(late) = self.of(target) else { return };
        match result {
            Ok(()) => late.from = end,
            Err(error) => {
                late.from = physical;
                late.failed = true;
                late.no_room = is_no_room(error);
                self.hopeful -= 1;
                self.note(target, error);
            }
        }
    }

    /// The pass came to `at` of the log, up to whose `end` things were set aside. Ends it when it is through, or when nobody
    /// is left to be tried: who did not fail again lacks nothing any more. True when it goes on.
    pub fn pass_came_to(&mut self, at: u64, end: u64) -> bool {
        let Some(pass) = &mut self.pass else { return false };
        pass.at = at;
        if at < end && self.hopeful > 0 {
            return true;
        }
        let took = pass.began.elapsed();
        self.pass = None;
        if at >= end {
            for (_, (queue, _)) in self.queues.extract_if(|_, (_, late)| !late.failed) {
                caught_up(&queue);
            }
            if self.index.take_if(|late| !late.failed).is_some() {
                index_caught_up();
            }
            self.hopeful = 0;
        }
        let is_left = self.has_index() || !self.queues.is_empty();
        self.next_pass = is_left.then(|| Instant::now() + PAUSE_MIN.max(took * PAUSE_PER_PASS));
        false
    }

    /// The log cannot be read where the present pass is: it ends, and nobody has got any further.
    pub fn break_off(&mut self) {
        self.late_mut().for_each(|late| late.failed = true);
        self.hopeful = 0;
        if let Some(at) = self.pass.as_ref().map(|pass| pass.at) {
            self.pass_came_to(at, u64::MAX);
        }
    }

    /// Queues that are no more lack nothing.
    pub fn forget_retired(&mut self) {
        self.queues.retain(|_, (queue, _)| !queue.is_retired());
        self.count_hopeful();
    }

    /// Everything from the first record that somebody lacks will be dispatched again.
    pub fn forget_all(&mut self) {
        for (_, (queue, _)) in self.queues.drain() {
            caught_up(&queue);
        }
        if self.index.take().is_some() {
            index_caught_up();
        }
        *self = Behind::default();
    }

    fn count_hopeful(&mut self) {
        self.hopeful = self.late().filter(|late| !late.failed).count();
    }
}

fn caught_up(queue: &ConsumeQueue) {
    tracing::info!(topic = queue.topic(), queue = %queue.id(), "the queue has its entries again");
    queue.set_caught_up();
}

fn index_caught_up() {
    tracing::info!("the index has its entries again");
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
