//! How far the log is written, on the disk, visible to consumers, and dispatched: [`Positions`] are shared and move, [`Watermarks`] are a
//! look at them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ferromq_protocol::PhysicalOffset;

/// A look at the log's positions. `flushed`, `visible` and `projected` never exceed `written`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// First byte that is there.
    pub min: PhysicalOffset,
    /// End of the last record. Java: max offset.
    pub written: PhysicalOffset,
    /// Everything before it is in the log's files, whether on the disk or not: `written`, but with the write pool.
    pub committed: PhysicalOffset,
    /// Everything before it is on the disk.
    pub flushed: PhysicalOffset,
    /// Consumers may see what comes before it: in sync mode what is flushed, else what is committed; of that, where replication
    /// says how far it is, what is replicated.
    pub visible: PhysicalOffset,
    /// Everything before it is in the consume queues and the index.
    pub projected: PhysicalOffset,
}

/// Replication has said nothing; nothing missing.
const NONE: u64 = u64::MAX;

/// The shared positions. Each is written under a lock: `written` under the log's, `flushed` under
/// that of syncing, `dispatched` under that of dispatching. All only grow while the store is open, except in a truncation, which holds all three;
/// `replicated` is wherever replication says, and without that it limits nothing.
#[derive(Debug)]
pub struct Positions {
    pub written: AtomicU64,
    /// Store time of the last record below `written`; stored after it, so whoever reads the time first may rely on
    /// the record being below the `written` read afterwards.
    pub written_timestamp: AtomicI64,
    pub flushed: AtomicU64,
    /// End of the last record that looks torn though it is not, by the zeros that a client sent; written under the log's lock. After a
    /// power cut only the checkpoint can say that it is whole: it is saved before `flushed` reaches this.
    pub looks_torn: AtomicU64,
    /// Under the lock of committing. With the write pool only.
    committed: Option<AtomicU64>,
    /// Records before it were dispatched; but for what is behind, see [`Positions::projected`].
    pub dispatched: AtomicU64,
    pub dispatched_timestamp: AtomicI64,
    /// The first record that a queue, or the index, that is behind lacks.
    missing: AtomicU64,
    /// Its store time, or an earlier one.
    missing_timestamp: AtomicI64,
    /// [`NONE`] until replication says how far it is.
    replicated: AtomicU64,
    sync_flush: bool,
}

impl Positions {
    pub fn new(end: u64, sync_flush: bool, has_pool: bool, last_timestamp: i64) -> Positions {
        Positions {
            written: AtomicU64::new(end),
            written_timestamp: AtomicI64::new(last_timestamp),
            flushed: AtomicU64::new(end),
            looks_torn: AtomicU64::new(0),
            committed: has_pool.then(|| AtomicU64::new(end)),
            dispatched: AtomicU64::new(end),
            dispatched_timestamp: AtomicI64::new(last_timestamp),
            missing: AtomicU64::new(NONE),
            missing_timestamp: AtomicI64::new(i64::MAX),
            replicated: AtomicU64::new(NONE),
            sync_flush,
        }
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::Acquire)
    }

    /// How far the log survives the end of the process.
    pub fn committed(&self) -> u64 {
        self.committed.as_ref().map_or_else(|| self.written(), |committed| committed.load(Ordering::Acquire))
    }

    /// Under the lock of committing.
    pub fn committed_to(&self, to: u64) {
        if let Some(committed) = &self.committed {
            committed.store(to, Ordering::Release);
        }
    }

    /// The log ends at `end` now, behind a record of that store time. Under all its locks, when the dispatch has gone back.
    pub fn log_truncated(&self, end: u64, timestamp: i64) {
        // Each before the one that bounds it.
        self.flushed.fetch_min(end, Ordering::AcqRel);
        if let Some(committed) = &self.committed {
            committed.fetch_min(end, Ordering::AcqRel);
        }
        // What comes in the place of what is gone has not been replicated. Without any word of that it limits nothing, as before.
        let _ = self
            .replicated
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |to| (to != NONE && to > end).then_some(end));
        self.looks_torn.fetch_min(end, Ordering::AcqRel);
        self.written.store(end, Ordering::Release);
        self.written_timestamp.store(timestamp, Ordering::Release);
    }

    /// The log is empty now and begins at `begin`. Under all its locks.
    pub fn log_restarted(&self, begin: u64) {
        let marks = [&self.dispatched, &self.flushed].into_iter().chain(&self.committed).chain([&self.written]);
        // Each on its side of the one that bounds it, whichever way they go.
        let mut marks: Vec<_> = marks.collect();
        if begin > self.written() {
            marks.reverse();
        }
        marks.into_iter().for_each(|mark| mark.store(begin, Ordering::Release));
        // Nothing of what comes has been replicated. Without any word of that it limits nothing, as before.
        let _ = self
            .replicated
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |to| (to != NONE && to > begin).then_some(begin));
        self.looks_torn.store(0, Ordering::Release);
        self.written_timestamp.store(0, Ordering::Release);
        self.dispatched_timestamp.store(0, Ordering::Release);
    }

    pub fn dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Acquire)
    }

    /// Tells from where on somebody lacks records that were dispatched. Under the dispatch lock.
    pub fn set_missing(&self, first: Option<(u64, i64)>) {
        let (from, timestamp) = first.unwrap_or((NONE, i64::MAX));
        self.missing.store(from, Ordering::Release);
        self.missing_timestamp.store(timestamp, Ordering::Release);
    }

    pub fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Acquire) != NONE
    }

    /// Everything before it is in the queues and in the index.
    pub fn projected(&self) -> u64 {
        // First: what is dispatched after this look may lack more.
        let dispatched = self.dispatched();
        dispatched.min(self.missing.load(Ordering::Acquire))
    }

    /// Records stored up to this time are in the queues and in the index.
    pub fn projected_timestamp(&self) -> i64 {
        let dispatched = self.dispatched_timestamp.load(Ordering::Acquire);
        dispatched.min(self.missing_timestamp.load(Ordering::Acquire))
    }

    /// Takes nothing back that is dispatched already.
    pub fn set_replicated(&self, to: u64) {
        self.replicated.store(to, Ordering::Release);
    }

    /// Whether what is acknowledged, and what consumers see, is on the disk.
    pub fn is_sync_flush(&self) -> bool {
        self.sync_flush
    }

    /// How far other brokers may read: what a crash cannot take back that this broker promises to survive.
    pub fn feed_end(&self) -> u64 {
        if self.sync_flush { self.flushed() } else { self.committed() }
    }

    /// How far consumers may see. Java: DefaultMessageStore.getConfirmOffset.
    pub fn visible(&self) -> u64 {
        let replicated = self.replicated.load(Ordering::Acquire);
        self.feed_end().min(replicated)
    }
}
