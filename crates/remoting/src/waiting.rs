//! Requests of one connection that wait for their answers: how many there are, and whether there may be more.
//!
//! One number says all of it, because it moves twice for each answer that is deferred, up on the connection's thread and down on another one.
//! The number that all connections of an address share moves once for sixteen of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Requests of a connection are counted for its address in steps of so many; fewer are not counted.
pub(crate) const STEP: usize = 16;

/// One that is being worked on.
const WORKING: u64 = 1;
/// One that is held.
const PARKED: u64 = 1 << 32;
/// The connection's task sleeps until there are fewer.
const WATCHED: u64 = 1 << 63;

/// Counts requests of a connection that wait for their answers. The default has no bound: for peers that we chose.
#[derive(Debug)]
pub(crate) struct WaitingRequests {
    /// Above the lowest 32 bits those that are held, at the top whether somebody waits for fewer.
    counts: AtomicU64,
    own_max: usize,
    /// Steps of different connections may arrive in any order, so it can be below zero for a moment.
    of_address: Arc<AtomicI64>,
    of_address_max: usize,
}

impl Default for WaitingRequests {
    fn default() -> Self {
        Self::new(usize::MAX, Arc::default(), usize::MAX)
    }
}

impl WaitingRequests {
    pub(crate) fn new(own_max: usize, of_address: Arc<AtomicI64>, of_address_max: usize) -> Self {
        Self { counts: AtomicU64::new(0), own_max, of_address, of_address_max }
    }

    /// One more is being worked on.
    pub(crate) fn begin(&self) {
        let before = working(self.counts.fetch_add(WORKING, Ordering::Relaxed));
        if (before + 1).is_multiple_of(STEP) {
            self.of_address.fetch_add(STEP as i64, Ordering::Relaxed);
        }
    }

    /// One more waits for an event, and whoever keeps it sees to it that not too many do: it takes no room.
    pub(crate) fn begin_held(&self) {
        self.counts.fetch_add(PARKED, Ordering::Relaxed);
    }

    /// One that began less. True: [`Self::watch`] was called before, and the task is to be woken.
    #[must_use]
    pub(crate) fn end(&self) -> bool {
        let before = self.counts.fetch_sub(WORKING, Ordering::AcqRel);
        if working(before).is_multiple_of(STEP) {
            self.of_address.fetch_sub(STEP as i64, Ordering::Relaxed);
        }
        before & WATCHED != 0
    }

    /// One that began held less; as [`Self::end`].
    #[must_use]
    pub(crate) fn end_held(&self) -> bool {
        self.counts.fetch_sub(PARKED, Ordering::AcqRel) & WATCHED != 0
    }

    /// From now on whoever ends is told to wake the task. To be looked at again afterwards.
    pub(crate) fn watch(&self) {
        self.counts.fetch_or(WATCHED, Ordering::AcqRel);
    }

    pub(crate) fn unwatch(&self) {
        self.counts.fetch_and(!WATCHED, Ordering::AcqRel);
    }

    /// How many more may begin. With none of its own a connection has room for one: no end of its own would wake it later.
    pub(crate) fn room(&self) -> usize {
        let own = working(self.counts.load(Ordering::Acquire));
        let of_address = usize::try_from(self.of_address.load(Ordering::Relaxed)).unwrap_or(0);
        let room = self.own_max.saturating_sub(own).min(self.of_address_max.saturating_sub(of_address));
        room.max(usize::from(own == 0))
    }

    /// Those that wait for anything.
    pub(crate) fn open(&self) -> usize {
        let counts = self.counts.load(Ordering::Acquire);
        working(counts) + ((counts & !WATCHED) / PARKED) as usize
    }
}

fn working(counts: u64) -> usize {
    (counts % PARKED) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever begins and ends: an address counts all but fewer than a step of each connection, so it never has more than its bound, those
        /// and one for each; held ones count for nothing but for whether all are gone.
        #[test]
        fn requests_that_wait_are_counted_per_connection_and_per_address(
            steps in proptest::collection::vec((0usize..4, 0u8..8), 1..600)
        ) {
            const OWN_MAX: usize = 40;
            const ADDRESS_MAX: usize = 64;
            let address = Arc::<AtomicI64>::default();
            let connections: Vec<_> =
                (0..4).map(|_| WaitingRequests::new(OWN_MAX, Arc::clone(&address), ADDRESS_MAX)).collect();
            let mut working = [0usize; 4];
            let mut held = [0usize; 4];
            for (number, step) in steps {
                let waiting = &connections[number];
                match step {
                    0..=4 if waiting.room() > 0 => {
                        waiting.begin();
                        working[number] += 1;
                    }
                    5 => {
                        waiting.begin_held();
                        held[number] += 1;
                    }
                    6 if working[number] > 0 => {
                        prop_assert!(!waiting.end());
                        working[number] -= 1;
                    }
                    7 if held[number] > 0 => {
                        prop_assert!(!waiting.end_held());
                        held[number] -= 1;
                    }
                    _ => {}
                }
                prop_assert!(working[number] <= OWN_MAX);
                prop_assert_eq!(waiting.open(), working[number] + held[number]);
                let counted: usize = working.iter().map(|own| own - own % STEP).sum();
                prop_assert_eq!(address.load(Ordering::Relaxed), counted as i64);
                prop_assert!(counted < ADDRESS_MAX + STEP);
                for (waiting, own) in connections.iter().zip(working) {
                    prop_assert_eq!(waiting.room() > 0, own == 0 || (own < OWN_MAX && counted < ADDRESS_MAX));
                }
            }
        }
    }

    #[test]
    fn who_watches_is_told_of_each_end_until_he_looks_away() {
        let waiting = WaitingRequests::default();
        waiting.begin();
        waiting.begin();
        waiting.begin_held();
        assert!(!waiting.end());
        waiting.watch();
        assert_eq!((waiting.open(), waiting.room() > 0), (2, true));
        assert!(waiting.end() && waiting.end_held());
        assert_eq!(waiting.open(), 0);
        waiting.begin();
        waiting.unwatch();
        assert!(!waiting.end());
    }
}
