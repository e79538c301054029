//! The files of the commit log, in order, as readers see them.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;
use ferromq_protocol::message::record::RECORD_LEN_MIN;
use parking_lot::RwLock;

use crate::disk::Disk;
use crate::looking::{Look, ReadError};
use crate::mapped_file::{LogFile, LogSlice};
use crate::walk::LogItem;

/// Longer ones cannot have been sent: no frame is.
const RECORD_LEN_MAX: usize = 128 << 20;

/// How long the record is that begins with `bytes` at `physical`, by its head; `None` where that is not the head of one. Nobody brings more
/// than that into memory, so what only looks like a head costs no more than a record can.
pub fn stated_len(bytes: &[u8], physical: u64) -> Option<usize> {
    Record::head_at(bytes, PhysicalOffset(physical)).filter(|len| *len <= RECORD_LEN_MAX)
}

/// Brings into memory what stands at `at` of a segment, of which `rest` is what is there from there on: a record and `ahead` at least, or all
/// of it where there is none, because the search for the next one may go through it. Gives how much that is.
pub fn look_at_item(file: &LogFile, look: &Look<'_>, at: usize, rest: &[u8], ahead: usize) -> Result<usize, ReadError> {
    file.look(look, at..at + rest.len().min(RECORD_LEN_MIN))?;
    let len = stated_len(rest, file.start() + at as u64).map_or(rest.len(), |len| len.max(ahead).min(rest.len()));
    file.look(look, at..at + len)?;
    Ok(len)
}

/// Contiguous segments. Pushed by the append, read by everyone.
#[derive(Debug, Default)]
pub struct Segments {
    files: RwLock<Vec<Arc<LogFile>>>,
}

impl Segments {
    pub fn new(files: Vec<Arc<LogFile>>) -> Segments {
        Segments { files: RwLock::new(files) }
    }

    pub fn push(&self, file: Arc<LogFile>) {
        self.files.write().push(file);
    }

    pub fn first(&self) -> Option<Arc<LogFile>> {
        self.files.read().first().cloned()
    }

    pub fn last(&self) -> Option<Arc<LogFile>> {
        self.files.read().last().cloned()
    }

    pub fn all(&self) -> Vec<Arc<LogFile>> {
        self.files.read().clone()
    }

    /// Takes the segments out that start at or after `start`.
    pub fn split_off(&self, start: u64) -> Vec<Arc<LogFile>> {
        let mut files = self.files.write();
        let index = files.partition_point(|file| file.start() < start);
        files.split_off(index)
    }

    /// Ends the log in `last`, which takes the place of the segment that begins where it does. Gives what it has no longer: that one, and
    /// those behind it. Who holds one of them reads on in it.
    pub fn end_in(&self, last: Arc<LogFile>) -> Vec<Arc<LogFile>> {
        let mut files = self.files.write();
        let index = files.partition_point(|file| file.start() < last.start());
        let gone = files.split_off(index);
        files.push(last);
        gone
    }

    /// Begins the log anew in `first`. Gives what it has no longer. Who holds one of these reads on in it.
    pub fn begin_in(&self, first: Arc<LogFile>) -> Vec<Arc<LogFile>> {
        std::mem::replace(&mut *self.files.write(), vec![first])
    }

    /// Has something done to the last segment that takes it alone; `None` where somebody else holds it, or there is none.
    pub fn with_last<T>(&self, act: impl FnOnce(&mut LogFile) -> T) -> Option<T> {
        self.files.write().last_mut().and_then(Arc::get_mut).map(act)
    }

    /// Takes the first segment out if it begins at `start` and another follows. Who holds it reads on in it.
    pub fn take_first(&self, start: u64) -> bool {
        let mut files = self.files.write();
        let is_it = files.len() > 1 && files.first().is_some_and(|first| first.start() == start);
        if is_it {
            files.remove(0);
        }
        is_it
    }

    /// The segment that holds byte `at`, written or not.
    pub fn find(&self, at: u64) -> Option<Arc<LogFile>> {
        let files = self.files.read();
        let first = files.first()?;
        let index = at.checked_sub(first.start())? / first.len() as u64;
        files.get(usize::try_from(index).ok()?).cloned()
    }

