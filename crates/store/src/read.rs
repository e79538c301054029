//! Reading a queue: from entries to slices of the mapped log; only what is short is copied.
//!
//! Java: DefaultMessageStore.getMessage, ConsumeQueue.getOffsetInQueueByTime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use ferromq_protocol::message::Record;
use ferromq_protocol::{QueueId, QueueOffset};

use crate::collection::{AnswerRoom, Collected, Collection, Room};
use crate::config::StoreConfig;
use crate::consume_queue::{ConsumeQueue, try_partition_point};
use crate::disk::Disk;
use crate::looking::{Effort, Look, ReadError};
use crate::mending::{Mender, is_message};
use crate::message_filter::MessageFilter;
use crate::projection::Projection;
use crate::queue_file::{ENTRY_LEN, QueueEntry};
use crate::queues::Queues;
use crate::read_status::ReadStatus;
use crate::segments::Segments;
use crate::stats::Counters;
use crate::watermarks::Positions;

/// Absolute bounds of what one read returns. Java: GetMessageResult, `maxTotal`.
const BYTES_MIN: usize = 100;
const BYTES_MAX: usize = 128 << 20;

/// First and one-after-last offset of a queue; by default those of one that nothing was ever in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueBounds {
    pub min: QueueOffset,
    pub max: QueueOffset,
}

/// Most a read returns. The store's own limits for messages in memory and on disk apply as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    pub count_max: usize,
    /// The first message is returned even if it is longer.
    pub bytes_max: usize,
}

impl ReadLimits {
    /// So many messages, whatever their size.
    pub fn count(count_max: usize) -> ReadLimits {
        ReadLimits { count_max, bytes_max: BYTES_MAX }
    }
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    pub status: ReadStatus,
    /// Where the consumer goes on.
    pub next_offset: QueueOffset,
    pub min_offset: QueueOffset,
    pub max_offset: QueueOffset,
    /// Whole records in queue order. Long runs of neighbours are slices of the mapped log, short ones are copied together.
    pub chunks: Vec<Bytes>,
    /// Messages in `chunks`, and their bytes.
    pub count: usize,
    pub len_bytes: usize,
    /// The consumer is so far behind that its messages are no longer in memory here.
    pub suggest_slave: bool,
}

/// Which of two messages around a time is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boundary {
    /// The first message stored at the time or later.
    #[default]
    Lower,
    /// The last message stored at the time or earlier.
    Upper,
}

/// The limits of the store itself.
#[derive(Debug)]
struct StoreLimits {
    bytes_in_memory: usize,
    count_in_memory: usize,
    bytes_on_disk: usize,
    count_on_disk: usize,
    scan_bytes: usize,
    /// Log this close to the end is expected to be in memory.
    in_memory_bytes: AtomicU64,
}

impl StoreLimits {
    /// What an answer may hold, of a log that ends at `log_end`.
    fn room(&self, asked: ReadLimits, log_end: u64) -> AnswerRoom {
        let bytes = asked.bytes_max.clamp(BYTES_MIN, BYTES_MAX);
        let of = |count: usize, most: usize| Room { count: asked.count_max.min(count), bytes: bytes.min(most) };
        AnswerRoom {
            in_memory_from: log_end.saturating_sub(self.in_memory_bytes.load(Ordering::Relaxed)),
            in_memory: of(self.count_in_memory, self.bytes_in_memory),
            on_disk: of(self.count_on_disk, self.bytes_on_disk),
        }
    }
}

/// A rough figure; rounding does not matter.
fn part_of_memory(ratio: f64) -> u64 {
    (physical_memory() as f64 * ratio) as u64
}

#[derive(Debug)]
pub struct Reader {
    queues: Arc<Queues>,
    segments: Arc<Segments>,
    positions: Arc<Positions>,
    counters: Arc<Counters>,
    disk: Arc<dyn Disk>,
    mender: Mender,
    limits: StoreLimits,
}

/// Entries looked for in memory at once: what most pulls take, five pages.
const ENTRIES_STEP: u64 = 1024;

/// So many messages that are lost are passed over in search of the store time of one that is not.
const PASSED_OVER_MAX: u64 = 1024;

impl Reader {
    /// Of a log that went up to `opened_at` when the store was opened.
    pub fn new(
        config: &StoreConfig,
        projection: Arc<Projection>,
        segments: Arc<Segments>,
        positions: Arc<Positions>,
        counters: Arc<Counters>,
        opened_at: u64,
    ) -> Reader {
        let limits = StoreLimits {
            bytes_in_memory: config.read_bytes_in_memory,
            count_in_memory: config.read_count_in_memory,
            bytes_on_disk: config.read_bytes_on_disk,
            count_on_disk: config.read_count_on_disk,
            scan_bytes: config.read_scan_bytes,
            in_memory_bytes: AtomicU64::new(part_of_memory(config.in_memory_ratio)),
        };
        let (queues, disk) = (Arc::clone(&projection.queues), Arc::clone(&config.disk));
        let mender = Mender::new(projection, Arc::clone(&segments), opened_at);
        Reader { queues, segments, positions, counters, disk, mender, limits }
    }

