//! The store's settings, with Java's defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::PhysicalOffset;

use crate::clock::Clock;
use crate::delay_levels::DelayLevels;
use crate::disk::PAGE;
use crate::disk::{Disk, LocalDisk};
use crate::error::OpenError;
use crate::interrupt::Interrupt;
use crate::mappings;
use crate::queue_file::ENTRY_LEN;
use crate::retention_rules::RetentionRules;
use crate::write_pool::WritePoolConfig;

/// When the log reaches the disk. `flushDiskType`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlushMode {
    /// An acknowledged message survives the end of the process, but with the write pool; the end of the machine takes what was written since
    /// the last flush.
    Async {
        /// `flushIntervalCommitLog`.
        interval: Duration,
        /// A flush waits until so many 4 KiB pages are written, except for the thorough one. `flushCommitLogLeastPages`.
        least_pages: u64,
        /// `flushCommitLogThoroughInterval`.
        thorough_interval: Duration,
    },
    /// `Store::when_safe` tells when a message is on the disk. Nothing is dispatched before it is.
    Sync {
        /// After this long a waiter is told that time ran out. `syncFlushTimeout`.
        timeout: Duration,
    },
}

impl Default for FlushMode {
    fn default() -> FlushMode {
        FlushMode::Async {
            interval: Duration::from_millis(500),
            least_pages: 4,
            thorough_interval: Duration::from_secs(10),
        }
    }
}

#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `storePathRootDir`.
    pub root: PathBuf,
    /// Directories that get the log's segments; none is `<root>/commitlog`. `storePathCommitLog`.
    pub commit_log_dirs: Vec<PathBuf>,
    /// Directories whose segments belong to the log and that get no new ones, whether they are among the others or not.
    /// `readOnlyCommitLogStorePaths`.
    pub read_only_log_dirs: Vec<PathBuf>,
    /// Bytes of a commit log file. `mappedFileSizeCommitLog`.
    pub segment_len: u64,
    /// Entries of a consume queue file; Java's `mappedFileSizeConsumeQueue` / 20, rounded up.
    pub queue_file_entries: u64,
    /// Most queue files mapped at a time; half of what the system allows a process (`vm.max_map_count`).
    pub queue_mappings_max: usize,
    /// At a stop, more queues than this that are not on the disk yet are synced with all of their file system. Below it, what others have
    /// written there is not waited for.
    pub queue_syncs_max: usize,
    /// `messageIndexEnable`.
    pub index_enabled: bool,
    /// `maxHashSlotNum`.
    pub index_slots: u32,
    /// `maxIndexNum`; one less is usable.
    pub index_entries: u32,
    /// `maxMsgsNumBatch`: most messages one query answers with.
    pub query_max: usize,
    pub flush: FlushMode,
    /// `transientStorePoolEnable`: the log's end is in a pool of memory before it is in its file, and lost with the process until then.
    pub write_pool: Option<WritePoolConfig>,
    /// `flushIntervalConsumeQueue`.
    pub queue_flush_interval: Duration,
    /// `flushConsumeQueueLeastPages`.
    pub queue_flush_least_pages: u64,
    /// `flushConsumeQueueThoroughInterval`. Bounds how much log an open after a crash reads again.
    pub queue_flush_thorough_interval: Duration,
    /// Longest body in bytes. `maxMessageSize`.
    pub message_len_max: usize,
    /// What is kept, to begin with.
    pub retention: RetentionRules,
    /// `maxTransferBytesOnMessageInMemory`.
    pub read_bytes_in_memory: usize,
    /// `maxTransferCountOnMessageInMemory`.
    pub read_count_in_memory: usize,
    /// `maxTransferBytesOnMessageInDisk`.
    pub read_bytes_on_disk: usize,
    /// `maxTransferCountOnMessageInDisk`.
    pub read_count_on_disk: usize,
    /// Bytes of queue entries a read looks at when everything is filtered out. `maxFilterMessageSize`.
    pub read_scan_bytes: usize,
    /// Part of the machine's memory that recent log is expected to be in. `accessMessageInMemoryMaxRatio` / 100.
    pub in_memory_ratio: f64,
    /// `messageDelayLevel`.
    pub delay_levels: DelayLevels,
    /// Of a copied or replicated log: an open shows consumers nothing behind this place, whatever it finds in the log, until
    /// [`Store::set_replicated`](crate::Store::set_replicated) says that more is confirmed. `None`: all of the log is shown.
    pub confirmed_at_open: Option<PhysicalOffset>,
    /// An open reads the whole log and makes all queues again out of it, whether or not anything of them is missing.
    pub rebuild_queues: bool,
    pub clock: Clock,
    /// Raised, an open that is under way gives up.
    pub interrupt: Interrupt,
    pub disk: Arc<dyn Disk>,
}

