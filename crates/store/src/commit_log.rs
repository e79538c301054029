//! The commit log's tail: the one place where messages get their offsets and bytes enter the log.
//!
//! Under the lock there is no system call, no page fault as long as the allocator keeps ahead, and no allocation but at
//! the roll to a new segment: records come encoded, the next segment and the pages ahead are the allocator's work.
//! Java: CommitLog.asyncPutMessage.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ferromq_protocol::message::Record;
use ferromq_protocol::message::record::{BLANK_LEN, blank, stamp_record};
use ferromq_protocol::{PhysicalOffset, QueueOffset};
use parking_lot::{Mutex, MutexGuard};

use crate::allocator::Allocator;
use crate::clock::Clock;
use crate::consume_queue::{ConsumeQueue, QueueStanding};
use crate::copy::{Run, believed_time};
use crate::disk::PAGE;
use crate::error::{AppendError, CopyFault};
use crate::health::{Health, HealthCheck};
use crate::mapped_file::LogFile;
use crate::segments::Segments;
use crate::stats::Counters;
use crate::torn_text::has_torn_text;
use crate::watermarks::Positions;

/// Where records went.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub physical: u64,
    pub queue_offset: u64,
    pub store_timestamp: i64,
    pub end: u64,
}

/// Where bytes of another broker's log go.
#[derive(Clone, Copy, Debug)]
pub enum CopyPlace {
    /// To the end of this one, which is at `in_segment` of its segment; no more than `len_max` at a time.
    End { in_segment: usize, room: usize, len_max: usize },
    /// Nowhere: they are what stands there behind the filler's head, of which this log has zeros already.
    InFiller { left: u64 },
}

#[derive(Debug)]
pub struct CommitLog {
    tail: Mutex<Arc<LogFile>>,
    segments: Arc<Segments>,
    /// Most bytes of one append, and of the filler behind it.
    append_len_max: u64,
    allocator: Arc<Allocator>,
    positions: Arc<Positions>,
    health: Arc<Health>,
    counters: Arc<Counters>,
    clock: Clock,
    /// Where the rest begins of the filler that ended the segment before the tail. Under the lock.
    filler_rest: AtomicU64,
    /// Since when the lock is held, in clock milliseconds; 0 when it is free.
    locked_since: AtomicI64,
}

impl CommitLog {
    /// `tail` is the last segment.
    #[allow(clippy::too_many_arguments, reason = "composition: each part is used as it is")]
    pub fn new(
        tail: Arc<LogFile>,
        segments: Arc<Segments>,
        append_len_max: u64,
        allocator: Arc<Allocator>,
        positions: Arc<Positions>,
        health: Arc<Health>,
        counters: Arc<Counters>,
        clock: Clock,
    ) -> CommitLog {
        CommitLog {
            tail: Mutex::new(tail),
            segments,
            append_len_max,
            allocator,
            positions,
            health,
            counters,
            clock,
            filler_rest: AtomicU64::new(u64::MAX),
            locked_since: AtomicI64::new(0),
        }
    }

    /// Appends encoded records of one queue, all of them in one segment, or none. `lens` are their lengths.
    /// With `takes_offsets` the queue's next offsets are used up, else they all get 0. `check` says whether the store's health
    /// allows it.
    ///
    /// `None` when the queue's topic was deleted meanwhile: look the queue up again.
    pub fn append(
        &self,
        records: &mut [u8],
        lens: &[usize],
        queue: &ConsumeQueue,
        takes_offsets: bool,
        check: HealthCheck,
    ) -> Result<Option<Placement>, AppendError> {
        let needed = records.len() + BLANK_LEN;
        if needed as u64 > self.append_len_max {
            return Err(AppendError::LargerThanSegment { len: records.len(), len_max: self.append_len_max });
        }
        let mut tail = self.tail_with_room(needed, check)?;
        match queue.standing() {
            QueueStanding::Live => {}
            QueueStanding::Retired => return Ok(None),
            // What gets no entry does not need the queue.
            QueueStanding::Behind(_) if !takes_offsets => {}
            QueueStanding::Behind(reason) => {
                return Err(AppendError::QueueBehind { topic: queue.topic().to_owned(), queue: queue.id(), reason });
            }
        }
        let queue_offset = if takes_offsets { queue.next() } else { 0 };
        if takes_offsets {
            queue.advance_next(queue_offset + lens.len() as u64);
        }
        self.write(&mut tail, records, lens, queue_offset, u64::from(takes_offsets)).map(Some)
    }

    /// Waits until there is room for a record of the store's own, which is taken on a full disk as well: its bytes are allocated, and
    /// what it says may be what makes room.
    pub fn wait_for_room(&self, len: usize) -> Result<(), AppendError> {
        self.tail_with_room(len + BLANK_LEN, Health::check_own).map(drop)
    }

