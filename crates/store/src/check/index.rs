//! The index files: whether their chains hang together, and whether each entry leads to a message that has the key.

use std::io;
use std::path::{Path, PathBuf};

use ferromq_protocol::message::tags::index_key_hash;
use ferromq_protocol::message::{Record, TransactionKind};

use super::CheckError;
use super::log::{Log, LogWalk, STEP};
use super::queues::QueueEntries;
use super::report::{FindingCount, Part, Report};
use super::window::{Window, is_blank};
use crate::entry_properties::EntryProperties;
use crate::files;
use crate::index::keys_of;
use crate::index_file::{ENTRY_LEN, HEADER_LEN, IndexEntry, IndexHead, IndexShape, SLOT_LEN};

/// Slots that are looked at together; a file with more is gone through several times.
const BAND: u32 = 1 << 24;

#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    files: Vec<(PathBuf, IndexShape)>,
    /// Place of the first entry's message.
    first: Option<u64>,
    /// Keys of the messages behind it that must have an entry; and how many entries of such messages there are.
    keys: u64,
    entries_of_keys: u64,
    pub totals: IndexTotals,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct IndexTotals {
    pub files: u64,
    pub entries: u64,
}

impl Index {
    /// Lists the files. Without a shape there are four entries for each slot, as in Java's default. Unless the broker was stopped in order
    /// (`clean`), files of which nothing was on the disk may have no length.
    pub fn find(
        dir: PathBuf,
        shape: Option<IndexShape>,
        clean: bool,
        report: &mut Report<'_>,
    ) -> Result<Index, CheckError> {
        let mut named = Vec::new();
        for path in files::list_files(&dir)? {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            match number {
                Some(number) => named.push((number, path)),
                None => report.fault(Part::Index, &path, None, "not a name of an index file"),
            }
        }
        named.sort();
        let mut index =
            Index { dir, files: Vec::new(), first: None, keys: 0, entries_of_keys: 0, totals: IndexTotals::default() };
        let last = named.len().saturating_sub(1);
        for (at, (_, path)) in named.into_iter().enumerate() {
            let len = path.metadata().map_err(|source| CheckError::Io { path: path.clone(), source })?.len();
            match shape.or_else(|| usual_shape(len)).filter(|shape| shape.file_len() == len) {
                Some(shape) => index.files.push((path, shape)),
                None => {
                    let is_new = (at == last || !clean) && is_blank(&path);
                    let what = format_args!("{len} bytes do not fit maxHashSlotNum and maxIndexNum");
                    report.tell(!is_new, Part::Index, &path, None, what);
                }
            }
        }
        index.totals.files = index.files.len() as u64;
        if let Some((path, shape)) = index.files.first() {
            let first = Window::open(path, HEADER_LEN).and_then(|mut window| window.array(shape.entry_at(1) as u64));
            // What is wrong with it is told when its turn comes.
            index.first = first.ok().flatten().map(|bytes| IndexEntry::decode(&bytes).physical);
        }
        Ok(index)
    }

    /// Each file with its shape, the oldest first.
    pub fn files(&self) -> &[(PathBuf, IndexShape)] {
        &self.files
    }

    /// A record of the log.
    pub fn see(&mut self, record: &Record<'_>, entered_before: u64) {
        let physical = record.physical_offset().0;
        if self.first.is_some_and(|first| first < physical && physical < entered_before) {
            self.keys += hashes(record).len() as u64;
        }
    }

    /// After the whole log was seen.
    pub fn finish(&mut self, entered: QueueEntries, log: &mut Log, walked: &LogWalk, report: &mut Report<'_>) {
        let files = std::mem::take(&mut self.files);
        let last = files.len().saturating_sub(1);
        for (number, (path, shape)) in files.iter().enumerate() {
            let strange = FindingCount::default();
            let is_on_disk = entered.clean;
            let mut pass =
                Pass { index: self, path, shape: *shape, entered, log, log_end: walked.end, strange, is_on_disk };
            if let Err(error) = pass.run(number == last, report) {
                report.fault(Part::Index, path, None, format_args!("cannot be read: {error}"));
            }
        }
        if self.keys > self.entries_of_keys {
            let lacking = self.keys - self.entries_of_keys;
            let what = format_args!(
                "{lacking} keys of messages are not in the index: lost, or stored with messageIndexEnable=false"
            );
            report.fault(Part::Index, &self.dir, None, what);
        }
    }
}

