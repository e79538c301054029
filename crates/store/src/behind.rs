//! Queues, and the index, that could not take what dispatch had for them: set aside, so that all others go on, and made up
//! for later from the log, which has it all.
//!
//! Nothing in here looks at the log: the dispatcher walks it, in passes from the first record that somebody lacks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

impl Target {
    fn is(&self, other: &Target) -> bool {
        match (self, other) {
            (Target::Queue(one), Target::Queue(other)) => Arc::ptr_eq(one, other),
            (Target::Index, Target::Index) => true,
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Late {
    target: Target,
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

/// What lacks entries, and how far the present pass is.
#[derive(Debug, Default)]
pub struct Behind {
    late: Vec<Late>,
    pass: Option<Pass>,
    next_pass: Option<Instant>,
}

impl Behind {
    pub fn has_index(&self) -> bool {
        self.late.iter().any(|late| matches!(late.target, Target::Index))
    }

    /// Whether somebody lacks entries for want of disk space.
    pub fn has_no_room(&self) -> bool {
        self.late.iter().any(|late| late.no_room)
    }

    /// The first record that somebody lacks, and the store time at which a recovery has to begin for it.
    pub fn first(&self) -> Option<(u64, i64)> {
        let from = self.late.iter().map(|late| late.from).min()?;
        let timestamp = self.late.iter().map(|late| late.timestamp).min()?;
        Some((from, timestamp))
    }

    /// Sets aside what could not take the record at `physical`.
    pub fn set_aside(&mut self, target: Target, physical: u64, timestamp: i64, error: &io::Error) {
        match &target {
            Target::Queue(queue) => {
                tracing::error!(%error, topic = queue.topic(), queue = %queue.id(), "entries of a queue cannot be written; it takes no messages until they can, and what is in the log will be made up for");
                queue.set_behind(error.to_string().into());
            }
            Target::Index => {
                tracing::error!(%error, "index entries cannot be written; until they can, new messages are not found by their keys");
            }
        }
        let no_room = is_no_room(error);
        self.late.push(Late { target, from: physical, timestamp, no_room, failed: false });
        self.next_pass.get_or_insert_with(|| Instant::now() + PAUSE_MIN);
    }

    /// Where the present pass goes on; begins one when it is time.
    pub fn pass_at(&mut self) -> Option<u64> {
        if self.pass.is_none() {
            let (at, _) = self.first()?;
            if self.next_pass.is_some_and(|due| Instant::now() < due) {
                return None;
            }
            self.late.iter_mut().for_each(|late| late.failed = false);
            self.pass = Some(Pass { at, began: Instant::now() });
        }
        self.pass.as_ref().map(|pass| pass.at)
    }

    /// Whether the record at `physical` is one that `target` lacks and that is to be tried in this pass.
    pub fn wants(&self, target: &Target, physical: u64) -> bool {
        self.late.iter().any(|late| !late.failed && late.from <= physical && late.target.is(target))
    }

    /// What became of a try.
    pub fn tried(&mut self, target: &Target, physical: u64, end: u64, result: Result<(), &io::Error>) {
        let Some(late) = self.late.iter_mut().find(|late| late.target.is(target)) else { return };
        match result {
            Ok(()) => late.from = end,
            Err(error) => {
                late.from = physical;
                late.failed = true;
                late.no_room = is_no_room(error);
            }
        }
    }

    /// The pass came to `at` of the log, up to whose `end` things were set aside. Ends it when it is through, or when nobody
    /// is left to be tried: who did not fail again lacks nothing any more. True when it goes on.
    pub fn pass_came_to(&mut self, at: u64, end: u64) -> bool {
        let Some(pass) = &mut self.pass else { return false };
        pass.at = at;
        if at < end && self.late.iter().any(|late| !late.failed) {
            return true;
        }
        let took = pass.began.elapsed();
        self.pass = None;
        if at >= end {
            self.late.retain(|late| {
                if !late.failed {
                    late.target.caught_up();
                }
                late.failed
            });
        }
        self.next_pass = (!self.late.is_empty()).then(|| Instant::now() + PAUSE_MIN.max(took * PAUSE_PER_PASS));
        false
    }

    /// Queues that are no more lack nothing.
    pub fn forget_retired(&mut self) {
        self.late.retain(|late| !matches!(&late.target, Target::Queue(queue) if queue.is_retired()));
    }

    /// Everything from the first record that somebody lacks will be dispatched again.
    pub fn forget_all(&mut self) {
        for late in self.late.drain(..) {
            late.target.caught_up();
        }
        self.pass = None;
        self.next_pass = None;
    }
}

impl Target {
    fn caught_up(&self) {
        match self {
            Target::Queue(queue) => {
                tracing::info!(topic = queue.topic(), queue = %queue.id(), "the queue has its entries again");
                queue.set_caught_up();
            }
            Target::Index => tracing::info!("the index has its entries again"),
        }
    }
}

fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
