//! Beginning the log anew, at another place: a copy that is empty, or has been given up, goes on where its master's log begins.

use std::path::Path;
use std::sync::Arc;

use ferromq_protocol::PhysicalOffset;

use super::Store;
use crate::dispatch::Work;
use crate::error::{OpenError, RestartError};
use crate::flush::SyncState;
use crate::health::Writer;
use crate::index;
use crate::mapped_file::LogFile;
use crate::restart::{RestartOrder, path_in};
use crate::waiters::Taken;

/// What the log had, to be let go of with no lock held.
type Gone = (Taken, Vec<Arc<LogFile>>);

impl Store {
    /// Gives up all that the log has, and begins it anew at `begin`, where a segment begins: the next byte of [`Store::append_copy`] is
    /// that of there. Queues and index are empty then. All or nothing: a crash, or a failure, leaves the log as it was, or an empty one
    /// that begins at `begin`, if not at once then with the next start. Durable when this returns.
    ///
    /// Not while [`Writer::Local`] may write, nor beside a [`TimerIndex`](crate::TimerIndex), whose files go, too. Who reads what goes has
    /// it to the end; who waits for the disk is told that it failed, and who asks later is told of what stands there then. Takes the time
    /// of the removal of all files. Not from an arrival listener, nor from a [`Keeper`](crate::Keeper).
    pub fn restart_at(&self, begin: PhysicalOffset) -> Result<(), RestartError> {
        let done = self.give_up_log(begin);
        // Threads that found the dispatch held left their messages to this one.
        self.dispatch_signal.wake();
        // The segment that was made ahead has gone.
        self.allocator.tail_moved(u64::MAX);
        let (waiters, files) = done?;
        // With no lock held: they may be long, and give the disk its room back.
        waiters.fail();
        drop(files);
        Ok(())
    }

    fn give_up_log(&self, begin: PhysicalOffset) -> Result<Gone, RestartError> {
        self.check_border(begin)?;
        let begin = begin.0;
        let _one = self.truncating.lock();
        // Nobody becomes the writer meanwhile.
        let _same_writer = self.changing_writer.lock();
        self.check_restartable()?;
        if let Some(path) = self.log_dirs.any_read_only().map_err(|error| failed(self.log_dirs.first(), error))? {
            return Err(RestartError::ReadOnly { path });
        }
        let (disk, root) = (&*self.config.disk, &self.config.root);
        // In this order: the slow ones first. Whatever has looked at the log's beginning is over with it.
        let mut restarts = self.retention.restarts.lock();
        let _writing_out = self.maintenance.writing_out.lock();
        let finished = self.maintenance.finish_deletions().map_err(OpenError::io("remove what was deleted from", root));
        finished.map_err(|error| failed(root, error))?;
        let _making = self.allocator.hold();
        let mut syncing = self.flusher.hold();
        let mut work = self.dispatcher.hold();
        let mut tail = self.log.hold();
        // Closed before, or not before this is done.
        self.check_restartable()?;
        // Who reads it finds it in the files when the write pool has its buffers back.
        let committed = self.committer.as_ref().map_or(Ok(0), |committer| committer.commit_untold(true));
        committed.map_err(|source| RestartError::Io { path: self.log_dirs.first().to_owned(), source })?;
        let _committing = self.committer.as_ref().map(|committer| committer.hold());
        let order = RestartOrder { begin };
        if let Err(source) = order.give(disk, root) {
            if let Err(error) = RestartOrder::withdraw(disk, root) {
                // The next start may find it, and give up what came until then.
                self.health.poison(format!("the log may begin anew at {begin} with the next start: {source}; {error}"));
            }
            return Err(RestartError::Io { path: path_in(root), source });
        }
        tracing::warn!(
            min = self.log_min(),
            end = self.positions.written(),
            begin,
            "the log is given up, and begins anew"
        );
        *restarts += 1;
        self.begin_anew(order, &mut tail, &mut work, &mut syncing).map_err(|error| {
            self.allocator.stop();
            // While nobody can append.
            self.health
                .poison(format!("the log could not begin anew at {begin}, and does so with the next start: {error}"));
            failed(root, error)
        })
    }

    fn check_border(&self, begin: PhysicalOffset) -> Result<(), RestartError> {
        let segment_len = self.config.segment_len;
        // Positions have 63 bits, also of what comes in the first segments.
        let is_in_reach = begin.0 <= (i64::MAX as u64) / 2;
        if begin.0.is_multiple_of(segment_len) && is_in_reach {
            Ok(())
        } else {
            Err(RestartError::NotASegmentBorder { begin, segment_len })
        }
    }

    fn check_restartable(&self) -> Result<(), RestartError> {
        if let Some(reason) = self.health.poison_reason() {
            return Err(RestartError::Poisoned { reason });
        }
        if self.health.is_closed() {
            return Err(RestartError::Closed);
        }
        if self.writer() == Writer::Local { Err(RestartError::IsTheWriter) } else { Ok(()) }
    }

    /// What is done by an order that is given.
    fn begin_anew(
        &self,
        order: RestartOrder,
        tail: &mut Arc<LogFile>,
        work: &mut Work,
        syncing: &mut SyncState,
    ) -> Result<Gone, OpenError> {
        let begin = order.begin;
        // Before their files go, so that readers find nothing rather than something that cannot be opened.
        for topic in self.queues.topics() {
            self.queues.take_topic(&topic).iter().for_each(|queue| queue.let_go());
        }
        if let Some(index) = &self.index {
            index.forget_all();
        }
        self.allocator.forget_next();
        let old_tail = Arc::clone(tail);
        let not_readied = old_tail.hold_ready();
        self.maintenance.inventory.begin_anew();
        order.clear(&self.config, &self.log_dirs, &self.checkpoint)?;
        if let Some(index) = &self.index {
            index
                .discard(&*self.config.disk)
                .map_err(OpenError::io("remove a file of", &index::dir_of(&self.config.root)))?;
        }
        let first =
            self.log_dirs.make_segment(begin).map_err(OpenError::io("make a segment in", self.log_dirs.first()))?;
        let (disk, root) = (&*self.config.disk, &self.config.root);
        RestartOrder::withdraw(disk, root).map_err(OpenError::io("remove", &path_in(root)))?;
        let first = Arc::new(first);
        self.allocator.log_truncated(first.end());
        let files = self.segments.begin_in(Arc::clone(&first));
        drop(not_readied);
        for file in &files {
            if let Err(error) = file.leave() {
                // They come back when nobody reads it any more.
                tracing::warn!(%error, path = %file.path().display(), "buffers of the write pool stay with a log file that has gone");
            }
        }
        *tail = first;
        self.log.forget_filler();
        self.dispatcher.log_restarted(work);
        self.positions.log_restarted(begin);
        syncing.log_truncated(begin, 0);
        self.queues.set_log_begins_at(begin);
        Ok((self.flusher.take_waiters_behind(0), files))
    }
}

fn failed(path: &Path, error: OpenError) -> RestartError {
    RestartError::Io { path: path.to_owned(), source: std::io::Error::other(error) }
}