    /// The locked tail if it has room for such a record at this moment.
    pub fn hold_with_room(&self, len: usize) -> Result<Option<MutexGuard<'_, Arc<LogFile>>>, AppendError> {
        let tail = self.tail.lock();
        self.health.check_own()?;
        Ok(Some(tail).filter(|tail| tail.ready() >= len + BLANK_LEN))
    }

    /// Appends one encoded record that no queue gets an entry of, at the locked tail, which has room for it.
    pub fn append_alone(
        &self,
        tail: &mut MutexGuard<'_, Arc<LogFile>>,
        record: &mut [u8],
    ) -> Result<Placement, AppendError> {
        let lens = [record.len()];
        self.write(tail, record, &lens, 0, 0)
    }

    /// Writes records at the tail, which has room for them; each gets a queue offset by `step` higher than the one before.
    fn write(
        &self,
        tail: &mut MutexGuard<'_, Arc<LogFile>>,
        records: &mut [u8],
        lens: &[usize],
        queue_offset: u64,
        step: u64,
    ) -> Result<Placement, AppendError> {
        let store_timestamp = self.clock.now_ms();
        self.locked_since.store(store_timestamp, Ordering::Relaxed);
        let physical = tail.start() + tail.written() as u64;
        let mut rest = &mut *records;
        let (mut at, mut offset) = (physical, queue_offset);
        for len in lens {
            let (record, after) = rest.split_at_mut(*len);
            stamp_record(record, QueueOffset(offset), PhysicalOffset(at), store_timestamp);
            // Inside the file, whose length is a usize.
            let looks_torn = looks_torn(record, (at - tail.start()) as usize);
            at += *len as u64;
            if looks_torn {
                self.positions.looks_torn.store(at, Ordering::Release);
            }
            offset += step;
            rest = after;
        }
        self.put(tail, records)?;
        self.publish(tail, at, store_timestamp, lens.len(), records.len());
        Ok(Placement { physical, queue_offset, store_timestamp, end: at })
    }

    /// Puts bytes at the tail, which has room for them.
    fn put(&self, tail: &LogFile, bytes: &[u8]) -> Result<(), AppendError> {
        tail.append(bytes).map_err(|error| {
            self.locked_since.store(0, Ordering::Relaxed);
            let reason: Arc<str> = format!("the commit log does not take what is written: {error}").into();
            self.health.poison(reason.to_string());
            AppendError::Poisoned { reason }
        })
    }

    /// Where bytes of another broker's log go that stand at `at` there. Begins the next segment if this one is full.
    pub fn copy_place(&self, at: u64) -> Result<CopyPlace, CopyFault> {
        let mut tail = self.tail.lock();
        loop {
            self.health.check_stream()?;
            let end = tail.start() + tail.written() as u64;
            if at < end && tail.written() == 0 && at >= self.filler_rest.load(Ordering::Relaxed) {
                return Ok(CopyPlace::InFiller { left: end - at });
            }
            if at != end {
                return Err(CopyFault::NotAtEnd { end: PhysicalOffset(end) });
            }
            if tail.room() > 0 {
                let len_max = usize::try_from(self.append_len_max).unwrap_or(usize::MAX) - BLANK_LEN;
                return Ok(CopyPlace::End { in_segment: tail.written(), room: tail.room(), len_max });
            }
            tail = self.roll(tail)?;
        }
    }

    /// Appends checked records of another broker's log, which stand at `at` there, as they are.
    pub fn append_run(&self, at: u64, bytes: &[u8], run: &Run) -> Result<(), CopyFault> {
        let needed = bytes.len() + BLANK_LEN;
        if needed as u64 > self.append_len_max {
            let refused = AppendError::LargerThanSegment { len: bytes.len(), len_max: self.append_len_max };
            return Err(refused.into());
        }
        let mut tail = self.tail_at(at)?;
        while tail.ready() < needed {
            drop(self.wait_until_ready(tail, needed)?);
            tail = self.tail_at(at)?;
        }
        if let Some(torn_end) = run.torn_end {
            self.positions.looks_torn.store(at + torn_end as u64, Ordering::Release);
        }
        let timestamp = believed_time(run.timestamp, self.clock.now_ms());
        self.put(&tail, bytes)?;
        self.publish(&mut tail, at + bytes.len() as u64, timestamp, 0, bytes.len());
        Ok(())
    }

    /// Ends the segment at `at`, where another broker's log has done so.
    pub fn end_segment(&self, at: u64) -> Result<(), CopyFault> {
        let mut tail = self.tail_at(at)?;
        let next = tail.end();
        loop {
            tail = self.roll(tail)?;
            if tail.start() == next {
                return Ok(());
            }
            drop(tail);
            tail = self.tail_at(at)?;
        }
    }

    /// The locked tail, if the log ends at `at` and a copy may go on there.
    fn tail_at(&self, at: u64) -> Result<MutexGuard<'_, Arc<LogFile>>, CopyFault> {
        let tail = self.tail.lock();
        self.health.check_stream()?;
        let end = tail.start() + tail.written() as u64;
        if at == end { Ok(tail) } else { Err(CopyFault::NotAtEnd { end: PhysicalOffset(end) }) }
    }

    /// Keeps appends out for as long as the guard lives.
    pub fn hold(&self) -> MutexGuard<'_, Arc<LogFile>> {
        self.tail.lock()
    }

    /// No segment was ended here: the log begins anew. Under the lock.
    pub fn forget_filler(&self) {
        self.filler_rest.store(u64::MAX, Ordering::Relaxed);
    }

    /// How long the present holder of the lock has had it, in milliseconds.
    pub fn lock_held_ms(&self) -> u64 {
        match self.locked_since.load(Ordering::Relaxed) {
            0 => 0,
            since => u64::try_from(self.clock.now_ms().saturating_sub(since)).unwrap_or(0),
        }
    }

    fn publish(&self, _tail: &mut MutexGuard<'_, Arc<LogFile>>, end: u64, timestamp: i64, count: usize, bytes: usize) {
        self.positions.written.store(end, Ordering::Release);
        self.positions.written_timestamp.store(timestamp, Ordering::Release);
        // Plain additions: the lock is held.
        let add = |counter: &std::sync::atomic::AtomicU64, more: usize| {
            counter.store(counter.load(Ordering::Relaxed) + more as u64, Ordering::Relaxed);
        };
        add(&self.counters.put_count, count);
        add(&self.counters.put_bytes, bytes);
        self.locked_since.store(0, Ordering::Relaxed);
    }

    /// The locked tail with room for so many bytes (rolled to the next segment if need be), if `check` takes the store's health.
    fn tail_with_room(&self, needed: usize, check: HealthCheck) -> Result<MutexGuard<'_, Arc<LogFile>>, AppendError> {
        let mut tail = self.tail.lock();
        loop {
            // Under the lock: after `Health::close` and one `hold`, nothing is appended any more.
            check(&self.health)?;
            tail = if tail.room() < needed {
                self.roll(tail)?
            } else if tail.ready() < needed {
                self.wait_until_ready(tail, needed)?
            } else {
                return Ok(tail);
            };
        }
    }

    /// Waits until the allocator has readied `needed` bytes behind the tail, with the lock given up meanwhile.
    fn wait_until_ready<'a>(
        &'a self,
        tail: MutexGuard<'a, Arc<LogFile>>,
        needed: usize,
    ) -> Result<MutexGuard<'a, Arc<LogFile>>, AppendError> {
        let file = Arc::clone(&tail);
        drop(tail);
        self.allocator.wait_until_ready(&file, needed)?;
        Ok(self.tail.lock())
    }

    /// Ends the segment with a filler and goes on in the next one, which begins at its end. Gives the lock up while
    /// it has to wait for that one: another append may roll meanwhile.
    fn roll<'a>(&'a self, mut tail: MutexGuard<'a, Arc<LogFile>>) -> Result<MutexGuard<'a, Arc<LogFile>>, AppendError> {
        let end = tail.end();
        let room = tail.room();
        if tail.ready() < room.min(BLANK_LEN) {
            return self.wait_until_ready(tail, room.min(BLANK_LEN));
        }
        let Some(next) = self.allocator.take(end) else {
            drop(tail);
            self.allocator.wait(end)?;
            return Ok(self.tail.lock());
        };
        self.filler_rest.store(end - room.saturating_sub(BLANK_LEN) as u64, Ordering::Relaxed);
        if room > 0 {
            // Every record leaves room for a filler; a segment is at most 2 GiB.
            if room >= BLANK_LEN {
                self.put(&tail, &blank(u32::try_from(room).unwrap_or(u32::MAX)))?;
            }
            tail.seal();
        }
        let next = Arc::new(next);
        self.segments.push(Arc::clone(&next));
        *tail = next;
        self.positions.written.store(end, Ordering::Release);
        Ok(tail)
    }
}

/// Whether bytes that come to stand at `at` of a segment have a zero at the end of a page, or as the last of them.
fn has_zero_at_page_end(bytes: &[u8], at: usize) -> bool {
    let first = (PAGE - 1 - at % PAGE).min(bytes.len());
    bytes.last() == Some(&0) || bytes[first..].iter().step_by(PAGE).any(|byte| *byte == 0)
}

/// Whether a record that comes to stand at `at` of a segment would be taken for torn after a power cut.
pub fn looks_torn(record: &[u8], at: usize) -> bool {
    has_zero_at_page_end(record, at) && Record::parse(record).is_ok_and(|record| has_torn_text(&record, at))
}
