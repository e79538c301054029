//! How far the timers are with carrying on what waits in a segment that is to go.

use ferromq_protocol::{PhysicalOffset, QueueOffset};

/// What the thread knows of what it carries on.
#[derive(Debug, Default)]
pub(super) struct CarryProgress {
    /// What was stored again last and may not be entered yet.
    pub under_way: Option<CopyUnderWay>,
    /// The log before the second is not needed as soon as the index is saved that says that the queue is carried on up to the first.
    pub done: Option<(QueueOffset, PhysicalOffset)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CopyUnderWay {
    /// Where the copies end in the queue, and the earliest that one of them is due.
    pub end: QueueOffset,
    pub earliest_ms: i64,
}

impl CarryProgress {
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether all is carried on that was asked for, but for what is saved of it.
    pub fn is_done(&self) -> bool {
        self.done.is_some()
    }

    /// What is due then or later is not to be delivered yet: among it may be what takes back a message, or is taken back, that has left its
    /// place and is not entered again.
    pub fn not_from_ms(&mut self, entered: QueueOffset) -> Option<i64> {
        self.under_way.take_if(|copies| copies.end <= entered);
        self.under_way.map(|copies| copies.earliest_ms)
    }
}
