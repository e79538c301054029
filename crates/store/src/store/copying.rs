//! Continuing the log with bytes of another broker's, of which this one is a copy.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::record::BLANK_LEN;

use super::Store;
use crate::commit_log::CopyPlace;
use crate::copy::{Then, look};
use crate::error::{CopyError, CopyFault};

impl Store {
    /// Continues the log with bytes that stand at `at` in another broker's, which has segments of the same length; for
    /// [`Writer::Stream`](crate::Writer) alone. Gives how many were taken: whole records, each held against what it says of itself
    /// before it is appended; an item whose end is not in `bytes` is left, and the caller offers it again with what follows. What it is
    /// refused for is found as soon as it is there, so what has to be kept meanwhile is never longer than a segment.
    ///
    /// The bytes that end a segment are taken as they come. With the first eight, the filler, this log goes on at the next segment;
    /// the others are passed over in this call or later ones, and are zeros here whatever they are.
    ///
    /// `at` is the log's end, or where the last call has left off. What was taken is in the log as after [`Store::append`], with the
    /// store time of the last record for the checkpoint, as far as that is not in the future. After an error all before
    /// [`CopyError::at`] was taken. Limits of message lengths do not count: the other broker has taken them.
    pub fn append_copy(&self, at: PhysicalOffset, bytes: &[u8]) -> Result<usize, CopyError> {
        let mut taken = 0;
        let done = self.copy_on(at.0, bytes, &mut taken);
        if taken > 0 {
            self.log_grew(self.positions.written());
            self.wake_threads();
        }
        match done {
            Ok(()) => Ok(taken),
            Err(fault) => Err(CopyError { at: PhysicalOffset(at.0.saturating_add(taken as u64)), taken, fault }),
        }
    }

    fn copy_on(&self, begin: u64, bytes: &[u8], taken: &mut usize) -> Result<(), CopyFault> {
        while *taken < bytes.len() {
            // Up to there the log goes.
            let (at, rest) = (begin + *taken as u64, &bytes[*taken..]);
            let run = match self.log.copy_place(at)? {
                // Without the lock: no append of another kind is let in.
                CopyPlace::End { in_segment, room, len_max } => look(rest, at, in_segment, room, len_max),
                CopyPlace::InFiller { left } => {
                    *taken += usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    continue;
                }
            };
            if run.len > 0 {
                self.log.append_run(at, &rest[..run.len], &run)?;
                *taken += run.len;
            }
            match run.then {
                Then::More => {}
                Then::Part => return Ok(()),
                Then::Filler => {
                    self.log.end_segment(at + run.len as u64)?;
                    *taken += BLANK_LEN;
                }
                Then::Bad(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}