/// Goes through one file.
struct Pass<'a> {
    index: &'a mut Index,
    path: &'a Path,
    shape: IndexShape,
    entered: QueueEntries,
    log: &'a mut Log,
    log_end: u64,
    strange: FindingCount,
    /// All of the file is. Otherwise the next start makes it anew from the first entry on that does not hold.
    is_on_disk: bool,
}

impl Pass<'_> {
    fn run(&mut self, is_last: bool, report: &mut Report<'_>) -> io::Result<()> {
        let (path, shape) = (self.path, self.shape);
        let mut window = Window::open(path, STEP)?;
        let Some(head) = window.array(0)?.map(|bytes| IndexHead::decode(&bytes)) else { return Ok(()) };
        let is_used = window.next_used(0)?.is_some_and(|used| used < HEADER_LEN as u64) && head.next_entry > 1;
        if is_last && !is_used && window.next_used(HEADER_LEN as u64)?.is_none() {
            report.note(Part::Index, path, None, "made ahead and not used");
            return Ok(());
        }
        // A header that was torn may say so of a file that was being made again: what is missing of one is told by its keys.
        let last = window.array(shape.entry_at(shape.entries - 1) as u64)?.map(|bytes| IndexEntry::decode(&bytes));
        let is_full = head.next_entry >= shape.entries && last.is_some_and(|last| last.physical == head.end_physical);
        self.is_on_disk |= is_full && head.end_physical < self.entered.before;
        if !(1..=shape.entries).contains(&head.next_entry) {
            let what = format_args!("its head says that the next entry is {} of {}", head.next_entry, shape.entries);
            report.tell(self.is_on_disk, Part::Index, path, 36, what);
        }
        let next = head.next_entry.clamp(1, shape.entries);
        let (mut used, mut begin) = (0, 0);
        while begin < shape.slots {
            let band = Band { begin, heads: vec![0; BAND.min(shape.slots - begin) as usize] };
            used += self.check_band(&mut window, next, band, report)?;
            begin = begin.saturating_add(BAND);
        }
        let mut entry = |number: u32| {
            let bytes = window.array(shape.entry_at(number) as u64)?;
            io::Result::Ok(bytes.map(|bytes| IndexEntry::decode(&bytes)))
        };
        let is_on_disk = self.is_on_disk;
        let mut says = |what: &str, stated: u64, found: u64, at: u64| {
            if stated != found {
                let what = format_args!("its head says {stated} for {what}, it is {found}");
                report.tell(is_on_disk, Part::Index, path, at, what);
            }
        };
        if next > 1 {
            if let Some(first) = entry(1)? {
                says("the place of the first entry's message", head.begin_physical, first.physical, 16);
            }
            if let Some(last) = entry(next - 1)? {
                says("the place of the last entry's message", head.end_physical, last.physical, 24);
            }
        }
        says("the number of slots in use", u64::from(head.slots_used), used, 32);
        let is_behind = next < shape.entries && entry(next)?.is_some_and(|entry| !entry.is_blank());
        if is_behind && self.is_on_disk {
            let what = format_args!("entry {next} is behind the last one that the head knows");
            report.fault(Part::Index, path, shape.entry_at(next) as u64, what);
        }
        self.strange.finish(report, Part::Index, path);
        Ok(())
    }

    fn tell(&mut self, is_fault: bool, at: u64, what: &str, report: &mut Report<'_>) {
        if self.strange.one_more() {
            report.tell(is_fault, Part::Index, self.path, at, what);
        }
    }

    /// The slots of a band, and the entries in their chains. Gives how many slots are in use. With the first band, each entry's
    /// message is looked at.
    fn check_band(
        &mut self,
        window: &mut Window,
        next: u32,
        mut band: Band,
        report: &mut Report<'_>,
    ) -> io::Result<u64> {
        let shape = self.shape;
        // The keys of the message seen last.
        let mut known: Option<(u64, Vec<u32>)> = None;
        for number in 1..next {
            let at = shape.entry_at(number) as u64;
            let Some(entry) = window.array(at)?.map(|bytes| IndexEntry::decode(&bytes)) else { break };
            if let Some(head) = band.head_of(entry.hash % shape.slots) {
                if entry.previous != *head {
                    let stated = entry.previous;
                    let what =
                        format!("entry {number} says that the entry before it in its chain is {stated}, it is {head}");
                    self.tell(self.is_on_disk, at, &what, report);
                }
                *head = number;
            }
            if band.begin == 0
                && let Some(what) = self.fault_of(&entry, &mut known)
            {
                self.tell(self.is_on_disk, at, &format!("entry {number} {what}"), report);
            }
        }
        for (slot, expected) in (band.begin..).zip(&band.heads) {
            let at = shape.slot_at(slot) as u64;
            let found = window.array::<SLOT_LEN>(at)?.map_or(0, u32::from_be_bytes);
            if found != *expected {
                let what = format!("slot {slot} leads to entry {found}, its chain ends with {expected}");
                self.tell(self.is_on_disk, at, &what, report);
            }
        }
        Ok(band.heads.iter().filter(|head| **head > 0).count() as u64)
    }

    /// What is wrong with where an entry leads.
    fn fault_of(&mut self, entry: &IndexEntry, known: &mut Option<(u64, Vec<u32>)>) -> Option<String> {
        let physical = entry.physical;
        let log_begin = self.log.begin();
        self.index.totals.entries += 1;
        if physical < log_begin {
            return None;
        }
        self.index.entries_of_keys += u64::from(self.index.first.is_some_and(|first| first < physical));
        if physical >= self.log_end {
            return self.entered.covers(physical).then(|| format!("leads to {physical}, behind the end of the log"));
        }
        if known.as_ref().is_none_or(|(seen, _)| *seen != physical) {
            *known = match self.log.record_at(physical) {
                Ok(record) => record.map(|record| (physical, hashes(&record))),
                Err(error) => return Some(format!("leads to {physical}, which cannot be read: {error}")),
            };
        }
        match known {
            None => Some(format!("leads to {physical}, where there is no message")),
            Some((_, hashes)) if hashes.contains(&entry.hash) => None,
            Some(_) => Some(format!("leads to {physical}, where a message without this key is")),
        }
    }
}

/// The newest entries of some slots.
struct Band {
    begin: u32,
    heads: Vec<u32>,
}

impl Band {
    fn head_of(&mut self, slot: u32) -> Option<&mut u32> {
        self.heads.get_mut(slot.checked_sub(self.begin)? as usize)
    }
}

/// Four entries for each slot, if that is what so many bytes are.
fn usual_shape(len: u64) -> Option<IndexShape> {
    let per_slot = (SLOT_LEN + 4 * ENTRY_LEN) as u64;
    let slots = len.checked_sub(HEADER_LEN as u64).filter(|rest| rest.is_multiple_of(per_slot))? / per_slot;
    let slots = i32::try_from(slots).ok().filter(|slots| *slots > 0)?.cast_unsigned();
    Some(IndexShape { slots, entries: slots.checked_mul(4).filter(|entries| i32::try_from(*entries).is_ok())? })
}

/// The hashes that a message's entries have.
fn hashes(record: &Record<'_>) -> Vec<u32> {
    if record.sys_flag().transaction() == TransactionKind::Rollback {
        return Vec::new();
    }
    let text = record.properties();
    let properties = EntryProperties::of(&text);
    keys_of(&properties).map(|key| index_key_hash(record.topic(), key).cast_unsigned()).collect()
}
