//! The store's reading side: messages by queue offset, physical offset, key and time; topics; figures.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ferromq_protocol::message::Record;
use ferromq_protocol::{PhysicalOffset, QueueId, QueueOffset};

use super::Store;
use crate::disk::{Disk, DiskUsage};
use crate::dispatch::Arrival;
use crate::error::AppendError;
use crate::index::QueryOutcome;
use crate::index_file::KeyQuery;
use crate::looking::{Effort, Look, ReadError};
use crate::message_filter::MessageFilter;
use crate::queue_file::QueueEntry;
use crate::read::{Boundary, QueueBounds, ReadLimits, ReadOutcome};
use crate::scrub::Scrub;
use crate::segments::find_at;
use crate::stats::StoreStats;
use crate::walk::LogItem;
use crate::watermarks::Watermarks;

impl Store {
    /// Reads messages of a queue from an offset on. Java: getMessage.
    pub fn read(
        &self,
        topic: &str,
        queue_id: QueueId,
        from: QueueOffset,
        limits: ReadLimits,
        filter: &dyn MessageFilter,
        effort: Effort,
    ) -> Result<ReadOutcome, ReadError> {
        self.reader.read(topic, queue_id, from, limits, filter, effort)
    }

    /// First and one-after-last offset; `None` for a queue that never had a message.
    pub fn queue_bounds(&self, topic: &str, queue_id: QueueId) -> Option<QueueBounds> {
        let queue = self.queues.find(topic, queue_id)?;
        Some(QueueBounds { min: QueueOffset(queue.min()), max: QueueOffset(queue.max()) })
    }

    /// End of the record of a queue's last entry; `None` for a queue that never had a message. From memory alone.
    pub fn queue_end(&self, topic: &str, queue_id: QueueId) -> Option<PhysicalOffset> {
        Some(PhysicalOffset(self.queues.find(topic, queue_id)?.end_physical()))
    }

