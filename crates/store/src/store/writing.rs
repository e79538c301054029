//! The store's writing side: appends, who may append, waiting for the disk.

use std::sync::atomic::Ordering;
use std::time::Instant;

use ferromq_protocol::message::NewMessage;
use ferromq_protocol::topics::TABLE_CHANGES_TOPIC;
use ferromq_protocol::{PhysicalOffset, QueueOffset};

use super::Store;
use crate::append::{AppendedBatch, AppendedMessage, with_encoded};
use crate::commit_log::Placement;
use crate::error::AppendError;
use crate::health::{Health, HealthCheck, Writer};
use crate::looking::ReadError;
use crate::queues::is_directory_name;
use crate::waiters::NotSafe;

/// What somebody who waits wants of what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// What an acknowledgement promises: on the disk in sync flush mode, else in the log, which it is at once.
    Acknowledged,
    /// On the disk, in any mode.
    Disk,
}

/// What somebody who waits waits for.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum WaitsFor {
    Nothing,
    Flush,
}

impl Store {
    /// Appends a message. It is in the log's memory then and survives the end of the process, with the write pool when it has been
    /// committed; for the disk see [`Store::when_safe`]. Consumers see it a moment later. Java: asyncPutMessage.
    pub fn append(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        let appended = self.put(message)?;
        self.wake_threads();
        Ok(appended)
    }

    /// [`Store::append`] of a message that is in the log already, for another place. It was taken once, so a limit of its length that
    /// has become lower since does not count.
    pub fn append_again(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        let appended = self.put_again(message)?;
        self.wake_threads();
        Ok(appended)
    }

    /// [`Store::append_again`] of what would go with its segment otherwise (see [`Keeper`](crate::Keeper)). Taken on a full disk too,
    /// as long as the log's bytes are there: it is what lets the disk have room again.
    pub fn append_carried(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        let appended = self.put_up_to(message, i32::MAX as usize, Health::check_own)?;
        self.retention.carried.fetch_add(appended.record_len as u64, Ordering::AcqRel);
        self.wake_threads();
        Ok(appended)
    }

