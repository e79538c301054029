//! The store as a whole: builds its parts, starts their threads, and is what the broker talks to.

mod copying;
mod deletion;
mod feeding;
mod next_offsets;
mod reading;
mod restarting;
mod retaining;
mod round;
mod truncation;
mod writing;

pub use round::Round;
pub use writing::Want;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::abort::{self, AbortFile, Crash};
use crate::allocator::Allocator;
use crate::checkpoint::Checkpoint;
use crate::commit::Committer;
use crate::commit_log::CommitLog;
use crate::config::{FlushMode, StoreConfig};
use crate::disk::is_failed_sync;
use crate::dispatch::Dispatcher;
use crate::error::{CloseError, OpenError};
use crate::files;
use crate::flush::Flusher;
use crate::graves::{GRAVES, Graves};
use crate::growth::Growth;
use crate::health::Health;
use crate::index::{self, Index};
use crate::index_file::IndexShape;
use crate::inventory::{Inventory, Listing, StoreId};
use crate::keepers::Keepers;
use crate::lock::{DirectoryLock, SideLock};
use crate::log_dirs::LogDirs;
use crate::maintenance::Maintenance;
use crate::mapped_file::LogFile;
use crate::projection::Projection;
use crate::queues::Queues;
use crate::read::Reader;
use crate::recovery::{self, Opening};
use crate::restart::{self, RestartOrder};
use crate::retention::Retention;
use crate::segments::Segments;
use crate::signal::Signal;
use crate::stamps::{self, Stamped};
use crate::stats::Counters;
use crate::watermarks::Positions;
use crate::write_pool::WritePool;

/// Who waits for the dispatch gives up when it has not come on for so long. Java: ReputMessageService.shutdown, which waits no longer even where it does: then the
/// next start reads the log again, and looks at every queue.
const DISPATCH_PATIENCE: Duration = Duration::from_secs(5);

/// The broker's storage. All methods may be called from any thread at any time; none blocks longer than the disk
/// does, and [`Store::append`] not even that, except when a segment is not ready in time.
///
/// Dropped without [`Store::close`] it stops as if the process had been killed: the next open checks everything.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    /// Starts as the configuration says and may be changed.
    message_len_max: AtomicUsize,
    log_dirs: Arc<LogDirs>,
    log: CommitLog,
    segments: Arc<Segments>,
    queues: Arc<Queues>,
    index: Option<Arc<Index>>,
    positions: Arc<Positions>,
    allocator: Arc<Allocator>,
    committer: Option<Arc<Committer>>,
    flusher: Arc<Flusher>,
    dispatcher: Arc<Dispatcher>,
    dispatch_signal: Arc<Signal>,
    growth: Arc<Growth>,
    maintenance: Arc<Maintenance>,
    retention: Arc<Retention>,
    checkpoint: Arc<Checkpoint>,
    health: Arc<Health>,
    abort: AbortFile,
    counters: Arc<Counters>,
    reader: Reader,
    /// Held by whoever makes the log shorter.
    truncating: Mutex<()>,
    /// Held by whoever changes who may write.
    changing_writer: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Given up last.
    lock: Mutex<Option<(Vec<SideLock>, DirectoryLock)>>,
}

