//! Making the log shorter while the store is open: a follower that went further than its leader has to.
//!
//! Nobody who reads is waited for, and what takes time is done before any lock is taken. A segment that keeps a part of what it has is not
//! changed: its beginning is copied, and under the locks the copy gets its name, after the segments behind it have gone. Whoever reads in
//! the old file goes on there. So a crash leaves the whole log, or one that ends where a segment does, or the one that was meant: never a
//! gap, and never a byte from behind the end behind something new.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferromq_protocol::PhysicalOffset;

use super::Store;
use crate::error::TruncateError;
use crate::files;
use crate::flush::SyncState;
use crate::looking::Look;
use crate::mapped_file::LogFile;
use crate::segments::find_at;
use crate::waiters::Taken;
use crate::walk::LogItem;

/// What the log had behind its new end, to be let go of with no lock held.
struct Gone {
    waiters: Taken,
    files: Vec<Arc<LogFile>>,
}

impl Store {
    /// Makes `to`, the end of a record, the end of the log. What was after it is gone from queues and index too; what was promised of it
    /// counts for nothing: who waits for it is told that it failed, and who asks later is told of what stands there then, so first
    /// nobody may write any more. A topic's deletion behind it is not undone. Durable when this returns.
    ///
    /// Waits for no reader: who has some of it reads what was there. Takes the time of a copy of what stays in its segment, for which the
    /// disk must have room; but appends and dispatch stand still only while files go. Not from an arrival listener.
    pub fn truncate(&self, to: PhysicalOffset) -> Result<(), TruncateError> {
        let to = to.0;
        let _one = self.truncating.lock();
        self.check_truncatable()?;
        let (min, end) = (self.log_min(), self.positions.written());
        if to < min || to > end {
            return Err(out_of_range(to, min, end));
        }
        let files = self.segments.all();
        if let Some(file) = files.iter().find(|file| file.is_read_only() && file.end() > to) {
            return Err(TruncateError::ReadOnly { path: file.path().to_owned() });
        }
        // What was written never changes, so none of this needs a lock.
        let look = Look::reading_on(&*self.config.disk);
        let last_timestamp = self.check_record_end(&look, to)?;
        if to == end {
            return Ok(());
        }
        let Some(last) = self.segments.find(to) else { return Err(out_of_range(to, self.log_min(), end)) };
        // In the file, whose length is a usize.
        let kept = (to - last.start()) as usize;
        let made = self.log_dirs.make_shortened(&last, &look, kept);
        let (aside, shorter) = made.map_err(|source| failed(last.path(), source))?;
        let cut = self.end_log_in(shorter, &aside, to, last_timestamp);
        let cut = cut.inspect_err(|_| self.log_dirs.give_up_copy(&aside)).map(|Gone { waiters, files }| {
            // With no lock held: they may be long, and give the disk its room back.
            waiters.fail();
            drop(files);
        });
        // Threads that found the dispatch held left their messages to this one.
        self.dispatch_signal.wake();
        // The segment that was made ahead has gone.
        self.allocator.tail_moved(u64::MAX);
        cut
    }

