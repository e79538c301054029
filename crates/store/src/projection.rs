//! What a record of the commit log becomes: an entry of its consume queue, and entries of the index.
//!
//! The dispatcher does this to new records, recovery to those that a crash may have lost entries of. Java: CommitLogDispatcher.

use std::io;
use std::sync::Arc;

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;
use ferromq_protocol::message::tags::tags_code;
use ferromq_protocol::topics::SCHEDULE_TOPIC;

use crate::consume_queue::{ConsumeQueue, Put};
use crate::delay_levels::DelayLevels;
use crate::disk::Disk;
use crate::entry_properties::EntryProperties;
use crate::files;
use crate::index::Index;
use crate::queue_file::QueueEntry;
use crate::queues::{Queues, is_directory_name};

/// The queue entry of a record at `physical`.
pub fn queue_entry(
    record: &Record<'_>,
    properties: &EntryProperties<'_>,
    physical: u64,
    delay_levels: &DelayLevels,
) -> QueueEntry {
    let delay = || properties.delay?.parse::<usize>().ok().filter(|level| *level > 0);
    let tags_code = match delay() {
        Some(level) if record.topic() == SCHEDULE_TOPIC => delay_levels.due_ms(level, record.store_timestamp()),
        _ => properties.tags.map_or(0, tags_code),
    };
    QueueEntry {
        physical: PhysicalOffset(physical),
        // A record's length was read from a 31-bit field.
        len: u32::try_from(record.record_len()).unwrap_or(u32::MAX),
        tags_code,
    }
}

/// Turns records into queue and index entries. Used by dispatch and by recovery.
#[derive(Debug)]
pub struct Projection {
    pub queues: Arc<Queues>,
    pub index: Option<Arc<Index>>,
    pub delay_levels: DelayLevels,
    pub disk: Arc<dyn Disk>,
}

impl Projection {
    /// The queue a record belongs into, if consumers may see it.
    pub fn queue_of<'a>(
        &self,
        record: &Record<'_>,
        known: &'a mut Option<Arc<ConsumeQueue>>,
    ) -> Option<&'a Arc<ConsumeQueue>> {
        if !record.sys_flag().is_visible() {
            return None;
        }
        let fits = |queue: &ConsumeQueue| {
            queue.id() == record.queue_id() && queue.topic() == record.topic() && !queue.is_retired()
        };
        if !known.as_deref().is_some_and(fits) {
            if !is_directory_name(record.topic()) {
                tracing::warn!(
                    topic = record.topic(),
                    "a record's topic cannot be a directory; it gets no queue entry"
                );
                return None;
            }
            *known = Some(self.queues.find_or_make(record.topic(), record.queue_id()));
        }
        known.as_ref()
    }

    /// Puts a record into the queue it belongs into.
    pub fn put(
        &self,
        queue: &Arc<ConsumeQueue>,
        record: &Record<'_>,
        properties: &EntryProperties<'_>,
        physical: u64,
    ) -> io::Result<(Put, QueueEntry)> {
        let entry = queue_entry(record, properties, physical, &self.delay_levels);
        let put = queue.put(&*self.disk, record.queue_offset(), &entry)?;
        if put != Put::Impossible {
            queue.raise_next(record.queue_offset().0 + 1);
            self.queues.mark_dirty(queue);
        }
        Ok((put, entry))
    }

    /// Puts a record into its queue. `known` is the queue of the record before. `None` when it has no place in one.
    pub fn put_queue(
        &self,
        record: &Record<'_>,
        properties: &EntryProperties<'_>,
        physical: u64,
        known: &mut Option<Arc<ConsumeQueue>>,
    ) -> io::Result<Option<Put>> {
        let Some(queue) = self.queue_of(record, known) else { return Ok(None) };
        self.put(queue, record, properties, physical).map(|(put, _)| Some(put))
    }

    /// Removes what came so far of the queues of a topic that was deleted at this place of the log, durably. While nobody appends.
    pub fn forget_topic(&self, topic: &str) -> io::Result<()> {
        let queues = self.queues.take_topic(topic);
        queues.iter().for_each(|queue| queue.let_go());
        let dir = self.queues.dir().join(topic);
        if !dir.is_dir() {
            return Ok(());
        }
        files::remove_dir(&*self.disk, &dir)?;
        self.disk.sync_dir(self.queues.dir())
    }

    /// Keeps the place of a damaged record in its queue, if it is the next one: nobody else gets its offset.
    pub fn put_lost(&self, record: &Record<'_>, physical: u64) -> io::Result<()> {
        let mut known = None;
        let Some(queue) = self.queue_of(record, &mut known) else { return Ok(()) };
        if record.queue_offset().0 == queue.max() {
            queue.put(&*self.disk, record.queue_offset(), &QueueEntry::lost(PhysicalOffset(physical)))?;
            self.queues.mark_dirty(queue);
        }
        Ok(())
    }

    /// Puts a record into the index, if there is one.
    pub fn put_index(&self, record: &Record<'_>, properties: &EntryProperties<'_>, physical: u64) -> io::Result<()> {
        self.index.as_ref().map_or(Ok(()), |index| index.put(&*self.disk, record, properties, physical))
    }
}
