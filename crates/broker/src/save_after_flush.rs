//! What says that messages are consumed, delivered or entered is saved only as far as the log is on the disk: after a power loss it would
//! be ahead of it. So what was true at a moment waits until the log is flushed up to where it ended then.

use ferromq_protocol::PhysicalOffset;

/// One value that waits, or none.
#[derive(Debug)]
pub(crate) struct SaveAfterFlush<T> {
    /// With where the log must be flushed to.
    waiting: Option<(T, PhysicalOffset)>,
}

impl<T> Default for SaveAfterFlush<T> {
    fn default() -> SaveAfterFlush<T> {
        SaveAfterFlush { waiting: None }
    }
}

impl<T> SaveAfterFlush<T> {
    /// Whether one waits: it is saved before a newer one is looked for, which would wait longer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Has a value wait that stands for what was in the log before `log_end`.
    pub(crate) fn wait_for(&mut self, log_end: PhysicalOffset, value: T) {
        self.waiting = Some((value, log_end));
    }

    /// What may be saved now that the log is flushed up to there; once.
    pub(crate) fn take_flushed(&mut self, flushed: PhysicalOffset) -> Option<T> {
        self.waiting.take_if(|(_, log_end)| *log_end <= flushed).map(|(value, _)| value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Appends and flushes in any order: nothing is saved ahead of the log, and what waits is saved once all is flushed.
        #[test]
        fn nothing_is_saved_ahead_of_the_log(steps in proptest::collection::vec((0..50_u64, 0..80_u64), 1..60)) {
            let (mut written, mut flushed, mut saved) = (0, 0, 0);
            let mut save = SaveAfterFlush::default();
            let mut look = |written: u64, flushed: u64| {
                if let Some(value) = save.take_flushed(PhysicalOffset(flushed)) {
                    assert!(value <= flushed && value >= saved);
                    saved = value;
                }
                if !save.is_waiting() {
                    save.wait_for(PhysicalOffset(written), written);
                }
                saved
            };
            for (appended, synced) in steps {
                written += appended;
                flushed = written.min(flushed + synced);
                look(written, flushed);
            }
            look(written, written);
            prop_assert_eq!(look(written, written), written);
        }
    }
}
