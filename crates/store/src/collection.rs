//! Collecting the messages of one read: from the entries of a run to few pieces of the log.
//!
//! What is done for each entry of each pull stands here, and no more: an answer of 32 messages comes here 33 times.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferromq_protocol::message::Record;

use crate::consume_queue::ConsumeQueue;
use crate::looking::{Effort, Look, ReadError};
use crate::mapped_file::{LogFile, LogSlice};
use crate::mending::{Mender, is_message};
use crate::message_filter::MessageFilter;
use crate::queue_file::QueueEntry;
use crate::read_status::ReadStatus;
use crate::segments::Segments;

/// A run of neighbouring records up to this long is copied together with others: shorter than what it costs to name it to
/// the socket. Queues of a topic share the log, so most runs are one record.
const COPIED_LEN_MAX: usize = 2048;

/// Records that one read looks into for a filter: so many where connections wait meanwhile ...
const LOOKED_INTO_BRIEFLY: usize = 64;
/// ... and so many bytes of them elsewhere; the consumer asks again from there. Entries are bounded by `read_scan_bytes`.
const LOOKED_INTO_BYTES: usize = 16 << 20;

/// Most that an answer holds.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub count: usize,
    pub bytes: usize,
}

/// What an answer may hold: more where it comes from memory.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRoom {
    /// Log from here on is expected to be in memory.
    pub in_memory_from: u64,
    pub in_memory: Room,
    pub on_disk: Room,
}

/// What became of an entry.
pub enum Collected {
    /// The answer has its message.
    Message,
    /// There is nothing behind it for this reader, and why.
    Nothing(ReadStatus),
    /// It does not lead to its message, and has to be put right.
    Damaged,
    /// The answer ends before it.
    End,
}

/// The answer to one read, as it grows.
pub struct Collection<'a> {
    look: &'a Look<'a>,
    segments: &'a Segments,
    mender: &'a Mender,
    queue: &'a ConsumeQueue,
    filter: &'a dyn MessageFilter,
    reads_records: bool,
    /// The offset that the read begins at.
    from: u64,
    room: AnswerRoom,
    pub count: usize,
    pub len_bytes: usize,
    pieces: AnswerPieces,
    window: Option<Window>,
    /// What of the window this read has seen to be in memory.
    there: Range<usize>,
    /// Entries below this point into a segment that is gone.
    removed_below: u64,
    looked_into: FilterCost,
}

impl<'a> Collection<'a> {
    pub fn new(
        look: &'a Look<'a>,
        segments: &'a Segments,
        mender: &'a Mender,
        queue: &'a ConsumeQueue,
        filter: &'a dyn MessageFilter,
        from: u64,
        room: AnswerRoom,
    ) -> Collection<'a> {
        Collection {
            look,
            segments,
            mender,
            queue,
            filter,
            reads_records: filter.reads_records(),
            from,
            room,
            count: 0,
            len_bytes: 0,
            pieces: AnswerPieces::default(),
            window: None,
            there: 0..0,
            removed_below: 0,
            looked_into: FilterCost::default(),
        }
    }

    /// Adds the message of the entry at `offset`, if the reader wants it.
    #[inline]
    pub fn add(&mut self, offset: u64, entry: &QueueEntry) -> Result<Collected, ReadError> {
        if entry.physical.0 < self.removed_below || entry.is_filler() {
            return Ok(Collected::Nothing(ReadStatus::MessageWasRemoving));
        }
        if !entry.is_there() {
            return Ok(Collected::Damaged);
        }
        if !self.filter.matches_tags_code(Some(entry.tags_code)) {
            return Ok(Collected::Nothing(ReadStatus::NoMatchedMessage));
        }
        let Some(place) = self.place(entry)? else { return Ok(self.without_place(offset, entry)) };
        match self.bring(&place) {
            Ok(true) => {}
            Err(error) if offset == self.from || matches!(error, ReadError::NeedsTime) && self.reads_records => {
                return Err(error);
            }
            // The answer has something; the next read begins here, and says why if this cannot be read.
            Ok(false) | Err(_) => return Ok(Collected::End),
        }
        let Some(window) = &self.window else { return Ok(Collected::End) };
        if self.mender.is_old(entry) && !is_message(&window.bytes[place.clone()], self.queue, offset, entry) {
            return Ok(Collected::Damaged);
        }
        if self.reads_records {
            let record = Record::parse(&window.bytes[place.clone()]);
            if !record.is_ok_and(|record| self.filter.matches_record(&record)) {
                return Ok(Collected::Nothing(ReadStatus::NoMatchedMessage));
            }
        }
        self.count += 1;
        self.len_bytes += place.len();
        self.removed_below = 0;
        self.pieces.add(window, place);
        Ok(Collected::Message)
    }

    /// Whether the answer has no room for the message of an entry. Java: DefaultMessageStore.isTheBatchFull.
    #[inline]
    pub fn is_full(&self, entry: &QueueEntry) -> bool {
        let is_in_memory = entry.physical.0 >= self.room.in_memory_from;
        let room = if is_in_memory { &self.room.in_memory } else { &self.room.on_disk };
        // The first message is returned whatever its size.
        self.count > 0 && (self.count >= room.count || self.len_bytes + entry.len as usize > room.bytes)
    }

    /// Where in the window the message of an entry is. Goes to another segment if it is there.
    #[inline]
    fn place(&mut self, entry: &QueueEntry) -> Result<Option<Range<usize>>, ReadError> {
        match self.window.as_ref().and_then(|window| window.place(entry)) {
            Some(place) => Ok(Some(place)),
            None => self.place_elsewhere(entry),
        }
    }

    #[cold]
    fn place_elsewhere(&mut self, entry: &QueueEntry) -> Result<Option<Range<usize>>, ReadError> {
        let Some(next) = self.segments.find(entry.physical.0).and_then(Window::of) else { return Ok(None) };
        let Some(place) = next.place(entry) else { return Ok(None) };
        if let Some(before) = self.window.replace(next) {
            self.pieces.end_runs(&before);
            before.file.check_read()?;
        }
        self.there = 0..0;
        Ok(Some(place))
    }

    /// The log has nothing where the entry leads.
    #[cold]
    fn without_place(&mut self, offset: u64, entry: &QueueEntry) -> Collected {
        if self.mender.is_nowhere(self.queue, offset, entry) {
            return Collected::Damaged;
        }
        let physical = entry.physical.0;
        self.removed_below = self.segments.first().map_or(0, |first| {
            let segment_len = first.len() as u64;
            physical - physical % segment_len + segment_len
        });
        Collected::Nothing(ReadStatus::MessageWasRemoving)
    }

    /// Makes sure that `place` of the window is in memory. False when a filter has cost enough.
    #[inline]
    fn bring(&mut self, place: &Range<usize>) -> Result<bool, ReadError> {
        let is_there = self.there.start <= place.start && place.end <= self.there.end;
        let Some(window) = &self.window else { return Ok(false) };
        let fits = !self.reads_records || self.looked_into.one_more(place.len(), self.look.effort)?;
        if !is_there {
            self.there = place.start..window.file.look(self.look, place.clone())?;
        }
        Ok(fits)
    }

    /// Whole records in queue order. An error when something of them was lost meanwhile.
    pub fn into_pieces(self) -> Result<Vec<Bytes>, ReadError> {
        let pieces = self.pieces.into_pieces(self.window.as_ref());
        // What was lost under this read, there are zeros of.
        self.window.map_or(Ok(()), |window| window.file.check_read())?;
        Ok(pieces)
    }
}

