//! Bugs that the simulation plants, to see that it would find them. Outside of tests there are none.

#[cfg(test)]
use std::cell::Cell;

/// What could be wrong in the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "planted in tests only"))]
pub enum Bug {
    // Feed.
    ReportBeyondEndCounted,
    SilentSlaveKept,
    // Copies.
    OneCopyLess,
    OwnDiskForgotten,
    ShownUnconfirmed,
    StaleConnectionHeard,
    // Follower.
    ReportedBeforeAppend,
    WrittenReported,
    FirstReportUnflushed,
    NotCompared,
    ComparedOnce,
    BadBytesKept,
    SilentMasterKept,
    RestartedWhenParted,
    // Comparing.
    CommonEndTooLate,
    CommonEndTooEarly,
    // What uses the machines.
    PartialRecordAppended,
    BadRecordAppended,
    UnflushedSent,
    FencedMasterWrites,
    EpochKept,
    ShownAtOpen,
}

#[cfg(test)]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// On this thread, from now on.
#[cfg(test)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(not(test))]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_is_there_on_its_thread_alone() {
        plant(Some(Bug::NotCompared));
        assert!(planted(Bug::NotCompared) && !planted(Bug::ComparedOnce));
        std::thread::spawn(|| assert!(!planted(Bug::NotCompared))).join().unwrap();
        plant(None);
        assert!(!planted(Bug::NotCompared));
    }
}
