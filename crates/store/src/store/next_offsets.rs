//! Which offset comes next in a queue, where the log has records that have no entries yet.

use std::sync::Arc;

use ferromq_protocol::message::Record;
use foldhash::HashMap;

use super::Store;
use crate::consume_queue::{ConsumeQueue, is_possible};
use crate::dispatch::Work;
use crate::looking::{Look, ReadError};
use crate::queues::{Queues, is_directory_name};
use crate::segments::find_at;
use crate::table_change::deleted_topic;
use crate::walk::LogItem;

/// What a part of the log says of queues.
#[derive(Default)]
pub(super) struct NextOffsets {
    queues: HashMap<usize, Next>,
    /// Topics that were deleted there, each with where the log says so last, which nothing here knows of yet: another broker has done it, of
    /// whose log this is a copy.
    deleted: HashMap<String, u64>,
}

/// The offset that the next message of a queue gets.
struct Next {
    queue: Arc<ConsumeQueue>,
    offset: u64,
    /// What the queue has is of a topic that was deleted since.
    begins_anew: bool,
}

impl Store {
    /// Of the queues that have records in a part of the log, which is there: the offsets behind the last of these.
    pub(super) fn next_offsets(&self, work: &Work, from: u64, to: u64) -> Result<NextOffsets, ReadError> {
        let look = Look::reading_on(&*self.config.disk);
        let mut found = NextOffsets::default();
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
                        found.add(&self.queues, work, &record, file.start() + at as u64);
                        at += record.record_len();
                    }
                    LogItem::End => at = file.len(),
                    LogItem::Damage { len, .. } => at += len,
                    LogItem::Part => return Ok(found),
                }
            }
            physical = file.start() + at.max(end) as u64;
        }
        Ok(found)
    }

    /// Each queue goes on behind its last entry, and behind what was found of it in the part of the log that has no entries yet. Under the
    /// append lock.
    pub(super) fn go_on_behind(&self, work: &mut Work, found: NextOffsets) {
        for queue in self.queues.all() {
            queue.advance_next(queue.max());
        }
        for Next { queue, offset, begins_anew } in found.queues.into_values() {
            if begins_anew {
                queue.advance_next(offset);
            } else {
                queue.raise_next(offset);
            }
        }
        // Dispatch enters no more of it: the queue would go on behind that.
        for (topic, at) in found.deleted {
            self.dispatcher.topic_deleted(work, &topic, at);
        }
    }
}

impl NextOffsets {
    fn add(&mut self, queues: &Queues, work: &Work, record: &Record<'_>, physical: u64) {
        if let Some(topic) = deleted_topic(record).filter(|topic| !work.knows_deletion(topic, physical)) {
            for queue in queues.of_topic(&topic) {
                self.queues.insert(key_of(&queue), Next { queue, offset: 0, begins_anew: true });
            }
            self.deleted.insert(topic, physical);
        }
        let is_believed = is_directory_name(record.topic()) && is_possible(record.queue_offset().0, physical);
        if record.sys_flag().is_visible() && is_believed && !work.is_deleted(record.topic(), physical) {
            let queue = queues.find_or_make(record.topic(), record.queue_id());
            let next = self.queues.entry(key_of(&queue)).or_insert(Next { queue, offset: 0, begins_anew: false });
            next.offset = next.offset.max(record.queue_offset().0.saturating_add(1));
        }
    }
}

fn key_of(queue: &Arc<ConsumeQueue>) -> usize {
    Arc::as_ptr(queue).addr()
}
