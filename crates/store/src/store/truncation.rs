//! Making the log shorter while the store is open: a follower that went further than its leader has to.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ferromq_protocol::PhysicalOffset;

use super::{Store, tail_segment};
use crate::dispatch::Work;
use crate::error::TruncateError;
use crate::files;
use crate::looking::Look;
use crate::segments::find_at;
use crate::walk::LogItem;

/// A truncation waits so long for readers of what is to go.
const PATIENCE: Duration = Duration::from_secs(2);

impl Store {
    /// Makes `to`, the end of a record, the end of the log. What was after it is gone from queues and index too.
    /// Fails when somebody keeps reading what is to go.
    pub fn truncate(&self, to: PhysicalOffset) -> Result<(), TruncateError> {
        let to = to.0;
        // No other thread is about to note in the checkpoint how far it has seen the log go.
        let _writing_out = self.maintenance.writing_out.lock();
        let mut work = self.dispatcher.hold();
        let mut tail = self.log.hold();
        let _syncing = self.flusher.hold();
        if self.health.is_closed() {
            return Err(TruncateError::Closed);
        }
        // What stays is in the files then, and what goes is nowhere else.
        let committed = self.committer.as_ref().map_or(Ok(0), |committer| committer.commit());
        committed.map_err(|source| TruncateError::Io { path: self.log_dirs.first().to_owned(), source })?;
        let _committing = self.committer.as_ref().map(|committer| committer.hold());
        let (min, end) = (self.log_min(), self.positions.written());
        if to < min || to > end {
            let offset = PhysicalOffset;
            return Err(TruncateError::OutOfRange { to: offset(to), min: offset(min), end: offset(end) });
        }
        if let Some(file) = self.segments.all().iter().find(|file| file.is_read_only() && file.end() > to) {
            return Err(TruncateError::ReadOnly { path: file.path().to_owned() });
        }
        let look = Look::reading_on(&*self.config.disk);
        let last_timestamp = self.check_record_end(&look, to)?;
        // What is not dispatched will be read when the end is gone. It is too late then to find that it cannot be.
        self.segments.bring(&look, self.positions.projected().min(to)..to)?;
        // First: after a crash in the middle, nothing behind `to` is taken for being on the disk.
        self.checkpoint.lower(to);
        let cleared = self.maintenance.inventory.clear(&*self.config.disk, &self.checkpoint);
        cleared.and_then(|()| self.checkpoint.save(&*self.config.disk)).map_err(|source| {
            let path = self.checkpoint.path().to_owned();
            TruncateError::Io { path, source }
        })?;
        let gone = self.segments.split_off(to + 1);
        let last = self.segments.last();
        let retracted = last.as_ref().is_none_or(|last| {
            // In the file, whose length is a usize.
            let at = to.min(last.end()) - last.start();
            last.retract(at as usize, PATIENCE)
        });
        if !retracted {
            for file in gone {
                self.segments.push(file);
            }
            return Err(TruncateError::Busy);
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TruncateError::Io { path, source }
        };
        // The last one first, each for good before the next: what a crash leaves has no gap.
        for file in gone.iter().rev() {
            files::remove_file(&*self.config.disk, file.path()).map_err(failed(file.path()))?;
            if let Some(dir) = file.path().parent() {
                self.config.disk.sync_dir(dir).map_err(failed(dir))?;
            }
        }
        let log_dir = self.log_dirs.first();
        let last_end = last.as_ref().map_or(to, |last| last.end());
        self.allocator.log_truncated(last_end).map_err(failed(log_dir))?;
        // A file that came back with a power loss would be read as what follows.
        for dir in self.log_dirs.writable() {
            self.config.disk.sync_dir(dir).map_err(failed(dir))?;
        }
        let new_tail = tail_segment(&self.segments, &self.allocator, to)
            .and_then(|file| file.zero_rest(&*self.config.disk).map(|()| file))
            .map_err(failed(log_dir))?;
        *tail = new_tail;
        self.positions.written.store(to, Ordering::Release);
        self.positions.written_timestamp.store(last_timestamp, Ordering::Release);
        self.positions.committed_to(to);
        self.positions.flushed.fetch_min(to, Ordering::AcqRel);
        self.dispatcher.log_truncated(&mut work, to);
        self.cut_projections(to).map_err(failed(&self.config.root))?;
        self.pass_offsets(&work)
    }

    /// Whether `to` is a place between records; with the store time of the record before it.
    fn check_record_end(&self, look: &Look<'_>, to: u64) -> Result<i64, TruncateError> {
        let bad = || TruncateError::NotARecordEnd { to: PhysicalOffset(to) };
        let Some(file) = self.segments.find(to.saturating_sub(1)) else { return Ok(0) };
        let bytes = file.slice(0..file.written()).ok_or_else(bad)?;
        let (mut at, mut timestamp) = (0, 0);
        while file.start() + (at as u64) < to {
            match find_at(&file, look, &bytes, at)? {
                LogItem::Record(record) => {
                    at += record.record_len();
                    timestamp = record.store_timestamp();
                }
                LogItem::End => at = file.len(),
                LogItem::Damage { len, .. } => at += len,
                LogItem::Part => return Err(bad()),
            }
        }
        if file.start() + at as u64 == to { Ok(timestamp) } else { Err(bad()) }
    }

    /// Queues and index end with the log; offsets go on behind what is left.
    fn cut_projections(&self, end: u64) -> io::Result<()> {
        for queue in self.queues.all() {
            queue.truncate_physical(&*self.config.disk, end)?;
            queue.advance_next(queue.max());
            queue.note();
        }
        if let Some(index) = &self.index {
            index.truncate(&*self.config.disk, end)?;
        }
        Ok(())
    }

    /// What is left and not dispatched has its offsets, too.
    fn pass_offsets(&self, work: &Work) -> Result<(), TruncateError> {
        let look = Look::reading_on(&*self.config.disk);
        let mut physical = self.positions.dispatched();
        while let Some(file) = self.segments.find(physical) {
            let Some(bytes) = file.slice(0..file.written()) else { break };
            // Inside the file, whose length is a usize.
            let mut at = (physical - file.start()) as usize;
            while at < bytes.len() {
                match find_at(&file, &look, &bytes, at)? {
                    LogItem::Record(record) => {
                        let physical = file.start() + at as u64;
                        if record.sys_flag().is_visible() && !work.is_deleted(record.topic(), physical) {
                            let queue = self.queues.find_or_make(record.topic(), record.queue_id());
                            queue.raise_next(record.queue_offset().0 + 1);
                        }
                        at += record.record_len();
                    }
                    LogItem::End => at = file.len(),
                    LogItem::Damage { len, .. } => at += len,
                    LogItem::Part => return Ok(()),
                }
            }
            if at < file.len() {
                break;
            }
            physical = file.end();
        }
        Ok(())
    }
}
