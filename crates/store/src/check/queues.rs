//! The consume queues against the log, both ways: each message has its entry, and each entry its message.
//!
//! The log is gone through once. Each of its messages is held against the entry at its offset, of which every queue keeps
//! a small piece in memory; so the entries of a queue that has as many as its messages named are known to be right. Only where
//! the counts differ does each entry look its message up.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use ferromq_protocol::message::Record;
use ferromq_protocol::topics;

use super::log::{Log, LogWalk};
use super::report::{FindingCount, Part, Report};
use super::window::{Window, is_blank};
use super::{CheckConfig, CheckError};
use crate::delay_levels::DelayLevels;
use crate::entry_properties::EntryProperties;
use crate::files::{self, segment_name};
use crate::graves::{self, GRAVES};
use crate::projection::queue_entry;
use crate::queue_file::{ENTRY_LEN, QueueEntry};
use crate::queues::is_directory_name;
use crate::table_change::deleted_topic;

const ENTRY: u64 = ENTRY_LEN as u64;
/// Read at a time by who goes through a queue.
const STEP: usize = 3200 * ENTRY_LEN;
/// Entries of a queue in memory while the log is gone through; and in how many queues.
const PIECE: usize = 200 * ENTRY_LEN;
const PIECES_MAX: usize = 4096;
/// Queues without a directory that are told apart.
const UNFILED_MAX: usize = 100_000;
/// Messages without an entry that are named, of one queue.
const MISSING_TOLD: usize = 8;

/// What is known of the queues' entries.
#[derive(Clone, Copy, Debug)]
pub struct QueueEntries {
    /// The broker was stopped in order.
    pub clean: bool,
    /// The entries of messages before this place are on the disk.
    pub before: u64,
}

impl QueueEntries {
    /// Whether what is wrong with an entry of the message at a place is a fault: else the next start makes it anew.
    pub fn covers(self, physical: u64) -> bool {
        self.clean || physical < self.before
    }
}

#[derive(Debug)]
pub struct Queues {
    dir: PathBuf,
    topics: BTreeMap<String, BTreeMap<u32, Queue>>,
    /// Messages of queues that have no directory.
    unfiled: BTreeMap<(String, u32), UnfiledMessage>,
    unfiled_beyond: u64,
    /// Topics whose directory was put away by a deletion that may have got no further: a start after a crash puts it back.
    buried: BTreeSet<String>,
    /// How many queues have a piece in memory.
    pieces: usize,
    pub totals: QueueTotals,
}

/// What was found in the queues, and should have been.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueTotals {
    pub queues: u64,
    pub entries: u64,
    /// Entries that say that their message was lost.
    pub lost: u64,
    /// Messages without an entry.
    pub missing: u64,
    /// Messages that the next start gives one, as after every crash.
    pub to_come: u64,
    /// Messages of topics that were deleted, or begun anew.
    pub deleted: u64,
}

#[derive(Debug, Default)]
struct Queue {
    /// Where in the queue each file begins, and how long it is, in bytes.
    files: Vec<(u64, u64)>,
    piece: Option<(u64, Vec<u8>)>,
    /// Messages of the log whose entry is right.
    right: u64,
    missing: MissingEntries,
    /// Messages whose entry leads behind them: if it is right, the topic was begun anew there.
    passed_over: u64,
    /// After the last message in the log.
    next: u64,
    /// Entries before this offset are on the disk, so that what is wrong with one is a fault; the next start makes others anew.
    on_disk: u64,
    /// After the last entry.
    end: u64,
}

#[derive(Debug, Default)]
struct UnfiledMessage {
    missing: MissingEntries,
    /// As of a [`Queue`].
    next: u64,
    on_disk: u64,
}

/// Messages without an entry.
#[derive(Debug, Default)]
struct MissingEntries {
    count: u64,
    first: Vec<MissingEntry>,
}

#[derive(Debug)]
struct MissingEntry {
    offset: u64,
    physical: u64,
    why: &'static str,
}