    fn check_truncatable(&self) -> Result<(), TruncateError> {
        if let Some(reason) = self.health.poison_reason() {
            return Err(TruncateError::Poisoned { reason });
        }
        if self.health.is_closed() { Err(TruncateError::Closed) } else { Ok(()) }
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

    /// Ends the log at `to`, in `shorter`, whose file is at `aside`. Gives what the log had behind that.
    fn end_log_in(&self, shorter: LogFile, aside: &Path, to: u64, last_timestamp: i64) -> Result<Gone, TruncateError> {
        let disk = &*self.config.disk;
        // In this order: the slow ones first, and those that appends wait for last.
        let _writing_out = self.maintenance.writing_out.lock();
        let _making = self.allocator.hold();
        let mut syncing = self.flusher.hold();
        // The log's beginning stays now, and so does what is known of the disk.
        let min = self.log_min();
        if to < min {
            return Err(out_of_range(to, min, self.positions.written()));
        }
        // Nearly all, so that there is little to be done for it when appends wait.
        self.commit_all()?;
        let confirmed = self.checkpoint.confirmed();
        // First: after a crash in the middle, nothing behind `to` is taken for being on the disk.
        self.checkpoint.lower_to_record(to, last_timestamp);
        let cleared = self.maintenance.inventory.clear(disk, &self.checkpoint);
        let saved = cleared.and_then(|()| self.checkpoint.save(disk));
        let mut has_changed = false;
        let cut = saved
            .map_err(|source| failed(self.checkpoint.path(), source))
            .and_then(|()| self.cut_to(shorter, aside, to, last_timestamp, &mut syncing, &mut has_changed));
        match &cut {
            // No segment is made behind a gap.
            Err(_) if has_changed => self.allocator.stop(),
            Err(_) => {
                // All is there, and what was synced is on the disk: a later start that did not know could take it for torn.
                self.checkpoint.log_is_durable(self.positions.flushed(), None);
                self.checkpoint.confirm(confirmed);
                if let Err(error) = self.checkpoint.save(disk) {
                    tracing::warn!(%error, "the checkpoint says less than is on the disk until it is saved again");
                }
            }
            Ok(_) => {}
        }
        cut
    }

    /// The part of it for which appends and dispatch stand still. `has_changed` is set once a file has gone.
    fn cut_to(
        &self,
        shorter: LogFile,
        aside: &Path,
        to: u64,
        last_timestamp: i64,
        syncing: &mut SyncState,
        has_changed: &mut bool,
    ) -> Result<Gone, TruncateError> {
        let mut work = self.dispatcher.hold();
        // While it can still be found that something cannot be read.
        let from = self.dispatcher.goes_back_to(&work, to);
        let next_offsets = self.next_offsets(&work, from, to)?;
        let mut tail = self.log.hold();
        // Closed before, or not before this is done.
        self.check_truncatable()?;
        // What stays is in the files then, and what goes is nowhere else.
        self.commit_all()?;
        let _committing = self.committer.as_ref().map(|committer| committer.hold());
        let behind = self.log_dirs.files_behind(shorter.start());
        let behind = behind.map_err(|error| failed(self.log_dirs.first(), io::Error::other(error)))?;
        self.allocator.forget_next();
        let old_tail = Arc::clone(&tail);
        let not_readied = old_tail.hold_ready();
        // While appends wait: none is taken behind a gap.
        let poison =
            |error: &TruncateError| self.health.poison(format!("the log could not be truncated to {to}: {error}"));
        let replaced = self.replace_files(&behind, aside, shorter.path(), has_changed);
        replaced.inspect_err(|error| {
            if *has_changed {
                poison(error);
            }
        })?;
        let shorter = Arc::new(shorter);
        self.allocator.log_truncated(shorter.end());
        let files = self.segments.end_in(Arc::clone(&shorter));
        drop(not_readied);
        for file in &files {
            if let Err(error) = file.leave() {
                // They come back when nobody reads it any more.
                tracing::warn!(%error, path = %file.path().display(), "buffers of the write pool stay with a log file that has gone");
            }
        }
        *tail = shorter;
        self.dispatcher.log_truncated(&mut work, to, last_timestamp);
        self.positions.log_truncated(to, last_timestamp);
        syncing.log_truncated(to, last_timestamp);
        let cut = self.cut_projections(to).map_err(|source| failed(&self.config.root, source));
        cut.inspect_err(poison)?;
        self.go_on_behind(&mut work, next_offsets);
        Ok(Gone { waiters: self.flusher.take_waiters_behind(to), files })
    }

    /// Brings everything that is written to the log's files.
    fn commit_all(&self) -> Result<(), TruncateError> {
        let committed = self.committer.as_ref().map_or(Ok(0), |committer| committer.commit_untold(true));
        committed.map(drop).map_err(|source| failed(self.log_dirs.first(), source))
    }

    /// Removes the files `behind`, in their order, and gives the one at `aside` the name `path`. `has_changed` is set when the first of
    /// these is done.
    fn replace_files(
        &self,
        behind: &[PathBuf],
        aside: &Path,
        path: &Path,
        has_changed: &mut bool,
    ) -> Result<(), TruncateError> {
        let disk = &*self.config.disk;
        let sync_dir_of = |path: &Path| {
            let dir = path.parent().unwrap_or(Path::new("."));
            disk.sync_dir(dir).map_err(|source| failed(dir, source))
        };
        // The last one first, each for good before the next: what a crash leaves has no gap.
        for path in behind {
            files::remove_file(disk, path).map_err(|source| failed(path, source))?;
            *has_changed = true;
            sync_dir_of(path)?;
        }
        disk.rename(aside, path).map_err(|source| failed(path, source))?;
        *has_changed = true;
        // Before anything is appended: the old file, if a crash brought it back, would have other bytes behind the end.
        sync_dir_of(path)
    }

    /// Queues and index end with the log.
    fn cut_projections(&self, end: u64) -> io::Result<()> {
        for queue in self.queues.all() {
            queue.truncate_physical(&*self.config.disk, end)?;
            queue.note();
        }
        if let Some(index) = &self.index {
            index.truncate(&*self.config.disk, end)?;
        }
        Ok(())
    }
}

fn out_of_range(to: u64, min: u64, end: u64) -> TruncateError {
    let offset = PhysicalOffset;
    TruncateError::OutOfRange { to: offset(to), min: offset(min), end: offset(end) }
}

fn failed(path: &Path, source: io::Error) -> TruncateError {
    TruncateError::Io { path: path.to_owned(), source }
}
