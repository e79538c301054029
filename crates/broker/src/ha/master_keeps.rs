//! What a slave's log must keep: whatever its master's has.
//!
//! A master carries what waits for longer than its segments on (delayed messages, open transactions), into its log, and so into the slave's. A
//! slave that deleted a segment first would lose what is not carried on yet, should it become the master then.

use std::sync::atomic::{AtomicU64, Ordering};

use ferromq_protocol::PhysicalOffset;
use ferromq_store::Keeper;

/// The first byte of the master's log as last told; 0 keeps everything. The master's begin only moves on.
#[derive(Debug, Default)]
pub(super) struct MasterKeeps {
    first: AtomicU64,
}

impl MasterKeeps {
    /// Whether there is news in it.
    pub(super) fn told(&self, first: PhysicalOffset) -> bool {
        self.first.swap(first.0, Ordering::AcqRel) < first.0
    }
}

impl Keeper for MasterKeeps {
    fn name(&self) -> &'static str {
        "the master's log"
    }

    fn release_before(&self, end: PhysicalOffset) -> Option<PhysicalOffset> {
        let first = PhysicalOffset(self.first.load(Ordering::Acquire));
        (first < end).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_kept_that_the_master_has() {
        let (keeps, at) = (MasterKeeps::default(), PhysicalOffset);
        assert_eq!(keeps.release_before(at(1)), Some(at(0)));
        assert!(keeps.told(at(100)) && !keeps.told(at(100)));
        assert_eq!((keeps.release_before(at(100)), keeps.release_before(at(101))), (None, Some(at(100))));
        // Another master, which has more.
        assert!(!keeps.told(at(50)));
        assert_eq!(keeps.release_before(at(100)), Some(at(50)));
    }
}
