//! Timers that a Java broker has left in the store: how far it was with them. Java: `TimerCheckpoint`.

use std::fs;
use std::io;
use std::path::Path;

use ferromq_protocol::QueueOffset;
use ferromq_store::Timer;

/// How far a Java broker was with this store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JavaProgress {
    /// What was due before has been delivered, of what is before `queue_offset`.
    pub read_ms: i64,
    pub queue_offset: QueueOffset,
}

impl JavaProgress {
    pub fn has_delivered(&self, timer: &Timer) -> bool {
        timer.offset < self.queue_offset && timer.due_ms < self.read_ms
    }

    /// Nothing if no Java broker has served timers here.
    pub fn read(path: &Path) -> io::Result<JavaProgress> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(JavaProgress::default()),
            Err(error) => return Err(error),
        };
        let long = |at: usize| {
            let long = bytes.get(at..at + 8).and_then(|long| long.try_into().ok()).map_or(0, i64::from_be_bytes);
            long.max(0)
        };
        Ok(JavaProgress { read_ms: long(0), queue_offset: QueueOffset(long(16).unsigned_abs()) })
    }
}