impl MissingEntries {
    fn add(&mut self, lacking: MissingEntry) {
        self.count += 1;
        if self.first.len() < MISSING_TOLD {
            self.first.push(lacking);
        }
    }
}

/// What a queue has at an offset.
enum Slot {
    Nothing,
    Entry(QueueEntry),
}

impl Queues {
    /// Where none are looked at.
    pub fn none(dir: PathBuf) -> Queues {
        Queues {
            dir,
            topics: BTreeMap::new(),
            unfiled: BTreeMap::new(),
            unfiled_beyond: 0,
            buried: BTreeSet::new(),
            pieces: 0,
            totals: QueueTotals::default(),
        }
    }

    /// Lists the files. A name, a length or a place that does not fit is told. Unless the broker was stopped in order (`clean`), files of
    /// which nothing was on the disk may be missing, or have no length.
    pub fn find(dir: PathBuf, clean: bool, report: &mut Report<'_>) -> Result<Queues, CheckError> {
        let mut topics: BTreeMap<String, BTreeMap<u32, Queue>> = BTreeMap::new();
        let mut file_len = 0;
        for topic_dir in files::list_dirs(&dir)? {
            let name = topic_dir.file_name().and_then(|name| name.to_str());
            let Some(topic) = name.filter(|name| *name != GRAVES) else { continue };
            let queues = topics.entry(topic.to_owned()).or_default();
            for queue_dir in files::list_dirs(&topic_dir)? {
                let id = queue_dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                let Some(id) = id else {
                    report.note(Part::Queues, &queue_dir, None, "not a queue id; nobody reads it");
                    continue;
                };
                let queue = Queue::find(&queue_dir, clean, &mut file_len, report)?;
                queues.insert(id, queue);
            }
        }
        let totals =
            QueueTotals { queues: topics.values().map(|queues| queues.len() as u64).sum(), ..QueueTotals::default() };
        let buried = files::list_dirs(&graves::by_topic(&dir))?;
        let buried = buried.iter().filter_map(|dir| Some(dir.file_name()?.to_str()?.to_owned())).collect();
        Ok(Queues { topics, buried, totals, ..Queues::none(dir) })
    }

