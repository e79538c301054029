//! Messages that wait outlive their segment: before it goes they are stored again at the log's end, by the thread that they wait for.
//!
//! The retention asks, and never waits for the answer: it asks again. So a thread says when it is sure of something, and finds here what
//! it has been asked for. Java rolls timers every two days (`TimerMessageStore`, `TIMER_ROLL_TIMES`) and loses what waits longer than its
//! segment is kept otherwise.

use std::sync::Arc;

use ferromq_protocol::PhysicalOffset;
use ferromq_store::Keeper;
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::worker::Bell;

/// What stands between the retention and one thread.
#[derive(Debug)]
pub(crate) struct Carrying {
    name: &'static str,
    /// Of the thread.
    bell: Arc<Bell>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing before it is needed, and the disk has what made it so.
    free: PhysicalOffset,
    /// The log before it is about to go.
    asked: PhysicalOffset,
    /// Something could not be carried on in the last turn of the thread, and in this one.
    failing: bool,
    failed: bool,
}

impl Carrying {
    pub(crate) fn new(name: &'static str, bell: &Arc<Bell>) -> Carrying {
        Carrying { name, bell: Arc::clone(bell), state: Mutex::default() }
    }

    /// Up to where what waits is to be carried on, if that is not done yet.
    pub(crate) fn wanted(&self) -> Option<PhysicalOffset> {
        let state = self.state.lock();
        Some(state.asked).filter(|asked| *asked > state.free)
    }

    /// Nothing before `place` is needed any more; a power loss does not change that.
    pub(crate) fn free_up_to(&self, place: PhysicalOffset) {
        let mut state = self.state.lock();
        state.free = state.free.max(place);
    }

    /// What is at `place` is needed, whatever was said before.
    pub(crate) fn need_from(&self, place: PhysicalOffset) {
        let mut state = self.state.lock();
        state.free = state.free.min(place);
    }

    /// Something cannot be carried on now: it stays needed, and is tried again when it is asked for. The log says so once.
    pub(crate) fn failed(&self, error: &dyn std::fmt::Display) {
        let mut state = self.state.lock();
        state.failed = true;
        if !std::mem::replace(&mut state.failing, true) {
            warn!(who = self.name, %error, "what waits cannot be carried on: its segment of the log stays; trying again");
        }
    }

    /// The thread has looked at everything.
    pub(crate) fn turn_ends(&self) {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.failed) && std::mem::take(&mut state.failing) {
            info!(who = self.name, "what waits is carried on again");
        }
    }
}

impl Keeper for Carrying {
    fn name(&self) -> &'static str {
        self.name
    }

    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        let mut state = self.state.lock();
        if state.free >= end {
            return None;
        }
        state.asked = state.asked.max(end);
        let free = state.free;
        drop(state);
        self.bell.wake();
        Some(free)
    }
}

#[cfg(test)]
#[path = "carrying_test.rs"]
mod tests;