/// The written part of one segment.
struct Window {
    file: Arc<LogFile>,
    start: u64,
    bytes: LogSlice,
    len: usize,
}

impl Window {
    fn of(file: Arc<LogFile>) -> Option<Window> {
        let bytes = file.slice(0..file.written())?;
        Some(Window { start: file.start(), len: bytes.len(), file, bytes })
    }

    /// Where in this segment the message of an entry is, if it is.
    #[inline]
    fn place(&self, entry: &QueueEntry) -> Option<Range<usize>> {
        let at = usize::try_from(entry.physical.0.checked_sub(self.start)?).ok()?;
        let end = at.checked_add(entry.len as usize)?;
        (end <= self.len).then_some(at..end)
    }
}

/// What a filter has cost.
#[derive(Default)]
struct FilterCost {
    records: usize,
    bytes: usize,
}

impl FilterCost {
    /// Whether one more record may be looked into in this read.
    fn one_more(&mut self, len: usize, effort: Effort) -> Result<bool, ReadError> {
        let fits = self.bytes == 0 || self.bytes + len <= LOOKED_INTO_BYTES;
        self.records += 1;
        self.bytes += len;
        match effort {
            Effort::Brief if !fits || self.records > LOOKED_INTO_BRIEFLY => Err(ReadError::NeedsTime),
            _ => Ok(fits),
        }
    }
}

/// The records of one answer, on their way to become few pieces.
#[derive(Default)]
struct AnswerPieces {
    pieces: Vec<Bytes>,
    /// What comes after the pieces: runs that were copied.
    copied: Vec<u8>,
    /// And after that: runs of neighbours in the window, not yet looked at.
    runs: Vec<Range<usize>>,
}

impl AnswerPieces {
    /// Adds a record at `place` of `window`, which is also that of the runs.
    #[inline]
    fn add(&mut self, window: &Window, place: Range<usize>) {
        // Copied when all are known: until then the memory has time to give what is not in a cache, a third of a pull's work.
        window.bytes.expect(&place);
        match self.runs.last_mut() {
            Some(run) if run.end == place.start => run.end = place.end,
            _ => self.runs.push(place),
        }
    }

    fn end_runs(&mut self, window: &Window) {
        let is_short = |run: &Range<usize>| run.len() <= COPIED_LEN_MAX;
        self.copied.reserve(self.runs.iter().filter(|run| is_short(run)).map(Range::len).sum());
        for run in std::mem::take(&mut self.runs) {
            if is_short(&run) {
                self.copied.extend_from_slice(&window.bytes[run]);
            } else {
                self.end_copied();
                // Written, so it is there.
                self.pieces.extend(window.file.slice(run).map(LogSlice::into_bytes));
            }
        }
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(Bytes::from(std::mem::take(&mut self.copied)));
        }
    }

    fn into_pieces(mut self, window: Option<&Window>) -> Vec<Bytes> {
        if let Some(window) = window {
            self.end_runs(window);
        }
        self.end_copied();
        self.pieces
    }
}