    /// The length that most files have.
    pub fn file_len(&self) -> Option<u64> {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        let files = self.topics.values().flat_map(BTreeMap::values).flat_map(|queue| &queue.files);
        files.for_each(|(_, len)| *counts.entry(*len).or_default() += 1);
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(len, _)| len)
    }

    /// The topics that have a directory.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// One after the last message of a queue, by its entries and by the log.
    pub fn end(&self, topic: &str, id: u32) -> Option<u64> {
        let filed = self.topics.get(topic).and_then(|queues| queues.get(&id)).map(|queue| queue.end.max(queue.next));
        let unfiled = || self.unfiled.get(&(topic.to_owned(), id)).map(|unfiled| unfiled.next);
        filed.or_else(unfiled)
    }

    /// The first entry that a queue has room for, and one after the last.
    pub fn range(&self, topic: &str, id: u32) -> Option<(u64, u64)> {
        let queue = self.topics.get(topic)?.get(&id)?;
        let (first, last) = (queue.files.first()?, queue.files.last()?);
        Some((first.0 / ENTRY, (last.0 + last.1) / ENTRY))
    }

    /// The entry of a queue at an offset, if there is one.
    pub fn entry(&mut self, topic: &str, id: u32, offset: u64) -> io::Result<Option<QueueEntry>> {
        let dir = queue_dir(&self.dir, topic, id);
        let Some(queue) = self.topics.get_mut(topic).and_then(|queues| queues.get_mut(&id)) else { return Ok(None) };
        Ok(match queue.slot(&dir, offset, &mut self.pieces)? {
            Slot::Entry(entry) => Some(entry),
            Slot::Nothing => None,
        })
    }

    /// Whether the next start gives the log's message at an offset of a queue its entry, as after every crash.
    pub fn is_to_come(&self, topic: &str, id: u32, offset: u64) -> bool {
        let to_come = match self.topics.get(topic).and_then(|queues| queues.get(&id)) {
            Some(queue) => queue.on_disk..queue.next,
            None => self.unfiled.get(&(topic.to_owned(), id)).map_or(0..0, |unfiled| unfiled.on_disk..unfiled.next),
        };
        to_come.contains(&offset)
    }

    /// A record of the log, the next one.
    pub fn see(
        &mut self,
        record: &Record<'_>,
        whole: bool,
        entered: QueueEntries,
        levels: &DelayLevels,
        report: &mut Report<'_>,
    ) {
        let physical = record.physical_offset().0;
        if let Some(topic) = deleted_topic(record) {
            self.forget(&topic, physical, entered, report);
            return;
        }
        if !record.sys_flag().is_visible() || !is_directory_name(record.topic()) {
            return;
        }
        let (topic, id, offset) = (record.topic(), record.queue_id().0, record.queue_offset().0);
        let text = record.properties();
        let right = queue_entry(record, &EntryProperties::of(&text), physical, levels);
        let lacking = |why| MissingEntry { offset, physical, why };
        if self.pieces >= PIECES_MAX {
            self.topics.values_mut().flat_map(BTreeMap::values_mut).for_each(|queue| queue.piece = None);
            self.pieces = 0;
        }
        let Some(queue) = self.topics.get_mut(topic).and_then(|queues| queues.get_mut(&id)) else {
            if !whole {
                // What nobody can read need not have a place.
                return;
            }
            let is_missing = entered.covers(physical);
            self.totals.to_come += u64::from(!is_missing);
            if self.unfiled.len() >= UNFILED_MAX && !self.unfiled.contains_key(&(topic.to_owned(), id)) {
                self.unfiled_beyond += u64::from(is_missing);
                return;
            }
            let unfiled = self.unfiled.entry((topic.to_owned(), id)).or_default();
            unfiled.next = offset + 1;
            if is_missing {
                unfiled.on_disk = offset + 1;
                unfiled.missing.add(lacking("its queue is not there"));
            }
            return;
        };
        if offset == 0 && queue.next > 0 {
            // A Java broker does not say in the log that a topic was deleted.
            self.totals.deleted += queue.missing.count;
            queue.missing = MissingEntries::default();
        }
        queue.next = offset + 1;
        if entered.covers(physical) {
            queue.on_disk = offset + 1;
        }
        let dir = queue_dir(&self.dir, topic, id);
        match queue.slot(&dir, offset, &mut self.pieces) {
            Ok(Slot::Entry(entry)) if entry == right => queue.right += 1,
            Ok(_) if !whole => {}
            Ok(Slot::Entry(entry)) if !entry.is_filler() && entry.physical > right.physical => queue.passed_over += 1,
            // Whatever is there, if anything.
            Ok(_) if !entered.covers(physical) => self.totals.to_come += 1,
            Ok(Slot::Entry(entry)) if entry.is_filler() => queue.missing.add(lacking("its entry says that it is lost")),
            // The entry is looked at by itself.
            Ok(Slot::Entry(entry)) if entry.physical == right.physical => {}
            Ok(Slot::Entry(_)) => queue.missing.add(lacking("another message has its place")),
            Ok(Slot::Nothing) => queue.missing.add(lacking("there is nothing at its place")),
            Err(error) => report.fault(
                Part::Queues,
                &dir.join(segment_name(queue.file_of(offset).unwrap_or(offset * ENTRY))),
                None,
                format_args!("cannot be read: {error}"),
            ),
        }
    }

    /// At `physical` the log says that a topic's queues were deleted.
    fn forget(&mut self, topic: &str, physical: u64, entered: QueueEntries, report: &mut Report<'_>) {
        let mut before = 0;
        for (id, queue) in self.topics.get_mut(topic).into_iter().flatten() {
            if queue.right > 0 {
                let what =
                    format_args!("{} entries of before its topic was deleted at {physical} of the log", queue.right);
                report.tell(entered.covers(physical), Part::Queues, &queue_dir(&self.dir, topic, *id), None, what);
            }
            before += queue.missing.count;
            before += std::mem::take(&mut queue.passed_over);
            queue.missing = MissingEntries::default();
            (queue.next, queue.on_disk) = (0, 0);
        }
        let gone: Vec<_> = self.unfiled.keys().filter(|(name, _)| name == topic).cloned().collect();
        for key in gone {
            before += self.unfiled.remove(&key).map_or(0, |unfiled| unfiled.missing.count);
        }
        self.totals.deleted += before;
    }

    /// After the whole log was seen: tells what has no entry, and goes through the entries.
    pub fn finish(
        &mut self,
        config: &CheckConfig,
        entered: QueueEntries,
        log: &mut Log,
        walked: &LogWalk,
        report: &mut Report<'_>,
    ) {
        for ((topic, id), unfiled) in self.unfiled.iter().filter(|(_, unfiled)| unfiled.missing.count > 0) {
            let dir = queue_dir(&self.dir, topic, *id);
            let is_unknown =
                config.topics.as_ref().is_some_and(|known| !known.contains(topic)) && !topics::is_system(topic);
            if !entered.clean && self.buried.contains(topic) {
                self.totals.to_come += unfiled.missing.count;
            } else if is_unknown {
                let count = unfiled.missing.count;
                self.totals.deleted += count;
                let what =
                    format_args!("{count} messages in the log of a topic that is not known any more and has no queue");
                report.note(Part::Queues, &dir, None, what);
            } else {
                self.totals.missing += unfiled.missing.count;
                tell_missing(&dir, None, &unfiled.missing, report);
            }
        }
        if self.unfiled_beyond > 0 {
            self.totals.missing += self.unfiled_beyond;
            let what = format_args!("{} more messages of queues that are not there", self.unfiled_beyond);
            report.fault(Part::Queues, &self.dir, None, what);
        }
        for (topic, queues) in &mut self.topics {
            for (id, queue) in queues {
                let dir = queue_dir(&self.dir, topic, *id);
                self.totals.missing += queue.missing.count;
                tell_missing(&dir, Some(queue), &queue.missing, report);
                queue.piece = None;
                let mut pass = Pass {
                    dir: &dir,
                    topic,
                    id: *id,
                    entered,
                    log,
                    walked,
                    levels: &config.delay_levels,
                    totals: &mut self.totals,
                };
                pass.run(queue, report);
            }
        }
    }
}

