//! What other brokers read of the log to copy it: how far, the bytes, and when there is more.

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;

use super::Store;
use crate::growth::GrowthListener;
use crate::looking::{Effort, ReadError};

impl Store {
    /// How far a feed may read: what is in the log's files, with sync flush what is on the disk. No copy has what a crash of this broker
    /// takes back.
    pub fn feed_end(&self) -> PhysicalOffset {
        PhysicalOffset(self.positions.feed_end())
    }

    /// Log bytes from an offset to the end of its segment, at most `len_max` and not beyond [`Store::feed_end`]; `None` there, and
    /// where the log is gone ([`Store::is_gone`]). Java: MappedFile.getReadPosition, which goes beyond what is flushed.
    pub fn raw_from(&self, from: PhysicalOffset, len_max: usize) -> Result<Option<Bytes>, ReadError> {
        self.raw(from, len_max, Effort::Full)
    }

    /// [`Store::raw_from`] on a thread that must not wait for the disk: what is not in memory is [`ReadError::NeedsTime`].
    pub fn raw_at_once(&self, from: PhysicalOffset, len_max: usize) -> Result<Option<Bytes>, ReadError> {
        self.raw(from, len_max, Effort::Brief)
    }

    fn raw(&self, from: PhysicalOffset, len_max: usize, effort: Effort) -> Result<Option<Bytes>, ReadError> {
        let left = self.positions.feed_end().saturating_sub(from.0);
        let len_max = len_max.min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(slice) = self.segments.slice_to_end(from.0, len_max) else { return Ok(None) };
        let bytes = self.segments.look(&self.reader.look(effort), from.0, slice.len())?;
        Ok(bytes.map(|slice| slice.into_bytes()))
    }

    /// Has `listener` called with [`Store::feed_end`] whenever that has grown, for as long as what this gives lives: once for all that a
    /// [`Round`](crate::Round) has appended, and with sync flush once for a sync, before any of their waiters is told. It runs on the
    /// thread that appends, commits or syncs: it must be short, and of this store it may only read ([`Store::raw_from`]).
    pub fn on_growth(&self, listener: impl Fn(PhysicalOffset) + Send + Sync + 'static) -> GrowthListener {
        self.growth.listen(Box::new(listener))
    }
}