    pub fn queue_entry(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        effort: Effort,
    ) -> Result<Option<QueueEntry>, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(None) };
        let entry = queue.look_up(&self.reader.look(effort), offset.0)?;
        Ok(entry.filter(|entry| !entry.is_filler()))
    }

    /// [`Store::queue_entry`] for who waits for its message: an entry that does not lead to it is put right, if the log has it. May wait for
    /// the disk.
    pub fn sound_entry(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
    ) -> Result<Option<QueueEntry>, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(None) };
        self.reader.sound_entry(&self.reader.look(Effort::Full), &queue, offset.0)
    }

    /// When the message at an offset was stored, in milliseconds.
    pub fn store_time_at(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        effort: Effort,
    ) -> Result<Option<i64>, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(None) };
        self.reader.store_time_at(&self.reader.look(effort), &queue, offset.0)
    }

    /// When the oldest message of a queue that can be read was stored. Java: getEarliestMessageTime.
    pub fn earliest_store_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        effort: Effort,
    ) -> Result<Option<i64>, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(None) };
        self.reader.store_time_from(&self.reader.look(effort), &queue, queue.min())
    }

    /// When the oldest message of the whole store was stored.
    pub fn earliest_message_time(&self, effort: Effort) -> Result<Option<i64>, ReadError> {
        let bytes = self.segments.record_at(&self.reader.look(effort), self.log_min())?;
        Ok(bytes.and_then(|bytes| Record::parse(&bytes).ok().map(|record| record.store_timestamp())))
    }

    /// The offset for a time, within the queue's bounds; 0 without a queue. Java: getOffsetInQueueByTime.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: QueueId,
        time_ms: i64,
        boundary: Boundary,
        effort: Effort,
    ) -> Result<QueueOffset, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(QueueOffset(0)) };
        self.reader.offset_by_time(&self.reader.look(effort), &queue, time_ms, boundary).map(QueueOffset)
    }

    /// Whether the message at an offset is recent enough to be in memory still.
    pub fn is_in_memory(
        &self,
        topic: &str,
        queue_id: QueueId,
        offset: QueueOffset,
        effort: Effort,
    ) -> Result<bool, ReadError> {
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(false) };
        self.reader.is_in_memory(&self.reader.look(effort), &queue, offset.0)
    }

    /// Changes [`StoreConfig::in_memory_ratio`](crate::StoreConfig::in_memory_ratio), for all reads that begin after it.
    pub fn take_for_in_memory(&self, ratio: f64) {
        self.reader.take_for_in_memory(ratio);
    }

    /// The record that begins at a physical offset; `None` where none does. Java: lookMessageByOffset.
    pub fn message_at(&self, at: PhysicalOffset, effort: Effort) -> Result<Option<Bytes>, ReadError> {
        self.segments.record_at(&self.reader.look(effort), at.0)
    }

    /// The last record that begins at `near` or before, in the segment of `from` and not before `from`, where an item of the log begins;
    /// with where it begins. Reads all that is between, and passes over what is damaged.
    pub fn last_record(
        &self,
        from: PhysicalOffset,
        near: PhysicalOffset,
    ) -> Result<Option<(PhysicalOffset, Bytes)>, ReadError> {
        let look = Look::reading_on(&*self.config.disk);
        let Some(file) = self.segments.find(from.0) else { return Ok(None) };
        let Some(bytes) = file.slice(0..file.written()) else { return Ok(None) };
        // In the file, whose length is a usize.
        let (mut at, mut last) = ((from.0 - file.start()) as usize, None);
        while at < bytes.len() && file.start() + at as u64 <= near.0 {
            at += match find_at(&file, &look, &bytes, at)? {
                LogItem::Record(record) => {
                    last = Some(at..at + record.record_len());
                    record.record_len()
                }
                LogItem::Damage { len, .. } => len,
                LogItem::End | LogItem::Part => break,
            };
        }
        let Some(last) = last else { return Ok(None) };
        let begin = PhysicalOffset(file.start() + last.start as u64);
        Ok(file.slice(last).map(|record| (begin, record.into_bytes())))
    }

    /// Whether the log begins behind that offset.
    pub fn is_gone(&self, at: PhysicalOffset) -> bool {
        at.0 < self.log_min()
    }

    /// Messages with a key (or unique key) stored in `begin_ms..=end_ms`, oldest first, at most `max` and the store's
    /// own limit. Times are compared to the second. Java: queryMessage.
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        begin_ms: i64,
        end_ms: i64,
        effort: Effort,
    ) -> Result<QueryOutcome, ReadError> {
        let Some(index) = &self.index else { return Ok(QueryOutcome::default()) };
        let sought = KeyQuery { topic, key, max: max.min(self.config.query_max), begin: begin_ms, end: end_ms };
        index.query(&self.reader.look(effort), &sought, &self.segments)
    }

    /// Adds an arrival listener. It is called for every message that consumers can see from now on, in the order of the commit log,
    /// on the thread that makes the message visible: it must be short and must not append, delete topics, truncate or close.
    pub fn on_arrival(&self, listener: impl Fn(&Arrival<'_>) + Send + Sync + 'static) {
        self.dispatcher.listen(Box::new(listener));
    }

    /// Topics that have, or had, messages.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.queues.topics()
    }

    /// The queues of a topic, by id.
    pub fn queue_ids(&self, topic: &str) -> Vec<QueueId> {
        self.queues.of_topic(topic).iter().map(|queue| queue.id()).collect()
    }

    /// Whether any message of a topic is in the log and in a queue, or on its way there.
    pub fn has_messages(&self, topic: &str) -> bool {
        self.queues.of_topic(topic).iter().any(|queue| queue.next() > queue.min())
    }

    /// Waits until the consume queues have all that is in the log now, but for what one of them cannot take at the moment: for as long as
    /// the dispatch comes on, and five seconds more. False when it does not come there; so with what is not visible yet.
    pub fn wait_dispatched(&self) -> bool {
        let end = self.watermarks().written.0;
        self.await_dispatch(|| end.saturating_sub(self.positions.dispatched())) == 0
    }

    pub fn watermarks(&self) -> Watermarks {
        // Each before the one that bounds it.
        let projected = PhysicalOffset(self.positions.projected());
        let flushed = PhysicalOffset(self.positions.flushed());
        let visible = PhysicalOffset(self.positions.visible());
        let committed = PhysicalOffset(self.positions.committed());
        let written = PhysicalOffset(self.positions.written());
        Watermarks { min: PhysicalOffset(self.log_min()), written, committed, flushed, visible, projected }
    }

    pub(super) fn log_min(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.start())
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats {
            lock_held_ms: self.log.lock_held_ms(),
            dispatch_behind: self.dispatcher.behind(),
            flush_behind: self.positions.written().saturating_sub(self.positions.flushed()),
            queues: self.queues.count(),
            commit_behind: self.committer.as_ref().map(|committer| committer.behind()),
            pool_buffers_free: self.committer.as_ref().map(|committer| committer.buffers_free()),
            ..self.counters.snapshot()
        }
    }

    /// Starts the "longest" figures of [`Store::stats`] again.
    pub fn new_stats_window(&self) {
        self.counters.new_window();
    }

    /// A walk over the old part of the log that looks for damage. One at a time counts right.
    pub fn scrub(&self) -> Scrub {
        let (segments, positions) = (Arc::clone(&self.segments), Arc::clone(&self.positions));
        Scrub::new(segments, positions, Arc::clone(&self.maintenance.projection), Arc::clone(&self.counters))
    }

    /// What the store asks of the disk goes through this, and so does what else is kept beside it.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.config.disk)
    }

    /// The directories of the commit log that may have new messages, and how full the disk of each is.
    pub fn log_disks(&self) -> Vec<(PathBuf, io::Result<DiskUsage>)> {
        let with_usage = |dir: PathBuf| {
            let usage = self.config.disk.usage(&dir);
            (dir, usage)
        };
        self.config.commit_log_paths().into_iter().map(with_usage).collect()
    }

    /// How full the disk of the root, which has the consume queues, is.
    pub fn root_disk_usage(&self) -> io::Result<DiskUsage> {
        self.config.disk.usage(&self.config.root)
    }

    /// Whether writes are taken at this moment, and if not, why.
    pub fn check_writable(&self) -> Result<(), AppendError> {
        self.health.check()
    }
}