fn queue_dir(dir: &Path, topic: &str, id: u32) -> PathBuf {
    dir.join(topic).join(id.to_string())
}

fn tell_missing(dir: &Path, queue: Option<&Queue>, missing: &MissingEntries, report: &mut Report<'_>) {
    for MissingEntry { offset, physical, why } in &missing.first {
        let what = format_args!("the message at {physical} of the log is not at offset {offset}: {why}");
        match queue.and_then(|queue| queue.file_of(*offset)) {
            Some(start) => report.fault(Part::Queues, &dir.join(segment_name(start)), offset * ENTRY - start, what),
            None => report.fault(Part::Queues, dir, None, what),
        }
    }
    let more = missing.count - missing.first.len() as u64;
    if more > 0 {
        report.fault(Part::Queues, dir, None, format_args!("and {more} more messages that are not in their queue"));
    }
}

impl Queue {
    fn find(dir: &Path, clean: bool, file_len: &mut u64, report: &mut Report<'_>) -> Result<Queue, CheckError> {
        let mut found = Vec::new();
        for path in files::list_files(dir)? {
            let len = path.metadata().map_err(|source| CheckError::Io { path: path.clone(), source })?.len();
            let start = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match start.filter(|start| start.is_multiple_of(ENTRY) && i64::try_from(*start).is_ok()) {
                Some(start) => found.push((start, len)),
                None => report.fault(Part::Queues, &path, None, "not a name of a queue file"),
            }
        }
        found.sort_unstable();
        let mut files: Vec<(u64, u64)> = Vec::with_capacity(found.len());
        let last = found.len().saturating_sub(1);
        for (number, (start, len)) in found.into_iter().enumerate() {
            let path = dir.join(segment_name(start));
            // All files of all queues are of one length.
            if *file_len == 0 {
                *file_len = len;
            }
            if len != *file_len || !len.is_multiple_of(ENTRY) {
                let is_new = (number == last || !clean) && is_blank(&path);
                let what = format_args!("has {len} bytes, others have {file_len}");
                report.tell(!is_new, Part::Queues, &path, None, what);
            }
            match files.last().map(|(before, len)| before + len) {
                Some(end) if start > end => {
                    let gap = (start - end) / ENTRY;
                    let what = format_args!("the files with the {gap} entries before it are missing");
                    report.tell(clean, Part::Queues, &path, None, what);
                }
                Some(end) if start < end => {
                    report.fault(Part::Queues, &path, None, "lies over the file before it, and is passed over");
                    continue;
                }
                _ => {}
            }
            files.push((start, len));
        }
        Ok(Queue { files, ..Queue::default() })
    }