impl StoreConfig {
    /// Java's defaults at this root.
    pub fn at(root: impl Into<PathBuf>) -> StoreConfig {
        StoreConfig { root: root.into(), ..StoreConfig::default() }
    }

    pub(crate) fn commit_log_paths(&self) -> Vec<PathBuf> {
        match &*self.commit_log_dirs {
            [] => vec![self.root.join("commitlog")],
            dirs => dirs.to_vec(),
        }
    }

    pub(crate) fn queues_path(&self) -> PathBuf {
        self.root.join("consumequeue")
    }

    pub(crate) fn queue_file_len(&self) -> u64 {
        self.queue_file_entries * ENTRY_LEN as u64
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |key, reason: &str| Err(OpenError::Config { key, reason: reason.to_owned() });
        if self.segment_len < 1024 || self.segment_len > u64::from(u32::MAX >> 1) {
            return refuse("mappedFileSizeCommitLog", "must be between 1 KiB and 2 GiB");
        }
        if let Some(pool) = &self.write_pool {
            if !self.segment_len.is_multiple_of(PAGE as u64) {
                return refuse(
                    "mappedFileSizeCommitLog",
                    "must be a multiple of 4096 with transientStorePoolEnable=true",
                );
            }
            if pool.buffer_len == 0 || !pool.buffer_len.is_multiple_of(PAGE) {
                return refuse("transientStorePoolSize", "buffers must be whole pages of 4096 bytes");
            }
        }
        if self.queue_file_entries == 0 || self.queue_file_len() > u64::from(u32::MAX >> 1) {
            return refuse("mappedFileSizeConsumeQueue", "must be between 20 bytes and 2 GiB");
        }
        if self.index_slots == 0 || self.index_entries < 2 {
            return refuse("maxIndexNum", "an index needs a slot and two entries");
        }
        if i32::try_from(self.index_slots).is_err() || i32::try_from(self.index_entries).is_err() {
            return refuse("maxIndexNum", "slots and entries are counted in 31 bits");
        }
        Ok(())
    }
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            root: std::env::var_os("HOME")
                .map_or_else(|| PathBuf::from("store"), |home| PathBuf::from(home).join("store")),
            commit_log_dirs: Vec::new(),
            read_only_log_dirs: Vec::new(),
            segment_len: 1 << 30,
            queue_file_entries: 300_000,
            queue_mappings_max: mappings::share_of_system(),
            queue_syncs_max: 300,
            index_enabled: true,
            index_slots: 5_000_000,
            index_entries: 20_000_000,
            query_max: 64,
            flush: FlushMode::default(),
            write_pool: None,
            queue_flush_interval: Duration::from_secs(1),
            queue_flush_least_pages: 2,
            queue_flush_thorough_interval: Duration::from_secs(60),
            message_len_max: 4 * 1024 * 1024,
            retention: RetentionRules::default(),
            read_bytes_in_memory: 256 * 1024,
            read_count_in_memory: 32,
            read_bytes_on_disk: 64 * 1024,
            read_count_on_disk: 8,
            read_scan_bytes: 16_000,
            in_memory_ratio: 0.40,
            delay_levels: DelayLevels::default(),
            confirmed_at_open: None,
            rebuild_queues: false,
            clock: Clock::system(),
            interrupt: Interrupt::default(),
            disk: Arc::new(LocalDisk),
        }
    }
}