impl Store {
    /// Locks the directory, recovers what is in it and starts the threads. Java: DefaultMessageStore.load and start.
    pub fn open(config: StoreConfig) -> Result<Store, OpenError> {
        config.check()?;
        let disk = Arc::clone(&config.disk);
        let log_dirs = Arc::new(LogDirs::of(&config)?);
        let make_dir = |dir: &Path| {
            if dir.exists() && !dir.is_dir() {
                return Err(OpenError::WrongKind { path: dir.to_owned(), expected: "directory" });
            }
            files::make_dir(&*disk, dir).map_err(|source| OpenError::NotWritable { path: dir.to_owned(), source })
        };
        make_dir(&config.root)?;
        // A process before this one may have made them, and ended before their names were on the disk.
        for dir in log_dirs.writable().iter().filter(|dir| dir.is_dir()).chain([&config.root]) {
            files::sync_name(&*disk, dir).map_err(OpenError::io("sync the directory of", dir))?;
        }
        let lock = DirectoryLock::take(&config.root)?;
        let mut side_locks = log_dirs.lock_present()?;
        let abort = AbortFile::at(Arc::clone(&disk), config.root.join("abort"));
        let found = RestartOrder::read(&*disk, &config.root);
        if let Some(order) = found.map_err(OpenError::io("read", &restart::path_in(&config.root)))? {
            order.finish(&config, &log_dirs)?;
        }
        let checkpoint = config.root.join("checkpoint");
        let set_aside =
            |path: &Path, why| files::set_aside(&*disk, &config.root, path, why).map_err(OpenError::io("open", path));
        if checkpoint.is_dir() {
            set_aside(&checkpoint, "a directory in place of the checkpoint")?;
        }
        let checkpoint = Arc::new(Checkpoint::open(checkpoint)?);
        let inventory = Arc::new(Inventory::open(&*disk, &config.root, &checkpoint)?);
        // Before anything is changed: what is wrong with the log stops the open.
        let segments = Arc::new(log_dirs.open_segments(&checkpoint, &inventory)?);
        inventory.check_segments(&*disk, &segments, &checkpoint)?;

        let index_dir = config.index_enabled.then(|| index::dir_of(&config.root));
        for dir in [Some(config.queues_path()), index_dir].into_iter().flatten() {
            if dir.exists() && !dir.is_dir() {
                set_aside(&dir, "no directory")?;
            }
            make_dir(&dir)?;
            side_locks.extend(SideLock::take(&dir)?);
        }
        let clean = !abort.path().exists();
        if !clean {
            tracing::info!(root = %config.root.display(), "the store was not closed in order; it is checked before it opens");
        }

        let graves = config.queues_path().join(GRAVES);
        if graves.exists() && !graves.is_dir() {
            set_aside(&graves, "no directory")?;
        }
        if abort.path().is_dir() {
            set_aside(abort.path(), "a directory in place of a file")?;
        }
        let graves = Graves::open(&*disk, config.queues_path(), clean)?;
        let recover_failed = |source| {
            if config.interrupt.is_raised() {
                OpenError::Interrupted
            } else {
                OpenError::io("recover", &config.root)(source)
            }
        };
        let goes_on = clean && recovery::goes_on_behind(&segments, &*disk, &checkpoint).map_err(recover_failed)?;
        // Whatever is to be made again or looked at is opened.
        let stamped = (clean && !goes_on && !config.rebuild_queues)
            .then(|| Stamped::read(&*disk, &config.root, &inventory, config.queue_file_entries))
            .flatten();
        let queues = Arc::new(Queues::open(&config, stamped.as_ref())?);
        drop(stamped);
        let queues_end = queues.all().iter().map(|queue| queue.end_physical()).max().unwrap_or(0);
        log_dirs.check_reached(&segments, queues_end, &checkpoint, clean)?;
        // Not before it is known that nothing is missing: this may be where a disk belongs.
        side_locks.extend(log_dirs.make_missing()?);
        let log_min = segments.first().map_or(0, |first| first.start());
        let vouched = checkpoint.found().map_or(u64::MAX, |found| found.index);
        let index = open_index(&config, inventory.found(), log_min..vouched)?;
        let projection = Arc::new(Projection {
            queues: Arc::clone(&queues),
            index: index.clone(),
            delay_levels: config.delay_levels.clone(),
            disk: Arc::clone(&disk),
        });
        let boot = disk.boot_id();
        // What an open that does not come to its end leaves to the next one.
        let (crash, found_boot) = if !clean {
            let found_boot = abort.boot();
            (abort::crash(found_boot.as_deref(), boot.as_deref()), found_boot)
        } else if goes_on {
            (Crash::PowerCut, Some(abort::DISTRUST.to_owned()))
        } else {
            (Crash::None, boot.clone())
        };
        let write_abort = |boot: &Option<String>| {
            abort
                .write(boot.as_deref())
                .and_then(|()| disk.sync_dir(&config.root))
                .map_err(OpenError::io("write", abort.path()))
        };
        let stamps = stamps::path_in(&config.root);
        if stamps.is_dir() {
            set_aside(&stamps, "a directory in place of a file")?;
        }
        // They hold for no other start than this one.
        files::remove_file(&*disk, &stamps).map_err(OpenError::io("remove", &stamps))?;
        // Before anything is put: an open that does not come to its end is a crash to the next one.
        write_abort(&found_boot)?;
        if crash != Crash::None {
            // Names that a process before this one did not get to make durable: what comes into those files counts on them. Those of
            // queues are synced with their entries.
            let index_dir = config.index_enabled.then(|| index::dir_of(&config.root));
            for dir in log_dirs.writable().iter().chain(&index_dir) {
                disk.sync_dir(dir).map_err(OpenError::io("sync", dir))?;
            }
        }
        if crash != Crash::None {
            // As it was read, it may be in memory only.
            checkpoint.write_again();
        }
        let confirmed = config.confirmed_at_open.map(|confirmed| confirmed.0);
        let opening = Opening { crash, confirmed, rebuild: config.rebuild_queues, interrupt: &config.interrupt };
        let recovered = recovery::recover(&segments, &projection, &checkpoint, &inventory, &opening)
            .inspect_err(|error| {
                if is_failed_sync(error)
                    && let Err(error) = abort.distrust()
                {
                    tracing::error!(%error, "abort cannot be written: a next start on this boot takes what was not synced for written");
                }
            })
            .map_err(recover_failed)?;
        if found_boot != boot {
            // Not before what the power's going has left is cut off.
            write_abort(&boot)?;
        }

        let sync_flush = matches!(config.flush, FlushMode::Sync { .. });
        let pool = config.write_pool.as_ref().map(WritePool::new).transpose();
        let pool = pool.map_err(OpenError::io("take memory for the write pool of", &config.root))?;
        let positions = Positions::new(recovered.end, sync_flush, pool.is_some(), recovered.last_timestamp);
        positions.dispatched.store(recovered.shown, Ordering::Release);
        positions.dispatched_timestamp.store(recovered.shown_timestamp, Ordering::Release);
        if let Some(confirmed) = confirmed {
            // What comes in the place of what was lost is not confirmed by that.
            positions.set_replicated(confirmed.min(recovered.end));
        }
        let positions = Arc::new(positions);
        let health = Arc::new(Health::new(abort.clone()));
        let counters = Arc::new(Counters::default());
        let dispatch_signal = Arc::new(Signal::default());
        let growth = Arc::new(Growth::default());
        let committer = pool.map(|pool| {
            let (segments, positions, health) = (Arc::clone(&segments), Arc::clone(&positions), Arc::clone(&health));
            let dispatch = Arc::clone(&dispatch_signal);
            let growth = Arc::clone(&growth);
            Arc::new(Committer::new(pool, segments, positions, Arc::clone(&disk), health, dispatch, growth))
        });
        let allocator = Arc::new(Allocator::new(
            Arc::clone(&log_dirs),
            config.segment_len,
            Arc::clone(&segments),
            Arc::clone(&positions),
            sync_flush,
            committer.clone(),
        ));
        let tail = tail_segment(&segments, &allocator, recovered.end).map_err(|source| OpenError::Io {
            doing: "make a commit log file in",
            path: log_dirs.first().to_owned(),
            source,
        })?;
        checkpoint.log_begins_at(segments.first().map_or(0, |first| first.start()));

        let pool_len = committer.as_ref().map_or(u64::MAX, |committer| committer.pool.append_len_max() as u64);
        let append_len_max = config.segment_len.min(pool_len);
        let log = CommitLog::new(
            tail,
            Arc::clone(&segments),
            append_len_max,
            Arc::clone(&allocator),
            Arc::clone(&positions),
            Arc::clone(&health),
            Arc::clone(&counters),
            config.clock.clone(),
        );
        let flusher = Arc::new(Flusher::new(
            &config,
            Arc::clone(&segments),
            Arc::clone(&positions),
            committer.clone(),
            Arc::clone(&checkpoint),
            Arc::clone(&health),
            Arc::clone(&dispatch_signal),
            Arc::clone(&growth),
        ));
        let dispatcher = Arc::new(Dispatcher::new(
            Arc::clone(&projection),
            Arc::clone(&segments),
            Arc::clone(&positions),
            Arc::clone(&health),
            Arc::clone(&dispatch_signal),
        ));
        let maintenance = Arc::new(Maintenance {
            projection: Arc::clone(&projection),
            dispatcher: Arc::clone(&dispatcher),
            positions: Arc::clone(&positions),
            checkpoint: Arc::clone(&checkpoint),
            inventory,
            segments: Arc::clone(&segments),
            flusher: Arc::clone(&flusher),
            health: Arc::clone(&health),
            disk: Arc::clone(&disk),
            interval: config.queue_flush_interval,
            least_pages: config.queue_flush_least_pages,
            thorough_interval: config.queue_flush_thorough_interval,
            writing_out: Mutex::default(),
            graves,
            signal: Signal::default(),
            hurried: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let retention = Arc::new(Retention {
            rules: RwLock::new(config.retention.clone()),
            segments: Arc::clone(&segments),
            projection: Arc::clone(&projection),
            positions: Arc::clone(&positions),
            checkpoint: Arc::clone(&checkpoint),
            maintenance: Arc::clone(&maintenance),
            keepers: Keepers::default(),
            restarts: Mutex::default(),
            health: Arc::clone(&health),
            disk: Arc::clone(&disk),
            clock: config.clock.clone(),
            log_dirs: Arc::clone(&log_dirs),
            root: config.root.clone(),
            begun: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            usage_unknown: AtomicBool::new(false),
            by_hand: AtomicU32::new(0),
            signal: Signal::default(),
            stop: AtomicBool::new(false),
        });
        let reader = Reader::new(
            &config,
            Arc::clone(&projection),
            Arc::clone(&segments),
            Arc::clone(&positions),
            Arc::clone(&counters),
            recovered.end,
        );
        let store = Store {
            message_len_max: AtomicUsize::new(config.message_len_max),
            config,
            log_dirs,
            log,
            segments,
            queues,
            index,
            positions,
            allocator,
            committer,
            flusher,
            dispatcher,
            dispatch_signal,
            growth,
            maintenance,
            retention,
            checkpoint,
            health,
            abort,
            counters,
            reader,
            truncating: Mutex::default(),
            changing_writer: Mutex::default(),
            threads: Mutex::default(),
            lock: Mutex::new(Some((side_locks, lock))),
        };
        store.start_threads()?;
        Ok(store)
    }

    /// By what files beside the log know that they are of this store.
    pub fn id(&self) -> StoreId {
        self.maintenance.inventory.id()
    }

    fn start_threads(&self) -> Result<(), OpenError> {
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::Thread)?;
            self.threads.lock().push(thread);
            Ok(())
        };
        let allocator = Arc::clone(&self.allocator);
        start("store-allocator", Box::new(move || allocator.run()))?;
        let maker = Arc::clone(&self.allocator);
        start("store-segments", Box::new(move || maker.run_maker()))?;
        if let Some(committer) = self.committer.clone() {
            start("store-commit", Box::new(move || committer.run()))?;
        }
        let flusher = Arc::clone(&self.flusher);
        start("store-flush", Box::new(move || flusher.run()))?;
        let flusher = Arc::clone(&self.flusher);
        start("store-lateness", Box::new(move || flusher.run_lateness()))?;
        let dispatcher = Arc::clone(&self.dispatcher);
        start("store-dispatch", Box::new(move || dispatcher.run()))?;
        let maintenance = Arc::clone(&self.maintenance);
        start("store-upkeep", Box::new(move || maintenance.run()))?;
        let retention = Arc::clone(&self.retention);
        start("store-retention", Box::new(move || retention.run()))
    }

