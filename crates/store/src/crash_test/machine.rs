//! Where a store is: its disk, its clock and its settings. A [`Moment`] is what there is of all that when the world stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::history::History;
use crate::abort::{AbortFile, DISTRUST};
use crate::check::CheckConfig;
use crate::disk::{Disk, PAGE};
use crate::scripted_disk::{Bug, Image, ScriptedDisk};
use crate::testing::{PATIENCE, pool_of, rules_by_hand};
use crate::{Clock, FlushMode, StoreConfig, WritePoolConfig};

/// Of the write pool, as long as a page.
const BUFFERS: usize = 64;
pub const SEGMENT_LEN: u64 = 8192;
pub const INDEX_SLOTS: u32 = 31;
const INDEX_ENTRIES: u32 = 64;

/// How a workload is run.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub sync: bool,
    /// With the write pool.
    pub pool: bool,
    pub bug: Option<Bug>,
}

/// Where a store is.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub now: Arc<AtomicI64>,
    pub disk: Arc<ScriptedDisk>,
    pub mode: Mode,
}

impl Place {
    pub fn new(mode: Mode, now_ms: i64, power_losses: usize) -> Place {
        let disk = Arc::new(ScriptedDisk::new(mode.bug, power_losses));
        Place { dir: tempfile::tempdir_in(dir_in_memory()).unwrap(), now: Arc::new(AtomicI64::new(now_ms)), disk, mode }
    }

    /// All that is on the disk.
    pub fn disk_root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn root(&self) -> PathBuf {
        self.disk_root().join("store")
    }

    pub fn timers(&self) -> PathBuf {
        self.root().join("timers")
    }

    /// Whether the next start will know that a sync has failed.
    pub fn says_distrust(&self) -> bool {
        let abort = AbortFile::at(Arc::clone(&self.disk) as Arc<dyn Disk>, self.root().join("abort"));
        abort.boot().as_deref() == Some(DISTRUST)
    }

    pub fn check_config(root: PathBuf) -> CheckConfig {
        CheckConfig { index_shape: Some((INDEX_SLOTS, INDEX_ENTRIES)), ..CheckConfig::at(root) }
    }

    /// Nothing gets to the disk by itself: steps decide.
    pub fn config(&self) -> StoreConfig {
        let never = Duration::from_secs(3600);
        let flush = if self.mode.sync {
            FlushMode::Sync { timeout: PATIENCE }
        } else {
            FlushMode::Async { interval: never, least_pages: 0, thorough_interval: never }
        };
        let now = Arc::clone(&self.now);
        StoreConfig {
            segment_len: SEGMENT_LEN,
            queue_file_entries: 16,
            queue_syncs_max: 1,
            index_slots: INDEX_SLOTS,
            index_entries: INDEX_ENTRIES,
            message_len_max: 4096,
            flush,
            write_pool: self.mode.pool.then(|| WritePoolConfig {
                commit_interval: never,
                commit_thorough_interval: never,
                ..pool_of(BUFFERS, PAGE)
            }),
            queue_flush_interval: never,
            queue_flush_thorough_interval: never,
            retention: rules_by_hand(),
            clock: Clock::from_fn(move || now.load(Ordering::SeqCst)),
            disk: Arc::clone(&self.disk) as Arc<dyn Disk>,
            ..StoreConfig::at(self.root())
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    /// The value; nothing if the disk has failed as it was told to, which must be the reason then.
    pub fn may_fail<T, E: std::fmt::Debug>(&self, done: Result<T, E>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(error) => {
                assert!(self.disk.has_failed(), "without any failure of the disk: {error:?}");
                None
            }
        }
    }
}

/// The moment at which the world stopped.
#[derive(Clone)]
pub struct Moment {
    pub call: String,
    pub image: Image,
    pub history: History,
    pub now_ms: i64,
    pub power_losses: usize,
    /// A call had failed.
    pub has_failed: bool,
}

/// Files that many stores are made of one after the other need no device.
pub fn dir_in_memory() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}