    /// Where the file with an offset begins.
    fn file_of(&self, offset: u64) -> Option<u64> {
        let at = offset.checked_mul(ENTRY)?;
        let number = self.files.partition_point(|(start, _)| *start <= at).checked_sub(1)?;
        let (start, len) = self.files[number];
        (at + ENTRY <= start + len).then_some(start)
    }

    fn slot(&mut self, dir: &Path, offset: u64, pieces: &mut usize) -> io::Result<Slot> {
        let Some(start) = self.file_of(offset) else { return Ok(Slot::Nothing) };
        let at = offset * ENTRY;
        let has = |(from, bytes): &(u64, Vec<u8>)| *from <= at && at + ENTRY <= from + bytes.len() as u64;
        if !self.piece.as_ref().is_some_and(has) {
            let bytes = Window::open(&dir.join(segment_name(start)), PIECE)?.bytes(at - start, PIECE)?.to_vec();
            *pieces += usize::from(self.piece.is_none());
            self.piece = Some((at, bytes));
        }
        let Some((from, bytes)) = &self.piece else { return Ok(Slot::Nothing) };
        // In the piece, whose length is a usize.
        let skipped = usize::try_from(at - from).unwrap_or(usize::MAX);
        Ok(match bytes.get(skipped..).and_then(|rest| rest.first_chunk()).map(QueueEntry::decode) {
            Some(entry) if entry.is_there() => Slot::Entry(entry),
            _ => Slot::Nothing,
        })
    }
}

/// An entry, and where it is.
struct FoundEntry<'a> {
    path: &'a Path,
    at: u64,
    offset: u64,
    entry: QueueEntry,
}

/// Goes through what is in the files, blank entries left out.
fn each_entry(
    dir: &Path,
    files: &[(u64, u64)],
    report: &mut Report<'_>,
    visit: &mut dyn FnMut(&FoundEntry<'_>, &mut Report<'_>),
) {
    for (start, _) in files {
        let path = dir.join(segment_name(*start));
        let done = Window::open(&path, STEP).and_then(|mut window| {
            let mut at = 0;
            while at + ENTRY <= window.len() {
                let Some(bytes) = window.array::<ENTRY_LEN>(at)? else { break };
                if bytes == [0; ENTRY_LEN] {
                    let Some(used) = window.next_used(at)? else { break };
                    at = used - used % ENTRY;
                    continue;
                }
                let entry = QueueEntry::decode(&bytes);
                visit(&FoundEntry { path: &path, at, offset: (start + at) / ENTRY, entry }, report);
                at += ENTRY;
            }
            Ok(())
        });
        if let Err(error) = done {
            report.fault(Part::Queues, &path, None, format_args!("cannot be read: {error}"));
        }
    }
}

/// Goes through the entries of one queue.
struct Pass<'a> {
    dir: &'a Path,
    topic: &'a str,
    id: u32,
    entered: QueueEntries,
    log: &'a mut Log,
    walked: &'a LogWalk,
    levels: &'a DelayLevels,
    totals: &'a mut QueueTotals,
}