    /// Written bytes from `at` to the end of its segment, at most `len_max`; `None` when there are none.
    pub fn slice_to_end(&self, at: u64, len_max: usize) -> Option<LogSlice> {
        let file = self.find(at)?;
        let from = usize::try_from(at - file.start()).ok()?;
        let end = file.written().min(from.saturating_add(len_max));
        if from >= end { None } else { file.slice(from..end) }
    }

    /// `len` written bytes from `at`, all in one segment, brought into memory.
    pub fn look(&self, look: &Look<'_>, at: u64, len: usize) -> Result<Option<LogSlice>, ReadError> {
        let Some(file) = self.find(at) else { return Ok(None) };
        // Inside the file, whose length is a usize.
        let from = (at - file.start()) as usize;
        let Some(slice) = from.checked_add(len).and_then(|end| file.slice(from..end)) else { return Ok(None) };
        file.look(look, from..from + len)?;
        Ok(Some(slice))
    }

    /// The record at `at` as bytes for a reply; `None` where none begins, or it is gone. Any byte may be meant: how much is
    /// brought into memory is only what the head of a record says.
    pub fn record_at(&self, look: &Look<'_>, at: u64) -> Result<Option<Bytes>, ReadError> {
        let Some(head) = self.look(look, at, RECORD_LEN_MIN)? else { return Ok(None) };
        let len = stated_len(&head, at);
        drop(head);
        let Some(len) = len else { return Ok(None) };
        let record = self.look(look, at, len)?;
        Ok(record.filter(|bytes| Record::parse(bytes).is_ok()).map(LogSlice::into_bytes))
    }

    /// Whether what is left at `at`, where no record can be read, shows that one was there.
    pub fn has_remnant(&self, look: &Look<'_>, at: u64) -> Result<bool, ReadError> {
        let head = self.look(look, at, RECORD_LEN_MIN)?;
        // At 0 anything that is zero says that it belongs there.
        Ok(at > 0 && head.is_some_and(|head| Record::is_remnant_at(&head, PhysicalOffset(at))))
    }

    /// Has the oldest buffer of the write pool given back, if it is all in its file. False when none is.
    pub fn unstage_oldest(&self) -> io::Result<bool> {
        // Buffers are given back in their order, so the segments that have any are next to each other at the end.
        let files = self.files.read();
        let staged = files.iter().rev().skip_while(|file| !file.is_staged()).take_while(|file| file.is_staged());
        let oldest = staged.last().cloned();
        drop(files);
        oldest.map_or(Ok(false), |oldest| oldest.unstage_oldest())
    }

    /// Makes `range` of the log durable, segment by segment.
    pub fn sync(&self, disk: &dyn Disk, range: Range<u64>) -> io::Result<()> {
        self.for_each_part(range, |file, part| file.sync(disk, part))
    }

    /// Writes `range` of the log once more: see [`LogFile::rewrite`].
    pub fn rewrite(&self, disk: &dyn Disk, range: Range<u64>) -> io::Result<()> {
        self.for_each_part(range, |file, part| file.rewrite(disk, part))
    }

    /// Starts writing `range` to the device.
    pub fn start_write_back(&self, range: Range<u64>) {
        // The closure cannot fail.
        let _ = self.for_each_part::<Infallible>(range, |file, part| {
            file.start_write_back(part);
            Ok(())
        });
    }

    fn for_each_part<E>(
        &self,
        range: Range<u64>,
        mut act: impl FnMut(&Arc<LogFile>, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = range.start;
        while at < range.end {
            let Some(file) = self.find(at) else {
                // Removed meanwhile, or never there: go on where files are.
                match self.first() {
                    Some(first) if first.start() > at => at = first.start(),
                    _ => return Ok(()),
                }
                continue;
            };
            let end = range.end.min(file.end());
            // Both ends lie inside the file, whose length is a usize.
            act(&file, (at - file.start()) as usize..(end - file.start()) as usize)?;
            at = end;
        }
        Ok(())
    }
}

/// What stands at `at` of a segment, of which `bytes` are written. No more than that is brought into memory.
pub fn find_at<'a>(file: &LogFile, look: &Look<'_>, bytes: &'a [u8], at: usize) -> Result<LogItem<'a>, ReadError> {
    let (rest, physical) = (&bytes[at..], file.start() + at as u64);
    let len = look_at_item(file, look, at, rest, 0)?;
    Ok(LogItem::at(&rest[..len], physical, file.len() - at))
}