    /// Stops taking writes, lets the dispatch catch up, puts everything on the disk and removes `abort`. The second
    /// call does nothing. On an error the store is closed too, but `abort` stays.
    pub fn close(&self) -> Result<(), CloseError> {
        if !self.health.close() {
            return Ok(());
        }
        // Whoever is in the middle of an append finishes it.
        drop(self.log.hold());
        let flushed = if self.health.is_poisoned() { Ok(()) } else { self.flusher.flush() };
        self.await_dispatch(|| self.dispatcher.behind());
        self.stop_threads();
        let result = self.finish(flushed);
        // What cannot be flushed any more is told so.
        self.flusher.abandon();
        self.lock.lock().take();
        result
    }

    /// Waits until the dispatch is no more behind, for as long as it comes on. How far it is behind then, 0 or not.
    fn await_dispatch(&self, now_behind: impl Fn() -> u64) -> u64 {
        let (mut behind, mut give_up) = (u64::MAX, Instant::now());
        loop {
            let now_behind = now_behind();
            if now_behind < behind {
                (behind, give_up) = (now_behind, Instant::now() + DISPATCH_PATIENCE);
            }
            if behind == 0 || self.health.is_poisoned() || Instant::now() >= give_up {
                return behind;
            }
            self.dispatch_signal.wake();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn finish(&self, flushed: io::Result<()>) -> Result<(), CloseError> {
        if let Some(reason) = self.health.poison_reason() {
            return Err(CloseError::Poisoned(reason));
        }
        let disk = &*self.config.disk;
        let sync = |path: &Path| {
            let path = path.to_owned();
            move |source| CloseError::Sync { path, source }
        };
        let remove = |path: &Path| {
            let path = path.to_owned();
            move |source| CloseError::Io { path, source }
        };
        // What it did not get to the disk the next start must not take for written.
        let distrust = |error: io::Error| {
            if is_failed_sync(&error) {
                self.health.poison(format!("a sync of the stop has failed: {error}"));
            }
            error
        };
        let log_dir = self.log_dirs.first();
        flushed.map_err(distrust).map_err(sync(log_dir))?;
        let listed = self.maintenance.flush_and_list().map_err(distrust).map_err(sync(&self.config.root))?;
        self.checkpoint.save(disk).map_err(distrust).map_err(sync(self.checkpoint.path()))?;
        self.allocator.discard().map_err(remove(log_dir))?;
        if let Some(index) = &self.index {
            index.discard(disk).map_err(remove(&index::dir_of(&self.config.root)))?;
        }
        let behind = self.dispatcher.behind();
        if behind > 0 {
            return Err(CloseError::DispatchBehind { behind });
        }
        if self.positions.written() > self.positions.projected() {
            // What is not confirmed is in no queue, and the next open has to find it: it looks where the checkpoint says.
            return Ok(());
        }
        let (root, inventory) = (&self.config.root, &self.maintenance.inventory);
        let (queues_dir, entries) = (self.queues.dir(), self.config.queue_file_entries);
        if let Err(error) = stamps::save(disk, root, queues_dir, inventory, listed, entries) {
            tracing::warn!(%error, root = %root.display(), "the stamps of queue files cannot be written; the next start opens all of these files");
        }
        self.abort.remove().map_err(remove(self.abort.path()))?;
        disk.sync_dir(&self.config.root).map_err(sync(&self.config.root))
    }

    fn stop_threads(&self) {
        self.dispatcher.stop();
        self.allocator.stop();
        if let Some(committer) = &self.committer {
            committer.stop();
        }
        self.flusher.stop();
        self.maintenance.stop();
        self.retention.stop();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                // Its panic message is on stderr.
                self.health.poison("a thread of the store has panicked".to_owned());
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.health.close();
        self.stop_threads();
        self.flusher.abandon();
    }
}

fn open_index(config: &StoreConfig, listing: &Listing, needed: Range<u64>) -> Result<Option<Arc<Index>>, OpenError> {
    if !config.index_enabled {
        return Ok(None);
    }
    let shape = IndexShape { slots: config.index_slots, entries: config.index_entries };
    let (dir, clock) = (index::dir_of(&config.root), config.clock.clone());
    Index::open(dir, shape, clock, listing.index.as_deref(), needed).map(|index| Some(Arc::new(index)))
}

/// The segment that `end` is in or begins, made if it is not there.
fn tail_segment(segments: &Segments, allocator: &Allocator, end: u64) -> io::Result<Arc<LogFile>> {
    if let Some(last) = segments.last().filter(|last| end < last.end()) {
        return Ok(last);
    }
    let file = Arc::new(allocator.begin(end)?);
    segments.push(Arc::clone(&file));
    Ok(file)
}

#[cfg(test)]
#[path = "behind_test.rs"]
mod catching_up;
#[cfg(test)]
#[path = "copy_test.rs"]
mod copies;
#[cfg(test)]
#[path = "crash_test/mod.rs"]
mod crashes;
#[cfg(test)]
#[path = "damage_test.rs"]
mod damage;
#[cfg(test)]
#[path = "damaged_starts_test.rs"]
mod damaged_starts;
#[cfg(test)]
#[path = "deletion_test.rs"]
mod deletions;
#[cfg(test)]
#[path = "log_dirs_test.rs"]
mod directories;
#[cfg(test)]
#[path = "flush_test.rs"]
mod flushing;
#[cfg(test)]
#[path = "loss_test.rs"]
mod losses;
#[cfg(test)]
#[path = "many_segments_test.rs"]
mod many_segments;
#[cfg(test)]
#[path = "model_test.rs"]
mod model;
#[cfg(test)]
#[path = "open_test.rs"]
mod opening;
#[cfg(test)]
#[path = "write_pool_test.rs"]
mod pooled;
#[cfg(test)]
#[path = "reading_test.rs"]
mod reading_tests;
#[cfg(test)]
#[path = "repair_test.rs"]
mod repairs;
#[cfg(test)]
#[path = "replication_test.rs"]
mod replication;
#[cfg(test)]
#[path = "restart_test.rs"]
mod restarts;
#[cfg(test)]
#[path = "retention_test.rs"]
mod retention_tests;
#[cfg(test)]
#[path = "stamps_test.rs"]
mod stamping;
#[cfg(test)]
#[path = "store_test.rs"]
mod tests;
#[cfg(test)]
#[path = "truncation_test.rs"]
mod truncations;
