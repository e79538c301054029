//! Entries of queues that do not lead to their messages: found by who reads them, and put right.
//!
//! An open reads only what came behind the last checkpoint, so what was damaged before that is noticed when somebody wants it. If it is
//! the entry, its message is looked for in the log between those of its neighbours; if it is the message, its entry becomes that of a
//! lost one, which consumers pass over. Either way it is named once, and nobody comes across it again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;

use crate::consume_queue::ConsumeQueue;
use crate::entry_properties::EntryProperties;
use crate::looking::{Effort, Look, ReadError};
use crate::projection::{Projection, queue_entry};
use crate::queue_file::QueueEntry;
use crate::segments::{Segments, find_at};
use crate::table_change::deleted_topic;
use crate::walk::LogItem;

/// So far is looked for a message: some ten milliseconds in memory.
const SEARCHED_MAX: u64 = 64 << 20;
/// So many entries on either side may be damaged too: those of some pages.
const NEIGHBOURS: u64 = 1024;
/// So many are named one by one.
const NAMED_MAX: u64 = 1000;

#[derive(Debug)]
pub struct Mender {
    projection: Arc<Projection>,
    segments: Arc<Segments>,
    /// What lies before was on the disk when the store was opened, and is held against its entry; what came since needs no proof.
    opened_at: u64,
    named: AtomicU64,
}

impl Mender {
    pub fn new(projection: Arc<Projection>, segments: Arc<Segments>, opened_at: u64) -> Mender {
        Mender { projection, segments, opened_at, named: AtomicU64::new(0) }
    }

    /// Whether the message of an entry has to be proven before it is given out.
    pub fn is_old(&self, entry: &QueueEntry) -> bool {
        entry.physical.0 < self.opened_at
    }

    /// Whether the place of an entry, where there is no message, is not one that the log once had.
    pub fn is_nowhere(&self, queue: &ConsumeQueue, offset: u64, entry: &QueueEntry) -> bool {
        let log_min = self.segments.first().map_or(0, |first| first.start());
        if entry.physical.0 >= log_min {
            return true;
        }
        // Messages go from the front: not the one behind another that is there.
        offset > queue.min()
            && queue.entry(offset - 1).is_ok_and(|before| before.is_some_and(|before| before.physical.0 >= log_min))
    }

    /// Makes the entry at `offset`, which does not lead to its message, one that does, or that of a lost message. May take longer than
    /// a thread that serves connections has.
    pub fn put_right(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        offset: u64,
        entry: &QueueEntry,
    ) -> Result<(), ReadError> {
        let is_its_own = self.segments.record_at(look, entry.physical.0)?.is_some_and(|bytes| {
            Record::parse(&bytes)
                .is_ok_and(|record| is_of(&record, queue, offset) && record.record_len() == entry.len as usize)
        });
        let found = if is_its_own {
            None
        } else if look.effort == Effort::Brief {
            return Err(ReadError::NeedsTime);
        } else {
            self.search(&Look::reading_on(&*self.projection.disk), queue, offset)?
        };
        self.name(queue, offset, entry, found.as_ref());
        let mended = found
            .unwrap_or_else(|| QueueEntry::lost(PhysicalOffset(self.place_of(look, queue, offset, entry, is_its_own))));
        queue.mend(offset, entry, &mended).map_err(|source| {
            let path = queue.dir().to_owned();
            ReadError::Io { path, at: 0, len: 0, source }
        })
    }

    fn name(&self, queue: &ConsumeQueue, offset: u64, entry: &QueueEntry, found: Option<&QueueEntry>) {
        let (topic, id, physical) = (queue.topic(), queue.id(), entry.physical);
        match self.named.fetch_add(1, Ordering::Relaxed) {
            NAMED_MAX => tracing::error!("there are more damaged messages; they are not named any more"),
            count if count > NAMED_MAX => {}
            _ => match found {
                Some(found) => {
                    tracing::error!(topic, queue = %id, offset, said = %physical, is = %found.physical, "an entry of a queue is damaged; its message was found and it is put right")
                }
                None => {
                    let file = self.segments.find(physical.0).map(|file| file.path().display().to_string());
                    let file = file.unwrap_or_else(|| queue.dir().display().to_string());
                    tracing::error!(topic, queue = %id, offset, %physical, file, "a message is damaged; consumers pass over it");
                }
            },
        }
    }