impl Pass<'_> {
    fn run(&mut self, queue: &mut Queue, report: &mut Report<'_>) {
        let (log_begin, log_end, on_disk) = (self.log.begin(), self.walked.end, queue.on_disk);
        let (mut in_log, mut behind_end, mut strange) = (0, 0, FindingCount::default());
        let (mut end, mut reached) = (None, 0);
        each_entry(self.dir, &queue.files, report, &mut |found, report| {
            let FoundEntry { path, at, offset, entry } = *found;
            self.totals.entries += 1;
            let is_fault = self.entered.clean || offset < on_disk;
            let mut fault = |what: &str| {
                if strange.one_more() {
                    report.tell(is_fault, Part::Queues, path, at, format_args!("entry {offset} {what}"));
                }
            };
            // Of what is gone, a power loss may have taken a page in the middle.
            let is_gone = entry == QueueEntry::FILLER || entry.is_before(log_begin);
            if end.is_some_and(|end| end != offset) && !is_gone {
                fault("follows entries that are blank");
            }
            end = Some(offset + 1);
            if !entry.is_there() {
                fault("is none: its length or its place cannot be");
                return;
            }
            if entry.is_filler() {
                self.totals.lost += u64::from(entry != QueueEntry::FILLER);
                return;
            }
            let physical = entry.physical.0;
            if physical < reached {
                fault("leads to a place before that of the entry before it");
            }
            reached = physical;
            if physical < log_begin {
                return;
            }
            if entry.end() <= log_end {
                in_log += 1;
            } else if is_fault {
                fault(&format!("leads to {physical}, behind the end of the log"));
            } else {
                behind_end += 1;
            }
        });
        queue.end = end.unwrap_or(0);
        if let (Some(first), None) = (queue.files.first(), end) {
            // A queue keeps its last file, with nothing in it that is still in the log.
            queue.end = first.0 / ENTRY;
        }
        if behind_end > 0 {
            let what = format_args!("{behind_end} entries behind the end of the log, which the next start takes out");
            report.note(Part::Queues, self.dir, None, what);
        }
        if in_log != queue.right {
            each_entry(self.dir, &queue.files, report, &mut |found, report| {
                let place = found.entry.physical.0;
                let is_in_log = !found.entry.is_filler()
                    && found.entry.is_there()
                    && place >= log_begin
                    && found.entry.end() <= log_end;
                if let Some(what) = is_in_log.then(|| self.fault_of(found)).flatten()
                    && strange.one_more()
                {
                    let what = format_args!("entry {} {what}", found.offset);
                    let is_fault = self.entered.clean || found.offset < on_disk;
                    report.tell(is_fault, Part::Queues, found.path, found.at, what);
                }
            });
        }
        let of_whom =
            if strange.is_none() || !self.entered.clean { &mut self.totals.deleted } else { &mut self.totals.missing };
        *of_whom += queue.passed_over;
        strange.finish(report, Part::Queues, self.dir);
    }

    /// What is wrong with an entry that leads into the log.
    fn fault_of(&mut self, found: &FoundEntry<'_>) -> Option<String> {
        let physical = found.entry.physical.0;
        let record = match self.log.record_at(physical) {
            Ok(Some(record)) => record,
            Ok(None) => return Some(format!("leads to {physical}, where there is no message")),
            Err(error) => return Some(format!("leads to {physical}, which cannot be read: {error}")),
        };
        let (topic, id, offset) = (record.topic(), record.queue_id().0, record.queue_offset().0);
        if (topic, id, offset) != (self.topic, self.id, found.offset) {
            return Some(format!("leads to {physical}, where a message of {topic} queue {id} offset {offset} is"));
        }
        let text = record.properties();
        let right = queue_entry(&record, &EntryProperties::of(&text), physical, self.levels);
        if found.entry.len != right.len {
            return Some(format!("says {} bytes, the record at {physical} has {}", found.entry.len, right.len));
        }
        // A reader gives an entry up whose message is damaged, and a crash may leave the old one but for its tags code, or a half of that.
        (found.entry.tags_code != right.tags_code && record.check_crc().is_ok()).then(|| {
            format!(
                "has the tags code {}, that of the message at {physical} is {}",
                found.entry.tags_code, right.tags_code
            )
        })
    }
}
