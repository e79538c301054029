//! Once a second: queue and index entries to the disk, the checkpoint, room ahead in the index.
//!
//! Java: FlushConsumeQueueService, the checkpoint's schedule.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::checkpoint::Checkpoint;
use crate::consume_queue::ConsumeQueue;
use crate::disk::{Disk, is_failed_sync};
use crate::dispatch::Dispatcher;
use crate::files;
use crate::flush::Flusher;
use crate::graves::Graves;
use crate::health::Health;
use crate::inventory::Inventory;
use crate::projection::Projection;
use crate::segments::Segments;
use crate::signal::Signal;
use crate::watermarks::Positions;

#[derive(Debug)]
pub struct Maintenance {
    pub projection: Arc<Projection>,
    pub dispatcher: Arc<Dispatcher>,
    pub positions: Arc<Positions>,
    pub checkpoint: Arc<Checkpoint>,
    pub inventory: Arc<Inventory>,
    pub segments: Arc<Segments>,
    pub flusher: Arc<Flusher>,
    pub health: Arc<Health>,
    pub disk: Arc<dyn Disk>,
    pub interval: Duration,
    pub least_pages: u64,
    pub thorough_interval: Duration,
    /// One at a time writes out: what one has taken from the list is not on the disk yet when another finds nothing left.
    pub writing_out: Mutex<()>,
    pub graves: Graves,
    pub signal: Signal,
    /// Everything is to be written out soon.
    pub hurried: AtomicBool,
    pub stop: AtomicBool,
}

impl Maintenance {
    /// The thread.
    pub fn run(&self) {
        self.signal.attach();
        let mut last_thorough = Instant::now();
        // Only the first failure in a row goes into the trace log.
        let mut failing = false;
        loop {
            // Before the first round too: what an open has put again can wait as long as what comes next.
            let is_called = || self.stop.load(Ordering::Acquire) || self.hurried.load(Ordering::Acquire);
            self.signal.sleep_unless(Some(self.interval), is_called);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let hurried = self.hurried.swap(false, Ordering::AcqRel);
            if !self.health.is_poisoned() {
                let thorough = hurried || last_thorough.elapsed() >= self.thorough_interval;
                let done = if thorough { self.flush_all() } else { self.flush_some() };
                match done.and_then(|()| self.checkpoint.save(&*self.disk)) {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!("queues, index and checkpoint are synced again");
                        }
                        if thorough {
                            last_thorough = Instant::now();
                        }
                    }
                    Err(error) if is_failed_sync(&error) => {
                        self.health.poison(format!("queues, index or checkpoint could not be synced: {error}"));
                    }
                    // No descriptor, say: what was not synced is still known to be so.
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "queues, index or checkpoint cannot be synced; trying again");
                        }
                    }
                }
            }
            if let Some(index) = &self.projection.index {
                index.prepare(&*self.disk);
            }
        }
    }

    fn flush_some(&self) -> io::Result<()> {
        let _one = self.writing_out.lock();
        let dirty = self.dispatcher.held(|| self.projection.queues.take_dirty());
        self.projection.queues.write_out(&*self.disk, self.least_pages, dirty, &self.hurried_by_stop())
    }

    /// Writes out everything that is dispatched, and notes so in the checkpoint (not yet saved).
    pub fn flush_all(&self) -> io::Result<()> {
        self.flush_and_list().map(drop)
    }

    /// [`Maintenance::flush_all`], and the queues that are in the inventory then, in its order.
    pub fn flush_and_list(&self) -> io::Result<Vec<Arc<ConsumeQueue>>> {
        let _one = self.writing_out.lock();
        // First: what is dispatched from here on may or may not be included. All at one moment: what the list says of queues and index
        // must not be ahead of where an open goes on.
        let (timestamp, dispatched, extents, dirty) = self.dispatcher.held(|| {
            let extents = self.projection.index.as_ref().map(|index| index.extents());
            let dirty = self.projection.queues.take_dirty();
            (self.positions.projected_timestamp(), self.positions.projected(), extents, dirty)
        });
        // An open after a crash goes on from here, and so must find the log before it.
        let flushed = if self.positions.flushed() < dispatched { self.flusher.flush() } else { Ok(()) };
        if let Err(error) = flushed.and_then(|()| self.finish_deletions()) {
            dirty.iter().for_each(|queue| self.projection.queues.mark_dirty(queue));
            return Err(error);
        }
        self.projection.queues.write_out(&*self.disk, 0, dirty, &self.hurried_by_stop())?;
        if let Some(index) = &self.projection.index {
            index.sync(&*self.disk)?;
        }
        // What the checkpoint says is there is listed before.
        let listed = self.inventory.save(&self.projection, &self.segments, &self.checkpoint, dispatched, extents)?;
        self.checkpoint.queues_are_durable(dispatched, Some(timestamp));
        if self.projection.index.is_some() {
            self.checkpoint.index_is_durable(dispatched, Some(timestamp));
        }
        Ok(listed)
    }

    /// Who stops the store waits for what is being written out.
    fn hurried_by_stop(&self) -> impl Fn() -> bool {
        || self.stop.load(Ordering::Acquire)
    }

    /// Sees to deletions that are in the log and could not be finished: the checkpoint must not pass them before. While nobody
    /// writes out.
    pub fn finish_deletions(&self) -> io::Result<()> {
        if self.graves.are_empty() {
            return Ok(());
        }
        self.flusher.flush()?;
        self.graves.forget(&*self.disk)?.iter().try_for_each(|dir| files::remove_dir(&*self.disk, dir))
    }

    /// Has everything written out soon: a start after a crash would miss what is gone from the store and listed yet.
    pub fn hurry(&self) {
        self.hurried.store(true, Ordering::Release);
        self.signal.wake_now();
    }

    /// Tells the thread to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.signal.wake_now();
    }
}