    /// [`StoreConfig::in_memory_ratio`] is that from now on.
    pub fn take_for_in_memory(&self, ratio: f64) {
        self.limits.in_memory_bytes.store(part_of_memory(ratio), Ordering::Relaxed);
    }

    pub fn read(
        &self,
        topic: &str,
        queue_id: QueueId,
        from: QueueOffset,
        limits: ReadLimits,
        filter: &dyn MessageFilter,
        effort: Effort,
    ) -> Result<ReadOutcome, ReadError> {
        let start = Instant::now();
        let look = Look::at(&*self.disk, effort, start);
        let outcome = self.read_queue(&look, topic, queue_id, from.0, limits, filter)?;
        self.counters.read(outcome.count, outcome.len_bytes, start.elapsed());
        Ok(outcome)
    }

    fn read_queue(
        &self,
        look: &Look<'_>,
        topic: &str,
        queue_id: QueueId,
        from: u64,
        limits: ReadLimits,
        filter: &dyn MessageFilter,
    ) -> Result<ReadOutcome, ReadError> {
        let mut outcome = ReadOutcome {
            status: ReadStatus::NoMessageInQueue,
            next_offset: QueueOffset(0),
            min_offset: QueueOffset(0),
            max_offset: QueueOffset(0),
            chunks: Vec::new(),
            count: 0,
            len_bytes: 0,
            suggest_slave: false,
        };
        let Some(queue) = self.queues.find(topic, queue_id) else { return Ok(outcome) };
        let (min, max) = (queue.min(), queue.max());
        outcome.min_offset = QueueOffset(min);
        outcome.max_offset = QueueOffset(max);
        let (status, next) = if max == 0 {
            (ReadStatus::NoMessageInQueue, 0)
        } else if from < min {
            (ReadStatus::OffsetTooSmall, min)
        } else if from == max {
            (ReadStatus::OffsetOverflowOne, from)
        } else if from > max {
            (ReadStatus::OffsetOverflowBadly, max)
        } else {
            (ReadStatus::NoMessageInQueue, from)
        };
        outcome.status = status;
        outcome.next_offset = QueueOffset(next);
        if status == ReadStatus::NoMessageInQueue && max > 0 {
            self.collect(look, &queue, from, limits, filter, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Goes through the entries from `from` to the end of their file, at most. Stops before what cannot be looked at; that is
    /// an error when nothing comes before it.
    fn collect(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        from: u64,
        limits: ReadLimits,
        filter: &dyn MessageFilter,
        outcome: &mut ReadOutcome,
    ) -> Result<(), ReadError> {
        let Some(run) = queue.look_at_run(from)? else {
            let min = queue.min();
            if from < min {
                // The queue's beginning has just moved: whoever went to the next file would miss what is between.
                outcome.status = ReadStatus::OffsetTooSmall;
                outcome.min_offset = QueueOffset(min);
                outcome.next_offset = QueueOffset(min);
                return Ok(());
            }
            outcome.status = ReadStatus::OffsetFoundNull;
            outcome.next_offset = QueueOffset(queue.next_file_start(from));
            return Ok(());
        };
        let log_end = self.positions.written();
        let scan_max = self.limits.scan_bytes.max(limits.count_max.saturating_mul(ENTRY_LEN)) / ENTRY_LEN;
        let end = run.end.min(from.saturating_add(scan_max as u64));
        let room = self.limits.room(limits, log_end);
        let mut answer = Collection::new(look, &self.segments, &self.mender, queue, filter, from, room);
        let (mut offset, mut examined) = (from, 0);
        // Entries before this are in memory.
        let mut entries_end = from;
        while offset < end {
            if offset == entries_end {
                entries_end = run.end.min(offset + ENTRIES_STEP);
                match run.file.look(look, offset..entries_end, run.end) {
                    Err(error) if offset == from => return Err(error),
                    Err(_) => break,
                    Ok(()) => {}
                }
            }
            let entry = run.file.entry(offset);
            if answer.is_full(&entry) {
                break;
            }
            examined = entry.physical.0;
            match answer.add(offset, &entry)? {
                Collected::Message => {}
                Collected::Nothing(status) if answer.count == 0 => outcome.status = status,
                Collected::Nothing(_) => {}
                Collected::Damaged if offset == from => {
                    // Once that is done, what is at its place is no obstacle.
                    self.mender.put_right(look, queue, from, &entry)?;
                    return self.collect(look, queue, from, limits, filter, outcome);
                }
                Collected::Damaged | Collected::End => break,
            }
            offset += 1;
        }
        if answer.count > 0 {
            outcome.status = ReadStatus::Found;
        }
        outcome.next_offset = QueueOffset(offset);
        (outcome.count, outcome.len_bytes) = (answer.count, answer.len_bytes);
        outcome.chunks = answer.into_pieces()?;
        // What was lost under this read, there are zeros of.
        run.file.check()?;
        outcome.suggest_slave = log_end.saturating_sub(examined) > self.limits.in_memory_bytes.load(Ordering::Relaxed);
        Ok(())
    }

    /// The entry of a queue at an offset for who goes by entries and not by pulls: one that does not lead to its message is put right first.
    /// What cannot be read is told by who reads the message.
    pub fn sound_entry(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        offset: u64,
    ) -> Result<Option<QueueEntry>, ReadError> {
        let Some(entry) = queue.look_up(look, offset)?.filter(|entry| !entry.is_filler()) else { return Ok(None) };
        let leads = match self.segments.record_at(look, entry.physical.0) {
            Err(_) => true,
            Ok(Some(bytes)) => !self.mender.is_old(&entry) || is_message(&bytes, queue, offset, &entry),
            Ok(None) => !self.mender.is_nowhere(queue, offset, &entry),
        };
        if leads {
            return Ok(Some(entry));
        }
        self.mender.put_right(look, queue, offset, &entry)?;
        Ok(queue.look_up(look, offset)?.filter(|entry| !entry.is_filler()))
    }

    /// A look at the disk of the store.
    pub fn look(&self, effort: Effort) -> Look<'_> {
        Look::new(&*self.disk, effort)
    }

    /// Store time of the message at an offset.
    pub fn store_time_at(&self, look: &Look<'_>, queue: &ConsumeQueue, offset: u64) -> Result<Option<i64>, ReadError> {
        let Some(entry) = queue.look_up(look, offset)? else { return Ok(None) };
        let bytes = self.segments.look(look, entry.physical.0, entry.len as usize)?;
        Ok(bytes.and_then(|bytes| Record::parse(&bytes).ok().map(|record| record.store_timestamp())))
    }

    /// Store time of the first message from `offset` on that can be read. `None` also when there are too many before it that
    /// cannot.
    pub fn store_time_from(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        offset: u64,
    ) -> Result<Option<i64>, ReadError> {
        for offset in offset..queue.max().min(offset.saturating_add(PASSED_OVER_MAX)) {
            if let Some(time) = self.store_time_at(look, queue, offset)? {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// The offset for a time; within min..=max, 0 without a queue. Messages that are gone count as stored before any
    /// time, those that are lost as stored with the next that is not: else who looks at one of them would go on behind it.
    pub fn offset_by_time(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        time_ms: i64,
        boundary: Boundary,
    ) -> Result<u64, ReadError> {
        let (min, max) = (queue.min(), queue.max());
        let log_min = self.segments.first().map_or(0, |first| first.start());
        let stored = |offset| match queue.look_up(look, offset)? {
            Some(entry) if entry.physical.0 >= log_min => {
                // Of too many that are lost, the first: nothing is passed over.
                Ok(self.store_time_from(look, queue, offset)?.unwrap_or(i64::MAX))
            }
            _ => Ok(i64::MIN),
        };
        match boundary {
            Boundary::Lower => try_partition_point(min, max, |offset| Ok(stored(offset)? < time_ms)),
            Boundary::Upper => {
                let after = try_partition_point(min, max, |offset| Ok(stored(offset)? <= time_ms))?;
                Ok(after.saturating_sub(1).max(min))
            }
        }
    }

    /// Whether the message at an offset is close enough to the end of the log to be in memory. Java:
    /// checkInMemByConsumeOffset.
    pub fn is_in_memory(&self, look: &Look<'_>, queue: &ConsumeQueue, offset: u64) -> Result<bool, ReadError> {
        let close = |entry: QueueEntry| {
            self.positions.written().saturating_sub(entry.physical.0)
                <= self.limits.in_memory_bytes.load(Ordering::Relaxed)
        };
        Ok(queue.look_up(look, offset)?.is_some_and(close))
    }
}

/// The machine's memory in bytes; where it is not told, 8 GiB.
fn physical_memory() -> u64 {
    let told = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    told().map_or(8 << 30, |kib| kib << 10)
}
