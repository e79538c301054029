//! The broker's storage: commit log, consume queues, index files, flush and recovery.
//!
//! Synchronous, with its own threads; no sockets, no async. The commit log is the truth, everything else is a
//! projection that recovery can rebuild. Files are byte-compatible with the Java broker's, in both directions
//! (docs/format.md).
//!
//! How a message travels here: [`Store::append`] encodes outside the lock, stamps and copies under it
//! (`commit_log`), `dispatch` follows the commit log and writes queue entries (`consume_queue`) and index entries (`index`),
//! `flush` makes a prefix durable, [`Store::read`] goes from queue entries to slices of the mapped log.
//!
//! `unsafe` lives in `mapped_file`, `word_file` and `mapping` alone.
#![warn(clippy::little_endian_bytes, clippy::host_endian_bytes)]

mod abort;
mod allocator;
mod append;
mod behind;
mod big_endian;
pub mod check;
mod checkpoint;
mod clock;
mod collection;
mod commit;
mod commit_log;
mod config;
mod consume_queue;
mod copy;
mod delay_levels;
mod disk;
mod dispatch;
mod entry_properties;
mod error;
mod files;
mod flush;
mod graves;
mod growth;
mod health;
mod index;
mod index_file;
mod interrupt;
mod inventory;
mod keepers;
mod lock;
mod log_dirs;
mod looking;
mod maintenance;
mod mapped_file;
mod mapping;
mod mappings;
mod mending;
mod message_filter;
mod projection;
mod queue_file;
mod queues;
mod read;
mod read_status;
mod recovery;
mod recovery_scan;
mod restart;
mod retention;
mod retention_rules;
mod scrub;
mod segments;
mod several;
mod signal;
mod staged;
mod stamps;
mod stats;
mod store;
mod table_change;
mod timer_checkpoint;
mod timer_index;
mod timer_minutes;
mod torn_text;
mod waiters;
mod walk;
mod watermarks;
mod word_file;
mod write_pool;

pub use append::{AppendedBatch, AppendedMessage};
pub use checkpoint::{CheckpointFile, DurableUpTo, LogBegin, Places};
pub use clock::Clock;
pub use config::{FlushMode, StoreConfig};
pub use delay_levels::{DelayLevels, DelayLevelsError};
pub use disk::{Disk, DiskUsage, FileState, LocalDisk, MappedRange};
pub use dispatch::Arrival;
pub use error::{AppendError, CloseError, CopyError, CopyFault, OpenError, RestartError, TruncateError};
pub use growth::GrowthListener;
pub use health::Writer;
pub use index::QueryOutcome;
pub use interrupt::{Interrupt, RaiseOnDrop};
pub use inventory::StoreId;
pub use keepers::Keeper;
pub use log_dirs::check_log_dirs;
pub use looking::{Effort, ReadError};
pub use message_filter::{AllMessages, MessageFilter};
pub use queue_file::{ENTRY_LEN as QUEUE_ENTRY_LEN, QueueEntry};
pub use read::{Boundary, QueueBounds, ReadLimits, ReadOutcome};
pub use read_status::ReadStatus;
pub use retention_rules::{Hours, RetentionRules};
pub use scrub::Scrub;
pub use stats::{PUT_LATENCY_BUCKETS, StoreStats};
pub use store::{Round, Store, Want};
pub use timer_checkpoint::TimerCheckpoint;
pub use timer_index::{TimerIndex, TimerSave, TimerSaveError};
pub use timer_minutes::Timer;
pub use waiters::NotSafe;
pub use watermarks::Watermarks;
pub use write_pool::WritePoolConfig;

#[cfg(test)]
mod scripted_disk;
#[cfg(test)]
mod testing;
