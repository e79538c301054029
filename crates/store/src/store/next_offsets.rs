//! Which offset comes next in a queue, where the log has records that have no entries yet.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

use super::Store;
use crate::consume_queue::{ConsumeQueue, is_possible};
use crate::dispatch::Work;
use crate::looking::{Look, ReadError};
use crate::queues::is_directory_name;
use crate::segments::find_at;
use crate::walk::LogItem;

/// Next offsets of queues.
pub(super) type NextOffsets = HashMap<usize, (Arc<ConsumeQueue>, u64)>;

impl Store {
    /// Of the queues that have records in a part of the log, which is there: the offsets behind the last of these.
    pub(super) fn next_offsets(&self, work: &Work, from: u64, to: u64) -> Result<NextOffsets, ReadError> {
        let look = Look::reading_on(&*self.config.disk);
        let mut next_offsets = NextOffsets::new();
        let mut physical = from;
        while physical < to
            && let Some(file) = self.segments.find(physical)
        {
            // Inside the file, whose length is a usize.
            let (mut at, end) = ((physical - file.start()) as usize, (to.min(file.end()) - file.start()) as usize);
            let Some(bytes) = file.slice(0..end) else { break };
            while at < end {
                match find_at(&file, &look, &bytes, at)? {
                    LogItem::Record(record) => {
                        let physical = file.start() + at as u64;
                        let is_believed =
                            is_directory_name(record.topic()) && is_possible(record.queue_offset().0, physical);
                        if record.sys_flag().is_visible() && is_believed && !work.is_deleted(record.topic(), physical) {
                            let queue = self.queues.find_or_make(record.topic(), record.queue_id());
                            let (key, next) = (Arc::as_ptr(&queue).addr(), record.queue_offset().0.saturating_add(1));
                            let known = next_offsets.entry(key).or_insert((queue, next));
                            known.1 = known.1.max(next);
                        }
                        at += record.record_len();
                    }
                    LogItem::End => at = file.len(),
                    LogItem::Damage { len, .. } => at += len,
                    LogItem::Part => return Ok(next_offsets),
                }
            }
            physical = file.start() + at.max(end) as u64;
        }
        Ok(next_offsets)
    }
}

/// The next messages of these queues get no offset that a record of the log has. Under the append lock.
pub(super) fn raise(next_offsets: NextOffsets) {
    for (queue, next) in next_offsets.into_values() {
        queue.raise_next(next);
    }
}
