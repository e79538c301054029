//! Timers that a Java broker, or the master of a slave, has served: how far they were. Java: `TimerCheckpoint`.

use std::fs;
use std::io;
use std::path::Path;

use ferromq_protocol::QueueOffset;
use ferromq_store::Timer;

/// How far another broker was with the timers of this store.
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

    /// Nothing if no other broker has served timers here. Java writes how far it was itself, and how far its master; a slave of ours the
    /// latter alone.
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
        Ok(JavaProgress { read_ms: long(0), queue_offset: QueueOffset(long(16).max(long(24)).unsigned_abs()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferromq_protocol::body::TimerCheckPoint;

    #[test]
    fn how_far_the_master_was_counts_for_a_slave() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timercheck");
        assert_eq!(JavaProgress::read(&path).unwrap(), JavaProgress::default());
        // A Java slave has less in its own files; one of ours has none.
        for own in [0, 3, 7] {
            let told = TimerCheckPoint {
                last_read_time_ms: 5_000,
                last_timer_queue_offset: own,
                master_timer_queue_offset: 7,
                ..TimerCheckPoint::default()
            };
            fs::write(&path, told.encode()).unwrap();
            let read = JavaProgress::read(&path).unwrap();
            assert_eq!((read.read_ms, read.queue_offset), (5_000, QueueOffset(7)));
        }
    }
}