    /// A place for a lost message: places grow along a queue.
    fn place_of(
        &self,
        look: &Look<'_>,
        queue: &ConsumeQueue,
        offset: u64,
        entry: &QueueEntry,
        is_its_own: bool,
    ) -> u64 {
        if is_its_own {
            return entry.physical.0;
        }
        self.neighbours(look, queue, offset).map_or(0, |(between, _)| between.start)
    }

    /// The part of the log in which the message at an offset has to be; and whether it begins behind one of the queue.
    fn neighbours(&self, look: &Look<'_>, queue: &ConsumeQueue, offset: u64) -> Result<(Range<u64>, bool), ReadError> {
        let (log_min, end) = (self.segments.first().map_or(0, |first| first.start()), self.opened_at);
        let (min, max) = (queue.min(), queue.max());
        let proven = |offset: u64| -> Result<Option<QueueEntry>, ReadError> {
            let Some(entry) = queue.look_up(look, offset)? else { return Ok(None) };
            let holds = (log_min..end).contains(&entry.physical.0)
                && (entry.is_filler()
                    || self.record(look, &entry)?.is_some_and(|bytes| is_message(&bytes, queue, offset, &entry)));
            Ok(holds.then_some(entry))
        };
        let (mut between, mut follows) = (log_min..end, false);
        for before in (min.max(offset.saturating_sub(NEIGHBOURS))..offset).rev() {
            if let Some(entry) = proven(before)? {
                (between.start, follows) = (entry.end(), true);
                break;
            }
        }
        for after in offset + 1..max.min(offset.saturating_add(NEIGHBOURS)) {
            if let Some(entry) = proven(after)? {
                between.end = entry.physical.0.max(between.start);
                break;
            }
        }
        Ok((between, follows))
    }

    fn record(&self, look: &Look<'_>, entry: &QueueEntry) -> Result<Option<Bytes>, ReadError> {
        self.segments.record_at(look, entry.physical.0)
    }

    /// The entry that the message at an offset should have, if it is in the log.
    fn search(&self, look: &Look<'_>, queue: &ConsumeQueue, offset: u64) -> Result<Option<QueueEntry>, ReadError> {
        let (between, follows) = self.neighbours(look, queue, offset)?;
        let end = between.end.min(between.start.saturating_add(SEARCHED_MAX));
        if !follows && end < between.end {
            // It may be of before the topic was deleted and begun anew.
            return Ok(None);
        }
        let mut found = None;
        let mut physical = between.start;
        while physical < end
            && let Some(file) = self.segments.find(physical)
            && let Some(bytes) = file.slice(0..file.written())
        {
            // Inside the file, whose length is a usize.
            let mut at = (physical - file.start()) as usize;
            while at < bytes.len() && file.start() + (at as u64) < end {
                match find_at(&file, look, &bytes, at)? {
                    LogItem::Record(record) => {
                        if deleted_topic(&record).is_some_and(|topic| topic == queue.topic()) {
                            found = None;
                        }
                        if is_of(&record, queue, offset) && record.check_crc().is_ok() {
                            let text = record.properties();
                            let physical = file.start() + at as u64;
                            let properties = EntryProperties::of(&text);
                            found = Some(queue_entry(&record, &properties, physical, &self.projection.delay_levels));
                        }
                        at += record.record_len();
                    }
                    LogItem::Damage { len, .. } => {
                        // That the topic was deleted may have stood there.
                        found = found.filter(|_| follows);
                        at += len;
                    }
                    LogItem::End => at = bytes.len(),
                    LogItem::Part => return Ok(found),
                }
            }
            physical = file.end();
        }
        Ok(found)
    }
}

/// Whether the bytes that an entry leads to are its message, and whole.
pub fn is_message(bytes: &[u8], queue: &ConsumeQueue, offset: u64, entry: &QueueEntry) -> bool {
    Record::parse(bytes).is_ok_and(|record| {
        record.record_len() == entry.len as usize
            && record.physical_offset() == entry.physical
            && is_of(&record, queue, offset)
            && record.check_crc().is_ok()
    })
}

fn is_of(record: &Record<'_>, queue: &ConsumeQueue, offset: u64) -> bool {
    record.queue_offset().0 == offset
        && record.queue_id() == queue.id()
        && record.topic() == queue.topic()
        && record.sys_flag().is_visible()
}