    /// Appends messages of one topic and queue: all of them, next to each other in the log and in the queue, or none.
    /// Java: asyncPutMessages with a MessageExtBatch.
    pub fn append_batch(&self, messages: &[NewMessage<'_>]) -> Result<AppendedBatch, AppendError> {
        let appended = self.put_batch(messages)?;
        self.wake_threads();
        Ok(appended)
    }

    pub(super) fn put(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        self.put_up_to(message, self.message_len_max.load(Ordering::Relaxed), Health::check)
    }

    pub(super) fn put_again(&self, message: &NewMessage<'_>) -> Result<AppendedMessage, AppendError> {
        self.put_up_to(message, i32::MAX as usize, Health::check)
    }

    pub(super) fn put_batch(&self, messages: &[NewMessage<'_>]) -> Result<AppendedBatch, AppendError> {
        let began = Instant::now();
        let result = self.try_put_batch(messages);
        self.count_put(result.is_ok(), began);
        result
    }

    fn put_up_to(
        &self,
        message: &NewMessage<'_>,
        body_len_max: usize,
        check: HealthCheck,
    ) -> Result<AppendedMessage, AppendError> {
        let began = Instant::now();
        let result = self.try_put(message, body_len_max, check);
        self.count_put(result.is_ok(), began);
        result
    }

    fn try_put(
        &self,
        message: &NewMessage<'_>,
        body_len_max: usize,
        check: HealthCheck,
    ) -> Result<AppendedMessage, AppendError> {
        check(&self.health)?;
        message.check_limits(body_len_max)?;
        with_encoded(std::slice::from_ref(message), |records, lens| {
            let placed = self.place(message, records, lens, check)?;
            Ok(AppendedMessage {
                physical_offset: PhysicalOffset(placed.physical),
                record_len: records.len(),
                queue_offset: QueueOffset(placed.queue_offset),
                store_timestamp: placed.store_timestamp,
                end: PhysicalOffset(placed.end),
            })
        })
    }

    /// Changes the longest body that is taken from now on, in bytes, from what `StoreConfig::message_len_max` said.
    pub fn limit_message_len(&self, max: usize) {
        self.message_len_max.store(max, Ordering::Relaxed);
    }

    fn try_put_batch(&self, messages: &[NewMessage<'_>]) -> Result<AppendedBatch, AppendError> {
        self.health.check()?;
        let first = messages.first().ok_or(AppendError::MixedBatch)?;
        let kind = first.sys_flag.transaction();
        let limit = self.message_len_max.load(Ordering::Relaxed);
        let mut len = 0;
        for message in messages {
            message.check_limits(limit)?;
            let same = message.topic == first.topic
                && message.queue_id == first.queue_id
                && message.sys_flag.transaction() == kind;
            if !same {
                return Err(AppendError::MixedBatch);
            }
            len += message.record_len();
            if len > limit {
                return Err(AppendError::BatchTooLarge { len, limit });
            }
        }
        with_encoded(messages, |records, lens| {
            let placed = self.place(first, records, lens, Health::check)?;
            let mut at = placed.physical;
            let physical_offsets = lens
                .iter()
                .map(|len| {
                    let offset = PhysicalOffset(at);
                    at += *len as u64;
                    offset
                })
                .collect();
            Ok(AppendedBatch {
                physical_offsets,
                queue_offset: QueueOffset(placed.queue_offset),
                count: lens.len(),
                store_timestamp: placed.store_timestamp,
                end: PhysicalOffset(placed.end),
            })
        })
    }

    fn place(
        &self,
        message: &NewMessage<'_>,
        records: &mut [u8],
        lens: &[usize],
        check: HealthCheck,
    ) -> Result<Placement, AppendError> {
        if !is_directory_name(message.topic) || message.topic == TABLE_CHANGES_TOPIC {
            return Err(AppendError::TopicName { topic: message.topic.to_owned() });
        }
        let takes_offsets = message.sys_flag.is_visible();
        loop {
            let queue = self.queues.find_or_make(message.topic, message.queue_id);
            // Again only if the topic is being deleted at this moment.
            if let Some(placed) = self.log.append(records, lens, &queue, takes_offsets, check)? {
                self.log_grew(placed.end);
                return Ok(placed);
            }
        }
    }

    pub(super) fn log_grew(&self, end: u64) {
        self.allocator.tail_moved(end);
        if !self.positions.is_sync_flush() {
            if let Some(committer) = &self.committer {
                committer.tail_moved();
            }
            self.flusher.tail_moved();
        }
    }

    /// Whether what is appended gets into the log's files, and is shown, by the thread that commits.
    pub(super) fn commits_later(&self) -> bool {
        self.committer.is_some() && !self.positions.is_sync_flush()
    }

    /// Tells of what was appended where feeds may read it at once. In sync mode the flush comes first, with the write pool the commit, and
    /// tells of it then.
    pub(super) fn tell_growth(&self) {
        if !self.positions.is_sync_flush() && !self.commits_later() {
            self.growth.tell(|| self.positions.feed_end());
        }
    }

    /// In sync mode the flush comes first, with the write pool the commit, and wakes the dispatch.
    pub(super) fn wake_threads(&self) {
        self.tell_growth();
        if self.positions.is_sync_flush() {
            self.flusher.tail_moved();
        } else if !self.commits_later() {
            self.dispatch_signal.wake();
        }
    }

    fn count_put(&self, stored: bool, began: Instant) {
        if stored {
            self.counters.put(began.elapsed());
        } else {
            self.counters.put_failed();
        }
    }

    /// Whether the write pool has no buffer for what comes next, because the disk does not keep up, and nobody is to wait for one. Java:
    /// isTransientStorePoolDeficient, which does not ask for that.
    pub fn is_pool_empty(&self) -> bool {
        self.allocator.fails_fast() && self.allocator.is_starved()
    }

    /// Whether everything before `end` is safe already.
    pub fn is_safe(&self, end: PhysicalOffset, want: Want) -> bool {
        let needs_disk = match want {
            Want::Acknowledged => self.positions.is_sync_flush(),
            Want::Disk => true,
        };
        !needs_disk || self.positions.flushed() >= end.0
    }

    /// Calls `done` once everything before `end` is safe, or with the reason why it is not. It runs on the thread that syncs, which
    /// completes a whole prefix at a time, or at once on this one when the answer is known: it must be short. Makes the flush happen
    /// now if it takes one, and waits at most the sync timeout for it (async mode: 5 s).
    pub fn when_safe(&self, end: PhysicalOffset, want: Want, done: impl FnOnce(Result<(), NotSafe>) + Send + 'static) {
        if self.await_safe(end, want, done) == WaitsFor::Flush {
            self.flusher.wake();
        }
    }

    /// As [`Store::when_safe`], but begins no flush: that is the caller's, if one is waited for.
    pub(super) fn await_safe(
        &self,
        end: PhysicalOffset,
        want: Want,
        done: impl FnOnce(Result<(), NotSafe>) + Send + 'static,
    ) -> WaitsFor {
        if self.is_safe(end, want) {
            done(Ok(()));
            return WaitsFor::Nothing;
        }
        self.flusher.when_flushed(end.0, Box::new(done));
        WaitsFor::Flush
    }

    /// Says who may extend the log from now on: [`Writer::Local`] after an open. When this returns, nobody of another kind is under way any
    /// more; what such a one has appended is in the log, all of it. Waits for one append at most, and for another change.
    ///
    /// [`Writer::Local`] after another first has each queue go on behind its last message of the log, whether that was dispatched or not:
    /// what was not is read, with the dispatch held meanwhile, and nobody writes. So not from an arrival listener. Where it cannot be read,
    /// nobody may write until this is called again.
    pub fn set_writer(&self, writer: Writer) -> Result<(), ReadError> {
        let _one = self.changing_writer.lock();
        if writer != Writer::Local || self.writer() == Writer::Local {
            self.hand_over(writer);
            return Ok(());
        }
        self.hand_over(Writer::Nobody);
        let begun = self.begin_to_write();
        // Threads that found the dispatch held left their messages to this one.
        self.dispatch_signal.wake();
        begun
    }

    fn hand_over(&self, writer: Writer) {
        self.health.set_writer(writer);
        // Who is in the middle of an append finishes it; who gets the lock after this sees the change.
        drop(self.log.hold());
    }

    fn begin_to_write(&self) -> Result<(), ReadError> {
        let mut work = self.dispatcher.hold();
        let end = self.positions.written();
        let from = self.dispatcher.goes_back_to(&work, end);
        let next_offsets = self.next_offsets(&work, from, end)?;
        let _tail = self.log.hold();
        self.go_on_behind(&mut work, next_offsets);
        self.health.set_writer(Writer::Local);
        Ok(())
    }

    pub fn writer(&self) -> Writer {
        self.health.writer()
    }

    /// Tells how far the log is replicated, and so confirmed: consumers see nothing beyond. The checkpoint keeps it, as far as the log is
    /// on the disk, for who opens the store again (`StoreConfig::confirmed_at_open`).
    pub fn set_replicated(&self, to: PhysicalOffset) {
        self.positions.set_replicated(to.0);
        self.checkpoint.confirm(to.0);
        self.dispatch_signal.wake();
    }
}
