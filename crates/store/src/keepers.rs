//! Who needs old messages for longer than their segment is kept.

use std::fmt;
use std::sync::{Arc, Weak};

use ferromq_protocol::PhysicalOffset;
use parking_lot::Mutex;

/// Somebody who needs messages for longer than their segment is kept.
pub trait Keeper: Send + Sync {
    /// For the trace log: "timers", "open transactions", "delay levels".
    fn name(&self) -> &'static str;

    /// The log before `end` is about to be deleted: has this keeper give it up. `None` when it needs nothing there and what made it so is
    /// durable, else the lowest place that it still needs. What it needs it begins to carry on: it stores the messages again, at the log's
    /// end and on a thread of its own ([`Store::append_carried`](crate::Store::append_carried)). Asked again while the segment is held up.
    /// Returns quickly and never waits for the disk.
    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset>;
}

/// What keeps the log before some place from being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The keeper's name.
    pub by: &'static str,
    /// The lowest place that it needs.
    pub from: PhysicalOffset,
}

/// The keepers that there are. One that is dropped needs nothing any more.
#[derive(Default)]
pub struct Keepers {
    list: Mutex<Vec<Weak<dyn Keeper>>>,
}

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keepers").field("count", &self.list.lock().len()).finish()
    }
}

impl Keepers {
    pub fn add(&self, keeper: &Arc<dyn Keeper>) {
        let mut list = self.list.lock();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(keeper));
    }

    /// What of the log before `end` is needed by whoever needs the lowest place. All are asked, whatever the first one says: being asked
    /// is what makes them carry it on.
    pub fn pin_before(&self, end: PhysicalOffset) -> Option<Pin> {
        let keepers: Vec<_> = self.list.lock().iter().filter_map(Weak::upgrade).collect();
        let pins =
            keepers.iter().filter_map(|keeper| Some(Pin { by: keeper.name(), from: keeper.release_before(end)? }));
        pins.min_by_key(|pin| pin.from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Needs(&'static str, Option<u64>, AtomicUsize);

    impl Keeper for Needs {
        fn name(&self) -> &'static str {
            self.0
        }

        fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
            self.2.fetch_add(1, Ordering::Relaxed);
            self.1.filter(|from| *from < end.0).map(PhysicalOffset)
        }
    }

    #[test]
    fn all_are_asked_and_the_lowest_place_counts() {
        let keepers = Keepers::default();
        assert_eq!(keepers.pin_before(PhysicalOffset(100)), None);
        let needs = |name, from| Arc::new(Needs(name, from, AtomicUsize::new(0)));
        let all = [needs("timers", Some(50)), needs("delay levels", None), needs("open transactions", Some(20))];
        all.iter().for_each(|keeper| keepers.add(&(Arc::clone(keeper) as Arc<dyn Keeper>)));
        let pin = |by, from| Some(Pin { by, from: PhysicalOffset(from) });
        assert_eq!(keepers.pin_before(PhysicalOffset(100)), pin("open transactions", 20));
        assert_eq!(keepers.pin_before(PhysicalOffset(20)), None);
        assert!(all.iter().all(|keeper| keeper.2.load(Ordering::Relaxed) == 2));
        let [timers, _, transactions] = all;
        drop(transactions);
        assert_eq!(keepers.pin_before(PhysicalOffset(100)), pin("timers", 50));
        drop(timers);
        assert_eq!(keepers.pin_before(PhysicalOffset(100)), None);
    }
}
